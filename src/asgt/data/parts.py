"""The result of every reader: the images of each split, their labels, and notes on ignored files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

__all__ = ["Cells", "Contents", "Part"]

Cells: TypeAlias = Callable[[Sequence[int]], Iterator[tuple[Callable[[], bytes], str]]]
"""For some rows, ascending: a function that reads the encoded image, and its place, for messages."""


@dataclass(frozen=True)
class Part:
    """One split, with its images still encoded.

    Attributes:
        name: of the split in the data.
        labels: int64 (N,).
        cells: the encoded images.
        files: for some rows, the file of each image, and its name inside that file, ``""`` if it is the whole file;
            ``None`` if unknown.
    """

    name: str
    labels: Tensor
    cells: Cells
    files: Callable[[Sequence[int]], Iterable[tuple[str, str]]] | None = None


@dataclass(frozen=True)
class Contents:
    """The content of a data set.

    Attributes:
        classes: the K names.
        train: the training split, if any.
        test: the labelled test split, if any.
        notes: sentences on splits, classes and ignored files.
        reading: the same as plain values.
    """

    classes: tuple[str, ...]
    train: Part | None
    test: Part | None
    notes: list[str] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)
