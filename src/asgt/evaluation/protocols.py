"""Protocols: versioned, immutable definitions of an evaluation. A result names the one that it was made by.

``paper`` v1
    Each attack at each ε from scratch, final iterate, clean errors attacked too, accuracy as it falls out. The paper
    gives neither α nor the number of steps: PGD and MI-FGSM come in the common library default (α = 2/255, 10 steps;
    PGD with and without a random start) and with α = 2.5 ε / 10. A constant step under-attacks wherever
    α · steps < ε. Never a robustness claim.

``pgd`` v2
    Per sample, the worst of ten steps along the gradient of the margin, with a radius that follows the boundary, and of
    PGD-40, α = 2.5 ε / 40, with 5 restarts from random starts (:mod:`asgt.evaluation.engine`). Clean errors count as
    errors, and what is broken at ε counts as broken above it, where the same witness is valid. Quick, decent, not yet a
    claim. In v1 the margin was not asked: a net whose cross-entropy saturates then looked more robust than it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ..attacks import FGSM, MIFGSM, PGD, Attack, Norm
from ..errors import InputError, unknown

__all__ = ["PROTOCOLS", "Protocol", "Search", "protocol_named"]


@dataclass(frozen=True)
class Search:
    """One attack of a protocol.

    Args:
        name: what files and results call it.
        attack: the attack; its ``eps`` is replaced by that of the grid.
        steps_of: how its step length follows ε: ``"own"`` (as the attack has it), or ``"relative"`` (2.5 ε / steps).
        title: what tables and figures call it. A label is no part of a protocol's identity, so the ``repr``, which
            evidence is keyed by, leaves it out.
    """

    name: str
    attack: Attack
    steps_of: Literal["own", "relative"] = "own"
    title: str = field(default="", repr=False, compare=False)

    def at(self, eps: float) -> Attack:
        """The attack at a radius."""

        attack = replace(self.attack, eps=eps)
        if self.steps_of == "relative" and eps > 0 and isinstance(attack, MIFGSM):
            attack = replace(attack, alpha=2.5 * eps / attack.steps)
        return attack

    @property
    def reach(self) -> float | None:
        """The largest ε that a constant step can cross; ``None`` where the step follows ε.

        From X, the steps must cross ε; from a random start they may have to cross the whole ball, 2 ε.
        """

        alpha = self.attack.alpha if isinstance(self.attack, PGD | MIFGSM) else None
        if alpha is None or self.steps_of == "relative":
            return None
        return alpha * self.attack.steps / (2 if self.attack.starts_at_random else 1)


@dataclass(frozen=True)
class Protocol:
    """A named way to evaluate.

    Args:
        name: as on the command line.
        version: raised when a number made by it could change.
        searches: its attacks.
        worst_case: whether the outcome of a sample is the worst over a search's restarts with clean errors counted as
            errors; else it is the final iterate's, whatever the clean image's was.
        claim: what a number by this protocol may be called.
    """

    name: str
    version: int
    searches: tuple[Search, ...]
    worst_case: bool
    claim: str


_LIBRARY_STEP = 2 / 255

PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(
        "paper",
        1,
        (
            Search("fgsm", FGSM(0.0), title="FGSM"),
            Search(
                "pgd-constant-rs",
                PGD(0.0, steps=10, alpha=_LIBRARY_STEP),
                title="PGD-10, α = 2/255, random start",
            ),
            Search(
                "pgd-constant",
                PGD(0.0, steps=10, alpha=_LIBRARY_STEP, random_start=False),
                title="PGD-10, α = 2/255",
            ),
            Search("pgd-relative", PGD(0.0, steps=10, random_start=False), title="PGD-10, α = 2.5ε/10"),
            Search("mifgsm-constant", MIFGSM(0.0, steps=10, alpha=_LIBRARY_STEP), title="MI-FGSM-10, α = 2/255"),
            Search("mifgsm-relative", MIFGSM(0.0, steps=10), "relative", title="MI-FGSM-10, α = 2.5ε/10"),
        ),
        worst_case=False,
        claim="not a robustness claim",
    ),
    "pgd": Protocol(
        "pgd",
        2,
        (Search("pgd-40x5", PGD(0.0, steps=40, restarts=5), title="PGD-40 × 5, α = 2.5ε/40"),),
        worst_case=True,
        claim="not yet a robustness claim",
    ),
}
"""The protocols by name."""


def protocol_named(name: str, norm: Norm = "linf") -> Protocol:
    """The protocol of a name, in a norm.

    Raises:
        InputError: there is none of that name, or not in that norm.
    """

    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    if norm == "linf":
        return protocol
    if any(not isinstance(search.attack, PGD) for search in protocol.searches):
        raise InputError(f"protocol {name} is defined in L∞ only: use --protocol pgd for {norm}")
    return replace(protocol, searches=tuple(replace(s, attack=replace(s.attack, norm=norm)) for s in protocol.searches))
