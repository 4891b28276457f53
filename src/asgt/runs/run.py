"""Reads finished run folders: model and data (:func:`load_run`), or only the results (:func:`read_run`).

No code of a run folder is executed, unless the user names it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import LabelledImages, Splits, load_data
from ..errors import DamagedFileError, InputError
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import KNOWN, OWN, stored_name
from ..evaluation.shards import load_evaluation
from ..explanation import Explanation, load_explanation
from ..files import digest_stored, read_sealed
from ..manifest import MANIFEST, UNVERIFIED, Manifest, unverified_in
from ..models import load_weights
from ..modes import in_evaluation
from ..names import OBJECT, names_of, refuse_object, refuse_unless_allowed, short_name
from ..progress import SILENT, Progress
from ..shortcuts import VIEWS
from ..training.building import build_from
from ..training.config import TrainConfig
from ..training.passed import as_splits
from ..training.run_folder import RunFolder, TrainResult

__all__ = [
    "Run",
    "data_name",
    "evaluate_again",
    "evaluate_command",
    "load_run",
    "read_run",
    "refuse_other_model",
    "remarks_on",
]


@dataclass(frozen=True)
class Run:
    """A finished run folder, read and checked.

    Attributes:
        folder: as named.
        config: the resolved configuration.
        result: how the training ended.
        history: the rows of ``metrics.jsonl``, one per epoch.
        evaluations: its finished evaluations, by the protocol's key (:attr:`asgt.Protocol.key`).
        explanations: its finished explanations, by attribution, as ``gradient``, or ``gradient+aligned`` of images with
            a planted shortcut (:attr:`asgt.Explanation.name`).
        remarks: files without a digest, and edits that were accepted, as text.
        views: its finished evaluations on test images with a planted shortcut, by the view (``"aligned"``,
            ``"random"``, ``"reversed"``) and then by the protocol's key; what ``"absent"`` names is in
            ``evaluations``.
    """

    folder: Path
    config: TrainConfig
    result: TrainResult
    history: tuple[dict[str, Any], ...]
    evaluations: dict[str, Evaluation]
    explanations: dict[str, Explanation] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    views: dict[str, dict[str, Evaluation]] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return self.config.seed

    def on_views(self, key: str) -> dict[str, Evaluation]:
        """Its evaluations by the protocol of a key on the test sets with and without the shortcut, by the view."""

        found = {view: self.views.get(view, {}).get(key) for view in VIEWS} | {"absent": self.evaluations.get(key)}
        return {view: evaluation for view, evaluation in found.items() if evaluation is not None}


def read_run(path: Path, *, views: bool = True) -> Run:
    """A run folder, with every check that needs no other run.

    Args:
        path: the run folder.
        views: read the evaluations on test images with a planted shortcut too.

    Raises:
        InputError: the folder holds no finished run.
        DamagedFileError: a file of the run is damaged.
    """

    folder = RunFolder(path)
    if not path.is_dir():
        raise InputError(f"no such run folder {path}: give an existing one")
    if not folder.config.exists():
        raise InputError(f"{path} is not a run folder, because it has no config.yaml: give another one")

    config, result = TrainConfig.load(folder.config), folder.load_result()
    lists = (result.classes, result.warnings)
    if not all(isinstance(words, list) and all(isinstance(word, str) for word in words) for words in lists):
        raise DamagedFileError(f"{folder.result} is damaged: it is not the result of a training: restore it")
    history = folder.rows()[: config.epochs]
    if [row.get("epoch") if isinstance(row, dict) else None for row in history] != list(range(config.epochs)):
        raise DamagedFileError(
            f"{folder.metrics} is damaged: it lacks lines for some of {config.epochs} epochs: restore it"
        )

    keys = (*KNOWN, *([OWN] if _records_own(folder) else []))
    found = {"": _evaluations(folder, keys)}
    if views:
        found |= {view: _evaluations(folder, tuple(KNOWN), view) for view in VIEWS if view != "absent"}
    weights, manifest = digest_stored(folder.model), Manifest.of(path)
    if manifest is not None and manifest.weights not in ("", weights):
        raise manifest.changed(folder.model.name)
    for view, by_key in found.items():
        for key, evaluation in by_key.items():
            _refuse_misplaced(folder, key, view, evaluation, weights)
    explanations = _explanations(folder, weights)
    places = [
        *(folder.evaluation(stored_name(key), view) for view, by_key in found.items() for key in by_key),
        *(_explained_in(folder, explanation) for explanation in explanations.values()),
    ]
    for explanation in explanations.values():
        largest = int(torch.maximum(explanation.labels, explanation.predictions).max())
        if largest >= len(result.classes):
            raise DamagedFileError(
                f"{_explained_in(folder, explanation)} is damaged: it holds class {largest} of "
                f"{len(result.classes)}, which are numbered from 0"
            )
    remarks = remarks_on(folder, places)
    if manifest is not None and (removed := manifest.removed()):
        remarks = (*remarks, f"removed after the run, but listed in {MANIFEST}: {', '.join(removed)}")
    evaluations, planted = found.pop(""), {view: by_key for view, by_key in found.items() if by_key}
    return Run(
        path, config, result, tuple(history), evaluations, explanations=explanations, remarks=remarks, views=planted
    )


def _evaluations(folder: RunFolder, keys: Collection[str], view: str = "") -> dict[str, Evaluation]:
    """The finished evaluations of a run on one of the test sets, by the protocol's key."""

    return {
        key: load_evaluation(place)
        for key in keys
        if ((place := folder.evaluation(stored_name(key), view)) / "result.json").exists()
    }


