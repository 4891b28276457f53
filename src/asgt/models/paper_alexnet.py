"""AlexNet, in its original form and in its usual form for small images.

References:
    Krizhevsky et al. 2012, "ImageNet classification with deep convolutional neural networks"
"""

from __future__ import annotations

from torch import nn

from .layers import Conv2d

__all__ = ["alexnet"]


class _AlexNet(nn.Sequential):
    """The layers, and how they are initialised."""

    same_in_both_modes = True  # but for its dropout, which is a module of its own

    def reset_parameters(self) -> None:
        """Re-initialises all weights, with He et al.'s initialisation for rectifiers."""

        for layer in self:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


def alexnet(
    channels: int, size: int | tuple[int, int], classes: int, width: float = 1.0, dropout: float = 0.5
) -> nn.Sequential:
    """AlexNet: five convolutions and three linear layers with dropout.

    From 64 pixels up it is the one-tower net (64, 192, 384, 256, 256 channels; first convolution 11×11 with stride 4;
    3×3 max-pools of stride 2). Below that those strides are too large for the image, so the form in common use for
    small images is built: the same five convolutions and three linear layers, but the first convolution is 3×3 with
    stride 2, the second 3×3, and the max-pools are 2×2.

    Differences from the original: no local response normalisation and no split into two groups of channels, as in
    the one-tower version; an adaptive average pool before the linear layers, so that any size from 64 up fits; He et
    al.'s initialisation for rectifiers: with PyTorch's default one the signal shrinks layer by layer, and adversarial
    training on MNIST at ε = 0.3 remained a constant predictor (measured at width 0.25, 5 epochs of 20,000 images).

    Args:
        channels: channels of the images, 1 or 3.
        size: their height and width, at least 16; one number for square images. The shorter side chooses the form.
        classes: K, the number of logits.
        width: a factor on every hidden layer. 1 has 57 million parameters from 64 px up.
        dropout: the share dropped before each of the first two linear layers. The original has 0.5.
    """

    c1, c2, c3, c4, c5, hidden = (max(1, round(n * width)) for n in (64, 192, 384, 256, 256, 4096))

    sides = (size, size) if isinstance(size, int) else size
    if min(sides) >= 64:
        stem = [nn.Conv2d(channels, c1, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        second = [nn.Conv2d(c1, c2, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        last = [nn.MaxPool2d(3, 2), nn.AdaptiveAvgPool2d(6)]
        extent = 6 * 6
    else:
        stem = [nn.Conv2d(channels, c1, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        second = [nn.Conv2d(c1, c2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        last = [nn.MaxPool2d(2)]
        extent = ((sides[0] + 1) // 2 // 8) * ((sides[1] + 1) // 2 // 8)

    net = _AlexNet(
        *stem,
        *second,
        Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(),
        Conv2d(c3, c4, 3, padding=1),
        nn.ReLU(),
        Conv2d(c4, c5, 3, padding=1),
        nn.ReLU(),
        *last,
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(c5 * extent, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )

    net.reset_parameters()
    return net
