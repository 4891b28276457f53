"""Typed errors, with the cause, the place and the remedy.

Everything that a user can correct raises an :class:`InputError`; the command line turns it into one line and
exit status 2. Any other exception is an internal error.
"""

from __future__ import annotations

import difflib
import itertools
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["AsgtError", "DamagedFileError", "InputError", "InterruptedRunError", "cut", "shown", "unknown"]

_LISTED = 12
_SHOWN = 80
"""The number of characters of a value in a message."""

_LONGEST = 2000
"""The largest length of a message: a path can have 4,096 characters."""

_NAME = 200
"""Longer names are not compared with others: the time of a comparison grows with the square of the length."""


class AsgtError(Exception):
    """Base of every error that asgt raises on purpose.

    Example:
        >>> import asgt
        >>> try:
        ...     asgt.PGD(steps=0)
        ... except asgt.AsgtError as error:
        ...     print(error)
        steps = 0: give at least one step
    """


class InputError(AsgtError, ValueError):
    """The input is wrong: a file, a flag, a shape or a value. The message is one line that says how to correct it.

    A message is never longer than a screen: the middle of a long value is omitted.

    Example:
        >>> import asgt
        >>> try:
        ...     asgt.load_data("digits", limit=0)
        ... except asgt.InputError as error:
        ...     print(type(error).__name__)
        InputError
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(cut(message, _LONGEST))


class DamagedFileError(InputError):
    """A file exists but cannot be read completely: it is incomplete, overwritten or of another type.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> with open("run/training.json", "a") as file:
        ...     _ = file.write("}")
        >>> try:
        ...     _ = asgt.load_run("run")
        ... except asgt.DamagedFileError as error:
        ...     print(type(error).__name__)
        DamagedFileError
    """


class InterruptedRunError(AsgtError):
    """A run was interrupted, after it wrote its checkpoint.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> try:
        ...     result = asgt.train(config, "run", should_stop=lambda: True)
        ... except asgt.InterruptedRunError:
        ...     result = asgt.train(config, "run", resume=True)
        >>> result.epochs
        1
    """


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for an unknown name, with the nearest known names.

    Args:
        what: the kind of object, such as ``"method"``.
        name: the user's name.
        known: the known names.

    """

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5) if len(name) <= _NAME else []
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(cut(each) for each in known[:_LISTED]) + (", …" if len(known) > _LISTED else "")
    return InputError(f"unknown {what} {shown(name)}: {hint}known: {listed}")


def cut(text: str, most: int = _SHOWN) -> str:
    """A text of at most ``most`` characters; the middle of a longer one is omitted."""

    if len(text) <= most:
        return text
    ahead = (most - 1) * 2 // 3
    return f"{text[:ahead]}…{text[ahead + 1 - most :]}"


def shown(value: Any) -> str:
    """A value for a message: its ``repr``, cut *before* it is built.

    Lists and mappings show their first elements and nothing deep inside, so that recursive values, texts of a
    million characters and numbers of a million digits are fast.
    """

    return cut(_Bounded().repr(value))


class _Bounded(reprlib.Repr):
    """``repr`` of plain values with everything that could grow cut short."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = self.maxarray = 6
        self.maxstring = self.maxother = _SHOWN

    def repr_str(self, x: str, level: int) -> str:
        return cut(repr(cut(x, self.maxstring + 1)), self.maxstring)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return cut(repr(x[: self.maxstring]), self.maxstring)

    def repr_int(self, x: int, level: int) -> str:
        # Python itself refuses to write out a number of more than 4,300 digits.
        bits = x.bit_length()
        return repr(x) if bits <= 256 else f"a whole number of about {int(bits * 0.30103) + 1:,} digits"

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        if not x:
            return "{}"
        if level <= 0:
            return "{…}"
        # In the order of the mapping: the library sorts, which reads all of it, and fails on keys of several types.
        pairs = [
            f"{self.repr1(key, level - 1)}: {self.repr1(each, level - 1)}"
            for key, each in itertools.islice(x.items(), self.maxdict)
        ]
        return f"{{{', '.join(pairs)}{', …' if len(x) > self.maxdict else ''}}}"
