"""The trainer: one function that reads from top to bottom like the algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..attacks import FGSM, PGD, Attack
from ..data import Images, load_data, steps_per_epoch, stratified, to_unit, training_batch, training_order
from ..devices import device_name, place, resolve_device, tensor_cores
from ..errors import DamagedFileError, InputError, InterruptedRunError
from ..evaluation.accuracy import correct, correct_under_attack
from ..evaluation.health import is_catastrophic, is_collapsed
from ..files import read_tensors, write_json, write_tensors
from ..inputs import trusted
from ..memory import keeps_memory
from ..models.weights import versions_text
from ..names import is_foreign
from ..numbers import counted
from ..passes import a_pass, modes_agree
from ..progress import SILENT, Progress
from ..randomness import Generators, seed_of, seeded
from .building import build_from
from .checkpoint import Standing, load_checkpoint, save_checkpoint
from .config import MAY_CHANGE, TrainConfig
from .counting import step_passes
from .foreign import check_trainable, left_in_evaluation, put_in_training
from .graphs import GraphedStep
from .methods import build_objective
from .objectives import Output
from .run_folder import RunFolder, TrainResult
from .schedule import learning_rate, ramped
from .speed import Display, Stopwatch, speed_text
from .world import World, join

__all__ = ["judge", "train", "validation_share"]

_SHOWN_EVERY = 20
_VALIDATION_IMAGES = 2_000

# What a process asks for after a step; the largest of all processes' is done.
_SAVE, _STOP = 1, 2


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> TrainResult:
    """Trains a classifier and leaves a run folder.

    Where a launcher started several processes, each of them calls this, and they train one model together: they split
    every batch evenly, the main one writes, and all return the same.

    Args:
        config: what to train, on what, how.
        out: the run folder.
        resume: go on from the last checkpoint in ``out``; from the beginning, if there is none. A resumed run ends
            bit-identical to one that was never stopped, on the same machine, versions and thread count.
        should_stop: asked after every step; when it says so, on any process, a checkpoint is written and the run stops.
        progress: is told how far it is.

    Returns:
        How it ended, as in ``training.json``.

    Raises:
        InputError: the configuration, the data or the folder does not fit, or the loss is no longer a number.
        InterruptedRunError: ``should_stop`` said so, or another process is gone.
    """

    began = time.monotonic()
    world = join(config.device)
    if not world.is_main:
        progress = SILENT
    # The run folder need not be within reach of the other hosts, nor then what it was begun with.
    config = world.from_main(config.resolved)
    objective = build_objective(config)
    if config.batch_size % world.size:
        raise InputError(_uneven(f"--batch-size {config.batch_size}", config.batch_size, world))
    folder = RunFolder(out)
    finished = world.from_main(_claim, folder, config, resume)
    if finished is not None:
        progress.say(f"{folder.path} is finished already")
        return finished
    forgetting = _forgotten_if_refused(folder, world.from_main(folder.config.exists), world)
    accelerator = world.together(_accelerator, config, folder, world)
    device = accelerator.device
    data = world.main_first(
        load_data,
        config.data,
        limit=config.limit,
        **config.data_settings(),
        progress=progress,
    )
    standing = Standing(
        config=config.to_dict(), data=data.train.digest(), threads=torch.get_num_threads(), processes=world.size
    )
    if len(set(world.gathered(standing.data))) > 1:
        raise InputError(f"the processes see different training images in {config.data}: every host needs the same")
    # The same validation part for every seed, so that seeds differ in what they are to differ in.
    rows, validation_rows = stratified(data.train.labels, validation_share(config, len(data.train)), "validation")
    if len(validation_rows) == 0:
        raise InputError(
            f"{len(data.train)} training images leave none for the validation part: more images, or a larger --limit"
        )
    images, validation = data.train[rows].to(device), data.train[validation_rows].to(device)
    batch = min(config.batch_size, len(images))
    if batch % world.size:
        raise InputError(_uneven(f"the only batch, of {batch} training images,", batch, world))
    # The trainer owns the global generator while it runs (dropout and initialisation draw from it), and gives it back.
    with torch.random.fork_rng(), tensor_cores(config.precision == "tf32"), trusted(), forgetting:
        torch.manual_seed(seed_of(config.seed, "initialisation"))
        few = to_unit(images.pixels[:4])
        model = place(world.together(build_from, config, data), device, few)
        frozen = left_in_evaluation(model)
        if is_foreign(config.model):
            world.together(check_trainable, model, objective, few, images.labels[:4], config.model)
        world.spread(model)
        if any("BatchNorm" in type(m).__name__ for m in model.modules() if m not in frozen):
            if batch == world.size:
                raise InputError(
                    f"{config.model} normalises over its batch: --batch-size must be {2 * world.size} or more"
                )
            if world.size > 1:
                progress.warn(
                    f"{config.model} has BatchNorm: each of the {world.size} processes normalises over its own "
                    f"{batch // world.size} images of a batch; the running statistics are the mean of theirs"
                )
        # Only now that data, device and model are known to fit does the run begin to exist.
        world.from_main(_begin, folder, config, data.indices)
        if config.tensorboard:
            accelerator.init_trackers("tensorboard")
        average = _average(model, config.average)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )

        sums: dict[str, Tensor] = {}
        if world.from_main(folder.checkpoint.exists):
            standing, sums = _resumed(folder, standing, model, average, optimizer, progress, world)
            sums = {name: tensor.to(device) for name, tensor in sums.items()}
        world.from_main(folder.cut_rows, standing.step)

        # What accelerate calls evaluation is autocast alone: the world averages the gradients.
        prepared = accelerator.prepare_model(model, evaluation_mode=True)
        optimizer = accelerator.prepare_optimizer(optimizer)
        epoch_steps = steps_per_epoch(images, config.batch_size)
        total = epoch_steps * config.epochs
        warnings = _Warnings(config, progress, standing)
        passes = step_passes(objective, modes_agree=modes_agree(put_in_training(model, frozen)))
        watch = Stopwatch(device, passes, metered=not config.cuda_graphs)

        def gradients(x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators) -> dict[str, Tensor]:
            """Leaves the loss's gradient in the weights, and returns the metrics: what a device does in a step."""

            output = objective(prepared, x, y, eps=eps, generator=generators)
            optimizer.zero_grad(set_to_none=True)
            with a_pass():
                accelerator.backward(output.loss)
            # What holds logits holds their graph, and with it the memory that the next step wants.
            return _measured(output, y)

        compute = GraphedStep(gradients, model) if config.cuda_graphs else gradients
        display = Display(device)
        saved = time.monotonic()
        if world.size > 1:
            progress.say(f"{world.size} processes, {batch // world.size} images of each step's {batch} to each")
        progress.start(f"{config.method} · {config.model} · {config.data}", total, standing.step)
        progress.say(f"{watch.passes} passes a step, {torch.get_num_threads()} CPU threads" + _memory())
        for note in data.notes:
            progress.say(note)
        if frozen:
            progress.say(
                f"{counted(len(frozen), 'module')} of {config.model} stay in evaluation mode, as they were built"
            )

        order = training_order(images, config.seed, standing.step // epoch_steps)
        for step in range(standing.step, total):
            epoch, position = divmod(step, epoch_steps)
            if position == 0:
                order = training_order(images, config.seed, epoch)
                sums = {}
            done = step / total
            eps = None if config.eps is None else ramped(float(config.eps), done, config.warmup or 0.0)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(config.schedule, config.lr, done)

            # Every stream is a function of (seed, step): nothing random needs storing. Dropout alone draws from the
            # global generator, which knows no shares: other processes have streams of their own.
            torch.manual_seed(seed_of(config.seed, "dropout", step, *([world.rank] if world.rank else [])))
            streams = {
                name: world.share(seeded(config.seed, name, step, device=device))
                for name in ("augmentation", "attack", "mask")
            }
            x, y = training_batch(
                images, order, position, config.batch_size, config.augment or "none", streams["augmentation"]
            )

            put_in_training(prepared, frozen)
            with watch.on():
                measured = compute(x, y, eps, Generators(attack=streams["attack"], mask=streams["mask"]))
            measured = world.average(model, measured)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)

            # Sums stay on the device until the epoch's end; what is displayed comes when it comes.
            _add(sums, measured)
            watch.count(len(y) * world.size)
            standing.step = step + 1
            progress.advance(1, **(display.offer(sums) if standing.step % _SHOWN_EVERY == 0 else {}))

            if standing.step % epoch_steps == 0:
                judged = model if average is None else average.module
                row = {"epoch": epoch, "step": standing.step, "lr": optimizer.param_groups[0]["lr"], "eps": eps}
                row |= _means(sums)
                row["speed"] = watch.lap()
                if not torch.isfinite(sums["loss"]):
                    progress.stop()
                    raise InputError(
                        f"the loss is not a number in epoch {epoch}: lower --lr ({config.lr:g})"
                        + (" or use --precision fp32" if config.precision == "bf16" else "")
                    )
                row |= _validate(judged, validation, objective.adversary, config, warnings, epoch, world)
                row["seconds"] = round(time.monotonic() - began, 2)
                better = _is_better(row, config, standing, last=standing.step == total)
                world.from_main(_keep, folder, row, judged if better else None)
                accelerator.log({k: v for k, v in row.items() if isinstance(v, float)}, step=standing.step)
                progress.say(_line(row, config))

            due = world.is_main and time.monotonic() - saved >= config.checkpoint_every
            asked = world.most(_STOP if should_stop() else _SAVE if due else 0)
            stop = asked == _STOP
            if standing.step % epoch_steps == 0 or asked:
                world.from_main(save_checkpoint, folder.checkpoint, standing, model, average, optimizer, sums)
                saved = time.monotonic()
            if standing.step % epoch_steps == 0:
                watch.start()
            if stop and standing.step < total:
                progress.stop()
                raise InterruptedRunError(
                    f"stopped after step {standing.step} of {total}: asgt train --resume --out {folder.path}"
                )
        progress.stop()

    chosen = world.from_main(_chosen, folder, standing.best_epoch)
    result = TrainResult(
        folder=str(folder.path),
        epochs=config.epochs,
        chosen_epoch=standing.best_epoch,
        chosen_by=_chosen_by(config, standing, chosen),
        validation={
            name.removeprefix("validation_"): chosen[name] for name in chosen if name.startswith("validation_")
        },
        validation_images=len(validation),
        eps=None if config.eps is None else float(config.eps),
        norm=config.norm or "linf",
        collapsed=chosen["collapsed"],
        catastrophic_overfitting=chosen["catastrophic_overfitting"],
        warnings=warnings.summary(standing.best_epoch),
        classes=list(data.train.classes),
        shape=list(data.train.shape),
        train_data=standing.data,
        test_data=data.test.digest(),
        reading=data.reading,
        seconds=round(time.monotonic() - began, 2),
        processes=world.size,
        speed=watch.summary()
        | {"threads": torch.get_num_threads(), "keeps_memory": keeps_memory(), "device": device_name(device)},
    )
    world.from_main(write_json, folder.result, result.to_dict())
    accelerator.end_training()
    return result


