"""Exported models: a folder, or a repository on the hub, that ``asgt export`` wrote; it contains no code.

::

    README.md           the model card
    config.json         the architecture by name, the images, the classes
    model.safetensors   the weights, with the normalisation
    results/ the result of each evaluation
    manifest.json       the digest of every file

An architecture is a name that asgt builds, a configuration of transformers as plain values, or the name of the
user's code, which the user passes again or allows.
"""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import DamagedFileError, InputError, cut, shown
from ..files import read_sealed, read_tensors
from ..manifest import MANIFEST, Manifest
from ..modes import in_evaluation
from ..names import OBJECT, is_allowed, is_foreign, module_of, names_of
from ..plugins import imported, refuse_borrowed
from .head import give_classes, logit_count
from .hub_access import hub_errors
from .loading import MODELS, build_model
from .pretrained import Preprocessing, build_hf_without_weights
from .weights import load_weights

__all__ = [
    "CARD",
    "CONFIG",
    "EXPORT",
    "ONNX",
    "PROGRAM",
    "READING",
    "RESULTS",
    "WEIGHTS",
    "Exported",
    "export_in",
    "exported_files",
    "from_pretrained",
    "load_exported",
    "read_exported",
]

CARD, CONFIG, WEIGHTS = "README.md", "config.json", "model.safetensors"
ONNX, PROGRAM = "model.onnx", "model.pt2"
RESULTS = "results"
EXPORT = "export"
"""The name of the part of the manifest with the files of an export."""

READING = ("image_size", "crop", "interpolation", "grey", "rgb", "decode", "pixel_range")
"""The settings of reading images in an export, with the names of :func:`asgt.data.load_data`."""

_SCHEMA = 1
_FILE = re.compile(r"[\w@+-][\w.@+-]*(/[\w@+-][\w.@+-]*)?")
"""The allowed names of listed files, all inside the folder."""
_TIMM = re.compile(r"timm:\w[\w.-]*")
"""Models that timm builds itself; it would download others from the hub."""


@dataclass(frozen=True)
class Exported:
    """The content of ``config.json``.

    Attributes:
        folder: the folder of the files.
        name: the name of the model.
        model: the name of the architecture, as for :func:`asgt.build_model`.
        shape: (C, H, W) of the images.
        classes: their names, in the order of the logits.
        weights: SHA-256 of the tensors of the weights, the identity of the model in evaluations.
        options: ``width`` and ``dropout``, if they are set.
        head: the dotted name of the layer that was replaced in the architecture for these classes, ``""`` if it
            must be found automatically; ``None`` if none was replaced.
        transformers: for ``hf:…``, the configuration of transformers.
        reading: the settings for reading images, with the names in :data:`READING`, if they are set.
        remarks: remarks on the files: accepted edits.
    """

    folder: Path
    name: str
    model: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    weights: str
    options: Mapping[str, float] = field(default_factory=dict)
    head: str | None = None
    transformers: Mapping[str, Any] | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether the architecture is a user's own code."""

        return is_foreign(self.model)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``config.json`` holds them."""

        channels, height, width = self.shape
        return {
            "library_name": "asgt",
            "schema": _SCHEMA,
            "model": self.model,
            "options": dict(self.options),
            "replaced_head": self.head,
            "transformers": None if self.transformers is None else dict(self.transformers),
            "channels": channels,
            "height": height,
            "width": width,
            "range": [0.0, 1.0],
            "classes": list(self.classes),
            "reading": dict(self.reading),
            "weights": self.weights,
        }

    def preprocessing(self) -> Preprocessing:
        """The preprocessing of the model's images; its normalisation is inside the model."""

        told = {name: self.reading.get(name) for name in ("image_size", "crop", "interpolation")}
        return Preprocessing(**told, classes=self.classes, source=f"{CONFIG} of {self.name}")


