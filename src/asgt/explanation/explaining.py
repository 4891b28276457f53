"""One model explained on some images: its maps, and what every measure says of each of them.

Each run is explained by itself, on all images, right or wrong; comparing comes later (:mod:`asgt.explanation.panels`).
So a run's evidence does not depend on which others it is held against. All that is random is keyed by (seed, image,
draw), so that all models see the same orders, fills and perturbations.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import PGD, Norm, check_eps
from ..data import Images, LabelledImages, as_images, batches
from ..errors import InputError
from ..evaluation.accuracy import class_count, predict
from ..files import digest_model, digest_tensors
from ..inputs import trusted
from ..modes import Classifier, precise
from ..numbers import Number, counted, number, whole
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed, seed_of, seeded_globally
from ..saliency import attribute, attribution_settings, magnitude
from .evidence import Explanation, load_explanation, read_values, write_explanation
from .gate import RANDOMISED, reinitialised
from .hiding import RANDOM_ORDERS, right_when_hidden, right_when_imputed
from .measures import QUANTILES
from .road import NOISE
from .sensitivity import DRAWS, RADIUS, Mapper, max_sensitivity
from .similarity import cosine, gini, order_of, spearman, top_overlap

__all__ = ["STEPS", "explain"]

STEPS = 20
"""The steps of the PGD under which stability is measured."""


def explain(
    model: nn.Module,
    images: LabelledImages,
    *,
    eps: Number,
    norm: Norm = "linf",
    attribution: str = "gradient",
    layer: str | None = None,
    objects: Tensor | None = None,
    ids: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
    folder: Path | str | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Explanation:
    """Measures the maps of a classifier on some images, right or wrong; each map is that of the image's label.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: N test images, as :func:`asgt.data.as_images` takes them: :class:`asgt.Images`, a pair (images, labels)
            of tensors or numpy arrays, a ``Dataset`` or a ``DataLoader``.
        eps: the training ε, above zero, of the methods that are to be compared; stability is measured at a quarter of
            it and at all of it.
        norm: its norm.
        attribution: what makes the maps, a name of :data:`asgt.saliency.ATTRIBUTIONS`, with its default settings.
        layer: for ``"gradcam"``, the dotted name of the module that it looks at. Default: found for models of asgt.
        objects: where the object is, bool (N, H, W), as of :func:`asgt.explanation.strokes`. Default: not known, and
            the mass on it is not run.
        ids: the rows of the test split that the images are, int64 (N,), which key the noise. Default: 0 … N − 1.
        seed: keys it too.
        batch_size: images, or perturbed copies of them, in a pass.
        folder: where to keep the evidence, as ``RUN/explanation/gradient``. Default: nowhere.
        resume: take what ``folder`` holds, if it was made of the same model, images and settings.
        progress: is told how many images are through.

    Raises:
        InputError: the model, the images, a setting or the folder does not fit.
    """

    images, eps, seed = as_images(images, "images"), number(eps, "eps"), whole(seed, "seed")
    batch_size = whole(batch_size, "batch_size")
    ids = torch.arange(len(images)) if ids is None else ids.cpu()
    _check(model, images, eps, norm, objects, ids, batch_size)
    mapper = _mapper(attribution, layer, seed, batch_size)
    asked = Explanation(
        attribution=attribution,
        settings=attribution_settings(attribution, layer=layer, model=model) | _settings(images, objects),
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
    if folder is not None and (kept := _claimed(folder, asked, resume)) is not None:
        progress.say(f"{folder}: explained already")
        return kept

    began = time.perf_counter()
    device = images.labels.device
    progress.start(f"explaining by {attribution}", len(images))
    # A model that draws from the global generators draws the same again, and leaves them as they were.
    with trusted(), seeded_globally(seed_of("explanation", seed), device):
        if (largest := int(images.labels.max())) >= (classes := class_count(model, images)):
            raise InputError(f"label {largest} is out of range: the model tells {classes} classes apart, from 0")
        random = [reinitialised(model, seed_of("gate", seed, number)) for number in range(RANDOMISED)]
        why = next((why for _, why in random if why), "")
        found = _measured(
            model,
            images,
            asked,
            mapper,
            objects,
            [copy for copy, _ in random if copy is not None and not why],
            progress,
        )
    progress.stop()

    found = replace(found, seconds=round(time.perf_counter() - began, 3), notes=_notes(found, why))
    if folder is not None:
        write_explanation(folder, found)
    return found


def _mapper(attribution: str, layer: str | None, seed: int, batch_size: int) -> Mapper:
    """What makes the maps; the noise of one that draws any is the image's own, the same before and after an attack."""

    def mapper(model: Classifier, x: Tensor, y: Tensor, ids: Tensor) -> Tensor:
        noise = SampleKeyed(seed_of("attribution", seed), ids)
        return attribute(model, x, y, attribution, layer=layer, generator=noise, batch_size=batch_size)

    return mapper


