"""The configuration of a run: plain values that name data, model, method and attack, without importing them.

A :class:`TrainConfig` holds the user's settings; ``None`` means the default. :meth:`TrainConfig.resolved` fills in
the defaults for the method and the data, and refuses settings that the method ignores.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_type_hints

from ..capacity import refuse_time, time_text
from ..datasets import augment_help, data_help, data_set, eps_help
from ..errors import DamagedFileError, InputError, cut, shown, unknown
from ..files import read_yaml, write_yaml
from ..names import is_allowed, is_foreign, refuse_unless_allowed
from ..numbers import Number, in_float32, literals, number, plain_fields
from ..records import REQUIRED, Setting
from ..shortcuts import shortcut_help, shortcut_named
from .augmentation_registry import AUGMENTATIONS, augmentations_help
from .method_registry import (
    ATTACKS,
    METHODS,
    OF_ATTACKS,
    OF_MASKS,
    OF_METHODS,
    known_settings,
    listens_to,
    method_settings,
)
from .optimizers import OPTIMIZER_SETTINGS, optimizer_settings
from .tracker_registry import trackers_help, trackers_text

__all__ = [
    "ATTACKS",
    "DATA_SETTINGS",
    "MAY_CHANGE",
    "METHODS",
    "METHOD_SETTINGS",
    "Settings",
    "TrainConfig",
    "channel_numbers",
    "check_data_settings",
    "class_weights",
    "data_settings",
    "default_eps",
    "flag_of",
    "listens_to",
    "with_own_sizes",
]

METHOD_SETTINGS = (*OF_ATTACKS, *OF_MASKS, *OF_METHODS)
"""The fields of :class:`TrainConfig` that are settings of methods, attacks and masks; others are in ``settings``."""

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
"""The settings for reading images; :func:`asgt.data.load_data` has the same names."""


MAY_CHANGE = ("cuda_graphs", "checkpoint_every", "tracker", "tensorboard")
"""How a run is driven and watched may change when it is resumed; what it computes may not, but for rounding."""

_EPOCH = 5e-3
"""A lower bound of the duration of an epoch in seconds, because it ends with a checkpoint on disk."""

_STEP, _MOST_STEPS = 2e-5, 100_000
"""A lower bound of the duration of an attack step on a batch in seconds, and the largest number of steps: published
attacks use thousands.
"""

_KINDS: dict[type, str] = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}


def flag_of(name: str) -> str:
    """The flag of a setting: ``--batch-size`` of ``batch_size``. ``from`` is not a valid name in Python."""

    return "--from" if name == "from_run" else f"--{name.replace('_', '-')}"


def default_eps(data: str) -> float:
    """The default L∞ radius of training and evaluation on a data set."""

    return data_set(data).eps


def check_data_settings(settings: Mapping[str, Any]) -> None:
    """Refuses settings for reading images that are invalid or contradict each other.

    Args:
        settings: some of :data:`DATA_SETTINGS` by name; those that are ``None`` or ``False`` are not set.

    Raises:
        InputError: it names the setting.
    """

    given = {name: value for name in DATA_SETTINGS if (value := settings.get(name)) is not None and value is not False}
    for name in ("interpolation", "decode"):
        if name in given and given[name] not in (known := literals(TrainConfig, name)):
            raise unknown(name, str(given[name]), known)
    if given.get("image_size", 1) < 1:
        raise InputError(f"image_size = {shown(given['image_size'])}: give the side in pixels, from 1 on")
    if not 0 < given.get("crop", 1.0) <= 1:
        raise InputError(f"crop = {given['crop']}: give the share of the side to keep, above 0 and at most 1")
    if "pixel_range" in given:
        _pixel_range(given["pixel_range"])
    if "grey" in given and "rgb" in given:
        raise InputError("--grey and --rgb exclude each other: remove one of them")
    for name in ("image_column", "label_column", "data_config"):
        if given.get(name) == "":
            raise InputError(f"{name} is empty: give a name to --{name.replace('_', '-')}")


def data_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for :func:`asgt.data.load_data`: the given values of :data:`DATA_SETTINGS`, checked.

    Args:
        settings: some of :data:`DATA_SETTINGS` by name; ``pixel_range`` as a text, ``"0,4095"``, or a pair.

    Raises:
        InputError: a setting is invalid.
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
    """The settings for reading images, with those of a model's own configuration as defaults.

    Args:
        settings: of a run or a command, by name, with ``data`` among them; ``None`` is not set.
        own: the image settings of the model's configuration.
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
        raise InputError(f"pixel_range = {shown(value)}: give the lowest and the highest value, as 0,4095")
    low, high = (number(part.strip() if isinstance(part, str) else part, "pixel_range") for part in parts)
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"pixel_range = {shown(value)}: give the lowest value first, then the highest, as 0,4095")
    return low, high


