"""Encoded images to pixels: what a browser shows, in the image's own precision.

8-bit images become uint8. Images of 16 bits and of floats become float32 in [0, 1]: divided by the range that the file
format states, or by the user's. Anything that Pillow would change in silence is refused.
"""

from __future__ import annotations

import io
import math
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..capacity import free_memory, size_text
from ..errors import InputError, cut
from ..progress import Progress
from .batching import to_unit
from .depth import full_range, refuse_reduced, values_of
from .folders import counted
from .parts import Part
from .tree import image_formats

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["INTERPOLATIONS", "Decoder", "PixelOptions"]

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")

_Array = np.ndarray[Any, Any]
_ORIENTED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_LAYERS = ("MPO", "PSD")  # their first frame is the whole image, and the others are previews or layers
_ROUNDING = 1e-6
_SMALL, _LARGE = 2**20, 2**26
"""Bytes that are not worth a look at the memory, of all images and of a single one."""


@dataclass(frozen=True)
class PixelOptions:
    """How pixels are made; the arguments of :func:`asgt.data.load_data` of the same names."""

    image_size: int | None = None
    crop: float | None = None
    interpolation: str = "bilinear"
    grey: bool = False
    rgb: bool = False
    decode: str = "browser"
    pixel_range: tuple[float, float] | None = None


