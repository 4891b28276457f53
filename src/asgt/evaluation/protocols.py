"""Protocols: versioned, immutable definitions of an evaluation. A result names its protocol.

``PROTOCOLS`` holds the newest version of each name. ``EARLIER`` holds the earlier versions that remain available, by
``NAME@VERSION``: results that were made by them can be read, resumed and compared.

``paper`` v1
    Each attack at each ε from scratch, final iterate, clean errors attacked too, accuracy without further rules. The
    paper gives neither α nor the number of steps: PGD and MI-FGSM come in the common library default (α = 2/255, 10
    steps; PGD with and without a random start) and with α = 2.5 ε / 10. A constant step under-attacks wherever
    α · steps < ε. Never a robustness claim.

The others are worst cases: clean errors count as errors, a sample that is broken at ε counts as broken at every
larger ε, where the same witness is valid. A search along the gradient of the margin runs before the attacks and moves
their witnesses to smaller ε (:mod:`asgt.evaluation.engine`).

``pgd`` v3
    Per sample, the worst of that and of PGD-40, α = 2.5 ε / 40, with 5 restarts from random starts. Quick, decent, not
    yet a claim. v1 did not use the margin: a network whose cross-entropy saturates then looked more robust than it
    is. v2 did not move witnesses to smaller ε.

``standard`` v2
    What a robustness claim rests on: a search in phases (:mod:`asgt.evaluation.phased`), which spends its passes on the
    samples whose margin is small. A random part of the others is attacked by all of ``standard@1``
    (:mod:`asgt.evaluation.discard_audit`), which bounds what the search may have overlooked at one point of accuracy;
    where that fails, or gradients mislead, or there are few images, all samples are.

``standard-quick`` v2
    The same search without the audit. Never a robustness claim.

``standard@1``
    The first version of ``standard``: per sample, the worst of ``pgd``, APGD-CE with 100 steps, APGD-T with 100 steps
    on each of min(9, K − 1) targets, and Square with 5,000 queries. Below four classes APGD-T is adapted.

``autoattack`` v2
    AutoAttack, its authors' package, whole: APGD, FAB-T and Square one after the other, APGD and Square at the ε just
    below what is known to break a sample and further down as long as they succeed, FAB-T, which does not depend on ε,
    once. In v1 the ensemble was called as one, again at every ε. Below four classes it is adapted, and the result says
    so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import pairwise
from types import FunctionType
from typing import Any, Literal

from ..attacks import (
    APGD,
    FGSM,
    MIFGSM,
    PGD,
    AnnealedPGD,
    Attack,
    AutoAttack,
    LocalSquare,
    Norm,
    RescaledSquare,
    Square,
    as_attack,
    describe,
    is_attack,
)
from ..attacks.attack import refuse_targeted
from ..errors import InputError, cut, unknown
from ..plugins import imported
from .phased import Phase

__all__ = [
    "EARLIER",
    "KNOWN",
    "LATER",
    "OWN",
    "OWN_CLAIM",
    "PROTOCOLS",
    "Protocol",
    "Search",
    "known_version",
    "known_versions",
    "own_attack",
    "own_protocol",
    "protocol_key",
    "protocol_named",
    "stored_name",
]


OWN = "own"
"""The name of a protocol of the user's attacks."""

OWN_CLAIM = "attacks of one's own: not yet a robustness claim"
"""The claim of a number from the user's attacks."""

LATER = r"\.(exhaustive|full|below|nearest|audit-\d+-\d+|wider-\d+)$"
"""Suffixes of the names of a search's later evidence; no name of a search may end in them."""


