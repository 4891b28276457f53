"""The page of results: the paper's figures and claims, compared with the saved runs.

``page/results.md`` is its template. Everything on the page is computed from ``results/``, the claims and the
paper's data, so that the same files give the same page, to the byte.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from math import isclose
from pathlib import Path
from typing import Any

from torch import Tensor

from ..comparison.accuracy_tables import AccuracyTable, table_at
from ..comparison.comparing import Comparison, headings, load_results
from ..comparison.credibility import credibility_of
from ..errors import InputError
from ..evaluation.protocols import KNOWN, PROTOCOLS
from ..experiments.preset import Preset, load_preset, preset_names, preset_words
from ..explanation.map_grid import side_by_side
from ..explanation.shown_maps import SaliencyMaps
from ..files import write_bytes
from ..numbers import counted, duration, eps_text, points
from ..report.curves import robustness_curves
from ..report.map_drawing import write_maps
from ..runs.kept import load_maps
from ..runs.run import Run
from ..statistics import Estimate, mcnemar, paired_bootstrap
from ..training.config import TrainConfig
from ..visible import visible
from .paper import Paper, load_paper, mean_distance, ours
from .shortcut_page import ShortcutGrid, is_about_shortcut, shortcut_grid, shortcut_houses
from .shortcut_study import load_shortcut_claims
from .verdicts import Claim, Claims, State, Verdict, judge, judge_maps, load_claims, named

__all__ = ["write_results"]

_SCALES = ("paper", "tuned", "laptop")  # the best evidence first
_STATES: tuple[State, ...] = (
    *("holds", "does not hold", "no relevant difference", "not decided at this scale", "not run"),
)
_COMMON = (
    *("model", "width", "dropout", "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "clip_norm"),
    *("label_smoothing", "class_weights", "schedule", "keep", "limit", "augment", "precision"),
)
_VARIED = {"momentum": 0.9, "target": "logit"}
_DRAWN = ("*-figure*.svg", "*-saliency.png", "*-views.svg", "*-planted.png")
_VARIED_AT = 0.2  # an ε that mnist-variants and mnist-laptop have


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, repeated.

    Attributes:
        number: its number in the paper.
        shows: its content.
        file: its path, relative to the page.
        missing: its methods without runs.
    """

    number: int
    shows: str
    file: str
    missing: tuple[str, ...]


@dataclass(frozen=True)
class Grid:
    """A preset and the saved results of its runs.

    Attributes:
        name: the preset's, and the folder's.
        words: the description of the preset; ``""`` if it is not built in.
        command: the command that runs it.
        planned: the number of runs in the preset; 0 if it is not built in.
        comparison: the comparison of the saved runs.
        figures: those of the paper that it repeats.
        picture: the path of the figure of maps, relative to the page; ``""`` if there is none.
        undrawn: methods without saved maps.
        verdicts: on the paper's claims, reading by reading.
        beyond: on the additional claims.
        maps: on its claims about maps.
    """

    name: str
    words: str
    command: str
    planned: int
    comparison: Comparison
    figures: tuple[Figure, ...]
    picture: str
    undrawn: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    beyond: tuple[Verdict, ...]
    maps: tuple[Verdict, ...]