def _listed(value: Any, name: str) -> tuple[float, ...]:
    """The numbers in ``"0.5,2,1"``, an array or a list of them; none where it is invalid."""

    parts = value.split(",") if isinstance(value, str) else value.tolist() if hasattr(value, "tolist") else value
    try:
        return tuple(number(part.strip() if isinstance(part, str) else part, name) for part in parts)
    except (InputError, TypeError):
        return ()


def class_weights(value: Any) -> tuple[float, ...] | None:
    """Parses ``"0.5,2,1"`` or a list of numbers to the weight of each class; ``None`` for ``"balanced"``.

    Raises:
        InputError: it is invalid, a weight is negative or not finite, or all are zero.
    """

    if isinstance(value, str) and value.strip() == "balanced":
        return None
    weights = _listed(value, "class_weights")
    if not weights:
        raise InputError(
            f"class_weights = {shown(value)}: give balanced, or one number for each class, such as "
            "0.5,2,1 for three classes"
        )
    for place, weight in enumerate(weights):
        if in_float32(weight, f"class_weights[{place}]") < 0:
            raise InputError(f"class_weights[{place}] = {weight:g}: give a finite number, zero or more")
    if not any(weights):
        raise InputError(f"class_weights = {shown(value)}: every weight is zero: give at least one above zero")
    return weights


def _numbers_text(numbers: tuple[float, ...]) -> str:
    """Numbers as they stand in ``config.yaml``, always spelled the same."""

    return ",".join(str(int(each)) if each.is_integer() else repr(each) for each in numbers)


def _class_weights_text(value: Any) -> str:
    weights = class_weights(value)
    return "balanced" if weights is None else _numbers_text(weights)


def channel_numbers(value: Any, name: str) -> tuple[float, ...]:
    """Parses ``"0.485,0.456,0.406"``, a number or a list to a number per channel, or one for all.

    Raises:
        InputError: it is invalid.
    """

    value = value.tolist() if hasattr(value, "tolist") else value
    numbers = _listed(value if isinstance(value, (str, list, tuple)) else [value], name)
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(
            f"{name} = {shown(value)}: give a number per channel, in units of [0, 1], such as 0.485,0.456,0.406"
        )
    for each in numbers:
        in_float32(each, name)
    return numbers


_TEXTS: dict[str, Callable[[Any], str]] = {
    "pixel_range": lambda value: _numbers_text(_pixel_range(value)),
    "class_weights": _class_weights_text,
    "mean": lambda value: _numbers_text(channel_numbers(value, "mean")),
    "std": lambda value: _numbers_text(channel_numbers(value, "std")),
    "shortcut": lambda value: str(shortcut_named(value)),
    "tracker": trackers_text,
}
"""The parsers of settings with several values; ``config.yaml`` has their canonical text."""


