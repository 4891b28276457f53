"""The mask of the object, for images with a known object."""

from __future__ import annotations

from torch import Tensor

from ..data import Images, in_memory
from ..datasets.mnist import stroke_pixels

__all__ = ["strokes"]


def strokes(images: Images) -> Tensor:
    """The strokes of white digits on black: pixels of at least 0.5 in any channel, and the eight around each.

    Args:
        images: N images (C, H, W) of white digits on black.

    Returns:
        bool (N, H, W).

    Example:
        >>> import asgt
        >>> digits = asgt.load_data("digits").test[:3]
        >>> asgt.strokes(digits).shape
        torch.Size([3, 8, 8])
    """

    return stroke_pixels(in_memory(images.pixels))
