"""What given weights ask of a training: their classes, their images, their model, and words where these contradict."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asgt.comparison.comparable import refuse_other_runs
from asgt.comparison.method_naming import group_by_method, method_names
from asgt.devices import place
from asgt.errors import DamagedFileError, InputError
from asgt.files import read_tensors
from asgt.models import build_model
from asgt.models.weights import load_weights
from asgt.modes import ask
from asgt.runs.run import Run, load_run, read_run
from asgt.training.config import TrainConfig
from asgt.training.trainer import train
from support.comparisons import hand_made
from support.given import Fixed, Told, fixed, images, normalised, saved
from support.messages import assert_states

SHORT: dict[str, Any] = {"method": "st", "epochs": 1, "batch_size": 20, "checkpoint_every": 0}


# Classes --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of transformers of five classes, for images of 8×8 px."""

    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("models") / "vit"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    names = dict(enumerate(("c1", "c0", "c2", "c3", "c4")))
    config = transformers.ViTConfig(**sizes, image_size=8, patch_size=4, num_channels=1, id2label=names)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("kind", ["hf", "factory", "module"])
def test_a_model_that_brings_its_weights_gets_a_head_of_the_datas_classes(kind: str, vit: Path, tmp_path: Path) -> None:
    model: Any = {"factory": fixed, "module": Fixed()}.get(kind)
    name = f"hf:{vit}" if kind == "hf" else TrainConfig.model
    config, told = TrainConfig(**SHORT, model=name, lr=1e-30, weight_decay=0.0), Told()
    before = read_tensors(vit / "model.safetensors")[0] if kind == "hf" else None
    result = train(config, tmp_path / "run", data=images(3), model=model, progress=told)  # type: ignore[arg-type]

    head = {"hf": "net.classifier", "factory": "net.fc", "module": "fc"}[kind]
    logits = 5 if kind == "hf" else 7
    assert (result.start["head"], result.start["logits"], result.start["weights"]) == (head, logits, "")
    (line,) = [line for line in told.lines if "replaced" in line]
    assert_states(line, head, f"{logits} logits", "3 classes")
    held = read_tensors(tmp_path / "run/model.safetensors")[0]
    assert held[f"{head}.weight"].shape[0] == 3
    if before is not None:
        name = "vit.embeddings.patch_embeddings.projection.weight"
        assert torch.equal(held[f"net.{name}"], before[name])
    again = Fixed() if kind == "module" else model
    read = load_run(tmp_path / "run", data=images(3), model=again)[0]
    assert ask(read, torch.rand(2, 1, 8, 8)).shape == (2, 3)
    # The checkpoint goes on with the new head.
    for file in ("manifest.json", "training.json"):
        (tmp_path / "run" / file).unlink()
    again = Fixed() if kind == "module" else model
    assert train(config, tmp_path / "run", data=images(3), model=again, resume=True).start == result.start


def test_a_run_of_a_factory_is_read_with_the_network_alone(tmp_path: Path) -> None:
    config = TrainConfig(**SHORT)
    train(config, tmp_path / "run", data=images(7), model=fixed)
    ours, theirs = (load_run(tmp_path / "run", data=images(7), model=model)[0] for model in (Fixed(), fixed))
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(ask(ours, x), ask(theirs, x))
    with pytest.raises(InputError) as raised:
        load_run(tmp_path / "run", data=images(7), model=nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))
    assert_states(raised.value, "model.safetensors", "missing")


@pytest.mark.usefixtures("torchvision_operators")
def test_classes_in_another_order_are_said_and_are_no_weights_as_they_are(vit: Path, tmp_path: Path) -> None:
    config, told = TrainConfig(**SHORT, model=f"hf:{vit}"), Told()
    train(config, tmp_path / "run", data=images(5), progress=told)  # type: ignore[arg-type]
    assert_states(told.text, vit, "order", "head is not replaced")
    for data, facts in ((images(5), ("order", "'c1'", "'c0'")), (images(3), ("5 logits", "3 classes", "random"))):
        with pytest.raises(InputError) as raised:
            train(replace(config, epochs=0), tmp_path / "given", data=data)
        assert_states(raised.value, "epochs = 0", *facts)
        assert not (tmp_path / "given").exists()


