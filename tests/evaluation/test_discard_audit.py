"""The audit of the survivors: its size and its bound against the binomial distribution, and how often it holds."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import beta, binom

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

CASES = [(300, 1000), (800, 1000), (1000, 1000), (12, 1000), (220, 350), (5000, 10_000), (9_900, 10_000)]


@pytest.mark.parametrize(("survivors", "samples"), CASES)
@pytest.mark.parametrize(("risk", "breaks"), [*zip(RISKS, PLANNED, strict=True), (0.045, 0)])
def test_the_audit_is_as_small_as_one_point_allows(survivors: int, samples: int, risk: float, breaks: int) -> None:
    size = audit_size(survivors, samples, risk, breaks)
    share = POINT * samples / survivors  # of the survivors, which is one point of all
    assert 0 < size <= survivors
    # The probability that at most so many break where that share does: too small at this size, not yet at one fewer.
    if size < survivors:
        assert binom.cdf(breaks, size, share) <= risk * (1 + 1e-9)
        assert discard_bound(breaks, size, survivors, samples, risk) <= POINT * (1 + 1e-9)
    else:
        assert discard_bound(breaks, size, survivors, samples, risk) == 0
    if size > breaks + 1:
        assert binom.cdf(breaks, size - 1, share) > risk
        assert discard_bound(breaks, size - 1, survivors, samples, risk) > POINT


def test_what_is_no_more_than_a_point_needs_no_audit() -> None:
    assert audit_size(0, 1000, 0.045) == 0
    assert audit_size(10, 1000, 0.045) == 0
    assert audit_size(11, 1000, 0.045) > 0
    assert audit_size(11, 1000, 0.045, breaks=40) == 11
    assert discard_bound(0, 0, 10, 1000, 0.045) == pytest.approx(0.01)
    assert discard_bound(0, 0, 0, 1000, 0.045) == 0


@pytest.mark.parametrize("risk", RISKS)
@pytest.mark.parametrize(("broke", "audited"), [(0, 40), (1, 40), (7, 40), (40, 40)])
def test_the_bound_is_where_so_few_breaks_have_just_that_risk(broke: int, audited: int, risk: float) -> None:
    bound = discard_bound(broke, audited, 500, 1000, risk)
    highest = bound * 1000 / 500
    assert highest == pytest.approx(1.0 if broke == audited else beta.ppf(1 - risk, broke + 1, audited - broke))
    if broke < audited:
        assert binom.cdf(broke, audited, highest) == pytest.approx(risk, rel=1e-6)


def test_an_audit_of_all_leaves_no_error() -> None:
    assert discard_bound(0, 50, 50, 100, 0.045) == 0
    assert discard_bound(50, 50, 50, 100, 0.045) == 0


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


def accepted_error(draws: np.random.Generator, broken: int, survivors: int, samples: int) -> float:
    """By how much a search that ends without the full one is beyond its bound; −1 where the full one runs."""

    for risk, breaks in zip(RISKS, PLANNED, strict=True):
        size = audit_size(survivors, samples, risk, breaks)
        broke = int(draws.hypergeometric(broken, survivors - broken, size)) if size else 0
        bound = discard_bound(broke, size, survivors, samples, risk)
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
        Discards(0, 0, 0, 0, 0.0, "fewer than 400 images", True, phases),
    ):
        assert Discards.from_dict(json.loads(json.dumps(told.to_dict()))) == told
    assert Discards(30, 5, 1, 2, 0.0123, "", False, phases).passes == 3 * 400 + 12 + 3 * 900
