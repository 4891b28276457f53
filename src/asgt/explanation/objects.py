"""Where the object is, for data of which that is known."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..data import Images, to_unit

__all__ = ["STROKE", "strokes"]

STROKE = 0.5
"""From which grey value on a pixel is a stroke."""


def strokes(images: Images) -> Tensor:
    """The strokes of white digits on black: pixels of at least 0.5 in any channel, and the eight around each.

    Returns:
        bool (N, H, W).
    """

    inked = (to_unit(images.pixels) >= STROKE).any(dim=1)
    return F.max_pool2d(inked.float()[:, None], 3, stride=1, padding=1).squeeze(1) > 0
