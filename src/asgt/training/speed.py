"""The speed of a run, measured without making its device wait."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..passes import Meter

__all__ = ["Display", "Stopwatch", "speed_text"]


class Stopwatch:
    """The time of training steps, without validation and checkpoints at the end of an epoch.

    Args:
        device: that the steps run on.
        passes: of a step.
        metered: whether the passes can be measured separately; not in a replayed step.
    """

    def __init__(self, device: torch.device, passes: int, metered: bool = True) -> None:
        self.meter = Meter(device) if metered else None
        self.passes = passes
        self._samples = 0
        self._laps: list[tuple[int, float, float | None]] = []
        self.start()

    def start(self) -> None:
        """Begins a lap."""

        self._began, self._samples = time.perf_counter(), 0

    def on(self) -> AbstractContextManager[None]:
        """Measures the time of the passes inside."""

        return nullcontext() if self.meter is None else self.meter.on()

    def count(self, samples: int) -> None:
        """Counts a step of so many samples."""

        self._samples += samples

    def lap(self) -> dict[str, float | None]:
        """The speed of a lap whose last result has reached the host, without waiting."""

        passes = None if self.meter is None else self.meter.read()
        self._laps.append((self._samples, time.perf_counter() - self._began, passes))
        return _figures(self._laps[-1:])

    def summary(self) -> dict[str, Any]:
        """The speed of all laps together."""

        return {"passes_per_step": self.passes} | _figures(self._laps)


class Display:
    """The running means of an epoch, as they were when they last reached the host.

    On an accelerator, reading a number at once makes the host wait for all earlier steps. Here a copy starts
    asynchronously and is shown the next time, if it has arrived.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sent: tuple[list[str], Tensor, torch.cuda.Event] | None = None

    def offer(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Takes the sums of an epoch, and returns the means that can be shown."""

        if self.device.type not in ("cpu", "cuda"):  # without pinned memory a copy waits
            return {}
        names = [name for name in sums if name != "steps"]
        means = torch.stack([sums[name] / sums["steps"] for name in names])
        if self.device.type == "cpu":
            return dict(zip(names, means.tolist(), strict=True))

        shown: dict[str, float] = {}
        if self._sent is not None and self._sent[2].query():
            shown = dict(zip(self._sent[0], self._sent[1].tolist(), strict=True))
        arrived = torch.cuda.Event()
        host = torch.empty(means.shape, dtype=means.dtype, pin_memory=True).copy_(means, non_blocking=True)
        arrived.record()
        self._sent = names, host, arrived
        return shown


def speed_text(speed: Mapping[str, Any]) -> str:
    """The speed of a lap as text."""

    outside = speed["outside_passes"]
    told = f"{speed['samples_per_second']:.0f} images/s"
    return told if outside is None else f"{told}, {outside:.1%} of the time outside the passes"


def _figures(laps: list[tuple[int, float, float | None]]) -> dict[str, float | None]:
    samples, seconds = sum(lap[0] for lap in laps), sum(lap[1] for lap in laps)
    passes = [lap[2] for lap in laps if lap[2] is not None]
    outside = max(0.0, 1.0 - sum(passes) / seconds) if passes and seconds else None
    return {
        "samples_per_second": round(samples / seconds, 2) if seconds else 0.0,
        "outside_passes": None if outside is None else round(outside, 4),
    }
