"""A shortcut in the training images, and the methods that use its mask."""

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
    """The same data with a shortcut in the training images; the test images are unchanged.

    Args:
        data: training and test images.
        shortcut: as for :func:`asgt.shortcuts.shortcut_named`; ``None`` plants none.

    Raises:
        InputError: the images are too small for it, or already have one.
    """

    return data if shortcut is None else replace(data, train=plant(data.train, shortcut))


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
    if config.shortcut is not None:
        return
    train = data.train if isinstance(data, Splits) else data[0] if isinstance(data, (tuple, list)) and data else None
    if not (isinstance(train, Images) and isinstance(train.pixels, PlantedPixels)):
        raise InputError(
            f"method {config.method} needs the mask of a shortcut, but the training images have none: add "
            "--shortcut, such as --shortcut patch:0.99"
        )


def masks_for(objective: Objective, images: Images, index: Any) -> Tensor | None:
    """The mask of the shortcut in some images, bool (B, H, W), for a method that needs it; else ``None``."""

    pixels = images.pixels
    return pixels.masks(index) if objective.needs_shortcut and isinstance(pixels, PlantedPixels) else None
