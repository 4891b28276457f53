"""Where the documentation says what to do about a check that failed, and about a training that went wrong.

One page has a section for each check of the house and for each diagnosis, under its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .checks import CHECKS
from .health import DIAGNOSES

__all__ = ["DOCUMENTED", "PAGE", "SITE", "diagnosed", "remedies_text", "remedy_place"]

PAGE = "docs/troubleshooting.md"
"""The page, in the repository."""

SITE = ""
"""The address of the published site, as ``site_url`` of ``mkdocs.yml`` has it; empty as long as there is none."""

DOCUMENTED = tuple(dict.fromkeys((*CHECKS, *DIAGNOSES)))
"""The names that have a section."""


def remedy_place(name: str) -> str:
    """The section of a check or a diagnosis: an address of the published site, else a path in the repository.

    Args:
        name: as the check or the warning gives it, such as ``"budget reach"``.

    Returns:
        ``"docs/troubleshooting.md#budget-reach"``; empty for a user's check, which has no section.
    """

    return f"{_page()}{_anchor(name)}" if name in DOCUMENTED else ""


def remedies_text(names: Iterable[str]) -> str:
    """A line on where the remedies of several checks and diagnoses are; empty where none of them has a section."""

    anchors = [_anchor(name) for name in dict.fromkeys(names) if name in DOCUMENTED]
    return f"remedies: {_page()}{', '.join(anchors)}" if anchors else ""


def diagnosed(warning: str) -> list[str]:
    """The diagnoses that a warning names."""

    return [name for name in DIAGNOSES if re.search(rf"\b{name}\b", warning)]


def _page() -> str:
    return f"{SITE.rstrip('/')}/{PAGE.removeprefix('docs/').removesuffix('.md')}.html" if SITE else PAGE


def _anchor(name: str) -> str:
    """The anchor that the site and a forge give to a heading."""

    return "#" + re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-")
