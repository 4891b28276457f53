"""Runs side by side: what may stand in one table, and what each cell of it holds.

Runs are compared only where they were asked the same: on the same images, by the same protocols, at the same ε. Those
that differ in nothing but their seed are one method, and show its spread over seeds; a lone run shows Wilson's
interval. Nothing that a run folder holds is executed, and no model is built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..attacks import Norm
from ..errors import InputError
from ..evaluation.health import catastrophic_on_test
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import PROTOCOLS
from ..names import short_name
from ..runs.run import Run, data_name, evaluate_again, read_run
from ..statistics import share_of, spread
from ..training.config import ATTACKS, MAY_CHANGE, METHODS, TrainConfig
from ..training.run_folder import RunFolder

__all__ = [
    "Accuracy",
    "Column",
    "Comparison",
    "Method",
    "compare",
    "compare_runs",
    "listed",
    "method_names",
    "read_methods",
    "trained_eps",
]

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


@dataclass(frozen=True)
class Accuracy:
    """A cell of the table, or a point of a curve; in [0, 1].

    Attributes:
        values: the accuracy of each run, by seed.
        mean: their mean.
        low: of several runs, the mean − ``sd``, not below 0; of one, the lower end of Wilson's 95 % interval.
        high: likewise above, not beyond 1.
        sd: the sample standard deviation over the runs; ``None`` of one run.
        samples: the test images of each run.
    """

    values: tuple[float, ...]
    mean: float
    low: float
    high: float
    sd: float | None
    samples: int

    def text(self) -> str:
        """In percent: ``84.4 ± 0.6`` over runs, ``84.4 [80.3, 87.9]`` of one."""

        if self.sd is not None:
            return f"{100 * self.mean:.1f} ± {100 * self.sd:.1f}"
        return f"{100 * self.mean:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Column:
    """An attack of a protocol: a column of the table, or a panel of the figure.

    Attributes:
        protocol: its name.
        version: the protocol's.
        claim: what a number by this protocol may be called.
        attack: the name of the search.
        title: what people call the attack.
        reach: the largest ε that a constant step can cross; ``None`` where the step follows ε.
    """

    protocol: str
    version: int
    claim: str
    attack: str
    title: str
    reach: float | None


@dataclass(frozen=True)
class Comparison:
    """Methods on the same images, by the protocols and at the ε that all their runs share.

    Attributes:
        methods: in the order of the methods' registry, attacks of one step before PGD.
        columns: the attacks of every shared protocol.
        epsilons: by protocol, the ε that all runs share, ascending.
        norm: the norm of ε.
        samples: the test images of each run.
        data: the name of the data, for people.
        classes: the names of the classes.
        left_out: sentences on what only some runs hold.
    """

    methods: tuple[Method, ...]
    columns: tuple[Column, ...]
    epsilons: dict[str, tuple[float, ...]]
    norm: Norm
    samples: int
    data: str
    classes: tuple[str, ...]
    left_out: tuple[str, ...]

    def right(self, run: Run, column: Column | None, eps: float) -> Tensor:
        """Which images a run gets right, bool (N,), under an attack at an ε of ``epsilons[column.protocol]``.

        Without a column, which it gets right as they are.

        Raises:
            ValueError: the run was not evaluated there.
        """

        if column is None:
            return run.evaluations[self.columns[0].protocol].clean
        found = run.evaluations[column.protocol]
        return found.outcomes[column.attack][found.epsilons.index(eps)]

    def clean(self, method: Method) -> Accuracy:
        """The accuracy without an attack."""

        return _accuracy([self.right(run, None, 0.0) for run in method.runs])

    def at(self, method: Method, column: Column, eps: float) -> Accuracy:
        """The accuracy under an attack at an ε of ``epsilons[column.protocol]``.

        Raises:
            ValueError: some run was not evaluated there.
        """

        return _accuracy([self.right(run, column, eps) for run in method.runs])

    def curve(self, method: Method, column: Column) -> list[tuple[float, Accuracy]]:
        """Accuracy over the shared ε; the clean accuracy stands at 0."""

        points = [(eps, self.at(method, column, eps)) for eps in self.epsilons[column.protocol]]
        return [(0.0, self.clean(method)), *points]

    def trained_eps(self) -> float | None:
        """The ε that most runs were trained at (of equally many, the largest), in the norm of the evaluations.

        ``None`` where no run was trained against an attack in that norm.
        """

        return trained_eps(self.methods, self.norm)

    def table_epsilons(self) -> tuple[float, ...]:
        """The few ε of a table, ascending, of those that all protocols share.

        The nearest to the training ε, to half and to twice of it; without one, the first, a middle and the last.
        """

        shared = sorted(set.intersection(*map(set, self.epsilons.values())))
        trained = self.trained_eps()
        if trained is None:
            return tuple(sorted({shared[0], shared[(len(shared) - 1) // 2], shared[-1]}))
        wanted = (trained / 2, trained, 2 * trained)
        return tuple(sorted({min(shared, key=lambda eps: abs(eps - want)) for want in wanted}))

    def judges(self) -> tuple[Column, ...]:
        """The columns that methods are judged by, the strictest last: those of every worst case, or the last of all."""

        return tuple(column for column in self.columns if PROTOCOLS[column.protocol].worst_case) or self.columns[-1:]

    def judging_eps(self) -> float:
        """The ε at which methods are judged: the training ε, or else a middle one of the table's."""

        shared, trained = self.table_epsilons(), self.trained_eps()
        return trained if trained in shared else shared[len(shared) // 2]

    def warnings(self) -> list[tuple[Method, Run, str]]:
        """What a reader must not miss: the runs' own warnings, and overfitting to one step on the test images."""

        found = []
        for method in self.methods:
            for run in method.runs:
                found += [(method, run, text) for text in run.result.warnings]
                if (text := _catastrophe(run)) is not None:
                    found.append((method, run, text))
        return found


def compare(folders: Sequence[Path | str]) -> Comparison:
    """Reads run folders and puts side by side what can be compared.

    Raises:
        InputError: a folder holds no finished and evaluated run, or the runs cannot stand in one table.
        DamagedFileError: a file of a run is damaged.
    """

    return compare_runs(_read_all(folders, "compare"))


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Puts side by side what can be compared of runs that were read already.

    Raises:
        InputError: there is none, or they cannot stand in one table.
    """

    runs = list(runs)
    _refuse_apart(runs)
    for run in runs:
        if not run.evaluations:
            raise InputError(f"{run.folder} holds no evaluation: asgt evaluate {run.folder}")
    protocols = _shared_protocols(runs)
    _refuse_other_images(runs, protocols)
    _refuse_other_grids(runs, protocols)

    first = runs[0].evaluations[protocols[0]]
    epsilons = {name: _shared_epsilons([run.evaluations[name] for run in runs]) for name in protocols}
    return Comparison(
        methods=_methods(runs),
        columns=tuple(
            Column(name, found.version, found.claim, search.name, search.title, search.reach)
            for name in protocols
            for found in [runs[0].evaluations[name].protocol]
            for search in found.searches
        ),
        epsilons=epsilons,
        norm=first.norm,
        samples=first.samples,
        data=data_name(runs[0]),
        classes=tuple(runs[0].result.classes),
        left_out=tuple(_left_out(runs, epsilons)),
    )


def read_methods(folders: Sequence[Path | str]) -> tuple[Method, ...]:
    """The methods of finished runs on the same data, evaluated or not, in the order of their registry.

    Raises:
        InputError: a folder holds no finished run, or two of them cannot stand side by side.
        DamagedFileError: a file of a run is damaged.
    """

    return _methods(_read_all(folders, "explain"))


def trained_eps(methods: Sequence[Method], norm: Norm) -> float | None:
    """The ε that most runs were trained at (of equally many, the largest), of those trained in a norm.

    ``None`` where no run was trained against an attack in it.
    """

    counts = Counter(eps for method in methods for run in method.runs if (eps := _trained_eps(run, norm)) is not None)
    return max(counts, key=lambda eps: (counts[eps], eps), default=None)


def method_names(configs: Sequence[TrainConfig]) -> list[str]:
    """What to call each configuration beside the others; those that differ in no setting of the method share a name.

    Seed, device and how a run is watched are no settings of the method. Where several settings share a base name, each
    is followed by those in which they differ: ``SGT (k = 0.3)``.
    """

    settings = [_settings(config) for config in configs]
    names = []
    for mine in settings:
        rivals = [other for other in settings if _base_name(other) == _base_name(mine)]
        differing = []
        for setting in (each.name for each in fields(TrainConfig)):
            values = {getattr(other, setting) for other in rivals}
            if len(values) > 1:
                differing.append(f"{setting} = {_value(getattr(mine, setting), values)}")
        names.append(_base_name(mine) + (f" ({', '.join(differing)})" if differing else ""))
    return names


def _settings(config: TrainConfig) -> TrainConfig:
    """A configuration without what does not tell methods apart."""

    plain: dict[str, Any] = {"seed": 0, "device": "auto"} | {name: getattr(TrainConfig, name) for name in MAY_CHANGE}
    return replace(config.resolved(), data=short_name(config.data), **plain)


def _base_name(config: TrainConfig) -> str:
    # SGA's own paper trains with PGD: only another attack is worth a word.
    if config.attack is None or (config.method == "sga" and config.attack == "pgd"):
        return config.method.upper()
    return f"{config.method}-{config.attack}".upper()


def _value(value: Any, among: set[Any]) -> str:
    """A setting for people; with all its digits only where six do not tell it from the others."""

    if value is None:
        return "default"
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    others = [other for other in among if isinstance(other, float) and other != value]
    return repr(value) if any(short == f"{other:g}" for other in others) else short


def _methods(runs: list[Run]) -> tuple[Method, ...]:
    names = method_names([run.config for run in runs])
    groups: dict[str, list[Run]] = {}
    for name, run in zip(names, runs, strict=True):
        groups.setdefault(name, []).append(run)

    def place(method: Method) -> tuple[int, int]:
        config = method.runs[0].config
        return list(METHODS).index(config.method), _ATTACK_ORDER.index(config.attack) if config.attack else 0

    methods = [Method(name, tuple(sorted(group, key=lambda run: run.seed))) for name, group in groups.items()]
    return tuple(sorted(methods, key=place))


def _accuracy(outcomes: Sequence[Tensor]) -> Accuracy:
    """The accuracy of some runs from which samples each gets right, bool (N,)."""

    counts = [int(right.sum()) for right in outcomes]
    samples = len(outcomes[0])
    values = tuple(count / samples for count in counts)
    if len(values) == 1:
        share = share_of(counts[0], samples)
        return Accuracy(values, share["accuracy"], share["low"], share["high"], None, samples)
    mean, sd = spread(values)
    return Accuracy(values, mean, max(0.0, mean - sd), min(1.0, mean + sd), sd, samples)


def _trained_eps(run: Run, norm: Norm) -> float | None:
    """The ε that a run was trained at, if it was against an attack in that norm."""

    return float(run.config.eps) if run.config.eps and (run.config.norm or "linf") == norm else None


def _catastrophe(run: Run) -> str | None:
    """The warning of a run that withstands one step at its training ε, but not several, on the same test images."""

    norm = next(iter(run.evaluations.values())).norm
    eps = _trained_eps(run, norm)
    return None if eps is None else catastrophic_on_test(list(run.evaluations.values()), eps)


def _read_all(folders: Sequence[Path | str], verb: str) -> list[Run]:
    """Run folders that may stand side by side, each named once."""

    if not folders:
        raise InputError(f"there is no run to {verb}: asgt {verb} RUN…")
    paths = [Path(folder) for folder in folders]
    for number, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:number]]:
            raise InputError(f"{path} is named twice: leave one out")

    runs = [read_run(path) for path in paths]
    _refuse_apart(runs)
    return runs


def _refuse_apart(runs: list[Run]) -> None:
    """Refuses runs that can stand in no table together."""

    _refuse_repeated(runs)
    _refuse_other_data(runs)


def _refuse_repeated(runs: list[Run]) -> None:
    """Refuses runs whose spread would be none over seeds."""

    for number, run in enumerate(runs):
        for other in runs[:number]:
            if _settings(run.config) != _settings(other.config):
                continue
            both = f"{other.folder} and {run.folder}"
            if run.seed == other.seed:
                raise InputError(
                    f"{both} hold the same method, settings and seed ({run.seed}), which shows no spread over seeds: "
                    "leave one out, or train it with another --seed"
                )
            if run.result.train_data != other.result.train_data:
                raise InputError(
                    f"{both} hold the same method and settings, trained on different images: leave one out, or train "
                    "it again on the same ones"
                )


def _refuse_other_data(runs: list[Run]) -> None:
    """Refuses runs whose test images, as a whole, or classes are not the same."""

    first = runs[0]
    for run in runs[1:]:
        both = f"{first.folder} and {run.folder}"
        if run.result.test_data != first.result.test_data:
            names = data_name(first), data_name(run)
            which = f"images of {names[0]}" if names[0] == names[1] else f"data ({names[0]} and {names[1]})"
            raise InputError(f"{both} were tested on different {which}: compare runs of the same test images")
        if run.result.classes != first.result.classes:
            raise InputError(f"{both} tell different classes apart: compare runs of the same classes")


def _refuse_other_images(runs: list[Run], protocols: list[str]) -> None:
    """Refuses evaluations on other images of the test split, or in another norm."""

    (one, kind, first), *others = _evaluations(runs, protocols)
    for run, name, found in others:
        both = f"{one.folder} and {run.folder}"
        if run is one:
            both = f"{RunFolder(one.folder).evaluation(kind)} and {RunFolder(run.folder).evaluation(name)}"
        if found.data != first.data:
            counts = "" if found.samples == first.samples else f" (n = {first.samples} and {found.samples})"
            raise InputError(
                f"{both} were tested on different images of {data_name(run)}{counts}: "
                + evaluate_again(run.folder, name, f"--samples {first.samples}")
            )
        if found.norm != first.norm:
            raise InputError(
                f"{both} were evaluated in different norms ({first.norm} and {found.norm}): "
                + evaluate_again(run.folder, name, f"--norm {first.norm}")
            )


def _refuse_other_grids(runs: list[Run], protocols: list[str]) -> None:
    """Refuses evaluations that have no ε in common."""

    (_, _, first), *others = _evaluations(runs, protocols)
    shared = set(first.epsilons)
    for run, name, found in others:
        if shared.isdisjoint(found.epsilons):
            grid, asked = (",".join(f"{eps:g}" for eps in sorted(values)) for values in (found.epsilons, shared))
            raise InputError(
                f"no eps is common to all: {RunFolder(run.folder).evaluation(name)} has {grid}, those before it share "
                f"{asked}: " + evaluate_again(run.folder, name, "--epsilons " + ",".join(map(repr, sorted(shared))))
            )
        shared &= set(found.epsilons)


def _shared_protocols(runs: list[Run]) -> list[str]:
    """The protocols that every run was evaluated by, in the order of their registry."""

    shared = [name for name in PROTOCOLS if all(name in run.evaluations for run in runs)]
    if not shared:
        held = "; ".join(f"{run.folder} holds {listed(list(run.evaluations))}" for run in runs)
        name = max(PROTOCOLS, key=lambda name: sum(name in run.evaluations for run in runs))
        lacking = next(run.folder for run in runs if name not in run.evaluations)
        raise InputError(f"no protocol is common to all: {held}: asgt evaluate {lacking} --protocol {name}")
    return shared


def _evaluations(runs: list[Run], protocols: list[str]) -> list[tuple[Run, str, Evaluation]]:
    return [(run, name, run.evaluations[name]) for name in protocols for run in runs]


def _shared_epsilons(evaluations: list[Evaluation]) -> tuple[float, ...]:
    return tuple(sorted(set.intersection(*(set(found.epsilons) for found in evaluations))))


def _left_out(runs: list[Run], epsilons: dict[str, tuple[float, ...]]) -> list[str]:
    """What only some runs hold, in sentences."""

    sentences = []
    for name in PROTOCOLS:
        lacking = [str(run.folder) for run in runs if name not in run.evaluations]
        if name not in epsilons and len(lacking) < len(runs):
            sentences.append(f"protocol {name} is left out: no evaluation by it in {listed(lacking)}")

    for name, shared in epsilons.items():
        grids = {str(run.folder): run.evaluations[name].epsilons for run in runs}
        for eps in sorted({eps for grid in grids.values() for eps in grid} - set(shared)):
            lacking = [folder for folder, grid in grids.items() if eps not in grid]
            sentences.append(f"protocol {name} at eps {eps:g} is left out: not evaluated in {listed(lacking)}")
    return sentences


def listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
