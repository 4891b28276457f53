"""What a section of the page is: a piece of a template, and what it shows of a summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comparison.summary import Summary

__all__ = ["PageRequest", "Section"]


@dataclass(frozen=True)
class PageRequest:
    """What a page is made from.

    Attributes:
        summary: what it shows.
        out: its folder. Links to the evidence are relative to it.
        command: what makes it, to be run again; empty where that is not known.
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
            ``percent``, ``whole``, ``name`` of what may be long, and ``entire`` of what must not be cut, as a command.
        context: what else the template shows; ``None`` leaves the section out.
        write: writes the files of the section, and removes those of an earlier time that it does not make again.
    """

    anchor: str
    title: str
    template: str
    context: Callable[[PageRequest], dict[str, Any] | None]
    write: Callable[[PageRequest], None] = _nothing
