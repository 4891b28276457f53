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

__all__ = ["QUANTILES", "RANDOM_ORDERS", "right_when_hidden", "right_without"]

QUANTILES = tuple(tenth / 10 for tenth in range(1, 10))
"""The shares of the pixels that are hidden, q."""

RANDOM_ORDERS = 5
"""How many random orders of the pixels are drawn, the same for all models."""


def right_when_hidden(model: Classifier, x: Tensor, y: Tensor, order: Tensor, fill: Tensor) -> Tensor:
    """Whether images are right with the first q of the pixels hidden, bool (Q, B).

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        order: pixels in the order in which they go, int64 (B, n).
        fill: what takes their place, broadcast to the shape of ``x``.
    """

    return right_without(model, x, y, order, lambda hidden: torch.where(hidden, fill, x))


def right_without(
    model: Classifier, x: Tensor, y: Tensor, order: Tensor, removed: Callable[[Tensor], Tensor]
) -> Tensor:
    """Whether images are right with the first q of the pixels removed, bool (Q, B).

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        order: pixels in the order in which they go, int64 (B, n).
        removed: from the pixels that are hidden, bool (B, 1, H, W), to the images without them.
    """

    pixels = order.shape[1]
    place = order.argsort(dim=1)
    rows = []
    for share in QUANTILES:
        # As the mask counts: 0.29 · 100 is 28.999… in floating point.
        count = max(1, int(share * pixels + 1e-9))
        hidden = (place < count).view(len(x), 1, *x.shape[2:])
        rows.append(predict(model, removed(hidden), "images with hidden pixels") == y)
    return torch.stack(rows)
