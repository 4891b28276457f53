"""The panel: a comparison of several methods' maps, on the images that all models classify correctly.

A measure's value of a model is a mean over images, so one model has a bootstrap interval over them. A method is
known only through its runs: with several seeds the interval is Student's t over the runs' values, and two methods have
one difference per seed. A difference is decided if its p, by Holm's correction over all pairs of the measure, is below
0.05 and its own interval excludes zero.

Every measure uses the same images for all models: an image without a value under one of them is omitted for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from math import isnan, nan, sqrt
from statistics import fmean
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..attacks import Norm
from ..errors import InputError, unknown
from ..names import viewed
from ..numbers import counted, to_rounding
from ..statistics import (
    PAIRS_NOTE,
    Estimate,
    Kind,
    PairedDifference,
    adjusted_by_kind,
    bootstrap_means,
    paired_by_seed,
    spread,
    t_interval,
    t_test,
)
from ..tabular import Table, Tabular
from .evidence import Explanation, area_note
from .gate import UNINFORMATIVE
from .known_shortcut import view_in
from .measures import MEASURES, QUANTILES, Measure, measure_named, measures_under

__all__ = ["MINIMUM", "Curve", "Panel", "measure_sentence", "panel"]

MINIMUM = 100
"""The smallest number of images that all models classify correctly for a panel."""

_KINDS: dict[Kind, str] = {
    "methods": "methods, paired by seed: t interval over seeds",
    "models": "models of one run each, paired image by image: bootstrap interval; this does not compare the methods",
}
"""The basis of the differences of a table."""

_Run: TypeAlias = tuple[str, int]
"""A method and a seed."""


@dataclass(frozen=True)
class Curve:
    """Masked accuracy of one method over the share of masked pixels.

    Attributes:
        method: its name.
        fill: the value of masked pixels: the images' ``"mean"``, ``"noise"``, or ROAD's ``"linear"`` imputation.
        order: which pixels are masked first: the ``"top"`` by m, ``"random"`` ones, or the ``"least"``.
        shares: q, ascending.
        accuracy: at each q, in [0, 1]; all images are correct at q = 0.
    """

    method: str
    fill: Literal["mean", "noise", "linear"]
    order: Literal["top", "random", "least"]
    shares: tuple[float, ...]
    accuracy: tuple[Estimate, ...]


@dataclass(frozen=True)
class Panel(Tabular):
    """Several methods under all measures of saliency maps.

    Attributes:
        methods: their names, in the order given.
        seeds: of each method, ascending.
        attribution: the attribution of the maps.
        settings: the settings for repeating it.
        eps: the training ε.
        norm: its norm.
        ids: the rows of the test split that every model classifies correctly, with a map that can be measured, int64
            (n,).
        asked: the number of explained images.
        not_run: why there are no values; empty if there are.
        unflipped: the number of ``ids`` whose prediction no model's own attack changes, at ε/4 and at ε.
        area: the object's mean share of the image; NaN if unknown.
        curves: masked accuracy over the share of masked pixels, by method, fill and order.
        scores: of each measure, those of each method, for :meth:`value`.
        paired: of each measure, all differences, for :meth:`differences`.
        gates: of each method, the median rank correlation of m with that of re-initialised models, and that of two
            re-initialised models with each other; NaN where the gate was not run.
        shortcut_area: the shortcut's mean share of the image; NaN where the images have none.

    Example:
        >>> import asgt
        >>> digits = asgt.load_data("digits").test[:8]
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> panel = asgt.panel({"mine": [asgt.explain(model, digits, eps=0.1)]})
        >>> panel.asked, bool(panel.not_run)  # below 100 images that all models classify correctly, there are no values
        (8, True)
    """

    methods: tuple[str, ...]
    seeds: dict[str, tuple[int, ...]]
    attribution: str
    settings: dict[str, Any]
    eps: float
    norm: Norm
    ids: Tensor
    asked: int
    not_run: str
    unflipped: tuple[int, int]
    area: float
    curves: tuple[Curve, ...] = ()
    scores: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    paired: dict[str, tuple[PairedDifference, ...]] = field(default_factory=dict)
    gates: dict[str, tuple[float, float]] = field(default_factory=dict)
    shortcut_area: float = nan

    @property
    def shortcut_view(self) -> str:
        """Which test set with a shortcut the images are, as ``"aligned"``; empty where they are none."""

        return view_in(self.settings)

    @property
    def name(self) -> str:
        """What made the maps, and the view where there is one: ``gradient+aligned``."""

        return viewed(self.attribution, self.shortcut_view)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The measures that apply: those of the shortcut only where the images have one."""

        return measures_under(self.settings)

    @property
    def n(self) -> int:
        """The number of images that every model classifies correctly."""

        return len(self.ids)

    def table(self) -> Table:
        """A row for each measure that has a value, a column for each method, each cell with its interval."""

        title = f"maps by {self.name} · n = {self.n} of {self.asked} images that all models get right"
        if self.not_run:
            return Table(title, ["measure", *self.methods], [], [f"NOT RUN: {self.not_run}"])
        rows = []
        for measure in self.measures:
            values = [self.value(method, measure.name) for method in self.methods]
            if not all(value.not_run for value in values):
                rows.append([measure.title, str(values[0].n), *(value.text() for value in values)])
        notes = ["± over seeds, [bootstrap 95 %] of one model"]
        notes += [] if isnan(self.shortcut_area) else [area_note(self.shortcut_area)]
        return Table(title, ["measure", "n", *self.methods], rows, notes)

    def value(self, method: str, measure: str) -> Estimate:
        """The value of a measure for a method, or the reason why it was not run.

        Its interval is a bootstrap over images for one seed, and Student's t for several.

        Raises:
            InputError: the method or the measure is unknown.
        """

        measure_named(measure)
        self._known(method)
        if self.not_run:
            return _blank(self.seeds[method], self.n, self.not_run)
        return self.scores[measure][method]

    def differences(self, measure: str) -> tuple[PairedDifference, ...]:
        """The differences of all pairs of methods, in the order of the methods; empty if the measure was not run.

        Pairs that cannot be paired are omitted: those with several runs of either method and no common seed.

        Raises:
            InputError: the measure is unknown.
        """

        measure_named(measure)
        return self.paired.get(measure, ())

    def differences_table(self, measure: str | None = None) -> Table:
        """A row for each pair of methods under a measure: their difference, its interval and p, and whether it is
        decided.

        Args:
            measure: the name of a measure. Default: all that have a value, in the order of the panel.

        Raises:
            InputError: the measure is unknown.
        """

        asked = self.measures if measure is None else (measure_named(measure),)
        pairs = [(each, pair) for each in asked for pair in self.differences(each.name)]
        kinds = {pair.kind for _, pair in pairs}
        return Table(
            f"differences between maps by {self.name} · n = {self.n} of {self.asked} images that all models get right",
            ["measure", "pair", "difference [95 %]", "p by Holm's correction", "decision"],
            [
                [each.title, f"{pair.first} − {pair.second}", _signed(pair), pair.p_text, pair.decision]
                for each, pair in pairs
            ],
            [
                *([f"NOT RUN: {self.not_run}"] if self.not_run else []),
                *(words for kind, words in _KINDS.items() if kind in kinds),
                *([PAIRS_NOTE] if pairs else []),
                *(
                    ["p is corrected for the pairs of one measure, not for the number of measures"]
                    if measure is None
                    else []
                ),
            ],
        )

    def gate(self, method: str) -> float:
        """The median rank correlation of m with that of re-initialised models; NaN where the gate was not run."""

        self._known(method)
        return self.gates.get(method, (nan, nan))[0]

    def between(self, method: str) -> float:
        """The same between two re-initialised models: the similarity of maps for any weights."""

        self._known(method)
        return self.gates.get(method, (nan, nan))[1]

    def uninformative(self, method: str) -> bool | None:
        """Whether the median of the gate is above 0.5; ``None`` if the gate was not run."""

        median = self.gate(method)
        return None if isnan(median) else median > UNINFORMATIVE

    def _known(self, method: str) -> None:
        if method not in self.methods:
            raise unknown("method", method, self.methods)


