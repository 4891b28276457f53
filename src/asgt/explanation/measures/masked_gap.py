"""The masked-accuracy gap: the loss of accuracy from masking the top pixels of a map, minus that from masking random
pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..hiding import QUANTILES, RANDOM_ORDERS, right_when_hidden
from .map_batch import MapBatch
from .measure import Measure

__all__ = ["GAPS"]


def _gap(fill: str, words: str, filled: Callable[[MapBatch], Tensor]) -> Measure:
    """The gap with one fill: its name, the fill in words, and what takes the place of hidden pixels."""

    top, random = f"{fill}/top", f"{fill}/random"

    def compute(batch: MapBatch) -> dict[str, Tensor]:
        values = filled(batch)

        def right(order: Tensor) -> Tensor:
            return right_when_hidden(batch.model, batch.x, batch.y, order, values)

        return {top: right(batch.order), random: torch.stack([right(order) for order in batch.random_orders])}

    def value(values: Mapping[str, Tensor]) -> Tensor:
        return (values[random].double().mean(dim=0) - values[top].double()).mean(dim=0)

    return Measure(
        f"gap-{fill}",
        f"masked-accuracy gap, {fill} fill",
        "more",
        False,
        "accuracy with random pixels masked minus accuracy with the pixels of largest m masked, mean "
        "over 10…90 % of the "
        f"pixels, fill: {words}",
        keeps={
            top: (torch.bool, (len(QUANTILES),)),
            random: (torch.bool, (RANDOM_ORDERS, len(QUANTILES))),
        },
        compute=compute,
        value=value,
        grain=1 / (len(QUANTILES) * RANDOM_ORDERS),
        settings={
            "quantiles": list(QUANTILES),
            "random_orders": RANDOM_ORDERS,
            "fills": {"mean": "the images' mean per channel", "noise": "uniform in [0, 1], one draw per image"},
        },
    )


GAPS = (
    _gap("mean", "the data set's mean", lambda batch: batch.mean),
    _gap("noise", "uniform noise", lambda batch: batch.noise("fill").uniform_like(batch.x)),
)
"""``gap-mean`` and ``gap-noise``."""
