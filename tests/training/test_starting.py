"""A training that starts from given weights: what is loaded, replaced, recorded and refused, and read again later."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from asgt.data import Images
from asgt.errors import DamagedFileError, InputError, InterruptedRunError
from asgt.files import digest_file, read_tensors
from asgt.models import build_model
from asgt.runs.run import load_run
from asgt.training.config import TrainConfig
from asgt.training.trainer import train
from support.given import Fixed, Told, fixed, images, normalised, saved
from support.messages import assert_states
from support.trainings import assert_same

SMALL: dict[str, Any] = {"method": "st", "width": 0.1, "epochs": 1, "batch_size": 20, "checkpoint_every": 0}


def frozen(file: Path, data: tuple[Images, Images], out: Path, **settings: Any) -> tuple[dict[str, Tensor], Told, Any]:
    """The weights after a training whose steps have no length that single precision could show."""

    told = Told()
    asked = SMALL | {"weights": file, "lr": 1e-30, "weight_decay": 0.0} | settings
    result = train(TrainConfig(**asked), out, data=data, progress=told)  # type: ignore[arg-type]
    return read_tensors(out / "model.safetensors")[0], told, result


# What is loaded ------------------------------------------------------------------------------------------------------


def test_a_file_with_normalisation_is_where_a_training_starts(tmp_path: Path) -> None:
    net = normalised()
    file = saved(net, tmp_path / "weights.pt", "module.")
    held, told, result = frozen(file, images(3), tmp_path / "run")

    assert all(torch.equal(held[name], value) for name, value in net.state_dict().items())
    assert_states(told.text, "weights:", file, "module.", "mean 0.25", "std 0.5")
    start = result.start
    assert (start["weights"], start["sha256"], start["head"]) == (str(file), digest_file(file), "")
    assert json.loads((tmp_path / "run/training.json").read_text())["start"] == start
    assert (start["mean"], start["std"]) == ([0.25], [0.5])
    # It is read again without the file.
    file.unlink()
    model, _, config, _ = load_run(tmp_path / "run", data=images(3))
    assert config.weights == str(file)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(x), net.eval()(x))


def test_weights_of_a_net_alone_have_the_normalisation_that_is_asked_for(tmp_path: Path) -> None:
    net = build_model("small_cnn", (1, 8, 8), 3, width=0.1)
    file = saved(net.net, tmp_path / "weights.pt")  # type: ignore[arg-type]
    _, told, result = frozen(file, images(3), tmp_path / "none")
    assert_states(told.text, "normalisation: none", "[0, 1]", file)
    assert result.start["mean"] == []
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(load_run(tmp_path / "none", data=images(3))[0](x), net.eval()(x))

    held, told, _ = frozen(file, images(3), tmp_path / "asked", mean="1/4", std=0.5)
    assert_states(told.text, "mean 0.25", "std 0.5", "--mean and --std")
    assert (float(held["normalize.mean"]), float(held["normalize.std"])) == (0.25, 0.5)
    torch.testing.assert_close(load_run(tmp_path / "asked", data=images(3))[0](x), net.eval()((x - 0.25) / 0.5))

    with pytest.raises(InputError) as raised:
        frozen(file, images(3), tmp_path / "refused", mean="0.1,0.2", std="1,1")
    assert_states(raised.value, "2 means")
    assert not (tmp_path / "refused").exists()


def test_a_normalisation_that_contradicts_that_of_the_file_is_refused(tmp_path: Path) -> None:
    file = saved(normalised(), tmp_path / "weights.pt")
    frozen(file, images(3), tmp_path / "agrees", mean=0.25, std=0.5)
    for name, value in (("mean", "0.3"), ("std", "0.25"), ("std", "0.5,0.5")):
        settings = {"mean": 0.25, "std": 0.5} | {name: value}
        with pytest.raises(InputError) as raised:
            frozen(file, images(3), tmp_path / "refused", **settings)
        assert_states(raised.value, f"--{name} contradicts", file)


def test_mean_and_std_take_the_place_of_the_training_images(tmp_path: Path) -> None:
    train(TrainConfig(**SMALL, mean=0.1, std=(0.2,)), tmp_path / "run", data=images(3))  # type: ignore[arg-type]
    held = read_tensors(tmp_path / "run/model.safetensors")[0]
    assert (float(held["normalize.mean"]), float(held["normalize.std"])) == pytest.approx((0.1, 0.2))
    kept = TrainConfig.load(tmp_path / "run/config.yaml")
    assert (kept.mean, kept.std) == ("0.1", "0.2")


@pytest.mark.usefixtures("torchvision_operators")
def test_timm_gives_the_normalisation_of_its_own_configuration(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = "test_resnet.r160_in1k"
    net = timm.create_model(name, pretrained=False, in_chans=3, num_classes=7)
    file, data = saved(net, tmp_path / "weights.pt"), images(3, 3, 32)
    settings = {"model": f"timm:{name}", "width": None}
    held, told, result = frozen(file, data, tmp_path / "run", **settings)
    assert_states(told.text, "timm's configuration", "head", "7 logits", "3 classes")
    mean = timm.get_pretrained_cfg(name).mean
    assert held["normalize.mean"].flatten().tolist() == pytest.approx(list(mean))
    assert result.start["logits"] == 7
    assert held[f"{result.start['head']}.weight"].shape[0] == 3
    load_run(tmp_path / "run", data=data)


@pytest.mark.usefixtures("torchvision_operators")
def test_a_file_takes_the_place_of_what_a_model_of_transformers_brings(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, num_labels=4)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    told = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3]}
    told |= {"size": {"height": 32, "width": 32}, "image_std": [0.2, 0.25, 0.5]}
    (tmp_path / "vit/preprocessor_config.json").write_text(json.dumps(told))
    other = transformers.ViTForImageClassification(config)
    file, data = saved(other, tmp_path / "weights.pt"), images(3, 3, 32)

    held, _, result = frozen(file, data, tmp_path / "run", model=f"hf:{tmp_path / 'vit'}", width=None)
    assert (result.start["head"], result.start["logits"]) == ("net.classifier", 4)
    assert held["normalize.mean"].flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    rest = {f"net.{name}": value for name, value in other.state_dict().items() if not name.startswith("classifier")}
    for name, value in rest.items():  # its biases are zero, beside which any step shows
        torch.testing.assert_close(held[name], value, rtol=0, atol=1e-20)
    file.unlink()
    load_run(tmp_path / "run", data=data)


# The head ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["file of seven classes", "factory of seven logits", "module of seven logits"])
def test_the_head_is_replaced_where_the_classes_differ(kind: str, tmp_path: Path) -> None:
    net: nn.Module = normalised(7) if kind.startswith("file") else Fixed()
    file = saved(net, tmp_path / "weights.pt")
    model = {"file": None, "factory": fixed, "module": Fixed()}[kind.split()[0]]
    settings = SMALL | ({} if kind.startswith("file") else {"width": None})
    told = Told()
    config = TrainConfig(**settings, weights=file)  # type: ignore[arg-type]
    result = train(config, tmp_path / "run", data=images(3), model=model, progress=told)  # type: ignore[arg-type]

    head = result.start["head"]
    assert head in ("net.9", "net.fc", "fc")
    assert result.start["logits"] == 7
    assert_states(told.text, head, file, "7 logits", "3 classes")
    assert read_tensors(tmp_path / "run/model.safetensors")[0][f"{head}.weight"].shape[0] == 3
    # Read again without the file, with a model that still has seven.
    file.unlink()
    again = Fixed() if kind.startswith("module") else model
    read = load_run(tmp_path / "run", data=images(3), model=again)[0]
    assert read(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_a_fixed_factory_takes_a_file_that_has_the_classes_already(tmp_path: Path) -> None:
    net = Fixed()
    net.fc = nn.Linear(6, 3)
    file = saved(net, tmp_path / "weights.pt")
    told = Told()
    config = TrainConfig(**SMALL | {"width": None, "weights": file, "lr": 1e-30, "weight_decay": 0.0})
    result = train(config, tmp_path / "run", data=images(3), model=fixed, progress=told)  # type: ignore[arg-type]
    assert result.start["head"] == ""
    assert "replaced" not in told.text
    read = load_run(tmp_path / "run", data=images(3), model=fixed)[0]
    torch.testing.assert_close(read.net.fc.weight, net.fc.weight)


class Warm(nn.Module):
    """Three logits of a head that brings weights, from seven of a body."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fc = nn.Linear(64, 6), nn.Linear(6, 3)
        nn.init.constant_(self.fc.weight, 7.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.body(x.flatten(1)).relu())


