"""Robustness curves: accuracy over ε with its intervals, readable in grey."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import InputError
from ..evaluation.curve import Evaluation
from ..files import write_bytes

__all__ = ["robustness_curves"]

# Okabe and Ito's colours, told apart by most eyes; in grey, markers and dashes do it.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = (
    "-",
    "--",
    "-.",
    ":",
    (0, (5, 1)),
    (0, (3, 1, 1, 1)),
    (0, (1, 1)),
)


def robustness_curves(
    evaluations: Mapping[str, Mapping[str, Evaluation]],
    path: Path | str,
    *,
    panels: Sequence[tuple[str, str]],
    title: str,
) -> None:
    """Draws a panel for each attack, with a curve for each model and its Wilson band.

    Args:
        evaluations: by model, then by protocol name; all on the same images.
        path: where to write; the suffix says what: ``.png``, ``.pdf`` or ``.svg``.
        panels: (protocol, attack) of each panel, from left to right.
        title: above them all.

    Raises:
        InputError: the evaluations are not of the same images.
    """

    import matplotlib.pyplot as plt

    if len({found.data for by_protocol in evaluations.values() for found in by_protocol.values()}) > 1:
        raise InputError("curves of different images cannot stand in one figure")

    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels), 3.6), sharey=True, squeeze=False)
    for axis, (protocol, attack) in zip(axes[0], panels, strict=True):
        found = None
        for number, (model, by_protocol) in enumerate(evaluations.items()):
            found = by_protocol[protocol]
            rows = [{"eps": 0.0} | found.clean_accuracy(), *found.curve(attack)]
            eps = [row["eps"] for row in rows]
            style = number % len(_COLOURS)
            axis.plot(
                eps,
                [100 * row["accuracy"] for row in rows],
                color=_COLOURS[style],
                marker=_MARKERS[style],
                linestyle=_DASHES[style],
                markersize=4.5,
                linewidth=1.4,
                label=model,
            )
            low, high = ([100 * row[bound] for row in rows] for bound in ("low", "high"))
            axis.fill_between(eps, low, high, color=_COLOURS[style], alpha=0.12, linewidth=0)
        assert found is not None
        definition = found.protocol
        axis.set_title(f"{attack}\nprotocol {protocol} v{definition.version}\n({definition.claim})", fontsize=9)
        axis.set_xlabel(f"ε ({'L∞' if found.norm == 'linf' else 'L2'}, pixels in [0, 1])")
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_ylim(-2, 102)

    axes[0][0].set_ylabel(f"accuracy (%), n = {found.samples if found else 0}")
    figure.suptitle(title, fontsize=10)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.07, 1, 1))

    content = io.BytesIO()
    figure.savefig(content, format=Path(path).suffix[1:] or "png", dpi=130)
    plt.close(figure)
    write_bytes(Path(path), content.getvalue())
