"""Data: images in memory as uint8, seeded splits, and batches made on the device."""

from .batching import Augmentation, augment, batches, steps_per_epoch, to_unit, training_batch, training_order
from .collect import LabelledImages, as_images
from .images import Images, Splits, sample, sampled_rows, selection_text, stratified
from .sources import load_data

__all__ = [
    "Augmentation",
    "Images",
    "LabelledImages",
    "Splits",
    "as_images",
    "augment",
    "batches",
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
