"""The cache of decoded images: one folder per entry, named by a hash of the encoded images and the decoding options.

::

    <key>/pixels.bin             the images, (N, C, H, W), one after the other
    <key>/images.safetensors     the CRC-32 of each image, and how often each value occurs
    seen/<standing>              the key of images, by the metadata of their files
    <key>/entry.json             type and shape, and notes of the decoding; sealed by its SHA-256

An entry is built in a neighbouring folder, under a lock, and renamed when it is complete. So an interrupted process
creates no incomplete entry, and of several processes one decodes while the others wait. An entry contains no code.

The cache is in ``$ASGT_CACHE``, or in ``asgt`` in the user's cache folder. An empty value disables it. When an
entry is added, the least recently used ones are removed until all take at most half of their size plus the free disk
space, or ``$ASGT_CACHE_SIZE``, such as ``20GB``. An entry stays while another split of the same data is added. A
process can continue to read a removed entry.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ..capacity import size_text
from ..errors import DamagedFileError, InputError
from ..files import read_sealed, read_tensors, write_bytes, write_sealed, write_tensors
from ..locks import InUseError, locked
from ..progress import Progress
from .stored_pixels import PixelFile

__all__ = ["Entry", "PixelCache", "cache_folder"]

_PIXELS, _IMAGES, _ENTRY = "pixels.bin", "images.safetensors", "entry.json"
_SEEN = "seen"
_KINDS = ("uint8", "float32")
_QUIET = 1.0
"""The time in seconds that it waits without a message."""
_WAIT = 7 * 24 * 3600.0
"""The time in seconds that a process waits for another one that decodes the same images."""
_ABANDONED = 24 * 3600.0
"""The time in seconds without writes after which an incomplete entry is removed."""
_writing = threading.Lock()
"""Held where writing to a place takes two calls."""
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def cache_folder() -> Path | None:
    """The folder of the cache; ``None`` if the environment disables it."""

    place = os.environ.get("ASGT_CACHE")
    if place is not None:
        try:
            return Path(place).expanduser() if place.strip() else None
        except RuntimeError as error:
            raise InputError(f"ASGT_CACHE={place}: {error}: give a folder that exists or can be made") from error
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "asgt"


@dataclass
class Entry:
    """An entry that is being built.

    Attributes:
        pixels: the images, (N, C, H, W), mapped to the file, for reading.
        checksums: their CRC-32, uint32 (N,).
        counts: the number of occurrences of each value, int64 (C, 256); ``None`` for floats.
    """

    folder: Path
    pixels: np.ndarray[Any, Any]
    checksums: np.ndarray[Any, np.dtype[np.uint32]]
    counts: np.ndarray[Any, np.dtype[np.int64]] | None

    def __post_init__(self) -> None:
        # Open until nobody writes: a thread may still hold an entry that was removed, for a wider one of its name.
        self._file = os.open(self.folder / _PIXELS, os.O_RDWR | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._file)

    def write(self, first: int, images: np.ndarray[Any, Any]) -> None:
        """Writes images (n, C, H, W) from place ``first`` on; threads may call it for different places.

        Through the mapping, the system would first read or clear each page that is about to be overwritten.

        Raises:
            OSError: the disk is full.
        """

        rest, at = images.reshape(-1).view(np.uint8), first * images[0].nbytes
        while len(rest):
            written = _write_at(self._file, rest.data, at)
            rest, at = rest[written:], at + written


class PixelCache:
    """The entries of a folder, for the splits of one data set.

    Args:
        folder: of the cache.
        name: of the data, for messages.
        progress: receives messages on waiting and on damaged entries.
    """

    def __init__(self, folder: Path, name: str, progress: Progress) -> None:
        self.folder = folder
        self.name = name
        self.progress = progress
        self._read_here: set[str] = set()

    def find(self, key: str) -> tuple[PixelFile, dict[str, Any]] | None:
        """An entry and the notes of its decoding; ``None`` if there is none. A damaged one is removed."""

        place = self.folder / key
        if not (place / _ENTRY).exists():
            return None
        try:
            found = self._read(place)
        except (InputError, OSError, LookupError, TypeError, ValueError) as error:
            self.progress.warn(f"{place} is damaged ({error}): the images are decoded again")
            self._remove(place)
            return None
        with contextlib.suppress(OSError):  # a cache that others own is read all the same
            os.utime(place)
        return found

    @contextlib.contextmanager
    def alone(self, key: str) -> Iterator[None]:
        """Lets one process at a time build an entry.

        Raises:
            OSError: the cache cannot be written to.
        """

        with contextlib.ExitStack() as stack:
            name, doing = f".{key}.lock", f"decoding the images of {self.name}"
            try:
                try:
                    stack.enter_context(locked(self.folder, doing, name=name, wait=_QUIET))
                except InUseError as error:
                    self.progress.say(f"waiting for another process, which is {error.holder}")
                    stack.enter_context(locked(self.folder, doing, name=name, wait=_WAIT))
            except InputError as error:
                raise OSError(str(error)) from error
            yield

    def room(self) -> int:
        """The largest size of an entry in bytes; 0 if the cache cannot be written to."""

        place = self.folder
        while not place.exists() and place != place.parent:
            place = place.parent
        if not os.access(place, os.W_OK):
            return 0
        sizes = {place.name: size for place, _, size in self._entries()}
        read = sum(size for name, size in sizes.items() if name in self._read_here)
        return max(0, _limit(sum(sizes.values()), shutil.disk_usage(place).free) - read)

    def build(self, key: str, shape: tuple[int, int, int, int], kind: str) -> Entry:
        """Reserves the space for an entry.

        Raises:
            OSError: the disk is full or forbidden.
        """

        folder = self._part(key)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        self._make_room(size)
        with open(folder / _PIXELS, "wb") as file:
            _reserve(file, size)
        pixels = np.memmap(folder / _PIXELS, dtype=kind, mode="r", shape=shape)
        counts = np.zeros((shape[1], 256), dtype=np.int64) if kind == "uint8" else None
        return Entry(folder, pixels, np.zeros(shape[0], dtype=np.uint32), counts)

    def finish(self, key: str, entry: Entry, said: Mapping[str, Any]) -> None:
        """Moves an entry into its place.

        Raises:
            OSError: the disk is full.
        """

        # Not waited for until it is on the disk: what a crash of the machine loses, the CRC-32 of an image tells.
        pixels = entry.pixels
        tensors = {"checksums": torch.from_numpy(entry.checksums.astype(np.int64))}
        if entry.counts is not None:
            tensors["counts"] = torch.from_numpy(entry.counts)
        told = {"name": self.name, "kind": str(pixels.dtype), "shape": list(pixels.shape), "said": dict(said)}
        try:
            write_tensors(entry.folder / _IMAGES, tensors)
            write_sealed(entry.folder / _ENTRY, told)
        except InputError as error:
            raise OSError(str(error)) from error
        place = self.folder / key
        shutil.rmtree(place, ignore_errors=True)
        os.replace(entry.folder, place)

    def abandon(self, key: str) -> None:
        """Removes an incomplete entry."""

        shutil.rmtree(self._part(key), ignore_errors=True)

    def seen(self, standing: str) -> str | None:
        """The key of images whose files are unchanged; ``None`` if unknown."""

        try:
            key = (self.folder / _SEEN / standing).read_text()
        except (OSError, ValueError):
            return None
        return key if re.fullmatch("[0-9a-f]{64}", key) else None

    def note_seen(self, standing: str, key: str) -> None:
        """Stores the key of images with the state of their files."""

        with contextlib.suppress(InputError):  # the key can be found again
            write_bytes(self.folder / _SEEN / standing, key.encode())

    def _part(self, key: str) -> Path:
        return self.folder / f"{key}.part"

    def _read(self, place: Path) -> tuple[PixelFile, dict[str, Any]]:
        told, is_sealed = read_sealed(place / _ENTRY)
        if not is_sealed:
            raise DamagedFileError(f"{_ENTRY} has no digest")
        shape, kind = tuple(told["shape"]), told["kind"]
        tensors, _ = read_tensors(place / _IMAGES)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        there = (place / _PIXELS).stat().st_size
        if kind not in _KINDS or len(shape) != 4 or there != size or len(tensors["checksums"]) != shape[0]:
            raise DamagedFileError(f"{_PIXELS} has {there:,} bytes, not {size:,}")
        counts = tensors.get("counts")
        self._read_here.add(place.name)
        file = PixelFile(
            name=str(place),
            pixels=np.memmap(place / _PIXELS, dtype=kind, mode="r", shape=shape),
            checksums=tensors["checksums"].numpy().astype(np.uint32),
            counts=None if counts is None else counts.numpy(),
            discard=lambda: self._remove(place),
        )
        return file, dict(told["said"])

    def _remove(self, place: Path) -> bool:
        """Removes an entry; whether it is gone."""

        # Renamed first: no other process finds half an entry.
        gone = place.with_name(f"{place.name}.{os.getpid()}.part")
        with contextlib.suppress(OSError):
            os.replace(place, gone)
            shutil.rmtree(gone, ignore_errors=True)
        return not place.exists()

    def _make_room(self, size: int) -> None:
        """Removes entries by the rule of this module, until one more of a size fits.

        Raises:
            OSError: it is larger than all that there may be.
        """

        entries = sorted(self._entries(), key=lambda each: each[1])
        used, free = sum(each[2] for each in entries), shutil.disk_usage(self.folder).free
        # The other split of the same data is needed again by the next command.
        others = [each for each in entries if each[0].name not in self._read_here]
        most, spare = _limit(used, free), sum(each[2] for each in others)
        taken = used - spare
        if size > most - taken:
            beside = f", of which {size_text(taken)} are in use" if taken else ""
            raise OSError(
                f"these images take {size_text(size)} when decoded, but the limit of the cache is "
                f"{size_text(most)}{beside}"
            )
        if size > free + spare:
            raise OSError(
                f"these images take {size_text(size)} when decoded, but the disk of the cache has {size_text(free)}"
            )
        for place, _, own in others:
            if used + size <= most and size <= free:
                break
            self._remove(place)
            used, free = used - own, free + own
        for note in (self.folder / _SEEN).glob("*"):
            with contextlib.suppress(OSError, ValueError):
                is_old = time.time() - note.stat().st_mtime > _ABANDONED
                if is_old and not (self.folder / note.read_text()).exists():
                    note.unlink()

    def _entries(self) -> Iterator[tuple[Path, float, int]]:
        """The whole entries: where, when they were used last, and their bytes. What a kill left is removed."""

        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            with contextlib.suppress(OSError):  # another process removes entries too
                if place.name.endswith(".part"):
                    last = max(each.stat().st_mtime for each in (place, *place.iterdir()))
                    if time.time() - last > _ABANDONED:
                        shutil.rmtree(place, ignore_errors=True)
                elif (place / _ENTRY).exists():
                    size = sum(each.stat().st_size for each in place.iterdir())
                    yield place, place.stat().st_mtime, size


def _write_at(file: int, what: memoryview, at: int) -> int:
    """Writes to a place of a file; how many bytes it took."""

    if hasattr(os, "pwrite"):  # Windows has none
        return os.pwrite(file, what, at)
    with _writing:
        os.lseek(file, at, os.SEEK_SET)
        return os.write(file, what)


def _reserve(file: BinaryIO, size: int) -> None:
    """Gives a new file its size and its room on the disk.

    Memory that is mapped to a file without room on the disk ends a process when it is written to.
    """

    if hasattr(os, "posix_fallocate"):  # macOS and Windows have none
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(2**22)
    for start in range(0, size, len(zeros)):
        file.write(zeros[: size - start])
    file.flush()
    os.fsync(file.fileno())


def _limit(used: int, free: int) -> int:
    """The most bytes of all entries: ``$ASGT_CACHE_SIZE``, or half of what they have and the disk has left."""

    text = os.environ.get("ASGT_CACHE_SIZE", "").strip()
    if not text:
        return (used + free) // 2
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", text, re.IGNORECASE)
    if match is None:
        raise InputError(f"ASGT_CACHE_SIZE={text}: give a size, such as 20GB")
    return int(float(match[1]) * _UNITS[match[2].upper()])