def _uneven(what: str, count: int, world: World) -> str:
    below = count - count % world.size
    mend = f"--batch-size {below}" if below else "fewer processes"
    return f"{what} does not split evenly over {world.size} processes: {mend} would do"


def _claim(folder: RunFolder, config: TrainConfig, resume: bool) -> TrainResult | None:
    """Looks whether the run folder is free, or to be taken up; where it is finished already, how it ended."""

    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is a file: --out takes a folder")
    # What a kill left half-written is no run.
    if folder.path.is_dir() and any(not file.name.endswith(".part") for file in folder.path.iterdir()):
        if not resume:
            raise InputError(f"{folder.path} exists: --resume goes on with it, --out names another folder")
        if not folder.config.exists():
            raise InputError(f"{folder.path} is no run folder: it has no config.yaml")
        TrainConfig.load(folder.config).refuse_other(config.to_dict(), str(folder.path))
    return folder.load_result() if folder.result.exists() else None


def _begin(folder: RunFolder, config: TrainConfig, indices: dict[str, Tensor]) -> None:
    """Puts into the run folder what is known before the first step."""

    if not folder.config.exists():
        config.save(folder.config)
    # What a kill left half-written goes.
    for part in folder.path.glob(".*.part"):
        part.unlink(missing_ok=True)
    if indices:
        write_tensors(folder.split, indices)


