"""Pixels that are computed when they are indexed, instead of a tensor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, overload

import torch
from torch import Tensor

__all__ = ["LazyPixels", "in_memory", "is_row", "to_unit", "value_counts"]

_CHUNK = 2**24
"""The number of bytes that a pass over all pixels holds at a time."""


def is_row(index: Any) -> bool:
    """Whether an index is the number of one image: an ``int``, also numpy's, or a tensor of no dimension."""

    return isinstance(index, Integral) or (
        isinstance(index, Tensor) and index.ndim == 0 and index.dtype != torch.bool and not index.is_floating_point()
    )


class LazyPixels(ABC):
    """Pixels (N, C, H, W) that are computed when they are indexed.

    ``pixels[rows]`` is a tensor of these images; :meth:`view` selects a part without computing it. PyTorch's
    functions use all of it as one tensor.
    """

    device: torch.device

    # As a tensor says it ----------------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def shape(self) -> torch.Size:
        """(N, C, H, W)."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """``torch.uint8``, or ``torch.float32`` where the images have more than 8 bits."""

    @property
    def ndim(self) -> int:
        return 4

    def __len__(self) -> int:
        return self.shape[0]

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    @property
    def nbytes(self) -> int:
        """The size of all of them as a tensor in bytes."""

        return self.shape.numel() * self.dtype.itemsize

    @classmethod
    def __torch_function__(
        cls,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return function(*_all_in_memory(args), **_all_in_memory(kwargs or {}))

    # What is made -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def __getitem__(self, index: Any) -> Tensor:
        """Some images as a tensor on :attr:`device`: those of a tensor of rows or of truths, a slice, or one row."""

    @abstractmethod
    def view(self, index: Any) -> LazyPixels:
        """A part of the images, without computing it."""

    @abstractmethod
    def to(self, device: torch.device | str) -> LazyPixels:
        """The same images, whose tensors go to another device."""

    @abstractmethod
    def settled(self, room: int) -> Tensor | LazyPixels:
        """The same images, held in memory if they take at most so many bytes."""

    @property
    @abstractmethod
    def index_device(self) -> torch.device:
        """The device that indices must be on."""

    @abstractmethod
    def expect(self, index: Any) -> None:
        """Announces that some images are likely to be indexed next."""

    @abstractmethod
    def _chunk(self, rows: slice) -> Tensor:
        """Some images as a tensor on the CPU, for a pass over all of them."""

    def chunks(self) -> Iterator[Tensor]:
        """All images in their order, as tensors on the CPU of some megabytes each."""

        size = max(1, _CHUNK // max(1, self.nbytes // max(1, len(self))))
        for first in range(0, len(self), size):
            yield self._chunk(slice(first, first + size))

    def tensor(self) -> Tensor:
        """All images as one tensor on :attr:`device`."""

        return self[:]

    def float(self) -> Tensor:
        """All images as one tensor of floats, in their range."""

        return self.tensor().float()

    def counts(self) -> Tensor:
        """How often each of the 256 values of 8-bit images occurs, by channel, int64 (C, 256)."""

        return sum(map(value_counts, self.chunks()), start=torch.zeros(self.shape[1], 256, dtype=torch.int64))


def value_counts(pixels: Tensor) -> Tensor:
    """How often each of the 256 values occurs in images (N, C, H, W), by channel: int64 (C, 256)."""

    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in pixels.unbind(1)])


@overload
def in_memory(pixels: Tensor | LazyPixels) -> Tensor: ...
@overload
def in_memory(pixels: Any) -> Any: ...
def in_memory(pixels: Any) -> Any:
    """Lazy pixels as one tensor; anything else unchanged."""

    return pixels.tensor() if isinstance(pixels, LazyPixels) else pixels


def to_unit(pixels: Tensor | LazyPixels) -> Tensor:
    """Converts uint8 pixels to floats in [0, 1]; floats are unchanged."""

    pixels = in_memory(pixels)
    return pixels if pixels.is_floating_point() else pixels.float() / 255


def _all_in_memory(values: Any) -> Any:
    """Arguments of a function, in which lazy pixels are tensors."""

    if isinstance(values, dict):
        return {name: _all_in_memory(value) for name, value in values.items()}
    if type(values) in (list, tuple):
        return type(values)(map(_all_in_memory, values))
    return in_memory(values)
