"""The first section: one figure, the findings, and what a number by each protocol may claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ...comparison.comparing import Comparison
from ...evaluation.protocols import Protocol
from ...numbers import eps_text
from ..curves import bands, robustness_charts
from ..section import PageRequest, Section

__all__ = ["FINDINGS", "what_runs"]

TEMPLATE = r"""<section id="found">
<h2>Findings</h2>
<div class="first">
<div>
{{ legend("found") }}
{{ figure(lead, "accuracies.csv") }}
<p class="note">How to read it: each curve is one method. Higher is more robust. A steep fall means that a small change of the image breaks the model. {{ bands[0] | upper }}{{ bands[1:] }}.</p>
</div>
<div>
<ol class="findings">
{% for sentence in findings[:3] %}
<li>{{ sentence | whole }}</li>
{% endfor %}
</ol>
{% for sentence in alarms %}
<p class="alarm">{{ sentence | whole }}</p>
{% endfor %}
<table class="plain">
<caption>What a number may claim depends on its protocol.</caption>
<thead><tr><th scope="col">protocol</th><th scope="col">claim</th></tr></thead>
<tbody>
{% for protocol in protocols %}
<tr><th scope="row">{{ protocol.name }}&nbsp;v{{ protocol.version }}</th><td>{{ protocol.claim }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
</div>
{% if findings | length > 3 %}
<h3>More findings</h3>
<ul>
{% for sentence in findings[3:] %}
<li>{{ sentence | whole }}</li>
{% endfor %}
</ul>
{% endif %}
<h3>What each protocol runs</h3>
<dl class="settings">
{% for protocol in protocols %}
<div><dt>{{ protocol.name }}&nbsp;v{{ protocol.version }}</dt><dd>{{ what_runs[protocol.key] | whole }}</dd></div>
{% endfor %}
</dl>
{% for sentence in comparison.left_out %}
<p class="note">{{ sentence }}.</p>
{% endfor %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    comparison = page.summary.comparison
    judge = comparison.judges()[-1]
    charts = {chart.key: chart for chart in robustness_charts(comparison)}
    lead = charts[f"{judge.key}-{judge.attack}"]
    return {
        "lead": replace(lead, key=f"found-{lead.key}"),
        "bands": bands(comparison),
        "findings": page.summary.findings,
        "alarms": page.summary.alarms,
        "what_runs": {key: what_runs(comparison, protocol) for key, protocol in comparison.protocols.items()},
    }


def what_runs(comparison: Comparison, protocol: Protocol) -> str:
    """Describes in sentences what a protocol runs, and what was different about it in some runs."""

    grid = f"ε: {', '.join(map(eps_text, comparison.epsilons[protocol.key]))}"
    if not protocol.worst_case:
        titles = "; ".join(search.title for search in protocol.searches)
        return f"{titles}. Each starts from scratch at every ε; the final iterate counts, for clean errors too. {grid}"

    evaluations = [run.evaluations[protocol.key] for method in comparison.methods for run in method.runs]
    classes = evaluations[0].classes
    full = {
        search.name
        for search in protocol.searches
        if all(search.name in each.discards and each.discards[search.name].full for each in evaluations)
    }
    attacks = "; ".join(search.among(classes).described(full=search.name in full) for search in protocol.searches)
    told = [
        f"The worst case over {attacks}, and over a search along the gradient of the margin, which runs first and "
        "moves each adversarial example to smaller ε",
        "The result is the smallest ε that breaks each sample: a clean error counts as an error at every ε, and a "
        "sample that is broken at one ε counts as broken at every larger one",
    ]
    if discarded := comparison.discarded(protocol.key):
        whole = discarded[0].upper() + discarded[1:]
        told.append(whole if full else f"Images far from the boundary are discarded: {discarded}")
    if evaluations[0].adapted:
        told.append(f"The attacks are adapted to {classes} classes, so they differ from their authors' versions")
    if votes := [evaluation.votes for evaluation in evaluations if evaluation.votes > 1]:
        told.append(
            f"{len(votes)} of {len(evaluations)} models are not deterministic: each of their predictions is the "
            f"majority of {max(votes)} passes"
        )
    return f"{'. '.join(told)}. {grid}"


FINDINGS = Section("found", "Findings", TEMPLATE, _context)
