"""Intervals for the figures that asgt prints."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist, fmean, stdev

__all__ = ["clopper_pearson", "share_of", "spread", "wilson"]


def wilson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for the share of successes of one model on ``trials`` samples.

    Returns:
        The lower and the upper bound, in [0, 1].

    Raises:
        ValueError: no trials, or more successes than trials.

    References:
        E. B. Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """

    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials have no interval")

    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / trials
    centre = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))

    # At 0 and 1 the bound is exact in theory and off by an ulp in floating point.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's exact interval for a share, which covers at least as often as it says, at 0 and 1 too.

    Returns:
        The lower and the upper bound, in [0, 1].

    Raises:
        ValueError: no trials, or more successes than trials.

    References:
        Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """

    from scipy.special import betaincinv

    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes of {trials} trials have no interval")
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, trials - successes + 1, tail))
    high = 1.0 if successes == trials else float(betaincinv(successes + 1, trials - successes, 1 - tail))
    return low, high


def share_of(successes: int, trials: int, confidence: float = 0.95) -> dict[str, float]:
    """A share with its interval, as results hold it: ``accuracy``, ``low`` and ``high``, in [0, 1]."""

    low, high = wilson(successes, trials, confidence)
    return {"accuracy": successes / trials, "low": low, "high": high}


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean of some runs' values, and their sample standard deviation (n − 1).

    Raises:
        ValueError: fewer than two values have no spread.
    """

    if len(values) < 2:
        raise ValueError(f"{len(values)} values have no spread")
    return fmean(values), stdev(values)
