"""Checks the files of a run against their digests, and the numbers against the stored outcomes.

An edit that the user accepts is recorded in the manifest, and every report mentions it from then on.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import DamagedFileError, InputError
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import KNOWN, OWN
from ..evaluation.shards import LABELS, load_evaluation
from ..evaluation.trace import TRACE
from ..explanation import Explanation, load_explanation
from ..files import (
    agree,
    digest,
    digest_file,
    digest_stored,
    is_sealed,
    read_bounded,
    read_json,
    read_sealed,
    read_tensors,
    write_bytes,
    write_sealed,
)
from ..locks import locked
from ..manifest import MANIFEST, UNVERIFIED, Manifest, home_of, only_writer
from ..models.exported import exported_files
from ..training.config import TrainConfig
from ..training.run_folder import RunFolder
from ..training.setup import STEP
from ..training.validating import balanced_of
from .kept import SCHEMA, changed_parts, of_other_versions, read_kept, without_digest
from .run import read_run

__all__ = ["Finding", "State", "Verified", "places_in", "verify", "verify_place"]

State: TypeAlias = Literal["changed", "damaged", "missing", "unverified", "accepted"]
"""``changed``: the file is complete, but its SHA-256 differs from the manifest. ``damaged``: the file cannot be read,
or contradicts its own digest or the evidence. ``missing``: the manifest or the checkpoint lists it. ``unverified``: no
digest is stored for it, or another version of asgt must read it. ``accepted``: the user accepted an edit."""

_PLACES = ("evaluation", "explanation")
_SHARDS = "*-[0-9][0-9][0-9][0-9][0-9].safetensors"

_KEPT = ("schema", "config", "training", "history", "evaluations", "explanations")
_RESULT = ("schema", "protocol", "attribution", "samples", "seconds", "norm", "model", "data")
"""Names in a saved result, and in the result of an evaluation or an explanation.

Some of them identify such a file: damage may have changed one, and other programs also write JSON.
"""


@dataclass(frozen=True)
class Finding:
    """A file that differs, or may differ, from the one that asgt wrote.

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

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> (verified,) = asgt.verify("run")
        >>> verified.findings
        ()
    """

    place: Path
    checked: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether no file is changed, damaged or missing."""

        return not any(finding.state in ("changed", "damaged", "missing") for finding in self.findings)


def verify(place: Path | str, *, accept: bool = False) -> list[Verified]:
    """Checks every file of a run against its digest, and the numbers against the stored outcomes.

    Args:
        place: a run folder, a folder of an evaluation or an explanation, a saved result, or a folder with such.
        accept: accept edited files, and files without a digest, in their present state. The manifest records that, and
            every report mentions it from then on. Default: nothing is written.

    Returns:
        The result for each run folder, folder of evidence and saved result.

    Raises:
        InputError: there is nothing of that kind; or with ``accept``, a run is not finished or is in use. All other
            places are accepted first.
        DamagedFileError: with ``accept``, a file is not edited but damaged: it is incomplete, its tensors do not
            match their digest, its numbers differ from the stored outcomes, or the weights or the outcomes have
            changed.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> [verified.is_sound for verified in asgt.verify("run")]
        [True]
    """

    verified, refused = [], []
    for each in places_in(place):
        try:
            verified.append(verify_place(each, accept=accept))
        except InputError as error:
            refused.append(error)
    if refused:
        raise refused[0]
    return verified


def verify_place(place: Path, *, accept: bool = False) -> Verified:
    """Checks one of the places that :func:`places_in` returns.

    Raises:
        InputError, DamagedFileError: as :func:`verify`.
    """

    if place.is_file():
        if accept:
            _accept_kept(place)
        return _kept(place)
    if accept:
        if _is_unfinished(place):
            raise InputError(f"{place} is not finished: run {RunFolder(place).command('train')}")
        with locked(place, "asgt verify --accept"), only_writer(place):
            _accept_folder(place)
    return _folder(place)


