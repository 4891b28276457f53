"""Stability: the similarity of a map before and under the model's own attack, at a quarter of the training ε and at
its full value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..similarity import cosine, spearman_of_finite, top_overlap
from .map_batch import PLACES, STEPS, Attacked, MapBatch
from .measure import Measure

__all__ = ["STABILITY"]

_WORDS = {"quarter": "ε/4", "full": "ε"}


def _rank(batch: MapBatch, attacked: Attacked) -> Tensor:
    return spearman_of_finite(batch.m, attacked.m)


def _overlap(batch: MapBatch, attacked: Attacked) -> Tensor:
    blank = ~(batch.m.flatten(1).amax(dim=1) > 0) | ~(attacked.m.flatten(1).amax(dim=1) > 0)
    return top_overlap(batch.order, attacked.order).masked_fill(blank, torch.nan)


def _cosine(batch: MapBatch, attacked: Attacked) -> Tensor:
    return cosine(batch.a, attacked.a)


_KINDS: tuple[tuple[str, str, str, Callable[[MapBatch, Attacked], Tensor]], ...] = (
    ("rank", "rank correlation", "Spearman's correlation of m", _rank),
    ("overlap", "top-10 % overlap", "the share of the top tenth of the pixels by m that is common", _overlap),
    ("cosine", "cosine", "the cosine of a", _cosine),
)


def _stability() -> list[Measure]:
    """Each kind at each ε, of all images and of the unflipped."""

    measures = []
    for place in PLACES:
        for kind, title, definition, similarity in _KINDS:
            for unflipped in (False, True):
                measures.append(
                    Measure(
                        f"{kind}@{place}" + (":unflipped" if unflipped else ""),
                        f"{title} at {_WORDS[place]}" + (", unflipped" if unflipped else ""),
                        "more",
                        True,
                        f"{definition} between an image and itself under the model's own PGD-{STEPS} at "
                        f"{_WORDS[place]}, the target held at the label",
                        keeps={kind: (torch.float64, (len(PLACES),)), "flipped": (torch.bool, (len(PLACES),))},
                        compute=_computed(kind, similarity),
                        value=_value(kind, PLACES.index(place), unflipped),
                        unflipped=unflipped,
                        undefined="rank correlation" if kind == "rank" else "",
                        settings={
                            "attack": {
                                "name": f"PGD-{STEPS}",
                                "alpha": "2.5 eps / steps",
                                "random_start": True,
                                "eps": ["eps / 4", "eps"],
                            },
                            "overlap": 0.1,
                        },
                    )
                )
    return measures


def _computed(kind: str, similarity: Callable[[MapBatch, Attacked], Tensor]) -> Callable[[MapBatch], dict[str, Tensor]]:
    """A kind at every ε, (2, B), and which images the attack flips."""

    def compute(batch: MapBatch) -> dict[str, Tensor]:
        return {
            kind: torch.stack([similarity(batch, attacked) for attacked in batch.attacked]),
            "flipped": torch.stack([attacked.flipped for attacked in batch.attacked]),
        }

    return compute


def _value(kind: str, row: int, unflipped: bool) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """A kind at one ε, of all images, or NaN of those that the attack flips."""

    def value(values: Mapping[str, Tensor]) -> Tensor:
        each = values[kind][row]
        return each.masked_fill(values["flipped"][row], torch.nan) if unflipped else each

    return value


STABILITY = tuple(_stability())
"""``rank``, ``overlap`` and ``cosine``, ``@quarter`` and ``@full``, each also ``:unflipped``."""
