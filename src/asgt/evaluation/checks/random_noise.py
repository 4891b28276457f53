"""Noise does not use the model: a search should break every sample that noise breaks."""

from __future__ import annotations

import math

import torch

from ...attacks.attack import random_start
from ...randomness import SampleKeyed, uniform_like
from ..check import Check
from ..second_look import DRAW, SecondLook
from .grading import counted_check, no_survivors

__all__ = ["check_random_noise"]

_NOISES = 10  # of each kind


def check_random_noise(look: SecondLook) -> Check:
    """Noise does not use the model: a search should break every sample that noise breaks."""

    name, samples = "random noise", look.survivors
    if len(samples) == 0:
        return no_survivors(name, look)
    noise = SampleKeyed(look.evaluation.seed, samples.rows.to(samples.y.device), DRAW)
    radius = samples.x.new_full((len(samples),), look.eps)
    corner = look.eps if look.evaluation.norm == "linf" else look.eps / math.sqrt(samples.x[0].numel())
    broken = torch.zeros(len(samples), dtype=torch.bool)
    for _ in range(_NOISES):
        signs = (uniform_like(samples.x, noise) - 0.5).sign()
        broken |= look.broken(samples, random_start(samples.x, radius, look.evaluation.norm, noise), look.eps)
        broken |= look.broken(samples, (samples.x + corner * signs).clamp(0, 1), look.eps)
    return counted_check(
        name,
        look,
        samples,
        broken,
        f"random noise ({_NOISES} draws from the ball, {_NOISES} of its corners)",
        "gradients mislead the search: add attacks without gradients (Square), and inspect the gradients",
    )
