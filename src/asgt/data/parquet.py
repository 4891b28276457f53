"""Parquet files: their configurations, their splits and their columns.

Names are those of the hub: ``train-00000-of-00001.parquet``, ``data/test-00000-of-00002.parquet``,
``test/0000.parquet``, ``train.parquet``; a folder that is neither ``data`` nor a split is a configuration. Only the
used rows are read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..capacity import refuse_memory
from ..errors import InputError
from ..files import read_bounded
from .labels import Column
from .split_names import split_kind
from .tables import Table, cell_bytes, looks_encoded
from .tree import Tree

__all__ = ["read_parquet"]

_SHARD = re.compile(r"^(?P<split>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_ROWS = 256
_ROW = 64
"""A lower bound in bytes for a row while labels are read: a Python object, a list entry, two whole numbers."""


def read_parquet(tree: Tree, name: str) -> dict[str, Table]:
    """The splits of a folder or an archive of parquet files.

    Args:
        tree: its files, parquet files among them.
        name: of the data, for messages.

    Raises:
        InputError: there are several configurations, the splits are ambiguous, a part is missing, or a file is
            damaged.
    """

    configurations = sorted({_configuration(path) for path in tree.tables})
    if len(configurations) > 1:
        names = ", ".join(each or "(top)" for each in configurations[:12])
        raise InputError(f"{name} has {len(configurations)} configurations ({names}): choose one with --data-config")
    files: dict[str, list[str]] = {}
    for path in tree.tables:
        files.setdefault(_split(tree, path), []).append(path)
    if "" in files and len(files) > 1:
        others = ", ".join(split for split in files if split)
        raise InputError(
            f"{tree.shown(files[''][0])} belongs to no split, unlike {others}: rename it to train, test or val"
        )

    tables = {}
    for split, paths in files.items():
        _refuse_missing_shards(tree, split, paths)
        tables[split or "train"] = _table(tree, name, split or "train", paths)
    return tables


def _configuration(path: str) -> str:
    folders = [part for part in path.split("/")[:-1] if part.casefold() != "data" and split_kind(part) is None]
    return "/".join(folders)


def _split(tree: Tree, path: str) -> str:
    """The split that a file belongs to, as it calls it, ``""`` if it does not say."""

    *folders, stem = path.removesuffix(".parquet").split("/")
    if shard := _SHARD.match(stem):
        return shard["split"]
    words = {kind: word for word in re.split(r"[^a-z]+", stem.casefold()) if (kind := split_kind(word))}
    by_folder = {kind: part for part in folders if (kind := split_kind(part))}
    kinds = set(words) | set(by_folder)
    if len(kinds) > 1:
        raise InputError(f"{tree.shown(path)}: its name says both {' and '.join(sorted(kinds))}: rename it")
    return next(iter({**by_folder, **words}.values()), "")


def _refuse_missing_shards(tree: Tree, split: str, paths: list[str]) -> None:
    matches = [match for path in paths if (match := _SHARD.match(path.rsplit("/", 1)[-1]))]
    counts = {int(match["count"]) for match in matches}
    if not matches:
        return
    numbers = sorted(int(match["number"]) for match in matches)
    if len(counts) > 1 or numbers != list(range(max(counts))) or len(matches) != len(paths):
        raise InputError(
            f"{tree.shown()}: the split {split} has {len(paths)} parquet files whose names say {max(counts)} "
            f"parts: download the missing ones or remove the others"
        )


def _table(tree: Tree, name: str, split: str, paths: list[str]) -> Table:
    import pyarrow.parquet  # type: ignore[import-untyped]

    files = []
    for path in paths:
        try:
            files.append(pyarrow.parquet.ParquetFile(tree.open_table(path)))
        except Exception as error:  # pyarrow's, the operating system's, and those of a damaged archive
            raise InputError(f"cannot read {tree.shown(path)}: {_first_line(error)}") from error
    described = [_described(file.schema_arrow) for file in files]
    for path, file in zip(paths, files, strict=True):
        twice = [column for column, count in Counter(file.schema_arrow.names).items() if count > 1]
        if twice:
            raise InputError(f"{tree.shown(path)} has two columns {twice[0]!r}: rename or remove one")
    for path, each in zip(paths, described, strict=True):
        if each != described[0]:
            raise InputError(
                f"{tree.shown(path)} has other columns or classes than {paths[0]}: use the same in all parts of a split"
            )

    counts = [file.metadata.num_rows for file in files]
    _refuse_many(tree, paths, files)
    columns, images = {}, []
    for column, (kind, names) in described[0].items():
        if kind == "image" or (kind == "bytes" and _holds_images(files, column)):
            images.append(column)
        elif not column.startswith("__index_level_"):
            kind = "other" if kind == "bytes" else kind
            columns[column] = Column(column, kind, _reader(files, column, tree.shown()), names)

    def cells(column: str, rows: Sequence[int]) -> Iterator[tuple[Callable[[], bytes], str]]:
        return _cells(tree, f"{name} ({split})", list(zip(files, paths, strict=True)), column, rows)

    return Table(split, sum(counts), columns, tuple(images), cells)


def _refuse_many(tree: Tree, paths: list[str], files: list[Any]) -> None:
    """Refuses more rows than there is memory for: a row that repeats costs a file next to nothing."""

    for path, file in zip(paths, files, strict=True):
        rows = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        if min(rows, default=0) < 0 or sum(rows) != file.metadata.num_rows:
            raise InputError(f"{tree.shown(path)} is damaged: its parts do not have {file.metadata.num_rows:,} rows")
    every = sum(file.metadata.num_rows for file in files)
    refuse_memory(every * _ROW, f"{tree.shown(paths[0])}: a split of {every:,} rows", "use fewer rows")


def _described(schema: Any) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The kind of each column, and the names of the classes where it has some."""

    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = {}
    described: dict[str, tuple[str, tuple[str, ...]]] = {}
    for field in schema:
        feature = features.get(field.name) if isinstance(features, dict) else None
        feature = feature if isinstance(feature, dict) else {}
        kind = _kind(field.type)
        names: tuple[str, ...] = ()
        if feature.get("_type") == "ClassLabel" and kind == "whole" and isinstance(feature.get("names"), list):
            kind, names = "class", tuple(map(str, feature["names"]))
        elif feature.get("_type") == "Image" and kind in ("image", "bytes"):
            kind = "image"
        described[field.name] = (kind, names)
    return described


