"""What a curve costs one who knows it already: the floor under the gradients of any search.

Such a clairvoyant runs PGD twice a sample: just below ε*, where it fails and takes all of its steps, and at ε*, where
it stops at the first iterate that fools the model. This is written apart from the curve engine, whose cost it judges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["clairvoyant"]


def clairvoyant(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, right: Tensor, grid: Sequence[float], noise: Tensor
) -> Tensor:
    """Gradients of PGD-40 (L∞, α = 2.5 ε / 40) that each sample must take, int64 (N,).

    None for a clean error; 40 where there is an ε below ε*, or no ε* on the grid; at ε* the steps after which the model
    is fooled first, at most 40.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K).
        x: images (N, C, H, W) in [0, 1].
        y: labels (N,).
        right: which samples somebody's loop left right at each ε, bool (E, N): the first ε that is not is ε*.
        grid: E radii, ascending.
        noise: where the attack starts, in units of ε, of the shape of ``x`` in [-1, 1].
    """

    with torch.no_grad():
        clean = torch.cat([model(part).argmax(dim=1) for part in x.split(256)]) == y
    first = right.cumprod(dim=0).sum(dim=0)
    failure = 40 * (clean & (first > 0))

    success = torch.zeros_like(y)
    for rows in (clean & (first < len(grid))).nonzero().squeeze(1).split(256):
        success[rows] = _steps_to_fool(model, x[rows], y[rows], x.new_tensor(grid)[first[rows]], noise[rows])
    return failure + success


def _steps_to_fool(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, eps: Tensor, noise: Tensor, steps: int = 40
) -> Tensor:
    radius = eps.view(-1, 1, 1, 1)
    x_adv = (x + radius * noise).clamp(0, 1)
    taken = torch.full_like(y, steps)
    for step in range(steps):
        x_adv.requires_grad_()
        logits = model(x_adv)
        taken = torch.where(logits.argmax(dim=1) != y, taken.clamp_max(step), taken)
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), x_adv)
        moved = x_adv.detach() + 2.5 / steps * radius * gradient.sign()
        x_adv = torch.minimum(torch.maximum(moved, x - radius), x + radius).clamp(0, 1)
    return taken
