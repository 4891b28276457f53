"""Which samples a model gets right, as they are and under attack: one bool a sample, never just a mean."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attacks import Attack
from ..data import Images, batches
from ..errors import InputError
from ..modes import Classifier, evaluating
from ..randomness import SampleKeyed

__all__ = ["correct", "correct_under_attack", "predict"]


@torch.no_grad()
def predict(model: Classifier, x: Tensor, what: str = "clean images") -> Tensor:
    """The predicted classes (B,) of a batch (B, C, H, W), in evaluation mode.

    Raises:
        InputError: the model answers with NaN. A NaN is never a success of an attack: it withholds the number.
    """

    with evaluating(model):
        logits = model(x)
    if bool(logits.isnan().any()):
        raise InputError(f"the model gives NaN on {what}: no accuracy can be stated; look for overflow in the model")
    return logits.argmax(dim=1)


def correct(model: Classifier, images: Images, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Which images are classified correctly, bool (N,), and the predictions, int64 (N,)."""

    predictions = torch.cat([predict(model, x) for x, _ in batches(images, batch_size)])
    return predictions == images.labels, predictions


def correct_under_attack(
    model: Classifier, images: Images, attack: Attack, *, seed: int = 0, batch_size: int = 256
) -> Tensor:
    """Which images are classified correctly at the attack's final iterate, bool (N,).

    Clean errors are attacked like all others; the noise of a random start is keyed by (seed, sample).
    """

    outcomes = []
    for number, (x, y) in enumerate(batches(images, batch_size)):
        rows = torch.arange(len(y), device=y.device) + number * batch_size
        x_adv = attack(model, x, y, generator=SampleKeyed(seed, rows))
        outcomes.append(predict(model, x_adv, "attacked images") == y)
    return torch.cat(outcomes)
