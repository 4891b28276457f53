"""Accuracy over ε: one protocol on one model, every outcome kept per sample.

An evaluation's folder holds ``result.json`` and, beside it, the evidence: a file of outcomes for each attack, written
as soon as that attack is through and never rewritten.
"""

from __future__ import annotations

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
from ..files import digest, digest_tensors, read_tensors, write_json, write_tensors
from ..modes import Classifier, evaluating
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed
from ..statistics import share_of
from .accuracy import correct, predict
from .protocols import Protocol, Search, protocol_named

__all__ = ["Evaluation", "evaluate"]

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
    # Evidence of other weights, images or settings carries another key, and is refused, not mixed.
    key = digest(repr((SCHEMA, definition, norm, grid, seed, found.model, found.data)).encode())
    if folder is not None:
        _claim(folder, resume)

    progress.start(f"{protocol} v{definition.version}", len(definition.searches) * len(images))
    for search in definition.searches:
        evidence = None if folder is None else folder / f"{search.name}.safetensors"
        if evidence is not None and evidence.exists():
            found.outcomes[search.name] = _kept(evidence, key)
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
            write_tensors(evidence, {"correct": outcomes, "clean": found.clean}, {"key": key})
    progress.stop()

    if folder is not None:
        write_json(folder / "result.json", found.to_dict())
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


def _kept(evidence: Path, key: str) -> Tensor:
    tensors, metadata = read_tensors(evidence)
    if metadata.get("key") != key:
        raise InputError(
            f"{evidence} was made of another model, other images or other settings: name another folder by --out"
        )
    if "correct" not in tensors:
        raise DamagedFileError(f"{evidence} is damaged: it holds no outcomes")
    return tensors["correct"]


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
