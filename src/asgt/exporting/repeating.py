"""The commands that repeat a run: its settings as flags, with names instead of this machine's paths."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..datasets import data_set
from ..errors import InputError
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import OWN
from ..names import OBJECT, short_name
from ..runs.run import Run, data_name
from ..training.config import MAY_CHANGE, TrainConfig, flag_of
from .markdown import last_part, without_places

__all__ = [
    "command",
    "data_on_hub",
    "data_title",
    "evaluate_words",
    "model_title",
    "passed_objects",
    "places_of",
    "settings_of",
    "train_words",
]

_FIRST = ("data", "model", "method", "attack")
_FILES = ("weights", "from_run")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def settings_of(run: Run) -> dict[str, Any]:
    """The given settings of a training, by name.

    Paths are reduced to their last part, and execution settings such as the device are omitted.
    """

    config = run.config
    told = {name: value for name, value in config.to_dict().items() if value is not None and value is not False}
    told |= {"data": data_title(run)} | {name: last_part(told[name]) for name in _FILES if name in told}
    told["model"] = model_title(config.model)
    shown = {name: without_places(value) if isinstance(value, str) else value for name, value in told.items()}
    return {name: value for name, value in shown.items() if name not in ("device", *MAY_CHANGE)}


def data_title(run: Run) -> str:
    """The name of a run's data: a short name, an id of the hub, or the last part of a path."""

    data, place = run.config.data, str(run.result.reading.get("place", ""))
    if data.startswith(OBJECT) or data_set(data).hub is not None or data_set(data).loader is not None:
        return short_name(data)
    return last_part(data) if os.path.isabs(place) else last_part(data_name(run)) if not place else data


def data_on_hub(run: Run) -> str:
    """The id of a run's data on the hub; ``""`` if unknown."""

    data, place = run.config.data, run.result.reading.get("place", "")
    return data_set(data).hub or (data if place == data and _HUB_ID.fullmatch(data) else "")


def model_title(model: str) -> str:
    """The name of an architecture: of a folder of transformers, its last part."""

    if not model.startswith("hf:"):
        return model
    name = model.removeprefix("hf:")
    is_folder = Path(name).is_dir() or name.startswith((".", "/", "~")) or name.count("/") > 1
    return f"hf:{last_part(name) if is_folder else name}"


def places_of(run: Run) -> list[str]:
    """The paths in a run, the longest first, which are private to this machine."""

    config = run.config
    known = [config.data, config.weights, config.from_run, run.result.reading.get("place"), str(run.folder)]
    known += [os.path.abspath(run.folder), os.getcwd(), os.path.expanduser("~")]
    known += [str(run.result.start.get("weights", "")), config.model.removeprefix("hf:")]
    return sorted({str(each).rstrip("/") for each in known if each and os.sep in str(each).strip("/")}, key=len)[::-1]


def _unusual(run: Run) -> dict[str, Any]:
    """Those of the settings that are not the defaults of the data, the model and the method, which lead the others."""

    values = run.config.to_dict()
    named = {name: values[name] for name in _FIRST if values.get(name) is not None}
    try:
        usual = TrainConfig.of(named).resolved().to_dict()
    except InputError:  # a method that needs a value, or other people's code
        usual = {}
    told = settings_of(run)
    first = {name: told[name] for name in (*_FIRST, "seed") if name in told}
    return first | {name: told[name] for name in told if name not in usual or values[name] != usual[name]}


def passed_objects(run: Run) -> list[str]:
    """The objects that were passed to a training in Python, which no command can repeat: ``model``, ``method``, …"""

    config = run.config
    return [name for name in ("data", "model", "method") if getattr(config, name).startswith(OBJECT)]


def train_words(run: Run, out: str) -> list[str]:
    """The command that trains the run again, as arguments; empty if an object was passed to it."""

    if passed_objects(run):
        return []
    words = ["asgt", "train"]
    for name, value in _unusual(run).items():
        words += [flag_of(name)] if value is True else [flag_of(name), _text(value)]
    return [*words, "--out", out]


def evaluate_words(evaluation: Evaluation, subject: Sequence[str]) -> list[str]:
    """The command that evaluates by the same protocol, on the same number of images.

    Args:
        evaluation: what is repeated.
        subject: the arguments that name the model and the data.
    """

    protocol = evaluation.protocol
    named = ["--protocol", f"{protocol.name}@{protocol.version}"]
    if protocol.name == OWN or not protocol.is_house:
        named = ["--attack", "MODULE:CLASS"]
    elif protocol.key == "standard-quick":
        named = ["--protocol", "standard", "--quick"]
    words = ["asgt", "evaluate", *subject, *named, "--norm", evaluation.norm]
    words += ["--epsilons", ",".join(map(repr, evaluation.epsilons)), "--samples", str(evaluation.samples)]
    words += ["--exhaustive"] if evaluation.exhaustive else []
    return [*words, "--seed", str(evaluation.seed)]


def command(words: Sequence[str]) -> str:
    """Arguments quoted for a shell."""

    return shlex.join(words)


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
