"""A lower bound of the memory that a model needs for a batch, computed before allocation.

Only certain needs are counted, so that a batch that fits is never refused. A training holds the tensors that
autograd saves for the backward pass, or else the gradients of the weights. An evaluation holds the inputs of a layer
together with its outputs. Both are measured on PyTorch's meta device, which has shapes and no values: this allocates
nothing, computes nothing, and changes neither weights nor buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from math import prod
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from .. import capacity
from ..capacity import refuse_memory, size_text
from ..errors import InputError
from ..modes import evaluating

__all__ = ["refuse_batch", "refuse_model"]

_FLOAT = 4
_ORDINARY, _CLASSES = 2**15, 2**10
"""The number of values of a batch, and of logits, with which built-in models of width 1 need at most 300 MB."""

_PER_PIXEL = 2**12
"""The number of values per pixel, more than nearly all models need: ResNet-18 saves 1,152 in a training."""


def refuse_model(
    name: str,
    factory: Callable[..., nn.Module] | None,
    shape: tuple[int, int, int],
    classes: int | None,
    *,
    options: Mapping[str, float] | None = None,
    batch: int = 2,
    trained: bool = False,
) -> None:
    """Refuses a model that does not fit into memory, before it is built.

    Args:
        name: of the model, for messages.
        factory: builds it, as ``factory(channels, size, classes, **options)``; it is called on the meta device.
            Default: only the images are counted.
        shape: (C, H, W) of the images.
        classes: K, the number of logits.
        options: of the factory. Default: none.
        batch: images per pass; a model is tried on two when it is built.
        trained: whether its weights are trained.

    Raises:
        InputError: it needs more memory than is free; the message has the estimate and the remedy.
    """

    channels, height, width = shape
    images = f"{batch:,} images of {channels} × {height} × {width}" if max(batch, *shape) < 10**15 else "such images"
    mend = (
        "use smaller images, by --image-size or --data-shape" if batch == 2 else "use a smaller --batch-size or images"
    )
    refuse_memory(batch * (prod(shape) + (classes or 0)) * _FLOAT, f"{name} on {images}", mend)
    if factory is None or classes is None:
        return
    if classes > 2**31:
        raise InputError(f"{name} with {classes:.3g} classes: use at most {2**31:,}")
    if batch * prod(shape) <= _ORDINARY and classes <= _CLASSES and max((options or {}).values(), default=1) <= 1:
        return  # far from any limit: the trial below imports PyTorch's compiler, which takes over a second
    size = height if height == width else (height, width)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = factory(channels, size, classes, **(options or {}))
        weights = sum(weight.numel() for weight in model.parameters()) * _FLOAT
        refuse_memory(
            weights * (2 if trained else 1),  # with their gradients
            f"{name} with {weights // _FLOAT:,} weights for images of {channels} × {height} × {width}",
            f"{mend}, or a smaller --width",
        )
        needed = _least(model, shape, batch, trained)
    refuse_memory(weights + needed, f"{name} on {images}", f"{mend}, or a smaller --width")


def refuse_batch(
    model: nn.Module,
    shape: Sequence[int],
    batch: int,
    device: torch.device,
    *,
    trained: bool = False,
    half: bool = False,
) -> None:
    """Refuses a batch that does not fit into memory.

    Args:
        model: the classifier of images in [0, 1].
        shape: (C, H, W) of the images.
        batch: images per pass.
        device: its device; for an accelerator, the total memory counts.
        trained: whether its weights are trained.
        half: whether layers return 16-bit numbers, as with ``precision = "bf16"``.

    Raises:
        InputError: it needs more memory than there is; the message has the estimate and the remedy.
    """

    weights = [weight for weight in model.parameters() if not is_lazy(weight) and not weight.is_meta]
    gradients = sum(_bytes(weight) for weight in weights if weight.requires_grad) if trained else 0
    what = f"a batch of {batch:,} images of {' × '.join(map(str, shape))}"
    # The weights are in the CPU's memory already, and what is free does not contain them.
    there = 0 if device.type == "cpu" else sum(map(_bytes, weights))

    def refuse(needed: int) -> None:
        needed = there + max(gradients, needed // (2 if half else 1))
        if device.type == "cpu":
            refuse_memory(needed, what, "use a smaller --batch-size or smaller images")
        elif device.type == "cuda" and needed > (whole := _whole(device)):
            raise InputError(
                f"{what} needs at least {size_text(needed)} of memory, {device} has {size_text(whole)}: use a "
                "smaller --batch-size or smaller images"
            )

    refuse(batch * prod(shape) * _FLOAT)
    if device.type not in ("cpu", "cuda"):
        return
    room = capacity.free_memory() if device.type == "cpu" else _whole(device) - there
    if batch * prod(shape[1:]) * _PER_PIXEL * _FLOAT >= room:
        refuse(_least(model, shape, batch, trained))


def _whole(device: torch.device) -> int:
    """Bytes of the memory of an accelerator."""

    return int(torch.cuda.get_device_properties(device).total_memory)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _least(model: nn.Module, shape: Sequence[int], batch: int, trained: bool) -> int:
    """Bytes that a pass of a batch holds at once at least, without the model's own tensors.

    Some of what a pass holds does not grow with the batch, as a computed weight or a table of positions. So passes of
    one and of two images are measured. Both measures grow linearly or faster with the batch, so that the line through
    them is a lower bound.

    Where the model cannot run on the meta device, only the images are counted.
    """

    images = batch * prod(shape) * _FLOAT
    # Anything may fail in a stranger's model: one of TorchScript, one that looks at values or holds tensors of its own.
    with suppress(Exception):
        if any(map(_saves_as_it_likes, model.modules())):
            return images
        own = {name: _on_meta(each) for name, each in (*model.named_parameters(), *model.named_buffers())}
        measure = _saved if trained else _passed
        with torch.random.fork_rng(devices=[]), evaluating(model), torch.device("meta"), _NoAttention():
            one = measure(model, own, torch.zeros(1, *shape))
            two = one if batch == 1 else measure(model, own, torch.zeros(2, *shape))
        return max(images, one + (batch - 1) * (two - one))
    return images


def _saves_as_it_likes(module: nn.Module) -> bool:
    """Whether what a module saves on the meta device says nothing about what it saves elsewhere.

    A compiled module chooses what to compute again, transformers' checkpointing does so in training mode only, and a
    recurrent layer has other kernels on each device.
    """

    compiled = "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
    return compiled or getattr(module, "gradient_checkpointing", False) or isinstance(module, nn.RNNBase)


class _Attention(torch.autograd.Function):
    """What attention gives, in shape alone. It saves nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, value: Tensor) -> Tensor:
        return query.new_empty(*query.shape[:-1], value.shape[-1])


