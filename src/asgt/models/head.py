"""The head of a classifier, the layer of the logits: found by its effect, and replaced for other classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..modes import ask, evaluating

__all__ = ["Replaced", "find_head", "give_classes", "logit_count", "replace_head"]


@dataclass(frozen=True)
class Replaced:
    """A head that was replaced.

    Attributes:
        head: the dotted name of the module.
        logits: its earlier number of outputs.
    """

    head: str
    logits: int


def logit_count(model: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """The number of logits of a classifier for images of a shape (C, H, W).

    Args:
        model: the classifier.
        shape: (C, H, W) of the images.
        name: the name of the model in errors.

    Raises:
        InputError: it cannot process such images, or returns no logits.
    """

    try:
        return _asked(model, _images(model, shape)).shape[1]
    except InputError as error:
        raise InputError(f"model {name}: {error}") from error
    except Exception as error:  # a stranger's code may raise anything
        first = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        hint = "; --rgb gives grey images three channels" if shape[0] == 1 else ""
        raise InputError(f"model {name} cannot process images of shape {tuple(shape)}: {first}{hint}") from error


def find_head(model: nn.Module, shape: tuple[int, int, int]) -> str | None:
    """The dotted name of the layer of the logits; ``None`` if there is none.

    It is the last ``Linear`` or ``Conv2d`` whose K outputs correspond to the K logits: later layers may pool them
    or change all in the same way, but may not mix them. To test this, the layer's output is replaced by random
    numbers, once with permuted classes: the logits must have the same permutation. The result does not depend on the
    weights, so an untrained model has the same head as a trained one. The model is in evaluation mode during the test,
    and is restored; no global generator is used.

    Args:
        model: a classifier, images (B, C, H, W) in [0, 1] to logits (B, K).
        shape: (C, H, W) of the images.
    """

    names = {module: name for name, module in model.named_modules() if name and _is_layer(module)}
    called: list[nn.Module] = []
    x = _images(model, shape)
    with _hooked(names, lambda module, output: called.append(module)):
        classes = _asked(model, x).shape[1]
    candidates = [module for module in dict.fromkeys(reversed(called)) if _rows(module) == classes]
    return next((names[module] for module in candidates if _gives_logits(module, model, x)), None)


def replace_head(model: nn.Module, name: str, classes: int) -> None:
    """Replaces a ``Linear`` or ``Conv2d`` by a new one of the same type, bias, precision and device.

    Args:
        model: the classifier, which is changed in place.
        name: the dotted name of the layer.
        classes: K, the number of logits.

    Raises:
        InputError: the model has no such layer.
    """

    try:
        old = model.get_submodule(name)
    except AttributeError as error:
        raise InputError(
            f"the model has no layer {name}, the expected layer of the logits: name another layer"
        ) from error
    if not _is_layer(old):
        raise InputError(
            f"the model's {name} is {type(old).__name__}, not a Linear or Conv2d: name the layer of the logits"
        )
    fresh: Any = deepcopy(old)
    for part, held in dict(old._parameters).items():
        if part in ("weight", "bias") and held is not None:
            value = torch.zeros(classes, *held.shape[1:], dtype=held.dtype, device=held.device)
            setattr(fresh, part, nn.Parameter(value))
    setattr(fresh, "out_channels" if isinstance(old, nn.Conv2d) else "out_features", classes)
    fresh.reset_parameters()
    # A layer may stand in several places.
    for module in list(model.modules()):
        for part, held_module in module._modules.items():
            if held_module is old:
                module._modules[part] = fresh


def give_classes(
    model: nn.Module, shape: tuple[int, int, int], classes: int, name: str, head: str | None = None
) -> Replaced | None:
    """Replaces the head of a model in place, if the number of its logits differs from the number of classes.

    Args:
        model: the classifier.
        shape: (C, H, W) of the images.
        classes: K.
        name: the name of the model in errors.
        head: the dotted name of the head. Default: found automatically.

    Returns:
        The replaced head; ``None`` if the model has K logits.

    Raises:
        InputError: no single layer computes the logits, or the model cannot process the images.
    """

    logits = logit_count(model, shape, name)
    if logits == classes:
        return None
    head = head or find_head(model, shape)
    if head is not None:
        replace_head(model, head, classes)
        if _gives(model, shape, classes):
            return Replaced(head, logits)
    raise InputError(
        f"model {name} gives {logits} logits, the data has {classes} classes, and it has no single Linear or "
        f"Conv2d for its logits that could be replaced: build it with {classes} outputs"
    )


def _gives(model: nn.Module, shape: tuple[int, int, int], classes: int) -> bool:
    try:
        return logit_count(model, shape, "") == classes
    except InputError:  # what follows the layer may count on its width, in a stranger's code
        return False


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer whose outputs can be made more or fewer: with weights of its own, not in groups."""

    if not isinstance(module, (nn.Linear, nn.Conv2d)) or isinstance(module, torch.jit.ScriptModule):
        return False
    is_apart = not isinstance(module, nn.Conv2d) or module.groups == 1
    return is_apart and isinstance(module._parameters.get("weight"), nn.Parameter)


def _rows(module: nn.Module) -> int:
    weight = module._parameters["weight"]
    assert weight is not None
    return len(weight)


def _images(model: nn.Module, shape: tuple[int, int, int]) -> Tensor:
    """Two images of noise, on the model's device."""

    device = next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0)).to(device)


@torch.no_grad()
def _asked(model: nn.Module, x: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), evaluating(model):
        return ask(model, x)


def _gives_logits(module: nn.Module, model: nn.Module, x: Tensor) -> bool:
    """Whether the outputs of a layer are the logits, each by itself."""

    dim = 1 if isinstance(module, nn.Conv2d) else -1

    def answered(shift: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)

        def noise(_: nn.Module, output: Tensor) -> Tensor:
            # Above zero as well as below: a ReLU may follow.
            values = torch.randn(output.shape, generator=generator).to(output)
            return values.roll(shift, dim)

        with _hooked([module], noise):
            return _asked(model, x).float()

    try:
        as_drawn, rolled = answered(0), answered(1)
    except Exception:  # a stranger's code may raise anything
        return False
    return torch.allclose(as_drawn.roll(1, 1), rolled, rtol=1e-3, atol=1e-5) and not torch.allclose(as_drawn, rolled)


@contextmanager
def _hooked(modules: Any, look: Any) -> Iterator[None]:
    """Calls ``look(module, output)`` after each of the modules; what it returns, but for ``None``, is its output."""

    handles = [module.register_forward_hook(lambda each, _, output: look(each, output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
