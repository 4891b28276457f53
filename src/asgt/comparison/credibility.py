"""The checks of the evaluations of a comparison, over the runs of each method.

A check tests one reason why an attack may fail (:mod:`asgt.evaluation.checks`). A method has the verdict of its
worst run; a run that was not checked is worse than one that passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..evaluation.check import WORST_FIRST, Check, CheckStatus
from ..evaluation.protocols import Protocol
from ..numbers import counted, eps_text
from ..runs.run import Run
from .comparing import Comparison
from .method_naming import Method

__all__ = ["Credibility", "Finding", "Share", "Tally", "credibility_of"]

_MARKS: dict[CheckStatus, str] = {"FAIL": "✗", "WARN": "!", "NOT RUN": "–", "PASS": "✓"}
_UNASKED = ("the evaluation does not contain this check", "asgt evaluate RUN --resume runs it on the stored outcomes")


@dataclass(frozen=True)
class Tally:
    """The verdicts of a check in the runs of a method.

    Attributes:
        verdicts: one for each run, by seed; ``"NOT RUN"`` for a run without this check.
        said: the evidence of the first run with the worst verdict, after its seed.
    """

    verdicts: tuple[CheckStatus, ...]
    said: str

    @property
    def worst(self) -> CheckStatus:
        """The worst verdict; ``"PASS"`` only if every run was checked and passed."""

        return min(self.verdicts, key=WORST_FIRST.index)

    def counts(self) -> dict[CheckStatus, int]:
        """The number of runs with each occurring verdict, the worst first."""

        return {verdict: n for verdict in WORST_FIRST if (n := self.verdicts.count(verdict))}

    def text(self) -> str:
        """``PASS``; ``FAIL 2/3``, if one of three runs passed; ``FAIL 1/3, NOT RUN 2/3``."""

        counts = self.counts()
        if len(counts) == 1 and (len(self.verdicts) == 1 or self.worst in ("PASS", "NOT RUN")):
            return self.worst
        return ", ".join(f"{verdict} {n}/{len(self.verdicts)}" for verdict, n in counts.items() if verdict != "PASS")

    def marks(self) -> str:
        """The same as symbols, for a narrow column: ``✗ 1/3, – 2/3``."""

        text = self.text()
        for verdict, mark in _MARKS.items():
            text = text.replace(verdict, mark)
        return text


@dataclass(frozen=True)
class Share:
    """The runs of a method with the same verdict of a check.

    Attributes:
        method: the method.
        runs: the number of these runs.
        first: the first of them, by seed.
        check: the result of the check on that run.
    """

    method: Method
    runs: int
    first: Run
    check: Check

    def text(self) -> str:
        """``ST 2/3``: in two of three runs; ``ST``, if it has only one."""

        total = len(self.method.runs)
        return self.method.name if total == 1 else f"{self.method.name} {self.runs}/{total}"

    def where(self) -> str:
        """The run of the evidence, and the affected images."""

        samples = f", samples no. {', '.join(map(str, self.check.samples))}" if self.check.samples else ""
        return f"{self.method.name}, seed {self.first.seed}{samples}"


@dataclass(frozen=True)
class Finding:
    """A check that did not pass, in all the methods that it did not pass in.

    Attributes:
        verdict: the verdict.
        name: the check.
        remedy: its remedy.
        shares: the runs with this verdict, by method.
        everywhere: whether these are all runs of the comparison.
    """

    verdict: CheckStatus
    name: str
    remedy: str
    shares: tuple[Share, ...]
    everywhere: bool

    @property
    def runs(self) -> int:
        return sum(share.runs for share in self.shares)

    def who(self) -> str:
        """``ST 2/3, SGT 1/3``; where these are all, ``all 21 runs``."""

        if not self.everywhere:
            return ", ".join(share.text() for share in self.shares)
        return f"all {self.runs} runs" if self.runs > 1 else self.shares[0].text()

    def evidence(self) -> tuple[tuple[str, tuple[Share, ...]], ...]:
        """The evidence, each sentence once, with the shares whose first run has it."""

        said: dict[str, list[Share]] = {}
        for share in self.shares:
            said.setdefault(share.check.evidence, []).append(share)
        return tuple((evidence, tuple(shares)) for evidence, shares in said.items())


@dataclass(frozen=True)
class Credibility:
    """The results of the checks of all evaluations by one protocol.

    Attributes:
        protocol: its definition.
        methods: the columns of ``rows``.
        rows: by check, in the order of the checks, a tally for each method.
        findings: the checks that failed, then those that warned.
        unrun: those that were not run.
        expected: why a FAIL of budget reach is expected here; empty if it is not.
    """

    protocol: Protocol
    methods: tuple[Method, ...]
    rows: tuple[tuple[str, tuple[Tally, ...]], ...]
    findings: tuple[Finding, ...]
    unrun: tuple[Finding, ...]
    expected: str

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.verdict == "FAIL")

    def summary(self) -> str:
        """All checks of all runs in two sentences: how many failed and warned, in how many runs; how many were run.

        Without the last full stop, and with a lower-case start, so that it can follow the name of the protocol.
        """

        runs = sum(len(method.runs) for method in self.methods)
        by_run = [
            [row[number].verdicts[place] for _, row in self.rows]
            for number, method in enumerate(self.methods)
            for place in range(len(method.runs))
        ]
        ran = [sum(verdict != "NOT RUN" for verdict in verdicts) for verdicts in by_run]
        if not any(ran):
            return f"no check was run in {counted(runs, 'run')}"

        counts = []
        for verdict, one, several in (("FAIL", "fails", "fail"), ("WARN", "warns", "warn")):
            checks = len({finding.name for finding in self.findings if finding.verdict == verdict})
            if checks:
                where = f"{sum(verdict in verdicts for verdicts in by_run)} of {counted(runs, 'run')}"
                counts.append(f"{counted(checks, 'check')} {one if checks == 1 else several} in {where}")
        ended = ", and ".join(counts)
        if not self.failed:
            ended = f"no failure detected in {counted(runs, 'run')}" + (f", but {ended}" if counts else "")
        made = f"{_range(ran)} of {counted(len(self.rows), 'check')} {'was' if max(ran) == 1 else 'were'} made"
        return f"{ended}. {made} in each run"


def credibility_of(comparison: Comparison) -> tuple[Credibility, ...]:
    """The results of the checks of a comparison, by protocol; worst cases, the basis of robustness claims, come
    first.
    """

    names = sorted(comparison.epsilons, key=lambda name: not comparison.protocols[name].worst_case)
    return tuple(_of(comparison, name) for name in names)


def _of(comparison: Comparison, name: str) -> Credibility:
    methods = comparison.methods
    asked = dict.fromkeys(
        check.name for method in methods for run in method.runs for check in run.evaluations[name].checks
    )
    by_method = {
        (check, method.name): [(run, _check(run, name, check)) for run in method.runs]
        for check in asked
        for method in methods
    }
    rows = tuple((check, tuple(_tally(by_method[check, method.name]) for method in methods)) for check in asked)
    protocol = comparison.protocols[name]
    ended: dict[CheckStatus, tuple[Finding, ...]] = {
        verdict: tuple(
            finding
            for check in asked
            for finding in _findings(verdict, check, [(method, by_method[check, method.name]) for method in methods])
        )
        for verdict in WORST_FIRST
    }
    return Credibility(
        protocol=protocol,
        methods=methods,
        rows=rows,
        findings=ended["FAIL"] + ended["WARN"],
        unrun=ended["NOT RUN"],
        expected=_expected(protocol, comparison.epsilons[name][-1]),
    )


def _check(run: Run, protocol: str, name: str) -> Check:
    held = (check for check in run.evaluations[protocol].checks if check.name == name)
    return next(held, Check(name, "NOT RUN", *_UNASKED))


def _tally(checks: Sequence[tuple[Run, Check]]) -> Tally:
    run, check = min(checks, key=lambda pair: WORST_FIRST.index(pair[1].verdict))
    return Tally(tuple(check.verdict for _, check in checks), f"seed {run.seed}: {check.evidence}")


def _findings(
    verdict: CheckStatus, name: str, by_method: Sequence[tuple[Method, Sequence[tuple[Run, Check]]]]
) -> Iterable[Finding]:
    """What a check found in some methods, once for each remedy that it names."""

    remedies: dict[str, list[Share]] = {}
    for method, checks in by_method:
        ended = [(run, check) for run, check in checks if check.verdict == verdict]
        for remedy in dict.fromkeys(check.remedy for _, check in ended):
            alike = [(run, check) for run, check in ended if check.remedy == remedy]
            remedies.setdefault(remedy, []).append(Share(method, len(alike), *alike[0]))
    total = sum(len(method.runs) for method, _ in by_method)
    for remedy, shares in remedies.items():
        yield Finding(verdict, name, remedy, tuple(shares), sum(share.runs for share in shares) == total)


def _expected(protocol: Protocol, largest: float) -> str:
    reaches = [search.reach for search in protocol.searches if search.reach is not None and search.reach < largest]
    if protocol.worst_case or not reaches:
        return ""
    across = " or ".join(eps_text(reach) for reach in sorted(set(reaches)))
    return (
        f"a FAIL of budget reach is expected here: the constant steps of {len(reaches)} of its "
        f"{len(protocol.searches)} attacks can cross at most ε = {across}. Protocol {protocol.name} "
        f"v{protocol.version} "
        f"repeats the numbers of papers, and is {protocol.claim}"
    )


def _range(counts: Sequence[int]) -> str:
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
