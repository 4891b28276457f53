"""The display of maps: one rule that colours every map, and the text of each figure.

So no map looks better than another because of its colours, and an empty map is drawn as empty. The page, the
figures for papers and a notebook show the same figures.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..attacks import Norm
from ..numbers import counted, eps_text, norm_sign
from ..visible import LONGEST_NAME, visible
from .outlines import outlined_svg

__all__ = [
    "COLOURS_OF",
    "RULE",
    "STEPS",
    "MapColumn",
    "Rendering",
    "SaliencyMaps",
    "class_name",
    "coloured",
    "map_cells",
    "map_rule",
    "picture_uri",
    "pixels_of",
    "png_uri",
    "row_names",
]

STEPS = 20
"""The steps of each model's own PGD."""

Rendering: TypeAlias = Literal["magnitude", "signed"]

RULE: dict[Rendering, str] = {
    "magnitude": (
        "the channel mean of |a|, each map by its own scale: black at 0, brightest at the 99th percentile of |a| and "
        "above"
    ),
    "signed": (
        "the channel mean of a, each map by its own scale: grey at 0, darkest blue and brightest yellow at minus and "
        "plus the 99th percentile of |a| and beyond"
    ),
}
"""Describes the reduction and the colours of maps. The luminance of both scales increases evenly, so grey prints have
the same order.
"""

COLOURS_OF: dict[Rendering, str] = {"magnitude": "magma", "signed": "cividis"}
"""matplotlib's colour map of each."""

_LONGEST_CLASS = 60

_SHOWN = 12
"""The number of images of a figure in a notebook."""

_CENTRED, _NARROW = 'style="text-align:center"', 'style="text-align:left;max-width:7em;white-space:normal"'

_Record = TypeVar("_Record", "MapColumn", "SaliencyMaps")


@dataclass(frozen=True)
class MapColumn:
    """One model on all images.

    Attributes:
        name: of the model, or its method.
        seed: of its run; ``None`` without one.
        explained: the class that each map explains, int64 (N,): the label, or else the model's own prediction.
        predictions: the model's prediction for each image, int64 (N,).
        maps: the signed attribution (N, C, H, W).
        attacked: the images under the model's own attack, (N, C, H, W); ``None`` without one, like the next two.
        attacked_predictions: the predictions for these, int64 (N,).
        attacked_maps: their attribution to the same class.
    """

    name: str
    seed: int | None
    explained: Tensor
    predictions: Tensor
    maps: Tensor
    attacked: Tensor | None = None
    attacked_predictions: Tensor | None = None
    attacked_maps: Tensor | None = None


@dataclass(frozen=True)
class SaliencyMaps:
    """The same images under several models. A notebook shows the first twelve images.

    Attributes:
        images: float (N, C, H, W) in [0, 1].
        labels: int64 (N,); ``None`` if unknown; then each model is explained on its own predictions.
        classes: the names of the classes.
        attribution: the attribution of the maps.
        eps: the radius of the attack; ``None`` without one.
        norm: its norm.
        columns: a model each.
        shortcut: where a planted shortcut lies, bool (N, H, W), which the pictures outline; ``None`` without one.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> maps = asgt.saliency_maps({"mine": model, "again": model}, x, y)
        >>> [column.name for column in maps.columns], maps.eps
        (['mine', 'again'], None)
    """

    images: Tensor
    labels: Tensor | None
    classes: tuple[str, ...]
    attribution: str
    eps: float | None
    norm: Norm
    columns: tuple[MapColumn, ...]
    shortcut: Tensor | None = None

    def __getitem__(self, rows: slice) -> SaliencyMaps:
        """The same for some of the images."""

        def of(record: _Record) -> _Record:
            tensors = {name: value for name, value in vars(record).items() if isinstance(value, Tensor)}
            values: dict[str, Any] = {name: tensor[rows] for name, tensor in tensors.items()}
            return replace(record, **values)

        return replace(of(self), columns=tuple(map(of, self.columns)))

    def __str__(self) -> str:
        names = ", ".join(visible(column.name, LONGEST_NAME) for column in self.columns)
        attacked = (
            "" if self.eps is None else f", and under PGD-{STEPS}, {norm_sign(self.norm)} ε = {eps_text(self.eps)}"
        )
        return f"maps by {self.attribution} of {counted(len(self.images), 'image')} under {names}{attacked}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        shown = min(len(self.images), _SHOWN)
        more = f"; the first {shown} of {len(self.images)} images" if shown < len(self.images) else ""
        blocks = "".join(_block(self, number) for number in range(shown))
        style = "display:flex;flex-wrap:wrap;gap:1.5em"
        return visible(f'<p>{escape(map_rule(self))}{more}</p><div style="{style}">{blocks}</div>')


