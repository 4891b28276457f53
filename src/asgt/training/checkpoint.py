"""A checkpoint: one safetensors file that holds everything a run needs to go on, replaced atomically.

Tensors: the model, the average of its weights, the optimizer's state, the sums of the epoch's metrics. Metadata: the
step, the best epoch so far, and what must not have changed meanwhile. There is no random state: order and noise are
functions of (seed, epoch, step, rank).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DamagedFileError, InputError
from ..files import write_tensors

__all__ = ["Standing", "load_checkpoint", "save_checkpoint"]


@dataclass
class Standing:
    """Where a run stands, beside its tensors.

    Attributes:
        step: training steps done.
        best_epoch: the epoch whose weights are the model so far; -1 before there is one.
        best_score: what it was chosen by.
        collapsed: epochs that ended with a constant prediction.
        catastrophic: epochs that ended with catastrophic overfitting.
        config: the resolved configuration.
        data: SHA-256 of the training images.
        threads: CPU threads of PyTorch: another number sums in another order.
        processes: how many train together: another number sums in another order, and draws other noise for dropout.
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


def save_checkpoint(
    path: Path,
    standing: Standing,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    sums: Mapping[str, Tensor],
) -> None:
    """Writes a checkpoint, whole or not at all."""

    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    tensors |= {f"sums.{name}": tensor for name, tensor in sums.items()}

    write_tensors(path, tensors, {"standing": json.dumps(asdict(standing))})


def load_checkpoint(
    path: Path,
    held: tuple[Mapping[str, Tensor], Mapping[str, str]],
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
) -> tuple[Standing, dict[str, Tensor]]:
    """Puts a checkpoint back into a model, its average and its optimizer.

    Args:
        path: the file, for errors to name.
        held: the tensors and the metadata that it holds, whoever read it.
        model: takes its weights.
        average: takes the average's, where there is one.
        optimizer: takes its state.

    Returns:
        Where the run stands, and the sums of the epoch's metrics.

    Raises:
        DamagedFileError: it does not hold what a checkpoint does.
        InputError: it is of another model.
    """

    tensors, metadata = held
    try:
        standing = Standing(**json.loads(metadata["standing"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: it does not say where the run stands") from error

    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}, "sums": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise DamagedFileError(f"{path} is damaged: it holds {name}, which no checkpoint does")
        parts[part][rest] = tensor

    try:
        model.load_state_dict(parts["model"])
        if average is not None:
            average.load_state_dict(parts["average"])
        whole = optimizer.state_dict()
        whole["state"] = {}
        for name, tensor in parts["optimizer"].items():
            index, _, key = name.partition(".")
            whole["state"].setdefault(int(index), {})[key] = tensor
        optimizer.load_state_dict(whole)
        # The file knows no order of memory, and a fused step needs that of the weights.
        for weight, state in optimizer.state.items():
            for key, tensor in state.items():
                if isinstance(tensor, Tensor) and tensor.shape == weight.shape:
                    state[key] = torch.empty_like(weight).copy_(tensor)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"{path} is a checkpoint of another model: {str(error).splitlines()[-1].strip()[:200]}"
        ) from error

    return standing, parts["sums"]
