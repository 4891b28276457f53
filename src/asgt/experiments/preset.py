"""Presets: the definitions of grids of runs, as YAML; the built-in ones are in ``presets/``.

::

    data: mnist
    seeds: 3                       # 0, 1 and 2
    train: {…}                     # settings of asgt train for every run; a method takes those that it listens to
    methods: [{method: st}, …]     # a line a method, with the settings of its own
    evaluate: {protocols: […], epsilons: […], samples: 500}
    explain: {samples: 256, attributions: [gradient]}    # may be left out: then no run is explained

With ``shortcut: patch:0.99`` under ``train``, every run is evaluated on the four test sets of that shortcut.

Settings can be overridden for all runs at once: a setting that is named so goes before those of the file, and the
preset's name tells of it, unless it changes no result but for rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ..errors import DamagedFileError, InputError, cut, shown, unknown
from ..evaluation.outcomes import checked_grid
from ..evaluation.protocols import protocol_named
from ..files import read_yaml
from ..names import is_foreign, refuse_unless_allowed
from ..records import Setting
from ..saliency import attribution_class
from ..shortcuts import VIEWS, ShortcutView
from ..training.config import DATA_SETTINGS, MAY_CHANGE, METHOD_SETTINGS, TrainConfig, default_eps
from ..training.method_registry import known_settings, listens_to
from ..training.optimizers import OPTIMIZER_SETTINGS, OPTIMIZERS
from ..training.tracker_registry import trackers_text

__all__ = ["Preset", "load_preset", "preset_names", "preset_words"]

_FOLDER = Path(__file__).parent / "presets"
_SETTINGS = {"data", "seeds", "train", "methods", "evaluate", "explain"}
_EVALUATE = {"protocols", "epsilons", "samples"}
_EXPLAIN = {"samples", "attributions"}
_PARTS = ("train", "evaluate", "explain")
_MOST_RUNS = 10_000
"""The largest number of runs of a grid: each has a folder, and a page of more is unreadable."""


@dataclass(frozen=True)
class Preset:
    """A grid of runs: methods × seeds on one data set, and the evaluation of each run.

    Attributes:
        name: such as ``digits-quick``; a user's file has its stem as the name.
        data: a name of :data:`asgt.datasets.DATA_SETS`, a hub id or a folder.
        seeds: the number of seeds; they are 0, 1, …
        methods: the resolved configuration of each method, with seed 0.
        protocols: the keys of the protocols that every run is evaluated by.
        epsilons: the grid of ε, ascending.
        samples: the number of test images, ``None`` for all.
        attributions: the attributions of every run; empty if runs are not explained.
        explained: the number of explained test images.

    Example:
        >>> import asgt
        >>> preset = asgt.load_preset("mnist", "laptop")
        >>> preset.data, preset.epsilons[-1], len(preset.configs())
        ('mnist', 0.4, 24)
    """

    name: str
    data: str
    seeds: int
    methods: tuple[TrainConfig, ...]
    protocols: tuple[str, ...]
    epsilons: tuple[float, ...]
    samples: int | None
    attributions: tuple[str, ...] = ()
    explained: int = 0

    @property
    def eps(self) -> float:
        """The ε at which maps are attacked: the training ε of most methods; of ties, the largest."""

        trained = [float(method.eps) for method in self.methods if method.eps and (method.norm or "linf") == self.norm]
        return max(trained, key=lambda eps: (trained.count(eps), eps), default=default_eps(self.data))

    @property
    def norm(self) -> Literal["linf", "l2"]:
        """The norm of every evaluation: that of the methods with an attack."""

        return next((method.norm for method in self.methods if method.norm is not None), "linf")

    @property
    def views(self) -> tuple[ShortcutView, ...]:
        """The test sets that every run is evaluated on: the images as they are, then those with a shortcut, if any."""

        planted = tuple(view for view in VIEWS if view != "absent") if self.methods[0].shortcut else ()
        return ("absent", *planted)

    def configs(self) -> list[TrainConfig]:
        """The configuration of every run, seed by seed: an interrupted grid then has complete comparisons."""

        return [replace(method, seed=seed) for seed in range(self.seeds) for method in self.methods]

    def on(
        self,
        *,
        data: str | None = None,
        seeds: int | None = None,
        protocols: Sequence[str] | None = None,
        device: str | None = None,
        tracker: str | None = None,
    ) -> Preset:
        """The same grid with another place of its data, count of seeds, device or tracker, or other protocols.

        Raises:
            InputError: fewer than one seed, no protocol, or an unknown one.
        """

        if seeds is not None and seeds < 1:
            raise InputError(f"--seeds {shown(seeds)}: must be at least 1")
        _refuse_many(seeds or self.seeds, len(self.methods), "--seeds")
        if protocols is not None and not protocols:
            raise InputError("--protocols: give at least one, such as pgd,standard")
        return replace(
            self,
            data=data or self.data,
            seeds=seeds or self.seeds,
            protocols=self.protocols if protocols is None else _keys(protocols),
            methods=tuple(
                replace(
                    method,
                    data=data or method.data,
                    device=device or method.device,
                    tracker=method.tracker if tracker is None else trackers_text(tracker),
                )
                for method in self.methods
            ),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, all that a run depends on; seeds, protocols and maps are omitted, because more may be added."""

        values = asdict(self) | {"methods": [method.to_dict() for method in self.methods]}
        for name in ("seeds", "protocols", "attributions", "explained"):
            del values[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def preset_names() -> list[str]:
    """The names of the built-in presets, such as ``digits-quick``."""

    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def load_preset(
    name: str,
    scale: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    allow: Collection[str] = (),
) -> Preset:
    """Loads a built-in preset by data set and scale, or your own from a file.

    Args:
        name: an experiment that has presets: a data set, as mnist, or mnist-shortcuts; or the path of a YAML file.
        scale: quick (default), laptop, tuned, paper, variants or faint, as far as the experiment has it; a file has
            none.
        overrides: settings of asgt train that go before the file's, in every method that listens to them.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it: a file may not say so by itself.

    Raises:
        InputError: the data set, the scale, the file or a setting is unknown, or a model is not allowed.
        DamagedFileError: the file is not a preset.

    Example:
        >>> import asgt
        >>> preset = asgt.load_preset("digits", "quick", {"epochs": 2})
        >>> preset.name, preset.seeds
        ('digits-quick+epochs=2', 3)
    """

    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if scale is not None:
            raise InputError(f"--scale {scale}: your own file has only one scale, remove the flag")
        return _read(path, overrides or {}, allow)

    houses = [known.rsplit("-", 1) for known in preset_names()]
    if name not in (names := {data for data, _ in houses}):
        raise unknown("experiment", name, names)
    scales = [known for data, known in houses if data == name]
    if (scale := scale or "quick") not in scales:
        raise unknown(f"scale of {name}", scale, scales)
    return _read(_FOLDER / f"{name}-{scale}.yaml", overrides or {}, allow)


def preset_words(name: str) -> str:
    """The description of a built-in preset, from the comment at its beginning."""

    lines = (_FOLDER / f"{name}.yaml").read_text("utf-8").splitlines()
    said = itertools.takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(line.removeprefix("#").strip() for line in said)


def _read(path: Path, overrides: Mapping[str, Any], allow: Collection[str]) -> Preset:
    values = read_yaml(path)
    _check_names(values, _SETTINGS, path)
    train, evaluate, explain = ({} if values.get(name) is None else values[name] for name in _PARTS)
    methods = values.get("methods")
    if not isinstance(methods, list) or not methods or not all(isinstance(method, dict) for method in methods):
        raise DamagedFileError(
            f"{path}: methods must be a list of settings with one method per line, such as '- {{method: st}}'"
        )
    for what, settings in (("train", train), ("evaluate", evaluate), ("explain", explain)):
        if not isinstance(settings, dict):
            raise DamagedFileError(f"{path}: {what} must be a list of 'name: value' lines")
    _check_names(evaluate, _EVALUATE, path)
    _check_names(explain, _EXPLAIN, path)

    data, seeds, samples = values.get("data"), values.get("seeds", 1), evaluate.get("samples")
    if not isinstance(data, str):
        raise DamagedFileError(f"{path}: data is missing: give a name or a folder")
    explained, attributions = explain.get("samples", 256), explain.get("attributions", ["gradient"])
    if not isinstance(attributions, list) or not attributions or not all(isinstance(one, str) for one in attributions):
        raise DamagedFileError(f"{path}: attributions must be a list of names, such as [gradient, ig]")
    _check_attributions(attributions, path, allow)
    counts = (("seeds", seeds), ("explain: samples", explained))
    for what, count in counts if samples is None else (*counts, ("evaluate: samples", samples)):
        if type(count) is not int or count < 1:
            raise DamagedFileError(f"{path}: {what} = {shown(count)}: give a whole number above zero")
    try:
        _refuse_many(seeds, len(methods), "seeds or methods")
    except InputError as error:
        raise DamagedFileError(f"{path}: {error}") from error
    for setting in ("data", "seed"):
        if any(setting in settings for settings in (train, *methods)):
            raise DamagedFileError(f"{path}: {setting} is no setting of a single run: the grid has it")
    for setting in sorted({*DATA_SETTINGS, "shortcut"} & {name for method in methods for name in method}):
        raise DamagedFileError(f"{path}: {setting} belongs under train: every method sees the same images")
    protocols, epsilons = evaluate.get("protocols", ["paper", "pgd"]), evaluate.get("epsilons")
    if not (isinstance(protocols, list) and protocols and isinstance(epsilons, list) and epsilons):
        raise DamagedFileError(
            f"{path}: evaluate needs the list epsilons, and the list protocols unless these are paper and pgd"
        )
    for protocol in protocols:
        if not isinstance(protocol, str):
            raise DamagedFileError(f"{path}: protocols contains {shown(protocol)}: give names, such as paper or pgd")
    for eps in epsilons:
        if type(eps) not in (int, float, str):
            raise DamagedFileError(f"{path}: epsilons contains {shown(eps)}: give numbers, such as 0.3 or 8/255")

    for what in ("model", "method", "attack"):
        for settings, where in ((overrides, "--set"), *((settings, str(path)) for settings in (train, *methods))):
            if not (what in overrides and settings is not overrides):
                refuse_unless_allowed(str(settings.get(what) or ""), allow, where, what=what, flag=None)
    known = known_settings(*(_foreign(what, (overrides, train, *methods)) for what in ("method", "attack")))
    _check_overrides(overrides, known)
    train = {**train, **overrides}
    methods = [{name: value for name, value in method.items() if name not in overrides} for method in methods]
    configs = tuple(_config({"data": data} | train, method, known, path, allow) for method in methods)
    if len(norms := {config.norm for config in configs if config.norm}) > 1:
        raise DamagedFileError(f"{path}: the methods train in {' and '.join(sorted(norms))}: use one norm for all")
    try:
        judged_by, grid = _keys(protocols), checked_grid(epsilons, "l2" if "l2" in norms else "linf")
    except InputError as error:
        raise DamagedFileError(f"{path}: {error}") from error
    # How runs are driven and watched is no part of what a grid is called.
    told = {setting: value for setting, value in overrides.items() if setting not in MAY_CHANGE}
    return Preset(
        # It becomes the name of a folder, of which a file system takes 255 bytes.
        name=cut("+".join([path.stem, *(f"{name}={value}".replace("/", "_") for name, value in told.items())]), 200),
        data=data,
        seeds=seeds,
        methods=configs,
        protocols=judged_by,
        epsilons=grid,
        samples=samples,
        attributions=tuple(dict.fromkeys(attributions)) if explain else (),
        explained=explained if explain else 0,
    )


def _check_attributions(names: Sequence[str], path: Path, allow: Collection[str]) -> None:
    """Refuses attributions that do not exist, or whose code may not run."""

    for name in names:
        refuse_unless_allowed(name, allow, str(path), what="attribution", flag=None)
        try:
            attribution_class(name)
        except InputError as error:
            raise DamagedFileError(f"{path}: {error}") from error


def _keys(protocols: Sequence[str]) -> tuple[str, ...]:
    """The keys of protocols as a user names them, each once: ``standard@2`` is ``standard`` where that is the newest.

    Raises:
        InputError: asgt does not have one of them.
    """

    return tuple(dict.fromkeys(protocol_named(protocol).key for protocol in protocols))


def _refuse_many(seeds: int, methods: int, mend: str) -> None:
    """Refuses more runs than a grid can be planned for, before the first is."""

    if seeds * methods > _MOST_RUNS:
        raise InputError(
            f"{shown(seeds)} seeds of {methods:,} methods are {shown(seeds * methods)} runs with a folder each: "
            f"use at most {_MOST_RUNS:,} runs, with fewer {mend}"
        )


def _foreign(what: str, settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The foreign methods or attacks that some settings name."""

    return [name for each in settings if isinstance(name := each.get(what), str) and is_foreign(name)]


def _config(
    common: dict[str, Any], own: dict[str, Any], known: Mapping[str, Setting], path: Path, allow: Collection[str]
) -> TrainConfig:
    """A method's configuration: the common settings that it and its optimizer listen to, under its own."""

    for settings in (common, own):
        TrainConfig.check_kinds(settings, str(path), known)
    name, attack = own.get("method", ""), own.get("attack", common.get("attack"))
    try:
        ignored = {*METHOD_SETTINGS, *known} - listens_to(name, attack)
        if (kind := OPTIMIZERS.get(own.get("optimizer", common.get("optimizer", TrainConfig.optimizer)))) is not None:
            ignored |= {*OPTIMIZER_SETTINGS} - {*kind.defaults}
        heard = {setting: value for setting, value in common.items() if setting not in ignored}
        config = TrainConfig.of(heard | own)
        if config.epochs == 0:
            raise InputError(
                "epochs = 0: the weights of every seed would be the same: use asgt train --epochs 0 for a single run"
            )
        if config.from_run is not None:
            from ..training.starting import with_source

            config = with_source(config, None, resume=False, allow=allow, asked={*heard, *own})
        return config.resolved(allow=allow)
    except InputError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def _check_overrides(overrides: Mapping[str, Any], extra: Mapping[str, Setting]) -> None:
    known = {*(field.name for field in fields(TrainConfig)), *extra} - {"data", "method", "seed", "device", "settings"}
    for setting in overrides:
        if setting not in known:
            raise unknown("setting", setting, known)
    try:
        TrainConfig.check_kinds(overrides, "--set", extra)
    except DamagedFileError as error:
        raise InputError(str(error).replace(" is damaged", "")) from error


def _check_names(settings: dict[str, Any], known: set[str], path: Path) -> None:
    for setting in settings:
        if setting not in known:
            raise DamagedFileError(f"{path} is not a preset: {unknown('setting', str(setting), known)}")
