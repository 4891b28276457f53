"""Checks the files of a run against their digests, and the figures against their evidence.

An edit that the user accepts is recorded in the manifest, and every report mentions it from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import DamagedFileError, InputError
from ..evaluation.shards import load_evaluation
from ..explanation import load_explanation
from ..files import (
    digest_file,
    digest_stored,
    is_sealed,
    read_json,
    read_sealed,
    read_tensors,
    write_bytes,
    write_sealed,
)
from ..locks import locked
from ..manifest import MANIFEST, Manifest, home_of
from ..training.run_folder import RunFolder
from .kept import SCHEMA, load_kept
from .run import UNVERIFIED, read_run

__all__ = ["Finding", "State", "Verified", "verify"]

State: TypeAlias = Literal["changed", "damaged", "missing", "unverified", "accepted"]
"""``changed``: the file is whole, but its SHA-256 is not the one in the manifest. ``damaged``: the file cannot be read,
or contradicts its own digest or the evidence. ``missing``: the manifest lists it. ``unverified``: no digest is stored
for it. ``accepted``: the user accepted an edit."""


@dataclass(frozen=True)
class Finding:
    """A file that is not the one that asgt wrote, or may not be.

    Attributes:
        file: its path.
        state: what is wrong.
        text: what to do, or the details.
    """

    file: Path
    state: State
    text: str


@dataclass(frozen=True)
class Verified:
    """The result of checking one run folder, one folder of evidence or one saved result.

    Attributes:
        place: its path.
        checked: the number of files that match their digests.
        findings: the other files.
    """

    place: Path
    checked: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no file is changed, damaged or missing."""

        return not any(finding.state in ("changed", "damaged", "missing") for finding in self.findings)


def verify(place: Path | str, *, accept: bool = False) -> list[Verified]:
    """Checks every file of a run against its digest, and the figures against their evidence.

    Args:
        place: a run folder, a folder of an evaluation or an explanation, a saved result, or a folder that holds such.
        accept: accept edited files, and files without a digest, as they are now. The manifest records that, and every
            report mentions it from then on. Default: nothing is written.

    Returns:
        The result for each run folder, folder of evidence and saved result.

    Raises:
        InputError: there is nothing of that kind.
        DamagedFileError: ``accept``, and a file is not edited but damaged: it is cut short, its tensors do not match
            their digest, or its figures are not those of the evidence.
    """

    places = _places(Path(place))
    if accept:
        for each in places:
            if each.is_file():
                _accept_kept(each)
            else:
                with locked(each, "asgt verify --accept"):
                    _accept_folder(each)
    return [_kept(each) if each.is_file() else _folder(each) for each in places]


def _places(place: Path) -> list[Path]:
    """The run folders, folders of evidence and saved results that a path stands for."""

    if not place.exists():
        raise InputError(f"there is no {place}: name a run folder, a folder of an evaluation, or a saved result")
    if place.is_file():
        return [place]
    if (place / "config.yaml").exists() or (place / MANIFEST).exists() or _is_evidence(place):
        return [home_of(place) if _is_evidence(place) else place]
    runs = sorted({file.parent for name in ("config.yaml", MANIFEST) for file in place.rglob(name)})
    found = runs or [file for file in sorted(place.rglob("*.json")) if _looks_kept(file)]
    if not found:
        raise InputError(f"{place} holds no run, no evaluation and no saved result")
    return found


def _is_evidence(folder: Path) -> bool:
    return (folder / "result.json").exists() or any(folder.glob("*-[0-9][0-9][0-9][0-9][0-9].safetensors"))


def _looks_kept(file: Path) -> bool:
    try:
        value = read_json(file)
    except InputError:
        return True  # whether it is one, reading it says
    return isinstance(value, dict) and {"config", "training", "history"} <= value.keys()


