"""Untrusted text in Markdown: shown literally, never as markup, HTML, a link or a path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from ..visible import LONGEST, visible

__all__ = ["code", "escaped", "fenced", "last_part", "table", "without_places"]

_MARKUP = re.compile(
    r"""[\\`*{}\[\]<>#!|~&$@"^]|(?<![^\W_])_|_(?![^\W_])|:(?!\s|$)|(?<=www)\.|(?<=ftp)\.""", re.IGNORECASE
)
"""The characters of markup within a line.

An underscore inside a name is not markup, and a colon can make a link or an emoji.
"""

_PLAIN = re.compile(r"[\w.,:=+/@-]+( [\w.,:=+/@-]+)*")
"""The characters that a span of code shows literally."""

_PLACE = re.compile(
    r"(?<![\w/\\.])(?:file:/+|~?/|~\w+/|[A-Za-z]:[\\/])(?:[^\s\"'<>|:;,()]*[/\\])*([^\s\"'<>|:;,()/\\]*)"
)
"""An absolute path in a sentence: its last part is the group."""


def escaped(text: str, longest: int = LONGEST) -> str:
    """A text in a line of Markdown, as a reader should see it: control characters in their backslash form.

    Args:
        text: any text. Absolute paths in it are replaced by their last part.
        longest: characters; the middle of a longer text is omitted.
    """

    line = visible(" ".join(visible(without_places(text), longest).split()))
    return _MARKUP.sub(lambda found: f"&#{ord(found.group())};", line)


def code(text: str) -> str:
    """The same as a span of code."""

    shown = visible(without_places(text), LONGEST)
    return f"`{shown}`" if _PLAIN.fullmatch(shown) else f"<code>{escaped(text)}</code>"


def without_places(text: str, known: Iterable[str] = ()) -> str:
    """The text with each absolute path, and each known one, replaced by its name, the longest first."""

    for place in known:
        text = text.replace(place, last_part(place))
    return _PLACE.sub(lambda found: found.group(1) or "…", text)


def last_part(place: str) -> str:
    """The last part of a path, as a name; a text without separators is unchanged."""

    name = PureWindowsPath(PurePosixPath(place).name).name
    return name or "data"


def fenced(text: str, language: str = "") -> str:
    """A block of code with a fence that is longer than any in the text."""

    lines = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", lines)), default=0))
    return f"{fence}{language}\n{lines}\n{fence}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""

    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
