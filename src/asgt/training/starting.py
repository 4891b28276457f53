"""The start of a training from given weights: a file of weights, or the weights of another run.

The loaded weights are recorded in the checkpoint and in ``training.json``, so that a run can continue and be read
without the file.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..data import Splits
from ..datasets import data_set
from ..errors import DamagedFileError, InputError
from ..files import digest_file
from ..manifest import Manifest
from ..models import MODELS, Normalize, Preprocessing, preprocessing
from ..models.head import Replaced, find_head, replace_head
from ..models.weights import load_all_but_head, put_before_net
from ..names import refuse_unless_allowed
from .config import TrainConfig, channel_numbers, flag_of, with_own_sizes
from .run_folder import RunFolder, TrainResult

__all__ = [
    "Start",
    "load_start",
    "normalise",
    "own_start",
    "parameter_groups",
    "preprocessing_line",
    "reading_lines",
    "refuse_changed",
    "source_run",
    "start_file",
    "with_source",
]


@dataclass(frozen=True)
class Start:
    """The weights that a training started from.

    Attributes:
        weights: the file, as named; empty for the weights that the model is built with.
        sha256: of its bytes.
        matched: a description of the matched part; empty if everything matches.
        head: the dotted name of the layer that was replaced, because the weights have other classes; empty if none was.
        logits: the number of logits of the weights; 0 if no head was replaced.
        mean: per channel, of the model's normalisation; empty without one.
        std: per channel.
        source: the identity of a source run: ``config`` has its settings without the seed, and ``start`` its own
            start in this form; empty for a file.
    """

    weights: str = ""
    sha256: str = ""
    matched: str = ""
    head: str = ""
    logits: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    source: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""

        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def of(cls, values: Mapping[str, Any], where: Path) -> Start:
        """The inverse of :meth:`to_dict`.

        Raises:
            DamagedFileError: the file ``where`` has other content.
        """

        try:
            numbers = {name: tuple(map(float, values[name])) for name in ("mean", "std")}
            start = cls(**{**values, **numbers})
            texts = (start.weights, start.sha256, start.matched, start.head)
            kinds = type(start.logits) is int and isinstance(start.source, dict)
            if not all(isinstance(text, str) for text in texts) or not kinds:
                raise TypeError("a value of another kind")
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(
                f"{where} is damaged: its record of the training's start is incomplete; restore it"
            ) from error
        return start


def start_file(config: TrainConfig) -> Path | None:
    """The file of weights that a training starts from; ``None`` for random ones."""

    if config.from_run is not None:
        return RunFolder(config.from_run).model
    return None if config.weights is None else Path(config.weights)


def source_run(path: str) -> tuple[TrainConfig, TrainResult]:
    """The configuration and the result of the run that another one starts from.

    Raises:
        InputError: the run does not exist, or it is not finished.
        DamagedFileError: one of its files is damaged.

    """

    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise InputError(f"--from {path}: no such run folder: give an existing one")
    if not folder.config.exists():
        raise InputError(
            f"--from {path} is not a run folder, because it has no config.yaml: use --weights for a file of weights"
        )
    config, result = TrainConfig.load(folder.config), folder.load_result()
    if not folder.model.exists():
        raise DamagedFileError(f"{folder.model} is missing: restore it")
    if (manifest := Manifest.of(folder.path)) is not None:
        manifest.check(folder.model.name)
    return config, result


def with_source(
    config: TrainConfig,
    out: Path | str | None,
    *,
    resume: bool,
    allow: Collection[str] = (),
    has_model: bool = False,
    has_data: bool = False,
    asked: Collection[str] = (),
) -> TrainConfig:
    """The configuration with the source run's settings of the model and of the image size.

    The model, its width and its dropout are those of that run; other values are refused. Its image size, crop and
    interpolation are the defaults.

    Args:
        config: with or without ``from_run``.
        out: the run folder of the training, if known. If it was started before, it records the source run.
        resume: whether to continue it.
        allow: the modules whose code may run; the file of another run does not decide this.
        has_model: whether a model was passed as an object, for which the source run gives no settings.
        has_data: the same for the data.
        asked: the settings that the user gives. Default: those that differ from their defaults.

    Raises:
        InputError: the other run is this one, is not finished, contradicts a setting, or has a model that is not
            allowed.
        DamagedFileError: a file of it is damaged.
    """

    config.check_start()
    if config.from_run is None:
        return config
    if out is not None and Path(out).resolve() == Path(config.from_run).resolve():
        raise InputError(
            f"--from {config.from_run} is the output folder of this training: give another folder to --out"
        )
    is_begun = resume and out is not None and RunFolder(out).config.exists()
    if is_begun:
        assert out is not None
        source, where = TrainConfig.load(RunFolder(out).config), RunFolder(out).config
    else:
        source, where = source_run(config.from_run)[0], RunFolder(config.from_run).config
    taken: dict[str, Any] = {}
    if not has_model:
        # A run that is begun says by itself what contradicts it.
        if not is_begun:
            _refuse_other_model(config, source, asked)
        if config.model != source.model and config.model == TrainConfig.model:
            refuse_unless_allowed(source.model, allow, str(where))
            taken["model"] = source.model
        names = [name for name in _OF_MODEL if getattr(config, name) is None]
        taken |= {name: getattr(source, name) for name in names}
    if not has_data:
        taken |= _reading_of(source, config)
    return replace(config, **taken)


_OF_MODEL = ("width", "dropout")
"""The settings that change the architecture of a model, except its name."""


def _refuse_other_model(config: TrainConfig, source: TrainConfig, asked: Collection[str]) -> None:
    """Refuses a setting of the model that is not that of the run that it starts from.

    Raises:
        InputError: it names the flag, and how to mend it.
    """

    for name in ("model", *_OF_MODEL):
        mine, theirs = getattr(config, name), getattr(source, name)
        if name not in asked and mine == getattr(TrainConfig, name):
            continue
        own = _own_value(source.model, name)
        if mine == theirs or (mine is not None and mine == (own if theirs is None else theirs)):
            continue
        has = f"the model of --from {config.from_run} is {theirs}"
        if name != "model":
            told = own if theirs is None else theirs
            has = (
                f"the model of --from {config.from_run} has {f'{name} {told:g}' if told is not None else f'no {name}'}"
            )
        said = mine if isinstance(mine, str) else f"{mine:g}"
        raise InputError(
            f"{flag_of(name)} {said}: {has}, remove the flag; to start another model from the file, use --weights "
            f"{RunFolder(str(config.from_run)).model}"
        )


def _own_value(model: str, name: str) -> float | None:
    """The value that a setting of a model of asgt has where it is unset; ``None`` where the model has no such one."""

    parameter = inspect.signature(MODELS[model]).parameters.get(name) if model in MODELS else None
    return None if parameter is None else parameter.default


def _reading_of(source: TrainConfig, config: TrainConfig) -> dict[str, Any]:
    """The settings of size, decoding and range that a run's images were read with and that are unset here."""

    if not data_set(config.data).reads_options:  # embedded images are used as they are
        return {}
    read = source.data_settings()
    return {name: read[name] for name in _READING if name in read and getattr(config, name) is None}


