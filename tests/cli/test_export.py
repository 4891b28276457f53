"""``asgt export``, and ``asgt evaluate --model hub:…`` of what it wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import asgt
from support.command import Answer
from support.messages import assert_states
from support.paths import RUNS

NETS = """
from torch import nn

def made(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
"""


def evaluated(cli: Callable, *words: object, out: str = "evidence") -> Answer:
    answer = cli("evaluate", *words, "--epsilons", "0.05,0.1,0.2", "--out", out)
    assert isinstance(answer, Answer)
    return answer


def test_a_run_is_exported_and_evaluated_to_the_same_numbers(cli: Callable) -> None:
    answer = cli("export", RUNS / "asgt-pgd-0", "--out", "net")
    assert (answer.status, answer.err) == (0, "")
    assert_states(answer.out, "exported", "net", "model.safetensors", "README.md", "asgt.from_pretrained('net')")

    answer = evaluated(cli, "--model", "hub:net", "--data", "digits", "--samples", 40)
    assert answer.status == 0, answer.err
    assert_states(answer.out, "weights: from hub:net")
    first = json.loads((RUNS / "asgt-pgd-0/evaluation/pgd/result.json").read_text())
    again = json.loads(Path("evidence/result.json").read_text())
    same = ("clean", "attacks", "model", "data", "samples", "classes", "norm", "seed")
    assert [again[name] for name in same] == [first[name] for name in same]


def test_a_run_that_is_not_evaluated_is_exported_with_a_warning(cli: Callable, finished_run: Path) -> None:
    answer = cli("export", finished_run, "--out", "net")

    assert answer.status == 0
    assert_states(answer.err, "not evaluated", "asgt evaluate RUN")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), ["asgt export RUN --out DIR"]),
        ((RUNS / "st-0",), ["--out"]),
        ((RUNS / "st-0", "--out", "net", "--private"), ["--private", "--push"]),
        ((RUNS / "st-0", "--out", "net", "--push", "net"), ["'net'", "ORGANISATION/NAME"]),
        ((RUNS / "st-0", "--out", "net", "--push", ""), ["ORGANISATION/NAME"]),
        ((RUNS / "st-0", "--out", "net", "--format", "onx"), ["'onnx'"]),
        ((RUNS / "st-0", "--out", "net", "--license", "a b"), ["license", "mit"]),
        ((RUNS / "st-0", "--out", "net", "--model", "their:net"), ["small_cnn", "their:net"]),
        (("nowhere", "--out", "net"), ["nowhere"]),
        ((RUNS / "st-0", "--out", RUNS), ["not empty", "--out"]),
        ((RUNS / "st-0", "--out", RUNS / "st-0"), ["not empty", "--out"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(cli: Callable, words: tuple[object, ...], says: list[str]) -> None:
    assert_states(cli("export", *words).refusal(), *says)
    assert not Path("net").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--weights", "x.pt"), ["--weights", "hub:net"]),
        (("--width", "2"), ["--width", "hub:net"]),
        (("--mean", "0.5", "--std", "0.5"), ["--mean", "hub:net"]),
    ],
)
def test_what_the_export_says_is_not_asked_for(cli: Callable, words: tuple[str, ...], says: list[str]) -> None:
    asgt.export_run(RUNS / "st-0", "net")

    assert_states(evaluated(cli, "--model", "hub:net", "--data", "digits", *words).refusal(), *says)


def test_images_of_another_size_are_refused_and_read_as_the_model_takes_them(
    cli: Callable, image_folder: Callable[..., Path]
) -> None:
    asgt.export_run(RUNS / "st-0", "net")
    names = {str(number): 3 for number in range(10)}
    image_folder("large", names, size=(20, 20), mode="RGB")

    answer = evaluated(cli, "--model", "hub:net", "--data", "large")
    assert_states(answer.refusal(), "3×20×20", "1×8×8", "--image-size 8 --grey")
    answer = evaluated(cli, "--model", "hub:net", "--data", "large", "--image-size", 8, "--grey")
    assert answer.status == 0, answer.err


def test_images_are_read_as_in_the_training_and_classes_go_by_name(
    cli: Callable, image_folder: Callable[..., Path]
) -> None:
    image_folder("pets", {"cat": 10, "dog": 10}, size=(14, 12), mode="RGB")
    reading = ("--image-size", 8, "--crop", 0.8, "--interpolation", "bicubic", "--grey")
    train = ("train", "--data", "pets", *reading, "--method", "st", "--epochs", 1, "--batch-size", 4, "--out", "run")
    assert cli(*train).status == 0
    assert cli("export", "run", "--out", "net").status == 0

    assert cli("evaluate", "run", "--epsilons", "0.05,0.1,0.2").status == 0
    assert evaluated(cli, "--model", "hub:net", "--data", "pets").status == 0
    first, again = (json.loads(Path(place, "result.json").read_text()) for place in ("run/evaluation/pgd", "evidence"))
    assert (again["data"], again["attacks"]) == (first["data"], first["attacks"])

    image_folder("others", {"dog": 6, "eel": 6}, size=(14, 12), mode="RGB")
    line = evaluated(cli, "--model", "hub:net", "--data", "others", out="other").refusal()
    assert_states(line, "'eel'", "--classes")


def test_an_architecture_of_ones_own_runs_only_where_it_is_named(
    cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_export_nets.py").write_text(NETS)
    monkeypatch.delitem(sys.modules, "own_export_nets", raising=False)
    train = ("train", "--model", "own_export_nets:made", "--method", "st", "--epochs", 1, "--limit", 100)
    assert cli(*train, "--out", "run").status == 0
    sys.modules.pop("own_export_nets")
    answer = cli("export", "run", "--out", "net")
    assert answer.status == 0
    assert_states(answer.err, "not loaded", "--model")

    words = ("--model", "hub:net", "--data", "digits", "--samples", 20)
    assert_states(evaluated(cli, *words).refusal(), "own_export_nets:made", "--allow own_export_nets")
    assert "own_export_nets" not in sys.modules
    assert evaluated(cli, *words, "--allow", "own_export_nets").status == 0
    answer = cli("export", "run", "--out", "net", "--model", "own_export_nets:made")
    assert (answer.status, "not loaded" in answer.err) == (0, False)


def test_training_does_not_take_an_export_for_an_architecture(cli: Callable) -> None:
    asgt.export_run(RUNS / "st-0", "net")
    line = cli("train", "--model", "hub:net", "--out", "run").failure()

    assert_states(line, "hub:net", "--weights", "asgt evaluate")


def test_the_export_is_verified_as_a_run_is(cli: Callable) -> None:
    asgt.export_run(RUNS / "st-0", "net")
    answer = cli("verify", "net")
    assert (answer.status, answer.err) == (0, "")

    Path("net/results/pgd.json").write_text("{}")
    answer = cli("verify", "net")
    assert answer.status == 2
    assert_states(answer.out + answer.err, "results/pgd.json", "changed")
