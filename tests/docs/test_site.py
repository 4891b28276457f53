"""The sources of the documentation site, and what reads it once more after it was built."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import asgt
from asgt.cli.entry import VERBS
from asgt.evaluation.checks import CHECKS, run_checks
from asgt.training.config import TrainConfig, flag_of
from support.documented import script
from support.paths import ROOT

pytest.importorskip("griffe", reason="the docs extra is not installed: make docs does it")

pages: Any = script("docs_pages")
roles: Any = script("docs_roles")
site: Any = script("docs_site")

SLOW_FIXTURES = ("staged",)


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the site, as Zensical gets them."""

    place = tmp_path_factory.mktemp("staged") / "docs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "STAGED", place)
        site.stage()
    return place


def test_every_public_name_has_its_entry(staged: Path) -> None:
    text = "".join(page.read_text() for page in sorted((staged / "reference" / "api").glob("*.md")))
    assert sorted(re.findall(r"^::: asgt\.(\w+)$", text, re.MULTILINE)) == sorted(asgt.__all__)


def test_a_base_shows_its_methods_and_its_family_does_not() -> None:
    assert "step" in pages.shown_members("Attack")
    assert pages.shown_members("PGD") == []
    assert "robust_accuracy" in pages.shown_members("Evaluation")
    assert pages.shown_members("PROTOCOLS") == []


def test_the_command_line_has_every_flag_of_every_verb(staged: Path) -> None:
    text = (staged / "reference" / "command-line.md").read_text()
    for verb in VERBS:
        section = text.partition(f"## asgt {verb}\n")[2].partition("\n## ")[0]
        assert f"usage: asgt {verb}" in section or f"asgt {verb}" in section
        for action in __import__(f"asgt.cli.{verb}", fromlist=["make_parser"]).make_parser()._actions:
            for option in action.option_strings:
                if option.startswith("--") and action.dest != "help":
                    assert f"`{flag_of(action.dest)}`" in section, option
    assert "None" not in re.findall(r"\(default: (\w+)\)", text)


def test_the_configuration_has_every_setting(staged: Path) -> None:
    text = (staged / "reference" / "configuration.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| .*? \| (.*?) \|", text, re.MULTILINE))
    assert {field.name for field in dataclasses.fields(TrainConfig)} <= rows.keys()
    assert "| `batch_size` | `--batch-size` | int | `128` | images per step |" in text
    assert "| `from_run` | `--from` |" in text
    assert re.search(r"^\| `asgt` \| .*`k`.*`weight`", text, re.MULTILINE)


def test_a_setting_without_a_group_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(pages._GROUPS, "Run")
    with pytest.raises(SystemExit, match="checkpoint_every, cuda_graphs"):
        pages.filled("<!-- generated: settings -->")


def test_a_page_may_ask_only_for_what_there_is() -> None:
    with pytest.raises(SystemExit, match="use one of api, verbs"):
        pages.filled("<!-- generated: nothing -->")
    with pytest.raises(SystemExit, match="check_legality"):
        pages.filled("<!-- generated: reason check_nothing -->")


@pytest.mark.slow
def test_troubleshooting_has_a_section_for_every_check(staged: Path) -> None:
    """By the names that the checks themselves give on an evaluation, with the reason from the registry."""

    source = (ROOT / "docs" / "troubleshooting.md").read_text()
    sections = re.findall(r"^### (.+)\n\n<!-- generated: reason (\w+) -->", source, re.MULTILINE)
    assert dict(sections) == {name: check.__name__ for name, check in CHECKS.items()}
    digits = asgt.load_data("digits").test[:6]
    model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
    for protocol in ("pgd", "standard-quick"):
        evaluation = asgt.evaluate(model, digits, protocol, epsilons=[0.1])
        said = {check.name for check in run_checks(model, digits, evaluation)}
        assert said <= {title for title, _ in sections}
        assert len(said) >= 15
    text = (staged / "troubleshooting.md").read_text()
    assert "generated:" not in text
    assert "If the steps cannot cross the ball, or do not, the attack is weaker than its ε." in text


def test_links_out_of_the_docs_lead_to_pages_or_name_the_file() -> None:
    text = "See [the method](../src/asgt/training/objectives/asgt.py), [`floor.py`](../benchmarks/floor.py), "
    text += "[security](../SECURITY.md#what-is-trusted) and [this](evaluation.md#checks).\n"
    text += "```md\n[x](../SECURITY.md)\n```\n"
    assert site._with_own_links(text, "concepts.md") == (
        "See the method (`src/asgt/training/objectives/asgt.py`), `floor.py`, "
        "[security](security.md#what-is-trusted) and [this](evaluation.md#checks).\n```md\n[x](../SECURITY.md)\n```\n"
    )
    assert site._with_own_links("[a](docs/extending.md#an-attack)", "contributing.md") == "[a](extending.md#an-attack)"
    assert site._with_own_links("[s](../../SECURITY.md)", "reference/formats.md") == "[s](../security.md)"


def test_roles_become_links_where_there_is_a_page() -> None:
    targets = {"PGD": "asgt.PGD", "asgt.PGD": "asgt.PGD", "asgt.Attack.step": "asgt.Attack.step"}
    text = "As :class:`asgt.PGD`, :class:`~asgt.PGD` and :meth:`step`; not :func:`asgt.nothing.at_all`."
    assert roles.converted(text, targets, "asgt.Attack") == (
        "As [`PGD`][asgt.PGD], [`PGD`][asgt.PGD] and [`step`][asgt.Attack.step]; not `asgt.nothing.at_all`."
    )


def test_examples_and_references_become_markdown() -> None:
    text = "One.\n\nExample:\n    >>> 1\n    1\n\nReferences:\n"
    text += '    A 2020, "T",\n    https://a.org/1\n    B 2021, https://b.org (eq. 2)'
    assert roles.converted(text, {}) == (
        "One.\n\nExamples:\n    >>> 1\n    1\n\n**References**\n\n"
        '- A 2020, "T", <https://a.org/1>\n- B 2021, <https://b.org> (eq. 2)'
    )


def test_a_broken_site_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<h1 id=top></h1><a href='b.html#here'></a><a href='b.html#gone'></a><a href='c.html'></a><a href='#top'></a>"
        "<img src='none.png'><script src='https://cdn.org/x.js'></script><link rel=stylesheet href='//fonts.org/f.css'>"
        "<a href='https://arxiv.org'></a><link rel=canonical href='https://own.org/a.html'>"
    )
    (tmp_path / "b.html").write_text("<p id=here></p>")
    (tmp_path / "s.css").write_text(
        "a{background:url(https://x.org/i.png)} b{background:url('data:image/png;base64,')}"
    )
    assert site.faults(tmp_path) == [
        "a.html: fetches https://cdn.org/x.js",
        "a.html: fetches //fonts.org/f.css",
        "a.html: b.html#gone has no such anchor",
        "a.html: c.html is not there",
        "a.html: none.png is not there",
        "s.css: fetches https://x.org/i.png",
    ]


def test_the_navigation_has_every_page(staged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "STAGED", staged)
    assert list(site._outside_of_navigation()) == []
    (staged / "lost.md").write_text("# Lost\n")
    (staged / "saliency.md").rename(staged / "moved.md")
    assert list(site._outside_of_navigation()) == [
        "mkdocs.yml: nav lacks lost.md",
        "mkdocs.yml: nav lacks moved.md",
        "mkdocs.yml: nav has saliency.md, which is not there",
    ]
