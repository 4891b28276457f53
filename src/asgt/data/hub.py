"""Data sets that the ``datasets`` library reads: those of the hub, and folders of its ``save_to_disk``."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..datasets import DATA_SETS
from ..errors import InputError, unknown
from ..files import read_bounded
from .labels import Column
from .split_names import split_kind
from .tables import Table, cell_bytes, looks_encoded
from .tree import folders_in

__all__ = ["is_saved", "read_hub", "read_saved"]

_DICTIONARY, _SINGLE = "dataset_dict.json", "state.json"
_FILES = "_data_files"
_NOTE = 2**26
"""The largest size in bytes of the JSON file that describes a folder."""


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote a folder, or one such folder per split in it."""

    return (folder / _DICTIONARY).is_file() or (folder / _SINGLE).is_file() or bool(_saved_splits(folder))


def _saved_splits(folder: Path) -> list[Path]:
    names = [name for name in folders_in(folder) if split_kind(name) is not None]
    return [folder / name for name in names if (folder / name / _SINGLE).is_file()]


def read_saved(folder: Path, name: str) -> dict[str, Table]:
    """The splits of a folder that ``save_to_disk`` wrote.

    Args:
        folder: as ``DatasetDict.save_to_disk`` or ``Dataset.save_to_disk`` wrote it; or with one such folder per split.
        name: of the data, for messages.

    Raises:
        InputError: a file is missing or damaged.
    """

    import datasets

    with _quiet(datasets):
        try:
            if (folder / _DICTIONARY).is_file():
                places = {
                    split: folder / split for split in json.loads(read_bounded(folder / _DICTIONARY, _NOTE))["splits"]
                }
            elif (folder / _SINGLE).is_file():
                places = {"train": folder}
            else:
                places = {each.name: each for each in _saved_splits(folder)}
            # The library fails on a split without rows.
            full = {
                split for split, place in places.items() if json.loads(read_bounded(place / _SINGLE, _NOTE))[_FILES]
            }
            parts = {split: datasets.load_from_disk(str(places[split])) for split in places if split in full}
        except Exception as error:  # pyarrow's, the operating system's, and those of damaged JSON
            raise InputError(f"cannot read {folder}: {_first_line(error)}") from error
    return {
        split: _table(split, parts[split], name) if split in parts else Table(split, 0, {}, (), lambda *_: iter(()))
        for split in places
    }


def read_hub(identifier: str, configuration: str | None, name: str) -> dict[str, Table] | Path:
    """The splits of a data set of the hub.

    Args:
        identifier: its id.
        configuration: the one to read, if there are several.
        name: the user's name for it, for messages.


    Returns:
        The splits by name. For image files on the hub, the folder of the download: the library would mistake parts
        of file names for splits.

    Raises:
        InputError: the data set or the configuration is unknown, or the hub cannot be reached.
    """

    import datasets

    with _quiet(datasets):
        try:
            loaded = datasets.load_dataset(identifier, **({} if configuration is None else {"name": configuration}))
            parts = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
            if any(part.info.builder_name == "imagefolder" for part in parts.values()):
                from huggingface_hub import snapshot_download

                return Path(snapshot_download(identifier, repo_type="dataset"))
        except ConnectionError as error:
            raise InputError(
                f"{name}: the hub cannot be reached: set ASGT_DATA=DIR to a folder with DIR/{name.split('/')[-1]}"
            ) from error
        except datasets.exceptions.DatasetNotFoundError as error:
            near = unknown("data set", name, DATA_SETS)
            raise InputError(f"{near}, a hub id, or a folder (no folder has this name)") from error
        except Exception as error:  # every builder has errors of its own: parquet, metadata, a script that is refused
            raise _refused(identifier, configuration, error) from error
    return {split: _table(split, part, name) for split, part in parts.items()}


def _refused(identifier: str, configuration: str | None, error: Exception) -> InputError:
    """What the library says in several lines, in one."""

    listed = re.search(r"[Aa]vailable(?: configs)?: \[([^\]]*)\]", str(error))
    if listed is None:
        return InputError(f"cannot read {identifier}: {_first_line(error.__cause__ or error)}")
    names = [each.strip().strip("'\"") for each in listed[1].split(",")]
    if configuration is not None:
        return unknown(f"configuration of {identifier}", configuration, names)
    return InputError(
        f"{identifier} has {len(names)} configurations ({', '.join(names)}): choose one with --data-config"
    )


def _table(split: str, part: Any, name: str) -> Table:
    plain = part.with_format(None)
    columns, images = {}, []
    for column, feature in part.features.items():
        kind, names = _kind(feature)
        if kind == "image" or (kind == "bytes" and _holds_images(plain, column)):
            images.append(column)
        else:
            columns[column] = Column(column, "other" if kind == "bytes" else kind, _reader(plain, column), names)

    def cells(column: str, rows: Sequence[int]) -> Iterator[tuple[Callable[[], bytes], str]]:
        table = _undecoded(plain, column).select(list(rows)).select_columns([column])
        for row, record in zip(rows, table, strict=True):
            yield _cell(record[column], f"{name} ({split}), image {row}")

    return Table(split, len(part), columns, tuple(images), cells)


def _cell(cell: Any, where: str) -> tuple[Callable[[], bytes], str]:
    if isinstance(cell, dict) and cell.get("path"):
        where = f"{where} ({cell['path']})"
    return (lambda: cell_bytes(cell, where, read_bounded)), where


def _undecoded(table: Any, column: str) -> Any:
    import datasets

    if isinstance(table.features[column], datasets.Image):
        return table.cast_column(column, datasets.Image(decode=False))
    return table


def _reader(table: Any, column: str) -> Callable[[], list[Any]]:
    return lambda: list(table[column][:])


def _kind(feature: Any) -> tuple[str, tuple[str, ...]]:
    """The kind of a column, and the names of the classes where it has some."""

    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return "class", tuple(feature.names)
    if isinstance(feature, datasets.Image):
        return "image", ()
    if isinstance(feature, datasets.Value):
        prefixes = {"whole": ("int", "uint"), "truth": ("bool",), "text": ("string", "large_string")}
        prefixes |= {"real": ("float", "double", "decimal"), "bytes": ("binary", "large_binary")}
        return next((kind for kind, starts in prefixes.items() if feature.dtype.startswith(starts)), "other"), ()
    if isinstance(feature, dict):
        content = feature.get("bytes")
        return ("image" if content is not None and _kind(content)[0] == "bytes" else "other"), ()
    return ("list" if hasattr(feature, "feature") or isinstance(feature, list) else "other"), ()


def _holds_images(table: Any, column: str) -> bool:
    cells = (record[column] for record in table.select_columns([column]))
    return looks_encoded(next((cell for cell in cells if cell is not None), None))


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """The progress bars, warnings and logs of the library, and of those it calls, off for the time of a block."""

    from huggingface_hub import utils

    bars = [each for each in (datasets, utils) if not each.are_progress_bars_disabled()]
    level = logging.root.manager.disable
    # What they log as an error they also raise: said once is enough.
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for each in bars:
                each.disable_progress_bars()
            yield
    finally:
        logging.disable(level)
        for each in bars:
            each.enable_progress_bars()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
