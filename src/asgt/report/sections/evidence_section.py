"""The section on the files of the results, and the cost of the worst cases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...comparison.comparing import Comparison
from ...comparison.method_naming import Method
from ...evaluation.protocols import stored_name
from ...runs.run import Run
from ..section import PageRequest, Section

__all__ = ["EVIDENCE"]

TEMPLATE = r"""<section id="evidence">
<h2>Stored results</h2>
<p class="note">Each run folder holds the configuration, the metrics of every epoch and the weights. It also holds the outcome of every sample at every ε for each evaluation, and every measure of every image for each explanation, with the hashes of model and data.</p>
<div class="scroll" tabindex="0" role="region" aria-label="run folders">
<table class="sortable plain">
<thead><tr><th scope="col"><button type="button">method</button></th><th scope="col"><button type="button">seed</button></th><th scope="col"><button type="button">saved epoch</button></th><th scope="col">selected by</th><th scope="col">weights (SHA-256)</th><th scope="col">run folder</th><th scope="col">results</th></tr></thead>
<tbody>
{% for run in evidence %}
<tr><th scope="row">{{ run.method | name }}</th><td data-value="{{ run.seed }}">{{ run.seed }}</td><td>{{ run.epoch }}</td><td>{{ run.chosen_by }}</td><td><code>{{ run.model }}…</code></td><td><a href="{{ run.place | entire }}/config.yaml">{{ run.folder | entire }}</a></td><td>{% for name, place in run.results %}<a href="{{ place | entire }}">{{ name }}</a>{{ " " if not loop.last }}{% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if costs %}
<h3>Cost of the worst cases</h3>
<div class="scroll" tabindex="0" role="region" aria-label="cost of the worst cases">
<table class="sortable plain">
<caption>Gradients and forward passes are means over the samples. The ideal search runs each attack once at the ε where it just fails, and repeats the successful attack once. The audit attacks some samples at an ε below one at which the attack failed, where none should break: the number that broke [upper bound, Clopper–Pearson 95 %]. Its gradients are additional. The time of each search is in its result file.</caption>
<thead><tr>{% for name in ("method", "seed", "protocol", "gradients", "ideal search", "forward passes", "audit gradients") %}<th scope="col"><button type="button">{{ name }}</button></th>{% endfor %}<th scope="col">broke in the audit</th><th scope="col">first to break a sample</th></tr></thead>
<tbody>
{% for cost in costs %}
<tr><th scope="row">{{ cost.method | name }}</th><td>{{ cost.seed }}</td><td>{{ cost.protocol }}</td>{% for name in ("gradients", "floor", "forwards", "audit") %}<td data-value="{{ cost[name] }}">{{ "%.0f" | format(cost[name]) if cost[name] or name != "floor" else "–" }}</td>{% endfor %}<td class="words">{% if cost.tested %}{{ cost.missed }} of {{ cost.tested }} [{{ cost.missed_high | percent }}]{% else %}no sample tested{% endif %}</td><td class="words">{% for title, count in cost.first.items() %}{{ title }}: {{ count }}{{ ", " if not loop.last }}{% else %}nothing{% endfor %}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if budgets %}
<h3>Cost of the phases of a search by margin</h3>
<div class="scroll" tabindex="0" role="region" aria-label="cost of the phases of a search by margin">
<table class="sortable plain">
<caption>All images get a few short attacks, and those near the boundary get more. Gradients and forward passes are sums over the images of a phase; a gradient costs about three forward passes. The audit attacks a random part of the survivors, discarded or near, with the full search.</caption>
<thead><tr>{% for name in ("method", "seed", "protocol", "phase", "images", "broken", "gradients", "forward passes", "% of the cost") %}<th scope="col"><button type="button">{{ name }}</button></th>{% endfor %}</tr></thead>
<tbody>
{% for row in budgets %}
<tr><th scope="row">{{ row.method | name }}</th><td>{{ row.seed }}</td><td>{{ row.protocol }}</td><td class="words" data-value="{{ row.number }}">{{ row.phase.name }}</td>{% for value in (row.phase.samples, row.phase.broken, row.phase.gradients, row.phase.forwards) %}<td data-value="{{ value }}">{{ "{:,}".format(value) }}</td>{% endfor %}<td data-value="{{ row.share }}">{{ "%.0f" | format(row.share) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    comparison = page.summary.comparison
    return {
        "evidence": [_evidence(method, run, page.out) for method in comparison.methods for run in method.runs],
        "costs": _costs(comparison),
        "budgets": _budgets(comparison),
    }


def _evidence(method: Method, run: Run, out: Path) -> dict[str, Any]:
    """The path of a run relative to the page, and its hashes."""

    place = quote(os.fsencode(os.path.relpath(run.folder, out).replace(os.sep, "/")))
    return {
        "method": method.name,
        "seed": run.seed,
        "folder": str(run.folder),
        "place": place,
        "epoch": f"{run.result.chosen_epoch + 1} of {run.result.epochs}" if run.result.epochs else "–",
        "chosen_by": run.result.chosen_by,
        "model": next(iter(run.evaluations.values())).model[:12],
        "results": [
            *((key, f"{place}/evaluation/{stored_name(key)}/result.json") for key in run.evaluations),
            *((each.name, f"{place}/explanation/{each.stored_as}/result.json") for each in run.explanations.values()),
        ],
    }


def _costs(comparison: Comparison) -> list[dict[str, Any]]:
    """The cost of each run's worst cases, the attacks that broke its samples first, and the audit.

    Seconds are omitted, so that the same grid gives the same page, even if it was interrupted.
    """

    return [
        {
            "method": method.name,
            "seed": run.seed,
            "protocol": f"{column.protocol} v{column.version}",
            "first": evaluation.first_to_break(column.attack),
            **evaluation.cost(column.attack),
        }
        for method in comparison.methods
        for run in method.runs
        for column in comparison.columns
        if comparison.protocols[column.key].worst_case
        for evaluation in [run.evaluations[column.key]]
    ]


def _budgets(comparison: Comparison) -> list[dict[str, Any]]:
    """Where the passes of each run's searches by margin went, phase by phase."""

    return [
        {
            "method": method.name,
            "seed": run.seed,
            "protocol": f"{column.protocol} v{column.version}",
            "number": number,
            "phase": phase,
            "share": 100 * phase.passes / discards.passes,
        }
        for method in comparison.methods
        for run in method.runs
        for column in comparison.columns
        for discards in [run.evaluations[column.key].discards.get(column.attack)]
        if discards is not None
        for number, phase in enumerate(discards.phases)
        if phase.samples
    ]


EVIDENCE = Section("evidence", "Evidence", TEMPLATE, _context)
