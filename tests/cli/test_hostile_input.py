"""Files and flags that are made to cost memory, time or a traceback: one line, exit status 2, at once."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from asgt import capacity
from asgt.files import digest_tensors, read_tensors, write_tensors
from asgt.models.small_net import small_cnn
from support.edits import edited, resealed, rewritten
from support.messages import assert_states

GRID = """\
data: digits
seeds: 1
train: {model: small_cnn, epochs: 1, limit: 100}
methods: [{method: st}]
evaluate: {protocols: [pgd], epsilons: [0.1], samples: 10}
explain: {attributions: [gradient], samples: 10}
"""
SMALL = ("--method", "st", "--epochs", 1, "--model", "small_cnn", "--out", "run")


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def declared_png(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train --epochs " + "9" * 400, ["epochs", "years"]),
        ("train --epochs " + "9" * 5000, ["--epochs", "5,000 digits"]),
        ("train --lr " + "9" * 400, ["--lr"]),
        ("train --checkpoint-every " + "9" * 400, ["--checkpoint-every"]),
        ("train --method at --alpha 1e39", ["alpha"]),
        ("train --momentum 1e39", ["momentum"]),
        ("train --epochs !!int", ["--epochs"]),
        ("train --lr !!timestamp", ["--lr"]),
        ("train --lr *a", ["--lr", "alias"]),
        ("train --model " + "x" * 100_000, ["unknown model"]),
        ("train --out " + "x" * 5000, ["long"]),
        ("train --config /dev/zero", ["/dev/zero"]),
        ("train --data /dev/zero", ["/dev/zero"]),
        ("evaluate " + "x" * 5000, ["long"]),
        ("evaluate --model small_cnn --data digits --out o --weights /dev/zero", ["/dev/zero"]),
        ("profile --method st --data-shape 3x100000x100000", ["memory", "100000"]),
        ("profile --method st --classes " + "9" * 300, ["memory"]),
        ("profile --method st --batch-size 100000000", ["memory", "--batch-size"]),
        ("profile --method st --batch-size " + "9" * 300, ["batch_size", "digits"]),
        ("profile --method st --repetitions " + "9" * 300, ["--repetitions"]),
        ("profile --method st --data-shape " + "9" * 300 + "x1x1", ["--data-shape"]),
        ("reproduce digits --dry-run --seeds 1000000000", ["1000000000 seeds", "--seeds"]),
        ("reproduce digits --dry-run --seeds " + "9" * 400, ["seeds"]),
        ("reproduce digits --dry-run --workers " + "9" * 400, ["--workers"]),
        ("reproduce digits --dry-run --set lr=!!timestamp", ["--set"]),
        ("reproduce digits --dry-run --set epochs=!!int", ["--set"]),
        ("reproduce digits --dry-run --set alpha=1e39", ["alpha"]),
        ("reproduce digits --dry-run --set lr=1,lr=2", ["lr", "twice"]),
    ],
)
def test_a_flag_that_costs_too_much_is_refused(cli: Callable, words: str, said: list[str]) -> None:
    line = cli(*words.split()).refusal()
    assert_states(line, *said)
    assert len(line) < 1000


NOTHING = ("null", "{}", "[null]", "'x'", "2020-01-01", "!!timestamp x", "!!int ''", "-1", "1e39", ".nan")
"""Values that are none of what any setting of a grid below takes."""


GRID_PLACES = ("seeds", "methods", "evaluate", "evaluate protocols", "evaluate epsilons", "train epochs")


@pytest.mark.parametrize("place", [*GRID_PLACES, "explain samples", "explain attributions"])
def test_a_value_of_another_kind_in_a_grid_is_named(cli: Callable, tmp_path: Path, place: str) -> None:
    for value in NOTHING:
        settings = yaml.safe_load(GRID)
        *outer, name = place.split()
        (settings[outer[0]] if outer else settings)[name] = "MARK"
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(settings).replace("MARK", value))
        assert_states(cli("reproduce", "grid.yaml", "--dry-run").refusal(), "grid.yaml")


def test_a_grid_of_too_many_runs_or_radii_is_refused(cli: Callable, tmp_path: Path) -> None:
    many = ", ".join(f"{number / 10**5:.5f}" for number in range(1, 2001))
    for text, said in ((GRID.replace("seeds: 1", f"seeds: {10**9}"), "seeds"), (GRID.replace("0.1", many), "2,000")):
        (tmp_path / "grid.yaml").write_text(text)
        for words in ((), ("--dry-run",)):
            assert_states(cli("reproduce", "grid.yaml", *words).refusal(), "grid.yaml", said)


def test_images_of_a_size_without_room_are_refused_before_they_are_resized(
    cli: Callable, image_folder: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 2**33)
    place = image_folder("data", {"cat": 12, "dog": 12})
    assert_states(cli("train", "--data", place, "--image-size", 20000, *SMALL).refusal(), "memory", "--image-size")


@pytest.mark.parametrize("size", [(200_000, 200_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (0, 0)])
def test_an_image_that_says_it_is_huge_is_not_decoded(
    cli: Callable, image_folder: Callable, size: tuple[int, int]
) -> None:
    place = image_folder("data", {"cat": 12, "dog": 12})
    (place / "cat" / "0.png").write_bytes(declared_png(*size))
    assert_states(cli("train", "--data", place, *SMALL).refusal(), "cat/0.png")


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def cells(first: object) -> pa.Array:
    return pa.array([first, *[{"bytes": png(), "path": None}] * 23], STRUCT)


WHOLE = {"bytes": png(), "path": None}
LABELS = [number % 2 for number in range(24)]


@pytest.mark.parametrize(
    ("images", "labels", "said"),
    [
        (cells(None), LABELS, "image 0"),
        (cells({"bytes": None, "path": None}), LABELS, "image 0"),
        (cells({"bytes": b"", "path": None}), LABELS, "image 0"),
        (cells({"bytes": None, "path": "/dev/zero"}), LABELS, "/dev/zero"),
        (cells({"bytes": None, "path": "x" * 5000}), LABELS, "long"),
        (cells({"bytes": None, "path": "a\0b"}), LABELS, "null byte"),
        (cells(WHOLE), [None, *LABELS[1:]], "image 0"),
        (cells(WHOLE), [float("nan"), *map(float, LABELS[1:])], "image 0"),
        (cells(WHOLE), [[each] for each in LABELS], "label"),
        (cells(WHOLE), pa.nulls(24), "label"),
        (pa.array([None, *[png()] * 23], pa.binary()), LABELS, "image 0"),
        (pa.array([None] * 24, pa.binary()), LABELS, "image"),
        (pa.array([{"bytes": "abc", "path": None}] * 24), LABELS, "images"),
        (pa.array([{"bytes": None, "path": 7}] * 24), LABELS, "images"),
        (pa.array(range(24)), LABELS, "images"),
        (pa.nulls(24), LABELS, "images"),
    ],
)
def test_a_cell_of_a_table_without_an_image_or_a_label_is_named(
    cli: Callable, tmp_path: Path, images: pa.Array, labels: Any, said: str
) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "data" / "train.parquet")
    assert_states(cli("train", "--data", "data", *SMALL).refusal(), said)


@pytest.mark.parametrize("kind", ["bool", "int8", "int64", "uint16", "complex64", "float8_e4m3fn", "float8_e5m2"])
def test_weights_of_a_kind_that_is_no_float_are_refused(cli: Callable, tmp_path: Path, kind: str) -> None:
    weights = {
        f"net.{name}": value.to(getattr(torch, kind)) for name, value in small_cnn(1, 8, 10).state_dict().items()
    }
    torch.save(weights, tmp_path / "weights.pt")
    save_file(weights, tmp_path / "weights.safetensors")
    for file in ("weights.pt", "weights.safetensors"):
        words = ("--model", "small_cnn", "--data", "digits", "--samples", 5, "--epsilons", 0.1, "--out", "evidence")
        assert_states(cli("evaluate", *words, "--weights", file).refusal(), file, f"torch.{kind}")


def test_weights_in_a_pipe_are_not_waited_for(cli: Callable, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pt")
    words = ("--model", "small_cnn", "--data", "digits", "--out", "evidence", "--weights", "weights.pt")
    assert_states(cli("evaluate", *words).refusal(), "weights.pt", "pipe")


@pytest.mark.parametrize("name", ["metrics.jsonl", "training.json", "config.yaml"])
@pytest.mark.parametrize("kind", ["folder", "device", "pipe"])
def test_a_file_of_a_run_that_is_none_is_named(cli: Callable, finished_run: Path, name: str, kind: str) -> None:
    (file := finished_run / name).unlink()
    {"folder": file.mkdir, "pipe": lambda: os.mkfifo(file), "device": lambda: file.symlink_to("/dev/zero")}[kind]()
    assert_states(cli("compare", finished_run, "--out", "page").refusal(), name)


@pytest.mark.parametrize("line", ["3", "null", "[" * 100_000, "9" * 5000, '{"epoch": 0}', '{"epoch": 0, "step": "x"}'])
def test_a_line_of_metrics_that_is_none_is_named(cli: Callable, finished_run: Path, line: str) -> None:
    (finished_run / "metrics.jsonl").write_text(f"{line}\n{line}\n")
    resealed(finished_run)
    assert_states(cli("compare", finished_run, "--out", "page").refusal(), "metrics.jsonl", "line 1")


@pytest.mark.parametrize("name", ["shape", "classes", "validation", "reading", "speed", "chosen_epoch", "warnings"])
def test_a_result_with_a_value_of_another_kind_is_damaged(cli: Callable, finished_run: Path, name: str) -> None:
    whole = json.loads((finished_run / "training.json").read_text())
    for value in (None, "x", [None], -0.5, {"a": [1]} if name != "speed" else 3):
        if name in ("reading", "speed") and isinstance(value, dict):
            continue
        rewritten(finished_run / "training.json", whole | {name: value})
        assert_states(cli("compare", finished_run, "--out", "page").refusal(), "training.json", name)


@pytest.fixture(scope="module")
def _evident(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from asgt.evaluation.curve import evaluate
    from asgt.runs.explain_run import explain_run
    from asgt.runs.run import load_run
    from asgt.training.config import TrainConfig
    from asgt.training.run_folder import RunFolder
    from asgt.training.trainer import train

    out = tmp_path_factory.mktemp("evident") / "run"
    train(TrainConfig(method="st", epochs=1, limit=60, width=0.1), out)
    model, splits, _, _ = load_run(out)
    rows = torch.arange(8)
    evaluate(model, splits.test[rows], "pgd", epsilons=[0.1], folder=out / "evaluation" / "pgd")
    explain_run(RunFolder(out), model, splits.test, "digits", samples=8, eps=0.1, norm="linf", rows=rows)
    return out


@pytest.fixture
def evident(_evident: Path, tmp_path: Path) -> Path:
    """A run with an evaluation and an explanation of eight images."""

    import shutil

    return shutil.copytree(_evident, tmp_path / "evident")


def change(file: Path, name: str, value: int | None) -> None:
    """Fills a tensor of a file with a value, or takes it out."""

    tensors, metadata = read_tensors(file)
    write_tensors(file, {key: each for key, each in tensors.items() if key != name}, metadata)
    if value is not None:
        write_tensors(file, tensors | {name: torch.full_like(tensors[name], value)}, metadata)


@pytest.mark.parametrize("name", ["labels", "predictions", "ids"])
@pytest.mark.parametrize("value", [-1, 10**9, 2**62, None])
def test_a_row_or_a_class_that_there_is_not_is_damaged_evidence(
    cli: Callable, evident: Path, name: str, value: int | None
) -> None:
    change(evident / "explanation" / "gradient" / "values.safetensors", name, value)
    assert_states(cli("compare", evident, "--out", "page").refusal(), "explanation/gradient")


@pytest.mark.parametrize("value", [-1, 10**9, 2**62, None])
def test_a_label_that_there_is_not_is_damaged_evidence(cli: Callable, evident: Path, value: int | None) -> None:
    file = evident / "evaluation" / "pgd" / "labels.safetensors"
    change(file, "labels", value)
    labels = digest_tensors(read_tensors(file)[0])
    edited(file.parent / "result.json", labels=labels)  # and the result names these
    assert_states(cli("compare", evident, "--out", "page").refusal(), file.name, "damaged")


@pytest.mark.parametrize("value", [-9, 7, None])
def test_an_attack_that_there_is_not_is_damaged_evidence(cli: Callable, evident: Path, value: int | None) -> None:
    (file,) = (evident / "evaluation" / "pgd").glob("*-*.safetensors")
    change(file, "found_by", value)
    assert_states(cli("compare", evident, "--out", "page").refusal(), file.name, "damaged")


@pytest.mark.parametrize("value", [None, "x", [], -1, 10**30, [None]])
def test_a_result_of_evidence_with_a_wrong_value_is_damaged(cli: Callable, evident: Path, value: object) -> None:
    for place, names in (
        (
            "evaluation/pgd",
            ["seed", "classes", "norm", "protocol", "attacks", "seconds", "labels", "balanced", "per_class"],
        ),
        ("explanation/gradient", ["seed", "samples", "norm", "settings", "notes", "means"]),
    ):
        whole = (file := evident / place / "result.json").read_text()
        for name in names:
            if (name, value) == ("notes", []):
                continue
            rewritten(file, json.loads(whole) | {name: value})
            assert_states(cli("compare", evident, "--out", "page").refusal(), place)
        file.write_text(whole)


@pytest.mark.parametrize("text", ["null", "3", '"x"', "[" * 100_000, "9" * 5000])
def test_a_result_that_is_no_mapping_is_damaged(cli: Callable, evident: Path, text: str) -> None:
    (evident / "evaluation" / "pgd" / "result.json").write_text(text)
    resealed(evident)
    for words in (("compare", evident, "--out", "page"), ("evaluate", evident, "--resume")):
        assert_states(cli(*words).refusal(), "evaluation/pgd/result.json", "damaged")
