"""The same images under several models: each model's map, the image under its own attack, and the map of that.

The grid is an illustration; the rest of :mod:`asgt.explanation` measures maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..attacks import PGD, Norm
from ..data import batch_that_fits
from ..errors import InputError
from ..evaluation.accuracy import predict
from ..inputs import checked_images, checked_labels, models_explained, trusted
from ..modes import Classifier
from ..numbers import Number, number, whole
from ..randomness import SampleKeyed, seed_of
from ..saliency import attribute
from .known_shortcut import check_mask
from .shown_maps import STEPS, MapColumn, SaliencyMaps

__all__ = ["saliency_maps", "side_by_side"]


def saliency_maps(
    models: Mapping[str, Classifier],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    classes: Sequence[str] | None = None,
    seeds: Mapping[str, int] | None = None,
    attribution: str = "gradient",
    layer: str | None = None,
    eps: Number | None = None,
    norm: Norm = "linf",
    seed: int = 0,
    rows: Tensor | None = None,
    shortcut: Tensor | None = None,
) -> SaliencyMaps:
    """Explains the same images under any classifiers, for :func:`asgt.write_maps` to draw.

    ::

        maps = asgt.saliency_maps({"mine": model, "theirs": other}, x, y, eps=8 / 255)
        asgt.write_maps(maps, "maps.pdf")

    Args:
        models: classifiers by name, each images (B, C, H, W) in [0, 1] to logits (B, K).
        images: float (N, C, H, W) in [0, 1], on the device of the models; a tensor or a numpy array.
        labels: (N,), of any integer type. Default: unknown; then each model is explained and attacked on its own
            predictions.
        classes: the names of the K classes. Default: their numbers.
        seeds: of the runs of the models, for display.
        attribution: the attribution of the maps, by a name of :func:`asgt.saliency.attribute`.
        layer: its layer, for an attribution of a layer.
        eps: the radius of each model's own attack, PGD-20 away from the class that is explained. Default: none.
        norm: its norm.
        seed: keys its random start, as that of :func:`asgt.explain`.
        rows: the rows of the test split that the images are, int64 (N,), which key it too. Default: 0 … N − 1.
        shortcut: where a planted shortcut lies, bool (N, H, W), as its ``masks`` say; the pictures outline it.

    Raises:
        InputError: images, labels or the attribution are invalid.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> maps = asgt.saliency_maps({"mine": model}, x, y, eps=0.1)
        >>> maps.columns[0].maps.shape
        torch.Size([4, 1, 8, 8])
    """

    if not models:
        raise InputError("no model is given: pass classifiers by name")
    images = checked_images(images, "images")
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"images have the shape {tuple(images.shape)}: pass (N, C, H, W) with at least one image")
    if labels is not None:
        labels = checked_labels(labels, len(images), soft=False, name="labels").to(images.device)
    eps, seed = None if eps is None else number(eps, "eps"), whole(seed, "seed")
    if shortcut is not None:
        check_mask(shortcut, (len(images), *images.shape[2:]))
    rows = torch.arange(len(images), device=images.device) if rows is None else rows.to(images.device)

    def column(name: str, model: Classifier) -> MapColumn:
        """A model on all images."""

        parts = torch.arange(len(images), device=images.device).split(batch_that_fits(images, len(images)))

        def in_parts(made: Callable[[Tensor], Tensor]) -> Tensor:
            return torch.cat([made(part).cpu() for part in parts])

        predictions = in_parts(lambda part: predict(model, images[part])).to(images.device)
        y = predictions if labels is None else labels

        def maps(x: Tensor) -> Tensor:
            def of(part: Tensor) -> Tensor:
                noise = SampleKeyed(seed_of("picture", seed), rows[part])
                return attribute(model, x[part], y[part], attribution, layer=layer, generator=noise)

            return in_parts(of)

        plain = MapColumn(name, (seeds or {}).get(name), y.cpu(), predictions.cpu(), maps(images))
        if eps is None:
            return plain
        attack = PGD(eps=eps, norm=norm, steps=STEPS)

        def attacked_part(part: Tensor) -> Tensor:
            noise = SampleKeyed(seed_of("attack", seed), rows[part])
            return attack(model, images[part], y[part], generator=noise)

        attacked = in_parts(attacked_part).to(images.device)
        return replace(
            plain,
            attacked=attacked.cpu(),
            attacked_predictions=in_parts(lambda part: predict(model, attacked[part], "attacked images")),
            attacked_maps=maps(attacked),
        )

    columns = []
    for name, model in models.items():
        with trusted(), models_explained(model, images):
            columns.append(column(name, model))
    return SaliencyMaps(
        images=images.cpu(),
        labels=None if labels is None else labels.cpu(),
        classes=_class_names(columns, classes),
        attribution=attribution,
        eps=eps,
        norm=norm,
        columns=tuple(columns),
        shortcut=None if shortcut is None else shortcut.cpu(),
    )


def _class_names(columns: Sequence[MapColumn], given: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the classes, those that were given or their numbers.

    Raises:
        InputError: a class that is shown has no name.
    """

    seen = [tensor for each in columns for tensor in (each.explained, each.predictions, each.attacked_predictions)]
    most = int(torch.cat([tensor for tensor in seen if tensor is not None]).max())
    names = tuple(map(str, range(most + 1))) if given is None else tuple(given)
    if most >= len(names):
        raise InputError(f"class {most} has no name: {len(names)} are given")
    return names


def side_by_side(pictures: Sequence[SaliencyMaps]) -> SaliencyMaps:
    """Joins the columns of several figures of the same images.

    Raises:
        InputError: the images or the settings differ.
    """

    first = pictures[0]
    for other in pictures[1:]:
        both = (first, other)
        settings = [(maps.classes, maps.attribution, maps.eps, maps.norm, maps.labels is None) for maps in both]
        if settings[0] != settings[1] or not torch.equal(other.images, first.images):
            names = [maps.columns[0].name for maps in both]
            raise InputError(
                f"the maps of {names[1]} have other images or settings than those of {names[0]}: use the same for both"
            )
    return replace(first, columns=tuple(column for maps in pictures for column in maps.columns))