def from_pretrained(
    name: str | os.PathLike[str],
    *,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    allow: Collection[str] = (),
) -> nn.Module:
    """The model that ``asgt export`` wrote, in evaluation mode on the CPU.

    It maps images (B, C, H, W) in [0, 1] to logits (B, K): its normalisation is inside. Every file is checked
    against its digest first. No file of the export can run code.

    Args:
        name: a folder, or ``ORGANISATION/NAME`` on the hub, with ``@REVISION`` for one of its revisions.
        model: the architecture, if it is your own code: a module, which is changed in place, or a function that makes
            one. Default: the one that the export names.
        allow: names of modules whose code may run, as ``package.module``, if the export names an architecture of
            your own code. Default: none.

    Raises:
        InputError: the export does not exist, or it needs an architecture that is neither passed nor allowed.
        DamagedFileError: a file is damaged, or was changed without its digest.

    Example:
        >>> import torch
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> export = asgt.export_run("run", "shared")
        >>> model = asgt.from_pretrained("shared")
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    return load_exported(read_exported(os.fspath(name)), model=model, allow=allow)


def read_exported(name: str) -> Exported:
    """The content of an export, after every file was checked against its digest; the weights are not read.

    Args:
        name: as for :func:`from_pretrained`.

    Raises:
        InputError, DamagedFileError: as :func:`from_pretrained`.
    """

    folder, is_here = _folder(name)
    manifest = export_in(folder)
    if manifest is None:
        raise InputError(
            f"{name} is not an exported model, which has a {MANIFEST}: make one with asgt export RUN --out DIR"
        )
    if odd := next((each for each in manifest.files if _FILE.fullmatch(each) is None), None):
        raise DamagedFileError(
            f"{folder / MANIFEST} is damaged: it lists {shown(odd)}, which is not a file of an export: export again"
        )
    if lacking := next((each for each in (CONFIG, WEIGHTS) if each not in manifest.files), None):
        raise DamagedFileError(f"{folder / MANIFEST} is damaged: it does not list {lacking}: export again")
    # From the hub come only the files that are needed.
    manifest.check(*(manifest.files if is_here else (CARD, CONFIG, WEIGHTS)))
    return _parsed(folder, name, tuple(manifest.remarks(manifest.files)))


def load_exported(
    exported: Exported,
    *,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    allow: Collection[str] = (),
) -> nn.Module:
    """Builds the model of an export and loads its weights; see :func:`from_pretrained`."""

    with torch.random.fork_rng():
        built = _built(exported, model, names_of(allow))
        if exported.head is not None:
            give_classes(built, exported.shape, len(exported.classes), exported.model, exported.head or None)
    load_weights(built, exported.folder / WEIGHTS)
    if (logits := logit_count(built, exported.shape, exported.name)) != len(exported.classes):
        raise InputError(
            f"{exported.name} has {len(exported.classes)} classes, but the model has {logits} logits: pass a "
            "matching model"
        )
    return in_evaluation(built)


def export_in(folder: Path) -> Manifest | None:
    """The manifest of the export in a folder; ``None`` if there is none.

    Raises:
        DamagedFileError: the manifest was changed.
    """

    manifest = Manifest.of(folder)
    return manifest if manifest is not None and EXPORT in manifest.made_from else None


def exported_files(folder: Path) -> list[Path]:
    """The files of the export in a folder, including those that the manifest does not list; empty without an export."""

    try:
        value = read_sealed(folder / CONFIG)[0]
    except DamagedFileError:
        value = None if (folder / "config.yaml").exists() else {"library_name": "asgt"}
    except InputError:
        return []
    if not isinstance(value, dict) or value.get("library_name") != "asgt":
        return []
    own = [folder / name for name in (CARD, CONFIG, WEIGHTS, ONNX, PROGRAM)]
    return [file for file in (*own, *sorted(folder.glob(f"{RESULTS}/*.json"))) if file.is_file()]


def _folder(name: str) -> tuple[Path, bool]:
    """The folder of an export, and whether it is the user's own and not the hub's."""

    if not name:
        raise InputError("the name of the exported model is empty: give a folder, or ORGANISATION/NAME of the hub")
    if os.path.isdir(name):
        return Path(name), True
    if os.path.exists(name):
        raise InputError(f"{name} is a file: give the folder of an exported model")
    import huggingface_hub

    place, _, revision = name.partition("@")
    try:
        with hub_errors(name):
            files = [MANIFEST, CARD, CONFIG, WEIGHTS]
            return Path(
                huggingface_hub.snapshot_download(place, revision=revision or None, allow_patterns=files)
            ), False
    except huggingface_hub.errors.EntryNotFoundError as error:
        raise InputError(
            f"{name}: no such folder, and the hub cannot be reached: download the model, and give its folder"
        ) from error


def _parsed(folder: Path, name: str, remarks: tuple[str, ...]) -> Exported:
    path = folder / CONFIG
    value = read_sealed(path)[0]
    try:
        if (schema := value["schema"]) != _SCHEMA:
            raise InputError(
                f"{path} has schema {shown(schema)}, but this version of asgt reads {_SCHEMA}: export again "
                "with this version"
            )
        reading, transformers = dict(value["reading"]), value["transformers"]
        exported = Exported(
            folder=folder,
            name=name,
            model=_text(value["model"]),
            shape=(_whole(value["channels"]), _whole(value["height"]), _whole(value["width"])),
            classes=tuple(map(_text, value["classes"])),
            weights=_text(value["weights"]),
            options={str(option): float(given) for option, given in value["options"].items()},
            head=None if value["replaced_head"] is None else _text(value["replaced_head"]),
            transformers=None if transformers is None else dict(transformers),
            reading={setting: reading[setting] for setting in READING if setting in reading},
            remarks=remarks,
        )
    except (AttributeError, LookupError, TypeError, ArithmeticError) as error:
        raise _damaged(path) from error
    except ValueError as error:
        raise (error if isinstance(error, InputError) else _damaged(path)) from error
    known = exported.model in MODELS or exported.is_own or _TIMM.fullmatch(exported.model) is not None
    if not (known or (exported.model.startswith("hf:") and exported.transformers is not None)):
        raise InputError(
            f"{path} names the model {shown(exported.model)}, which this version of asgt does not build: "
            "install a version that does"
        )
    if len(exported.classes) < 2 or set(exported.options) - {"width", "dropout"}:
        raise _damaged(path)
    return exported


def _damaged(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: it is not the configuration of an exported model: export again")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 < value < 2**31:
        raise TypeError(value)
    return value


def _built(exported: Exported, model: nn.Module | Callable[..., nn.Module] | None, allow: Collection[str]) -> nn.Module:
    """The architecture of an export, with random weights."""

    count, options = len(exported.classes), dict[str, Any](exported.options)
    if isinstance(model, nn.Module):
        return _as_built(model, exported.folder / WEIGHTS)
    if model is not None or exported.is_own:
        factory = _allowed(exported, allow) if model is None else model
        name = exported.model if exported.is_own else f"{OBJECT}{getattr(model, '__qualname__', 'model')}"
        return build_model(name, exported.shape, count, factory=factory, exact=False, **options)
    if exported.transformers is not None:
        net = build_hf_without_weights(exported.transformers, f"{exported.name} ({cut(exported.model)})")
        return nn.Sequential(OrderedDict(normalize=nn.Identity(), net=net))
    return build_model(exported.model, exported.shape, count, exact=False, **options)


def _allowed(exported: Exported, allow: Collection[str]) -> Callable[..., nn.Module]:
    """The factory that an export names, where the user allows its code.

    Raises:
        InputError: it is not allowed, or cannot be named.
    """

    name = exported.model
    can_be_named = not name.startswith(OBJECT)
    if not can_be_named or not is_allowed(name, allow):
        named = name.removeprefix(OBJECT)
        mend = "pass it with asgt.from_pretrained(…, model=net)"
        mend += f", or allow its code by --allow {module_of(name)}" if can_be_named else ""
        raise InputError(
            f"{exported.name} contains the weights of {cut(named, 200)}, an architecture in your own code, which a "
            f"file cannot run: {mend}"
        )
    factory: Callable[..., nn.Module] = imported(name, "model")
    refuse_borrowed(factory, name, "model")
    return factory


def _as_built(model: nn.Module, weights: Path) -> nn.Module:
    """A module that was passed, inside a ``Sequential`` where the weights are of one that asgt had put it into."""

    stored = read_tensors(weights)[0].keys()
    is_whole = all(isinstance(getattr(model, part, None), nn.Module) for part in ("normalize", "net"))
    of_ours = all(name.startswith(("net.", "normalize.")) for name in stored)
    if is_whole or not of_ours or model.state_dict().keys() == stored:
        return model
    return nn.Sequential(OrderedDict(normalize=nn.Identity(), net=model))
