"""Accuracy over ε: a protocol, or attacks of one's own, on one model; every outcome is saved per sample."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..attacks import Attack, Norm
from ..attacks.attack import is_legal
from ..data import Images, LabelledImages, as_images, batches
from ..errors import AsgtError, DamagedFileError, InputError
from ..files import digest_model, is_sealed
from ..inputs import trusted
from ..locks import locked
from ..manifest import check_evidence
from ..modes import Classifier, evaluating
from ..numbers import Number, whole
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed, seed_of, seeded, seeded_globally
from .accuracy import class_count, correct, is_deterministic, predict
from .checks import CheckFunction, run_checks
from .engine import smallest_norms
from .outcomes import Evaluation, Request, checked_grid
from .protocols import PROTOCOLS, Protocol, Search, own_protocol, protocol_named
from .shards import (
    EXHAUSTIVE,
    WORST_CASE,
    claim_folder,
    finished_before,
    read_shard,
    refuse_other_figures,
    shard_file,
    write_result,
    write_shard,
)

__all__ = ["AUDITED", "Attacks", "evaluate", "robustness_curve"]

Attacks: TypeAlias = str | Protocol | Attack | Callable[..., Any] | Sequence[Attack | Callable[..., Any]]
"""What :func:`evaluate` evaluates by: a protocol, its name, or attacks."""

SHARD = 1024
"""Samples of a file of evidence: what a kill can cost, whatever the batch size.

Under several attacks an eighth of it; half of it where they are called whole, for small groups take them long.
"""

AUDITED = 64
"""Random samples that a worst-case search attacks at a random ε below their failure too."""

VOTES = 9
"""How often a model that is not deterministic is asked, for each of its answers to count."""

_MISSED = 0.01  # of the samples attacked below their failure; beyond it, all are attacked at every ε


def evaluate(
    model: nn.Module | Classifier,
    images: LabelledImages,
    protocol: Attacks = "pgd",
    *,
    epsilons: Sequence[Number] | Number,
    norm: Norm = "linf",
    worst_case: bool = True,
    seed: int = 0,
    exhaustive: bool = False,
    thorough: bool = False,
    checks: Sequence[CheckFunction] = (),
    batch_size: int = 256,
    folder: Path | str | None = None,
    resume: bool = False,
    selection: str = "",
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluates a classifier over a grid of ε by a protocol, or by attacks of one's own.

    ::

        evaluation = asgt.evaluate(model, (x, y), "standard", epsilons=["2/255", "4/255", "8/255"])
        evaluation = asgt.evaluate(model, (x, y), [asgt.PGD(steps=100, restarts=3)], epsilons=["8/255"])
        print(evaluation)

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: the test images, as :func:`asgt.data.as_images` takes them: a pair of images (N, C, H, W) in [0, 1] and
            labels (N,), :class:`asgt.Images`, a ``Dataset`` or a ``DataLoader``.
        protocol: the name of a protocol (``"paper"``, ``"pgd"``, ``"standard"``, ``"autoattack"``), with its version as
            ``"pgd@3"`` if you like; a :class:`asgt.Protocol`; or one attack or several, of :mod:`asgt.attacks` or of a
            library that calls them with images and labels, as torchattacks does: a function of ε that gives such an
            attack, or one whose attribute ``eps`` can be set. Attacks need no ``eps``.
        epsilons: the grid of radii, each above zero, in units of the range [0, 1]; ``"8/255"`` is accepted. In a worst
            case a fine grid costs little more.
        norm: the norm of ε; attacks of one's own must be in it.
        worst_case: of attacks of one's own, a single curve, ``"worst-case"``, of what withstands all of them and a
            probe along the margin's gradient; else each attack has its own, by its name, and nothing else counts in it.
        seed: keys the random starts by (seed, sample, attack, restart).
        exhaustive: in a worst case, attack every sample at every ε below its own too. Default: 64 random ones, each at
            one of them, and all at every one if more than 1 % of these break there.
        thorough: run the expensive checks too (:mod:`asgt.evaluation.checks`).
        checks: checks of one's own, run after those of the house: each a function of a
            :class:`asgt.evaluation.second_look.SecondLook` that returns an :class:`asgt.Check`.
        batch_size: images per forward pass; no bearing on what is drawn.
        folder: where to save the evidence. Default: nowhere.
        resume: take up what ``folder`` holds, if it was made of the same model, images and settings. Of a finished
            evaluation only the checks are run, the expensive ones too if they had been.
        selection: which images of a larger set these are, in words, for the result.
        progress: is told how many images are through.

    Raises:
        InputError: the images, the attacks, the grid, the model or the folder does not fit.
    """

    asked = _protocol(protocol, norm, worst_case)
    images = as_images(images, "images")
    grid, seed, batch_size = checked_grid(epsilons, norm), whole(seed, "seed"), whole(batch_size, "batch_size")
    folder = None if folder is None else Path(folder)
    alone = nullcontext() if folder is None else locked(folder, "asgt evaluate", progress=progress)
    with trusted(), alone:
        _check(model, images, asked, batch_size, folder)
        request, clean = _request(model, images, asked, norm, grid, seed=seed, batch_size=batch_size)
        request = replace(request, exhaustive=exhaustive, selection=selection)
        stored: dict[str, Any] | None = None
        if folder is not None:
            claim_folder(folder, resume)
            stored, was_thorough = finished_before(folder, request)
            thorough |= was_thorough

        evaluator = _Evaluator(
            model=model,
            images=images,
            request=request,
            clean=clean,
            batch_size=batch_size,
            folder=folder,
            progress=progress,
        )
        with _attacks_explained(asked):
            evaluation = evaluator.evaluated()
        if folder is not None and stored is not None:
            refuse_other_figures(folder, evaluation, stored)
        with _attacks_explained(asked), seeded_globally(seed_of("checks", seed), images.labels.device):
            said = run_checks(
                model, images, evaluation, more=checks, thorough=thorough, batch_size=batch_size, progress=progress
            )
        evaluation = replace(evaluation, checks=said)
        if folder is not None:
            write_result(folder, evaluation)
    return evaluation


