"""Accuracy over ε: one protocol on one model, every outcome kept per sample.

An evaluation's folder holds ``result.json`` and, beside it, the evidence: a file of outcomes for each attack, written
as soon as that attack is through and never rewritten.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import FGSM, PGD, Norm, check_eps
from ..data import Images, batches
from ..errors import DamagedFileError, InputError
from ..files import digest, digest_tensors, read_json, read_tensors, write_json, write_tensors
from ..modes import Classifier, evaluating
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed
from ..statistics import share_of
from .accuracy import correct, predict
from .protocols import PROTOCOLS, Protocol, Search, protocol_named

__all__ = ["Evaluation", "evaluate", "load_evaluation"]

SCHEMA = 1
CONFIDENCE = 0.95


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
    """

    protocol: Protocol
    norm: Norm
    epsilons: tuple[float, ...]
    seed: int
    model: str
    data: str
    clean: Tensor
    outcomes: dict[str, Tensor]

    @property
    def samples(self) -> int:
        return len(self.clean)

    def clean_accuracy(self) -> dict[str, float]:
        """Clean accuracy with its interval."""

        return _share(self.clean)

    def curve(self, search: str) -> list[dict[str, float]]:
        """Accuracy with its interval, for each ε of the grid."""

        return [{"eps": eps} | _share(row) for eps, row in zip(self.epsilons, self.outcomes[search], strict=True)]

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
    )
    if folder is not None:
        _claim(folder, resume)

    progress.start(f"{protocol} v{definition.version}", len(definition.searches) * len(images))
    for search in definition.searches:
        evidence = None if folder is None else folder / f"{search.name}.safetensors"
        if evidence is not None and evidence.exists():
            if (kept := _kept(evidence, found)) is None:
                raise InputError(
                    f"{evidence} was made of another model, other images or other settings: name another folder by "
                    "--out"
                )
            found.outcomes[search.name] = kept[0]
            progress.advance(len(images))
            continue

        run = _worst_case if definition.worst_case else _final_iterates
        parts = []
        for number, (x, y) in enumerate(batches(images, batch_size)):
            rows = torch.arange(len(y), device=y.device) + number * batch_size
            parts.append(run(model, x, y, rows, search, grid, seed).cpu())
            progress.advance(len(y))
        outcomes = found.outcomes[search.name] = torch.cat(parts, dim=1)
        if evidence is not None:
            write_tensors(evidence, {"correct": outcomes, "clean": found.clean}, {"key": _key(found)})
    progress.stop()

    if folder is not None:
        write_json(folder / "result.json", found.to_dict())
    return found


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

    found = Evaluation(definition, result["norm"], grid, *identity, clean=torch.empty(0), outcomes={})
    for search in definition.searches:
        evidence = folder / f"{search.name}.safetensors"
        if not evidence.is_file():
            raise DamagedFileError(f"{evidence} is missing, so {path} has lost its evidence: --resume makes it anew")
        if (kept := _kept(evidence, found)) is None:
            raise DamagedFileError(f"{evidence} is damaged: it is not the evidence of {path}")
        found.outcomes[search.name], clean = kept
        if search is definition.searches[0]:
            found = replace(found, clean=clean)
        elif not torch.equal(clean, found.clean):
            raise DamagedFileError(f"{evidence} is damaged: its clean outcomes are not those of the other attacks")

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


def _worst_case(
    model: Classifier, x: Tensor, y: Tensor, rows: Tensor, search: Search, grid: tuple[float, ...], seed: int
) -> Tensor:
    """Each ε, from the smallest up, on the images that nothing has broken yet, restart by restart: bool (E, B).

    What breaks an image at ε lies in every larger ball too: the image stays broken there, and is not attacked again.
    """

    robust = predict(model, x) == y
    column = []
    for eps in grid:
        attack = search.at(eps)
        restarts, once = 1, attack
        if isinstance(attack, PGD):
            restarts, once = attack.restarts, replace(attack, restarts=1)
        for restart in range(restarts):
            left = robust.nonzero().squeeze(1)
            if len(left) == 0:
                break
            # A random start takes one draw in L∞ and two in L2; restarts stay apart.
            noise = SampleKeyed(seed, rows[left], draw=2 * restart)
            x_adv = once(model, x[left], y[left], generator=noise)
            robust[left] = predict(model, x_adv, f"{search.name} at eps {eps:g}") == y[left]
        column.append(robust.clone())
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


def _key(found: Evaluation) -> str:
    """What evidence carries: that of other weights, images or settings has another key, and is refused, not mixed."""

    parts = (SCHEMA, found.protocol, found.norm, found.epsilons, found.seed, found.model, found.data)
    return digest(repr(parts).encode())


def _kept(evidence: Path, found: Evaluation) -> tuple[Tensor, Tensor] | None:
    """The outcomes (E, N) and the clean ones (N,) that a file keeps; ``None`` if it is of another evaluation."""

    tensors, metadata = read_tensors(evidence)
    if metadata.get("key") != _key(found):
        return None
    outcomes, clean = (tensors.get(name, torch.empty(0)) for name in ("correct", "clean"))
    if (
        outcomes.dtype != torch.bool
        or clean.dtype != torch.bool
        or clean.ndim != 1
        or len(clean) == 0
        or outcomes.shape != (len(found.epsilons), len(clean))
    ):
        raise DamagedFileError(f"{evidence} is damaged: it does not hold the outcomes of its samples at each eps")
    return outcomes, clean


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
