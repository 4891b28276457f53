"""Alignment: the similarity of a map and the image.

References:
    Etmann et al. 2019, "On the connection between adversarial robustness and saliency map interpretability",
    https://arxiv.org/abs/1905.04172
"""

from __future__ import annotations

from ..similarity import cosine
from .measure import NUMBER, Measure

__all__ = ["ALIGNMENT"]

ALIGNMENT = Measure(
    "alignment",
    "alignment",
    "more",
    True,
    "|cos(x − the data set's mean, a)|",
    keeps={"alignment": NUMBER},
    compute=lambda batch: {"alignment": cosine(batch.x - batch.mean, batch.a).abs()},
    value=lambda values: values["alignment"],
    undefined="alignment",
)
