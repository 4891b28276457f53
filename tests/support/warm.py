"""Processes of ``asgt`` that are forked from one which has imported everything, for tests that start many of them.

A new interpreter takes seconds of imports, most of them PyTorch's. The process here imports once, and each request for
a process is a fork of it: with an interpreter's streams, signals, environment and end. A fork of the tests' own process
would take the threads of other tests for its own. How an interpreter starts, and what it imports first, is not tested
this way: the fixture ``process`` starts real ones.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from support import forked
from support.command import Answer, plain_environment
from support.paths import ROOT
from support.shortcuts import draw_digests, fork_asgt, fork_workers

__all__ = ["Running", "Warm", "warmed"]

Kind = Literal["asgt", "script", "worker"]
_SIZE = 1 << 18  # bytes of a request: words and an environment


class Running:
    """A forked process, as :class:`subprocess.Popen` would show it.

    Attributes:
        pid: of the process, which leads a session of its own.
        stdin: a pipe to it, where one was asked for.
        stdout: a pipe from it, likewise.
        returncode: its exit status, minus the number of the signal that ended it; ``None`` while it runs.
    """

    def __init__(self, told: int, files: Sequence[Path], stdin: IO[str] | None, stdout: IO[str] | None) -> None:
        self._told, self._files = told, files
        self.stdin, self.stdout = stdin, stdout
        self.returncode: int | None = None
        self._rest = b""
        self.pid = int(self._line(None) or "0")

    def poll(self) -> int | None:
        """Its exit status, if it has ended."""

        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended."""

        if self.returncode is None:
            line = self._line(timeout)
            if line is None:
                raise subprocess.TimeoutExpired("asgt", timeout or 0)
            self.returncode = int(line)
            os.close(self._told)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote on its standard streams, once it has ended."""

        self.wait(timeout)
        out, err = (file.read_text(encoding="utf-8") for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        """Sends a signal to the process, unless it has ended."""

        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process, unless it has ended."""

        self.send_signal(signal.SIGKILL)

    def _line(self, timeout: float | None) -> str | None:
        """The next thing that is told of the process; ``None`` if nothing is in so many seconds."""

        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._rest:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._told], [], [], left)[0]:
                return None
            part = os.read(self._told, 100)
            if not part:
                raise RuntimeError("the process that forks has ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


@dataclass
class Warm:
    """The process that forks.

    Attributes:
        channel: to it.
        place: a folder for what processes write on their standard streams.
    """

    channel: socket.socket
    place: Path
    made: int = 0

    def start(
        self,
        *words: object,
        cwd: Path,
        kind: Kind = "asgt",
        environment: Mapping[str, str] | None = None,
        largest_file: int | None = None,
        figures: bool = False,
    ) -> Running:
        """Starts a process.

        Args:
            words: the command line after ``asgt``, or a Python file and its words.
            cwd: the folder in which it stands.
            kind: ``"asgt"``; ``"script"``, whose own ``python -m asgt`` are forks too; ``"worker"`` of a grid, which
                has pipes for its input and output.
            environment: beside that of the tests, which is without ``ASGT_DATA``.
            largest_file: the bytes of the largest file that it may write. Default: any.
            figures: whether figures are drawn. Default: they only say what is in them, as in the tests themselves.
        """

        self.made += 1
        files = [self.place / f"{self.made}.{name}" for name in ("out", "err")]
        pipes: list[IO[str] | None] = [None, None]
        if kind == "worker":
            (reader, to_it), (from_it, writer) = os.pipe(), os.pipe()
            pipes = [os.fdopen(to_it, "w", encoding="utf-8"), os.fdopen(from_it, encoding="utf-8")]
            handles = [reader, writer, os.dup(2)]
        else:
            handles = [os.open(os.devnull, os.O_RDONLY), *(os.open(file, os.O_WRONLY | os.O_CREAT) for file in files)]
        told, teller = os.pipe()
        request = {
            "kind": kind,
            "words": [str(word) for word in words],
            "cwd": str(cwd),
            "environment": plain_environment() | dict(environment or {}),
            "largest_file": largest_file,
            "figures": figures,
        }
        socket.send_fds(self.channel, [json.dumps(request).encode()], [*handles, teller])
        for handle in (*handles, teller):
            os.close(handle)
        return Running(told, files, *pipes)

    def answer(self, *words: object, timeout: float = 600, **how: Any) -> Answer:
        """What a process answers, once it has ended; it and what it started are killed after ``timeout`` seconds."""

        child = self.start(*words, **how)
        try:
            out, err = child.communicate(timeout)
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
        return Answer(child.wait(), out, err)


@contextlib.contextmanager
def warmed(place: Path) -> Iterator[Warm]:
    """The process that forks, until the end of the block."""

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _SIZE)
    paths = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    server = subprocess.Popen(
        [sys.executable, "-P", "-m", "support.warm", str(theirs.fileno())],
        env=os.environ | {"PYTHONPATH": paths},
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    with server, ours:
        yield Warm(ours, place)
        ours.close()  # it ends with its channel


# The process that forks -----------------------------------------------------------------------------------------------


def _serve(channel: socket.socket) -> None:
    """Forks for every request, until nobody is left to make one."""

    forked.prepare()
    sys.path.remove(str(ROOT / "tests"))
    while True:
        message, handles, _, _ = socket.recv_fds(channel, _SIZE, 4)
        if not message:
            return
        waiter = os.fork()
        if waiter == 0:
            channel.close()
            _wait_for_child(json.loads(message), handles)
            return  # this is the child
        for handle in handles:
            os.close(handle)
        # The processor time of those that have ended counts.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _wait_for_child(request: dict[str, Any], handles: list[int]) -> None:
    """Forks the process that was asked for, and tells its number and its end; returns in that process alone."""

    *streams, teller = handles
    pid = os.fork()
    if pid == 0:
        os.close(teller)
        _become(request, streams)
        return
    for handle in streams:
        os.close(handle)
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(teller, f"{pid}\n".encode())
        os.write(teller, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """Makes this process the one that was asked for, and runs what it was asked for; an exception is its end."""

    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # The hub's address and the like: read from the environment as it is imported.
    importlib.reload(sys.modules["huggingface_hub.constants"])
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), "utf-8", errors, line_buffering=True)
        for number, errors in ((1, "strict"), (2, "backslashreplace"))
    )
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if request["largest_file"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["largest_file"],) * 2)
    fork_workers()
    if not request["figures"]:
        draw_digests()
    kind, words = request["kind"], request["words"]
    if kind == "worker":
        from asgt.experiments.worker import main

        main()
    elif kind == "asgt":
        from asgt.cli import process

        sys.argv = ["asgt", *words]
        process()
    else:
        import runpy

        fork_asgt()
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
