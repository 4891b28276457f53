"""Attacks: perturbations ``(model, x, y) -> x'`` within a ball and the box [0, 1]. One file an attack."""

from .base import Attack, Norm, State, check_eps
from .fgsm import FGSM
from .mifgsm import MIFGSM
from .pgd import PGD

__all__ = ["FGSM", "MIFGSM", "PGD", "Attack", "Norm", "State", "check_eps"]
