"""Aimed flips: one bit of a file of a run that has a digest. ``asgt verify`` and the reader must both notice it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from support.forked import Ended
from support.ledger import Ledger, Trial

from .cases import Case, Step
from .damage import BASES, COMMANDS
from .outcomes import FAULTS, UNVERIFIED, Verdict
from .runner import Fuzzing

__all__ = ["FLIP_FAULTS", "SEALED", "Flips", "Sealed", "ended_as"]

FLIP_FAULTS = ("verify missed it", "reader missed it", *FAULTS)
"""The outcomes of flips that are faults."""


@dataclass(frozen=True)
class Sealed:
    """Files of a kind, each with a digest.

    Attributes:
        family: of :data:`fuzz.damage.COMMANDS`, whose folder they lie in.
        pattern: of their paths in that folder.
        verify: the line that looks at their digests.
        readers: lines that use them; ``()`` where only ``asgt verify`` reads them.
    """

    family: str
    pattern: str
    verify: str
    readers: tuple[str, ...]


_COMPARE = "compare run --out page"
_EVALUATE = "evaluate run --protocol pgd --resume"
_FRESH = "evaluate run --samples 6 --epsilons 0.1 --out fresh"
_EXPLAIN = "explain run --resume --out page"
_TRAIN = "train --resume --out run"
_BEGUN = "train --resume --out begun"


def _of_run(pattern: str, *readers: str) -> Sealed:
    return Sealed("run", f"run/{pattern}", "verify run", readers)


SEALED = {
    "weights": _of_run("model.safetensors", _COMPARE, _EVALUATE, _EXPLAIN, _FRESH, _TRAIN),
    "config": _of_run("config.yaml", _COMPARE, _EVALUATE, _EXPLAIN, _FRESH, _TRAIN),
    "metrics": _of_run("metrics.jsonl", _COMPARE, _TRAIN),
    "training result": _of_run("training.json", _COMPARE, _EVALUATE, _EXPLAIN, _FRESH, _TRAIN),
    "manifest": _of_run("manifest.json", _COMPARE, _EVALUATE, _EXPLAIN, _FRESH, _TRAIN),
    "split": _of_run("split.safetensors"),
    "shard": _of_run("evaluation/pgd/*.safetensors", _COMPARE, _EVALUATE),
    "standard shard": _of_run("evaluation/standard@2/*.safetensors", _COMPARE),
    "evaluation result": _of_run("evaluation/*/result.json", _COMPARE),
    "explanation values": _of_run("explanation/*/values.safetensors", _COMPARE, _EXPLAIN),
    "explanation result": _of_run("explanation/*/result.json", _COMPARE, _EXPLAIN),
    "kept result": Sealed("kept", "keep/*/*.json", "verify keep/grid", ("kept keep/grid",)),
    "checkpoint": Sealed("unfinished", "begun/checkpoint.safetensors", "verify begun", (_BEGUN,)),
    "unfinished shard": Sealed(
        "unfinished",
        "half/evaluation/pgd/*-*.safetensors",
        "verify half",
        ("evaluate half --samples 4 --epsilons 0.1 --resume",),
    ),
    # Their digests lie in the checkpoint; asgt verify knows none, and says so.
    "unfinished metrics": Sealed("unfinished", "begun/metrics.jsonl", "verify begun", (_BEGUN,)),
    "unfinished config": Sealed("unfinished", "begun/config.yaml", "verify begun", (_BEGUN,)),
}
"""By the name of the kind."""


class Flips:
    """Aimed flips of a seed, kind by kind in turn.

    Args:
        fuzzing: runs the command lines.
    """

    def __init__(self, fuzzing: Fuzzing) -> None:
        self.fuzzing = fuzzing

    def cases(self, number: int) -> tuple[str, Case, Case | None]:
        """The kind of a flip, and the two command lines on the damaged folder; ``None`` where nothing else reads it."""

        name = list(SEALED)[number % len(SEALED)]
        sealed = SEALED[name]
        draws = random.Random(f"{self.fuzzing.seed}/flip/{number}")
        base = self.fuzzing.material / BASES[sealed.family][0]
        file = draws.choice([file.relative_to(base).as_posix() for file in sorted(base.glob(sealed.pattern))])
        step = Step("flip", file, bytes([draws.randrange(8)]), draws.random())

        def case(line: str) -> Case:
            words = tuple(line.split())
            return Case(sealed.family, base.name, (step,), words, words, COMMANDS[sealed.family][line])

        reader = draws.choice(sealed.readers) if sealed.readers else None
        return name, case(sealed.verify), None if reader is None else case(reader)

    def trial(self, number: int, ledger: Ledger) -> Trial:
        """Makes a flip."""

        name, verify, reader = self.cases(number)
        began = time.monotonic()
        verdict, ended = self.fuzzing.verdict(verify)
        outcome, case = "only verify reads it", verify
        if verdict.outcome != "refused" and verdict.told != UNVERIFIED:
            outcome = "verify missed it" if verdict.outcome in ("done", "silent") else verdict.outcome
        elif reader is not None:
            case = reader
            verdict, ended = self.fuzzing.verdict(reader)
            outcome = ended_as(verdict, ended, Path(reader.steps[0].path).name)
        where, kind = "", ""
        if outcome in FLIP_FAULTS:
            kind = verdict.kind or f"{outcome} {name} {' '.join(case.words)}"
            where = self.fuzzing.reproduction(
                f"flip-{number}", case, Verdict(outcome, verdict.told, kind), ended, ledger
            )
        told = f"{' '.join(case.words)}, bit {case.steps[0].content[0]} at {case.steps[0].place:.4f} of "
        told += f"{case.steps[0].path}: {verdict.told}"
        return Trial(number, name, outcome, told, round(time.monotonic() - began, 3), where, kind)

    def run(self, count: int, ledger: Ledger) -> None:
        """Makes the flips below ``count`` that the log does not have yet."""

        began, before = time.monotonic(), count - len(ledger.left(count))
        for number in ledger.left(count):
            ledger.add(self.trial(number, ledger))
            ledger.show_progress(count, began, before)


def ended_as(verdict: Verdict, ended: Ended, name: str) -> str:
    """The outcome of a flip, by the call of a reader.

    Args:
        verdict: on the reader's call.
        ended: how it ended.
        name: of the file.

    Returns:
        ``"refused"``; ``"mended"`` where the reader said that the file is damaged and made it again, with the same
        figures; or one of :data:`FLIP_FAULTS`.
    """

    if verdict.outcome != "done":
        return verdict.outcome
    return "mended" if name in ended.err and "damaged" in ended.err else "reader missed it"
