"""The time of a training step, compared with the time of its passes alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ..passes import modes_agree
from ..randomness import Generators, seeded
from ..statistics import median_interval
from .counting import bare_passes, replay
from .objectives import Objective
from .targets import Targets

__all__ = ["Profile", "in_turn", "profile_step"]


@dataclass(frozen=True)
class Profile:
    """The cost of a step.

    Attributes:
        passes: of an image.
        samples: images of a step.
        steps: seconds of each step: views, loss, backward pass and optimizer.
        bares: seconds of its passes and the optimizer alone, each measured next to the step with the same index.
    """

    passes: int
    samples: int
    steps: tuple[float, ...]
    bares: tuple[float, ...]

    @property
    def step(self) -> float:
        """Median seconds of a step."""

        return median(self.steps)

    @property
    def bare(self) -> float:
        """Median seconds of its passes and the optimizer alone."""

        return median(self.bares)

    @property
    def ratios(self) -> tuple[float, ...]:
        """The ratio of each step's time to that of the passes next to it, under the same load of the machine."""

        return tuple(step / bare for step, bare in zip(self.steps, self.bares, strict=True))

    @property
    def ratio(self) -> float:
        """The ratio of the step's time to that of its passes: the median over the pairs."""

        return median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of that median (:func:`asgt.statistics.median_interval`)."""

        return median_interval(self.ratios)


def profile_step(
    objective: Objective,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    repetitions: int = 5,
    targets: Targets | None = None,
    clip_norm: float | None = None,
) -> Profile:
    """Measures training steps on a batch, alternating with their passes alone, after one warm-up of each.

    Args:
        objective: the method.
        model: the classifier, in training mode.
        x: images (B, C, H, W) in [0, 1].
        y: labels (B,).
        optimizer: of the model's weights; it changes them.
        repetitions: of each of the two.
        targets: from labels to the targets of the loss, as part of the step. Default: the labels.
        clip_norm: the largest norm of the gradient; clipping is part of the optimizer's step. Default: no clipping.
    """

    passes = bare_passes(objective, modes_agree=modes_agree(model), targets=targets is not None)
    region = torch.ones(len(x), *x.shape[2:], dtype=torch.bool, device=x.device)
    streams = Generators(*(seeded("profile", name, device=x.device) for name in ("attack", "mask")))

    def update() -> None:
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        told: dict[str, Any] = {} if targets is None else {"targets": targets(y)}
        told |= {"shortcut": region} if objective.needs_shortcut else {}
        objective(model, x, y, generator=streams, **told).loss.backward()
        update()

    def bare() -> None:
        optimizer.zero_grad(set_to_none=True)
        replay(passes, model, x)
        update()

    taken = in_turn({"step": step, "bare": bare}, repetitions, x.device)
    return Profile(sum(bare.passes for bare in passes), len(x), tuple(taken["step"]), tuple(taken["bare"]))


def in_turn(
    sides: Mapping[str, Callable[[], object]], repetitions: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of all sides, in order and then in reverse order, so that other load of the machine affects all.

    The first of each is not timed: it warms up.
    """

    taken: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repetitions + 1):
        for name, side in list(sides.items())[:: -1 if repetition % 2 else 1]:
            began = time.perf_counter()
            side()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if repetition > 0:
                taken[name].append(time.perf_counter() - began)
    return taken
