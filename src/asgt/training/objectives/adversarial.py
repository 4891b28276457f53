r"""Adversarial training.

.. math:: L = L_{CE}(f(X'), y) + w \, L_{CE}(f(X), y), \qquad X' = \mathrm{attack}(X)

with w = 0 as Madry et al. train, and w > 0 as Goodfellow et al. do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...attacks import Attack
from ...modes import Classifier
from ...numbers import plain_fields
from ...passes import cross_entropy
from ...randomness import Generators
from .objective import Objective, check_weights

__all__ = ["AT"]


@dataclass(frozen=True)
class AT(Objective):
    """Adversarial training: the cross-entropy of attacked images.

    Args:
        attack: the attack that the model is trained against.
        clean_weight: the weight of the clean images' cross-entropy. Default: 0, without a clean pass.

    Raises:
        InputError: a setting is invalid; or, in a call, the images, labels or model do not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> objective = asgt.AT(attack=asgt.PGD(eps=0.1, steps=2), clean_weight=0.5)
        >>> out = objective(model, x, y)
        >>> out.loss.backward()
        >>> sorted(out.terms)
        ['adversarial', 'clean']

    References:
        Madry et al. 2017, "Towards deep learning models resistant to adversarial attacks",
        https://arxiv.org/abs/1706.06083
        Goodfellow et al. 2014, "Explaining and harnessing adversarial examples", https://arxiv.org/abs/1412.6572
    """

    attack: Attack
    clean_weight: float = 0.0

    def __post_init__(self) -> None:
        plain_fields(self)
        check_weights(clean_weight=self.clean_weight)

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        x_adv = self.attack(model, x, y, eps=eps, generator=generators.attack)
        return {"adversarial": x_adv} | ({"clean": x} if self.clean_weight else {})

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        terms = {"adversarial": cross_entropy(logits["adversarial"], y)}
        if self.clean_weight:
            terms["clean"] = self.clean_weight * cross_entropy(logits["clean"], y)
        return terms

    @property
    def clean_alone(self) -> bool:
        return self.clean_weight > 0
