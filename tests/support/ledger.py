"""The log of many trials: which are done, how they ended, how far the whole is. A second call goes on from it."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ledger", "Trial", "digest_of_sources"]

_EVERY = 5.0  # seconds between progress lines where nobody watches


@dataclass(frozen=True)
class Trial:
    """How a trial ended.

    Attributes:
        number: of the trial.
        family: its kind.
        outcome: its class.
        told: what there is to say of it, in a line; ``""`` for nothing.
        seconds: that it took.
        reproduction: the folder that repeats a fault; ``""`` without a fault.
        kind: what faults of the same cause have in common.
    """

    number: int
    family: str
    outcome: str
    told: str = ""
    seconds: float = 0.0
    reproduction: str = ""
    kind: str = ""


class Ledger:
    """A log of one JSON line a trial.

    Args:
        file: the log. A log of other code is moved aside, to ``NAME.old``.
        key: what the outcomes depend on beside the number of a trial.
        faults: the outcomes that are faults.
    """

    def __init__(self, file: Path, key: str, faults: Sequence[str]) -> None:
        self.file, self.faults = file, faults
        self.trials: dict[int, Trial] = {}
        self.told = 0.0
        text = file.read_text() if file.exists() else ""
        lines = text.splitlines()
        if text and not text.endswith("\n"):
            # A kill cut the last line short.
            lines.pop()
            file.write_text("".join(f"{line}\n" for line in lines))
        if lines and json.loads(lines[0]) != {"key": key}:
            file.replace(file.with_name(f"{file.name}.old"))
            lines = []
        if not lines:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"key": key}) + "\n")
        for line in lines[1:]:
            trial = Trial(**json.loads(line))
            self.trials[trial.number] = trial

    def add(self, trial: Trial) -> None:
        """Notes a trial."""

        self.trials[trial.number] = trial
        with open(self.file, "a") as log:
            log.write(json.dumps(asdict(trial)) + "\n")

    def left(self, count: int) -> list[int]:
        """The numbers below ``count`` whose trials are not done."""

        return [number for number in range(count) if number not in self.trials]

    def show_progress(self, count: int, began: float, done_before: int) -> None:
        """Writes how far the whole is: over the last line on a terminal, else now and then."""

        done, now = len(self._below(count)), time.monotonic()
        watched = sys.stderr.isatty()
        if not watched and done < count and now - self.told < _EVERY:
            return
        self.told = now
        rate = (done - done_before) / max(now - began, 1e-9)
        found = sum(trial.outcome in self.faults for trial in self._below(count))
        line = f"{done}/{count} · {rate:.1f} a second · {found} faults"
        sys.stderr.write(f"\r{line}\x1b[K" if watched and done < count else f"{line}\n")

    def summary(self, count: int) -> str:
        """The counts by family and outcome of the trials below ``count``, then a line for each fault."""

        trials = self._below(count)
        outcomes = sorted({trial.outcome for trial in trials}, key=lambda name: (name in self.faults, name))
        table = [["family", "cases", "seconds", *outcomes]]
        families = sorted({trial.family for trial in trials})
        for family in [*families, "all"]:
            own = [trial for trial in trials if family in ("all", trial.family)]
            counts = Counter(trial.outcome for trial in own)
            seconds = f"{sum(trial.seconds for trial in own):.0f}"
            table.append([family, str(len(own)), seconds, *(str(counts[outcome] or "·") for outcome in outcomes)])
        widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width) for place, (cell, width) in enumerate(pairs)
            )
            for pairs in (list(zip(row, widths, strict=True)) for row in table)
        ]
        lines += [
            f"{trial.outcome} {trial.family} {trial.number}: {trial.told}{_at(trial)}" for trial in self.bad(count)
        ]
        return "\n".join(lines)

    def bad(self, count: int) -> list[Trial]:
        """The faults below ``count``."""

        return [trial for trial in self._below(count) if trial.outcome in self.faults]

    def _below(self, count: int) -> list[Trial]:
        return [trial for number, trial in sorted(self.trials.items()) if number < count]


def _at(trial: Trial) -> str:
    return f"\n    {trial.reproduction}" if trial.reproduction else ""


def digest_of_sources(*folders: Path, more: Iterable[Any] = ()) -> str:
    """The SHA-256 of all Python and YAML files under some folders, with ``more`` values."""

    sha = hashlib.sha256(repr(list(more)).encode())
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file.suffix in (".py", ".yaml"):
                sha.update(f"{file.relative_to(folder)} ".encode() + file.read_bytes())
    return sha.hexdigest()
