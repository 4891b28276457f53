"""One rule for catastrophic overfitting: in the check, and in what a comparison repeats of a run's evaluations."""

from __future__ import annotations

import pytest
import torch

from asgt.evaluation.check import Check
from asgt.evaluation.health import OVERFITTING, catastrophic_levels, catastrophic_on_test, is_catastrophic
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import protocol_named

GRID = (0.05, 0.1, 0.2)


def made(
    protocol: str, right: dict[str, tuple[int, ...]], checks: tuple[Check, ...] = (), data: str = "d"
) -> Evaluation:
    """An evaluation of 100 images, of which so many stay right at each ε; all of them where a search is not told."""

    named = protocol_named(protocol)
    counts = {search.name: right.get(search.name, (100,) * len(GRID)) for search in named.searches}
    return Evaluation(
        protocol=named,
        norm="linf",
        epsilons=GRID,
        seed=0,
        model="m",
        data=data,
        classes=10,
        clean=torch.ones(100, dtype=torch.bool),
        outcomes={name: torch.stack([torch.arange(100) < count for count in each]) for name, each in counts.items()},
        checks=checks,
    )


@pytest.mark.parametrize(
    ("one", "several", "dies"), [(0.9, 0.1, True), (0.9, 0.5, False), (0.3, 0.12, False), (0.4, 0.1, True)]
)
def test_several_steps_take_half_of_what_one_leaves_and_20_points(one: float, several: float, dies: bool) -> None:
    assert is_catastrophic(one, several) == dies


def test_a_model_that_is_robust_below_has_not_died() -> None:
    assert catastrophic_levels(GRID, 1.0, (0.95, 0.9, 0.85), (0.9, 0.3, 0.1)) == [2]
    assert catastrophic_levels(GRID, 1.0, (0.95, 0.9, 0.85), (0.2, 0.1, 0.0)) == [0, 1, 2]
    # One step far beyond the training ε leaves little of the accuracy.
    assert catastrophic_levels(GRID, 1.0, (0.7, 0.6, 0.5), (0.1, 0.1, 0.0)) == []


def test_one_step_is_held_against_the_first_worst_case_at_the_training_eps() -> None:
    paper = made("paper", {"fgsm": (99, 90, 80)})
    died, healthy = made("pgd", {"pgd-40x5": (50, 10, 0)}), made("pgd", {"pgd-40x5": (95, 80, 70)})
    told = catastrophic_on_test([paper, died], 0.1)
    assert told is not None
    assert all(fact in told for fact in (OVERFITTING, "90.0 % under FGSM", "10.0 % under PGD-40 × 5", "eps 0.1"))
    assert catastrophic_on_test([paper, healthy], 0.1) is None
    # At an ε that was not evaluated, or on other images, nothing is held against anything.
    assert catastrophic_on_test([paper, died], 0.15) is None
    assert catastrophic_on_test([made("paper", {"fgsm": (99, 90, 80)}, data="other"), died], 0.1) is None


def test_a_run_with_standard_alone_is_warned_of_by_its_check() -> None:
    check = Check(
        OVERFITTING, "WARN", "90.0% under one step, 10.0% under several at ε = 0.1 (n = 100)", "train with PGD"
    )
    told = catastrophic_on_test([made("standard", {"worst-case": (50, 10, 0)}, (check,))], 0.1)
    assert told is not None
    assert check.evidence in told
    assert "standard" in told
    passed = Check(OVERFITTING, "PASS", "fine")
    assert catastrophic_on_test([made("standard", {}, (passed,))], 0.1) is None
