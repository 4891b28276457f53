"""The section of tables: accuracies at a few ε, and what the methods are."""

from __future__ import annotations

from typing import Any

from ...comparison.findings import failed_checks
from ...numbers import eps_text
from ...training.config import TrainConfig
from ..section import PageRequest, Section

__all__ = ["TABLES"]

TEMPLATE = r"""<section id="tables">
<h2>Tables</h2>
{% for table in tables %}
<h3>ε = {{ table.eps | eps }}{{ " (trained at)" if table.trained }}</h3>
<div class="scroll" tabindex="0" role="region" aria-label="accuracies at ε = {{ table.eps | eps }}">
<table class="sortable">
<caption>accuracy (%): mean ± standard deviation over seeds, or Wilson's 95 % interval for a single seed; n&nbsp;=&nbsp;{{ comparison.samples }} test images of {{ comparison.data }}{{ comparison.fewer_text() }}, {{ norm }}; protocols {% for protocol in protocols %}{{ protocol.name }} v{{ protocol.version }} ({{ protocol.claim }}{% if comparison.discarded(protocol.key) %}; {{ comparison.discarded(protocol.key) }}{% endif %}){{ ", " if not loop.last }}{% endfor %}</caption>
<thead>
<tr><td colspan="3"></td>{% for protocol in protocols %}<th scope="colgroup" colspan="{{ protocol.searches | length }}">{{ protocol.name }} v{{ protocol.version }}</th>{% endfor %}</tr>
<tr><th scope="col"><button type="button">method</button></th><th scope="col"><button type="button">seeds</button></th><th scope="col"><button type="button">clean</button></th>{% for column in table.columns %}<th scope="col"><button type="button">{% for part in column.title.split(", ") %}<span>{{ part }}{{ "," if not loop.last }}</span>{{ " " if not loop.last }}{% endfor %}</button></th>{% endfor %}</tr>
</thead>
<tbody>
{% for method, cells in table.rows %}
<tr><th scope="row" data-value="{{ loop.index0 }}">{{ method.name | name }}{% if method.name in warned %} <a href="#warnings" title="has a warning" aria-label="has a warning">⚠</a>{% endif %}{% if method.name in failed %} <a href="#checks" title="fails a check" aria-label="fails a check">✗</a>{% endif %}</th><td data-value="{{ method.runs | length }}">{{ method.runs | length }}</td>{% for cell in cells %}<td data-value="{{ cell.value }}" title="{% for run in method.runs %}seed {{ run.seed }}: {{ cell.values[loop.index0] | percent }}{{ ", " if not loop.last }}{% endfor %}">{% set value, rest = cell.percent().split(" ", 1) %}{{ value }} <small{{ ' class="interval"' | safe if rest.startswith("[") }}>{{ rest }}</small></td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
<h3>Settings of the methods</h3>
<dl class="settings">
{% for name, told in settings %}
<div><dt>{{ name }}</dt><dd>{{ told }}</dd></div>
{% endfor %}
</dl>
</section>
"""


# What a page tells of a method's settings; the rest is in the run's config.yaml.
_TOLD = (
    *("model", "width", "attack", "eps", "norm", "steps", "k", "weight", "epochs", "batch_size", "optimizer", "lr"),
    *("clip_norm", "label_smoothing", "class_weights", "limit", "weights", "from_run", "head_lr"),
)

_TOLD_OF_GIVEN = ("model", "width", "weights", "from_run", "epochs")
"""Settings that do not apply to a run of no epochs."""


def _context(page: PageRequest) -> dict[str, Any]:
    summary = page.summary
    return {
        "tables": summary.tables,
        "warned": {method.name for method, _, _ in summary.warnings},
        "failed": {share.method.name for finding in failed_checks(summary.credibility) for share in finding.shares},
        "settings": [(method.name, _settings(method.runs[0].config)) for method in summary.comparison.methods],
    }


def _settings(config: TrainConfig) -> str:
    told = []
    flat = config.to_dict()
    for name in (*_TOLD, *config.settings) if config.epochs else _TOLD_OF_GIVEN:
        value = flat[name]
        if value is not None and not (name == "optimizer" and value == TrainConfig.optimizer):
            words = eps_text(value) if name == "eps" else f"{value:g}" if isinstance(value, float) else value
            told.append(f"{name} {words}")
    return ", ".join(told)


TABLES = Section("tables", "Tables", TEMPLATE, _context)
