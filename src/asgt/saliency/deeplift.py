r"""DeepLIFT by the rescale rule: each activation's change against a baseline, attributed to its causes.

.. math:: m = \frac{\Delta \text{out}}{\Delta \text{in}} \text{ through each activation}, \qquad
          \sum a = f_y(X) - f_y(X')

The rule is attached to modules. An activation that is called as a function (``F.relu``) keeps its plain gradient;
Captum's rule for max-pools loses shares if windows overlap or another activation follows
(https://github.com/meta-pytorch/captum/issues/1276). Maps whose sum is wrong are refused.

References:
    Shrikumar et al. 2017, "Learning important features through propagating activation differences",
    https://arxiv.org/abs/1704.02685
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..errors import InputError
from ..randomness import SampleKeyed
from .attribution import Attribution, Watched
from .gradient import Target

__all__ = ["DeepLIFT"]

_SLACK = 1e-3
"""The tolerance for rounding of a map's sum, as a share of the sum of its absolute values."""


@dataclass(frozen=True)
class DeepLIFT(Attribution):
    """The change of the logit against a baseline, distributed over the values; for models of modules that are each
    used once.

    Args:
        baseline: the value of all of the baseline's pixels; 0 is black.
    """

    baseline: float = 0.0

    package: ClassVar[str] = "captum"

    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        from captum.attr import DeepLift as Method

        if not isinstance(model.model, nn.Module):
            raise InputError("deeplift changes modules' gradients: pass the nn.Module, not a function")
        if target != "logit":
            raise InputError(f"deeplift has no rule for target {target!r}, which needs a softmax: use 'logit'")

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*forward, backward hooks", category=UserWarning)
                maps, missing = Method(model).attribute(
                    x.requires_grad_(), baselines=self.baseline, target=y, return_convergence_delta=True
                )
        except RuntimeError as error:
            if "DeepLift" not in str(error):
                raise
            raise InputError(
                "deeplift needs each activation to be a module that is used once, but this model reuses one: use a "
                "separate module in each place, or ig"
            ) from error
        finally:
            _tidy(model)

        signed: Tensor = maps.detach()
        if bool((missing.abs() > _SLACK * signed.flatten(1).abs().sum(dim=1)).any()):
            raise InputError(
                "deeplift's maps do not add up to the logit's change for this model: it has activations that are "
                "not modules (F.relu), or max-pools for which Captum's rule is wrong: use ig instead"
            )
        return signed


def _tidy(model: nn.Module) -> None:
    """Takes off what Captum leaves on activations that no gradient came back to."""

    for module in model.modules():
        if type(module).__module__.startswith("torch.nn.modules"):
            for left in ("input", "output"):
                module.__dict__.pop(left, None)
