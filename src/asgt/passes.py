r"""Logits and gradients of models, and the sharing of forward passes.

Attacks and saliency need only the gradient to the images, so no weight's gradient is computed for them. Their
images are often a view that the loss also needs: X for an FGSM attack, X' for the mask of ASGT. A :class:`Shared`
model reuses the graph of the first pass:

.. math:: F + B_x + F + B \;\to\; F + B_x + B

and if the view is used only in the cross-entropy, one backward pass gives the gradient to images and weights,
 :math:`F + B`. This is exact only if evaluation and training mode agree (:func:`modes_agree`): they differ for
BatchNorm and dropout.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError
from .modes import Classifier, ask, at_least_float32, differentiable, wraps_classifier

__all__ = [
    "Meter",
    "Shared",
    "a_pass",
    "cross_entropy",
    "cross_entropy_gradient",
    "input_gradient",
    "is_watched",
    "modes_agree",
    "slopes_needed",
]


def input_gradient(
    model: Classifier, x: Tensor, score: Callable[[Tensor], Tensor], *, again: bool = False
) -> tuple[Tensor, Tensor]:
    """The gradient of a score of the logits to the images only: no parameter's ``grad`` is touched or computed.

    Args:
        model: the classifier, in its mode for the pass.
        x: images (B, C, H, W), or inputs of any shape (B, …).
        score: from logits (B, K), in float32 or better, to a scalar.
        again: whether the loss will use these images too: a :class:`Shared` model then stores the pass.

    Returns:
        The gradient, of the shape of ``x``, zero if the score does not depend on it; and the logits, detached.
    """

    with torch.inference_mode(False), torch.enable_grad(), a_pass():
        asked = model.ask(x, again) if isinstance(model, Shared) else _Asked.by(model, x)
        (gradient,) = _gradients(score(at_least_float32(asked.logits)), asked.x, keep=asked.kept)

    return torch.zeros_like(x) if gradient is None else gradient, asked.logits.detach()


def cross_entropy_gradient(model: Classifier, x: Tensor, y: Tensor, *, again: bool = False) -> tuple[Tensor, Tensor]:
    """The gradient of each sample's cross-entropy to its image, and the logits; see :func:`input_gradient`.

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,), int64, or class probabilities (B, K).
        again: whether the loss will use these images too.
    """

    if isinstance(model, Shared) and y.ndim == 1 and model.learns(x, again):
        return model.learn(x, y)
    # The sum keeps samples apart: no sample's gradient depends on the size of the batch.
    return input_gradient(
        model, x, lambda logits: F.cross_entropy(logits, differentiable(y), reduction="sum"), again=again
    )


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The batch mean of the cross-entropy of logits (B, K) to labels (B,).

    If an attack or a saliency has already made the pass, its gradient to the weights is reused.
    """

    known: _Known | None = getattr(logits, _KNOWN, None)
    if known is None or not known.labels.is_same(y):
        return F.cross_entropy(logits, y)
    total: Tensor = _Delivered.apply(known, *known.weights)
    return total / len(y)


def modes_agree(model: Classifier) -> bool:
    """Whether an attack and the loss can share one forward pass without any difference.

    Each module must compute the same in evaluation mode as in its current mode, and the same at every call. This is
    known for PyTorch's layers: of convolutions and ReLU in any mode, of BatchNorm and dropout in evaluation mode. A
    user's module counts if its class sets ``same_in_both_modes = True``; subclasses are not covered. Hooks of modules
    and of weights, and a ``forward`` that was set on one module, may do anything. The modules of a plain function are
    unknown.
    """

    return (
        isinstance(model, nn.Module)
        and not nn.modules.module._has_any_global_hook()
        and all(_is_the_same_at_every_call(module) and not is_watched(module) for module in model.modules())
    )


def _is_the_same_at_every_call(module: nn.Module) -> bool:
    kind = type(module)
    if kind in _SAME_IN_BOTH_MODES or kind.__dict__.get("same_in_both_modes", False):
        return True
    if isinstance(module, nn.modules.dropout._DropoutNd) and module.p == 0:
        return True
    return not module.training and (kind in _SAME_WHEN_EVALUATED or kind.__dict__.get("same_when_evaluated", False))


