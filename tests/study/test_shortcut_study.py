"""Does masking remove shortcuts? Verdicts on gaps made by hand, and a real grid from its runs to the page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from scipy.stats import ttest_1samp

import asgt
from asgt.comparison.comparing import Comparison, compare_runs, load_results
from asgt.comparison.shortcut_gaps import compare_shortcut_use
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import protocol_named
from asgt.experiments.grid import NOTE, plan
from asgt.experiments.job import do, is_kept
from asgt.files import write_yaml
from asgt.progress import SILENT
from asgt.runs.kept import load_kept
from asgt.runs.run import Run, read_run
from asgt.study.results_page import write_results
from asgt.study.shortcut_page import conclusion, correlated
from asgt.study.shortcut_study import (
    SHORTCUT_CLAIMS,
    closed_share,
    compare_controls,
    judge_gaps,
    load_shortcut_claims,
)
from asgt.study.verdicts import Verdict
from asgt.training.config import TrainConfig
from asgt.training.run_folder import TrainResult
from support.messages import assert_states
from support.paths import ROOT

SLOW_FIXTURES = ("_grid", "grid")
IMAGES = 1000
CLAIMS = load_shortcut_claims()
OTHERS = {"SGT with a random mask": {"method": "sgt", "k": 0.3, "rank": "random"}}
PLANT = "patch:0.99,size=1,code=position"
GRID = {
    "data": "digits",
    "seeds": 1,
    "train": {"width": 0.25, "epochs": 1, "batch_size": 20, "limit": 120, "device": "cpu", "shortcut": PLANT},
    "methods": [{"method": "st"}],
    "evaluate": {"protocols": ["pgd"], "epsilons": [0.1], "samples": 12},
}


def made_up(gaps: Mapping[str, Sequence[int]]) -> Comparison:
    """Runs that nobody trained: in ``aligned`` all images are right, and in ``reversed`` so many fewer, by seed."""

    runs = []
    for method, losses in gaps.items():
        base = TrainConfig(epochs=1, shortcut="patch", **(dict(CLAIMS.methods) | OTHERS)[method]).resolved()
        for seed, lost in enumerate(losses):
            config = replace(base, seed=seed)
            result = TrainResult(
                *("", 1, 0, "last epoch", {"clean": 1.0}, 10, None, "linf", False, False, []),
                *([str(number) for number in range(10)], [1, 28, 28], "train", "test", 1.0),
            )
            found = {
                view: Evaluation(
                    protocol=protocol_named("pgd"),
                    norm="linf",
                    epsilons=(0.1,),
                    seed=0,
                    model=f"{method} {seed}",
                    data="data",
                    classes=10,
                    shortcut_view="" if view == "absent" else view,
                    clean=torch.arange(IMAGES) < (IMAGES - lost if view == "reversed" else IMAGES),
                    outcomes={"pgd-40x5": torch.zeros(1, IMAGES, dtype=torch.bool)},
                    details={"pgd-40x5": {}},
                )
                for view in ("absent", "aligned", "random", "reversed")
            }
            views = {view: {"pgd": each} for view, each in found.items() if view != "absent"}
            place = Path(f"{method}-{seed}")
            runs.append(Run(place, config, result, ({"epoch": 0},), {"pgd": found["absent"]}, views=views))
    return compare_runs(runs)


def verdicts(gaps: Mapping[str, Sequence[int]]) -> dict[str, Verdict]:
    comparison = made_up(gaps)
    judged = judge_gaps(comparison, compare_shortcut_use(comparison), CLAIMS)
    return {verdict.claim.id: verdict for verdict in judged}


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_a_claim_on_gaps_is_the_rivals_gap_less_its_own_by_students_t_and_holms_correction() -> None:
    st, sgt, sga = [600, 620, 610, 590, 605], [500, 515, 512, 480, 500], [520, 500, 500, 500, 505]
    found = verdicts({"ST": st, "SGT": sgt, "SGA": sga})

    verdict = found["S1"]
    assert verdict.state == "holds"
    assert verdict.seeds == (0, 1, 2, 3, 4)
    apart = [(one - other) / IMAGES for one, other in zip(st, sgt, strict=True)]
    oracle = ttest_1samp(apart, 0)
    assert verdict.mean == pytest.approx(sum(apart) / 5)
    assert verdict.p == pytest.approx(oracle.pvalue)
    assert (verdict.low, verdict.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    # All six stand side by side, those that were not run too.
    assert verdict.claims == 6
    assert verdict.adjusted == pytest.approx(min(1, 6 * verdict.p))
    assert found["S2"].state == "not decided at this scale"
    assert (found["S6"].state, found["S6"].why) == ("not run", "no runs of AT-PGD")
    assert_states(verdict.claim.text(), "gap of SGT", "smaller", "ST")


def test_a_larger_gap_does_not_hold() -> None:
    found = verdicts({"ST": [500, 515, 512, 480, 500], "AT-PGD": [820, 835, 840, 800, 825]})
    assert (found["S6"].state, found["S6"].mean) == ("does not hold", pytest.approx(-0.3226))


@pytest.mark.parametrize(
    ("sgt", "state"),
    [
        ([598, 617, 609, 589, 602], "no relevant difference"),
        ([585, 605, 590, 570, 590], "holds"),  # about 1.7 points, and the interval ends above 2
        ([640, 570, 650, 560, 600], "not decided at this scale"),
    ],
)
def test_a_difference_within_the_margin_is_not_relevant_however_certain(sgt: list[int], state: str) -> None:
    verdict = verdicts({"ST": [600, 620, 610, 590, 605], "SGT": sgt})["S1"]
    assert verdict.state == state
    assert verdict.low is not None
    assert verdict.high is not None
    assert (verdict.low > -0.02 and verdict.high < 0.02) == (state == "no relevant difference")


def test_one_seed_decides_nothing() -> None:
    verdict = verdicts({"ST": [600], "SGT": [100]})["S1"]
    assert (verdict.state, verdict.why, verdict.low) == ("not decided at this scale", "one seed", None)
    assert verdict.mean == pytest.approx(0.5)


def test_the_reference_closes_a_share_of_the_gap() -> None:
    for gaps, share in (({"ST": [600], "RRR": [150]}, 0.75), ({"ST": [0], "RRR": [0]}, None), ({"ST": [600]}, None)):
        comparison = made_up(gaps)
        assert closed_share(comparison, compare_shortcut_use(comparison), CLAIMS) == share


def test_methods_are_compared_by_one_difference_of_gaps_a_seed() -> None:
    used = compare_shortcut_use(made_up({"ST": [600, 620, 610], "SGT": [500, 515, 512], "RRR": [0, 10, 20]}))
    pairs = {(each.first, each.second): each for each in used.differences()}
    assert pairs["ST", "RRR"].kind == "methods"
    assert pairs["ST", "RRR"].value == pytest.approx(0.6)
    assert pairs["ST", "RRR"].claims == 3
    gap = used.method("ST").gap()
    assert (gap.value, gap.sd, gap.interval) == (pytest.approx(0.61), pytest.approx(0.01), "sd")
    assert_states(str(used), "ST", "61.0 ± 1.0", "n = 1000")
    assert_states(str(used.differences_table()), "ST − RRR", "+60.0")


def test_two_models_of_one_seed_are_compared_image_by_image() -> None:
    (pair,) = compare_shortcut_use(made_up({"ST": [600], "SGT": [500]})).differences()
    # On a hundred images the difference is 1, on the others 0.
    apart = [1.0] * 100 + [0.0] * 900
    assert (pair.kind, pair.value) == ("models", pytest.approx(0.1))
    assert pair.p == pytest.approx(ttest_1samp(apart, 0).pvalue)
    assert pair.low == pytest.approx(0.1 - 1.96 * (0.09 / IMAGES) ** 0.5, abs=0.003)


@pytest.mark.parametrize(
    ("gaps", "facts"),
    [
        (
            {"SGT": 400, "AT-PGD": 820, "ASGT": 300, "ASGT with a random mask": 305},
            ["SGT against ST by 20.0", "random"],
        ),
        ({"SGT": 400, "AT-PGD": 820, "ASGT": 300, "ASGT with a random mask": 700}, ["ASGT against AT-PGD by 52.0"]),
        (
            {"SGT": 400, "AT-PGD": 820, "ASGT": 300, "ASGT with a random mask": 100},
            ["SGT against ST by 20.0", "random mask", "by 20.0 points more", "does not explain"],
        ),
        ({"SGT": 600, "AT-PGD": 820, "ASGT": 880}, ["did not reduce", "Adversarial training", "increased it", "22.0"]),
        ({"SGT": 600, "SGA": 700}, ["gap of SGA", "10.0 points larger"]),
        ({"SGT": 600}, ["Nothing yet", "not all methods"]),
    ],
)
def test_what_follows_is_said_of_the_verdicts(gaps: dict[str, int], facts: list[str]) -> None:
    noise = [0, 3, -2, 1, -2]
    runs = {name: [gap + (each if name != "ST" else 0) for each in noise] for name, gap in ({"ST": 600} | gaps).items()}
    said = conclusion([*verdicts(runs).values()])
    assert_states(said, *facts)
    is_shown = gaps.get("ASGT with a random mask", 0) > 400
    assert ("random" in said) == ("ASGT with a random mask" in gaps and not is_shown)
    assert ("increased it" in said) == ("AT-PGD" in gaps)


def test_gaps_that_are_all_the_same_have_no_rank_correlation() -> None:
    masses = {"ST": 0.1, "SGT": 0.2, "SGA": 0.3}
    assert "Spearman) between the mass on the shortcut and the gap is −1.00" in correlated(
        masses, {"ST": 30.0, "SGT": 20.0, "SGA": 10.0}
    )
    same = correlated(masses, dict.fromkeys(masses, 100.0))
    assert "no rank correlation" in same
    assert "nan" not in same
    assert correlated({"ST": 0.1}, {"ST": 30.0}) == ""


def test_masks_are_compared_with_their_controls_one_difference_a_seed() -> None:
    gaps = {
        "ST": [600, 620, 610, 590, 605],
        "SGT": [500, 515, 512, 480, 500],
        "SGT with a random mask": [300, 310, 330, 290, 300],
        "AT-PGD": [820, 835, 840, 800, 825],
        "ASGT without a mask": [815, 840, 838, 805, 822],
    }
    comparison = made_up(gaps)
    used = compare_shortcut_use(comparison)
    found = compare_controls(comparison, used)

    names = [method.name for method in comparison.methods]
    random_mask = next(name for name in names if "random" in name)
    mask = next(name for name in names if name.startswith("SGT") and name != random_mask)
    empty = next(name for name in names if name.startswith("ASGT"))
    assert [(each.first, each.second) for each in found] == [
        (mask, random_mask),
        ("ST", random_mask),
        ("AT-PGD", empty),
    ]
    for pair, (rival, control) in zip(
        found,
        [("SGT", "SGT with a random mask"), ("ST", "SGT with a random mask"), ("AT-PGD", "ASGT without a mask")],
        strict=True,
    ):
        apart = [(one - other) / IMAGES for one, other in zip(gaps[rival], gaps[control], strict=True)]
        assert pair.value == pytest.approx(sum(apart) / 5)
        assert pair.p == pytest.approx(ttest_1samp(apart, 0).pvalue)
        assert pair.claims == 3
    assert [each.decision for each in found] == ["more", "more", "not decided"]
    assert compare_controls(made_up({"ST": [600], "SGT": [500]}), compare_shortcut_use(made_up({"ST": [600]}))) == ()


# The file of claims --------------------------------------------------------------------------------------------------


def test_the_claims_are_the_six_that_were_fixed() -> None:
    pairs = [(claim.first, *claim.against) for claim in CLAIMS.claims]
    assert pairs == [
        ("SGT", "ST"),
        ("SGA", "SGT"),
        ("ASGT", "AT-PGD"),
        ("ASGT", "ASGT with a random mask"),
        ("ASGT", "ASGT without a mask"),
        ("AT-PGD", "ST"),
    ]
    assert (CLAIMS.margin, CLAIMS.alpha) == (0.02, 0.05)


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        ("first: SGT,", "first: SGX,", "SGX"),
        ("id: S2", "id: S1", "same id"),
        ("margin:", "margine:", "not a file of claims"),
        ("against: [ST]", "against: [ST, SGA]", "one rival"),
        ("margin: 0.02", "margin: little", "not a file of claims"),
    ],
)
def test_a_damaged_file_of_claims_is_named(tmp_path: Path, old: str, new: str, fact: str) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(SHORTCUT_CLAIMS.read_text("utf-8").replace(old, new), "utf-8")
    with pytest.raises(DamagedFileError) as refused:
        load_shortcut_claims(file)
    assert_states(refused.value, file, fact)


# A grid --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ST, trained with a shortcut, evaluated on its four test sets, and kept."""

    place = tmp_path_factory.mktemp("shortcuts")
    (place / "digits-tiny.yaml").write_text(yaml.safe_dump(GRID))
    preset = asgt.load_preset(str(place / "digits-tiny.yaml"))
    write_yaml(place / "out" / NOTE, preset.to_dict())
    for run in plan(preset, place / "out", keep=place / "results"):
        do(run.job, should_stop=lambda: False, phase=lambda number: SILENT)
    return place


