"""The section of robustness curves; its files are ``figures/robustness`` and ``accuracies.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...comparison.comparing import Comparison
from ..curves import bands, robustness_charts, robustness_curves
from ..figures import Chart
from ..rows import write_rows
from ..section import PageRequest, Section

__all__ = ["CURVES"]

TEMPLATE = r"""<section id="curves">
<h2>Robustness curves</h2>
<p class="note">How to read the figures: accuracy on {{ comparison.samples }} test images{{ comparison.fewer_text() }} over ε, one curve for each method, higher is more robust; {{ bands }}. Hover over or touch a figure to see its numbers, or a name to see its curve.</p>
{{ legend("curves") }}
{% if pair %}
<h3>The same models under a weak and a stronger attack</h3>
<p>The first attack is the common default of libraries: its step size is constant. The second is a worst case whose step size grows with ε. Where the first curve becomes flat, the attack is too weak; the model is not more robust there.</p>
<div class="panels two">
{% for panel in pair %}{{ figure(panel, "accuracies.csv") }}{% endfor %}
</div>
<h3>Other attacks</h3>
{% endif %}
<div class="panels">
{% for panel in panels if panel not in pair %}{{ figure(panel, "accuracies.csv") }}{% endfor %}
</div>
<p class="note">For papers: <a href="figures/robustness.pdf">robustness.pdf</a>, <a href="figures/robustness.png">robustness.png</a>; every accuracy of every run: <a href="accuracies.csv">accuracies.csv</a>.</p>
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    comparison = page.summary.comparison
    charts = robustness_charts(comparison)
    return {"bands": bands(comparison), "panels": charts, "pair": _pair(comparison, charts)}


def _write(page: PageRequest) -> None:
    for suffix in ("png", "pdf"):
        robustness_curves(page.summary.comparison, page.out / "figures" / f"robustness.{suffix}")
    write_rows(page.out / "accuracies.csv", _rows(page.summary.comparison))


def _pair(comparison: Comparison, charts: Sequence[Chart]) -> list[Chart]:
    """The common library default and the strictest worst case, shown side by side; empty without both."""

    judge = comparison.judges()[-1]
    by_key = {chart.key: chart for chart in charts}
    wanted = ("paper-pgd-constant-rs", f"{judge.key}-{judge.attack}")
    both = comparison.protocols[judge.key].worst_case and all(key in by_key for key in wanted)
    return [by_key[key] for key in wanted] if both else []


def _rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Every accuracy of every run."""

    return [
        {
            "method": method.name,
            "seed": run.seed,
            "protocol": column.protocol,
            "version": column.version,
            "attack": column.attack,
            "norm": comparison.norm,
            "eps": f"{eps:.6g}",
            "samples": accuracy.n,
            "accuracy": f"{value:.6f}",
        }
        for method in comparison.methods
        for column in comparison.columns
        for eps, accuracy in comparison.curve(method, column)
        for run, value in zip(method.runs, accuracy.values, strict=True)
    ]


CURVES = Section("curves", "Curves", TEMPLATE, _context, _write)
