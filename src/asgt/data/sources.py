"""Loads a data set: finds it, reads it according to its layout, and decodes the used images.

``folders`` reads folders of images, ``tables`` tables with a column of images, and ``split_decoding`` makes the
pixels.
"""

from __future__ import annotations

import math
import operator
import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..datasets import data_set
from ..errors import InputError, shown, unknown
from ..numbers import Number, number
from ..progress import SILENT, Progress
from ..randomness import seeded
from .image_decoding import INTERPOLATIONS, PixelOptions
from .images import Images, Splits, stratified
from .layouts import TableOptions, read_contents
from .parts import Contents, Part
from .pixel_cache import PixelCache, cache_folder
from .spelling import printable
from .split_decoding import DecodedSplit, Decoder

__all__ = ["load_data"]

_LARGEST_SIDE = 2**31
"""The largest side in pixels; Pillow counts them in 32 bits."""


def load_data(
    name: str | os.PathLike[str],
    *,
    limit: int | None = None,
    image_size: int | None = None,
    crop: Number | None = None,
    interpolation: str | None = None,
    grey: bool = False,
    rgb: bool = False,
    decode: str | None = None,
    pixel_range: tuple[float, float] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    data_config: str | None = None,
    train: bool = True,
    channels: int | None = None,
    place: str | None = None,
    cache: bool = True,
    progress: Progress = SILENT,
) -> Splits:
    """Loads a data set: a small one into memory, a large one into a file from which batches are gathered.

    A ``test`` split (or ``validation``, without a labelled one) is used as it is; without one, a stratified
    fifth of the images is set aside by a fixed draw, and its rows are returned.

    Args:
        name: a name of :data:`asgt.datasets.DATA_SETS`, as ``digits``, ``mnist`` or ``cifar10``, any hub id, or a
            folder or zip archive of parquet files or of images with a folder for each class, or a folder of
            ``save_to_disk``. With the environment variable ``ASGT_DATA=DIR``, names and hub ids are searched in
            ``DIR/name`` first.
        limit: the largest number of training images, a fixed stratified draw. Default: all.
        image_size: resize the short side to this many pixels and crop the centre. Default: unchanged.
        crop: the share of the resized side in the crop, in (0, 1]: the short side becomes ``image_size / crop``,
            rounded down, as in timm and torchvision. Default: 1.
        interpolation: ``bilinear`` (default), ``bicubic``, ``nearest``, ``lanczos``, ``box`` or ``hamming``.
        grey: convert all images to one channel. Default: one channel if all images are grey, else three (RGB).
        rgb: convert all images to three channels.
        decode: ``browser`` (default): EXIF orientation is applied and transparency is put on white; ``imagefolder``:
            neither, as in torchvision's ``ImageFolder``.
        pixel_range: the lowest and the highest value of images with 16 bits or of floats, which become 0 and 1.
            Default: that of the format, 0 to 65535 or 0 to 1.
        image_column: the column of the images, if a table has several.
        label_column: the column of the labels, if there are several candidates.
        data_config: the configuration of a hub data set, or the folder of one in a local folder.
        train: whether the training images are needed; otherwise they are not decoded if the test split is separate.
        channels: 1 or 3, as for a trained model. Default: by the images.
        place: an earlier absolute path of the data; it is used if ``name`` does not exist.
        cache: store decoded images of 4 MiB and more in ``$ASGT_CACHE`` (default: ``~/.cache/asgt``), so that the next
            call does not decode them. Those of more than 256 MiB are not read into memory but gathered from there,
            batch by batch. Without the cache, all images are in memory.
        progress: receives the number of decoded images.

    Returns:
        Images, uint8 (N, C, H, W), or float32 in [0, 1] if any image has more than 8 bits. If ``train`` is false
        and the test split is separate, the test images replace the training images.

    Raises:
        InputError: with the cause, the place, and the remedy.

    Example:
        >>> import asgt
        >>> digits = asgt.load_data("digits", limit=100)
        >>> digits.train.pixels.shape, digits.train.pixels.dtype
        (torch.Size([100, 1, 8, 8]), torch.uint8)
    """

    columns = TableOptions(image_column, label_column, data_config)
    _check_words(name=name, place=place, interpolation=interpolation, decode=decode, **vars(columns))
    if channels not in (None, 1, 3):
        raise InputError(f"channels = {channels!r}: give 1 or 3")
    name = os.fspath(name)
    crop = None if crop is None else number(crop, "crop")
    options = PixelOptions(
        image_size=image_size,
        crop=crop,
        interpolation=interpolation or "bilinear",
        grey=grey,
        rgb=rgb,
        decode=decode or "browser",
        pixel_range=pixel_range,
    )
    _check(limit, options, interpolation)
    options = _plain(options)
    known = data_set(name)
    if name == known.name and known.loader is not None:
        if options != PixelOptions() or columns != TableOptions() or interpolation or decode:
            raise InputError(
                f"{name}, {known.title}, are used unchanged: remove --image-size, --grey, --label-column and all "
                "other options of reading images"
            )
        images = Images(*known.loader())
        train_rows, test_rows = stratified(images.labels, 0.2, "test split")
        indices = {"train": train_rows, "test": test_rows}
        return _limited(Splits(name, images[train_rows], images[test_rows], indices), limit)

    try:
        contents = read_contents(name, columns, place)
        folder = cache_folder() if cache else None
        kept = None if folder is None else PixelCache(folder, printable(name), progress)
        return _read(name, contents, limit, Decoder(name, options, channels, progress, kept), train)
    except InputError as error:
        # Names of files and classes are other people's, and may hold what a terminal obeys.
        raise type(error)(printable(str(error))) from error.__cause__


