"""An evaluation for people: estimates, the printed table, the notebook's view, the data frame and the figure."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.errors import InputError
from asgt.evaluation.outcomes import Evaluation
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
    assert "can it be believed?" in lines[5]


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
