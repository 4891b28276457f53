"""Wrong input gets one clear line and exit status 2, over the real command line: what, where, how to mend it.

Every family has a case that runs as a process of its own; the others call the same entry point in this process.
"""

from __future__ import annotations

import io
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from support.command import Answer
from support.edits import edited, resealed
from support.messages import assert_states


def png(number: int) -> bytes:
    """A grey image of 8 × 8 pixels, all of one level."""

    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), number, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """What stands in the files of a folder, hidden ones too."""

    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def evaluated(asgt: Callable, weights: Path) -> Answer:
    """The answer to somebody's weights, said to be a small_cnn's for the digits."""

    words = ("--model", "small_cnn", "--data", "digits", "--samples", 5, "--epsilons", 0.1, "--out", "evidence")
    return asgt("evaluate", "--weights", weights, *words)


# What the parser or the configuration refuses ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--eps 8", ["eps", "8/255"]),
        ("--eps -0.1", ["eps", "-0.1"]),
        ("--eps nan", ["eps", "nan"]),
        ("--eps inf", ["eps", "inf"]),
        ("--eps abc", ["eps", "abc", "8/255"]),
        ("--eps 1/0", ["eps", "1/0"]),
        ("--eps", ["--eps"]),
        ("--alpha 0", ["alpha"]),
        ("--k -0.5", ["k", "-0.5", "1"]),
        ("--k 1.5", ["k", "1.5", "1"]),
        ("--k -0.1", ["k", "-0.1", "1"]),
        ("--k nan", ["k", "nan"]),
        ("--epochs -1", ["epochs", "-1"]),
        ("--epochs 0", ["epochs", "0"]),
        ("--epochs 0.5", ["--epochs", "0.5", "whole number"]),
        ("--epochs ten", ["--epochs", "ten", "whole number"]),
        ("--batch-size 0", ["batch_size", "0"]),
        ("--steps 0", ["steps", "0"]),
        ("--limit 1", ["limit", "two"]),
        ("--seed -1", ["seed", "-1"]),
        ("--lr 0", ["lr", "0.0"]),
        ("--lr fast", ["--lr", "fast", "number"]),
        ("--momentum 1", ["momentum"]),
        ("--average 1", ["average"]),
        ("--validation 0", ["validation"]),
        ("--warmup 1", ["warmup"]),
        ("--weight -1", ["weight"]),
        ("--checkpoint-every -1", ["checkpoint_every", "-1.0"]),
        ("--norm l3", ["--norm", "linf", "l2"]),
        ("--schedule linear", ["--schedule", "cosine"]),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(cli: Callable, words: str, said: list[str]) -> None:
    line = cli("train", *words.split()).refusal()

    assert_states(line, *said)
    assert "<class" not in line, line


@pytest.mark.parametrize(
    ("words", "given", "nearest"),
    [
        ("tran", "tran", "'train'"),
        ("train --methd at", "--methd", "'--method'"),
        ("train --batchsize 3", "--batchsize", "'--batch-size'"),
        ("train --method asgd", "asgd", "'asgt'"),
        ("train --attack pdg", "pdg", "'pgd'"),
        ("train --model resnet81", "resnet81", "'resnet18'"),
        ("train --data minst", "minst", "'mnist'"),
        ("train --data cifar-10", "cifar-10", "'cifar10'"),
        ("evaluate . --protokol pgd", "--protokol", "'--protocol'"),
        ("evaluate . --protocol pdg", "pdg", "'pgd'"),
        ("evaluate . --protocol papers", "papers", "'paper'"),
    ],
)
def test_the_nearest_name_is_given_for_an_unknown_one(cli: Callable, words: str, given: str, nearest: str) -> None:
    line = cli(*words.split()).refusal()

    # In quotes, as no other of the known names is.
    assert_states(line, given, nearest)


