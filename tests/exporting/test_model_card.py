"""The model card: its numbers are those of the results, and no name or sentence in it is more than a text."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import asgt
from asgt.evaluation.check import Check
from asgt.evaluation.protocols import protocol_named
from asgt.exporting.card_source import CardSource
from asgt.exporting.markdown import code, escaped, fenced, last_part, without_places
from asgt.exporting.model_card import model_card
from asgt.models.exported import Exported
from asgt.runs.run import Run, read_run
from asgt.visible import visible
from support.exports import card, card_metadata, rendered
from support.messages import assert_states
from support.paths import RUNS

PROTOCOLS = ("pgd", "paper")
EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "](https://evil.example) [click",
    "![x](https://evil.example/x.png)",
    "a | b | c",
    "`code` ``more`` ```",
    "**bold** _it_ __init__ ~~no~~ $x^2$",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "line\n\n---\nlicense: evil\n---\n# other",
    "https://evil.example www.evil.example <a@b.c> @user #1",
    "&lt;b&gt; &#60;i&#62; &copy;",
    "\x1b[31mred\u202etxt",
    "{{ jinja }} {% raw %} ${shell} $(shell)",
    "'; rm -rf /; echo '",
    "key: value # comment",
    "!!python/object:os.system",
    "\\",
    "",
]


MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


class Page(HTMLParser):
    """The tags of a page, the addresses that it links to, and its texts by the tags that they stand in."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.is_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {str(value) for name, value in attributes if name in ("href", "src")}
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.is_cell = True

    def handle_endtag(self, tag: str) -> None:
        self.is_cell = self.is_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.is_cell:
            self.tables[-1][-1][-1] += data


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("card") / "exported"
    asgt.export_run(RUNS / "asgt-pgd-0", out, license="apache-2.0")
    return out


def results(protocol: str) -> dict[str, Any]:
    value = json.loads((RUNS / "asgt-pgd-0" / "evaluation" / protocol / "result.json").read_text())
    assert isinstance(value, dict)
    return value


def percent(row: dict[str, float]) -> str:
    return f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


# The numbers ----------------------------------------------------------------------------------------------------------


def test_the_tables_are_those_of_the_results(exported: Path) -> None:
    tables = [table for table in Page(rendered(exported)).tables if table[0][0] == "ε"]

    assert len(tables) == len(PROTOCOLS)
    for protocol, table in zip(PROTOCOLS, tables, strict=True):
        told = results(protocol)
        curves = list(told["attacks"].values())
        assert table[1] == ["0 (clean)", *[percent(told["clean"])] * len(curves)]
        for place, row in enumerate(table[2:]):
            assert float(row[0]) == curves[0][place]["eps"]
            assert row[1:] == [percent(curve[place]) for curve in curves]
        assert len(table) == len(curves[0]) + 2


def test_the_first_table_quotes_the_strongest_evaluation_at_the_training_eps(exported: Path) -> None:
    told = results("pgd")
    (row,) = (row for row in told["attacks"]["pgd-40x5"] if row["eps"] == 0.1)
    first = Page(rendered(exported)).tables[0]

    assert first[1][:3] == ["clean accuracy", percent(told["clean"]), str(told["samples"])]
    assert first[2][:3] == ["robust accuracy at ε = 0.1 (L∞)", percent(row), str(told["samples"])]
    assert_states(first[2][3], "pgd", "v3", told["claim"])
    assert_states(card(exported), "training seed 0", f"attack seed {told['seed']}")


def test_every_check_stands_with_its_outcome_evidence_and_remedy(exported: Path) -> None:
    tables = [table[1:] for table in Page(rendered(exported)).tables if table[0][0] == "check"]

    assert tables == [
        [
            [check["name"], check["verdict"], check["evidence"], check["remedy"] or "–"]
            for check in results(protocol)["checks"]
        ]
        for protocol in PROTOCOLS
    ]
    limits = card(exported).split("## Known limits")[1].split("##")[0]
    assert_states(limits, "`paper` v1: 1 check failed (budget reach)")