def test_a_head_with_weights_of_its_own_is_replaced_beside_a_body_of_other_classes(tmp_path: Path) -> None:
    file = saved(Fixed(), tmp_path / "weights.pt")
    settings = SMALL | {"width": None, "lr": 1e-30, "weight_decay": 0.0}
    for number, model in enumerate((lambda num_classes: Warm(), Warm())):
        out, told = tmp_path / f"run{number}", Told()
        train(TrainConfig(**settings, weights=file), out, data=images(3), model=model, progress=told)  # type: ignore[arg-type]
        assert_states(told.text, "fc replaced", "7 logits", "3 classes")
        (weight,) = [value for name, value in read_tensors(out / "model.safetensors")[0].items() if "fc.weight" in name]
        assert float(weight.max()) < 1


# Another run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("source") / "run"
    train(TrainConfig(**SMALL | {"model": "resnet18", "width": 0.05}), out, data=images(3))
    return out


@pytest.fixture
def source(_source: Path, tmp_path: Path) -> Path:
    """A finished run of resnet18, width 0.05, of three classes."""

    return shutil.copytree(_source, tmp_path / "source")


def from_run(source: Path, **settings: Any) -> TrainConfig:
    plain = {name: value for name, value in SMALL.items() if name != "width"}
    return TrainConfig(**plain | {"from_run": str(source)} | settings)


