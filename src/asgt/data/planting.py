"""Shortcuts planted in images: for training, where most agree with the label, and in four test sets.

The shortcut of an image is a function of (seed of the shortcut, row of the image in the set, its label), and does
not depend on the batch. It is planted when a batch is gathered, so lazy images remain lazy.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, unknown
from ..numbers import whole
from ..randomness import SampleKeyed, seed_of
from ..shortcuts import VIEWS, ShortcutView, shortcut_named
from ..shortcuts.shortcut import Shortcut
from .collect import LabelledImages, as_images
from .images import Images
from .lazy_pixels import LazyPixels, is_row

__all__ = ["PlantedPixels", "check_test_set", "plant", "refuse_other_classes", "shortcut_view", "shortcut_views"]


class PlantedPixels(LazyPixels):
    """Pixels with a shortcut, which is planted when they are indexed.

    Args:
        pixels: the images without the shortcut, uint8 or floats in [0, 1], (N, C, H, W).
        shortcut: the shortcut.
        codes: the class whose shortcut each image gets, int64 (N,).
        noise: uniform random numbers for the region of each image, float32 (N, draws).
        classes: K.
        test_set: which of the four test sets these are. Default: none of them, but training images.

    Attributes:
        shortcut: the planted shortcut.
        codes: the class whose shortcut each image has, int64 (N,).
        classes: K, the number of classes that it tells apart.
        test_set: which of the four test sets these are; ``None`` for training images.
    """

    def __init__(
        self,
        pixels: Tensor | LazyPixels,
        shortcut: Shortcut,
        *,
        codes: Tensor,
        noise: Tensor,
        classes: int,
        test_set: ShortcutView | None = None,
    ) -> None:
        self._pixels, self._noise = pixels, noise
        self.shortcut, self.codes, self.classes, self.test_set = shortcut, codes, classes, test_set
        self.device = pixels.device

    @property
    def shape(self) -> torch.Size:
        return self._pixels.shape

    @property
    def dtype(self) -> torch.dtype:
        return self._pixels.dtype

    def __getitem__(self, index: Any) -> Tensor:
        return self.planted([int(index)])[0][0] if is_row(index) else self.planted(index)[0]

    def planted(self, index: Any) -> tuple[Tensor, Tensor]:
        """Some images with their shortcut, by a slice or a tensor of rows or of truths; its mask, bool (B, H, W)."""

        plain = self._pixels[index]
        pixels, region = self.shortcut.plant(plain, self.codes[index], self._noise[index], self.classes)
        return pixels, region.expand(len(plain), -1, -1)

    def masks(self, index: Any = slice(None)) -> Tensor:
        """The mask of the shortcut in some images, bool (B, H, W), or in one, bool (H, W). Default: in all."""

        return self.planted([int(index)])[1][0] if is_row(index) else self.planted(index)[1]

    def view(self, index: Any) -> PlantedPixels:
        inner = self._pixels.view(index) if isinstance(self._pixels, LazyPixels) else self._pixels[index]
        return self._like(inner, self.codes[index], self._noise[index])

    def to(self, device: torch.device | str) -> PlantedPixels:
        return self._like(self._pixels.to(device), self.codes.to(device), self._noise.to(device))

    def settled(self, room: int) -> PlantedPixels:
        """The same, with the images in memory if they take at most so many bytes."""

        if not isinstance(self._pixels, LazyPixels):
            return self
        return self._like(self._pixels.settled(room), self.codes, self._noise)

    @property
    def index_device(self) -> torch.device:
        return self._pixels.index_device if isinstance(self._pixels, LazyPixels) else self._pixels.device

    def expect(self, index: Any) -> None:
        if isinstance(self._pixels, LazyPixels):
            self._pixels.expect(index)

    def _chunk(self, rows: slice) -> Tensor:
        return self[rows].cpu()

    def _like(self, pixels: Tensor | LazyPixels, codes: Tensor, noise: Tensor) -> PlantedPixels:
        """The same shortcut in other images."""

        return PlantedPixels(
            pixels, self.shortcut, codes=codes, noise=noise, classes=self.classes, test_set=self.test_set
        )


def plant(images: LabelledImages, shortcut: str | Shortcut, *, classes: int | None = None, **settings: Any) -> Images:
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
        classes: K, on which each class's shortcut depends: give it for images without names of classes, if the
            highest class may be missing among them. Default: the number of names, or the highest label + 1.
        settings: of the shortcut, by name: ``strength``, ``contrast``, ``size``, ``seed``, and its other settings.

    Returns:
        The images, whose pixels are :class:`asgt.data.PlantedPixels`.

    Raises:
        InputError: the shortcut or a setting is unknown, the images are too small for it, or they have another
            number of classes.
    """

    return _planted(_with_classes(as_images(images), classes), _made(shortcut, settings), None)


