"""Who is near the boundary: spreads by hand, and decisions that do not depend on the scale of the logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asgt.evaluation.allocation import ALWAYS, FLOOR, distances, near, pooled_spread, smallest

NAN = torch.nan


def test_the_spread_is_that_within_samples() -> None:
    # Means 2, 2 and 6: squares 1 + 1, 0 and 1 + 1 + 4, with 1 + 0 + 2 degrees of freedom.
    reached = torch.tensor([[1.0, 3.0, NAN], [NAN, 2.0, NAN], [5.0, 5.0, 8.0], [NAN, NAN, NAN]])
    assert float(pooled_spread(reached)) == pytest.approx(math.sqrt(8 / 3))
    # It does not see how far samples lie apart.
    assert float(pooled_spread(reached + torch.tensor([[0.0], [10.0], [100.0], [0.0]]))) == pytest.approx(
        math.sqrt(8 / 3), rel=1e-5
    )
    assert pooled_spread(torch.tensor([[1.0, NAN], [NAN, 4.0]])).isnan()
    assert pooled_spread(torch.empty(0, 3)).isnan()


def test_the_spread_has_a_floor() -> None:
    margins = torch.tensor([-1.0, 2.0, 3.0, 6.0, 10.0])
    one_level = torch.zeros(5, dtype=torch.int64)
    same = margins[:, None].expand(5, 2)
    # All runs of a sample ended alike: σ is 2 % of the median size, 3.
    assert FLOOR == 0.02
    torch.testing.assert_close(distances(margins, same, one_level), margins.double() / 0.06)
    # Nobody had two runs: likewise.
    torch.testing.assert_close(distances(margins, margins[:, None], one_level), margins.double() / 0.06)
    # Two runs that lie 2 apart have a σ of √2, above the floor.
    apart = torch.stack([margins, margins + 2], dim=1)
    torch.testing.assert_close(distances(margins, apart, one_level), margins.double() / math.sqrt(2))


def two_levels(samples: int, runs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As many samples at each of two ε, all with margin 1; runs alternate between two values, apart by 0.2 and by 2."""

    levels = torch.arange(2).repeat_interleave(samples) + 3
    gap = torch.where(levels == 3, 0.2, 2.0).double()
    reached = 1 + gap[:, None] * (torch.arange(runs) % 2)
    return torch.ones(2 * samples), reached, levels


def test_an_eps_has_its_own_spread_once_there_are_enough_runs() -> None:
    margins, reached, levels = two_levels(16, 2)  # 16 degrees of freedom each
    own = torch.tensor([0.1, 1.0], dtype=torch.float64)[levels - 3] * math.sqrt(2)
    torch.testing.assert_close(distances(margins, reached, levels), 1 / own)

    margins, reached, levels = two_levels(15, 2)  # one too few: σ² is the mean of both
    overall = torch.full((30,), math.sqrt((0.02 + 2.0) / 2), dtype=torch.float64)
    torch.testing.assert_close(distances(margins, reached, levels), 1 / overall)

    # A run beyond the first of its sample is what counts, not a run.
    reached = torch.cat([reached, torch.full((30, 3), NAN)], dim=1)
    torch.testing.assert_close(distances(margins, reached, levels), 1 / overall)


def test_the_nearest_five_of_each_eps_are_near_whatever_the_spread() -> None:
    distance = torch.arange(20.0).double() + 1000
    levels = torch.arange(20) % 3  # seven, seven and six samples
    chosen = near(distance, 1.0, levels)
    assert ALWAYS == 5
    assert chosen.nonzero().squeeze(1).tolist() == list(range(15))
    # Fewer than five are all near, and more than five are where they are near.
    assert near(distance[:4], 1.0, torch.tensor([0, 0, 1, 1])).all()
    assert near(torch.zeros(9), 0.5, torch.zeros(9, dtype=torch.int64)).all()
    # Unknown distances come last.
    unknown = torch.tensor([NAN, 3.0, NAN, 2.0, 1.0, 5.0, 4.0])
    assert near(unknown, 0.1, torch.zeros(7, dtype=torch.int64)).tolist() == [0, 1, 0, 1, 1, 1, 1]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    power=st.integers(-100, 60),
    within=st.floats(0.1, 10),
    more=st.floats(1.0, 3.0),
)
def test_decisions_know_no_scale_and_grow_with_the_reach(seed: int, power: int, within: float, more: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    margins = torch.rand(60, generator=draw) * 3
    reached = margins[:, None] + torch.rand(60, 3, generator=draw)
    reached[torch.rand(60, 3, generator=draw) < 0.2] = NAN
    levels = torch.randint(3, (60,), generator=draw)
    plain = distances(margins, reached, levels)
    scaled = distances(margins * 2.0**power, reached * 2.0**power, levels)
    torch.testing.assert_close(scaled, plain)
    chosen = near(plain, within, levels)
    assert torch.equal(near(scaled, within, levels), chosen)
    assert (chosen <= near(plain, within * more, levels)).all()
    # By the definition, apart from the nearest of each ε.
    assert chosen[plain < within].all()
    for level in range(3):
        here = plain[levels == level]
        assert int(chosen[levels == level].sum()) == max(int((here < within).sum()), min(5, len(here)))


def test_an_image_with_infinite_margins_has_no_say_in_the_spread() -> None:
    reached = torch.tensor([[10.0, 10.1, 10.2]] * 99 + [[torch.inf, 5.0, 5.0]])
    margins, levels = reached.amin(dim=1), torch.ones(100, dtype=torch.int64)
    plain = distances(margins[:99], reached[:99], levels[:99])
    torch.testing.assert_close(distances(margins, reached, levels)[:99], plain, rtol=0.02, atol=0)
    assert int(near(distances(margins, reached, levels), 1, levels).sum()) == ALWAYS

    # Where most are infinite, the others keep a floor, and the infinite ones are far.
    most = torch.tensor([[torch.inf] * 3] * 60 + [[10.0, 10.0, 10.0]] * 40)
    found = distances(most.amin(dim=1), most, levels)
    assert not found.isnan().any()
    assert found[:60].isinf().all()
    assert found[60:].tolist() == pytest.approx([1 / FLOOR] * 40)


def test_a_round_keeps_a_share_at_each_eps_and_at_least_five() -> None:
    # Margins 0 to 39, in another order, in turn at two ε of 24 and 16 samples.
    margins = torch.randperm(40, generator=torch.Generator().manual_seed(0)).double()
    levels = torch.where(margins % 5 < 3, 1, 2)
    few, many = sorted(margins[levels == 2].tolist()), sorted(margins[levels == 1].tolist())
    for share, kept in ((0.5, (12, 8)), (0.3, (8, 5)), (0.01, (5, 5)), (1.0, (24, 16))):
        chosen = smallest(margins, share, levels)
        assert sorted(margins[chosen & (levels == 1)].tolist()) == many[: kept[0]]
        assert sorted(margins[chosen & (levels == 2)].tolist()) == few[: kept[1]]
    # Unknown margins come last, and fewer than five all stay.
    unknown = torch.tensor([NAN, 3.0, NAN, 2.0, 1.0, 5.0, 4.0])
    assert smallest(unknown, 0.1, torch.zeros(7, dtype=torch.int64)).tolist() == [0, 1, 0, 1, 1, 1, 1]
    assert smallest(unknown[:3], 0.1, torch.zeros(3, dtype=torch.int64)).all()
    assert smallest(unknown[:0], 0.5, torch.zeros(0, dtype=torch.int64)).shape == (0,)