@pytest.mark.parametrize(
    ("words", "ignored"),
    [
        ("--method at --k 0.2", "--k"),
        ("--method trades --attack fgsm", "--attack"),
        ("--attack fgsm --steps 3", "--steps"),
        ("--attack fgsm-rs --norm l2", "--norm"),
        ("--method st --eps 0.1", "--eps"),
        ("--method st --detach-clean", "--detach-clean"),
        ("--method sgt --warmup 0.1", "--warmup"),
        ("--clean-weight 1", "--clean-weight"),
        ("--dropout 0.5", "--dropout"),
        ("--model resnet18 --dropout 0.5", "--dropout"),
        ("--grey", "--grey"),
        ("--image-size 16", "--image-size"),
        ("--label-column y", "--label-column"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(cli: Callable, words: str, ignored: str) -> None:
    line = cli("train", *words.split()).refusal()

    assert_states(line, ignored, "remove")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train digits", "'digits'"),
        ("--data digits", "--data"),
        ("train --device cuda:99", "cuda:99"),
        ("train --device abacus", "abacus"),
        ("train --config none.yaml", "none.yaml"),
        ("evaluate", "--model"),
        ("evaluate nowhere", "nowhere"),
        ("evaluate .", "config.yaml"),
        ("evaluate --model small_cnn --weights w.pt --data digits", "--out"),
        ("evaluate --model small_cnn --weights w.pt --data digits --out e", "w.pt"),
        ("evaluate --model small_cnn --weights w.pt --data digits --out e --mean 0.5", "--std"),
        ("evaluate --model small_cnn --weights w.pt --data digits --out e --mean 0.5 --std 0", "std"),
        ("evaluate --model small_cnn --weights w.pt --data digits --out e --mean 0.5,0.5 --std 1,1", "2 means"),
        ("evaluate . --mean 0.5 --std 0.5", "--mean"),
        ("evaluate . --width 2", "--width"),
        ("evaluate . --batch-size 0", "--batch-size"),
        ("evaluate . --epsilons 0.1,abc", "abc"),
        ("evaluate . --norm l3", "l3"),
        ("evaluate . --protocol paper --norm l2", "--protocol pgd"),
    ],
)
def test_a_command_that_does_not_fit_together_names_what_is_wrong(cli: Callable, words: str, said: str) -> None:
    assert_states(cli(*words.split()).refusal(), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [", []),
        ("just words", []),
        ("epochz: 3", ["epochz", "'epochs'"]),
        ("epochs: ten", ["epochs", "ten"]),
        ("model: [a, b]", ["model"]),
        ("data: 5", ["data", "5"]),
    ],
)
def test_a_configuration_file_that_is_wrong_is_named(cli: Callable, tmp_path: Path, text: str, said: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text)

    line = cli("train", "--config", "mine.yaml").refusal()

    # A value is found by its name, as on the command line; what has none is found by its file.
    assert_states(line, *(said or ["mine.yaml"]))
    assert "<class" not in line, line


@pytest.mark.slow
def test_a_configuration_file_that_is_right_is_taken_and_flags_override_it(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("method: at\nsteps: 1\neps: 8/255\nlr: 1e-3\nlimit: 60\nepochs: 7\n")

    answer = cli("train", "--config", "mine.yaml", "--epochs", 1, "--out", "run")

    assert answer.status == 0, answer.err
    stored = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    asked = {"method": "at", "steps": 1, "eps": 8 / 255, "lr": 0.001, "limit": 60, "epochs": 1}
    assert {name: stored[name] for name in asked} == asked


def test_a_wrong_value_is_refused_by_the_process(process: Callable) -> None:
    line = process("train", "--eps", "8").refusal()

    assert "8/255" in line


def test_an_unknown_flag_is_refused_by_the_process(process: Callable) -> None:
    assert "'--method'" in process("train", "--methd", "at").refusal()


# Data ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["./nowhere", "../nowhere/images", "images/"])
def test_a_data_folder_that_is_missing_is_named(cli: Callable, place: str) -> None:
    assert_states(cli("train", "--data", place).refusal(), place)


def test_a_file_for_a_data_folder_is_refused(cli: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 2, "dog": 2})

    assert_states(cli("train", "--data", folder / "cat" / "0.png").refusal(), folder / "cat" / "0.png", "file")


def test_an_empty_name_of_data_is_not_the_current_folder(cli: Callable, image_folder: Callable) -> None:
    image_folder("cat", {".": 8})
    image_folder("dog", {".": 8})

    # As from a shell's unset variable: --data "$IMAGES".
    assert "data" in cli("train", "--data", "", "--method", "st", "--epochs", 1).refusal()


def test_a_folder_without_images_is_refused(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing to see")

    assert_states(cli("train", "--data", "./notes").refusal(), "notes", "no images")


@pytest.mark.parametrize("damage", ["cut in half", "empty", "text"])
def test_an_image_that_cannot_be_read_is_named(cli: Callable, image_folder: Callable, damage: str) -> None:
    folder = image_folder("pets", {"cat": 4, "dog": 4}, size=(32, 32))
    broken = folder / "dog" / "2.png"
    whole = broken.read_bytes()
    broken.write_bytes({"cut in half": whole[: len(whole) // 2], "empty": b"", "text": b"a dog"}[damage])

    line = cli("train", "--data", folder).refusal()

    assert_states(line, Path("dog") / "2.png", "read")


def test_a_damaged_image_is_refused_by_the_process(warm: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 4, "dog": 4})
    (folder / "cat" / "1.png").write_bytes(b"no image")

    assert_states(warm("train", "--data", folder).refusal(), Path("cat") / "1.png")


def test_a_damaged_image_inside_a_parquet_file_is_named_by_its_row(cli: Callable, parquet: Callable) -> None:
    pictures = [png(number) for number in range(10)]
    pictures[5] = b"no image"
    folder = parquet("table", picture=pictures, label=[0, 1] * 5)

    line = cli("train", "--data", folder).refusal()

    assert_states(line, "image 5", "train")


def test_one_class_only_is_refused_and_named(cli: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 4})

    line = cli("train", "--data", folder).refusal()

    assert_states(line, "one class", "cat")


def test_too_few_images_to_split_are_refused_with_a_way_out(cli: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 1, "dog": 1})

    line = cli("train", "--data", folder).refusal()

    assert_states(line, "pets", "test")


def test_a_limit_that_leaves_nothing_to_validate_on_is_refused_by_its_name(cli: Callable) -> None:
    # One image a class: none can be set aside.
    line = cli("train", "--limit", 10).refusal()

    assert "limit" in line or "validation" in line


def test_labels_that_are_real_numbers_are_refused(cli: Callable, parquet: Callable) -> None:
    folder = parquet("table", photo=[png(n) for n in range(10)], price=[float(n) for n in range(10)])

    line = cli("train", "--data", folder).refusal()

    assert_states(line, "price", "real")
    line = cli("train", "--data", folder, "--out", "two", "--label-column", "price").refusal()
    assert_states(line, "price", "real")


def test_a_table_without_labels_or_without_images_is_refused(cli: Callable, parquet: Callable) -> None:
    no_labels = parquet("no-labels", photo=[png(n) for n in range(4)])
    no_images = parquet("no-images", label=[0, 1, 0, 1])

    assert_states(cli("train", "--data", no_labels, "--out", "a").refusal(), no_labels, "column", "labels")
    assert_states(cli("train", "--data", no_images, "--out", "b").refusal(), no_images, "column", "images")


def test_an_image_without_a_label_is_refused_by_its_row(cli: Callable, parquet: Callable) -> None:
    folder = parquet("table", photo=[png(n) for n in range(6)], label=["a", "b", None, "a", "b", "a"])

    assert_states(cli("train", "--data", folder).refusal(), "image 2", "label")


def test_several_label_columns_are_refused_until_one_is_named(cli: Callable, parquet: Callable) -> None:
    folder = parquet("table", photo=[png(n) for n in range(20)], fine=[n % 4 for n in range(20)], coarse=[0, 1] * 10)
    small = ("--method", "st", "--epochs", 1, "--batch-size", 4)

    line = cli("train", "--data", folder, "--out", "a", *small).refusal()
    assert_states(line, "fine", "coarse", "--label-column")

    line = cli("train", "--data", folder, "--out", "b", *small, "--label-column", "course").refusal()
    assert_states(line, "course", "coarse")

    answer = cli("train", "--data", folder, "--out", "c", *small, "--label-column", "coarse")
    assert answer.status == 0, answer.err


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_out_of_range_is_refused(cli: Callable, tmp_path: Path, wrong: int) -> None:
    import datasets
    import pyarrow.parquet

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(12)], "label": [0, 1, 2] * 4}
    table = datasets.Dataset.from_dict(rows, features=features).data.table
    # The library would not let such a label in, but a file may hold it.
    labels = pyarrow.array([0, 1, 2] * 3 + [0, 1, wrong], pyarrow.int64())
    table = table.set_column(1, table.schema.field("label"), labels)
    (tmp_path / "table").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "table" / "train.parquet")

    line = cli("train", "--data", "./table").refusal()

    assert_states(line, f"label {wrong}", "0", "2")