def measure_sentence(measure: Measure, difference: PairedDifference) -> str:
    """A difference in a measure, as a sentence without its full stop.

    If the difference is decided, the method with the higher value comes first.
    """

    if difference.decision == "less":
        return measure_sentence(measure, difference.turned())

    first, second, paired = difference.first, difference.second, f"{len(difference.seeds)} seeds paired"
    if difference.kind == "models":
        first, second = f"the model of {first}", f"that of {second}"
        paired = f"{counted(difference.n, 'image')} paired"
    words = f"{measure.title}: {first} minus {second} is not decided"
    if difference.decision == "more":
        words = f"{measure.title}: {first} has a higher value than {second}"
    over = f"{difference.p_text} (Holm over {counted(difference.claims, 'pair')})"
    return f"{words}: {_signed(difference)}, {over}, {paired}"


def _signed(difference: PairedDifference) -> str:
    """A difference in a measure with its interval: ``+0.120 [+0.101, +0.139]``."""

    ends = (difference.value, difference.low, difference.high)
    value, low, high = (f"{number:+.3f}".replace("-", "−") for number in ends)
    return f"{value} [{low}, {high}]"


def panel(named: Mapping[str, Sequence[Explanation]], *, seeds: Mapping[str, Sequence[int]] | None = None) -> Panel:
    """Compares explanations of several models on the same images.

    Args:
        named: the explanations of each method, one for each seed, in ascending order.
        seeds: the seeds of each method, ascending. Default: 0, 1, ….

    Returns:
        The panel; without values but with the reason, if the explanations are not comparable or their models
        classify fewer than 100 images correctly in common.

    Raises:
        InputError: there is no method, one has no explanation, or the seeds do not match.

    Example:
        >>> import asgt
        >>> digits = asgt.load_data("digits").test[:8]
        >>> nets = [asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10) for _ in range(2)]
        >>> explained = [asgt.explain(net, digits, eps=0.1) for net in nets]
        >>> asgt.panel({"first": [explained[0]], "second": [explained[1]]}).methods
        ('first', 'second')
    """

    numbers = {
        method: tuple(range(len(several)) if seeds is None else seeds.get(method, ()))
        for method, several in named.items()
    }
    _check(named, numbers)
    runs = {
        (method, seed): explanation
        for method, several in named.items()
        for seed, explanation in zip(numbers[method], several, strict=True)
    }
    first = next(iter(runs.values()))
    empty = Panel(
        methods=tuple(named),
        seeds=numbers,
        attribution=first.attribution,
        settings=first.settings,
        eps=first.eps,
        norm=first.norm,
        ids=first.ids[:0],
        asked=first.samples,
        not_run="",
        unflipped=(0, 0),
        area=nan,
    )
    if why := _mixed(runs):
        return replace(empty, not_run=why)

    right = torch.stack([explanation.right for explanation in runs.values()]).all(dim=0)
    flipped = torch.stack([explanation.values["flipped"] for explanation in runs.values()]).any(dim=0)
    quarter, full = (int((right & ~row).sum()) for row in flipped)
    area = float(first.values["area"][right].mean()) if "area" in first.values else nan
    shortcut_area = first.shortcut_area(right)
    met = replace(empty, ids=first.ids[right], unflipped=(quarter, full), area=area, shortcut_area=shortcut_area)
    if why := _too_few(runs, right):
        return replace(met, not_run=why)

    scores, paired = {}, {}
    for measure in MEASURES:
        scores[measure.name], paired[measure.name] = _measured(runs, numbers, measure, right)
    return replace(
        met, curves=_curves(runs, numbers, right), scores=scores, paired=paired, gates=_gates(runs, numbers, right)
    )