class _NoAttention(TorchFunctionMode):
    """Counts nothing inside attention: on the meta device it builds the matrix that other devices do without."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        query, _, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
        return _Attention.apply(query, value)


def _on_meta(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        raise TypeError("it has no shape yet")
    return torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)


class _Saved:
    """A tensor that autograd holds. It is alive as long as the graph that needs it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _saved(model: nn.Module, own: dict[str, Tensor], x: Tensor) -> int:
    """Bytes that autograd holds after a forward pass."""

    held: WeakSet[_Saved] = WeakSet()

    def pack(tensor: Tensor) -> _Saved:
        held.add(saved := _Saved(tensor))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor), torch.enable_grad():
        output = torch.func.functional_call(model, own, (x,))
        size = _distinct([saved.tensor for saved in held], own)
    del output  # the graph, and what it holds, lived until here
    return size


def _passed(model: nn.Module, own: dict[str, Tensor], x: Tensor) -> int:
    """Bytes of the inputs and outputs of the module that has most of them, where no gradient is asked for."""

    most = 0

    def look(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal most
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        most = max(most, _distinct([each for each in (*inputs, *outputs) if isinstance(each, Tensor)], own))

    with ExitStack() as stack, torch.no_grad():
        for module in model.modules():
            with suppress(RuntimeError):  # modules of TorchScript take no hooks
                stack.callback(module.register_forward_hook(look).remove)
        torch.func.functional_call(model, own, (x,))
    return most


def _distinct(tensors: Sequence[Tensor], own: dict[str, Tensor]) -> int:
    """Bytes behind tensors, each storage once: views share theirs. Those of the model itself do not count.

    On the meta device no storage has an address, so the storage objects themselves are compared.
    """

    storages = {storage._cdata: storage.nbytes() for storage in (each.untyped_storage() for each in tensors)}
    for each in own.values():
        storages.pop(each.untyped_storage()._cdata, None)
    return sum(storages.values())
