"""A search in phases on all images, its audit, and the full search if the audit fails.

The full search (the attacks of ``standard@1``) runs on all images, with its reason in the result,

1. instead of the search, if there are so few images that an audit saves nothing, if every ε is to be attacked, or
   if the model is not deterministic: its random margin does not predict the result of another run;
2. after it, where more than a small share of its gradients were zero or not finite; if the searches without
   gradients broke most samples that they tried; if attacks below a failure succeeded, of the first phase or of the full
   search in an audit; or if too many samples broke in each audit for a bound of one point.

As in every worst case, where attacks below a failure succeeded, every image is attacked at every ε below its own too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from .discard_audit import (
    RISKS,
    SMALLEST,
    WIDER,
    Discards,
    audit_sizes,
    drawn_audit,
    is_a_point,
    nearest_count,
    size_after,
)
from .outcomes import Request
from .pieces import AUDIT, BEFORE_AUDITS, BELOW, FULL, NEAREST_ONES, WIDER_SEARCH, merged, summary, unaudited
from .protocols import PhasedSearch
from .shards import EXHAUSTIVE

__all__ = ["BLACK_BOX", "BLIND", "MISSED", "AuditedSearch", "Piece", "assumed_too_much", "levels_of"]

BLIND = 0.01
"""The share of zero or infinite gradients above which the full search runs."""

BLACK_BOX = 0.5
"""The share of samples broken by searches without gradients, of those tried, above which the full search runs."""

MISSED = 0.01
"""The largest accepted share of samples that break when attacked below their failure."""

_SEVERAL = 5  # samples: fewer show nothing

Piece: TypeAlias = dict[str, Tensor]


@dataclass
class AuditedSearch:
    """A search in phases, its audits and its full search, on all images.

    Args:
        search: the search, against a model of so many classes.
        request: what is evaluated.
        samples: how many images.
        by_phases: makes a piece with the phases, from a stem, rows, the known results (None at first), and how many
            audits were before it.
        in_full: makes a piece with the full search, from a stem, rows and the known results; the number of the audit, 0
            without one, or ``BEFORE_AUDITS``; and whether at every ε.
        say: receives a message for each decision.
    """

    search: PhasedSearch
    request: Request
    samples: int
    by_phases: Callable[[str, Tensor, Piece | None, int], Piece]
    in_full: Callable[[str, Tensor, Piece | None, int, bool], Piece]
    say: Callable[[str], None]
    pieces: list[Piece] = field(default_factory=list)

    @property
    def known(self) -> Piece:
        return merged(self.pieces)

    def spent(self) -> tuple[Piece, Discards]:
        """The final results of all samples, and the discarded ones."""

        name, everything = self.search.name, torch.arange(self.samples)
        reason = self.reason_before()
        if reason:
            self.say(f"{name}: {reason}: the full search runs on all images")
            self.pieces = [self.in_full(f"{name}{FULL}", everything, None, 0, self.request.exhaustive)]
            if not self.request.exhaustive and assumed_too_much(self.known):
                self.say(f"{name}: attacks below a failure succeeded: every sample is now attacked at every eps")
                self.pieces = [self.in_full(f"{name}{EXHAUSTIVE}", everything, None, 0, True)]
            return self.known, summary(self.known, self.search, reason, True)

        self.pieces = [self.by_phases(name, everything, None, 0)]
        reason = self.reason_after(self.known)
        if not self.search.audited:
            return self.known, summary(self.known, self.search, reason, False)
        reason = reason or self.audited()
        if reason:
            self.say(f"{name}: {reason}: the full search continues with all images")
            self.continued()
        return self.known, summary(self.known, self.search, reason, bool(reason))

    def continued(self) -> None:
        """The full search on all samples that it has not attacked yet; at every ε where failures do not go down."""

        name, known = self.search.name, self.known
        # Also if too many broke in one audit, whose count the rest would thin out.
        everywhere = assumed_too_much(known) or any(map(assumed_too_much, self.pieces))
        # An audit has attacked its samples at their own ε only.
        rest = known["correct"].any(dim=0) if everywhere else unaudited(known)
        if bool(rest.any()):
            self.pieces.append(self.in_full(f"{name}{FULL}", rest.nonzero().squeeze(1), known, 0, everywhere))
        if not everywhere and assumed_too_much(known := self.known):
            self.say(f"{name}: attacks below a failure succeeded: every sample is now attacked at every eps")
            rest = known["correct"].any(dim=0)
            if bool(rest.any()):
                self.pieces.append(self.in_full(f"{name}{BELOW}", rest.nonzero().squeeze(1), known, 0, True))

    def reason_before(self) -> str:
        """Why the search does not run; empty if it does."""

        if self.request.exhaustive:
            return "every ε is to be attacked"
        if self.request.votes > 1 and self.search.audited:
            return "the model is not deterministic"
        if self.samples < SMALLEST and self.search.audited:
            return f"fewer than {SMALLEST} images, of which an audit would take most"
        return ""

    def reason_after(self, known: Piece) -> str:
        """Why the result of the search is not reliable; empty if it is."""

        if self.request.votes > 1:
            return "the model is not deterministic"
        blind, gradients = int(known["blind"].sum()), int(known["phase_gradients"][1:].sum())
        if blind > BLIND * gradients:
            share = f"{blind / gradients:.0%} of the gradients are zero or not finite"
            return f"{share} (threshold {BLIND:.0%})"
        tried, broken = self.without_gradients(known)
        if broken >= _SEVERAL and broken > BLACK_BOX * tried:
            return f"Square breaks {broken} of {tried} images that gradients did not (threshold {BLACK_BOX:.0%})"
        return self.missed_below(known) if assumed_too_much(known) else ""

    @staticmethod
    def missed_below(known: Piece) -> str:
        """How many samples broke below their failure, as a reason."""

        tested, missed = int((known["tested"] > 0).sum()), int((known["missed"] > 0).sum())
        broke = f"{missed} of {tested} images broke at a smaller ε than one at which they had not"
        return f"{broke} (threshold {MISSED:.0%})"

    def without_gradients(self, known: Piece) -> tuple[int, int]:
        """The number of samples that the phases without gradients tried, and the number they broke.

        Where a phase runs only because most samples broke before, one that did not continue in its rounds was not tried
        with all queries, and does not count: it may break like the others.
        """

        tried = torch.zeros_like(known["discarded"], dtype=torch.bool)
        broken, dropped = tried.clone(), tried.clone()
        for number, phase in enumerate(self.search.phases):
            if any(attack.uses_gradients for attack in phase.attacks):
                continue
            here = known["phase_forwards"][number + 1] > 0
            tried |= here
            broken |= known["phase_broken"][number + 1] > 0
            if phase.rounds and phase.where_most_break:
                dropped |= here & (known["discarded"] == number)
        return int((tried & (broken | ~dropped)).sum()), int(broken.sum())

    def audited(self) -> str:
        """Audits until the bound is one point or less; returns why that failed, or an empty string."""

        self.attack_nearest()
        said = []
        for number, risk in enumerate(RISKS, 1):
            attacked, broke, passed = self.audit(number, risk)
            if assumed_too_much(self.pieces[-1]):
                return self.missed_below(self.pieces[-1])
            if passed:
                return ""
            said.append(f"{broke} of {attacked}")
            if number < len(RISKS) and len(wider := self.wider(number)):
                self.say(f"{self.search.name}: {said[-1]} broke: {len(wider)} images are searched again")
                stem = f"{self.search.name}{WIDER_SEARCH}-{number + 1}"
                self.pieces.append(self.by_phases(stem, wider, self.known, number))
                if reason := self.reason_after(self.known):
                    return reason
        return f"in {len(RISKS)} audits {' and '.join(said)} images broke, too many for a bound of 1 point"

    def attack_nearest(self) -> None:
        """The full search on the nearest survivors, unless they are too few for an audit."""

        name, known = self.search.name, self.known
        survivors = unaudited(known).nonzero().squeeze(1)
        if is_a_point(len(survivors), self.samples):
            return
        nearest = survivors[known["distance"][survivors].argsort(stable=True)]
        rows = nearest[: nearest_count(len(survivors))].sort().values
        self.say(f"{name}: the full search attacks the {len(rows)} nearest of {len(survivors)} survivors")
        self.pieces.append(self.in_full(f"{name}{NEAREST_ONES}", rows, known, BEFORE_AUDITS, False))

    def audit(self, number: int, risk: float) -> tuple[int, int, bool]:
        """An audit, step by step: how many samples it attacked, how many broke, and whether it bounds the error."""

        name, survivors = self.search.name, unaudited(self.known)
        count = int(survivors.sum())
        sizes, order = audit_sizes(count, self.samples, risk), drawn_audit(survivors, self.request.seed, number)
        attacked = broke = steps = 0
        while attacked < (size := size_after(broke, sizes, count)):
            rows = order[attacked:size].sort().values
            steps += 1
            told = f"the full search attacks {len(rows)} of {count - attacked} others"
            self.say(f"{name}: audit {number}, step {steps}: {told}")
            self.pieces.append(self.in_full(f"{name}{AUDIT}-{number}-{steps}", rows, self.known, number, False))
            attacked, broke = size, broke + int((self.pieces[-1]["audited"] < 0).sum())
            if assumed_too_much(self.pieces[-1]):
                break
        passed = attacked == size_after(broke, sizes, count) or is_a_point(count - attacked, self.samples)
        return attacked, broke, passed

    def wider(self, number: int) -> Tensor:
        """The discarded samples that are near if more σ count as near, int64 (B,)."""

        known = self.known
        within = torch.tensor([phase.within or 0.0 for phase in self.search.phases])
        reach = WIDER**number * within[known["discarded"].clamp_min(0)]
        waiting = (known["discarded"] >= 0) & unaudited(known)
        return (waiting & (known["distance"] < reach)).nonzero().squeeze(1)


def assumed_too_much(known: Piece) -> bool:
    """Whether too many of the samples that were attacked below their failure broke there."""

    return bool((known["missed"] > 0).sum() > MISSED * (known["tested"] > 0).sum())


def levels_of(known: Piece, rows: Tensor) -> Tensor:
    """The number of ε below the known bound of some samples, int64 (B,)."""

    return known["correct"][:, rows].sum(dim=0)
