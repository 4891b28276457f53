"""From a configuration's names to objects: the method's objective and the attack inside it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from ..attacks import Attack, is_attack
from ..errors import InputError
from ..names import module_of
from ..numbers import number
from ..plugins import imported
from ..records import Setting, is_own
from .config import TrainConfig
from .method_registry import (
    ATTACKS,
    MASK,
    METHODS,
    Part,
    attack_part,
    method_record,
    part_settings,
    role_of,
    stored_name,
)
from .objectives import Objective

__all__ = ["build_attack", "build_objective"]


def build_objective(config: TrainConfig) -> Objective:
    """The objective of a resolved configuration. The caller has checked that the code of a foreign method may run.

    Raises:
        InputError: the method or its attack cannot be built.
    """

    values, record = config.to_dict(), method_record(config.method)
    arguments: dict[str, Any] = {}
    for setting in record.settings:
        match role_of(setting):
            case "attack":
                arguments[setting.name] = build_attack(config)
            case "pgd":
                arguments[setting.name] = _part(ATTACKS["pgd"], values, "attack")
            case "mask":
                arguments[setting.name] = _part(MASK, values, "mask")
            case "plain":
                name = stored_name(record, setting)
                if (value := values.get(name)) is not None:
                    arguments[setting.name] = _argument(setting, value)
                elif name in config.settings and type(None) in setting.types:
                    arguments[setting.name] = None
    objective = _made(METHODS.get(config.method, config.method), arguments, "method")
    if not isinstance(objective, Objective):
        raise InputError(f"method {config.method} is a {type(objective).__name__}, not an asgt.Objective")
    return objective


def build_attack(config: TrainConfig) -> Attack:
    """The attack inside the method of a resolved configuration.

    Raises:
        InputError: it cannot be built.
    """

    attack = _part(attack_part(config.attack or next(iter(ATTACKS))), config.to_dict(), "attack")
    if not is_attack(attack):
        raise InputError(f"attack {config.attack} is a {type(attack).__name__}, not an asgt.Attack")
    return attack


def _part(part: Part, values: Mapping[str, Any], what: str) -> Any:
    """An attack or a mask with those of the values that it listens to."""

    settings = part_settings(part, what)
    given = {name: values[name] for name in settings if values.get(name) is not None}
    arguments = {settings[name].name: _argument(settings[name], value) for name, value in given.items()}
    return _made(part.place, arguments | dict(part.fixed), what)


def _argument(setting: Setting, value: Any) -> Any:
    """A configuration's value as the argument of a class: ``"8/255"`` becomes a number."""

    if isinstance(value, str) and str not in setting.types and float in setting.types:
        return number(value, setting.name)
    return setting.plain(value)


def _made(place: str, arguments: dict[str, Any], what: str) -> Any:
    if is_own(place):
        return getattr(import_module(module_of(place)), place.partition(":")[2])(**arguments)
    try:
        return imported(place, what)(**arguments)
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # other people's code may raise anything
        first = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"{what} {place} cannot be built: {first}") from error
