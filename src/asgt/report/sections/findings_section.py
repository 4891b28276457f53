"""The section on what was found, and by which protocols."""

from __future__ import annotations

from typing import Any

from ...comparison.comparing import Comparison
from ...evaluation.protocols import Protocol
from ...numbers import eps_text
from ..section import PageRequest, Section

__all__ = ["FINDINGS", "what_runs"]

TEMPLATE = r"""<section id="found">
<h2>What was found</h2>
<ul>
{% for sentence in findings %}
<li>{{ sentence | whole }}</li>
{% endfor %}
</ul>
<h3>By which protocols</h3>
<table class="plain">
<thead><tr><th scope="col">protocol</th><th scope="col">what it runs</th><th scope="col">what a number by it may be called</th></tr></thead>
<tbody>
{% for protocol in protocols %}
<tr><th scope="row">{{ protocol.name }}&nbsp;v{{ protocol.version }}</th><td>{{ what_runs[protocol.key] | whole }}</td><td>{{ protocol.claim }}</td></tr>
{% endfor %}
</tbody>
</table>
{% for sentence in comparison.left_out %}
<p class="note">{{ sentence }}.</p>
{% endfor %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    comparison = page.summary.comparison
    return {
        "findings": page.summary.findings,
        "what_runs": {key: what_runs(comparison, protocol) for key, protocol in comparison.protocols.items()},
    }


def what_runs(comparison: Comparison, protocol: Protocol) -> str:
    """What a protocol runs, and what was different about it in some runs, in sentences."""

    grid = f"ε: {', '.join(map(eps_text, comparison.epsilons[protocol.key]))}"
    if not protocol.worst_case:
        titles = "; ".join(search.title for search in protocol.searches)
        return f"{titles}; each from scratch at every ε, its final iterate, whatever the clean image's outcome. {grid}"

    evaluations = [run.evaluations[protocol.key] for method in comparison.methods for run in method.runs]
    classes = evaluations[0].classes
    attacks = "; ".join(search.among(classes).described() for search in protocol.searches)
    told = [
        f"The worst of {attacks}, and of a search along the gradient of the margin, which goes first and presses what "
        "breaks a sample on to smaller ε",
        "Per sample, the smallest ε that breaks it: clean errors are errors, and what is broken at an ε counts as "
        "broken above it",
    ]
    if discarded := comparison.discarded(protocol.key):
        told.append(f"Images far from the boundary are discarded: {discarded}")
    if evaluations[0].adapted:
        told.append(f"Attacks are adapted to {classes} classes: they are not their authors' own")
    if votes := [evaluation.votes for evaluation in evaluations if evaluation.votes > 1]:
        told.append(
            f"{len(votes)} of {len(evaluations)} models are not deterministic: each of their answers is the majority "
            f"of {max(votes)}"
        )
    return f"{'. '.join(told)}. {grid}"


FINDINGS = Section("found", "Found", TEMPLATE, _context)
