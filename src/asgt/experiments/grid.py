"""The grid of methods and seeds as jobs, with the state and the cost of each."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..capacity import PASS, refuse_time
from ..comparison.method_naming import method_names
from ..data import Splits, load_data, sample
from ..errors import InputError, shown
from ..evaluation.protocols import stored_name
from ..evaluation.shards import load_evaluation
from ..files import read_yaml
from ..names import names_of, refuse_unless_allowed
from ..progress import SILENT, Progress
from ..runs.explain_run import explained_alike
from ..shortcuts import shortcut_named
from ..training.augmentation_registry import augmentation_named
from ..training.building import refuse_size
from ..training.config import MAY_CHANGE, TrainConfig
from ..training.methods import build_objective
from ..training.planted import refuse_without_shortcut
from ..training.run_folder import RunFolder
from ..training.tracker_registry import check_installed
from ..training.validating import validation_share
from .budget import evaluation_passes, explanation_passes, training_passes
from .job import Job
from .preset import Preset

__all__ = ["NOTE", "Planned", "plan"]

NOTE = "preset.yaml"
"""The file with the preset of a folder."""


@dataclass(frozen=True)
class Planned:
    """A run of the grid and its state."""

    job: Job
    state: Literal["finished", "begun", "to do"]


def plan(
    preset: Preset,
    out: Path,
    progress: Progress = SILENT,
    keep: Path | None = None,
    *,
    allow: Collection[str] = (),
) -> list[Planned]:
    """The runs of a preset in the order of execution: seed by seed, the most expensive first.

    Args:
        preset: the grid.
        out: the folder of the run folders.
        progress: receives the number of decoded images.
        keep: the folder for the saved results of all grids; those of this one are in its subfolder.
        allow: the modules whose code may run, as for :func:`asgt.runs.run.load_run`.

    Raises:
        InputError: the data cannot be read, or has fewer test images than the preset needs; two methods are the
            same; or the folder has other content.
        DamagedFileError: a file of a run folder is damaged.
    """

    for method in preset.methods:
        method.refuse_foreign(allow, preset.name)
        refuse_size(method)
        if not method.has_foreign_method:
            refuse_without_shortcut(build_objective(method), method, None)
    for attribution in preset.attributions:
        refuse_unless_allowed(attribution, allow, preset.name, what="attribution", flag=None)
    _refuse_other(out, preset)
    # A grid that was begun is read without the packages that its trainings need; those say it themselves.
    for method in preset.methods if not (out / NOTE).exists() else ():
        augmentation_named(method.augment or "none")
        for tracker in method.trackers:
            check_installed(tracker)
    first, limits = preset.methods[0], [method.limit for method in preset.methods]
    data = load_data(
        first.data,
        limit=max((limit for limit in limits if limit), default=None) if all(limits) else None,
        progress=progress,
        **first.data_settings(),
    )
    if first.shortcut is not None:
        shortcut_named(first.shortcut).check(data.test.shape, len(data.test.classes))
    samples = preset.samples or len(data.test)
    if samples > len(data.test):
        raise InputError(
            f"{preset.name} needs {shown(samples)} test images, but {preset.data} has {len(data.test)}: lower samples"
        )

    # Where it is drawn class by class, a sample may come to a few more or less.
    samples = len(sample(data.test, samples))
    judging = tuple(evaluation_passes(protocol, preset.epsilons, samples, preset.norm) for protocol in preset.protocols)
    if preset.explained > len(data.test):
        raise InputError(
            f"{preset.name} explains {shown(preset.explained)} test images, but {preset.data} has "
            f"{len(data.test)}: lower samples"
        )
    explained = len(sample(data.test, preset.explained)) if preset.attributions else 0
    explaining = tuple(explanation_passes(attribution, explained, preset.norm) for attribution in preset.attributions)
    planned: list[Planned] = []
    # A seed is no setting of a method: each is counted and named once.
    names = method_names(preset.methods) * preset.seeds
    training = [_training(method, data) for method in preset.methods] * preset.seeds
    folders: set[str] = set()
    for config, name, passes in zip(configs := preset.configs(), names, training, strict=True):
        run_name = f"{_slug(name)}-{config.seed}"
        job = Job(
            label=f"{name}, seed {config.seed}",
            folder=str(out / run_name),
            config=config,
            protocols=preset.protocols,
            epsilons=preset.epsilons,
            norm=preset.norm,
            samples=preset.samples,
            passes=(passes, *judging * len(preset.views), *explaining),
            views=preset.views,
            attributions=preset.attributions,
            explained=preset.explained,
            eps=preset.eps,
            keep=None if keep is None else str(keep / preset.name / f"{run_name}.json"),
            drawn=config.seed == configs[0].seed,
            allow=names_of(allow),
        )
        if job.folder in folders:
            raise InputError(f"{preset.name} has the same method twice: {name}, with the same settings: remove one")
        folders.add(job.folder)
        refuse_time(sum(job.passes) * PASS, f"{preset.name}: {job.label}", "use fewer epochs, steps or images")
        planned.append(Planned(job, _state(job, samples, explained)))
    return sorted(planned, key=lambda run: (run.job.config.seed, -sum(run.job.passes)))


def _training(config: TrainConfig, data: Splits) -> int:
    images = min(len(data.train), config.limit or len(data.train))
    validation = round(images * validation_share(config, images))
    return training_passes(config, images - validation, validation)


def _refuse_other(out: Path, preset: Preset) -> None:
    """A folder belongs to one preset."""

    note, asked = out / NOTE, preset.to_dict()
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder to --out")
    if note.exists():
        kept = read_yaml(note)
        # A note of a version with fewer settings means their defaults.
        if isinstance(methods := kept.get("methods"), list) and all(isinstance(method, dict) for method in methods):
            kept["methods"] = [TrainConfig.from_dict(method, str(note)).to_dict() for method in methods]
            for method in (*kept["methods"], *asked["methods"]):
                for name in MAY_CHANGE:
                    del method[name]
        was, now = (_shortcut_of(each.get("methods")) for each in (kept, asked))
        if was != now:
            raise InputError(
                f"{out} was begun {was}, and {preset.name} has runs {now}: name another --out for another shortcut"
            )
        other = next((name for name in asked if kept.get(name) != asked[name]), None)
        if other is not None:
            raise InputError(
                f"{out} was started with other {other} than {preset.name} has: give another folder to --out"
            )
    # What a kill left half-written is nothing.
    elif out.is_dir() and any(not file.name.endswith(".part") for file in out.iterdir()):
        raise InputError(f"{out} is not the folder of a grid of runs: give another folder to --out")


def _shortcut_of(methods: Any) -> str:
    """The shortcut that all methods of a grid are trained with, in words."""

    first = methods[0] if isinstance(methods, (list, tuple)) and methods else None
    shortcut = first.get("shortcut") if isinstance(first, dict) else None
    return f"with the shortcut {shortcut}" if shortcut else "without a shortcut"


def _state(job: Job, samples: int, explained: int) -> Literal["finished", "begun", "to do"]:
    folder = RunFolder(job.folder)
    if not folder.config.exists():
        return "to do"
    kept, asked = TrainConfig.load(folder.config).to_dict(), job.config.to_dict()
    if any(kept.get(name) != asked[name] for name in asked if name not in MAY_CHANGE):
        raise InputError(f"{job.folder} has a run with other settings: give another folder to --out")
    if not folder.result.exists():
        return "begun"
    for protocol, view in job.evaluations:
        place = folder.evaluation(stored_name(protocol), view)
        if not (place / "result.json").exists():
            return "begun"
        evaluation = load_evaluation(place)
        if (evaluation.epsilons, evaluation.norm, evaluation.samples) != (job.epsilons, job.norm, samples):
            raise InputError(f"{place} has an evaluation with other settings: give another folder to --out")
    for attribution in job.attributions:
        if not explained_alike(folder.explanation(attribution), samples=explained, eps=job.eps, norm=job.norm):
            return "begun"
    return "finished"


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
