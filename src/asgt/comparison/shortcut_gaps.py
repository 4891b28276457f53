"""How much methods use a planted shortcut: their runs on the four test sets, and the differences of their gaps.

The gap of a run is its accuracy on ``aligned`` less that on ``reversed`` (:mod:`asgt.evaluation.shortcut_use`). Two
methods are compared by one difference of gaps a seed, as accuracies are (:mod:`asgt.comparison.differences`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from ..errors import InputError
from ..evaluation.shortcut_use import ShortcutUse, in_points, shortcut_use
from ..numbers import eps_text, norm_sign, signed
from ..runs.run import Run
from ..shortcuts import VIEWS, ShortcutView
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
from .comparing import Comparison
from .differences import basis, of_seeds

__all__ = ["MethodShortcut", "ShortcutComparison", "compare_shortcut_use", "gap_difference", "has_views"]


@dataclass(frozen=True)
class MethodShortcut:
    """What the runs of a method do with a shortcut.

    Attributes:
        name: the method's.
        runs: each run on the four test sets, by its seed.
    """

    name: str
    runs: Mapping[int, ShortcutUse]

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
            ["gap: aligned less reversed, in points", *([f"worst group: {groups[0].text()}"] if groups else [])],
        )

    def differences(self, eps: float = 0.0) -> tuple[PairedDifference, ...]:
        """The differences of the gaps of every two methods, in [-2, 2], with Holm's correction over the pairs.

        Args:
            eps: an ε of the grid. Default: without an attack.

        Returns:
            Of each pair that can be paired: the gap of the first less that of the second. Over the seeds that both
            have, by Student's t; of one run each, by a paired bootstrap and a t test over images.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        found = [gap_difference(first, second, eps) for first, second in combinations(self.methods, 2)]
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
            [*basis(pairs), PAIRS_NOTE] if rows else ["no two methods can be paired"],
        )


def has_views(runs: Sequence[Run]) -> bool:
    """Whether all of some runs were evaluated with a planted shortcut."""

    return all(run.views for run in runs)


def compare_shortcut_use(comparison: Comparison) -> ShortcutComparison:
    """Compares what methods do with a planted shortcut, by the strictest protocol that all runs share.

    Args:
        comparison: the methods and their runs, as :func:`asgt.compare` returns them.

    Returns:
        Each method on the four test sets, and the differences of their gaps.

    Raises:
        InputError: a run lacks the evaluation on one of the test sets, or its evaluations do not belong together.

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

    column = comparison.judges()[-1]
    methods = []
    for method in comparison.methods:
        uses = {}
        for run in method.runs:
            try:
                uses[run.seed] = shortcut_use(run.on_views(column.key).values())
            except InputError as error:
                raise InputError(f"{run.folder}: {error}") from error
        methods.append(MethodShortcut(method.name, uses))
    return ShortcutComparison(
        tuple(methods),
        comparison.judging_eps(),
        f"{column.protocol} v{column.version}",
        comparison.norm,
        comparison.data,
    )


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
