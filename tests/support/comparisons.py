"""Runs made by hand, for comparisons whose numbers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asgt.comparison.comparing import Column, Comparison, Method
from asgt.evaluation.check import Check
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import KNOWN
from asgt.runs.run import Run
from asgt.training.config import TrainConfig
from asgt.training.run_folder import TrainResult


def hand_made(
    *,
    seed: int = 0,
    samples: int = 100,
    clean: int = 90,
    right: dict[str, dict[float, int]],
    folder: str = "runs/x",
    warnings: tuple[str, ...] = (),
    checks: tuple[Check, ...] = (),
    **settings: Any,
) -> Run:
    """A run with so many samples right under each attack of ``right`` at each ε."""

    def first(count: int) -> Tensor:
        return torch.arange(samples) < count

    evaluations = {}
    for key, protocol in KNOWN.items():
        outcomes = {
            name: torch.stack([first(count) for count in counts.values()])
            for name, counts in right.items()
            if name in [search.name for search in protocol.searches]
        }
        if outcomes:
            grid = tuple(next(counts for name, counts in right.items() if name in outcomes))
            evaluations[key] = Evaluation(
                protocol=protocol,
                norm="linf",
                epsilons=grid,
                seed=0,
                model="m",
                data="d",
                classes=10,
                clean=first(clean),
                outcomes=outcomes,
                checks=checks,
            )

    config = TrainConfig(seed=seed, **settings).resolved()
    result = TrainResult(
        folder=folder,
        epochs=config.epochs,
        chosen_epoch=0,
        chosen_by="last epoch",
        validation={},
        validation_images=1,
        eps=config.eps,
        norm=config.norm or "linf",
        collapsed=False,
        catastrophic_overfitting=False,
        warnings=list(warnings),
        classes=["0", "1"],
        shape=[1, 8, 8],
        train_data="t",
        test_data="d",
        seconds=1.0,
    )
    return Run(Path(folder), config, result, (), evaluations)


def side_by_side(*methods: Method, epsilons: dict[str, tuple[float, ...]]) -> Comparison:
    """A comparison of these methods, with every column of the protocols whose keys ``epsilons`` has."""

    columns = tuple(
        Column(protocol.name, protocol.version, "", search.name, search.title, search.reach)
        for protocol in (KNOWN[key] for key in epsilons)
        for search in protocol.searches
    )
    return Comparison(methods, columns, epsilons, "linf", dict.fromkeys(epsilons, 100), "digits", ("0", "1"), ())
