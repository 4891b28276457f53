"""A section of the page: a part of the template, and the values that it shows from a summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comparison.summary import Summary

__all__ = ["PageRequest", "Section"]


@dataclass(frozen=True)
class PageRequest:
    """The input of a page.

    Attributes:
        summary: the results that it shows.
        out: its folder. Links to the evidence are relative to it.
        command: the command that makes it; empty if unknown.
    """

    summary: Summary
    out: Path
    command: str


def _nothing(page: PageRequest) -> None:
    """Writes no file."""


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        anchor: its ``id`` on the page.
        title: its entry in the list of sections.
        template: its part of the page, one ``<section>``. It may also use ``comparison``, ``protocols`` and ``norm``,
            ``figure(chart, numbers)`` and ``legend(key)`` (:mod:`asgt.report.inline_figures`), and the filters ``eps``,
            ``percent``, ``whole``, ``name`` for names that may be long, and ``entire`` for text that must not be cut,
            such as commands.
        context: the other values of the template; ``None`` omits the section.
        write: writes the files of the section, and removes earlier ones that it does not write again.
    """

    anchor: str
    title: str
    template: str
    context: Callable[[PageRequest], dict[str, Any] | None]
    write: Callable[[PageRequest], None] = _nothing
