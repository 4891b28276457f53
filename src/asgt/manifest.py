"""``manifest.json``: every file of a run folder with its digest, and its inputs.

It is written last, atomically. A folder of evidence inside a run folder is listed in the manifest of the run; one
elsewhere (``asgt evaluate --out``) has its own manifest.

The digests detect accidents and edits. They are not a signature: anybody who can change the files can also change the
manifest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import DamagedFileError
from .files import digest_file, is_sealed, package_versions, read_sealed, write_sealed
from .locks import locked

__all__ = ["MANIFEST", "Accepted", "Manifest", "home_of", "record", "unverified_in"]

MANIFEST = "manifest.json"

_SCHEMA = 1
_PATIENCE = 60.0  # seconds that another process may take to write the manifest of the same run
UNVERIFIED = "unverified"
"""The beginning of a remark on files whose damage or edits cannot be detected."""

_PLACES = ("evaluation", "explanation")


@dataclass(frozen=True)
class Accepted:
    """A change that the user accepted: the earlier and the present state of a file.

    Attributes:
        file: its path in the folder.
        was: its SHA-256 as it was written; ``""`` if unknown.
        now: its accepted SHA-256; ``""`` if it was removed.
        on: the day, as ``"2026-11-28"``.
    """

    file: str
    was: str
    now: str
    on: str


@dataclass(frozen=True)
class Manifest:
    """The content of a run folder.

    Attributes:
        folder: the folder.
        files: the SHA-256 of each file, by its path in the folder.
        made_from: by the command that made them (``"train"``, ``"evaluation/pgd"``, …): the versions of the code, and
            the SHA-256 of the configuration, the data and the weights.
        accepted: changes that the user accepted, in their order.
        unverified: descriptions of the inputs without a digest.
    """

    folder: Path
    files: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, dict[str, Any]] = field(default_factory=dict)
    accepted: tuple[Accepted, ...] = ()
    unverified: tuple[str, ...] = ()

    @classmethod
    def of(cls, folder: Path) -> Manifest | None:
        """The manifest of a folder; ``None`` if it has none, such as folders of early versions.

        Raises:
            DamagedFileError: it was changed after it was written, or is not a manifest.
        """

        path = folder / MANIFEST
        if not path.exists():
            return None
        value, sealed = read_sealed(path)
        try:
            if not sealed or value["schema"] != _SCHEMA:
                raise ValueError(MANIFEST)
            return cls(
                folder=folder,
                files={str(name): str(entry["sha256"]) for name, entry in value["files"].items()},
                made_from={str(name): dict(made) for name, made in value["made_from"].items()},
                accepted=tuple(Accepted(**each) for each in value["accepted"]),
                unverified=tuple(map(str, value["unverified"])),
            )
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{path} is damaged: it is not the manifest of a run folder: restore it") from error

    @property
    def weights(self) -> str:
        """The SHA-256 of the tensors of the weights, by :func:`asgt.files.digest_stored`; ``""`` if not known."""

        return str(self.made_from.get("train", {}).get("weights", ""))

    def check(self, *names: str) -> None:
        """Checks files that the manifest lists against their digests; other files are ignored.

        Raises:
            DamagedFileError: a file was changed after it was written, or is missing.
        """

        for name in names:
            if (written := self.files.get(name)) is None:
                continue
            path = self.folder / name
            if not path.exists():
                raise DamagedFileError(f"{path} is missing, and {self.folder / MANIFEST} lists it: restore it")
            if digest_file(path) != written:
                raise self.changed(name)

    def removed(self) -> list[str]:
        """The evaluations and explanations in the manifest whose folders were removed.

        Raises:
            DamagedFileError: a folder lost only some of its files; without its result it would look unfinished.
        """

        removed = []
        for part in (part for part in self.made_from if part.partition("/")[0] in _PLACES):
            lost = [name for name in self.files if name.startswith(f"{part}/") and not (self.folder / name).exists()]
            if lost and (self.folder / part).exists():
                verb = "asgt evaluate" if part.startswith("evaluation/") else "asgt explain"
                raise DamagedFileError(
                    f"{self.folder / lost[0]} is missing, and {MANIFEST} lists it: restore it, or make it again with "
                    f"{verb} {self.folder} --resume"
                )
            if lost:
                removed.append(part)
        return removed

    def changed(self, name: str) -> DamagedFileError:
        """The error for a changed file."""

        return DamagedFileError(
            f"{self.folder / name} is damaged: its SHA-256 differs from the one in {MANIFEST}: restore "
            "the file, or run "
            f"asgt verify {self.folder} --accept if the edit was intended"
        )

    def write(self) -> None:
        """Writes it atomically."""

        write_sealed(
            self.folder / MANIFEST,
            {
                "schema": _SCHEMA,
                "made_from": self.made_from,
                "files": {name: {"sha256": self.files[name]} for name in sorted(self.files)},
                "accepted": [vars(each) for each in self.accepted],
                "unverified": list(self.unverified),
            },
            begin=False,
        )

    def with_files(self, part: str, files: Mapping[str, str], made_from: Mapping[str, Any]) -> Manifest:
        """The same with the files of one part, instead of all of its earlier files."""

        others = {name: written for name, written in self.files.items() if not _is_of(name, part)}
        versions = {"versions": package_versions("torch", "numpy")}
        return replace(self, files=others | dict(files), made_from=self.made_from | {part: versions | dict(made_from)})

    def without(self, part: str) -> Manifest:
        """The same without the files of a part."""

        files = {name: written for name, written in self.files.items() if not _is_of(name, part)}
        return replace(
            self, files=files, made_from={name: made for name, made in self.made_from.items() if name != part}
        )

    def accepting(self, changes: Mapping[str, str]) -> Manifest:
        """The same with changed files recorded in their present state.

        Args:
            changes: the present SHA-256 of each file, ``""`` for a missing one, by its path in the folder.
        """

        today = time.strftime("%Y-%m-%d")
        accepted = (Accepted(name, self.files.get(name, ""), now, today) for name, now in changes.items())
        files = {name: now for name, now in (self.files | dict(changes)).items() if now}
        return replace(self, files=files, accepted=(*self.accepted, *accepted))

    def remarks(self, names: Iterable[str]) -> list[str]:
        """Remarks on some files: accepted edits, and unverified files."""

        names = set(names)
        last = {each.file: each for each in self.accepted if self.files.get(each.file, "") == each.now}
        gone = sorted(name for name, each in last.items() if not each.now)
        last = {name: each for name, each in last.items() if name in names or not each.now}
        edited = sorted(name for name, each in last.items() if each.was and each.now)
        late = sorted(name for name, each in last.items() if not each.was)
        remarks = list(self.unverified)
        if edited:
            days = ", ".join(sorted({last[name].on for name in edited}))
            remarks.append(f"edited after the run, accepted with asgt verify --accept on {days}: {', '.join(edited)}")
        if gone:
            days = ", ".join(sorted({last[name].on for name in gone}))
            remarks.append(f"removed after the run, accepted with asgt verify --accept on {days}: {', '.join(gone)}")
        if late:
            days = ", ".join(sorted({last[name].on for name in late}))
            remarks.append(
                f"written without a digest, sealed on {days}; earlier changes cannot be detected: {', '.join(late)}"
            )
        return remarks


def home_of(folder: Path) -> Path:
    """The folder whose manifest lists a folder of evidence: its run folder, or itself."""

    run = folder.absolute().parent.parent
    return run if folder.absolute().parent.name in _PLACES and (run / "config.yaml").exists() else folder


def record(folder: Path, made_from: Mapping[str, Any], accepted: Mapping[str, str]) -> None:
    """Lists the files of a finished folder of evidence in its manifest.

    A tensor file without a digest, from an early version, is omitted: it remains unverified.

    Args:
        folder: the folder.
        made_from: the inputs of its files.
        accepted: the result of :func:`withdraw`. A file without a digest remains listed if it is unchanged.
    """

    home, names = home_of(folder), _evidence(folder)
    with only_writer(home):
        manifest = Manifest.of(home) or Manifest(home)
        files = {}
        for file in (*folder.glob("*.safetensors"), folder / "result.json"):
            name, now = f"{names}{file.name}", digest_file(file)
            if is_sealed(file) or accepted.get(name) == now:
                files[name] = now
        manifest.with_files(_part(names), files, made_from).write()


def withdraw(folder: Path) -> dict[str, str]:
    """Removes the files of a folder of evidence from its manifest before they change.

    After a kill between the change and the next :func:`record`, the evidence is not listed, instead of
    contradicting the manifest.

    Returns:
        The SHA-256 of each removed file, by its path in the folder of the manifest.
    """

    home, part = home_of(folder), _part(_evidence(folder))
    if not (home / MANIFEST).exists():
        return {}
    with only_writer(home):
        manifest = Manifest.of(home) or Manifest(home)
        rest = manifest.without(part)
        if rest != manifest:
            rest.write()
    return {name: written for name, written in manifest.files.items() if name not in rest.files}


def check_evidence(folder: Path, *names: str) -> None:
    """Checks files of a folder of evidence against its manifest.

    Args:
        folder: the folder.
        names: of the files in it. Default: all existing files in the manifest.

    Raises:
        DamagedFileError: a file was changed.
    """

    if (manifest := Manifest.of(home_of(folder))) is None:
        return
    begin = _evidence(folder)
    there = [f"{begin}{name}" for name in names] or [
        name for name in manifest.files if name.startswith(begin) and (manifest.folder / name).exists()
    ]
    manifest.check(*there)


@contextlib.contextmanager
def only_writer(home: Path) -> Iterator[None]:
    """Holds the lock of a folder's manifest: it is read, changed and written by one process at a time."""

    with locked(home, "asgt, for a moment,", name=".manifest.lock", wait=_PATIENCE):
        yield


def _part(names: str) -> str:
    return names.removesuffix("/") or "evidence"


def unverified_in(folder: Path) -> list[str]:
    """The unverified files of a folder of evidence, by their paths in the folder of the manifest.

    They have no digest, like those of early versions, and no manifest lists them.

    Raises:
        DamagedFileError: a file without a digest differs from the accepted one.
    """

    manifest, names = Manifest.of(home_of(folder)), _evidence(folder)
    unverified = []
    for file in sorted((*folder.glob("*.safetensors"), folder / "result.json")):
        name = f"{names}{file.name}"
        if is_sealed(file):
            continue
        if manifest is None or name not in manifest.files:
            unverified.append(name)
        else:
            manifest.check(name)
    return unverified


def _evidence(folder: Path) -> str:
    """What the names of the files of a folder of evidence begin with in the manifest."""

    place = folder.absolute().relative_to(home_of(folder).absolute()).as_posix()
    return "" if place == "." else f"{place}/"


def _is_of(name: str, part: str) -> bool:
    """Whether a file is one of those that a part made."""

    if part == "train":
        return name.partition("/")[0] not in _PLACES
    return part == "evidence" or name.startswith(f"{part}/")
