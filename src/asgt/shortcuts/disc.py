"""A coloured disc at a random place, like plasters in images of skin.

References:
    Rieger et al. 2020, "Interpretations are useful: penalizing explanations to align neural networks with prior
    knowledge", https://arxiv.org/abs/1909.13584
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .shortcut import Shortcut, evenly, hues, levels

__all__ = ["Disc"]


@dataclass(frozen=True)
class Disc(Shortcut):
    """A disc at a random place, in a colour for each class; in grey images, in a grey level for each class.

    Args:
        contrast: largest difference of a colour channel between two discs, in units of [0, 1]
        size: diameter in pixels (default: a quarter of the images' shorter side)
    """

    name: ClassVar[str] = "disc"
    draws: ClassVar[int] = 2

    def default_size(self, height: int, width: int) -> int:
        return max(1, round(min(height, width) / 4))

    def values(self, shape: tuple[int, int, int], classes: int) -> Tensor:
        colours = hues if shape[0] == 3 else levels
        return colours(self.contrast, classes)[:, :, None, None]

    def region(self, pixels: Tensor, values: Tensor, noise: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        height, width = pixels.shape[2:]
        size = self.extent(height, width)

        def squared(draws: Tensor, side: int) -> Tensor:
            # From the centre of each disc, which lies inside of the image as a whole, to each line of pixels.
            first = evenly(draws, side - size + 1)
            return (torch.arange(side, device=pixels.device) - first[:, None] - (size - 1) / 2).square()

        down, across = squared(noise[:, 0], height), squared(noise[:, 1], width)
        return down[:, :, None] + across[:, None, :] <= (size / 2) ** 2, values
