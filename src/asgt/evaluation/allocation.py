r"""Allocates the budget of a search to the samples whose margin is small compared with its random variation.

Several short runs on a sample end at different margins. Their spread estimates how much another run might gain:
 with m the smallest margin that a sample's runs reached, and σ their spread, the sample is **near** the boundary if

.. math:: m < c \, \sigma

σ is the standard deviation of the margins within samples, pooled over the samples of a shard: two or three runs of
one sample are too few to estimate it. Samples at another ε have another spread, so those of the same ε are pooled, as
soon as there are enough. Two things keep an estimate of zero from discarding everything: σ has a floor, and the
nearest five samples at each ε are always near.

Within an attack the samples at the same ε compete: after some steps, only a share of them continues (:func:`smallest`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..modes import precise

__all__ = ["ALWAYS", "FLOOR", "distances", "near", "pooled_spread", "smallest"]

ALWAYS = 5
"""The number of nearest samples at each ε that always count as near, whatever σ is, and that stay in a round."""

FLOOR = 0.02
"""The smallest value of σ, as a share of the median size of the margins."""

_ENOUGH = 16  # runs beyond the first of their sample: from there on, an ε has a σ of its own


def pooled_spread(reached: Tensor) -> Tensor:
    """The standard deviation within samples, pooled over them, of margins (N, R); NaN where a run did not take place.

    An infinite margin, as of a class whose logit is −∞, has no spread, and is ignored.

    Returns:
        A scalar; NaN if no sample has two runs.
    """

    reached = reached.masked_fill(reached.isinf(), torch.nan)
    counts = (~reached.isnan()).sum(dim=1)
    means = reached.nansum(dim=1) / counts.clamp_min(1)
    squares = (reached - means[:, None]).square().nansum()
    freedom = (counts - 1).clamp_min(0).sum()
    return torch.where(freedom > 0, (squares / freedom.clamp_min(1)).sqrt(), torch.nan)


def distances(margins: Tensor, reached: Tensor, levels: Tensor) -> Tensor:
    """The distance of each sample from the boundary in units of σ, (N,).

    Args:
        margins: the smallest margin of each sample, (N,).
        reached: the margins that its runs ended at, (N, R); NaN where a run did not take place.
        levels: the number of the ε at which it is attacked, int64 (N,).
    """

    margins, reached = precise(margins), precise(reached)
    finite = margins[margins.isfinite()]
    least = FLOOR * finite.abs().median() if len(finite) else margins.new_zeros(())
    overall = pooled_spread(reached)
    sigma = torch.full_like(margins, torch.nan)
    for level in levels.unique():
        here = levels == level
        runs = (~reached[here].isnan()).sum(dim=1)
        own = pooled_spread(reached[here]) if int((runs - 1).clamp_min(0).sum()) >= _ENOUGH else overall
        sigma[here] = own
    sigma = torch.maximum(sigma.nan_to_num(nan=0.0), least).clamp_min(torch.finfo(sigma.dtype).tiny)
    return margins / sigma


def near(distance: Tensor, within: float, levels: Tensor) -> Tensor:
    """Which samples are within so many σ of the boundary, or among the nearest five at their ε, bool (N,)."""

    chosen = distance < within
    for level in levels.unique():
        here = (levels == level).nonzero().squeeze(1)
        chosen[here[distance[here].argsort(stable=True)[:ALWAYS]]] = True
    return chosen


def smallest(margins: Tensor, share: float, levels: Tensor) -> Tensor:
    """Which samples belong to a share of those at their ε, that with the smallest margins, bool (N,); at least five.

    Args:
        margins: the margin of each sample, (N,); NaN is the largest.
        share: in (0, 1]. A fraction of a sample counts as a whole one.
        levels: the number of the ε at which it is attacked, int64 (N,).
    """

    chosen = torch.zeros_like(levels, dtype=torch.bool)
    for level in levels.unique():
        here = (levels == level).nonzero().squeeze(1)
        count = max(math.ceil(share * len(here)), ALWAYS)
        chosen[here[margins[here].argsort(stable=True)[:count]]] = True
    return chosen
