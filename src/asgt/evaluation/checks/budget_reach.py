"""If the steps cannot cross the ball, or do not, the attack is weaker than its ε."""

from __future__ import annotations

from statistics import median

import torch

from ...attacks.attack import delta_norm
from ..check import Check
from ..second_look import SecondLook
from .grading import listed

__all__ = ["check_budget_reach"]

# A step of 2.5 ε / 40 stops short of the ball's surface only where its gradient turns; 1 % is for rounding. An attack
# that uses less than half of the coordinates it has could do more with the same ε.
_REACHED, _USED = 0.99, 0.5


def check_budget_reach(look: SecondLook) -> Check:
    """If the steps cannot cross the ball, or do not, the attack is weaker than its ε."""

    name = "budget reach"
    short = []
    for search in look.evaluation.protocol.searches:
        if (reach := search.reach) is not None:
            beyond = [eps for eps in look.evaluation.epsilons if eps > reach * (1 + 1e-9)]
            short += [f"{search.name} crosses {reach:.3g} at most, short of ε = {listed(beyond)}"] if beyond else []
    if short:
        remedy = (
            "use a step size that grows with ε (α = 2.5ε/steps), or more steps; do not claim robustness from "
            "these numbers"
        )
        return Check(name, "FAIL", "; ".join(short), remedy)

    can = "every search can cross each ε of the grid"
    held = (~look.again[1]).nonzero().squeeze(1) if len(look.survivors) else torch.empty(0, dtype=torch.int64)
    if len(held) == 0:
        return Check(name, "PASS", f"{can}; there are no survivors to test whether it does")

    samples, x_adv = look.survivors[held], look.again[0][held.to(look.survivors.y.device)]
    if look.evaluation.norm == "linf":
        free = (x_adv > 0) & (x_adv < 1)
        used = ((x_adv - samples.x).abs() >= _REACHED * look.eps) & free
        shares = used.flatten(1).sum(dim=1) / free.flatten(1).sum(dim=1).clamp_min(1)
        # Where the box stops every coordinate, there is nothing left to use.
        shares = torch.where(free.flatten(1).any(dim=1), shares, 1.0)
        share = median(shares.tolist())
        what = f"the median survivor of PGD-40 uses {share:.0%} of the coordinates that it can change within the box"
    else:
        share = float((delta_norm(x_adv - samples.x, "l2") >= _REACHED * look.eps).double().mean())
        what = f"PGD-40 ends at the surface of the ball on {share:.0%} of the survivors"
    evidence = f"{can}; at ε = {look.eps:g}, {what} (n = {len(held)}, |δ| ≥ {_REACHED:g}ε, threshold {_USED:.0%})"
    if share >= _USED:
        return Check(name, "PASS", evidence)
    return Check(name, "WARN", evidence, "use more steps: the attack stops before it has used its budget")