@contextmanager
def _forgotten_if_refused(folder: RunFolder, begun: bool, world: World) -> Iterator[None]:
    """Removes a run folder that this call began, where the input is refused before anything worth keeping is in it."""

    try:
        yield
    except InputError:
        if world.is_main and not begun and not folder.checkpoint.exists() and not folder.rows():
            with suppress(OSError):  # whatever else lies there is the user's
                for file in (folder.config, folder.split, folder.metrics):
                    file.unlink(missing_ok=True)
                folder.path.rmdir()
        raise


def _keep(folder: RunFolder, row: dict[str, Any], better: nn.Module | None) -> None:
    """Puts an epoch's line into the run folder, and its weights, where they are the model so far."""

    if better is not None:
        state = better.state_dict()
        write_tensors(folder.model, state, versions_text(state))
    folder.add_row(row)


def _chosen(folder: RunFolder, epoch: int) -> dict[str, Any]:
    """The line of the epoch that was chosen."""

    row = next((row for row in folder.rows() if row["epoch"] == epoch), None)
    if row is None:
        raise DamagedFileError(f"{folder.metrics} is damaged: it lacks epoch {epoch}, which was chosen")
    return row


def _accelerator(config: TrainConfig, folder: RunFolder, world: World) -> Accelerator:
    """This process's device, precision and tracker."""

    # A process that trains twice may want another device or precision the second time; with others it keeps its place.
    AcceleratorState._reset_state(reset_partial_state=world.size == 1)
    device = resolve_device(config.device)
    if config.precision == "tf32" and device.type != "cuda":
        raise InputError(f"--precision tf32: a {device.type} device has no tensor cores, leave it out")
    if config.cuda_graphs and (device.type != "cuda" or world.size > 1):
        raise InputError("--cuda-graphs: only a single process on a CUDA device can record its steps, leave it out")
    if config.tensorboard:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise InputError("--tensorboard needs the extra: pip install 'asgt[tensorboard]'") from error
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        log_with="tensorboard" if config.tensorboard else None,
        project_dir=str(folder.path) if config.tensorboard else None,
    )
    if accelerator.distributed_type not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise InputError(
            f"launched for {accelerator.distributed_type.value}: each process holds the whole model here, so do without"
        )
    return accelerator


