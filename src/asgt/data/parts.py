"""What a reader of any layout hands on: which images there are in each split, their labels, and what was ignored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

__all__ = ["Cells", "Contents", "Part"]

Cells: TypeAlias = Callable[[Sequence[int]], Iterator[tuple[Callable[[], bytes], str]]]
"""For some rows, ascending: how to get the encoded image, and where it lies, for messages."""


@dataclass(frozen=True)
class Part:
    """One split, with its images still encoded.

    Attributes:
        name: of the split, as the data calls it.
        labels: int64 (N,).
        cells: the encoded images.
        files: for some rows, the file that each image lies in, and its name inside that file, ``""`` where it is all of
            it; ``None`` where that is not known.
    """

    name: str
    labels: Tensor
    cells: Cells
    files: Callable[[Sequence[int]], Iterable[tuple[str, str]]] | None = None


@dataclass(frozen=True)
class Contents:
    """What a data set holds.

    Attributes:
        classes: the K names.
        train: the training split, where there is one.
        test: the labelled test split, where there is one.
        notes: what was taken for what and what was ignored, as sentences.
        reading: the same as plain values.
    """

    classes: tuple[str, ...]
    train: Part | None
    test: Part | None
    notes: list[str] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)