def is_watched(module: nn.Module) -> bool:
    """Whether hooks would notice that a pass through this module is skipped."""

    own = vars(module)
    # accelerate puts its autocast on the instance, and says so by the second name.
    if "forward" in own and "_original_forward" not in own:
        return True
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    weights = [weight for weight in module._parameters.values() if weight is not None]
    return any(hooks) or any(
        weight._backward_hooks or getattr(weight, "_post_accumulate_grad_hooks", None) or not weight.is_leaf
        for weight in weights
    )


class Shared(nn.Module):
    """A model whose modes agree, and that stores passes of the loss's views.

    Args:
        model: the model of attacks and saliency.
        forward: the module for the forward passes of the loss, if it is not the model.
        x: the clean images, which are a view of most losses.
        alone: whether the clean logits are used only in the cross-entropy. It changes only the cost.
        learns: whether the loss's cross-entropy has the labels of attacks and saliency. It changes only the cost.
    """

    asks_by_itself = True

    def __init__(self, model: nn.Module, forward: Classifier, x: Tensor, alone: bool, *, learns: bool = True) -> None:
        super().__init__()
        self.model = model
        self._forward = (forward,)  # in a tuple, as a wrapper is no part of the model
        self._clean, self._alone, self._learns = _Snapshot(x), alone, learns
        self._asked: list[_Asked] = []

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the model; those of the clean images are stored if no gradient is needed."""

        if torch.is_grad_enabled() or not self._clean.is_same(x):
            return ask(self.model, x)
        with torch.inference_mode(False), torch.enable_grad():
            return self.ask(x, again=True).logits.detach()

    def ask(self, x: Tensor, again: bool) -> _Asked:
        """A forward pass with a graph, stored if the images will be used again."""

        if (asked := self._find(x)) is not None:
            return asked
        if not again and not self._clean.is_same(x):
            return _Asked.by(self.model, x)
        asked = _Asked.by(self._forward[0], x, kept=True)
        self._asked.append(asked)
        return asked

    def learns(self, x: Tensor, again: bool) -> bool:
        """Whether the loss probably uses these images only in the cross-entropy."""

        return self._learns and (self._alone if self._clean.is_same(x) else again)

    def learn(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the gradient of the cross-entropy to images and weights; returns the one to the images, and the
        logits.
        """

        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        with torch.inference_mode(False), torch.enable_grad(), a_pass():
            asked = self.ask(x, again=True)
            logits = at_least_float32(asked.logits)
            total = F.cross_entropy(logits, differentiable(y), reduction="sum")
            gradient, *to_weights = _gradients(total, (asked.x, *weights), keep=True)
        if logits is asked.logits:
            asked.known = _Known(_Snapshot(y), total.detach(), weights, to_weights)
        return torch.zeros_like(x) if gradient is None else gradient, asked.logits.detach()

    @wraps_classifier
    def logits(self, view: Tensor) -> Tensor:
        """The logits (B, K) of a view, for the loss: gradients flow from them only to the weights."""

        asked = self._find(view)
        if asked is None:
            return ask(self._forward[0], view)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        logits: Tensor = _ToWeights.apply(asked, *weights)
        if asked.known is not None:
            setattr(logits, _KNOWN, asked.known)
        return logits

    def _find(self, x: Tensor) -> _Asked | None:
        return next((asked for asked in self._asked if asked.images.is_same(x)), None)


