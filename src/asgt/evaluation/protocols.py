"""Protocols: versioned, immutable definitions of an evaluation. A result names the one that it was made by.

``paper`` v1
    Each attack at each ε from scratch, final iterate, clean errors attacked too, accuracy as it falls out. The paper
    gives neither α nor the number of steps: PGD and MI-FGSM come in the common library default (α = 2/255, 10 steps;
    PGD with and without a random start) and with α = 2.5 ε / 10. A constant step under-attacks wherever
    α · steps < ε. Never a robustness claim.

The others are worst cases: clean errors count as errors, what is broken at ε counts as broken above it, where the same
witness is valid, and a search along the gradient of the margin goes before the attacks and presses their witnesses on
(:mod:`asgt.evaluation.engine`).

``pgd`` v3
    Per sample, the worst of that and of PGD-40, α = 2.5 ε / 40, with 5 restarts from random starts. Quick, decent, not
    yet a claim. In v1 the margin was not asked: a net whose cross-entropy saturates then looked more robust than it is;
    in v2 no witness was pressed on.

``standard`` v1
    What a robustness claim rests on: per sample, the worst of ``pgd``, APGD-CE with 100 steps, APGD-T with 100 steps on
    each of min(9, K − 1) targets, and Square with 5,000 queries. Below four classes APGD-T is adapted.

``autoattack`` v2
    AutoAttack, its authors' package, whole: APGD, FAB-T and Square one after the other, APGD and Square at the ε just
    below what is known to break a sample and further down as long as they succeed, FAB-T, which asks for no ε, once. In
    v1 the ensemble was called as one, again at every ε. Below four classes it is adapted, and the result says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ..attacks import APGD, FGSM, MIFGSM, PGD, Attack, AutoAttack, Norm, Square
from ..errors import InputError, unknown

__all__ = ["PROTOCOLS", "Protocol", "Search", "protocol_named"]


@dataclass(frozen=True)
class Search:
    """One curve of a protocol.

    Args:
        name: what files and results call it.
        attacks: the attack; in a worst case there may be several, and a sample withstands what withstands them all.
            Their ``eps`` is replaced by that of the grid.
        steps_of: how its step length follows ε: ``"own"`` (as the attack has it), or ``"relative"`` (2.5 ε / steps).
        own: of a worst case, count only what its one attack finds, not what the probe along the margin does.
        title: what tables and figures call it. A label is no part of a protocol's identity, so the ``repr``, which
            evidence is keyed by, leaves it out.
    """

    name: str
    attacks: tuple[Attack, ...]
    steps_of: Literal["own", "relative"] = "own"
    own: bool = False
    title: str = field(default="", repr=False, compare=False)

    def at(self, eps: float) -> Attack:
        """The only attack, at a radius."""

        (attack,) = self.attacks
        attack = replace(attack, eps=eps)
        if self.steps_of == "relative" and eps > 0 and isinstance(attack, MIFGSM):
            attack = replace(attack, alpha=2.5 * eps / attack.steps)
        return attack

    @property
    def reach(self) -> float | None:
        """The largest ε that constant steps can cross; ``None`` where an attack's step follows ε.

        From X, the steps must cross ε; from a random start they may have to cross the whole ball, 2 ε.
        """

        reaches = []
        for attack in self.attacks:
            if not isinstance(attack, PGD | MIFGSM) or attack.alpha is None or self.steps_of == "relative":
                return None
            reaches.append(attack.alpha * attack.steps / (2 if attack.starts_at_random else 1))
        return max(reaches)

    def among(self, classes: int) -> Search:
        """The search against a model of so many classes: without the targets that it does not have."""

        def possible(attack: Attack) -> bool:
            return not (isinstance(attack, APGD) and attack.loss == "dlr-targeted" and attack.target >= classes)

        return replace(self, attacks=tuple(attack for attack in self.attacks if possible(attack)))

    def adapted(self, classes: int) -> bool:
        """Whether an attack is not its authors' own against a model of so many classes."""

        return any(isinstance(attack, APGD | AutoAttack) and attack.adapted(classes) for attack in self.attacks)


@dataclass(frozen=True)
class Protocol:
    """A named way to evaluate.

    Args:
        name: as on the command line.
        version: raised when a number made by it could change.
        searches: its curves.
        worst_case: whether the outcome of a sample is the worst over a search's attacks and their restarts, with clean
            errors counted as errors; else it is the final iterate's, whatever the clean image's was.
        claim: what a number by this protocol may be called.
    """

    name: str
    version: int
    searches: tuple[Search, ...]
    worst_case: bool
    claim: str


_LIBRARY_STEP = 2 / 255

_PGD = PGD(0.0, steps=40, restarts=5)

PROTOCOLS: dict[str, Protocol] = {
    "paper": Protocol(
        "paper",
        1,
        (
            Search("fgsm", (FGSM(0.0),), title="FGSM"),
            Search(
                "pgd-constant-rs",
                (PGD(0.0, steps=10, alpha=_LIBRARY_STEP),),
                title="PGD-10, α = 2/255, random start",
            ),
            Search(
                "pgd-constant",
                (PGD(0.0, steps=10, alpha=_LIBRARY_STEP, random_start=False),),
                title="PGD-10, α = 2/255",
            ),
            Search("pgd-relative", (PGD(0.0, steps=10, random_start=False),), title="PGD-10, α = 2.5ε/10"),
            Search("mifgsm-constant", (MIFGSM(0.0, steps=10, alpha=_LIBRARY_STEP),), title="MI-FGSM-10, α = 2/255"),
            Search("mifgsm-relative", (MIFGSM(0.0, steps=10),), "relative", title="MI-FGSM-10, α = 2.5ε/10"),
        ),
        worst_case=False,
        claim="not a robustness claim",
    ),
    "pgd": Protocol(
        "pgd",
        3,
        (Search("pgd-40x5", (_PGD,), title="PGD-40 × 5, α = 2.5ε/40"),),
        worst_case=True,
        claim="not yet a robustness claim",
    ),
    "standard": Protocol(
        "standard",
        1,
        (
            Search(
                "worst-case",
                (
                    _PGD,
                    APGD(0.0, steps=100),
                    *(APGD(0.0, steps=100, loss="dlr-targeted", target=target) for target in range(1, 10)),
                    Square(0.0, steps=5000),
                ),
                title="worst of PGD-40 × 5, APGD-CE, APGD-T, Square",
            ),
        ),
        worst_case=True,
        claim="an empirical robustness claim",
    ),
    "autoattack": Protocol(
        "autoattack",
        2,
        (
            Search(
                "autoattack",
                (AutoAttack(0.0, part="apgd"), AutoAttack(0.0, part="fab-t"), AutoAttack(0.0, part="square")),
                title="AutoAttack",
            ),
        ),
        worst_case=True,
        claim="an empirical robustness claim",
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
    if any(isinstance(attack, FGSM | MIFGSM) for search in protocol.searches for attack in search.attacks):
        others = " or ".join(name for name, other in PROTOCOLS.items() if other.worst_case)
        raise InputError(f"protocol {name} is defined in L∞ only: use --protocol {others} for {norm}")
    return replace(
        protocol,
        searches=tuple(
            replace(search, attacks=tuple(replace(attack, norm=norm) for attack in search.attacks))
            for search in protocol.searches
        ),
    )
