"""A picture of the user's own, drawn or uploaded, prepared as the data set's own images are."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..data.image_decoding import PixelOptions, check_memory, decoded
from ..errors import InputError
from ..visible import LONGEST_NAME, visible

__all__ = ["LARGEST", "Prepared", "of_data_uri", "prepared"]

LARGEST = 50 * 2**20
"""Bytes that a picture may have."""

_PNG = "data:image/png;base64,"
_SMALLER = "save it smaller"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture as the models get it.

    Attributes:
        image: float (1, C, H, W) in [0, 1].
        said: what was done to it, in a sentence.
    """

    image: Tensor
    said: str


def prepared(content: bytes, name: str, shape: tuple[int, int, int], options: PixelOptions) -> Prepared:
    """Decodes a picture of any size and kind, and prepares it as the images of a data set are.

    Where the data's own images are used as they are, the picture is resized to their size: the short side, and then
    the centre is cropped.

    Args:
        content: the encoded picture.
        name: what to call it in a message.
        shape: (C, H, W) of the data's images.
        options: how the data is read.

    Raises:
        InputError: it cannot be read, is too large, or the data's images are no squares and it has another size.
    """

    if len(content) > LARGEST:
        raise InputError(
            f"{name} has {len(content) / 2**20:.0f} MiB: pictures of up to {LARGEST // 2**20} MiB are read"
        )
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"the images have {channels} channels: a picture can only be prepared for 1 or 3")
    options = replace(options, grey=channels == 1, rgb=channels == 3)
    if height == width:
        options = replace(options, image_size=options.image_size or height)

    def fits(mode: str, one: int, each: int) -> None:
        check_memory(name, 2 * one, _SMALLER)

    name = visible(name, LONGEST_NAME).replace("\n", " ")
    image = decoded(lambda: content, name, options, fits)
    pixels = torch.from_numpy(image.pixels.copy())
    pixels = pixels.permute(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    if tuple(pixels.shape[1:]) != (height, width):
        raise InputError(
            f"{name} has {pixels.shape[2]} × {pixels.shape[1]} pixels, the data's images {width} × {height}: they are "
            "no squares, so give a picture of that very size"
        )
    unit = pixels if pixels.is_floating_point() else pixels.float() / 255
    unit = unit.expand(channels, height, width).contiguous()[None]
    return Prepared(unit, _said(content, options, image.changed, image.kind, shape))


def of_data_uri(uri: str) -> bytes:
    """The PNG file in a data URI, as a browser's canvas gives one.

    Raises:
        InputError: it is none.
    """

    if not isinstance(uri, str) or not uri.startswith(_PNG) or len(uri) > 2 * LARGEST:
        raise InputError("the drawing is no PNG image: draw it again")
    try:
        return base64.b64decode(uri[len(_PNG) :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("the drawing is damaged: draw it again") from error


def _said(
    content: bytes, options: PixelOptions, changed: tuple[str, ...], kind: str, shape: tuple[int, int, int]
) -> str:
    """What was done to a picture that could be decoded."""

    from PIL import Image

    with Image.open(io.BytesIO(content)) as opened:
        (width, height), mode = opened.size, opened.mode
    channels, down, across = shape
    steps = [f"{kind} became real numbers in [0, 1]"] if kind else []
    steps += changed
    grey = mode in ("1", "L", "LA", "La") or bool(kind)
    if channels == 1 and not grey:
        steps.append("turned to grey")
    if channels == 3 and grey:
        steps.append("its grey repeated in three channels")
    if options.image_size is not None and ((width, height) != (across, down) or options.crop is not None):
        short = "resized" if width == height else f"its short side resized from {min(width, height)}"
        of = "" if options.crop is None else f", {options.crop:g} of the side used"
        cropped = "" if width == height and options.crop is None else ", its centre cropped"
        steps.append(f"{short} to {options.image_size} pixels ({options.interpolation}{of}){cropped}")
    told = "; ".join(steps) or "taken as it is"
    return f"{width} × {height} pixels: {told}. The models get {across} × {down} pixels."
