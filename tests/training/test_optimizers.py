"""The optimizer of a training and the clipping of its gradient: against plain PyTorch, resumed, and refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from asgt import Images, InputError, TrainConfig
from asgt.data import load_data, stratified, to_unit
from asgt.errors import InterruptedRunError
from asgt.experiments.preset import load_preset
from asgt.files import digest_file, read_tensors, write_tensors
from asgt.models import build_model
from asgt.training.checkpoint import Learner, TrainingState, load_checkpoint, save_checkpoint
from asgt.training.optimizers import OPTIMIZERS, make_optimizer
from asgt.training.trainer import train
from support.messages import assert_states
from support.trainings import assert_same, rows, step_of

QUICK: dict[str, Any] = {"method": "st", "limit": 60, "width": 0.25, "device": "cpu"}
NEW = ("optimizer", "clip_norm", "label_smoothing", "class_weights")
FILLED = (
    "momentum",
    "weight_decay",
)  # which a still older version may lack, and which have no default of their own now


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return build_model("small_cnn", (1, 8, 8), 10, mean=[0.3], std=[0.4], width=0.25)


def trained_on(limit: int = 60) -> tuple[Tensor, Tensor, Images]:
    """The training images of :data:`QUICK` without the validation part, as one batch."""

    data = load_data("digits", limit=limit)
    chosen, _ = stratified(data.train.labels, 0.1, "validation")
    return to_unit(data.train[chosen].pixels), data.train[chosen].labels, data.train


def stop_after(count: int) -> Callable[[], bool]:
    steps = iter(range(1, 10**6))
    return lambda: next(steps) >= count


def interrupted_and_resumed(config: TrainConfig, run: Path, steps: int) -> None:
    with pytest.raises(InterruptedRunError):
        train(config, run, should_stop=stop_after(steps))
    assert step_of(run) == steps
    train(config, run, resume=True)


# AdamW ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"lr": 0.01, "weight_decay": 0.3}], ids=["defaults", "set"])
def test_adamw_takes_the_steps_of_a_plain_loop(settings: dict[str, float], tmp_path: Path) -> None:
    model, (x, y, _) = net(), trained_on()
    theirs = copy.deepcopy(model)
    named = {"lr": 0.001, "weight_decay": 0.01} | settings
    plain = torch.optim.AdamW(theirs.parameters(), lr=named["lr"], weight_decay=named["weight_decay"], fused=False)

    # All images are one batch: three epochs are three steps, and their order is of no account.
    asked = {"epochs": 3, "batch_size": 60, "schedule": "constant", "keep": "last", "optimizer": "adamw"}
    train(TrainConfig(**QUICK | {"width": None} | asked | settings), tmp_path / "run", model=model)
    theirs.train()
    for _ in range(3):
        plain.zero_grad()
        F.cross_entropy(theirs(x), y).backward()
        plain.step()

    for mine, other, first in zip(model.parameters(), theirs.parameters(), net().parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=2e-5)
        assert (mine - first).abs().max() > 5e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "average": 0.9, "clip_norm": 0.3, "schedule": "cosine"},
        {"clip_norm": 0.3},
        {"label_smoothing": 0.2, "class_weights": "balanced", "clip_norm": 5.0},
        {"class_weights": ",".join(map(str, range(1, 11)))},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_a_run_that_is_stopped_within_an_epoch_ends_bit_identical(settings: dict[str, Any], tmp_path: Path) -> None:
    config = TrainConfig(
        **QUICK | {"method": "at", "attack": "fgsm", "batch_size": 9, "epochs": 2, "eps": 0.05} | settings
    )

    train(config, tmp_path / "whole")
    interrupted_and_resumed(config, tmp_path / "run", 9)  # of 6 steps an epoch

    assert_same(tmp_path / "run", tmp_path / "whole")
    assert ("gradient_norm" in rows(tmp_path / "run")[0]) == ("clip_norm" in settings)


class _Scaled(nn.Module):
    """A linear model with a scale: a weight of a single number, of the shape of AdamW's count of steps."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3).double()
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.scale * self.linear(x))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_checkpoint_gives_back_the_optimizers_state_to_the_last_bit(name: str, tmp_path: Path) -> None:
    x = torch.rand(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def step(learner: Learner) -> None:
        learner.optimizer.zero_grad()
        learner.model(x).square().sum().backward()
        learner.optimizer.step()

    def made() -> Learner:
        model = _Scaled()
        return Learner(model, None, make_optimizer(name, model.parameters(), {}))

    first, second = made(), made()
    for _ in range(3):
        step(first)
    save_checkpoint(tmp_path / "c.safetensors", TrainingState(), first, {})
    load_checkpoint(tmp_path / "c.safetensors", read_tensors(tmp_path / "c.safetensors"), second)

    states = [learner.optimizer.state_dict()["state"] for learner in (first, second)]
    assert {"adamw": 3, "sgd": 1}[name] == len(states[0][0])
    for index, own in states[0].items():
        for key, tensor in own.items():
            assert states[1][index][key].dtype == tensor.dtype, key
            assert torch.equal(states[1][index][key], tensor), key
    for learner in (first, second):
        step(learner)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_an_optimizer_takes_groups_of_weights() -> None:
    model = _Scaled()

    made = make_optimizer(
        "adamw", [{"params": model.linear.parameters()}, {"params": [model.scale], "lr": 0.5}], {"lr": 0.1}
    )

    assert [group["lr"] for group in made.param_groups] == [0.1, 0.5]
    assert all(group["fused"] and group["weight_decay"] == 0.01 for group in made.param_groups)


# Defaults, and settings that are ignored ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "filled"),
    [
        ({}, ("sgd", 0.05, 0.9, 5e-4)),
        ({"lr": 0.1, "momentum": 0.0}, ("sgd", 0.1, 0.0, 5e-4)),
        ({"optimizer": "adamw"}, ("adamw", 0.001, None, 0.01)),
        ({"optimizer": "adamw", "lr": "1/8", "weight_decay": 0}, ("adamw", 0.125, None, 0.0)),
    ],
)
def test_the_defaults_are_those_of_the_optimizer(
    asked: dict[str, Any], filled: tuple[Any, ...], tmp_path: Path
) -> None:
    config = TrainConfig(**asked).resolved()

    assert (config.optimizer, config.lr, config.momentum, config.weight_decay) == filled
    assert config.resolved() == config
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--optimizer adamw --momentum 0.9", ["--momentum 0.9", "adamw", "remove it"]),
        ("--optimizer adamw --momentum 0", ["--momentum", "adamw"]),
        ("--optimizer adam", ["--optimizer", "adamw", "sgd"]),
        ("--optimizer adamw --lr 0", ["lr", "0.0"]),
        ("--optimizer adamw --weight-decay -1", ["weight_decay", "-1.0"]),
        ("--clip-norm 0", ["clip_norm", "0.0"]),
        ("--clip-norm -2", ["clip_norm", "-2.0"]),
        ("--clip-norm nan", ["clip-norm", "nan"]),
        ("--clip-norm 1e39", ["clip_norm", "1e+39"]),
        ("--clip-norm tight", ["--clip-norm", "tight"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(cli: Callable, tmp_path: Path, words: str, said: list[str]) -> None:
    assert_states(cli("train", "--method", "st", "--out", "run", *words.split()).refusal(), *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_norm_that_is_no_number_is_refused_in_python(value: float) -> None:
    with pytest.raises(InputError) as refused:
        TrainConfig(clip_norm=value).resolved()
    assert_states(refused.value, "clip_norm")


def test_another_optimizer_does_not_resume_a_run(cli: Callable, stopped_run: Path) -> None:
    for words, said in [(("--optimizer", "adamw"), ["optimizer", "sgd"]), (("--clip-norm", 1), ["clip_norm", "1.0"])]:
        assert_states(cli("train", "--resume", "--out", stopped_run, *words).refusal(), *said)


@pytest.mark.parametrize("lacking", [NEW, (*NEW, *FILLED)], ids=["new", "filled"])
def test_a_run_of_a_version_without_these_settings_goes_on(lacking: tuple[str, ...], tmp_path: Path) -> None:
    config, run = TrainConfig(**QUICK, epochs=2, batch_size=9), tmp_path / "run"
    train(config, tmp_path / "whole")
    with pytest.raises(InterruptedRunError):
        train(config, run, should_stop=stop_after(9))
    settings = yaml.safe_load((run / "config.yaml").read_text())
    assert (settings["lr"], settings["momentum"], settings["weight_decay"]) == (0.05, 0.9, 5e-4)
    for name in lacking:
        del settings[name]
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    tensors, metadata = read_tensors(run / "checkpoint.safetensors")
    standing = json.loads(metadata["standing"])
    standing["config"] = {name: value for name, value in standing["config"].items() if name not in lacking}
    standing["files"]["config.yaml"] = digest_file(run / "config.yaml")
    write_tensors(run / "checkpoint.safetensors", tensors, {"standing": json.dumps(standing)}, begin=False)

    train(config, run, resume=True)

    assert_same(run, tmp_path / "whole")


# Clipping -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, 4.0], ids=["longer", "shorter"])
def test_a_gradient_is_scaled_down_to_the_norm_and_its_own_norm_is_recorded(share: float, tmp_path: Path) -> None:
    model, (x, y, _) = net(), trained_on()
    theirs = copy.deepcopy(model).train()
    F.cross_entropy(theirs(x), y).backward()
    gradients = [weight.grad for weight in theirs.parameters() if weight.grad is not None]
    norm = sum(float(gradient.double().square().sum()) for gradient in gradients) ** 0.5

    plain = {"epochs": 1, "batch_size": 60, "schedule": "constant", "lr": 0.5, "momentum": 0.0, "weight_decay": 0.0}
    config = TrainConfig(**QUICK | {"width": None} | plain, clip_norm=share * norm)
    train(config, tmp_path / "run", model=model)

    assert rows(tmp_path / "run")[0]["gradient_norm"] == pytest.approx(norm, rel=1e-4)
    for mine, first, gradient in zip(model.parameters(), net().parameters(), gradients, strict=True):
        torch.testing.assert_close(mine, first - 0.5 * min(1.0, share) * gradient, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_overflows_ends_the_run_in_a_line(tmp_path: Path) -> None:
    class Steep(nn.Module):
        """Logits that are finite, with a gradient whose norm is not."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64, 10))

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(x.flatten(1) @ self.weight * 1e37)

    with pytest.raises(InputError) as refused:
        train(
            TrainConfig(**QUICK | {"width": None}, epochs=1, batch_size=60, clip_norm=1.0),
            tmp_path / "run",
            model=Steep(),
        )

    assert_states(refused.value, "gradient", "--lr")
    assert not (tmp_path / "run" / "model.safetensors").exists()


# Profiles and grids ---------------------------------------------------------------------------------------------------


def test_a_profile_takes_what_changes_the_cost_of_a_step(cli: Callable) -> None:
    words = ("profile", "--method", "asgt", "--attack", "fgsm", "--target", "log_prob", "--data-shape", "1x8x8")
    words += ("--model", "small_cnn", "--width", 0.25, "--batch-size", 4, "--repetitions", 1)

    plain = cli(*words)
    other = cli(
        *words, "--optimizer", "adamw", "--clip-norm", 1, "--label-smoothing", 0.1, "--class-weights", "balanced"
    )

    # The loss's own backward pass no longer gives the saliency of log p.
    passes = [next(line.split()[1] for line in answer.out.splitlines() if "ASGT" in line) for answer in (plain, other)]
    assert passes == ["10", "11"]
    assert_states(cli(*words, "--class-weights", "1,2").refusal(), "class_weights", "2 numbers", "10 classes")


def test_a_grid_gives_each_optimizer_what_it_listens_to(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    methods = [{"method": "st"}, {"method": "at", "optimizer": "adamw", "lr": 0.002, "clip_norm": 1.0}]
    grid = {
        "data": "digits",
        "train": {"momentum": 0.5, "lr": 0.1, "label_smoothing": 0.1, "class_weights": "balanced"},
        "methods": methods,
        "evaluate": {"epsilons": [0.1]},
    }
    file.write_text(yaml.safe_dump(grid))

    st, at = load_preset(str(file)).methods

    assert (st.optimizer, st.lr, st.momentum, st.clip_norm) == ("sgd", 0.1, 0.5, None)
    assert (at.optimizer, at.lr, at.momentum, at.clip_norm) == ("adamw", 0.002, None, 1.0)
    assert {(each.label_smoothing, each.class_weights) for each in (st, at)} == {(0.1, "balanced")}
    changed = load_preset(str(file), overrides={"optimizer": "adamw"}).methods
    assert [(each.optimizer, each.momentum) for each in changed] == [("adamw", None)] * 2

    methods[1]["momentum"] = 0.9
    file.write_text(yaml.safe_dump(grid | {"methods": methods}))
    with pytest.raises(InputError) as refused:
        load_preset(str(file))
    assert_states(refused.value, "momentum", "adamw")


def test_a_flag_of_pairs_takes_settings_of_several_numbers(cli: Callable) -> None:
    weights = ",".join(["0.5"] * 10)

    answer = cli("reproduce", "digits", "--dry-run", "--set", f"class_weights={weights},momentum=0.5")

    assert answer.status == 0, answer.err
    assert_states(
        cli("reproduce", "digits", "--dry-run", "--set", "class_weights=1,-2").refusal(), "class_weights", "-2"
    )
    assert_states(cli("reproduce", "digits", "--dry-run", "--set", "momentum=0.5,lr").refusal(), "--set", "lr")