def test_a_test_label_that_training_never_saw_is_refused(cli: Callable, parquet: Callable) -> None:
    parquet("table", photo=[png(n) for n in range(6)], label=["a", "b"] * 3)
    folder = parquet("table", split="test", photo=[png(n) for n in range(2)], label=["a", "zebra"])

    assert_states(cli("train", "--data", folder).refusal(), "zebra")


def test_a_parquet_file_that_is_none_is_refused_by_the_process(warm: Callable, tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "train.parquet").write_bytes(b"PAR1 but not really")

    # In a process of its own, where the library that reads it logs an error too.
    assert_states(warm("train", "--data", "./table").refusal(), "train.parquet", "read")


def test_a_nan_pixel_is_refused_by_the_file_that_has_it(cli: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 3, "dog": 3})
    pixels = np.full((8, 8), 0.5, dtype=np.float32)
    pixels[3, 4] = np.nan
    Image.fromarray(pixels).save(folder / "dog" / "bad.tiff")

    line = cli("train", "--data", folder).refusal()

    assert_states(line, "bad.tiff", "NaN")


@pytest.mark.parametrize(("kind", "said"), [(np.uint16, "65535"), (np.int32, "8"), (np.float32, "real")])
def test_an_image_of_another_depth_without_a_known_range_is_refused(
    cli: Callable, image_folder: Callable, kind: type, said: str
) -> None:
    folder = image_folder("pets", {"cat": 3, "dog": 3})
    Image.fromarray(np.full((8, 8), 2, dtype=kind)).save(folder / "cat" / "deep.tiff")

    line = cli("train", "--data", folder).refusal()

    assert_states(line, "deep.tiff", "--pixel-range", said)


