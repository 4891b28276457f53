"""A network of two convolutions for small images, which trains in seconds."""

from __future__ import annotations

from torch import nn

__all__ = ["small_cnn"]


def small_cnn(channels: int, size: int | tuple[int, int], classes: int, width: float = 1.0) -> nn.Sequential:
    """Two 3×3 convolutions of 32 and 64 channels, each with a 2×2 max-pool, and two linear layers; no BatchNorm.

    Args:
        channels: channels of the images.
        size: their height and width, at least 4; one number for square images.
        classes: K, the number of logits.
        width: a factor on every hidden layer.
    """

    height, width_px = (size, size) if isinstance(size, int) else size
    first, second, hidden = (max(1, round(n * width)) for n in (32, 64, 128))

    return nn.Sequential(
        nn.Conv2d(channels, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (height // 4) * (width_px // 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
