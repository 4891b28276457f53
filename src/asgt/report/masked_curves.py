"""Masked accuracy as curves: what a model still gets right when more and more of an image's pixels are hidden."""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan

from ..comparison.explained import Explained
from ..explanation import Curve
from .figures import Line, Panel

__all__ = ["masked_panels"]

_SHOWN = (
    ("mean", "random", "the images' mean as fill", "thick: the top by m hidden; thin: random pixels"),
    ("noise", "random", "uniform noise as fill", "thick: the top by m hidden; thin: random pixels"),
    ("linear", "least", "ROAD: noisy linear imputation", "thick: the top by m first; thin: the least"),
)


def masked_panels(found: Explained, numbers: Mapping[str, int]) -> list[Panel]:
    """A panel for each fill, with a curve for each method: the top pixels hidden, and beside it what they are held to.

    Args:
        found: the panel; without values there are no curves.
        numbers: the colour of each method.
    """

    curves = {(curve.method, curve.fill, curve.order): curve for curve in found.panel.curves}
    if not curves:
        return []

    panels = []
    for fill, beside, title, subtitle in _SHOWN:
        lines = []
        for method in found.panel.methods:
            top, other = curves[method, fill, "top"], curves[method, fill, beside]  # type: ignore[index]
            lines.append(_line(numbers[method], top, other))
        panels.append(
            Panel(
                key=f"masked-{found.attribution}-{fill}",
                title=title,
                subtitle=subtitle,
                x_label="pixels hidden (%)",
                y_label="accuracy (%)",
                x_name="pixels hidden (%)",
                lines=tuple(lines),
                y_limits=(-2, 102),
            )
        )
    return panels


def _line(number: int, top: Curve, other: Curve) -> Line:
    """The images are those that every model gets right, so that each curve begins at all of them."""

    points = list(zip(top.accuracy, top.low, top.high, top.sd, other.accuracy, strict=True))
    edges = [(low, high) if isnan(sd) else (mean - sd, mean + sd) for mean, low, high, sd, _ in points]
    spans = [
        f"[{100 * low:.1f}, {100 * high:.1f}]" if isnan(sd) else f"± {100 * sd:.1f}" for _, low, high, sd, _ in points
    ]
    return Line(
        name=top.method,
        number=number,
        x=(0.0, *(100 * share for share in top.shares)),
        y=(100.0, *(100 * point[0] for point in points)),
        low=(100.0, *(100 * max(low, 0.0) for low, _ in edges)),
        high=(100.0, *(100 * min(high, 1.0) for _, high in edges)),
        texts=(
            "100.0",
            *(
                f"{100 * point[0]:.1f} {span}, {other.order}: {100 * point[4]:.1f}"
                for point, span in zip(points, spans, strict=True)
            ),
        ),
        beside=(100.0, *(100 * value for value in other.accuracy)),
    )
