"""Intervals for numbers, and tests of their differences.

There are two questions. Do two *models* differ? Both have the same samples, so the test uses those on which only
one is correct (:func:`mcnemar`, :func:`paired_bootstrap`). Do two *methods* differ? A method is known only through
its runs, with one difference per seed (:func:`t_interval`, :func:`t_test`), for any number of samples per run. For
several claims, :func:`holm` corrects for their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import comb, fsum, inf, nan, sqrt
from statistics import NormalDist, fmean, stdev
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "ALPHA",
    "KINDS",
    "PAIRS_NOTE",
    "Decision",
    "Estimate",
    "Kind",
    "PairedDifference",
    "acceptance_probability",
    "adjusted_by_kind",
    "bootstrap_means",
    "clopper_pearson",
    "decision",
    "holm",
    "holm_by_kind",
    "mcnemar",
    "mean_of_shares",
    "median_interval",
    "paired_bootstrap",
    "paired_by_seed",
    "rank_correlation",
    "share",
    "spread",
    "t_interval",
    "t_test",
    "wilson",
]

Kind: TypeAlias = Literal["methods", "models"]
"""The kind of a comparison: two methods, with one difference per seed, or two models, image by image."""

KINDS: tuple[Kind, ...] = ("methods", "models")

Decision: TypeAlias = Literal["more", "less", "not decided"]

Interval: TypeAlias = Literal["Wilson", "MOVER", "bootstrap", "t", "sd", "none"]

ALPHA = 0.05
"""A difference is decided if its adjusted p is below this, and its interval excludes zero."""

PAIRS_NOTE = (
    "more, less: the first has more or less than the second (p < 0.05, and the interval excludes 0); p is corrected "
    "for the number of pairs, the interval is not"
)
"""The note under a table of differences."""

_AT_ONCE = 1 << 22  # samples drawn again at a time: some 100 MB

_ALL_ORDERS = 8  # pairs whose orders, 40,320, are gone through one by one

_Run = TypeVar("_Run")


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, and the basis of both.

    Attributes:
        value: the number; for several runs their mean; NaN if it was not measured.
        low: the lower end of the interval.
        high: the upper end.
        n: the number of images.
        interval: the type of ``low`` and ``high``: a 95 % interval of one model over images (``"Wilson"`` of a share,
            ``"MOVER"`` of a mean of shares, ``"bootstrap"`` of a mean), Student's 95 % interval over seeds (``"t"``),
            the mean ± one standard deviation over seeds (``"sd"``), or ``"none"``.
        values: the number of each run, by ascending seed.
        sd: the sample standard deviation over runs; ``None`` for one run.
        not_run: why there is no value; empty if there is one.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> estimate = asgt.evaluate(model, (x, y), "pgd", epsilons=[0.1]).accuracy
        >>> estimate.n, estimate.interval, 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        (4, 'Wilson', True)
    """

    value: float
    low: float
    high: float
    n: int
    interval: Interval = "Wilson"
    values: tuple[float, ...] = ()
    sd: float | None = None
    not_run: str = ""

    def percent(self) -> str:
        """In percent: ``84.4 ± 0.6`` over seeds, ``84.4 [80.3, 87.9]`` for one model; a dash if it was not run."""

        if self.not_run:
            return "–"
        if self.sd is not None:
            return f"{100 * self.value:.1f} ± {100 * self.sd:.1f}"
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def text(self) -> str:
        """``0.613 ± 0.012`` over seeds, ``0.613 [0.601, 0.625]`` for one model; a dash if it was not run."""

        if self.not_run:
            return "–"
        if self.sd is not None:
            return f"{_plain(self.value)} ± {_plain(self.sd)}"
        return f"{_plain(self.value)} [{_plain(self.low)}, {_plain(self.high)}]"


