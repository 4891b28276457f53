"""Descriptions of attacks, for tables, pages and checks."""

from __future__ import annotations

from collections.abc import Sequence

from .attack import Attack

__all__ = ["describe"]


def describe(attacks: Sequence[Attack]) -> str:
    """Describes the attacks of a worst case in their order; those of one group together."""

    groups: dict[str, list[Attack]] = {}
    for attack in attacks:
        groups.setdefault(attack.group, []).append(attack)
    return ", ".join(alike[0].described(len(alike)) for alike in groups.values())
