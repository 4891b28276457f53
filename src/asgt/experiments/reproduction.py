"""Trains and evaluates every run of a preset, and writes their report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..comparison.comparing import Comparison, compare
from ..comparison.summary import Summary, summarise
from ..errors import InputError
from ..files import write_yaml
from ..locks import LOCK, locked
from ..progress import SILENT, Progress
from ..report.page import write_report
from .cluster import LOGS, run_on_cluster
from .grid import NOTE, Planned, plan
from .job import keep as keep_job
from .local import default_workers, run_jobs
from .preset import Preset

__all__ = ["reproduce"]


def reproduce(
    preset: Preset,
    out: Path | str,
    *,
    workers: int | None = None,
    executor: Literal["local", "slurm"] = "local",
    slurm: Mapping[str, Any] | None = None,
    keep: Path | str | None = None,
    allow: Collection[str] = (),
    command: str = "",
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
    present: Callable[[Summary, Path], None] = lambda summary, page: None,
) -> Comparison:
    """Trains and evaluates every unfinished run of a preset, and writes the report of all runs.

    Args:
        preset: the grid of runs.
        out: a folder for the run folders, ``report.html`` and its ``figures/``. Results of an earlier call with the
            same preset are reused; for more seeds or protocols, only the missing parts are run.
        workers: the number of runs at the same time. Default: one for each core, limited by the memory; one on an
            accelerator, although several small runs can share the device; on a cluster the scheduler decides.
        executor: ``"local"``, worker processes on this machine, or ``"slurm"``, one job per run.
        slurm: options for the scheduler (:func:`asgt.experiments.cluster.run_on_cluster`).
        keep: the folder for a small file of each run (:mod:`asgt.runs.kept`), in a subfolder with the preset's name.
            Default: not saved.
        allow: the modules whose code may run, as for :func:`asgt.runs.run.load_run`; workers get it too.
        command: the command that the page shows for repetition.
        should_stop: called several times a second.
        progress: receives the progress of the grid.
        present: called with the content of the page and its path, after it is written.

    Returns:
        The comparison of the runs.

    Raises:
        InputError: the data, the folder or a run is invalid; or another process is using the folder.
        InterruptedRunError: ``should_stop`` returned ``True``; the same call continues.

    Example:
        >>> from pathlib import Path
        >>> import asgt
        >>> lines = ["data: digits", "seeds: 1", "train: {epochs: 1, limit: 60}", "methods: [{method: st}]",
        ...          "evaluate: {protocols: [pgd], epsilons: [0.1], samples: 10}"]
        >>> _ = Path("grid.yaml").write_text("\\n".join(lines))
        >>> comparison = asgt.reproduce(asgt.load_preset("grid.yaml"), "grid", workers=1)
        >>> comparison.samples
        10
    """

    out, keep = Path(out), None if keep is None else Path(keep)
    planned = plan(preset, out, progress, keep, allow=allow)
    with locked(out, "asgt reproduce", progress=progress):
        is_new = not (out / NOTE).exists()
        if is_new:
            write_yaml(out / NOTE, preset.to_dict())
        try:
            _do(planned, out, preset, workers, executor, slurm=slurm, should_stop=should_stop, progress=progress)
            comparison = compare([run.job.folder for run in planned])
            summary = summarise(comparison, allow=allow)
            write_report(summary, out, command=command)
        except InputError:
            # A grid of which no run began is not in the way of the next one.
            if is_new and not any(Path(run.job.folder).exists() for run in planned):
                _withdraw(out)
            raise
    present(summary, out / "report.html")
    return comparison


def _do(
    planned: Sequence[Planned],
    out: Path,
    preset: Preset,
    workers: int | None,
    executor: str,
    *,
    slurm: Mapping[str, Any] | None,
    should_stop: Callable[[], bool],
    progress: Progress,
) -> None:
    """Does the runs that are not finished, and saves what is to be kept of those that are."""

    jobs = [run.job for run in planned if run.state != "finished"]
    if jobs:
        done = sum(sum(run.job.passes) for run in planned if run.state == "finished")
        if done:
            progress.say(f"{len(planned) - len(jobs)} of {len(planned)} runs were already finished")
        if executor == "slurm":
            run_on_cluster(
                jobs, out, workers=workers, asked=slurm, should_stop=should_stop, progress=progress, done=done
            )
        else:
            team = workers or default_workers(preset.methods[0].device)
            run_jobs(jobs, team, should_stop=should_stop, progress=progress, done=done)
    for job in (run.job for run in planned if run.state == "finished"):
        if job.keep is not None:
            keep_job(job)
    # What a kill left half-written goes.
    for part in out.rglob(".*.part"):
        part.unlink(missing_ok=True)


def _withdraw(out: Path) -> None:
    """Removes the note of a grid whose folder holds nothing else, and no logs; with the lock the folder goes."""

    for folder in (*(out / LOGS).glob("*"), out / LOGS):
        with contextlib.suppress(OSError):
            folder.rmdir()
    with contextlib.suppress(OSError):  # the folder itself may be gone
        if all(file.name == NOTE or file.name.startswith(LOCK) for file in out.iterdir()):
            (out / NOTE).unlink(missing_ok=True)
