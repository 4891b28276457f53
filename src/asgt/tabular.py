"""Display of results: ``print`` shows the table, and a notebook the table and the figure."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from statistics import median
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from .statistics import Estimate
from .visible import LONGEST_NAME, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Table", "Tabular", "draw_courses", "draw_curves"]

_WIDEST = 60
"""The width of a printed column in characters; longer texts continue in the next line."""

_SHORT = 24
"""The number of characters of a cell that a notebook shows in one line."""

_STYLE = ' style="text-align:left"'
"""The style of cells with text: a notebook aligns all cells to the right."""

_OF_NUMBERS = (*"0123456789+−–-",)

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#808080")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Table:
    """A table of texts; ``print`` shows it in columns, a notebook as a table.

    Attributes:
        title: a description of its numbers: protocol, images, interval.
        head: the names of the columns.
        rows: the cells of each row.
        notes: lines under it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        columns = [_aligned(column) for column in zip(self.head, *self.rows, strict=True)]
        lines = []
        for row in zip(*columns, strict=True):
            for parts in zip_longest(*row, fillvalue=""):
                spaced = (part.ljust(len(cell[0])) for part, cell in zip(parts, row, strict=True))
                lines.append("  ".join(spaced).rstrip())
        return visible("\n".join([self.title, *lines, *self.notes]))

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        styles = [_STYLE if _is_text(column) else "" for column in zip(self.head, *self.rows, strict=True)]

        def cells(row: Sequence[str], tag: str) -> str:
            filled = zip(row, styles, strict=True)
            return "".join(f"<{tag}{style}>{_unbroken(escape(cell))}</{tag}>" for cell, style in filled)

        head = cells(self.head, "th")
        body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        return visible(
            f"<p>{escape(self.title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
        )


class Tabular(ABC):
    """The base of results: ``table()`` returns the table, and ``plot()`` draws a figure, if there is one."""

    @abstractmethod
    def table(self) -> Table:
        """The result as a table of texts."""

    def plot(self, axes: Axes | None = None, *, label: str = "") -> Axes | None:
        """Draws the result; ``None`` where there is no figure of it.

        Args:
            axes: matplotlib axes to draw on, also those of another result. Default: those of a new figure.
            label: a prefix of the names of the curves, to distinguish results on the same axes.
        """

        return None

    def __str__(self) -> str:
        return str(self.table())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What IPython shows as text: the table, in the place of all tensors."""

        printer.text(str(self))

    def __init_subclass__(cls) -> None:
        # IPython asks one class after the other, and the repr of a dataclass would come before what is inherited.
        cls._repr_pretty_ = cls._repr_pretty_  # type: ignore[method-assign]

    def _repr_html_(self) -> str:
        axes = self.plot()
        return self.table()._repr_html_() + ("" if axes is None else visible(_svg(axes)))


def draw_curves(
    curves: Mapping[str, Mapping[float, Estimate]], axes: Axes | None, *, title: str, x_label: str, label: str = ""
) -> Axes:
    """Draws accuracies in percent over x, a curve with the band of its interval for each name.

    Args:
        curves: by name, the estimate at each x.
        axes: the axes. Default: a new figure.
        title: above them.
        x_label: with its unit.
        label: a prefix of the names.
    """

    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(5.2, 3.4), layout="constrained").subplots()
    # Curves that are there already keep their colours.
    for place, (name, points) in enumerate(curves.items(), start=len(axes.get_lines())):
        values, lows, highs = (
            [100 * getattr(estimate, end) for estimate in points.values()] for end in ("value", "low", "high")
        )
        colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
        axes.plot(
            list(points),
            values,
            color=colour,
            marker=marker,
            markersize=4,
            label=visible(f"{label} {name}".strip(), LONGEST_NAME),
        )
        axes.fill_between(list(points), lows, highs, color=colour, alpha=0.15, linewidth=0)
    axes.set(xlabel=visible(x_label), ylabel="accuracy (%)", ylim=(-2, 102))
    axes.set_title(visible(title), fontsize=9, parse_math=False)
    axes.grid(alpha=0.3)
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    return axes


def draw_courses(
    groups: Mapping[str, Sequence[Sequence[float]]], axes: Axes | None, *, title: str, x_label: str, y_label: str
) -> Axes:
    """Draws courses over the steps 0, 1, …: each one thin, and the median of each group thick.

    Args:
        groups: by name, courses of one length; a group without any is omitted.
        axes: where to draw. Default: a new figure.
        title: above them.
        x_label: of the steps.
        y_label: of what is drawn.
    """

    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(5.2, 3.4), layout="constrained").subplots()
    for place, (name, courses) in enumerate(groups.items()):
        colour = _COLOURS[place % len(_COLOURS)]
        for course in courses:
            axes.plot(range(len(course)), course, color=colour, linewidth=0.6, alpha=0.45)
        if courses:
            middle = [median(values) for values in zip(*courses, strict=True)]
            label = visible(f"{name} (median of {len(courses)})", LONGEST_NAME)
            axes.plot(range(len(middle)), middle, color=colour, linewidth=2.4, label=label)
    axes.set(xlabel=visible(x_label), ylabel=visible(y_label))
    axes.set_title(visible(title), fontsize=9, parse_math=False)
    axes.grid(alpha=0.3)
    for text in axes.legend(fontsize=8, frameon=False).get_texts():
        text.set_parse_math(False)
    return axes


def _aligned(column: Sequence[str]) -> list[list[str]]:
    """The cells of a column, its head first, each as lines of one width: numbers to the right, words to the left."""

    wrapped = [wrap(cell, _WIDEST) or [""] for cell in column]
    width = max(len(line) for lines in wrapped for line in lines)
    is_text = _is_text(column)
    return [[line.ljust(width) if is_text else line.rjust(width) for line in lines] for lines in wrapped]


def _is_text(column: Sequence[str]) -> bool:
    """Whether a column, its head first, holds words, and not numbers alone."""

    return any(cell and not cell.startswith(_OF_NUMBERS) for cell in column[1:])


def _unbroken(cell: str) -> str:
    """A short cell, as HTML, with spaces at which no line breaks."""

    return cell.replace(" ", "\u00a0") if len(cell) <= _SHORT else cell


def _svg(axes: Axes) -> str:
    """The figure of some axes as SVG whose text is text, the same for the same numbers, on a page of any colour."""

    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "asgt"}):
        figure = axes.get_figure()
        assert figure is not None
        figure.savefig(content, format="svg", metadata={"Date": None}, transparent=True)  # type: ignore[union-attr]
    text = content.getvalue().decode()
    # What is black takes the colour of the page's text.
    svg = text[text.index("<svg") :].replace("#000000", "currentColor")
    return svg.replace("<svg", '<svg fill="currentColor"', 1)
