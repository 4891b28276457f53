"""Which words name a split of a data set."""

from __future__ import annotations

import re

__all__ = ["SPLIT_NAMES", "look_like_splits", "split_kind"]

SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "dev"),
}
"""The kinds of splits, and the names that each of them goes by, in any case."""

_KINDS = {name: kind for kind, names in SPLIT_NAMES.items() for name in names}
_WORD = "|".join(sorted(_KINDS, key=len, reverse=True))
# A word of its own, or with "set", "data", "images" grown to it: no "trainer", no "contest".
_AROUND = re.compile(rf"^(?P<before>(?:.*[^a-z])?)(?P<word>{_WORD})(?P<after>(?:(?:[^a-z]|set|data|image|img).*)?)$")


def split_kind(name: str) -> str | None:
    """``"train"``, ``"test"`` or ``"val"`` for a name of a split, ``None`` for any other name."""

    return _KINDS.get(name.strip().casefold())


def look_like_splits(names: list[str]) -> tuple[str, str] | None:
    """Two names that differ in nothing but the word of a split, as ``train_set`` and ``test_set``; ``None`` if none do.

    They are no names of splits, and as classes they would be wrong in all likelihood.
    """

    seen: dict[str, tuple[str, str]] = {}
    for name in names:
        match = None if split_kind(name) else _AROUND.match(name.strip().casefold())
        if match is None:
            continue
        kind = _KINDS[match["word"]]
        rest = f"{match['before']} {match['after']}"
        other = seen.setdefault(rest, (kind, name))
        if other[0] != kind:
            return other[1], name
    return None
