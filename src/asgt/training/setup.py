"""Prepares a training: the run folder, the data, the model and the other objects of its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..data import Augmentation, Images, Splits, load_data, steps_per_epoch, stratified, to_unit
from ..devices import place, resolve_device
from ..errors import DamagedFileError, InputError
from ..files import digest, digest_file, is_sealed, read_tensors, write_tensors
from ..locks import holds_nothing
from ..manifest import Manifest
from ..memory import keeps_memory
from ..names import is_foreign
from ..numbers import counted
from ..passes import a_pass, modes_agree
from ..progress import SILENT, Progress
from ..randomness import Generators, seed_of
from .augmentation_registry import augmentation_named
from .building import build_with_head, refuse_size
from .checkpoint import Learner, TrainingState, load_checkpoint, load_model, standing
from .config import MAY_CHANGE, TrainConfig
from .counting import step_passes
from .foreign import check_storable, check_takes_targets, check_trainable, left_in_evaluation, put_in_training
from .graphs import GraphedStep
from .methods import build_objective
from .objectives import Objective, Output
from .optimizers import OPTIMIZERS, make_optimizer
from .passed import Passed, as_splits, configured
from .planted import masks_for, moved_shortcut, refuse_without_shortcut, with_shortcut
from .run_folder import RunFolder, TrainResult
from .speed import Stopwatch
from .starting import (
    Start,
    load_start,
    normalise,
    own_start,
    parameter_groups,
    reading_lines,
    refuse_changed,
    with_source,
)
from .targets import Targets, targets_of
from .tracking import Guarded, begin_trackers
from .validating import TrainingWarnings, validation_share
from .world import World

__all__ = ["STEP", "Fitting", "Opened", "forgotten_if_refused", "open_run", "setup"]


STEP = "step"
"""The key in the metadata of the weights for the training step after which they were written."""


@dataclass(frozen=True)
class Opened:
    """A run with checked input, before its model is built.

    Attributes:
        config: resolved.
        folder: the run folder.
        is_new: whether it contained nothing of the run.
        passed: the objects that take the place of names.
        objective: the method.
        world: the processes that train together.
        accelerator: this process's device, precision and trackers.
        data: the training and test images.
        digest: SHA-256 of the training images.
        images: the training images without the validation part, on the device.
        validation: the validation part, on the device.
        batch: images per step of all processes together.
        augmentation: applied to each batch of training images.
        targets: from labels to the targets of the loss; ``None`` if the labels are the targets.
        progress: receives the progress of the run.
    """

    config: TrainConfig
    folder: RunFolder
    is_new: bool
    passed: Passed
    objective: Objective
    world: World
    accelerator: Accelerator
    data: Splits
    digest: str
    images: Images
    validation: Images
    batch: int
    augmentation: Augmentation
    targets: Targets | None
    progress: Progress


@dataclass(frozen=True)
class Fitting:
    """The objects of the training steps, ready for the first step or the one after a checkpoint.

    Attributes:
        opened: the settings and the data.
        learner: the model, its average and its optimizer.
        forward: the model as the loss goes through it: with autocast.
        frozen: the modules of the model that remain in evaluation mode.
        state: the progress of the run; every step changes it.
        sums: the sums of the metrics of the epoch so far.
        compute: from images, labels, ε, generators and, if the method needs it, the mask of the shortcut to the
            metrics of a step; stores the gradients in the weights.
        rates: the peak learning rate of each group of the optimizer.
        watch: measures the time.
        warnings: notes collapse and catastrophic overfitting.
        began: when the call began, by :func:`time.monotonic`.
    """

    opened: Opened
    learner: Learner
    forward: nn.Module
    frozen: frozenset[nn.Module]
    state: TrainingState
    sums: dict[str, Tensor]
    compute: Callable[..., dict[str, Tensor]]
    rates: tuple[float, ...]
    watch: Stopwatch
    warnings: TrainingWarnings
    began: float


def open_run(
    config: TrainConfig, out: Path, passed: Passed, world: World, progress: Progress, *, resume: bool
) -> Opened | TrainResult:
    """Checks the settings and loads the data; returns the result if the run is already finished.

    Raises:
        InputError: the configuration, the data or the folder is invalid.
    """

    if not world.is_main:
        progress = SILENT
    # The run folder need not be within reach of the other hosts, nor then what it was begun with.
    has_model, has_data = passed.model is not None, passed.data is not None
    config = world.from_main(with_source, config, out, resume=resume, has_model=has_model, has_data=has_data)
    config = world.from_main(configured, config, passed)
    objective = build_objective(config) if passed.objective is None else passed.objective
    check_takes_targets(objective, config)
    refuse_without_shortcut(objective, config, passed.data)
    if config.batch_size % world.size:
        raise InputError(_uneven(f"--batch-size {config.batch_size}", config.batch_size, world))
    folder = RunFolder(out)
    finished = world.from_main(_claim, folder, config, resume)
    if finished is not None:
        progress.say(f"{folder.path} is finished already")
        for remark in world.from_main(folder.remarks):
            progress.warn(remark)
        if passed.data is not None:
            own = with_shortcut(world.together(as_splits, passed.data), config.shortcut).train.digest()
            if own != finished.train_data:
                raise InputError(f"{folder.path} was trained on other images than those that were passed: pass them")
        return finished
    is_new = not world.from_main(folder.config.exists)
    accelerator = world.together(_accelerator, config, folder, world, progress)
    augmentation = world.together(augmentation_named, config.augment or "none")
    if passed.data is None:
        world.together(refuse_size, config)
        data = world.main_first(load_data, config.data, limit=config.limit, **config.data_settings(), progress=progress)
    else:
        data = world.together(as_splits, passed.data)
    data = world.together(with_shortcut, data, config.shortcut)
    if told := moved_shortcut(config):
        progress.warn(told)
    trained_on = data.train.digest()
    if len(set(world.gathered(trained_on))) > 1:
        raise InputError(f"the processes have different training images in {config.data}: give every host the same")
    # The same validation part for every seed, so that seeds differ in what they are to differ in.
    rows, validation_rows = stratified(data.train.labels, validation_share(config, len(data.train)), "validation")
    if len(validation_rows) == 0:
        raise InputError(
            f"{len(data.train)} training images are too few for a validation part: use more images, or a larger --limit"
        )
    device = accelerator.device
    images, validation = data.train[rows].to(device), data.train[validation_rows].to(device)
    batch = min(config.batch_size, len(images))
    if batch % world.size:
        raise InputError(_uneven(f"the only batch, of {batch} training images,", batch, world))
    targets = world.together(targets_of, config, images.labels, data.train.classes)
    return Opened(
        config=config,
        folder=folder,
        is_new=is_new,
        passed=passed,
        objective=objective,
        world=world,
        accelerator=accelerator,
        data=data,
        digest=trained_on,
        images=images,
        validation=validation,
        batch=batch,
        augmentation=augmentation,
        targets=targets,
        progress=progress,
    )


def setup(opened: Opened, began: float) -> Fitting:
    """Builds the model, starts the run folder, and continues from the last checkpoint if there is one.

    Raises:
        InputError: the model cannot be trained, or the checkpoint belongs to another run.
    """

    config, world, folder, progress = opened.config, opened.world, opened.folder, opened.progress
    accelerator, device = opened.accelerator, opened.accelerator.device
    is_begun = world.from_main(folder.checkpoint.exists)
    held = world.from_main(read_tensors, folder.checkpoint) if is_begun else None
    torch.manual_seed(seed_of(config.seed, "initialisation"))
    model, frozen, start, told = _model(opened, None if held is None else standing(folder.checkpoint, held[1]))
    # Only now that data, device and model are known to fit does the run begin to exist.
    begun = world.from_main(_begin, folder, config, opened.data.indices)
    if held is not None and config.head_lr is not None:
        load_model(held, model)  # the head was found in the given weights, not in the initial ones
    weights, rates = parameter_groups(model, config, opened.data.train.shape)
    optimizer = make_optimizer(config.optimizer, weights, config.optimizer_settings())
    learner = Learner(model, _average(model, config.average), optimizer)

    state = TrainingState(
        config=config.to_dict(),
        data=opened.digest,
        threads=torch.get_num_threads(),
        processes=world.size,
        files=begun,
        start={} if start is None else start.to_dict(),
    )
    fresh, sums = state, dict[str, Tensor]()
    if held is not None:
        state, sums = load_checkpoint(folder.checkpoint, held, learner)
        _refuse_other_run(folder, state, fresh, progress)
        sums = {name: tensor.to(device) for name, tensor in sums.items()}
    lines = world.from_main(folder.lines_until, state.step)
    if state is not fresh:
        world.from_main(_refuse_damaged, folder, state, {**begun, folder.metrics.name: digest(lines)})
        if not world.from_main(is_sealed, folder.checkpoint):
            progress.warn(f"{folder.checkpoint} has no digest: the run is unverified from now on")
            state.unverified.append("the training was resumed from a checkpoint without a digest")
    world.from_main(folder.cut_to, lines)
    if config.trackers:
        world.from_main(begin_trackers, accelerator, folder, config.to_dict(), state.step)

    # What accelerate calls evaluation is autocast alone: the world averages the gradients.
    forward = accelerator.prepare_model(model, evaluation_mode=True)
    learner = Learner(model, learner.average, accelerator.prepare_optimizer(optimizer))
    warnings = TrainingWarnings(config, progress, state)
    passes = _counted_passes(opened, put_in_training(model, frozen))
    watch = Stopwatch(device, passes, metered=not config.cuda_graphs)
    compute = _gradients(opened, forward, learner.optimizer)
    fitting = Fitting(
        opened=opened,
        learner=learner,
        forward=forward,
        frozen=frozen,
        state=state,
        sums=sums,
        compute=GraphedStep(compute, model) if config.cuda_graphs else compute,
        rates=rates,
        watch=watch,
        warnings=warnings,
        began=began,
    )
    _announce(fitting, told)
    return fitting


def _model(
    opened: Opened, begun: TrainingState | None
) -> tuple[nn.Module, frozenset[nn.Module], Start | None, list[str]]:
    """The model on its device, alike on all processes; the modules of it that stay in evaluation mode; its start.

    The lines say what it starts from, once nothing is refused any more.
    """

    config, world, batch = opened.config, opened.world, opened.batch
    few = to_unit(opened.images.pixels[:4])
    built, start, lines = _started(opened, begun)
    model = place(built, opened.accelerator.device, few)
    frozen = left_in_evaluation(model)
    if is_foreign(config.model):
        world.together(check_storable, model, _subject(config))
    if config.epochs == 0:
        world.spread(model)
        return model, frozen, start, lines
    if is_foreign(config.model) or config.has_foreign_method:
        labels = opened.images.labels[:4]
        soft = None if opened.targets is None else opened.targets(labels)
        mask = masks_for(opened.objective, opened.images, slice(4))
        subject = _subject(config)
        world.together(check_trainable, model, opened.objective, few, labels, subject, targets=soft, shortcut=mask)
    world.spread(model)
    if any("BatchNorm" in type(m).__name__ for m in model.modules() if m not in frozen):
        if batch == world.size:
            raise InputError(f"{config.model} has batch normalisation: --batch-size must be at least {2 * world.size}")
        if world.size > 1:
            opened.progress.warn(
                f"{config.model} has BatchNorm: each of the {world.size} processes normalises over its own "
                f"{batch // world.size} images of a batch; the running statistics are the mean of theirs"
            )
    return model, frozen, start, lines


def _started(opened: Opened, begun: TrainingState | None) -> tuple[nn.Module, Start | None, list[str]]:
    """The model with the weights that it starts from; where the run has a checkpoint, with room for those of that.

    What there is to say of them follows, in lines.
    """

    config, world, folder = opened.config, opened.world, opened.folder
    start = Start.of(begun.start, folder.checkpoint) if begun is not None and begun.start else None
    head = None if start is None else start.head or None
    built, replaced = world.together(build_with_head, config, opened.data, opened.passed.model, head)
    lines = [] if opened.passed.data is not None else reading_lines(config)
    if begun is not None:
        world.from_main(refuse_changed, config, start, folder.path)
    elif config.has_start:
        start, told = world.from_main(load_start, built, config, opened.data, replaced)
        lines += told
    else:
        start, told = own_start(config, opened.data, replaced)
        lines += told
        if config.epochs == 0 and isinstance(getattr(built, "normalize", None), nn.Identity):
            lines.append(f"normalisation: none, {config.model} gets images in [0, 1] unchanged")
    if start is not None:
        # The others get the weights when all do; what they have no room for is made here.
        world.together(normalise, built, start.mean, start.std)
    return built, start, lines


def _subject(config: TrainConfig) -> str:
    """What to call the foreign code of a run in an error."""

    names = [("model", config.model), ("method", config.method), ("attack", config.attack or "")]
    return ", ".join(f"{what} {name}" for what, name in names if is_foreign(name))


def _counted_passes(opened: Opened, model: nn.Module) -> int:
    """Passes of a step; 0 for a foreign method that cannot be counted, as it needs more of a model than logits."""

    try:
        return step_passes(opened.objective, modes_agree=modes_agree(model), targets=opened.targets is not None)
    except InputError:
        if not opened.config.has_foreign_method:
            raise
        return 0


def _gradients(
    opened: Opened, forward: nn.Module, optimizer: torch.optim.Optimizer
) -> Callable[..., dict[str, Tensor]]:
    """What a device does in a step: the function that leaves the loss's gradient in the weights."""

    objective, accelerator, targets = opened.objective, opened.accelerator, opened.targets

    def gradients(
        x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators, shortcut: Tensor | None = None
    ) -> dict[str, Tensor]:
        told: dict[str, Any] = {} if targets is None else {"targets": targets(y)}
        told |= {} if shortcut is None else {"shortcut": shortcut}
        output = objective(forward, x, y, eps=eps, generator=generators, **told)
        optimizer.zero_grad(set_to_none=True)
        with a_pass():
            accelerator.backward(output.loss)
        # What holds logits holds their graph, and with it the memory that the next step wants.
        return _measured(output, y)

    return gradients


