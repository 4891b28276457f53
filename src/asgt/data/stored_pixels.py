"""Pixels in a file of the decoding cache: memory-mapped, gathered batch by batch, checked at the first use.

A file's pages belong to the system, which drops them when it needs memory; so a set of any size needs only the
memory of a few batches. While a batch is in use, one thread gathers the next one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import DamagedFileError
from .lazy_pixels import LazyPixels, is_row

__all__ = ["PixelFile", "StoredPixels", "checksum"]

_Rows: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def checksum(pixels: np.ndarray[Any, Any]) -> int:
    """The CRC-32 of an image's bytes, (C, H, W) in one block of memory."""

    return zlib.crc32(pixels.data)


@dataclass(frozen=True)
class PixelFile:
    """The decoded images of a file, in their own precision.

    Attributes:
        name: of the file, for errors.
        pixels: uint8 or float32 (N, C, H, W), mapped from the file.
        checksums: the CRC-32 of each image as it was written, uint32 (N,).
        counts: the number of occurrences of each of the 256 values, by channel, int64 (C, 256); ``None`` for floats.
        discard: removes a damaged file from the cache; whether it is gone.
    """

    name: str
    pixels: np.ndarray[Any, Any]
    checksums: np.ndarray[Any, np.dtype[np.uint32]]
    counts: np.ndarray[Any, np.dtype[np.int64]] | None
    discard: Callable[[], bool]
    _checked: np.ndarray[Any, np.dtype[np.bool_]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_checked", np.zeros(len(self.pixels), dtype=bool))

    def gather(self, rows: _Rows, out: np.ndarray[Any, Any]) -> None:
        """Copies some images into an array of their shape and type; each is checked the first time.

        Raises:
            DamagedFileError: an image differs from what was written.
        """

        np.take(self.pixels, rows, axis=0, out=out, mode="clip")
        for place in np.flatnonzero(~self._checked[rows]):
            row = int(rows[place])
            if checksum(out[place]) != self.checksums[row]:
                remedy = (
                    "it was removed from the cache: run the command again to decode the images again"
                    if self.discard()
                    else "it could not be removed from the cache: remove this folder, or add --no-cache"
                )
                raise DamagedFileError(f"{self.name} is damaged at image {row}: {remedy}")
            self._checked[row] = True


class StoredPixels(LazyPixels):
    """Pixels of a file that are read when they are indexed.

    Args:
        file: the decoded images.
        rows: the rows of the file, int64 (N,). Default: all.
        channels: 3 converts grey images to colour. Default: unchanged.
        floats: whether 8-bit images become floats in [0, 1].
        device: the device of the tensors.
    """

    def __init__(
        self,
        file: PixelFile,
        rows: Tensor | None = None,
        *,
        channels: int | None = None,
        floats: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._file = file
        self._rows: _Rows = np.arange(len(file.pixels)) if rows is None else rows.cpu().numpy()
        self._channels = channels or file.pixels.shape[1]
        self._floats = floats or file.pixels.dtype == np.float32
        self.device = torch.device(device)
        self._ahead: tuple[_Rows, Future[Tensor]] | None = None

    # As a tensor says it ----------------------------------------------------------------------------------------------

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""

        return torch.Size((len(self._rows), self._channels, *self._file.pixels.shape[2:]))

    @property
    def dtype(self) -> torch.dtype:
        """``torch.uint8``, or ``torch.float32`` where the images have more than 8 bits."""

        return torch.float32 if self._floats else torch.uint8

    # What is read -----------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Tensor:
        """Some images as a tensor on :attr:`device`: those of a tensor of rows or of truths, a slice, or one row."""

        if is_row(index):
            return self._ready(self._rows[[int(index)]])[0]
        return self._ready(self._selected(index))

    def view(self, index: Any) -> StoredPixels:
        """A part of the images, without reading it."""

        return self._like(self._selected(index), self.device)

    def to(self, device: torch.device | str) -> StoredPixels:
        """The same images, whose tensors go to another device."""

        return self._like(self._rows, torch.device(device))

    def settled(self, room: int) -> Tensor | StoredPixels:
        return self.tensor() if self.nbytes <= room else self

    @property
    def index_device(self) -> torch.device:
        return torch.device("cpu")

    def expect(self, index: Any) -> None:
        """Begins to gather some images in another thread: they are likely to be indexed next."""

        rows = self._selected(index)
        self._ahead = rows, _reader().submit(self._gathered, rows)

    def _chunk(self, rows: slice) -> Tensor:
        return self._widened(self._gathered(self._rows[rows]))

    def counts(self) -> Tensor:
        """How often each of the 256 values of 8-bit images occurs, by channel, int64 (C, 256)."""

        known = self._file.counts
        is_whole = len(self._rows) == len(self._file.pixels) and bool((self._rows == np.arange(len(self._rows))).all())
        if known is not None and is_whole:
            return torch.from_numpy(known).expand(self._channels, 256)
        return super().counts()

    def _like(self, rows: _Rows, device: torch.device) -> StoredPixels:
        return StoredPixels(
            self._file, torch.from_numpy(rows), channels=self._channels, floats=self._floats, device=device
        )

    def _selected(self, index: Any) -> _Rows:
        if isinstance(index, Tensor):
            index = index.cpu().numpy()
        selected: _Rows = self._rows[index]
        return selected

    def _ready(self, rows: _Rows) -> Tensor:
        """Some images of the file as they are asked for, those that were expected without a wait."""

        ahead, self._ahead = self._ahead, None
        gathered = ahead[1].result() if ahead is not None and np.array_equal(ahead[0], rows) else self._gathered(rows)
        return self._widened(gathered.to(self.device, non_blocking=True))

    def _gathered(self, rows: _Rows) -> Tensor:
        # Only from pinned memory does a copy to the device go on beside the computation.
        kind = torch.uint8 if self._file.pixels.dtype == np.uint8 else torch.float32
        out = torch.empty((len(rows), *self._file.pixels.shape[1:]), dtype=kind, pin_memory=self.device.type == "cuda")
        self._file.gather(rows, out.numpy())
        return out

    def _widened(self, pixels: Tensor) -> Tensor:
        if self._floats and not pixels.is_floating_point():
            pixels = pixels.float() / 255
        return pixels if pixels.shape[1] == self._channels else pixels.expand(-1, self._channels, -1, -1).contiguous()


_readers: list[ThreadPoolExecutor] = []


def _reader() -> ThreadPoolExecutor:
    """The thread that gathers what is expected; one, as the next batch is all that is worth it."""

    if not _readers:
        _readers.append(ThreadPoolExecutor(1, thread_name_prefix="asgt-batches"))
    return _readers[0]
