"""MNIST: 70,000 grey images of handwritten digits, 28×28 pixels, white strokes on black.

References:
    LeCun et al. 1998, "Gradient-based learning applied to document recognition", https://doi.org/10.1109/5.726791
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .record import DataSet

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["MNIST", "STROKE", "stroke_pixels"]

STROKE = 0.5
"""The grey value, in [0, 1], from which on a pixel is a stroke."""


def stroke_pixels(pixels: Tensor) -> Tensor:
    """The strokes of white digits on black: pixels of at least 0.5 in any channel, and the eight around each.

    Args:
        pixels: images (N, C, H, W), uint8, or floats in [0, 1].

    Returns:
        bool (N, H, W).
    """

    from torch.nn.functional import max_pool2d

    unit = pixels if pixels.is_floating_point() else pixels.float() / 255
    inked = (unit >= STROKE).any(dim=1)
    return max_pool2d(inked.float()[:, None], 3, stride=1, padding=1).squeeze(1) > 0


def _objects(pixels: Tensor) -> Tensor | None:
    """The strokes of grey images; unknown in colour images that bear the name."""

    return stroke_pixels(pixels) if pixels.shape[1] == 1 else None


MNIST = DataSet(
    "mnist",
    title="28×28 grey images of handwritten digits",
    hub="ylecun/mnist",
    eps=0.3,
    epsilons="0.05,0.1,0.15,0.2,0.25,0.3,0.35,0.4",
    objects=_objects,
)
