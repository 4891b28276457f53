"""The question of the paper: do robustness and interpretability rise together? Both values of each method, with
intervals.

Robustness is the accuracy under the strictest protocol at the comparison's ε; interpretability is the primary
measure of the panel, fixed before anything was measured (:data:`asgt.comparison.explained.PRIMARY`).
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
    """Both values of a method, from the same runs.

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
        attribution: the attribution of the maps.
        measure: the primary measure.
        judge: the attack of the robust accuracy.
        eps: its ε.
        points: one for each method, in the order of the comparison.
        area: the object's mean share of the image; NaN if unknown.
        correlation: Spearman's, over the methods; NaN for fewer than three, or if one of the two is constant.
        p: its two-sided p; 1 if there is none.
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
        """The number of images of the measure."""

        return self.points[0].measured.n

    def sentence(self) -> str:
        """The conclusion as a sentence."""

        over = f"over {counted(len(self.points), 'method')}"
        if isnan(self.correlation):
            return (
                f"Robust accuracy and {self.measure.title} have no rank correlation {over}: too few methods, "
                "or constant values"
            )
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        told = f"Robust accuracy and {self.measure.title}: rank correlation {self.correlation:+.2f} {over} ({p})"
        told = told.replace("-", "−")
        if self.p >= ALPHA:
            return f"{told}: these methods do not show that the two rise together"
        way = "rise together" if self.correlation > 0 else "move in opposite directions"
        return f"{told}: over these methods the two {way}; this does not show the cause"


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