_READING = ("image_size", "crop", "interpolation", "decode", "pixel_range")


def load_start(
    model: nn.Module, config: TrainConfig, data: Splits, replaced: Replaced | None
) -> tuple[Start, list[str]]:
    """Loads the weights of a training's start into its model, and adds the normalisation.

    Args:
        model: from :func:`asgt.training.building.build_with_head`; it is changed in place.
        config: names the file or the run.
        data: the training images.
        replaced: the head that was replaced in the model because its number of logits differs from the number of
            classes.

    Returns:
        The start; and lines on the loaded weights, the replaced head and the normalisation.

    Raises:
        InputError: the weights do not exist, or do not match.
        DamagedFileError: they, or the run, are damaged.
    """

    file, shape, classes = start_file(config), data.train.shape, data.train.classes
    assert file is not None
    notes, source = ([], {}) if config.from_run is None else _of_run(config, data)
    before = digest_file(file) if file.is_file() else ""
    head = find_head(model, shape) if replaced is None else replaced.head
    was_normalised = isinstance(getattr(model, "normalize", None), Normalize)
    loaded = load_all_but_head(model, file, head)
    if digest_file(file) != before:
        raise InputError(f"{file} changed while it was read: start again when it is complete")
    lines = [f"weights: {file}" + (f" ({loaded.line})" if loaded.line else "")]

    start = Start(str(file), before, loaded.line, source=source)
    logits = loaded.left_out or (0 if replaced is None else replaced.logits)
    # A file of the data's own classes fits the head that took the place of the model's.
    if head is not None and (loaded.left_out is not None):
        # A factory may have built its own head with weights, of a backbone that is now another.
        if replaced is None:
            replace_head(model, head, len(classes))
        start = replace(start, head=head, logits=logits)
        lines.append(_replaced_line(config, str(file), Replaced(head, logits), len(classes)))
    lines += notes
    mean, std, line = _normalisation(model, config, file, shape[0], was_normalised=was_normalised)
    return replace(start, mean=mean, std=std), [*lines, line]


