"""Exports on a hub: uploaded as one commit, and loaded from there; nothing but the files of the export goes up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import asgt
from asgt import InputError
from asgt.errors import DamagedFileError
from asgt.exporting import push_export
from support.hub import Hub, hub
from support.messages import assert_states
from support.paths import RUNS

SLOW_FIXTURES = ("a_hub",)


@pytest.fixture
def a_hub() -> Iterator[Hub]:
    with hub() as made:
        yield made


def test_a_run_is_pushed_and_evaluated_by_its_name_on_the_hub(warm: Callable, a_hub: Hub, tmp_path: Path) -> None:
    there = a_hub.environment(str(tmp_path / "home"))
    export = ("export", RUNS / "asgt-pgd-0", "--out", "net", "--license", "mit", "--push", "org/net", "--private")
    answer = warm(*export, environment=there)

    assert answer.status == 0, answer.err
    assert_states(answer.out, "uploaded", "org/net")
    files = a_hub.repositories["org/net"]
    assert {*files} == {file.relative_to(tmp_path / "net").as_posix() for file in (tmp_path / "net").rglob("*.*")}
    assert all((tmp_path / "net" / name).read_bytes() == content for name, content in files.items())
    assert a_hub.private == {"org/net"}
    assert "from_pretrained('org/net')" in files["README.md"].decode()
    assert "hub:org/net" in files["README.md"].decode()

    answer = warm(
        *("evaluate", "--model", f"hub:org/net@{a_hub.commit('org/net')}", "--data", "digits", "--samples", 40),
        *("--epsilons", "0.05,0.1,0.2", "--out", "evidence"),
        environment=there,
    )
    assert answer.status == 0, answer.err
    assert not [line for line in a_hub.asked if "results" in line.partition(" ")[2] and line.startswith("GET")]
    again, first = (
        asgt.load_evaluation(folder) for folder in (tmp_path / "evidence", RUNS / "asgt-pgd-0" / "evaluation" / "pgd")
    )
    assert again.model == first.model
    assert again.curve("pgd-40x5") == first.curve("pgd-40x5")

    files["config.json"] = files["config.json"].replace(b'"0"', b'"7"')
    answer = warm("evaluate", "--model", "hub:org/net", "--data", "digits", "--out", "other", environment=there)
    assert_states(answer.refusal(), "config.json", "manifest.json")


def test_what_the_hub_refuses_is_told_in_a_line(warm: Callable, a_hub: Hub, tmp_path: Path) -> None:
    wrong = a_hub.environment(str(tmp_path / "home"), token="hf_of_nobody")
    answer = warm("export", RUNS / "st-0", "--out", "net", "--push", "org/net", environment=wrong)

    assert_states(answer.failure(), "org/net", "401", "hf auth login", "net")
    assert (tmp_path / "net" / "manifest.json").exists()
    assert a_hub.repositories == {}
    there = a_hub.environment(str(tmp_path / "home"))
    answer = warm("evaluate", "--model", "hub:org/none", "--data", "digits", "--out", "x", environment=there)
    assert_states(answer.refusal(), "org/none", "no such folder", "hub")
    gone = there | {"HF_ENDPOINT": "http://127.0.0.1:1"}
    answer = warm("evaluate", "--model", "hub:org/none", "--data", "digits", "--out", "x", environment=gone)
    assert_states(answer.refusal(), "org/none", "cannot be reached")


def test_a_second_push_leaves_nothing_of_the_first(process: Callable, a_hub: Hub, tmp_path: Path) -> None:
    a_hub.repositories["org/net"] = {"model.onnx": b"old", "results/own.json": b"old", "notes.md": b"mine"}
    there = a_hub.environment(str(tmp_path / "home"))
    answer = process("export", RUNS / "st-0", "--out", "net", "--push", "org/net", environment=there)

    assert answer.status == 0, answer.err
    assert {"model.onnx", "results/own.json"}.isdisjoint(a_hub.repositories["org/net"])
    assert a_hub.repositories["org/net"]["notes.md"] == b"mine"


def test_only_a_whole_export_is_pushed(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        push_export(RUNS / "st-0", "org/net")
    assert_states(refused.value, "asgt export")
    asgt.export_run(RUNS / "st-0", tmp_path / "net")
    with pytest.raises(InputError) as refused:
        push_export(tmp_path / "net", "https://hub/org/net")
    assert_states(refused.value, "ORGANISATION/NAME")
    with pytest.raises(InputError) as refused:
        push_export(tmp_path / "net", "org/net")
    assert_states(refused.value, "org/net", "OfflineModeIsEnabled", str(tmp_path / "net"))
    (tmp_path / "net" / "README.md").write_text("other numbers")
    with pytest.raises(DamagedFileError):
        push_export(tmp_path / "net", "org/net")
