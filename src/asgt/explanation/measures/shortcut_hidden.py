"""Accuracy with a planted shortcut hidden, and nothing else: what the model gets right without it.

What hides a pixel costs accuracy by itself. So as many random pixels elsewhere are hidden for comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ...evaluation.accuracy import predict
from ..hiding import RANDOM_ORDERS
from .map_batch import MapBatch
from .measure import NUMBER, Measure
from .shortcut_mass import shortcut_area

__all__ = ["HIDDEN_SHORTCUT"]


def _hidden(fill: str, words: str, filled: Callable[[MapBatch], Tensor]) -> tuple[Measure, Measure]:
    """Accuracy with the shortcut hidden, and with random pixels hidden, by one fill.

    Args:
        fill: its name.
        words: what takes the place of hidden pixels.
        filled: that, of a batch.
    """

    shortcut, elsewhere = f"shortcut/{fill}", f"shortcut/{fill}/elsewhere"

    def right(batch: MapBatch, each: Sequence[Tensor]) -> Tensor:
        """Whether images are right with each of some masks hidden, bool (len(each), B)."""

        fills = filled(batch)
        images = (torch.where(hidden[:, None], fills, batch.x) for hidden in each)
        return torch.stack([predict(batch.model, x, "images with hidden pixels") == batch.y for x in images])

    def of_shortcut(batch: MapBatch) -> dict[str, Tensor]:
        assert batch.shortcut is not None
        return {shortcut: right(batch, [batch.shortcut])[0], "shortcut/area": shortcut_area(batch)}

    def of_others(batch: MapBatch) -> dict[str, Tensor]:
        return {elsewhere: right(batch, _elsewhere(batch)), "shortcut/area": shortcut_area(batch)}

    def value(values: Mapping[str, Tensor]) -> Tensor:
        return values[shortcut].double().masked_fill(values["shortcut/area"] == 0, torch.nan)

    def value_of_others(values: Mapping[str, Tensor]) -> Tensor:
        area = values["shortcut/area"]
        return values[elsewhere].double().mean(dim=0).masked_fill((area == 0) | (area > 0.5), torch.nan)

    return (
        Measure(
            f"shortcut-hidden-{fill}",
            f"accuracy, shortcut hidden, {fill} fill",
            None,
            False,
            f"accuracy with the pixels of the shortcut hidden by {words}, and no others",
            keeps={shortcut: (torch.bool, ()), "shortcut/area": NUMBER},
            compute=of_shortcut,
            value=value,
            grain=1.0,
            needs_shortcut=True,
        ),
        Measure(
            f"elsewhere-hidden-{fill}",
            f"accuracy, as many pixels elsewhere hidden, {fill} fill",
            None,
            False,
            f"accuracy with as many random pixels outside of the shortcut hidden by {words}, the mean of "
            f"{RANDOM_ORDERS} draws; of images whose shortcut is at most half of the area",
            keeps={elsewhere: (torch.bool, (RANDOM_ORDERS,)), "shortcut/area": NUMBER},
            compute=of_others,
            value=value_of_others,
            grain=1 / RANDOM_ORDERS,
            needs_shortcut=True,
        ),
    )


def _elsewhere(batch: MapBatch) -> list[Tensor]:
    """As many random pixels outside of the shortcut as it has, bool (B, H, W), several draws.

    They are the first such pixels of the random orders that the masked-accuracy gap hides.
    """

    assert batch.shortcut is not None
    inside = batch.shortcut.flatten(1)
    count = inside.sum(dim=1, keepdim=True)
    draws = []
    for order in batch.random_orders:
        outside = ~inside.gather(1, order)
        first = outside & (outside.cumsum(dim=1) <= count)
        draws.append(torch.zeros_like(inside).scatter_(1, order, first).view_as(batch.shortcut))
    return draws


HIDDEN_SHORTCUT = (
    *_hidden("mean", "the data set's mean", lambda batch: batch.mean),
    *_hidden("noise", "uniform noise", lambda batch: batch.noise("fill").uniform_like(batch.x)),
)
"""``shortcut-hidden-mean`` and ``elsewhere-hidden-mean``, and the same by noise."""
