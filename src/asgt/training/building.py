"""The untrained model of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..data import Splits
from ..models import build_model
from .config import TrainConfig

__all__ = ["build_from"]


def build_from(
    config: TrainConfig, splits: Splits, model: nn.Module | Callable[..., nn.Module] | None = None
) -> nn.Module:
    """The untrained model of a configuration, normalised by the training images.

    A model ``hf:…`` brings its weights along, and with them the normalisation that they were trained with.

    Args:
        config: names the model.
        splits: the data.
        model: a model that takes images in [0, 1] and is returned as it is, or the factory that the configuration's
            name stands for. Default: it is looked up by its name.
    """

    if isinstance(model, nn.Module):
        return model

    options = {name: value for name in ("width", "dropout") if (value := getattr(config, name)) is not None}
    mean: Sequence[float] | None
    std: Sequence[float] | None
    mean, std = splits.train.mean_std()
    if config.model.startswith("hf:"):
        # Only such a model imports transformers.
        from ..models import preprocessing

        own = preprocessing(config.model)
        mean, std = (None, None) if own is None else (own.mean, own.std)
    return build_model(
        config.model, splits.train.shape, len(splits.train.classes), mean=mean, std=std, factory=model, **options
    )
