"""Accuracy over ε: one protocol on one model, every outcome kept per sample.

An evaluation's folder holds ``result.json`` and, beside it, the evidence: shards of samples with their outcomes under
an attack, each written as soon as its samples are through and never rewritten.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import FGSM, Norm, check_eps
from ..data import Images, batches
from ..errors import DamagedFileError, InputError
from ..files import digest, digest_tensors, read_json, read_tensors, write_json, write_tensors
from ..modes import Classifier, evaluating
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed, seeded
from ..statistics import clopper_pearson, share_of
from .accuracy import correct, predict
from .engine import smallest_norms
from .protocols import PROTOCOLS, Protocol, Search, protocol_named

__all__ = ["Evaluation", "evaluate", "load_evaluation"]

SCHEMA = 2
CONFIDENCE = 0.95
SHARD = 1024
"""Samples of a file of evidence: what a kill can cost, whatever the batch size."""

AUDITED = 64
"""Random samples that a worst-case search attacks at every ε."""

_EXHAUSTIVE = "-exhaustive"
_DETAILS = {
    "norms": torch.float32,
    "gradients": torch.int64,
    "forwards": torch.int64,
    "tested": torch.int64,
    "missed": torch.int64,
}
_MISSED = 0.01  # of the samples attacked below their failure; beyond it, all are attacked at every ε


@dataclass(frozen=True)
class Evaluation:
    """What one protocol found on one model.

    Attributes:
        protocol: the definition it was made by.
        norm: the norm of ε.
        epsilons: the grid, ascending, E values.
        seed: keys the random starts.
        model: SHA-256 of the model's weights.
        data: SHA-256 of the images and labels.
        clean: which samples are right as they are, bool (N,).
        outcomes: for each search, which samples stay right at each ε, bool (E, N).
        exhaustive: whether every sample was asked to be attacked at every ε.
        details: for each worst-case search, by sample: ``norms`` (the smallest known adversarial norm, float32),
            ``gradients`` and ``forwards`` (passes), ``tested`` and ``missed`` (see :mod:`asgt.evaluation.engine`).
    """

    protocol: Protocol
    norm: Norm
    epsilons: tuple[float, ...]
    seed: int
    model: str
    data: str
    clean: Tensor
    outcomes: dict[str, Tensor]
    exhaustive: bool = False
    details: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return len(self.clean)

    def clean_accuracy(self) -> dict[str, float]:
        """Clean accuracy with its interval."""

        return _share(self.clean)

    def curve(self, search: str) -> list[dict[str, float]]:
        """Accuracy with its interval, for each ε of the grid."""

        return [{"eps": eps} | _share(row) for eps, row in zip(self.epsilons, self.outcomes[search], strict=True)]

    def cost(self, search: str) -> dict[str, float]:
        """What a worst-case search took and how it was tested; empty for another.

        ``gradients`` and ``forwards`` per sample, of the exhaustive pass alone where there was one; ``tested`` samples
        that were attacked below a failure, ``missed`` of which broke there, and ``missed_high``, the upper end of the
        Clopper–Pearson interval of their share.
        """

        if search not in self.details:
            return {}
        told = self.details[search]
        # Samples, not attacks: what one sample does at several ε is not independent.
        tested, missed = int((told["tested"] > 0).sum()), int((told["missed"] > 0).sum())
        return {
            "gradients": float(told["gradients"].double().mean()),
            "forwards": float(told["forwards"].double().mean()),
            "tested": tested,
            "missed": missed,
            "missed_high": clopper_pearson(missed, tested, CONFIDENCE)[1] if tested else 1.0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what ``result.json`` holds."""

        return {
            "schema": SCHEMA,
            "protocol": _definition(self.protocol),
            "claim": self.protocol.claim,
            "norm": self.norm,
            "samples": self.samples,
            "seed": self.seed,
            "interval": f"Wilson {CONFIDENCE:.0%}",
            "model": self.model,
            "data": self.data,
            "clean": self.clean_accuracy(),
            "attacks": {name: self.curve(name) for name in self.outcomes},
            "exhaustive": self.exhaustive,
            "cost": {name: self.cost(name) for name in self.details},
            "versions": _versions(),
        }


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    protocol: str = "pgd",
    epsilons: Sequence[float],
    norm: Norm = "linf",
    seed: int = 0,
    exhaustive: bool = False,
    batch_size: int = 256,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluates a classifier over a grid of ε.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: the test images.
        protocol: ``"paper"`` or ``"pgd"``.
        epsilons: the grid of radii, each above zero, in units of the range [0, 1].
        norm: the norm of ε.
        seed: keys the random starts by (seed, sample, restart).
        exhaustive: in a worst case, attack every sample at every ε below its own too. Default: 64 random ones, and all
            if more than 1 % of these break there.
        batch_size: images per forward pass; no bearing on what is drawn.
        folder: where to keep the evidence. Default: nowhere.
        resume: take up what ``folder`` holds, if it was made of the same model, images and settings.
        progress: is told how many images are through.

    Raises:
        InputError: the grid, the model or the folder does not fit.
    """

    definition = protocol_named(protocol, norm)
    grid = _grid(epsilons, norm)
    found = Evaluation(
        definition,
        norm,
        grid,
        seed,
        model=digest_tensors(model.state_dict()),
        data=images.digest(),
        clean=correct(model, images, batch_size)[0].cpu(),
        outcomes={},
        exhaustive=exhaustive,
    )
    if folder is not None:
        _claim(folder, resume)
        _same(folder / "result.json", found)

    progress.start(f"{protocol} v{definition.version}", len(definition.searches) * len(images))
    for search in definition.searches:
        audited = torch.ones(len(images), dtype=torch.bool) if exhaustive else _audited(len(images), seed)
        kept = _searched(model, images, search, found, audited, batch_size, folder, search.name, progress)
        if definition.worst_case and not bool(audited.all()) and _assumed_too_much(kept):
            progress.say(f"{search.name}: attacks below a failure succeeded: every sample is attacked at every eps")
            audited[:] = True
            progress.start(f"{search.name}, at every eps", len(images))
            name = f"{search.name}{_EXHAUSTIVE}"
            kept = _searched(model, images, search, found, audited, batch_size, folder, name, progress)
        found.outcomes[search.name] = kept.pop("correct")
        found = replace(found, clean=kept.pop("clean"))
        if kept:
            found.details[search.name] = kept
    progress.stop()

    if folder is not None:
        write_json(folder / "result.json", found.to_dict())
    return found


def _audited(count: int, seed: int) -> Tensor:
    """The samples that are attacked at every ε, bool (N,)."""

    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=seeded("audit", seed))[:AUDITED]] = True
    return chosen


def _assumed_too_much(kept: dict[str, Tensor]) -> bool:
    """Whether more of the samples that were attacked below their failure broke there than may."""

    return bool((kept["missed"] > 0).sum() > _MISSED * (kept["tested"] > 0).sum())


def _searched(
    model: nn.Module,
    images: Images,
    search: Search,
    found: Evaluation,
    audited: Tensor,
    batch_size: int,
    folder: Path | None,
    name: str,
    progress: Progress,
) -> dict[str, Tensor]:
    """What a search found on all samples, shard by shard; what a folder holds is taken up."""

    shards = []
    for number, rows in enumerate(torch.arange(len(images)).split(SHARD)):
        evidence = None if folder is None else folder / f"{name}-{number:05d}.safetensors"
        if evidence is not None and evidence.exists():
            if (kept := _kept(evidence, found, number)) is None:
                raise InputError(
                    f"{evidence} was made of another model, other images or other settings: name another folder by "
                    "--out"
                )
            progress.advance(len(rows))
        else:
            kept = {"clean": found.clean[rows]} | _attacked(
                model, images, rows, search, found, audited[rows], batch_size, progress
            )
            if evidence is not None:
                write_tensors(evidence, kept, {"key": _key(found, number)})
        shards.append(kept)
    return {tensor: torch.cat([shard[tensor] for shard in shards], dim=-1) for tensor in shards[0]}


def _attacked(
    model: nn.Module,
    images: Images,
    rows: Tensor,
    search: Search,
    found: Evaluation,
    audited: Tensor,
    batch_size: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """What a search finds on some samples: ``correct`` (E, B), and of a worst case its details, each (B,)."""

    place = images.labels.device
    part, grid = images[rows.to(place)], found.epsilons
    if found.protocol.worst_case:
        outcome = smallest_norms(
            model,
            part,
            search.attack,
            grid,
            seed=found.seed,
            rows=rows.to(place),
            exhaustive=audited.to(place),
            batch_size=batch_size,
            progress=progress,
        )
        if outcome.nan:
            raise InputError(
                f"the model gives NaN on images attacked by {search.name}: no accuracy can be stated; look for "
                "overflow in the model"
            )
        details = {name: getattr(outcome, name).cpu() for name in _DETAILS}
        return {"correct": outcome.correct(len(grid)).cpu() & found.clean[rows]} | details

    parts = []
    for (x, y), ids in zip(batches(part, batch_size), rows.to(place).split(batch_size), strict=True):
        parts.append(_final_iterates(model, x, y, ids, search, grid, found.seed).cpu())
        progress.advance(len(y))
    return {"correct": torch.cat(parts, dim=1)}


def load_evaluation(folder: Path) -> Evaluation:
    """Reads what :func:`evaluate` left in a folder, and checks its figures against the evidence beside them.

    Raises:
        InputError: the folder holds no finished evaluation, or one by a protocol that this version does not know.
        DamagedFileError: a file of it is not what :func:`evaluate` wrote.
    """

    path = folder / "result.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no finished evaluation: asgt evaluate makes one, and --resume ends it")
    result = read_json(path)
    try:
        schema, name, number = result["schema"], result["protocol"]["name"], result["protocol"]["version"]
        known = PROTOCOLS.get(name)
    except (LookupError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not the result of an evaluation") from error

    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema!r}, this version of asgt reads {SCHEMA}: evaluate again into another folder"
        )
    if known is None or number != known.version:
        here = "none of that name" if known is None else f"v{known.version}"
        raise InputError(
            f"{folder} was made by protocol {name if known else repr(name)} v{number!r}, this version of asgt knows "
            f"{here}: evaluate again into another folder"
        )

    try:
        definition = protocol_named(name, result["norm"])
        grid = _grid([row["eps"] for row in result["attacks"][definition.searches[0].name]], result["norm"])
        identity = (result["seed"], result["model"], result["data"])
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not the result of an evaluation") from error

    exhaustive = result.get("exhaustive") is True
    found = Evaluation(definition, result["norm"], grid, *identity, torch.empty(0), {}, exhaustive)
    for search in definition.searches:
        kept = _read_shards(folder, search.name, found, path)
        found.outcomes[search.name], clean = kept.pop("correct"), kept.pop("clean")
        if kept:
            found.details[search.name] = kept
        if search is definition.searches[0]:
            found = replace(found, clean=clean)
        elif not torch.equal(clean, found.clean):
            raise DamagedFileError(
                f"{folder / search.name}-*.safetensors are damaged: their clean outcomes are not those of other attacks"
            )

    # The versions are those of the machine that evaluated.
    if not _agree(found.to_dict() | {"versions": result.get("versions")}, result):
        raise DamagedFileError(f"{path} is damaged: its figures are not those of the evidence beside it")
    return found


def _final_iterates(
    model: Classifier, x: Tensor, y: Tensor, rows: Tensor, search: Search, grid: tuple[float, ...], seed: int
) -> Tensor:
    """Each ε from scratch on every image of a batch, bool (E, B). FGSM's one gradient serves all ε."""

    column = []
    if isinstance(search.attack, FGSM):
        with evaluating(model):
            state = search.attack.start(model, x, y, 0.0)
            direction = state.gradient()[0].sign()
        for eps in grid:
            radius = torch.full_like(state.eps, eps)
            x_adv = search.attack.moved(replace(state, eps=radius), direction, radius).x_adv
            column.append(predict(model, x_adv, f"{search.name} at eps {eps:g}") == y)
    else:
        for eps in grid:
            x_adv = search.at(eps)(model, x, y, generator=SampleKeyed(seed, rows))
            column.append(predict(model, x_adv, f"{search.name} at eps {eps:g}") == y)
    return torch.stack(column)


