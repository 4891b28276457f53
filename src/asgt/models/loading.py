"""Models by name, and weights from files that cannot run anything.

A model is always ``Sequential(normalize, net)``: images in [0, 1] in, logits out.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DamagedFileError, InputError, unknown
from ..files import read_tensors
from ..modes import evaluating
from ..names import is_foreign
from .alexnet import alexnet
from .normalize import Normalize
from .resnet import resnet18
from .small_cnn import small_cnn

__all__ = ["MODELS", "build_model", "load_weights"]

MODELS: dict[str, Callable[..., nn.Module]] = {"alexnet": alexnet, "resnet18": resnet18, "small_cnn": small_cnn}
"""The models that asgt builds itself, by name: ``factory(channels, size, classes, **options)``."""

_SMALLEST = {"alexnet": 16, "resnet18": 8, "small_cnn": 4}


def build_model(
    name: str,
    shape: tuple[int, int, int],
    classes: int,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **options: float,
) -> nn.Sequential:
    """Builds a classifier with its normalisation inside.

    Args:
        name: ``small_cnn``, ``alexnet``, ``resnet18``, ``timm:NAME`` where timm can be imported, or
            ``package.module:factory``. A factory is called with those of ``num_classes``, ``in_channels`` and
            ``image_size`` that its signature names.
        shape: (C, H, W) of the images.
        classes: K, the number of logits.
        mean: per channel, in [0, 1]. Default: no normalisation.
        std: per channel.
        options: ``width`` and ``dropout``, where the model has them.

    Returns:
        ``Sequential(normalize, net)``, checked to give (B, K) logits.

    Raises:
        InputError: the name, an option or the shape does not fit.
    """

    channels, height, width = shape

    if name.startswith("timm:"):
        net = _timm(name.removeprefix("timm:"), shape, classes, options)
    elif is_foreign(name):
        net = _foreign(name, shape, classes, options)
    elif name in MODELS:
        if height != width:
            raise InputError(
                f"{name} takes square images, these are {height}×{width}: use --image-size {min(height, width)}"
            )
        if height < _SMALLEST[name]:
            raise InputError(f"{name} needs images of at least {_SMALLEST[name]} px, these have {height}")
        _check_options(name, MODELS[name], options)
        net = MODELS[name](channels, height, classes, **options)
    else:
        raise unknown("model", name, [*MODELS, "timm:NAME", "package.module:factory"])

    normalize = nn.Identity() if mean is None or std is None else Normalize(mean, std)
    if isinstance(normalize, Normalize) and normalize.mean.shape[0] not in (1, channels):
        raise InputError(f"{normalize.mean.shape[0]} means for images of {channels} channels")

    model = nn.Sequential(OrderedDict(normalize=normalize, net=net))
    _check_logits(name, model, shape, classes)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads weights from safetensors, or from a PyTorch file read with ``weights_only=True``: nothing in it can run.

    Weights of the net alone fit too, and so do those saved under a ``module.`` prefix. Where the file holds a
    normalisation and the model was built without one, the model gets that of the file.

    Raises:
        DamagedFileError: the file cannot be read whole.
        InputError: it holds the weights of another model.
    """

    weights = _read_weights(path)
    weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}

    # Weights of asgt bring their normalisation along; others are those of the net alone.
    own = {"normalize.mean", "normalize.std"} <= weights.keys()
    if own and isinstance(model, nn.Sequential) and isinstance(model.normalize, nn.Identity):
        model.normalize = Normalize(*(weights[f"normalize.{name}"].flatten().tolist() for name in ("mean", "std")))
    target = model
    inner = getattr(model, "net", None)
    if isinstance(inner, nn.Module) and weights.keys() == inner.state_dict().keys():
        target = inner

    try:
        target.load_state_dict(weights)
    except RuntimeError as error:
        reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        reason = reasons[0] if reasons else str(error)
        raise InputError(f"{path} holds the weights of another model: {reason[:200]}") from error

    if any(not tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point()):
        raise InputError(f"{path} holds weights that are NaN or infinite")


def _read_weights(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_tensors(path)[0]
    if not path.is_file():
        raise InputError(f"there is no file {path}")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged zip, a damaged pickle, a refused global: PyTorch has a type for each
        # Its own message advises to trust the file, which may run anything.
        raise DamagedFileError(
            f"{path} is damaged, or holds more than plain weights: save model.state_dict() alone, or safetensors"
        ) from error

    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise InputError(f"{path} holds no state dict: expected tensors by name")
    return content


def _timm(name: str, shape: tuple[int, int, int], classes: int, options: dict[str, float]) -> nn.Module:
    try:
        import timm
    except Exception as error:  # timm imports torchvision, which fails in many ways beside a torch it was not built for
        raise InputError(
            f"timm:{name}: timm cannot be imported here ({type(error).__name__}): install timm, and a torchvision that "
            "matches this torch"
        ) from error

    if options:
        raise InputError(f"timm:{name} takes no {', '.join(options)}: choose another timm model instead")
    try:
        net: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, in_chans=shape[0])
    except RuntimeError as error:
        raise unknown("timm model", name, timm.list_models(f"*{name[:4]}*")) from error
    return net


def _foreign(name: str, shape: tuple[int, int, int], classes: int, options: dict[str, float]) -> nn.Module:
    module_name, _, attribute = name.partition(":")

    # A user's own file lies where they stand, which a console script does not search.
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"model {name}: {error}; write package.module:factory, importable from here") from error

    if not callable(factory):
        raise InputError(f"model {name} is {type(factory).__name__}, not a function that makes a model")

    known: dict[str, Any] = {"num_classes": classes, "in_channels": shape[0], "image_size": shape[1], **options}
    parameters = dict(inspect.signature(factory).parameters)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        # What hides its names behind ** takes at least the field's most common one.
        parameters["num_classes"] = inspect.Parameter("num_classes", inspect.Parameter.KEYWORD_ONLY)
    if ignored := [option for option in options if option not in parameters]:
        raise InputError(f"model {name} takes no {', '.join(ignored)}")

    try:
        net = factory(**{key: value for key, value in known.items() if key in parameters})
    except Exception as error:  # a stranger's code may raise anything
        raise InputError(f"model {name} cannot be built: {type(error).__name__}: {error}") from error
    if not isinstance(net, nn.Module):
        raise InputError(f"model {name} returned {type(net).__name__}, not a torch.nn.Module")
    return net


def _check_options(name: str, factory: Callable[..., nn.Module], options: dict[str, float]) -> None:
    for option, value in options.items():
        if option not in inspect.signature(factory).parameters:
            raise InputError(f"model {name} ignores --{option}: leave it out")
        if option == "width" and not 0 < value <= 16:
            raise InputError(f"width = {value}: the factor lies above 0 and at most at 16")
        if option == "dropout" and not 0 <= value < 1:
            raise InputError(f"dropout = {value}: the share lies in [0, 1)")


def _check_logits(name: str, model: nn.Module, shape: tuple[int, int, int], classes: int) -> None:
    try:
        with evaluating(model), torch.no_grad():
            logits = model(torch.zeros(2, *shape))
    except Exception as error:  # a stranger's code may raise anything
        first = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise InputError(f"model {name} cannot take images of shape {tuple(shape)}: {first}") from error

    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        got = tuple(logits.shape[1:]) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"model {name} gives outputs of shape {got} per image, the data has {classes} classes")
