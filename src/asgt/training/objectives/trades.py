r"""TRADES: a trade between accuracy and robustness.

.. math:: L = L_{CE}(f(X), y) + \beta \, D_{KL}(f(X) \| f(X')), \qquad
          X' = \arg\max_{\|X' - X\| \le \epsilon} D_{KL}(f(X) \| f(X'))

The inner search holds f(X) fixed. For fixed probabilities p the gradient of KL(p ‖ f(X')) is that of the cross-entropy
to p, so any attack serves, given p as its label. It starts at X + 0.001·N(0, 1): at X itself that gradient is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ...attacks import PGD
from ...modes import Classifier, ask, at_least_float32, evaluating
from ...numbers import plain_fields
from ...passes import a_pass, cross_entropy
from ...randomness import Generators, normal_like
from .objective import Objective, check_weights, kl_divergence

__all__ = ["TRADES"]


@dataclass(frozen=True)
class TRADES(Objective):
    """TRADES: cross-entropy, and a divergence from the clean images' logits to those of attacked images.

    Args:
        attack: the inner search; its random start and its restarts do not apply.
        beta: the weight of the divergence. Default: 6, the authors' value for CIFAR-10.

    Raises:
        InputError: a setting is invalid; or, in a call, the images, labels or model do not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> objective = asgt.TRADES(attack=asgt.PGD(eps=0.1, steps=2), beta=6)
        >>> out = objective(model, x, y)
        >>> out.loss.backward()
        >>> sorted(out.terms)
        ['clean', 'consistency']

    References:
        Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy",
        https://arxiv.org/abs/1901.08573
    """

    stored_as: ClassVar[Mapping[str, str]] = {"beta": "weight"}

    attack: PGD
    beta: float = 6.0

    def __post_init__(self) -> None:
        plain_fields(self)
        check_weights(beta=self.beta)

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        with evaluating(model), torch.no_grad(), a_pass():
            clean = at_least_float32(ask(model, x)).softmax(dim=1)

        start = x + 0.001 * normal_like(x, generators.attack)
        search = replace(self.attack, restarts=1)
        x_adv = search(model, x, clean, eps=eps, init=start, generator=generators.attack)
        return {"clean": x, "adversarial": x_adv}

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        return {
            "clean": cross_entropy(logits["clean"], y),
            "consistency": self.beta * kl_divergence(logits["clean"], logits["adversarial"]),
        }
