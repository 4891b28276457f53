r"""The plain gradient: one function, shared by the mask and by every map that is drawn or measured.

.. math:: a = \nabla_X f_y(X) \quad\text{or}\quad \nabla_X \log p_y(X)

References:
    Simonyan et al. 2013, "Deep inside convolutional networks", https://arxiv.org/abs/1312.6034
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, differentiable, evaluating

__all__ = ["Target", "saliency"]

Target: TypeAlias = Literal["logit", "log_prob"]


def saliency(model: Classifier, x: Tensor, y: Tensor, target: Target = "logit") -> Tensor:
    """The signed gradient of the label's score to the input, with the model in evaluation mode.

    Args:
        model: the classifier, inputs (B, …) to logits (B, K).
        x: inputs (B, …), as images (B, C, H, W) in [0, 1].
        y: labels (B,), int64.
        target: the score: the label's ``"logit"`` (default), or its ``"log_prob"``, which is what the original
            saliency-guided training differentiates.

    Returns:
        The gradient, detached, of the shape of ``x``. No parameter's ``grad`` is touched.

    Raises:
        InputError: the target is neither.
    """

    if target not in ("logit", "log_prob"):
        raise InputError(f"target = {target!r} is unknown: use 'logit' or 'log_prob'")

    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = model(x)
        scores = F.log_softmax(logits, dim=1) if target == "log_prob" else logits
        total = scores.gather(1, differentiable(y)[:, None]).sum()
        # Logits that do not depend on the input, or not so that autograd knows, have the gradient zero.
        gradient = torch.autograd.grad(total, x, allow_unused=True)[0] if total.requires_grad else None

    return torch.zeros_like(x) if gradient is None else gradient
