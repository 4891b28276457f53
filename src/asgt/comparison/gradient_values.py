"""The distribution of the gradient's values, by method, as in the paper on saliency-guided training.

The size of a gradient depends on the steepness of a model, not only on the pixels that it uses, so both are counted:
each image's values as shares of its largest, and the unscaled values.

References:
    Ismail et al. 2021, "Improving deep learning interpretability by saliency guided training", figure 3,
    https://arxiv.org/abs/2111.14338
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, log10

import torch
from torch import Tensor

__all__ = ["GradientValues", "Histogram", "gradient_values_of"]

_BINS = 21
_DECADES = 6


@dataclass(frozen=True)
class Histogram:
    """The shares of some values that fall in each bin.

    Attributes:
        middles: of the bins, ascending.
        shares: of each method's values, in percent, as many.
    """

    middles: tuple[float, ...]
    shares: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class GradientValues:
    """Two distributions of the gradient's values.

    Attributes:
        whose: a description of their images and models.
        relative: over each image's largest magnitude, in [-1, 1].
        logarithms: log₁₀ of the magnitudes; the first bin includes smaller values and zeros.
    """

    whose: str
    relative: Histogram
    logarithms: Histogram


def gradient_values_of(gradients: Mapping[str, Tensor], whose: str) -> GradientValues | None:
    """Counts the values of some methods' gradients.

    Args:
        gradients: of the label's logit, by method, signed (N, C, H, W).
        whose: a description of their images and models.

    Returns:
        The values of the methods with a gradient that is finite and not zero; ``None`` without any.
    """

    flat = {name: values.flatten(1) for name, values in gradients.items()}
    # An image whose gradient is zero, or is no number, has no largest value.
    flat = {name: values[values.isfinite().all(dim=1) & (values != 0).any(dim=1)] for name, values in flat.items()}
    flat = {name: values for name, values in flat.items() if len(values)}
    if not flat:
        return None

    def relative(values: Tensor) -> Tensor:
        return values / values.abs().amax(dim=1, keepdim=True)

    edges = torch.linspace(-1, 1, _BINS + 1, dtype=torch.float64)
    # The largest of all, rounded up to a whole power of ten.
    top = ceil(log10(max(float(values.abs().max()) for values in flat.values())))
    decades = torch.linspace(top - _DECADES, top, 2 * _DECADES + 1, dtype=torch.float64)

    def logarithm(values: Tensor) -> Tensor:
        return values.abs().clamp_min(10.0 ** (top - _DECADES)).log10().clamp(top - _DECADES, top)

    return GradientValues(whose, _histogram(flat, relative, edges), _histogram(flat, logarithm, decades))


def _histogram(flat: Mapping[str, Tensor], of: Callable[[Tensor], Tensor], edges: Tensor) -> Histogram:
    """Shares of what a function makes of values (N, D), a few images at a time, as they become float64 for it."""

    def shares(values: Tensor) -> tuple[float, ...]:
        counts = torch.stack([torch.histogram(of(part.double()).flatten(), edges).hist for part in values.split(16)])
        return tuple((100 * counts.sum(dim=0) / values.numel()).tolist())

    middles = tuple(((edges[1:] + edges[:-1]) / 2).tolist())
    return Histogram(middles, {name: shares(values) for name, values in flat.items()})
