"""Explains one model on some images: its maps, and every measure of each of them.

Each run is explained separately, on all images, whether classified correctly or not; :mod:`asgt.explanation.panels`
compares runs. So a run's evidence does not depend on other runs. All random draws are keyed by (seed, image, draw), so
that all models get the same orders, fills and perturbations.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import Norm, check_eps
from ..data import Images, LabelledImages, as_images, batch_that_fits, batches, refuse_other_classes
from ..errors import DamagedFileError, InputError
from ..evaluation.accuracy import class_count, predict
from ..files import digest_model, digest_tensors
from ..inputs import trusted
from ..locks import holds_nothing, locked
from ..modes import Classifier, precise
from ..numbers import Number, counted, number, whole
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed, seed_of, seeded_globally
from ..saliency import attribute, attribution_name, attribution_settings, magnitude
from ..saliency.attribution import Attribution
from .evidence import Explanation, load_explanation, read_values, write_explanation
from .gate import RANDOMISED, reinitialised
from .known_shortcut import KnownShortcut, known_shortcut, shortcut_words
from .measures import MEASURES, MapBatch, measures_under
from .measures.map_batch import Mapper
from .similarity import spearman_of_finite

__all__ = ["explain"]


def explain(
    model: nn.Module,
    images: LabelledImages,
    *,
    eps: Number,
    norm: Norm = "linf",
    attribution: str | Attribution = "gradient",
    layer: str | None = None,
    objects: Tensor | None = None,
    shortcut: Tensor | None = None,
    shortcut_view: str = "",
    ids: Tensor | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Explanation:
    """Measures the maps of a classifier on some images; each map explains the image's label.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: N test images, as :func:`asgt.data.as_images` takes them: :class:`asgt.Images`, a pair (images, labels)
            of tensors or numpy arrays, a ``Dataset`` or a ``DataLoader``.
        eps: the training ε, above zero, of the compared methods; stability is measured at a quarter of it and at
            its full value.
        norm: its norm.
        attribution: the attribution of the maps: a name of :data:`asgt.saliency.ATTRIBUTIONS`, or your own class as
            ``package.module:Class``, with its default settings; or an instance of either.
        layer: for an attribution of a layer, such as ``"gradcam"``, the dotted name of the module. Default: found for
            models of asgt.
        objects: where the object is, bool (N, H, W), as of :func:`asgt.explanation.strokes`. Default: not known, and
            the mass on it is not run.
        shortcut: where a shortcut lies, bool (N, H, W). Default: images in which :func:`asgt.data.plant` or
            :func:`asgt.data.shortcut_view` planted one tell it; of others it is not known, and nothing is measured on
            it.
        shortcut_view: which of :func:`asgt.data.shortcut_views` these are, for the record. Default: what they are; of
            images with a mask, none of them.
        ids: the rows of the test split that the images are, int64 (N,), which key the noise. Default: 0 … N − 1.
        seed: keys it too.
        batch_size: images, or perturbed copies of them, in a pass. Default: 64, fewer large ones.
        folder: where to keep the evidence, as ``RUN/explanation/gradient``. Default: nowhere.
        resume: take what ``folder`` holds, if it was made of the same model, images and settings.
        progress: is told how many images are through.

    Raises:
        InputError: the model, the images, a setting or the folder is invalid.

    Example:
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> digits = asgt.load_data("digits").test[:8]
        >>> explanation = asgt.explain(model, digits, eps=0.1, objects=asgt.strokes(digits))
        >>> explanation.samples, explanation.per_image("sparseness").shape
        (8, torch.Size([8]))
    """

    images, eps, seed = as_images(images, "images"), number(eps, "eps"), whole(seed, "seed")
    default = batch_that_fits(images, 64)
    batch_size = default if batch_size is None else whole(batch_size, "batch_size")
    ids = torch.arange(len(images)) if ids is None else ids.cpu()
    _check(model, images, objects=objects, ids=ids, batch_size=batch_size)
    _check_eps(eps, norm)
    known = known_shortcut(images, shortcut, shortcut_view)
    name, mapper = attribution_name(attribution), _mapper(attribution, layer, seed, batch_size)
    settings = _plain(
        attribution_settings(attribution, layer=layer, model=model), _settings(images, objects, known), name
    )
    asked = Explanation(
        attribution=name,
        settings=settings,
        eps=float(eps),
        norm=norm,
        seed=seed,
        model=digest_model(model),
        data=images.digest(),
        ids=ids,
        labels=images.labels.cpu(),
        predictions=torch.empty(0),
        values={},
        gate=torch.empty(0),
        notes=(),
        seconds=0.0,
        batch_size=batch_size,
    )
    folder = None if folder is None else Path(folder)
    with nullcontext() if folder is None else locked(folder, "asgt explain", progress=progress):
        if folder is not None and (kept := _claimed(folder, asked, resume)) is not None:
            progress.say(f"{folder}: already explained")
            return kept
        explanation = _explained(
            asked, model, images, mapper=mapper, objects=objects, shortcut=known, progress=progress
        )
        if folder is not None:
            write_explanation(folder, explanation)
    return explanation


def _explained(
    asked: Explanation,
    model: nn.Module,
    images: Images,
    *,
    mapper: Mapper,
    objects: Tensor | None,
    shortcut: KnownShortcut | None,
    progress: Progress,
) -> Explanation:
    """What was asked for, measured on every image."""

    began = time.perf_counter()
    device, seed = images.labels.device, asked.seed
    progress.start(f"explaining by {asked.attribution}", len(images))
    # A model that draws from the global generators draws the same again, and leaves them as they were.
    with trusted(), seeded_globally(seed_of("explanation", seed), device):
        if (largest := int(images.labels.max())) >= (classes := class_count(model, images)):
            raise InputError(f"label {largest} is out of range: the model has {classes} classes, numbered from 0")
        refuse_other_classes(images, classes)
        random = [reinitialised(model, seed_of("gate", seed, number)) for number in range(RANDOMISED)]
        why = next((why for _, why in random if why), "")
        copies = [copy for copy, _ in random if copy is not None and not why]
        parts = [
            _measured(batch, own, copies)
            for batch, own in _batches(
                model, images, asked, mapper=mapper, objects=objects, shortcut=shortcut, progress=progress
            )
        ]
    progress.stop()

    explanation = _joined(asked, parts)
    seconds = round(time.perf_counter() - began, 3)
    return replace(explanation, seconds=seconds, notes=_notes(explanation, why))


def _mapper(attribution: str | Attribution, layer: str | None, seed: int, batch_size: int) -> Mapper:
    """What makes the maps; the noise of one that draws any is the image's own, the same before and after an attack."""

    def mapper(model: Classifier, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        noise = SampleKeyed(seed_of("attribution", seed), ids)
        return attribute(model, x, y, attribution, layer=layer, generator=noise, batch_size=batch_size)

    return mapper


def _settings(images: Images, objects: Tensor | None, shortcut: KnownShortcut | None) -> dict[str, Any]:
    """What the measures are computed by, in plain values."""

    planted = {} if shortcut is None else {"shortcut": shortcut.record()}
    settings: dict[str, Any] = {}
    for measure in measures_under(planted):
        settings |= measure.settings
    return settings | {
        "mean": images.mean_std()[0],
        "randomised": RANDOMISED,
        "objects": "" if objects is None else digest_tensors({"objects": objects}),
        **planted,
    }


def _batches(
    model: nn.Module,
    images: Images,
    asked: Explanation,
    *,
    mapper: Mapper,
    objects: Tensor | None,
    shortcut: KnownShortcut | None,
    progress: Progress,
) -> Iterator[tuple[MapBatch, dict[str, Tensor]]]:
    """The batches with their maps, and what is kept of each image whatever the measures, the last dimension B."""

    mean = torch.tensor(asked.settings["mean"], device=images.labels.device).view(-1, 1, 1)
    first = 0
    for x, y in batches(images, asked.batch_size):
        rows = slice(first, first + len(y))
        ids = asked.ids[rows].to(y.device)
        own = {"predictions": predict(model, x)}
        a = mapper(model, x, y, ids)
        own["finite"] = a.flatten(1).isfinite().all(dim=1)
        # What is not finite is left out in the end; until then it must not disturb the others.
        a = a.where(own["finite"].view(-1, 1, 1, 1), 0.0)
        own["norm"] = precise(a.flatten(1)).norm(dim=1)
        yield (
            MapBatch(
                model=model,
                x=x,
                y=y,
                ids=ids,
                a=a,
                mean=mean,
                objects=None if objects is None else objects[rows].to(y.device),
                eps=asked.eps,
                norm=asked.norm,
                seed=asked.seed,
                mapper=mapper,
                batch_size=asked.batch_size,
                shortcut=None if shortcut is None else shortcut.mask[rows].to(y.device),
            ),
            own,
        )
        first += len(y)
        progress.advance(len(y))


def _measured(batch: MapBatch, own: Mapping[str, Tensor], copies: Sequence[nn.Module]) -> dict[str, Tensor]:
    """What is kept of a batch as it goes to disk: ``own``, of every measure, and of the re-initialised models."""

    kept = dict(own)
    for measure in MEASURES:
        is_known = (batch.objects is not None or not measure.needs_objects) and (
            batch.shortcut is not None or not measure.needs_shortcut
        )
        # Measures may share what they keep.
        if is_known and not measure.is_in(kept):
            computed = measure.compute(batch)
            assert computed.keys() == measure.keeps.keys(), (
                f"{measure.name} computes other tensors than those in keeps: make them equal"
            )
            kept |= computed

    drawn = [magnitude(batch.mapper(copy, batch.x, batch.y, batch.ids)) for copy in copies]
    kept["gate"] = _stacked([spearman_of_finite(batch.m, other) for other in drawn], len(batch.y))
    kept["between"] = _stacked(
        [spearman_of_finite(first, second) for first, second in combinations(drawn, 2)], len(batch.y)
    )
    return {name: _kept(value) for name, value in kept.items()}


def _joined(asked: Explanation, parts: Sequence[Mapping[str, Tensor]]) -> Explanation:
    """The explanation that was asked for, with what was measured batch by batch."""

    values = {name: torch.cat([part[name] for part in parts], dim=-1) for name in parts[0]}
    return replace(asked, predictions=values.pop("predictions"), gate=values.pop("gate"), values=values)


def _stacked(rows: Sequence[Tensor], count: int) -> Tensor:
    """Some rows of ``count`` values; none where the gate was not run."""

    return torch.stack(list(rows)) if rows else torch.empty(0, count, dtype=torch.float64)


def _kept(value: Tensor) -> Tensor:
    """As it goes to disk: on the CPU, numbers in float64."""

    return value.cpu().double() if value.is_floating_point() else value.cpu()


def _noted() -> dict[str, set[str]]:
    """What the notes say that images lack, and the tensors whose NaN tell it."""

    noted: dict[str, set[str]] = {}
    for measure in MEASURES:
        if measure.undefined:
            names = {name for name, (kind, _) in measure.keeps.items() if kind.is_floating_point}
            noted.setdefault(measure.undefined, set()).update(names)
    return noted


def _notes(explanation: Explanation, why: str) -> tuple[str, ...]:
    """What a reader of the figures must know."""

    samples, values = explanation.samples, explanation.values
    finite = values["finite"]
    zero = finite & (values["norm"] == 0)
    notes = []
    if bad := int((~finite).sum()):
        notes.append(f"{bad} of {counted(samples, 'map')} hold NaN or infinity: these images are omitted")
    if int(zero.sum()):
        notes.append(
            f"{int(zero.sum())} of {counted(samples, 'map')} are zero everywhere: they have no rank, cosine or mass"
        )
    for title, names in _noted().items():
        lacking = [values[name].isnan().reshape(-1, samples).any(dim=0) for name in names if name in values]
        if lacking and (count := int((torch.stack(lacking).any(dim=0) & finite & ~zero).sum())):
            notes.append(f"{count} of {counted(samples, 'map')} have no {title}")
    notes += [
        f"{measure.title}: NOT RUN: the mask of the object was not given"
        for measure in MEASURES
        if measure.needs_objects and not measure.is_in(values)
    ]
    if why:
        notes.append(f"gate: NOT RUN: {why}")
    elif blank := int((explanation.gate.isnan().any(dim=0) & finite & ~zero).sum()):
        notes.append(f"gate: the map of a re-initialised model is constant on {counted(blank, 'image')}")
    return tuple(notes)


def _claimed(folder: Path, asked: Explanation, resume: bool) -> Explanation | None:
    """The finished explanation that a folder holds of what is asked; ``None`` where it is still to be made.

    Raises:
        InputError: the folder holds something else, or it is not to be resumed.
    """

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder")
    if holds_nothing(folder):
        return None
    if not resume:
        raise InputError(
            f"{folder} already holds an explanation: continue it with --resume, or remove it to explain again"
        )

    other = InputError(
        f"{folder} was made with another model, other images or other settings: remove it to explain again"
    )
    if (folder / "result.json").is_file():
        finished = load_explanation(folder)
        there, here = (each.settings.get("shortcut") for each in (finished, asked))
        if there != here and (said := shortcut_words(there)) != shortcut_words(here):
            raise InputError(
                f"{folder} was made with {said}, not with {shortcut_words(here)}: remove it to explain again"
            )
        if any(getattr(finished, name) != getattr(asked, name) for name in _IDENTITY):
            raise other
        if not finished.ids.equal(asked.ids):
            raise other
        return finished
    # Values without a result are those of a run that was stopped between the two: they are made again.
    if (folder / "values.safetensors").is_file():
        try:
            stopped = read_values(folder, asked)
        except DamagedFileError:
            return None
        if stopped is None or not stopped.ids.equal(asked.ids):
            raise other
    return None


_IDENTITY = ("attribution", "settings", "eps", "norm", "seed", "model", "data")


def _check(model: nn.Module, images: Images, *, objects: Tensor | None, ids: Tensor, batch_size: int) -> None:
    """Refuses a model and images that could not be explained."""

    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {type(model).__name__}: pass an nn.Module")
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: must be at least 1")
    if ids.dtype != torch.int64 or ids.shape != images.labels.shape or len(ids.unique()) != len(ids):
        raise InputError(f"ids are {ids.dtype} {tuple(ids.shape)}: expected int64 ({len(images)},), each once")
    expected = (len(images), *images.shape[1:])
    if objects is not None and (objects.dtype != torch.bool or tuple(objects.shape) != expected):
        raise InputError(f"objects are {objects.dtype} {tuple(objects.shape)}: expected bool {expected}")


def _check_eps(eps: float, norm: Norm) -> None:
    check_eps(eps, norm)
    if eps == 0:
        raise InputError("eps = 0: stability is measured under attack; give the training eps of the methods compared")


def _plain(of_maps: Mapping[str, Any], of_measures: Mapping[str, Any], attribution: str) -> dict[str, Any]:
    """All settings as a record holds them.

    Raises:
        InputError: a setting of the attribution is no plain value, or has the name of one of the measures.
    """

    for name, value in of_maps.items():
        if name in of_measures:
            raise InputError(
                f"attribution {attribution}: its setting {name} has the name of a setting of the measures: rename it"
            )
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"attribution {attribution}: its setting {name} = {value!r} is no plain value") from error
    settings: dict[str, Any] = json.loads(json.dumps({**of_maps, **of_measures}))
    return settings
