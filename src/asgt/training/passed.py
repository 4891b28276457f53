"""Objects that are passed to :func:`asgt.train`: a method, a model or data, and their record in the run folder.

A method is recorded by its name and settings if these build an equal one. Any other object is recorded by its class
and its representation: resuming compares them, and no file and no flag can name it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from ..attacks.attack import refuse_targeted
from ..data import Images, LabelledImages, Splits, as_images
from ..errors import InputError
from ..files import digest, digest_tensors
from ..names import OBJECT, refuse_object
from ..records import record_of
from .config import DATA_SETTINGS, METHOD_SETTINGS, TrainConfig
from .method_registry import ATTACKS, MASK, METHODS, Part, part_settings, role_of, stored_name
from .methods import build_objective
from .objectives import Objective
from .planted import shortcut_in

__all__ = ["Passed", "as_splits", "class_path", "configured"]


@dataclass(frozen=True)
class Passed:
    """The objects that take the place of names in a configuration; ``None`` uses the name.

    Attributes:
        objective: the method.
        model: the classifier, images in [0, 1] to logits, or a factory as ``package.module:factory`` names it.
        data: the data, or a pair of training and test images as :func:`asgt.data.as_images` takes them.
    """

    objective: Objective | None = None
    model: nn.Module | Callable[..., nn.Module] | None = None
    data: Splits | tuple[LabelledImages, LabelledImages] | None = None


def configured(config: TrainConfig, passed: Passed) -> TrainConfig:
    """The resolved configuration of a run, with names for the passed objects.

    Names of foreign methods in the configuration may run: the caller of :func:`asgt.train` names them.

    Raises:
        InputError: a setting contradicts an object.
    """

    for what, again in (("method", passed.objective), ("model", passed.model), ("data", passed.data)):
        if again is None:
            refuse_object(getattr(config, what), "the configuration", what)
    if passed.model is not None:
        if isinstance(passed.model, nn.Module):
            _refuse_set(config, ("width", "dropout", "mean", "std"), "model")
        config = replace(config, model=_name_of(passed.model))
    if passed.data is not None:
        _refuse_set(config, ("limit", *DATA_SETTINGS), "data")
        config = replace(config, data=passed.data.name if isinstance(passed.data, Splits) else f"{OBJECT}data")
        if (shortcut := shortcut_in(passed.data)) is not None and config.shortcut is None:
            config = replace(config, shortcut=shortcut)
    if passed.objective is not None:
        return _with_objective(config, passed.objective)
    return config.resolved(allow=_foreign(config))


def as_splits(data: Splits | tuple[LabelledImages, LabelledImages]) -> Splits:
    """Training and test images that were passed as objects.

    Raises:
        InputError: they have another type, or do not match each other.
    """

    if isinstance(data, Splits):
        return data
    if not (isinstance(data, (tuple, list)) and len(data) == 2):
        raise InputError(f"data is a {type(data).__name__}: pass asgt.Splits or a pair (training images, test images)")
    train, test = as_images(data[0], "the training images"), as_images(data[1], "the test images")
    if train.shape != test.shape:
        raise InputError(f"the training images have the shape {train.shape}, the test images {test.shape}")
    classes = max(train.classes, test.classes, key=len)
    return Splits(
        f"{OBJECT}data",
        Images(train.pixels, train.labels, classes),
        Images(test.pixels, test.labels, classes),
    )


def class_path(made: Any) -> str:
    """The class of an object, or a function itself, as ``package.module:Name``."""

    named = made if isinstance(made, type) or hasattr(made, "__qualname__") else type(made)
    return f"{named.__module__}:{named.__qualname__}"


def _name_of(model: nn.Module | Callable[..., nn.Module]) -> str:
    """The name of a factory that can be imported by it; of anything else, one that says it was passed."""

    path = class_path(model)
    module, _, attribute = path.partition(":")
    is_importable = module != "__main__" and getattr(sys.modules.get(module), attribute, None) is model
    return path if is_importable else OBJECT + path.replace(":", ".")


def _refuse_set(config: TrainConfig, names: tuple[str, ...], what: str) -> None:
    for name in names:
        if (value := getattr(config, name)) is not None and value is not False:
            raise InputError(f"{name} = {value}: the {what} that was passed does not use it, remove it")


def _foreign(config: TrainConfig) -> tuple[str, ...]:
    return tuple(name for name in (config.method, config.attack) if name is not None)


def _with_objective(config: TrainConfig, objective: Objective) -> TrainConfig:
    """The configuration that records an objective."""

    if not isinstance(objective, Objective):
        raise InputError(f"objective is a {type(objective).__name__}: pass an asgt.Objective")
    refuse_targeted(objective.adversary, "training")
    settings = tuple(name for name in METHOD_SETTINGS if name != "warmup")
    # The configuration of a run folder says again what its objective was.
    if config.method.startswith(OBJECT):
        typed = {name: value for name, value in config.to_dict().items() if name not in config.settings}
        config = TrainConfig.of(typed | dict.fromkeys(settings) | {"method": TrainConfig.method})
    _refuse_set(config, settings, "objective")
    if config.settings:
        raise InputError(f"{next(iter(config.settings))}: the passed objective has its own settings, remove it")
    path = class_path(objective)
    try:
        if path.startswith("__main__:"):
            raise InputError(f"{path} cannot be imported in another process: define it at the top level of a module")
        values = _settings_of_method(path, objective)
        named = TrainConfig.of(config.to_dict() | values)
        named = named.resolved(allow=_foreign(named))
        if build_objective(named) == objective:
            return named
    except (AttributeError, InputError):
        pass
    adversary = objective.adversary
    recorded: dict[str, Any] = {"method": OBJECT + path.replace(":", "."), "objective": _represented(objective)}
    if adversary is not None:
        warmup = config.warmup if config.warmup is not None else 0.3 if adversary.radius >= 0.1 else 0.0
        recorded |= {"eps": adversary.radius, "norm": adversary.norm, "warmup": warmup}
    return TrainConfig.of(config.to_dict() | recorded).resolved()


def _settings_of_method(path: str, objective: Objective) -> dict[str, Any]:
    """The settings by which a method's class would build this objective."""

    method = next((name for name, place in METHODS.items() if place == path), path)
    record = record_of(path, "method")
    values: dict[str, Any] = {"method": method}
    for setting in record.settings:
        value = getattr(objective, setting.name)
        match role_of(setting):
            case "attack":
                name, part = _attack_part(value)
                values |= {"attack": name} | _values(value, part, "attack")
            case "pgd":
                values |= _values(value, ATTACKS["pgd"], "attack")
            case "mask":
                values |= _values(value, MASK, "mask")
            case "plain":
                if setting.is_plain:
                    values[stored_name(record, setting)] = value
    return values


