"""Trackers: the numbers of a training, through accelerate, beside the run folder.

The run folder holds everything; a tracker is a view of it. So a tracker that cannot begin is refused before the first
step, and one that fails later is no longer used, with one warning: no training is lost for it.

A resumed run continues the same run of the tracker. ``tracking.json`` holds its name there. The file is
no evidence, and no manifest lists it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Real
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from ..errors import InputError
from ..files import read_sealed, write_sealed
from ..progress import Progress
from .config import TrainConfig
from .run_folder import RunFolder
from .tracker_registry import check_installed

__all__ = ["PROJECT", "Guarded", "begin_trackers", "close_trackers", "log_afterwards", "measured_numbers"]

PROJECT = "asgt"
"""What the project or experiment is called, unless an environment variable of the tracker says so."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Guarded(GeneralTracker):  # type: ignore[misc]
    """A tracker of accelerate that cannot take the training down with it.

    Args:
        name: the tracker, of :data:`asgt.training.tracker_registry.TRACKERS`.
        folder: the run folder.
        progress: is warned if the tracker fails.
    """

    requires_logging_directory = False

    def __init__(self, name: str, folder: RunFolder, progress: Progress) -> None:
        check_installed(name)
        self.name, self.folder, self.progress = name, folder, progress
        self.step, self.known, self.settings = 0, "", dict[str, Any]()
        self.inner: Any = None
        super().__init__()

    @property
    def tracker(self) -> Any:
        return None if self.inner is None else self.inner.tracker

    @property
    def run(self) -> str:
        """What the run is called in the tracker; empty where files in the run folder are all that there is."""

        if self.name == "mlflow" and self.tracker is not None:
            return str(self.tracker.info.run_id)
        return self.known

    def goes_on(self, step: int, known: str, settings: Mapping[str, Any]) -> None:
        """Says from where the run continues.

        Args:
            step: the steps that were taken; zero for a new run.
            known: what the run is called in the tracker already; empty where that is not known.
            settings: of the run. Plain ones, as :func:`_plain` has them.
        """

        self.step, self.known, self.settings = step, known, dict(settings)

    def start(self) -> None:
        """Begins the run, or takes it up.

        Raises:
            InputError: the tracker says no.
        """

        # TensorBoard knows a run by its folder.
        self.is_new = not (self.known or (self.step and self.name == "tensorboard"))
        try:
            self.inner = self._made()
            self.inner.start()
        except Exception as error:  # whatever another package raises
            self.inner = None
            told = f"tracker {self.name} cannot begin: {_first_line(error)}"
            raise InputError(f"{told}; omit {self.name} to train without it") from error

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        # Some trackers refuse a parameter that has another value than before.
        if self.is_new:
            self._guarded("store_init_configuration", values)

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._guarded("log", values, step=step, **kwargs)

    def finish(self) -> None:
        self._guarded("finish")
        self.inner = None

    def _made(self) -> Any:
        """The tracker of accelerate."""

        kind, title = LOGGER_TYPE_TO_CLASS[self.name], self.folder.path.absolute().name
        match self.name:
            case "tensorboard":
                # What was logged after the checkpoint is logged again.
                purged = {"purge_step": self.step + 1} if self.step else {}
                return kind("tensorboard", str(self.folder.path), **purged)
            case "mlflow":
                return kind(PROJECT, run_id=self.known or None, run_name=title)
            case "trackio":
                self.known = self.known or f"{title}-{secrets.token_hex(4)}"
                # A run that is taken up without its settings loses them.
                project = os.environ.get("TRACKIO_PROJECT", PROJECT)
                return kind(project, name=self.known, resume="allow", config=self.settings)
            case _:
                self.known = self.known or secrets.token_hex(8)
                project, place = os.environ.get("WANDB_PROJECT", PROJECT), str(self.folder.path)
                return kind(project, id=self.known, name=title, dir=place, resume="allow")

    def _guarded(self, call: str, *args: Any, **kwargs: Any) -> None:
        if self.inner is None:
            return
        try:
            getattr(self.inner, call)(*args, **kwargs)
        except Exception as error:  # no network, a full disk, …
            self.inner = None
            self.progress.warn(f"tracker {self.name} failed ({_first_line(error)}): the training continues without it")


def begin_trackers(accelerator: Accelerator, folder: RunFolder, parameters: Mapping[str, Any], step: int) -> None:
    """Begins the trackers of an accelerator, on the main process.

    Args:
        accelerator: whose ``log_with`` are :class:`Guarded`.
        folder: the run folder.
        parameters: the settings of the run; those that are not set are omitted.
        step: the steps that were taken already; zero for a new run.

    Raises:
        InputError: a tracker cannot begin.
    """

    known = _known(folder) if step else {}
    plain = _plain(parameters)
    for tracker in accelerator.log_with:
        tracker.goes_on(step, known.get(tracker.name, ""), plain)
    accelerator.init_trackers(PROJECT, config=plain)
    if runs := {tracker.name: tracker.run for tracker in accelerator.trackers if tracker.run}:
        write_sealed(folder.tracking, known | runs)


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as trackers take them: those that are set, as numbers and texts."""

    return {
        name: value if isinstance(value, (bool, int, float, str)) else str(value)
        for name, value in settings.items()
        if value is not None
    }


def log_afterwards(folder: RunFolder, names: Sequence[str], values: Mapping[str, float], progress: Progress) -> None:
    """Logs numbers of a finished training to the run of each tracker, at its last step; a failure is a warning.

    Args:
        folder: the run folder.
        names: the trackers. One that does not know the run is omitted.
        values: the numbers by name.
        progress: is warned.
    """

    known, rows = _known(folder), folder.rows()
    step = int(rows[-1]["step"]) if rows else 0
    for name in names:
        if name != "tensorboard" and name not in known:
            continue
        try:
            tracker = Guarded(name, folder, progress)
            tracker.goes_on(step, known.get(name, ""), _plain(TrainConfig.load(folder.config).to_dict()))
            tracker.start()
        except InputError as error:
            progress.warn(str(error))
            continue
        tracker.log(dict(values), step=step)
        tracker.finish()


def close_trackers(accelerator: Accelerator) -> None:
    """Ends the runs of trackers that are still open, however the training ended."""

    for tracker in accelerator.trackers:
        tracker.finish()


def measured_numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a line of ``metrics.jsonl``: truths as 0 and 1, those of an inner mapping as ``name/inner``."""

    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}/{inner}": number for inner, number in measured_numbers(value).items()}
        elif isinstance(value, Real) and name != "step":
            numbers[name] = float(value)
    return numbers


def _known(folder: RunFolder) -> dict[str, str]:
    """What the run is called in each tracker, as far as the run folder tells."""

    with suppress(InputError, AttributeError):
        told = read_sealed(folder.tracking)[0]
        return {name: run for name, run in told.items() if isinstance(run, str) and _ID.fullmatch(run)}
    return {}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
