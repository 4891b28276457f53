r"""The audit of the survivors: a bound on the error of a search in phases.

A survivor counts as robust at its ε, although no sample of the search was attacked in full: the discarded ones only by
the first phases, and the near ones by shorter attacks. So the full search attacks a random part of the survivors,
whether they were discarded or near: which of both they are rests on an estimate that may be wrong. Those that break
are counted as broken. A bound says how many others the full search would break.

First the full search attacks the very nearest survivors, all of them (:data:`NEAREST`): much of what a search overlooks
is there, on our nets 10 of 24 images, and what is found needs no bound. The audit is of the others.

An audit is a multiple sampling plan (:func:`~asgt.statistics.acceptance_probability`). Its first step is as large as
it has to be for a bound of one point of accuracy if none of its samples breaks. If one does, the second step adds as
many as one break takes, and so on, up to seven breaks. With S survivors of N samples, the sizes up to each step are the
smallest with which, for each number of breaks b,

.. math:: P(\text{the audit ends with at most } b \text{ breaks} \mid K) \le r_b
          \qquad\text{for all } K > b + N / 100

where K is how many of the S survivors the full search breaks, and :math:`r_b` grows with b up to the risk of the audit
(:data:`SPENT`). After it, robust accuracy is too high by at most :math:`(K_b - b) / N` at any ε of the grid, where
:math:`K_b` is the largest K whose probability is above :math:`r_b`. Later steps continue the draw, so a break costs
some more samples, not another audit.

If more break, more σ count as near, the discarded samples that are near by that are searched again, and a fresh audit
is drawn of all survivors that were not attacked in full yet. So that both audits together are wrong with a probability
of 5 % at most, each has its share of it (:data:`RISKS`). If neither ends with a bound of one point, the full search
runs on all samples.

References:
    Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    https://doi.org/10.1093/biomet/26.4.404

    Dodge & Romig 1941, "Single sampling and double sampling inspection tables",
    https://doi.org/10.1002/j.1538-7305.1941.tb00459.x

    Lan & DeMets 1983, "Discrete sequential boundaries for clinical trials", https://doi.org/10.1093/biomet/70.3.659
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..randomness import seeded
from ..statistics import acceptance_probability

__all__ = [
    "NEAREST",
    "POINT",
    "RISKS",
    "SMALLEST",
    "SPENT",
    "WIDER",
    "Discards",
    "PhaseCost",
    "audit_sizes",
    "discard_bound",
    "drawn_audit",
    "is_a_point",
    "nearest_count",
    "size_after",
]

POINT = 0.01
"""The largest accepted error of robust accuracy because the search is not the full one, at any ε."""

NEAREST = 0.015
"""The share of the survivors, those with the smallest margins in σ, that are attacked in full before the audits."""

RISKS = (0.045, 0.005)
"""The probability that the bound of each audit is wrong."""

SPENT = (0.55, 0.75, 0.85, 0.91, 0.95, 0.975, 0.99, 1.0)
"""The share of an audit's risk that is spent up to each step; the audit fails with as many breaks as it has steps.

Most is for the first step, which is the whole audit of a sound search: it makes it small.
"""

WIDER = 1.5
"""The factor on the number of σ that count as near, in each search after the first."""

SMALLEST = 200
"""Below so many images an audit and a search cost about as much as the full search, which then runs alone.

