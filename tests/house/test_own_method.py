"""Methods and attacks of somebody else, and new ones of asgt: one class, and all commands know its settings."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import asgt
from asgt.comparison.method_naming import method_names
from asgt.errors import DamagedFileError, InputError
from asgt.experiments import load_preset
from asgt.files import read_tensors
from asgt.records import REQUIRED, settings_of
from asgt.training import method_registry
from asgt.training.config import TrainConfig
from asgt.training.method_registry import ATTACKS, MASK, METHODS, listens_to
from asgt.training.methods import build_objective
from support.messages import assert_states

OWN = '''
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import nn

import asgt

Path({ran!r}).touch()


@dataclass(frozen=True)
class Margin(asgt.Objective):
    """Training for a margin between logits.

    Args:
        attack: perturbs the images.
        margin: by how much the true logit is to exceed the others.
        hinge: hard or soft.
        square: square the loss.
    """

    attack: asgt.Attack
    margin: float
    hinge: Literal["hard", "soft"] = "hard"
    square: bool = False

    def views(self, model, x, y, eps, generators):
        return {{"clean": x, "adversarial": self.attack(model, x, y, eps=eps, generator=generators.attack)}}

    def terms(self, logits, y):
        loss = nn.functional.multi_margin_loss
        return {{name: self.weight(loss(z, y, margin=self.margin)) for name, z in logits.items()}}

    def weight(self, loss):
        return loss.square() if self.square else loss


class Smooth(asgt.Objective):
    """Label smoothing, a class without a dataclass.

    Args:
        share: of the label that is spread.
    """

    def __init__(self, share: float = 0.1) -> None:
        self.share = share

    def views(self, model, x, y, eps, generators):
        return {{"clean": x}}

    def terms(self, logits, y):
        return {{"clean": nn.functional.cross_entropy(logits["clean"], y, label_smoothing=self.share)}}


def made(share: float = 0.2):
    """A factory."""

    return Smooth(share)


@dataclass(frozen=True)
class Noise(asgt.Attack):
    """Uniform noise.

    Args:
        strength: its share of eps.
    """

    strength: float = 0.5

    def step(self, state):
        direction = torch.ones_like(state.x).sign()
        return self.moved(state, direction, self.strength * state.eps)


def net(num_classes, in_channels=1, image_size=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))


class NotOne:
    pass
'''

SMALL = ("--data", "digits", "--limit", "60", "--epochs", "2", "--batch-size", "20", "--steps", "2")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working directory; ``tmp_path / "ran"`` exists once it ran."""

    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(OWN.format(ran=str(tmp_path / "ran")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    return name


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_tensors(folder / "model.safetensors")[0]


def same_weights(folder: Path, other: Path) -> bool:
    mine, theirs = weights(folder), weights(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# What classes say of themselves ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", [*METHODS.values(), *dict.fromkeys(part.place for part in ATTACKS.values()), MASK.place]
)
def test_settings_read_from_the_source_are_those_of_the_class(place: str) -> None:
    module, _, name = place.partition(":")
    made = getattr(import_module(module), name)
    expected = [
        (each.name, REQUIRED if each.default is dataclasses.MISSING else each.default)
        for each in dataclasses.fields(made)
        if each.init
    ]

    settings = settings_of(place)

    assert [(each.name, each.default) for each in settings] == expected
    assert all(each.doc for each in settings if each.name not in ("norm", "steps"))


def test_a_subclass_documents_the_settings_of_its_base_by_itself() -> None:
    settings = {each.name: each for each in settings_of("asgt.training.objectives.sga:SGA")}

    assert "perturbs the masked images" in settings["attack"].doc
    assert settings["kl"].kind == "Literal['forward', 'reverse']"


@pytest.mark.parametrize(
    ("method", "attack", "settings"),
    [
        ("st", None, set()),
        ("at", None, {"attack", "eps", "norm", "steps", "alpha", "warmup", "clean_weight"}),
        ("at", "fgsm", {"attack", "eps", "warmup", "clean_weight"}),
        ("trades", None, {"eps", "norm", "steps", "alpha", "warmup", "weight"}),
        ("sgt", None, {"k", "target", "rank", "unit", "fill", "kl", "detach_clean", "weight"}),
        (
            "asgt",
            "fgsm-rs",
            {"attack", "eps", "warmup", "k", "target", "rank", "unit", "fill", "kl", "detach_clean", "weight"},
        ),
    ],
)
def test_a_method_listens_to_what_its_fields_call_for(method: str, attack: str | None, settings: set[str]) -> None:
    assert listens_to(method, attack) == settings


def test_a_foreign_class_and_a_factory_say_what_they_take(own: str) -> None:
    margin = {each.name: each for each in settings_of(f"{own}:Margin")}

    assert margin["margin"].default is REQUIRED
    assert margin["hinge"].kind == "Literal['hard', 'soft']"
    assert margin["square"].doc == "square the loss"
    assert [(each.name, each.kind, each.default) for each in settings_of(f"{own}:made")] == [("share", "float", 0.2)]
    assert [each.doc for each in settings_of(f"{own}:Smooth")] == ["of the label that is spread"]


# A new method of asgt -------------------------------------------------------------------------------------------------


@pytest.fixture
def registered(own: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A method that one line in the registry adds."""

    monkeypatch.setitem(method_registry.METHODS, "smooth", f"{own}:Smooth")
    return "smooth"


@pytest.mark.slow
def test_a_registered_method_is_known_to_help_profile_and_errors(cli: Callable, registered: str) -> None:
    assert "rrr or smooth" in cli("--help").out
    with pytest.raises(SystemExit):
        cli("train", "--help")
    assert "--share" in cli("train", "--shar", "0.2").err
    assert "smooth" in cli("train", "--method", "smoth").refusal()
    assert "--share 0.3" in cli("train", "--method", "st", "--share", "0.3").refusal()

    answer = cli("profile", "--model", "small_cnn", "--data-shape", "1x8x8", "--batch-size", 4, "--repetitions", 1)

    assert answer.status == 0, answer.err
    assert "SMOOTH" in answer.out


def test_a_registered_method_is_trained_and_named_by_its_settings(
    cli: Callable, registered: str, tmp_path: Path
) -> None:
    answer = cli("train", *SMALL[:-2], "--method", registered, "--share", "0.3", "--out", "run")

    assert answer.status == 0, answer.err
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (stored["method"], stored["share"], "settings" in stored) == ("smooth", 0.3, False)
    other = TrainConfig(method=registered).resolved()
    assert method_names([TrainConfig.load(tmp_path / "run/config.yaml"), other, TrainConfig(method="st").resolved()])[
        1
    ].startswith("SMOOTH (")
    assert other.settings == {"share": 0.1}


def test_a_registered_method_is_taken_by_grids(registered: str, tmp_path: Path) -> None:
    grid = {
        "data": "digits",
        "train": {"share": 0.4, "k": 0.2},
        "methods": [{"method": "st"}, {"method": "smooth"}, {"method": "smooth", "share": 0.0}],
        "evaluate": {"epsilons": [0.1]},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))

    preset = load_preset(str(tmp_path / "grid.yaml"))

    assert [method.settings for method in preset.methods] == [{}, {"share": 0.4}, {"share": 0.0}]
    assert preset.to_dict()["methods"][1]["share"] == 0.4
    grid["train"] = {"shar": 0.4}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    with pytest.raises(DamagedFileError, match="share"):
        load_preset(str(tmp_path / "grid.yaml"))


# Settings without a field of TrainConfig ------------------------------------------------------------------------------


def test_a_configuration_without_extra_settings_is_written_as_before() -> None:
    values = TrainConfig().resolved().to_dict()

    assert list(values) == [each.name for each in dataclasses.fields(TrainConfig) if each.name != "settings"]
    assert TrainConfig.of(values) == TrainConfig().resolved()
    assert len({TrainConfig(), TrainConfig(settings={"a": 1.0}), TrainConfig.of({"a": 1.0})}) == 2


def test_an_unknown_setting_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match="weight_decay"):
        TrainConfig.of({"weigt_decay": 0.1}).resolved()


@pytest.mark.parametrize("value", ["far", True, None])
def test_a_value_of_another_type_is_refused(own: str, value: object) -> None:
    config = TrainConfig(method=f"{own}:Margin", settings={"margin": value})

    with pytest.raises(InputError, match="margin"):
        config.resolved(allow=[own])


# A method of somebody else, by name -----------------------------------------------------------------------------------


def test_help_lists_the_settings_of_a_method_that_the_command_line_names(
    cli: Callable, own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli("train", "--method", f"{own}:Margin", "--help")

    told = " ".join(capsys.readouterr().out.split())
    assert "--margin" in told
    assert "by how much the true logit is to exceed the others" in told
    assert "needed" in told


@pytest.mark.slow
def test_a_foreign_method_is_trained_stopped_resumed_evaluated_explained_and_compared(
    cli: Callable, own: str, tmp_path: Path
) -> None:
    method = f"{own}:Margin"
    words = (*SMALL, "--method", method, "--margin", "2.0", "--square", "--checkpoint-every", "0")
    whole = cli("train", *words, "--out", "whole")
    assert whole.status == 0, whole.err
    stored = yaml.safe_load((tmp_path / "whole/config.yaml").read_text())
    assert stored["method"] == method
    assert (stored["margin"], stored["square"], stored["hinge"], stored["steps"]) == (2.0, True, "hard", 2)
    assert list(stored)[-3:] == ["margin", "hinge", "square"]

    # Stopped in the middle, and resumed by its name.
    config = TrainConfig.load(tmp_path / "whole/config.yaml")
    answers = iter([False, False, True])
    with pytest.raises(asgt.InterruptedRunError):
        asgt.train(config, tmp_path / "half", should_stop=lambda: next(answers))
    (tmp_path / "ran").unlink()
    sys.modules.pop(own, None)
    line = cli("train", "--resume", "--out", "half").refusal()
    assert_states(line, f"--method {method}", f"--allow {own}")
    assert not (tmp_path / "ran").exists()
    resumed = cli("train", "--resume", "--out", "half", "--allow", own)
    assert resumed.status == 0, resumed.err
    assert same_weights(tmp_path / "half", tmp_path / "whole")
    assert "margin" in cli("train", "--resume", "--out", "whole", "--method", method, "--margin", "3").refusal()

    # Nothing of the method runs when its model is looked at.
    sys.modules.pop(own, None)
    (tmp_path / "ran").unlink()
    for run in ("whole", "half"):
        answer = cli("evaluate", run, "--protocol", "paper", "--epsilons", "0.1", "--samples", "10")
        assert answer.status == 0, answer.err
    answer = cli("explain", "whole", "--samples", "4")
    assert answer.status == 0, answer.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_comparison_tells_runs_apart_that_differ_in_a_setting_of_a_foreign_method(
    cli: Callable, own: str, tmp_path: Path
) -> None:
    for margin in ("1.0", "2.0"):
        assert cli("train", *SMALL, "--method", f"{own}:Margin", "--margin", margin, "--out", margin).status == 0
        answer = cli("evaluate", margin, "--protocol", "paper", "--epsilons", "0.1", "--samples", "10")
        assert answer.status == 0, answer.err
    sys.modules.pop(own, None)
    (tmp_path / "ran").unlink()

    answer = cli("compare", "1.0", "2.0", "--out", "page")

    assert answer.status == 0, answer.err
    assert not (tmp_path / "ran").exists()
    comparison = asgt.compare([tmp_path / "1.0", tmp_path / "2.0"])
    assert [method.name for method in comparison.methods] == [
        "Margin-PGD (margin = 1)",
        "Margin-PGD (margin = 2)",
    ]


def test_the_default_folder_of_a_foreign_method_has_a_plain_name(cli: Callable, own: str, tmp_path: Path) -> None:
    answer = cli("train", *SMALL[:-2], "--method", f"{own}:made", "--share", "0.1")

    assert answer.status == 0, answer.err
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [f"digits-small_cnn-{own}-made-0"]


def test_a_file_does_not_run_the_method_or_the_attack_that_it_names(cli: Callable, own: str, tmp_path: Path) -> None:
    for what, name in (("method", f"{own}:Margin"), ("attack", f"{own}:Noise")):
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump({what: name}))
        line = cli("train", "--config", "mine.yaml", "--model", "other:net").refusal()
        assert_states(line, f"--{what} {name}", f"--allow {own}")
        grid = {"data": "digits", "methods": [{"method": "at", what: name}], "evaluate": {"epsilons": [0.1]}}
        (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
        assert f"--allow {own}" in cli("reproduce", "grid.yaml", "--dry-run").refusal()
    assert not (tmp_path / "ran").exists()


def test_a_foreign_attack_is_trained_against(cli: Callable, own: str, tmp_path: Path) -> None:
    words = ("--method", "at", "--attack", f"{own}:Noise", "--strength", "0.25", "--eps", "0.2")

    answer = cli("train", *SMALL, *words, "--out", "run")

    assert answer.status == 0, answer.err
    stored = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (stored["attack"], stored["strength"], stored["steps"], stored["eps"]) == (f"{own}:Noise", 0.25, 2, 0.2)
    objective = build_objective(TrainConfig.load(tmp_path / "run/config.yaml"))
    assert objective.adversary is not None
    assert (objective.adversary.eps, getattr(objective.adversary, "strength", None)) == (0.2, 0.25)


def test_a_foreign_method_is_profiled(cli: Callable, own: str) -> None:
    words = ("--model", "small_cnn", "--data-shape", "1x8x8", "--batch-size", 4, "--repetitions", 1, "--steps", 1)

    answer = cli("profile", "--method", f"{own}:Margin", "--margin", "1", *words)

    assert answer.status == 0, answer.err
    assert "Margin-PGD" in answer.out


@pytest.mark.slow
def test_a_grid_with_a_foreign_method_is_reproduced(
    cli: Callable, warm_workers: None, own: str, tmp_path: Path
) -> None:
    grid = {
        "data": "digits",
        "train": {"epochs": 1, "limit": 60, "batch_size": 30, "steps": 2, "margin": 1.5},
        "methods": [{"method": "st"}, {"method": f"{own}:Margin"}, {"method": f"{own}:Margin", "margin": 3.0}],
        "evaluate": {"protocols": ["paper"], "epsilons": [0.1], "samples": 10},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))

    answer = cli("reproduce", "grid.yaml", "--allow", own, "--workers", "1", "--out", "out")

    assert answer.status == 0, answer.err
    assert (tmp_path / "out/report.html").exists()
    stored = [yaml.safe_load(path.read_text()) for path in sorted((tmp_path / "out").glob("*/config.yaml"))]
    assert sorted(config["margin"] for config in stored if config["method"] == f"{own}:Margin") == [1.5, 3.0]
    assert "finished already" not in answer.err
    assert cli("reproduce", "grid.yaml", "--allow", own, "--workers", "1", "--out", "out").status == 0


@pytest.mark.parametrize(
    ("name", "words", "says"),
    [
        ("Margin", (), "--margin"),
        ("NotOne", (), "asgt.Objective"),
        ("missing", (), "missing"),
        ("Margin", ("--margin", "x"), "margin"),
        ("Margin", ("--margin", "1", "--k", "0.2"), "--k 0.2"),
        ("Margin", ("--margin", "1", "--marign", "2"), "--margin"),
    ],
)
def test_what_a_foreign_method_cannot_take_is_refused_in_a_line(
    cli: Callable, own: str, name: str, words: tuple[str, ...], says: str
) -> None:
    assert_states(cli("train", "--data", "digits", "--method", f"{own}:{name}", *words).refusal(), says)


# Objects --------------------------------------------------------------------------------------------------------------


CONFIG = TrainConfig(epochs=2, limit=60, batch_size=20)


class Plain(asgt.Objective):
    """An objective that no name builds."""

    def __init__(self, scale: Any) -> None:
        self.scale = scale

    def views(self, model: Any, x: Any, y: Any, eps: Any, generators: Any) -> Any:
        return {"clean": x}

    def terms(self, logits: Any, y: Any) -> Any:
        return {"clean": self.scale * nn.functional.cross_entropy(logits["clean"], y)}


@pytest.mark.slow
def test_an_objective_that_a_name_builds_is_recorded_by_it(tmp_path: Path) -> None:
    objective = asgt.ASGT(attack=asgt.FGSM(0.1), mask=asgt.SaliencyMask(0.2), weight=0.5)
    named = TrainConfig(method="asgt", attack="fgsm", eps=0.1, k=0.2, weight=0.5, epochs=2, limit=60, batch_size=20)

    asgt.train(CONFIG, tmp_path / "passed", objective=objective)
    asgt.train(named, tmp_path / "named")

    assert (tmp_path / "passed/config.yaml").read_text() == (tmp_path / "named/config.yaml").read_text()
    assert same_weights(tmp_path / "passed", tmp_path / "named")


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        asgt.AT(asgt.PGD(0.1, steps=1, random_start=False)),
        asgt.AT(asgt.MIFGSM(0.1, steps=1)),
        Plain(2.0),
    ],
)
def test_another_objective_is_recorded_and_resumed_only_by_an_equal_one(
    cli: Callable, objective: asgt.Objective, tmp_path: Path
) -> None:
    answers = iter([False, True])
    with pytest.raises(asgt.InterruptedRunError):
        asgt.train(CONFIG, tmp_path / "run", objective=objective, should_stop=lambda: next(answers))

    with pytest.raises(InputError, match="started with"):
        asgt.train(CONFIG, tmp_path / "run", objective=Plain(3.0), resume=True)
    result = asgt.train(CONFIG, tmp_path / "run", objective=objective, resume=True)
    whole = asgt.train(CONFIG, tmp_path / "whole", objective=objective)

    assert same_weights(tmp_path / "run", tmp_path / "whole")
    assert result.validation == whole.validation
    answer = cli("evaluate", tmp_path / "run", "--protocol", "paper", "--epsilons", "0.1", "--samples", "10")
    assert answer.status == 0, answer.err


def test_the_command_line_says_that_an_object_must_be_passed_again(cli: Callable, tmp_path: Path) -> None:
    answers = iter([False, True])
    with pytest.raises(asgt.InterruptedRunError):
        asgt.train(CONFIG, tmp_path / "run", objective=Plain(2.0), should_stop=lambda: next(answers))

    assert "objective=…" in cli("train", "--resume", "--out", tmp_path / "run").refusal()


def test_a_setting_beside_the_object_that_has_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="eps"):
        asgt.train(TrainConfig(eps=0.2), tmp_path / "run", objective=Plain(1.0))
    with pytest.raises(InputError, match="width"):
        asgt.train(TrainConfig(width=0.5), tmp_path / "run", model=nn.Linear(1, 1))
    with pytest.raises(InputError, match="limit"):
        asgt.train(CONFIG, tmp_path / "run", data=asgt.load_data("digits"))
    assert not (tmp_path / "run").exists()


def net_of(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_a_model_and_data_that_are_passed_are_trained_and_loaded_again(cli: Callable, tmp_path: Path) -> None:
    splits = asgt.load_data("digits", limit=60)
    pair = ((splits.train.pixels / 255.0, splits.train.labels), (splits.test.pixels, splits.test.labels.numpy()))
    config = TrainConfig(method="st", epochs=2, batch_size=20)

    result = asgt.train(config, tmp_path / "run", model=net_of(0), data=pair)
    asgt.train(config, tmp_path / "splits", model=lambda num_classes: net_of(0), data=splits)

    assert result.classes == [str(number) for number in range(10)]
    assert json.loads((tmp_path / "run/training.json").read_text())["classes"] == result.classes
    for arguments in ({}, {"model": net_of(1)}, {"data": pair}):
        with pytest.raises(InputError, match="passed"):
            asgt.load_run(tmp_path / "run", **arguments)
    model, data, _, _ = asgt.load_run(tmp_path / "run", model=net_of(1), data=pair)
    assert torch.equal(model.state_dict()["1.weight"], weights(tmp_path / "run")["1.weight"])
    assert data.test.digest() == result.test_data
    assert "model=…" in cli("evaluate", tmp_path / "run", "--protocol", "paper").refusal()
    # Splits that load_data gave are found again by their name.
    again = asgt.load_run(tmp_path / "splits", model=lambda num_classes: net_of(1))[1]
    assert again.test.digest() == splits.test.digest()


def test_a_factory_that_can_be_imported_is_recorded_by_its_name(own: str, tmp_path: Path) -> None:
    module = import_module(own)

    asgt.train(TrainConfig(method="st", epochs=1, limit=60, batch_size=20), tmp_path / "run", model=module.net)

    assert TrainConfig.load(tmp_path / "run/config.yaml").model == f"{own}:net"
    asgt.load_run(tmp_path / "run", allow=[own])


def test_an_extra_setting_does_not_hide_a_field() -> None:
    with pytest.raises(InputError, match="lr"):
        TrainConfig(settings={"lr": 0.1}).resolved()
