"""Square Attack against its authors' own package, against closed forms, and against what it promises about samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt.attacks import Square, SquareState
from asgt.errors import InputError
from asgt.randomness import SampleKeyed, keyed_uniform
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
    torn_net,
)
from support.nets import untouched

BOTH = [
    pytest.param(Square(eps=0.05, steps=90), id="linf"),
    pytest.param(Square(eps=0.4, norm="l2", steps=90), id="l2"),
]


def pooled_net(size: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, dtype=torch.float64),
            nn.Tanh(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(8 * 16, 6, dtype=torch.float64),
        ).eval()


def run(attack: Square, state: SquareState, steps: int) -> SquareState:
    for _ in range(steps):
        state = attack.step(state)
    return state


# ---------------------------------------------------------------------------------------------------------------------
# Oracle: pyautoattack
# ---------------------------------------------------------------------------------------------------------------------


def fed(norm: str, eps: float, net: nn.Module, x: Tensor, key: Tensor, queries: int) -> object:
    """The authors' attack on one image (1, C, H, W), which draws what ours draws.

    The places, signs and turns are read off the noise here once more, by the paper: a place is uniform among all that
    the square fits in.
    """

    square = pytest.importorskip("pyautoattack.square")

    class Fed(square.SquareAttack):
        def random_int(self, low: int = 0, high: int = 1, shape: object = None) -> int:
            return self.places.pop(0)

        def random_choice(self, shape: list[int]) -> Tensor:
            return self.signs.pop(0).view(shape)

        def eta(self, s: int) -> Tensor:
            turn = self.turns.pop(0)
            with patch.object(torch, "rand", lambda *_: torch.tensor([turn])):
                return super().eta(s)

    attack = Fed(net, norm=THEIR_NORM[norm], n_queries=queries, eps=eps, resc_schedule=False)
    attack.init_hyperparam(x)
    attack.places, attack.signs, attack.turns = [], [], []
    channels, height, width = x.shape[1:]

    def noise(draw: int, count: int) -> Tensor:
        return keyed_uniform(key, torch.tensor([draw]), count)[0]

    def sign(values: Tensor) -> Tensor:
        return torch.where(values < 0.5, -1.0, 1.0)

    if norm == "linf":
        attack.signs.append(sign(noise(0, channels * width)))
    else:
        side = height // 5
        fit = (height - (height - 5 * side) // 2) // side
        values = noise(0, (1 + channels) * fit * fit).view(1 + channels, fit, fit)
        # Theirs goes on past the border, where its tiles are empty.
        values = nn.functional.pad(values, (0, height // side - fit, 0, height // side - fit))
        for tile in values.flatten(1).T:
            attack.turns.append(float(tile[0]))
            attack.signs.append(sign(tile[1:]))

    for query in range(1, queries + 1):
        share = attack.p_selection(query - 1)
        side = max(round(math.sqrt(share * height * width)), 1 if norm == "linf" else 3)
        if norm == "l2" and side % 2 == 0:
            side += 1
        fit = min(height, width) - min(side, height, width) + 1
        values = noise(query, channels + (2 if norm == "linf" else 5))
        places = 2 if norm == "linf" else 4
        attack.places += [int(value * fit) for value in values[:places]]
        if norm == "l2":
            attack.turns.append(float(values[4]))
        attack.signs.append(sign(values[-channels:]))
    return attack


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("size", [8, 20, 27])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.3)])
def test_with_the_same_draws_every_query_is_the_authors(norm: str, eps: float, size: int) -> None:
    """Theirs draws once for the whole batch, so it gets the images one by one, each with the draws of ours."""

    queries = 620
    net = pooled_net(size)
    x = batch(samples=3, size=size, dtype=torch.float64)[0]
    y = net(x).argmax(dim=1)
    ours = Recorder(net)
    attack = Square(eps=eps, norm=norm, steps=queries + 1)
    state = attack.start(ours, x, y, eps, generator=SampleKeyed(0, torch.arange(3)))
    end = run(attack, state, queries + 1)

    improved = 0
    for i in range(3):
        theirs = Recorder(net)
        oracle = fed(norm, eps, theirs, x[[i]], state.key[[i]], queries)
        _, best = oracle.attack_single_run(x[[i]].clone(), y[[i]])
        for number, (mine, their) in enumerate(zip(ours.asked, theirs.asked, strict=False)):
            torch.testing.assert_close(mine[[i]], their, rtol=0, atol=1e-9, msg=f"image {i}, query {number}")
        # Theirs stops where it succeeds.
        assert len(theirs.asked) == queries + 1 or bool(end.fooled[i])
        torch.testing.assert_close(end.x_adv[[i]], best, rtol=0, atol=1e-9)
        improved += not torch.equal(best, theirs.asked[0])
    assert improved == 3


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.1), ("l2", 0.6)])
def test_robust_accuracy_is_the_authors(digits_net: tuple[nn.Module, Tensor, Tensor], norm: str, eps: float) -> None:
    square = pytest.importorskip("pyautoattack.square")
    net, x, y = digits_net
    clean = net(x).argmax(dim=1) == y
    x, y = x[clean], y[clean]

    class Mended(square.SquareAttack):
        """Draws the last row and column of places, too: on 8 × 8 pixels they are worth five points."""

        def random_int(self, low: int = 0, high: int = 1, shape: object = (1,)) -> Tensor:
            return super().random_int(low, high + 1, shape)

    def robust(x_adv: Tensor) -> float:
        return float((net(x_adv).argmax(dim=1) == y).double().mean())

    theirs, mended = (
        robust(kind(net, norm=THEIR_NORM[norm], eps=eps, n_queries=700, resc_schedule=False).perturb(x, y))
        for kind in (square.SquareAttack, Mended)
    )
    ours = robust(Square(eps=eps, norm=norm, steps=701)(net, x, y, generator=torch.Generator().manual_seed(0)))

    assert 0.2 < mended < 0.9
    assert abs(ours - mended) <= 0.02
    assert ours <= theirs


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms
# ---------------------------------------------------------------------------------------------------------------------


class Sure(Linear):
    """Logits (w · x + 20, 0): no perturbation of a few pixels fools it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.tensor([20.0, 0.0])


