"""The figure of maps: columns are models; rows are an image, its map, the attacked image, and its map.

One rule colours every map (:mod:`asgt.explanation.shown_maps`). The figure is an illustration;
:mod:`asgt.explanation` measures maps.
"""

from __future__ import annotations

import math
import textwrap
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import matplotlib
import torch
from torch import Tensor

from ..explanation.outlines import DARK, LIGHT, edges
from ..explanation.shown_maps import (
    COLOURS_OF,
    MapColumn,
    Rendering,
    SaliencyMaps,
    class_name,
    coloured,
    map_cells,
    map_rule,
    pixels_of,
    row_names,
)
from ..visible import LONGEST, LONGEST_NAME, visible
from .figures import house_style, write_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write_contact_sheet", "write_maps"]

# In inches: the side of a picture, the room between two, a line of words, and what stands around them all.
_SIDE, _GAP, _LINE, _EDGE = 0.82, 0.07, 0.125, 0.12


@house_style()
def write_maps(maps: SaliencyMaps, path: Path | str, *, kind: Rendering = "magnitude") -> None:
    """Draws a figure for papers: a block of rows for each image, a column for each model.

    Args:
        maps: what :func:`asgt.saliency_maps` returns.
        path: the file. Its suffix gives the format.
        kind: ``"magnitude"`` (default) draws the channel mean of absolute values, ``"signed"`` the channel mean.

    Raises:
        InputError: the suffix is none of these, or the file cannot be written.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> maps = asgt.saliency_maps({"mine": model}, x, y, eps=0.1)
        >>> asgt.write_maps(maps, "maps.png")
    """

    # Maps have words under them only where it is not said once whose class they explain.
    worded = [row % 2 == 0 or maps.labels is None for row in range(len(row_names(maps, 0)))]
    offsets = [0.0, *accumulate(_SIDE + _GAP + _LINE * words for words in worded)]
    block = offsets[-1] + 0.14
    heads = [_head(column, 14) for column in maps.columns]
    above = _LINE * max(head.count("\n") + 1 for head in heads) + 0.08
    left, width = 1.02, len(maps.columns) * (_SIDE + _GAP)
    sheet = _Sheet(left + max(width, 3.6), above + len(maps.images) * block, map_rule(maps, kind), kind)

    for place, (column, head) in enumerate(zip(maps.columns, heads, strict=True)):
        x = left + place * (_SIDE + _GAP)
        sheet.words(x + _SIDE / 2, above - 0.05, head, "bottom", size=8, weight="bold")
        for image in range(len(maps.images)):
            for row, (picture, wrong, words) in enumerate(map_cells(maps, image, column, kind)):
                y = above + image * block + offsets[row]
                sheet.picture(x, y, _SIDE, picture, wrong, _outline(maps, image))
                sheet.words(x + _SIDE / 2, y + _SIDE + 0.02, _short(words, 16), "top", size=7)
    for image in range(len(maps.images)):
        for row, name in enumerate(row_names(maps, image)):
            y = above + image * block + offsets[row] + _SIDE / 2
            sheet.words(left - 0.09, y, textwrap.fill(name, 15), "center", "right", size=8)
        if image:
            sheet.rule(above + image * block - 0.1)
    sheet.write(Path(path))


