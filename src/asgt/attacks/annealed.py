r"""Annealed PGD: projected gradient ascent with momentum, whose step size falls along a cosine.

.. math:: Z^{t+1} = \Pi \big( X^t + \eta_t \, g_t \big), \qquad
          X^{t+1} = \Pi \big( X^t + \alpha (Z^{t+1} - X^t) + (1 - \alpha) (X^t - X^{t-1}) \big)

where :math:`g_t` is the direction of steepest ascent of the loss, :math:`\alpha = 0.75` (1 in the first step), and in
step t of T

.. math:: \eta_t = \epsilon \, \Big( 0.02 + 1.98 \cdot \frac{1 + \cos(\pi t / T)}{2} \Big)

so a short run looks across the whole ball first and settles at its end. The losses are the margin
:math:`\max_{j \neq y} z_j - z_y`, the cross-entropy, and, towards one class t, :math:`z_t - z_y` or the targeted
difference of logits ratio of :mod:`asgt.attacks.apgd`.

The state has the values for a search by margin: the smallest margin so far, its iterate and its class.

References:
    Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", https://arxiv.org/abs/2003.01690: the momentum on the iterate, and the DLR loss.
    Gowal et al. 2019, "An alternative surrogate loss for PGD-based adversarial testing",
    https://arxiv.org/abs/1910.09338: margins, one target at a time, and step lengths that fall.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, ask, at_least_float32, differentiable
from ..randomness import Generator
from .apgd import check_rank, class_by_rank, momentum_step, targeted_dlr
from .attack import Attack, State, logit_margin, per_sample

__all__ = ["AnnealedPGD", "AnnealedState", "Loss"]

Loss = Literal["margin", "ce", "margin-targeted", "dlr-targeted"]

_LAST, _FIRST = 0.02, 2.0  # of ε: the length of the last step and of the first
_LOSSES = {"margin": "margin", "ce": "CE", "margin-targeted": "targeted margin", "dlr-targeted": "targeted DLR"}


@dataclass(frozen=True, kw_only=True)
class AnnealedState(State):
    """The state of a run of annealed PGD.

    Attributes:
        target: the class that a targeted loss aims at, int64 (B,). −1 before the first step, unless the attack ranks
            its targets or the caller has set one; the step then uses the most likely wrong class at the start.
        previous: the iterate before ``x_adv``, of the shape of ``x``.
        margin: the smallest margin so far, of the label's logit over the largest other, (B,); infinity before the first
            step, and if it was NaN.
        best: the iterate of that margin, of the shape of ``x``.
        closest: the largest other class there, int64 (B,); −1 before the first step.
        blind: the number of steps with a zero or non-finite gradient, int64 (B,).
    """

    target: Tensor
    previous: Tensor
    margin: Tensor
    best: Tensor
    closest: Tensor
    blind: Tensor

    def judged(self, logits: Tensor) -> Self:
        judged = super().judged(logits)
        exact = at_least_float32(logits)
        margin = logit_margin(exact, self.label).to(self.margin)
        other = exact.scatter(1, self.label[:, None], -torch.inf).argmax(dim=1)
        smaller = margin < self.margin
        return replace(
            judged,
            margin=torch.where(smaller, margin, self.margin),
            best=torch.where(per_sample(smaller, self.x), self.x_adv, self.best),
            closest=torch.where(smaller, other, self.closest),
        )


@dataclass(frozen=True, repr=False)
class AnnealedPGD(Attack):
    """PGD with momentum and a cosine schedule of step lengths, from a uniform start, in L∞ or L2.

    It returns, for each sample, the first iterate that fools the model, or else the iterate with the smallest margin.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: gradient steps.
        loss: ``"margin"``, ``"ce"``, ``"margin-targeted"`` or ``"dlr-targeted"`` (adapted below four classes).
        target: which wrong class a targeted loss aims at, by rank of the clean logits; 1 is the most likely. Default:
            the most likely one at the start; in a search in phases, the one that came closest under attack so far.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.AnnealedPGD(eps=0.1, steps=5)(model, x, y)
        >>> x_adv.shape, bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
        (torch.Size([4, 1, 8, 8]), True)

    References:
        Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", https://arxiv.org/abs/2003.01690 (momentum and DLR loss)
        Gowal et al. 2019, "An alternative surrogate loss for PGD-based adversarial testing",
        https://arxiv.org/abs/1910.09338 (margins and step lengths)
    """

    steps: int = 20
    loss: Loss = "margin"
    target: int | None = field(default=None, repr=False)

    stored_as: ClassVar[dict[str, str]] = {"target": "target_class"}
    later: ClassVar[tuple[str, ...]] = (*Attack.later, "target")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is None:
            return
        check_rank(self.target)
        if not self.loss.endswith("-targeted"):
            raise InputError(f"target = {self.target}: loss {self.loss!r} aims at no class; 'margin-targeted' does")

    @property
    def starts_at_random(self) -> bool:
        return True

    @property
    def keeps_margin(self) -> bool:
        return True

    @property
    def title(self) -> str:
        towards = "" if self.target is None else f", class {self.target}"
        return f"annealed PGD-{self.steps} ({_LOSSES[self.loss]}{towards})"

    @property
    def least_classes(self) -> int:
        """Four for the DLR loss: below that it is only the plain difference of logits."""

        return 4 if self.loss == "dlr-targeted" else 2

    @property
    def has_a_target(self) -> bool:
        return self.target is not None

    def possible(self, classes: int) -> bool:
        return self.target is None or self.target < classes

    @property
    def group(self) -> str:
        return repr(self if self.target is None else replace(self, target=1))

    def described(self, count: int = 1) -> str:
        if self.target is not None:
            return f"{replace(self, target=None).title} on each of {count} targets"
        return f"{self.title} × {count}" if count > 1 else self.title

    def start(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> AnnealedState:
        """The state before the first step. A ``target`` takes a forward pass on ``x``, to rank the classes.

        Raises:
            InputError: the model has fewer wrong classes than ``target``.
        """

        state = super().start(model, x, y, eps, init=init, generator=generator)
        unknown = torch.full_like(state.iteration, -1)
        return AnnealedState(
            **vars(state),
            target=unknown if self.target is None else self._ranked(state, self.target),
            previous=state.x_adv,
            margin=at_least_float32(torch.full_like(state.eps, torch.inf)),
            best=state.x_adv,
            closest=unknown,
            blind=torch.zeros_like(state.iteration),
        )

    def step(self, state: State) -> AnnealedState:
        assert isinstance(state, AnnealedState)
        gradient, logits = state.gradient(partial(self.losses, state))
        flat = gradient.flatten(1)
        blind = ~flat.isfinite().all(dim=1) | (flat == 0).all(dim=1)
        # A NaN must not move a sample out of its ball.
        gradient = gradient.nan_to_num()
        state = state.judged(logits)
        state = replace(state, target=torch.where(state.target < 0, state.closest, state.target))

        share = (1.0 + torch.cos(math.pi * state.iteration.to(state.eps) / self.steps)) / 2.0
        length = state.eps * (_LAST + (_FIRST - _LAST) * share)
        return replace(
            state,
            x_adv=momentum_step(state, state.previous, gradient, length, self.norm),
            previous=state.x_adv,
            iteration=state.iteration + 1,
            blind=state.blind + blind,
        )

    @torch.no_grad()
    def result(self, state: State) -> Tensor:
        """For each sample, the first iterate that fools the model, or else that of smallest margin, (B, C, H, W).

        One forward pass: the model has not been evaluated at the last iterate yet.
        """

        assert isinstance(state, AnnealedState)
        state = state.judged(ask(state.model, state.x_adv))
        return torch.where(per_sample(state.fooled, state.x), state.witness, state.best)

    @torch.no_grad()
    def _ranked(self, state: State, rank: int) -> Tensor:
        return class_by_rank(ask(state.model, state.x), state.label, rank)

    def losses(self, state: State, logits: Tensor) -> Tensor:
        assert isinstance(state, AnnealedState)
        if self.loss == "ce":
            return F.cross_entropy(logits, differentiable(state.y), reduction="none")
        if self.loss == "margin":
            return -logit_margin(logits, state.label)
        likeliest = logits.detach().scatter(1, state.label[:, None], -torch.inf).argmax(dim=1)
        target = torch.where(state.target < 0, likeliest, state.target)
        if self.loss == "dlr-targeted":
            return targeted_dlr(logits, state.label, target)
        label, target = (differentiable(index)[:, None] for index in (state.label, target))
        return (logits.gather(1, target) - logits.gather(1, label)).squeeze(1)