def own_start(config: TrainConfig, data: Splits, replaced: Replaced | None) -> tuple[Start | None, list[str]]:
    """The start of a training whose model is built with weights, and lines on it.

    Args:
        config: names no other weights.
        data: the training images.
        replaced: the head that was replaced in the model.

    Raises:
        InputError: there are no epochs, and the head would be random or its classes in another order.
    """

    if replaced is not None:
        line = _replaced_line(config, config.model, replaced, len(data.train.classes))
        return Start(head=replaced.head, logits=replaced.logits), [line]
    own = preprocessing(config.model) if config.has_own_preprocessing else None
    names = None if own is None else own.classes
    return None, [] if names is None else _of_classes(config, config.model, names, data)


def _replaced_line(config: TrainConfig, whose: str, replaced: Replaced, classes: int) -> str:
    """Which head was replaced, and why.

    Raises:
        InputError: weights are kept as they are, of which a random head is none.
    """

    gives = f"{whose} gives {replaced.logits} logits, the data has {classes} classes"
    if config.epochs == 0:
        raise InputError(
            f"epochs = 0: {gives}, and a new head {replaced.head} would be random: train at least one epoch"
        )
    return f"head {replaced.head} replaced: {gives}"


def _of_classes(config: TrainConfig, whose: str, theirs: Sequence[str], data: Splits) -> list[str]:
    """What there is to say of the classes that weights are of, where as many are told apart here.

    Raises:
        InputError: weights are kept as they are, and the same classes are in another order.
    """

    classes = data.train.classes
    if len(theirs) != len(classes) or tuple(theirs) == tuple(classes):
        return []
    if config.epochs == 0 and set(theirs) == set(classes):
        raise InputError(
            f"epochs = 0: the classes of {whose} are in another order than those of the data, {theirs[0]!r} and "
            f"{classes[0]!r} come first: train at least one epoch, or see asgt evaluate --model … --classes"
        )
    return [
        f"the classes of {whose} have other names or another order; their number is the same, so its head is "
        "not replaced"
    ]


def _of_run(config: TrainConfig, data: Splits) -> tuple[list[str], dict[str, Any]]:
    """Checks the run that a training starts from; what there is to say of its images, and :attr:`Start.source`.

    Raises:
        InputError: its images have other channels.
    """

    path = str(config.from_run)
    source, result = source_run(path)
    shape = data.train.shape
    if (channels := result.shape[0]) != shape[0]:
        raise InputError(
            f"--from {path} was trained on images of {channels} channel(s), these have {shape[0]}: "
            f"{'--grey' if channels == 1 else '--rgb'} may help"
        )
    notes = _of_classes(config, path, result.classes, data)
    if tuple(result.shape[1:]) != tuple(shape[1:]):
        (height, width), here = result.shape[1:], "×".join(map(str, shape[1:]))
        notes.append(
            f"{path} was trained on images of {height}×{width} px, these have {here}: give the size with --image-size"
        )
    read = [f"{name.replace('_', ' ')} {value}" for name in _READING if (value := getattr(config, name)) is not None]
    notes += [f"images are read with {', '.join(read)}"] if read else []
    settings = {name: value for name, value in source.to_dict().items() if name != "seed"}
    return notes, {"config": settings, "start": result.start}