def coloured(attribution: Tensor, kind: Rendering = "magnitude") -> tuple[Tensor, str]:
    """A map in colours, by :data:`RULE`, and its problem, if any.

    Args:
        attribution: signed (C, H, W).
        kind: reduced to its magnitude, or signed.

    Returns:
        uint8 (H, W, 3); and ``""``, ``"all zero"`` or ``"not finite"``, if it cannot be coloured.
    """

    import matplotlib

    values = (attribution.abs() if kind == "magnitude" else attribution).double().mean(dim=0)
    blank = torch.full((*values.shape, 3), 255, dtype=torch.uint8)
    if not torch.isfinite(attribution).all():
        return blank, "not finite"
    if not attribution.any():
        return blank, "all zero"

    top = values.abs().flatten().quantile(0.99)
    # A map of a few pixels alone has its 99th percentile at zero.
    top = top if top > 0 else values.abs().max()
    # Channels may cancel: the signed map is then zero, though what it is of is not.
    share = (values / top).clamp(-1, 1) if top > 0 else values
    share = share if kind == "magnitude" else (share + 1) / 2
    colours = matplotlib.colormaps[COLOURS_OF[kind]](share.mul(255).round().to(torch.uint8).numpy(), bytes=True)
    return torch.from_numpy(colours[..., :3].copy()), ""


def map_rule(maps: SaliencyMaps, kind: Rendering = "magnitude") -> str:
    """A sentence on the attribution and the colours of the maps."""

    whose = "each model's own answer" if maps.labels is None else "the label"
    made = f"a: gradient of the logit of {whose}" if maps.attribution == "gradient" else f"a: {maps.attribution}"
    if maps.attribution != "gradient":
        made += f" of {whose}"
    outlined = "; outlined: the planted shortcut" if maps.shortcut is not None else ""
    return f"{made}; shown: {RULE[kind]}{outlined}"


def row_names(maps: SaliencyMaps, number: int) -> list[str]:
    """The names of the rows of an image."""

    label = "" if maps.labels is None else f" of {class_name(maps, maps.labels[number])}"
    names = [f"image{label}", "its map"]
    if maps.eps is not None:
        names += [f"under PGD-{STEPS}, {norm_sign(maps.norm)} ε = {eps_text(maps.eps)}", "map under attack"]
    return names


def map_cells(maps: SaliencyMaps, number: int, column: MapColumn, kind: Rendering) -> list[tuple[Tensor, str, str]]:
    """The rows of an image in a model's column: pixels, uint8 (H, W, 3), the problem of each, if any, and its text.

    The text under an image is the model's prediction; under a map, if labels are unknown, the explained class.
    """

    explained = "" if maps.labels is not None else f"explains {class_name(maps, column.explained[number])}"
    cells = [(pixels_of(maps.images[number]), "", f"pred. {class_name(maps, column.predictions[number])}")]
    cells.append((*coloured(column.maps[number], kind), explained))
    if column.attacked is not None:
        assert column.attacked_predictions is not None
        assert column.attacked_maps is not None
        said = f"pred. {class_name(maps, column.attacked_predictions[number])}"
        cells.append((pixels_of(column.attacked[number]), "", said))
        cells.append((*coloured(column.attacked_maps[number], kind), explained))
    return cells


def pixels_of(image: Tensor) -> Tensor:
    """An image in [0, 1], (C, H, W), as uint8 (H, W, 3); of other than one or three channels, the mean of them."""

    shown = image if len(image) in (1, 3) else image.mean(dim=0, keepdim=True)
    return (shown.expand(3, *shown.shape[1:]) * 255).round().byte().permute(1, 2, 0)


def picture_uri(maps: SaliencyMaps, number: int, pixels: Tensor) -> str:
    """A picture of an image, uint8 (H, W, 3), as a data URI; with the shortcut's outline where there is one."""

    uri = png_uri(pixels)
    return uri if maps.shortcut is None else outlined_svg(uri, maps.shortcut[number])


def png_uri(pixels: Tensor) -> str:
    """uint8 (H, W, 3) as a data URI of a PNG, pixel for pixel; in one channel where it is grey."""

    from PIL import Image

    grey = bool((pixels == pixels[..., :1]).all())
    content = io.BytesIO()
    Image.fromarray((pixels[..., 0] if grey else pixels).contiguous().numpy()).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def class_name(maps: SaliencyMaps, number: int | Tensor) -> str:
    """The name of a class for display: in one line, and not too long."""

    return visible(maps.classes[int(number)], _LONGEST_CLASS).replace("\n", " ")


def _block(maps: SaliencyMaps, number: int) -> str:
    """An image in HTML: a column for each model; the image, its map, the attacked image and the map of that."""

    def head(column: MapColumn) -> str:
        seed = "" if column.seed is None else f"<br>seed {column.seed}"
        return f"<th {_CENTRED}>{escape(visible(column.name, LONGEST_NAME))}{seed}</th>"

    def cell(picture: Tensor, wrong: str, words: str) -> str:
        drawn = f'<img src="{picture_uri(maps, number, picture)}" width="72" style="image-rendering:pixelated">'
        return f"<td {_CENTRED}>{escape(wrong) if wrong else drawn}<br>{escape(words)}</td>"

    columns = [map_cells(maps, number, column, "magnitude") for column in maps.columns]
    rows = "".join(
        f"<tr><th {_NARROW}>{escape(name)}</th>{''.join(cell(*cells[place]) for cells in columns)}</tr>"
        for place, name in enumerate(row_names(maps, number))
    )
    heads = "".join(map(head, maps.columns))
    return f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table>"
