"""Whose code runs: only that of a module which the user names by --model or --allow, whatever else reads like its name.

Every module here that nobody named writes a file as soon as it is imported.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from support.command import Answer
from support.edits import edited
from support.messages import assert_states

MARKED = """
from pathlib import Path
Path({ran!r}).touch()
from torch import nn

def net(num_classes=10, in_channels=1, image_size=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
"""

SMALL = ("--method", "st", "--epochs", "1", "--limit", "60", "--batch-size", "30")
NAMED = "evilm:net"


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once one of the modules ``evilm`` and ``evilp.inner`` in the working directory ran."""

    ran = tmp_path / "ran"
    (tmp_path / "evilp").mkdir()
    for module in ("evilm.py", "evilp/__init__.py", "evilp/inner.py"):
        (tmp_path / module).write_text(MARKED.format(ran=str(ran)))
    for name in ("evilm", "evilp", "evilp.inner"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return ran


def configuration(path: Path, model: str = NAMED) -> Path:
    path.write_text(yaml.safe_dump({"model": model, "method": "st", "epochs": 1, "limit": 60, "batch_size": 30}))
    return path


def grid(path: Path, model: str | None = NAMED) -> Path:
    train = {"epochs": 1, "limit": 60, "batch_size": 30} | ({} if model is None else {"model": model})
    evaluate = {"protocols": ["pgd"], "epsilons": [0.1], "samples": 10}
    content = {"data": "digits", "train": train, "methods": [{"method": "st"}], "evaluate": evaluate}
    path.write_text(yaml.safe_dump(content))
    return path


def renamed(run: Path, model: str = NAMED, to: Path | None = None) -> Path:
    """A run folder whose configuration names another model, as a stranger's would."""

    edited(run / "config.yaml", model=model)
    return run if to is None else run.rename(to)


def refused(answer: Answer, ran: Path) -> str:
    assert not ran.exists()
    return answer.refusal()


# What does not count --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--out", NAMED],
        ["--out", f"runs/{NAMED}-1"],
        ["--label-column", NAMED],
        ["--image-column", NAMED],
        ["--data-config", NAMED],
        ["--device", NAMED],
        ["--allow", "evil"],
        ["--allow", "evilmore"],
        ["--allow", "EVILM"],
        ["--allow", "evilm.net"],
        ["--allow", "evilp"],
        ["--allow", "net"],
    ],
)
def test_no_other_word_allows_the_model_of_a_configuration(
    cli: Callable, ran: Path, tmp_path: Path, words: list[str]
) -> None:
    configuration(tmp_path / "mine.yaml")

    line = refused(cli("train", "--config", "mine.yaml", *words), ran)

    assert_states(line, "mine.yaml", f"--model {NAMED}", "--allow evilm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evilm.py", "evilp", "mine.yaml"]


@pytest.mark.parametrize("words", [["--config", f"{NAMED}.yaml"], ["--config", f"{NAMED}.yaml", "--out", "x"]])
def test_the_name_of_a_configuration_does_not_allow_its_model(
    cli: Callable, ran: Path, tmp_path: Path, words: list[str]
) -> None:
    configuration(tmp_path / f"{NAMED}.yaml")

    assert_states(refused(cli("train", *words), ran), "--allow evilm")


@pytest.mark.parametrize(
    ("model", "allowed"),
    [("evilp.inner:net", "evilp"), ("evilp:net", "evilp.inner"), ("evilp.inner:net", "inner"), ("evilm:net", "evilp")],
)
def test_a_package_and_its_modules_do_not_stand_for_each_other(
    cli: Callable, ran: Path, tmp_path: Path, model: str, allowed: str
) -> None:
    configuration(tmp_path / "mine.yaml", model)

    line = refused(cli("train", "--config", "mine.yaml", "--allow", allowed), ran)

    assert_states(line, f"--allow {model.split(':')[0]}")


@pytest.mark.parametrize("value", ["evilm,other", "other, evilm", "", "evil m", "evilm.", "./evilm", "evilm.py/x"])
def test_a_value_of_allow_that_is_no_module_is_refused(cli: Callable, ran: Path, tmp_path: Path, value: str) -> None:
    configuration(tmp_path / "mine.yaml")

    assert_states(refused(cli("train", "--config", "mine.yaml", "--allow", value), ran), f"--allow {value}", "module")