@pytest.mark.slow
def test_on_a_linear_model_it_ends_in_the_corner_of_ball_and_box() -> None:
    x, _ = linear_batch()
    y = torch.zeros(len(x), dtype=torch.int64)

    ours = Square(eps=0.1, steps=800)(Sure(WEIGHT), x, y, generator=torch.Generator().manual_seed(0))

    # Six pixels, tried one by one from query 12 on with either sign: each is missed with probability (11/12)^788.
    matters = torch.tensor(WEIGHT).view(x.shape[1:]) != 0
    torch.testing.assert_close(ours * matters, corner(x, y, 0.1) * matters, rtol=0, atol=1e-9)


@pytest.mark.slow
def test_on_a_linear_model_l2_comes_near_the_least_margin() -> None:
    """The margin can fall by ε ‖w‖. In 36 dimensions a random direction wins half of that once in a thousand times."""

    weight = torch.randn(36, generator=torch.Generator().manual_seed(0)).tolist()
    net, x, y = Sure(weight), torch.full((4, 1, 6, 6), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)
    attack = Square(eps=0.2, norm="l2", steps=2000)

    state = run(attack, attack.start(net, x, y, 0.2, generator=torch.Generator().manual_seed(0)), 2000)

    gain = net(x)[:, 0] - net(state.x_adv)[:, 0]
    assert (gain > 0.5 * 0.2 * net.weight.norm()).all()
    assert (gain < (1 + 1e-9) * 0.2 * net.weight.norm()).all()
    torch.testing.assert_close(state.margin, net(state.x_adv)[:, 0])


def test_the_start_is_stripes_at_full_length() -> None:
    x, y = torch.full((300, 2, 6, 5), 0.5), torch.zeros(300, dtype=torch.int64)

    start = Square(eps=0.1).start(conv_net(), x, y, 0.1, generator=torch.Generator().manual_seed(0)).x_adv

    signs = (start - x) / 0.1
    torch.testing.assert_close(signs.abs(), torch.ones_like(x), rtol=0, atol=1e-5)
    assert torch.equal(start, start[:, :, :1].expand_as(start))
    # of 300 signs at each place half are positive, give or take 4.5 standard errors, and no two places agree throughout
    positive = (signs[:, :, 0] > 0).flatten(1).double()
    assert (positive.mean(dim=0) - 0.5).abs().max() < 4.5 * 0.5 / math.sqrt(300)
    assert torch.corrcoef(positive.T).fill_diagonal_(0).abs().max() < 4.5 / math.sqrt(300)