def _check(named: Mapping[str, Sequence[Explanation]], seeds: Mapping[str, tuple[int, ...]]) -> None:
    if not named:
        raise InputError("no method is given: pass at least one")
    for method, several in named.items():
        if not several:
            raise InputError(f"{method} has no explanation: pass one for each seed")
        if len(seeds[method]) != len(several) or list(seeds[method]) != sorted(set(seeds[method])):
            raise InputError(
                f"{method} has {counted(len(several), 'explanation')} and seeds {list(seeds[method])}: give one seed "
                "each, ascending"
            )


def _mixed(runs: Mapping[_Run, Explanation]) -> str:
    """Why explanations do not belong together; empty where they do."""

    (first_run, first), *others = runs.items()
    for run, explanation in others:
        for name, words in _COMMON.items():
            here, there = (to_rounding(getattr(each, name)) for each in (first, explanation))
            same = here.equal(there) if isinstance(here, Tensor) else here == there
            if not same and isinstance(here, dict):
                differing = sorted(key for key in here.keys() | there.keys() if here.get(key) != there.get(key))
                words = f"{words} ({', '.join(differing)})"
            if not same:
                return (
                    f"{_words(run)} was explained with {words} than {_words(first_run)}: explain both with "
                    "the same settings"
                )
    return ""


