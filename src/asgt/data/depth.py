"""Bits per channel: the range of an image's format, and formats whose extra bits Pillow drops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["full_range", "refuse_reduced", "values_of"]

_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO = 0
_UNSIGNED, _SIGNED = 1, 2


def full_range(image: Picture) -> tuple[float, float] | None:
    """The lowest and the highest value of the format, ``None`` if it does not define them.

    Args:
        image: of one channel and mode ``F``, ``I`` or ``I;16…``, opened by Pillow.
    """

    if image.mode == "F":
        return 0.0, 1.0
    if image.mode == "I":
        # Pillow has no 16-bit mode of its own for these: PNG in old versions, PGM and its scaling in all.
        return (0.0, 65535.0) if image.format in ("PNG", "PPM") else None
    if image.format == "FITS":  # whose 16 bits have a sign, which Pillow does not read
        return None
    bits = _tiff_bits(image)
    return 0.0, float(2**bits - 1 if bits else 65535)


def values_of(image: Picture) -> np.ndarray[Any, Any]:
    """The values of an image of one channel, float64 (H, W). Pillow reads those of 32 bits as if they had a sign.

    Args:
        image: of mode ``F``, ``I`` or ``I;16…``, opened by Pillow.
    """

    values = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode == "I" and _tiff_bits(image) == 32 and _UNSIGNED in tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)):
        values = values.astype(np.int32).view(np.uint32)
    return values.astype(np.float64)


def refuse_reduced(image: Picture, content: bytes, where: str) -> None:
    """Refuses images that Pillow would decode with fewer bits than the file has, or with black and white swapped.

    Args:
        image: opened, not yet loaded.
        content: of the file.
        where: its place, for messages.

    Raises:
        InputError: loading the image would change its values.
    """

    deep = image.mode == "F" or image.mode.startswith("I")
    if not deep and _bits(image, content) > 8:
        raise InputError(
            f"{where} has colours of {_bits(image, content)} bits, but Pillow reads only 8: save it with 8 bits "
            "per channel, or in grey"
        )
    tags: Any = getattr(image, "tag_v2", {})
    if not deep and _SIGNED in tags.get(_SAMPLE_FORMAT, ()):
        raise InputError(f"{where} has signed 8-bit values, and Pillow drops the sign: save it unsigned, or as floats")
    if deep and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise InputError(
            f"{where} has white as its lowest value, and Pillow does not invert it: save it with black as zero"
        )


def _bits(image: Picture, content: bytes) -> int:
    """Bits a channel, as the file states them; 8 where its format has no more."""

    if image.format == "PNG":
        return content[24]
    if image.format == "SGI":
        return 8 * content[3]
    if image.format == "PPM":
        tiles: Any = getattr(image, "tile", [])
        largest = [value for tile in tiles for value in _arguments(tile) if isinstance(value, int)]
        return 16 if max(largest, default=0) > 255 else 8
    if image.format == "JPEG2000":
        start = content.find(b"\xff\x4f\xff\x51")  # SOC, SIZ; its components begin 38 bytes after the length
        return (content[start + 42] & 0x7F) + 1 if start >= 0 else 8
    if image.format == "AVIF":
        start = content.find(b"av1C")
        return 10 if start >= 0 and content[start + 6] & 0x40 else 8
    return _tiff_bits(image) or 8


def _arguments(tile: Any) -> tuple[Any, ...]:
    arguments = tile[3]
    return arguments if isinstance(arguments, tuple) else (arguments,)


def _tiff_bits(image: Picture) -> int | None:
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None or image.format != "TIFF":
        return None
    return int(max(tags.get(_BITS_PER_SAMPLE, (1,))))
