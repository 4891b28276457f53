"""A protocol of the user's attacks as a result records it: enough to read the result, not to run the attacks.

Their code may not be here, and nothing in a run folder may run. So its text identifies what was evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from ..attacks import Attack, Norm, State
from ..errors import InputError
from .phased import Phase
from .protocols import PhasedSearch, Protocol, Search

__all__ = ["record_of", "recorded_protocol"]


@dataclass(frozen=True)
class _Attack(Attack):
    """An attack by its title alone."""

    named: str = field(default="", kw_only=True)
    words: str = field(default="", kw_only=True)
    by_gradients: bool = field(default=True, kw_only=True)
    by_margin: bool = field(default=False, kw_only=True)

    @property
    def title(self) -> str:
        return self.named

    @property
    def uses_gradients(self) -> bool:
        return self.by_gradients

    @property
    def keeps_margin(self) -> bool:
        return self.by_margin

    def described(self, count: int = 1) -> str:
        return self.words

    def step(self, state: State) -> State:
        """Cannot be done.

        Raises:
            InputError: always.
        """

        raise InputError(f"{self.title} is only a record and cannot run: pass the attack to asgt.evaluate")


@dataclass(frozen=True, repr=False)
class _Search(Search):
    text: str = field(default="", kw_only=True)
    is_adapted: bool = field(default=False, kw_only=True)

    def among(self, classes: int) -> Self:
        return self

    def adapted(self, classes: int) -> bool:
        return self.is_adapted

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, repr=False)
class _PhasedSearch(_Search, PhasedSearch):
    pass


@dataclass(frozen=True, repr=False)
class _Protocol(Protocol):
    text: str = field(default="", kw_only=True)

    @property
    def identity(self) -> str:
        return self.text

    def in_norm(self, norm: Norm) -> Protocol:
        return self

    def __repr__(self) -> str:
        return self.text


def record_of(protocol: Protocol, classes: int) -> dict[str, Any]:
    """The record of the user's attacks in ``result.json``, in addition to the definition."""

    return {
        "identity": protocol.identity,
        "searches": [_record_of_search(search.among(classes), classes) for search in protocol.searches],
    }


def recorded_protocol(definition: Mapping[str, Any], record: Mapping[str, Any], claim: str) -> Protocol:
    """The protocol that a result records.

    Raises:
        LookupError: a part is missing.
    """

    searches = tuple(
        _recorded_search(search, str(definition["attacks"][search["name"]])) for search in record["searches"]
    )
    if not searches:
        raise LookupError("no searches")
    return _Protocol(
        str(definition["name"]),
        int(definition["version"]),
        searches,
        definition["worst_case"] is True,
        claim,
        text=str(record["identity"]),
    )


def _record_of_search(search: Search, classes: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "name": search.name,
        "title": search.title,
        "own": search.own,
        "adapted": search.adapted(classes),
        "attacks": [_record_of_attack(attack) for attack in search.attacks],
    }
    if isinstance(search, PhasedSearch):
        phases = [
            {
                "name": phase.name,
                "within": phase.within,
                "from_best": phase.from_best,
                "if_breaking": phase.if_breaking,
                "rounds": [list(pair) for pair in phase.rounds],
                "attacks": [_record_of_phase_attack(attack) for attack in phase.attacks],
            }
            for phase in search.phases
        ]
        record |= {"audited": search.audited, "phases": phases}
    return record


def _recorded_search(record: Mapping[str, Any], text: str) -> Search:
    settings: dict[str, Any] = {
        "own": record["own"] is True,
        "title": str(record["title"]),
        "text": text,
        "is_adapted": record["adapted"] is True,
    }
    attacks = tuple(map(_recorded_attack, record["attacks"]))
    if "phases" not in record:
        return _Search(record["name"], attacks, **settings)
    phases = tuple(
        Phase(
            str(phase["name"]),
            tuple(map(_recorded_attack, phase["attacks"])),
            None if phase["within"] is None else float(phase["within"]),
            phase["from_best"] is True,
            None if phase["if_breaking"] is None else float(phase["if_breaking"]),
            tuple((int(steps), float(share)) for steps, share in phase.get("rounds", ())),
        )
        for phase in record["phases"]
    )
    return _PhasedSearch(record["name"], attacks, **settings, phases=phases, audited=record["audited"] is True)


def _record_of_attack(attack: Attack) -> dict[str, Any]:
    return {"title": attack.title, "words": attack.described()}


def _record_of_phase_attack(attack: Attack) -> dict[str, Any]:
    asked = {"gradients": attack.uses_gradients, "margin": attack.keeps_margin, "steps": attack.steps}
    return _record_of_attack(attack) | asked


def _recorded_attack(record: Mapping[str, Any]) -> Attack:
    return _Attack(
        named=str(record["title"]),
        words=str(record["words"]),
        steps=int(record.get("steps", 1)),
        by_gradients=record.get("gradients", True) is True,
        by_margin=record.get("margin") is True,
    )
