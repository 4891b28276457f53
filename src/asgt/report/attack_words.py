"""TODO-MERGE: remove this file once ``asgt.attacks.describe`` is there, and import that in ``findings_section``."""

from __future__ import annotations

from collections.abc import Sequence

from ..attacks import APGD, PGD, Attack, AutoAttack, Square

__all__ = ["describe"]


def describe(attacks: Sequence[Attack]) -> str:
    """The attacks of a worst case, those on one target each taken together."""

    targets = [attack for attack in attacks if isinstance(attack, APGD) and attack.loss == "dlr-targeted"]
    told = []
    for attack in attacks:
        if isinstance(attack, Square):
            told.append(f"{attack.title} ({attack.steps:,} queries)")
        elif attack in targets[:1]:
            told.append(f"APGD-T ({attack.steps} steps on each of {len(targets)} targets)")
        elif isinstance(attack, APGD) and attack not in targets:
            told.append(f"{attack.title} ({attack.steps} steps)")
        elif isinstance(attack, PGD):
            told.append(f"{attack.title} (α = 2.5ε/{attack.steps}, random starts)")
        elif isinstance(attack, AutoAttack) and attack == attacks[0]:
            told.append(
                "AutoAttack (its authors' package, whole: APGD and Square at the ε just below what is known to break a "
                "sample, and further down as long as they succeed; FAB-T, which asks for no ε, once)"
            )
    return ", ".join(told)
