"""Runs jobs on this machine: a few parallel worker processes, each with one thread of arithmetic.

The networks are small: two processes of one thread are faster than one of two, and a run's results do not depend on
the number of cores.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import joblib
import psutil

from ..devices import resolve_device
from ..errors import InputError, InterruptedRunError
from ..progress import Progress
from .job import Job

__all__ = ["GridProgress", "default_workers", "run_jobs"]

_MEMORY = 2 << 30  # of a worker, with MNIST decoded
_PATIENCE = 120.0  # seconds that a training step and its checkpoint may take when asked to stop
_GONE = {"event": "gone"}


def default_workers(device: str = "auto") -> int:
    """On a CPU, a worker for each core that this process may use, limited by the memory; on an accelerator, one."""

    if resolve_device(device).type != "cpu":
        return 1
    return max(1, min(int(joblib.cpu_count()), int(psutil.virtual_memory().available) // _MEMORY))


def run_jobs(
    jobs: Sequence[Job],
    workers: int,
    *,
    should_stop: Callable[[], bool],
    progress: Progress,
    done: int = 0,
    fits: Callable[[Job, int], bool] = lambda job, done: True,
) -> None:
    """Runs jobs in parallel, in their order.

    Args:
        jobs: the jobs; no other process may run them.
        workers: the number of jobs at the same time.
        should_stop: called several times a second; if it returns ``True``, every training writes its checkpoint.
        progress: receives the passes of all jobs together, and the end of each.
        done: the passes of finished runs, which are not among the jobs, for the total.
        fits: called for a job before it starts, when a worker is free for it, with the passes that all workers have
            made in this call; a job that does not fit is skipped.

    Raises:
        InputError: some runs failed; the others finished.
        InterruptedRunError: ``should_stop`` returned ``True``.
        RuntimeError: internal errors in some runs; the others finished. It has the tracebacks, as the previous one.
    """

    grid = GridProgress(jobs, progress, done, fits)
    events: queue.Queue[tuple[_Worker, dict[str, Any]]] = queue.Queue()
    team = [_Worker(events) for _ in range(min(workers, len(jobs)))]

    def replaced(worker: _Worker) -> None:
        """Ends a process in an undefined state, and starts another for the remaining jobs."""

        worker.job = None
        worker.end()
        team.remove(worker)
        if (following := grid.next()) is not None:
            team.append(_Worker(events))
            team[-1].take(following)

    try:
        for worker in team:
            worker.take(grid.next())
        while any(worker.job for worker in team):
            if should_stop():
                _stop(team)
                grid.interrupt()
            try:
                worker, message = events.get(timeout=0.2)
            except queue.Empty:
                continue
            job = worker.job
            if job is None:
                continue
            match message["event"]:
                case "passes":
                    grid.reached(job, message["passes"])
                case "warn":
                    progress.warn(f"{job.label}: {message['text']}")
                case "done":
                    grid.finished(job)
                    worker.take(grid.next())
                case "refused":
                    grid.failed(job, message["text"])
                    # A recording that was broken off leaves its process without generators.
                    if job.config.cuda_graphs:
                        replaced(worker)
                    else:
                        worker.take(grid.next())
                case "failed":
                    grid.faulty(job, message["text"], message["text"].strip().splitlines()[-1])
                    replaced(worker)  # an accelerator's error stays with its process
                case "gone":
                    grid.failed(
                        job,
                        f"its process ended with status {worker.process.wait()}, perhaps for lack of memory: "
                        "use fewer --workers",
                    )
                    replaced(worker)
    finally:
        for worker in team:
            worker.end()
        progress.stop()

    grid.conclude()


class GridProgress:
    """The progress of the jobs, wherever they run, and their errors."""

    def __init__(
        self,
        jobs: Sequence[Job],
        progress: Progress,
        done: int,
        fits: Callable[[Job, int], bool] = lambda job, done: True,
    ) -> None:
        self.waiting = list(jobs)
        self.fits = fits
        # Of a run that goes on from a checkpoint, its first word tells what was done before.
        self.before: dict[str, int] = {}
        self.progress = progress
        self.passes = {job.folder: 0 for job in jobs}
        self.total = sum(sum(job.passes) for job in jobs)
        self.ended = 0
        self.failures: list[tuple[str, str]] = []
        self.tracebacks: list[str] = []
        self.began = time.monotonic()
        progress.start(f"{len(jobs)} runs", done + self.total, done)

    def next(self) -> Job | None:
        made = sum(self.passes[folder] - before for folder, before in self.before.items())
        job = next((job for job in self.waiting if self.fits(job, made)), None)
        if job is not None:
            self.waiting.remove(job)
        return job

    def reached(self, job: Job, passes: int) -> None:
        self.before.setdefault(job.folder, passes)
        further = passes - self.passes[job.folder]
        if further > 0:
            self.passes[job.folder] = passes
            self.progress.advance(further)

    def finished(self, job: Job) -> None:
        self.reached(job, sum(job.passes))
        self.ended += 1
        self.progress.say(f"{self.text()}: {job.label} · {self._left()}")

    def failed(self, job: Job, text: str) -> None:
        made = self.passes[job.folder] - self.before.get(job.folder, 0)
        self.reached(job, sum(job.passes))
        self.before[job.folder] = self.passes[job.folder] - made
        self.failures.append((job.label, text))
        self.progress.warn(f"{job.label}: {text}")

    def faulty(self, job: Job, traceback: str, text: str) -> None:
        """Records an internal error, whose traceback is shown at the end."""

        self.tracebacks.append(f"{job.label}, in {job.folder}:\n{traceback}")
        self.failed(job, text)

    def interrupt(self) -> NoReturn:
        """Raises that the jobs were stopped, with the tracebacks of faults until then."""

        told = f"stopped with {self.text()}: run the same command again to continue"
        raise InterruptedRunError("\n".join([*self.tracebacks, told]))

    def conclude(self) -> None:
        """Names the failed runs, when all have ended.

        Raises:
            InputError: some runs failed.
            RuntimeError: internal errors in some runs; it has the tracebacks.
        """

        if self.failures:
            listed = "; ".join(f"{label}: {text}" for label, text in self.failures)
            others = ", the others finished" if self.ended else ""
            told = f"{len(self.failures)} of {len(self.passes)} runs failed{others}: {listed}"
            raise RuntimeError("\n".join([*self.tracebacks, told])) if self.tracebacks else InputError(told)

    def text(self) -> str:
        return f"{self.ended} of {len(self.passes)} runs finished"

    def _left(self) -> str:
        share = sum(self.passes.values()) / self.total
        minutes, seconds = divmod(round((time.monotonic() - self.began) * (1 - share) / share), 60)
        return f"about {minutes} min {seconds:02d} s left" if minutes or seconds else "nothing remaining"


class _Worker:
    """A worker process and what it is at."""

    def __init__(self, events: queue.Queue[tuple[_Worker, dict[str, Any]]]) -> None:
        self.job: Job | None = None
        self.process = subprocess.Popen(
            # Of our own package, whatever lies in the folder that the user stands in.
            [sys.executable, "-P", "-m", "asgt.experiments.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            # An interrupt from the keyboard is ours to pass on, in words.
            start_new_session=True,
        )
        self.listener = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self.listener.start()

    def _listen(self, events: queue.Queue[tuple[_Worker, dict[str, Any]]]) -> None:
        assert self.process.stdout is not None
        # A kill may cut the last line short.
        with contextlib.suppress(ValueError):
            for line in self.process.stdout:
                events.put((self, json.loads(line)))
        events.put((self, _GONE))

    def take(self, job: Job | None) -> None:
        self.job = job
        if job is not None:
            self.tell(json.dumps({"job": job.to_dict()}))

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        # If it is gone, its last event says so.
        with contextlib.suppress(OSError):
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.listener.join()
        with contextlib.suppress(OSError):  # of what was never read
            self.process.stdin.close()
        self.process.stdout.close()


def _stop(team: Sequence[_Worker]) -> None:
    """Lets every training write its checkpoint."""

    for worker in team:
        worker.tell("stop")
    deadline = time.monotonic() + _PATIENCE
    for worker in team:
        try:
            worker.process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
