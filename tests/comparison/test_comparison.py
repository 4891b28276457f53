"""Runs side by side: what is read back, what may stand in one table, what the cells hold, what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from torch import Tensor, nn

import asgt
from asgt.comparison.class_accuracies import class_accuracies
from asgt.comparison.comparable import refuse_other_evaluations
from asgt.comparison.comparing import Comparison, compare
from asgt.comparison.differences import differences_at
from asgt.comparison.method_naming import Method, method_names
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.curve import evaluate
from asgt.evaluation.health import OVERFITTING
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import KNOWN, PROTOCOLS, protocol_named
from asgt.evaluation.shards import load_evaluation
from asgt.files import read_json, read_tensors, write_tensors
from asgt.manifest import withdraw
from asgt.runs.run import load_run
from asgt.statistics import share, spread
from asgt.training.config import TrainConfig
from support.comparisons import hand_made, side_by_side
from support.edits import edited, resealed, rewritten
from support.messages import assert_states

GRID = (0.05, 0.1, 0.2)
IMAGES = 20
SMALL: dict[str, Any] = {"width": 0.25, "limit": 150, "epochs": 1, "warmup": 0.0}


def attacked(run: Path, protocol: str, *, images: int = IMAGES, **options: Any) -> Evaluation:
    """Evaluates a run on the first test images, in its folder."""

    model, splits, _, _ = load_run(run)
    folder = run / "evaluation" / protocol
    options = {"epsilons": GRID} | options
    return evaluate(model, splits.test[:images], protocol=protocol, folder=folder, **options)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on the digits, evaluated by ``paper`` and ``pgd``: at-0, at-1 and st-0."""

    place = tmp_path_factory.mktemp("compared")
    at = TrainConfig(method="at", attack="fgsm", **SMALL)
    for name, config in {
        "at-0": at,
        "at-1": replace(at, seed=1),
        "st-0": TrainConfig(method="st", **SMALL | {"warmup": None}),
    }.items():
        asgt.train(config, place / name)
        for protocol in ("paper", "pgd"):
            attacked(place / name, protocol)
    return place


