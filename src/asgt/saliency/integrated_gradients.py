r"""Integrated gradients, and the gradient times the input, which is their one-step form with a black baseline.

.. math:: a = (X - X') \odot \int_0^1 \nabla f_y\big(X' + t\,(X - X')\big)\,dt
          \qquad\text{and}\qquad a = X \odot \nabla f_y(X)

The first is complete: its sum is f_y(X) − f_y(X').

References:
    Sundararajan et al. 2017, "Axiomatic attribution for deep networks", https://arxiv.org/abs/1703.01365
    Shrikumar et al. 2016, "Not just a black box", https://arxiv.org/abs/1605.01713
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..errors import InputError
from ..randomness import SampleKeyed
from .attribution import Attribution, Watched, score
from .gradient import Target

__all__ = ["InputXGradient", "IntegratedGradients"]


@dataclass(frozen=True)
class InputXGradient(Attribution):
    """The image times its gradient: black pixels get zero."""

    package: ClassVar[str] = "captum"

    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        from captum.attr import InputXGradient as Method

        maps: Tensor = Method(score(model, target)).attribute(x.requires_grad_(), target=y)
        return maps.detach()


@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """The gradients along the straight line from a baseline to the image, by Gauss and Legendre's rule.

    Args:
        steps: points on the line.
        baseline: the value of all of the baseline's pixels; 0 is black.
    """

    steps: int = 50
    baseline: float = 0.0

    package: ClassVar[str] = "captum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise InputError(f"steps = {self.steps}: the integral needs at least one point")

    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        from captum.attr import IntegratedGradients as Method

        maps: Tensor = Method(score(model, target)).attribute(
            x, baselines=self.baseline, target=y, n_steps=self.steps, internal_batch_size=max(batch_size, len(x))
        )
        return maps.detach()
