"""Saved results of runs: one small text file per run, from which every figure can be made again.

It holds the settings, how the training went, of each evaluation, on each of the test sets of a planted shortcut, its
definition, its checks and, bit by bit, which images stay right at each ε, and of each explanation what was measured of
each image, to seven digits; of the runs that a grid's picture shows, its images and their maps as well. The weights are
not in it; their SHA-256 is.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import to_unit
from ..errors import DamagedFileError, InputError, cut, shown
from ..evaluation.check import Check
from ..evaluation.discard_audit import Discards
from ..evaluation.outcomes import CODES, Evaluation, checked_grid
from ..evaluation.protocols import KNOWN, PhasedSearch, Protocol, known_version, known_versions
from ..explanation import Explanation
from ..explanation.shown_maps import MapColumn, SaliencyMaps
from ..files import digest, read_sealed, write_sealed
from ..manifest import UNVERIFIED
from ..shortcuts import VIEWS
from ..training.config import TrainConfig
from ..training.run_folder import RunFolder, TrainResult
from .run import Run, data_name

__all__ = [
    "SCHEMA",
    "changed_parts",
    "keep_run",
    "load_kept",
    "load_maps",
    "of_other_versions",
    "read_kept",
    "without_digest",
]

SCHEMA = 2
"""Files of schema 1 have no digest: they are unverified."""

_PARTS = ("evaluations", "explanations")
_OWN = "sha256"
"""The key of the digest of an evaluation or an explanation, which is valid even if other settings are edited.

Files from before this digest lack it.
"""

_SAID = ("cost", "first_to_break", "versions")
"""The fields of a result that do not follow from the outcomes: saved unchanged."""

_PLAIN = ("attribution", "settings", "eps", "norm", "seed", "model", "data", "seconds", "batch_size")
_TENSORS = ("ids", "labels", "predictions", "gate")
_COLUMN = ("explained", "predictions", "maps", "attacked", "attacked_predictions", "attacked_maps")
_STORED = {"float": "<f4", "half": "<f2", "int": "<i4", "byte": "u1"}
_MEANT = {"float": np.float64, "half": np.float32, "int": np.int64, "byte": np.uint8}


def keep_run(run: Run, file: Path, maps: SaliencyMaps | None = None) -> None:
    """Writes the saved result of a run, atomically.

    Args:
        run: the run.
        file: the path.
        maps: its model's column of the figure.
    """

    training = {name: value for name, value in run.result.to_dict().items() if name not in ("folder", "reading")}
    start = training.get("start")
    write_sealed(
        file,
        {
            "schema": SCHEMA,
            "config": run.config.to_dict() | _names(run.config.to_dict()) | {"data": data_name(run)},
            "training": training | ({"start": _start_without_paths(start)} if start else {}),
            "history": list(run.history),
            "evaluations": {
                name: _with_digest(name, _packed_evaluation(evaluation) | _said(RunFolder(run.folder).evaluation(name)))
                for by_key in (run.evaluations, *run.views.values())
                for key, evaluation in by_key.items()
                if key in KNOWN  # what attacks of one's own found, only their code can repeat
                for name in [_name_of(evaluation.protocol, evaluation.shortcut_view)]
            },
            "explanations": {
                name: _with_digest(name, _packed_explanation(explanation))
                for name, explanation in run.explanations.items()
            },
        }
        | ({"remarks": list(run.remarks)} if run.remarks else {})
        | ({} if maps is None else {"maps": _packed_maps(maps)}),
    )


def _start_without_paths(start: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a training started from, as :class:`asgt.training.starting.Start` has it, with names for places."""

    if not start:
        return {}
    told = dict(start) | {"weights": Path(start.get("weights", "")).name}
    if source := told.get("source"):
        config = source.get("config", {})
        told["source"] = {"config": config | _names(config), "start": _start_without_paths(source.get("start"))}
    return told


def _names(settings: Mapping[str, Any]) -> dict[str, str]:
    """The settings that are places on one machine, by their last part."""

    names = {name: Path(place).name for name in ("weights", "from_run") if (place := settings.get(name))}
    for name, lead in (("data", ""), ("model", "hf:")):
        place = str(settings.get(name, ""))
        if not place.startswith(lead):
            continue
        place = place.removeprefix(lead)
        if Path(place).is_dir() or place.startswith((".", "/", "~")):
            names[name] = f"{lead}{Path(place).name or place}"
    return names


def load_kept(file: Path) -> Run:
    """Reads a file of :func:`keep_run`.

    Raises:
        InputError: the file does not exist, or another version wrote it or evaluated the run.
        DamagedFileError: it is not a file of :func:`keep_run`.
    """

    kept, sealed = read_sealed(file)
    return read_kept(kept, file, sealed=sealed)


