"""Batches on the device: order, augmentation and conversion are batched, and determined by a key."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import Share, seeded
from .augmentation import Augmentation
from .images import Images
from .lazy_pixels import LazyPixels, to_unit
from .planting import PlantedPixels

__all__ = [
    "batch_that_fits",
    "batches",
    "steps_per_epoch",
    "training_batch",
    "training_batch_with_masks",
    "training_order",
]

_VALUES, _VALUES_OF_ACCELERATORS = 2**20, 2**24


def batches(images: Images, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The images in their order: float (B, C, H, W) in [0, 1] and labels (B,); the last batch may be smaller."""

    for first in range(0, len(images), batch_size):
        rows = slice(first, first + batch_size)
        pixels = images.pixels[rows]
        if isinstance(images.pixels, LazyPixels) and rows.stop < len(images):
            images.pixels.expect(slice(rows.stop, rows.stop + batch_size))
        yield to_unit(pixels), images.labels[rows]


def batch_that_fits(images: Images | Tensor, most: int = 256, values: int | None = None) -> int:
    """The number of images per pass: ``most``, fewer for large images, and at least one.

    Args:
        images: of the size in question, on their device.
        most: the images of a batch of small ones.
        values: the most values of a batch. Default: 2²⁰ on a CPU, 4 MiB as floats, because the layers of a network
            need many times that; 2²⁴ on an accelerator, which needs large batches to be fast.
    """

    if values is None:
        device = images.device if isinstance(images, Tensor) else images.labels.device
        values = _VALUES if device.type == "cpu" else _VALUES_OF_ACCELERATORS
    return max(1, min(most, values // max(1, prod(images.shape[-3:]))))


def steps_per_epoch(images: Images, batch_size: int) -> int:
    """Training steps in an epoch: full batches, or one small batch if there is no full one."""

    return max(1, len(images) // batch_size)


def training_order(images: Images, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, a function of (seed, epoch): int64 (N,), on the device for gathering the images."""

    order = torch.randperm(len(images), generator=seeded(seed, "order", epoch))
    pixels = images.pixels
    return order.to(pixels.index_device if isinstance(pixels, LazyPixels) else images.labels.device)


def training_batch(
    images: Images,
    order: Tensor,
    step: int,
    batch_size: int,
    augmentation: Augmentation,
    generator: torch.Generator | Share,
) -> tuple[Tensor, Tensor]:
    """Batch ``step`` of an epoch: float (B, C, H, W) in [0, 1] and labels (B,), gathered and augmented on the device.

    Rows that do not fill a last batch are skipped in this epoch; another order skips others. With a :class:`Share` the
    rows of one process are made, B of the whole batch's B · ranks.
    """

    rows = _own_rows(order, step, batch_size, generator)
    pixels = images.pixels[rows]
    _expect_next(images, order, step, batch_size, generator)
    return to_unit(augmentation(pixels, generator)), images.labels[rows]


def training_batch_with_masks(
    images: Images,
    order: Tensor,
    step: int,
    batch_size: int,
    augmentation: Augmentation,
    generator: torch.Generator | Share,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same batch with a planted shortcut, and its mask, bool (B, H, W), augmented like the images.

    Raises:
        InputError: the images have no shortcut.
    """

    if not isinstance(images.pixels, PlantedPixels):
        raise InputError("the images have no shortcut, so there is no mask: plant one with asgt.data.plant")
    rows = _own_rows(order, step, batch_size, generator)
    pixels, masks = images.pixels.planted(rows)
    _expect_next(images, order, step, batch_size, generator)
    # One more channel is moved by the same draws.
    moved = augmentation(torch.cat([pixels, masks[:, None].to(pixels.dtype)], dim=1), generator)
    pixels, masks = moved[:, :-1], moved[:, -1] > 0
    return to_unit(pixels).contiguous(), images.labels[rows], masks


def _expect_next(images: Images, order: Tensor, step: int, batch_size: int, generator: torch.Generator | Share) -> None:
    """Says which images the next step needs, where they are not in memory."""

    if isinstance(images.pixels, LazyPixels) and len(order) >= (step + 2) * batch_size:
        images.pixels.expect(_own_rows(order, step + 1, batch_size, generator))


def _own_rows(order: Tensor, step: int, batch_size: int, generator: torch.Generator | Share) -> Tensor:
    """The rows of a batch, or of one process's part of it."""

    rows = order[step * batch_size : (step + 1) * batch_size]
    return rows.view(generator.ranks, -1)[generator.rank] if isinstance(generator, Share) else rows
