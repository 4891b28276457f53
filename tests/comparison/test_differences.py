"""Which differences are decided: methods over seeds, models over images, and when neither can be told."""

from __future__ import annotations

from dataclasses import replace
from math import atan, pi, sqrt, tan
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from asgt.cli.console import Console
from asgt.comparison.comparing import Comparison, compare
from asgt.comparison.differences import (
    DifferenceTable,
    basis,
    differences,
    differences_at,
    interval_points,
    shown_differences,
)
from asgt.comparison.method_naming import Method
from asgt.comparison.summary import summarise
from asgt.errors import InputError
from asgt.numbers import points
from asgt.statistics import PairedDifference
from support.comparisons import hand_made, side_by_side
from support.paths import RUNS

EPS = 0.1
GRID = {"pgd": (EPS,)}


def method(name: str, counts: dict[int, int], *, samples: int = 100, clean: int = 90) -> Method:
    """A method whose run of each seed gets so many samples right under attack: the first ones."""

    right = {seed: {"pgd-40x5": {EPS: count}} for seed, count in counts.items()}
    runs = [
        hand_made(seed=seed, samples=samples, clean=clean, method="at", right=right[seed]) for seed in sorted(counts)
    ]
    return Method(name, tuple(runs))


def model(name: str, right: str, *, seed: int = 0) -> Method:
    """A method of one run, with its outcomes under attack and, the same, clean: ``"110"`` are two of three right."""

    outcomes = torch.tensor([mark == "1" for mark in right])
    run = hand_made(seed=seed, samples=len(right), method="at", right={"pgd-40x5": {EPS: 0}})
    found = replace(run.evaluations["pgd"], clean=outcomes, outcomes={"pgd-40x5": outcomes[None]})
    return Method(name, (replace(run, evaluations={"pgd": found}),))


def found(*methods: Method) -> tuple[PairedDifference, ...]:
    """The differences of some methods under attack."""

    comparison = side_by_side(*methods, epsilons=GRID)
    return differences_at(comparison, comparison.columns[-1], EPS).differences


def sentence(difference: PairedDifference) -> str:
    """A difference under attack in words."""

    return DifferenceTable(side_by_side(epsilons=GRID).columns[-1], EPS, ()).sentence(difference)


# --- methods -----------------------------------------------------------------------------------------------------


def test_methods_are_paired_by_the_seeds_that_both_have() -> None:
    one = method("A", {0: 50, 1: 62, 2: 71, 7: 0})
    other = method("B", {0: 40, 1: 50, 2: 57, 5: 99})
    (difference,) = found(one, other)

    # 10, 12 and 14 points: the mean is 12, the standard error 2/√3, and t of two degrees of freedom at 97.5 % 4.3027.
    half = 4.30265273 * 0.02 / sqrt(3)
    oracle = scipy.stats.ttest_rel([0.50, 0.62, 0.71], [0.40, 0.50, 0.57])
    assert (difference.first, difference.second, difference.kind) == ("A", "B", "methods")
    assert (difference.seeds, difference.n, difference.claims) == ((0, 1, 2), 100, 1)
    assert (difference.low, difference.value, difference.high) == pytest.approx((0.12 - half, 0.12, 0.12 + half))
    assert difference.p == difference.adjusted == pytest.approx(oracle.pvalue)
    assert difference.decision == "more"
    assert sentence(difference) == (
        "A is more robust than B: +12.0 points [7.0, 17.0], p = 0.009 (Holm over 1 pair), 3 seeds paired"
    )

    # Not paired, the seeds' own ups and downs would hide it.
    assert scipy.stats.ttest_ind([0.50, 0.62, 0.71], [0.40, 0.50, 0.57]).pvalue > 0.2


def test_the_other_way_round_the_verdict_is_the_other() -> None:
    (difference,) = found(method("B", {0: 40, 1: 50, 2: 57}), method("A", {0: 50, 1: 62, 2: 71}))
    assert difference.decision == "less"
    assert points(difference.value) == "−12.0"
    assert interval_points(difference) == "[−17.0, −7.0]"
    # A sentence begins with the one that has more.
    assert sentence(difference).startswith("A is more robust than B: +12.0 points [7.0, 17.0]")
    assert difference.turned().decision == "more"
    assert difference.turned().turned() == difference


