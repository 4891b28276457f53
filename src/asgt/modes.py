"""Evaluation mode for the time of a block, module by module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from torch import Tensor, nn

__all__ = ["Classifier", "evaluating"]

Classifier: TypeAlias = Callable[[Tensor], Tensor]
"""Anything that maps images (B, C, H, W) in [0, 1] to logits (B, K); most often an ``nn.Module``."""


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Puts ``model`` in evaluation mode, and each of its modules back as it was, on every way out.

    ``model.train()`` would not do for the way back: users freeze single layers (BatchNorm above all), and a frozen
    layer must come back frozen.
    """

    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []

    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
