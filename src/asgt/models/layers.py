"""Convolution and BatchNorm as PyTorch has them, asked for in the way that its CPU kernels answer sooner.

What they compute is the same but for rounding, and so are their weights' names. The figures are in docs/performance.md.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BatchNorm2d", "Conv2d"]

_SMALL, _WIDE = 4, 128  # measured; see docs/performance.md


class Conv2d(nn.Conv2d):
    """A convolution that keeps the channels of a pixel apart where its maps are small.

    A 3×3 convolution of 4×4 maps multiplies padding for a third of its time. PyTorch's kernels for channels-last images
    do so; those for the default layout leave it out, if there are channels enough to fill their registers. Larger maps
    are quicker with the channels side by side, which :func:`asgt.devices.place` sees to.

    Args:
        before: channels of the images.
        after: channels of the maps.
        kernel: height and width of the kernel.
        size: height and width of the maps that come out.
        options: those of ``torch.nn.Conv2d``.
    """

    same_in_both_modes = True

    def __init__(self, before: int, after: int, kernel: int, *, size: int, **options: Any) -> None:
        super().__init__(before, after, kernel, **options)
        self.channels_apart = size <= _SMALL and min(before, after) >= _WIDE

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, after, H, W) of images (B, before, H, W)."""

        if self.channels_apart and x.device.type == "cpu":
            x = x.contiguous()  # or their layout would win over the weights'
        return super().forward(x)


class BatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm that in evaluation mode on a CPU is what it is there: a factor and a summand for each channel.

    PyTorch's backward pass computes what the batch's statistics would have asked for even so.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Maps of the shape of those that come in, (B, C, H, W)."""

        if self.training or input.device.type != "cpu" or input.dtype != self.weight.dtype:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        factor = self.weight * torch.rsqrt(self.running_var + self.eps)
        summand = self.bias - self.running_mean * factor
        return torch.addcmul(summand[:, None, None], input, factor[:, None, None])
