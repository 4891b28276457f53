"""Everything that a comparison says, computed once: the page draws it, and the terminal prints it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..runs.run import Run
from .accuracy_tables import AccuracyTable, tables_of
from .comparing import Comparison
from .credibility import Credibility, credibility_of
from .differences import DifferenceTable, shown_differences
from .findings import findings_of, findings_of_maps
from .map_evidence import MapEvidence, gather_maps
from .method_naming import Method

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    """What a comparison says.

    Attributes:
        comparison: the runs side by side.
        findings: what was found, in sentences.
        tables: the accuracies, at a few ε.
        differences: between methods, the strictest judge's first; empty where no two methods can be paired.
        credibility: what the checks say, a protocol each.
        maps: where the models look.
        warnings: what a reader must not miss, with the method and the run.
        remarks: what a reader must know of the files that all of this rests on.
    """

    comparison: Comparison
    findings: tuple[str, ...]
    tables: tuple[AccuracyTable, ...]
    differences: tuple[DifferenceTable, ...]
    credibility: tuple[Credibility, ...]
    maps: MapEvidence
    warnings: tuple[tuple[Method, Run, str], ...]
    remarks: tuple[str, ...] = ()


def summarise(comparison: Comparison, *, allow: Collection[str] = ()) -> Summary:
    """Computes what a comparison says.

    Args:
        comparison: the runs side by side.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it, for the maps of its runs.
    """

    maps = gather_maps(comparison.methods, comparison, allow=allow)
    differences = shown_differences(comparison)
    credibility, warnings = credibility_of(comparison), tuple(comparison.warnings())
    return Summary(
        comparison=comparison,
        findings=(*findings_of(comparison, differences, credibility, warnings), *findings_of_maps(maps)),
        tables=tables_of(comparison),
        differences=differences,
        credibility=credibility,
        maps=maps,
        warnings=warnings,
        remarks=tuple(comparison.remarks()),
    )
