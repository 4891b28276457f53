"""Models by name: the built-in ones, those of timm and transformers, and the user's.

A model is always ``Sequential(normalize, net)``: images in [0, 1] in, logits out.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..errors import InputError, unknown
from ..names import is_foreign
from ..plugins import imported
from .footprint import refuse_model
from .head import logit_count
from .normalize import Cast, Normalize, precision_of
from .paper_alexnet import alexnet
from .pretrained import build_hf, build_timm
from .resnet import resnet18
from .small_net import small_cnn

__all__ = ["MODELS", "build_model"]

MODELS: dict[str, Callable[..., nn.Module]] = {"alexnet": alexnet, "resnet18": resnet18, "small_cnn": small_cnn}
"""The models that asgt builds itself, by name: ``factory(channels, size, classes, **options)``."""

_SMALLEST = {"alexnet": 16, "resnet18": 8, "small_cnn": 4}


def build_model(
    name: str,
    shape: tuple[int, int, int],
    classes: int | None,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    pretrained: bool = False,
    factory: Callable[..., nn.Module] | None = None,
    exact: bool = True,
    **options: float,
) -> nn.Sequential:
    """Builds a classifier with its normalisation inside.

    Args:
        name: ``small_cnn``, ``alexnet``, ``resnet18``, ``timm:NAME``, ``hf:FOLDER_OR_ID``, or
            ``package.module:factory``. A factory is called with the arguments ``num_classes``, ``in_channels`` and
            ``image_size``, if its signature has them.
        shape: (C, H, W) of the images.
        classes: K, the number of logits; ``None`` uses the model's number.
        mean: per channel, in [0, 1], or one for all. Default: no normalisation.
        std: per channel, or one for all.
        pretrained: for ``timm:NAME``, load timm's weights. ``hf:`` models always load theirs.
        factory: the function for a foreign name. Default: it is imported.
        exact: refuse a model whose number of logits differs from ``classes``, such as one with a fixed head.
        options: ``width`` and ``dropout``, if the model has them.

    Returns:
        ``Sequential(normalize, net)``, checked to return (B, K) logits.

    Raises:
        InputError: the name, an option or the shape is invalid.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("resnet18", shape=(3, 32, 32), classes=10, mean=(0.5,), std=(0.25,), width=0.125)
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    channels, height, width = shape

    if (mean is None) != (std is None):
        name_of = {True: ("std", "mean"), False: ("mean", "std")}[mean is None]
        raise InputError(f"{name_of[0]} without {name_of[1]}: give them together, or neither")
    if pretrained and not name.startswith("timm:"):
        raise InputError(f"pretrained: {name} has no weights to choose from, remove it")
    if name.startswith(("timm:", "hf:")) and options:
        raise InputError(f"{name} has no option {', '.join(options)}: choose another model")
    refuse_model(name, None, shape, classes)
    if name.startswith("timm:"):
        net = build_timm(name.removeprefix("timm:"), channels, classes, (height, width), pretrained)
    elif name.startswith("hf:"):
        net = build_hf(name.removeprefix("hf:"))
    elif is_foreign(name):
        net = _foreign(name, imported(name, "model") if factory is None else factory, shape, classes, options)
    elif name in MODELS:
        if min(height, width) < _SMALLEST[name]:
            raise InputError(f"{name} needs images of at least {_SMALLEST[name]} px, these have {min(height, width)}")
        if classes is None:
            raise InputError(f"{name} needs the number of classes: give classes")
        _check_options(name, MODELS[name], options)
        refuse_model(name, MODELS[name], shape, classes, options=options)
        net = MODELS[name](channels, height if height == width else (height, width), classes, **options)
    elif name.startswith("hub:"):
        raise InputError(
            f"{name}: an exported model has its own weights: use asgt evaluate --model {name} or "
            "asgt.from_pretrained; to continue its training, give --model ARCHITECTURE --weights DIR/model.safetensors"
        )
    else:
        raise unknown("model", name, [*MODELS, "timm:NAME", "hf:FOLDER_OR_ID", "package.module:factory"])

    normalize: nn.Module = nn.Identity() if mean is None or std is None else Normalize(mean, std)
    if isinstance(normalize, Normalize) and normalize.mean.shape[0] not in (1, channels):
        raise InputError(f"{normalize.mean.shape[0]} means for images of {channels} channels")

    model = nn.Sequential(OrderedDict(normalize=normalize, net=net))
    if (dtype := precision_of(net)) != torch.float32 and isinstance(normalize, Normalize):
        # Normalised in float32 and cast then, as whoever trained the net in another precision does.
        model = nn.Sequential(OrderedDict(normalize=normalize, cast=Cast(dtype), net=net))
    _check_logits(name, model, shape, classes if exact else None)
    return model


def _foreign(
    name: str, factory: Any, shape: tuple[int, int, int], classes: int | None, options: dict[str, float]
) -> nn.Module:
    if isinstance(factory, nn.Module):
        raise InputError(f"model {name} is already a model: name a function that makes it")
    if not callable(factory):
        raise InputError(f"model {name} is {type(factory).__name__}, not a function that makes a model")

    known: dict[str, Any] = {"in_channels": shape[0], "image_size": shape[1], **options}
    if classes is not None:
        known["num_classes"] = classes
    try:
        parameters = dict(inspect.signature(factory).parameters)
    except (TypeError, ValueError) as error:
        raise InputError(f"model {name} is not a function that makes a model: {error}") from error
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        # What hides its names behind ** takes at least the field's most common one.
        parameters["num_classes"] = inspect.Parameter("num_classes", inspect.Parameter.KEYWORD_ONLY)
    if ignored := [option for option in options if option not in parameters]:
        raise InputError(f"model {name} has no option {', '.join(ignored)}: remove it")

    try:
        net = factory(**{key: value for key, value in known.items() if key in parameters})
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything
        raise InputError(f"model {name} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise InputError(f"model {name} returned {type(net).__name__}, not a torch.nn.Module")
    return net


def _check_options(name: str, factory: Callable[..., nn.Module], options: dict[str, float]) -> None:
    for option, value in options.items():
        if option not in inspect.signature(factory).parameters:
            raise InputError(f"model {name} ignores --{option}: remove the flag")
        if option == "width" and not 0 < value <= 16:
            raise InputError(f"width = {value:g}: give a factor above 0 and at most 16")
        if option == "dropout" and not 0 <= value < 1:
            raise InputError(f"dropout = {value}: give a share in [0, 1)")


def _check_logits(name: str, model: nn.Module, shape: tuple[int, int, int], classes: int | None) -> None:
    logits = logit_count(model, shape, name)
    if classes is not None and logits != classes:
        raise InputError(
            f"model {name} gives {logits} logits, the data has {classes} classes: assign them to logits with --classes"
        )
