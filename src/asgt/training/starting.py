"""What a training starts from, where that is no random weights: a file of weights, or the weights of another run.

What was loaded is recorded in the checkpoint and in ``training.json``, so that a run goes on, and is read again,
without the file.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from ..data import Splits
from ..errors import DamagedFileError, InputError
from ..files import digest_file
from ..manifest import Manifest
from ..models import Normalize, preprocessing
from ..models.head import Replaced, find_head
from ..models.weights import load_all_but_head, put_before_net
from ..names import refuse_unless_allowed
from ..progress import Progress
from .config import TrainConfig, channel_numbers, flag_of
from .run_folder import RunFolder, TrainResult

__all__ = [
    "Start",
    "load_start",
    "normalise",
    "parameter_groups",
    "refuse_changed",
    "source_run",
    "start_file",
    "with_source",
]


@dataclass(frozen=True)
class Start:
    """The weights that a training started from.

    Attributes:
        weights: the file, as it was named.
        sha256: of its bytes.
        matched: what of it was matched, in words; empty where it fits as it is.
        head: the dotted name of the layer that was replaced, as the weights are of other classes; empty where none was.
        logits: how many logits the weights give; 0 where no head was replaced.
        mean: per channel, that the model normalises by; empty where it does not.
        std: per channel.
    """

    weights: str
    sha256: str
    matched: str = ""
    head: str = ""
    logits: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""

        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def of(cls, values: Mapping[str, Any], where: Path) -> Start:
        """What :meth:`to_dict` gave.

        Raises:
            DamagedFileError: the file ``where`` holds something else.
        """

        try:
            numbers = {name: tuple(map(float, values[name])) for name in ("mean", "std")}
            start = cls(**{**values, **numbers})
            texts = (start.weights, start.sha256, start.matched, start.head)
            if not all(isinstance(text, str) for text in texts) or type(start.logits) is not int:
                raise TypeError("a value of another kind")
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFileError(f"{where} is damaged: it does not say what the training started from") from error
        return start


def start_file(config: TrainConfig) -> Path | None:
    """The file of weights that a training starts from; ``None`` where it starts from random ones."""

    if config.from_run is not None:
        return RunFolder(config.from_run).model
    return None if config.weights is None else Path(config.weights)


def source_run(path: str) -> tuple[TrainConfig, TrainResult]:
    """The configuration and the result of the run that another one starts from.

    Raises:
        InputError: there is no run, or it is not finished.
        DamagedFileError: a file of it is damaged.
    """

    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise InputError(f"--from {path}: there is no such run folder")
    if not folder.config.exists():
        raise InputError(f"--from {path} is no run folder: it has no config.yaml; --weights takes a file of weights")
    config, result = TrainConfig.load(folder.config), folder.load_result()
    if not folder.model.exists():
        raise DamagedFileError(f"{folder.model} is missing: restore it")
    if (manifest := Manifest.of(folder.path)) is not None:
        manifest.check(folder.model.name)
    return config, result


def with_source(
    config: TrainConfig, out: Path | str | None, *, resume: bool, allow: Collection[str] = (), has_model: bool = False
) -> TrainConfig:
    """The configuration with the model, the width and the dropout of the run that it starts from, where they are unset.

    Args:
        config: with or without ``from_run``. The default model counts as unset.
        out: the run folder that is trained into, if it is known. Where it is begun, it says what the other run was.
        resume: whether to go on with it.
        allow: whose code may run: the file of another run may not say so.
        has_model: whether a model was passed as an object, for which nothing is taken over.

    Raises:
        InputError: the other run is this one, is not finished, or has a model that is not allowed.
        DamagedFileError: a file of it is damaged.
    """

    if config.from_run is None:
        return config
    config.check_start()
    if out is not None and Path(out).resolve() == Path(config.from_run).resolve():
        raise InputError(f"--from {config.from_run} is the run folder that is trained into: --out names another one")
    if resume and out is not None and (stored := RunFolder(out).config).exists():
        source, where = TrainConfig.load(stored), stored
    else:
        source, where = source_run(config.from_run)[0], RunFolder(config.from_run).config
    taken: dict[str, Any] = {}
    if has_model:
        return config
    if config.model == TrainConfig.model and source.model != config.model:
        refuse_unless_allowed(source.model, allow, str(where))
        taken["model"] = source.model
    if taken.get("model", config.model) == source.model:
        own = {name: getattr(source, name) for name in ("width", "dropout")}
        taken |= {name: value for name, value in own.items() if value is not None and getattr(config, name) is None}
    return replace(config, **taken)


def load_start(
    model: nn.Module, config: TrainConfig, data: Splits, replaced: Replaced | None, progress: Progress
) -> Start:
    """Loads what a training starts from into its model, normalises it, and says so.

    Args:
        model: as :func:`asgt.training.building.build_with_head` gives it; it is changed in place.
        config: names the file or the run.
        data: the images that are trained on.
        replaced: the head that was replaced in the model, as it gives another number of logits than there are classes.
        progress: is told what was loaded, which head was replaced, and how the model normalises.

    Raises:
        InputError: the weights are not there, or do not fit.
        DamagedFileError: they, or the run, are damaged.
    """

    file, shape, classes = start_file(config), data.train.shape, data.train.classes
    assert file is not None
    notes = [] if config.from_run is None else _of_run(config.from_run, data)
    before = digest_file(file) if file.is_file() else ""
    head = find_head(model, shape) if replaced is None else replaced.head
    was_normalised = isinstance(getattr(model, "normalize", None), Normalize)
    loaded = load_all_but_head(model, file, head)
    if digest_file(file) != before:
        raise InputError(f"{file} changed while it was read: start again once it is whole")
    progress.say(f"weights: {file}" + (f" ({loaded.line})" if loaded.line else ""))

    start = Start(str(file), before, loaded.line)
    logits = loaded.left_out or (0 if replaced is None else replaced.logits)
    # A file of the data's own classes fits the head that took the place of the model's.
    if head is not None and (loaded.left_out is not None):
        start = replace(start, head=head, logits=logits)
        progress.say(f"head {head} replaced: {file} gives {logits} logits, the data has {len(classes)} classes")
    else:
        for note in notes:
            progress.say(note)
    mean, std, line = _normalisation(model, config, file, shape[0], was_normalised=was_normalised)
    progress.say(line)
    return replace(start, mean=mean, std=std)


def _of_run(path: str, data: Splits) -> list[str]:
    """Checks the run that a training starts from, and what there is to say of its classes if its head stays."""

    _, result = source_run(path)
    if (channels := result.shape[0]) != data.train.shape[0]:
        raise InputError(
            f"--from {path} was trained on images of {channels} channel(s), these have {data.train.shape[0]}: "
            f"{'--grey' if channels == 1 else '--rgb'} may help"
        )
    if len(result.classes) == len(data.train.classes) and tuple(result.classes) != tuple(data.train.classes):
        return [f"the classes of {path} have other names or another order; as many as here, so its head stays"]
    return []


def _normalisation(
    model: nn.Module, config: TrainConfig, file: Path, channels: int, *, was_normalised: bool
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Gives a model its normalisation where the weights brought none; mean, std, and whose they are in words."""

    given = {name: channel_numbers(text, name) for name in ("mean", "std") if (text := getattr(config, name))}
    held = getattr(model, "normalize", None)
    if isinstance(held, Normalize):
        held.refuse_other(given, file)
        source = "the model that was passed" if was_normalised else str(file)
    else:
        own = preprocessing(config.model)
        values: dict[str, tuple[float, ...] | None] = {
            name: given.get(name, None if own is None else getattr(own, name)) for name in ("mean", "std")
        }
        missing = [name for name, value in values.items() if value is None]
        if len(missing) == 1:
            other = "std" if missing == ["mean"] else "mean"
            raise InputError(f"--{other} without --{missing[0]}: {file} holds no normalisation, give both")
        if missing:
            return (), (), f"normalisation: none, {file} holds none: the model gets images in [0, 1] as they are"
        normalise(model, values["mean"] or (), values["std"] or ())
        held, source = model.normalize, own.source if own is not None and not given else "--mean and --std"
    assert isinstance(held, Normalize)
    mean, std = tuple(held.mean.flatten().tolist()), tuple(held.std.flatten().tolist())
    if len(mean) not in (1, channels):
        hint = ": give --mean and --std" if source not in (str(file), "--mean and --std") else ""
        raise InputError(f"{len(mean)} means for images of {channels} channel(s), from {source}{hint}")
    texts = [", ".join(f"{value:.4g}" for value in each) for each in (mean, std)]
    return mean, std, f"normalisation, from {source}: mean {texts[0]}; std {texts[1]}"


