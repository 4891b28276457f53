"""Calls of models: on a copy of the images, in evaluation mode, under any of PyTorch's modes.

:func:`ask` is the only place where a classifier is called. So the properties of foreign models are handled once:
they may work in place, compute in another precision than the images have, or return an output object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .errors import InputError

__all__ = [
    "Classifier",
    "ask",
    "at_least_float32",
    "differentiable",
    "evaluating",
    "in_evaluation",
    "logits_of",
    "precise",
    "untouched",
    "wraps_classifier",
]

M = TypeVar("M", bound=nn.Module)

Classifier: TypeAlias = Callable[[Tensor], Tensor]
"""A function from images (B, C, H, W) in [0, 1] to logits (B, K), usually an ``nn.Module``.

An output object with ``logits``, like those of transformers, and a mapping with ``"logits"`` count as logits.
"""


def ask(model: Classifier, x: Tensor, *, owned: bool = False, least: int = 2) -> Tensor:
    """The logits (B, K) of a classifier for images (B, C, H, W), in its current mode.

    The model gets a copy of the images, so a model that works in place does not change the caller's. If the
    precision of the model differs from that of the images (half precision or float64), the copy is cast.

    Args:
        model: the classifier.
        x: images (B, C, H, W), or inputs of any shape (B, …).
        owned: whether the images are already a copy, which the model may change.
        least: the smallest number of classes; one class can be explained, but not classified.

    Raises:
        InputError: the output is not one row of at least so many logits for each image.
    """

    if getattr(model, "asks_by_itself", False):
        return model(x)
    ways = _ways(model, x)
    # A try that fails may have changed the images already, so the next one gets their values back.
    spare = x.detach().clone() if owned and len(ways) > 1 else None
    error: Exception | None = None
    for way in ways:
        if error is not None and spare is not None:
            x.data.copy_(spare)
        try:
            answer = model(_handed_over(model, x, way, owned))
        # Which error a model raises on another precision, or on a leaf of autograd, differs from layer to layer.
        except (RuntimeError, NotImplementedError) as this:
            error = error or this
            continue
        if isinstance(model, nn.Module):
            _WAYS.setdefault(model, {})[_situation(model, x)] = way
        return logits_of(answer, len(x), least)
    assert error is not None
    raise error


_Way: TypeAlias = Literal["as it is", "copied", "cast"]
_Situation: TypeAlias = tuple[torch.dtype, torch.dtype | None, bool]


def _ways(model: Classifier, x: Tensor) -> tuple[_Way, ...]:
    """How a model can be given images: the way that it is known to take, or else all, the plainest first."""

    if not isinstance(model, nn.Module):
        return ("as it is", "copied") if x.requires_grad and x.is_leaf else ("as it is",)
    situation = _situation(model, x)
    if (known := _WAYS.get(model, {}).get(situation)) is not None:
        return (known,)
    dtype, own, is_leaf = situation
    copied: tuple[_Way, ...] = ("copied",) if is_leaf else ()
    cast: tuple[_Way, ...] = ("cast",) if own not in (None, dtype) else ()
    return ("as it is", *copied, *cast)


def _situation(model: nn.Module, x: Tensor) -> _Situation:
    """What decides how a model can be given images: their precision, its own, and whether they are a leaf."""

    return x.dtype, _dtype_of(model), x.requires_grad and x.is_leaf


def _handed_over(model: Classifier, x: Tensor, way: _Way, owned: bool) -> Tensor:
    if way == "as it is":
        return x if owned else x.clone()
    # A leaf that wants its gradient cannot be changed in place, what is made of it can.
    dtype = _dtype_of(model) if way == "cast" else None
    return x.to(dtype or x.dtype, copy=True)


def wraps_classifier(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Marks a function that wraps a classifier and calls it through :func:`ask`, so it needs no separate copy."""

    call.asks_by_itself = True  # type: ignore[attr-defined]
    return call


