"""The section on the measures of maps; its files are ``panel.csv``, ``panel-differences.csv`` and three figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from ...comparison.comparing import Comparison
from ...comparison.explained import Explained
from ...comparison.map_evidence import panel_basis, panel_rows, panel_unrun, panel_words
from ...explanation import Measure, measure_sentence
from ...statistics import PairedDifference
from ..gradients import gradient_charts
from ..map_files import write_gradients, write_map_tables, write_measures
from ..masked_curves import masked_charts
from ..section import PageRequest, Section
from ..tradeoff_chart import tradeoff_scatter

__all__ = ["MEASURES_OF_MAPS"]

TEMPLATE = r"""<section id="looks">
<h2>Measures of saliency maps</h2>
{% if not looks %}
<p>No run has been explained, so its maps are not measured. This command measures them and makes this page again:</p>
<pre><code>{{ explain }}</code></pre>
{% endif %}
{% for look in looks %}
<h3>By the {{ look.attribution }}{% if look.view %}, shortcut {{ look.view }}{% endif %}</h3>
{% if look.not_run %}
<p><b>NOT RUN</b>: {{ look.not_run | whole }}.</p>
{% else %}
{% if loop.first %}
<p>All measures can be compared between models: they use the same images, which all models classify correctly. a is the signed map, m the channel mean of |a|.</p>
{% endif %}
<div class="scroll" tabindex="0" role="region" aria-label="measures of maps by {{ look.name }}">
<table class="measures">
<caption>{{ look.words | whole }}. How to read the table: mean ± standard deviation over seeds, or a single model's 95 % bootstrap interval over images. ↑ higher is better, ↓ lower is better, no arrow: neither. * partly restates robustness, whatever the maps explain. <b>Bold</b>: the primary measure, fixed in advance: {% if look.view %}mass on the shortcut{% else %}mass on the object if the object is known, ROAD otherwise{% endif %}.{% if look.area == look.area %} The object's share of the area, which is the mass of a uniform map: {{ "%.3f" | format(look.area) }}.{% endif %}{% if look.shortcut_area == look.shortcut_area %} The shortcut's share of the area, which maps without a preference have as their mass on it, and as the share of their top 10 % on it: {{ "%.3f" | format(look.shortcut_area) }}.{% endif %}</caption>
<thead><tr><th scope="col">measure</th><th scope="col">n</th>{% for name in look.methods %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in look.rows %}
<tr{{ ' class="primary"' | safe if row.primary }}><th scope="row" title="{{ row.definition }}">{{ row.title }}</th><td>{{ row.n }}</td>{% for text in row.cells %}<td>{% set value, rest = text.split(" ", 1) if " " in text else (text, "") %}{{ value }}{% if rest %} <small{{ ' class="interval"' | safe if rest.startswith("[") }}>{{ rest }}</small>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
<tr class="gate"><th scope="row" title="median rank correlation of m with that of three re-initialised models; above 0.5 the maps are uninformative">gate: re-initialised weights</th><td></td>{% for value, between, blind in look.gates %}<td>{% if blind is none %}NOT RUN{% else %}{{ "%.3f" | format(value) | replace("-", "−") }} {{ "✗" if blind else "✓" }}{% if blind %} <small class="interval">uninformative</small>{% endif %} <small class="interval">random: {{ "%.3f" | format(between) | replace("-", "−") }}</small>{% endif %}</td>{% endfor %}</tr>
</tbody>
</table>
</div>
<p class="note">The gate is the median rank correlation between a map and the map of the same architecture with re-initialised weights, over three draws. Above 0.5 the map does not depend on what was learned (✗). Random: the same correlation between two re-initialised models. Every measure of every method: <a href="panel.csv">panel.csv</a>.</p>
<details><summary>Definition of each measure</summary>
<dl class="settings">
{% for row in look.rows if not row.title.endswith("unflipped ↑ *") %}
<div><dt>{{ row.title }}</dt><dd>{{ row.definition }}</dd></div>
{% endfor %}
</dl>
</details>
{% for title, why in look.unrun %}
<p class="note"><b>NOT RUN</b> {{ title }}: {{ why | whole }}.</p>
{% endfor %}
{% endif %}
{% for sentence in look.notes %}
<p class="note">{{ sentence[0] | upper }}{{ sentence[1:] }}.</p>
{% endfor %}
{% if look.tradeoff or look.masked %}
{% if loop.first %}{{ legend("looks") }}{% endif %}
<div class="panels">
{% if look.tradeoff %}{{ figure(look.scatter, "panel.csv and accuracies.csv") }}{% endif %}
{% for panel in look.masked %}{{ figure(panel, "the results of each run") }}{% endfor %}
</div>
{% if look.tradeoff %}<p>{{ look.tradeoff.sentence() | whole }}.</p>{% endif %}
<p class="note">{% if look.tradeoff %}Large markers: methods; small markers: their runs. {% endif %}If a map finds the pixels that the model uses, its thick curve is far below its thin curve. There are two fills, because training on filled images makes maps look faithful under the same fill. For papers: {% if look.tradeoff %}<a href="figures/tradeoff-{{ look.file }}.pdf">tradeoff-{{ look.file }}.pdf</a>, {% endif %}<a href="figures/masked-{{ look.file }}.pdf">masked-{{ look.file }}.pdf</a>, each also as .png.</p>
{% endif %}
{% if look.matrix %}
<h4>Differences in {{ look.primary.title }}</h4>
<div class="scroll" tabindex="0" role="region" aria-label="differences in {{ look.primary.title }} by {{ look.name }}">
<table class="differences measured">
<caption>row − column in {{ look.primary.title }} [95 % interval, not adjusted]; ▲ decided: the row is higher; ▼ decided: the row is lower; · not decided. {{ look.basis }}.</caption>
<thead><tr><th scope="col">row − column</th>{% for name, _ in look.matrix %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, cells in look.matrix %}
{% set row = loop.index0 %}
<tr><th scope="row">{{ name }}</th>{% for cell in cells %}{% if cell %}{% set pair = cell.difference %}<td{{ ' class="decided"' | safe if pair.decision != "not decided" }} title="{{ cell.sentence }}">{{ "%+.3f" | format(pair.value) | replace("-", "−") }} <span role="img" aria-label="{{ "decided: " if pair.decision != "not decided" }}{{ pair.decision }}">{{ {"more": "▲", "less": "▼"}.get(pair.decision, "·") }}</span> <small class="interval">[{{ "%.3f" | format(pair.low) | replace("-", "−") }}, {{ "%.3f" | format(pair.high) | replace("-", "−") }}]</small></td>{% else %}<td>{{ "–" if loop.index0 != row }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if look.decided %}
<details><summary>Decided differences in every measure</summary>
<table class="plain">
<thead><tr><th scope="col">measure</th><th scope="col">decided</th><th scope="col">which</th></tr></thead>
<tbody>
{% for row in look.decided %}
<tr><th scope="row">{{ row.title }}</th><td>{{ row.decided | length }} of {{ row.count }}</td><td>{% for pair in row.decided %}<span title="{{ pair.sentence }}">{{ pair.first }} &gt; {{ pair.second }}</span>{{ "; " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</details>
<p class="note">Every difference with its interval and p, unadjusted and by Holm: <a href="panel-differences.csv">panel-differences.csv</a>.</p>
{% endif %}
{% endfor %}
{% if gradients %}
<h3>How the gradient's values are distributed</h3>
{{ legend("gradients") }}
<div class="panels two">
{% for panel in gradients %}{{ figure(panel, "the numbers shown on hovering") }}{% endfor %}
</div>
<p class="note">For papers: <a href="figures/gradients.pdf">gradients.pdf</a>, <a href="figures/gradients.png">gradients.png</a>.</p>
{% endif %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    maps = page.summary.maps
    return {
        "looks": [_look(page, explained) for explained in maps.explained],
        "explain": _explain(page.summary.comparison),
        "gradients": gradient_charts(maps.pictures.gradients, maps.numbers),
    }


def _write(page: PageRequest) -> None:
    write_measures(page.summary.maps, page.out / "figures")
    write_gradients(page.summary.maps, page.out / "figures")
    write_map_tables(page.summary.maps, page.out)


def _look(page: PageRequest, explained: Explained) -> dict[str, Any]:
    """The panel of an attribution for the page."""

    maps, panel, primary = page.summary.maps, explained.panel, explained.primary
    rows = panel_rows(explained)
    tradeoff = maps.tradeoffs.get(explained.name)
    return {
        "attribution": explained.attribution,
        "name": explained.name,
        "view": panel.shortcut_view,
        "file": explained.file,
        "words": panel_words(explained),
        "not_run": panel.not_run,
        "notes": explained.notes,
        "methods": panel.methods,
        "area": panel.area,
        "shortcut_area": panel.shortcut_area,
        "rows": [
            {
                "title": row.title,
                "definition": row.measure.definition,
                "primary": row.measure == primary,
                "n": row.n,
                "cells": [score.text() for score in row.scores],
            }
            for row in rows
        ],
        "gates": [(panel.gate(method), panel.between(method), panel.uninformative(method)) for method in panel.methods],
        "unrun": panel_unrun(explained),
        "masked": masked_charts(explained, maps.numbers),
        "tradeoff": tradeoff,
        "scatter": None if tradeoff is None else tradeoff_scatter(tradeoff, maps.numbers),
        "primary": primary,
        "matrix": _matrix(panel.methods, primary, panel.differences(primary.name)),
        "basis": panel_basis(panel.differences(primary.name)),
        "decided": [
            {
                "title": row.title,
                "n": row.n,
                "count": len(differences),
                "decided": [
                    {"first": more.first, "second": more.second, "sentence": measure_sentence(row.measure, more)}
                    for more in _decided(differences)
                ],
            }
            for row in rows
            if (differences := panel.differences(row.measure.name))
        ],
    }


def _matrix(
    methods: Sequence[str], measure: Measure, differences: Sequence[PairedDifference]
) -> list[tuple[str, list[Any]]]:
    """Row minus column; ``None`` on the diagonal and where two methods cannot be paired."""

    cells = {
        (each.first, each.second): {"difference": each, "sentence": measure_sentence(measure, each)}
        for both in differences
        for each in (both, both.turned())
    }
    return [(row, [cells.get((row, column)) for column in methods]) for row in methods] if differences else []


def _decided(differences: Sequence[PairedDifference]) -> list[PairedDifference]:
    """The decided differences, each from the method with the higher value."""

    return [
        each if each.decision == "more" else each.turned() for each in differences if each.decision != "not decided"
    ]


def _explain(comparison: Comparison) -> str:
    """The command that explains all runs."""

    runs = [run for method in comparison.methods for run in method.runs]
    again = next((named for run in runs if (named := run.config.own_code())), [])
    return shlex.join(["asgt", "explain", *(str(run.folder) for run in runs), *again])


MEASURES_OF_MAPS = Section("looks", "Map measures", TEMPLATE, _context, _write)
