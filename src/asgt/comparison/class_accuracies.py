"""Accuracy of each class, clean and under the strictest protocol, for each method of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.by_class import FEW, MANY, ByClass, by_class
from ..statistics import Estimate, share_over_runs
from .comparing import Column, Comparison
from .method_naming import Method

__all__ = ["ClassAccuracies", "ClassRow", "MethodByClass", "class_accuracies"]


@dataclass(frozen=True)
class ClassRow:
    """A class.

    Attributes:
        name: its name.
        n: its images.
        clean: its clean accuracy.
        robust: its accuracy under the strictest protocol.
        is_worst: whether no class has a lower robust accuracy.
    """

    name: str
    n: int
    clean: Estimate
    robust: Estimate
    is_worst: bool


@dataclass(frozen=True)
class MethodByClass:
    """A method's accuracies by class: of one run with its interval, of several seeds the mean ± standard deviation.

    Attributes:
        method: the method.
        clean: its balanced accuracy.
        robust: its balanced accuracy under the strictest protocol.
        worst: the class with the lowest robust accuracy; of several, the first.
        as_bad: the number of classes with that accuracy.
        rows: the classes to show: up to twenty, else the five with the lowest robust accuracy.
    """

    method: Method
    clean: Estimate
    robust: Estimate
    worst: ClassRow
    as_bad: int
    rows: tuple[ClassRow, ...]


@dataclass(frozen=True)
class ClassAccuracies:
    """Accuracies by class at one ε.

    Attributes:
        judge: the attack.
        eps: the ε at which methods are compared.
        classes: the number of classes with images.
        absent: the number of classes of the models without images.
        methods: the methods of the comparison, in its order.
    """

    judge: Column
    eps: float
    classes: int
    absent: int
    methods: tuple[MethodByClass, ...]


def class_accuracies(comparison: Comparison) -> ClassAccuracies | None:
    """Accuracies by class; ``None`` if no evaluation of these images has labels.

    All runs were evaluated on the same images, so the labels of one evaluation are those of all.
    """

    judge, eps = comparison.judges()[-1], comparison.judging_eps()
    runs = [run for method in comparison.methods for run in method.runs]
    images = runs[0].evaluations[judge.key].data
    known = next(
        (
            (each.labels, each.class_names, each.classes)
            for run in runs
            for key in comparison.epsilons
            for each in [run.evaluations[key]]
            if each.labels is not None and each.data == images
        ),
        None,
    )
    if known is None:
        return None
    several = [
        (
            method,
            [by_class(run.evaluations[judge.key].clean, *known) for run in method.runs],
            [by_class(comparison.right(run, judge, eps), *known) for run in method.runs],
        )
        for method in comparison.methods
    ]
    first = several[0][1][0]
    return ClassAccuracies(judge, eps, len(first.classes), first.absent, tuple(_of_method(*each) for each in several))


def _of_method(method: Method, clean: Sequence[ByClass], robust: Sequence[ByClass]) -> MethodByClass:
    places = range(len(clean[0].classes))
    pairs = [
        [_over_runs([run.classes[place].accuracy for run in runs]) for place in places] for runs in (clean, robust)
    ]
    lowest = min(each.value for each in pairs[1])
    rows = [
        ClassRow(each.name, each.accuracy.n, of_clean, of_robust, of_robust.value == lowest)
        for each, of_clean, of_robust in zip(clean[0].classes, *pairs, strict=True)
    ]
    worst = [row for row in rows if row.is_worst]
    shown = rows if len(rows) <= MANY else sorted(rows, key=lambda row: row.robust.value)[:FEW]
    return MethodByClass(
        method,
        _over_runs([run.balanced for run in clean]),
        _over_runs([run.balanced for run in robust]),
        worst[0],
        len(worst),
        tuple(shown),
    )


def _over_runs(estimates: Sequence[Estimate]) -> Estimate:
    """That of the only run, or the mean ± one standard deviation of several."""

    if len(estimates) == 1:
        return estimates[0]
    return share_over_runs([each.value for each in estimates], estimates[0].n)
