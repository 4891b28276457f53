"""What an evaluation found, and the evidence of it on disk.

An evaluation's folder holds ``result.json`` and, beside it, the evidence: shards of samples with their outcomes under
a search, each written as soon as its samples are through and never rewritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..attacks import Norm, check_eps
from ..errors import DamagedFileError, InputError
from ..files import agree, digest, package_versions, read_json, read_tensors
from ..numbers import Number, number
from ..statistics import clopper_pearson, share_of
from .checks import Check
from .engine import CLEAN, MARGIN, NOTHING, PRESS_STEPS, PROBE_STEPS
from .protocols import PROTOCOLS, Protocol, protocol_named

__all__ = [
    "EXHAUSTIVE",
    "SCHEMA",
    "WORST_CASE",
    "Evaluation",
    "checked_grid",
    "definition",
    "evidence_key",
    "kept_shard",
    "load_evaluation",
]

SCHEMA = 3
CONFIDENCE = 0.95
EXHAUSTIVE = ".exhaustive"
"""What the names of shards end in where every sample was attacked at every ε after all; no search is called so."""

_COUNTS = ("found_by", "gradients", "forwards", "floor", "audit", "tested", "missed", "illegal")
WORST_CASE = dict.fromkeys(_COUNTS, torch.int64) | {"norms": torch.float32}
"""What a worst case keeps of each sample beside its outcomes, as :class:`asgt.evaluation.engine.Outcome` calls it."""
_FINAL = {"illegal": torch.int64}


@dataclass(frozen=True)
class Evaluation:
    """What one protocol found on one model.

    Attributes:
        protocol: the definition it was made by.
        norm: the norm of ε.
        epsilons: the grid, ascending, E values.
        seed: keys the random starts.
        model: SHA-256 of the model's weights; empty for a function that has none.
        data: SHA-256 of the images and labels.
        classes: K, which says how many targets there are.
        clean: which samples are right as they are, bool (N,).
        outcomes: for each search, which samples stay right at each ε, bool (E, N).
        exhaustive: whether every sample was asked to be attacked at every ε.
        votes: how often the model was asked for each answer of a worst case: 1, or more if it wavers.
        details: for each search, by sample: ``illegal`` (answers of the attack that left the ball or the box, or held
            NaN); of a worst case also ``norms`` (the smallest known adversarial norm, float32), ``found_by``,
            ``gradients``, ``forwards``, ``floor``, ``audit``, ``tested`` and ``missed`` as in
            :class:`asgt.evaluation.engine.Outcome`.
        checks: whether this can be believed (:mod:`asgt.evaluation.checks`).
        seconds: for each search, what it took, on whatever machine it ran.
        selection: which images of a larger set were evaluated, in words; empty where nobody said.
    """

    protocol: Protocol
    norm: Norm
    epsilons: tuple[float, ...]
    seed: int
    model: str
    data: str
    classes: int
    clean: Tensor
    outcomes: dict[str, Tensor]
    exhaustive: bool = False
    votes: int = 1
    details: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    selection: str = ""

    @property
    def samples(self) -> int:
        return len(self.clean)

    @property
    def adapted(self) -> bool:
        """Whether an attack had to be adapted to so few classes, and is not its authors' own."""

        return any(search.among(self.classes).adapted(self.classes) for search in self.protocol.searches)

    def clean_accuracy(self) -> dict[str, float]:
        """Clean accuracy with its interval."""

        return _share(self.clean)

    def curve(self, search: str) -> list[dict[str, float]]:
        """Accuracy with its interval, for each ε of the grid."""

        return [{"eps": eps} | _share(row) for eps, row in zip(self.epsilons, self.outcomes[search], strict=True)]

    def first_to_break(self, search: str) -> dict[str, int]:
        """How many samples' smallest known adversarial norm was found by what; empty where there is no worst case."""

        if "found_by" not in self.details[search]:
            return {}
        (asked,) = (other for other in self.protocol.searches if other.name == search)
        titles = {CLEAN: "clean error", MARGIN: "the margin's gradient"}
        titles |= {number: attack.title for number, attack in enumerate(asked.among(self.classes).attacks)}
        found = self.details[search]["found_by"].tolist()
        counts = Counter(titles[number] for number in found if number != NOTHING)
        return {title: counts[title] for title in titles.values() if title in counts}

    def cost(self, search: str) -> dict[str, float]:
        """What a worst-case search took and how it was tested; empty for another.

        ``gradients`` and ``forwards`` per sample, beside ``floor``, the gradients of a clairvoyant, who runs each
        attack once, where it just fails, and what found the witness once more. ``audit``: gradients a sample beyond
        these, spent on ``tested`` samples at an ε below a failure, each at a random one or, exhaustively, at all;
        ``missed`` of them broke there, and ``missed_high`` is the upper end of the Clopper–Pearson interval of their
        share. Where all were attacked at every ε after all, the passes are those of that time alone.
        """

        told = self.details[search]
        if "tested" not in told:
            return {}
        # Samples, not attacks: what one sample does at several ε is not independent.
        tested, missed = int((told["tested"] > 0).sum()), int((told["missed"] > 0).sum())
        means = {name: float(told[name].double().mean()) for name in ("gradients", "floor", "forwards", "audit")}
        return means | {
            "tested": tested,
            "missed": missed,
            "missed_high": clopper_pearson(missed, tested, CONFIDENCE)[1] if tested else 1.0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what ``result.json`` holds."""

        return {
            "schema": SCHEMA,
            "protocol": definition(self.protocol, self.classes),
            "adapted": self.adapted,
            "claim": self.protocol.claim,
            "norm": self.norm,
            "samples": self.samples,
            **({"selection": self.selection} if self.selection else {}),
            "classes": self.classes,
            "seed": self.seed,
            "interval": f"Wilson {CONFIDENCE:.0%}",
            "model": self.model,
            "data": self.data,
            "votes": self.votes,
            "clean": self.clean_accuracy(),
            "attacks": {name: self.curve(name) for name in self.outcomes},
            "exhaustive": self.exhaustive,
            "first_to_break": {name: first for name in self.details if (first := self.first_to_break(name))},
            "cost": {name: cost for name in self.details if (cost := self.cost(name))},
            "checks": [check.to_dict() for check in self.checks],
            "seconds": self.seconds,
            "versions": package_versions("torch", "numpy", "datasets", "safetensors", "pyautoattack"),
        }


def load_evaluation(folder: Path) -> Evaluation:
    """Reads what :func:`asgt.evaluate` left in a folder, and checks its figures against the evidence beside them.

    Raises:
        InputError: the folder holds no finished evaluation, or one by a protocol that this version does not know.
        DamagedFileError: a file of it is not what :func:`asgt.evaluate` wrote.
    """

    path = folder / "result.json"
    if not path.is_file():
        raise InputError(f"{folder} holds no finished evaluation: asgt evaluate makes one, and --resume ends it")
    result = read_json(path)
    try:
        schema, name, made = result["schema"], result["protocol"]["name"], result["protocol"]["version"]
        known = PROTOCOLS.get(name)
    except (LookupError, TypeError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not the result of an evaluation") from error

    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema!r}, this version of asgt reads {SCHEMA}: evaluate again into another folder"
        )
    if name == "own":
        raise InputError(f"{path} is of attacks of one's own: asgt.robustness_curve takes it up, with the same attacks")
    if known is None or made != known.version:
        here = "none of that name" if known is None else f"v{known.version}"
        raise InputError(
            f"{folder} was made by protocol {name if known else repr(name)} v{made!r}, this version of asgt knows "
            f"{here}: evaluate again into another folder"
        )

    try:
        protocol = protocol_named(name, result["norm"])
        grid = checked_grid([row["eps"] for row in result["attacks"][protocol.searches[0].name]], result["norm"])
        identity = (result["seed"], result["model"], result["data"], int(result["classes"]))
        votes = int(result["votes"])
        seconds = {search.name: float(result["seconds"][search.name]) for search in protocol.searches}
        checks = tuple(map(Check.from_dict, result["checks"]))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not the result of an evaluation") from error

    exhaustive = result.get("exhaustive") is True
    found = Evaluation(protocol, result["norm"], grid, *identity, torch.empty(0), {}, exhaustive, votes)
    for search in protocol.searches:
        kept = _read_shards(folder, search.name, found, path)
        found.outcomes[search.name], clean = kept.pop("correct"), kept.pop("clean")
        found.details[search.name] = kept
        if search is protocol.searches[0]:
            found = replace(found, clean=clean)
        elif not torch.equal(clean, found.clean):
            raise DamagedFileError(
                f"{folder / search.name}-*.safetensors are damaged: their clean outcomes are not those of other attacks"
            )
    found = replace(found, checks=checks, seconds=seconds, selection=str(result.get("selection", "")))

    # The versions are those of the machine that evaluated.
    if not agree(found.to_dict() | {"versions": result.get("versions")}, result):
        raise DamagedFileError(f"{path} is damaged: its figures are not those of the evidence beside it")
    return found


def checked_grid(epsilons: Sequence[Number], norm: Norm) -> tuple[float, ...]:
    """The grid of radii, ascending, each once.

    Raises:
        InputError: it is empty, or a radius cannot be meant.
    """

    grid = tuple(sorted({number(eps, "eps") for eps in epsilons}))
    if not grid:
        raise InputError("the grid of epsilons is empty: give at least one, as 0.1 or 8/255")
    for eps in grid:
        check_eps(eps, norm)
        if eps == 0:
            raise InputError("eps = 0 is the clean accuracy, which is always given: leave it out of the grid")
    return grid


def evidence_key(found: Evaluation, stem: str, first: int, count: int) -> str:
    """What evidence carries: that of other weights, images or settings has another key, and is refused, not mixed."""

    settings = (SCHEMA, found.protocol, found.norm, found.epsilons, found.seed, found.exhaustive, found.votes)
    return digest(repr((*settings, found.model, found.data, found.classes, stem, first, count)).encode())


def kept_shard(evidence: Path, found: Evaluation, stem: str, first: int) -> tuple[dict[str, Tensor], float] | None:
    """What a shard keeps of the samples from the ``first`` on, and the seconds that it took.

    ``None`` if it is of another evaluation, or of other samples.
    """

    tensors, metadata = read_tensors(evidence)
    count = tensors["clean"].numel() if "clean" in tensors else 0
    if metadata.get("key") != evidence_key(found, stem, first, count):
        return None
    expected = {"correct": torch.bool, "clean": torch.bool} | (WORST_CASE if found.protocol.worst_case else _FINAL)
    shapes = {name: (len(found.epsilons), count) if name == "correct" else (count,) for name in expected}
    if count == 0 or {name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} != {
        name: (expected[name], shapes[name]) for name in expected
    }:
        raise DamagedFileError(f"{evidence} is damaged: it does not hold the outcomes of its samples at each eps")
    return tensors, float(metadata.get("seconds", "nan"))


def _read_shards(folder: Path, name: str, found: Evaluation, result: Path) -> dict[str, Tensor]:
    """All the evidence of a search, of its exhaustive part where there is one."""

    for stem in (f"{name}{EXHAUSTIVE}", name):
        files = sorted(folder.glob(f"{stem}-[0-9][0-9][0-9][0-9][0-9].safetensors"))
        if not files:
            continue
        shards: list[dict[str, Tensor]] = []
        for place, evidence in enumerate(files):
            if evidence.name != f"{stem}-{place:05d}.safetensors":
                break
            first = sum(len(shard["clean"]) for shard in shards)
            if (kept := kept_shard(evidence, found, stem, first)) is None:
                raise DamagedFileError(f"{evidence} is damaged: it is not the evidence of {result}")
            shards.append(kept[0])
        if len(shards) == len(files):
            return {tensor: torch.cat([shard[tensor] for shard in shards], dim=-1) for tensor in shards[0]}
        break
    raise DamagedFileError(
        f"{folder / name}-*.safetensors are not all there, so {result} has lost its evidence: --resume makes it anew"
    )


def _share(outcomes: Tensor) -> dict[str, float]:
    return share_of(int(outcomes.sum()), len(outcomes), CONFIDENCE)


def definition(protocol: Protocol, classes: int) -> dict[str, Any]:
    margin = {"probe_steps": PROBE_STEPS, "press_steps": PRESS_STEPS}
    return {
        "name": protocol.name,
        "version": protocol.version,
        "worst_case": protocol.worst_case,
        **(margin if protocol.worst_case else {}),
        "attacks": {search.name: repr(search.among(classes)) for search in protocol.searches},
    }
