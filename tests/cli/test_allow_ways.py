"""Ways in which a stranger's files might get code to run that the user did not name. Each is tried; none may work.

The module ``evilm`` in the working directory writes a file when it is imported, and so does the payload of a pickle.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import yaml

from asgt import plugins
from asgt.errors import AsgtError, InputError
from support.command import Answer, plain_environment
from support.edits import edited, resealed, rewritten
from support.messages import assert_states

NET = """
from pathlib import Path
from torch import nn
Path({ran!r}).touch()

def net(num_classes=10, in_channels=1, image_size=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))
"""

BASE: dict[str, Any] = {"method": "st", "epochs": 1, "limit": 60, "batch_size": 30}


pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that exists once ``evilm``, ``evilp`` or a payload ran; the test stands where the modules lie."""

    ran = tmp_path / "ran"
    (tmp_path / "evilp").mkdir()
    for module in ("evilm.py", "evilp/__init__.py", "evilp/inner.py"):
        (tmp_path / module).write_text(NET.format(ran=str(ran)))
    monkeypatch.chdir(tmp_path)
    return ran


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.ran,)


def mine(tmp_path: Path, lines: str) -> None:
    """A module of the user's own, which they name."""

    (tmp_path / "mine.py").write_text(NET.format(ran=str(tmp_path / "mine-ran")) + lines)


def refused(answer: Answer, ran: Path) -> str:
    assert not ran.exists()
    return answer.refusal()


# Names in a configuration or a grid -----------------------------------------------------------------------------------

NEAR = (
    "evilm :net",
    " evilm:net",
    "evilm.:net",
    "evilm.sub:net",
    ".evilm:net",
    "..evilm:net",
    "ｅvilm:net",  # an identifier in Python's source is normalised to evilm
    "еvilm:net",  # Cyrillic
    "EVILM:net",
    "evilm/:net",
    "./evilm:net",
    "evilm.py:net",
    "evilm\n:net",
    "os:system",
    "builtins:eval",
    "evilp.inner:net",
    "evil\u200bm:net",  # a space of no width
    "ev\u0131lm:net",  # an i without its dot, whose capital is that of i
    "hf.evilm:net",
    "evilm.evilp:net",
    ":net",
    ".:net",
    "__main__:net",
    "asgt.cli:main",
    "asgt.experiments.worker:main",
    "torch.hub:load",
)


KINDS = ("model", "method", "attack")


@pytest.mark.parametrize(("name", "kind"), list(zip(NEAR, itertools.cycle(KINDS), strict=False)))
def test_a_name_that_only_looks_like_an_allowed_one_is_refused(
    cli: Callable, ran: Path, tmp_path: Path, name: str, kind: str
) -> None:
    settings = BASE | ({"method": "at"} if kind == "attack" else {}) | {kind: name}
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))

    answer = cli("train", "--config", "its.yaml", "--allow", "evilm", "--allow", "evilp", "--out", "run")

    assert_states(refused(answer, ran), "its.yaml", kind, "--allow")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["evilm:net", "evilp.inner:net"])
def test_the_same_file_runs_what_is_allowed(cli: Callable, ran: Path, tmp_path: Path, name: str, kind: str) -> None:
    settings = BASE | ({"method": "at"} if kind == "attack" else {}) | {kind: name}
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(settings))

    cli("train", "--config", "its.yaml", "--allow", name.partition(":")[0], "--out", "run")

    assert ran.exists()


@pytest.mark.parametrize(
    "name", ["evilm:", "evilm:net:x", "evilm:net.x", "evilm:Path.touch", "evilm:__import__", "evilm:__builtins__"]
)
@pytest.mark.parametrize("kind", KINDS)
def test_only_an_attribute_of_an_allowed_module_is_taken(
    cli: Callable, ran: Path, tmp_path: Path, name: str, kind: str
) -> None:
    settings = BASE | ({"method": "at"} if kind == "attack" else {}) | {kind: name}
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(settings))

    answer = cli("train", "--config", "its.yaml", "--allow", "evilm", "--out", "run")

    assert_states(answer.refusal(), name.rstrip(":"))
    assert ran.exists()  # the module itself was allowed


@pytest.mark.parametrize(
    "values",
    [
        {"settings": {"model": "evilm:net"}},
        {"settings": {"attack": "evilm:net"}, "method": "at"},
        {"model": ["evilm:net"]},
        {"model": {"class_path": "evilm.net"}},
        {"method": {"class_path": "evilm:net", "init_args": {}}},
        {"model": "evilm:net", "allow": ["evilm"]},
        {"allow": "evilm", "model": "evilm:net"},
        {"config": "other.yaml"},
        {"callbacks": ["evilm:net"]},
        {"data": "evilm:net"},
        {"data": "evilm"},
        {"data": "pandas"},  # the library of data sets reads the pickles of a folder by this name
        {"data_config": "evilm:net", "device": "evilm:net"},
        {"device": "evilm:net"},
        {"augment": "evilm:net"},
        {"schedule": "evilm:net"},
    ],
)
def test_no_value_of_a_configuration_runs_code(
    cli: Callable, ran: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | values))
    (tmp_path / "other.yaml").write_text("model: evilm:net\n")
    for split in ("train", "test"):
        (tmp_path / f"{split}.pkl").write_bytes(pickle.dumps(Payload(ran)))

    refused(cli("train", "--config", "its.yaml", "--out", "run"), ran)
    # Nor does what the user names for something else.
    refused(cli("train", "--config", "its.yaml", "--out", "run", "--allow", "os", "--seed", 3), ran)


TAGS = (
    "!!python/object/apply:evilm.net []",
    "!!python/object/new:evilm.net []",
    "!!python/name:evilm.net",
    "!!python/module:evilm",
    "!!python/object/apply:os.system ['touch ran']",
)


