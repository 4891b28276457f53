"""One run of a grid, from images to evidence: trained, evaluated by every protocol, explained, from where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..attacks import Norm
from ..data import Splits, sampled_rows, selection_text, to_unit
from ..devices import place, resolve_device
from ..evaluation.curve import evaluate
from ..progress import Progress
from ..runs.explain_run import explain_run
from ..runs.run import load_run
from ..training.config import TrainConfig
from ..training.run_folder import RunFolder
from ..training.trainer import train

__all__ = ["Job", "do", "keep"]


@dataclass(frozen=True)
class Job:
    """A run to be done.

    Attributes:
        label: what people call it, as ``"ASGT-PGD, seed 0"``.
        folder: its run folder.
        config: its training, resolved.
        protocols: what it is evaluated by, in this order.
        epsilons: the grid of ε.
        norm: the norm of ε.
        samples: how many of the test images, ``None`` for all.
        passes: what its training costs, then each evaluation and each explanation, as :mod:`asgt.experiments.budget`
            counts.
        attributions: what it is explained by, after that, in this order.
        explained: on how many of the test images.
        eps: the ε at which its maps are attacked.
        keep: the file for what is kept of it; ``None`` keeps its folder alone.
        drawn: whether its maps of a few images are kept too, for the picture of the grid.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it.
    """

    label: str
    folder: str
    config: TrainConfig
    protocols: tuple[str, ...]
    epsilons: tuple[float, ...]
    norm: Norm
    samples: int | None
    passes: tuple[int, ...]
    attributions: tuple[str, ...] = ()
    explained: int = 0
    eps: float = 0.0
    keep: str | None = None
    drawn: bool = False
    allow: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, from which :meth:`from_dict` makes the same job in another process."""

        return asdict(self) | {"config": self.config.to_dict()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Job:
        lists = {name: tuple(values[name]) for name in ("protocols", "epsilons", "passes", "attributions", "allow")}
        return cls(**values | lists | {"config": TrainConfig.of(values["config"])})


def do(job: Job, *, should_stop: Callable[[], bool], phase: Callable[[int], Progress]) -> None:
    """Does a job, or what is left of it.

    Args:
        job: what to do. What its folder holds already is not repeated.
        should_stop: asked after every training step.
        phase: gives the progress of the phase of a number: 0 is the training, then come the protocols and the
            attributions.

    Raises:
        InputError: the configuration, the data or the folder does not fit, or the loss is no longer a number.
        InterruptedRunError: ``should_stop`` said so.
    """

    job.config.refuse_foreign(job.allow, job.label)
    train(job.config, job.folder, resume=True, should_stop=should_stop, progress=phase(0))

    model, data, config, _ = load_run(job.folder, allow=job.allow)
    device = resolve_device(config.device)
    model = place(model, device, to_unit(data.test.pixels[:2]))
    rows = sampled_rows(data.test, len(data.test) if job.samples is None else job.samples)
    images, selection = data.test[rows].to(device), selection_text(data.test, rows)
    for number, protocol in enumerate(job.protocols, start=1):
        evaluate(
            model,
            images,
            protocol=protocol,
            epsilons=job.epsilons,
            norm=job.norm,
            folder=RunFolder(job.folder).evaluation(protocol),
            resume=True,
            selection=selection,
            progress=phase(number),
        )
    for number, attribution in enumerate(job.attributions, start=1 + len(job.protocols)):
        explain_run(
            RunFolder(job.folder),
            model,
            data.test,
            config.data,
            samples=job.explained,
            eps=job.eps,
            norm=job.norm,
            attribution=attribution,
            device=config.device,
            resume=True,
            progress=phase(number),
        )
    if job.keep is not None:
        keep(job, (model, data))


def keep(job: Job, loaded: tuple[nn.Module, Splits] | None = None) -> None:
    """Writes what is to be kept of a job that is done.

    Args:
        job: it, with a file to keep it in.
        loaded: its model and data. Default: they are loaded where they are needed.

    Raises:
        InputError: its folder does not hold what it should, or the data is not here.
    """

    # What reads a finished run is not needed before.
    from ..comparison.pictures import block_maps
    from ..runs.kept import keep_run
    from ..runs.run import read_run

    assert job.keep is not None
    run, maps = read_run(Path(job.folder)), None
    if job.drawn:
        model, data = loaded or load_run(job.folder, allow=job.allow)[:2]
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
