r"""The audit of the survivors: a bound on the error of a search in phases.

A survivor counts as robust at its ε, although no sample of the search was attacked in full: the discarded ones only by
the first phases, and the near ones by shorter attacks. So the full search attacks a random part of the survivors,
whether they were discarded or near: which of both they are rests on an estimate that may be wrong. If k of m of them
break, the full search would break at most K(k, m) of all survivors
(:func:`~asgt.statistics.highest_count`: Clopper and Pearson's one-sided bound, for a draw without replacement). The k
broken ones are counted as broken, so robust accuracy is too high by at most

.. math:: \frac{K(k, m) - k}{N}

at any ε of the grid. The first audit is as large as it has to be for that to be one point if none of them
breaks. If one does, more σ count as near, the discarded samples that are near by that are searched again, and a fresh
audit is drawn of all survivors that were not attacked in full yet, large enough for one break, and then one for two
(:data:`PLANNED`). So that all rounds together are wrong with a probability of 5 % at most, each has its share of it
(:data:`RISKS`). If no round brings the bound down to one point, the full search runs on all samples.

The binomial bound of Clopper and Pearson times the share of survivors holds too, and is larger: it is for any number of
images, of which these are a draw. With it, an audit of 375 survivors of 500 images takes 264, and with this one 165.

References:
    Clopper & Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    https://doi.org/10.1093/biomet/26.4.404

    Wang 2015, "Exact optimal confidence intervals for hypergeometric parameters",
    https://doi.org/10.1080/01621459.2014.966191
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..randomness import seeded
from ..statistics import highest_count

__all__ = ["POINT", "RISKS", "SMALLEST", "WIDER", "Discards", "PhaseCost", "audit_size", "discard_bound", "drawn_audit"]

POINT = 0.01
"""The largest accepted error of robust accuracy because the search is not the full one, at any ε."""

RISKS = (0.03, 0.015, 0.005)
"""The probability that the bound of each round of audits is wrong."""

PLANNED = (0, 1, 2)
"""The number of breaks at which the bound of each round is still one point."""

WIDER = 1.5
"""The factor on the number of σ that count as near, in each round after the first."""

SMALLEST = 200
"""Below so many images an audit and a search cost about as much as the full search, which then runs alone.

Of 200 images the audit takes seven in ten survivors, and the search about a tenth of the full one. Where one breaks,
another audit takes most of the rest.
"""


def audit_size(survivors: int, samples: int, risk: float, breaks: int = 0) -> int:
    """The smallest number of survivors to audit, so that the bound is one point if so many of them break."""

    if survivors / samples <= POINT:
        return 0
    sizes = range(min(breaks + 1, survivors), survivors + 1)

    def suffices(size: int) -> bool:
        return discard_bound(min(breaks, size), size, survivors, samples, risk) <= POINT

    return sizes[bisect_left(sizes, True, key=suffices)]


def discard_bound(broke: int, audited: int, survivors: int, samples: int, risk: float) -> float:
    """The upper bound of the error of robust accuracy if ``broke`` of ``audited`` broke; with probability 1 − risk.

    Audited samples are counted as what the full search made of them, so an audit of all has no error.
    """

    return (highest_count(broke, audited, survivors, risk) - broke) / samples


def drawn_audit(survivors: Tensor, count: int, seed: int, round_number: int) -> Tensor:
    """The rows of ``count`` random samples of those marked, bool (N,); ascending, int64 (B,)."""

    rows = survivors.nonzero().squeeze(1)
    order = torch.randperm(len(rows), generator=seeded("discards", seed, round_number))
    return rows[order[:count]].sort().values


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

    def to_dict(self) -> dict[str, Any]:
        earlier = [list(audit) for audit in self.earlier]
        return asdict(self) | {"phases": [asdict(phase) for phase in self.phases], "earlier": earlier}

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
        return (
            f"{self.discarded} of {samples} images were discarded; the full search breaks {self.broke} of "
            f"{self.audited} random ones of {self.survivors} survivors{before}, so robust accuracy is at most "
            f"{100 * self.bound:.2f} points too high (one-sided 95 %)"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Discards:
        phases = tuple(PhaseCost(**phase) for phase in values["phases"])
        earlier = tuple((int(audited), int(broke)) for audited, broke in values.get("earlier", ()))
        return cls(**(dict(values) | {"phases": phases, "earlier": earlier}))
