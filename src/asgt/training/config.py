"""What a run is: plain values that name data, model, method and attack, without importing any of them.

A :class:`TrainConfig` holds what a user asks for; ``None`` means that they left it to us. :meth:`TrainConfig.resolved`
fills in what the method and the data call for, and refuses what the method would ignore.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_type_hints

from ..datasets import augment_help, data_help, data_set, eps_help
from ..errors import DamagedFileError, InputError, unknown
from ..files import read_yaml, write_yaml
from ..numbers import Number, number, plain_fields

__all__ = [
    "ATTACKS",
    "DATA_SETTINGS",
    "MAY_CHANGE",
    "METHODS",
    "TrainConfig",
    "check_data_settings",
    "data_settings",
    "default_eps",
    "listens_to",
    "with_own_sizes",
]

_ATTACK = ("attack", "eps", "norm", "steps", "alpha", "warmup")
_MASK = ("k", "target", "rank", "unit", "fill", "kl", "detach_clean", "weight")

METHODS: dict[str, tuple[str, ...]] = {
    "st": (),
    "at": (*_ATTACK, "clean_weight"),
    "trades": ("eps", "norm", "steps", "alpha", "warmup", "weight"),
    "sgt": _MASK,
    "sga": (*_ATTACK, *_MASK),
    "asgt": (*_ATTACK, *_MASK),
}
"""The methods, and the settings that each of them listens to."""

ATTACKS: dict[str, tuple[str, ...]] = {
    "pgd": ("norm", "steps", "alpha"),
    "fgsm": (),
    "fgsm-rs": (),
}
"""The attacks inside a method, and the settings that each of them listens to beside ``eps``."""

_CHOICES: dict[str, tuple[str, ...]] = {
    "norm": ("linf", "l2"),
    "target": ("logit", "log_prob"),
    "rank": ("magnitude", "signed"),
    "unit": ("pixel", "element"),
    "fill": ("uniform", "mean", "zero"),
    "kl": ("forward", "reverse"),
    "schedule": ("constant", "cosine", "one-cycle"),
    "precision": ("fp32", "tf32", "bf16"),
    "augment": ("none", "crop-flip"),
    "keep": ("best", "last"),
    "interpolation": ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"),
    "decode": ("browser", "imagefolder"),
}

DATA_SETTINGS = (
    "image_size",
    "crop",
    "interpolation",
    "grey",
    "rgb",
    "decode",
    "pixel_range",
    "image_column",
    "label_column",
    "data_config",
)
"""The settings that say how images are read; :func:`asgt.data.load_data` takes them by the same names."""


MAY_CHANGE = ("cuda_graphs", "checkpoint_every", "tensorboard")
"""How a run is driven and watched may change when it is resumed; what it computes may not, but for rounding."""

_KINDS: dict[type, str] = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}


def default_eps(data: str) -> float:
    """The radius in L∞ that methods are trained and judged at on a data set unless somebody says another."""

    return data_set(data).eps


def listens_to(method: str, attack: str | None = None) -> set[str]:
    """The settings of method, attack and mask that a method listens to, with ``attack`` (default: PGD) inside.

    Raises:
        InputError: there is no such method or attack.
    """

    if method not in METHODS:
        raise unknown("method", method, METHODS)

    listens = set(METHODS[method])
    if "attack" in listens:
        attack = attack or "pgd"
        if attack not in ATTACKS:
            raise unknown("attack", attack, ATTACKS)
        listens -= {"norm", "steps", "alpha"} - set(ATTACKS[attack])
    return listens


def check_data_settings(settings: Mapping[str, Any]) -> None:
    """Refuses settings of how images are read that are wrong by themselves or beside each other.

    Args:
        settings: some of :data:`DATA_SETTINGS` by name; those that are ``None`` or ``False`` are not set.

    Raises:
        InputError: it names the setting.
    """

    given = {name: value for name in DATA_SETTINGS if (value := settings.get(name)) is not None and value is not False}
    for name in ("interpolation", "decode"):
        if name in given and given[name] not in _CHOICES[name]:
            raise unknown(name, str(given[name]), _CHOICES[name])
    if given.get("image_size", 1) < 1:
        raise InputError(f"image_size = {given['image_size']}: the side is a number of pixels")
    if not 0 < given.get("crop", 1.0) <= 1:
        raise InputError(f"crop = {given['crop']}: the share of the side that is kept lies above 0 and at most at 1")
    if "pixel_range" in given:
        _pixel_range(given["pixel_range"])
    if "grey" in given and "rgb" in given:
        raise InputError("grey and rgb contradict each other: leave --grey or --rgb out")
    for name in ("image_column", "label_column", "data_config"):
        if given.get(name) == "":
            raise InputError(f"{name} is empty: --{name.replace('_', '-')} takes a name")


def data_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for :func:`asgt.data.load_data`: what is set of :data:`DATA_SETTINGS`, checked.

    Args:
        settings: some of :data:`DATA_SETTINGS` by name; ``pixel_range`` as a text, ``"0,4095"``, or a pair.

    Raises:
        InputError: a setting cannot be meant.
    """

    check_data_settings(settings)
    given = {name: value for name in DATA_SETTINGS if (value := settings.get(name)) is not None and value is not False}
    if "pixel_range" in given:
        given["pixel_range"] = _pixel_range(given["pixel_range"])
    return given