def test_images_of_different_sizes_are_refused_until_a_size_is_given(cli: Callable, image_folder: Callable) -> None:
    image_folder("pets", {"cat": 8}, size=(10, 12))
    folder = image_folder("pets", {"dog": 8}, size=(9, 30))
    small = ("--data", folder, "--method", "st", "--epochs", 1)

    line = cli("train", *small, "--out", "a").refusal()
    assert_states(line, "--image-size", "12×10")

    answer = cli("train", *small, "--out", "b", "--image-size", 8)
    assert answer.status == 0, answer.err


def test_images_too_small_for_the_model_are_refused(cli: Callable) -> None:
    line = cli("train", "--model", "alexnet").refusal()

    assert_states(line, "alexnet", "8", "16")


def test_a_data_root_that_is_missing_is_named(cli: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGT_DATA", "./nowhere")

    assert_states(cli("train", "--data", "mnist").refusal(), "ASGT_DATA", "./nowhere")


def test_a_hub_that_cannot_be_reached_is_said_with_a_way_out(cli: Callable) -> None:
    assert "ASGT_DATA" in cli("train", "--data", "mnist", "--out", "a").refusal()
    assert "ASGT_DATA" in cli("train", "--data", "somebody/pictures", "--out", "b").refusal()


def test_no_network_is_said_by_the_process(warm: Callable) -> None:
    assert "ASGT_DATA" in warm("train", "--data", "mnist").refusal()


@pytest.mark.parametrize("words", [["--data", "./nowhere"], ["--dropout", "0.5"], ["--device", "cuda:99"]])
def test_a_refused_training_leaves_no_run_folder_in_the_way(cli: Callable, tmp_path: Path, words: list[str]) -> None:
    cli("train", "--out", "run", *words).refusal()

    assert not (tmp_path / "run").exists()


# Run folders ---------------------------------------------------------------------------------------------------------


def test_an_out_that_exists_is_refused_without_resume(cli: Callable, finished_run: Path) -> None:
    before = contents(finished_run)

    line = cli("train", "--method", "st", "--out", finished_run).refusal()

    assert_states(line, finished_run, "--resume")
    assert contents(finished_run) == before


def test_a_file_for_a_folder_is_refused(cli: Callable, finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    for out in ("file", "file/inside"):
        assert "file" in cli("train", "--method", "st", "--epochs", 1, "--limit", 100, "--out", out).refusal()
        assert "file" in cli("evaluate", finished_run, "--samples", 2, "--epsilons", 0.1, "--out", out).refusal()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_something_else_is_not_resumed(cli: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 2})

    assert_states(cli("train", "--resume", "--out", folder).refusal(), folder, "run folder")


@pytest.mark.parametrize(
    ("words", "name", "kept", "asked"),
    [
        ("--epochs 7", "epochs", "2", "7"),
        ("--seed 3", "seed", "0", "3"),
        ("--lr 0.5", "lr", "0.1", "0.5"),
        ("--data mnist", "data", "digits", "mnist"),
        ("--model resnet18", "model", "small_cnn", "resnet18"),
        ("--width 0.5", "width", "None", "0.5"),
        ("--method asgt", "method", "st", "asgt"),
    ],
)
def test_a_flag_that_contradicts_the_run_resumed_is_refused(
    cli: Callable, stopped_run: Path, words: str, name: str, kept: str, asked: str
) -> None:
    before = contents(stopped_run)

    line = cli("train", "--resume", "--out", stopped_run, *words.split()).refusal()

    assert_states(line.replace(str(stopped_run), ""), f"--{name}", kept, asked)
    assert contents(stopped_run) == before


@pytest.mark.parametrize(("words", "name"), [("--method st", "method"), ("--attack fgsm", "attack")])
def test_a_contradiction_names_the_flag_that_was_given_not_one_it_entails(
    cli: Callable, tmp_path: Path, words: str, name: str
) -> None:
    from asgt.training.config import TrainConfig

    TrainConfig(method="asgt", attack="pgd").resolved().save(tmp_path / "run" / "config.yaml")

    line = cli("train", "--resume", "--out", "run", *words.split()).refusal()

    assert_states(line, f"--{name}", *words.split()[1:])


def test_a_contradiction_names_the_flag_as_it_is_typed(cli: Callable, stopped_run: Path) -> None:
    assert "--batch-size" in cli("train", "--resume", "--out", stopped_run, "--batch-size", 3).refusal()


def test_a_checkpoint_cut_in_half_is_named(cli: Callable, stopped_run: Path) -> None:
    cut_in_half(stopped_run / "checkpoint.safetensors")

    line = cli("train", "--resume", "--out", stopped_run).refusal()

    assert_states(line, stopped_run / "checkpoint.safetensors", "damaged")


def test_a_checkpoint_of_another_kind_or_model_is_named(cli: Callable, stopped_run: Path) -> None:
    shutil.copy(stopped_run / "model.safetensors", stopped_run / "checkpoint.safetensors")
    assert "checkpoint.safetensors" in cli("train", "--resume", "--out", stopped_run).refusal()


def test_metrics_damaged_in_the_middle_are_named(cli: Callable, stopped_run: Path) -> None:
    metrics = stopped_run / "metrics.jsonl"
    metrics.write_text('{"epoch": 0, "st' + "\n" + metrics.read_text())

    assert_states(cli("train", "--resume", "--out", stopped_run).failure(), metrics, "damaged", "line 1")


def test_training_images_that_changed_are_not_resumed_on(cli: Callable, image_folder: Callable, tmp_path: Path) -> None:
    folder = image_folder("pets", {"cat": 20, "dog": 20})
    answer = cli("train", "--data", folder, "--method", "st", "--epochs", 1, "--out", "run")
    assert answer.status == 0, answer.err
    (tmp_path / "run" / "training.json").unlink()
    for number in range(20):
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "cat" / f"{number}.png")

    assert_states(cli("train", "--resume", "--out", "run").refusal(), "run", "training images")