def _measured(output: Output, y: Tensor) -> dict[str, Tensor]:
    """The metrics of a step, on the device: means over its images."""

    values = {"loss": output.loss} | output.terms
    values |= {f"accuracy_{view}": (z.argmax(dim=1) == y).float().mean() for view, z in output.logits.items()}
    return {name: value.detach() for name, value in values.items()}


def _announce(fitting: Fitting, lines: Sequence[str]) -> None:
    """Says what begins, the lines on its start first."""

    opened, progress = fitting.opened, fitting.opened.progress
    for line in lines:
        progress.say(line)
    config, world, batch = opened.config, opened.world, opened.batch
    if world.size > 1:
        progress.say(f"{world.size} processes, {batch // world.size} images of each step's {batch} for each")
    total = steps_per_epoch(opened.images, config.batch_size) * config.epochs
    if total:
        progress.start(f"{config.method} · {config.model} · {config.data}", total, fitting.state.step)
        memory = ", the process retains freed memory" if keeps_memory() else ""
        progress.say(f"{fitting.watch.passes} passes per step, {torch.get_num_threads()} CPU threads{memory}")
    for note in opened.data.notes:
        progress.say(note)
    if fitting.frozen:
        progress.say(f"{counted(len(fitting.frozen), 'module')} of {config.model} remain in evaluation mode, as built")