class _Sizes(Protocol):
    """What :class:`asgt.models.Preprocessing` says of sizes; its import here would cost ``asgt --help`` PyTorch."""

    @property
    def image_size(self) -> int | None: ...

    @property
    def crop(self) -> float | None: ...

    @property
    def interpolation(self) -> str | None: ...


def with_own_sizes(settings: Mapping[str, Any], own: _Sizes | None) -> dict[str, Any]:
    """Settings of reading images, and under them those that a model's own configuration asks for.

    Args:
        settings: of a run or a command, by name, with ``data`` among them; ``None`` is not set.
        own: what the model's configuration says of its images.
    """

    given = {name: value for name, value in settings.items() if value is not None}
    # Embedded images are used as they are, and a share of the side says nothing without a size.
    reads_options = data_set(given["data"]).reads_options
    if own is None or not reads_options or (own.image_size is None and "image_size" not in given):
        return given
    sizes = {"image_size": own.image_size, "crop": own.crop, "interpolation": own.interpolation}
    return {name: value for name, value in sizes.items() if value is not None} | given


def _pixel_range(value: Any) -> tuple[float, float]:
    """The two ends that ``"0,4095"``, or a pair of numbers, stands for."""

    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or len(parts) != 2:
        raise InputError(f"pixel_range = {value}: the lowest and the highest value are needed, as 0,4095")
    low, high = (number(part.strip() if isinstance(part, str) else part, "pixel_range") for part in parts)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"pixel_range = {value}: the lowest value comes first, then the highest, as 0,4095")
    return low, high


