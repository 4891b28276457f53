"""The main job: every run of a preset trained and evaluated, and the report of them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import InputError
from ..files import write_yaml
from ..progress import SILENT, Progress
from ..report import Comparison, compare, write_report
from .grid import NOTE, plan
from .local import default_workers, run_jobs
from .preset import Preset

__all__ = ["reproduce"]


def reproduce(
    preset: Preset,
    out: Path | str,
    *,
    workers: int | None = None,
    command: str = "",
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> Comparison:
    """Trains and evaluates every run of a preset that is not finished yet, and writes the report of them all.

    Args:
        preset: the grid of runs.
        out: a folder for the run folders, ``report.html`` and its ``figures/``. What an earlier call with the same
            preset finished there is kept; with more seeds, only those are run.
        workers: how many runs at a time. Default: one for each core, as far as the memory goes; one on an accelerator.
        command: what the page says to run again.
        should_stop: asked several times a second.
        progress: is told how far the whole is.

    Returns:
        What was found.

    Raises:
        InputError: the data, the folder or a run does not fit; or another process is at work in the folder.
        InterruptedRunError: ``should_stop`` said so; the same call goes on from there.
    """

    out = Path(out)
    planned = plan(preset, out, progress)
    if not (out / NOTE).exists():
        write_yaml(out / NOTE, preset.to_dict())

    try:
        with FileLock(out / ".lock", timeout=0):
            jobs = [run.job for run in planned if run.state != "finished"]
            if jobs:
                done = sum(sum(run.job.passes) for run in planned if run.state == "finished")
                if done:
                    progress.say(f"{len(planned) - len(jobs)} of {len(planned)} runs were finished already")
                team = workers or default_workers(preset.methods[0].device)
                run_jobs(jobs, team, should_stop=should_stop, progress=progress, done=done)
            # What a kill left half-written goes.
            for part in out.rglob(".*.part"):
                part.unlink(missing_ok=True)
            found = compare([run.job.folder for run in planned])
            write_report(found, out, command=command)
    except Timeout as error:
        raise InputError(f"another asgt reproduce is at work in {out}: wait for it, or name another --out") from error
    return found
