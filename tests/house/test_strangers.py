"""Code of other people that is not as it should be: it is told apart, refused or explained in one line."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.errors import InputError
from asgt.saliency import Attribution
from asgt.training.config import TrainConfig
from support.messages import assert_states

MODULE = """
from dataclasses import dataclass, replace
import torch
from asgt import APGD, Attack, Check, Objective, PGD, SaliencyMask
from asgt.attacks.attack import steepest
from asgt.passes import cross_entropy
from asgt.saliency import Attribution

@dataclass(frozen=True)
class Nudge(Attack):
    steps: int = 2
    def step(self, state):
        gradient, logits = state.gradient()
        return self.moved(state.judged(logits), steepest(gradient, self.norm), LENGTH * state.eps)

@dataclass(frozen=True)
class Leaves(Nudge):
    def step(self, state):
        state = super().step(state)
        return replace(state, x_adv=state.x_adv + 1)

@dataclass(frozen=True)
class Still(Nudge):
    def step(self, state):
        return state

@dataclass(frozen=True)
class Raises(Nudge):
    def step(self, state):
        raise ValueError("no such thing")

@dataclass(frozen=True)
class NotANumber(Nudge):
    def step(self, state):
        state = super().step(state)
        return replace(state, x_adv=state.x_adv * torch.nan)

class Plain(Attack):
    def __init__(self):
        object.__setattr__(self, "eps", None)
    def step(self, state):
        return state

def factory():
    return Nudge(steps=3)

@dataclass(frozen=True)
class Base(Objective):
    def views(self, model, x, y, eps, generators):
        return {"clean": x}
    def terms(self, logits, y):
        return {"clean": cross_entropy(logits["clean"], y)}

@dataclass(frozen=True)
class Steps(Base):
    attack: PGD
    steps: int = 5

@dataclass(frozen=True)
class Given(Base):
    attack: Attack = PGD(0.1, steps=3)

@dataclass(frozen=True)
class Named(Base):
    word: str = "plain"
    share: float | None = 0.5

@dataclass(frozen=True)
class Flag(Base):
    resume: bool = False

class Held(Base):
    def __init__(self, helper):
        object.__setattr__(self, "helper", helper)

@dataclass(frozen=True)
class Edges(Attribution):
    def maps(self, model, x, y, *, target, generator, batch_size):
        return x - x.roll(1, dims=3)

def wrong(look):
    return Check("wrong", "MAYBE", "x")

