"""The section of traces, where a run was evaluated with them; its files are ``figures/traces``."""

from __future__ import annotations

from typing import Any

from ..figures import write_charts
from ..section import PageRequest, Section
from ..trace_charts import traced_runs

__all__ = ["TRACES"]

TEMPLATE = r"""<section id="traces">
<h2>Did the attack converge?</h2>
<p>The loss of one run of the attack over its steps. Flat at the end: the attack has converged, and more steps would hardly change the accuracy. Still rising at the end: the attack was stopped too early, and a longer one would lower the accuracy.</p>
<p class="note">Thick: the median of the survivors (blue, circles, solid line) and of the broken images (orange, squares, dashed line). Thin: each image, up to 32 of a kind. The dotted line is where the last tenth of the steps begins. The images are the first survivors and the first broken images in the order of the data, for the first run of each method that has a trace.</p>
<div class="panels">
{% for each in traced %}{{ figure(each.chart, "the table below and trace.safetensors of the run") }}{% endfor %}
</div>
<div class="scroll" tabindex="0" role="region" aria-label="traces">
<table>
<thead>
<tr><th scope="col">run</th><th scope="col">protocol</th><th scope="col">attack</th><th scope="col">ε</th><th scope="col">survivors</th><th scope="col">broken</th><th scope="col">late rise</th><th scope="col">differ</th></tr>
</thead>
<tbody>
{% for each in traced %}
<tr><th scope="row">{{ each.method | name }}, seed {{ each.seed }}</th><td>{{ each.protocol.name }} v{{ each.protocol.version }}</td><td>{{ each.trace.attack }}</td><td>{{ each.trace.eps | eps }}</td><td>{{ each.trace.survivors }}</td><td>{{ each.trace.broken }}</td><td>{{ "–" if each.trace.late_rise is none else each.trace.late_rise | percent }}</td><td>{{ each.trace.contradicts.sum().item() }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="note">Late rise: how much of the rise of the highest loss so far, summed over the survivors, falls into the last tenth of the steps. Near 0 %: converged. A loss that rises evenly from start to end has 10 % there. Differ: images that end otherwise than in the evaluation. For papers: <a href="figures/traces.pdf">traces.pdf</a>, <a href="figures/traces.png">traces.png</a>.</p>
</section>
"""


def _context(page: PageRequest) -> dict[str, Any] | None:
    traced = traced_runs(page.summary.comparison)
    return {"traced": traced} if traced else None


def _write(page: PageRequest) -> None:
    charts = [each.chart for each in traced_runs(page.summary.comparison)]
    for suffix in ("png", "pdf"):
        path = page.out / "figures" / f"traces.{suffix}"
        if charts:
            write_charts(charts, path, title="loss of the attack over its steps; thick: medians, thin: each image")
        else:
            path.unlink(missing_ok=True)


TRACES = Section("traces", "Traces", TEMPLATE, _context, _write)
