"""The terminal: progress bars, tables and warnings, quiet where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from ..errors import InputError
from ..numbers import counted, duration, eps_text, norm_sign
from ..outlets import ENCODING_ERRORS
from ..statistics import share
from ..visible import LONGEST, LONGEST_NAME, visible

if TYPE_CHECKING:
    from ..comparison.accuracy_tables import AccuracyTable
    from ..comparison.comparing import Comparison
    from ..comparison.credibility import Credibility
    from ..comparison.differences import DifferenceTable
    from ..comparison.explained import Explained
    from ..comparison.summary import Summary
    from ..evaluation.check import Check
    from ..evaluation.discard_audit import Discards
    from ..evaluation.outcomes import Evaluation
    from ..experiments.grid import Planned
    from ..exporting import Export
    from ..runs.verifying import Verified
    from ..tabular import Table as TextTable
    from ..training.run_folder import TrainResult
    from ..training.timing import Profile

__all__ = ["Console"]

# A file or a pipe has no width of its own.
_FILE_WIDTH = 200

# Decided differences that are told in sentences; a grid of many methods has hundreds.
_SENTENCES = 12

# Checks that failed or warned, likewise.
_FINDINGS = 10


class _Terminal(RichConsole):
    """A terminal that nothing but its own colours steers: texts are shown as in :mod:`asgt.visible`.

    Texts that are long are cut, and what the encoding lacks is replaced before columns are measured.
    """

    def __init__(self, **options: Any) -> None:
        # A name between colons is a name, and no picture.
        super().__init__(highlight=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(self._shown(text, LONGEST), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        # Whatever is drawn comes by here, texts that are no plain strings too.
        for segment in super().render(renderable, options):
            if segment.control is None and (shown := self._shown(segment.text)) != segment.text:
                yield Segment(shown, segment.style)
            else:
                yield segment

    def on_broken_pipe(self) -> None:
        """Stops the output; the default ends the process."""

        self.quiet = True

    def _shown(self, text: str, longest: int | None = None) -> str:
        shown = visible(text, longest)
        try:
            return shown.encode(self.encoding, ENCODING_ERRORS).decode(self.encoding)
        except (LookupError, ValueError):  # a stranger's stream
            return shown


class Console:
    """Draws progress on standard error, and results on standard output."""

    def __init__(self) -> None:
        self.out = _Terminal()
        if not self.out.is_terminal:
            self.out.width = _FILE_WIDTH
        self.err = _Terminal(stderr=True, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._log: _Log | None = None

    def start(self, title: str, total: int, done: int = 0) -> None:
        self.stop()
        if not self.err.is_terminal:
            self._log = _Log(title, total, done)
            return
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}", markup=False),
            console=self.err,
            transient=True,
        )
        self._task = self._bar.add_task(_one_line(_short(title)), total=total, completed=done, values="")
        self._bar.start()

    def advance(self, parts: int = 1, **values: float) -> None:
        if self._log is not None and (line := self._log.advance(parts)):
            self.say(line)
        if self._bar is None or self._task is None:
            return
        self._bar.advance(self._task, parts)
        if values:
            shown = "  ".join(f"{name.replace('accuracy_', 'acc ')} {value:.3f}" for name, value in values.items())
            self._bar.update(self._task, values=shown)

    def say(self, message: str) -> None:
        self.err.print(escape(_one_line(message)))

    def warn(self, message: str) -> None:
        self.err.print(f"[bold yellow]warning:[/] {escape(_one_line(message))}")

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._task = self._log = None

    def trained(self, result: TrainResult) -> None:
        """Prints how a training ended."""

        at = "" if result.eps is None else f" at eps {result.eps:.4g} ({norm_sign(result.norm)})"
        names = {"clean": "clean", "fgsm": f"one step (FGSM){at}", "pgd": f"PGD-10{at}"}
        figures = ", ".join(
            f"{names[name]} {share(round(value * result.validation_images), result.validation_images).percent()} %"
            for name, value in result.validation.items()
        )
        role = " that chose it" if result.is_selected else ""
        if not result.epochs:
            role = " of the training split, which the given weights may have been trained on"
        self.out.print(
            escape(
                f"{result.chosen_text}; accuracy [Wilson 95 %] on the n = {result.validation_images} validation images"
                f"{role}: {figures}"
            )
        )
        if balanced := result.balanced_text(names):
            self.out.print(escape(balanced))
        for line in result.warnings:
            self.warn(line)
        self._remedies(result.warnings)
        if "passes_per_step" in result.speed:
            from ..training.speed import speed_text

            passes = f"{result.speed['passes_per_step']} passes per step"
            self.out.print(escape(f"{passes}, {speed_text(result.speed)}"))
        self.out.print(escape(f"run folder: {result.folder}"))

    def profiled(self, title: str, profiles: Sequence[tuple[str, Profile]]) -> None:
        """Prints the cost of a step of each method: passes, seconds, and the time of the passes alone."""

        table = Table("method", box=box.SIMPLE_HEAD)
        for column in ("passes", "step, ms", "passes alone, ms", "ratio", "images/s"):
            table.add_column(column, justify="right", no_wrap=True)
        for name, profile in profiles:
            table.add_row(
                escape(_short(name)),
                str(profile.passes),
                f"{1e3 * profile.step:.1f}",
                f"{1e3 * profile.bare:.1f}",
                f"{profile.ratio:.2f}",
                f"{profile.samples / profile.step:.0f}",
            )
        self.out.print(escape(title), style="bold")
        self.out.print(table)

    def evaluated(self, evaluation: Evaluation, data: str, folder: Path, warnings: list[str]) -> None:
        """Prints the table of an evaluation: each accuracy with its interval; protocol, ε, n and seed in the header."""

        protocol = evaluation.protocol
        norm = norm_sign(evaluation.norm)
        title = (
            f"accuracy % [Wilson 95 %] · protocol {protocol.name} v{protocol.version} ({protocol.claim}) · {norm} · "
            f"{data}, n = {evaluation.samples} test images{evaluation.view_text} · one model, seed {evaluation.seed}"
        )
        clean = "clean" if protocol.worst_case else "clean (not attacked)"
        rows = [("0", clean, evaluation.accuracy.percent())]
        curves = {name: evaluation.curve(name) for name in evaluation.outcomes}
        rows += [
            (eps_text(eps), name, curve[eps].percent()) for eps in evaluation.epsilons for name, curve in curves.items()
        ]
        table = _wide(rows, [clean, *curves])
        if not self._fits(table):
            table = _long(rows)
        # Above the table, not in it: a table's own title is broken to the table's width.
        self.out.print(escape(title), style="bold")
        self.out.print(table)
        self._by_class(evaluation)
        if evaluation.adapted:
            self.out.print(
                f"the attacks are adapted to {evaluation.classes} classes: they differ from their authors' versions"
            )
        if evaluation.votes > 1:
            self.out.print(
                f"the model is not deterministic: each prediction is the majority of {evaluation.votes} passes"
            )
        for name in evaluation.outcomes:
            if cost := evaluation.cost(name):
                self.out.print(escape(f"{name}: {_spent(cost)}; {evaluation.seconds[name]:.0f} s"))
                first = ", ".join(f"{title} {count}" for title, count in evaluation.first_to_break(name).items())
                self.out.print(escape(f"{name}: first to break a sample: {first or 'nothing'}"))
                self.out.print(escape(f"{name}: {_audited(cost)}"))
        for name, discards in evaluation.discards.items():
            self.out.print(escape(f"{name}: {discards.told(evaluation.samples)}"), style="bold")
            self.out.print(_budget(discards))
        self.checked(evaluation.checks)
        if evaluation.trace is not None:
            self.out.print(escape(evaluation.trace.sentence()))
            if warning := evaluation.trace.warning():
                warnings = [*warnings, warning]
        for line in warnings:
            self.warn(line)
        self._remedies(warnings)
        self.out.print(escape(f"evidence: {folder}"))

    def evaluated_on_views(
        self, evaluations: Mapping[str, Evaluation], data: str, folders: Sequence[Path], warnings: list[str]
    ) -> None:
        """The table of the images as they are, the checks of each other test set, and the four of them side by side."""

        from ..evaluation.shortcut_use import shortcut_use

        for (view, evaluation), folder in zip(evaluations.items(), folders, strict=True):
            if not evaluation.shortcut_view:
                self.evaluated(evaluation, data, folder, warnings)
                continue
            self.out.print(escape(f"with the shortcut {view}:"), style="bold")
            self.checked(evaluation.checks)
            self.out.print(escape(f"evidence: {folder}"))
        self._printed(shortcut_use(evaluations.values()).table())

    def _printed(self, table: TextTable) -> None:
        """A table of texts: its title, its rows, its notes."""

        self.out.print(escape(f"\n{table.title}"), style="bold")
        drawn = Table(escape(table.head[0]), box=box.SIMPLE_HEAD)
        for title in table.head[1:]:
            drawn.add_column(escape(title), justify="right", no_wrap=True)
        for row in table.rows:
            drawn.add_row(*[escape(_short(cell)) for cell in row])
        self.out.print(drawn)
        for note in table.notes:
            self.out.print(escape(f"  {note}"), style="dim")

    def _by_class(self, evaluation: Evaluation) -> None:
        """Balanced accuracy, and the classes at one ε: all of a few, else the worst; nothing without labels."""

        from ..evaluation.by_class import FEW, MANY, NOT_CORRECTED

        eps = evaluation.class_eps
        clean, robust = evaluation.by_class(), evaluation.by_class(eps)
        if clean is None or robust is None:
            return
        shown, which = robust.classes, "by class"
        if len(shown) > MANY:
            shown, which = robust.lowest(FEW), f"the {FEW} worst of {len(shown)} classes at eps {eps_text(eps)}"
        table = Table("class", box=box.SIMPLE_HEAD)
        for title in ("n", "clean", f"eps {eps_text(eps)}"):
            table.add_column(title, justify="right", no_wrap=True)
        cleans = {each.label: each.accuracy.percent() for each in clean.classes}
        for each in shown:
            n = f"{each.accuracy.n:,}"
            table.add_row(escape(_short(each.name)), n, escape(cleans[each.label]), escape(each.accuracy.percent()))
        protocol = evaluation.protocol
        self.out.print(escape(evaluation.class_sentence()), style="bold")
        self.out.print(
            escape(
                f"{which}, accuracy % [Wilson 95 %] · protocol {protocol.name} v{protocol.version} · "
                f"{norm_sign(evaluation.norm)} · {NOT_CORRECTED}"
            )
        )
        self.out.print(table)

    def checked(self, checks: tuple[Check, ...]) -> None:
        """Prints the summary of the checks, then those that did not pass, each with its evidence and its remedy."""

        from ..evaluation.check import checks_text

        self.out.print(escape(f"checks: {checks_text(checks)}"), style="bold")
        for check in checks:
            if check.verdict != "PASS":
                where = f" (samples {', '.join(map(str, check.samples))})" if check.samples else ""
                line = f"{check.verdict} {check.name}: {check.evidence}{where}; {check.remedy}"
                self.out.print(escape(line), style={"FAIL": "red", "WARN": "yellow"}.get(check.verdict, "dim"))
        self._remedies(names=[check.name for check in checks if check.verdict in ("FAIL", "WARN")])

    def _remedies(self, warnings: Iterable[str] = (), names: Sequence[str] = ()) -> None:
        """Where the documentation says what to do about diagnoses in warnings, and about checks; else nothing."""

        from ..evaluation.remedies import diagnosed, remedies_text

        if line := remedies_text([*names, *(name for text in warnings for name in diagnosed(text))]):
            self.out.print(line, style="dim", soft_wrap=True)

    def exported(self, export: Export) -> None:
        """Prints what an export wrote, and how to load it."""

        self.out.print(f"exported: {escape(str(export.folder))} ({', '.join(export.files)})", soft_wrap=True)
        for file, parity in export.parity:
            self.out.print(f"{file}: {escape(parity)}", soft_wrap=True)
        if not export.is_loaded:
            self.warn("the export was not loaded here, because its architecture is your own code: name it with --model")
        if not export.is_evaluated:
            self.warn("the run is not evaluated, and its model card says so: run asgt evaluate RUN, then export again")
        self.out.print(f"load it: asgt.from_pretrained({escape(repr(str(export.folder)))})", soft_wrap=True)

    def pushed(self, repository: str, address: str) -> None:
        """Prints where an export was uploaded to."""

        self.out.print(f"uploaded: {escape(address)}; asgt.from_pretrained({repository!r}) loads it", soft_wrap=True)

    def verified(self, verified: Verified | InputError) -> None:
        """The result for a place, and a line for each file that does not match its digest, or has none.

        Or why a place is refused.
        """

        if isinstance(verified, InputError):
            self.out.print(escape(f"refused: {verified}"), style="red", soft_wrap=True)
            return
        styles = {"changed": "red", "damaged": "red", "missing": "red", "unverified": "yellow"}
        self.out.print(escape(f"{verified.place}: {counted(verified.checked, 'file')} verified"), style="bold")
        for finding in verified.findings:
            line = f"{finding.state}: {finding.file}: {finding.text}"
            self.out.print(escape(line), style=styles.get(finding.state, "dim"), soft_wrap=True)

    def planned(self, runs: Sequence[Planned], out: Path, pace: float) -> None:
        """Prints the runs of a grid, the cost of each, and its state; ``pace`` is the measured time of a pass in
        seconds.
        """

        explained = any(run.job.attributions for run in runs)
        costs = ["training", "evaluation", *(["explanation"] if explained else []), "time"]
        table = Table("run", "epochs", *costs, "state")
        self.out.print(
            "passes in millions: a forward pass of an image counts as one, a backward pass to the weights as two more"
        )
        self.out.print("time: an estimate from one second of steps on this machine, for a run with its own core")
        for column in table.columns[1:-1]:
            column.justify = "right"
        for run in runs:
            training, *others = run.job.passes
            count = len(run.job.evaluations)
            parts = (others[:count], others[count:])[: 1 + explained]
            told = [f"{training / 1e6:.3g}", *(f"about {sum(part) / 1e6:.3g}" for part in parts)]
            told.append(f"about {duration(pace * sum(run.job.passes))}")
            table.add_row(escape(run.job.label), str(run.job.config.epochs), *told, run.state)
        self.out.print(table)

        left = sum(sum(run.job.passes) for run in runs if run.state != "finished") / 1e6
        states = ", ".join(
            f"{sum(run.state == state for run in runs)} {state}" for state in ("finished", "begun", "to do")
        )
        hours = f"{duration(pace * left * 1e6)} one after the other"
        self.out.print(
            escape(
                f"{len(runs)} runs ({states}), about {left:.3g} million passes remaining, {hours}; output folder: {out}"
            )
        )

    def compared(self, summary: Summary, page: Path) -> None:
        """Prints the tables of a report, its checks, the decided differences, warnings, and the path of its page."""

        comparison = summary.comparison
        norm = norm_sign(comparison.norm)
        seeds = sorted({len(method.runs) for method in comparison.methods})
        spread = "± standard deviation over seeds" if seeds != [1] else "[Wilson 95 %]"
        several = f"{' or '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'}"
        told = {key: f"; {words}" if (words := comparison.discarded(key)) else "" for key in comparison.protocols}
        claims = {
            f"{column.protocol} v{column.version} ({column.claim}{told[column.key]})": None
            for column in comparison.columns
        }
        self.out.print(
            escape(
                f"accuracy % {spread} · {comparison.data}, n = {comparison.samples} test images"
                f"{comparison.fewer_text()} · {norm} · {several} · protocols {', '.join(claims)}"
            ),
            style="bold",
        )
        for table in summary.tables:
            self.out.print(f"\neps = {eps_text(table.eps)}{' (trained at)' if table.trained else ''}", style="bold")
            for part in self._fitting(table):
                self.out.print(part)
        self._believed(summary.credibility)
        self._differ(summary.differences)
        self._on_views(comparison)
        self.explained(summary.maps.explained)
        for method, run, text in summary.warnings:
            self.warn(f"{method.name}, seed {run.seed}: {text}")
        self._remedies(text for _, _, text in summary.warnings)
        for text in summary.remarks:
            self.warn(text)
        for sentence in comparison.left_out:
            self.say(sentence)
        self.out.print(escape(f"report: {page}"))

    def _on_views(self, comparison: Comparison) -> None:
        """What runs that were evaluated with a planted shortcut do with it; nothing if none was."""

        from ..comparison.shortcut_gaps import use_or_reason
        from ..evaluation.shortcut_use import in_points

        used, reason = use_or_reason(comparison)
        if reason:
            self.warn(reason)
        if used is None:
            return
        for eps in (0.0, used.eps):
            self._printed(used.table(eps))
        pairs = used.differences()
        told = [pair for pair in pairs if pair.decision != "not decided"]
        if pairs:
            counts = f"{len(told)} of {counted(len(pairs), 'difference')} decided"
            self.out.print(escape(f"gaps, in points [95 %, not adjusted]: {counts}"), style="bold")
        for pair in told[:_SENTENCES]:
            self.out.print(escape(f"  {pair.first} − {pair.second}: {in_points(pair)}, {pair.p_text}"))
        if len(told) > _SENTENCES:
            self.out.print(f"  and {len(told) - _SENTENCES} more in the table of asgt.compare_shortcut_use")

    def explained(self, explained: Sequence[Explained]) -> None:
        """Prints the panel of each attribution: each measure of each method, and the decided differences."""

        from ..comparison.map_evidence import panel_rows, panel_unrun, panel_words
        from ..explanation import measure_sentence
        from ..explanation.evidence import area_note

        for each in explained:
            self.out.print(escape(f"\nsaliency measures by {each.name}"), style="bold")
            self.out.print(escape(f"  {panel_words(each)}"), style="dim")
            rows = panel_rows(each)
            if rows:
                for part in self._fitting_panel(each):
                    self.out.print(part)
                self.out.print(
                    "  ↑ higher is better, ↓ lower is better; * partly restates robustness; ± over "
                    "seeds, [95 %] of one model"
                )
                if not isnan(area := each.panel.shortcut_area):
                    self.out.print(f"  {area_note(area)}")
            for title, why in panel_unrun(each):
                self.out.print(escape(f"  NOT RUN {title}: {why}"), style="dim")
            for note in each.notes:
                self.out.print(escape(f"  {note}"), style="dim")
            pairs = each.panel.differences(each.primary.name)
            decided = [pair for pair in pairs if pair.decision != "not decided"]
            if pairs:
                self.out.print(f"  {each.primary.title}: {len(decided)} of {counted(len(pairs), 'difference')} decided")
            for pair in decided[:_SENTENCES]:
                self.out.print(escape(f"    {measure_sentence(each.primary, pair)}"))
            if len(decided) > _SENTENCES:
                self.out.print(f"    and {len(decided) - _SENTENCES} more on the page")

    def _fitting_panel(self, explained: Explained) -> list[Table]:
        """A row a measure, a column a method, as many side by side as fit."""

        size = count = len(explained.panel.methods)
        while size > 1 and not self._fits(_by_measure(explained, 0, size)):
            size -= 1
        return [_by_measure(explained, first, first + size) for first in range(0, count, size)]

    def _believed(self, checked: Sequence[Credibility]) -> None:
        """What the checks say of each protocol; those that failed or warned in a line each, over all methods."""

        left, shown = _FINDINGS, []
        self.out.print("\nchecks of these numbers", style="bold")
        for credibility in checked:
            claimed = credibility.protocol.worst_case
            self.out.print(
                escape(f"  {credibility.protocol.name} v{credibility.protocol.version}: {credibility.summary()}")
            )
            if credibility.expected:
                self.out.print(escape(f"    {credibility.expected}"), style="dim")
            for finding in credibility.findings[:left]:
                shown.append(finding.name)
                style = {"FAIL": "red", "WARN": "yellow"}[finding.verdict] if claimed else "dim"
                line = f"    {finding.verdict} {finding.name}: {finding.who()}; {finding.remedy}"
                self.out.print(escape(line), style=style)
            if len(credibility.findings) > left:
                self.out.print(f"    and {len(credibility.findings) - left} more on the page")
            left = max(0, left - len(credibility.findings))
        self._remedies(names=shown)

    def _differ(self, tables: Sequence[DifferenceTable]) -> None:
        """The decided differences in sentences, and how many are not."""

        from ..comparison.differences import basis

        left, undecided_words = _SENTENCES, []
        for table in tables:
            self.out.print(escape(f"\ndifferences {table.where}, in points [95 %, not adjusted]"), style="bold")
            for sentence in basis(table.differences):
                self.out.print(escape(f"  {sentence}"), style="dim")
            for difference in table.decided[:left]:
                self.out.print(escape(f"  {table.sentence(difference)}"))
            if len(table.decided) > left:
                self.out.print(f"  and {len(table.decided) - left} more on the page")
            if not table.decided:
                self.out.print("  none is decided")
            left = max(0, left - len(table.decided))
            if undecided := [each for each in table.differences if each.decision == "not decided"]:
                widths = sorted(50 * (each.high - each.low) for each in undecided)
                wide = f"±{widths[0]:.1f} to ±{widths[-1]:.1f}" if len(widths) > 1 else f"±{widths[0]:.1f}"
                undecided_words.append(
                    f"{len(undecided)} of {len(table.differences)} {table.where} (their intervals: {wide} points)"
                )
        if undecided_words:
            self.out.print(escape(f"\nnot decided: {'; '.join(undecided_words)}"))

    def _fits(self, table: Table) -> bool:
        wide = self.out.options.update(max_width=_FILE_WIDTH)
        return Measurement.get(self.out, wide, table).maximum <= self.out.width

    def _fitting(self, table: AccuracyTable) -> list[Table]:
        """A row a method; on a narrow terminal a column a method, as many side by side as fit."""

        if self._fits(whole := _by_method(table)):
            return [whole]
        size = len(table.rows)
        while size > 1 and not self._fits(_by_attack(table, 0, size)):
            size -= 1
        return [_by_attack(table, first, first + size) for first in range(0, len(table.rows), size)]


class _Log:
    """How far a task is, a line a minute, for whoever reads it in a file."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.before, self.done = title, total, done, done
        self.began = self.said = time.monotonic()

    def advance(self, parts: int) -> str:
        self.done += parts
        now = time.monotonic()
        if now - self.said < 60 or not self.before < self.done < self.total:
            return ""
        self.said = now
        left = (now - self.began) * (self.total - self.done) / (self.done - self.before)
        return f"{self.title}: {self.done / self.total:.0%}, about {max(1, round(left / 60))} min left"