def test_the_hub_reads_the_metadata_and_the_numbers_in_it(exported: Path) -> None:
    data = huggingface_hub.ModelCard.load(exported / "README.md").data

    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "asgt", "image-classification")
    assert data.metrics == ["accuracy"]
    assert {"asgt", "safetensors", "adversarial-robustness"} <= {*data.tags}
    read = [(each.dataset_name, each.dataset_split, each.metric_name, each.metric_value) for each in data.eval_results]
    expected = []
    for protocol in PROTOCOLS:
        told = results(protocol)
        expected.append(told["clean"]["accuracy"])
        expected += [row["accuracy"] for curve in told["attacks"].values() for row in curve if row["eps"] == 0.1]
    assert [value for *_, value in read] == expected
    assert {(name, split) for name, split, *_ in read} == {("digits", "test")}
    assert_states(read[1][2], "ε = 0.1", "L∞", "protocol pgd v3", "n = 40", "robust accuracy")


def test_data_of_the_hub_is_named_by_its_id(tmp_path: Path) -> None:
    source = source_of()
    run = replace(source.run, config=replace(source.run.config, data="mnist"))
    text = model_card(replace(source, run=run))

    assert "datasets:\n- ylecun/mnist\n" in text
    assert "](https://huggingface.co/datasets/ylecun/mnist)" in text


def test_a_license_that_nobody_states_is_not_stated(finished_run: Path, tmp_path: Path) -> None:
    asgt.export_run(finished_run, tmp_path / "out")

    assert (card_metadata(tmp_path / "out")["license"], card_metadata(tmp_path / "out")["license_name"]) == (
        "other",
        "not-stated",
    )
    assert_states(card(tmp_path / "out"), "not stated by the owner")


# The commands ---------------------------------------------------------------------------------------------------------


def commands(text: str) -> list[list[str]]:
    lines = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
def test_the_commands_of_the_card_give_the_run_and_its_numbers_again(exported: Path, cli: Callable) -> None:
    train, evaluate, _, again, _ = commands(card(exported))
    assert train[:2] == ["asgt", "train"]
    assert cli(*train[1:]).status == 0
    config, first = (asgt.TrainConfig.load(folder / "config.yaml") for folder in (Path("run"), RUNS / "asgt-pgd-0"))
    assert replace(config, device="cpu") == first
    assert cli(*evaluate[1:]).status == 0

    Path("exported").symlink_to(exported)
    answer = cli(*again[1:])
    assert answer.status == 0, answer.err
    told = json.loads(Path("result-pgd/result.json").read_text())
    assert (told["clean"], told["attacks"]) == (results("pgd")["clean"], results("pgd")["attacks"])


def test_versions_of_a_protocol_are_evaluated_into_folders_of_their_own() -> None:
    source = source_of()
    pgd = source.run.evaluations["pgd"]
    (outcomes,), seconds = pgd.outcomes.values(), {"worst-case": 0.0}
    named = {
        key: replace(pgd, protocol=protocol_named(key), outcomes={"worst-case": outcomes}, details={}, seconds=seconds)
        for key in ("standard", "standard@1", "standard-quick")
    }
    text = model_card(replace(source, run=replace(source.run, evaluations=named)))
    (again,) = [block for block in text.split("```") if "--out" in block and "hub:" in block]
    folders = [words[words.index("--out") + 1] for words in commands(again)]
    assert len(set(folders)) == len(folders) == len(named)


