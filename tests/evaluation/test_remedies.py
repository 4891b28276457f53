"""Where the remedies of checks and diagnoses are: on one page of the documentation, each under its name."""

from __future__ import annotations

import re

import pytest

from asgt.cli.console import Console
from asgt.evaluation import remedies
from asgt.evaluation.check import Check
from asgt.evaluation.checks import CHECKS
from asgt.evaluation.health import DIAGNOSES
from asgt.evaluation.remedies import diagnosed, remedies_text, remedy_place
from asgt.report.page import _environment
from support.paths import ROOT


@pytest.mark.parametrize("name", [*CHECKS, *DIAGNOSES])
def test_every_check_and_diagnosis_has_its_section_with_a_remedy(name: str) -> None:
    path, _, anchor = remedy_place(name).partition("#")
    page = (ROOT / path).read_text()
    section = page.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
    assert "**Remedy.**" in section
    # A forge's rule: lower case, hyphens for blanks, no other signs.
    assert anchor == "".join(letter for letter in name.lower().replace(" ", "-") if letter.isalnum() or letter == "-")


def test_the_address_is_that_of_the_configured_site() -> None:
    configured = re.search(r"^site_url: *(\S+)", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert (configured.group(1) if configured else "") == remedies.SITE


def test_a_published_site_gets_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies, "SITE", "https://asgt.example/docs/")
    address = "https://asgt.example/docs/troubleshooting.html#budget-reach"
    assert remedy_place("budget reach") == address
    shown = _environment().from_string("{{ name | remedy }}")
    assert shown.render(name="budget reach") == f' <a href="{address}">{address}</a>'


def test_a_check_of_ones_own_has_no_section() -> None:
    assert remedy_place("enough images") == ""
    assert remedies_text(["enough images"]) == ""
    shown = _environment().from_string("{{ name | remedy }}")
    assert shown.render(name="enough images") == ""
    assert shown.render(name="square") == " <code>docs/troubleshooting.md#square</code>"


def test_a_warning_of_a_training_names_its_diagnosis() -> None:
    assert diagnosed("2 of 3 epochs, not the chosen one: collapse: the model predicts one class") == ["collapse"]
    assert diagnosed("catastrophic overfitting on the test images: 90 %") == ["catastrophic overfitting"]
    assert diagnosed("the collapsed tables are unverified") == []


def test_the_terminal_names_the_remedies_of_what_did_not_pass_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdicts = {"budget reach": "FAIL", "legality": "PASS", "square": "NOT RUN", "full range": "WARN", "mine": "WARN"}
    Console().checked(tuple(Check(name, verdict, "seen", "do it") for name, verdict in verdicts.items()))
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "remedies: docs/troubleshooting.md#budget-reach, #full-range"
    Console().checked((Check("legality", "PASS", "seen"),))
    assert "remedies" not in capsys.readouterr().out
