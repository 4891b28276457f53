"""A fixed handful of ``make chaos``, and that it sees a disturbance which does harm."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.disturbances import DISTURBANCES, Fault, check_end
from chaos.trials import Chaos
from chaos.works import WORKS, Base
from support.forked import Ended
from support.paths import ROOT


@pytest.mark.slow
def test_a_fixed_handful_of_disturbances_does_no_harm(tmp_path: Path) -> None:
    # In a process of its own: a fork of this one would take the threads of other tests for its own.
    kinds = "kill,full disk,torn,clock,terminate,writers"
    words = ["--seed", "1", "--works", "train,evaluate", "--kinds", kinds, "--folder", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "6", *words],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nall 6 " in re.sub(" +", " ", done.stdout)
    # It says how the disk was made full.
    assert re.search("full disk, 1 times: a small tmpfs|full disk, 1 times: RLIMIT_FSIZE", done.stdout)


@pytest.mark.parametrize("works", [list(WORKS), list(WORKS)[:3], list(WORKS)[:1]])
def test_every_work_meets_every_disturbance(works: list[str], tmp_path: Path) -> None:
    chaos = Chaos(tmp_path, Base(tmp_path), 0, works, list(DISTURBANCES))
    count = len(works) * len(DISTURBANCES)
    assert len({chaos.named(number) for number in range(count)}) == count


@pytest.mark.parametrize(
    ("status", "signal", "err", "outcome"),
    [(1, None, "", "status"), (0, None, "", "status"), (2, None, "oh", "status"), (None, 11, "", "crash")],
)
def test_an_end_that_must_not_be_is_a_fault(status: int | None, signal: int | None, err: str, outcome: str) -> None:
    ended = Ended(status=status, signal=signal, timed_out=False, out="", err=err, seconds=1.0)
    with pytest.raises(Fault) as caught:
        check_end(ended, 2)
    assert caught.value.outcome == outcome


def test_a_refusal_in_one_line_is_an_end_that_may_be() -> None:
    check_end(Ended(status=2, signal=None, timed_out=False, out="", err="asgt: error: x\n", seconds=1.0), 0, 2)
