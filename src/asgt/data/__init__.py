"""Data: images as uint8, in memory or in a file, seeded splits, and batches made on the device."""

from .augmentation import Augmentation, crop_flip, resized_crop, unchanged
from .batching import batch_that_fits, batches, steps_per_epoch, training_batch, training_order
from .collect import LabelledImages, as_images
from .images import Images, Splits, sample, sampled_rows, selection_text, stratified
from .random_operations import rand_augment
from .sources import load_data
from .stored_pixels import StoredPixels, in_memory, to_unit

__all__ = [
    "Augmentation",
    "Images",
    "LabelledImages",
    "Splits",
    "StoredPixels",
    "as_images",
    "batch_that_fits",
    "batches",
    "crop_flip",
    "in_memory",
    "load_data",
    "rand_augment",
    "resized_crop",
    "sample",
    "sampled_rows",
    "selection_text",
    "steps_per_epoch",
    "stratified",
    "to_unit",
    "training_batch",
    "training_order",
    "unchanged",
]
