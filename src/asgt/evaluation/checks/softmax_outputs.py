"""The cross-entropy of a softmax of a softmax is flat where the model is confident."""

from __future__ import annotations

from ..check import Check
from ..second_look import SecondLook

__all__ = ["check_softmax_outputs"]

_SUMS_TO_ONE = 1e-2  # a softmax in half precision; no 64 rows of logits come so near by chance


def check_softmax_outputs(look: SecondLook) -> Check:
    """The cross-entropy of a softmax of a softmax is flat where the model is confident."""

    name, logits = "softmax outputs", look.random_logits
    on = f"on {len(logits)} images"
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() <= _SUMS_TO_ONE).all()):
        evidence = f"{on}, all outputs are ≥ 0 and sum to 1: they look like probabilities"
        return Check(name, "FAIL", evidence, "return logits: remove the model's last softmax")
    if bool((logits.logsumexp(dim=1).abs() <= _SUMS_TO_ONE).all()):
        return Check(name, "PASS", f"{on}, the outputs are log-probabilities, which attacks treat like logits")
    return Check(name, "PASS", f"{on}, the outputs are not probabilities")
