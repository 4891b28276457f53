"""The two ways in which adversarial training fails, as tests on a model's predictions: one rule each.

The trainer applies them to the validation images after each epoch, and the check of an evaluation to its images. A
comparison repeats the results of a run's evaluations (:func:`catastrophic_on_test`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isclose

from torch import Tensor

from .outcomes import Evaluation

__all__ = [
    "COLLAPSE",
    "DIAGNOSES",
    "OVERFITTING",
    "catastrophic_levels",
    "catastrophic_on_test",
    "collapse_threshold",
    "is_catastrophic",
    "is_collapsed",
]

COLLAPSE, OVERFITTING = "collapse", "catastrophic overfitting"
"""The names of the two; the second is that of a check too."""

DIAGNOSES = (COLLAPSE, OVERFITTING)
"""How the warnings of a training name what went wrong."""

# Of the clean accuracy. One step leaves healthy nets less of it wherever several steps leave less than half of that: at
# most 0.75 on digits and MNIST. Where training against one step had died on MNIST, it left 0.9 and more.
_HIGH = 0.8


def collapse_threshold(labels: Tensor) -> float:
    """The share of one predicted class from which on a model counts as collapsed.

    Half of the images; but where one class really holds more than a quarter of them (two classes, say, or unbalanced
    ones), halfway between its share and all.
    """

    largest = labels.bincount().max().item() / len(labels)
    return 0.5 if largest <= 0.25 else (1.0 + largest) / 2.0


def is_collapsed(predictions: Tensor, labels: Tensor) -> bool:
    """Whether a model predicts one class far too often: for half of the images or more, if no class holds so many.

    Args:
        predictions: predicted classes of clean images, int64 (N,).
        labels: their labels, int64 (N,).
    """

    return bool(predictions.bincount().max().item() / len(predictions) >= collapse_threshold(labels))


def is_catastrophic(fgsm_accuracy: float, pgd_accuracy: float) -> bool:
    """Catastrophic overfitting: accuracy is high under one step, but low under several, at the same ε.

    For other models, robust or not, the two accuracies are close: that under PGD is more than half of that under
    FGSM, or less than 20 points lower.

    References:
        Wong et al. 2020, "Fast is better than free", https://arxiv.org/abs/2001.03994
    """

    return fgsm_accuracy - pgd_accuracy >= 0.2 and pgd_accuracy < 0.5 * fgsm_accuracy


def catastrophic_levels(
    epsilons: Sequence[float], clean: float, one_step: Sequence[float], several: Sequence[float]
) -> list[int]:
    """The indices in a grid where the accuracy is high under one step and low under several steps.

    Args:
        epsilons: the grid, ascending.
        clean: clean accuracy.
        one_step: accuracy under one step, at each ε.
        several: accuracy under several steps, at each ε.
    """

    levels = []
    for level, eps in enumerate(epsilons):
        # A model that is robust up to half of this ε has not died: one step merely fails beyond its training ε.
        below = [other for other in range(level) if epsilons[other] <= eps / 2]
        alive = bool(below) and several[below[-1]] >= _HIGH * clean
        # Far beyond the ε of the training one step is weak on any model, and then leaves little of the accuracy too.
        if not alive and one_step[level] >= _HIGH * clean and is_catastrophic(one_step[level], several[level]):
            levels.append(level)
    return levels


def catastrophic_on_test(evaluations: Collection[Evaluation], eps: float) -> str | None:
    """The catastrophic overfitting in the evaluations of one run at its training ε; ``None`` if there is none.

    A search of one step (that of protocol ``paper``) is compared with the first worst case on the same images.
    Without one, the check of a worst case decides, which runs a one-step attack.

    Args:
        evaluations: of one model, in the order of the protocols.
        eps: the ε that it was trained at, in their norm.
    """

    worst = [evaluation for evaluation in evaluations if evaluation.protocol.worst_case]
    for evaluation in evaluations:
        for search in evaluation.protocol.searches:
            if not search.is_one_step or evaluation.protocol.worst_case:
                continue
            for other in worst:
                if (evaluation.norm, evaluation.data) != (other.norm, other.data):
                    continue
                places = [[isclose(known, eps) for known in each.epsilons] for each in (evaluation, other)]
                if not all(map(any, places)):
                    continue
                (strong,) = other.protocol.searches
                fgsm, pgd = evaluation.robust_accuracy(eps, search.name), other.robust_accuracy(eps, strong.name)
                if not is_catastrophic(fgsm.value, pgd.value):
                    return None
                return (
                    f"{OVERFITTING} on the test images: {100 * fgsm.value:.1f} % under {search.title}, "
                    f"{100 * pgd.value:.1f} % under {strong.title.split(',')[0]} at eps {eps:g}"
                )
    for evaluation in worst:
        for check in evaluation.checks:
            if check.name == OVERFITTING and check.verdict == "WARN":
                return f"{OVERFITTING} on the test images, by protocol {evaluation.protocol.key}: {check.evidence}"
    return None