@dataclass(frozen=True)
class Search:
    """One curve of a protocol.

    Args:
        name: its name in files and results.
        attacks: the attack; in a worst case there may be several, and a sample is robust if all of them fail.
            Their ``eps`` is replaced by that of the grid.
        steps_of: the rule for its step size: ``"own"`` (as the attack has it), or ``"relative"`` (2.5 ε / steps).
        own: in a worst case, count only the successes of its one attack, not those of the probe along the margin.
        title: its name in tables and figures. It is not part of a protocol's identity, so the ``repr``, which is
            the key of the evidence, omits it.
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
        if self.steps_of == "relative" and eps > 0:
            attack = attack.with_alpha(2.5 * eps / attack.steps)
        return attack

    @property
    def reach(self) -> float | None:
        """The largest ε that constant steps can cross; ``None`` where an attack's step follows ε."""

        reaches = [None if self.steps_of == "relative" else attack.reach for attack in self.attacks]
        known = [reach for reach in reaches if reach is not None]
        return max(known) if known and len(known) == len(reaches) else None

    def among(self, classes: int) -> Search:
        """The search against a model of so many classes: without targets beyond its classes."""

        return replace(self, attacks=tuple(attack for attack in self.attacks if attack.possible(classes)))

    def in_norm(self, norm: Norm) -> Search:
        """The search in a norm.

        Raises:
            InputError: an attack is not defined in it.
        """

        return replace(self, attacks=tuple(attack.in_norm(norm) for attack in self.attacks))

    @property
    def finders(self) -> tuple[Attack, ...]:
        """The attacks that can break a sample, in the order of their numbers in the evidence."""

        return self.attacks

    def described(self, *, full: bool = False) -> str:
        """Describes its attacks with their effort.

        Args:
            full: only those of the full search, which a search in phases may have run on all samples instead.
        """

        return describe(self.finders)

    def adapted(self, classes: int) -> bool:
        """Whether an attack differs from its authors' version against a model of so many classes."""

        return any(attack.adapted(classes) for attack in self.finders)

    @property
    def is_one_step(self) -> bool:
        """Whether all of its attacks take a single step."""

        return all(attack.is_one_step for attack in self.attacks)

    @property
    def is_whole(self) -> bool:
        """Whether some attack can only be called as one function, so that small groups of samples are slow."""

        return not all(attack.goes_by_steps for attack in self.attacks)


@dataclass(frozen=True)
class PhasedSearch(Search):
    """A search in phases; ``attacks`` is the full search for its audit.

    Args:
        phases: the phases, first for all samples, then for those near the boundary.
        audited: whether a part of the survivors is attacked by the full search, and all samples if necessary.
        phases_in_l2: the phases that :meth:`in_norm` takes in L2; not part of the identity in L∞. Default: the same.
    """

    phases: tuple[Phase, ...] = field(default=(), kw_only=True)
    audited: bool = field(default=True, kw_only=True)
    phases_in_l2: tuple[Phase, ...] = field(default=(), kw_only=True, repr=False, compare=False)

    def among(self, classes: int) -> PhasedSearch:
        """The search against a model of so many classes: without targets beyond its classes, in phases too."""

        phases = tuple(
            replace(phase, attacks=tuple(attack for attack in phase.attacks if attack.possible(classes)))
            for phase in self.phases
        )
        attacks = tuple(attack for attack in self.attacks if attack.possible(classes))
        return replace(self, attacks=attacks, phases=phases)

    def in_norm(self, norm: Norm) -> PhasedSearch:
        phases = (self.phases_in_l2 if norm == "l2" else ()) or self.phases
        # Without the others: the search is in a norm now, and whoever changes its phases there has changed them.
        return replace(
            self,
            attacks=super().in_norm(norm).attacks,
            phases=tuple(phase.in_norm(norm) for phase in phases),
            phases_in_l2=(),
        )

    @property
    def finders(self) -> tuple[Attack, ...]:
        """The attacks of the phases, one after the other, and then those of the full search."""

        return *(attack for phase in self.phases for attack in phase.attacks), *self.attacks

    def described(self, *, full: bool = False) -> str:
        if full:
            return describe(self.attacks)
        phases = "; then ".join(
            f"{describe(phase.attacks)}{f' within {phase.within:g} σ' if phase.within else ' on every sample'}"
            for phase in self.phases
            if phase.if_breaking is None
        )
        audit = f"; an audit of the survivors by {describe(self.attacks)}" if self.audited else ""
        return phases + audit


