"""Weights that a training is given: nets, files of them, data for them, and what the training says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asgt.data import Images
from asgt.models import build_model


class Told:
    """Keeps what a progress is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def images(classes: int, channels: int = 1, size: int = 8) -> tuple[Images, Images]:
    """60 images of noise, training and test images at once; labels are 0, 1, …, in turn."""

    draws = torch.Generator().manual_seed(classes)
    pixels = torch.randint(0, 256, (60, channels, size, size), generator=draws, dtype=torch.uint8)
    made = Images(pixels, torch.arange(60) % classes, tuple(f"c{number}" for number in range(classes)))
    return made, made


class Fixed(nn.Module):
    """Seven logits, whatever is asked for."""

    def __init__(self, num_classes: int = 7) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(64, 6), nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x.flatten(1)).relu())


def fixed(num_classes: int) -> nn.Module:
    """The factory of :class:`Fixed`."""

    return Fixed(num_classes)


def saved(net: nn.Module, path: Path, prefix: str = "") -> Path:
    """A file of a net's weights, each name behind a prefix."""

    torch.save({f"{prefix}{name}": value for name, value in net.state_dict().items()}, path)
    return path


def normalised(classes: int = 3, width: float = 0.1, **settings: Any) -> nn.Module:
    """``small_cnn`` with a normalisation, mean 0.25 and std 0.5."""

    return build_model("small_cnn", (1, 8, 8), classes, mean=[0.25], std=[0.5], width=width, **settings)
