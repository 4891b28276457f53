"""What a step costs, as users see it: ``asgt profile``, and the speed that ``asgt train`` prints and records."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from asgt.attacks import FGSM
from asgt.files import read_json
from asgt.passes import Meter, a_pass, input_gradient
from asgt.training.config import TrainConfig
from asgt.training.counting import bare_passes
from asgt.training.objectives import AT, ST
from asgt.training.run_folder import RunFolder
from asgt.training.speed import Display, Stopwatch, speed_text
from asgt.training.timing import in_turn, profile_step
from asgt.training.trainer import train
from support.edits import rewritten
from support.messages import assert_states

SMALL = ("--data-shape", "1x8x8", "--batch-size", 4, "--repetitions", 1)
CPU = torch.device("cpu")


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a printed table, by the method."""

    lines = [line.split() for line in text.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 6 and cells[1].isdigit()}


@pytest.mark.slow
def test_profile_prints_all_methods(cli: Callable) -> None:
    answer = cli("profile", "--model", "resnet18", "--width", 0.05, *SMALL)

    assert answer.status == 0, answer.err
    table = rows(answer.out)
    # Of a net with BatchNorm, as the algorithms say: F = 1, to the images 1, to the weights 2; seven steps of PGD.
    assert {name: int(cells[0]) for name, cells in table.items()} == {
        "ST": 3,
        "AT-FGSM": 5,
        "AT-PGD": 17,
        "TRADES": 21,
        "SGT": 8,
        "SGA-FGSM": 10,
        "SGA": 22,
        "ASGT-FGSM": 13,
        "ASGT-PGD": 25,
        # One to the images, and two back through that.
        "RRR": 6,
    }
    for _, step, bare, ratio, rate in table.values():
        # Of one repetition, as asked for here, the ratio is that of the two times.
        assert float(ratio) == pytest.approx(float(step) / float(bare), abs=0.05 + 0.1 * float(ratio))
        assert float(rate) == pytest.approx(4e3 / float(step), rel=0.2, abs=1)
    assert "4 images of 1×8×8" in answer.out


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        (("--attack", "fgsm"), 11),
        (("--attack", "fgsm", "--target", "log_prob"), 10),
        (("--attack", "fgsm", "--target", "log_prob", "--detach-clean"), 9),
        (("--steps", 2), 14),
    ],
)
def test_profile_counts_what_sharing_leaves_of_asgt(cli: Callable, words: tuple[object, ...], passes: int) -> None:
    answer = cli("profile", "--method", "asgt", "--model", "small_cnn", *SMALL, *words)

    assert answer.status == 0, answer.err
    (cells,) = rows(answer.out).values()
    assert int(cells[0]) == passes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--data-shape", "32x32"), "--data-shape 32x32"),
        (("--data-shape", "3x0x32"), "--data-shape 3x0x32"),
        (("--classes", 1), "--classes 1"),
        (("--repetitions", 0), "--repetitions 0"),
        (("--method", "asgd"), "asgt"),
        (("--method", "st", "--k", 0.2), "--k 0.2"),
        (("--model", "resnet"), "resnet18"),
        (("--model", "resnet18", "--width", 0.05, "--batch-size", 1), "--batch-size"),
        (("--epochs", 3), "--epochs"),
    ],
)
def test_profile_refuses_in_a_line_what_cannot_be_meant(cli: Callable, words: tuple[object, ...], says: str) -> None:
    answer = cli("profile", "--data-shape", "1x8x8", *words)

    assert answer.status == 2
    assert len(answer.err.strip().splitlines()) == 1
    assert_states(answer.err, says)


def test_a_profile_times_both_sides_in_turn_and_leaves_the_model_in_its_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])

    found = profile_step(AT(FGSM(0.1)), model, x, y, optimizer, repetitions=2)

    assert (found.passes, found.samples) == (5, 5)
    assert found.ratio == pytest.approx((found.steps[0] / found.bares[0] + found.steps[1] / found.bares[1]) / 2)
    assert 0 < found.interval[0] <= found.ratio <= found.interval[1]
    assert found.step == pytest.approx(sum(found.steps) / 2)
    assert all(module.training for module in model.modules())
    assert [bare.passes for bare in bare_passes(ST())] == [3]


