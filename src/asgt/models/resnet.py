"""ResNet-18, with the stem for small images or that for large ones.

References:
    He et al. 2015, "Deep residual learning for image recognition", https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .layers import BatchNorm2d, Conv2d

__all__ = ["resnet18"]


class _Block(nn.Module):
    """Two 3×3 convolutions around which the input is added."""

    same_in_both_modes = True  # but for its BatchNorm, which is a module of its own

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = BatchNorm2d(after)
        self.conv2 = Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = BatchNorm2d(after)
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            projection = Conv2d(before, after, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def resnet18(channels: int, size: int | tuple[int, int], classes: int, width: float = 1.0) -> nn.Sequential:
    """ResNet-18: a stem, then 4 × 2 blocks.

    Below 64 pixels the stem is that in common use for CIFAR, a 3×3 convolution of stride 1 and no max-pool. From 64
    pixels up it is the original: a 7×7 convolution of stride 2 and a 3×3 max-pool of stride 2.

    Args:
        channels: channels of the images.
        size: their height and width, any from 8 up, as the last pool is global; one number for square images. The
            shorter side chooses the stem.
        classes: K, the number of logits.
        width: a factor on the channels 64, 128, 256, 512. 1 has 11.2 million parameters.
    """

    widths = [max(1, round(n * width)) for n in (64, 128, 256, 512)]
    if (size if isinstance(size, int) else min(size)) >= 64:
        layers: list[nn.Module] = [Conv2d(channels, widths[0], 7, stride=2, padding=3, bias=False)]
        pool: list[nn.Module] = [nn.MaxPool2d(3, 2, padding=1)]
    else:
        layers, pool = [Conv2d(channels, widths[0], 3, padding=1, bias=False)], []
    layers += [BatchNorm2d(widths[0]), nn.ReLU(), *pool]

    before = widths[0]
    for stage, after in enumerate(widths):
        stride = 1 if stage == 0 else 2
        layers += [_Block(before, after, stride), _Block(after, after, 1)]
        before = after

    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