def _check_words(**words: Any) -> None:
    for what, value in words.items():
        if value is not None and not isinstance(value, (str, os.PathLike) if what in ("name", "place") else str):
            raise InputError(f"{what} = {value!r}: give a string")


def _plain(options: PixelOptions) -> PixelOptions:
    """The same with numbers of Python: those of NumPy have no text in a key of the cache."""

    ends = options.pixel_range
    return replace(
        options,
        image_size=None if options.image_size is None else operator.index(options.image_size),
        crop=None if options.crop is None else float(options.crop),
        grey=bool(options.grey),
        rgb=bool(options.rgb),
        pixel_range=None if ends is None else (float(ends[0]), float(ends[1])),
    )


def _check(limit: int | None, options: PixelOptions, interpolation: str | None) -> None:
    for what, value in (("limit", limit), ("image_size", options.image_size)):
        try:
            operator.index(0 if value is None else value)
        except TypeError as error:
            raise InputError(f"{what} = {value!r}: give a whole number") from error
    if limit is not None and limit < 2:
        raise InputError(f"limit = {limit}: give at least two")
    if options.image_size is not None and options.image_size < 1:
        raise InputError(f"image_size = {shown(options.image_size)}: give the side in pixels, from 1 on")
    if options.crop is not None and not (_is_real(options.crop) and 0 < options.crop <= 1):
        raise InputError(f"crop = {options.crop!r}: give the share of the side to keep, above 0 and at most 1")
    if options.image_size is None and (options.crop is not None or interpolation is not None):
        raise InputError("crop and interpolation have no effect without image_size: also give --image-size N")
    if options.image_size is not None and options.image_size >= _LARGEST_SIDE * (options.crop or 1):
        short = f"image_size = {shown(options.image_size)}" + (
            "" if options.crop is None else f", crop = {options.crop}"
        )
        raise InputError(
            f"{short}: images are resized to less than {_LARGEST_SIDE:,} pixels per side: give a smaller size"
        )
    if options.interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", options.interpolation, INTERPOLATIONS)
    if options.decode not in ("browser", "imagefolder"):
        raise unknown("decode", options.decode, ("browser", "imagefolder"))
    if options.grey and options.rgb:
        raise InputError("--grey and --rgb exclude each other: remove one of them")
    if options.pixel_range is not None:
        ends: Any = options.pixel_range
        is_pair = isinstance(ends, (tuple, list)) and len(ends) == 2 and all(map(_is_real, ends))
        if not is_pair or not ends[0] < ends[1]:
            raise InputError(f"pixel_range = {ends!r}: give the lowest value first, then the highest, as 0,4095")


