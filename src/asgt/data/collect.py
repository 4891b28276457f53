"""Labelled images from the usual types of PyTorch code: tensors, numpy arrays, a ``Dataset`` or a ``DataLoader``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import InputError
from ..inputs import checked_images, checked_labels
from .images import Images

__all__ = ["LabelledImages", "as_images"]

LabelledImages: TypeAlias = Any
"""The argument of :func:`as_images`: ``Images``, a pair (images, labels), a ``Dataset`` or a ``DataLoader``."""

_IMAGE_KEYS = ("image", "images", "img", "pixel_values", "x")
_LABEL_KEYS = ("label", "labels", "target", "targets", "y")


def as_images(data: LabelledImages, name: str = "data") -> Images:
    """The images and labels in memory.

    Args:
        data: :class:`Images`, returned unchanged; a pair of images (N, C, H, W), floats in [0, 1] or uint8, and labels
            (N,) of any integer type, as tensors or numpy arrays; or a ``Dataset`` or ``DataLoader`` of such pairs, one
            by one or in batches, or dictionaries with an image and a label.
        name: its name in errors.


    Raises:
        InputError: the data has another type, images or labels are invalid, or images differ in size.
    """

    if isinstance(data, Images):
        return data
    # A list of two rows looks like a pair too, but its first element is a row.
    if isinstance(data, (tuple, list)) and len(data) == 2 and not isinstance(data[0], (tuple, Mapping)):
        return _paired(data[0], data[1], name)
    if isinstance(data, DataLoader):
        pairs = [_pair(batch, name) for batch in data]
    elif hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (Tensor, np.ndarray, str)):
        pairs = [_single(_pair(data[row], name), name) for row in range(len(data))]
    elif isinstance(data, Iterable) and not isinstance(data, (Tensor, np.ndarray, str, Mapping)):
        pairs = [_single(_pair(item, name), name) for item in data]
    else:
        raise InputError(
            f"{name} is a {type(data).__name__}: pass images with labels, as (x, y), a Dataset or a DataLoader"
        )
    if not pairs:
        raise InputError(f"{name} holds no images")

    shapes = {tuple(x.shape[1:]) for x, _ in pairs}
    if len(shapes) > 1:
        raise InputError(
            f"{name} has images of {len(shapes)} shapes ({min(shapes)}, {max(shapes)}, …): resize them to one shape"
        )
    return _paired(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]), name)


def _paired(x: Any, y: Any, name: str) -> Images:
    if isinstance(x, np.ndarray) and x.dtype == np.uint8:
        x = torch.from_numpy(np.ascontiguousarray(x))
    if not (isinstance(x, Tensor) and x.dtype == torch.uint8):
        x = checked_images(x, f"{name}: x")
    if x.ndim != 4:
        raise InputError(f"{name}: x has the shape {tuple(x.shape)}: expected images (N, C, H, W)")
    if len(x) == 0:
        raise InputError(f"{name} holds no images")
    y = checked_labels(y, len(x), soft=False, name=f"{name}: y").to(x.device)
    return Images(x, y, tuple(str(number) for number in range(max(int(y.max()), 1) + 1)))


def _pair(item: Any, name: str) -> tuple[Any, Any]:
    """The image and the label of what a data set gives for a row, or a loader for a batch."""

    if isinstance(item, Mapping):
        images = [key for key in _IMAGE_KEYS if key in item]
        labels = [key for key in _LABEL_KEYS if key in item]
        if len(images) == len(labels) == 1:
            return _tensor(item[images[0]]), torch.as_tensor(item[labels[0]])
        raise InputError(
            f"{name} gives dictionaries with {', '.join(map(repr, item))}: one of {', '.join(_IMAGE_KEYS)} and one "
            f"of {', '.join(_LABEL_KEYS)} are required"
        )
    if isinstance(item, (tuple, list)) and len(item) == 2:
        return _tensor(item[0]), torch.as_tensor(item[1])
    kind = f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, (tuple, list)) else "")
    raise InputError(f"{name} gives {kind} instead of an image and its label: labels are needed for an accuracy")


def _tensor(image: Any) -> Tensor:
    """An image or a batch of them as a tensor; a Pillow image as uint8 (C, H, W)."""

    if isinstance(image, Tensor):
        return image
    array = np.asarray(image)
    if not isinstance(image, np.ndarray) and array.dtype == np.uint8:
        array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(array))


def _single(pair: tuple[Tensor, Tensor], name: str) -> tuple[Tensor, Tensor]:
    x, y = pair
    if x.ndim != 3 or y.ndim != 0:
        raise InputError(f"{name} gives images of shape {tuple(x.shape)}: expected (C, H, W) and one label each")
    return x[None], y[None]
