"""Which samples a model classifies correctly, clean and under attack: one bool per sample, not only a mean."""

from __future__ import annotations

import torch
from torch import Tensor

from ..attacks import Attack
from ..attacks.attack import logit_margin
from ..data import Images, batch_that_fits, batches, to_unit
from ..errors import InputError
from ..inputs import models_explained
from ..modes import Classifier, ask, at_least_float32, evaluating
from ..randomness import SampleKeyed

__all__ = ["class_count", "correct", "correct_under_attack", "is_deterministic", "margin_change", "predict"]


@torch.no_grad()
def predict(model: Classifier, x: Tensor, what: str = "clean images") -> Tensor:
    """The predicted classes (B,) of a batch (B, C, H, W), in evaluation mode.

    Raises:
        InputError: the model returns NaN. A NaN never counts as a success of an attack; no accuracy is reported.
    """

    with evaluating(model):
        logits = ask(model, x)
    if bool(logits.isnan().any()):
        raise InputError(f"the model returns NaN on {what}, so it has no accuracy: look for overflow in the model")
    return logits.argmax(dim=1)


def correct(
    model: Classifier, images: Images, batch_size: int | None = None, *, votes: int = 1
) -> tuple[Tensor, Tensor]:
    """Which images are classified correctly, bool (N,), and the predictions, int64 (N,).

    Args:
        model: the classifier.
        images: N images.
        batch_size: images per pass. Default: 256, fewer for large images.
        votes: passes for each decision; the majority counts. The predictions are those of the first pass.
    """

    batch_size = batch_size or batch_that_fits(images)
    asked = [torch.cat([predict(model, x) for x, _ in batches(images, batch_size)]) for _ in range(votes)]
    right = torch.stack([predictions == images.labels for predictions in asked]).sum(dim=0)
    return 2 * right > votes, asked[0]


def correct_under_attack(
    model: Classifier, images: Images, attack: Attack, *, seed: int = 0, batch_size: int | None = None, first: int = 0
) -> Tensor:
    """Which images are classified correctly at the attack's final iterate, bool (N,).

    Clean errors are attacked like all others; the noise of a random start is keyed by (seed, sample), where samples are
    counted from ``first``: not 0 for a part of more images.
    """

    batch_size = batch_size or batch_that_fits(images)
    outcomes = []
    for number, (x, y) in enumerate(batches(images, batch_size)):
        rows = torch.arange(len(y), device=y.device) + first + number * batch_size
        x_adv = attack(model, x, y, generator=SampleKeyed(seed, rows))
        outcomes.append(predict(model, x_adv, "attacked images") == y)
    return torch.cat(outcomes)


@torch.no_grad()
def class_count(model: Classifier, images: Images) -> int:
    """The number of classes of a model.

    Raises:
        InputError: it cannot process such images, or does not return logits (B, K) with K ≥ 2.
    """

    x = to_unit(images.pixels[:1])
    with models_explained(model, x), evaluating(model):
        return ask(model, x).shape[1]


def margin_change(answers: Tensor) -> float:
    """The largest difference between several outputs for the same images.

    It is measured on the margin of the first prediction: a class that is masked by -1e9 or minus infinity must not
    hide the noise of the others.

    Args:
        answers: logits (P, B, K) of P passes.

    Returns:
        The largest change of a margin, as a share of the size of logits. Infinities that are equal do not differ; NaN
        is what a NaN gives.
    """

    label = answers[0].argmax(dim=1)
    margins = torch.stack([logit_margin(logits, label) for logits in answers])
    change = torch.where(margins == margins[0], 0.0, (margins - margins[0]).abs()).max()
    sizes = answers[0].topk(2, dim=1).values.abs()
    sizes = sizes[sizes.isfinite()]
    return float(change) / max(float(sizes.median()) if len(sizes) else 0.0, 1e-12)


@torch.no_grad()
def is_deterministic(model: Classifier, images: Images) -> bool:
    """Whether a model in evaluation mode gives the same output each time, up to a device's rounding."""

    parts = to_unit(images.pixels[:64]).split(batch_that_fits(images, 64))
    with evaluating(model):
        answers = [torch.cat([at_least_float32(ask(model, part)) for part in parts]) for _ in range(5)]
    change = margin_change(torch.stack(answers))
    # A NaN is no noise: the clean images will tell.
    return not change > 1e-4
