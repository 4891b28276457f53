"""What a run is: plain values that name data, model, method and attack, without importing any of them.

A :class:`TrainConfig` holds what a user asks for; ``None`` means that they left it to us. :meth:`TrainConfig.resolved`
fills in what the method and the data call for, and refuses what the method would ignore.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from ..errors import DamagedFileError, InputError, unknown
from ..files import read_yaml, write_yaml
from ..names import short_name
from ..numbers import Number, number

__all__ = ["ATTACKS", "MAY_CHANGE", "METHODS", "TrainConfig", "default_eps", "listens_to"]

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

_EPS = {"digits": 0.1, "mnist": 0.3, "cifar10": 8 / 255}
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
}


MAY_CHANGE = ("cuda_graphs", "checkpoint_every", "tensorboard")
"""How a run is driven and watched may change when it is resumed; what it computes may not, but for rounding."""

_KINDS: dict[type, str] = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}


def default_eps(data: str) -> float:
    """The radius in L∞ that methods are trained and judged at on a data set unless somebody says another."""

    return _EPS.get(short_name(data), 8 / 255)


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


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Args:
        data: digits, mnist, cifar10, a hub id, or a folder of images or parquet files
        model: small_cnn, alexnet, resnet18, timm:NAME, or package.module:factory
        method: st, at, trades, sgt, sga or asgt
        attack: the attack inside AT, SGA and ASGT: pgd (default), fgsm or fgsm-rs
        eps: the attack's radius in [0, 1], as 8/255 (default: 0.1 for digits, 0.3 for mnist, else 8/255)
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
        augment: none or crop-flip (default: crop-flip for cifar10, else none)
        image_size: resize the short side and crop the centre (default: as they are)
        grey: make the images grey
        label_column: the column of the labels, where several could be meant
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
    grey: bool = False
    label_column: str | None = None

    device: str = "auto"
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    cuda_graphs: bool = False
    checkpoint_every: float = 300.0
    tensorboard: bool = False

    def resolved(self) -> TrainConfig:
        """The same run with every setting that it listens to filled in, and the others left ``None``.

        Raises:
            InputError: a name is unknown, a value cannot be meant, or the method ignores a setting that is set.
        """

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
            filled["augment"] = "crop-flip" if short_name(self.data) == "cifar10" else "none"

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

        for name in ("epochs", "batch_size", "seed", "steps", "limit", "image_size"):
            value = getattr(self, name)
            require(
                name,
                value is None or (isinstance(value, int) and not isinstance(value, bool)),
                "a whole number is needed",
            )
        require("epochs", self.epochs >= 1, "training takes at least one pass over the images")
        require("batch_size", self.batch_size >= 1, "a step takes at least one image")
        require("seed", self.seed >= 0, "a seed is a whole number, zero or more")
        require("steps", self.steps is None or self.steps >= 1, "an attack takes at least one step")
        require("limit", self.limit is None or self.limit >= 2, "training takes at least two images")
        require("image_size", self.image_size is None or self.image_size >= 1, "the side is a number of pixels")

        if self.eps is not None:
            from_user = float(self.eps)
            require("eps", math.isfinite(from_user) and from_user >= 0, "the radius is a finite number, zero or more")
            require(
                "eps",
                self.norm == "l2" or from_user <= 1,
                f"beyond the pixels' range [0, 1] in L∞; write {from_user:g}/255 if that is meant",
            )
        require("alpha", self.alpha is None or 0 < float(self.alpha) < math.inf, "a step's length is above zero")
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