@pytest.mark.parametrize("tag", TAGS)
def test_no_tag_of_yaml_runs_code(cli: Callable, ran: Path, finished_run: Path, tmp_path: Path, tag: str) -> None:
    (tmp_path / "its.yaml").write_text(f"model: {tag}\nmethod: st\n")
    assert_states(refused(cli("train", "--config", "its.yaml", "--allow", "os"), ran), "its.yaml")
    assert_states(refused(cli("reproduce", "its.yaml", "--dry-run"), ran), "its.yaml")
    (finished_run / "config.yaml").write_text(f"model: {tag}\nmethod: st\n")
    resealed(finished_run)
    assert_states(refused(cli("evaluate", finished_run, "--samples", 4), ran), "config.yaml")


@pytest.mark.parametrize("tag", TAGS)
def test_each_tag_of_yaml_runs_code_in_a_reader_that_trusts_it(ran: Path, monkeypatch: Any, tag: str) -> None:
    monkeypatch.syspath_prepend(str(ran.parent))
    __import__("evilm") if "name:" in tag else None  # this tag alone looks for what is imported already
    with contextlib.suppress(Exception):
        yaml.unsafe_load(tag)
    assert ran.exists()


def test_no_flag_takes_code_as_a_value(cli: Callable, ran: Path) -> None:
    """The library that parses the flags knows values that name a class to be made."""

    for value in ('{"class_path": "evilm.net"}', "!!python/name:evilm.net"):
        for flag in ("--method", "--data", "--eps", "--device", "--seed", "--augment"):
            refused(cli("train", flag, value, "--out", "run"), ran)


GRID: dict[str, Any] = {
    "data": "digits",
    "train": {"epochs": 1, "limit": 60, "batch_size": 30},
    "methods": [{"method": "st"}],
    "evaluate": {"protocols": ["pgd"], "epsilons": [0.1], "samples": 10},
}


@pytest.mark.parametrize(
    "values",
    [
        {"allow": ["evilm"], "train": {"model": "evilm:net"}},
        {"train": {"model": "evilm:net", "allow": ["evilm"]}},
        {"methods": [{"method": "st", "allow": ["evilm"], "model": "evilm:net"}]},
        {"methods": [{"method": "st"}, {"method": "evilm:net"}]},
        {"methods": [{"method": "at", "attack": "evilm:net"}]},
        {"methods": [{"method": "at", "settings": {"attack": "evilm:net"}}]},
        {"methods": [{"method": "at", "attack": {"name": "evilm:net"}}]},
        {"train": {"attack": "evilm:net"}, "methods": [{"method": "at"}]},
        {"train": {"model": ["evilm:net"]}},
        {"data": "evilm:net"},
        {"data": "./evilm.py"},
        {"evaluate": {"protocols": ["evilm:net"], "epsilons": [0.1], "samples": 10}},
        {"evaluate": {"protocols": ["pgd"], "attacks": ["evilm:net"], "epsilons": [0.1]}},
        {"evaluate": {"protocols": ["pgd"], "checks": ["evilm:net"], "epsilons": [0.1]}},
        {"explain": {"samples": 8, "attributions": ["gradient", "evilm:net"]}},
        {"executor": "evilm:net"},
        {"keep": "evilm:net"},
        {"slurm": {"slurm_setup": ["touch ran"]}},
        {"seeds": "evilm:net"},
    ],
)
@pytest.mark.parametrize("words", [["--dry-run"], ["--allow", "evil"]])
def test_no_value_of_a_grid_runs_code(
    cli: Callable, ran: Path, tmp_path: Path, values: dict[str, Any], words: list[str]
) -> None:
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(GRID | values))
    before = sorted(tmp_path.iterdir())

    refused(cli("reproduce", "its.yaml", *words), ran)

    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "values",
    [
        {"train": {"model": "evilm:net"}},
        {"methods": [{"method": "st"}, {"method": "evilm:net"}]},
        {"methods": [{"method": "at", "attack": "evilm:net"}]},
        {"explain": {"samples": 8, "attributions": ["gradient", "evilm:net"]}},
    ],
)
def test_the_same_grid_runs_what_is_allowed(cli: Callable, ran: Path, tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(GRID | values))

    assert_states(refused(cli("reproduce", "its.yaml", "--dry-run"), ran), "its.yaml", "--allow evilm")
    cli("reproduce", "its.yaml", "--dry-run", "--allow", "evilm")

    assert ran.exists()


# What the user names, used for something else -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "values"),
    [
        ("--method", {"model": "evilm:net"}),
        ("--method", {"model": "mine:net"}),
        ("--model", {"method": "evilm:net"}),
        ("--model", {"method": "at", "attack": "evilm:net"}),
    ],
)
def test_a_name_for_one_thing_allows_no_other_name(
    cli: Callable, ran: Path, tmp_path: Path, flag: str, values: dict[str, Any]
) -> None:
    mine(
        tmp_path, "import asgt\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Mine(asgt.ST): ...\n"
    )
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | values))
    named = "mine:Mine" if flag == "--method" else "mine:net"

    answer = cli("train", "--config", "its.yaml", flag, named, "--out", "run")

    assert_states(refused(answer, ran), next(name for name in values.values() if ":" in name), "--allow")


