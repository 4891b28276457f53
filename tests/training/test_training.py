"""The trainer: what it chooses, what it warns of, what it records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

import asgt
from asgt.data import load_data, stratified
from asgt.errors import InputError
from asgt.files import read_sealed, read_tensors
from asgt.training.config import METHODS, TrainConfig
from asgt.training.run_folder import RunFolder
from asgt.training.schedule import learning_rate, ramped
from asgt.training.trainer import train
from support.edits import rewritten
from support.informed import shortcut_for
from support.messages import assert_states


class Heard:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def start(self, title: str, total: int, done: int = 0) -> None: ...
    def advance(self, parts: int = 1, **values: float) -> None: ...
    def say(self, message: str) -> None: ...
    def stop(self) -> None: ...
    def warn(self, message: str) -> None:
        self.warnings.append(message)


def quick(**settings: Any) -> TrainConfig:
    return TrainConfig(**({"method": "st", "limit": 300, "epochs": 2, "batch_size": 32} | settings))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_leaves_a_whole_run_folder(method: str, tmp_path: Path) -> None:
    result = train(quick(method=method, epochs=1, **shortcut_for(method)), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    for file in (folder.config, folder.metrics, folder.model, folder.checkpoint, folder.result, folder.split):
        assert file.is_file()
    assert result == folder.load_result()

    [row] = folder.rows()
    terms = [row[name] for name in ("clean", "adversarial", "consistency", "reasons") if name in row]
    assert row["loss"] == pytest.approx(sum(terms), abs=1e-5)
    assert ("validation_pgd" in row) is (method not in ("st", "sgt", "rrr"))
    model, data, config, _ = asgt.load_run(folder.path)
    assert config.method == method
    assert not model.training
    assert model(data.test.pixels[:2] / 255).shape == (2, 10)


@pytest.mark.slow
def test_a_collapsed_run_is_named_while_it_runs_and_in_the_result(tmp_path: Path) -> None:
    # A learning rate far too small to leave the first prediction, which is one class for nearly all digits.
    heard = Heard()
    result = train(quick(method="at", lr=1e-9, epochs=3, schedule="constant", seed=1), tmp_path / "run", progress=heard)
    assert result.collapsed
    assert any("collapse" in line for line in heard.warnings)
    assert any("collapse" in line for line in result.warnings)
    assert result.chosen_by == "last epoch"


@pytest.mark.slow
def test_catastrophic_overfitting_is_named_on_a_model_that_masks_its_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two accuracies are made, as no run of seconds overfits catastrophically for sure; what is tested is that an
    # epoch with such accuracies is named, counted, and put into the result.
    from asgt.attacks import FGSM
    from asgt.training import validating

    def made(model: Any, images: Any, attack: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(images),), isinstance(attack, FGSM))

    monkeypatch.setattr(validating, "correct_under_attack", made)
    heard = Heard()
    result = train(quick(method="at", attack="fgsm", epochs=2), tmp_path / "run", progress=heard)
    assert result.catastrophic_overfitting
    assert any("catastrophic overfitting" in line for line in heard.warnings)
    assert any("catastrophic overfitting" in line for line in result.warnings)


@pytest.mark.slow
def test_the_chosen_epoch_is_the_best_after_the_ramp_and_its_weights_are_the_model(tmp_path: Path) -> None:
    result = train(quick(method="asgt", eps=0.1, warmup=0.5, epochs=6), tmp_path / "run")
    rows = RunFolder(tmp_path / "run").rows()
    allowed = [row for row in rows if row["epoch"] + 1 > 3 and not row["collapsed"]]
    best = max(allowed, key=lambda row: row["validation_pgd"])
    assert rows[result.chosen_epoch]["validation_pgd"] == best["validation_pgd"]
    assert result.chosen_epoch >= 3

    # Another route to the same accuracy: the saved weights on the validation rows, drawn again.
    model, _, config, _ = asgt.load_run(tmp_path / "run")
    images = load_data("digits", limit=config.limit).train
    held_out = images[stratified(images.labels, config.validation, "validation")[1]]
    right = model(held_out.pixels / 255).argmax(dim=1) == held_out.labels
    assert float(right.float().mean()) == pytest.approx(result.validation["clean"])
    balanced = balanced_accuracy_score(held_out.labels, model(held_out.pixels / 255).argmax(dim=1))
    assert result.balanced["clean"] == pytest.approx(balanced)
    assert result.balanced.keys() == result.validation.keys()
    assert rows[result.chosen_epoch]["balanced_pgd"] == result.balanced["pgd"]
    assert_states(str(result), "balanced accuracy", f"{100 * balanced:.1f} %")
    # A training.json of an earlier version knows none, and is read.
    told = read_sealed(tmp_path / "run" / "training.json")[0]
    del told["balanced"]
    rewritten(tmp_path / "run" / "training.json", told)
    assert RunFolder(tmp_path / "run").load_result().balanced == {}
    assert "balanced" not in str(RunFolder(tmp_path / "run").load_result())


def test_keep_last_takes_the_last_epoch(tmp_path: Path) -> None:
    result = train(quick(keep="last", epochs=3), tmp_path / "run")
    assert (result.chosen_epoch, result.chosen_by) == (2, "last epoch")


def test_the_average_of_the_weights_is_what_counts_when_asked_for(tmp_path: Path) -> None:
    train(quick(average=0.9, keep="last"), tmp_path / "run")
    tensors, _ = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    saved, _ = read_tensors(tmp_path / "run" / "model.safetensors")
    for name, weights in saved.items():
        assert torch.equal(weights, tensors[f"average.module.{name}"])
    assert not torch.equal(saved["net.0.weight"], tensors["model.net.0.weight"])


@pytest.mark.slow
def test_bf16_trains(tmp_path: Path) -> None:
    result = train(quick(method="asgt", precision="bf16", epochs=1), tmp_path / "run")
    assert 0 <= result.validation["pgd"] <= result.validation["clean"] <= 1


def test_tensorboard_writes_its_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an extra: asgt[tensorboard]")
    train(quick(epochs=1, tensorboard=True), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_training_leaves_the_global_generator_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(quick(epochs=1), tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


def test_a_loss_that_is_no_number_stops_the_run_with_a_word(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        train(quick(lr=1e30, epochs=1), tmp_path / "run")
    assert_states(refused.value, "loss", "epoch 0", "--lr", "1e+30")


def test_schedules_are_what_their_papers_draw() -> None:
    assert learning_rate("constant", 0.1, 0.7) == 0.1
    assert learning_rate("cosine", 0.1, 0.5) == pytest.approx(0.05)
    assert learning_rate("one-cycle", 0.1, 0.3) == pytest.approx(0.1)
    assert learning_rate("one-cycle", 0.1, 0.65) == pytest.approx(0.05)
    rates = [learning_rate("one-cycle", 1.0, step / 100) for step in range(100)]
    assert rates[:30] == sorted(rates[:30])
    assert rates[30:] == sorted(rates[30:], reverse=True)


def test_eps_ramps_linearly_and_stays() -> None:
    assert [ramped(0.3, done, 0.5) for done in (0.0, 0.25, 0.5, 0.9)] == pytest.approx([0.0, 0.15, 0.3, 0.3])
    assert ramped(0.3, 0.0, 0.0) == 0.3


def test_defaults_follow_data_and_method() -> None:
    assert TrainConfig(data="mnist", method="at").resolved().eps == 0.3
    assert TrainConfig(data="mnist", method="at").resolved().warmup == 0.3
    cifar = TrainConfig(data="cifar10", method="trades").resolved()
    assert (cifar.eps, cifar.warmup, cifar.augment, cifar.weight) == (8 / 255, 0.0, "crop-flip", 6.0)
    assert TrainConfig(method="sgt").resolved().eps is None
    assert TrainConfig(eps="16/255").resolved().eps == pytest.approx(16 / 255)
    config = TrainConfig(method="asgt", attack="fgsm-rs").resolved()
    assert (config.attack, config.steps) == ("fgsm-rs", None)
    assert config.resolved() == config
