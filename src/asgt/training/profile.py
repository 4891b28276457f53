"""What a training step takes, beside what its passes take by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from ..passes import modes_agree
from ..randomness import Generators, seeded
from .cost import bare_passes, replay
from .objectives import Objective

__all__ = ["Profile", "in_turn", "profile_step"]


@dataclass(frozen=True)
class Profile:
    """What a step costs.

    Attributes:
        passes: of an image.
        samples: images of a step.
        step: median seconds of a step: views, loss, backward pass and optimizer.
        bare: median seconds of its passes and the optimizer alone, in turn with the steps.
    """

    passes: int
    samples: int
    step: float
    bare: float

    @property
    def ratio(self) -> float:
        """How much longer the step takes than its passes."""

        return self.step / self.bare


def profile_step(
    objective: Objective,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    repetitions: int = 5,
) -> Profile:
    """Times training steps on a batch, in turn with their bare passes, after one of each to warm up.

    Args:
        objective: the method.
        model: the classifier, in training mode.
        x: images (B, C, H, W) in [0, 1].
        y: labels (B,).
        optimizer: of the model's weights; it does step.
        repetitions: of each side.
    """

    passes = bare_passes(objective, modes_agree=modes_agree(model))
    streams = Generators(*(seeded("profile", name, device=x.device) for name in ("attack", "mask")))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        objective(model, x, y, generator=streams).loss.backward()
        optimizer.step()

    def bare() -> None:
        optimizer.zero_grad(set_to_none=True)
        replay(passes, model, x)
        optimizer.step()

    taken = in_turn({"step": step, "bare": bare}, repetitions, x.device)
    return Profile(sum(bare.passes for bare in passes), len(x), median(taken["step"]), median(taken["bare"]))


def in_turn(
    sides: Mapping[str, Callable[[], object]], repetitions: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of all sides, one after the other and again, so that what else the machine does falls on all of them."""

    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repetitions + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition > 0:  # the first one warms up
                taken[name].append(time.perf_counter() - began)
    return taken