class Decoder:
    """Decodes the images of a data set, and settles on one shape and one type for all of them.

    Args:
        name: of the data, for messages.
        options: how pixels are made.
        channels: 1 or 3, as a trained model has it.
        progress: is told how many images were decoded.
    """

    def __init__(self, name: str, options: PixelOptions, channels: int | None, progress: Progress) -> None:
        self.name = name
        self.options = options
        self.channels = 3 if options.rgb else channels
        self.progress = progress
        self.changed: Counter[str] = Counter()
        self._count = 0
        self._fits = 0  # bytes that are known to fit into the memory
        self._held = 0  # bytes of all images that were decoded
        self._kinds: dict[str, str] = {}
        # The largest value of images of 16 bits, its share of their range, and where it lies.
        self._largest: tuple[float, float, str] = (0.0, 0.0, "")

    def start(self, count: int) -> None:
        """Announces how many images there will be."""

        self._count = count
        self.progress.start(f"reading {self.name}", count)

    def decode(self, part: Part, rows: Sequence[int]) -> list[_Array]:
        """Some images of a split: uint8 (H, W) or (H, W, 3), or float32 (H, W).

        Raises:
            InputError: an image cannot be read, or its pixels cannot be meant.
        """

        arrays: list[_Array] = []
        with warnings.catch_warnings():
            # Pillow warns of large images, odd palettes and damaged EXIF; what it cannot read, it raises.
            warnings.simplefilter("ignore")
            for content, where in part.cells(rows):
                array = self._array(content, where)
                arrays.append(array)
                self._held += array.nbytes
                # Where images differ in size, a first small one says nothing of the others.
                every = max(self._count * array.nbytes if len(arrays) == 1 else 0, self._held)
                if every > self._fits:
                    size = " × ".join(map(str, array.shape[:2]))
                    what = f"{self.name}: {self._count:,} images, of which {where} has {size} pixels,"
                    _check_memory(what, every, "a smaller --image-size or --limit")
                    self._fits = max(every, min(2 * every, self._count * array.nbytes))
                if len(arrays) % 500 == 0:
                    self.progress.advance(500)
        return arrays

    @property
    def is_dark(self) -> bool:
        """Whether images of 16 bits use less than half of their range, though the user stated none."""

        return self.options.pixel_range is None and "16 bits" in self._kinds and self._largest[1] < 0.5

    def check_range(self) -> None:
        """Refuses a range that cannot be meant, once all images have been seen.

        Raises:
            InputError: 16-bit images that use less than half of their range, or a range that no image, or no single
                one, can have.
        """

        self.progress.stop()
        if self.is_dark:
            value, share, where = self._largest
            full = round(value / share) if share else 65535
            bits = max(int(value).bit_length(), 1)
            raise InputError(
                f"{where or self._kinds['16 bits']}: the largest value of all images is {value:.0f} of {full}: give "
                f"--pixel-range 0,{2**bits - 1} if these are {bits}-bit data, 0,{full} if they are not, or save them "
                "with 8 bits a channel"
            )
        if self.options.pixel_range is not None and not self._kinds:
            raise InputError(f"{self.name} has images of 8 bits only: leave --pixel-range out")
        if self.options.pixel_range is not None and len(self._kinds) > 1:
            (kind, where), (other_kind, elsewhere) = list(self._kinds.items())[:2]
            raise InputError(f"{where} has {kind} and {elsewhere} has {other_kind}: one --pixel-range cannot fit both")

    def stack(self, pixels: dict[str, list[_Array]]) -> dict[str, Tensor]:
        """One tensor (N, C, H, W) a split: grey if every image is grey, else RGB; float32 if any image is, else uint8.

        Raises:
            InputError: images differ in size.
        """

        every = [array for arrays in pixels.values() for array in arrays]
        sizes = Counter(array.shape[:2] for array in every)
        if len(sizes) > 1:
            listed = ", ".join(f"{height}×{width}" for (height, width), _ in sizes.most_common(3))
            raise InputError(f"{self.name} has images of {len(sizes)} sizes ({listed}, …): give --image-size N")

        colour = self.channels == 3 or any(array.ndim == 3 for array in every)
        deep = any(array.dtype == np.float32 for array in every)
        stacked = {}
        for split, arrays in pixels.items():
            if deep:
                arrays = [_floats(array) for array in arrays]
            if colour:
                arrays = [array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2) for array in arrays]
                stacked[split] = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
            else:
                stacked[split] = torch.from_numpy(np.stack(arrays)).unsqueeze(1)
        return stacked

    def notes(self) -> list[str]:
        """What was changed in how many images, as sentences."""

        return [f"{counted(count, 'image')}: {what}" for what, count in sorted(self.changed.items())]

    def _array(self, read: Any, where: str) -> _Array:
        from PIL import Image, UnidentifiedImageError

        try:
            content = read()
            with Image.open(io.BytesIO(content), formats=image_formats()) as image:
                _check_picture(image, where)
                refuse_reduced(image, content, where)
                if getattr(image, "is_animated", False) and image.format not in _LAYERS:
                    self.changed["the first of several frames is taken"] += 1
                image.load()
                return self._pixels(image, where)
        except InputError:
            raise
        except Exception as error:  # every decoder has errors of its own, and none may end in a traceback
            unknown = isinstance(error, UnidentifiedImageError)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = "not an image" if unknown else cut(lines[0], 200)
            raise InputError(f"{where} cannot be read: {reason}; mend or remove the file") from error

    def _pixels(self, image: Picture, where: str) -> _Array:
        deep = image.mode == "F" or image.mode.startswith("I")
        if deep:
            image = self._unit_range(image, where)
        browser = self.options.decode == "browser"
        if browser and (any(key in image.info for key in _ORIENTED)):
            image = self._upright(image)
        if not deep:
            grey = self.options.grey or image.mode in _GREY
            if browser and (image.mode in _ALPHA or "transparency" in image.info):
                image = self._on_white(image)
            image = _converted(image, "L" if grey else "RGB")
        if self.options.image_size is not None:
            self._check_size(image)
            image = _resized(image, self.options)
        if deep:
            return np.asarray(image, dtype=np.float32).clip(0.0, 1.0)
        return np.asarray(image, dtype=np.uint8)

    def _check_size(self, image: Picture) -> None:
        """Refuses a size at which one image, or all of them, would not fit into the memory."""

        assert self.options.image_size is not None
        # Pillow holds grey of 8 bits in one byte a pixel, and everything else in four.
        width, height = _scaled(image, self.options)
        one = width * height * (1 if image.mode == "L" else 4)
        every = self._count * self.options.image_size**2 * {"L": 1, "RGB": 3}.get(image.mode, 4)
        if max(one, every) > self._fits:
            what = f"image_size = {self.options.image_size}: {self._count:,} images of mode {image.mode}"
            _check_memory(what, max(one, every), "a smaller --image-size or --limit")
            self._fits = max(one, every)

    def _unit_range(self, image: Picture, where: str) -> Picture:
        """An image of 16 bits or of floats as one of floats in [0, 1]."""

        from PIL import Image

        values = values_of(image)
        if not np.isfinite(values).all():
            raise InputError(f"{where} has a NaN pixel: mend or remove the file")
        kind = "floats" if image.mode == "F" else "16 bits"
        stated = full_range(image)
        if self.options.pixel_range is None and stated is None:
            raise InputError(
                f"{where} has more than 8 bits a pixel and no range (mode {image.mode}): give --pixel-range LOW,HIGH, "
                "or save it with 8 bits a channel"
            )
        self._kinds.setdefault(kind, where)
        low, high = self.options.pixel_range or stated or (0.0, 1.0)
        if kind == "16 bits" and stated is not None and values.max() / stated[1] > self._largest[1]:
            self._largest = (float(values.max()), float(values.max() / stated[1]), where)

        scaled = (values - low) / (high - low)
        if scaled.min() < -_ROUNDING or scaled.max() > 1 + _ROUNDING:
            raise InputError(
                f"{where} has values in [{values.min():.6g}, {values.max():.6g}], real numbers outside [{low:g}, "
                f"{high:g}]: give --pixel-range LOW,HIGH that holds those of all images"
            )
        if self.options.decode == "browser" and isinstance(image.info.get("transparency"), int):
            scaled[values == image.info["transparency"]] = 1.0
            self.changed["transparency is put on white"] += 1
        floats = Image.fromarray(scaled.clip(0.0, 1.0).astype(np.float32))
        floats.info = {key: value for key, value in image.info.items() if key in _ORIENTED}
        return floats

    def _upright(self, image: Picture) -> Picture:
        """The image as its EXIF orientation says; as it is where that cannot be read."""

        from PIL.Image import Transpose

        turns = {
            2: Transpose.FLIP_LEFT_RIGHT,
            3: Transpose.ROTATE_180,
            4: Transpose.FLIP_TOP_BOTTOM,
            5: Transpose.TRANSPOSE,
            6: Transpose.ROTATE_270,
            7: Transpose.TRANSVERSE,
            8: Transpose.ROTATE_90,
        }
        orientation = None
        with suppress(Exception):  # a damaged EXIF block, which browsers ignore too
            orientation = image.getexif().get(_ORIENTATION)
        if orientation not in turns:
            return image
        self.changed["turned as the EXIF orientation says"] += 1
        turned = image.transpose(turns[orientation])
        turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
        return turned

    def _on_white(self, image: Picture) -> Picture:
        """The image composited on white."""

        from PIL import Image

        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() == (255, 255):
            return layer
        self.changed["transparency is put on white"] += 1
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _converted(image: Picture, mode: str) -> Picture:
    """The image in a mode, through sRGB where Pillow has no direct way."""

    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        image = converted
    return image.convert(mode)


