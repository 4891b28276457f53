"""From a configuration's names to objects: the method's objective, and the attack that judges it."""

from __future__ import annotations

from ..attacks import FGSM, PGD, Attack
from ..saliency import SaliencyMask
from .config import TrainConfig
from .objectives import ASGT, AT, SGA, SGT, ST, TRADES, Objective

__all__ = ["build_attack", "build_objective"]


def build_objective(config: TrainConfig) -> Objective:
    """The objective of a resolved configuration."""

    match config.method:
        case "st":
            return ST()
        case "at":
            return AT(build_attack(config), clean_weight=float(config.clean_weight or 0.0))
        case "trades":
            return TRADES(_pgd(config), beta=_given(config.weight))
        case "sgt":
            return SGT(
                mask=_mask(config),
                weight=_given(config.weight),
                kl=config.kl or "forward",
                detach_clean=bool(config.detach_clean),
            )
        case "sga" | "asgt":
            return (SGA if config.method == "sga" else ASGT)(
                attack=build_attack(config),
                mask=_mask(config),
                weight=_given(config.weight),
                kl=config.kl or "forward",
                detach_clean=bool(config.detach_clean),
            )
    raise AssertionError(f"a resolved configuration has a known method, not {config.method}")


def build_attack(config: TrainConfig) -> Attack:
    """The attack inside the method of a resolved configuration."""

    if config.attack in ("fgsm", "fgsm-rs"):
        return FGSM(_given(config.eps), random_start=config.attack == "fgsm-rs")
    return _pgd(config)


def _pgd(config: TrainConfig) -> PGD:
    alpha = None if config.alpha is None else float(config.alpha)
    return PGD(_given(config.eps), norm=config.norm or "linf", steps=config.steps or 7, alpha=alpha)


def _mask(config: TrainConfig) -> SaliencyMask:
    return SaliencyMask(
        _given(config.k),
        target=config.target or "logit",
        rank=config.rank or "magnitude",
        unit=config.unit or "pixel",
        fill=config.fill or "uniform",
    )


def _given(value: float | str | None) -> float:
    assert value is not None, "a resolved configuration has every value that its method listens to"
    return float(value)