@pytest.fixture
def runs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The three runs in ``runs/`` where the test stands, to damage as it likes."""

    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "runs")
    return Path("runs")


def again(run: Path, protocol: str, **options: Any) -> None:
    shutil.rmtree(run / "evaluation" / protocol)
    attacked(run, protocol, **options)


def refusal(*folders: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        compare(folders)
    line = str(caught.value)
    assert "\n" not in line
    return line


# Runs made by hand, for numbers that are known ------------------------------------------------------------------------


def test_a_cell_of_one_run_has_wilsons_interval_and_of_several_their_standard_deviation() -> None:
    one = Method("ST", (hand_made(method="st", right={"pgd-40x5": {0.1: 30, 0.2: 0}}, samples=359, clean=303),))
    counts = ({0.1: 100, 0.2: 60, 0.3: 10}, {0.1: 90, 0.2: 40, 0.3: 0})
    several = Method(
        "AT-PGD",
        tuple(hand_made(method="at", seed=seed, right={"pgd-40x5": right}) for seed, right in enumerate(counts)),
    )
    found = side_by_side(one, several, epsilons={"pgd": (0.1, 0.2)})
    [column] = found.columns

    clean = found.clean(one)
    interval = binomtest(303, 359).proportion_ci(0.95, "wilson")
    assert (clean.value, clean.low, clean.high) == pytest.approx((303 / 359, *interval))
    assert clean.percent() == "84.4 [80.3, 87.8]"
    assert (clean.interval, clean.n, clean.values) == ("Wilson", 359, (303 / 359,))
    assert clean.sd is None

    # Two values lie √2 sample standard deviations apart, and their mean in the middle.
    for eps, values, low, high in (
        (0.1, (1.0, 0.9), 0.95 - 0.1 / 2**0.5, 1.0),
        (0.2, (0.6, 0.4), 0.5 - 0.2 / 2**0.5, 0.5 + 0.2 / 2**0.5),
        (0.3, (0.1, 0.0), 0.0, 0.05 + 0.1 / 2**0.5),
    ):
        cell = found.at(several, column, eps)
        assert cell.values == values
        assert (cell.value, cell.low, cell.high) == pytest.approx((sum(values) / 2, low, high))
        assert cell.sd == pytest.approx((values[0] - values[1]) / 2**0.5)
    assert found.at(several, column, 0.1).percent() == "95.0 ± 7.1"
    assert found.clean(several).sd == 0.0

    curve = found.curve(one, column)
    assert [eps for eps, _ in curve] == [0.0, 0.1, 0.2]
    assert (curve[0][1].value, curve[0][1].low, curve[0][1].high) == (clean.value, clean.low, clean.high)
    assert [accuracy.value for _, accuracy in curve[1:]] == [30 / 359, 0.0]
    with pytest.raises(InputError, match=r"0\.15 was not evaluated"):
        found.at(one, column, 0.15)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_spread_is_the_mean_and_the_sample_standard_deviation(values: list[float]) -> None:
    assert spread(values) == pytest.approx((np.mean(values), np.std(values, ddof=1)), abs=1e-12)


@pytest.mark.parametrize("values", [[], [0.5]])
def test_one_value_has_no_spread(values: list[float]) -> None:
    with pytest.raises(ValueError, match="no spread"):
        spread(values)


def trained_at(*eps: float | None, grids: tuple[tuple[float, ...], ...], norm: str = "linf") -> Comparison:
    """Methods trained at some ε (``None``: without an attack), each a run of its own."""

    methods = []
    for value in eps:
        settings = {"method": "st"} if value is None else {"method": "at", "eps": value, "norm": norm}
        methods.append(Method(f"at {value}", (hand_made(right={"fgsm": {0.1: 1}}, **settings),)))
    return side_by_side(*methods, epsilons=dict(zip(("paper", "pgd"), grids, strict=False)))


DIGITS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)


@pytest.mark.parametrize(
    ("eps", "grids", "trained", "table"),
    [
        ((None, 0.1, 0.1, 0.3), (DIGITS,), 0.1, (0.05, 0.1, 0.2)),
        ((0.1, 0.3), (DIGITS,), 0.3, (0.15, 0.3)),
        ((0.1,), (DIGITS, (0.1, 0.3)), 0.1, (0.1, 0.3)),
        ((0.1,), ((0.3,),), 0.1, (0.3,)),
        ((None,), (DIGITS,), None, (0.05, 0.15, 0.3)),
        ((None, 0.0), ((0.1, 0.2),), None, (0.1, 0.2)),
    ],
)
def test_tables_stand_at_the_training_eps_its_half_and_its_double(
    eps: tuple[float | None, ...], grids: tuple[tuple[float, ...], ...], trained: float | None, table: tuple[float, ...]
) -> None:
    found = trained_at(*eps, grids=grids)
    assert found.trained_eps() == trained
    assert found.table_epsilons() == table


def test_a_training_eps_in_another_norm_is_none_of_this_grid() -> None:
    assert trained_at(0.5, 0.5, grids=((0.1, 0.2, 0.3, 0.4),), norm="l2").trained_eps() is None
    mixed = trained_at(0.5, 0.5, grids=(DIGITS,), norm="l2")
    both = replace(mixed, methods=(*mixed.methods, *trained_at(0.3, grids=(DIGITS,)).methods))
    assert both.trained_eps() == 0.3


@pytest.mark.parametrize(
    ("right", "settings", "said"),
    [
        ({"fgsm": {0.1: 90, 0.3: 88}, "pgd-40x5": {0.3: 2}}, {"eps": 0.3}, True),
        ({"fgsm": {0.1: 90, 0.3: 88}, "pgd-40x5": {0.3: 80}}, {"eps": 0.3}, False),
        ({"fgsm": {0.1: 90, 0.3: 88}, "pgd-40x5": {0.3: 2}}, {"eps": 0.1}, False),
        ({"fgsm": {0.1: 90, 0.3: 88}, "pgd-40x5": {0.3: 2}}, {"eps": 0.3, "norm": "l2"}, False),
        ({"pgd-40x5": {0.3: 2}}, {"eps": 0.3}, False),
        ({"fgsm": {0.3: 88}, "pgd-40x5": {0.3: 2}}, {"method": "st"}, False),
    ],
)
def test_overfitting_to_one_step_is_said_where_both_attacks_stand_at_the_training_eps(
    right: dict[str, dict[float, int]], settings: dict[str, Any], said: bool
) -> None:
    run = hand_made(right=right, warnings=("collapse: …",), **{"method": "at"} | settings)
    method = Method("AT", (run,))
    own, *found = side_by_side(method, epsilons={"pgd": (0.3,)}).warnings()
    assert own == (method, run, "collapse: …")
    assert [(of, on) for of, on, _ in found] == [(method, run)] * said
    for _, _, text in found:
        assert_states(text, OVERFITTING, "test images", "88.0 %", "FGSM", "2.0 %", "PGD-40 × 5", "0.3")

    # On different images, the two accuracies say nothing together.
    if said:
        other = replace(run, evaluations=run.evaluations | {"pgd": replace(run.evaluations["pgd"], data="other")})
        lone = Method("AT", (other,))
        assert side_by_side(lone, epsilons={"pgd": (0.3,)}).warnings() == [(lone, other, "collapse: …")]


# Names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ([{"method": "st"}, {"method": "trades"}], ["ST", "TRADES"]),
        ([{"method": "at"}, {"method": "at", "attack": "fgsm"}], ["AT-PGD", "AT-FGSM"]),
        ([{"method": "asgt", "attack": "fgsm-rs"}, {}], ["ASGT-FGSM-RS", "ASGT-PGD"]),
        ([{"method": "sga"}, {"method": "sga", "attack": "fgsm"}], ["SGA", "SGA-FGSM"]),
        ([{"method": "sgt", "k": 0.3}], ["SGT"]),
        (
            [{"method": "sgt", "k": 0.3}, {"method": "sgt", "k": 0.5}, {}],
            ["SGT (k = 0.3)", "SGT (k = 0.5)", "ASGT-PGD"],
        ),
        (
            [{"method": "sgt", "k": 0.3, "epochs": 5}, {"method": "sgt"}, {"method": "sgt", "k": 0.3, "epochs": 5}],
            ["SGT (k = 0.3, epochs = 5)", "SGT (k = 0.1, epochs = 10)", "SGT (k = 0.3, epochs = 5)"],
        ),
        ([{"eps": "8/255"}, {"eps": 1 / 255}], ["ASGT-PGD (eps = 0.0313725)", "ASGT-PGD (eps = 0.00392157)"]),
        ([{"k": 0.1}, {"k": 0.1000001}], ["ASGT-PGD (k = 0.1)", "ASGT-PGD (k = 0.1000001)"]),
        ([{"limit": 100}, {}], ["ASGT-PGD (limit = 100)", "ASGT-PGD (limit = default)"]),
        ([{"model": "a.b:net"}, {}], ["ASGT-PGD (model = a.b:net)", "ASGT-PGD (model = small_cnn)"]),
        (
            [{"seed": 1}, {"seed": 2, "device": "cuda"}, {"checkpoint_every": 1.0}, {"tensorboard": True}],
            ["ASGT-PGD"] * 4,
        ),
        ([{"data": "mnist"}, {"data": "ylecun/mnist"}], ["ASGT-PGD"] * 2),
        ([{"k": 0.1}, {}], ["ASGT-PGD"] * 2),
    ],
)
def test_a_method_is_named_by_what_tells_it_apart(settings: list[dict[str, Any]], names: list[str]) -> None:
    assert method_names([TrainConfig(**values).resolved() for values in settings]) == names


_settings = st.fixed_dictionaries(
    {"method": st.sampled_from(["sgt", "sga", "asgt"]), "k": st.sampled_from([0.1, 0.3, 0.30000001, 1])},
    optional={"limit": st.sampled_from([100, 200]), "grey": st.booleans(), "seed": st.integers(0, 3)},
)


@pytest.mark.slow
@given(st.lists(_settings, max_size=6))
def test_two_names_are_equal_exactly_if_only_the_seed_differs(settings: list[dict[str, Any]]) -> None:
    configs = [TrainConfig(**values).resolved() for values in settings]
    names = method_names(configs)
    for one, first in zip(configs, names, strict=True):
        for other, second in zip(configs, names, strict=True):
            assert (first == second) == (replace(one, seed=0) == replace(other, seed=0))


# Protocols ------------------------------------------------------------------------------------------------------------


class Slope(nn.Module):
    """The gradient of its loss has the same signs everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).mean(dim=1)
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def test_reach_is_how_far_an_attack_really_comes() -> None:
    x, y = torch.full((4, 1, 30, 30), 0.5), torch.zeros(4, dtype=torch.int64)
    reaches = {search.name: search for search in PROTOCOLS["paper"].searches}
    for name, search in reaches.items():
        generator = torch.Generator().manual_seed(0)
        furthest = {
            eps: (search.at(eps)(Slope(), x, y, generator=generator) - x).abs().min().item() for eps in (0.02, 0.3)
        }
        assert furthest[0.02] == pytest.approx(0.02)
        if search.reach is None:
            assert furthest[0.3] == pytest.approx(0.3), name
        elif "rs" in name:
            # From the far side of the ball it takes the whole of 2ε: some pixel of 3,600 starts there.
            assert search.reach == pytest.approx(10 / 255)
            within, beyond = (search.at(factor * search.reach) for factor in (0.999, 1.1))
            assert (within(Slope(), x, y) - x).min().item() == pytest.approx(-within.eps)
            assert (within(Slope(), x, y) - x).max().item() == pytest.approx(-within.eps)
            assert (beyond(Slope(), x, y) - x).max().item() > -0.95 * beyond.eps
        else:
            assert furthest[0.3] == pytest.approx(search.reach) == pytest.approx(20 / 255)
    assert sum(search.reach is None for search in reaches.values()) == 3
    assert PROTOCOLS["pgd"].searches[0].reach is None


