r"""Relative max-sensitivity: the largest change of an attribution under a small change of the image.

.. math:: \max_{\|\delta\|_\infty \le r} \frac{\|a(x + \delta) - a(x)\|_2}{\|a(x)\|_2}

over uniform draws of δ. Relative, because the size of a gradient differs between models and is independent of its map.
The perturbed image is not clipped to [0, 1]: the definition does not, and clipping would halve the perturbation
wherever an image is black or white.

References:
    Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", https://arxiv.org/abs/1901.09392
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...modes import Classifier, precise
from ...randomness import SampleKeyed, seed_of
from ...saliency import saliency
from .map_batch import MapBatch, Mapper
from .measure import NUMBER, Measure

__all__ = ["DRAWS", "RADIUS", "SENSITIVITY", "gradient", "max_sensitivity"]

RADIUS = 0.05
DRAWS = 10


def gradient(model: Classifier, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
    """The plain gradient, which draws no noise, as a :data:`asgt.explanation.measures.map_batch.Mapper`."""

    return saliency(model, x, y)


def max_sensitivity(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    radius: float = RADIUS,
    draws: int = DRAWS,
    attribution: Mapper = gradient,
    ids: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """The relative max-sensitivity of each image's attribution.

    Args:
        model: the classifier, images to logits (B, K).
        x: images (B, C, H, W).
        y: labels (B,), int64.
        radius: r.
        draws: uniform draws of δ, each coordinate by itself in [−r, r].
        attribution: the attribution. Default: the plain gradient.
        ids: the key of each image's noise, int64 (B,). Default: its index in the batch.
        seed: part of the same key.
        batch_size: perturbed copies in memory at a time; it does not change the random numbers.

    Returns:
        float64 (B,), NaN if the attribution of the image is zero.
    """

    ids = torch.arange(len(x), device=x.device) if ids is None else ids
    largest = []
    for rows in torch.arange(len(x), device=x.device).split(batch_size):
        own, label, key = x[rows], y[rows], ids[rows]
        a = attribution(model, own, label, key)
        size = precise(a.flatten(1)).norm(dim=1)
        farthest = torch.zeros_like(size)

        noise = SampleKeyed(seed, key)
        together = max(1, batch_size // len(rows))
        for first in range(0, draws, together):
            count = min(together, draws - first)
            # Several draws share a pass where the images are few.
            copies = torch.cat([own + radius * (2 * noise.uniform_like(own) - 1) for _ in range(count)])
            moved = attribution(model, copies, label.repeat(count), key.repeat(count))
            distance = precise((moved.view(count, *a.shape) - a).flatten(2)).norm(dim=2)
            farthest = torch.maximum(farthest, distance.amax(dim=0))

        largest.append(farthest / size)
    # 0 / 0 is NaN; a zero map that moves is infinitely sensitive, which no mean survives.
    value = torch.cat(largest)
    return torch.where(value.isinf(), torch.nan, value)


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    value = max_sensitivity(
        batch.model,
        batch.x,
        batch.y,
        attribution=batch.mapper,
        ids=batch.ids,
        seed=seed_of("sensitivity", batch.seed),
        batch_size=batch.batch_size,
    )
    return {"sensitivity": value}


SENSITIVITY = Measure(
    "sensitivity",
    "relative max-sensitivity",
    "less",
    False,
    "the largest ‖a(x + δ) − a(x)‖₂ / ‖a(x)‖₂ of 10 uniform draws of ‖δ‖∞ ≤ 0.05",
    keeps={"sensitivity": NUMBER},
    compute=_compute,
    value=lambda values: values["sensitivity"],
    undefined="sensitivity",
    settings={"sensitivity": {"radius": RADIUS, "draws": DRAWS, "clipped": False}},
)
