"""One writer for a folder: two processes that write the same run would mix their files.

The lock itself is :class:`filelock.FileLock`: ``flock``, which the system releases when its holder ends for any
reason. Linux carries it over NFS to the server, so that it works between hosts. If a file system has no ``flock``,
filelock uses a marker file, which it takes over when its process has ended. A note next to the lock names its
holder, for the error of other processes and for the message of the next holder.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .errors import InputError
from .progress import SILENT, Progress

__all__ = ["LOCK", "InUseError", "holds_nothing", "locked"]


class InUseError(InputError):
    """Another process holds the lock of a folder.

    Attributes:
        holder: a text with what it does, its process number, its host, and the time since then.
    """

    def __init__(self, message: str, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


LOCK = ".lock"
"""The locked file in the folder; the note is next to it."""


@contextlib.contextmanager
def locked(
    folder: Path, doing: str, *, name: str = LOCK, wait: float = 0.0, progress: Progress = SILENT
) -> Iterator[None]:
    """Holds the lock of a folder; a missing folder is made, and removed again if it remains empty.

    Args:
        folder: the folder.
        doing: the operation of the holder, such as ``"asgt train"``, for errors.
        name: the locked file.
        wait: the time to wait for the lock in seconds.
        progress: receives a message if the lock of an ended process is taken over.

    Raises:
        InUseError: another process holds it.
        InputError: the folder cannot be written to.
    """

    folder = folder.absolute()  # the working directory may change meanwhile
    made = _make(folder)
    lock, note = FileLock(folder / name), folder / f"{name}.json"
    try:
        lock.acquire(timeout=wait, poll_interval=0.02)
    except Timeout as error:
        holder = _holder(note)
        raise InUseError(
            f"{folder} is in use by {holder}: wait until it ends, or use another folder (--out)", holder
        ) from error
    except OSError as error:
        _unmake(made)
        raise InputError(f"cannot write {folder / name}: {error.strerror or error}") from error
    try:
        if note.exists():
            progress.say(f"{folder}: took over the lock of {_holder(note)}, which no longer runs")
        with contextlib.suppress(OSError):  # the lock holds without it
            note.write_text(json.dumps(_this_process(doing)))
        yield
    finally:
        # Removed while the lock is held: a waiter finds out that the file it has locked is gone, and tries again.
        for file in (note, folder / name):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        lock.release()
        _unmake(made)


def holds_nothing(folder: Path) -> bool:
    """Whether a folder has only locks and incomplete files of killed processes."""

    ends = (".lock", ".lock.json", ".part")
    return not folder.exists() or all(
        file.name.startswith(".") and file.name.endswith(ends) for file in folder.iterdir()
    )


def _make(folder: Path) -> list[Path]:
    """Makes a folder; returns those that were not there before, the innermost first."""

    made = [each for each in (folder, *folder.parents) if not each.exists()]
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
    return made


def _unmake(made: list[Path]) -> None:
    """Removes those of the folders that are empty."""

    with contextlib.suppress(OSError):
        for folder in made:
            folder.rmdir()


def _this_process(doing: str) -> dict[str, str | int]:
    return {
        "doing": doing,
        "process": os.getpid(),
        "host": platform.node(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(note: Path) -> str:
    """Who holds a lock, or held it, in words."""

    try:
        said = json.loads(note.read_text())
        return f"{said['doing']} (process {said['process']} on {said['host']}, since {said['since']})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another process of asgt"
