r"""CPU settings: the process retains memory between steps, and has at most one thread per core.

glibc hands a large block back to the system as soon as it is freed, and the kernel clears every page of the next one:
an activation of ResNet-18 at batch 64 is 16 MB, thousands of pages. With higher thresholds, the process retains the
block for the next step.
"""

from __future__ import annotations

import ctypes
import os

__all__ = ["keeps_memory", "prepare"]

# From malloc.h, which Python has no names for.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_HIGHEST = 32 << 20  # what an older glibc takes for a threshold of mmap
_PAD = 64 << 20

_kept: list[bool] = []


def prepare() -> None:
    """Prepares this process for tensors, once; it should be called before the first one.

    Memory is retained only on Linux with glibc. The number of threads is PyTorch's own, but at most that of
    the physical cores that this process may use, which in a container are fewer than the machine has;
    ``OMP_NUM_THREADS`` and ``MKL_NUM_THREADS`` decide where they are set.
    """

    if not _kept:
        _kept.append(_keep_memory())

    if not {"OMP_NUM_THREADS", "MKL_NUM_THREADS"} & os.environ.keys():
        import joblib
        import torch

        torch.set_num_threads(min(torch.get_num_threads(), int(joblib.cpu_count(only_physical_cores=True))))


def keeps_memory() -> bool:
    """Whether this process retains freed memory."""

    return _kept == [True]


def _keep_memory() -> bool:
    try:
        if not (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return False
    except (AttributeError, ValueError, OSError):  # another system, or another C library
        return False

    mallopt = ctypes.CDLL(None).mallopt
    mmap = mallopt(_M_MMAP_THRESHOLD, _NEVER) or mallopt(_M_MMAP_THRESHOLD, _HIGHEST)
    return bool(mmap and mallopt(_M_TRIM_THRESHOLD, _NEVER) and mallopt(_M_TOP_PAD, _PAD))
