"""The data sets that have a short name. To add one: one file with its record, and one line in :data:`DATA_SETS`.

Nothing here imports PyTorch or NumPy before a data set is loaded, so that ``asgt --help`` stays fast.
"""

from __future__ import annotations

from .cifar10 import CIFAR10
from .digits import DIGITS
from .mnist import MNIST
from .record import DataSet

__all__ = ["DATA_SETS", "DataSet", "augment_help", "data_help", "data_set", "eps_help"]

DATA_SETS: dict[str, DataSet] = {
    "digits": DIGITS,
    "mnist": MNIST,
    "cifar10": CIFAR10,
}
"""The data sets by their short names, in the order in which messages list them."""


def data_set(data: str) -> DataSet:
    """The record of some data.

    Args:
        data: a short name, a hub id or a folder.

    Returns:
        The record of a short name, or of its hub id. For other data, a record of that name with the defaults.

    """

    if data in DATA_SETS:
        return DATA_SETS[data]
    return next((known for known in DATA_SETS.values() if known.hub == data), DataSet(data))


def data_help() -> str:
    """The short names for a help text: ``digits, mnist, cifar10``."""

    return ", ".join(DATA_SETS)


def eps_help() -> str:
    """The default ε by data set for a help text: ``0.1 for digits, 0.3 for mnist, else 8/255``."""

    usual = DataSet("").eps
    return ", ".join(
        [*(f"{known.eps:g} for {name}" for name, known in DATA_SETS.items() if known.eps != usual), "else 8/255"]
    )


def augment_help() -> str:
    """The default augmentation by data set for a help text: ``crop-flip for cifar10, else none``."""

    usual = DataSet("").augment
    return ", ".join(
        [
            *(f"{known.augment} for {name}" for name, known in DATA_SETS.items() if known.augment != usual),
            f"else {usual}",
        ]
    )
