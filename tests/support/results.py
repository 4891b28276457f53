"""The results that files hold, without what differs from call to call: times, versions, places, digests of files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["differences", "results_in"]

_OF_A_CALL = {"seconds", "speed", "versions", "folder", "place", "samples_per_second", "outside_passes", "threads"}
_OF_FILES = {"digest", "digests", "sha256"}
_LEFT_OUT = {"manifest.json", "report.html"}


def results_in(place: Path) -> dict[str, str]:
    """What each file of a folder (or the file) holds, by its relative path: the same results give the same texts.

    Tensors count with their names, types, shapes and bytes; their metadata does not. Hidden files, locks, what is left
    of a write and the page are left out. A file that cannot be read counts as its bytes.
    """

    if place.is_file():
        return {place.name: _held(place)}
    return {
        str(file.relative_to(place)): _held(file)
        for file in sorted(place.rglob("*"))
        if file.is_file() and not file.name.startswith(".") and file.name not in _LEFT_OUT and file.suffix != ".pdf"
    }


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The files that one lacks, or in which the two differ."""

    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _held(file: Path) -> str:
    content = file.read_bytes()
    try:
        match file.suffix:
            case ".safetensors":
                return _tensors(file)
            case ".json":
                return _text(json.loads(content))
            case ".jsonl":
                return "\n".join(_text(json.loads(line)) for line in content.splitlines())
    except Exception:  # whatever a damaged file makes a reader raise
        return f"damaged: {hashlib.sha256(content).hexdigest()}"
    return hashlib.sha256(content).hexdigest()


def _tensors(file: Path) -> str:
    import safetensors

    sha = hashlib.sha256()
    with safetensors.safe_open(file, framework="np") as held:
        for name in sorted(held.keys()):
            tensor = held.get_tensor(name)
            sha.update(f"{name} {tensor.dtype} {tensor.shape} ".encode() + tensor.tobytes())
    return sha.hexdigest()


def _text(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items() if name not in _OF_A_CALL | _OF_FILES}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value
