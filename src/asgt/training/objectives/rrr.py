r"""Right for the right reasons: a penalty on the input gradient inside the shortcut's mask.

.. math:: L = L_{CE}(f(X), y) + \lambda \sum_d \Big( A_d \, \frac{\partial}{\partial X_d} \sum_k \log p_k(X) \Big)^2

with A = 1 inside the shortcut's mask, and 0 elsewhere (Ross et al., equation 1, without the decay of weights).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...modes import Classifier, at_least_float32
from ...numbers import plain_fields
from ...passes import a_pass, cross_entropy
from ...randomness import Generators
from .objective import Objective, check_weights

__all__ = ["RRR"]


@dataclass(frozen=True)
class RRR(Objective):
    """Right for the right reasons: the cross-entropy, and a penalty on input gradients inside the shortcut's mask.

    It uses the mask of the shortcut, which is unknown in practice, so it is a reference for what is possible. The
    penalty is the mean over the batch of the squared gradients of Σₖ log pₖ, summed over the values inside the mask.
    With BatchNorm in training mode, an image's gradient includes its effect on the other images of its batch.

    Args:
        weight: λ, the weight of the penalty. Default: 1.

    Raises:
        InputError: the weight is negative or not finite; when called, the mask of the shortcut is not passed.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> corner = torch.zeros(4, 8, 8, dtype=torch.bool)
        >>> corner[:, :2, :2] = True
        >>> out = asgt.RRR(weight=1.0)(model, x, y, shortcut=corner)
        >>> sorted(out.terms)
        ['clean', 'reasons']

    References:
        Ross et al. 2017, "Right for the right reasons: training differentiable models by constraining their
        explanations", https://arxiv.org/abs/1703.03717
    """

    weight: float = 1.0

    def __post_init__(self) -> None:
        plain_fields(self)
        check_weights(weight=self.weight)

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        return {"clean": x}

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        return {"clean": cross_entropy(logits["clean"], y)}

    @property
    def needs_shortcut(self) -> bool:
        return True

    def penalties(self, x: Tensor, logits: Mapping[str, Tensor], shortcut: Tensor) -> dict[str, Tensor]:
        log_p = F.log_softmax(at_least_float32(logits["clean"]), dim=1)
        # A class masked out by minus infinity has no slope, and 0 · ∞ would be NaN.
        total = log_p.masked_fill(log_p.isneginf(), 0.0).sum()
        with a_pass():
            (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        inside = gradient * shortcut.unsqueeze(1)
        return {"reasons": self.weight * inside.square().sum() / len(x)}