def logits_of(answer: Any, count: int, least: int = 2) -> Tensor:
    """The logits (B, K) in a model's output for ``count`` images.

    Raises:
        InputError: there are none; the message has the output's type and the way to return logits.
    """

    logits = answer
    if not isinstance(answer, Tensor):
        logits = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returns {_described(answer)}: return logits (B, K){_taken_from(answer)}")
    if logits.is_quantized:
        logits = logits.dequantize()
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < least:
        shape = tuple(logits.shape)
        if shape in ((count,), (count, 1)):
            raise InputError(
                f"the model returns one number for each of {count} images, shape {shape}: return two logits (B, "
                "2); for one logit z, return torch.cat([0 * z, z], dim=1), whose softmax is the sigmoid of z"
            )
        raise InputError(
            f"the model returns shape {shape} for {count} images: return logits (B, K) of at least two classes"
        )
    if not logits.is_floating_point():
        raise InputError(f"the model returns {logits.dtype}: return floats, one for each class")
    return logits


def _described(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"a dict with {', '.join(map(repr, answer)) or 'nothing in it'}"
    if isinstance(answer, (tuple, list)):
        return f"a {type(answer).__name__} of {len(answer)}"
    return f"a {type(answer).__name__}"


def _taken_from(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return "; name them 'logits', or pass lambda x: model(x)[KEY]"
    if isinstance(answer, (tuple, list)):
        return "; pass a module that returns only logits, such as lambda x: model(x)[0] if they come first"
    return "" if isinstance(answer, Tensor) else "; pass a module that returns a tensor"


def _dtype_of(model: Classifier) -> torch.dtype | None:
    """The precision of a model's first weight, where it has any."""

    if not isinstance(model, nn.Module):
        return None
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)


_WAYS: WeakKeyDictionary[nn.Module, dict[_Situation, _Way]] = WeakKeyDictionary()
"""The way in which each model accepted images before."""


def in_evaluation(model: M) -> M:
    """Puts the model in evaluation mode with its ``eval()``; an exported one has no modes and is unchanged."""

    with suppress(NotImplementedError):
        model.eval()
    return model


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Puts ``model`` in evaluation mode, and restores the mode of each module afterwards, also after exceptions.

    ``model.train()`` cannot restore the modes: users freeze single layers (usually BatchNorm), and a frozen layer
    must remain frozen. If a model overrides ``eval()`` or ``train()``, its methods are called: modules that its
    ``eval()`` does not put in evaluation mode, as for Monte Carlo dropout, are intended. The modules of a plain
    function are unknown: pass the ``nn.Module``, or put its modules in evaluation mode first.

    Raises:
        InputError: the model's ``eval()`` does not put BatchNorm in evaluation mode, so outputs depend on the batch.
    """

    # A frozen TorchScript module has no mode.
    modules = model.modules() if isinstance(model, nn.Module) else ()
    training = [module for module in modules if getattr(module, "training", False)]

    if isinstance(model, nn.Module) and any(map(_has_modes_of_its_own, training)):
        with _evaluated_by_itself(model):
            yield
        return
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _has_modes_of_its_own(module: nn.Module) -> bool:
    kind = type(module)
    overridden = kind.eval is not nn.Module.eval or kind.train is not nn.Module.train
    return overridden and not kind.__module__.startswith("torch.")


@contextmanager
def _evaluated_by_itself(model: nn.Module) -> Iterator[None]:
    """Calls ``eval()``, and for the way back ``train()``, of a model that has its own."""

    modes = [(module, module.training) for module in model.modules()]
    was_training = model.training
    model.eval()
    try:
        for name, module in model.named_modules():
            if module.training and isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise InputError(
                    f"the model's eval() does not put {name or 'its BatchNorm'} in evaluation mode, so outputs "
                    "depend on the batch: change eval() to do so"
                )
        yield
    finally:
        if was_training:
            model.train()
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched(model: Classifier) -> Iterator[None]:
    """Restores modes and gradients of ``model`` after external code.

    Raises:
        InputError: that code changed weights or buffers, which cannot be restored.
    """

    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
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
            "the attack changed the model's weights or buffers: it must keep BatchNorm in evaluation mode and must "
            "not step an optimizer"
        )


def differentiable(tensor: Tensor) -> Tensor:
    """The tensor without its graph, copied if it was made in inference mode, which autograd refuses."""

    return tensor.clone() if tensor.is_inference() else tensor.detach()


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits in float32 at least; a loss in half precision loses its gradient by rounding."""

    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float64, or in float32 on Apple's devices, which lack float64."""

    return tensor.float() if tensor.device.type == "mps" else tensor.double()
