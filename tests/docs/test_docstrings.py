"""Every public name has a docstring that says what a user needs, and whose example runs."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from docstring_parser import parse

import asgt
from support.documented import docstring, public

# What asgt makes and hands out: nobody calls these with input of their own.
RESULTS = {
    *(
        "Check",
        "Comparison",
        "DifferenceTable",
        "Estimate",
        "Evaluation",
        "Explanation",
        "Generators",
        "Measure",
        "Output",
    ),
    *("PairedDifference", "Panel", "Preset", "Protocol", "SaliencyMaps", "SampleKeyed", "Splits", "TrainResult"),
    *("ShortcutComparison", "ShortcutUse", "Trace", "Verified", "PROTOCOLS", "Attribution", "Objective", "strokes"),
    *("AsgtError", "DamagedFileError", "InputError", "InterruptedRunError"),
}

FAMILIES = ("Attack", "Attribution", "Objective")


def parameters(name: str) -> set[str]:
    """What a caller may give: the parameters of a function, or of a class its own and those of its base."""

    value: Any = getattr(asgt, name)
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return set()
    told = inspect.signature(value).parameters
    # Settings that a function only hands on are documented where they are read.
    return {each for each, parameter in told.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD}


@pytest.mark.parametrize("name", public())
def test_a_docstring_names_every_parameter(name: str) -> None:
    told = {each.arg_name for each in parse(docstring(name)).params}
    assert parameters(name) <= told, f"asgt.{name} does not document {sorted(parameters(name) - told)}"


@pytest.mark.parametrize("name", public())
def test_a_docstring_names_no_parameter_that_is_not_there(name: str) -> None:
    value: Any = getattr(asgt, name)
    text = docstring(name)
    if "Args:" not in text or "**" in str(inspect.signature(value)):
        return
    told = {each.arg_name for each in parse(text).params}
    assert told <= parameters(name)


@pytest.mark.parametrize("name", sorted({*public()} - RESULTS))
def test_a_docstring_says_what_is_raised(name: str) -> None:
    assert re.search(r"^Raises:\n    (?:Input|DamagedFile|Asgt|InterruptedRun)Error", docstring(name), re.MULTILINE)


@pytest.mark.parametrize(
    "name",
    [name for name in public() if inspect.isclass(value := getattr(asgt, name)) and value.__name__ not in FAMILIES],
)
def test_a_published_method_names_its_source(name: str) -> None:
    value: type = getattr(asgt, name)
    published = issubclass(value, (asgt.Attack, asgt.Objective)) and name not in ("Foreign", "Repeated", "ST")
    assert not published or "https://" in docstring(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", public())
def test_the_example_of_a_docstring_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ASGT_DATA", raising=False)
    section = re.search(r"^Example:\n((?: {4}.*\n?|\n)+)", docstring(name) + "\n", re.MULTILINE)
    assert section, f"asgt.{name} has no example"
    example = doctest.DocTestParser().get_doctest(inspect.cleandoc(section.group(1)) + "\n", {}, name, None, 0)
    assert f"asgt.{name}" in example.docstring or f"import {name}" in example.docstring or name in INSIDE, name
    told: list[str] = []
    ended = doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert ended.attempted > 0
    assert not ended.failed, "".join(told)


INSIDE = {
    *("Comparison", "Estimate", "Evaluation", "Explanation", "Output", "Panel", "Preset", "SaliencyMaps", "Splits"),
    *("ShortcutComparison", "ShortcutUse", "Trace", "TrainResult", "Verified"),
}
"""Types whose examples show where one comes from: they are not named there."""
