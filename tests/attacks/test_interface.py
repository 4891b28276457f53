"""What others ask of an attack: an attack of one's own answers by defaults, and restarts wrap any attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.attacks import APGD, FGSM, MIFGSM, PGD, Attack, AutoAttack, Foreign, Repeated, Square, State, describe
from asgt.attacks.attack import is_legal, steepest
from asgt.errors import InputError
from asgt.evaluation.check import Check
from asgt.evaluation.protocols import EARLIER, PROTOCOLS
from asgt.evaluation.second_look import SecondLook
from asgt.randomness import SampleKeyed
from support.messages import assert_states


@dataclass(frozen=True)
class Nudge(Attack):
    """An attack as a reader writes one: a step, and nothing else."""

    steps: int = 4

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        return self.moved(state.judged(logits), steepest(gradient, self.norm), state.eps / self.steps)


@dataclass(frozen=True)
class Jump(Nudge):
    """The same from a random start."""

    @property
    def starts_at_random(self) -> bool:
        return True


@pytest.fixture
def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(30, 1, 4, 4, generator=generator), torch.randint(0, 3, (30,), generator=generator)


def test_an_attack_of_ones_own_answers_by_defaults() -> None:
    mine = Nudge()
    assert (mine.restarts, mine.once, mine.reach, mine.gradients) == (1, mine, None, 4)
    assert mine.doubled() == Nudge(steps=8)
    assert not mine.adapted(2)
    assert mine.possible(2)
    assert (mine.goes_by_steps, mine.is_one_step, mine.title) == (True, False, "Nudge")
    assert mine.in_norm("l2") == Nudge(norm="l2")
    assert describe([mine, PGD(), mine]) == "Nudge (4 steps), PGD-40 (α = 2.5ε/40, random starts)"


@pytest.mark.parametrize(
    ("attack", "reach", "gradients", "doubled"),
    [
        (PGD(steps=10, alpha=0.02), 0.1, 10, PGD(steps=20, alpha=0.02, restarts=2)),
        (PGD(steps=10, alpha=0.02, random_start=False), 0.2, 10, PGD(steps=20, alpha=0.02, random_start=False)),
        (PGD(steps=40, restarts=5), None, 200, PGD(steps=80, restarts=10)),
        (MIFGSM(steps=10, alpha=0.01), 0.1, 10, MIFGSM(steps=20, alpha=0.01)),
        (FGSM(), None, 1, None),
        (APGD(steps=50), None, 50, APGD(steps=100)),
        (Square(steps=100), None, 0, Square(steps=200)),
        (AutoAttack(), None, 0, None),
    ],
)
def test_reach_cost_and_doubled_effort_are_the_attacks_own(
    attack: Attack, reach: float | None, gradients: int, doubled: Attack | None
) -> None:
    assert attack.reach == (None if reach is None else pytest.approx(reach))
    assert (attack.gradients, attack.doubled()) == (gradients, doubled)


def test_the_protocols_describe_all_of_their_attacks() -> None:
    (standard,) = EARLIER["standard@1"].searches
    assert describe(standard.attacks) == (
        "PGD-40 × 5 (α = 2.5ε/40, random starts), APGD-CE (100 steps), APGD-T (100 steps on each of 9 targets), "
        "Square (5,000 queries)"
    )
    (ensemble,) = PROTOCOLS["autoattack"].searches
    assert describe(ensemble.attacks).startswith("AutoAttack (its authors' package, whole")
    assert "mine (called whole)" in describe([Foreign(made=lambda eps: None, name="mine")])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_of_any_attack_are_those_of_pgd(norm: str, linear: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    once = PGD(0.2, norm=norm, steps=3)  # type: ignore[arg-type]
    ours = PGD(0.2, norm=norm, steps=3, restarts=4)  # type: ignore[arg-type]

    def attacked(attack: Attack) -> Tensor:
        return attack(linear, *batch, generator=SampleKeyed(0, torch.arange(30)))

    wrapped = Repeated(attack=once, restarts=4)
    assert torch.equal(attacked(wrapped), attacked(ours))
    assert (wrapped.radius, wrapped.norm, wrapped.steps, wrapped.gradients) == (0.2, norm, 3, 12)


def test_a_restart_never_leaves_more_images_right(linear: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch

    def right(attack: Attack) -> Tensor:
        x_adv = attack(linear, x, y, generator=SampleKeyed(0, torch.arange(30)))
        assert is_legal(x_adv, x, 0.1, "linf").all()
        return linear(x_adv).argmax(dim=1) == y

    for attack in (Jump(0.1), APGD(0.1, steps=4), Square(0.1, steps=10)):
        first, several = right(attack), right(Repeated(attack=attack, restarts=3))
        assert not (several & ~first).any()


def test_what_cannot_be_repeated_or_has_no_eps_is_refused(linear: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError) as caught:
        Repeated(attack=Nudge(), restarts=2)
    assert_states(caught.value, "Nudge", "same")
    with pytest.raises(InputError, match="eps"):
        PGD()(linear, *batch)
    with pytest.raises(InputError, match="linf"):
        FGSM().in_norm("l2")
    assert torch.equal(
        PGD(random_start=False)(linear, *batch, eps="1/10"), PGD("1/10", random_start=False)(linear, *batch)
    )  # type: ignore[arg-type]


def test_attacks_without_an_eps_are_evaluated_and_read_back(
    linear: nn.Module, batch: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    def small(look: SecondLook) -> Check:
        return Check("size", "WARN", f"n = {look.evaluation.samples}", "more images")

    attacks = [Nudge(), Repeated(attack=Jump(), restarts=2)]
    evaluation = asgt.evaluate(
        linear, batch, attacks, epsilons=["8/255", 0.2], folder=str(tmp_path / "own"), checks=[small]
    )
    assert evaluation.checks[-1] == Check("size", "WARN", "n = 30", "more images")

    read = asgt.load_evaluation(tmp_path / "own")
    assert (str(read), read.protocol.searches[0].title) == (str(evaluation), "worst of Nudge, Jump × 2")
    assert read.first_to_break("worst-case") == evaluation.first_to_break("worst-case")
    assert torch.equal(read.outcomes["worst-case"], evaluation.outcomes["worst-case"])
    again = asgt.evaluate(linear, batch, attacks, epsilons=["8/255", 0.2], folder=tmp_path / "own", resume=True)
    assert torch.equal(again.outcomes["worst-case"], evaluation.outcomes["worst-case"])
    # What is read back has no code: it cannot attack.
    with pytest.raises(InputError, match="record"):
        read.protocol.searches[0].attacks[0](linear, *batch, eps=0.1)


@pytest.mark.slow
def test_the_effort_of_every_attack_is_doubled(linear: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    def doubled(attacks: list[Attack]) -> str:
        evaluation = asgt.evaluate(linear, batch, attacks, epsilons=[0.01], thorough=True)
        return next(check.evidence for check in evaluation.checks if check.name == "doubled effort")

    assert "Nudge (8 steps), APGD-CE (4 steps)" in doubled([Nudge(), APGD(steps=2)])
    foreign = Foreign(made=lambda eps: lambda x, y: x, name="theirs")
    assert "theirs cannot be doubled, PGD-80 × 10 replaces it" in doubled([foreign])


@pytest.mark.slow
def test_a_check_of_ones_own_that_fails_is_named(linear: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    def broken(look: SecondLook) -> Check:
        raise ValueError("no such thing")

    checks: list[tuple[Callable, str]] = [(broken, "no such thing"), (lambda look: "fine", "str")]
    for check, told in checks:
        with pytest.raises(InputError, match=told):
            asgt.evaluate(linear, batch, epsilons=[0.1], checks=[check])
