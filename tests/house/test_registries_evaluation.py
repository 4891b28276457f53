"""A registered attack, check and section of the page show up everywhere, each by one record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import asgt
from asgt.attacks import Attack, State
from asgt.attacks.attack import steepest
from asgt.evaluation import checks
from asgt.evaluation.check import Check
from asgt.evaluation.second_look import SecondLook
from asgt.report import page
from asgt.report.section import PageRequest, Section
from asgt.training.method_registry import ATTACKS, Part
from support.messages import assert_states


@dataclass(frozen=True)
class Nudge(Attack):
    """Equal steps that together have the length ε.

    Args:
        stride: how long each step is, as a share of ε.
    """

    steps: int = 2
    stride: float = 0.5

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        return self.moved(state.judged(logits), steepest(gradient, self.norm), self.stride * state.eps)


def doubtful(look: SecondLook) -> Check:
    return Check("doubt", "WARN", f"n = {look.evaluation.samples}", "believe it")


@pytest.mark.slow
def test_a_registered_attack_is_trained_with_and_named_everywhere(
    cli: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(ATTACKS, "nudge", Part(f"{__name__}:Nudge"))
    small = ("--data", "digits", "--limit", 60, "--epochs", 1, "--batch-size", 30)
    assert_states(cli("train", *small, "--method", "at", "--attack", "nudg").refusal(), "nudg", "'nudge'")
    assert cli("train", *small, "--method", "at", "--attack", "nudge", "--stride", 0.25, "--out", "run").status == 0
    assert asgt.TrainConfig.load(tmp_path / "run" / "config.yaml").settings == {"stride": 0.25}
    assert_states(cli("train", *small, "--method", "at", "--stride", 0.25).refusal(), "--stride", "0.25", "method at")

    with pytest.raises(SystemExit):
        cli("train", "--help")
    told = " ".join(capsys.readouterr().out.split())
    assert "nudge" in told
    assert "how long each step is" in told

    assert cli("evaluate", "run", "--samples", 10, "--epsilons", 0.1).status == 0
    assert cli("compare", "run", "--out", "page").status == 0
    assert "AT-NUDGE" in (tmp_path / "page" / "report.html").read_text()


@pytest.mark.slow
def test_a_registered_check_and_section_are_in_results_terminal_and_page(
    cli: Callable, monkeypatch: pytest.MonkeyPatch, finished_run: Path
) -> None:
    def context(asked: PageRequest) -> dict[str, object]:
        return {"doubts": sum(table.protocol.name == "pgd" for table in asked.summary.credibility)}

    monkeypatch.setattr(checks, "CHECKS", {**checks.CHECKS, "doubt": doubtful})
    section = Section("doubts", "Doubts", "<section id='doubts'><p>doubts: {{ doubts }}</p></section>", context)
    monkeypatch.setattr(page, "SECTIONS", (*page.SECTIONS, section))

    answer = cli("evaluate", finished_run, "--samples", 20, "--epsilons", 0.1)
    assert answer.status == 0, answer.err
    assert_states(answer.out, "WARN doubt", "n = 20", "believe it")
    evaluation = asgt.load_evaluation(finished_run / "evaluation" / "pgd")
    assert evaluation.checks[-1] == Check("doubt", "WARN", "n = 20", "believe it")
    assert "1 warns" in str(evaluation)

    answer = cli("compare", finished_run, "--out", "page")
    assert answer.status == 0, answer.err
    assert "WARN doubt" in answer.out
    written = Path("page/report.html").read_text()
    assert written.count("doubt") > 3
    assert "doubts: 1" in written
    assert 'href="#doubts"' in written
