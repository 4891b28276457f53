"""Which samples a model gets right, as they are and under attack: one bool a sample, never just a mean."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attacks import Attack
from ..data import Images, batches, to_unit
from ..errors import InputError
from ..modes import Classifier, evaluating
from ..randomness import SampleKeyed

__all__ = ["class_count", "correct", "correct_under_attack", "predict", "wavers"]


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


@torch.no_grad()
def class_count(model: Classifier, images: Images) -> int:
    """How many classes a model tells apart.

    Raises:
        InputError: it does not answer with logits (B, K), at least two of them.
    """

    with evaluating(model):
        logits = model(to_unit(images.pixels[:1]))
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        told = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the model answers a batch with {told}: logits (B, K) of two classes or more belong")
    return int(logits.shape[1])


@torch.no_grad()
def wavers(model: Classifier, images: Images) -> bool:
    """Whether a model in evaluation mode answers differently from one time to the next, beyond a device's rounding."""

    x = to_unit(images.pixels[:64])
    with evaluating(model):
        answers = torch.stack([model(x) for _ in range(5)])
    apart = (answers.amax(dim=0) - answers.amin(dim=0)).max()
    return bool(apart > 1e-4 * answers.abs().max())