def test_what_a_module_imports_is_no_method_that_a_file_may_call(cli: Callable, ran: Path, tmp_path: Path) -> None:
    """A module of nets often imports this function; it unpickles what its argument names, here what a file names."""

    mine(tmp_path, "from torch.hub import load_state_dict_from_url\n")
    (tmp_path / "payload.pt").write_bytes(pickle.dumps(Payload(ran), protocol=2))
    arguments = {"url": (tmp_path / "payload.pt").as_uri(), "model_dir": str(tmp_path / "hub"), "weights_only": False}
    name = "mine:load_state_dict_from_url"
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | arguments | {"method": name}))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID | {"methods": [arguments | {"method": name}]}))
    attacked = {"method": "at", "attack": name, **arguments}
    (tmp_path / "attack.yaml").write_text(yaml.safe_dump(BASE | attacked))

    for words in (["train", "--config", "its.yaml"], ["reproduce", "grid.yaml"], ["train", "--config", "attack.yaml"]):
        line = refused(cli(*words, "--allow", "mine", "--out", "run"), ran)
        assert_states(line, name, "torch.hub:load_state_dict_from_url")


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("from pathlib import Path", "Path"),
        ("from os import system", "system"),
        ("import os", "os"),
        ("", "print"),
        ("from random import choice", "choice"),  # a method of an object
        ("from linecache import lazycache as lazy", "lazy"),
        ("from fnmatch import _compile_pattern as kept", "kept"),  # a function with a memory
        ("join = str.join", "join"),
    ],
)
def test_nor_is_anything_else_that_it_imports(cli: Callable, ran: Path, tmp_path: Path, line: str, name: str) -> None:
    mine(tmp_path, line + "\n")
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | {"method": f"mine:{name}"}))

    assert_states(refused(cli("train", "--config", "its.yaml", "--allow", "mine", "--out", "run"), ran), f"mine:{name}")


def test_a_method_that_a_package_hands_on_is_one(cli: Callable, ran: Path, tmp_path: Path) -> None:
    mine(tmp_path, "from beside import Beside\nfrom asgt import ST\n")
    lines = "import asgt\nfrom dataclasses import dataclass\n@dataclass(frozen=True)\nclass Beside(asgt.ST): ...\n"
    (tmp_path / "beside.py").write_text(lines)
    for name in ("Beside", "ST"):
        (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | {"method": f"mine:{name}"}))

        answer = cli("train", "--config", "its.yaml", "--allow", "mine", "--out", f"run-{name}")

        assert answer.status == 0, answer.err


# Modules and packages in the working directory ------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that looks for an optional one, as many do."""

    (tmp_path / "installed").mkdir()
    lines = "try:\n    import evilm\nexcept ImportError:\n    evilm = None\n\ndef net(): ...\n"
    (tmp_path / "installed" / "library.py").write_text(lines)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "installed")])


@pytest.mark.usefixtures("library")
def test_an_optional_package_of_a_library_is_not_looked_for_beside_the_users_module(ran: Path, tmp_path: Path) -> None:
    mine(tmp_path, "import library\nassert library.evilm is None\n")

    assert callable(plugins.imported("mine:net", "model"))
    assert callable(plugins.imported("library:net", "model"))

    assert not ran.exists()
    assert str(tmp_path) not in sys.path


def test_the_users_module_has_what_lies_beside_it_and_nothing_else_does(ran: Path, tmp_path: Path) -> None:
    mine(tmp_path, "import beside\n\ndef later():\n    import importlib\n    return importlib.import_module('evilm')\n")
    (tmp_path / "beside.py").write_text("import spaced.part\n")
    (tmp_path / "spaced").mkdir()
    (tmp_path / "spaced" / "part.py").write_text("number = 3\n")

    later = plugins.imported("mine:later", "model")
    assert plugins.imported("spaced.part:number", "model") == 3
    with pytest.raises(ImportError):
        __import__("evilm")
    assert not ran.exists()

    assert later().__name__ == "evilm"
    assert ran.exists()


def test_an_entry_point_that_lies_in_the_working_directory_is_none(ran: Path, tmp_path: Path) -> None:
    """PyTorch loads what stands under ``torch.backends`` when it is imported, other libraries have such groups too."""

    mine(tmp_path, "")
    about = tmp_path / "evil-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[torch.backends]\nevil = evilm:net\n")

    plugins.imported("mine:net", "model")

    assert not any(each.value == "evilm:net" for each in entry_points(group="torch.backends"))


LIBRARIES = ("yaml", "jsonargparse", "torch", "numpy", "rich", "torch_npu")


