"""Annealed PGD and local Square against closed forms, hand-computed steps, and what they promise about samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt.attacks import AnnealedPGD, LocalSquare, RescaledSquare, Square, describe
from asgt.attacks.annealed import AnnealedState
from asgt.attacks.square import HALVINGS
from asgt.errors import InputError
from asgt.randomness import SampleKeyed
from support.attacked import WEIGHT, Linear, Recorder, batch, conv_net, corner, linear_batch, radius

LOSSES = ["margin", "ce", "margin-targeted", "dlr-targeted"]
NORMS = ["linf", "l2"]


class Rows(nn.Module):
    """Logits W x of any number of classes, in float64."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.bias = torch.zeros(len(weight), dtype=torch.float64) if bias is None else bias.double()

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class Written(nn.Module):
    """Answers by a function of the first pixel, whose gradient is another one's."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(x.flatten(1)[:, 0])


def grey(count: int, pixels: int = 6) -> Tensor:
    return torch.full((count, 1, 1, pixels), 0.5, dtype=torch.float64)


def keyed(count: int) -> SampleKeyed:
    return SampleKeyed(0, torch.arange(count))


def run(attack: AnnealedPGD, state: AnnealedState, steps: int | None = None) -> AnnealedState:
    for _ in range(attack.steps if steps is None else steps):
        state = attack.step(state)
    return state


# ---------------------------------------------------------------------------------------------------------------------
# Steps by hand
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_step_lengths_fall_from_two_eps_along_a_cosine(norm: str) -> None:
    # 0.02 + 0.99 (1 + cos(π t / 4)), where the cosine is 1, √½, 0 and −√½.
    expected = [2.0, 1.01 + 0.99 * math.sqrt(0.5), 1.01, 1.01 - 0.99 * math.sqrt(0.5)]
    attack = AnnealedPGD(eps=0.1, norm=norm, steps=4)  # type: ignore[arg-type]
    x, y = grey(1, pixels=1), torch.tensor([0])
    start = attack.start(Linear([1.0]), x, y, 0.1, init=x - 0)
    # From the far end of the ball the first step reaches exactly the other end, and no other one leaves it.
    far = x + 0.1
    for iteration, length in enumerate(expected):
        state = replace(start, x_adv=far, previous=far, iteration=torch.tensor([iteration]))
        moved = float((far - attack.step(state).x_adv).squeeze())
        share = 1.0 if iteration == 0 else 0.75
        assert moved == pytest.approx(share * 0.1 * length, rel=1e-12)


def test_a_step_is_three_quarters_of_the_way_and_a_quarter_of_the_step_before() -> None:
    attack = AnnealedPGD(eps=0.1, steps=4)
    x, y = grey(1, pixels=2), torch.tensor([0])
    start = attack.start(Linear([1.0, -1.0]), x, y, 0.1, init=x)
    here, before = (x + torch.tensor(moved, dtype=torch.float64) for moved in ([0.05, 0.0], [0.01, 0.02]))
    state = replace(start, x_adv=here, previous=before, iteration=torch.tensor([3]))
    # η = 0.1 · (1.01 − 0.99 √½) = 0.0309964…, down in the first pixel and up in the second; nothing is projected.
    eta = 0.1 * (1.01 - 0.99 * math.sqrt(0.5))
    expected = [0.55 - 0.75 * eta + 0.25 * 0.04, 0.5 + 0.75 * eta - 0.25 * 0.02]
    assert attack.step(state).x_adv.flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_what_the_run_keeps_is_that_of_the_smallest_margin() -> None:
    # Logits (1, a, b) of one pixel: the margin is 1 − max(a, b).
    model = Rows(torch.tensor([[0.0], [1.0], [-1.0]]), torch.tensor([1.0, 0.0, 0.8]))
    x, y = torch.tensor([0.5]).double().view(1, 1, 1, 1), torch.tensor([0])
    attack = AnnealedPGD(eps=0.2, steps=3)
    state = attack.start(model, x, y, 0.2, init=x)
    assert (state.margin.tolist(), state.closest.tolist(), state.target.tolist()) == ([math.inf], [-1], [-1])

    # At 0.5 the others have 0.5 and 0.3: margin 0.5, class 1, and the step goes up to the end of the ball, 0.7.
    state = attack.step(state)
    assert state.margin.item() == pytest.approx(0.5)
    assert (state.closest.item(), state.target.item(), state.blind.item()) == (1, 1, 0)
    assert state.best.item() == 0.5
    assert state.x_adv.item() == pytest.approx(0.7)
    state = attack.step(state)
    assert state.margin.item() == pytest.approx(0.3)
    assert state.best.item() == pytest.approx(0.7)

    # An iterate of larger margin, 0.6 at 0.4, replaces nothing.
    worse = state.judged(model(torch.full_like(x, 0.4)))
    assert worse.margin.item() == pytest.approx(0.3)
    assert worse.best.item() == pytest.approx(0.7)
    # Neither does a NaN; a smaller margin of another class does.
    nan = state.judged(torch.tensor([[1.0, torch.nan, 0.0]]))
    assert (nan.margin.item(), nan.closest.item(), nan.fooled.item()) == (state.margin.item(), 1, False)
    other = state.judged(torch.tensor([[1.0, 0.0, 0.9]]))
    assert other.margin.item() == pytest.approx(0.1)
    assert (other.closest.item(), other.target.item()) == (2, 1)


def test_a_target_is_the_wrong_class_of_its_rank_on_the_image_wherever_the_run_starts() -> None:
    # Logits of one pixel p: (1, p, 0.8 − p, 0.1). On the image, 0.5, the wrong classes are 1, 2, 3 in this order; at
    # the start, 0.3, class 2 is ahead of 1.
    model = Rows(torch.tensor([[0.0], [1.0], [-1.0], [0.0]]), torch.tensor([1.0, 0.0, 0.8, 0.1]))
    x, y = torch.tensor([0.5]).double().view(1, 1, 1, 1), torch.tensor([0])
    start = x - 0.2
    for loss in ("margin-targeted", "dlr-targeted"):
        for rank, moves in ((1, 0.7), (2, 0.3), (3, 0.3)):
            attack = AnnealedPGD(eps=0.2, steps=3, loss=loss, target=rank)  # type: ignore[arg-type]
            state = attack.start(model, x, y, 0.2, init=start)
            assert state.target.tolist() == [rank]
            state = attack.step(state)
            assert state.target.tolist() == [rank]
            assert state.closest.tolist() == [2]
            if rank < 3:
                assert state.x_adv.item() == pytest.approx(moves)
    free = AnnealedPGD(eps=0.2, steps=3, loss="margin-targeted")
    assert free.step(free.start(model, x, y, 0.2, init=start)).target.tolist() == [2]


def test_a_target_shows_only_where_there_is_one() -> None:
    plain, second = (AnnealedPGD(0.1, steps=20, loss="margin-targeted", target=target) for target in (None, 2))
    assert repr(plain) == "AnnealedPGD(eps=0.1, norm='linf', steps=20, loss='margin-targeted')"
    assert repr(second) == "AnnealedPGD(eps=0.1, norm='linf', steps=20, loss='margin-targeted', target=2)"
    assert second.group == replace(second, target=3).group != plain.group
    assert describe([plain, second, replace(second, target=3)]) == (
        "annealed PGD-20 (targeted margin), annealed PGD-20 (targeted margin) on each of 2 targets"
    )
    assert second.title == "annealed PGD-20 (targeted margin, class 2)"
    assert [second.possible(classes) for classes in (2, 3)] == [False, True]
    assert plain.possible(2)
    assert (plain.has_a_target, second.has_a_target) == (False, True)


@pytest.mark.parametrize(
    ("settings", "fact"),
    [
        ({"loss": "margin-targeted", "target": 0}, "target = 0"),
        ({"loss": "ce", "target": 1}, "aims at no class"),
        ({"target": 2}, "'margin-targeted'"),
    ],
)
def test_a_target_that_cannot_be_is_refused(settings: dict[str, Any], fact: str) -> None:
    with pytest.raises(InputError, match=fact):
        AnnealedPGD(0.1, **settings)


def test_of_too_few_classes_a_target_is_refused() -> None:
    model = Rows(torch.eye(3)[:, :1])
    with pytest.raises(InputError, match="only 2 wrong ones"):
        AnnealedPGD(0.1, loss="margin-targeted", target=3)(model, grey(2, pixels=1), torch.tensor([0, 1]))


@pytest.mark.parametrize("norm", NORMS)
def test_blind_steps_are_counted_and_move_nothing_out_of_its_ball(norm: str) -> None:
    def zero(pixel: Tensor) -> Tensor:
        return torch.stack([pixel.round() + 1, pixel.round()], dim=1) + 0 * pixel[:, None]

    def not_a_number(pixel: Tensor) -> Tensor:
        # sqrt(0²): the value is zero, its gradient 0 · ∞
        odd = (pixel - pixel.detach()).square().sqrt()
        return torch.stack([pixel * 0 + 1 + odd, pixel * 0 + odd * 2], dim=1)

    def sees(pixel: Tensor) -> Tensor:
        return torch.stack([1 + pixel, 0 * pixel], dim=1)

    x, y = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1)), torch.zeros(5, dtype=torch.int64)
    attack = AnnealedPGD(eps=0.2, norm=norm, steps=6)  # type: ignore[arg-type]
    for answer, blind in ((zero, 6), (not_a_number, 6), (sees, 0)):
        state = run(attack, attack.start(Written(answer), x, y, 0.2, generator=keyed(5)))
        assert state.blind.tolist() == [blind] * 5
        assert not state.fooled.any()
        assert (radius(state.x_adv - x, norm) <= 0.2 + 1e-6).all()
        assert ((state.x_adv >= 0) & (state.x_adv <= 1)).all()


def test_nan_never_counts_as_fooled() -> None:
    def answer(pixel: Tensor) -> Tensor:
        logits = torch.stack([1 - 4 * pixel, 0 * pixel], dim=1)
        return torch.where((pixel < 0.45)[:, None], logits, torch.nan)

    x, y = torch.full((2, 1, 1, 1), 0.2), torch.tensor([0, 1])
    # From 0.25 on class 1 wins, but above 0.45 all is NaN: steps of 2ε go straight there.
    attack = AnnealedPGD(eps=0.4, steps=1)
    state = attack.start(Written(answer), x, y, 0.4, init=x)
    after = attack.step(state)
    assert after.x_adv.flatten()[0] == pytest.approx(0.6)
    looked = after.judged(Written(answer)(after.x_adv))
    assert looked.fooled.tolist() == [False, True]  # the second was fooled at its start
    assert looked.margin.tolist() == pytest.approx([0.2, -1.0])  # and went on to where class 0 has most
    assert attack.result(after).flatten().tolist() == pytest.approx([0.2, 0.2])


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_reaches_the_corner_of_a_linear_model(loss: str) -> None:
    model, (x, y) = Linear(WEIGHT), linear_batch()
    attack = AnnealedPGD(eps=0.1, steps=5, loss=loss)  # type: ignore[arg-type]
    state = run(attack, attack.start(model, x, y, 0.1, generator=keyed(len(x))))
    felt = torch.tensor(WEIGHT) != 0
    expected = corner(x, y, 0.1)
    torch.testing.assert_close(state.x_adv.flatten(1)[:, felt], expected.flatten(1)[:, felt], rtol=0, atol=1e-12)
    score = expected.flatten(1) @ torch.tensor(WEIGHT, dtype=torch.float64)
    torch.testing.assert_close(state.margin, torch.where(y == 0, score, -score), rtol=1e-6, atol=1e-7)
    assert torch.equal(state.closest, 1 - y)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_reaches_the_boundary_point_of_a_linear_model_in_l2(loss: str) -> None:
    weight = torch.tensor(WEIGHT, dtype=torch.float64)
    y = torch.arange(20) % 2
    x, side = grey(20), torch.where(y == 0, 1.0, -1.0).double()
    attack = AnnealedPGD(eps=0.3, norm="l2", steps=40, loss=loss)  # type: ignore[arg-type]
    state = run(attack, attack.start(Linear(WEIGHT), x, y, 0.3, generator=keyed(20)))
    # The point of the ball where the margin is least, and that margin; no pixel gets near 0 or 1.
    nearest = x.flatten(1) - 0.3 * side[:, None] * weight / weight.norm()
    assert ((state.x_adv.flatten(1) - nearest).norm(dim=1) < 0.02 * 0.3).all()
    least = side * (x.flatten(1) @ weight) - 0.3 * weight.norm()
    assert (state.margin >= least - 1e-9).all()
    assert (state.margin <= least + 1e-3 * 0.3 * weight.norm()).all()


@pytest.mark.parametrize("loss", ["margin-targeted", "dlr-targeted"])
@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_adapt_the_dlr_loss_to_the_plain_difference(loss: str, classes: int) -> None:
    attack = AnnealedPGD(eps=0.05, steps=3, loss=loss)  # type: ignore[arg-type]
    assert attack.adapted(classes) is (loss == "dlr-targeted")
    assert not attack.adapted(4)
    weight = torch.randn(classes, 6, generator=torch.Generator().manual_seed(2))
    model, x = Rows(weight), grey(4)
    y = model(x).argmax(dim=1)
    wrong = (y + 1) % classes
    state = replace(attack.start(model, x, y, 0.05, generator=keyed(4)), target=wrong)
    end = run(attack, state)
    expected = x.flatten(1) + 0.05 * (weight[wrong] - weight[y]).sign()
    torch.testing.assert_close(end.x_adv.flatten(1), expected, rtol=0, atol=1e-9)
    assert torch.equal(end.target, wrong)


def test_a_target_is_kept_and_without_one_it_is_the_likeliest_wrong_class_at_the_start() -> None:
    weight = torch.randn(6, 20, generator=torch.Generator().manual_seed(3))
    model, x = Rows(weight), grey(6, pixels=20)
    order = model(x)[0].argsort(descending=True).tolist()
    y = torch.full((6,), order[0])
    attack = AnnealedPGD(eps=0.02, steps=4, loss="margin-targeted")
    given = torch.tensor([-1, order[1], order[2], order[3], order[4], order[5]])
    start = attack.start(model, x, y, 0.02, init=x)
    end = run(attack, replace(start, target=given))
    assert end.target.tolist() == [order[1], *order[1:]]
    expected = x.flatten(1) + 0.02 * (weight[end.target] - weight[y]).sign()
    torch.testing.assert_close(end.x_adv.flatten(1), expected, rtol=0, atol=1e-9)
    assert len({tuple(row) for row in expected.tolist()}) == 5, "targets must lead to corners of their own"


# ---------------------------------------------------------------------------------------------------------------------
# What every attack promises
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_answer_lies_in_the_ball_of_each_sample_and_in_the_box(loss: str, norm: str) -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(dtype=torch.float64)
    attack = AnnealedPGD(eps=0.1, norm=norm, steps=7, loss=loss)  # type: ignore[arg-type]
    eps = torch.tensor([0.0, 1e-4, 0.02, 0.1, 0.5, 1.0], dtype=torch.float64)
    x_adv = attack(net, x, y, eps=eps, generator=keyed(6))
    assert (radius(x_adv - x, norm) <= eps * (1 + 1e-9)).all()
    assert ((x_adv >= 0) & (x_adv <= 1)).all()
    assert (radius(x_adv - x, norm)[2:] > 0.5 * eps[2:].clamp_max(0.4)).all(), "what does not move shows nothing"
    # Each sample alone, with its own ε and its own noise, ends at the same image.
    for sample in range(6):
        noise = SampleKeyed(0, torch.tensor([sample]))
        alone = attack(net, x[[sample]], y[[sample]], eps=float(eps[sample]), generator=noise)
        torch.testing.assert_close(alone, x_adv[[sample]], rtol=0, atol=1e-7)


@pytest.mark.parametrize("loss", LOSSES)
def test_probabilities_as_labels(loss: str) -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(dtype=torch.float64)
    attack = AnnealedPGD(eps=0.02, steps=5, loss=loss)  # type: ignore[arg-type]

    def attacked(label: Tensor) -> Tensor:
        return attack(net, x, label, generator=torch.Generator().manual_seed(0))

    one_hot = nn.functional.one_hot(y, 5).double()
    torch.testing.assert_close(attacked(one_hot), attacked(y), rtol=0, atol=1e-9)
    # Softer ones count by their most likely class; only the cross-entropy sees more of them.
    soft = attacked(one_hot * 0.6 + 0.08)
    if loss != "ce":
        torch.testing.assert_close(soft, attacked(y), rtol=0, atol=1e-9)
    assert (radius(soft - x, "linf") <= 0.02 + 1e-9).all()


def test_the_answer_is_the_first_iterate_that_fools_or_else_that_of_smallest_margin() -> None:
    net, (x, y) = conv_net(dtype=torch.float64), batch(dtype=torch.float64, samples=30)
    y = net(x).argmax(dim=1)
    watched = Recorder(net)
    answers = AnnealedPGD(eps=0.04, steps=8)(watched, x, y, generator=keyed(30))
    asked = [images for images in watched.asked if len(images) == 30][-9:]
    margins = torch.stack([net(i)[range(30), y] - net(i).scatter(1, y[:, None], -torch.inf).amax(dim=1) for i in asked])
    fools = margins < 0
    assert 0 < int(fools.any(dim=0).sum()) < 30
    for sample in range(30):
        seen = margins[:, sample]
        place = int(fools[:, sample].int().argmax()) if fools[:, sample].any() else int(seen.argmin())
        torch.testing.assert_close(answers[sample], asked[place][sample], rtol=0, atol=1e-12)


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(InputError, match="ce, dlr-targeted, margin, margin-targeted"):
        AnnealedPGD(eps=0.1, loss="dlr")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# Local and rescaled Square
# ---------------------------------------------------------------------------------------------------------------------


class Indifferent(nn.Module):
    """Never fooled, and no point is better than another: the search stays where it began."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([0 * x.flatten(1).sum(dim=1) + 1, 0 * x.flatten(1).sum(dim=1)], dim=1)


