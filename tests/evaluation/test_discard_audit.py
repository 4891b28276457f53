"""The audit of the survivors: sizes and bound against an enumeration of all draws, and how often the bound holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from asgt.evaluation.discard_audit import (
    POINT,
    RISKS,
    SPENT,
    Discards,
    PhaseCost,
    audit_sizes,
    discard_bound,
    drawn_audit,
    size_after,
)
from asgt.statistics import acceptance_probability, clopper_pearson

CASES = [(300, 1000), (800, 1000), (1000, 1000), (12, 1000), (220, 350), (5000, 10_000), (9_900, 10_000)]


@pytest.mark.parametrize("sizes", [(3,), (1, 2), (2, 5), (3, 4, 5), (2, 7), (1, 4, 6)])
@pytest.mark.parametrize("defects", [0, 1, 2, 4, 7])
def test_the_chance_of_a_plan_is_the_share_of_all_orders_that_it_accepts(defects: int, sizes: Sequence[int]) -> None:
    # An order of seven members is given by the places of its defects.
    accepted = [
        any(sum(place < size for place in places) <= step for step, size in enumerate(sizes))
        for places in combinations(range(7), defects)
    ]
    share = sum(accepted) / comb(7, defects)
    assert acceptance_probability(defects, 7, sizes) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize("size", [1, 40, 399, 400])
def test_a_plan_of_one_step_is_a_draw_without_a_defect(size: int) -> None:
    assert acceptance_probability(6, 400, [size]) == pytest.approx(hypergeom.cdf(0, 400, 6, size), abs=1e-12)
    assert acceptance_probability(0, 400, [size]) == 1


@pytest.mark.parametrize(
    ("defects", "population", "sizes"),
    [(6, 5, [2]), (-1, 5, [2]), (1, 5, [6]), (1, 5, [0, 2]), (1, 5, [2, 2]), (1, 5, [3, 2]), (1, 5, [-1])],
)
def test_an_impossible_plan_is_refused(defects: int, population: int, sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="drawn in steps"):
        acceptance_probability(defects, population, sizes)


@pytest.mark.parametrize(("survivors", "samples"), CASES)
@pytest.mark.parametrize("risk", RISKS)
def test_each_step_is_as_small_as_one_point_and_its_risk_allow(survivors: int, samples: int, risk: float) -> None:
    sizes = audit_sizes(survivors, samples, risk)
    assert 0 < len(sizes) <= len(SPENT)
    assert sizes[0] > 0
    assert sizes[-1] <= survivors
    for broke, (size, share) in enumerate(zip(sizes, SPENT, strict=False)):
        # One more that breaks than a point and those that the audit finds.
        many = int(POINT * samples + 1e-9) + broke + 1
        before = sizes[:broke]
        assert acceptance_probability(many, survivors, (*before, size)) <= share * risk
        if size > (before[-1] if before else 0) + 1:
            assert acceptance_probability(many, survivors, (*before, size - 1)) > share * risk
        assert discard_bound(broke, survivors, samples, risk) <= POINT


def test_of_few_images_a_smaller_audit_is_enough_than_of_many() -> None:
    sizes = [audit_sizes(3 * samples // 4, samples, RISKS[0]) for samples in (200, 500, 1000, 2000, 5000, 10**6)]
    for step in range(len(SPENT)):
        assert [size[step] for size in sizes] == sorted(size[step] for size in sizes)
    # Of many the draw is as good as independent: Clopper and Pearson's bound for the binomial.
    spent = SPENT[0] * RISKS[0]
    assert discard_bound(0, 750_000, 10**6, RISKS[0]) == pytest.approx(
        0.75 * clopper_pearson(0, sizes[-1][0], 1 - 2 * spent)[1], rel=0.01
    )


def test_what_is_no_more_than_a_point_needs_no_audit() -> None:
    assert audit_sizes(0, 1000, 0.045) == ()
    assert audit_sizes(10, 1000, 0.045) == ()
    assert audit_sizes(11, 1000, 0.045) == (1,)
    assert audit_sizes(40, 1000, 0.045)[0] < 40


@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(("survivors", "samples"), CASES)
def test_the_bound_is_the_largest_number_of_breaks_whose_chance_is_not_spent(
    survivors: int, samples: int, risk: float
) -> None:
    sizes = audit_sizes(survivors, samples, risk)
    for broke, size in enumerate(sizes):
        others = round(samples * discard_bound(broke, survivors, samples, risk))
        if size == survivors:
            assert others == 0
            continue
        plan, spent = sizes[: broke + 1], SPENT[broke] * risk
        assert acceptance_probability(broke + others, survivors, plan) > spent
        assert acceptance_probability(broke + others + 1, survivors, plan) <= spent
    if sizes[-1] < survivors:
        assert size_after(len(sizes), sizes, survivors) == 0
        with pytest.raises(ValueError, match="too many"):
            discard_bound(len(sizes), survivors, samples, risk)


def test_an_audit_of_all_leaves_no_error() -> None:
    # Of fifty images, no single one may be overlooked.
    assert audit_sizes(4, 50, 1e-9) == (4,)
    assert discard_bound(0, 4, 50, 1e-9) == 0
    # Of few survivors, all may break: the rest of them is attacked, however many did.
    sizes = audit_sizes(8, 200, RISKS[0])
    assert sizes[-1] == 8
    assert [size_after(broke, sizes, 8) for broke in range(len(sizes), 9)] == [8] * (9 - len(sizes))
    assert discard_bound(8, 8, 200, RISKS[0]) == 0


def test_the_draw_is_a_function_of_seed_and_number_and_keeps_to_the_survivors() -> None:
    survivors = torch.arange(200) % 3 == 0
    order = drawn_audit(survivors, 0, 1)
    assert torch.equal(order.sort().values, survivors.nonzero().squeeze(1))
    assert torch.equal(order, drawn_audit(survivors, 0, 1))
    others = [drawn_audit(survivors, seed, number) for seed, number in ((1, 1), (0, 2), (0, 3))]
    assert all(not torch.equal(order, other) for other in others)
    assert len(drawn_audit(torch.zeros(5, dtype=torch.bool), 0, 1)) == 0
    # Each is among the first 20 of 67 equally often: in 600 draws 179 times, with a standard deviation of 11.
    counts = torch.zeros(200)
    for seed in range(600):
        counts[drawn_audit(survivors, seed, 1)[:20]] += 1
    assert not counts[~survivors].any()
    assert (counts[survivors] - 600 * 20 / 67).abs().max() < 5 * 11.3


sizes_of, bound_of = lru_cache(10**5)(audit_sizes), lru_cache(10**5)(discard_bound)


def accepted_error(draws: np.random.Generator, broken: int, survivors: int, samples: int) -> float:
    """By how much a search that ends without the full one is beyond its bound; −1 where the full one runs."""

    for risk in RISKS:
        sizes = sizes_of(survivors, samples, risk)
        audited = broke = 0
        while audited < (size := size_after(broke, sizes, survivors)):
            left, bad = survivors - audited, broken - broke
            more = int(draws.hypergeometric(bad, left - bad, size - audited))
            audited, broke = size, broke + more
        if audited == size:
            return (broken - broke) / samples - bound_of(broke, survivors, samples, risk)
        broken, survivors = broken - broke, survivors - audited  # what was audited is as the full search has it
        if survivors <= POINT * samples:
            return 0.0
        # The wider search breaks half of those that the full one would break.
        broken, survivors = broken - broken // 2, survivors - broken // 2
    return -1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "discarded", "samples"),
    # The first is hardest to tell: just more than one point, in many images.
    [(105, 5000, 10_000), (13, 800, 1000), (40, 900, 1000), (8, 200, 500)],
)
def test_over_all_rounds_the_bound_holds_nineteen_times_in_twenty(broken: int, discarded: int, samples: int) -> None:
    draws = np.random.default_rng(0)
    errors = np.array([accepted_error(draws, broken, discarded, samples) for _ in range(4000)])
    assert (errors > 0).mean() <= 0.05
    assert (errors > -1).any(), "where the full search always runs, no bound is held against anything"


def test_what_was_left_out_is_read_back_as_it_was_written() -> None:
    phases = (PhaseCost("probe and press", 40, 3, 400, 12), PhaseCost("audit", 5, 0, 900, 0))
    for told in (
        Discards(30, 5, 1, 2, 0.0123, "", False, phases),
        Discards(30, 5, 1, 3, 0.0123, "", False, phases, survivors=40, earlier=((9, 4), (8, 1))),
        Discards(0, 0, 0, 0, None, "the model is not deterministic", False, ()),
        Discards(0, 0, 0, 0, 0.0, "fewer than 200 images", True, phases),
        Discards(30, 5, 1, 1, 0.0123, "", False, phases, survivors=40, nearest=(3, 1)),
    ):
        assert Discards.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    assert Discards(30, 5, 1, 2, 0.0123, "", False, phases).passes == 3 * 400 + 12 + 3 * 900
