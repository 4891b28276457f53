"""The paper's claims and what runs say of them: verdicts on made-up results whose answers are known by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path

import pytest
import torch

from asgt.comparison.comparing import Comparison, compare_runs
from asgt.errors import DamagedFileError
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import protocol_named
from asgt.experiments import load_preset, preset_names
from asgt.runs.run import Run
from asgt.study.paper import load_paper, mean_distance, ours
from asgt.study.verdicts import Claim, Claims, Reading, Verdict, column_of, judge, judge_maps, load_claims, named
from asgt.training.config import TrainConfig
from asgt.training.run_folder import TrainResult
from support.explanations import explanation
from support.messages import assert_states

IMAGES = 1000
METHODS = {"ST": {"method": "st"}, "SGT": {"method": "sgt", "k": 0.3}, "AT": {"method": "at", "attack": "fgsm"}}
READINGS = (
    Reading("relative", "paper", {"FGSM": "fgsm", "PGD": "pgd-relative", "MI-FGSM": "mifgsm-relative"}),
    Reading("worst case", "worst case", {}),
)
SEARCHES = {
    "paper": ("fgsm", "pgd-constant-rs", "pgd-constant", "pgd-relative", "mifgsm-constant", "mifgsm-relative"),
    "pgd": ("pgd-40x5",),
}
# What a method keeps in each seed, in tenths of a percent of its images: under every attack alike, or by search.
Kept = Sequence[int] | Mapping[str, Sequence[int]]


def made_up(
    kept: Mapping[str, Kept],
    *,
    settings: Mapping[str, Mapping[str, object]] = METHODS,
    protocols: Sequence[str] = ("paper", "pgd"),
    epsilons: Sequence[float] = (0.2, 0.25),
    data: str = "mnist",
) -> Comparison:
    """Runs that nobody trained: the first images are right, as many as are asked for."""

    runs = []
    for method, shares in kept.items():
        of = shares if isinstance(shares, Mapping) else {}
        everywhere = () if isinstance(shares, Mapping) else shares
        for seed in range(len(everywhere or next(iter(of.values())))):
            config = TrainConfig(data=data, model="alexnet", seed=seed, epochs=1, **settings[method])  # type: ignore[arg-type]
            result = TrainResult(
                *("", 1, 0, "last epoch", {"clean": 1.0}, 10, None, "linf", False, False, []),
                *([str(number) for number in range(10)], [1, 28, 28], "train", "test", 1.0),
            )
            evaluations = {
                name: Evaluation(
                    protocol=protocol_named(name),
                    norm="linf",
                    epsilons=tuple(epsilons),
                    seed=0,
                    model=f"{method} {seed}",
                    data="data",
                    classes=10,
                    clean=torch.ones(IMAGES, dtype=torch.bool),
                    outcomes={
                        search: (torch.arange(IMAGES) < (of.get(search) or everywhere)[seed]).expand(len(epsilons), -1)
                        for search in SEARCHES[name]
                    },
                    details={search: {} for search in SEARCHES[name]},
                )
                for name in protocols
            }
            runs.append(Run(Path(f"{method}-{seed}"), config.resolved(), result, ({"epoch": 0},), evaluations))
    return compare_runs(runs)


def claims_of(*claims: Claim) -> Claims:
    return Claims(1, 0.05, READINGS, {"mnist": METHODS}, tuple(claims), (), ())


def claim(
    number: int = 1, first: str = "SGT", against: Sequence[str] = ("ST",), attacks: Sequence[str] = ("PGD",)
) -> Claim:
    return Claim(f"X{number}", "mnist", "§ 0", first, tuple(against), tuple(attacks), 0.2)


def verdicts(kept: Mapping[str, Kept], *claims: Claim, **made: object) -> list[Verdict]:
    """The verdicts in the first reading."""

    found = claims_of(*(claims or (claim(),)))
    return judge(made_up(kept, **made), found, found.paper)[: len(found.paper)]  # type: ignore[arg-type]


def p_of_three(differences: Sequence[int]) -> float:
    """Student's two-sided p of three differences: with two degrees of freedom it has a closed form."""

    mean = sum(differences) / 3
    t = abs(mean) / sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    return 1 - t / sqrt(2 + t * t)


