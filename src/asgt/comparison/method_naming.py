"""The names of methods: runs that differ only in the seed are one method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..errors import DamagedFileError
from ..names import short_name
from ..runs.run import Run
from ..shortcuts import shortcut_named
from ..training.config import DATA_SETTINGS, MAY_CHANGE, METHOD_SETTINGS, TrainConfig
from ..training.method_registry import ATTACKS, METHODS, listens_to, title_of
from ..training.optimizers import OPTIMIZER_SETTINGS, OPTIMIZERS
from ..training.run_folder import AS_GIVEN

__all__ = ["Method", "group_by_method", "is_same_method", "method_names", "method_settings"]

_STARTS = ("weights", "from_run")
"""The settings with a path of weights; a method's name describes the file."""

_FIELDS = frozenset(field.name for field in fields(TrainConfig))

_OF_GIVEN = (
    "data",
    "model",
    "width",
    "dropout",
    "weights",
    "from_run",
    "mean",
    "std",
    "epochs",
    "shortcut",
    *DATA_SETTINGS,
)
"""The settings that distinguish given weights, and describe their input images."""

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


def method_names(configs: Sequence[TrainConfig], starts: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """The name of each configuration among the others; those that differ in no setting of the method share a name.

    Seed, device and logging are not settings of the method. If several configurations share a base name, the
    settings in which they differ follow it: ``SGT (k = 0.3)``. Ignored settings do not follow. The start of the
    training also follows, for all configurations if only some started from given weights.

    Args:
        configs: resolved or not.
        starts: the start of each training from its result (:attr:`TrainResult.start`). Default: only the path of
            given weights is known.
    """

    mixed = len({config.has_start for config in configs if config.epochs > 0}) > 1
    return _names(configs, starts or [{}] * len(configs), mixed=mixed)


def _names(configs: Sequence[TrainConfig], starts: Sequence[Mapping[str, Any]], *, mixed: bool) -> list[str]:
    """The names; ``mixed`` says whether each that was trained tells what it started from."""

    if not configs:
        return []
    settings = [method_settings(config) for config in configs]
    kinds = [_kind(config, start) for config, start in zip(configs, starts, strict=True)]
    began = _starts_told(configs, starts, kinds)
    # The shortcut is of the data: all methods tell it where they are of several data.
    shortcuts = {config.shortcut for config in settings}
    names = []
    for mine, start in zip(settings, began, strict=True):
        rivals = [place for place, other in enumerate(settings) if _base_name(other) == _base_name(mine)]
        differing = [_shortcut_told(mine.shortcut)] if len(shortcuts) > 1 else []
        flat = [settings[place].to_dict() for place in rivals]
        for setting in dict.fromkeys(name for other in flat for name in other):
            values = {other.get(setting) for other in flat}
            if len(values) > 1 and setting not in (*_STARTS, "shortcut") and _is_heard(mine, setting):
                differing.append(f"{setting} = {_value(mine.to_dict().get(setting), values)}")
        if len({kinds[place] for place in rivals}) > 1 or (mixed and mine.epochs > 0):
            differing.append(f"from {start}")
        names.append(_base_name(mine) + (f" ({', '.join(differing)})" if differing else ""))
    return names


def is_same_method(run: Run, other: Run) -> bool:
    """Whether two runs differ in no setting of the method, and started from equivalent weights.

    Source runs are equivalent if their trainings differ only in the seed: the seed of the source weights is not a
    setting of the method. Files are equivalent if their content is the same.
    """

    both = [(_apart_from_start(each.config), _kind(each.config, each.result.start)) for each in (run, other)]
    return both[0] == both[1]


def group_by_method(runs: Sequence[Run]) -> tuple[Method, ...]:
    """The methods of some runs, in the order of the methods' registry, attacks of one step before PGD.

    Given weights come first.
    """

    names = method_names([run.config for run in runs], [run.result.start for run in runs])
    groups: dict[str, list[Run]] = {}
    for name, run in zip(names, runs, strict=True):
        groups.setdefault(name, []).append(run)

    def place(method: Method) -> tuple[int, int]:
        config = method.runs[0].config
        if config.epochs == 0:
            return -1, 0
        # Methods and attacks of somebody else come last.
        methods, attacks = [*METHODS, config.method], [*_ATTACK_ORDER, config.attack]
        return methods.index(config.method), attacks.index(config.attack) if config.attack else 0

    methods = [Method(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in groups.items()]
    return tuple(sorted(methods, key=place))


def method_settings(config: TrainConfig) -> TrainConfig:
    """A configuration without seed, device and logging, which do not distinguish methods.

    For a run of no epochs, the settings of the training are also omitted.
    """

    plain: dict[str, Any] = {"seed": 0, "device": "auto"} | {name: getattr(TrainConfig, name) for name in MAY_CHANGE}
    config = replace(config.resolved(), data=short_name(config.data), **plain)
    if config.epochs > 0:
        return config
    values = config.to_dict()
    return TrainConfig(method="st", **{name: values[name] for name in _OF_GIVEN}).resolved()


def _base_name(config: TrainConfig) -> str:
    if config.epochs == 0:
        return AS_GIVEN
    # SGA's own paper trains with PGD: only another attack is worth a word.
    if config.attack is None or (config.method == "sga" and config.attack == "pgd"):
        return title_of(config.method)
    return f"{title_of(config.method)}-{title_of(config.attack)}"


def _is_heard(config: TrainConfig, setting: str) -> bool:
    """Whether a setting means something to a configuration: another optimizer's, method's or attack's does not."""

    if setting in OPTIMIZER_SETTINGS:
        return setting in OPTIMIZERS[config.optimizer].defaults
    if setting in METHOD_SETTINGS and not config.has_foreign_method:
        return setting in listens_to(config.method, config.attack)
    return setting in _FIELDS or setting in config.settings


def _kind(config: TrainConfig, start: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells the weights that a training started from, from those of another kind."""

    if not config.has_start:
        return ("built",)
    if config.from_run is not None and start.get("source"):
        own, before = _source(start)
        return "run", _apart_from_start(own), _kind(own, before)
    if start.get("sha256"):
        return "file", start["sha256"]
    return "place", config.from_run or config.weights


def _source(start: Mapping[str, Any]) -> tuple[TrainConfig, Mapping[str, Any]]:
    """The configuration of the run that a training started from, and what that started from.

    Raises:
        DamagedFileError: the record of it is none.
    """

    where, source = f"the record of a start from {start.get('weights')}", start["source"]
    config, before = (source.get("config"), source.get("start")) if isinstance(source, Mapping) else (None, None)
    if not isinstance(config, Mapping) or not isinstance(before, Mapping):
        raise DamagedFileError(f"{where} is damaged: its record of the run is incomplete")
    return TrainConfig.from_dict(config, where), before


def _apart_from_start(config: TrainConfig) -> tuple[Any, ...]:
    values = method_settings(config).to_dict()
    return tuple((name, value) for name, value in sorted(values.items()) if name not in _STARTS)


def _starts_told(
    configs: Sequence[TrainConfig], starts: Sequence[Mapping[str, Any]], kinds: Sequence[tuple[Any, ...]]
) -> list[str]:
    """What each training started from, in words that differ where its kind does."""

    sources = {kind: _source(start) for kind, start in zip(kinds, starts, strict=True) if kind[0] == "run"}
    of_runs = _names(*map(list, zip(*sources.values(), strict=True)), mixed=False) if sources else []
    told = {kind: f"a run of {name}" for kind, name in zip(sources, of_runs, strict=True)}
    files = {
        kind: str(config.from_run or config.weights)
        for kind, config in zip(kinds, configs, strict=True)
        if kind[0] in ("file", "place")
    }
    for kind, file in files.items():
        short = Path(file).name
        clashing = [other for other in files.values() if Path(other).name == short]
        text = file if len(clashing) > 1 else short
        if clashing.count(file) > 1:
            text += f", SHA-256 {kind[1][:8]}"
        told[kind] = f"weights {text}"
    own = {True: "the model's own weights", False: "random weights"}
    return [
        told[kind] if kind in told else own[config.has_given_weights]
        for kind, config in zip(kinds, configs, strict=True)
    ]


def _shortcut_told(shortcut: str | None) -> str:
    return "no shortcut" if shortcut is None else f"shortcut = {shortcut_named(shortcut).brief}"


def _value(value: Any, among: set[Any]) -> str:
    """A setting for people; with all its digits only where six do not tell it from the others."""

    if value is None:
        return "default"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    others = [other for other in among if isinstance(other, float) and other != value]
    return repr(value) if any(short == f"{other:g}" for other in others) else short
