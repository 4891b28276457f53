"""If the first gradient is zero, an attack has no direction."""

from __future__ import annotations

import torch

from ...attacks.attack import logit_margin
from ..check import Check
from ..second_look import SecondLook
from .grading import ALONE, POINT, first_rows

__all__ = ["check_gradients_at_the_start"]


def check_gradients_at_the_start(look: SecondLook) -> Check:
    """If the first gradient is zero, an attack has no direction."""

    name, samples = "gradients at the start", look.clean_right
    if len(samples) == 0:
        return Check(name, "NOT RUN", "no clean sample is classified correctly", "see the check of clean accuracy")

    kinds = []
    for part in samples.split(look.batch_size):
        state = look.pgd.start(look.model, part.x, part.y, 0.0, init=part.x)
        gradient = state.gradient()[0].flatten(1)
        margin = state.gradient(lambda logits, y=part.y: logit_margin(logits, y))[0].flatten(1)  # type: ignore[misc]
        bad = ~gradient.isfinite().all(dim=1)
        kinds.append(torch.stack([bad, (gradient == 0).all(dim=1), (margin == 0).all(dim=1)]).cpu())
    bad, no_loss, no_margin = torch.cat(kinds, dim=1)

    of = f"of {len(samples)} clean images"
    if bool(bad.any()):
        evidence = f"the gradient of the cross-entropy is NaN or infinite at {int(bad.sum())} {of}"
        remedy = "look for a root or a quotient at zero in the model: an attack cannot use such a gradient"
        return Check(name, "FAIL", evidence, remedy, first_rows(samples.rows[bad]))

    for zero, what, verdict, remedy in (
        (
            no_loss & no_margin,
            "the gradients of cross-entropy and margin are both zero",
            "FAIL",
            "replace the part without gradient by a smooth one (BPDA), or attack without gradients (Square)",
        ),
        (
            no_loss,
            "the gradient of the cross-entropy is zero, that of the margin is not,",
            "WARN" if look.evaluation.protocol.worst_case else "FAIL",
            "the logits are too large for the cross-entropy: divide them, or attack the margin as protocol pgd does",
        ),
    ):
        count = int(zero.sum())
        if count > ALONE and count / len(samples) > POINT:
            evidence = f"{what} at {count} {of} (threshold {POINT:.0%})"
            return Check(name, verdict, evidence, remedy, first_rows(samples.rows[zero]))  # type: ignore[arg-type]
    return Check(name, "PASS", f"the gradient of the cross-entropy is zero at {int(no_loss.sum())} {of}, and finite")