def _settings(images: Images, objects: Tensor | None) -> dict[str, Any]:
    """What the measures are made by, in plain values."""

    return {
        "quantiles": list(QUANTILES),
        "random_orders": RANDOM_ORDERS,
        "mean": images.mean_std()[0],
        "fills": {"mean": "the images' mean per channel", "noise": "uniform in [0, 1], one draw an image"},
        "imputation": {"name": "noisy linear", "noise": NOISE, "clipped": False},
        "sensitivity": {"radius": RADIUS, "draws": DRAWS, "clipped": False},
        "attack": {"name": f"PGD-{STEPS}", "alpha": "2.5 eps / steps", "random_start": True, "eps": ["eps / 4", "eps"]},
        "overlap": 0.1,
        "randomised": RANDOMISED,
        "objects": "" if objects is None else digest_tensors({"objects": objects}),
    }


def _measured(
    model: nn.Module,
    images: Images,
    asked: Explanation,
    mapper: Mapper,
    objects: Tensor | None,
    random: Sequence[nn.Module],
    progress: Progress,
) -> Explanation:
    """Everything that is measured, batch by batch."""

    mean = torch.tensor(asked.settings["mean"], device=images.labels.device).view(-1, 1, 1)
    predictions, gates = [], []
    values: dict[str, list[Tensor]] = defaultdict(list)
    first = 0
    for x, y in batches(images, asked.batch_size):
        rows = slice(first, first + len(y))
        ids = asked.ids[rows].to(y.device)
        predictions.append(predict(model, x))

        a = mapper(model, x, y, ids)
        finite = a.flatten(1).isfinite().all(dim=1)
        # What is not finite is left out in the end; until then it must not disturb the others.
        a = a.where(finite.view(-1, 1, 1, 1), 0.0)
        m = magnitude(a)

        own = _of_the_map(x, a, m, mean, None if objects is None else objects[rows].to(y.device))
        # Ties fall differently before and after an attack: maps of mostly zeros must not share their tops by the order.
        ties = SampleKeyed(seed_of("ties", asked.seed), ids)
        top = order_of(m, ties)
        own |= _of_hidden_pixels(model, x, y, top, mean, ids, asked.seed)
        own["sensitivity"] = max_sensitivity(
            model,
            x,
            y,
            attribution=mapper,
            ids=ids,
            seed=seed_of("sensitivity", asked.seed),
            batch_size=asked.batch_size,
        )
        own |= _under_attack(model, x, y, a, m, top, ties, asked, mapper)
        own["finite"] = finite
        for name, value in own.items():
            values[name].append(_kept(value))

        drawn = [magnitude(mapper(copy, x, y, ids)) for copy in random]
        gates.append(_stacked([_rank(m, other) for other in drawn], len(y)))
        values["between"].append(_stacked([_rank(one, other) for one, other in combinations(drawn, 2)], len(y)))
        first += len(y)
        progress.advance(len(y))

    return replace(
        asked,
        predictions=torch.cat(predictions).cpu(),
        values={name: torch.cat(parts, dim=-1) for name, parts in values.items()},
        gate=torch.cat(gates, dim=-1),
    )


def _of_the_map(x: Tensor, a: Tensor, m: Tensor, mean: Tensor, objects: Tensor | None) -> dict[str, Tensor]:
    """What is said of the map alone: no further pass of the model."""

    found = {
        "norm": precise(a.flatten(1)).norm(dim=1),
        "sparseness": gini(a),
        "alignment": cosine(x - mean, a).abs(),
    }
    if objects is not None:
        mass, area = precise(m), precise(objects).mean(dim=(1, 2))
        share = (mass * objects).sum(dim=(1, 2)) / mass.sum(dim=(1, 2))
        # Nothing can lie on an object that has no pixels.
        found |= {"mass": share.masked_fill(area == 0, torch.nan), "area": area}
    return found


def _of_hidden_pixels(
    model: nn.Module, x: Tensor, y: Tensor, top: Tensor, mean: Tensor, ids: Tensor, seed: int
) -> dict[str, Tensor]:
    """Whether the images are right with pixels hidden, by fill and order."""

    draws = SampleKeyed(seed_of("orders", seed), ids)
    random = torch.stack([draws.uniform_like(x[:, 0].flatten(1)).argsort(dim=1) for _ in range(RANDOM_ORDERS)])
    noise = SampleKeyed(seed_of("fill", seed), ids).uniform_like(x)

    found = right_when_hidden(model, x, y, {"top": top, "random": random}, {"mean": mean, "noise": noise})
    return found | right_when_imputed(model, x, y, top, SampleKeyed(seed_of("imputation", seed), ids))


