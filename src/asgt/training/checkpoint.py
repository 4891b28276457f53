"""A checkpoint: one safetensors file with everything that a run needs to continue, replaced atomically.

Tensors: the model, the average of its weights, the optimizer's state, the sums of the epoch's metrics. Metadata: the
step, the best epoch so far, and the values that must be the same on resume. There is no random state: order and noise
are functions of (seed, epoch, step, rank).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import DamagedFileError, InputError
from ..files import write_tensors

__all__ = ["Learner", "TrainingState", "load_checkpoint", "load_model", "save_checkpoint", "standing"]


@dataclass(frozen=True)
class Learner:
    """The trained objects, whose tensors are saved.

    Attributes:
        model: the classifier.
        average: the average of its weights, if used.
        optimizer: of its weights.
    """

    model: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer


@dataclass
class TrainingState:
    """The progress of a run, without its tensors.

    Attributes:
        step: training steps done.
        best_epoch: the epoch whose weights are the model so far; -1 before there is one.
        best_score: its selection score.
        collapsed: epochs that ended with a constant prediction.
        catastrophic: epochs that ended with catastrophic overfitting.
        config: the resolved configuration.
        data: SHA-256 of the training images.
        threads: CPU threads of PyTorch; with another number, sums differ in their last bits.
        processes: the number of processes; with another number, sums and the noise of dropout differ.
        files: the SHA-256 of the other files of the run folder as they were written, by name.
        unverified: descriptions of the files without a digest that the run used.
        start: the weights that it started from, from :meth:`asgt.training.starting.Start.to_dict`; empty if they
            were random.
    """

    step: int = 0
    best_epoch: int = -1
    best_score: float = -1.0
    collapsed: list[int] = field(default_factory=list)
    catastrophic: list[int] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    data: str = ""
    threads: int = 0
    processes: int = 1
    files: dict[str, str] = field(default_factory=dict)
    unverified: list[str] = field(default_factory=list)
    start: dict[str, Any] = field(default_factory=dict)


def save_checkpoint(path: Path, state: TrainingState, learner: Learner, sums: Mapping[str, Tensor]) -> None:
    """Writes a checkpoint atomically."""

    tensors = {f"model.{name}": tensor for name, tensor in learner.model.state_dict().items()}
    if learner.average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in learner.average.state_dict().items()}
    for index, own in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in own.items() if isinstance(value, Tensor)}
    tensors |= {f"sums.{name}": tensor for name, tensor in sums.items()}

    write_tensors(path, tensors, {"standing": json.dumps(asdict(state))}, begin=False)


def standing(path: Path, metadata: Mapping[str, str]) -> TrainingState:
    """The progress of a run from the metadata of its checkpoint.

    Raises:
        DamagedFileError: they are incomplete.
    """

    try:
        state = TrainingState(**json.loads(metadata["standing"]))
        _check_types(state)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(
            f"{path} is damaged: its metadata lack the progress of the run; remove it to train from the beginning"
        ) from error
    return state


def load_model(held: tuple[Mapping[str, Tensor], Mapping[str, str]], model: nn.Module) -> None:
    """Gives a model the weights of a checkpoint, if they fit; :func:`load_checkpoint` says what does not."""

    weights = {name.partition(".")[2]: value for name, value in held[0].items() if name.startswith("model.")}
    with contextlib.suppress(RuntimeError, ValueError):
        model.load_state_dict(weights)


def load_checkpoint(
    path: Path, held: tuple[Mapping[str, Tensor], Mapping[str, str]], learner: Learner
) -> tuple[TrainingState, dict[str, Tensor]]:
    """Restores a model, its average and its optimizer from a checkpoint.

    Args:
        path: the file, for errors to name.
        held: its tensors and its metadata.
        learner: the objects to restore.

    Returns:
        The progress of the run, and the sums of the epoch's metrics.

    Raises:
        DamagedFileError: it is not a complete checkpoint.
        InputError: it belongs to another model.

    """

    tensors, metadata = held
    state = standing(path, metadata)

    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}, "sums": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise DamagedFileError(f"{path} is damaged: it contains {name}, which does not belong to a checkpoint")
        parts[part][rest] = tensor

    try:
        learner.model.load_state_dict(parts["model"])
        if learner.average is not None:
            learner.average.load_state_dict(parts["average"])
        whole = learner.optimizer.state_dict()
        whole["state"] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition(".")
            whole["state"].setdefault(int(index), {})[key] = tensor
        learner.optimizer.load_state_dict(whole)
        # The file knows no order of memory, and a fused step needs that of the weights. AdamW's count of steps is of
        # no weight's shape, but for a weight of a single number.
        for weight, own in learner.optimizer.state.items():
            for key, tensor in own.items():
                if isinstance(tensor, Tensor) and key != "step" and tensor.shape == weight.shape:
                    own[key] = torch.empty_like(weight).copy_(tensor)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path} belongs to another model: {str(error).splitlines()[-1].strip()[:200]}") from error

    return state, parts["sums"]


def _check_types(state: TrainingState) -> None:
    """Raises a ``TypeError`` where a value is of another type than the default: it is read from a file."""

    default = asdict(TrainingState())
    for name, value in asdict(state).items():
        fits = isinstance(value, (int, float) if name == "best_score" else type(default[name]))
        parts = value if isinstance(value, list) else []
        kind = str if name == "unverified" else int
        if not fits or isinstance(value, bool) or not all(type(part) is kind for part in parts):
            raise TypeError(name)
    if not all(isinstance(digest, str) for digest in state.files.values()):
        raise TypeError("files")