def test_a_passed_model_that_cannot_take_the_images_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        train(TrainConfig(**SHORT), tmp_path / "run", data=images(3, size=9), model=Fixed())
    assert_states(raised.value, "(1, 9, 9)", "cannot process")


# Images ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("torchvision_operators")
def test_weights_of_timm_see_images_as_timm_trained_them(
    image_folder: Callable[..., Path], cli: Callable[..., Any]
) -> None:
    timm = pytest.importorskip("timm")
    name = "test_resnet.r160_in1k"
    for part in ("train", "test"):
        folder = image_folder(f"pictures/{part}", {"cat": 12, "dog": 12}, size=(200, 180), mode="RGB").parent
    file = saved(timm.create_model(name, pretrained=False, num_classes=2), Path("net.pt"))
    common = ("--model", f"timm:{name}", f"--weights={file}", "--data", folder)
    answer = cli("train", *common, "--method", "st", "--epochs", "0", "--out", "run")
    assert answer.status == 0, answer.err
    own = timm.get_pretrained_cfg(name)
    said = (f"image size {own.input_size[1]}", f"crop {own.crop_pct}", f"interpolation {own.interpolation}")
    assert_states(answer.err, "preprocessing", *said, f"mean {own.mean[0]:g}")

    _, data, config, _ = load_run("run")
    assert data.test.shape == own.input_size
    assert config.data_settings()["crop"] == own.crop_pct
    # Evaluated by itself and by its run, it is the same model on the same images.
    attacks = ("--protocol", "paper", "--epsilons", "0.01", "--samples", "2")
    for words in ((*common, "--out", "alone"), ("run",)):
        answer = cli("evaluate", *words, *attacks)
        assert answer.status == 0, answer.err
    both = [json.loads(Path(place).read_text()) for place in ("alone/result.json", "run/evaluation/paper/result.json")]
    assert both[0]["data"] == both[1]["data"]
    assert both[0]["model"] == both[1]["model"]
    assert both[0]["attacks"] == both[1]["attacks"]
    # Random weights have seen no images: theirs stay as they are.
    assert TrainConfig(model=f"timm:{name}", data=str(folder)).data_settings() == {}


def test_a_run_is_started_from_with_images_of_its_size(image_folder: Callable[..., Path], tmp_path: Path) -> None:
    for name, size in (("one", (20, 16)), ("two", (30, 40))):
        for part in ("train", "test"):
            image_folder(f"{name}/{part}", {"cat": 10, "dog": 10}, size=size)
    settings = {"model": "resnet18", "width": 0.05, "image_size": 12, "crop": 0.75, "interpolation": "bicubic"}
    train(TrainConfig(**SHORT, **settings, data=str(tmp_path / "one")), tmp_path / "source")
    told = Told()
    config = TrainConfig(**SHORT, data=str(tmp_path / "two"), from_run=str(tmp_path / "source"))
    train(config, tmp_path / "run", progress=told)  # type: ignore[arg-type]
    kept = TrainConfig.load(tmp_path / "run/config.yaml")
    assert (kept.image_size, kept.crop, kept.interpolation) == (12, 0.75, "bicubic")
    assert_states(told.text, "image size 12", "crop 0.75", "interpolation bicubic")
    # What is set stays, and the line says that the source saw others.
    told = Told()
    train(replace(config, image_size=16), tmp_path / "other", progress=told)  # type: ignore[arg-type]
    assert TrainConfig.load(tmp_path / "other/config.yaml").image_size == 16
    assert_states(told.text, "12×12", "16×16", "--image-size")


# Settings that contradict the run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source") / "run"
    config = TrainConfig(**SHORT, model="alexnet", width=0.05)
    train(config, out, data=images(3, size=16))
    return out


