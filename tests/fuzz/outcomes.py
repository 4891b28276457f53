"""How a case ended: done, refused, interrupted; or a fault: a traceback, a hang, no memory, a crash, wrong figures."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.forked import Ended
from support.results import differences, results_in

from .cases import Case, Step

__all__ = ["FAULTS", "UNVERIFIED", "Verdict", "figures_of", "judge"]

FAULTS = ("traceback", "hang", "memory", "crash", "silent")
"""The outcomes that are faults."""

UNVERIFIED = "unverified"
"""What there is to say of a call that finished and said that it knows no digest of what was changed."""


@dataclass(frozen=True)
class Verdict:
    """How a case ended.

    Attributes:
        outcome: ``done``, ``refused``, ``interrupted``, or one of :data:`FAULTS`.
        told: what there is to say of it, in a line.
        kind: what faults of the same cause have in common; ``""`` without a fault.
    """

    outcome: str
    told: str = ""
    kind: str = ""


_TRACEBACK = "Traceback (most recent call last)"
_MEMORY = ("MemoryError", "can't allocate memory", "bad_alloc", "Unable to allocate", "Cannot allocate memory")
# Durations and rates, which differ from call to call, and where a bar stands.
_TIMES = re.compile(
    r"[\d.,]+ ?(?:s\b|ms\b|min\b|images/s|% of the time outside)[^\n]*|\d+ passes per step[^\n]*"
    r"|(?:report|evidence): [^\n]*"
)


def figures_of(case: Case, folder: Path, ended: Ended) -> dict[str, str]:
    """All figures that a call showed or wrote, by file; those on standard output under ``"stdout"``."""

    figures = {"stdout": " ".join(_TIMES.sub("", ended.out).split())}
    for place in case.results:
        if (folder / place).exists():
            figures |= {f"{place}/{name}": held for name, held in results_in(folder / place).items()}
    return figures


def judge(case: Case, folder: Path, ended: Ended, right: Mapping[str, str] | None) -> Verdict:
    """The outcome of a call.

    Args:
        case: what was called. One without steps has nothing to notice.
        folder: where, as the call left it.
        ended: how it ended.
        right: the figures on the unchanged folder; ``None`` where nobody knows them.
    """

    lines = [line for line in ended.err.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    said = ended.out + ended.err
    verb = case.words[0] if case.words else ""
    if ended.timed_out:
        return Verdict("hang", f"not over after {ended.seconds:.0f} s", f"hang {verb} {_place(said)}")
    if ended.signal == signal.SIGKILL:
        return Verdict("memory", "killed, as the system does where memory ends", f"memory {verb}")
    if ended.signal is not None:
        return Verdict("crash", f"ended by signal {ended.signal}", f"crash {verb} {ended.signal}")
    if ended.status not in (0, 2, 130) and any(word in said for word in _MEMORY):
        return Verdict("memory", f"out of memory: {last[:200]} {_place(said)}", f"memory {_place(said)}")
    if _TRACEBACK in said:
        kind = f"{last.split(':')[0]} {_place(said)}"
        return Verdict("traceback", f"{last[:300]} · {_place(said)}", kind)
    if ended.status == 130:
        return Verdict("interrupted", last[:200])
    if ended.status == 2:
        if [line for line in lines if line.startswith("asgt: error: ")] == [last]:
            return Verdict("refused", last[:300])
        return Verdict("traceback", f"status 2 without one line of error at the end: {lines[-3:]}", f"lines {verb}")
    if ended.status != 0:
        return Verdict("traceback", f"status {ended.status}: {last[:200]}", f"status {ended.status} {verb}")
    return _judge_figures(case, folder, ended, right)


def _judge_figures(case: Case, folder: Path, ended: Ended, right: Mapping[str, str] | None) -> Verdict:
    changes = sorted({f"{step.kind} {step.path}" for step in case.steps})
    kind = f"silent {case.words[0]} {' '.join(change.split(' ', 1)[1] for change in changes)}" if case.words else ""
    looked_at = [step for step in case.steps if step.path.startswith(tuple(f"{word}/" for word in case.words[1:]))]
    if case.words[:1] == ("verify",) and looked_at:
        if all(_is_beyond_digests(step, case, ended) for step in looked_at):
            return Verdict("done", UNVERIFIED)
        return Verdict("silent", f"{', '.join(changes)}: verify says that all is as written", kind)
    if right is None:
        return Verdict("done")
    differing = differences(dict(right), figures_of(case, folder, ended))
    if not differing:
        return Verdict("done")
    if UNVERIFIED in ended.err and any(step.kind == "delete" and "manifest" in step.path for step in case.steps):
        return Verdict("done", UNVERIFIED)
    return Verdict("silent", f"{', '.join(changes)}: other figures in {', '.join(differing[:4])}", kind)


def _is_beyond_digests(step: Step, case: Case, ended: Ended) -> bool:
    """Whether ``asgt verify`` says that it knows no digest of a file, or cannot know that there was one."""

    if step.kind == "delete":
        # Nothing lists the files of a training, an evaluation or an explanation that is not finished, nor those of a
        # folder whose manifest is gone too.
        begun = ("begun/", "half/evaluation/", "half/explanation/")
        return step.path.startswith(begun) or any("manifest" in each.path for each in case.steps)
    return f"{UNVERIFIED}: {step.path}" in " ".join(ended.out.split())


def _place(said: str) -> str:
    """The last line of the package in a traceback."""

    places = re.findall(r'asgt/([\w/]+\.py)"?, line (\d+)', said)
    return ":".join(places[-1]) if places else ""
