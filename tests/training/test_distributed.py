"""Several processes train one model: the same as one would, killed and resumed as one is, and refused in one voice."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from asgt.cli.stopping import stopping
from asgt.data import Images, crop_flip, training_batch, unchanged
from asgt.errors import InputError
from asgt.models import small_cnn
from asgt.randomness import Generators, SampleKeyed, Share, keys_like, normal_like, uniform_like
from asgt.training import world
from asgt.training.config import METHODS, TrainConfig
from asgt.training.methods import build_objective
from asgt.training.world import World, join
from support.command import Answer
from support.informed import told
from support.messages import assert_states
from support.trainings import assert_same, rows, step_of

# Processes that have torch already, and what a training imports late: a test then waits for two trainings, not for two
# imports.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("asgt.cli.train", "asgt.cli.console", "asgt.training.trainer", "sklearn.datasets"),
        *("accelerate", "rich.progress", "rich.table", "torch._dynamo"),
    ]
)

SLOW_FIXTURES = ("pair",)
PATIENCE = 240  # seconds
SMALL = ("--device", "cpu", "--limit", "300", "--batch-size", "30")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def place(rank: int, port: int, folder: Path) -> None:
    """Makes this process one of two, as a launcher does, with what it says in files."""

    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    os.environ.pop("ASGT_DATA", None)
    torch.set_num_threads(1)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{port}-{rank}.{name}", os.O_WRONLY | os.O_CREAT), number)


def command_line(rank: int, port: int, folder: Path, stands: Path, words: list[str]) -> None:
    """``asgt`` as one of two processes."""

    place(rank, port, folder)
    os.chdir(stands)

    from asgt.cli import main

    sys.exit(main(words))


class Pair:
    """Two processes that do one thing together."""

    def __init__(self, target: Callable[..., None], folder: Path, *arguments: tuple[Any, Any]) -> None:
        self.folder, self.port = folder, free_port()
        self.processes = [
            SERVER.Process(target=target, args=(rank, self.port, folder, *(both[rank] for both in arguments)))
            for rank in range(2)
        ]
        for process in self.processes:
            process.start()

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert all(process.exitcode is None for process in self.processes), self.answers()
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def signal(self, rank: int, number: int) -> None:
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def answers(self) -> list[Answer]:
        """What both said, once both have ended: within the time that is given, and not by being killed here."""

        deadline = time.monotonic() + PATIENCE
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))
        said = [
            [(self.folder / f"{self.port}-{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(2)
        ]
        assert all(process.exitcode is not None for process in self.processes), said
        return [Answer(process.exitcode, *both) for process, both in zip(self.processes, said, strict=True)]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    """Starts ``asgt`` in two processes, which may stand in different folders, and leaves none behind."""

    started = []

    def start(*words: object, stands: tuple[Path, Path] = (tmp_path, tmp_path)) -> Pair:
        line = list(map(str, words))
        started.append(Pair(command_line, tmp_path, stands, (line, line)))
        return started[-1]

    yield start
    for one in started:
        for process in one.processes:
            process.kill()
            process.join()
            process.close()


# The same as one -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        # Crops, operations, random starts and fills: the noise of a row must not depend on who draws it.
        ("--method", "st", "--augment", "crop-flip", "--average", "0.9"),
        ("--method", "st", "--augment", "randaugment"),
        ("--method", "asgt", "--steps", "3"),
        ("--method", "at", "--steps", "2", "--norm", "l2", "--eps", "0.5"),
        # Weights whose sum differs from one process's images to the other's, and the norm of the whole gradient.
        (
            *("--method", "st", "--label-smoothing", "0.1", "--class-weights", "9,1,1,1,1,1,1,1,1,0"),
            *("--clip-norm", "0.5"),
        ),
        # Where the shortcut lies, each process is told of its own images.
        ("--method", "rrr", "--shortcut", "disc:0.9", "--augment", "crop-flip"),
    ],
    ids=["st", "augmented", "asgt", "at", "weighted", "rrr"],
)
def test_two_processes_give_the_losses_of_one_with_the_same_batch(
    settings: tuple[str, ...], pair: Callable[..., Pair], cli: Callable[..., Answer], tmp_path: Path
) -> None:
    words = ("train", *settings, *SMALL, "--epochs", 3, "--schedule", "constant", "--lr", 0.1)
    both = pair(*words, "--out", "two")
    assert cli(*words, "--out", "one").status == 0
    assert [answer.status for answer in both.answers()] == [0, 0], both.answers()

    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 3
    # They move by far more than the tolerance.
    assert abs(one[-1]["loss"] - one[0]["loss"]) > 1e-3
    for alone, together in zip(one, two, strict=True):
        for name in {"loss", "clean", "adversarial", "consistency", "reasons", "gradient_norm"} & set(alone):
            assert together[name] == pytest.approx(alone[name], rel=0, abs=1e-5), name
    alone, together = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weights in alone.items():
        assert torch.allclose(together[name], weights, rtol=0, atol=1e-4), name

    # One whole set of files, and one voice.
    files = [sorted(file.name for file in (tmp_path / name).iterdir()) for name in ("one", "two")]
    assert files[0] == files[1]
    results = [json.loads((tmp_path / name / "training.json").read_text()) for name in ("one", "two")]
    assert [result["processes"] for result in results] == [1, 2]
    main, other = both.answers()
    [told] = [line for line in main.err.splitlines() if "processes" in line]
    assert_states(told, "2 processes", "15", "30")
    assert "run folder: two" in main.out
    assert (other.out, other.err) == ("", "")


@pytest.mark.parametrize("method", METHODS)
def test_the_mean_of_the_shares_losses_is_the_loss_of_the_whole_batch(method: str, double: None) -> None:
    # In float64, as TRADES starts where its gradient nearly vanishes, and float32's rounding chooses the direction.
    torch.manual_seed(0)
    net, x, y = small_cnn(1, 8, 10, width=0.5), torch.rand(12, 1, 8, 8), torch.arange(12) % 10
    objective = build_objective(TrainConfig(method=method).resolved())

    def losses(rows: slice, share: Callable[[torch.Generator], Any]) -> tuple[torch.Tensor, torch.Tensor]:
        streams = [share(torch.Generator().manual_seed(seed)) for seed in (1, 2)]
        net.zero_grad()
        loss = objective(net, x[rows], y[rows], generator=Generators(*streams), **told(objective, x[rows])).loss
        loss.backward()
        return loss.detach(), torch.cat([weight.grad.flatten() for weight in net.parameters()])

    whole, gradient = losses(slice(0, 12), lambda stream: stream)
    parts = [losses(slice(4 * r, 4 * r + 4), lambda stream, r=r: Share(stream, r, 3)) for r in range(3)]
    assert sum(loss for loss, _ in parts) / 3 == pytest.approx(float(whole), abs=1e-12)
    assert torch.allclose(sum(part for _, part in parts) / 3, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("like", [uniform_like, normal_like, keys_like])
def test_shares_of_noise_are_the_noise_of_the_whole_batch(like: Callable[..., torch.Tensor]) -> None:
    whole = like(torch.empty(12, 3, 5), torch.Generator().manual_seed(4))
    shares = [like(torch.empty(4, 3, 5), Share(torch.Generator().manual_seed(4), rank, 3)) for rank in range(3)]
    assert torch.equal(torch.cat(shares), whole)


def test_shares_of_a_batch_are_the_whole_batch_augmented() -> None:
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.arange(40) % 10, tuple("0123456789"))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    for generator in (torch.Generator(), Share(torch.Generator(), 0, 1)):
        # By another route: the rows by hand.
        x, y = training_batch(images, order, 1, 12, unchanged, generator)
        assert torch.equal(x, pixels[order[12:24]] / 255)
        assert torch.equal(y, images.labels[order[12:24]])

    moved = crop_flip(pixels[order[12:24]], torch.Generator().manual_seed(2)) / 255
    parts = [
        training_batch(images, order, 1, 12, crop_flip, Share(torch.Generator().manual_seed(2), rank, 4))
        for rank in range(4)
    ]
    assert [len(x) for x, _ in parts] == [3] * 4
    assert torch.equal(torch.cat([x for x, _ in parts]), moved)


def averaged(rank: int, port: int, folder: Path) -> None:
    place(rank, port, folder)
    here = join("cpu")
    net = nn.Sequential(nn.Linear(2, 1, bias=False), nn.BatchNorm1d(1))
    net.register_parameter("branch", nn.Parameter(torch.zeros(1)))
    here.spread(net)
    net[0].weight.grad = torch.full((1, 2), float(rank + 1))
    net[1].running_var.fill_(1 + 2 * rank)
    net[1](torch.tensor([[4.0 * rank], [4.0 * rank]]))
    if rank == 1:
        net.branch.grad = torch.full((1,), 6.0)
    values = here.average(net, {"loss": torch.tensor(float(rank))})
    rows = torch.arange(5)[here.part(5)] > 1
    found = {
        "weight": net[0].weight.grad,
        "mean": net[1].running_mean,
        "branch": net.branch.grad,
        "loss": values["loss"].view(1),
        "whole": here.whole(rows, 5),
        "most": torch.tensor(here.most(3 - rank)),
        "first": torch.tensor(here.from_main(lambda: 7 + rank)),
        "start": net[0].weight.detach(),
    }
    save_file(found, folder / f"{rank}.safetensors")


@pytest.mark.slow
def test_what_the_processes_find_is_averaged_on_all_of_them(tmp_path: Path) -> None:
    both = Pair(averaged, tmp_path)
    assert [answer.status for answer in both.answers()] == [0, 0], both.answers()
    found = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]
    # A network drawn without a seed starts as the main process's everywhere.
    assert torch.equal(found[0].pop("start"), found[1].pop("start"))
    for here in found:
        assert here["weight"].tolist() == [[1.5, 1.5]]
        # BatchNorm moves a tenth of the way: 0 on one process, 0.4 on the other.
        assert here["mean"].tolist() == pytest.approx([0.2])
        # What only one process reached counts as zero on the other.
        assert here["branch"].tolist() == [3.0]
        assert here["loss"].tolist() == [0.5]
        assert here["whole"].tolist() == [False, False, True, True, True]
        assert (here["most"].item(), here["first"].item()) == (3, 7)


@pytest.mark.parametrize(("count", "size"), [(7, 3), (6, 3), (100, 8), (2, 3)])
def test_parts_cover_all_rows_once_or_are_all_rows_each(count: int, size: int) -> None:
    parts = [list(range(count)[World(rank, size).part(count)]) for rank in range(size)]
    if count < size:
        assert parts == [list(range(count))] * size
    else:
        assert [row for part in parts for row in part] == list(range(count))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_world_of_one_hands_everything_through() -> None:
    alone, generator = World(), torch.Generator()
    values = {"loss": torch.tensor(2.0)}
    assert alone.share(generator) is generator
    assert alone.average(nn.Linear(1, 1), values) == values
    assert alone.whole(torch.tensor([True]), 1).tolist() == [True]
    assert (alone.most(1), alone.gathered("x"), alone.from_main(len, "four")) == (1, ["x"], 4)


def test_noise_keyed_by_sample_needs_no_share() -> None:
    x = torch.empty(4, 2)
    halves = [uniform_like(x[:2], SampleKeyed(0, torch.tensor(names))) for names in ([0, 1], [2, 3])]
    assert torch.equal(torch.cat(halves), uniform_like(x, SampleKeyed(0, torch.arange(4))))


# Killed and resumed --------------------------------------------------------------------------------------------------

# BatchNorm's statistics, the average of the weights and the augmentation have a state or a stream of their own.
RESUMED = (
    *("train", "--method", "asgt", "--steps", 2, "--model", "resnet18", "--width", 0.05, "--average", 0.9),
    *("--augment", "crop-flip", "--epochs", 2, "--checkpoint-every", 0, *SMALL),
)


def test_two_processes_killed_and_stopped_end_bit_identical(
    pair: Callable[..., Pair], cli: Callable[..., Answer], tmp_path: Path
) -> None:
    whole = pair(*RESUMED, "--out", "whole").answers()
    assert [answer.status for answer in whole] == [0, 0], whole
    [warned] = [line for line in whole[0].err.splitlines() if "BatchNorm" in line]
    assert_states(warned, "warning", "resnet18", "2 processes", "15")
    run, epoch = tmp_path / "run", rows(tmp_path / "whole")[0]["step"]
    assert epoch == 8

    # One is killed: the other one, which waits for it, does not wait for ever.
    killed = pair(*RESUMED, "--out", "run")
    killed.wait_until(lambda: 3 <= step_of(run) < epoch - 1)
    killed.signal(1, signal.SIGKILL)
    main, other = killed.answers()
    assert (main.status, other.status) == (130, -signal.SIGKILL)
    assert_states(main.err.splitlines()[-1], "process 0 of 2", "lost", "--resume", "checkpoint")
    assert 3 <= step_of(run) < epoch

    # One is asked to stop: all do, after the same step.
    stopped = pair(*RESUMED, "--out", "run", "--resume")
    stopped.wait_until(lambda: epoch + 2 <= step_of(run) < 2 * epoch - 2)
    stopped.signal(1, signal.SIGTERM)
    main, other = stopped.answers()
    assert (main.status, other.status) == (130, 130)
    step = step_of(run)
    assert epoch < step < 2 * epoch
    assert_states(main.err.splitlines()[-1], f"step {step} of {2 * epoch}", "asgt train --resume --out run")
    assert other.err == ""

    # Another number of processes would end elsewhere.
    assert_states(cli("train", "--out", "run", "--resume").failure(), "run", "2", "1", "same number")

    # The other host need not see the run folder, and then knows nothing of the run but what it is told.
    (tmp_path / "elsewhere").mkdir()
    last = pair("train", "--out", "run", "--resume", "--device", "cpu", stands=(tmp_path, tmp_path / "elsewhere"))
    answers = last.answers()
    assert [answer.status for answer in answers] == [0, 0], answers
    assert f"resumed after step {step}" in answers[0].err
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert_same(run, tmp_path / "whole")
    ends = [load_file(folder / "checkpoint.safetensors") for folder in (run, tmp_path / "whole")]
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


@pytest.mark.slow
def test_a_launcher_that_is_asked_to_stop_stops_the_run_with_a_checkpoint(
    child_environment: dict[str, str], tmp_path: Path
) -> None:
    launch = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1)
    quiet = ("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", free_port())
    run = tmp_path / "run"
    training = ("train", "--method", "st", *SMALL, "--epochs", 500, "--checkpoint-every", 0, "--out", run)
    words = [sys.executable, "-m", *map(str, (*launch, *quiet, "-m", "asgt", *training))]
    with subprocess.Popen(words, cwd=tmp_path, env=child_environment, stderr=subprocess.PIPE, text=True) as launcher:
        deadline = time.monotonic() + PATIENCE
        while step_of(run) < 3:
            assert launcher.poll() is None, launcher.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        launcher.send_signal(signal.SIGTERM)
        # Its end of the pipe, and both workers', are closed: none of the three is left.
        _, said = launcher.communicate(timeout=PATIENCE)

    [line] = [line for line in said.splitlines() if line.startswith("asgt: ")]
    assert_states(line, f"step {step_of(run)}", f"asgt train --resume --out {run}")
    assert sorted(file.name for file in run.iterdir() if file.name.endswith(".part")) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_that_a_launcher_passes_on_again_does_not_break_off_the_checkpoint(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    with stopping() as should_stop:
        assert not should_stop()
        signal.raise_signal(signal.SIGTERM)
        if processes == 1:
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        else:
            signal.raise_signal(signal.SIGTERM)
        assert should_stop()


# Refused in one voice ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (("--batch-size", "31"), ["--batch-size 31", "2 processes", "--batch-size 30"]),
        (("--limit", "47"), ["37", "2 processes", "--batch-size 36"]),
        (("--batch-size", "2", "--model", "resnet18", "--width", "0.05"), ["resnet18", "--batch-size", "4"]),
        (("--lr", "1e30", "--batch-size", "30"), ["loss", "epoch 0", "--lr"]),
    ],
)
def test_all_refuse_what_fits_none_and_one_says_so(
    settings: tuple[str, ...], says: list[str], pair: Callable[..., Pair]
) -> None:
    base = ("train", "--method", "st", "--device", "cpu", "--limit", "100", "--batch-size", "60", "--epochs", "1")
    main, other = pair(*base, *settings).answers()
    assert_states(main.failure(), *says)
    assert (other.status, other.out, other.err) == (2, "", "")


def test_what_one_host_lacks_stops_all_and_is_said(
    pair: Callable[..., Pair], image_folder: Callable[..., Path], tmp_path: Path
) -> None:
    image_folder("here/pets", {"cat": 12, "dog": 12})
    (tmp_path / "there").mkdir()
    words = ("train", "--method", "st", "--device", "cpu", "--data", "pets", "--batch-size", "4", "--epochs", "1")
    main, other = pair(*words, stands=(tmp_path / "here", tmp_path / "there")).answers()
    assert_states(main.refusal(), "process 1 of 2", "pets")
    assert (other.status, other.err) == (2, "")

    # The same name, other pictures.
    image_folder("there/pets", {"cat": 12, "dog": 13})
    main, other = pair(*words, stands=(tmp_path / "here", tmp_path / "there")).answers()
    assert_states(main.failure(), "processes", "training images", "pets")
    assert (other.status, other.err) == (2, "")
    assert not (tmp_path / "here" / "runs").exists()


def test_one_device_is_not_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(world, "resolve_device", torch.device)
    for name in ("cuda:1", "mps"):
        with pytest.raises(InputError) as refused:
            join(name)
        assert_states(refused.value, f"--device {name}", "4 processes", "--device cuda")


@pytest.mark.parametrize("verb", ["evaluate", "compare", "reproduce"])
def test_the_other_verbs_run_in_one_process(
    verb: str, cli: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_states(cli(verb, "runs/x").refusal(), verb, "one process", "2", "launcher")
