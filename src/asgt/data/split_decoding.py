"""Decodes all images of a split once: on every core, into memory or into the cache.

A small set is decoded into memory. A larger one uses the cache (:mod:`asgt.data.pixel_cache`): its key is the
SHA-256 of every encoded image and of all decoding options, so a changed file is decoded again. Files whose system
metadata are unchanged since they were hashed are not read again.

Cached images are read into memory if they are not large, and otherwise gathered batch by batch
(:mod:`asgt.data.stored_pixels`). The pixels are the same in all cases.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..capacity import size_text
from ..errors import DamagedFileError, InputError
from ..progress import Progress
from .folders import counted
from .image_decoding import DecodedImage, PixelOptions, check_memory, decoded
from .lazy_pixels import to_unit, value_counts
from .parts import Part
from .pixel_cache import Entry, PixelCache
from .stored_pixels import PixelFile, StoredPixels, checksum

__all__ = ["DecodedSplit", "Decoder"]

_Array: TypeAlias = np.ndarray[Any, Any]
Cell: TypeAlias = tuple[Callable[[], bytes], str]
"""A function that reads an encoded image, and its place."""

_FORMAT = "asgt decoded images 1"
"""Part of every key: a new number invalidates all entries."""

CACHED = 2**22
"""The size in bytes of a split's decoded images from which on they are cached."""
IN_MEMORY = 2**28
"""The size in bytes of a split's decoded images up to which they are read into memory."""

_SETTLED = 2.0
"""Seconds: a file that was changed just now may be changed again without a later time of change."""

_SMALLER = "use a smaller --image-size or --limit"

_PER_TASK, _AHEAD = 16, 4
"""The number of images in a task of a thread, and of waiting tasks for each thread."""


@dataclass
class DecodedSplit:
    """The images of a split, all of one size.

    Attributes:
        pixels: (N, C, H, W), uint8 or float32, with three channels if any image has colour.
        sizes: the number of images of each height and width; with several sizes, ``pixels`` is incomplete.
        changed: the number of images with each change.
        kinds: for each kind of more than 8 bits, the index of its first image in the split.
        largest: the largest value of images of 16 bits, its share of their range, and its index in the split.
    """

    pixels: _Array | PixelFile | None = None
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, int] = field(default_factory=dict)
    largest: tuple[float, float, int] = (0.0, 0.0, 0)

    def add(self, place: int, image: DecodedImage) -> None:
        """Records the notes on image number ``place``."""

        self.sizes[image.pixels.shape[0], image.pixels.shape[1]] += 1
        self.changed.update(image.changed)
        if image.kind:
            self.kinds.setdefault(image.kind, place)
        if image.share > self.largest[1]:
            self.largest = (image.largest, image.share, place)

    def said(self) -> dict[str, Any]:
        """The notes as plain values."""

        return {"changed": dict(self.changed), "kinds": self.kinds, "largest": list(self.largest)}

    @classmethod
    def of(cls, file: PixelFile, said: dict[str, Any]) -> DecodedSplit:
        """A split in the cache."""

        count, _, height, width = file.pixels.shape
        value, share, place = said["largest"]
        return cls(
            file,
            Counter({(height, width): count}),
            Counter(said["changed"]),
            dict(said["kinds"]),
            (value, share, place),
        )

    @property
    def has_colour(self) -> bool:
        return self.pixels is not None and self._array.shape[1] == 3

    @property
    def is_deep(self) -> bool:
        return self.pixels is not None and self._array.dtype == np.float32

    @property
    def _array(self) -> _Array:
        assert self.pixels is not None
        return self.pixels.pixels if isinstance(self.pixels, PixelFile) else self.pixels


