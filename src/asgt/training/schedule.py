"""Schedules as functions of the finished share of the training: there is no state to store."""

from __future__ import annotations

from math import cos, pi

from ..errors import unknown

__all__ = ["learning_rate", "ramped"]

_RISE = 0.3


def learning_rate(schedule: str, peak: float, done: float) -> float:
    """The learning rate when the share ``done`` of the steps, in [0, 1), is done.

    ``constant`` is the peak; ``cosine`` falls from it to zero along half a cosine; ``one-cycle`` rises linearly
    over the first 0.3 of the steps and falls linearly to zero.

    References:
        Smith and Topin 2017, "Super-convergence", https://arxiv.org/abs/1708.07120 (one-cycle)
    """

    match schedule:
        case "constant":
            return peak
        case "cosine":
            return peak * (1.0 + cos(pi * done)) / 2.0
        case "one-cycle":
            # A step at a rate of exactly zero would be wasted: the rise starts at a 25th of the peak.
            if done < _RISE:
                return peak * (0.04 + 0.96 * done / _RISE)
            return peak * (1.0 - done) / (1.0 - _RISE)
    raise unknown("schedule", schedule, ("constant", "cosine", "one-cycle"))


def ramped(eps: float, done: float, warmup: float) -> float:
    """The radius when the share ``done`` of the steps is done: a linear ramp over the first ``warmup`` of them.

    Without it, adversarial training at a large ε can collapse to a constant predictor.
    """

    return eps if done >= warmup else eps * done / warmup
