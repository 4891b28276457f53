"""The augmentations by name. To add one: a function in ``data/``, and one line in :data:`AUGMENTATIONS`.

Configurations and help texts read the names, so a function is imported only when it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import unknown

if TYPE_CHECKING:  # asgt --help does without PyTorch
    from ..data import Augmentation

__all__ = ["AUGMENTATIONS", "AugmentationKind", "augmentation_named", "augmentations_help"]


@dataclass(frozen=True)
class AugmentationKind:
    """An augmentation of ``--augment``.

    Attributes:
        place: the function, ``package.module:name``; it is an :data:`asgt.data.Augmentation`.
        title: a short description of its effect; empty if the name is clear.
        moves_only: whether it only moves and mixes the values of neighbouring pixels, so that a mask of the image can
            go along as one more channel.
    """

    place: str
    title: str = ""
    moves_only: bool = True


AUGMENTATIONS: dict[str, AugmentationKind] = {
    "none": AugmentationKind("asgt.data.augmentation:unchanged"),
    "crop-flip": AugmentationKind("asgt.data.augmentation:crop_flip", "shifts by up to 4 pixels and mirrors"),
    "resized-crop": AugmentationKind(
        "asgt.data.augmentation:resized_crop", "enlarges a random part of the image and mirrors"
    ),
    "randaugment": AugmentationKind(
        "asgt.data.random_operations:rand_augment",
        "two random operations per image; needs asgt[augment]",
        moves_only=False,
    ),
}
"""The augmentations, in the order in which help texts list them."""


def augmentations_help() -> str:
    """The names and titles for a help text."""

    told = [f"{name} ({kind.title})" if kind.title else name for name, kind in AUGMENTATIONS.items()]
    return f"{', '.join(told[:-1])} or {told[-1]}"


def augmentation_named(name: str) -> Augmentation:
    """The function of an augmentation.

    Raises:
        InputError: the name is unknown, or a package that it needs cannot be imported.
    """

    if name not in AUGMENTATIONS:
        raise unknown("augment", name, AUGMENTATIONS)
    import torch

    module, _, function = AUGMENTATIONS[name].place.partition(":")
    augmentation: Augmentation = getattr(import_module(module), function)
    # What it imports is missed now, and not in the first step of a training whose images were decoded for minutes.
    augmentation(torch.zeros(1, 1, 1, 1), torch.Generator())
    return augmentation
