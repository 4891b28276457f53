"""The tables of ``docs/data-layouts.md``, and the line by which a folder of data is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asgt.data import load_data
from asgt.errors import InputError
from support.paths import ROOT

DOCS = ROOT / "docs" / "data-layouts.md"


def rows_of(title: str, number: int) -> list[list[str]]:
    """The rows of the docs' table under a heading, ``number`` of that name."""

    section = DOCS.read_text("utf-8").split(f"\n### {title}\n")[number]
    lines = [line for line in section.partition("\n#")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def names_in(cell: str) -> list[str]:
    """What a cell of a table names as code."""

    return re.findall(r"`([^`]*)`", cell)


def refusal(place: Path, **options: object) -> str:
    """The one line by which data is refused."""

    with pytest.raises(InputError) as caught:
        load_data(str(place), **options)  # type: ignore[arg-type]
    line = str(caught.value)
    assert "\n" not in line
    return line
