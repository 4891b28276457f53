"""A search in phases: known answers on linear models, who goes through which phase at which ε, and its accounts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt import APGD, PGD, AnnealedPGD, Images, Square
from asgt.attacks import Attack, LocalSquare, Norm, State
from asgt.attacks.attack import per_sample, project
from asgt.evaluation.known import CLEAN, NOTHING
from asgt.evaluation.phased import Phase, PhasedOutcome, _Phased, phased_norms
from asgt.progress import SILENT
from support.curves import Misled, Rows, band_images, rows_images, rows_radius, small_mlp

GRID = tuple(0.01 * number for number in range(1, 25))
FINE = tuple(0.0025 * number for number in range(1, 41))

SHORT = tuple(AnnealedPGD(0.0, steps=10, loss=loss) for loss in ("margin", "ce", "margin-targeted"))
PHASES = (
    Phase("short", SHORT),
    Phase("again", SHORT[:2], within=5),
    Phase("Square", (LocalSquare(0.0, steps=20),), within=1, from_best=True),
)


def right(model: nn.Module, data: Images) -> Tensor:
    x = data.pixels if data.pixels.is_floating_point() else data.pixels / 255
    with torch.no_grad():
        return model(x).argmax(dim=1) == data.labels


def searched(
    model: nn.Module, data: Images, *, phases: tuple[Phase, ...] = PHASES, grid: tuple[float, ...] = GRID, **words: Any
) -> PhasedOutcome:
    return phased_norms(model, data, phases, grid, clean=right(model, data), **words)


# ---------------------------------------------------------------------------------------------------------------------
# Known answers
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_linear_model_breaks_where_it_must(norm: Norm, classes: int) -> None:
    model = Rows(classes)
    data = rows_images(model, 60)
    exact = rows_radius(model, data, norm)
    radii = FINE if norm == "linf" else GRID
    long = tuple(replace(attack, steps=30) for attack in SHORT)
    # The class that is nearest need not be the likeliest. Of two wrong ones both are aimed at, of nine three.
    targets = tuple(APGD(0.0, steps=30, loss="dlr-targeted", target=target) for target in range(1, min(classes, 4)))
    phases = tuple(phase.in_norm(norm) for phase in (replace(PHASES[0], attacks=long + targets), *PHASES[1:]))
    found = searched(model, data, phases=phases, grid=radii)
    grid = torch.tensor(radii, dtype=torch.float64)
    clear = (exact[:, None] - grid).abs().amin(dim=1) > (1e-5 if norm == "linf" else 2e-4)
    expected = torch.searchsorted(grid, exact)
    assert clear.sum() > 45
    assert len(expected[clear].unique()) > 6
    assert (found.levels >= expected)[clear].all(), "nothing breaks below its exact radius"
    assert (found.levels > expected)[clear].sum() <= (0 if classes < 4 else 0.05 * clear.sum())
    assert (found.levels - expected)[clear].max() <= 1
    wrong = exact == 0
    assert wrong.sum() == 6
    assert ((found.found_by == CLEAN) == wrong).all()
    assert (found.norms[wrong] == 0).all()
    assert (found.gradients[wrong] == 0).all()
    assert (found.norms >= exact - 1e-6).all()


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 1000),
    grid=st.lists(st.floats(0.005, 0.5), min_size=1, max_size=5, unique=True).map(sorted),
    norm=st.sampled_from(["linf", "l2"]),
    batch_size=st.integers(1, 30),
)
def test_every_witness_holds_and_no_outcome_is_better_than_it(
    seed: int, grid: list[float], norm: Norm, batch_size: int
) -> None:
    model, data = small_mlp(seed, 16)
    phases = tuple(phase.in_norm(norm) for phase in (Phase("a", SHORT[:1]), *PHASES[1:]))
    found = searched(model, data, phases=phases, grid=tuple(grid), batch_size=batch_size)
    x = data.pixels / 255
    broken = torch.isfinite(found.norms) & (found.norms > 0)
    delta = (found.witnesses - x).flatten(1)
    norms = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
    torch.testing.assert_close(norms[broken], found.norms[broken])
    assert ((found.witnesses >= 0) & (found.witnesses <= 1)).all()
    with torch.no_grad():
        assert (model(found.witnesses).argmax(dim=1) != data.labels)[broken].all()
    # The witness's norm bounds how many ε a sample withstands, and some ε that it does not is no smaller.
    radii = torch.tensor(grid)
    assert (found.levels <= torch.searchsorted(radii, found.norms)).all()
    reached = radii[found.levels.clamp_max(len(grid) - 1)][broken]
    assert (norms[broken] <= reached * (1 + 1e-5) + 1e-6).all()
    curve = found.correct(len(grid)).sum(dim=1)
    assert (curve.diff() <= 0).all()
    assert curve.max() <= right(model, data).sum()


# ---------------------------------------------------------------------------------------------------------------------
# Batches, orders, accounts
# ---------------------------------------------------------------------------------------------------------------------


def in_float64(count: int) -> tuple[nn.Module, Images]:
    model, data = small_mlp(3, count)
    return model.double(), Images((data.pixels / 255).double(), data.labels, data.classes)


@pytest.mark.slow
def test_neither_batches_nor_the_order_of_the_rows_matter() -> None:
    model, data = in_float64(40)
    whole = searched(model, data)
    assert (whole.discarded >= 0).any()
    assert whole.phase_broken[1:].any()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(5))
    turned = searched(model, data[order], rows=order)
    same = ["levels", "norms", "discarded", "phase_gradients", "phase_broken", "blind", "found_by", "distance"]
    others = [(searched(model, data, batch_size=size), slice(None)) for size in (7, 23)] + [(turned, order)]
    for other, rows in others:
        for name in same:
            ours, theirs = getattr(whole, name)[..., rows], getattr(other, name)
            torch.testing.assert_close(theirs, ours, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}")
    # Other noise is other noise: for another seed, and for a search that runs once more.
    known = torch.where(right(model, data), len(GRID), 0)
    first, again = (searched(model, data, levels=known, again=number).distance.nan_to_num() for number in (0, 1))
    assert not torch.allclose(first, again)
    assert not torch.allclose(searched(model, data, seed=1).distance.nan_to_num(), whole.distance.nan_to_num())


def test_the_passes_of_the_phases_are_all_passes_and_those_below_are_counted_apart() -> None:
    model, data = small_mlp(3, 40)
    shares = torch.full((40,), torch.nan)
    shares[::3] = 0.5
    found, plain = searched(model, data, audited=shares), searched(model, data)
    for outcome in (found, plain):
        assert torch.equal(outcome.phase_gradients.sum(dim=0), outcome.gradients)
        assert torch.equal(outcome.phase_forwards.sum(dim=0), outcome.forwards)
        assert (outcome.blind <= outcome.phase_gradients[1:].sum(dim=0)).all()
    # A look below changes nothing of the search but what it breaks there.
    assert torch.equal(found.gradients, plain.gradients)
    assert torch.equal(found.phase_broken, plain.phase_broken)
    unbroken = found.missed == 0
    for name in ("levels", "discarded", "blind", "norms"):
        assert torch.equal(getattr(found, name)[unbroken], getattr(plain, name)[unbroken]), name
    torch.testing.assert_close(found.distance, plain.distance, rtol=0, atol=0, equal_nan=True)
    asked = (~shares.isnan()) & (plain.levels > 1)
    assert 0 < asked.sum() < 14
    assert torch.equal(found.tested, asked.long())
    assert (found.audit[asked] > 0).all()
    assert not found.audit[~asked].any()


def test_a_look_below_is_at_the_share_of_the_eps_below_the_failure() -> None:
    Spy.seen.clear()
    shares = torch.tensor([0.0, 0.6, torch.nan])
    found = searched(Brighter(2, 2), band_images(3), phases=SPIES[:1], grid=(0.1, 0.2, 0.3, 0.4), audited=shares)
    # Nothing breaks: 0.4 fails for all, then 0 · 3 and 0.6 · 3 give the first and the second ε.
    assert [eps for _, eps, _ in Spy.seen] == [[0.4] * 3, [0.1, 0.2]]
    assert found.levels.tolist() == [4, 4, 4]
    assert (found.tested.tolist(), found.missed.tolist()) == ([1, 1, 0], [0, 0, 0])
    assert found.audit.tolist() == [1, 1, 0]


# ---------------------------------------------------------------------------------------------------------------------
# Who goes where
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spy(Attack):
    """Brightens the left half by ε, or all, without a gradient, and notes at which ε it was asked, from where."""

    whole: bool = False
    seen: ClassVar[list[tuple[str, list[float], Tensor]]] = []

    def start(self, model: Any, x: Tensor, y: Tensor, eps: float | Tensor, **words: Any) -> State:
        state = super().start(model, x, y, eps, **words)
        eps_seen = [round(value, 6) for value in state.eps.tolist()]
        self.seen.append(("whole" if self.whole else "left", eps_seen, state.x_adv))
        return state

    def step(self, state: State) -> State:
        where = torch.ones_like(state.x)
        if not self.whole:
            where[..., state.x.shape[-1] // 2 :] = 0
        moved = project(state.x + per_sample(state.eps, state.x) * where, state.x, state.eps, self.norm)
        return replace(state, x_adv=moved, iteration=state.iteration + 1)


class Brighter(nn.Module):
    """Fooled where the left half is so much brighter than grey, or the right half so much; its gradient is zero."""

    def __init__(self, left: float, right: float) -> None:
        super().__init__()
        self.least = torch.tensor([left, right])

    def forward(self, x: Tensor) -> Tensor:
        halves = x.detach().mean(dim=(1, 2)).unflatten(1, (2, -1)).mean(dim=2) - 128 / 255
        margin = torch.where((halves > self.least).any(dim=1), -1.0, 1.0) + 0 * x.sum(dim=(1, 2, 3))
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)


SPIES = (Phase("left", (Spy(0.0),)), Phase("whole", (Spy(0.0, whole=True),)))


def test_a_sample_that_breaks_in_a_late_phase_begins_again_at_the_next_eps() -> None:
    Spy.seen.clear()
    found = searched(Brighter(0.45, 0.35), band_images(1), phases=SPIES, grid=(0.1, 0.2, 0.3, 0.4, 0.5))
    # At 0.5 the left half is enough. At 0.4 it takes the second phase, and at 0.3 both fail.
    assert [(name, eps) for name, (eps,), _ in Spy.seen] == [
        ("left", 0.5),
        ("left", 0.4),
        ("whole", 0.4),
        ("left", 0.3),
        ("whole", 0.3),
    ]
    assert found.levels.item() == 3
    assert found.norms.item() == pytest.approx(0.4)
    assert found.found_by.item() == 1
    assert found.phase_broken[:, 0].tolist() == [0, 1, 1]
    assert found.discarded.item() == -1
    # Steps: three of the first attack and two of the second; after each success a gradient more, which tells press that
    # the next ε is out of reach.
    assert found.phase_gradients[1:, 0].tolist() == [3 + 1, 2 + 1]


def test_an_earlier_phase_goes_first_whatever_eps_samples_are_at() -> None:
    Spy.seen.clear()
    # The first image is darker, and never gets there.
    data = band_images(2)
    data = replace(data, pixels=torch.cat([data.pixels[:1] // 4, data.pixels[1:]]))
    found = searched(Brighter(0.45, 0.35), data, phases=SPIES, grid=(0.1, 0.2, 0.3, 0.4, 0.5))
    assert [(name, eps) for name, eps, _ in Spy.seen] == [
        ("left", [0.5, 0.5]),
        ("left", [0.4]),
        ("whole", [0.5, 0.4]),
        ("left", [0.3]),
        ("whole", [0.3]),
    ]
    assert found.levels.tolist() == [5, 3]


def test_a_phase_that_goes_on_starts_at_the_iterate_of_smallest_margin() -> None:
    Spy.seen.clear()
    model = Rows(2)
    data = rows_images(model, 30)
    spy = Spy(0.0)
    phases = (Phase("short", SHORT[:1]), Phase("go on", (spy,), from_best=True), Phase("fresh", (spy,)))
    found = searched(model, data, phases=phases, grid=(0.02,))
    held = found.levels > 0
    (_, _, best), (_, _, fresh) = Spy.seen
    # Of a linear model that is the corner of the ball.
    side = torch.where(data.labels == 1, 1.0, -1.0)[held]
    corner = (data.pixels / 255).flatten(1)[held] - 0.02 * side[:, None] * (model.weight[1] - model.weight[0]).sign()
    torch.testing.assert_close(best.flatten(1), corner.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(fresh, (data.pixels / 255)[held])


def test_who_is_far_is_discarded_and_costs_no_more() -> None:
    model = Rows(3)
    data = rows_images(model, 60)
    found = searched(model, data, grid=(0.02,))
    held = found.levels > 0
    far = found.discarded == 1
    assert 10 < far.sum() < held.sum()
    assert not found.phase_gradients[2:, far].any()
    assert (found.phase_gradients[2, held & ~far] > 0).all()
    assert (found.discarded[~held] == -1).all()
    assert found.distance[~held].isnan().all()
    assert (found.distance[far] >= 5).all()
    # On a linear model the margin that is left at ε is exact, and it alone decides.
    exact = rows_radius(model, data, "linf")
    assert exact[far].min() > 0.02
    # With more σ near, fewer are discarded, never others.
    wider = searched(model, data, phases=tuple(phase.widened(4.0) for phase in PHASES), grid=(0.02,))
    more = wider.discarded == 1
    assert (more <= far).all()
    assert more.sum() < far.sum()


def misled_phases(share: float | None) -> tuple[Phase, ...]:
    first = (Phase("short", SHORT[:2]), Phase("Square", (LocalSquare(0.0, steps=20),), within=1, from_best=True))
    if share is None:
        return first
    rounds = ((500, 1.0),)
    return (*first, Phase("more Square", (Square(0.0, steps=1000),), within=1e9, if_breaking=share, rounds=rounds))


def test_the_discarded_come_back_where_square_breaks_what_gradients_did_not() -> None:
    honest = Rows(2)
    model, data = Misled(honest), rows_images(honest, 60)
    grid, exact = (0.05,), rows_radius(honest, data, "linf")
    breakable = (exact > 0) & (exact < 0.045)
    alone = searched(model, data, phases=misled_phases(None), grid=grid)
    overlooked = (alone.discarded == 1) & breakable
    assert overlooked.sum() > 5, "gradients must mislead"
    assert alone.phase_broken[2].sum() >= 3

    back = searched(model, data, phases=misled_phases(0.25), grid=grid)
    assert (back.levels[overlooked] == 0).sum() > 0.8 * overlooked.sum()
    assert (back.discarded == -1).all()
    assert back.phase_broken[3, overlooked].sum() > 0
    # Where more than it breaks would have to break, nobody comes back.
    never = searched(model, data, phases=misled_phases(1.0), grid=grid)
    assert torch.equal(never.discarded, alone.discarded)
    assert not never.phase_forwards[3].any()
    # And where gradients lead, Square breaks next to nothing, and nobody comes back either.
    led = searched(honest, data, phases=misled_phases(0.25), grid=grid)
    assert (led.discarded == 1).any()
    assert not led.phase_forwards[3].any()


def test_gradients_that_mislead_at_an_eps_mislead_at_every_larger_one() -> None:
    model, data = Rows(2), rows_images(Rows(2), 5)
    settings = {"seed": 0, "rows": torch.arange(5), "votes": 1, "batch_size": 8, "progress": SILENT}
    run = _Phased(misled_phases(0.25), model, data, "linf", (0.01, 0.02, 0.03, 0.04), own=False, **settings)
    levels = torch.tensor([1, 2, 3, 4, 2])
    asking = torch.tensor([True, True, True, True, False])
    for tried, broke, enter in (
        ((0, 20, 19, 9, 9), (0, 5, 5, 0, 1), [0, 1, 1, 1, 0]),
        ((0, 20, 19, 9, 9), (0, 5, 4, 0, 1), [0, 0, 0, 0, 0]),
        ((0, 9, 7, 9, 9), (0, 2, 2, 0, 1), [0, 1, 0, 0, 0]),
        ((0, 19, 0, 0, 0), (0, 5, 0, 0, 0), [1, 1, 1, 1, 0]),
        ((0, 0, 0, 0, 1), (0, 0, 0, 0, 1), [0, 0, 0, 0, 0]),
    ):
        run.blind_tries[0, 1], run.blind_tries[1, 1] = torch.tensor(tried), torch.tensor(broke)
        run.stage[:] = 2
        assert run.admitted(2, asking, levels).long().tolist() == enter
        assert (run.stage == 3).tolist() == [
            bool(asks and not enters) for asks, enters in zip(asking, enter, strict=True)
        ]


def test_while_a_phase_breaks_most_the_next_nearest_follow() -> None:
    honest = Rows(2)
    data = rows_images(honest, 60)
    nearest = Phase("Square", (LocalSquare(0.0, steps=20),), within=1e-9, from_best=True)
    first, found = (
        searched(Misled(honest), data, phases=phases, grid=(0.05,)) for phases in (PHASES[:1], (PHASES[0], nearest))
    )
    held = (first.levels == 1).nonzero().squeeze(1)
    order = held[first.distance[held].argsort()]
    entered = int((found.phase_forwards[2] > 0).sum())
    assert entered > 10
    assert (found.phase_forwards[2, order[:entered]] > 0).all(), "the nearest, and none behind them"
    broke = [int(found.phase_broken[2, five].sum()) for five in order[:entered].split(5)]
    assert min(broke[:-1]) > 2
    assert broke[-1] <= 2
    assert (found.discarded[order[entered:]] == 1).all()
    # Where gradients lead, Square breaks nothing more, and the nearest five are all.
    led = searched(honest, data, phases=(PHASES[0], nearest), grid=(0.05,))
    assert int((led.phase_forwards[2] > 0).sum()) == 5


def in_rounds(*rounds: tuple[int, float]) -> tuple[Phase, ...]:
    return (Phase("short", SHORT[:1]), Phase("Square", (LocalSquare(0.0, steps=40),), from_best=True, rounds=rounds))


def test_after_a_round_only_the_smallest_margins_go_on() -> None:
    model = Rows(3)
    data = rows_images(model, 60)
    whole = searched(model, data, phases=in_rounds(), grid=(0.005, 0.02))
    found = searched(model, data, phases=in_rounds((10, 0.5), (25, 0.4)), grid=(0.005, 0.02))
    assert torch.equal(found.levels, whole.levels)
    queries = found.phase_forwards[2]
    assert (whole.phase_forwards[2, whole.levels > 0] == 40).all()
    for level in (1, 2):
        here = found.levels == level
        count = int(here.sum())
        assert count > 12
        half = max(-(-count // 2), 5)
        last = max(math.ceil(0.4 * half), 5)
        taken = sorted(queries[here].tolist())
        assert taken == [10] * (count - half) + [25] * (half - last) + [40] * last
        # On a linear model the short run ends at the exact margin, from which Square cannot go down.
        assert queries[here][found.distance[here].argsort()].tolist() == taken[::-1]
        # Who did not go on was discarded, and an audit has to know it.
        assert torch.equal(found.discarded[here] == 1, queries[here] < 40)
        assert (found.discarded[here] <= 1).all()


def test_with_shares_of_one_rounds_change_nothing() -> None:
    honest = Rows(2)
    model, data = Misled(honest), rows_images(honest, 60)
    whole, rounds = (
        searched(model, data, phases=phases, grid=(0.02, 0.05))
        for phases in (in_rounds(), in_rounds((1, 1.0), (20, 1.0), (39, 1.0)))
    )
    assert whole.phase_broken[2].any()
    for name in vars(whole):
        torch.testing.assert_close(getattr(rounds, name), getattr(whole, name), rtol=0, atol=0, equal_nan=True)
    widened = in_rounds((10, 0.5), (25, 0.8))[1].widened(1.5)
    assert widened.rounds == ((10, 0.75), (25, 1.0))
    assert widened.within is None


@pytest.mark.parametrize("attack", [LocalSquare(0.0, steps=40), AnnealedPGD(0.0, steps=40, loss="ce")])
def test_rounds_do_not_depend_on_batches_and_what_is_dropped_comes_back(attack: Attack) -> None:
    model, data = in_float64(40)
    rounds = Phase("rounds", (attack,), rounds=((5, 0.4), (15, 0.5)))
    phases = (Phase("short", SHORT[:2]), rounds, Phase("again", SHORT[2:], within=3))
    whole = searched(model, data, phases=phases, grid=(0.02,))
    passes = whole.phase_gradients if attack.uses_gradients else whole.phase_forwards
    assert len(passes[2].unique()) > 3
    for size in (7, 23):
        other = searched(model, data, phases=phases, grid=(0.02,), batch_size=size)
        for name in ("levels", "discarded", "phase_gradients", "phase_forwards", "phase_broken", "distance"):
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), equal_nan=True)
    # A dropped sample that is near enough for the next phase is not discarded any more.
    far = whole.phase_gradients[3] == 0
    held = whole.levels > 0
    assert (whole.discarded[held & ~far] == -1).all()
    assert (held & far).any()
    assert (whole.discarded[held & far] >= 1).all()


def test_zero_and_nan_gradients_are_counted_blind() -> None:
    model, data = Rows(2), rows_images(Rows(2), 20)

    class Blind(nn.Module):
        def __init__(self, nan: bool) -> None:
            super().__init__()
            self.nan = nan

        def forward(self, x: Tensor) -> Tensor:
            logits = model(x.detach())
            odd = (x - x.detach()).flatten(1).sum(dim=1, keepdim=True)
            return logits + (odd.square().sqrt() if self.nan else 0 * odd)

    shares = torch.zeros(20)
    for nan in (False, True):
        found = searched(Blind(nan), data, grid=(0.01, 0.02), audited=shares)
        unbroken = found.found_by == NOTHING
        assert unbroken.sum() > 5
        gradients = found.phase_gradients[1:3].sum(dim=0)  # Square takes none
        assert torch.equal(found.blind[unbroken], gradients[unbroken])
        assert found.blind.sum() <= gradients.sum()
        assert (found.audit[unbroken] > 0).all()
    assert not searched(model, data, grid=(0.01, 0.02)).blind.any()


def test_runs_towards_a_class_count_their_ranking_and_say_nothing_of_the_spread() -> None:
    model, data = small_mlp(5, 40)
    towards = tuple(AnnealedPGD(0.0, steps=7, loss="margin-targeted", target=rank) for rank in (1, 3))
    plain = (Phase("short", SHORT),)
    one = searched(model, data, phases=plain, grid=(0.02,))
    both = searched(model, data, phases=(*plain, Phase("towards", towards)), grid=(0.02,))
    held = one.levels == 1
    assert held.sum() > 10
    # The targeted runs break nothing here, so that the distances below are of the same images.
    assert torch.equal(both.levels, one.levels)
    # Seven gradients and the last iterate's pass on each of two targets, and the pass on the image that ranks them.
    assert (both.phase_gradients[2, held] == 14).all()
    assert (both.phase_forwards[2, held] == 4).all()
    # σ is that of the short runs: the distances can only fall, by what the targeted runs gained.
    assert (both.distance[held] <= one.distance[held]).all()
    assert (both.distance[held] == one.distance[held]).any()


def test_an_attack_without_margins_leaves_the_nearest_to_chance_and_breaks_nothing_of_the_accounts() -> None:
    model = Rows(3)
    data = rows_images(model, 30)
    phases = (Phase("PGD", (PGD(0.0, steps=5),)), Phase("again", (PGD(0.0, steps=5),), within=3))
    found = searched(model, data, phases=phases, grid=(0.02, 0.1))
    exact = rows_radius(model, data, "linf")
    assert (found.levels[exact < 0.019] == 0).all()
    for level in (1, 2):
        here = found.levels == level
        assert int((found.discarded[here] == -1).sum()) >= min(5, int(here.sum()))
