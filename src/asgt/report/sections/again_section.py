"""The section of commands that repeat the page, and one run of each method."""

from __future__ import annotations

import shlex
from typing import Any

from ...comparison.comparing import Comparison
from ...training.run_folder import RunFolder
from ..section import PageRequest, Section

__all__ = ["AGAIN"]

TEMPLATE = r"""<section id="again">
<h2>Run it again</h2>
{% if command %}
<p>This page:</p>
<pre><code>{{ command | entire }}</code></pre>
{% endif %}
<p>One run of each method, from the configuration in its folder. The same seed on the same machine with the same versions gives the same weights:</p>
<pre><code>{{ commands | join("\n") | entire }}</code></pre>
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    return {"command": page.command, "commands": _commands(page.summary.comparison)}


def _commands(comparison: Comparison) -> list[str]:
    """The commands that repeat one run of each method, from what its folder holds."""

    lines = []
    for method in comparison.methods:
        run = method.runs[0]
        words = ["asgt", "train", "--config", str(RunFolder(run.folder).config), "--out", f"again/{run.folder.name}"]
        lines.append(shlex.join(words + run.config.own_code(trains=True)))
    return lines


AGAIN = Section("again", "Run it again", TEMPLATE, _context)
