"""Results for people: the same table as text, in IPython and as HTML."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest
import torch
from IPython.lib.pretty import pretty

from asgt.evaluation.check import THOROUGH, Check
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import PROTOCOLS
from asgt.tabular import Table, Tabular

WORDS = "a search without gradients finds what masked ones hide, and a check says how many samples that are"
TABLE = Table("a title", ["name", "value", "said"], [["ab", "1.5", WORDS], ["abcd", "", "<b>"]], ["a note"])


@dataclass(frozen=True)
class Shown(Tabular):
    number: int = 1

    def table(self) -> Table:
        return TABLE


def test_numbers_stand_to_the_right_words_to_the_left_and_long_ones_go_on_below() -> None:
    title, head, first, second, last, note = str(TABLE).splitlines()
    assert (title, note) == ("a title", "a note")
    assert head.split() == ["name", "value", "said"]
    assert first.startswith("ab      1.5  a search")
    assert f"{first.split('  ')[-1]} {second.strip()}" == WORDS
    assert second.index(second.strip()) == first.index("a search") == last.index("<b>") == head.index("said")
    assert max(map(len, str(TABLE).splitlines())) < 80
    assert not [line for line in str(TABLE).splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("shown", [TABLE, Shown()], ids=["table", "result"])
def test_ipython_shows_the_table_and_not_what_it_is_made_of(shown: Table | Tabular) -> None:
    assert pretty(shown) == str(shown) == str(TABLE)
    html = shown._repr_html_()
    assert next(text for text in re.split(r"<[^>]*>", html) if text) == "a title"
    assert html.count("<tr>") == 3
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert re.findall(r"<th( style=\"text-align:left\")?>", html) == [
        ' style="text-align:left"',
        "",
        ' style="text-align:left"',
    ]


def checked(*checks: Check) -> Evaluation:
    right = torch.tensor([True, True, False])
    return Evaluation(
        protocol=PROTOCOLS["pgd"],
        norm="linf",
        epsilons=(0.1,),
        seed=0,
        model="m",
        data="d",
        classes=2,
        clean=right,
        details={"pgd-40x5": {}},
        outcomes={"pgd-40x5": right[None]},
        checks=checks,
    )


def test_what_fails_stands_under_an_evaluation_with_its_remedy_and_what_passes_does_not() -> None:
    failed = Check("full range", "FAIL", "33 of 64 are left", "try Square")
    evaluation = checked(Check("legality", "PASS", "all in the ball"), failed)
    assert str(failed) == "FAIL full range: 33 of 64 are left; remedy: try Square"
    assert str(failed) in str(evaluation).splitlines()
    assert "all in the ball" not in str(evaluation)


def test_the_table_of_checks_has_all_of_them_and_says_how_to_run_the_others() -> None:
    passed, left_out = Check("legality", "PASS", "all in the ball"), Check("square", "NOT RUN", "is thorough", THOROUGH)
    table = checked(passed, left_out).checks_table()
    assert table.rows == [["legality", "PASS", "all in the ball", ""], ["square", "NOT RUN", "is thorough", THOROUGH]]
    assert "thorough=True" in str(table)
    assert "thorough" not in str(checked(passed).checks_table())
    assert "no check was run" in str(checked().checks_table())