def _is_real(value: Any) -> bool:
    try:
        return not isinstance(value, (str, bytes)) and math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return False


def _limited(splits: Splits, limit: int | None) -> Splits:
    if limit is None or limit >= len(splits.train):
        return splits
    return replace(splits, train=splits.train[_share(splits.train.labels, limit)])


def _share(labels: Tensor, limit: int) -> Tensor:
    """A stratified choice of at most ``limit`` rows."""

    rows = stratified(labels, limit / len(labels), "limit")[1]
    if len(rows) > limit:
        # A row of each class, and each class's share rounded, can come to more.
        rows = rows[torch.randperm(len(rows), generator=seeded("limit", "excess"))[:limit]].sort().values
    return rows


def _read(name: str, contents: Contents, limit: int | None, decoder: Decoder, train: bool) -> Splits:
    """Decodes the rows in use: a thousand images of a million cost a thousand."""

    if contents.train is None and train:
        assert contents.test is not None
        raise InputError(
            f"{name} has the split {contents.test.name} and none to train on: use it for evaluation, or "
            "add training images"
        )
    rows, indices = _rows(name, contents, limit)
    parts: dict[str, Part | None] = {"train": contents.train, "test": contents.test or contents.train}
    wanted = ["train", "test"] if train else ["test"]
    decoder.start(sum(len(rows[split]) for split in wanted))

    def decoded(split: str) -> DecodedSplit:
        part = parts[split]
        assert part is not None
        return decoder.decode(part, rows[split].tolist())

    splits = {split: decoded(split) for split in wanted}
    if decoder.is_dark and not train and parts["train"] is not None:
        # Whether 16 bits are in use, all images tell, whatever part of them is wanted.
        decoded("train")
    decoder.check_range()
    pixels = decoder.alike(splits)

    sets = {}
    for split in wanted:
        part = parts[split]
        assert part is not None
        sets[split] = Images(pixels[split], part.labels[rows[split]], contents.classes)
    notes = [printable(note) for note in (*contents.notes, *decoder.notes())]
    ignored = [printable(text) for text in contents.reading["ignored"]]
    reading = contents.reading | {
        "ignored": ignored,
        "decode": decoder.options.decode,
        "changed": dict(decoder.changed),
    }
    return Splits(name, sets.get("train", sets["test"]), sets["test"], indices, tuple(notes), reading)


def _rows(name: str, contents: Contents, limit: int | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The rows in use of each split, and those that were drawn where the data has no test split."""

    first = contents.train or contents.test
    assert first is not None
    present = first.labels.unique()
    if len(present) < 2:
        only = contents.classes[int(present[0])] if len(present) else "none"
        raise InputError(f"{name} ({first.name}) has only one class, {only!r}: use at least two")

    indices: dict[str, Tensor] = {}
    rows = {split: torch.arange(0 if p is None else len(p.labels)) for split, p in _named(contents).items()}
    if contents.test is None:
        rows = indices = dict(zip(("train", "test"), stratified(first.labels, 0.2, "test split"), strict=True))
        if len(rows["test"]) == 0:
            raise InputError(f"{name} has one image per class: without a test split, give every class at least two")
    if limit is not None and limit < len(rows["train"]):
        rows = rows | {"train": rows["train"][_share(first.labels[rows["train"]], limit)]}
    return rows, dict(indices)


def _named(contents: Contents) -> dict[str, Part | None]:
    return {"train": contents.train, "test": contents.test}