@dataclass(frozen=True)
class Protocol:
    """A named way to evaluate.

    Args:
        name: as on the command line.
        version: raised when a number made by it could change.
        searches: its curves.
        worst_case: whether the outcome of a sample is the worst over a search's attacks and their restarts, with clean
            errors counted as errors; else it is the final iterate's, also for clean errors.
        claim: what a number by this protocol may claim.

    Example:
        >>> import asgt
        >>> from asgt.evaluation.protocols import Search
        >>> own = asgt.Protocol("mine", 1, (Search("pgd-20", (asgt.PGD(steps=20),)),), True, "not a robustness claim")
        >>> own.key, asgt.PROTOCOLS["pgd"].claim
        ('mine', 'not yet a robustness claim')
    """

    name: str
    version: int
    searches: tuple[Search, ...]
    worst_case: bool
    claim: str

    def __post_init__(self) -> None:
        names = [search.name for search in self.searches]
        if not names:
            raise InputError(f"protocol {self.name} has no search: give at least one, such as Search('pgd', (PGD(),))")
        for name in (self.name, *names):
            # They are names of files and folders.
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) or re.search(LATER, name):
                raise InputError(f"a protocol or search is called {name!r}: use letters, digits, '-', '_' and '.'")
        if twice := {name for name in names if names.count(name) > 1}:
            raise InputError(f"two searches of protocol {self.name} are called {min(twice)}: give each its own name")
        for attack in (attack for search in self.searches for attack in search.finders):
            refuse_targeted(attack, "an evaluation of accuracy")
        for search in self.searches:
            if not search.attacks or (len(search.attacks) > 1 and (search.own or not self.worst_case)):
                counts = f"search {search.name} has {len(search.attacks)} attacks"
                raise InputError(f"{counts}: a worst case takes one or more, any other curve exactly one")
            if isinstance(search, PhasedSearch):
                self._check_phases(search)

    def _check_phases(self, search: PhasedSearch) -> None:
        """Refuses a search in phases that cannot be run.

        Raises:
            InputError: it has no phases, its first one is not for all samples, or an attack cannot be driven by steps.
        """

        where = f"search {search.name} of protocol {self.name}"
        if not self.worst_case or search.own:
            raise InputError(f"{where} has phases: make the protocol a worst case, without a separate curve")
        _check_phase_list(search.phases, where)
        if search.phases_in_l2:
            _check_phase_list(search.phases_in_l2, f"{where}, in L2,")

    @property
    def identity(self) -> str:
        """The key of its evidence: its definition, and the identity of external attacks."""

        attacks = [attack for search in self.searches for attack in search.finders]
        external = [attack.identity for attack in attacks if attack.is_external]
        return " ".join([repr(self), *external])

    @property
    def is_house(self) -> bool:
        """Whether it is a built-in protocol, by its name, version and attacks."""

        known = known_version(self.name, self.version)
        norm = self.searches[0].attacks[0].norm
        return known is not None and (norm == "linf" or known.can_be_in(norm)) and known.in_norm(norm) == self

    @property
    def key(self) -> str:
        """Its name in code and on the command line.

        The plain name for the newest version and for a user's protocol, else ``NAME@VERSION``.
        """

        return protocol_key(self.name, self.version)

    @property
    def stored_as(self) -> str:
        """Its name in files: a folder in ``evaluation/``, a key in a saved result, a part of a manifest.

        The plain name for each version that was once stored under it (and for a user's protocol), else
        ``NAME@VERSION``. A file's name must stay the same when a newer version comes: the results of ``standard``
        v1 are in ``evaluation/standard``, and their digests cover that name. So the newest version cannot take it over.
        """

        last = _LAST_UNDER_PLAIN_NAME.get(self.name, 0 if known_versions(self.name) else self.version)
        return self.name if self.version <= last else f"{self.name}@{self.version}"

    def can_be_in(self, norm: Norm) -> bool:
        """Whether all of its attacks are defined in a norm."""

        return all(norm in attack.norms for search in self.searches for attack in search.finders)

    @property
    def is_one_step(self) -> bool:
        """Whether no search takes several steps."""

        return all(search.is_one_step for search in self.searches)

    def in_norm(self, norm: Norm) -> Protocol:
        """The same attacks in a norm.

        Raises:
            InputError: an attack is not defined in it.
        """

        if norm == "linf":
            return self
        if not self.can_be_in(norm):
            others = " or ".join(name for name, other in PROTOCOLS.items() if other.worst_case)
            raise InputError(f"protocol {self.name} is defined in L∞ only: use --protocol {others} for {norm}")
        return replace(self, searches=tuple(search.in_norm(norm) for search in self.searches))


