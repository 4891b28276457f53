"""Explanations that nothing was measured for, with values that are drawn or given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asgt.explanation import QUANTILES, Explanation
from asgt.explanation.evidence import write_explanation
from asgt.files import digest_tensors, read_tensors

N, Q, D = 120, len(QUANTILES), 5
"""Images, shares of hidden pixels, and random rankings of an explanation."""


def explanation(wrong: int = 0, seed: int = 0, **values: Tensor | float) -> Explanation:
    """An explanation of 120 images of two classes, the first ``wrong`` of them wrong, with these values."""

    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N) % 2
    predictions = labels.clone()
    predictions[:wrong] = 1 - labels[:wrong]
    draws = {name: torch.rand(N, generator=generator, dtype=torch.float64) for name in ("sparseness", "sensitivity")}
    draws |= {name: torch.rand(N, generator=generator, dtype=torch.float64) for name in ("alignment", "mass", "norm")}
    draws |= {
        name: torch.rand(2, N, generator=generator, dtype=torch.float64) for name in ("rank", "overlap", "cosine")
    }
    outcomes = {f"{fill}/top": torch.zeros(Q, N, dtype=torch.bool) for fill in ("mean", "noise", "linear")}
    outcomes |= {f"{fill}/random": torch.ones(D, Q, N, dtype=torch.bool) for fill in ("mean", "noise")}
    plain: dict[str, Any] = {
        "area": torch.full((N,), 0.25, dtype=torch.float64),
        "between": torch.full((3, N), 0.3, dtype=torch.float64),
        "finite": torch.ones(N, dtype=torch.bool),
        "flipped": torch.zeros(2, N, dtype=torch.bool),
        "linear/least": torch.ones(Q, N, dtype=torch.bool),
    }
    given = {
        name: torch.full((N,), value, dtype=torch.float64) if isinstance(value, float) else value
        for name, value in values.items()
    }
    return Explanation(
        attribution="gradient",
        settings={"mean": [0.1], "objects": "strokes"},
        eps=0.3,
        norm="linf",
        seed=0,
        model=f"model {seed}",
        data="images",
        ids=torch.arange(N) + 1000,
        labels=labels,
        predictions=predictions,
        values=draws | outcomes | plain | given,
        gate=torch.full((3, N), 0.1, dtype=torch.float64),
        notes=(),
        seconds=1.0,
        batch_size=64,
    )


def explain_by_hand(
    run: Path, *, samples: int = 120, wrong: int = 4, mass: float | None = None, eps: float = 0.1, draw: int = 0
) -> dict[str, Tensor]:
    """Gives a run folder an explanation that nothing was measured for: values drawn by a generator of its own.

    Args:
        run: the run folder.
        samples: the first images of the test split.
        wrong: how many of them, the first, the model is said to get wrong.
        mass: about which the mass on the object lies; without it, it is not known where the object is.
        eps: at which it is said to be attacked.
        draw: of the values.

    Returns:
        The values.
    """

    generator = torch.Generator().manual_seed(draw)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, samples, generator=generator, dtype=torch.float64)

    values = {name: uniform() for name in ("norm", "sparseness", "sensitivity", "alignment")}
    values |= {name: uniform(2) for name in ("rank", "overlap", "cosine")}
    values |= {"flipped": torch.stack([uniform() < 0.01, uniform() < 0.6]), "between": 0.1 * uniform(3)}
    shares = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)[:, None]
    for name, steep in (("mean/top", 2.5), ("noise/top", 3.0), ("linear/top", 2.0), ("linear/least", 0.5)):
        values[name] = uniform(9) > steep * shares.clamp(max=0.3) + 0.1 * shares
    for name in ("mean/random", "noise/random"):
        values[name] = uniform(5, 9) > 0.8 * shares
    if mass is not None:
        values |= {"mass": mass + 0.1 * (uniform() - 0.5), "area": torch.full((samples,), 0.3, dtype=torch.float64)}
    labels = torch.arange(samples) % 10
    predictions = (labels + (torch.arange(samples) < wrong).long()) % 10
    found = Explanation(
        attribution="gradient",
        settings={"method": "gradient", "objects": "" if mass is None else "strokes"},
        eps=eps,
        norm="linf",
        seed=0,
        model=digest_tensors(read_tensors(run / "model.safetensors")[0]),
        data=f"{samples} images",
        ids=torch.arange(samples),
        labels=labels,
        predictions=predictions,
        values=values | {"finite": torch.ones(samples, dtype=torch.bool)},
        gate=0.2 * uniform(3),
        notes=(),
        seconds=1.0,
        batch_size=64,
    )
    write_explanation(run / "explanation" / "gradient", found)
    return values
