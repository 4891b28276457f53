"""The report: one HTML page that works by itself, and its figures as files for papers.

``page/report.html`` says what stands where, ``page/report.css`` how it looks, ``page/report.js`` sorts the tables and
tells the numbers of a curve. Everything is inlined, text is escaped, and the page's own policy lets no request leave it
and no script run but this one.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from torch import Tensor

from ..attacks import describe
from ..comparison.comparing import Accuracy, Column, Comparison, Method
from ..comparison.credibility import Credibility, Finding, credibility
from ..comparison.differences import Difference, basis, shown_differences
from ..comparison.explained import score_text
from ..comparison.map_evidence import Looks, looks, panel_basis, panel_rows, panel_unrun, panel_words, write_looks
from ..comparison.pictures import BLOCKS
from ..evaluation.check import THOROUGH
from ..evaluation.protocols import PROTOCOLS, Protocol
from ..explanation import PanelDifference
from ..files import write_bytes
from ..names import is_foreign, names_of
from ..numbers import counted, eps_text, norm_sign
from ..runs.run import Run
from ..training.config import TrainConfig
from ..training.run_folder import RunFolder
from .curves import bands, robustness_curves, robustness_panels, training_panels
from .figures import Panel, Scatter, panel_svg, scatter_svg, swatch_svg, write_panels
from .map_drawing import SaliencyMaps, coloured, map_cells, map_rule, pixels_of, row_names

__all__ = ["Table", "forget_report", "tables", "write_report"]

# What a page tells of a method's settings; the rest is in the run's config.yaml.
_TOLD = ("model", "width", "attack", "eps", "norm", "steps", "k", "weight", "epochs", "batch_size", "lr", "limit")


@dataclass(frozen=True)
class Table:
    """Methods × clean and each attack, at one ε.

    Attributes:
        eps: the ε.
        trained: whether it is the one that most runs were trained at.
        columns: the attacks.
        rows: a row a method: its clean accuracy, then that under each attack.
    """

    eps: float
    trained: bool
    columns: tuple[Column, ...]
    rows: tuple[tuple[Method, tuple[Accuracy, ...]], ...]


def tables(comparison: Comparison) -> list[Table]:
    """The tables of a comparison, as the page and the terminal show them: one for each of a few ε."""

    return [
        Table(
            eps,
            eps == comparison.trained_eps(),
            comparison.columns,
            tuple(
                (
                    method,
                    (
                        comparison.clean(method),
                        *(comparison.at(method, column, eps) for column in comparison.columns),
                    ),
                )
                for method in comparison.methods
            ),
        )
        for eps in comparison.table_epsilons()
    ]


def write_report(
    comparison: Comparison,
    out: Path | str,
    *,
    command: str = "",
    allow: Collection[str] = (),
    trusted_model: str | None = None,
) -> Path:
    """Writes ``report.html``, its figures and tables into a folder; what was there of them is replaced.

    The figures go to ``figures/``, every accuracy to ``accuracies.csv``, and every difference that the page shows to
    ``differences.csv``, where there are methods to be told apart; what was measured of maps to ``panel.csv`` and
    ``panel-differences.csv``, where runs were explained.

    Args:
        comparison: what to show.
        out: the folder. Links to the evidence are relative to it.
        command: what made the page, to be run again.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it, for the maps of its runs.
        trusted_model: deprecated, one more name for ``allow``.

    Returns:
        The path of the page. It is written last: an old page stays whole until the new one is.

    Raises:
        InputError: the disk is full, read-only or forbidden.
    """

    out = Path(out)
    look = looks(comparison.methods, comparison, allow=names_of(allow, trusted_model))
    training = training_panels(comparison)
    differences = shown_differences(comparison)

    for suffix in ("png", "pdf"):
        robustness_curves(comparison, out / "figures" / f"robustness.{suffix}")
        if training:
            write_panels(training, out / "figures" / f"training.{suffix}", title=f"training on {comparison.data}")
    write_looks(look, out)
    write_bytes(out / "accuracies.csv", _csv(comparison))
    if differences:
        write_bytes(out / "differences.csv", _differences_csv(comparison, differences))
    else:
        (out / "differences.csv").unlink(missing_ok=True)
    write_bytes(out / "report.html", _page(comparison, look, training, differences, out, command).encode())
    return out / "report.html"


def forget_report(out: Path | str) -> None:
    """Removes a page and what only it shows, where another call's tables and figures are to stand without one."""

    out = Path(out)
    figures = out / "figures"
    tables = [out / name for name in ("report.html", "accuracies.csv", "differences.csv")]
    for old in (*tables, *figures.glob("robustness.*"), *figures.glob("training.*")):
        old.unlink(missing_ok=True)


