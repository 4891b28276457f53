"""If margins do not predict the distance to the boundary, discarded samples may be breakable."""

from __future__ import annotations

from ..check import WORST_FIRST, Check
from ..discard_audit import Discards
from ..second_look import SecondLook
from .grading import POINT

__all__ = ["SURPRISING", "check_discarded_images"]

SURPRISING = 0.05
"""The share of an audit above which so many breaks say that margins mislead, whatever the bound is in the end."""


def check_discarded_images(look: SecondLook) -> Check | None:
    """If margins do not predict the distance to the boundary, discarded samples may be breakable."""

    name, samples = "discarded images", look.evaluation.samples
    if not look.evaluation.discards:
        return None
    # Of several searches, the one to which most is to be said.
    checks = [_checked(name, told, samples, look.evaluation.votes) for told in look.evaluation.discards.values()]
    return min(checks, key=lambda check: WORST_FIRST.index(check.verdict))


def _checked(name: str, told: Discards, samples: int, votes: int) -> Check:
    """The check of one search."""

    evidence = told.told(samples)
    if told.full:
        # Few images, or every ε asked for: the search did not run, and nothing speaks against it.
        if votes == 1 and not any(phase.samples for phase in told.phases[:-1]):
            return Check(name, "PASS", evidence)
        return Check(name, "WARN", evidence, "the number is that of the full search; inspect the gradients")
    if told.reason:
        return Check(name, "FAIL", evidence, "use --protocol standard: it then runs the full search on all images")
    if told.bound is None:
        return Check(name, "NOT RUN", evidence, "use --protocol standard: it audits them")
    if any(broke > SURPRISING * audited for audited, broke in (*told.earlier, (told.audited, told.broke))):
        return Check(
            name,
            "WARN",
            f"{evidence} (threshold {SURPRISING:.0%} of an audit)",
            "the number is corrected by the audits, but margins predict little here: inspect the gradients",
        )
    return Check(name, "PASS", f"{evidence} (threshold {100 * POINT:g} point)")
