"""Numbers in their usual notation: ``8/255``, ``0.3``, ``1e-2``."""

from __future__ import annotations

import math
import operator
import re
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

from .errors import InputError, shown, unknown

__all__ = [
    "Number",
    "counted",
    "duration",
    "eps_text",
    "in_float32",
    "literals",
    "norm_sign",
    "number",
    "plain_fields",
    "points",
    "signed",
    "to_rounding",
    "whole",
]

Number: TypeAlias = float | str
"""A real number, or its text, such as ``8/255``."""

_SMALLEST, _LARGEST = 1e-37, (2 - 2**-23) * 2.0**127
"""The limits of single precision; closer to zero, numbers have fewer digits, or are zero on some devices."""


def number(value: Number, name: str) -> float:
    """Parses a number.

    Args:
        value: a number, or a text: a number or a fraction of two.
        name: its name in errors.

    Raises:
        InputError: the text is neither.
    """

    if not isinstance(value, str):
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except OverflowError as error:
            raise InputError(f"{name} = {shown(value)} is too large: give a smaller number") from error
        except (RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{name} = {shown(value)} is not a number: write 0.3 or 8/255") from error

    above, slash, below = value.partition("/")
    try:
        return float(above) / float(below) if slash else float(above)
    except (ArithmeticError, ValueError) as error:
        raise InputError(f"{name} = {shown(value)} is not a number: write 0.3 or 8/255") from error


def in_float32(value: float, name: str) -> float:
    """A number that tensors of single precision can hold: finite, and zero or no closer to it than 1e-37.

    Args:
        value: the number.
        name: its name in errors.

    Raises:
        InputError: as float32 it would be infinite, or zero although it is not.
    """

    if not math.isfinite(value):
        raise InputError(f"{name} = {value}: give a finite number")
    # A number at the end that went through single precision has been rounded to below it.
    if not (value == 0 or _SMALLEST * (1 - 2**-24) <= abs(value) <= _LARGEST):
        raise InputError(
            f"{name} = {value:g} is outside the range of single precision, from {_SMALLEST:g} to {_LARGEST:.2g}: "
            "give a number of usual size"
        )
    return value


def whole(value: Any, name: str) -> int:
    """A value as a plain whole number; numpy's numbers and tensors of one element are accepted.

    Args:
        value: the value.
        name: its name in errors.

    Raises:
        InputError: it is not a whole number.
    """

    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} = {shown(value)} is not a whole number: give one") from error


def plain_fields(record: Any) -> None:
    """Checks the fields of a frozen dataclass by their annotations, and makes their values plain ones.

    ``"8/255"`` and numpy's scalars become floats, integers and booleans; plain values stay as they are. A field that
    is annotated by a ``Literal`` holds one of its values, and one by a dataclass an instance of it. ``None`` is for
    fields that are annotated with it or have it as their default. Other annotations are not looked at.

    Raises:
        InputError: a field holds something else.
    """

    kind: Any = type(record)
    hints = _hints(kind)
    for field in fields(record):
        name, value, kinds = field.name, getattr(record, field.name), hints.get(field.name, ())
        if not kinds or (value is None and (type(None) in kinds or field.default is None)):
            continue
        if value is None:
            raise InputError(f"{name} = None: a value is needed")
        plain = _plain(value, name, kinds)
        if plain is not value:
            object.__setattr__(record, name, plain)


@cache
def _hints(record: Any) -> dict[str, tuple[Any, ...]]:
    """The types that each field takes, by its name; nothing of fields whose annotation names what is not imported."""

    try:
        hints = get_type_hints(record)
    except (NameError, TypeError):
        hints = {}
        for field in fields(record):
            written = str(getattr(field.type, "__name__", field.type)).split(" | ")
            if written[0] in _PLAIN:
                hints[field.name] = Union[(_PLAIN[written[0]], *([None] if "None" in written else []))]
    unions = (Union, UnionType)
    return {name: get_args(hint) if get_origin(hint) in unions else (hint,) for name, hint in hints.items()}


def literals(record: type, name: str) -> tuple[str, ...]:
    """The values that a dataclass's field takes whose annotation is a ``Literal``."""

    return tuple(value for kind in _hints(record)[name] if get_origin(kind) is Literal for value in get_args(kind))


_PLAIN: dict[str, Any] = {"float": float, "int": int, "bool": bool}


def _plain(value: Any, name: str, kinds: tuple[Any, ...]) -> Any:
    """The value as a field of these types holds it."""

    kinds = tuple(kind for kind in kinds if kind is not type(None))
    kind = kinds[0]
    if len(kinds) > 1:
        return value
    if kind is float:
        return value if type(value) in (float, int) else number(value, name)
    if kind is int:
        return whole(value, name)
    if kind is bool:
        plain = value.item() if hasattr(value, "item") else value
        if not isinstance(plain, int) or plain not in (0, 1):
            raise InputError(f"{name} = {shown(value)}: true or false is needed")
        return bool(plain)
    if get_origin(kind) is Literal:
        if not isinstance(value, str):
            raise InputError(f"{name} = {shown(value)}: one of {', '.join(map(repr, get_args(kind)))} is needed")
        if value not in get_args(kind):
            raise unknown(name, value, get_args(kind))
        return str(value)
    if isinstance(kind, type) and is_dataclass(kind) and not isinstance(value, kind):
        raise InputError(f"{name} = {shown(value)}: a value of type {kind.__name__} is needed")
    return value


def counted(count: int, what: str, plural: str | None = None) -> str:
    """``1 run``, ``2 runs``; ``plural`` for irregular plurals."""

    return f"{count} {what}" if count == 1 else f"{count} {plural or what + 's'}"


def duration(seconds: float) -> str:
    """A duration for display: ``40 s``, ``12 min``, ``1.7 h``."""

    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"


def eps_text(eps: float) -> str:
    """A radius in its usual notation: ``8/255`` for a small whole number of grey levels, ``0.3`` otherwise."""

    return f"{eps * 255:.0f}/255" if 0 < eps < 0.1 and abs(eps * 255 - round(eps * 255)) < 1e-6 else f"{eps:g}"


def points(share: float, sign: Literal["+", "-"] = "-") -> str:
    """A difference of shares in points; ``sign`` as in a format: ``"+"`` signs those above zero too."""

    text = f"{100 * share:{sign}.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def signed(text: str) -> str:
    """A text of percent or points with minus signs for hyphens, and none before a zero."""

    return re.sub(r"-(?=0\.0(?!\d))", "", text).replace("-", "−")


def norm_sign(norm: str) -> str:
    """The symbol of a norm."""

    return "L∞" if norm == "linf" else "L2"


def to_rounding(value: Any) -> Any:
    """The value with every real number rounded to 12 digits: the last digits of sums differ between processors."""

    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {name: to_rounding(each) for name, each in value.items()}
    return [to_rounding(each) for each in value] if isinstance(value, list) else value