def _resized(image: Picture, options: PixelOptions) -> Picture:
    """The short side resized to the size, or to more of it where a part is cropped off; the centre cropped."""

    from PIL.Image import Resampling

    assert options.image_size is not None
    size = options.image_size
    width, height = _scaled(image, options)
    if (width, height) != image.size:
        image = image.resize((width, height), Resampling[options.interpolation.upper()])
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _scaled(image: Picture, options: PixelOptions) -> tuple[int, int]:
    """The width and the height that an image is resized to before the centre is cropped."""

    assert options.image_size is not None
    short = _short_side(options.image_size, options.crop)
    width, height = image.size
    scale = short / min(width, height)
    return max(short, round(width * scale)), max(short, round(height * scale))


def _short_side(image_size: int, crop: float | None) -> int:
    """The side that is resized to before ``image_size`` of it is cropped: rounded down, as in timm and torchvision.

    Args:
        image_size: pixels.
        crop: the share of the side that is kept, in (0, 1]; ``None`` stands for 1.
    """

    return image_size if crop is None else max(image_size, math.floor(image_size / crop + _ROUNDING))


def _floats(array: _Array) -> _Array:
    if array.dtype == np.float32:
        return array
    # The same rounding as 8-bit images get when they become a batch.
    floats: _Array = to_unit(torch.from_numpy(np.array(array))).numpy()
    return floats


def _check_picture(image: Picture, where: str) -> None:
    """Refuses an image that is small as a file and has no room when it is decoded."""

    width, height = image.size
    # Pillow holds grey of 8 bits in one byte a pixel and everything else in four; a conversion holds it twice.
    needed = width * height * (1 if image.mode in ("1", "L", "P") else 4)
    if needed > _LARGE:
        _check_memory(f"{where}: an image of {width:,} × {height:,} pixels", needed, "save it smaller")


def _check_memory(what: str, needed: int, mend: str) -> None:
    if needed < _SMALL:
        return
    free = free_memory()
    # Stacking holds every image twice for a moment.
    if 2 * needed > 0.9 * free:
        raise InputError(f"{what} needs {size_text(2 * needed)} of memory, {size_text(free)} are free: {mend}")
