"""Models and images to take gradients of: linear, and with everything that a gradient could disturb."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from support.nets import BombError


class Linear(nn.Module):
    """Logits W x + b, with W (K, …) of the shape of an input."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.flatten(1).T + self.bias


def rand(*shape: int, seed: int = 0) -> Tensor:
    """Values in [0, 1), the same for the same seed."""

    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(*shape: int, seed: int = 0) -> Tensor:
    """Values in [0.1, 0.9]: neither fill of zero nor the box can hide a change."""

    return 0.1 + 0.8 * rand(*shape, seed=seed)


class Bomb(nn.Module):
    """Raises if it is armed."""

    def __init__(self, armed: bool) -> None:
        super().__init__()
        self.armed = armed

    def forward(self, x: Tensor) -> Tensor:
        if self.armed:
            raise BombError
        return x


def delicate_net(*, armed: bool = False) -> nn.Module:
    """A model in training mode with everything that a gradient could disturb."""

    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
            Bomb(armed),
            nn.Flatten(),
            nn.Linear(4 * 4, 5),
        ).double()
        net.train()
        net[4][1].eval()  # a frozen BatchNorm
        net[4][1].bias.requires_grad_(False)
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter)
        net[0].bias.grad = None
    return net
