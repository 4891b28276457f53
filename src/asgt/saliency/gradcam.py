r"""GradCAM: the regions of the last feature map that support the label.

.. math:: a = \sum_k \Big( \frac1{hw} \sum_{ij} \frac{\partial f_y}{\partial A^k_{ij}} \Big) A^k

A is the layer's output (B, K, h, w). The paper uses only the positive part; here maps are signed, as for every
attribution.

Transformers give tokens (B, N, K). The class token and register tokens, which come first, are omitted, and the
others are arranged as the patches of the image. Maps (B, h, w, K) are transposed. The sides of the image determine
the kind of output.

References:
    Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization",
    https://arxiv.org/abs/1610.02391
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from ..errors import InputError, unknown
from ..modes import Classifier, ask
from ..randomness import SampleKeyed
from .attribution import Attribution, Watched, score
from .gradient import Target

__all__ = ["GradCAM", "feature_layer"]

_LISTED = 6
_PREFIXES = 16  # tokens that may come before those of the patches: one for the class, and registers
_KEPT = (nn.BatchNorm2d, nn.GroupNorm, nn.ReLU)
"""The modules that may follow a convolution and belong to its map."""


@dataclass(frozen=True)
class GradCAM(Attribution):
    """The feature map weighted by its mean gradients, enlarged bilinearly to the image; every channel gets the same.

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

        layer = inner.get_submodule(name)
        turn = _layout(model, layer, x, name)
        if turn is None:
            coarse = LayerGradCam(score(model, target), layer).attribute(x, target=y)
            assert isinstance(coarse, Tensor)
        else:
            coarse = _of_tokens(score(model, target), layer, x, y, turn)

        fine: Tensor = LayerAttribution.interpolate(coarse.detach(), x.shape[2:], "bilinear")
        return fine.expand_as(x).contiguous()

    def resolved(self, model: Classifier) -> GradCAM:
        """The same with the name of its layer in ``model``.

        Raises:
            InputError: as :meth:`layer_of` does.
        """

        return replace(self, layer=self.layer_of(model))

    def layer_of(self, model: Classifier) -> str:
        """The name of its layer in ``model``.

        Raises:
            InputError: it has no such module; or none is named, and the last feature map cannot be found.
        """

        if not isinstance(model, nn.Module):
            raise InputError("gradcam uses a layer: pass the nn.Module, not a function that calls it")
        if self.layer is None:
            return feature_layer(model)
        names = [name for name, _ in model.named_modules() if name]
        if self.layer not in names:
            raise unknown("layer", self.layer, names)
        return self.layer


Turn: TypeAlias = Callable[[Tensor], Tensor]
"""From a layer's output to feature maps (B, K, h, w)."""


def _layout(model: Watched, layer: nn.Module, x: Tensor, name: str) -> Turn | None:
    """How a layer's output becomes feature maps; ``None`` where it is feature maps (B, K, h, w).

    Raises:
        InputError: the layer does not run in the model's forward pass, or its output is no map of the image.
    """

    given = _outputs(model, layer, x[:1])
    assert isinstance(model.model, nn.Module)
    if not given:
        raise InputError(f"layer {name!r} does not run in the model's forward pass: {_candidates(model.model)}")
    output = _tensor_of(given[0])
    height, width = x.shape[2:]

    def apart(rows: int, columns: int) -> int:
        """The difference from the sides of the image: zero if patches fill it, below its longer side otherwise."""

        return abs(rows * width - columns * height)

    if output.ndim == 3 and len(output) != 1:
        raise InputError(
            f"layer {name!r} gives {tuple(output.shape)} for one image, instead of its tokens (1, N, K): build it "
            "with batch_first=True, or name another layer"
        )
    if output.ndim == 3 and (grid := _grid(output.shape[1], height, width)) is not None:
        before, rows, columns = grid
        return lambda tokens: tokens[:, before:].transpose(1, 2).unflatten(2, (rows, columns))
    if output.ndim == 4:
        first, second, third = output.shape[1:]
        if apart(first, second) < max(height, width) <= apart(second, third):
            return lambda maps: maps.permute(0, 3, 1, 2)
        # Captum weighs every part of a tuple, of which only the first is a map.
        return None if isinstance(given[0], Tensor) else lambda maps: maps
    shape = tuple(output.shape)
    raise InputError(
        f"layer {name!r} returns {shape}, not a feature map (B, K, h, w) or tokens (B, N, K) of the image: "
        f"{_candidates(model.model)}"
    )


