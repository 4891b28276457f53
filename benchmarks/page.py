"""Where the printed tables go: between two comments of a page, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

__all__ = ["replace_section"]


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
