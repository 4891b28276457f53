"""The least memory that a model needs for a batch, known before there is one.

Counted are the images as floats, what each layer gives for them, and the weights: twice more of them in a training,
for their gradients and momentum. A backward pass needs all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..capacity import refuse_memory, size_text
from ..errors import InputError
from ..modes import evaluating

__all__ = ["refuse_batch", "refuse_model"]

_FLOAT = 4
_NO_COPY = (nn.Flatten, nn.Identity, nn.Dropout, nn.Unflatten)
"""Layers that may give what they took, without a copy."""

_ORDINARY, _CLASSES = 2**15, 2**10
"""Values of a batch, and logits, with which no model of ours in its own width needs more than 300 MB."""

_REPEATED = 3
"""Weights, their gradients and their momentum."""


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
    """Refuses a model that has no room here, before it is built.

    Args:
        name: of the model, for messages.
        factory: builds it, as ``factory(channels, size, classes, **options)``; it is called without memory for weights.
            Default: only the images are counted.
        shape: (C, H, W) of the images.
        classes: K, the number of logits.
        options: of the factory. Default: none.
        batch: images at a time; a model is tried on two when it is built.
        trained: whether its weights are trained.

    Raises:
        InputError: it needs more memory than is free; the line says the estimate and what to change.
    """

    channels, height, width = shape
    images = f"{batch:,} images of {channels} × {height} × {width}" if max(batch, *shape) < 10**15 else "such images"
    mend = "smaller images, by --image-size or --data-shape" if batch == 2 else "a smaller --batch-size or images"
    refuse_memory(batch * (prod(shape) + (classes or 0)) * _FLOAT, f"{name} on {images}", mend)
    if factory is None or classes is None:
        return
    if classes > 2**31:
        raise InputError(f"{name} with {classes:.3g} classes: at most {2**31:,} logits can be told apart")
    if batch * prod(shape) <= _ORDINARY and classes <= _CLASSES and max((options or {}).values(), default=1) <= 1:
        return  # far from any limit: the trial below imports PyTorch's compiler, which takes over a second
    size = height if height == width else (height, width)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = factory(channels, size, classes, **(options or {}))
        weights = sum(weight.numel() for weight in model.parameters()) * _FLOAT
        refuse_memory(
            weights * (_REPEATED if trained else 1),
            f"{name} with {weights // _FLOAT:,} weights for images of {channels} × {height} × {width}",
            f"{mend}, or a smaller --width",
        )
        given = _given(model, torch.zeros(1, *shape))
    refuse_memory(weights + batch * given, f"{name} on {images}", f"{mend}, or a smaller --width")


def refuse_batch(
    model: nn.Module,
    shape: Sequence[int],
    batch: int,
    device: torch.device,
    *,
    trained: bool = False,
    half: bool = False,
) -> None:
    """Refuses a batch that a model has no room for.

    Args:
        model: gives logits for images in [0, 1].
        shape: (C, H, W) of the images.
        batch: images at a time.
        device: where it will be; of an accelerator it is the whole memory that counts.
        trained: whether its weights are trained.
        half: whether layers give numbers of 16 bits, as with ``precision = "bf16"``.

    Raises:
        InputError: it needs more memory than there is; the line says the estimate and what to change.
    """

    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters() if not weight.is_meta)
    place = next(model.parameters(), torch.zeros(0)).device
    # A stranger's model may draw noise: the run's own draws stay what they are.
    devices = [place] if place.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), evaluating(model), torch.no_grad():
        given = _given(model, torch.zeros(1, *shape, device=place))
    needed = weights * (_REPEATED if trained else 1) + batch * given // (2 if half else 1)
    what = f"a batch of {batch:,} images of {' × '.join(map(str, shape))}"
    if device.type == "cpu":
        refuse_memory(needed, what, "a smaller --batch-size or smaller images")
    elif device.type == "cuda" and needed > (whole := torch.cuda.get_device_properties(device).total_memory):
        raise InputError(
            f"{what} needs at least {size_text(needed)} of memory, {device} has {size_text(whole)}: a smaller "
            "--batch-size or smaller images"
        )


def _given(model: nn.Module, x: Tensor) -> int:
    """Bytes of an image and of all that the layers give for it."""

    total = x.numel() * x.element_size()

    def count(module: nn.Module, _: Any, output: Any) -> None:
        nonlocal total
        if isinstance(output, Tensor) and not getattr(module, "inplace", False):
            total += output.numel() * output.element_size()

    leaves = [each for each in model.modules() if not any(each.children()) and not isinstance(each, _NO_COPY)]
    hooks = [each.register_forward_hook(count) for each in leaves]
    try:
        model(x)
    except Exception:  # a stranger's model that takes no single image: what is known of it is its images
        return total
    finally:
        for hook in hooks:
            hook.remove()
    return total // len(x)
