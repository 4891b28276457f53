"""Labelled images: one uint8 tensor, or a file instead, their labels, and their seeded splits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..files import digest_tensors
from ..inputs import checked_images
from ..randomness import seeded
from .lazy_pixels import LazyPixels, value_counts

__all__ = ["Images", "Splits", "sample", "sampled_rows", "selection_text", "stratified"]

_CHANCE = 1e-4
"""The significance level, over all classes, below which the first images are not a random draw."""


@dataclass(frozen=True)
class Images:
    """A labelled set of images.

    Attributes:
        pixels: uint8 (N, C, H, W), or floats in [0, 1] if a user's images have more than 8 bits. Those of large
            data sets, and those with a planted shortcut, are :class:`asgt.data.LazyPixels`: ``pixels[rows]`` is a
            tensor of some of them.
        labels: (N,), in [0, K), of any integer type; they become int64.
        classes: the K names.

    Raises:
        InputError: shapes, types or the range of pixels and labels are invalid.

    Example:
        >>> import torch
        >>> import asgt
        >>> images = asgt.Images(torch.rand(6, 3, 32, 32), torch.tensor([0, 1, 2, 0, 1, 2]), ("cat", "dog", "owl"))
        >>> len(images), images.shape, images[:2].labels.tolist()
        (6, (3, 32, 32), [0, 1])
    """

    pixels: Tensor | LazyPixels
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or not (self.pixels.dtype == torch.uint8 or self.pixels.is_floating_point()):
            raise InputError(
                f"pixels are {self.pixels.dtype} {tuple(self.pixels.shape)}: expected uint8 (N, C, H, W), or floats in "
                "[0, 1]"
            )
        if isinstance(self.pixels, Tensor) and self.pixels.is_floating_point():
            object.__setattr__(self, "pixels", checked_images(self.pixels, "pixels"))
        if self.labels.is_floating_point() or self.labels.is_complex() or self.labels.ndim != 1:
            raise InputError(f"labels are {self.labels.dtype} {tuple(self.labels.shape)}: expected int64 (N,)")
        object.__setattr__(self, "labels", self.labels.long())
        if self.labels.shape != self.pixels.shape[:1]:
            raise InputError(f"{len(self.labels)} labels for {len(self.pixels)} images")
        if len(self.labels) == 0:
            raise InputError("there are no images: pass at least one")
        if len(self.classes) < 2:
            raise InputError(f"only one class, {self.classes[0]!r}: use at least two" if self.classes else "no classes")
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            wrong = int(self.labels[(self.labels < 0) | (self.labels >= len(self.classes))][0])
            raise InputError(
                f"label {wrong} is out of range: there are {len(self.classes)} classes, 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Images:
        pixels = self.pixels.view(index) if isinstance(self.pixels, LazyPixels) else self.pixels[index]
        return Images(pixels, self.labels[index], self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device; lazy ones become one tensor there if they are small."""

        pixels = self.pixels.to(device)
        if isinstance(pixels, LazyPixels):
            pixels = pixels.settled(_share_of_memory(pixels.device))
        return Images(pixels, self.labels.to(device), self.classes)

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, in units of the range [0, 1]."""

        if self.pixels.is_floating_point():
            if isinstance(self.pixels, LazyPixels):
                return _moments(self.pixels)
            channels = self.pixels.double().transpose(0, 1).flatten(1)
            return channels.mean(dim=1).tolist(), channels.std(dim=1, correction=0).clamp_min(1e-3).tolist()

        # From counts of the 256 values: exact, and no float copy of the data set.
        pixels = self.pixels
        counts = pixels.counts() if isinstance(pixels, LazyPixels) else value_counts(pixels.cpu())
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for own in counts.double():
            mean = (own @ values) / own.sum()
            means.append(float(mean))
            stds.append(max(float(((own @ (values - mean) ** 2) / own.sum()).sqrt()), 1e-3))
        return means, stds

    def digest(self) -> str:
        """A SHA-256 of pixels and labels: two evaluations with the same digest have the same images."""

        return digest_tensors({"pixels": self.pixels, "labels": self.labels})


def _share_of_memory(device: torch.device) -> int:
    """Bytes of images that may move to a device as a whole: a quarter of what is free on an accelerator."""

    return torch.cuda.mem_get_info(device)[0] // 4 if device.type == "cuda" else 0


def _moments(pixels: LazyPixels) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel of floats, a part of the images at a time."""

    count, mean, squares = pixels.shape.numel() / pixels.shape[1], torch.zeros(()), torch.zeros(())
    for chunk in pixels.chunks():
        mean = mean + chunk.double().sum(dim=(0, 2, 3)) / count
    for chunk in pixels.chunks():
        squares = squares + (chunk.double() - mean.view(1, -1, 1, 1)).square().sum(dim=(0, 2, 3)) / count
    return mean.tolist(), squares.sqrt().clamp_min(1e-3).tolist()