class Decoder:
    """Decodes the images of a data set to one shape and one type.

    Args:
        name: of the data, for messages.
        options: the options of decoding.
        channels: 1 or 3, as for a trained model.
        progress: receives the number of decoded images.
        cache: the cache; ``None`` decodes into memory.
    """

    def __init__(
        self, name: str, options: PixelOptions, channels: int | None, progress: Progress, cache: PixelCache | None
    ) -> None:
        self.name = name
        self.options = options
        self.channels = 3 if options.rgb else channels
        self.progress = progress
        self.cache = cache
        self.splits: list[tuple[DecodedSplit, Part, Sequence[int]]] = []
        self._count = 0
        self._fits = 0  # bytes that are known to fit into the memory

    def start(self, count: int) -> None:
        """Announces the number of images."""

        self._count = count
        self.progress.start(f"reading {self.name}", count)

    def decode(self, part: Part, rows: Sequence[int]) -> DecodedSplit:
        """Some images of a split, at least one.

        Raises:
            InputError: an image cannot be read, or its pixels are invalid.
        """

        with warnings.catch_warnings():
            # Pillow warns of large images, odd palettes and damaged EXIF; what it cannot read, it raises.
            warnings.simplefilter("ignore")
            split = self._decoded(part, rows)
        self.splits.append((split, part, rows))
        return split

    @property
    def changed(self) -> Counter[str]:
        """The number of images with each change."""

        return sum((split.changed for split, _, _ in self.splits), Counter[str]())

    @property
    def is_dark(self) -> bool:
        """Whether images of 16 bits use less than half of their range, though the user stated none."""

        has_16_bits = any("16 bits" in split.kinds for split, _, _ in self.splits)
        return self.options.pixel_range is None and has_16_bits and self._largest()[1] < 0.5

    def check_range(self) -> None:
        """Refuses an invalid range after all images were decoded.

        Raises:
            InputError: 16-bit images that use less than half of their range, or a range that does not match the
                images.
        """

        self.progress.stop()
        kinds: dict[str, str] = {}
        for split, part, rows in self.splits:
            for kind, place in split.kinds.items():
                kinds.setdefault(kind, _where(part, rows, place))
        if self.is_dark:
            value, share, where = self._largest()
            full = round(value / share) if share else 65535
            bits = max(int(value).bit_length(), 1)
            raise InputError(
                f"{where or kinds['16 bits']}: the largest value of all images is {value:.0f} of {full}: give "
                f"--pixel-range 0,{2**bits - 1} for {bits}-bit data, 0,{full} for other data, or save them with 8 "
                "bits per channel"
            )
        if self.options.pixel_range is not None and not kinds:
            raise InputError(f"{self.name} has images of 8 bits only: remove --pixel-range")
        if self.options.pixel_range is not None and len(kinds) > 1:
            (kind, where), (other_kind, elsewhere) = list(kinds.items())[:2]
            raise InputError(
                f"{where} has {kind} and {elsewhere} has {other_kind}: one --pixel-range cannot match both: "
                "convert one kind"
            )

    def alike(self, splits: dict[str, DecodedSplit]) -> dict[str, Tensor | StoredPixels]:
        """Pixels (N, C, H, W) of each split: grey if every image is grey, else RGB; float32 if any image is, else
        uint8.

        Raises:
            InputError: images differ in size.
        """

        sizes = sum((split.sizes for split in splits.values()), Counter[tuple[int, int]]())
        if len(sizes) > 1:
            listed = ", ".join(f"{height}×{width}" for (height, width), _ in sizes.most_common(3))
            raise InputError(f"{self.name} has images of {len(sizes)} sizes ({listed}, …): give --image-size N")

        channels = 3 if self.channels == 3 or any(split.has_colour for split in splits.values()) else 1
        deep = any(split.is_deep for split in splits.values())
        pixels: dict[str, Tensor | StoredPixels] = {}
        for name, split in splits.items():
            assert split.pixels is not None
            if isinstance(split.pixels, PixelFile):
                pixels[name] = StoredPixels(split.pixels, channels=channels, floats=deep)
            else:
                pixels[name] = torch.from_numpy(_widened(split.pixels, channels, deep))
        return pixels

    def notes(self) -> list[str]:
        """Sentences on the number of images with each change."""

        return [f"{counted(count, 'image')}: {what}" for what, count in sorted(self.changed.items())]

    def _largest(self) -> tuple[float, float, str]:
        """The largest value of images of 16 bits, its share of their range, and the image."""

        split, part, rows = max(self.splits, key=lambda each: each[0].largest[1])
        value, share, place = split.largest
        return value, share, _where(part, rows, place) if share else ""

    # Where the pixels go ----------------------------------------------------------------------------------------------

    def _decoded(self, part: Part, rows: Sequence[int]) -> DecodedSplit:
        if self.cache is None:
            return self._into(part, rows, self._memory(len(rows)))
        known = self._known(part, rows)
        if known.key is not None and (found := self._found(known.key)) is not None:
            self.progress.advance(len(rows))
            return found
        ((read, where),) = part.cells(rows[:1])
        size = len(rows) * decoded(read, where, self.options, self._refuse_large).pixels.nbytes
        if size < CACHED:
            return self._into(part, rows, self._memory(len(rows)))

        key = self._key(part, rows, known)
        if (found := self._found(key)) is not None:
            self.progress.advance(len(rows))
            return found
        try:
            with self.cache.alone(key):
                # Another process may have decoded them meanwhile.
                if (found := self._found(key)) is None:
                    split = self._built(key, part, rows)
                    if len(split.sizes) > 1:
                        return split
                    found = self._found(key)
        except OSError as error:
            self.progress.warn(
                f"{size_text(size)} of decoded images cannot be cached in {self.cache.folder} "
                f"({error.strerror or error}), and are held in memory: set ASGT_CACHE to another folder"
            )
            found = None
        return found if found is not None else self._into(part, rows, self._memory(len(rows)))

    def _found(self, key: str) -> DecodedSplit | None:
        """What the cache holds; what is to be read into memory is read at once, so that it is made anew if damaged."""

        assert self.cache is not None
        if (found := self.cache.find(key)) is None:
            return None
        split = DecodedSplit.of(*found)
        file, _ = found
        if file.pixels.nbytes <= IN_MEMORY:
            split.pixels = np.empty(file.pixels.shape, dtype=file.pixels.dtype)
            try:
                file.gather(np.arange(len(file.pixels)), split.pixels)
            except DamagedFileError:
                self.progress.warn(f"{file.name} is damaged and was removed: the images are decoded again")
                return None
        return split

    def _built(self, key: str, part: Part, rows: Sequence[int]) -> DecodedSplit:
        """Decodes images into an entry of the cache."""

        cache = self.cache
        assert cache is not None
        try:
            target = _InCache(lambda shape, kind: cache.build(key, shape, kind), len(rows))
            split = self._into(part, rows, target)
            if len(split.sizes) == 1:
                assert target.entry is not None
                cache.finish(key, target.entry, split.said())
            return split
        finally:
            cache.abandon(key)

    def _memory(self, count: int) -> _InMemory:
        def check(size: int, shape: tuple[int, ...]) -> None:
            # The splits of a data set are decoded one after the other.
            every = size * max(self._count, count) // count
            if every > self._fits:
                sides = " × ".join(map(str, shape[2:]))
                what = f"{self.name}: {self._count:,} images of {sides} pixels"
                check_memory(what, every, _SMALLER)
                self._fits = every

        return _InMemory(check, count)

    def _into(self, part: Part, rows: Sequence[int], target: _Target) -> DecodedSplit:
        """Decodes images into a target, in their order, on every core."""

        split = DecodedSplit()

        def several(first: int, cells: list[Cell]) -> _Some:
            images = [decoded(*cell, self.options, self._refuse_large) for cell in cells]
            return target.written(first, images)

        for some in _on_all_cores(several, part.cells(rows), len(rows)):
            for place, image in enumerate(some.images, some.first):
                split.add(place, image)
            # Where sizes differ, the images are refused; all sizes are told.
            if len(split.sizes) == 1:
                target.take(some)
            self.progress.advance(len(some.images))
        split.pixels = target.pixels
        return split

    def _refuse_large(self, mode: str, one: int, each: int) -> None:
        """Refuses a size at which one image, or all of them, would not fit into the memory."""

        every = self._count * each
        if every <= self._room:
            every = 0
        # A picture is there twice while it is resized.
        if max(2 * one, every) > self._fits:
            what = f"image_size = {self.options.image_size}: {self._count:,} images of mode {mode}"
            check_memory(what, max(2 * one, every), _SMALLER)
            self._fits = max(2 * one, every)

    @cached_property
    def _room(self) -> int:
        """Bytes that the cache has room for."""

        return 0 if self.cache is None else self.cache.room()

    def _known(self, part: Part, rows: Sequence[int]) -> _Known:
        """What the cache knows of images without a look into their files."""

        assert self.cache is not None
        began, standing = time.time(), _standing(part, rows)
        if standing is None:
            return _Known(began)
        seen = hashlib.sha256(f"{self._asked} {standing}".encode()).hexdigest()
        return _Known(began, standing, seen, self.cache.seen(seen))

    @cached_property
    def _asked(self) -> str:
        """What decides on the pixels beside the encoded images."""

        import PIL

        told = {"format": _FORMAT, "pillow": PIL.__version__, "options": asdict(self.options)}
        return json.dumps(told, sort_keys=True)

    def _key(self, part: Part, rows: Sequence[int], known: _Known) -> str:
        """The name of what decoding these images gives."""

        if known.key is not None:
            return known.key
        assert self.cache is not None
        sha = hashlib.sha256(self._asked.encode())
        # Reading and hashing a file takes so little time that threads would only wait for each other.
        for read, _ in part.cells(rows):
            sha.update(hashlib.sha256(read()).digest())
        if known.seen is not None and known.standing == _standing(part, rows, before=known.began - _SETTLED):
            self.cache.note_seen(known.seen, sha.hexdigest())
        return sha.hexdigest()


