"""A shortcut in the images of a training, and the methods that are told where it lies."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..data import Images, PlantedPixels, Splits, plant
from ..errors import InputError
from .augmentation_registry import AUGMENTATIONS
from .config import TrainConfig
from .objectives import Objective

__all__ = ["masks_for", "refuse_without_shortcut", "with_shortcut"]


def with_shortcut(data: Splits, shortcut: str | None) -> Splits:
    """The same data with a shortcut in the training images; the test images stay as they are.

    Args:
        data: training and test images.
        shortcut: as :func:`asgt.shortcuts.shortcut_named` takes it; ``None`` plants none.

    Raises:
        InputError: the images have no place for it, or have one already.
    """

    return data if shortcut is None else replace(data, train=plant(data.train, shortcut))


def refuse_without_shortcut(objective: Objective, config: TrainConfig, data: Any) -> None:
    """Refuses a method that is told where the shortcut lies, before data in which it cannot be told is read.

    Args:
        objective: the method.
        config: what is asked.
        data: the data that was passed as objects, if any.

    Raises:
        InputError: it names the method and the flag.
    """

    if not objective.needs_shortcut:
        return
    if not AUGMENTATIONS[config.augment or "none"].moves_only:
        moving = " or ".join(name for name, kind in AUGMENTATIONS.items() if kind.moves_only)
        raise InputError(
            f"method {config.method} is told where the shortcut lies, which nobody can after --augment "
            f"{config.augment}: use {moving}"
        )
    if config.shortcut is not None:
        return
    train = data.train if isinstance(data, Splits) else data[0] if isinstance(data, (tuple, list)) and data else None
    if not (isinstance(train, Images) and isinstance(train.pixels, PlantedPixels)):
        raise InputError(
            f"method {config.method} is told where the shortcut lies, and the training images have none: add "
            "--shortcut, as --shortcut patch:0.99"
        )


def masks_for(objective: Objective, images: Images, index: Any) -> Tensor | None:
    """Where the shortcut lies in some images, bool (B, H, W), for a method that needs to know; else ``None``."""

    pixels = images.pixels
    return pixels.masks(index) if objective.needs_shortcut and isinstance(pixels, PlantedPixels) else None
