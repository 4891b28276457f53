"""Robustness curves, accuracy over ε under each attack, and training curves, as charts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ..comparison.comparing import Column, Comparison
from ..comparison.method_naming import Method
from ..comparison.training_history import epochs_of
from ..numbers import eps_text, norm_sign
from ..statistics import Estimate
from .figures import Chart, Line, write_charts

__all__ = ["bands", "robustness_charts", "robustness_curves", "training_charts"]


def robustness_curves(comparison: Comparison, path: Path | str, order: Sequence[str] = ()) -> None:
    """Draws a chart for each attack, with a curve for each method and its band.

    Args:
        comparison: what to draw.
        path: where to write; the suffix gives the format: ``.png``, ``.pdf`` or ``.svg``.
        order: names of methods, including others; the position gives a method its colour, marker and dash, so that
            it looks the same in several figures. Default: the order in the comparison.

    Raises:
        InputError: the file cannot be written.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder="run/evaluation/pgd")
        >>> asgt.robustness_curves(asgt.compare(["run"]), "curves.svg")
    """

    write_charts(
        robustness_charts(comparison, order),
        Path(path),
        title=f"{comparison.data}, n = {comparison.samples} test images{comparison.fewer_text()}; {bands(comparison)}",
    )


def robustness_charts(comparison: Comparison, order: Sequence[str] = ()) -> list[Chart]:
    """A chart for each attack of each shared protocol: accuracy over ε."""

    trained = comparison.trained_eps()
    charts = []
    for column in comparison.columns:
        marks: list[tuple[float, Literal["dotted", "dashed"]]] = []
        said = [f"protocol {column.protocol} v{column.version}: {column.claim}"]
        if trained is not None:
            marks.append((trained, "dotted"))
            said.append(f"dotted: ε of training, {eps_text(trained)}")
        if column.reach is not None and column.reach < comparison.epsilons[column.key][-1]:
            marks.append((column.reach, "dashed"))
            said.append(f"dashed: its steps can reach ε = {column.reach:.3f}")
        charts.append(
            Chart(
                key=f"{column.key}-{column.attack}",
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
    return charts


def training_charts(comparison: Comparison) -> list[Chart]:
    """Over the epochs: each method's loss, and the accuracies on the validation part."""

    wanted = (
        ("loss", "training loss", "each method has another loss: values are not comparable", "loss", 1.0, None),
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
    charts = []
    for key, title, subtitle, y_label, scale, limits in wanted:
        lines = [
            _history(method.name, number, epochs, digits=1 if scale > 1 else 3)
            for number, method in _numbered(comparison)
            if (epochs := epochs_of(method, key, scale))
        ]
        if lines:
            charts.append(
                Chart(
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
    return charts


def bands(comparison: Comparison) -> str:
    """Describes the bands."""

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
    curve = comparison.curve(method, column)
    return Line(
        name=method.name,
        number=number,
        x=tuple(eps for eps, _ in curve),
        y=tuple(100 * accuracy.value for _, accuracy in curve),
        low=tuple(100 * accuracy.low for _, accuracy in curve),
        high=tuple(100 * accuracy.high for _, accuracy in curve),
        texts=tuple(accuracy.percent() for _, accuracy in curve),
    )


def _history(name: str, number: int, epochs: Sequence[Estimate], digits: int) -> Line:
    return Line(
        name=name,
        number=number,
        x=tuple(float(epoch + 1) for epoch in range(len(epochs))),
        y=tuple(each.value for each in epochs),
        low=tuple(each.low for each in epochs),
        high=tuple(each.high for each in epochs),
        texts=tuple(
            f"{each.value:.{digits}f}" + (f" ± {each.sd:.{digits}f}" if each.interval == "sd" else "")
            for each in epochs
        ),
    )