def test_holm_goes_over_all_pairs_that_stand_side_by_side() -> None:
    three = (
        method("A", {0: 80, 1: 82, 2: 87}),
        method("B", {0: 40, 1: 41, 2: 45}),
        method("C", {0: 30, 1: 33, 2: 34}),
    )
    many = found(*three)
    assert [(one.first, one.second) for one in many] == [("A", "B"), ("A", "C"), ("B", "C")]
    # 40, 41, 42; 50, 49, 53; 10, 8, 11 points.
    raw = [scipy.stats.ttest_1samp(values, 0).pvalue for values in ((40, 41, 42), (50, 49, 53), (10, 8, 11))]
    assert raw == sorted(raw)
    assert [one.p for one in many] == pytest.approx(raw)
    assert [one.adjusted for one in many] == pytest.approx([3 * raw[0], 2 * raw[1], raw[2]])
    assert [one.claims for one in many] == [3, 3, 3]


def test_what_one_claim_decides_many_may_not() -> None:
    one, other = method("A", {0: 50, 1: 62, 2: 71}), method("B", {0: 40, 1: 50, 2: 57})
    # p = 0.009 of a single claim; these make fifteen of six methods, and 15 · 0.009 > 0.05.
    others = [method(f"X{number}", {0: 10, 1: 90 - number, 2: 50}) for number in range(4)]
    difference = found(one, other, *others)[0]
    assert difference.p == pytest.approx(found(one, other)[0].p)
    assert (difference.claims, difference.adjusted) == (15, pytest.approx(15 * difference.p))
    assert difference.low > 0
    assert difference.decision == "not decided"
    assert sentence(difference).startswith(
        "A minus B is not decided: +12.0 points [7.0, 17.0], p = 0.137 (Holm over 15"
    )


@pytest.mark.parametrize(
    ("low", "high", "adjusted", "verdict"),
    [
        (0.01, 0.2, 0.049, "more"),
        (-0.2, -0.01, 0.049, "less"),
        (0.01, 0.2, 0.05, "not decided"),
        (0.0, 0.2, 0.001, "not decided"),
        (-0.2, 0.0, 0.001, "not decided"),
    ],
)
def test_a_verdict_takes_the_adjusted_p_and_the_interval(
    low: float, high: float, adjusted: float, verdict: str
) -> None:
    (difference,) = found(method("A", {0: 50, 1: 62}), method("B", {0: 40, 1: 50}))
    asked = replace(difference, value=(low + high) / 2, low=low, high=high, adjusted=adjusted)
    assert asked.decision == verdict


def test_seeds_that_differ_by_the_same_number_of_images_show_no_spread_and_prove_little() -> None:
    # Two seeds, each 2 images apart: the spread is that of rounding to whole images, 1/√12 of one; t is Cauchy's.
    error = 0.01 / sqrt(12) / sqrt(2)
    (two,) = found(method("A", {0: 52, 1: 62}), method("B", {0: 50, 1: 60}))
    assert two.p == pytest.approx(1 - 2 * atan(0.02 / error) / pi)
    assert (two.low, two.high) == pytest.approx((0.02 - tan(0.475 * pi) * error, 0.02 + tan(0.475 * pi) * error))
    assert two.decision == "not decided"

    # Forty images apart, three times over, is no accident of counting.
    (forty,) = found(method("A", {0: 90, 1: 80, 2: 70}), method("B", {0: 50, 1: 40, 2: 30}))
    assert forty.decision == "more"

    (none,) = found(method("A", {0: 50, 1: 60, 2: 70}), method("B", {0: 50, 1: 60, 2: 70}))
    assert (none.value, none.p, none.decision) == (0.0, 1.0, "not decided")
    assert none.low < 0 < none.high
    assert points(none.value) == "0.0"


@pytest.mark.slow
@pytest.mark.parametrize("sd", [1.0, 3.0])
def test_equal_methods_are_rarely_told_apart(sd: float) -> None:
    # Six methods of the same distribution, three seeds, accuracies that are whole images: a false claim among the
    # fifteen may stand in 5 % of such tables. Of 200, more than 21 would do so once in 1,000 times.
    draws = np.random.default_rng(0)
    wrong = 0
    for _ in range(200):
        counts = np.rint(draws.normal(50, sd, size=(6, 3))).astype(int)
        many = found(*(method(str(row), dict(enumerate(map(int, own)))) for row, own in enumerate(counts)))
        wrong += any(one.decision != "not decided" for one in many)
    assert wrong <= scipy.stats.binom.ppf(0.999, 200, 0.05)


