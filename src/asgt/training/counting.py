"""The cost of a training step in passes, counted with a model that counts its passes; and those passes alone.

One pass is a forward pass of one image, or a backward pass to the image alone, which costs about as much; a backward
pass to the weights as well counts for two, and so does one through a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..modes import evaluating
from .objectives import Objective

__all__ = ["Bare", "Counter", "bare_passes", "replay", "step_passes"]


@dataclass
class Bare:
    """A forward pass and its backward passes.

    Attributes:
        training: whether the model was in training mode.
        graph: whether gradients were recorded.
        back: the target of each backward pass, in order: the image, the weights, or both.
    """

    training: bool
    graph: bool
    back: list[set[Literal["image", "weights"]]] = field(default_factory=list)

    @property
    def passes(self) -> int:
        """Passes of an image."""

        return 1 + sum(2 if "weights" in to else 1 for to in self.back)


class _Counted(torch.autograd.Function):
    """Notes a gradient that goes back through it, and one that goes back through that in turn."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, note: Callable[[], None], again: Callable[[], None] | None = None) -> Tensor:
        ctx.note, ctx.again = note, again
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.note()
        is_noted = ctx.again is not None and torch.is_grad_enabled()
        return _Counted.apply(gradients[0], ctx.again) if is_noted else gradients[0], None, None


class Counter(nn.Module):
    """A classifier of two classes that always predicts the first, cannot be fooled, and counts its passes."""

    same_when_evaluated = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.passes = 0
        self.made: list[Bare] = []

    def forward(self, x: Tensor) -> Tensor:
        bare = Bare(self.training, torch.is_grad_enabled())
        self.made.append(bare)
        self.passes += len(x)

        def back() -> None:
            self.passes += len(x)
            bare.back.append(set())

        def back_through_back() -> None:
            self.passes += 2 * len(x)
            bare.back.append({"weights"})

        def to_weight() -> None:
            self.passes += len(x)
            bare.back[-1].add("weights")

        # Every backward pass comes by the logits first; one to the weights as well costs another pass.
        weight: Tensor = _Counted.apply(self.weight, to_weight)
        image: Tensor = _Counted.apply(x, lambda: bare.back[-1].add("image"))
        logits: Tensor = _Counted.apply(
            0.0 * weight * image.flatten(1).sum(dim=1, keepdim=True), back, back_through_back
        )
        return logits + torch.tensor([1.0, 0.0])


def step_passes(objective: Objective, *, modes_agree: bool = False, targets: bool = False) -> int:
    """Passes per image of a training step.

    Args:
        objective: the method.
        modes_agree: whether the model does the same in training and in evaluation mode, and forward passes may be
            shared (:func:`asgt.passes.modes_agree`). BatchNorm and dropout keep the two apart.
        targets: whether the loss uses separate targets (label smoothing, class weights). An attack's backward pass,
            which is that of the labels, then never serves the loss too.
    """

    return sum(bare.passes for bare in bare_passes(objective, modes_agree=modes_agree, targets=targets))


def bare_passes(objective: Objective, *, modes_agree: bool = False, targets: bool = False) -> list[Bare]:
    """The passes of a training step, in order, without the method's other operations; see :func:`step_passes`.

    Raises:
        InputError: the method fails with the counting model.
    """

    model = Counter()
    model.train(not modes_agree)
    x, y = torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64)
    try:
        told: dict[str, Any] = {"targets": torch.full((1, 2), 0.5)} if targets else {}
        told |= {"shortcut": torch.ones(1, 2, 2, dtype=torch.bool)} if objective.needs_shortcut else {}
        objective(model, x, y, generator=torch.Generator(), **told).loss.backward()
    except Exception as error:  # other people's code may raise anything
        first = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(
            f"the passes of {type(objective).__name__} cannot be counted, because the method needs more of a model "
            f"than the logits of two classes: {first}"
        ) from error
    return model.made


def replay(passes: list[Bare], model: nn.Module, x: Tensor) -> None:
    """Runs only these passes of a batch with a model; weights get their gradients as in a step."""

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    last: list[Tensor] = []
    for bare in passes:
        leaf = x.detach().requires_grad_(any("image" in to for to in bare.back))
        with torch.set_grad_enabled(bare.graph):
            if bare.training:
                logits = model(leaf)
            else:
                with evaluating(model):
                    logits = model(leaf)
        total = logits.sum()
        for to in bare.back:
            if "image" not in to:
                last.append(total)
            else:
                inputs = [leaf, *(weights if "weights" in to else [])]
                torch.autograd.backward(total, inputs=inputs, retain_graph=len(bare.back) > 1)
    if last:
        torch.autograd.backward(last, inputs=weights)
