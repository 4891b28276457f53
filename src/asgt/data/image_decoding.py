"""Decodes one image to pixels as a browser shows it, in the image's own precision.

8-bit images become uint8. Images of 16 bits and of floats become float32 in [0, 1]: divided by the range of the
file format, or by the user's. Images that Pillow would change silently are refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..capacity import free_memory, size_text
from ..errors import InputError, cut
from .depth import full_range, refuse_reduced, values_of
from .tree import image_formats

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["INTERPOLATIONS", "DecodedImage", "Fits", "PixelOptions", "check_memory", "decoded"]

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")

_Array = np.ndarray[Any, Any]
_ORIENTED = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_ORIENTATION = 0x0112
_GREY = ("1", "L", "LA", "La")
_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_LAYERS = ("MPO", "PSD")  # their first frame is the whole image, and the others are previews or layers
_ROUNDING = 1e-6
_SMALL, _LARGE = 2**20, 2**26
"""Sizes in bytes, of all images and of one, below which the free memory is not checked."""


@dataclass(frozen=True)
class PixelOptions:
    """The options of decoding; the arguments of :func:`asgt.data.load_data` with the same names."""

    image_size: int | None = None
    crop: float | None = None
    interpolation: str = "bilinear"
    grey: bool = False
    rgb: bool = False
    decode: str = "browser"
    pixel_range: tuple[float, float] | None = None


@dataclass(frozen=True)
class DecodedImage:
    """One decoded image and notes on it.

    Attributes:
        pixels: uint8 (H, W) or (H, W, 3), or float32 (H, W).
        changed: descriptions of the changes.
        kind: ``"16 bits"`` or ``"floats"`` if it has more than 8 bits.
        largest: the largest value of an image of 16 bits.
        share: that value's share of the format's range.
    """

    pixels: np.ndarray[Any, Any]
    changed: tuple[str, ...] = ()
    kind: str = ""
    largest: float = 0.0
    share: float = 0.0


Fits: TypeAlias = Callable[[str, int, int], None]
"""Takes the mode of an image, the bytes of the whole of it when it is resized, and those of its crop; refuses what has
no room."""


def decoded(read: Callable[[], bytes], where: str, options: PixelOptions, fits: Fits) -> DecodedImage:
    """Decodes an image.

    Args:
        read: returns the encoded image.
        where: its place, for messages.
        options: the options of decoding.
        fits: called before an image is resized.

    Raises:
        InputError: it cannot be read, or its pixels are invalid.
    """

    return _Making(where, options, fits).image(read)


class _Making:
    """The steps of decoding an image."""

    def __init__(self, where: str, options: PixelOptions, fits: Fits) -> None:
        self.where = where
        self.options = options
        self.fits = fits
        self.changed: list[str] = []
        self.kind, self.largest, self.share = "", 0.0, 0.0

    def image(self, read: Callable[[], bytes]) -> DecodedImage:
        from PIL import Image, UnidentifiedImageError

        where = self.where
        try:
            content = read()
            with Image.open(io.BytesIO(content), formats=image_formats()) as image:
                _check_picture(image, where)
                refuse_reduced(image, content, where)
                if getattr(image, "is_animated", False) and image.format not in _LAYERS:
                    self.changed.append("the first of several frames is taken")
                image.load()
                pixels = self._pixels(image)
        except (InputError, MemoryError):
            raise
        except Exception as error:  # every decoder has errors of its own, and none may end in a traceback
            unknown = isinstance(error, UnidentifiedImageError)
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = "not an image" if unknown else cut(lines[0], 200)
            raise InputError(f"{where} cannot be read: {reason}; repair or remove the file") from error
        return DecodedImage(pixels, tuple(self.changed), self.kind, self.largest, self.share)

    def _pixels(self, image: Picture) -> _Array:
        deep = image.mode == "F" or image.mode.startswith("I")
        if deep:
            image = self._unit_range(image)
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
        each = self.options.image_size**2 * {"L": 1, "RGB": 3}.get(image.mode, 4)
        self.fits(image.mode, one, each)

    def _unit_range(self, image: Picture) -> Picture:
        """An image of 16 bits or of floats as one of floats in [0, 1]."""

        from PIL import Image

        where = self.where
        values = values_of(image)
        if not np.isfinite(values).all():
            raise InputError(f"{where} has a NaN pixel: repair or remove the file")
        kind = "floats" if image.mode == "F" else "16 bits"
        stated = full_range(image)
        if self.options.pixel_range is None and stated is None:
            raise InputError(
                f"{where} has more than 8 bits a pixel and no range (mode {image.mode}): give --pixel-range LOW,HIGH, "
                "or save it with 8 bits a channel"
            )
        self.kind = kind
        low, high = self.options.pixel_range or stated or (0.0, 1.0)
        if kind == "16 bits" and stated is not None:
            self.largest, self.share = float(values.max()), float(values.max() / stated[1])

        scaled = (values - low) / (high - low)
        if scaled.min() < -_ROUNDING or scaled.max() > 1 + _ROUNDING:
            raise InputError(
                f"{where} has values in [{values.min():.6g}, {values.max():.6g}], real numbers outside [{low:g}, "
                f"{high:g}]: give --pixel-range LOW,HIGH that holds those of all images"
            )
        if self.options.decode == "browser" and isinstance(image.info.get("transparency"), int):
            scaled[values == image.info["transparency"]] = 1.0
            self.changed.append("transparency is put on white")
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
        self.changed.append("turned as the EXIF orientation says")
        turned = image.transpose(turns[orientation])
        turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
        return turned

    def _on_white(self, image: Picture) -> Picture:
        """The image composited on white."""

        from PIL import Image

        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() == (255, 255):
            return layer
        self.changed.append("transparency is put on white")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _converted(image: Picture, mode: str) -> Picture:
    """The image in a mode, through sRGB where Pillow has no direct way."""

    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None
        image = converted
    # Pillow copies an image that has the mode already.
    return image if image.mode == mode else image.convert(mode)


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


def _check_picture(image: Picture, where: str) -> None:
    """Refuses an image that is small as a file and has no room when it is decoded."""

    width, height = image.size
    # Pillow holds grey of 8 bits in one byte a pixel and everything else in four; a conversion holds it twice.
    needed = width * height * (1 if image.mode in ("1", "L", "P") else 4)
    if needed > _LARGE:
        check_memory(f"{where}: an image of {width:,} × {height:,} pixels", 2 * needed, "save it smaller")


def check_memory(what: str, needed: int, mend: str) -> None:
    """Refuses more than nine tenths of the free memory."""

    if needed < _SMALL:
        return
    free = free_memory()
    if needed > 0.9 * free:
        raise InputError(f"{what} needs {size_text(needed)} of memory, {size_text(free)} are free: {mend}")
