r"""Saliency-guided adversarial training: mask, then attack.

.. math:: L = L_{CE}(f(X), y) + \lambda D_{KL}(f(\tilde X') \| f(X)), \qquad
          \tilde X = \mathrm{mask}(X), \quad \tilde X' = \mathrm{attack}(\tilde X)

(paper, section 2.3).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...attacks import Attack
from ...modes import Classifier
from ...randomness import Generators
from .sgt import SGT

__all__ = ["SGA"]


@dataclass(frozen=True, kw_only=True)
class SGA(SGT):
    """Saliency-guided adversarial training: SGT's loss on a masked view that is attacked afterwards.

    Args:
        attack: perturbs the masked images.
        mask: hides the least salient features of the clean images.
        weight: λ, the weight of the divergence.
        kl: ``"forward"`` is D(f(X~') ‖ f(X)); ``"reverse"`` the other way round.
        detach_clean: stop the gradient through f(X) in the divergence.

    Raises:
        InputError: a setting is invalid; or, in a call, the images, labels or model do not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> objective = asgt.SGA(attack=asgt.PGD(eps=0.1, steps=2), mask=asgt.SaliencyMask(k=0.1))
        >>> out = objective(model, x, y)
        >>> out.loss.backward()
        >>> sorted(out.terms)
        ['clean', 'consistency']

    References:
        Li et al. 2022, "Saliency guided adversarial training for learning generalizable features",
        https://arxiv.org/abs/2209.04326
    """

    attack: Attack

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        x_masked = self.mask(model, x, y, generator=generators.mask)
        x_masked_adv = self.attack(model, x_masked, y, eps=eps, generator=generators.attack)
        return {"clean": x, "masked": x_masked_adv}
