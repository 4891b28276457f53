"""Results for people: one that is printed gives its table, and in a notebook it shows its table and its figure."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from .statistics import Estimate
from .visible import LONGEST_NAME, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Table", "Tabular", "draw_curves"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#808080")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what its numbers are: protocol, images, interval.
        head: the names of the columns.
        rows: as many cells each.
        notes: lines under it.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


class Tabular(ABC):
    """What results share: ``table()`` says what is shown, and ``plot()`` draws it, where there is something to draw."""

    @abstractmethod
    def table(self) -> Table:
        """The result as a table of texts."""

    def plot(self, axes: Axes | None = None, *, label: str = "") -> Axes | None:
        """Draws the result; ``None`` where there is no figure of it.

        Args:
            axes: matplotlib axes to draw on, also those of another result. Default: those of a new figure.
            label: what comes before the names of the curves, to tell results on the same axes apart.
        """

        return None

    def __str__(self) -> str:
        table = self.table()
        cells = [list(table.head), *map(list, table.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(table.head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return visible("\n".join([table.title, *lines, *table.notes]))

    def _repr_html_(self) -> str:
        table = self.table()
        head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in table.notes)
        axes = self.plot()
        return visible(
            f"<p>{escape(table.title)}</p><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}"
            + ("" if axes is None else _svg(axes))
        )


def draw_curves(
    curves: Mapping[str, Mapping[float, Estimate]], axes: Axes | None, *, title: str, x_label: str, label: str = ""
) -> Axes:
    """Draws accuracies in percent over x, a curve with the band of its interval for each name.

    Args:
        curves: by name, the estimate at each x.
        axes: where to draw. Default: a new figure.
        title: above them.
        x_label: with its unit.
        label: what comes before the names.
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


def _svg(axes: Axes) -> str:
    """The figure of some axes as SVG whose text is text, the same for the same numbers."""

    from matplotlib import rc_context

    content = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "asgt"}):
        figure = axes.get_figure()
        assert figure is not None
        figure.savefig(content, format="svg", metadata={"Date": None})  # type: ignore[union-attr]
    text = content.getvalue().decode()
    return text[text.index("<svg") :]
