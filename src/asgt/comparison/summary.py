"""The results of a comparison, computed once: the page draws them, and the terminal prints them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..runs.run import Run
from .accuracy_tables import AccuracyTable, tables_of
from .comparing import Comparison
from .credibility import Credibility, credibility_of
from .differences import DifferenceTable, shown_differences
from .findings import alarms_of, findings_of
from .map_evidence import MapEvidence, gather_maps
from .method_naming import Method

__all__ = ["Summary", "summarise"]


@dataclass(frozen=True)
class Summary:
    """The results of a comparison.

    Attributes:
        comparison: the runs side by side.
        findings: the findings in sentences, the three most important first.
        tables: the accuracies, at a few ε.
        differences: between methods, the strictest protocol's first; empty where no two methods can be paired.
        credibility: the results of the checks, by protocol.
        maps: the results on saliency maps.
        warnings: with the method and the run.
        remarks: what a reader must know about the files that all of this uses. alarms: the checks that failed under a
            worst case, in sentences.
    """

    comparison: Comparison
    findings: tuple[str, ...]
    tables: tuple[AccuracyTable, ...]
    differences: tuple[DifferenceTable, ...]
    credibility: tuple[Credibility, ...]
    maps: MapEvidence
    warnings: tuple[tuple[Method, Run, str], ...]
    remarks: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()


def summarise(comparison: Comparison, *, allow: Collection[str] = ()) -> Summary:
    """Computes the results of a comparison.

    Args:
        comparison: the runs side by side.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it, for the maps of its runs.
    """

    maps = gather_maps(comparison.methods, comparison, allow=allow)
    differences = shown_differences(comparison)
    credibility, warnings = credibility_of(comparison), tuple(comparison.warnings())
    return Summary(
        comparison=comparison,
        findings=tuple(findings_of(comparison, differences, warnings, maps)),
        tables=tables_of(comparison),
        differences=differences,
        credibility=credibility,
        maps=maps,
        warnings=warnings,
        remarks=tuple(comparison.remarks()),
        alarms=tuple(alarms_of(credibility)),
    )
