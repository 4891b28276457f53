"""Is what a folder holds what was written? Files are checked against their digests, figures against their evidence.

:func:`verify` looks and changes nothing. :func:`accept` seals an intended edit, which the manifest, and from then on
every page, records.
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

__all__ = ["Finding", "State", "Verified", "accept", "verify"]

State: TypeAlias = Literal["changed", "damaged", "gone", "unverified", "accepted"]
"""``changed``: not what was written. ``damaged``: its own digest, or what it belongs to, says that it is broken.
``gone``: listed and not there. ``unverified``: no digest is known of it. ``accepted``: edited, and accepted since."""


@dataclass(frozen=True)
class Finding:
    """A file that is not, or not known to be, as it was written.

    Attributes:
        file: which.
        state: what is the matter.
        text: what to do, or what is known.
    """

    file: Path
    state: State
    text: str


@dataclass(frozen=True)
class Verified:
    """What was found in one run folder, one folder of evidence or one saved result.

    Attributes:
        place: which.
        checked: how many files are as they were written.
        findings: about the others.
    """

    place: Path
    checked: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no file is changed, damaged or gone."""

        return not any(finding.state in ("changed", "damaged", "gone") for finding in self.findings)


def verify(place: Path | str) -> list[Verified]:
    """Checks every file of a run folder, a folder of evidence or a saved result, or of all that lie in a folder.

    Raises:
        InputError: there is nothing of that kind.
    """

    return [_kept(each) if each.is_file() else _folder(each) for each in _places(Path(place))]


def accept(place: Path | str) -> list[Verified]:
    """Seals what was edited, or had no digest, as it is now, and records that.

    Returns:
        What :func:`verify` finds after it.

    Raises:
        InputError: nothing of that kind is there.
        DamagedFileError: a file is no edit but damaged: it is not whole, or its figures are not those of the evidence.
    """

    for each in _places(Path(place)):
        if each.is_file():
            _accept_kept(each)
        else:
            with locked(each, "asgt verify --accept"):
                _accept_folder(each)
    return verify(place)


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
        again = f"restore it, or seal the folder as it is by asgt verify {folder} --accept"
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
            was = f"was {each.was[:12]}… as it was written" if each.was else "had no digest as it was written"
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
    """What is to be said of one file; nothing of one that is as it was written."""

    path = folder / name
    if not path.exists():
        return [Finding(path, "gone", _remedy(folder, name))]
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
    return [] if sealed else [Finding(path, "unverified", "no digest is known of it")]


def _is_edited(path: Path) -> bool:
    """Whether a JSON file is whole, and not what its own digest says."""

    read_json(path)
    try:
        read_sealed(path)
    except DamagedFileError:
        return True
    return False


def _remedy(folder: Path, name: str) -> str:
    """How to mend a file that is not what was written."""

    place, _, rest = name.partition("/")
    kind = rest.partition("/")[0]
    if name == "checkpoint.safetensors":
        return "only resuming needs it; restore it, or accept that by --accept"
    if place == "evaluation" and name.endswith(".safetensors"):
        return f"asgt evaluate {folder} --protocol {kind} --resume attacks its samples again"
    if place in ("evaluation", "explanation"):
        verb = f"asgt evaluate {folder} --protocol {kind}" if place == "evaluation" else f"asgt explain {folder}"
        return f"restore it, or remove {folder / place / kind}, then: {verb}"
    return f"restore it, or accept an edit that you meant by asgt verify {folder} --accept"


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
    """Writes the manifest of what a folder holds now, with a record of what is not as it was written."""

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
            unknown = [] if is_sealed(file) else [Finding(file, "unverified", "no digest is known of it")]
            return Verified(file, 1 - len(unknown), tuple(unknown))
        run = load_kept(file)
    except InputError as error:
        text = f"{error}; restore it, or accept an edit that you meant by asgt verify {file} --accept"
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
        remark = "had no digest when it was saved, sealed as found"
    except DamagedFileError:
        remark = "edited after it was saved, and accepted by asgt verify"
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
