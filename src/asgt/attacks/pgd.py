r"""Projected gradient descent.

.. math:: X^{t+1} = \Pi \big( X^t + \alpha \, g_t \big), \qquad
          g_t = \mathrm{sign} \nabla_X L(f(X^t), y) \;(L_\infty), \quad
          g_t = \nabla_X L / \|\nabla_X L\|_2 \;(L_2)

where :math:`\Pi` projects onto the ball of radius ε around X and the box [0, 1] (paper, equation 7). Towards a target
class t the loss is to fall: L is replaced by :math:`-L(f(X), t)`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from ..errors import InputError
from .attack import Attack, State, check_alpha, steepest

__all__ = ["PGD"]


@dataclass(frozen=True, repr=False)
class PGD(Attack):
    """Projected gradient descent on the cross-entropy, in L∞ or L2.

    It returns the last iterate. No gradient is computed there, so a state's ``fooled`` does not cover it.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: gradient steps per restart.
        alpha: the step's length in the units of ``eps``. Default: 2.5 ε / steps, which can cross the ball and come
            back; a constant that ignores ε under-attacks wherever alpha · steps < ε.
        random_start: start at a random point of the ball; else at X.
        restarts: independent runs; each sample gets the iterate that fools the model, or else the one of highest
            loss. More than one needs ``random_start``.
        targeted: call it with target classes in place of the labels. Success is the prediction of the target.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.PGD(eps="8/255", steps=5, restarts=2)(model, x, y)
        >>> x_adv.shape, bool((x_adv - x).abs().max() <= 8 / 255 + 1e-6)
        (torch.Size([4, 1, 8, 8]), True)
        >>> targets = (model(x).argmax(dim=1) + 1) % 10
        >>> asgt.PGD(eps=0.1, steps=5, targeted=True)(model, x, targets).shape
        torch.Size([4, 1, 8, 8])

    References:
        Madry et al. 2017, "Towards deep learning models resistant to adversarial attacks",
        https://arxiv.org/abs/1706.06083
    """

    steps: int = 40
    alpha: float | None = None
    random_start: bool = True
    restarts: int = 1

    takes_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha, self.norm)
        if self.restarts < 1:
            raise InputError(f"restarts = {self.restarts}: give at least one run")
        if self.restarts > 1 and not self.random_start:
            raise InputError(
                f"restarts = {self.restarts} without a random start would repeat the same run: set random_start=True"
            )

    @property
    def starts_at_random(self) -> bool:
        return self.random_start

    @property
    def title(self) -> str:
        times = f" × {self.restarts}" if self.restarts > 1 else ""
        return f"{'targeted ' if self.targeted else ''}PGD-{self.steps}{times}"

    @property
    def once(self) -> PGD:
        return replace(self, restarts=1)

    def with_alpha(self, alpha: float) -> PGD:
        return replace(self, alpha=alpha)

    @property
    def reach(self) -> float | None:
        if self.alpha is None:
            return None
        return self.alpha * self.steps / (2 if self.starts_at_random else 1)

    def doubled(self) -> PGD:
        """With twice the steps and, from random starts, twice the restarts."""

        return replace(self, steps=2 * self.steps, restarts=self.restarts * (2 if self.random_start else 1))

    def described(self, count: int = 1) -> str:
        alpha = f"2.5ε/{self.steps}" if self.alpha is None else f"{self.alpha:g}"
        return f"{self.title} (α = {alpha}{', random starts' if self.random_start else ''})"

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        alpha = 2.5 * state.eps / self.steps if self.alpha is None else torch.full_like(state.eps, self.alpha)
        return self.moved(state.judged(logits), steepest(gradient, self.norm), alpha)
