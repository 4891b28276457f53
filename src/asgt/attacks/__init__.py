"""Attacks: perturbations ``(model, x, y) -> x'`` within a ball and the box [0, 1]. One file for each attack."""

from .annealed import AnnealedPGD, AnnealedState
from .apgd import APGD, APGDState
from .attack import Attack, Norm, State, check_eps, is_attack
from .autoattack import AutoAttack
from .description import describe
from .fgsm import FGSM
from .mifgsm import MIFGSM
from .pgd import PGD
from .repeated import Repeated
from .square import LocalSquare, RescaledSquare, Square, SquareState
from .whole import Foreign, Whole, as_attack

__all__ = [
    "APGD",
    "FGSM",
    "MIFGSM",
    "PGD",
    "APGDState",
    "AnnealedPGD",
    "AnnealedState",
    "Attack",
    "AutoAttack",
    "Foreign",
    "LocalSquare",
    "Norm",
    "Repeated",
    "RescaledSquare",
    "Square",
    "SquareState",
    "State",
    "Whole",
    "as_attack",
    "check_eps",
    "describe",
    "is_attack",
]
