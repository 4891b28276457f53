"""The work that is disturbed: its command line, the one that takes it up again, and where its results lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.forked import Child, Limits, asgt
from support.results import results_in
from support.shortcuts import draw_digests, fork_workers

__all__ = ["WORKS", "Base", "Work", "begin"]

_TRAIN = "train --method at --attack fgsm --width 0.25 --limit 450 --batch-size 15 --lr 0.1 --schedule constant"
_GRID = """data: digits
seeds: 2
train: {model: small_cnn, width: 0.25, limit: 300, epochs: 2, batch_size: 15, lr: 0.1, eps: 0.1, device: cpu}
methods: [{method: at, attack: fgsm}]
evaluate: {protocols: [pgd], epsilons: [0.1], samples: 8}
explain: {samples: 8}
"""


@dataclass(frozen=True)
class Work:
    """A command line that takes a while.

    Attributes:
        line: it, after ``asgt``.
        again: the line that takes it up where it was stopped.
        results: the files and folders of its results.
        folder: the one that it writes into.
        verify: the line by which the digests of its files are checked.
        has_run: whether a finished run folder ``run`` must be there.
    """

    line: str
    again: str
    results: tuple[str, ...]
    folder: str
    verify: str
    has_run: bool = False


WORKS = {
    "train": Work(
        line=f"{_TRAIN} --epochs 4 --checkpoint-every 0.2 --out out",
        again=f"{_TRAIN} --epochs 4 --checkpoint-every 0.2 --out out --resume",
        results=("out/model.safetensors", "out/split.safetensors", "out/training.json", "out/metrics.jsonl"),
        folder="out",
        verify="verify out",
    ),
    "evaluate": Work(
        line="evaluate run --samples 60 --epsilons 0.02,0.05,0.1,0.2",
        again="evaluate run --samples 60 --epsilons 0.02,0.05,0.1,0.2 --resume",
        results=("run/evaluation",),
        folder="run/evaluation",
        verify="verify run",
        has_run=True,
    ),
    "explain": Work(
        line="explain run --samples 64 --out page",
        again="explain run --samples 64 --out page --resume",
        results=("run/explanation", "page"),
        folder="run/explanation",
        verify="verify run",
        has_run=True,
    ),
    "reproduce": Work(
        line="reproduce grid.yaml --workers 1 --out reproduced --keep keep",
        again="reproduce grid.yaml --workers 1 --out reproduced --keep keep",
        results=("reproduced", "keep"),
        folder="reproduced",
        verify="verify reproduced keep",
    ),
}


def begin(
    line: str, folder: Path, *, limits: Limits | None = None, name: str = "", more: Callable[[], None] | None = None
) -> Child:
    """Begins a command line in a folder.

    Args:
        line: after ``asgt``.
        folder: where it stands.
        limits: what it may take.
        name: of the files of its streams.
        more: what it does first.
    """

    def before() -> None:
        draw_digests()
        fork_workers()
        if more is not None:
            more()

    return Child(asgt(line.split()), folder, limits or Limits(seconds=120), before, name)


class Base:
    """The folders that work begins in, and what it gives undisturbed.

    Args:
        place: for them; what an earlier call made there is taken.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.known: dict[str, tuple[float, dict[str, str]]] = {}

    def make(self, name: str, folder: Path) -> None:
        """Makes the folder in which a work begins; it must not exist."""

        folder.mkdir(parents=True)
        (folder / "grid.yaml").write_text(_GRID)
        if WORKS[name].has_run:
            shutil.copytree(self._run(), folder / "run")

    def undisturbed(self, name: str) -> tuple[float, dict[str, str]]:
        """The seconds that a work takes undisturbed, and its results by file."""

        told = self.place / f"{name}.json"
        if name not in self.known and not told.exists():
            folder = self.place / "work"
            shutil.rmtree(folder, ignore_errors=True)
            self.make(name, folder)
            ended = begin(WORKS[name].line, folder).end()
            if ended.status != 0:
                raise RuntimeError(f"asgt {WORKS[name].line} ended with {ended.status}:\n{ended.err}")
            told.write_text(json.dumps([ended.seconds, results(WORKS[name], folder)]))
            shutil.rmtree(folder)
        if name not in self.known:
            seconds, held = json.loads(told.read_text())
            self.known[name] = seconds, held
        return self.known[name]

    def _run(self) -> Path:
        run = self.place / "run"
        if not (run / "training.json").exists():
            shutil.rmtree(run, ignore_errors=True)
            self.place.mkdir(parents=True, exist_ok=True)
            ended = begin(f"{_TRAIN} --epochs 2 --out run", self.place).end()
            if ended.status != 0:
                raise RuntimeError(ended.err)
        return run


def results(work: Work, folder: Path) -> dict[str, str]:
    """The results of a work, by file."""

    held: dict[str, str] = {}
    for place in work.results:
        if (folder / place).exists():
            held |= {f"{place}/{name}": text for name, text in results_in(folder / place).items()}
    return held
