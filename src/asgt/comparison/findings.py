"""The findings of a comparison in sentences, the number first; none says which of two close methods is better.

Each sentence repeats what the tables show.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from ..numbers import counted, eps_text
from ..runs.run import Run
from ..statistics import Estimate, PairedDifference
from .comparing import Column, Comparison
from .credibility import Credibility, Finding
from .differences import DifferenceTable
from .explained import Explained
from .map_evidence import MapEvidence
from .method_naming import Method
from .tradeoff import Tradeoff

__all__ = ["alarms_of", "failed_checks", "findings_of"]


def findings_of(
    comparison: Comparison,
    differences: Sequence[DifferenceTable],
    warnings: Sequence[tuple[Method, Run, str]],
    evidence: MapEvidence,
) -> list[str]:
    """The findings on robustness and on maps, the three most important first.

    Args:
        comparison: the runs side by side.
        differences: between methods, the strictest protocol's first.
        warnings: those of the comparison.
        evidence: what was measured of maps.
    """

    decided = _decided(differences[0] if differences else None)
    maps = findings_of_maps(evidence)
    weak = _weak_beside_strong(comparison)
    sentences = [*_range_under_judge(comparison), *decided[:1], *maps[:1], *weak, *decided[1:], *maps[1:]]
    warned = {run.folder for _, run, _ in warnings}
    if warned:
        total = sum(len(method.runs) for method in comparison.methods)
        sentences.append(f"{len(warned)} of {total} runs carry a warning; the tables include their numbers.")
    return sentences


def alarms_of(credibility: Sequence[Credibility]) -> list[str]:
    """The checks that failed under a worst case, a sentence for each protocol."""

    sentences = []
    for each in credibility:
        if failed := failed_checks([each]):
            names = "; ".join(f"{finding.name} ({finding.who()})" for finding in failed)
            sentences.append(
                f"Checks fail under protocol {each.protocol.name} v{each.protocol.version}: {names}. Do not quote the "
                "accuracies of these methods before you know the reason."
            )
    return sentences


def findings_of_maps(evidence: MapEvidence) -> list[str]:
    """The findings on the maps of the first attribution and its first view of a shortcut, from the panels alone."""

    first = evidence.explained[:1]
    viewed = [each for each in evidence.explained[1:] if each.panel.shortcut_view][:1]
    shown = (*first, *(each for each in viewed if not first[0].panel.shortcut_view))
    return [sentence for each in shown for sentence in _of_maps(evidence, each)]


def _of_maps(evidence: MapEvidence, explained: Explained) -> list[str]:
    """The findings on the maps of one panel."""

    panel = explained.panel
    if panel.not_run:
        return [f"The maps were NOT measured: {panel.not_run}."]

    scores = {method: panel.value(method, explained.primary.name) for method in panel.methods}
    seeds = sorted({len(several) for several in panel.seeds.values()})
    measured = f"n = {next(iter(scores.values())).n} of {panel.asked} images that all models get right, " + (
        "one seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    )
    sentences = _range_of_maps(explained, scores, measured)
    tradeoff: Tradeoff | None = evidence.tradeoffs.get(explained.name)
    if tradeoff is not None and not isnan(tradeoff.correlation):
        sentences.append(f"{tradeoff.sentence()}; {measured}.")
    if blind := [method for method in panel.methods if panel.uninformative(method)]:
        sentences.append(
            f"{len(blind)} of {len(panel.methods)} methods ({', '.join(blind)}) have maps whose ranking of pixels "
            "correlates above 0.5 with that of random weights (the gate): these maps show the architecture, not what "
            "was learned."
        )
    return sentences


def failed_checks(credibility: Sequence[Credibility]) -> list[Finding]:
    """The checks that failed under a worst case; other protocols make no statement about robustness."""

    return [finding for each in credibility if each.protocol.worst_case for finding in each.failed]


def _measured(comparison: Comparison, column: Column) -> str:
    seeds = sorted({len(method.runs) for method in comparison.methods})
    over = "one seed" if seeds == [1] else f"mean over {' or '.join(map(str, seeds))} seeds"
    return f"n = {comparison.samples_of(column)}, {over}"


def _range_under_judge(comparison: Comparison) -> list[str]:
    """The range of the methods' accuracies under the strictest protocol."""

    judge, eps = comparison.judges()[-1], comparison.judging_eps()
    ranked = sorted(comparison.methods, key=lambda method: comparison.at(method, judge, eps).value)
    if len(ranked) < 2:
        return []
    low, high = (comparison.at(method, judge, eps) for method in (ranked[0], ranked[-1]))
    return [
        f"{low.percent()} % ({ranked[0].name}) to {high.percent()} % ({ranked[-1].name}) is the range of accuracy "
        f"under {judge.title} (protocol {judge.protocol} v{judge.version}) at ε = {eps_text(eps)}; "
        f"{_measured(comparison, judge)}."
    ]