def _check_phase_list(phases: tuple[Phase, ...], where: str) -> None:
    if not phases or not all(phase.attacks for phase in phases):
        raise InputError(
            f"{where} has no phase, or a phase without attacks: give at least one, such as Phase('pgd', …)"
        )
    first = phases[0]
    if first.within is not None or first.if_breaking is not None or first.from_best or first.rounds:
        raise InputError(
            f"phase {first.name} of {where} is the first one, so it must be for all samples and start by "
            "itself: remove its conditions"
        )
    for phase in phases:
        for attack in phase.attacks:
            if not attack.goes_by_steps or not attack.asks_eps:
                raise InputError(f"{attack.title} in phase {phase.name} of {where} cannot be driven step by step")
            if phase.rounds and not _has_rounds(attack, phase.rounds):
                raise InputError(
                    f"{attack.title} in phase {phase.name} of {where} cannot have the rounds {phase.rounds}: "
                    f"AnnealedPGD and Square can, with ascending numbers below {attack.steps}, and shares up to 1"
                )
            if attack.restarts > 1:
                raise InputError(
                    f"{attack.title} in phase {phase.name} of {where} has {attack.restarts} restarts, but a "
                    "phase runs each attack once: list it several times, without restarts"
                )


def _has_rounds(attack: Attack, rounds: tuple[tuple[int, float], ...]) -> bool:
    """Whether an attack keeps its smallest margin, and rounds end in order before it does."""

    ends = [0, *(steps for steps, _ in rounds), attack.steps]
    ascending = all(first < second for first, second in pairwise(ends))
    return attack.keeps_margin and ascending and all(0.0 < share <= 1.0 for _, share in rounds)


_LIBRARY_STEP = 2 / 255

_PGD = PGD(0.0, steps=40, restarts=5)

_FULL = (
    _PGD,
    APGD(0.0, steps=100),
    *(APGD(0.0, steps=100, loss="dlr-targeted", target=target) for target in range(1, 10)),
    Square(0.0, steps=5000),
)

_SHORT = tuple(AnnealedPGD(0.0, steps=20, loss=loss) for loss in ("margin", "ce", "margin-targeted"))
_LONG = tuple(AnnealedPGD(0.0, steps=100, loss=loss) for loss in ("ce", "dlr-targeted", "margin"))

_LONG_RUNS = Phase("long runs", _LONG, within=1.5)

# Where gradients mislead a little, a few hundred queries break samples near and far: all of them get some.
_FRESH_SQUARE = Phase(
    "fresh Square", (RescaledSquare(0.0, steps=2000),), within=5, if_breaking=0.05, rounds=((200, 0.3), (500, 0.3))
)

# Where they mislead on most samples, more queries on many break more than any gradients.
_FRESH_SQUARE_AGAIN = Phase(
    "fresh Square, again", (RescaledSquare(0.0),), within=8, if_breaking=0.5, rounds=((300, 0.3), (800, 0.5))
)

