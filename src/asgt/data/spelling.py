"""Names with several spellings, and names that a terminal cannot show."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

__all__ = ["folded", "printable", "same_number", "variants"]

_DECIMAL = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?", re.ASCII)


def printable(text: str) -> str:
    """A text with every unprintable character as its escape, ``\\x1b`` for one: it stays one line."""

    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def folded(name: str) -> str:
    """The canonical spelling of a name: composed (Unicode NFC), without outer blanks, and in one case.

    The case of a single letter is unchanged: data sets of letters have the classes ``A`` and ``a``.
    """

    composed = unicodedata.normalize("NFC", name).strip()
    return composed if len(composed) == 1 else unicodedata.normalize("NFC", composed.casefold())


def variants(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names that are spellings of one; ``None`` if there are none."""

    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(folded(name), name)
        if other != name:
            return other, name
    return None


def same_number(names: Iterable[str]) -> tuple[str, str] | None:
    """Two names of one decimal number, such as ``07`` and ``7``; ``None`` if there are none."""

    seen: dict[Decimal, str] = {}
    for name in names:
        if _DECIMAL.fullmatch(name):
            other = seen.setdefault(Decimal(name), name)
            if other != name:
                return other, name
    return None
