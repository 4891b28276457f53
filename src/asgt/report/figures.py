"""The style of figures: charts of lines with bands, distinguishable in grey by marker and dash.

The page shows the charts as inline SVG in the page's colours; PNG and PDF files for papers hold the same charts.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..files import write_bytes
from ..visible import LONGEST_NAME, visible

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "Chart",
    "Line",
    "Point",
    "Scatter",
    "chart_svg",
    "house_style",
    "scatter_svg",
    "swatch_svg",
    "write_charts",
    "write_figure",
    "write_scatter",
]

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#808080")
"""Okabe and Ito's colours, which most people can distinguish; a grey replaces their yellow, which is faint on white."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
)
_FAINT = "#8a8a8a"
_LONGEST_LINE = 160  # characters of a title


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        name: as in the legend.
        number: index of colour, marker and dash: the same for a method in every chart.
        x: ascending.
        y: as many values.
        low: the lower edge of its band, as many.
        high: the upper edge.
        texts: each value as text, with its interval.
        beside: what y is held against, drawn thin and without markers in the same colour; empty without it.
        threads: single courses over x = 0, 1, …, of which y is the middle, drawn thin in the same colour.
    """

    name: str
    number: int
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    texts: tuple[str, ...]
    beside: tuple[float, ...] = ()
    threads: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True)
class Chart:
    """Lines on one pair of axes.

    Attributes:
        key: unique on a page, of letters, digits and hyphens.
        title: the first line above it.
        subtitle: the second.
        x_label: with its unit.
        y_label: with its unit.
        x_name: the name of x before a value, such as ``"ε"``.
        lines: what it shows.
        y_limits: the range of y, or ``None`` for that of the lines.
        marks: vertical lines, each with its dash; the subtitle explains them.
        y_scale: whether y is logarithmic.
    """

    key: str
    title: str
    subtitle: str
    x_label: str
    y_label: str
    x_name: str
    lines: tuple[Line, ...]
    y_limits: tuple[float, float] | None = None
    marks: tuple[tuple[float, Literal["dotted", "dashed"]], ...] = ()
    y_scale: Literal["linear", "log"] = "linear"


@dataclass(frozen=True)
class Point:
    """A method, given by two of its values.

    Attributes:
        name: as in the legend.
        number: which colour and marker.
        x: the first value, with its interval.
        x_low: the lower end.
        x_high: the upper end.
        y: the other.
        y_low: likewise.
        y_high: likewise.
        runs: the two values of each run.
        text: y as text.
    """

    name: str
    number: int
    x: float
    x_low: float
    x_high: float
    y: float
    y_low: float
    y_high: float
    runs: tuple[tuple[float, float], ...]
    text: str


@dataclass(frozen=True)
class Scatter:
    """Methods as points of a scatter, with the fields of a :class:`Chart`.

    Attributes:
        key: unique on a page.
        title: the first line above it.
        subtitle: what follows.
        x_label: with its unit.
        y_label: with its unit.
        x_name: what x is called before a value.
        points: one for each method.
    """

    key: str
    title: str
    subtitle: str
    x_label: str
    y_label: str
    x_name: str
    points: tuple[Point, ...]


@contextmanager
def house_style() -> Iterator[None]:
    """matplotlib's defaults with text as text: no style or matplotlibrc of the user changes a figure."""

    from matplotlib import rc_context, style

    with style.context("default"), rc_context({"svg.fonttype": "none", "svg.hashsalt": "asgt"}):
        yield