def write_results(results: Path, page: Path) -> Path:
    """Writes the page, and the figures into the folder next to it with its name; older ones are removed.

    Args:
        results: the folder with one subfolder for each grid, as ``asgt reproduce … --keep`` writes it.
        page: the page, in Markdown.

    Raises:
        InputError: there are no saved runs, or they cannot be in one table.
        DamagedFileError: a file is damaged.
    """

    from jinja2 import Environment, PackageLoader, StrictUndefined

    claims, paper = load_claims(), load_paper()
    folders = [folder for folder in sorted(results.iterdir()) if any(folder.glob("*.json"))] if results.is_dir() else []
    if not folders:
        raise InputError(f"{results} holds no saved runs: write them with asgt reproduce … --keep {results}")
    for old in [file for kind in _DRAWN for file in page.with_suffix("").glob(kind)]:
        old.unlink()
    about_shortcut = [folder for folder in folders if is_about_shortcut(folder)]
    shortcut_claims = load_shortcut_claims()
    shortcut_grids = [shortcut_grid(folder, shortcut_claims, page) for folder in sorted(about_shortcut, key=_place)]
    grids = [
        _grid(folder, claims, paper, page) for folder in sorted(folders, key=_place) if folder not in about_shortcut
    ]

    environment = Environment(
        loader=PackageLoader("asgt.study", "page"),
        autoescape=False,  # noqa: S701  Markdown of our own files
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"eps": eps_text, "cell": _cell, "summary": _summary, "counted": counted, "anchor": _anchor}
    variants = [grid for grid in grids if _is_varied(grid.name)]
    text = environment.get_template("results.md").render(
        paper=paper,
        claims=claims,
        grids=[grid for grid in grids if grid not in variants],
        unrun=_unrun(_houses(), grids),
        shortcut_grids=shortcut_grids,
        shortcut_claims=shortcut_claims,
        shortcut_unrun=_unrun(shortcut_houses(), shortcut_grids),
        varied_at=_VARIED_AT,
        variants=[line for grid in variants for line in _variants(grid, grids)],
        tables=_tables,
        settings=_settings,
        seeds=_seeds,
        took=_took,
        ran_on=_ran_on,
        trained=_trained,
        quoted=lambda grid: _quoted(grid, claims, paper),
        distances=lambda grid: _distances(grid, claims, paper),
        by_claim=_by_claim,
        checked=lambda grid: credibility_of(grid.comparison),
        headings=headings,
        left_out=_left_out,
        protocols=PROTOCOLS,
        worst_case=_worst_case(grids),
        findings=_findings(grids, claims, shortcut_grids),
    )
    write_bytes(page, text.encode())
    return page


def _unrun(houses: Sequence[str], grids: Sequence[Grid] | Sequence[ShortcutGrid]) -> list[tuple[str, str]]:
    """The presets that nothing is kept of, each with what runs it."""

    return [(name, _command(name)) for name in houses if name not in {grid.name.split("+")[0] for grid in grids}]


def _findings(grids: Sequence[Grid], claims: Claims, shortcut_grids: Sequence[ShortcutGrid]) -> list[str]:
    """The verdicts of all grids in three sentences, the number first: robustness, maps, shortcuts."""

    worst = {reading.name for reading in claims.readings if reading.protocol == "worst case"}
    verdicts = [verdict for grid in grids for verdict in grid.verdicts]
    strict = _states([each for each in verdicts if each.reading in worst])
    weak = _states([each for each in verdicts if each.reading not in worst])
    maps = _states([verdict for grid in grids for verdict in grid.maps])
    shortcuts = _states([verdict for grid in shortcut_grids if grid.judges for verdict in grid.verdicts])
    sentences = []
    if strict.total() + weak.total():
        tests = f"{counted(strict.total(), 'test')} of claims about robustness"
        sentences.append(
            f"{strict['holds']} of {tests} hold in the worst case, and {weak['holds']} of {weak.total()} under the "
            f"paper's attacks. In {strict['does not hold']} and {weak['does not hold']} the opposite holds; the others "
            "are not decided at this scale."
        )
    groups = (("tests of claims about saliency maps", maps), ("claims about masks and shortcuts", shortcuts))
    for what, counts in groups:
        if counts.total():
            sentences.append(
                f"{counts['holds']} of {counts.total()} {what} hold; in {counts['does not hold']} the opposite holds, "
                f"{_others(counts)}."
            )
    return sentences


def _states(verdicts: Sequence[Verdict]) -> Counter[str]:
    """How many verdicts there are of each kind, but for those that were not run."""

    return Counter(verdict.state for verdict in verdicts if verdict.state != "not run")


def _others(counts: Counter[str]) -> str:
    """The verdicts that are neither ``holds`` nor the opposite."""

    alike = counts["no relevant difference"]
    undecided = f"{counts['not decided at this scale']} are not decided at this scale"
    return f"{alike} have no relevant difference, and {undecided}" if alike else f"and {undecided}"


def _left_out(grid: Grid) -> list[str]:
    """The results that only some runs have, such as those of an earlier version; files by their names alone."""

    (folder,) = {run.folder.parent for run in _runs(grid)}
    return [sentence.replace(f"{folder}/", "") for sentence in grid.comparison.left_out]


