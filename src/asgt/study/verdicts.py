"""Verdicts: each claim as a hypothesis, and what the runs say of it; here those of the paper.

A claim says that one method is more robust than another, under an attack at an ε. The test is Student's t on the
differences of their accuracies, one per seed: a claim *holds* if its p, by Holm's correction over the claims on that
data set, is below α and the interval lies above zero; it *does not hold* if the interval lies below; else it is *not
decided at this scale*, as it is with a single seed. The paper does not specify the attacks' steps, so each claim is
tested in several readings, and Holm's correction goes over the claims of each.

A claim with several rivals or attacks is about every pair. It holds only if the least certain of them does: no
correction is needed for that, since all must be decided. It fails with the first that fails, so the smallest p among
the differences below zero is multiplied by the number of pairs.

The claims are in ``claims.yaml``, fixed before the runs. No verdict is written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isclose
from pathlib import Path
from typing import Any, Literal, TypeAlias

from torch import Tensor

from ..comparison.comparable import listed
from ..comparison.comparing import Column, Comparison
from ..comparison.differences import over_seeds
from ..comparison.method_naming import Method
from ..errors import DamagedFileError
from ..explanation import Panel, measure_named, panel
from ..files import read_yaml
from ..numbers import eps_text, number, points
from ..statistics import PairedDifference, holm

__all__ = [
    "CLAIMS",
    "GAP",
    "Claim",
    "Claims",
    "Reading",
    "State",
    "Verdict",
    "claim_of",
    "column_of",
    "decided",
    "judge",
    "judge_maps",
    "load_claims",
    "named",
    "refuse_strange",
    "with_difference",
]

CLAIMS = Path(__file__).parent / "claims.yaml"
WORST_CASE = "worst case"
_MAPS_BY = "gradient"

GAP = "gap"
"""The measure of a claim about a planted shortcut (:mod:`asgt.study.shortcut_study`)."""

State: TypeAlias = Literal["holds", "does not hold", "no relevant difference", "not decided at this scale", "not run"]


@dataclass(frozen=True)
class Reading:
    """An interpretation of the paper's attacks.

    Attributes:
        name: its name on the page.
        protocol: the key of the protocol, or ``"worst case"``: the strictest one of all runs.
        attacks: the search for each attack of the paper; empty for a worst case, which is used for all.
    """

    name: str
    protocol: str
    attacks: Mapping[str, str]


@dataclass(frozen=True)
class Claim:
    """A hypothesis: ``first`` is above each of ``against``, or, in what is better when it is less, below.

    Attributes:
        id: unique, as ``"M1"``.
        data: the data set.
        place: where the paper says so, or the question of the claim.
        first: a method, by its name in the claims' file.
        against: its rivals.
        attacks: under each of these; empty for a claim about maps.
        eps: at this ε; 0 for a claim about maps.
        gain: the difference that the paper states, in points; ``None`` where it states none.
        measure: of the panel, for a claim about maps; :data:`GAP` for one about a shortcut.
    """

    id: str
    data: str
    place: str
    first: str
    against: tuple[str, ...]
    attacks: tuple[str, ...] = ()
    eps: float = 0.0
    gain: float | None = None
    measure: str = ""

    def text(self) -> str:
        """The claim as text."""

        rivals = listed(self.against)
        if self.measure == GAP:
            return f"the gap of {self.first} is smaller than that of {rivals}"
        if self.measure:
            return f"the maps of {self.first} are better than those of {rivals}, by {measure_named(self.measure).title}"
        return f"{self.first} is more robust than {rivals} under {listed(self.attacks)} at ε = {eps_text(self.eps)}"


@dataclass(frozen=True)
class Claims:
    """The content of the claims' file."""

    version: int
    alpha: float
    readings: tuple[Reading, ...]
    methods: Mapping[str, Mapping[str, Mapping[str, Any]]]
    paper: tuple[Claim, ...]
    maps: tuple[Claim, ...]
    beyond: tuple[Claim, ...]


@dataclass(frozen=True)
class Verdict:
    """The result of a claim in a reading.

    Attributes:
        claim: the claim.
        reading: the name of the reading.
        state: the verdict.
        why: the reason, if it was not run or could not be decided; else ``""``.
        column: the attack of the deciding pair.
        rival: the rival of the deciding pair.
        mean: the difference, its mean over seeds, in [-1, 1]; ``None`` if it was not run.
        low: the lower end of its 95 % interval, t over seeds, not adjusted; ``None`` for a single seed.
        high: the upper end.
        p: two-sided, not adjusted for the other claims; 1 if nothing could be tested.
        adjusted: p by Holm's correction over ``claims``.
        claims: the number of corrected claims.
        seeds: the paired seeds.
        samples: the test images.
    """

    claim: Claim
    reading: str
    state: State
    why: str = ""
    column: Column | None = None
    rival: str = ""
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    p: float = 1.0
    adjusted: float = 1.0
    claims: int = 1
    seeds: tuple[int, ...] = ()
    samples: int = 0

    def difference(self) -> str:
        """``+32.1 [28.0, 36.2]`` in points; without an interval for a single seed; ``–`` if there is none."""

        if self.mean is None:
            return "–"
        if self.low is None or self.high is None:
            return points(self.mean, "+")
        return f"{points(self.mean, '+')} [{points(self.low)}, {points(self.high)}]"


