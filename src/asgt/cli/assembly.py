"""Combines a user's model, weights and images, and describes how they were matched."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets import data_help, data_set
from ..errors import InputError, unknown
from ..numbers import number
from ..training.config import DATA_SETTINGS, TrainConfig, data_settings, with_own_sizes

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser
    from torch import nn

    from ..data import Images
    from ..progress import Progress

__all__ = ["PARTS", "Assembly", "add_parts", "assemble", "listed_numbers"]

PARTS = ("weights", "data", "mean", "std", "width", "classes", *DATA_SETTINGS)
"""The flags beside ``--model`` that say what is put together; a run folder tells all of this itself."""

_HOW_TO_MAP = (
    "name the model's classes in the order of its logits by --classes FILE or --classes a,b,…, or give a JSON object "
    '{"class of the data": number of the logit}'
)


@dataclass(frozen=True)
class Assembly:
    """A model and the images to evaluate it on.

    Attributes:
        model: in evaluation mode, on the CPU, with its normalisation inside.
        images: the test images, with labels in the order of the model's logits.
        lines: sentences on the weights, the preprocessing and the classes that are used, and notes from reading the
            images.
        reading: how the images were read: keyword arguments of :func:`asgt.load_data`.
    """

    model: nn.Module
    images: Images
    lines: list[str] = field(default_factory=list)
    reading: dict[str, Any] = field(default_factory=dict)


def add_parts(parser: ArgumentParser) -> None:
    """Adds the flags of :data:`PARTS`, but for ``--weights``."""

    parser.add_argument("--data", type=str, help=f"{data_help()}, a hub id, or a folder")
    parser.add_argument(
        "--mean",
        type=str,
        help="per-channel means that the weights were trained with, such as 0.49,0.48,0.45 (default: from the weights)",
    )
    parser.add_argument("--std", type=str, help="per-channel standard deviations, likewise")
    parser.add_argument("--width", type=float, help="factor on the width of the model's hidden layers")
    parser.add_argument(
        "--classes",
        type=str,
        help="the model's classes, if they differ from the data's: a file with one name per line or a JSON list, "
        "in the order of the logits; names as cat,dog; or a JSON object from class of the data to index of the logit",
    )
    parser.add_class_arguments(
        TrainConfig, as_group=False, skip={field.name for field in fields(TrainConfig)} - set(DATA_SETTINGS)
    )


def assemble(asked: dict[str, Any], progress: Progress, allow: Collection[str] = ()) -> Assembly:
    """Builds the model and the images that the flags ``--model M --data D`` name.

    If the flags do not give mean, std, image size, crop or interpolation, these come from the model's
    configuration. This holds for models of timm and transformers, and for exported ones.

    Args:
        asked: the flags.
        progress: is told how many images were decoded.
        allow: whose code may run for the architecture that an exported model names.

    Raises:
        InputError: the parts do not fit together.
    """

    from ..data import load_data
    from ..data.classes import read_classes
    from ..models import MODELS, brings_weights, build_model, preprocessing
    from ..modes import in_evaluation
    from ..training.starting import preprocessing_line

    name, weights = str(asked["model"]), asked.get("weights")
    if name.startswith("hub:"):
        return _exported(name, asked, progress, allow)
    if ":" not in name and name not in MODELS:
        raise unknown(
            "model", name, [*MODELS, "hf:FOLDER_OR_ID", "hub:FOLDER_OR_ID", "timm:NAME", "package.module:factory"]
        )
    if weights is None and not brings_weights(name):
        raise InputError(f"--weights is missing: {name} brings no weights")
    table = read_classes(asked["classes"]) if "classes" in asked else None
    values: dict[str, list[float]] = {
        each: listed_numbers(asked[each], each) for each in ("mean", "std") if each in asked
    }
    own = preprocessing(name)
    settings = with_own_sizes(asked, own)
    splits = load_data(asked["data"], train=False, progress=progress, **data_settings(settings))

    images, lines = splits.test, list(splits.notes)
    mean, std = (values.get(each, None if own is None else getattr(own, each)) for each in ("mean", "std"))
    # Weights from elsewhere may be of other classes than those that the library's own are of.
    names = own.classes if own is not None and (weights is None or name.startswith("hf:")) else None
    options: dict[str, Any] = {"width": asked["width"]} if "width" in asked else {}
    pretrained = name.startswith("timm:") and weights is None
    numbered = table if isinstance(table, dict) and names is None else None
    if numbered is not None:
        _refuse_names(numbered, name)
    else:
        images, classes_line = _labelled(images, table, names, name)
    # How many logits there are, only the model knows; timm would give its own weights a random layer for other classes.
    count = None if numbered is not None or pretrained else len(images.classes)
    model = build_model(name, images.shape, count, mean=mean, std=std, pretrained=pretrained, **options)
    if numbered is not None:
        images, classes_line = _labelled(images, table, _numbered(numbered, _logit_count(model, images)), name)
    elif (logits := _logit_count(model, images)) != len(images.classes):
        raise InputError(f"{name} gives {logits} logits, the data has {len(images.classes)} classes: {_HOW_TO_MAP}")

    lines += _loaded(model, asked, values, is_normalised=own is not None and own.mean is not None)
    if own is not None:
        lines.append(preprocessing_line(own, settings, asked))
    lines += [classes_line] if classes_line else []
    return Assembly(in_evaluation(model), images, lines, data_settings(settings))


def _exported(name: str, asked: dict[str, Any], progress: Progress, allow: Collection[str]) -> Assembly:
    """A model that ``asgt export`` wrote, on images that are read as those of its training were."""

    from ..data import load_data
    from ..data.classes import read_classes
    from ..models.exported import load_exported, read_exported
    from ..training.starting import preprocessing_line

    for flag in ("weights", "mean", "std", "width"):
        if flag in asked:
            raise InputError(f"--{flag}: the exported model {name} defines it, remove the flag")
    table = read_classes(asked["classes"]) if "classes" in asked else None
    exported = read_exported(name.removeprefix("hub:"))
    own, known = exported.preprocessing(), data_set(asked["data"])
    kept = dict(exported.reading) if known.reads_options else {}
    if {"grey", "rgb"} & asked.keys():
        kept = {setting: value for setting, value in kept.items() if setting not in ("grey", "rgb")}
    settings = with_own_sizes(kept | asked, own)
    channels = None if {"grey", "rgb"} & settings.keys() else exported.shape[0]
    splits = load_data(asked["data"], train=False, channels=channels, progress=progress, **data_settings(settings))
    model = load_exported(exported, allow=allow)
    if splits.test.shape != exported.shape:
        sizes = ["×".join(map(str, shape)) for shape in (splits.test.shape, exported.shape)]
        flags = [f"--image-size {exported.shape[1]}"] if splits.test.shape[1:] != exported.shape[1:] else []
        if splits.test.shape[0] != exported.shape[0]:
            flags.append("--grey" if exported.shape[0] == 1 else "--rgb")
        raise InputError(
            f"the images of {asked['data']} are {sizes[0]}, {name} takes {sizes[1]}: add {' '.join(flags)}"
        )
    images, classes_line = _labelled(splits.test, table, exported.classes, name)
    lines = [
        *splits.notes,
        f"weights: from {name}, whose files match their digests",
        *(f"{name}: {remark}" for remark in exported.remarks),
        preprocessing_line(own, settings, asked),
    ]
    return Assembly(model, images, lines + ([classes_line] if classes_line else []), data_settings(settings))


def _loaded(
    model: nn.Module, asked: dict[str, Any], values: dict[str, list[float]], *, is_normalised: bool
) -> list[str]:
    """Loads the weights that are asked for. A line says whose they are, and one whose the normalisation is.

    The model's own configuration has another line (``is_normalised``).
    """

    from ..models import Normalize, load_weights

    weights, name = asked.get("weights"), asked["model"]
    before = getattr(model, "normalize", None)
    if weights is None:
        lines = [f"weights: those of {name}, because --weights is not given"]
    else:
        matched = load_weights(model, Path(weights))
        lines = [f"weights: {weights}" + (f" ({matched})" if matched else "")]
    held = getattr(model, "normalize", None)
    if isinstance(held, Normalize):
        if weights is not None:
            held.refuse_other(values, weights)
        if not is_normalised or held is not before:
            lines.append(held.line("--mean and --std" if values else str(weights or name)))
    else:
        lines.append(
            "normalisation: none is given: the model gets images in [0, 1]; if it was trained on normalised images, "
            "add --mean and --std"
        )
    return lines


def listed_numbers(text: str, flag: str) -> list[float]:
    """The numbers in ``0.1,8/255``."""

    return [number(part.strip(), f"--{flag}") for part in str(text).strip("[]").split(",") if part.strip()]


def _labelled(images: Images, table: Any, own_classes: Sequence[str] | None, name: str) -> tuple[Images, str]:
    """The images with labels in the order of the model's logits, and a line on it, ``""`` where nothing changed."""

    from ..data.classes import mapped, shares_names

    count = len(images.classes)
    if isinstance(table, dict):
        images, how = mapped(images, own_classes or (), table), "by --classes"
    elif table is not None:
        images, how = mapped(images, table), "by --classes"
    elif own_classes is None or tuple(own_classes) == images.classes:
        return images, ""
    elif shares_names(images, own_classes):
        images, how = mapped(images, own_classes), "by the model's own names"
    elif len(own_classes) == count and all(_says_nothing(each, logit) for logit, each in enumerate(own_classes)):
        return images, (
            f"classes: {name} has numbers for names, so its logits {own_classes[0]!r}, {own_classes[1]!r}, … "
            f"are assigned to {images.classes[0]!r}, {images.classes[1]!r}, … in this order; use "
            "--classes to change this"
        )
    else:
        lacking = next(each for each in images.classes if list(own_classes).count(each) != 1)
        raise InputError(
            f"{name} has {len(own_classes)} classes, the data has {count}, and {lacking!r} does not match exactly "
            f"one class of the model: {_HOW_TO_MAP}"
        )
    return images, (
        f"classes: the data's {count} go to their logits {how}; accuracy is over all {len(images.classes)} outputs"
    )


def _says_nothing(name: str, logit: int) -> bool:
    """Whether a class is called by the number of its logit alone, as nobody's own name."""

    return name.rpartition("_")[2] == str(logit)


def _refuse_names(table: dict[str, int | str], name: str) -> None:
    for target in table.values():
        if isinstance(target, str):
            raise InputError(
                f"--classes: {name} has no class names, so {target!r} cannot be matched: give the indices of the "
                "logits, such as 281"
            )


def _logit_count(model: nn.Module, images: Images) -> int:
    import torch

    from ..data import to_unit
    from ..modes import ask, in_evaluation

    with torch.no_grad():
        return ask(in_evaluation(model), to_unit(images.pixels[:2])).shape[1]


def _numbered(table: dict[str, int | str], count: int) -> list[str]:
    """Names for the logits of a model that has none: those of the data where there are, else their numbers."""

    names = {logit: name for name, logit in table.items()}
    return [names.get(number, f"logit {number}") for number in range(count)]
