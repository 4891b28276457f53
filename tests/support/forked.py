"""Command lines of ``asgt`` in forked children of one process that has imported everything once.

A child costs a few milliseconds instead of the seconds that the imports take. Each child is a process of its own: it
stands in a folder of its own, leads a process group of its own, and has limits on its time and its memory.

Call :func:`prepare` before anything of PyTorch runs: a pool of threads does not survive a fork.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import io
import os
import pkgutil
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Child", "Ended", "Limits", "asgt", "prepare"]

Work = Callable[[], int]

_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
# What the verbs import only when they need it.
_LATE = (
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.TiffImagePlugin",
    "PIL.WebPImagePlugin",
    "accelerate",
    "captum.attr",
    "datasets",
    "docstring_parser",
    "matplotlib.backends.backend_agg",
    "matplotlib.pyplot",
    "pandas",
    "pyarrow.parquet",
    "rich.progress",
    "rich.table",
    "sklearn.datasets",
    "torch._dynamo",
)


@dataclass(frozen=True)
class Limits:
    """What a child may take.

    Attributes:
        seconds: of wall time, and of CPU time.
        memory: bytes of address space beside those that its parent has mapped.
        file: bytes of the largest file that it may write.
    """

    seconds: float = 60.0
    memory: int = 3 << 30
    file: int = 1 << 30


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        status: its exit status; ``None`` where a signal ended it.
        signal: the signal that ended it; ``None`` where none did.
        timed_out: whether it was killed because its time was over.
        out: what it wrote on standard output.
        err: what it wrote on standard error. Of a child whose time was over, the last lines are its stacks.
        seconds: wall time.
    """

    status: int | None
    signal: int | None
    timed_out: bool
    out: str
    err: str
    seconds: float


def prepare() -> None:
    """Imports all that a command line may need, with one thread of arithmetic and without a network."""

    for name in _ONE_THREAD:
        os.environ[name] = "1"
    os.environ |= {"HF_HUB_OFFLINE": "1", "MPLBACKEND": "agg", "COLUMNS": "160", "SOURCE_DATE_EPOCH": "0"}
    os.environ.pop("ASGT_DATA", None)

    import asgt as package

    for module in pkgutil.walk_packages(package.__path__, "asgt."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _LATE:
        importlib.import_module(name)

    import torch

    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    # What is here now stays: a child that collected it would copy the pages that it shares.
    gc.collect()
    gc.freeze()


def asgt(words: Sequence[str]) -> Work:
    """The work of a child that runs a command line."""

    def work() -> int:
        from asgt.cli import main

        return main(list(words))

    return work


_ANSWERED = (signal.SIGINT, signal.SIGTERM)


class Child:
    """A forked process at work.

    Args:
        work: what it does; what this returns is the exit status, and an exception leaves its traceback and status 1.
        folder: where it stands. What it writes on its standard streams goes beside it, into ``NAME.out`` and
            ``NAME.err``.
        limits: what it may take.
        before: what it does first, such as replacing parts of libraries.
        name: of the files of its streams (default: the folder's). Two children in a folder need two.
    """

    def __init__(
        self,
        work: Work,
        folder: Path,
        limits: Limits | None = None,
        before: Callable[[], None] | None = None,
        name: str = "",
    ) -> None:
        self.limits = limits or Limits()
        self.streams = [folder.with_name(f"{name or folder.name}.{stream}") for stream in ("out", "err")]
        self.began = time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal to the child waits until it can answer it.
        waiting = signal.pthread_sigmask(signal.SIG_BLOCK, _ANSWERED)
        self.pid = os.fork()
        if self.pid == 0:
            self._live(work, folder, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, waiting)
        with contextlib.suppress(OSError):  # the child does so too: whoever comes first
            os.setpgid(self.pid, self.pid)

    def kill(self, number: int, *, alone: bool = False) -> None:
        """Sends a signal to the process, and to those that it started unless ``alone``; to none that is gone."""

        with contextlib.suppress(ProcessLookupError):
            (os.kill if alone else os.killpg)(self.pid, number)

    def left_running(self, seconds: float) -> bool:
        """Whether processes that it started still run after so long. It must have ended, but not by :meth:`end`."""

        deadline = time.monotonic() + seconds
        while (is_running := _runs_in_group(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.05)
        return is_running

    def is_over(self, seconds: float) -> bool:
        """Waits at most so long, and says whether the process has ended."""

        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            return bool(select.select([handle], [], [], max(0.0, seconds))[0])
        finally:
            os.close(handle)

    def end(self) -> Ended:
        """Waits until the process ends, or ends it when its time is over."""

        timed_out = not self.is_over(self.began + self.limits.seconds - time.monotonic())
        if timed_out:
            self.kill(signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.kill(signal.SIGKILL)  # what it left running
        out, err = (stream.read_bytes().decode(errors="backslashreplace") for stream in self.streams)
        return Ended(
            status=status if status >= 0 else None,
            signal=-status if status < 0 else None,
            timed_out=timed_out,
            out=out,
            err=err,
            seconds=time.monotonic() - self.began,
        )

    def _live(self, work: Work, folder: Path, before: Callable[[], None] | None) -> None:
        """The life of the child: it never returns."""

        status, is_at_work = 1, False
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            _redirect(self.streams)
            _limit(self.limits)
            for number in (signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ANSWERED)
            if before is not None:
                before()
            is_at_work = True
            status = work()
        except KeyboardInterrupt:
            status = 1 if is_at_work else 130
            if is_at_work:
                traceback.print_exc()
        except SystemExit as leave:
            status = leave.code if isinstance(leave.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status & 0xFF)


def _redirect(streams: Sequence[Path]) -> None:
    for target, stream in zip((1, 2), streams, strict=True):
        handle = os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, target)
        os.close(handle)
    handle = os.open(os.devnull, os.O_RDONLY)
    os.dup2(handle, 0)
    os.close(handle)
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    sys.stdout = _stream(1)
    sys.stderr = _stream(2)


def _stream(number: int) -> Any:
    """A standard stream as a process without a terminal has it."""

    errors = "backslashreplace" if number == 2 else "strict"
    return io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(number, "w", closefd=False)), "utf-8", errors, line_buffering=number == 2
    )


def _limit(limits: Limits) -> None:
    page = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    seconds = int(limits.seconds) + 5
    for kind, value in (
        (resource.RLIMIT_AS, page + limits.memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, limits.file),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    # Before its time is over, it says where it stands.
    faulthandler.dump_traceback_later(max(1.0, limits.seconds - 1), file=2)


def _runs_in_group(group: int) -> bool:
    """Whether a process of a group runs; one that is only not waited for does not."""

    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, own = file.read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state not in "ZX":
                return True
    return False
