"""Auto-PGD against its authors' own package, against closed forms, and against what it promises about samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt.attacks import APGD, APGDState
from asgt.attacks.attack import project
from asgt.errors import InputError
from asgt.randomness import SampleKeyed
from support.attacked import (
    RADII,
    THEIR_NORM,
    WEIGHT,
    Linear,
    Recorder,
    batch,
    conv_net,
    corner,
    delicate_net,
    linear_batch,
    radius,
    smooth_net,
    torn_net,
)
from support.messages import assert_states
from support.nets import untouched


def images(net: nn.Module, samples: int = 12) -> tuple[Tensor, Tensor]:
    x = batch(samples=samples, dtype=torch.float64)[0]
    return x, net(x).argmax(dim=1)


def run(attack: APGD, state: APGDState, steps: int) -> APGDState:
    for _ in range(steps):
        state = attack.step(state)
    return state


# ---------------------------------------------------------------------------------------------------------------------
# Oracle: pyautoattack
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("steps", [1, 2, 7, 30, 100])
@pytest.mark.parametrize("target", [None, 1, 3], ids=["ce", "dlr-1", "dlr-3"])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.5)])
def test_every_iterate_equals_the_authors(norm: str, eps: float, target: int | None, steps: int) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    net = smooth_net()
    x, y = images(net)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    init = project(x + eps * noise, x, torch.full((len(x),), eps), norm)

    theirs, ours = Recorder(net), Recorder(net)
    if target is None:
        oracle = base.APGDAttack(theirs, n_iter=steps, norm=THEIR_NORM[norm], eps=eps)
        attack = APGD(eps=eps, norm=norm, steps=steps)
    else:
        oracle = base.APGDAttack_targeted(theirs, n_iter=steps, norm=THEIR_NORM[norm], eps=eps)
        oracle.y_target = net(x).sort(dim=1).indices[:, -1 - target]
        attack = APGD(eps=eps, norm=norm, steps=steps, loss="dlr-targeted", target=target)
    oracle.init_hyperparam(x)
    if norm == "l2":
        # Theirs divides by the length plus 1e-12.
        oracle.normalize = lambda v: v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    best, robust, best_loss, _ = oracle.attack_single_run(x, y, x_init=init)
    state = run(attack, attack.start(ours, x, y, eps, init=init), steps)
    result = attack.result(state)

    # Ours looks at the clean images first where it ranks targets; the start and one iterate a step follow.
    asked = ours.asked if target is None else ours.asked[1:]
    assert len(asked) == len(theirs.asked) == steps + 1
    for number, (mine, their) in enumerate(zip(asked, theirs.asked, strict=True)):
        torch.testing.assert_close(mine, their, rtol=0, atol=1e-9, msg=f"iterate {number}")
    fooled = net(result).argmax(dim=1) != y
    assert torch.equal(fooled, robust == 0)
    torch.testing.assert_close(result[~fooled], best[~fooled], rtol=0, atol=1e-9)
    seen = torch.stack([state.losses(net(x_adv)) for x_adv in asked]).amax(dim=0)
    torch.testing.assert_close(seen, best_loss, rtol=0, atol=1e-7)
    if steps == 30:
        assert 0 < fooled.sum() < len(x)
        assert len(set(state.step_size.tolist())) > 1, "every sample's step was halved at the same checkpoints"


@pytest.mark.parametrize(("norm", "their"), [("linf", "Linf"), ("l2", "L2")])
def test_the_random_start_is_the_authors(norm: str, their: str) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    net, (x, y) = conv_net(), batch()
    asked = Recorder(net)
    oracle = base.APGDAttack(asked, n_iter=1, norm=their, eps=0.2)
    oracle.init_hyperparam(x)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        oracle.attack_single_run(x, y)

    ours = APGD(eps=0.2, norm=norm).start(net, x, y, 0.2, generator=torch.Generator().manual_seed(4))

    torch.testing.assert_close(ours.x_adv, asked.asked[0], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_robust_accuracy_is_the_authors(digits_net: tuple[nn.Module, Tensor, Tensor], norm: str, eps: float) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    net, x, y = digits_net
    clean = net(x).argmax(dim=1) == y
    x, y = x[clean], y[clean]

    with torch.random.fork_rng():
        theirs = base.APGDAttack(net, norm=THEIR_NORM[norm], eps=eps, seed=0).perturb(x, y)
    ours = APGD(eps=eps, norm=norm)(net, x, y, generator=torch.Generator().manual_seed(1))

    robust, their_robust = ((net(x_adv).argmax(dim=1) == y).double().mean() for x_adv in (ours, theirs))
    assert 0.2 < their_robust < 0.9
    assert abs(float(robust - their_robust)) <= 0.015


@pytest.mark.slow
def test_targeted_robust_accuracy_is_the_authors(digits_net: tuple[nn.Module, Tensor, Tensor]) -> None:
    base = pytest.importorskip("pyautoattack.autopgd_base")
    net, x, y = digits_net
    clean = net(x).argmax(dim=1) == y
    x, y = x[clean][:200], y[clean][:200]

    with torch.random.fork_rng():
        theirs = base.APGDAttack_targeted(net, n_iter=50, eps=0.1, n_target_classes=3, seed=0).perturb(x, y)
    robust = torch.ones(len(y), dtype=torch.bool)
    for target in (1, 2, 3):
        attack = APGD(eps=0.1, steps=50, loss="dlr-targeted", target=target)
        robust &= net(attack(net, x, y, generator=torch.Generator().manual_seed(target))).argmax(dim=1) == y

    their_robust = net(theirs).argmax(dim=1) == y
    assert 0.2 < their_robust.double().mean() < 0.9
    assert abs(int(robust.sum()) - int(their_robust.sum())) <= 3


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms
# ---------------------------------------------------------------------------------------------------------------------


class Sure(Linear):
    """Logits (w · x + 20, 0): no perturbation of a few pixels fools it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([20.0, 0.0])