def _refuse_misplaced(folder: RunFolder, key: str, view: str, evaluation: Evaluation, weights: str) -> None:
    """Refuses an evaluation that lies in the folder of another protocol or test set, or is of other weights."""

    place, protocol, own_view = folder.evaluation(stored_name(key), view), evaluation.protocol, evaluation.shortcut_view
    if protocol.key != key:
        renamed = folder.evaluation(protocol.stored_as, view).name
        raise InputError(f"{place} holds an evaluation by {protocol.name} v{protocol.version}: rename it to {renamed}")
    if own_view != view:
        renamed = folder.evaluation(stored_name(key), own_view).name
        said = f"with the shortcut {own_view}" if own_view else "without a shortcut"
        raise InputError(f"{place} holds an evaluation {said}: rename it to {renamed}")
    if evaluation.model != weights:
        again = evaluate_again(folder.path, key, view=view)
        raise InputError(f"{place} was made of other weights than {folder.model}: {again}")


def remarks_on(folder: RunFolder, places: Sequence[Path] = ()) -> tuple[str, ...]:
    """Sentences on the unverified files of a run, and on accepted edits.

    Args:
        folder: the run's.
        places: the folders of the used evaluations and explanations.
    """

    manifest = Manifest.of(folder.path)
    names = [file.name for file in (folder.config, folder.metrics, folder.model, folder.result)]
    listed = {} if manifest is None else manifest.files
    unverified = [name for name in names if name not in listed]
    for place in places:
        name = place.relative_to(folder.path).as_posix()
        names += [each for each in listed if each.startswith(f"{name}/")]
        unverified += [name] if unverified_in(place) else []
    remarks = [f"{UNVERIFIED}: no digest is stored for {', '.join(unverified)}"] if unverified else []
    return (*remarks, *([] if manifest is None else manifest.remarks(names)))


def _records_own(folder: RunFolder) -> bool:
    """Whether an evaluation by attacks of one's own says what they were; those of an earlier version do not."""

    path = folder.evaluation(OWN) / "result.json"
    if not path.exists():
        return False
    stored = read_sealed(path)[0]
    return isinstance(stored, dict) and OWN in stored


def _explanations(folder: RunFolder, weights: str) -> dict[str, Explanation]:
    """The finished explanations of a run, by name; they are of its own weights."""

    explanations = {}
    for place in sorted(path.parent for path in folder.path.glob("explanation/*/result.json")):
        explanation = load_explanation(place)
        explanations[explanation.name] = explanation
        if (renamed := _explained_in(folder, explanation).name) != place.name:
            raise InputError(f"{place} holds an explanation by {explanation.name}: rename it to {renamed}")
        if explanation.model != weights:
            raise InputError(
                f"{place} was made with other weights than {folder.model}: remove {place}, then run asgt explain "
                f"{folder.path}"
            )
    return explanations


def _explained_in(folder: RunFolder, explanation: Explanation) -> Path:
    """Where a run has an explanation."""

    return folder.explanation(explanation.attribution, explanation.shortcut_view)


def data_name(run: Run) -> str:
    """The data's name for display: for a folder, its last part."""

    data = run.config.data
    if Path(data).is_dir() or data.startswith((".", "/", "~")):
        return Path(data).name or data
    return short_name(data)


def evaluate_command(run: Run, *flags: str) -> str:
    """The command that evaluates a run with some flags."""

    return shlex.join(["asgt", "evaluate", str(run.folder), *flags, *run.config.own_code()])


def evaluate_again(run: Path, protocol: str, flags: str = "", *, view: str = "") -> str:
    """How to replace an evaluation by the protocol of a key, on one of the test sets."""

    folder = RunFolder(run)
    chosen = "--attack …" if protocol == OWN else f"--protocol {protocol}"
    again = folder.command("evaluate", chosen, flags, f"--shortcut-view {view}" if view else "")
    return f"remove {folder.evaluation(stored_name(protocol), view)}, then run {again}"


