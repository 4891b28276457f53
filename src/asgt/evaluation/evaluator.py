"""Runs all searches of a protocol on all images, shard by shard, and continues from the files of a folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..attacks import Attack
from ..attacks.attack import is_legal
from ..data import Images, PlantedPixels, batch_that_fits, batches
from ..errors import DamagedFileError, InputError
from ..files import is_sealed
from ..manifest import check_evidence
from ..modes import Classifier, evaluating
from ..progress import Progress
from ..randomness import SampleKeyed, seed_of, seeded, seeded_globally
from .accuracy import predict
from .audited_search import AuditedSearch, Piece, assumed_too_much, levels_of
from .discard_audit import WIDER, Discards
from .engine import smallest_norms
from .known import Outcome
from .outcomes import Evaluation, Request
from .phased import phased_norms
from .pieces import BEFORE_AUDITS, from_full, from_phases
from .protocols import PhasedSearch, Search
from .shards import EXHAUSTIVE, WORST_CASE, read_shard, refuse_other_evidence, shard_file, write_shard

__all__ = ["AUDITED", "SHARD", "Evaluator"]

SHARD = 1024
"""The number of samples in a file of evidence: the most that a killed evaluation loses, whatever the batch size.

Half of it under a search in phases, which decides within a shard who is near. Under several attacks an eighth of it;
half of it where they are called whole, for small groups take them long.
"""
_SHARD_VALUES, _FEWEST = 2**24, 16
"""A shard of large images holds fewer: so many values, 64 MiB as floats, but at least so many images."""

AUDITED = 64
"""Random samples that a worst-case search attacks at a random ε below their failure too."""


@dataclass(kw_only=True)
class Evaluator:
    """Runs the searches of a request, and continues from the files of the folder."""

    model: nn.Module | Classifier
    images: Images
    request: Request
    clean: Tensor
    batch_size: int
    folder: Path | None
    progress: Progress
    seconds: float = field(default=0.0, init=False)

    def evaluated(self) -> Evaluation:
        """The outcomes of all searches, not yet checked."""

        request, protocol, clean, pixels = self.request, self.request.protocol, self.clean, self.images.pixels
        outcomes, details, seconds, discards = {}, {}, {}, {}
        self.progress.start(f"{protocol.name} v{protocol.version}", sum(map(self.work, protocol.searches)))
        for search in protocol.searches:
            self.seconds = 0.0
            if isinstance(search, PhasedSearch):
                tensors, discards[search.name] = self.budgeted(search)
            else:
                tensors = self.searched(search, request.exhaustive)
            outcomes[search.name], clean = tensors.pop("correct"), tensors.pop("clean")
            details[search.name], seconds[search.name] = tensors, self.seconds
        self.progress.stop()
        return Evaluation(
            **vars(request),
            clean=clean,
            outcomes=outcomes,
            details=details,
            seconds=seconds,
            discards=discards,
            labels=self.images.labels.cpu(),
            class_names=self.images.classes,
            shortcut_codes=pixels.codes.cpu() if request.shortcut_view and isinstance(pixels, PlantedPixels) else None,
            shortcut=pixels.shortcut.text_in(self.images.shape) if isinstance(pixels, PlantedPixels) else "",
        )

    def work(self, search: Search) -> int:
        """The units of the progress: one for each sample and attack, or for each sample of a search in phases."""

        several = 1 if isinstance(search, PhasedSearch) else len(search.among(self.request.classes).attacks)
        return several * len(self.images)

    def searched(self, search: Search, exhaustive: bool) -> dict[str, Tensor]:
        """The result of a search on all samples, by the name of the tensor."""

        attacks = search.among(self.request.classes).attacks
        size = SHARD // 2 if replace(search, attacks=attacks).is_whole else SHARD // 8 if len(attacks) > 1 else SHARD
        size = max(_FEWEST, batch_that_fits(self.images, size, _SHARD_VALUES))
        everything = torch.arange(len(self.images))

        def found(everywhere: bool, stem: str) -> dict[str, Tensor]:
            make = partial(self.shard, search, attacks, everywhere)
            return self.by_shards(stem, everything, size, make, len(attacks))

        tensors = found(exhaustive, search.name)
        if self.request.protocol.worst_case and not exhaustive and assumed_too_much(tensors):
            self.progress.say(
                f"{search.name}: attacks below a failure succeeded: every sample is now attacked at every eps"
            )
            self.progress.start(f"{search.name}, at every eps", len(self.images))
            tensors = found(True, f"{search.name}{EXHAUSTIVE}")
        return tensors

    def budgeted(self, search: PhasedSearch) -> tuple[dict[str, Tensor], Discards]:
        """The result of a search in phases on all samples, with its audits and its full search."""

        search = search.among(self.request.classes)
        attacks = search.attacks

        def by_phases(stem: str, rows: Tensor, known: Piece | None, number: int) -> Piece:
            if number:
                self.progress.start(f"{search.name}, search {number + 1}", len(rows))
            make = partial(self.phased_shard, search, known, number)
            return self.by_shards(stem, rows, SHARD // 2, make)

        def in_full(stem: str, rows: Tensor, known: Piece | None, number: int, everywhere: bool) -> Piece:
            label = {0: "full search", BEFORE_AUDITS: "nearest images"}.get(number, f"audit {number}")
            self.progress.start(f"{search.name}, {label}", len(attacks) * len(rows))
            # Of an audit, which has only some samples, as many are attacked below their failure as of all, in its first
            # step. The nearest samples are no random ones.
            shares = torch.full((len(self.images),), torch.nan)
            begun = known is not None and bool((known["audited"].abs() == number).any())
            if number == 0 or not (begun or number == BEFORE_AUDITS):
                shares[rows] = _audited(len(rows), self.request.seed)
            make = partial(self.full_shard, search, known, number, shares, everywhere)
            return self.by_shards(stem, rows, SHARD // 8, make, len(attacks))

        backed = AuditedSearch(search, self.request, len(self.images), by_phases, in_full, self.progress.say)
        tensors, discards = backed.spent()
        del tensors["rows"]
        return tensors, discards

    def by_shards(
        self, stem: str, rows: Tensor, size: int, make: Callable[[Tensor], dict[str, Tensor]], units: int = 1
    ) -> dict[str, Tensor]:
        """Computes results of samples shard by shard, and saves each shard at once.

        Args:
            stem: what the shards' files are called.
            rows: the samples, int64 (B,).
            size: samples of a shard.
            make: gives the tensors of a shard for its samples.
            units: by how much each sample advances the progress.
        """

        shards = []
        for place, part in enumerate(rows.split(size)):
            first = place * size
            file = None if self.folder is None else shard_file(self.folder, stem, place)
            if file is not None and (stored := self.stored(file, stem, first, part)) is not None:
                tensors, took = stored
                self.progress.advance(len(part) * units)
            else:
                began = time.perf_counter()
                with seeded_globally(seed_of(stem, self.request.seed, first), self.images.labels.device):
                    tensors = make(part)
                took = round(time.perf_counter() - began, 3)  # as the shard keeps it
                if file is not None:
                    write_shard(file, self.request, tensors, stem=stem, first=first, seconds=took)
            shards.append(tensors)
            self.seconds += took
        return {name: torch.cat([shard[name] for shard in shards], dim=-1) for name in shards[0]}

    def stored(self, file: Path, stem: str, first: int, rows: Tensor) -> tuple[dict[str, Tensor], float] | None:
        """The content of a shard; ``None`` if it is missing or damaged, so that its samples are attacked again.

        Raises:
            InputError: it is of another evaluation.
        """

        if not file.exists():
            return None
        try:
            check_evidence(file.parent, file.name)
            kept = read_shard(file, self.request, stem, first)
        except DamagedFileError as error:
            self.progress.warn(f"{error}: its samples are attacked again")
            return None
        if kept is None or len(kept[0]["clean"]) != len(rows) or not torch.equal(kept[0].get("rows", rows), rows):
            refuse_other_evidence(file, self.request, stem, first)
        if not is_sealed(file):
            self.progress.warn(f"{file} has no digest (written by an earlier version): its outcomes are unverified")
        return kept

    def shard(self, search: Search, attacks: Sequence[Attack], exhaustive: bool, rows: Tensor) -> dict[str, Tensor]:
        """The result of a search on some samples: ``clean``, ``correct`` (E, B) and the details."""

        if not self.request.protocol.worst_case:
            return {"clean": self.clean[rows]} | self.as_it_falls_out(search, rows.to(self.images.labels.device))
        return self.kept(search, self.descended(attacks, rows, own=search.own, exhaustive=exhaustive))

    def descended(
        self,
        attacks: Sequence[Attack],
        rows: Tensor,
        *,
        levels: Tensor | None = None,
        shares: Tensor | None = None,
        own: bool = False,
        exhaustive: bool = False,
    ) -> Outcome:
        """The result of attacks on some samples, below their known bounds."""

        place, request = rows.to(self.images.labels.device), self.request
        return smallest_norms(
            self.model,
            self.images[place],
            attacks,
            request.epsilons,
            seed=request.seed,
            rows=place,
            clean=self.clean[rows].to(place.device),
            levels=levels,
            own=own,
            audited=(_audited(len(self.images), request.seed) if shares is None else shares)[rows],
            exhaustive=exhaustive,
            votes=request.votes,
            batch_size=self.batch_size,
            progress=self.progress,
        )

    def phased_shard(self, search: PhasedSearch, known: Piece | None, number: int, rows: Tensor) -> Piece:
        """The result of the phases on some samples; from the second search on, more σ count as near."""

        place, request = rows.to(self.images.labels.device), self.request
        outcome = phased_norms(
            self.model,
            self.images[place],
            [phase.widened(WIDER**number) for phase in search.phases],
            request.epsilons,
            clean=self.clean[rows].to(place.device),
            levels=None if known is None else levels_of(known, rows),
            again=number,
            seed=request.seed,
            rows=place,
            audited=None if known is not None else _audited(len(self.images), request.seed)[rows],
            votes=request.votes,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        return self.kept(search, outcome) | from_phases(outcome, rows)

    def full_shard(
        self, search: PhasedSearch, known: Piece | None, number: int, shares: Tensor, everywhere: bool, rows: Tensor
    ) -> Piece:
        """The result of the full search on some samples, in an audit or on all; or at every smaller ε too."""

        levels = None if known is None else levels_of(known, rows)
        outcome = self.descended(search.attacks, rows, levels=levels, shares=shares, exhaustive=everywhere)
        before = self.clean[rows].long() * len(self.request.epsilons) if levels is None else levels
        discarded = known["discarded"][rows] if known is not None and number else None
        more = from_full(outcome, rows, search, before=before, discarded=discarded, audit_number=number)
        return self.kept(search, outcome) | more

    def kept(self, search: Search, outcome: Outcome) -> dict[str, Tensor]:
        """The outcome of a worst case as a shard stores it.

        Raises:
            InputError: the model returned NaN.
        """

        if outcome.nan:
            raise InputError(
                f"the model returns NaN on images attacked by {search.name}, so it has no accuracy: look for "
                "overflow in the model"
            )
        kept = {name: getattr(outcome, name).cpu() for name in WORST_CASE}
        return kept | {
            "clean": (outcome.norms > 0).cpu(),
            "correct": outcome.correct(len(self.request.epsilons)).cpu(),
        }

    def as_it_falls_out(self, search: Search, rows: Tensor) -> dict[str, Tensor]:
        """Whether the final iterate at each ε is classified correctly, ``correct`` (E, B), and how many were
        ``illegal``.
        """

        right, illegal = [], []
        parts = zip(batches(self.images[rows], self.batch_size), rows.split(self.batch_size), strict=True)
        for (x, y), ids in parts:
            columns, outside = [], torch.zeros_like(y)
            for eps, x_adv in zip(self.request.epsilons, self.final_iterates(search, x, y, ids), strict=True):
                columns.append(predict(self.model, x_adv, f"{search.name} at eps {eps:g}") == y)
                outside += ~is_legal(x_adv, x, eps, self.request.norm)
            right.append(torch.stack(columns).cpu())
            illegal.append(outside.cpu())
            self.progress.advance(len(y))
        return {"correct": torch.cat(right, dim=1), "illegal": torch.cat(illegal)}

    def final_iterates(self, search: Search, x: Tensor, y: Tensor, rows: Tensor) -> Iterator[Tensor]:
        """Each ε from scratch on every image of a batch.

        Where the attack goes ε along one gradient, that serves all ε. And a ball that the steps cannot cross does not
        stop them: from X itself, every ε beyond their reach gives the same iterates.
        """

        (attack,) = search.attacks
        if attack.one_gradient:
            with evaluating(self.model):
                state = attack.start(self.model, x, y, 0.0)
                direction = state.gradient()[0].sign()
            for eps in self.request.epsilons:
                radius = torch.full_like(state.eps, eps)
                yield attack.moved(replace(state, eps=radius), direction, radius).x_adv
            return
        reach = None if attack.starts_at_random else search.reach
        beyond: Tensor | None = None
        for eps in self.request.epsilons:
            if beyond is not None:
                yield beyond
                continue
            x_adv = search.at(eps)(self.model, x, y, generator=SampleKeyed(self.request.seed, rows))
            # A thousandth is far more than ten steps round.
            if reach is not None and eps > 1.001 * reach:
                beyond = x_adv
            yield x_adv


def _audited(count: int, seed: int) -> Tensor:
    """The samples to be attacked below their failure, and how far: shares in [0, 1), float (N,), NaN for the others."""

    generator = seeded("audit", seed)
    shares = torch.full((count,), torch.nan)
    chosen = torch.randperm(count, generator=generator)[:AUDITED]
    shares[chosen] = torch.rand(len(chosen), generator=generator)
    return shares
