"""Robustness and the primary measure of each method as a scatter."""

from __future__ import annotations

from collections.abc import Mapping

from ..comparison.explained import ARROWS
from ..comparison.tradeoff import Tradeoff, TradeoffPoint
from ..names import file_name
from ..numbers import counted, eps_text
from .figures import Point, Scatter

__all__ = ["tradeoff_scatter"]


def tradeoff_scatter(tradeoff: Tradeoff, numbers: Mapping[str, int]) -> Scatter:
    """Robust accuracy on the x axis, the primary measure on the y axis; one point for each method.

    Args:
        tradeoff: the values to draw.
        numbers: the colour of each method.
    """

    measure, judge = tradeoff.measure, tradeoff.judge
    over_seeds = {len(point.robust.values) > 1 for point in tradeoff.points}
    words = {True: "± one standard deviation over seeds", False: "95 % of one model over images"}
    bars = " or, for a single seed, ".join(words[several] for several in (True, False) if several in over_seeds)
    beside = f"; object's share of the area: {tradeoff.area:.3f}" if measure.name == "mass" else ""
    return Scatter(
        key=f"tradeoff-{file_name(tradeoff.attribution)}",
        title="Do robustness and interpretability rise together?",
        subtitle=(
            f"primary measure, fixed in advance: {measure.title} ({tradeoff.attribution})\n"
            f"{counted(len(tradeoff.points), 'method')}, n = {tradeoff.n} images that all models classify "
            f"correctly{beside}\n"
            f"robust accuracy: {judge.title}, protocol {judge.protocol} v{judge.version}, "
            f"ε = {eps_text(tradeoff.eps)}\n"
            f"bars: {bars}"
        ),
        x_label="robust accuracy (%)",
        y_label=f"{measure.title} {ARROWS[measure.better]}",
        x_name="robust accuracy (%)",
        points=tuple(_point(point, numbers[point.method]) for point in tradeoff.points),
    )


def _point(point: TradeoffPoint, number: int) -> Point:
    robust, measured = point.robust, point.measured
    low, high = measured.low, measured.high
    if measured.interval == "t":
        sd = measured.sd or 0.0
        low, high = measured.value - sd, measured.value + sd
    several = len(robust.values) > 1
    return Point(
        name=point.method,
        number=number,
        x=100 * robust.value,
        x_low=100 * robust.low,
        x_high=100 * robust.high,
        y=measured.value,
        y_low=low,
        y_high=high,
        runs=tuple((100 * x, y) for x, y in zip(robust.values, measured.values, strict=True)) if several else (),
        text=f"{measured.text()}, robust {robust.percent()} %",
    )
