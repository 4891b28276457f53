"""``python -m chaos N --seed S``: the trials of a seed, from where the last call with it was stopped."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import asgt
from support import forked
from support.ledger import Ledger, digest_of_sources

from .disturbances import DISTURBANCES
from .trials import FAULTS, Chaos
from .works import WORKS, Base

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Runs the command line. Returns 1 where there are faults."""

    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("count", type=int, help="how many trials")
    parser.add_argument("--seed", type=int, default=0, help="of the trials (default: 0)")
    parser.add_argument("--works", default=",".join(WORKS), help="work in turn (default: all)")
    parser.add_argument("--kinds", default=",".join(DISTURBANCES), help="disturbances in turn (default: all)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "chaos", help="for the log and the faults")
    asked = parser.parse_args()

    forked.prepare()
    works, kinds = asked.works.split(","), asked.kinds.split(",")
    package = digest_of_sources(Path(asgt.__file__).parent, Path(__file__).parent)
    key = digest_of_sources(more=[package, asked.seed, works, kinds])
    folder = (asked.folder / f"seed-{asked.seed}-{key[:8]}").resolve()
    chaos = Chaos(folder, Base((asked.folder / f"base-{package[:8]}").resolve()), asked.seed, works, kinds)
    ledger = Ledger(folder / "log.jsonl", key, FAULTS)
    chaos.run(asked.count, ledger)
    sys.stdout.write(ledger.summary(asked.count).encode(errors="backslashreplace").decode() + "\n")
    full = Counter(trial.told for trial in ledger.trials.values() if trial.family.endswith("/full disk"))
    for means, times in sorted(full.items()):
        sys.stdout.write(f"full disk, {times} times: {means}\n")
    return int(bool(ledger.bad(asked.count)))


if __name__ == "__main__":
    raise SystemExit(main())