def shortcut_view(
    images: LabelledImages,
    shortcut: str | Shortcut | None,
    view: ShortcutView,
    *,
    classes: int | None = None,
    **settings: Any,
) -> Images:
    """One of the four test sets of the same images; see :func:`shortcut_views`.

    Args:
        images: as :func:`plant` takes them.
        shortcut: likewise; or ``None``, with which ``"absent"`` is the only test set.
        view: ``"aligned"``, ``"absent"``, ``"random"`` or ``"reversed"``.
        classes: as :func:`plant` takes them.
        settings: of the shortcut, by name.

    Raises:
        InputError: the view, the shortcut or a setting is unknown, the images are too small for it, they have another
            number of classes, or there is no shortcut to plant.
    """

    plain = _with_classes(as_images(images), classes)
    if view not in VIEWS:
        raise unknown("shortcut view", str(view), VIEWS)
    if shortcut is None:
        if view != "absent":
            raise InputError(f"shortcut view {view}: no shortcut is given: name one, or use the view absent")
        return plain
    planted = _planted(plain, _made(shortcut, settings), view)
    return plain if view == "absent" else planted


def shortcut_views(
    images: LabelledImages, shortcut: str | Shortcut, *, classes: int | None = None, **settings: Any
) -> dict[ShortcutView, Images]:
    """Four test sets of the same images, which differ only in the shortcut, by name.

    ``aligned``: the shortcut of the true class. ``absent``: none, the images unchanged. ``random``: that of a
    uniformly random class. ``reversed``: that of a uniformly random wrong class. The position of the shortcut in an
    image is the same in all of them. The strength has no effect.

    Args:
        images: as :func:`plant` takes them.
        shortcut: likewise.
        classes: likewise.
        settings: of the shortcut, by name.

    Raises:
        InputError: the shortcut or a setting is unknown, the images are too small for it, or they have another
            number of classes.
    """

    return {view: shortcut_view(images, shortcut, view, classes=classes, **settings) for view in VIEWS}


def check_test_set(images: Images, view: str, marked: bool = False) -> str:
    """Which of the four test sets some images are, for a record; empty for images without a shortcut.

    Args:
        images: with or without a planted shortcut.
        view: which they are said to be; empty if nothing is said.
        marked: whether it is known where a shortcut lies in images without a planted one.

    Raises:
        InputError: there is no such test set, or they are another.
    """

    if view not in ("", *VIEWS):
        raise unknown("shortcut view", str(view), VIEWS)
    pixels = images.pixels
    if not isinstance(pixels, PlantedPixels):
        if view in ("", "absent"):
            return ""
        if marked:
            return view
        raise InputError(
            f"shortcut_view = {view}: the images have no shortcut: asgt.data.shortcut_view(images, shortcut, "
            f'"{view}") plants one'
        )
    own = pixels.test_set
    if view and view != own:
        made = f"are the test set {own}" if own else "were planted for training, and are none of the test sets"
        raise InputError(f"shortcut_view = {view}: the images {made}: omit shortcut_view")
    return own or ""


def refuse_other_classes(images: Images, classes: int) -> None:
    """Refuses images whose shortcut tells other classes apart than a model does.

    Where the names of the classes are numbers, K is the highest label + 1 and one. A model of more classes was trained
    with other shortcuts.

    Args:
        images: with or without a planted shortcut.
        classes: K of the model.

    Raises:
        InputError: it says what to pass.
    """

    pixels = images.pixels
    if not isinstance(pixels, PlantedPixels) or pixels.classes == classes:
        return
    if images.classes == _numbers(len(images.classes)):
        raise InputError(
            f"a shortcut was planted for the {pixels.classes} classes of the highest label, but the model has "
            f"{classes}, and each number of classes has other shortcuts: plant it with classes={classes}"
        )


def _with_classes(images: Images, classes: int | None) -> Images:
    """The images with K names of classes."""

    if classes is None or classes == len(images.classes):
        return images
    count = whole(classes, "classes")
    if images.classes != _numbers(len(images.classes)) or count < len(images.classes):
        raise InputError(f"classes = {count}: the images have {len(images.classes)}, omit it")
    return Images(images.pixels, images.labels, _numbers(count))


def _numbers(count: int) -> tuple[str, ...]:
    """The names of classes that have none."""

    return tuple(map(str, range(count)))


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
    pixels = PlantedPixels(images.pixels, shortcut, codes=codes, noise=noise[:, 2:], classes=classes, test_set=view)
    return Images(pixels, labels, images.classes)


def _codes(strength: float, labels: Tensor, classes: int, noise: Tensor, view: ShortcutView | None) -> Tensor:
    """The class whose shortcut each image gets, int64 (N,), from two uniform numbers of each, float32 (N, 2 + …)."""

    if view == "random":
        return (noise[:, 1] * classes).long()
    wrong = (labels + 1 + (noise[:, 1] * (classes - 1)).long()) % classes
    if view is None:
        return torch.where(noise[:, 0] < strength, labels, wrong)
    return wrong if view == "reversed" else labels
