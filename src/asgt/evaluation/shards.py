"""The evidence of an evaluation on disk.

An evaluation's folder holds ``result.json`` and, beside it, shards of samples with their outcomes under a search, each
written as soon as its samples are through and never rewritten. The labels of the samples, by which figures of classes
are made again, are written just before the result, which names them by their digest. A result of an earlier version
names none, and has no figures by class. So is a trace, where one was requested.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import DamagedFileError, InputError, shown
from ..files import agree, digest, digest_tensors, read_sealed, read_tensors, write_sealed, write_tensors
from ..locks import holds_nothing
from ..manifest import Manifest, check_evidence, home_of, record, withdraw
from ..shortcuts import VIEWS
from .check import THOROUGH, Check
from .discard_audit import RISKS, SPENT
from .known import MARGIN
from .outcomes import CODES, SCHEMA, Evaluation, Request, checked_grid, definition
from .pieces import AUDIT, BELOW, FULL, NEAREST_ONES, PHASED, PHASED_ROWS, WIDER_SEARCH, merged, summary
from .protocols import LATER, OWN, PhasedSearch, Protocol, Search, known_version, known_versions
from .recorded import record_of, recorded_protocol
from .trace import read_trace, write_trace

__all__ = [
    "EXHAUSTIVE",
    "LABELS",
    "WORST_CASE",
    "claim_folder",
    "finished_before",
    "load_evaluation",
    "read_shard",
    "refuse_mixture",
    "refuse_other_evidence",
    "refuse_other_figures",
    "shard_file",
    "write_result",
    "write_shard",
]

EXHAUSTIVE = ".exhaustive"
"""The suffix of shards in which finally every sample was attacked at every ε; no search may have this name."""

LABELS = "labels.safetensors"
"""The file of the samples' labels, with the names of the classes in its metadata."""

_COUNTS = ("found_by", "gradients", "forwards", "floor", "audit", "tested", "missed", "illegal")
WORST_CASE = dict.fromkeys(_COUNTS, torch.int64) | {"norms": torch.float32}
"""The values that a worst case stores for each sample in addition to its outcomes, named as in
:class:`asgt.evaluation.known.Outcome`.
"""
_FINAL = {"illegal": torch.int64}

_FIGURES = ("samples", "clean", "attacks", "exhaustive", "first_to_break", "discards")
"""The fields of a result about the outcomes."""


def write_result(folder: Path, evaluation: Evaluation) -> None:
    """Writes labels and trace, then ``result.json``, each atomically; then lists them in the manifest."""

    accepted = withdraw(folder)
    if evaluation.labels is not None:
        told = {"data": evaluation.data, "classes": json.dumps(evaluation.class_names)}
        codes = {} if evaluation.shortcut_codes is None else {CODES: evaluation.shortcut_codes}
        write_tensors(folder / LABELS, {"labels": evaluation.labels} | codes, told, begin=False)
    write_trace(folder, evaluation.trace)
    write_sealed(folder / "result.json", evaluation.to_dict(), begin=False)
    record(folder, {"weights": evaluation.model, "data": evaluation.data}, accepted)