def test_test_images_that_changed_are_not_evaluated_on(cli: Callable, image_folder: Callable) -> None:
    folder = image_folder("pets", {"cat": 20, "dog": 20})
    answer = cli("train", "--data", folder, "--method", "st", "--epochs", 1, "--out", "run")
    assert answer.status == 0, answer.err
    for number in range(20):
        Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "cat" / f"{number}.png")

    assert "test images" in cli("evaluate", "run").refusal()


def test_weights_cut_in_half_are_named(cli: Callable, finished_run: Path) -> None:
    cut_in_half(finished_run / "model.safetensors")

    for answer in (cli("evaluate", finished_run), evaluated(cli, finished_run / "model.safetensors")):
        assert_states(answer.refusal(), finished_run / "model.safetensors", "damaged")


def test_damaged_weights_are_refused_by_the_process(warm: Callable, finished_run: Path) -> None:
    cut_in_half(finished_run / "model.safetensors")

    assert_states(warm("evaluate", finished_run).refusal(), finished_run / "model.safetensors", "damaged")


def test_an_unfinished_run_is_not_evaluated(cli: Callable, stopped_run: Path) -> None:
    line = cli("evaluate", stopped_run).refusal()

    assert_states(line, stopped_run, "finished", "--resume")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [digits", []),
        ("- data\n- digits\n", []),
        ("data: digits\nepochz: 3\n", ["epochz", "'epochs'"]),
        ("data: digits\nepochs: ten\n", ["epochs", "ten"]),
        ("data: digits\nlr: fast\n", ["lr", "fast"]),
        ("data: 5\n", ["data", "5"]),
        ("data: digits\nmodel: 3\n", ["model", "3"]),
        ("data: digits\nmodel:\n", ["model"]),
        ("data: digits\nmodel: [a, b]\n", ["model"]),
        ("data: digits\nwidth: wide\n", ["width", "wide"]),
        ("data: digits\ngrey: maybe\n", ["grey", "maybe"]),
        ("data: digits\neps: 8\n", ["eps", "8/255"]),
        ("\x00\x01", []),
    ],
)
def test_a_damaged_configuration_is_named(cli: Callable, finished_run: Path, text: str, said: list[str]) -> None:
    (finished_run / "config.yaml").write_text(text)

    line = cli("evaluate", finished_run).refusal()
    assert_states(line, finished_run / "config.yaml", "damaged", *said)

    line = cli("train", "--resume", "--out", finished_run).refusal()
    assert_states(line, finished_run / "config.yaml", "damaged")


