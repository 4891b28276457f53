"""CUDA graphs and tensor cores: what they compute, and where there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from asgt.errors import InputError, InterruptedRunError
from asgt.models import build_model
from asgt.randomness import Generators, seeded
from asgt.training.config import METHODS, TrainConfig
from asgt.training.graphs import GraphedStep
from asgt.training.methods import build_objective
from asgt.training.trainer import train
from support.informed import shortcut_for, told
from support.messages import assert_states

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def quick(**settings: Any) -> TrainConfig:
    return TrainConfig(epochs=2, limit=400, batch_size=64, lr=0.02, **settings)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_alike(folder: Path, most: float) -> None:
    """Weights and buffers of a plain and a recorded training, as near as those of two plain ones allow."""

    plain, again, recorded = (load_file(folder / name / "model.safetensors") for name in ("plain", "again", "recorded"))
    for name, tensor in plain.items():
        # Two plain runs may differ by the order of sums, and small differences grow.
        slack = min(1e-4 + 10 * float((tensor - again[name]).abs().max()), most)
        assert float((tensor - recorded[name]).abs().max()) <= slack, name


@cuda
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_replayed_step_is_the_step_itself(method: str, tmp_path: Path) -> None:
    # A ramp of ε, random starts, fills and momentum: all that differs from step to step must reach the recording.
    for name, graphs in (("plain", False), ("again", False), ("recorded", True)):
        train(quick(method=method, device="cuda", cuda_graphs=graphs, **shortcut_for(method)), tmp_path / name)

    assert_alike(tmp_path, most=0.01)
    for one, other in zip(rows(tmp_path / "plain"), rows(tmp_path / "recorded"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
        assert other["speed"]["outside_passes"] is None


@cuda
def test_batch_norm_and_an_average_replay_too(tmp_path: Path) -> None:
    for name, graphs in (("plain", False), ("again", False), ("recorded", True)):
        config = TrainConfig(
            data="digits", model="resnet18", width=0.125, method="asgt", attack="pgd", steps=2, epochs=1, limit=640,
            batch_size=64, average=0.9, device="cuda", cuda_graphs=graphs,
        )  # fmt: skip
        train(config, tmp_path / name)
    assert_alike(tmp_path, most=0.05)


@cuda
def test_every_replay_drops_out_anew() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).cuda()
    x, y = torch.rand(32, 1, 8, 8, device="cuda"), torch.randint(10, (32,), device="cuda")

    def compute(x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators) -> dict[str, Tensor]:
        for weight in model.parameters():
            weight.grad = None
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach()}

    step, losses = GraphedStep(compute, model), []
    for number in range(8):
        streams = Generators(*(seeded(name, number, device="cuda") for name in ("attack", "mask")))
        torch.manual_seed(number)
        losses.append(float(step(x, y, None, streams)["loss"]))
        torch.manual_seed(number)
        assert losses[-1] == pytest.approx(float(compute(x, y, None, streams)["loss"]), rel=1e-5)
    assert len(set(losses)) == 8


@cuda
def test_a_recorded_step_takes_targets_and_its_gradient_is_clipped(tmp_path: Path) -> None:
    targets = {"label_smoothing": 0.1, "class_weights": "balanced"}
    for name, graphs in (("plain", False), ("again", False), ("recorded", True)):
        config = quick(method="at", attack="fgsm", clip_norm=0.5, device="cuda", cuda_graphs=graphs, **targets)
        train(config, tmp_path / name)
    assert_alike(tmp_path, most=0.01)
    plain, recorded = rows(tmp_path / "plain"), rows(tmp_path / "recorded")
    assert plain[-1]["gradient_norm"] == pytest.approx(recorded[-1]["gradient_norm"], rel=5e-2)


@cuda
def test_adamw_goes_on_from_recorded_gradients(tmp_path: Path) -> None:
    for name, graphs in (("plain", False), ("recorded", True)):
        train(quick(method="st", optimizer="adamw", device="cuda", cuda_graphs=graphs), tmp_path / name)
    plain, recorded = rows(tmp_path / "plain"), rows(tmp_path / "recorded")
    assert plain[-1]["loss"] == pytest.approx(recorded[-1]["loss"], rel=5e-2)


@cuda
def test_a_run_goes_on_by_recorded_steps(tmp_path: Path) -> None:
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps == 3

    for name in ("plain", "again"):
        train(quick(method="asgt", device="cuda"), tmp_path / name)
    with pytest.raises(InterruptedRunError):
        train(quick(method="asgt", device="cuda"), tmp_path / "recorded", should_stop=stop)
    train(quick(method="asgt", device="cuda", cuda_graphs=True), tmp_path / "recorded", resume=True)
    assert_alike(tmp_path, most=0.01)


@cuda
def test_a_recorded_step_takes_bf16(tmp_path: Path) -> None:
    for name, graphs in (("plain", False), ("recorded", True)):
        train(quick(method="asgt", precision="bf16", device="cuda", cuda_graphs=graphs), tmp_path / name)
    plain, recorded = rows(tmp_path / "plain"), rows(tmp_path / "recorded")
    assert plain[-1]["loss"] == pytest.approx(recorded[-1]["loss"], rel=5e-2)


@cuda
def test_tensor_cores_train_and_are_put_back(tmp_path: Path) -> None:
    before = torch.get_float32_matmul_precision()
    result = train(quick(method="at", attack="fgsm", precision="tf32", device="cuda"), tmp_path / "run")
    assert 0 <= result.validation["pgd"] <= 1
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("settings", "facts"),
    [({"precision": "tf32"}, ["--precision tf32", "cpu"]), ({"cuda_graphs": True}, ["--cuda-graphs", "CUDA"])],
)
def test_without_cuda_both_are_refused_before_anything_is_written(
    settings: dict[str, object], facts: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        train(quick(method="st", device="cpu", **settings), tmp_path / "run")
    assert_states(refused.value, *facts, "remove the flag")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_radius_on_the_device_is_the_number_itself(method: str) -> None:
    config = quick(method=method).resolved()
    objective, model = build_objective(config), build_model("small_cnn", (1, 8, 8), 10, mean=[0.3], std=[0.4]).eval()
    x, y = torch.rand(8, 1, 8, 8, generator=seeded("x")), torch.arange(8)
    losses = [
        objective(
            model, x, y, eps=eps, generator=Generators(seeded("attack"), seeded("mask")), **told(objective, x)
        ).loss
        for eps in (0.07, torch.full((), 0.07))
    ]
    assert torch.equal(*losses)


def test_training_leaves_pytorchs_other_way_of_saying_so_alone(tmp_path: Path) -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        train(quick(method="st", device="cpu"), tmp_path / "run")
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    finally:
        torch.backends.cuda.matmul.fp32_precision = "none"