def _refuse_other_run(folder: RunFolder, state: TrainingState, fresh: TrainingState, progress: Progress) -> None:
    """Refuses a checkpoint of a run that was begun with something else than ``fresh``."""

    # A checkpoint of an older version lacks the settings that there were not yet, and its optimizer is the default.
    began = TrainConfig().to_dict() | dict(OPTIMIZERS[TrainConfig.optimizer].defaults) | state.config
    if any(began.get(name) != value for name, value in fresh.config.items() if name not in MAY_CHANGE):
        raise InputError(f"{folder.checkpoint} belongs to a run with another configuration than {folder.config}")
    if state.data != fresh.data:
        raise InputError(
            f"{folder.path} was started with other training images: restore them, or the value of ASGT_DATA"
        )
    if state.processes != fresh.processes:
        raise InputError(
            f"{folder.path} was started with {state.processes} process(es), not {fresh.processes}: use the same "
            "number to resume"
        )
    if state.threads != fresh.threads:
        progress.warn(
            f"started with {state.threads} threads, resumed with {fresh.threads}: the order of sums differs, so "
            "the result will not be bit-identical"
        )
    progress.say(f"resumed after step {state.step}")


def _refuse_damaged(folder: RunFolder, state: TrainingState, found: Mapping[str, str]) -> None:
    """Refuses to go on from files that are not what the checkpoint knows of them.

    Raises:
        DamagedFileError: one of them was changed, or is gone.
    """

    there = dict(found)
    if folder.model.name in state.files and not _is_later(folder.model, state.step):
        there[folder.model.name] = digest_file(folder.model)
    for name, now in there.items():
        if state.files.get(name, now) != now:
            raise DamagedFileError(
                f"{folder.path / name} is damaged: its SHA-256 differs from the one in the checkpoint: "
                "restore the file, "
                "or train again into another folder"
            )