def _worst_case(grids: Sequence[Grid]) -> str:
    """Which protocols the worst cases of the page are by, the strictest first: an earlier version is named as such."""

    judges = {judge.key: judge for grid in grids for judge in grid.comparison.judges()[-1:]}
    strictest_first = [key for key in reversed(KNOWN) if key in judges and KNOWN[key].worst_case]
    if not strictest_first:
        return "no search: no run has a worst case"
    *others, last = [f"`{judges[key].protocol}` v{judges[key].version}" for key in strictest_first]
    told = ", else of ".join([*(f"{name} if all runs have it" for name in others), last])
    return f"{told}: PGD-40 × 5 and the margin's gradient" if strictest_first[-1] == "pgd" else told


def _is_varied(name: str) -> bool:
    """Whether a grid varies the choices of another, and is told of in one table beside it."""

    return name.endswith("-variants")


def _grid(folder: Path, claims: Claims, paper: Paper, page: Path) -> Grid:
    comparison = load_results(folder)
    name, *changed = folder.name.split("+")
    house = _house(name)
    beside = page.with_suffix("")
    otherwise = house is not None and set(comparison.epsilons) != set(house.protocols)
    maps = None if _is_varied(folder.name) else _kept_maps(comparison)
    drawn = set() if maps is None else {column.name for column in maps.columns}
    picture = beside / f"{folder.name}-saliency.png"
    if maps is not None:
        _write_picture(maps, picture)
    return Grid(
        name=folder.name,
        words="" if house is None else " ".join([preset_words(name), *(f"Here with {one}." for one in changed)]),
        command=_command(folder.name, comparison.epsilons if otherwise else ()),
        planned=0 if house is None else len(house.configs()),
        comparison=comparison,
        figures=tuple(_figures(folder.name, comparison, claims, paper, beside)),
        picture="" if maps is None else f"{beside.name}/{picture.name}",
        undrawn=tuple(method.name for method in comparison.methods if method.name not in drawn),
        verdicts=tuple(judge(comparison, claims, claims.paper)),
        beyond=tuple(judge(comparison, claims, claims.beyond)),
        maps=tuple(judge_maps(comparison, claims)),
    )


def _kept_maps(comparison: Comparison) -> SaliencyMaps | None:
    """The picture of all methods that maps are kept of, each by its first run that has them."""

    pictures = []
    for method in comparison.methods:
        maps = next(filter(None, (load_maps(run.folder) for run in method.runs)), None)
        if maps is not None:
            pictures.append(replace(maps, columns=(replace(maps.columns[0], name=method.name),)))
    return side_by_side(pictures) if pictures else None


def _write_picture(maps: SaliencyMaps, file: Path) -> None:
    """Writes it with 256 colours, which takes a third of the bytes and shows the same."""

    from PIL import Image

    small = io.BytesIO()
    write_maps(maps, file)
    with Image.open(file) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    write_bytes(file, small.getvalue())


def _figures(name: str, comparison: Comparison, claims: Claims, paper: Paper, beside: Path) -> Sequence[Figure]:
    """Draws the paper's figures of curves that the runs have methods for."""

    if _is_varied(name):
        return []
    figures = []
    for asked in (figure for figure in paper.figures if figure["data"] == comparison.data):
        settings = claims.methods[comparison.data]
        methods_by_name = {method: named(comparison, settings[method]) for method in asked["methods"]}
        methods = tuple(method for method in methods_by_name.values() if method is not None)
        if not methods:
            continue
        file = beside / f"{name}-figure{asked['number']}.svg"
        robustness_curves(replace(comparison, methods=methods), file, [method.name for method in comparison.methods])
        missing = tuple(method for method, there in methods_by_name.items() if there is None)
        figures.append(Figure(asked["number"], asked["shows"], f"{beside.name}/{file.name}", missing))
    return figures


def _tables(grid: Grid) -> list[AccuracyTable]:
    """Accuracies of all methods under every attack, at each ε that a claim names and at that of the training."""

    comparison = grid.comparison
    shared = sorted(set.intersection(*map(set, comparison.epsilons.values())))
    claimed = {verdict.claim.eps for verdict in (*grid.verdicts, *grid.beyond)}
    trained = comparison.trained_eps()
    wanted = [eps for eps in shared if eps == trained or any(isclose(eps, other) for other in claimed)]
    return [table_at(comparison, eps) for eps in wanted or shared[-1:]]


