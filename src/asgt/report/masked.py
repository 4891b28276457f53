"""Masked accuracy as curves: what a model still gets right when more and more of an image's pixels are hidden."""

from __future__ import annotations

from collections.abc import Mapping

from .explained import Explained
from .figures import Line, Panel

__all__ = ["masked_panels"]

_SHOWN = (
    ("mean", "random", "the images' mean as fill", "thick: the top pixels by m hidden; thin: random ones"),
    ("noise", "random", "uniform noise as fill", "thick: the top pixels by m hidden; thin: random ones"),
    ("linear", "least", "ROAD: noisy linear imputation", "thick: the top pixels by m first; thin: the least relevant"),
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
            lines.append(
                Line(
                    name=method,
                    number=numbers[method],
                    # The images are those that every model gets right.
                    x=(0.0, *(100 * share for share in top.shares)),
                    y=(100.0, *(100 * value for value in top.accuracy)),
                    low=(100.0, *(100 * value for value in top.low)),
                    high=(100.0, *(100 * value for value in top.high)),
                    texts=(
                        "100.0",
                        *(
                            f"{100 * hidden:.1f} [{100 * low:.1f}, {100 * high:.1f}], {beside}: {100 * held:.1f}"
                            for hidden, low, high, held in zip(
                                top.accuracy, top.low, top.high, other.accuracy, strict=True
                            )
                        ),
                    ),
                    beside=(100.0, *(100 * value for value in other.accuracy)),
                )
            )
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