def _by_method(table: AccuracyTable) -> Table:
    from ..comparison.comparing import headings

    grid = Table("method", box=box.SIMPLE_HEAD)
    # Long names stand in two lines: the attack, and how it steps.
    for title in ("clean", *(heading.replace(", ", "\n", 1) for heading in headings(table.columns))):
        grid.add_column(escape(title), justify="right", no_wrap=True)
    for method, cells in table.rows:
        grid.add_row(escape(_short(method.name)), *[escape(cell.percent()) for cell in cells])
    return grid


def _by_attack(table: AccuracyTable, first: int, last: int) -> Table:
    from ..comparison.comparing import headings

    grid = Table("attack", box=box.SIMPLE_HEAD)
    for method, _ in table.rows[first:last]:
        grid.add_column(escape(_short(method.name)), justify="right", no_wrap=True)
    for number, title in enumerate(("clean", *headings(table.columns))):
        grid.add_row(escape(title), *[escape(cells[number].percent()) for _, cells in table.rows[first:last]])
    return grid


def _by_measure(explained: Explained, first: int, last: int) -> Table:
    from ..comparison.map_evidence import panel_rows

    panel = explained.panel
    grid = Table("measure", box=box.SIMPLE_HEAD)
    grid.add_column("n", justify="right")
    methods = panel.methods[first:last]
    for method in methods:
        grid.add_column(escape(_short(method)), justify="right", no_wrap=True)
    for row in panel_rows(explained):
        style = "bold" if row.measure == explained.primary else None
        cells = [escape(score.text()) for score in row.scores[first:last]]
        grid.add_row(escape(row.title), str(row.n), *cells, style=style)
    words = {None: "NOT RUN", True: "✗", False: "✓"}
    gates = [(panel.gate(method), words[panel.uninformative(method)]) for method in methods]
    grid.add_row("gate: re-initialised weights", "", *[w if g != g else f"{g:.3f} {w}" for g, w in gates])
    return grid


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