def _quoted(grid: Grid, claims: Claims, paper: Paper) -> list[tuple[Any, list[Estimate | None]]]:
    """The paper's numbers, each with ours in every reading."""

    return [
        (quoted, [ours(grid.comparison, claims, quoted, reading) for reading in claims.readings])
        for quoted in paper.quoted
        if quoted.data == grid.comparison.data
    ]


def _distances(grid: Grid, claims: Claims, paper: Paper) -> list[tuple[str, float]]:
    """How far ours are from the paper's numbers in each reading, the nearest first."""

    distances = [(reading.name, mean_distance(grid.comparison, claims, paper, reading)) for reading in claims.readings]
    return sorted(((name, far) for name, far in distances if far is not None), key=lambda pair: pair[1])


def _by_claim(verdicts: Sequence[Verdict]) -> list[tuple[Claim, list[Verdict]]]:
    """The verdicts of each claim, in the order of the readings."""

    claims = {verdict.claim.id: verdict.claim for verdict in verdicts}
    return [(claim, [verdict for verdict in verdicts if verdict.claim.id == claim.id]) for claim in claims.values()]


def _cell(verdict: Verdict) -> str:
    """A verdict for a table, with what it rests on."""

    if verdict.state == "not run":
        return f"*not run*: {verdict.why}"
    against = f"; least certain against {verdict.rival}" if len(verdict.claim.against) > 1 else ""
    under = f" under {verdict.column.title}" if verdict.column and len(verdict.claim.attacks) > 1 else ""
    p = "" if verdict.low is None else f", p {_p(verdict.adjusted)}"
    why = f" ({verdict.why})" if verdict.why else ""
    return f"**{verdict.state}**{why}: {verdict.difference()}{p}{against}{under}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _summary(verdicts: Sequence[Verdict]) -> str:
    """``1 holds, 13 are not decided``, of some verdicts."""

    counts = Counter(verdict.state for verdict in verdicts)
    words: dict[State, tuple[str, str]] = {
        "holds": ("holds", "hold"),
        "does not hold": ("does not hold", "do not hold"),
        "no relevant difference": ("is no relevant difference", "are no relevant differences"),
        "not decided at this scale": ("is not decided", "are not decided"),
        "not run": ("was not run", "were not run"),
    }
    return ", ".join(f"{n} {words[state][n > 1]}" for state in _STATES if (n := counts[state]))


def _settings(grid: Grid | ShortcutGrid) -> str:
    """The settings that all trainings share, as code; the names of the methods tell those that differ."""

    configs = [run.config for run in _runs(grid)]
    pairs = []
    for name in _COMMON:
        values = {getattr(config, name) for config in configs}
        usual = TrainConfig.optimizer if name == "optimizer" else None
        if len(values) == 1 and (value := values.pop()) not in (None, usual):
            pairs.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    trained = grid.comparison.trained_eps()
    return ", ".join(f"`{pair}`" for pair in pairs + ([] if trained is None else [f"eps={eps_text(trained)}"]))


def _seeds(grid: Grid | ShortcutGrid) -> str:
    """How many runs of how many seeds, and whether all were done that the preset asks for."""

    by_method = {method.name: sorted(run.seed for run in method.runs) for method in grid.comparison.methods}
    seeds = sorted(set().union(*by_method.values()))
    fewer = [f"{name} {', '.join(map(str, own))}" for name, own in by_method.items() if own != seeds]
    runs = sum(map(len, by_method.values()))
    unfinished = f" of {grid.planned} in the preset" if grid.planned > runs else ""
    told = f"{counted(runs, 'run')}{unfinished}, seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}"
    return told + (f" (of {'; '.join(fewer)})" if fewer else "")


def _runs(grid: Grid | ShortcutGrid) -> list[Run]:
    return [run for method in grid.comparison.methods for run in method.runs]


def _ran_on(grid: Grid) -> str:
    """The devices that the runs name."""

    runs = _runs(grid)
    return ", ".join(sorted({run.result.speed["device"] for run in runs if "device" in run.result.speed}))


def _took(grid: Grid) -> str:
    """What all runs took, each by itself, on whatever machine they ran."""

    runs = _runs(grid)
    training = [_training_seconds(run) for run in runs]
    attacks = [sum(seconds for each in run.evaluations.values() for seconds in each.seconds.values()) for run in runs]
    maps = [sum(explanation.seconds for explanation in run.explanations.values()) for run in runs]
    longest = max(map(sum, zip(training, attacks, maps, strict=True)))
    parts = [("training", training), ("attacks", attacks), ("maps", maps)]
    told = ", ".join(f"{name} {duration(sum(seconds))}" for name, seconds in parts if sum(seconds))
    return f"{told}; the longest run took {duration(longest)}"


