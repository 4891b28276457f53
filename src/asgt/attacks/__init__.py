"""Attacks: perturbations ``(model, x, y) -> x'`` within a ball and the box [0, 1]. One file an attack."""

from .apgd import APGD, APGDState
from .base import Attack, Norm, State, check_eps
from .fgsm import FGSM
from .mifgsm import MIFGSM
from .pgd import PGD
from .square import Square, SquareState

__all__ = [
    "APGD",
    "FGSM",
    "MIFGSM",
    "PGD",
    "APGDState",
    "Attack",
    "Norm",
    "Square",
    "SquareState",
    "State",
    "check_eps",
]
