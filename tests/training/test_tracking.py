"""Trackers: what TensorBoard, trackio and MLflow were told, as they stored it, and what happens when one fails."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from asgt.errors import InputError, InterruptedRunError
from asgt.evaluation.shards import load_evaluation
from asgt.experiments.grid import plan
from asgt.experiments.job import do
from asgt.experiments.preset import load_preset
from asgt.files import read_sealed
from asgt.progress import SILENT
from asgt.training.config import TrainConfig
from asgt.training.run_folder import RunFolder
from asgt.training.tracker_registry import check_installed
from asgt.training.tracking import log_afterwards
from asgt.training.trainer import train
from support.messages import assert_states

SMALL: dict[str, Any] = {"method": "at", "steps": 1, "limit": 120, "width": 0.1, "batch_size": 40, "eps": 0.1}


def small(**settings: Any) -> TrainConfig:
    return TrainConfig.of(SMALL | {"epochs": 3, "device": "cpu", "checkpoint_every": 0.0} | settings)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: step and value of each scalar."""

    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="an extra")
    events = reader.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def stopped(config: TrainConfig, run: Path, after: int) -> None:
    """Trains until a step is taken, and stops there."""

    steps = itertools.count(1)
    with pytest.raises(InterruptedRunError):
        train(config, run, should_stop=lambda: next(steps) == after)


class Heard:
    """A progress that remembers warnings."""

    def __init__(self) -> None:
        self.warned: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(SILENT, name)

    def warn(self, message: str) -> None:
        self.warned.append(message)


class Written(GeneralTracker):
    """A tracker by the interface of accelerate that keeps in memory what it is told, and fails when it is asked to."""

    name = "trackio"
    requires_logging_directory = False
    runs: ClassVar[list[Written]] = []
    fails_at: ClassVar[str] = ""
    after: ClassVar[int] = 0

    def __init__(self, project: str, **settings: Any) -> None:
        super().__init__()
        self.project, self.settings, self.told, self.values = project, settings, list[tuple[str, int | None]](), {}
        self.runs.append(self)

    def _tell(self, call: str, step: int | None = None) -> None:
        self.told.append((call, step))
        if call == self.fails_at and len(self.told) > self.after:
            raise ConnectionError("no network\nand more")

    @property
    def tracker(self) -> object:
        return self

    def start(self) -> None:
        self._tell("start")

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.values = values
        self._tell("parameters")

    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        self._tell("log", step)

    def finish(self) -> None:
        self._tell("finish")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> type[Written]:
    """The class that stands where accelerate's for trackio does."""

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "trackio", Written)
    monkeypatch.setattr("asgt.training.tracker_registry.find_spec", lambda name: ModuleSpec(name, None, origin=name))
    for name, value in (("runs", []), ("fails_at", ""), ("after", 0)):
        monkeypatch.setattr(Written, name, value)
    return Written


# ---------------------------------------------------------------------------------------------------------------------
# TensorBoard
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_tensorboard_is_told_settings_terms_validation_and_speed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small(tracker="tensorboard"), run)

    told, rows = scalars(run), rows_of(run)
    for name in (
        "loss",
        "adversarial",
        "accuracy_adversarial",
        "validation_clean",
        "validation_pgd",
        "lr",
        "collapsed",
    ):
        assert told[name] == [(row["step"], pytest.approx(float(row[name]))) for row in rows]
    assert [value for _, value in told["speed/samples_per_second"]] == pytest.approx(
        [row["speed"]["samples_per_second"] for row in rows]
    )
    (file,) = (run / "tensorboard").rglob("hparams.yml")
    settings = yaml.safe_load(file.read_text())
    assert {name: settings[name] for name in SMALL} == SMALL
    assert "k" not in settings, "what the method does not listen to is no parameter"


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    run, config = tmp_path / "run", small(tracker="tensorboard")
    stopped(config, run, 5)
    train(config, run, resume=True)

    assert scalars(run)["loss"] == [(row["step"], pytest.approx(row["loss"])) for row in rows_of(run)]
    assert len(list((run / "tensorboard").rglob("hparams.yml"))) == 1


