"""Training a user's network: frozen parts remain frozen, and a model that cannot be trained is refused first."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..attacks import Attack
from ..attacks.attack import is_legal
from ..errors import InputError, cut
from .config import TrainConfig
from .objectives import Objective

__all__ = ["check_storable", "check_takes_targets", "check_trainable", "left_in_evaluation", "put_in_training"]

M = TypeVar("M", bound=nn.Module)


def left_in_evaluation(model: nn.Module) -> frozenset[nn.Module]:
    """The modules that a factory put in evaluation mode while the network is in training mode.

    This is the usual way to freeze BatchNorm. If the whole network is in evaluation mode, as loaders of weights
    return it, no part counts as frozen.
    """

    inner = model.get_submodule("net") if "net" in dict(model.named_children()) else model
    if not getattr(inner, "training", False):
        return frozenset()
    return frozenset(module for module in inner.modules() if not getattr(module, "training", True))


def put_in_training(model: M, frozen: Collection[nn.Module]) -> M:
    """Puts the model in training mode, except for the modules that remain in evaluation mode."""

    model.train()
    for module in frozen:
        module.training = False
    return model


def check_takes_targets(objective: Objective, config: TrainConfig) -> None:
    """Refuses label smoothing and class weights for a method with its own loss code.

    :meth:`Objective.__call__` passes targets to the method's ``terms``. A class that overrides it or ``_loss`` may
    ignore them, and no trial can exclude this for every batch. So only a method that overrides neither gets targets.

    Args:
        objective: the method.
        config: the requested settings.

    Raises:
        InputError: naming the setting and the method.
    """

    if config.class_weights is not None:
        setting = f"--class-weights {cut(config.class_weights)}"
    elif config.label_smoothing:
        setting = f"--label-smoothing {config.label_smoothing:g}"
    else:
        return
    for name in ("__call__", "_loss"):
        if getattr(type(objective), name) is not getattr(Objective, name) or name in getattr(objective, "__dict__", {}):
            raise InputError(f"{setting}: method {type(objective).__name__} overrides {name} and ignores it, remove it")


def check_storable(model: nn.Module, name: str) -> None:
    """Refuses a model that a run folder cannot hold.

    Args:
        model: the classifier.
        name: its name in errors.

    Raises:
        InputError: it has no weights, or its state is more than tensors.
    """

    if next(model.parameters(), None) is None:
        raise InputError(f"{name} has no weights that a training can change and a run folder can store")
    for key, value in model.state_dict().items():
        if not isinstance(value, Tensor) or value.is_quantized:
            kind = "quantised" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise InputError(f"{name} cannot be trained: {key} of its state is {kind}, not a plain tensor")


def check_trainable(
    model: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    name: str,
    *,
    targets: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> None:
    """Runs the passes of one step with a copy of a model.

    Args:
        model: the classifier, in the mode that it was built in.
        objective: the method.
        x: a few images (B, C, H, W) in [0, 1].
        y: their labels (B,).
        name: the name of the model in errors, and of a foreign method: ``"model package:net"``.
        targets: the targets of the loss (B, K). Default: the labels.
        shortcut: the mask of the shortcut, bool (B, H, W), for a method that needs it.

    Raises:
        InputError: in one line, why the model cannot be trained: no weight is free or reached by a gradient, weights
            are in half precision, its code fails in training mode, or the method's terms do not depend on the targets.
    """

    free = [weight for weight in model.parameters() if weight.requires_grad]
    if not free:
        raise InputError(
            f"{name} cannot be trained: all of its parameters are frozen (requires_grad is False): unfreeze "
            "some of them"
        )
    if half := next((weight.dtype for weight in free if weight.dtype in (torch.float16, torch.bfloat16)), None):
        raise InputError(
            f"{name} cannot be trained in {half}: build it in float32, and use --precision bf16 for autocast"
        )

    frozen = left_in_evaluation(model)
    try:
        numbers = {module: number for number, module in enumerate(model.modules())}
        copy = deepcopy(model)
    except Exception:  # the training itself does without a copy
        return
    if any(weight.requires_grad and not weight.is_leaf for weight in copy.parameters()):
        return  # a TorchScript module's copies are no parameters that a gradient could reach
    inside = list(copy.modules())
    try:
        put_in_training(copy, [inside[numbers[module]] for module in frozen])
        told: dict[str, Any] = {} if targets is None else {"targets": targets}
        told |= {} if shortcut is None else {"shortcut": shortcut}
        output = objective(copy, x, y, **told)
        output.loss.backward()
        if targets is not None:
            _check_heard(objective, output.logits, targets)
        torch.optim.SGD(copy.parameters(), lr=0.0, fused=True)
    except InputError as error:
        raise InputError(f"{name} cannot be trained: {error}") from error
    except Exception as error:  # a stranger's code may raise anything
        first = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{name} cannot be trained: {first}") from error
    _check_attack(objective.adversary, copy, x, y)
    if all(weight.grad is None for weight in copy.parameters()):
        raise InputError(f"{name} cannot be trained: no gradient reaches its weights; look for no_grad or detach")


def _check_heard(objective: Objective, logits: Mapping[str, Tensor], targets: Tensor) -> None:
    """Refuses a method whose terms are the same whatever the targets are."""

    with torch.no_grad():
        one, other = (objective.terms(logits, rows) for rows in (targets, targets + 1))
    if all(torch.equal(one[name], other[name]) for name in one):
        raise InputError(
            f"the terms of {type(objective).__name__} do not depend on label smoothing or weights: remove "
            "--label-smoothing and --class-weights"
        )


def _check_attack(attack: Attack | None, model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Refuses an attack of somebody else that leaves the ball or the box: no training would notice."""

    if attack is None or not attack.is_external or attack.eps is None:
        return
    if not bool(is_legal(attack(model, x, y), x, attack.radius, attack.norm).all()):
        raise InputError(
            f"attack {attack.title} returns images outside the ball or the box, or NaN: project them, as moved() does"
        )
