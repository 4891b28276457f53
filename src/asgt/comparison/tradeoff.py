"""The one question of the paper: do robustness and interpretability rise together? Each method by both, with intervals.

Robustness is the accuracy under the strictest judge at the judging ε; interpretability is the primary measure of the
panel, named before anything was measured (:data:`asgt.comparison.explained.PRIMARY`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan, nan

from ..explanation import Measure
from ..numbers import counted
from ..statistics import ALPHA, Estimate, rank_correlation
from .comparing import Column, Comparison
from .explained import Explained

__all__ = ["Tradeoff", "TradeoffPoint", "tradeoff_of"]


@dataclass(frozen=True)
class TradeoffPoint:
    """A method by both; both are of the same runs.

    Attributes:
        method: its name.
        robust: its robust accuracy, in [0, 1].
        measured: its value of the primary measure.
    """

    method: str
    robust: Estimate
    measured: Estimate


@dataclass(frozen=True)
class Tradeoff:
    """Robustness and the primary measure, over methods.

    Attributes:
        attribution: what made the maps.
        measure: the primary measure.
        judge: the attack that the robust accuracy is under.
        eps: its ε.
        points: a method each, in the order of the comparison.
        area: the object's mean share of the image; NaN where that is not known.
        correlation: Spearman's, over the methods; NaN of fewer than three, or where one of the two does not differ.
        p: its two-sided p; 1 where there is none.
    """

    attribution: str
    measure: Measure
    judge: Column
    eps: float
    points: tuple[TradeoffPoint, ...]
    area: float
    correlation: float
    p: float

    @property
    def n(self) -> int:
        """The images that the measure rests on."""

        return self.points[0].measured.n

    def sentence(self) -> str:
        """What follows, and what does not."""

        over = f"over {counted(len(self.points), 'method')}"
        if isnan(self.correlation):
            return f"Robust accuracy and {self.measure.title} have no rank correlation {over}: too few, or all alike"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        told = f"Robust accuracy and {self.measure.title}: rank correlation {self.correlation:+.2f} {over} ({p})"
        told = told.replace("-", "−")
        if self.p >= ALPHA:
            return f"{told}: so few methods decide nothing about whether the two rise together"
        way = "rise together" if self.correlation > 0 else "go against each other"
        return f"{told}: over these methods the two {way}; why, it does not say"


def tradeoff_of(comparison: Comparison, explained: Explained) -> Tradeoff | None:
    """Robust accuracy and the primary measure of each method; ``None`` where the measure was not run."""

    measure, panel = explained.primary, explained.panel
    judge, eps = comparison.judges()[-1], comparison.judging_eps()
    points = []
    for method in comparison.methods:
        if method.name not in panel.methods:
            continue
        measured = panel.value(method.name, measure.name)
        if measured.not_run:
            return None
        # Not all runs of a method need be explained.
        same_runs = replace(method, runs=tuple(explained.runs[method.name]))
        points.append(TradeoffPoint(method.name, comparison.at(same_runs, judge, eps), measured))

    correlation, p = nan, 1.0
    if len(points) >= 3:
        correlation, p = rank_correlation(
            [point.robust.value for point in points], [point.measured.value for point in points]
        )
    return Tradeoff(
        attribution=explained.attribution,
        measure=measure,
        judge=judge,
        eps=eps,
        points=tuple(points),
        area=panel.area,
        correlation=correlation,
        p=p,
    )
