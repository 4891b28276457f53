"""How much methods use a planted shortcut: their runs on the four test sets, and the differences of their gaps.

The gap of a run is its accuracy on ``aligned`` less that on ``reversed`` (:mod:`asgt.evaluation.shortcut_use`). Two
methods are compared by one difference of gaps a seed, as accuracies are (:mod:`asgt.comparison.differences`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from ..errors import InputError
from ..evaluation.shortcut_use import ShortcutUse, in_points, shortcut_use
from ..numbers import eps_text, norm_sign, signed
from ..runs.run import Run, evaluate_command
from ..shortcuts import VIEWS, ShortcutView, shortcut_named
from ..statistics import (
    PAIRS_NOTE,
    Estimate,
    PairedDifference,
    adjusted_by_kind,
    bootstrap_means,
    paired_by_seed,
    share_over_runs,
    spread,
    t_test,
)
from ..tabular import Table, Tabular
from .comparing import Column, Comparison
from .differences import basis, of_seeds
from .method_naming import Method

__all__ = [
    "MethodShortcut",
    "ShortcutComparison",
    "compare_shortcut_use",
    "gap_difference",
    "use_or_reason",
    "views_command",
]


@dataclass(frozen=True)
class MethodShortcut:
    """What the runs of a method do with a shortcut.

    Attributes:
        name: the method's.
        runs: each run on the four test sets, by its seed.
        shortcut: the shortcut in their test images, with its settings.
    """

    name: str
    runs: Mapping[int, ShortcutUse]
    shortcut: str = ""

    @property
    def images(self) -> tuple[str, ...]:
        """SHA-256 of the images of each test set, which methods with the same shortcut share."""

        return tuple(next(iter(self.runs.values())).views[view].data for view in VIEWS)

    def accuracy(self, view: ShortcutView, eps: float = 0.0) -> Estimate:
        """Accuracy on one of the test sets: mean ± one standard deviation over seeds, or Wilson's of one run.

        Args:
            view: ``"aligned"``, ``"absent"``, ``"random"`` or ``"reversed"``.
            eps: an ε of the grid. Default: without an attack.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        shares = [use.accuracy(view, eps) for use in self.runs.values()]
        return shares[0] if len(shares) == 1 else share_over_runs([each.value for each in shares], shares[0].n)

    def gap(self, eps: float = 0.0) -> Estimate:
        """``aligned`` less ``reversed``: mean ± one standard deviation over seeds, or the bootstrap's of one run.

        Args:
            eps: as :meth:`accuracy` takes it.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        uses = [*self.runs.values()]
        if len(uses) == 1:
            gap = uses[0].gap(eps)
            return Estimate(gap.value, gap.low, gap.high, gap.n, "bootstrap", (gap.value,))
        lost = [use.lost(eps) for use in uses]
        values = tuple(float(each.mean()) for each in lost)
        mean, sd = spread(values)
        return Estimate(mean, mean - sd, mean + sd, len(lost[0]), "sd", values, sd=sd)

    def worst_group(self, eps: float = 0.0) -> Estimate | None:
        """The accuracy of each run's worst group; ``None`` where the evidence of a run does not tell groups apart.

        Args:
            eps: as :meth:`accuracy` takes it.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        groups = [use.groups(eps) for use in self.runs.values()]
        worst = [each.worst.accuracy for each in groups if each is not None]
        if len(worst) < len(groups):
            return None
        return worst[0] if len(worst) == 1 else share_over_runs([each.value for each in worst], worst[0].n)


