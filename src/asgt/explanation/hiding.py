"""Which images a model classifies correctly after some of their pixels are masked.

If a map finds the pixels that a model uses, masking its top pixels reduces accuracy more than masking random
pixels. The fill matters: a constant shows where pixels were masked, and a model trained on noise is robust to noise.
So two fills are used, each with the random order, and ROAD's imputation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..evaluation.accuracy import predict
from ..modes import Classifier

__all__ = ["QUANTILES", "RANDOM_ORDERS", "right_when_hidden", "right_without"]

QUANTILES = tuple(tenth / 10 for tenth in range(1, 10))
"""The shares of masked pixels, q."""

RANDOM_ORDERS = 5
"""The number of random orders of the pixels, the same for all models."""


def right_when_hidden(model: Classifier, x: Tensor, y: Tensor, order: Tensor, fill: Tensor) -> Tensor:
    """Whether images are classified correctly with the first q of the pixels masked, bool (Q, B).

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        order: pixels in the order of masking, int64 (B, n).
        fill: the values for masked pixels, broadcast to the shape of ``x``.
    """

    return right_without(model, x, y, order, lambda hidden: torch.where(hidden, fill, x))


def right_without(
    model: Classifier, x: Tensor, y: Tensor, order: Tensor, removed: Callable[[Tensor], Tensor]
) -> Tensor:
    """Whether images are classified correctly with the first q of the pixels removed, bool (Q, B).

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        order: pixels in the order of masking, int64 (B, n).
        removed: from the mask of removed pixels, bool (B, 1, H, W), to the images without them.
    """

    pixels = order.shape[1]
    place = order.argsort(dim=1)
    rows = []
    for share in QUANTILES:
        # As the mask counts: 0.29 · 100 is 28.999… in floating point.
        count = max(1, int(share * pixels + 1e-9))
        hidden = (place < count).view(len(x), 1, *x.shape[2:])
        rows.append(predict(model, removed(hidden), "images with masked pixels") == y)
    return torch.stack(rows)
