"""Runs cases in forked children, judges them, and writes a reproduction of each fault."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from support.forked import Ended, Limits
from support.ledger import Ledger, Trial, digest_of_sources

from .cases import Case, build, draw, plain
from .damage import COMMANDS, damaged
from .documents import documents
from .lines import lines
from .material import do, flags_of_verbs, make_material
from .outcomes import FAULTS, Verdict, figures_of, judge
from .pictures import pictures
from .shrinking import shrunk
from .tables import tables

__all__ = ["ORDER", "Fuzzing"]

ORDER = (
    *("line", "yaml", "run", "line", "images", "yaml", "line", "run", "tables", "yaml"),
    *("line", "kept", "yaml", "run", "line", "images", "yaml", "unfinished", "line", "run"),
)
"""The families in turn: more of those whose cases are quick."""

_PATIENCE = 4.0  # seconds for a line that asks for much; then it is interrupted, as a user would
_MUCH = re.compile(r"\d{3}|\de\+?\d|inf|standard|autoattack|exhaustive|thorough|resnet|alexnet")


class Fuzzing:
    """Cases of a seed, and the folder in which they run.

    Args:
        folder: for the reproductions of faults.
        material: the folder of what cases begin with; it is made unless it is there.
        seed: of the cases.
        order: the families in turn.
        limits: of a case.
    """

    def __init__(
        self, folder: Path, material: Path, seed: int, *, order: Sequence[str] = ORDER, limits: Limits | None = None
    ) -> None:
        self.folder, self.material, self.seed, self.order = folder, material, seed, order
        self.limits = limits or Limits()
        make_material(self.material)
        flags = flags_of_verbs(self.material)
        self.right: dict[str, dict[str, str]] = {}
        self.strategies = {
            "line": lines(flags),
            "yaml": documents(),
            "images": pictures(),
            "tables": tables(),
            **{family: damaged(family, self.material, list(flags)) for family in COMMANDS},
        }

    def case(self, number: int) -> Case:
        """The case of a number."""

        return draw(self.strategies, self.seed, number, self.order)

    def verdict(self, case: Case) -> tuple[Verdict, Ended]:
        """Runs a case in a folder of its own, and judges it."""

        folder = self._built(case, "case")
        if case.base and not _is_changed(folder, self.material / case.base):
            case = Case(case.family, case.base, (), case.words, case.baseline, case.results)
        ended = self._ended(case, folder)
        verdict = judge(case, folder, ended, self._right(case) if ended.status == 0 else None)
        shutil.rmtree(folder.parent, ignore_errors=True)
        return verdict, ended

    def run(self, count: int, ledger: Ledger) -> None:
        """Runs the cases below ``count`` that the log does not have yet."""

        began, before = time.monotonic(), count - len(ledger.left(count))
        for number in ledger.left(count):
            case = self.case(number)
            started = time.monotonic()
            verdict, ended = self.verdict(case)
            seconds = time.monotonic() - started
            where = ""
            if verdict.outcome in FAULTS:
                where = self.reproduction(str(number), case, verdict, ended, ledger)
            ledger.add(
                Trial(number, case.family, verdict.outcome, verdict.told, round(seconds, 3), where, verdict.kind)
            )
            ledger.show_progress(count, began, before)

    def _right(self, case: Case) -> dict[str, str] | None:
        """The figures of a case's command line on what is not damaged; ``None`` where nobody knows them."""

        if not case.baseline:
            return None
        line = " ".join(case.baseline)
        told = self.material / f"right-{digest_of_sources(Path(__file__).parent)[:8]}.json"
        if not self.right and told.exists():
            self.right = json.loads(told.read_text())
        if line not in self.right:
            whole = Case(case.family, case.base, (), case.baseline, (), case.results)
            folder = self._built(whole, "whole")
            ended = self._ended(whole, folder)
            if ended.status != 0:
                raise RuntimeError(f"asgt {line} ended with {ended.status} on what is whole:\n{ended.err}")
            self.right[line] = figures_of(whole, folder, ended)
            shutil.rmtree(folder.parent)
            part = told.with_suffix(".part")
            part.write_text(json.dumps(self.right))
            part.replace(told)
        return self.right[line]

    def _built(self, case: Case, name: str) -> Path:
        """The folder of a case, in a folder of its own: a command may write beside it."""

        folder = self.folder / "work" / name / "case"
        shutil.rmtree(folder.parent, ignore_errors=True)
        build(case, self.material, folder)
        return folder

    def _ended(self, case: Case, folder: Path) -> Ended:
        child = do(case.words, folder, self.limits)
        if _may_take_long(case) and not child.is_over(_PATIENCE):
            child.kill(signal.SIGINT)
        return child.end()

    def reproduction(self, name: str, case: Case, verdict: Verdict, ended: Ended, ledger: Ledger) -> str:
        """The folder that repeats a fault, made small; the first one's where the same fault is known already."""

        for trial in ledger.trials.values():
            if trial.kind == verdict.kind:
                return trial.reproduction
        if verdict.outcome != "hang":
            case = shrunk(case, lambda smaller: self.verdict(smaller)[0].kind == verdict.kind)
            _, ended = self.verdict(case)
        place = self.folder / "faults" / f"{self.seed}-{name}-{verdict.outcome.replace(' ', '-')}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        build(case, self.material, place / "files")
        command = ["-m", "fuzz.kept", *case.words[1:]] if case.words[:1] == ("kept",) else ["-m", "asgt", *case.words]
        script = f"#!/bin/sh\n# {verdict.outcome}: {_printable(verdict.told)}\n"
        script += f'cd "$(dirname "$0")/files" && exec "${{PYTHON:-python}}" {shlex.join(command)}\n'
        (place / "reproduce.sh").write_bytes(os.fsencode(script))
        (place / "reproduce.sh").chmod(0o755)
        (place / "case.json").write_text(json.dumps(plain(case), indent=2) + "\n")
        (place / "said.txt").write_text(ended.out + ended.err, errors="backslashreplace")
        return str(place)


def _may_take_long(case: Case) -> bool:
    """Whether a line may ask for work of minutes without being wrong."""

    if case.family not in ("line", "yaml"):
        return False
    texts = [*case.words, *(step.content.decode(errors="replace") for step in case.steps)]
    return any(_MUCH.search(text) for text in texts)


def _is_changed(folder: Path, base: Path) -> bool:
    """Whether a folder holds other files than the one that it was copied from."""

    def held(place: Path) -> dict[str, bytes | None]:
        return {
            str(file.relative_to(place)): file.read_bytes() if file.is_file() else None for file in place.rglob("*")
        }

    return held(folder) != held(base)


def _printable(text: str) -> str:
    return " ".join(text.encode("ascii", "backslashreplace").decode().split())
