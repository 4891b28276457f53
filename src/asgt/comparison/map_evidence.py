"""The saliency maps of a comparison: everything about maps that it shows.

It needs finished runs only. If they are evaluated, it also has their maps' primary measure against their
robustness.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..attacks import Norm
from ..explanation import Measure
from ..numbers import counted, eps_text
from ..runs.run import data_name
from ..statistics import Estimate, PairedDifference
from ..training.config import default_eps
from .comparing import Comparison, trained_eps
from .explained import ARROWS, Explained, explanations_of, measures_of
from .method_naming import Method
from .pictures import Pictures, pictures_of
from .tradeoff import Tradeoff, tradeoff_of

__all__ = [
    "MapEvidence",
    "PanelRow",
    "asked_eps",
    "gather_maps",
    "panel_basis",
    "panel_rows",
    "panel_unrun",
    "panel_words",
]


@dataclass(frozen=True)
class PanelRow:
    """A measure of the panel.

    Attributes:
        measure: the measure.
        n: its number of images.
        scores: of each method of the panel, in its order.
    """

    measure: Measure
    n: int
    scores: tuple[Estimate, ...]

    @property
    def title(self) -> str:
        """Its name, its better direction, and a star if it partly restates robustness."""

        return f"{self.measure.title}{' ' if self.measure.better else ''}{ARROWS[self.measure.better]}" + (
            " *" if self.measure.restates else ""
        )


@dataclass(frozen=True)
class MapEvidence:
    """The results on maps.

    Attributes:
        methods: all that are compared.
        data: the name of the data, for people.
        explained: a panel for each attribution; empty where no run was explained.
        pictures: what the models themselves show.
        tradeoffs: the primary measure beside robustness, by :attr:`Explained.name`, where it was measured; of images
            with a shortcut there is none, for robustness is measured without.
    """

    methods: tuple[Method, ...]
    data: str
    explained: tuple[Explained, ...]
    pictures: Pictures
    tradeoffs: dict[str, Tradeoff]

    @property
    def numbers(self) -> dict[str, int]:
        """The index of each method, which determines its colour and marker."""

        return {method.name: number for number, method in enumerate(self.methods)}


def gather_maps(
    methods: Sequence[Method], comparison: Comparison | None = None, *, allow: Collection[str] = ()
) -> MapEvidence:
    """Everything about the maps of some methods' models.

    Args:
        methods: finished runs on the same data.
        comparison: the same runs, if they are evaluated.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it, for the pictures of its runs.
    """

    explained = explanations_of(methods)
    eps, norm = asked_eps(methods, comparison)
    if explained:
        eps, norm = explained[0].panel.eps, explained[0].panel.norm
    tradeoffs = {}
    for each in explained if comparison is not None else ():
        assert comparison is not None
        if not each.panel.shortcut_view and (tradeoff := tradeoff_of(comparison, each)) is not None:
            tradeoffs[each.name] = tradeoff
    return MapEvidence(
        tuple(methods),
        data_name(methods[0].runs[0]),
        explained,
        pictures_of(
            methods,
            eps=eps,
            norm=norm,
            samples=None if comparison is None else comparison.samples,
            explained=explained,
            allow=allow,
        ),
        tradeoffs,
    )


def asked_eps(methods: Sequence[Method], comparison: Comparison | None = None) -> tuple[float, Norm]:
    """The default ε and norm of the attacks on maps.

    The ε that most runs were trained at; without one, the default training ε of the data.
    """

    norm: Norm = "linf"
    if comparison is not None:
        norm = comparison.norm
    elif norms := [run.config.norm for method in methods for run in method.runs if run.config.norm]:
        norm = norms[0]
    return trained_eps(methods, norm) or default_eps(methods[0].runs[0].config.data), norm


def panel_rows(explained: Explained) -> list[PanelRow]:
    """The measures that have values, each with the scores of all methods."""

    rows = []
    for measure in measures_of(explained.panel):
        scores = tuple(explained.panel.value(method, measure.name) for method in explained.panel.methods)
        rows.append(PanelRow(measure, scores[0].n, scores))
    return rows


def panel_words(explained: Explained) -> str:
    """A sentence on the images of the panel."""

    panel = explained.panel
    if panel.not_run:
        return f"NOT RUN: {panel.not_run}"
    seeds = sorted({len(several) for several in panel.seeds.values()})
    shown = f", images with the shortcut {panel.shortcut_view}" if panel.shortcut_view else ""
    return (
        f"{explained.attribution} of the label's logit{shown}; n = {panel.n} of {panel.asked} images that all "
        f"{counted(sum(map(len, panel.seeds.values())), 'model')} classify correctly; {' or '.join(map(str, seeds))} "
        f"{'seed' if seeds == [1] else 'seeds'}; attacked at ε/4 and ε = {eps_text(panel.eps)}, where "
        f"{panel.unflipped[0]} and {panel.unflipped[1]} of them are unflipped under every model's own PGD-20"
    )


def panel_unrun(explained: Explained) -> list[tuple[str, str]]:
    """The measures without a value, and why, grouped by reason; reasons that a note gives are omitted."""

    if explained.panel.not_run:
        return []
    method = explained.panel.methods[0]
    told = " ".join(explained.notes)
    reasons: dict[str, list[str]] = {}
    for measure in explained.panel.measures:
        why = explained.panel.value(method, measure.name).not_run
        if why and f"{measure.title}: NOT RUN" not in told:
            reasons.setdefault(why, []).append(measure.title)
    return [("; ".join(titles), why) for why, titles in reasons.items()]


def panel_basis(differences: Sequence[PairedDifference]) -> str:
    """The basis of the differences of one measure."""

    sentences = []
    if several := [each for each in differences if each.kind == "methods"]:
        seeds = " or ".join(map(str, sorted({len(each.seeds) for each in several})))
        sentences.append(f"Methods, paired by seed ({seeds} seeds): t interval, Holm over {len(several)} pairs")
    if ones := [each for each in differences if each.kind == "models"]:
        sentences.append(
            "Two models (one seed), paired by image: bootstrap interval, t test, Holm over "
            f"{counted(len(ones), 'pair')}; this does not compare the methods"
        )
    return ". ".join(sentences)
