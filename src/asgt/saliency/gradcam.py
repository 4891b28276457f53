r"""GradCAM: where the last feature map speaks for the label.

.. math:: a = \sum_k \Big( \frac1{hw} \sum_{ij} \frac{\partial f_y}{\partial A^k_{ij}} \Big) A^k

A is the layer's output (B, K, h, w). The paper keeps the positive part only; here the sign stays, as in every map.

References:
    Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization",
    https://arxiv.org/abs/1610.02391
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..errors import InputError, unknown
from ..modes import Classifier
from ..randomness import SampleKeyed
from .base import Attribution, Watched, score
from .gradient import Target

__all__ = ["GradCAM", "feature_layer"]

_LISTED = 6
_KEPT = (nn.BatchNorm2d, nn.GroupNorm, nn.ReLU)
"""What may stand behind a convolution and belongs to its map."""


@dataclass(frozen=True)
class GradCAM(Attribution):
    """The feature map weighed by its mean gradients, enlarged bilinearly to the image; every channel gets the same.

    Args:
        layer: the dotted name of the module whose output is the feature map. Default: :func:`feature_layer`.
    """

    layer: str | None = None

    package: ClassVar[str] = "captum"

    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        from captum.attr import LayerAttribution, LayerGradCam

        if x.ndim != 4:
            raise InputError(f"gradcam needs images (B, C, H, W), these inputs have the shape {tuple(x.shape)}")
        inner = model.model
        name = self.layer_of(inner)
        assert isinstance(inner, nn.Module)

        try:
            coarse = LayerGradCam(score(model, target), inner.get_submodule(name)).attribute(x, target=y)
        except AssertionError as error:
            raise InputError(f"layer {name!r} does not run when the model answers: {_candidates(inner)}") from error
        if not isinstance(coarse, Tensor) or coarse.ndim != 4:
            raise InputError(f"layer {name!r} gives no feature map (B, K, h, w): {_candidates(inner)}")

        fine: Tensor = LayerAttribution.interpolate(coarse.detach(), x.shape[2:], "bilinear")
        return fine.expand_as(x).contiguous()

    def layer_of(self, model: Classifier) -> str:
        """The name of the layer that is looked at in ``model``.

        Raises:
            InputError: it has no such module; or none is named, and the last feature map cannot be told.
        """

        if not isinstance(model, nn.Module):
            raise InputError("gradcam looks into layers: hand over the nn.Module itself, not a function that calls it")
        if self.layer is None:
            return feature_layer(model)
        names = [name for name, _ in model.named_modules() if name]
        if self.layer not in names:
            raise unknown("layer", self.layer, names)
        return self.layer


def feature_layer(model: nn.Module) -> str:
    """The dotted name of the module that gives the last feature map of a sequence, behind its norm and rectifier.

    A ``Sequential`` runs in the order of its children, so its last stage with a convolution can be told; that of any
    other module cannot.

    Raises:
        InputError: there is no convolution, or the model is no such sequence.
    """

    name, module, behind = "", model, False
    while isinstance(module, nn.Sequential) and _convolutions(module):
        children = list(module.named_children())
        last = max(i for i, (_, child) in enumerate(children) if _convolutions(child))
        while last + 1 < len(children) and isinstance(children[last + 1][1], _KEPT):
            last += 1
        behind |= last + 1 < len(children)
        child, module = children[last]
        name = f"{name}.{child}".lstrip(".")

    # A block counts where something makes logits of its map; one that comes last of all gives the logits itself.
    if isinstance(module, (nn.Conv2d, *_KEPT)) or (behind and _convolutions(module)):
        return name
    raise InputError(f"the last feature map of {type(model).__name__} cannot be told: {_candidates(model)}")


def _convolutions(module: nn.Module) -> list[str]:
    return [name for name, inner in module.named_modules() if isinstance(inner, nn.Conv2d)]


def _candidates(model: nn.Module) -> str:
    names = _convolutions(model)
    if not names:
        return "it has no convolution, which gradcam needs; use gradient, ig or smoothgrad"
    listed = ", ".join(names[: -_LISTED - 1 : -1]) + (", …" if len(names) > _LISTED else "")
    return f"name a layer, as layer={names[-1]!r}; its convolutions, last first: {listed}"
