"""The section of warnings about single runs and files; omitted without warnings."""

from __future__ import annotations

from typing import Any

from ...evaluation.remedies import diagnosed
from ..section import PageRequest, Section

__all__ = ["WARNINGS"]

TEMPLATE = r"""<section id="warnings" class="warnings">
<h2>Warnings</h2>
{% if warnings %}
<p>Runs whose training failed are included in every number here.</p>
{% endif %}
<ul>
{% for text in remarks %}
<li>{{ text }}</li>
{% endfor %}
{% for method, run, text in warnings %}
<li><b>{{ method.name | name }}, seed {{ run.seed }}</b>: {{ text }}</li>
{% endfor %}
</ul>
{% if diagnoses %}
<p class="note">What to do:{% for name in diagnoses %}{{ name | remedy }}{{ ", " if not loop.last }}{% endfor %}.</p>
{% endif %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any] | None:
    summary = page.summary
    if not summary.warnings and not summary.remarks:
        return None
    diagnoses = dict.fromkeys(name for _, _, text in summary.warnings for name in diagnosed(text))
    return {"warnings": summary.warnings, "remarks": summary.remarks, "diagnoses": list(diagnoses)}


WARNINGS = Section("warnings", "Warnings", TEMPLATE, _context)