class Meter:
    """Measures the time of a device in passes, without waiting for it before the reading.

    Args:
        device: the device: a CPU is measured with the clock, CUDA with events in its stream.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds = 0.0
        self._events: list[tuple[Any, Any]] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        """Measures the time of every :func:`a_pass` inside."""

        token = _METER.set(self)
        try:
            yield
        finally:
            _METER.reset(token)

    def read(self) -> float | None:
        """The seconds since the last reading, ``None`` if the device has no clock."""

        if self.device.type not in ("cpu", "cuda"):
            return None
        if self._events:
            self._events[-1][1].synchronize()
        self._seconds += sum(begin.elapsed_time(end) / 1e3 for begin, end in self._events)
        seconds, self._seconds = self._seconds, 0.0
        self._events.clear()
        return seconds

    @contextmanager
    def _span(self) -> Iterator[None]:
        if self.device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - began


@contextmanager
def a_pass() -> Iterator[None]:
    """Marks a pass through a model, forward or backward: an active :class:`Meter` measures its time."""

    meter = _METER.get()
    if meter is None:
        yield
    else:
        with meter._span():
            yield


_METER: ContextVar[Meter | None] = ContextVar("meter", default=None)
_KNOWN = "_asgt_known"


class _Snapshot:
    """A tensor as it is now, to be recognised: the same memory, unchanged."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.version = -1 if tensor.is_inference() else tensor._version

    def is_same(self, other: Tensor) -> bool:
        mine = self.tensor
        return (
            other.data_ptr() == mine.data_ptr()
            and (other.dtype, other.shape, other.stride()) == (mine.dtype, mine.shape, mine.stride())
            and not other.is_inference()
            and other._version == mine._version == self.version
        )


@dataclass
class _Known:
    """The cross-entropy of a batch, summed, and its gradient to the weights."""

    labels: _Snapshot
    total: Tensor
    weights: Sequence[Tensor]
    gradients: list[Tensor | None]


@dataclass
class _Asked:
    """A forward pass: a leaf of the graph, and the logits at its end."""

    x: Tensor
    logits: Tensor
    kept: bool
    images: _Snapshot
    known: _Known | None = field(default=None)

    @classmethod
    def by(cls, model: Classifier, x: Tensor, kept: bool = False) -> _Asked:
        leaf = x.detach().clone().requires_grad_()
        return cls(leaf, ask(model, leaf, owned=True), kept, _Snapshot(x))


class _ToWeights(torch.autograd.Function):
    """The logits of a pass; what comes back goes on to the weights, and costs no gradient to the images."""

    @staticmethod
    def forward(ctx: Any, asked: _Asked, *weights: Tensor) -> Tensor:
        ctx.asked, ctx.of = asked, weights
        return asked.logits.detach().clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        wanted = [weight for weight, needed in zip(ctx.of, ctx.needs_input_grad[1:], strict=True) if needed]
        gradients = iter(
            torch.autograd.grad(
                ctx.asked.logits,
                wanted,
                gradient,
                # As whoever called backward has it for the rest of the graph.
                retain_graph=torch._C._autograd._get_current_graph_task_keep_graph(),
                allow_unused=True,
            )
        )
        return None, *(next(gradients) if needed else None for needed in ctx.needs_input_grad[1:])


class _Delivered(torch.autograd.Function):
    """A sum whose gradient to the weights is known already."""

    @staticmethod
    def forward(ctx: Any, known: _Known, *weights: Tensor) -> Tensor:
        ctx.gradients = known.gradients
        return known.total.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, *(None if known is None else gradient.to(known.dtype) * known for known in ctx.gradients)


@contextmanager
def slopes_needed(needed: bool = True) -> Iterator[None]:
    """Inside, an output without a graph is refused: a gradient attack on it would not change any image.

    An evaluation does not need this, because its checks detect it.
    """

    token = _SLOPES.set(needed)
    try:
        yield
    finally:
        _SLOPES.reset(token)


_SLOPES: ContextVar[bool] = ContextVar("slopes", default=False)


def _gradients(total: Tensor, to: Tensor | tuple[Tensor, ...], keep: bool) -> list[Tensor | None]:
    # An answer that does not depend on the image, or not so that autograd knows, has no slope to follow.
    if not total.requires_grad:
        if _SLOPES.get():
            raise InputError(
                "the model's logits have no gradient: look for no_grad, inference_mode or detach in the model, or "
                "attack it with Square"
            )
        return [None] * (1 if isinstance(to, Tensor) else len(to))
    return list(torch.autograd.grad(total, to, retain_graph=keep, allow_unused=True))


_SAME_WHEN_EVALUATED = frozenset(
    {
        *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
        *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    }
)

_SAME_IN_BOTH_MODES = frozenset(
    {
        *(nn.Sequential, nn.ModuleList, nn.ModuleDict, nn.Identity, nn.Flatten, nn.Unflatten),
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
        *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm),
        *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
        *(nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softmax, nn.LogSoftmax),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
        *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
        *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
        *(nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.Upsample, nn.PixelShuffle),
    }
)
