"""A planted shortcut in figures: accuracy on the four test sets for each method, and the planted images themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..comparison.shortcut_gaps import ShortcutComparison
from ..data import Images, to_unit
from ..numbers import eps_text, norm_sign, signed
from ..shortcuts import VIEWS, ShortcutView
from ..visible import LONGEST_NAME, visible
from .figures import COLOURS, Point, Scatter, house_style, write_figure

__all__ = ["gap_scatter", "write_planted", "write_view_chart"]

_MARKERS = ("o", "s", "^", "D")
_OFFSETS = (-0.24, -0.08, 0.08, 0.24)
"""Of the test sets in the row of a method: no bar lies over another."""


def gap_scatter(used: ShortcutComparison, numbers: Mapping[str, int]) -> Scatter:
    """The gap on the x axis, robust accuracy on the images as they are on the y axis; one point for each method.

    Args:
        used: the methods on the four test sets.
        numbers: the colour of each method.
    """

    several = any(len(method.runs) > 1 for method in used.methods)
    points = []
    for method in used.methods:
        gap, robust = method.gap(), method.accuracy("absent", used.eps)
        runs = zip(gap.values, robust.values, strict=True) if len(method.runs) > 1 else ()
        points.append(
            Point(
                name=method.name,
                number=numbers[method.name],
                x=100 * gap.value,
                x_low=100 * gap.low,
                x_high=100 * gap.high,
                y=100 * robust.value,
                y_low=100 * robust.low,
                y_high=100 * robust.high,
                runs=tuple((100 * x, 100 * y) for x, y in runs),
                text=f"robust {robust.percent()} %, gap {signed(gap.percent())} points",
            )
        )
    return Scatter(
        key="shortcut-gap",
        title="Robust, and free of the shortcut?",
        subtitle=(
            f"gap: clean accuracy on aligned less reversed images, n = {used.samples}\n"
            f"robust accuracy: on the images without the shortcut, {norm_sign(used.norm)}, ε = {eps_text(used.eps)}, "
            f"protocol {used.protocol}\n"
            f"bars: {_bars(several)}; better: a smaller gap, a higher robust accuracy"
        ),
        x_label="gap (points)",
        y_label="robust accuracy (%)",
        x_name="gap (points)",
        points=tuple(points),
    )


def _bars(several: bool) -> str:
    return "± standard deviation over seeds" if several else "95 % of one model over images"


@house_style()
def write_view_chart(used: ShortcutComparison, path: Path) -> None:
    """Draws a row for each method with its accuracy on each test set, and its spread over seeds or interval.

    Args:
        used: the methods on the four test sets.
        path: where to write; the suffix says what: ``.png``, ``.pdf`` or ``.svg``.
    """

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 1.1 + 0.42 * len(used.methods)), layout="constrained")
    axis = figure.subplots()
    rows = range(len(used.methods))
    for view, colour, marker, offset in zip(VIEWS, COLOURS, _MARKERS, _OFFSETS, strict=False):
        found = [method.accuracy(view) for method in used.methods]
        axis.errorbar(
            [100 * each.value for each in found],
            [row + offset for row in rows],
            xerr=[
                [100 * (each.value - each.low) for each in found],
                [100 * (each.high - each.value) for each in found],
            ],
            color=colour,
            marker=marker,
            markersize=5,
            linestyle="none",
            elinewidth=1,
            capsize=2,
            label=view,
        )
    axis.set_yticks(
        list(rows), [visible(method.name, LONGEST_NAME) for method in used.methods], fontsize=9, parse_math=False
    )
    axis.set(ylim=(len(used.methods) - 0.5, -0.5), xlim=(-2, 102), xlabel="accuracy (%)")
    axis.grid(axis="x", alpha=0.3)
    several = any(len(method.runs) > 1 for method in used.methods)
    figure.suptitle(f"{used.data}, n = {used.samples} test images in each test set; bars: {_bars(several)}", fontsize=9)
    figure.legend(loc="outside lower center", ncols=len(VIEWS), frameon=False, fontsize=8.5)
    write_figure(figure, path)


@house_style()
def write_planted(views: Mapping[ShortcutView, Images], path: Path) -> None:
    """Draws the same images in each test set, a row a test set.

    Args:
        views: a few images by the name of the test set, as :func:`asgt.data.shortcut_views` gives them.
        path: where to write; the suffix says what: ``.png``, ``.pdf`` or ``.svg``.
    """

    from matplotlib.figure import Figure

    first = next(iter(views.values()))
    count = len(first)
    figure = Figure(figsize=(0.9 + 0.62 * count, 0.2 + 0.66 * len(views)), layout="constrained")
    axes = figure.subplots(len(views), count, squeeze=False)
    for row, (view, images) in zip(axes, views.items(), strict=True):
        pixels = to_unit(images.pixels[:])
        for place, axis in enumerate(row):
            picture = pixels[place].permute(1, 2, 0)
            grey = {"cmap": "gray", "vmin": 0.0, "vmax": 1.0} if picture.shape[2] == 1 else {}
            axis.imshow(picture.squeeze(2).numpy() if grey else picture.numpy(), interpolation="nearest", **grey)
            axis.set(xticks=[], yticks=[])
            if images is first:
                title = visible(first.classes[int(first.labels[place])], 12)
                axis.set_title(title, fontsize=8, parse_math=False)
        row[0].set_ylabel(view, fontsize=8, rotation=0, ha="right", va="center")
    write_figure(figure, path)
