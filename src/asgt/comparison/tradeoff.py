"""The one question of the paper: do robustness and interpretability rise together? A point a method, with intervals.

Across is the accuracy under the strictest judge at the judging ε; up is the primary measure of the panel, named before
anything was measured (:data:`asgt.comparison.explained.PRIMARY`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isnan

from ..explanation import Measure, Score
from ..numbers import counted, eps_text
from ..report.figures import Point, Scatter
from ..statistics import ALPHA, rank_correlation
from .comparing import Comparison, Method
from .explained import ARROWS, Explained, score_text

__all__ = ["Tradeoff", "tradeoff"]


@dataclass(frozen=True)
class Tradeoff:
    """Robustness against the primary measure, over methods.

    Attributes:
        measure: the primary measure.
        scatter: the figure.
        correlation: Spearman's, over the methods; NaN of fewer than three, or where one of the two does not differ.
        p: its two-sided p; 1 where there is none.
        methods: how many.
        samples: the images that the measure rests on.
    """

    measure: Measure
    scatter: Scatter
    correlation: float
    p: float
    methods: int
    samples: int

    def sentence(self) -> str:
        """What follows, and what does not."""

        over = f"over {counted(self.methods, 'method')}"
        if isnan(self.correlation):
            return f"Robust accuracy and {self.measure.title} have no rank correlation {over}: too few, or all alike"
        p = "p < 0.001" if self.p < 0.001 else f"p = {self.p:.3f}"
        told = f"Robust accuracy and {self.measure.title}: rank correlation {self.correlation:+.2f} {over} ({p})"
        told = told.replace("-", "−")
        if self.p >= ALPHA:
            return f"{told}: so few methods decide nothing about whether the two rise together"
        way = "rise together" if self.correlation > 0 else "go against each other"
        return f"{told}: over these methods the two {way}; why, it does not say"


def tradeoff(comparison: Comparison, found: Explained) -> Tradeoff | None:
    """The figure of the primary measure over robust accuracy; ``None`` where the measure was not run."""

    measure = found.primary
    methods = [method for method in comparison.methods if method.name in found.panel.methods]
    scores = {method.name: found.panel.value(method.name, measure.name) for method in methods}
    if any(score.not_run for score in scores.values()):
        return None

    judge, eps = comparison.judges()[-1], comparison.judging_eps()
    points = [
        _point(comparison, found, number, method, scores[method.name])
        for number, method in enumerate(comparison.methods)
        if method.name in scores
    ]
    several = {score.over for score in scores.values()} | {
        "seeds" if len(method.runs) > 1 else "images" for method in methods
    }
    words = {"seeds": "± one standard deviation over seeds", "images": "95 % of one model over images"}
    bars = " or, for a single seed, ".join(words[kind] for kind in ("seeds", "images") if kind in several)
    samples = scores[methods[0].name].n
    correlation, p = (float("nan"), 1.0)
    if len(points) >= 3:
        correlation, p = rank_correlation([point.x for point in points], [point.y for point in points])
    arrow = ARROWS[measure.better]
    beside = f"; object's share of the area: {found.panel.area:.3f}" if measure.name == "mass" else ""
    scatter = Scatter(
        key=f"tradeoff-{found.attribution}",
        title="Do robustness and interpretability rise together?",
        subtitle=(
            f"primary measure, named in advance: {measure.title} ({found.attribution})\n"
            f"{counted(len(points), 'method')}, n = {samples} images right under all{beside}\n"
            f"robust accuracy: {judge.title}, protocol {judge.protocol} v{judge.version}, ε = {eps_text(eps)}\n"
            f"bars: {bars}"
        ),
        x_label="robust accuracy (%)",
        y_label=f"{measure.title} {arrow}",
        x_name="robust accuracy (%)",
        points=tuple(points),
    )
    return Tradeoff(measure, scatter, correlation, p, len(points), samples)


def _point(comparison: Comparison, found: Explained, number: int, method: Method, score: Score) -> Point:
    judge, eps = comparison.judges()[-1], comparison.judging_eps()
    # Both axes are of the same runs: not all of a method's need be explained.
    method = replace(method, runs=tuple(found.runs[method.name]))
    robust = comparison.at(method, judge, eps)
    by_seed = dict(zip((run.seed for run in method.runs), robust.values, strict=True))
    low, high = (score.mean - score.sd, score.mean + score.sd) if score.over == "seeds" else (score.low, score.high)
    measured = zip((run.seed for run in found.runs[method.name]), score.values, strict=True)
    return Point(
        name=method.name,
        number=number,
        x=100 * robust.mean,
        x_low=100 * robust.low,
        x_high=100 * robust.high,
        y=score.mean,
        y_low=low,
        y_high=high,
        runs=tuple((100 * by_seed[seed], value) for seed, value in measured) if len(method.runs) > 1 else (),
        text=f"{score_text(score)}, robust {robust.text()} %",
    )