def start(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own that stands in the folder; it imports no PyTorch."""

    return subprocess.run(
        [sys.executable, *words],
        cwd=tmp_path,
        env=plain_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_file_stands_in_for_a_module_of_python_itself(tmp_path: Path) -> None:
    for name in (*sys.stdlib_module_names, "sitecustomize", "usercustomize", *LIBRARIES, "asgt"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (tmp_path / ".env").write_text("PYTHONSTARTUP=asgt.py\n")
    (tmp_path / "pyvenv.cfg").write_text("home = .\n")
    # What the console script does, and what a worker of a grid is started by.
    command = "import sys; from asgt.cli import main; sys.exit(main(['--version']))"

    for words in (["-P", "-c", command], ["-P", "-m", "asgt", "--version"]):
        ended = start(tmp_path, *words)
        assert (ended.returncode, ended.stdout[:5]) == (0, "asgt "), ended.stderr
        assert not (tmp_path / "ran").exists()

    # python -m asgt looks here for asgt itself, and for what Python imports in order to look for it.
    for name in ("asgt", *start(tmp_path, "-I", "-c", "import runpy, sys; print(*sys.modules)").stdout.split()):
        (tmp_path / f"{name}.py").unlink(missing_ok=True)
    for words in (["-m", "asgt", "--version"], ["-masgt", "train", "--methood", "st"]):
        ended = start(tmp_path, *words)
        assert ended.stdout.startswith("asgt ") or "--methood" in ended.stderr, ended.stderr
        assert not (tmp_path / "ran").exists()

    for name in ("difflib", "torch", "argparse"):
        start(tmp_path, "-c", f"import {name}")
        assert (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink()


def test_a_program_that_imports_the_package_keeps_its_path(tmp_path: Path) -> None:
    """Only ``python -m asgt`` is asgt's own process."""

    (tmp_path / "theirs").mkdir()
    for file in ("theirs/__init__.py", "theirs/__main__.py", "script.py"):
        (tmp_path / file).write_text("import asgt, sys; print(sys.path[0])\n")

    for words in (["-m", "theirs", "asgt"], ["-mtheirs", "-m", "asgt"], ["script.py", "-m", "asgt"]):
        assert {*start(tmp_path, *words).stdout.split()} == {str(tmp_path)}


RC = """
import sys
from asgt.plugins import ignore_matplotlibrc
ignore_matplotlibrc()
import matplotlib, os
assert os.getcwd() == sys.argv[1]
assert matplotlib.rcParams["figure.hooks"] == [], matplotlib.rcParams["figure.hooks"]
assert "evilm" not in str(matplotlib.rcParams._get("backend"))
assert matplotlib.rcParams["lines.linewidth"] != 7
"""


def test_a_matplotlibrc_of_the_working_directory_is_not_read(ran: Path, tmp_path: Path) -> None:
    lines = ["backend: module://evilm", "figure.hooks: evilm:net", "lines.linewidth: 7"]
    # Versions of matplotlib before 3.11 evaluate this value as Python.
    cycle = "cycler(color=[(a := [], a.append(b.gi_frame.f_back.f_back for b in a), *a[0])])"
    (tmp_path / "matplotlibrc").write_text("\n".join([*lines, f"axes.prop_cycle: {cycle}"]))

    ended = start(tmp_path, "-P", "-c", RC, str(tmp_path), MPLBACKEND="")

    assert (ended.returncode, ended.stderr) == (0, "")
    assert not ran.exists()
    without = RC.replace("\nignore_matplotlibrc()", "")
    assert "AssertionError: ['evilm:net']" in start(tmp_path, "-P", "-c", without, str(tmp_path), MPLBACKEND="").stderr


@pytest.mark.parametrize("place", ["asgt.cli.entry", "asgt.experiments.worker", "asgt.experiments.cluster"])
def test_every_process_ignores_the_matplotlibrc(place: str, ran: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line, a worker and a job of a cluster each do so before they import what may import matplotlib."""

    from importlib import import_module

    class StopHereError(Exception):
        pass

    def stop() -> None:
        raise StopHereError

    module = import_module(place)
    monkeypatch.setattr(module, "ignore_matplotlibrc", stop)
    calls: dict[str, Callable[[], object]] = {
        "asgt.cli.entry": lambda: module.main(["train"]),
        "asgt.experiments.worker": lambda: module.main(),
        "asgt.experiments.cluster": lambda: module._Call()({}),
    }

    with pytest.raises(StopHereError):
        calls[place]()


# Files of a run -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import asgt
    from asgt.attacks import PGD
    from asgt.runs.explain_run import explain_run
    from asgt.training.config import TrainConfig
    from asgt.training.run_folder import RunFolder

    run = tmp_path_factory.mktemp("shown") / "run"
    asgt.train(TrainConfig(method="st", epochs=1, limit=60, batch_size=30), run)
    model, data, config, _ = asgt.load_run(run)
    own = RunFolder(run).evaluation("own")
    asgt.evaluate(model, data.test[:4], [PGD(steps=2)], epsilons=[0.1], folder=own, selection="4 images")
    explain_run(RunFolder(run), model, data.test, config.data, samples=4, eps=0.1, norm="linf", attribution="gradient")
    return run


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every text, of the first one in a list, and of everything that a file holds at its top."""

    if isinstance(value, str) or len(path) == 1:
        yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list) and value:
        yield from leaves(value[0], (*path, 0))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value[path[0]] = put(value[path[0]], path[1:], new)
    return value


@pytest.mark.parametrize(
    "file",
    [
        "config.yaml",
        "training.json",
        "evaluation/own/result.json",
        "explanation/gradient/result.json",
    ],
)
def test_no_value_of_a_run_folder_runs_code(file: str, shown: Path, ran: Path, tmp_path: Path) -> None:
    """Every value in turn becomes the name of a module that lies here; the folder is then read, or refused."""

    import asgt
    from asgt.runs.run import read_run

    run = shutil.copytree(shown, tmp_path / "run")
    read_run(run)
    plain = yaml.safe_load((run / file).read_text())
    paths = list(leaves(plain))
    assert len(paths) > 10
    for path in paths:
        value = put(deepcopy(plain), path, "evilm:net")
        # A stranger's digests fit. JSON is YAML too.
        if file.endswith(".json"):
            rewritten(run / file, value)
        else:
            (run / file).write_text(json.dumps(value))
            resealed(run)
        with contextlib.suppress(AsgtError):
            read_run(run)
            if file == "config.yaml" and path[0] in ("model", "method", "attack", "data"):
                asgt.load_run(run)
        assert not ran.exists(), path


@pytest.mark.parametrize("folder", ["evilm-net", "evilm:net", "gradient", "evilm"])
def test_no_name_of_a_folder_in_a_run_runs_code(folder: str, shown: Path, ran: Path, tmp_path: Path) -> None:
    from asgt.comparison.comparing import read_methods
    from asgt.comparison.map_evidence import gather_maps

    run = shutil.copytree(shown, tmp_path / "run")
    attributed(run, folder)
    (run / "evaluation" / "own").rename(run / "evaluation" / "evilm:net")

    with contextlib.suppress(InputError):
        gather_maps(read_methods([str(run)]))

    assert not ran.exists()


def attributed(run: Path, folder: str = "evilm-net") -> None:
    """Makes a run's explanation one by ``evilm:net``, with evidence that fits it."""

    from dataclasses import replace

    from asgt.explanation.evidence import load_explanation, write_explanation

    gradient = run / "explanation" / "gradient"
    write_explanation(gradient, replace(load_explanation(gradient), attribution="evilm:net"))
    gradient.rename(run / "explanation" / folder)


def test_the_same_run_folder_runs_what_is_allowed(cli: Callable, shown: Path, ran: Path, tmp_path: Path) -> None:
    import asgt
    from asgt.comparison.comparing import read_methods
    from asgt.comparison.map_evidence import gather_maps

    run = shutil.copytree(shown, tmp_path / "run")
    attributed(run)

    maps = gather_maps(read_methods([str(run)]))
    assert not ran.exists()
    assert_states(" ".join(maps.pictures.missing), "evilm:net", "--allow evilm")
    gather_maps(read_methods([str(run)]), allow=["evilm"])
    assert ran.exists()

    ran.unlink()
    del sys.modules["evilm"]
    edited(run / "config.yaml", model="evilm:net")
    for verb in ("evaluate", "explain"):
        line = refused(cli(verb, "run", "--samples", 4), ran)
        assert_states(line, "run/config.yaml", "--allow evilm")
    with contextlib.suppress(InputError):  # the weights are those of another net
        asgt.load_run(run, allow=["evilm"])
    assert ran.exists()


def test_no_other_file_in_a_run_folder_runs(cli: Callable, stopped_run: Path, ran: Path, tmp_path: Path) -> None:
    code = NET.format(ran=str(ran))
    for name in ("__init__.py", "conftest.py", "sitecustomize.py", "asgt.py", "torch.py", "config.py", "hooks.py"):
        (stopped_run / name).write_text(code)
    payload = pickle.dumps(Payload(ran), protocol=2)
    for name in ("model.pt", "checkpoint.pt", "optimizer.bin", "random_states_0.pkl", "pytorch_model.bin", "x.pth"):
        (stopped_run / name).write_bytes(payload)

    answer = cli("train", "--resume", "--out", stopped_run)

    assert answer.status == 0, answer.err
    assert not ran.exists()


@pytest.mark.parametrize("file", ["config.yaml", "checkpoint.safetensors"])
def test_no_file_of_tensors_in_a_run_folder_is_unpickled(
    cli: Callable, file: str, stopped_run: Path, ran: Path
) -> None:
    (stopped_run / file).write_bytes(pickle.dumps(Payload(ran), protocol=2))

    refused(cli("train", "--resume", "--out", stopped_run), ran)


@pytest.mark.parametrize("file", ["checkpoint.safetensors", "model.safetensors"])
def test_no_metadata_and_no_name_of_a_tensor_runs_code(file: str, stopped_run: Path, ran: Path) -> None:
    import asgt
    from asgt.files import read_tensors, write_tensors
    from asgt.training.config import TrainConfig

    path = stopped_run / file
    tensors, metadata = read_tensors(path)
    standing = json.loads(metadata.get("standing", "{}"))
    texts = [json.dumps(put(deepcopy(standing), where, "evilm:net")) for where in leaves(standing)]
    # A file says what it is made of in many libraries.
    names = dict.fromkeys(("format", "class", "model", "allow", "__reduce__", "auto_map"), "evilm:net")
    changes = [metadata | {"standing": text} for text in texts]
    changes += [metadata | {name: "evilm:net"} for name in metadata] + [metadata | names]
    config, first = TrainConfig.load(stopped_run / "config.yaml"), next(iter(tensors))
    for changed, more in [(each, {}) for each in changes] + [(metadata, {"evilm:net": tensors[first]})]:
        write_tensors(path, tensors | more, changed)
        with contextlib.suppress(AsgtError):
            if file == "model.safetensors":
                asgt.load_weights(asgt.build_model("small_cnn", (1, 8, 8), 10), path)
            else:
                asgt.train(config, stopped_run, resume=True, should_stop=lambda: True)
        assert not ran.exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", "evilm:net"),
        ("step", 2.5),
        ("step", True),
        ("best_epoch", None),
        ("best_score", "0.5"),
        ("collapsed", "evilm:net"),
        ("collapsed", ["evilm:net"]),
        ("catastrophic", {}),
        ("config", "evilm:net"),
        ("data", ["evilm:net"]),
        ("threads", "1"),
        ("processes", [1]),
        ("other", 1),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_damaged(
    cli: Callable, stopped_run: Path, name: str, value: object
) -> None:
    from asgt.files import read_tensors, write_tensors

    path = stopped_run / "checkpoint.safetensors"
    tensors, metadata = read_tensors(path)
    standing = json.loads(metadata["standing"]) | {name: value}
    write_tensors(path, tensors, {"standing": json.dumps(standing)})

    assert_states(cli("train", "--resume", "--out", stopped_run).refusal(), path, "damaged")


@pytest.mark.parametrize("row", ["[]", '"evilm:net"', "{}", '{"step": "evilm:net"}', '{"step": null}'])
def test_a_line_of_metrics_that_holds_something_else_is_damaged(cli: Callable, stopped_run: Path, row: str) -> None:
    path = stopped_run / "metrics.jsonl"
    path.write_text(f"{row}\n{path.read_text()}")

    assert_states(cli("train", "--resume", "--out", stopped_run).failure(), path, "damaged", 1)


@pytest.mark.parametrize("flag", ["--allow evil", "--allow evilp", "--method st --allow evil", "--attack pgd"])
def test_a_file_that_names_a_method_is_not_imported_to_list_its_flags(
    cli: Callable, ran: Path, tmp_path: Path, flag: str, stopped_run: Path
) -> None:
    """The command line looks into the file for the settings of an allowed method, before anything is checked."""

    (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | {"method": "evilm:net", "attack": "evilm:net"}))
    (stopped_run / "config.yaml").write_text((tmp_path / "its.yaml").read_text())

    refused(cli("train", "--config", "its.yaml", *flag.split()), ran)
    refused(cli("train", "--resume", "--out", stopped_run, *flag.split()), ran)
    refused(cli("profile", "--config", "its.yaml", *flag.split()), ran)