def _kind(kind: Any) -> str:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_struct(kind):
        content = kind.field("bytes").type if "bytes" in {field.name for field in kind} else None
        return "image" if content is not None and _kind(content) == "bytes" else "other"
    tests = {
        "whole": types.is_integer,
        "truth": types.is_boolean,
        "text": lambda t: types.is_string(t) or types.is_large_string(t) or types.is_string_view(t),
        "real": lambda t: types.is_floating(t) or types.is_decimal(t),
        "bytes": lambda t: types.is_binary(t) or types.is_large_binary(t) or types.is_fixed_size_binary(t),
        "list": lambda t: types.is_list(t) or types.is_large_list(t) or types.is_fixed_size_list(t),
    }
    return next((name for name, test in tests.items() if test(kind)), "other")


def _holds_images(files: list[Any], column: str) -> bool:
    """Whether the first content of a column of bytes is an image."""

    for file in files:
        for batch in file.iter_batches(_ROWS, columns=[column]):
            for value in batch.column(0):
                if value.is_valid:
                    return looks_encoded(value.as_py())
    return False


def _reader(files: list[Any], column: str, where: str) -> Callable[[], list[Any]]:
    def read() -> list[Any]:
        try:
            return [value for file in files for value in file.read(columns=[column]).column(column).to_pylist()]
        except Exception as error:  # a page that is damaged, or a text that is no UTF-8
            raise InputError(f"cannot read the column {column!r} of {where}: {_first_line(error)}") from error

    return read


def _cells(
    tree: Tree, where: str, files: list[tuple[Any, str]], column: str, rows: Sequence[int]
) -> Iterator[tuple[Callable[[], bytes], str]]:
    """The cells of some rows, ascending; only the row groups and batches that hold them are decoded."""

    import pyarrow

    start, position = 0, 0
    for file, path in files:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if position == len(rows) or rows[position] >= end:
                start = end
                continue
            try:
                for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[column]):
                    stop = start + batch.num_rows
                    last = position
                    while last < len(rows) and rows[last] < stop:
                        last += 1
                    wanted = [row - start for row in rows[position:last]]
                    cells = batch.column(0)
                    if len(wanted) < batch.num_rows:
                        cells = cells.take(pyarrow.array(wanted, pyarrow.int64()))
                    for row, cell in zip(rows[position:last], cells.to_pylist(), strict=True):
                        yield _cell(tree, path, cell, f"{where}, image {row}")
                    start, position = stop, last
            except InputError:
                raise
            except Exception as error:  # pyarrow's, the operating system's, those of a path that is no UTF-8
                raise InputError(f"cannot read {tree.shown(path)}: {_first_line(error)}") from error
            start = end


def _cell(tree: Tree, path: str, cell: Any, where: str) -> tuple[Callable[[], bytes], str]:
    def read_named(image: str) -> bytes:
        # A path in a table is relative to the table.
        if tree.archive is not None:
            raise InputError(f"{where} names the file {image}, but contains no image: unpack the archive")
        return read_bounded(Path(tree.shown(path)).parent / image)

    if isinstance(cell, dict) and cell.get("path"):
        where = f"{where} ({cell['path']})"
    return (lambda: cell_bytes(cell, where, read_named)), where


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
