r"""Momentum iterative FGSM.

.. math:: g_{t+1} = \mu g_t + \frac{\nabla_X L(f(X^t), y)}{\|\nabla_X L(f(X^t), y)\|_1}, \qquad
          X^{t+1} = \Pi \big( X^t + \alpha \, \mathrm{sign}(g_{t+1}) \big)

The paper's equation 8 takes the gradient at t + 1, which does not exist yet, and its equation 9 descends; both are
slips (compare Dong et al., equations 6 and 7). Towards a target class t the loss is to fall: L is replaced by
:math:`-L(f(X), t)` (Dong et al., section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier
from ..randomness import Generator
from .attack import Attack, Norm, State, check_alpha, per_sample

__all__ = ["MIFGSM"]


@dataclass(frozen=True, repr=False)
class MIFGSM(Attack):
    """Momentum iterative fast gradient sign method, in L∞, started at X.

    Args:
        eps: the radius in [0, 1].
        steps: gradient steps.
        alpha: the step's length. Default: ε / steps, as in the paper.
        decay: the momentum's decay factor μ.
        targeted: call it with target classes in place of the labels. Success is the prediction of the target.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.MIFGSM(eps=0.1)(model, x, y)
        >>> x_adv.shape, bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
        (torch.Size([4, 1, 8, 8]), True)

    References:
        Dong et al. 2018, "Boosting adversarial attacks with momentum", https://arxiv.org/abs/1710.06081
    """

    norm: Literal["linf"] = field(default="linf", init=False)
    steps: int = 10
    alpha: float | None = None
    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_alpha(self.alpha, self.norm)
        if not 0 <= self.decay < math.inf:
            raise InputError(f"decay = {self.decay}: the momentum's decay factor is zero (no momentum) or more, as 1")

    norms: ClassVar[tuple[Norm, ...]] = ("linf",)
    takes_targets: ClassVar[bool] = True

    @property
    def title(self) -> str:
        return f"{'targeted ' if self.targeted else ''}MI-FGSM-{self.steps}"

    def with_alpha(self, alpha: float) -> MIFGSM:
        return replace(self, alpha=alpha)

    @property
    def reach(self) -> float | None:
        return None if self.alpha is None else self.alpha * self.steps

    def described(self, count: int = 1) -> str:
        return f"{self.title} (α = {f'ε/{self.steps}' if self.alpha is None else f'{self.alpha:g}'})"

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
        state = super().start(model, x, y, eps, init=init, generator=generator)
        return replace(state, momentum=torch.zeros_like(state.x))

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        tiny = torch.finfo(gradient.dtype).tiny
        # A gradient of zero stays zero: it must not become a NaN that moves the sample out of the ball.
        gradient = gradient / per_sample(gradient.flatten(1).abs().sum(dim=1).clamp_min(tiny), gradient)
        assert state.momentum is not None  # start gave it
        momentum = self.decay * state.momentum + gradient

        alpha = state.eps / self.steps if self.alpha is None else torch.full_like(state.eps, self.alpha)
        return self.moved(state.judged(logits), momentum.sign(), alpha, momentum)
