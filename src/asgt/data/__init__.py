"""Data: images in memory as uint8, seeded splits, and batches made on the device."""

from .batches import Augmentation, augment, batches, steps_per_epoch, to_unit, training_batch, training_order
from .images import Images, Splits, check_batch, sample, sampled_rows, stratified
from .sources import load_data

__all__ = [
    "Augmentation",
    "Images",
    "Splits",
    "augment",
    "batches",
    "check_batch",
    "load_data",
    "sample",
    "sampled_rows",
    "steps_per_epoch",
    "stratified",
    "to_unit",
    "training_batch",
    "training_order",
]
