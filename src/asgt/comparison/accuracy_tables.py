"""Tables of accuracies: methods × clean and each attack, at one ε."""

from __future__ import annotations

from dataclasses import dataclass

from ..statistics import Estimate
from .comparing import Column, Comparison
from .method_naming import Method

__all__ = ["AccuracyTable", "table_at", "tables_of"]


@dataclass(frozen=True)
class AccuracyTable:
    """Methods × clean and each attack, at one ε.

    Attributes:
        eps: the ε.
        trained: whether most runs were trained at it.
        columns: the attacks.
        rows: a row for each method: its clean accuracy, then that under each attack.
    """

    eps: float
    trained: bool
    columns: tuple[Column, ...]
    rows: tuple[tuple[Method, tuple[Estimate, ...]], ...]


def table_at(comparison: Comparison, eps: float) -> AccuracyTable:
    """The table of a comparison at an ε that all its protocols share.

    Raises:
        ValueError: some run was not evaluated at that ε.
    """

    return AccuracyTable(
        eps,
        eps == comparison.trained_eps(),
        comparison.columns,
        tuple(
            (
                method,
                (comparison.clean(method), *(comparison.at(method, column, eps) for column in comparison.columns)),
            )
            for method in comparison.methods
        ),
    )


def tables_of(comparison: Comparison) -> tuple[AccuracyTable, ...]:
    """The tables that the page and the terminal show: one for each of a few ε."""

    return tuple(table_at(comparison, eps) for eps in comparison.table_epsilons())
