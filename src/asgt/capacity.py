"""Limits of this machine: an estimate of the memory or the time of an operation, before it starts.

Two rules, both in favour of the user:

- Memory is refused if a *lower bound* of a step's need is more than the free memory. The free memory is what the
  system reports as available, or the rest of a container's limit, if that is less. Other needs of a step (gradients,
  copies, workspaces of libraries) are not counted, so that a step that fits is never refused.
- Time is refused if the work would take more than 30 days even at an unreachable speed: an
  epoch with its checkpoint in 5 ms, a pass of one image in 0.1 µs.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .errors import InputError

__all__ = ["LONGEST", "PASS", "free_memory", "refuse_memory", "refuse_time", "size_text", "time_text"]

LONGEST = 30 * 24 * 3600.0
"""The largest accepted lower bound of a run time, in seconds."""

PASS = 1e-7
"""A lower bound in seconds for a forward or a backward pass of one image in a batch: a small network on a fast
accelerator takes more.
"""

_GROUP = Path("/sys/fs/cgroup")
_LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""The files with the limit and the use of a container's memory, for the second and the first version of control
groups.
"""


def free_memory() -> int:
    """The number of bytes that this process can still allocate: from the machine, its container, or its limit
    (``ulimit -v``).
    """

    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _LIMITS:
        with suppress(OSError, ValueError):  # another system, no limit ("max"), or one that we may not see
            left = (
                int((_GROUP / limit).read_text()) - int((_GROUP / used).read_text()) + _cached((_GROUP / used).parent)
            )
            free = min(free, max(left, 0))
    with suppress(ImportError, OSError, ValueError):  # Windows has no such limits
        import resource

        limit_of_all, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit_of_all != resource.RLIM_INFINITY:
            free = min(free, max(limit_of_all - int(psutil.Process().memory_info().vms), 0))
    return free


def _cached(group: Path) -> int:
    """Bytes of files that a container's memory holds and gives back when it is asked for more."""

    with suppress(OSError, ValueError):
        rows = dict(row.split(maxsplit=1) for row in (group / "memory.stat").read_text().splitlines())
        return int(rows.get("total_inactive_file", rows.get("inactive_file", 0)))
    return 0


def refuse_memory(needed: int, what: str, mend: str) -> None:
    """Refuses an operation that needs more memory than is free.

    Args:
        needed: bytes.
        what: the object that needs them, with its sizes: ``"10,000 images of 3 × 20000 × 20000"``.
        mend: the remedy.

    Raises:
        InputError: the message has the estimate, the free memory and the remedy.
    """

    if needed < 2**24:
        return  # not worth a look
    free = free_memory()
    if needed > free:
        raise InputError(f"{what} needs at least {size_text(needed)} of memory, but {size_text(free)} are free: {mend}")


def refuse_time(seconds: float, what: str, mend: str) -> None:
    """Refuses an operation of more than 30 days on the fastest machine.

    Args:
        seconds: a lower bound.
        what: the operation.
        mend: the remedy.


    Raises:
        InputError: the message has the estimate and the remedy.
    """

    if seconds > LONGEST:
        raise InputError(f"{what} takes at least {time_text(seconds)}: {mend}")


def size_text(size: float) -> str:
    """``512 MiB``, ``72.0 GiB``, ``1.5e+09 TiB``."""

    size = float(min(size, 10**300))
    for unit, one in (("TiB", 2**40), ("GiB", 2**30)):
        if size >= one:
            return f"{size / one:,.1f} {unit}" if size < 1e5 * one else f"{size / one:.2g} {unit}"
    return f"{size / 2**20:,.0f} MiB"


def time_text(seconds: float) -> str:
    """``5.6 hours``, ``41 days``, ``3,200 years``, ``2e+20 years``."""

    days = seconds / 86400
    years = days / 365.25
    if days < 2:
        return f"{seconds / 3600:,.1f} hours"
    return f"{days:,.0f} days" if years < 2 else f"{years:,.0f} years" if years < 1e6 else f"{years:.2g} years"
