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
    """Standard training: the cross-entropy of the images as they are."""

    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        return {"clean": x}

    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        return {"clean": cross_entropy(logits["clean"], y)}
