"""Models whose maps are known, with images and labels to draw them of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 0])


class Linear(nn.Module):
    """Two classes, whose logits are weighted sums of the pixels: each map is known, and so is each attack."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(1), self.weight)


class Constant(nn.Module):
    """Always says the second class, and its maps are all zero or all NaN."""

    def __init__(self, broken: bool) -> None:
        super().__init__()
        self.broken = broken

    def forward(self, x: Tensor) -> Tensor:
        nothing = 0 * x.flatten(1).sum(dim=1, keepdim=True)
        # The root of zero has an infinite slope, and zero times that is no number.
        return (nothing.sqrt() if self.broken else nothing) + torch.tensor([0.0, 1.0])
