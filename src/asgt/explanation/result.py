"""What the explanation of one model holds, image by image, and the evidence of it on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..attacks import Norm

__all__ = ["Explanation", "load_explanation"]


@dataclass(frozen=True)
class Explanation:
    """The maps of one model by one attribution, measured on N images, right or wrong.

    Attributes:
        attribution: what made the maps, as ``"gradient"``.
        settings: all that is needed to repeat it.
        eps: the training ε: stability is measured at a quarter of it and at all of it.
        norm: its norm.
        seed: keys every random draw by (seed, image, draw), so that all models see the same noise.
        model: SHA-256 of the model's weights.
        data: SHA-256 of the images and labels.
        ids: the rows of the test split, int64 (N,).
        labels: int64 (N,).
        predictions: int64 (N,).
        values: what was measured of each image; the last dimension is N.
        gate: the rank correlation of m with that of each of three re-initialised models, (3, N); empty (0, N) where
            the gate was not run.
        notes: what was not run and why, and how many maps are zero or not finite.
        seconds: what it took, on whatever machine it ran.
        batch_size: images per pass; no bearing on what is drawn.
    """

    attribution: str
    settings: dict[str, Any]
    eps: float
    norm: Norm
    seed: int
    model: str
    data: str
    ids: Tensor
    labels: Tensor
    predictions: Tensor
    values: dict[str, Tensor]
    gate: Tensor
    notes: tuple[str, ...]
    seconds: float
    batch_size: int

    def per_image(self, measure: str) -> Tensor | None:
        """A measure of each image, float64 (N,), NaN where it has none; ``None`` where it was not run."""

        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what ``result.json`` holds."""

        raise NotImplementedError


def load_explanation(folder: Path) -> Explanation:
    """Reads what :func:`asgt.explain` left in a folder, and checks its figures against the evidence beside them."""

    raise NotImplementedError