def load_evaluation(folder: Path | str) -> Evaluation:
    """Reads a result of :func:`asgt.evaluate` from a folder, and checks its numbers against the stored outcomes.

    Args:
        folder: a folder that holds ``result.json``, as ``RUN/evaluation/pgd``.

    Returns:
        The evaluation, with the outcome of each image.

    Raises:
        InputError: the folder holds no finished evaluation, one by a protocol that this version does not know, or
            one by a user's attacks from an earlier version, which did not record them.
        DamagedFileError: a file differs from what :func:`asgt.evaluate` wrote.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> evaluation = asgt.evaluate(model, data.test[:20], "pgd", epsilons=[0.1], folder="run/evaluation/pgd")
        >>> asgt.load_evaluation("run/evaluation/pgd").accuracy == evaluation.accuracy
        True
    """

    folder = Path(folder)
    path = folder / "result.json"
    if not path.is_file():
        raise InputError(
            f"{folder} holds no finished evaluation: run asgt evaluate, with --resume if it was interrupted"
        )
    result = read_sealed(path)[0]
    check_evidence(folder)
    protocol = _protocol(result, folder)
    try:
        norm, classes = result["norm"], int(result["classes"])
        protocol = protocol.in_norm(norm)
        request = Request(
            protocol=protocol,
            norm=norm,
            epsilons=checked_grid([row["eps"] for row in result["attacks"][protocol.searches[0].name]], norm),
            seed=result["seed"],
            model=result["model"],
            data=result["data"],
            classes=classes,
            exhaustive=result.get("exhaustive") is True,
            votes=int(result["votes"]),
            selection=str(result.get("selection", "")),
            shortcut_view=str(result.get("shortcut_view", "")),
        )
        if request.shortcut_view not in ("", *VIEWS):
            raise ValueError("shortcut_view")
        seconds = {search.name: float(result["seconds"][search.name]) for search in protocol.searches}
        checks = tuple(map(Check.from_dict, result["checks"]))
        fallen_back = {
            search.name: (
                str(result["discards"][search.name]["reason"]),
                result["discards"][search.name]["full"] is True,
            )
            for search in protocol.searches
            if isinstance(search, PhasedSearch)
        }
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise _damaged(path) from error

    clean: Tensor | None = None
    outcomes, details, discards = {}, {}, {}
    for search in protocol.searches:
        tensors = _read_shards(folder, search.name, request)
        if isinstance(search, PhasedSearch):
            discards[search.name] = summary(tensors, search, *fallen_back[search.name])
        outcomes[search.name], own = tensors.pop("correct"), tensors.pop("clean")
        details[search.name] = tensors
        if clean is not None and not torch.equal(own, clean):
            raise DamagedFileError(
                f"{folder / search.name}-*.safetensors are damaged: their clean outcomes differ from "
                "those of other attacks: evaluate again"
            )
        clean = own
    assert clean is not None
    labels, codes, class_names = _labels(folder, result, request, len(clean))
    evaluation = Evaluation(
        **vars(request),
        clean=clean,
        outcomes=outcomes,
        details=details,
        checks=checks,
        seconds=seconds,
        discards=discards,
        labels=labels,
        class_names=class_names,
        trace=read_trace(folder, result.get("trace"), len(clean)),
        shortcut_codes=codes,
        shortcut=str(result.get("shortcut", "")),
    )
    # The versions are those of the machine that evaluated.
    if not agree(evaluation.to_dict() | {"versions": result.get("versions")}, result):
        raise DamagedFileError(f"{path} is damaged: its numbers differ from the stored outcomes: evaluate again")
    return evaluation


def _labels(
    folder: Path, result: Any, request: Request, samples: int
) -> tuple[Tensor | None, Tensor | None, tuple[str, ...]]:
    """The labels of the samples, the classes whose shortcut they have, and the names of the classes.

    ``None`` where the result was made without labels, or without a shortcut.

    What the result does not name is that of a kill just before a new result, and says nothing.
    """

    file = folder / LABELS
    if "labels" not in result:
        return None, None, ()
    again = "--resume writes it again"
    if not file.exists():
        raise DamagedFileError(f"{file} is missing, and {folder / 'result.json'} was made with it: {again}")
    tensors, metadata = read_tensors(file)
    if CODES not in result:
        tensors.pop(CODES, None)
    told = {name: result[name] for name in ("labels", CODES) if name in result}
    if metadata.get("data") != request.data or told != {
        name: digest_tensors({name: tensor}) for name, tensor in tensors.items()
    }:
        raise DamagedFileError(f"{file} is damaged: it does not hold the labels of {folder / 'result.json'}; {again}")
    try:
        labels, names = tensors["labels"], json.loads(metadata["classes"])
        if any((each.dtype, tuple(each.shape)) != (torch.int64, (samples,)) for each in tensors.values()):
            raise ValueError(LABELS)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise TypeError(LABELS)
        if not all(0 <= int(each.min()) <= int(each.max()) < len(names) for each in tensors.values()):
            raise ValueError(LABELS)
        if int(labels.max()) >= request.classes:
            raise ValueError(LABELS)
    except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{file} is damaged: it does not hold a label of each sample; {again}") from error
    return labels, tensors.get(CODES), tuple(names)


