"""A shortcut in the training images, and the methods that use its mask."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..data import Images, PlantedPixels, Splits, plant, refuse_other_classes
from ..errors import InputError
from .augmentation_registry import AUGMENTATIONS
from .config import TrainConfig
from .objectives import Objective

__all__ = ["masks_for", "moved_shortcut", "refuse_without_shortcut", "shortcut_in", "with_shortcut"]


def with_shortcut(data: Splits, shortcut: str | None) -> Splits:
    """The same data with a shortcut in the training images; the test images are unchanged.

    Args:
        data: training and test images.
        shortcut: as for :func:`asgt.shortcuts.shortcut_named`; ``None`` plants none. Images that have it stay as they
            are.

    Raises:
        InputError: the images are too small for it, already have another, or have it for other classes.
    """

    pixels = data.train.pixels
    if isinstance(pixels, PlantedPixels):
        if shortcut != str(pixels.shortcut):
            raise InputError(
                f"shortcut = {shortcut}: the training images already have the shortcut {pixels.shortcut}: use the "
                "images without it"
            )
        refuse_other_classes(data.train, len(data.train.classes))
        return data
    return data if shortcut is None else replace(data, train=plant(data.train, shortcut))


def shortcut_in(data: Any) -> str | None:
    """The shortcut in training images that were passed as objects, as the configuration records it."""

    train = data.train if isinstance(data, Splits) else data[0] if isinstance(data, (tuple, list)) and data else None
    pixels = train.pixels if isinstance(train, Images) else None
    return str(pixels.shortcut) if isinstance(pixels, PlantedPixels) else None


def moved_shortcut(config: TrainConfig) -> str:
    """What to warn of if the augmentation changes the planted shortcut too; empty if it does not."""

    if config.shortcut is None or config.augment in (None, "none") or config.epochs == 0:
        return ""
    return (
        f"--augment {config.augment} also changes the planted shortcut, so fewer training images show that of their "
        "class than its strength says: use --augment none"
    )


def refuse_without_shortcut(objective: Objective, config: TrainConfig, data: Any) -> None:
    """Refuses a method that uses the shortcut's mask if there is none, before the data are read.

    Args:
        objective: the method.
        config: the requested settings.
        data: the data that was passed as objects, if any.

    Raises:
        InputError: it names the method and the flag.
    """

    if not objective.needs_shortcut:
        return
    if not AUGMENTATIONS[config.augment or "none"].moves_only:
        moving = " or ".join(name for name, kind in AUGMENTATIONS.items() if kind.moves_only)
        raise InputError(
            f"method {config.method} needs the mask of the shortcut, which is unknown after --augment "
            f"{config.augment}: use {moving}"
        )
    if config.shortcut is None and shortcut_in(data) is None:
        raise InputError(
            f"method {config.method} needs the mask of a shortcut, but the training images have none: add "
            "--shortcut, such as --shortcut patch:0.99"
        )


def masks_for(objective: Objective, images: Images, index: Any) -> Tensor | None:
    """The mask of the shortcut in some images, bool (B, H, W), for a method that needs it; else ``None``."""

    pixels = images.pixels
    return pixels.masks(index) if objective.needs_shortcut and isinstance(pixels, PlantedPixels) else None