def test_a_run_starts_from_another_one_of_other_classes(source: Path, tmp_path: Path) -> None:
    told = Told()
    result = train(from_run(source), tmp_path / "run", data=images(5), progress=told)  # type: ignore[arg-type]
    kept = TrainConfig.load(tmp_path / "run/config.yaml")
    assert (kept.model, kept.width, kept.from_run) == ("resnet18", 0.05, str(source))
    assert_states(told.text, source, "3 logits", "5 classes", "net.13")
    assert result.start["sha256"] == digest_file(source / "model.safetensors")
    shutil.rmtree(source)
    assert load_run(tmp_path / "run", data=images(5))[0](torch.rand(2, 1, 8, 8)).shape == (2, 5)
    # A finished run needs nothing of the other.
    assert train(from_run(source), tmp_path / "run", data=images(5), resume=True).start == result.start


def test_a_run_that_cannot_be_started_from_is_refused(source: Path, tmp_path: Path) -> None:
    def refusal(kind: type[InputError] = InputError, out: str = "run", **settings: Any) -> InputError:
        data = settings.pop("data", images(3))
        with pytest.raises(kind) as raised:
            train(from_run(**{"source": source} | settings), tmp_path / out, data=data)
        assert not (tmp_path / "run").exists()
        return raised.value

    assert_states(refusal(source=tmp_path / "none"), "--from", tmp_path / "none")
    assert_states(refusal(source=tmp_path), "--from", tmp_path, "config.yaml")
    assert_states(refusal(out="source"), "--from", source, "--out")
    assert_states(refusal(data=images(3, 3)), "1 channel", "3", "--grey")
    assert_states(refusal(weights="w.pt"), "--weights", "--from")

    whole = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert_states(refusal(DamagedFileError), source / "model.safetensors")
    (source / "model.safetensors").write_bytes(whole)
    (source / "training.json").unlink()
    assert_states(refusal(), source, "not finished")


def test_a_run_does_not_say_whose_code_runs(source: Path, tmp_path: Path) -> None:
    config = TrainConfig.load(source / "config.yaml")
    shutil.rmtree(source)
    train(TrainConfig(**SMALL | {"width": None}), source, data=images(3), model=fixed_of_three)
    assert TrainConfig.load(source / "config.yaml").model == f"{__name__}:fixed_of_three" != config.model
    with pytest.raises(InputError) as raised:
        train(from_run(source), tmp_path / "run", data=images(3))
    assert_states(raised.value, f"{__name__}:fixed_of_three", "--allow")
    train(from_run(source), tmp_path / "run", data=images(3), model=fixed_of_three)


def fixed_of_three() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


# The rate of the head ------------------------------------------------------------------------------------------------


def test_the_head_has_a_rate_of_its_own_on_the_same_schedule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[tuple[float, ...]] = []
    step = torch.optim.SGD.step

    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(tuple(group["lr"] for group in self.param_groups))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", watched)
    train(TrainConfig(**SMALL | {"epochs": 2}, lr=0.1, head_lr=0.4), tmp_path / "run", data=images(3))
    assert len(rates) >= 4
    assert len({rate for rate, _ in rates}) > 2
    assert all(head == pytest.approx(4 * rest) for rest, head in rates)

    # Only the head moves where the others' steps have no length.
    file = saved(normalised(), tmp_path / "weights.pt")
    held, _, _ = frozen(file, images(3), tmp_path / "probe", head_lr=0.1)
    before = torch.load(file)
    assert {name for name, value in held.items() if not torch.equal(value, before[name])} == {
        "net.9.weight",
        "net.9.bias",
    }


