"""The paper as data, from ``paper.yaml``: its numbers, its errata, and the choices that it does not specify."""

from __future__ import annotations

from dataclasses import dataclass
from math import isclose
from pathlib import Path
from statistics import fmean
from typing import Any

from ..comparison.comparing import Comparison
from ..errors import DamagedFileError
from ..files import read_yaml
from ..statistics import Estimate
from .verdicts import Claims, Reading, column_of, named

__all__ = ["PAPER", "Paper", "Quoted", "load_paper", "mean_distance", "ours"]

PAPER = Path(__file__).parent / "paper.yaml"


@dataclass(frozen=True)
class Quoted:
    """A number of the paper: an accuracy in %, and its place in the text."""

    data: str
    method: str
    attack: str
    eps: float
    accuracy: float
    place: str


@dataclass(frozen=True)
class Paper:
    """The file, read.

    Attributes:
        title: of the paper.
        source: who wrote it, and where it is.
        quoted: every accuracy that the text states.
        figures: its curves: ``number``, ``data``, what one ``shows``, and ``methods``, including additional ones.
        stated: its claims in the text: ``place``, ``says``, ``claims`` (ids), and a ``note`` or none.
        errata: ``place``, what is ``printed``, what is ``meant``.
        choices: ``what`` it does not specify, the ``setting`` for it or ``None``, what was ``chosen``, and ``why``.
    """

    title: str
    source: str
    quoted: tuple[Quoted, ...]
    figures: tuple[dict[str, Any], ...]
    stated: tuple[dict[str, Any], ...]
    errata: tuple[dict[str, Any], ...]
    choices: tuple[dict[str, Any], ...]


def load_paper(path: Path = PAPER) -> Paper:
    """Reads the file.

    Raises:
        DamagedFileError: it lacks a part.
    """

    values = read_yaml(path)
    try:
        quoted = tuple(Quoted(**line) for line in values["quoted"])
        lists = [tuple(values[name]) for name in ("figures", "stated", "errata", "choices")]
        return Paper(values["title"], values["source"], quoted, *lists)
    except (LookupError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: it lacks a part") from error


def ours(comparison: Comparison, claims: Claims, quoted: Quoted, reading: Reading) -> Estimate | None:
    """The measured accuracy for a number of the paper; ``None`` if no run was evaluated with it."""

    method = named(comparison, claims.methods[quoted.data][quoted.method])
    column = column_of(comparison, reading, quoted.attack)
    if quoted.data != comparison.data or method is None or column is None:
        return None
    eps = next((eps for eps in comparison.epsilons[column.key] if isclose(eps, quoted.eps)), None)
    return None if eps is None else comparison.at(method, column, eps)


def mean_distance(comparison: Comparison, claims: Claims, paper: Paper, reading: Reading) -> float | None:
    """The mean distance between the measured accuracies and those of the paper, in points; ``None`` without any."""

    pairs = [(quoted.accuracy, ours(comparison, claims, quoted, reading)) for quoted in paper.quoted]
    distances = [abs(100 * accuracy.value - stated) for stated, accuracy in pairs if accuracy is not None]
    return fmean(distances) if distances else None
