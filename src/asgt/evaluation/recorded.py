"""A protocol of attacks of one's own as a result records it: enough to read the result, not to run the attacks.

Their code may not be here, and nothing in a run folder may run. So what was evaluated stays known by its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..attacks import Attack, Norm, State
from ..errors import InputError
from .protocols import Protocol, Search

__all__ = ["record_of", "recorded_protocol"]


@dataclass(frozen=True)
class _Attack(Attack):
    """An attack by its title alone."""

    named: str = field(default="", kw_only=True)
    words: str = field(default="", kw_only=True)

    @property
    def title(self) -> str:
        return self.named

    def described(self, count: int = 1) -> str:
        return self.words

    def step(self, state: State) -> State:
        """Cannot be done.

        Raises:
            InputError: always.
        """

        raise InputError(f"{self.title} is known by its record alone: asgt.evaluate takes the attack itself")


@dataclass(frozen=True, repr=False)
class _Search(Search):
    text: str = field(default="", kw_only=True)
    is_adapted: bool = field(default=False, kw_only=True)

    def among(self, classes: int) -> Search:
        return self

    def adapted(self, classes: int) -> bool:
        return self.is_adapted

    def __repr__(self) -> str:
        return self.text


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
    """What ``result.json`` holds of attacks of one's own, beside the definition."""

    searches = [search.among(classes) for search in protocol.searches]
    return {
        "identity": protocol.identity,
        "searches": [
            {
                "name": search.name,
                "title": search.title,
                "own": search.own,
                "adapted": search.adapted(classes),
                "attacks": [{"title": attack.title, "words": attack.described()} for attack in search.attacks],
            }
            for search in searches
        ],
    }


def recorded_protocol(definition: Mapping[str, Any], record: Mapping[str, Any], claim: str) -> Protocol:
    """The protocol that a result records.

    Raises:
        LookupError: a part is missing.
    """

    searches = tuple(
        _Search(
            search["name"],
            tuple(_Attack(named=str(attack["title"]), words=str(attack["words"])) for attack in search["attacks"]),
            own=search["own"] is True,
            title=str(search["title"]),
            text=str(definition["attacks"][search["name"]]),
            is_adapted=search["adapted"] is True,
        )
        for search in record["searches"]
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
