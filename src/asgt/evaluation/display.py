"""The display of an evaluation: its table, its rows as a data frame, its curves as a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attacks import Norm
from ..numbers import Number, counted, eps_text, norm_sign
from ..statistics import Estimate
from ..tabular import Table, Tabular, draw_curves
from .by_class import ByClass
from .check import THOROUGH, Check, checks_text
from .discard_audit import Discards
from .protocols import Protocol
from .trace import Trace

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

__all__ = ["Displayed"]


class Displayed(Tabular):
    """The display of an evaluation: ``print`` shows its table, a notebook the table and the figure."""

    if TYPE_CHECKING:
        protocol: Protocol
        norm: Norm
        epsilons: tuple[float, ...]
        seed: int
        selection: str
        shortcut_view: str
        outcomes: Mapping[str, Tensor]
        checks: tuple[Check, ...]
        discards: Mapping[str, Discards]
        trace: Trace | None

        @property
        def samples(self) -> int: ...

        @property
        def accuracy(self) -> Estimate: ...

        def curve(self, search: str | None = None) -> dict[float, Estimate]: ...

        def robust_accuracy(self, eps: Number, search: str | None = None) -> Estimate: ...

        def by_class(self, eps: Number = 0, search: str | None = None) -> ByClass | None: ...

    def table(self) -> Table:
        """A row for each ε, a column for each search; the summary of the checks follows."""

        protocol, curves = self.protocol, {name: self.curve(name) for name in self.outcomes}
        selection = (f" ({self.selection})" if self.selection else "") + self.view_text
        rows = [["0", self.accuracy.percent(), *("" for _ in curves)]]
        rows += [[eps_text(eps), "", *(curve[eps].percent() for curve in curves.values())] for eps in self.epsilons]
        return Table(
            f"accuracy % [Wilson 95 %] · protocol {protocol.name} v{protocol.version} ({protocol.claim}) · "
            f"{norm_sign(self.norm)} · n = {self.samples} images{selection} · one model, seed {self.seed}",
            ["ε", "clean", *curves],
            rows,
            [
                *(f"{name}: {told.told(self.samples)}" for name, told in self.discards.items()),
                f"checks: {checks_text(self.checks)}" if self.checks else "no check was run",
                *(str(check) for check in self.checks if check.verdict in ("FAIL", "WARN")),
                *([] if self.trace is None else [self.trace.sentence()]),
                *filter(None, [self.class_sentence()]),
            ],
        )

    @property
    def view_text(self) -> str:
        """Which shortcut was planted in the images, for a title; empty where none was."""

        return f" · shortcut {self.shortcut_view}" if self.shortcut_view else ""

    def checks_table(self) -> Table:
        """A row for each check: verdict, evidence and remedy."""

        notes = [checks_text(self.checks)] if self.checks else ["no check was run"]
        if any(check.remedy == THOROUGH for check in self.checks):
            notes.append("in Python, asgt.evaluate(…, thorough=True) runs the expensive checks too")
        return Table(
            f"checks · protocol {self.protocol.name} v{self.protocol.version} · n = {self.samples} images",
            ["check", "verdict", "evidence", "remedy"],
            [[check.name, check.verdict, check.evidence, check.remedy] for check in self.checks],
            notes,
        )

    def class_sentence(self) -> str:
        """Balanced accuracy, clean and at :attr:`class_eps`, and the worst class there; empty without labels.

        Under several searches, a sample is right if it is right under all of them.
        """

        eps = self.class_eps
        clean, robust = self.by_class(), self.by_class(eps)
        if clean is None or robust is None:
            return ""
        at = f"ε = {eps_text(eps)}" + (" under all attacks together" if len(self.outcomes) > 1 else "")
        if eps < self.epsilons[-1] and robust.balanced.value > 0:
            at += " (beyond it no image is right)"
        absent = f" ({counted(clean.absent, 'class', 'classes')} without images omitted)" if clean.absent else ""
        return (
            f"balanced accuracy % [95 %]: clean {clean.balanced.percent()}, at {at} {robust.balanced.percent()}, "
            f"over {counted(len(clean.classes), 'class', 'classes')}{absent}; worst class there: {robust.worst_text()}"
        )

    @property
    def class_eps(self) -> float:
        """The ε at which classes are shown: the largest of the grid at which an image is classified correctly under
        all searches.

        At a larger one all classes are alike. Where no image is right at any ε, the smallest.
        """

        left = [eps for eps in self.epsilons if self.robust_accuracy(eps).value > 0]
        return max(left, default=self.epsilons[0])

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

    def plot(self, axes: Axes | None = None, *, label: str = "") -> Axes:
        """Draws accuracy over ε, a curve with its interval for each search; the clean accuracy is drawn at 0.

        Args:
            axes: matplotlib axes to draw on, also those of another result. Default: those of a new figure.
            label: a prefix of the names of the curves.
        """

        titles = {search.name: search.title or search.name for search in self.protocol.searches}
        named = f"protocol {self.protocol.name} v{self.protocol.version}"
        return draw_curves(
            {titles[name]: {0.0: self.accuracy} | self.curve(name) for name in self.outcomes},
            axes,
            title=f"{named}, n = {self.samples}, Wilson 95 %",
            x_label=f"ε ({norm_sign(self.norm)}, pixels in [0, 1])",
            label=label,
        )
