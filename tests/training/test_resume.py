"""A run that is killed or stopped loses at most the steps since its checkpoint, and ends where it would have ended."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from asgt.errors import InterruptedRunError
from asgt.files import read_json, read_tensors
from asgt.training.config import TrainConfig
from asgt.training.trainer import train
from support.command import Answer
from support.messages import assert_states
from support.trainings import assert_same, rows, step_of
from support.warm import Running, Warm

SLOW_FIXTURES = ("start",)
SMALL = ("--limit", "300", "--batch-size", "30", "--checkpoint-every", "0")
RUNS = {
    "asgt on small_cnn": ("--method", "asgt", "--steps", "5", "--epochs", "3", *SMALL),
    # BatchNorm's buffers, the average of the weights and the augmentation have a state or a stream of their own.
    "averaged resnet18": (
        *("--method", "at", "--steps", "2", "--model", "resnet18", "--width", "0.05", "--average", "0.9"),
        *("--augment", "resized-crop", "--epochs", "3", *SMALL),
    ),
}


@pytest.fixture
def start(tmp_path: Path, forks: Warm) -> Iterator[Callable[..., Running]]:
    """Starts ``asgt`` as a process of its own, and leaves none behind."""

    children: list[Running] = []

    def call(*words: object) -> Running:
        children.append(forks.start(*words, cwd=tmp_path))
        return children[-1]

    yield call
    for child in children:
        child.kill()
        child.communicate()


def wait_until(holds: Callable[[], bool], child: Running) -> None:
    """Waits for something that a process does; fails if it ends, or takes more than a minute, without doing it."""

    deadline = time.monotonic() + 60
    while not holds():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The same run in one go, by its name in ``RUNS``: made once, in this process."""

    from asgt.cli import main

    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("uninterrupted") / "run"
            assert main(["train", "--out", str(made[name]), *RUNS[name]]) == 0
        return made[name]

    return make


# Killed --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_again_and_again_ends_bit_identical(
    name: str, start: Callable, uninterrupted: Callable, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    epoch = rows(uninterrupted(name))[0]["step"]
    assert epoch >= 8
    last = rows(uninterrupted(name))[-1]["step"] - epoch
    moments: dict[str, Callable[[], bool]] = {
        "before the first checkpoint": (run / "config.yaml").exists,
        "in the middle of the first epoch": lambda: 3 <= step_of(run) <= 5,
        "at the end of an epoch, beside its line": lambda: len((run / "metrics.jsonl").read_text().splitlines()) >= 2,
        "in the middle of the last epoch": lambda: last + 3 <= step_of(run) <= last + 5,
    }

    reached = []
    for holds in moments.values():
        # The first one saves at the end of an epoch only: that leaves time to kill it before.
        rarely = () if reached else ("--checkpoint-every", 300)
        child = start("train", "--resume", "--out", run, *RUNS[name], *rarely)
        wait_until(holds, child)
        child.kill()
        assert child.wait() == -signal.SIGKILL
        assert not (run / "training.json").exists()
        reached.append(step_of(run))
    # It was killed where it should be, and each time it went on from where it stood.
    assert reached[0] == 0
    assert reached[1] % epoch != 0 != reached[3] % epoch
    assert reached == sorted(reached)

    child = start("train", "--resume", "--out", run, "--checkpoint-every", 0)
    _, errors = child.communicate()
    assert child.returncode == 0, errors
    assert f"resumed after step {reached[-1]}" in errors

    assert_same(run, uninterrupted(name))


def test_what_a_kill_leaves_between_an_epochs_line_and_its_checkpoint_is_cut_back(
    cli: Callable, stopped_run: Path, whole: Path
) -> None:
    metrics = stopped_run / "metrics.jsonl"
    later = metrics.read_text().replace('"epoch": 0, "step": 20', '"epoch": 1, "step": 40')
    assert later != metrics.read_text()
    metrics.write_text(metrics.read_text() + later)

    assert cli("train", "--resume", "--out", stopped_run).status == 0

    assert_same(stopped_run, whole)