def _grid(epsilons: Sequence[float], norm: Norm) -> tuple[float, ...]:
    grid = tuple(sorted({float(eps) for eps in epsilons}))
    if not grid:
        raise InputError("the grid of epsilons is empty: give at least one, as 0.1 or 8/255")
    for eps in grid:
        check_eps(eps, norm)
        if eps == 0:
            raise InputError("eps = 0 is the clean accuracy, which is always given: leave it out of the grid")
    return grid


def _claim(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: --out takes a folder")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise InputError(f"{folder} holds an evaluation already: --resume takes it up, --out names another folder")


def _same(path: Path, found: Evaluation) -> None:
    """Refuses to write over the finished result of another evaluation."""

    if not path.is_file():
        return
    kept, asked = read_json(path), found.to_dict()
    names = ("schema", "protocol", "norm", "seed", "model", "data", "exhaustive")
    if not isinstance(kept, dict) or any(kept.get(name) != asked[name] for name in names):
        raise InputError(
            f"{path} was made of another model, other images or other settings: name another folder by --out"
        )


def _read_shards(folder: Path, name: str, found: Evaluation, result: Path) -> dict[str, Tensor]:
    """All the evidence of a search, of its exhaustive part where there is one."""

    for stem in (f"{name}{_EXHAUSTIVE}", name):
        files = sorted(folder.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9].safetensors"))
        if not files:
            continue
        shards = []
        for number, evidence in enumerate(files):
            if evidence.name != f"{stem}-{number:05d}.safetensors":
                break
            if (kept := _kept(evidence, found, number)) is None:
                raise DamagedFileError(f"{evidence} is damaged: it is not the evidence of {result}")
            shards.append(kept)
        if len(shards) == len(files):
            return {tensor: torch.cat([shard[tensor] for shard in shards], dim=-1) for tensor in shards[0]}
    raise DamagedFileError(
        f"{folder / name}-*.safetensors are not all there, so {result} has lost its evidence: --resume makes it anew"
    )


def _key(found: Evaluation, shard: int) -> str:
    """What evidence carries: that of other weights, images or settings has another key, and is refused, not mixed."""

    settings = (SCHEMA, found.protocol, found.norm, found.epsilons, found.seed, found.exhaustive)
    return digest(repr((*settings, found.model, found.data, shard)).encode())


def _kept(evidence: Path, found: Evaluation, shard: int) -> dict[str, Tensor] | None:
    """What a shard keeps, by sample; ``None`` if it is of another evaluation."""

    tensors, metadata = read_tensors(evidence)
    if metadata.get("key") != _key(found, shard):
        return None
    expected = {"correct": torch.bool, "clean": torch.bool} | (_DETAILS if found.protocol.worst_case else {})
    count = tensors["clean"].numel() if "clean" in tensors else 0
    shapes = {name: (len(found.epsilons), count) if name == "correct" else (count,) for name in expected}
    if count == 0 or {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} != {
        name: (expected[name], shapes[name]) for name in expected
    }:
        raise DamagedFileError(f"{evidence} is damaged: it does not hold the outcomes of its samples at each eps")
    return tensors


def _agree(value: Any, other: Any) -> bool:
    """Whether two plain values are the same; floats to rounding, which may differ between machines."""

    if isinstance(value, dict) and isinstance(other, dict):
        return value.keys() == other.keys() and all(_agree(value[name], other[name]) for name in value)
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_agree, value, other))
    if isinstance(value, float) and isinstance(other, float):
        return math.isclose(value, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(value == other)


def _share(outcomes: Tensor) -> dict[str, float]:
    return share_of(int(outcomes.sum()), len(outcomes), CONFIDENCE)


def _definition(protocol: Protocol) -> dict[str, Any]:
    return {
        "name": protocol.name,
        "version": protocol.version,
        "worst_case": protocol.worst_case,
        "attacks": {search.name: repr(search) for search in protocol.searches},
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("asgt", "torch", "numpy", "datasets", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