@contextmanager
def _attacks_explained(protocol: Protocol) -> Iterator[None]:
    """What somebody else's attack raises, in one line that names it."""

    external = [attack.title for search in protocol.searches for attack in search.attacks if attack.is_external]
    try:
        yield
    except AsgtError:
        raise
    except Exception as error:
        if not external:
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"an attack fails ({', '.join(external)}): {type(error).__name__}: {first}") from error


def robustness_curve(
    model: nn.Module | Classifier, data: LabelledImages, *, attacks: Attacks = "pgd", **settings: Any
) -> Evaluation:
    """Deprecated: the former name of :func:`evaluate` for attacks of one's own."""

    warnings.warn("robustness_curve is deprecated: asgt.evaluate takes attacks too", DeprecationWarning, stacklevel=2)
    return evaluate(model, data, attacks, **settings)


def _protocol(asked: Attacks, norm: Norm, worst_case: bool) -> Protocol:
    if isinstance(asked, str | Protocol):
        protocol = protocol_named(asked, norm) if isinstance(asked, str) else asked.in_norm(norm)
        if protocol.name in PROTOCOLS and not protocol.is_house:
            house = f"{protocol.name} v{PROTOCOLS[protocol.name].version}"
            raise InputError(f"the protocol is called {protocol.name}, but it is not {house} of asgt: rename it")
        if not worst_case and protocol.worst_case:
            raise InputError(f"protocol {protocol.name} is a worst case: hand over attacks for curves of their own")
        return protocol
    return own_protocol(asked, norm, worst_case)


def _request(
    model: nn.Module | Classifier,
    images: Images,
    protocol: Protocol,
    norm: Norm,
    grid: tuple[float, ...],
    *,
    seed: int,
    batch_size: int,
) -> tuple[Request, Tensor]:
    """What is to be evaluated, and which samples are right as they are, bool (N,)."""

    device = images.labels.device
    # A model that draws from the global generators draws the same again, and leaves them as they were.
    with seeded_globally(seed_of("classes", seed), device):
        classes = class_count(model, images)
    if (largest := int(images.labels.max())) >= classes:
        raise InputError(f"label {largest} is out of range: the model tells {classes} classes apart, from 0")
    for search in protocol.searches:
        if not search.among(classes).attacks:
            raise InputError(f"{search.title} aims at classes that a model of {classes} does not have")

    with seeded_globally(seed_of("clean", seed), device):
        votes = VOTES if protocol.worst_case and not is_deterministic(model, images) else 1
        clean = correct(model, images, batch_size, votes=votes)[0].cpu()
    return Request(
        protocol=protocol,
        norm=norm,
        epsilons=grid,
        seed=seed,
        model=digest_model(model) if isinstance(model, nn.Module) else "",
        data=images.digest(),
        classes=classes,
        votes=votes,
    ), clean


def _check(
    model: nn.Module | Classifier, images: Images, protocol: Protocol, batch_size: int, folder: Path | None
) -> None:
    """Refuses what could not be evaluated, or not be told apart on disk."""

    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: at least one image a pass")
    if images.pixels.dtype in (torch.float16, torch.bfloat16):
        raise InputError("images in half precision leave the ball by rounding: hand over float32, cast in the model")
    if folder is None:
        return
    if not isinstance(model, nn.Module) or not model.state_dict():
        raise InputError("evidence knows a model by its weights: hand over an nn.Module that has some, or no folder")
    for attack in (attack for search in protocol.searches for attack in search.attacks):
        if not attack.identity:
            raise InputError(f"evidence knows {attack.title} by its name alone: Foreign(made=…, name=…) gives one")