def _values(made: Any, part: Part, what: str) -> dict[str, Any]:
    """The settings of an attack or a mask by their stored names."""

    return {name: getattr(made, setting.name) for name, setting in part_settings(part, what).items()}


def _attack_part(attack: Any) -> tuple[str, Part]:
    """The registered attack that an object is, or its class."""

    path = class_path(attack)
    for name, part in ATTACKS.items():
        if part.place == path and all(getattr(attack, each) == value for each, value in part.fixed.items()):
            return name, part
    return path, Part(path)


def _represented(made: Any) -> str:
    """An object as text that is the same in every process."""

    if isinstance(made, Tensor):
        return f"Tensor({digest_tensors({'tensor': made.detach().cpu()})})"
    if made is None or isinstance(made, str | int | float | bool | complex | bytes):
        return repr(made)
    if isinstance(made, dict):
        return f"{{{', '.join(f'{key!r}: {_represented(value)}' for key, value in made.items())}}}"
    if isinstance(made, list | tuple | set | frozenset):
        return f"{type(made).__name__}({', '.join(map(_represented, made))})"
    if isinstance(made, type | FunctionType):
        code = getattr(made, "__code__", None)
        told = "" if code is None else f"#{digest(code.co_code + repr(code.co_consts).encode())[:16]}"
        return class_path(made) + re.sub(r" at 0x[0-9a-f]+", "", told)
    held = getattr(made, "__dict__", None)
    if held is None:
        return re.sub(r" at 0x[0-9a-f]+", "", f"{class_path(made)}:{made!r}")
    # No attack of a training is targeted: left out, runs of before there was such a field have the same record.
    kept = {name: value for name, value in sorted(held.items()) if (name, value) != ("targeted", False)}
    return f"{class_path(made)}({', '.join(f'{name}={_represented(value)}' for name, value in kept.items())})"