@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_on_a_linear_model_it_ends_in_the_corner_of_ball_and_box(loss: str) -> None:
    x, _ = linear_batch()
    y = torch.zeros(len(x), dtype=torch.int64)

    ours = APGD(eps=0.1, steps=20, loss=loss)(Sure(WEIGHT), x, y, generator=torch.Generator().manual_seed(0))

    # A pixel of weight zero stays where it started.
    matters = torch.tensor(WEIGHT).view(x.shape[1:]) != 0
    torch.testing.assert_close(ours * matters, corner(x, y, 0.1) * matters, rtol=0, atol=1e-9)


def test_on_a_linear_model_l2_ends_on_the_sphere_along_the_weight() -> None:
    weight = [0.3, -0.4, 0.0, 1.2]  # of length 1.3
    x, y = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64), torch.tensor([0])

    ours = APGD(eps=0.13, norm="l2", steps=100)(Sure(weight), x, y, generator=torch.Generator().manual_seed(0))

    # The score falls by ε ‖w‖ at most; it is flat there, so an error in the direction counts by its square.
    delta = (ours - x).flatten()
    assert float(delta.norm()) <= 0.13 + 1e-12
    assert float(delta @ torch.tensor(weight, dtype=torch.float64)) == pytest.approx(-0.13 * 1.3, rel=1e-6)


def test_the_targeted_loss_by_hand() -> None:
    x, y = torch.full((2, 1, 1, 1), 0.5), torch.tensor([0, 3])
    logits = torch.tensor([[4.0, 1.0, 3.0, 2.0, -1.0], [4.0, 1.0, 3.0, 2.0, -1.0]])

    def model(x: Tensor) -> Tensor:
        return logits + 0.0 * x.flatten(1)

    first, second = (APGD(eps=0.1, loss="dlr-targeted", target=k).start(model, x, y, 0.1) for k in (1, 2))

    # Sorted, the logits are 4, 3, 2, 1, -1: the ratio's denominator is 4 - (2 + 1)/2 = 5/2.
    assert first.target.tolist() == [2, 0]
    assert second.target.tolist() == [3, 2]
    torch.testing.assert_close(first.losses(logits), torch.tensor([-(4 - 3) / 2.5, -(2 - 4) / 2.5]))
    torch.testing.assert_close(second.losses(logits), torch.tensor([-(4 - 2) / 2.5, -(2 - 3) / 2.5]))
    torch.testing.assert_close(second.losses(7.0 * logits + 3.0), second.losses(logits))


