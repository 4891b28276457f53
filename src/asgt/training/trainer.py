"""The trainer: one function that reads from top to bottom like the algorithm."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ..attacks import FGSM, PGD, Attack
from ..data import Images, load_data, steps_per_epoch, stratified, training_batch, training_order
from ..devices import place, resolve_device
from ..errors import DamagedFileError, InputError, InterruptedRunError
from ..evaluation.accuracy import correct, correct_under_attack
from ..evaluation.health import is_catastrophic, is_collapsed
from ..files import write_json, write_tensors
from ..passes import a_pass, modes_agree
from ..processor import keeps_memory
from ..progress import SILENT, Progress
from ..randomness import Generators, seed_of, seeded
from .checkpoint import Standing, load_checkpoint, save_checkpoint
from .config import MAY_CHANGE, TrainConfig
from .cost import step_passes
from .methods import build_objective
from .objectives import Output
from .run import RunFolder, TrainResult, build_from
from .schedule import learning_rate, ramped
from .speed import Display, Stopwatch, speed_text

__all__ = ["judge", "train", "validation_share"]

_SHOWN_EVERY = 20
_VALIDATION_IMAGES = 2_000


def train(
    config: TrainConfig,
    out: Path | str,
    *,
    resume: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Progress = SILENT,
) -> TrainResult:
    """Trains a classifier and leaves a run folder.

    Args:
        config: what to train, on what, how.
        out: the run folder.
        resume: go on from the last checkpoint in ``out``; from the beginning, if there is none. A resumed run ends
            bit-identical to one that was never stopped, on the same machine, versions and thread count.
        should_stop: asked after every step; when it says so, a checkpoint is written and the run stops.
        progress: is told how far it is.

    Returns:
        How it ended, as in ``training.json``.

    Raises:
        InputError: the configuration, the data or the folder does not fit, or the loss is no longer a number.
        InterruptedRunError: ``should_stop`` said so.
    """

    began = time.monotonic()
    config = config.resolved()
    objective = build_objective(config)
    folder = _claim(RunFolder(out), config, resume)
    if folder.result.exists():
        progress.say(f"{folder.path} is finished already")
        return folder.load_result()

    accelerator = _accelerator(config, folder)
    device = accelerator.device
    data = load_data(
        config.data,
        limit=config.limit,
        image_size=config.image_size,
        grey=config.grey,
        label_column=config.label_column,
        progress=progress,
    )
    # The same validation part for every seed, so that seeds differ in what they are to differ in.
    rows, validation_rows = stratified(data.train.labels, validation_share(config, len(data.train)), "validation")
    if len(validation_rows) == 0:
        raise InputError(
            f"{len(data.train)} training images leave none for the validation part: more images, or a larger --limit"
        )
    images, validation = data.train[rows].to(device), data.train[validation_rows].to(device)
    # The trainer owns the global generator while it runs (dropout and initialisation draw from it), and gives it back.
    with torch.random.fork_rng():
        torch.manual_seed(seed_of(config.seed, "initialisation"))
        model = place(build_from(config, data), device)
        if min(config.batch_size, len(images)) == 1 and any("BatchNorm" in type(m).__name__ for m in model.modules()):
            raise InputError(f"{config.model} normalises over its batch: --batch-size must be 2 or more")
        # Only now that data, device and model are known to fit does the run begin to exist.
        if not folder.config.exists():
            config.save(folder.config)
        # What a kill left half-written goes.
        for part in folder.path.glob(".*.part"):
            part.unlink(missing_ok=True)
        if data.indices:
            write_tensors(folder.split, data.indices)
        if config.tensorboard:
            accelerator.init_trackers("tensorboard")
        average = _average(model, config.average)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
        )

        standing = Standing(config=config.to_dict(), data=data.train.digest(), threads=torch.get_num_threads())
        sums: dict[str, Tensor] = {}
        if folder.checkpoint.exists():
            standing, sums = _resumed(folder, standing, model, average, optimizer, progress)
            sums = {name: tensor.to(device) for name, tensor in sums.items()}
        folder.cut_rows(standing.step)

        prepared, optimizer = accelerator.prepare(model, optimizer)
        epoch_steps = steps_per_epoch(images, config.batch_size)
        total = epoch_steps * config.epochs
        warnings = _Warnings(config, progress, standing)
        watch = Stopwatch(device, step_passes(objective, modes_agree=modes_agree(model.train())))
        display = Display(device)
        saved = time.monotonic()
        progress.start(f"{config.method} · {config.model} · {config.data}", total, standing.step)
        progress.say(f"{watch.passes} passes a step, {torch.get_num_threads()} CPU threads" + _memory())

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

            # Every stream is a function of (seed, step): nothing random needs storing.
            torch.manual_seed(seed_of(config.seed, "dropout", step))
            streams = {
                name: seeded(config.seed, name, step, device=device) for name in ("augmentation", "attack", "mask")
            }
            x, y = training_batch(
                images, order, position, config.batch_size, config.augment or "none", streams["augmentation"]
            )

            prepared.train()
            with watch.meter.on():
                output = objective(
                    prepared, x, y, eps=eps, generator=Generators(attack=streams["attack"], mask=streams["mask"])
                )
                optimizer.zero_grad(set_to_none=True)
                with a_pass():
                    accelerator.backward(output.loss)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)

            # Sums stay on the device until the epoch's end; what is displayed comes when it comes.
            _add(sums, output, y)
            watch.count(len(y))
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
                row |= _validate(judged, validation, objective.adversary, config, warnings, epoch)
                row["seconds"] = round(time.monotonic() - began, 2)
                if _is_better(row, config, standing, last=standing.step == total):
                    write_tensors(folder.model, judged.state_dict())
                folder.add_row(row)
                accelerator.log({k: v for k, v in row.items() if isinstance(v, float)}, step=standing.step)
                progress.say(_line(row, config))

            stop = should_stop()
            if standing.step % epoch_steps == 0 or stop or time.monotonic() - saved >= config.checkpoint_every:
                save_checkpoint(folder.checkpoint, standing, model, average, optimizer, sums)
                saved = time.monotonic()
            if standing.step % epoch_steps == 0:
                watch.start()
            if stop and standing.step < total:
                progress.stop()
                raise InterruptedRunError(
                    f"stopped after step {standing.step} of {total}: asgt train --resume --out {folder.path}"
                )
        progress.stop()

    accelerator.end_training()
    chosen = next((row for row in folder.rows() if row["epoch"] == standing.best_epoch), None)
    if chosen is None:
        raise DamagedFileError(f"{folder.metrics} is damaged: it lacks epoch {standing.best_epoch}, which was chosen")
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
        seconds=round(time.monotonic() - began, 2),
        speed=watch.summary() | {"threads": torch.get_num_threads(), "keeps_memory": keeps_memory()},
    )
    write_json(folder.result, result.to_dict())
    return result


def _claim(folder: RunFolder, config: TrainConfig, resume: bool) -> RunFolder:
    """The run folder, free or to be taken up."""

    if folder.path.exists() and not folder.path.is_dir():
        raise InputError(f"{folder.path} is a file: --out takes a folder")
    # What a kill left half-written is no run.
    if folder.path.is_dir() and any(not file.name.endswith(".part") for file in folder.path.iterdir()):
        if not resume:
            raise InputError(f"{folder.path} exists: --resume goes on with it, --out names another folder")
        if not folder.config.exists():
            raise InputError(f"{folder.path} is no run folder: it has no config.yaml")
        TrainConfig.load(folder.config).refuse_other(config.to_dict(), str(folder.path))
    return folder


def _accelerator(config: TrainConfig, folder: RunFolder) -> Accelerator:
    """One process on one device; several come with an environment that launched them."""

    # A process that trains twice may want another device or precision the second time.
    AcceleratorState._reset_state(reset_partial_state=True)
    device = resolve_device(config.device)
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
    if accelerator.num_processes > 1:
        raise InputError("asgt train runs in one process so far: start it without a launcher")
    return accelerator


def validation_share(config: TrainConfig, images: int) -> float:
    """The share of so many training images that only picks the epoch."""

    return min(config.validation, _VALIDATION_IMAGES / images)


def _average(model: nn.Module, decay: float | None) -> AveragedModel | None:
    """An exponential average of the weights; BatchNorm's statistics are averaged alike."""

    if decay is None:
        return None
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    return average.requires_grad_(False)


