"""Attacks that can only be called as one function: those of other libraries, with one ε per call and their own noise.

In the stepwise interface of :class:`~asgt.attacks.Attack` they take a single step, which is the whole attack. Their
output is returned unchanged: the caller must check that it lies in the ball and the box.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier
from ..randomness import Generator, keys_like, seeded_globally
from .attack import Attack, Norm, State

__all__ = ["Foreign", "Whole", "WholeState", "as_attack"]


@dataclass(frozen=True, kw_only=True)
class WholeState(State):
    """The state of such an attack: before or after its only step.

    Attributes:
        seed: of the noise of the batch.
    """

    seed: int


@dataclass(frozen=True)
class Whole(Attack):
    """The base of :class:`~asgt.attacks.AutoAttack` and :class:`Foreign`.

    Such attacks draw from global generators, which are seeded for the call and restored. The noise of a sample
    depends on its batch: the same batches give the same result.
    """

    steps: int = field(default=1, init=False)

    @abstractmethod
    def perturbed(self, model: Classifier, x: Tensor, y: Tensor, eps: Tensor, seed: int) -> Tensor:
        """The attacked images (B, C, H, W) of a batch; its radii (B,) are all alike, unless the attack mixes them."""

    @property
    def computes_losses(self) -> bool:
        return False

    @property
    def goes_by_steps(self) -> bool:
        return False

    @property
    def gradients(self) -> int:
        """Zero: the number is unknown."""

        return 0

    def doubled(self) -> None:
        return None

    def described(self, count: int = 1) -> str:
        return f"{self.title} (called whole)"

    def start(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> WholeState:
        """The state before the call.

        Raises:
            InputError: ``init`` is given: such an attack chooses its own start.
        """

        if init is not None:
            raise InputError(f"{self.title} chooses its own start: remove init")
        seed = int(keys_like(x, generator)[0]) & 0x7FFFFFFF if len(x) else 0
        return WholeState(**vars(super().start(model, x, y, eps)), seed=seed)

    def step(self, state: State) -> State:
        """The whole attack, once, or once for each radius of the batch.

        Raises:
            InputError: its output is not a batch of images of the input's shape.
        """

        assert isinstance(state, WholeState)
        x_adv = state.x.clone()
        everyone = torch.arange(len(x_adv), device=x_adv.device)
        for rows in [everyone] if self.mixes else [everyone[state.eps == eps] for eps in state.eps.unique()]:
            with seeded_globally(state.seed, x_adv.device):
                answer = self.perturbed(state.model, state.x[rows], state.label[rows], state.eps[rows], state.seed)
            if not isinstance(answer, Tensor) or answer.shape != state.x[rows].shape:
                told = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__
                raise InputError(
                    f"{self.title} returns {told} instead of images of shape {tuple(state.x[rows].shape)} belong"
                )
            x_adv[rows] = answer.detach().to(x_adv)
        return replace(state, x_adv=x_adv, iteration=state.iteration + 1)


@dataclass(frozen=True)
class Foreign(Whole):
    """An attack of another library: called with images and labels, it returns images, like those of torchattacks.

    Args:
        eps: the radius in [0, 1].
        norm: the norm of the attack.
        made: from a radius to the attack: ``lambda eps: torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)``. Or
            the attack itself, whose attribute ``eps`` is then set for each call and put back; a step length that does
            not follow it stays what it is.
        name: what to call it. Default: as its class or function is called. Evidence on disk knows the attack by its
            name alone, so there it must be given, and tell one setting from another.
        random_start: whether each call draws again, so that it can be repeated.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: ``made`` cannot be called.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> def noise(images, labels, eps=0.1):
        ...     return (images + eps * torch.randn_like(images).sign()).clamp(0, 1)
        >>> attack = asgt.Foreign(made=lambda eps: lambda x, y: noise(x, y, eps), name="signs", random_start=True)
        >>> attack(model, x, y, eps=0.05).shape
        torch.Size([4, 1, 8, 8])
    """

    made: Callable[..., Any] = field(kw_only=True, repr=False)
    name: str = field(default="", kw_only=True)
    random_start: bool = field(default=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.made):
            raise InputError(
                "pass a function of images and labels, or a function of eps that returns such an attack, "
                f"not {self.made!r}"
            )

    @property
    def starts_at_random(self) -> bool:
        return self.random_start

    @property
    def identity(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        if self.name:
            return self.name
        named = type(self.made).__name__ if hasattr(self.made, "eps") else getattr(self.made, "__name__", "attack")
        return "attack" if named == "<lambda>" else named

    def perturbed(self, model: Classifier, x: Tensor, y: Tensor, eps: Tensor, seed: int) -> Tensor:
        radius = float(eps[0])
        with torch.inference_mode(False), torch.enable_grad():
            if not hasattr(self.made, "eps"):
                answer: Tensor = self.made(radius)(x.clone(), y.clone())
                return answer
            before = self.made.eps
            try:
                self.made.eps = radius
                answer = self.made(x.clone(), y.clone())
            finally:
                self.made.eps = before
            return answer


def as_attack(attack: Attack | Callable[..., Any], norm: Norm, name: str = "") -> Attack:
    """An :class:`asgt.Attack` in the norm, if it is defined in it; one of another library as a :class:`Foreign`.

    Args:
        attack: the attack, or a function of images and labels, or a function of ε that returns one.
        norm: the norm of ε.
        name: the name of an attack of another library.

    Raises:
        InputError: it cannot be called, or attacks in another norm.
    """

    if isinstance(attack, type) and issubclass(attack, Attack):
        raise InputError(f"{attack.__name__} is the class of an attack: pass {attack.__name__}()")
    ours = attack if isinstance(attack, Attack) else Foreign(norm=norm, made=attack, name=name)
    if ours.norm != norm:
        raise InputError(f"{ours.title} attacks in {ours.norm}, but the evaluation is in {norm}: use the same norm")
    return ours
