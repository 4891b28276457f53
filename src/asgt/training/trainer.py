"""Training a classifier: :func:`train` prepares (:func:`setup`), trains (:func:`fit`) and writes the result
(:func:`finish`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from ..data import (
    LabelledImages,
    Splits,
    steps_per_epoch,
    training_batch,
    training_batch_with_masks,
    training_order,
)
from ..devices import device_name, tensor_cores
from ..errors import DamagedFileError, InputError, InterruptedRunError
from ..evaluation.health import is_catastrophic, is_collapsed
from ..files import write_tensors
from ..inputs import trusted
from ..locks import locked
from ..memory import keeps_memory
from ..models.weights import versions_text
from ..progress import SILENT, Progress
from ..randomness import Generators, Share, seed_of, seeded
from .checkpoint import save_checkpoint
from .config import TrainConfig
from .foreign import put_in_training
from .objectives import Objective
from .passed import Passed
from .run_folder import RunFolder, TrainResult
from .schedule import learning_rate, ramped
from .setup import STEP, Fitting, Opened, forgotten_if_refused, open_run, setup
from .speed import Display, speed_text
from .tracking import close_trackers, measured_numbers
from .validating import balanced_of, chosen_by, is_better, judge, ramp_is_over
from .world import join

__all__ = ["finish", "fit", "train"]

_SHOWN_EVERY = 20

# What a process asks for after a step; the largest of all processes' is done.
_SAVE, _STOP = 1, 2


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    objective: Objective | None = None,
    model: nn.Module | Callable[..., nn.Module] | None = None,
    data: Splits | tuple[LabelledImages, LabelledImages] | None = None,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> TrainResult:
    """Trains a classifier and writes a run folder.

    If a launcher started several processes, each calls this function, and they train one model together: they split
    every batch evenly, the main one writes, and all return the same.

    Args:
        config: the configuration.
        out: the run folder.
        objective: the method, instead of the configuration's ``method`` and its settings. The run folder records
            it; to resume, pass an equal one.
        model: the classifier, images (B, C, H, W) in [0, 1] to logits (B, K), trained in place; or a function that
            makes it, called like ``package.module:factory``. Default: from the configuration.
        data: :class:`asgt.Splits`, or a pair of training and test images, each as for :func:`asgt.data.as_images`.
            Default: from the configuration.
        resume: continue from the last checkpoint in ``out``, or from the beginning without one. On the same
            machine, with the same versions and thread count, the result is bit-identical to that of an uninterrupted
            run.
        should_stop: called after every step; if it returns ``True`` on any process, a checkpoint is written and the
            run stops.
        progress: receives the progress.

    Returns:
        The result, as in ``training.json``.

    Raises:
        InputError: the configuration, the data or the folder is invalid, or the loss is NaN or infinite.
        InterruptedRunError: ``should_stop`` returned ``True``, or another process has ended.

    Example:
        >>> import asgt
        >>> config = asgt.TrainConfig(method="st", epochs=1, limit=100)
        >>> result = asgt.train(config, "run")
        >>> result.epochs, result.shape
        (1, [1, 8, 8])
    """

    began = time.monotonic()
    world = join(config.device)
    with ExitStack() as held:
        world.from_main(held.enter_context, locked(Path(out), "asgt train", progress=progress))
        opened = open_run(config, Path(out), Passed(objective, model, data), world, progress, resume=resume)
        if isinstance(opened, TrainResult):
            return opened
        held.callback(close_trackers, opened.accelerator)
        # The trainer owns the global generator while it runs (dropout and initialisation draw from it), and gives it
        # back.
        with (
            torch.random.fork_rng(),
            tensor_cores(opened.config.precision == "tf32"),
            trusted(),
            forgotten_if_refused(opened),
        ):
            fitting = setup(opened, began)
            chosen = fit(fitting, should_stop)
        return finish(fitting, chosen)


def fit(fitting: Fitting, should_stop: Callable[[], bool]) -> dict[str, Any]:
    """Runs the remaining steps.

    Returns:
        The line of ``metrics.jsonl`` of the epoch whose weights are saved; for given weights without an epoch, the
        line is in no file.

    Raises:
        InputError: the loss is NaN or infinite.
        InterruptedRunError: ``should_stop`` returned ``True``, or another process has ended.
    """

    opened, state, learner, watch = fitting.opened, fitting.state, fitting.learner, fitting.watch
    config, world, images, progress = opened.config, opened.world, opened.images, opened.progress
    epoch_steps = steps_per_epoch(images, config.batch_size)
    total = epoch_steps * config.epochs
    display, sums, saved = Display(opened.accelerator.device), fitting.sums, time.monotonic()

    order = training_order(images, config.seed, state.step // epoch_steps)
    for step in range(state.step, total):
        epoch, position = divmod(step, epoch_steps)
        if position == 0:
            order = training_order(images, config.seed, epoch)
            sums = {}
        done = step / total
        eps = None if config.eps is None else ramped(float(config.eps), done, config.warmup or 0.0)
        for group, peak in zip(learner.optimizer.param_groups, fitting.rates, strict=True):
            group["lr"] = learning_rate(config.schedule, peak, done)

        streams = _streams(opened, step)
        batch = training_batch_with_masks if opened.objective.needs_shortcut else training_batch
        x, y, *mask = batch(images, order, position, config.batch_size, opened.augmentation, streams["augmentation"])
        put_in_training(fitting.forward, fitting.frozen)
        with watch.on():
            measured = fitting.compute(x, y, eps, Generators(attack=streams["attack"], mask=streams["mask"]), *mask)
        measured = world.average(learner.model, measured)
        if config.clip_norm is not None:
            # Of the averaged gradient: all processes scale by the same factor. Nothing waits for the norm.
            measured["gradient_norm"] = clip_grad_norm_(learner.model.parameters(), config.clip_norm)
        learner.optimizer.step()
        if learner.average is not None:
            learner.average.update_parameters(learner.model)

        # Sums stay on the device until the epoch's end; what is displayed comes when it comes.
        _add(sums, measured)
        watch.count(len(y) * world.size)
        state.step = step + 1
        progress.advance(1, **(display.offer(sums) if state.step % _SHOWN_EVERY == 0 else {}))

        is_epochs_end = state.step % epoch_steps == 0
        if is_epochs_end:
            _end_epoch(fitting, epoch, sums, eps, last=state.step == total)
        due = world.is_main and time.monotonic() - saved >= config.checkpoint_every
        asked = world.most(_STOP if should_stop() else _SAVE if due else 0)
        if is_epochs_end or asked:
            world.from_main(save_checkpoint, opened.folder.checkpoint, state, learner, sums)
            saved = time.monotonic()
        if is_epochs_end:
            watch.start()
        if asked == _STOP and state.step < total:
            progress.stop()
            again = opened.folder.command("train")
            raise InterruptedRunError(f"stopped after step {state.step} of {total}: continue with {again}")
    progress.stop()
    return world.from_main(_chosen, opened.folder, state.best_epoch) if total else _as_given(fitting)


def _streams(opened: Opened, step: int) -> dict[str, torch.Generator | Share]:
    """The random streams of a step, all functions of (seed, step): nothing random needs storing.

    Dropout alone draws from the global generator, which knows no shares: other processes have streams of their own.
    """

    seed, world, device = opened.config.seed, opened.world, opened.accelerator.device
    torch.manual_seed(seed_of(seed, "dropout", step, *([world.rank] if world.rank else [])))
    return {name: world.share(seeded(seed, name, step, device=device)) for name in ("augmentation", "attack", "mask")}


def _end_epoch(fitting: Fitting, epoch: int, sums: dict[str, Tensor], eps: float | None, *, last: bool) -> None:
    """Judges the weights at the end of an epoch, and saves them where they are the model so far."""

    opened, state, learner = fitting.opened, fitting.state, fitting.learner
    config, world, progress = opened.config, opened.world, opened.progress
    judged = learner.model if learner.average is None else learner.average.module
    row: dict[str, Any] = {
        "epoch": epoch,
        "step": state.step,
        "lr": learner.optimizer.param_groups[0]["lr"],
        "eps": eps,
    }
    row |= _means(sums)
    row["speed"] = fitting.watch.lap()
    for what, name in (("loss", "loss"), ("gradient's norm", "gradient_norm")):
        if name not in sums or torch.isfinite(sums[name]):
            continue
        progress.stop()
        raise InputError(
            f"the {what} is not a number in epoch {epoch}: lower --lr ({config.lr:g})"
            + (" or use --precision fp32" if config.precision == "bf16" else "")
        )
    row |= _validated(fitting, judged, epoch)
    row["seconds"] = round(time.monotonic() - fitting.began, 2)
    better = is_better(row, config, state, last=last)
    state.files |= world.from_main(_keep, opened.folder, row, judged if better else None)
    opened.accelerator.log(measured_numbers(row), step=state.step)
    progress.say(_line(row, config))


def _as_given(fitting: Fitting) -> dict[str, Any]:
    """Judges the weights that a run of no epochs was given, and saves them: what an epoch would say of them."""

    opened, state, learner = fitting.opened, fitting.state, fitting.learner
    row = {"epoch": -1, "step": 0} | _validated(fitting, learner.model, -1)
    state.files |= opened.world.from_main(_keep_weights, opened.folder, learner.model, 0)
    opened.world.from_main(save_checkpoint, opened.folder.checkpoint, state, learner, fitting.sums)
    return row


def finish(fitting: Fitting, chosen: dict[str, Any]) -> TrainResult:
    """Writes the result of the training.

    Args:
        fitting: after its last step.
        chosen: the result of :func:`fit`.
    """

    opened, state = fitting.opened, fitting.state
    config, world, data, adversary = opened.config, opened.world, opened.data, opened.objective.adversary
    device = opened.accelerator.device
    validation = {name.removeprefix("validation_"): chosen[name] for name in chosen if name.startswith("validation_")}
    result = TrainResult(
        folder=str(opened.folder.path),
        epochs=config.epochs,
        chosen_epoch=state.best_epoch,
        chosen_by=chosen_by(config, state, chosen),
        validation=validation,
        balanced=balanced_of(chosen, validation),
        validation_images=len(opened.validation),
        eps=None if config.eps is None else float(config.eps),
        norm=config.norm or ("linf" if adversary is None else adversary.norm),
        collapsed=chosen["collapsed"],
        catastrophic_overfitting=chosen["catastrophic_overfitting"],
        warnings=fitting.warnings.summary(state.best_epoch),
        classes=list(data.train.classes),
        shape=list(data.train.shape),
        train_data=state.data,
        test_data=data.test.digest(),
        reading=data.reading,
        start=state.start,
        seconds=round(time.monotonic() - fitting.began, 2),
        processes=world.size,
        speed=(fitting.watch.summary() if config.epochs else {})
        | {"threads": torch.get_num_threads(), "keeps_memory": keeps_memory(), "device": device_name(device)},
    )
    world.from_main(opened.folder.finish, result, state.files, state.unverified)
    opened.accelerator.end_training()
    return result


def _validated(fitting: Fitting, model: nn.Module, epoch: int) -> dict[str, Any]:
    """Accuracies on the validation part, and whether the epoch shows one of the two ways to die."""

    opened = fitting.opened
    images, config = opened.validation, opened.config
    accuracies, balanced, predictions = judge(model, images, opened.objective.adversary, config.seed, opened.world)
    row: dict[str, Any] = {f"validation_{name}": accuracy for name, accuracy in accuracies.items()}
    row |= {f"balanced_{name}": accuracy for name, accuracy in balanced.items()}
    row["collapsed"] = is_collapsed(predictions, images.labels)
    row["catastrophic_overfitting"] = False
    # Before the ramp is over, the model has not yet met the ε that it is judged at.
    if "pgd" in accuracies and ramp_is_over(config, epoch):
        row["catastrophic_overfitting"] = is_catastrophic(accuracies["fgsm"], accuracies["pgd"])

    fitting.warnings.epoch(epoch, row)
    return row


def _keep(folder: RunFolder, row: dict[str, Any], better: nn.Module | None) -> dict[str, str]:
    """Puts an epoch's line into the run folder, and its weights, where they are the model so far.

    Returns:
        The SHA-256 of the files that it wrote, by name.
    """

    written = {} if better is None else _keep_weights(folder, better, row["step"])
    folder.add_row(row)
    return written | {folder.metrics.name: folder.lines_digest}


def _keep_weights(folder: RunFolder, model: nn.Module, step: int) -> dict[str, str]:
    """Writes weights as the model of a run; their SHA-256, by the name of the file."""

    state = model.state_dict()
    told = versions_text(state) | {STEP: str(step)}
    return {folder.model.name: write_tensors(folder.model, state, told, begin=False)}


def _chosen(folder: RunFolder, epoch: int) -> dict[str, Any]:
    """The line of the epoch that was chosen."""

    row = next((row for row in folder.rows() if row["epoch"] == epoch), None)
    if row is None:
        raise DamagedFileError(
            f"{folder.metrics} is damaged: it lacks the chosen epoch {epoch}: train again into another folder"
        )
    return row


def _add(sums: dict[str, Tensor], measured: dict[str, Tensor]) -> None:
    """Adds a step to the sums of its epoch, on the device."""

    for name, value in (measured | {"steps": torch.ones_like(measured["loss"])}).items():
        # float64 holds an epoch's sum exactly enough that resuming in the middle cannot show.
        value = value.detach().double() if value.device.type != "mps" else value.detach()
        # A recorded step writes its metrics to the same memory each time.
        sums[name] = sums[name] + value if name in sums else value.clone()


def _means(sums: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(total / sums["steps"]), 6) for name, total in sums.items() if name != "steps"}


def _line(row: dict[str, Any], config: TrainConfig) -> str:
    parts = [f"epoch {row['epoch'] + 1}/{config.epochs}", f"loss {row['loss']:.3f}"]
    parts += [f"{name} {row[name]:.3f}" for name in ("clean", "adversarial", "consistency", "reasons") if name in row]
    parts.append(f"validation: clean {row['validation_clean']:.1%}")
    if "validation_pgd" in row:
        parts.append(
            f"FGSM {row['validation_fgsm']:.1%}, PGD-10 {row['validation_pgd']:.1%} at eps {float(config.eps or 0):.4g}"
        )
    parts.append(speed_text(row["speed"]))
    return " · ".join(parts)
