"""The edge of a region in a picture of pixels: a thin light line on a dark one, so that it is seen on any colours."""

from __future__ import annotations

import base64
from itertools import groupby

import torch.nn.functional as F
from torch import Tensor

__all__ = ["DARK", "LIGHT", "edges", "outlined_svg"]

LIGHT, DARK = ("#ffffff", 1.5), ("#000000", 3.5)
"""Colour and width of both lines, in points of a figure or pixels of a screen; the dark one lies below."""


def edges(mask: Tensor) -> list[tuple[int, int, int, int]]:
    """The lines between the pixels of a mask and all others, as (x, y, x', y'), those of the image's border too.

    Args:
        mask: bool (H, W).

    Returns:
        Straight lines as long as they come, in pixels from the upper left corner.
    """

    padded = F.pad(mask.byte(), (1, 1, 1, 1))
    lines = [(first, y, last, y) for y, first, last in _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])]
    down = padded.T
    return lines + [(x, first, x, last) for x, first, last in _runs(down[1:, 1:-1] != down[:-1, 1:-1])]


def outlined_svg(png: str, mask: Tensor) -> str:
    """A picture with the outline of a mask, as the data URI of an SVG.

    Args:
        png: the data URI of the picture, (H, W) pixels.
        mask: bool (H, W).
    """

    height, width = mask.shape
    path = "".join(f"M{x} {y}H{end}" if y == below else f"M{x} {y}V{below}" for x, y, end, below in edges(mask))
    strokes = "".join(
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{wide}" stroke-linecap="square" '
        'vector-effect="non-scaling-stroke"/>'
        for colour, wide in (DARK, LIGHT)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="{png}" style="image-rendering:pixelated"/>{strokes}</svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _runs(marked: Tensor) -> list[tuple[int, int, int]]:
    """The runs of truths in the rows of bool (R, C): the row, the first column and the one after the last."""

    runs = []
    for row, values in enumerate(marked.tolist()):
        for value, group in groupby(enumerate(values), key=lambda pair: pair[1]):
            if value:
                columns = [column for column, _ in group]
                runs.append((row, columns[0], columns[-1] + 1))
    return runs
