"""The JSON schemas of ``docs/schemas`` against the files that asgt writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from support.paths import ROOT, RUNS
from support.warm import Warm

SCHEMAS = ROOT / "docs" / "schemas"
SLOW_FIXTURES = ("tiny",)


def schema(name: str) -> Draft202012Validator:
    told = json.loads((SCHEMAS / f"{name}.schema.json").read_text())
    Draft202012Validator.check_schema(told)
    return Draft202012Validator(told)


def values(file: Path) -> list[Any]:
    """What a file holds: a value, or one a line."""

    text = file.read_text()
    return [json.loads(line) for line in text.splitlines()] if file.suffix == ".jsonl" else [json.loads(text)]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, forks: Warm) -> Path:
    """A folder with a run on images with a shortcut, evaluated by two protocols and explained, and its saved result."""

    place = tmp_path_factory.mktemp("tiny")
    grid = place / "grid.yaml"
    grid.write_text(
        "data: digits\nseeds: 1\n"
        "train: {epochs: 2, limit: 120, width: 0.25, device: cpu, shortcut: 'patch:0.9,size=2'}\n"
        "methods: [{method: asgt, steps: 1}]\n"
        "evaluate: {protocols: [paper, standard-quick], epsilons: [0.02, 0.1], samples: 4}\n"
        "explain: {samples: 8, attributions: [gradient]}\n"
    )
    words = ("reproduce", grid, "--out", "out", "--keep", "saved", "--workers", 1)
    answer = forks.answer(*words, cwd=place)
    assert answer.status == 0, answer.err
    return place


FILES = {
    "training": "out/*/training.json",
    "metrics": "out/*/metrics.jsonl",
    "evaluation-result": "out/*/evaluation/*/result.json",
    "explanation-result": "out/*/explanation/*/result.json",
    "manifest": "out/*/manifest.json",
    "saved-result": "saved/*/*.json",
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_run_writes_fits_its_schema(name: str, tiny: Path) -> None:
    files = sorted(tiny.glob(FILES[name]))
    assert files
    for file in files:
        for value in values(file):
            schema(name).validate(value)
            assert "sha256" in value or name == "metrics"


@pytest.mark.parametrize("name", FILES)
def test_a_schema_describes_every_field_that_a_run_writes(name: str, tiny: Path) -> None:
    """Without a field, or with another beside it, a file does not fit."""

    validator = schema(name)
    value = values(sorted(tiny.glob(FILES[name]))[0])[0]
    for required in validator.schema["required"]:
        with pytest.raises(ValidationError):
            validator.validate({key: each for key, each in value.items() if key != required})
    with pytest.raises(ValidationError):
        validator.validate(value | {"another": "text"})


def test_files_of_earlier_versions_fit_too() -> None:
    for pattern, name in {
        "*/training.json": "training",
        "*/metrics.jsonl": "metrics",
        "*/evaluation/*/result.json": "evaluation-result",
    }.items():
        files = sorted(RUNS.glob(pattern))
        assert files
        for file in files:
            for value in values(file):
                schema(name).validate(value)


@pytest.mark.slow
def test_every_saved_result_fits() -> None:
    files = sorted((ROOT / "results").glob("*/*.json"))
    assert files
    validator = schema("saved-result")
    for file in files:
        validator.validate(values(file)[0])


def test_a_wrong_accuracy_does_not_fit() -> None:
    value = values(sorted(RUNS.glob("*/evaluation/pgd/result.json"))[0])[0]
    wrong = deepcopy(value)
    wrong["clean"]["accuracy"] = 90
    with pytest.raises(ValidationError, match="90 is greater than the maximum of 1"):
        schema("evaluation-result").validate(wrong)


def test_every_field_has_a_description() -> None:
    for file in sorted(SCHEMAS.glob("*.json")):
        told = json.loads(file.read_text())
        assert told["description"], file
        for path, field in _fields(told):
            assert field.get("description"), f"{file.name}: {path}"


def _fields(told: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(told, dict):
        for name, field in {**told.get("properties", {}), **told.get("patternProperties", {})}.items():
            yield f"{path}.{name}", field
            yield from _fields(field, f"{path}.{name}")
        for inner in ("items", "additionalProperties"):
            yield from _fields(told.get(inner), path)