@dataclass(frozen=True)
class PairedDifference:
    """A quantity of one method minus that of another, on the same images.

    Attributes:
        first: the name of the one method.
        second: that of the other, which is subtracted.
        kind: ``"methods"``, over the seeds that both have, or ``"models"``, of one run each.
        value: the difference, or its mean over seeds.
        low: the lower end of its 95 % interval, not adjusted for the other claims: Student's t over seeds, or a paired
            bootstrap over images.
        high: the upper end.
        p: two-sided, not adjusted.
        adjusted: p by Holm's correction over the ``claims``.
        claims: the number of pairs of this kind.
        seeds: the paired ones, ascending; both, for models without a common seed.
        n: the images.

    Example:
        >>> import asgt
        >>> apart = asgt.PairedDifference("AT", "ST", "methods", 0.3, 0.2, 0.4, 0.001, 0.003, 3, (0, 1, 2), 500)
        >>> apart.decision, apart.turned().value
        ('more', -0.3)
    """

    first: str
    second: str
    kind: Kind
    value: float
    low: float
    high: float
    p: float
    adjusted: float
    claims: int
    seeds: tuple[int, ...]
    n: int

    @property
    def decision(self) -> Decision:
        """Whether the first is decided to be higher or lower than the second."""

        return decision(self.low, self.high, self.adjusted)

    @property
    def p_text(self) -> str:
        """The adjusted p as text: ``p = 0.024``, or ``p < 0.001``."""

        return "p < 0.001" if self.adjusted < 0.001 else f"p = {self.adjusted:.3f}"

    def turned(self) -> PairedDifference:
        """The same difference with the two sides exchanged."""

        return replace(self, first=self.second, second=self.first, value=-self.value, low=-self.high, high=-self.low)


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for the share of successes of one model on ``trials`` samples.

    Returns:
        The lower and the upper bound, in [0, 1].

    Raises:
        ValueError: no trials, or more successes than trials.

    References:
        E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """

    _refuse_no_share(successes, trials)

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))

    # At 0 and 1 the bound is exact in theory and off by an ulp in floating point.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a share, whose coverage is at least the nominal one, also at 0 and 1.

    Returns:
        The lower and the upper bound, in [0, 1].

    Raises:
        ValueError: no trials, or more successes than trials.

    References:
        Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """

    from scipy.special import betaincinv

    _refuse_no_share(successes, trials)
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def acceptance_probability(defects: int, population: int, sizes: Sequence[int]) -> float:
    """The probability that a multiple sampling plan accepts a population: its operating characteristic.

    Members are drawn without replacement, in steps. The plan accepts after its first step if that has no defect, after
    the second if both together have at most one, after the third if all three have at most two, and so on.

    Args:
        defects: how many members of the population are defects.
        population: how many members there are.
        sizes: how many members are drawn up to each step, ascending.

    Returns:
        A probability. The more defects, the smaller it is.

    Raises:
        ValueError: the sizes do not ascend from above 0, or there are fewer members.

    References:
        Dodge & Romig 1941, "Single sampling and double sampling inspection tables",
        https://doi.org/10.1002/j.1538-7305.1941.tb00459.x
    """

    import numpy as np
    from scipy.stats import hypergeom

    totals = (0, *sizes)
    if not 0 <= defects <= population or totals[-1] > population or any(a >= b for a, b in pairwise(totals)):
        raise ValueError(f"{defects} defects of {population}, drawn in steps up to {list(sizes)}")
    found = np.arange(len(sizes))
    # The probability of so many defects up to here, with no acceptance; with more, the plan never accepts.
    going_on = (found == 0).astype(float)
    accepted, drawn = 0.0, 0
    for step, size in enumerate(sizes):
        more, others = found - found[:, None], np.clip(defects - found, 0, population - drawn)[:, None]
        going_on = going_on @ hypergeom.pmf(more, population - drawn, others, size - drawn)
        accepted += going_on[: step + 1].sum()
        going_on[: step + 1] = 0
        drawn = size
    return float(accepted)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """An interval for a median from the ranks of the values, for any distribution, with at least the nominal coverage.

    With too few values for it (fewer than six at 95 %) it is the smallest and the largest.

    Returns:
        Two of the values.

    Raises:
        ValueError: no values.

    References:
        Conover 1999, "Practical nonparametric statistics", section 3.2.
    """

    if not values:
        raise ValueError("a median of no values")
    count, beyond, rank = len(values), 0.0, 0
    while (beyond := beyond + comb(count, rank) / 2**count) <= (1 - confidence) / 2:
        rank += 1
    rank = max(rank, 1)
    ordered = sorted(values)
    return ordered[rank - 1], ordered[count - rank]