def read_kept(kept: Any, file: Path, *, sealed: bool) -> Run:
    """Turns the values of a saved result into a run.

    Args:
        kept: the values, without the digest of the file.
        file: their file, for errors.
        sealed: whether the file has a digest.


    Raises:
        InputError, DamagedFileError: as :func:`load_kept`.
    """

    try:
        if kept["schema"] not in (1, SCHEMA):
            raise InputError(
                f"{file} has schema {kept['schema']!r}, but this version of asgt reads 1 and {SCHEMA}: save "
                "the run again"
            )
        if kept["schema"] == SCHEMA and not sealed:
            raise DamagedFileError(f"{file} is damaged: it has no digest: save the run again")
        config = TrainConfig.from_dict(kept["config"], str(file))
        result = TrainResult(folder=str(file), **kept["training"])
        read = [_evaluation(name, values, file) for name, values in kept["evaluations"].items()]
        found: dict[str, dict[str, Evaluation]] = {"": {}}
        for evaluation in read:
            found.setdefault(evaluation.shortcut_view, {})[evaluation.protocol.key] = evaluation
        explanations = {name: _explanation(values, file) for name, values in kept["explanations"].items()}
        if changed := changed_parts(kept):
            raise DamagedFileError(f"{file} is damaged: {changed[0]} does not match its SHA-256")
        remarks = kept.get("remarks", ()) if sealed else (f"{UNVERIFIED}: no digest is stored in the saved result",)
        history = tuple(kept["history"])
        evaluations = found.pop("")
        return Run(file, config, result, history, evaluations, explanations, tuple(map(str, remarks)), views=found)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{file} is damaged: it is not a saved run: save the run again") from error


def changed_parts(kept: Any) -> list[str]:
    """The evaluations and explanations in the values of a saved result that do not match their own digest."""

    return [
        f"{part[:-1]} {name}"
        for part, name, values in _parts(kept)
        if _OWN in values and values[_OWN] != _own_digest(name, values)
    ]


def without_digest(kept: Any) -> list[str]:
    """The evaluations and explanations in the values of a saved result without their own digest."""

    return [f"{part[:-1]} {name}" for part, name, values in _parts(kept) if _OWN not in values]


def of_other_versions(kept: Any) -> list[str]:
    """The evaluations in the values of a saved result that this version of asgt does not read, by their names there."""

    return [
        name
        for part, name, values in _parts(kept)
        if part == "evaluations"
        and not any(values.get("version", known.version) == known.version for known in known_versions(_plain(name)))
    ]


def _name_of(protocol: Protocol, shortcut_view: str) -> str:
    """What a saved result calls an evaluation: as its folder in a run is called."""

    return RunFolder("").evaluation(protocol.stored_as, shortcut_view).name


def _plain(stored_as: str) -> str:
    """The name of a protocol, of what files call an evaluation by it."""

    return stored_as.partition("+")[0].partition("@")[0]