def test_a_rate_of_no_head_is_refused(tmp_path: Path) -> None:
    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight

    with pytest.raises(InputError) as raised:
        train(TrainConfig(**SMALL | {"width": None}, head_lr=0.1), tmp_path / "run", data=images(3), model=ByHand())
    assert_states(raised.value, "--head-lr", "Linear or Conv2d")
    assert not (tmp_path / "run").exists()


# Resumed -------------------------------------------------------------------------------------------------------------


def stopped(config: TrainConfig, out: Path, after: int, **passed: Any) -> None:
    answers = iter([False] * (after - 1) + [True])
    with pytest.raises(InterruptedRunError):
        train(config, out, should_stop=lambda: next(answers), **passed)


@pytest.mark.parametrize("kind", ["own model", "fixed factory", "no normalisation"])
def test_a_resumed_run_ends_bit_identical_without_the_file(kind: str, tmp_path: Path) -> None:
    net: nn.Module = Fixed() if kind == "fixed factory" else normalised(7)
    if kind == "no normalisation":
        net = build_model("small_cnn", (1, 8, 8), 3, width=0.1)
    file = saved(net, tmp_path / "weights.pt")
    own = {"width": None} if kind == "fixed factory" else {}
    config = TrainConfig(**SMALL | own | {"epochs": 2, "head_lr": 0.2, "weights": file})
    passed: dict[str, Any] = {"data": images(3), "model": fixed if kind == "fixed factory" else None}
    train(config, tmp_path / "whole", **passed)
    stopped(config, tmp_path / "run", 3, **passed)

    whole = file.read_bytes()
    saved(normalised(4), file)
    with pytest.raises(InputError) as raised:
        train(config, tmp_path / "run", resume=True, **passed)
    assert_states(raised.value, tmp_path / "run", file, "--weights")
    file.unlink()
    train(config, tmp_path / "run", resume=True, **passed)
    assert_same(tmp_path / "run", tmp_path / "whole")

    # Before there is a checkpoint, the file is needed.
    (tmp_path / "begun").mkdir()
    shutil.copy(tmp_path / "run/config.yaml", tmp_path / "begun/config.yaml")
    with pytest.raises(InputError) as raised:
        train(config, tmp_path / "begun", resume=True, **passed)
    assert_states(raised.value, file)
    file.write_bytes(whole)
    train(config, tmp_path / "begun", resume=True, **passed)
    assert_same(tmp_path / "begun", tmp_path / "whole")


