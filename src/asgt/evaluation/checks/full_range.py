"""At an ε that allows any image, no model can be better than chance."""

from __future__ import annotations

import math

from ...statistics import wilson
from ..check import Check
from ..second_look import SecondLook
from .grading import first_rows

__all__ = ["check_full_range"]


def check_full_range(look: SecondLook) -> Check:
    """At an ε that allows any image, no model can be better than chance."""

    name, samples = "full range", look.clean_right
    if len(samples) == 0:
        return Check(name, "NOT RUN", "no clean sample is classified correctly", "see the check of clean accuracy")
    eps = 1.0 if look.evaluation.norm == "linf" else math.sqrt(samples.x[0].numel())
    broken = look.broken_by(look.pgd, samples, eps)
    left = int((~broken).sum())
    evidence = (
        f"PGD-40 at ε = {eps:.3g}, the full range: {left} of {len(samples)} images remain correct; a constant "
        f"prediction has {look.largest_class:.0%}"
    )
    if wilson(left, len(samples))[0] <= look.largest_class:
        return Check(name, "PASS", evidence)
    remedy = "gradients are masked, or the attack does not work: try an attack without gradients (Square)"
    return Check(name, "FAIL", evidence, remedy, first_rows(samples.rows[~broken]))