@dataclass(frozen=True)
class _Known:
    """What is known of images without a look into their files.

    Attributes:
        began: when they were looked at, in seconds.
        standing: what the file system says of their files (:func:`_standing`).
        seen: its digest, with what decides on the pixels.
        key: the key of the images with it; ``None`` if unknown.
    """

    began: float
    standing: str | None = None
    seen: str | None = None
    key: str | None = None


def _standing(part: Part, rows: Sequence[int], before: float | None = None) -> str | None:
    """What the file system says of the files that hold some images, which changes whenever one of them does.

    The time of the last change of a file (ctime) is the system's own: unlike that of its content, no program sets it.

    Args:
        part: the split.
        rows: of it.
        before: a time before which all files must have been changed last. Default: any.

    Returns:
        A text; ``None`` where files do not tell, or one of them was changed later.
    """

    if part.files is None:
        return None
    told: list[str] = []
    stands: dict[str, str] = {}
    for path, inside in part.files(rows):
        if path not in stands:
            try:
                stat = os.stat(path)
            except OSError:  # reading it says what is wrong
                return None
            if before is not None and stat.st_ctime > before:
                return None
            times = f"{stat.st_mtime_ns} {stat.st_ctime_ns}"
            stands[path] = f"{path} {stat.st_dev} {stat.st_ino} {stat.st_size} {times}"
        told.append(f"{stands[path]} {inside}")
    return "\n".join(told)