def _grid(tokens: int, height: int, width: int) -> tuple[int, int, int] | None:
    """How many tokens come before those of the patches, and the rows and columns of these; the fewest before.

    Patches that fill the image come first; where they are cut off at its edge, the sides are those of the image to
    within one patch.
    """

    for slack in (1, max(height, width)):
        for before in range(min(_PREFIXES + 1, tokens)):
            patches = tokens - before
            rows = round((patches * height / width) ** 0.5)
            if rows > 0 and patches % rows == 0 and abs(rows * width - patches // rows * height) < slack:
                return before, rows, patches // rows
    return None


def _outputs(model: Watched, layer: nn.Module, x: Tensor) -> list[Any]:
    """What a layer gives while the model answers, each time that it runs."""

    seen: list[Any] = []

    def note(_: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output)

    with _hooked(layer, note), torch.no_grad():
        ask(model.model, x)
    return seen


def _of_tokens(scored: nn.Module, layer: nn.Module, x: Tensor, y: Tensor, turn: Turn) -> Tensor:
    """The coarse maps (B, 1, h, w) of a layer whose output is to be turned into feature maps first."""

    seen: list[Tensor] = []

    def keep(_: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(_tensor_of(output))

    with _hooked(layer, keep):
        logits = scored(x.clone().requires_grad_())
    values = logits.gather(1, y[:, None]).sum()
    (gradient,) = torch.autograd.grad(values, seen[0], allow_unused=True, materialize_grads=True)
    maps, slopes = turn(seen[0].detach()), turn(gradient)
    return (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True)


@contextmanager
def _hooked(layer: nn.Module, hook: Callable[[nn.Module, Any, Any], None]) -> Iterator[None]:
    handle = layer.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _tensor_of(output: Any) -> Tensor:
    """A layer's output; where it gives several, as blocks and encoders of transformers do, the first of them."""

    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else torch.empty(0)


def feature_layer(model: nn.Module) -> str:
    """The dotted name of the module with the last feature map of a sequence, after its norm and rectifier.

    A ``Sequential`` runs in the order of its children, so its last stage with a convolution can be found; that of
    other modules cannot.

    Raises:
        InputError: there is no convolution, or the model is not such a sequence.
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
    raise InputError(f"the last feature map of {type(model).__name__} cannot be found: {_candidates(model)}")


def _convolutions(module: nn.Module) -> list[str]:
    return [name for name, inner in module.named_modules() if isinstance(inner, nn.Conv2d)]


def _candidates(model: nn.Module) -> str:
    names, kind = _convolutions(model), "convolutions"
    norms = [name for name, inner in model.named_modules() if isinstance(inner, nn.LayerNorm)]
    if len(norms) > len(names):  # a transformer: its convolution only cuts the image into patches
        names, kind = norms, "norms"
    if not names:
        return "it has no convolution, which gradcam needs: use gradient, ig or smoothgrad"
    listed = ", ".join(names[: -_LISTED - 1 : -1]) + (", …" if len(names) > _LISTED else "")
    # The class token reads the patches in the last block's attention, behind the first of its two norms. Behind that
    # only the class token itself is read, and the patches have no slope.
    best = names[-3] if kind == "norms" and len(names) > 2 else names[-1]
    return f"name a layer, as layer={best!r}; its {kind}, last first: {listed}"