def test_a_step_is_halved_where_the_loss_stops_rising() -> None:
    """A tent whose ridge the first step lands on: nothing rises after it, so every checkpoint halves."""

    def tent(x: Tensor) -> Tensor:
        height = -(x.flatten(1).sum(dim=1) - 0.6).abs()
        return torch.stack([-height, torch.zeros_like(height) - 10.0], dim=1)

    x, y = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])
    attack = APGD(eps=0.2, steps=100)
    state = attack.start(tent, x, y, 0.2, init=torch.full_like(x, 0.6))

    sizes = []
    for _ in range(100):
        state = attack.step(state)
        sizes.append(float(state.step_size))

    # A step moves after it has asked: the checkpoints at 22, 41, 57, 70, 80, 87, 93 and 99 show in the step after.
    assert [number for number in range(1, 100) if sizes[number] != sizes[number - 1]] == [
        22,
        41,
        57,
        70,
        80,
        87,
        93,
        99,
    ]
    assert sizes[0] == 0.4
    assert sizes[-1] == pytest.approx(0.4 / 2**8)
    torch.testing.assert_close(attack.result(state), torch.full_like(x, 0.6))


@pytest.mark.parametrize(
    ("rises", "gained", "halved", "halves"),
    [
        (16, 1.0, False, True),  # 16 of 22 rises are no more than 3/4
        (17, 1.0, False, False),
        (22, 0.0, False, True),  # nothing gained, and the step was the same before
        (22, 0.0, True, False),  # it was halved before: it gets another chance
        (22, 0.0, None, False),  # as at the first checkpoint
    ],
)
def test_the_two_conditions_of_a_checkpoint(rises: int, gained: float, halved: bool | None, halves: bool) -> None:
    net = smooth_net()
    x, y = images(net, samples=1)
    attack = APGD(eps=0.1)
    state = attack.step(attack.start(net, x, y, 0.1, generator=torch.Generator().manual_seed(0)))
    at_checkpoint = {
        "iteration": torch.tensor([22]),
        "since": torch.tensor([21]),
        "rises": torch.tensor([rises]),
        "loss": torch.tensor([50.0], dtype=torch.float64),  # so that the step before the checkpoint is no rise
        "best_loss": torch.tensor([100.0], dtype=torch.float64),
        "checked_loss": torch.tensor([100.0 - gained], dtype=torch.float64),
        "halved": state.halved if halved is None else torch.tensor([halved]),
    }

    after = attack.step(replace(state, **at_checkpoint))

    assert float(after.step_size) == (0.1 if halves else 0.2)
    assert torch.equal(after.previous, state.best if halves else state.x_adv)
    assert after.halved.tolist() == [halves]
    assert (after.since.item(), after.rises.item(), after.window.item()) == (0, 0, 19)
    assert float(after.checked_loss) == 100.0


# ---------------------------------------------------------------------------------------------------------------------
# Few classes, and a model that breaks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_attacked_by_the_difference_of_logits(classes: int) -> None:
    net, (x, y) = torn_net(classes)

    for target in range(1, classes):
        attack = APGD(eps=0.05, steps=20, loss="dlr-targeted", target=target)
        assert attack.adapted(classes)
        state = attack.start(net, x, y, 0.05, generator=torch.Generator().manual_seed(0))
        logits, rows = net(x), torch.arange(len(x))
        clean = state.losses(logits)
        torch.testing.assert_close(clean, logits[rows, state.target] - logits[rows, y])
        # towards the least likely class, too: the ratio over three would have no gradient there
        state = run(attack, state, 20)
        assert (state.best_loss > clean).all()
        assert state.fooled.any()
        assert torch.equal(net(attack.result(state)).argmax(dim=1) != y, state.fooled)


def test_only_the_targeted_loss_is_ever_adapted() -> None:
    targeted = APGD(eps=0.1, loss="dlr-targeted")

    assert [targeted.adapted(classes) for classes in (2, 3, 4, 10)] == [True, True, False, False]
    assert not APGD(eps=0.1).adapted(2)


def test_more_targets_than_wrong_classes_are_refused() -> None:
    net = smooth_net(3)
    x, y = images(net)

    with pytest.raises(InputError) as caught:
        APGD(eps=0.1, loss="dlr-targeted", target=3)(net, x, y)
    assert_states(caught.value, "target", "3 classes", "2")


