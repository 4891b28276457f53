"""How much of a map lies on a planted shortcut: its mass, and the share of its top pixels, before and after attack.

A map without a preference has the shortcut's share of the area as both. They say what the model looks at: a map that
is right about a model that uses the shortcut has much of both.

References:
    Arras et al. 2022, "CLEVR-XAI: a benchmark dataset for the ground truth evaluation of neural network explanations",
    https://arxiv.org/abs/2003.07258 (relevance mass accuracy)

    Theiner et al. 2021, "Interpretable semantic photo geolocation", https://arxiv.org/abs/2104.14995 (top-k
    intersection)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...modes import precise
from .map_batch import PLACES, STEPS, MapBatch
from .measure import NUMBER, Measure

__all__ = ["ON_SHORTCUT", "shortcut_area"]

_TOP = 0.1
_WORDS = {"quarter": "ε/4", "full": "ε"}


def shortcut_area(batch: MapBatch) -> Tensor:
    """The shortcut's share of the pixels of each image, float64 (B,)."""

    assert batch.shortcut is not None
    return precise(batch.shortcut).mean(dim=(1, 2))


def _mass(m: Tensor, order: Tensor, shortcut: Tensor) -> Tensor:
    """The share of Σm on the shortcut, float64 (B,); NaN where m is zero everywhere or not finite."""

    mass = precise(m)
    total = mass.sum(dim=(1, 2))
    share: Tensor = (mass * shortcut).sum(dim=(1, 2)) / total
    return share.masked_fill(~(total.isfinite() & (total > 0)), torch.nan)


def _top(m: Tensor, order: Tensor, shortcut: Tensor) -> Tensor:
    """The share of the top tenth of the pixels that lies on the shortcut, float64 (B,); NaN likewise."""

    count = max(1, int(_TOP * order.shape[1] + 1e-9))
    share = precise(shortcut.flatten(1).gather(1, order[:, :count])).mean(dim=1)
    total = precise(m).sum(dim=(1, 2))
    return share.masked_fill(~(total.isfinite() & (total > 0)), torch.nan)


_KINDS: tuple[tuple[str, str, str, Callable[[Tensor, Tensor, Tensor], Tensor]], ...] = (
    ("mass", "mass on the shortcut", "the share of Σm that lies on the shortcut (relevance mass accuracy)", _mass),
    (
        "top",
        "top-10 % intersection with the shortcut",
        "the share of the top tenth of the pixels by m that lies on the shortcut (top-k intersection)",
        _top,
    ),
)


def _on_shortcut() -> list[Measure]:
    """Each kind of the image itself, and of the image under attack at each ε."""

    measures = []
    for kind, title, definition, share in _KINDS:
        for row, place in enumerate(("", *PLACES)):
            under = f", of the image under the model's own PGD-{STEPS} at {_WORDS[place]}" if place else ""
            measures.append(
                Measure(
                    f"shortcut-{kind}" + (f"@{place}" if place else ""),
                    title + (f" at {_WORDS[place]}" if place else ""),
                    None,
                    False,
                    f"{definition}{under}; chance: the shortcut's share of the area",
                    keeps={
                        f"shortcut/{kind}": (torch.float64, (1 + len(PLACES),)),
                        "shortcut/area": NUMBER,
                    },
                    compute=_computed(f"shortcut/{kind}", share),
                    value=_value(f"shortcut/{kind}", row),
                    needs_shortcut=True,
                    undefined="mass on the shortcut" if kind == "mass" else "",
                )
            )
    return measures


def _computed(name: str, share: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[MapBatch], dict[str, Tensor]]:
    """A kind of the image itself and at every ε, (3, B), and the area."""

    def compute(batch: MapBatch) -> dict[str, Tensor]:
        assert batch.shortcut is not None
        area, maps = shortcut_area(batch), [(batch.m, batch.order), *((each.m, each.order) for each in batch.attacked)]
        shares = torch.stack([share(m, order, batch.shortcut) for m, order in maps])
        # Nothing can lie on a shortcut that has no pixels.
        return {name: shares.masked_fill(area == 0, torch.nan), "shortcut/area": area}

    return compute


def _value(name: str, row: int) -> Callable[[Mapping[str, Tensor]], Tensor]:
    return lambda values: values[name][row]


ON_SHORTCUT = tuple(_on_shortcut())
"""``shortcut-mass`` and ``shortcut-top``, each also ``@quarter`` and ``@full``."""
