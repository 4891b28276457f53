"""The untrained model of a configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from ..capacity import PASS, refuse_time
from ..data import Splits
from ..devices import resolve_device
from ..launch import launched
from ..models import MODELS, build_model
from ..models.footprint import refuse_batch, refuse_model
from ..models.head import Replaced, give_classes
from .config import TrainConfig, channel_numbers

__all__ = ["build_from", "build_with_head", "refuse_size"]


def refuse_size(config: TrainConfig) -> None:
    """Refuses images that are too large for the model and the memory, before they are read: resizing takes minutes.

    Raises:
        InputError: a batch of two such images, the smallest that is trained on, needs more memory than is free.
    """

    size = config.image_size
    factory = MODELS.get(config.model)
    if size is not None and 2**10 < size < 2**31 and factory is not None:
        options = {name: value for name in ("width", "dropout") if (value := getattr(config, name)) is not None}
        refuse_model(config.model, factory, (1, size, size), 2, options=options, trained=True)


def build_from(
    config: TrainConfig,
    splits: Splits,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    head: str | None = None,
    *,
    replaces: bool = True,
) -> nn.Module:
    """The untrained model of a configuration, normalised with the statistics of the training images.

    A model ``hf:…`` brings its weights and their normalisation. The model of
    a training that starts from given weights has no normalisation yet: the weights may bring one. If the number of
    logits of a model with weights differs from the number of classes, its head is replaced.

    Args:
        config: names the model.
        splits: the data.
        model: a model of images in [0, 1], returned unchanged except for its head; or the factory of the
            configuration's name. Default: looked up by its name.
        head: the dotted name of the layer to replace. Default: found automatically.
        replaces: whether a head of another number of classes is replaced.

    Raises:
        InputError: the model is unknown, or there is not enough memory for it or for a batch.
    """

    return build_with_head(config, splits, model, head, replaces=replaces)[0]


def build_with_head(
    config: TrainConfig,
    splits: Splits,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    head: str | None = None,
    *,
    replaces: bool = True,
) -> tuple[nn.Module, Replaced | None]:
    """The same, and which head was replaced, if any."""

    replaces = replaces and config.has_given_weights

    def fitted(built: nn.Module) -> Replaced | None:
        shape, classes = splits.train.shape, len(splits.train.classes)
        return give_classes(built, shape, classes, config.model, head) if replaces else None

    if isinstance(model, nn.Module):
        return model, fitted(model)

    options = {name: value for name in ("width", "dropout") if (value := getattr(config, name)) is not None}
    mean: Sequence[float] | None
    std: Sequence[float] | None
    # Weights that are kept as they are see images as they did.
    mean, std = (None, None) if config.has_start or config.epochs == 0 else splits.train.mean_std()
    if config.model.startswith("hf:"):
        # Only such a model imports transformers.
        from ..models import preprocessing

        own = preprocessing(config.model)
        mean, std = (None, None) if own is None or config.has_start else (own.mean, own.std)
    if not config.has_start:
        mean = mean if config.mean is None else channel_numbers(config.mean, "mean")
        std = std if config.std is None else channel_numbers(config.std, "std")
    built = build_model(
        config.model,
        splits.train.shape,
        len(splits.train.classes),
        mean=mean,
        std=std,
        factory=model,
        exact=not replaces,
        **options,
    )
    replaced = fitted(built)
    # Of a run that is read again, the test images stand for those of the training, which are not needed.
    if splits.train is not splits.test:
        batch = min(config.batch_size, len(splits.train)) // launched()
        device, half = resolve_device(config.device), config.precision == "bf16"
        passes = 2 * config.epochs * len(splits.train) * (config.steps or 1)
        what = f"epochs = {config.epochs:,} over {len(splits.train):,} images: a training"
        refuse_time(passes * PASS, what, "use fewer --epochs or --steps, or a smaller --limit")
        refuse_batch(built, splits.train.shape, batch, device, trained=True, half=half)
    return built, replaced
