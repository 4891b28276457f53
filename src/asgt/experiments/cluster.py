"""Runs jobs on a Slurm cluster through submitit: each run of the grid is a separate job.

A job that is requeued, preempted or out of time continues from its last checkpoint. A lock next to its run folder
prevents two jobs from writing the same one: the later job waits.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..plugins import ignore_matplotlibrc
from ..progress import SILENT, Progress
from .job import Job, do
from .local import GridProgress

if TYPE_CHECKING:
    import submitit

__all__ = ["LOGS", "run_on_cluster"]

LOGS = ".submitit"
"""The folder of the logs, in that of the grid."""

_TIMEOUT = 240  # minutes of a job, unless told otherwise; what is not done by then is requeued
_PATIENCE = 30.0  # seconds that cancelled jobs may take to be gone


def run_on_cluster(
    jobs: Sequence[Job],
    out: Path,
    *,
    workers: int | None = None,
    asked: Mapping[str, Any] | None = None,
    cluster: str = "slurm",
    should_stop: Callable[[], bool],
    progress: Progress,
    done: int = 0,
) -> None:
    """Submits jobs, in their order, and waits for them all.

    Args:
        jobs: the jobs.
        out: the folder of the grid, on a disk that all nodes share; logs go to a new folder in ``.submitit`` in it.
        workers: the number of jobs at the same time; the scheduler decides by default.
        asked: options for the scheduler, by submitit's names: ``timeout_min``, ``gpus_per_node``, ``slurm_partition``
            and so on.
        cluster: submitit's name of the scheduler.
        should_stop: called every second; if it returns ``True``, every job is cancelled.
        progress: receives the passes of all jobs together, and the end of each.
        done: the passes of finished runs, which are not among the jobs, for the total.

    Raises:
        InputError: submitit or the scheduler is not available, or an option is unknown; or some runs failed, while the
            others finished.
        InterruptedRunError: ``should_stop`` returned ``True``.
        RuntimeError: internal errors in some runs; the others finished. It has the tracebacks, as the previous one.
    """

    # Answers come back as pickles, by the numbers of the jobs: none that lay there before may be taken for one.
    logs = out / LOGS / secrets.token_hex(8)
    executor = _executor(logs, cluster, {"timeout_min": _TIMEOUT, "name": "asgt"} | dict(asked or {}), workers)
    from submitit.core.utils import FailedJobError

    try:
        with _safe_path():
            queued = executor.map_array(_Call(), [job.to_dict() for job in jobs])
    except FailedJobError as error:
        raise InputError(f"--slurm: {' '.join(str(error).split())[:300]}") from error
    submitted = dict(zip((job.folder for job in jobs), queued, strict=True))
    grid = GridProgress(jobs, progress, done)
    waiting = list(jobs)
    try:
        while waiting:
            if should_stop():
                grid.interrupt()
            for job in [job for job in waiting if submitted[job.folder].done()]:
                waiting.remove(job)
                _ended(job, submitted[job.folder], grid)
            time.sleep(1)
    finally:
        _cancel([submitted[job.folder] for job in waiting])
        progress.stop()
    grid.conclude()


@contextmanager
def _safe_path() -> Iterator[None]:
    """Jobs that are submitted inside inherit that Python does not search the working directory before its libraries."""

    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


class _Call:
    """Does a job on a node. Called again after a requeue, it does what is left."""

    def __call__(self, values: dict[str, Any]) -> str:
        """Returns the error of the input, ``""`` if there is none."""

        import torch
        from filelock import FileLock

        # As a worker of this machine has it, so that a run ends the same wherever it is done.
        torch.set_num_threads(1)
        ignore_matplotlibrc()
        job = Job.from_dict(values)
        folder = Path(job.folder)
        try:
            with FileLock(folder.with_name(f".{folder.name}.lock")):
                do(job, should_stop=lambda: False, phase=lambda number: SILENT)
        except InputError as error:
            return str(error)
        return ""

    def checkpoint(self, values: dict[str, Any]) -> Any:
        """The job that submitit requeues after preemption or a timeout."""

        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, values)


def _executor(logs: Path, cluster: str, asked: Mapping[str, Any], workers: int | None) -> submitit.AutoExecutor:
    try:
        import submitit
    except ImportError as error:
        raise InputError("--executor slurm needs an extra: pip install 'asgt[slurm]'") from error
    if workers is not None and cluster == "slurm":
        asked = {"slurm_array_parallelism": workers, **asked}
    try:
        executor = submitit.AutoExecutor(logs, cluster=cluster)
    except RuntimeError as error:
        raise InputError(f"{cluster} is not available: use --executor local to run on this machine") from error
    try:
        executor.update_parameters(**asked)
    except (AssertionError, NameError, TypeError) as error:
        raise InputError(f"--slurm: {' '.join(str(error).split())[:300]}") from error
    return executor


def _cancel(left: Sequence[submitit.Job[str]]) -> None:
    """Cancels jobs, and gives them a while to be gone: whoever calls next should find nobody at work."""

    for job in left:
        job.cancel()
    deadline = time.monotonic() + _PATIENCE
    while not all(job.done(force_check=True) for job in left) and time.monotonic() < deadline:
        time.sleep(0.2)


def _ended(job: Job, submitted: submitit.Job[str], grid: GridProgress) -> None:
    """Notes how a job ended."""

    from submitit.core.utils import FailedJobError

    error = submitted.exception()
    if isinstance(error, FailedJobError):
        grid.faulty(job, str(error), f"an internal error; its log is {submitted.paths.stderr}")
    elif error is not None:
        grid.failed(job, f"its job ended without a result; its log is {submitted.paths.stderr}")
    elif text := submitted.result():
        grid.failed(job, text)
    else:
        grid.finished(job)
