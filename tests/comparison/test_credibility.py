"""What the checks of several runs say together: in the comparison, in the terminal, and on a finished evaluation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from asgt.cli.console import Console
from asgt.comparison.comparing import Comparison
from asgt.comparison.credibility import Tally, credibility_of
from asgt.comparison.method_naming import Method
from asgt.comparison.summary import summarise
from asgt.evaluation.check import Check, CheckStatus
from asgt.evaluation.protocols import KNOWN, PROTOCOLS
from asgt.report.sections.findings_section import what_runs
from support.comparisons import hand_made, side_by_side

EPS = 0.1


def method(name: str, *runs: tuple[Check, ...]) -> Method:
    """A method whose run of each seed holds these checks, under ``paper`` and under ``pgd``."""

    right = {search.name: {EPS: 50} for name in ("paper", "pgd") for search in PROTOCOLS[name].searches}
    made = (hand_made(seed=seed, method="at", right=right, checks=checks) for seed, checks in enumerate(runs))
    return Method(name, tuple(made))


def under(*methods: Method, protocols: tuple[str, ...] = ("pgd",), eps: float = EPS) -> Comparison:
    return side_by_side(*methods, epsilons=dict.fromkeys(protocols, (eps,)))


def check(name: str, verdict: CheckStatus, evidence: str = "seen", remedy: str = "mend it", *samples: int) -> Check:
    return Check(name, verdict, evidence, "" if verdict == "PASS" else remedy, samples)


def one(name: str, verdict: CheckStatus) -> tuple[Check, ...]:
    return (check(name, verdict),)


# --- verdicts of several runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdicts", "worst", "text", "marks"),
    [
        (("PASS",), "PASS", "PASS", "✓"),
        (("PASS", "PASS", "PASS"), "PASS", "PASS", "✓"),
        (("FAIL",), "FAIL", "FAIL", "✗"),
        (("FAIL", "PASS", "FAIL"), "FAIL", "FAIL 2/3", "✗ 2/3"),
        (("WARN", "WARN", "WARN"), "WARN", "WARN 3/3", "! 3/3"),
        (("PASS", "WARN", "FAIL"), "FAIL", "FAIL 1/3, WARN 1/3", "✗ 1/3, ! 1/3"),
        # What was not checked does not hide behind what was.
        (("PASS", "NOT RUN", "PASS"), "NOT RUN", "NOT RUN 1/3", "– 1/3"),
        (("NOT RUN", "FAIL", "NOT RUN"), "FAIL", "FAIL 1/3, NOT RUN 2/3", "✗ 1/3, – 2/3"),
        (("NOT RUN", "NOT RUN"), "NOT RUN", "NOT RUN", "–"),
    ],
)
def test_the_worst_run_speaks_for_a_method(
    verdicts: tuple[CheckStatus, ...], worst: str, text: str, marks: str
) -> None:
    tally = Tally(verdicts, "")
    assert (tally.worst, tally.text(), tally.marks()) == (worst, text, marks)

    (found,) = credibility_of(under(method("A", *(one("noise", verdict) for verdict in verdicts))))
    ((name, (cell,)),) = found.rows
    assert (name, cell.verdicts) == ("noise", verdicts)


def test_rows_are_the_checks_in_their_order_and_a_run_without_one_was_not_checked() -> None:
    whole = (check("reach", "PASS"), check("noise", "PASS"), check("clean", "PASS"))
    (found,) = credibility_of(under(method("A", whole, (whole[0], whole[2])), method("B", whole)))
    assert [name for name, _ in found.rows] == ["reach", "noise", "clean"]
    assert [[cell.text() for cell in row] for _, row in found.rows] == [
        ["PASS", "PASS"],
        ["NOT RUN 1/2", "PASS"],
        ["PASS", "PASS"],
    ]
    (unrun,) = found.unrun
    assert (unrun.name, unrun.who()) == ("noise", "A 1/2")
    assert "--resume" in unrun.remedy
    assert found.summary() == "no failure detected in 3 runs. 2 to 3 of 3 checks were made in each run"


def test_a_finding_is_of_the_first_such_run_and_counts_the_others() -> None:
    first = method(
        "A",
        one("noise", "PASS"),
        (check("noise", "FAIL", "broke 3", "look", 4, 9),),
        (check("noise", "FAIL", "more", "look"),),
    )
    second = method("B", (check("noise", "FAIL", "broke 3", "look", 4, 9),))
    third = method("C", (check("noise", "FAIL", "broke 5", "look"),), one("noise", "NOT RUN"))
    (found,) = credibility_of(under(first, second, third))

    (finding,) = found.findings
    assert found.failed == (finding,)
    assert (finding.verdict, finding.name, finding.remedy, finding.runs) == ("FAIL", "noise", "look", 4)
    assert finding.who() == "A 2/3, B, C 1/2"
    assert [(evidence, [share.where() for share in shares]) for evidence, shares in finding.evidence()] == [
        ("broke 3", ["A, seed 1, samples no. 4, 9", "B, seed 0, samples no. 4, 9"]),
        ("broke 5", ["C, seed 0"]),
    ]
    ((_, (cell, _, _)),) = found.rows
    assert cell.said == "seed 1: broke 3"


def test_failures_stand_before_warnings_and_each_remedy_by_itself() -> None:
    checks = (check("a", "WARN"), check("b", "FAIL", "x", "this"), check("c", "FAIL"))
    others = (check("a", "WARN"), check("b", "FAIL", "y", "that"), check("c", "FAIL"))
    (found,) = credibility_of(under(method("A", checks), method("B", others)))
    assert [(finding.verdict, finding.name, finding.remedy, finding.who()) for finding in found.findings] == [
        ("FAIL", "b", "this", "A"),
        ("FAIL", "b", "that", "B"),
        ("FAIL", "c", "mend it", "all 2 runs"),
        ("WARN", "a", "mend it", "all 2 runs"),
    ]
    counts = "2 checks fail in 2 of 2 runs, and 1 check warns in 2 of 2 runs"
    assert found.summary() == f"{counts}. 3 of 3 checks were made in each run"


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        (("PASS", "PASS", "NOT RUN"), "no failure detected in 1 run. 2 of 3 checks were made in each run"),
        (
            ("WARN", "PASS"),
            "no failure detected in 1 run, but 1 check warns in 1 of 1 run. 2 of 2 checks were made in each run",
        ),
        (("FAIL", "NOT RUN"), "1 check fails in 1 of 1 run. 1 of 2 checks was made in each run"),
        (("NOT RUN",), "no check was run in 1 run"),
        ((), "no check was run in 1 run"),
    ],
)
def test_the_summary_never_says_that_nothing_is_hidden(checks: tuple[CheckStatus, ...], said: str) -> None:
    run = tuple(check(f"check {number}", verdict) for number, verdict in enumerate(checks))
    (found,) = credibility_of(under(method("A", run)))
    assert found.summary() == said


def test_worst_cases_stand_first_and_what_constant_steps_cannot_cross_is_expected() -> None:
    # Ten steps of 2/255 cross 20/255 from the image itself, and from a random start 10/255: of them here
    # stand three attacks, and three whose steps follow ε.
    pgd, paper = credibility_of(under(method("A", one("reach", "FAIL")), protocols=("paper", "pgd")))
    assert (pgd.protocol.name, paper.protocol.name) == ("pgd", "paper")
    assert pgd.expected == ""
    assert "3 of its 6 attacks can cross at most ε = 10/255 or 20/255" in paper.expected
    assert "not a robustness claim" in paper.expected

    (between,) = credibility_of(under(method("A", one("reach", "FAIL")), protocols=("paper",), eps=15 / 255))
    assert "1 of its 6 attacks can cross at most ε = 10/255" in between.expected
    (near,) = credibility_of(under(method("A", one("reach", "FAIL")), protocols=("paper",), eps=9 / 255))
    assert near.expected == "", "all of them cross so small a ball"


# --- in the terminal ---------------------------------------------------------------------------------------------


def said_of(capsys: pytest.CaptureFixture[str], comparison: Comparison) -> list[str]:
    """The lines of the terminal on the checks."""

    Console().compared(summarise(comparison), Path("page"))
    _, _, after = capsys.readouterr().out.partition("checks of these numbers\n")
    return [line.strip() for line in after.partition("\n\n")[0].splitlines() if not line.startswith("report:")]


def test_the_terminal_has_one_line_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    checks = (check("a", "PASS"), check("b", "NOT RUN"))
    assert said_of(capsys, under(method("A", checks, checks), method("B", checks))) == [
        "pgd v3: no failure detected in 3 runs. 1 of 2 checks was made in each run"
    ]


def test_the_terminal_tells_what_failed_over_all_methods(capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = (check("[a]", "FAIL", "seen", "[look]"), check("b", "WARN")), (check("[a]", "PASS"), check("b", "PASS"))
    assert said_of(capsys, under(method("A", bad, good), method("B", bad))) == [
        "pgd v3: 1 check fails in 2 of 3 runs, and 1 check warns in 2 of 3 runs. 2 of 2 checks were made in each run",
        "FAIL [a]: A 1/2, B; [look]",
        "WARN b: A 1/2, B; mend it",
    ]


def test_the_terminal_tells_ten_and_counts_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    checks = tuple(check(f"check {number}", "WARN") for number in range(7))
    lines = said_of(capsys, under(method("A", checks), protocols=("paper", "pgd")))
    assert [line.startswith("WARN") for line in lines] == [False, *[True] * 7, *[False] * 3, *[True] * 3, False]
    assert lines[-1] == "and 4 more on the page"


# --- a finished evaluation, checked again ------------------------------------------------------------------------


def thorough(run: Path, protocol: str) -> dict[str, str]:
    result = json.loads((run / "evaluation" / protocol / "result.json").read_text())
    return {check["name"]: check["verdict"] for check in result["checks"]}


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["pgd", "paper"])
def test_a_finished_evaluation_is_checked_thoroughly_without_being_asked_its_settings_again(
    cli: Callable, finished_run: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    asked = ("evaluate", finished_run, "--protocol", protocol)
    done = cli(*asked, "--samples", 30, "--epsilons", "0.03,0.06", "--seed", 3)
    assert done.status == 0, done.err
    before = {path: path.read_bytes() for path in (finished_run / "evaluation").rglob("*.safetensors")}
    assert thorough(finished_run, protocol)["square"] == "NOT RUN"

    # The evidence is taken up: nothing is searched for again.
    monkeypatch.setattr("asgt.evaluation.evaluator.write_shard", None)
    again = cli(*asked, "--resume", "--thorough")
    assert again.status == 0, again.err
    assert {path: path.read_bytes() for path in (finished_run / "evaluation").rglob("*.safetensors")} == before
    after = thorough(finished_run, protocol)
    assert "NOT RUN" not in (after["square"], after["doubled effort"])

    # What was looked at thoroughly stays so.
    assert cli(*asked, "--resume").status == 0
    assert thorough(finished_run, protocol) == after


@pytest.mark.slow
def test_another_grid_than_that_of_a_finished_evaluation_is_refused(cli: Callable, finished_run: Path) -> None:
    asked = ("evaluate", finished_run, "--protocol", "paper")
    assert cli(*asked, "--samples", 30, "--epsilons", "0.03").status == 0
    assert "other settings" in cli(*asked, "--resume", "--epsilons", "0.04").failure()
    assert "other images" in cli(*asked, "--resume", "--samples", "20").failure()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["[]", "{}", '{"attacks": {}}', '{"attacks": {"fgsm": [{"eps": "x"}]}}'])
def test_a_damaged_result_is_not_written_over(cli: Callable, finished_run: Path, damage: str) -> None:
    asked = ("evaluate", finished_run, "--protocol", "paper")
    assert cli(*asked, "--samples", 30, "--epsilons", "0.03").status == 0
    path = finished_run / "evaluation/paper/result.json"
    path.write_text(damage)
    assert str(path) in cli(*asked, "--resume").failure()
    assert path.read_text() == damage


# --- what a protocol runs, in the page's words -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "classes", "said", "unsaid"),
    [
        ("paper", 10, ["MI-FGSM-10, α = 2.5ε/10. Each starts from scratch at every ε", "final iterate"], ["margin"]),
        (
            "pgd",
            10,
            ["The worst case over PGD-40 × 5 (α = 2.5ε/40, random starts), and over a search"],
            ["APGD", "adapted"],
        ),
        (
            "standard@1",
            10,
            ["PGD-40 × 5", "APGD-CE (100 steps)", "(100 steps on each of 9 targets)", "Square (5,000 queries)"],
            ["adapted", "not deterministic"],
        ),
        ("standard@1", 3, ["(100 steps on each of 2 targets)", "adapted to 3 classes"], ["9 targets"]),
        ("autoattack", 10, ["AutoAttack (its authors' package, whole"], ["adapted", "APGD-CE"]),
        ("autoattack", 2, ["adapted to 2 classes, so they differ from their authors' versions"], []),
    ],
)
def test_a_page_says_what_each_protocol_runs(protocol: str, classes: int, said: list[str], unsaid: list[str]) -> None:
    definition = KNOWN[protocol]
    run = hand_made(method="at", right={search.name: {EPS: 50} for search in definition.searches})
    found = replace(run.evaluations[protocol], classes=classes)
    first = Method("A", (replace(run, evaluations={protocol: found}),))
    words = what_runs(under(first, protocols=(protocol,)), definition)
    assert [part for part in said if part not in words] == []
    assert [part for part in unsaid if part in words] == []
    assert words.endswith("ε: 0.1")
    assert ("a clean error counts as an error" in words) == definition.worst_case

    wavering = Method("B", (replace(run, evaluations={protocol: replace(found, votes=9)}),))
    words = what_runs(under(first, wavering, protocols=(protocol,)), definition)
    assert (
        "1 of 2 models are not deterministic: each of their predictions is the majority of 9 passes" in words
    ) == definition.worst_case
