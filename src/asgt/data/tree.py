"""The files of a folder or a zip archive with one interface: relative paths, and the content of each.

Hidden files are omitted and counted. Links are followed; in circles, no folder is entered twice.
Nothing is extracted from an archive.
"""

from __future__ import annotations

import os
import stat
import zipfile
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ..capacity import refuse_memory, size_text
from ..errors import InputError
from ..files import read_bounded

__all__ = ["Tree", "folders_in", "image_formats", "open_tree"]

_PARQUET = ".parquet"
_NO_LOADER = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
"""Formats that Pillow only recognises, or decodes with another program."""

_FREQUENT = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff"}
"""Suffixes of images that are known without Pillow, whose import takes a tenth of a second."""

_SYSTEM_FILES = {"thumbs.db", "desktop.ini", "icon\r", "__macosx"}
_Waiting: TypeAlias = tuple[Path, str, tuple[str, ...]]
"""A folder, its path relative to the place, with a slash, and the real paths of it and of those around it."""

_LARGEST_IMAGE = 2**29
_LARGEST_RATIO = 200
_SMALL = 2**26
_ENCRYPTED = 1


@cache
def image_formats() -> tuple[str, ...]:
    """The formats that Pillow decodes by itself, the frequent ones first."""

    from PIL import Image

    Image.init()
    frequent = [name for name in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF") if name in Image.OPEN]
    rare = [name for name in Image.OPEN if name not in frequent and name not in _NO_LOADER]
    return (*frequent, *rare)


@cache
def _image_suffixes() -> frozenset[str]:
    from PIL import Image

    # Pillow opens MPO, a JPEG of several images, as JPEG.
    formats = (*image_formats(), "MPO")
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


@dataclass
class Tree:
    """The files of a data set. Paths are relative, with slashes, and sorted.

    Attributes:
        place: the folder or the archive, as messages name it.
        images: files whose suffix Pillow can open.
        tables: parquet files.
        others: all other files.
        folders: every folder, those without files too.
        hidden: the number of omitted files that are hidden, belong to the system, or are in such a folder.
        links: the number of links to a folder around them; they were not followed.
        inside: the folder that all paths are relative to, ``""`` or with a slash at its end.
        beside: files of an archive outside that folder, by their whole paths.
    """

    place: Path
    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    hidden: int = 0
    links: int = 0
    inside: str = ""
    archive: zipfile.ZipFile | None = None
    beside: list[str] = field(default_factory=list)

    def read(self, path: str) -> bytes:
        """The content of a file."""

        if self.archive is None:
            return read_bounded(self.shown(path), _LARGEST_IMAGE)
        size = self.archive.getinfo(self.inside + path).file_size
        if size > _LARGEST_IMAGE:
            raise InputError(
                f"{self.shown(path)} has {size_text(size)}, more than the limit of {size_text(_LARGEST_IMAGE)} for "
                "an image or a table of labels: remove it"
            )
        return self.archive.read(self.inside + path)

    def open_table(self, path: str) -> str | BinaryIO:
        """The source of a parquet file for pyarrow: its path, or its content inside an archive."""

        if self.archive is None:
            return self.shown(path)
        import io

        entry = self.archive.getinfo(self.inside + path)
        refuse_memory(entry.file_size, f"{self.shown(path)}, unpacked,", "unpack the archive and give the folder")
        return io.BytesIO(self.archive.read(entry))

    def shown(self, path: str = "") -> str:
        """A path with the place in front, as messages name it."""

        # Joined as text: it is asked for several times for each image, and a Path takes forty times as long.
        return self._before + path if path else str(self.place / self.inside)

    @cached_property
    def _before(self) -> str:
        """What a path begins with."""

        return str(self.place / self.inside / "_")[:-1]

    def below(self, folder: str) -> Tree:
        """The files under one folder."""

        start = f"{folder}/"

        def cut(paths: list[str]) -> list[str]:
            return [path.removeprefix(start) for path in paths if path.startswith(start)]

        return Tree(
            self.place,
            images=cut(self.images),
            tables=cut(self.tables),
            others=cut(self.others),
            folders=cut(self.folders),
            hidden=self.hidden,
            links=self.links,
            inside=self.inside + start,
            archive=self.archive,
        )

    def _add(self, path: str) -> None:
        suffix = os.path.splitext(path)[1].lower()
        is_image = suffix in _FREQUENT or suffix in _image_suffixes()
        (self.images if is_image else self.tables if suffix == _PARQUET else self.others).append(path)

    def _sort(self) -> Tree:
        for paths in (self.images, self.tables, self.others, self.folders):
            paths.sort()
        return self


def open_tree(place: Path) -> Tree:
    """The files under a folder, or in a zip archive.

    Raises:
        InputError: a link is broken, a folder cannot be entered, a name is not UTF-8, or the archive is damaged,
            encrypted, or unsafe.
    """

    if place.is_dir():
        tree = Tree(place)
        _walk(tree, place)
        return tree._sort()
    return _archive(place)


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder that are not hidden, sorted.

    Raises:
        InputError: it cannot be entered.
    """

    try:
        return sorted(name for name in os.listdir(folder) if not _is_hidden(name) and os.path.isdir(folder / name))
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be entered: {error.strerror}") from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM_FILES


def _walk(tree: Tree, place: Path) -> None:
    """Adds every file under a folder. Folders wait in a list, for they may be nested deeper than Python's stack."""

    waiting: list[_Waiting] = [(place, "", (os.path.realpath(place),))]
    while waiting:
        waiting += _entered(tree, *waiting.pop())


def _entered(tree: Tree, folder: Path, relative: str, around: tuple[str, ...]) -> list[_Waiting]:
    """Adds the files of one folder, and gives the folders in it."""

    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise InputError(f"the folder {folder} cannot be entered: {error.strerror}") from error

    folders: list[_Waiting] = []
    for entry in entries:
        if _is_hidden(entry.name):
            tree.hidden += 1
            continue
        path = relative + _text(entry.name, folder)
        is_link = entry.is_symlink()
        # An entry knows what it is. A link may lead to itself, for which only the functions of os.path do not raise.
        if os.path.isdir(entry.path) if is_link else entry.is_dir():
            real = os.path.realpath(entry.path) if is_link else os.path.join(around[-1], entry.name)
            if real in around:
                tree.links += 1
                continue
            tree.folders.append(path)
            folders.append((Path(entry.path), path + "/", (*around, real)))
        elif os.path.isfile(entry.path) if is_link else entry.is_file():
            tree._add(path)
        elif os.path.exists(entry.path):
            tree.others.append(path)
        else:
            raise InputError(f"the link {entry.path} is broken (to {os.readlink(entry.path)}): repair or remove it")
    return folders


def _text(name: str, folder: str | Path) -> str:
    """A name that can be printed and stored."""

    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{folder} holds the name {name!a}, which is not UTF-8: rename it") from error
    return name


def _archive(place: Path) -> Tree:
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"cannot read {place}: it is damaged, or not a zip archive ({error}): pack it again"
        ) from error

    tree, folders, seen = Tree(place, archive=archive), set(), set()
    for entry in archive.infolist():
        parts = entry.filename.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts or ":" in parts[0]:
            raise InputError(f"{place}: the entry {entry.filename!a} leads out of the archive: pack it again")
        parts = [part for part in parts if part not in ("", ".")]
        if any(_is_hidden(part) for part in parts):
            tree.hidden += not entry.is_dir()
            continue
        path = _text("/".join(parts), place)
        names = parts if entry.is_dir() else parts[:-1]
        folders |= {"/".join(names[: end + 1]) for end in range(len(names))}
        if entry.is_dir():
            continue
        if path in seen or path != entry.filename:
            raise InputError(f"{place}: the entry {entry.filename} occurs twice, or has an unusual path: pack it again")
        seen.add(path)
        tree._add(path)
        _check_entry(place, entry, path in tree.images[-1:] or path in tree.tables[-1:])
    tree.folders = list(folders)
    return tree._sort()


def _check_entry(place: Path, entry: zipfile.ZipInfo, is_used: bool) -> None:
    """Refuses an entry that is no plain file, or that would fill the memory."""

    if not is_used:
        return
    where = f"{place}: the entry {entry.filename}"
    if entry.flag_bits & _ENCRYPTED:
        raise InputError(f"{where} is encrypted: unpack the archive and give the folder")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(f"{where} is a link: pack the files themselves, with zip -r and without -y")
    # Deflate itself reaches 1,032 to 1; encoded images and tables hardly shrink at all.
    is_bomb = entry.file_size > _SMALL and entry.file_size > _LARGEST_RATIO * max(entry.compress_size, 1)
    if is_bomb or (entry.file_size > _LARGEST_IMAGE and not entry.filename.lower().endswith(_PARQUET)):
        raise InputError(
            f"{where} grows from {entry.compress_size:,} to {entry.file_size:,} bytes, which is too much for an "
            "image or a table: remove it"
        )
