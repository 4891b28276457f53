"""Where the models look: everything about maps that a comparison shows, as tables, figures and files.

It needs finished runs only. Where they are evaluated too, it also holds the one figure that puts their maps beside
their robustness.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

from ..attacks import Norm
from ..explanation import MEASURES, Measure, PanelDifference, Score
from ..files import write_bytes
from ..numbers import counted, eps_text
from ..report.figures import Panel, write_panels, write_scatter
from ..report.masked_curves import masked_panels
from ..runs.run import data_name
from ..training.config import default_eps
from .comparing import Comparison, Method, trained_eps
from .explained import ARROWS, Explained, explained, measures_of
from .pictures import Pictures, pictures, write_pictures
from .tradeoff import Tradeoff, tradeoff

__all__ = ["Looks", "PanelRow", "asked_eps", "looks", "panel_basis", "panel_rows", "panel_words", "write_looks"]


@dataclass(frozen=True)
class PanelRow:
    """A measure of the panel.

    Attributes:
        measure: which.
        n: the images it rests on.
        scores: of each method of the panel, in its order.
    """

    measure: Measure
    n: int
    scores: tuple[Score, ...]

    @property
    def title(self) -> str:
        """Its name, which way is better, and a star where it partly restates robustness."""

        return f"{self.measure.title}{' ' if self.measure.better else ''}{ARROWS[self.measure.better]}" + (
            " *" if self.measure.restates else ""
        )


@dataclass(frozen=True)
class Looks:
    """What is shown of maps.

    Attributes:
        methods: all that are compared.
        data: the name of the data, for people.
        explained: a panel for each attribution; empty where no run was explained.
        pictures: what is drawn of the models.
        masked: the curves of masked accuracy, by attribution.
        tradeoffs: the primary measure beside robustness, by attribution, where it was measured.
    """

    methods: tuple[Method, ...]
    data: str
    explained: tuple[Explained, ...]
    pictures: Pictures
    masked: dict[str, list[Panel]]
    tradeoffs: dict[str, Tradeoff]


def looks(methods: Sequence[Method], comparison: Comparison | None = None, *, allow: Collection[str] = ()) -> Looks:
    """Everything about the maps of some methods' models.

    Args:
        methods: finished runs on the same data.
        comparison: the same runs, where they are evaluated.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it, for the pictures of its runs.
    """

    found = explained(methods)
    numbers = {method.name: number for number, method in enumerate(methods)}
    eps, norm = asked_eps(methods, comparison)
    if found:
        eps, norm = found[0].panel.eps, found[0].panel.norm
    told = {one.attribution: tradeoff(comparison, one) for one in found} if comparison is not None else {}
    return Looks(
        tuple(methods),
        data_name(methods[0].runs[0]),
        found,
        pictures(
            methods,
            eps=eps,
            norm=norm,
            samples=None if comparison is None else comparison.samples,
            found=found,
            allow=allow,
        ),
        {one.attribution: masked_panels(one, numbers) for one in found},
        {attribution: one for attribution, one in told.items() if one is not None},
    )


def asked_eps(methods: Sequence[Method], comparison: Comparison | None = None) -> tuple[float, Norm]:
    """The ε and its norm that maps are attacked at unless somebody says another.

    The ε that most runs were trained at; without one, that which the data's methods are trained at by default.
    """

    norm: Norm = "linf"
    if comparison is not None:
        norm = comparison.norm
    elif norms := [run.config.norm for method in methods for run in method.runs if run.config.norm]:
        norm = norms[0]
    return trained_eps(methods, norm) or default_eps(methods[0].runs[0].config.data), norm


def panel_rows(found: Explained) -> list[PanelRow]:
    """The measures that have values, each with the scores of all methods."""

    rows = []
    for measure in measures_of(found.panel):
        scores = tuple(found.panel.value(method, measure.name) for method in found.panel.methods)
        rows.append(PanelRow(measure, scores[0].n, scores))
    return rows


def panel_words(found: Explained) -> str:
    """On which images the panel rests, in a sentence."""

    panel = found.panel
    if panel.not_run:
        return f"NOT RUN: {panel.not_run}"
    seeds = sorted({len(several) for several in panel.seeds.values()})
    return (
        f"{found.attribution} of the label's logit; n = {panel.n} of {panel.asked} images that all "
        f"{counted(sum(map(len, panel.seeds.values())), 'model')} get right; {' or '.join(map(str, seeds))} "
        f"{'seed' if seeds == [1] else 'seeds'}; attacked at ε/4 and ε = {eps_text(panel.eps)}, where "
        f"{panel.unflipped[0]} and {panel.unflipped[1]} of them stay unflipped under every model's own PGD-20"
    )


def panel_unrun(found: Explained) -> list[tuple[str, str]]:
    """The measures that have no value, and why, those of the same reason together; what a note tells is left out."""

    if found.panel.not_run:
        return []
    method = found.panel.methods[0]
    told = " ".join(found.notes)
    reasons: dict[str, list[str]] = {}
    for measure in MEASURES:
        why = found.panel.value(method, measure.name).not_run
        if why and f"{measure.title}: NOT RUN" not in told:
            reasons.setdefault(why, []).append(measure.title)
    return [("; ".join(titles), why) for why, titles in reasons.items()]


def panel_basis(found: Sequence[PanelDifference]) -> str:
    """What the differences of one measure rest on."""

    sentences = []
    if several := [one for one in found if one.kind == "methods"]:
        seeds = " or ".join(map(str, sorted({len(one.seeds) for one in several})))
        sentences.append(f"Methods, paired by seed ({seeds} seeds): t interval, Holm over {len(several)} pairs")
    if ones := [one for one in found if one.kind == "models"]:
        sentences.append(
            "Two models (one seed), paired by image: bootstrap interval, t test, Holm over "
            f"{counted(len(ones), 'pair')}; nothing is said about the methods"
        )
    return ". ".join(sentences)


def write_looks(found: Looks, out: Path) -> None:
    """Writes ``panel.csv``, ``panel-differences.csv`` and the figures; those of an earlier time are replaced."""

    figures = out / "figures"
    write_pictures(found.pictures, figures, found.data)
    for old in (*figures.glob("masked-*.*"), *figures.glob("tradeoff-*.*")):
        old.unlink()
    for suffix in ("png", "pdf"):
        for one in found.explained:
            if panels := found.masked[one.attribution]:
                title = f"accuracy with pixels hidden: {found.data}, {one.attribution}, n = {one.panel.n} images"
                write_panels(panels, figures / f"masked-{one.attribution}.{suffix}", title=title)
        for attribution, one_figure in found.tradeoffs.items():
            write_scatter(one_figure.scatter, figures / f"tradeoff-{attribution}.{suffix}")

    tables = {"panel.csv": _panel_csv(found.explained), "panel-differences.csv": _differences_csv(found.explained)}
    for name, rows in tables.items():
        if rows:
            write_bytes(out / name, _csv(rows))
        else:
            (out / name).unlink(missing_ok=True)


def _panel_csv(found: Sequence[Explained]) -> list[dict[str, Any]]:
    """A row for each attribution, method and measure."""

    rows = []
    for one in found:
        for method in one.panel.methods:
            for measure in MEASURES:
                score = one.panel.value(method, measure.name)
                rows.append(
                    {
                        "attribution": one.attribution,
                        "method": method,
                        "measure": measure.name,
                        "better": measure.better or "",
                        "restates_robustness": "yes" if measure.restates else "no",
                        "n": score.n,
                        "asked": one.panel.asked,
                        "eps": f"{one.panel.eps:.6g}",
                        "norm": one.panel.norm,
                        "seeds": " ".join(map(str, one.panel.seeds[method])),
                        **{name: _number(getattr(score, name)) for name in ("mean", "low", "high", "sd")},
                        "interval_over": score.over,
                        "values": " ".join(map(_number, score.values)),
                        "gate": _number(one.panel.gate(method)),
                        "not_run": score.not_run,
                    }
                )
    return rows


def _differences_csv(found: Sequence[Explained]) -> list[dict[str, Any]]:
    """A row for each attribution, measure and pair of methods."""

    return [
        {
            "attribution": one.attribution,
            "measure": measure.name,
            "first": pair.first,
            "second": pair.second,
            "kind": pair.kind,
            "seeds": " ".join(map(str, pair.seeds)),
            "n": pair.n,
            **{name: _number(getattr(pair, name)) for name in ("mean", "low", "high")},
            "p": f"{pair.p:.6g}",
            "p_holm": f"{pair.adjusted:.6g}",
            "claims": pair.claims,
            "verdict": pair.verdict,
        }
        for one in found
        for measure in MEASURES
        for pair in one.panel.differences(measure.name)
    ]


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _number(value: float) -> str:
    """Empty where there is none."""

    return "" if isnan(value) else f"{value:.6f}"