_WHERE_SQUARE_BREAKS = (
    _FRESH_SQUARE,
    _FRESH_SQUARE_AGAIN,
    replace(_FRESH_SQUARE_AGAIN, name="fresh Square, a third time", within=4),
)

# docs/performance.md says on which nets the numbers were chosen.
_PHASES = (
    Phase("short runs", _SHORT),
    Phase("short runs, again", _SHORT, within=6),
    # It breaks little by itself. Where gradients mislead, it lowers the margin by far more than they did.
    Phase("a little Square", (LocalSquare(0.0, steps=200, skipped=100),), within=6, from_best=True),
    _LONG_RUNS,
    Phase("Square from the best iterate", (LocalSquare(0.0),), within=1, from_best=True),
    *_WHERE_SQUARE_BREAKS,
)

# In L2 the class that comes closest under a short attack is often not the one that a longer attack reaches, and Square
# breaks next to nothing: a few queries show whether gradients mislead.
_PHASES_IN_L2 = (
    *_PHASES[:2],
    Phase(
        "runs towards four classes",
        tuple(AnnealedPGD(0.0, steps=40, loss="margin-targeted", target=rank) for rank in range(1, 5)),
        within=6,
    ),
    _LONG_RUNS,
    Phase("Square from the best iterate", (LocalSquare(0.0, steps=300),), within=1, from_best=True),
    *_WHERE_SQUARE_BREAKS,
)

