"""A second look at a finished evaluation: the few samples that checks share, and the results of attacks on them.

*Survivors* are correct when clean and under every search at the *examined ε*. This is the ε of the grid whose
accuracy is nearest to half of the clean accuracy; a weak attack is visible there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from ..attacks import PGD, Attack
from ..attacks.attack import is_legal, per_sample, steepest
from ..data import Images, to_unit
from ..modes import Classifier, ask, at_least_float32
from ..randomness import SampleKeyed, seeded
from .outcomes import Evaluation

__all__ = ["DRAW", "Samples", "SecondLook"]

# What a look may cost: enough samples to see five points with near certainty (0.95^64 = 4 %), and in a thorough one a
# point (0.99^256 = 8 %).
_EXAMINED, _MANY = 64, 256

DRAW = 1_000_000
"""The first draw of a look: it is a fresh one, so its noise lies far from that of any search (two draws a restart)."""


@dataclass(frozen=True)
class Samples:
    """Some of the images: their numbers (B,) on the CPU; images (B, C, H, W) and labels (B,) on their device."""

    rows: Tensor
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor) -> Samples:
        there = index.to(self.y.device)
        return Samples(self.rows[index], self.x[there], self.y[there])

    def split(self, size: int) -> list[Samples]:
        return [self[part] for part in torch.arange(len(self)).split(size)] if len(self) else []


class SecondLook:
    """The shared data of the checks; each part is computed on first use."""

    def __init__(
        self, model: Classifier, images: Images, evaluation: Evaluation, thorough: bool, batch_size: int
    ) -> None:
        self.model, self.images, self.evaluation = model, images, evaluation
        self.thorough, self.batch_size = thorough, batch_size

    @cached_property
    def right(self) -> Tensor:
        """Which samples are correct when clean and under every search, at each ε, bool (E, N)."""

        return self.evaluation.clean & torch.stack(list(self.evaluation.outcomes.values())).all(dim=0)

    @cached_property
    def level(self) -> int:
        """The number of the examined ε: with survivors, if there is one, and of two alike the larger."""

        left = self.right.sum(dim=1).tolist()
        half = int(self.evaluation.clean.sum()) / 2
        return min(range(len(left)), key=lambda level: (left[level] == 0, abs(left[level] - half), -level))

    @property
    def eps(self) -> float:
        return self.evaluation.epsilons[self.level]

    @cached_property
    def order(self) -> Tensor:
        """All samples in a random order, from the front of which some are taken, int64 (N,)."""

        return torch.randperm(self.evaluation.samples, generator=seeded("checks", self.evaluation.seed))

    def drawn(self, among: Tensor, count: int) -> Samples:
        """Up to ``count`` random samples of those marked, bool (N,)."""

        return self.taken(self.order[among[self.order]][:count])

    def taken(self, rows: Tensor) -> Samples:
        there = rows.to(self.images.labels.device)
        return Samples(rows, to_unit(self.images.pixels[there]), self.images.labels[there])

    @cached_property
    def survivors(self) -> Samples:
        return self.drawn(self.right[self.level], _EXAMINED)

    @cached_property
    def many_survivors(self) -> Samples:
        return self.drawn(self.right[self.level], _MANY)

    @cached_property
    def clean_right(self) -> Samples:
        return self.drawn(self.evaluation.clean, _EXAMINED)

    @cached_property
    def random(self) -> Samples:
        return self.drawn(torch.ones_like(self.evaluation.clean), _EXAMINED)

    @cached_property
    def random_logits(self) -> Tensor:
        """The model's logits on the clean random images, (B, K)."""

        return self.logits(self.random.x)

    @cached_property
    def largest_class(self) -> float:
        """The share of the labels that the largest class has: the accuracy of a constant prediction."""

        return int(self.images.labels.bincount().max()) / self.evaluation.samples

    @property
    def pgd(self) -> PGD:
        return PGD(0.0, norm=self.evaluation.norm, steps=40)

    @cached_property
    def again(self) -> tuple[Tensor, Tensor]:
        """PGD-40 at the examined ε on the survivors: its images, and which of them fool the model, bool (B,)."""

        x_adv = self.attacked(self.pgd, self.survivors, self.eps)
        return x_adv, self.broken(self.survivors, x_adv, self.eps)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        return torch.cat([at_least_float32(ask(self.model, part)) for part in x.split(self.batch_size)])

    def attacked(
        self, attack: Attack, samples: Samples, eps: float, model: Classifier | None = None, draw: int = DRAW
    ) -> Tensor:
        """For each sample, the first image that fools the model, or else the attack's output, (B, C, H, W)."""

        images = []
        for part in samples.split(self.batch_size):
            noise = SampleKeyed(self.evaluation.seed, part.rows.to(part.y.device), draw)
            state = attack.start(model or self.model, part.x, part.y, eps, generator=noise)
            for _ in range(attack.steps):
                state = attack.step(state)
                if bool(state.fooled.all()):
                    break
            images.append(torch.where(per_sample(state.fooled, part.x), state.witness, attack.result(state)))
        return torch.cat(images)

    def broken_by(self, attack: Attack, samples: Samples, eps: float) -> Tensor:
        """Which samples an attack breaks, with all of its restarts, bool (B,)."""

        broken = torch.zeros(len(samples), dtype=torch.bool)
        for restart in range(attack.restarts):
            open_ones = (~broken).nonzero().squeeze(1)
            if len(open_ones) == 0:
                break
            part = samples[open_ones]
            # A random start takes one draw in L∞ and two in L2.
            x_adv = self.attacked(attack.once, part, eps, draw=DRAW + 2 * restart)
            broken[open_ones] = self.broken(part, x_adv, eps)
        return broken

    def broken(self, samples: Samples, x_adv: Tensor, eps: float) -> Tensor:
        """Which images fool the model and lie in the ball and the box, bool (B,) on the CPU; a NaN does neither."""

        legal = is_legal(x_adv, samples.x, eps, self.evaluation.norm)
        largest, predicted = self.logits(x_adv).max(dim=1)
        return (legal & (predicted != samples.y) & ~largest.isnan()).cpu()

    @cached_property
    def one_step(self) -> Tensor:
        """Which samples one step of length ε along the first gradient breaks, bool (E, N); clean errors are not tested.

        At each ε the samples that are right there are, and some random ones. One gradient serves all ε.
        """

        asked = self.right | (self.evaluation.clean & self.several)
        broken = torch.zeros_like(asked)
        step = PGD(0.0, norm=self.evaluation.norm, steps=1, random_start=False)
        for part in self.taken(asked.any(dim=0).nonzero().squeeze(1)).split(self.batch_size):
            state = step.start(self.model, part.x, part.y, 0.0)
            direction = steepest(state.gradient()[0], self.evaluation.norm)
            for level, eps in enumerate(self.evaluation.epsilons):
                index = asked[level, part.rows].nonzero().squeeze(1)
                if len(index) == 0:
                    continue
                there = index.to(part.y.device)
                radius = torch.full_like(state.eps[there], eps)
                x_adv = step.moved(replace(state[there], eps=radius), direction[there], radius).x_adv
                broken[level, part.rows[index]] = self.broken(part[index], x_adv, eps)
        return broken

    @cached_property
    def several(self) -> Tensor:
        """Random samples to estimate the accuracy under one step on, clean errors among them, bool (N,)."""

        chosen = torch.zeros(self.evaluation.samples, dtype=torch.bool)
        chosen[self.order[:_MANY]] = True
        return chosen
