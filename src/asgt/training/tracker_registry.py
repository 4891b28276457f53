"""The trackers that a training can log to, by name. Nothing is imported here."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ..errors import InputError, shown, unknown

__all__ = ["TRACKERS", "check_installed", "trackers_help", "trackers_text"]

TRACKERS: dict[str, str] = {
    "tensorboard": "files in the run folder",
    "mlflow": "where MLFLOW_TRACKING_URI says, by default on this machine",
    "trackio": "on this machine, or a Space where TRACKIO_SPACE_ID names one",
    "wandb": "the service wandb.ai, or files with WANDB_MODE=offline",
}
"""The names, which are those of accelerate, of the packages and of the extras; and where the numbers go."""


def trackers_text(value: Any) -> str:
    """Names of trackers as ``config.yaml`` has them: separated by commas, each once, in the order given.

    Args:
        value: a text of names separated by commas, or a list of names.

    Raises:
        InputError: there is no such tracker, or none is named.
    """

    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise InputError(f"tracker = {shown(value)}: names are needed, as tensorboard or tensorboard,mlflow")
    plain = [name.strip() for name in names]
    for name in plain:
        if not name:
            raise InputError(f"tracker = {shown(value)}: a name is missing, as tensorboard or tensorboard,mlflow")
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
    return ",".join(dict.fromkeys(plain))


def check_installed(name: str) -> None:
    """Refuses a tracker whose package is not here.

    Raises:
        InputError: it names the extra.
    """

    spec = find_spec(name)
    # A folder of that name, as wandb leaves one where it ran, is found too, but has no file.
    if spec is None or spec.origin is None:
        raise InputError(f"tracker {name} needs its package: pip install 'asgt[{name}]'")


def trackers_help() -> str:
    """The names, for a help text."""

    return ", ".join(TRACKERS)
