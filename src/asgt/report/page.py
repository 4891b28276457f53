"""The report: one HTML page that works by itself, and its figures as files for papers.

``page/report.html`` is the frame, :mod:`asgt.report.sections` its content, ``page/report.css`` its style, and
``page/report.js`` sorts the tables and shows the numbers of a curve. Everything is inlined, text is escaped, and
the page's security policy blocks all requests and all other scripts. Control characters in a text are shown in
their backslash form, and very long text is cut; a template uses ``| entire`` for a command.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..comparison.comparing import Comparison
from ..comparison.summary import Summary, summarise
from ..evaluation.remedies import remedy_place
from ..files import standing, write_bytes
from ..names import names_of
from ..numbers import eps_text, norm_sign
from ..visible import LONGEST, LONGEST_NAME, visible
from .inline_figures import InlineFigures
from .section import PageRequest
from .sections import SECTIONS

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["forget_report", "write_report"]


def write_report(
    comparison: Comparison | Summary,
    out: Path | str,
    *,
    command: str = "",
    allow: Collection[str] = (),
    trusted_model: str | None = None,
) -> Path:
    """Writes ``report.html``, its figures and tables into a folder; earlier ones are replaced.

    The figures go to ``figures/``, every accuracy to ``accuracies.csv``, and every difference that the page shows to
    ``differences.csv``, if there are several methods; the measures of maps go to ``panel.csv`` and
    ``panel-differences.csv``, where runs were explained, and the accuracies on the four test sets of a planted shortcut
    to ``shortcuts.csv``.

    Args:
        comparison: the comparison to show, or its summary.
        out: the folder. Links to the evidence are relative to it.
        command: the command that made the page, shown for repetition.
        allow: the modules whose code may run, as for :func:`asgt.runs.run.load_run`, to make the maps of its runs.
            A summary already holds the maps.
        trusted_model: deprecated, another name for ``allow``.

    Returns:
        The path of the page. It is written last, so an old page stays complete until then.

    Raises:
        InputError: the disk is full, read-only or forbidden, or the folder was removed during the call.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder="run/evaluation/pgd")
        >>> asgt.write_report(asgt.compare(["run"]), "report").name
        'report.html'
    """

    allow = names_of(allow, trusted_model)
    summary = comparison if isinstance(comparison, Summary) else summarise(comparison, allow=allow)
    request = PageRequest(summary, Path(out), command)
    page = request.out / "report.html"
    with standing(request.out):
        text = _page(request)
        for section in SECTIONS:
            section.write(request)
        write_bytes(page, text.encode(), begin=False)
    return page


def forget_report(out: Path | str) -> None:
    """Removes a page and the files that only it shows, when other tables and figures are written without a page."""

    out = Path(out)
    figures = out / "figures"
    tables = [out / name for name in ("report.html", "accuracies.csv", "differences.csv", "shortcuts.csv")]
    drawn = [file for name in ("robustness", "training", "traces", "shortcuts") for file in figures.glob(f"{name}.*")]
    for old in (*tables, *drawn):
        old.unlink(missing_ok=True)


def _page(request: PageRequest) -> str:
    from markupsafe import Markup

    comparison, environment = request.summary.comparison, _environment()
    inline = InlineFigures(environment, [method.name for method in comparison.methods])
    shared = {
        "comparison": comparison,
        "norm": norm_sign(comparison.norm),
        "protocols": list(comparison.protocols.values()),
        "figure": inline.figure,
        "legend": inline.legend,
    }
    parts, entries = [], []
    for section in SECTIONS:
        context = section.context(request)
        if context is None:
            continue
        parts.append(Markup(environment.from_string(section.template).render(shared | context)))  # noqa: S704
        entries.append((section.anchor, section.title))

    resources = files("asgt.report").joinpath("page")
    style, script = (resources.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    seeds = [run.seed for method in comparison.methods for run in method.runs]
    return environment.get_template("report.html").render(
        shared,
        parts=parts,
        entries=entries,
        runs=len(seeds),
        seeds=sorted(set(seeds)),
        figure_data=inline.numbers,
        version=version("asgt"),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("asgt.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )
    # What a template forgets to say of a text, holds for all of them.
    environment.policies["json.dumps_function"] = _visible_json
    environment.filters |= {
        "eps": eps_text,
        "entire": lambda text: Markup(escape(visible(text))),  # noqa: S704
        "name": lambda name: visible(name, LONGEST_NAME),
        "percent": lambda share: f"{100 * share:.1f} %",
        "remedy": _remedy,
        # An equation or inequality is not broken at its signs.
        "whole": lambda words: words.replace(" = ", "\u00a0=\u00a0").replace(" < ", "\u00a0<\u00a0"),
    }
    return environment


def _remedy(name: str) -> str:
    """Where the remedy of a check or a diagnosis is, a link where there is a site; empty for a check of one's own."""

    from markupsafe import Markup

    place = remedy_place(name)
    shown = ' <a href="{0}">{0}</a>' if place.startswith("https://") else " <code>{0}</code>"
    return Markup(shown).format(place) if place else ""  # noqa: S704


def _shown(value: Any) -> Any:
    """A value as the page has it: visible, and not too long; what is markup already stays."""

    return visible(value, LONGEST) if type(value) is str else value


def _visible_json(value: Any, **options: Any) -> str:
    """JSON for the page's script, which shows the texts in it."""

    def cleaned(each: Any) -> Any:
        if isinstance(each, dict):
            return {cleaned(name): cleaned(inner) for name, inner in each.items()}
        return [cleaned(inner) for inner in each] if isinstance(each, list | tuple) else _shown(each)

    return json.dumps(cleaned(value), **options)
