"""Which images a model still gets right once some of their pixels are hidden.

If a map is right about what a model looks at, hiding the top of it costs more accuracy than hiding random pixels. What
hides a pixel matters: a constant tells where pixels were hidden, and a model trained on noise has learnt to look past
noise. So two fills are shown, the random order beside them, and ROAD's imputation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..evaluation.accuracy import predict
from ..modes import Classifier
from ..randomness import SampleKeyed, normal_like
from .measures import QUANTILES
from .road import NOISE, impute

__all__ = ["RANDOM_ORDERS", "right_when_hidden", "right_when_imputed"]

RANDOM_ORDERS = 5
"""How many random orders of the pixels are drawn, the same for all models."""


def right_when_hidden(
    model: Classifier, x: Tensor, y: Tensor, orders: dict[str, Tensor], fills: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Whether images are right with the first q of each order hidden by each fill.

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        orders: pixels in the order in which they go, int64 (B, n), by name; or several such orders, (D, B, n).
        fills: what takes their place, broadcast to the shape of ``x``, by name.

    Returns:
        By ``fill/order``: bool (Q, B), or (D, Q, B) of several orders.
    """

    found = {}
    for fill, values in fills.items():

        def filled(hidden: Tensor, values: Tensor = values) -> Tensor:
            return torch.where(hidden, values, x)

        for name, order in orders.items():
            rows = [_right(model, x, y, one, filled) for one in (order if order.ndim == 3 else order[None])]
            found[f"{fill}/{name}"] = torch.stack(rows) if order.ndim == 3 else rows[0]
    return found


def right_when_imputed(
    model: Classifier, x: Tensor, y: Tensor, order: Tensor, generator: SampleKeyed
) -> dict[str, Tensor]:
    """Whether images are right with the most relevant q removed, and with the least relevant, as ROAD removes them.

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        order: pixels from the most to the least relevant, int64 (B, n).
        generator: where the noise comes from, the same for all q.

    Returns:
        ``linear/top`` and ``linear/least``: bool (Q, B).
    """

    noise = NOISE * normal_like(x, generator)

    def removed(hidden: Tensor) -> Tensor:
        return torch.where(hidden, impute(x, hidden) + noise, x)

    return {
        "linear/top": _right(model, x, y, order, removed),
        "linear/least": _right(model, x, y, order.flip(1), removed),
    }


def _right(model: Classifier, x: Tensor, y: Tensor, order: Tensor, without: Callable[[Tensor], Tensor]) -> Tensor:
    """Whether images are right ``without`` the first q of the pixels, bool (Q, B)."""

    pixels = order.shape[1]
    place = order.argsort(dim=1)
    rows = []
    for share in QUANTILES:
        # As the mask counts: 0.29 · 100 is 28.999… in floating point.
        count = max(1, int(share * pixels + 1e-9))
        hidden = (place < count).view(len(x), 1, *x.shape[2:])
        rows.append(predict(model, without(hidden), "images with hidden pixels") == y)
    return torch.stack(rows)