class Settings(dict[str, Any]):
    """Immutable settings by name, with a hash, so that a configuration can be an element of a set."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Args:
        data: [DATA SETS], a hub id, or a folder of images or parquet files
        model: small_cnn, alexnet, resnet18, timm:NAME, hf:FOLDER_OR_ID, or package.module:factory
        method: the training method: one of asgt's, or package.module:Name
        attack: the attack inside the method: one of asgt's (default: pgd), or package.module:Name
        eps: the attack's radius in [0, 1], as 8/255 (default: [EPS])
        norm: linf (default) or l2
        steps: steps of PGD (default: 7)
        alpha: length of a PGD step (default: 2.5 eps / steps)
        warmup: share of the training over which eps ramps up from 0 (default: 0.3 for eps of 0.1 and more, else 0)
        k: share of the features that the mask fills, in [0, 1] (default: 0.1); 0 masks none
        target: saliency of the true label's logit (default) or its log_prob
        rank: mask the lowest magnitude (default), the lowest signed gradients, or the same number of features at random
        unit: rank each pixel (default) or each element
        fill: fill masked features with uniform noise in the sample's range (default), its mean, or zero
        kl: forward, D(masked || clean), as in the paper (default), or reverse
        detach_clean: stop the gradient through the clean side of the divergence (default: false)
        weight: weight of the divergence: lambda of SGT, SGA, ASGT (default: 1), beta of TRADES (default: 6); weight
            of RRR's penalty (default: 1)
        clean_weight: weight of the clean loss in AT (default: 0)
        width: factor on the model's hidden layers (default: the model's own, 1)
        dropout: dropout of alexnet (default: its own, 0.5)
        weights: start from the weights in this file, safetensors or of torch.save; the layer that gives the logits
            is replaced if the file has another number of classes (default: random weights)
        from_run: start from the weights of this finished run folder, with its model, width and dropout; its image
            size, crop and interpolation are the defaults
        mean: mean per channel of the model's normalisation, in units of [0, 1], such as 0.485,0.456,0.406 (default:
            from the weights, else from the model's own configuration, else none; without weights, from the training
            images)
        std: standard deviation per channel, in units of [0, 1] (default: as for mean)
        epochs: passes over the training images; 0 saves the given weights unchanged, to compare them with trained
            ones
        batch_size: images per step
        optimizer: sgd or adamw
        lr: peak learning rate (default: 0.05 for sgd, 0.001 for adamw)
        head_lr: peak learning rate of the layer that gives the logits, on the same schedule (default: lr)
        momentum: momentum of sgd (default: 0.9)
        weight_decay: weight decay (default: 0.0005 for sgd; 0.01 for adamw, which decouples it)
        clip_norm: largest L2 norm of the gradient of all weights together; a longer one is scaled down (default: none)
        label_smoothing: share of each label that the loss spreads over all classes, in [0, 1) (default: 0)
        class_weights: weights of the classes in the loss: balanced, or one number for each class, such as 0.5,2,1
            (default: all 1)
        schedule: constant, cosine or one-cycle learning rate
        average: decay of an exponential average of the weights, which is then evaluated and saved (default: none)
        keep: the epoch whose weights are saved: best on the validation part (of equal ones the first), or last
        seed: fixes initialisation, order, augmentation, attack and mask
        limit: largest number of training images, stratified (default: all)
        validation: share of the training images that is used only to select the epoch, at most 2,000 images
        augment: [AUGMENTATIONS] (default: [AUGMENT]; none with a shortcut)
        image_size: resize the short side and crop the centre (default: unchanged)
        crop: share of the resized short side that the centre crop keeps, in (0, 1] (default: 1)
        interpolation: of resizing: bilinear (default), bicubic, nearest, lanczos, box or hamming
        grey: convert the images to grey
        rgb: give grey images three channels
        decode: browser (default), which rotates images by their EXIF data and puts transparent ones on white, or
            imagefolder, which does neither, like torchvision's ImageFolder
        pixel_range: the values of black and white in 16-bit and float images, as 0,4095 (default: by the type)
        image_column: the column of the images, if there are several candidates
        label_column: the column of the labels, if there are several candidates
        data_config: the configuration of a hub data set
        shortcut: plant a shortcut in the training images, such as patch:0.99 or patch:0.99,size=4,contrast=0.5: one of
            [SHORTCUTS], the share of images in which it agrees with the label, and its settings (default: none)
        device: auto, cpu, cuda, cuda:N or mps
        precision: fp32, where PyTorch gives only convolutions to the tensor cores of a CUDA device; tf32, where matrix
            products go there too; or bf16 autocast
        cuda_graphs: on one CUDA device, record a step and replay it: for small nets, whose launches take longer than
            their arithmetic
        checkpoint_every: seconds between checkpoints, beside one at the end of each epoch
        tracker: also log settings and metrics to trackers: [TRACKERS], or several, separated by commas (default: none)
        tensorboard: another spelling of the tracker tensorboard
        settings: settings of the method and its attack that have no field above, by name

    Raises:
        InputError: a value is invalid; :meth:`resolved` checks what depends on the method and the data.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(data="digits", method="at", steps=5).resolved()
        >>> config.eps, config.attack, config.k
        (0.1, 'pgd', None)
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
    rank: Literal["magnitude", "signed", "random"] | None = None
    unit: Literal["pixel", "element"] | None = None
    fill: Literal["uniform", "mean", "zero"] | None = None
    kl: Literal["forward", "reverse"] | None = None
    detach_clean: bool | None = None
    weight: float | None = None
    clean_weight: float | None = None

    width: float | None = None
    dropout: float | None = None
    weights: str | None = None
    from_run: str | None = None
    mean: str | None = None
    std: str | None = None

    epochs: int = 10
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float | None = None
    head_lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    clip_norm: float | None = None
    label_smoothing: float | None = None
    class_weights: str | None = None
    schedule: Literal["constant", "cosine", "one-cycle"] = "one-cycle"
    average: float | None = None
    keep: Literal["best", "last"] = "best"
    seed: int = 0

    limit: int | None = None
    validation: float = 0.1
    augment: str | None = None
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
    shortcut: str | None = None

    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    cuda_graphs: bool = False
    checkpoint_every: float = 300.0
    tracker: str | None = None
    tensorboard: bool = False

    settings: dict[str, Any] = field(default_factory=Settings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", Settings(self.settings))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration of settings by name, as :meth:`to_dict` gives them: those without a field become
        ``settings``.
        """

        known = {each.name for each in dataclasses.fields(cls)}
        extra = {name: value for name, value in values.items() if name not in known}
        typed = {name: value for name, value in values.items() if name in known}
        return cls(**typed | {"settings": dict(typed.get("settings", {})) | extra})

    def resolved(self, *, allow: Collection[str] = ()) -> TrainConfig:
        """The same run with every setting that it uses filled in; the others are ``None``.

        Numbers, strings and truth values, including numpy's, become Python's own types, as in YAML and JSON.

        Args:
            allow: the modules whose code may run to find the settings of a method or attack, as for
                :func:`asgt.names.is_allowed`. The settings of other foreign methods and attacks are unchanged.

        Raises:
            InputError: a name is unknown, a value is invalid, or the method ignores a given setting.
        """

        config = dataclasses.replace(self)._plain()
        filled = config._settled() if config._is_known(allow) else {}
        filled |= optimizer_settings(config.optimizer, config.optimizer_settings())
        if self.augment is None:
            # What shifts and mirrors the image would shift, mirror and cut the shortcut.
            filled["augment"] = "none" if self.shortcut is not None else data_set(self.data).augment
        config = dataclasses.replace(config, **filled)
        config._check()
        return config

    def optimizer_settings(self) -> dict[str, float | None]:
        """The settings of the optimizer by name, as :func:`asgt.training.optimizers.make_optimizer` takes them."""

        return {name: getattr(self, name) for name in OPTIMIZER_SETTINGS}

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names of the trackers that the training logs to."""

        named = [] if self.tracker is None else trackers_text(self.tracker).split(",")
        return tuple(dict.fromkeys([*named, *(["tensorboard"] if self.tensorboard else [])]))

    @property
    def has_start(self) -> bool:
        """Whether the training starts from given weights, those of a file or of another run."""

        return self.weights is not None or self.from_run is not None

    @property
    def has_given_weights(self) -> bool:
        """Whether the model has weights before training: those that it starts from, or those of its factory."""

        return self.has_start or self.model.startswith("hf:") or is_foreign(self.model)

    @property
    def has_foreign_method(self) -> bool:
        """Whether the method or its attack is the user's code."""

        return is_foreign(self.method) or is_foreign(self.attack or "")

    def _is_known(self, allow: Collection[str]) -> bool:
        """Whether the settings of method and attack are known without running code that is not allowed."""

        return all(is_allowed(name, allow) for name in (self.method, self.attack or "") if is_foreign(name))

    def refuse_foreign(self, allow: Collection[str], where: str, *, flags: bool = False) -> None:
        """Refuses a foreign model, method or attack whose code is not allowed to run.

        Args:
            allow: the modules that the user named, as for :func:`asgt.names.is_allowed`.
            where: the file or the run that holds this configuration.
            flags: whether the current command has the flags ``--model``, ``--method`` and ``--attack``.

        Raises:
            InputError: it gives the flag to add.
        """

        for what in ("model", "method", "attack"):
            name = getattr(self, what) or ""
            refuse_unless_allowed(name, allow, where, what=what, flag=f"--{what}" if flags else None)

    def own_code(self, *, trains: bool = False) -> list[str]:
        """The flags that name the user's own code again: without them, a command on the run refuses to run it.

        Args:
            trains: whether the command trains, which also needs method and attack.
        """

        named = {"--model": self.model} | ({"--method": self.method, "--attack": self.attack or ""} if trains else {})
        return [word for flag, name in named.items() if is_foreign(name) for word in (flag, name)]

    def _plain(self) -> TrainConfig:
        """Makes the values of this very object Python's own, each of the type of its setting."""

        plain_fields(self)
        if taken := sorted(set(self.settings) & {*_typed(type(self)), "settings"}):
            raise InputError(f"settings holds {taken[0]}, which has its own field: use TrainConfig({taken[0]}=…)")
        for each in dataclasses.fields(self):
            name, kind, value = each.name, str(each.type), getattr(self, each.name)
            plain = value
            if value is None or name == "settings":
                continue
            if name in _TEXTS:
                plain = _TEXTS[name](value)
            elif kind.startswith("str"):
                if not isinstance(value, (str, os.PathLike)):
                    raise InputError(f"{name} = {shown(value)}: give a string")
                plain = str(os.fspath(value))
                if "\0" in plain:
                    raise InputError(
                        f"{name} = {shown(plain)} contains a character that names cannot have: write it again"
                    )
            elif kind.startswith("Number") and not isinstance(value, str):
                plain = number(value, name)
            if type(plain) is not type(value) or plain != value:
                object.__setattr__(self, name, plain)
        return self

    def _settled(self) -> dict[str, Any]:
        """The values of the settings that the method listens to; the others must not be set."""

        known = method_settings(self.method, self.attack)
        trained = {each.name for each in dataclasses.fields(self)} - {*METHOD_SETTINGS}
        if taken := sorted(trained & set(known)):
            raise InputError(
                f"method {self.method} has a field {taken[0]}, which is also a setting of the training: give it "
                f'another name with stored_as = {{"{taken[0]}": "my_{taken[0]}"}}'
            )
        attack = (self.attack or known["attack"].default) if "attack" in known else None
        self._refuse_ignored(known, attack)

        eps = None if self.eps is None else number(self.eps, "eps")
        if eps is None:
            default = known["eps"].default if "eps" in known else REQUIRED
            eps = default_eps(self.data) if default in (REQUIRED, None) else number(default, "eps")
        by_data = {"eps": eps, "warmup": 0.3 if eps >= 0.1 else 0.0}
        filled: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, setting in known.items():
            value = getattr(self, name) if name in METHOD_SETTINGS else self.settings.get(name)
            if name in self.settings and value is None and type(None) in setting.types:
                extra[name] = None  # None is a value where the setting takes it
                continue
            if value is None:
                value = by_data.get(name, setting.default) if setting.default is REQUIRED else setting.default
            if value is REQUIRED:
                raise InputError(f"method {self.method} needs a value: --{name.replace('_', '-')}")
            if name in METHOD_SETTINGS:
                filled[name] = value
            else:
                extra[name] = None if value is None else setting.plain(value)
        if "eps" in known:
            filled["eps"] = eps
        if "alpha" in known and self.alpha is not None:
            filled["alpha"] = number(self.alpha, "alpha")
        return filled | {"settings": extra}

    def _refuse_ignored(self, known: Mapping[str, Setting], attack: str | None) -> None:
        """Refuses settings that are set and that the method does not listen to."""

        given = {name: getattr(self, name) for name in METHOD_SETTINGS} | self.settings
        for name in sorted(set(given) - set(known)):
            if given[name] is None:
                continue
            if name not in METHOD_SETTINGS and name not in known_settings():
                raise unknown("setting", name, {*_typed(type(self)), *known})
            with_attack = f" with attack {attack}" if attack and name in listens_to(self.method) else ""
            value = given[name]
            flag = f"--{name.replace('_', '-')} {cut(value) if isinstance(value, str) else shown(value)}"
            raise InputError(f"{flag}: method {self.method}{with_attack} ignores it, remove it")

    def _check(self) -> None:
        if self.augment is not None and self.augment not in AUGMENTATIONS:
            raise unknown("augment", self.augment, AUGMENTATIONS)

        def require(name: str, holds: bool, says: str) -> None:
            if not holds:
                value = getattr(self, name)
                raise InputError(f"{name} = {cut(value) if isinstance(value, str) else shown(value)}: {says}")

        require("epochs", self.epochs >= 0, "give a whole number of passes over the images, zero or more")
        require(
            "epochs",
            self.epochs >= 1 or self.has_given_weights,
            f"{self.model} has random weights until it is trained: give --weights, --from or at least one epoch",
        )
        require("batch_size", self.batch_size >= 1, "give at least one image")
        require("seed", 0 <= self.seed < 2**128, "give a whole number from 0, with at most 38 digits")
        require("steps", self.steps is None or self.steps >= 1, "give at least one step")
        require("limit", self.limit is None or self.limit >= 2, "give at least two images")
        check_data_settings(self.to_dict())
        self.check_start()
        self._check_effort()
        for each in dataclasses.fields(self):
            value = getattr(self, each.name)
            if type(value) is int and each.name != "seed":
                require(each.name, value < 2**63, "give a whole number with at most 18 digits")
            if str(each.type).startswith(("float", "Number")) and value is not None:
                value = number(value, each.name)
                if math.isfinite(value):
                    in_float32(value, each.name)

        if self.eps is not None:
            from_user = float(self.eps)
            require("eps", math.isfinite(from_user) and from_user >= 0, "give a finite number, zero or more")
            require(
                "eps",
                self.norm == "l2" or from_user <= 1,
                f"beyond the pixels' range [0, 1] in L∞; write {from_user:g}/255 if you mean that",
            )
        if self.alpha is not None:
            length = float(self.alpha)
            require("alpha", 0 < length < math.inf, "give a step size above zero")
            require(
                "alpha",
                self.norm == "l2" or length <= 1,
                f"beyond the pixels' range [0, 1] in L∞; write {length:g}/255 if you mean that",
            )
        require("k", self.k is None or 0 <= self.k <= 1, "give a share in [0, 1]; 0 masks none")
        require("warmup", self.warmup is None or 0 <= self.warmup < 1, "give a share in [0, 1)")
        require("lr", self.lr is None or 0 < self.lr < math.inf, "give a learning rate above zero")
        require("head_lr", self.head_lr is None or 0 < self.head_lr < math.inf, "give a learning rate above zero")
        require("momentum", self.momentum is None or 0 <= self.momentum < 1, "give a value in [0, 1)")
        require("clip_norm", self.clip_norm is None or 0 < self.clip_norm < math.inf, "give a finite number above zero")
        smoothing = self.label_smoothing
        require("label_smoothing", smoothing is None or 0 <= smoothing < 1, "give a share in [0, 1)")
        require("average", self.average is None or 0 < self.average < 1, "give a decay between 0 and 1")
        require("validation", 0 < self.validation < 1, "give a share between 0 and 1")
        require("checkpoint_every", self.checkpoint_every >= 0, "give seconds, zero or more")
        for name in ("weight_decay", "weight", "clean_weight"):
            value = getattr(self, name)
            require(name, value is None or 0 <= value < math.inf, "give a finite number, zero or more")

    def check_start(self) -> None:
        """Refuses settings of a training's start that contradict each other or are incomplete."""

        for name, other in (("mean", "std"), ("std", "mean")):
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise InputError(f"--{name} without --{other}: give them together, or neither")
        for name, what in (("weights", "a file of weights"), ("from_run", "a run folder")):
            if getattr(self, name) == "":
                raise InputError(f"{name} is empty: give {what} to {flag_of(name)}")
        if self.weights is not None and self.from_run is not None:
            raise InputError("--weights and --from exclude each other: remove one of them")

    def _check_effort(self) -> None:
        """Refuses counts that no machine gets to the end of."""

        epochs, steps = shown(self.epochs), self.steps or 1
        refuse_time(min(self.epochs, 10**30) * _EPOCH, f"epochs = {epochs}: a training", "use fewer --epochs")
        if steps > _MOST_STEPS:
            alone = time_text(min(steps, 10**30) * _STEP)
            raise InputError(
                f"steps = {shown(steps)}: the attack on a single batch would take at least {alone}: at most "
                f"{_MOST_STEPS:,} --steps"
            )
        refuse_time(
            self.epochs * steps * _STEP,
            f"epochs = {epochs}, steps = {steps}: a training",
            "use fewer --epochs or --steps",
        )

    def data_settings(self) -> dict[str, Any]:
        """The settings for reading the images: keyword arguments for :func:`asgt.data.load_data`, without name and
        limit.

        For weights of another library, its image size, crop and interpolation are the defaults.
        """

        if not self.has_own_preprocessing:
            return data_settings(self.to_dict())
        from ..models import preprocessing

        return data_settings(with_own_sizes(self.to_dict(), preprocessing(self.model)))

    @property
    def has_own_preprocessing(self) -> bool:
        """Whether images are read according to the model's own configuration: of ``hf:…``, and of ``timm:…`` with
        weights.

        Random weights have no preprocessing, and those of another run have that run's settings.
        """

        return self.model.startswith("hf:") or (self.model.startswith("timm:") and self.weights is not None)

    def to_dict(self) -> dict[str, Any]:
        """Every setting by name, as in ``config.yaml``; those of :attr:`settings` follow the others."""

        values = dataclasses.asdict(self)
        extra: dict[str, Any] = values.pop("settings")
        return values | extra

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str) -> TrainConfig:
        """The configuration from a mapping; ``where`` names it in an error.

        Raises:
            DamagedFileError: a name is unknown, or a value has the wrong type.
        """

        names = [values.get("method", cls.method), values.get("attack") or ""]
        is_own = not any(isinstance(name, str) and is_foreign(name) for name in names)
        cls.check_kinds(values, where, known_settings() if is_own else None)
        try:
            return cls.of(values).resolved()
        except InputError as error:
            raise DamagedFileError(f"{where} is damaged: {error}") from error

    @classmethod
    def check_kinds(cls, values: Mapping[str, Any], where: str, extra: Mapping[str, Setting] | None = None) -> None:
        """Refuses unknown settings, and values of the wrong type.

        Args:
            values: settings by name.
            where: the file, for errors.
            extra: the settings without a field that methods have. Default: any name with a plain value is accepted.

        Raises:
            DamagedFileError: it names the setting.
        """

        hints = _typed(cls)
        for name, value in values.items():
            if name not in hints:
                _check_extra(str(name), value, where, extra, hints)
                continue
            kinds = {kind if isinstance(kind, type) else str for kind in get_args(hints[name]) or (hints[name],)}
            kinds |= {int, float} if name in ("mean", "std") else set()  # a single number is no text in YAML
            if type(value) not in kinds and not (type(value) is int and float in kinds):
                expected = " or ".join(sorted(_KINDS[kind] for kind in kinds if kind in _KINDS))
                raise DamagedFileError(f"{where} is damaged: {cut(str(name))} = {shown(value)}: expected {expected}")

    def refuse_other(self, asked: Mapping[str, Any], where: str) -> None:
        """Refuses settings that contradict this configuration, the stored one of the run ``where``.

        Raises:
            InputError: it names the setting.
        """

        stored = self.to_dict()
        for name, value in asked.items():
            kept = stored.get(name)
            if name in ("eps", "alpha") and value is not None:
                value = number(value, name)
            if name in _TEXTS and value is not None:
                value = _TEXTS[name](value)
            if name not in MAY_CHANGE and value != kept:
                flag = flag_of(name)
                raise InputError(
                    f"{where} was started with {name} = {kept}, not {cut(str(value))}: remove {flag} to resume"
                )

    def save(self, path: Path | str) -> None:
        """Writes the configuration as YAML."""

        write_yaml(Path(path), self.to_dict())

    @classmethod
    def load(cls, path: Path | str) -> TrainConfig:
        """Reads the configuration of a run folder; nothing in it is executed."""

        return cls.from_dict(read_yaml(Path(path)), str(path))