def load_claims(path: Path = CLAIMS) -> Claims:
    """Reads a file of claims.

    Raises:
        InputError: the file does not exist.
        DamagedFileError: it is not a file of claims, two of them have one id, or one uses an undefined name.
    """

    values = read_yaml(path)
    try:
        readings = tuple(Reading(**reading) for reading in values["readings"])
        groups = {name: tuple(claim_of(claim) for claim in values[name]) for name in ("paper", "maps", "beyond")}
        read = Claims(values["version"], float(values["alpha"]), readings, values["methods"], **groups)
        refuse_strange([claim for group in groups.values() for claim in group], read.methods, path)
    except (LookupError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not a file of claims") from error
    return read


def refuse_strange(claims: Sequence[Claim], methods: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Refuses claims of which two have one id, or one names a method that the file does not.

    Args:
        claims: all of the file.
        methods: the settings of each method by its name, by data set.
        path: the file.

    Raises:
        DamagedFileError: it says which.
    """

    if len({claim.id for claim in claims}) < len(claims):
        raise DamagedFileError(f"{path} is damaged: two claims have the same id")
    for claim in claims:
        if strange := {claim.first, *claim.against} - set(methods[claim.data]):
            raise DamagedFileError(f"{path} is damaged: claim {claim.id} names {min(strange)}, which it does not")


def judge(comparison: Comparison, claims: Claims, group: Sequence[Claim]) -> list[Verdict]:
    """Tests the claims of a group on the data of a comparison, in each reading.

    Args:
        comparison: the runs.
        claims: the claims' file.
        group: ``paper`` or ``beyond``; claims on other data are omitted.

    Returns:
        A verdict for each reading and claim, in the order of the group.
    """

    mine = [claim for claim in group if claim.data == comparison.data]
    verdicts: list[Verdict] = []
    for reading in claims.readings:
        tested = [_tested(comparison, claims.methods[claim.data], claim, reading) for claim in mine]
        verdicts += decided(tested, claims.alpha)
    return verdicts


def judge_maps(comparison: Comparison, claims: Claims) -> list[Verdict]:
    """Tests the claims about maps with the panel of the runs' explanations by the plain gradient.

    The panel uses the images that all models of these methods classify correctly.
    """

    mine = [claim for claim in claims.maps if claim.data == comparison.data]
    settings = claims.methods[comparison.data] if mine else {}
    names = dict.fromkeys(name for claim in mine for name in (*claim.against, claim.first))
    methods = {name: named(comparison, settings[name]) for name in names}
    explained = {
        name: method
        for name, method in methods.items()
        if method is not None and all(_MAPS_BY in run.explanations for run in method.runs)
    }
    measured = None
    if explained:
        measured = panel(
            {name: [run.explanations[_MAPS_BY] for run in method.runs] for name, method in explained.items()},
            seeds={name: [run.seed for run in method.runs] for name, method in explained.items()},
        )
    return decided([_measured(Verdict(claim, "panel", "not run"), measured) for claim in mine], claims.alpha)


def decided(verdicts: Sequence[Verdict], alpha: float, margin: float = 0.0) -> list[Verdict]:
    """Verdicts of one table, each with its p adjusted by Holm's correction over all of them, and its state.

    Args:
        verdicts: with the difference, its interval and p, where the runs give them.
        alpha: an adjusted p below it decides, if the interval excludes zero.
        margin: a difference whose whole interval lies within ± this is *no relevant difference*, whatever its p; 0
            names none so.
    """

    adjusted = holm([verdict.p for verdict in verdicts])
    return [
        _decided(replace(verdict, adjusted=p, claims=len(verdicts)), alpha, margin)
        for verdict, p in zip(verdicts, adjusted, strict=True)
    ]


def _measured(blank: Verdict, measured: Panel | None) -> Verdict:
    """The difference of a claim's maps by its measure."""

    (rival,) = blank.claim.against
    lacking = [name for name in (blank.claim.first, rival) if measured is None or name not in measured.methods]
    if lacking or measured is None:
        return replace(blank, why=f"no explanations of {listed(lacking)}")
    value = measured.value(blank.claim.first, blank.claim.measure)
    if value.not_run:
        return replace(blank, why=value.not_run)

    pair = {blank.claim.first, rival}
    differences = measured.differences(blank.claim.measure)
    difference = next((each for each in differences if {each.first, each.second} == pair), None)
    if difference is None:
        return replace(blank, why="no seed in common")
    difference = difference if difference.first == blank.claim.first else difference.turned()
    return with_difference(replace(blank, rival=rival), difference)


def with_difference(blank: Verdict, difference: PairedDifference) -> Verdict:
    """A verdict with a difference of its two methods, not yet decided; one of a single seed cannot be."""

    verdict = replace(blank, mean=difference.value, seeds=difference.seeds, samples=difference.n)
    if difference.kind == "models":
        return replace(verdict, state="not decided at this scale", why="one seed")
    return replace(verdict, low=difference.low, high=difference.high, p=difference.p)


def named(comparison: Comparison, settings: Mapping[str, Any]) -> Method | None:
    """The only method with these settings; ``None`` if there is none, or there are several."""

    fitting = [
        method
        for method in comparison.methods
        if all(getattr(method.runs[0].config, name) == value for name, value in settings.items())
    ]
    return fitting[0] if len(fitting) == 1 else None


def column_of(comparison: Comparison, reading: Reading, attack: str) -> Column | None:
    """The column of an attack of the paper in a reading, if the runs were evaluated with it."""

    if reading.protocol == WORST_CASE:
        judge = comparison.judges()[-1]
        return judge if comparison.protocols[judge.key].worst_case else None
    wanted = (reading.protocol, reading.attacks[attack])
    return next((column for column in comparison.columns if (column.key, column.attack) == wanted), None)


def _tested(
    comparison: Comparison, methods: Mapping[str, Mapping[str, Any]], claim: Claim, reading: Reading
) -> Verdict:
    """The differences of a claim's pairs, brought to the one that decides, with its p."""

    blank = Verdict(claim, reading.name, "not run")
    columns = [column_of(comparison, reading, attack) for attack in claim.attacks]
    pairs = []
    for rival in claim.against:
        first, second = (named(comparison, methods[name]) for name in (claim.first, rival))
        if first is None or second is None:
            return replace(blank, why=f"no runs of {claim.first if first is None else rival}")
        # In a worst case all attacks are one.
        for column in dict.fromkeys(columns):
            if column is None:
                return replace(blank, why=f"no evaluation by protocol {reading.protocol}")
            eps = next((eps for eps in comparison.epsilons[column.key] if isclose(eps, claim.eps)), None)
            if eps is None:
                return replace(blank, why=f"not evaluated at ε = {eps_text(claim.eps)}")
            pairs.append(_pair(comparison, replace(blank, column=column, rival=rival), first, second, eps))

    if short := next((pair for pair in pairs if len(pair.seeds) < 2), None):
        state: State = "not decided at this scale" if short.seeds else "not run"
        return replace(short, state=state, why="one seed" if short.seeds else "no seed in common")
    if all(pair.mean is not None and pair.mean > 0 for pair in pairs):
        return max(pairs, key=lambda pair: pair.p)
    worst = min((pair for pair in pairs if pair.mean is not None and pair.mean <= 0), key=lambda pair: pair.p)
    return replace(worst, p=min(1.0, len(pairs) * worst.p))


def _pair(comparison: Comparison, blank: Verdict, first: Method, second: Method, eps: float) -> Verdict:
    """The difference of two methods over the seeds that both have."""

    of_first, of_second = ({run.seed: run for run in method.runs} for method in (first, second))
    seeds = tuple(sorted(of_first.keys() & of_second.keys()))
    right: list[tuple[Tensor, Tensor]] = [
        (comparison.right(of_first[seed], blank.column, eps), comparison.right(of_second[seed], blank.column, eps))
        for seed in seeds
    ]
    verdict = replace(blank, seeds=seeds, samples=comparison.samples_of(blank.column))
    if len(right) > 1:
        mean, low, high, p = over_seeds(right)
        return replace(verdict, mean=mean, low=low, high=high, p=p)
    if right:
        (here, there) = right[0]
        return replace(verdict, mean=(int(here.sum()) - int(there.sum())) / len(here))
    return verdict


def _decided(verdict: Verdict, alpha: float, margin: float) -> Verdict:
    if verdict.low is None or verdict.high is None:
        return verdict
    state: State = "not decided at this scale"
    if -margin < verdict.low and verdict.high < margin:
        state = "no relevant difference"
    elif verdict.adjusted < alpha and verdict.low > 0:
        state = "holds"
    elif verdict.adjusted < alpha and verdict.high < 0:
        state = "does not hold"
    return replace(verdict, state=state)


def claim_of(values: Mapping[str, Any]) -> Claim:
    """A claim from its line in a file.

    Raises:
        TypeError: the line has another form.
    """

    lists = {name: tuple(values.get(name, ())) for name in ("against", "attacks")}
    return Claim(**{**values, **lists, "eps": number(values.get("eps", 0.0), "eps")})
