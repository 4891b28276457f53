"""The optimizers by name: their settings with defaults, and the function that makes one.

Configurations read the defaults, so PyTorch is imported only where an optimizer is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InputError, shown, unknown

if TYPE_CHECKING:  # asgt --help does without PyTorch
    import torch
    from torch import nn

__all__ = ["OPTIMIZERS", "OPTIMIZER_SETTINGS", "OptimizerKind", "make_optimizer", "optimizer_settings"]

OPTIMIZER_SETTINGS = ("lr", "momentum", "weight_decay")
"""The settings of optimizers; an optimizer ignores those without a default in its record."""


@dataclass(frozen=True)
class OptimizerKind:
    """An optimizer of PyTorch.

    Attributes:
        name: of its class in ``torch.optim``.
        defaults: of the settings that it uses.
    """

    name: str
    defaults: Mapping[str, float]


OPTIMIZERS: dict[str, OptimizerKind] = {
    "sgd": OptimizerKind("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}),
    "adamw": OptimizerKind("AdamW", {"lr": 0.001, "weight_decay": 0.01}),
}
"""The optimizers of ``--optimizer``. AdamW has PyTorch's β = (0.9, 0.999) and ε = 1e-8, which are not settings."""


def optimizer_settings(name: str, given: Mapping[str, float | None]) -> dict[str, float]:
    """The settings that an optimizer uses, with its defaults for those that are not given.

    Args:
        name: of the optimizer.
        given: some of :data:`OPTIMIZER_SETTINGS`; ``None`` is not given.

    Raises:
        InputError: the optimizer is unknown, or it ignores a given setting.
    """

    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    defaults, set_ = OPTIMIZERS[name].defaults, {key: value for key, value in given.items() if value is not None}
    for key, value in set_.items():
        if key not in defaults:
            flag = f"--{key.replace('_', '-')} {shown(value)}"
            raise InputError(f"{flag}: optimizer {name} ignores it, remove it")
    return {**defaults, **set_}


def make_optimizer(
    name: str, parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], given: Mapping[str, float | None]
) -> torch.optim.Optimizer:
    """An optimizer whose step is one fused kernel.

    A step is taken outside of what a CUDA graph records (:class:`asgt.training.graphs.GraphedStep` stores
    gradients), so nothing here is ``capturable``.

    Args:
        name: ``sgd`` or ``adamw``.
        parameters: the weights, or groups of them as PyTorch's optimizers take them.
        given: some of :data:`OPTIMIZER_SETTINGS`, as :func:`optimizer_settings` takes them.

    Raises:
        InputError: the optimizer is unknown, or it ignores a given setting.

    References:
        Loshchilov and Hutter 2017, "Decoupled weight decay regularization", https://arxiv.org/abs/1711.05101 (AdamW)
    """

    import torch

    settings = optimizer_settings(name, given)
    made: torch.optim.Optimizer = getattr(torch.optim, OPTIMIZERS[name].name)(parameters, fused=True, **settings)
    return made
