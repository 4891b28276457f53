"""The tutorials, as a reader follows them: files written, commands run in their order, outputs of the shape shown."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asgt.cli.console import Console
from asgt.comparison.comparing import read_methods
from asgt.comparison.explained import explanations_of
from support.explanations import explain_by_hand
from support.page_commands import console, fenced, shape
from support.paths import ROOT, RUNS

TUTORIALS = ROOT / "docs" / "tutorials"
COMPARED = TUTORIALS / "compare-explanations.md"
PAGES = (TUTORIALS / "evaluate-a-model.md", COMPARED, TUTORIALS / "add-your-own.md")

SMALLER = {"train": "--epochs 3", "evaluate": "--samples 40"}
"""Less work gives the same lines, but for what the checks find."""

FOUND = ("WARN ", "FAIL ", "checks: ", "remedies: ", "    ROAD: ")
LONG = ("--protocol standard", "--method asgt", "asgt explain")
"""Commands that take longer than their test may. Their flags are read, and other pages run their like."""


def in_order(shown: list[str], output: str) -> None:
    """Asserts that an output has the lines that are shown, whatever their numbers; ``…`` stands for others."""

    place, text = 0, shape(output)
    for line in map(shape, (line for line in shown if not line.startswith(FOUND))):
        if line != "…":
            assert line in text[place:], f"{line!r} is not in what follows {text[:place][-200:]!r}"
            place = text.index(line, place) + len(line)


@pytest.fixture
def reader(cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable]:
    """``asgt`` in a reader's folder, with a package ``mine``."""

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    yield cli
    for module in [module for module in sys.modules if module.partition(".")[0] in ("mine", "net")]:
        del sys.modules[module]


@pytest.mark.slow
def test_the_tutorials_do_what_they_show(reader: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []
    for page in PAGES:
        for code in fenced(page, "python"):
            name = re.match(r"# ([\w/]+\.py)\n", code)
            assert name, "each file of a tutorial says its name"
            (tmp_path / name.group(1)).write_text(code)
        for line, shown in console(page):
            if line in done or any(each in line for each in LONG):
                continue
            done.append(line)
            verb, *words = shlex.split(line.removeprefix("asgt "))
            if verb == "python":
                capsys.readouterr()
                exec(compile((tmp_path / words[0]).read_text(), words[0], "exec"), {})
                in_order(shown, capsys.readouterr().out)
            else:
                answer = reader(verb, *words, *SMALLER[verb].split())
                assert answer.status == 0, (line, answer.err)
                in_order(shown, answer.out)
    assert len(done) == 7


@pytest.mark.slow
def test_the_panel_of_a_tutorial_is_one_that_the_terminal_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of explanations that nothing was measured for: to measure them takes long."""

    runs = [tmp_path / name for name in ("st-0", "asgt-pgd-0")]
    for number, run in enumerate(runs):
        shutil.copytree(RUNS / run.name, run)
        explain_by_hand(run, draw=number)
    capsys.readouterr()
    Console().explained(explanations_of(read_methods(runs)))
    ((_, shown),) = [each for each in console(COMPARED) if each[0].startswith("asgt explain")]
    panel, last = shown[shown.index("saliency measures by gradient") : -1], shown[-1]
    assert len([line for line in panel if line != "…"]) >= 10
    noted = "  mass on the object: NOT RUN: the mask of the object was not given"  # by the measuring itself
    in_order([line for line in panel if line != noted], capsys.readouterr().out)
    assert last == "tables and figures: maps"


def test_a_shape_is_that_of_an_output_with_other_numbers_and_of_no_other() -> None:
    shown = ["│ 0.1  │ 42.0 [32.8, 51.8] │", "…", "n = 98: +0.024 [−0.001, +0.047], p = 1e-3"]
    in_order(shown, "┃ 0.25 ┃ 9.0 [1.0, 100.0] ┃\nanything\nn = 1,000: +3 [-12, +1e-4], p = 0.5")
    with pytest.raises(AssertionError, match="is not in"):
        in_order(shown, "n = 98: +0.024 [−0.001, +0.047], p = 1e-3\n0.1 42.0 [32.8, 51.8]")
    with pytest.raises(AssertionError, match="is not in"):
        in_order(["clean accuracy 1.0"], "accuracy 1.0")
