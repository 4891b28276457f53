"""A run folder: everything that is needed to repeat, resume, audit and share a training.

::

    config.yaml the resolved configuration
    metrics.jsonl one line per epoch
    model.safetensors       the weights of the chosen epoch
    checkpoint.safetensors the state for resuming
    training.json the result of the training
    split.safetensors the rows of the splits, if asgt drew them
    manifest.json           the digest of every file: written last, when, and only when, the run is finished
    evaluation/<protocol>/  results and evidence of ``asgt evaluate``; later versions in ``<protocol>@<version>``, those
                            on test images with a planted shortcut in ``<protocol>+<view>``
    explanation/<name>/     those of ``asgt explain``, by attribution; ``module-Class`` for ``module:Class``; those of
                            test images with a planted shortcut in ``<name>+<view>``
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from ..errors import DamagedFileError, InputError, shown
from ..files import digest_file, digest_stored, read_bounded, read_sealed, write_bytes, write_sealed
from ..manifest import MANIFEST, UNVERIFIED, Manifest, only_writer
from ..names import file_name, viewed
from ..numbers import norm_sign
from ..statistics import share
from ..tabular import Table, Tabular
from .config import TrainConfig

__all__ = ["AS_GIVEN", "RunFolder", "TrainResult"]

AS_GIVEN = "weights as given"
"""The label of a run of no epochs, whose weights are the given ones."""


@dataclass(frozen=True)
class TrainResult(Tabular):
    """How a training ended.

    Attributes:
        folder: the run folder.
        epochs: epochs trained.
        chosen_epoch: the epoch whose weights are saved, from 0; -1 without an epoch.
        chosen_by: ``"clean accuracy"``, ``"robust accuracy"`` or ``"last epoch"``; :data:`AS_GIVEN` without an epoch.
        validation: accuracies of that epoch on the validation part: ``clean``, and for adversarial methods ``fgsm``
            (one step) and ``pgd`` (PGD-10), at the training ε.
        validation_images: the number of images for these accuracies.
        eps: the radius of ``fgsm`` and ``pgd``; ``None`` without an attack.
        norm: its norm.
        collapsed: whether the chosen epoch predicts one class for half of the images or more.
        catastrophic_overfitting: whether it is robust under one step but not under several.
        warnings: warnings for the user, as sentences.
        classes: the names of the classes.
        shape: (C, H, W) of the images.
        train_data: SHA-256 of the training images and labels.
        test_data: SHA-256 of the test images and labels.
        seconds: wall time of the last call.
        processes: the number of processes that trained it.
        speed: ``passes_per_step``, ``samples_per_second`` and ``outside_passes``, the share of the steps' time
            outside the passes, of the last call; ``threads`` of the CPU, whether the process retained freed memory,
            and the ``device``.
        reading: how the images were read, as in :attr:`asgt.data.Splits.reading`; ``place`` is their absolute path
            or hub id.
        balanced: balanced accuracies, means over the classes, by the names of ``validation``, of the same epoch and
            images; empty for runs of earlier versions.
        start: the weights that the training started from, as in :class:`asgt.training.starting.Start`: file,
            SHA-256, and the layer that was replaced for other classes. Empty if they were random.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> result.validation_images, sorted(result.validation)
        (10, ['clean'])
    """

    folder: str
    epochs: int
    chosen_epoch: int
    chosen_by: str
    validation: dict[str, float]
    validation_images: int
    eps: float | None
    norm: str
    collapsed: bool
    catastrophic_overfitting: bool
    warnings: list[str]
    classes: list[str]
    shape: list[int]
    train_data: str
    test_data: str
    seconds: float
    processes: int = 1
    speed: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    balanced: dict[str, float] = field(default_factory=dict)
    start: dict[str, Any] = field(default_factory=dict)

    def table(self) -> Table:
        """The accuracies of the chosen epoch on the validation images, with Wilson's 95 % interval."""

        at = "" if self.eps is None else f" at ε = {self.eps:.4g} ({norm_sign(self.norm)})"
        names = {"clean": "clean", "fgsm": f"FGSM{at}", "pgd": f"PGD-10{at}"}
        count, balanced = self.validation_images, self.balanced_text(names)
        return Table(
            f"{self.chosen_text} on the n = {count} validation images; accuracy % [Wilson 95 %]",
            [names.get(name, name) for name in self.validation],
            [[share(round(value * count), count).percent() for value in self.validation.values()]],
            [*filter(None, [balanced]), *self.warnings, f"run folder: {self.folder}"],
        )

    @property
    def is_selected(self) -> bool:
        """Whether the accuracy on the validation images selected the epoch."""

        return self.chosen_by in ("clean accuracy", "robust accuracy")

    @property
    def chosen_text(self) -> str:
        """Describes which weights were saved, and why."""

        if self.epochs == 0:
            return f"{AS_GIVEN}, no epoch trained"
        if not self.is_selected:
            return f"model of the last epoch, {self.chosen_epoch + 1} of {self.epochs}"
        return f"model of epoch {self.chosen_epoch + 1} of {self.epochs}, chosen by {self.chosen_by}"

    def balanced_text(self, names: Mapping[str, str]) -> str:
        """The balanced accuracies in a line, under these names; empty if they were not measured."""

        told = ", ".join(f"{names.get(name, name)} {100 * value:.1f} %" for name, value in self.balanced.items())
        return f"balanced accuracy, the mean over the classes: {told}" if told else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``training.json`` holds them."""

        return asdict(self)


class RunFolder:
    """The files of a run, by name."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.model = self.path / "model.safetensors"
        self.checkpoint = self.path / "checkpoint.safetensors"
        self.result = self.path / "training.json"
        self.split = self.path / "split.safetensors"
        self.tracking = self.path / "tracking.json"
        self.manifest = self.path / MANIFEST
        self._lines = hashlib.sha256()

    def evaluation(self, stored_as: str, shortcut_view: str = "") -> Path:
        """The folder of an evaluation.

        Args:
            stored_as: the name of its protocol in files (:attr:`asgt.Protocol.stored_as`).
            shortcut_view: the shortcut in its test images. Default: none, like ``"absent"``.
        """

        return self.path / "evaluation" / viewed(stored_as, shortcut_view)

    def explanation(self, attribution: str, shortcut_view: str = "") -> Path:
        """The folder of an explanation.

        Args:
            attribution: its name.
            shortcut_view: as for :meth:`evaluation`.

        Raises:
            InputError: the name of the attribution could lead out of the folder.
        """

        return self.path / "explanation" / viewed(file_name(attribution), shortcut_view)

    def is_finished(self) -> bool:
        """Whether the training has ended.

        A run whose ``training.json`` has a digest also has a manifest, written later. Without a manifest, the
        training was killed between the two.

        Raises:
            DamagedFileError: ``training.json`` or the manifest is damaged.
        """

        if not self.result.exists():
            return False
        _, sealed = read_sealed(self.result)
        manifest = Manifest.of(self.path)
        return not sealed or (manifest is not None and self.result.name in manifest.files)

    def command(self, verb: str, *words: str) -> str:
        """A command on this run, as messages name it, with the user's own code (:meth:`TrainConfig.own_code`).

        Args:
            verb: ``"train"`` continues the training; others take the run folder, such as ``"evaluate"``.
            words: its flags, quoted where a shell needs it.
        """

        named: list[str] = []
        with suppress(InputError):  # of a folder without a configuration that can be read
            named = TrainConfig.load(self.config).own_code(trains=verb == "train")
        place = shlex.quote(str(self.path))
        first = ("--resume", "--out", place) if verb == "train" else (place,)
        return " ".join(["asgt", verb, *first, *filter(None, words), *map(shlex.quote, named)])

    def load_result(self) -> TrainResult:
        """How the training ended, after a check that the text files of the run are unchanged.

        Raises:
            InputError: it has not ended.
            DamagedFileError: a file is not one of a finished run, or was changed.

        """

        if not self.is_finished():
            raise InputError(f"{self.path} is not finished: run {self.command('train')}")
        if (manifest := Manifest.of(self.path)) is not None:
            manifest.check(self.config.name, self.metrics.name, self.result.name)
        try:
            result = TrainResult(**(read_sealed(self.result)[0] | {"folder": str(self.path)}))
        except TypeError as error:
            raise DamagedFileError(
                f"{self.result} is damaged: it is not the result of a training; restore it"
            ) from error
        for name, kind in get_type_hints(TrainResult).items():
            value = getattr(result, name)
            if not _is_of(kind, value) or (name == "shape" and len(value) != 3):
                raise DamagedFileError(
                    f"{self.result} is damaged: {name} = {shown(value)} is not a value of a training; restore the file"
                )
        return result

    def finish(self, result: TrainResult, files: Mapping[str, str], unverified: Sequence[str]) -> None:
        """Writes how the training ended, and then the manifest.

        Args:
            result: how it ended.
            files: the known SHA-256 of the other files as written, by name.
            unverified: descriptions of the files without a digest that the run used.

        Raises:
            DamagedFileError: another process has changed a file.
        """

        there = (self.config, self.metrics, self.model, self.checkpoint, self.split)
        listed = {file.name: digest_file(file) for file in there if file.exists()}
        for name, written_as in files.items():
            if listed.get(name, "") != written_as:
                raise DamagedFileError(
                    f"{self.path / name} is damaged: it is not the file that the training wrote: train again into "
                    "another folder"
                )

        written = {self.result.name: write_sealed(self.result, result.to_dict(), begin=False)}
        made_from = {
            "config": listed[self.config.name],
            "train_data": result.train_data,
            "test_data": result.test_data,
            "weights": digest_stored(self.model),
        }
        with only_writer(self.path):
            # An evaluation of a run that was killed just before its manifest is listed there already.
            manifest = replace(Manifest.of(self.path) or Manifest(self.path), unverified=tuple(unverified))
            manifest.with_files("train", listed | written, made_from).write()

    def remarks(self) -> list[str]:
        """Remarks on the files of a finished training: those without a digest, and accepted edits."""

        names = [file.name for file in (self.config, self.metrics, self.model, self.result)]
        if (manifest := Manifest.of(self.path)) is None:
            return [f"{UNVERIFIED}: no digest is stored for {', '.join(names)}"]
        return manifest.remarks(names)

    def rows(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; an incomplete last line, after a kill, is omitted."""

        rows = []
        text = read_bounded(self.metrics).decode(errors="replace") if self.metrics.exists() else ""
        lines = text.splitlines()
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or not all(type(row.get(name)) is int for name in ("epoch", "step")):
                    raise ValueError("no line of an epoch")
                if any(type(value) is int and abs(value) >= 2**63 for value in row.values()):
                    raise ValueError("a number that no training counts to")
                rows.append(row)
            except (RecursionError, ValueError) as error:
                if number < len(lines) - 1:
                    raise DamagedFileError(f"{self.metrics} is damaged at line {number + 1}") from error
        return rows

    def add_row(self, row: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl``."""

        line = (json.dumps(row) + "\n").encode()
        self._lines.update(line)
        try:
            if not self.path.is_dir():
                raise InputError(
                    f"cannot write {self.metrics}: its folder was removed during the training: train again"
                )
            with open(self.metrics, "ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.metrics}: {error.strerror or error}") from error

    def lines_until(self, step: int) -> bytes:
        """The lines of ``metrics.jsonl`` that a checkpoint at ``step`` knows."""

        rows = self.rows()
        lines = read_bounded(self.metrics).splitlines(keepends=True) if rows else []
        # As they stand, not written anew: a flipped digit that no float tells apart is damage too.
        return b"".join(line for row, line in zip(rows, lines, strict=False) if row["step"] <= step)

    def cut_to(self, lines: bytes) -> None:
        """Cuts ``metrics.jsonl`` back to some of its lines."""

        self._lines = hashlib.sha256(lines)
        write_bytes(self.metrics, lines, begin=False)

    @property
    def lines_digest(self) -> str:
        """The SHA-256 of ``metrics.jsonl`` as written by this process."""

        return self._lines.hexdigest()


def _is_of(kind: Any, value: Any) -> bool:
    """Whether a plain value is of an annotation's kind."""

    parts = get_args(kind)
    if get_origin(kind) is list:
        return type(value) is list and all(_is_of(parts[0], each) for each in value)
    if get_origin(kind) is dict:
        return type(value) is dict and all(_is_of(parts[1], each) for each in value.values())
    if parts:
        return any(_is_of(part, value) for part in parts)
    return kind is Any or type(value) is kind or (kind is float and type(value) is int)