def _folder(folder: Path) -> Verified:
    """What is found in a run folder or in a folder of evidence."""

    findings: list[Finding] = []
    try:
        manifest = Manifest.of(folder)
    except DamagedFileError as error:
        again = f"restore it, or run asgt verify {folder} --accept to seal the folder as it is"
        return Verified(folder, 0, (Finding(folder / MANIFEST, "damaged", f"{error}; {again}"),))

    listed = {} if manifest is None else manifest.files
    files = sorted({*listed, *(file.relative_to(folder).as_posix() for file in _written(folder))})
    for name in files:
        findings += _file(folder, name, listed.get(name))
    broken = any(finding.state != "unverified" for finding in findings)
    findings += [] if broken else _figures(folder)
    odd = {finding.file for finding in findings}
    last = {} if manifest is None else {each.file: each for each in manifest.accepted}
    for name, each in last.items():
        if listed.get(name) == each.now and folder / name not in odd:
            was = f"its SHA-256 was {each.was[:12]}…" if each.was else "it had no digest"
            findings.append(Finding(folder / name, "accepted", f"{was}, accepted on {each.on}"))
    return Verified(folder, len({folder / name for name in files} - odd), tuple(findings))


def _written(folder: Path) -> Iterator[Path]:
    """The files that asgt wrote into a run folder or a folder of evidence, whether the manifest lists them or not."""

    run = RunFolder(folder)
    own = (run.config, run.metrics, run.model, run.checkpoint, run.result, run.split, folder / "result.json")
    yield from (file for file in own if file.exists())
    yield from folder.glob("*-[0-9][0-9][0-9][0-9][0-9].safetensors")
    for place in ("evaluation", "explanation"):
        yield from folder.glob(f"{place}/*/result.json")
        yield from folder.glob(f"{place}/*/*.safetensors")


def _file(folder: Path, name: str, written: str | None) -> list[Finding]:
    """The findings about one file; none if it matches its digest."""

    path = folder / name
    if not path.exists():
        return [Finding(path, "missing", _remedy(folder, name))]
    try:
        if written is not None and digest_file(path) == written:
            return []
        sealed = path.suffix in (".safetensors", ".json") and is_sealed(path)
        if path.suffix == ".safetensors":
            read_tensors(path)
        if path.suffix == ".json" and _is_edited(path):
            return [Finding(path, "changed", _remedy(folder, name))]
    except InputError as error:
        return [Finding(path, "damaged", f"{error}; {_remedy(folder, name)}")]
    if written is not None:
        return [Finding(path, "changed", _remedy(folder, name))]
    return [] if sealed else [Finding(path, "unverified", "no digest is stored for it")]


def _is_edited(path: Path) -> bool:
    """Whether a JSON file is whole, and not what its own digest says."""

    read_json(path)
    try:
        read_sealed(path)
    except DamagedFileError:
        return True
    return False


def _remedy(folder: Path, name: str) -> str:
    """How to repair a file that does not match its digest."""

    place, _, rest = name.partition("/")
    kind = rest.partition("/")[0]
    if name == "checkpoint.safetensors":
        return "only --resume needs it; restore it, or run asgt verify with --accept"
    if place == "evaluation" and name.endswith(".safetensors"):
        return f"asgt evaluate {folder} --protocol {kind} --resume evaluates its samples again"
    if place in ("evaluation", "explanation"):
        verb = f"asgt evaluate {folder} --protocol {kind}" if place == "evaluation" else f"asgt explain {folder}"
        return f"restore it, or remove {folder / place / kind}, then: {verb}"
    return f"restore it, or run asgt verify {folder} --accept if the edit was intended"


def _figures(folder: Path) -> list[Finding]:
    """Whether the figures of finished results are those of their evidence, and all of it of the run's weights."""

    try:
        run = RunFolder(folder)
        if run.config.exists() and run.result.exists():
            read_run(folder)
        elif (folder / "result.json").exists():
            _load_evidence(folder)
    except InputError as error:
        return [Finding(folder, "damaged", str(error))]
    return []


