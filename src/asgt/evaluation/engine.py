r"""The curve engine: per sample, the smallest ε of a grid at which a search breaks it, for few gradients.

Robust accuracy over ε is one minus the empirical distribution of each sample's smallest known adversarial norm ε*. A
search that fails costs all of its steps, one that succeeds leaves early: so the engine comes from above.

1. **Probe.** A few steps along the gradient of the margin, with a radius of each sample's own that shrinks when the
   model is fooled and otherwise follows the linear estimate of the boundary's distance, margin / ‖∇margin‖. What it
   finds is a witness and an upper bound of ε*.
2. **Descend.** The search itself, at the next ε below the bound. Where it succeeds, the witness's own norm is the new
   bound; where it fails, with all of its restarts, the sample is done: one failure a sample, if the bound was right.

A sample leaves its search at the iterate that fools the model, and another takes its place, so that batches stay full.
Noise is keyed by (seed, sample, restart): what a sample meets does not depend on how batches were filled. A witness
counts only once a forward pass in a batch of fixed size has seen it fool the model too.

That what fails at ε fails below it is an assumption, and a weak attack can violate it. So some samples are attacked at
every ε below as well, and how often that broke them is part of the outcome; exhaustively, all of them are.

References:
    Pintor et al. 2021, "Fast minimum-norm adversarial attacks through adaptive norm constraints",
    https://arxiv.org/abs/2102.12827: the radius that follows the boundary.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor

from ..attacks import PGD, Attack, Norm, State
from ..attacks.base import logit_margin, per_sample, project, steepest
from ..data import Images, to_unit
from ..errors import InputError
from ..modes import Classifier, at_least_float32, evaluating
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed

__all__ = ["PROBE_STEPS", "Outcome", "smallest_norms"]

PROBE_STEPS = 10
"""Gradients that the probe spends on each sample."""

_TOLERANCE = 1e-6
_FIXED_BATCH = 64
_SHRINK = 0.3


@dataclass(frozen=True)
class Outcome:
    """What the engine found of N samples.

    Attributes:
        norms: the smallest known adversarial norm of each sample, float32 (N,): 0 for a clean error, infinity where the
            search found none within the grid.
        levels: how many ε of the grid each sample withstands, int64 (N,): ``levels > e`` is its outcome at ε number e.
        witnesses: an adversarial image of that norm for each sample, of the shape of the images; the image itself for a
            clean error and where there is none.
        by_probe: whether the probe found it rather than the search, bool (N,).
        gradients: forward and backward passes that each sample took, int64 (N,).
        forwards: forward passes beside them, int64 (N,).
        tested: at how many ε below a failure each sample was attacked all the same, int64 (N,).
        missed: how many of these attacks succeeded: what going down from above would not have seen, int64 (N,).
    """

    norms: Tensor
    levels: Tensor
    witnesses: Tensor
    by_probe: Tensor
    gradients: Tensor
    forwards: Tensor
    tested: Tensor
    missed: Tensor
    nan: bool = False

    def correct(self, count: int) -> Tensor:
        """Which samples stay right at each of the ``count`` ε of the grid, bool (E, N)."""

        return self.levels[None, :] > torch.arange(count, device=self.levels.device)[:, None]


def smallest_norms(
    model: Classifier,
    images: Images,
    attack: Attack,
    grid: Sequence[float],
    *,
    seed: int = 0,
    rows: Tensor | None = None,
    exhaustive: Tensor | None = None,
    batch_size: int = 256,
    progress: Progress = SILENT,
) -> Outcome:
    """The smallest ε of a grid at which each image breaks.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: N images.
        attack: the search; its ``eps`` is replaced by those of the grid, its step must follow ε or be constant.
        grid: radii above zero, ascending.
        seed: keys the noise.
        rows: the number of each image in its data set, int64 (N,), which keys its noise. Default: 0 to N − 1.
        exhaustive: which images to attack at every ε below their own too, bool (N,). Default: none.
        batch_size: images per pass.
        progress: is advanced by each image that is done.

    Raises:
        InputError: the model gives NaN on a clean image, or the grid does not ascend from above zero.
    """

    if not grid or any(low >= high for low, high in itertools.pairwise((0.0, *grid))):
        raise InputError("the grid of epsilons must ascend from above zero")

    if rows is None:
        rows = torch.arange(len(images), device=images.labels.device)
    run = _Run(model, images, attack, tuple(grid), seed, rows, batch_size, progress)
    with evaluating(model):
        run.clean()
        run.probe()
        run.descend()
        if exhaustive is not None:
            run.exhaust(exhaustive)
    return Outcome(
        run.norms,
        run.levels,
        run.witnesses,
        run.by_probe,
        run.gradients,
        run.forwards,
        run.tested,
        run.missed,
        bool(run.nan),
    )


_Trial: TypeAlias = tuple[int, int, int]
"""A search that is under way: its sample, the number of its ε on the grid, its restart."""


class _Run:
    """One search on one set of images, while it goes on."""

    def __init__(
        self,
        model: Classifier,
        images: Images,
        attack: Attack,
        grid: tuple[float, ...],
        seed: int,
        rows: Tensor,
        batch_size: int,
        progress: Progress,
    ) -> None:
        self.asked, self.attack, self.seed, self.rows = model, attack, seed, rows
        self.batch_size, self.progress = batch_size, progress
        self.x, self.y = to_unit(images.pixels), images.labels
        device, count = self.y.device, len(images)
        self.grid = torch.tensor(grid, dtype=self.x.dtype, device=device)
        self.restarts = attack.restarts if isinstance(attack, PGD) else 1
        self.once = replace(attack, restarts=1) if isinstance(attack, PGD) else attack

        self.nan = torch.zeros((), dtype=torch.bool, device=device)
        self.norms = torch.full((count,), torch.inf, dtype=torch.float32, device=device)
        self.levels = torch.full((count,), len(grid), dtype=torch.int64, device=device)
        self.witnesses = self.x.clone()
        self.by_probe = torch.zeros(count, dtype=torch.bool, device=device)
        self.gradients = torch.zeros(count, dtype=torch.int64, device=device)
        self.forwards = torch.zeros(count, dtype=torch.int64, device=device)
        self.tested = torch.zeros(count, dtype=torch.int64, device=device)
        self.missed = torch.zeros(count, dtype=torch.int64, device=device)

    def model(self, x: Tensor) -> Tensor:
        """What the model answers; that it was NaN is remembered, without a wait for the device."""

        logits = self.asked(x)
        self.nan = self.nan | logits.detach().isnan().any()
        return logits

    def clean(self) -> None:
        """A clean error is broken at every ε, for one forward pass."""

        for part in torch.arange(len(self.y), device=self.y.device).split(self.batch_size):
            logits = self._forward(self.x[part], part)
            if bool(logits.isnan().any()):
                raise InputError("the model gives NaN on clean images: no accuracy can be stated")
            wrong = part[logits.argmax(dim=1) != self.y[part]]
            self.norms[wrong], self.levels[wrong] = 0.0, 0
            self.progress.advance(len(wrong))

    def probe(self) -> None:
        """An upper bound of each sample's ε*, with its witness."""

        for part in (self.levels > 0).nonzero().squeeze(1).split(self.batch_size):
            norms, witnesses = _probe(self.model, self.x[part], self.y[part], self.attack.norm, float(self.grid[-1]))
            self.gradients[part] += PROBE_STEPS
            found = self._levels(norms) < len(self.grid)
            self._accept(part[found], witnesses[found], by_probe=True)
            self.progress.advance(int((self.levels[part] == 0).sum()))

    def descend(self) -> None:
        """The search at the next ε below what is known, until it fails there with all of its restarts."""

        open_samples = (self.levels > 0).nonzero().squeeze(1).tolist()
        self._search([(sample, int(self.levels[sample]) - 1, 0) for sample in open_samples], to_the_end=False)

    def exhaust(self, chosen: Tensor) -> None:
        """The search at every ε below that at which it failed, on the chosen samples, bool (N,)."""

        samples = (chosen & (self.levels > 1)).nonzero().squeeze(1).tolist()
        self._search([(sample, int(self.levels[sample]) - 2, 0) for sample in samples], to_the_end=True)

    def _search(self, trials: list[_Trial], *, to_the_end: bool) -> None:
        """Runs trials and what follows from them, as many at a time as a batch holds."""

        queue, slots, waiting = deque(trials), list[_Trial](), list[tuple[_Trial, State]]()
        state: State | None = None

        while queue or slots or waiting:
            # Successes wait for company: they are verified in batches of one size.
            if len(waiting) >= _FIXED_BATCH or (waiting and not queue):
                following, refuted = self._verified(waiting, to_the_end)
                queue.extend(following)
                waiting = []
                for trial, again in refuted:  # goes on from where it stood
                    state = again if state is None else state.joined(again)
                    slots.append(trial)
            free = self.batch_size - len(slots)
            if free > 0 and queue:
                # Those of one restart draw their noise together.
                fresh = sorted((queue.popleft() for _ in range(min(free, len(queue)))), key=lambda trial: trial[2])
                started = self._start(fresh)
                state = started if state is None else state.joined(started)
                slots += fresh
            if state is None:
                continue

            samples = torch.tensor([sample for sample, _, _ in slots], device=self.y.device)
            running = state.iteration < self.once.steps
            state = self._advanced(state, samples, running)
            ended = state.fooled | ~running
            if not bool(ended.any()):
                continue

            fooled = state.fooled.tolist()
            for place in ended.nonzero().squeeze(1).tolist():
                if fooled[place]:
                    waiting.append((slots[place], state[ended.new_tensor([place], dtype=torch.int64)]))
                else:
                    queue.extend(self._after_failure(slots[place], to_the_end))
            keep = (~ended).nonzero().squeeze(1)
            slots = [slots[place] for place in keep.tolist()]
            state = state[keep] if slots else None

    def _start(self, fresh: list[_Trial]) -> State:
        """Trials from the start of their restart, by which they are sorted."""

        state: State | None = None
        for restart in sorted({restart for *_, restart in fresh}):
            mine = [(sample, level) for sample, level, other in fresh if other == restart]
            samples, levels = torch.tensor(mine, device=self.y.device).unbind(1)
            # A random start takes one draw in L∞ and two in L2; restarts stay apart.
            noise = SampleKeyed(self.seed, self.rows[samples], draw=2 * restart)
            eps = self.grid[levels]
            started = self.once.start(self.model, self.x[samples], self.y[samples], eps, generator=noise)
            state = started if state is None else state.joined(started)
        assert state is not None
        return state

    def _advanced(self, state: State, samples: Tensor, running: Tensor) -> State:
        """A step for those that have one left, a look at the last iterate for the others."""

        self.gradients[samples[running]] += 1
        if bool(running.all()):
            return self.once.step(state)
        steps, ends = running.nonzero().squeeze(1), (~running).nonzero().squeeze(1)
        looked = state[ends].judged(self._forward(state.x_adv[ends], samples[ends]))
        state = state.put(ends, looked)
        return state.put(steps, self.once.step(state[steps])) if len(steps) else state

    def _verified(
        self, waiting: list[tuple[_Trial, State]], to_the_end: bool
    ) -> tuple[list[_Trial], list[tuple[_Trial, State]]]:
        """Takes the successes that hold, and gives what is to be tried next, and what only rounding fooled."""

        samples = torch.tensor([sample for (sample, _, _), _ in waiting], device=self.y.device)
        before = self.levels[samples].tolist()
        self._accept(samples, torch.cat([state.witness for _, state in waiting]), by_probe=False)
        following, refuted = list[_Trial](), list[tuple[_Trial, State]]()
        for (trial, state), old, new in zip(waiting, before, self.levels[samples].tolist(), strict=True):
            if new == old:
                if int(state.iteration) < self.once.steps:
                    again = replace(state, fooled=torch.zeros_like(state.fooled), witness=state.x)
                    refuted.append((trial, again))
                else:
                    following += self._after_failure(trial, to_the_end)
                continue
            if to_the_end:
                self.tested[trial[0]] += 1
                self.missed[trial[0]] += 1
            if new > 0:
                following.append((trial[0], new - 1, 0))
            elif not to_the_end:
                self.progress.advance(1)
        return following, refuted

    def _after_failure(self, trial: _Trial, to_the_end: bool) -> list[_Trial]:
        """The next restart; after the last one the next smaller ε, if all are to be tried."""

        sample, level, restart = trial
        if restart + 1 < self.restarts:
            return [(sample, level, restart + 1)]
        self.tested[sample] += to_the_end
        self.progress.advance(0 if to_the_end else 1)
        return [(sample, level - 1, 0)] if to_the_end and level > 0 else []

    def _accept(self, samples: Tensor, witnesses: Tensor, by_probe: bool) -> None:
        """Notes witnesses that fool the model in a batch of fixed size and lie where they must."""

        if len(samples) == 0:
            return
        norms = _norm(witnesses - self.x[samples], self.attack.norm)
        holds = self._fooled(witnesses, samples) & (norms < self.norms[samples])
        samples, witnesses, norms = samples[holds], witnesses[holds], norms[holds]
        self.norms[samples], self.witnesses[samples] = norms.float(), witnesses
        self.by_probe[samples] = by_probe
        levels = self._levels(norms)
        self.levels[samples] = torch.minimum(self.levels[samples], levels)

    def _levels(self, norms: Tensor) -> Tensor:
        """How many ε of the grid lie below a norm (B,), to rounding."""

        return torch.searchsorted(self.grid, (norms * (1 - 10 * _TOLERANCE) - _TOLERANCE).contiguous())

    def _fooled(self, witnesses: Tensor, samples: Tensor) -> Tensor:
        """Whether the model is fooled, asked in batches of one size, padded."""

        answers = []
        for part, ids in zip(witnesses.split(_FIXED_BATCH), samples.split(_FIXED_BATCH), strict=True):
            padded = torch.cat([part, part[-1:].expand(_FIXED_BATCH - len(part), *part.shape[1:])])
            with torch.no_grad():
                largest, predicted = at_least_float32(self.model(padded))[: len(part)].max(dim=1)
            self.forwards[ids] += 1
            answers.append((predicted != self.y[ids]) & ~largest.isnan())
        return torch.cat(answers)

    def _forward(self, x: Tensor, samples: Tensor) -> Tensor:
        self.forwards[samples] += 1
        with torch.no_grad():
            return self.model(x)


