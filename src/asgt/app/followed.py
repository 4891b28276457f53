"""An attack on one image, followed from outside: how far it is, when the model is fooled, and whether to stop.

The attack runs as it is. What is known of its way is seen by the model that it calls: each gradient step needs one
gradient, and an attack without gradients needs one call a query.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks import Attack
from ..attacks.attack import delta_norm, is_legal
from ..errors import AsgtError, InputError
from ..inputs import models_explained
from ..modes import ask, at_least_float32
from ..randomness import SampleKeyed

__all__ = ["Attempt", "StoppedError", "attempt"]


class StoppedError(AsgtError):
    """A user stopped the work."""

    def __init__(self) -> None:
        super().__init__("stopped: the picture is that of the settings before")


@dataclass(frozen=True, eq=False)
class Attempt:
    """What an attack did to one image.

    Attributes:
        image: what it answers, (1, C, H, W).
        length: the norm of the perturbation.
        broke_at: after how many gradient steps the model was first seen fooled, or at which query where the attack
            takes no gradients; ``None`` where it never was.
        fooled: whether the answer fools the model.
    """

    image: Tensor
    length: float
    broke_at: int | None
    fooled: bool


class _Followed:
    """A classifier that counts what it is asked, of one image."""

    asks_by_itself = True

    def __init__(
        self, model: nn.Module, fools: Callable[[int], bool], uses_gradients: bool, told: Callable[[int], None]
    ):
        self.model, self.fools, self.uses_gradients, self.told = model, fools, uses_gradients, told
        self.gradients = self.queries = 0
        self.broke_at: int | None = None

    def __call__(self, x: Tensor) -> Tensor:
        by_gradient = torch.is_grad_enabled() and x.requires_grad
        self.told(self.gradients if self.uses_gradients else self.queries)
        logits = ask(self.model, x, owned=x.requires_grad)
        if not by_gradient:
            self.queries += 1
        if self.broke_at is None and len(x) == 1:
            largest, predicted = logits.detach().max(dim=1)
            if not bool(largest.isnan()) and self.fools(int(predicted)):
                self.broke_at = self.gradients if self.uses_gradients else self.queries
        self.gradients += by_gradient
        return logits


def attempt(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: Attack,
    *,
    fools: Callable[[int], bool],
    seed: int,
    row: int,
    told: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> Attempt:
    """Attacks one image.

    Args:
        model: in evaluation mode.
        x: float (1, C, H, W) in [0, 1].
        y: its label, or the class that a targeted attack is to reach, int64 (1,).
        attack: what attacks, with its own ε.
        fools: whether an answer of the model is a success.
        seed: keys the random start.
        row: the row of the image in the test split, which keys it too.
        told: is called with the steps or queries done.
        should_stop: is called at each of them.

    Raises:
        StoppedError: ``should_stop`` said so.
        InputError: the model answers with NaN, or the attack with an image outside the ball or the box.
    """

    def at_each(done: int) -> None:
        if should_stop():
            raise StoppedError
        told(done)

    followed = _Followed(model, fools, attack.uses_gradients, at_each)
    with models_explained(model, x):
        image = attack(followed, x, y, generator=SampleKeyed(seed, torch.tensor([row])))
        with torch.no_grad():
            logits = at_least_float32(ask(model, image))
    if bool(logits.isnan().any()):
        raise InputError("the model gives NaN on the attacked image: look for overflow in the model")
    if not bool(is_legal(image, x, attack.radius, attack.norm)):
        raise InputError(f"{attack.title} answers with an image outside of its ball or of [0, 1]: it does not count")
    fooled = fools(int(logits.argmax(dim=1)))
    done = followed.gradients if attack.uses_gradients else followed.queries
    return Attempt(
        image=image,
        length=float(delta_norm(image - x, attack.norm)),
        broke_at=done if fooled and followed.broke_at is None else followed.broke_at,
        fooled=fooled,
    )
