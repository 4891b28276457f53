"""Devices by name, and models on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .errors import InputError

__all__ = ["device_name", "place", "resolve_device", "tensor_cores"]


def resolve_device(name: str) -> torch.device:
    """The device of a name; ``auto`` takes CUDA, then Apple's MPS, then the CPU.

    Raises:
        InputError: there is no such device here.
    """

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {name}: this machine has none")
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device {name!r} is unknown: use auto, cpu, cuda, cuda:N or mps")
    return device


def device_name(device: torch.device) -> str:
    """What a device is called: a card by its maker's name, another by its type."""

    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself, on a device, its convolutions with the channels of a pixel side by side: they run faster so."""

    model = model.to(device)
    for weight in model.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return model


@contextmanager
def tensor_cores(wanted: bool) -> Iterator[None]:
    """Lets CUDA's tensor cores multiply float32 matrices, their factors rounded to TF32's 10 bits, and puts it back.

    Of convolutions PyTorch lets them do so as it is.
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
