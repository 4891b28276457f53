"""A training step that is recorded once as a CUDA graph and then replayed.

A step of a small network has hundreds of small kernels, and launching them takes longer than running them. A
recorded step is one launch. The inputs that differ between steps are in fixed places: images, labels and ε in their
tensors, the noise in the seeds of its generators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..randomness import Generators

__all__ = ["GraphedStep"]

_PLAIN = 3  # steps before the recording: what libraries set up at their first call does not belong in it


@dataclass
class _Recording:
    """A graph, and the memory that it reads from and writes to."""

    graph: torch.cuda.CUDAGraph
    x: Tensor
    y: Tensor
    shortcut: Tensor | None
    eps: Tensor | None
    generators: tuple[torch.Generator, ...]
    measured: dict[str, Tensor]
    gradients: list[Tensor | None]


class GraphedStep:
    """The gradients and metrics of a step, equal to those of the recorded function up to rounding.

    Args:
        compute: from images (B, C, H, W), labels (B,), ε, generators and, where there is one, the mask of the shortcut
            to the metrics, storing each weight's gradient in its ``grad``, which it sets to ``None`` first. Every call
            does the same work on the device, waits for nothing, and draws noise from these generators and the global
            one alone.
        model: the owner of the weights.
    """

    def __init__(
        self,
        compute: Callable[..., dict[str, Tensor]],
        model: nn.Module,
    ) -> None:
        self.compute = compute
        self.weights = list(model.parameters())
        self.stream = torch.cuda.Stream()
        self.taken = 0
        self.recording: _Recording | None = None

    def __call__(
        self, x: Tensor, y: Tensor, eps: float | None, generators: Generators, shortcut: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The metrics of a step, on the device, until the next one.

        Args:
            x: images (B, C, H, W), of one shape in all calls.
            y: labels (B,).
            eps: the radius of the attack inside, or ``None`` in every call.
            generators: new generators; only their seeds are used.
            shortcut: the mask of the shortcut, bool (B, H, W), or ``None`` in every call.

        Raises:
            InputError: the step cannot be recorded. PyTorch's generators may be unusable afterwards in this process.
        """

        if self.taken < _PLAIN:
            self.taken += 1
            return self._plain(x, y, eps, generators, shortcut)
        if self.recording is None:
            self.recording = self._record(x, y, eps, generators, shortcut)
        return self._replay(self.recording, x, y, eps, generators, shortcut=shortcut)

    def _plain(
        self, x: Tensor, y: Tensor, eps: float | None, generators: Generators, shortcut: Tensor | None
    ) -> dict[str, Tensor]:
        """A step as it is, in the stream of the recording."""

        usual = torch.cuda.current_stream()
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            measured = self.compute(x, y, eps, generators, *_told(shortcut))
        usual.wait_stream(self.stream)
        return measured

    def _record(
        self, x: Tensor, y: Tensor, eps: float | None, generators: Generators, shortcut: Tensor | None
    ) -> _Recording:
        """The recording of a step: nothing runs yet."""

        graph = torch.cuda.CUDAGraph()
        own = tuple(torch.Generator(x.device) for _ in _plain_generators(generators))
        for generator in own:
            graph.register_generator_state(generator)
        x, y, shortcut = x.clone(), y.clone(), None if shortcut is None else shortcut.clone()
        radius = None if eps is None else torch.full((), eps, dtype=x.dtype, device=x.device)
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                measured = self.compute(x, y, radius, Generators(*own), *_told(shortcut))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # What went wrong comes before what the recording says of having been broken off.
            cause = str(error.__context__ or error).strip().splitlines()[0]
            raise InputError(f"a step cannot be recorded ({cause}): train with --cuda-graphs false") from error
        gradients = [weight.grad for weight in self.weights]
        return _Recording(graph, x, y, shortcut, radius, generators=own, measured=measured, gradients=gradients)

    def _replay(
        self,
        recorded: _Recording,
        x: Tensor,
        y: Tensor,
        eps: float | None,
        generators: Generators,
        *,
        shortcut: Tensor | None,
    ) -> dict[str, Tensor]:
        recorded.x.copy_(x)
        recorded.y.copy_(y)
        if recorded.shortcut is not None and shortcut is not None:
            recorded.shortcut.copy_(shortcut)
        if recorded.eps is not None and eps is not None:
            recorded.eps.fill_(eps)
        for own, fresh in zip(recorded.generators, _plain_generators(generators), strict=True):
            own.manual_seed(fresh.initial_seed())
        recorded.graph.replay()
        for weight, gradient in zip(self.weights, recorded.gradients, strict=True):
            weight.grad = gradient
        return recorded.measured


def _told(shortcut: Tensor | None) -> tuple[Tensor, ...]:
    """The mask of the shortcut as one more argument, where there is one."""

    return () if shortcut is None else (shortcut,)


def _plain_generators(generators: Generators) -> list[torch.Generator]:
    both = (generators.attack, generators.mask)
    return [generator for generator in both if isinstance(generator, torch.Generator)]
