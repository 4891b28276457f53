"""A batch of images and their maps, the input of all measures; shared values are computed once, on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ...attacks import PGD, Norm
from ...evaluation.accuracy import predict
from ...modes import Classifier
from ...randomness import SampleKeyed, seed_of
from ...saliency import magnitude
from ..hiding import RANDOM_ORDERS
from ..similarity import order_of

__all__ = ["PLACES", "STEPS", "Attacked", "MapBatch", "Mapper"]

STEPS = 20
"""The steps of the PGD under which stability is measured."""

PLACES = ("quarter", "full")
"""The ε at which stability is measured: a quarter of the training ε, and its full value."""

Mapper: TypeAlias = Callable[[Classifier, Tensor, Tensor, Tensor], Tensor]
"""A model, images (B, C, H, W), labels (B,) and the ids (B,) that key its noise, to attributions (B, C, H, W)."""


@dataclass(frozen=True)
class Attacked:
    """The images of a batch under the model's own attack at one ε.

    Attributes:
        a: the attributions of the attacked images to the labels, (B, C, H, W).
        m: their magnitude, (B, H, W).
        order: the pixels from the highest m to the lowest, int64 (B, H·W).
        flipped: whether the model's prediction is no longer the label, bool (B,).
    """

    a: Tensor
    m: Tensor
    order: Tensor
    flipped: Tensor


@dataclass(frozen=True)
class MapBatch:
    """A batch of B images, the model that is explained, and its maps.

    All random draws are keyed by (seed, image, draw): draw from :meth:`noise`, so that all models get the same
    noise, and measures do not change each other's.

    Attributes:
        model: the classifier, images to logits (B, K).
        x: images (B, C, H, W) in [0, 1].
        y: labels (B,), int64.
        ids: the rows of the images in the test split, int64 (B,).
        a: the signed attributions to the labels, (B, C, H, W). One that is not finite is zero here, and its image is
            omitted from the result.
        mean: the mean per channel of all images, (C, 1, 1).
        objects: the mask of the object, bool (B, H, W); ``None`` if unknown.
        eps: the training ε.
        norm: its norm.
        seed: keys all noise, with the ids.
        mapper: makes the attributions of other images by the same method.
        batch_size: images, or copies of them, in a pass.
        shortcut: where a planted shortcut lies, bool (B, H, W); ``None`` where there is none.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    ids: Tensor
    a: Tensor
    mean: Tensor
    objects: Tensor | None
    eps: float
    norm: Norm
    seed: int
    mapper: Mapper
    batch_size: int
    shortcut: Tensor | None = None

    def noise(self, name: str) -> SampleKeyed:
        """Noise for one purpose, separate for each image: equal names give equal draws, other names independent
        ones.
        """

        return SampleKeyed(seed_of(name, self.seed), self.ids)

    @cached_property
    def m(self) -> Tensor:
        """The channel mean of \\|a\\|, (B, H, W)."""

        return magnitude(self.a)

    @cached_property
    def _ties(self) -> SampleKeyed:
        # Ties fall differently before and after an attack: maps of mostly zeros must not share their tops by the order.
        return self.noise("ties")

    @cached_property
    def order(self) -> Tensor:
        """The pixels from the highest m to the lowest, int64 (B, H·W)."""

        return order_of(self.m, self._ties)

    @cached_property
    def random_orders(self) -> Tensor:
        """Several random orders of the pixels, int64 (D, B, H·W)."""

        draws, pixels = self.noise("orders"), self.x[:, 0].flatten(1)
        return torch.stack([draws.uniform_like(pixels).argsort(dim=1) for _ in range(RANDOM_ORDERS)])

    @cached_property
    def attacked(self) -> tuple[Attacked, ...]:
        """The images under the model's own PGD, at each ε of :data:`PLACES`."""

        # The first draw of the ties is that of the map itself, whatever measure comes first.
        _ = self.order
        return tuple(self._attacked(eps) for eps in (self.eps / 4, self.eps))

    def _attacked(self, eps: float) -> Attacked:
        attack = PGD(eps=eps, norm=self.norm, steps=STEPS)
        x_adv = attack(self.model, self.x, self.y, generator=self.noise("attack"))
        a = self.mapper(self.model, x_adv, self.y, self.ids)
        m = magnitude(a)
        flipped = predict(self.model, x_adv, "attacked images") != self.y
        return Attacked(a, m, order_of(m, self._ties), flipped)