_COMMON = {
    "attribution": "another attribution",
    "data": "other images",
    "ids": "other image ids",
    "eps": "another ε",
    "norm": "another norm",
    "seed": "another seed of the draws",
    "settings": "other settings",
}
"""The settings that compared explanations must share."""


def _too_few(runs: Mapping[_Run, Explanation], right: Tensor) -> str:
    """Why the images that all models classify correctly say too little; empty where they are enough."""

    if int(right.sum()) < MINIMUM:
        least = min(runs, key=lambda run: int(runs[run].right.sum()))
        return (
            f"only {int(right.sum())} of {counted(len(right), 'image')} are classified correctly by all of "
            f"{counted(len(runs), 'model')}, but {MINIMUM} are needed; {_words(least)} classifies "
            f"{int(runs[least].right.sum())} correctly"
        )
    if len(next(iter(runs.values())).labels[right].unique()) == 1:
        return (
            "the images that all models classify correctly belong to one class, so a constant prediction is "
            "correct on them"
        )
    return ""


def _measured(
    runs: Mapping[_Run, Explanation], seeds: Mapping[str, tuple[int, ...]], measure: Measure, right: Tensor
) -> tuple[dict[str, Estimate], tuple[PairedDifference, ...]]:
    """What one measure says of every method and of every pair of them."""

    values = {run: explanation.per_image(measure.name) for run, explanation in runs.items()}
    present = right.clone()
    for images in values.values():
        present &= torch.zeros_like(right) if images is None else ~images.isnan()
    count = int(present.sum())
    if count < MINIMUM:
        why = _missing(values, measure, right, count)
        return {method: _blank(seeds[method], count, why) for method in seeds}, ()

    kept = {run: images[present] for run, images in values.items() if images is not None}
    pairs = _pairs(seeds)
    of_models = [pair for _, _, kind, among in pairs if kind == "models" for pair in among]
    alone = [(method, several[0]) for method, several in seeds.items() if len(several) == 1]
    # What rests on images is drawn again together: each image brings all of its values along.
    rows = [kept[run] for run in alone] + [kept[here] - kept[there] for here, there in of_models]
    intervals = iter(bootstrap_means(torch.stack(rows)) if rows else [])
    by_images = {run[0]: next(intervals) for run in alone}

    # Outcomes are counted, and equal counts by chance are no certainty: no spread is less than that of their rounding.
    least = measure.grain / (sqrt(12) * count)
    scores = {
        method: _score([kept[method, seed] for seed in seeds[method]], by_images.get(method), least) for method in seeds
    }

    differences = []
    for first, second, kind, among in pairs:
        apart = [kept[here] - kept[there] for here, there in among]
        if kind == "methods":
            means = [float(images.mean()) for images in apart]
            mean, (low, high), p = fmean(means), t_interval(means, least=least), t_test(means, least=least)
        else:
            mean, (low, high), p = float(apart[0].mean()), next(intervals), t_test(apart[0].tolist())
        paired = tuple(sorted({seed for pair in among for _, seed in pair}))
        differences.append(
            PairedDifference(first, second, kind, mean, low, high, p=p, adjusted=p, claims=1, seeds=paired, n=count)
        )
    return scores, adjusted_by_kind(differences)


