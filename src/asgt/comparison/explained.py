"""The comparison of the explanations of several runs: a panel for each attribution, of runs explained with the same
settings.

The panel has the settings that most runs were explained with. Other runs are omitted and named in a note.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..explanation import Explanation, Measure, Panel, measure_named, panel
from ..files import digest_tensors
from ..names import file_name, viewed
from ..numbers import counted, to_rounding
from ..runs.run import Run
from ..shortcuts import VIEWS
from .comparable import listed
from .method_naming import Method

__all__ = ["ARROWS", "PRIMARY", "Explained", "explanations_of", "measures_of"]

PRIMARY = ("shortcut-mass", "mass", "road")
"""The measure that answers the question, named before anything was measured. Of images with a shortcut, whether a
model looks at it: the mass on the shortcut. Of others, whether robustness and interpretability rise together: the mass
on the object, or ROAD where it is not known where the object is."""

ARROWS = {"more": "↑", "less": "↓", None: ""}
"""The better direction of a measure, as a symbol."""


@dataclass(frozen=True)
class Explained:
    """One attribution, of the test images as they are or with a shortcut.

    Attributes:
        attribution: its name.
        panel: of the methods with a run that was explained with it.
        runs: those runs, by method.
        notes: sentences on omitted runs, and the notes of the explanations.
    """

    attribution: str
    panel: Panel
    runs: dict[str, tuple[Run, ...]]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The attribution, and the view of the shortcut where there is one: ``gradient+aligned``."""

        return self.panel.name

    @property
    def file(self) -> str:
        """The same as part of the names of files."""

        return viewed(file_name(self.attribution), self.panel.shortcut_view)

    @property
    def primary(self) -> Measure:
        """The first of :data:`PRIMARY` that every method has; ROAD if there is none."""

        for name in PRIMARY:
            if all(not self.panel.value(method, name).not_run for method in self.panel.methods):
                return measure_named(name)
        return measure_named(PRIMARY[-1])


def explanations_of(methods: Sequence[Method]) -> tuple[Explained, ...]:
    """A panel for each attribution by which some run was explained, the gradient's first.

    Test images with a shortcut, in each of its views, have a separate panel: it follows that of the images as they
    are.
    """

    names = {name for method in methods for run in method.runs for name in run.explanations}
    return tuple(_by(name, methods) for name in sorted(names, key=_place))


def _place(name: str) -> tuple[bool, str, int]:
    """Where a panel stands."""

    attribution, _, view = name.partition("+")
    return attribution != "gradient", attribution, [*VIEWS, view].index(view) if view else -1


def measures_of(panel: Panel) -> list[Measure]:
    """The measures that have a value for some method, in the order of the panel."""

    return [
        measure
        for measure in panel.measures
        if any(not panel.value(method, measure.name).not_run for method in panel.methods)
    ]


def _by(name: str, methods: Sequence[Method]) -> Explained:
    runs = [(method, run) for method in methods for run in method.runs if name in run.explanations]
    lacking = [str(run.folder) for method in methods for run in method.runs if name not in run.explanations]
    keys = [_settings(run.explanations[name]) for _, run in runs]
    counts = Counter(keys)
    # Of equally many, what rests on more images.
    samples = {key: run.explanations[name].samples for key, (_, run) in zip(keys, runs, strict=True)}
    common = max(counts, key=lambda key: (counts[key], samples[key]))

    kept: dict[str, list[Run]] = {}
    most = next(run.explanations[name] for key, (_, run) in zip(keys, runs, strict=True) if key == common)
    others, planted = [], []
    for key, (method, run) in zip(keys, runs, strict=True):
        if key == common:
            kept.setdefault(method.name, []).append(run)
        elif _planted(run.explanations[name]) != _planted(most):
            planted.append(str(run.folder))
        else:
            others.append(str(run.folder))

    notes = []
    if others:
        notes.append(
            f"explained with other settings than most, and omitted: {listed(others)}; remove "
            f"explanation/{name} there and explain them again"
        )
    if planted:
        notes.append(f"explained on images with another shortcut than most, and omitted: {listed(planted)}")
    if lacking:
        notes.append(f"not explained by {name}, and omitted: {listed(lacking)}")
    told = Counter(note for several in kept.values() for run in several for note in run.explanations[name].notes)
    total = sum(map(len, kept.values()))
    notes += [note if count == total else f"{note} ({counted(count, 'run')})" for note, count in told.items()]
    return Explained(
        runs[0][1].explanations[name].attribution,
        panel(
            {method: [run.explanations[name] for run in several] for method, several in kept.items()},
            seeds={method: [run.seed for run in several] for method, several in kept.items()},
        ),
        {method: tuple(several) for method, several in kept.items()},
        tuple(notes),
    )


def _planted(explanation: Explanation) -> Any:
    """What was planted in the images of an explanation; it stays when they are explained again."""

    recorded = explanation.settings.get("shortcut")
    return recorded.get("planted") if isinstance(recorded, dict) else None


def _settings(explanation: Explanation) -> tuple[Any, ...]:
    """What explanations must share to stand in one panel."""

    settings = json.dumps(to_rounding(explanation.settings), sort_keys=True)
    ids = digest_tensors({"ids": explanation.ids})
    return explanation.eps, explanation.norm, explanation.seed, explanation.data, settings, ids
