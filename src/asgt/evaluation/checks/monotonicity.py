"""A larger ball contains the smaller one, so accuracy cannot rise with ε."""

from __future__ import annotations

import torch

from ...statistics import clopper_pearson
from ..check import Check
from ..second_look import SecondLook
from .grading import ALONE, POINT, first_rows

__all__ = ["check_monotonicity"]


def check_monotonicity(look: SecondLook) -> Check:
    """A larger ball contains the smaller one, so accuracy cannot rise with ε."""

    name = "monotonicity"
    if not look.evaluation.protocol.worst_case:
        for search, outcomes in look.evaluation.outcomes.items():
            counts = outcomes.sum(dim=1)
            rise = int((counts - counts.cummin(dim=0).values).max())
            if rise > ALONE and rise / look.evaluation.samples > POINT:
                evidence = (
                    f"the accuracy under {search} rises with ε by {100 * rise / look.evaluation.samples:.1f} points "
                    f"(threshold {100 * POINT:g} point, n = {look.evaluation.samples})"
                )
                return Check(
                    name,
                    "FAIL",
                    evidence,
                    "count a sample that is broken at a smaller ε as broken at every larger one, as protocol pgd does",
                )
        return Check(name, "PASS", f"no accuracy rises with ε by more than {100 * POINT:g} point or one sample")

    said, verdict, rows = [], "PASS", torch.empty(0, dtype=torch.int64)
    for search, told in look.evaluation.details.items():
        # Samples, not attacks: what one sample does at several ε is not independent.
        tested, missed = int((told["tested"] > 0).sum()), int((told["missed"] > 0).sum())
        if tested == 0:
            continue
        high = clopper_pearson(missed, tested)[1]
        said.append(f"{missed} of {tested} under {search} (at most {high:.1%}, Clopper–Pearson 95 %)")
        if missed > POINT * tested:
            verdict, rows = "WARN", (told["missed"] > 0).nonzero().squeeze(1)
    if not said:
        return Check(
            name,
            "NOT RUN",
            "no sample was attacked at an ε below one at which the attack failed",
            "use --exhaustive to attack all of them",
        )
    evidence = f"samples broken at a smaller ε than one at which the attack failed: {', '.join(said)}"
    if verdict == "PASS":
        return Check(name, "PASS", evidence)
    remedy = "use a stronger search; the evaluation has attacked every sample at every ε"
    if not all(told.full for told in look.evaluation.discards.values()):
        remedy = "use --protocol standard: it then attacks every sample at every ε"
    return Check(name, "WARN", evidence, remedy, first_rows(rows))
