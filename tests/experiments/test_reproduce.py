"""A grid of methods and seeds: what it costs, what it refuses, that it survives any kill, and the report at its end."""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import yaml
from safetensors import safe_open
from torch import Tensor, nn

from asgt.comparison.comparing import load_results
from asgt.comparison.method_naming import method_names
from asgt.data import load_data
from asgt.errors import InputError, InterruptedRunError
from asgt.evaluation.shards import load_evaluation
from asgt.experiments import cluster, load_preset, preset_names
from asgt.experiments.budget import evaluation_passes, step_passes, training_passes
from asgt.experiments.cluster import run_on_cluster
from asgt.experiments.grid import NOTE, Planned, plan
from asgt.experiments.job import Job, do, is_kept
from asgt.experiments.local import run_jobs
from asgt.experiments.preset import Preset, preset_words
from asgt.files import read_tensors, write_yaml
from asgt.models import small_cnn
from asgt.progress import SILENT
from asgt.runs.kept import load_kept, load_maps
from asgt.shortcuts import shortcut_named
from asgt.study.results_page import write_results
from asgt.study.shortcut_study import load_shortcut_claims
from asgt.training.config import TrainConfig
from asgt.training.methods import build_objective
from asgt.training.run_folder import RunFolder
from support.command import Answer
from support.messages import assert_states
from support.warm import Running, Warm

SLOW_FIXTURES = ("whole", "grid", "start", "worker")
EPOCHS = 3
TINY: dict[str, Any] = {
    "data": "digits",
    "seeds": 2,
    "train": {"model": "small_cnn", "width": 0.25, "epochs": EPOCHS, "batch_size": 8, "eps": 0.1, "limit": 300},
    "methods": [{"method": "st"}, {"method": "asgt", "attack": "pgd", "steps": 2}],
    "evaluate": {"epsilons": [0.05, 0.1], "samples": 20},
}
RUNS = ("asgt-pgd-0", "asgt-pgd-1", "st-0", "st-1")
HOUSE = ["ST", "AT-FGSM", "AT-PGD", "SGT", "SGA", "ASGT-FGSM", "ASGT-PGD"]
# The paper's figures have SGT with two k.
PAPER = {
    "mnist": ["ST", "AT-FGSM", "AT-PGD", "SGT (k = 0.3)", "SGT (k = 0.5)", "SGA", "ASGT-FGSM", "ASGT-PGD"],
    "cifar10": ["ST", "AT-FGSM", "AT-PGD", "SGT (k = 0.1)", "SGT (k = 0.2)", "SGA", "ASGT-FGSM", "ASGT-PGD"],
}
# All calls on the tiny grid are the same words: the page shows them.
WORDS = ("reproduce", "tiny.yaml", "--out", "grid", "--workers", "2", "--keep", "kept")


def tiny(folder: Path, name: str = "tiny", **changed: Any) -> Path:
    """The tiny grid as a file, with parts of it changed; ``None`` leaves a part out."""

    values = {part: value for part, value in (TINY | changed).items() if value is not None}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    return folder / f"{name}.yaml"


def contents(folder: Path) -> dict[str, bytes]:
    """What stands in the files of a folder, hidden ones too."""

    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def written(folder: Path) -> dict[str, int]:
    """When the files of the runs in a folder were written, in ns."""

    return {str(file): file.stat().st_mtime_ns for run in RUNS for file in (folder / run).rglob("*") if file.is_file()}


