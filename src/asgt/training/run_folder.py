"""A run folder: all that is needed to repeat, resume, audit and share a training.

::

    config.yaml             what was asked, resolved
    metrics.jsonl           a line an epoch
    model.safetensors       the weights of the chosen epoch
    checkpoint.safetensors  all that a resumed run needs
    training.json           how it ended: written when, and only when, the run is finished
    split.safetensors       the rows of the splits, where asgt drew them
    evaluation/<protocol>/  results and evidence of ``asgt evaluate``
    explanation/<name>/     those of ``asgt explain``, by attribution; ``module-Class`` for ``module:Class``
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DamagedFileError, InputError
from ..files import read_json, write_bytes
from ..names import file_name
from ..numbers import norm_sign
from ..statistics import share
from ..tabular import Table, Tabular

__all__ = ["RunFolder", "TrainResult"]


@dataclass(frozen=True)
class TrainResult(Tabular):
    """How a training ended.

    Attributes:
        folder: the run folder.
        epochs: epochs trained.
        chosen_epoch: the epoch whose weights are the model, from 0.
        chosen_by: ``"clean accuracy"``, ``"robust accuracy"`` or ``"last epoch"``.
        validation: accuracies of that epoch on the validation part: ``clean``, and for adversarial methods ``fgsm``
            (one step) and ``pgd`` (PGD-10), at the training ε.
        validation_images: how many images they were measured on.
        eps: the radius of ``fgsm`` and ``pgd``; ``None`` without an attack.
        norm: its norm.
        collapsed: whether the chosen epoch predicts one class for (nearly) all images.
        catastrophic_overfitting: whether it withstands one step but not several.
        warnings: what the user must not miss, in words.
        classes: the names of the classes.
        shape: (C, H, W) of the images.
        train_data: SHA-256 of the training images and labels.
        test_data: SHA-256 of the test images and labels.
        seconds: wall time of the last call.
        processes: how many trained it together.
        speed: ``passes_per_step``, ``samples_per_second`` and ``outside_passes``, the share of the steps' time that no
            pass took, of the last call; ``threads`` of the CPU, whether freed memory stayed with the process, and the
            ``device``.
        reading: how the images were read, as :attr:`asgt.data.Splits.reading` says; ``place`` is where they lay, an
            absolute path or a hub id.
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

    def table(self) -> Table:
        """The accuracies of the chosen epoch on the validation images, with Wilson's 95 % interval."""

        at = "" if self.eps is None else f" at ε = {self.eps:.4g} ({norm_sign(self.norm)})"
        names = {"clean": "clean", "fgsm": f"FGSM{at}", "pgd": f"PGD-10{at}"}
        count = self.validation_images
        return Table(
            f"model of epoch {self.chosen_epoch + 1} of {self.epochs}, chosen by {self.chosen_by} on the n = {count} "
            "validation images; accuracy % [Wilson 95 %]",
            [names.get(name, name) for name in self.validation],
            [[share(round(value * count), count).percent() for value in self.validation.values()]],
            [*self.warnings, f"run folder: {self.folder}"],
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what ``training.json`` holds."""

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

    def evaluation(self, protocol: str) -> Path:
        """The folder of an evaluation by a protocol."""

        return self.path / "evaluation" / protocol

    def explanation(self, attribution: str) -> Path:
        """The folder of an explanation by an attribution.

        Raises:
            InputError: the name of the attribution could lead out of the folder.
        """

        return self.path / "explanation" / file_name(attribution)

    def load_result(self) -> TrainResult:
        """How the training ended.

        Raises:
            InputError: it has not.
            DamagedFileError: the file is not what a finished run writes.
        """

        if not self.result.exists():
            raise InputError(f"{self.path} is not finished: asgt train --resume --out {self.path}")
        try:
            return TrainResult(**(read_json(self.result) | {"folder": str(self.path)}))
        except TypeError as error:
            raise DamagedFileError(f"{self.result} is damaged: it is not the result of a training") from error

    def rows(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line that a kill cut short is left out."""

        rows = []
        text = self.metrics.read_bytes().decode(errors="replace") if self.metrics.exists() else ""
        lines = text.splitlines()
        for number, line in enumerate(lines):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                if number < len(lines) - 1:
                    raise DamagedFileError(f"{self.metrics} is damaged at line {number + 1}") from error
        return rows

    def add_row(self, row: dict[str, Any]) -> None:
        """Appends a line to ``metrics.jsonl``."""

        try:
            with open(self.metrics, "a") as file:
                file.write(json.dumps(row) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise InputError(f"cannot write {self.metrics}: {error.strerror or error}") from error

    def cut_rows(self, step: int) -> None:
        """Cuts ``metrics.jsonl`` back to what a checkpoint at ``step`` knows."""

        rows = [row for row in self.rows() if row["step"] <= step]
        write_bytes(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())
