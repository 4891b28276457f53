"""Which differences are decided: all pairs of methods under an attack at one ε, or on the clean images.

Models and methods are kept apart. Where two methods share several seeds, the *methods* are compared, by one difference
a seed: the same seed is the same initialisation and order of images. Where only one run of each can be held against
the other, the two *models* are, image by image, which says nothing about another run of either. A difference is decided
if its p, by Holm's correction over all pairs of its kind, is below 0.05 and its own interval excludes zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import sqrt
from statistics import fmean
from typing import Literal

from torch import Tensor

from ..numbers import counted, eps_text
from ..runs.run import Run
from ..statistics import (
    KINDS,
    Kind,
    Verdict,
    holm_by_kind,
    mcnemar,
    paired_bootstrap,
    paired_by_seed,
    t_interval,
    t_test,
    verdict,
)
from .comparing import Column, Comparison, Method

__all__ = ["Difference", "basis", "differences", "over_seeds", "points", "shown_differences"]


@dataclass(frozen=True)
class Difference:
    """The accuracy of one method less that of another, on the same images.

    Attributes:
        first: the one method.
        second: the other, which is subtracted.
        kind: ``"methods"``, over the seeds that both have, or ``"models"``, of one run each.
        column: the attack; ``None`` for the clean images.
        eps: its ε; 0 for the clean images.
        mean: the difference, or its mean over seeds, in [-1, 1].
        low: the lower end of its 95 % interval, not adjusted for the other claims: Student's t over seeds, or a paired
            bootstrap over images; in [-1, 1].
        high: the upper end.
        p: two-sided, not adjusted: the t test over seeds, or McNemar's exact one over images.
        adjusted: p by Holm's correction over the ``claims``.
        claims: how many pairs of this kind stand side by side.
        seeds: those paired, ascending; of models without a common seed, both.
        samples: the test images.
    """

    first: Method
    second: Method
    kind: Kind
    column: Column | None
    eps: float
    mean: float
    low: float
    high: float
    p: float
    adjusted: float
    claims: int
    seeds: tuple[int, ...]
    samples: int

    @property
    def verdict(self) -> Verdict:
        """Whether the first is decided to have more or less than the second."""

        return verdict(self.low, self.high, self.adjusted)

    @property
    def where(self) -> str:
        """Under which attack at which ε."""

        if self.column is None:
            return "on the clean images"
        protocol = f"{self.column.protocol} v{self.column.version}"
        return f"under {self.column.title} (protocol {protocol}) at ε = {eps_text(self.eps)}"

    def turned(self) -> Difference:
        """The same difference, seen from the other side."""

        return replace(self, first=self.second, second=self.first, mean=-self.mean, low=-self.high, high=-self.low)

    def points(self) -> str:
        """The difference in points of accuracy: ``+32.1``."""

        return points(self.mean, "+")

    def interval(self) -> str:
        """Its interval: ``[28.0, 36.2]``."""

        return f"[{points(self.low)}, {points(self.high)}]"

    def text(self) -> str:
        """A sentence without its full stop; of a decided difference, the method that has more comes first."""

        if self.verdict == "less":
            return self.turned().text()

        first, second = self.first.name, self.second.name
        paired = f"{len(self.seeds)} seeds paired"
        if self.kind == "models":
            first, second = f"the model of {first}", f"that of {second}"
            seeds = f"seed {self.seeds[0]}" if len(self.seeds) == 1 else f"seeds {self.seeds[0]} and {self.seeds[1]}"
            paired = seeds

        words = f"{first} less {second} is not decided"
        if self.verdict == "more":
            words = f"{first} withstands more than {second}"
            if self.column is None:
                words = f"{first} is right on more clean images than {second}"
        p = "p < 0.001" if self.adjusted < 0.001 else f"p = {self.adjusted:.3f}"
        over = f"Holm over {counted(self.claims, 'pair')}"
        return f"{words}: {self.points()} points {self.interval()}, {p} ({over}), {paired}"


def differences(comparison: Comparison, column: Column | None, eps: float) -> tuple[Difference, ...]:
    """The differences of all pairs of methods, in the order of the methods.

    Args:
        comparison: the methods and their runs.
        column: the attack; ``None`` for the clean images.
        eps: an ε of ``comparison.epsilons[column.protocol]``; 0 for the clean images.

    Returns:
        None of a pair that cannot be paired: several runs of either method, and no seed in common.

    Raises:
        ValueError: some run was not evaluated at that ε.
    """

    found = []
    for first, second in combinations(comparison.methods, 2):
        kind, pairs = _pairs(first, second)
        if not pairs:
            continue
        right = [(comparison.right(one, column, eps), comparison.right(other, column, eps)) for one, other in pairs]
        mean, low, high, p = over_seeds(right) if kind == "methods" else _of_models(*right[0])
        seeds = tuple(sorted({run.seed for pair in pairs for run in pair}))
        # As of a single claim, until all are known.
        found.append(
            Difference(first, second, kind, column, eps, mean, low, high, p, p, 1, seeds, samples=len(right[0][0]))
        )
    return _adjusted(found)


def shown_differences(comparison: Comparison) -> list[tuple[Difference, ...]]:
    """What a report shows: the differences at the judging ε under every worst case, the judge first, and clean.

    Empty for a single method, and where no two methods can be paired.
    """

    eps = comparison.judging_eps()
    found = [differences(comparison, column, eps) for column in reversed(comparison.judges())]
    return [group for group in [*found, differences(comparison, None, 0.0)] if group]


def basis(found: Sequence[Difference]) -> list[str]:
    """What the differences of one table rest on, a sentence for each kind among them."""

    sentences = []
    for kind in KINDS:
        if not (of_kind := [one for one in found if one.kind == kind]):
            continue
        over = f"Holm's correction over {counted(len(of_kind), 'claim')}"
        if kind == "methods":
            seeds = " or ".join(map(str, sorted({len(one.seeds) for one in of_kind})))
            sentences.append(f"Methods, paired by seed ({seeds} seeds): the runs' mean difference, t interval, {over}")
        else:
            sentences.append(
                "Two models (one seed), paired on the same images: bootstrap interval, McNemar's exact p, "
                f"{over}; nothing is said about the methods"
            )
    return sentences


def points(share: float, sign: Literal["+", "-"] = "-") -> str:
    """A difference of shares in points; ``sign`` as in a format: ``"+"`` signs those above zero too."""

    text = f"{100 * share:{sign}.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def _pairs(first: Method, second: Method) -> tuple[Kind, list[tuple[Run, Run]]]:
    one, other = ({run.seed: run for run in method.runs} for method in (first, second))
    return paired_by_seed(one, other)


def over_seeds(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float, float, float]:
    """How far two methods are apart: mean, 95 % interval and p of the run-level differences.

    Args:
        pairs: the outcomes of both on the same images, bool (N,), a pair a seed, two seeds or more.
    """

    samples = len(pairs[0][0])
    values = [(int(one.sum()) - int(other.sum())) / samples for one, other in pairs]

    # Runs are whole images apart, so a few seeds often differ by the very same number. That shows no spread, and a t
    # test would call it certain. No spread is taken to be less than that of a rounding to whole images.
    least = 1 / (sqrt(12) * samples)
    low, high = t_interval(values, least=least)
    return fmean(values), max(-1.0, low), min(1.0, high), t_test(values, least=least)


def _of_models(one: Tensor, other: Tensor) -> tuple[float, float, float, float]:
    """Difference, interval and p of two models by their outcomes on the same images, bool (N,)."""

    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    return (only_first - only_second) / len(one), *paired_bootstrap(one, other), mcnemar(only_first, only_second)


def _adjusted(found: Sequence[Difference]) -> tuple[Difference, ...]:
    """The differences with their p adjusted."""

    adjusted = holm_by_kind([(one.kind, one.p) for one in found])
    return tuple(replace(one, adjusted=p, claims=claims) for one, (p, claims) in zip(found, adjusted, strict=True))