@house_style()
def write_charts(charts: Sequence[Chart], path: Path, *, title: str, columns: int = 4) -> None:
    """Draws charts as one figure with one legend.

    Args:
        charts: in reading order.
        path: where to write; the suffix gives the format: ``.png``, ``.pdf`` or ``.svg``.
        title: above them all.
        columns: charts a row, at most.
    """

    from matplotlib.figure import Figure

    across = min(columns, len(charts))
    down = math.ceil(len(charts) / across)
    # The lines' names need not be the same in every chart: not every method has every curve.
    names = {line.number: visible(line.name, LONGEST_NAME) for chart in charts for line in chart.lines}
    width = max(3.3 * across, 6.6)
    abreast = max(1, min(7, len(names), int(width / (0.55 + 0.075 * max(map(len, names.values()))))))
    height = 3.2 * down + 0.7 + 0.2 * math.ceil(len(names) / abreast)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).flatten()
    for axis, chart in zip(axes, charts, strict=False):
        _draw(axis, chart)
        axis.set_title(_lines(f"{chart.title}\n{chart.subtitle}"), fontsize=7.8, parse_math=False)
    for axis in axes[len(charts) :]:
        axis.set_axis_off()

    figure.suptitle(_lines(title), fontsize=9.5, parse_math=False)
    handles = {line.number: handle for axis, p in zip(axes, charts, strict=False) for line, handle in _handles(axis, p)}
    legend = figure.legend(
        [handles[number] for number in sorted(handles)],
        [names[number] for number in sorted(handles)],
        loc="outside lower center",
        ncols=abreast,
        frameon=False,
        fontsize=8.5,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    write_figure(figure, path)


@house_style()
def write_scatter(scatter: Scatter, path: Path) -> None:
    """Draws a scatter as a figure with its legend; the suffix gives the format: ``.png``, ``.pdf`` or ``.svg``."""

    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axis = figure.subplots()
    _draw_points(axis, scatter)
    axis.set_title(_lines(f"{scatter.title}\n{scatter.subtitle}"), fontsize=7.8, parse_math=False)
    names = {
        handle: visible(point.name, LONGEST_NAME) for handle, point in zip(_curves(axis), scatter.points, strict=True)
    }
    legend = figure.legend(list(names), list(names.values()), loc="outside right center", frameon=False, fontsize=8.5)
    for text in legend.get_texts():
        text.set_parse_math(False)
    write_figure(figure, path)


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically, with the same bytes for the same figure."""

    write_bytes(path, _saved(figure, path.suffix[1:] or "png"))


@house_style()
def chart_svg(chart: Chart) -> str:
    """A chart as SVG for inlining: its text is text, its colours are the page's, its ids begin with the chart's key.

    The markers of line ``number`` are the ``use`` elements of the group with the id ``KEY-curve-NUMBER``.
    """

    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 2.7), layout="constrained")
    _draw(figure.subplots(), chart)
    return _inline(figure, chart.key)


@house_style()
def scatter_svg(scatter: Scatter) -> str:
    """A scatter as SVG for inlining, as :func:`chart_svg` makes one of a chart; each method is a curve of one point."""

    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.5, 2.7), layout="constrained")
    _draw_points(figure.subplots(), scatter)
    return _inline(figure, scatter.key)


@house_style()
def swatch_svg(number: int, key: str) -> str:
    """A line's colour, dash and marker alone, for the legend ``key``: its ids begin with that."""

    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.5, 0.16))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.set(xlim=(0, 2), ylim=(0, 2))
    axis.plot([0.05, 1, 1.95], [1, 1, 1], markevery=[1], **_style(number), clip_on=False)  # type: ignore[arg-type]
    return _inline(figure, f"{key}-swatch-{number}")


