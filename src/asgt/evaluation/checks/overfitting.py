"""A model trained against a one-step attack may be robust to that attack only."""

from __future__ import annotations

import torch

from ..check import Check
from ..health import OVERFITTING, catastrophic_levels
from ..second_look import SecondLook
from .grading import ONE_STEP_ONLY, one_step_searches

__all__ = ["check_catastrophic_overfitting"]


def check_catastrophic_overfitting(look: SecondLook) -> Check:
    """A model trained against a one-step attack may be robust to that attack only."""

    name = OVERFITTING
    one_step, several = one_step_searches(look)
    if not several:
        return Check(name, "NOT RUN", *ONE_STEP_ONLY)
    if one_step:
        asked = torch.ones_like(look.evaluation.clean)
        single = torch.stack([look.evaluation.outcomes[search] for search in one_step]).all(dim=0)
        worst = torch.stack([look.evaluation.outcomes[search] for search in several]).all(dim=0)
    else:
        asked, single, worst = look.several, look.evaluation.clean & ~look.one_step, look.right

    clean, count = float(look.evaluation.clean[asked].double().mean()), int(asked.sum())
    fgsm, pgd = (rows[:, asked].double().mean(dim=1).tolist() for rows in (single, worst))
    levels = catastrophic_levels(look.evaluation.epsilons, clean, fgsm, pgd)
    said = [
        f"{fgsm[level]:.1%} under one step, {pgd[level]:.1%} under several at ε = {look.evaluation.epsilons[level]:g}"
        for level in levels
    ]
    if said:
        remedy = (
            "do not quote the accuracy under FGSM; if the training attack had one step, train against several (PGD)"
        )
        return Check(name, "WARN", f"{'; '.join(said)} (n = {count})", remedy)
    return Check(name, "PASS", f"the accuracy is at no ε high under one step and low under several (n = {count})")
