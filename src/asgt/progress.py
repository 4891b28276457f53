"""The one small interface through which long work says how far it is.

Nothing below the command line prints. A trainer or an evaluation is handed a :class:`Progress`; the silent one here is
the default, and the command line brings one that draws bars.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Progress"]


class Progress(Protocol):
    """What long work may report. Every method returns at once and never fails the work."""

    def start(self, title: str, total: int, done: int = 0) -> None:
        """A task of ``total`` equal parts begins, ``done`` of which were done by an earlier call."""

    def advance(self, parts: int = 1, **values: float) -> None:
        """Some parts are done; ``values`` are figures to show beside the bar."""

    def say(self, message: str) -> None:
        """A line worth keeping: the end of an epoch, a resumed run."""

    def warn(self, message: str) -> None:
        """A line that the user must not miss."""

    def stop(self) -> None:
        """The task is over."""


class _Silent:
    def start(self, title: str, total: int, done: int = 0) -> None: ...
    def advance(self, parts: int = 1, **values: float) -> None: ...
    def say(self, message: str) -> None: ...
    def warn(self, message: str) -> None: ...
    def stop(self) -> None: ...


SILENT: Progress = _Silent()