class _Room(Protocol):
    """The place of all images (N, C, H, W); threads write to different parts of it."""

    pixels: _Array

    def write(self, first: int, images: _Array) -> None: ...


@dataclass
class _Memory:
    pixels: _Array

    def write(self, first: int, images: _Array) -> None:
        self.pixels[first : first + len(images)] = images


@dataclass(frozen=True)
class _Some:
    """A few images in their order, decoded by one thread.

    Attributes:
        first: the place of the first one.
        images: decoded.
        planes: the same as (C, H, W), in one array where they are alike.
        into: where the thread has written them; ``None`` where they did not fit.
        checksums: of each, where they are asked for.
        counts: how often each value occurs in them, by channel; ``None`` where it is not asked for.
    """

    first: int
    images: list[DecodedImage]
    planes: list[_Array] | _Array
    into: _Room | None = None
    checksums: tuple[int, ...] = ()
    counts: _Array | None = None


class _Target(ABC):
    """Takes decoded images (C, H, W), and becomes wider when one needs it: three channels, or floats."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.room: _Room | None = None

    @property
    def pixels(self) -> _Array | None:
        """All images; ``None`` before the first."""

        return None if self.room is None else self.room.pixels

    def written(self, first: int, images: list[DecodedImage]) -> _Some:
        """Writes images to their places, if they have the size of the earlier ones; any thread may call it."""

        planes, room = _planes([image.pixels for image in images]), self.room
        if room is None or isinstance(planes, list) or not _is_like(planes, room.pixels):
            return _Some(first, images, planes)
        room.write(first, planes)
        return self.noted(_Some(first, images, planes, room))

    def take(self, some: _Some) -> None:
        """Writes images after all earlier ones."""

        # What was written before the target became wider is not in it.
        if some.into is None or some.into is not self.room:
            room = self._wide_enough(some)
            channels, deep = room.pixels.shape[1], room.pixels.dtype == np.float32
            planes = np.concatenate([_widened(each[None], channels, deep) for each in some.planes])
            room.write(some.first, planes)
            some = self.noted(replace(some, planes=planes))
        self.note(some)

    def _wide_enough(self, some: _Some) -> _Room:
        """The room for all images, in which those before ``some`` are, as wide as these need it."""

        before = self.room
        there = [*some.planes] if before is None else [*some.planes, before.pixels[0]]
        channels, deep = max(each.shape[0] for each in there), any(each.dtype == np.float32 for each in there)
        if before is not None and (channels, deep) == (before.pixels.shape[1], before.pixels.dtype == np.float32):
            return before
        _, height, width = some.planes[0].shape
        wider = self.make((self.count, channels, height, width), "float32" if deep else "uint8")
        for first in range(0, some.first, _PER_TASK):
            assert before is not None
            planes = _widened(before.pixels[first : min(first + _PER_TASK, some.first)], channels, deep)
            wider.write(first, planes)
            self.note(self.noted(_Some(first, [], planes)))
        self.room = wider
        return wider

    @abstractmethod
    def make(self, shape: tuple[int, int, int, int], kind: str) -> _Room:
        """Reserves the room for all images."""

    def noted(self, some: _Some) -> _Some:
        """Images with their notes."""

        return some

    def note(self, some: _Some) -> None:
        """Records it; does nothing without a consumer."""

        return


class _InMemory(_Target):
    def __init__(self, check: Callable[[int, tuple[int, ...]], None], count: int) -> None:
        super().__init__(count)
        self._check = check

    def make(self, shape: tuple[int, int, int, int], kind: str) -> _Room:
        self._check(int(np.prod(shape)) * np.dtype(kind).itemsize, shape)
        return _Memory(np.empty(shape, dtype=kind))


class _InCache(_Target):
    def __init__(self, build: Callable[[tuple[int, int, int, int], str], Entry], count: int) -> None:
        super().__init__(count)
        self._build = build
        self.entry: Entry | None = None

    def make(self, shape: tuple[int, int, int, int], kind: str) -> _Room:
        self.entry = self._build(shape, kind)
        return self.entry

    def noted(self, some: _Some) -> _Some:
        counts = None
        if some.planes[0].dtype == np.uint8:
            counts = value_counts(torch.from_numpy(np.asarray(some.planes))).numpy()
        return replace(some, checksums=tuple(map(checksum, some.planes)), counts=counts)

    def note(self, some: _Some) -> None:
        assert self.entry is not None
        self.entry.checksums[some.first : some.first + len(some.planes)] = some.checksums
        if some.counts is not None and self.entry.counts is not None:
            self.entry.counts += some.counts


def _on_all_cores(work: Callable[[int, list[Cell]], _Some], cells: Iterable[Cell], count: int) -> Iterator[_Some]:
    """What a function gives for a few cells each, in their order; Pillow lets other threads run beside it."""

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    tasks = _few(cells)
    if cores == 1 or count <= _PER_TASK:
        yield from (work(first, some) for first, some in tasks)
        return

    waiting: deque[Future[_Some]] = deque()
    pool = ThreadPoolExecutor(cores, thread_name_prefix="asgt-decoding")
    try:
        for first, some in tasks:
            waiting.append(pool.submit(work, first, some))
            if len(waiting) > _AHEAD * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _few(cells: Iterable[Cell]) -> Iterator[tuple[int, list[Cell]]]:
    """Cells in groups for a thread each, with the place of the first one."""

    places, rest = itertools.count(0, _PER_TASK), iter(cells)
    while some := list(itertools.islice(rest, _PER_TASK)):
        yield next(places), some


def _planes(images: list[_Array]) -> list[_Array] | _Array:
    """Images (H, W) or (H, W, 3) as (C, H, W), in one array (n, C, H, W) where they are alike."""

    planes = [image[None] if image.ndim == 2 else image.transpose(2, 0, 1) for image in images]
    if len({(each.shape, each.dtype) for each in planes}) > 1:
        return [np.ascontiguousarray(each) for each in planes]
    block = np.empty((len(planes), *planes[0].shape), dtype=planes[0].dtype)
    for place, each in enumerate(planes):
        block[place] = each
    return block


def _is_like(planes: _Array, pixels: _Array) -> bool:
    """Whether images have the shape and the type of others."""

    return bool(planes.shape[1:] == pixels.shape[1:] and planes.dtype == pixels.dtype)


def _widened(pixels: _Array, channels: int, deep: bool) -> _Array:
    """Images (N, C, H, W) with so many channels, and as floats where they are to be."""

    if deep and pixels.dtype != np.float32:
        # The same rounding as 8-bit images get when they become a batch.
        pixels = to_unit(torch.from_numpy(np.ascontiguousarray(pixels))).numpy()
    return pixels if pixels.shape[1] == channels else np.repeat(pixels, channels, axis=1)


def _where(part: Part, rows: Sequence[int], place: int) -> str:
    """Where an image of a split lies, for messages."""

    ((_, where),) = part.cells([rows[place]])
    return where
