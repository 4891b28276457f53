"""Objectives: the methods, one file each. ``objective(model, x, y).loss.backward()`` in anybody's loop."""

from .adversarial import AT
from .asgt import ASGT
from .objective import Objective, Output, kl_divergence
from .sga import SGA
from .sgt import SGT
from .standard import ST
from .trades import TRADES

__all__ = ["ASGT", "AT", "SGA", "SGT", "ST", "TRADES", "Objective", "Output", "kl_divergence"]