def normalise(model: nn.Module, mean: Collection[float], std: Collection[float]) -> None:
    """Puts normalisation into a model of :func:`asgt.build_model` that has none; nothing where there is no mean."""

    if mean and isinstance(getattr(model, "normalize", None), nn.Identity):
        put_before_net(model, Normalize(list(mean), list(std)))


def refuse_changed(config: TrainConfig, start: Start, folder: Path) -> None:
    """Refuses to go on with a run whose weights to start from are other ones by now; they may be gone.

    Raises:
        InputError: the file has other content.
    """

    file = start_file(config)
    if file is not None and file.is_file() and digest_file(file) != start.sha256:
        name = "from_run" if config.weights is None else "weights"
        raise InputError(
            f"{folder} was begun from other weights than {file} holds now ({flag_of(name)}): restore the file, remove "
            "it, or train again into another folder"
        )


def parameter_groups(
    model: nn.Module, config: TrainConfig, shape: tuple[int, int, int]
) -> tuple[list[nn.Parameter] | list[dict[str, Any]], tuple[float, ...]]:
    """The weights as an optimizer takes them, and the peak learning rate of each group.

    Without ``head_lr`` it is one group; with it, the weights of the head are a second one.

    Raises:
        InputError: no single layer gives the logits.
    """

    assert config.lr is not None  # a resolved configuration has one
    if config.head_lr is None:
        return list(model.parameters()), (config.lr,)
    head = find_head(model, shape)
    if head is None:
        raise InputError(
            f"--head-lr {config.head_lr:g}: no single Linear or Conv2d of {config.model} gives its logits, leave it out"
        )
    own = list(model.get_submodule(head).parameters())
    rest = [weight for weight in model.parameters() if all(weight is not each for each in own)]
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": own, "lr": config.head_lr}]
    return groups, (config.lr, config.head_lr)
