"""A model that is not better than chance has no robustness to measure."""

from __future__ import annotations

from ...statistics import wilson
from ..check import Check
from ..second_look import SecondLook

__all__ = ["check_clean_accuracy"]


def check_clean_accuracy(look: SecondLook) -> Check:
    """A model that is not better than chance has no robustness to measure."""

    right, count = int(look.evaluation.clean.sum()), look.evaluation.samples
    low, high = wilson(right, count)
    evidence = (
        f"clean accuracy {right / count:.1%} [{low:.1%}, {high:.1%}], n = {count}; the largest class has a share "
        f"of {look.largest_class:.1%}"
    )
    if low > look.largest_class:
        return Check("clean accuracy", "PASS", evidence)
    remedy = (
        "check the normalisation (--mean, --std) and the order of the classes: they often differ from those "
        "of the training"
    )
    return Check("clean accuracy", "FAIL", evidence, remedy)
