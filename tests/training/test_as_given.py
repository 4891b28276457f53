"""A run of no epochs: a run folder of weights as they were given, which all that reads runs can read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asgt.comparison.comparing import compare
from asgt.errors import InputError
from asgt.evaluation.curve import evaluate
from asgt.files import read_tensors
from asgt.runs.run import load_run, read_run
from asgt.runs.verifying import verify
from asgt.training.config import TrainConfig
from asgt.training.run_folder import AS_GIVEN, RunFolder
from asgt.training.trainer import train
from support.edits import edited
from support.given import Fixed, Told, images, normalised, saved
from support.messages import assert_states

NONE: dict[str, Any] = {"method": "st", "epochs": 0}


class Constant(nn.Module):
    """Class 1, whatever the image shows; it is frozen and in half precision, so that no training could begin."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 3).half().requires_grad_(False)
        with torch.no_grad():
            self.fc.weight.zero_(), self.fc.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(1).half()).float()


def constant() -> nn.Module:
    return Constant()


@pytest.fixture(scope="module")
def _pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the digits of one epoch."""

    out = tmp_path_factory.mktemp("pretrained") / "run"
    config = TrainConfig(method="st", width=0.25, epochs=1, limit=200, batch_size=20)
    train(config, out)
    return out


@pytest.fixture
def pretrained(_pretrained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(_pretrained, tmp_path / "pretrained")


@pytest.mark.parametrize("kind", ["weights", "run", "factory", "module"])
def test_a_run_folder_holds_the_weights_as_they_are(kind: str, tmp_path: Path) -> None:
    net = Constant() if kind in ("factory", "module") else normalised()
    asked: dict[str, Any] = {}
    model: Any = {"factory": constant, "module": net}.get(kind)
    if kind in ("weights", "run"):
        asked = {"weights": str(saved(net, tmp_path / "weights.pt")), "width": 0.1}
    if kind == "run":
        train(TrainConfig(**NONE | asked), tmp_path / "source", data=images(3))
        asked = {"from_run": str(tmp_path / "source")}
    told = Told()
    result = train(TrainConfig(**NONE | asked), tmp_path / "run", data=images(3), model=model, progress=told)  # type: ignore[arg-type]

    held = read_tensors(tmp_path / "run/model.safetensors")[0]
    prefix = "net." if kind == "factory" else ""
    assert set(held) == {prefix + name for name in net.state_dict()}
    assert all(torch.equal(held[prefix + name], value) for name, value in net.state_dict().items())
    assert (result.epochs, result.chosen_epoch, result.chosen_by) == (0, -1, AS_GIVEN)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == b""
    assert "passes per step" not in told.text
    x = torch.rand(2, 1, 8, 8)
    again, _, config, _ = load_run(tmp_path / "run", data=images(3), model=model)
    torch.testing.assert_close(again(x), net.eval()(x))
    assert config.epochs == 0
    read = read_run(tmp_path / "run")
    assert (read.history, read.result) == ((), RunFolder(tmp_path / "run").load_result())
    if model is not None:
        # Of three equally frequent classes one is predicted.
        assert result.validation == pytest.approx({"clean": 1 / 3})
        assert result.collapsed
        (warning,) = result.warnings
        assert_states(warning, "collapse", "--mean")
        assert "epoch" not in warning
        assert_states(result.table().title, AS_GIVEN)
    # Nothing of it has to be trained to be finished, or read to be resumed.
    shutil.rmtree(tmp_path / "source", ignore_errors=True)
    assert train(config, tmp_path / "run", data=images(3), model=model, resume=True).start == result.start


@pytest.mark.usefixtures("torchvision_operators")
def test_a_model_of_transformers_is_given_with_its_own_weights(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    net = transformers.ViTForImageClassification(
        transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, num_labels=3)
    )
    net.save_pretrained(tmp_path / "vit")
    train(TrainConfig(**NONE, model=f"hf:{tmp_path / 'vit'}"), tmp_path / "run", data=images(3))
    held = read_tensors(tmp_path / "run/model.safetensors")[0]
    assert all(torch.equal(held[f"net.{name}"], value) for name, value in net.state_dict().items())


@pytest.mark.parametrize("lacking", ["result", "manifest", "all but what was asked"])
def test_a_killed_run_of_no_epochs_is_made_again(lacking: str, tmp_path: Path) -> None:
    config = TrainConfig(**NONE, width=0.1, weights=saved(normalised(), tmp_path / "weights.pt"))  # type: ignore[arg-type]
    whole = train(config, tmp_path / "run", data=images(3))
    weights = (tmp_path / "run/model.safetensors").read_bytes()
    gone = ["manifest.json", "training.json", "checkpoint.safetensors", "model.safetensors", "metrics.jsonl"]
    for name in {"result": gone[:2], "manifest": gone[:1]}.get(lacking, gone):
        (tmp_path / "run" / name).unlink()
    again = train(config, tmp_path / "run", data=images(3), resume=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() == weights
    assert (again.validation, again.warnings, again.start) == (whole.validation, whole.warnings, whole.start)
    assert all(each.is_sound for each in verify(tmp_path / "run"))


def test_weights_that_nobody_gave_are_refused(tmp_path: Path) -> None:
    def refusal(net: Any = None, **settings: Any) -> InputError:
        with pytest.raises(InputError) as raised:
            train(TrainConfig(**NONE | settings), tmp_path / "run", data=images(3), model=net)
        assert not (tmp_path / "run").exists()
        return raised.value

    for model in ("small_cnn", "alexnet", "timm:resnet18"):
        assert_states(refusal(model=model), "epochs = 0", model, "--weights", "--from")
    assert_states(refusal(epochs=-1), "epochs = -1")
    # Without a parameter there is nothing to keep.
    assert_states(refusal(nn.Sequential(nn.Flatten(), nn.AvgPool1d(21))), "weights")
    # A new head would be random, and what it is measured to be no property of what was given.
    file = saved(normalised(7), tmp_path / "weights.pt")
    assert_states(refusal(weights=str(file), width=0.1), "epochs = 0", "7 logits", "3 classes", "random")
    saved(Fixed(), file)
    assert_states(refusal(Fixed(), weights=str(file)), "epochs = 0", "7 logits", "3 classes", "random")


def test_a_grid_of_seeds_takes_no_weights_as_given(pretrained: Path, tmp_path: Path) -> None:
    from asgt.experiments.preset import load_preset

    text = f"data: digits\ntrain: {{from_run: {pretrained}}}\nmethods: [{{method: st, epochs: 0}}]\n"
    (tmp_path / "grid.yaml").write_text(f"{text}evaluate: {{epsilons: [0.1]}}\n")
    with pytest.raises(InputError) as raised:
        load_preset(str(tmp_path / "grid.yaml"))
    assert_states(raised.value, "epochs = 0", "seed")


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_before_stands_beside_after(pretrained: Path, cli: Callable[..., Any]) -> None:
    common = ("--limit", "200", "--batch-size", "20", "--from", pretrained)
    answer = cli("train", "--epochs", "0", *common)
    assert answer.status == 0
    before = Path("runs/digits-small_cnn-as-given-0")
    assert before.is_dir()
    assert_states(answer.out, AS_GIVEN)
    assert (
        cli(
            "train", "--epochs", "1", "--method", "at", "--eps", "0.2", "--warmup", "0", *common, "--out", "after"
        ).status
        == 0
    )
    for run in (before, "after"):
        answer = cli("evaluate", run, "--samples", "20", "--epsilons", "0.1,0.2", "--protocol", "paper")
        assert answer.status == 0, answer.err
    assert cli("explain", before, "after", "--samples", "10", "--out", "maps").status == 0
    answer = cli("compare", before, "after", "--out", "page")
    assert answer.status == 0
    table = answer.out.index(AS_GIVEN)
    assert table < answer.out.index("AT-PGD", table)
    page = Path("page/report.html").read_text()
    assert AS_GIVEN in page
    assert cli("verify", before).status == 0

    comparison = compare([before, "after"])
    assert [method.name for method in comparison.methods] == [AS_GIVEN, "AT-PGD"]
    # What was not trained was trained at no ε, whatever its validation images were attacked at.
    assert comparison.trained_eps() == 0.2
    alone = compare([before])
    assert alone.trained_eps() is None
    assert cli("compare", before, "--out", "alone").status == 0


def evaluated(run: Path) -> Path:
    model, splits, _, _ = load_run(run)
    evaluate(model, splits.test[:10], protocol="paper", epsilons=(0.1,), folder=run / "evaluation/paper")
    return run


def test_the_same_weights_are_no_two_seeds(pretrained: Path, tmp_path: Path) -> None:
    runs = []
    for seed in (0, 1):
        config = TrainConfig(epochs=0, seed=seed, limit=100, method=("st", "at")[seed], from_run=str(pretrained))
        train(config, tmp_path / f"run-{seed}")
        runs.append(evaluated(tmp_path / f"run-{seed}"))
    with pytest.raises(InputError) as raised:
        compare(runs)
    assert_states(raised.value, *runs, AS_GIVEN, "spread", "remove one")


def test_files_of_different_runs_are_told_apart(pretrained: Path, tmp_path: Path) -> None:
    train(TrainConfig(**NONE, limit=100, from_run=str(pretrained)), tmp_path / "run")
    result = tmp_path / "run/training.json"
    whole = {file: file.read_bytes() for file in (result, tmp_path / "run/model.safetensors")}
    (tmp_path / "run/manifest.json").unlink()

    edited(result, chosen_epoch=3)
    (found,) = verify(tmp_path / "run")
    assert any("chose" in finding.text for finding in found.findings)
    result.write_bytes(whole[result])
    shutil.copy(pretrained / "model.safetensors", tmp_path / "run/model.safetensors")
    (found,) = verify(tmp_path / "run")
    assert any("step" in finding.text for finding in found.findings)