def test_the_older_spelling_stays(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an extra: asgt[tensorboard]")
    (tmp_path / "old.yaml").write_text("method: st\nepochs: 1\nlimit: 120\ntensorboard: true\n")
    config = TrainConfig.load(tmp_path / "old.yaml")

    train(config, tmp_path / "run")

    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert config.trackers == ("tensorboard",)
    assert TrainConfig(tracker="mlflow,tensorboard", tensorboard=True).trackers == ("mlflow", "tensorboard")
    assert TrainConfig().resolved().trackers == ()


# ---------------------------------------------------------------------------------------------------------------------
# Any tracker
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_failure_in_the_middle_is_told_once_and_loses_nothing(tmp_path: Path, written: type[Written]) -> None:
    plain = train(small(), tmp_path / "plain")
    written.fails_at, written.after = "log", 3
    heard = Heard()

    result = train(small(tracker="trackio,tensorboard"), tmp_path / "run", progress=heard)

    (run,) = written.runs
    assert [call for call, _ in run.told] == ["start", "parameters", "log", "log"]
    (warning,) = (line for line in heard.warned if "trackio" in line)
    assert_states(InputError(warning), "trackio", "ConnectionError", "no network", "continues")
    assert (result.chosen_epoch, result.validation) == (plain.chosen_epoch, plain.validation)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tmp_path / "plain" / "model.safetensors"
    ).read_bytes()
    # The other one misses nothing.
    assert len(scalars(tmp_path / "run")["loss"]) == 3


def test_a_tracker_that_cannot_begin_is_refused_and_leaves_no_run(tmp_path: Path, written: type[Written]) -> None:
    written.fails_at = "start"

    with pytest.raises(InputError) as caught:
        train(small(tracker="trackio"), tmp_path / "run")
    assert_states(caught.value, "trackio", "no network", "omit trackio")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_resumed_run_is_the_same_run_of_the_tracker(tmp_path: Path, written: type[Written]) -> None:
    run, config = tmp_path / "run", small(tracker="trackio")
    stopped(config, run, 3)
    train(config, run, resume=True)

    first, second = written.runs
    assert first.project == "asgt"
    assert first.settings == second.settings
    assert first.settings["name"].startswith("run-")
    assert read_sealed(run / "tracking.json")[0] == {"trackio": first.settings["name"]}
    assert first.told == [("start", None), ("parameters", None), ("log", 2), ("finish", None)]
    assert second.told == [("start", None), ("log", 4), ("log", 6), ("finish", None)]
    assert (first.values["method"], first.values["eps"]) == ("at", 0.1)
    # A run from the start, beside it, is another one.
    train(config, tmp_path / "other")
    assert written.runs[2].settings["name"] != first.settings["name"]


def test_a_damaged_note_begins_another_run(tmp_path: Path, written: type[Written]) -> None:
    run, config = tmp_path / "run", small(tracker="trackio")
    stopped(config, run, 3)
    (run / "tracking.json").write_text('{"trackio": "../elsewhere", "wandb": 7}')

    train(config, run, resume=True)

    first, second = written.runs
    assert second.settings["name"] not in (first.settings["name"], "../elsewhere")
    assert [call for call, _ in second.told][:2] == ["start", "parameters"]


