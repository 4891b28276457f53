"""Objectives: the methods, one file each. ``objective(model, x, y).loss.backward()`` in any training loop.

A method of asgt is imported when it is first used: :data:`asgt.training.method_registry.METHODS` holds its place.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..method_registry import METHODS
from .objective import Objective, Output, kl_divergence

if TYPE_CHECKING:  # only what a type checker is to know of before it is used
    from .adversarial import AT
    from .asgt import ASGT
    from .rrr import RRR
    from .sga import SGA
    from .sgt import SGT
    from .standard import ST
    from .trades import TRADES

__all__ = ["ASGT", "AT", "RRR", "SGA", "SGT", "ST", "TRADES", "Objective", "Output", "kl_divergence"]


def __getattr__(name: str) -> Any:
    for module, _, attribute in (place.partition(":") for place in METHODS.values()):
        if attribute == name and module.startswith(f"{__name__}."):
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