@pytest.mark.slow
def test_squares_are_of_the_scheduled_size_at_every_place() -> None:
    """What is asked about an image that never moves differs from it in the square."""

    x, y = torch.full((4000, 1, 9, 12), 0.5), torch.zeros(4000, dtype=torch.int64)

    def flat(x: Tensor) -> Tensor:
        return torch.tensor([1.0, 0.0]).expand(len(x), 2)

    net = Recorder(flat)  # type: ignore[arg-type]
    attack = Square(eps=0.1, steps=20_000)
    state = attack.start(net, x, y, 0.1, init=x, generator=torch.Generator().manual_seed(0))
    # p = 0.8 / 2^n: the side is √(p · 108) = 9.3 (9 fit), 6.6, 4.6, 3.3, 2.3, 1.6, 1.2, 0.8, …
    first = [1, 12, 52, 202, 502, 1002, 2002, 4002, 6002, 8002]
    before = [11, 51, 201, 501, 1001, 2001, 4001, 6001, 8001, 19_000]
    sides = [9, 7, 5, 3, 2, 2, 1, 1, 1, 1]
    for begin, end, side in zip(first, before, sides, strict=True):
        for iteration in (begin, end):
            state = attack.step(
                SquareState(**vars(state) | {"iteration": torch.full_like(y, iteration), "margin": torch.ones(4000)})
            )
            changed = (net.asked[-1] != x)[:, 0]
            assert (changed.sum(dim=(1, 2)) == side * side).all()
            rows, columns = changed.any(dim=2), changed.any(dim=1)
            assert (rows.sum(dim=1) == side).all()
            assert (columns.sum(dim=1) == side).all()
            # each of the places among n is drawn 4000/n times, give or take 4.5 standard deviations
            for hit, places in ((rows, 9 - side + 1), (columns, 12 - side + 1)):
                counts = hit.int().argmax(dim=1).bincount(minlength=places)
                assert len(counts) == places
                share = 1 / places
                assert (counts - 4000 * share).abs().max() <= 4.5 * math.sqrt(4000 * share * (1 - share))
            delta = (net.asked[-1] - x).abs()
            torch.testing.assert_close(delta, 0.1 * changed[:, None].float(), rtol=0, atol=1e-6)


def test_it_goes_only_where_the_margin_falls() -> None:
    net, (x, _) = conv_net(), batch(samples=20)
    y = net(x).argmax(dim=1)
    asked = Recorder(net)
    attack = Square(eps=0.03, steps=80)
    state = attack.start(asked, x, y, 0.03, generator=torch.Generator().manual_seed(0))

    rows = torch.arange(20)
    least = torch.full((20,), math.inf)
    for _ in range(80):
        before, state = state, attack.step(state)
        logits = net(asked.asked[-1])
        margin = logits[rows, y] - logits.scatter(1, y[:, None], -math.inf).amax(dim=1)
        expected = before.x_adv
        for i in range(20):
            if margin[i] < least[i] and not before.fooled[i]:
                least[i] = margin[i]
                expected = expected.index_put((torch.tensor(i),), asked.asked[-1][i])
        torch.testing.assert_close(state.x_adv, expected)
        torch.testing.assert_close(state.margin, least)
    assert torch.equal(state.fooled, least < 0)
    assert torch.equal(state.x_adv[state.fooled], state.witness[state.fooled])
    assert 0 < state.fooled.sum() < 20
    assert len(asked.asked) == 80