def _protocol(result: Any, folder: Path) -> Protocol:
    """The protocol of a result."""

    path = folder / "result.json"
    try:
        schema, name, version = result["schema"], result["protocol"]["name"], result["protocol"]["version"]
        if not isinstance(name, str):
            raise TypeError(name)
    except (LookupError, TypeError) as error:
        raise _damaged(path) from error

    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {shown(schema)}, but this version of asgt reads {SCHEMA}: evaluate again into "
            "another folder"
        )
    versions = known_versions(name)
    if not versions and name == OWN and "own" not in result:
        raise InputError(
            f"{path} is of the user's own attacks: call asgt.evaluate with the same attacks to continue it"
        )
    if not versions and "own" in result:
        try:
            return recorded_protocol(result["protocol"], result["own"], str(result["claim"]))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _damaged(path) from error
    if (known := known_version(name, version)) is None:
        here = " and ".join(f"v{protocol.version}" for protocol in versions) or "none of that name"
        raise InputError(
            f"{folder} was made with protocol {name if versions else shown(name)} v{shown(version)}, but this "
            f"version of asgt has {here}: evaluate again into another folder"
        )
    return known


def _damaged(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: it is not the result of an evaluation: evaluate again")


def shard_file(folder: Path, stem: str, place: int) -> Path:
    """The file of a search's shard number ``place``."""

    return folder / f"{stem}-{place:05d}.safetensors"


def write_shard(
    file: Path, request: Request, tensors: Mapping[str, Tensor], *, stem: str, first: int, seconds: float
) -> None:
    """Writes a shard of the samples from the ``first`` on, atomically."""

    key = _key(request, stem, first, len(tensors["clean"]))
    write_tensors(file, dict(tensors), {"key": key, "seconds": f"{seconds:.3f}"}, begin=False)


def read_shard(file: Path, request: Request, stem: str, first: int) -> tuple[dict[str, Tensor], float] | None:
    """The content of a shard for the samples from the ``first`` on, and its duration in seconds.

    ``None`` if it belongs to another evaluation or to other samples.
    """

    tensors, metadata = read_tensors(file)
    count = tensors["clean"].numel() if "clean" in tensors else 0
    if metadata.get("key") != _key(request, stem, first, count):
        return None
    search = _search_of(stem, request)
    phased = PHASED if isinstance(search, PhasedSearch) else {}
    expected = {"correct": torch.bool, "clean": torch.bool}
    expected |= (WORST_CASE if request.protocol.worst_case else _FINAL) | phased
    heights = {"correct": len(request.epsilons)}
    if isinstance(search, PhasedSearch):
        heights |= dict.fromkeys(PHASED_ROWS, len(search.phases) + 3)
    shapes = {name: (heights[name], count) if name in heights else (count,) for name in expected}
    if count == 0 or {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} != {
        name: (expected[name], shapes[name]) for name in expected
    }:
        raise DamagedFileError(f"{file} is damaged: it does not hold the outcomes of its samples at each eps")
    if request.protocol.worst_case:
        found_by, attacks = tensors["found_by"], len(search.finders)
        if bool(((found_by < MARGIN) | (found_by >= attacks)).any()):
            raise DamagedFileError(f"{file} is damaged: found_by names an attack beyond the {attacks} of the search")
    return tensors, _seconds(metadata.get("seconds", "nan"))


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan  # as where they are not known


class _Text(str):
    """A text that is written without quotes inside another."""

    def __repr__(self) -> str:
        return str(self)


def _key(request: Request, stem: str, first: int, count: int) -> str:
    """What evidence carries: that of other weights, images or settings has another key, and is refused, not mixed."""

    settings = (SCHEMA, _Text(request.protocol.identity), request.norm, request.epsilons, request.seed)
    switches = (request.exhaustive, request.votes)
    identity = (request.model, request.data, request.classes)
    return digest(repr((*settings, *switches, *identity, stem, first, count)).encode())


def _search_of(stem: str, request: Request) -> Search:
    """The search that the shards of a stem belong to, against a model of so many classes."""

    searches = {search.name: search for search in request.protocol.searches}
    name = stem if stem in searches else re.sub(LATER, "", stem)
    return searches[name].among(request.classes)


def _read_shards(folder: Path, name: str, request: Request) -> dict[str, Tensor]:
    """All the evidence of a search: of its exhaustive part where there is one, or of a search in phases, merged."""

    search = _search_of(name, request)
    if isinstance(search, PhasedSearch):
        stems = [name, f"{name}{NEAREST_ONES}"]
        for number in range(1, len(RISKS) + 1):
            stems.append(f"{name}{WIDER_SEARCH}-{number}")
            stems += [f"{name}{AUDIT}-{number}-{step}" for step in range(1, len(SPENT) + 1)]
        stems += [f"{name}{FULL}", f"{name}{BELOW}"]
        pieces = [piece for stem in stems if (piece := _read_piece(folder, stem, request))]
        if everywhere := _read_piece(folder, f"{name}{EXHAUSTIVE}", request):
            pieces = [everywhere]
        if pieces and _covers(pieces):
            known = merged(pieces)
            del known["rows"]
            return known
    else:
        for stem in (f"{name}{EXHAUSTIVE}", name):
            if piece := _read_piece(folder, stem, request):
                return piece
    raise _incomplete(folder, name)


def _covers(pieces: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the first piece is about all samples, in their order, and no other one about samples beyond."""

    rows = pieces[0]["rows"]
    return torch.equal(rows, torch.arange(len(rows))) and all(
        bool(((piece["rows"] >= 0) & (piece["rows"] < len(rows))).all()) for piece in pieces[1:]
    )


def _read_piece(folder: Path, stem: str, request: Request) -> dict[str, Tensor] | None:
    """The shards of one stem, joined; ``None`` if there are none."""

    files = sorted(folder.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9].safetensors"))
    if not files:
        return None
    shards: list[dict[str, Tensor]] = []
    for place, file in enumerate(files):
        if file != shard_file(folder, stem, place):
            raise _incomplete(folder, stem)
        first = sum(len(shard["clean"]) for shard in shards)
        if (shard := read_shard(file, request, stem, first)) is None:
            raise DamagedFileError(f"{file} is damaged: it is not the evidence of {folder / 'result.json'}")
        shards.append(shard[0])
    return {tensor: torch.cat([shard[tensor] for shard in shards], dim=-1) for tensor in shards[0]}


def _incomplete(folder: Path, name: str) -> DamagedFileError:
    return DamagedFileError(
        f"{folder / name}-*.safetensors are incomplete, so {folder / 'result.json'} has lost its evidence: run "
        "with --resume to compute it again"
    )


def claim_folder(folder: Path, resume: bool) -> None:
    """Refuses a file, or a folder with an evaluation if it is not resumed."""

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder to --out")
    if not holds_nothing(folder) and not resume:
        raise InputError(
            f"{folder} already holds an evaluation: continue it with --resume, or give another folder to --out"
        )
    Manifest.of(home_of(folder))  # a damaged one is refused before anything is computed


def finished_before(folder: Path, request: Request) -> tuple[dict[str, Any] | None, bool]:
    """The result of a finished evaluation that is resumed, and whether its expensive checks were run.

    Returns:
        The content of ``result.json``, ``None`` if it does not exist.

    Raises:
        InputError: it belongs to another evaluation.
        DamagedFileError: it was changed after it was written.
    """

    path = folder / "result.json"
    if not path.is_file():
        return None, False
    stored = read_sealed(path)[0]
    check_evidence(folder, path.name)
    asked = {
        "schema": SCHEMA,
        "protocol": definition(request.protocol, request.classes),
        "norm": request.norm,
        "seed": request.seed,
        "model": request.model,
        "data": request.data,
        "exhaustive": request.exhaustive,
        "votes": request.votes,
    }
    if not isinstance(stored, dict):
        raise _damaged(path)
    if (view := stored.get("shortcut_view", "")) != request.shortcut_view:
        said, asked_for = (
            f"the shortcut {each}" if each else "no shortcut planted" for each in (view, request.shortcut_view)
        )
        raise InputError(f"{path} was made with {said}, not with {asked_for}: give another folder to --out")
    if "own" in stored and not request.protocol.is_house:
        asked["own"] = record_of(request.protocol, request.classes)
    try:
        there = {name: stored[name] for name in asked}
        grids = {tuple(row["eps"] for row in curve) for curve in stored["attacks"].values()}
        there["schema"] = stored["schema"] if grids == {request.epsilons} else None
        remedies = [check["remedy"] for check in stored["checks"]]
    except (AttributeError, LookupError, TypeError):
        there, remedies = {}, []
    if there != asked and (known := _other_version(there.get("protocol"), request)) is not None:
        raise InputError(_taken_up(path, known, request))
    if there != asked:
        raise InputError(
            f"{path} was made with another model, other images or other settings: give another folder to --out"
        )
    return stored, bool(remedies) and THOROUGH not in remedies


def _other_version(stored: Any, request: Request) -> Protocol | None:
    """The other version of the protocol that a stored definition is of; ``None`` if it is of none that is known."""

    try:
        known = known_version(stored["name"], stored["version"])
    except (LookupError, TypeError):
        return None
    return known if known in _other_versions(request) else None


def _other_versions(request: Request) -> list[Protocol]:
    asked = request.protocol
    return [each for each in known_versions(asked.name) if asked.is_house and each.version != asked.version]


def _taken_up(path: Path, known: Protocol, request: Request) -> str:
    """Says how to go on with evidence of another version of the same protocol."""

    return (
        f"{path} was made with protocol {known.name} v{known.version}, not v{request.protocol.version}: continue it "
        f"with --protocol {known.key}, or give another folder to --out"
    )


def refuse_mixture(folder: Path, request: Request) -> None:
    """Refuses a folder that holds the first shard of another evaluation, under any name of this evaluation.

    Raises:
        InputError: it does. The search replaces a shard that is damaged, or that differs from the manifest.

    """

    for file in sorted(folder.glob("*-00000.safetensors")):
        stem = file.name.removesuffix("-00000.safetensors")
        try:
            check_evidence(folder, file.name)
            tensors, metadata = read_tensors(file)
            count = len(tensors["clean"])
        except (DamagedFileError, LookupError, TypeError):
            continue
        if metadata.get("key") != _key(request, stem, 0, count):
            refuse_other_evidence(file, request, stem, 0)


def refuse_other_evidence(file: Path, request: Request, stem: str, first: int) -> NoReturn:
    """Refuses a shard whose key is not that of a request.

    Raises:
        InputError: always; it says so where another version of the same protocol made the shard.
    """

    tensors, metadata = read_tensors(file)
    count = tensors["clean"].numel() if "clean" in tensors else 0
    for known in _other_versions(request):
        if not known.can_be_in(request.norm):
            continue
        made = replace(request, protocol=known.in_norm(request.norm))
        if metadata.get("key") == _key(made, stem, first, count):
            raise InputError(_taken_up(file, known, request))
    raise InputError(
        f"{file} was made with another model, other images or other settings: give another folder to --out"
    )


def refuse_other_figures(folder: Path, evaluation: Evaluation, stored: dict[str, Any]) -> None:
    """Refuses evidence that differs from the finished result.

    Raises:
        DamagedFileError: one of the two was changed, or lost evidence was recomputed with another result.
    """

    new = evaluation.to_dict()
    # The names of classes may be others; a result of an earlier version has no labels yet.
    figures = (*_FIGURES, "labels") if "labels" in stored else _FIGURES
    if not agree({name: new.get(name) for name in figures}, {name: stored.get(name) for name in figures}):
        raise DamagedFileError(
            f"{folder / 'result.json'} is damaged: its numbers differ from the stored outcomes; remove "
            f"{folder} to evaluate again"
        )