def test_a_factory_for_allow_is_refused_with_its_module(cli: Callable, ran: Path, tmp_path: Path) -> None:
    configuration(tmp_path / "mine.yaml")

    assert_states(refused(cli("train", "--config", "mine.yaml", "--allow", NAMED), ran), "--allow evilm")


def test_another_model_on_the_command_line_does_not_allow_that_of_the_file(
    cli: Callable, ran: Path, tmp_path: Path
) -> None:
    configuration(tmp_path / "mine.yaml")

    assert_states(refused(cli("train", "--config", "mine.yaml", "--model", "nowhere:net"), ran), "nowhere")


def test_the_environment_names_no_model(process: Callable, ran: Path, tmp_path: Path) -> None:
    # The library takes flags from the environment where its own variable says so; its names for them may hold a space.
    flags = [f"ASGT{gap}{verb}_{flag}" for gap in " _" for verb in ("TRAIN", "EVALUATE") for flag in ("MODEL", "ALLOW")]
    environment = {"JSONARGPARSE_DEFAULT_ENV": "true"} | {
        flag: NAMED if flag.endswith("MODEL") else "[evilm]" for flag in flags
    }
    configuration(tmp_path / "mine.yaml")

    assert_states(refused(process("train", "--config", "mine.yaml", environment=environment), ran), "--allow evilm")
    answer = process("evaluate", "--data", "digits", "--out", "e", environment=environment)
    assert_states(refused(answer, ran), "--model", "missing")


@pytest.mark.parametrize("verb", ["train", "evaluate", "explain"])
def test_a_run_folder_by_any_name_does_not_allow_its_model(
    cli: Callable, ran: Path, finished_run: Path, tmp_path: Path, verb: str
) -> None:
    run = renamed(finished_run, to=tmp_path / NAMED)
    words = {"train": ["--resume", "--out", run], "evaluate": [run, "--samples", 5, "--epsilons", 0.1]}

    line = refused(cli(verb, *words.get(verb, [run, "--samples", 5])), ran)

    assert_states(line, run / "config.yaml", "--allow evilm")
    assert not any((run / name).exists() for name in ("evaluation", "explanation"))


def test_a_model_that_is_no_code_of_the_users_allows_no_other(cli: Callable, ran: Path, finished_run: Path) -> None:
    renamed(finished_run)

    for other in ("small_cnn", "evilm:other"):
        assert_states(refused(cli("evaluate", finished_run, "--model", other), ran), "--model", other, "remove")


@pytest.mark.parametrize(
    "words",
    [
        ["--out", NAMED],
        ["--dry-run"],
        ["--dry-run", "--out", NAMED],
        ["--keep", NAMED],
        ["--set", f"model={NAMED}"],
        ["--dry-run", "--set", f"model={NAMED}"],
        ["--allow", "evilp"],
    ],
)
def test_a_grid_does_not_allow_its_model(cli: Callable, ran: Path, tmp_path: Path, words: list[str]) -> None:
    grid(tmp_path / f"{NAMED}.yaml", None if "--set" in words else NAMED)
    before = sorted(tmp_path.iterdir())

    line = refused(cli("reproduce", f"{NAMED}.yaml", *words), ran)

    assert_states(line, "--allow evilm")
    assert sorted(tmp_path.iterdir()) == before


# A module in the working directory that is called as one of ours ------------------------------------------------------

LIBRARIES = ("rich", "yaml", "torch", "numpy", "jsonargparse", "timm", "captum", "datasets", "sklearn", "PIL", "asgt_x")


def test_no_module_of_the_working_directory_stands_in_for_a_library(process: Callable, tmp_path: Path) -> None:
    for name in (*LIBRARIES, "logging", "json", "errno", "tempfile", "deepspeed", "tensorflow", "jax"):
        (tmp_path / f"{name}.py").write_text(MARKED.format(ran=str(tmp_path / f"ran-{name}")))

    answer = process("train", *SMALL, "--out", "run")

    assert answer.status == 0, answer.err
    assert not list(tmp_path.glob("ran-*"))
    words = ("--model", "timm:nothing", "--weights", "w.pt", "--data", "digits", "--out", "evidence")
    assert "timm" in process("evaluate", *words).refusal()
    assert not list(tmp_path.glob("ran-*"))


