"""Sparseness: the concentration of a map on few values."""

from __future__ import annotations

from ..similarity import gini
from .measure import NUMBER, Measure

__all__ = ["SPARSENESS"]

SPARSENESS = Measure(
    "sparseness",
    "sparseness",
    None,
    True,
    "the Gini index of |a|",
    keeps={"sparseness": NUMBER},
    compute=lambda batch: {"sparseness": gini(batch.a)},
    value=lambda values: values["sparseness"],
)
