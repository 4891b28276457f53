"""A process that runs one job after another: it reads lines of JSON, and writes its progress as such lines.

::

    in    {"job": {…}}                       the next job
          stop                               a training writes its checkpoint, and the process ends
    out {"event": "passes", "passes": 1} the progress of the job
          {"event": "warn", "text": "…"} a warning for the user
          {"event": "done"}                  it is done; or it was "stopped",
          {"event": "refused", "text": "…"}  its input is wrong; or it "failed" with an internal error and its traceback

When its standard input ends, its parent has ended, and it ends at once: no run folder has two writers.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from contextlib import ExitStack
from functools import partial
from typing import Any, TextIO

from ..diagnostics import visible_diagnostics
from ..outlets import Outlets
from ..plugins import ignore_matplotlibrc

__all__ = ["main"]

_TOLD_EVERY = 0.2  # seconds


def main() -> None:
    """Runs until its standard input ends."""

    ignore_matplotlibrc()
    # What any library prints goes where it can do no harm to the lines.
    channel = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    # Nothing is put back: the process is a worker until it ends.
    undo = ExitStack()
    Outlets(undo)
    visible_diagnostics(undo)

    stop, training = threading.Event(), threading.Event()
    jobs: list[dict[str, Any]] = []
    arrived = threading.Semaphore(0)

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() != "stop":
                jobs.append(json.loads(line)["job"])
                arrived.release()
                continue
            stop.set()
            # Only a training has something to save: an evaluation keeps what it has finished as it goes.
            if not training.is_set():
                os._exit(0)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()

    from ..errors import AsgtError, InterruptedRunError
    from ..memory import prepare

    prepare()
    from .job import Job, do

    while True:
        arrived.acquire()
        job = Job.from_dict(jobs.pop(0))
        try:
            do(job, should_stop=stop.is_set, phase=partial(_Phase, channel, stop, training, job.passes))
            _tell(channel, event="done")
        except InterruptedRunError:
            _tell(channel, event="stopped")
            os._exit(0)
        except AsgtError as error:
            _tell(channel, event="refused", text=str(error))
        except Exception:
            _tell(channel, event="failed", text=traceback.format_exc())
        # A training that failed has nothing more to save.
        training.clear()
        if stop.is_set():
            os._exit(0)


class _Phase:
    """The progress of one phase of a job, told in passes of the whole job."""

    def __init__(
        self,
        channel: TextIO,
        stop: threading.Event,
        training: threading.Event,
        passes: tuple[int, ...],
        number: int,
    ) -> None:
        self.channel = channel
        self.before, self.passes = sum(passes[:number]), passes[number]
        self.total, self.done, self.told = 1, 0, 0.0
        if number == 0:
            training.set()
            return
        training.clear()
        if stop.is_set():  # it came while nothing asked for it any more
            os._exit(0)

    def start(self, title: str, total: int, done: int = 0) -> None:
        # Reading the images comes first, and is no part of what was counted.
        self.total, self.done = (total, done) if not title.startswith("reading ") else (0, 0)

    def advance(self, parts: int = 1, **values: float) -> None:
        self.done += parts
        if self.total and time.monotonic() - self.told > _TOLD_EVERY:
            self.told = time.monotonic()
            reached = self.passes * min(self.done, self.total) // self.total
            _tell(self.channel, event="passes", passes=self.before + reached)

    def say(self, message: str) -> None:
        """An epoch's line is in the run folder's ``metrics.jsonl``; a grid shows how far the whole is."""

    def warn(self, message: str) -> None:
        _tell(self.channel, event="warn", text=message)

    def stop(self) -> None: ...


def _tell(channel: TextIO, **values: Any) -> None:
    try:
        channel.write(json.dumps(values) + "\n")
    except OSError:  # whoever started it is gone
        os._exit(0)


if __name__ == "__main__":
    main()
