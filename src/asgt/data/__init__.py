"""Data: images as uint8, in memory or in a file, seeded splits, and batches made on the device."""

from .batching import (
    Augmentation,
    augment,
    batch_that_fits,
    batches,
    steps_per_epoch,
    to_unit,
    training_batch,
    training_order,
)
from .collect import LabelledImages, as_images
from .images import Images, Splits, sample, sampled_rows, selection_text, stratified
from .sources import load_data
from .stored_pixels import StoredPixels, in_memory

__all__ = [
    "Augmentation",
    "Images",
    "LabelledImages",
    "Splits",
    "StoredPixels",
    "as_images",
    "augment",
    "batch_that_fits",
    "batches",
    "in_memory",
    "load_data",
    "sample",
    "sampled_rows",
    "selection_text",
    "steps_per_epoch",
    "stratified",
    "to_unit",
    "training_batch",
    "training_order",
]
