"""Data: images as uint8, in memory or in a file, seeded splits, and batches made on the device."""

from .augmentation import Augmentation, crop_flip, resized_crop, unchanged
from .batching import (
    batch_that_fits,
    batches,
    steps_per_epoch,
    training_batch,
    training_batch_with_masks,
    training_order,
)
from .collect import LabelledImages, as_images
from .images import Images, Splits, sample, sampled_rows, selection_text, stratified
from .lazy_pixels import LazyPixels, in_memory, to_unit
from .planting import PlantedPixels, check_test_set, plant, refuse_other_classes, shortcut_view, shortcut_views
from .random_operations import rand_augment
from .sources import load_data
from .stored_pixels import StoredPixels

__all__ = [
    "Augmentation",
    "Images",
    "LabelledImages",
    "LazyPixels",
    "PlantedPixels",
    "Splits",
    "StoredPixels",
    "as_images",
    "batch_that_fits",
    "batches",
    "check_test_set",
    "crop_flip",
    "in_memory",
    "load_data",
    "plant",
    "rand_augment",
    "refuse_other_classes",
    "resized_crop",
    "sample",
    "sampled_rows",
    "selection_text",
    "shortcut_view",
    "shortcut_views",
    "steps_per_epoch",
    "stratified",
    "to_unit",
    "training_batch",
    "training_batch_with_masks",
    "training_order",
    "unchanged",
]
