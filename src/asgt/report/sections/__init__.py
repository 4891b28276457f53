"""The sections of the page, in reading order. A new one is a file in this folder and a line in :data:`SECTIONS`."""

from __future__ import annotations

from ..section import Section
from .again_section import AGAIN
from .checks_section import CHECKS
from .classes_section import CLASSES
from .curves_section import CURVES
from .differences_section import DIFFERENCES
from .evidence_section import EVIDENCE
from .findings_section import FINDINGS
from .maps_section import MAPS
from .measures_section import MEASURES_OF_MAPS
from .shortcut_section import SHORTCUTS_USED
from .tables_section import TABLES
from .traces_section import TRACES
from .training_section import TRAINING
from .warnings_section import WARNINGS

__all__ = ["SECTIONS"]

SECTIONS: tuple[Section, ...] = (
    FINDINGS,
    WARNINGS,
    CURVES,
    TABLES,
    CLASSES,
    SHORTCUTS_USED,
    CHECKS,
    TRACES,
    DIFFERENCES,
    MEASURES_OF_MAPS,
    MAPS,
    TRAINING,
    AGAIN,
    EVIDENCE,
)
