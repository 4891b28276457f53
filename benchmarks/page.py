"""Where the printed tables go, between two comments of a page, and what stands above each: the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["machine", "replace_section"]


def machine(told: str, *packages: str) -> str:
    """Where, by what and on how much the figures were taken; ``told`` says the last."""

    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        named = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = named[0].partition(":")[2].strip() if named else processor
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", *packages))
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s); "
        f"Python {platform.python_version()}, {versions}; {told}."
    )


def replace_section(page: Path, name: str, text: str) -> None:
    """Puts ``text`` between ``<!-- name -->`` and ``<!-- /name -->``, in the place of what stands there.

    Raises:
        ValueError: the page does not have each of the two comments once, in this order.
    """

    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before = page.read_text(encoding="utf-8")
    if before.count(begin) != 1 or before.count(end) != 1 or before.index(begin) > before.index(end):
        raise ValueError(f"{page} does not have {begin} and, after it, {end}, each once")
    head, _, rest = before.partition(begin)
    tail = rest.partition(end)[2]
    page.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}", encoding="utf-8")
