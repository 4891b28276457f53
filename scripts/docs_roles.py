"""Turns the docstrings' own marks into Markdown, for the reference pages of the site.

A role such as ``:class:`asgt.PGD``` becomes a link where the site has a page of that name, and code where it has none.
``Example:`` and ``References:`` become a block of code and a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffe import Extension, Object

__all__ = ["Roles", "converted"]

_ROLE = re.compile(r":(?:class|func|meth|attr|data|mod|exc):`(?:([^`<]+) <([^`>]+)>|~?([^`]+))`")
_SECTION = re.compile(r"^(Example|References):\n((?:(?: {4}.*)?\n?)+)", re.MULTILINE)
_LITERAL = re.compile(r"^( *)::\n\n((?:\1 {4}.*\n|\n)+)", re.MULTILINE)


class Roles(Extension):
    """The extension of griffe that ``mkdocs.yml`` names.

    Args:
        targets: a JSON file with the identifier of each linked name, as :mod:`docs_pages` writes it.
    """

    def __init__(self, targets: str) -> None:
        self._targets: dict[str, str] = json.loads(Path(targets).read_text())

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Converts the docstring of an object that was read."""

        if obj.docstring is not None:
            obj.docstring.value = converted(obj.docstring.value, self._targets, obj.path)


def converted(text: str, targets: Mapping[str, str], place: str = "") -> str:
    """A docstring as Markdown.

    Args:
        text: the docstring, without its indentation.
        targets: the identifier of each name that has a place on the site.
        place: the dotted path of the object, within which short names are looked up.
    """

    def role(match: re.Match[str]) -> str:
        shown, name = match.group(1) or match.group(3), (match.group(2) or match.group(3)).removeprefix("~")
        parts = place.split(".")
        for path in (name, *(".".join([*parts[:length], name]) for length in range(len(parts), 0, -1))):
            if path in targets:
                return f"[`{shown.removeprefix('asgt.')}`][{targets[path]}]"
        return f"`{shown}`"

    text = _SECTION.sub(_section, text + "\n").rstrip("\n")
    text = _LITERAL.sub(
        lambda match: f"{match.group(1)}```python\n{_shifted(match.group(2))}{match.group(1)}```\n\n", text
    )
    return _ROLE.sub(role, text)


def _section(match: re.Match[str]) -> str:
    body = match.group(2)
    if match.group(1) == "Example":
        return f"Examples:\n{body}"
    entries: list[str] = []
    for line in (line.strip() for line in body.splitlines() if line.strip()):
        # An entry ends with its address, which may have a remark behind it.
        if (entries and "http" not in entries[-1]) or (entries and line.startswith("(")):
            entries[-1] += f" {line}"
        else:
            entries.append(line)
    listed = "\n".join(f"- {_linked(entry)}" for entry in entries)
    return f"**References**\n\n{listed}\n"


def _linked(entry: str) -> str:
    return re.sub(r"https?://[^\s)]+[^\s).,]", lambda match: f"<{match.group(0)}>", entry)


def _shifted(block: str) -> str:
    return (
        "".join(line[4:] if line.startswith("    ") else line for line in block.splitlines(keepends=True)).rstrip()
        + "\n"
    )
