"""The section of training curves; its file is ``figures/training``."""

from __future__ import annotations

from typing import Any

from ..curves import training_charts
from ..figures import write_charts
from ..section import PageRequest, Section

__all__ = ["TRAINING"]

TEMPLATE = r"""<section id="training">
<h2>Training</h2>
{% if untrained %}
<p class="note">{{ untrained | join(", ") }}: no epoch was trained, so there is no curve.</p>
{% endif %}
{% if training %}
{{ legend("training") }}
<div class="panels">
{% for panel in training %}{{ figure(panel, "metrics.jsonl of each run") }}{% endfor %}
</div>
<p class="note">How to read the figures: lines are means over seeds, bands ± one standard deviation. The validation part is held out of the training images and selects the epoch; the test images select nothing. For papers: <a href="figures/training.pdf">training.pdf</a>, <a href="figures/training.png">training.png</a>.</p>
{% endif %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    comparison = page.summary.comparison
    untrained = [method.name for method in comparison.methods if not method.runs[0].history]
    return {"training": training_charts(comparison), "untrained": untrained}


def _write(page: PageRequest) -> None:
    comparison = page.summary.comparison
    if charts := training_charts(comparison):
        for suffix in ("png", "pdf"):
            path = page.out / "figures" / f"training.{suffix}"
            write_charts(charts, path, title=f"training on {comparison.data}")


TRAINING = Section("training", "Training", TEMPLATE, _context, _write)
