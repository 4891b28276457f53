"""``python -m fuzz N --seed S``: the cases of a seed, from where the last call with it was stopped."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import asgt
from support import forked
from support.ledger import Ledger, digest_of_sources

from .flips import FLIP_FAULTS, Flips
from .outcomes import FAULTS
from .runner import ORDER, Fuzzing

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Runs the command line. Returns 1 where there are faults."""

    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("count", type=int, help="how many cases")
    parser.add_argument("--seed", type=int, default=0, help="of the cases (default: 0)")
    parser.add_argument("--flips", type=int, default=0, help="how many aimed flips of a bit besides (default: 0)")
    parser.add_argument("--families", default=",".join(ORDER), help="families in turn (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "fuzz", help="for the log and the faults")
    parser.add_argument("--again", type=int, metavar="NUMBER", help="only run this case, and write what it says")
    asked = parser.parse_args()

    forked.prepare()
    order = tuple(asked.families.split(","))
    package = digest_of_sources(Path(asgt.__file__).parent, more=[Path(__file__).with_name("material.py").read_text()])
    key = digest_of_sources(Path(__file__).parent, more=[package, asked.seed, order])
    folder = (asked.folder / f"seed-{asked.seed}-{key[:8]}").resolve()
    fuzzing = Fuzzing(folder, (asked.folder / f"material-{package[:8]}").resolve(), asked.seed, order=order)
    if asked.again is not None:
        case = fuzzing.case(asked.again)
        verdict, ended = fuzzing.verdict(case)
        sys.stdout.write(f"{case}\n{ended.out}{ended.err}{verdict}\n".encode(errors="backslashreplace").decode())
        return int(verdict.outcome in FAULTS)
    ledger = Ledger(folder / "log.jsonl", key, FAULTS)
    fuzzing.run(asked.count, ledger)
    _write(ledger.summary(asked.count))
    bad = ledger.bad(asked.count)
    if asked.flips:
        flips = Ledger(folder / "flips.jsonl", key, FLIP_FAULTS)
        Flips(fuzzing).run(asked.flips, flips)
        counts = Counter(trial.outcome for trial in flips.trials.values() if trial.number < asked.flips)
        read = asked.flips - counts["only verify reads it"]
        noticed = counts["refused"] + counts["mended"]
        _write(f"\n{flips.summary(asked.flips)}\nflips of what readers use: {read}, noticed by the reader: {noticed}")
        bad += flips.bad(asked.flips)
    return int(bool(bad))


def _write(text: str) -> None:
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