def sizes(attack: Square, count: int) -> list[int]:
    """The side of the square that each query changed, read off the image that was asked about."""

    x = torch.full((1, 1, 20, 20), 0.5, dtype=torch.float64)
    watched = Recorder(Indifferent())
    state = attack.start(watched, x, torch.tensor([0]), 0.05, init=x, generator=keyed(1))
    for _ in range(count):
        state = attack.step(state)
    changed = [(asked - x)[0, 0].abs() > 1e-12 for asked in watched.asked]
    return [int(here.any(dim=1).sum()) for here in changed[1:]]


@pytest.mark.parametrize(("norm", "skipped", "queries"), [("linf", 150, 120), ("linf", 40, 30), ("l2", 40, 30)])
def test_local_square_leaves_out_the_first_sizes(norm: str, skipped: int, queries: int) -> None:
    whole = sizes(Square(eps=0.05, norm=norm), skipped + queries)  # type: ignore[arg-type]
    local = sizes(LocalSquare(eps=0.05, norm=norm, skipped=skipped), queries)  # type: ignore[arg-type]
    assert local == whole[skipped:]
    assert whole[0] > local[0] >= local[-1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_rescaled_square_passes_through_all_sizes_with_its_queries(norm: str) -> None:
    rescaled = sizes(RescaledSquare(eps=0.05, norm=norm, steps=100), 100)  # type: ignore[arg-type]
    # The paper halves the area of the squares after 10 to 8,000 of 10,000 queries: after 0, 0, 2, 5, … 80 of 100.
    smallest = {"linf": 1, "l2": 3}[norm]
    sides = [max(round(math.sqrt(0.8 / 2**n) * 20), smallest) for n in range(10)]
    sides = [min(side | (norm == "l2"), 20) for side in sides]
    passed = [sum(100 * step > halving for halving in HALVINGS) for step in range(99)]
    assert rescaled == [sides[n] for n in passed]
    # With the paper's number it is the paper's attack.
    same = (sizes(kind(eps=0.05, norm=norm, steps=10_000), 60) for kind in (Square, RescaledSquare))  # type: ignore[arg-type]
    assert next(same) == next(same)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.05), ("l2", 0.4)])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 100))
def test_from_a_good_iterate_local_square_never_ends_at_a_larger_margin(norm: str, eps: float, seed: int) -> None:
    net, (x, _) = conv_net(seed, dtype=torch.float64), batch(seed, dtype=torch.float64)
    y = net(x).argmax(dim=1)

    def margin(images: Tensor) -> Tensor:
        logits = net(images)
        return logits[range(len(y)), y] - logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)

    best = AnnealedPGD(eps=eps, norm=norm, steps=3)(net, x, y, generator=keyed(6))  # type: ignore[arg-type]
    end = LocalSquare(eps=eps, norm=norm, steps=25)(net, x, y, init=best, generator=keyed(6))  # type: ignore[arg-type]
    reached, before = margin(end), margin(best)
    assert (reached <= before).all()
    assert (radius(end - x, norm) <= eps * (1 + 1e-9)).all()
    # One that is fooled already stays where it is.
    assert torch.equal(end[before < 0], best[before < 0])
