"""Accuracy of each class, and their mean: an accuracy over all images can hide a class with low accuracy.

Balanced accuracy is the mean of the accuracies of the classes, each with the same weight, whatever its number of
images. Classes without images have no accuracy and are not part of the mean.

References:
    Brodersen et al. 2010, "The balanced accuracy and its posterior distribution"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from ..numbers import counted, eps_text
from ..statistics import Estimate, mean_of_shares, share
from ..tabular import Table, Tabular
from ..visible import LONGEST_NAME, visible

__all__ = [
    "FEW",
    "MANY",
    "NOT_CORRECTED",
    "ByClass",
    "ClassShare",
    "by_class",
    "mean_over_classes",
    "told_by_class",
]

MANY = 20
"""Up to this many classes are shown, one per row; of more, the :data:`FEW` with the lowest accuracy."""
FEW = 5

NOT_CORRECTED = "the intervals of classes are not corrected for the number of classes"

_MOST_FIGURES = 50_000
"""Accuracies of classes, over searches and ε, that ``result.json`` lists one by one."""


@dataclass(frozen=True)
class ClassShare:
    """One class.

    Attributes:
        label: its number.
        name: its name; with the number, where several classes have the same name.
        right: how many of its images are right.
        accuracy: their share, with Wilson's 95 % interval; ``accuracy.n`` images.
    """

    label: int
    name: str
    right: int
    accuracy: Estimate


@dataclass(frozen=True)
class ByClass(Tabular):
    """Accuracy by class, of the same images under the same attack. ``print`` shows its table, and so does a notebook.

    Attributes:
        classes: the classes that have images, by their numbers.
        absent: the number of classes of the model without images.
    """

    classes: tuple[ClassShare, ...]
    absent: int

    def table(self) -> Table:
        """A row for each class; of more than :data:`MANY`, the :data:`FEW` with the lowest accuracy."""

        shown = self.classes if len(self.classes) <= MANY else self.lowest(FEW)
        images, classes = sum(each.accuracy.n for each in self.classes), counted(len(self.classes), "class", "classes")
        which = "" if len(shown) == len(self.classes) else f" · the {FEW} classes with the lowest accuracy"
        return Table(
            f"accuracy % [Wilson 95 %] by class · n = {images} images of {classes}{which}",
            ["class", "images", "right", "accuracy"],
            [[each.name, str(each.accuracy.n), str(each.right), each.accuracy.percent()] for each in shown],
            [f"balanced accuracy % [95 %]: {self.balanced.percent()}; worst class: {self.worst_text()}", NOT_CORRECTED],
        )

    @cached_property
    def balanced(self) -> Estimate:
        """Balanced accuracy, with the interval of :func:`asgt.statistics.mean_of_shares`."""

        return mean_of_shares([(each.right, each.accuracy.n) for each in self.classes])

    @property
    def worst(self) -> ClassShare:
        """The class with the lowest accuracy; of several, the first."""

        return min(self.classes, key=lambda each: each.accuracy.value)

    @property
    def as_bad(self) -> int:
        """How many classes have the lowest accuracy."""

        lowest = self.worst.accuracy.value
        return sum(each.accuracy.value == lowest for each in self.classes)

    def lowest(self, count: int) -> tuple[ClassShare, ...]:
        """The given number of classes with the lowest accuracy, the lowest first; ties go to the lower class number."""

        return tuple(sorted(self.classes, key=lambda each: (each.accuracy.value, each.label))[:count])

    def worst_text(self) -> str:
        """The worst class in one line, as ``7 with 12.0 [5.6, 23.8] % (n = 50)``."""

        worst, others = self.worst, self.as_bad - 1
        more = (
            f", as {'has' if others == 1 else 'have'} {counted(others, 'other class', 'other classes')}"
            if others
            else ""
        )
        name = " ".join(visible(worst.name, LONGEST_NAME).split())  # a name cannot pretend to be a line of ours
        return f"{name} with {worst.accuracy.percent()} % (n = {worst.accuracy.n}){more}"


def by_class(right: Tensor, labels: Tensor, names: Sequence[str], classes: int) -> ByClass:
    """Accuracy by class.

    Args:
        right: which images are right, bool (N,).
        labels: their classes, int64 (N,), each below ``classes`` and ``len(names)``.
        names: of the classes.
        classes: the number of classes of the model.
    """

    rights, counts = (each.tolist() for each in _by_label(right, labels))
    often = Counter(names)
    present = [label for label, count in enumerate(counts) if count]
    return ByClass(
        tuple(
            ClassShare(
                label,
                names[label] if often[names[label]] == 1 else f"{names[label]} (label {label})",
                rights[label],
                share(rights[label], counts[label]),
            )
            for label in present
        ),
        classes - len(present),
    )


def mean_over_classes(right: Tensor, labels: Tensor) -> float:
    """Balanced accuracy: the mean, over the classes that occur, of the share of their images that are right.

    Args:
        right: which images are right, bool (N,).
        labels: their classes, int64 (N,).
    """

    rights, counts = _by_label(right.cpu(), labels.cpu())
    occur = counts > 0
    return float((rights[occur].double() / counts[occur].double()).mean())


def _by_label(right: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The number of correct images of each label, and of all its images, int64 (L,) each."""

    counts = labels.bincount()
    return labels[right].bincount(minlength=len(counts)), counts


def told_by_class(
    clean: ByClass, attacked: Mapping[str, Sequence[tuple[float, ByClass]]], shown: tuple[float, ByClass]
) -> dict[str, Any]:
    """The values of ``result.json`` about classes.

    Args:
        clean: the classes without an attack.
        attacked: for each search, the same classes at each ε.
        shown: an ε, and the same at it under all searches: if there are too many values, it says which are listed.
    """

    which, listed = "all classes that have images", clean.classes
    if len(listed) * (1 + sum(map(len, attacked.values()))) > _MOST_FIGURES:
        which, listed = f"the {FEW} with the lowest accuracy at eps {eps_text(shown[0])}", shown[1].lowest(FEW)
    places = {each.label: place for place, each in enumerate(clean.classes)}

    def of_class(each: ClassShare) -> dict[str, Any]:
        place = places[each.label]
        attacks = {
            name: [{"eps": eps} | _counted(several.classes[place]) for eps, several in rows]
            for name, rows in attacked.items()
        }
        told = {"label": each.label, "name": each.name, "samples": each.accuracy.n}
        return told | {"clean": _counted(clean.classes[place]), "attacks": attacks}

    return {
        "balanced": {
            "interval": "MOVER 95%",
            "classes": len(clean.classes),
            "classes_without_images": clean.absent,
            "clean": _balanced(clean),
            "attacks": {
                name: [{"eps": eps} | _balanced(each) for eps, each in rows] for name, rows in attacked.items()
            },
        },
        "per_class": {
            "interval": "Wilson 95%, not corrected for the number of classes",
            "listed": which,
            "classes": [of_class(each) for each in listed],
        },
    }


def _balanced(found: ByClass) -> dict[str, Any]:
    worst = {"label": found.worst.label, "name": found.worst.name, "classes_as_bad": found.as_bad}
    return _ends(found.balanced) | {"worst": worst}


def _counted(each: ClassShare) -> dict[str, Any]:
    return {"right": each.right} | _ends(each.accuracy)


def _ends(estimate: Estimate) -> dict[str, Any]:
    return {"accuracy": estimate.value, "low": estimate.low, "high": estimate.high}
