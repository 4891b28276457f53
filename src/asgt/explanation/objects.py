"""Where the object is, for images of which that is known."""

from __future__ import annotations

from torch import Tensor

from ..data import Images, in_memory
from ..datasets.mnist import stroke_pixels

__all__ = ["strokes"]


def strokes(images: Images) -> Tensor:
    """The strokes of white digits on black: pixels of at least 0.5 in any channel, and the eight around each.

    Returns:
        bool (N, H, W).
    """

    return stroke_pixels(in_memory(images.pixels))
