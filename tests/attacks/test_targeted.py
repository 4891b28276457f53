"""Targeted attacks against closed forms, torchattacks and pyautoattack, and where they are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import asgt
from asgt.attacks import (
    APGD,
    FGSM,
    MIFGSM,
    PGD,
    AnnealedPGD,
    Attack,
    AutoAttack,
    Foreign,
    LocalSquare,
    Repeated,
    RescaledSquare,
    Square,
    State,
    Whole,
)
from asgt.attacks.attack import is_legal, project, steepest
from asgt.errors import InputError
from asgt.evaluation.protocols import Search
from asgt.modes import evaluating
from asgt.randomness import SampleKeyed
from support.attacked import THEIR_NORM, Linear, Recorder, batch, conv_net, linear_batch, smooth_net
from support.messages import assert_states


@dataclass(frozen=True)
class Nudge(Attack):
    """An attack of one's own, which says that it has a targeted form."""

    steps: int = 4
    takes_targets: ClassVar[bool] = True

    def step(self, state: State) -> State:
        gradient, logits = state.gradient()
        return self.moved(state.judged(logits), steepest(gradient, self.norm), state.eps / self.steps)


EVERY = [
    pytest.param(PGD(eps=0.1, steps=6, targeted=True), id="pgd"),
    pytest.param(PGD(eps=0.8, norm="l2", steps=6, restarts=2, targeted=True), id="pgd-l2-restarts"),
    pytest.param(MIFGSM(eps=0.1, steps=6, targeted=True), id="mifgsm"),
    pytest.param(APGD(eps=0.1, steps=12, targeted=True), id="apgd-ce"),
    pytest.param(APGD(eps=0.8, norm="l2", steps=12, loss="dlr-targeted", targeted=True), id="apgd-dlr-l2"),
    pytest.param(Repeated(attack=APGD(eps=0.1, steps=6, targeted=True), restarts=2), id="repeated"),
]


