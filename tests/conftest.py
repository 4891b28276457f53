"""Fixtures of all tests: the command line in this process and in its own, image folders, a trained run."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from support.browser import Browser, started
from support.command import Answer, plain_environment
from support.paths import ROOT
from support.shortcuts import draw_digests
from support.warm import Running, Warm, warmed

if TYPE_CHECKING:
    from torch import Tensor, nn

# Before the libraries are imported: no test waits for a network, and none leaves its tables in the user's cache.
# One thread: the nets here are so small that several only wait for each other.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
_CACHE = tempfile.mkdtemp(prefix="asgt-tests-")
os.environ["HF_DATASETS_CACHE"] = _CACHE
# The workers of a run share what one of them has decoded.
os.environ.setdefault("ASGT_CACHE", f"{_CACHE}/decoded")

# By their processor time.
_LONG = (
    *("test_reproduce", "test_examples", "test_notebooks", "test_house", "test_report", "test_distributed"),
    *("test_results", "test_fuzz", "test_chaos", "test_exporting", "test_resume", "test_docstrings", "test_schemas"),
)

_DATA = Path(os.environ.get("ASGT_DATA") or ROOT / ".." / "shared" / "data").resolve()


def pytest_unconfigure() -> None:
    shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that starts ``asgt`` as a process is slow, and one on a fixture of its module's ``SLOW_FIXTURES``.

    Long files come first: at the end, a process that had one left would work while the others wait.
    """

    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))
    for item in items:
        if isinstance(item, pytest.Function):
            slow = {"process", "warm", "warm_workers", *getattr(item.module, "SLOW_FIXTURES", ())}
            if slow & {*item.fixturenames}:
                item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Figures are drawn in the tests of their looks alone, and in what these set up: it takes most of a page's time."""

    from matplotlib.figure import Figure

    drawn = Figure.savefig
    if item.get_closest_marker("draws") is None or "no_files" in getattr(item, "fixturenames", ()):
        draw_digests()
    try:
        return (yield)
    finally:
        Figure.savefig = drawn  # type: ignore[method-assign]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """``asgt`` in this process, standing in an empty folder."""

    from asgt.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASGT_DATA", raising=False)
    # A user's own factory is looked for where they stand, which is different in every test.
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*words: object) -> Answer:
        capsys.readouterr()
        status = main([str(word) for word in words])
        said = capsys.readouterr()
        return Answer(status, said.out, said.err)

    return call


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What tests import from their working directories is forgotten before a test and after it."""

    from asgt import plugins

    def forget() -> None:
        for name in list(sys.modules):
            if name.partition(".")[0] in {"evilm", "evilp", "mine", "beside", "library", "spaced"}:
                del sys.modules[name]

    forget()
    others = [finder for finder in sys.meta_path if not isinstance(finder, plugins._WorkingDirectory)]
    monkeypatch.setattr(plugins, "_WORKING_DIRECTORY", plugins._WorkingDirectory())
    monkeypatch.setattr(sys, "meta_path", others)
    yield
    forget()


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Puts a function into the place of the verb ``train``."""

    def put(work: Callable[[], object]) -> None:
        def run(words: list[str]) -> int:
            work()
            return 0

        monkeypatch.setattr("asgt.cli.entry._run", run)

    return put


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the figures' files out, which are no part of the page; what is on it says what would be drawn."""

    written = {
        "sections.curves_section": ("robustness_curves",),
        "sections.training_section": ("write_charts",),
        "map_files": ("write_maps", "write_contact_sheet", "write_charts", "write_scatter"),
    }
    for module, names in written.items():
        for name in names:
            monkeypatch.setattr(importlib.import_module(f"asgt.report.{module}"), name, lambda *_, **__: None)


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Answer]:
    """``asgt`` as a process of its own, as a user starts it."""

    def call(
        *words: object, environment: Mapping[str, str] | None = None, preexec: Callable[[], None] | None = None
    ) -> Answer:
        ended = subprocess.run(
            [sys.executable, "-m", "asgt", *map(str, words)],
            cwd=tmp_path,
            env=plain_environment() | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=120,
            preexec_fn=preexec,
            check=False,
        )
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    return call


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """The process that forks those of ``warm`` and ``warm_workers``."""

    if sys.platform != "linux":
        pytest.skip("processes are forked on Linux alone")
    with warmed(tmp_path_factory.mktemp("warm")) as made:
        yield made


@pytest.fixture
def warm(forks: Warm, tmp_path: Path) -> Callable[..., Answer]:
    """``asgt`` as a process of its own that has imported everything already: seconds less than ``process``."""

    return partial(forks.answer, cwd=tmp_path)


