"""Shortcuts planted in images: for training, where most agree with the label, and in four test sets.

The shortcut of an image is a function of (seed of the shortcut, row of the image in the set, its label), and does
not depend on the batch. It is planted when a batch is gathered, so lazy images remain lazy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, unknown
from ..randomness import SampleKeyed, seed_of
from ..shortcuts import VIEWS, ShortcutView, shortcut_named
from ..shortcuts.shortcut import Shortcut
from .collect import LabelledImages, as_images
from .images import Images
from .lazy_pixels import LazyPixels

__all__ = ["PlantedPixels", "plant", "shortcut_view", "shortcut_views"]


class PlantedPixels(LazyPixels):
    """Pixels with a shortcut, which is planted when they are indexed.

    Args:
        pixels: the images without the shortcut, uint8 or floats in [0, 1], (N, C, H, W).
        shortcut: the shortcut.
        codes: the class whose shortcut each image gets, int64 (N,).
        noise: uniform random numbers for the region of each image, float32 (N, draws).
        classes: K.

    Attributes:
        shortcut: the planted shortcut.
        codes: the class whose shortcut each image has, int64 (N,).
    """

    def __init__(
        self, pixels: Tensor | LazyPixels, shortcut: Shortcut, codes: Tensor, noise: Tensor, classes: int
    ) -> None:
        self._pixels, self._noise, self._classes = pixels, noise, classes
        self.shortcut, self.codes = shortcut, codes
        self.device = pixels.device

    @property
    def shape(self) -> torch.Size:
        return self._pixels.shape

    @property
    def dtype(self) -> torch.dtype:
        return self._pixels.dtype

    def __getitem__(self, index: Any) -> Tensor:
        return self.planted([index])[0][0] if isinstance(index, int) else self.planted(index)[0]

    def planted(self, index: Any) -> tuple[Tensor, Tensor]:
        """Some images with their shortcut, indexed as in :meth:`__getitem__`, and its mask, bool (B, H, W)."""

        plain = self._pixels[index]
        pixels, region = self.shortcut.plant(plain, self.codes[index], self._noise[index], self._classes)
        return pixels, region.expand(len(plain), -1, -1)

    def masks(self, index: Any = slice(None)) -> Tensor:
        """The mask of the shortcut in some images, bool (B, H, W). Default: in all."""

        return self.planted(index)[1]

    def view(self, index: Any) -> PlantedPixels:
        inner = self._pixels.view(index) if isinstance(self._pixels, LazyPixels) else self._pixels[index]
        return PlantedPixels(inner, self.shortcut, self.codes[index], self._noise[index], self._classes)

    def to(self, device: torch.device | str) -> PlantedPixels:
        codes, noise = self.codes.to(device), self._noise.to(device)
        return PlantedPixels(self._pixels.to(device), self.shortcut, codes, noise, self._classes)

    def settled(self, room: int) -> PlantedPixels:
        """The same, with the images in memory if they take at most so many bytes."""

        if not isinstance(self._pixels, LazyPixels):
            return self
        return PlantedPixels(self._pixels.settled(room), self.shortcut, self.codes, self._noise, self._classes)

    @property
    def index_device(self) -> torch.device:
        return self._pixels.index_device if isinstance(self._pixels, LazyPixels) else self._pixels.device

    def expect(self, index: Any) -> None:
        if isinstance(self._pixels, LazyPixels):
            self._pixels.expect(index)

    def _chunk(self, rows: slice) -> Tensor:
        return self[rows].cpu()


def plant(images: LabelledImages, shortcut: str | Shortcut, **settings: Any) -> Images:
    """Plants a shortcut for training, which agrees with the label in a share of the images.

    ::

        train = asgt.data.plant(images, "patch", strength=0.99, seed=0)
        train.pixels[:64]  # planted when they are gathered, of the same type
        train.pixels.codes  # the class whose shortcut each image has, int64 (N,)
        train.pixels.masks(slice(64))  # where it lies, bool (64, H, W)

    An image has the shortcut of its own class with the probability ``strength``, and else that of a uniformly random
    other class.

    Args:
        images: as :func:`asgt.data.as_images` takes them. There is one shortcut for each class.
        shortcut: as :func:`asgt.shortcuts.shortcut_named` takes it, ``"patch"`` or ``"patch:0.99,size=4"``, or an
            object.
        settings: of the shortcut, by name: ``strength``, ``contrast``, ``size``, ``seed``, and its other settings.

    Returns:
        The images, whose pixels are :class:`asgt.data.PlantedPixels`.

    Raises:
        InputError: the shortcut or a setting is unknown, or the images are too small for it.
    """

    images, made = as_images(images), _made(shortcut, settings)
    return _planted(images, made, None)


def shortcut_view(
    images: LabelledImages, shortcut: str | Shortcut | None, view: ShortcutView, **settings: Any
) -> Images:
    """One of the four test sets of the same images; see :func:`shortcut_views`.

    Args:
        images: as :func:`plant` takes them.
        shortcut: likewise; or ``None``, with which ``"absent"`` is the only test set.
        view: ``"aligned"``, ``"absent"``, ``"random"`` or ``"reversed"``.
        settings: of the shortcut, by name.

    Raises:
        InputError: the view, the shortcut or a setting is unknown, the images are too small for it, or there is no
            shortcut to plant.
    """

    plain: Images = as_images(images)
    if view not in VIEWS:
        raise unknown("shortcut view", str(view), VIEWS)
    if shortcut is None:
        if view != "absent":
            raise InputError(f"shortcut view {view}: no shortcut is given: name one, or use the view absent")
        return plain
    planted = _planted(plain, _made(shortcut, settings), view)
    return plain if view == "absent" else planted


def shortcut_views(images: LabelledImages, shortcut: str | Shortcut, **settings: Any) -> dict[ShortcutView, Images]:
    """Four test sets of the same images, which differ only in the shortcut, by name.

    ``aligned``: the shortcut of the true class. ``absent``: none, the images unchanged. ``random``: that of a
    uniformly random class. ``reversed``: that of a uniformly random wrong class. The position of the shortcut in an
    image is the same in all of them. The strength has no effect.

    Args:
        images: as :func:`plant` takes them.
        shortcut: likewise.
        settings: of the shortcut, by name.

    Raises:
        InputError: the shortcut or a setting is unknown, or the images are too small for it.
    """

    return {view: shortcut_view(images, shortcut, view, **settings) for view in VIEWS}


def _made(shortcut: str | Shortcut, settings: dict[str, Any]) -> Shortcut:
    if not isinstance(shortcut, Shortcut):
        return shortcut_named(shortcut, settings)
    if settings:
        raise InputError(f"{next(iter(settings))}: the passed shortcut has its own settings, remove it")
    return shortcut


def _planted(images: Images, shortcut: Shortcut, view: ShortcutView | None) -> Images:
    """Images with a shortcut as a view has it, or as training has it."""

    if isinstance(images.pixels, PlantedPixels):
        raise InputError(f"the images already have the shortcut {images.pixels.shortcut}: use the images without it")
    classes, labels = len(images.classes), images.labels
    shortcut.check(images.shape, classes)
    rows = torch.arange(len(images), device=labels.device)
    uniform = SampleKeyed(seed_of("shortcut", shortcut.seed), rows).uniform_like
    noise = uniform(torch.empty(len(images), 2 + shortcut.draws, device=labels.device))
    codes = _codes(shortcut.strength, labels, classes, noise, view)
    return Images(PlantedPixels(images.pixels, shortcut, codes, noise[:, 2:], classes), labels, images.classes)


def _codes(strength: float, labels: Tensor, classes: int, noise: Tensor, view: ShortcutView | None) -> Tensor:
    """The class whose shortcut each image gets, int64 (N,), from two uniform numbers of each, float32 (N, 2 + …)."""

    if view == "random":
        return (noise[:, 1] * classes).long()
    wrong = (labels + 1 + (noise[:, 1] * (classes - 1)).long()) % classes
    if view is None:
        return torch.where(noise[:, 0] < strength, labels, wrong)
    return wrong if view == "reversed" else labels
