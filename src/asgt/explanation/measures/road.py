r"""ROAD: accuracy with the least relevant pixels removed first minus accuracy with the most relevant removed first.

Its imputation: a removed pixel becomes the weighted mean of its neighbours, removed ones among them.

.. math:: w_i \, x_i = \sum_{j \in N(i)} w_{ij} \, x_j, \qquad w_i = \sum_{j \in N(i)} w_{ij}, \qquad
          w_{ij} = \tfrac16 \text{ beside}, \; \tfrac1{12} \text{ across the corner}

for every removed pixel i; neighbours outside of the image are omitted. The removed pixels are then hardly visible;
with a constant fill, their shape would show a model where the important pixels were.

On the removed pixels this is a symmetric positive definite system, a weighted graph's Laplacian, in each image and
channel. All of them are solved at once by conjugate gradients; a product with the matrix is a 3×3 stencil.

References:
    Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods",
    https://arxiv.org/abs/2202.00449
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from ...modes import precise
from ...randomness import normal_like
from ..hiding import QUANTILES, right_without
from .map_batch import MapBatch
from .measure import Measure

__all__ = ["NOISE", "ROAD", "impute"]

NOISE = 0.01
"""The deviation of the normal noise that the authors add to what they impute."""

_TOLERANCE = 1e-7  # of the right-hand side's norm: far below a grey level, whatever the condition
_LOOK = 8  # steps between two looks at whether all are solved: a look waits for the device


def impute(x: Tensor, hidden: Tensor) -> Tensor:
    """Replaces hidden pixels by the solution of the linear system, in every channel, without the noise.

    Args:
        x: images (B, C, H, W).
        hidden: which pixels are to be imputed, bool (B, 1, H, W) or (B, H, W); of each image at least one is not.

    Returns:
        The images, of the shape and type of ``x``; the hidden values do not change it.

    Raises:
        InputError: the shapes do not match, or all pixels of an image are hidden.
    """

    hidden = hidden[:, None] if hidden.ndim == 3 else hidden
    if hidden.dtype != torch.bool or hidden.shape != (x.shape[0], 1, *x.shape[2:]):
        raise InputError(f"hidden is {hidden.dtype} {tuple(hidden.shape)}: expected bool (B, H, W) of the images")
    if bool(hidden.flatten(1).all(dim=1).any()):
        raise InputError("all pixels of an image are hidden: keep at least one visible")

    # Double precision: the condition grows with the square of the largest hole.
    known = precise(torch.where(hidden, 0.0, x))
    free = hidden.to(known.dtype).expand_as(known)
    weight = _neighbours(torch.ones_like(known[:1, :1]))

    solution = torch.zeros_like(known)
    residual = free * _neighbours(known)
    direction = residual
    square = _square(residual)
    enough = _TOLERANCE**2 * square

    # In exact arithmetic as many steps as there are unknowns are enough.
    for step in range(2 * hidden[0].numel()):
        if step % _LOOK == 0 and not bool((square > enough).any()):
            break
        moving = square > enough
        product = free * (weight * direction - _neighbours(direction))
        # A system that is solved stands still, so that none depends on the others in its batch.
        length = torch.where(moving, square / (direction * product).sum(dim=(2, 3), keepdim=True), 0.0)
        solution.addcmul_(length, direction)
        residual = residual.addcmul(length, product, value=-1)
        before, square = square, torch.where(moving, _square(residual), square)
        direction = residual.addcmul(torch.where(moving, square / before, 0.0), direction)

    return torch.where(hidden, solution.to(x.dtype), x)


def _neighbours(x: Tensor) -> Tensor:
    """The weighted sum of the eight pixels around each, those outside of the image taken as zero.

    (1 2 1) down times (1 2 1) across is the stencil, with a 4 in the middle that does not belong.
    """

    padded = F.pad(x, (1, 1, 1, 1))
    down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    across = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    return (across - 4 * x) / 12


def _square(x: Tensor) -> Tensor:
    return (x * x).sum(dim=(2, 3), keepdim=True)


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    """Whether images are right with the most relevant q removed, and with the least relevant: bool (Q, B) each."""

    x = batch.x
    noise = NOISE * normal_like(x, batch.noise("imputation"))  # the same for all q

    def right(order: Tensor) -> Tensor:
        return right_without(
            batch.model, x, batch.y, order, lambda hidden: torch.where(hidden, impute(x, hidden) + noise, x)
        )

    return {"linear/top": right(batch.order), "linear/least": right(batch.order.flip(1))}


def _value(values: Mapping[str, Tensor]) -> Tensor:
    return (values["linear/least"].double() - values["linear/top"].double()).mean(dim=0) / 2


ROAD = Measure(
    "road",
    "ROAD",
    "more",
    False,
    "half of accuracy with the least relevant pixels removed first minus accuracy with the most relevant removed "
    "first, mean over 10…90 % of the pixels, noisy linear imputation",
    keeps=dict.fromkeys(("linear/top", "linear/least"), (torch.bool, (len(QUANTILES),))),
    compute=_compute,
    value=_value,
    grain=1 / (2 * len(QUANTILES)),
    settings={"imputation": {"name": "noisy linear", "noise": NOISE, "clipped": False}},
)
