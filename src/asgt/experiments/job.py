"""One run of a grid: trained, evaluated with every protocol and explained, continued from its current state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..attacks import Norm
from ..data import Splits, sampled_rows, selection_text, shortcut_view, to_unit
from ..devices import one_thread, place, resolve_device
from ..errors import InputError
from ..evaluation.curve import evaluate
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import stored_name
from ..names import refuse_unless_allowed, viewed
from ..progress import Progress
from ..runs.explain_run import explain_run
from ..runs.kept import keep_run, load_kept
from ..runs.run import load_run, read_run
from ..shortcuts import ShortcutView
from ..training.config import MAY_CHANGE, TrainConfig
from ..training.run_folder import RunFolder
from ..training.tracking import log_afterwards
from ..training.trainer import train

__all__ = ["Job", "do", "is_kept", "keep"]


@dataclass(frozen=True)
class Job:
    """A run of a grid.

    Attributes:
        label: its name for display, such as ``"ASGT-PGD, seed 0"``.
        folder: its run folder.
        config: its training, resolved.
        protocols: the keys of its protocols, in order.
        epsilons: the grid of ε.
        norm: the norm of ε.
        samples: how many of the test images, ``None`` for all.
        passes: what its training costs, then each evaluation and each explanation, as :mod:`asgt.experiments.budget`
            counts.
        views: the test sets of its shortcut, by each of which every protocol evaluates it, in this order; the images as
            they are where it has none.
        attributions: what it is explained by, after that, in this order.
        explained: on how many of the test images.
        eps: the ε at which its maps are attacked.
        keep: the file of its saved result; ``None`` saves only its folder.
        drawn: whether its maps of a few images are also saved, for the figure of the grid.
        allow: the modules whose code may run, as for :func:`asgt.runs.run.load_run`.
    """

    label: str
    folder: str
    config: TrainConfig
    protocols: tuple[str, ...]
    epsilons: tuple[float, ...]
    norm: Norm
    samples: int | None
    passes: tuple[int, ...]
    views: tuple[ShortcutView, ...] = ("absent",)
    attributions: tuple[str, ...] = ()
    explained: int = 0
    eps: float = 0.0
    keep: str | None = None
    drawn: bool = False
    allow: tuple[str, ...] = ()

    @property
    def evaluations(self) -> tuple[tuple[str, ShortcutView], ...]:
        """The protocol's key and the test set of each evaluation, in the order in which they are done."""

        return tuple((protocol, view) for view in self.views for protocol in self.protocols)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which :meth:`from_dict` makes the same job in another process."""

        return asdict(self) | {"config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        names = ("protocols", "epsilons", "passes", "views", "attributions", "allow")
        lists = {name: tuple(values[name]) for name in names}
        return cls(**values | lists | {"config": TrainConfig.of(values["config"])})


def do(job: Job, *, should_stop: Callable[[], bool], phase: Callable[[int], Progress]) -> None:
    """Runs a job, or the rest of it.

    Args:
        job: what to do. What its folder holds already is not repeated.
        should_stop: called after every training step.
        phase: gives the progress of the phase of a number: 0 is the training, then come the evaluations and the
            attributions.

    Raises:
        InputError: the configuration, the data or the folder is invalid, or the loss is NaN or infinite.
        InterruptedRunError: ``should_stop`` returned ``True``.
    """

    job.config.refuse_foreign(job.allow, job.label)
    for attribution in job.attributions:
        refuse_unless_allowed(attribution, job.allow, job.label, what="attribution", flag=None)
    train(job.config, job.folder, resume=True, should_stop=should_stop, progress=phase(0))

    model, data, config = _loaded(job)
    device = resolve_device(config.device)
    rows = sampled_rows(data.test, len(data.test) if job.samples is None else job.samples)
    selection = selection_text(data.test, rows)
    for number, (protocol, view) in enumerate(job.evaluations, start=1):
        evaluation = evaluate(
            model,
            shortcut_view(data.test, config.shortcut, view)[rows].to(device),
            protocol=protocol,
            epsilons=job.epsilons,
            norm=job.norm,
            folder=RunFolder(job.folder).evaluation(stored_name(protocol), view),
            resume=True,
            selection=selection,
            shortcut_view=view,
            progress=phase(number),
        )
        if job.config.trackers:
            log_afterwards(RunFolder(job.folder), job.config.trackers, _accuracies(evaluation), phase(number))
    for number, attribution in enumerate(job.attributions, start=1 + len(job.evaluations)):
        explain_run(
            RunFolder(job.folder),
            model,
            data.test,
            config.data,
            samples=job.explained,
            eps=job.eps,
            norm=job.norm,
            attribution=attribution,
            shortcut=config.shortcut,
            shortcut_view="aligned",
            device=config.device,
            resume=True,
            progress=phase(number),
        )
    if job.keep is not None:
        keep(job, (model, data))


def keep(job: Job, loaded: tuple[nn.Module, Splits] | None = None) -> None:
    """Writes the saved result of a finished job.

    Args:
        job: the job, with a file for its result.
        loaded: its model and data. Default: they are loaded if needed.

    Raises:
        InputError: its folder is incomplete, or the data is not available.
    """

    # What draws a finished run is not needed before.
    from ..comparison.pictures import block_maps

    assert job.keep is not None
    run, maps = read_run(Path(job.folder)), None
    if job.drawn:
        model, data = loaded or _loaded(job)[:2]
        # However often, and in whatever process, a run is kept, its file is the same to the last bit.
        with one_thread():
            maps = block_maps(
                model.cpu(),
                data.test,
                name=job.label,
                seed=job.config.seed,
                eps=job.eps,
                norm=job.norm,
                samples=job.samples,
            )
    keep_run(run, Path(job.keep), maps)


def _accuracies(evaluation: Evaluation) -> dict[str, float]:
    """The robustness curve as numbers by name, for trackers."""

    # MLflow takes no @ in a name.
    key = f"{evaluation.protocol.name} v{evaluation.protocol.version}"
    if evaluation.shortcut_view:
        key = f"{key}/{evaluation.shortcut_view}"
    return {f"{key}/clean": evaluation.accuracy.value} | {
        f"{key}/{search}/eps {eps:g}": estimate.value
        for search in evaluation.outcomes
        for eps, estimate in evaluation.curve(search).items()
    }


def _loaded(job: Job) -> tuple[nn.Module, Splits, TrainConfig]:
    """The model of a trained job, placed on its device, its data, and its configuration."""

    model, data, config, _ = load_run(job.folder, allow=job.allow)
    return place(model, resolve_device(config.device), to_unit(data.test.pixels[:2])), data, config


def is_kept(job: Job) -> bool:
    """Whether a job's file has all results of the job, so that it need not run again.

    Raises:
        InputError: the file belongs to another job.
        DamagedFileError: it is damaged.
    """

    if job.keep is None or not (file := Path(job.keep)).exists():
        return False
    run = load_kept(file)
    kept, asked = run.config.to_dict(), job.config.to_dict()
    # The data may lie, and the device be, elsewhere.
    if any(kept.get(name) != asked[name] for name in asked if name not in (*MAY_CHANGE, "data", "device")):
        raise InputError(f"{file} has a run with other settings: give another folder for the saved results")

    def as_many(samples: int, wanted: int | None) -> bool:
        # Drawn class by class they come to a few more or less.
        return wanted is None or abs(samples - wanted) <= len(run.result.classes)

    # Its maps are for the eye, and no reason to train it again.
    evaluations = [run.on_views(protocol).get(view) for protocol, view in job.evaluations]
    planted = "" if job.config.shortcut is None else "aligned"
    explanations = [run.explanations.get(viewed(name, planted)) for name in job.attributions]
    return all(
        evaluation is not None
        and (evaluation.epsilons, evaluation.norm) == (job.epsilons, job.norm)
        and as_many(evaluation.samples, job.samples)
        for evaluation in evaluations
    ) and all(
        explanation is not None and explanation.eps == job.eps and as_many(explanation.samples, job.explained)
        for explanation in explanations
    )
