"""A random model is broken by chance, and its gradients are those of another draw of the model."""

from __future__ import annotations

import torch

from ..accuracy import margin_change
from ..check import Check
from ..second_look import SecondLook
from .grading import first_rows

__all__ = ["check_determinism"]

# Repeated passes: rounding in another order of sums. In another batch: kernels of another size, in half precision too.
_REPEATED, _REBATCHED = 1e-6, 1e-2
_PASSES = 5


def check_determinism(look: SecondLook) -> Check:
    """A random model is broken by chance, and its gradients are those of another draw of the model."""

    name, samples = "determinism", look.random
    passes = torch.stack([look.random_logits, *(look.logits(samples.x) for _ in range(_PASSES - 1))])
    predicted = passes.argmax(dim=2)
    moved, change = (predicted != predicted[0]).any(dim=0).cpu(), margin_change(passes)
    evidence = (
        f"over {_PASSES} passes of the same {len(samples)} images in evaluation mode, a margin changes by up to "
        f"{change:.2g} of the size of the logits (threshold {_REPEATED:g}), and {int(moved.sum())} predictions flip"
    )
    if not change <= _REPEATED:
        remedy = (
            "turn off the randomness in the forward pass (functional dropout or noise that ignores eval()); if it "
            "is intended, attack with expectation over transformation (EOT)"
        )
        return Check(name, "FAIL", evidence, remedy, first_rows(samples.rows[moved]))

    halves = torch.cat([look.logits(part.x) for part in samples.split(max(len(samples) // 2, 1))])
    apart = margin_change(torch.stack([passes[0], halves]))
    if not apart <= _REBATCHED:
        evidence += f"; in batches of half the size by {apart:.2g} (threshold {_REBATCHED:g})"
        remedy = (
            "normalise with stored statistics: the logits of an image must not depend on the other images of the batch"
        )
        return Check(name, "FAIL", evidence, remedy)
    return Check(name, "PASS", evidence)