def _page(
    comparison: Comparison,
    look: Looks,
    training: Sequence[Panel],
    differences: Sequence[tuple[Difference, ...]],
    out: Path,
    command: str,
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("asgt.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "eps": eps_text,
        "percent": lambda share: f"{100 * share:.1f} %",
        # An equation or inequality is not broken at its signs.
        "whole": lambda words: words.replace(" = ", "\u00a0=\u00a0").replace(" < ", "\u00a0<\u00a0"),
    }
    parts = files("asgt.report").joinpath("page")
    style, script = (parts.joinpath(f"report.{kind}").read_text("utf-8") for kind in ("css", "js"))
    panels = robustness_panels(comparison)
    pair = _pair(comparison, panels)
    checked = credibility(comparison)
    seeds = [run.seed for method in comparison.methods for run in method.runs]
    masked = [panel for several in look.masked.values() for panel in several]
    scatters = [found.scatter for found in look.tradeoffs.values()]
    drawn = (*panels, *masked, *look.pictures.gradients, *training)

    return environment.get_template("report.html").render(
        comparison=comparison,
        runs=len(seeds),
        seeds=sorted(set(seeds)),
        norm=norm_sign(comparison.norm),
        bands=bands(comparison),
        protocols=[PROTOCOLS[name] for name in comparison.epsilons],
        what_runs={name: _what_runs(comparison, PROTOCOLS[name]) for name in comparison.epsilons},
        tables=tables(comparison),
        matrices=[_matrix(comparison, found) for found in differences],
        findings=_findings(comparison, differences, checked) + _findings_of_maps(look),
        checked=checked,
        failed={share.method.name for finding in _failed(checked) for share in finding.shares},
        thorough=_thorough(comparison),
        warnings=comparison.warnings(),
        warned={method.name for method, _, _ in comparison.warnings()},
        pair=pair,
        panels=panels,
        training=training,
        figure_data={panel.key: _numbers(panel) for panel in drawn}
        | {scatter.key: _numbers_of_points(scatter) for scatter in scatters},
        svg={panel.key: Markup(panel_svg(panel)) for panel in drawn}  # noqa: S704
        | {scatter.key: Markup(scatter_svg(scatter)) for scatter in scatters},  # noqa: S704
        swatches={
            key: [Markup(swatch_svg(number, key)) for number in range(len(comparison.methods))]  # noqa: S704
            for key in ("curves", "looks", "gradients", "training")
        },
        looks=[_look(look, number) for number in range(len(look.explained))],
        explain=_explain(comparison),
        gradients=look.pictures.gradients,
        missing=look.pictures.missing,
        blocks=_blocks(look.pictures.shown.get("gradient")),
        map_rule=map_rule(look.pictures.shown["gradient"]) if look.pictures.shown else "",
        map_rows=_map_rows(look.pictures.shown.get("gradient")),
        map_files=[
            name + kind
            for attribution in look.pictures.shown
            for name in ("saliency" if attribution == "gradient" else f"saliency-{attribution}",)
            for kind in ("", "-signed")
        ],
        settings=[(method.name, _settings(method.runs[0].config)) for method in comparison.methods],
        evidence=[_evidence(method, run, out) for method in comparison.methods for run in method.runs],
        costs=_costs(comparison),
        command=command,
        commands=_commands(comparison),
        version=version("asgt"),
        style=Markup(style),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _findings(
    comparison: Comparison, differences: Sequence[tuple[Difference, ...]], checked: Sequence[Credibility]
) -> list[str]:
    """What was found, in sentences that the tables bear out; none of them says which of two close methods is better."""

    sentences = []
    seeds = sorted({len(method.runs) for method in comparison.methods})
    measured = f"n = {comparison.samples}, " + (
        "one seed" if seeds == [1] else f"mean over {' or '.join(map(str, seeds))} seeds"
    )
    judge, eps = comparison.judges()[-1], comparison.judging_eps()

    ranked = sorted(comparison.methods, key=lambda method: comparison.at(method, judge, eps).mean)
    if len(ranked) > 1:
        low, high = (comparison.at(method, judge, eps) for method in (ranked[0], ranked[-1]))
        sentences.append(
            f"Under {judge.title} (protocol {judge.protocol} v{judge.version}) at ε = {eps_text(eps)}, accuracy runs "
            f"from {low.text()} % ({ranked[0].name}) to {high.text()} % ({ranked[-1].name}); {measured}."
        )

    # The judge's differences stand first.
    for kind, beside in (("methods", "paired by seed"), ("models", "one seed: nothing is said about the methods")):
        if found := [one for one in differences[0] if one.kind == kind] if differences else []:
            decided = sum(one.verdict != "not decided" for one in found)
            sentences.append(
                f"{found[0].where[0].upper()}{found[0].where[1:]}, {decided} of {len(found)} differences between "
                f"{kind} {'is' if decided == 1 else 'are'} decided ({beside}; p < 0.05 by Holm's correction)."
            )

    # The same model at the same ε, judged by a weak and by a strong attack: where they part furthest.
    weak = next((column for column in comparison.columns if column.attack == "pgd-constant-rs"), None)
    if weak is not None and PROTOCOLS[judge.protocol].worst_case:
        both = sorted(set(comparison.epsilons[weak.protocol]) & set(comparison.epsilons[judge.protocol]))
        gap, method, at = max(
            (
                (comparison.at(method, weak, eps).mean - comparison.at(method, judge, eps).mean, method, eps)
                for method in comparison.methods
                for eps in both
            ),
            key=lambda found: found[0],
        )
        if gap > 0.05:
            sentences.append(
                f"The attack decides the number: at ε = {eps_text(at)}, {weak.title} leaves {method.name} "
                f"{comparison.at(method, weak, at).text()} %, {judge.title} leaves it "
                f"{comparison.at(method, judge, at).text()} %; {measured}."
            )

    for each in checked:
        if failed := _failed([each]):
            told = "; ".join(f"{finding.name} ({finding.who()})" for finding in failed)
            sentences.append(
                f"Checks fail under protocol {each.protocol.name} v{each.protocol.version}: {told}. Quote none of "
                "these methods' accuracies before you know why."
            )

    warned = {run.folder for _, run, _ in comparison.warnings()}
    if warned:
        total = sum(len(method.runs) for method in comparison.methods)
        sentences.append(
            f"{len(warned)} of {total} runs carry a warning; their figures are in the tables all the same."
        )
    return sentences


def _failed(checked: Sequence[Credibility]) -> list[Finding]:
    """What failed under a worst case; elsewhere no robustness is read off."""

    return [finding for found in checked if found.protocol.worst_case for finding in found.failed]


def _what_runs(comparison: Comparison, protocol: Protocol) -> str:
    """What a protocol runs, and what was different about it in some runs, in sentences."""

    grid = f"ε: {', '.join(map(eps_text, comparison.epsilons[protocol.name]))}"
    if not protocol.worst_case:
        titles = "; ".join(search.title for search in protocol.searches)
        return f"{titles}; each from scratch at every ε, its final iterate, whatever the clean image's outcome. {grid}"

    found = [run.evaluations[protocol.name] for method in comparison.methods for run in method.runs]
    classes = found[0].classes
    (attacks,) = (describe(search.among(classes).attacks) for search in protocol.searches)
    told = [
        f"The worst of {attacks}, and of a search along the gradient of the margin, which goes first and presses what "
        "breaks a sample on to smaller ε",
        "Per sample, the smallest ε that breaks it: clean errors are errors, and what is broken at an ε counts as "
        "broken above it",
    ]
    if found[0].adapted:
        told.append(f"Attacks are adapted to {classes} classes: they are not their authors' own")
    if wavering := [one.votes for one in found if one.votes > 1]:
        told.append(
            f"The answers of {len(wavering)} of {len(found)} models waver: each counted is the majority of "
            f"{max(wavering)}"
        )
    return f"{'. '.join(told)}. {grid}"


def _matrix(comparison: Comparison, found: Sequence[Difference]) -> dict[str, Any]:
    """A table of differences, row minus column; ``None`` where two methods cannot be paired, or are the same."""

    cells = {(one.first.name, one.second.name): one for both in found for one in (both, both.turned())}
    names = [method.name for method in comparison.methods]
    return {
        "where": found[0].where,
        "more": "withstands more" if found[0].column is not None else "is right on more images",
        "rows": [(row, [cells.get((row, column)) for column in names]) for row in names],
        "kinds": {one.kind for one in found},
        "decided": sum(one.verdict != "not decided" for one in found),
        "count": len(found),
        "unpaired": len(found) < len(names) * (len(names) - 1) // 2,
        "basis": basis(found),
    }


def _pair(comparison: Comparison, panels: Sequence[Panel]) -> list[Panel]:
    """The common library default and the strictest worst case, to be seen side by side; empty without both."""

    judge = comparison.judges()[-1]
    by_key = {panel.key: panel for panel in panels}
    wanted = ("paper-pgd-constant-rs", f"{judge.protocol}-{judge.attack}")
    both = PROTOCOLS[judge.protocol].worst_case and all(key in by_key for key in wanted)
    return [by_key[key] for key in wanted] if both else []


def _numbers(panel: Panel) -> dict[str, Any]:
    """What hovering a panel tells."""

    return {
        "x": panel.x_name,
        "lines": [
            {
                "number": line.number,
                "name": line.name,
                "x": [eps_text(x) for x in line.x],
                "y": line.y,
                "text": line.texts,
            }
            for line in panel.lines
        ],
    }


def _numbers_of_points(scatter: Scatter) -> dict[str, Any]:
    """What hovering a scatter tells: each method is a line of one point."""

    return {
        "x": scatter.x_name,
        "lines": [
            {"number": point.number, "name": point.name, "x": [f"{point.x:.1f}"], "y": [point.y], "text": [point.text]}
            for point in scatter.points
        ],
    }


def _findings_of_maps(look: Looks) -> list[str]:
    """What was found of maps, of the first attribution, from the panel alone."""

    if not look.explained:
        return []
    found = look.explained[0]
    if found.panel.not_run:
        return [f"What the maps are worth was NOT measured: {found.panel.not_run}."]

    measure, panel, sentences = found.primary, found.panel, []
    scores = {method: panel.value(method, measure.name) for method in panel.methods}
    seeds = sorted({len(several) for several in panel.seeds.values()})
    measured = f"n = {next(iter(scores.values())).n} of {panel.asked} images that all models get right, " + (
        "one seed" if seeds == [1] else f"{' or '.join(map(str, seeds))} seeds"
    )
    if len(scores) > 1 and not any(score.not_run for score in scores.values()):
        low, high = (end(scores, key=lambda method: scores[method].mean) for end in (min, max))
        area = f"; the object's share of the area is {panel.area:.3f}" if measure.name == "mass" else ""
        sentences.append(
            f"Where they look: {measure.title} by the {found.attribution} runs from {score_text(scores[low])} ({low}) "
            f"to {score_text(scores[high])} ({high}){area}; {measured}."
        )
        if differences := panel.differences(measure.name):
            decided = [one for one in differences if one.verdict != "not decided"]
            sentences.append(
                f"Of {counted(len(differences), 'difference')} in {measure.title}, {len(decided)} "
                f"{'is' if len(decided) == 1 else 'are'} decided (p < 0.05 by Holm's correction)."
            )
    if found.attribution in look.tradeoffs:
        sentences.append(f"{look.tradeoffs[found.attribution].sentence()}; {measured}.")
    if blind := [method for method in panel.methods if panel.uninformative(method)]:
        sentences.append(
            f"Of {', '.join(blind)} the ranking of all pixels correlates above 0.5 with that of random weights (the "
            "gate): so far it shows the architecture, not what was learned."
        )
    return sentences


def _look(look: Looks, number: int) -> dict[str, Any]:
    """The panel of an attribution, as the page shows it."""

    found = look.explained[number]
    panel, primary = found.panel, found.primary
    pairs = {measure.measure.name: panel.differences(measure.measure.name) for measure in panel_rows(found)}
    return {
        "attribution": found.attribution,
        "words": panel_words(found),
        "not_run": panel.not_run,
        "notes": found.notes,
        "methods": panel.methods,
        "area": panel.area,
        "rows": [
            {
                "title": row.title,
                "definition": row.measure.definition,
                "primary": row.measure == primary,
                "n": row.n,
                "cells": [score_text(score) for score in row.scores],
            }
            for row in panel_rows(found)
        ],
        "gates": [(panel.gate(method), panel.between(method), panel.uninformative(method)) for method in panel.methods],
        "unrun": panel_unrun(found),
        "masked": look.masked[found.attribution],
        "tradeoff": look.tradeoffs.get(found.attribution),
        "primary": primary,
        "matrix": _panel_matrix(panel.methods, pairs.get(primary.name, ())),
        "basis": panel_basis(pairs.get(primary.name, ())),
        "decided": [
            {
                "title": row.title,
                "n": row.n,
                "count": len(pairs[row.measure.name]),
                "decided": [
                    one if one.verdict == "more" else one.turned()
                    for one in pairs[row.measure.name]
                    if one.verdict != "not decided"
                ],
            }
            for row in panel_rows(found)
            if pairs[row.measure.name]
        ],
    }


def _panel_matrix(methods: Sequence[str], found: Sequence[PanelDifference]) -> list[tuple[str, list[Any]]]:
    """Row minus column; ``None`` on the diagonal and where two methods cannot be paired."""

    cells = {(one.first, one.second): one for both in found for one in (both, both.turned())}
    return [(row, [cells.get((row, column)) for column in methods]) for row in methods] if found else []


def _explain(comparison: Comparison) -> str:
    """The command that explains all runs."""

    runs = [run for method in comparison.methods for run in method.runs]
    again = next((named for run in runs if (named := _named_again(run))), [])
    return shlex.join(["asgt", "explain", *(str(run.folder) for run in runs), *again])


def _blocks(maps: SaliencyMaps | None) -> list[dict[str, Any]]:
    """A table for each of the first images: columns are methods; image, map, attacked image, its map."""

    if maps is None:
        return []
    blocks = []
    for number in range(min(BLOCKS, len(maps.images))):
        names = row_names(maps, number)
        columns = [map_cells(maps, number, column, "magnitude") for column in maps.columns]
        label = maps.classes[maps.labels[number]] if maps.labels is not None else ""
        rows = []
        for place, name in enumerate(names):
            cells = []
            for column, pictures in zip(maps.columns, columns, strict=True):
                picture, wrong, words = pictures[place]
                what = f"{name}, class {label}, under {column.name}"
                alt = ": ".join(part for part in (what, wrong or words) if part)
                cells.append({"source": "" if wrong else _png(picture), "alt": alt, "wrong": wrong, "words": words})
            rows.append({"name": name, "cells": cells})
        blocks.append({"label": label, "methods": [(one.name, one.seed) for one in maps.columns], "rows": rows})
    return blocks


def _map_rows(maps: SaliencyMaps | None) -> list[dict[str, Any]]:
    """The rows of pictures: the images, then each method's maps; each picture with its words."""

    if maps is None:
        return []
    assert maps.labels is not None
    labels = [maps.classes[label] for label in maps.labels]
    rows: list[dict[str, Any]] = [
        {
            "name": "image",
            "seed": None,
            "cells": [
                {
                    "source": _png(pixels_of(image)),
                    "alt": f"test image of class {label}",
                    "wrong": "",
                    "words": "",
                    "label": label,
                }
                for image, label in zip(maps.images, labels, strict=True)
            ],
        }
    ]
    for column in maps.columns:
        cells = []
        for label, one, prediction in zip(labels, column.maps, column.predictions, strict=True):
            picture, wrong = coloured(one)
            said = maps.classes[prediction]
            words = f"says {said}" if said != label else ""
            alt = ": ".join(
                part
                for part in (f"saliency map of {column.name}, class {label}", ", ".join(filter(None, (wrong, words))))
                if part
            )
            cells.append(
                {"source": "" if wrong else _png(picture), "alt": alt, "wrong": wrong, "words": words, "label": label}
            )
        rows.append({"name": column.name, "seed": column.seed, "cells": cells})
    return rows


def _png(pixels: Tensor) -> str:
    """uint8 (H, W, 3) as a data URI of a PNG, pixel for pixel; in one channel where it is grey."""

    from PIL import Image

    grey = bool((pixels == pixels[..., :1]).all())
    content = io.BytesIO()
    Image.fromarray((pixels[..., 0] if grey else pixels).contiguous().numpy()).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def _settings(config: TrainConfig) -> str:
    told = []
    for name in _TOLD:
        value = getattr(config, name)
        if value is not None:
            words = eps_text(value) if name == "eps" else f"{value:g}" if isinstance(value, float) else value
            told.append(f"{name} {words}")
    return ", ".join(told)


def _evidence(method: Method, run: Run, out: Path) -> dict[str, Any]:
    """Where a run lies, as seen from the page, and what identifies it."""

    place = quote(os.path.relpath(run.folder, out).replace(os.sep, "/"))
    return {
        "method": method.name,
        "seed": run.seed,
        "folder": str(run.folder),
        "place": place,
        "epoch": f"{run.result.chosen_epoch + 1} of {run.result.epochs}",
        "chosen_by": run.result.chosen_by,
        "model": next(iter(run.evaluations.values())).model[:12],
        "results": [
            *((name, f"{place}/evaluation/{name}/result.json") for name in run.evaluations),
            *((name, f"{place}/explanation/{name}/result.json") for name in run.explanations),
        ],
    }


def _costs(comparison: Comparison) -> list[dict[str, Any]]:
    """What each run's worst cases took, what broke its samples first, and how the shortcut was tested.

    Seconds are left out: the same grid gives the same page, killed on the way or not.
    """

    return [
        {
            "method": method.name,
            "seed": run.seed,
            "protocol": column.protocol,
            "first": found.first_to_break(column.attack),
            **found.cost(column.attack),
        }
        for method in comparison.methods
        for run in method.runs
        for column in comparison.columns
        if PROTOCOLS[column.protocol].worst_case
        for found in [run.evaluations[column.protocol]]
    ]


def _thorough(comparison: Comparison) -> list[str]:
    """The commands that run the dear checks, of the first run under each protocol that lacks them."""

    lines = []
    for name in comparison.epsilons:
        for run in (run for method in comparison.methods for run in method.runs):
            if any(check.remedy == THOROUGH for check in run.evaluations[name].checks):
                words = ["asgt", "evaluate", str(run.folder), "--protocol", name, "--resume", "--thorough"]
                lines.append(shlex.join(words + _named_again(run)))
                break
    return lines


def _named_again(run: Run) -> list[str]:
    """A user's own factory runs only if they name it themselves."""

    return ["--model", run.config.model] if is_foreign(run.config.model) else []


def _commands(comparison: Comparison) -> list[str]:
    """The commands that repeat one run of each method, from what its folder holds."""

    lines = []
    for method in comparison.methods:
        run = method.runs[0]
        words = ["asgt", "train", "--config", str(RunFolder(run.folder).config), "--out", f"again/{run.folder.name}"]
        lines.append(shlex.join(words + _named_again(run)))
    return lines


def _csv(comparison: Comparison) -> bytes:
    """Every accuracy of every run, for a reader's own plots."""

    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["method", "seed", "protocol", "version", "attack", "norm", "eps", "samples", "accuracy"])
    for method in comparison.methods:
        for column in comparison.columns:
            for eps, accuracy in comparison.curve(method, column):
                for run, value in zip(method.runs, accuracy.values, strict=True):
                    where = [column.protocol, column.version, column.attack, comparison.norm, f"{eps:.6g}"]
                    rows.writerow([method.name, run.seed, *where, accuracy.samples, f"{value:.6f}"])
    return text.getvalue().encode()


def _differences_csv(comparison: Comparison, differences: Sequence[tuple[Difference, ...]]) -> bytes:
    """Every difference that the page shows, a row a pair."""

    told = [
        {
            "first": one.first.name,
            "second": one.second.name,
            "kind": one.kind,
            "seeds": " ".join(map(str, one.seeds)),
            "protocol": one.column.protocol if one.column else "",
            "version": one.column.version if one.column else "",
            "attack": one.column.attack if one.column else "clean",
            "norm": comparison.norm,
            "eps": f"{one.eps:.6g}",
            "samples": one.samples,
            "difference": f"{one.mean:.6f}",
            "low": f"{one.low:.6f}",
            "high": f"{one.high:.6f}",
            "p": f"{one.p:.6g}",
            "p_holm": f"{one.adjusted:.6g}",
            "claims": one.claims,
            "verdict": one.verdict,
        }
        for found in differences
        for one in found
    ]
    text = io.StringIO()
    rows = csv.DictWriter(text, told[0].keys(), lineterminator="\n")
    rows.writeheader()
    rows.writerows(told)
    return text.getvalue().encode()