def _normalisation(
    model: nn.Module, config: TrainConfig, file: Path, channels: int, *, was_normalised: bool
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Gives a model its normalisation where the weights brought none; mean, std, and whose they are in words."""

    given = {name: channel_numbers(text, name) for name in ("mean", "std") if (text := getattr(config, name))}
    held = getattr(model, "normalize", None)
    if isinstance(held, Normalize):
        held.refuse_other(given, file)
        source = "the model that was passed" if was_normalised else str(file)
    elif given and config.from_run is not None:
        raise InputError(
            f"--mean and --std: the model of --from {config.from_run} does not normalise, remove the flags; to "
            f"start another model from the file, use --weights {file}"
        )
    else:
        own = preprocessing(config.model)
        values: dict[str, tuple[float, ...] | None] = {
            name: given.get(name, None if own is None else getattr(own, name)) for name in ("mean", "std")
        }
        if values["mean"] is None or values["std"] is None:
            return (), (), f"normalisation: none, {file} has none: the model gets images in [0, 1] unchanged"
        normalise(model, values["mean"], values["std"])
        held, source = model.normalize, own.source if own is not None and not given else "--mean and --std"
    assert isinstance(held, Normalize)
    mean, std = tuple(held.mean.flatten().tolist()), tuple(held.std.flatten().tolist())
    if len(mean) not in (1, channels):
        hint = ": give --mean and --std" if source not in (str(file), "--mean and --std") else ""
        raise InputError(f"{len(mean)} means for images of {channels} channel(s), from {source}{hint}")
    return mean, std, held.line(source)


def normalise(model: nn.Module, mean: Collection[float], std: Collection[float]) -> None:
    """Adds normalisation to a model of :func:`asgt.build_model` without one; does nothing without a mean."""

    if mean and isinstance(getattr(model, "normalize", None), nn.Identity):
        put_before_net(model, Normalize(list(mean), list(std)))


def reading_lines(config: TrainConfig) -> list[str]:
    """A line on the preprocessing of a model's own configuration; none without one."""

    own = preprocessing(config.model) if config.has_own_preprocessing else None
    if own is None:
        return []
    if config.has_start:  # the weights may bring a mean and a std, which is told when they are loaded
        own = replace(own, mean=None, std=None)
    asked = {name: value for name, value in config.to_dict().items() if value is not None}
    return [preprocessing_line(own, with_own_sizes(asked, own), asked)]


def preprocessing_line(own: Preprocessing, settings: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """A line on the image settings of the model's own configuration, and on the flags that override them.

    Args:
        own: the configuration.
        settings: the settings for reading the images, by name.
        asked: the given settings, by name.
    """

    words = []
    for name in ("image_size", "crop", "interpolation", "mean", "std"):
        title = name.replace("_", " ")
        if name in asked:
            words.append(f"{title} {asked[name]} (by {flag_of(name)})")
        elif name in ("mean", "std") and getattr(own, name) is not None:
            words.append(f"{title} {', '.join(f'{value:.4g}' for value in getattr(own, name))}")
        elif name in settings:
            words.append(f"{title} {settings[name]}")
    return f"preprocessing, from {own.source}: {'; '.join(words) or 'none'}"


def refuse_changed(config: TrainConfig, start: Start | None, folder: Path) -> None:
    """Refuses to continue a run whose source weights have changed; they may be missing.

    Raises:
        InputError: the file has other content.
    """

    file = start_file(config)
    if file is None or start is None or not file.is_file():
        return
    if digest_file(file) != start.sha256:
        name = "from_run" if config.weights is None else "weights"
        raise InputError(
            f"{folder} was started from other weights than {file} has now ({flag_of(name)}): restore the file, remove "
            "it, or train again into another folder"
        )


def parameter_groups(
    model: nn.Module, config: TrainConfig, shape: tuple[int, int, int]
) -> tuple[list[nn.Parameter] | list[dict[str, Any]], tuple[float, ...]]:
    """The weights as an optimizer takes them, and the peak learning rate of each group.

    Without ``head_lr`` there is one group; with it, the weights of the head are a second one.

    Raises:
        InputError: no single layer computes the logits.
    """

    assert config.lr is not None  # a resolved configuration has one
    if config.head_lr is None:
        return list(model.parameters()), (config.lr,)
    head = find_head(model, shape)
    if head is None:
        raise InputError(
            f"--head-lr {config.head_lr:g}: no single Linear or Conv2d of {config.model} computes its "
            "logits, remove the flag"
        )
    own = list(model.get_submodule(head).parameters())
    rest = [weight for weight in model.parameters() if all(weight is not each for each in own)]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": own, "lr": config.head_lr}]
    return groups, (config.lr, config.head_lr)
