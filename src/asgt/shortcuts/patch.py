"""A square patch in a corner, whose grey level encodes the class; or patches along the border, of which one is light.

References:
    Ross et al. 2017, "Right for the right reasons: training differentiable models by constraining their explanations",
    https://arxiv.org/abs/1703.03717 (decoy-MNIST)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import InputError
from .shortcut import Shortcut, evenly, levels

__all__ = ["Patch"]


@dataclass(frozen=True)
class Patch(Shortcut):
    """A grey patch in a random corner, as in decoy-MNIST.

    Args:
        contrast: difference between the grey levels of the darkest and the lightest patch, in units of [0, 1]
        size: side of a patch in pixels (default: a seventh of the images' shorter side)
        code: the encoding of the class: ``level``, the grey level of one patch, or ``position``, which of K patches
            along the border is the light one
    """

    name: ClassVar[str] = "patch"
    codes: ClassVar[tuple[str, ...]] = ("level", "position")
    draws: ClassVar[int] = 1

    code: Literal["level", "position"] = "level"

    def default_size(self, height: int, width: int) -> int:
        return max(1, round(min(height, width) / 7))

    def values(self, shape: tuple[int, int, int], classes: int) -> Tensor:
        _, height, width = shape
        if self.code == "level":
            return levels(self.contrast, classes)[:, :, None, None]
        dark, light = levels(self.contrast, 2).flatten().tolist()
        lit = torch.zeros(classes, height, width, dtype=torch.bool)
        size = self.extent(height, width)
        for number, (top, left) in enumerate(_places(height, width, size, classes)):
            lit[number, top : top + size, left : left + size] = True
        return torch.where(lit, light, dark)[:, None]

    def region(self, pixels: Tensor, values: Tensor, noise: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        height, width = pixels.shape[2:]
        size = self.extent(height, width)
        if self.code == "level":
            return _corners(height, width, size, pixels.device)[evenly(noise[:, 0], 4)], values
        return _border(height, width, size, classes, pixels.device), values


@lru_cache(maxsize=32)
def _corners(height: int, width: int, size: int, device: torch.device) -> Tensor:
    """The patch in each of the four corners, bool (4, H, W)."""

    masks = torch.zeros(4, height, width, dtype=torch.bool)
    for number, (top, left) in enumerate(
        [(0, 0), (0, width - size), (height - size, 0), (height - size, width - size)]
    ):
        masks[number, top : top + size, left : left + size] = True
    return masks.to(device)


@lru_cache(maxsize=32)
def _border(height: int, width: int, size: int, classes: int, device: torch.device) -> Tensor:
    """All patches along the border, bool (1, H, W)."""

    mask = torch.zeros(1, height, width, dtype=torch.bool)
    for top, left in _places(height, width, size, classes):
        mask[0, top : top + size, left : left + size] = True
    return mask.to(device)


def _places(height: int, width: int, size: int, classes: int) -> list[tuple[int, int]]:
    """Top and left of K patches along the border that do not touch each other's pixels, clockwise from the top left.

    Raises:
        InputError: the border has no room for so many.
    """

    below, right = height - size, width - size
    # The places that patches without a gap have along each side, each corner once.
    along, down = range(0, right - size + 1, size), range(0, below - size + 1, size)
    ring = [
        *((0, left) for left in along),
        *((top, right) for top in down),
        *((below, right - left) for left in along),
        *((below - top, 0) for top in down),
    ]
    # In a narrow image those of opposite sides meet.
    apart: list[tuple[int, int]] = []
    for top, left in ring:
        if all(abs(top - other) >= size or abs(left - beside) >= size for other, beside in apart):
            apart.append((top, left))
    ring = apart
    if classes > len(ring):
        raise InputError(
            f"size = {size}: {classes} patches do not fit along the border of images of {height}×{width} pixels, "
            f"which has room for {len(ring)}: use a smaller size, or code=level"
        )
    return [ring[number * len(ring) // classes] for number in range(classes)]