def validation_share(config: TrainConfig, images: int) -> float:
    """The share of so many training images that only picks the epoch."""

    return min(config.validation, _VALIDATION_IMAGES / images)


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential average of the weights; BatchNorm's statistics are averaged alike."""

    if decay is None:
        return None
    try:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    except Exception as error:  # a stranger's module may refuse to be copied
        raise InputError(f"--average {decay:g}: the model cannot be copied: {type(error).__name__}") from error
    return average.requires_grad_(False)


def _resumed(
    folder: RunFolder,
    fresh: Standing,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    world: World,
) -> tuple[Standing, dict[str, Tensor]]:
    held = world.from_main(read_tensors, folder.checkpoint)
    standing, sums = load_checkpoint(folder.checkpoint, held, model, average, optimizer)
    # A checkpoint of an older version lacks the settings that there were not yet.
    began = TrainConfig().to_dict() | standing.config
    if any(began[name] != value for name, value in fresh.config.items() if name not in MAY_CHANGE):
        raise InputError(f"{folder.checkpoint} is of a run with another configuration than {folder.config}")
    if standing.data != fresh.data:
        raise InputError(f"{folder.path} was begun with other training images: they changed, or ASGT_DATA did")
    if standing.processes != fresh.processes:
        raise InputError(
            f"{folder.path} was begun with {standing.processes} process(es), not {fresh.processes}: launch as many to "
            "resume"
        )
    if standing.threads != fresh.threads:
        progress.warn(
            f"begun with {standing.threads} threads, resumed with {fresh.threads}: sums are taken in another "
            "order, and the end will not be bit-identical"
        )
    progress.say(f"resumed after step {standing.step}")
    return standing, sums


