"""A shortcut whose place in each image is known, so that maps can be measured on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..data import Images, PlantedPixels, check_test_set, shortcut_view
from ..errors import InputError
from ..files import digest_tensors
from ..shortcuts import SHORTCUTS, VIEWS, shortcut_named
from ..shortcuts.shortcut import Shortcut

__all__ = [
    "KnownShortcut",
    "check_mask",
    "known_shortcut",
    "planted_again",
    "shortcut_settings",
    "shortcut_words",
    "view_in",
]

_PART = 256
"""Images whose masks are made at a time: those of images in a file are read for it."""


@dataclass(frozen=True)
class KnownShortcut:
    """Where a shortcut lies in some images.

    Attributes:
        mask: bool (N, H, W).
        view: which of :data:`asgt.shortcuts.VIEWS` the images are; empty where they are none of them.
        settings: of the shortcut that was planted, with its name; empty where a mask alone is known.
    """

    mask: Tensor
    view: str
    settings: dict[str, Any]

    def record(self) -> dict[str, Any]:
        """What the settings of an explanation hold of it, in plain values."""

        return {"view": self.view, "planted": self.settings, "mask": digest_tensors({"mask": self.mask})}


def known_shortcut(images: Images, mask: Tensor | None, view: str) -> KnownShortcut | None:
    """The shortcut in some images; ``None`` where they have none.

    Args:
        images: N images. If a shortcut is planted in them, they tell where it lies.
        mask: where it lies otherwise, bool (N, H, W).
        view: which test set they are; empty and ``"absent"`` for none of those with a shortcut.

    Raises:
        InputError: the mask does not fit, it is given twice, or the view is not that of the images.
    """

    pixels = images.pixels
    view = check_test_set(images, view, marked=mask is not None)
    if mask is not None and isinstance(pixels, PlantedPixels):
        raise InputError(f"the images have the shortcut {pixels.shortcut}, which tells its mask: omit shortcut")
    if mask is not None:
        check_mask(mask, (len(images), *images.shape[1:]))
    if not isinstance(pixels, PlantedPixels):
        return None if mask is None else KnownShortcut(mask.cpu(), view, {})
    masks = [pixels.masks(slice(first, first + _PART)).cpu() for first in range(0, len(images), _PART)]
    return KnownShortcut(torch.cat(masks), view, shortcut_settings(pixels.shortcut, images.shape))


def check_mask(mask: Tensor, shape: tuple[int, ...]) -> None:
    """Refuses what is no mask of a shortcut in images, bool (N, H, W).

    Raises:
        InputError: it says what was expected.
    """

    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) != shape:
        told = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"shortcut is {told}: expected its mask, bool {shape}")


def shortcut_settings(shortcut: Shortcut, shape: tuple[int, int, int]) -> dict[str, Any]:
    """The name and settings of a shortcut in images (C, H, W).

    The strength is omitted: it says how many training images agree, and nothing of the test sets.
    """

    told = {name: value for name, value in asdict(shortcut).items() if name != "strength"}
    return {"name": shortcut.name, **told, "size": shortcut.extent(*shape[1:])}


def view_in(settings: Mapping[str, Any]) -> str:
    """Which test set with a shortcut the settings of an explanation say; empty where they say none."""

    recorded = settings.get("shortcut")
    view = recorded.get("view") if isinstance(recorded, dict) else None
    return str(view) if view in VIEWS and view != "absent" else ""


def shortcut_words(recorded: Any) -> str:
    """What the settings of an explanation record of a shortcut, as text, as ``the shortcut patch (size = 2)``."""

    if not isinstance(recorded, dict):
        return "no shortcut"
    planted = recorded.get("planted")
    told = planted if isinstance(planted, dict) and planted else {"name": "of a mask that was passed"}
    settings = ", ".join(f"{name} = {value}" for name, value in told.items() if name != "name")
    view = f", {recorded['view']}" if recorded.get("view") else ""
    return f"the shortcut {told.get('name')}{f' ({settings})' if settings else ''}{view}"


def planted_again(images: Images, recorded: Any) -> Images:
    """The images with the shortcut that the settings of an explanation record, in its view.

    Args:
        images: as they are, without a shortcut.
        recorded: what :meth:`KnownShortcut.record` returned.

    Raises:
        InputError: it records no shortcut that can be planted.
    """

    planted, view = (recorded.get(name) for name in ("planted", "view")) if isinstance(recorded, dict) else (None, "")
    if not isinstance(planted, dict) or planted.get("name") not in SHORTCUTS or view not in VIEWS:
        raise InputError("which shortcut was planted in the images is not recorded")
    settings = {name: value for name, value in planted.items() if name != "name"}
    return shortcut_view(images, shortcut_named(str(planted["name"]), settings), view)
