"""The section on differences between methods; omitted without pairs. Its file is ``differences.csv``."""

from __future__ import annotations

from typing import Any

from ...comparison.comparing import Comparison
from ...comparison.differences import DifferenceTable, basis, interval_points
from ...numbers import points
from ...statistics import PairedDifference
from ..rows import write_rows
from ..section import PageRequest, Section

__all__ = ["DIFFERENCES"]

TEMPLATE = r"""<section id="differences">
<h2>Differences between methods</h2>
<p class="note">How to read the tables: each cell is row minus column, in points of accuracy [95 % interval, not adjusted for multiple comparisons]. ▲ decided: the row is higher; ▼ decided: the row is lower; · not decided. A difference is decided if p &lt; 0.05 after Holm's correction and its interval excludes zero. A difference that is not decided may still exist, within its interval.</p>
{% for matrix in matrices %}
<h3>{{ matrix.where[0] | upper }}{{ matrix.where[1:] }}</h3>
<div class="scroll" tabindex="0" role="region" aria-label="differences {{ matrix.where }}">
<table class="differences">
<caption>{{ matrix.decided }} of {{ matrix.count }} {{ "pair is" if matrix.count == 1 else "pairs are" }} decided; ▲: the row {{ matrix.more }} than the column; n&nbsp;=&nbsp;{{ matrix.samples }} test images of {{ comparison.data }}, {{ norm }}. {{ matrix.basis | join(". ") }}.{% if matrix.unpaired %} –: several seeds, and none in common.{% endif %}</caption>
<thead>
<tr><th scope="col">row − column</th>{% for name, _ in matrix.rows %}<th scope="col">{{ name | name }}</th>{% endfor %}</tr>
</thead>
<tbody>
{% for name, cells in matrix.rows %}
{% set row = loop.index0 %}
<tr><th scope="row">{{ name | name }}</th>{% for cell in cells %}{% if cell %}<td{{ ' class="decided"' | safe if cell.decision != "not decided" }} title="{{ cell.sentence }}">{{ cell.points }} <span role="img" aria-label="{{ "decided: " if cell.decision != "not decided" }}{{ cell.decision }}">{{ {"more": "▲", "less": "▼"}.get(cell.decision, "·") }}</span> <small class="interval">{{ cell.interval }}</small>{% if matrix.kinds | length > 1 and cell.kind == "models" %} <small class="interval">two models</small>{% endif %}</td>{% else %}<td>{{ "–" if loop.index0 != row }}</td>{% endif %}{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
<p class="note">Every difference with its p, unadjusted and by Holm: <a href="differences.csv">differences.csv</a>.</p>
</section>
"""


def _context(page: PageRequest) -> dict[str, Any] | None:
    if not page.summary.differences:
        return None
    return {"matrices": [_matrix(page.summary.comparison, table) for table in page.summary.differences]}


def _matrix(comparison: Comparison, table: DifferenceTable) -> dict[str, Any]:
    """A table of differences, row minus column; ``None`` where two methods cannot be paired, or are the same."""

    cells = {
        (difference.first, difference.second): _cell(table, difference)
        for each in table.differences
        for difference in (each, each.turned())
    }
    names = [method.name for method in comparison.methods]
    return {
        "where": table.where,
        "more": "is more robust" if table.column is not None else "is correct on more images",
        "rows": [(row, [cells.get((row, column)) for column in names]) for row in names],
        "samples": comparison.samples_of(table.column),
        "kinds": {each.kind for each in table.differences},
        "decided": len(table.decided),
        "count": len(table.differences),
        "unpaired": len(table.differences) < len(names) * (len(names) - 1) // 2,
        "basis": basis(table.differences),
    }


def _cell(table: DifferenceTable, difference: PairedDifference) -> dict[str, Any]:
    return {
        "decision": difference.decision,
        "kind": difference.kind,
        "sentence": table.sentence(difference),
        "points": points(difference.value, "+"),
        "interval": interval_points(difference),
    }


def _write(page: PageRequest) -> None:
    write_rows(page.out / "differences.csv", _rows(page))


def _rows(page: PageRequest) -> list[dict[str, Any]]:
    """Every difference that the page shows, a row a pair."""

    return [
        {
            "first": each.first,
            "second": each.second,
            "kind": each.kind,
            "seeds": " ".join(map(str, each.seeds)),
            "protocol": table.column.protocol if table.column else "",
            "version": table.column.version if table.column else "",
            "attack": table.column.attack if table.column else "clean",
            "norm": page.summary.comparison.norm,
            "eps": f"{table.eps:.6g}",
            "samples": each.n,
            "difference": f"{each.value:.6f}",
            "low": f"{each.low:.6f}",
            "high": f"{each.high:.6f}",
            "p": f"{each.p:.6g}",
            "p_holm": f"{each.adjusted:.6g}",
            "claims": each.claims,
            "verdict": each.decision,
        }
        for table in page.summary.differences
        for each in table.differences
    ]


DIFFERENCES = Section("differences", "Differences", TEMPLATE, _context, _write)
