"""The explanation of one model, image by image, and its files.

An explanation's folder holds ``values.safetensors``, the measures of each image, and ``result.json``: the settings
for repeating it, and the means.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isnan, nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..attacks import Norm, check_eps
from ..errors import DamagedFileError, InputError, shown
from ..files import (
    agree,
    digest,
    digest_tensors,
    package_versions,
    read_sealed,
    read_tensors,
    write_sealed,
    write_tensors,
)
from ..manifest import check_evidence, record, withdraw
from ..names import file_name, viewed
from ..numbers import eps_text, norm_sign
from ..tabular import Table, Tabular
from .gate import RANDOMISED, UNINFORMATIVE
from .known_shortcut import view_in
from .measures import NUMBER, Kept, measure_named, measures_under

__all__ = ["OWN", "SCHEMA", "Explanation", "area_note", "load_explanation", "read_values", "write_explanation"]

SCHEMA = 1

_RESULT, _VALUES = "result.json", "values.safetensors"

OWN = ("ids", "labels", "predictions", "gate")
"""The tensors of an explanation other than its values."""

_OF_ALL: Kept = {"finite": (torch.bool, ()), "norm": NUMBER}
"""The values stored for each image, for all measures."""


@dataclass(frozen=True)
class Explanation(Tabular):
    """The maps of one model by one attribution, measured on N images, whether classified correctly or not.

    a is the signed attribution to the label, (C, H, W) an image; m is the channel mean of \\|a\\|.

    Attributes:
        attribution: the attribution of the maps, such as ``"gradient"``.
        settings: the settings for repeating it.
        eps: the training ε: stability is measured at a quarter of it and at its full value.
        norm: its norm.
        seed: the key of every random draw with (image, draw), so that all models get the same noise.
        model: SHA-256 of the model's weights; empty without weights.
        data: SHA-256 of the images and labels.
        ids: the rows of the test split, int64 (N,).
        labels: int64 (N,).
        predictions: int64 (N,).
        values: the measures of each image, the last dimension N. ``finite``, whether a is, bool (N,); ``norm``, ‖a‖₂,
            float64 (N,); ``between``, the rank correlation of every two of the re-initialised models, as ``gate`` is;
            and the values that each measure :attr:`keeps <asgt.explanation.Measure.keeps>`.
        gate: the rank correlation of m with that of each of three re-initialised models, float64 (3, N); (0, N) if the
            gate was not run.
        notes: the measures that were not run, and the number of maps that are zero or not finite.
        seconds: its duration.
        batch_size: images per pass; it does not change the random numbers.

    Example:
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> explanation = asgt.explain(model, asgt.load_data("digits").test[:8], eps=0.1)
        >>> explanation.attribution, explanation.labels.shape
        ('gradient', torch.Size([8]))
    """

    attribution: str
    settings: dict[str, Any]
    eps: float
    norm: Norm
    seed: int
    model: str
    data: str
    ids: Tensor
    labels: Tensor
    predictions: Tensor
    values: dict[str, Tensor]
    gate: Tensor
    notes: tuple[str, ...]
    seconds: float
    batch_size: int

    @property
    def samples(self) -> int:
        return len(self.ids)

    @property
    def shortcut_view(self) -> str:
        """Which test set with a shortcut the images are, as ``"aligned"``; empty where they are none."""

        return view_in(self.settings)

    @property
    def name(self) -> str:
        """What people call it: the attribution, and the view where there is one, as ``gradient+aligned``."""

        return viewed(self.attribution, self.shortcut_view)

    @property
    def stored_as(self) -> str:
        """What its folder is called; for ``module:Class`` it is ``module-Class``."""

        return viewed(file_name(self.attribution), self.shortcut_view)

    @property
    def right(self) -> Tensor:
        """Which images the model classifies correctly, with a map that can be measured: bool (N,)."""

        return (self.predictions == self.labels) & self.values["finite"]

    def table(self) -> Table:
        """A row for each measure: its mean over the correctly classified images that have it, and their number."""

        means = {measure: self._mean(measure.name) for measure in measures_under(self.settings)}
        rows = [
            [measure.title, f"{mean['mean']:.3f}", str(mean["n"])]
            for measure, mean in means.items()
            if mean is not None and mean["mean"] is not None
        ]
        right = int((self.predictions == self.labels).sum())
        area = self.shortcut_area(self.right)
        return Table(
            f"maps by {self.name} · {right} of {self.samples} images right · ε = {eps_text(self.eps)} "
            f"({norm_sign(self.norm)}), seed {self.seed}",
            ["measure", "mean", "n"],
            rows,
            [*self.notes, *([] if isnan(area) else [area_note(area)])],
        )

    def per_image(self, measure: str) -> Tensor | None:
        """A measure of each image, float64 (N,); its mean over images is the measure of the model.

        Returns:
            NaN for an image without a value: its map is zero or not finite, or the attack flipped it and the
            measure is for unflipped images; ``None`` if the measure was not run.

        Raises:
            InputError: the measure is unknown.
        """

        asked = measure_named(measure)
        if not asked.is_in(self.values):
            return None
        return asked.value(self.values).masked_fill(~self.values["finite"], torch.nan)

    def shortcut_area(self, rows: Tensor) -> float:
        """The shortcut's mean share of the area of some images: chance for what is on it; NaN where it is not known.

        Args:
            rows: which images, bool (N,).
        """

        return float(self.values["shortcut/area"][rows].mean()) if "shortcut/area" in self.values else nan

    def gate_median(self) -> float:
        """The median rank correlation with re-initialised models over the correctly classified images; NaN if not
        run.
        """

        return _median(self.gate[:, self.right])

    def between_median(self) -> float:
        """The same for two re-initialised models: the similarity of maps of this architecture for any weights."""

        return _median(self.values["between"][:, self.right])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``result.json`` holds them."""

        return {
            "schema": SCHEMA,
            "attribution": self.attribution,
            "settings": self.settings,
            "eps": self.eps,
            "norm": self.norm,
            "seed": self.seed,
            "model": self.model,
            "data": self.data,
            "samples": self.samples,
            "accuracy": float((self.predictions == self.labels).double().mean()),
            "means": {measure.name: self._mean(measure.name) for measure in measures_under(self.settings)},
            "gate": {
                "median": _plain(self.gate_median()),
                "between": _plain(self.between_median()),
                "uninformative_above": UNINFORMATIVE,
            },
            "notes": list(self.notes),
            "seconds": self.seconds,
            "batch_size": self.batch_size,
            "versions": package_versions("torch", "numpy", "datasets", "safetensors", "captum"),
        }

    def _mean(self, measure: str) -> dict[str, Any] | None:
        """A measure's mean over the images that are right and have it, and their number."""

        if (values := self.per_image(measure)) is None:
            return None
        there = values[self.right & ~values.isnan()]
        return {"mean": _plain(float(there.mean())), "n": len(there)}


