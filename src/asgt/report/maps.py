"""Saliency maps of the same images under every method, for the eye; nothing here measures them."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..data import Images, sample, to_unit
from ..errors import InputError
from ..evaluation.accuracy import predict
from ..names import is_foreign
from ..saliency import saliency
from ..training.run import load_run
from .comparison import Comparison
from .figures import house_style, write_figure

__all__ = ["RULE", "MapRow", "SaliencyMaps", "draw_maps", "map_words", "saliency_maps", "write_maps"]

RULE = (
    "magnitude of the gradient of the true label's logit, mean over channels; each map by its own scale, black at 0 "
    "and brightest at its 99th percentile and above"
)
"""How a map is made and coloured, in words."""


@dataclass(frozen=True)
class MapRow:
    """The maps of one method.

    Attributes:
        method: its name.
        seed: of the run whose model they are of.
        magnitude: the mean of \\|gradient\\| over the channels, float (N, H, W).
        predictions: what the model says of each image, int64 (N,).
    """

    method: str
    seed: int
    magnitude: Tensor
    predictions: Tensor


@dataclass(frozen=True)
class SaliencyMaps:
    """The same images under several models.

    Attributes:
        images: N test images.
        rows: a row a method.
        missing: sentences on methods that have no row.
    """

    images: Images | None
    rows: tuple[MapRow, ...]
    missing: tuple[str, ...]


def saliency_maps(comparison: Comparison, count: int = 10, trusted_model: str | None = None) -> SaliencyMaps:
    """The maps of the first test image of each of the first ``count`` classes, under each method's first seed.

    A model that cannot be had (its data is not here, or its code is the user's own) is left out, and said so.

    Args:
        comparison: the methods.
        count: how many images, at most.
        trusted_model: the user's own ``package.module:factory``, named again.
    """

    images: Images | None = None
    rows, missing = [], []
    for method in comparison.methods:
        run = method.runs[0]
        try:
            named = trusted_model if is_foreign(run.config.model) else None
            model, data, _, _ = load_run(run.folder, trusted_model=named)
        except InputError as error:
            missing.append(f"{method.name}: {error}")
            continue
        if images is None:
            images = _one_a_class(sample(data.test, comparison.samples), count)
        x, y = to_unit(images.pixels), images.labels
        magnitude = saliency(model, x, y).abs().mean(dim=1)
        rows.append(MapRow(method.name, run.seed, magnitude, predict(model, x)))
    return SaliencyMaps(images, tuple(rows), tuple(missing))


def draw_maps(magnitude: Tensor) -> tuple[Tensor, str]:
    """A map as grey values, and what is wrong with it.

    Args:
        magnitude: float (H, W), at least 0.

    Returns:
        uint8 (H, W) by the scale of :data:`RULE`; and ``""``, ``"all zero"`` or ``"not finite"``, where it is blank.
    """

    blank = torch.zeros(magnitude.shape, dtype=torch.uint8)
    if not torch.isfinite(magnitude).all():
        return blank, "not finite"
    if not (magnitude > 0).any():
        return blank, "all zero"
    top = magnitude.flatten().double().quantile(0.99)
    # A map of a few pixels alone has its 99th percentile at zero.
    top = top if top > 0 else magnitude.max().double()
    return (magnitude.double() / top).clamp(0, 1).mul(255).round().to(torch.uint8), ""


def map_words(wrong: str, label: str, said: str) -> str:
    """What stands under a map: what is wrong with it, and what the model says where that is not the label."""

    return ", ".join(part for part in (wrong, f"says {said}" if said != label else "") if part)


@house_style()
def write_maps(maps: SaliencyMaps, path: Path) -> None:
    """Draws the images and, a row a method, their maps, as a figure for papers: ``.png`` or ``.pdf``."""

    from matplotlib.figure import Figure

    assert maps.images is not None
    images = maps.images
    across, down = len(images), len(maps.rows) + 1
    figure = Figure(figsize=(max(1.05 * across + 1.5, 5.2), 1.15 * down + 0.5), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for axis in axes.flatten():
        axis.set(xticks=[], yticks=[])

    for column in range(across):
        pixels = to_unit(images.pixels[column]).permute(1, 2, 0).numpy()
        grey = pixels.shape[2] == 1
        axes[0, column].imshow(pixels.squeeze(2) if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=1)
        axes[0, column].set_title(_narrow(images.classes[images.labels[column]]), fontsize=8, parse_math=False)
        for number, row in enumerate(maps.rows, start=1):
            picture, wrong = draw_maps(row.magnitude[column])
            axes[number, column].imshow(picture.numpy(), cmap="magma", vmin=0, vmax=255)
            label, said = (images.classes[index[column]] for index in (images.labels, row.predictions))
            words = map_words(wrong, label, said)
            axes[number, column].set_xlabel(_narrow(words), fontsize=7, parse_math=False, labelpad=1)
    names = ["image", *(f"{textwrap.fill(row.method, 18)}\nseed {row.seed}" for row in maps.rows)]
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=8, parse_math=False, rotation=0, ha="right", va="center")
    figure.suptitle(RULE.replace("; ", ";\n"), fontsize=7.5)
    write_figure(figure, path)


def _narrow(words: str) -> str:
    """Words in at most two lines, no wider than a picture."""

    return "\n".join(textwrap.wrap(words, 15, max_lines=2, placeholder="…"))


def _one_a_class(images: Images, count: int) -> Images:
    present = images.labels.unique()[:count]
    return images[torch.stack([(images.labels == label).nonzero()[0, 0] for label in present])]