@pytest.mark.parametrize("text", ["{", "[]", "{}", "3", '{"epochs": 1}'])
def test_a_damaged_result_is_named(cli: Callable, finished_run: Path, text: str) -> None:
    (finished_run / "training.json").write_text(text)
    resealed(finished_run)

    assert_states(cli("evaluate", finished_run).refusal(), finished_run / "training.json", "damaged")


@pytest.mark.parametrize(("name", "value"), [("width", 0.5), ("model", "resnet18")])
def test_a_configuration_of_another_model_than_the_weights_is_refused(
    cli: Callable, finished_run: Path, name: str, value: object
) -> None:
    edited(finished_run / "config.yaml", **{name: value})

    line = cli("evaluate", finished_run).refusal()

    assert_states(line, finished_run / "model.safetensors", "another model")


# Evaluations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--samples 0", ["--samples", "0"]),
        ("--samples 360", ["360", "359"]),
        ("--epsilons 0", ["eps", "0"]),
        ("--epsilons 0,0.1", ["eps", "0"]),
        ("--epsilons 8", ["8/255"]),
        ("--epsilons -0.1", ["-0.1"]),
        ("--epsilons nan", ["nan"]),
        ("--epsilons ,", ["empty"]),
        ("--model alexnet", ["small_cnn", "alexnet"]),
        ("--device cuda:99", ["cuda:99"]),
    ],
)
def test_an_evaluation_that_cannot_be_meant_is_refused(
    cli: Callable, finished_run: Path, words: str, said: list[str]
) -> None:
    line = cli("evaluate", finished_run, *words.split()).refusal()

    assert_states(line, *said)
    assert not (finished_run / "evaluation").exists()


@pytest.mark.slow
def test_an_evaluation_is_taken_up_only_with_the_same_settings(cli: Callable, finished_run: Path) -> None:
    asked = {"--samples": 5, "--epsilons": "0.1,0.2"}

    def evaluate(words: dict[str, object], *more: str) -> Answer:
        return cli("evaluate", finished_run, *(word for pair in words.items() for word in pair), *more)

    assert evaluate(asked).status == 0
    before = contents(finished_run / "evaluation")

    assert "--resume" in evaluate(asked).refusal()
    for other in ({"--epsilons": "0.2"}, {"--samples": 6}, {"--seed": 1}, {"--norm": "l2"}):
        assert "settings" in evaluate(asked | other, "--resume").refusal()
    assert contents(finished_run / "evaluation") == before

    # A pure repetition is taken up whole.
    assert evaluate(asked, "--resume").status == 0
    assert contents(finished_run / "evaluation") == before


@pytest.mark.slow
def test_evidence_cut_in_half_is_named(cli: Callable, finished_run: Path) -> None:
    asked = ("evaluate", finished_run, "--samples", 5, "--epsilons", 0.1)
    assert cli(*asked).status == 0
    evidence = next((finished_run / "evaluation" / "pgd").rglob("*-*.safetensors"))
    cut_in_half(evidence)

    assert_states(cli("compare", finished_run).refusal(), evidence.name, "damaged")
    answer = cli(*asked, "--resume")

    assert answer.status == 0, answer.err
    assert_states(answer.err, evidence.name, "damaged", "again")


# Weights of strangers ------------------------------------------------------------------------------------------------


