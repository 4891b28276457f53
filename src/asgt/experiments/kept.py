"""What is kept of a run: one file of text, small enough for a repository, from which every figure can be made again.

It holds what was asked, how the training went, of each evaluation its definition, its checks and, bit by bit, which
images stay right at each ε, and of each explanation what was measured of each image, to seven digits. The weights are
not in it; their SHA-256 is.
"""

from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import DamagedFileError, InputError
from ..evaluation.checks import Check
from ..evaluation.protocols import PROTOCOLS, protocol_named
from ..evaluation.result import Evaluation, checked_grid
from ..explanation import Explanation
from ..files import read_json, write_bytes, write_json
from ..report import Comparison, Run
from ..report.comparison import compare_runs, data_name
from ..training.config import MAY_CHANGE, TrainConfig
from ..training.run import RunFolder, TrainResult
from .job import Job

__all__ = ["SCHEMA", "is_kept", "keep_picture", "keep_run", "load_kept", "load_results"]

SCHEMA = 1

_SAID = ("cost", "first_to_break", "versions")
"""What a result says of its evidence that the outcomes alone do not: kept as it stands."""

_PLAIN = ("attribution", "settings", "eps", "norm", "seed", "model", "data", "seconds", "batch_size")
_TENSORS = ("ids", "labels", "predictions", "gate")
_STORED = {"float": "<f4", "int": "<i4"}
_MEANT = {"float": np.float64, "int": np.int64}


def keep_run(run: Run, file: Path) -> None:
    """Writes what is to be kept of a run that was read from its folder, whole or not at all."""

    write_json(
        file,
        {
            "schema": SCHEMA,
            # The path of the data is its place on one machine.
            "config": run.config.to_dict() | {"data": data_name(run)},
            "training": {name: value for name, value in run.result.to_dict().items() if name != "folder"},
            "history": list(run.history),
            "evaluations": {
                name: _packed_evaluation(found) | _said(RunFolder(run.folder).evaluation(name))
                for name, found in run.evaluations.items()
            },
            "explanations": {name: _packed_explanation(found) for name, found in run.explanations.items()},
        },
    )


def keep_picture(picture: Path, file: Path) -> None:
    """Writes a picture with 256 colours, which takes a third of the bytes and shows the same."""

    from PIL import Image

    small = io.BytesIO()
    with Image.open(picture) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    write_bytes(file, small.getvalue())


def load_kept(file: Path) -> Run:
    """Reads what :func:`keep_run` wrote.

    Raises:
        InputError: there is no such file, or another version wrote it or evaluated the run.
        DamagedFileError: it is not what :func:`keep_run` wrote.
    """

    kept = read_json(file)
    try:
        if kept["schema"] != SCHEMA:
            raise InputError(f"{file} has schema {kept['schema']!r}, this version of asgt reads {SCHEMA}")
        config = TrainConfig.from_dict(kept["config"], str(file))
        result = TrainResult(folder=str(file), **kept["training"])
        evaluations = {name: _evaluation(name, values, file) for name, values in kept["evaluations"].items()}
        explanations = {name: _explanation(values, file) for name, values in kept["explanations"].items()}
        return Run(file, config, result, tuple(kept["history"]), evaluations, explanations)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{file} is damaged: it is not what is kept of a run") from error


def is_kept(job: Job) -> bool:
    """Whether a job's file keeps what the job asks for, so that it need not be done again.

    Raises:
        InputError: the file is of another job.
        DamagedFileError: it is damaged.
    """

    if job.keep is None or not (file := Path(job.keep)).exists():
        return False
    run = load_kept(file)
    kept, asked = run.config.to_dict(), job.config.to_dict()
    # The data may lie, and the device be, elsewhere.
    if any(kept[name] != asked[name] for name in asked if name not in (*MAY_CHANGE, "data", "device")):
        raise InputError(f"{file} keeps a run with other settings: name another folder for what is kept")

    def as_many(samples: int, wanted: int | None) -> bool:
        # Drawn class by class they come to a few more or less.
        return wanted is None or abs(samples - wanted) <= len(run.result.classes)

    found = [run.evaluations.get(protocol) for protocol in job.protocols]
    explained = [run.explanations.get(name) for name in job.attributions]
    return all(
        one is not None and (one.epsilons, one.norm) == (job.epsilons, job.norm) and as_many(one.samples, job.samples)
        for one in found
    ) and all(one is not None and one.eps == job.eps and as_many(one.samples, job.explained) for one in explained)