def refuse_other_model(path: Path | str, named: str) -> None:
    """Refuses a model that differs from the model of the run folder.

    Raises:
        InputError: the message names both.
    """

    folder = RunFolder(path)
    if folder.config.exists() and (stored := TrainConfig.load(folder.config).model) != named:
        raise InputError(f"{folder.path} contains a {stored}, not a {named}: remove --model")


def load_run(
    path: Path | str,
    *,
    allow: Collection[str] = (),
    trusted_model: str | None = None,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    data: Splits | tuple[LabelledImages, LabelledImages] | None = None,
    progress: Progress = SILENT,
) -> tuple[nn.Module, Splits, TrainConfig, TrainResult]:
    """The trained model of a run folder, in evaluation mode on the CPU, and its data.

    A relative path of the data is searched here first, and then in the place of the training.

    Args:
        path: the run folder.
        allow: the code that may run, because a run folder cannot allow it: exact names of the user's models, as
            ``package.module:factory``, or of modules, as ``package.module``. Default: none.
        trusted_model: deprecated, another name for ``allow``.
        model: the model that was passed to :func:`asgt.train` as an object; a module takes the weights of the run. For
            a run whose model was named, the network of that name, or its factory.
        data: the data that was passed to it as objects.
        progress: receives the number of decoded images.

    Returns:
        The model, the data, the configuration, and how the training ended.

    Raises:
        InputError: the run is not finished, its data has changed, or its model is not allowed.
        DamagedFileError: one of its files is damaged.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> model, data, config, result = asgt.load_run("run")
        >>> config.method, data.test.shape
        ('st', (1, 8, 8))
    """

    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise InputError(f"no such run folder {folder.path}: give an existing one")
    if not folder.config.exists():
        raise InputError(f"{folder.path} is not a run folder, because it has no config.yaml: give another one")

    config = TrainConfig.load(folder.config)
    result = folder.load_result()
    if model is None:
        refuse_unless_allowed(config.model, names_of(allow, trusted_model), str(folder.config))
    if data is None:
        refuse_object(config.data, str(folder.config), "data")

    splits = _recorded(config, result, progress) if data is None else as_splits(data)
    if data is not None and splits.test.digest() != result.test_data:
        raise InputError(f"the passed test images are not those of {path}: pass the test images of the training")
    if (manifest := Manifest.of(folder.path)) is not None:
        manifest.check(folder.model.name)
    head = result.start.get("head") or None

    def loaded(model: nn.Module | Callable[..., nn.Module] | None) -> nn.Module:
        with torch.random.fork_rng():
            built = build_from(config, splits, model, head, replaces=config.has_start or head is not None)
        load_weights(built, folder.model)
        return in_evaluation(built)

    try:
        return loaded(model), splits, config, result
    except InputError:
        if not isinstance(model, nn.Module) or ":" not in config.model or config.model.startswith(OBJECT):
            raise
    # Of a run whose model was named, the network may be passed without its normalisation.
    given = model
    return loaded(lambda: given), splits, config, result


def _recorded(config: TrainConfig, result: TrainResult, progress: Progress) -> Splits:
    """The data that a run was trained on, with its very test images; of the training images only what that takes.

    Raises:
        InputError: there is no such data, or it holds other images by now.
    """

    place: str | None = result.reading.get("place")
    settings: dict[str, Any] = config.data_settings() | {
        "limit": config.limit,
        "train": False,
        "channels": result.shape[0],
        "progress": progress,
    }
    other = _other_place(config.data, place)
    try:
        splits = load_data(config.data, **settings | ({} if place is None else {"place": place}))
        if splits.test.digest() == result.test_data:
            return splits
    except InputError as error:
        if other is None and place is not None and os.path.isabs(place) and not Path(place).exists():
            raise InputError(
                f"{error}; the training used {place}, which is missing, and {Path.cwd()} has none"
            ) from error
        if other is None:
            raise

    if other is not None:
        splits = load_data(other, **settings)
        if splits.test.digest() == result.test_data:
            return replace(splits, name=config.data)
        raise InputError(
            f"the test images are not those of this run, neither in {Path(config.data).resolve()} nor in {other}, "
            "where it was trained: they have changed"
        )
    trained = f"; it was trained on {place}" if place is not None and place != config.data else ""
    raise InputError(
        f"the test images of {config.data} are not those of this run: the data or ASGT_DATA changed{trained}"
    )


def _other_place(data: str, place: str | None) -> str | None:
    """Where a run found its data, if a relative path now leads elsewhere; ``None`` where it is the same or gone."""

    if place is None or os.path.isabs(data) or not Path(data).exists() or not Path(place).exists():
        return None
    return place if Path(data).resolve() != Path(place).resolve() else None
