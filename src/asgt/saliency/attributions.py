"""Maps by name: the contribution of each value of the image to a label.

asgt computes the plain gradient; Captum computes the others, except for SmoothGrad's noise. All have the same
interface and signed maps; the treatment of the sign (:func:`magnitude`) is a separate step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import AsgtError, InputError, unknown
from ..inputs import checked_images, checked_labels, is_trusted
from ..modes import Classifier, differentiable, evaluating
from ..names import file_name, is_foreign
from ..plugins import imported
from ..randomness import Generator, SampleKeyed, keys_like
from .attribution import Attribution, Watched
from .deeplift import DeepLIFT
from .gradcam import GradCAM
from .gradient import Target, saliency
from .integrated_gradients import InputXGradient, IntegratedGradients
from .smoothgrad import SmoothGrad

__all__ = [
    "ATTRIBUTIONS",
    "REDUCTION",
    "attribute",
    "attribution_class",
    "attribution_name",
    "attribution_settings",
    "magnitude",
    "to_numpy",
]

REDUCTION = "mean over channels of |a|"
"""A description of :func:`magnitude`, for the record."""


@dataclass(frozen=True)
class Gradient(Attribution):
    """The plain gradient, the same that the mask sorts by."""

    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        return saliency(model, x, y, target)


ATTRIBUTIONS: dict[str, type[Attribution]] = {
    "gradient": Gradient,
    "input-x-gradient": InputXGradient,
    "ig": IntegratedGradients,
    "smoothgrad": SmoothGrad,
    "gradcam": GradCAM,
    "deeplift": DeepLIFT,
}
"""The attributions by name; the fields of each are its settings."""


def attribution_class(name: str) -> type[Attribution]:
    """The attribution of a name.

    Args:
        name: of :data:`ATTRIBUTIONS`, or your own class as ``package.module:Class``, which is imported: the caller
            has checked that its code may run (:func:`asgt.names.refuse_unless_allowed`).

    Raises:
        InputError: the name is unknown, or the class is not a frozen dataclass that extends :class:`Attribution`.
    """

    if name in ATTRIBUTIONS:
        return ATTRIBUTIONS[name]
    if not is_foreign(name):
        raise unknown("attribution", name, ATTRIBUTIONS)

    file_name(name)
    own = imported(name, "attribution")
    if not (isinstance(own, type) and issubclass(own, Attribution) and is_dataclass(own)):
        raise InputError(f"attribution {name} is {own!r}: name a dataclass that extends asgt.saliency.Attribution")
    return own


def attribution_name(method: str | Attribution) -> str:
    """The name of an attribution in records: for your own instance, ``package.module:Class``."""

    if isinstance(method, str):
        return method
    known = {kind: name for name, kind in ATTRIBUTIONS.items()}
    return known.get(type(method), f"{type(method).__module__}:{type(method).__name__}")


def attribute(
    model: Classifier,
    x: Tensor,
    y: Tensor | None = None,
    method: str | Attribution = "gradient",
    *,
    target: Target = "logit",
    layer: str | None = None,
    generator: Generator | None = None,
    batch_size: int = 64,
    **settings: Any,
) -> Tensor:
    """The map of each image under a classifier.

    Args:
        model: the classifier, images to logits (B, K), put in evaluation mode for the call. ``"gradcam"`` and
            ``"deeplift"`` need an ``nn.Module``; the others take any function.
        x: images (B, C, H, W) in [0, 1].
        y: the labels that are explained, (B,), of any integer type. Default: the model's own predictions.
        method: a name of :data:`ATTRIBUTIONS`; your own class as ``package.module:Class``, which is imported; or an
            :class:`Attribution` with its settings.
        target: the score that is explained: the label's ``"logit"`` or its ``"log_prob"``.
        layer: for an attribution of a layer, such as ``"gradcam"``, the dotted name of the module whose output is the
            feature map. Default: the last feature map, if it can be found.
        generator: the source of noise for ``"smoothgrad"``: keyed noise, or PyTorch's on the device of the images; one
            draw for any batches. Default: PyTorch's global generator.
        batch_size: images, or copies of them, per pass; twice as many for ``"deeplift"``, which passes each with its
            baseline.
        settings: those of the method: ``samples`` and ``deviation`` of ``"smoothgrad"``, ``steps`` and ``baseline`` of
            ``"ig"``, ``baseline`` of ``"deeplift"``. An instance has its own settings.

    Returns:
        The signed maps (B, C, H, W), detached; NaN if the model returns NaN. GradCAM's one channel is repeated. No
        parameter's ``grad`` is touched.

    Raises:
        InputError: a name, a setting or a shape is wrong, or the method does not support the model.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> maps = asgt.attribute(model, x, y, "ig", steps=10)
        >>> maps.shape
        torch.Size([4, 1, 8, 8])
    """

    chosen = _chosen(method, layer, settings)
    if not is_trusted():
        x = checked_images(x)
    _check(x, target, batch_size)
    y = None if y is None else checked_labels(y, len(x), soft=False)

    maps = []
    with evaluating(model), torch.inference_mode(False), torch.enable_grad():
        x, y = x.detach().clone(), None if y is None else differentiable(y).to(x.device)
        watched = Watched(model, 0 if y is None else int(y.max()) + 1, owned=not chosen.package)
        keys = keys_like(x, generator) if chosen.draws_noise else None

        for rows in torch.arange(len(x), device=x.device).split(batch_size):
            images = x[rows]
            labels = _predictions(watched, images) if y is None else y[rows]
            noise = None if keys is None else SampleKeyed(0, keys[rows])
            with _explained(chosen):
                a = chosen.maps(watched, images, labels, target=target, generator=noise, batch_size=batch_size)
            _check_maps(a, images, method)
            nan = watched.nan(len(images)).to(a.device).view(-1, *[1] * (a.ndim - 1))
            maps.append(a.masked_fill(nan, torch.nan))

    return torch.cat(maps)


@contextmanager
def _explained(chosen: Attribution) -> Iterator[None]:
    """What somebody else's attribution raises, in one line that names it."""

    try:
        yield
    except AsgtError:
        raise
    except Exception as error:
        if type(chosen).__module__.startswith("asgt."):
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"attribution {attribution_name(chosen)} raised {type(error).__name__}: {first}") from error