def load_results(folder: Path) -> Comparison:
    """The runs kept in a folder, side by side.

    Raises:
        InputError: the folder holds none, or they cannot stand in one table.
        DamagedFileError: a file of it is damaged.
    """

    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{folder} holds no kept runs: asgt reproduce … --keep {folder.parent} writes them")
    return compare_runs([load_kept(file) for file in files])


def _packed_evaluation(found: Evaluation) -> dict[str, Any]:
    return {
        "version": found.protocol.version,
        "norm": found.norm,
        "epsilons": list(found.epsilons),
        "seed": found.seed,
        "model": found.model,
        "data": found.data,
        "classes": found.classes,
        "samples": found.samples,
        "exhaustive": found.exhaustive,
        "votes": found.votes,
        "clean": _packed(found.clean),
        "outcomes": {search: [_packed(row) for row in rows] for search, rows in found.outcomes.items()},
        "checks": [check.to_dict() for check in found.checks],
        "seconds": found.seconds,
    }


def _said(folder: Path) -> dict[str, Any]:
    result = read_json(folder / "result.json")
    return {name: result[name] for name in _SAID}


def _evaluation(name: str, values: dict[str, Any], file: Path) -> Evaluation:
    known = PROTOCOLS.get(name)
    if known is None or known.version != values["version"]:
        here = "none of that name" if known is None else f"v{known.version}"
        raise InputError(f"{file} was made by protocol {name} v{values['version']}, this version of asgt knows {here}")

    samples = values["samples"]
    protocol = protocol_named(name, values["norm"])
    found = Evaluation(
        protocol,
        values["norm"],
        checked_grid(values["epsilons"], values["norm"]),
        values["seed"],
        values["model"],
        values["data"],
        values["classes"],
        _unpacked(values["clean"], samples, file),
        {},
        values["exhaustive"],
        values["votes"],
        details={search.name: {} for search in protocol.searches},
        checks=tuple(_check(check, file) for check in values["checks"]),
        seconds=values["seconds"],
    )
    outcomes = {}
    for search in protocol.searches:
        rows = values["outcomes"][search.name]
        if len(rows) != len(found.epsilons):
            raise DamagedFileError(f"{file} is damaged: {search.name} lacks the outcomes at some eps")
        outcomes[search.name] = torch.stack([_unpacked(row, samples, file) for row in rows])
    return replace(found, outcomes=outcomes)


def _check(values: Any, file: Path) -> Check:
    try:
        return Check.from_dict(values)
    except ValueError as error:
        raise DamagedFileError(f"{file} is damaged: {error}") from error


def _packed_explanation(found: Explanation) -> dict[str, Any]:
    tensors = {name: getattr(found, name) for name in _TENSORS} | {f"values/{n}": t for n, t in found.values.items()}
    return {name: getattr(found, name) for name in _PLAIN} | {
        "notes": list(found.notes),
        "tensors": {
            name: {"shape": list(t.shape), "kind": _kind(t), "data": _packed(t)} for name, t in tensors.items()
        },
    }


def _explanation(values: dict[str, Any], file: Path) -> Explanation:
    tensors = {
        name: _unpacked(told["data"], math.prod(told["shape"]), file, told["kind"]).reshape(told["shape"])
        for name, told in values["tensors"].items()
    }
    plain: dict[str, Any] = {name: values[name] for name in _PLAIN}
    plain |= {name: tensors[name] for name in _TENSORS}
    return Explanation(
        **plain,
        values={name.removeprefix("values/"): tensors[name] for name in tensors if name.startswith("values/")},
        notes=tuple(values["notes"]),
    )


def _kind(tensor: Tensor) -> str:
    return "bool" if tensor.dtype == torch.bool else "float" if tensor.is_floating_point() else "int"


def _packed(tensor: Tensor) -> str:
    """Eight outcomes a byte, numbers in four bytes, in base64."""

    array = tensor.numpy().ravel()
    content = np.packbits(array) if tensor.dtype == torch.bool else array.astype(_STORED[_kind(tensor)])
    return base64.b64encode(content.tobytes()).decode()


def _unpacked(text: str, count: int, file: Path, kind: str = "bool") -> Tensor:
    """So many outcomes, bool (N,), or numbers, float64 or int64."""

    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DamagedFileError(f"{file} is damaged: {error}") from error
    if len(content) != (-(-count // 8) if kind == "bool" else 4 * count):
        raise DamagedFileError(f"{file} is damaged: it does not hold what it should of {count} samples")
    if kind == "bool":
        return torch.from_numpy(np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=count).astype(bool))
    return torch.from_numpy(np.frombuffer(content, dtype=_STORED[kind]).astype(_MEANT[kind]))