def test_the_python_of_the_card_runs(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(exported.parent)
    (block,) = re.findall(r"```python\n(.*?)```", card(exported), re.DOTALL)
    named: dict[str, Any] = {"images": torch.rand(2, 1, 8, 8)}
    exec(compile(block, "card", "exec"), named)

    assert named["logits"].shape == (2, 10)


# Texts of other people ------------------------------------------------------------------------------------------------


def source_of(**changes: Any) -> CardSource:
    """What a card is written from, of a real run, with changes of its result."""

    run = read_run(RUNS / "asgt-pgd-0")
    run = replace(run, result=replace(run.result, **changes))
    exported = Exported(run.folder, "x", "small_cnn", (1, 8, 8), tuple(run.result.classes), "0" * 64)
    return CardSource(run, exported, "place")


def of_evil_texts(text: str) -> Run:
    """A run in which every text that a stranger can choose is this one."""

    source = source_of(classes=[text, "b"], warnings=[text], reading={"place": f"/private/{text}"})
    run = source.run
    check = Check(text or "x", "FAIL", text, text)
    return replace(
        run,
        config=replace(
            run.config, data=f"/private/{text}", model=f"{text}:net", label_column=text or None, device=text or "cpu"
        ),
        evaluations={key: replace(each, checks=(check,), selection=text) for key, each in run.evaluations.items()},
        remarks=(text,),
    )


@pytest.mark.parametrize("text", EVIL)
def test_no_text_of_a_run_is_markup_or_metadata(text: str, exported: Path, tmp_path: Path) -> None:
    run = of_evil_texts(text)
    held = Exported(run.folder, text, f"{text}:net", (1, 8, 8), (text, "b"), "0" * 64, reading={"decode": text})
    (tmp_path / "README.md").write_text(model_card(CardSource(run, held, text or "place")))

    usual, page = Page(rendered(exported)), Page(rendered(tmp_path))
    assert page.tags <= usual.tags | {"a"}
    assert page.links <= usual.links
    # What stands in the first column, and how many columns there are, is as in any card.
    for table in page.tables:
        assert {len(row) for row in table} == {len(table[0])}
    told = card_metadata(tmp_path)
    assert {*told} <= {*card_metadata(exported), "license_name"}
    assert told["license"] == "other"
    assert len(told["model-index"]) == 1
    checks = [table[1] for table in page.tables if table[0][0] == "check"]
    shown = " ".join(visible(without_places(text)).split())
    assert [row[2].split() for row in checks] == [shown.split()] * len(PROTOCOLS)


@given(st.text(st.sampled_from("ab1 \\`*_{}[]()<>#!|~&;$@\"'^:.,-+=/\n\t\u202e"), max_size=30) | st.text(max_size=20))
def test_an_escaped_text_is_read_as_it_was_written(text: str) -> None:
    import html

    shown = " ".join(visible(visible(without_places(text))).split())
    for written in (escaped(text), code(text)):
        inline = MARKDOWN.renderInline(f"x {written} x")
        plain = re.sub(r"</?code>", "", inline)
        assert html.unescape(plain) == f"x {shown} x" if "<" not in plain else pytest.fail(plain)


@given(st.text(st.sampled_from("`~ab\n $"), max_size=40))
def test_no_text_ends_its_block_of_code(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"{fenced(text)}\n\nafter")

    assert tokens[0].type == "fence"
    assert tokens[0].content == f"{text}\n"
    assert [token.content for token in tokens if token.type == "inline"] == ["after"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("reads /home/jane/secret/images.zip anew", "reads images.zip anew"),
        ("at ~/secret/net.pt, and file:///srv/x/y.pt", "at net.pt, and y.pt"),
        (r"C:\Users\jane\net.pt", "net.pt"),
        ("ε = 8/255, α = 2.5ε/40, images/second", "ε = 8/255, α = 2.5ε/40, images/second"),
        ("ylecun/mnist", "ylecun/mnist"),
        ("evaluation/pgd/result.json", "evaluation/pgd/result.json"),
    ],
)
def test_a_path_becomes_the_name_at_its_end(text: str, left: str) -> None:
    assert without_places(text) == left


def test_a_known_place_is_left_out_whatever_is_in_its_name() -> None:
    place = "/home/jane doe/my data"
    assert without_places(f"it was in {place}, once", [place]) == "it was in my data, once"
    assert last_part("/home/jane doe/my data/") == "my data"