def test_answers_of_a_cluster_are_not_taken_from_what_lay_there(
    ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are pickles, found by the number of the job, which can be guessed."""

    from asgt.experiments import cluster
    from asgt.progress import SILENT

    folder = tmp_path / "grid" / cluster.LOGS
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}_0_result.pkl").write_bytes(pickle.dumps(("success", Payload(ran))))
    asked = []

    def stop(logs: Path, *_: object) -> None:
        asked.append(logs)
        raise InputError("no scheduler")

    monkeypatch.setattr(cluster, "_executor", stop)
    for _ in range(2):
        with pytest.raises(InputError):
            cluster.run_on_cluster([], tmp_path / "grid", should_stop=lambda: False, progress=SILENT)

    assert len(set(asked)) == 2
    assert not any(logs.exists() for logs in asked)
    assert all(folder in logs.parents for logs in asked)


# Weights --------------------------------------------------------------------------------------------------------------


def _zipped(ran: Path, prefix: str = "archive", **more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{prefix}/data.pkl", pickle.dumps(Payload(ran), protocol=2))
        archive.writestr(f"{prefix}/version", "3\n")
        archive.writestr(f"{prefix}/byteorder", "little")
        for name, content in more.items():
            archive.writestr(name, content)
    return out.getvalue()


def _tarred(ran: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            content = pickle.dumps(Payload(ran), protocol=2)
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return out.getvalue()


def _scripted(ran: Path) -> bytes:
    import torch

    out = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(64, 10)), out)
    return out.getvalue()


def _numpy(ran: Path) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.save(out, np.array([Payload(ran)], dtype=object), allow_pickle=True)
    return out.getvalue()


def _numpies(ran: Path) -> bytes:
    import numpy as np

    out = io.BytesIO()
    np.savez(out, data=np.array([Payload(ran)], dtype=object))
    return out.getvalue()


def _saved(ran: Path) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save({"state_dict": {"0.weight": torch.zeros(2)}, "hook": Payload(ran)}, out)
    return out.getvalue()


def _legacy(ran: Path) -> bytes:
    import torch

    out = io.BytesIO()
    torch.save({"weight": Payload(ran)}, out, _use_new_zipfile_serialization=False)
    return out.getvalue()


def _packaged(ran: Path) -> bytes:
    """What ``torch.package`` writes: modules as source, and objects of their classes."""

    code = NET.format(ran=str(ran)).encode()
    more = {"archive/.data/extern_modules": b"", "archive/evilm.py": code, "archive/model/model.pkl": b"cevilm\nnet\n."}
    return _zipped(ran, **more)


def _exported(ran: Path) -> bytes:
    """What ``torch.export`` writes: a program, beside weights and constants in files of their own."""

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/models/model.json", json.dumps({"graph_module": "evilm:net"}))
        for name in ("weights/model.pt", "constants/model.pt", "sample_inputs/model.pt"):
            archive.writestr(f"model/data/{name}", pickle.dumps(Payload(ran), protocol=2))
    return out.getvalue()


def _getattr(ran: Path) -> bytes:
    """The classical way around a list of names: a method of an object that is on the list."""

    command = f"open({str(ran)!r}, 'w')"
    imported = b"c__builtin__\n__import__\n(X\x08\x00\x00\x00builtinstR"
    found = b"c__builtin__\ngetattr\n(" + imported + b"X\x04\x00\x00\x00evaltR"
    return b"\x80\x02" + found + b"(X" + len(command).to_bytes(4, "little") + command.encode() + b"tR."


WEIGHTS: dict[str, Callable[[Path], bytes]] = {
    "pickle.pt": lambda ran: pickle.dumps(Payload(ran), protocol=2),
    "protocol-0.pt": lambda ran: pickle.dumps(Payload(ran), protocol=0),
    "protocol-5.pkl": lambda ran: pickle.dumps(Payload(ran), protocol=5),
    "getattr.pt": _getattr,
    "zip.pt": _zipped,
    "slip.pt": lambda ran: _zipped(ran, "..", **{"../../evilm.py": b"", "/evilm.py": b""}),
    "code.pt": lambda ran: _zipped(ran, **{"archive/code/__torch__.py": b"", "archive/constants.pkl": b""}),
    "package.pt": _packaged,
    "exported.pt2": _exported,
    "tar.tar": _tarred,
    "scripted.pt": _scripted,
    "array.npy": _numpy,
    "arrays.npz": _numpies,
    "saved.pt": _saved,
    "legacy.pth": _legacy,
    "named.safetensors": lambda ran: pickle.dumps(Payload(ran), protocol=2),
}


@pytest.mark.parametrize("file", WEIGHTS)
def test_no_file_of_weights_runs(cli: Callable, ran: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_bytes(WEIGHTS[file](ran))
    words = ("--model", "small_cnn", "--weights", file, "--data", "digits", "--out", "out")

    assert_states(refused(cli("evaluate", *words), ran), file)
    assert (tmp_path / "evilm.py").read_text() == NET.format(ran=str(ran))


# These run in other readers: older ones of PyTorch, its just-in-time compiler, and whoever unpacks them.
ELSEWHERE = {"slip.pt", "code.pt", "scripted.pt", "package.pt", "exported.pt2", "tar.tar"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("file", sorted(WEIGHTS.keys() - ELSEWHERE))
def test_each_file_of_weights_runs_in_a_reader_that_trusts_it(ran: Path, tmp_path: Path, file: str) -> None:
    import numpy as np
    import torch

    (tmp_path / file).write_bytes(WEIGHTS[file](ran))
    with contextlib.suppress(Exception):
        if file.startswith("array"):
            held = np.load(tmp_path / file, allow_pickle=True)
            held["data"] if file.endswith("npz") else None
        else:
            with open(tmp_path / file, "rb") as opened:
                torch.load(opened, weights_only=False)

    assert ran.exists()


# Folders of other libraries' models -----------------------------------------------------------------------------------

TINY = {
    "architectures": ["ViTForImageClassification"],
    "model_type": "vit",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "image_size": 8,
    "patch_size": 4,
    "num_channels": 1,
}


def hub_folder(tmp_path: Path, ran: Path, values: dict[str, Any], weights: bytes | None = None) -> str:
    folder = tmp_path / "hub"
    folder.mkdir()
    code = NET.format(ran=str(ran))
    for name in ("evilm.py", "configuration_evil.py", "modeling_evil.py", "handler.py", "tokenization_evil.py"):
        (folder / name).write_text(code)
    (folder / "config.json").write_text(json.dumps(TINY | values))
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evilm.net"}})
    )
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(ran), protocol=2) if weights is None else weights)
    return "hub"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "fact"),
    [
        ({"attn_implementation": "evil/kernel"}, "evil/kernel"),
        ({"_attn_implementation": "evil/kernel:net"}, "evil/kernel:net"),
        ({"_attn_implementation_internal": "kernels-community/flash-attn2"}, "kernels-community/flash-attn2"),
        ({"attn_implementation": "flash_attention_2"}, "flash_attention_2"),
        ({"attn_implementation": {"": "evil/kernel"}}, "evil/kernel"),
        ({"backbone_config": {"attn_implementation": "evil/kernel"}}, "evil/kernel"),
        ({"auto_map": {"AutoModelForImageClassification": "evilm.net", "AutoConfig": "evilm.net"}}, "hf:hub"),
        ({"auto_map": {"AutoConfig": "evilm.net"}, "model_type": "evil"}, "hf:hub"),
        (
            {"auto_map": {"AutoModelForImageClassification": "evil/repo--evilm.net"}, "trust_remote_code": True},
            "hf:hub",
        ),
        ({}, "hf:hub"),
    ],
)
@pytest.mark.usefixtures("torchvision_operators")
def test_no_folder_of_transformers_runs(ran: Path, tmp_path: Path, values: dict[str, Any], fact: str) -> None:
    pytest.importorskip("transformers")
    from asgt.models import build_model, preprocessing

    name = f"hf:{hub_folder(tmp_path, ran, values)}"
    with pytest.raises(InputError) as caught:
        build_model(name, (1, 8, 8), None)
    assert_states(caught.value, fact)
    with contextlib.suppress(InputError):
        preprocessing(name)
    assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["local-dir", "hf-hub", "hf_hub", "file"])
@pytest.mark.usefixtures("torchvision_operators")
def test_no_folder_of_timm_runs(ran: Path, tmp_path: Path, scheme: str) -> None:
    pytest.importorskip("timm")
    from asgt.models import build_model

    folder = tmp_path / "hub"
    folder.mkdir()
    values = {"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {"custom_load": "evilm:net"}}
    (folder / "config.json").write_text(json.dumps(values))
    for file in ("pytorch_model.bin", "model.pth"):
        (folder / file).write_bytes(pickle.dumps(Payload(ran), protocol=2))

    for pretrained in (True, False):
        with contextlib.suppress(InputError):
            build_model(f"timm:{scheme}:{folder}", (1, 8, 8), None, pretrained=pretrained)
        assert not ran.exists()


# Data -----------------------------------------------------------------------------------------------------------------


def _pictures(folder: Path, content: bytes | None = None) -> Path:
    from PIL import Image

    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (folder / split / label).mkdir(parents=True)
            for number in range(2):
                if content is None:
                    Image.new("L", (8, 8), number * 40).save(folder / split / label / f"{number}.png")
                else:
                    (folder / split / label / f"{number}.png").write_bytes(content)
    return folder


def test_no_script_or_description_in_a_folder_of_images_runs(ran: Path, tmp_path: Path) -> None:
    import asgt

    folder = _pictures(tmp_path / "pets")
    code = NET.format(ran=str(ran))
    for name in ("pets.py", "__init__.py", "dataset.py", "train/__init__.py", "cat.py", "conftest.py"):
        (folder / name).write_text(code)
    (folder / "dataset_infos.json").write_text(json.dumps({"default": {"builder_name": "evilm", "features": {}}}))
    card = {"configs": [{"config_name": "default", "builder": "evilm", "data_files": "*.pkl"}], "auto_map": "evilm.net"}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}\nx: !!python/name:evilm.net\n---\n")
    for name in ("data.pkl", "labels.npy", "train.pt"):
        (folder / name).write_bytes(pickle.dumps(Payload(ran), protocol=2))

    data = asgt.load_data(str(folder))

    assert (len(data.train), len(data.test)) == (4, 4)
    assert not ran.exists()


def test_no_picture_starts_another_program(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand a picture in PostScript to Ghostscript, whatever its file is called."""

    import asgt

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: ran.touch())
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: ran.touch())
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(evil) run\nshowpage\n%%EOF\n"

    with pytest.raises(InputError) as caught:
        asgt.load_data(str(_pictures(tmp_path / "pets", script)))
    assert_states(caught.value, "0.png")
    assert not ran.exists()