def _is_later(model: Path, step: int) -> bool:
    """Whether weights are of a later step than the checkpoint, as a kill between the two leaves them.

    The steps after the checkpoint are taken again, and write them again.
    """

    metadata = read_tensors(model)[1]
    return metadata.get(STEP, "").isdecimal() and int(metadata[STEP]) > step


def _uneven(what: str, count: int, world: World) -> str:
    below = count - count % world.size
    mend = f"--batch-size {below}" if below else "fewer processes"
    return f"{what} does not split evenly over {world.size} processes: use {mend}"


def _claim(folder: RunFolder, config: TrainConfig, resume: bool) -> TrainResult | None:
    """Looks whether the run folder is free, or to be taken up; where it is finished already, how it ended.

    The weights of a finished run are checked too: nothing of it is computed again.
    """

    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is a file: give a folder to --out")
    if not holds_nothing(folder.path):
        if not resume:
            raise InputError(
                f"{folder.path} exists: continue it with --resume (in Python resume=True), or give another folder "
                "to --out"
            )
        if not folder.config.exists():
            raise InputError(
                f"{folder.path} is not a run folder, because it has no config.yaml: give another folder to --out"
            )
        TrainConfig.load(folder.config).refuse_other(config.to_dict(), str(folder.path))
    if not folder.result.exists():
        return None
    if not folder.is_finished():
        if not folder.checkpoint.exists():
            raise DamagedFileError(
                f"{folder.manifest} and {folder.checkpoint.name} are missing: restore one of them, or run "
                f"asgt verify {folder.path} --accept to accept the run as it is"
            )
        return None
    result, manifest = folder.load_result(), Manifest.of(folder.path)
    if manifest is not None:
        others = [file.name for file in (folder.checkpoint, folder.split) if file.exists()]
        manifest.check(folder.model.name, *others)
    return result


