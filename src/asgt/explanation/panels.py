"""The panel: several models' maps held against each other, on the images that all of them get right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ..attacks import Norm
from .measures import Measure
from .result import Explanation

__all__ = ["MINIMUM", "Curve", "Panel", "PanelDifference", "Score", "panel"]

MINIMUM = 100
"""Fewer images that all models get right than this say too little."""


@dataclass(frozen=True)
class Score:
    """What a measure says of a method.

    Attributes:
        values: the mean over the images, a value a seed.
        mean: over the seeds; NaN where it was not run.
        low: the lower end of its 95 % interval: Student's t over seeds, of one seed a bootstrap over images.
        high: the upper end.
        sd: the standard deviation over seeds; NaN of one seed.
        n: the images it rests on, the same for all methods.
        over: what the interval is over.
        not_run: why there is no value; empty where there is one.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    sd: float
    n: int
    over: Literal["seeds", "images"]
    not_run: str = ""


@dataclass(frozen=True)
class PanelDifference:
    """A measure of one method less that of another, on the same images."""

    first: str
    second: str
    measure: Measure
    kind: Literal["methods", "models"]
    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    claims: int
    seeds: tuple[int, ...]
    n: int

    @property
    def verdict(self) -> Literal["more", "less", "not decided"]:
        """Whether the first is decided to have more or less of the measure than the second."""

        raise NotImplementedError


@dataclass(frozen=True)
class Curve:
    """Masked accuracy of one method over the share of hidden pixels.

    Attributes:
        method: its name.
        fill: what hides a pixel: the data set's ``"mean"``, ``"noise"``, or ROAD's ``"linear"`` imputation.
        order: which pixels go first: the ``"top"`` by m, ``"random"`` ones, or the ``"least"``.
        shares: q, ascending.
        accuracy: at each q, the mean over seeds, in [0, 1]; all images are right at q = 0.
        low: the lower end of its 95 % interval at each q, as that of a :class:`Score`.
        high: the upper end.
    """

    method: str
    fill: Literal["mean", "noise", "linear"]
    order: Literal["top", "random", "least"]
    shares: tuple[float, ...]
    accuracy: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """Several methods under all measures.

    Attributes:
        methods: their names, in the order given.
        seeds: of each method, ascending.
        attribution: what made the maps.
        settings: all that is needed to repeat it.
        eps: the training ε.
        norm: its norm.
        ids: the rows of the test split that every model gets right, int64 (n,).
        asked: how many images were explained.
        not_run: why there are no values; empty where there are.
        unflipped: how many of ``ids`` no model's own attack turns, at ε/4 and at ε.
        area: the object's mean share of the image; NaN where that is not known.
        curves: masked accuracy over the share of hidden pixels, by method, fill and order.
    """

    methods: tuple[str, ...]
    seeds: dict[str, tuple[int, ...]]
    attribution: str
    settings: dict[str, Any]
    eps: float
    norm: Norm
    ids: Tensor
    asked: int
    not_run: str
    unflipped: tuple[int, int]
    area: float
    curves: tuple[Curve, ...]

    @property
    def n(self) -> int:
        """The images that every model gets right."""

        return len(self.ids)

    def value(self, method: str, measure: str) -> Score:
        """What a measure says of a method."""

        raise NotImplementedError

    def differences(self, measure: str) -> tuple[PanelDifference, ...]:
        """The differences of all pairs of methods, in the order of the methods; empty where the measure was not run."""

        raise NotImplementedError

    def gate(self, method: str) -> float:
        """The median rank correlation of m with that of re-initialised models; NaN where the gate was not run."""

        raise NotImplementedError

    def uninformative(self, method: str) -> bool | None:
        """Whether the gate says so: the median is above 0.5; ``None`` where the gate was not run."""

        raise NotImplementedError


def panel(named: Mapping[str, Sequence[Explanation]], *, seeds: Mapping[str, Sequence[int]] | None = None) -> Panel:
    """Holds explanations against each other.

    Args:
        named: the explanations of each method, one a seed, by ascending seed.
        seeds: the seeds of each method. Default: 0, 1, ….
    """

    raise NotImplementedError
