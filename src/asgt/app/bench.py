"""What the page is about: one model or several, the test images that all of them see, and what is known already."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Norm
from ..comparison.method_naming import method_names
from ..data import Images, sampled_rows, to_unit
from ..data.image_decoding import PixelOptions
from ..datasets import DataSet, data_set
from ..errors import InputError
from ..evaluation.accuracy import class_count, predict
from ..evaluation.known import CLEAN, MARGIN
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import KNOWN, OWN
from ..inputs import trusted
from ..numbers import counted, eps_text, norm_sign, number
from ..progress import SILENT, Progress
from ..runs.run import Run, data_name, load_run, read_run
from ..saliency import SaliencyMask
from ..training.config import TrainConfig
from ..training.method_registry import MASK
from ..training.run_folder import RunFolder

__all__ = ["Bench", "Subject", "bench_of_model", "bench_of_runs"]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model on the page.

    Attributes:
        name: unique on the page.
        model: in evaluation mode, on the CPU, with its normalisation inside.
        evaluations: what is known of its robustness, by the protocol's key.
        folder: its run folder; ``""`` where it is no run.
        mask: the settings of the mask in its training, but for ``k``; empty where it has none.
    """

    name: str
    model: nn.Module
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    folder: str = ""
    mask: Mapping[str, Any] = field(default_factory=dict)

    def strictest(self, norm: Norm) -> Evaluation | None:
        """Its evaluation by the strictest protocol that is a worst case in a norm; ``None`` where there is none."""

        found = [
            self.evaluations[key]
            for key in (OWN, *KNOWN)
            if key in self.evaluations
            and self.evaluations[key].norm == norm
            and self.evaluations[key].protocol.worst_case
        ]
        return found[-1] if found else None


@dataclass(frozen=True, eq=False)
class Bench:
    """The models of a page and their images.

    Attributes:
        subjects: the models, at least one.
        data: the name of the data, for people.
        images: the test images.
        record: what is known of the data by its name.
        options: how the data is read.
        eps: the radius that the page begins with, in [0, 1].
        norm: its norm.
        k: the share of the features that the mask hides at first.
        notes: what the user must know of runs and images, as text.
    """

    subjects: tuple[Subject, ...]
    data: str
    images: Images
    record: DataSet
    options: PixelOptions
    eps: float
    norm: Norm
    k: float
    notes: tuple[str, ...] = ()
    _rows: dict[tuple[str, int], dict[int, int]] = field(default_factory=dict, init=False, repr=False)

    @property
    def unit(self) -> int:
        """255 where radii are small numbers of grey levels, and 1 where they are shares of the range of the pixels."""

        return 255 if "/" in eps_text(self.record.eps) else 1

    def image(self, row: int) -> Tensor:
        """A test image, float (1, C, H, W) in [0, 1]."""

        return to_unit(self.images.pixels[row : row + 1])

    def answers(self, rows: range) -> list[list[int]]:
        """What each model says of some test images: a list of classes for each model."""

        x = to_unit(self.images.pixels[rows.start : rows.stop])
        with trusted():
            return [predict(subject.model, x).tolist() for subject in self.subjects]

    def known(self, subject: Subject, row: int, norm: Norm) -> str:
        """The smallest ε that is known to fool a model on a test image, in a sentence, and where that is known from."""

        sign = norm_sign(norm)
        evaluation = subject.strictest(norm)
        if evaluation is None:
            how = (
                f"{RunFolder(subject.folder).command('evaluate')} finds it"
                if subject.folder
                else "only a run that is evaluated tells it"
            )
            return f"Smallest known ε in {sign}: not known, {how}"
        protocol = f"protocol {evaluation.protocol.name} v{evaluation.protocol.version}"
        place = self._places(evaluation).get(row)
        if place is None:
            return (
                f"Smallest known ε in {sign}: not known, the image is not among the "
                f"{counted(evaluation.samples, 'image')} of {protocol}"
            )
        least, by = torch.inf, ""
        for search in evaluation.protocol.searches:
            told = evaluation.details[search.name]
            if "norms" not in told:
                continue
            if (found := float(told["norms"][place])) < least:
                least, by = found, _finder(evaluation, search.name, int(told["found_by"][place]))
        if least == 0:
            return f"Smallest known ε in {sign}: 0, the image is misclassified without an attack ({protocol})"
        if least == torch.inf:
            top = eps_text(evaluation.epsilons[-1])
            return f"Smallest known ε in {sign}: none up to {top}, the largest that {protocol} tried"
        return f"Smallest known ε in {sign}: {least:.4g} ({protocol}, by {by})"

    def _places(self, evaluation: Evaluation) -> dict[int, int]:
        """The place of each test image in an evaluation, by its row; empty where those were other images."""

        kept, key = self._rows, (evaluation.data, evaluation.samples)
        if key not in kept:
            rows = sampled_rows(self.images, evaluation.samples) if evaluation.samples <= len(self.images) else None
            same = rows is not None and self.images[rows].digest() == evaluation.data
            kept[key] = {row: place for place, row in enumerate(rows.tolist())} if same and rows is not None else {}
        return kept[key]


