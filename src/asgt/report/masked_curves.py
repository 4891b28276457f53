"""Masked accuracy as curves: the accuracy when more and more of an image's pixels are masked."""

from __future__ import annotations

from collections.abc import Mapping

from ..comparison.explained import Explained
from ..explanation import Curve
from .figures import Chart, Line

__all__ = ["masked_charts"]

_SHOWN = (
    (
        "mean",
        "random",
        "fill: mean of the images",
        "thick: pixels with the largest m masked; thin: random pixels masked",
    ),
    ("noise", "random", "fill: uniform noise", "thick: pixels with the largest m masked; thin: random pixels masked"),
    (
        "linear",
        "least",
        "fill: noisy linear imputation (ROAD)",
        "thick: pixels with the largest m masked first; thin: with the smallest m first",
    ),
)


def masked_charts(explained: Explained, numbers: Mapping[str, int]) -> list[Chart]:
    """A chart for each fill, with a curve for each method: the pixels with the largest values masked, and the
    comparison curve.

    Args:
        explained: the panel; without values there are no curves.
        numbers: the colour of each method.
    """

    curves = {(curve.method, curve.fill, curve.order): curve for curve in explained.panel.curves}
    if not curves:
        return []

    charts = []
    for fill, beside, title, subtitle in _SHOWN:
        lines = []
        for method in explained.panel.methods:
            top, other = curves[method, fill, "top"], curves[method, fill, beside]  # type: ignore[index]
            lines.append(_line(numbers[method], top, other))
        charts.append(
            Chart(
                key=f"masked-{explained.file}-{fill}",
                title=title,
                subtitle=subtitle,
                x_label="masked pixels (%)",
                y_label="accuracy (%)",
                x_name="masked pixels (%)",
                lines=tuple(lines),
                y_limits=(-2, 102),
            )
        )
    return charts


def _line(number: int, top: Curve, other: Curve) -> Line:
    """The images are those that every model gets right, so that each curve begins at all of them."""

    spans = [
        (point.low, point.high) if point.sd is None else (point.value - point.sd, point.value + point.sd)
        for point in top.accuracy
    ]
    return Line(
        name=top.method,
        number=number,
        x=(0.0, *(100 * share for share in top.shares)),
        y=(100.0, *(100 * point.value for point in top.accuracy)),
        low=(100.0, *(100 * max(low, 0.0) for low, _ in spans)),
        high=(100.0, *(100 * min(high, 1.0) for _, high in spans)),
        texts=(
            "100.0",
            *(
                f"{point.percent()}, {other.order}: {100 * beside.value:.1f}"
                for point, beside in zip(top.accuracy, other.accuracy, strict=True)
            ),
        ),
        beside=(100.0, *(100 * point.value for point in other.accuracy)),
    )
