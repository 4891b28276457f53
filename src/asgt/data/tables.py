"""Tables with a column of images: finds the splits, the image column and the labels.

The table may be parquet files, a folder that ``datasets`` saved, a data set of the hub, or a metadata file for
images. ``test`` is the test split; ``val`` without a labelled ``test``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, unknown
from .folders import counted
from .labels import Column, Labels, aligned, label_column, labels_of
from .parts import Contents, Part
from .split_names import split_kind

__all__ = ["Table", "cell_bytes", "looks_encoded", "read_tables"]


@dataclass(frozen=True)
class Table:
    """One split.

    Attributes:
        name: of the split, as the data calls it.
        count: of its rows.
        columns: those without images, by name.
        image_columns: the names of those with images.
        cells: for a column of images and some rows, ascending: functions that read the encoded images, and their
            places.
    """

    name: str
    count: int
    columns: Mapping[str, Column]
    image_columns: tuple[str, ...]
    cells: Callable[[str, Sequence[int]], Iterator[tuple[Callable[[], bytes], str]]]


def read_tables(
    name: str, tables: Mapping[str, Table], image_column: str | None, wanted_labels: str | None
) -> Contents:
    """Finds splits, images and labels of a data set of tables.

    Args:
        name: of the data, for messages.
        tables: the splits by name.
        image_column: the user's choice of the column of the images.
        wanted_labels: the user's choice of the column of the labels.

    Raises:
        InputError: splits, images or labels are ambiguous, or a row has no label.
    """

    train, tests, ignored = _splits(name, tables)
    first = train or tests[0]
    images = _image_column(name, first, image_column)
    label = label_column(first.columns, wanted_labels, name)
    own = labels_of(first.columns[label], f"{name} ({first.name})")

    def part(table: Table, numbers: Any) -> Part:
        if images not in table.image_columns:
            raise InputError(f"{name} ({table.name}) has no column of images {images!r}, which {first.name} has")
        return Part(table.name, numbers, lambda rows: table.cells(images, rows))

    test_part = None if train is not None else part(first, own.numbers)
    for table in tests if train is not None else tests[1:]:
        if test_part is not None:
            ignored.append(f"{counted(table.count, 'image')} of {table.name}, for {test_part.name} is the test split")
        elif label not in table.columns or _is_unlabelled(table.columns[label], own):
            ignored.append(f"{counted(table.count, 'image')} of {table.name}, which has no labels")
        else:
            where = f"{name} ({table.name})"
            numbers = aligned(labels_of(table.columns[label], where), own, where, first.name)
            test_part = part(table, numbers)
    train_part = None if train is None else part(train, own.numbers)

    notes = [_taken(name, train_part, test_part, len(own.classes))]
    others = [column for column in (*first.image_columns, *first.columns) if column not in (images, label)]
    if others:
        notes.append(f"images: column {images!r}; labels: column {label!r}; not used: {', '.join(others[:8])}")
    if ignored:
        notes.append(f"ignored: {'; '.join(ignored)}")
    splits = {split: part.name for split, part in (("train", train_part), ("test", test_part)) if part is not None}
    reading = {"splits": splits, "image_column": images, "label_column": label, "ignored": ignored}
    return Contents(own.classes, train_part, test_part, notes, reading)


def _is_unlabelled(column: Column, known: Labels) -> bool:
    """Whether a split has no labels. Numbers that are all -1 are some where -1 is a class of the training split."""

    return column.is_empty and not (column.given and column.kind != "class" and "-1" in known.classes)


def _taken(name: str, train: Part | None, test: Part | None, classes: int) -> str:
    """Which tables were taken for splits, in one sentence."""

    splits = [
        f"{each.name} is the {words} split ({counted(len(each.labels), 'image')})"
        for each, words in ((train, "training"), (test, "test"))
        if each is not None
    ]
    if test is None:
        splits.append("a stratified fifth of it is the test split")
    return f"{name}: {', '.join(splits)}; {counted(classes, 'class', 'classes')}"


def _splits(name: str, tables: Mapping[str, Table]) -> tuple[Table | None, list[Table], list[str]]:
    """The training split, what may be the test split, the best first, and what is neither, in words."""

    empty = [table.name for table in tables.values() if table.count == 0]
    if any(split_kind(each) == "train" for each in empty) or len(empty) == len(tables):
        raise InputError(f"{name}: the split {', '.join(empty)} has no rows: add training images")
    without_rows = [f"{each}, which has no rows" for each in empty]
    of_kind: dict[str | None, list[Table]] = {}
    for table in (table for table in tables.values() if table.count):
        of_kind.setdefault(split_kind(table.name), []).append(table)
    for kind in ("train", "test", "val"):
        same = of_kind.get(kind, [])
        if len(same) > 1:
            raise InputError(f"{name} has two {kind} splits, {same[0].name} and {same[1].name}: remove one")

    rest = of_kind.get(None, [])
    tests = [table for kind in ("test", "val") for table in of_kind.get(kind, [])]
    if "train" in of_kind or tests:
        ignored = [f"{counted(table.count, 'image')} of {table.name}, a split of another name" for table in rest]
        return of_kind.get("train", [None])[0], tests, without_rows + ignored
    if len(rest) > 1:
        names = ", ".join(table.name for table in rest[:12])
        raise InputError(f"{name} has the splits {names}: rename them to train and test")
    return rest[0], [], without_rows


def _image_column(name: str, table: Table, wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in table.image_columns:
            raise unknown("image column", wanted, table.image_columns)
        return wanted
    if not table.image_columns:
        raise InputError(f"{name} has no column of images; it has {', '.join(table.columns) or 'no columns'}")
    if len(table.image_columns) > 1:
        raise InputError(
            f"{name} has {len(table.image_columns)} columns of images ({', '.join(table.image_columns)}): choose "
            "one with --image-column"
        )
    return table.image_columns[0]


def cell_bytes(cell: Any, where: str, read: Callable[[str], bytes] | None = None) -> bytes:
    """The encoded image of a cell: bytes, or a struct of ``bytes`` and ``path``.

    Args:
        cell: the value.
        where: its place, for messages.
        read: returns the content of a file that a cell only names.


    Raises:
        InputError: the cell is empty.
    """

    if isinstance(cell, Mapping):
        path, cell = cell.get("path"), cell.get("bytes")
        if cell is None and path and isinstance(path, str) and read is not None:
            return read(path)
    if cell is None:
        raise InputError(f"{where} is empty: the row has no image; remove it")
    if not isinstance(cell, (bytes, bytearray, memoryview)):
        raise InputError(f"{where} holds a {type(cell).__name__} instead of the bytes of an image: remove the row")
    return bytes(cell)


def looks_encoded(content: Any) -> bool:
    """Whether bytes begin like an image file that Pillow decodes."""

    import io

    from PIL import Image

    from .tree import image_formats

    if isinstance(content, Mapping):
        content = content.get("bytes")
    if not isinstance(content, bytes):
        return False
    try:
        with Image.open(io.BytesIO(content), formats=image_formats()):
            return True
    except Exception:  # every decoder has errors of its own
        return False
