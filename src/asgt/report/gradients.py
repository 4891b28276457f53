"""The distributions of the gradient's values as charts, with a curve for each method."""

from __future__ import annotations

from collections.abc import Mapping

from ..comparison.gradient_values import GradientValues, Histogram
from .figures import Chart, Line

__all__ = ["gradient_charts"]

_FLOOR = 0.001  # percent


def gradient_charts(values: GradientValues | None, numbers: Mapping[str, int]) -> list[Chart]:
    """Two distributions, with a curve for each method: relative to each image's largest value, and unscaled.

    Args:
        values: the distributions; without them there are no charts.
        numbers: the colour of each method.
    """

    if values is None:
        return []
    return [
        Chart(
            key="gradients-relative",
            title="a divided by the image's largest |a|",
            subtitle=f"{values.whose}\nshares below {_FLOOR:g} % are drawn at the lower edge",
            x_label="a / max |a| of the image",
            y_label="share of the values (%)",
            x_name="a / max |a|",
            lines=_lines(values.relative, numbers, _FLOOR),
            y_limits=(_FLOOR * 0.8, 130),
            y_scale="log",
        ),
        Chart(
            key="gradients-raw",
            title="|a| unscaled: its scale differs between models",
            subtitle=f"{values.whose}\nthe first point includes all smaller values and zeros",
            x_label="log₁₀ |a|",
            y_label="share of the values (%)",
            x_name="log₁₀ |a|",
            lines=_lines(values.logarithms, numbers, 0.0),
        ),
    ]


def _lines(histogram: Histogram, numbers: Mapping[str, int], floor: float) -> tuple[Line, ...]:
    """The share of the values in each bin, in percent, over the bins' middles."""

    lines = []
    for name, shares in histogram.shares.items():
        drawn = tuple(max(share, floor) for share in shares)
        texts = tuple(f"{share:.3g} %" for share in shares)
        lines.append(Line(name, numbers[name], histogram.middles, y=drawn, low=drawn, high=drawn, texts=texts))
    return tuple(lines)
