"""Attacks that can only be called whole: another library's, for one ε a call, to their end, with noise of their own.

On the seam of :class:`~asgt.attacks.Attack` they take a single step, which is everything. What they answer is handed on
as it is: whoever drives them must look whether it lies in the ball and the box.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier
from ..randomness import Generator, keys_like, seeded_globally
from .base import Attack, State

__all__ = ["AutoAttack", "Foreign", "Whole", "WholeState"]


@dataclass(frozen=True, kw_only=True)
class WholeState(State):
    """Where such an attack stands: before or after its only step.

    Attributes:
        seed: of the noise of the batch.
    """

    seed: int


@dataclass(frozen=True)
class Whole(Attack):
    """What :class:`AutoAttack` and :class:`Foreign` share.

    Such attacks draw from global generators, which are seeded for the call and put back as they were. The noise
    of a sample depends on the batch that it sits in: a result is repeated by calls on the same batches.
    """

    steps: int = field(default=1, init=False)

    @abstractmethod
    def perturbed(self, model: Classifier, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        """The attacked images (B, C, H, W) of a batch at one radius."""

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
            raise InputError(f"{self.title} chooses its own start: leave init out")
        seed = int(keys_like(x, generator)[0]) & 0x7FFFFFFF if len(x) else 0
        return WholeState(**vars(super().start(model, x, y, eps)), seed=seed)

    def step(self, state: State) -> State:
        """The whole attack, once for each radius of the batch.

        Raises:
            InputError: what it answers is no batch of images of the shape that it was given.
        """

        assert isinstance(state, WholeState)
        x_adv = state.x.clone()
        for eps in state.eps.unique().tolist():
            rows = (state.eps == eps).nonzero().squeeze(1)
            with seeded_globally(state.seed, x_adv.device):
                found = self.perturbed(state.model, state.x[rows], state.label[rows], eps, state.seed)
            if not isinstance(found, Tensor) or found.shape != state.x[rows].shape:
                told = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
                raise InputError(
                    f"{self.title} answers with {told}, where images of shape {tuple(state.x[rows].shape)} belong"
                )
            x_adv[rows] = found.detach().to(x_adv)
        return replace(state, x_adv=x_adv, iteration=state.iteration + 1)


@dataclass(frozen=True)
class AutoAttack(Whole):
    """AutoAttack as its authors' package, ``pyautoattack``, has it: APGD-CE, APGD-T, FAB-T and Square, in L∞ or L2.

    Below ten classes APGD-T and FAB-T aim at all wrong ones. Below four there is no targeted DLR loss, and below three
    none at all: the ensemble is then APGD-CE, with three classes APGD-DLR, FAB-T and Square (:meth:`adapted`).

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.

    References:
        Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", https://arxiv.org/abs/2003.01690
    """

    @property
    def title(self) -> str:
        return "AutoAttack"

    @staticmethod
    def adapted(classes: int) -> bool:
        """Whether the ensemble is not the authors' own for a model of so many classes."""

        return classes < 4

    def perturbed(self, model: Classifier, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        try:
            from pyautoattack import AutoAttack as Authors
        except ImportError as error:
            raise InputError("AutoAttack needs its authors' package: pip install 'asgt[autoattack]'") from error

        def asked(images: Tensor) -> Tensor:  # their package computes in float32
            return model(images.to(x.dtype)).float()

        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        options: dict[str, Any] = {"eps": eps, "norm": {"linf": "Linf", "l2": "L2"}[self.norm]}
        options |= {"seed": seed, "device": x.device}
        if self.adapted(classes):
            dlr = ["apgd-dlr"] if classes == 3 else []
            ensemble = Authors(asked, attacks=["apgd-ce", *dlr, "fab-t", "square"], version="custom", **options)
            ensemble.apgd.n_restarts = ensemble.fab.n_restarts = 1
        else:
            ensemble = Authors(asked, **options)
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = min(9, classes - 1)

        # What it warns of are checks of ours, with evidence.
        log = logging.getLogger("auto-attack")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            x_adv: Tensor = ensemble.run_standard_evaluation(x.float(), y, batch_size=len(x))[0]
        finally:
            log.setLevel(level)
        return x_adv


@dataclass(frozen=True)
class Foreign(Whole):
    """An attack of another library: called with images and labels, it gives images, as those of torchattacks do.

    Args:
        eps: the radius in [0, 1].
        norm: the norm that the attack means.
        made: from a radius to the attack: ``lambda eps: torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)``. Or
            the attack itself, whose attribute ``eps`` is then set for each call and put back; a step length that does
            not follow it stays what it is.
        name: what to call it. Default: as its class or function is called. Evidence on disk knows the attack by its
            name alone, so there it must be given, and tell one setting from another.

    Raises:
        InputError: ``made`` cannot be called.
    """

    made: Callable[..., Any] = field(kw_only=True, repr=False)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.made):
            raise InputError(
                f"an attack is called with images and labels, or with eps to give such a one: {self.made!r}"
            )

    @property
    def title(self) -> str:
        if self.name:
            return self.name
        named = type(self.made).__name__ if hasattr(self.made, "eps") else getattr(self.made, "__name__", "attack")
        return "attack" if named == "<lambda>" else named

    def perturbed(self, model: Classifier, x: Tensor, y: Tensor, eps: float, seed: int) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            if not hasattr(self.made, "eps"):
                found: Tensor = self.made(eps)(x.clone(), y.clone())
                return found
            before = self.made.eps
            try:
                self.made.eps = eps
                found = self.made(x.clone(), y.clone())
            finally:
                self.made.eps = before
            return found