def area_note(area: float) -> str:
    """What is shown beside measures of a map on a shortcut: their chance level, its share of the area."""

    return (
        f"the shortcut's share of the area, which maps without a preference have as mass and intersection: {area:.3f}"
    )


def load_explanation(folder: Path | str) -> Explanation:
    """Reads a result of :func:`asgt.explain` from a folder, and checks its numbers against the stored values.

    Args:
        folder: a folder that holds ``result.json``, as ``RUN/explanation/gradient``.

    Returns:
        The explanation, with the measures of each image.

    Raises:
        InputError: the folder holds no finished explanation, or one of another version.
        DamagedFileError: a file differs from what :func:`asgt.explain` wrote.

    Example:
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> made = asgt.explain(model, asgt.load_data("digits").test[:8], eps=0.1, folder="maps")
        >>> asgt.load_explanation("maps").data == made.data
        True
    """

    folder = Path(folder)
    path = folder / _RESULT
    if not path.is_file():
        raise InputError(f"{folder} holds no finished explanation: run asgt explain")
    result = read_sealed(path)[0]
    check_evidence(folder)

    damaged = DamagedFileError(f"{path} is damaged: it is not the result of an explanation: explain again")
    if not isinstance(result, dict) or "schema" not in result:
        raise damaged
    if result["schema"] != SCHEMA:
        raise InputError(
            f"{path} has schema {shown(result['schema'])}, but this version of asgt reads {SCHEMA}: explain again "
            "into another folder"
        )
    try:
        check_eps(result["eps"], result["norm"])
        explanation = Explanation(
            attribution=result["attribution"],
            settings=dict(result["settings"]),
            eps=result["eps"],
            norm=result["norm"],
            seed=int(result["seed"]),
            model=result["model"],
            data=result["data"],
            **_unread(int(result["samples"])),
            notes=tuple(map(str, result["notes"])),
            seconds=float(result["seconds"]),
            batch_size=int(result["batch_size"]),
        )
        if not isinstance(result["means"], dict):
            raise damaged
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise damaged from error

    read = read_values(folder, explanation)
    if read is None:
        raise DamagedFileError(f"{folder / _VALUES} is damaged: it does not belong to {path}: explain again")
    # The versions are those of the machine that explained. A measure that was added later was not run.
    told = dict.fromkeys((measure.name for measure in measures_under(read.settings)), None) | result["means"]
    if not agree(read.to_dict() | {"versions": result.get("versions")}, result | {"means": told}):
        raise DamagedFileError(f"{path} is damaged: its numbers differ from the stored values: explain again")
    return read