def tensor(look):
    return Check("tensor", "WARN", "x", "y", (torch.tensor(3),))
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two modules whose classes have the same names; the steps of the second have no length."""

    import sys

    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    for name, length in (("strange_one", 0.5), ("strange_two", 0.0)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(MODULE).replace("LENGTH", str(length)))
    yield
    for name in ("strange_one", "strange_two"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


@pytest.fixture(scope="module")
def data() -> tuple[Tensor, Tensor]:
    digits = asgt.load_data("digits").test
    return digits.pixels[:20].float() / 255, digits.labels[:20]


def test_attacks_of_the_same_name_are_told_apart(
    modules: None, net: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    import strange_one  # type: ignore[import-not-found]
    import strange_two  # type: ignore[import-not-found]

    made = asgt.evaluate(net, data, strange_one.Nudge(), epsilons=0.1, folder=tmp_path / "own")
    again = asgt.evaluate(net, data, strange_one.Nudge(), epsilons=0.1, folder=tmp_path / "own", resume=True)
    assert torch.equal(again.outcomes["worst-case"], made.outcomes["worst-case"])
    with pytest.raises(InputError, match="settings"):
        asgt.evaluate(net, data, strange_two.Nudge(), epsilons=0.1, folder=tmp_path / "own", resume=True)
    (tmp_path / "own" / "result.json").unlink()
    with pytest.raises(InputError, match="settings"):
        asgt.evaluate(net, data, strange_two.Nudge(), epsilons=0.1, folder=tmp_path / "own", resume=True)


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("Still", ("Still", "iteration")),
        ("Raises", ("Raises", "ValueError", "no such thing")),
        ("Plain", ("Plain", "eps")),
    ],
)
def test_an_attack_that_cannot_be_driven_is_explained(
    modules: None, net: nn.Module, data: tuple[Tensor, Tensor], name: str, facts: tuple[str, ...]
) -> None:
    import strange_one

    with pytest.raises(InputError) as refused:
        asgt.evaluate(net, data, getattr(strange_one, name)(), epsilons=1e-4)
    assert_states(refused.value, *facts)


def test_an_attack_that_gives_nan_is_at_fault_not_the_model(
    modules: None, net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    import strange_one

    evaluation = asgt.evaluate(net, data, strange_one.NotANumber(), epsilons=0.001, worst_case=False)
    (outcomes,) = evaluation.outcomes.values()
    assert torch.equal(outcomes[0], evaluation.clean)


def test_an_attack_of_ones_own_is_made_in_the_norm_and_by_a_function(modules: None) -> None:
    from asgt.evaluation.protocols import own_attack

    assert own_attack("strange_one:Nudge", "l2").norm == "l2"
    assert own_attack("strange_one:factory", "linf").steps == 3


@pytest.mark.parametrize(
    ("method", "facts"),
    [
        ("strange_one:Steps", ("steps", "stored_as")),
        ("strange_one:Given", ("attack", "default")),
        ("strange_one:Flag", ("resume", "stored_as")),
    ],
)
def test_a_field_that_would_mean_something_else_is_refused(
    modules: None, cli: Callable, method: str, facts: tuple[str, ...]
) -> None:
    assert_states(cli("train", "--data", "digits", "--method", method).refusal(), *facts)


def test_an_attack_that_leaves_the_ball_is_not_trained_with(modules: None, cli: Callable) -> None:
    words = ("train", "--data", "digits", "--limit", 60, "--method", "at", "--eps", 0.1)
    assert_states(cli(*words, "--attack", "strange_one:Leaves", "--out", "left").failure(), "Leaves", "ball")


def test_a_number_of_ones_own_is_written_as_any_other(modules: None, cli: Callable, tmp_path: Path) -> None:
    words = ("train", "--data", "digits", "--limit", 60, "--epochs", 1, "--method", "strange_one:Named")
    assert cli(*words, "--share", "1/4", "--out", "quarter").status == 0
    assert TrainConfig.load(tmp_path / "quarter" / "config.yaml").settings["share"] == 0.25
    assert_states(cli(*words, "--share", "inf", "--out", "endless").refusal(), "share", "finite")


def test_apgd_is_an_attack_inside_a_method() -> None:
    config = TrainConfig.of({"method": "at", "attack": "asgt.attacks.apgd:APGD", "eps": 0.1, "target_class": 1})
    assert config.resolved(allow=["asgt.attacks.apgd"]).settings["target_class"] == 1


def test_none_and_texts_that_look_like_numbers_survive_the_configuration(modules: None, tmp_path: Path) -> None:
    given = {"method": "strange_one:Named", "word": "1e-3", "share": None, "data": "1e5"}
    config = TrainConfig.of(given).resolved(allow=["strange_one"])
    assert config.settings == {"word": "1e-3", "share": None}
    config.save(tmp_path / "config.yaml")
    read = TrainConfig.load(tmp_path / "config.yaml")
    assert (read.settings["word"], read.settings["share"], read.data) == ("1e-3", None, "1e5")


def test_objects_are_told_apart_by_what_they_hold(modules: None) -> None:
    import strange_one

    from asgt.training.passed import Passed, configured

    class Helper:
        def __init__(self, value: object) -> None:
            self.value = value

    def recorded(value: object) -> str:
        objective = strange_one.Held(Helper(value))
        return str(configured(TrainConfig(data="digits"), Passed(objective=objective)).settings["objective"])

    assert recorded(0.1) == recorded(0.1)
    nearly = torch.ones(2000)
    nearly[1000] += 1e-5
    kinds = [0.1, 9.0, torch.ones(2000), nearly, lambda z: z, lambda z: 3 * z, [1, 2], {"a": 1}]
    assert len({recorded(value) for value in kinds}) == len(kinds)


def test_an_attribution_that_does_not_ask_the_model_gives_its_maps(
    modules: None, net: nn.Module, data: tuple[Tensor, Tensor]
) -> None:
    import strange_one

    edges: Attribution = strange_one.Edges()
    x = data[0]
    assert torch.equal(asgt.attribute(net, x, data[1], edges), x - x.roll(1, dims=3))


@pytest.mark.parametrize(("name", "facts"), [("wrong", ("wrong", "MAYBE")), ("tensor", ())])
def test_a_check_is_looked_at_before_it_is_written(
    modules: None, net: nn.Module, data: tuple[Tensor, Tensor], tmp_path: Path, name: str, facts: tuple[str, ...]
) -> None:
    import strange_one

    asked = {"epsilons": 0.1, "checks": [getattr(strange_one, name)], "folder": tmp_path / "e"}
    if facts:
        with pytest.raises(InputError) as refused:
            asgt.evaluate(net, data, **asked)  # type: ignore[arg-type]
        assert_states(refused.value, *facts)
    else:
        asgt.evaluate(net, data, **asked)  # type: ignore[arg-type]
        assert asgt.load_evaluation(tmp_path / "e").checks[-1].samples == (3,)
