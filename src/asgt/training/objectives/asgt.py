r"""Adversarial saliency-guided training: attack, then mask.

.. math:: L = L_{CE}(f(X), y) + L_{CE}(f(X'), y) + \lambda D_{KL}(f(\tilde X') \| f(X)), \qquad
          X' = \mathrm{attack}(X), \quad \tilde X' = \mathrm{mask}(X')

(paper, Algorithm 2 and equation 5).
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
from ...saliency import SaliencyMask
from .objective import KL, Objective, check_weights, consistency

__all__ = ["ASGT"]


@dataclass(frozen=True, kw_only=True)
class ASGT(Objective):
    """Adversarial saliency-guided training: attack first, then mask the least salient features of the attacked images.

    Args:
        attack: perturbs the clean images.
        mask: hides the least salient features of the attacked images.
        weight: λ, the weight of the divergence. Default: 1, as in the paper.
        kl: ``"forward"`` is D(f(X~') ‖ f(X)), equation 4; ``"reverse"`` the other way round.
        detach_clean: stop the gradient through f(X) in the divergence. It is faster, and differs from the paper.

    Raises:
        InputError: a setting is invalid; or, in a call, the images, labels or model do not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> objective = asgt.ASGT(attack=asgt.PGD(eps=0.1, steps=2), mask=asgt.SaliencyMask(k=0.1), weight=1.0)
        >>> out = objective(model, x, y)
        >>> out.loss.backward()
        >>> sorted(out.terms)
        ['adversarial', 'clean', 'consistency']

    References:
        Guesmi et al. 2024, "Exploring the interplay of interpretability and robustness in deep neural networks: a
        saliency-guided approach", https://arxiv.org/abs/2405.06278
    """

    attack: Attack
    mask: SaliencyMask
    weight: float = 1.0
    kl: KL = "forward"
    detach_clean: bool = False

    def __post_init__(self) -> None:
        plain_fields(self)
        check_weights(weight=self.weight)

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        x_adv = self.attack(model, x, y, eps=eps, generator=generators.attack)
        x_masked = self.mask(model, x_adv, y, generator=generators.mask)
        return {"clean": x, "adversarial": x_adv, "masked": x_masked}

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        divergence = consistency(logits["masked"], logits["clean"], self.kl, self.detach_clean)
        return {
            "clean": cross_entropy(logits["clean"], y),
            "adversarial": cross_entropy(logits["adversarial"], y),
            "consistency": self.weight * divergence,
        }

    @property
    def clean_alone(self) -> bool:
        return self.detach_clean