def test_no_archive_of_images_writes_outside_or_follows_a_link(ran: Path, tmp_path: Path) -> None:
    import asgt

    folder = _pictures(tmp_path / "pets")
    code = NET.format(ran=str(ran)).encode()
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
        for name in ("../outside.py", "/tmp/asgt-outside.py", "train/../../outside.py", "train/cat/evil.py"):
            archive.writestr(name, code)
        link = zipfile.ZipInfo("train/cat/link.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(tmp_path / "evilm.py"))
    before = sorted(path for path in tmp_path.rglob("*"))

    with contextlib.suppress(InputError):
        asgt.load_data(str(tmp_path / "pets.zip"))

    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not Path("/tmp/asgt-outside.py").exists()
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_no_type_of_a_table_is_unpickled(ran: Path, tmp_path: Path, parquet: Callable, kind: str) -> None:
    """Early versions of pyarrow unpickled the description of a column whose type was written in Python."""

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    import asgt

    out = io.BytesIO()
    Image.new("L", (8, 8)).save(out, "png")
    about = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Payload(ran), protocol=2),
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [pa.field("image", image), pa.field("label", pa.int64()), pa.field("extra", pa.int64(), metadata=about)]
    )
    rows = {"image": [{"bytes": out.getvalue(), "path": None}] * 4, "label": [0, 1, 0, 1], "extra": [1, 2, 3, 4]}
    table = pa.table(rows, schema=schema)
    folder = tmp_path / "table"
    if kind == "parquet":
        folder.mkdir()
        for split in ("train", "test"):
            pq.write_table(table, folder / f"{split}.parquet")
    else:
        for split in ("train", "test"):
            (folder / split).mkdir(parents=True)
            file = str(folder / split / "data-00000-of-00001.arrow")
            with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
                writer.write_table(table)
            state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_format_type": "evilm"}
            state |= {"_fingerprint": "0", "_format_columns": None, "_format_kwargs": {}, "_split": split}
            state |= {"_output_all_columns": False, "_indices_data_files": None}
            (folder / split / "state.json").write_text(json.dumps(state))
            features = {"image": {"_type": "Image"}, "label": {"dtype": "int64", "_type": "Value"}}
            features |= {"extra": {"_type": "evilm.net", "dtype": "int64"}}
            infos = {"features": features, "builder_name": "evilm"}
            (folder / split / "dataset_info.json").write_text(json.dumps(infos))
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))

    with contextlib.suppress(InputError):
        asgt.load_data(str(folder))
    assert not ran.exists()


