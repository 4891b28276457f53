"""The names of methods: runs that differ in their seed alone are one method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..names import short_name
from ..runs.run import Run
from ..training.config import MAY_CHANGE, TrainConfig
from ..training.method_registry import ATTACKS, METHODS, title_of

__all__ = ["Method", "group_by_method", "method_names", "method_settings"]

_ATTACK_ORDER = sorted(ATTACKS, key=lambda name: not name.startswith("fgsm"))


@dataclass(frozen=True)
class Method:
    """A method with its settings.

    Attributes:
        name: unique in the comparison.
        runs: by ascending seed.
    """

    name: str
    runs: tuple[Run, ...]


def method_names(configs: Sequence[TrainConfig]) -> list[str]:
    """The name of each configuration beside the others; those that differ in no setting of the method share a name.

    Seed, device and logging are not settings of the method. Where several configurations share a base name, the
    settings in which they differ follow it: ``SGT (k = 0.3)``.
    """

    settings = [method_settings(config) for config in configs]
    names = []
    for mine in settings:
        rivals = [other for other in settings if _base_name(other) == _base_name(mine)]
        differing = []
        flat = [other.to_dict() for other in rivals]
        for setting in dict.fromkeys(name for other in flat for name in other):
            values = {other.get(setting) for other in flat}
            if len(values) > 1:
                differing.append(f"{setting} = {_value(mine.to_dict().get(setting), values)}")
        names.append(_base_name(mine) + (f" ({', '.join(differing)})" if differing else ""))
    return names


def group_by_method(runs: Sequence[Run]) -> tuple[Method, ...]:
    """The methods of some runs, in the order of the methods' registry, attacks of one step before PGD."""

    names = method_names([run.config for run in runs])
    groups: dict[str, list[Run]] = {}
    for name, run in zip(names, runs, strict=True):
        groups.setdefault(name, []).append(run)

    def place(method: Method) -> tuple[int, int]:
        config = method.runs[0].config
        # Methods and attacks of somebody else come last.
        methods, attacks = [*METHODS, config.method], [*_ATTACK_ORDER, config.attack]
        return methods.index(config.method), attacks.index(config.attack) if config.attack else 0

    methods = [Method(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in groups.items()]
    return tuple(sorted(methods, key=place))


def method_settings(config: TrainConfig) -> TrainConfig:
    """A configuration without seed, device and logging, which do not tell methods apart."""

    plain: dict[str, Any] = {"seed": 0, "device": "auto"} | {name: getattr(TrainConfig, name) for name in MAY_CHANGE}
    return replace(config.resolved(), data=short_name(config.data), **plain)


def _base_name(config: TrainConfig) -> str:
    # SGA's own paper trains with PGD: only another attack is worth a word.
    if config.attack is None or (config.method == "sga" and config.attack == "pgd"):
        return title_of(config.method)
    return f"{title_of(config.method)}-{title_of(config.attack)}"


def _value(value: Any, among: set[Any]) -> str:
    """A setting for people; with all its digits only where six do not tell it from the others."""

    if value is None:
        return "default"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    others = [other for other in among if isinstance(other, float) and other != value]
    return repr(value) if any(short == f"{other:g}" for other in others) else short