def test_an_installed_package_goes_before_the_working_directory(process: Callable, tmp_path: Path) -> None:
    """The user names an installed module: a file of its name that lies about is none of their doing."""

    (tmp_path / "captum.py").write_text(MARKED.format(ran=str(tmp_path / "ran")))

    line = process("train", *SMALL, "--model", "captum:net").refusal()

    assert "captum:net" in line
    assert not (tmp_path / "ran").exists()


# What counts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ["--model", NAMED],
        [f"--model={NAMED}"],
        ["--allow", "evilm"],
        ["--allow=evilm"],
        ["--allow", "x", "--allow", "evilm"],
    ],
)
def test_the_flags_that_name_a_model_allow_it(cli: Callable, ran: Path, tmp_path: Path, words: list[str]) -> None:
    configuration(tmp_path / "mine.yaml")

    answer = cli("train", "--config", "mine.yaml", "--out", "run", *words)

    assert answer.status == 0, answer.err
    assert ran.exists()


def test_a_module_in_a_package_is_allowed_by_its_whole_name(cli: Callable, ran: Path, tmp_path: Path) -> None:
    configuration(tmp_path / "mine.yaml", "evilp.inner:net")

    assert cli("train", "--config", "mine.yaml", "--out", "run", "--allow", "evilp.inner").status == 0
    assert ran.exists()


@pytest.mark.slow
def test_a_run_that_is_allowed_is_evaluated_explained_and_compared(cli: Callable, ran: Path, tmp_path: Path) -> None:
    assert cli("train", *SMALL, "--model", NAMED, "--out", "run").status == 0
    allow = ("--allow", "evilm")

    answer = cli("evaluate", "run", "--samples", 10, "--epsilons", 0.1, *allow)
    assert answer.status == 0, answer.err
    answer = cli("explain", "run", "--samples", 8, "--out", "page", *allow)
    assert answer.status == 0, answer.err

    answer = cli("compare", "run", "--out", "page")
    assert answer.status == 0, answer.err
    assert "--allow evilm" in (tmp_path / "page" / "report.html").read_text()
    assert not list((tmp_path / "page" / "figures").glob("saliency*"))
    answer = cli("compare", "run", "--out", "page", *allow)
    assert answer.status == 0, answer.err
    assert list((tmp_path / "page" / "figures").glob("saliency*"))


def test_a_grid_that_is_allowed_is_planned_and_its_workers_may_build_the_model(
    cli: Callable, warm_workers: None, ran: Path, tmp_path: Path
) -> None:
    grid(tmp_path / "mine.yaml")
    words = ("reproduce", "mine.yaml", "--allow", "evilm", "--out", "grid", "--workers", 1)

    answer = cli(*words, "--dry-run")
    assert answer.status == 0, answer.err
    assert ran.exists()  # the time of a pass is measured on the model itself
    assert not (tmp_path / "grid").exists()

    ran.unlink()
    answer = cli(*words)
    assert answer.status == 0, answer.err
    assert ran.exists()  # this process has the module already: it ran in the worker
    assert list((tmp_path / "grid" / "figures").glob("saliency*"))


def test_profile_takes_a_model_by_its_flag(cli: Callable, ran: Path) -> None:
    answer = cli(
        "profile", "--model", NAMED, "--method", "st", "--data-shape", "1x8x8", "--batch-size", 4, "--repetitions", 1
    )

    assert answer.status == 0, answer.err
    assert ran.exists()


