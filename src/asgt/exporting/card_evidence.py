"""The measurements in a model card: accuracy under attack, the checks, and the limits."""

from __future__ import annotations

from ..evaluation.check import checks_text
from ..evaluation.outcomes import Evaluation
from ..numbers import counted, eps_text, norm_sign
from .card_source import CardSource
from .markdown import escaped, table

__all__ = ["accuracy_section", "checks_section", "limits_section", "summary"]

_INTERVAL = "95 % interval (Wilson)"


def summary(source: CardSource) -> str:
    """The first lines: the numbers and their basis."""

    if not source.evaluations:
        return (
            "**Not evaluated.** No attack was run on this model, so its robustness is unknown. [Below](#repeat) is "
            "the command that evaluates it."
        )
    evaluation = source.evaluations[0]
    eps = source.eps_of(evaluation)
    rows = [
        ["clean accuracy", evaluation.accuracy.percent(), str(evaluation.samples), "no attack"],
        [
            f"robust accuracy at ε = {eps_text(eps)} ({norm_sign(evaluation.norm)})",
            evaluation.robust_accuracy(eps).percent(),
            str(evaluation.samples),
            f"{_protocol(evaluation)}: {escaped(evaluation.protocol.claim)}",
        ],
    ]
    seeds = f"training seed {source.run.seed}, attack seed {evaluation.seed}"
    lines = [
        table(["quantity", f"% [{_INTERVAL}]", "test images", "measured by"], rows),
        f"One model, {seeds}. Checks of the attack: {escaped(checks_text(evaluation.checks))}."
        if evaluation.checks
        else f"One model, {seeds}. No check of the attack was run.",
    ]
    return "\n\n".join(lines)


def accuracy_section(source: CardSource) -> str:
    """A table for each evaluation."""

    if not source.evaluations:
        return ""
    parts = ["## Accuracy under attack"]
    for evaluation in source.evaluations:
        parts += _accuracy(source, evaluation)
    return "\n\n".join(parts)


def _accuracy(source: CardSource, evaluation: Evaluation) -> list[str]:
    protocol = evaluation.protocol
    selection = f" ({source.text(evaluation.selection)})" if evaluation.selection else ""
    titles = [source.text(search.title or search.name) for search in protocol.searches]
    curves = [evaluation.curve(search.name) for search in protocol.searches]
    rows = [["0 (clean)", *[evaluation.accuracy.percent()] * len(curves)]]
    rows += [[eps_text(eps), *(curve[eps].percent() for curve in curves)] for eps in evaluation.epsilons]
    told = [
        f"### Protocol {_protocol(evaluation)}: {escaped(protocol.claim)}",
        f"n = {evaluation.samples} test images{selection}; attacks in {norm_sign(evaluation.norm)}, ε in units of "
        f"pixels in [0, 1]; attack seed {evaluation.seed}. Accuracy in % with its {_INTERVAL}.",
        table(["ε", *titles], rows),
        _what_counts(source, evaluation),
    ]
    if evaluation.adapted:
        told.append("An attack was adapted to the small number of classes, so it differs from its authors' version.")
    if sentence := evaluation.class_sentence():
        told.append(f"By class: {source.text(sentence)}.")
    told += [
        f"{source.text(name)}: {source.text(each.told(evaluation.samples))}."
        for name, each in evaluation.discards.items()
    ]
    told.append(f"All numbers: [`results/{protocol.stored_as}.json`](results/{protocol.stored_as}.json).")
    return told


def _what_counts(source: CardSource, evaluation: Evaluation) -> str:
    """When an image counts as right, and what attacks it."""

    if not evaluation.protocol.worst_case:
        return "Each column is one attack. It starts from scratch at every ε, and its last iterate counts."
    full = {name for name, discards in evaluation.discards.items() if discards.full}
    attacks = "; ".join(
        search.among(evaluation.classes).described(full=search.name in full) for search in evaluation.protocol.searches
    )
    return (
        "An image counts as correct at an ε if the clean image is classified correctly and no attack breaks it at "
        f"that ε or a smaller one. Attacks: {source.text(attacks)}, and a search along the gradient of the margin."
    )


def checks_section(source: CardSource) -> str:
    """Every check of every evaluation, with its outcome."""

    checked = [evaluation for evaluation in source.evaluations if evaluation.checks]
    if not checked:
        return ""
    parts = [
        "## Checks of the attacks",
        "A failed attack makes a model look robust. Each check tests one reason for such a failure. A PASS is not "
        "a proof: it means that no failure was detected.",
    ]
    for evaluation in checked:
        rows = [
            [source.text(check.name), check.verdict, source.text(check.evidence), source.text(check.remedy) or "–"]
            for check in evaluation.checks
        ]
        parts += [f"### {_protocol(evaluation)}", table(["check", "outcome", "evidence", "remedy"], rows)]
    return "\n\n".join(parts)


def limits_section(source: CardSource) -> str:
    """The limits of the numbers."""

    lines = [*_limits_of_evaluation(source), *_limits_of_training(source)]
    return "## Known limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _limits_of_evaluation(source: CardSource) -> list[str]:
    if not source.evaluations:
        return ["The model was not evaluated. Do not use it if an adversary can change its input."]
    strongest = source.evaluations[0]
    norms = sorted({norm_sign(evaluation.norm) for evaluation in source.evaluations})
    largest = eps_text(max(evaluation.epsilons[-1] for evaluation in source.evaluations))
    lines = [
        f"Robust accuracy by protocol {_protocol(strongest)} is {escaped(strongest.protocol.claim)}. It is an "
        "upper bound: a stronger attack may break more images.",
        f"Measured in {' and '.join(norms)} up to ε = {largest}, only on test images of {source.text(source.data)}. "
        "Other norms, larger ε, corruptions such as blur or noise, and other data are not measured.",
        f"One training run (seed {source.run.seed}). Intervals are over images. They do not cover other seeds, so "
        "they do not describe the method.",
    ]
    for evaluation in source.evaluations:
        for verdict, verb in (("FAIL", "failed"), ("WARN", "warned")):
            names = [check.name for check in evaluation.checks if check.verdict == verdict]
            if names:
                listed = source.text(", ".join(names))
                lines.append(f"{_protocol(evaluation)}: {counted(len(names), 'check')} {verb} ({listed}).")
    return lines


def _limits_of_training(source: CardSource) -> list[str]:
    result = source.run.result
    lines = [f"Training warned: {source.text(each)}" for each in result.warnings]
    if result.collapsed and not result.warnings:
        lines.append("The model predicts one class for half of the images or more.")
    lines += [f"Files of the run: {source.text(remark)}" for remark in source.run.remarks]
    lines.append(
        "The digests in `manifest.json` detect accidents and edits. They are not a signature: anybody who can "
        "change the files can also change the digests."
    )
    return lines


def _protocol(evaluation: Evaluation) -> str:
    """The protocol by name and version, as code."""

    return f"`{evaluation.protocol.name}` v{evaluation.protocol.version}"
