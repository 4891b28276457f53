"""Robustness curves, accuracy over ε under each attack, and training curves, as panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..comparison.comparing import Accuracy, Column, Comparison, Method
from ..errors import DamagedFileError
from ..numbers import eps_text, norm_sign
from ..statistics import spread
from ..training.run_folder import RunFolder
from .figures import Line, Panel, write_panels

__all__ = ["bands", "robustness_curves", "robustness_panels", "training_panels"]


def robustness_curves(comparison: Comparison, path: Path | str, order: Sequence[str] = ()) -> None:
    """Draws a panel for each attack, with a curve for each method and its band.

    Args:
        comparison: what to draw.
        path: where to write; the suffix says what: ``.png``, ``.pdf`` or ``.svg``.
        order: names of methods, these and others, whose places give a method its colour, marker and dash: so it looks
            the same in several figures. Default: the places in the comparison.
    """

    write_panels(
        robustness_panels(comparison, order),
        Path(path),
        title=f"{comparison.data}, n = {comparison.samples} test images; {bands(comparison)}",
    )


def robustness_panels(comparison: Comparison, order: Sequence[str] = ()) -> list[Panel]:
    """A panel for each attack of each shared protocol: accuracy over ε."""

    trained = comparison.trained_eps()
    panels = []
    for column in comparison.columns:
        marks: list[tuple[float, Literal["dotted", "dashed"]]] = []
        said = [f"protocol {column.protocol} v{column.version}: {column.claim}"]
        if trained is not None:
            marks.append((trained, "dotted"))
            said.append(f"dotted: trained at {eps_text(trained)}")
        if column.reach is not None and column.reach < comparison.epsilons[column.protocol][-1]:
            marks.append((column.reach, "dashed"))
            said.append(f"dashed: its steps reach {column.reach:.3f}")
        panels.append(
            Panel(
                key=f"{column.protocol}-{column.attack}",
                title=column.title,
                subtitle="\n".join([said[0], "; ".join(said[1:])]).strip(),
                x_label=f"ε ({norm_sign(comparison.norm)}, pixels in [0, 1])",
                y_label="accuracy (%)",
                x_name="ε",
                lines=tuple(
                    _curve(comparison, method, number, column) for number, method in _numbered(comparison, order)
                ),
                y_limits=(-2, 102),
                marks=tuple(marks),
            )
        )
    return panels


def training_panels(comparison: Comparison) -> list[Panel]:
    """Over the epochs: each method's own loss, and what the validation part said."""

    wanted = (
        ("loss", "training loss", "each method's own: heights are not comparable", "loss", 1.0, None),
        ("validation_clean", "clean accuracy", "on the validation part", "accuracy (%)", 100.0, (-2, 102)),
        (
            "validation_pgd",
            "accuracy under PGD-10",
            "validation part, at the run's ε",
            "accuracy (%)",
            100.0,
            (-2, 102),
        ),
    )
    panels = []
    for key, title, subtitle, y_label, scale, limits in wanted:
        lines = [
            _history(method, number, key, scale)
            for number, method in _numbered(comparison)
            if all(key in row for run in method.runs for row in run.history)
        ]
        if lines:
            panels.append(
                Panel(
                    key=f"training-{key.replace('_', '-')}",
                    title=title,
                    subtitle=subtitle,
                    x_label="epoch",
                    y_label=y_label,
                    x_name="epoch",
                    lines=tuple(lines),
                    y_limits=limits,
                )
            )
    return panels


def bands(comparison: Comparison) -> str:
    """What the bands are, in words."""

    several = {len(method.runs) > 1 for method in comparison.methods}
    words = []
    if True in several:
        words.append("± one standard deviation over seeds")
    if False in several:
        words.append("Wilson 95 % of one model")
    return f"bands: {' or, for a single seed, '.join(words)}"


def _numbered(comparison: Comparison, order: Sequence[str] = ()) -> Sequence[tuple[int, Method]]:
    places = list(order or (method.name for method in comparison.methods))
    return [(places.index(method.name), method) for method in comparison.methods]


def _curve(comparison: Comparison, method: Method, number: int, column: Column) -> Line:
    points: list[tuple[float, Accuracy]] = comparison.curve(method, column)
    found = [accuracy for _, accuracy in points]
    return Line(
        name=method.name,
        number=number,
        x=tuple(eps for eps, _ in points),
        y=tuple(100 * accuracy.mean for accuracy in found),
        low=tuple(100 * accuracy.low for accuracy in found),
        high=tuple(100 * accuracy.high for accuracy in found),
        texts=tuple(accuracy.text() for accuracy in found),
    )


def _history(method: Method, number: int, key: str, scale: float) -> Line:
    for run in method.runs:
        if not all(isinstance(row[key], int | float) and math.isfinite(row[key]) for row in run.history):
            raise DamagedFileError(f"{RunFolder(run.folder).metrics} is damaged: {key} of some epoch is not a number")
    epochs = [[scale * run.history[epoch][key] for run in method.runs] for epoch in range(len(method.runs[0].history))]
    found = [spread(values) if len(values) > 1 else (values[0], 0.0) for values in epochs]
    digits = 1 if scale > 1 else 3
    return Line(
        name=method.name,
        number=number,
        x=tuple(float(epoch + 1) for epoch in range(len(found))),
        y=tuple(mean for mean, _ in found),
        low=tuple(mean - sd for mean, sd in found),
        high=tuple(mean + sd for mean, sd in found),
        texts=tuple(
            f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if len(method.runs) > 1 else "") for mean, sd in found
        ),
    )