def share(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """The share of successes of one model, with Wilson's interval.

    Raises:
        ValueError: no trials, or more successes than trials.
    """

    low, high = wilson(successes, trials, confidence)
    return Estimate(successes / trials, low, high, trials, values=(successes / trials,))


def mean_of_shares(counts: Sequence[tuple[int, int]], confidence: float = 0.95) -> Estimate:
    """The mean of the shares of several groups of one model, each with the same weight, with an interval.

    The method of variance estimates recovery (MOVER) takes the variance of each share from its own Wilson interval:
    with shares p and their bounds l and u, the mean of K groups lies between mean(p) − √Σ(p − l)² / K and
    mean(p) + √Σ(u − p)² / K. For one group it is Wilson's interval. If each share is 0 or 1, it still has a width,
    unlike Σ p(1 − p) / n and a bootstrap.

    Args:
        counts: successes and trials of each group.
        confidence: the share of such intervals that contain the mean.

    Raises:
        ValueError: no groups, no trials in one of them, or more successes than trials.

    References:
        Zou, Huang and Zhang 2009, "A note on confidence interval estimation for a linear function of binomial
        proportions".
    """

    if not counts:
        raise ValueError("no groups have no mean")
    bounds = [wilson(successes, trials, confidence) for successes, trials in counts]
    shares = [successes / trials for successes, trials in counts]
    mean = fmean(shares)
    below = sqrt(fsum((each - low) ** 2 for each, (low, _) in zip(shares, bounds, strict=True))) / len(shares)
    above = sqrt(fsum((high - each) ** 2 for each, (_, high) in zip(shares, bounds, strict=True))) / len(shares)
    trials = sum(trials for _, trials in counts)
    return Estimate(mean, max(0.0, mean - below), min(1.0, mean + above), trials, "MOVER", values=(mean,))


def share_over_runs(values: Sequence[float], trials: int) -> Estimate:
    """The mean of the shares of several runs on the same trials ± one standard deviation, clipped to [0, 1].

    Raises:
        ValueError: fewer than two values have no spread.
    """

    mean, sd = spread(values)
    return Estimate(mean, max(0.0, mean - sd), min(1.0, mean + sd), trials, "sd", tuple(values), sd=sd)


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean of some runs' values, and their sample standard deviation (n − 1).

    Raises:
        ValueError: fewer than two values have no spread.
    """

    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread")
    return fmean(values), stdev(values)


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact two-sided p for equal accuracy of two models on the same samples.

    Samples on which both are correct, or both wrong, have no effect. For the others, under the null hypothesis,
    each model is correct with probability 1/2.

    Args:
        only_first: the number of samples on which only the first model is correct.
        only_second: the number on which only the second one is.

    Returns:
        The p value, in [0, 1]; 1 if the models agree on all samples.

    Raises:
        ValueError: a count below zero.

    References:
        Q. McNemar 1947, "Note on the sampling error of the difference between correlated proportions or percentages".
    """

    from scipy.special import bdtr

    if min(only_first, only_second) < 0:
        raise ValueError(f"{only_first} and {only_second} are no counts of samples")
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), only_first + only_second, 0.5)))


