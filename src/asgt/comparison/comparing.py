"""The comparison of runs: the values of each cell of their table.

Runs are compared only on the same images, by the same protocols, at the same ε (:mod:`asgt.comparison.comparable`).
Runs that differ only in the seed are one method (:mod:`asgt.comparison.method_naming`), whose cells show the spread
over seeds. The cells of a single run show Wilson's interval. No code from a run folder is executed, and no model is
built.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from ..attacks import Norm
from ..errors import InputError
from ..evaluation.health import catastrophic_on_test
from ..evaluation.outcomes import grid_place
from ..evaluation.protocols import Protocol, protocol_key
from ..numbers import Number, counted, eps_text, norm_sign, number
from ..runs.kept import load_kept
from ..runs.run import Run, data_name, evaluate_command, read_run
from ..statistics import Estimate, share, share_over_runs
from ..tabular import Table, Tabular, draw_curves
from .comparable import left_out, refuse_other_evaluations, refuse_other_runs, shared_epsilons, shared_protocols
from .method_naming import Method, group_by_method

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "Column",
    "Comparison",
    "compare",
    "compare_runs",
    "headings",
    "load_results",
    "read_methods",
    "trained_eps",
]


@dataclass(frozen=True)
class Column:
    """An attack of a protocol: a column of the table, or a panel of the figure.

    Attributes:
        protocol: its name.
        version: the protocol's.
        claim: what a number by this protocol may claim.
        attack: the name of the search.
        title: the attack's name in tables.
        reach: the largest ε that a constant step can cross; ``None`` where the step follows ε.
    """

    protocol: str
    version: int
    claim: str
    attack: str
    title: str
    reach: float | None

    @property
    def key(self) -> str:
        """The key of its protocol, by which evaluations are found (:attr:`asgt.Protocol.key`)."""

        return protocol_key(self.protocol, self.version)


@dataclass(frozen=True)
class Comparison(Tabular):
    """Methods on the same images, by the protocols and at the ε that all their runs share.

    Attributes:
        methods: in the order of the methods' registry, attacks of one step before PGD.
        columns: the attacks of every shared protocol.
        epsilons: by the key of the protocol, the ε that all runs share, ascending.
        norm: the norm of ε.
        counts: by the key of the protocol, the number of test images of each run. An expensive protocol may have
            fewer images.
        data: the name of the data, for display.
        classes: the names of the classes.
        left_out: sentences on results that only some runs have.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder="run/evaluation/pgd")
        >>> comparison = asgt.compare(["run"])
        >>> [method.name for method in comparison.methods]
        ['ST']
    """

    methods: tuple[Method, ...]
    columns: tuple[Column, ...]
    epsilons: dict[str, tuple[float, ...]]
    norm: Norm
    counts: dict[str, int]
    data: str
    classes: tuple[str, ...]
    left_out: tuple[str, ...]

    def right(self, run: Run, column: Column | None, eps: Number) -> Tensor:
        """Which images a run classifies correctly, bool (N,), under an attack at an ε of ``epsilons[column.key]``.

        Without a column, the clean outcomes on the images of the protocol with the most images.

        Raises:
            InputError: the run was not evaluated there.
        """

        if column is None or number(eps, "eps") == 0:
            return run.evaluations[max(self.counts, key=lambda key: self.counts[key])].clean
        evaluation = run.evaluations[column.key]
        return evaluation.outcomes[column.attack][grid_place(evaluation.epsilons, eps)]

    @property
    def samples(self) -> int:
        """The number of test images of each run, by the protocol with the most of them."""

        return max(self.counts.values())

    def samples_of(self, column: Column | None) -> int:
        """The number of test images of each run under an attack; without one, of the clean images."""

        return self.samples if column is None else self.counts[column.key]

    def fewer_text(self) -> str:
        """Which protocols have fewer test images than others, as `` (standard v2: 100)``; empty if none has."""

        protocols = self.protocols
        fewer = [
            f"{protocols[key].name} v{protocols[key].version}: {count}"
            for key, count in self.counts.items()
            if count < self.samples
        ]
        return f" ({', '.join(fewer)})" if fewer else ""

    def clean(self, method: Method) -> Estimate:
        """The accuracy without an attack."""

        return _accuracy([self.right(run, None, 0.0) for run in method.runs])

    def at(self, method: Method, column: Column, eps: Number) -> Estimate:
        """The accuracy under an attack at an ε of ``epsilons[column.key]``.

        Raises:
            InputError: some run was not evaluated there.
        """

        return _accuracy([self.right(run, column, eps) for run in method.runs])

    def curve(self, method: Method, column: Column) -> list[tuple[float, Estimate]]:
        """Accuracy over the shared ε; at 0 that of the same images without an attack."""

        points = [(eps, self.at(method, column, eps)) for eps in self.epsilons[column.key]]
        return [(0.0, _accuracy([run.evaluations[column.key].clean for run in method.runs])), *points]

    def trained_eps(self) -> float | None:
        """The ε that most runs were trained at (of equally many, the largest), in the norm of the evaluations.

        ``None`` if no run was trained against an attack in that norm.
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

    def discarded(self, key: str) -> str:
        """The largest error of a protocol's accuracies because of discarded images; empty without any."""

        told = [
            each for method in self.methods for run in method.runs for each in run.evaluations[key].discards.values()
        ]
        if not told:
            return ""
        full = sum(each.full for each in told)
        bounds = [each.bound for each in told if not each.full and each.bound is not None]
        words = [f"the full search ran on all images of {full} of {len(told)} models"] if full else []
        if bounds:
            words.append(
                f"accuracy at most {100 * max(bounds):.2f} points too high because the search is not the full one, "
                "one-sided 95 %"
            )
        if len(bounds) + full < len(told):
            words.append("discarded images not audited")
        return "; ".join(words)

    def table(self) -> Table:
        """A row for each method at :attr:`judging_eps`: clean accuracy, then accuracy under each attack, in percent."""

        eps, seeds = self.judging_eps(), {len(method.runs) for method in self.methods}
        spreads = [
            *(["± standard deviation over seeds"] if seeds != {1} else []),
            *(["[Wilson 95 %]"] if 1 in seeds else []),
        ]
        spread_text = " or, of a single seed, ".join(spreads)
        protocols = ", ".join(
            f"{each.name} v{each.version}{f' ({told})' if (told := self.discarded(key)) else ''}"
            for key, each in self.protocols.items()
        )
        rows = [
            [
                method.name,
                self.clean(method).percent(),
                *(self.at(method, column, eps).percent() for column in self.columns),
            ]
            for method in self.methods
        ]
        return Table(
            f"accuracy % {spread_text} · {self.data}, n = {self.samples} test images{self.fewer_text()} · "
            f"{norm_sign(self.norm)}, ε = {eps_text(eps)} · protocols {protocols}",
            ["method", "clean", *headings(self.columns)],
            rows,
            [
                *(f"{method.name}, seed {run.seed}: {text}" for method, run, text in self.warnings()),
                *self.remarks(),
                *self.left_out,
            ],
        )

    def plot(self, axes: Axes | None = None, *, label: str = "") -> Axes:
        """Draws accuracy over ε under the strictest protocol, a curve with its band for each method.

        Args:
            axes: matplotlib axes to draw on, also those of another result. Default: those of a new figure.
            label: a prefix of the names of the curves.
        """

        judge = self.judges()[-1]
        return draw_curves(
            {method.name: dict(self.curve(method, judge)) for method in self.methods},
            axes,
            title=f"{judge.title}: protocol {judge.protocol} v{judge.version}, n = {self.samples_of(judge)}",
            x_label=f"ε ({norm_sign(self.norm)}, pixels in [0, 1])",
            label=label,
        )

    @property
    def protocols(self) -> dict[str, Protocol]:
        """The definition of each shared protocol, by its key."""

        first = self.methods[0].runs[0]
        return {name: first.evaluations[name].protocol for name in self.epsilons}

    def judges(self) -> tuple[Column, ...]:
        """The columns by which methods are compared, the strictest last: every worst case, or the last of all."""

        protocols = self.protocols
        return tuple(column for column in self.columns if protocols[column.key].worst_case) or self.columns[-1:]

    def judging_eps(self) -> float:
        """The ε at which methods are compared: the training ε, or else a middle one of the table's."""

        shared, trained = self.table_epsilons(), self.trained_eps()
        return trained if trained in shared else shared[len(shared) // 2]

    def warnings(self) -> list[tuple[Method, Run, str]]:
        """The runs' own warnings, and overfitting to one-step attacks on the test images."""

        warnings = []
        for method in self.methods:
            for run in method.runs:
                warnings += [(method, run, text) for text in run.result.warnings]
                if (text := _catastrophe(run)) is not None:
                    warnings.append((method, run, text))
        return warnings

    def remarks(self) -> list[str]:
        """Remarks on the files, a line each: unverified files, and edited files that were accepted."""

        runs = [(method, run) for method in self.methods for run in method.runs]
        told: dict[str, list[str]] = {}
        for method, run in runs:
            for text in run.remarks:
                told.setdefault(text, []).append(f"{method.name}, seed {run.seed}")
        remarks = []
        for text, those in told.items():
            whose = "" if len(those) == len(runs) else f" ({'; '.join(those)})"
            remarks.append(f"{len(those)} of {counted(len(runs), 'run')}{whose}: {text}")
        return remarks


def compare(folders: Sequence[Path | str]) -> Comparison:
    """Reads run folders and compares their methods on the same images.

    Args:
        folders: run folders, each trained and evaluated.

    Returns:
        The methods on the images, protocols and ε that all runs share.

    Raises:
        InputError: a folder holds no finished and evaluated run, or the runs cannot be in one table.
        DamagedFileError: a file of a run is damaged.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder="run/evaluation/pgd")
        >>> comparison = asgt.compare(["run"])
        >>> comparison.samples, comparison.data
        (20, 'digits')
    """

    return compare_runs(_read_all(folders, "compare"))


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compares runs that were already read.

    Raises:
        InputError: there is no run, or they cannot be in one table.
    """

    runs = list(runs)
    refuse_other_runs(runs)
    for run in runs:
        if not run.evaluations:
            raise InputError(f"{run.folder} holds no evaluation: {evaluate_command(run)}")
    protocols = shared_protocols(runs)
    refuse_other_evaluations(runs, protocols)

    first = runs[0].evaluations[protocols[0]]
    epsilons = {name: shared_epsilons([run.evaluations[name] for run in runs]) for name in protocols}
    return Comparison(
        methods=group_by_method(runs),
        columns=tuple(
            Column(protocol.name, protocol.version, protocol.claim, search.name, search.title, search.reach)
            for name in protocols
            for protocol in [runs[0].evaluations[name].protocol]
            for search in protocol.searches
        ),
        epsilons=epsilons,
        norm=first.norm,
        counts={name: runs[0].evaluations[name].samples for name in protocols},
        data=data_name(runs[0]),
        classes=tuple(runs[0].result.classes),
        left_out=tuple(left_out(runs, epsilons)),
    )


def headings(columns: Sequence[Column]) -> list[str]:
    """The heading of each column of a table: its title, with the protocol if the title is ambiguous.

    That is if two columns have the same title, or if there are two versions of one protocol.
    """

    titles = Counter(column.title for column in columns)
    versions = {
        column.protocol: {other.version for other in columns if other.protocol == column.protocol} for column in columns
    }
    return [
        f"{column.title}, {column.protocol} v{column.version}"
        if titles[column.title] > 1 or len(versions[column.protocol]) > 1
        else column.title
        for column in columns
    ]


def load_results(folder: Path) -> Comparison:
    """The comparison of saved runs in a folder (:mod:`asgt.runs.kept`).

    Raises:
        InputError: the folder holds none, or they cannot be in one table.
        DamagedFileError: a file of it is damaged.
    """

    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{folder} holds no saved runs: write them with asgt reproduce … --keep {folder.parent}")
    return compare_runs([load_kept(file) for file in files])


def read_methods(folders: Sequence[Path | str]) -> tuple[Method, ...]:
    """The methods of finished runs on the same data, evaluated or not, in the order of their registry.

    Raises:
        InputError: a folder holds no finished run, or two of them cannot be compared.
        DamagedFileError: a file of a run is damaged.
    """

    return group_by_method(_read_all(folders, "explain"))


def trained_eps(methods: Sequence[Method], norm: Norm) -> float | None:
    """The ε that most runs were trained at (of equally many, the largest), of those trained in a norm.

    ``None`` where no run was trained against an attack in it.
    """

    counts = Counter(eps for method in methods for run in method.runs if (eps := _trained_eps(run, norm)) is not None)
    return max(counts, key=lambda eps: (counts[eps], eps), default=None)


def _accuracy(outcomes: Sequence[Tensor]) -> Estimate:
    """The accuracy of some runs from which samples each gets right, bool (N,); bounds are kept in [0, 1]."""

    counts = [int(right.sum()) for right in outcomes]
    samples = len(outcomes[0])
    if len(counts) == 1:
        return share(counts[0], samples)
    return share_over_runs([count / samples for count in counts], samples)


def _trained_eps(run: Run, norm: Norm) -> float | None:
    """The ε that a run was trained at, if it was against an attack in that norm."""

    is_trained = run.config.epochs > 0 and run.result.norm == norm
    return float(run.config.eps) if run.config.eps and is_trained else None


def _catastrophe(run: Run) -> str | None:
    """The warning of a run that is robust to one step at its training ε, but not to several, on the test images."""

    norm = next(iter(run.evaluations.values())).norm
    eps = _trained_eps(run, norm)
    return None if eps is None else catastrophic_on_test(list(run.evaluations.values()), eps)


def _read_all(folders: Sequence[Path | str], verb: str) -> list[Run]:
    """Run folders that may stand side by side, each named once."""

    if not folders:
        raise InputError(f"no run folder is given: asgt {verb} RUN…")
    paths = [Path(folder) for folder in folders]
    for place, path in enumerate(paths):
        if path.resolve() in [other.resolve() for other in paths[:place]]:
            raise InputError(f"{path} is given twice: remove one")

    runs = [read_run(path) for path in paths]
    refuse_other_runs(runs)
    return runs
