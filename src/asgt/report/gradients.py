"""How the gradient's values are distributed, by method, as the saliency-guided training paper shows them.

How large a gradient is says how steep a model is, not what it looks at, so both are shown: each image's values as
shares of its largest, and the values as they are.

References:
    Ismail et al. 2021, "Improving deep learning interpretability by saliency guided training", figure 3,
    https://arxiv.org/abs/2111.14338
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log10

import torch
from torch import Tensor

from .figures import Line, Panel

__all__ = ["gradient_panels"]

_BINS = 21
_FLOOR = 0.001  # percent
_DECADES = 6


def gradient_panels(gradients: Mapping[str, Tensor], numbers: Mapping[str, int], whose: str) -> list[Panel]:
    """Two distributions, a curve a method: relative to each image's largest value, and as they are.

    Args:
        gradients: of the label's logit, by method, signed (N, C, H, W).
        numbers: the colour of each method.
        whose: of which images and models they are, in words.

    Returns:
        None where no method has a gradient that is finite and not zero.
    """

    flat = {name: values.double().flatten(1) for name, values in gradients.items()}
    # An image whose gradient is zero, or is no number, has no largest value.
    flat = {name: values[values.isfinite().all(dim=1) & (values != 0).any(dim=1)] for name, values in flat.items()}
    flat = {name: values for name, values in flat.items() if len(values)}
    if not flat:
        return []

    relative = {name: values / values.abs().amax(dim=1, keepdim=True) for name, values in flat.items()}
    edges = torch.linspace(-1, 1, _BINS + 1, dtype=torch.float64)
    # The largest of all, rounded up to a whole power of ten.
    top = ceil(log10(max(float(values.abs().max()) for values in flat.values())))
    decades = torch.linspace(top - _DECADES, top, 2 * _DECADES + 1, dtype=torch.float64)
    logs = {
        name: values.abs().clamp_min(10.0 ** (top - _DECADES)).log10().clamp(top - _DECADES, top)
        for name, values in flat.items()
    }
    return [
        Panel(
            key="gradients-relative",
            title="a by the image's largest |a|",
            subtitle=f"{whose}\nshares below {_FLOOR:g} % stand at the lower edge",
            x_label="a / max |a| of the image",
            y_label="share of the values (%)",
            x_name="a / max |a|",
            lines=_lines(relative, numbers, edges, _FLOOR),
            y_limits=(_FLOOR * 0.8, 130),
            y_scale="log",
        ),
        Panel(
            key="gradients-raw",
            title="|a| as it is: its scale differs between models",
            subtitle=f"{whose}\nthe first point: that and less, zeros too",
            x_label="log₁₀ |a|",
            y_label="share of the values (%)",
            x_name="log₁₀ |a|",
            lines=_lines(logs, numbers, decades, 0.0),
        ),
    ]


def _lines(values: Mapping[str, Tensor], numbers: Mapping[str, int], edges: Tensor, floor: float) -> tuple[Line, ...]:
    """The share of the values in each bin, in percent, over the bins' middles."""

    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    lines = []
    for name, one in values.items():
        shares = 100 * torch.histogram(one.flatten(), edges).hist / one.numel()
        drawn = tuple(shares.clamp_min(floor).tolist())
        texts = tuple(f"{share:.3g} %" for share in shares.tolist())
        lines.append(Line(name, numbers[name], middles, drawn, drawn, drawn, texts))
    return tuple(lines)
