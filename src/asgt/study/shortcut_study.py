"""Does masking remove shortcuts? The hypotheses about the gaps of methods, and what the runs say of each.

A claim says that one method uses a planted shortcut less than another: its gap, the accuracy on ``aligned`` less that
on ``reversed`` (:mod:`asgt.evaluation.shortcut_use`), is smaller. The difference is that of the rival's gap less its
own, one a seed. The claims lie in ``shortcut_claims.yaml``, fixed before the runs, with the margin within which a
difference is not relevant. Verdicts are those of :mod:`asgt.study.verdicts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..comparison.comparing import Comparison
from ..comparison.shortcut_gaps import ShortcutComparison, gap_difference
from ..errors import DamagedFileError
from ..files import read_yaml
from ..statistics import PairedDifference, adjusted_by_kind
from .verdicts import GAP, Claim, Verdict, claim_of, decided, named, refuse_strange, with_difference

__all__ = [
    "SHORTCUT_CLAIMS",
    "ShortcutClaims",
    "closed_share",
    "compare_controls",
    "judge_gaps",
    "load_shortcut_claims",
]

SHORTCUT_CLAIMS = Path(__file__).parent / "shortcut_claims.yaml"


@dataclass(frozen=True)
class ShortcutClaims:
    """The file of claims, read.

    Attributes:
        version: raised with every change of a claim.
        date: of that version.
        alpha: of Holm's adjusted p.
        margin: of the gap, in [0, 1]: a difference whose whole interval lies within is not relevant.
        judged: the grid on whose runs the claims are tested.
        methods: the settings of each method by its name.
        claims: all of them.
    """

    version: int
    date: str
    alpha: float
    margin: float
    judged: str
    methods: Mapping[str, Mapping[str, Any]]
    claims: tuple[Claim, ...]


def load_shortcut_claims(path: Path = SHORTCUT_CLAIMS) -> ShortcutClaims:
    """Reads a file of claims about shortcuts.

    Raises:
        InputError: there is no such file.
        DamagedFileError: it is not a file of claims, two of them have one id, or one names what the file does not.
    """

    values = read_yaml(path)
    try:
        alpha, margin = (float(values[name]) for name in ("alpha", "margin"))
    except (LookupError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not a file of claims") from error
    try:
        judged, methods = str(values["judged"]), values["methods"]
        claims = tuple(claim_of({**claim, "data": judged, "measure": GAP}) for claim in values["claims"])
        refuse_strange(claims, {judged: methods}, path)
        if any(len(claim.against) != 1 for claim in claims):
            raise DamagedFileError(f"{path} is damaged: a claim about gaps has one rival")
        return ShortcutClaims(values["version"], str(values["date"]), alpha, margin, judged, methods, claims)
    except (LookupError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not a file of claims") from error


def judge_gaps(comparison: Comparison, used: ShortcutComparison, claims: ShortcutClaims) -> list[Verdict]:
    """Tests the claims on the gaps of a grid's runs, without an attack.

    Args:
        comparison: the runs.
        used: the same runs on the four test sets.
        claims: the file of claims.

    Returns:
        A verdict a claim, in their order; those of which a method was not run, or not with these settings, say so.
    """

    verdicts = []
    for claim in claims.claims:
        blank, (rival,) = Verdict(claim, GAP, "not run"), claim.against
        methods = [named(comparison, claims.methods[name]) for name in (rival, claim.first)]
        if lacking := [name for name, method in zip((rival, claim.first), methods, strict=True) if method is None]:
            verdicts.append(replace(blank, why=f"no runs of {' and '.join(lacking)}"))
            continue
        against, first = (used.method(method.name) for method in methods if method is not None)
        difference = gap_difference(against, first)
        if difference is None:
            verdicts.append(replace(blank, why="no seed in common"))
            continue
        verdicts.append(with_difference(replace(blank, rival=rival), difference))
    return decided(verdicts, claims.alpha, claims.margin)


def compare_controls(comparison: Comparison, used: ShortcutComparison) -> tuple[PairedDifference, ...]:
    """How much smaller the gap is with a random mask, or with an empty one: exploratory, no claim is about it.

    Args:
        comparison: the runs.
        used: the same runs on the four test sets.

    Returns:
        The gap of ``first`` less that of the control ``second``, with Holm's correction over all of them: a random mask
        against the mask of the same method and against the same training without the masked term, and the latter
        against an empty mask.
    """

    pairs = []
    for control in comparison.methods:
        config = control.runs[0].config
        if config.method not in _UNMASKED or not (config.rank == "random" or config.k == 0):
            continue
        attack = {"attack": config.attack} if config.method == "asgt" else {}
        rivals = [named(comparison, {"method": _UNMASKED[config.method]} | attack)]
        if config.k:
            rivals.insert(0, named(comparison, {"method": config.method, "k": config.k, "rank": "magnitude"} | attack))
        own = used.method(control.name)
        pairs += [gap_difference(used.method(rival.name), own) for rival in rivals if rival is not None]
    return adjusted_by_kind([pair for pair in pairs if pair is not None])


_UNMASKED = {"sgt": "st", "asgt": "at"}
"""By method, the same training without the masked term."""


def closed_share(comparison: Comparison, used: ShortcutComparison, claims: ShortcutClaims) -> float | None:
    """The share of the gap of ST that RRR, which is told where the shortcut lies, does not have.

    ``None`` where one of them was not run, or ST has no gap.
    """

    methods = [named(comparison, claims.methods[name]) for name in ("ST", "RRR")]
    gaps = [used.method(method.name).gap().value for method in methods if method is not None]
    return None if len(gaps) < 2 or gaps[0] <= 0 else 1 - gaps[1] / gaps[0]