@dataclass(frozen=True)
class ShortcutComparison(Tabular):
    """Methods on the four test sets of a planted shortcut. ``print`` shows its table, and so does a notebook.

    Attributes:
        methods: in the order of the comparison.
        eps: the ε of robust accuracy.
        protocol: the protocol, with its version.
        norm: of ε.
        data: the data's name.
        without: the names of the methods that were not evaluated on all four test sets by this protocol.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100, shortcut="patch:0.9,size=2")
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> for view, images in asgt.data.shortcut_views(data.test, config.shortcut).items():
        ...     folder = "run/evaluation/pgd" + ("" if view == "absent" else f"+{view}")
        ...     found = asgt.evaluate(model, images[:20], epsilons=[0.1], shortcut_view=view, folder=folder)
        >>> compared = asgt.compare_shortcut_use(asgt.compare(["run"]))
        >>> compared.samples, compared.method("ST").gap().n
        (20, 20)
    """

    methods: tuple[MethodShortcut, ...]
    eps: float
    protocol: str
    norm: str
    data: str
    without: tuple[str, ...] = ()

    @property
    def shortcuts(self) -> list[tuple[str, list[str]]]:
        """The shortcut of each group of methods with the same test images, and their names."""

        same: dict[tuple[str, ...], list[MethodShortcut]] = {}
        for method in self.methods:
            same.setdefault(method.images, []).append(method)
        return [(methods[0].shortcut, [method.name for method in methods]) for methods in same.values()]

    @property
    def remarks(self) -> list[str]:
        """Sentences on methods that cannot be compared with the others."""

        lacking = f"without evaluations on the four test sets, and omitted: {', '.join(self.without)}"
        several = "; ".join(f"{shortcut}: {', '.join(names)}" for shortcut, names in self.shortcuts)
        other = (
            f"the methods have different shortcuts or test images, and only gaps on the same are compared: {several}"
        )
        return [*([lacking] if self.without else []), *([other] if len(self.shortcuts) > 1 else [])]

    @property
    def samples(self) -> int:
        """The images of each test set."""

        return next(iter(self.methods[0].runs.values())).views["absent"].samples

    def method(self, name: str) -> MethodShortcut:
        """The method of a name.

        Raises:
            InputError: there is none.
        """

        for method in self.methods:
            if method.name == name:
                return method
        raise InputError(f"there is no method {name!r}: the runs have {', '.join(each.name for each in self.methods)}")

    def table(self, eps: float = 0.0) -> Table:
        """A row for each method: accuracy on each test set, the gap and the worst group, in percent.

        Args:
            eps: an ε of the grid. Default: without an attack.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        rows = []
        for method in self.methods:
            worst = method.worst_group(eps)
            cells = [*(method.accuracy(view, eps) for view in VIEWS), method.gap(eps)]
            texts = [signed(cell.percent()) for cell in cells]
            rows.append([method.name, *texts, "–" if worst is None else worst.percent()])
        uses = [use for method in self.methods for use in method.runs.values()]
        groups = [found for use in uses if (found := use.groups(eps)) is not None]
        seeds = sorted({len(method.runs) for method in self.methods})
        spread_text = "± standard deviation over seeds" if seeds != [1] else "[95 %]"
        attack = f"at ε = {eps_text(eps)} ({norm_sign(self.norm)}, protocol {self.protocol})" if eps else "clean"
        return Table(
            f"accuracy % {spread_text} on the four test sets, {attack} · {self.data}, n = {self.samples} test images "
            f"in each · {' or '.join(map(str, seeds))} {'seed' if seeds == [1] else 'seeds'}",
            ["method", *VIEWS, "gap", "worst group"],
            rows,
            [
                "gap: aligned less reversed, in points",
                *([f"worst group: {groups[0].text()}"] if groups else []),
                *self.remarks,
            ],
        )

    def differences(self, eps: float = 0.0) -> tuple[PairedDifference, ...]:
        """The differences of the gaps of every two methods with the same shortcut, in [-2, 2].

        With Holm's correction over the pairs.

        Args:
            eps: an ε of the grid. Default: without an attack.

        Returns:
            Of each pair that can be paired: the gap of the first less that of the second. Over the seeds that both
            have, by Student's t; of one run each, by a paired bootstrap and a t test over images.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        found = [
            gap_difference(first, second, eps)
            for first, second in combinations(self.methods, 2)
            if first.images == second.images
        ]
        return adjusted_by_kind([each for each in found if each is not None])

    def differences_table(self, eps: float = 0.0) -> Table:
        """A row for every two methods: the difference of their gaps in points, its interval and p.

        Args:
            eps: as :meth:`differences` takes it.
        """

        pairs = self.differences(eps)
        rows = [[f"{each.first} − {each.second}", in_points(each), each.p_text, each.decision] for each in pairs]
        attack = f" at ε = {eps_text(eps)}" if eps else ""
        return Table(
            f"differences between the gaps of methods{attack}, in points · n = {self.samples} images",
            ["pair", "difference [95 %]", "p by Holm's correction", "decision"],
            rows,
            [*([*basis(pairs), PAIRS_NOTE] if rows else ["no two methods can be paired"]), *self.remarks],
        )


def use_or_reason(comparison: Comparison) -> tuple[ShortcutComparison | None, str]:
    """What the methods do with a planted shortcut; or ``None`` and the reason, with its remedy.

    The reason is empty if no run was evaluated with a shortcut.
    """

    if not any(run.views for method in comparison.methods for run in method.runs):
        return None, ""
    try:
        return compare_shortcut_use(comparison), ""
    except InputError as error:  # as where only some of the test sets are evaluated yet
        return None, str(error)