def rows(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, without the figures that tell the time."""

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "speed")} for line in lines]


def assert_same_run(run: Path, other: Path) -> None:
    """Two finished runs are the same, bit for bit: the training, its weights and the evidence."""

    assert rows(run) == rows(other)
    evidence = [
        f"evaluation/{name}" for name in ("paper/pgd-relative-00000.safetensors", "pgd/pgd-40x5-00000.safetensors")
    ]
    for name in ("config.yaml", "model.safetensors"):
        assert (run / name).read_bytes() == (other / name).read_bytes(), name
    for name in evidence:
        (tensors, told), (others, other_told) = read_tensors(run / name), read_tensors(other / name)
        assert told["key"] == other_told["key"], name  # beside it stands how long it took
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[tensor], others[tensor]) for tensor in tensors), name


@dataclass(frozen=True)
class Grid:
    """The tiny grid in one go, by a process of its own."""

    folder: Path
    answer: Answer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, forks: Warm) -> Grid:
    place = tmp_path_factory.mktemp("whole")
    tiny(place)
    return Grid(place / "grid", forks.answer(*WORDS, cwd=place))


@pytest.fixture
def grid(whole: Grid, tmp_path: Path) -> Path:
    """The finished tiny grid in the folder that the command line stands in, to go on with or to damage."""

    tiny(tmp_path)
    return shutil.copytree(whole.folder, tmp_path / "grid")


@pytest.fixture
def start(tmp_path: Path, forks: Warm) -> Iterator[Callable[..., Running]]:
    """Starts ``asgt`` as a process in a session of its own, and leaves neither it nor its workers behind."""

    children: list[Running] = []

    def call(*words: object, figures: bool = False) -> Running:
        children.append(forks.start(*words, cwd=tmp_path, figures=figures))
        return children[-1]

    yield call
    for child in children:
        for worker in workers_of(child):
            worker.kill()
        child.kill()
        child.communicate()


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the page out, in this process, where the test is about what comes before it."""

    monkeypatch.setattr("asgt.experiments.reproduction.write_report", lambda *args, **options: None)


def workers_of(child: Running) -> list[psutil.Process]:
    return psutil.Process(child.pid).children() if child.poll() is None else []


def wait_until(holds: Callable[[], bool], child: Running | None = None, seconds: float = 100) -> None:
    """Waits for what a process does; fails if it ends, or takes too long, without doing it."""

    deadline = time.monotonic() + seconds
    while not holds():
        assert child is None or child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def assert_gone(workers: list[psutil.Process]) -> None:
    """Processes end within seconds; one that nobody has asked for its status yet has ended too."""

    def ended(worker: psutil.Process) -> bool:
        try:
            return not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    assert workers
    wait_until(lambda: all(map(ended, workers)), seconds=10)


def kept(folder: Path) -> dict[str, Any]:
    """What was kept of the tiny grid, without the figures that tell the time."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: timeless(part) for name, part in value.items() if name not in ("seconds", "speed", "sha256")}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    return {file.name: timeless(json.loads(file.read_text())) for file in (folder / "tiny").glob("*.json")}


def step_of(run: Path) -> int:
    """The steps that a run's checkpoint knows."""

    with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
        return int(json.loads(file.metadata()["standing"])["step"])


# What it costs -------------------------------------------------------------------------------------------------------

# Forward F = 1, backward to the input Bx = 1, to the weights as well B = 2. A view costs F + B = 3 in the loss; FGSM
# and saliency cost F + Bx = 2 each, PGD as much a step.
COSTS = [
    ("st", {}, 3),
    ("at", {"attack": "fgsm"}, 3 + 2),
    ("at", {"attack": "pgd", "steps": 1}, 3 + 2),
    ("at", {"attack": "pgd", "steps": 7}, 3 + 2 * 7),
    ("at", {"attack": "pgd", "steps": 7, "clean_weight": 1.0}, 2 * 3 + 2 * 7),
    ("sgt", {}, 2 * 3 + 2),
    ("sga", {"attack": "fgsm"}, 2 * 3 + 2 + 2),
    ("sga", {"attack": "pgd", "steps": 7}, 2 * 3 + 2 + 2 * 7),
    ("asgt", {"attack": "fgsm"}, 3 * 3 + 2 + 2),
    ("asgt", {"attack": "pgd", "steps": 3}, 3 * 3 + 2 + 2 * 3),
    ("asgt", {"attack": "pgd", "steps": 7}, 3 * 3 + 2 + 2 * 7),
    # The probabilities that its attack holds fixed are one forward more.
    ("trades", {"steps": 1}, 2 * 3 + 1 + 2),
    ("trades", {"steps": 7}, 2 * 3 + 1 + 2 * 7),
]


def objective_of(method: str, settings: dict[str, Any]) -> Any:
    return build_objective(
        TrainConfig(method=method, eps=None if method in ("st", "sgt") else 0.1, **settings).resolved()
    )


@pytest.mark.parametrize(("method", "settings", "passes"), COSTS)
def test_a_step_costs_what_the_algorithm_says(method: str, settings: dict[str, Any], passes: int) -> None:
    assert step_passes(objective_of(method, settings)) == passes


@pytest.mark.parametrize(("method", "settings", "passes"), COSTS)
def test_a_step_costs_what_is_counted_on_a_real_model(
    method: str, settings: dict[str, Any], passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forwards by a hook on the last layer; backwards by the calls of ``autograd.grad`` and of ``backward``.

    The loss is taken in training mode, everything else in evaluation mode: what one call of ``backward`` goes back
    through is the views that ran in training mode.
    """

    model, batch = small_cnn(1, 8, 10).train(), 6
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    counts = {"forward": 0, "to the input": 0, "to the weights": 0}
    views = []

    def count(module: nn.Module, args: Any, output: Tensor) -> None:
        counts["forward"] += len(output)
        if module.training and output.requires_grad:
            views.append(len(output))

    last.register_forward_hook(count)
    grad, backward = torch.autograd.grad, torch.Tensor.backward

    def counted_grad(outputs: Tensor, inputs: Tensor, **options: Any) -> Any:
        counts["to the input"] += len(inputs)
        return grad(outputs, inputs, **options)

    def counted_backward(loss: Tensor) -> None:
        counts["to the weights"] += sum(views)
        backward(loss)

    monkeypatch.setattr(torch.autograd, "grad", counted_grad)
    monkeypatch.setattr(torch.Tensor, "backward", counted_backward)
    objective_of(method, settings)(
        model, torch.rand(batch, 1, 8, 8), torch.arange(batch), generator=torch.Generator()
    ).loss.backward()

    assert counts["to the weights"] > 0
    assert counts["forward"] + counts["to the input"] + 2 * counts["to the weights"] == batch * passes


# What the checks take of each of up to 64 samples: six forwards for determinism; a gradient of two losses; PGD-40 and a
# forward, again on scaled logits, which takes one more to find the scale, and over the full range; twenty noises.
CHECKS = 6 + 2 * 2 + (81 + 82 + 81) + 20


@pytest.mark.slow
@pytest.mark.parametrize("grid_of_eps", [(0.1,), (0.05, 0.1, 0.2, 0.3)])
def test_an_evaluation_costs_what_its_protocol_says(grid_of_eps: tuple[float, ...]) -> None:
    n = len(grid_of_eps)
    # One forward to see how many classes there are. A clean forward; FGSM's one gradient and a forward an eps; five
    # attacks of ten gradients and a forward an eps. Two of them, of constant steps from the image itself, are run once
    # at all eps beyond the 20/255 that they reach.
    again = max(sum(eps > 20 / 255 for eps in grid_of_eps) - 1, 0)
    paper = 1 + (2 + n) + 5 * n * (10 * 2 + 1) - 2 * again * 10 * 2
    assert evaluation_passes("paper", grid_of_eps, 1) == 1 + paper + CHECKS
    assert evaluation_passes("paper", grid_of_eps, 100) == 1 + 100 * paper + 64 * CHECKS

    # A clean forward; ten gradients of the probe; five restarts of forty gradients and a forward at the largest eps. Of
    # 64 samples, five forwards to see whether the answers waver, and the attack at one eps below its failure.
    search = 5 * (40 * 2 + 1)
    worst, some = 1 + 10 * 2 + search, 5 + (search if n > 1 else 0)
    one_step = 2 + n  # another check: a gradient, and a forward an eps
    assert evaluation_passes("pgd", grid_of_eps, 1) == 1 + worst + some + CHECKS + one_step
    assert evaluation_passes("pgd", grid_of_eps, 100) == 1 + 100 * (worst + one_step) + 64 * (some + CHECKS)
    assert evaluation_passes("pgd", grid_of_eps, 20, "l2") == 20 * evaluation_passes("pgd", grid_of_eps, 1) - 19


def test_a_training_costs_its_steps_and_its_judging() -> None:
    plain = TrainConfig(method="st", epochs=4).resolved()
    assert training_passes(plain, 100, 10) == 4 * (3 * 100 + 1 * 10)

    # Judged clean, by one step, and by ten: 1 + (2 + 1) + (20 + 1) passes an image.
    robust = TrainConfig(method="asgt", attack="pgd", steps=3, eps=0.1, epochs=4).resolved()
    assert training_passes(robust, 100, 10) == 4 * (17 * 100 + 25 * 10)


# Presets -------------------------------------------------------------------------------------------------------------


def test_every_preset_of_the_house_holds_the_papers_methods_and_the_baselines_that_it_leaves_out() -> None:
    scales = {"digits": ["quick"], "mnist": ["laptop", "paper", "quick", "tuned", "variants"]}
    scales["cifar10"] = ["laptop", "paper", "quick", "tuned"]
    papers = [f"{data}-{scale}" for data in scales for scale in scales[data]]
    assert sorted(name for name in preset_names() if "-shortcuts-" not in name) == sorted(papers)

    for known in papers:
        data, scale = known.split("-")
        preset = load_preset(data, scale)
        assert (preset.name, preset.data, preset.norm) == (known, data, "linf")
        # Where time is short, what a claim rests on is asked for by --protocols.
        assert preset.protocols == ("paper", "pgd", *(["standard"] if scale in ("paper", "tuned") else []))
        assert len(preset.configs()) == len(preset.methods) * preset.seeds
        assert {config.data for config in preset.configs()} == {data}
        assert preset_words(known).endswith((".", ":", "demo."))
        # Everybody trains and is judged alike.
        for setting in ("model", "width", "epochs", "batch_size", "lr", "limit", "seed", "weight_decay", "schedule"):
            assert len({getattr(method, setting) for method in preset.methods}) == 1, setting
        trained = {method.eps for method in preset.methods} - {None}
        assert len(trained) == 1
        assert trained < set(preset.epsilons)
        if scale != "variants":
            assert method_names(preset.methods) == (HOUSE if scale == "quick" else PAPER[data])
    assert load_preset("digits") == load_preset("digits", "quick")


@pytest.mark.parametrize("name", [name for name in preset_names() if "-shortcuts-" in name])
def test_every_preset_with_a_shortcut_holds_the_methods_of_the_claims_and_their_controls(name: str) -> None:
    preset, claims = load_preset(*name.rsplit("-", 1)), load_shortcut_claims()

    assert preset.views == ("absent", "aligned", "random", "reversed")
    (shortcut,) = {method.shortcut for method in preset.methods}
    assert shortcut is not None
    assert (shortcut_named(shortcut).contrast <= 2 * preset.eps) == name.endswith("-faint")
    for method, settings in claims.methods.items():
        fitting = [c for c in preset.methods if all(getattr(c, part) == value for part, value in settings.items())]
        assert len(fitting) == 1, method
    assert len(preset.methods) == 10
    assert claims.judged in preset_names()


@pytest.mark.parametrize(
    ("data", "model", "epochs", "batch_size", "lr", "k"),
    [("mnist", "alexnet", 20, 128, 1e-2, [0.3, 0.5]), ("cifar10", "resnet18", 100, 256, 1e-4, [0.1, 0.2])],
)
def test_the_papers_preset_is_its_table_1_to_the_letter(
    data: str, model: str, epochs: int, batch_size: int, lr: float, k: list[float]
) -> None:
    preset = load_preset(data, "paper")

    assert preset.seeds == 5
    for method in preset.methods:
        assert (method.model, method.width, method.epochs, method.batch_size, method.lr) == (
            *(model, None, epochs, batch_size, lr),
        )
        # Of SGD, nothing but its learning rate; the last epoch; no ramp; the whole data set; lambda = 1.
        assert (method.momentum, method.weight_decay, method.schedule, method.keep) == (0.0, 0.0, "constant", "last")
        assert method.warmup in (None, 0.0)
        assert method.weight in (None, 1.0)
        assert (method.limit, method.augment) == (None, "none")
    masked = {(method.method, method.attack): method.k for method in preset.methods if method.method != "sgt"}
    assert [method.k for method in preset.methods if method.method == "sgt"] == k
    assert {value for value in masked.values() if value is not None} == {k[0]}


def test_variants_differ_from_the_laptops_runs_in_one_open_choice_each() -> None:
    base = [method.to_dict() for method in load_preset("mnist", "laptop").methods]
    changed = []

    for variant in load_preset("mnist", "variants").methods:
        differing = [
            {name for name, value in variant.to_dict().items() if other[name] != value}
            for other in base
            if other["method"] == variant.method
        ]
        assert {len(names) for names in differing if len(names) == 1} == {1}
        changed += [*min(differing, key=len)]
    assert set(changed) == {"momentum", "target"}


def test_settings_named_on_the_command_line_go_before_the_files(tmp_path: Path) -> None:
    methods = [{"method": "st", "momentum": 0.5}, {"method": "sgt", "k": 0.3}, {"method": "at"}]
    file = str(tiny(tmp_path, methods=methods))

    preset = load_preset(file, overrides={"momentum": 0.0, "k": 0.2, "target": "log_prob"})

    assert preset.name == "tiny+momentum=0.0+k=0.2+target=log_prob"
    assert [method.momentum for method in preset.methods] == [0.0] * 3
    assert [(method.k, method.target) for method in preset.methods] == [(None, None), (0.2, "log_prob"), (None, None)]
    assert preset.methods[2].steps == load_preset(file).methods[2].steps


@pytest.mark.slow
def test_what_changes_no_result_is_no_part_of_a_grid(tmp_path: Path) -> None:
    file = str(tiny(tmp_path))
    out = tmp_path / "grid"
    write_yaml(out / NOTE, load_preset(file).to_dict())

    driven = load_preset(file, overrides={"checkpoint_every": 5.0, "cuda_graphs": True})

    assert driven.name == "tiny"
    assert {method.cuda_graphs for method in driven.methods} == {True}
    assert {run.state for run in plan(driven, out)} == {"to do"}


def test_the_seeds_of_a_grid_come_one_after_another(tmp_path: Path) -> None:
    preset = load_preset(str(tiny(tmp_path))).on(seeds=3)

    assert [(config.method, config.seed) for config in preset.configs()] == [
        (method, seed) for seed in range(3) for method in ("st", "asgt")
    ]


def test_common_settings_reach_only_the_methods_that_listen_to_them(tmp_path: Path) -> None:
    common = {"k": 0.3, "steps": 3, "eps": "8/255", "weight": 2.0, "norm": "linf", "fill": "zero", "attack": "pgd"}
    methods = [
        {"method": "st"},
        {"method": "at", "attack": "fgsm"},
        {"method": "at"},
        {"method": "trades"},
        {"method": "sgt", "k": 0.5},
        {"method": "asgt"},
    ]
    st, fgsm, at, trades, sgt, asgt = load_preset(str(tiny(tmp_path, train=common, methods=methods))).methods

    assert (st.k, st.steps, st.eps, st.weight, st.norm, st.fill, st.attack) == (None,) * 7
    assert (fgsm.attack, fgsm.steps, fgsm.norm, fgsm.k) == ("fgsm", None, None, None)
    assert fgsm.eps == pytest.approx(8 / 255)
    assert (at.attack, at.steps, at.norm, at.k, at.weight) == ("pgd", 3, "linf", None, None)
    assert (trades.attack, trades.steps, trades.weight, trades.k) == (None, 3, 2.0, None)
    # A method's own setting goes before the common one.
    assert (sgt.k, sgt.weight, sgt.fill, sgt.eps) == (0.5, 2.0, "zero", None)
    assert (asgt.k, asgt.steps, asgt.weight, asgt.fill) == (0.3, 3, 2.0, "zero")


def test_a_grid_of_ones_own_is_read_whole(tmp_path: Path) -> None:
    asked = {"epsilons": ["16/255", 0.3, 0.1, "0.1", 1e-2], "protocols": ["pgd", "pgd"], "samples": None}
    preset = load_preset(str(tiny(tmp_path, "my grid", evaluate=asked)))

    assert (preset.name, preset.data, preset.seeds, preset.samples) == ("my grid", "digits", 2, None)
    # Named twice is asked once: evidence is kept for each eps.
    assert preset.epsilons == (0.01, 16 / 255, 0.1, 0.3)
    assert preset.protocols == ("pgd",)
    assert method_names(preset.methods) == ["ST", "ASGT-PGD"]
    assert preset.on(device="cpu", data="elsewhere").methods[1].data == "elsewhere"
    assert {method.device for method in preset.on(device="cpu").methods} == {"cpu"}
    with pytest.raises(InputError, match="--seeds 0"):
        preset.on(seeds=0)


def test_a_grid_names_versions_of_protocols_each_once(tmp_path: Path) -> None:
    named = ["standard@2", "paper", "standard", "standard@1", "paper@1"]
    preset = load_preset(str(tiny(tmp_path, evaluate=TINY["evaluate"] | {"protocols": named})))
    assert preset.protocols == ("standard", "paper", "standard@1")
    assert preset.on(protocols=["standard@1", "standard@2"]).protocols == ("standard@1", "standard")
    assert preset.on(seeds=1).protocols == preset.protocols


def test_a_run_that_an_earlier_version_judged_is_judged_by_the_newest_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgt.experiments.grid.evaluation_passes", lambda *_: 1)  # counting takes the longest
    asked = {"protocols": ["standard@1"], "epsilons": [0.9], "samples": 4}
    train = TINY["train"] | {"epochs": 1, "limit": 60}
    preset = load_preset(str(tiny(tmp_path, methods=[{"method": "st"}], train=train, evaluate=asked))).on(seeds=1)

    def planned(preset: Preset) -> Planned:
        [run] = plan(preset, tmp_path / "grid", keep=tmp_path / "kept")
        return run

    job = planned(preset).job
    assert job.keep is not None
    do(job, should_stop=lambda: False, phase=lambda number: SILENT)
    write_yaml(tmp_path / "grid" / NOTE, preset.to_dict())
    assert (RunFolder(job.folder).evaluation("standard") / "result.json").is_file()
    assert planned(preset).state == "finished"
    assert is_kept(job)
    assert set(load_kept(Path(job.keep)).evaluations) == {"standard@1"}

    newest = preset.on(protocols=["standard"])
    assert planned(newest).state == "begun", "the result of the earlier version is not taken for one of the newest"
    assert not is_kept(planned(newest).job)
    do(planned(newest).job, should_stop=lambda: False, phase=lambda number: SILENT)
    both = planned(preset.on(protocols=["standard", "standard@1"]))
    assert both.state == "finished"
    assert is_kept(both.job)
    assert set(load_kept(Path(job.keep)).evaluations) == {"standard@1", "standard"}


EVALUATE = TINY["evaluate"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"epochs": 3}, ["epochs"]),
        ({"evaluat": {}}, ["evaluat", "'evaluate'"]),
        ({"data": None}, ["data", "missing"]),
        ({"data": 5}, ["data", "missing"]),
        ({"data": "dgits"}, ["dgits", "'digits'"]),
        ({"methods": None}, ["methods", "list"]),
        ({"methods": []}, ["methods", "list"]),
        ({"methods": "st"}, ["methods", "list"]),
        ({"methods": {"method": "st"}}, ["methods", "list"]),
        ({"methods": ["st"]}, ["methods", "list"]),
        ({"methods": [{}]}, ["method", "asgt"]),
        ({"methods": [{"method": "asgd"}]}, ["asgd", "'asgt'"]),
        ({"methods": [{"method": 3}]}, ["method", "3"]),
        ({"methods": [{"method": "at", "attack": "pdg"}]}, ["pdg", "'pgd'"]),
        ({"methods": [{"method": "at", "stepz": 3}]}, ["stepz", "'steps'"]),
        ({"methods": [{"method": "at", "steps": 0}]}, ["steps", "0"]),
        ({"methods": [{"method": "at", "attack": "fgsm", "steps": 3}]}, ["--steps 3", "ignores"]),
        ({"methods": [{"method": "at", "seed": 3}]}, ["seed"]),
        ({"methods": [{"method": "at", "data": "mnist"}]}, ["data"]),
        ({"methods": [{"method": "st", "model": "mine:build"}]}, ["mine:build", "asgt train"]),
        ({"methods": [{"method": "st"}, {"method": "st"}]}, ["twice", "ST"]),
        ({"methods": [{"method": "st"}, {"method": "st", "checkpoint_every": 1.0}]}, ["twice", "ST"]),
        ({"methods": [{"method": "st"}, {"method": "sgt", "grey": True}]}, ["grey", "train"]),
        ({"methods": [{"method": "at", "norm": "l2"}, {"method": "sga", "norm": "linf"}]}, ["l2", "linf"]),
        ({"methods": [{"method": "at", "norm": "l2"}]}, ["paper", "L∞", "l2"]),
        ({"train": ["epochs"]}, ["train", "list"]),
        ({"train": {"seed": 1}}, ["seed"]),
        ({"train": {"data": "mnist"}}, ["data"]),
        ({"train": {"model": "mine:build"}}, ["mine:build"]),
        ({"train": {"eps": 8}}, ["eps", "8/255"]),
        ({"train": {"epochs": "ten"}}, ["epochs", "ten", "whole number"]),
        ({"seeds": 0}, ["seeds", "0"]),
        ({"seeds": 1.5}, ["seeds", "1.5"]),
        ({"seeds": True}, ["seeds", "True"]),
        ({"evaluate": None}, ["epsilons"]),
        ({"evaluate": [0.1]}, ["evaluate"]),
        ({"evaluate": {}}, ["epsilons"]),
        ({"evaluate": EVALUATE | {"sample": 3}}, ["sample", "'samples'"]),
        ({"evaluate": EVALUATE | {"samples": 0}}, ["samples", "0"]),
        ({"evaluate": EVALUATE | {"samples": 360}}, ["360", "359"]),
        ({"evaluate": EVALUATE | {"epsilons": []}}, ["epsilons"]),
        ({"evaluate": EVALUATE | {"epsilons": 0.1}}, ["epsilons"]),
        ({"evaluate": EVALUATE | {"epsilons": [0, 0.1]}}, ["eps", "0", "clean"]),
        ({"evaluate": EVALUATE | {"epsilons": [8]}}, ["8/255"]),
        ({"evaluate": EVALUATE | {"epsilons": [-0.1]}}, ["-0.1"]),
        ({"evaluate": EVALUATE | {"epsilons": [float("nan")]}}, ["nan"]),
        ({"evaluate": EVALUATE | {"epsilons": ["abc"]}}, ["'abc'", "8/255"]),
        ({"evaluate": EVALUATE | {"epsilons": [None]}}, ["None", "8/255"]),
        ({"evaluate": EVALUATE | {"epsilons": [[0.1]]}}, ["0.1", "8/255"]),
        ({"evaluate": EVALUATE | {"epsilons": [True]}}, ["True", "8/255"]),
        ({"evaluate": EVALUATE | {"protocols": []}}, ["protocols"]),
        ({"evaluate": EVALUATE | {"protocols": "pgd"}}, ["protocols"]),
        ({"evaluate": EVALUATE | {"protocols": ["pdg"]}}, ["pdg", "'pgd'"]),
        ({"evaluate": EVALUATE | {"protocols": ["standard@7"]}}, ["tiny.yaml", "standard@7", "standard@1"]),
        ({"evaluate": EVALUATE | {"protocols": [3]}}, ["protocols", "3"]),
        ({"methods": [{"method": "st"}, {"method": "rrr"}]}, ["rrr", "--shortcut"]),
    ],
)
def test_a_damaged_grid_is_refused_before_anything_is_trained(
    cli: Callable, tmp_path: Path, changed: dict[str, Any], said: list[str]
) -> None:
    tiny(tmp_path, **changed)

    line = cli(*WORDS).refusal()

    assert_states(line, *said)
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.parametrize("text", ["data: [digits", "- data\n- digits\n", "digits", "\x00\x01", ""])
def test_a_file_that_is_no_yaml_is_named(cli: Callable, tmp_path: Path, text: str) -> None:
    (tmp_path / "tiny.yaml").write_text(text)

    assert_states(cli("reproduce", "tiny.yaml").refusal(), "tiny.yaml", "damaged")


@pytest.mark.parametrize("changed", [{"method": "asgd"}, {"method": "at", "steps": 0}, {"method": "st", "eps": 0.1}])
def test_what_is_wrong_in_a_file_names_the_file(cli: Callable, tmp_path: Path, changed: dict[str, Any]) -> None:
    tiny(tmp_path, methods=[{"method": "sgt"}, changed])

    assert "tiny.yaml" in cli("reproduce", "tiny.yaml").refusal()


# What the command line refuses ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", ["no grid", "digits", "FILE.yaml"]),
        ("digit", ["digit", "'digits'", "cifar10", "mnist"]),
        ("imagenet", ["imagenet", "cifar10", "digits", "mnist"]),
        ("digits-quick", ["digits-quick", "'digits'"]),
        ("missing.yaml", ["missing.yaml"]),
        ("digits mnist", ["'mnist'", "unexpected"]),
        ("digits --scale huge", ["scale", "digits", "huge", "quick"]),
        ("mnist --scale laptp", ["'laptop'", "laptop", "paper", "quick", "tuned"]),
        ("tiny.yaml --scale quick", ["--scale quick", "remove"]),
        ("tiny.yaml --seeds 0", ["--seeds 0", "at least 1"]),
        ("tiny.yaml --seeds two", ["--seeds", "two", "whole number"]),
        ("tiny.yaml --workers 0", ["--workers 0", "at least 1"]),
        ("tiny.yaml --workers -1", ["--workers -1", "at least 1"]),
        ("tiny.yaml --device abacus", ["abacus"]),
        ("tiny.yaml --device cuda:99", ["cuda:99"]),
        ("tiny.yaml --data .", ["--data", "digits", "remove"]),
        ("digits --data .", ["--data", "digits", "remove"]),
        ("mnist --data nowhere", ["--data nowhere", "folder"]),
        ("mnist --data tiny.yaml", ["--data tiny.yaml", "folder"]),
        ("mnist --data empty", ["empty", "no images"]),
        ("tiny.yaml --out tiny.yaml", ["tiny.yaml", "file", "--out"]),
        ("tiny.yaml --out tiny.yaml --dry-run", ["tiny.yaml", "file", "--out"]),
        ("tiny.yaml --out other", ["other", "not the folder of a grid", "--out"]),
        ("tiny.yaml --out other --dry-run", ["other", "not the folder of a grid", "--out"]),
        ("tiny.yaml --set momentun=0", ["momentun", "'momentum'"]),
        ("tiny.yaml --set momentum", ["--set momentum", "name=value"]),
        ("tiny.yaml --set momentum=none", ["--set", "momentum", "none", "number"]),
        ("tiny.yaml --set momentum=2", ["momentum", "2"]),
        ("tiny.yaml --set seed=2", ["seed"]),
        ("tiny.yaml --set lr=[", ["--set", "lr"]),
        ("tiny.yaml --executor slrum", ["slrum", "'slurm'"]),
        ("tiny.yaml --slurm timeout_min=5", ["--slurm", "local"]),
        ("tiny.yaml --sedes 3", ["--sedes", "'--seeds'"]),
        ("tiny.yaml --protocols paper,pdg", ["'pdg'", "'pgd'"]),
        ("tiny.yaml --protocols paper,standard@7", ["standard@7", "standard@1", "standard@2"]),
        ("tiny.yaml --protocols ,", ["--protocols", "one"]),
        ("tiny.yaml --workrs 3", ["--workrs", "'--workers'"]),
    ],
)
def test_a_line_that_cannot_be_meant_is_refused(cli: Callable, tmp_path: Path, words: str, said: list[str]) -> None:
    tiny(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    before = contents(tmp_path)

    line = cli("reproduce", *words.split()).refusal()

    assert_states(line, *said)
    assert "<class" not in line, line
    assert contents(tmp_path) == before


def test_the_process_refuses_in_one_line(warm: Callable) -> None:
    line = warm("reproduce", "minst", "--scale", "laptop").refusal()

    assert_states(line, "experiment", "minst", "'mnist'", "cifar10", "digits")


def test_a_folder_that_is_removed_before_a_run_begins_is_named_in_one_line(
    cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(*jobs: object, **options: object) -> None:
        shutil.rmtree(tmp_path / "grid")
        raise InputError("cannot write grid: its folder was removed during the operation")

    monkeypatch.setattr("asgt.experiments.reproduction.run_jobs", removed)
    tiny(tmp_path)
    assert_states(cli("reproduce", "tiny.yaml", "--out", "grid").failure(), "grid", "removed")
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize(
    ("changed", "other"),
    [
        ({"train": TINY["train"] | {"epochs": 4}}, "methods"),
        ({"methods": [{"method": "st"}]}, "methods"),
        ({"evaluate": EVALUATE | {"epsilons": [0.1]}}, "epsilons"),
        ({"evaluate": EVALUATE | {"samples": 21}}, "samples"),
    ],
)
@pytest.mark.parametrize("flag", [(), ("--dry-run",)])
def test_a_folder_begun_with_another_grid_is_refused_and_left_alone(
    cli: Callable, grid: Path, tmp_path: Path, changed: dict[str, Any], other: str, flag: tuple[str, ...]
) -> None:
    tiny(tmp_path, **changed)
    before = contents(grid)

    line = cli(*WORDS, *flag).refusal()

    assert_states(line, "grid", other, "tiny", "--out")
    assert contents(grid) == before


def test_a_run_folder_that_holds_another_run_or_evaluation_is_refused(cli: Callable, grid: Path) -> None:
    evaluation = grid / "st-1" / "evaluation" / "pgd"
    shutil.move(evaluation, grid / "kept")
    answer = cli("evaluate", grid / "st-1", "--samples", 40, "--epsilons", "0.05,0.1")
    assert answer.status == 0, answer.err
    line = cli(*WORDS).refusal()
    assert_states(line, "grid/st-1/evaluation/pgd", "other settings", "--out")

    shutil.rmtree(evaluation)
    shutil.move(grid / "kept", evaluation)
    shutil.copy(grid / "st-0" / "config.yaml", grid / "st-1" / "config.yaml")
    assert_states(cli(*WORDS).refusal(), "grid/st-1", "run", "other settings", "--out")


# What a dry run tells ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_dry_run_lists_every_run_and_creates_nothing(cli: Callable, tmp_path: Path) -> None:
    tiny(tmp_path)

    answer = cli(*WORDS, "--dry-run")

    assert (answer.status, answer.err) == (0, "")
    # 300 of the training images, by class and rounded: 299, and 30 of them only judge.
    steps, judging = 299 - 30, 30
    costs = {"ST": EPOCHS * (3 * steps + judging), "ASGT-PGD": EPOCHS * (15 * steps + 25 * judging)}
    # Beside a clean pass each, and one for the classes: FGSM and five attacks of ten steps; five passes for wavering, a
    # probe of ten, and five restarts of forty, once above and once below; and their checks.
    evaluation = 2 + 20 * ((3 + 106 * 2) + (1 + 5 + 20 + 405 * 2) + 2 * CHECKS + (2 + 2))
    lines = [line for line in answer.out.splitlines() if "seed" in line]
    for line, (name, seed) in zip(lines, [(m, s) for s in (0, 1) for m in ("ASGT-PGD", "ST")], strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        passes = (f"{costs[name] / 1e6:.3g}", f"about {evaluation / 1e6:.3g}")
        took = cells.pop(4)
        assert cells == [f"{name}, seed {seed}", str(EPOCHS), *passes, "to do"]
        assert re.fullmatch(r"about (\d+ (s|min)|\d+\.\d h)", took)
    total = 2 * (sum(costs.values()) + 2 * evaluation)
    assert f"4 runs (0 finished, 0 begun, 4 to do), about {total / 1e6:.3g} million passes remaining" in answer.out
    assert answer.out.splitlines()[-1].endswith("output folder: grid")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_dry_run_tells_where_each_run_stands(cli: Callable, grid: Path) -> None:
    shutil.rmtree(grid / "st-1")
    shutil.rmtree(grid / "asgt-pgd-1" / "evaluation" / "pgd")
    (grid / "st-0" / "training.json").unlink()
    before = contents(grid)

    answer = cli(*WORDS, "--dry-run")

    states = {
        line.split("│")[1].strip(): line.split("│")[6].strip() for line in answer.out.splitlines() if "seed" in line
    }
    assert states == {
        "ASGT-PGD, seed 0": "finished",
        "ST, seed 0": "begun",
        "ASGT-PGD, seed 1": "begun",
        "ST, seed 1": "to do",
    }
    assert "4 runs (1 finished, 2 begun, 1 to do)" in answer.out
    assert contents(grid) == before


def test_without_a_network_the_images_of_mnist_must_be_somewhere(cli: Callable, tmp_path: Path) -> None:
    assert "ASGT_DATA" in cli("reproduce", "mnist", "--dry-run").refusal()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_folder_of_mnist_or_the_one_above_it_is_found(cli: Callable, mnist: Path, tmp_path: Path) -> None:
    told = [cli("reproduce", "mnist", "--dry-run", "--data", place) for place in (mnist, mnist.parent)]

    for answer in told:
        assert answer.status == 0, answer.err
        assert "7 runs (0 finished, 0 begun, 7 to do)" in answer.out
    assert [len(answer.out.splitlines()) for answer in told] == [len(told[0].out.splitlines())] * 2
    assert list(tmp_path.iterdir()) == []


# The real thing ------------------------------------------------------------------------------------------------------


def test_a_grid_ends_with_whole_run_folders_a_table_and_a_page(whole: Grid) -> None:
    answer, folder = whole.answer, whole.folder

    assert answer.status == 0, answer.err
    assert "4 of 4 runs finished" in answer.err
    assert "2 seeds" in answer.out
    assert "eps = 0.1 (trained at)" in answer.out
    assert [line.split()[0] for line in answer.out.splitlines() if line.count(" ± ") > 1] == ["ST", "ASGT-PGD"] * 2
    assert answer.out.splitlines()[-1] == "report: grid/report.html"

    page = (folder / "report.html").read_text()
    assert "asgt reproduce tiny.yaml --out grid --workers 2 --keep kept" in page
    assert page.rstrip().endswith("</html>")
    assert {f"robustness.{kind}" for kind in ("png", "pdf")} <= {file.name for file in (folder / "figures").iterdir()}
    for name in RUNS:
        run = RunFolder(folder / name)
        assert run.load_result().epochs == EPOCHS
        assert len(run.rows()) == EPOCHS
        for protocol in ("paper", "pgd"):
            found = load_evaluation(run.evaluation(protocol))
            assert (found.samples, found.epsilons, found.norm) == (20, (0.05, 0.1), "linf")
    assert not list(folder.rglob("*.part"))
    files = list((folder.parent / "kept" / "tiny").iterdir())
    assert {file.name for file in files} == {f"{name}.json" for name in RUNS}
    assert all(file.stat().st_size < 50_000 for file in files)
    # The picture shows the first seed of each method.
    assert {file.stem for file in files if load_maps(file) is not None} == {
        name for name in RUNS if name.endswith("-0")
    }


def test_a_second_call_trains_nothing_and_a_third_seed_is_added(
    cli: Callable, warm_workers: None, grid: Path, whole: Grid, request: pytest.FixtureRequest
) -> None:
    before, times = contents(grid), written(grid)
    # What a kill left half-written goes.
    (grid / ".report.html.4711.part").write_text("<!doctype")
    (grid / "st-0" / "evaluation" / "pgd" / ".result.json.4711.part").write_text("{")

    answer = cli(*WORDS)

    assert answer.status == 0, answer.err
    assert answer.out == whole.answer.out
    assert "runs finished" not in answer.err
    assert contents(grid) == before
    assert written(grid) == times
    # What is finished is kept without being done again, to the last bit.
    assert contents(grid.parent / "kept") == contents(whole.folder.parent / "kept")

    request.getfixturevalue("no_page")
    answer = cli(*WORDS, "--seeds", 3)

    assert answer.status == 0, answer.err
    assert_states(answer.err, "4 of 6 runs", "already")
    assert "2 of 2 runs finished" in answer.err
    assert "3 seeds" in answer.out
    assert written(grid) == times
    assert {path.name for path in grid.iterdir() if path.is_dir()} == {*RUNS, "asgt-pgd-2", "st-2", "figures"}
    assert TrainConfig.load(grid / "st-2" / "config.yaml").seed == 2


@pytest.mark.slow
def test_a_finished_grid_is_judged_by_more_protocols_without_being_trained_again(
    cli: Callable, warm_workers: None, tmp_path: Path, no_page: None
) -> None:
    tiny(tmp_path, train=TINY["train"] | {"epochs": 1}, evaluate=EVALUATE | {"protocols": ["paper"]})
    words = (*WORDS, "--seeds", 1)
    answer = cli(*words)
    assert answer.status == 0, answer.err
    assert "pgd v3" not in answer.out
    grid = tmp_path / "grid"
    before, times = contents(grid), written(grid)

    answer = cli(*words, "--protocols", "paper, pgd")

    assert answer.status == 0, answer.err
    assert "2 of 2 runs finished" in answer.err
    assert "pgd v3" in answer.out
    assert load_evaluation(grid / "st-0" / "evaluation" / "pgd").samples == 20
    # Of a finished evaluation the checks are run again, and say the same.
    assert contents(grid)["st-0/evaluation/paper/result.json"] == before["st-0/evaluation/paper/result.json"]
    kept_times = {
        file: time
        for file, time in times.items()
        if not file.endswith(("result.json", "labels.safetensors", "manifest.json"))
    }
    assert kept_times
    assert kept_times.items() <= written(grid).items()
    # The same call again, and one that asks for less, find all there.
    for asked in (("--protocols", "pgd"), ()):
        answer = cli(*words, *asked)
        assert answer.status == 0, answer.err
        assert "runs finished" not in answer.err
    assert set(load_results(tmp_path / "kept" / "tiny").epsilons) == {"paper", "pgd"}


@pytest.mark.slow
def test_a_folder_that_was_only_being_begun_is_free(cli: Callable, tmp_path: Path) -> None:
    tiny(tmp_path)
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / ".preset.yaml.4711.part").write_text("name: ti")

    assert cli(*WORDS, "--dry-run").status == 0


@pytest.mark.slow
def test_a_grid_in_l2_is_judged_in_l2_all_of_it(tmp_path: Path) -> None:
    train = TINY["train"] | {"norm": "l2", "epochs": 1, "eps": 1.5}
    asked = {"protocols": ["pgd"], "epsilons": [0.5, 1.5], "samples": 12}
    preset = load_preset(str(tiny(tmp_path, train=train, evaluate=asked)))

    planned = {run.job.config.method: run.job for run in plan(preset.on(seeds=1), tmp_path / "grid")}
    assert {job.norm for job in planned.values()} == {"l2"}
    # ST trains in no norm at all.
    assert planned["st"].config.norm is None
    write_yaml(tmp_path / "grid" / NOTE, preset.to_dict())
    do(planned["st"], should_stop=lambda: False, phase=lambda number: SILENT)

    found = load_evaluation(Path(planned["st"].folder) / "evaluation" / "pgd")
    assert (found.norm, found.epsilons) == ("l2", (0.5, 1.5))
    assert [run.state for run in plan(preset.on(seeds=1), tmp_path / "grid")] == ["to do", "finished"]


@pytest.mark.slow
def test_a_sample_drawn_class_by_class_counts_as_finished(image_folder: Callable, tmp_path: Path) -> None:
    """A folder is sorted by class: its first images lack some, and as many are drawn by class."""

    folder = image_folder("pets", {"cat": 25, "cow": 25, "dog": 25})
    train = {"width": 0.25, "epochs": 1}
    asked = {"protocols": ["pgd"], "epsilons": [0.1], "samples": 7}
    preset = load_preset(str(tiny(tmp_path, data=str(folder), train=train, methods=[{"method": "st"}], evaluate=asked)))
    (run,) = plan(preset.on(seeds=1), tmp_path / "grid")

    write_yaml(tmp_path / "grid" / NOTE, preset.to_dict())
    do(run.job, should_stop=lambda: False, phase=lambda number: SILENT)

    assert load_evaluation(Path(run.job.folder) / "evaluation" / "pgd").samples == 7
    assert [run.state for run in plan(preset.on(seeds=1), tmp_path / "grid")] == ["finished"]


@pytest.mark.slow
def test_the_cost_of_a_method_follows_its_own_limit(tmp_path: Path) -> None:
    methods = [{"method": "st", "limit": 100}, {"method": "sgt"}, {"method": "st"}]
    preset = load_preset(str(tiny(tmp_path, methods=methods, train={"epochs": 1})))
    images = len(load_data("digits").train)

    passes = {run.job.label: run.job.passes[0] for run in plan(preset.on(seeds=1), tmp_path / "grid")}

    validation = round(0.1 * images)
    assert passes["ST (limit = 100), seed 0"] == 3 * 90 + 10
    assert passes["ST (limit = default), seed 0"] == 3 * (images - validation) + validation
    assert passes["SGT, seed 0"] == 8 * (images - validation) + validation


@pytest.mark.slow
def test_a_job_is_the_same_in_another_process(tmp_path: Path) -> None:
    for run in plan(load_preset(str(tiny(tmp_path))), tmp_path / "grid"):
        assert Job.from_dict(json.loads(json.dumps(run.job.to_dict()))) == run.job


# Killed --------------------------------------------------------------------------------------------------------------


def marks(folder: Path) -> int:
    """How far a grid is: epochs told and attacks through, of 40."""

    epochs = sum(len(file.read_text().splitlines()) for file in folder.glob("*/metrics.jsonl"))
    return epochs + len(list(folder.glob("*/evaluation/*/*.safetensors")))


def test_a_grid_killed_at_random_ends_as_if_it_had_not_been(
    start: Callable, cli: Callable, warm_workers: None, whole: Grid, tmp_path: Path
) -> None:
    tiny(tmp_path)
    folder = tmp_path / "grid"
    draws = random.Random(1)

    # make chaos kills it more often.
    further = draws.randint(4, 12)
    child = start(*WORDS)
    wait_until(lambda: marks(folder) >= further, child)
    time.sleep(draws.uniform(0, 0.2))
    workers = workers_of(child)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert_gone(workers)
    assert not (folder / "report.html").exists()

    # And once while the report is written, which takes its time where figures are drawn.
    child = start(*WORDS, figures=True)
    wait_until((folder / "figures" / "robustness.png").exists, child)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not (folder / "report.html").exists()

    answer = cli(*WORDS)
    assert answer.status == 0, answer.err
    assert answer.out == whole.answer.out
    for name in ("report.html", "accuracies.csv"):
        assert (folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    for name in RUNS:
        assert_same_run(folder / name, whole.folder / name)
    assert kept(tmp_path / "kept") == kept(whole.folder.parent / "kept")

    # And so is a page of results that is made of what was kept.
    pages = [tmp_path / name / "page.md" for name in ("docs", "whole")]
    for page, results in zip(pages, (tmp_path / "kept", whole.folder.parent / "kept"), strict=True):
        write_results(results, page)
    texts = [re.sub(r"^Total time of the runs .*\n", "", page.read_text("utf-8"), flags=re.MULTILINE) for page in pages]
    assert texts[0] == texts[1]


def test_a_signal_lets_the_trainings_save_and_the_same_call_goes_on(
    start: Callable, cli: Callable, warm_workers: None, whole: Grid, tmp_path: Path, no_page: None
) -> None:
    tiny(tmp_path)
    folder = tmp_path / "grid"

    for stop, name in ((signal.SIGINT, "asgt-pgd-0"), (signal.SIGTERM, "asgt-pgd-1")):
        child = start(*WORDS)
        wait_until((folder / name / "config.yaml").exists, child)
        workers = workers_of(child)
        child.send_signal(stop)
        _, errors = child.communicate(timeout=60)

        assert child.returncode == 130, errors
        assert "Traceback" not in errors
        assert_states(errors.splitlines()[-1], "asgt", "stopped", "finished", "same command")
        assert errors.count("asgt: ") == 1
        assert_gone(workers)
        # It stopped in the middle of a training, which lost not a step.
        assert not (folder / name / "training.json").exists()
        assert step_of(folder / name) > 0
    assert not (folder / "report.html").exists()

    answer = cli(*WORDS)
    assert answer.status == 0, answer.err
    assert answer.out == whole.answer.out
    for name in RUNS:
        assert_same_run(folder / name, whole.folder / name)


def test_a_killed_worker_costs_its_run_alone_and_no_second_call_comes_between(
    start: Callable, cli: Callable, warm_workers: None, whole: Grid, tmp_path: Path, no_page: None
) -> None:
    tiny(tmp_path)
    folder, words = tmp_path / "grid", ("reproduce", "tiny.yaml", "--out", "grid", "--seeds", 1, "--workers", 1)
    child = start(*words)
    wait_until((folder / "asgt-pgd-0" / "config.yaml").exists, child)

    # Somebody else calls meanwhile.
    line = cli(*words).refusal()
    assert_states(line, "asgt reproduce", "in use", "grid", "--out")

    wait_until(lambda: marks(folder) > EPOCHS, child)
    (worker,) = workers_of(child)
    worker.kill()
    out, errors = child.communicate(timeout=100)

    line = Answer(child.returncode, out, errors).failure()
    # Kill or no kill, the run that was at work is named, and the other one is done.
    assert_states(line, "1 of 2 runs", "ASGT-PGD, seed 0", "process", "status")
    assert "ST" not in line
    assert not (folder / "report.html").exists()
    assert_same_run(folder / "st-0", whole.folder / "st-0")

    answer = cli(*words)
    assert answer.status == 0, answer.err
    assert_states(answer.err, "1 of 2 runs", "already")
    assert_same_run(folder / "asgt-pgd-0", whole.folder / "asgt-pgd-0")


def test_a_grid_on_a_cluster_ends_as_one_on_this_machine(
    whole: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """submitit's own stand-in for a cluster: the same jobs in the same calls, without Slurm."""

    pytest.importorskip("submitit", reason="submitit is not installed: the extra slurm has it")
    monkeypatch.delenv("ASGT_DATA", raising=False)
    preset = load_preset(str(tiny(tmp_path))).on(seeds=1)
    jobs = [run.job for run in plan(preset, tmp_path / "grid")]
    write_yaml(tmp_path / "grid" / NOTE, preset.to_dict())
    diverging = replace(jobs[1], folder=str(tmp_path / "grid" / "no"), config=replace(jobs[1].config, lr=1e30))
    faulty = replace(jobs[1], label="faulty", folder=str(tmp_path / "grid" / "bad"), samples="many")  # type: ignore[arg-type]
    [job] = [job for job in jobs if job.config.method == "asgt"]
    asked = [faulty, job, diverging]
    told = Told()

    with pytest.raises(RuntimeError) as raised:
        run_on_cluster(asked, tmp_path / "grid", cluster="local", should_stop=lambda: False, progress=told)

    before, _, traceback = str(raised.value).partition("Traceback")
    assert_states(before, faulty.label)
    assert_states(traceback, "TypeError")
    assert_states(str(raised.value), "2 of 3 runs", diverging.label, "loss", "--lr")
    assert told.passes == sum(sum(job.passes) for job in asked)
    assert_same_run(tmp_path / "grid" / "asgt-pgd-0", whole.folder / "asgt-pgd-0")
    assert {run.job.label: run.state for run in plan(preset, tmp_path / "grid")} == {
        "ASGT-PGD, seed 0": "finished",
        "ST, seed 0": "to do",
    }


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started can be interrupted, even where the tests themselves run in the background and cannot."""

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_a_cluster_that_is_told_to_stop_cancels_its_jobs(tmp_path: Path, interruptible: None) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: the extra slurm has it")
    preset = load_preset(str(tiny(tmp_path))).on(seeds=1)
    jobs = [run.job for run in plan(preset, tmp_path / "grid")]
    write_yaml(tmp_path / "grid" / NOTE, preset.to_dict())

    with pytest.raises(InterruptedRunError, match="0 of 2 runs finished"):
        run_on_cluster(jobs, tmp_path / "grid", cluster="local", should_stop=lambda: True, progress=SILENT)

    # They are gone: a process that nobody waited for would warn here, which is an error.
    gc.collect()
    states = {run.state for run in plan(preset, tmp_path / "grid")}
    assert states <= {"to do", "begun"}


def test_a_requeued_job_is_the_same_call() -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: the extra slurm has it")
    again = cluster._Call().checkpoint({"label": "x"})

    assert isinstance(again.function, cluster._Call)
    assert again.args == ({"label": "x"},)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--executor", "slurm"), ("--executor", "slurm", "--slurm", "timeout_min=5")])
def test_without_slurm_there_is_no_cluster(cli: Callable, tmp_path: Path, words: tuple[str, ...]) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed: the extra slurm has it")
    if shutil.which("srun"):
        pytest.skip("this machine has Slurm")
    tiny(tmp_path)

    assert "--executor local" in cli(*WORDS, *words).refusal()


class Told:
    """A progress that counts what it is told."""

    def __init__(self) -> None:
        self.passes = 0

    def start(self, title: str, total: int, done: int = 0) -> None: ...

    def advance(self, parts: int = 1, **values: float) -> None:
        self.passes += parts

    def say(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture
def worker(child_environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A worker as a process of its own, without its parent."""

    command = [sys.executable, "-P", "-m", "asgt.experiments.worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen(command, env=child_environment, text=True, **pipes)
    yield child
    child.kill()
    child.communicate()


def test_a_worker_whose_training_was_refused_stops_when_it_is_told(
    worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    job = replace(plan(load_preset(str(tiny(tmp_path))), tmp_path / "grid")[0].job, folder=str(tmp_path / "tiny.yaml"))
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(json.dumps({"job": job.to_dict()}), file=worker.stdin, flush=True)
    told = json.loads(worker.stdout.readline())
    assert told["event"] == "refused"
    assert_states(told["text"], "tiny.yaml", "file")

    # Nothing is left to be saved, nor to be waited for.
    print("stop", file=worker.stdin, flush=True)
    assert worker.wait(timeout=10) == 0


def test_a_worker_ends_with_whoever_started_it_even_in_its_sleep(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None
    time.sleep(0.5)
    assert worker.poll() is None

    worker.stdin.close()
    worker.stdin = None

    assert worker.wait(timeout=10) == 0


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_line_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [run.job for run in plan(load_preset(str(tiny(tmp_path))), tmp_path / "grid")]
    torn = tmp_path / "torn"
    torn.write_text('#!/bin/sh\nprintf \'{"event": "do\'\nexit 7\n')
    torn.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(torn))

    with pytest.raises(InputError) as refused:
        run_jobs(jobs, 2, should_stop=lambda: False, progress=SILENT)

    assert_states(refused.value, "4 of 4 runs", *(job.label for job in jobs))
    assert str(refused.value).count("status 7") == 4


@pytest.mark.slow
def test_a_fault_in_one_run_leaves_the_others_alone_and_what_does_not_fit_is_passed_over(
    tmp_path: Path, forks: Warm, warm_workers: None
) -> None:
    methods = [{"method": "st"}, {"method": "sgt", "k": 0.3}]
    file = tiny(tmp_path, methods=methods, train=TINY["train"] | {"epochs": 1})
    jobs = [run.job for run in plan(load_preset(str(file)).on(seeds=1, protocols=["pgd"]), tmp_path / "grid")]
    faulty = replace(jobs[0], samples="many")  # type: ignore[arg-type]

    def fits(job: Job, made: int) -> bool:
        return job.label != "long"

    started = forks.made
    long = replace(jobs[1], label="long", folder=str(tmp_path / "long"))
    with pytest.raises(RuntimeError) as raised:
        run_jobs([faulty, long, jobs[1]], 1, should_stop=lambda: False, progress=SILENT, fits=fits)
    before, _, traceback = str(raised.value).partition("Traceback")
    assert_states(before, faulty.label)
    assert_states(traceback, "TypeError")

    assert load_evaluation(RunFolder(jobs[1].folder).evaluation("pgd")).samples == jobs[1].samples
    assert not Path(long.folder).exists()
    # A process that met a fault is not trusted with another run.
    assert forks.made - started == 2


# What goes wrong under way -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_that_diverges_is_named_and_the_others_are_done(
    cli: Callable, warm_workers: None, tmp_path: Path
) -> None:
    methods = [{"method": "at", "attack": "fgsm", "lr": 1e30}, {"method": "st"}]
    tiny(tmp_path, methods=methods, train=TINY["train"] | {"epochs": 1}, evaluate=EVALUATE | {"protocols": ["pgd"]})

    answer = cli("reproduce", "tiny.yaml", "--out", "grid", "--seeds", 1, "--workers", 1)

    line = answer.failure()
    assert_states(line, "1 of 2 runs", "AT-FGSM, seed 0", "loss", "--lr")
    assert load_evaluation(tmp_path / "grid" / "st-0" / "evaluation" / "pgd").samples == 20
    assert not (tmp_path / "grid" / "at-fgsm-0" / "training.json").exists()
    assert not (tmp_path / "grid" / "report.html").exists()


def test_no_room_for_the_report_is_said_and_the_last_one_stays(warm: Callable, grid: Path) -> None:
    before = contents(grid)
    room = len(before["report.html"]) - 1

    answer = warm(*WORDS, largest_file=room)

    line = answer.failure()
    assert "grid/" in line
    assert_states(line, "write", "File too large")
    after = contents(grid)
    assert after["report.html"] == before["report.html"]
    assert set(after) == set(before)


def test_a_page_that_cannot_be_put_in_its_place_leaves_the_old_one(
    cli: Callable, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(grid)
    (grid / "report.html").write_text("the old one")
    into_place = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "report.html":
            raise OSError(errno.ENOSPC, "No space left on device")
        into_place(source, target)

    monkeypatch.setattr(os, "replace", full)
    line = cli(*WORDS).failure()

    assert_states(line, "write", "grid/report.html", "No space left on device")
    assert (grid / "report.html").read_text() == "the old one"
    assert not list(grid.rglob("*.part"))

    monkeypatch.undo()
    assert contents(grid) == before | {"report.html": b"the old one"}


# asgt compare --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a folder of images whose classes have strange names, evaluated, with the folder beside it."""

    import numpy as np
    from PIL import Image

    from asgt.cli import main

    place = tmp_path_factory.mktemp("strange")
    draws = np.random.default_rng(0)
    for name in STRANGE:
        (place / "pets" / name).mkdir(parents=True)
        for number in range(15):
            picture = Image.fromarray(draws.integers(0, 256, (8, 8), dtype=np.uint8))
            picture.save(place / "pets" / name / f"{number}.png")
    run = str(place / "run")
    words = ["--data", str(place / "pets"), "--method", "at", "--steps", "2", "--width", "0.25", "--epochs", "1"]
    assert main(["train", *words, "--out", run]) == 0
    assert main(["evaluate", run, "--epsilons", "0.05,0.1", "--samples", "9"]) == 0
    return place


STRANGE = ("<img src=x onerror=alert(1)>", "<script>", "$x_", "猫")


class Page(HTMLParser):
    """The tags of a page, with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.draws
def test_a_strangers_class_name_is_text_and_nothing_else(
    cli: Callable, strange: Path, whole: Grid, tmp_path: Path
) -> None:
    # In this process a warning, as of a letter that the font lacks, is an error.
    answer = cli("compare", strange / "run", "--out", "page")

    assert answer.status == 0, answer.err
    assert answer.out.splitlines()[-1] == "report: page/report.html"
    page = Page(tmp_path / "page" / "report.html")
    for name in STRANGE:
        assert name in page.text, name
    ours = Page(whole.folder / "report.html")
    assert [tag for tag, _ in page.tags].count("script") == [tag for tag, _ in ours.tags].count("script") > 0
    raw = (tmp_path / "page" / "report.html").read_text()
    assert "<img src=x" not in raw
    assert "&lt;script&gt;" in raw
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert all((attributes["src"] or "").startswith("data:") for tag, attributes in page.tags if tag == "img")
    for kind in ("png", "pdf"):
        assert (tmp_path / "page" / "figures" / f"saliency.{kind}").stat().st_size > 1000


def test_one_run_alone_is_compared_with_itself(cli: Callable, whole: Grid, tmp_path: Path) -> None:
    answer = cli("compare", whole.folder / "st-0")

    assert answer.status == 0, answer.err
    assert "[Wilson 95 %]" in answer.out
    assert (tmp_path / "comparison" / "report.html").exists()
    assert (
        f"asgt compare {whole.folder / 'st-0'} --out comparison"
        in (tmp_path / "comparison" / "report.html").read_text()
    )


def test_a_model_of_ones_own_is_named_again_in_the_pages_command(
    cli: Callable, whole: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_models.py").write_text(
        "import asgt.models\n"
        "def build(num_classes, in_channels, image_size):\n"
        "    return asgt.models.small_cnn(in_channels, image_size, num_classes, width=0.25)\n"
    )
    monkeypatch.delitem(sys.modules, "my_models", raising=False)
    run = ("--method", "st", "--epochs", 1, "--limit", 100, "--out", "run", "--model", "my_models:build")
    assert cli("train", *run).status == 0
    evaluated = ("evaluate", "run", "--model", "my_models:build", "--epsilons", 0.1, "--samples", 10)
    assert cli(*evaluated).status == 0

    assert cli("compare", "run", "--model", "my_models:build").status == 0

    page = (tmp_path / "comparison" / "report.html").read_text()
    assert "asgt compare run --out comparison --model my_models:build" in page
    assert "No maps of" not in page

    # As in every remedy: without it, the command refuses to run the user's code.
    (Path("run") / "evaluation" / "pgd" / "result.json").unlink()
    verified = cli("verify", "run")
    assert "asgt evaluate run --protocol pgd --model my_models:build" in verified.out + verified.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], ["run folder"]),
        (["st-0", "nowhere"], ["run folder", "nowhere"]),
        (["st-0", "empty"], ["empty", "run folder", "config.yaml"]),
        (["st-0", "tiny.yaml"], ["run folder", "tiny.yaml"]),
        (["st-0", "st-0"], ["st-0", "twice"]),
        (["st-0", "st-1", "./st-0/"], ["st-0", "twice"]),
        (["st-0", "copy"], ["copy", "seed", "(0)"]),
        (["st-0", "judged not"], ["judged not", "no evaluation", "asgt evaluate"]),
        (["st-0", "unfinished"], ["unfinished", "not finished", "--resume"]),
        (["st-0", "strange"], ["different data", "digits", "pets"]),
        (["st-0", "--out", "tiny.yaml"], ["tiny.yaml", "file", "--out"]),
        (["st-0", "--oot", "page"], ["--oot", "'--out'"]),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    cli: Callable, whole: Grid, strange: Path, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    tiny(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"st-0": "st-0", "st-1": "st-1", "copy": "st-0", "judged not": "asgt-pgd-0", "unfinished": "asgt-pgd-0"}
    for name, run in places.items():
        shutil.copytree(whole.folder / run, tmp_path / name)
    shutil.copytree(strange / "run", tmp_path / "strange")
    shutil.rmtree(tmp_path / "judged not" / "evaluation")
    (tmp_path / "unfinished" / "training.json").unlink()
    before = contents(tmp_path)

    line = cli("compare", *words).refusal()

    assert_states(line, *said)
    assert contents(tmp_path) == before


def test_the_process_refuses_runs_on_different_images(warm: Callable, whole: Grid, strange: Path) -> None:
    line = warm("compare", whole.folder / "st-0", strange / "run").refusal()

    assert_states(line, "tested", "different data", "digits", "pets")
