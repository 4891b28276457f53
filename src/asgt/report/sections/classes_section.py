"""The section of classes: balanced accuracy of each method, and the classes with the lowest accuracy."""

from __future__ import annotations

from typing import Any

from ...comparison.class_accuracies import class_accuracies
from ...evaluation.by_class import FEW, NOT_CORRECTED
from ..section import PageRequest, Section

__all__ = ["CLASSES"]

TEMPLATE = r"""{% macro cell(estimate) %}<td data-value="{{ estimate.value }}">{% set value, rest = estimate.percent().split(" ", 1) %}{{ value }} <small{{ ' class="interval"' | safe if rest.startswith("[") }}>{{ rest }}</small></td>{% endmacro %}
{% macro head(names) %}<thead><tr>{% for name in names %}<th scope="col"><button type="button">{{ name }}</button></th>{% endfor %}</tr></thead>{% endmacro %}
<section id="classes">
<h2>By class</h2>
<p class="note">Balanced accuracy is the mean of the accuracies of the {{ by_class.classes }} classes that have images{% if by_class.absent %}; {{ by_class.absent }} further classes of the models have no images{% endif %}. Robust: {{ by_class.judge.title | whole }} (protocol {{ by_class.judge.protocol }} v{{ by_class.judge.version }}) at {{ norm }}, ε&nbsp;=&nbsp;{{ by_class.eps | eps }}. Values are in percent: mean ± standard deviation over seeds, or the 95 % interval of a single seed (Wilson for a class, MOVER for the mean over classes); {{ not_corrected }}.</p>
<div class="scroll" tabindex="0" role="region" aria-label="balanced accuracy and the worst class of each method">
<table class="sortable classes">
{{ head(("method", "balanced, clean", "balanced, robust", "worst class", "images", "clean, worst class", "robust, worst class")) }}
<tbody>
{% for each in by_class.methods %}
<tr><th scope="row" data-value="{{ loop.index0 }}">{{ each.method.name | name }}</th>{{ cell(each.clean) }}{{ cell(each.robust) }}<td>{{ each.worst.name | name }}{% if each.as_bad > 1 %} <small>and {{ each.as_bad - 1 }} others with the same accuracy</small>{% endif %}</td><td data-value="{{ each.worst.n }}">{{ each.worst.n }}</td>{{ cell(each.worst.clean) }}{{ cell(each.worst.robust) }}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% for each in by_class.methods %}
<details>
<summary>{{ each.method.name | name }}: {% if each.rows | length < by_class.classes %}the {{ few }} classes with the lowest robust accuracy of {{ by_class.classes }}{% else %}all {{ by_class.classes }} classes{% endif %}</summary>
<div class="scroll" tabindex="0" role="region" aria-label="accuracy of {{ each.method.name | name }} by class">
<table class="sortable classes">
{{ head(("class", "images", "clean", "robust")) }}
<tbody>
{% for row in each.rows %}
<tr><th scope="row" data-value="{{ loop.index0 }}">{{ row.name | name }}{{ " ▼ worst" if row.is_worst }}</th><td data-value="{{ row.n }}">{{ row.n }}</td>{{ cell(row.clean) }}{{ cell(row.robust) }}</tr>
{% endfor %}
</tbody>
</table>
</div>
</details>
{% endfor %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any] | None:
    found = class_accuracies(page.summary.comparison)
    return None if found is None else {"by_class": found, "few": FEW, "not_corrected": NOT_CORRECTED}


CLASSES = Section("classes", "By class", TEMPLATE, _context)
