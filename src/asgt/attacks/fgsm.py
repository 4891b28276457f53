r"""Fast gradient sign method.

.. math:: X' = \Pi_{[0, 1]} \big( X + \epsilon \, \mathrm{sign} \nabla_X L(f(X), y) \big)

The paper's equation 6 has a minus sign; the ascent that it describes needs a plus.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from .attack import Attack, Norm, State, steepest

__all__ = ["FGSM"]


@dataclass(frozen=True)
class FGSM(Attack):
    """Fast gradient sign method: one gradient, one step of length ``eps``, in L∞.

    Args:
        eps: the radius in [0, 1].
        random_start: start at a random point of the ball and step 1.25 ε, projected back (FGSM-RS). In training,
            plain FGSM overfits catastrophically; this delays it.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.FGSM(eps=0.1)(model, x, y)
        >>> x_adv.shape, bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
        (torch.Size([4, 1, 8, 8]), True)

    References:
        Goodfellow et al. 2014, "Explaining and harnessing adversarial examples", https://arxiv.org/abs/1412.6572
        Wong et al. 2020, "Fast is better than free", https://arxiv.org/abs/2001.03994 (random start)
    """

    norm: Literal["linf"] = field(default="linf", init=False)
    steps: int = field(default=1, init=False)
    random_start: bool = False

    norms: ClassVar[tuple[Norm, ...]] = ("linf",)

    @property
    def starts_at_random(self) -> bool:
        return self.random_start

    @property
    def one_gradient(self) -> bool:
        return not self.random_start

    def doubled(self) -> None:
        return None

    def described(self, count: int = 1) -> str:
        return "FGSM-RS" if self.random_start else "FGSM"

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        alpha = 1.25 * state.eps if self.random_start else state.eps
        return self.moved(state.judged(logits), steepest(gradient, self.norm), alpha)