def aimed(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The class of each image, and the next most likely one."""

    first, second = net(x).detach().topk(2, dim=1).indices.unbind(dim=1)
    return first, second


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms and oracles
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.1, steps=5, random_start=False, targeted=True),
        MIFGSM(eps=0.1, steps=5, targeted=True),
        APGD(eps=0.1, steps=20, targeted=True),
        APGD(eps=0.1, steps=20, loss="dlr-targeted", targeted=True),
        Nudge(eps=0.1, targeted=True),
    ],
    ids=["pgd", "mifgsm", "apgd-ce", "apgd-dlr", "own"],
)
def test_on_a_linear_model_the_target_is_most_likely_in_the_corner(attack: Attack) -> None:
    """The logits are w · x and 0: towards class 0 every pixel goes with the sign of its weight, else against it."""

    weight = [2.0, -0.5, 0.3, 1e-3, -1.0, 0.25]
    net, x = Linear(weight), linear_batch()[0]
    y = net(x).argmax(dim=1)
    assert len(y.unique()) == 2
    towards = torch.where(y == 1, 1.0, -1.0).double()[:, None] * torch.tensor(weight, dtype=torch.float64).sign()
    expected = (x.flatten(1) + 0.1 * towards).clamp(0, 1)

    state = attack.start(net, x, 1 - y, 0.1)
    for _ in range(attack.steps):
        state = attack.step(state)
    ends = state.best if hasattr(state, "best") else state.x_adv

    torch.testing.assert_close(ends.flatten(1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_torchattacks(norm: str) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, (x, _) = conv_net(), batch()
    _, targets = aimed(net, x)
    eps, alpha = (0.1, 0.03) if norm == "linf" else (1.0, 0.2)
    theirs = (torchattacks.PGD if norm == "linf" else torchattacks.PGDL2)(
        net, eps=eps, alpha=alpha, steps=8, random_start=False
    )
    theirs.set_mode_targeted_by_label(quiet=True)

    attack = PGD(eps=eps, alpha=alpha, steps=8, random_start=False, norm=norm, targeted=True)  # type: ignore[arg-type]

    torch.testing.assert_close(attack(net, x, targets), theirs(x, targets), rtol=0, atol=1e-5)


def test_mifgsm_equals_torchattacks() -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, (x, _) = conv_net(), batch()
    _, targets = aimed(net, x)
    theirs = torchattacks.MIFGSM(net, eps=0.1, alpha=0.03, steps=8, decay=0.7)
    theirs.set_mode_targeted_by_label(quiet=True)

    ours = MIFGSM(eps=0.1, alpha=0.03, steps=8, decay=0.7, targeted=True)(net, x, targets)

    torch.testing.assert_close(ours, theirs(x, targets), rtol=0, atol=1e-6)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5)])
def test_every_iterate_of_apgd_equals_the_authors(norm: str, eps: float, loss: str) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    net, x = smooth_net(), batch(samples=12, dtype=torch.float64)[0]
    y, targets = aimed(net, x)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    init = project(x + eps * noise, x, torch.full((len(x),), eps), norm)  # type: ignore[arg-type]
    theirs, ours = Recorder(net), Recorder(net)

    oracle = base.APGDAttack_targeted(theirs, n_iter=30, norm=THEIR_NORM[norm], eps=eps)
    oracle.loss = "ce-targeted" if loss == "ce" else loss
    oracle.y_target = targets
    oracle.init_hyperparam(x)
    if norm == "l2":
        # Theirs divides by the length plus 1e-12.
        oracle.normalize = lambda v: v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    oracle.attack_single_run(x, y, x_init=init)
    attack = APGD(eps=eps, norm=norm, steps=30, loss=loss, targeted=True)  # type: ignore[arg-type]
    state = attack.start(ours, x, targets, eps, init=init)
    for _ in range(30):
        state = attack.step(state)
    attack.result(state)

    # Ours looks at the clean images first where it must know which class they leave.
    asked = ours.asked[1:] if loss == "dlr-targeted" else ours.asked
    assert len(asked) == len(theirs.asked) == 31
    for number, (mine, their) in enumerate(zip(asked, theirs.asked, strict=True)):
        torch.testing.assert_close(mine, their, rtol=0, atol=1e-9, msg=f"iterate {number}")


# ---------------------------------------------------------------------------------------------------------------------
# What it answers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", EVERY)
def test_a_target_is_reached_in_the_ball_or_comes_nearer(attack: Attack) -> None:
    net, x = smooth_net(), batch(samples=12, dtype=torch.float64)[0]
    targets = aimed(net, x)[1]

    x_adv = attack(net, x, targets, generator=SampleKeyed(0, torch.arange(12)))

    assert is_legal(x_adv, x, attack.radius, attack.norm).all()
    before, after = (F.cross_entropy(net(images), targets, reduction="none") for images in (x, x_adv))
    assert (after < before).all()
    assert (net(x_adv).argmax(dim=1) == targets).any()


@pytest.mark.parametrize("attack", EVERY)
def test_each_image_is_led_as_it_would_be_alone(attack: Attack) -> None:
    net, x = smooth_net(), batch(samples=6, dtype=torch.float64)[0]
    targets = aimed(net, x)[1]
    together = attack(net, x, targets, generator=SampleKeyed(1, torch.arange(6)))

    for i in range(6):
        alone = attack(net, x[[i]], targets[[i]], generator=SampleKeyed(1, torch.tensor([i])))
        torch.testing.assert_close(together[[i]], alone, rtol=0, atol=1e-8)


@pytest.mark.parametrize("attack", EVERY)
def test_the_steps_lead_where_the_call_does(attack: Attack) -> None:
    """Who shows each iterate drives the steps; a success is the prediction of the target, and of nothing else."""

    net, x = smooth_net(), batch(samples=12, dtype=torch.float64)[0]
    targets = aimed(net, x)[1]
    once = attack.once
    with evaluating(net):
        state = once.start(net, x, targets, attack.radius, generator=SampleKeyed(2, torch.arange(12)))
        reached = torch.zeros(12, dtype=torch.bool)
        for _ in range(once.steps):
            reached |= net(state.x_adv).argmax(dim=1) == targets
            state = once.step(state)
            assert torch.equal(state.fooled, reached)

    called = once(net, x, targets, eps=attack.radius, generator=SampleKeyed(2, torch.arange(12)))
    assert torch.equal(once.result(state), called)
    assert torch.equal(net(state.witness[reached]).argmax(dim=1), targets[reached])


def test_a_restart_never_loses_a_target_and_a_nan_never_wins() -> None:
    net, x = smooth_net(), batch(samples=24, dtype=torch.float64)[0]
    targets = aimed(net, x)[1]

    def torn(images: Tensor) -> Tensor:
        return torch.where((images[:, 0, 0, 0] > x[:, 0, 0, 0])[:, None], torch.nan, net(images))

    for model in (net, torn):
        reached = []
        for restarts in (1, 4):
            attack = PGD(eps=0.05, steps=2, restarts=restarts, targeted=True)
            logits = model(attack(model, x, targets, generator=SampleKeyed(0, torch.arange(24))))
            reached.append((logits.argmax(dim=1) == targets) & ~logits.isnan().any(dim=1))
        assert (reached[1] | ~reached[0]).all()
        assert reached[1].sum() > reached[0].sum()


def test_untargeted_attacks_are_what_they_were() -> None:
    """Evidence on disk knows attacks by their text."""

    assert repr(PGD(0.0, steps=40, restarts=5)) == (
        "PGD(eps=0.0, norm='linf', steps=40, alpha=None, random_start=True, restarts=5)"
    )
    assert repr(MIFGSM(0.1)) == "MIFGSM(eps=0.1, norm='linf', steps=10, alpha=None, decay=1.0)"
    assert repr(APGD(norm="l2")) == "APGD(eps=None, norm='l2', steps=100, loss='ce', target=1)"
    for attack in (PGD(targeted=True), MIFGSM(targeted=True), APGD(targeted=True)):
        assert "targeted=True" in repr(attack)
        assert attack.title.startswith("targeted ")
        assert attack.doubled().targeted


# ---------------------------------------------------------------------------------------------------------------------
# What is refused
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: FGSM(targeted=True),
        lambda: Square(targeted=True),
        lambda: LocalSquare(targeted=True),
        lambda: RescaledSquare(targeted=True),
        lambda: AnnealedPGD(targeted=True),
        lambda: AutoAttack(targeted=True),
        lambda: AutoAttack(part="apgd", targeted=True),
        lambda: Foreign(made=lambda eps: None, targeted=True),
        lambda: Repeated(attack=PGD(), targeted=True),
        lambda: APGD(loss="dlr-targeted", target=2, targeted=True),
        lambda: PGD(targeted=3),
    ],
)
def test_an_attack_without_a_targeted_form_refuses_it(make: Callable[[], Attack]) -> None:
    with pytest.raises(InputError, match="target"):
        make()


def test_every_registered_attack_takes_targets_or_refuses_them() -> None:
    for name in asgt.attacks.__all__:
        kind = getattr(asgt.attacks, name)
        if not (isinstance(kind, type) and issubclass(kind, Attack)) or kind in (Attack, Whole, Foreign, Repeated):
            continue
        if kind.takes_targets:
            assert kind(targeted=True).targeted
            continue
        with pytest.raises(InputError, match="untargeted"):
            kind(targeted=True)


@pytest.mark.parametrize(
    ("targets", "facts"),
    [
        (lambda y: y + 0.5, ("targets", "int64")),
        (lambda y: y[:3], ("targets", "(3,)")),
        (lambda y: y[:, None], ("targets", "squeeze")),
        (lambda y: F.one_hot(y, 5), ("targets", "argmax")),
        (lambda y: "cat", ("targets", "str")),
        (lambda y: torch.full_like(y, 5), ("targets", "K = 5")),
        (lambda y: torch.full_like(y, -1), ("targets", "-1")),
    ],
    ids=["floats", "count", "column", "probabilities", "word", "no-class", "negative"],
)
def test_targets_that_cannot_be_meant_are_refused(targets: Callable[[Tensor], object], facts: tuple[str, ...]) -> None:
    net, (x, y) = conv_net(), batch()

    with pytest.raises(InputError) as caught:
        PGD(eps=0.1, steps=2, targeted=True)(net, x, targets(y))  # type: ignore[arg-type]
    assert_states(caught.value, *facts)


def test_a_target_that_is_predicted_already_is_refused() -> None:
    net, (x, _) = conv_net(), batch()
    y, targets = aimed(net, x)
    targets[2] = y[2]

    with pytest.raises(InputError) as caught:
        APGD(eps=0.1, steps=2, targeted=True)(net, x, targets)
    assert_states(caught.value, "targets[2]", str(int(y[2])), "another class")


def test_targeted_attacks_are_refused_where_labels_are_what_counts(tmp_path: Path) -> None:
    net, (x, y) = conv_net(), batch()
    attack = PGD(eps=0.1, steps=2, targeted=True)

    for wrong in (
        lambda: asgt.evaluate(net, (x, y), [attack], epsilons=[0.1]),
        lambda: asgt.Protocol("mine", 1, (Search("pgd", (asgt.APGD(), attack)),), True, "no claim"),
        lambda: asgt.AT(attack=attack)(net, x, y),
        lambda: asgt.TRADES(attack=attack)(net, x, y),
        lambda: asgt.ASGT(attack=Repeated(attack=attack, restarts=2), mask=asgt.SaliencyMask(k=0.1))(net, x, y),
        lambda: asgt.train(asgt.TrainConfig(epochs=1, limit=100), tmp_path / "run", objective=asgt.AT(attack=attack)),
    ):
        with pytest.raises(InputError) as caught:
            wrong()
        assert_states(caught.value, "targeted PGD-2", "omit targeted")


def test_training_has_no_setting_for_it() -> None:
    from asgt.training.method_registry import known_settings

    assert "targeted" not in known_settings()
