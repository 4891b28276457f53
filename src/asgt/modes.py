"""How a model is asked: in evaluation mode, for a gradient under any of PyTorch's modes, in enough precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .errors import InputError

__all__ = ["Classifier", "at_least_float32", "differentiable", "evaluating", "precise", "untouched"]

Classifier: TypeAlias = Callable[[Tensor], Tensor]
"""Anything that maps images (B, C, H, W) in [0, 1] to logits (B, K); most often an ``nn.Module``."""


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Puts ``model`` in evaluation mode, and each of its modules back as it was, on every way out.

    ``model.train()`` would not do for the way back: users freeze single layers (BatchNorm above all), and a frozen
    layer must come back frozen. The modules of a plain function cannot be seen: hand over the ``nn.Module`` itself, or
    put what the function calls in evaluation mode first.
    """

    training = [module for module in model.modules() if module.training] if isinstance(model, nn.Module) else []

    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def untouched(model: Classifier) -> Iterator[None]:
    """Puts modes and gradients of ``model`` back as they were, whatever somebody else's code does to them.

    Raises:
        InputError: that code changed weights or buffers, which cannot be put back.
    """

    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(weight, weight.grad) for weight in model.parameters()]
    for weight, _ in gradients:
        weight.grad = None
    held = [tensor for tensor in (*model.parameters(), *model.buffers()) if not tensor.is_inference()]
    versions = [(tensor, tensor._version) for tensor in held]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for weight, gradient in gradients:
            weight.grad = gradient
    if any(tensor._version != version for tensor, version in versions):
        raise InputError(
            "the attack changed the model's weights or buffers: it must leave BatchNorm in evaluation mode and step no "
            "optimizer"
        )


def differentiable(tensor: Tensor) -> Tensor:
    """The tensor cut off its graph, and copied where it was made in inference mode, which autograd refuses."""

    return tensor.clone() if tensor.is_inference() else tensor.detach()


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits in float32 where they came in less; a loss in half precision rounds its gradient away."""

    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float64, or in float32 on Apple's devices, which have no better."""

    return tensor.float() if tensor.device.type == "mps" else tensor.double()