def places_in(place: Path | str) -> list[Path]:
    """The run folders, folders of evidence and saved results at a path.

    Links are followed, and a place with two paths is returned once. The evidence in a run's own ``evaluation/`` and
    ``explanation/`` is verified with the run.

    Args:
        place: such a folder or file, a file in such a folder, or a folder that holds such.

    Raises:
        InputError: there is nothing of that kind, or a folder cannot be read.
    """

    place = Path(place)
    if not place.exists():
        raise InputError(f"{place} does not exist: give a run folder, a folder of an evaluation, or a saved result")
    if place.is_file():
        return [_whole(place)]

    homes: dict[str, Path] = {}
    if any((place / name).exists() for name in ("config.yaml", MANIFEST)) or _is_evidence(place):
        home = _home(place) if _is_evidence(place) else place
        homes[os.path.realpath(home)] = home
    evidence: dict[str, Path] = {}
    kept: dict[str, Path] = {}
    for folder, files in _walked(place):
        if _is_run(folder):
            homes.setdefault(os.path.realpath(folder), folder)
        if _is_evidence(folder) and _holds(folder / "result.json", _RESULT, or_gone=True):
            home = _home(folder)
            (evidence if home == folder else homes).setdefault(os.path.realpath(home), home)
        for file in files:
            if file.suffix == ".json" and _looks_kept(file):
                kept.setdefault(os.path.realpath(file), file)

    listed = {os.path.realpath(each) for home in homes.values() for name in _PLACES for each in home.glob(f"{name}/*")}
    others = {real: each for real, each in evidence.items() if real not in listed}
    if not (found := homes | {real: each for real, each in others.items() if real not in homes} | kept):
        raise InputError(f"{place} contains no run, no evaluation and no saved result: give another folder")
    return sorted(found.values())


