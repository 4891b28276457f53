r"""Saliency-guided training: mask.

.. math:: L = L_{CE}(f(X), y) + \lambda D_{KL}(f(\tilde X) \| f(X)), \qquad \tilde X = \mathrm{mask}(X)

(paper, Algorithm 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...modes import Classifier
from ...numbers import plain_fields
from ...passes import cross_entropy
from ...randomness import Generators
from ...saliency import SaliencyMask
from .objective import KL, Objective, check_weights, consistency

__all__ = ["SGT"]


@dataclass(frozen=True, kw_only=True)
class SGT(Objective):
    """Saliency-guided training: cross-entropy, and a divergence between the logits of masked and of clean images.

    Args:
        mask: hides the least salient features.
        weight: λ, the weight of the divergence.
        kl: ``"forward"`` is D(f(X~) ‖ f(X)), as in the papers; ``"reverse"`` is what the original code computes.
        detach_clean: stop the gradient through f(X) in the divergence. It is faster, and differs from the papers.

    Raises:
        InputError: a setting is invalid; or, in a call, the images, labels or model do not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> objective = asgt.SGT(mask=asgt.SaliencyMask(k=0.1))
        >>> out = objective(model, x, y)
        >>> out.loss.backward()
        >>> sorted(out.terms)
        ['clean', 'consistency']

    References:
        Ismail et al. 2021, "Improving deep learning interpretability by saliency guided training",
        https://arxiv.org/abs/2111.14338
    """

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
        x_masked = self.mask(model, x, y, generator=generators.mask)
        return {"clean": x, "masked": x_masked}

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        divergence = consistency(logits["masked"], logits["clean"], self.kl, self.detach_clean)
        return {
            "clean": cross_entropy(logits["clean"], y),
            "consistency": self.weight * divergence,
        }

    @property
    def clean_alone(self) -> bool:
        return self.detach_clean