# Directions ----------------------------------------------------------------------------------------------------------


def test_a_claim_holds_where_every_seed_says_so() -> None:
    (found,) = verdicts({"ST": [100, 110, 120], "SGT": [200, 220, 240]})

    # 100, 110, 120 thousandths: mean 110, standard error 10 / sqrt 3, and t of two degrees of freedom is 4.302653.
    half = 4.302653 * 10 / sqrt(3) / 1000
    assert found.state == "holds"
    assert (found.mean, found.low, found.high) == pytest.approx((0.11, 0.11 - half, 0.11 + half), abs=1e-6)
    assert found.p == found.adjusted == pytest.approx(p_of_three([100, 110, 120]), rel=1e-6)
    assert (found.seeds, found.samples, found.claims, found.rival) == ((0, 1, 2), IMAGES, 1, "ST")
    assert found.difference() == "+11.0 [8.5, 13.5]"


def test_the_same_turned_round_does_not_hold() -> None:
    (found,) = verdicts({"ST": [200, 220, 240], "SGT": [100, 110, 120]})

    assert found.state == "does not hold"
    assert found.difference() == "−11.0 [−13.5, −8.5]"
    assert found.p == pytest.approx(p_of_three([100, 110, 120]), rel=1e-6)


@pytest.mark.parametrize(
    "sgt",
    [
        [100, 110, 120],  # a tie in every seed
        [110, 110, 110],  # in the mean
        [150, 100, 190],  # above in the mean, below in a seed
        [101, 111, 122],  # above in every seed, by a hair
    ],
)
def test_what_seeds_do_not_agree_on_is_not_decided(sgt: list[int]) -> None:
    (found,) = verdicts({"ST": [100, 110, 120], "SGT": sgt})

    assert found.state == "not decided at this scale"
    assert found.low is not None
    assert found.high is not None
    assert found.low <= 0 <= found.high
    assert found.why == ""


def test_one_seed_decides_nothing_however_far_apart() -> None:
    (found,) = verdicts({"ST": [0], "SGT": [1000]})

    assert (found.state, found.why, found.mean, found.low) == ("not decided at this scale", "one seed", 1.0, None)
    assert found.difference() == "+100.0"


def test_only_seeds_that_both_have_are_paired() -> None:
    (found,) = verdicts({"ST": [100, 110], "SGT": [200, 210, 900]})

    assert found.seeds == (0, 1)
    assert found.mean == pytest.approx(0.1)


# Holm ----------------------------------------------------------------------------------------------------------------


def test_claims_side_by_side_are_harder_to_decide() -> None:
    """Alone, and with one beside it, it holds; with two beside it, p passes 0.05."""

    kept = {"ST": [0, 0, 0], "SGT": [100, 130, 80]}
    p = p_of_three([100, 130, 80])
    assert 2 * p < 0.05 < 3 * p

    for count, state in ((1, "holds"), (2, "holds"), (3, "not decided at this scale")):
        found = verdicts(kept, *[claim(number) for number in range(count)])
        assert {one.state for one in found} == {state}
        assert [one.adjusted for one in found] == pytest.approx([count * p] * count)
        assert {one.low > 0 for one in found if one.low is not None} == {True}


def test_a_claim_that_was_not_run_counts_among_the_claims() -> None:
    """Leaving out runs must not make the others easier to decide."""

    kept = {"ST": [0, 0, 0], "SGT": [100, 130, 80]}
    missing = [claim(2, first="AT"), claim(3, first="AT")]

    found, *others = verdicts(kept, claim(), *missing)

    assert (found.state, found.claims) == ("not decided at this scale", 3)
    assert {(one.state, one.why) for one in others} == {("not run", "no runs of AT")}