@pytest.mark.parametrize("torn", ['{"epoch": 1, "st', "{", '{"epoch": 1, "step": 40, "loss": 1.2'])
def test_a_torn_last_line_of_the_metrics_is_cut_back(cli: Callable, stopped_run: Path, whole: Path, torn: str) -> None:
    with open(stopped_run / "metrics.jsonl", "a") as file:
        file.write(torn)

    assert cli("train", "--resume", "--out", stopped_run).status == 0

    assert_same(stopped_run, whole)


def test_what_a_kill_left_half_written_is_never_read_and_is_swept_away(
    cli: Callable, stopped_run: Path, whole: Path
) -> None:
    for name in ("model.safetensors", "checkpoint.safetensors", "metrics.jsonl"):
        content = (stopped_run / name).read_bytes()
        # Half a file beside its place, as another process wrote it.
        (stopped_run / f".{name}.4711.part").write_bytes(content[: len(content) // 2])

    assert cli("train", "--resume", "--out", stopped_run).status == 0

    assert_same(stopped_run, whole)
    assert {file.name for file in stopped_run.iterdir()} == {file.name for file in whole.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("state", ["no folder", "empty folder", "configuration only", "configuration being written"])
def test_resume_where_nothing_was_saved_starts_from_the_beginning(
    cli: Callable, whole: Path, tmp_path: Path, state: str
) -> None:
    run = tmp_path / "run"
    if state != "no folder":
        run.mkdir()
    if state == "configuration only":
        shutil.copy(whole / "config.yaml", run)
    if state == "configuration being written":
        (run / ".config.yaml.4711.part").write_text("data: dig")

    answer = cli("train", "--resume", "--out", run, *STOPPED)

    assert answer.status == 0, answer.err
    assert "resumed" not in answer.err
    assert_same(run, whole)


# Stopped -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_with_a_checkpoint_and_it_ends_bit_identical(
    stop: signal.Signals, start: Callable, cli: Callable, uninterrupted: Callable, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    reference = uninterrupted("asgt on small_cnn")
    epoch, _, total = (row["step"] for row in rows(reference))
    # Without the flag that saves after every step: it is the signal that makes it save.
    child = start("train", "--out", run, *RUNS["asgt on small_cnn"][:-2])
    wait_until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text() != "", child)

    child.send_signal(stop)
    _, errors = child.communicate()

    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    step = step_of(run)
    assert epoch <= step < total
    assert_states(errors.splitlines()[-1], f"step {step} of {total}", f"asgt train --resume --out {run}")

    answer = cli("train", "--resume", "--out", run, "--checkpoint-every", 0)
    assert answer.status == 0, answer.err
    assert f"resumed after step {step}" in answer.err
    assert rows(run) == rows(reference)
    assert (run / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_run_stopped_after_any_step_ends_bit_identical(image_folder: Callable, tmp_path: Path) -> None:
    # AlexNet has dropout; images of 16 px are the smallest it takes.
    folder = image_folder("pets", {"cat": 22, "dog": 22}, size=(16, 16), mode="RGB")
    config = TrainConfig(
        **{"data": str(folder), "model": "alexnet", "width": 0.05, "method": "sga", "steps": 2, "epochs": 2},
        **{"batch_size": 8, "augment": "randaugment", "average": 0.5, "device": "cpu"},
    )
    train(config, tmp_path / "whole")
    total = step_of(tmp_path / "whole")
    assert total == 2 * 4

    for stop in range(1, total):
        run = tmp_path / f"stopped-{stop}"
        steps = iter(range(1, total))
        with pytest.raises(InterruptedRunError, match=f"step {stop} of {total}"):
            train(config, run, should_stop=lambda steps=steps, stop=stop: next(steps) == stop)
        assert step_of(run) == stop

        train(config, run, resume=True)
        assert_same(run, tmp_path / "whole")


def test_a_run_asked_to_stop_after_its_last_step_is_finished(tmp_path: Path) -> None:
    config = TrainConfig(method="st", epochs=1, limit=100, batch_size=30)
    steps = iter([False, False, True])

    train(config, tmp_path / "run", should_stop=lambda: next(steps))

    assert (tmp_path / "run" / "training.json").exists()


def test_a_finished_run_resumed_says_so_and_changes_nothing(cli: Callable, finished_run: Path) -> None:
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished_run.iterdir()}

    answer = cli("train", "--resume", "--out", finished_run)

    assert answer.status == 0
    assert "finished already" in answer.err
    assert str(finished_run) in answer.out
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in finished_run.iterdir()} == before


def test_another_number_of_threads_is_said(stopped_run: Path) -> None:
    heard: list[str] = []

    class Listener:
        warn = staticmethod(heard.append)

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *_, **__: None

    config = TrainConfig.load(stopped_run / "config.yaml")
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(InterruptedRunError):
            train(config, stopped_run, resume=True, should_stop=lambda: True, progress=Listener())
    finally:
        torch.set_num_threads(threads)

    assert len(heard) == 1
    assert_states(heard[0], "threads", threads, threads + 1)


# The seed ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(cli: Callable, tmp_path: Path) -> None:
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        # What the process drew before has no bearing.
        torch.rand(len(name) + seed)
        answer = cli("train", "--steps", 2, "--epochs", 1, "--limit", 200, "--seed", seed, "--out", name)
        assert answer.status == 0, answer.err

    def weights(name: str) -> bytes:
        return (tmp_path / name / "model.safetensors").read_bytes()

    assert weights("a") == weights("b")
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert weights("a") != weights("c")
    assert rows(tmp_path / "a") != rows(tmp_path / "c")


def test_training_leaves_the_global_generator_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(5)

    torch.manual_seed(3)
    train(TrainConfig(method="st", epochs=1, limit=100), tmp_path / "run")

    assert torch.equal(torch.rand(5), expected)


# Evaluations ---------------------------------------------------------------------------------------------------------


def test_a_killed_evaluation_keeps_what_it_finished(
    start: Callable, cli: Callable, finished_run: Path, tmp_path: Path
) -> None:
    asked = ("evaluate", finished_run, "--protocol", "paper", "--epsilons", "0.1,0.2", "--samples", 120)
    folder = tmp_path / "evidence"
    child = start(*asked, "--out", folder)
    wait_until(lambda: any(folder.glob("*.safetensors")), child)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    kept = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.glob("*.safetensors")}
    assert not (folder / "result.json").exists()

    resumed = cli(*asked, "--out", folder, "--resume")
    whole = cli(*asked, "--out", tmp_path / "whole")

    assert resumed.status == whole.status == 0
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in kept} == kept
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        file.name for file in (tmp_path / "whole").iterdir()
    )
    for file in (tmp_path / "whole").iterdir():
        assert timeless(folder / file.name) == timeless(file)
    assert table(resumed) == table(whole)


def timeless(path: Path) -> object:
    """What a file of an evaluation holds, without the seconds that it took."""

    if path.suffix == ".json":
        return read_json(path) | {"seconds": None, "sha256": None, "files": None}
    tensors, metadata = read_tensors(path)
    return {name: tensor.tolist() for name, tensor in tensors.items()}, metadata | {"seconds": None}


def table(answer: Answer) -> list[str]:
    """What an evaluation printed, without where it keeps its evidence."""

    return [line for line in answer.out.splitlines() if not line.startswith("evidence:")]


# The uninterrupted run of ``stopped_run`` ----------------------------------------------------------------------------

STOPPED = (
    *("--method", "st", "--epochs", 2, "--limit", 450, "--batch-size", 20),
    *("--schedule", "constant", "--lr", 0.1),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``stopped_run`` would have become."""

    from asgt.cli import main

    run = tmp_path_factory.mktemp("whole") / "run"
    assert main(["train", "--out", str(run), *map(str, STOPPED)]) == 0
    return run
