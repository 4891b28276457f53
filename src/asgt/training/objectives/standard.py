r"""Standard training.

.. math:: L = L_{CE}(f(X), y)

(paper, equation 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ...modes import Classifier
from ...passes import cross_entropy
from ...randomness import Generators
from .objective import Objective

__all__ = ["ST"]


@dataclass(frozen=True)
class ST(Objective):
    """Standard training: the cross-entropy of the clean images.

    Raises:
        InputError: in a call, the images, labels or model do not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> objective = asgt.ST()
        >>> out = objective(model, x, y)
        >>> out.loss.backward()
        >>> sorted(out.terms)
        ['clean']
    """

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        return {"clean": x}

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        return {"clean": cross_entropy(logits["clean"], y)}