def test_an_interval_goes_no_further_than_accuracies_can() -> None:
    (difference,) = found(method("A", {0: 90, 1: 100}), method("B", {0: 10, 1: 0}))
    assert (difference.value, difference.high) == (0.9, 1.0)
    assert -1 < difference.low < 0
    (difference,) = found(method("B", {0: 10, 1: 0}), method("A", {0: 90, 1: 100}))
    assert (difference.value, difference.low) == (-0.9, -1.0)


# --- models ------------------------------------------------------------------------------------------------------


def test_runs_of_one_seed_are_two_models_judged_on_the_same_images() -> None:
    # Only the first is right on 16, only the second on 4; both on 10, neither on 20.
    one, other = "1" * 10 + "1" * 16 + "0" * 4 + "0" * 20, "1" * 10 + "0" * 16 + "1" * 4 + "0" * 20
    (difference,) = found(model("A", one), model("B", other))
    assert (difference.kind, difference.seeds, difference.n) == ("models", (0,), 50)
    assert difference.value == pytest.approx((16 - 4) / 50)
    assert difference.p == pytest.approx(scipy.stats.binomtest(4, 20).pvalue)

    # The normal approximation of the same interval, and a sample's rounding.
    half = 1.96 * sqrt((0.32 + 0.08 - 0.24**2) / 50)
    assert (difference.low, difference.high) == pytest.approx((0.24 - half, 0.24 + half), abs=0.021)
    assert difference.decision == "more"
    assert sentence(difference) == (
        f"the model of A is more robust than that of B: +24.0 points {interval_points(difference)}, p = 0.012 "
        "(Holm over 1 pair), seed 0"
    )

    # As many right in all, but the same images: nothing is known of a difference.
    (same,) = found(model("A", one), model("B", one))
    assert (same.p, same.low, same.high, same.decision) == (1.0, 0.0, 0.0, "not decided")


def test_lone_runs_of_two_seeds_are_models_too() -> None:
    (difference,) = found(model("A", "1" * 30 + "0" * 10, seed=3), model("B", "0" * 40, seed=1))
    assert (difference.kind, difference.seeds, difference.decision) == ("models", (1, 3), "more")
    assert "seeds 1 and 3" in sentence(difference)


def test_several_runs_without_a_common_seed_are_not_paired() -> None:
    one, other, third = method("A", {0: 90, 1: 90}), method("B", {2: 10, 3: 10}), method("C", {4: 10})
    assert found(one, other, third) == ()
    assert shown_differences(side_by_side(one, other, third, epsilons=GRID)) == ()


def test_models_and_methods_are_corrected_apart() -> None:
    one, other, lone = method("A", {0: 50, 1: 62}), method("B", {0: 40, 1: 51}), method("C", {0: 45})
    many = found(one, other, lone)
    assert [(one.kind, one.claims) for one in many] == [("methods", 1), ("models", 2), ("models", 2)]
    # The first images are right: only 50 − 45 and 45 − 40 of them tell the models apart.
    p = 2 / 2**5
    assert [one.p for one in many[1:]] == pytest.approx([p, p])
    assert [one.adjusted for one in many] == pytest.approx([many[0].p, 2 * p, 2 * p])
    assert basis(many) == [
        "Methods, paired by seed (2 seeds): the runs' mean difference, t interval, Holm's correction over 1 claim",
        "Two models (one seed), paired on the same images: bootstrap interval, McNemar's exact p, Holm's correction "
        "over 2 claims; this does not compare the methods",
    ]


# --- what is shown -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six() -> Comparison:
    """Two seeds of three methods, by both protocols."""

    return compare(sorted(RUNS.iterdir()))


def test_the_judge_stands_first_and_the_clean_images_last(six: Comparison) -> None:
    attacked, clean = shown_differences(six)
    assert (attacked.column, attacked.eps) == (six.columns[-1], 0.1)
    assert (clean.column, clean.eps) == (None, 0.0)
    assert attacked.where == "under PGD-40 × 5, α = 2.5ε/40 (protocol pgd v3) at ε = 0.1"
    assert clean.where == "on the clean images"

    outcomes = [torch.stack([run.evaluations["pgd"].clean for run in method.runs]) for method in six.methods]
    means = [float(each.double().mean()) for each in outcomes]
    assert [one.value for one in clean.differences] == pytest.approx(
        [means[0] - means[1], means[0] - means[2], means[1] - means[2]]
    )
    decided = replace(clean.differences[0], low=0.01, high=0.03, adjusted=0.01)
    assert "ST has a higher clean accuracy than AT-FGSM: " in clean.sentence(decided)


