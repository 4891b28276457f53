"""A run's configuration: values from Python of any type that can be meant, and how images are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from asgt import InputError, TrainConfig
from asgt.training.config import data_settings
from asgt.training.run_folder import RunFolder
from support.messages import assert_states

# Values from Python ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ({"eps": "8/255"}, {"eps": 8 / 255}),
        ({"eps": np.float64(0.25)}, {"eps": 0.25}),
        ({"eps": np.float32(0.25)}, {"eps": 0.25}),
        ({"eps": torch.tensor(0.25)}, {"eps": 0.25}),
        ({"alpha": np.float16(0.5)}, {"alpha": 0.5}),
        ({"alpha": "1/4"}, {"alpha": 0.25}),
        ({"seed": np.int64(3)}, {"seed": 3}),
        ({"seed": torch.tensor(3)}, {"seed": 3}),
        ({"epochs": np.int32(3), "batch_size": np.uint8(7)}, {"epochs": 3, "batch_size": 7}),
        ({"steps": np.int64(4), "limit": np.int16(90)}, {"steps": 4, "limit": 90}),
        ({"lr": np.float32(0.25), "momentum": np.float64(0.5)}, {"lr": 0.25, "momentum": 0.5}),
        ({"k": np.float32(0.5), "weight": "1/2", "average": "0.5"}, {"k": 0.5, "weight": 0.5, "average": 0.5}),
        ({"norm": np.str_("l2"), "keep": np.str_("last")}, {"norm": "l2", "keep": "last"}),
        ({"tensorboard": np.bool_(True)}, {"tensorboard": True}),
        ({"detach_clean": np.False_}, {"detach_clean": False}),
        ({"data": Path("some") / "images"}, {"data": "some/images"}),
        ({"pixel_range": (0, 4095)}, {"pixel_range": "0,4095"}),
        ({"pixel_range": [np.int64(-1000), 3000.5]}, {"pixel_range": "-1000,3000.5"}),
        ({"pixel_range": " 0 , 16777217 "}, {"pixel_range": "0,16777217"}),
    ],
)
def test_numbers_of_any_library_become_plain_ones(given: dict[str, Any], plain: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig(**given).resolved()

    assert config == TrainConfig(**plain).resolved()
    assert {name: (type(getattr(config, name)), getattr(config, name)) for name in plain} == {
        name: (type(value), value) for name, value in plain.items()
    }
    # As files hold it, and back.
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config


def test_the_configuration_that_was_given_stays_as_it_was() -> None:
    given = TrainConfig(seed=np.int64(3), eps="8/255")

    given.resolved()

    assert type(given.seed) is np.int64
    assert given.eps == "8/255"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"epochs": 2.5}, ["epochs", "2.5", "whole number"]),
        ({"seed": True}, ["seed", "True", "whole number"]),
        ({"seed": np.array([1, 2])}, ["seed", "whole number"]),
        ({"lr": "fast"}, ["lr", "fast"]),
        ({"epochs": None}, ["epochs"]),
        ({"eps": [0.1]}, ["eps", "8/255"]),
        ({"grey": "false"}, ["grey", "false", "true"]),
        ({"data": 5}, ["data", "5"]),
        ({"model": None}, ["model"]),
        ({"alpha": 2}, ["alpha", "2/255"]),
        ({"alpha": "1.01"}, ["alpha", "1.01/255"]),
        ({"eps": 8}, ["eps", "8/255"]),
    ],
)
def test_a_value_that_cannot_be_meant_is_one_line(given: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as error:
        TrainConfig(**given).resolved()

    assert_states(error.value, *said)


def test_a_step_in_l2_may_be_longer_than_the_range_of_a_pixel() -> None:
    config = TrainConfig(norm="l2", eps=3, alpha=2).resolved()

    assert (config.eps, config.alpha) == (3.0, 2.0)


# How images are read --------------------------------------------------------------------------------------------------


def test_only_what_is_set_is_asked_of_the_reader() -> None:
    assert TrainConfig().resolved().data_settings() == {}
    asked = {
        "image_size": 224,
        "crop": 0.875,
        "interpolation": "bicubic",
        "rgb": True,
        "decode": "imagefolder",
        "pixel_range": "0,4095",
        "image_column": "photo",
        "label_column": "fine",
        "data_config": "small",
    }

    assert TrainConfig(data="x", **asked).resolved().data_settings() == asked | {"pixel_range": (0.0, 4095.0)}
    assert data_settings({"grey": False, "image_size": None, "seed": 3, "crop": 1.0}) == {"crop": 1.0}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--crop 0", ["crop", "0.0"]),
        ("--crop 1.5", ["crop", "1.5"]),
        ("--crop nan", ["crop"]),
        ("--crop 87.5%", ["--crop", "87.5%"]),
        ("--interpolation bicubik", ["--interpolation", "bicubic"]),
        ("--interpolation cubic", ["--interpolation", "bicubic"]),
        ("--decode exif", ["--decode", "imagefolder"]),
        ("--pixel-range 4095", ["pixel_range", "0,4095"]),
        ("--pixel-range 4095,0", ["pixel_range", "4095,0", "lowest"]),
        ("--pixel-range 0,0", ["pixel_range", "0,0"]),
        ("--pixel-range 0,inf", ["pixel_range", "inf"]),
        ("--pixel-range 0,white", ["pixel_range", "white"]),
        ("--pixel-range 0,1,2", ["pixel_range", "0,1,2"]),
        ("--pixel-range 3000,-1000", ["pixel_range", "3000,-1000"]),
        ("--pixel-range -1000,-2000", ["pixel_range", "-1000,-2000"]),
        ("--grey --rgb", ["--grey", "--rgb"]),
        ("--image-size 0", ["image_size", "0"]),
        ("--image-size -8", ["image_size", "-8"]),
        ("--alpha 2", ["alpha", "2/255"]),
    ],
)
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_setting_of_images_that_cannot_be_meant_is_refused_alike(
    cli: Callable, image_folder: Callable, tmp_path: Path, verb: str, words: str, said: list[str]
) -> None:
    image_folder("pets", {"cat": 8, "dog": 8})
    if verb == "evaluate" and "alpha" in words:
        pytest.skip("an evaluation's steps are its protocol's")
    (tmp_path / "small.pt").write_bytes(b"")
    model = ["--model", "small_cnn", "--weights", "small.pt"] if verb == "evaluate" else []

    line = cli(verb, *model, "--data", "pets", "--out", "out", *words.split()).refusal()

    assert_states(line, *said)
    assert not (tmp_path / "out").exists()


def test_a_range_that_begins_below_zero_needs_no_sign_of_equality(cli: Callable, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("pixel_range: 5,4\n")

    # The flag goes before the file, whose own value is refused.
    line = cli("train", "--config", "mine.yaml", "--pixel-range", "-1000,3000", "--data", "digits").refusal()

    assert "5,4" not in line
    assert "unexpected argument" not in line
    assert "digits" in line  # which are not read from files


def test_a_configuration_of_an_older_version_is_the_same_run(finished_run: Path) -> None:
    new = ("crop", "interpolation", "rgb", "decode", "pixel_range", "image_column", "data_config")
    settings = yaml.safe_load((finished_run / "config.yaml").read_text())
    before = TrainConfig.load(finished_run / "config.yaml")
    for name in new:
        del settings[name]
    (finished_run / "config.yaml").write_text(yaml.safe_dump(settings))

    assert TrainConfig.load(finished_run / "config.yaml") == before


def test_a_resumed_run_is_read_as_it_was_begun(cli: Callable, stopped_run: Path) -> None:
    line = cli("train", "--resume", "--out", stopped_run, "--interpolation", "bicubic").refusal()

    assert_states(line, "--interpolation", "None", "bicubic")


# Where a run found its data -------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(
    cli: Callable, image_folder: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A run that was trained on ``images/pets``, and an empty folder, in which the test stands."""

    image_folder("images/pets", {"cat": 20, "dog": 20})
    answer = cli("train", "--data", "images/pets", "--method", "st", "--epochs", 1, "--out", "run")
    assert answer.status == 0, answer.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "run", tmp_path / "images" / "pets"


