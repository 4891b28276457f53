"""An evaluation for people: estimates, the printed table, the notebook's view, the data frame and the figure."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.errors import InputError
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import Protocol, Search
from asgt.statistics import wilson
from support.messages import assert_states


@pytest.fixture(scope="module")
def evaluation(digits_net: tuple[nn.Module, Tensor, Tensor]) -> Evaluation:
    net, x, y = digits_net
    return asgt.evaluate(net, (x[:60], y[:60]), "paper", epsilons=["8/255", 0.1], selection="<b>the first</b> 60")


def test_accuracies_are_estimates(evaluation: Evaluation) -> None:
    right = int(evaluation.clean.sum())
    accuracy = evaluation.accuracy
    assert (accuracy.value, (accuracy.low, accuracy.high), accuracy.n) == (right / 60, wilson(right, 60), 60)

    fgsm = evaluation.outcomes["fgsm"]
    assert evaluation.robust_accuracy("8/255", "fgsm").value == int(fgsm[0].sum()) / 60
    assert evaluation.curve("fgsm")[0.1] == evaluation.robust_accuracy(0.1, "fgsm")
    together = evaluation.clean & torch.stack(list(evaluation.outcomes.values())).all(dim=0)[1]
    assert evaluation.robust_accuracy(0.1).value == int(together.sum()) / 60
    assert evaluation.robust_accuracy(0) == accuracy


def test_what_was_not_evaluated_is_refused(evaluation: Evaluation) -> None:
    with pytest.raises(InputError) as refused:
        evaluation.robust_accuracy(0.2)
    assert_states(refused.value, "0.2", "8/255", "0.1")
    with pytest.raises(InputError) as refused:
        evaluation.robust_accuracy(0.1, "fgms")
    assert_states(refused.value, "fgms", "fgsm")
    with pytest.raises(InputError) as refused:
        evaluation.curve()
    assert_states(refused.value, *evaluation.outcomes)


def test_it_prints_as_its_table(evaluation: Evaluation) -> None:
    lines = str(evaluation).splitlines()
    assert all(fact in lines[0] for fact in ("paper v1", "n = 60", "L∞", "seed 0", "Wilson 95 %"))
    assert lines[1].split() == ["ε", "clean", *evaluation.outcomes]
    assert [line.split()[0] for line in lines[2:5]] == ["0", "8/255", "0.1"]
    assert evaluation.curve("fgsm")[0.1].percent() in lines[4]
    assert "checks:" in lines[5]


@pytest.mark.slow
@pytest.mark.draws
def test_a_notebook_shows_table_and_figure_and_no_markup_of_others(evaluation: Evaluation) -> None:
    html = evaluation._repr_html_()
    assert html.count("<tr>") == 4
    assert "<svg" in html
    assert "<b>" not in html
    assert "&lt;b&gt;" in html


def test_the_frame_has_a_row_for_each_search_and_eps(evaluation: Evaluation) -> None:
    frame = evaluation.to_frame()
    assert list(frame.columns) == ["search", "eps", "accuracy", "low", "high", "n"]
    assert len(frame) == 3 * len(evaluation.outcomes)
    row = frame[(frame.search == "fgsm") & (frame.eps == 0.1)].iloc[0]
    assert row.accuracy == evaluation.robust_accuracy(0.1, "fgsm").value


def test_the_figure_has_a_curve_for_each_search(evaluation: Evaluation) -> None:
    axes = evaluation.plot()
    assert len(axes.get_lines()) == len(evaluation.outcomes)
    assert axes.get_lines()[0].get_ydata()[0] == pytest.approx(100 * evaluation.accuracy.value)
    assert re.search("paper v1.*n = 60", axes.get_title())


@pytest.mark.slow
def test_a_protocol_is_named_with_its_version_or_handed_over(digits_net: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits_net
    data = (x[:20], y[:20])
    named = asgt.evaluate(net, data, "pgd@3", epsilons="8/255")
    handed = asgt.evaluate(net, data, asgt.PROTOCOLS["pgd"], epsilons=[8 / 255])
    assert named.protocol == handed.protocol
    assert torch.equal(named.outcomes["pgd-40x5"], handed.outcomes["pgd-40x5"])
    with pytest.raises(InputError, match="pgd@3"):
        asgt.evaluate(net, data, "pgd@2", epsilons=[0.1])
    with pytest.warns(DeprecationWarning, match=r"asgt\.evaluate"):
        old = asgt.robustness_curve(net, data, attacks="pgd", epsilons=[8 / 255])
    assert torch.equal(old.outcomes["pgd-40x5"], named.outcomes["pgd-40x5"])


@pytest.mark.slow
def test_a_protocol_of_ones_own_is_read_back_and_never_taken_for_one_of_asgt(
    digits_net: tuple[nn.Module, Tensor, Tensor], tmp_path: Path
) -> None:
    net, x, y = digits_net
    data = (x[:20], y[:20])
    weak = (Search("worst-case", (asgt.Square(steps=1),)),)
    with pytest.raises(InputError) as refused:
        asgt.evaluate(net, data, replace(asgt.PROTOCOLS["standard"], searches=weak), epsilons=0.1)
    assert_states(refused.value, "standard v2", "standard v1", "rename")

    mine = Protocol("mine", 2, (*weak, Search("pgd", (asgt.PGD(steps=2),))), worst_case=True, claim="mine alone")
    made = asgt.evaluate(net, data, mine, epsilons=0.1, folder=tmp_path / "mine")
    read = asgt.load_evaluation(tmp_path / "mine")
    assert (str(read), read.to_dict()) == (str(made), made.to_dict())
    assert (read.protocol.name, read.protocol.version, read.protocol.claim) == ("mine", 2, "mine alone")

    falls = Protocol("falls", 1, (Search("fgsm", (asgt.FGSM(),)),), worst_case=False, claim="none")
    made = asgt.evaluate(net, data, falls, epsilons=0.1, folder=tmp_path / "falls")
    assert asgt.load_evaluation(tmp_path / "falls").to_dict() == made.to_dict()


@pytest.mark.parametrize(
    ("name", "searches", "worst_case", "facts"),
    [
        ("mine", (), True, ("mine", "no search")),
        ("../mine", (Search("a", (asgt.PGD(),)),), True, ("'../mine'",)),
        ("mine", (Search("../../a", (asgt.PGD(),)),), True, ("'../../a'",)),
        ("mine", (Search("a.exhaustive", (asgt.PGD(),)),), True, ("'a.exhaustive'",)),
        ("mine", (Search("a", (asgt.PGD(),)), Search("a", (asgt.FGSM(),))), True, ("two searches", "a")),
        ("mine", (Search("a", (asgt.PGD(), asgt.FGSM())),), False, ("a", "2 attacks")),
        ("mine", (Search("a", ()),), True, ("a", "0 attacks")),
    ],
)
def test_a_protocol_that_cannot_be_meant_is_refused(
    name: str, searches: tuple[Search, ...], worst_case: bool, facts: tuple[str, ...]
) -> None:
    with pytest.raises(InputError) as refused:
        Protocol(name, 1, searches, worst_case, "none")
    assert_states(refused.value, *facts)


@pytest.mark.slow
def test_grids_of_any_library_are_asked_for_by_plain_numbers(digits_net: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits_net
    single = np.array([8 / 255, 0.1], dtype=np.float32)
    for grid in (single, torch.from_numpy(single), list(single)):
        made = asgt.evaluate(net, (x[:20], y[:20]), asgt.FGSM(), epsilons=grid)
        assert [made.robust_accuracy("8/255"), made.robust_accuracy(0.1)] == list(made.curve().values())
    for scalar in (np.float32(0.1), np.array(0.1), torch.tensor(0.1), "0.1"):
        assert len(asgt.evaluate(net, (x[:20], y[:20]), asgt.FGSM(), epsilons=scalar).epsilons) == 1
    for wrong, facts in ((3, ("3", "not an attack")), (asgt.FGSM, ("FGSM", "FGSM()"))):
        with pytest.raises(InputError) as refused:
            asgt.evaluate(net, (x[:20], y[:20]), wrong, epsilons=0.1)  # type: ignore[arg-type]
        assert_states(refused.value, *facts)


def test_results_on_the_same_axes_keep_their_colours_and_names(evaluation: Evaluation) -> None:
    axes = evaluation.plot(label="first")
    count = len(axes.get_lines())
    evaluation.plot(axes, label="second")
    lines = axes.get_lines()
    assert len(lines) == 2 * count
    assert lines[0].get_color() != lines[count].get_color()
    assert [str(line.get_label()).split()[0] for line in lines] == ["first"] * count + ["second"] * count


def test_estimates_of_one_model_are_equal_after_pickling(evaluation: Evaluation) -> None:
    estimate = evaluation.accuracy
    again = pickle.loads(pickle.dumps(estimate))
    assert (again, hash(again)) == (estimate, hash(estimate))
    assert {evaluation: 1}[evaluation] == 1