def _resumed(
    folder: RunFolder,
    fresh: Standing,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> tuple[Standing, dict[str, Tensor]]:
    standing, sums = load_checkpoint(folder.checkpoint, model, average, optimizer)
    if any(standing.config.get(name) != value for name, value in fresh.config.items() if name not in MAY_CHANGE):
        raise InputError(f"{folder.checkpoint} is of a run with another configuration than {folder.config}")
    if standing.data != fresh.data:
        raise InputError(f"{folder.path} was begun with other training images: they changed, or ASGT_DATA did")
    if standing.threads != fresh.threads:
        progress.warn(
            f"begun with {standing.threads} threads, resumed with {fresh.threads}: sums are taken in another "
            "order, and the end will not be bit-identical"
        )
    progress.say(f"resumed after step {standing.step}")
    return standing, sums


def _add(sums: dict[str, Tensor], output: Output, y: Tensor) -> None:
    """Adds a step to the sums of its epoch, on the device."""

    values = {"loss": output.loss} | output.terms
    values |= {f"accuracy_{view}": (z.argmax(dim=1) == y).float().mean() for view, z in output.logits.items()}
    values["steps"] = torch.ones_like(output.loss)
    for name, value in values.items():
        # float64 holds an epoch's sum exactly enough that resuming in the middle cannot show.
        value = value.detach().double() if value.device.type != "mps" else value.detach()
        sums[name] = sums[name] + value if name in sums else value


def _means(sums: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(float(total / sums["steps"]), 6) for name, total in sums.items() if name != "steps"}


def _validate(
    model: nn.Module, images: Images, adversary: Attack | None, config: TrainConfig, warnings: _Warnings, epoch: int
) -> dict[str, Any]:
    """Accuracies on the validation part, and whether the epoch shows one of the two ways to die."""

    accuracies, predictions = judge(model, images, adversary, config.seed)
    row: dict[str, Any] = {f"validation_{name}": accuracy for name, accuracy in accuracies.items()}
    row["collapsed"] = is_collapsed(predictions, images.labels)
    row["catastrophic_overfitting"] = False
    # Before the ramp is over, the model has not yet met the ε that it is judged at.
    if "pgd" in accuracies and _ramp_is_over(config, epoch):
        row["catastrophic_overfitting"] = is_catastrophic(accuracies["fgsm"], accuracies["pgd"])

    warnings.epoch(epoch, row)
    return row


def judge(model: nn.Module, images: Images, adversary: Attack | None, seed: int = 0) -> tuple[dict[str, float], Tensor]:
    """How an epoch is judged: ``clean`` accuracy; with an adversary, ``fgsm`` (one step) and ``pgd`` (PGD-10) at its ε.

    Returns:
        The accuracies by name, and the predicted classes of the clean images, int64 (N,).
    """

    right, predictions = correct(model, images)
    found = {"clean": float(right.float().mean())}

    if adversary is not None and adversary.eps > 0:
        eps, norm = adversary.eps, adversary.norm
        single: Attack = FGSM(eps) if norm == "linf" else PGD(eps, norm=norm, steps=1, alpha=eps, random_start=False)
        for name, attack in (("fgsm", single), ("pgd", PGD(eps, norm=norm, steps=10))):
            found[name] = float(correct_under_attack(model, images, attack, seed=seed).float().mean())

    return found, predictions


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
