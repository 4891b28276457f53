"""Where images come from: the embedded digits, a hub, or a folder.

Everything but the digits goes through the ``datasets`` library; the columns are found by their type, not their name,
and the images are decoded here, so that a file that cannot be read is named.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, unknown
from ..names import HUB, short_name
from ..progress import SILENT, Progress
from ..randomness import seeded
from .images import Images, Splits, stratified

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["load_data"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
_TEST_SPLITS = ("test", "validation", "valid", "val")


def load_data(
    name: str,
    *,
    limit: int | None = None,
    image_size: int | None = None,
    grey: bool = False,
    label_column: str | None = None,
    train: bool = True,
    channels: int | None = None,
    progress: Progress = SILENT,
) -> Splits:
    """Loads a data set into memory.

    A ``test`` split (or ``validation``, where there is none) is used as it is; without one, a stratified fifth of the
    images is set aside, always the same, and its rows are returned.

    Args:
        name: ``digits`` (scikit-learn's 1,797 real 8×8 digits, embedded), ``mnist``, ``cifar10``, any hub id, or a
            folder of parquet files or of images in a folder a class. With the environment variable ``ASGT_DATA=DIR``,
            names and hub ids are looked for in ``DIR/name`` first.
        limit: take at most so many training images, stratified and always the same. Default: all.
        image_size: resize the short side to this many pixels and crop the centre. Default: as they are.
        grey: turn everything to one channel. Default: one where all images are grey, else three (RGB).
        label_column: the column of the labels, where several could be meant.
        train: whether the training images are needed; where the test split is separate, they are not decoded if not.
        channels: 1 or 3, as a trained model has it. Default: by the images.
        progress: is told how many images were decoded.

    Raises:
        InputError: with what is wrong, where, and how to mend it.
    """

    if limit is not None and limit < 2:
        raise InputError(f"limit = {limit}: training takes at least two images")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size = {image_size}: the side is a number of pixels")

    if name == "digits":
        if image_size is not None or grey or label_column is not None:
            raise InputError("digits are 8×8 and grey as they are: leave --image-size, --grey and --label-column out")
        images, indices = _digits(), {}
        train_rows, test_rows = stratified(images.labels, 0.2, "test split")
        indices = {"train": train_rows, "test": test_rows}
        splits = Splits(name, images[train_rows], images[test_rows], indices)
        return _limited(splits, limit)

    tables = _tables(name)
    columns = _columns(name, tables, label_column)
    return _read(name, tables, columns, limit, _Decoder(name, image_size, grey, channels, progress), train)


def _digits() -> Images:
    from sklearn.datasets import load_digits

    data = load_digits()
    # 17 levels of ink, 0 to 16.
    pixels = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    return Images(pixels, torch.from_numpy(data.target.astype(np.int64)), tuple(str(n) for n in range(10)))


def _limited(splits: Splits, limit: int | None) -> Splits:
    if limit is None or limit >= len(splits.train):
        return splits
    return Splits(splits.name, splits.train[_share(splits.train.labels, limit)], splits.test, splits.indices)


def _share(labels: Tensor, limit: int) -> Tensor:
    """A stratified choice of at most ``limit`` rows."""

    rows = stratified(labels, limit / len(labels), "limit")[1]
    if len(rows) > limit:
        # A row of each class, and each class's share rounded, can come to more.
        rows = rows[torch.randperm(len(rows), generator=seeded("limit", "excess"))[:limit]].sort().values
    return rows


def _tables(name: str) -> dict[str, Any]:
    """The splits of a data set as tables of the ``datasets`` library, images not yet decoded."""

    source = _source(name)

    import datasets

    with _quiet(datasets):
        try:
            if isinstance(source, Path) and not _holds(source, {".parquet"}):
                if not _holds(source, _SUFFIXES):
                    raise InputError(f"{source} holds no images and no parquet files")
                tables = datasets.load_dataset("imagefolder", data_dir=str(source), drop_labels=False)
            else:
                tables = datasets.load_dataset(str(source))
        except InputError:
            raise
        except ConnectionError as error:
            raise InputError(
                f"{name}: the hub cannot be reached; set ASGT_DATA=DIR to a folder that holds DIR/{name.split('/')[-1]}"
            ) from error
        except datasets.exceptions.DatasetNotFoundError as error:
            near = unknown("data set", name, ["digits", *HUB])
            raise InputError(f"{near}, a hub id, or a folder (there is none of that name here)") from error
        except Exception as error:  # every builder has errors of its own: parquet, metadata, a script that is refused
            cause = error.__cause__ or error
            raise InputError(f"cannot read {source}: {str(cause).strip().splitlines()[0][:200]}") from error

    return dict(tables)


def _source(name: str) -> Path | str:
    """The folder or hub id that a name stands for."""

    if not name:
        raise InputError("the name of the data is empty: --data takes a data set or a folder")
    short = name.split("/")[-1]
    by_id = short_name(name)
    # What looks like a path is one, and no name to look up: the hub's ids have one slash and no leading dot.
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")

    if (root := os.environ.get("ASGT_DATA")) and not is_path:
        if not Path(root).is_dir():
            raise InputError(f"ASGT_DATA={root}: there is no such folder")
        for candidate in (name, by_id, short):
            if (Path(root) / candidate).is_dir():
                return Path(root) / candidate

    if Path(name).is_dir():
        return Path(name)
    if Path(name).exists():
        raise InputError(f"{name} is a file: --data takes a folder")
    if name in HUB:
        return HUB[name]
    if is_path:
        raise InputError(f"there is no folder {name}")
    if "/" not in name:
        raise InputError(
            f"{unknown('data set', name, ['digits', *HUB])}, a hub id, or a folder (none of that name here)"
        )
    return name


def _holds(folder: Path, suffixes: set[str]) -> bool:
    return any(file.suffix.lower() in suffixes for file in folder.rglob("*") if file.is_file())


def _columns(name: str, tables: dict[str, Any], label_column: str | None) -> tuple[str, str]:
    """The image and the label column, by type."""

    import datasets

    features = next(iter(tables.values())).features
    images = [column for column, feature in features.items() if isinstance(feature, datasets.Image)]
    if not images:
        raise InputError(f"{name} has no column of images; it has {', '.join(features)}")
    if len(images) > 1:
        raise InputError(f"{name} has {len(images)} columns of images ({', '.join(images)}): keep one")

    if label_column is not None:
        if label_column not in features:
            raise unknown("label column", label_column, [column for column in features if column not in images])
        labels = [label_column]
    else:
        labels = [column for column, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
        plain = {c: f.dtype for c, f in features.items() if isinstance(f, datasets.Value)}
        for kinds in (("int", "uint", "bool"), ("string", "large_string")):
            labels = labels or [column for column, dtype in plain.items() if dtype.startswith(kinds)]
        if not labels:
            real = [column for column, dtype in plain.items() if dtype.startswith(("float", "double", "decimal"))]
            if real:
                raise InputError(f"{name}: the labels in {real[0]!r} are real numbers; a classifier needs classes")
            raise InputError(
                f"{name} has no column of labels: put the images in a folder a class, or name --label-column"
            )
    if len(labels) > 1:
        raise InputError(f"{name} has several columns of labels ({', '.join(labels)}): name one by --label-column")

    feature = features[labels[0]]
    if isinstance(feature, datasets.Value) and feature.dtype.startswith(("float", "double", "decimal")):
        raise InputError(f"{name}: the labels in {labels[0]!r} are real numbers; a classifier needs classes")
    return images[0], labels[0]


def _read(
    name: str,
    tables: dict[str, Any],
    columns: tuple[str, str],
    limit: int | None,
    decoder: _Decoder,
    train: bool,
) -> Splits:
    import datasets

    image_column, label_column = columns
    train_name = "train" if "train" in tables else next(iter(tables))
    test_name = next((split for split in _TEST_SPLITS if split in tables and split != train_name), None)

    classes, labels = _labels(name, tables, label_column, [split for split in (train_name, test_name) if split])
    present = labels[train_name].unique()
    if len(present) < 2:
        only = classes[int(present[0])] if len(present) else "none"
        raise InputError(f"{name} ({train_name}) has only one class, {only!r}: a classifier needs at least two")
    rows = {split: torch.arange(len(labels[split])) for split in labels}
    indices: dict[str, Tensor] = {}
    source = {"train": train_name, "test": test_name or train_name}

    if test_name is None:
        rows_of = dict(zip(("train", "test"), stratified(labels[train_name], 0.2, "test split"), strict=True))
        indices = dict(rows_of)
        if len(rows_of["test"]) == 0:
            raise InputError(f"{name} has one image a class: without a test split, a class needs at least two")
    else:
        rows_of = {"train": rows[train_name], "test": rows[test_name]}
    if limit is not None and limit < len(rows_of["train"]):
        rows_of["train"] = rows_of["train"][_share(labels[train_name][rows_of["train"]], limit)]

    # Only the rows in use are decoded: a thousand images of a million cost a thousand.
    wanted = ["train", "test"] if train else ["test"]
    decoder.start(sum(len(rows_of[split]) for split in wanted))
    pixels = {}
    for split in wanted:
        table = tables[source[split]].cast_column(image_column, datasets.Image(decode=False))
        chosen = table.select(rows_of[split].numpy()).select_columns([image_column])
        pixels[split] = decoder.decode(chosen, image_column, rows_of[split].tolist(), f"{name} ({source[split]})")
    stacked = decoder.stack(pixels)

    sets = {split: Images(stacked[split], labels[source[split]][rows_of[split]], classes) for split in wanted}
    return Splits(name, sets.get("train", sets["test"]), sets["test"], indices)


def _labels(
    name: str, tables: dict[str, Any], column: str, splits: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, Tensor]]:
    """The names of the classes, and the labels of each split as int64."""

    import datasets

    feature = tables[splits[0]].features[column]
    raw = {split: tables[split].with_format(None)[column][:] for split in splits}
    for split, values in raw.items():
        if any(value is None for value in values):
            raise InputError(f"{name} ({split}): image {values.index(None)} has no label")

    if isinstance(feature, datasets.ClassLabel):
        classes = tuple(feature.names)
        return classes, {split: torch.tensor(values, dtype=torch.int64) for split, values in raw.items()}

    # Words and numbers become classes in their own order.
    known = sorted(set(raw[splits[0]]))
    number = {value: index for index, value in enumerate(known)}
    for split, values in raw.items():
        if strange := sorted(set(values) - set(known)):
            raise InputError(f"{name} ({split}): label {strange[0]!r} does not occur in {splits[0]}")
    return tuple(map(str, known)), {
        split: torch.tensor([number[value] for value in values], dtype=torch.int64) for split, values in raw.items()
    }


class _Decoder:
    """Decodes files to uint8 and settles on one shape and one mode for all of them."""

    def __init__(self, name: str, image_size: int | None, grey: bool, channels: int | None, progress: Progress) -> None:
        self.name = name
        self.image_size = image_size
        self.grey = grey
        self.channels = channels
        self.progress = progress
        self.count = 0

    def start(self, count: int) -> None:
        self.count = count
        self.progress.start(f"reading {self.name}", count)

    def decode(self, table: Any, column: str, rows: list[int], where: str) -> list[np.ndarray[Any, Any]]:
        arrays = []
        for row, record in zip(rows, table, strict=True):
            arrays.append(self._array(record[column], f"{where}, image {row}"))
            if len(arrays) == 1:
                _check_memory(self.name, self.count * arrays[0].size)
            if len(arrays) % 500 == 0:
                self.progress.advance(500)
        return arrays

    def stack(self, pixels: dict[str, list[np.ndarray[Any, Any]]]) -> dict[str, Tensor]:
        """One tensor a split: grey if every image is grey, else RGB; all of one size."""

        self.progress.stop()
        every = [array for arrays in pixels.values() for array in arrays]
        sizes = Counter(array.shape[:2] for array in every)
        if len(sizes) > 1:
            found = ", ".join(f"{height}×{width}" for (height, width), _ in sizes.most_common(3))
            raise InputError(f"{self.name} has images of {len(sizes)} sizes ({found}, …): give --image-size N")

        colour = self.channels == 3 or any(array.ndim == 3 for array in every)
        stacked = {}
        for split, arrays in pixels.items():
            if colour:
                arrays = [array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2) for array in arrays]
                stacked[split] = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
            else:
                stacked[split] = torch.from_numpy(np.stack(arrays)).unsqueeze(1)
        return stacked

    def _array(self, record: dict[str, Any], where: str) -> np.ndarray[Any, Any]:
        from PIL import Image, UnidentifiedImageError

        where = record.get("path") or where
        try:
            content = record["bytes"] if record.get("bytes") is not None else Path(record["path"]).read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                return self._uint8(image, where)
        except InputError:
            raise
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error).splitlines()[0]
            raise InputError(f"{where} cannot be read: {reason}; mend or remove the file") from error

    def _uint8(self, image: Picture, where: str) -> np.ndarray[Any, Any]:
        if image.mode == "F":
            what = "a NaN pixel" if np.isnan(np.asarray(image)).any() else "real numbers for pixels"
            raise InputError(f"{where} has {what}: save it with 8 bits a channel")
        if image.mode.startswith("I"):
            raise InputError(f"{where} has more than 8 bits a pixel (mode {image.mode}): save it with 8 bits a channel")

        grey = self.grey or image.mode in ("1", "L", "LA")
        image = image.convert("L" if grey else "RGB")
        if self.image_size is not None:
            image = _resized(image, self.image_size)
        return np.asarray(image, dtype=np.uint8)


def _resized(image: Picture, size: int) -> Picture:
    """The short side resized to ``size``, the centre cropped."""

    from PIL.Image import Resampling

    width, height = image.size
    scale = size / min(width, height)
    width, height = max(size, round(width * scale)), max(size, round(height * scale))
    if (width, height) != image.size:
        image = image.resize((width, height), Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _check_memory(name: str, needed: int) -> None:
    import psutil

    # Stacking holds every image twice for a moment.
    free = psutil.virtual_memory().available
    if 2 * needed > 0.9 * free:
        raise InputError(
            f"{name} takes {2 * needed / 2**30:.1f} GiB in memory, {free / 2**30:.1f} are free: "
            "use --image-size or --limit"
        )


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """The library's own progress bars and log off, for the time of a block."""

    shown = datasets.are_progress_bars_disabled()
    verbosity = datasets.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    # What it logs as an error it also raises: said once is enough.
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(verbosity)
        if not shown:
            datasets.enable_progress_bars()