@pytest.fixture
def grid(_grid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, to be changed at will."""

    monkeypatch.chdir(shutil.copytree(_grid, tmp_path / "grid"))
    return tmp_path / "grid"


def test_a_grid_evaluates_and_keeps_every_test_set(grid: Path) -> None:
    views = ["pgd", "pgd+aligned", "pgd+random", "pgd+reversed"]
    assert sorted(place.name for place in (grid / "out" / "st-0" / "evaluation").iterdir()) == views
    run, kept = read_run(grid / "out" / "st-0"), load_kept(grid / "results" / "digits-tiny" / "st-0.json")
    assert list(kept.views) == list(run.views) == ["aligned", "random", "reversed"]
    for view, evaluation in run.on_views("pgd").items():
        there = kept.on_views("pgd")[view]
        assert (there.shortcut_view, there.data, there.model) == (
            *(evaluation.shortcut_view, evaluation.data, evaluation.model),
        )
        assert torch.equal(there.clean, evaluation.clean)
        if view != "absent":
            assert evaluation.shortcut_codes is not None
            assert there.shortcut_codes is not None
            assert torch.equal(there.shortcut_codes, evaluation.shortcut_codes)
    (checked,) = asgt.verify(grid / "results" / "digits-tiny" / "st-0.json")
    assert checked.is_sound


def test_a_grid_whose_evaluation_of_a_test_set_is_lost_is_not_finished(grid: Path) -> None:
    preset = asgt.load_preset("digits-tiny.yaml")
    states = {run.job.label: run.state for run in plan(preset, grid / "out", keep=grid / "results")}
    assert set(states.values()) == {"finished"}
    (job,) = [run.job for run in plan(preset, grid / "out", keep=grid / "results")]
    assert is_kept(job)

    shutil.rmtree(grid / "out" / "st-0" / "evaluation" / "pgd+random")
    states = {run.job.label: run.state for run in plan(preset, grid / "out")}
    assert states == {"ST, seed 0": "begun"}
    file = grid / "results" / "digits-tiny" / "st-0.json"
    kept = json.loads(file.read_text())
    del kept["evaluations"]["pgd+random"], kept["sha256"]
    file.write_text(json.dumps(kept | {"schema": 1}))
    assert not is_kept(job)


@pytest.mark.draws
def test_the_page_has_tables_verdicts_and_pictures_of_what_is_kept(grid: Path) -> None:
    write_results(grid / "results", grid / "docs" / "results.md")
    text = (grid / "docs" / "results.md").read_text("utf-8")
    assert_states(text, "## Does masking remove shortcuts?", "### digits-tiny", PLANT.partition(",")[0])
    used = compare_shortcut_use(load_results(grid / "results" / "digits-tiny"))
    for method in used.methods:
        assert method.gap().percent().replace("-", "−") in text
    assert_states(text, "S1: the gap of SGT is smaller than that of ST", "no runs of SGT", "which test no claim")
    assert "For a user" not in text
    for name in ("digits-tiny-views.svg", "digits-tiny-planted.png"):
        assert f"(results/{name})" in text
        assert (grid / "docs" / "results" / name).stat().st_size > 1000
    assert "mnist-shortcuts-laptop (`asgt reproduce mnist-shortcuts --scale laptop --keep results`)" in text

    # Under the name of the grid on which the claims are tested, its verdicts count.
    shutil.move(grid / "results" / "digits-tiny", grid / "results" / CLAIMS.judged)
    write_results(grid / "results", grid / "docs" / "results.md")
    text = (grid / "docs" / "results.md").read_text("utf-8")
    assert_states(text, f"### {CLAIMS.judged}", "**For a user.** Nothing yet")
    assert "which test no claim" not in text


def test_the_terminal_shows_the_gaps_of_several_runs_or_which_test_set_is_missing(cli: Callable, grid: Path) -> None:
    answer = cli("compare", "out/st-0", "--out", "page")
    assert answer.status == 0, answer.err
    (method,) = compare_shortcut_use(asgt.compare(["out/st-0"])).methods
    assert_states(answer.out, "four test sets, clean", "at ε = 0.1", method.gap().percent().replace("-", "−"))

    shutil.rmtree("out/st-0/evaluation/pgd+random")
    answer = cli("compare", "out/st-0", "--out", "other")
    assert answer.status == 0, answer.err
    assert_states(answer.err, "out/st-0", "random", "--shortcut-view all")
    assert "four test sets" not in answer.out
    page = (grid / "other" / "report.html").read_text("utf-8")
    section = page.partition('id="shortcuts"')[2].partition("</section>")[0]
    assert_states(section, "NOT RUN", "out/st-0", "random")
    assert section.count("--shortcut-view all") == 1  # the reason names the command


def test_the_command_for_what_is_missing_names_a_network_of_ones_own(grid: Path) -> None:
    run = read_run(grid / "out" / "st-0")
    own = replace(run, config=replace(run.config, model="my_nets:make"))
    some = {key: view for key, view in own.views.items() if key != "random"}
    with pytest.raises(InputError) as lacking:
        compare_shortcut_use(compare_runs([replace(own, views=some)]))
    assert_states(lacking.value, "random", "--shortcut-view all --resume --model my_nets:make makes them")
    with pytest.raises(InputError) as refused:
        compare_runs([replace(own, evaluations={})])
    assert_states(refused.value, "holds no evaluation", "--model my_nets:make")


def test_a_page_of_runs_without_a_test_set_is_refused_and_says_which(grid: Path) -> None:
    run = replace(read_run(grid / "out" / "st-0"))
    file = grid / "results" / "digits-tiny" / "st-0.json"
    asgt.runs.kept.keep_run(replace(run, views={"aligned": run.views["aligned"]}), file)
    with pytest.raises(InputError) as refused:
        write_results(grid / "results", grid / "docs" / "results.md")
    assert_states(refused.value, "st-0.json", "random and reversed", "--shortcut-view all")


def test_another_shortcut_in_a_grid_that_was_begun_is_refused(cli: Callable, grid: Path) -> None:
    words = ("reproduce", "digits-tiny.yaml", "--out", "out", "--set")
    said = cli(*words, "shortcut=patch:0.9,size=2,code=level").refusal()
    assert_states(said, "out", "patch:0.99,", "patch:0.9,", "size=2", "--out")
    for plant, facts in (
        ("patch:1.5", ["strength", "[0, 1]"]),
        ("patch:0.9,size=9", ["size = 9", "8×8"]),
        ("disk:0.9", ["'disk'", "'disc'"]),
    ):
        said = cli("reproduce", "digits-tiny.yaml", "--out", "new", "--set", f"shortcut={plant}").refusal()
        assert_states(said, *facts)
    assert not (grid / "new").exists()


def test_a_shortcut_of_one_method_alone_is_refused(cli: Callable, tmp_path: Path) -> None:
    methods = [{"method": "st", "shortcut": PLANT}, {"method": "rrr", "weight": 10}]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(GRID | {"methods": methods}))
    assert_states(cli("reproduce", tmp_path / "own.yaml").refusal(), "shortcut", "under train")


@pytest.mark.parametrize(
    ("title", "least"),
    [("What the runs on MNIST say", 9), ("A shortcut that an attack can erase", 8), ("Colour images", 8)],
)
def test_the_page_on_shortcuts_has_the_numbers_of_the_results(title: str, least: int) -> None:
    section = (ROOT / "docs/shortcuts.md").read_text().partition(f"### {title}\n")[2].partition("\n### ")[0]
    results = (ROOT / "docs/results.md").read_text().partition("## Does masking remove shortcuts?")[2]
    numbers = re.findall(r"[+−]?\d+\.\d (?:\[[^\]]+\]|± \d+\.\d)|p = 0\.\d+", " ".join(section.split()))
    assert len(numbers) >= least
    assert [number for number in numbers if number not in results] == []
