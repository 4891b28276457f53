"""Models to attack, with images and closed forms: linear, smooth, and with everything that could be disturbed."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from support.nets import BombError

THEIR_NORM = {"linf": "Linf", "l2": "L2"}
"""The norms as the authors' own packages call them."""
WEIGHT = [2.0, -0.5, 0.0, 1e-3, -3.0, 0.25]
"""Of the linear model whose answers are known."""
RADII = st.just(0.0) | st.floats(1e-6, 1)
"""Radii that a test draws: zero, or of a size that single precision has room for."""
PIXELS = [[0.5, 0.5, 0.5, 0.5, 0.5, 0.5], [0.0, 1.0, 0.3, 1.0, 0.05, 0.98], [0.02, 0.99, 0.0, 0.4, 1.0, 0.0]]


def conv_net(seed: int = 0, *, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A small convolutional net of five classes, with random weights."""

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, stride=2),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(6 * ((size - 1) // 2) ** 2, 5),
        )
    return net.to(dtype).eval()


def batch(
    seed: int = 1, *, samples: int = 6, channels: int = 3, size: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Images that touch both ends of the box, and labels."""

    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, channels, size, size, generator=generator, dtype=torch.float64) * 1.4 - 0.2
    return x.clamp(0, 1).to(dtype), torch.randint(5, (samples,), generator=generator)


class Linear(nn.Module):
    """Logits (w · x, 0): the gradient of the loss is a positive multiple of -w for class 0 and of +w for class 1."""

    def __init__(self, weight: list[float], dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight
        return torch.stack([score, torch.zeros_like(score)], dim=1)


class Bomb(nn.Module):
    """Raises on its n-th call."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def forward(self, x: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise BombError
        return x


def delicate_net(bomb: int = 0) -> nn.Module:
    """A model in training mode with everything that an attack could disturb."""

    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            Bomb(bomb),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
            nn.Flatten(),
            nn.Linear(4 * 16, 5),
        )
        net.train()
        net[5][1].eval()  # a frozen BatchNorm
        net[5][1].weight.requires_grad_(False)
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter)
        net[0].bias.grad = None
    return net


def linear_batch() -> tuple[Tensor, Tensor]:
    """Images of six pixels, each with both labels."""

    rows = [row for row in PIXELS for _ in range(2)]
    return torch.tensor(rows, dtype=torch.float64).view(-1, 1, 2, 3), torch.tensor([0, 1] * len(PIXELS))


def corner(x: Tensor, y: Tensor, eps: float) -> Tensor:
    """The loss of a linear model is largest in the corner of the ball that lies against the label."""

    expected = x.clone().flatten(1)
    for i in range(len(x)):
        for j, weight in enumerate(WEIGHT):
            away = 0.0 if weight == 0 else math.copysign(1.0, weight) * (-1.0 if y[i] == 0 else 1.0)
            expected[i, j] = min(1.0, max(0.0, float(expected[i, j]) + eps * away))
    return expected.view_as(x)


def radius(delta: Tensor, norm: str) -> Tensor:
    """The norm of each sample's disturbance."""

    return delta.flatten(1).abs().amax(dim=1) if norm == "linf" else delta.flatten(1).square().sum(dim=1).sqrt()


class Recorder(nn.Module):
    """Keeps what the model was asked about."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return self.net(x)


def smooth_net(classes: int = 6, seed: int = 2) -> nn.Module:
    """Without kinks, where rounding could part two searches.

    The DLR loss has kinks of its own; where a search zigzags along one, rounding grows tenfold in a few steps. On this
    net none does so.
    """

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64),
            nn.Tanh(),
            nn.Conv2d(8, 8, 3, stride=2, dtype=torch.float64),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(8 * 9, classes, dtype=torch.float64),
        )
    for parameter in net.parameters():
        parameter.data *= 2.0
    return net.eval()


def torn_net(classes: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A net of few classes that gives each of them to some of 40 images, with these and their classes."""

    net = smooth_net(classes)
    x = batch(samples=40, dtype=torch.float64)[0]
    net[-1].bias.data -= net(x).detach().median(dim=0).values
    y = net(x).argmax(dim=1)
    assert len(y.unique()) == classes
    return net, (x, y)