@pytest.fixture
def alexnet(_alexnet: Path, tmp_path: Path) -> Path:
    """A finished run of alexnet of three classes, width 0.05, with its own dropout."""

    return shutil.copytree(_alexnet, tmp_path / "source")


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"width": 0.1}, ["--width 0.1", "width 0.05"]),
        ({"width": 1.0}, ["--width 1", "width 0.05"]),
        ({"dropout": 0.1}, ["--dropout 0.1", "dropout 0.5"]),
        ({"model": "resnet18"}, ["--model resnet18", "alexnet"]),
        ({"model": "timm:resnet18"}, ["--model timm:resnet18", "alexnet"]),
        ({"mean": 0.9, "std": 1}, ["--mean", "contradicts"]),
    ],
)
def test_a_setting_of_the_model_that_is_not_the_runs_is_refused(
    settings: dict[str, Any], facts: list[str], alexnet: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as raised:
        train(TrainConfig(**SHORT, **settings, from_run=str(alexnet)), tmp_path / "run", data=images(3, size=16))
    assert_states(raised.value, alexnet, *facts)
    assert not (tmp_path / "run").exists()


def test_a_setting_of_the_model_that_is_the_runs_is_accepted(alexnet: Path, tmp_path: Path) -> None:
    same = {"model": "alexnet", "width": 0.05, "dropout": 0.5}
    train(TrainConfig(**SHORT, **same, from_run=str(alexnet)), tmp_path / "run", data=images(3, size=16))
    kept = TrainConfig.load(tmp_path / "run/config.yaml")
    assert {name: getattr(kept, name) for name in same} == same
    # The file by itself takes any setting that it fits.
    by_file = TrainConfig(**SHORT, **same | {"dropout": 0.1}, weights=str(alexnet / "model.safetensors"))
    train(by_file, tmp_path / "file", data=images(3, size=16))


def test_a_normalisation_where_the_run_has_none_is_refused(tmp_path: Path) -> None:
    file = saved(build_model("small_cnn", (1, 8, 8), 3, width=0.1).net, tmp_path / "net.pt")  # type: ignore[arg-type]
    train(TrainConfig(**SHORT, width=0.1, weights=str(file)), tmp_path / "source", data=images(3))
    config = TrainConfig(**SHORT, mean="0.5", std="0.5", from_run=str(tmp_path / "source"))
    with pytest.raises(InputError) as raised:
        train(config, tmp_path / "run", data=images(3))
    assert_states(raised.value, "--mean", "--std", "does not normalise", tmp_path / "source")


def test_mean_and_std_belong_together_wherever_they_are_said(tmp_path: Path, cli: Callable[..., Any]) -> None:
    file = saved(normalised(), tmp_path / "net.pt")
    for lone, other in (("mean", "std"), ("std", "mean")):
        with pytest.raises(InputError) as raised:
            TrainConfig(**{lone: "0.5"}).resolved()
        assert_states(raised.value, f"--{lone}", "without", f"--{other}")
        with pytest.raises(InputError) as raised:
            build_model("small_cnn", (1, 8, 8), 3, **{lone: [0.5]})
        assert_states(raised.value, lone, "without", other)
        for verb in ("train", "evaluate"):
            words = ("--model", "small_cnn", f"--weights={file}", "--data", "digits", f"--{lone}", "0.5", "--out", "x")
            assert_states(cli(verb, *words).refusal(), f"--{lone}", f"--{other}", "together")


def test_a_contradiction_is_all_that_is_said(tmp_path: Path, cli: Callable[..., Any]) -> None:
    file = saved(normalised(10, width=0.1), tmp_path / "net.pt")
    common = ("train", f"--weights={file}", "--width", "0.1", "--method", "st", "--limit", "60")
    assert_states(cli(*common, "--mean", "0.3", "--std", "0.5").refusal(), "--mean contradicts", file)
    # What is found later is refused in one line too.
    saved(normalised(7, width=0.1), file)
    assert_states(cli(*common, "--epochs", "0").refusal(), "epochs = 0", "7 logits")


# Files that do not fit ------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    def __init__(self, size: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(size**2, 4), nn.Linear(4, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.flatten(1)).relu())


class Convolution(nn.Module):
    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(channels, 4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


@pytest.mark.parametrize(
    ("model", "theirs", "facts"),
    [
        (normalised(), normalised(width=0.2), ["net.0.weight", "6 more", "net.9.weight", "--width", "--model"]),
        (normalised(), build_model("resnet18", (1, 8, 8), 3, width=0.05), ["--model"]),
        (Linear(), Linear(size=12), ["body.weight", "another size", "--image-size"]),
        (Convolution(), Convolution(3), ["body.weight", "3 channel", "--rgb"]),
        (Convolution(3), Convolution(1), ["body.weight", "1 channel", "--grey"]),
        (Linear(), Linear(classes=7), ["head.weight", "1 more", "7 classes", "--classes"]),
        (Linear(), Convolution(), ["body.weight", "--model"]),
    ],
)
def test_weights_that_do_not_fit_say_how_to_mend_it(
    model: nn.Module, theirs: nn.Module, facts: list[str], tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError) as raised:
        load_weights(model, saved(theirs, tmp_path / "net.pt"))
    assert_states(raised.value, tmp_path / "net.pt", *facts)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", ["half precision", "prefix", "module", "empty"])
def test_files_of_every_kind_start_a_training_or_are_refused(kind: str, tmp_path: Path) -> None:
    net, file = normalised(), tmp_path / "net.pt"
    if kind == "half precision":
        torch.save({name: value.half() for name, value in net.state_dict().items()}, file)
    elif kind == "prefix":
        saved(net, file, "module.")
    elif kind == "module":
        torch.save(net, file)
    else:
        file.touch()
    config = TrainConfig(method="st", epochs=0, width=0.1, weights=str(file))
    if kind in ("module", "empty"):
        with pytest.raises(InputError) as raised:
            train(config, tmp_path / "run", data=images(3))
        assert_states(raised.value, file)
        assert not (tmp_path / "run").exists()
        return
    train(config, tmp_path / "run", data=images(3))
    for name, value in read_tensors(tmp_path / "run/model.safetensors")[0].items():
        expected = net.state_dict()[name]
        assert value.dtype == torch.float32
        assert torch.equal(value, expected.half().float() if kind == "half precision" else expected)


# Methods side by side -------------------------------------------------------------------------------------------------


def started(run: Run, **start: Any) -> Run:
    return replace(run, result=replace(run.result, start=start))


def of_run(seed: int, source: TrainConfig | None = None, **settings: Any) -> Run:
    """A run of AT that started from the run of that seed of ST."""

    source = source or TrainConfig(method="st").resolved()
    values = {name: value for name, value in source.to_dict().items() if name != "seed"}
    run = hand_made(method="at", seed=seed, right={}, folder=f"ft{seed}", from_run=f"pre{seed}", **settings)
    return started(run, sha256=f"sha of {seed}", source={"config": values, "start": {}})


def of_file(seed: int, sha256: str = "a" * 64, file: str = "net.pt", **settings: Any) -> Run:
    run = hand_made(**{"method": "at"} | settings, seed=seed, right={}, folder=f"w{seed}", weights=file)
    return started(run, sha256=sha256)


def scratch(seed: int = 0, method: str = "at", **settings: Any) -> Run:
    return hand_made(method=method, seed=seed, right={}, folder=f"{method}{seed}", **settings)


LONGER = TrainConfig(method="st", epochs=30).resolved()


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ([of_run(0), of_run(1)], {"AT-PGD": [0, 1]}),
        ([of_file(0), of_file(1, file="copies/net.pt")], {"AT-PGD": [0, 1]}),
        (
            [of_run(0), of_run(1), scratch(0)],
            {"AT-PGD (from a run of ST)": [0, 1], "AT-PGD (from random weights)": [0]},
        ),
        (
            [of_run(0), of_run(0, LONGER)],
            {"AT-PGD (from a run of ST (epochs = 10))": [0], "AT-PGD (from a run of ST (epochs = 30))": [0]},
        ),
        (
            [of_file(0), of_file(0, "b" * 64, "other.pt")],
            {"AT-PGD (from weights net.pt)": [0], "AT-PGD (from weights other.pt)": [0]},
        ),
        (
            [of_file(0), of_file(0, "b" * 64, "b/net.pt")],
            {"AT-PGD (from weights net.pt)": [0], "AT-PGD (from weights b/net.pt)": [0]},
        ),
        (
            [of_file(0), of_file(0, "b" * 64)],
            {
                "AT-PGD (from weights net.pt, SHA-256 aaaaaaaa)": [0],
                "AT-PGD (from weights net.pt, SHA-256 bbbbbbbb)": [0],
            },
        ),
        # Other methods from other kinds of weights are named so too: their base name alone would hide it.
        ([of_run(0), scratch(0, "st")], {"AT-PGD (from a run of ST)": [0], "ST (from random weights)": [0]}),
        ([of_file(0, epochs=0), of_file(0), of_file(1)], {"weights as given": [0], "AT-PGD": [0, 1]}),
        (
            [of_file(0, epochs=0), of_file(0, "b" * 64, "other.pt", epochs=0)],
            {"weights as given (from weights net.pt)": [0], "weights as given (from weights other.pt)": [0]},
        ),
    ],
)
def test_runs_are_told_apart_by_the_kind_of_weights_that_they_started_from(
    runs: list[Run], names: dict[str, list[int]]
) -> None:
    refuse_other_runs(runs)
    methods = group_by_method(runs)
    assert {method.name: [run.seed for run in method.runs] for method in methods} == names