# Several rivals or attacks -------------------------------------------------------------------------------------------


def test_a_claim_over_several_rivals_holds_by_the_least_certain() -> None:
    kept = {"ST": [0, 0, 0], "AT": [50, 60, 70], "SGT": [200, 230, 240]}

    (found,) = verdicts(kept, claim(against=("ST", "AT")))

    # 200, 230, 240 over ST; 150, 170, 170 over AT.
    p = max(p_of_three([200, 230, 240]), p_of_three([150, 170, 170]))
    assert found.state == "holds"
    assert found.p == pytest.approx(p)
    assert found.rival == "ST"


def test_a_claim_over_several_rivals_fails_with_one_and_pays_for_the_choice() -> None:
    kept = {"ST": [0, 0, 0], "AT": [400, 440, 430], "SGT": [200, 230, 240]}

    (found,) = verdicts(kept, claim(against=("ST", "AT")))

    assert (found.state, found.rival) == ("does not hold", "AT")
    assert found.p == pytest.approx(2 * p_of_three([200, 210, 190]))


def test_a_claim_over_several_attacks_looks_at_each() -> None:
    sgt = {search: [300, 310, 320] for search in (*SEARCHES["paper"], *SEARCHES["pgd"])} | {
        "mifgsm-relative": [1, 0, 1]
    }

    found = verdicts({"ST": [100, 110, 120], "SGT": sgt}, claim(attacks=("FGSM", "PGD", "MI-FGSM")), claim(2))

    assert [one.state for one in found] == ["does not hold", "holds"]
    assert found[0].column is not None
    assert found[0].column.attack == "mifgsm-relative"


# Readings ------------------------------------------------------------------------------------------------------------


def test_each_reading_has_its_own_attack_and_its_own_verdict() -> None:
    sgt = {search: [300, 310, 320] for search in SEARCHES["paper"]} | {"pgd-40x5": [10, 20, 10]}
    found = claims_of(claim())

    relative, worst = judge(made_up({"ST": [100, 110, 120], "SGT": sgt}), found, found.paper)

    assert (relative.reading, relative.state, worst.reading, worst.state) == (
        *("relative", "holds"),
        *("worst case", "does not hold"),
    )
    assert relative.column is not None
    assert worst.column is not None
    assert (relative.column.attack, worst.column.attack) == ("pgd-relative", "pgd-40x5")


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"protocols": ("paper",)}, ["", "no evaluation by protocol worst case"]),
        ({"protocols": ("pgd",)}, ["no evaluation by protocol paper", ""]),
        ({"epsilons": (0.25,)}, ["not evaluated at ε = 0.2"] * 2),
        ({"settings": METHODS | {"SGT": {"method": "sgt", "k": 0.1}}}, ["no runs of SGT"] * 2),
    ],
)
def test_what_was_not_evaluated_was_not_run(made: dict[str, object], why: list[str]) -> None:
    found = claims_of(claim())

    judged = judge(made_up({"ST": [0, 1, 2], "SGT": [500, 502, 501]}, **made), found, found.paper)  # type: ignore[arg-type]

    assert [one.why for one in judged] == why
    assert [one.state for one in judged] == ["not run" if words else "holds" for words in why]
    assert all(one.difference() == "–" for one in judged if one.why)


def test_claims_on_other_data_are_left_out() -> None:
    comparison, found = made_up({"ST": [0, 0]}), claims_of(claim())

    assert judge(replace(comparison, data="cifar10"), found, found.paper) == []


# Maps ----------------------------------------------------------------------------------------------------------------

BETTER = Claim("Y1", "mnist", "§ 0", "SGT", ("ST",), measure="mass")


