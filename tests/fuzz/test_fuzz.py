"""A fixed small share of ``make fuzz``, and the parts that must find faults: the oracle, the children, the log."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis.strategies import SearchStrategy

from fuzz.cases import Case, Step, build, draw, edit_value
from fuzz.documents import documents
from fuzz.flips import SEALED, ended_as
from fuzz.lines import flags_in, lines
from fuzz.outcomes import FAULTS, Verdict, judge
from fuzz.pictures import pictures
from fuzz.shrinking import shrunk
from fuzz.tables import tables
from support.forked import Ended
from support.ledger import Ledger, Trial
from support.paths import ROOT
from support.results import differences, results_in

FLAGS = {"train": ["--eps", "--out"], "compare": ["--out"]}


def python(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: a fork of this one would take the threads of other tests for its own."""

    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=os.environ | {"PYTHONPATH": paths} | more,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ended(
    status: int | None = 0, out: str = "", err: str = "", *, signal: int | None = None, late: bool = False
) -> Ended:
    return Ended(status=status, signal=signal, timed_out=late, out=out, err=err, seconds=1.0)


@pytest.mark.slow
def test_a_fixed_share_of_the_cases_and_of_the_flips_shows_no_fault(tmp_path: Path) -> None:
    # Every kind of sealed file: asgt verify and the reader notice each flip.
    flips = len(SEALED)
    done = python("-m", "fuzz", 20, "--seed", 1, "--flips", flips, "--folder", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[1] for line in lines if line[:1] == ["all"]] == ["20", str(flips)]
    assert {kind.split()[0] for kind in SEALED} <= {line[0] for line in lines if line}


@pytest.mark.slow
def test_a_forked_child_computes_like_its_parent_and_is_held_to_its_limits(tmp_path: Path) -> None:
    script = f"""
import signal, sys, time
from pathlib import Path
from support import forked
import torch
torch.set_num_threads(1)
folder = Path({str(tmp_path)!r}) / "work"
folder.mkdir()
torch.manual_seed(0)
net, x = torch.nn.Conv2d(1, 3, 3), torch.rand(2, 1, 8, 8)

def gradient():
    net.zero_grad()
    net(x).square().sum().backward()
    return net.weight.grad.sum().item()

def told():
    print(gradient())
    return 3

def hungry():
    bytearray(8 << 30)
    return 0

def late():
    time.sleep(60)
    return 0

first = forked.Child(told, folder).end()
assert (first.status, first.signal) == (3, None), first
assert float(first.out) == gradient(), first
second = forked.Child(hungry, folder).end()
assert second.status == 1 and "MemoryError" in second.err, second
third = forked.Child(late, folder, forked.Limits(seconds=2)).end()
assert third.timed_out and third.signal == signal.SIGKILL, third
assert "in late" in third.err, third
fourth = forked.Child(late, folder)
fourth.kill(signal.SIGTERM)
assert fourth.end().signal == signal.SIGTERM
fifth = forked.Child(forked.asgt(["train", "--eps", "nan"]), folder).end()
assert fifth.status == 2 and fifth.err.startswith("asgt: error: eps"), fifth
"""
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


# The oracle -----------------------------------------------------------------------------------------------------------


TRACEBACK = 'Traceback (most recent call last):\n  File "/x/asgt/runs/run.py", line 7, in f\nKeyError: 1\n'


