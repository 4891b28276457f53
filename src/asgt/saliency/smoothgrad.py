r"""SmoothGrad: the mean gradient around an image.

.. math:: a = \frac1n \sum_{i=1}^n \nabla_X f_y(X + \delta_i), \qquad
          \delta_i \sim \mathcal N\big(0, (\sigma\,(\max X - \min X))^2\big)

Each image has its own noise, drawn with its key, so that a map does not depend on the batch; Captum's
``NoiseTunnel`` draws it from the global generator.

References:
    Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", https://arxiv.org/abs/1706.03825
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import SampleKeyed, normal_like
from .attribution import Attribution, Watched
from .gradient import Target, saliency

__all__ = ["SmoothGrad"]


@dataclass(frozen=True)
class SmoothGrad(Attribution):
    """The mean of the plain gradients of noisy copies, which are not clipped to [0, 1].

    Args:
        samples: n, the copies of each image.
        deviation: σ, as a share of the image's range max − min, as in the paper. A constant image gets no noise.
    """

    samples: int = 25
    deviation: float = 0.15

    draws_noise: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise InputError(f"samples = {self.samples}: a mean needs at least one noisy copy")
        if not 0 <= self.deviation < float("inf"):
            raise InputError(f"deviation = {self.deviation}: give a share of the image's range from 0 on, such as 0.15")

    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        values = x.flatten(1)
        sigma = self.deviation * (values.amax(dim=1) - values.amin(dim=1)).view(-1, *[1] * (x.ndim - 1))
        total = torch.zeros_like(x)

        together = max(1, batch_size // len(x))
        for first in range(0, self.samples, together):
            count = min(together, self.samples - first)
            noisy = torch.cat([x + sigma * normal_like(x, generator) for _ in range(count)])
            total += saliency(model, noisy, y.repeat(count), target).view(count, *x.shape).sum(dim=0)

        return total / self.samples