def _decided(table: DifferenceTable | None) -> list[str]:
    """How many differences under the strictest protocol are decided."""

    if table is None:
        return []
    sentences = []
    for kind, beside in (("methods", "paired by seed"), ("models", "one seed each, so the methods are not compared")):
        of_kind: list[PairedDifference] = [each for each in table.differences if each.kind == kind]
        if of_kind:
            decided = sum(each.decision != "not decided" for each in of_kind)
            which = f"{counted(len(of_kind), 'difference')} between {kind}"
            sentences.append(
                f"{decided} of {which} {'is' if decided == 1 else 'are'} decided {table.where} ({beside}; p < 0.05 by "
                "Holm's correction)."
            )
    return sentences


def _weak_beside_strong(comparison: Comparison) -> list[str]:
    """The same model at the same ε under a weak and under a strong attack: the pair with the largest gap."""

    judge = comparison.judges()[-1]
    weak = next((column for column in comparison.columns if column.attack == "pgd-constant-rs"), None)
    if weak is None or not comparison.protocols[judge.key].worst_case:
        return []
    if comparison.samples_of(weak) != comparison.samples_of(judge):
        return []  # of different images, the gap would be no attack's
    both = sorted(set(comparison.epsilons[weak.key]) & set(comparison.epsilons[judge.key]))
    gap, method, eps = max(
        (
            (comparison.at(method, weak, eps).value - comparison.at(method, judge, eps).value, method, eps)
            for method in comparison.methods
            for eps in both
        ),
        key=lambda candidate: candidate[0],
    )
    if gap <= 0.05:
        return []
    return [
        f"{comparison.at(method, weak, eps).percent()} % under {weak.title} and "
        f"{comparison.at(method, judge, eps).percent()} % under {judge.title}: the accuracy of {method.name} at "
        f"ε = {eps_text(eps)} depends on the attack; {_measured(comparison, judge)}."
    ]


def _range_of_maps(explained: Explained, scores: dict[str, Estimate], measured: str) -> list[str]:
    """The range of the methods' values of the primary measure, and how many differences are decided."""

    measure, panel = explained.primary, explained.panel
    if len(scores) < 2 or any(score.not_run for score in scores.values()):
        return []
    low, high = (end(scores, key=lambda method: scores[method].value) for end in (min, max))
    areas = {"mass": ("object", panel.area), "shortcut-mass": ("shortcut", panel.shortcut_area)}
    whose, share = areas.get(measure.name, ("", 0.0))
    area = f"; the {whose}'s share of the area is {share:.3f}" if whose else ""
    sentences = [
        f"{scores[low].text()} ({low}) to {scores[high].text()} ({high}) is the range of the saliency maps' "
        f"{measure.title} by the {explained.name}{area}; {measured}."
    ]
    if differences := panel.differences(measure.name):
        decided = [each for each in differences if each.decision != "not decided"]
        sentences.append(
            f"{len(decided)} of {counted(len(differences), 'difference')} in {measure.title} "
            f"{'is' if len(decided) == 1 else 'are'} decided (p < 0.05 by Holm's correction)."
        )
    return sentences
