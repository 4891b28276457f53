"""How sides are timed and told: in turn, by medians, with the machine beside them."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

__all__ = ["Timed", "in_turn", "machine", "verdict"]


@dataclass(frozen=True)
class Timed:
    """What a side took and answered, repetition by repetition."""

    seconds: list[float]
    answers: list[Any]

    @property
    def median(self) -> float:
        return median(self.seconds)

    def __str__(self) -> str:
        if len(self.seconds) == 1:
            return f"{self.median:.2f}"
        return f"{self.median:.2f} ({min(self.seconds):.2f}–{max(self.seconds):.2f})"


def in_turn(sides: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, Timed]:
    """All sides one after the other, and again: what else the machine does falls on all of them."""

    taken = {name: Timed([], []) for name in sides}
    for repetition in range(repetitions):
        for name, side in sides.items():
            torch.manual_seed(repetition)
            began = time.perf_counter()
            answer = side()
            taken[name].seconds.append(time.perf_counter() - began)
            taken[name].answers.append(answer)
    return taken


def verdict(**kept: bool) -> str:
    """Yes, or which of the targets are missed."""

    missed = [name.replace("_", " ") for name, met in kept.items() if not met]
    return "yes" if not missed else f"no: {', '.join(missed)}"


def machine(packages: Sequence[str]) -> str:
    """Where and by what the figures were taken."""

    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        named = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s); "
        f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in packages)}"
    )
