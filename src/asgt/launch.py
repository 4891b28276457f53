"""The rank of this process, from the environment of a launcher such as ``accelerate launch`` or ``torchrun``."""

from __future__ import annotations

import os
import re

from .errors import InputError, shown

__all__ = ["check_rendezvous", "launched", "rank"]

_TOLD = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_MOST = 100_000
"""The largest number of processes; no machine has so many devices."""


def launched() -> int:
    """The number of processes that a launcher started; 1 without a launcher.

    Raises:
        InputError: ``WORLD_SIZE``, ``RANK``, ``LOCAL_RANK`` or ``LOCAL_WORLD_SIZE`` is not a whole number, or is
            out of range.
    """

    told = {name: _told(name) for name in _TOLD}
    size = told["WORLD_SIZE"]
    if size is None:
        return 1
    if not 1 <= size <= _MOST:
        raise InputError(
            f"WORLD_SIZE={size}: from 1 to {_MOST:,} processes are possible: correct it, unset it, or use torchrun"
        )
    for name in ("RANK", "LOCAL_RANK"):
        if size > 1 and (each := told[name]) is not None and each >= size:
            raise InputError(f"{name}={each} of WORLD_SIZE={size}: give a number from 0 to {size - 1}, or use torchrun")
    return size


def rank() -> int:
    """The number of this process among them; 0 is the main one, which writes files and messages."""

    return (_told("RANK") or 0) if launched() > 1 else 0


def check_rendezvous() -> None:
    """Refuses an environment in which the processes would wait for each other without end.

    Raises:
        InputError: ``RANK``, ``MASTER_ADDR`` or ``MASTER_PORT`` is missing or invalid.
    """

    size = launched()
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name, "").strip():
            raise InputError(
                f"WORLD_SIZE says {size} processes, but {name} is not set, so they cannot connect: start them with "
                "torchrun or accelerate launch"
            )
    port = _told("MASTER_PORT") or 0
    if not 1 <= port <= 65535:
        raise InputError(f"MASTER_PORT={port}: give a port from 1 to 65535")
    import socket

    address = os.environ["MASTER_ADDR"]
    try:
        socket.getaddrinfo(address, port)
    except (OSError, UnicodeError) as error:
        raise InputError(f"MASTER_ADDR={shown(address)}: no host has this name ({error}): correct it") from error


def _told(name: str) -> int | None:
    """The whole number in a variable of the environment; ``None`` where it is not set, or empty."""

    text = os.environ.get(name)
    if text is None or not text.strip():
        return None
    if not re.fullmatch(r"[0-9]{1,18}", text.strip(), re.ASCII):
        raise InputError(f"{name}={shown(text)}: give a whole number, or unset it for one process")
    return int(text)