def bench_of_runs(folders: Sequence[Path | str], *, allow: Collection[str] = (), progress: Progress = SILENT) -> Bench:
    """Reads finished run folders whose models are shown side by side.

    Args:
        folders: the run folders, at least one.
        allow: whose code may run, as :func:`asgt.load_run` takes it.
        progress: is told how many images were decoded.

    Raises:
        InputError: a folder holds no finished run, or two of them have other test images or classes.
        DamagedFileError: a file of a run is damaged.
    """

    paths = list(dict.fromkeys(Path(folder) for folder in folders))
    runs = [read_run(path) for path in paths]
    for run in runs[1:]:
        _refuse_other_images(runs[0], run)

    subjects, images = [], None
    for name, run in zip(_names(runs), runs, strict=True):
        model, splits, config, _ = load_run(run.folder, allow=allow, progress=progress)
        images = splits.test if images is None else images
        subjects.append(Subject(name, model, run.evaluations, str(run.folder), _mask(config)))
    assert images is not None
    first = runs[0].config
    trained = [run.config for run in runs if run.config.eps is not None]
    record = data_set(first.data)
    asked = trained[0] if trained else first
    ks = [run.config.k for run in runs if run.config.k is not None]
    return Bench(
        subjects=tuple(subjects),
        data=data_name(runs[0]),
        images=images,
        record=record,
        options=pixel_options(first.data_settings()),
        eps=record.eps if asked.eps is None else number(asked.eps, "eps"),
        norm=asked.norm or "linf",
        k=ks[0] if ks else float(MASK.defaults["k"]),
        notes=tuple(f"{run.folder}: {note}" for run in runs for note in (*run.result.warnings, *run.remarks)),
    )


def bench_of_model(
    name: str,
    model: nn.Module,
    images: Images,
    data: str,
    *,
    settings: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> Bench:
    """The bench of any classifier.

    Args:
        name: what the page calls it.
        model: in evaluation mode, images (B, C, H, W) in [0, 1] to logits (B, K).
        images: the test images, with labels in the order of its logits.
        data: the name of the data, a hub id or a folder.
        settings: how the data is read: keyword arguments of :func:`asgt.load_data`. Default: as it is.
        notes: what was taken for what, as text.

    Raises:
        InputError: the model does not take such images, or gives another number of logits than there are classes.
    """

    if (classes := class_count(model, images)) != len(images.classes):
        raise InputError(
            f"{name} gives {classes} logits, the images have {counted(len(images.classes), 'class', 'classes')}"
        )
    record = data_set(data)
    return Bench(
        subjects=(Subject(name, model),),
        data=Path(data).name if Path(data).is_dir() else record.name,
        images=images,
        record=record,
        options=pixel_options(settings or {}),
        eps=record.eps,
        norm="linf",
        k=float(MASK.defaults["k"]),
        notes=tuple(notes),
    )


def pixel_options(settings: Mapping[str, Any]) -> PixelOptions:
    """How one image is decoded where a data set is read by these keyword arguments of :func:`asgt.load_data`."""

    wanted = {name: value for name in PixelOptions.__dataclass_fields__ if (value := settings.get(name)) is not None}
    return PixelOptions(**wanted)


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its method, and what else tells it from the others."""

    names = method_names([run.config for run in runs], [run.result.start for run in runs])
    seeded = [
        f"{name}, seed {run.seed}" if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)
    ]
    return [
        f"{name} ({run.folder})" if seeded.count(name) > 1 else name for name, run in zip(seeded, runs, strict=True)
    ]


def _mask(config: TrainConfig) -> dict[str, Any]:
    """The settings of a run's mask that are not the mask's own defaults."""

    defaults = SaliencyMask(k=0.1)
    values = {name: getattr(config, name) for name in ("target", "rank", "unit", "fill")}
    return {name: value for name, value in values.items() if value not in (None, getattr(defaults, name))}


def _refuse_other_images(first: Run, other: Run) -> None:
    """Refuses runs whose models cannot be asked about the same test images."""

    if first.result.test_data == other.result.test_data and first.result.classes == other.result.classes:
        return
    told = [f"{run.folder} has {data_name(run)}, {'×'.join(map(str, run.result.shape))}" for run in (first, other)]
    raise InputError(
        f"the runs have other test images: {told[0]}; {told[1]}: give runs of one data set, and start asgt app "
        "again for the others"
    )


def _finder(evaluation: Evaluation, search: str, number: int) -> str:
    """What found a sample's smallest norm, in words."""

    if number == MARGIN:
        return "the margin's gradient"
    if number == CLEAN:
        return "a clean error"
    found = next(each for each in evaluation.protocol.searches if each.name == search)
    finders = found.among(evaluation.classes).finders
    return finders[number].title if 0 <= number < len(finders) else "an attack"
