"""What cases begin with: finished runs, a finished grid, a run half evaluated and one half trained, and their figures.

::

    runs/        run, other: finished runs of two seeds, evaluated by pgd, run by standard too, explained; grid.yaml
    grid/        grid.yaml, reproduced: what it gives; keep: what it keeps of its runs
    unfinished/  half: an evaluation and an explanation without a result; begun: a training without a result
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path

from support.forked import Child, Ended, Limits, asgt
from support.shortcuts import draw_digests, fork_workers

from . import kept
from .lines import flags_in

__all__ = ["begin_training", "do", "flags_of_verbs", "make_material"]

GRID = """data: digits
seeds: 1
train: {model: small_cnn, width: 0.25, limit: 450, epochs: 2, batch_size: 15, lr: 0.1, eps: 0.1, device: cpu}
methods: [{method: at, attack: fgsm}]
evaluate: {protocols: [pgd], epsilons: [0.1], samples: 8}
explain: {samples: 8}
"""
_TRAIN = "--method at --attack fgsm --width 0.25 --limit 450 --epochs 2 --batch-size 15 --lr 0.1 --schedule constant"


def shortcuts() -> None:
    """What every child replaces first."""

    draw_digests()
    fork_workers()


def do(words: Sequence[str], folder: Path, limits: Limits | None = None) -> Child:
    """Begins a command line in a folder. ``kept FOLDER`` is :mod:`fuzz.kept`, any other line is one of ``asgt``."""

    work: Callable[[], int] = asgt(words)
    if words and words[0] == "kept":

        def work() -> int:
            return kept.main(words[1:])

    return Child(work, folder, limits, shortcuts)


def make_material(folder: Path) -> None:
    """Makes the folders, unless they are there."""

    if (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    for base in ("runs", "grid", "unfinished"):
        (folder / base).mkdir(parents=True)
    half = folder / "unfinished" / "half"
    for seed, name in enumerate(("run", "other")):
        _must(f"train {_TRAIN} --seed {seed} --out {name}", folder / "runs")
        if name == "run":
            shutil.copytree(folder / "runs" / name, half)
        _must(f"evaluate {name} --samples 4 --epsilons 0.1", folder / "runs")
        _must(f"explain {name} --samples 8 --out page", folder / "runs")
    # Evidence is there before the result, and only then the manifest lists it.
    for evidence in ("evaluation/pgd", "explanation/gradient"):
        ignored = shutil.ignore_patterns("result.json")
        shutil.copytree(folder / "runs" / "run" / evidence, half / evidence, ignore=ignored)
    _must("evaluate run --samples 4 --epsilons 0.1 --protocol standard", folder / "runs")
    shutil.rmtree(folder / "runs" / "page")
    for base in ("runs", "grid"):
        (folder / base / "grid.yaml").write_text(GRID)
    _must("reproduce grid.yaml --workers 1 --out reproduced --keep keep", folder / "grid")
    ended = Child(begin_training("begun", steps=45), folder / "unfinished").end()
    if ended.status != 0:
        raise RuntimeError(ended.err)
    for stream in folder.glob("*.[oe]*"):
        stream.unlink()
    (folder / "made").touch()


def begin_training(name: str, *, steps: int) -> Callable[[], int]:
    """The work that trains a run for so many steps, and leaves its checkpoint."""

    def work() -> int:
        from asgt.errors import InterruptedRunError
        from asgt.training.config import TrainConfig
        from asgt.training.trainer import train

        settings = {"method": "at", "attack": "fgsm", "width": 0.25, "limit": 450, "epochs": 2, "batch_size": 15}
        answers = chain(repeat(False, steps), repeat(True))
        try:
            train(
                TrainConfig(**settings, lr=0.1, schedule="constant").resolved(),  # type: ignore[arg-type]
                name,
                should_stop=lambda: next(answers),
            )
        except InterruptedRunError:
            return 0
        return 1

    return work


def flags_of_verbs(folder: Path) -> dict[str, list[str]]:
    """The flags of every verb, by their help texts."""

    told = folder / "flags.json"
    if not told.exists():
        verbs = [line.split()[0] for line in _must("--help", folder).out.splitlines() if line.startswith("  ")]
        told.write_text(json.dumps({verb: flags_in(_must(f"{verb} --help", folder).out) for verb in verbs}))
    flags: dict[str, list[str]] = json.loads(told.read_text())
    return flags


def _must(line: str, folder: Path) -> Ended:
    ended = do(line.split(), folder, Limits(seconds=120)).end()
    if ended.status != 0:
        raise RuntimeError(f"asgt {line} ended with {ended.status}:\n{ended.err}")
    return ended
