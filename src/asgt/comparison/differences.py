"""Tests of the differences between all pairs of methods, under an attack at one ε, or on the clean images.

Models and methods are distinguished. If two methods share several seeds, the *methods* are compared, with one
difference per seed: the same seed is the same initialisation and order of images. If only one run of each can be
compared, the two *models* are compared, image by image, which says nothing about another run of either. A difference
is decided if its p, by Holm's correction over all pairs of its kind, is below 0.05 and its own interval excludes zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
from statistics import fmean

from torch import Tensor

from ..numbers import Number, counted, eps_text, number, points
from ..runs.run import Run
from ..statistics import (
    KINDS,
    PAIRS_NOTE,
    Kind,
    PairedDifference,
    adjusted_by_kind,
    mcnemar,
    paired_bootstrap,
    paired_by_seed,
    t_interval,
    t_test,
)
from ..tabular import Table, Tabular
from .comparing import Column, Comparison
from .method_naming import Method

__all__ = [
    "DifferenceTable",
    "basis",
    "differences",
    "differences_at",
    "interval_points",
    "of_seeds",
    "over_seeds",
    "shown_differences",
]


@dataclass(frozen=True)
class DifferenceTable(Tabular):
    """The differences in accuracy of all pairs of methods, under one attack at one ε, or on the clean images.

    ``print`` shows its table, and so does a notebook.

    Attributes:
        column: the attack; ``None`` for the clean images.
        eps: its ε; 0 for the clean images.
        differences: of all pairs of methods that can be paired, in the order of the methods; in [-1, 1]. Over seeds, p
            is of Student's t test; of two models, of McNemar's exact test.

    Example:
        >>> import asgt
        >>> for seed in (0, 1):
        ...     config = asgt.TrainConfig(method="st", epochs=1 + seed, limit=100)
        ...     result = asgt.train(config, f"run-{seed}")
        ...     model, data, *_ = asgt.load_run(f"run-{seed}")
        ...     folder = f"run-{seed}/evaluation/pgd"
        ...     evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder=folder)
        >>> table = asgt.differences(asgt.compare(["run-0", "run-1"]))
        >>> isinstance(table, asgt.DifferenceTable), table.eps
        (True, 0.1)
    """

    column: Column | None
    eps: float
    differences: tuple[PairedDifference, ...]

    @property
    def where(self) -> str:
        """The attack and the ε, as text."""

        if self.column is None:
            return "on the clean images"
        protocol = f"{self.column.protocol} v{self.column.version}"
        return f"under {self.column.title} (protocol {protocol}) at ε = {eps_text(self.eps)}"

    @property
    def decided(self) -> tuple[PairedDifference, ...]:
        """The decided differences."""

        return tuple(each for each in self.differences if each.decision != "not decided")

    def table(self) -> Table:
        """A row for each pair of methods: their difference in points, its interval and p, and whether it is decided."""

        rows = [
            [
                f"{each.first} − {each.second}",
                f"{points(each.value, '+')} {interval_points(each)}",
                each.p_text,
                each.decision,
            ]
            for each in self.differences
        ]
        n = f" · n = {self.differences[0].n} images" if self.differences else ""
        return Table(
            f"differences in accuracy {self.where}, in points{n}",
            ["pair", "difference [95 %]", "p by Holm's correction", "decision"],
            rows,
            [*basis(self.differences), PAIRS_NOTE] if rows else ["no two methods can be paired"],
        )

    def sentence(self, difference: PairedDifference) -> str:
        """A difference of this table as a sentence without its full stop.

        If the difference is decided, the method with the higher accuracy comes first.
        """

        if difference.decision == "less":
            return self.sentence(difference.turned())

        first, second, seeds = difference.first, difference.second, difference.seeds
        paired = f"{len(seeds)} seeds paired"
        if difference.kind == "models":
            first, second = f"the model of {first}", f"that of {second}"
            paired = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} and {seeds[1]}"

        words = f"{first} minus {second} is not decided"
        if difference.decision == "more":
            words = f"{first} is more robust than {second}"
            if self.column is None:
                words = f"{first} has a higher clean accuracy than {second}"
        over = f"{difference.p_text} (Holm over {counted(difference.claims, 'pair')})"
        return f"{words}: {points(difference.value, '+')} points {interval_points(difference)}, {over}, {paired}"


def differences(comparison: Comparison, eps: Number | None = None) -> DifferenceTable:
    """Tests which methods differ in accuracy, under the strictest protocol that all their runs share.

    Args:
        comparison: the methods and their runs, as :func:`asgt.compare` returns them.
        eps: an ε of the protocol's grid, or 0 for the clean images. Default: the training ε, or else one in the middle
            of the grid.

    Returns:
        All pairs of methods with their difference in [-1, 1], its 95 % interval, and p by Holm's correction.

    Raises:
        InputError: some run was not evaluated at that ε.

    Example:
        >>> import asgt
        >>> for seed in (0, 1):
        ...     config = asgt.TrainConfig(method="st", epochs=1 + seed, limit=100)
        ...     result = asgt.train(config, f"run-{seed}")
        ...     model, data, *_ = asgt.load_run(f"run-{seed}")
        ...     folder = f"run-{seed}/evaluation/pgd"
        ...     evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder=folder)
        >>> table = asgt.differences(asgt.compare(["run-0", "run-1"]))
        >>> len(table.differences), table.eps
        (1, 0.1)
    """

    radius = comparison.judging_eps() if eps is None else number(eps, "eps")
    return differences_at(comparison, comparison.judges()[-1] if radius else None, radius)


def differences_at(comparison: Comparison, column: Column | None, eps: float) -> DifferenceTable:
    """The differences of all pairs of methods, in the order of the methods.

    Args:
        comparison: the methods and their runs.
        column: the attack; ``None`` for the clean images.
        eps: an ε of ``comparison.epsilons[column.key]``; 0 for the clean images.

    Returns:
        A table without the pairs that cannot be paired: several runs of either method, and no seed in common.

    Raises:
        InputError: some run was not evaluated at that ε.
    """

    differences = []
    for first, second in combinations(comparison.methods, 2):
        kind, pairs = _pairs(first, second)
        if not pairs:
            continue
        right = [(comparison.right(one, column, eps), comparison.right(other, column, eps)) for one, other in pairs]
        value, low, high, p = over_seeds(right) if kind == "methods" else _of_models(*right[0])
        seeds = tuple(sorted({run.seed for pair in pairs for run in pair}))
        # As of a single claim, until all are known.
        differences.append(
            PairedDifference(
                first.name,
                second.name,
                kind,
                value,
                low,
                high,
                p=p,
                adjusted=p,
                claims=1,
                seeds=seeds,
                n=len(right[0][0]),
            )
        )
    return DifferenceTable(column, eps, adjusted_by_kind(differences))


def shown_differences(comparison: Comparison) -> tuple[DifferenceTable, ...]:
    """The differences in a report: at the comparison's ε under every worst case, the strictest first, and clean.

    Empty for a single method, and where no two methods can be paired.
    """

    eps = comparison.judging_eps()
    tables = [differences_at(comparison, column, eps) for column in reversed(comparison.judges())]
    return tuple(table for table in (*tables, differences_at(comparison, None, 0.0)) if table.differences)


def basis(differences: Sequence[PairedDifference]) -> list[str]:
    """The basis of the differences of one table, a sentence for each kind among them."""

    sentences = []
    for kind in KINDS:
        if not (of_kind := [each for each in differences if each.kind == kind]):
            continue
        over = f"Holm's correction over {counted(len(of_kind), 'claim')}"
        if kind == "methods":
            seeds = " or ".join(map(str, sorted({len(each.seeds) for each in of_kind})))
            sentences.append(f"Methods, paired by seed ({seeds} seeds): the runs' mean difference, t interval, {over}")
        else:
            sentences.append(
                "Two models (one seed), paired on the same images: bootstrap interval, McNemar's exact p, "
                f"{over}; this does not compare the methods"
            )
    return sentences


def interval_points(difference: PairedDifference) -> str:
    """The interval of a difference in points of accuracy: ``[28.0, 36.2]``."""

    return f"[{points(difference.low)}, {points(difference.high)}]"


def _pairs(first: Method, second: Method) -> tuple[Kind, list[tuple[Run, Run]]]:
    by_seed = [{run.seed: run for run in method.runs} for method in (first, second)]
    return paired_by_seed(*by_seed)


def over_seeds(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float, float, float]:
    """The difference of two methods: mean, 95 % interval and p of the run-level differences.

    Args:
        pairs: the outcomes of both on the same images, bool (N,), a pair for each seed, two seeds or more.
    """

    samples = len(pairs[0][0])
    mean, low, high, p = of_seeds([(int(one.sum()) - int(other.sum())) / samples for one, other in pairs], samples)
    return mean, max(-1.0, low), min(1.0, high), p


def of_seeds(values: Sequence[float], samples: int) -> tuple[float, float, float, float]:
    """The mean of a difference of shares, one value a seed, with its 95 % interval and p.

    Args:
        values: of two seeds or more.
        samples: the images that each value is counted on.
    """

    # Runs are whole images apart, so a few seeds often differ by the very same number. That shows no spread, and a t
    # test would call it certain. No spread is taken to be less than that of a rounding to whole images.
    least = 1 / (sqrt(12) * samples)
    low, high = t_interval(values, least=least)
    return fmean(values), low, high, t_test(values, least=least)


def _of_models(one: Tensor, other: Tensor) -> tuple[float, float, float, float]:
    """Difference, interval and p of two models by their outcomes on the same images, bool (N,)."""

    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    return (only_first - only_second) / len(one), *paired_bootstrap(one, other), mcnemar(only_first, only_second)