# Grids and other processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["note", "run", "both"])
def test_a_prepared_folder_of_a_grid_runs_nothing(cli: Callable, ran: Path, tmp_path: Path, of: str) -> None:
    """A stranger's folder may hold all that a grid begins with."""

    from asgt import load_preset
    from asgt.experiments.grid import NOTE, plan

    (tmp_path / "its.yaml").write_text(yaml.safe_dump(GRID))
    preset = load_preset("its.yaml")
    job = plan(preset, tmp_path / "grid")[0].job
    Path(job.folder).mkdir(parents=True)
    note, settings = json.loads(json.dumps(preset.to_dict())), job.config.to_dict()
    if of != "run":
        note |= {"allow": ["evilm"]}
        note["methods"][0] |= {"model": "evilm:net"}
    if of != "note":
        settings |= {"model": "evilm:net", "allow": ["evilm"]}
    (tmp_path / "grid" / NOTE).write_text(json.dumps(note))
    (Path(job.folder) / "config.yaml").write_text(json.dumps(settings))

    for words in ([], ["--dry-run"], ["--allow", "evil"]):
        refused(cli("reproduce", "its.yaml", "--out", "grid", "--workers", 1, *words), ran)


def foreign_job(tmp_path: Path) -> dict[str, Any]:
    """A job whose model is that of ``evilm``, as it is handed to another process, with what the user allowed."""

    from asgt import load_preset
    from asgt.experiments.grid import plan

    (tmp_path / "its.yaml").write_text(yaml.safe_dump(GRID | {"train": GRID["train"] | {"model": "evilm:net"}}))
    preset = load_preset("its.yaml", allow=["evilm"])
    values = plan(preset, tmp_path / "grid", allow=["evilm"])[0].job.to_dict()
    (tmp_path / "ran").unlink(missing_ok=True)
    sys.modules.pop("evilm", None)
    (tmp_path / "grid").mkdir()
    # The training alone is what there is to do.
    values |= {"protocols": [], "attributions": [], "passes": values["passes"][:1]}
    return json.loads(json.dumps(values))