_BY_MARGIN = PhasedSearch("worst-case", _FULL, title="search by margin", phases=_PHASES, phases_in_l2=_PHASES_IN_L2)

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
    "standard-quick": Protocol(
        "standard-quick",
        2,
        (replace(_BY_MARGIN, audited=False),),
        worst_case=True,
        claim="not a robustness claim: the audit was left out",
    ),
    "standard": Protocol(
        "standard",
        2,
        (replace(_BY_MARGIN, title="search by margin, audited"),),
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
"""The newest version of each protocol, by name, from the weakest to the strictest.

Example:
    >>> import asgt
    >>> asgt.PROTOCOLS["standard"].claim
    'an empirical robustness claim'
"""

EARLIER: dict[str, Protocol] = {
    "standard@1": Protocol(
        "standard",
        1,
        (
            Search(
                "worst-case",
                _FULL,
                title="worst of PGD-40 × 5, APGD-CE, APGD-T, Square",
            ),
        ),
        worst_case=True,
        claim="an empirical robustness claim",
    ),
}
"""The earlier versions that remain available, by ``NAME@VERSION``."""

KNOWN: dict[str, Protocol] = {
    key: protocol
    for name, newest in PROTOCOLS.items()
    for key, protocol in (*(pair for pair in EARLIER.items() if pair[1].name == name), (name, newest))
}
"""All protocols by their keys, from the weakest to the strictest; an earlier version comes before its successor."""

_LAST_UNDER_PLAIN_NAME = {"paper": 1, "pgd": 3, "standard": 1, "autoattack": 2}
"""The last version of each name whose files have the plain name (:attr:`Protocol.stored_as`); it never changes."""


def protocol_key(name: str, version: int) -> str:
    """The key of a protocol (:attr:`Protocol.key`)."""

    versioned = f"{name}@{version}"
    return versioned if versioned in EARLIER else name


def known_version(name: str, version: Any) -> Protocol | None:
    """The protocol of asgt of a name and version, in L∞; ``None`` if there is none."""

    return next((protocol for protocol in known_versions(name) if protocol.version == version), None)


def known_versions(name: str) -> list[Protocol]:
    """The protocols of asgt of a name, the newest first; empty if there is none."""

    newest = [PROTOCOLS[name]] if name in PROTOCOLS else []
    earlier = [protocol for protocol in EARLIER.values() if protocol.name == name]
    return newest + sorted(earlier, key=lambda protocol: -protocol.version)


def stored_name(key: str) -> str:
    """The name in files of the protocol of a key (:attr:`Protocol.stored_as`); a name that is not a key is returned
    unchanged.
    """

    known = PROTOCOLS.get(key) or EARLIER.get(key)
    return key if known is None else known.stored_as


def protocol_named(name: str, norm: Norm = "linf") -> Protocol:
    """The protocol of a name, in a norm.

    Args:
        name: as ``"standard"``, which is its newest version, or with a version, as ``"standard@1"``.
        norm: the norm of ε.

    Raises:
        InputError: there is no protocol of that name and version in that norm.
    """

    plain, at, version = name.partition("@")
    versions = known_versions(plain)
    if not versions:
        raise unknown("protocol", plain, (*PROTOCOLS, *EARLIER))
    asked = versions[:1] if not at else [protocol for protocol in versions if str(protocol.version) == version]
    if not asked:
        there = " and ".join(f"{plain}@{protocol.version}" for protocol in versions)
        raise InputError(f"there is no protocol {cut(name)}: this version of asgt has {there}")
    return asked[0].in_norm(norm)


def own_protocol(
    attacks: Attack | Callable[..., Any] | Sequence[Attack | Callable[..., Any]], norm: Norm, worst_case: bool = True
) -> Protocol:
    """The protocol of a user's attacks.

    Args:
        attacks: one attack or several: of :mod:`asgt.attacks`, or a library's attack that is called with images and
            labels (:class:`asgt.Foreign`). They need no ε.
        norm: the norm of ε, in which all of them attack.
        worst_case: a single search of all of them; else one for each.

    Raises:
        InputError: there is no attack, one attacks in another norm, or two have the same name.
    """

    if not callable(attacks) and not isinstance(attacks, Iterable):
        raise InputError(f"{attacks!r} is not an attack: name a protocol, or pass attacks")
    given = [attacks] if callable(attacks) else list(attacks)
    ours = tuple(as_attack(attack, norm) for attack in given)
    # Without an ε of its own an attack is written as those of the house are, whose ε is the grid's.
    ours = tuple(_without_eps(attack) if attack.eps is None else attack for attack in ours)
    if not ours:
        raise InputError("no attack is given: name a protocol, or pass attacks")

    if worst_case:
        searches = [Search("worst-case", ours, title=f"worst of {', '.join(attack.title for attack in ours)}")]
    else:
        searches = [Search(_slug(attack.title), (attack,), own=True, title=attack.title) for attack in ours]
    names = [search.name for search in searches]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(
            f"two attacks are called {min(twice)}: give Foreign attacks names, or evaluate one after the other"
        )
    return Protocol(OWN, 1, tuple(searches), True, OWN_CLAIM)


def _without_eps(attack: Attack) -> Attack:
    try:
        return replace(attack, eps=0.0)
    except TypeError as error:  # a stranger's __init__
        told = "an attack is a frozen dataclass that extends asgt.Attack"
        raise InputError(f"{attack.title} takes no eps: {told}") from error


def own_attack(name: str, norm: Norm) -> Attack:
    """The attack of ``package.module:name``, in the norm where it is defined in it.

    It is the class of an attack, a function without parameters that makes one, an attack, or an attack of another
    library.

    Raises:
        InputError: it cannot be imported or made, or attacks in another norm.
    """

    value = imported(name, "attack")
    if isinstance(value, type) or (isinstance(value, FunctionType) and not signature(value).parameters):
        try:
            value = value()
        except Exception as error:  # a stranger's code may raise anything
            first = (str(error).splitlines() or [""])[0][:200]
            raise InputError(f"attack {name} cannot be made: {type(error).__name__}: {first}") from error
    if is_attack(value) and norm in value.norms:
        value = value.in_norm(norm)
    return as_attack(value, norm, name=name.partition(":")[2])


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("×", "x")).strip("-") or "attack"