def _begin(folder: RunFolder, config: TrainConfig, indices: dict[str, Tensor]) -> dict[str, str]:
    """Puts into the run folder what is known before the first step.

    Returns:
        The SHA-256 of these files, by name.
    """

    if not folder.config.exists():
        config.save(folder.config)
    begun = {folder.config.name: digest_file(folder.config)}
    # What a kill left half-written goes.
    for part in folder.path.glob(".*.part"):
        part.unlink(missing_ok=True)
    if indices:
        begun[folder.split.name] = write_tensors(folder.split, indices)
    return begun


@contextmanager
def forgotten_if_refused(opened: Opened) -> Iterator[None]:
    """Removes a run folder that this call started, if the input is refused before the folder has useful content."""

    folder = opened.folder
    try:
        yield
    except InputError:
        if opened.world.is_main and opened.is_new and not folder.checkpoint.exists() and not folder.rows():
            with suppress(OSError):  # whatever else lies there is the user's
                for file in (folder.config, folder.split, folder.metrics):
                    file.unlink(missing_ok=True)
                folder.path.rmdir()
        raise


def _accelerator(config: TrainConfig, folder: RunFolder, world: World, progress: Progress) -> Accelerator:
    """This process's device, precision and trackers."""

    # A process that trains twice may want another device or precision the second time; with others it keeps its place.
    AcceleratorState._reset_state(reset_partial_state=world.size == 1)
    device = resolve_device(config.device)
    if config.precision == "tf32" and device.type != "cuda":
        raise InputError(f"--precision tf32: a {device.type} device has no tensor cores, remove the flag")
    if config.cuda_graphs and (device.type != "cuda" or world.size > 1):
        raise InputError("--cuda-graphs: only a single process on a CUDA device can record its steps, remove the flag")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with=[Guarded(name, folder, progress) for name in config.trackers] or None,
    )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise InputError(
            f"launched for {accelerator.distributed_type.value}: each process must hold the whole model: "
            "launch without it"
        )
    return accelerator


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential average of the weights; BatchNorm's statistics are averaged alike."""

    if decay is None:
        return None
    try:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    except Exception as error:  # a stranger's module may refuse to be copied
        raise InputError(f"--average {decay:g}: the model cannot be copied: {type(error).__name__}") from error
    return average.requires_grad_(False)