def _training_seconds(run: Run) -> float:
    """The seconds of a run's epochs. A row of its history counts from the start of the call that made it."""

    total = before = 0.0
    for row in run.history:
        total += row["seconds"] - (before if row["seconds"] > before else 0.0)
        before = row["seconds"]
    return total


def _trained(grid: Grid) -> list[tuple[str, str]]:
    """The trainings that went wrong, by method: collapse and overfitting to one step are counted, never dropped."""

    warnings: dict[tuple[str, str], list[int]] = {}
    for method, run, text in grid.comparison.warnings():
        kind = text.split(": ", 1)[-1] if "epochs, " in text else text
        warnings.setdefault((method.name, kind.split(";")[0]), []).append(run.seed)
    return [
        (name, f"{kind} (seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, sorted(set(seeds))))})")
        for (name, kind), seeds in warnings.items()
    ]


def _variants(grid: Grid, grids: Sequence[Grid]) -> list[tuple[str, str, list[str]]]:
    """Each run of a variation beside the run that differs from it in one setting: what the choice changes.

    One model against one model, on the same images: nothing is said of other seeds.
    """

    base = next((other for other in grids if other.name == grid.name.replace("-variants", "-laptop")), None)
    if base is None:
        return []
    runs = {_identity(run.config): (method, run) for method in base.comparison.methods for run in method.runs}
    lines = []
    for run in (run for method in grid.comparison.methods for run in method.runs):
        for setting, usual in _VARIED.items():
            changed: dict[str, Any] = {setting: usual}
            value, pair = getattr(run.config, setting), runs.get(_identity(replace(run.config, **changed)))
            if value not in (usual, None) and pair is not None:
                cells = [
                    _change(
                        grid.comparison.right(run, column, _VARIED_AT),
                        base.comparison.right(pair[1], column, _VARIED_AT),
                    )
                    for column in grid.comparison.columns
                ]
                lines.append((pair[0].name, f"{setting} {usual} → {value}", cells))
    return lines


def _change(first: Tensor, second: Tensor) -> str:
    """How many points one model has more than another on the same images, with its interval and p."""

    low, high = paired_bootstrap(first, second)
    p = mcnemar(int((first & ~second).sum()), int((second & ~first).sum()))
    return (
        f"{points((int(first.sum()) - int(second.sum())) / len(first), '+')} [{points(low)}, {points(high)}], p {_p(p)}"
    )


def _identity(config: TrainConfig) -> tuple[Any, ...]:
    left_out = ("device", "checkpoint_every", "tracker", "tensorboard", "data")
    return tuple(getattr(config, field.name) for field in fields(config) if field.name not in left_out)


def _houses() -> list[str]:
    others = shortcut_houses()
    return [name for name in preset_names() if name.rsplit("-", 1)[1] in _SCALES and name not in others]


def _house(name: str) -> Preset | None:
    data, _, scale = name.rpartition("-")
    return load_preset(data, scale) if name in preset_names() else None


def _anchor(heading: str) -> str:
    """Where a heading is found on a page: its letters, digits, underscores and hyphens."""

    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))


def _command(name: str, protocols: Collection[str] = ()) -> str:
    """What runs a grid, with protocols that are not those of its preset where any are named."""

    preset, *overrides = name.split("+")
    data, _, scale = preset.rpartition("-")
    words = f"asgt reproduce {data} --scale {scale}" if preset in preset_names() else f"asgt reproduce {preset}.yaml"
    if overrides:
        words += f" --set {','.join(overrides)}"
    if protocols:
        words += f" --protocols {','.join(protocols)}"
    return words + " --keep results"


def _place(folder: Path) -> tuple[int, int, str]:
    """MNIST before CIFAR-10, and of each the scales from the paper's down."""

    data, _, scale = folder.name.partition("+")[0].rpartition("-")
    data_set = data.partition("-")[0]
    data_place = ["mnist", "cifar10"].index(data_set) if data_set in ("mnist", "cifar10") else 2
    return data_place, _SCALES.index(scale) if scale in _SCALES else len(_SCALES), folder.name
