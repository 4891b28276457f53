"""Shortcuts for children that draw and train much: figures that only say what is in them, processes that are forked.

Both replace parts of libraries in the process that calls them, and in nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import traceback
from typing import Any, ClassVar

__all__ = ["ForkedWorker", "draw_digests", "fork_asgt", "fork_workers"]


def draw_digests() -> None:
    """Figures hold the SHA-256 of what would be drawn: lines, images, areas and texts. Drawing them takes seconds."""

    import numpy as np
    from matplotlib.collections import Collection
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text
    from PIL import Image

    def savefig(self: Figure, target: Any, format: str = "png", **options: object) -> None:
        sha = hashlib.sha256()
        for artist in self.findobj():
            match artist:
                case Line2D():
                    sha.update(np.asarray(artist.get_xydata()).tobytes())
                case AxesImage():
                    sha.update(np.asarray(artist.get_array()).tobytes())
                case Collection():
                    for path in artist.get_paths():
                        sha.update(np.asarray(path.vertices).tobytes())
                case Text():
                    sha.update(artist.get_text().encode(errors="backslashreplace"))
                case Patch():
                    sha.update(np.asarray(artist.get_path().vertices).tobytes())
        if format == "png":  # one that can be read: its pixels are the digest
            picture = io.BytesIO()
            Image.frombytes("L", (8, 4), sha.digest()).save(picture, "png")
            content = picture.getvalue()
        else:
            frames = {"svg": '<svg width="1" height="1"><desc>{}</desc></svg>', "pdf": "%PDF {}"}
            content = frames.get(format, "{}").format(sha.hexdigest()).encode()
        if hasattr(target, "write"):
            target.write(content)
        else:
            with open(target, "wb") as file:
                file.write(content)

    Figure.savefig = savefig  # type: ignore[method-assign, assignment]


def fork_workers() -> None:
    """``asgt reproduce`` forks its worker instead of starting a process that imports everything again."""

    from asgt.experiments import local

    vars(local)["subprocess"] = _Subprocess


def fork_asgt() -> None:
    """``subprocess.call`` forks ``python -m asgt``; anything else it starts as ever.

    The child's end is a ``SystemExit`` through the caller's frames, as if the command line had been called there.
    """

    start = subprocess.call

    def call(words: Any, *arguments: Any, **options: Any) -> int:
        if list(words[:3]) != [sys.executable, "-m", "asgt"] or arguments or options:
            return start(words, *arguments, **options)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            from asgt.cli import process

            sys.argv = ["asgt", *words[3:]]
            process()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    subprocess.call = call


class ForkedWorker:
    """What :mod:`asgt.experiments.local` asks of ``subprocess.Popen``, of a forked worker."""

    _ours: ClassVar[list[io.TextIOWrapper]] = []
    """Our ends of the pipes: a worker that held another's would keep it waiting for a parent that is gone."""

    def __init__(self, words: object, **options: object) -> None:
        to_worker, to_us = os.pipe(), os.pipe()
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            for stream in self._ours:
                if not stream.closed:
                    os.close(stream.fileno())
            _work(to_worker, to_us)
        os.close(to_worker[0])
        os.close(to_us[1])
        self.stdin = io.TextIOWrapper(io.FileIO(to_worker[1], "w"), "utf-8", write_through=True)
        self.stdout = io.TextIOWrapper(io.FileIO(to_us[0]), "utf-8")
        self._ours += [self.stdin, self.stdout]

    def kill(self) -> None:
        """Kills it, unless it is gone."""

        if self.status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, once it has ended."""

        deadline = None if timeout is None else time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, 0 if deadline is None else os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            elif deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("worker", timeout or 0.0)
            else:
                time.sleep(0.01)
        return self.status


class _Subprocess:
    Popen = ForkedWorker
    PIPE = subprocess.PIPE
    TimeoutExpired = subprocess.TimeoutExpired


def _work(to_worker: tuple[int, int], to_us: tuple[int, int]) -> None:
    """The life of a worker: it never returns."""

    status = 1
    try:
        os.dup2(to_worker[0], 0)
        os.dup2(to_us[1], 1)
        for handle in (*to_worker, *to_us):
            os.close(handle)
        # An interrupt from the keyboard is its parent's to pass on, as to the real one in a session of its own.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8")
        from asgt.experiments.worker import main

        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
