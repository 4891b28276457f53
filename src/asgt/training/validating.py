"""The validation of epochs: accuracies on the validation part, selection of the epoch, and warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..attacks import FGSM, PGD, Attack
from ..data import Images
from ..evaluation.accuracy import correct, correct_under_attack
from ..evaluation.by_class import mean_over_classes
from ..evaluation.health import COLLAPSE, OVERFITTING
from ..progress import Progress
from .checkpoint import TrainingState
from .config import TrainConfig
from .planted import moved_shortcut
from .run_folder import AS_GIVEN
from .world import World

__all__ = [
    "TrainingWarnings",
    "balanced_of",
    "chosen_by",
    "is_better",
    "judge",
    "ramp_is_over",
    "validation_share",
]

_VALIDATION_IMAGES = 2_000


def validation_share(config: TrainConfig, images: int) -> float:
    """The share of the training images that is used only to select the epoch."""

    return min(config.validation, _VALIDATION_IMAGES / images)


def judge(
    model: nn.Module, images: Images, adversary: Attack | None, seed: int = 0, world: World | None = None
) -> tuple[dict[str, float], dict[str, float], Tensor]:
    """The validation of an epoch: ``clean`` accuracy; with an adversary, ``fgsm`` (one step) and ``pgd`` (PGD-10) at
    its ε.

    Args:
        model: the classifier.
        images: N images.
        adversary: the attack that it was trained against.
        seed: of the attacks' random starts.
        world: the processes that split the images, each of which returns the same. Default: this one alone.

    Returns:
        The accuracies by name; the balanced accuracies, means over the classes that occur, by the same names; and the
        predicted classes of the clean images, int64 (N,).
    """

    world = world or World()
    count, part = len(images), world.part(len(images))

    def own_outcomes() -> dict[str, Tensor]:
        own = images[part]
        right, predictions = correct(model, own)
        outcomes = {"predictions": predictions, "clean": right}
        if adversary is not None and adversary.radius > 0:
            eps, norm = adversary.radius, adversary.norm
            single: Attack = (
                FGSM(eps) if norm == "linf" else PGD(eps, norm=norm, steps=1, alpha=eps, random_start=False)
            )
            for name, attack in (("fgsm", single), ("pgd", PGD(eps, norm=norm, steps=10))):
                outcomes[name] = correct_under_attack(model, own, attack, seed=seed, first=part.start)
        return outcomes

    whole = {name: world.whole(own, count) for name, own in world.together(own_outcomes).items()}
    predictions = whole.pop("predictions")
    accuracies = {name: float(right.float().mean()) for name, right in whole.items()}
    balanced = {name: mean_over_classes(right, images.labels) for name, right in whole.items()}
    return accuracies, balanced, predictions


def balanced_of(row: Mapping[str, Any], names: Iterable[str]) -> dict[str, float]:
    """The balanced accuracies in a line of ``metrics.jsonl`` by the names of the accuracies; one may have none."""

    return {name: row[f"balanced_{name}"] for name in names if f"balanced_{name}" in row}


def is_better(row: dict[str, Any], config: TrainConfig, state: TrainingState, last: bool) -> bool:
    """Whether this epoch is the best so far; records it in ``state``.

    Robust accuracy decides for adversarial methods, after the ramp and never for a collapsed epoch; clean accuracy for
    the others. If no epoch qualifies, the last one is selected.
    """

    if config.keep == "last":
        chosen = last
    else:
        score = row.get("validation_pgd", row["validation_clean"])
        qualifies = not row["collapsed"] and ramp_is_over(config, row["epoch"])
        chosen = (qualifies and score > state.best_score) or (last and state.best_epoch < 0)
        if chosen and qualifies:
            state.best_score = score
    if chosen:
        state.best_epoch = row["epoch"]
    return chosen


def ramp_is_over(config: TrainConfig, epoch: int) -> bool:
    """Whether ε is at its full size at the end of an epoch."""

    return epoch + 1 > (config.warmup or 0.0) * config.epochs


def chosen_by(config: TrainConfig, state: TrainingState, row: dict[str, Any]) -> str:
    """The criterion that selected the epoch."""

    if config.epochs == 0:
        return AS_GIVEN
    if config.keep == "last" or state.best_score < 0:
        return "last epoch"
    return "robust accuracy" if "validation_pgd" in row else "clean accuracy"


class TrainingWarnings:
    """Warns once when a run begins to fail, and again in its result.

    A network often predicts one class in its first epoch; only a lasting or final collapse is a failure. Given
    weights are epoch -1, which only the result mentions.
    """

    def __init__(self, config: TrainConfig, progress: Progress, state: TrainingState) -> None:
        self.config = config
        self.progress = progress
        self.state = state

    def epoch(self, epoch: int, row: dict[str, Any]) -> None:
        if row["collapsed"] and epoch not in self.state.collapsed:
            self.state.collapsed.append(epoch)
        if row["catastrophic_overfitting"]:
            self.state.catastrophic.append(epoch)

        lasting = self.state.collapsed[-2:] == [epoch - 1, epoch] and epoch - 2 not in self.state.collapsed
        if lasting or (self.state.collapsed[-1:] == [epoch] and 0 <= epoch == self.config.epochs - 1):
            self.progress.warn(f"epoch {epoch + 1}: {self._collapse()}")
        if self.state.catastrophic[-1:] == [epoch] and epoch - 1 not in self.state.catastrophic:
            self.progress.warn(f"epoch {epoch + 1}: {self._catastrophe()}")

    def summary(self, chosen: int) -> list[str]:
        collapsed = self.state.collapsed if len(self.state.collapsed) > 1 or chosen in self.state.collapsed else []
        lines = [told] if (told := moved_shortcut(self.config)) else []
        for epochs, text in ((collapsed, self._collapse()), (self.state.catastrophic, self._catastrophe())):
            if epochs and self.config.epochs == 0:
                lines.append(text)
            elif epochs:
                where = "the chosen epoch among them" if chosen in epochs else "not the chosen one"
                lines.append(f"{len(epochs)} of {self.config.epochs} epochs, {where}: {text}")
        return lines

    def _collapse(self) -> str:
        mend = "try a longer --warmup or a smaller --lr" if self.config.eps is not None else "try a smaller --lr"
        if self.config.epochs == 0:
            mend = "look at --mean and --std, and at what the weights were trained on"
        return f"{COLLAPSE}: the model predicts one class for half of the images or more; {mend}"

    def _catastrophe(self) -> str:
        return f"{OVERFITTING}: accuracy is high under one step (FGSM), low under PGD; train with --attack pgd"