@house_style()
def write_contact_sheet(maps: SaliencyMaps, path: Path | str, *, kind: Rendering = "magnitude") -> None:
    """Draws many images, each next to its map under every model.

    Args:
        maps: what :func:`asgt.saliency_maps` returns.
        path: the file. Its suffix gives the format.
        kind: as for :func:`asgt.write_maps`.

    Raises:
        InputError: the suffix is none of these, or the file cannot be written.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> maps = asgt.saliency_maps({"mine": model}, x, y)
        >>> asgt.write_contact_sheet(maps, "sheet.png")
    """

    side, gap = 0.46, 0.035
    across = 1 + len(maps.columns)
    strip = across * (side + gap) + 0.26
    heads = ["image", *(_head(column, 7) for column in maps.columns)]
    above = 0.1 * max(head.count("\n") + 1 for head in heads) + 0.1
    pitch = side + gap + 0.1
    # As near to a page's shape as whole strips come.
    count = len(maps.images)
    strips = min(
        range(1, count + 1), key=lambda n: abs(math.log(1.35 * n * strip / (above + math.ceil(count / n) * pitch)))
    )
    rows = math.ceil(count / strips)
    sheet = _Sheet(max(strips * strip - 0.26, 3.6), above + rows * pitch, map_rule(maps, kind), kind)

    for image in range(count):
        left, y = (image // rows) * strip, above + (image % rows) * pitch
        pictures = [(pixels_of(maps.images[image]), "")]
        pictures += [coloured(column.maps[image], kind) for column in maps.columns]
        for place, (picture, wrong) in enumerate(pictures):
            x = left + place * (side + gap)
            sheet.picture(x, y, side, picture, wrong, _outline(maps, image))
            if image % rows == 0:
                sheet.words(x + side / 2, above - 0.05, heads[place], "bottom", size=6)
            # What is not said is the label; where that is not known, every model's own answer is.
            said = _label(maps, image) if place == 0 else _other(maps, image, maps.columns[place - 1])
            sheet.words(x + side / 2, y + side + 0.01, _short(said, 9), "top", size=5.5)
    sheet.write(Path(path))


class _Sheet:
    """A figure measured in inches from its upper left corner, below a sentence and a scale."""

    def __init__(self, width: float, height: float, rule: str, kind: Rendering) -> None:
        from matplotlib.figure import Figure

        lines = textwrap.wrap(visible(rule, LONGEST), max(40, int(width / 0.062)))
        self.kind = kind
        self.top = _EDGE + 0.13 * len(lines) + 0.42
        self.size = (width + 2 * _EDGE, height + self.top + _EDGE)
        self.figure: Figure = Figure(figsize=self.size)
        self.axis: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axis.set(xlim=(0, self.size[0]), ylim=(self.size[1], 0))
        self.axis.set_axis_off()
        self.axis.text(_EDGE, _EDGE, "\n".join(lines), fontsize=7.5, va="top", linespacing=1.25, parse_math=False)
        self._scale()

    def picture(
        self, x: float, y: float, side: float, picture: Tensor, wrong: str, outline: Tensor | None = None
    ) -> None:
        """Pixels as they are, in a square; or the text for what cannot be shown, on hatching.

        Args:
            x: of the square, like y and side in inches.
            y: of its upper edge.
            side: of it.
            picture: uint8 (H, W, 3).
            wrong: the text.
            outline: a mask whose edge is drawn on the picture, bool (H, W).
        """

        from matplotlib.collections import LineCollection
        from matplotlib.image import AxesImage
        from matplotlib.patches import Rectangle

        x, y = x + _EDGE, y + self.top
        height, width = (side * length / max(picture.shape[:2]) for length in picture.shape[:2])
        x, y = x + (side - width) / 2, y + (side - height) / 2
        if wrong:
            hatched = Rectangle((x, y), width, height, facecolor="white", edgecolor="#b0b0b0", hatch="////", lw=0.5)
            self.axis.add_patch(hatched)
            word = self.axis.text(
                x + width / 2,
                y + height / 2,
                wrong.replace(" ", "\n"),
                ha="center",
                va="center",
                fontsize=8 if side > 0.6 else 5.5,
            )
            word.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
            return
        image = AxesImage(self.axis, extent=(x, x + width, y + height, y), interpolation="nearest", zorder=1)
        image.set_data(picture.numpy())
        # Not by imshow, which takes the axes for its own, and its time.
        self.axis.add_image(image)
        self.axis.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="#8a8a8a", lw=0.4, zorder=2))
        if outline is None:
            return
        pixel = height / len(outline)
        lines = [
            [(x + pixel * left, y + pixel * top), (x + pixel * right, y + pixel * bottom)]
            for left, top, right, bottom in edges(outline)
        ]
        for place, (colour, wide) in enumerate((DARK, LIGHT)):
            # Thinner than on a screen: a picture is less than an inch wide.
            line = LineCollection(lines, colors=colour, linewidths=wide / 2, capstyle="projecting", zorder=3 + place)
            self.axis.add_collection(line, autolim=False)

    def words(
        self,
        x: float,
        y: float,
        text: str,
        vertical: Literal["top", "center", "bottom"],
        horizontal: Literal["left", "center", "right"] = "center",
        *,
        size: float,
        weight: str = "normal",
    ) -> None:
        self.axis.text(
            x + _EDGE,
            y + self.top,
            text,
            ha=horizontal,
            va=vertical,
            fontsize=size,
            fontweight=weight,
            linespacing=1.05,
            parse_math=False,
        )

    def rule(self, y: float) -> None:
        """A faint line across."""

        self.axis.plot([_EDGE, self.size[0] - _EDGE], [y + self.top] * 2, color="#c8c8c8", lw=0.6)

    def write(self, path: Path) -> None:
        write_figure(self.figure, path)

    def _scale(self) -> None:
        """The colours and what their ends stand for."""

        y, height, width = self.top - 0.36, 0.08, 1.5
        ramp = matplotlib.colormaps[COLOURS_OF[self.kind]](torch.linspace(0, 1, 256).numpy()[None])
        axis = self.figure.add_axes(
            (_EDGE / self.size[0], 1 - (y + height) / self.size[1], width / self.size[0], height / self.size[1])
        )
        axis.imshow(ramp, aspect="auto", extent=(0, 1, 0, 1))
        ends = ["0", "99th percentile"] if self.kind == "magnitude" else ["− 99th pct.", "0", "99th pct."]
        axis.set_xticks([place / (len(ends) - 1) for place in range(len(ends))], ends, fontsize=6.5)
        axis.set_yticks([])
        axis.tick_params(length=2, pad=1)
        labels = axis.get_xticklabels()
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")
        axis.spines[:].set_linewidth(0.4)


def _head(column: MapColumn, width: int) -> str:
    lines = textwrap.wrap(visible(column.name, LONGEST_NAME), width)
    return "\n".join([*lines, *([f"seed {column.seed}"] if column.seed is not None else [])])


def _outline(maps: SaliencyMaps, number: int) -> Tensor | None:
    return None if maps.shortcut is None else maps.shortcut[number]


def _label(maps: SaliencyMaps, number: int) -> str:
    return "" if maps.labels is None else class_name(maps, maps.labels[number])


def _other(maps: SaliencyMaps, number: int, column: MapColumn) -> str:
    """What a model says, where it is not the label."""

    said = int(column.predictions[number])
    return "" if maps.labels is not None and said == int(maps.labels[number]) else f"pred. {class_name(maps, said)}"


def _short(words: str, width: int) -> str:
    return words if len(words) <= width else words[: width - 1] + "…"
