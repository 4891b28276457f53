"""Maps from the models: maps of a few images and of many, and the distribution of their gradients.

Each method is shown by the model of its first seed. A model that cannot be loaded (its data are missing, or its
code is the user's) is omitted with a note.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..attacks import Norm
from ..data import Images, PlantedPixels, batch_that_fits, batches, sampled_rows, to_unit
from ..errors import DamagedFileError, InputError
from ..explanation.known_shortcut import planted_again
from ..explanation.map_grid import saliency_maps
from ..explanation.shown_maps import SaliencyMaps
from ..names import refuse_unless_allowed, viewed
from ..numbers import counted
from ..runs.run import load_run
from ..saliency import saliency
from .explained import Explained
from .gradient_values import GradientValues, gradient_values_of
from .method_naming import Method

__all__ = ["BLOCKS", "Pictures", "block_maps", "pictures_of"]

BLOCKS = 3
"""Images that are drawn together with their attacked versions."""

_CONTACT = 48
_GRADIENTS, _VALUES = 256, 2**24
"""The number of images whose gradients are counted, and the largest total number of values."""


@dataclass(frozen=True)
class Pictures:
    """The figures of some methods.

    Attributes:
        shown: by attribution, the gradient's first: the first test image of each of the first ten classes, with its
            attacked self; empty without models. Where runs were explained on images with a shortcut, these are shown
            too, by attribution and view, as ``gradient+aligned``.
        contact: the first test images, as they are (without an attack); ``None`` without models.
        gradients: the distributions of the gradient's values; ``None`` without models, and where no gradient is finite
            and not zero.
        missing: sentences on methods, or attributions, that have no picture.
    """

    shown: dict[str, SaliencyMaps]
    contact: SaliencyMaps | None
    gradients: GradientValues | None
    missing: tuple[str, ...]


def pictures_of(
    methods: Sequence[Method],
    *,
    eps: float,
    norm: Norm,
    samples: int | None = None,
    explained: Sequence[Explained] = (),
    allow: Collection[str] = (),
) -> Pictures:
    """Makes them.

    Args:
        methods: finished runs on the same data.
        eps: the radius of each model's own attack.
        norm: its norm.
        samples: the number of test images to choose from. Default: all.
        explained: the attributions that are drawn in addition to the gradient. The gradients' distributions use the
            images that all models classify correctly, or else the first test images.
        allow: whose code may run, as :func:`asgt.runs.run.load_run` takes it.
    """

    models: dict[str, nn.Module] = {}
    missing = []
    test: Images | None = None
    for method in methods:
        run = method.runs[0]
        try:
            models[method.name], data, _, _ = load_run(run.folder, allow=allow)
        except InputError as error:
            missing.append(f"{method.name}: {error}")
            continue
        test = test or data.test
    if test is None:
        return Pictures({}, None, None, tuple(missing))

    among = len(test) if samples is None else min(samples, len(test))
    seeds = {method.name: method.runs[0].seed for method in methods}
    draw = partial(_drawn, models, seeds, norm=norm)
    first, views = _one_a_class(test, among), _views(test, explained, missing)
    shown = {viewed("gradient", view): draw(images, rows=first, eps=eps) for view, images in views.items()}
    for each in explained:
        if each.name not in shown and each.panel.shortcut_view in views:
            try:
                # The name is that of a run folder, which may run no code by itself.
                refuse_unless_allowed(each.attribution, allow, "an explanation", what="attribution", flag=None)
                shown[each.name] = draw(
                    views[each.panel.shortcut_view],
                    rows=first,
                    attribution=each.attribution,
                    layer=each.panel.settings.get("layer"),
                    eps=eps,
                )
            except InputError as error:
                missing.append(f"{each.name}: {error}")

    rows, whose = _shown_rows(test, among, explained)
    images = next(iter(views.values()))
    gradients = {name: _gradients(model, images[rows]) for name, model in models.items()}
    return Pictures(
        shown,
        draw(images, rows=sampled_rows(test, min(_CONTACT, among))),
        gradient_values_of(gradients, whose),
        tuple(missing),
    )


def _views(test: Images, explained: Sequence[Explained], missing: list[str]) -> dict[str, Images]:
    """The test images that are shown, by the view of their shortcut; the first are those of the first explanation.

    Args:
        test: the test images as they are, which are shown where none was explained.
        explained: what was explained.
        missing: gets a sentence on each view that cannot be made again.
    """

    views = {}
    for each in explained:
        view = each.panel.shortcut_view
        if view not in views:
            try:
                views[view] = planted_again(test, each.panel.settings["shortcut"]) if view else test
            except InputError as error:
                missing.append(f"{each.name}: {error}")
    return views or {"": test}


def block_maps(
    model: nn.Module, test: Images, *, name: str, seed: int, eps: float, norm: Norm, samples: int | None = None
) -> SaliencyMaps:
    """One model's part of the figure: its gradient on the images of the blocks.

    Args:
        model: on the CPU.
        test: the test split.
        name: of its method.
        seed: of its run.
        eps: the radius of the attack.
        norm: its norm.
        samples: how many of the test images there are to choose from. Default: all.
    """

    rows = _one_a_class(test, len(test) if samples is None else samples, BLOCKS)
    return _drawn({name: model}, {name: seed}, test, norm=norm, rows=rows, eps=eps)


def _drawn(
    models: dict[str, nn.Module],
    seeds: dict[str, int],
    test: Images,
    *,
    norm: Norm,
    rows: Tensor,
    attribution: str = "gradient",
    layer: str | None = None,
    eps: float | None = None,
) -> SaliencyMaps:
    """The maps of some models on some rows of the test split, which may have a shortcut.

    Without ``eps`` they are not attacked.
    """

    images = test[rows]
    return saliency_maps(
        models,
        to_unit(images.pixels),
        images.labels,
        classes=images.classes,
        seeds=seeds,
        attribution=attribution,
        layer=layer,
        eps=eps,
        norm=norm,
        rows=rows,
        shortcut=images.pixels.masks() if isinstance(images.pixels, PlantedPixels) else None,
    )


def _shown_rows(test: Images, among: int, explained: Sequence[Explained]) -> tuple[Tensor, str]:
    """The rows whose gradients are shown, and what they are in words."""

    most = batch_that_fits(test, _GRADIENTS, _VALUES)
    if explained and not explained[0].panel.not_run:
        rows = explained[0].panel.ids[:most]
        if int(rows.max()) >= len(test):
            raise DamagedFileError(
                f"an explanation is damaged: it is of test image {int(rows.max())} of {len(test)}: explain again"
            )
        return rows, f"{counted(len(rows), 'image')} correct under all models, first seeds"
    rows = sampled_rows(test, min(most, among))
    return rows, f"{counted(len(rows), 'image')}, correct or not, first seeds"


def _gradients(model: nn.Module, images: Images) -> Tensor:
    return torch.cat([saliency(model, x, y) for x, y in batches(images, batch_that_fits(images, 64))])


def _one_a_class(test: Images, among: int, count: int = 10) -> Tensor:
    """The row of the first image of each of the first classes, among so many."""

    rows = sampled_rows(test, among)
    images = test[rows]
    present = images.labels.unique()[:count]
    return rows[torch.stack([(images.labels == label).nonzero()[0, 0] for label in present])]
