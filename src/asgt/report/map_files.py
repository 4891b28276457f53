"""The results on maps as files: figures for papers, ``panel.csv`` and ``panel-differences.csv``."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import Any

from ..comparison.explained import Explained
from ..comparison.map_evidence import MapEvidence
from ..comparison.pictures import BLOCKS, Pictures
from ..names import file_name, viewed
from .figures import write_charts, write_scatter
from .gradients import gradient_charts
from .map_drawing import write_contact_sheet, write_maps
from .masked_curves import masked_charts
from .rows import write_rows
from .tradeoff_chart import tradeoff_scatter

__all__ = [
    "saliency_names",
    "write_gradients",
    "write_map_evidence",
    "write_map_tables",
    "write_measures",
    "write_pictures",
]


def write_map_evidence(evidence: MapEvidence, out: Path) -> None:
    """Writes the tables and the figures into a folder, and replaces earlier ones."""

    write_pictures(evidence, out / "figures")
    write_gradients(evidence, out / "figures")
    write_measures(evidence, out / "figures")
    write_map_tables(evidence, out)


def write_pictures(evidence: MapEvidence, folder: Path) -> None:
    """Writes maps of a few images and the contact sheet; earlier figures are removed."""

    pictures = evidence.pictures
    for old in (*folder.glob("saliency*.*"), *folder.glob("contact.*")):
        old.unlink()
    for suffix in ("png", "pdf"):
        for name, maps in zip(saliency_names(pictures), pictures.shown.values(), strict=True):
            write_maps(maps[:BLOCKS], folder / f"{name}.{suffix}")
            write_maps(maps[:BLOCKS], folder / f"{name}-signed.{suffix}", kind="signed")
        if pictures.contact is not None:
            write_contact_sheet(pictures.contact, folder / f"contact.{suffix}")


def write_gradients(evidence: MapEvidence, folder: Path) -> None:
    """Writes the distribution of the gradient's values; an earlier figure is removed."""

    for old in folder.glob("gradients.*"):
        old.unlink()
    if charts := gradient_charts(evidence.pictures.gradients, evidence.numbers):
        for suffix in ("png", "pdf"):
            path = folder / f"gradients.{suffix}"
            write_charts(charts, path, title=f"a: gradient of the label's logit, {evidence.data}")


def write_measures(evidence: MapEvidence, folder: Path) -> None:
    """Writes the curves of masked accuracy, and the primary measure against robustness; earlier ones are removed."""

    for old in (*folder.glob("masked-*.*"), *folder.glob("tradeoff-*.*")):
        old.unlink()
    for suffix in ("png", "pdf"):
        for explained in evidence.explained:
            if charts := masked_charts(explained, evidence.numbers):
                title = (
                    f"accuracy with pixels hidden: {evidence.data}, {explained.name}, n = {explained.panel.n} images"
                )
                write_charts(charts, folder / f"masked-{explained.file}.{suffix}", title=title)
        for attribution, tradeoff in evidence.tradeoffs.items():
            write_scatter(
                tradeoff_scatter(tradeoff, evidence.numbers), folder / f"tradeoff-{file_name(attribution)}.{suffix}"
            )


def write_map_tables(evidence: MapEvidence, out: Path) -> None:
    """Writes every measure of every method, and every difference; without any, earlier tables are removed."""

    write_rows(out / "panel.csv", _panel_csv(evidence.explained))
    write_rows(out / "panel-differences.csv", _differences_csv(evidence.explained))


def saliency_names(pictures: Pictures) -> list[str]:
    """The names of the files of maps, without a suffix, in the order of the pictures."""

    return [saliency_name(name) for name in pictures.shown]


def saliency_name(name: str) -> str:
    """The name of the file of a picture in :attr:`Pictures.shown`, without a suffix."""

    attribution, _, view = name.partition("+")
    return "saliency" if name == "gradient" else f"saliency-{viewed(file_name(attribution), view)}"


def _panel_csv(explained: Sequence[Explained]) -> list[dict[str, Any]]:
    """A row for each attribution (and view of the shortcut, ``gradient+aligned``), method and measure."""

    rows = []
    for each in explained:
        for method in each.panel.methods:
            for measure in each.panel.measures:
                score = each.panel.value(method, measure.name)
                rows.append(
                    {
                        "attribution": each.name,
                        "method": method,
                        "measure": measure.name,
                        "better": measure.better or "",
                        "restates_robustness": "yes" if measure.restates else "no",
                        "n": score.n,
                        "asked": each.panel.asked,
                        "eps": f"{each.panel.eps:.6g}",
                        "norm": each.panel.norm,
                        "seeds": " ".join(map(str, each.panel.seeds[method])),
                        "mean": _number(score.value),
                        **{name: _number(getattr(score, name)) for name in ("low", "high")},
                        "sd": "" if score.sd is None else _number(score.sd),
                        "interval_over": "seeds" if score.interval == "t" else "images",
                        "values": " ".join(map(_number, score.values)),
                        "gate": _number(each.panel.gate(method)),
                        "not_run": score.not_run,
                    }
                )
    return rows


def _differences_csv(explained: Sequence[Explained]) -> list[dict[str, Any]]:
    """A row for each attribution, measure and pair of methods."""

    return [
        {
            "attribution": each.name,
            "measure": measure.name,
            "first": pair.first,
            "second": pair.second,
            "kind": pair.kind,
            "seeds": " ".join(map(str, pair.seeds)),
            "n": pair.n,
            "mean": _number(pair.value),
            "low": _number(pair.low),
            "high": _number(pair.high),
            "p": f"{pair.p:.6g}",
            "p_holm": f"{pair.adjusted:.6g}",
            "claims": pair.claims,
            "verdict": pair.decision,
        }
        for each in explained
        for measure in each.panel.measures
        for pair in each.panel.differences(measure.name)
    ]


def _number(value: float) -> str:
    """Empty where there is none."""

    return "" if isnan(value) else f"{value:.6f}"