def test_judged_by_every_worst_case_or_else_by_the_last_column(six: Comparison) -> None:
    paper, pgd = six.columns[:-1], six.columns[-1]
    assert six.judges() == (pgd,)
    assert replace(six, columns=(pgd, *paper)).judges() == (pgd,)
    assert replace(six, columns=(pgd, replace(pgd, attack="other"), *paper)).judges()[-1].attack == "other"
    assert replace(six, columns=paper).judges() == (paper[-1],)
    assert six.judging_eps() == 0.1

    # Where the training ε was not evaluated, a middle one of the table's.
    elsewhere = dict.fromkeys(six.epsilons, (0.05, 0.2))
    assert replace(six, epsilons=elsewhere).table_epsilons() == (0.05, 0.2)
    assert replace(six, epsilons=elsewhere).judging_eps() == 0.2


def test_an_eps_that_was_not_evaluated_has_no_differences(six: Comparison) -> None:
    with pytest.raises(InputError, match=r"0\.15 was not evaluated"):
        differences_at(six, six.columns[-1], 0.15)


def test_one_method_differs_from_none(six: Comparison) -> None:
    assert shown_differences(replace(six, methods=six.methods[:1])) == ()


@pytest.mark.slow
def test_the_terminal_says_what_is_decided_and_counts_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = compare([RUNS / name for name in ("st-0", "at-fgsm-0", "asgt-pgd-0")])
    Console().compared(summarise(comparison), Path("page"))
    said = capsys.readouterr().out
    attacked, clean = shown_differences(comparison)
    decided = [table.sentence(one) for table in (attacked, clean) for one in table.decided]
    assert [line.strip() for line in said.splitlines() if " is more robust than " in line] == decided
    assert len(decided) == 2
    half = [
        50 * (one.high - one.low)
        for one in (*attacked.differences, *clean.differences)
        if one.decision == "not decided"
    ]
    assert f"not decided: 1 of 3 {attacked.where} (their intervals: ±{half[0]:.1f} points); 3 of 3 on the" in said
    assert f"(their intervals: ±{min(half[1:]):.1f} to ±{max(half[1:]):.1f} points)" in said

    Console().compared(summarise(compare([RUNS / "st-0", RUNS / "st-1"])), Path("page"))
    said = capsys.readouterr().out
    assert "ST" in said
    assert "decided" not in said, "one method has none to differ from"


def test_the_terminal_tells_a_dozen_and_counts_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    # Six models, each right on thirty more images than the one before: fifteen pairs under attack, none clean.
    methods = [method(f"M{number}", {0: 190 - 30 * number}, samples=200) for number in range(6)]
    Console().compared(summarise(side_by_side(*methods, epsilons=GRID)), Path("page"))
    said = capsys.readouterr().out
    assert said.count(" is more robust than ") == 12
    assert "and 3 more on the page" in said
    assert "none is decided" in said
    assert "not decided: 15 of 15 on the clean images (their intervals: ±0.0 to ±0.0 points)" in said


def test_the_public_function_takes_the_strictest_protocol_and_shows_a_row_for_each_pair() -> None:
    comparison = side_by_side(method("at", {0: 80, 1: 82, 2: 81}), method("st", {0: 20, 1: 21, 2: 22}), epsilons=GRID)
    table = differences(comparison)
    assert table == differences_at(comparison, comparison.columns[-1], EPS) == differences(comparison, "0.1")
    pair = table.differences[0]
    row = ["at − st", f"{points(pair.value, '+')} {interval_points(pair)}", pair.p_text, "more"]
    assert table.table().rows == [row]
    assert all(fact in str(table) for fact in ("ε = 0.1", "pgd v3", "n = 100", "3 seeds"))
    assert "clean images" in str(differences(comparison, eps=0))
    with pytest.raises(InputError, match=r"0\.3"):
        differences(comparison, eps=0.3)


def test_a_single_method_has_no_pair_and_says_so() -> None:
    assert "no two methods" in str(differences(side_by_side(method("at", {0: 80}), epsilons=GRID)))
