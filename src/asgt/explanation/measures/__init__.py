"""The measures of the panel. To add one: one file with its record, and one line in :data:`MEASURES`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import unknown
from ..hiding import QUANTILES
from .alignment import ALIGNMENT
from .map_batch import MapBatch
from .masked_gap import GAPS
from .measure import NUMBER, Kept, Measure
from .object_mass import MASS
from .road import ROAD
from .sensitivity import SENSITIVITY
from .shortcut_hidden import HIDDEN_SHORTCUT
from .shortcut_mass import ON_SHORTCUT
from .sparseness import SPARSENESS
from .stability import STABILITY

__all__ = ["MEASURES", "NUMBER", "QUANTILES", "Kept", "MapBatch", "Measure", "measure_named", "measures_under"]

MEASURES: tuple[Measure, ...] = (
    *GAPS,
    ROAD,
    SPARSENESS,
    SENSITIVITY,
    *STABILITY,
    ALIGNMENT,
    MASS,
    *ON_SHORTCUT,
    *HIDDEN_SHORTCUT,
)
"""In the order of the panel. m is the channel mean of \\|a\\|, a the signed attribution to the label."""


def measure_named(name: str) -> Measure:
    """The measure of a name.

    Raises:
        InputError: the measure is unknown.
    """

    for measure in MEASURES:
        if measure.name == name:
            return measure
    raise unknown("measure", name, [measure.name for measure in MEASURES])


def measures_under(settings: Mapping[str, Any]) -> tuple[Measure, ...]:
    """The measures that apply to an explanation with these settings: those of the shortcut only where there is one."""

    return tuple(measure for measure in MEASURES if settings.get("shortcut") or not measure.needs_shortcut)
