"""The evidence of a search in phases, and of the audits and full searches behind it: pieces, each about some samples.

The first piece is about all samples. Each later one continues from the known results of its samples, and is merged
into them: a sample is right at an ε if no piece broke it there, and passes add up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .discard_audit import RISKS, Discards, PhaseCost, audit_sizes, discard_bound, is_a_point, size_after
from .known import NOTHING, Outcome
from .phased import PhasedOutcome
from .protocols import PhasedSearch

__all__ = [
    "AUDIT",
    "BEFORE_AUDITS",
    "BELOW",
    "FULL",
    "NEAREST_ONES",
    "PHASED",
    "PHASED_ROWS",
    "WIDER_SEARCH",
    "from_full",
    "from_phases",
    "merged",
    "summary",
    "unaudited",
]

AUDIT, WIDER_SEARCH, NEAREST_ONES, FULL, BELOW = ".audit", ".wider", ".nearest", ".full", ".below"
"""Suffixes of the names of later pieces, the first two with a number; no search may have them.

Of an audit, its number and that of the step; of a wider search, that of the audit after it.

The last is the full search at every ε, of the samples of a search in phases.
"""

BEFORE_AUDITS = len(RISKS) + 1
"""The number of the full search on the nearest survivors, among those of the audits."""

PHASED_ROWS = ("phase_gradients", "phase_forwards", "phase_broken")
"""By phase and sample, int64 (P + 3, N): probe and press, P phases, audits and nearest survivors, the full search."""

PHASED = dict.fromkeys(("rows", "discarded", "audited", "blind", *PHASED_ROWS), torch.int64) | {
    "distance": torch.float32
}
"""The values that a piece stores for each sample in addition to the outcome of a worst case.

``rows`` are its samples, ``audited`` the number of the audit that attacked it in full, below zero if that broke it. The
others are as :class:`asgt.evaluation.phased.PhasedOutcome` has them.
"""

_ADDED = ("gradients", "forwards", "audit", "tested", "missed", "illegal", "blind", *PHASED_ROWS)


def from_phases(outcome: PhasedOutcome, rows: Tensor) -> dict[str, Tensor]:
    """The values that a piece of a search in phases stores, in addition to the outcome of a worst case."""

    def padded(passes: Tensor) -> Tensor:
        return torch.cat([passes, passes.new_zeros(2, passes.shape[1])]).cpu()

    return {
        "rows": rows,
        "discarded": outcome.discarded.cpu(),
        "audited": torch.zeros_like(rows),
        "blind": outcome.blind.cpu(),
        "distance": outcome.distance.cpu(),
    } | {name: padded(getattr(outcome, name)) for name in PHASED_ROWS}


def from_full(
    outcome: Outcome,
    rows: Tensor,
    search: PhasedSearch,
    *,
    before: Tensor,
    discarded: Tensor | None = None,
    audit_number: int = 0,
) -> dict[str, Tensor]:
    """The values that a piece of the full search stores, in addition to the outcome of a worst case.

    Args:
        outcome: the result of the full search.
        rows: its samples, int64 (B,).
        search: the search in phases that it audits.
        before: the known upper bound of each sample, as a number of ε, int64 (B,).
        discarded: in an audit, which of them the phases discarded, as they have it. Default: none.
        audit_number: the number of the audit, or ``BEFORE_AUDITS``; 0 where it is none.
    """

    broke = (outcome.levels < before.to(outcome.levels)).long()
    shape = (len(search.phases) + 3, len(rows))
    place = len(search.phases) + (1 if audit_number else 2)
    by_row = {name: torch.zeros(shape, dtype=torch.int64) for name in PHASED_ROWS}
    for name, passes in zip(PHASED_ROWS, (outcome.gradients, outcome.forwards, broke), strict=True):
        by_row[name][place] = passes.cpu()
    return {
        "rows": rows,
        "discarded": torch.full_like(rows, -1) if discarded is None else discarded,
        "audited": audit_number * (1 - 2 * broke.cpu()),
        "blind": torch.zeros_like(rows),
        "distance": torch.full(rows.shape, torch.nan),
        # The attacks of the phases have the first numbers.
        "found_by": (outcome.found_by + (outcome.found_by > NOTHING) * _phase_attacks(search)).cpu(),
    } | by_row


def merged(pieces: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The results of all samples after all pieces, in the order in which they were made."""

    known = {name: tensor.clone() for name, tensor in pieces[0].items()}
    for piece in pieces[1:]:
        rows = piece["rows"]
        known["correct"][:, rows] &= piece["correct"]
        smaller = piece["norms"] < known["norms"][rows]
        for name in ("norms", "found_by"):
            known[name][rows] = torch.where(smaller, piece[name], known[name][rows])
        for name in _ADDED:
            known[name][..., rows] += piece[name]
        known["discarded"][rows] = piece["discarded"]
        for name, stays in (("distance", piece["distance"].isnan()), ("audited", piece["audited"] == 0)):
            known[name][rows] = torch.where(stays, known[name][rows], piece[name])
    return known


def unaudited(known: Mapping[str, Tensor]) -> Tensor:
    """Which samples are robust at some ε, and were not attacked in full by an audit, bool (N,)."""

    return known["correct"].any(dim=0) & (known["audited"] == 0)


def summary(known: Mapping[str, Tensor], search: PhasedSearch, reason: str, full: bool) -> Discards:
    """The discarded samples and the survivors, the results of the audits, and the cost of each phase.

    Args:
        known: the merged pieces.
        search: the search.
        reason: why the full search ran on all samples, or should have; empty if the search is reliable.
        full: whether it ran.
    """

    samples = len(known["discarded"])
    *audits, nearest = (
        (int((known["audited"].abs() == number).sum()), int((known["audited"] == -number).sum()))
        for number in range(1, BEFORE_AUDITS + 1)
    )
    # The second may have needed none.
    audits = [(audited, broke) for audited, broke in audits if audited]
    *earlier, (audited, broke) = audits or [(0, 0)]
    left = int(unaudited(known).sum())
    survivors = 0 if full else left + audited
    bound: float | None = None
    if full:
        bound = 0.0
    elif search.audited:
        bound = left / samples  # whatever they are
        risk = RISKS[max(len(audits), 1) - 1]
        if not is_a_point(left, samples):
            sizes = audit_sizes(survivors, samples, risk)
            if size_after(broke, sizes, survivors) == audited:
                bound = discard_bound(broke, survivors, samples, risk)
    passes = torch.stack([known[name] for name in PHASED_ROWS])
    names = ("probe and press", *(phase.name for phase in search.phases), "audit", "full search")
    phases = []
    for name, (gradients, forwards, breaks) in zip(names, passes.unbind(1), strict=True):
        counts = int(((gradients + forwards) > 0).sum()), int((breaks > 0).sum())
        phases.append(PhaseCost(name, *counts, int(gradients.sum()), int(forwards.sum())))
    return Discards(
        discarded=0 if full else int((known["discarded"] >= 0).sum()),
        audited=audited,
        broke=broke,
        rounds=len(audits),
        bound=bound,
        reason=reason,
        full=full,
        phases=tuple(phases),
        survivors=survivors,
        earlier=tuple(earlier),
        nearest=nearest,
    )


def _phase_attacks(search: PhasedSearch) -> int:
    return sum(len(phase.attacks) for phase in search.phases)
