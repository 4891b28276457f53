"""The state of each sample during a search: its witness, its bound and its cost.

Every search of a worst case stores its state here. A witness counts only once a forward pass in a batch of fixed size
has seen it fool the model too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attacks import Norm
from ..attacks.attack import delta_norm, is_legal
from ..data import Images, batch_that_fits, to_unit
from ..modes import Classifier, ask, at_least_float32, wraps_classifier
from ..progress import Progress
from .probing import PROBE_STEPS, levels_below, press, probe

__all__ = ["CLEAN", "FIXED_BATCH", "MARGIN", "NOTHING", "STREAMS", "Known", "Outcome", "in_parts"]

NOTHING, CLEAN, MARGIN = -1, -2, -3
"""The codes for samples whose smallest norm no attack found: nothing found one, a clean error, or probe and press."""

FIXED_BATCH, FIXED_VALUES = 64, 2**20
"""Images of the batches in which witnesses are verified, padded: so many, or fewer large ones of so many values."""

STREAMS = 1000
"""The number of random draws reserved for an attack; the next attack uses others."""


@dataclass(frozen=True)
class Outcome:
    """The result of the engine on N samples.

    Attributes:
        norms: the smallest known adversarial norm of each sample, float32 (N,): 0 for a clean error, infinity where the
            search found none within the grid.
        levels: the number of ε of the grid at which each sample is robust, int64 (N,): ``levels > e`` is its outcome
            at ε number e.
        witnesses: an adversarial image of that norm for each sample, of the shape of the images; the image itself for a
            clean error and where there is none.
        found_by: the number of the attack that found it, or ``NOTHING``, ``CLEAN`` or ``MARGIN``; int64 (N,).
        gradients: forward and backward passes that each sample took, int64 (N,).
        forwards: additional forward passes, int64 (N,).
        floor: the gradients of an ideal search, int64 (N,): each attack's failure just below ε*, and the success at ε*.
            Zero where an attack can only be called whole.
        audit: gradients spent below a failure, to test the assumption, int64 (N,).
        tested: the number of ε below a failure at which each sample was attacked nevertheless, int64 (N,).
        missed: the number of attacks that succeeded there, which a search from above misses, int64 (N,).
        illegal: the number of outputs of the attacks outside the ball or the box, or with NaN, which do not count;
            int64 (N,).
        nan: whether the model returned NaN at any point.
    """

    norms: Tensor
    levels: Tensor
    witnesses: Tensor
    found_by: Tensor
    gradients: Tensor
    forwards: Tensor
    floor: Tensor
    audit: Tensor
    tested: Tensor
    missed: Tensor
    illegal: Tensor
    nan: bool = False

    def correct(self, count: int) -> Tensor:
        """Which samples remain correct at each of the ``count`` ε of the grid, bool (E, N)."""

        return self.levels[None, :] > torch.arange(count, device=self.levels.device)[:, None]


class Known:
    """The results so far of one search on one set of images."""

    def __init__(
        self,
        model: Classifier,
        images: Images,
        norm: Norm,
        grid: tuple[float, ...],
        *,
        seed: int,
        rows: Tensor,
        own: bool,
        votes: int,
        batch_size: int,
        progress: Progress,
    ) -> None:
        self.asked, self.norm, self.seed, self.rows, self.own, self.votes = model, norm, seed, rows, own, votes
        self.batch_size, self.progress = batch_size, progress
        self.fixed = batch_that_fits(images, FIXED_BATCH, FIXED_VALUES)
        self.x, self.y = to_unit(images.pixels), images.labels
        device, count = self.y.device, len(images)
        self.grid = torch.tensor(grid, dtype=self.x.dtype, device=device)

        def counts(value: int = 0) -> Tensor:
            return torch.full((count,), value, dtype=torch.int64, device=device)

        self.nan = torch.zeros((), dtype=torch.bool, device=device)
        self.norms = torch.full((count,), torch.inf, dtype=torch.float32, device=device)
        self.witnesses = self.x.clone()
        self.found_by = counts(NOTHING)
        self.gradients, self.forwards, self.audit = counts(), counts(), counts()
        self.success, self.tested, self.missed, self.illegal = counts(), counts(), counts(), counts()
        self.spent = self.gradients
        # On the host: the search asks for them sample by sample.
        self.levels = [len(grid)] * count
        self.with_gradient = self.without = 0
        self.external = False

    @wraps_classifier
    def model(self, x: Tensor) -> Tensor:
        """The model's output; NaN is recorded without waiting for the device."""

        if torch.is_grad_enabled() and x.requires_grad:
            self.with_gradient += len(x)
        else:
            self.without += len(x)
        logits = ask(self.asked, x, owned=x.requires_grad)
        nan = logits.detach().isnan()
        if self.external:
            # An attack that makes NaN of an image is no fault of the model: what it answers is illegal, and counted so.
            nan = nan & ~x.detach().flatten(1).isnan().any(dim=1, keepdim=True)
        self.nan = self.nan | nan.any()
        return logits

    def clean(self, right: Tensor) -> None:
        """A clean error is broken at every ε, at no cost."""

        errors = (~right).nonzero().squeeze(1)
        self.norms[errors], self.found_by[errors] = 0.0, CLEAN
        for sample in errors.tolist():
            self.levels[sample] = 0

    def probe(self) -> list[int]:
        """An upper bound of each sample's ε*, with its witness; for an own curve, only where to look first."""

        self.number = MARGIN
        guess = [max(level - 1, 0) for level in self.levels]
        for part in in_parts(self.open(), self.batch_size):
            norms, witnesses, steps = probe(self.model, self.x[part], self.y[part], self.norm, float(self.grid[-1]))
            self.gradients[part] += PROBE_STEPS
            levels = levels_below(self.grid, norms)
            found = levels < len(self.grid)
            if self.own:
                for sample, level in zip(part[found].tolist(), levels[found].tolist(), strict=True):
                    guess[sample] = level
            else:
                self.accept(part[found], witnesses[found], steps[found])
                self.press([sample for sample in part[found].tolist() if self.levels[sample] < len(self.grid)])
        return guess

    def press(self, samples: Sequence[int]) -> None:
        """Moves the witnesses of some samples to smaller and smaller ε."""

        number, self.number = self.number, MARGIN
        pressed = torch.tensor(
            [sample for sample in samples if self.levels[sample] > 0], dtype=torch.int64, device=self.y.device
        )
        for part in in_parts(pressed, self.batch_size):
            levels = torch.tensor([self.levels[sample] for sample in part.tolist()], device=self.y.device)
            witnesses, steps, last = press(
                self.model,
                self.x[part],
                self.y[part],
                self.witnesses[part],
                grid=self.grid,
                levels=levels,
                norm=self.norm,
            )
            self.gradients[part] += steps
            found = last > 0
            self.accept(part[found], witnesses[found], last[found])
        self.number = number

    def below_failure(self, audited: Tensor) -> dict[int, int]:
        """The numbers of the ε below their own at which the audited samples, by shares (N,), are attacked too."""

        return {
            sample: int(share * (level - 1))
            for sample, (share, level) in enumerate(zip(audited.tolist(), self.levels, strict=True))
            if share == share and level > 1
        }

    def open(self) -> Tensor:
        return torch.tensor(
            [sample for sample, level in enumerate(self.levels) if level > 0], dtype=torch.int64, device=self.y.device
        )

    def accept(self, samples: Tensor, witnesses: Tensor, steps: Tensor, eps: float | Tensor = torch.inf) -> None:
        """Notes witnesses that fool the model in a batch of fixed size and lie where they must.

        Args:
            samples: their samples, int64 (B,).
            witnesses: images (B, C, H, W).
            steps: the gradients that each took, int64 (B,).
            eps: the radius that they must not exceed, a number or (B,).
        """

        norms = delta_norm(witnesses - self.x[samples], self.norm)
        legal = is_legal(witnesses, self.x[samples], eps, self.norm)
        self.illegal[samples] += ~legal
        # The clean image is no witness: whether a model that is not deterministic gets it right has been asked.
        better = (legal & (norms > 0) & (norms < self.norms[samples])).nonzero().squeeze(1)
        if len(better) == 0:
            return
        samples, witnesses, norms, steps = (part[better] for part in (samples, witnesses, norms, steps))
        holds = self._fooled(witnesses, samples)
        samples, witnesses, norms, steps = (part[holds] for part in (samples, witnesses, norms, steps))

        self.norms[samples], self.witnesses[samples] = norms.float(), witnesses
        self.found_by[samples], self.success[samples] = self.number, steps
        for sample, level in zip(samples.tolist(), levels_below(self.grid, norms).tolist(), strict=True):
            self.levels[sample] = min(self.levels[sample], level)

    def _fooled(self, witnesses: Tensor, samples: Tensor) -> Tensor:
        """Whether the model is fooled, bool (B,), in padded batches of one size; by majority of votes."""

        answers = []
        for part, ids in zip(witnesses.split(self.fixed), samples.split(self.fixed), strict=True):
            padded = torch.cat([part, part[-1:].expand(self.fixed - len(part), *part.shape[1:])])
            count = torch.zeros_like(ids)
            for _ in range(self.votes):
                with torch.no_grad():
                    largest, predicted = at_least_float32(self.model(padded))[: len(part)].max(dim=1)
                count += (predicted != self.y[ids]) & ~largest.isnan()
            self.forwards[ids] += self.votes
            answers.append(2 * count > self.votes)
        return torch.cat(answers)

    def forward(self, x: Tensor, samples: Tensor) -> Tensor:
        self.forwards[samples] += 1
        with torch.no_grad():
            return self.model(x)


def in_parts(samples: Tensor, size: int) -> Iterable[Tensor]:
    """The samples in groups of at most ``size``; empty for no samples."""

    return samples.split(size) if len(samples) else ()
