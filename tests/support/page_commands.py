"""The command lines of the pages, and what their console blocks show of the output."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from support.paths import ROOT

__all__ = ["PAGES", "Shown", "commands", "console", "fenced", "shape"]

PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)

Shown = tuple[str, list[str]]
"""A command line, and the lines that a page shows below it."""


def fenced(page: Path, *kinds: str) -> Iterator[str]:
    """The fenced blocks of some kinds on a page."""

    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        if kind in kinds:
            yield block


def commands(page: Path) -> list[str]:
    """All lines of the shell blocks of a page that are no comment: continued lines in one, without prompt."""

    blocks = "\n".join(fenced(page, "console", "bash", "sh"))
    lines = [line.removeprefix("$ ").strip() for line in blocks.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def console(page: Path) -> list[Shown]:
    """Each command of the console blocks of a page, with the lines that are shown below it."""

    found: list[Shown] = []
    for line in "\n".join(fenced(page, "console")).replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append((" ".join(shlex.split(line[2:], comments=True)), []))
        elif found and line.strip():
            found[-1][1].append(line)
    return found


def shape(text: str) -> str:
    """An output with one sign in place of each number, and without the frames and widths of tables."""

    text = re.sub(r"[\u2500-\u257f]", " ", text)
    return " ".join(re.sub(r"[+−-]?\d+(?:[.,:]\d+)*(?:e-?\d+)?", "#", text).split())