# Python ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("allow", [(), ("evil",), ("evilm.net",), "my evilm:net", "evilmevilm:net", ("evilm:other",)])
def test_a_loaded_run_runs_nothing_that_is_not_allowed(
    ran: Path, finished_run: Path, allow: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import asgt

    monkeypatch.chdir(tmp_path)
    renamed(finished_run)

    with pytest.raises(asgt.InputError) as caught:
        asgt.load_run(finished_run, allow=allow)  # type: ignore[arg-type]
    assert_states(caught.value, "--allow evilm")
    assert not ran.exists()


@pytest.mark.parametrize(
    "how", [{"allow": ["evilm"]}, {"allow": "evilm"}, {"allow": {NAMED}}, {"trusted_model": NAMED}]
)
def test_a_loaded_run_runs_what_is_allowed(
    cli: Callable, ran: Path, how: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    import asgt

    assert cli("train", *SMALL, "--model", NAMED, "--out", "run").status == 0
    ran.unlink()
    monkeypatch.delitem(sys.modules, "evilm")

    asgt.load_run("run", **how)  # type: ignore[arg-type]

    assert ran.exists()


def test_a_preset_names_a_model_only_if_that_is_allowed(ran: Path, tmp_path: Path) -> None:
    import asgt

    path = str(grid(tmp_path / "mine.yaml"))

    with pytest.raises(asgt.InputError) as caught:
        asgt.load_preset(path)
    assert_states(caught.value, "mine.yaml", "--allow evilm")
    preset = asgt.load_preset(path, allow=["evilm"])
    # What was loaded is not yet allowed to run.
    with pytest.raises(asgt.InputError) as caught:
        asgt.reproduce(preset, tmp_path / "grid")
    assert_states(caught.value, "--allow evilm")
    assert not ran.exists()
    assert not (tmp_path / "grid").exists()


@pytest.mark.slow
def test_a_job_hands_on_what_is_allowed_to_another_process(cli: Callable, ran: Path, tmp_path: Path) -> None:
    from asgt import load_preset
    from asgt.experiments.cluster import _Call
    from asgt.experiments.grid import plan
    from asgt.experiments.job import Job

    preset = load_preset(str(grid(tmp_path / "mine.yaml")), allow=["evilm"])
    job = plan(preset, tmp_path / "grid", allow=["evilm"])[0].job
    values = json.loads(json.dumps(job.to_dict()))

    assert Job.from_dict(values) == job
    assert job.allow == ("evilm",)
    (tmp_path / "grid").mkdir()
    assert "--allow evilm" in _Call()(values | {"allow": []})
    assert not ran.exists()
    assert _Call()(values) == ""
    assert ran.exists()


@pytest.mark.slow
def test_a_job_of_a_cluster_imports_nothing_of_the_working_directory_that_is_not_allowed(
    cli: Callable, ran: Path, tmp_path: Path
) -> None:
    import asgt
    from asgt.experiments.cluster import run_on_cluster
    from asgt.experiments.grid import plan
    from asgt.progress import SILENT

    for name in ("torch", "yaml", "cloudpickle"):
        (tmp_path / f"{name}.py").write_text(MARKED.format(ran=str(tmp_path / f"ran-{name}")))
    preset = asgt.load_preset(str(grid(tmp_path / "mine.yaml")), allow=["evilm"])
    jobs = [run.job for run in plan(preset, tmp_path / "grid", allow=["evilm"])]
    (tmp_path / "grid").mkdir()

    run_on_cluster(jobs, tmp_path / "grid", cluster="local", should_stop=lambda: False, progress=SILENT)

    assert ran.exists()
    assert not list(tmp_path.glob("ran-*"))


@pytest.mark.parametrize(
    ("name", "allow", "allowed"),
    [
        ("a.b:net", ("a.b",), True),
        ("a.b:net", ("a.b:net",), True),
        ("a.b:net", ("a",), False),
        ("a:net", ("a.b",), False),
        ("a.b:net", ("a.b:other",), False),
        ("a.b:net", ("a.b:net2", "a.bc", "b"), False),
        ("a:net", "a:net", True),
        ("a:net", "a:net and more", False),
        ("a:net", (), False),
    ],
)
def test_only_the_exact_name_or_module_is_allowed(name: str, allow: object, allowed: bool) -> None:
    from asgt.names import is_allowed

    assert is_allowed(name, allow) is allowed  # type: ignore[arg-type]


def test_models_of_libraries_are_no_code_of_the_users() -> None:
    from asgt.names import is_foreign

    assert [is_foreign(name) for name in ("hf:a/b", "timm:resnet50", "small_cnn")] == [False] * 3
    assert [is_foreign(name) for name in ("hfx:net", "a.timm:net", "hf.models:net")] == [True] * 3
