"""The untrained model of a configuration."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ..data import Splits
from ..models import build_model
from .config import TrainConfig

__all__ = ["build_from"]


def build_from(config: TrainConfig, splits: Splits) -> nn.Module:
    """The untrained model of a configuration, normalised by the training images.

    A model ``hf:…`` brings its weights along, and with them the normalisation that they were trained with.
    """

    options = {name: value for name in ("width", "dropout") if (value := getattr(config, name)) is not None}
    mean: Sequence[float] | None
    std: Sequence[float] | None
    mean, std = splits.train.mean_std()
    if config.model.startswith("hf:"):
        # Only such a model imports transformers.
        from ..models import preprocessing

        own = preprocessing(config.model)
        mean, std = (None, None) if own is None else (own.mean, own.std)
    return build_model(config.model, splits.train.shape, len(splits.train.classes), mean=mean, std=std, **options)
