"""A case: what is put into an empty folder, step by step, and the command line that is then run in it."""

from __future__ import annotations

import base64
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis.strategies import SearchStrategy

__all__ = ["Case", "Step", "build", "draw", "edit_value", "editable"]


@dataclass(frozen=True)
class Step:
    """A change to a folder.

    Attributes:
        kind: ``write``, ``link``, ``folder``, ``delete``, ``flip`` (a bit), ``cut`` (the end), ``insert`` (bytes),
            ``zero`` (bytes), ``swap`` (for the file ``text``, which lies beside the folder), ``edit`` (a value of JSON
            or YAML).
        path: of the file, relative to the folder.
        content: what is written or inserted.
        place: where in the file, or which value of it, as a share in [0, 1).
        text: the target of a link, the other file of a swap, or the kind of an edit.
    """

    kind: str
    path: str
    content: bytes = b""
    place: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class Case:
    """A folder and a command line.

    Attributes:
        family: its kind.
        base: the folder of the material that it begins with; ``""`` for an empty one.
        steps: what is then changed in it.
        words: the command line after ``asgt``.
        baseline: the words of the command line whose results on the unchanged base are the right ones; ``()`` where
            nobody knows them.
        results: the files and folders in which the results of the command lie.
    """

    family: str
    base: str
    steps: tuple[Step, ...]
    words: tuple[str, ...]
    baseline: tuple[str, ...] = ()
    results: tuple[str, ...] = ()


def draw(strategies: dict[str, SearchStrategy[Case]], seed: int, number: int, order: Sequence[str]) -> Case:
    """The case of a seed and a number: the same ones give the same case.

    Args:
        strategies: of the families.
        seed: of all cases.
        number: of the case.
        order: the families in turn.
    """

    strategy = strategies[order[number % len(order)]]
    drawn: list[Case] = []

    @given(strategy)
    def take(case: Case) -> None:
        drawn.append(case)

    source = random.Random(f"{seed}/{number}")
    for _ in range(100):
        # Bytes that end too soon, or of a case that a filter refuses, give none.
        take.hypothesis.fuzz_one_input(source.randbytes(8192))  # type: ignore[attr-defined]
        if drawn:
            return drawn[0]
    raise RuntimeError(f"no case for {seed}/{number}")


def build(case: Case, material: Path, folder: Path) -> None:
    """Makes the folder of a case, which must not exist."""

    if case.base:
        shutil.copytree(material / case.base, folder, symlinks=True)
    else:
        folder.mkdir(parents=True)
    for step in case.steps:
        _apply(step, folder, material)


def _apply(step: Step, folder: Path, material: Path) -> None:
    path = os.path.join(folder, step.path)
    if step.kind in ("write", "link", "folder"):
        try:
            os.makedirs(path if step.kind == "folder" else os.path.dirname(path), exist_ok=True)
            if step.kind == "write":
                Path(path).write_bytes(step.content)
            elif step.kind == "link":
                os.symlink(step.text, path)
        except OSError:
            return  # two steps want the same name
    elif os.path.isfile(path):
        _damage(step, Path(path), material)


def _damage(step: Step, path: Path, material: Path) -> None:
    content = bytearray(path.read_bytes())
    place = int(step.place * len(content))
    match step.kind:
        case "delete":
            path.unlink()
            return
        case "flip" if content:
            content[place] ^= 1 << (step.content[0] % 8 if step.content else 0)
        case "cut":
            del content[place:]
        case "insert":
            content[place:place] = step.content
        case "zero":
            count = min(len(step.content), len(content) - place)
            content[place : place + count] = bytes(count)
        case "swap" if (material / step.text).is_file():
            content = bytearray((material / step.text).read_bytes())
        case "edit":
            content = bytearray(_edited(path, bytes(content), step))
    path.write_bytes(content)


# Values of JSON and YAML ---------------------------------------------------------------------------------------------


_EDITS: dict[str, Callable[[Any], Any]] = {
    "nudge": lambda value: value + 1 if isinstance(value, int) else value * 1.01 + 0.001,
    "double": lambda value: value * 2,
    "negative": lambda value: -value if value else -1,
    "huge": lambda value: 10**30,
    "infinite": lambda value: math.inf,
    "nan": lambda value: math.nan,
    "null": lambda value: None,
    "text": lambda value: "odd",
    "empty text": lambda value: "",
    "list": lambda value: [value],
    "empty list": lambda value: [],
    "empty mapping": lambda value: {},
    "bool": lambda value: not value,
    "nested": lambda value: {"odd": [value]},
    "shorter": lambda value: value[:-1],
    "longer": lambda value: value + value[:1],
    "reversed": lambda value: value[::-1],
}

editable = (*_EDITS, "remove", "rename", "repeat")
"""The names of edits."""


def edit_value(document: Any, place: float, how: str) -> Any:
    """A document of JSON with one value changed.

    Args:
        document: it; it is changed in place.
        place: which of its values, mappings and lists among them, as a share in [0, 1).
        how: a name of :data:`editable`. An edit that the value does not allow makes it a text.
    """

    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            places.append((value, key))
            walk(value[key])

    walk(document)
    if not places:
        return "odd"
    parent, key = places[int(place * len(places))]
    if how == "remove":
        del parent[key]
    elif how in ("rename", "repeat"):
        other = f"{key}_odd" if how == "rename" else f"{key}"
        if isinstance(parent, list):
            parent.insert(key, parent[key])
        else:
            parent[other] = parent.pop(key)
    else:
        try:
            parent[key] = _EDITS[how](parent[key])
        except (TypeError, OverflowError):
            parent[key] = "odd"
    return document


def _edited(path: Path, content: bytes, step: Step) -> bytes:
    """The file with one value changed; as it is where it holds no document."""

    try:
        if path.suffix == ".jsonl":
            lines = content.decode().splitlines()
            number = int(step.place * len(lines))
            share = step.place * len(lines) - number
            lines[number] = json.dumps(edit_value(json.loads(lines[number]), share, step.text))
            return ("\n".join(lines) + "\n").encode()
        if path.suffix == ".yaml":
            return yaml.safe_dump(edit_value(yaml.safe_load(content), step.place, step.text), sort_keys=False).encode()
        if path.suffix == ".safetensors":
            return _edited_metadata(content, step)
        return (json.dumps(edit_value(json.loads(content), step.place, step.text), indent=2) + "\n").encode()
    except (ValueError, IndexError, AttributeError, yaml.YAMLError):
        return content


def _edited_metadata(content: bytes, step: Step) -> bytes:
    """A safetensors file with a value of its header changed, tensors as they are."""

    length = int.from_bytes(content[:8], "little")
    header = json.dumps(edit_value(json.loads(content[8 : 8 + length]), step.place, step.text)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def plain(case: Case) -> dict[str, Any]:
    """A case as plain values, for a reproduction."""

    steps = [vars(step) | {"content": base64.b64encode(step.content[:2000]).decode()} for step in case.steps]
    return vars(case) | {"steps": steps}