def test_the_same_seed_from_the_same_kind_shows_no_spread() -> None:
    with pytest.raises(InputError) as raised:
        refuse_other_runs([of_run(0), replace(of_run(1), config=replace(of_run(1).config, seed=0))])
    assert_states(raised.value, "same method", "seed")


def test_a_run_records_what_its_weights_were_trained_by(tmp_path: Path) -> None:
    data: dict[str, Any] = {"data": images(3)}
    for seed in (0, 1):
        first = TrainConfig(**SHORT, width=0.1, seed=seed)
        train(first, tmp_path / f"pre{seed}", **data)
        second = TrainConfig(**SHORT | {"method": "at"}, warmup=0.0, seed=seed, from_run=str(tmp_path / f"pre{seed}"))
        train(second, tmp_path / f"mid{seed}", **data)
        train(replace(second, from_run=str(tmp_path / f"mid{seed}")), tmp_path / f"last{seed}", **data)
        shutil.rmtree(tmp_path / f"pre{seed}")
    runs = [read_run(tmp_path / f"{name}{seed}") for name in ("mid", "last") for seed in (0, 1)]
    assert [(method.name, len(method.runs)) for method in group_by_method(runs)] == [
        ("AT-PGD (from a run of ST)", 2),
        ("AT-PGD (from a run of AT-PGD)", 2),
    ]


