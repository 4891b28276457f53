"""Models whose smallest ε is known by hand, with images for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asgt import Images
from asgt.attacks import Norm

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


class Rows(nn.Module):
    """Logits W x + b of 6 × 6 images and any number of classes, all of which are equal on a grey image."""

    def __init__(self, classes: int, seed: int = 1) -> None:
        super().__init__()
        weight = torch.randn(classes, 36, generator=torch.Generator().manual_seed(seed))
        self.weight = nn.Parameter(weight)
        self.bias: Tensor
        self.register_buffer("bias", -weight.sum(dim=1) / 2)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def rows_images(model: Rows, count: int) -> Images:
    """Images of 6 × 6 pixels at least 64/255 away from black and white; the model is wrong on every tenth."""

    draw = torch.Generator().manual_seed(count)
    pixels = torch.randint(64, 192, (count, 1, 6, 6), generator=draw, dtype=torch.uint8)
    classes = len(model.weight)
    with torch.no_grad():
        labels = model(pixels / 255).argmax(dim=1)
    labels[::10] = (labels[::10] + 1) % classes
    return Images(pixels, labels, tuple(map(str, range(classes))))


def rows_radius(model: Rows, data: Images, norm: Norm) -> Tensor:
    """ε* of each image, float64 (N,), exact up to 0.25: the least of (z_y − z_j) / ‖w_y − w_j‖, in the dual norm."""

    weight, bias = model.weight.detach().double(), model.bias.double()
    logits = data.pixels.double().flatten(1) / 255 @ weight.T + bias
    least = torch.full((len(data),), torch.inf, dtype=torch.float64)
    for other in range(len(weight)):
        gap = logits.gather(1, data.labels[:, None]).squeeze(1) - logits[:, other]
        apart = weight[data.labels] - weight[other]
        slope = apart.abs().sum(dim=1) if norm == "linf" else apart.norm(dim=1)
        least = torch.where(data.labels == other, least, torch.minimum(least, gap / slope.clamp_min(1e-12)))
    return least.clamp_min(0.0)


class _Backwards(torch.autograd.Function):
    """The identity, whose gradient points the other way."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class Misled(nn.Module):
    """The answers of a net and the opposite of its gradients."""

    def __init__(self, honest: nn.Module) -> None:
        super().__init__()
        self.honest = honest

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.honest(_Backwards.apply(x))
        return logits


def small_mlp(seed: int, count: int, *, size: int = 6, classes: int = 4) -> tuple[nn.Module, Images]:
    """A net of one hidden layer with random weights, and images that it is right on, but for every tenth."""

    draw = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 24), nn.Tanh(), nn.Linear(24, classes)).eval()
    pixels = torch.randint(0, 256, (count, 1, size, size), generator=draw, dtype=torch.uint8)
    with torch.no_grad():
        last = net[3]
        assert isinstance(last, nn.Linear)
        last.weight *= 4
        last.bias -= net(pixels / 255).median(dim=0).values
        labels = net(pixels / 255).argmax(dim=1)
    labels[::10] = (labels[::10] + 1) % classes
    return net, Images(pixels, labels, tuple(map(str, range(classes))))
