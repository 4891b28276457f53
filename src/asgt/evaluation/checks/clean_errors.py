"""A model that knows nothing has no robustness to measure."""

from __future__ import annotations

from ...statistics import wilson
from ..check import Check
from ..second_look import SecondLook

__all__ = ["check_clean_accuracy"]


def check_clean_accuracy(look: SecondLook) -> Check:
    """A model that knows nothing has no robustness to measure."""

    right, count = int(look.evaluation.clean.sum()), look.evaluation.samples
    low, high = wilson(right, count)
    evidence = (
        f"clean accuracy {right / count:.1%} [{low:.1%}, {high:.1%}], n = {count}; the largest class has "
        f"{look.largest_class:.1%}"
    )
    if low > look.largest_class:
        return Check("clean accuracy", "PASS", evidence)
    remedy = "most often the normalisation (--mean, --std) or the order of the classes is not that of the training"
    return Check("clean accuracy", "FAIL", evidence, remedy)
