"""Attacks against closed forms, against torchattacks, and against what they promise to leave alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt.attacks import FGSM, MIFGSM, PGD, Attack, State
from asgt.errors import InputError
from asgt.randomness import SampleKeyed
from support.attacked import RADII, WEIGHT, Linear, batch, conv_net, corner, delicate_net, linear_batch, radius
from support.nets import BombError, untouched

# ---------------------------------------------------------------------------------------------------------------------
# Models and data
# ---------------------------------------------------------------------------------------------------------------------


class Flat(nn.Module):
    """Logits that are a table over the first pixel: the gradient is exactly zero, so an attack stays at its start."""

    def __init__(self, table: Callable[[float], list[float]]) -> None:
        super().__init__()
        self.table = table

    def forward(self, x: Tensor) -> Tensor:
        values = torch.tensor([self.table(float(value)) for value in x.detach().flatten(1)[:, 0]])
        return values + 0.0 * x.flatten(1).sum(dim=1, keepdim=True)


EVERY_ATTACK = [
    pytest.param(FGSM(eps=0.1), id="fgsm"),
    pytest.param(FGSM(eps=0.1, random_start=True), id="fgsm-rs"),
    pytest.param(PGD(eps=0.1, steps=3), id="pgd"),
    pytest.param(PGD(eps=0.5, steps=3, norm="l2"), id="pgd-l2"),
    pytest.param(PGD(eps=0.1, steps=3, restarts=3), id="pgd-restarts"),
    pytest.param(MIFGSM(eps=0.1, steps=3), id="mifgsm"),
]

DETERMINISTIC = [
    pytest.param(FGSM(eps=0.1), id="fgsm"),
    pytest.param(PGD(eps=0.1, steps=4, random_start=False), id="pgd"),
    pytest.param(PGD(eps=0.7, steps=4, random_start=False, norm="l2"), id="pgd-l2"),
    pytest.param(MIFGSM(eps=0.1, steps=4), id="mifgsm"),
]

# ---------------------------------------------------------------------------------------------------------------------
# Oracle: torchattacks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("eps", [2 / 255, 0.1, 0.6])
def test_fgsm_equals_torchattacks(eps: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, (x, y) = conv_net(), batch()

    theirs = torchattacks.FGSM(net, eps=eps)(x, y)
    ours = FGSM(eps=eps)(net, x, y)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - x).abs().max() > 0.9 * eps


@pytest.mark.parametrize(("eps", "alpha", "steps"), [(8 / 255, 2 / 255, 10), (0.3, 0.01, 7), (0.05, 0.2, 5)])
def test_pgd_equals_torchattacks(eps: float, alpha: float, steps: int) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, (x, y) = conv_net(), batch()

    theirs = torchattacks.PGD(net, eps=eps, alpha=alpha, steps=steps, random_start=False)(x, y)
    ours = PGD(eps=eps, alpha=alpha, steps=steps, random_start=False)(net, x, y)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert (ours - x).abs().max() > 0.9 * min(eps, alpha * steps)


@pytest.mark.parametrize(("eps", "alpha", "steps"), [(1.0, 0.2, 10), (0.5, 2.0, 4), (3.0, 0.1, 5)])
def test_pgd_l2_equals_torchattacks(eps: float, alpha: float, steps: int) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, (x, y) = conv_net(), batch()

    theirs = torchattacks.PGDL2(net, eps=eps, alpha=alpha, steps=steps, random_start=False)(x, y)
    ours = PGD(eps=eps, alpha=alpha, steps=steps, random_start=False, norm="l2")(net, x, y)

    # torchattacks adds 1e-10 to the gradient's norm, which ours does not.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - x).flatten(1).norm(dim=1).max() > 0.2


@pytest.mark.parametrize("decay", [0.0, 0.7, 1.0])
def test_mifgsm_equals_torchattacks(decay: float) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    net, (x, y) = conv_net(), batch()

    theirs = torchattacks.MIFGSM(net, eps=0.1, alpha=0.03, steps=8, decay=decay)(x, y)
    ours = MIFGSM(eps=0.1, alpha=0.03, steps=8, decay=decay)(net, x, y)

    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_the_momentum_matters() -> None:
    """Else the comparison over decays would compare one attack three times."""

    net, (x, y) = conv_net(), batch()

    assert not torch.equal(
        MIFGSM(eps=0.1, alpha=0.03, steps=8, decay=0.0)(net, x, y),
        MIFGSM(eps=0.1, alpha=0.03, steps=8, decay=1.0)(net, x, y),
    )


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms on linear models
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(eps=0.1),
        PGD(eps=0.1, steps=5, random_start=False),
        PGD(eps=0.1, steps=1, random_start=False),
        MIFGSM(eps=0.1, steps=5),
    ],
    ids=["fgsm", "pgd", "pgd-one-step", "mifgsm"],
)
def test_on_a_linear_model_linf_attacks_end_in_the_corner_of_ball_and_box(attack: Attack) -> None:
    x, y = linear_batch()

    torch.testing.assert_close(attack(Linear(WEIGHT), x, y), corner(x, y, 0.1), rtol=0, atol=1e-9)


def test_on_a_linear_model_fgsm_with_a_random_start_steps_five_quarters() -> None:
    x, y = linear_batch()
    noise = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))

    expected = x.clone().flatten(1)
    for i in range(len(x)):
        for j, weight in enumerate(WEIGHT):
            pixel = float(expected[i, j])
            start = min(1.0, max(0.0, pixel + 0.1 * (2 * float(noise.flatten(1)[i, j]) - 1)))
            away = 0.0 if weight == 0 else math.copysign(1.0, weight) * (-1.0 if y[i] == 0 else 1.0)
            delta = min(0.1, max(-0.1, start + 0.125 * away - pixel))
            expected[i, j] = min(1.0, max(0.0, pixel + delta))

    ours = FGSM(eps=0.1, random_start=True)(Linear(WEIGHT), x, y, generator=torch.Generator().manual_seed(3))

    torch.testing.assert_close(ours.flatten(1), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("steps", [1, 4])
def test_on_a_linear_model_l2_ends_on_the_sphere_along_the_weight(steps: int) -> None:
    weight = [0.3, -0.4, 0.0, 1.2]  # of length 1.3
    x = torch.full((2, 1, 2, 2), 0.5, dtype=torch.float64)
    y = torch.tensor([0, 1])

    ours = PGD(eps=0.13, steps=steps, norm="l2", random_start=False)(Linear(weight), x, y)

    # 0.13 · w / 1.3 = w / 10; the attack's gradient passes through float32 logits.
    away = torch.tensor(weight, dtype=torch.float64) / 10
    torch.testing.assert_close(ours.flatten(1), 0.5 + torch.stack([-away, away]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("attack", "length"),
    [
        (PGD(eps=0.2, steps=10, random_start=False), 2.5 * 0.2 / 10),
        (PGD(eps=0.2, steps=10, random_start=False, alpha=0.03), 0.03),
        (MIFGSM(eps=0.2, steps=10), 0.2 / 10),
        (MIFGSM(eps=0.2, steps=10, alpha=0.03), 0.03),
        (FGSM(eps=0.2), 0.2),
    ],
)
def test_one_step_has_the_documented_length(attack: Attack, length: float) -> None:
    x, y = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64), torch.tensor([1])
    state = attack.step(attack.start(Linear([1.0, -1.0]), x, y, attack.eps))

    expected = torch.tensor([[0.5 + length, 0.5 - length]], dtype=torch.float64)
    torch.testing.assert_close(state.x_adv.flatten(1), expected, rtol=0, atol=1e-12)


def test_relative_steps_follow_each_samples_own_eps() -> None:
    x, y = torch.full((3, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([1, 1, 1])
    attack = PGD(eps=0.9, steps=10, random_start=False)
    state = attack.step(attack.start(Linear([1.0]), x, y, torch.tensor([0.0, 0.04, 0.2], dtype=torch.float64)))

    expected = torch.tensor([0.5, 0.51, 0.55], dtype=torch.float64)
    torch.testing.assert_close(state.x_adv.flatten(), expected, rtol=0, atol=1e-12)


def test_soft_labels_that_are_one_hot_attack_like_hard_ones() -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(dtype=torch.float64)
    attack = PGD(eps=0.1, steps=3, random_start=False)

    torch.testing.assert_close(attack(net, x, F.one_hot(y, 5).float()), attack(net, x, y), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Ball and box
# ---------------------------------------------------------------------------------------------------------------------


@st.composite
def attacks(draw: st.DrawFn) -> Attack:
    eps = draw(st.just(0.0) | st.floats(1e-37, 1))
    steps = draw(st.integers(1, 3))
    alpha = draw(st.none() | st.floats(1e-3, 1.0))
    kind = draw(st.sampled_from(["fgsm", "pgd", "mifgsm"]))
    start = draw(st.booleans())
    if kind == "fgsm":
        return FGSM(eps=eps, random_start=start)
    if kind == "mifgsm":
        return MIFGSM(eps=eps, steps=steps, alpha=alpha, decay=draw(st.floats(0, 2)))
    norm = draw(st.sampled_from(["linf", "l2"]))
    restarts = draw(st.integers(1, 2)) if start else 1
    return PGD(eps=eps, norm=norm, steps=steps, alpha=alpha, random_start=start, restarts=restarts)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, derandomize=True)
@given(attack=attacks(), own=st.none() | st.lists(RADII, min_size=3, max_size=3), seed=st.integers(0, 99))
def test_every_attack_stays_finite_in_its_ball_and_in_the_box(
    attack: Attack, own: list[float] | None, seed: int
) -> None:
    net = conv_net(seed % 3, channels=1, size=5)
    x, y = batch(seed, samples=3, channels=1, size=5)
    eps = None if own is None else torch.tensor(own)

    x_adv = attack(net, x, y, eps=eps, generator=torch.Generator().manual_seed(seed))

    bound = torch.full((3,), attack.eps) if eps is None else eps
    assert x_adv.shape == x.shape
    assert x_adv.dtype == x.dtype
    assert not x_adv.requires_grad
    assert x_adv.isfinite().all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1
    assert (radius(x_adv - x, attack.norm) <= bound + 1e-6).all()


@pytest.mark.parametrize("attack", EVERY_ATTACK)
def test_eps_zero_returns_the_images(attack: Attack) -> None:
    net, (x, y) = conv_net(), batch()

    torch.testing.assert_close(attack(net, x, y, eps=0.0), x, rtol=0, atol=1e-7)


@pytest.mark.parametrize("attack", DETERMINISTIC)
def test_eps_of_each_sample_equals_attacking_it_alone(attack: Attack) -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(dtype=torch.float64)
    eps = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.3, 0.9], dtype=torch.float64)

    together = attack(net, x, y, eps=eps)

    for i in range(len(x)):
        alone = attack(net, x[i : i + 1], y[i : i + 1], eps=float(eps[i]))
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-6)
    # and each sample used its own budget
    sizes = radius(together - x, attack.norm)
    assert (sizes[1:] > sizes[:-1]).all()


def test_the_attack_does_not_write_into_the_images() -> None:
    net, (x, y) = conv_net(), batch()
    before = x.clone()

    for attack in [FGSM(eps=0.1), PGD(eps=0.1, steps=2), PGD(eps=0.1, steps=2, norm="l2"), MIFGSM(eps=0.1, steps=2)]:
        attack(net, x, y)

    assert torch.equal(x, before)


@pytest.mark.parametrize("attack", [MIFGSM(eps=0.2, steps=5), PGD(eps=0.2, steps=5, norm="l2", random_start=False)])
def test_a_zero_gradient_leaves_the_images_where_they_are(attack: Attack) -> None:
    x, y = batch()

    x_adv = attack(Flat(lambda _: [0.0, 1.0, 2.0, 3.0, 4.0]), x, y)

    torch.testing.assert_close(x_adv, x, rtol=0, atol=1e-7)


def test_mifgsm_remembers_its_direction_where_the_gradient_vanishes() -> None:
    """A plateau behind the first step: the momentum alone carries on, and nothing divides by zero."""

    class Plateau(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.flatten(1).clamp_max(0.52).sum(dim=1)
            return torch.stack([-score, score], dim=1)

    x, y = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])

    x_adv = MIFGSM(eps=0.2, steps=4)(Plateau(), x, y)

    torch.testing.assert_close(x_adv, torch.full_like(x, 0.7), rtol=0, atol=1e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Starts
# ---------------------------------------------------------------------------------------------------------------------


def test_the_linf_start_is_uniform_in_the_ball() -> None:
    x, y = torch.full((50, 1, 20, 20), 0.5), torch.zeros(50, dtype=torch.int64)
    start = PGD(eps=0.1).start(Flat(lambda _: [0.0]), x, y, 0.1, generator=torch.Generator().manual_seed(0))
    share = ((start.x_adv - x) / 0.1).flatten().double()

    # Of n uniform values in (-1, 1) the mean has standard error 1/√(3n), the mean square √(4/45/n).
    n = share.numel()
    assert share.abs().max() <= 1 + 1e-5
    assert abs(float(share.mean())) < 4.5 / math.sqrt(3 * n)
    assert abs(float(share.square().mean()) - 1 / 3) < 4.5 * math.sqrt(4 / 45 / n)


def test_the_l2_start_is_uniform_in_the_ball() -> None:
    x, y = torch.full((4000, 1, 1, 3), 0.5), torch.zeros(4000, dtype=torch.int64)
    attack = PGD(eps=0.3, norm="l2")
    start = attack.start(Flat(lambda _: [0.0]), x, y, 0.3, generator=torch.Generator().manual_seed(0))
    delta = ((start.x_adv - x) / 0.3).flatten(1).double()
    volume = delta.norm(dim=1) ** 3

    # The volume within a radius is uniform in (0, 1); a coordinate has mean 0 and variance 1/(d + 2) = 1/5.
    assert volume.max() <= 1 + 1e-5
    assert abs(float(volume.mean()) - 0.5) < 4.5 / math.sqrt(12 * 4000)
    assert abs(float((volume < 0.1).double().mean()) - 0.1) < 4.5 * math.sqrt(0.09 / 4000)
    assert (delta.mean(dim=0).abs() < 4.5 / math.sqrt(5 * 4000)).all()


def test_init_is_projected_on_the_ball_first() -> None:
    x = torch.tensor([0.5, 0.05]).view(1, 1, 1, 2)
    init = torch.tensor([0.9, -0.7]).view(1, 1, 1, 2)
    y = torch.tensor([0])

    linf = PGD(eps=0.1).start(Linear([1.0, 1.0]), x, y, 0.1, init=init).x_adv
    l2 = PGD(eps=0.1, norm="l2").start(Linear([1.0, 1.0]), x, y, 0.1, init=init).x_adv

    # δ = (0.4, -0.75) has length 0.85; a tenth of its direction is (0.04706, -0.08824), and the box ends at 0.
    torch.testing.assert_close(linf.flatten(), torch.tensor([0.6, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(l2.flatten(), torch.tensor([0.5 + 0.4 / 8.5, 0.0]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", EVERY_ATTACK)
def test_a_passed_generator_decides_everything_and_the_global_one_is_left_alone(attack: Attack) -> None:
    net, (x, y) = conv_net(), batch()
    before = torch.get_rng_state()

    first = attack(net, x, y, generator=torch.Generator().manual_seed(8))
    again = attack(net, x, y, generator=torch.Generator().manual_seed(8))
    other = attack(net, x, y, generator=torch.Generator().manual_seed(9))

    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, other) is not attack.starts_at_random


# ---------------------------------------------------------------------------------------------------------------------
# The seam: start, step, State
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [*DETERMINISTIC, FGSM(eps=0.1, random_start=True), PGD(eps=0.1, steps=3), PGD(eps=0.5, steps=3, norm="l2")],
)
def test_driving_the_steps_by_hand_equals_the_call(attack: Attack) -> None:
    net, (x, y) = conv_net(), batch()

    state = attack.start(net, x, y, attack.eps, generator=torch.Generator().manual_seed(2))
    for taken in range(attack.steps):
        assert (state.iteration == taken).all()
        state = attack.step(state)

    assert torch.equal(state.x_adv, attack(net, x, y, generator=torch.Generator().manual_seed(2)))
    assert (state.iteration == attack.steps).all()


@pytest.mark.parametrize(
    "index",
    [torch.tensor([4, 1, 2]), torch.tensor([False, True, True, False, True, False])],
    ids=["indices", "bools"],
)
@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.1, steps=4),
        PGD(eps=0.7, steps=4, norm="l2"),
        MIFGSM(eps=0.1, steps=4),
        FGSM(eps=0.1, random_start=True),
    ],
)
def test_stepping_some_samples_equals_stepping_all(attack: Attack, index: Tensor) -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), conv_net(dtype=torch.float64)).double().train()
    x, y = batch(dtype=torch.float64)
    net(x)  # gives the BatchNorm statistics of its own
    net.eval()
    eps = torch.linspace(0.02, 0.3, 6, dtype=torch.float64)

    state = attack.start(net, x, y, eps, generator=torch.Generator().manual_seed(0))
    state = attack.step(state)
    some, every = state[index], state
    for _ in range(2):
        some, every = attack.step(some), attack.step(every)

    torch.testing.assert_close(some.x_adv, every.x_adv[index], rtol=0, atol=1e-6)
    assert torch.equal(some.iteration, every.iteration[index])
    assert torch.equal(some.eps, eps[index])
    assert not torch.equal(some.x_adv, x[index])
    if every.momentum is not None:
        torch.testing.assert_close(some.momentum, every.momentum[index], rtol=0, atol=1e-6)


def test_the_gradient_of_a_state_is_per_sample_and_comes_with_its_logits() -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(dtype=torch.float64)
    state = PGD(eps=0.1, random_start=False).start(net, x, y, 0.1)

    gradient, logits = state.gradient()

    for i in range(len(x)):
        pixel = x[i : i + 1].clone().requires_grad_()
        (alone,) = torch.autograd.grad(-torch.log_softmax(net(pixel), dim=1)[0, y[i]], pixel)
        torch.testing.assert_close(gradient[i : i + 1], alone, rtol=0, atol=1e-6)
    torch.testing.assert_close(logits, net(x).detach())
    assert not logits.requires_grad


@pytest.mark.parametrize(
    "attack",
    [
        PGD(eps=0.1, steps=3),
        PGD(eps=0.5, steps=3, norm="l2"),
        PGD(eps=0.1, steps=2, restarts=3),
        FGSM(eps=0.1, random_start=True),
    ],
)
def test_noise_keyed_by_sample_makes_the_result_independent_of_the_batches(attack: Attack) -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(samples=7, dtype=torch.float64)
    names = torch.tensor([40, 3, 17, 11, 0, 8, 5])
    whole = attack(net, x, y, generator=SampleKeyed(1, names))

    for order in ([0, 1, 2], [3, 4], [6, 5], [2, 6, 0, 4]):
        part = attack(net, x[order], y[order], generator=SampleKeyed(1, names[order]))
        torch.testing.assert_close(part, whole[order], rtol=0, atol=1e-6)
    assert not torch.equal(whole, attack(net, x, y, generator=SampleKeyed(2, names)))


@pytest.mark.parametrize("index", [torch.tensor([4, 1]), torch.tensor([False, True, False, False, True, False])])
@pytest.mark.parametrize("attack", [PGD(eps=0.1, steps=5), PGD(eps=0.7, steps=5, norm="l2"), MIFGSM(eps=0.1, steps=5)])
def test_samples_that_enter_a_running_batch_go_as_they_would_alone(attack: Attack, index: Tensor) -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(samples=8, dtype=torch.float64)
    eps = torch.linspace(0.02, 0.3, 8, dtype=torch.float64)
    every = attack.start(net, x, y, eps, generator=SampleKeyed(0, torch.arange(8)))
    entering = torch.tensor([6, 7])

    state = every[torch.arange(6)]
    for _ in range(2):
        state = attack.step(state)
    left = state
    state = state.put(index, every[entering])
    for _ in range(3):
        state = attack.step(state)

    stayed = torch.tensor([0, 2, 3, 5])
    for _ in range(5):
        every = attack.step(every)
    torch.testing.assert_close(state.x_adv[stayed], every.x_adv[stayed], rtol=0, atol=1e-9)
    alone = attack.start(net, x, y, eps, generator=SampleKeyed(0, torch.arange(8)))[entering]
    for _ in range(3):
        alone = attack.step(alone)
    torch.testing.assert_close(state.x_adv[index], alone.x_adv, rtol=0, atol=1e-9)
    assert torch.equal(state.x[index], x[entering])
    assert torch.equal(state.eps[index], eps[entering])
    assert state.iteration[index].tolist() == [3, 3]
    assert state.iteration[stayed].tolist() == [5, 5, 5, 5]
    # and the state from before is as it was
    assert torch.equal(left.x, x[:6])
    assert left.iteration.tolist() == [2] * 6


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    "attack", [FGSM(eps=0.2), PGD(eps=0.1, steps=6), PGD(eps=0.7, steps=6, norm="l2"), MIFGSM(eps=0.1, steps=6)]
)
def test_a_state_keeps_the_first_iterate_that_fools(attack: Attack, soft: bool) -> None:
    net, (x, _) = conv_net(), batch(samples=30)
    y = net(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 5  # clean errors are fooled at once, unless the noise mends them
    label = F.one_hot(y, 5) * 0.6 + 0.08 if soft else y

    state = attack.start(net, x, label, attack.eps, generator=torch.Generator().manual_seed(0))
    assert not state.fooled.any()
    iterates = []
    for _ in range(attack.steps):
        iterates.append(state.x_adv)
        state = attack.step(state)

    wrong = torch.stack([net(x_adv).argmax(dim=1) != y for x_adv in iterates])
    assert torch.equal(state.fooled, wrong.any(dim=0))
    for i in range(len(x)):
        expected = iterates[int(wrong[:, i].int().argmax())][i] if wrong[:, i].any() else x[i]
        assert torch.equal(state.witness[i], expected)
    assert state.fooled.any()
    assert not state.fooled.all()


@pytest.mark.parametrize("broken", [[math.nan, math.nan], [1.0, math.nan], [math.nan, 1.0]])
def test_a_nan_fools_nobody(broken: list[float]) -> None:
    x, y = torch.full((4, 1, 1, 1), 0.5), torch.tensor([0, 1, 0, 1])
    attack = PGD(eps=0.1, random_start=False)

    state = attack.start(Flat(lambda _: broken), x, y, 0.1)

    assert not state.judged(state.gradient()[1]).fooled.any()


# ---------------------------------------------------------------------------------------------------------------------
# Restarts
# ---------------------------------------------------------------------------------------------------------------------


def judge(logits: Tensor, label: int) -> tuple[bool, float]:
    """Whether one sample is fooled, and its loss."""

    values = [float(value) for value in logits]
    loss = math.log(sum(math.exp(value - max(values)) for value in values)) + max(values) - values[label]
    return max(range(len(values)), key=values.__getitem__) != label, loss


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_restarts_keep_each_samples_worst_run(norm: str) -> None:
    net, (x, _) = conv_net(), batch(samples=12)
    y = net(x).argmax(dim=1)
    eps = {"linf": 0.02, "l2": 0.3}[norm]
    one, four = (PGD(eps=eps, norm=norm, steps=1, alpha=eps / 2, restarts=n) for n in (1, 4))

    generator = torch.Generator().manual_seed(0)
    runs = [one(net, x, y, generator=generator) for _ in range(4)]
    ours = four(net, x, y, generator=torch.Generator().manual_seed(0))

    picked = []
    for i in range(len(x)):
        verdicts = [judge(net(run[i : i + 1]).detach()[0], int(y[i])) for run in runs]
        fooled, loss = judge(net(ours[i : i + 1]).detach()[0], int(y[i]))
        # never easier than the run with the same first noise, nor than any other
        assert fooled == any(verdict[0] for verdict in verdicts)
        if not fooled:
            assert loss >= max(verdict[1] for verdict in verdicts) - 1e-6
        same = [number for number, run in enumerate(runs) if torch.equal(ours[i], run[i])]
        assert same, "the result is none of the runs"
        picked.append(same[0])
    assert len(set(picked)) > 1, "every sample kept the same run: the choice was not put to the test"


def test_a_fooling_iterate_beats_one_of_higher_loss() -> None:
    """Label 0 of three: p = (.45, .55, 0) fools at a lower loss than (.34, .33, .33), which does not."""

    def table(pixel: float) -> list[float]:
        shares = [0.45, 0.5499, 0.0001] if pixel < 0.3 else [0.34, 0.33, 0.33]
        return [math.log(share) for share in shares]

    x, y = torch.full((64, 1, 1, 1), 0.5), torch.zeros(64, dtype=torch.int64)
    x_adv = PGD(eps=0.5, steps=1, restarts=3)(Flat(table), x, y, generator=torch.Generator().manual_seed(0))

    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([torch.rand(x.shape, generator=generator).flatten() for _ in range(3)])
    fools = (draws < 0.3).any(dim=0)

    assert 0 < fools.sum() < 64
    assert torch.equal(x_adv.flatten() < 0.3, fools)


@pytest.mark.parametrize("rival", [0.0, 2.0], ids=["not fooled", "fooled"])
@pytest.mark.parametrize("broken", [[math.nan, math.nan], [1.0, math.nan], [math.nan, 1.0]])
def test_a_nan_never_wins_a_restart(broken: list[float], rival: float) -> None:
    """Neither as a loss nor as an argmax, and not even over an iterate that fools nobody."""

    def table(pixel: float) -> list[float]:
        return broken if pixel > 0.5 else [1.0, rival]

    x, y = torch.full((64, 1, 1, 1), 0.5), torch.zeros(64, dtype=torch.int64)
    x_adv = PGD(eps=0.5, steps=1, restarts=2)(Flat(table), x, y, generator=torch.Generator().manual_seed(0))

    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([torch.rand(x.shape, generator=generator).flatten() for _ in range(2)])
    assert torch.equal(x_adv.flatten() > 0.5, (draws > 0.5).all(dim=0))


# ---------------------------------------------------------------------------------------------------------------------
# What an attack leaves alone
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", EVERY_ATTACK)
def test_the_model_is_left_as_it_was_found(attack: Attack) -> None:
    net, (x, y) = delicate_net(), batch()

    with untouched(net):
        x_adv = attack(net, x, y)

    assert not torch.equal(x_adv, x)


@pytest.mark.parametrize("attack", EVERY_ATTACK)
def test_the_model_is_attacked_in_evaluation_mode(attack: Attack) -> None:
    net, (x, y) = delicate_net(), batch()
    in_training = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    assert torch.equal(attack(net.eval(), x, y, generator=torch.Generator().manual_seed(0)), in_training)


@pytest.mark.parametrize(
    ("attack", "call"),
    [
        (FGSM(eps=0.1), 1),
        (PGD(eps=0.1, steps=4), 3),
        (MIFGSM(eps=0.1, steps=4), 4),
        (PGD(eps=0.1, steps=2, restarts=2), 3),  # the call that compares the restarts
        (PGD(eps=0.1, steps=2, norm="l2"), 2),
    ],
)
def test_a_model_that_raises_half_way_is_left_as_it_was_found(attack: Attack, call: int) -> None:
    net, (x, y) = delicate_net(bomb=call), batch()

    with untouched(net), pytest.raises(BombError):
        attack(net, x, y)


@pytest.mark.parametrize("attack", EVERY_ATTACK)
@pytest.mark.parametrize(
    "context",
    [
        torch.no_grad,
        torch.inference_mode,
    ],
)
def test_an_attack_finds_its_own_gradients(context: Callable[[], AbstractContextManager[None]], attack: Attack) -> None:
    net, (x, y) = delicate_net(), batch()
    expected = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    with untouched(net), context():
        x_adv = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    assert torch.equal(x_adv, expected)


# ---------------------------------------------------------------------------------------------------------------------
# Bad values
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, -math.inf, 8.0, 1.001])
@pytest.mark.parametrize("kind", [FGSM, PGD, MIFGSM])
def test_a_radius_that_cannot_be_meant_is_refused(kind: type[Attack], eps: float) -> None:
    with pytest.raises(InputError, match="eps"):
        kind(eps=eps)


def test_an_eps_of_eight_names_the_remedy() -> None:
    with pytest.raises(InputError, match="8/255"):
        PGD(eps=8.0)


def test_an_l2_radius_may_exceed_one() -> None:
    assert PGD(eps=8.0, norm="l2").eps == 8.0


@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf])
def test_an_l2_radius_that_cannot_be_meant_is_refused(eps: float) -> None:
    with pytest.raises(InputError, match="eps"):
        PGD(eps=eps, norm="l2")


@pytest.mark.parametrize(
    "make",
    [
        lambda: PGD(eps=0.1, steps=0),
        lambda: PGD(eps=0.1, steps=-3),
        lambda: PGD(eps=0.1, steps=2.5),
        lambda: MIFGSM(eps=0.1, steps=0),
        lambda: PGD(eps=0.1, restarts=0),
        lambda: PGD(eps=0.1, restarts=2, random_start=False),
        lambda: PGD(eps=0.1, norm="l1"),
        lambda: PGD(eps=0.1, norm="Linf"),
        lambda: PGD(eps=0.1, alpha=0.0),
        lambda: PGD(eps=0.1, alpha=-1.0),
        lambda: PGD(eps=0.1, alpha=math.nan),
        lambda: MIFGSM(eps=0.1, alpha=math.inf),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], Attack]) -> None:
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize("eps", [-0.1, math.nan, 8.0])
def test_a_radius_given_to_the_call_is_checked_too(eps: float) -> None:
    net, (x, y) = conv_net(), batch()

    with pytest.raises(InputError):
        PGD(eps=0.1, steps=1)(net, x, y, eps=eps)


# ---------------------------------------------------------------------------------------------------------------------
# Where gradients are small and batches empty
# ---------------------------------------------------------------------------------------------------------------------


def saturated(dtype: torch.dtype, gap: float) -> tuple[nn.Module, Tensor, Tensor]:
    """A two-class model whose second logit is ``gap`` below the first: the loss's gradient is about exp(-gap)."""

    class Gap(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x.flatten(1).sum(dim=1) - 2.0
            return torch.stack([torch.full_like(score, gap), score], dim=1)

    return Gap(), torch.full((1, 1, 2, 2), 0.5, dtype=dtype), torch.tensor([0])


def test_linf_attacks_a_confident_model() -> None:
    net, x, y = saturated(torch.float32, 32.0)

    x_adv = PGD(eps=0.2, steps=2, random_start=False)(net, x, y)

    torch.testing.assert_close(x_adv, torch.full_like(x, 0.7), rtol=0, atol=1e-6)


def test_l2_attacks_a_confident_model() -> None:
    net, x, y = saturated(torch.float32, 32.0)

    x_adv = PGD(eps=0.2, steps=2, norm="l2", random_start=False)(net, x, y)

    torch.testing.assert_close(x_adv, torch.full_like(x, 0.6), rtol=0, atol=1e-6)


def test_a_float64_model_is_attacked_in_float64() -> None:
    x, y = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0])

    x_adv = FGSM(eps=0.2)(Linear([40.0]), x, y)  # p = 1 - 2e-9, which float32 rounds to one

    torch.testing.assert_close(x_adv, x - 0.2)


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(eps=0.1),
        PGD(eps=0.1, steps=2),
        MIFGSM(eps=0.1, steps=2),
        PGD(eps=0.1, steps=2, norm="l2"),
    ],
    ids=["fgsm", "pgd", "mifgsm", "pgd-l2"],
)
def test_an_empty_batch_stays_empty(attack: Attack) -> None:
    """As when only the samples still in play are attacked, and none is."""

    net, (x, y) = conv_net(), batch()

    assert attack(net, x[:0], y[:0]).shape == (0, 3, 8, 8)


def test_the_l2_start_is_finite_for_every_sample() -> None:
    x, y = torch.full((1, 1, 3, 6), 0.5), torch.tensor([0])
    attack = PGD(eps=0.1, norm="l2")

    # Coordinate 17 of sample 76350 under seed 0 draws the largest of the 2^24 values.
    state: State = attack.start(Linear([1.0] * 18), x, y, 0.1, generator=SampleKeyed(0, torch.tensor([76350])))

    assert state.x_adv.isfinite().all()
