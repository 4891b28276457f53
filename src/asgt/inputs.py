"""The checks of images and labels for all public functions, with one-line errors.

Attacks, objectives, evaluation, explanation and saliency maps take float images in [0, 1] and integer labels, as
tensors or numpy arrays. :func:`checked` accepts valid input and refuses the rest: pixels of 0 to 255, normalised
images, labels that are not classes. Internal calls with checked images use :func:`trusted`, so that a training step
checks its batch at most once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import AsgtError, InputError
from .modes import Classifier, ask, evaluating

__all__ = [
    "check_classes",
    "check_target_classes",
    "checked",
    "checked_images",
    "checked_labels",
    "checked_start",
    "checked_targets",
    "is_trusted",
    "labels_explained",
    "models_explained",
    "trusted",
]

_TRUSTED: ContextVar[bool] = ContextVar("trusted", default=False)
_ROUNDING = 1e-6  # how far a pixel may lie outside [0, 1], for it came there by rounding


@contextmanager
def trusted() -> Iterator[None]:
    """Inside, images and labels are not checked again, without a wait for the device."""

    token = _TRUSTED.set(True)
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def is_trusted() -> bool:
    """Whether this code runs inside :func:`trusted`, or while a CUDA graph records it."""

    return _TRUSTED.get() or (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())


def checked(x: Any, y: Any, classes: int | None = None) -> tuple[Tensor, Tensor]:
    """Images and labels as tensors, on the device of the images.

    Args:
        x: images, as for :func:`checked_images`.
        y: labels, as for :func:`checked_labels`.
        classes: K, if known.

    Raises:
        InputError: one of the two is invalid.
    """

    x = checked_images(x)
    return x, checked_labels(y, len(x), classes).to(x.device)


def checked_images(x: Any, name: str = "x") -> Tensor:
    """Images as a tensor of floats in [0, 1]; a valid tensor is returned unchanged.

    Args:
        x: a tensor or a numpy array of floats (B, …), images as (B, C, H, W). Arrays of float64, numpy's default,
            become float32. Values outside [0, 1] by no more than rounding are moved to its ends.
        name: its name in errors.

    Raises:
        InputError: the shape or the type is wrong, a pixel is NaN, or pixels are outside [0, 1].
    """

    if isinstance(x, np.ndarray):
        x = _of_numpy(x, name)
        x = x.float() if x.dtype == torch.float64 else x
    if not isinstance(x, Tensor):
        raise InputError(f"{name} is a {type(x).__name__}: expected float images (N, C, H, W) in [0, 1] as a tensor")
    shape = tuple(x.shape)
    if x.layout != torch.strided:
        raise InputError(f"{name} is sparse: pass a dense tensor, x.to_dense()")
    if x.dtype == torch.uint8:
        raise InputError(f"{name} is uint8 {shape}: pass floats in [0, 1], x.float() / 255")
    if x.ndim < 2 or not x.is_floating_point():
        raise InputError(f"{name} is {x.dtype} {shape}: expected float images (N, C, H, W) in [0, 1]")
    if x.ndim == 4 and shape[3] in (1, 3, 4) and shape[1] > 4 and shape[2] > 4:
        mend = "pass x.permute(0, 3, 1, 2)" if isinstance(x, Tensor) else "pass x.transpose(0, 3, 1, 2)"
        raise InputError(f"{name} has the shape {shape}, channels last: expected (N, C, H, W); {mend}")
    if x.numel() == 0 or x.is_meta:
        return x

    low, high = (float(end) for end in x.detach().aminmax())
    if low != low or high != high:
        row = int(x.isnan().flatten(1).any(dim=1).nonzero()[0])
        raise InputError(f"{name}[{row}] has a NaN pixel: correct or remove the image")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"{name} lies in [{low:.3g}, {high:.3g}]: expected [0, 1]; divide by 255, and "
            "put normalisation inside the model"
        )
    return x if low >= 0 and high <= 1 else x.clamp(0.0, 1.0)


def checked_start(init: Any, x: Tensor) -> Tensor:
    """The start of an attack, as a tensor of the shape and precision of the images.

    Raises:
        InputError: its shape is wrong, or it has NaN, infinity or values far outside [0, 1].
    """

    init = _of_numpy(init, "init") if isinstance(init, np.ndarray) else init
    if not isinstance(init, Tensor) or init.shape != x.shape or not init.is_floating_point():
        kind = f"{init.dtype} {tuple(init.shape)}" if isinstance(init, Tensor) else f"a {type(init).__name__}"
        raise InputError(f"init is {kind}: expected floats of the shape of the images, {tuple(x.shape)}")
    low, high = (float(end) for end in init.detach().aminmax()) if init.numel() else (0.0, 0.0)
    # It is projected into the ball and the box, so that it may lie a little outside; but pixels of 0 to 255 do not.
    if not (low >= -1 and high <= 2):
        raise InputError(f"init lies in [{low:.3g}, {high:.3g}]: expected images in [0, 1]")
    return init.to(x)


def _of_numpy(array: np.ndarray[Any, Any], name: str) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False)))
    except TypeError as error:
        raise InputError(f"{name} is an array of {array.dtype}: expected float32 or float64") from error


def checked_labels(y: Any, count: int, classes: int | None = None, *, soft: bool = True, name: str = "y") -> Tensor:
    """Labels as int64 (B,), or class probabilities (B, K) as floats; a valid tensor is returned unchanged.

    Args:
        y: labels of any integer type, as a tensor, a numpy array or a list; or class probabilities, including
            one-hot rows of integers.
        count: B.
        classes: K, if known.
        soft: whether class probabilities are accepted.
        name: its name in errors.

    Raises:
        InputError: labels are out of range or of a wrong type, or rows are not probabilities.
    """

    if not isinstance(y, Tensor):
        try:
            y = torch.as_tensor(np.asarray(y))
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} is a {type(y).__name__}: expected class numbers, int64 ({count},)") from error
    labels: Tensor = y.clone() if y.is_inference() and not torch.is_inference_mode_enabled() else y
    shape = tuple(labels.shape)
    if labels.ndim == 2 and len(labels) == count and labels.shape[1] > 1:
        return _probabilities(labels, classes, soft, name)
    if labels.ndim != 1 or len(labels) != count:
        mend = "; pass y.squeeze(1)" if shape == (count, 1) else ""
        raise InputError(f"{name} is {labels.dtype} {shape}: expected int64 labels ({count},){mend}")
    if labels.is_floating_point() or labels.is_complex():
        raise InputError(f"{name} is {labels.dtype} {shape}: expected int64 labels ({count},), the classes' numbers")
    labels = labels.long()
    if count == 0 or labels.is_meta:
        return labels
    low, high = (int(end) for end in labels.aminmax())
    if low < 0 or (classes is not None and high >= classes):
        known = "K − 1" if classes is None else f"K − 1, K = {classes}"
        raise InputError(f"{name} has labels in [{low}, {high}]: expected 0 to {known}")
    return labels


def _probabilities(y: Tensor, classes: int | None, soft: bool, name: str) -> Tensor:
    shape = tuple(y.shape)
    if not soft:
        raise InputError(f"{name} has the shape {shape}: pass class numbers (N,), such as y.argmax(dim=1)")
    if classes is not None and y.shape[1] != classes:
        raise InputError(f"{name} has the shape {shape}: the model has {classes} classes")
    y = y if y.is_floating_point() else y.float()
    if not bool((y >= 0).all() & ((y.sum(dim=1) - 1).abs() < 1e-2).all()):
        raise InputError(f"{name} has the shape {shape}: its rows are not class probabilities, which sum to 1")
    return y


def checked_targets(targets: Any, count: int) -> Tensor:
    """The targets of a loss: labels (B,), or floats (B, K) that are finite and not negative.

    Args:
        targets: labels as for :func:`checked_labels`; or rows of weighted class probabilities, of any sum.
        count: B.

    Raises:
        InputError: their shape is wrong, or a value is negative or not finite.
    """

    if not isinstance(targets, Tensor):
        try:
            targets = torch.as_tensor(np.asarray(targets))
        except (TypeError, ValueError) as error:
            raise InputError(f"targets is a {type(targets).__name__}: expected floats ({count}, K)") from error
    if targets.ndim != 2:
        return checked_labels(targets, count, name="targets")
    rows: Tensor = targets if targets.is_floating_point() else targets.float()
    shape = tuple(rows.shape)
    if shape[0] != count or shape[1] < 2:
        raise InputError(f"targets has the shape {shape}: pass ({count}, K), one row per image")
    if not bool(((rows >= 0) & rows.isfinite()).all()):
        raise InputError(f"targets has the shape {shape} and values that are negative or not finite: correct them")
    return rows


def check_classes(model: Classifier, x: Tensor, y: Tensor) -> None:
    """Evaluates a model on one image, to refuse labels without a logit.

    Raises:
        InputError: a label, or a row of class probabilities, does not match the model.
    """

    if len(x):
        with torch.no_grad(), evaluating(model):
            classes = ask(model, x[:1]).shape[1]
        checked_labels(y, len(x), classes)


def check_target_classes(model: Classifier, x: Tensor, targets: Tensor) -> None:
    """Classifies all images with a model, to refuse target classes that it does not have or gives already.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K).
        x: the images.
        targets: the class that an attack is to lead each image to, int64 (B,).

    Raises:
        InputError: a target is no class of the model, or the one that it predicts without an attack.
    """

    if not len(x):
        return
    with torch.no_grad(), evaluating(model):
        logits = ask(model, x)
    checked_labels(targets, len(x), logits.shape[1], name="targets")
    if x.is_meta:
        return
    reached = (logits.argmax(dim=1) == targets).nonzero().flatten().tolist()
    if reached:
        more = f" and {len(reached) - 1} more" if len(reached) > 1 else ""
        raise InputError(
            f"targets[{reached[0]}] = {int(targets[reached[0]])}{more}: the model predicts that class without an "
            "attack; choose another class, or omit those images"
        )


@contextmanager
def labels_explained(model: Classifier, x: Tensor, y: Tensor) -> Iterator[None]:
    """Turns a model's exception on images or labels that do not match it into one line; without cost otherwise.

    Raises:
        InputError: the model cannot process such images, or has no logit for a label.
    """

    with models_explained(model, x):
        try:
            yield
        except AsgtError:
            raise
        except (IndexError, RuntimeError, ValueError) as error:
            try:
                check_classes(model, x, y)
            except AsgtError as wrong:
                raise wrong from error
            except Exception:  # the labels are not what is wrong
                raise error from None
            raise


@contextmanager
def models_explained(model: Classifier, x: Tensor) -> Iterator[None]:
    """The same for a model that cannot process the images, for any exception.

    Raises:
        InputError: the model cannot process images of this shape, or is not a classifier.
    """

    if not callable(model) or isinstance(model, type):
        kind = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise InputError(f"the model is {kind}: pass a classifier that maps images to logits, such as an nn.Module")
    try:
        yield
    except AsgtError:
        raise
    except (IndexError, RuntimeError, ValueError, NotImplementedError) as error:
        try:
            with torch.no_grad(), evaluating(model):
                ask(model, x[:1])
        except AsgtError:
            raise
        except Exception as failure:  # it fails on a single image too: the images are what it cannot take
            first = f"{type(failure).__name__}: {failure}".splitlines()[0][:200]
            raise InputError(f"the model cannot process images of shape {tuple(x.shape)}: {first}") from error
        raise
