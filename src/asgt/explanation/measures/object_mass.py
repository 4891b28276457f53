"""Mass on the object: the share of a map on the object, for data with a known object."""

from __future__ import annotations

import torch
from torch import Tensor

from ...modes import precise
from .map_batch import MapBatch
from .measure import NUMBER, Measure

__all__ = ["MASS"]


def _compute(batch: MapBatch) -> dict[str, Tensor]:
    assert batch.objects is not None
    mass, area = precise(batch.m), precise(batch.objects).mean(dim=(1, 2))
    share = (mass * batch.objects).sum(dim=(1, 2)) / mass.sum(dim=(1, 2))
    # Nothing can lie on an object that has no pixels.
    return {"mass": share.masked_fill(area == 0, torch.nan), "area": area}


MASS = Measure(
    "mass",
    "mass on the object",
    "more",
    False,
    "the share of Σm on the object",
    keeps={"mass": NUMBER, "area": NUMBER},
    compute=_compute,
    value=lambda values: values["mass"],
    needs_objects=True,
)