def _pixel_range_text(value: Any) -> str:
    """A range as it stands in ``config.yaml``, always spelled the same."""

    return ",".join(str(int(end)) if end.is_integer() else repr(end) for end in _pixel_range(value))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Args:
        data: [DATA SETS], a hub id, or a folder of images or parquet files
        model: small_cnn, alexnet, resnet18, timm:NAME, hf:FOLDER_OR_ID, or package.module:factory
        method: st, at, trades, sgt, sga or asgt
        attack: the attack inside AT, SGA and ASGT: pgd (default), fgsm or fgsm-rs
        eps: the attack's radius in [0, 1], as 8/255 (default: [EPS])
        norm: linf (default) or l2
        steps: steps of PGD (default: 7)
        alpha: length of a PGD step (default: 2.5 eps / steps)
        warmup: share of the training over which eps ramps up from 0 (default: 0.3 for eps of 0.1 and more, else 0)
        k: share of the features that the mask fills, in (0, 1] (default: 0.1)
        target: saliency of the true label's logit (default) or its log_prob
        rank: mask the lowest magnitude (default) or the lowest signed gradients
        unit: rank each pixel (default) or each element
        fill: fill masked features with uniform noise in the sample's range (default), its mean, or zero
        kl: forward, D(masked || clean), as in the paper (default), or reverse
        detach_clean: let no gradient flow through the clean side of the divergence (default: it flows)
        weight: weight of the divergence: lambda of SGT, SGA, ASGT (default: 1), beta of TRADES (default: 6)
        clean_weight: weight of the clean loss in AT (default: 0)
        width: factor on the model's hidden layers (default: the model's own, 1)
        dropout: dropout of alexnet (default: its own, 0.5)
        epochs: passes over the training images
        batch_size: images per step
        lr: peak learning rate of SGD
        momentum: momentum of SGD
        weight_decay: weight decay of SGD
        schedule: constant, cosine or one-cycle learning rate
        average: decay of an exponential average of the weights, which then is what counts (default: none)
        keep: which epoch's weights are the model: best on the validation part, or last
        seed: fixes initialisation, order, augmentation, attack and mask
        limit: train on at most so many images, stratified (default: all)
        validation: share of the training images that only picks the epoch, at most 2,000 of them
        augment: none or crop-flip (default: [AUGMENT])
        image_size: resize the short side and crop the centre (default: as they are)
        crop: share of the resized short side that the centre crop keeps, in (0, 1] (default: 1)
        interpolation: of resizing: bilinear (default), bicubic, nearest, lanczos, box or hamming
        grey: make the images grey
        rgb: give grey images three channels
        decode: browser (default), which turns images as their EXIF says and puts transparent ones on white, or
            imagefolder, which does neither, as torchvision's ImageFolder
        pixel_range: the values of black and white in 16-bit and float images, as 0,4095 (default: by the type)
        image_column: the column of the images, where several could be meant
        label_column: the column of the labels, where several could be meant
        data_config: the configuration of a hub data set
        device: auto, cpu, cuda, cuda:N or mps
        precision: fp32, where PyTorch gives only convolutions to the tensor cores of a CUDA device; tf32, where matrix
            products go there too; or bf16 autocast
        cuda_graphs: on one CUDA device, record a step and replay it: for small nets, whose launches take longer than
            their arithmetic
        checkpoint_every: seconds between checkpoints, beside one at the end of each epoch
        tensorboard: also write the metrics for TensorBoard
    """

    data: str = "digits"
    model: str = "small_cnn"
    method: str = "asgt"

    attack: str | None = None
    eps: Number | None = None
    norm: Literal["linf", "l2"] | None = None
    steps: int | None = None
    alpha: Number | None = None
    warmup: float | None = None

    k: float | None = None
    target: Literal["logit", "log_prob"] | None = None
    rank: Literal["magnitude", "signed"] | None = None
    unit: Literal["pixel", "element"] | None = None
    fill: Literal["uniform", "mean", "zero"] | None = None
    kl: Literal["forward", "reverse"] | None = None
    detach_clean: bool | None = None
    weight: float | None = None
    clean_weight: float | None = None

    width: float | None = None
    dropout: float | None = None

    epochs: int = 10
    batch_size: int = 128
    lr: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Literal["constant", "cosine", "one-cycle"] = "one-cycle"
    average: float | None = None
    keep: Literal["best", "last"] = "best"
    seed: int = 0

    limit: int | None = None
    validation: float = 0.1
    augment: Literal["none", "crop-flip"] | None = None
    image_size: int | None = None
    crop: float | None = None
    interpolation: Literal["bilinear", "bicubic", "nearest", "lanczos", "box", "hamming"] | None = None
    grey: bool = False
    rgb: bool = False
    decode: Literal["browser", "imagefolder"] | None = None
    pixel_range: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    data_config: str | None = None

    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    cuda_graphs: bool = False
    checkpoint_every: float = 300.0
    tensorboard: bool = False

    def resolved(self) -> TrainConfig:
        """The same run with every setting that it listens to filled in, and the others left ``None``.

        Numbers become Python's own, those of numpy too, as YAML and JSON hold them; so do texts and truth values.

        Raises:
            InputError: a name is unknown, a value cannot be meant, or the method ignores a setting that is set.
        """

        return dataclasses.replace(self)._plain()._filled()

    def _plain(self) -> TrainConfig:
        """Makes the values of this very object Python's own, each of the type of its setting."""

        plain_fields(self)
        for field in dataclasses.fields(self):
            kind, value = str(field.type), getattr(self, field.name)
            plain = value
            if value is None and "None" in kind:
                continue
            if value is None:
                raise InputError(f"{field.name} = None: a value is needed")
            if kind.startswith("bool"):
                plain = value.item() if hasattr(value, "item") else value
                if not isinstance(plain, int) or plain not in (0, 1):
                    raise InputError(f"{field.name} = {value!r}: true or false is needed")
                plain = bool(plain)
            elif field.name == "pixel_range":
                plain = _pixel_range_text(value)
            elif kind.startswith(("str", "Literal")):
                if not isinstance(value, (str, os.PathLike)):
                    raise InputError(f"{field.name} = {value!r}: a word is needed")
                plain = str(os.fspath(value))
            elif kind.startswith("Number") and not isinstance(value, str):
                plain = number(value, field.name)
            if type(plain) is not type(value) or plain != value:
                object.__setattr__(self, field.name, plain)
        return self

    def _filled(self) -> TrainConfig:
        listens = listens_to(self.method, self.attack)
        attack = (self.attack or "pgd") if "attack" in listens else None

        for name in sorted({*_ATTACK, *_MASK, "clean_weight"} - listens):
            if getattr(self, name) is not None:
                with_attack = f" with attack {attack}" if attack and name in METHODS[self.method] else ""
                flag = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise InputError(f"{flag}: method {self.method}{with_attack} ignores it, leave it out")

        eps = None if self.eps is None else number(self.eps, "eps")
        if eps is None:
            eps = default_eps(self.data)
        defaults: dict[str, Any] = {
            "attack": attack,
            "eps": eps,
            "norm": "linf",
            "steps": 7,
            "alpha": None,
            "warmup": 0.3 if eps >= 0.1 else 0.0,
            "k": 0.1,
            "target": "logit",
            "rank": "magnitude",
            "unit": "pixel",
            "fill": "uniform",
            "kl": "forward",
            "detach_clean": False,
            "weight": 6.0 if self.method == "trades" else 1.0,
            "clean_weight": 0.0,
        }
        filled = {name: defaults[name] for name in listens if getattr(self, name) is None}
        if "eps" in listens:
            filled["eps"] = eps
        if "alpha" in listens and self.alpha is not None:
            filled["alpha"] = number(self.alpha, "alpha")
        if self.augment is None:
            filled["augment"] = data_set(self.data).augment

        config = dataclasses.replace(self, **filled)
        config._check()
        return config

    def _check(self) -> None:
        for name, choices in _CHOICES.items():
            if (value := getattr(self, name)) is not None and value not in choices:
                raise unknown(name, str(value), choices)

        def require(name: str, holds: bool, says: str) -> None:
            if not holds:
                raise InputError(f"{name} = {getattr(self, name)}: {says}")

        require("epochs", self.epochs >= 1, "training takes at least one pass over the images")
        require("batch_size", self.batch_size >= 1, "a step takes at least one image")
        require("seed", self.seed >= 0, "a seed is a whole number, zero or more")
        require("steps", self.steps is None or self.steps >= 1, "an attack takes at least one step")
        require("limit", self.limit is None or self.limit >= 2, "training takes at least two images")
        check_data_settings(self.to_dict())

        if self.eps is not None:
            from_user = float(self.eps)
            require("eps", math.isfinite(from_user) and from_user >= 0, "the radius is a finite number, zero or more")
            require(
                "eps",
                self.norm == "l2" or from_user <= 1,
                f"beyond the pixels' range [0, 1] in L∞; write {from_user:g}/255 if that is meant",
            )
        if self.alpha is not None:
            length = float(self.alpha)
            require("alpha", 0 < length < math.inf, "a step's length is above zero")
            require(
                "alpha",
                self.norm == "l2" or length <= 1,
                f"beyond the pixels' range [0, 1] in L∞; write {length:g}/255 if that is meant",
            )
        require("k", self.k is None or 0 < self.k <= 1, "the share of masked features lies above 0 and at most at 1")
        require("warmup", self.warmup is None or 0 <= self.warmup < 1, "the share lies in [0, 1)")
        require("lr", 0 < self.lr < math.inf, "the learning rate is above zero")
        require("momentum", 0 <= self.momentum < 1, "momentum lies in [0, 1)")
        require("average", self.average is None or 0 < self.average < 1, "the average's decay lies between 0 and 1")
        require("validation", 0 < self.validation < 1, "the share lies between 0 and 1")
        require("checkpoint_every", self.checkpoint_every >= 0, "seconds, zero or more")
        for name in ("weight_decay", "weight", "clean_weight"):
            value = getattr(self, name)
            require(name, value is None or 0 <= value < math.inf, "a weight is a finite number, zero or more")

    def data_settings(self) -> dict[str, Any]:
        """How the images are read: keyword arguments for :func:`asgt.data.load_data`, beside name and limit.

        A model ``hf:…`` has its own image size, crop and interpolation, unless they are set.
        """

        if not self.model.startswith("hf:"):
            return data_settings(self.to_dict())
        from ..models import preprocessing

        return data_settings(with_own_sizes(self.to_dict(), preprocessing(self.model)))

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, as it stands in ``config.yaml``."""

        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> TrainConfig:
        """The configuration that a mapping holds; ``where`` names it in an error.

        Raises:
            DamagedFileError: a name is unknown, or a value is of the wrong kind.
        """

        cls.check_kinds(values, where)
        try:
            return cls(**values).resolved()
        except InputError as error:
            raise DamagedFileError(f"{where} is damaged: {error}") from error

    @classmethod
    def check_kinds(cls, values: Mapping[str, Any], where: str) -> None:
        """Refuses settings that there are not, and values of another kind than theirs.

        Raises:
            DamagedFileError: it names the setting; ``where`` names the file.
        """

        hints = get_type_hints(cls)
        for name, value in values.items():
            if name not in hints:
                raise DamagedFileError(f"{where} is damaged: {unknown('setting', str(name), hints)}")
            kinds = {kind if isinstance(kind, type) else str for kind in get_args(hints[name]) or (hints[name],)}
            if type(value) not in kinds and not (type(value) is int and float in kinds):
                expected = " or ".join(sorted(_KINDS[kind] for kind in kinds if kind in _KINDS))
                raise DamagedFileError(f"{where} is damaged: {name} = {value}: expected {expected}")

    def refuse_other(self, asked: Mapping[str, Any], where: str) -> None:
        """Refuses what contradicts this configuration, the stored one of the run ``where``.

        Raises:
            InputError: it names the setting.
        """

        for name, value in asked.items():
            kept = getattr(self, name)
            if name in ("eps", "alpha") and value is not None:
                value = number(value, name)
            if name == "pixel_range" and value is not None:
                value = _pixel_range_text(value)
            if name not in MAY_CHANGE and value != kept:
                flag = f"--{name.replace('_', '-')}"
                raise InputError(f"{where} was begun with {name} = {kept}, not {value}: leave {flag} out to resume")

    def save(self, path: Path) -> None:
        """Writes the configuration as YAML."""

        write_yaml(path, self.to_dict())

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Reads the configuration of a run folder; nothing in it can run."""

        return cls.from_dict(read_yaml(path), str(path))


# The help texts of asgt train are those of this docstring, and the data sets have one registry.
TrainConfig.__doc__ = (
    (TrainConfig.__doc__ or "")
    .replace("[DATA SETS]", data_help())
    .replace("[EPS]", eps_help())
    .replace("[AUGMENT]", augment_help())
)
