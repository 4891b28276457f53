"""The paper's grids on a machine with a GPU that is lent for a while: the most evidence in the time there is.

Stage by stage, in the order of how much each says about the paper:

1. ``mnist-paper``, five seeds, the paper's own methods first: launch-bound, so several runs share the GPU;
2. ``cifar10-paper``, one seed, the cheapest methods first, as far as the time goes;
3. ``mnist-tuned``;
4. ``cifar10-tuned``, one seed, ASGT-PGD and AT-PGD first.

A run is begun only if it would end in the time left, at the pace that those of its stage have had so far, side by side;
the first of a stage, and those that have a checkpoint, may try.
What a run leaves behind is one small file in ``--keep``, written as soon as it is done: bring back that folder. The
same call goes on where the last one stopped: with the runs that are not kept, and, while ``--work`` is there, from
their last checkpoints. On CUDA, CIFAR-10 is trained in bf16, MNIST in tf32 by recorded steps (CUDA graphs).

MNIST and CIFAR-10 are looked for in ``ASGT_DATA``. On the page, a grid whose settings were changed here goes by a name
that tells of it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asgt.cli.parsing import listed
from asgt.devices import resolve_device
from asgt.errors import AsgtError, InputError, InterruptedRunError
from asgt.experiments.grid import NOTE, plan
from asgt.experiments.job import Job, is_kept
from asgt.experiments.local import run_jobs
from asgt.experiments.preset import load_preset
from asgt.files import write_yaml
from asgt.numbers import counted

Order = Callable[[Job], Any]


@dataclass(frozen=True)
class Stage:
    """A grid to be run.

    Attributes:
        data: its data set, or the file of a preset.
        scale: its scale; ``None`` of a file.
        seeds: how many; ``None`` for those of the preset.
        workers: runs that share the GPU.
        changed: settings of every run that go before the preset's on a CUDA device.
        order: what jobs are sorted by, after what is as planned: seed by seed, the dearest first.
        protocols: what judges its runs; ``None`` for those of the preset. ``standard`` takes thousands of steps one
            after the other: on MNIST it would take longer than most trainings.
    """

    data: str
    scale: str | None
    seeds: int | None
    workers: int
    changed: dict[str, Any]
    order: Order | None = None
    protocols: tuple[str, ...] | None = None


def cheapest(job: Job) -> Any:
    """The runs that cost least first: the most methods in the time."""

    return sum(job.passes)


def pgd_first(job: Job) -> Any:
    """ASGT and AT with PGD inside before the others: what the paper leaves out."""

    return job.config.seed, not papers_own(job)


def papers_own(job: Job) -> bool:
    """The methods that the paper has, false, before the baselines that it leaves out: AT and ASGT with PGD inside."""

    return (job.config.method, job.config.attack) in (("asgt", "pgd"), ("at", "pgd"))


_STEADY = 20.0  # seconds until a pace is one
_BESIDE = 30.0  # seconds of a run in which no pass is counted: loading, checks, the start of CUDA; seen on an H100

# A small net's steps are bound by launches: recorded and replayed, each is one.
_SMALL = {"precision": "tf32", "cuda_graphs": True}

STAGES = {
    "mnist-paper": Stage("mnist", "paper", None, 12, _SMALL, papers_own, ("paper", "pgd")),
    "cifar10-paper": Stage("cifar10", "paper", 1, 3, {"precision": "bf16"}, cheapest),
    "mnist-tuned": Stage("mnist", "tuned", None, 12, _SMALL, protocols=("paper", "pgd")),
    "cifar10-tuned": Stage("cifar10", "tuned", 1, 2, {"precision": "bf16"}, pgd_first),
}


class Lease:
    """The time there is: which runs would end in it, and the word of those that do.

    Args:
        deadline: by the monotonic clock.
        workers: runs side by side.
        begun: the folders of runs that have a checkpoint: how much of them is left is not known, and they may try.
    """

    def __init__(self, deadline: float, workers: int, begun: Collection[str] = ()) -> None:
        self.deadline = deadline
        self.workers = workers
        self.begun = begun
        self.left_out: set[str] = set()
        self.since = 0.0

    def holds(self, job: Job, made: int) -> bool:
        """Whether a run would end in time at the pace of those so far, which have made so many passes together.

        Before there is a pace, it may try.
        """

        now = time.monotonic()
        left = self.deadline - now - _BESIDE
        # Until the first worker has something to tell, it only sets itself up.
        known = bool(made) and now - self.since >= _STEADY and job.folder not in self.begun
        fits = left >= (sum(job.passes) * self.workers * (now - self.since) / made if known else 0.0)
        (self.left_out.discard if fits else self.left_out.add)(job.label)
        return fits

    def start(self, title: str, total: int, done: int = 0) -> None: ...

    def advance(self, parts: int = 1, **values: float) -> None:
        self.since = self.since or time.monotonic()

    def say(self, message: str) -> None:
        print(message, flush=True)

    def warn(self, message: str) -> None:
        print(f"warning: {message}", flush=True)

    def stop(self) -> None: ...


def run_stage(stage: Stage, asked: argparse.Namespace, deadline: float) -> tuple[int, int, bool]:
    """Does what is left of a stage and fits into the time.

    Returns:
        How many of its runs are kept now, how many it has, and whether one met a fault of ours.
    """

    on_cuda = resolve_device(asked.device).type == "cuda"
    preset = load_preset(stage.data, stage.scale, stage.changed if on_cuda else {})
    preset = preset.on(
        seeds=asked.seeds or stage.seeds, protocols=asked.protocols or stage.protocols, device=asked.device
    )
    out = asked.work / preset.name
    runs = plan(preset, out, keep=asked.keep)
    planned = [run.job for run in runs]
    if not (out / NOTE).exists():
        write_yaml(out / NOTE, preset.to_dict())
    if stage.order is not None:
        planned.sort(key=stage.order)
    begun = {run.job.folder for run in runs if run.state != "to do"}
    jobs = sorted((job for job in planned if not is_kept(job)), key=lambda job: job.folder not in begun)
    print(f"{preset.name}: {len(planned) - len(jobs)} of {counted(len(planned), 'run')} kept already", flush=True)
    fault = bool(jobs) and _run(jobs, Lease(deadline, asked.workers or stage.workers, begun))
    return sum(is_kept(job) for job in planned), len(planned), fault


def _run(jobs: Sequence[Job], lease: Lease) -> bool:
    """Runs what fits. What cannot be done is told, and the others are; whether there was a fault of ours."""

    fault = False
    try:
        run_jobs(
            jobs,
            lease.workers,
            should_stop=lambda: time.monotonic() >= lease.deadline,
            progress=lease,
            fits=lease.holds,
        )
    except (InterruptedRunError, InputError) as error:
        print(error, flush=True)
    except RuntimeError as error:
        fault = True
        print(f"fault: {error}", flush=True)
    if lease.left_out:
        print(f"not begun, as they would not have ended in time: {', '.join(sorted(lease.left_out))}", flush=True)
    return fault


def main(words: Sequence[str] | None = None) -> int:
    """Runs the command line."""

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="the time there is, set-up included (default: 9)")
    parser.add_argument("--keep", type=Path, default=Path("results"), help="for what is kept (default: results/)")
    parser.add_argument("--work", type=Path, default=Path("gpu"), help="for run folders, checkpoints (default: gpu/)")
    parser.add_argument(
        "--stages",
        default=",".join(STAGES),
        help="of these, in this order; or files of presets of your own (default: all: %(default)s)",
    )
    parser.add_argument(
        "--workers", type=int, help="runs that share the GPU (default: 12 of MNIST, 2 or 3 of CIFAR-10)"
    )
    parser.add_argument("--seeds", type=int, help="how many (default: as each stage says)")
    parser.add_argument("--protocols", type=listed, help="what judges every run (default: as each stage says)")
    parser.add_argument("--device", default="auto", help="auto, cuda, cuda:N or cpu (default: auto)")
    asked = parser.parse_args(words)
    # What waits for a checkpoint at the end must fit too.
    deadline = time.monotonic() + 60 * asked.minutes - 20

    logging.basicConfig(level=logging.WARNING)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    faulty = False
    try:
        for name in asked.stages.split(","):
            if name not in STAGES and not name.endswith((".yaml", ".yml")):
                raise InputError(f"unknown stage {name!r}: use {', '.join(STAGES)} or the file of a preset")
        for name in asked.stages.split(","):
            kept, planned, fault = run_stage(STAGES.get(name) or Stage(name, None, None, 2, {}), asked, deadline)
            faulty |= fault
            print(f"{name}: {kept} of {counted(planned, 'run')} are kept in {asked.keep}", flush=True)
    except AsgtError as error:
        print(f"gpu_grid: error: {error}", file=sys.stderr)
        return 2
    return int(faulty)


if __name__ == "__main__":
    sys.exit(main())
