r"""The plain gradient: one function, used by the mask and by every map.

.. math:: a = \nabla_X f_y(X) \quad\text{or}\quad \nabla_X \log p_y(X)

References:
    Simonyan et al. 2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, differentiable, evaluating
from ..passes import cross_entropy_gradient, input_gradient

__all__ = ["Target", "saliency"]

Target: TypeAlias = Literal["logit", "log_prob"]


def saliency(model: Classifier, x: Tensor, y: Tensor, target: Target = "logit") -> Tensor:
    """The signed gradient of the label's score to the input, with the model in evaluation mode.

    Args:
        model: the classifier, inputs (B, …) to logits (B, K).
        x: inputs (B, …), as images (B, C, H, W) in [0, 1].
        y: labels (B,), int64, or class probabilities (B, K) as weights of the classes' scores.
        target: the score: the label's ``"logit"`` (default), or its ``"log_prob"``, which the original
            saliency-guided training uses.

    Returns:
        The gradient, detached, of the shape of ``x``. No parameter's ``grad`` is touched.

    Raises:
        InputError: the target is neither.
    """

    if target not in ("logit", "log_prob"):
        raise InputError(f"target = {target!r} is unknown: use 'logit' or 'log_prob'")

    with evaluating(model):
        # What is masked by its saliency is, as it was before, a view of the loss in most methods.
        if target == "log_prob":
            return -cross_entropy_gradient(model, x, y, again=True)[0]
        return input_gradient(model, x, lambda logits: _label_logits(logits, differentiable(y)).sum(), again=True)[0]


def _label_logits(logits: Tensor, y: Tensor) -> Tensor:
    """The logits of the labels: one for each image (B, 1), or, of class probabilities, their weighted values (B, K)."""

    if y.ndim == 1:
        return logits.gather(1, y[:, None])
    # A class that is masked out by minus infinity has no slope, and 0 · ∞ would be NaN.
    return torch.where(y > 0, logits, 0.0) * y
