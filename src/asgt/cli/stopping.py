"""SIGINT and SIGTERM as a question that long work asks, so that it can save what it has first."""

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
    """Gives a function that tells whether to stop; the second signal does not wait for it to be asked.

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
