"""Attacks: perturbations ``(model, x, y) -> x'`` within a ball and the box [0, 1]. One file an attack."""

from .apgd import APGD, APGDState
from .attack import Attack, Norm, State, check_eps
from .autoattack import AutoAttack
from .fgsm import FGSM
from .mifgsm import MIFGSM
from .pgd import PGD
from .square import Square, SquareState
from .whole import Foreign, Whole

__all__ = [
    "APGD",
    "FGSM",
    "MIFGSM",
    "PGD",
    "APGDState",
    "Attack",
    "AutoAttack",
    "Foreign",
    "Norm",
    "Square",
    "SquareState",
    "State",
    "Whole",
    "check_eps",
]
