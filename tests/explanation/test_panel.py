"""Several models' maps side by side: which images count, what is averaged, and what is decided."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from asgt.errors import InputError
from asgt.explanation import MEASURES, MINIMUM, QUANTILES, Explanation, Panel, measure_named, measure_sentence, panel
from asgt.statistics import (
    ALPHA,
    PairedDifference,
    bootstrap_means,
    decision,
    holm_by_kind,
    paired_bootstrap,
    paired_by_seed,
)
from support.explanations import D, N, Q, explanation
from support.messages import assert_states


def said(difference: PairedDifference, measure: str = "mass") -> str:
    return measure_sentence(measure_named(measure), difference)


def without(found: Explanation, *names: str) -> Explanation:
    return replace(found, values={name: value for name, value in found.values.items() if name not in names})


# --- which images ------------------------------------------------------------------------------------------------


def test_only_images_that_every_model_gets_right_count() -> None:
    ramp = torch.arange(N, dtype=torch.float64)
    found = panel({"A": [explanation(3, mass=ramp)], "B": [explanation(7, mass=2 * ramp)]})
    assert found.not_run == ""
    assert found.ids.tolist() == list(range(1007, 1000 + N))
    assert (found.n, found.asked) == (N - 7, N)
    # The mean of 7 … 119, under A as well, which gets 3 … 6 right too.
    score = found.value("A", "mass")
    assert (score.values, score.value, score.n, score.interval) == ((63.0,), 63.0, N - 7, "bootstrap")
    assert found.value("B", "mass").value == 126.0
    assert score.sd is None
    assert found.area == 0.25


def test_an_image_without_a_value_under_one_model_counts_under_none() -> None:
    ramp = torch.arange(N, dtype=torch.float64)
    holes = ramp.clone()
    holes[:10] = torch.nan
    found = panel({"A": [explanation(mass=ramp)], "B": [explanation(mass=holes)]})
    assert found.value("A", "mass").value == fmean(range(10, N))
    assert found.value("A", "mass").n == N - 10
    assert found.value("A", "sparseness").n == N

    holes[:30] = torch.nan
    found = panel({"A": [explanation(mass=ramp)], "B": [explanation(mass=holes)]})
    score = found.value("A", "mass")
    assert math.isnan(score.value)
    assert score.values == ()
    assert (
        score.not_run == "only 90 images have a value under all models, but 100 are needed; B (seed 0) lacks 30 of 120"
    )
    assert found.differences("mass") == ()
    assert found.value("A", "sparseness").not_run == ""


def test_a_map_that_is_not_finite_takes_its_image_out() -> None:
    finite = torch.ones(N, dtype=torch.bool)
    finite[5] = False
    assert 1005 not in panel({"A": [explanation()], "B": [explanation(finite=finite)]}).ids.tolist()


def test_the_unflipped_are_unflipped_under_every_models_own_attack() -> None:
    one, other = torch.zeros(2, N, dtype=torch.bool), torch.zeros(2, N, dtype=torch.bool)
    one[1, :4], other[0, 2:10], other[1, 2:100] = True, True, True
    ramp = torch.arange(N, dtype=torch.float64).expand(2, N)
    found = panel({"A": [explanation(flipped=one, rank=ramp)], "B": [explanation(flipped=other)]})
    assert found.unflipped == (N - 8, N - 100)
    assert found.value("A", "rank@quarter").value == fmean(range(N))
    assert found.value("A", "rank@quarter:unflipped").value == fmean([0, 1, *range(10, N)])
    words = "only 20 images are unflipped under all models, but 100 are needed; B (seed 0) lacks 98 of 120"
    assert found.value("A", "rank@full:unflipped").not_run == words
    assert found.value("A", "rank@full").not_run == ""


def test_under_a_hundred_images_nothing_is_run() -> None:
    assert panel({"A": [explanation(20)]}).not_run == ""
    found = panel({"A": [explanation()], "B": [explanation(), explanation(21)]})
    assert found.not_run == (
        f"only 99 of 120 images are classified correctly by all of 3 models, but {MINIMUM} are needed; "
        "B (seed 1) classifies 99 correctly"
    )
    assert found.n == 99
    for measure in MEASURES:
        assert found.value("A", measure.name).not_run == found.not_run
        assert found.differences(measure.name) == ()
    assert found.not_run in str(found.differences_table())
    assert found.uninformative("A") is None
    assert found.curves == ()


def test_images_of_one_class_say_nothing() -> None:
    one = replace(explanation(), labels=torch.ones(N, dtype=torch.int64), predictions=torch.ones(N, dtype=torch.int64))
    assert "one class" in panel({"A": [one]}).not_run


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attribution": "ig"}, "another attribution"),
        ({"data": "others"}, "other images"),
        ({"ids": torch.arange(N)}, "other image ids"),
        ({"ids": torch.arange(N - 1)}, "other image ids"),
        ({"eps": 0.2}, "another ε"),
        ({"norm": "l2"}, "another norm"),
        ({"seed": 1}, "another seed of the draws"),
        ({"settings": {"mean": [0.2], "objects": "strokes"}}, "other settings (mean)"),
        ({"settings": {"mean": [0.1]}}, "other settings (objects)"),
    ],
)
def test_explanations_that_were_made_otherwise_are_not_mixed(change: dict[str, Any], words: str) -> None:
    found = panel({"A": [explanation()], "B": [replace(explanation(), **change)]})
    assert (
        found.not_run == f"B (seed 0) was explained with {words} than A (seed 0): explain both with the same settings"
    )
    assert found.value("B", "road").not_run == found.not_run


def test_the_last_digits_of_a_sum_do_not_keep_two_processors_explanations_apart() -> None:
    there = replace(explanation(), settings={"mean": [0.1 + 1e-16], "objects": "strokes"})
    assert there.settings != explanation().settings
    assert panel({"A": [explanation()], "B": [there]}).not_run == ""


def test_a_measure_that_was_not_run_is_not_run_here() -> None:
    lacking = [without(explanation(seed=seed), "mass", "area") for seed in (0, 1)]
    found = panel({"A": lacking[:1], "B": lacking[1:]})
    assert found.value("A", "mass").not_run == "A (seed 0) was explained without it"
    assert math.isnan(found.area)
    assert found.value("A", "sparseness").not_run == ""


# --- what is measured --------------------------------------------------------------------------------------------


def test_gaps_and_road_by_hand() -> None:
    top = torch.zeros(Q, N, dtype=torch.bool)
    top[0] = True  # at 10 % nothing is lost
    random = torch.ones(D, Q, N, dtype=torch.bool)
    random[0, :, : N // 2] = False  # one order of five fails on half of the images
    least = torch.ones(Q, N, dtype=torch.bool)
    least[-1] = False
    found = panel(
        {"A": [explanation(**{"mean/top": top, "mean/random": random, "linear/least": least, "linear/top": top})]}
    )
    # (9/10 − 1) at 10 % and 9/10 at the eight others.
    assert found.value("A", "gap-mean").value == pytest.approx((-0.1 + 8 * 0.9) / 9)
    assert found.value("A", "gap-noise").value == pytest.approx(1.0)
    # 0 at both ends, a half at the seven between.
    assert found.value("A", "road").value == pytest.approx(7 / 18)

    (curve,) = [one for one in found.curves if (one.fill, one.order) == ("mean", "random")]
    assert curve.shares == QUANTILES
    assert [point.value for point in curve.accuracy] == pytest.approx([0.9] * Q)
    assert all(point.low < 0.9 < point.high for point in curve.accuracy)
    (curve,) = [one for one in found.curves if (one.fill, one.order) == ("linear", "top")]
    points = [(point.value, point.low, point.high) for point in curve.accuracy]
    assert points == [(1.0, 1.0, 1.0), *[(0.0, 0.0, 0.0)] * 8]
    assert len(found.curves) == 6


@pytest.mark.slow
def test_the_gate_is_the_median_over_images_draws_and_seeds() -> None:
    low, high = explanation(), replace(explanation(), gate=torch.full((3, N), 0.9, dtype=torch.float64))
    mixed = torch.full((3, N), 0.2, dtype=torch.float64)
    mixed[0], mixed[1, :10] = 0.7, torch.nan
    not_run = replace(explanation(), gate=torch.empty(0, N, dtype=torch.float64))
    found = panel(
        {"A": [low], "B": [high], "C": [replace(explanation(), gate=mixed)], "D": [low, high, high], "E": [not_run]}
    )
    assert [found.gate(method) for method in "ABCD"] == [0.1, 0.9, 0.2, 0.9]
    assert [found.uninformative(method) for method in "ABCDE"] == [False, True, False, True, None]
    assert [found.between(method) for method in "ABCD"] == [0.3] * 4
    assert math.isnan(found.between("E"))
    # A half is not above a half.
    assert (
        panel({"A": [replace(explanation(), gate=torch.full((3, N), 0.5, dtype=torch.float64))]}).uninformative("A")
        is False
    )


# --- what is decided ---------------------------------------------------------------------------------------------


def test_one_seed_compares_models_image_by_image() -> None:
    noise = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    base = explanation().values["mass"]
    found = panel(
        {
            "A": [explanation(mass=base + 0.1 + 0.05 * noise)],
            "B": [explanation(mass=base)],
            "C": [explanation(mass=base + 0.0)],
        }
    )
    ab, ac, bc = found.differences("mass")
    assert [(one.first, one.second, one.kind, one.seeds) for one in (ab, ac, bc)] == [
        ("A", "B", "models", (0,)),
        ("A", "C", "models", (0,)),
        ("B", "C", "models", (0,)),
    ]
    each = (0.1 + 0.05 * noise).numpy()
    assert ab.value == pytest.approx(each.mean())
    assert ab.p == pytest.approx(scipy.stats.ttest_1samp(each, 0).pvalue)
    # The interval of a mean: two standard errors and a bit either way, and far narrower than the spread of the images.
    half = 1.96 * each.std() / math.sqrt(N)
    assert (ab.value - ab.low, ab.high - ab.value) == pytest.approx((half, half), rel=0.1)
    assert (ab.decision, ac.decision, bc.decision) == ("more", "more", "not decided")
    assert (bc.value, bc.low, bc.high, bc.p) == (0.0, 0.0, 0.0, 1.0)
    # The least p is multiplied by all three claims.
    assert ab.adjusted == pytest.approx(min(1.0, 3 * ab.p))
    assert (ab.claims, ab.n) == (3, N)
    assert ab.turned().decision == "less"
    assert said(ab).startswith("mass on the object: the model of A has a higher value than that of B: +0.")
    assert said(ab.turned()) == said(ab)
    assert "is not decided: +0.000 [+0.000, +0.000], p = 1.000 (Holm over 3 pairs), 120 images paired" in said(bc)

    table = found.differences_table("mass")
    assert [(row[1], row[-1]) for row in table.rows] == [("A − B", "more"), ("A − C", "more"), ("B − C", "not decided")]
    assert table.rows[-1][:4] == ["mass on the object", "B − C", "+0.000 [+0.000, +0.000]", "p = 1.000"]
    assert "does not compare the methods" in str(table)
    assert [row for row in found.differences_table().rows if row[0] == "mass on the object"] == table.rows
    assert (
        "not for the number of measures" in str(found.differences_table()),
        "not for the number of measures" in str(table),
    ) == (
        True,
        False,
    )


def test_several_seeds_compare_methods_run_by_run() -> None:
    a, b = (0.5, 0.55, 0.62), (0.4, 0.43, 0.48)
    runs = {"A": [explanation(mass=value) for value in a], "B": [explanation(mass=value) for value in b]}
    found = panel(runs)
    score = found.value("A", "mass")
    assert score.values == pytest.approx(a)
    assert (score.value, score.sd, score.interval) == (pytest.approx(fmean(a)), pytest.approx(stdev(a)), "t")
    expected = scipy.stats.t.interval(0.95, 2, fmean(a), scipy.stats.sem(a))
    assert (score.low, score.high) == pytest.approx(expected)

    (difference,) = found.differences("mass")
    oracle = scipy.stats.ttest_rel(a, b)
    assert (difference.kind, difference.seeds, difference.claims) == ("methods", (0, 1, 2), 1)
    assert difference.value == pytest.approx(fmean(a) - fmean(b))
    assert (difference.low, difference.high) == pytest.approx(tuple(oracle.confidence_interval()))
    assert difference.p == difference.adjusted == pytest.approx(oracle.pvalue)
    assert difference.decision == "more"
    assert "A has a higher value than B" in said(difference)
    assert said(difference).endswith("3 seeds paired")


def test_runs_are_paired_by_their_own_seeds() -> None:
    one = [explanation(mass=value) for value in (0.1, 0.5, 0.9)]
    other = [explanation(mass=value) for value in (0.4, 0.7)]
    found = panel({"A": one, "B": other}, seeds={"A": (0, 3, 5), "B": (3, 5)})
    (difference,) = found.differences("mass")
    # 0.5 − 0.4 and 0.9 − 0.7, not 0.1 − 0.4.
    assert (difference.seeds, difference.value) == ((3, 5), pytest.approx(0.15))
    assert found.seeds == {"A": (0, 3, 5), "B": (3, 5)}

    found = panel({"A": one, "B": other}, seeds={"A": (0, 3, 5), "B": (5, 6)})
    (difference,) = found.differences("mass")
    assert (difference.kind, difference.seeds, difference.value) == ("models", (5,), pytest.approx(0.5))
    assert panel({"A": one, "B": other}, seeds={"A": (0, 1, 2), "B": (3, 4)}).differences("mass") == ()


def test_runs_that_differ_by_the_same_count_are_no_certainty() -> None:
    # One more of 120 images is right at one q of nine, in each of two seeds: a coincidence, not a p of 0.
    more = torch.zeros(Q, N, dtype=torch.bool)
    more[0, 0] = True
    found = panel({"A": [explanation(), explanation()], "B": [explanation(**{"linear/top": more})] * 2})
    (difference,) = found.differences("road")
    assert difference.value == pytest.approx(1 / (2 * Q * N))
    assert difference.p > ALPHA
    assert difference.decision == "not decided"


def test_methods_and_models_are_claims_of_their_own() -> None:
    named = {
        "A": [explanation(seed=0), explanation(seed=1)],
        "B": [explanation(seed=2), explanation(seed=3)],
        "C": [explanation(seed=4)],
    }
    found = panel(named)
    assert [(one.kind, one.claims) for one in found.differences("mass")] == [
        ("methods", 1),
        ("models", 2),
        ("models", 2),
    ]


@pytest.mark.slow
def test_equal_models_are_rarely_told_apart() -> None:
    decided = 0
    for number in range(10):
        found = panel({"A": [explanation(seed=2 * number)], "B": [explanation(seed=2 * number + 1)]})
        for measure in ("sparseness", "sensitivity", "alignment", "mass"):
            decided += found.differences(measure)[0].decision != "not decided"
    # Two of forty are expected; seven or more come by chance once in 300.
    assert decided < 7


# --- asking --------------------------------------------------------------------------------------------------------


def test_unknown_names_get_the_nearest() -> None:
    found = panel({"ASGT-PGD": [explanation()]})
    with pytest.raises(InputError) as refused:
        found.value("ASGT-PDG", "mass")
    assert_states(refused.value, "method", "ASGT-PDG", "'ASGT-PGD'")
    with pytest.raises(InputError) as refused:
        found.value("ASGT-PGD", "mas")
    assert_states(refused.value, "measure", "mas", "'mass'")
    with pytest.raises(InputError) as refused:
        found.uninformative("B")
    assert_states(refused.value, "method", "B")
    with pytest.raises(InputError) as refused:
        found.differences("B")
    assert_states(refused.value, "measure", "B")


@pytest.mark.parametrize(
    ("named", "seeds", "facts"),
    [
        ({}, None, ["no method", "at least one"]),
        ({"A": []}, None, ["A", "no explanation"]),
        ({"A": [explanation()]}, {"A": (0, 1)}, ["A", "1 explanation", "seeds", "[0, 1]"]),
        ({"A": [explanation()]}, {}, ["A", "1 explanation", "seeds", "[]"]),
        ({"A": [explanation(), explanation()]}, {"A": (1, 0)}, ["A", "[1, 0]", "ascending"]),
        ({"A": [explanation(), explanation()]}, {"A": (1, 1)}, ["A", "[1, 1]", "ascending"]),
    ],
)
def test_what_is_no_panel_is_refused(named: dict[str, list[Explanation]], seeds: Any, facts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        panel(named, seeds=seeds)
    assert_states(refused.value, *facts)


def test_every_measure_of_a_full_panel_has_a_value() -> None:
    found: Panel = panel({"A": [explanation(seed=1)], "B": [explanation(seed=2)]})
    for measure in found.measures:
        score = found.value("B", measure.name)
        assert score.low <= score.value <= score.high, measure.name
        assert len(found.differences(measure.name)) == 1


# --- the statistics under it ----------------------------------------------------------------------------------------


def test_the_bootstrap_of_means_is_that_of_theory_and_of_pairs() -> None:
    draws = np.random.default_rng(0)
    values = np.stack([draws.normal(3.0, 2.0, 400), draws.exponential(1.0, 400)])
    for (low, high), row in zip(bootstrap_means(values.tolist()), values, strict=True):
        oracle = scipy.stats.bootstrap(
            (row,), np.mean, method="percentile", n_resamples=9999, rng=1
        ).confidence_interval
        assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.03 * row.std())

    one, other = draws.random(300) < 0.7, draws.random(300) < 0.6
    ((low, high),) = bootstrap_means([(one.astype(float) - other).tolist()])
    # Counts move by one of 300 images, and 10,000 draws by less.
    assert (low, high) == pytest.approx(paired_bootstrap(one.tolist(), other.tolist()), abs=2.1 / 300)
    assert bootstrap_means([[0.5] * 7]) == [(0.5, 0.5)]
    assert bootstrap_means(values.tolist(), seed=1) == bootstrap_means(torch.tensor(values), seed=1)


def test_many_samples_are_drawn_in_parts() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    ((low, high),) = bootstrap_means([values.tolist()], draws=3000)
    half = 1.96 * values.std() / math.sqrt(3000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


@pytest.mark.parametrize("values", [[[]], [1.0], [[1.0, math.nan]], [[math.inf]]])
def test_what_has_no_mean_has_no_interval(values: Any) -> None:
    with pytest.raises(ValueError, match="have no means"):
        bootstrap_means(values)


def test_claims_of_two_kinds_are_corrected_apart() -> None:
    found = holm_by_kind([("models", 0.01), ("methods", 0.02), ("models", 0.04)])
    assert found == [(pytest.approx(0.02), 2), (pytest.approx(0.02), 1), (pytest.approx(0.04), 2)]
    assert holm_by_kind([]) == []


def test_a_verdict_takes_both_the_interval_and_the_p() -> None:
    assert decision(0.1, 0.3, 0.04) == "more"
    assert decision(-0.3, -0.1, 0.04) == "less"
    assert decision(0.1, 0.3, 0.05) == decision(-0.1, 0.3, 0.01) == decision(0.0, 0.3, 0.01) == "not decided"


def test_runs_meet_by_seed_or_as_the_only_ones() -> None:
    assert paired_by_seed({0: "a", 2: "b"}, {2: "c", 0: "d"}) == ("methods", [("a", "d"), ("b", "c")])
    assert paired_by_seed({0: "a", 2: "b"}, {2: "c", 5: "d"}) == ("models", [("b", "c")])
    assert paired_by_seed({0: "a"}, {5: "d"}) == ("models", [("a", "d")])
    assert paired_by_seed({0: "a", 1: "b"}, {5: "d"}) == ("models", [])
