"""Devices by name, and models on them."""

from __future__ import annotations

import torch
from torch import nn

from .errors import InputError

__all__ = ["place", "resolve_device"]


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


def place(model: nn.Module, device: torch.device) -> nn.Module:
    """The model itself, on a device, its convolutions with the channels of a pixel side by side: they run faster so.

    On a CPU those stay as they are that say ``channels_apart = True``, as of :class:`asgt.models.layers.Conv2d`.
    """

    model = model.to(device)
    for module in model.modules():
        apart = device.type == "cpu" and getattr(module, "channels_apart", False)
        layout = torch.contiguous_format if apart else torch.channels_last
        for weight in module.parameters(recurse=False):
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=layout)
    return model
