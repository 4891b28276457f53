"""The section on the use of a planted shortcut; its files are ``figures/shortcuts`` and ``shortcuts.csv``."""

from __future__ import annotations

from typing import Any

from ...comparison.shortcut_gaps import ShortcutComparison, use_or_reason, views_command
from ...shortcuts import VIEWS
from ..rows import write_rows
from ..section import PageRequest, Section
from ..shortcut_chart import gap_scatter, write_view_chart

__all__ = ["SHORTCUTS_USED"]

TEMPLATE = r"""<section id="shortcuts">
<h2>Use of the shortcut</h2>
<p>{{ plants | length > 1 and "Shortcuts were" or "A shortcut was" }} planted in the training images: {% for plant in plants %}<code>{{ plant }}</code>{{ ", " if not loop.last }}{% endfor %}. A model that does not use it has the same accuracy, whichever class the shortcut is of.</p>
{% if not used %}
{% if reason %}
<p><b>NOT RUN</b>: {{ reason }}.</p>
{% else %}
<p><b>NOT RUN</b>: no run was evaluated with the shortcut. The four test sets of one run:</p>
<pre><code>{{ command | entire }}</code></pre>
{% endif %}
{% else %}
<p class="note">How to read the tables: the four test sets have the same {{ used.samples }} images. Their shortcut is that of the true class (aligned), of no class (absent), of a random class (random), or of a wrong class (reversed). The gap is aligned less reversed, in points: 0 if the shortcut has no influence. Values are in percent: mean ± standard deviation over seeds, or the 95 % interval of a single seed.</p>
{{ legend("shortcuts") }}
<div class="panels">
{{ figure(scatter, "shortcuts.csv") }}
</div>
{% for table in tables %}
<h3>{{ "Under attack" if loop.index0 else "Without an attack" }}</h3>
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table class="plain shortcuts">
<caption>{{ table.title[0] | upper }}{{ table.title[1:] | whole }}.{% for note in table.notes %} {{ note[0] | upper }}{{ note[1:] }}.{% endfor %}</caption>
<thead><tr>{% for name in table.head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr><th scope="row">{{ row[0] | name }}</th>{% for text in row[1:] %}{% set value, rest = text.split(" ", 1) if " " in text else (text, "") %}<td>{{ value }}{% if rest %} <small{{ ' class="interval"' | safe if rest.startswith("[") }}>{{ rest }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% if differences.rows %}
<details><summary>Differences between the gaps: {{ decided }} of {{ differences.rows | length }} decided</summary>
<table class="plain">
<caption>{{ differences.title[0] | upper }}{{ differences.title[1:] | whole }}.{% for note in differences.notes %} {{ note[0] | upper }}{{ note[1:] }}.{% endfor %}</caption>
<thead><tr>{% for name in differences.head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in differences.rows %}
<tr><th scope="row">{{ row[0] | name }}</th>{% for text in row[1:] %}<td>{{ text | whole }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</details>
{% endif %}
<p class="note">For papers: accuracy on the four test sets, <a href="figures/shortcuts.pdf">shortcuts.pdf</a>, <a href="figures/shortcuts.png">shortcuts.png</a>; every accuracy of every run: <a href="shortcuts.csv">shortcuts.csv</a>.</p>
{% endif %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any] | None:
    comparison = page.summary.comparison
    runs = [run for method in comparison.methods for run in method.runs]
    planted = [run for run in runs if run.config.shortcut is not None or run.views]
    if not planted:
        return None
    used, reason = use_or_reason(comparison)
    context = {
        "plants": sorted({str(run.config.shortcut) for run in planted if run.config.shortcut is not None}),
        "used": used,
        "reason": reason,
        "command": views_command(planted[0], comparison.judges()[-1].key),
    }
    if used is None:
        return context
    differences = used.differences_table()
    return context | {
        "scatter": gap_scatter(used, {method.name: number for number, method in enumerate(comparison.methods)}),
        "tables": [used.table(), used.table(used.eps)],
        "differences": differences,
        "decided": sum(decision != "not decided" for *_, decision in differences.rows),
    }


def _write(page: PageRequest) -> None:
    used, _ = use_or_reason(page.summary.comparison)
    for suffix in ("png", "pdf"):
        path = page.out / "figures" / f"shortcuts.{suffix}"
        if used is None:
            path.unlink(missing_ok=True)
        else:
            write_view_chart(used, path)
    write_rows(page.out / "shortcuts.csv", [] if used is None else _rows(used))


def _rows(used: ShortcutComparison) -> list[dict[str, Any]]:
    """Every accuracy of every run on each test set."""

    return [
        {
            "method": method.name,
            "seed": seed,
            "protocol": used.protocol,
            "test set": view,
            "norm": used.norm,
            "eps": f"{eps:.6g}",
            "samples": accuracy.n,
            "accuracy": f"{accuracy.value:.6f}",
        }
        for method in used.methods
        for seed, use in method.runs.items()
        for view in VIEWS
        for eps in (0.0, used.eps)
        for accuracy in [use.accuracy(view, eps)]
    ]


SHORTCUTS_USED = Section("shortcuts", "Shortcut", TEMPLATE, _context, _write)
