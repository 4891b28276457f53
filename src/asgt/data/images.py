"""Images in memory: one uint8 tensor, its labels, and the seeded splits of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import InputError
from ..files import digest_tensors
from ..randomness import seeded

__all__ = ["Images", "Splits", "check_batch", "sample", "sampled_rows", "stratified"]


@dataclass(frozen=True)
class Images:
    """A labelled set of images.

    Attributes:
        pixels: uint8 (N, C, H, W), or floats in [0, 1] where images of one's own have more than 8 bits.
        labels: int64 (N,), in [0, K).
        classes: the K names.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.pixels.is_floating_point():
            check_batch(self.pixels, self.labels, len(self.classes), ("pixels", "labels"))
        elif self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4:
            raise InputError(
                f"pixels are {self.pixels.dtype} {tuple(self.pixels.shape)}: expected uint8 (N, C, H, W), or floats in "
                "[0, 1]"
            )
        if self.labels.dtype != torch.int64:
            raise InputError(f"labels are {self.labels.dtype}: expected int64 (N,)")
        if self.labels.shape != self.pixels.shape[:1]:
            raise InputError(f"{len(self.labels)} labels for {len(self.pixels)} images")
        if len(self.labels) == 0:
            raise InputError("there are no images")
        if len(self.classes) < 2:
            raise InputError(
                f"only one class, {self.classes[0]!r}: a classifier needs at least two"
                if self.classes
                else "no classes"
            )
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            wrong = int(self.labels[(self.labels < 0) | (self.labels >= len(self.classes))][0])
            raise InputError(
                f"label {wrong} is out of range: there are {len(self.classes)} classes, 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Images:
        return Images(self.pixels[index], self.labels[index], self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def to(self, device: torch.device | str) -> Images:
        """The same images on another device."""

        return Images(self.pixels.to(device), self.labels.to(device), self.classes)

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, in units of the range [0, 1]."""

        if self.pixels.is_floating_point():
            channels = self.pixels.double().transpose(0, 1).flatten(1)
            return channels.mean(dim=1).tolist(), channels.std(dim=1, correction=0).clamp_min(1e-3).tolist()

        # From counts of the 256 values: exact, and no float copy of the data set.
        values = torch.arange(256, dtype=torch.float64) / 255
        means, stds = [], []
        for channel in self.pixels.unbind(1):
            counts = torch.bincount(channel.flatten().cpu().int(), minlength=256).double()
            mean = (counts @ values) / counts.sum()
            means.append(float(mean))
            stds.append(max(float(((counts @ (values - mean) ** 2) / counts.sum()).sqrt()), 1e-3))
        return means, stds

    def digest(self) -> str:
        """A SHA-256 of pixels and labels: two evaluations with the same digest saw the same images."""

        return digest_tensors({"pixels": self.pixels, "labels": self.labels})


@dataclass(frozen=True)
class Splits:
    """Training and test images of a data set, and which rows made them where asgt drew the split itself.

    Attributes:
        name: what the user asked for.
        train: the training split, whole.
        test: the test split. It picks nothing.
        indices: the drawn rows by split, for data that came without a test split.
    """

    name: str
    train: Images
    test: Images
    indices: dict[str, Tensor] = field(default_factory=dict)


def sample(images: Images, count: int) -> Images:
    """The first ``count`` images; where they lack a class, as those of a folder sorted by class do, a stratified draw.

    Raises:
        InputError: there are not so many.
    """

    return images[sampled_rows(images, count)]


def sampled_rows(images: Images, count: int) -> Tensor:
    """The rows that :func:`sample` takes, int64, ascending.

    Raises:
        InputError: there are not so many.
    """

    if not 1 <= count <= len(images):
        raise InputError(f"{count} images asked for: the test split has {len(images)}, and at least one is needed")

    classes = len(images.labels.unique())
    if len(images.labels[:count].unique()) == classes or count < classes:
        return torch.arange(count, device=images.labels.device)
    return stratified(images.labels, count / len(images), "samples")[1]


def stratified(labels: Tensor, share: float, *key: int | str) -> tuple[Tensor, Tensor]:
    """Splits rows in two so that every class keeps its share, as a function of ``key``.

    Args:
        labels: int64 (N,).
        share: the part of each class that goes to the second half, in (0, 1); at least one row of each class, and
            never all of them, where a class has two rows or more.
        key: what seeds the draw.

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


def check_batch(x: Tensor, y: Tensor, classes: int | None = None, names: Sequence[str] = ("x", "y")) -> None:
    """Refuses tensors that no attack or evaluation could be meant for.

    Args:
        x: should be float images (N, C, H, W) in [0, 1].
        y: should be int64 labels (N,).
        classes: K, where it is known.
        names: what to call the two in an error.

    Raises:
        InputError: shapes, types, NaN, pixels outside [0, 1] or labels out of range.
    """

    if x.ndim != 4 or not x.is_floating_point():
        raise InputError(f"{names[0]} is {x.dtype} {tuple(x.shape)}: expected float images (N, C, H, W) in [0, 1]")
    if y.ndim != 1 or y.dtype != torch.int64 or len(y) != len(x):
        raise InputError(f"{names[1]} is {y.dtype} {tuple(y.shape)}: expected int64 labels ({len(x)},)")
    if len(x) == 0:
        raise InputError(f"{names[0]} holds no images")
    if bool(x.isnan().any()):
        row = int(x.isnan().flatten(1).any(dim=1).nonzero()[0])
        raise InputError(f"{names[0]}[{row}] has a NaN pixel")
    if float(x.min()) < 0 or float(x.max()) > 1:
        raise InputError(
            f"{names[0]} lies in [{float(x.min()):.3g}, {float(x.max()):.3g}]: expected [0, 1]; divide by 255, "
            "and leave normalisation to the model"
        )
    if int(y.min()) < 0 or (classes is not None and int(y.max()) >= classes):
        raise InputError(
            f"{names[1]} has labels in [{int(y.min())}, {int(y.max())}]: expected 0 to K − 1, K = {classes}"
        )