def test_a_run_from_another_one_resumes_without_it(source: Path, tmp_path: Path) -> None:
    config = from_run(source, epochs=2)
    train(config, tmp_path / "whole", data=images(5))
    stopped(config, tmp_path / "run", 3, data=images(5))
    shutil.rmtree(source)
    train(config, tmp_path / "run", data=images(5), resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")


class Scaled(Fixed):
    """Logits that are all zero before weights are given."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


def test_a_head_that_only_the_given_weights_show_is_found_again(tmp_path: Path) -> None:
    net = Scaled()
    nn.init.ones_(net.scale)
    settings = SMALL | {"width": None, "epochs": 2, "head_lr": 0.2, "weights": saved(net, tmp_path / "weights.pt")}
    config = TrainConfig(**settings)
    passed: dict[str, Any] = {"data": images(3), "model": lambda num_classes: Scaled()}
    train(config, tmp_path / "whole", **passed)
    stopped(config, tmp_path / "run", 3, **passed)
    train(config, tmp_path / "run", resume=True, **passed)
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_images_are_read_as_those_of_the_run_that_it_starts_from(tmp_path: Path) -> None:
    for number in range(24):
        place = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        level = 40 + 8 * number
        Image.new("LA", (12, 12), (level, 128 if number % 4 else 255)).save(place)
    same: dict[str, Any] = {"data": str(tmp_path / "images"), "validation": 0.2, "batch_size": 8}
    first = TrainConfig(**SMALL | same, image_size=8, decode="imagefolder")
    train(first, tmp_path / "first")
    asked = TrainConfig(**SMALL | same | {"width": None, "epochs": 2}, from_run=tmp_path / "first")
    told = Told()
    train(asked, tmp_path / "whole", progress=told)
    assert_states(told.text, "images are read with", "image size 8", "decode imagefolder")
    # The same call goes on where it was stopped.
    stopped(asked, tmp_path / "run", 2)
    train(asked, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert TrainConfig.load(tmp_path / "run" / "config.yaml").decode == "imagefolder"


# Bad input -----------------------------------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_refused_in_one_line(tmp_path: Path) -> None:
    def refusal(file: Path) -> InputError:
        with pytest.raises(InputError) as raised:
            frozen(file, images(3), tmp_path / "run")
        assert not (tmp_path / "run").exists()
        return raised.value

    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    for file in (tmp_path / "gone.pt", tmp_path / "empty.pt", tmp_path / "text.pt", tmp_path / "none.pt", tmp_path):
        assert_states(refusal(file), file)
    wide = saved(normalised(width=0.2), tmp_path / "wide.pt")
    assert_states(refusal(wide), wide, "net.0.weight", "(6, 1, 3, 3)", "(3, 1, 3, 3)")
    with pytest.raises(InputError) as raised:
        TrainConfig(weights="").resolved()
    assert_states(raised.value, "weights", "--weights")


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("--mean red", ["mean", "red", "0.485,0.456,0.406"]),
        ("--mean nan", ["mean", "nan"]),
        ("--mean 0 --std 0", ["std", "above zero"]),
        ("--mean 0.5", ["--mean", "without", "--std", "together, or neither"]),
        ("--std 0.5", ["--std", "without", "--mean", "together, or neither"]),
        ("--mean 123 --std 58", ["[0, 1]", "255"]),
        ("--head-lr 0", ["head_lr", "0.0"]),
        ("--head-lr inf", ["--head-lr", "inf"]),
        ("--from gone", ["--from", "gone"]),
        ("--from a --weights b", ["--from", "--weights"]),
        ("--weights gone.pt", ["gone.pt"]),
    ],
)
def test_the_command_line_refuses_in_one_line(words: str, facts: list[str], cli: Callable[..., Any]) -> None:
    answer = cli("train", "--method", "st", "--limit", "60", *words.split())
    assert answer.status == 2
    assert_states(answer.refusal(), *facts)


def test_the_command_line_trains_from_a_run_and_from_its_weights(finished_run: Path, cli: Callable[..., Any]) -> None:
    common = ("--method", "st", "--epochs", "1", "--limit", "60", "--batch-size", "20")
    assert cli("train", *common, "--from", finished_run, "--head-lr", "0.01", "--out", "one").status == 0
    file = finished_run / "model.safetensors"
    answer = cli("train", *common, f"--weights={file}", "--head-lr", "0.01", "--out", "two")
    assert answer.status == 0
    assert_states(answer.err, file, "normalisation", "mean")
    assert Path("one/model.safetensors").read_bytes() == Path("two/model.safetensors").read_bytes()
    assert cli("evaluate", "one", "--samples", "10", "--protocol", "paper").status == 0
    assert_states(cli("train", *common, "--from", "one", "--out", "two", "--resume").refusal(), "--from")
    assert_states(cli("train", *common, "--frm", "one").refusal(), "--from")


def test_the_default_model_is_taken_for_set_where_it_is_said(source: Path, cli: Callable[..., Any]) -> None:
    common = ("train", "--method", "st", "--epochs", "1", "--limit", "60", "--batch-size", "20", "--from", source)
    assert_states(cli(*common, "--model", "small_cnn", "--out", "one").refusal(), "--model", "small_cnn", "resnet18")
    # The folder is named after the model that is trained.
    answer = cli(*common)
    assert answer.status == 0
    assert_states(answer.err, source, "3 logits", "10 classes")
    assert TrainConfig.load("runs/digits-resnet18-st-0/config.yaml").width == 0.05


def test_a_grid_takes_the_model_of_the_run_that_it_starts_from(source: Path, tmp_path: Path) -> None:
    from asgt.experiments.preset import load_preset

    (tmp_path / "grid.yaml").write_text(
        f"data: digits\ntrain: {{from_run: {source}}}\nmethods: [{{method: st}}]\nevaluate: {{epsilons: [0.1]}}\n"
    )
    (method,) = load_preset(str(tmp_path / "grid.yaml")).methods
    assert (method.model, method.width, method.from_run) == ("resnet18", 0.05, str(source))


def test_old_configurations_and_results_load(finished_run: Path) -> None:
    config = finished_run / "config.yaml"
    new = ("weights", "from_run", "mean", "std", "head_lr")
    values = TrainConfig.load(config).to_dict()
    assert [values.pop(name) for name in new] == [None] * len(new)
    assert TrainConfig.from_dict(values, "config.yaml") == TrainConfig.load(config)
    assert TrainConfig.from_dict(values | {"mean": 0.5, "std": 1}, "config.yaml").mean == "0.5"
