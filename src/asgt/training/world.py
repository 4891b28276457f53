r"""The processes that train one model together.

Each holds the whole model and takes an even part of every batch. The mean of their gradients,

.. math:: \nabla L = \frac{1}{W} \sum_{r=1}^{W} \nabla L(B_r), \qquad B = B_1 \cup \dots \cup B_W

is the gradient of the whole batch, as every term of every loss is a mean over samples; so all make the step that one
process would make. One reduction a step carries gradients, the statistics of BatchNorm and the metrics, and all
processes have the same state afterwards: any of them could save it.

``DistributedDataParallel`` is not used here. It reduces inside the backward pass and copies the main process's
buffers to the others before every forward, which a loss of several views, whose forwards may be shared with an attack,
must avoid; its gain, the reduction during the backward pass, is small compared with the passes of such a step.
Its gradients are these, bit for bit (ASGT-FGSM, ``small_cnn``, two processes over Gloo); a step with it took 0.97 of
the time (ResNet-18 at a quarter of its width, 8 images to each process, six steps of both in turn on a busy machine).
"""

from __future__ import annotations

import atexit
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, PartialState
from torch import Tensor, nn

from ..devices import resolve_device
from ..errors import InputError, InterruptedRunError
from ..launch import check_rendezvous, launched
from ..randomness import Share

__all__ = ["World", "is_joined", "join"]

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """All processes of a training, from the view of one; by default there is only one, without communication.

    Operations that can fail on a single process go through :meth:`together`, :meth:`main_first` or :meth:`from_main`:
    each is called by all, at the same place, and a failure of one is raised by all, so that none waits for one that
    has ended.

    Args:
        rank: the number of this process; 0 is the main one.
        size: the number of processes.
        host: the group for exchanging small objects, for tensors on any device.
    """

    rank: int = 0
    size: int = 1
    host: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""

        return self.rank == 0

    def share(self, generator: torch.Generator) -> torch.Generator | Share:
        """This process's part of the noise of whole batches."""

        return generator if self.size == 1 else Share(generator, self.rank, self.size)

    # What a step needs ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def average(self, model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Averages over all processes: gradients and BatchNorm's running statistics in place, and scalars ``values``.

        Attacks use the model in evaluation mode. With separate statistics, each process would attack another model,
        and only the main one's would be saved.
        """

        if self.size == 1:
            return dict(values)

        weights = [weight for weight in model.parameters() if weight.requires_grad]
        for weight in weights:
            # What no view reached here may have been reached elsewhere.
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        kept = [weight.grad for weight in weights if weight.grad is not None]
        kept += [buffer for name, buffer in model.named_buffers() if name.endswith(("running_mean", "running_var"))]

        flat = torch.cat([tensor.detach().flatten() for tensor in (*kept, *values.values())])
        with self._all_there():
            dist.all_reduce(flat)
        flat /= self.size

        parts = flat.split([tensor.numel() for tensor in kept] + [1] * len(values))
        for tensor, part in zip(kept, parts, strict=False):
            tensor.copy_(part.view_as(tensor))
        return {name: part.squeeze() for name, part in zip(values, parts[len(kept) :], strict=True)}

    def most(self, number: int) -> int:
        """The largest of the processes' numbers, computed without using the device."""

        if self.size == 1:
            return number
        told = torch.tensor(number)
        with self._all_there():
            dist.all_reduce(told, dist.ReduceOp.MAX, group=self.host)
        return int(told)

    # What an epoch needs ----------------------------------------------------------------------------------------------

    def part(self, count: int) -> slice:
        """Which of ``count`` rows are this process's; where there are fewer rows than processes, each takes all."""

        if count < self.size:
            return slice(0, count)
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def whole(self, own: Tensor, count: int) -> Tensor:
        """All ``count`` rows (N,) of whole numbers or truths, of which every process has its :meth:`part`."""

        if len(own) == count:
            return own
        rows = torch.zeros(count, dtype=torch.int64, device=own.device)
        rows[self.part(count)] = own.long()
        with self._all_there():
            dist.all_reduce(rows)
        return rows.to(own.dtype)

    # What a run needs -------------------------------------------------------------------------------------------------

    def together(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of ``call`` on this process, after it succeeded on all.

        Raises:
            InputError: another process found its input wrong.
            InterruptedRunError: another process failed with an internal error, which it reports itself.
        """

        if self.size == 1:
            return call(*args, **kwargs)
        failure: Exception | None = None
        try:
            value = call(*args, **kwargs)
        except Exception as error:
            failure = error
        told = self.gathered(None if failure is None else (isinstance(failure, InputError), str(failure)))
        if failure is not None:
            raise failure
        for rank, found in enumerate(told):
            if found is not None:
                kind = InputError if found[0] else InterruptedRunError
                raise kind(f"process {rank} of {self.size}: {found[1]}")
        return value

    def main_first(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, on the main process before the others, so that they find what it downloads or decodes."""

        if self.is_main:
            value = self.together(call, *args, **kwargs)
            self.together(_nothing)
        else:
            self.together(_nothing)
            value = self.together(call, *args, **kwargs)
        return value

    def from_main(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls ``call`` on the main process only, and returns its result on all."""

        if self.size == 1:
            return call(*args, **kwargs)
        value: list[T | None] = [None]
        if self.is_main:
            value = [self.together(call, *args, **kwargs)]
        else:
            self.together(_nothing)
        with self._all_there():
            dist.broadcast_object_list(value, group=self.host)
        return value[0]  # type: ignore[return-value]

    def spread(self, model: nn.Module) -> None:
        """Copies the main process's weights and buffers to all; the seed does not control random numbers of foreign
        code.
        """

        if self.size > 1:
            with self._all_there():
                for tensor in model.state_dict().values():
                    dist.broadcast(tensor, 0)

    def gathered(self, value: T) -> list[T]:
        """The values of all processes, by rank."""

        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        with self._all_there():
            dist.all_gather_object(values, value, group=self.host)
        return values  # type: ignore[return-value]

    @contextmanager
    def _all_there(self) -> Iterator[None]:
        try:
            yield
        # What Gloo and NCCL raise when a connection closes, or nothing came through it for long.
        except RuntimeError as error:
            raise InterruptedRunError(
                f"process {self.rank} of {self.size}, on {platform.node()}, has lost another one: continue from "
                "the last checkpoint with --resume"
            ) from error


def _nothing() -> None:
    """What a process does while another one works."""


def join(device: str) -> World:
    """The processes that a launcher started, after all of them have joined.

    Args:
        device: the name of the requested device.

    Raises:
        InputError: several processes cannot train on that device, or the way of launching is not supported.
    """

    if launched() == 1:
        return World()
    kind = resolve_device(device)
    if kind.type == "mps" or ":" in device:
        raise InputError(
            f"--device {device} is one device, and {launched()} processes were launched: use --device cuda or cpu"
        )
    check_rendezvous()

    AcceleratorState._reset_state(reset_partial_state=True)
    state = PartialState(cpu=kind.type == "cpu")
    # However this process ends: the threads of its connections would otherwise end it by an abort.
    atexit.register(_leave)
    if state.num_processes != launched():
        raise InputError(
            f"WORLD_SIZE says {launched()} processes, but they are not connected: start them with torchrun or "
            "accelerate launch"
        )
    return World(state.process_index, state.num_processes, dist.new_group(backend="gloo"))


def _leave() -> None:
    if is_joined():
        dist.destroy_process_group()


def is_joined() -> bool:
    """Whether this process has found the others of a training."""

    return dist.is_available() and dist.is_initialized()