class Payload:
    """Opens a file for writing as soon as a pickle that holds it is read by code that trusts it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def test_a_pickle_of_code_does_run_when_it_is_trusted(tmp_path: Path) -> None:
    """What the next two tests rest on."""

    pickle.loads(pickle.dumps(Payload(tmp_path / "ran"))).close()

    assert (tmp_path / "ran").exists()


def test_a_pickle_of_code_in_a_pytorch_file_does_not_run(cli: Callable, tmp_path: Path) -> None:
    torch.save({"0.weight": Payload(tmp_path / "ran")}, tmp_path / "weights.pt")

    line = evaluated(cli, tmp_path / "weights.pt").refusal()

    assert not (tmp_path / "ran").exists()
    assert "weights.pt" in line
    # PyTorch's own advice is to trust the file.
    assert "weights_only" not in line
    assert "two options" not in line
    assert line.isprintable()


def test_a_bare_pickle_of_code_does_not_run_in_the_process(process: Callable, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))

    line = evaluated(process, tmp_path / "weights.pt").refusal()

    assert not (tmp_path / "ran").exists()
    assert "weights.pt" in line
    assert "weights_only" not in line


@pytest.mark.parametrize(("content", "said"), [(b"", "empty"), (b"hello", "damaged"), (b"PK\x03\x04", "damaged")])
def test_a_pytorch_file_that_is_none_is_named(cli: Callable, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "weights.pt").write_bytes(content)

    assert_states(evaluated(cli, tmp_path / "weights.pt").refusal(), tmp_path / "weights.pt", said)


def test_a_pytorch_file_cut_in_half_is_named(cli: Callable, tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(100)}, tmp_path / "weights.pt")
    cut_in_half(tmp_path / "weights.pt")

    assert_states(evaluated(cli, tmp_path / "weights.pt").refusal(), tmp_path / "weights.pt", "damaged")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {1: torch.zeros(3)}, torch.zeros(3)])
def test_a_pytorch_file_without_tensors_by_name_is_named(cli: Callable, tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "weights.pt")

    line = evaluated(cli, tmp_path / "weights.pt").refusal()

    assert_states(line, tmp_path / "weights.pt", "tensors")


def test_weights_of_another_model_are_refused(cli: Callable, tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(3)}, tmp_path / "weights.pt")

    assert_states(evaluated(cli, tmp_path / "weights.pt").refusal(), tmp_path / "weights.pt", "another model")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(cli: Callable, tmp_path: Path, value: float) -> None:
    from asgt.models import small_cnn

    weights = small_cnn(1, 8, 10).state_dict()
    weights["9.bias"][3] = value
    torch.save(weights, tmp_path / "weights.pt")

    assert_states(evaluated(cli, tmp_path / "weights.pt").refusal(), tmp_path / "weights.pt", "NaN", "9.bias")


# Models of the user's own --------------------------------------------------------------------------------------------

FACTORY = """
from pathlib import Path
from torch import nn
import asgt.models

Path(__file__).with_name("imported").touch()

def build(num_classes, in_channels, image_size):
    return asgt.models.small_cnn(in_channels, image_size, num_classes)

def seven(in_channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, 70), nn.AvgPool1d(10))

def picture():
    return nn.Conv2d(1, 1, 1)

def colour(num_classes):
    return nn.Sequential(nn.Conv2d(3, 1, 8), nn.Flatten(), nn.Linear(1, num_classes))

def number():
    return 3

NOTHING = None
"""


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of the user's, in the folder they stand in."""

    (tmp_path / "their_models.py").write_text(FACTORY)
    monkeypatch.delitem(sys.modules, "their_models", raising=False)
    return "their_models"


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("seven", ["7 logits", "10 classes", "10 outputs"]),
        ("picture", ["(2, 1, 8, 8)", "(B, K)"]),
        ("colour", ["(1, 8, 8)"]),
        ("number", ["int"]),
        ("NOTHING", ["NOTHING"]),
        ("biuld", ["biuld"]),
    ],
)
def test_a_factory_that_makes_no_classifier_is_refused(
    cli: Callable, factory: str, attribute: str, said: list[str]
) -> None:
    line = cli("train", "--model", f"{factory}:{attribute}").refusal()

    assert_states(line, *said)


def test_a_module_that_is_missing_is_named(cli: Callable) -> None:
    assert "no_such_module" in cli("train", "--model", "no_such_module:build").refusal()


def test_a_run_folder_runs_no_code_until_the_user_names_it(
    cli: Callable, factory: str, finished_run: Path, tmp_path: Path
) -> None:
    edited(finished_run / "config.yaml", model=f"{factory}:build")
    asked = ("evaluate", finished_run, "--samples", 5, "--epsilons", "0.1")

    line = cli(*asked).refusal()
    assert_states(line, f"--model {factory}:build")
    assert not (tmp_path / "imported").exists()

    line = cli(*asked, "--model", f"{factory}:other").refusal()
    assert_states(line, "--model", f"{factory}:build", f"{factory}:other")
    assert not (tmp_path / "imported").exists()

    assert cli(*asked, "--model", f"{factory}:build").status == 0
    assert (tmp_path / "imported").exists()