def _walked(top: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Each folder under a path, itself first, with its files; links are followed, each folder comes once."""

    def refuse(error: OSError) -> None:
        raise InputError(f"cannot read {error.filename}: {error.strerror or error}")

    seen = set()
    for name, folders, files in os.walk(top, followlinks=True, onerror=refuse):
        real = os.path.realpath(name)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield Path(name), [Path(name) / file for file in sorted(files)]


def _whole(file: Path) -> Path:
    """What to verify where a file is named: the run or the evidence that it is part of, or else itself."""

    if _looks_kept(file):
        return file
    home = _home(file.parent)
    if _is_run(home) or any((home / name).exists() for name in ("config.yaml", MANIFEST)) or _is_evidence(home):
        own = {os.path.abspath(each) for each in (*_written(home), home / MANIFEST)}
        if os.path.abspath(file) in own:
            return home
    if file.suffix in (".jsonl", ".yaml", ".yml"):
        raise InputError(f"{file} is not a file of a run or a saved result: give a run folder or a saved result")
    return file


def _home(folder: Path) -> Path:
    """The run that a folder of evidence lies in, also where the run lost its configuration; or the folder itself."""

    whole = folder.absolute()
    above = whole.parent.parent
    return above if whole.parent.name in _PLACES and _is_run(above) else home_of(folder)


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run's, or has a manifest; files of other programs have the same names."""

    run = RunFolder(folder)
    return (
        _holds(run.config, ("method", "epochs", "batch_size"), quote="")
        or _holds(run.manifest, ("made_from", "files", "accepted", "unverified"))
        or _holds(run.result, ("chosen_epoch", "train_data", "test_data"))
        or (run.checkpoint.exists() and run.metrics.exists())
    )


def _is_evidence(folder: Path) -> bool:
    # Weights of other libraries come in parts, as model-00001-of-00002.safetensors.
    shards = (each for each in folder.glob(_SHARDS) if "-of-" not in each.name)
    result = folder / "result.json"
    return (result.exists() and not _looks_kept(result)) or (folder / "values.safetensors").exists() or any(shards)


def _holds(file: Path, names: tuple[str, ...], *, quote: str = '"', or_gone: bool = False) -> bool:
    """Whether a file has at least two of some names in it."""

    if or_gone and not file.exists():
        return True
    try:
        content = read_bounded(file)
    except InputError:
        return False
    return sum(f"{quote}{name}{quote}:".encode() in content.replace(b'" :', b'":') for name in names) > 1


def _looks_kept(file: Path) -> bool:
    if not _holds(file, _KEPT):
        return False
    try:
        value = json.loads(read_bounded(file))
    except (ValueError, RecursionError):
        # Such a file, and damaged; unless it has the name of another one, which may hold such names too.
        return file.name not in (MANIFEST, "training.json", "result.json")
    return isinstance(value, dict) and len(value.keys() & {*_KEPT}) > 2


def _folder(folder: Path) -> Verified:
    """What is found in a run folder or in a folder of evidence."""

    findings: list[Finding] = []
    try:
        manifest = Manifest.of(folder)
    except DamagedFileError as error:
        again = f"restore it, or run asgt verify {folder} --accept to accept the folder as it is"
        return Verified(folder, 0, (Finding(folder / MANIFEST, "damaged", f"{error}; {again}"),))

    listed = _known(folder, manifest)
    files = sorted({*listed, *(file.relative_to(folder).as_posix() for file in _written(folder))})
    for name in files:
        findings += _file(folder, name, listed.get(name))
    broken = any(finding.state != "unverified" for finding in findings)
    findings += [] if broken else _figures(folder)
    if _lost_manifest(folder, manifest):
        findings.append(Finding(folder / MANIFEST, "missing", _remedy(folder, MANIFEST, "missing")))
    odd = {finding.file for finding in findings}
    last = {} if manifest is None else {each.file: each for each in manifest.accepted}
    for name, each in last.items():
        if listed.get(name, "") == each.now and folder / name not in odd:
            was = f"its SHA-256 was {each.was[:12]}…" if each.was else "it had no digest"
            was = was if each.now else f"removed; {was}"
            findings.append(Finding(folder / name, "accepted", f"{was}, accepted on {each.on}"))
    return Verified(folder, len({folder / name for name in files} - odd), tuple(findings))


def _written(folder: Path) -> Iterator[Path]:
    """The files that asgt wrote into a run folder or a folder of evidence, whether the manifest lists them or not."""

    run = RunFolder(folder)
    own = (run.config, run.metrics, run.model, run.checkpoint, run.result, run.split, folder / "result.json")
    yield from (file for file in own if file.exists())
    yield from (file for file in (folder / "values.safetensors", folder / LABELS, folder / TRACE) if file.exists())
    yield from folder.glob(_SHARDS)
    yield from (file for file in exported_files(folder) if file not in own)
    for place in _PLACES:
        yield from folder.glob(f"{place}/*/result.json")
        yield from folder.glob(f"{place}/*/*.safetensors")


def _is_unfinished(folder: Path) -> bool:
    """Whether a folder is that of a run whose training has not ended."""

    run = RunFolder(folder)
    return (run.config.exists() or run.checkpoint.exists()) and not run.result.exists()


def _lost_manifest(folder: Path, manifest: Manifest | None) -> bool:
    """Whether a finished run lacks the manifest that was written right after its ``training.json``.

    One from before there were digests never had any.
    """

    result = folder / "training.json"
    if not result.exists() or (manifest is not None and result.name in manifest.files):
        return False
    try:
        return is_sealed(result)
    except InputError:
        return False  # it is damaged, which is reported


def _known(folder: Path, manifest: Manifest | None) -> dict[str, str]:
    """The SHA-256 of the files as they were written, by name: from the manifest; before there is one, the checkpoint.

    A kill may leave lines of metrics, and weights, that are later than the checkpoint. They are no change.
    """

    listed = {} if manifest is None else manifest.files
    run = RunFolder(folder)
    if run.result.name in listed or not run.checkpoint.exists():
        return dict(listed)
    files, step = _checkpointed(run)
    try:
        if run.metrics.name in files and run.metrics.exists() and _lines_until(run, step) == files[run.metrics.name]:
            files[run.metrics.name] = digest_file(run.metrics)
        if run.model.exists() and (_step_of(run.model) or 0) > step:
            files.pop(run.model.name, None)
    except InputError:
        pass  # it is damaged, which is reported
    return files | listed


def _checkpointed(run: RunFolder) -> tuple[dict[str, str], int]:
    """The SHA-256 of the other files as a checkpoint knows them, by name, and its step; nothing if it is damaged."""

    names = {file.name for file in (run.config, run.metrics, run.model, run.split)}
    try:
        told = json.loads(read_tensors(run.checkpoint)[1]["standing"])
        files, step = dict(told.get("files", {})), int(told["step"])
    except (AttributeError, LookupError, TypeError, ValueError):
        return {}, 0
    return {name: str(files[name]) for name in names & files.keys()}, step


def _lines_until(run: RunFolder, step: int) -> str:
    """The SHA-256 of the lines of ``metrics.jsonl`` up to a step."""

    lines = read_bounded(run.metrics).splitlines(keepends=True)
    return digest(*(line for row, line in zip(run.rows(), lines, strict=False) if row["step"] <= step))


def _step_of(model: Path) -> int | None:
    """The training step after which weights were written; ``None`` where they do not say."""

    step = read_tensors(model)[1].get(STEP, "")
    return int(step) if step.isdecimal() else None


def _file(folder: Path, name: str, written: str | None) -> list[Finding]:
    """The findings about one file; none if it matches its digest."""

    path = folder / name
    if not path.exists():
        return [Finding(path, "missing", _remedy(folder, name, "missing"))]
    try:
        if written is not None and digest_file(path) == written:
            return []
        sealed = path.suffix in (".safetensors", ".json") and is_sealed(path)
        if path.suffix == ".safetensors":
            read_tensors(path)
        if path.suffix == ".json" and _is_edited(path):
            return [Finding(path, "changed", _remedy(folder, name, "changed"))]
    except InputError as error:
        return [Finding(path, "damaged", f"{error}; {_remedy(folder, name, 'damaged')}")]
    if written is not None:
        return [Finding(path, "changed", _remedy(folder, name, "changed"))]
    return [] if sealed else [Finding(path, "unverified", "no digest is stored for it")]


def _is_edited(path: Path) -> bool:
    """Whether a JSON file is whole, and not what its own digest says."""

    read_json(path)
    try:
        read_sealed(path)
    except DamagedFileError:
        return True
    return False


def _remedy(folder: Path, name: str, state: State) -> str:
    """How to repair a file that does not match its digest."""

    place = name.partition("/")[0]
    run, accept = RunFolder(folder), f"run asgt verify {folder} --accept"
    if place in _PLACES or _is_shard(run, name):
        return _remedy_of_evidence(folder, name, state)
    if name == MANIFEST:
        resume = f"run {run.command('train')} to write it"
        return resume if run.checkpoint.exists() else f"restore it, or {accept} to accept the run as it is"
    if name == run.result.name and state == "missing":
        resume = f", or run {run.command('train')} to write it again"
        return f"restore it{resume if run.checkpoint.exists() and run.config.exists() else ''}"
    if _is_unfinished(folder):
        return "restore it, or train again into another folder"
    if name == run.checkpoint.name:
        remove = "remove it, then " if state == "damaged" else ""
        return f"it is needed only for --resume: restore it, or {remove}{accept}"
    if name == run.model.name:
        return f"edits of weights cannot be accepted: restore them, or {_made_again(folder)}"
    return f"restore it, or {accept} if the edit was intended" if state == "changed" else "restore it"


def _made_again(folder: Path) -> str:
    """How to make the weights of a run, or of an export, again."""

    return "export the run again" if exported_files(folder) else "train again into another folder"


def _is_shard(run: RunFolder, name: str) -> bool:
    """Whether a file lies in a folder of evidence that has no run around it."""

    return name.endswith(".safetensors") and name not in (run.model.name, run.checkpoint.name, run.split.name)


def _remedy_of_evidence(folder: Path, name: str, state: State) -> str:
    """How to repair a file of an evaluation or an explanation."""

    place, _, rest = name.partition("/")
    kind = rest.partition("/")[0]
    keys = {protocol.stored_as: key for key, protocol in KNOWN.items()}
    by, _, view = kind.partition("+")
    run, viewed = RunFolder(folder), f"--shortcut-view {view}" if view else ""
    evaluate = run.command("evaluate", "--attack …" if by == OWN else f"--protocol {keys.get(by, by)}", viewed)
    if place == name:
        evaluate = f"asgt evaluate … --out {folder}"
    if name.endswith(".safetensors") and place != "explanation" and name != "values.safetensors":
        # What is whole would be taken for evidence, or for that of other settings.
        again = f"{evaluate} --resume"
        if name.rpartition("/")[2] in (LABELS, TRACE):
            return f"{again} writes it again"
        return f"remove the file, then: {again}" if state == "changed" else f"{again} evaluates its samples again"
    verb = evaluate if place == "evaluation" else run.command("explain", viewed)
    if place == name:
        return f"restore it, or remove {folder}, then: asgt explain … --out {folder}"
    return f"restore it, or remove {folder / place / kind}, then run {verb}"


def _figures(folder: Path) -> list[Finding]:
    """Whether the figures of finished results are those of their evidence, and all of it of the run's weights."""

    run = RunFolder(folder)
    if not run.result.exists():
        return _figures_of(folder, "") if (folder / "result.json").exists() else []
    try:
        _refuse_mixture(run)
        if run.is_finished():
            # Those of the views are read by themselves, so that a finding names their folder.
            read_run(folder, views=False)
    except DamagedFileError as error:
        return [Finding(folder, "damaged", str(error))]
    except InputError as error:
        # Of another version it may be, or of other weights.
        return _figures_in(run) or [Finding(folder, "damaged", str(error))]
    read = [protocol.stored_as for protocol in KNOWN.values()]
    return _figures_in(run, skip=(*read, OWN) if run.is_finished() else ())


def _figures_in(run: RunFolder, skip: tuple[str, ...] = ()) -> list[Finding]:
    """The findings about the figures of each evaluation and explanation of a run, but for evaluations to skip."""

    findings: list[Finding] = []
    for name in _PLACES:
        for result in sorted(run.path.glob(f"{name}/*/result.json")):
            if name != "evaluation" or result.parent.name not in skip:
                findings += _figures_of(result.parent, digest_stored(run.model))
    return findings


def _figures_of(folder: Path, weights: str) -> list[Finding]:
    """The findings about the figures of one folder of evidence, which is of some weights; ``""`` if of any."""

    result = folder / "result.json"
    try:
        evidence = _load_evidence(folder)
    except DamagedFileError as error:
        return [Finding(result, "damaged", str(error))]
    except InputError as error:
        return [Finding(result, "unverified", str(error))]
    if isinstance(evidence, Evaluation) and folder.parent.name == "evaluation":
        view = evidence.shortcut_view
        if view != folder.name.partition("+")[2]:
            said = f"the shortcut {view}" if view else "no shortcut planted"
            return [Finding(result, "damaged", f"{folder} holds an evaluation with {said}: rename it back")]
    if weights not in ("", evidence.model):
        return [Finding(result, "damaged", f"{folder} was made with other weights than those of the run: remove it")]
    return []


def _load_evidence(folder: Path) -> Evaluation | Explanation:
    """Reads a folder of evidence, an evaluation's or an explanation's."""

    if (folder / "values.safetensors").exists():
        return load_explanation(folder)
    return load_evaluation(folder)


def _refuse_mixture(run: RunFolder) -> None:
    """Refuses a finished run whose files are of several runs, as far as they contradict each other.

    Raises:
        DamagedFileError: they do, or one cannot be read.
    """

    together = "restore the files of one run together"
    told = read_sealed(run.result)[0]
    if not isinstance(told, dict):
        raise DamagedFileError(f"{run.result} is damaged: it is not the result of a training: restore it")
    try:
        config = TrainConfig.load(run.config)
        rows = run.rows()
    except InputError as error:
        raise DamagedFileError(str(error)) from error
    asked: dict[str, Any] = {"epochs": config.epochs, "eps": None if config.eps is None else float(config.eps)}
    asked |= {} if config.norm is None else {"norm": config.norm}
    for name, value in asked.items():
        if name in told and not agree(value, told[name]):
            raise DamagedFileError(f"{run.result} is damaged: its {name} is not that of {run.config}; {together}")
    if config.epochs == 0 and not rows and told.get("chosen_epoch") == -1:
        # Weights as they were given: no line tells of them.
        if run.model.exists() and (step := _step_of(run.model)) not in (None, 0):
            raise DamagedFileError(
                f"{run.model} is damaged: it holds the weights after step {step} of a run without any; {together}"
            )
        return
    row = next((row for row in rows if row["epoch"] == told.get("chosen_epoch")), None)
    if row is None:
        raise DamagedFileError(f"{run.metrics} is damaged: it lacks the epoch that {run.result} chose; {together}")
    validation = {name.removeprefix("validation_"): row[name] for name in row if name.startswith("validation_")}
    measured: dict[str, Any] = {"validation": validation}
    if "balanced" in told:  # a run of an earlier version has none
        measured["balanced"] = balanced_of(row, validation)
    measured |= {name: row[name] for name in ("collapsed", "catastrophic_overfitting") if name in row}
    for name, value in measured.items():
        if not agree(value, told.get(name)):
            raise DamagedFileError(
                f"{run.result} is damaged: {name} differs from {run.metrics} at epoch {row['epoch']}; {together}"
            )
    if run.model.exists() and (step := _step_of(run.model)) not in (None, row["step"]):
        raise DamagedFileError(
            f"{run.model} is damaged: it holds the weights after step {step}, but epoch {row['epoch']}, which "
            f"{run.result} chose, ended after step {row['step']}; {together}"
        )


def _accept_folder(folder: Path) -> None:
    """Seals a run folder or a folder of evidence; one that is refused stays as it was."""

    files = [*_written(folder), folder / MANIFEST]
    before = {file: file.read_bytes() for file in files if file.suffix == ".json" and file.exists()}
    try:
        _seal(folder)
        if damaged := [finding for finding in _figures(folder) if finding.state == "damaged"]:
            raise DamagedFileError(damaged[0].text)
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
    manifest = replace(manifest, files=_known(folder, manifest))
    _refuse_other_weights(folder, manifest)
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


def _refuse_other_weights(folder: Path, manifest: Manifest) -> None:
    """Refuses weights that are not those that the training wrote, where that is known."""

    model = RunFolder(folder).model
    if not model.exists():
        return
    written = manifest.weights or manifest.files.get(model.name)
    if written and written != (digest_stored(model) if manifest.weights else digest_file(model)):
        raise DamagedFileError(
            f"{model} is damaged: it does not hold the weights that the training wrote, and edits of weights "
            f"cannot be accepted: restore them, or {_made_again(folder)}"
        )


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
        kept, sealed = read_sealed(file)
    except InputError as error:
        return Verified(file, 0, (Finding(file, "damaged", f"{error}; {_remedy_of_kept(file)}"),))
    try:
        run = read_kept(kept, file, sealed=sealed)
    except DamagedFileError as error:
        return Verified(file, 0, (Finding(file, "damaged", f"{error}; {_remedy_of_kept(file)}"),))
    except InputError as error:
        if changed := changed_parts(kept):
            text = f"{changed[0]} does not match its own SHA-256; {_remedy_of_kept(file)}"
            return Verified(file, 0, (Finding(file, "damaged", text),))
        return Verified(file, 0, (Finding(file, "unverified", str(error)),))
    states: list[Finding] = [
        Finding(file, "unverified" if remark.startswith(UNVERIFIED) else "accepted", remark) for remark in run.remarks
    ]
    return Verified(file, int(not states), tuple(states))


def _remedy_of_kept(file: Path) -> str:
    """How to repair a saved result."""

    if file.suffix != ".json":
        return "restore the file"
    try:
        changed = changed_parts(read_json(file))
    except InputError:
        return "restore the file, or save the run again"
    if changed:
        return (
            f"{changed[0]} was changed, and edits of outcomes cannot be accepted: restore the file, or save "
            "the run again"
        )
    return f"restore the file, or run asgt verify {file} --accept if the edit was intended"


def _accept_kept(file: Path) -> None:
    """Seals an edited saved result; one that is refused stays as it was."""

    if file.suffix != ".json":
        raise InputError(
            f"{file} is not a saved result: give run folders, folders of evidence or saved results to --accept"
        )
    value = read_json(file)
    try:
        _, sealed = read_sealed(file)
        if sealed:
            return
        remark = "saved without a digest, sealed later; earlier changes cannot be detected"
    except DamagedFileError:
        remark = "edited after it was saved, accepted with asgt verify --accept"
        if open_to_edits := without_digest(value):
            remark += f"; changes of {', '.join(open_to_edits)} cannot be detected"
    try:
        remarks = [*value.pop("remarks", []), f"{remark} ({time.strftime('%Y-%m-%d')})"]
        value.pop("sha256", None)
        schema = value["schema"]
    except (AttributeError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{file} is damaged: it is not a saved run: save the run again") from error
    if changed := changed_parts(value):
        raise DamagedFileError(
            f"{file} is damaged: {changed[0]} does not match its own SHA-256, and edits of outcomes cannot be "
            "accepted: restore the file, or save the run again"
        )
    value |= {"schema": SCHEMA if schema == 1 else schema, "remarks": remarks}
    # Evaluations of other versions cannot be read here: their own digest, where they have one, must do.
    other = of_other_versions(value)
    try:
        read = {name: each for name, each in value["evaluations"].items() if name not in other}
    except (AttributeError, LookupError, TypeError) as error:
        raise DamagedFileError(f"{file} is damaged: it is not a saved run: save the run again") from error
    read_kept(value | {"evaluations": read}, file, sealed=True)
    write_sealed(file, value)