@pytest.mark.parametrize("source", [{"config": {}}, {"config": [], "start": {}}, {"config": {"lr": "x"}, "start": {}}])
def test_a_record_of_a_start_that_is_none_is_damage(source: dict[str, Any]) -> None:
    run = started(of_run(0), sha256="s", source=source)
    with pytest.raises(DamagedFileError) as raised:
        group_by_method([run, scratch()])
    assert_states(raised.value, "start", "damaged")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (
            [{"method": "st", "optimizer": "adamw"}, {"method": "st"}],
            [
                "ST (optimizer = adamw, lr = 0.001, weight_decay = 0.01)",
                "ST (optimizer = sgd, lr = 0.05, momentum = 0.9, weight_decay = 0.0005)",
            ],
        ),
        # A width of its own means the default: only what is ignored is left out.
        ([{"method": "st", "width": 0.5}, {"method": "st"}], ["ST (width = 0.5)", "ST (width = default)"]),
    ],
)
def test_a_setting_that_a_run_ignores_does_not_tell_it_apart(settings: list[dict[str, Any]], names: list[str]) -> None:
    assert method_names([TrainConfig(**each) for each in settings]) == names


# Devices --------------------------------------------------------------------------------------------------------------


class Rooted(nn.Module):
    """Its gradient is infinite where a pixel is black, and NaN behind the product with zero."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.body, self.head, self.scale = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), scale

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x.sqrt() * self.scale).mean((2, 3)))


@pytest.mark.parametrize("scale", [0.0, 1.0, float("inf")])
def test_a_model_whose_trial_is_not_finite_is_placed(scale: float) -> None:
    model = Rooted(scale)
    x = torch.rand(2, 1, 8, 8)
    x[:, :, :3] = 0.0
    before = model(x)
    assert place(model, torch.device("cpu"), x) is model
    torch.testing.assert_close(model(x), before, equal_nan=True)
