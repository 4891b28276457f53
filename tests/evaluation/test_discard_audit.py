"""The audit of the survivors: size and bound against the hypergeometric distribution, and how often it holds."""

from __future__ import annotations

import json
from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy.stats import beta, hypergeom

from asgt.evaluation.discard_audit import (
    PLANNED,
    POINT,
    RISKS,
    Discards,
    PhaseCost,
    audit_size,
    discard_bound,
    drawn_audit,
)
from asgt.statistics import clopper_pearson, highest_count

CASES = [(300, 1000), (800, 1000), (1000, 1000), (12, 1000), (220, 350), (5000, 10_000), (9_900, 10_000)]


@pytest.mark.parametrize(("survivors", "samples"), CASES)
@pytest.mark.parametrize(("risk", "breaks"), [*zip(RISKS, PLANNED, strict=True), (0.045, 0)])
def test_the_audit_is_as_small_as_one_point_allows(survivors: int, samples: int, risk: float, breaks: int) -> None:
    size = audit_size(survivors, samples, risk, breaks)
    assert 0 < size <= survivors
    # One more that breaks than a point and those that the audit finds: improbable at this size, not yet at one fewer.
    many = int(POINT * samples + 1e-9) + breaks + 1
    if many <= survivors:
        assert hypergeom.cdf(breaks, survivors, many, size) <= risk
    assert discard_bound(breaks, size, survivors, samples, risk) <= POINT
    if size > breaks + 1:
        assert hypergeom.cdf(breaks, survivors, many, size - 1) > risk
        assert discard_bound(breaks, size - 1, survivors, samples, risk) > POINT


def test_of_few_images_a_smaller_audit_is_enough_than_of_many() -> None:
    sizes = [audit_size(3 * samples // 4, samples, RISKS[0]) for samples in (200, 500, 1000, 2000, 5000, 10**6)]
    assert sizes == sorted(sizes)
    # Of many the draw is as good as independent: Clopper and Pearson's bound for the binomial.
    assert discard_bound(0, sizes[-1], 750_000, 10**6, RISKS[0]) == pytest.approx(
        0.75 * clopper_pearson(0, sizes[-1], 1 - 2 * RISKS[0])[1], rel=0.01
    )


def test_what_is_no_more_than_a_point_needs_no_audit() -> None:
    assert audit_size(0, 1000, 0.045) == 0
    assert audit_size(10, 1000, 0.045) == 0
    assert audit_size(11, 1000, 0.045) > 0
    assert audit_size(11, 1000, 0.045, breaks=40) == 11
    assert discard_bound(0, 0, 10, 1000, 0.045) == pytest.approx(0.01)
    assert discard_bound(0, 0, 0, 1000, 0.045) == 0


@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(("broke", "audited"), [(0, 40), (1, 40), (7, 40), (40, 40), (0, 0), (3, 499)])
def test_the_bound_is_the_largest_number_of_breaks_whose_risk_is_not_below(
    broke: int, audited: int, risk: float
) -> None:
    others = round(1000 * discard_bound(broke, audited, 500, 1000, risk))
    chances = hypergeom.cdf(broke, 500, [broke + others, broke + others + 1], audited)
    assert chances[0] > risk
    assert broke + others == 500 - (audited - broke) or chances[1] <= risk
    # Independent draws say less.
    highest = 1.0 if broke == audited else beta.ppf(1 - risk, broke + 1, audited - broke)
    assert broke + others <= 500 * highest


def test_an_audit_of_all_leaves_no_error() -> None:
    assert discard_bound(0, 50, 50, 100, 0.045) == 0
    assert discard_bound(50, 50, 50, 100, 0.045) == 0
    assert discard_bound(3, 50, 50, 100, 0.045) == 0


@pytest.mark.parametrize(("found", "drawn", "population"), [(3, 2, 5), (0, 6, 5), (-1, 2, 5)])
def test_an_impossible_draw_is_refused(found: int, drawn: int, population: int) -> None:
    with pytest.raises(ValueError, match="drawn"):
        highest_count(found, drawn, population, 0.05)


def test_the_draw_is_a_function_of_seed_and_round_and_keeps_to_the_discarded() -> None:
    discarded = torch.arange(200) % 3 == 0
    rows = drawn_audit(discarded, 20, 0, 1)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(rows) == 20
    assert discarded[rows].all()
    assert torch.equal(rows, drawn_audit(discarded, 20, 0, 1))
    others = [drawn_audit(discarded, 20, seed, number) for seed, number in ((1, 1), (0, 2), (0, 3))]
    assert all(not torch.equal(rows, other) for other in others)
    assert torch.equal(drawn_audit(discarded, 500, 0, 1), discarded.nonzero().squeeze(1))
    assert len(drawn_audit(discarded, 0, 0, 1)) == 0
    # Each is drawn equally often: 20 of 67, in 600 draws 179 times, with a standard deviation of 11.
    counts = torch.zeros(200)
    for seed in range(600):
        counts[drawn_audit(discarded, 20, seed, 1)] += 1
    assert not counts[~discarded].any()
    assert (counts[discarded] - 600 * 20 / 67).abs().max() < 5 * 11.3


size_of, bound_of = lru_cache(10**5)(audit_size), lru_cache(10**5)(discard_bound)


def accepted_error(draws: np.random.Generator, broken: int, survivors: int, samples: int) -> float:
    """By how much a search that ends without the full one is beyond its bound; −1 where the full one runs."""

    for risk, breaks in zip(RISKS, PLANNED, strict=True):
        size = size_of(survivors, samples, risk, breaks)
        broke = int(draws.hypergeometric(broken, survivors - broken, size)) if size else 0
        bound = bound_of(broke, size, survivors, samples, risk)
        broken, survivors = broken - broke, survivors - size  # what was audited is as the full search has it
        if bound <= POINT:
            return broken / samples - bound
        # The wider search breaks half of those that the full one would break.
        found = int(draws.binomial(broken, 0.5))
        broken, survivors = broken - found, survivors - found
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
    ):
        assert Discards.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    assert Discards(30, 5, 1, 2, 0.0123, "", False, phases).passes == 3 * 400 + 12 + 3 * 900
