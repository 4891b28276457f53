"""The names of the splits of a data set."""

from __future__ import annotations

import re

__all__ = ["SPLIT_NAMES", "is_split_like", "look_like_splits", "split_kind"]

SPLIT_NAMES = {
    "train": ("train", "training", "trn"),
    "test": ("test", "testing", "tst"),
    "val": ("val", "valid", "validation", "dev"),
}
"""The kinds of splits and their names, in any case."""

_KINDS = {name: kind for kind, names in SPLIT_NAMES.items() for name in names}
# Words that tell of a split as well, but not which of ours it is.
_OTHER_KINDS = {"trainval": "train", "eval": "test", "evaluation": "test", "holdout": "test", "heldout": "test"}
_LIKE = _KINDS | _OTHER_KINDS
_WORD = "|".join(sorted(_LIKE, key=len, reverse=True))
_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")
# A word of its own, or with "set", "data", "images" grown to it: no "trainer", no "contest".
_AROUND = re.compile(rf"^(?P<before>(?:.*[^a-z])?)(?P<word>{_WORD})(?P<after>(?:(?:[^a-z]|set|data|image|img).*)?)$")


def split_kind(name: str) -> str | None:
    """``"train"``, ``"test"`` or ``"val"`` for a name of a split, ``None`` for any other name."""

    return _KINDS.get(name.strip().casefold())


def look_like_splits(names: list[str]) -> tuple[str, str] | None:
    """Two names that look like two splits, as ``train_set`` and ``test_set``; ``None`` if no two do.

    They differ only in the name of a split, or consist only of it. They are not names of splits, but they are
    probably not classes.
    """

    matches = [(name, match) for name in names if (match := _like(name)) is not None]
    seen: dict[str, tuple[str, str]] = {}
    for name, match in matches:
        kind = _LIKE[match["word"]]
        everything_is = len(matches) == len(names)
        rest = "" if everything_is else f"{match['before']} {match['after']}"
        other = seen.setdefault(rest, (kind, name))
        if other[0] != kind:
            return other[1], name
    return None


def is_split_like(name: str) -> bool:
    """Whether a name contains the name of a split, such as ``test1``, ``trainA`` or ``evaluation``, but is not one."""

    return _like(name) is not None


def _like(name: str) -> re.Match[str] | None:
    return None if split_kind(name) else _AROUND.match(_CAPITAL.sub("_", name.strip()).casefold())
