"""SIGINT and SIGTERM as a function that long work polls, so that it can save its state first."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ..launch import launched
from .interrupts import interrupt, note

__all__ = ["stopping"]


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Returns a function that says whether to stop; a second signal interrupts at once.

    Under a launcher it does: that passes on what Slurm, or a terminal, has sent to every process already.
    """

    received: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if received and launched() == 1:
            interrupt(number, frame)
        received.append(number)
        note()

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
