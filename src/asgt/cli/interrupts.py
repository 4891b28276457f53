"""Ends the process on SIGINT and SIGTERM, even if a library swallows the ``KeyboardInterrupt``.

Python delivers a signal as an exception in the running code. A library may swallow it: a bare ``except`` around an
import, a ``__del__`` or another callback whose exceptions Python ignores. So a signal is remembered, and the exception
raised again a few times a second until it reaches the command line. It is not raised during the clean-up after the
first one, which ends workers and releases locks.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from types import FrameType
from typing import Any

__all__ = ["STOPPED", "Interruption", "interrupt", "note"]

STOPPED = 130
"""The exit status of a process that was interrupted."""

_Hook = Callable[["sys.UnraisableHookArgs"], Any]

_AGAIN = 0.2  # seconds until it is raised again
_PATIENCE = 10.0  # seconds that a clean-up may take


class Interruption:
    """The signals that have come since it listens.

    Attributes:
        came: whether any has, including one that a training handles by writing a checkpoint.
        raised: whether one was answered with a ``KeyboardInterrupt``.
    """

    _current: Interruption | None = None

    def __init__(self) -> None:
        self.came = False
        self.raised = False
        self._since = 0.0
        self._over = False

    def listen(self, undo: ExitStack) -> None:
        """Answers SIGINT and SIGTERM from here on; ``undo`` takes the calls that put back what was there before.

        A signal that the process was started to ignore, as in the background of a script, stays ignored.
        """

        undo.callback(setattr, Interruption, "_current", Interruption._current)
        Interruption._current = self
        with suppress(ValueError, AttributeError):  # no signals outside the main thread, and no SIGALRM on Windows
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    undo.callback(signal.signal, number, signal.signal(number, interrupt))
            undo.callback(signal.signal, signal.SIGALRM, signal.signal(signal.SIGALRM, self._again))
        undo.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = self._ignored(sys.unraisablehook)

    def interrupt(self) -> None:
        """Raises ``KeyboardInterrupt``, now and until it arrives.

        When the process is ending anyway, it ends at once.
        """

        first, self.came = not self.came, True
        if self._over:
            if first:
                with suppress(OSError):
                    os.write(2, b"asgt: interrupted\n")
                os._exit(STOPPED)
            return
        if not self.raised:
            self.raised, self._since = True, time.monotonic()
            with suppress(AttributeError):
                signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        elif self._is_cleaning_up():
            return
        raise KeyboardInterrupt

    def settle(self) -> None:
        """The work has ended, and nothing is raised any more."""

        self._over = True
        with suppress(ValueError, AttributeError):
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _again(self, number: int, frame: FrameType | None) -> None:
        if self.raised and not self._over and not self._is_cleaning_up():
            raise KeyboardInterrupt

    def _is_cleaning_up(self) -> bool:
        """Whether what runs is a ``finally``, an ``except`` or the end of a ``with`` that the exception has reached."""

        error, seen = sys.exception(), 0
        while error is not None and not isinstance(error, KeyboardInterrupt) and seen < 100:
            error, seen = error.__context__, seen + 1
        return isinstance(error, KeyboardInterrupt) and time.monotonic() - self._since < _PATIENCE

    def _ignored(self, before: _Hook) -> _Hook:
        """A hook for exceptions that nobody can catch: ours will be raised again, and needs no traceback."""

        def unraisable(ignored: sys.UnraisableHookArgs) -> None:
            if not (self.raised and issubclass(ignored.exc_type, KeyboardInterrupt)):
                before(ignored)

        return unraisable


def interrupt(number: int, frame: FrameType | None) -> None:
    """A signal handler that interrupts the running code."""

    if Interruption._current is None:
        raise KeyboardInterrupt
    Interruption._current.interrupt()


def note() -> None:
    """Remembers that a signal came which long work answers in its own time."""

    if Interruption._current is not None:
        Interruption._current.came = True
