"""An evaluation for people: its table as text and HTML, its rows as a data frame, its curves as a figure."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attacks import Norm
from ..numbers import eps_text, norm_sign
from ..statistics import Estimate
from .check import Check, checks_text
from .protocols import Protocol

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["Displayed"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#808080")


class Displayed:
    """What an evaluation shows of itself: ``print`` gives its table, a notebook the table and the figure."""

    if TYPE_CHECKING:
        protocol: Protocol
        norm: Norm
        epsilons: tuple[float, ...]
        seed: int
        selection: str
        outcomes: Mapping[str, Tensor]
        checks: tuple[Check, ...]

        @property
        def samples(self) -> int: ...

        @property
        def accuracy(self) -> Estimate: ...

        def curve(self, search: str | None = None) -> dict[float, Estimate]: ...

    @property
    def title(self) -> str:
        """What the numbers of the table are: protocol, norm, images, seed and interval."""

        protocol = self.protocol
        selection = f" ({self.selection})" if self.selection else ""
        return (
            f"accuracy % [Wilson 95 %] · protocol {protocol.name} v{protocol.version} ({protocol.claim}) · "
            f"{norm_sign(self.norm)} · n = {self.samples} images{selection} · one model, seed {self.seed}"
        )

    def __str__(self) -> str:
        head, rows = self._rows()
        cells = [head, *rows]
        widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.title, *lines, self._credibility()])

    def _repr_html_(self) -> str:
        head, rows = self._rows()
        names = "".join(f"<th>{escape(cell)}</th>" for cell in head)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        return (
            f"<p>{escape(self.title)}</p><table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self._credibility())}</p>{self._svg()}"
        )

    def to_frame(self) -> DataFrame:
        """A row for each search and ε: ``search``, ``eps``, ``accuracy``, ``low``, ``high``, ``n``; ε = 0 is clean."""

        import pandas

        def row(search: str, eps: float, estimate: Estimate) -> dict[str, Any]:
            ends = {name: getattr(estimate, name) for name in ("low", "high", "n")}
            return {"search": search, "eps": eps, "accuracy": estimate.value} | ends

        rows = []
        for search in self.outcomes:
            rows.append(row(search, 0.0, self.accuracy))
            rows += [row(search, eps, estimate) for eps, estimate in self.curve(search).items()]
        return pandas.DataFrame(rows)

    def plot(self, axes: Axes | None = None) -> Axes:
        """Draws accuracy over ε, a curve with its interval for each search; the clean accuracy stands at 0.

        Args:
            axes: matplotlib axes to draw on. Default: those of a new figure.
        """

        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=(5.2, 3.4), layout="constrained").subplots()
        titles = {search.name: search.title or search.name for search in self.protocol.searches}
        for place, name in enumerate(self.outcomes):
            points = {0.0: self.accuracy} | self.curve(name)
            colour = _COLOURS[place % len(_COLOURS)]
            values, lows, highs = (
                [100 * getattr(estimate, end) for estimate in points.values()] for end in ("value", "low", "high")
            )
            axes.plot(list(points), values, "o-", color=colour, markersize=4, label=titles[name])
            axes.fill_between(list(points), lows, highs, color=colour, alpha=0.15, linewidth=0)
        axes.set(xlabel=f"ε ({norm_sign(self.norm)}, pixels in [0, 1])", ylabel="accuracy (%)", ylim=(-2, 102))
        named = f"protocol {self.protocol.name} v{self.protocol.version}"
        axes.set_title(f"{named}, n = {self.samples}, Wilson 95 %", fontsize=9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
        return axes

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """The head of the table and its rows, as text."""

        curves = {name: self.curve(name) for name in self.outcomes}
        rows = [["0", self.accuracy.percent(), *("" for _ in curves)]]
        rows += [[eps_text(eps), "", *(curve[eps].percent() for curve in curves.values())] for eps in self.epsilons]
        return ["ε", "clean", *curves], rows

    def _credibility(self) -> str:
        return f"can it be believed? {checks_text(self.checks)}" if self.checks else "no check was run"

    def _svg(self) -> str:
        from matplotlib import rc_context

        content = io.BytesIO()
        # Text that stays text, in the page's own font; the same picture for the same numbers.
        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "asgt"}):
            figure = self.plot().get_figure()
            assert figure is not None
            figure.savefig(content, format="svg", metadata={"Date": None})  # type: ignore[union-attr]
        text = content.getvalue().decode()
        return text[text.index("<svg") :]
