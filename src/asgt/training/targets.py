r"""The targets of the loss under label smoothing and class weights.

With the share s of label smoothing and the weight w of each of K classes, the target of an image of class y is

.. math:: t = w_y \left( (1 - s) \, e_y + \frac{s}{K} \mathbf{1} \right)

where :math:`e_y` is the one-hot row of y. The cross-entropy to it is :math:`-\sum_k t_k \log p_k`: that of the smoothed
label, times the weight of the image's class. The loss is the mean of these over the images of the batch. It is not
divided by the sum of their weights, as ``torch.nn.CrossEntropyLoss(weight=…)`` does: that sum differs from one
process's part of a batch to another's, and the mean of their gradients would not be the gradient of the whole batch.
Given weights are used unchanged.

``balanced`` weighs class c by :math:`N / (K n_c)`, for N training images, of which :math:`n_c` are of class c. The
validation part is not among them. Over the training images the mean weight is then 1, and every class has the same
part in the loss.

Attacks, saliency and accuracies use the labels.

References:
    Szegedy et al. 2015, "Rethinking the Inception architecture for computer vision", https://arxiv.org/abs/1512.00567
    (label smoothing, section 7)
    King and Zeng 2001, "Logistic regression in rare events data", https://doi.org/10.1093/oxfordjournals.pan.a004868
    (balanced weights, as ``class_weight="balanced"`` of scikit-learn)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError, cut
from ..numbers import counted
from .config import TrainConfig, class_weights

__all__ = ["Targets", "balanced_weights", "targets_of"]


@dataclass(frozen=True)
class Targets:
    """Maps labels (B,) to targets (B, K), float32 on their device; without waiting for the device.

    Attributes:
        own: the value of an image's own class, by its class (K,).
        others: the value of every other class (K,).
    """

    own: Tensor
    others: Tensor

    @classmethod
    def of(cls, weights: Tensor, smoothing: float = 0.0) -> Targets:
        """The targets for class weights (K,) and a share s of label smoothing."""

        each = weights.double() * smoothing / len(weights)
        return cls((weights.double() * (1.0 - smoothing) + each).float(), each.float())

    def __call__(self, y: Tensor) -> Tensor:
        is_own = y.unsqueeze(1) == torch.arange(len(self.own), device=y.device)
        return torch.where(is_own, self.own[y].unsqueeze(1), self.others[y].unsqueeze(1))


def targets_of(config: TrainConfig, labels: Tensor, classes: Sequence[object]) -> Targets | None:
    """The targets for the settings of a training; ``None`` if the loss uses the labels.

    Args:
        config: with ``label_smoothing`` and ``class_weights``.
        labels: of the training images without the validation part (N,), int64.
        classes: the names of the K classes.

    Raises:
        InputError: the number of weights differs from that of classes, or a class has no images for ``balanced``.
    """

    smoothing = config.label_smoothing or 0.0
    if config.class_weights is None and not smoothing:
        return None
    given = (1.0,) * len(classes) if config.class_weights is None else class_weights(config.class_weights)
    weights = balanced_weights(labels, classes) if given is None else torch.tensor(given, dtype=torch.float64)
    if len(weights) != len(classes):
        raise InputError(
            f"class_weights = {cut(str(config.class_weights))}: {counted(len(weights), 'number')} for the "
            f"{len(classes)} classes of the data: give one for each class to --class-weights, or balanced"
        )
    made = Targets.of(weights, smoothing)
    return Targets(made.own.to(labels.device), made.others.to(labels.device))


def balanced_weights(labels: Tensor, classes: Sequence[object]) -> Tensor:
    """The weights :math:`N / (K n_c)` of K classes by the labels (N,) of the training images: float64 (K,), on the CPU.

    Raises:
        InputError: a class has no images.
    """

    counts = labels.cpu().bincount(minlength=len(classes))
    if missing := [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(
            f"--class-weights balanced: no training image is of class {cut(str(missing[0]))}{more}, so it has no "
            "weight: use more images, or give the weights as numbers"
        )
    return len(labels) / (len(classes) * counts.double())
