"""Normalisation as a layer, so that attacks use unnormalised pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["Cast", "Normalize", "precision_of"]

_LARGEST = 4.0  # far above any deviation of values in [0, 1], far below those of values up to 255


class Normalize(nn.Module):
    """Subtracts the mean and divides by the deviation, per channel: (B, C, H, W) in [0, 1] to (B, C, H, W).

    Both are buffers, so they are saved with the weights.

    Args:
        mean: a mean per channel, in the units of the pixels' range [0, 1].
        std: a standard deviation per channel, above zero and at most 4.

    Raises:
        InputError: their lengths differ, or one is impossible for pixels in [0, 1].

    Example:
        >>> import torch
        >>> import asgt
        >>> normalize = asgt.Normalize(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])
        >>> float(normalize(torch.ones(1, 3, 2, 2)).max())
        2.0
    """

    mean: Tensor
    std: Tensor
    same_in_both_modes = True

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or len(mean) == 0 or not all(s > 0 for s in std):
            raise InputError(
                f"mean {list(mean)} and std {list(std)}: give one of each per channel, every std above zero"
            )
        if not all(0 <= m <= 1 for m in mean) or not all(s <= _LARGEST for s in std):
            raise InputError(
                f"mean {list(mean)} and std {list(std)}: both are in units of the pixels' range [0, 1]; divide those "
                "of pixels from 0 to 255 by 255"
            )
        self.register_buffer("mean", torch.tensor(list(mean)).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(list(std)).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def line(self, source: str) -> str:
        """A line for the user: the numbers, and whose they are."""

        texts = [", ".join(f"{value:.4g}" for value in each.flatten().tolist()) for each in (self.mean, self.std)]
        return f"normalisation, from {source}: mean {texts[0]}; std {texts[1]}"

    def refuse_other(self, given: Mapping[str, Sequence[float]], file: Path | str) -> None:
        """Refuses a mean or a std that differs from that of the weights, whose numbers are in single precision.

        Args:
            given: the user's values: under ``"mean"`` and ``"std"`` a number per channel, or one for all.
            file: of the weights.

        Raises:
            InputError: it names the flag.
        """

        for name, numbers in given.items():
            held = getattr(self, name).flatten().tolist()
            each = list(numbers) * len(held) if len(numbers) == 1 else list(numbers)
            if held != torch.tensor(each, dtype=torch.float32).tolist():
                raise InputError(f"--{name} contradicts the {name} in {file}: remove --mean and --std")


class Cast(nn.Module):
    """Converts images to another precision, for a network in that precision.

    Args:
        dtype: a floating type.
    """

    same_in_both_modes = True

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.dtype)


def precision_of(net: nn.Module) -> torch.dtype:
    """The precision of a network's first floating-point weight; float32 without one."""

    return next((weight.dtype for weight in net.parameters() if weight.is_floating_point()), torch.float32)
