"""Devices by name, and models on them."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from .errors import InputError, shown
from .modes import ask, evaluating
from .passes import is_watched
from .randomness import seeded_globally

__all__ = ["device_name", "one_thread", "place", "resolve_device", "tensor_cores"]


def resolve_device(name: str) -> torch.device:
    """The device of a name; ``auto`` selects CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: the device does not exist.
    """

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {shown(name)} is unknown: use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices: use another one")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name}: this machine has none: use auto or cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {shown(name)} is unknown: use auto, cpu, cuda, cuda:N or mps")
    return device


def device_name(device: torch.device) -> str:
    """The name of a device: the model of a GPU, or the type of another device."""

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def place(model: nn.Module, device: torch.device, images: Tensor | None = None) -> nn.Module:
    """Moves the model to a device, with its convolutions in channels-last order, which is faster.

    Code that relies on the order in memory, such as ``x.view(len(x), -1)`` after a pooling layer, fails in this
    order. So a model with other layers than those of PyTorch and asgt is first tested on a copy, forward and backward.
    If this raises an error, gives other numbers, or is impossible, the order of its weights is unchanged.

    Args:
        model: the classifier.
        device: the device.
        images: a few images (B, C, H, W) in [0, 1] for this test. Default: without the test.


    Raises:
        InputError: the model cannot be moved there.
    """

    try:
        model = model.to(device)
    except (RuntimeError, NotImplementedError, AssertionError) as error:  # quantised, or on meta
        raise InputError(f"the model cannot be moved to {device}: {str(error).splitlines()[0]}") from error
    if _keeps_order(model) or (images is not None and _runs_alike(model, images[:2].to(device))):
        _put_channels_last(model)
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """Uses one CPU thread inside: the order of sums is then the same in every process."""

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _put_channels_last(model: nn.Module) -> None:
    # Weights that share memory without being the same parameter would be torn apart.
    weights = list(model.parameters())
    memory = Counter(weight.untyped_storage().data_ptr() for weight in weights)
    for weight in weights:
        if weight.ndim == 4 and memory[weight.untyped_storage().data_ptr()] == 1:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _keeps_order(model: nn.Module) -> bool:
    """Whether every module is known to give the same numbers in any order of memory."""

    return all(
        type(module).__module__.startswith(("torch.nn.modules.", "asgt.models."))
        and not is_watched(module)
        and not isinstance(module, nn.Unflatten)
        for module in model.modules()
    )


def _runs_alike(model: nn.Module, images: Tensor) -> bool:
    """Whether a copy of a model with such weights gives the same logits and gradients, to rounding, in both modes."""

    # A compiled or a traced module would be compiled again, or holds its weights elsewhere.
    if any(isinstance(module, torch.jit.ScriptModule) or hasattr(module, "_orig_mod") for module in model.modules()):
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plain, other = deepcopy(model), deepcopy(model)
            _put_channels_last(other)
            before, after = _answers(plain, images), _answers(other, images)
    except Exception:  # a stranger's code may raise anything
        return False
    return len(before) == len(after) and all(_is_close(one, two) for one, two in zip(before, after, strict=True))


def _is_close(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors are the same to rounding; what is NaN or infinite in one of them is so in both."""

    if one.shape != two.shape:
        return False
    finite = one[one.isfinite()].abs()
    scale = float(finite.amax()) if finite.numel() else 0.0
    return torch.allclose(one, two, rtol=1e-3, atol=1e-4 * scale + 1e-12, equal_nan=True)


def _answers(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Logits in evaluation mode and their gradients; a pass in training mode must only succeed."""

    with seeded_globally(0, images.device), torch.enable_grad():
        with evaluating(model):
            leaf = images.clone().requires_grad_()
            logits = ask(model, leaf)
            weights = [weight for weight in model.parameters() if weight.requires_grad]
            gradients = torch.autograd.grad(logits.logsumexp(dim=1).sum(), [leaf, *weights], allow_unused=True)
        model.train()
        ask(model, images.repeat(2, 1, 1, 1)).sum().backward()
    return [logits.detach(), *(gradient for gradient in gradients if gradient is not None)]


@contextmanager
def tensor_cores(wanted: bool) -> Iterator[None]:
    """Uses CUDA's tensor cores for float32 matrix products, with factors rounded to TF32's 10 bits, and restores the
    setting.

    For convolutions this is PyTorch's default.
    """

    # Where PyTorch's other way of saying so is in use, even asking is an error.
    if not wanted:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