def _parts(kept: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The kind, the name and the values of each evaluation and explanation; what has another form is left out."""

    for part in _PARTS:
        values = kept.get(part) if isinstance(kept, dict) else None
        if isinstance(values, dict):
            yield from ((part, name, each) for name, each in values.items() if isinstance(each, dict))


def _with_digest(name: str, packed: dict[str, Any]) -> dict[str, Any]:
    return packed | {_OWN: _own_digest(name, packed)}


def _own_digest(name: str, packed: Mapping[str, Any]) -> str:
    """The SHA-256 of a packed evaluation or explanation and its name, in canonical JSON."""

    # Twice: only what was read back has the keys, and the lists, that a reader of the file has.
    values = json.loads(json.dumps({key: value for key, value in packed.items() if key != _OWN}))
    return digest(json.dumps([name, values], sort_keys=True, separators=(",", ":")).encode())


def load_maps(file: Path) -> SaliencyMaps | None:
    """The column of the figure in a file of :func:`keep_run`; ``None`` if the run has none.

    Raises:
        InputError: the file does not exist.
        DamagedFileError: it is not a file of :func:`keep_run`.

    """

    kept = read_sealed(file)[0]
    try:
        return _maps(kept["maps"], file) if "maps" in kept else None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{file} is damaged: it is not a saved run: save the run again") from error


def _packed_evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "version": evaluation.protocol.version,
        "norm": evaluation.norm,
        "epsilons": list(evaluation.epsilons),
        "seed": evaluation.seed,
        "model": evaluation.model,
        "data": evaluation.data,
        "classes": evaluation.classes,
        "samples": evaluation.samples,
        "exhaustive": evaluation.exhaustive,
        "votes": evaluation.votes,
        "clean": _packed(evaluation.clean),
        "outcomes": {search: [_packed(row) for row in rows] for search, rows in evaluation.outcomes.items()},
        **_packed_labels(evaluation),
        **_packed_view(evaluation),
        "checks": [check.to_dict() for check in evaluation.checks],
        "seconds": dict(evaluation.seconds),
        **(
            {"discards": {name: each.to_dict() for name, each in evaluation.discards.items()}}
            if evaluation.discards
            else {}
        ),
    }


def _packed_labels(evaluation: Evaluation) -> dict[str, Any]:
    """The labels, a byte each where there are few classes, and the classes' names; nothing where they are not known."""

    if (labels := evaluation.labels) is None:
        return {}
    packed = _packed_tensors({"labels": labels.byte() if evaluation.classes <= 256 else labels})
    return packed | {"class_names": list(evaluation.class_names)}


def _packed_view(evaluation: Evaluation) -> dict[str, Any]:
    """The shortcut in the images, and the class whose shortcut each has; nothing where none was planted."""

    codes = evaluation.shortcut_codes
    if codes is not None:
        codes = codes.byte() if evaluation.classes <= 256 else codes
    told = {} if codes is None else _packed_tensors({CODES: codes})
    texts = {"shortcut_view": evaluation.shortcut_view, "shortcut": evaluation.shortcut}
    return told | {name: text for name, text in texts.items() if text}


def _view(values: dict[str, Any], samples: int, file: Path) -> dict[str, Any]:
    """The shortcut in the images, as an evaluation takes it."""

    view, told = str(values.get("shortcut_view", "")), {}
    if view not in ("", *VIEWS):
        raise DamagedFileError(f"{file} is damaged: there is no shortcut view {shown(view)}")
    if CODES in values:
        codes = _unpacked_tensors({CODES: values[CODES]}, file)[CODES].long()
        if tuple(codes.shape) != (samples,) or not 0 <= int(codes.min()) <= int(codes.max()) < values["classes"]:
            raise DamagedFileError(f"{file} is damaged: it does not hold the shortcut of each of {samples} samples")
        told = {CODES: codes}
    return {"shortcut_view": view, "shortcut": str(values.get("shortcut", ""))} | told


def _labels(values: dict[str, Any], samples: int, file: Path) -> dict[str, Any]:
    """The labels and the classes' names, as an evaluation takes them; nothing where the file was saved without."""

    if "labels" not in values:
        return {}
    labels, names = _unpacked_tensors({"labels": values["labels"]}, file)["labels"].long(), values["class_names"]
    if tuple(labels.shape) != (samples,) or not 0 <= int(labels.min()) <= int(labels.max()) < min(
        len(names), values["classes"]
    ):
        raise DamagedFileError(f"{file} is damaged: it lacks labels of its {samples} samples: save the run again")
    return {"labels": labels, "class_names": tuple(map(str, names))}


def _said(folder: Path) -> dict[str, Any]:
    result = read_sealed(folder / "result.json")[0]
    return {name: result[name] for name in _SAID}


def _evaluation(name: str, values: dict[str, Any], file: Path) -> Evaluation:
    version, plain = values["version"], _plain(name)
    if (known := known_version(plain, version)) is None:
        here = " and ".join(f"v{protocol.version}" for protocol in known_versions(plain)) or "none of that name"
        raise InputError(f"{file} was made by protocol {plain} v{version}, this version of asgt knows {here}")
    if name != (called := _name_of(known, str(values.get("shortcut_view", "")))):
        raise DamagedFileError(
            f"{file} is damaged: an evaluation by {plain} v{version} is called {called}, not {cut(name)}"
        )

    samples = values["samples"]
    protocol = known.in_norm(values["norm"])
    epsilons = checked_grid(values["epsilons"], values["norm"])
    outcomes = {}
    for search in protocol.searches:
        rows = values["outcomes"][search.name]
        if len(rows) != len(epsilons):
            raise DamagedFileError(
                f"{file} is damaged: {search.name} lacks the outcomes at some eps: save the run again"
            )
        outcomes[search.name] = torch.stack([_unpacked(row, samples, file) for row in rows])
    return Evaluation(
        protocol=protocol,
        epsilons=epsilons,
        **{name: values[name] for name in ("norm", "seed", "model", "data", "classes", "exhaustive", "votes")},
        clean=_unpacked(values["clean"], samples, file),
        outcomes=outcomes,
        details={search.name: {} for search in protocol.searches},
        checks=tuple(_check(check, file) for check in values["checks"]),
        seconds=values["seconds"],
        **_labels(values, samples, file),
        **_view(values, samples, file),
        # Of a search in phases: without it nobody would know that images were discarded.
        discards={
            search.name: Discards.from_dict(values["discards"][search.name])
            for search in protocol.searches
            if isinstance(search, PhasedSearch)
        },
    )


def _check(values: Any, file: Path) -> Check:
    try:
        return Check.from_dict(values)
    except ValueError as error:
        raise DamagedFileError(f"{file} is damaged: {error}") from error


def _packed_explanation(explanation: Explanation) -> dict[str, Any]:
    tensors = {name: getattr(explanation, name) for name in _TENSORS} | {
        f"values/{n}": t for n, t in explanation.values.items()
    }
    return {name: getattr(explanation, name) for name in _PLAIN} | {
        "notes": list(explanation.notes),
        "tensors": _packed_tensors(tensors),
    }


def _explanation(values: dict[str, Any], file: Path) -> Explanation:
    tensors = _unpacked_tensors(values["tensors"], file)
    plain: dict[str, Any] = {name: values[name] for name in _PLAIN}
    plain |= {name: tensors[name] for name in _TENSORS}
    return Explanation(
        **plain,
        values={name.removeprefix("values/"): tensors[name] for name in tensors if name.startswith("values/")},
        notes=tuple(values["notes"]),
    )


def _packed_maps(maps: SaliencyMaps) -> dict[str, Any]:
    """A picture of one column, as exactly as it is drawn: pixels of 8 bits, maps of 11 bits, each by its own scale."""

    (column,) = maps.columns
    tensors = {"images": maps.images, "labels": maps.labels} | {name: getattr(column, name) for name in _COLUMN}
    for name in ("images", "attacked"):
        if tensors[name] is not None:
            tensors[name] = (tensors[name] * 255).round().byte()
    for name in ("maps", "attacked_maps"):
        if tensors[name] is not None:
            tensors[name] = _by_own_scale(tensors[name]).half()
    return {
        "name": column.name,
        "seed": column.seed,
        "classes": list(maps.classes),
        "attribution": maps.attribution,
        "eps": maps.eps,
        "norm": maps.norm,
        "tensors": _packed_tensors({name: tensor for name, tensor in tensors.items() if tensor is not None}),
    }


def _by_own_scale(maps: Tensor) -> Tensor:
    """Each map over its largest magnitude, which changes nothing that is drawn of it; what is not finite stays so."""

    top = maps.abs().where(maps.isfinite(), 0).amax(dim=(1, 2, 3), keepdim=True)
    return maps / top.where(top > 0, 1)


def _maps(values: dict[str, Any], file: Path) -> SaliencyMaps:
    tensors = _unpacked_tensors(values["tensors"], file)
    for name in ("images", "attacked"):
        if name in tensors:
            tensors[name] = to_unit(tensors[name])
    column = MapColumn(values["name"], values["seed"], **{name: tensors[name] for name in _COLUMN if name in tensors})
    return SaliencyMaps(
        images=tensors["images"],
        labels=tensors.get("labels"),
        classes=tuple(values["classes"]),
        attribution=values["attribution"],
        eps=values["eps"],
        norm=values["norm"],
        columns=(column,),
    )


def _packed_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    return {
        name: {"shape": list(tensor.shape), "kind": _kind(tensor), "data": _packed(tensor)}
        for name, tensor in tensors.items()
    }


def _unpacked_tensors(values: Mapping[str, Any], file: Path) -> dict[str, Tensor]:
    return {
        name: _unpacked(told["data"], math.prod(told["shape"]), file, told["kind"]).reshape(told["shape"])
        for name, told in values.items()
    }


def _kind(tensor: Tensor) -> str:
    kinds = {torch.bool: "bool", torch.uint8: "byte", torch.float16: "half"}
    return kinds.get(tensor.dtype, "float" if tensor.is_floating_point() else "int")


def _packed(tensor: Tensor) -> str:
    """Eight outcomes a byte, numbers in the bytes of their kind, in base64."""

    array = tensor.numpy().ravel()
    content = np.packbits(array) if tensor.dtype == torch.bool else array.astype(_STORED[_kind(tensor)])
    return base64.b64encode(content.tobytes()).decode()


def _unpacked(text: str, count: int, file: Path, kind: str = "bool") -> Tensor:
    """So many outcomes, bool (N,), or numbers of the type that their kind means."""

    try:
        content = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise DamagedFileError(f"{file} is damaged: {error}") from error
    if len(content) != (-(-count // 8) if kind == "bool" else np.dtype(_STORED[kind]).itemsize * count):
        raise DamagedFileError(f"{file} is damaged: it lacks values of its {count} samples: save the run again")
    if kind == "bool":
        return torch.from_numpy(np.unpackbits(np.frombuffer(content, dtype=np.uint8), count=count).astype(bool))
    return torch.from_numpy(np.frombuffer(content, dtype=_STORED[kind]).astype(_MEANT[kind]))
