"""A search includes its first step: if one step is better, the search is not reliable."""

from __future__ import annotations

import torch

from ..check import Check
from ..second_look import SecondLook
from .grading import ONE_STEP_ONLY, POINT, graded_check, one_step_searches

__all__ = ["check_one_step_beats_many"]


def check_one_step_beats_many(look: SecondLook) -> Check:
    """A search includes its first step: if one step is better, the search is not reliable."""

    name = "FGSM against the search"
    one_step, several = one_step_searches(look)
    if not several:
        return Check(name, "NOT RUN", *ONE_STEP_ONLY)
    if one_step:
        held = torch.stack([look.evaluation.outcomes[search] for search in several]).all(dim=0)
        fails = ~torch.stack([look.evaluation.outcomes[search] for search in one_step]).all(dim=0)
        beaten = look.evaluation.clean & held & fails
    else:
        beaten = look.right & look.one_step

    count, worst = max((int(row.sum()), level) for level, row in enumerate(beaten))
    share = count / look.evaluation.samples
    eps = look.evaluation.epsilons[worst]
    evidence = (
        f"of {look.evaluation.samples} samples, one step breaks {count} that no search of several steps breaks at "
        f"ε = {eps:g}, {100 * share:.1f} points of accuracy (threshold {100 * POINT:g} point), and "
        "no more at any other ε"
    )
    remedy = (
        "use more steps and restarts, and inspect the gradients at a distance from the image: they mislead the search"
    )
    return graded_check(name, count, share, evidence, remedy, beaten[worst].nonzero().squeeze(1))
