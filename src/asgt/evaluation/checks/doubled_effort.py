"""A converged search does not break more samples with twice the steps and restarts."""

from __future__ import annotations

import torch

from ...attacks import PGD, Attack, describe
from ..check import THOROUGH, Check
from ..protocols import Search
from ..second_look import SecondLook
from .grading import counted_check, no_survivors

__all__ = ["check_doubled_effort"]


def check_doubled_effort(look: SecondLook) -> Check:
    """A converged search does not break more samples with twice the steps and restarts."""

    name, remedy = "doubled effort", "increase steps and restarts until the accuracy no longer falls"
    if len(look.survivors) == 0:
        return no_survivors(name, look)
    if not look.thorough:
        # One more restart is there already, for other checks: what it breaks needs no thorough look.
        if bool(look.again[1].any()):
            return counted_check(name, look, look.survivors, look.again[1], "one more restart of PGD-40", remedy)
        return Check(name, "NOT RUN", "twice the steps and restarts are an expensive check", THOROUGH)

    searches = look.evaluation.protocol.searches
    strongest = min(searches, key=lambda search: int(look.evaluation.outcomes[search.name][look.level].sum()))
    efforts, stand_in = _twice(strongest, look)
    broken = torch.zeros(len(look.many_survivors), dtype=torch.bool)
    for attack in efforts:
        left = (~broken).nonzero().squeeze(1)
        if len(left):
            broken[left] = look.broken_by(attack, look.many_survivors[left], look.eps)
    what = f"twice the effort of {strongest.name}, {describe(efforts)}{stand_in},"
    return counted_check(name, look, look.many_survivors, broken, what, remedy)


def _twice(search: Search, look: SecondLook) -> tuple[list[Attack], str]:
    """The attacks of a search with twice their effort, without repeats, and the replacements of some of them."""

    efforts, without = list[Attack](), list[str]()
    for attack in search.among(look.evaluation.classes).attacks:
        doubled = attack.doubled()
        if doubled is None:
            without.append(attack.title)
        elif search.steps_of == "relative":
            doubled = doubled.with_alpha(2.5 * look.eps / doubled.steps)
        if doubled is not None and doubled not in efforts:
            efforts.append(doubled)
    stand_in = PGD(norm=look.evaluation.norm, steps=80, restarts=10)
    if without and stand_in not in efforts:
        efforts.append(stand_in)
    return efforts, f"; {', '.join(without)} cannot be doubled, {stand_in.title} replaces it" if without else ""
