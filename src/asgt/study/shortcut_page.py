"""The section of the results page on whether masking removes shortcuts, from the saved runs of its grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from ..comparison.comparing import Comparison, load_results
from ..comparison.explained import explanations_of
from ..comparison.method_naming import Method
from ..comparison.shortcut_gaps import ShortcutComparison, compare_shortcut_use
from ..data import Images, shortcut_views
from ..errors import InputError
from ..evaluation.shortcut_use import in_points
from ..experiments.preset import load_preset, preset_names, preset_words
from ..explanation.evidence import area_note
from ..numbers import eps_text, points, signed
from ..report.shortcut_chart import write_planted, write_view_chart
from ..runs.kept import load_kept, load_maps
from ..shortcuts import shortcut_named
from ..statistics import PairedDifference, rank_correlation
from ..tabular import Table
from .shortcut_study import ShortcutClaims, closed_share, compare_controls, judge_gaps
from .verdicts import Verdict

__all__ = [
    "ShortcutGrid",
    "conclusion",
    "correlated",
    "is_about_shortcut",
    "map_table",
    "shortcut_grid",
    "shortcut_houses",
]

_SHOWN = 6
"""Images in the picture of the planted data."""


@dataclass(frozen=True)
class ShortcutGrid:
    """A grid of runs with a planted shortcut, for the page.

    Attributes:
        name: the preset's, and the folder's.
        words: the description in the preset; ``""`` if it is not a built-in preset.
        planned: how many runs the preset has; 0 if it is not a built-in preset.
        comparison: the saved runs side by side.
        used: the same on the four test sets.
        plant: the shortcut, as its text says it.
        reach: whether an attack at the training ε can erase the class from it, as text.
        verdicts: on each claim.
        judges: whether the claims are tested on these runs.
        closed: the share of ST's gap that RRR does not have; ``None`` if it is not known.
        chart: accuracy on the four test sets, relative to the page.
        picture: the planted images, likewise; ``""`` where no images are saved.
    """

    name: str
    words: str
    planned: int
    comparison: Comparison
    used: ShortcutComparison
    plant: str
    reach: str
    verdicts: tuple[Verdict, ...]
    judges: bool
    closed: float | None
    chart: str
    picture: str

    def controls(self) -> Table | None:
        """The masks against their controls, which no claim is about; ``None`` without such methods."""

        pairs = compare_controls(self.comparison, self.used)
        rows = [[f"{each.second} against {each.first}", in_points(each), each.p_text, _decided(each)] for each in pairs]
        head = ["smaller gap of", "by, in points [95 %]", "p by Holm's correction", "decision"]
        return Table("masks and their controls", head, rows) if rows else None

    def mass_and_gap(self) -> str:
        """How the mass of the maps on the shortcut goes with the gap over the methods; ``""`` without maps."""

        masses = shortcut_masses(self.comparison)
        return correlated(masses, {name: self.used.method(name).gap().value for name in masses})

    def tables(self) -> list[Table]:
        """Accuracy, gap and worst group of each method: clean, and at the ε of the training; then its maps."""

        maps = map_table(self.comparison)
        return [self.used.table(), self.used.table(self.used.eps), *([maps] if maps else [])]

    def advice(self) -> str:
        """What follows for a user, from the verdicts."""

        untold = {method.name for method in self.comparison.methods if method.runs[0].config.method != "rrr"}
        gaps = {method.name: method.gap() for method in self.used.methods if method.name in untold}
        least = min(gaps, key=lambda name: gaps[name].value)
        smallest = signed(gaps[least].percent())
        return (
            f"{conclusion(self.verdicts)} Of the methods that are not told where the shortcut lies, {least} has the "
            f"smallest gap, {smallest} points. For a shortcut that you suspect: plant it, and evaluate with "
            "`--shortcut-view all`; a high accuracy on aligned images says nothing about it."
        )


def correlated(masses: Mapping[str, float], gaps: Mapping[str, float]) -> str:
    """How the mass of the maps on the shortcut goes with the gap, both by method; ``""`` for fewer than three."""

    if len(masses) < 3:
        return ""
    correlation, _ = rank_correlation([*masses.values()], [gaps[name] for name in masses])
    if isnan(correlation):
        return f"All {len(masses)} methods have the same gap or the same mass, so the two have no rank correlation."
    value = f"{correlation:.2f}".replace("-", "−")
    return (
        f"Over these {len(masses)} methods, the rank correlation (Spearman) between the mass on the shortcut and "
        f"the gap is {value}."
    )


def map_table(comparison: Comparison) -> Table | None:
    """What the maps of each method have to do with the shortcut, on the aligned images; ``None`` if none was made.

    The measures are described, not tested.
    """

    panels = [each.panel for each in explanations_of(comparison.methods) if each.panel.shortcut_view == "aligned"]
    if not panels or panels[0].not_run:
        return None
    panel = panels[0]
    shown = [
        measure
        for measure in panel.measures
        if measure.needs_shortcut
        and not measure.name.endswith(_BESIDE)
        and not panel.value(panel.methods[0], measure.name).not_run
    ]
    return Table(
        f"maps by the {panel.attribution} on aligned images, n = {panel.n} of {panel.asked} images correct under all "
        "models; described, not tested",
        ["method", *(measure.title for measure in shown)],
        [[method, *(panel.value(method, measure.name).text() for measure in shown)] for method in panel.methods],
        [area_note(panel.shortcut_area)],
    )


def shortcut_masses(comparison: Comparison) -> dict[str, float]:
    """The mass of the maps on the shortcut by method, on the aligned images; empty if it was not measured."""

    for each in explanations_of(comparison.methods):
        if each.panel.shortcut_view == "aligned" and not each.panel.not_run:
            scores = {name: each.panel.value(name, "shortcut-mass") for name in each.panel.methods}
            return {name: score.value for name, score in scores.items() if not score.not_run}
    return {}


def _decided(pair: PairedDifference) -> str:
    return pair.decision if pair.decision == "not decided" else "decided"


_BESIDE = ("@quarter", "-noise")
"""Measures that a page has no room for: those at ε/4, and those with the second fill."""


def conclusion(verdicts: Sequence[Verdict]) -> str:
    """What the verdicts say together, in a few sentences."""

    by_id = {verdict.claim.id: verdict for verdict in verdicts}
    states = {name: verdict.state for name, verdict in by_id.items()}
    helps = [verdict for verdict in verdicts if verdict.claim.id in _MASKS and verdict.state == "holds"]
    if helps:
        gains = ", ".join(
            f"{verdict.claim.first} against {verdict.rival} by {points(verdict.mean or 0.0)} points"
            for verdict in helps
        )
        told = f"Masking reduced the use of the shortcut ({gains})."
        control = by_id["S4"]
        if control.state == "does not hold":
            told += (
                f" A random mask of the same size reduced it by {points(-(control.mean or 0.0))} points more, so the "
                "choice of the pixels by the gradient does not explain this."
            )
        elif control.state != "holds":
            told += " It is not shown that the choice of pixels by the gradient matters: a random mask is the control."
    elif any(states.get(name, "not run") == "not run" for name in _MASKS):
        told = "Nothing yet about masks: not all methods were run."
    elif any(states[name] == "not decided at this scale" for name in _MASKS):
        told = "These runs do not show that masking removes the shortcut, and do not rule it out."
    else:
        told = "Masking did not reduce the use of the shortcut."
    if states.get("S2") == "does not hold":
        larger = points(-(by_id["S2"].mean or 0.0))
        told += f" The gap of SGA, which attacks the masked image, is {larger} points larger than that of SGT."
    if states.get("S6") == "does not hold":
        told += f" Adversarial training by itself increased it, by {points(-(by_id['S6'].mean or 0.0))} points."
    return told


_MASKS = ("S1", "S3")
"""The claims that compare a method with a mask to the same training without one."""


def is_about_shortcut(folder: Path) -> bool:
    """Whether the runs saved in a folder were trained with a planted shortcut.

    Raises:
        DamagedFileError: the first file is damaged.
    """

    return load_kept(min(folder.glob("*.json"))).config.shortcut is not None


def shortcut_houses() -> list[str]:
    """The presets of the house that plant a shortcut."""

    return [name for name in preset_names() if "-shortcuts-" in name]


def shortcut_grid(folder: Path, claims: ShortcutClaims, page: Path) -> ShortcutGrid:
    """Reads the saved runs of a grid, tests the claims on them, and draws their figures beside the page.

    Args:
        folder: what was saved of its runs.
        claims: the file of claims.
        page: the page, in Markdown; the figures go into the folder beside it that goes by its name.

    Raises:
        InputError: the runs have several shortcuts, or one lacks the evaluation on a test set.
        DamagedFileError: a file is damaged.
    """

    comparison = _with_plain_names(load_results(folder))
    runs = [run for method in comparison.methods for run in method.runs]
    plants = {run.config.shortcut for run in runs}
    if len(plants) > 1 or None in plants:
        told = " and ".join(sorted(str(plant) for plant in plants))
        raise InputError(f"{folder} holds runs with other shortcuts: {told}: put each grid into a separate folder")
    used = compare_shortcut_use(comparison)
    (plant,) = plants
    name, beside = folder.name.partition("+")[0], page.with_suffix("")
    chart, picture = beside / f"{folder.name}-views.svg", beside / f"{folder.name}-planted.png"
    write_view_chart(used, chart)
    images = next((maps for run in runs if (maps := load_maps(run.folder)) is not None), None)
    if images is not None and images.labels is not None:
        few = Images((images.images[:_SHOWN] * 255).round().byte(), images.labels[:_SHOWN], images.classes)
        write_planted(shortcut_views(few, str(plant)), picture)
    data, _, scale = name.rpartition("-")
    house = load_preset(data, scale) if name in preset_names() else None
    return ShortcutGrid(
        name=folder.name,
        words="" if house is None else preset_words(name),
        planned=0 if house is None else len(house.configs()),
        comparison=comparison,
        used=used,
        plant=str(plant),
        reach=_reach(str(plant), comparison),
        verdicts=tuple(judge_gaps(comparison, used, claims)),
        judges=folder.name == claims.judged,
        closed=closed_share(comparison, used, claims),
        chart=f"{beside.name}/{chart.name}",
        picture="" if images is None else f"{beside.name}/{picture.name}",
    )


def _with_plain_names(comparison: Comparison) -> Comparison:
    """The same with methods by what their mask is: ``SGT with a random mask``."""

    def plain(method: Method) -> str:
        config, base = method.runs[0].config, method.name.partition(" (")[0]
        if config.k == 0:
            return f"{base} without a mask"
        return f"{base} with a random mask" if config.rank == "random" else base

    names = [plain(method) for method in comparison.methods]
    if len(set(names)) < len(names):
        return comparison
    methods = zip(comparison.methods, names, strict=True)
    return replace(comparison, methods=tuple(replace(method, name=name) for method, name in methods))


def _reach(plant: str, comparison: Comparison) -> str:
    """Whether an attack at the training ε can erase the class from the shortcut."""

    contrast, eps = shortcut_named(plant).contrast, comparison.trained_eps()
    if eps is None:
        return f"its contrast is {contrast:g}"
    words = "can" if contrast <= 2 * eps else "cannot"
    attack = f"an attack with the training ε = {eps_text(eps)}"
    return f"its contrast is {contrast:g}, so {attack} {words} erase the class from it"