def test_a_run_finds_its_data_from_another_folder(cli: Callable, elsewhere: tuple[Path, Path]) -> None:
    run, _ = elsewhere

    answer = cli("evaluate", run, "--epsilons", 0.1, "--samples", 4)

    assert answer.status == 0, answer.err


def test_a_run_whose_data_is_gone_says_where_it_looked(cli: Callable, elsewhere: tuple[Path, Path]) -> None:
    run, data = elsewhere
    data.rename(data.with_name("moved"))

    line = cli("evaluate", run, "--epsilons", 0.1, "--samples", 4).refusal()

    assert str(data) in line
    assert str(run.parent / "elsewhere") in line


def test_another_folder_of_the_same_name_is_not_taken_for_the_data(
    cli: Callable, elsewhere: tuple[Path, Path], image_folder: Callable
) -> None:
    run, data = elsewhere
    other = image_folder("elsewhere/images/pets", {"cat": 20, "dog": 20})

    answer = cli("evaluate", run, "--epsilons", 0.1, "--samples", 4)
    assert answer.status == 0, answer.err

    for image in data.rglob("*.png"):
        image.write_bytes((other / "cat" / "0.png").read_bytes())
    line = cli("evaluate", run, "--epsilons", 0.1, "--samples", 4, "--out", "again").refusal()
    assert str(data) in line
    assert str(other) in line


def test_what_here_cannot_be_read_does_not_hide_the_data(cli: Callable, elsewhere: tuple[Path, Path]) -> None:
    run, _ = elsewhere
    Path("images/pets").mkdir(parents=True)

    answer = cli("evaluate", run, "--epsilons", 0.1, "--samples", 4)

    assert answer.status == 0, answer.err


@pytest.mark.parametrize(
    ("settings", "trains", "looks"),
    [
        ({}, "", ""),
        ({"model": "timm:resnet18"}, "", ""),
        ({"model": "mine.nets:net"}, " --model mine.nets:net", " --model mine.nets:net"),
        ({"method": "mine:method"}, " --method mine:method", ""),
        ({"model": "m:n", "attack": "mine:attack"}, " --model m:n --attack mine:attack", " --model m:n"),
    ],
)
def test_a_command_on_a_run_names_its_own_code_again(
    tmp_path: Path, settings: dict[str, str], trains: str, looks: str
) -> None:
    folder = RunFolder(tmp_path / "my run")
    folder.path.mkdir()
    config = {"method": "at", "attack": "pgd", "data": "mnist", "model": "small_cnn"} | settings
    folder.config.write_text("".join(f"{name}: {value}\n" for name, value in config.items()))
    assert folder.command("train") == f"asgt train --resume --out '{folder.path}'{trains}"
    chosen = folder.command("evaluate", "--protocol pgd", "")
    assert chosen == f"asgt evaluate '{folder.path}' --protocol pgd{looks}"
    # Where the configuration is lost, the command is told without.
    folder.config.unlink()
    assert folder.command("explain") == f"asgt explain '{folder.path}'"
