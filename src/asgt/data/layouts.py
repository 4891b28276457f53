"""Finds the data of a name, and the reader for its layout."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from ..datasets import DATA_SETS, data_set
from ..errors import InputError, unknown
from .folders import ClassFolders, class_folders, counted, has_class_folders, ignored_files, unwrapped
from .hub import is_saved, read_hub, read_saved
from .metadata import metadata_files, read_metadata
from .parquet import read_parquet
from .parts import Contents, Part
from .tables import read_tables
from .tree import Tree, folders_in, open_tree

__all__ = ["TableOptions", "read_contents"]

_NAMED = 10


@dataclass(frozen=True)
class TableOptions:
    """The options of reading tables; the arguments of :func:`asgt.data.load_data` with the same names."""

    image_column: str | None = None
    label_column: str | None = None
    data_config: str | None = None


def read_contents(name: str, options: TableOptions, place: str | None = None) -> Contents:
    """Finds a data set and reads its content; images are not decoded.

    Args:
        name: a short name, a hub id, a folder or a zip archive.
        options: the options of reading tables.
        place: an earlier absolute path of the data.


    Returns:
        Splits, classes, and notes on them; ``reading["place"]`` is the absolute path or the hub id.

    Raises:
        InputError: the data does not exist, or its layout defines no splits and classes.
    """

    source = _source(name, place)
    if isinstance(source, str):
        loaded = read_hub(source, options.data_config, name)
        if isinstance(loaded, Path):
            contents = _local(loaded, name, options)
        else:
            contents = read_tables(name, loaded, options.image_column, options.label_column)
        contents.reading["place"] = source
    else:
        contents = _local(source, name, options)
        contents.reading["place"] = os.path.abspath(source)
    if options.data_config is not None:
        contents.reading["data_config"] = options.data_config
    return contents


def _source(name: str, place: str | None) -> Path | str:
    """The folder, the archive or the hub id that a name stands for."""

    if not name:
        raise InputError("the name of the data is empty: give a data set or a folder to --data")
    short = name.split("/")[-1]
    known = data_set(name)
    # What looks like a path is one, and no name to look up: the hub's ids have one slash and no leading dot.
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/") or os.path.isabs(name)

    if (root := os.environ.get("ASGT_DATA")) and not is_path:
        if not os.path.isdir(root):
            raise InputError(f"ASGT_DATA={root}: no such folder: give an existing one")
        for candidate in (name, known.name, short):
            if os.path.isdir(Path(root) / candidate):
                return Path(root) / candidate

    # The functions of os.path, for those of pathlib raise on a name too long or a folder that is closed to us.
    here = Path(os.path.expanduser(name))
    for path in (here, Path(place) if place is not None and os.path.isabs(place) else None):
        if path is not None and os.path.exists(path):
            # A device has no end, in which a zip archive would have its list of entries.
            if os.path.isdir(path) or (os.path.isfile(path) and zipfile.is_zipfile(path)):
                return path
            kind = "damaged, or not a zip archive" if path.suffix.lower() == ".zip" else "a file"
            kind = kind if os.path.isfile(path) else "a device, a pipe or a socket"
            raise InputError(f"{path} is {kind}: give a folder, or a zip archive of one, to --data")
    if name == known.name and known.hub is not None:
        return known.hub
    looked = "" if place is None else f", neither in {Path.cwd()} nor in its earlier place, {place}"
    if os.path.islink(here):
        raise InputError(f"the link {name} is broken (to {os.readlink(here)}): repair or remove it")
    if is_path or here.suffix.lower() == ".zip":
        raise InputError(f"there is no {'archive' if here.suffix.lower() == '.zip' else 'folder'} {name}{looked}")
    if "/" not in name:
        raise InputError(
            f"{unknown('data set', name, DATA_SETS)}, a hub id, or a folder (none of that name here{looked})"
        )
    if place is not None and os.path.isabs(place) and known.hub is None:
        # The data was a folder: what the hub holds under the name of a folder is something else.
        raise InputError(f"there is no folder {name}{looked}")
    return name


def _local(source: Path, name: str, options: TableOptions) -> Contents:
    """What a folder or an archive holds."""

    if source.is_dir() and options.data_config is not None:
        source = source / _configuration(folders_in(source), name, options)
    if source.is_dir() and is_saved(source):
        return read_tables(name, read_saved(source, name), options.image_column, options.label_column)

    tree = open_tree(source)
    if tree.archive is not None and options.data_config is not None:
        tree = tree.below(_configuration([each for each in tree.folders if "/" not in each], name, options))
    tree = unwrapped(tree)
    if tree.tables:
        mixed = sorted({path.partition("/")[0] for path in tree.images if "/" in path})
        if mixed:
            raise InputError(
                f"{tree.shown()} contains parquet files and, in {', '.join(mixed[:3])}/, images: give a folder "
                "with one kind"
            )
        contents = read_tables(name, read_parquet(tree, name), options.image_column, options.label_column)
        images = [f"{counted(len(tree.images), 'image')} next to the parquet files"] if tree.images else []
        _add_ignored(contents, images + ignored_files(tree, []))
        return contents
    if tree.archive is not None and any(path.endswith(".arrow") for path in tree.others):
        raise InputError(f"{tree.shown()} contains files of save_to_disk: unpack the archive and give the folder")
    if not tree.images:
        others = f" ({', '.join(tree.others[:3])}{', …' if len(tree.others) > 3 else ''})" if tree.others else ""
        raise InputError(f"{tree.shown()} contains no images and no parquet files{others}")
    if metadata_files(tree) and (options.label_column is not None or not has_class_folders(tree)):
        return _by_metadata(tree, name, options)
    if options.label_column is not None or options.image_column is not None:
        raise InputError(
            f"{tree.shown()} is not a table, because its class folders are the labels: remove "
            "--label-column and --image-column"
        )
    return _by_folders(tree)


def _configuration(folders: list[str], name: str, options: TableOptions) -> str:
    assert options.data_config is not None
    if options.data_config not in folders:
        raise unknown(f"configuration of {name}", options.data_config, folders)
    return options.data_config


def _by_metadata(tree: Tree, name: str, options: TableOptions) -> Contents:
    tables, ignored = read_metadata(tree, name)
    if not tables:
        raise InputError(f"{tree.shown(metadata_files(tree)[0])} names no images: write one row per image")
    contents = read_tables(name, tables, options.image_column, options.label_column)
    labels = contents.reading["label_column"]
    rest = [path for path in tree.others if path not in metadata_files(tree)]
    ignored += ignored_files(replace(tree, others=rest), [])
    contents.notes.insert(1, f"labels: column {labels!r} of {', '.join(metadata_files(tree))}")
    _add_ignored(contents, ignored)
    return contents


def _add_ignored(contents: Contents, ignored: list[str]) -> None:
    if ignored:
        contents.notes.append(f"ignored: {'; '.join(ignored)}")
        contents.reading["ignored"] = [*contents.reading["ignored"], *ignored]


def _by_folders(tree: Tree) -> Contents:
    layout = class_folders(tree)
    first = layout.splits.get("train") or layout.splits["test"]
    classes = tuple(sorted(first))
    parts = {split: _part(tree, layout, split, classes) for split in layout.splits}
    contents = Contents(classes, parts.get("train"), parts.get("test"))

    contents.notes.append(_taken(tree, layout, classes))
    if layout.ignored:
        contents.notes.append(f"ignored: {'; '.join(layout.ignored)}")
    names = {split: layout.names[split] or "." for split in layout.splits}
    contents.reading.update(splits=names, ignored=layout.ignored)
    return contents


def _part(tree: Tree, layout: ClassFolders, split: str, classes: tuple[str, ...]) -> Part:
    number = {label: index for index, label in enumerate(classes)}
    rows = sorted((path, number[label]) for label, paths in layout.splits[split].items() for path in paths)

    def cells(wanted: Sequence[int]) -> Iterator[tuple[Callable[[], bytes], str]]:
        for row in wanted:
            yield partial(tree.read, rows[row][0]), tree.shown(rows[row][0])

    def files(wanted: Sequence[int]) -> Iterator[tuple[str, str]]:
        for row in wanted:
            path = tree.shown(rows[row][0])
            yield (path, "") if tree.archive is None else (str(tree.place), path)

    labels = torch.tensor([label for _, label in rows], dtype=torch.int64)
    return Part(layout.names[split] or "train", labels, cells, files)


def _taken(tree: Tree, layout: ClassFolders, classes: tuple[str, ...]) -> str:
    """Which folders were taken for splits and for classes."""

    listed = ", ".join(classes[:_NAMED]) + (", …" if len(classes) > _NAMED else "")
    splits = []
    for split, words in (("train", "training"), ("test", "test")):
        if split in layout.splits:
            count = counted(sum(len(paths) for paths in layout.splits[split].values()), "image")
            folder = f"{layout.names[split]}/" if layout.names[split] else "the top folders"
            splits.append(f"{folder} {'is' if layout.names[split] else 'are'} the {words} split ({count})")
    if "test" not in layout.splits:
        splits.append("a stratified fifth of it is the test split")
    return f"{tree.shown()}: {', '.join(splits)}; {counted(len(classes), 'class', 'classes')}: {listed}"