def attribution_settings(
    method: str | Attribution,
    *,
    target: Target = "logit",
    layer: str | None = None,
    model: Classifier | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The settings for making the same maps again, in addition to the model, the images and the noise's key.

    Args:
        method: as for :func:`attribute`.
        target: the score that is explained.
        layer: of an attribution of a layer.
        model: the model in which such an attribution finds its layer, if none is named.
        settings: of the method, as for :func:`attribute`.

    Returns:
        Names to values, defaults included; how channels become one (:func:`magnitude`), and Captum's version where it
        computes the maps.
    """

    chosen = _chosen(method, layer, settings)
    if model is not None:
        chosen = chosen.resolved(model)
    record = {"method": attribution_name(method), "target": target, **asdict(chosen), "reduction": REDUCTION}
    if chosen.package:
        record[chosen.package] = version(chosen.package)
    return record


def magnitude(a: Tensor) -> Tensor:
    """The strength of each pixel: the mean of \\|a\\| over the channels, (B, C, H, W) to (B, H, W)."""

    return a.abs().mean(dim=1)


def to_numpy(a: Tensor) -> np.ndarray:
    """Maps as arrays for other libraries: float32 (B, C, H, W), C-contiguous, on the CPU.

    Quantus, for example, uses the model, images, labels and maps unchanged::

        maps = attribute(model, x, y, "ig")
        quantus.Sparseness()(model=model, x_batch=to_numpy(x), y_batch=y.cpu().numpy(), a_batch=to_numpy(maps))

    If it makes maps itself, it sums them over channels. To measure asgt's maps with it, pass them::

        def explain(model, inputs, targets, **_):
            x, y = (torch.as_tensor(array) for array in (inputs, targets))
            return to_numpy(attribute(model, x.float(), y, "ig"))

        quantus.MaxSensitivity()(model=model, x_batch=…, y_batch=…, a_batch=None, explain_func=explain)

    Raises:
        InputError: the shape is another, such as that of a :func:`magnitude`: add a channel with ``unsqueeze(1)``.
    """

    if a.ndim != 4:
        raise InputError(f"maps of shape {tuple(a.shape)}: pass (B, C, H, W); unsqueeze(1) adds a channel to (B, H, W)")
    return np.ascontiguousarray(a.detach().to("cpu", torch.float32).numpy())


def _chosen(method: str | Attribution, layer: str | None, settings: dict[str, Any]) -> Attribution:
    if layer is not None:
        settings = {**settings, "layer": layer}
    if isinstance(method, Attribution):
        if settings:
            name = next(iter(settings))
            raise InputError(f"{name} = {settings[name]!r}: {method!r} has its own settings: set it there")
        return method
    if not isinstance(method, str):
        raise InputError(f"attribution {method!r}: pass a name, or an instance of asgt.saliency.Attribution")

    kind = attribution_class(method)
    known = [field.name for field in fields(kind)]
    for name in settings:
        if name not in known:
            has = f"its settings are {', '.join(known)}" if known else "it has no settings"
            raise InputError(f"{method} does not know {name}: {has}")
    try:
        return kind(**settings)
    except TypeError as error:  # a field of someone's own class that has no default
        raise InputError(f"attribution {method}: {error}; give its settings a default") from error


def _check_maps(a: Tensor, x: Tensor, method: str | Attribution) -> None:
    """Refuses what an attribution of someone's own gives that are no maps of the images."""

    if not isinstance(a, Tensor) or a.shape != x.shape:
        given = f"shape {tuple(a.shape)}" if isinstance(a, Tensor) else type(a).__name__
        raise InputError(
            f"attribution {attribution_name(method)} gives {given} for images {tuple(x.shape)}: expected signed maps "
            "of their shape"
        )


def _check(x: Tensor, target: str, batch_size: int) -> None:
    if target not in ("logit", "log_prob"):
        raise InputError(f"target = {target!r} is unknown: use 'logit' or 'log_prob'")
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: must be at least 1")
    if x.ndim < 2 or len(x) == 0 or not x.is_floating_point():
        raise InputError(f"{x.dtype} inputs of shape {tuple(x.shape)}: pass float images (B, C, H, W), at least one")


def _predictions(model: Watched, x: Tensor) -> Tensor:
    with torch.no_grad():
        labels: Tensor = model(x).argmax(dim=1)
    return labels
