"""The shortcuts for planting in images. To add one: one file with its class, one line in :data:`SHORTCUTS`.

Reading this registry imports no shortcut, so that ``asgt --help`` stays fast: classes are read from their source
(:mod:`asgt.records`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..errors import InputError, cut, shown, unknown
from ..files import plain_value
from ..records import record_of

if TYPE_CHECKING:
    from .shortcut import Shortcut

__all__ = ["SHORTCUTS", "VIEWS", "ShortcutView", "shortcut_help", "shortcut_named"]

SHORTCUTS: dict[str, str] = {
    "patch": "asgt.shortcuts.patch:Patch",
    "background": "asgt.shortcuts.background:Background",
    "disc": "asgt.shortcuts.disc:Disc",
}
"""The class of each shortcut by its name, in the order in which messages list them."""

ShortcutView: TypeAlias = Literal["aligned", "absent", "random", "reversed"]

VIEWS: tuple[ShortcutView, ...] = get_args(ShortcutView)
"""The four test sets of the same images: the shortcut of the true class, none, that of a uniformly random class, and
that of a uniformly random wrong class."""


def shortcut_named(text: str, settings: Mapping[str, Any] | None = None) -> Shortcut:
    """Parses the text of a shortcut: ``patch``, ``patch:0.99``, ``patch:0.99,size=4,contrast=0.5``.

    After the colon come the strength, which is optional, and settings by name, separated by commas. The text of a
    shortcut, ``str(shortcut)``, has all settings, except a size that depends on the images.

    Args:
        text: names the shortcut.
        settings: more settings by name; those that are ``None`` are not set.

    Raises:
        InputError: the shortcut or a setting is unknown, or a value is invalid.
    """

    if not isinstance(text, str):
        raise InputError(f"shortcut = {shown(text)}: give a string, such as patch:0.99 or patch:0.99,size=4")
    name, colon, rest = text.strip().partition(":")
    if name not in SHORTCUTS:
        raise unknown("shortcut", name, SHORTCUTS)
    given = dict(_pairs(text, rest)) if colon else {}
    for each, value in (settings or {}).items():
        if value is None:
            continue
        if each in given:
            raise InputError(f"shortcut {cut(text)}: {each} is given twice, remove one")
        given[each] = value

    known = {setting.name: setting for setting in record_of(SHORTCUTS[name], "shortcut").settings}
    values = {}
    for each, value in given.items():
        if each not in known:
            raise unknown(f"setting of shortcut {name}", each, known)
        try:
            values[each] = known[each].plain(value)
        except InputError as error:
            raise InputError(f"shortcut {name}: {error}") from error
    module, _, attribute = SHORTCUTS[name].partition(":")
    shortcut: Shortcut = getattr(import_module(module), attribute)(**values)
    return shortcut


def shortcut_help() -> str:
    """The names for a help text: ``patch, background, disc``."""

    return ", ".join(SHORTCUTS)


def _pairs(text: str, rest: str) -> list[tuple[str, Any]]:
    """The settings in ``0.99,size=4``; a value that stands first without a name is the strength."""

    pairs: list[tuple[str, Any]] = []
    for place, part in enumerate(rest.split(",")):
        name, equals, value = (word.strip() for word in part.partition("="))
        if not equals and place == 0:
            name, value = "strength", name
        if not (name and value) or (not equals and place > 0):
            raise InputError(
                f"shortcut {cut(text)}: write NAME:STRENGTH or NAME:STRENGTH,SETTING=VALUE,…, such as patch:0.99,size=4"
            )
        if name in dict(pairs):
            raise InputError(f"shortcut {cut(text)}: {cut(name)} is given twice, remove one")
        try:
            pairs.append((name, plain_value(value)))
        except InputError as error:
            raise InputError(f"shortcut {cut(text)}: {cut(name)}: {error}") from error
    return pairs
