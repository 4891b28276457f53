"""Every command of the pages, without running it: the parser of its verb, the files and targets that it names."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from asgt.cli.assembly import listed_numbers
from asgt.cli.entry import VERBS
from asgt.cli.parsing import allowed, given, listed
from asgt.errors import InputError
from asgt.evaluation.outcomes import checked_grid
from asgt.evaluation.protocols import protocol_named
from asgt.experiments.preset import load_preset
from asgt.files import plain_value
from asgt.saliency import attribution_class
from asgt.shortcuts import VIEWS
from asgt.training.config import TrainConfig, flag_of
from support.page_commands import PAGES, commands, fenced
from support.paths import ROOT

ASGT = re.compile(rf"(?:^|\s)asgt ((?:{'|'.join(VERBS)})\b.*)")
LINES = [
    pytest.param(match.group(1), id=f"{page.relative_to(ROOT)}: {match.group(1)[:60]}")
    for page in PAGES
    for line in commands(page)
    if (match := ASGT.search(line))
]
OUTSIDE = ("out", "resume", "config", "allow", "no_cache")
"""Flags of ``asgt train`` that are no setting of the training."""


@pytest.fixture(autouse=True)
def _files_of_the_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The Python files that pages show, as the reader has them: a method of one's own brings flags of its own."""

    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    for page in PAGES:
        for code in fenced(page, "python"):
            if match := re.match(r"# ([\w/]+\.py)\n", code):
                (tmp_path / match.group(1)).parent.mkdir(exist_ok=True)
                (tmp_path / match.group(1)).write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {path.stem for path in tmp_path.iterdir()}:
            del sys.modules[name]


def parsed(line: str) -> dict[str, Any]:
    """What the verb's own parser reads off a line, with the values that it takes as they are read further."""

    # The last line of a script for another shell ends in that shell's quote.
    verb, *words = shlex.split(line if line.count("'") % 2 == 0 else line.removesuffix("'"), comments=True)
    make = import_module(f"asgt.cli.{verb}").make_parser
    asked = given(make(words) if verb in ("train", "profile") else make(), words)
    if verb == "train":
        settings = {name: value for name, value in asked.items() if name not in OUTSIDE}
        TrainConfig.of(settings).resolved(allow=allowed(asked))
    if verb == "evaluate" and asked.get("protocol"):
        protocol_named(asked["protocol"], "linf")
    if verb == "evaluate" and asked.get("epsilons"):
        checked_grid(listed_numbers(asked["epsilons"], "epsilons"), "linf")
    assert asked.get("shortcut_view") in (None, *VIEWS, *(("all",) if verb == "evaluate" else ()))
    for name in listed(asked.get("attribution") or ""):
        attribution_class(name)
    if verb == "reproduce":
        pairs = (pair.split("=") for pair in listed(asked.get("set") or ""))
        load_preset(asked["grid"], asked.get("scale"), {name: plain_value(value) for name, value in pairs})
        for name in listed(asked.get("protocols") or ""):
            protocol_named(name, "linf")
    return asked


@pytest.mark.parametrize("line", LINES)
def test_the_parser_takes_a_command_of_a_page(line: str) -> None:
    assert parsed(line)


def test_no_command_is_overlooked() -> None:
    assert len(LINES) > 70
    assert {line.values[0].split()[0] for line in LINES} == set(VERBS)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        "train --methodd asgt",
        "train --epochs many",
        "train --method agst",
        "evaluate runs/a --protocol standart",
        "evaluate runs/a --epsilons 0.1,x",
        "explain runs/a --attribution gradeint",
        "reproduce mnist --scale lapttop",
        "train --method mine.method:Half --shares 0.7",
    ],
)
def test_a_command_with_a_mistake_is_told(line: str) -> None:
    with pytest.raises(InputError):
        parsed(line)


# Commands in a sentence or a table, and flags by themselves --------------------------------------------------------


@cache
def known_flags(verb: str) -> set[str]:
    """The flags of a verb, as they are written."""

    actions = import_module(f"asgt.cli.{verb}").make_parser()._actions
    flags = {flag_of(option[2:]) for action in actions for option in action.option_strings if option.startswith("--")}
    return flags | {"--help"}


OTHERS = {
    "README.md": {"--index-url"},
    "docs/many-machines.md": {
        *("--multi_gpu", "--num_processes", "--num_machines", "--machine_rank", "--standalone", "--nproc-per-node"),
        *("--mixed_precision", "--signal", "--cpu"),
    },
    "docs/extending.md": {"--share"},
    "docs/performance.md": {"--threads", "--write", "--net", "--only", "--repetitions"},
    "docs/repeat-the-paper.md": {"--minutes"},
}
"""Flags of pip, launchers, scripts and own methods that pages name, which are none of ``asgt``."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_flags_in_the_text_of_a_page_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    every = set.union(*map(known_flags, VERBS)) | {"--version"} | OTHERS.get(page.relative_to(ROOT).as_posix(), set())
    for code in re.findall(r"`([^`\n]+)`", text):
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", code))
        verb = re.match(rf"asgt ({'|'.join(VERBS)})\b", code)
        assert flags <= (known_flags(verb.group(1)) if verb else every), code


# What is no command of asgt -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_scripts_targets_and_extras_of_a_page_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for line in commands(page):
        words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 else line.split()
        if words[:1] == ["make"]:
            assert {word for word in words[1:] if re.fullmatch(r"[\w-]+", word)} <= targets, line
        if words[:1] == ["python"] and "/" in words[1]:
            script = (ROOT / words[1]).read_text()
            assert all(f'"{word}"' in script for word in words[2:] if word.startswith("--")), line
    for several in re.findall(r"asgt\[([\w,]+)\]", page.read_text("utf-8")):
        assert set(several.split(",")) <= extras.keys(), several