def _measured(output: Output, y: Tensor) -> dict[str, Tensor]:
    """The metrics of a step, on the device: means over its images."""

    values = {"loss": output.loss} | output.terms
    values |= {f"accuracy_{view}": (z.argmax(dim=1) == y).float().mean() for view, z in output.logits.items()}
    return {name: value.detach() for name, value in values.items()}


def _add(sums: dict[str, Tensor], measured: dict[str, Tensor]) -> None:
    """Adds a step to the sums of its epoch, on the device."""

    for name, value in (measured | {"steps": torch.ones_like(measured["loss"])}).items():
        # float64 holds an epoch's sum exactly enough that resuming in the middle cannot show.
        value = value.detach().double() if value.device.type != "mps" else value.detach()
        # A recorded step writes its metrics to the same memory each time.
        sums[name] = sums[name] + value if name in sums else value.clone()


def _means(sums: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(total / sums["steps"]), 6) for name, total in sums.items() if name != "steps"}


def _validate(
    model: nn.Module,
    images: Images,
    adversary: Attack | None,
    config: TrainConfig,
    warnings: _Warnings,
    epoch: int,
    world: World,
) -> dict[str, Any]:
    """Accuracies on the validation part, and whether the epoch shows one of the two ways to die."""

    accuracies, predictions = judge(model, images, adversary, config.seed, world)
    row: dict[str, Any] = {f"validation_{name}": accuracy for name, accuracy in accuracies.items()}
    row["collapsed"] = is_collapsed(predictions, images.labels)
    row["catastrophic_overfitting"] = False
    # Before the ramp is over, the model has not yet met the ε that it is judged at.
    if "pgd" in accuracies and _ramp_is_over(config, epoch):
        row["catastrophic_overfitting"] = is_catastrophic(accuracies["fgsm"], accuracies["pgd"])

    warnings.epoch(epoch, row)
    return row


def judge(
    model: nn.Module, images: Images, adversary: Attack | None, seed: int = 0, world: World | None = None
) -> tuple[dict[str, float], Tensor]:
    """How an epoch is judged: ``clean`` accuracy; with an adversary, ``fgsm`` (one step) and ``pgd`` (PGD-10) at its ε.

    Args:
        model: the classifier.
        images: N images.
        adversary: what it was trained against.
        seed: of the attacks' random starts.
        world: the processes that split the images, each of which returns the same. Default: this one alone.

    Returns:
        The accuracies by name, and the predicted classes of the clean images, int64 (N,).
    """

    world = world or World()
    count, part = len(images), world.part(len(images))

    def outcomes() -> dict[str, Tensor]:
        own = images[part]
        right, predictions = correct(model, own)
        found = {"predictions": predictions, "clean": right}
        if adversary is not None and adversary.radius > 0:
            eps, norm = adversary.radius, adversary.norm
            single: Attack = (
                FGSM(eps) if norm == "linf" else PGD(eps, norm=norm, steps=1, alpha=eps, random_start=False)
            )
            for name, attack in (("fgsm", single), ("pgd", PGD(eps, norm=norm, steps=10))):
                found[name] = correct_under_attack(model, own, attack, seed=seed, first=part.start)
        return found

    found = {name: world.whole(own, count) for name, own in world.together(outcomes).items()}
    predictions = found.pop("predictions")
    return {name: float(right.float().mean()) for name, right in found.items()}, predictions


