"""What is seen, as HTML: pictures, bars and curves. Every text is escaped, whoever it is from.

The colours of maps are those of :mod:`asgt.explanation.shown_maps`, and the curves those of :mod:`asgt.report.figures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attacks import Norm
from ..data import to_unit
from ..explanation.shown_maps import RULE, coloured, pixels_of, png_uri
from ..numbers import eps_text, norm_sign
from ..report.figures import Chart, Line, chart_svg, swatch_svg
from ..training.run_folder import RunFolder
from ..visible import LONGEST, LONGEST_NAME, visible
from .bench import Bench
from .looking import Look, SubjectLook

if TYPE_CHECKING:
    from jinja2 import Environment

    from ..evaluation.outcomes import Evaluation

__all__ = ["curves_html", "head_html", "look_html", "notes_html", "sentence_html", "summary", "thumbs_html"]


@dataclass(frozen=True)
class _Cell:
    """A picture and the words under it."""

    source: str
    alt: str
    words: str = ""
    wrong: str = ""


def look_html(look: Look) -> str:
    """The pictures, the probabilities and the facts of every model."""

    hidden = sorted({each.hidden for each in look.subjects})
    return _rendered(
        "look.html",
        look=look,
        title=_titled(look),
        attack=look.attack + ("" if look.target is None else f" towards class {_class(look, look.target)}"),
        sign=norm_sign(look.norm),
        eps=eps_text(look.eps),
        factor=_factor(look),
        k=f"{look.k:g}",
        hidden=" or ".join(map(str, hidden)),
        rule=_rule(look),
        label_word="true class" if look.label is not None else "its own answer",
        models=[_model(look, each) for each in look.subjects],
    )


def summary(look: Look) -> str:
    """The result in one sentence, for those who hear the page, and the time it took."""

    told = [
        f"{each.name} says {_class(look, each.before.number)} before and {_class(look, each.after.number)} under attack"
        for each in look.subjects
    ]
    return f"{'; '.join(told)}. Computed in {1000 * look.seconds:.0f} ms."


def sentence_html(text: str, tone: str = "", *, live: bool = False) -> str:
    """One sentence in a paragraph, in the tone of an error if it is ``"wrong"``, read out as it changes if ``live``."""

    return _rendered("sentence.html", text=text, tone=tone, live=live)


def head_html(bench: Bench) -> str:
    """What the page is about."""

    names = ", ".join(visible(subject.name, LONGEST_NAME) for subject in bench.subjects)
    return _rendered("head.html", names=names, count=f"{len(bench.images):,}", data=bench.data)


def notes_html(bench: Bench) -> str:
    """What the user must know of models and data; nothing where there is nothing."""

    return _rendered("notes.html", notes=bench.notes) if bench.notes else ""


def thumbs_html(bench: Bench, rows: range, chosen: int) -> str:
    """Test images as buttons, each with whether every model is right about it."""

    answers = bench.answers(rows)
    pixels, labels = to_unit(bench.images.pixels[rows.start : rows.stop]), bench.images.labels[rows.start : rows.stop]
    thumbs = []
    for place, row in enumerate(rows):
        label = int(labels[place])
        marks = [said[place] == label for said in answers]
        told = [
            f"{subject.name} {'is right' if right else f'says {bench.images.classes[said[place]]}'}"
            for subject, right, said in zip(bench.subjects, marks, answers, strict=True)
        ]
        thumbs.append(
            {
                "row": row,
                "source": png_uri(pixels_of(pixels[place])),
                "chosen": row == chosen,
                "marks": marks,
                "said": f"test image {row}, class {bench.images.classes[label]}: {'; '.join(told)}",
            }
        )
    return _rendered(
        "thumbs.html", thumbs=thumbs, first=rows.start, last=rows.stop - 1, several=len(bench.subjects) > 1
    )


def curves_html(bench: Bench, eps: float, norm: Norm) -> str:
    """Accuracy over ε of each model that was evaluated in a norm, and a line at an ε: a chart for each protocol."""

    from markupsafe import Markup

    groups: dict[str, list[tuple[int, Evaluation]]] = {}
    missing = []
    for number, subject in enumerate(bench.subjects):
        if (evaluation := subject.strictest(norm)) is None:
            mend = f": {RunFolder(subject.folder).command('evaluate')} makes it" if subject.folder else ""
            missing.append(f"No robustness curve of {subject.name} in {norm_sign(norm)}{mend}.")
        else:
            groups.setdefault(evaluation.protocol.key, []).append((number, evaluation))
    charts = []
    for place, group in enumerate(groups.values()):
        chart = _curve_chart(bench, f"curve{place}", group, eps, norm)
        charts.append(
            {
                "chart": chart,
                "svg": Markup(chart_svg(chart)),  # noqa: S704
                "said": _said(chart),
                "legend": [(line.name, _swatch(line.number, chart.key)) for line in chart.lines],
            }
        )
    return _rendered("curves.html", charts=charts, missing=missing)


def _model(look: Look, each: SubjectLook) -> dict[str, Any]:
    """What the template shows of one model."""

    fooled = each.after.number != each.label if look.target is None else each.after.number == look.target
    right = each.before.number == each.label
    before, after = (
        f"{_class(look, answer.number)} ({_percent(answer.probabilities[answer.number])})"
        for answer in (each.before, each.after)
    )
    verdict = f"says {before}, under attack {after}"
    factor = _factor(look)
    picture, attacked = (
        f"{what}, {each.name} says {said}" for what, said in ((_titled(look), before), ("attacked", after))
    )
    rows = [
        {
            "name": "before",
            "cells": [
                _picture(look.image, picture, f"says {_class(look, each.before.number)}"),
                None,
                _map(look, each, each.map_before, each.mass_before, "the image"),
                _picture(each.masked_before, f"the image as SGT masks it at k = {look.k:g}", "SGT"),
            ],
        },
        {
            "name": "attacked",
            "cells": [
                _picture(
                    each.attacked,
                    picture if each.delta.abs().max() == 0 else attacked,
                    f"says {_class(look, each.after.number)}",
                ),
                _picture((0.5 + look.factor * each.delta).clamp(0, 1), f"the perturbation, enlarged {factor} times"),
                _map(look, each, each.map_after, each.mass_after, "the attacked image"),
                _picture(each.masked_after, f"the attacked image as ASGT masks it at k = {look.k:g}", "ASGT"),
            ],
        },
    ]
    facts = [each.broke, each.known, f"Maps: {each.note}" if each.note else ""]
    return {
        "name": each.name,
        "tone": "fooled" if right and fooled else "wrong" if not right else "holds",
        "verdict": verdict,
        "rows": rows,
        "bars": _bars(look, each),
        "facts": [fact for fact in facts if fact],
    }


def _bars(look: Look, each: SubjectLook) -> list[dict[str, Any]]:
    """The classes that are likely before or after, by their larger probability."""

    answers = (each.before, each.after)
    numbers = dict.fromkeys(number for answer in answers for number in answer.likeliest)
    order = sorted(numbers, key=lambda number: (-max(answer.probabilities[number] for answer in answers), number))
    return [
        {
            "name": _class(look, number),
            "is_label": number == each.label,
            "shares": [
                (_percent(answer.probabilities[number]), f"{100 * answer.probabilities[number]:.1f}")
                for answer in answers
            ],
        }
        for number in order
    ]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\u00a0%"


def _picture(image: Tensor, alt: str, words: str = "") -> _Cell:
    return _Cell(png_uri(pixels_of(image)), alt, words)


def _map(look: Look, each: SubjectLook, attribution: Tensor | None, mass: float | None, what: str) -> _Cell:
    """A map in the colours of all maps, or what is wrong with it."""

    alt = f"{look.attribution} map of {what} under {each.name}, of class {_class(look, each.label)}"
    words = "" if mass is None else f"{_percent(mass)} on the object"
    if attribution is None:
        return _Cell("", f"no map: {each.note}", "", "no map")
    picture, wrong = coloured(attribution, look.rendering)
    if wrong:
        return _Cell("", f"{alt}: {wrong}", "", wrong)
    return _Cell(png_uri(picture), f"{alt}{': ' if words else ''}{words}", words)


def _titled(look: Look) -> str:
    of = "" if look.label is None else f", class {_class(look, look.label)}"
    return f"{look.title[0].upper()}{look.title[1:]}{of}"


def _rule(look: Look) -> str:
    whose = "the label" if look.label is not None else "each model's own answer"
    made = "gradient of the logit of" if look.attribution == "gradient" else f"{look.attribution} of"
    return f"a: {made} {whose}; shown: {RULE[look.rendering]}"


def _factor(look: Look) -> str:
    return f"{look.factor:.3g}"


def _class(look: Look, number: int) -> str:
    return visible(look.classes[number], LONGEST_NAME).replace("\n", " ")


def _curve_chart(bench: Bench, key: str, group: list[tuple[int, Evaluation]], eps: float, norm: Norm) -> Chart:
    protocol = group[0][1].protocol
    lines = []
    for number, evaluation in group:
        points = [
            (0.0, evaluation.accuracy),
            *((each, evaluation.robust_accuracy(each)) for each in evaluation.epsilons),
        ]
        lines.append(
            Line(
                name=bench.subjects[number].name,
                number=number,
                x=tuple(x for x, _ in points),
                y=tuple(100 * estimate.value for _, estimate in points),
                low=tuple(100 * estimate.low for _, estimate in points),
                high=tuple(100 * estimate.high for _, estimate in points),
                texts=tuple(estimate.percent() for _, estimate in points),
            )
        )
    samples = sorted({evaluation.samples for _, evaluation in group})
    n = " or ".join(map(str, samples))
    return Chart(
        key=key,
        title=f"Robust accuracy, protocol {protocol.name} v{protocol.version}",
        subtitle=f"{protocol.claim}; n = {n} test images, bands: Wilson 95 %; dashed: ε = {eps_text(eps)}",
        x_label=f"ε ({norm_sign(norm)}, pixels in [0, 1])",
        y_label="accuracy (%)",
        x_name="ε",
        lines=tuple(lines),
        y_limits=(-2, 102),
        marks=((eps, "dashed"),),
    )


def _said(chart: Chart) -> str:
    """A chart in words, with the numbers at the ends of each curve."""

    ends = [
        f"{line.name} from {line.texts[0]} at ε = 0 to {line.texts[-1]} at ε = {eps_text(line.x[-1])}"
        for line in chart.lines
    ]
    return f"{chart.title}, {chart.y_label} over {chart.x_label}: {'; '.join(ends)}"


@lru_cache(maxsize=256)
def _swatch(number: int, key: str) -> Any:
    from markupsafe import Markup

    return Markup(swatch_svg(number, key))  # noqa: S704


def _rendered(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("asgt.app", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "entire": lambda text: Markup(escape(text)),  # noqa: S704
        "name": lambda name: visible(name, LONGEST_NAME),
    }
    return environment


def _shown(value: Any) -> Any:
    """A value as the page has it: visible, and not too long; what is markup already stays."""

    return visible(value, LONGEST) if type(value) is str else value
