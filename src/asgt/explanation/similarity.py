"""Properties of a map, and similarities of two maps of the same image; batched, for each sample separately."""

from __future__ import annotations

import torch
from torch import Tensor

from ..modes import precise
from ..randomness import SampleKeyed

__all__ = ["cosine", "gini", "order_of", "ranks", "spearman", "spearman_of_finite", "top_overlap"]


def gini(a: Tensor) -> Tensor:
    r"""The Gini index of \|a\| of each attribution (B, …): 0 where all values are equal, near 1 where few are not zero.

    .. math:: G = \frac{\sum_i (2i - n - 1) \, |a|_{(i)}}{n \sum_i |a|_{(i)}}, \qquad |a|_{(1)} \le \dots \le |a|_{(n)}

    Returns:
        float64 (B,), NaN for a map that is zero everywhere.

    References:
        Chalasani et al. 2020, "Concise explanations of neural networks using adversarial training",
        https://arxiv.org/abs/1810.06583
    """

    ascending = precise(a.flatten(1)).abs().sort(dim=1).values
    count = ascending.shape[1]
    weights = torch.arange(1 - count, count, 2, dtype=ascending.dtype, device=a.device)
    return (ascending @ weights) / (count * ascending.sum(dim=1))


def ranks(values: Tensor) -> Tensor:
    """The rank of each of the values (B, n) among its row's, from 1, ascending; equal values share their mean rank."""

    ascending = values.sort(dim=1).values
    below = torch.searchsorted(ascending, values.contiguous(), right=False)
    up_to = torch.searchsorted(ascending, values.contiguous(), right=True)
    return precise(below + up_to + 1) / 2


def spearman(m: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation of two maps (B, H, W) of each image; ties have their mean rank.

    Returns:
        float64 (B,), NaN if either map is constant.
    """

    # Mean ranks have the mean of the ranks, ties or none.
    mean = (m[0].numel() + 1) / 2
    one, two = (ranks(values.flatten(1)) - mean for values in (m, other))
    return (one * two).sum(dim=1) / ((one * one).sum(dim=1) * (two * two).sum(dim=1)).sqrt()


def spearman_of_finite(m: Tensor, other: Tensor) -> Tensor:
    """As :func:`spearman`; NaN also if either map is not finite."""

    finite = m.flatten(1).isfinite().all(dim=1) & other.flatten(1).isfinite().all(dim=1)
    return spearman(m, other).masked_fill(~finite, torch.nan)


def order_of(m: Tensor, noise: SampleKeyed) -> Tensor:
    """The pixels of each map (B, H, W) from the highest to the lowest, int64 (B, n); equal ones in random order.

    Otherwise the order of a mostly zero map would begin at the top left corner.
    """

    flat = m.flatten(1)
    shuffled = noise.uniform_like(flat.float()).argsort(dim=1)
    return shuffled.gather(1, flat.gather(1, shuffled).argsort(dim=1, descending=True, stable=True))


def top_overlap(order: Tensor, other: Tensor, share: float = 0.1) -> Tensor:
    """How much of the top ``share`` of the pixels two orders (B, n) have in common, float64 (B,) in [0, 1]."""

    count = max(1, int(share * order.shape[1] + 1e-9))
    one, two = (
        torch.zeros_like(pixels, dtype=torch.bool).scatter_(1, pixels[:, :count], True) for pixels in (order, other)
    )
    return precise((one & two).sum(dim=1)) / count


def cosine(a: Tensor, other: Tensor) -> Tensor:
    """The cosine of two attributions (B, …), float64 (B,); NaN if either is zero everywhere."""

    one, two = precise(a.flatten(1)), precise(other.flatten(1))
    found: Tensor = (one * two).sum(dim=1) / (one.norm(dim=1) * two.norm(dim=1))
    return found