def test_sides_take_turns_and_the_first_of_each_is_not_timed() -> None:
    calls: list[str] = []

    taken = in_turn({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, CPU)

    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert {name: len(seconds) for name, seconds in taken.items()} == {"a": 2, "b": 2}


# The speed of a run --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_prints_and_records_its_speed(cli: Callable, tmp_path: Path) -> None:
    answer = cli("train", "--steps", 2, "--epochs", 2, "--limit", 200, "--out", "run")

    assert answer.status == 0, answer.err
    # ASGT on a net whose modes agree: 3 · 3 + 2 · 2 for the attack + 1 for the saliency of a view.
    assert "14 passes per step" in answer.out
    assert re.search(r"14 passes per step, \d+ CPU threads", answer.err)
    assert len(re.findall(r"\d+ images/s, \d+\.\d% of the time outside the passes", answer.err)) == 2
    for row in RunFolder(tmp_path / "run").rows():
        assert row["speed"]["samples_per_second"] > 0
        assert 0 < row["speed"]["outside_passes"] < 1
    speed = read_json(tmp_path / "run" / "training.json")["speed"]
    assert speed["passes_per_step"] == 14
    assert speed["threads"] == torch.get_num_threads()
    assert speed["keeps_memory"] == sys.platform.startswith("linux")


def test_a_result_without_speed_is_read(tmp_path: Path) -> None:
    train(TrainConfig(method="st", epochs=1, limit=100), tmp_path / "run")
    path = tmp_path / "run" / "training.json"
    rewritten(path, {name: value for name, value in read_json(path).items() if name != "speed"})

    assert RunFolder(tmp_path / "run").load_result().speed == {}


def test_a_meter_takes_the_time_of_passes_and_of_nothing_else() -> None:
    class Slow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.02)
            return x.flatten(1)

    meter, x = Meter(CPU), torch.rand(2, 1, 2, 2)
    with meter.on():
        input_gradient(Slow(), x, torch.sum)
        with a_pass():
            time.sleep(0.03)
        time.sleep(0.2)
    input_gradient(Slow(), x, torch.sum)

    assert 0.05 <= meter.read() < 0.2  # type: ignore[operator]
    assert meter.read() == 0
    assert Meter(torch.device("meta")).read() is None


def test_a_stopwatch_tells_laps_and_their_sum() -> None:
    watch = Stopwatch(CPU, 13)
    for samples in (30, 10):
        watch.start()
        with watch.meter.on(), a_pass():
            time.sleep(0.05)
        watch.count(samples)
        lap = watch.lap()
        assert 0.3 * samples / 0.05 < lap["samples_per_second"] <= samples / 0.05  # type: ignore[operator]

    whole = watch.summary()
    assert whole["passes_per_step"] == 13
    assert 0.3 * 40 / 0.1 < whole["samples_per_second"] <= 40 / 0.1
    assert 0 <= whole["outside_passes"] < 0.9
    assert speed_text({"samples_per_second": 812.4, "outside_passes": 0.031}) == (
        "812 images/s, 3.1% of the time outside the passes"
    )
    assert speed_text({"samples_per_second": 812.4, "outside_passes": None}) == "812 images/s"


def test_a_display_shows_means() -> None:
    sums = {"loss": torch.tensor(6.0), "accuracy": torch.tensor(3.0), "steps": torch.tensor(4.0)}

    assert Display(CPU).offer(sums) == {"loss": 1.5, "accuracy": 0.75}


# Memory --------------------------------------------------------------------------------------------------------------

FAULTS = """
import resource, sys
import torch
from asgt.memory import keeps_memory, prepare

if sys.argv[1] == "prepared":
    prepare()
assert keeps_memory() == (sys.argv[1] == "prepared")
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    kept = [torch.ones(48 << 18) for _ in range(2)]  # 48 MB each
for _ in range(10): step()  # until the heap has found its size
before = faults()
for _ in range(5): step()
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="memory is kept with glibc alone")
def test_memory_that_is_kept_is_not_cleared_again(child_environment: dict[str, str]) -> None:
    faults = {}
    for name in ("prepared", "as it is"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, name], env=child_environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        faults[name] = int(done.stdout)

    # Ten blocks of 48 MB are 120,000 pages of 4 kB; huge pages are fewer.
    assert faults["as it is"] > 200
    assert faults["prepared"] < faults["as it is"] / 10


@pytest.mark.slow
def test_threads_that_the_user_chose_are_left_alone(child_environment: dict[str, str]) -> None:
    script = "import torch; from asgt.memory import prepare; prepare(); print(torch.get_num_threads())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={name: value for name, value in child_environment.items() if name != "MKL_NUM_THREADS"}
        | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