def _one_line(message: str) -> str:
    """A message without line breaks: text out of a file cannot pretend to be a line of ours."""

    return " ".join(visible(message).split("\n"))


def _short(name: str) -> str:
    """A name in a table: of one that is too long, its two ends."""

    return visible(name, LONGEST_NAME)


def _spent(cost: dict[str, float]) -> str:
    """What a search took, beside what it had to."""

    told = f"{cost['gradients']:.0f} gradients and {cost['forwards']:.0f} forward passes a sample"
    if cost["floor"]:
        told += f", the ideal search takes {cost['floor']:.0f} gradients"
    return told


def _budget(discards: Discards) -> Table:
    """Where the passes of a search in phases went; a gradient counts as three forward passes."""

    table = Table(box=box.SIMPLE_HEAD)
    for title in ("phase", "images", "broken", "gradients", "forwards", "% of cost"):
        table.add_column(title, justify="left" if title == "phase" else "right")
    for phase in discards.phases:
        if phase.samples:
            counts = (phase.samples, phase.broken, phase.gradients, phase.forwards)
            share = 100 * phase.passes / discards.passes
            table.add_row(phase.name, *(f"{count:,}" for count in counts), f"{share:.0f}")
    return table


def _audited(cost: dict[str, float]) -> str:
    """How the assumption was tested, that what fails at an ε fails below it."""

    if not cost["tested"]:
        return "no image could be attacked again at a smaller eps than the one where the attack failed"
    return (
        f"{cost['tested']:.0f} images were attacked again at a smaller eps than the one where the attack failed: "
        f"{cost['missed']:.0f} broke there (at most {100 * cost['missed_high']:.1f} %, Clopper-Pearson 95 %; "
        f"{cost['audit']:.0f} more gradients per image)"
    )
