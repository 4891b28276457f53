"""How a model is called: on a copy of the images, in evaluation mode, under any of PyTorch's modes.

:func:`ask` is the one place where a classifier is called. So what is true of other people's models is handled once:
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
"""Anything that maps images (B, C, H, W) in [0, 1] to logits (B, K); most often an ``nn.Module``.

An output object with ``logits``, as those of transformers, and a mapping that holds ``"logits"`` count as logits.
"""


def ask(model: Classifier, x: Tensor, *, owned: bool = False, least: int = 2) -> Tensor:
    """The logits (B, K) that a classifier gives for images (B, C, H, W), in whatever mode it is.

    The model gets a copy of the images, so one that works in place changes nothing of the caller's. Where the model
    computes in another precision than the images have (a net in half precision or in float64), the copy is cast.

    Args:
        model: the classifier.
        x: images (B, C, H, W), or inputs of any shape (B, …).
        owned: whether the images are a copy already, which the model may change.
        least: the fewest classes that will do; one can be explained, but not classified.

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
    """Marks a function that wraps a classifier, and calls it through :func:`ask`: it needs no copy of its own."""

    call.asks_by_itself = True  # type: ignore[attr-defined]
    return call


def logits_of(answer: Any, count: int, least: int = 2) -> Tensor:
    """The logits (B, K) in what a model returned for ``count`` images.

    Raises:
        InputError: there are none, in one line that says what there is and how to return logits.
    """

    logits = answer
    if not isinstance(answer, Tensor):
        logits = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returns {_described(answer)}: logits (B, K) are needed{_taken_from(answer)}")
    if logits.is_quantized:
        logits = logits.dequantize()
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < least:
        shape = tuple(logits.shape)
        if shape in ((count,), (count, 1)):
            raise InputError(
                f"the model returns one number for each of {count} images, shape {shape}: two logits (B, 2) are "
                "needed; for one logit z, return torch.cat([0 * z, z], dim=1), whose softmax is the sigmoid of z"
            )
        raise InputError(
            f"the model returns shape {shape} for {count} images: logits (B, K) of two classes or more are needed"
        )
    if not logits.is_floating_point():
        raise InputError(f"the model returns {logits.dtype}: logits are floats, one for each class")
    return logits


def _described(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return f"a dict with {', '.join(map(repr, answer)) or 'nothing in it'}"
    if isinstance(answer, (tuple, list)):
        return f"a {type(answer).__name__} of {len(answer)}"
    return f"a {type(answer).__name__}"


def _taken_from(answer: Any) -> str:
    if isinstance(answer, Mapping):
        return "; name them 'logits', or hand over lambda x: model(x)[KEY]"
    if isinstance(answer, (tuple, list)):
        return "; hand over a module that returns them alone, as lambda x: model(x)[0] where they come first"
    return "" if isinstance(answer, Tensor) else "; hand over a module that returns a tensor"


def _dtype_of(model: Classifier) -> torch.dtype | None:
    """The precision of a model's first weight, where it has any."""

    if not isinstance(model, nn.Module):
        return None
    return next((weight.dtype for weight in model.parameters() if weight.is_floating_point()), None)


_WAYS: WeakKeyDictionary[nn.Module, dict[_Situation, _Way]] = WeakKeyDictionary()
"""How each model has taken images before."""


def in_evaluation(model: M) -> M:
    """The model itself in evaluation mode, by its own ``eval()``; an exported one has no modes and stays as it is."""

    with suppress(NotImplementedError):
        model.eval()
    return model


@contextmanager
def evaluating(model: Classifier) -> Iterator[None]:
    """Puts ``model`` in evaluation mode, and each of its modules back as it was, on every way out.

    ``model.train()`` would not do for the way back: users freeze single layers (BatchNorm above all), and a frozen
    layer must come back frozen. A model whose own ``eval()`` or ``train()`` does more than set flags has them called:
    what that ``eval()`` leaves in training mode, as Monte Carlo dropout does, is meant. The modules of a plain function
    cannot be seen: hand over the ``nn.Module`` itself, or put what the function calls in evaluation mode first.

    Raises:
        InputError: the model's own ``eval()`` leaves BatchNorm in training mode, where answers depend on the batch.
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
                    f"the model's own eval() leaves {name or 'its BatchNorm'} in training mode, where an answer "
                    "depends on the whole batch: let eval() put BatchNorm in evaluation mode"
                )
        yield
    finally:
        if was_training:
            model.train()
        for module, mode in modes:
            module.training = mode


@contextmanager
def untouched(model: Classifier) -> Iterator[None]:
    """Puts modes and gradients of ``model`` back as they were, whatever somebody else's code does to them.

    Raises:
        InputError: that code changed weights or buffers, which cannot be put back.
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