def _style(number: int) -> dict[str, object]:
    place = number % len(COLOURS)
    # Beyond eight, the same colours come with the next dash.
    dash = _DASHES[(number + number // len(COLOURS)) % len(_DASHES)]
    return {
        "color": COLOURS[place],
        "marker": _MARKERS[place],
        "linestyle": dash,
        "markersize": 4.5,
        "linewidth": 1.5,
    }


def _draw(axis: Axes, chart: Chart) -> None:
    for line in chart.lines:
        axis.plot(line.x, line.y, gid=f"curve-{line.number}", **_style(line.number))  # type: ignore[arg-type]
        colour = COLOURS[line.number % len(COLOURS)]
        band = axis.fill_between(line.x, line.low, line.high, color=colour, alpha=0.13, linewidth=0)
        band.set_gid(f"band-{line.number}")
    # After all curves, which come first for the legend.
    for line in chart.lines:
        if line.beside:
            style = {"color": COLOURS[line.number % len(COLOURS)], "linewidth": 0.8, "alpha": 0.75}
            axis.plot(line.x, line.beside, gid=f"beside-band-{line.number}", **style)  # type: ignore[arg-type]
        for place, course in enumerate(line.threads):
            style = {"color": COLOURS[line.number % len(COLOURS)], "linewidth": 0.7, "alpha": 0.6, "zorder": 1.5}
            axis.plot(range(len(course)), course, gid=f"thread{place}-band-{line.number}", **style)  # type: ignore[arg-type]

    axis.set_yscale(chart.y_scale)
    if chart.y_scale == "log":
        # Not as powers of ten, whose exponents are too small to be read on the page.
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if chart.y_limits is not None:
        axis.set_ylim(*chart.y_limits)
    for x, dash in chart.marks:
        axis.axvline(x, color=_FAINT, linewidth=1, linestyle=dash, zorder=0)
    _finish(axis, chart)


def _draw_points(axis: Axes, scatter: Scatter) -> None:
    for point in scatter.points:
        style = _style(point.number) | {"linestyle": "none", "markersize": 7}
        axis.plot([point.x], [point.y], gid=f"curve-{point.number}", zorder=3, **style)  # type: ignore[arg-type]
    for point in scatter.points:
        colour = COLOURS[point.number % len(COLOURS)]
        bars = axis.errorbar(
            [point.x],
            [point.y],
            xerr=[[point.x - point.x_low], [point.x_high - point.x]],
            yerr=[[point.y - point.y_low], [point.y_high - point.y]],
            fmt="none",
            ecolor=colour,
            elinewidth=1,
            capsize=2,
            zorder=2,
        )
        for number, part in enumerate((*bars.lines[1], *bars.lines[2])):
            part.set_gid(f"bar{number}-band-{point.number}")
        for number, (x, y) in enumerate(point.runs):
            gid = f"run{number}-band-{point.number}"
            axis.plot([x], [y], ".", color=colour, markersize=4, alpha=0.7, gid=gid, zorder=1)
    _finish(axis, scatter)


def _finish(axis: Axes, chart: Chart | Scatter) -> None:
    """Labels and grid."""

    axis.set_xlabel(_lines(chart.x_label), fontsize=9)
    axis.set_ylabel(_lines(chart.y_label), fontsize=9)
    axis.tick_params(labelsize=8.5)
    axis.grid(alpha=0.3, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)


def _curves(axis: Axes) -> list[Artist]:
    """The lines of the legend."""

    return [line for line in axis.get_lines() if str(line.get_gid()).startswith("curve-")]


def _handles(axis: Axes, chart: Chart) -> list[tuple[Line, Artist]]:
    return list(zip(chart.lines, _curves(axis), strict=True))


def _inline(figure: Figure, prefix: str) -> str:
    """The figure's SVG without a size, a background or colours of its own."""

    figure.patch.set_visible(False)
    for axis in figure.axes:
        axis.patch.set_visible(False)

    text = _saved(figure, "svg").decode()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for number, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--line-{number})")
    return re.sub(r"\n\s*", "\n", text).strip()


def _lines(text: str) -> str:
    """Lines of a title, each of a length that a figure can hold."""

    return "\n".join(visible(line, _LONGEST_LINE) for line in text.split("\n"))


def _saved(figure: Figure, kind: str) -> bytes:
    from matplotlib.text import Text

    # Whatever put it there: a control character makes an SVG file that no program reads.
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if (shown := visible(text.get_text())) != text.get_text():
            text.set_text(shown)
    content = io.BytesIO()
    # Names of classes may be in any script; a box in the picture is no reason to speak up.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        dated = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
        figure.savefig(content, format=kind, dpi=150, metadata=dated.get(kind))
    return content.getvalue()
