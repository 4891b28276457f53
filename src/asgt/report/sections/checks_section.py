"""The section on the checks of the evaluations."""

from __future__ import annotations

from typing import Any

from ...comparison.comparing import Comparison
from ...evaluation.check import THOROUGH
from ...runs.run import evaluate_command
from ..section import PageRequest, Section

__all__ = ["CHECKS"]

TEMPLATE = r"""<section id="checks">
<h2>Checks of the evaluation</h2>
<p>Each check tests one reason why an attack may fail although the model is not robust. The checks can show that no failure was detected. They cannot prove that no gradient is masked.</p>
<p class="note">How to read the table: a cell holds the worst verdict over the runs of a method: ✗ FAIL, ! WARN, – NOT RUN, ✓ PASS in every run. 2/3 means in two of three runs. If a cell holds several verdicts, the other runs passed.</p>
{% for credibility in checked %}
<h3>{{ credibility.protocol.name }} v{{ credibility.protocol.version }} ({{ credibility.protocol.claim }})</h3>
<p>{{ credibility.summary()[0] | upper }}{{ credibility.summary()[1:] }}.{% if credibility.expected %} {{ credibility.expected[0] | upper }}{{ credibility.expected[1:] | whole }}.{% endif %}</p>
{% if credibility.rows %}
<div class="scroll" tabindex="0" role="region" aria-label="checks under {{ credibility.protocol.name }} v{{ credibility.protocol.version }}">
<table class="checks{{ " claimed" if credibility.protocol.worst_case }}">
<thead>
<tr><th scope="col">check</th>{% for method in credibility.methods %}<th scope="col">{{ method.name | name }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for name, tallies in credibility.rows %}
<tr><th scope="row">{{ name }}</th>{% for tally in tallies %}<td class="{{ tally.worst | lower | replace(" ", "-") }}" title="{{ tally.said }}"><span role="img" aria-label="{{ tally.text() }}">{{ tally.marks() }}</span></td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% if credibility.findings %}
<ul class="checked">
{% for finding in credibility.findings %}
<li><b>{{ finding.verdict }} {{ finding.name }}</b>: {{ finding.who() }}. Remedy: {{ finding.remedy }}.{{ finding.name | remedy }}
<ul>
{% for evidence, shares in finding.evidence() %}
<li>{% if finding.evidence() | length > 1 or not finding.everywhere or shares | length == 1 %}{% for share in shares %}{{ share.where() }}{{ "; " if not loop.last }}{% endfor %}: {% endif %}{{ evidence | whole }}</li>
{% endfor %}
</ul>
</li>
{% endfor %}
</ul>
{% endif %}
{% if credibility.rows and credibility.unrun %}
<p class="note">Not run: {% for finding in credibility.unrun %}{{ finding.name }} ({{ finding.who() }}: {{ finding.shares[0].check.evidence | whole }}; {{ finding.remedy }}){{ "; " if not loop.last }}{% endfor %}.</p>
{% endif %}
{% endfor %}
{% if thorough %}
<p>The expensive checks take long: on 500 images of MNIST, two to five times as long as the evaluation by <code>pgd</code> itself. They start from the saved evaluation, and are on this page once it is written again. For one run under each protocol:</p>
<pre><code>{{ thorough | join("\n") | entire }}</code></pre>
{% endif %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    return {"checked": page.summary.credibility, "thorough": _thorough(page.summary.comparison)}


def _thorough(comparison: Comparison) -> list[str]:
    """The commands that run the expensive checks, of the first run under each protocol that lacks them."""

    lines = []
    for name in comparison.epsilons:
        for run in (run for method in comparison.methods for run in method.runs):
            if any(check.remedy == THOROUGH for check in run.evaluations[name].checks):
                lines.append(evaluate_command(run, "--protocol", name, "--resume", "--thorough"))
                break
    return lines


CHECKS = Section("checks", "Checks", TEMPLATE, _context)