def test_a_resumed_run_folder_runs_no_code_until_the_user_names_it(
    cli: Callable, factory: str, stopped_run: Path, tmp_path: Path
) -> None:
    edited(stopped_run / "config.yaml", model=f"{factory}:build")

    line = cli("train", "--resume", "--out", stopped_run).refusal()

    assert_states(line, f"--model {factory}:build")
    assert not (tmp_path / "imported").exists()


def test_timm_without_timm_is_said(cli: Callable) -> None:
    try:
        import timm  # noqa: F401
    except Exception:
        line = cli("train", "--model", "timm:resnet18").refusal()
        assert "asgt[timm]" in line
    else:
        pytest.skip("timm can be imported here")


# What goes wrong under way -------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_is_said_with_a_way_out(cli: Callable) -> None:
    answer = cli("train", "--method", "st", "--limit", 100, "--batch-size", 10, "--epochs", 1, "--lr", "1e30")

    assert "--lr" in answer.failure()


def test_no_room_on_disk_is_said_and_leaves_the_checkpoint_whole(
    cli: Callable, warm: Callable, stopped_run: Path
) -> None:
    before = contents(stopped_run)
    assert len(before["checkpoint.safetensors"]) > 200_000

    answer = warm("train", "--resume", "--out", stopped_run, largest_file=50_000)

    line = answer.failure()
    assert_states(line, stopped_run, "write", "File too large")
    after = contents(stopped_run)
    assert after["checkpoint.safetensors"] == before["checkpoint.safetensors"]
    assert after["model.safetensors"] == before["model.safetensors"]
    assert set(after) == set(before)

    assert cli("train", "--resume", "--out", stopped_run).status == 0


def test_no_room_for_evidence_is_said(warm: Callable, finished_run: Path) -> None:
    answer = warm("evaluate", finished_run, "--samples", 5, "--epsilons", 0.1, largest_file=1_000)

    assert_states(answer.failure(), finished_run / "evaluation", "write")
    assert not list((finished_run / "evaluation").rglob("*.*"))


# What a refusal leaves behind ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["--attribution", "gradcam", "--layer", "nowhere"],
        ["--samples", 360],
        ["--eps", 8],
        ["--eps", "-0.1"],
        ["--device", "cuda:99"],
        ["--batch-size", 0],
    ],
)
def test_a_refused_explanation_leaves_nothing_in_the_way(
    cli: Callable, finished_run: Path, tmp_path: Path, words: list[object]
) -> None:
    cli("explain", finished_run, "--out", "page", "--samples", 8, *words).failure()

    assert not (finished_run / "explanation").exists()
    assert not (tmp_path / "page").exists()
    answer = cli("explain", finished_run, "--out", "page", "--samples", 8)
    assert answer.status == 0, answer.err


@pytest.mark.parametrize(
    "words",
    [
        ["--epsilons", "8"],
        ["--epsilons", "0.1", "--samples", 999],
        ["--epsilons", "0.1", "--protocol", "standard", "--norm", "l3"],
        ["--epsilons", "0.1", "--mean", 123.7, "--std", 58],
        ["--epsilons", "0.1", "--mean", 0.5, "--std", 58],
        ["--epsilons", "0.1", "--mean", "nan", "--std", 0.5],
    ],
)
def test_a_refused_evaluation_of_weights_leaves_no_folder(
    cli: Callable, finished_run: Path, tmp_path: Path, words: list[object]
) -> None:
    model = ("--model", "small_cnn", "--weights", finished_run / "model.safetensors", "--data", "digits")

    cli("evaluate", *model, "--out", "evidence", *words).refusal()

    assert not (tmp_path / "evidence").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "alexnet"}, "16"),
        ({"batch_size": 7, "model": "timm:nothing"}, "timm"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"data": "./nowhere"}, "nowhere"),
    ],
)
def test_a_grid_of_which_no_run_can_begin_leaves_no_folder(
    cli: Callable, warm_workers: None, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    grid = {
        "data": settings.pop("data", "digits"),
        "train": {"epochs": 1, "limit": 60} | settings,
        "methods": [{"method": "st"}],
        "evaluate": {"protocols": ["pgd"], "epsilons": [0.1], "samples": 10},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(grid))

    line = cli("reproduce", "mine.yaml", "--out", "grid", "--workers", 1).failure()

    assert_states(line, said)
    assert not (tmp_path / "grid").exists()
