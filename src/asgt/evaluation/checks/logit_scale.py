"""Robustness does not depend on the scale of the logits; the cross-entropy's gradient does, until it vanishes."""

from __future__ import annotations

import math

from ...attacks.attack import logit_margin
from ...modes import ask, at_least_float32
from ..check import Check
from ..second_look import SecondLook
from .grading import counted_check, no_survivors

__all__ = ["check_logit_scale"]


def check_logit_scale(look: SecondLook) -> Check:
    """Robustness does not depend on the scale of the logits; the cross-entropy's gradient does, until it vanishes."""

    name, samples = "logit scale", look.survivors
    if len(samples) == 0:
        return no_survivors(name, look)
    margins = logit_margin(look.logits(look.clean_right.x), look.clean_right.y).abs()
    scale = float(margins.nanmedian())
    if not 0 < scale < math.inf:
        return Check(
            name,
            "NOT RUN",
            f"the median margin is {scale:g}: logits cannot be scaled by it",
            "inspect the model's logits",
        )

    x_adv = look.attacked(
        look.pgd, samples, look.eps, lambda x: at_least_float32(ask(look.model, x, owned=x.requires_grad)) / scale
    )
    # What the same attack breaks at the model's own scale tells of its effort, not of the scale.
    broken = look.broken(samples, x_adv, look.eps) & ~look.again[1]
    return counted_check(
        name,
        look,
        samples,
        broken,
        f"PGD-40 on logits divided by {scale:.3g} (the median margin is then 1), but not on the logits as they are,",
        "the cross-entropy saturates: divide the logits during the attack, or use attacks on the margin",
    )