def _typed(cls: type[TrainConfig]) -> dict[str, Any]:
    """The types of the settings that have a field, by name."""

    hints = get_type_hints(cls)
    del hints["settings"]
    return hints


def _check_extra(
    name: str, value: Any, where: str, extra: Mapping[str, Setting] | None, typed: Mapping[str, Any]
) -> None:
    """Refuses a setting without a field that no method has, or a value of another kind than its."""

    if extra is not None and name not in extra:
        raise DamagedFileError(f"{where} is damaged: {unknown('setting', name, {*typed, *extra})}")
    if extra is None:
        if name == "settings" or not isinstance(value, (str, int, float, type(None))):
            raise DamagedFileError(f"{where} is damaged: {cut(name)} = {shown(value)}: expected a plain value")
    elif value is not None:
        try:
            extra[name].plain(value)
        except InputError as error:
            raise DamagedFileError(f"{where} is damaged: {error}") from error


# The help texts of asgt train are those of this docstring, and the data sets have one registry.
TrainConfig.__doc__ = (
    (TrainConfig.__doc__ or "")
    .replace("[DATA SETS]", data_help())
    .replace("[EPS]", eps_help())
    .replace("[AUGMENTATIONS]", augmentations_help())
    .replace("[SHORTCUTS]", shortcut_help())
    .replace("[TRACKERS]", trackers_help())
    .replace("[AUGMENT]", augment_help())
)
