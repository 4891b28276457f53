"""Figures inside the page: inline SVG, an interactive legend, and the numbers that hovering shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..numbers import eps_text
from ..visible import LONGEST_NAME, visible
from .figures import Chart, Scatter, chart_svg, scatter_svg, swatch_svg

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["InlineFigures"]

_FIGURE = """\
<figure class="panel" data-panel="{{ chart.key }}" id="figure-{{ chart.key }}">
<figcaption><b>{{ chart.title }}</b> <span>{{ chart.subtitle }}</span></figcaption>
<div role="img" aria-label="{{ chart.title }}, {{ chart.subtitle }}: {{ chart.y_label }} over {{ chart.x_label }}; \
its numbers are in {{ numbers }}">
{{ svg }}
</div>
</figure>

"""

_LEGEND = """\
<ul class="legend" aria-label="methods">
{% for name, swatch in methods %}
<li data-line="{{ loop.index0 }}" tabindex="0">{{ swatch }}<span>{{ name | name }}</span></li>
{% endfor %}
</ul>

"""


class InlineFigures:
    """Draws the figures of one page, and stores their numbers.

    Args:
        environment: the page's.
        methods: the names in a legend, in the order of their colours.
    """

    def __init__(self, environment: Environment, methods: Sequence[str]) -> None:
        self.numbers: dict[str, dict[str, Any]] = {}
        self._methods = methods
        self._figure, self._legend = environment.from_string(_FIGURE), environment.from_string(_LEGEND)

    def figure(self, chart: Chart | Scatter, numbers: str) -> Markup:
        """A chart with its caption; ``numbers`` names the file with its numbers."""

        from markupsafe import Markup

        self.numbers[chart.key] = _hovered(chart)
        svg = Markup(chart_svg(chart) if isinstance(chart, Chart) else scatter_svg(chart))  # noqa: S704
        return Markup(self._figure.render(chart=chart, numbers=numbers, svg=svg))  # noqa: S704

    def legend(self, key: str) -> Markup:
        """The names of the methods with their colours; ``key`` is unique on the page."""

        from markupsafe import Markup

        methods = [
            (name, Markup(swatch_svg(number, key)))  # noqa: S704
            for number, name in enumerate(self._methods)
        ]
        return Markup(self._legend.render(methods=methods))  # noqa: S704


def _hovered(chart: Chart | Scatter) -> dict[str, Any]:
    """What hovering a figure tells; in a scatter each method is a line of one point."""

    if isinstance(chart, Scatter):
        lines = [
            {
                "number": point.number,
                "name": visible(point.name, LONGEST_NAME),
                "x": [f"{point.x:.1f}"],
                "y": [point.y],
                "text": [point.text],
            }
            for point in chart.points
        ]
    else:
        lines = [
            {
                "number": line.number,
                "name": visible(line.name, LONGEST_NAME),
                "x": [eps_text(x) for x in line.x],
                "y": line.y,
                "text": line.texts,
            }
            for line in chart.lines
        ]
    return {"x": chart.x_name, "lines": lines}