@pytest.mark.slow
def test_a_worker_has_no_allowance_but_that_of_its_job(ran: Path, tmp_path: Path) -> None:
    """Nor does it have that of the job before, or any from the environment."""

    values = foreign_job(tmp_path)
    without = values | {"allow": [], "folder": str(tmp_path / "grid" / "other")}
    environment = dict.fromkeys(("ASGT_ALLOW", "ASGT_TRAIN__ALLOW", "ASGT_WORKER__ALLOW"), "evilm")
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "asgt.experiments.worker"],
        cwd=tmp_path,
        env=plain_environment() | environment | {"JSONARGPARSE_DEFAULT_ENV": "true"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None
    assert worker.stdout is not None

    def done(job: dict[str, Any]) -> dict[str, Any]:
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(json.dumps({"job": job}) + "\n")
        worker.stdin.flush()
        return next(each for each in map(json.loads, worker.stdout) if each["event"] not in ("passes", "warn"))

    try:
        ended = done(without)
        assert (ended["event"], ran.exists()) == ("refused", False)
        assert_states(ended["text"], "evilm:net", "--allow evilm")
        assert done(values)["event"] == "done"
        assert ran.exists()
        ran.unlink()
        assert done(without)["event"] == "refused"
        assert not ran.exists()
    finally:
        worker.kill()
        worker.communicate()


# The environment ------------------------------------------------------------------------------------------------------


def test_no_variable_of_the_environment_allows_or_names_code(
    cli: Callable, ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library that parses the flags reads them from the environment where its own variable asks for it."""

    monkeypatch.setenv("JSONARGPARSE_DEFAULT_ENV", "true")
    for flag, value in {"ALLOW": "[evilm]", "MODEL": "evilm:net", "METHOD": "evilm:net", "CONFIG": "its.yaml"}.items():
        for gap in ("_", "__", " ", "_TRAIN_", "_TRAIN__", " TRAIN_", " TRAIN__", "_REPRODUCE_", " REPRODUCE__"):
            monkeypatch.setenv(f"ASGT{gap}{flag}", value)
    (tmp_path / "its.yaml").write_text(yaml.safe_dump(BASE | {"model": "evilm:net"}))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID | {"train": {"model": "evilm:net"}}))

    for words in (["train", "--config", "its.yaml"], ["reproduce", "grid.yaml", "--dry-run"]):
        assert_states(refused(cli(*words), ran), "evilm:net", "--allow evilm")
    answer = cli("train", "--method", "st", "--epochs", 1, "--limit", 60, "--batch-size", 30, "--out", "run")
    assert (answer.status, ran.exists()) == (0, False), answer.err
    assert "evilm" not in (tmp_path / "run" / "config.yaml").read_text()
