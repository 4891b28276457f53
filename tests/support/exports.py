"""Exports of finished runs, and what a reader sees of their card."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from markdown_it import MarkdownIt

from asgt.files import digest_file
from asgt.manifest import MANIFEST, Manifest


def card(folder: Path) -> str:
    return (folder / "README.md").read_text()


def card_metadata(folder: Path) -> dict[str, Any]:
    """The YAML of a card, between the first two lines of three dashes."""

    block = re.match(r"---\n(.*?)\n---\n", card(folder), re.DOTALL)
    assert block is not None
    value = yaml.safe_load(block.group(1))
    assert isinstance(value, dict)
    return value


def rendered(folder: Path) -> str:
    """The card below its metadata as HTML, by a renderer of CommonMark with tables that lets HTML through."""

    text = card(folder).split("\n---\n", 1)[1]
    html = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").render(text)
    assert isinstance(html, str)
    return html


def sealed_again(folder: Path) -> None:
    """Makes the manifest of an export list its files as they are, as somebody would who means harm."""

    manifest = Manifest.of(folder)
    assert manifest is not None
    files = {
        file.relative_to(folder).as_posix(): digest_file(file)
        for file in folder.rglob("*")
        if file.is_file() and file.name != MANIFEST
    }
    Manifest(folder, files, manifest.made_from).write()
