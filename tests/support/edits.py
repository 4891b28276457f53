"""Files of a run changed as if asgt had written them so: for what lies behind the digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from asgt.errors import InputError
from asgt.files import digest_file, digest_stored, read_sealed, write_bytes, write_sealed
from asgt.manifest import MANIFEST, Manifest, home_of


def resealed(folder: Path) -> None:
    """Makes the manifest of a run, or of evidence, list its files as they are; one that has none stays without."""

    home = home_of(folder)
    if (manifest := Manifest.of(home)) is None:
        return
    files = {name: digest_file(home / name) for name in manifest.files if (home / name).exists()}
    made_from = dict(manifest.made_from)
    if "train" in made_from:
        with suppress(InputError):  # it was damaged on purpose
            made_from["train"] |= {"weights": digest_stored(home / "model.safetensors")}
    replace(manifest, files=files, made_from=made_from).write()


def listed(run: Path) -> None:
    """Gives a run from before there were digests a manifest that lists its files, as if it had been written so."""

    files = {file.relative_to(run).as_posix(): digest_file(file) for file in run.rglob("*") if file.is_file()}
    files.pop(MANIFEST, None)
    Manifest(run, files, {"train": {"weights": digest_stored(run / "model.safetensors")}}).write()


def write_plain(path: Path, value: Any) -> None:
    """Writes JSON without a digest, as versions did that had none."""

    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def rewritten(path: Path, value: Mapping[str, Any]) -> None:
    """Writes JSON in the place of a file of a run or of evidence, with a digest where that had one."""

    write = write_sealed if b'"sha256"' in path.read_bytes()[-90:] else write_plain
    write(path, {name: each for name, each in value.items() if name != "sha256"})
    resealed(path.parent)


def edited(path: Path, **values: object) -> None:
    """Changes values of a JSON or YAML file of a run or of evidence."""

    if path.suffix == ".json":
        rewritten(path, read_sealed(path)[0] | values)
    else:
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))
        resealed(path.parent)