def _under_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    a: Tensor,
    m: Tensor,
    top: Tensor,
    ties: SampleKeyed,
    asked: Explanation,
    mapper: Mapper,
) -> dict[str, Tensor]:
    """What the model's own attack leaves of its maps, (2, B): at a quarter of ε, and at ε."""

    ids = ties.samples
    rows: dict[str, list[Tensor]] = defaultdict(list)
    for eps in (asked.eps / 4, asked.eps):
        attack = PGD(eps=eps, norm=asked.norm, steps=STEPS)
        x_adv = attack(model, x, y, generator=SampleKeyed(seed_of("attack", asked.seed), ids))
        a_adv = mapper(model, x_adv, y, ids)
        m_adv = magnitude(a_adv)

        rows["flipped"].append(predict(model, x_adv, "attacked images") != y)
        rows["rank"].append(_rank(m, m_adv))
        rows["cosine"].append(cosine(a, a_adv))
        blank = ~(m.flatten(1).amax(dim=1) > 0) | ~(m_adv.flatten(1).amax(dim=1) > 0)
        rows["overlap"].append(top_overlap(top, order_of(m_adv, ties)).masked_fill(blank, torch.nan))
    return {name: torch.stack(found) for name, found in rows.items()}


def _rank(m: Tensor, other: Tensor) -> Tensor:
    """Spearman's correlation; NaN where either map is not finite, whose order means nothing."""

    finite = m.flatten(1).isfinite().all(dim=1) & other.flatten(1).isfinite().all(dim=1)
    return spearman(m, other).masked_fill(~finite, torch.nan)


def _stacked(rows: Sequence[Tensor], count: int) -> Tensor:
    """Some rows of ``count`` values as they go to disk; none where the gate was not run."""

    return _kept(torch.stack(list(rows))) if rows else torch.empty(0, count, dtype=torch.float64)


def _kept(value: Tensor) -> Tensor:
    """As it goes to disk: on the CPU, numbers in float64."""

    return value.cpu().double() if value.is_floating_point() else value.cpu()


def _notes(found: Explanation, why: str) -> tuple[str, ...]:
    """What a reader of the figures must know."""

    samples, values = found.samples, found.values
    finite = values["finite"]
    zero = finite & (values["norm"] == 0)
    notes = []
    if bad := int((~finite).sum()):
        notes.append(f"{bad} of {counted(samples, 'map')} hold NaN or infinity: these images are left out")
    if int(zero.sum()):
        notes.append(
            f"{int(zero.sum())} of {counted(samples, 'map')} are zero everywhere: they have no rank, cosine or mass"
        )
    for name, title in (("rank", "rank correlation"), ("sensitivity", "sensitivity"), ("alignment", "alignment")):
        undefined = (values[name].isnan().reshape(-1, samples).any(dim=0) & finite & ~zero).sum()
        if int(undefined):
            notes.append(f"{int(undefined)} of {counted(samples, 'map')} more have no {title}")
    if "mass" not in values:
        notes.append("mass on the object: NOT RUN: where the object is was not given")
    if why:
        notes.append(f"gate: NOT RUN: {why}")
    elif blank := int((found.gate.isnan().any(dim=0) & finite & ~zero).sum()):
        notes.append(f"gate: the map of a re-initialised model ranks nothing on {counted(blank, 'image')}")
    return tuple(notes)


def _claimed(folder: Path, asked: Explanation, resume: bool) -> Explanation | None:
    """The finished explanation that a folder holds of what is asked; ``None`` where it is still to be made.

    Raises:
        InputError: the folder holds something else, or it is not to be resumed.
    """

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: an explanation takes a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return None
    if not resume:
        raise InputError(f"{folder} holds an explanation already: --resume takes it up; remove it to explain anew")

    other = InputError(f"{folder} was made of another model, other images or other settings: remove it to explain anew")
    if (folder / "result.json").is_file():
        finished = load_explanation(folder)
        if any(getattr(finished, name) != getattr(asked, name) for name in _IDENTITY):
            raise other
        if not finished.ids.equal(asked.ids):
            raise other
        return finished
    # Values without a result are those of a run that was stopped between the two: they are made again.
    if (folder / "values.safetensors").is_file():
        stopped = read_values(folder, asked)
        if stopped is None or not stopped.ids.equal(asked.ids):
            raise other
    return None


_IDENTITY = ("attribution", "settings", "eps", "norm", "seed", "model", "data")


def _check(
    model: nn.Module,
    images: Images,
    eps: float,
    norm: Norm,
    objects: Tensor | None,
    ids: Tensor,
    batch_size: int,
) -> None:
    """Refuses what could not be explained."""

    if not isinstance(model, nn.Module):
        raise InputError(f"the model is {type(model).__name__}: an explanation takes an nn.Module")
    check_eps(eps, norm)
    if eps == 0:
        raise InputError("eps = 0: stability is measured under attack; give the training eps of the methods compared")
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: at least one image a pass")
    if ids.dtype != torch.int64 or ids.shape != images.labels.shape or len(ids.unique()) != len(ids):
        raise InputError(f"ids are {ids.dtype} {tuple(ids.shape)}: expected int64 ({len(images)},), each once")
    expected = (len(images), *images.shape[1:])
    if objects is not None and (objects.dtype != torch.bool or tuple(objects.shape) != expected):
        raise InputError(f"objects are {objects.dtype} {tuple(objects.shape)}: expected bool {expected}")
