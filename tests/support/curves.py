"""Models whose smallest ε is known by hand, with images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asgt import Images

GRID = tuple(0.02 * number for number in range(1, 21))
"""Twenty radii up to 0.4."""


class TwoClasses(nn.Module):
    """Logits ±(w·x + b)/2: the margin is linear, and the box is all that bends the answer."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1) @ self.weight + self.bias
        return torch.stack([-score, score], dim=1) / 2


def images(count: int, *, classes: int = 2, seed: int = 0, size: int = 4) -> Images:
    """Images of random bytes with random labels."""

    draw = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 1, size, size), generator=draw, dtype=torch.uint8)
    labels = torch.randint(classes, (count,), generator=draw)
    return Images(pixels, labels, tuple(str(number) for number in range(classes)))


def smallest_by_hand(model: TwoClasses, data: Images) -> Tensor:
    """ε* of each image: Σ|w_i|·min(ε, room_i) = margin, where room is what the box leaves in the attack's direction."""

    x = data.pixels.double().flatten(1) / 255
    weight = model.weight.detach().double()
    side = torch.where(data.labels == 1, 1.0, -1.0).double()
    margin = side * (x @ weight + model.bias)
    room = torch.where(-side[:, None] * weight > 0, 1 - x, x)
    found = []
    for number in range(len(x)):
        low, high = 0.0, 1.0
        for _ in range(60):  # the left side grows with ε: bisect
            middle = (low + high) / 2
            moved = (weight.abs() * torch.minimum(room[number], torch.tensor(middle))).sum()
            low, high = (low, middle) if moved >= margin[number] else (middle, high)
        found.append(0.0 if margin[number] <= 0 else high)
    return torch.tensor(found)


class Band(nn.Module):
    """Fooled only where the image is between 0.05 and 0.11 brighter: what fails at a larger ε works below it."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))  # so that evidence can name it

    def forward(self, x: Tensor) -> Tensor:
        brighter = x.flatten(1).mean(dim=1) - 128 / 255
        fooled = (brighter > 0.05) & (brighter < 0.11)
        margin = torch.where(fooled, -1.0, 1.0) - 1e-3 * brighter
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


def band_images(count: int) -> Images:
    """Grey images of class 0, on which ``Band`` is right."""

    return Images(
        torch.full((count, 1, 4, 4), 128, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64), ("a", "b")
    )