def _load_evidence(folder: Path) -> None:
    """Reads a folder of evidence, an evaluation's or an explanation's."""

    if (folder / "values.safetensors").exists():
        load_explanation(folder)
    else:
        load_evaluation(folder)


def _accept_folder(folder: Path) -> None:
    """Seals a run folder or a folder of evidence; one that is refused stays as it was."""

    files = [*_written(folder), folder / MANIFEST]
    before = {file: file.read_bytes() for file in files if file.suffix == ".json" and file.exists()}
    try:
        _seal(folder)
        if findings := _figures(folder):
            raise DamagedFileError(findings[0].text)
    except InputError:
        (folder / MANIFEST).unlink(missing_ok=True)
        for file, content in before.items():
            write_bytes(file, content)
        raise


def _seal(folder: Path) -> None:
    """Writes the manifest of the files as they are now, with a record of each change."""

    try:
        manifest = Manifest.of(folder) or Manifest(folder)
    except DamagedFileError:
        manifest = Manifest(folder)
    changes = {}
    for file in _written(folder):
        name = file.relative_to(folder).as_posix()
        if digest_file(file) == manifest.files.get(name):
            continue
        # Raises where the file is damaged: nothing of that kind was meant.
        if file.suffix == ".safetensors":
            read_tensors(file)
        elif file.suffix == ".json":
            _sealed_again(file)
        if name not in manifest.files and name.partition("/")[0] in ("evaluation", "explanation") and is_sealed(file):
            continue
        changes[name] = digest_file(file)
    gone = {name: "" for name in manifest.files if not (folder / name).exists()}
    run = RunFolder(folder)
    made_from = dict(manifest.made_from)
    if run.model.exists():
        made_from["train"] = made_from.get("train", {}) | {"weights": digest_stored(run.model)}
    replace(manifest.accepting(changes | gone), made_from=made_from).write()


def _sealed_again(file: Path) -> None:
    """Gives an edited JSON file the digest of what it holds now; one that never had a digest stays without."""

    value: Any = read_json(file)
    if is_sealed(file):
        value.pop("sha256")
        write_sealed(file, value)


def _kept(file: Path) -> Verified:
    """What is found of a saved result, or of a single tensor file."""

    try:
        if file.suffix == ".safetensors":
            read_tensors(file)
            unknown = [] if is_sealed(file) else [Finding(file, "unverified", "no digest is stored for it")]
            return Verified(file, 1 - len(unknown), tuple(unknown))
        run = load_kept(file)
    except InputError as error:
        text = f"{error}; restore the file, or run asgt verify {file} --accept if the edit was intended"
        return Verified(file, 0, (Finding(file, "damaged", text),))
    states: list[Finding] = [
        Finding(file, "unverified" if remark.startswith(UNVERIFIED) else "accepted", remark) for remark in run.remarks
    ]
    return Verified(file, int(not states), tuple(states))


def _accept_kept(file: Path) -> None:
    if file.suffix != ".json":
        raise InputError(
            f"{file} is no saved result: --accept takes run folders, folders of evidence and saved results"
        )
    before = file.read_bytes()
    value = read_json(file)
    try:
        _, sealed = read_sealed(file)
        if sealed:
            return
        remark = "saved without a digest, sealed later; earlier changes cannot be detected"
    except DamagedFileError:
        remark = "edited after it was saved, accepted with asgt verify --accept"
    try:
        remarks = [*value.pop("remarks", []), f"{remark} ({time.strftime('%Y-%m-%d')})"]
        value.pop("sha256", None)
    except (AttributeError, TypeError) as error:
        raise DamagedFileError(f"{file} is damaged: it is not what is kept of a run") from error
    write_sealed(file, value | {"schema": SCHEMA, "remarks": remarks})
    try:
        load_kept(file)
    except InputError:
        write_bytes(file, before)
        raise