def _pairs(seeds: Mapping[str, tuple[int, ...]]) -> list[tuple[str, str, Kind, list[tuple[_Run, _Run]]]]:
    """Every two methods that can be paired, and their runs in pairs."""

    paired = []
    for first, second in combinations(seeds, 2):
        one, other = ({seed: (method, seed) for seed in seeds[method]} for method in (first, second))
        kind, pairs = paired_by_seed(one, other)
        if pairs:
            paired.append((first, second, kind, pairs))
    return paired


def _missing(values: Mapping[_Run, Tensor | None], measure: Measure, right: Tensor, count: int) -> str:
    """Why a measure has too few images."""

    for run, images in values.items():
        if images is None:
            return f"{_words(run)} was explained without it"
    what = "are unflipped" if measure.unflipped else "have a value"
    lacking = {run: int((images.isnan() & right).sum()) for run, images in values.items() if images is not None}
    most = max(lacking, key=lambda run: lacking[run])
    return (
        f"only {counted(count, 'image')} {what} under all models, but {MINIMUM} are needed; {_words(most)} lacks "
        f"{lacking[most]} of {int(right.sum())}"
    )


def _score(each: Sequence[Tensor], by_images: tuple[float, float] | None, least: float) -> Estimate:
    """The value of a method by those of the same images under each of its runs."""

    values = tuple(float(images.mean()) for images in each)
    if by_images is not None:
        low, high = by_images
        return Estimate(values[0], low, high, len(each[0]), "bootstrap", values)
    mean, sd = spread(values)
    low, high = t_interval(values, least=least)
    return Estimate(mean, low, high, len(each[0]), "t", values, sd=sd)


def _blank(seeds: Sequence[int], count: int, why: str) -> Estimate:
    return Estimate(nan, nan, nan, count, "bootstrap" if len(seeds) == 1 else "t", not_run=why)


def _curves(runs: Mapping[_Run, Explanation], seeds: Mapping[str, tuple[int, ...]], right: Tensor) -> tuple[Curve, ...]:
    """Masked accuracy over q, of every method, fill and order."""

    least = 1 / (sqrt(12) * int(right.sum()))
    # Over several random orders an image is right as often as it is: (Q, n) a run.
    each = {
        (method, fill, order): [
            kept.double() if kept.ndim == 2 else kept.double().mean(dim=0)
            for kept in (runs[method, seed].values[f"{fill}/{order}"][..., right] for seed in several)
        ]
        for method, several in seeds.items()
        for fill, order in _CURVES
    }
    rows = [row for several in each.values() if len(several) == 1 for row in several[0]]
    intervals = iter(bootstrap_means(torch.stack(rows)) if rows else [])

    curves = []
    for (method, fill, order), several in each.items():
        points = tuple(
            _score([rows[place] for rows in several], next(intervals) if len(several) == 1 else None, least)
            for place in range(len(QUANTILES))
        )
        curves.append(Curve(method, fill, order, QUANTILES, points))
    return tuple(curves)


_CURVES: tuple[tuple[Literal["mean", "noise", "linear"], Literal["top", "random", "least"]], ...] = (
    ("mean", "top"),
    ("mean", "random"),
    ("noise", "top"),
    ("noise", "random"),
    ("linear", "top"),
    ("linear", "least"),
)


def _gates(
    runs: Mapping[_Run, Explanation], seeds: Mapping[str, tuple[int, ...]], right: Tensor
) -> dict[str, tuple[float, float]]:
    """The medians over images, copies and seeds, of each method; NaN unless the gate was run on every run of it."""

    gates = {}
    for method, several in seeds.items():
        explanations = [runs[method, seed] for seed in several]
        gates[method] = (nan, nan)
        if all(explanation.gate.numel() for explanation in explanations):
            trained = torch.cat([explanation.gate[:, right] for explanation in explanations])
            between = torch.cat([explanation.values["between"][:, right] for explanation in explanations])
            gates[method] = float(trained.nanmedian()), float(between.nanmedian())
    return gates


def _words(run: _Run) -> str:
    return f"{run[0]} (seed {run[1]})"