@pytest.mark.parametrize(
    ("end", "outcome"),
    [
        (ended(0), "done"),
        (ended(130, err="asgt: interrupted\n"), "interrupted"),
        (ended(2, err="asgt: error: eps = nan\n"), "refused"),
        (ended(2, err="epoch 1\nasgt: error: eps = nan\n"), "refused"),
        (ended(2, err="asgt: error: eps = nan\nmore\n"), "traceback"),
        (ended(2, err="asgt: error: one\nasgt: error: two\n"), "traceback"),
        (ended(2), "traceback"),
        (ended(1), "traceback"),
        (ended(1, err=TRACEBACK), "traceback"),
        (ended(0, out=TRACEBACK), "traceback"),
        (ended(2, err=TRACEBACK + "asgt: error: x\n"), "traceback"),
        (ended(1, err=TRACEBACK.replace("KeyError: 1", "MemoryError")), "memory"),
        (ended(None, signal=9), "memory"),
        (ended(None, signal=11), "crash"),
        (ended(None, signal=9, late=True), "hang"),
    ],
)
def test_each_end_has_its_outcome(end: Ended, outcome: str, tmp_path: Path) -> None:
    verdict = judge(Case("line", "", (), ("train",)), tmp_path, end, None)
    assert verdict.outcome == outcome
    assert bool(verdict.kind) == (outcome in FAULTS)


@pytest.mark.parametrize(
    ("words", "step", "written", "err", "outcome"),
    [
        ("evaluate run", Step("flip", "run/a.json"), '{"accuracy": 0.5, "seconds": 9}', "", "done"),
        ("evaluate run", Step("flip", "run/a.json"), '{"accuracy": 0.6, "seconds": 1}', "", "silent"),
        ("evaluate run", Step("flip", "run/a.json"), "", "", "silent"),
        ("evaluate run", Step("flip", "run/a.json"), '{"accuracy": 0.6}', "warning: unverified", "silent"),
        ("evaluate run", Step("delete", "run/manifest.json"), '{"accuracy": 0.6}', "warning: unverified", "done"),
        ("verify run", Step("flip", "run/a.json"), '{"accuracy": 0.5}', "", "silent"),
        ("verify run", Step("delete", "run/a.json"), '{"accuracy": 0.5}', "", "silent"),
        ("verify run", Step("flip", "other/a.json"), '{"accuracy": 0.5}', "", "done"),
    ],
)
def test_other_figures_than_those_of_the_whole_folder_are_silent_unless_said(
    words: str, step: Step, written: str, err: str, outcome: str, tmp_path: Path
) -> None:
    case = Case("run", "", (step,), tuple(words.split()), tuple(words.split()), ("out",))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text(written)
    right = {"stdout": "", "out/result.json": '{"accuracy": 0.5}'}
    assert judge(case, tmp_path, ended(0, err=err), right).outcome == outcome


@pytest.mark.parametrize(
    ("verdict", "err", "outcome"),
    [
        (Verdict("refused"), "asgt: error: run/a.json is damaged", "refused"),
        (Verdict("silent"), "run/a.json is damaged", "silent"),
        (Verdict("done"), "warning: run/a.json is damaged: made again", "mended"),
        (Verdict("done"), "warning: run/b.json is damaged: made again", "reader missed it"),
        (Verdict("done"), "", "reader missed it"),
    ],
)
def test_a_reader_that_says_nothing_of_a_flip_has_missed_it(verdict: Verdict, err: str, outcome: str) -> None:
    assert ended_as(verdict, ended(0, err=err), "a.json") == outcome


def test_results_are_compared_without_what_differs_from_call_to_call(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    def results(name: str, value: float, **metadata: str) -> Mapping[str, str]:
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((3,), value)}, tmp_path / name / "m.safetensors", metadata)
        (tmp_path / name / "manifest.json").write_text(name)
        (tmp_path / name / "r.json").write_text(f'{{"seconds": {value}, "own": [{{"versions": "{name}"}}]}}')
        return results_in(tmp_path / name)

    first = results("first", 1.0, seconds="1")
    assert differences(dict(first), dict(results("second", 1.0, seconds="2"))) == []
    assert differences(dict(first), dict(results("third", 1.5))) == ["m.safetensors"]
    assert differences(dict(first), {}) == ["m.safetensors", "r.json"]


