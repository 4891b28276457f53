"""Labels from a file ``metadata.csv`` or ``metadata.jsonl`` for images outside class folders.

A row names an image in its column ``file_name``, relative to the metadata file; the label column is found as in
other tables.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from ..errors import InputError
from .folders import counted
from .labels import Column
from .split_names import split_kind
from .tables import Table
from .tree import Tree

__all__ = ["metadata_files", "read_metadata"]

_NAMES = ("metadata.csv", "metadata.jsonl")
_FILE = "file_name"
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?(e[+-][0-9]{2,3})?", re.ASCII)
"""A real number as programs write it: no leading zero, an exponent with a sign. ``07`` and ``1e2`` are names."""


def metadata_files(tree: Tree) -> list[str]:
    """The metadata files at the top of a tree and in its top folders."""

    return [path for path in tree.others if path.rpartition("/")[2].casefold() in _NAMES and path.count("/") < 2]


def read_metadata(tree: Tree, name: str) -> tuple[dict[str, Table], list[str]]:
    """The splits of images that metadata files label; their top folders name the splits.

    Args:
        tree: the files, with metadata files among them.
        name: of the data, for messages.

    Returns:
        The splits by name, and descriptions of the ignored files.

    Raises:
        InputError: a metadata file cannot be read, names an image that is missing, or names one twice.
    """

    rows: dict[str, dict[str, Any]] = {}
    images = set(tree.images)
    for path in metadata_files(tree):
        for number, record in enumerate(_records(tree, path)):
            where = f"{tree.shown(path)}, row {number}"
            image = record.pop(_FILE, None)
            if not isinstance(image, str) or not image:
                raise InputError(
                    f"{where} has no {_FILE}: give this column the path of the image, relative to this file"
                )
            image = posixpath.normpath(posixpath.join(posixpath.dirname(path), image.replace("\\", "/")))
            if image not in images:
                raise InputError(f"{where}: image {tree.shown(image)} does not exist: correct the path")
            if image in rows:
                raise InputError(f"{where} names {image} a second time: remove one row")
            rows[image] = record

    splits: dict[str, list[str]] = {}
    unnamed = [image for image in tree.images if image not in rows]
    for image in sorted(rows):
        top = image.partition("/")[0] if "/" in image else ""
        splits.setdefault(top if split_kind(top) else "train", []).append(image)
    ignored = [f"{counted(len(unnamed), 'image')} that no metadata file names"] if unnamed else []
    return {split: _table(tree, split, paths, rows) for split, paths in splits.items()}, ignored


def _records(tree: Tree, path: str) -> list[dict[str, Any]]:
    """The rows of a metadata file, by column."""

    where = tree.shown(path)
    try:
        text = tree.read(path).decode("utf-8-sig")
        if path.casefold().endswith(".csv"):
            reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            header = list(reader.fieldnames or ())
            if len(header) == 1 and (separator := next((each for each in ";\t|" if each in header[0]), None)):
                raise InputError(f"{where} separates its columns with {separator!r}: save it with commas")
            _refuse_twice(header, where)
            records: list[Any] = [dict(record) for record in reader]
        else:
            # Not splitlines(), which also cuts at line separators that a JSON string may hold.
            lines = [line for line in text.split("\n") if line.strip()]
            records = [json.loads(line, object_pairs_hook=partial(_once, where)) for line in lines]
    except InputError:
        raise
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {where}: {error}") from error
    for number, record in enumerate(records):
        if not isinstance(record, dict) or None in record:
            raise InputError(f"{where}, row {number}, does not match the columns: repair the row")
    return records


def _refuse_twice(names: list[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"{where} has two columns {twice[0]!r}: rename or remove one")


def _once(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no name may stand twice."""

    _refuse_twice([name for name, _ in pairs], where)
    return dict(pairs)


def _table(tree: Tree, split: str, images: list[str], rows: dict[str, dict[str, Any]]) -> Table:
    names = dict.fromkeys(column for image in images for column in rows[image])
    columns = {}
    for column in names:
        kind, values = _typed([rows[image].get(column) for image in images])
        columns[column] = Column(column, kind, partial(list, values))

    def cells(column: str, wanted: Sequence[int]) -> Iterator[tuple[Callable[[], bytes], str]]:
        for row in wanted:
            yield partial(tree.read, images[row]), tree.shown(images[row])

    return Table(split, len(images), columns, (_FILE,), cells)


def _typed(values: list[Any]) -> tuple[str, list[Any]]:
    """The kind of some values, and the values as that kind.

    Text becomes numbers only where every value spells one and no two spell the same.
    """

    values = [None if value == "" else value for value in values]
    given = [value for value in values if value is not None]
    kinds = {type(value) for value in given}
    if kinds == {str}:
        if all(_spells_whole(value) for value in given):
            return "whole", [None if value is None else int(value) for value in values]
        spellings = {value for value in given if value.casefold() != "nan"}
        if all(_DECIMAL.fullmatch(value) for value in spellings) and len(set(map(float, spellings))) == len(spellings):
            return "real", [None if value is None else float(value) for value in values]
        return "text", values
    if kinds == {int, float}:
        try:
            return "real", [None if value is None else float(value) for value in values]
        except OverflowError:  # a whole number of more than 308 digits
            return "other", values
    return {bool: "truth", int: "whole", float: "real", list: "list"}.get(
        next(iter(kinds)) if len(kinds) == 1 else object, "other"
    ), values


def _spells_whole(value: str) -> bool:
    """Whether a text is a whole number as Python writes it: 7, and neither 07 nor 7.0."""

    try:
        return str(int(value)) == value
    except ValueError:
        return False