@pytest.fixture
def warm_workers(forks: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers of a grid that is run in this process have imported everything already."""

    def start(words: object, **options: Any) -> Running:
        return forks.start(kind="worker", cwd=Path.cwd(), environment=options["env"])

    quick = SimpleNamespace(Popen=start, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired)
    monkeypatch.setattr("asgt.experiments.local.subprocess", quick)


@pytest.fixture
def child_environment() -> dict[str, str]:
    return plain_environment()


@pytest.fixture
def double() -> Iterator[None]:
    """Tensors are made in float64, an oracle's too: rounding then leaves two searches on the same path."""

    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def digits_net() -> tuple[nn.Module, Tensor, Tensor]:
    """A small net, somewhat robust, with 400 digits that it has not seen and their labels."""

    import torch
    import torch.nn.functional as F
    from sklearn.datasets import load_digits

    from asgt.attacks import PGD
    from asgt.models.small_net import small_cnn

    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = small_cnn(1, 8, 10, width=0.5)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for epoch in range(6):
            for rows in torch.randperm(len(y) - 400).split(50):
                images = PGD(eps=0.12, steps=2)(net, x[rows], y[rows]) if epoch > 1 else x[rows]
                optimizer.zero_grad()
                F.cross_entropy(net(images), y[rows]).backward()
                optimizer.step()
    return net.eval(), x[-400:], y[-400:]


@pytest.fixture(scope="session")
def _finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from asgt.training.config import TrainConfig
    from asgt.training.trainer import train

    out = tmp_path_factory.mktemp("finished") / "run"
    train(TrainConfig(method="st", epochs=1, limit=450, batch_size=20), out)
    return out


@pytest.fixture
def finished_run(_finished: Path, tmp_path: Path) -> Path:
    """A finished run folder on the digits, small_cnn by ST, for the test to damage as it likes."""

    return shutil.copytree(_finished, tmp_path / "finished")


@pytest.fixture(scope="session")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from asgt.errors import InterruptedRunError
    from asgt.training.config import TrainConfig
    from asgt.training.trainer import train

    out = tmp_path_factory.mktemp("stopped") / "run"
    # 20 steps an epoch, and the first epoch is good enough to be kept.
    answers = iter([False] * 25 + [True])
    with pytest.raises(InterruptedRunError):
        train(
            TrainConfig(method="st", epochs=2, limit=450, batch_size=20, schedule="constant", lr=0.1),
            out,
            should_stop=lambda: next(answers),
        )
    return out


@pytest.fixture
def stopped_run(_stopped: Path, tmp_path: Path) -> Path:
    """A run folder of two epochs, stopped in the second one with its checkpoint written."""

    return shutil.copytree(_stopped, tmp_path / "stopped")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; every request and message is kept."""

    with started(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of random PNG images, a folder a class: ``image_folder("name", {"cat": 3, "dog": 3})``."""

    from PIL import Image

    def make(name: str, counts: Mapping[str, int], size: tuple[int, int] = (8, 8), mode: str = "L") -> Path:
        draws = np.random.default_rng(len(name))
        for label, count in counts.items():
            place = tmp_path / name / label
            place.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
                pixels = draws.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
        return tmp_path / name

    return make


@pytest.fixture
def parquet(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of one parquet file a split: ``parquet("name", photo=[bytes, …], label=[0, …])``.

    Bytes are the files of images; the other columns are of the kind of their first value.
    """

    import datasets

    def make(name: str, *, split: str = "train", **columns: Sequence[object]) -> Path:
        kinds = {bytes: datasets.Image(), str: datasets.Value("string"), int: datasets.Value("int64")}
        kinds |= {float: datasets.Value("float32"), bool: datasets.Value("bool")}
        features = datasets.Features({column: kinds[type(values[0])] for column, values in columns.items()})
        rows = {
            column: [{"bytes": value, "path": None} for value in values] if isinstance(values[0], bytes) else values
            for column, values in columns.items()
        }
        (tmp_path / name).mkdir(exist_ok=True)
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / name / f"{split}.parquet")
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def torchvision_operators() -> Iterator[None]:
    """What torchvision's Python parts look for beside a torch that it was not built for."""

    import torch

    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    library._destroy()


@pytest.fixture
def mnist() -> Path:
    """The folder of the real MNIST."""

    return _real("mnist")


@pytest.fixture
def cifar10() -> Path:
    """The folder of the real CIFAR-10."""

    return _real("cifar10")


def _real(name: str) -> Path:
    if not (_DATA / name).is_dir():
        pytest.skip(f"the real {name} is not here: set ASGT_DATA to a folder that holds it")
    return _DATA / name
