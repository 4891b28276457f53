"""Restarts for any attack that starts at random: several independent runs, of which each sample gets the best."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..errors import InputError
from ..modes import Classifier
from ..numbers import plain_fields
from ..randomness import Generator
from .attack import Attack, Norm, State

__all__ = ["Repeated"]


@dataclass(frozen=True)
class Repeated(Attack):
    """An attack with restarts.

    Each sample keeps the iterate that fools the model, or else the one of highest loss. It is targeted if the attack
    is.

    Args:
        eps: the radius in [0, 1]. Default: that of the attack.
        attack: what is repeated; it starts at random.
        restarts: how many runs. Default: 2.
        targeted: follows from the attack, and is not set here.

    Raises:
        InputError: fewer than one run, or the attack does not start at random.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> attack = asgt.Repeated(attack=asgt.AnnealedPGD(steps=5), restarts=3)
        >>> attack(model, x, y, eps=0.1).shape
        torch.Size([4, 1, 8, 8])
        >>> attack.restarts, attack.gradients
        (3, 15)
    """

    norm: Norm = field(default="linf", init=False)
    steps: int = field(default=1, init=False)
    attack: Attack = field(kw_only=True)
    restarts: int = field(default=2, kw_only=True)

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.targeted and not self.attack.targeted:
            raise InputError(f"targeted belongs to the attack that is repeated: {self.attack.title} is untargeted")
        inner = self.attack.once
        # Runs of an attack that has several already are multiplied.
        object.__setattr__(self, "restarts", self.restarts * self.attack.restarts)
        if self.restarts < 1:
            raise InputError(f"restarts = {self.restarts}: give at least one run")
        if self.restarts > 1 and not inner.starts_at_random:
            raise InputError(f"restarts = {self.restarts} of {inner.title} without a random start repeat the same run")
        for name, value in (
            ("attack", inner),
            *((name, getattr(inner, name)) for name in ("norm", "steps", "targeted")),
        ):
            object.__setattr__(self, name, value)

    @property
    def radius(self) -> float:
        return self.attack.radius if self.eps is None else self.eps

    @property
    def once(self) -> Attack:
        return self.attack

    def in_norm(self, norm: Norm) -> Attack:
        return replace(self, attack=self.attack.in_norm(norm))

    def with_alpha(self, alpha: float) -> Attack:
        return replace(self, attack=self.attack.with_alpha(alpha))

    @property
    def reach(self) -> float | None:
        return self.attack.reach

    def doubled(self) -> Attack | None:
        doubled = self.attack.doubled()
        return None if doubled is None else replace(self, attack=doubled, restarts=2 * self.restarts)

    @property
    def least_classes(self) -> int:
        return self.attack.least_classes

    def possible(self, classes: int) -> bool:
        return self.attack.possible(classes)

    @property
    def goes_by_steps(self) -> bool:
        return self.attack.goes_by_steps

    @property
    def mixes(self) -> bool:
        return self.attack.mixes

    @property
    def identity(self) -> str:
        return f"{self.attack.identity} × {self.restarts}" if self.attack.identity else ""

    @property
    def is_external(self) -> bool:
        return self.attack.is_external

    @property
    def title(self) -> str:
        return f"{self.attack.title} × {self.restarts}"

    def described(self, count: int = 1) -> str:
        return f"{self.attack.described()} × {self.restarts}"

    @property
    def asks_eps(self) -> bool:
        return self.attack.asks_eps

    @property
    def starts_at_random(self) -> bool:
        return True

    @property
    def uses_gradients(self) -> bool:
        return self.attack.uses_gradients

    @property
    def computes_losses(self) -> bool:
        return self.attack.computes_losses

    def start(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> State:
        return self.attack.start(model, x, y, eps, init=init, generator=generator)

    def step(self, state: State) -> State:
        return self.attack.step(state)

    def losses(self, state: State, logits: Tensor) -> Tensor:
        return self.attack.losses(state, logits)

    def result(self, state: State) -> Tensor:
        return self.attack.result(state)