def paired_bootstrap(
    first: Sequence[bool] | Tensor,
    second: Sequence[bool] | Tensor,
    *,
    seed: int = 0,
    draws: int = 10_000,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """The percentile interval of the share of ``first`` minus that of ``second``, over resampled pairs.

    The difference depends only on the number of samples on which only the first or only the second is correct. In a
    bootstrap sample these counts are multinomial, so they are drawn directly, which is exact. An interval has no
    width if all pairs have one outcome, and is too narrow if few samples differ: :func:`mcnemar` is exact in these
    cases too.

    Args:
        first: on which samples the first model is correct, bool (N,).
        second: the same for the second, in the same order.
        seed: of the draws.
        draws: bootstrap samples.
        confidence: the nominal coverage.

    Returns:
        The lower and the upper bound, in [-1, 1].

    Raises:
        ValueError: no samples, or not equally many.

    References:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """

    import numpy as np

    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != other.shape or one.ndim != 1 or len(one) == 0:
        raise ValueError(f"outcomes of shapes {one.shape} and {other.shape} are no pairs")

    samples = len(one)
    only_first, only_second = int((one & ~other).sum()), int((other & ~one).sum())
    counts = np.array([only_first, only_second, samples - only_first - only_second])
    drawn = np.random.default_rng(seed).multinomial(samples, counts / samples, size=draws)

    tail = (1 - confidence) / 2
    low, high = np.quantile((drawn[:, 0] - drawn[:, 1]) / samples, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_means(
    values: Sequence[Sequence[float]] | Tensor, *, seed: int = 0, draws: int = 10_000, confidence: float = 0.95
) -> list[tuple[float, float]]:
    """The percentile interval of the mean of each of several quantities of the same resampled samples.

    For the difference of two models, sample by sample, it is the paired bootstrap.

    Args:
        values: (P, N), P quantities of N samples.
        seed: of the draws.
        draws: bootstrap samples.
        confidence: the nominal coverage of each interval.

    Returns:
        The lower and the upper bound of each, P pairs.

    Raises:
        ValueError: no samples, or a value that is not finite.

    References:
        Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """

    import numpy as np

    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] == 0 or not np.isfinite(rows).all():
        raise ValueError(f"values of shape {rows.shape} have no means: expected finite (P, N)")

    samples = rows.shape[1]
    at_once = max(1, _AT_ONCE // samples)
    means = [
        _drawn_again(samples, min(at_once, draws - first), seed, first).astype(np.float64) @ rows.T / samples
        for first in range(0, draws, at_once)
    ]

    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return [(float(one), float(other)) for one, other in zip(low, high, strict=True)]


def t_interval(values: Sequence[float], confidence: float = 0.95, *, least: float = 0.0) -> tuple[float, float]:
    """Student's interval of the mean of a normal quantity, from a few values of it.

    Args:
        values: at least two.
        confidence: the share of such intervals that contain the mean.
        least: a lower bound of the standard deviation. By default equal values give an interval of no width: no
            spread was observed, although there may be one, because counts are often equal by chance.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: fewer than two values.

    References:
        "Student" 1908, "The probable error of a mean".
    """

    from scipy.special import stdtrit

    mean, sd = spread(values)
    half = float(stdtrit(len(values) - 1, 0.5 + confidence / 2)) * max(sd, least) / sqrt(len(values))
    return mean - half, mean + half


def t_test(values: Sequence[float], *, least: float = 0.0) -> float:
    """The two-sided p of Student's test that the mean of a normal quantity is zero.

    Args:
        values: at least two.
        least: a lower bound of the standard deviation. By default equal values give p = 0, or 1 if they are zero.
            This does not happen for continuous quantities. For counts it happens by chance, and then p = 0 means only
            that the values are too few or too coarse to show a spread.

    Raises:
        ValueError: fewer than two values.

    References:
        "Student" 1908, "The probable error of a mean".
    """

    from scipy.special import stdtr

    mean, sd = spread(values)
    if mean == 0:
        return 1.0
    error = max(sd, least) / sqrt(len(values))
    return 2 * float(stdtr(len(values) - 1, -abs(mean) / error if error else -inf))


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Spearman's rank correlation of a few pairs, and its two-sided p.

    Args:
        first: at least three values.
        second: the same number, in the same order; equal values have their mean rank.

    Returns:
        The correlation, in [-1, 1], and p: the share of all orders of ``second`` that correlate as strongly or more,
        for eight pairs or fewer; for more, by Student's t. NaN and 1 if either is constant.

    Raises:
        ValueError: fewer than three pairs.

    References:
        C. Spearman 1904, "The proof and measurement of association between two things".
    """

    from itertools import permutations

    import numpy as np
    from scipy.special import stdtr
    from scipy.stats import rankdata

    if len(first) != len(second) or len(first) < 3:
        raise ValueError(f"{len(first)} and {len(second)} values have no rank correlation")
    one, other = (ranks - ranks.mean() for ranks in (rankdata(first), rankdata(second)))
    size = sqrt(float(one @ one) * float(other @ other))
    if size == 0:
        return nan, 1.0

    correlation = float(one @ other) / size
    if len(one) > _ALL_ORDERS:
        left = max(1 - correlation * correlation, 0.0)
        strength = abs(correlation) * sqrt((len(one) - 2) / left) if left else inf
        return correlation, 2 * float(stdtr(len(one) - 2, -strength))
    orders = np.array(list(permutations(other))) @ one / size
    return correlation, float((np.abs(orders) >= abs(correlation) - 1e-9).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values: all claims with values below α are true with probability 1 − α or more.

    The smallest p is multiplied by the number of claims, the next by one less, and so on; the adjusted values do
    not decrease, and are at most 1. It is valid for any dependence of the claims.

    Returns:
        The adjusted values, in the order given.

    Raises:
        ValueError: a value outside [0, 1], or NaN.

    References:
        S. Holm 1979, "A simple sequentially rejective multiple test procedure".
    """

    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError(f"{list(p_values)} are no p values")

    adjusted = [0.0] * len(p_values)
    reached = 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        reached = max(reached, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = reached
    return adjusted


def holm_by_kind(claims: Sequence[tuple[Kind, float]]) -> list[tuple[float, int]]:
    """Holm's adjusted p of claims of two kinds, methods among methods and models among models.

    Args:
        claims: the kind and the p of each claim.

    Returns:
        The adjusted p of each, and the number of claims of its kind.
    """

    adjusted = [(0.0, 0)] * len(claims)
    for kind in KINDS:
        places = [number for number, (one, _) in enumerate(claims) if one == kind]
        for number, p in zip(places, holm([claims[number][1] for number in places]), strict=True):
            adjusted[number] = (p, len(places))
    return adjusted


def adjusted_by_kind(differences: Sequence[PairedDifference]) -> tuple[PairedDifference, ...]:
    """Differences with their p adjusted for all of their kind by :func:`holm_by_kind`."""

    adjusted = holm_by_kind([(difference.kind, difference.p) for difference in differences])
    return tuple(
        replace(difference, adjusted=p, claims=claims)
        for difference, (p, claims) in zip(differences, adjusted, strict=True)
    )


def decision(low: float, high: float, adjusted: float) -> Decision:
    """Whether a difference is decided, by its interval and its adjusted p."""

    if adjusted >= ALPHA or low <= 0 <= high:
        return "not decided"
    return "more" if low > 0 else "less"


def paired_by_seed(first: Mapping[int, _Run], second: Mapping[int, _Run]) -> tuple[Kind, list[tuple[_Run, _Run]]]:
    """The pairs of runs of two methods to compare: those of each common seed, or the only ones."""

    pairs = [(first[seed], second[seed]) for seed in sorted(first.keys() & second.keys())]
    if not pairs and len(first) == len(second) == 1:
        pairs = list(zip(first.values(), second.values(), strict=True))
    return "methods" if len(pairs) > 1 else "models", pairs


@lru_cache(maxsize=4)
def _drawn_again(samples: int, count: int, seed: int, first: int) -> NDArray[np.uint16]:
    """How often each sample falls in each of ``count`` bootstrap samples, from the ``first`` on: (count, samples).

    One product with it gives the means of any number of quantities. Kept, for the next ones are often of the same
    samples.
    """

    import numpy as np

    drawn = np.random.default_rng([seed, first]).integers(samples, size=(count, samples))
    drawn += samples * np.arange(count)[:, None]
    often = np.bincount(drawn.ravel(), minlength=count * samples)
    return often.reshape(count, samples).astype(np.uint16)


def _refuse_no_share(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials have no interval")


def _plain(value: float) -> str:
    text = f"{value:.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "−")