# ---------------------------------------------------------------------------------------------------------------------
# Few classes, and a model that breaks
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_are_attacked(classes: int, attack: Square) -> None:
    net, (x, y) = torn_net(classes)

    x_adv = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    assert (net(x_adv).argmax(dim=1) != y).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_nan_logits_fool_nobody(norm: str) -> None:
    """One model always answers NaN, the other where the first pixel has grown: the rest of the ball is searched."""

    net, (x, y) = conv_net(), batch(samples=8)
    y = net(x).argmax(dim=1)

    def broken(x: Tensor) -> Tensor:
        return net(x) * math.nan

    def half(x_adv: Tensor) -> Tensor:
        return torch.where((x_adv[:, 0, 0, 0] > 0.5)[:, None], math.nan, net(x_adv))

    eps = {"linf": 0.3, "l2": 1.5}[norm]
    attack = Square(eps=eps, norm=norm, steps=60)
    for model in (broken, half):
        state = run(attack, attack.start(model, x, y, eps, generator=torch.Generator().manual_seed(0)), 60)
        assert state.x_adv.isfinite().all()
        assert (radius(state.x_adv - x, norm) <= eps + 1e-6).all()
        assert model(state.witness[state.fooled]).isfinite().all()
        assert state.fooled.any() == (model is half)


@pytest.mark.parametrize(
    "make", [lambda: Square(eps=8), lambda: Square(eps=0.1, steps=0), lambda: Square(eps=0.1, norm="l1")]
)
def test_settings_that_cannot_be_meant_are_refused(make: Callable[[], Square]) -> None:
    with pytest.raises(InputError):
        make()


# ---------------------------------------------------------------------------------------------------------------------
# Ball and box
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    norm=st.sampled_from(["linf", "l2"]),
    eps=st.lists(RADII, min_size=3, max_size=3),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
    begin=st.sampled_from([0, 9, 49, 499, 7999]),
)
def test_every_query_stays_finite_in_its_ball_and_in_the_box(
    norm: str, eps: list[float], shape: tuple[int, int, int], seed: int, begin: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(3, *shape, generator=generator) * 1.4 - 0.2).clamp(0, 1)
    weight = torch.randn(3, math.prod(shape), 4, generator=generator)[0]
    y, bound = torch.tensor([0, 1, 2]), torch.tensor(eps)
    net = Recorder(lambda x: x.flatten(1) @ weight)  # type: ignore[arg-type]

    attack = Square(eps=1.0, norm=norm, steps=20)
    state = run(attack, attack.start(net, x, y, bound, generator=generator), 1)
    state = run(attack, SquareState(**vars(state) | {"iteration": state.iteration + begin}), 6)

    for asked in [*net.asked, state.x_adv]:
        assert asked.shape == x.shape
        assert asked.dtype == x.dtype
        assert asked.isfinite().all()
        assert asked.min() >= 0
        assert asked.max() <= 1
        assert (radius(asked - x, norm) <= bound + 1e-6).all()


@pytest.mark.parametrize("attack", BOTH)
def test_the_budget_is_used_up(attack: Square) -> None:
    x, y = torch.full((3, 3, 8, 8), 0.5), torch.tensor([0, 1, 2])
    eps = torch.tensor([0.01, 0.1, 0.3])

    x_adv = attack(conv_net(), x, y, eps=eps, generator=torch.Generator().manual_seed(0))

    # from grey, the box is out of reach
    torch.testing.assert_close(radius(x_adv - x, attack.norm), eps, rtol=1e-4, atol=0)


# ---------------------------------------------------------------------------------------------------------------------
# Samples by themselves
# ---------------------------------------------------------------------------------------------------------------------

EPS = torch.tensor([0.0, 0.01, 0.03, 0.05, 0.1, 0.3, 0.02, 0.04, 0.2], dtype=torch.float64)


@pytest.mark.slow
@pytest.mark.parametrize("attack", BOTH)
def test_each_sample_is_attacked_as_it_would_be_alone(attack: Square) -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(samples=9, dtype=torch.float64)
    names = torch.arange(9) * 5 + 2
    together = attack(net, x, y, eps=EPS, generator=SampleKeyed(1, names))

    for i in range(9):
        alone = attack(net, x[[i]], y[[i]], eps=float(EPS[i]), generator=SampleKeyed(1, names[[i]]))
        torch.testing.assert_close(together[[i]], alone, rtol=0, atol=1e-9)
    assert not torch.equal(together, attack(net, x, y, eps=EPS, generator=SampleKeyed(2, names)))