def _probe(model: Classifier, x: Tensor, y: Tensor, norm: Norm, top: float) -> tuple[Tensor, Tensor]:
    """The smallest adversarial norm (B,) that a few steps along the margin's gradient find, and its images.

    Infinity and the image itself where there is none within ``top``.
    """

    best = x.new_full((len(x),), torch.inf)
    witnesses, x_adv, radius = x.clone(), x, x.new_zeros(len(x))
    unfooled = torch.zeros_like(y, dtype=torch.bool)
    state = State(model, x, y, radius, x_adv, torch.zeros_like(y), unfooled, witness=x)

    for step in range(PROBE_STEPS):
        gradient, logits = replace(state, x_adv=x_adv).gradient(lambda logits: logit_margin(logits, y))
        # NaN counts as not fooled.
        margin = logit_margin(at_least_float32(logits), y).nan_to_num(nan=torch.inf).to(x.dtype)
        gradient = gradient.nan_to_num()
        length = _norm(x_adv - x, norm)
        better = (margin < 0) & (length < best)
        best = torch.where(better, length, best)
        witnesses = torch.where(per_sample(better, x), x_adv, witnesses)

        slope = gradient.flatten(1).abs().sum(dim=1) if norm == "linf" else gradient.flatten(1).norm(dim=1)
        boundary = length + margin / slope.clamp_min(torch.finfo(x.dtype).tiny)
        if step == 0:
            radius = boundary.clamp(0.05 * top, top)
        else:
            # Ever less below what is known to fool; towards the boundary, but not by leaps, where nothing does yet.
            shrunk = torch.minimum(best * (0.97 - _SHRINK * (1 - step / PROBE_STEPS)), length)
            grown = torch.minimum(torch.maximum(1.1 * radius, torch.minimum(boundary, 1.5 * radius)), 0.98 * best)
            radius = torch.where(margin < 0, shrunk, grown).clamp(1e-3 * top, top)
        stride = radius if step == 0 else 0.5 * radius
        x_adv = project(x_adv - per_sample(stride, x) * steepest(gradient, norm), x, radius, norm)
    return best, witnesses


def _norm(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)