def mapped(mass: Mapping[str, Sequence[float]], wrong: int = 0) -> Verdict:
    """The verdict on maps whose share of mass on the object is made up, a value a seed."""

    comparison = made_up({method: [500] * len(values) for method, values in mass.items()})
    methods = []
    for method in comparison.methods:
        runs = [
            replace(run, explanations={"gradient": explanation(wrong, seed=run.seed, mass=mass[method.name][run.seed])})
            for run in method.runs
        ]
        methods.append(replace(method, runs=tuple(runs)))
    claims = replace(claims_of(), maps=(BETTER,))
    (found,) = judge_maps(replace(comparison, methods=tuple(methods)), claims)
    return found


@pytest.mark.slow
def test_maps_are_judged_by_the_panels_measure_over_seeds() -> None:
    found = mapped({"ST": [0.20, 0.21, 0.22], "SGT": [0.30, 0.32, 0.31]})

    assert found.state == "holds"
    assert found.mean == pytest.approx(0.1)
    assert found.p == pytest.approx(p_of_three([100, 110, 90]))
    assert (found.seeds, found.samples) == ((0, 1, 2), 120)
    # However they are named in the panel, the claim's first comes first.
    assert mapped({"ST": [0.30, 0.32, 0.31], "SGT": [0.20, 0.21, 0.22]}).state == "does not hold"
    assert mapped({"ST": [0.20, 0.21, 0.22], "SGT": [0.22, 0.20, 0.21]}).state == "not decided at this scale"


def test_maps_of_one_seed_or_of_too_few_images_decide_nothing() -> None:
    one = mapped({"ST": [0.2], "SGT": [0.3]})
    assert (one.state, one.why, one.mean) == ("not decided at this scale", "one seed", pytest.approx(0.1))

    few = mapped({"ST": [0.2, 0.2], "SGT": [0.3, 0.3]}, wrong=30)
    assert few.state == "not run"
    assert "90" in few.why


def test_without_explanations_maps_are_not_judged() -> None:
    claims = replace(claims_of(), maps=(BETTER,))

    (found,) = judge_maps(made_up({"ST": [0, 0], "SGT": [9, 9]}), claims)

    assert (found.state, found.why) == ("not run", "no explanations of SGT and ST")


# The files -----------------------------------------------------------------------------------------------------------


def test_the_claims_are_the_papers_at_its_eps() -> None:
    claims = load_claims()
    by_id = {one.id: one for one in (*claims.paper, *claims.maps, *claims.beyond)}

    assert (claims.version, claims.alpha, len(claims.readings)) == (1, 0.05, 4)
    assert len(claims.paper) == 14 + 11
    assert by_id["M1"].text() == "SGT (k = 0.3) is more robust than ST under FGSM at ε = 0.25"
    assert (by_id["M9"].against, by_id["M9"].attacks) == (
        ("ST", "SGT (k = 0.3)", "AT-FGSM", "SGA"),
        ("FGSM", "PGD", "MI-FGSM"),
    )
    assert (by_id["C7"].first, by_id["C7"].eps, by_id["C7"].gain) == ("ASGT-FGSM", 0.02, 20)
    assert {one.measure for one in claims.maps} == {"mass", "road"}


def test_gains_are_the_differences_of_what_the_paper_quotes_and_35_is_none_of_them() -> None:
    claims, paper = load_claims(), load_paper()
    quoted = {(one.method, one.attack, one.eps): one.accuracy for one in paper.quoted}
    checked = 0

    for one in claims.paper:
        here = (one.attacks[0], one.eps)
        # The paper's ASGT is judged with either attack inside.
        pair = [quoted.get((name.replace("ASGT-PGD", "ASGT-FGSM"), *here)) for name in (one.first, *one.against)]
        if one.gain is not None and len(pair) == 2 and None not in pair:
            assert one.gain == pytest.approx(pair[0] - pair[1], abs=1e-9)  # type: ignore[operator]
            checked += 1
    assert checked == 10
    differences = [abs(a - b) for (_, *here), a in quoted.items() for (_, *there), b in quoted.items() if here == there]
    assert all(abs(difference - 35) > 0.5 for difference in differences)