@dataclass(frozen=True, kw_only=True)
class _Evaluator:
    """All searches of a protocol on all images, shard by shard; what the folder holds already is taken up."""

    model: nn.Module | Classifier
    images: Images
    request: Request
    clean: Tensor
    batch_size: int
    folder: Path | None
    progress: Progress

    def evaluated(self) -> Evaluation:
        """The outcomes of all searches, not yet checked."""

        request, protocol, clean = self.request, self.request.protocol, self.clean
        parts = sum(len(search.among(request.classes).attacks) for search in protocol.searches)
        self.progress.start(f"{protocol.name} v{protocol.version}", parts * len(self.images))
        outcomes, details, seconds = {}, {}, {}
        for search in protocol.searches:
            tensors, took = self.searched(search, search.name, request.exhaustive)
            if protocol.worst_case and not request.exhaustive and _assumed_too_much(tensors):
                self.progress.say(
                    f"{search.name}: attacks below a failure succeeded: every sample is attacked at every eps"
                )
                self.progress.start(f"{search.name}, at every eps", len(self.images))
                tensors, more = self.searched(search, f"{search.name}{EXHAUSTIVE}", True)
                took += more
            outcomes[search.name], clean = tensors.pop("correct"), tensors.pop("clean")
            details[search.name], seconds[search.name] = tensors, took
        self.progress.stop()
        return Evaluation(**vars(request), clean=clean, outcomes=outcomes, details=details, seconds=seconds)

    def searched(self, search: Search, stem: str, exhaustive: bool) -> tuple[dict[str, Tensor], float]:
        """What a search found on all samples, by the name of the tensor, and its seconds."""

        shards, seconds = [], 0.0
        attacks = search.among(self.request.classes).attacks
        size = SHARD // 2 if replace(search, attacks=attacks).is_whole else SHARD // 8 if len(attacks) > 1 else SHARD
        for place, rows in enumerate(torch.arange(len(self.images)).split(size)):
            first = int(rows[0])
            file = None if self.folder is None else shard_file(self.folder, stem, place)
            if file is not None and (stored := self.stored(file, stem, first, len(rows))) is not None:
                tensors, took = stored
                self.progress.advance(len(rows) * len(attacks))
            else:
                began = time.perf_counter()
                with seeded_globally(seed_of(stem, self.request.seed, first), self.images.labels.device):
                    tensors = self.shard(search, attacks, rows, exhaustive)
                took = round(time.perf_counter() - began, 3)  # as the shard keeps it
                if file is not None:
                    write_shard(file, self.request, tensors, stem=stem, first=first, seconds=took)
            shards.append(tensors)
            seconds += took
        return {name: torch.cat([shard[name] for shard in shards], dim=-1) for name in shards[0]}, seconds

    def stored(self, file: Path, stem: str, first: int, count: int) -> tuple[dict[str, Tensor], float] | None:
        """What a shard keeps; ``None`` where there is none, or a damaged one, whose samples are attacked again.

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
        if kept is None or len(kept[0]["clean"]) != count:
            raise InputError(
                f"{file} was made of another model, other images or other settings: name another folder by --out"
            )
        if not is_sealed(file):
            self.progress.warn(f"{file} has no digest (written by an earlier version): its outcomes are unverified")
        return kept

    def shard(self, search: Search, attacks: Sequence[Attack], rows: Tensor, exhaustive: bool) -> dict[str, Tensor]:
        """What a search leaves of some samples: ``clean``, ``correct`` (E, B) and the details."""

        place = rows.to(self.images.labels.device)
        if not self.request.protocol.worst_case:
            return {"clean": self.clean[rows]} | self.as_it_falls_out(search, place)
        request = self.request
        outcome = smallest_norms(
            self.model,
            self.images[place],
            attacks,
            request.epsilons,
            seed=request.seed,
            rows=place,
            clean=self.clean[rows].to(place.device),
            own=search.own,
            audited=_audited(len(self.images), request.seed)[rows],
            exhaustive=exhaustive,
            votes=request.votes,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        if outcome.nan:
            raise InputError(
                f"the model gives NaN on images attacked by {search.name}: no accuracy can be stated; look for "
                "overflow in the model"
            )
        kept = {name: getattr(outcome, name).cpu() for name in WORST_CASE}
        return kept | {"clean": (outcome.norms > 0).cpu(), "correct": outcome.correct(len(request.epsilons)).cpu()}

    def as_it_falls_out(self, search: Search, rows: Tensor) -> dict[str, Tensor]:
        """Whether the final iterate at each ε is right, ``correct`` (E, B), and how many were ``illegal``."""

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


def _assumed_too_much(tensors: dict[str, Tensor]) -> bool:
    """Whether more of the samples that were attacked below their failure broke there than may."""

    return bool((tensors["missed"] > 0).sum() > _MISSED * (tensors["tested"] > 0).sum())
