"""A search without gradients finds adversarial examples that masked gradients hide."""

from __future__ import annotations

from ...attacks import Square
from ..check import THOROUGH, Check
from ..second_look import SecondLook
from .grading import counted_check, no_survivors

__all__ = ["check_square_queries"]

_QUERIES = 1000


def check_square_queries(look: SecondLook) -> Check:
    """A search without gradients finds adversarial examples that masked gradients hide."""

    name = "square"
    if not look.thorough:
        return Check(name, "NOT RUN", f"Square Attack with {_QUERIES:,} queries is an expensive check", THOROUGH)
    samples = look.many_survivors
    if len(samples) == 0:
        return no_survivors(name, look)
    broken = look.broken_by(Square(0.0, norm=look.evaluation.norm, steps=_QUERIES), samples, look.eps)
    remedy = "gradients mislead the search: count the samples that Square breaks as errors, and inspect the gradients"
    return counted_check(name, look, samples, broken, f"Square Attack with {_QUERIES:,} queries", remedy)