def test_a_title_is_for_people_and_no_part_of_what_evidence_is_keyed_by() -> None:
    # The quick protocol has the searches of another.
    protocols = [protocol for key, protocol in KNOWN.items() if key != "standard-quick"]
    searches = [search for protocol in protocols for search in protocol.searches]
    titles = [search.title for search in searches]
    assert len(set(titles)) == len(titles) == 10
    assert "PGD-40 × 5, α = 2.5ε/40" in titles
    for search in searches:
        other = replace(search, title="another")
        assert (repr(other), other) == (repr(search), search)
    assert protocol_named("pgd", "l2").searches[0].title == PROTOCOLS["pgd"].searches[0].title


# Evaluations read back ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "norm"), [("paper", "linf"), ("pgd", "linf"), ("pgd", "l2")])
def test_an_evaluation_is_read_back_as_it_was_made(protocol: str, norm: Any, runs: Path) -> None:
    shutil.rmtree(runs / "at-0" / "evaluation" / protocol)
    made = attacked(runs / "at-0", protocol, norm=norm, seed=3, epsilons=(8 / 255, 0.3))
    found = load_evaluation(runs / "at-0" / "evaluation" / protocol)

    assert found.to_dict() == made.to_dict()
    assert (found.protocol, found.norm, found.epsilons, found.seed) == (made.protocol, norm, (8 / 255, 0.3), 3)
    assert torch.equal(found.clean, made.clean)
    assert found.outcomes.keys() == made.outcomes.keys()
    assert all(torch.equal(found.outcomes[name], made.outcomes[name]) for name in made.outcomes)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in plain values, branches too."""

    if place:
        yield place
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from leaves(value[name], (*place, name))


@pytest.mark.slow
def test_no_value_of_a_result_can_be_changed_or_lost_unnoticed(runs: Path) -> None:
    folder = runs / "at-0" / "evaluation" / "pgd"
    path, text = folder / "result.json", (folder / "result.json").read_text()
    # What the checks said and how long it took, the evidence does not hold. Of the rows by class two stand for all.
    places = [
        place
        for place in leaves(json.loads(text))
        if place[0] not in ("versions", "checks", "seconds", "sha256")
        and not ("per_class" in place and any(type(name) is int and name > 1 for name in place))
    ]
    assert len(places) > 30

    for place in places:
        for junk in (..., None, "x", 3.5, -1, 10**400, [], {}, [[]], {"eps": []}):
            value = json.loads(text)
            inner = value
            for name in place[:-1]:
                inner = inner[name]
            if junk is ...:
                del inner[place[-1]]
            else:
                inner[place[-1]] = junk
            rewritten(path, value)

            with pytest.raises(InputError) as caught:
                load_evaluation(folder)
            assert str(folder) in str(caught.value), (place, junk)
            identity = place in [("schema",), ("protocol", "name"), ("protocol", "version")] and junk is not ...
            assert identity or isinstance(caught.value, DamagedFileError), (place, junk, caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("seconds", value) for value in ({}, [], None, 3.5, {"pgd-40x5": "x"}, {"pgd-40x5": None}, {"other": 1.0})),
        *(("seconds", {"pgd-40x5": value}) for value in ("1.0", 10**400, [1.0])),
        ("seconds", {"pgd-40x5": 1.0, "other": 1.0}),
        *(("checks", value) for value in (None, {"a": 1}, 3, "x", [3], [{}], [{"name": "a", "verdict": "PASS"}])),
    ],
)
def test_what_the_evidence_does_not_hold_must_be_of_its_kind(name: str, value: Any, runs: Path) -> None:
    folder = runs / "at-0" / "evaluation" / "pgd"
    edited(folder / "result.json", **{name: value})
    with pytest.raises(DamagedFileError, match=r"result\.json is damaged"):
        load_evaluation(folder)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '{"schema": 1', "[" * 100_000, '{"protocol": []}', "{}", "\0"])
def test_a_result_that_is_none_is_damaged(text: str, runs: Path) -> None:
    folder = runs / "at-0" / "evaluation" / "pgd"
    (folder / "result.json").write_text(text)
    with pytest.raises(DamagedFileError, match=r"result\.json is damaged"):
        load_evaluation(folder)


def test_a_result_by_another_version_says_so(runs: Path) -> None:
    folder = runs / "at-0" / "evaluation" / "pgd"
    result = read_json(folder / "result.json")
    for change, said in (
        ({"protocol": result["protocol"] | {"version": 1}}, ["pgd", "v1", "v3"]),
        ({"protocol": result["protocol"] | {"name": "best"}}, ["'best'", "v3", "none"]),
        ({"schema": 1}, ["result.json", "schema 1", "3"]),
    ):
        rewritten(folder / "result.json", result | change)
        with pytest.raises(InputError) as caught:
            load_evaluation(folder)
        assert not isinstance(caught.value, DamagedFileError)
        assert_states(caught.value, folder, "evaluate again", "another folder")
        assert_states(str(caught.value).replace(str(folder), ""), *said)


def test_an_evaluation_that_was_not_finished_is_none(runs: Path) -> None:
    folder = runs / "at-0" / "evaluation" / "pgd"
    (folder / "result.json").unlink()
    with pytest.raises(InputError) as caught:
        load_evaluation(folder)
    assert_states(caught.value, folder, "no finished evaluation", "asgt evaluate", "--resume")


def _flip_outcome(kept: dict[str, Tensor]) -> None:
    kept["correct"][0, 0] ^= True


def _flip_clean(kept: dict[str, Tensor]) -> None:
    kept["clean"][0] ^= True


@pytest.mark.parametrize(
    "change",
    [
        _flip_outcome,
        _flip_clean,
        lambda kept: kept.pop("correct"),
        lambda kept: kept.pop("clean"),
        lambda kept: kept.update(correct=kept["correct"].float()),
        lambda kept: kept.update(clean=kept["clean"].int()),
        lambda kept: kept.update(correct=kept["correct"][1:]),
        lambda kept: kept.update(correct=kept["correct"][:, 1:]),
        lambda kept: kept.update(correct=kept["correct"][:, 1:], clean=kept["clean"][1:]),
        lambda kept: kept.update(correct=kept["correct"][:, :0], clean=kept["clean"][:0]),
        lambda kept: kept.update(clean=torch.tensor(True)),
        lambda kept: kept.update(correct=kept["correct"][None]),
    ],
)
@pytest.mark.parametrize(("protocol", "attack"), [("pgd", "pgd-40x5"), ("paper", "mifgsm-constant")])
def test_evidence_that_does_not_bear_the_figures_out_is_refused(
    change: Callable[[dict[str, Tensor]], object], protocol: str, attack: str, runs: Path
) -> None:
    folder = runs / "at-0" / "evaluation" / protocol
    kept, metadata = read_tensors(folder / f"{attack}-00000.safetensors")
    change(kept)
    write_tensors(folder / f"{attack}-00000.safetensors", kept, metadata)
    with pytest.raises(DamagedFileError, match=str(folder)):
        load_evaluation(folder)


def test_evidence_that_is_cut_missing_or_of_another_evaluation_is_named(runs: Path) -> None:
    folder = runs / "at-0" / "evaluation" / "paper"
    path = folder / "fgsm-00000.safetensors"

    shutil.copy(runs / "at-1" / "evaluation" / "paper" / "fgsm-00000.safetensors", path)
    with pytest.raises(DamagedFileError) as caught:
        load_evaluation(folder)
    assert_states(caught.value, path, "damaged", "manifest.json")
    # So it is without a manifest.
    resealed(folder)
    with pytest.raises(DamagedFileError) as caught:
        load_evaluation(folder)
    assert_states(caught.value, path, "damaged", "evidence")
    path.write_bytes(path.read_bytes()[:-3])
    resealed(folder)
    with pytest.raises(DamagedFileError) as caught:
        load_evaluation(folder)
    assert_states(caught.value, path, "damaged", "safetensors file")
    path.unlink()
    with pytest.raises(DamagedFileError) as caught:
        load_evaluation(folder)
    assert_states(caught.value, folder / "fgsm-*.safetensors", "evidence", "--resume")

    # What the message advises helps.
    attacked(runs / "at-0", "paper", resume=True)
    assert load_evaluation(folder).samples == IMAGES


# Comparing real runs --------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_their_seed_are_one_method_and_its_numbers_are_those_of_the_evidence(runs: Path) -> None:
    found = compare([runs / "at-1", str(runs / "st-0"), runs / "at-0"])

    assert [method.name for method in found.methods] == ["ST", "AT-FGSM"]
    st, at = found.methods
    assert [(run.folder, run.seed) for run in at.runs] == [(runs / "at-0", 0), (runs / "at-1", 1)]
    assert [[row["epoch"] for row in run.history] for run in at.runs] == [[0], [0]]
    assert (found.norm, found.samples, found.data) == ("linf", IMAGES, "digits")
    assert found.classes == tuple("0123456789")
    assert found.epsilons == {"paper": GRID, "pgd": GRID}
    assert (found.left_out, found.trained_eps(), found.table_epsilons()) == ((), 0.1, GRID)
    assert [column.attack for column in found.columns] == [
        *("fgsm", "pgd-constant-rs", "pgd-constant", "pgd-relative", "mifgsm-constant", "mifgsm-relative"),
        "pgd-40x5",
    ]
    last = found.columns[-1]
    assert (last.protocol, last.version, last.claim, last.title, last.reach) == (
        *("pgd", 3, "not yet a robustness claim", "PGD-40 × 5, α = 2.5ε/40", None),
    )
    assert found.columns[1].reach == pytest.approx(10 / 255)

    for column in found.columns:
        kept = {
            run: read_tensors(runs / run / "evaluation" / column.protocol / f"{column.attack}-00000.safetensors")[0]
            for run in ("at-0", "at-1", "st-0")
        }
        for row, eps in enumerate(GRID):
            values = [kept[run]["correct"][row].numpy().mean() for run in ("at-0", "at-1")]
            cell = found.at(at, column, eps)
            assert (cell.value, cell.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
            right = int(kept["st-0"]["correct"][row].sum())
            lone = found.at(st, column, eps)
            assert (lone.low, lone.high) == pytest.approx(tuple(binomtest(right, IMAGES).proportion_ci(0.95, "wilson")))
        clean = [kept[run]["clean"].numpy().mean() for run in ("at-0", "at-1")]
        assert found.clean(at).values == pytest.approx(clean)

    # A table of zeros or ones would compare nothing.
    assert 0 < found.at(at, found.columns[0], 0.05).value < 1


def test_methods_stand_in_the_order_of_the_registry_and_fgsm_before_pgd(runs: Path) -> None:
    changes = {
        "a": {"method": "at", "attack": "pgd", "steps": 7, "norm": "linf"},
        "b": {"method": "at", "attack": "fgsm", "epochs": 1, "lr": 0.5},
        "c": {"method": "at", "attack": "fgsm-rs"},
        "d": {"method": "st", **dict.fromkeys(("attack", "eps", "warmup", "clean_weight"))},
        "e": {"method": "at", "attack": "fgsm", "lr": 0.02},
    }
    for name, change in changes.items():
        shutil.copytree(runs / "at-0", runs / name)
        edited(runs / name / "config.yaml", **change)
    names = [method.name for method in compare([runs / name for name in changes]).methods]
    assert names == ["ST", "AT-FGSM (lr = 0.5)", "AT-FGSM (lr = 0.02)", "AT-FGSM-RS", "AT-PGD"]


@pytest.mark.slow
def test_what_only_some_runs_hold_is_left_out_and_said(runs: Path) -> None:
    shutil.rmtree(runs / "at-1" / "evaluation" / "paper")
    (runs / "st-0" / "evaluation" / "paper" / "result.json").unlink()
    withdraw(runs / "st-0" / "evaluation" / "paper")  # not finished
    again(runs / "st-0", "pgd", epsilons=(0.1, 0.2, 0.3))
    found = compare([runs / "at-0", runs / "at-1", runs / "st-0"])

    assert [column.protocol for column in found.columns] == ["pgd"]
    assert found.epsilons == {"pgd": (0.1, 0.2)}
    assert found.left_out == (
        "protocol paper is omitted: no evaluation by it in runs/at-1 and runs/st-0",
        "protocol pgd at eps 0.05 is omitted: not evaluated in runs/st-0",
        "protocol pgd at eps 0.3 is omitted: not evaluated in runs/at-0 and runs/at-1",
    )
    # A shared ε stands at another row of the evidence of each run.
    for method, run, rows in ((0, "st-0", slice(0, 2)), (1, "at-0", slice(1, 3))):
        kept = read_tensors(runs / run / "evaluation" / "pgd" / "pgd-40x5-00000.safetensors")[0]["correct"]
        curve = found.curve(found.methods[method], found.columns[0])
        assert [point.values[0] for _, point in curve[1:]] == pytest.approx(kept[rows].float().mean(dim=1).tolist())


def test_a_model_of_ones_own_is_compared_and_its_code_left_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("trap.py").write_text("raise SystemExit('the code of a run folder was run')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    edited(runs / "at-0" / "config.yaml", model="trap:net", width=None)
    assert [method.name for method in compare([runs / "at-0"]).methods] == ["AT-FGSM"]
    assert "trap" not in sys.modules


@pytest.mark.parametrize(
    ("data", "name"),
    [("ylecun/mnist", "mnist"), ("owner/set", "owner/set"), ("/far/away/birds", "birds"), ("runs", "runs")],
)
def test_the_data_is_named_for_people(data: str, name: str, runs: Path) -> None:
    edited(runs / "at-0" / "config.yaml", data=data)
    assert compare([runs / "at-0"]).data == name


# Refusals -------------------------------------------------------------------------------------------------------------


def test_what_is_no_finished_evaluated_run_is_refused(runs: Path) -> None:
    assert_states(refusal(), "no run", "asgt compare RUN…")
    assert_states(refusal("runs/none"), "no such run folder", "runs/none")
    assert_states(refusal("runs"), "runs", "not a run folder", "config.yaml")

    shutil.rmtree(runs / "st-0" / "evaluation" / "paper")
    (runs / "st-0" / "evaluation" / "pgd" / "result.json").unlink()
    line = refusal("runs/at-0", "runs/st-0")
    assert_states(line, "missing", "manifest.json", "asgt evaluate runs/st-0 --resume")
    shutil.rmtree(runs / "st-0" / "evaluation")
    assert_states(refusal("runs/at-0", "runs/st-0"), "no evaluation", "asgt evaluate runs/st-0")
    (runs / "st-0" / "training.json").unlink()
    assert_states(refusal("runs/st-0"), "not finished", "asgt train --resume --out runs/st-0")


def test_damaged_files_of_a_run_are_named(runs: Path) -> None:
    run = runs / "at-0"
    whole = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    result = read_json(run / "training.json")
    for name, content in (
        ("config.yaml", b"method: [at"),
        ("training.json", b"[]"),
        ("training.json", json.dumps(result | {"classes": 10 * [0]}).encode()),
        ("training.json", json.dumps(result | {"warnings": "all"}).encode()),
        ("metrics.jsonl", b""),
        ("metrics.jsonl", b"3\n"),
        ("metrics.jsonl", whole[run / "metrics.jsonl"].replace(b'"epoch": 0', b'"epoch": 7')),
        ("model.safetensors", whole[run / "model.safetensors"][:-1]),
    ):
        assert content != whole[run / name]
        (run / name).write_bytes(content)
        with pytest.raises(DamagedFileError) as caught:
            compare([run])
        assert_states(caught.value, run / name, "damaged")
        (run / name).write_bytes(whole[run / name])
    (run / "evaluation" / "pgd" / "result.json").write_text("{")
    with pytest.raises(DamagedFileError) as caught:
        compare([run])
    assert_states(caught.value, run / "evaluation" / "pgd" / "result.json", "damaged")


def test_a_run_counts_once(runs: Path) -> None:
    Path("link").symlink_to(runs / "at-0")
    assert_states(refusal("runs/at-0", "link"), "link", "twice", "remove")
    assert_states(refusal("runs/at-0", "runs/st-0/../at-0"), "runs/st-0/../at-0", "twice", "remove")

    shutil.copytree(runs / "at-0", runs / "copy")
    edited(runs / "copy" / "config.yaml", device="cpu", checkpoint_every=1.0)
    line = refusal("runs/at-0", "runs/at-1", "runs/copy")
    assert_states(line, "runs/at-0", "runs/copy", "same", "seed", "(0)", "--seed")


def test_runs_on_different_images_or_classes_are_refused(runs: Path) -> None:
    result, config = runs / "at-1" / "training.json", runs / "at-1" / "config.yaml"
    edited(result, train_data="0" * 64)
    assert_states(refusal("runs/at-0", "runs/at-1"), "runs/at-0", "runs/at-1", "settings", "trained", "images")
    assert len(compare([runs / "st-0", runs / "at-1"]).methods) == 2

    edited(result, test_data="0" * 64)
    line = refusal("runs/st-0", "runs/at-1")
    assert_states(line, "runs/st-0", "runs/at-1", "tested", "different images", "digits")
    edited(config, data="ylecun/mnist")
    line = refusal("runs/st-0", "runs/at-1")
    assert_states(line, "runs/st-0", "runs/at-1", "tested", "different data", "digits", "mnist")

    shutil.copy(runs / "at-0" / "training.json", result)
    edited(config, data="digits")
    edited(result, classes=list("012345678X"))
    assert_states(refusal("runs/st-0", "runs/at-1"), "runs/st-0", "runs/at-1", "different classes")


def test_evaluations_on_different_images_are_refused_with_the_command_that_mends_it(runs: Path) -> None:
    again(runs / "at-1", "pgd", images=12)
    facts = ("tested", "different images", "digits", "20", "12", "remove")
    evaluation, command = "runs/at-1/evaluation/pgd", "asgt evaluate runs/at-1 --protocol pgd --samples 20"
    line = refusal("runs/at-0", "runs/at-1")
    assert_states(line, evaluation, command)
    assert_states(line.replace(evaluation, "").replace(command, ""), "runs/at-0", "runs/at-1", *facts)
    # Of an evaluation that is left out anyway, nothing is asked.
    shutil.rmtree(runs / "at-0" / "evaluation" / "pgd")
    assert compare(["runs/at-0", "runs/at-1"]).samples == IMAGES


def test_a_costly_protocol_may_have_fewer_images_than_a_cheap_one(runs: Path) -> None:
    for name in ("at-0", "at-1", "st-0"):
        again(runs / name, "pgd", images=12)
    comparison = compare(["runs/at-0", "runs/at-1", "runs/st-0"])
    assert comparison.counts == {"paper": IMAGES, "pgd": 12}
    assert comparison.samples == IMAGES
    assert "n = 20 test images (pgd v3: 12)" in str(comparison)

    pgd, standard = comparison.judges()[-1], comparison.methods[0]
    (run,) = standard.runs
    for column, key in ((None, "paper"), (pgd, "pgd")):
        assert len(comparison.right(run, column, 0.0 if column is None else comparison.judging_eps())) == (
            comparison.samples_of(column)
        )
        accuracy = comparison.clean(standard) if column is None else dict(comparison.curve(standard, column))[0.0]
        assert accuracy == share(int(run.evaluations[key].clean.sum()), comparison.counts[key])
    assert differences_at(comparison, pgd, comparison.judging_eps()).differences[0].value == pytest.approx(
        comparison.at(standard, pgd, comparison.judging_eps()).value
        - comparison.at(comparison.methods[1], pgd, comparison.judging_eps()).value
    )
    by_class = class_accuracies(comparison)
    assert by_class is not None
    assert sum(row.n for row in by_class.methods[0].rows) == 12

    # So many images, but others: no table of them says one n.
    damaged = replace(run.evaluations["pgd"], data="0" * 64)
    same = replace(run, evaluations={"pgd": damaged, "standard": replace(damaged, data="1" * 64)})
    with pytest.raises(InputError, match="different images"):
        refuse_other_evaluations([same], ["pgd", "standard"])


def test_evaluations_without_a_common_norm_protocol_or_eps_are_refused(runs: Path) -> None:
    again(runs / "at-1", "pgd", norm="l2", epsilons=GRID)
    line = refusal("runs/at-0", "runs/at-1")
    evaluation, command = "runs/at-1/evaluation/pgd", "asgt evaluate runs/at-1 --protocol pgd --norm linf"
    assert_states(line, evaluation, command)
    line = line.replace(evaluation, "").replace(command, "")
    assert_states(line, "runs/at-0", "runs/at-1", "norms", "linf", "l2", "remove")

    again(runs / "at-1", "pgd", epsilons=(0.3,))
    line, command = refusal("runs/at-0", "runs/at-1"), "asgt evaluate runs/at-1 --protocol pgd --epsilons 0.05,0.1,0.2"
    assert_states(line, command)
    assert_states(line.replace(command, ""), "no eps", evaluation, "0.3", "0.05,0.1,0.2", "remove")

    shutil.rmtree(runs / "at-1" / "evaluation" / "paper")
    shutil.rmtree(runs / "at-0" / "evaluation" / "pgd")
    line, command = refusal("runs/at-0", "runs/at-1"), "asgt evaluate runs/at-1 --protocol paper"
    assert_states(line, command)
    assert_states(line.replace(command, ""), "no protocol", "runs/at-0", "paper", "runs/at-1", "pgd")


def test_an_evaluation_of_other_weights_or_in_anothers_place_is_refused(runs: Path) -> None:
    shutil.copy(runs / "at-1" / "model.safetensors", runs / "at-0" / "model.safetensors")
    assert_states(refusal("runs/at-0"), "runs/at-0/model.safetensors", "damaged", "manifest.json", "asgt verify")
    # Before there were manifests, the evidence alone told them apart.
    resealed(runs / "at-0")
    line = refusal("runs/at-0")
    assert_states(line, "runs/at-0/evaluation/paper", "weights", "runs/at-0/model.safetensors", "remove")
    assert_states(line, "asgt evaluate runs/at-0 --protocol paper")
    shutil.rmtree(runs / "at-1" / "evaluation" / "paper")
    (runs / "at-1" / "evaluation" / "pgd").rename(runs / "at-1" / "evaluation" / "paper")
    resealed(runs / "at-1")
    assert_states(refusal("runs/at-1"), "runs/at-1/evaluation/paper", "pgd")
