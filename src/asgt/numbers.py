"""Numbers as people write them: ``8/255``, ``0.3``, ``1e-2``."""

from __future__ import annotations

import math
import operator
from dataclasses import fields
from typing import Any, TypeAlias

from .errors import InputError, shown

__all__ = [
    "Number",
    "counted",
    "duration",
    "eps_text",
    "in_float32",
    "norm_sign",
    "number",
    "plain_fields",
    "to_rounding",
    "whole",
]

Number: TypeAlias = float | str
"""A real number, or a text such as ``8/255`` that stands for one."""

_SMALLEST, _LARGEST = 1e-37, (2 - 2**-23) * 2.0**127
"""The ends of single precision; nearer to zero a number has fewer digits, or some devices take it for zero."""


def number(value: Number, name: str) -> float:
    """The number that a text stands for.

    Args:
        value: a number, or a text: a number or a fraction of two.
        name: what to call it in an error.

    Raises:
        InputError: the text is neither.
    """

    if not isinstance(value, str):
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except OverflowError as error:
            raise InputError(
                f"{name} = {shown(value)} is larger than any real number here: give a smaller one"
            ) from error
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
        name: what to call it in an error.

    Raises:
        InputError: as float32 it would be infinite, or zero where it is none.
    """

    if not math.isfinite(value):
        raise InputError(f"{name} = {value}: a finite number is needed")
    # A number at the end that went through single precision has been rounded to below it.
    if not (value == 0 or _SMALLEST * (1 - 2**-24) <= abs(value) <= _LARGEST):
        raise InputError(
            f"{name} = {value:g} has no place in single precision, which reaches from {_SMALLEST:g} to {_LARGEST:.2g}: "
            "give a number of usual size"
        )
    return value


def whole(value: Any, name: str) -> int:
    """The plain whole number that a value is, one of numpy or a tensor of one element included.

    Args:
        value: the value.
        name: what to call it in an error.

    Raises:
        InputError: it is no whole number.
    """

    if type(value) is int:
        return value
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise InputError(f"{name} = {shown(value)} is not a whole number") from error


def plain_fields(record: Any) -> None:
    """Makes the numbers in a frozen dataclass plain ones: ``"8/255"`` and numpy's scalars become floats and integers.

    Which of the two follows from the field's annotation; plain numbers stay as they are.

    Raises:
        InputError: a field that takes a number holds something else.
    """

    for field in fields(record):
        kind, value = str(field.type).split(" | ")[0], getattr(record, field.name)
        plain_kinds = {"float": (int, float), "int": (int,)}
        if value is None or kind not in plain_kinds or type(value) in plain_kinds[kind]:
            continue
        plain = number(value, field.name) if kind == "float" else whole(value, field.name)
        object.__setattr__(record, field.name, plain)


def counted(count: int, what: str, plural: str | None = None) -> str:
    """``1 run``, ``2 runs``; ``plural`` where it is not formed by an s."""

    return f"{count} {what}" if count == 1 else f"{count} {plural or what + 's'}"


def duration(seconds: float) -> str:
    """A time to plan with: ``40 s``, ``12 min``, ``1.7 h``."""

    minutes = seconds / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1 else f"{seconds:.0f} s"


def eps_text(eps: float) -> str:
    """A radius as the field writes it: ``8/255`` where it is a small whole number of grey levels, ``0.3`` elsewhere."""

    return f"{eps * 255:.0f}/255" if 0 < eps < 0.1 and abs(eps * 255 - round(eps * 255)) < 1e-6 else f"{eps:g}"


def norm_sign(norm: str) -> str:
    """A norm as people write it."""

    return "L∞" if norm == "linf" else "L2"


def to_rounding(value: Any) -> Any:
    """The value with every real number in it to 12 digits: the last of a sum differ from processor to processor."""

    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {name: to_rounding(each) for name, each in value.items()}
    return [to_rounding(each) for each in value] if isinstance(value, list) else value