def write_explanation(folder: Path, explanation: Explanation) -> None:
    """Writes the evidence, then the result, each atomically, and lists them in the manifest."""

    tensors = explanation.values | {name: getattr(explanation, name) for name in OWN}
    accepted = withdraw(folder)
    write_tensors(folder / _VALUES, tensors, {"key": _key(explanation, explanation.ids)})
    write_sealed(folder / _RESULT, explanation.to_dict(), begin=False)
    record(folder, {"weights": explanation.model, "data": explanation.data}, accepted)


def read_values(folder: Path, asked: Explanation) -> Explanation | None:
    """An explanation with its evidence from a folder; ``None`` if the evidence belongs to another one.

    Raises:
        DamagedFileError: a tensor is missing, or has a wrong shape.
    """

    path = folder / _VALUES
    if not path.is_file():
        raise DamagedFileError(f"{path} is missing, so {folder / _RESULT} has lost its evidence: explain again")
    tensors, metadata = read_tensors(path)
    ids = tensors.get("ids")
    if ids is None or metadata.get("key") != _key(asked, ids):
        return None

    if {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()} != _shapes(asked, tensors):
        raise DamagedFileError(f"{path} is damaged: it lacks measures of some of {asked.samples} images: explain again")
    for name in ("ids", "labels", "predictions"):
        if bool((tensors[name] < 0).any()):
            raise DamagedFileError(f"{path} is damaged: {name} holds {int(tensors[name].min())}, which is below zero")
    own = {name: tensors.pop(name) for name in OWN}
    return Explanation(**(vars(asked) | own | {"values": tensors}))


def _key(explanation: Explanation, ids: Tensor) -> str:
    """What evidence carries: that of other weights, images or settings has another key, and is refused, not mixed."""

    settings = json.dumps(explanation.settings, sort_keys=True)
    plain = (
        SCHEMA,
        explanation.attribution,
        settings,
        float(explanation.eps),
        explanation.norm,
        explanation.seed,
        explanation.model,
        explanation.data,
    )
    return digest(repr((*plain, digest_tensors({"ids": ids}))).encode())


def _unread(samples: int) -> dict[str, Any]:
    """The tensors of an explanation whose evidence is not read yet."""

    if not 1 <= samples < 2**40:
        raise ValueError("no number of images")
    # Of that length without its memory: how long the evidence is, only the evidence says.
    return {name: torch.empty(1).expand(samples) for name in OWN} | {"values": {}}


def _shapes(explanation: Explanation, tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """What the evidence of an explanation is to hold: all tensors of each measure that was run on it."""

    samples = explanation.samples
    randomised = 0 if "gate" in tensors and len(tensors["gate"]) == 0 else RANDOMISED

    kept = dict(_OF_ALL)
    for measure in measures_under(explanation.settings):
        # Of a measure that was added later, evidence holds nothing.
        if (explanation.settings.get("objects") or not measure.needs_objects) and not measure.keeps.keys().isdisjoint(
            tensors
        ):
            kept |= measure.keeps
    return dict.fromkeys(("ids", "labels", "predictions"), (torch.int64, (samples,))) | {
        **{name: (kind, (*shape, samples)) for name, (kind, shape) in kept.items()},
        "gate": (torch.float64, (randomised, samples)),
        "between": (torch.float64, (randomised * (randomised - 1) // 2, samples)),
    }


def _median(gate: Tensor) -> float:
    return float(gate.flatten().nanmedian()) if gate.numel() else nan


def _plain(value: float) -> float | None:
    """A number for JSON, which has no NaN."""

    return None if isnan(value) else value
