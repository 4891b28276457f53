"""The terminal: progress bars, tables and warnings, quiet where there is no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ..statistics import share_of

if TYPE_CHECKING:
    from ..evaluation.curve import Evaluation
    from ..training.run import TrainResult

__all__ = ["Console"]

# A file or a pipe has no width of its own.
_FILE_WIDTH = 200


class Console:
    """Draws progress on standard error, and results on standard output."""

    def __init__(self) -> None:
        self.out = RichConsole(highlight=False)
        if not self.out.is_terminal:
            self.out.width = _FILE_WIDTH
        self.err = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def start(self, title: str, total: int, done: int = 0) -> None:
        self.stop()
        if not self.err.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=self.err,
            transient=True,
        )
        self._task = self._bar.add_task(escape(title), total=total, completed=done, values="")
        self._bar.start()

    def advance(self, parts: int = 1, **values: float) -> None:
        if self._bar is None or self._task is None:
            return
        self._bar.advance(self._task, parts)
        if values:
            shown = "  ".join(f"{name.replace('accuracy_', 'acc ')} {value:.3f}" for name, value in values.items())
            self._bar.update(self._task, values=shown)

    def say(self, message: str) -> None:
        self.err.print(escape(message))

    def warn(self, message: str) -> None:
        self.err.print(f"[bold yellow]warning:[/] {escape(message)}")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = None

    def trained(self, result: TrainResult) -> None:
        """How a training ended."""

        at = "" if result.eps is None else f" at eps {result.eps:.4g} ({'L∞' if result.norm == 'linf' else 'L2'})"
        names = {"clean": "clean", "fgsm": f"one step (FGSM){at}", "pgd": f"PGD-10{at}"}
        figures = ", ".join(
            f"{names[name]} {_cell(share_of(round(value * result.validation_images), result.validation_images))} %"
            for name, value in result.validation.items()
        )
        self.out.print(
            escape(
                f"model of epoch {result.chosen_epoch + 1} of {result.epochs}, chosen by {result.chosen_by}; "
                f"accuracy [Wilson 95 %] on the "
                f"n = {result.validation_images} validation images that chose it: {figures}"
            )
        )
        for line in result.warnings:
            self.warn(line)
        self.out.print(escape(f"run folder: {result.folder}"))

    def evaluated(self, found: Evaluation, data: str, folder: Path, warnings: list[str]) -> None:
        """The table of an evaluation: every accuracy with its interval; protocol, ε, n and seed in the header."""

        protocol = found.protocol
        norm = "L∞" if found.norm == "linf" else "L2"
        title = (
            f"accuracy % [Wilson 95 %] · protocol {protocol.name} v{protocol.version} ({protocol.claim}) · {norm} · "
            f"{data}, n = {found.samples} test images · one model, seed {found.seed}"
        )
        clean = "clean" if protocol.worst_case else "clean (not attacked)"
        rows = [("0", clean, _cell(found.clean_accuracy()))]
        curves = {name: found.curve(name) for name in found.outcomes}
        rows += [
            (_eps(eps), name, _cell(curve[number]))
            for number, eps in enumerate(found.epsilons)
            for name, curve in curves.items()
        ]
        table = _wide(rows, [clean, *curves])
        if Measurement.get(self.out, self.out.options.update(max_width=_FILE_WIDTH), table).maximum > self.out.width:
            table = _long(rows)
        table.title, table.title_justify, table.title_style = escape(title), "left", "bold"

        self.out.print(table)
        for line in warnings:
            self.warn(line)
        self.out.print(escape(f"evidence: {folder}"))


def _wide(rows: list[tuple[str, str, str]], columns: list[str]) -> Table:
    """A row an ε, a column an attack."""

    table = Table("eps")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    cells = {(eps, column): cell for eps, column, cell in rows}
    for eps in dict.fromkeys(eps for eps, _, _ in rows):
        table.add_row(eps, *[cells.get((eps, column), "") for column in columns])
    return table


def _long(rows: list[tuple[str, str, str]]) -> Table:
    """A row for each ε and attack, for a narrow terminal."""

    table = Table("eps", "attack", "accuracy")
    for eps, column, cell in rows:
        table.add_row(eps, column, cell)
    return table


def _cell(share: dict[str, float]) -> str:
    return f"{100 * share['accuracy']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _eps(eps: float) -> str:
    return f"{eps * 255:.0f}/255" if eps < 0.1 and abs(eps * 255 - round(eps * 255)) < 1e-6 else f"{eps:g}"