def _is_better(row: dict[str, Any], config: TrainConfig, standing: Standing, last: bool) -> bool:
    """Whether this epoch's weights are the model so far; notes it in ``standing``.

    Robust accuracy decides for adversarial methods, after the ramp and never for a collapsed epoch; clean accuracy for
    the others. Where no epoch qualifies, the last one is the model.
    """

    if config.keep == "last":
        chosen = last
    else:
        score = row.get("validation_pgd", row["validation_clean"])
        qualifies = not row["collapsed"] and _ramp_is_over(config, row["epoch"])
        chosen = (qualifies and score > standing.best_score) or (last and standing.best_epoch < 0)
        if chosen and qualifies:
            standing.best_score = score
    if chosen:
        standing.best_epoch = row["epoch"]
    return chosen


def _ramp_is_over(config: TrainConfig, epoch: int) -> bool:
    return epoch + 1 > (config.warmup or 0.0) * config.epochs


def _chosen_by(config: TrainConfig, standing: Standing, row: dict[str, Any]) -> str:
    if config.keep == "last" or standing.best_score < 0:
        return "last epoch"
    return "robust accuracy" if "validation_pgd" in row else "clean accuracy"


def _memory() -> str:
    return ", freed memory stays with the process" if keeps_memory() else ""


def _line(row: dict[str, Any], config: TrainConfig) -> str:
    parts = [f"epoch {row['epoch'] + 1}/{config.epochs}", f"loss {row['loss']:.3f}"]
    parts += [f"{name} {row[name]:.3f}" for name in ("clean", "adversarial", "consistency") if name in row]
    parts.append(f"validation: clean {row['validation_clean']:.1%}")
    if "validation_pgd" in row:
        parts.append(
            f"FGSM {row['validation_fgsm']:.1%}, PGD-10 {row['validation_pgd']:.1%} at eps {float(config.eps or 0):.4g}"
        )
    parts.append(speed_text(row["speed"]))
    return " · ".join(parts)


class _Warnings:
    """Says once when a run begins to die, and again in its result.

    A young net often predicts one class in its first epoch; only a collapse that lasts, or one at the end, is a death.
    """

    def __init__(self, config: TrainConfig, progress: Progress, standing: Standing) -> None:
        self.config = config
        self.progress = progress
        self.standing = standing

    def epoch(self, epoch: int, row: dict[str, Any]) -> None:
        if row["collapsed"]:
            self.standing.collapsed.append(epoch)
        if row["catastrophic_overfitting"]:
            self.standing.catastrophic.append(epoch)

        lasting = self.standing.collapsed[-2:] == [epoch - 1, epoch] and epoch - 2 not in self.standing.collapsed
        if lasting or (self.standing.collapsed[-1:] == [epoch] and epoch == self.config.epochs - 1):
            self.progress.warn(f"epoch {epoch + 1}: {self._collapse()}")
        if self.standing.catastrophic[-1:] == [epoch] and epoch - 1 not in self.standing.catastrophic:
            self.progress.warn(f"epoch {epoch + 1}: {self._catastrophe()}")

    def summary(self, chosen: int) -> list[str]:
        collapsed = (
            self.standing.collapsed if len(self.standing.collapsed) > 1 or chosen in self.standing.collapsed else []
        )
        lines = []
        for epochs, text in ((collapsed, self._collapse()), (self.standing.catastrophic, self._catastrophe())):
            if epochs:
                where = "the chosen epoch among them" if chosen in epochs else "not the chosen one"
                lines.append(f"{len(epochs)} of {self.config.epochs} epochs, {where}: {text}")
        return lines

    def _collapse(self) -> str:
        mend = "a longer --warmup or a smaller --lr" if self.config.eps is not None else "a smaller --lr"
        return f"collapse: the model predicts one class for nearly all images; try {mend}"

    def _catastrophe(self) -> str:
        return (
            "catastrophic overfitting: accuracy is high under one step (FGSM), low under PGD; train with --attack pgd"
        )