@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nan_logits_fool_nobody_and_leave_the_ball_to_nobody(norm: str, loss: str) -> None:
    """One model always answers NaN, the other where the first pixel has grown: the rest of the ball is searched."""

    net, (x, y) = conv_net(), batch(samples=8)
    y = net(x).argmax(dim=1)

    def broken(x: Tensor) -> Tensor:
        return net(x) * math.nan

    def half(x_adv: Tensor) -> Tensor:
        grown = (x_adv[:, 0, 0, 0] > 0.5)[:, None]
        return torch.where(grown, math.nan, net(x_adv))

    attack = APGD(eps=0.3, norm=norm, steps=12, loss=loss)
    for model in (broken, half):
        asked = Recorder(model)  # type: ignore[arg-type]
        state = run(attack, attack.start(asked, x, y, 0.3, generator=torch.Generator().manual_seed(0)), 12)
        x_adv = attack.result(state)
        assert torch.stack(asked.asked).isfinite().all()
        assert x_adv.isfinite().all()
        assert (radius(x_adv - x, norm) <= 0.3 + 1e-6).all()
        answer = model(state.witness[state.fooled])
        assert answer.isfinite().all()
        assert state.fooled.any() == (model is half)


@pytest.mark.parametrize(
    "make",
    [
        lambda: APGD(eps=0.1, loss="dlr"),
        lambda: APGD(eps=0.1, loss="dlr-targeted", target=0),
        lambda: APGD(eps=0.1, loss="dlr-targeted", target=1.5),
        lambda: APGD(eps=0.1, target=2),
        lambda: APGD(eps=0.1, steps=0),
        lambda: APGD(eps=8),
        lambda: APGD(eps=0.1, norm="l1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], APGD]) -> None:
    with pytest.raises(InputError):
        make()


# ---------------------------------------------------------------------------------------------------------------------
# Ball and box
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    loss=st.sampled_from(["ce", "dlr-targeted"]),
    eps=st.lists(RADII, min_size=3, max_size=3),
    steps=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_every_iterate_stays_finite_in_its_ball_and_in_the_box(
    norm: str, loss: str, eps: list[float], steps: int, seed: int
) -> None:
    net = Recorder(conv_net(seed % 3, channels=1, size=5))
    x, y = batch(seed, samples=3, channels=1, size=5)
    bound = torch.tensor(eps)

    attack = APGD(eps=1.0, norm=norm, loss=loss, steps=steps)
    x_adv = attack(net, x, y, eps=bound, generator=torch.Generator().manual_seed(seed))

    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    for asked in [*net.asked, x_adv]:
        assert asked.shape == x.shape
        assert asked.isfinite().all()
        assert asked.min() >= 0
        assert asked.max() <= 1
        assert (radius(asked - x, norm) <= bound + 1e-6).all()


# ---------------------------------------------------------------------------------------------------------------------
# Samples by themselves
# ---------------------------------------------------------------------------------------------------------------------

BOTH = [APGD(eps=0.05, steps=40), APGD(eps=0.4, steps=40, norm="l2", loss="dlr-targeted", target=2)]
EPS = torch.tensor([0.0, 0.01, 0.03, 0.05, 0.1, 0.3, 0.02, 0.04, 0.2], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("attack", BOTH, ids=["ce", "dlr"])
def test_each_sample_is_attacked_as_it_would_be_alone(attack: APGD) -> None:
    net = smooth_net()
    x, y = images(net, samples=9)
    names = torch.arange(9) * 5 + 2
    together = attack(net, x, y, eps=EPS, generator=SampleKeyed(1, names))

    for i in range(9):
        alone = attack(net, x[[i]], y[[i]], eps=float(EPS[i]), generator=SampleKeyed(1, names[[i]]))
        torch.testing.assert_close(together[[i]], alone, rtol=0, atol=1e-8)
    assert not torch.equal(together, attack(net, x, y, eps=EPS, generator=SampleKeyed(2, names)))


@pytest.mark.parametrize("entry", [1, 7, 9, 25])
@pytest.mark.parametrize("attack", BOTH, ids=["ce", "dlr"])
def test_samples_that_enter_later_go_as_they_would_alone(attack: APGD, entry: int) -> None:
    """Checkpoints of 40 steps are at 8, 15, 21, …: each sample must count its own."""

    net = smooth_net()
    x, y = images(net, samples=9)
    whole = attack.start(net, x, y, EPS, generator=SampleKeyed(1, torch.arange(9)))
    first, late = torch.arange(6), torch.tensor([6, 7, 8])
    places = torch.tensor([4, 0, 3])

    state = run(attack, whole[first], entry).put(places, whole[late])
    state = run(attack, state, 40 - entry)
    early_x_adv = attack.result(state)[[1, 2, 5]]
    state = run(attack, state[places], entry)

    alone = run(attack, whole, 40)
    expected = attack.result(alone)
    torch.testing.assert_close(attack.result(state), expected[late], rtol=0, atol=1e-8)
    torch.testing.assert_close(early_x_adv, expected[[1, 2, 5]], rtol=0, atol=1e-8)
    assert torch.equal(state.step_size, alone.step_size[late])
    assert torch.equal(state.fooled, alone.fooled[late])
    torch.testing.assert_close(state.witness, alone.witness[late], rtol=0, atol=1e-8)


def test_ranks_of_targets_may_share_a_batch() -> None:
    net = smooth_net()
    x, y = images(net, samples=6)
    one, two = (APGD(eps=0.05, steps=20, loss="dlr-targeted", target=rank) for rank in (1, 2))
    mixed = one.start(net, x, y, 0.05, generator=SampleKeyed(0, torch.arange(6)))
    other = two.start(net, x, y, 0.05, generator=SampleKeyed(0, torch.arange(6)))
    index = torch.tensor([1, 4])
    mixed = mixed.put(index, other[index])

    both = one.result(run(one, mixed, 20))

    torch.testing.assert_close(both[index], two.result(run(two, other, 20))[index], rtol=0, atol=1e-8)


def test_the_answer_is_the_first_fooling_iterate_or_the_hardest() -> None:
    net = smooth_net()
    x, y = images(net, samples=20)
    asked = Recorder(net)
    attack = APGD(eps=0.05, steps=20)

    x_adv = attack(asked, x, y, generator=torch.Generator().manual_seed(0))

    assert len(asked.asked) == 21
    logits = torch.stack([net(iterate) for iterate in asked.asked])
    wrong = logits.argmax(dim=2) != y
    losses = -torch.log_softmax(logits, dim=2)[:, torch.arange(20), y]
    for i in range(20):
        number = int((wrong[:, i].int() if wrong[:, i].any() else losses[:, i]).argmax())
        assert torch.equal(x_adv[i], asked.asked[number][i])
    assert 0 < wrong.any(dim=0).sum() < 20


def test_soft_labels_attack_like_hard_ones() -> None:
    net = smooth_net()
    x, y = images(net)
    hot = torch.nn.functional.one_hot(y, 6).double()

    for attack in BOTH:
        soft, hard = (attack(net, x, label, generator=torch.Generator().manual_seed(0)) for label in (hot, y))
        torch.testing.assert_close(soft, hard, rtol=0, atol=1e-8)


# ---------------------------------------------------------------------------------------------------------------------
# What it leaves alone
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was_found(context: type[torch.no_grad], loss: str) -> None:
    net, (x, y) = delicate_net(), batch()
    attack = APGD(eps=0.1, steps=9, loss=loss)
    before, state = x.clone(), torch.get_rng_state()
    expected = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    with untouched(net), context():
        x_adv = attack(net, x, y, generator=torch.Generator().manual_seed(0))
        inside = attack(net, x.clone(), y.clone(), generator=torch.Generator().manual_seed(0))

    assert torch.equal(x_adv, expected)
    assert torch.equal(inside, expected)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attack(net.eval(), x, y, generator=torch.Generator().manual_seed(0)), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("loss", ["ce", "dlr-targeted"])
def test_a_step_reads_nothing_back_from_the_device(loss: str, norm: str) -> None:
    """The meta device holds no values: any round trip to the host, or a tensor left there, raises."""

    net, (x, y) = conv_net().to("meta"), batch()
    attack = APGD(eps=0.1, norm=norm, steps=3, loss=loss)

    x_adv = attack(net, x.to("meta"), y.to("meta"), generator=SampleKeyed(0, torch.arange(6, device="meta")))

    assert x_adv.shape == x.shape
    assert x_adv.device.type == "meta"


def test_an_empty_batch_stays_empty() -> None:
    net, (x, y) = conv_net(), batch()

    for attack in BOTH:
        assert attack(net, x[:0], y[:0]).shape == (0, 3, 8, 8)


def test_eps_zero_returns_the_images() -> None:
    net, (x, y) = conv_net(), batch()

    for attack in BOTH:
        torch.testing.assert_close(attack(net, x, y, eps=0.0), x, rtol=0, atol=1e-7)