def test_what_the_paper_states_names_claims_that_there_are() -> None:
    claims, paper = load_claims(), load_paper()
    ids = {one.id for one in (*claims.paper, *claims.maps)}

    assert {name for line in paper.stated for name in line["claims"]} <= ids
    settings = set(TrainConfig.__dataclass_fields__) | {"seeds", "samples", None}
    assert {choice["setting"] for choice in paper.choices} <= settings
    assert len(paper.errata) >= 5
    for figure in paper.figures:
        assert set(figure["methods"]) <= set(claims.methods[figure["data"]])


@pytest.mark.parametrize(
    "name",
    [name for name in preset_names() if name.endswith(("-paper", "-tuned", "-laptop")) and "-shortcuts-" not in name],
)
def test_every_preset_can_answer_every_claim_on_its_data(name: str) -> None:
    preset, claims = load_preset(*name.split("-")), load_claims()

    for method, settings in claims.methods[preset.data].items():
        fitting = [c for c in preset.methods if all(getattr(c, part) == value for part, value in settings.items())]
        assert len(fitting) == 1, method
    asked = {one.eps for one in (*claims.paper, *claims.beyond) if one.data == preset.data}
    assert all(any(abs(eps - other) < 1e-12 for other in preset.epsilons) for eps in asked)
    for reading in claims.readings:
        assert reading.protocol in (*preset.protocols, "worst case")


def test_ours_stands_beside_the_papers_numbers_in_each_reading() -> None:
    claims, paper = load_claims(), load_paper()
    methods = {"ST": {"method": "st"}, "SGA": {"method": "sga", "k": 0.3}}
    st = {search: [200, 300] for search in (*SEARCHES["paper"], *SEARCHES["pgd"])} | {"pgd-constant": [100, 200]}
    comparison = made_up({"ST": st, "SGA": [500, 500]}, settings=methods)
    quoted = {(one.method, one.attack): one for one in paper.quoted}
    by_name = {reading.name: reading for reading in claims.readings}

    found = ours(comparison, claims, quoted["ST", "PGD"], by_name["library step"])
    assert found is not None
    assert found.value == pytest.approx(0.15)
    assert ours(comparison, claims, quoted["ASGT-FGSM", "PGD"], by_name["library step"]) is None

    # 15 and 25 where the paper has 16.36 and 27.88, and 50 where it has 48.95.
    far = mean_distance(comparison, claims, paper, by_name["library step"])
    assert far == pytest.approx((1.36 + 2.88 + 1.05) / 3)
    assert column_of(comparison, by_name["worst case"], "FGSM") == comparison.columns[-1]
    assert named(comparison, {"method": "at"}) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1", "file of claims"),
        ("paper: 3", "file of claims"),
        ("- 1", "settings"),
    ],
)
def test_a_damaged_file_of_claims_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "claims.yaml").write_text(text)

    with pytest.raises(DamagedFileError) as damaged:
        load_claims(tmp_path / "claims.yaml")
    assert_states(damaged.value, tmp_path / "claims.yaml", "damaged", said)


@pytest.mark.parametrize(
    ("old", "new", "said"), [("id: M2,", "id: M1,", "same id"), ("first: SGT (k = 0.5)", "first: SGD", "SGD")]
)
def test_claims_that_name_what_is_not_there_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    from asgt.study.verdicts import CLAIMS

    text = CLAIMS.read_text("utf-8")
    assert old in text
    (tmp_path / "claims.yaml").write_text(text.replace(old, new, 1), "utf-8")

    with pytest.raises(DamagedFileError) as damaged:
        load_claims(tmp_path / "claims.yaml")
    assert_states(damaged.value, tmp_path / "claims.yaml", "damaged", said)
