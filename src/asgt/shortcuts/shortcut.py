r"""The base of all shortcuts: a region of the image, and its values for each class.

.. math:: \hat X = (1 - A) \odot X + A \odot v_s

with the region A, the values v of the classes, and the class s whose shortcut the image gets.
:mod:`asgt.data.planting` chooses this class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError, shown, unknown
from ..numbers import plain_fields

__all__ = ["Shortcut", "evenly", "hues", "levels"]


@dataclass(frozen=True)
class Shortcut(ABC):
    """Pixels that predict the class of an image, and are not part of its object.

    Args:
        strength: share of the training images with the shortcut of their class, in [0, 1]; each of the others
            has that of a uniformly random other class
        contrast: largest difference of a value between the shortcuts of two classes, in units of [0, 1], above 0
        size: extent in pixels, as defined by each shortcut
        seed: the key of all random numbers, with the row of the image
    """

    name: ClassVar[str]
    codes: ClassVar[tuple[str, ...]] = ()
    draws: ClassVar[int] = 0
    """The number of uniform random numbers for the region of an image."""

    strength: float = 0.99
    contrast: float = 0.8
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 <= self.strength <= 1:
            raise InputError(f"strength = {self.strength:g}: give a share in [0, 1] ")
        if not 0 < self.contrast <= 1:
            raise InputError(f"contrast = {self.contrast:g}: give a difference above 0 and at most 1")
        if self.size is not None and self.size < 1:
            raise InputError(f"size = {shown(self.size)}: give at least one pixel")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed = {shown(self.seed)}: give a whole number from 0, with at most 18 digits")
        if self.codes and (code := getattr(self, "code", None)) not in self.codes:
            raise unknown(f"code of shortcut {self.name}", str(code), self.codes)

    def __str__(self) -> str:
        """The text for which :func:`asgt.shortcuts.shortcut_named` returns an equal shortcut."""

        return self._text(repr(float(self.strength)), *self._settings())

    @property
    def brief(self) -> str:
        """The text with the strength and the settings that are not the default, such as ``patch:0.99,size=4``."""

        usual = {f"{each.name}={each.default}" for each in fields(self)}
        return self._text(repr(float(self.strength)), *(told for told in self._settings() if told not in usual))

    def text_in(self, shape: tuple[int, int, int] | None = None) -> str:
        """What is planted in test images (C, H, W), as text for :func:`asgt.shortcuts.shortcut_named`.

        It has the size in these images, and no strength: that says how many training images agree, and nothing of a
        test set. Two shortcuts with the same text give the same test sets.

        Args:
            shape: of the images. Default: unknown, and the size is omitted if it depends on them.
        """

        made = self if shape is None else replace(self, size=self.extent(*shape[1:]))
        return self._text(*made._settings())

    def _settings(self) -> list[str]:
        """The settings as ``name=value``, without the strength and a size that depends on the images."""

        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "strength"}
        return [f"{name}={value}" for name, value in values.items() if value is not None]

    def _text(self, *told: str) -> str:
        return f"{self.name}:{','.join(told)}"

    @abstractmethod
    def default_size(self, height: int, width: int) -> int:
        """The default size in images of H×W pixels."""

    @abstractmethod
    def values(self, shape: tuple[int, int, int], classes: int) -> Tensor:
        """The values of each class in its region, floats in [0, 1], (K, C, H, W), of extent 1 if they are equal.

        Args:
            shape: (C, H, W) of the images.
            classes: K.
        """

    @abstractmethod
    def region(self, pixels: Tensor, values: Tensor, noise: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """The mask of the shortcut, bool (B, H, W), or (1, H, W) if it is the same in all images; and its values.

        Args:
            pixels: the images, uint8 or floats in [0, 1], (B, C, H, W).
            values: those of the class whose shortcut each image gets, of the type of the images, (B, C, H, W) or of
                extent 1 if they are equal. They are returned, unless they depend on the image.
            noise: uniform numbers in (0, 1) of each image, float32 (B, :attr:`draws`).
            classes: K.
        """

    def check(self, shape: tuple[int, int, int], classes: int) -> None:
        """Refuses images that are too small for the shortcut, and more classes than it can encode.

        Raises:
            InputError: it names the setting to change.
        """

        _, height, width = shape
        size = self.extent(height, width)
        if size > min(height, width):
            raise InputError(
                f"size = {shown(size)}: a {self.name} of {shown(size)} pixels is larger than the images, "
                f"{height}×{width}: give at most size={min(height, width)}"
            )
        table = _table(self, shape, classes, torch.uint8, torch.device("cpu")).flatten(1)
        if (distinct := len(table.unique(dim=0))) < classes:
            raise InputError(
                f"contrast = {self.contrast:g}: shortcut {self.name} has {distinct} values for {classes} classes: "
                "use more contrast, or another shortcut"
            )

    def extent(self, height: int, width: int) -> int:
        """The size in images of H×W pixels, set or by default."""

        return self.default_size(height, width) if self.size is None else self.size

    def plant(self, pixels: Tensor, codes: Tensor, noise: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """Plants the shortcut of a class in each image.

        Args:
            pixels: uint8 or floats in [0, 1], (B, C, H, W).
            codes: the class whose shortcut each image gets, int64 (B,).
            noise: uniform numbers in (0, 1) of each image, float32 (B, :attr:`draws`).
            classes: K.

        Returns:
            The images, of the same type, and the mask of the shortcut, bool (B, H, W) or (1, H, W).
        """

        _, channels, height, width = pixels.shape
        table = _table(self, (channels, height, width), classes, pixels.dtype, pixels.device)
        region, values = self.region(pixels, table[codes], noise, classes)
        inside = region[:, None].to(pixels.dtype)
        # What torch.where gives, in a tenth of the time: a batch waits for this.
        return pixels * (1 - inside) + values * inside, region


@lru_cache(maxsize=32)
def _table(
    shortcut: Shortcut, shape: tuple[int, int, int], classes: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The values of the classes as pixels of a type, made once."""

    values = shortcut.values(shape, classes)
    values = values.to(dtype) if dtype.is_floating_point else (values * 255).round().to(dtype)
    return values.to(device)


def levels(contrast: float, classes: int) -> Tensor:
    """A grey level for each class, evenly from dark to light around 0.5, float32 (K, 1)."""

    return 0.5 + contrast * (torch.linspace(0, 1, classes)[:, None] - 0.5)


def hues(contrast: float, classes: int) -> Tensor:
    """A colour for each class, evenly around the circle of hues, (red, green, blue) around 0.5, float32 (K, 3)."""

    hue = torch.arange(classes) * 6 / classes
    red, green, blue = (hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()
    return 0.5 + contrast * (torch.stack([red, green, blue], dim=1).clamp(0, 1) - 0.5)


def evenly(noise: Tensor, count: int) -> Tensor:
    """Whole numbers 0 … count − 1, int64 (B,), from uniform numbers in (0, 1), float (B,)."""

    return (noise * count).long()