def compare_shortcut_use(comparison: Comparison) -> ShortcutComparison:
    """Compares what methods do with a planted shortcut.

    It uses the protocol by which most methods were evaluated on the four test sets; of several, the strictest.

    Args:
        comparison: the methods and their runs, as :func:`asgt.compare` returns them.

    Returns:
        Each method on the four test sets, and the differences of their gaps.

    Raises:
        InputError: no method was evaluated on all four test sets, or its evaluations do not belong together.

    Example:
        >>> import asgt
        >>> for method in ("st", "sgt"):
        ...     config = asgt.TrainConfig(method=method, epochs=1, limit=100, shortcut="patch:0.9,size=2")
        ...     result = asgt.train(config, method)
        ...     model, data, config, result = asgt.load_run(method)
        ...     for view, images in asgt.data.shortcut_views(data.test, config.shortcut).items():
        ...         folder = f"{method}/evaluation/pgd" + ("" if view == "absent" else f"+{view}")
        ...         found = asgt.evaluate(model, images[:20], epsilons=[0.1], shortcut_view=view, folder=folder)
        >>> compared = asgt.compare_shortcut_use(asgt.compare(["st", "sgt"]))
        >>> [method.name for method in compared.methods], len(compared.differences())
        (['ST', 'SGT'], 1)
    """

    column, methods = _measured(comparison)
    if not methods:
        raise InputError(_lacking(comparison, column.key))
    found = []
    for method in methods:
        uses = {}
        for run in method.runs:
            try:
                uses[run.seed] = shortcut_use(run.on_views(column.key).values())
            except InputError as error:
                raise InputError(f"{run.folder}: {error}") from error
        found.append(MethodShortcut(method.name, uses, _shortcut_of(method, uses)))
    measured = {method.name for method in methods}
    return ShortcutComparison(
        tuple(found),
        comparison.judging_eps(),
        f"{column.protocol} v{column.version}",
        comparison.norm,
        comparison.data,
        tuple(method.name for method in comparison.methods if method.name not in measured),
    )


def _measured(comparison: Comparison) -> tuple[Column, list[Method]]:
    """The protocol by which most methods were evaluated on all four test sets, and these methods.

    Of several such protocols, the strictest.
    """

    judges = comparison.judges()
    columns = [*judges[::-1], *(column for column in comparison.columns if column not in judges)]
    found = [
        (
            column,
            [
                method
                for method in comparison.methods
                if all(len(run.on_views(column.key)) == len(VIEWS) for run in method.runs)
            ],
        )
        for column in columns
    ]
    return max(found, key=lambda each: len(each[1]))


def _lacking(comparison: Comparison, key: str) -> str:
    """Which test sets the runs lack, and the command that evaluates the first of them there."""

    runs = [run for method in comparison.methods for run in method.runs]
    run = next((run for run in runs if run.views), runs[0])
    lacking = " and ".join(view for view in VIEWS if view not in run.on_views(key))
    return (
        f"no run has evaluations on all {len(VIEWS)} test sets, {run.folder} none with the shortcut {lacking}: "
        f"{views_command(run, key)} makes them"
    )


def views_command(run: Run, key: str) -> str:
    """The command that evaluates a run on all test sets by the protocol of a column."""

    return evaluate_command(run, "--protocol", key, "--shortcut-view", "all", "--resume")


def _shortcut_of(method: Method, uses: Mapping[int, ShortcutUse]) -> str:
    """The shortcut in the test images of a method's runs; from the configuration where their evidence omits it."""

    told = {use.shortcut for use in uses.values() if use.shortcut}
    if len(told) > 1:
        raise InputError(f"the runs of {method.name} have different shortcuts: {' and '.join(sorted(told))}")
    if told:
        return told.pop()
    named = method.runs[0].config.shortcut
    return "" if named is None else shortcut_named(named).text_in()


def gap_difference(first: MethodShortcut, second: MethodShortcut, eps: float = 0.0) -> PairedDifference | None:
    """The gap of one method less that of another, paired by seed; ``None`` where no two runs can be paired."""

    kind, pairs = paired_by_seed(first.runs, second.runs)
    if not pairs:
        return None
    seeds = tuple(sorted(first.runs.keys() & second.runs.keys()) or sorted({*first.runs, *second.runs}))
    apart = [one.lost(eps) - other.lost(eps) for one, other in pairs]
    n = len(apart[0])
    if kind == "methods":
        value, low, high, p = of_seeds([float(each.mean()) for each in apart], n)
    else:
        ((low, high),) = bootstrap_means(apart[0][None])
        value, p = float(apart[0].mean()), t_test(apart[0].tolist())
    return PairedDifference(
        first.name, second.name, kind, value, max(-2.0, low), min(2.0, high), p, adjusted=p, claims=1, seeds=seeds, n=n
    )
