"""The interface for the progress of long work.

Nothing below the command line prints. A trainer or an evaluation gets a :class:`Progress`; the silent one here is
the default, and the command line has one that draws bars.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Progress"]


class Progress(Protocol):
    """The reports of long work. Every method returns at once and never raises."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """Starts a task of ``total`` equal parts, ``done`` of which an earlier call has finished."""

    def advance(self, parts: int = 1, **values: float) -> None:
        """Advances by some parts; ``values`` are numbers to show next to the bar."""

    def say(self, message: str) -> None:
        """A line of information: the end of an epoch, a resumed run."""

    def warn(self, message: str) -> None:
        """A warning for the user."""

    def stop(self) -> None:
        """Ends the task."""


class _Silent:
    def start(self, title: str, total: int, done: int = 0) -> None: ...
    def advance(self, parts: int = 1, **values: float) -> None: ...
    def say(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def stop(self) -> None: ...


SILENT: Progress = _Silent()