@pytest.mark.parametrize(
    ("tracker", "facts"),
    [
        ("tensorbord", ("tensorbord", "tensorboard")),
        ("tensorboard,", ("name is missing",)),
        ("", ("name is missing",)),
        (3, ("names",)),
        (["mlflow", 3], ("names",)),
    ],
)
def test_names_that_cannot_be_meant_are_refused(tracker: Any, facts: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig(tracker=tracker).resolved()
    assert_states(caught.value, *facts)


def test_names_are_spelled_alike() -> None:
    for given in (" wandb , mlflow,wandb", ["wandb", "mlflow"]):
        assert TrainConfig(tracker=given).resolved().tracker == "wandb,mlflow"  # type: ignore[arg-type]


def test_a_tracker_that_is_not_installed_is_refused_in_one_line(
    cli: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("asgt.training.tracker_registry.find_spec", lambda name: None)
    (tmp_path / "grid.yaml").write_text(
        "data: digits\nseeds: 1\ntrain: {epochs: 1, limit: 60}\nmethods: [{method: st}]\n"
        "evaluate: {protocols: [pgd], epsilons: [0.1], samples: 10}\n"
    )

    for words in (("train", "--method", "st", "--out", "run"), ("reproduce", "grid.yaml", "--out", "grid")):
        said = cli(*words, "--tracker", "tensorboard,wandb")
        assert_states(said, "tensorboard", "pip install 'asgt[tensorboard]'")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["grid.yaml"]


def test_a_folder_of_that_name_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    if getattr(find_spec("wandb"), "origin", None) is not None:
        pytest.skip("wandb is installed")

    with pytest.raises(InputError, match="wandb"):
        check_installed("wandb")


def test_a_grid_logs_where_it_is_told_to() -> None:
    preset = load_preset("digits", "quick")

    assert {method.trackers for method in preset.on(tracker="mlflow").methods} == {("mlflow",)}
    assert {method.trackers for method in preset.on().methods} == {()}
    with pytest.raises(InputError, match="tensorboard"):
        preset.on(tracker="tensorbord")


@pytest.mark.slow
def test_the_curve_of_a_grid_follows_its_training(tmp_path: Path, written: type[Written]) -> None:
    (tmp_path / "grid.yaml").write_text(
        "data: digits\nseeds: 1\ntrain: {epochs: 1, limit: 60, batch_size: 20, width: 0.1, device: cpu}\n"
        "methods: [{method: st}]\nevaluate: {protocols: [paper], epsilons: [0.1, 0.2], samples: 10}\n"
    )
    preset = load_preset(str(tmp_path / "grid.yaml")).on(tracker="tensorboard,trackio")
    (planned,) = plan(preset, tmp_path / "out")

    do(planned.job, should_stop=lambda: False, phase=lambda number: SILENT)

    run = Path(planned.job.folder)
    curve = load_evaluation(run / "evaluation" / "paper").curve("pgd-relative")
    told = scalars(run)
    for eps, accuracy in curve.items():
        assert told[f"paper v1/pgd-relative/eps {eps:g}"] == [(2, pytest.approx(accuracy.value))]
    assert [step for step, _ in told["loss"]] == [2]
    assert [call for call, _ in written.runs[1].told] == ["start", "log", "finish"]
    assert written.runs[1].settings["name"] == written.runs[0].settings["name"]

    # By then the training is done: a tracker that is gone is a warning.
    heard = Heard()
    written.fails_at = "start"
    log_afterwards(RunFolder(run), ("trackio", "wandb"), {"a": 1.0}, heard)
    assert len(heard.warned) == 1
    assert_states(InputError(heard.warned[0]), "trackio", "no network")


# ---------------------------------------------------------------------------------------------------------------------
# trackio
# ---------------------------------------------------------------------------------------------------------------------

_STOPPED_AND_RESUMED = """
import itertools, sys
from asgt.errors import InterruptedRunError
from asgt.training.config import TrainConfig
from asgt.training.trainer import train

config, steps = TrainConfig.load(sys.argv[1]), itertools.count(1)
try:
    train(config, "run", should_stop=lambda: next(steps) == 5)
except InterruptedRunError:
    train(config, "run", resume=True)
"""


@pytest.mark.slow
def test_trackio_keeps_a_stopped_and_resumed_run_as_one(tmp_path: Path, child_environment: dict[str, str]) -> None:
    pytest.importorskip("trackio", reason="an extra: asgt[trackio]")
    small(tracker="trackio").resolved().save(tmp_path / "config.yaml")

    # In a process of its own: trackio reads the variable when it is imported.
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_AND_RESUMED, "config.yaml"],
        cwd=tmp_path,
        env=child_environment | {"TRACKIO_DIR": str(tmp_path / "trackio")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "trackio" / "asgt.db")) as database:
        told = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        settings = [json.loads(row) for (row,) in database.execute("SELECT config FROM configs")]
    assert {name for name, *_ in told} == {read_sealed(tmp_path / "run" / "tracking.json")[0]["trackio"]}
    rows = rows_of(tmp_path / "run")
    assert [(step, json.loads(values)["loss"]) for _, step, values in told] == [
        (row["step"], row["loss"]) for row in rows
    ]
    assert json.loads(told[-1][2])["validation_pgd"] == rows[-1]["validation_pgd"]
    # A run that goes on keeps its settings.
    assert [(each["method"], each["eps"]) for each in settings] == [("at", 0.1)]


# ---------------------------------------------------------------------------------------------------------------------
# MLflow
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_is_told_the_same_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="an extra: asgt[mlflow]")
    for name, value in {
        "MLFLOW_TRACKING_URI": (tmp_path / "store").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    }.items():
        monkeypatch.setenv(name, value)
    run, config = tmp_path / "run", small(tracker="mlflow")
    stopped(config, run, 5)
    train(config, run, resume=True)

    client = mlflow.MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'asgt'")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == read_sealed(run / "tracking.json")[0]["mlflow"]
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert (found.data.params["method"], found.data.params["eps"]) == ("at", "0.1")
    for name in ("loss", "adversarial", "validation_pgd"):
        history = client.get_metric_history(found.info.run_id, name)
        assert [(each.step, each.value) for each in sorted(history, key=lambda each: each.step)] == [
            (row["step"], pytest.approx(row[name])) for row in rows_of(run)
        ]