@dataclass(frozen=True)
class Splits:
    """Training and test images of a data set, and their rows if asgt drew the split.

    Attributes:
        name: the user's name for the data.
        train: the whole training split.
        test: the test split, which is not used for any selection.
        indices: the drawn rows by split, for data that came without a test split.
        notes: sentences for the terminal: the splits and classes that were found, and the ignored files.
        reading: the same as plain values, stored with a run; ``"place"`` is the absolute path or the hub id.

    Example:
        >>> import asgt
        >>> digits = asgt.load_data("digits")
        >>> digits.name, len(digits.train), len(digits.test)
        ('digits', 1438, 359)
    """

    name: str
    train: Images
    test: Images
    indices: dict[str, Tensor] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reading: dict[str, Any] = field(default_factory=dict)


def sample(images: Images, count: int) -> Images:
    """The first ``count`` images if they are representative, else a fixed stratified draw.

    Raises:
        InputError: there are fewer images.
    """

    return images[sampled_rows(images, count)]


def sampled_rows(images: Images, count: int) -> Tensor:
    """The rows of :func:`sample`, int64, ascending, exactly ``count``.

    The first images are representative if no class is missing and all frequencies agree with a random draw. Those
    of a folder sorted by class are not. A stratified draw then takes every class by its share.

    Raises:
        InputError: there are fewer images.
    """

    if not 1 <= count <= len(images):
        raise InputError(f"{count} images requested: give a number from 1 to {len(images)}, the size of the test split")

    if _stand_for_all(images.labels, count):
        return torch.arange(count, device=images.labels.device)
    return _drawn(images.labels, count)


def selection_text(images: Images, rows: Tensor) -> str:
    """Describes a selection of rows, as stored in results."""

    if len(rows) == len(images):
        return f"all {len(images)} images"
    if rows.equal(torch.arange(len(rows), device=rows.device)):
        return f"the first {len(rows)} of {len(images)} images"
    return f"{len(rows)} of {len(images)} images, drawn by class"


def _stand_for_all(labels: Tensor, count: int) -> bool:
    """Whether the first ``count`` images hold each class about as often as a random draw would."""

    from scipy.stats import hypergeom

    totals = labels.bincount().cpu().numpy()
    first, present = labels[:count].bincount(minlength=len(totals)).cpu().numpy(), totals > 0
    if count >= present.sum() and (first[present] == 0).any():
        return False
    chances = hypergeom(len(labels), totals[present], count)
    tails = np.minimum(chances.cdf(first[present]), chances.sf(first[present] - 1))
    return bool(tails.min() * present.sum() > _CHANCE)


def _drawn(labels: Tensor, count: int) -> Tensor:
    """Exactly ``count`` rows, every class by its share, and at least one of each where there is room; ascending."""

    generator = seeded("samples")
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    totals = labels.bincount()
    exact = totals.double() * count / len(labels)
    quotas = exact.floor().long()
    if count >= int((totals > 0).sum()):
        quotas = quotas.maximum((totals > 0).long())
    # By the largest remainder; ties fall as the classes come in the random order.
    first_met = torch.full_like(totals, len(labels)).scatter_reduce(
        0, labels[order], torch.arange(len(labels), device=labels.device), "amin"
    )
    while (missing := count - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        able = quotas < totals if step > 0 else quotas > (1 if count >= int((totals > 0).sum()) else 0)
        rest = torch.where(able, step * (exact - quotas), -torch.inf)
        best = (rest == rest.max()).nonzero().squeeze(1)
        quotas[best[first_met[best].argmin()]] += step

    shuffled = labels[order]
    by_class = shuffled.argsort(stable=True)
    place = torch.arange(len(labels), device=labels.device) - (totals.cumsum(0) - totals)[shuffled[by_class]]
    return order[by_class[place < quotas[shuffled[by_class]]]].sort().values


def stratified(labels: Tensor, share: float, *key: int | str) -> tuple[Tensor, Tensor]:
    """Splits rows in two with the same share of every class, as a function of ``key``.

    Args:
        labels: int64 (N,).
        share: the part of each class that goes to the second half, in (0, 1); at least one row of each class, and never
            all of them if a class has two rows or more.
        key: the seed of the draw.

    Returns:
        The rows of the first and of the second half, ascending.
    """

    generator = seeded(*key)
    second = []
    for label in labels.unique(sorted=True):
        rows = (labels == label).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = min(max(1, round(share * len(rows))), len(rows) - 1)
        second.append(rows[:count])

    chosen = torch.zeros(len(labels), dtype=torch.bool)
    chosen[torch.cat(second)] = True
    return (~chosen).nonzero().squeeze(1), chosen.nonzero().squeeze(1)
