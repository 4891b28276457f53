"""The metrics of a method's trainings by epoch: the mean over its runs."""

from __future__ import annotations

import math

from ..errors import DamagedFileError
from ..statistics import Estimate, spread
from ..training.run_folder import RunFolder
from .method_naming import Method

__all__ = ["epochs_of"]


def epochs_of(method: Method, key: str, scale: float = 1.0) -> tuple[Estimate, ...]:
    """A number of ``metrics.jsonl`` in each epoch, over the runs of a method.

    Args:
        method: with runs of equally many epochs.
        key: the name of the number.
        scale: its factor: 100 for percent.


    Returns:
        An estimate for each epoch: the mean ± one standard deviation; without an interval for one run. Empty if an
        epoch of a run lacks it.

    Raises:
        DamagedFileError: it is not a finite number in some epoch.
    """

    if not all(key in row for run in method.runs for row in run.history):
        return ()
    for run in method.runs:
        if not all(isinstance(row[key], int | float) and math.isfinite(row[key]) for row in run.history):
            raise DamagedFileError(f"{RunFolder(run.folder).metrics} is damaged: {key} of some epoch is not a number")
    return tuple(
        _estimate(tuple(scale * run.history[epoch][key] for run in method.runs))
        for epoch in range(len(method.runs[0].history))
    )


def _estimate(values: tuple[float, ...]) -> Estimate:
    if len(values) == 1:
        return Estimate(values[0], values[0], values[0], 1, "none", values)
    mean, sd = spread(values)
    return Estimate(mean, mean - sd, mean + sd, len(values), "sd", values, sd=sd)