Of 200 images the audit takes seven in ten survivors, and the search about a tenth of the full one.
"""


def is_a_point(count: int, samples: int) -> bool:
    """Whether so many of all samples are at most one point of accuracy, so that no audit of them is needed."""

    return count <= _accepted(samples)


def nearest_count(survivors: int) -> int:
    """How many of so many survivors are attacked in full before the audits (:data:`NEAREST`)."""

    return math.ceil(NEAREST * survivors)


def audit_sizes(survivors: int, samples: int, risk: float) -> tuple[int, ...]:
    """How many survivors an audit attacks up to each step, ascending.

    It ends after the first step if none of them breaks, and has the size of step b if b of them break.

    Returns:
        A size for each number of breaks from 0; nothing if the survivors are no more than a point themselves. The last
        is all of them at most.
    """

    return _sizes(survivors, _accepted(samples), risk)


def size_after(broke: int, sizes: tuple[int, ...], survivors: int) -> int:
    """The size with which an audit ends after so many breaks; 0 if they are too many for it.

    If its last step takes all survivors, any number may break.
    """

    if broke < len(sizes):
        return sizes[broke]
    return survivors if sizes[-1:] == (survivors,) else 0


def discard_bound(broke: int, survivors: int, samples: int, risk: float) -> float:
    """The upper bound of the error of robust accuracy after an audit in which so many broke.

    The bounds of all breaks together are wrong with a probability of at most ``risk``.

    Raises:
        ValueError: so many are too many for a bound of one point.
    """

    sizes = audit_sizes(survivors, samples, risk)
    size = size_after(broke, sizes, survivors)
    if not size:
        raise ValueError(f"{broke} breaks are too many for an audit in steps up to {list(sizes)}")
    if size == survivors:
        return 0.0  # What was audited is counted as what the full search made of it.
    counts = range(broke, survivors + 1)
    plan, spent = sizes[: broke + 1], risk * SPENT[broke]
    first = bisect_left(counts, True, key=lambda count: acceptance_probability(count, survivors, plan) <= spent)
    return (first - 1) / samples


def _accepted(samples: int) -> int:
    """The largest number of samples that is at most one point."""

    return int(POINT * samples + 1e-9)


@lru_cache
def _sizes(survivors: int, accepted: int, risk: float) -> tuple[int, ...]:
    sizes: tuple[int, ...] = ()
    for broke, share in enumerate(SPENT):
        # One more than may break: with more of them, the audit ends even less often.
        most = accepted + broke + 1
        if most > survivors or (sizes and sizes[-1] == survivors):
            break
        sizes = (*sizes, _next_size(sizes, most, survivors, share * risk))
    return sizes


def _next_size(before: tuple[int, ...], broken: int, survivors: int, risk: float) -> int:
    """The smallest size of a step with which an audit ends, if so many survivors can be broken, with at most a risk."""

    sizes = range(before[-1] + 1 if before else 1, survivors + 1)
    first = bisect_left(
        sizes, True, key=lambda size: acceptance_probability(broken, survivors, (*before, size)) <= risk
    )
    return sizes[first]


def drawn_audit(survivors: Tensor, seed: int, number: int) -> Tensor:
    """The rows of the samples marked, bool (N,), in the random order in which an audit takes them, int64 (B,)."""

    rows = survivors.nonzero().squeeze(1)
    return rows[torch.randperm(len(rows), generator=seeded("discards", seed, number))]


@dataclass(frozen=True)
class PhaseCost:
    """The cost of a part of a search.

    Attributes:
        name: the phase.
        samples: the number of samples that it spent passes on.
        broken: the number that it broke at the ε of its attack.
        gradients: forward and backward passes, of all samples together.
        forwards: additional forward passes.
    """

    name: str
    samples: int
    broken: int
    gradients: int
    forwards: int

    @property
    def passes(self) -> int:
        """The cost: a gradient counts as three forward passes."""

        return 3 * self.gradients + self.forwards


@dataclass(frozen=True)
class Discards:
    """The samples that a search in phases discarded, the possible error, and the cost of each phase.

    Attributes:
        discarded: the number of samples that the search discarded.
        survivors: the number that the last audit was drawn from: robust at some ε, and not yet attacked in full.
        audited: the number of them that the full search attacked.
        broke: the number of those that broke.
        nearest: how many of the nearest survivors the full search attacked before the audits, and how many of those
            broke.
        rounds: the number of audits; 0 if the protocol has none.
        earlier: of each audit before the last, how many it attacked, and how many of those broke.
        bound: the largest error of robust accuracy, as a share of all samples, with 95 % confidence; ``None``
            without an audit.
        reason: why the full search ran on all samples, or should have; empty if the search is reliable.
        full: whether it ran.
        phases: the cost of each phase.
    """

    discarded: int
    audited: int
    broke: int
    rounds: int
    bound: float | None
    reason: str
    full: bool
    phases: tuple[PhaseCost, ...]
    survivors: int = 0
    earlier: tuple[tuple[int, int], ...] = ()
    nearest: tuple[int, int] = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        earlier = [list(audit) for audit in self.earlier]
        lists = {"earlier": earlier, "nearest": list(self.nearest)}
        return asdict(self) | {"phases": [asdict(phase) for phase in self.phases]} | lists

    @property
    def passes(self) -> int:
        """The cost of the whole search."""

        return sum(phase.passes for phase in self.phases)

    def told(self, samples: int) -> str:
        """A sentence with the largest error of robust accuracy."""

        if self.full:
            return f"the full search attacked all {samples} images: {self.reason}"
        if self.bound is None:
            doubt = f"; {self.reason}" if self.reason else ""
            return f"{self.discarded} of {samples} images were discarded, and none was audited{doubt}"
        before = "".join(f", after {broke} of {audited} in an earlier audit" for audited, broke in self.earlier)
        attacked, broke = self.nearest
        near = f"{broke} of the {attacked} nearest survivors, and " if attacked else ""
        others = "others" if attacked else "survivors"
        return (
            f"{self.discarded} of {samples} images were discarded. The full search breaks {near}{self.broke} of "
            f"{self.audited} random ones of {self.survivors} {others}{before}. So robust accuracy is at most "
            f"{100 * self.bound:.2f} points too high (one-sided 95 %)"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Discards:
        phases = tuple(PhaseCost(**phase) for phase in values["phases"])
        earlier = tuple((int(audited), int(broke)) for audited, broke in values.get("earlier", ()))
        attacked, broke = values.get("nearest", (0, 0))
        return cls(**(dict(values) | {"phases": phases, "earlier": earlier, "nearest": (int(attacked), int(broke))}))
