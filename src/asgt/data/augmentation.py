"""Augmentations: a batch of images and a generator to a batch of the same shape, on the device of the images.

Each image has its own random draws, all from the given generator. With a :class:`asgt.randomness.Share`, one
process augments its rows as it would within the whole batch. The names are in
:mod:`asgt.training.augmentation_registry`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from ..randomness import Share, keyed_uniform, keys_like
from .lazy_pixels import to_unit

__all__ = ["Augmentation", "crop_flip", "own_draws", "resized_crop", "unchanged"]

Augmentation: TypeAlias = Callable[[Tensor, torch.Generator | Share], Tensor]
"""From pixels (B, C, H, W), uint8 or floats in [0, 1], and a generator on their device to pixels of the same shape.

The result is uint8 as well, or floats in [0, 1]."""

_TRIES = 10


def unchanged(pixels: Tensor, generator: torch.Generator | Share) -> Tensor:
    """No augmentation: returns the pixels, without a random draw."""

    return pixels


def own_draws(pixels: Tensor, generator: torch.Generator | Share, count: int) -> Tensor:
    """Uniform values in (0, 1) for each image, float32 (B, count): one draw of the generator gives each image a key."""

    keys = keys_like(pixels, generator)
    return keyed_uniform(keys, torch.zeros_like(keys), count)


def crop_flip(pixels: Tensor, generator: torch.Generator | Share, padding: int = 4) -> Tensor:
    """Pads with zeros, crops at random and flips at random, each image independently, in one gather.

    Args:
        pixels: (B, C, H, W).
        generator: on the device of the pixels, or a share of one.
        padding: pixels of zeros on each side.
    """

    count, _, height, width = pixels.shape
    device = pixels.device
    padded = pad(pixels, (padding,) * 4)

    def draw(pixels: Tensor, generator: torch.Generator) -> Tensor:
        size = (len(pixels), 1)
        top = torch.randint(0, 2 * padding + 1, size, generator=generator, device=device)
        left = torch.randint(0, 2 * padding + 1, size, generator=generator, device=device)
        flip = torch.rand(size, generator=generator, device=device) < 0.5
        return torch.cat([top, left, flip], dim=1)

    drawn = generator.of(draw, pixels) if isinstance(generator, Share) else draw(pixels, generator)
    top, left, flip = drawn.split(1, dim=1)

    rows = top + torch.arange(height, device=device)
    across = torch.arange(width, device=device)
    columns = left + torch.where(flip.bool(), across.flip(0), across)

    sample = torch.arange(count, device=device)[:, None, None]
    # Indices around a slice put the sliced axis last.
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def resized_crop(
    pixels: Tensor,
    generator: torch.Generator | Share,
    scale: tuple[float, float] = (0.25, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Crops at random, resizes to the size of the whole image, and flips at random, each image independently.

    The crop is drawn as torchvision does it: of ten pairs of an area and an aspect ratio, the first that fits counts;
    if none fits, the crop is the largest centre crop with an allowed ratio. It is resized bilinearly, from its own
    pixels only. A crop is never larger than the image, so no anti-aliasing filter is needed.

    Args:
        pixels: (B, C, H, W).
        generator: on the device of the pixels, or a share of one.
        scale: least and largest share of the image's area that a crop has, uniformly. ImageNet's usual least is 0.08,
            which is too small for small images and short trainings.
        ratio: least and largest width over height of a crop, log-uniformly.

    Returns:
        Floats in [0, 1].

    References:
        Szegedy et al. 2015, "Going deeper with convolutions", https://arxiv.org/abs/1409.4842
    """

    x = to_unit(pixels)
    height, width = x.shape[-2:]
    drawn = own_draws(pixels, generator, 2 * _TRIES + 3)
    box_height, box_width = _crop_size(drawn[:, : 2 * _TRIES], height, width, scale, ratio)
    top = (drawn[:, -3] * (height - box_height + 1)).floor()
    left = (drawn[:, -2] * (width - box_width + 1)).floor()

    rows = _source(height, top, box_height)
    columns = _source(width, left, box_width)
    columns = torch.where(drawn[:, -1:] < 0.5, columns.flip(1), columns)
    # grid_sample counts from −1 to 1, from edge to edge.
    grid_x, grid_y = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    shape = (len(x), height, width)
    grid = torch.stack([grid_x[:, None, :].expand(shape), grid_y[:, :, None].expand(shape)], dim=-1)
    cropped = grid_sample(x.float(), grid, padding_mode="border", align_corners=False)
    return cropped.clamp(0, 1).to(x.dtype)


def _crop_size(
    drawn: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Height and width of each image's crop, whole numbers as floats (B,), from draws (B, 2 · tries)."""

    areas, aspects = drawn.chunk(2, dim=1)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * areas)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = torch.exp(low + (high - low) * aspects)
    heights, widths = torch.sqrt(area / aspect).round(), torch.sqrt(area * aspect).round()

    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    first = fits.int().argmax(dim=1, keepdim=True)
    whole = width / height
    centre = (
        float(min(height, max(1, round(width / ratio[0])))) if whole < ratio[0] else float(height),
        float(min(width, max(1, round(height * ratio[1])))) if whole > ratio[1] else float(width),
    )
    found = fits.any(dim=1)
    return (
        torch.where(found, heights.gather(1, first)[:, 0], centre[0]),
        torch.where(found, widths.gather(1, first)[:, 0], centre[1]),
    )


def _source(size: int, first: Tensor, length: Tensor) -> Tensor:
    """Where along an axis each pixel of a resized crop comes from, (B, size): between the crop's own pixels."""

    centres = (torch.arange(size, device=first.device) + 0.5) / size
    first, length = first[:, None], length[:, None]
    return torch.clamp(first + centres * length - 0.5, first, first + length - 1)
