"""Makes a case that shows a fault smaller: greedily, part by part, as long as it shows the same fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from .cases import Case

__all__ = ["shrunk"]


def shrunk(case: Case, shows_fault: Callable[[Case], bool], seconds: float = 20.0) -> Case:
    """The smallest case that greedy removal comes to.

    Args:
        case: it shows a fault.
        shows_fault: whether another case shows the same one.
        seconds: after which what was reached is good enough.
    """

    deadline = time.monotonic() + seconds
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _smaller(case):
            if time.monotonic() > deadline:
                return case
            if shows_fault(smaller):
                case, is_smaller = smaller, True
                break
    return case


def _smaller(case: Case) -> Iterator[Case]:
    """Cases with one part less: the larger parts first."""

    # Where the right figures are known, they are those of this command line.
    for size in (4, 2, 1) if not case.baseline else ():
        for place in range(len(case.words) - size, -1, -1):
            yield replace(case, words=case.words[:place] + case.words[place + size :])
    count = len(case.steps)
    for size in (size for size in (count // 2, count // 4, 1) if size and count > 1):
        for place in range(0, count, size):
            yield replace(case, steps=case.steps[:place] + case.steps[place + size :])
    for number, step in enumerate(case.steps):
        if step.kind != "write" or not step.path.endswith((".yaml", ".json", ".csv", ".jsonl")):
            continue
        lines = step.content.splitlines(keepends=True)
        shorter = [lines[:place] + lines[place + 1 :] for place in range(len(lines)) if len(lines) > 1]
        for content in map(b"".join, shorter):
            yield replace(case, steps=(*case.steps[:number], replace(step, content=content), *case.steps[number + 1 :]))
