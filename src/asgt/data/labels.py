"""Finds the column of the labels in a table, and the class of each of its values.

A column is a candidate if its values repeat and are not constant: names of classes, whole numbers, truth values,
strings, or one-hot rows. Two candidates are refused. Classes are matched between splits by names, not by numbers.

"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError, unknown
from .folders import nearest
from .spelling import same_number, variants

__all__ = ["Column", "Labels", "aligned", "label_column", "labels_of"]


@dataclass(frozen=True)
class Column:
    """A column of one split that may hold labels.

    Attributes:
        name: of the column.
        kind: ``"class"`` (numbers with names), ``"whole"``, ``"truth"``, ``"text"``, ``"real"``, ``"list"`` or
            ``"other"``.
        read: returns the values, one per row, ``None`` for a missing one.
        names: of the classes, for the kind ``"class"``.
    """

    name: str
    kind: str
    read: Callable[[], list[Any]]
    names: tuple[str, ...] = ()

    @cached_property
    def values(self) -> list[Any]:
        """One value per row; ``None`` also for NaN."""

        values = self.read()
        if self.kind == "real":
            return [None if value is None or math.isnan(value) else value for value in values]
        return values

    @cached_property
    def given(self) -> list[Any]:
        """The values that are not missing."""

        return [value for value in self.values if value is not None]

    @property
    def is_empty(self) -> bool:
        """Whether no row has a label; the hub writes -1 for none."""

        return not self.given or (self.kind in ("class", "whole", "real") and all(value == -1 for value in self.given))

    @cached_property
    def is_one_hot(self) -> bool:
        """Whether all rows are lists of zeros and ones, of one length."""

        if self.kind != "list" or not self.given:
            return False
        return len({len(row) for row in self.given}) == 1 < len(self.given[0]) and all(
            value in (0, 1) for row in self.given for value in row
        )

    @cached_property
    def repeats(self) -> bool:
        """Whether there are at least two values, and fewer than rows."""

        count = len(set(self.given))
        return 2 <= count < len(self.given)

    @property
    def is_candidate(self) -> bool:
        """Whether the kind and the values of the column allow labels."""

        if self.kind == "real":
            # What pandas makes of whole numbers where one is missing.
            return all(float(value).is_integer() for value in self.given) and self.repeats
        return self.is_one_hot or (self.kind in ("class", "whole", "truth", "text") and self.repeats)


@dataclass(frozen=True)
class Labels:
    """The labels of one split.

    Attributes:
        numbers: int64 (N,), in [0, K).
        classes: the K names, in the order of the numbers.
        is_one_hot: whether the classes are indices of one-hot rows, whose length is the same in all splits.
    """

    numbers: Tensor
    classes: tuple[str, ...]
    is_one_hot: bool = False


def label_column(columns: Mapping[str, Column], wanted: str | None, name: str) -> str:
    """The name of the column that holds the labels.

    Args:
        columns: those of the training split without images.
        wanted: the user's choice.
        name: of the data, for messages.

    Raises:
        InputError: there is none, there are several, or the chosen one cannot hold labels.
    """

    if wanted is not None:
        if wanted not in columns:
            raise unknown("label column", wanted, columns)
        column = columns[wanted]
        if column.kind == "real" and not column.is_candidate:
            raise InputError(
                f"{name}: the labels in {wanted!r} are real numbers: give classes, as whole numbers or names"
            )
        if column.kind == "other" or (column.kind == "list" and not column.is_one_hot):
            raise InputError(
                f"{name}: the column {wanted!r} has no labels: give each class as a number, a name, or a row of "
                "zeros with one 1"
            )
        return wanted

    candidates = [column.name for column in columns.values() if column.is_candidate]
    if len(candidates) > 1:
        raise InputError(
            f"{name} has {len(candidates)} columns that may be the labels ({', '.join(candidates)}): choose one "
            "with --label-column"
        )
    # Without a candidate, names of classes are labels all the same, and so is a single value for all.
    plain = [column for column in columns.values() if column.kind in ("whole", "truth", "text")]
    candidates = candidates or [column.name for column in columns.values() if column.kind == "class"]
    candidates = candidates or [column.name for column in plain if len(set(column.given)) == 1]
    if len(candidates) == 1:
        return candidates[0]
    real = [column.name for column in columns.values() if column.kind == "real"]
    if real and not candidates:
        raise InputError(f"{name}: the labels in {real[0]!r} are real numbers: give classes, as whole numbers or names")
    unique = [column.name for column in plain if column.given]
    seen = f"; the values of {', '.join(map(repr, unique[:3]))} do not repeat" if unique and not candidates else ""
    raise InputError(
        f"{name} has no column of labels{seen}: put the images of each class in its own folder, or give --label-column"
    )


def labels_of(column: Column, where: str) -> Labels:
    """The labels of one split, by its own classes.

    Args:
        column: its labels.
        where: the data and the split, for messages.

    Raises:
        InputError: a row has no label or several, a number is out of range, or two labels are spellings of one.
    """

    values = column.values
    for row, value in enumerate(values):
        if value is None or (column.kind == "text" and not value.strip()):
            raise InputError(f"{where}: image {row} has no label in {column.name!r}")

    if column.kind == "class":
        for row, value in enumerate(values):
            if not 0 <= value < len(column.names):
                raise InputError(
                    f"{where}: image {row}: label {value} is out of range: there are {len(column.names)} classes, 0 to "
                    f"{len(column.names) - 1}"
                )
        return Labels(torch.tensor(values, dtype=torch.int64), column.names)
    if column.kind == "list":
        return _one_hot(column, where)
    if column.kind == "real":
        values = [int(value) for value in values]

    known = sorted(set(values))
    _refuse_unclear(known, where, column)
    number = {value: index for index, value in enumerate(known)}
    return Labels(torch.tensor([number[value] for value in values], dtype=torch.int64), tuple(map(str, known)))


def _one_hot(column: Column, where: str) -> Labels:
    if not column.is_one_hot:
        raise InputError(f"{where}: the rows of {column.name!r} are not zeros and ones of one length: repair them")
    for row, values in enumerate(column.values):
        ones = sum(values)
        if ones != 1:
            raise InputError(f"{where}: image {row} has {int(ones)} classes in {column.name!r}: give exactly one")
    numbers = [list(values).index(1) for values in column.values]
    names = tuple(str(number) for number in range(len(column.values[0])))
    return Labels(torch.tensor(numbers, dtype=torch.int64), names, is_one_hot=True)


def _refuse_unclear(known: Sequence[Any], where: str, column: Column) -> None:
    """Refuses labels of which two may be one, or one may be none."""

    names = [str(value) for value in known]
    if pair := variants(names):
        raise InputError(
            f"{where}: the labels {pair[0]!a} and {pair[1]!a} differ only in blanks, case or Unicode form: use one "
            "spelling"
        )
    if pair := same_number(names):
        raise InputError(
            f"{where}: the labels {pair[0]!r} and {pair[1]!r} are the same number: use one spelling, or names"
        )
    if column.kind in ("whole", "real") and known[:1] == [-1] and len(known) > 1 and known != [-1, 1]:
        raise InputError(
            f"{where}: the column {column.name!r} has -1 in addition to {known[1]} to {known[-1]}, which "
            "usually means no "
            "label: remove these rows, or number the classes from 0"
        )


def aligned(labels: Labels, known: Labels, where: str, known_from: str) -> Tensor:
    """Labels renumbered to other classes, matched by name.

    Args:
        labels: of the split to align.
        known: the labels with the target classes.
        where: the data and the split, for messages.
        known_from: the split that the classes come from.

    Returns:
        int64 (N,).

    Raises:
        InputError: a label is not one of the classes, a name is ambiguous, or one-hot rows differ in length.
    """

    classes = known.classes
    if labels.is_one_hot and known.is_one_hot and len(labels.classes) != len(classes):
        raise InputError(
            f"{where}: the rows of zeros and ones have {len(labels.classes)} entries, but {len(classes)} in "
            f"{known_from}: write rows of one length"
        )
    if labels.classes == classes:
        return labels.numbers
    counts = Counter([*classes])
    number = {name: index for index, name in enumerate(classes)}
    targets = torch.full((len(labels.classes),), -1, dtype=torch.int64)
    for index in labels.numbers.unique().tolist():
        name = labels.classes[index]
        if name not in number:
            near = nearest(name, classes)
            hint = f"; did you mean {near!a}?" if near else ""
            raise InputError(f"{where}: label {name!a} does not occur in {known_from}{hint}")
        if counts[name] > 1 or labels.classes.count(name) > 1:
            raise InputError(f"{where}: several classes are called {name!r}, and {known_from} orders them otherwise")
        targets[index] = number[name]
    return targets[labels.numbers]
