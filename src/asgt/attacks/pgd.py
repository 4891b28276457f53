r"""Projected gradient descent.

.. math:: X^{t+1} = \Pi \big( X^t + \alpha \, g_t \big), \qquad
          g_t = \mathrm{sign} \nabla_X L(f(X^t), y) \;(L_\infty), \quad
          g_t = \nabla_X L / \|\nabla_X L\|_2 \;(L_2)

where :math:`\Pi` projects onto the ball of radius ε around X and the box [0, 1] (paper, equation 7).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, ask, at_least_float32, evaluating
from ..randomness import Generator
from .attack import Attack, State, check_alpha, per_sample, steepest

__all__ = ["PGD"]


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent on the cross-entropy, in L∞ or L2.

    What it answers is the last iterate, which no gradient was taken at: a state's ``fooled`` does not cover it.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: gradient steps per restart.
        alpha: the step's length in the units of ``eps``. Default: 2.5 ε / steps, which can cross the ball and come
            back; a constant that ignores ε under-attacks wherever alpha · steps < ε.
        random_start: start at a random point of the ball; else at X.
        restarts: independent runs; each sample keeps the iterate that fools the model, or else the one of highest
            loss. More than one needs ``random_start``.

    References:
        Madry et al. 2017, "Towards deep learning models resistant to adversarial attacks",
        https://arxiv.org/abs/1706.06083
    """

    steps: int = 40
    alpha: float | None = None
    random_start: bool = True
    restarts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha, self.norm)
        if self.restarts < 1:
            raise InputError(f"restarts = {self.restarts}: an attack runs at least once")
        if self.restarts > 1 and not self.random_start:
            raise InputError(f"restarts = {self.restarts} without a random start would repeat the same run")

    @property
    def starts_at_random(self) -> bool:
        return self.random_start

    @property
    def title(self) -> str:
        return f"PGD-{self.steps}" + (f" × {self.restarts}" if self.restarts > 1 else "")

    def attacked(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        init: Tensor | None,
        generator: Generator | None,
    ) -> Tensor:
        x_adv = super().attacked(model, x, y, eps, init, generator)
        if self.restarts == 1:
            return x_adv

        worst = _hardness(model, x_adv, y)
        for _ in range(self.restarts - 1):
            again = super().attacked(model, x, y, eps, None, generator)
            hardness = _hardness(model, again, y)
            x_adv = torch.where(per_sample(hardness > worst, x), again, x_adv)
            worst = torch.maximum(hardness, worst)

        return x_adv

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        alpha = 2.5 * state.eps / self.steps if self.alpha is None else torch.full_like(state.eps, self.alpha)
        return self.moved(state.judged(logits), steepest(gradient, self.norm), alpha)


@torch.no_grad()
def _hardness(model: Classifier, x_adv: Tensor, y: Tensor) -> Tensor:
    """Orders iterates (B,): any that fools the model above any that does not, then by loss."""

    with evaluating(model):
        logits = at_least_float32(ask(model, x_adv))

    label = y if y.ndim == 1 else y.argmax(dim=1)
    loss = F.cross_entropy(logits, y, reduction="none")
    # A NaN is no success: it must never win over a finite loss.
    loss = torch.nan_to_num(loss, nan=-1.0).clamp_max(1e6)
    return loss + 1e7 * ((logits.argmax(dim=1) != label) & ~logits.isnan().any(dim=1))
