"""The background of the object, in a colour, a grey level or a texture for each class, as in coloured MNIST.

References:
    Kim et al. 2019, "Learning not to learn: training deep neural networks with biased data",
    https://arxiv.org/abs/1812.10352 (coloured MNIST)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .shortcut import Shortcut, hues, levels

__all__ = ["Background"]

NEAR = 0.25
"""The largest difference of a background pixel from the median of the image's edge in any channel, in units of [0,
1].
"""


@dataclass(frozen=True)
class Background(Shortcut):
    """The pixels that are similar to the image's edge, in a colour for each class; in grey images, in a grey level for
    each class.

    Args:
        contrast: largest difference of a value between two backgrounds, in units of [0, 1]
        size: depth in pixels from the edge to which the background is replaced (default: all of it)
        code: the encoding of the class: ``colour`` (a grey level in grey images), or ``texture``, the angle of grey
            stripes
    """

    name: ClassVar[str] = "background"
    codes: ClassVar[tuple[str, ...]] = ("colour", "texture")

    contrast: float = 0.5
    code: Literal["colour", "texture"] = "colour"

    def default_size(self, height: int, width: int) -> int:
        return (min(height, width) + 1) // 2

    def values(self, shape: tuple[int, int, int], classes: int) -> Tensor:
        channels, height, width = shape
        if self.code == "colour":
            return (hues if channels == 3 else levels)(self.contrast, classes)[:, :, None, None]
        angle = (torch.arange(classes) * math.pi / classes)[:, None, None]
        down, across = torch.arange(height)[:, None] - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
        wave = 2 * math.pi / max(4, min(height, width) / 4) * (across * angle.cos() + down * angle.sin())
        return (0.5 + self.contrast / 2 * wave.sin())[:, None]

    def region(self, pixels: Tensor, values: Tensor, noise: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        height, width = pixels.shape[2:]
        is_float = pixels.is_floating_point()
        # 8 bits would wrap around in a difference.
        wide = pixels if is_float else pixels.short()
        edge = wide.flatten(2)[:, :, _edge(height, width, pixels.device)]
        away = wide - edge.median(dim=2).values[:, :, None, None]
        behind = away.abs().amax(dim=1) <= (NEAR if is_float else int(NEAR * 255))
        # What the background showed stays to be seen in the new colour, as an object that is much like it.
        shown = (away + values).clamp_(0, 1 if is_float else 255).to(pixels.dtype)
        return behind & _frame(height, width, self.extent(height, width), pixels.device), shown


@lru_cache(maxsize=32)
def _edge(height: int, width: int, device: torch.device) -> Tensor:
    """The places of sixteen pixels, or of all of fewer, evenly around the edge, in rows of pixels, int64."""

    numbers = torch.arange(height * width).reshape(height, width)
    ring = [numbers[0], numbers[1:, -1], numbers[-1, :-1].flip(0), numbers[1:-1, 0].flip(0)]
    places = torch.cat(ring) if min(height, width) > 1 else numbers.flatten()
    return places[torch.arange(min(16, len(places))) * len(places) // min(16, len(places))].to(device)


@lru_cache(maxsize=32)
def _frame(height: int, width: int, depth: int, device: torch.device) -> Tensor:
    """The pixels at most so deep inside of the image, bool (1, H, W)."""

    rows, columns = torch.arange(height), torch.arange(width)
    down, across = torch.minimum(rows, height - 1 - rows), torch.minimum(columns, width - 1 - columns)
    return (torch.minimum(down[:, None], across) < depth)[None].to(device)
