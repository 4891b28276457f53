"""The terminal: progress bars, tables and warnings, quiet where there is no terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from ..evaluation.curve import Evaluation
    from ..training.run import TrainResult

__all__ = ["Console"]


class Console:
    """Draws progress on standard error, and results on standard output."""

    def __init__(self) -> None:
        self.out = RichConsole(highlight=False, soft_wrap=True)
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

        figures = ", ".join(f"{name} {value:.1%}" for name, value in result.validation.items())
        self.out.print(
            escape(
                f"model of epoch {result.chosen_epoch + 1} of {result.epochs}, chosen by {result.chosen_by}; "
                f"on {result.validation_images} validation images: {figures}"
            )
        )
        for line in result.warnings:
            self.warn(line)
        self.out.print(escape(f"run folder: {result.folder}"))

    def evaluated(self, found: Evaluation, data: str, folder: Path, warnings: list[str]) -> None:
        """The table of an evaluation: every accuracy with its interval; protocol, ε, n and seed in the header."""

        protocol = found.protocol
        norm = "L∞" if found.norm == "linf" else "L2"
        table = Table(
            title=escape(
                f"accuracy % [Wilson 95 %] · protocol {protocol.name} v{protocol.version} ({protocol.claim}) · {norm} · "
                f"{data}, n = {found.samples} test images · one model, seed {found.seed}"
            ),
            title_justify="left",
            title_style="bold",
        )
        table.add_column("eps")
        table.add_column("clean" if protocol.worst_case else "clean (not attacked)", justify="right")
        for name in found.outcomes:
            table.add_column(name, justify="right")
        table.add_row("0", _cell(found.clean_accuracy()), *[""] * len(found.outcomes))
        curves = {name: found.curve(name) for name in found.outcomes}
        for row, eps in enumerate(found.epsilons):
            table.add_row(_eps(eps), "", *[_cell(curve[row]) for curve in curves.values()])

        self.out.print(table)
        for line in warnings:
            self.warn(line)
        self.out.print(escape(f"evidence: {folder}"))


def _cell(share: dict[str, float]) -> str:
    return f"{100 * share['accuracy']:.1f} [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"


def _eps(eps: float) -> str:
    return f"{eps * 255:.0f}/255" if eps < 0.1 and abs(eps * 255 - round(eps * 255)) < 1e-6 else f"{eps:g}"
