"""Which of several processes this one is, by what a launcher such as ``accelerate launch`` or ``torchrun`` tells it."""

from __future__ import annotations

import os

__all__ = ["launched", "rank"]


def launched() -> int:
    """How many processes were started together to do one thing; 1 without a launcher."""

    return max(1, _told("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process among them; 0 is the main one, which writes and speaks."""

    return _told("RANK", 0) if launched() > 1 else 0


def _told(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else default
