"""Robust accuracy over ε as a user of another library writes it: a loop over ε, every image at each.

Each function takes images (N, C, H, W) in [0, 1], labels (N,) and a grid of E radii, and gives which samples stay right
at each ε, bool (E, N).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import foolbox
import torch
import torchattacks
from pyautoattack import AutoAttack
from torch import Tensor, nn

__all__ = ["PAPER", "foolbox_pgd", "pyautoattack_curve", "torchattacks_curve", "torchattacks_pgd"]

_CONSTANT = 2 / 255

PAPER: dict[str, Callable[[nn.Module, float], Any]] = {
    "fgsm": lambda model, eps: torchattacks.FGSM(model, eps=eps),
    "pgd-constant-rs": lambda model, eps: torchattacks.PGD(model, eps=eps, alpha=_CONSTANT, steps=10),
    "pgd-constant": lambda model, eps: torchattacks.PGD(model, eps=eps, alpha=_CONSTANT, steps=10, random_start=False),
    "pgd-relative": lambda model, eps: torchattacks.PGD(
        model, eps=eps, alpha=2.5 * eps / 10, steps=10, random_start=False
    ),
    "mifgsm-constant": lambda model, eps: torchattacks.MIFGSM(model, eps=eps, alpha=_CONSTANT, steps=10),
    "mifgsm-relative": lambda model, eps: torchattacks.MIFGSM(model, eps=eps, alpha=2.5 * eps / 10, steps=10),
}
"""The attacks of the protocol ``paper``, by their names there."""


def torchattacks_curve(
    made: Callable[[nn.Module, float], Any],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    grid: Sequence[float],
    batch_size: int,
) -> Tensor:
    """An attack of torchattacks at each ε, its last iterate."""

    curve = []
    for eps in grid:
        attack = made(model, eps)
        right = []
        for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            x_adv = attack(images, labels)
            with torch.no_grad():
                right.append(model(x_adv).argmax(dim=1) == labels)
        curve.append(torch.cat(right))
    return torch.stack(curve)


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, grid: Sequence[float], batch_size: int) -> Tensor:
    """PGD-40 of torchattacks, α = 2.5 ε / 40, one random start."""

    return torchattacks_curve(
        lambda model, eps: torchattacks.PGD(model, eps=eps, alpha=2.5 * eps / 40, steps=40),
        model,
        x,
        y,
        grid,
        batch_size,
    )


def foolbox_pgd(model: nn.Module, x: Tensor, y: Tensor, grid: Sequence[float], batch_size: int) -> Tensor:
    """PGD-40 of foolbox, α = 2.5 ε / 40, one random start; its own call walks the grid."""

    attacked = foolbox.PyTorchModel(model, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / 40, steps=40)
    parts = [
        attack(attacked, images, labels, epsilons=list(grid))[2]
        for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True)
    ]
    return ~torch.cat(parts, dim=1)


def pyautoattack_curve(model: nn.Module, x: Tensor, y: Tensor, grid: Sequence[float], batch_size: int) -> Tensor:
    """AutoAttack of its authors' package, standard version, at each ε."""

    curve = []
    for eps in grid:
        attack = AutoAttack(model, norm="Linf", eps=eps, seed=0, version="standard")
        curve.append(attack.run_standard_evaluation(x, y, batch_size=batch_size)[1] == y)
    return torch.stack(curve)
