"""The fields of the page: what they begin with, and what their values request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from ..attacks import Norm
from ..errors import InputError, shown
from ..numbers import number
from .bench import Bench
from .choices import AttackChoice
from .looking import Wanted
from .own_picture import LARGEST, Prepared, of_data_uri, prepared

__all__ = [
    "ANY_CLASS",
    "OWN_ANSWER",
    "SOURCES",
    "WINDOW",
    "EpsRange",
    "Source",
    "eps_range",
    "filled_in",
    "most_steps",
    "window",
]

Source: TypeAlias = Literal["test image", "drawing", "upload"]

SOURCES: tuple[Source, ...] = get_args(Source)
"""Where the image comes from."""

OWN_ANSWER = "each model's own answer"
"""What is attacked and explained where nobody says what a picture shows."""

ANY_CLASS = "any wrong class"
"""What an attack aims at where no target is chosen."""

WINDOW = 24
"""Test images that are shown at a time."""


@dataclass(frozen=True)
class EpsRange:
    """The field of ε.

    Attributes:
        label: what it is called, with its unit.
        top: the largest value.
        step: between two values.
        start: what it begins with.
        unit: what a value is divided by to give a radius in [0, 1].
    """

    label: str
    top: float
    step: float
    start: float
    unit: int


def eps_range(bench: Bench, norm: Norm) -> EpsRange:
    """The field of ε in a norm: grey levels of 255 where the data's own radii are such, else in the pixels' range."""

    if norm == "l2":
        start = bench.eps if bench.norm == "l2" else 1.0
        return EpsRange("ε (L2, pixels in [0, 1])", max(5.0, 2 * start), 0.05, start, 1)
    start = bench.eps if bench.norm == "linf" else bench.record.eps
    unit = bench.unit
    largest = max(2 * start, *(number(each, "eps") for each in bench.record.epsilons.split(",")))
    if unit == 255:
        return EpsRange("ε (L∞, in 1/255)", round(min(1.0, largest) * 255), 0.5, start * 255, 255)
    return EpsRange("ε (L∞, pixels in [0, 1])", min(1.0, largest), 0.005, start, 1)


def most_steps(choice: AttackChoice) -> int:
    """The largest number of steps that the field of an attack offers."""

    return max(100, 2 * (choice.steps or 0))


def window(bench: Bench, row: Any) -> range:
    """The test images that are shown around a row: those of the group of :data:`WINDOW` that it is in."""

    count = len(bench.images)
    place = int(row) if isinstance(row, int | float) and 0 <= row < count else 0
    first = place // WINDOW * WINDOW
    return range(first, min(first + WINDOW, count))


def filled_in(bench: Bench, values: Mapping[str, Any], settings: Sequence[tuple[str, str, Any]]) -> Wanted:
    """What the fields request.

    Args:
        bench: the models and their images.
        values: of the fields, by name: ``source``, ``row``, ``drawing`` (a data URI), ``upload`` (a path),
            ``label`` (the number of a class, or :data:`OWN_ANSWER`), ``attack``, ``eps`` (in the unit of its field),
            ``norm``, ``steps``, ``target`` (the number of a class, or :data:`ANY_CLASS`), ``seed``, ``attribution``,
            ``rendering`` and ``k``.
        settings: of the attacks' own fields, the attack, the setting and the value.

    Raises:
        InputError: a value is invalid.
    """

    if values["source"] not in SOURCES:
        raise InputError(f"the image comes from {' or '.join(SOURCES)}")
    own = _own_picture(bench, values)
    norm: Norm = "l2" if values["norm"] == "l2" else "linf"
    eps = values["eps"]
    if eps is not None and eps != "":
        eps = number(eps, "ε") / eps_range(bench, norm).unit
    return Wanted(
        row=values["row"],
        own=own,
        label=_class(bench, values["label"]) if own is not None else None,
        attack=values["attack"],
        eps=eps,
        norm=values["norm"],
        steps=values["steps"],
        target=_class(bench, values["target"]),
        settings={name: value for attack, name, value in settings if attack == values["attack"]},
        seed=values["seed"],
        attribution=values["attribution"],
        rendering=values["rendering"],
        k=values["k"],
    )


def _own_picture(bench: Bench, values: Mapping[str, Any]) -> Prepared | None:
    source = values["source"]
    if source == "test image":
        return None
    if source == "drawing":
        if not values["drawing"]:
            raise InputError("nothing is drawn yet: draw on the black square, with the pointer or with the arrow keys")
        return prepared(of_data_uri(values["drawing"]), "the drawing", bench.images.shape, bench.options)
    if not values["upload"]:
        raise InputError("no picture is chosen yet: choose a file under “Your picture”")
    path = Path(values["upload"])
    if path.stat().st_size > LARGEST:
        raise InputError(f"{path.name} is too large: pictures of up to {LARGEST // 2**20} MiB are read")
    return prepared(path.read_bytes(), path.name, bench.images.shape, bench.options)


def _class(bench: Bench, chosen: Any) -> int | None:
    """The class that a field chooses by its number; ``None`` where it chooses none."""

    if chosen in (None, "", OWN_ANSWER, ANY_CLASS):
        return None
    if type(chosen) is not int or not 0 <= chosen < len(bench.images.classes):
        raise InputError(f"there is no class {shown(chosen)}: choose one of the list")
    return chosen
