"""RandAugment for a batch in which each image has its own operations.

kornia's ``RandAugment`` draws one pair of operations for the whole batch, from PyTorch's global generator, from
another policy than the paper's. Only its functions of single operations are used here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..errors import InputError
from ..randomness import Share
from .augmentation import own_draws
from .lazy_pixels import to_unit

__all__ = ["OPERATIONS", "rand_augment"]

_STRENGTHS = 30
"""The magnitude at which an operation is strongest."""

_LEVEL = 1 / 255

Operation: TypeAlias = Callable[[Any, Tensor, Tensor], Tensor]
"""From kornia, images (B, C, H, W) in [0, 1] and the strength of each in [−1, 1], (B,), to images of the same shape."""


def rand_augment(pixels: Tensor, generator: torch.Generator | Share, n: int = 2, m: int = 9) -> Tensor:
    """RandAugment: ``n`` of the paper's fourteen operations one after the other, at magnitude ``m``.

    Each image draws its own operations and their directions, uniformly and with replacement. For each of the ``n``
    places the batch is sorted by operation, so that an operation runs once, on all images that drew it. The
    magnitudes are the usual ones (:data:`OPERATIONS`): at ``m`` = 9 a rotation is one of 9°. Pixels from outside
    the image are black; geometric operations interpolate bilinearly.

    Args:
        pixels: (B, C, H, W).
        generator: on the device of the pixels, or a share of one.
        n: operations for each image.
        m: magnitude of all operations, of 30.

    Returns:
        Floats in [0, 1].

    Raises:
        InputError: kornia cannot be imported.

    References:
        Cubuk et al. 2020, "RandAugment: practical automated data augmentation with a reduced search space",
        https://arxiv.org/abs/1909.13719
    """

    kornia = _kornia()
    operations = tuple(OPERATIONS.values())
    drawn = own_draws(pixels, generator, 2 * n).view(-1, n, 2)
    chosen = (drawn[..., 0] * len(operations)).long()
    strength = torch.where(drawn[..., 1] < 0.5, -m / _STRENGTHS, m / _STRENGTHS)
    # How many images have each operation decides shapes: the one look at the device of a batch.
    counts = (chosen[..., None] == torch.arange(len(operations), device=chosen.device)).sum(dim=0).tolist()

    source = to_unit(pixels)
    x = source.float()
    for place in range(n):
        order = chosen[:, place].argsort(stable=True)
        groups = zip(
            operations,
            x[order].split(counts[place]),
            strength[order, place].split(counts[place]),
            strict=True,
        )
        moved = [operation(kornia, images, own) for operation, images, own in groups if len(images)]
        x = torch.cat(moved)[order.argsort()].clamp(0, 1)
    return x.to(source.dtype)


def _kornia() -> Any:
    try:
        import kornia
    except Exception as error:  # it imports a compiled package, which fails in many ways where it does not fit
        raise InputError(
            f"--augment randaugment: kornia cannot be imported here ({type(error).__name__}): "
            "pip install 'asgt[augment]'"
        ) from error
    return kornia


# The operations ------------------------------------------------------------------------------------------------------


def _identity(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    return x


def _auto_contrast(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    # kornia's makes a channel of a single value black.
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    spread = high - low
    return torch.where(spread < _LEVEL / 2, x, (x - low) / spread.clamp_min(_LEVEL / 2))


def _equalize(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    equalized: Tensor = kornia.enhance.equalize(x)
    return equalized


def _rotate(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    angle = torch.deg2rad(30 * strength)
    cosine, sine = angle.cos(), angle.sin()
    middle_x, middle_y = (x.shape[-1] - 1) / 2, (x.shape[-2] - 1) / 2
    return _warped(
        kornia,
        x,
        (cosine, sine, middle_x - cosine * middle_x - sine * middle_y),
        (-sine, cosine, middle_y + sine * middle_x - cosine * middle_y),
    )


def _shear_x(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    slope = 0.3 * strength
    return _warped(kornia, x, (1, slope, slope / 2), (0, 1, 0))  # the corner is half a pixel from the first centre


def _shear_y(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    slope = 0.3 * strength
    return _warped(kornia, x, (1, 0, 0), (slope, 1, slope / 2))


def _translate_x(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    return _warped(kornia, x, (1, 0, (150 / 331 * x.shape[-1] * strength).round()), (0, 1, 0))


def _translate_y(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    return _warped(kornia, x, (1, 0, 0), (0, 1, (150 / 331 * x.shape[-2] * strength).round()))


def _solarize(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    solarized: Tensor = kornia.enhance.solarize(x, 1 - strength.abs())
    return solarized


def _posterize(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    posterized: Tensor = kornia.enhance.posterize(x, (8 - 4 * strength.abs()).round().long())
    return posterized


def _color(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    if x.shape[1] != 3:  # only three channels have a colour
        return x
    coloured: Tensor = kornia.enhance.adjust_saturation_with_gray_subtraction(x, 1 + 0.9 * strength)
    return coloured


def _contrast(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    grey = kornia.color.rgb_to_grayscale(x) if x.shape[1] == 3 else x.mean(dim=1, keepdim=True)
    # A sum of whole numbers does not depend on the other images of the batch, as a sum of floats does by its order.
    levels = (255 * grey).round().long().sum(dim=(1, 2, 3))
    mean = (levels / grey[0].numel()).round()[:, None, None, None] / 255
    return mean + (x - mean) * _factor(strength)


def _brightness(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    return x * _factor(strength)


def _sharpness(kornia: Any, x: Tensor, strength: Tensor) -> Tensor:
    # kornia's is a convolution, whose rounding depends on how many images there are.
    if min(x.shape[-2:]) < 3:  # no pixel has neighbours on all sides
        return x
    rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    smooth = x.clone()
    smooth[:, :, 1:-1, 1:-1] = (around + 4 * x[:, :, 1:-1, 1:-1]) / 13
    return smooth + (x - smooth) * _factor(strength)


def _factor(strength: Tensor) -> Tensor:
    return 1 + 0.9 * strength[:, None, None, None]


def _warped(kornia: Any, x: Tensor, to_x: tuple[float | Tensor, ...], to_y: tuple[float | Tensor, ...]) -> Tensor:
    """Images (B, C, H, W) moved by x' = a·x + b·y + c and y' = d·x + e·y + f, in pixels from the first one's centre."""

    entries = [torch.as_tensor(entry, dtype=x.dtype, device=x.device).expand(len(x)) for entry in (*to_x, *to_y)]
    warped: Tensor = kornia.geometry.warp_affine(x, torch.stack(entries, dim=1).view(-1, 2, 3), x.shape[-2:])
    return warped


OPERATIONS: dict[str, Operation] = {
    "identity": _identity,
    "auto-contrast": _auto_contrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear-x": _shear_x,
    "shear-y": _shear_y,
    "translate-x": _translate_x,
    "translate-y": _translate_y,
}
"""The paper's operations.

Strength ±1 is magnitude 30: a rotation by 30°, a shear by 0.3 about the upper left corner, a translation by 150/331 of
the side in whole pixels, a factor of 1 ± 0.9 on colour, contrast, brightness and sharpness, 4 bits, and a solarisation
of all values. ``color`` does not change images without three channels, and ``sharpness`` not the outermost pixels."""
