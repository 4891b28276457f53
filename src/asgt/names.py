"""What names stand for, known without importing what they name."""

from __future__ import annotations

__all__ = ["HUB", "is_foreign", "short_name"]

HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
"""Short names of data sets and the hub ids that they stand for."""


def short_name(data: str) -> str:
    """The short name of a hub id that has one; any other name as it is."""

    return {hub: short for short, hub in HUB.items()}.get(data, data)


def is_foreign(model: str) -> bool:
    """Whether a model's name is a user's own ``package.module:factory``, whose building runs the user's code."""

    return ":" in model and not model.startswith("timm:")