# Cases ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy", [lambda: lines(FLAGS), documents, pictures, tables], ids=["lines", "documents", "pictures", "tables"]
)
def test_a_seed_and_a_number_give_the_same_case_and_others_give_others(
    strategy: Callable[[], SearchStrategy[Case]],
) -> None:
    def cases(seed: int) -> list[Case]:
        return [draw({"x": strategy()}, seed, number, ["x"]) for number in range(12)]

    assert cases(0) == cases(0)
    assert len({repr(case) for case in [*cases(0), *cases(1)]}) > 16


@pytest.mark.parametrize(
    ("step", "content"),
    [
        (Step("flip", "a", b"\x03", 0.5), b"01234=6789"),
        (Step("cut", "a", place=0.3), b"012"),
        (Step("insert", "a", b"xy", 0.2), b"01xy23456789"),
        (Step("zero", "a", bytes(3), 0.9), b"012345678\0"),
        (Step("swap", "a", text="b"), b"other"),
        (Step("delete", "a"), None),
        (Step("write", "a", b"new"), b"new"),
    ],
)
def test_a_step_changes_a_file(step: Step, content: bytes | None, tmp_path: Path) -> None:
    (tmp_path / "material" / "base").mkdir(parents=True)
    (tmp_path / "material" / "base" / "a").write_bytes(b"0123456789")
    (tmp_path / "material" / "b").write_bytes(b"other")
    build(Case("run", "base", (step,), ()), tmp_path / "material", tmp_path / "work")
    file = tmp_path / "work" / "a"
    assert (file.read_bytes() if file.exists() else None) == content


@pytest.mark.parametrize(
    ("place", "how", "expected"),
    [
        (0.0, "double", {"a": 4, "b": [1, {"c": "x"}]}),
        (0.5, "negative", {"a": 2, "b": [-1, {"c": "x"}]}),
        (0.99, "longer", {"a": 2, "b": [1, {"c": "xx"}]}),
        (0.3, "empty list", {"a": 2, "b": []}),
        (0.3, "remove", {"a": 2}),
        (0.3, "double", {"a": 2, "b": [1, {"c": "x"}] * 2}),
        (0.0, "shorter", {"a": "odd", "b": [1, {"c": "x"}]}),
    ],
)
def test_an_edit_changes_one_value(place: float, how: str, expected: object) -> None:
    assert edit_value({"a": 2, "b": [1, {"c": "x"}]}, place, how) == expected


def test_the_flags_of_a_verb_are_read_from_its_help() -> None:
    assert flags_in("usage: x\n\noptions:\n  -h, --help  Show.\n  --a-b       text --c\n") == ["--help", "--a-b"]


def test_a_fault_is_made_small() -> None:
    document = Step("write", "g.yaml", b"a: 1\nb: 2\nc: 3\n")
    case = Case("yaml", "", (Step("folder", "x"), document), ("train", "--config", "g.yaml", "--out", "out"))

    def shows_fault(other: Case) -> bool:
        return "g.yaml" in other.words and any(b"b: 2\n" in step.content for step in other.steps)

    assert shrunk(case, shows_fault) == Case("yaml", "", (Step("write", "g.yaml", b"b: 2\n"),), ("g.yaml",))


def test_the_log_goes_on_and_forgets_what_other_code_did(tmp_path: Path) -> None:
    file = tmp_path / "log.jsonl"
    ledger = Ledger(file, "key", FAULTS)
    ledger.add(Trial(0, "line", "done"))
    ledger.add(Trial(2, "line", "traceback", "KeyError", kind="KeyError"))
    with open(file, "a") as log:
        log.write('{"number": 1, "fam')
    again = Ledger(file, "key", FAULTS)
    assert again.left(4) == [1, 3]
    assert [trial.number for trial in again.bad(4)] == [2]
    assert "traceback line 2: KeyError" in again.summary(4)
    again.add(Trial(1, "line", "done"))
    assert Ledger(file, "key", FAULTS).left(4) == [3]
    assert Ledger(file, "other", FAULTS).left(2) == [0, 1]