@pytest.mark.slow
@pytest.mark.parametrize("entry", [1, 11, 60])
@pytest.mark.parametrize("attack", BOTH)
def test_samples_that_enter_later_go_as_they_would_alone(attack: Square, entry: int) -> None:
    """Squares shrink after 11 and 51 queries: each sample must count its own."""

    net, (x, _) = conv_net(dtype=torch.float64), batch(samples=9, dtype=torch.float64)
    y = net(x).argmax(dim=1)
    whole = attack.start(net, x, y, EPS, generator=SampleKeyed(1, torch.arange(9)))
    first, late, places = torch.arange(6), torch.tensor([6, 7, 8]), torch.tensor([4, 0, 3])

    state = run(attack, whole[first], entry).put(places, whole[late])
    state = run(attack, state, 90 - entry)
    stayed = state[torch.tensor([1, 2, 5])]
    entered = run(attack, state[places], entry)

    alone = run(attack, whole, 90)
    torch.testing.assert_close(stayed.x_adv, alone.x_adv[[1, 2, 5]], rtol=0, atol=1e-9)
    torch.testing.assert_close(entered.x_adv, alone.x_adv[late], rtol=0, atol=1e-9)
    torch.testing.assert_close(entered.margin, alone.margin[late], rtol=0, atol=1e-9)
    assert torch.equal(entered.fooled, alone.fooled[late])
    assert torch.equal(entered.key, whole.key[late])


@pytest.mark.slow
@pytest.mark.parametrize("attack", BOTH)
def test_probabilities_count_as_their_most_likely_class(attack: Square) -> None:
    net, (x, y) = conv_net(), batch()
    soft = nn.functional.one_hot(y, 5) * 0.6 + 0.08

    first, second = (attack(net, x, label, generator=torch.Generator().manual_seed(0)) for label in (soft, y))

    assert torch.equal(first, second)


def test_init_is_the_first_query() -> None:
    net, (x, y) = conv_net(), batch()
    asked = Recorder(net)
    init = (x + 0.01).clamp(0, 1)

    Square(eps=0.1, steps=1)(asked, x, y, init=init)

    torch.testing.assert_close(asked.asked[0], init)


# ---------------------------------------------------------------------------------------------------------------------
# What it leaves alone
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attack", BOTH)
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_is_left_as_it_was_found(context: type[torch.no_grad], attack: Square) -> None:
    net, (x, y) = delicate_net(), batch()
    before, state = x.clone(), torch.get_rng_state()
    expected = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    with untouched(net), context():
        x_adv = attack(net, x, y, generator=torch.Generator().manual_seed(0))

    assert torch.equal(x_adv, expected)
    assert not torch.equal(x_adv, x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(attack(net.eval(), x, y, generator=torch.Generator().manual_seed(0)), expected)


@pytest.mark.parametrize("attack", BOTH)
def test_it_asks_for_no_gradient(attack: Square) -> None:
    net, (x, y) = conv_net(), batch()
    enabled = []

    def model(x: Tensor) -> Tensor:
        enabled.append(torch.is_grad_enabled())
        return net(x)

    attack(model, x, y)

    assert enabled == [False] * 90


@pytest.mark.slow
@pytest.mark.parametrize("attack", BOTH)
def test_a_step_reads_nothing_back_from_the_device(attack: Square) -> None:
    """The meta device holds no values: any round trip to the host, or a tensor left there, raises."""

    net, (x, y) = conv_net().to("meta"), batch()

    x_adv = attack(net, x.to("meta"), y.to("meta"), generator=SampleKeyed(0, torch.arange(6, device="meta")))

    assert x_adv.shape == x.shape
    assert x_adv.device.type == "meta"


@pytest.mark.parametrize("attack", BOTH)
def test_an_empty_batch_stays_empty(attack: Square) -> None:
    net, (x, y) = conv_net(), batch()

    assert attack(net, x[:0], y[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("attack", BOTH)
def test_eps_zero_returns_the_images(attack: Square) -> None:
    net, (x, y) = conv_net(), batch()

    torch.testing.assert_close(attack(net, x, y, eps=0.0), x, rtol=0, atol=1e-7)
