"""The two ways in which adversarial training dies, as tests on what a model predicts."""

from __future__ import annotations

from torch import Tensor

__all__ = ["collapse_threshold", "is_catastrophic", "is_collapsed"]


def collapse_threshold(labels: Tensor) -> float:
    """The share of one predicted class from which on a model counts as collapsed.

    Half of the images; but where one class really holds more than a quarter of them (two classes, say, or unbalanced
    ones), halfway between its share and all.
    """

    largest = labels.bincount().max().item() / len(labels)
    return 0.5 if largest <= 0.25 else (1.0 + largest) / 2.0


def is_collapsed(predictions: Tensor, labels: Tensor) -> bool:
    """Whether a model predicts (nearly) one class for all images.

    Args:
        predictions: predicted classes of clean images, int64 (N,).
        labels: their labels, int64 (N,).
    """

    return bool(predictions.bincount().max().item() / len(predictions) >= collapse_threshold(labels))


def is_catastrophic(fgsm_accuracy: float, pgd_accuracy: float) -> bool:
    """Catastrophic overfitting: the model withstands a single step, but not several, at the same ε.

    A model that is robust, or honestly not robust, has the two close together: PGD takes less than half of what FGSM
    leaves, or less than 20 points.

    References:
        Wong et al. 2020, "Fast is better than free", https://arxiv.org/abs/2001.03994
    """

    return fgsm_accuracy - pgd_accuracy >= 0.2 and pgd_accuracy < 0.5 * fgsm_accuracy
