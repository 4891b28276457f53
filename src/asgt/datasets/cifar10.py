"""CIFAR-10: 60,000 colour images of ten classes of animals and vehicles, 32×32 pixels.

References:
    Krizhevsky 2009, "Learning multiple layers of features from tiny images",
    https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

from __future__ import annotations

from .record import DataSet

__all__ = ["CIFAR10"]

CIFAR10 = DataSet(
    "cifar10",
    title="32×32 colour images of animals and vehicles",
    hub="uoft-cs/cifar10",
    eps=8 / 255,
    augment="crop-flip",
)
