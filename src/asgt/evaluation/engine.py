r"""The curve engine: per sample, the smallest ε of a grid at which a search breaks it, for few gradients.

Robust accuracy over ε is one minus the empirical distribution of each sample's smallest known adversarial norm ε*. An
attack that fails costs all of its steps, one that succeeds leaves early: so the engine comes from above.

1. **Probe.** A few steps along the gradient of the margin, with a radius of each sample's own that shrinks when the
   model is fooled and otherwise follows the linear estimate of the boundary's distance, margin / ‖∇margin‖. What it
   finds is a witness and an upper bound of ε*.
2. **Press.** The witness, scaled down to the next ε of the grid, goes towards the corner of the ball where the
   linearised margin is least, as long as that is low enough: one gradient says that it is not. Where it fools the model
   again, on to the next ε.
3. **Descend.** The first attack, at the next ε below the bound. Where it succeeds, the witness is pressed on; where it
   fails, with all of its restarts, the next attack goes on from there: one failure a sample and attack, if the bound
   was right. An attack that looks for the nearest adversarial image, whatever ε is, is asked once a sample.

A sample leaves an attack at the iterate that fools the model, and another takes its place, so that batches stay full.
Noise is keyed by (seed, sample, attack, restart): what a sample meets does not depend on how batches were filled. A
witness counts only once a forward pass in a batch of fixed size has seen it fool the model too.

An attack's **own** curve takes nothing from the margin but where to look first: from there the attack goes down while
it succeeds, or up until it does.

That what fails at ε fails below it is an assumption, and a weak attack can violate it. So some samples are attacked at
an ε below as well, and how often that broke them is part of the outcome; exhaustively, all of them at all.

References:
    Pintor et al. 2021, "Fast minimum-norm adversarial attacks through adaptive norm constraints",
    https://arxiv.org/abs/2102.12827: the radius that follows the boundary.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..attacks import Attack, Norm, State
from ..attacks.attack import delta_norm, is_legal, logit_margin, per_sample, project, steepest
from ..data import Images, to_unit
from ..errors import InputError
from ..modes import Classifier, ask, at_least_float32, evaluating, untouched, wraps_classifier
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed
from .accuracy import correct

__all__ = ["CLEAN", "MARGIN", "NOTHING", "PRESS_STEPS", "PROBE_STEPS", "Outcome", "smallest_norms"]

PROBE_STEPS = 10
"""Gradients that the probe spends on each sample."""

PRESS_STEPS = 4
"""Gradients that a witness may take to reach the next smaller ε."""

NOTHING, CLEAN, MARGIN = -1, -2, -3
"""What found a sample's smallest norm, where it was no attack: nothing did, it was a clean error, probe or press."""

_TOLERANCE = 1e-6
_FIXED_BATCH = 64
_WHOLE_BATCH = 256  # what an attack that draws by batches is called with, whatever the batch size
_TAIL = 0.5  # how many of those that still run the waiting must be, before they are looked at in a smaller batch
_SHRINK = 0.3
# By the linear estimate: how much of the way to the corner may be missing, and how far beyond the boundary to go.
_SLACK, _BEYOND = 0.7, 1.5
_STREAMS = 1000  # draws that an attack may take; the next has others


@dataclass(frozen=True)
class Outcome:
    """What the engine found of N samples.

    Attributes:
        norms: the smallest known adversarial norm of each sample, float32 (N,): 0 for a clean error, infinity where the
            search found none within the grid.
        levels: how many ε of the grid each sample withstands, int64 (N,): ``levels > e`` is its outcome at ε number e.
        witnesses: an adversarial image of that norm for each sample, of the shape of the images; the image itself for a
            clean error and where there is none.
        found_by: the number of the attack that found it, or ``NOTHING``, ``CLEAN`` or ``MARGIN``; int64 (N,).
        gradients: forward and backward passes that each sample took, int64 (N,).
        forwards: forward passes beside them, int64 (N,).
        floor: the gradients of a clairvoyant, int64 (N,): each attack's failure just below ε*, and the success at it.
            Zero where an attack can only be called whole.
        audit: gradients spent below a failure, to test the assumption, int64 (N,).
        tested: at how many ε below a failure each sample was attacked all the same, int64 (N,).
        missed: how many attacks succeeded there: what going down from above would not have seen, int64 (N,).
        illegal: how many answers of the attacks left the ball or the box, or held NaN, and did not count; int64 (N,).
        nan: whether the model answered with NaN somewhere.
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
        """Which samples stay right at each of the ``count`` ε of the grid, bool (E, N)."""

        return self.levels[None, :] > torch.arange(count, device=self.levels.device)[:, None]


def smallest_norms(
    model: Classifier,
    images: Images,
    attacks: Sequence[Attack],
    grid: Sequence[float],
    *,
    seed: int = 0,
    rows: Tensor | None = None,
    clean: Tensor | None = None,
    own: bool = False,
    audited: Tensor | None = None,
    exhaustive: bool = False,
    votes: int = 1,
    batch_size: int = 256,
    progress: Progress = SILENT,
) -> Outcome:
    """The smallest ε of a grid at which each image breaks.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: N images.
        attacks: the search: what breaks a sample under one of them breaks it. Their ``eps`` are replaced by those of
            the grid, their steps must follow ε or be constant.
        grid: radii above zero, ascending.
        seed: keys the noise.
        rows: the number of each image in its data set, int64 (N,), which keys its noise. Default: 0 to N − 1.
        clean: which images the model gets right as they are, bool (N,). Default: it is asked.
        own: count only what the one attack finds, not what probe and press do.
        audited: shares in [0, 1), float (N,), of those to be attacked at one ε below their own too: at that share of
            them. NaN for the others. Default: none.
        exhaustive: attack every image at every ε below its own too.
        votes: how often a randomised model is asked; the majority is its answer to a clean image and to a witness.
        batch_size: images per pass.
        progress: is advanced by each image and attack that is done.

    Raises:
        InputError: the model gives NaN on a clean image, the grid does not ascend from above zero, or several attacks
            are to share one's own curve.
    """

    if not grid or any(low >= high for low, high in itertools.pairwise((0.0, *grid))):
        raise InputError("the grid of epsilons must ascend from above zero")
    if not attacks or (own and len(attacks) > 1):
        raise InputError(f"{len(attacks)} attacks: an own curve is that of one, a worst case that of one or more")

    if rows is None:
        rows = torch.arange(len(images), device=images.labels.device)
    if clean is None:
        clean = correct(model, images, batch_size, votes=votes)[0]
    run = _Run(
        model,
        images,
        attacks[0].norm,
        tuple(grid),
        seed=seed,
        rows=rows,
        own=own,
        votes=votes,
        batch_size=batch_size,
        progress=progress,
    )
    with evaluating(model):
        run.clean(clean)
        guess = run.probe()
        # A call about few images takes as long as about many: where such attacks are all, their audit shares the calls.
        whole = not any(attack.goes_by_steps for attack in attacks) and not own and not exhaustive
        if whole and audited is not None:
            run.shares, audited = audited.tolist(), None
        for number, attack in enumerate(attacks):
            run.use(number, attack)
            run.descend(guess if own else None)
        if exhaustive or audited is not None:
            for number, attack in enumerate(attacks):
                run.use(number, attack)
                run.look_below(None if exhaustive else audited)
    return run.outcome(attacks)


_Trial: TypeAlias = tuple[int, int, int]
"""An attack that is under way: its sample, the number of its ε on the grid, its restart."""

_Follow: TypeAlias = Literal["bound", "all", "none"]
"""What is tried after a trial: what closes in on ε*, every ε below, nothing."""


class _Run:
    """One search on one set of images, while it goes on."""

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
        # By attack: the number of ε that each sample withstands for sure.
        self.failed: dict[int, list[int]] = {}
        self.shares: list[float] = []
        # The attack that audits are counted by: the first that asks for ε.
        self.first: int | None = None
        self.with_gradient = self.without = 0
        self.external = False

    @wraps_classifier
    def model(self, x: Tensor) -> Tensor:
        """What the model answers; that it was NaN is remembered, without a wait for the device."""

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

    def use(self, number: int, attack: Attack) -> None:
        """The attack that the following is about."""

        self.number, self.attack = number, attack
        if self.first is None and attack.asks_eps:
            self.first = number
        self.restarts, self.once, self.external = attack.restarts, attack.once, attack.is_external
        self.withstood = self.failed.setdefault(number, [0] * len(self.levels))

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
        for part in _parts(self._open(), self.batch_size):
            norms, witnesses, steps = _probe(self.model, self.x[part], self.y[part], self.norm, float(self.grid[-1]))
            self.gradients[part] += PROBE_STEPS
            levels = _levels(self.grid, norms)
            found = levels < len(self.grid)
            if self.own:
                for sample, level in zip(part[found].tolist(), levels[found].tolist(), strict=True):
                    guess[sample] = level
            else:
                self._accept(part[found], witnesses[found], steps[found])
                self.press([sample for sample in part[found].tolist() if self.levels[sample] < len(self.grid)])
        return guess

    def press(self, samples: Sequence[int]) -> None:
        """Presses the witnesses of some samples on to ever smaller ε."""

        number, self.number = self.number, MARGIN
        pressed = torch.tensor(
            [sample for sample in samples if self.levels[sample] > 0], dtype=torch.int64, device=self.y.device
        )
        for part in _parts(pressed, self.batch_size):
            levels = torch.tensor([self.levels[sample] for sample in part.tolist()], device=self.y.device)
            witnesses, steps, last = _press(
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
            self._accept(part[found], witnesses[found], last[found])
        self.number = number

    def descend(self, guess: list[int] | None) -> None:
        """The attack at the next ε below what is known, or at a guess, until its own ε* lies between two of the grid.

        Args:
            guess: the number of the ε to begin at, by sample. Default: that below what is known.
        """

        if not self.attack.asks_eps:
            self._nearest()
            self.progress.advance(len(self.levels))
            return
        samples = self._open().tolist()
        self.progress.advance(len(self.levels) - len(samples))
        self._search(
            [(sample, self.levels[sample] - 1 if guess is None else guess[sample], 0) for sample in samples], "bound"
        )

    def look_below(self, audited: Tensor | None) -> None:
        """The attack at every ε below that at which the search failed; audited samples at one of them."""

        if not self.attack.asks_eps:
            return
        self.spent = self.audit
        if audited is None:
            starts = [self._below(sample, level) for sample, level in enumerate(self.levels)]
            self._search([trial for trials in starts for trial in trials], "all")
            return
        if self.number == self.first:
            self.chosen = {
                sample: int(share * (level - 1))
                for sample, (share, level) in enumerate(zip(audited.tolist(), self.levels, strict=True))
                if share == share and level > 1
            }
        self._search(
            [(sample, level, 0) for sample, level in self.chosen.items() if level < self.levels[sample]], "none"
        )

    def outcome(self, attacks: Sequence[Attack]) -> Outcome:
        levels = torch.tensor(self.levels, dtype=torch.int64, device=self.y.device)
        if all(attack.goes_by_steps for attack in attacks):
            floor = self.success + sum(attack.gradients for attack in attacks) * (levels > 0)
        else:
            floor = torch.zeros_like(levels)
        return Outcome(
            norms=self.norms,
            levels=levels,
            witnesses=self.witnesses,
            found_by=self.found_by,
            gradients=self.gradients,
            forwards=self.forwards,
            floor=floor,
            audit=self.audit,
            tested=self.tested,
            missed=self.missed,
            illegal=self.illegal,
            nan=bool(self.nan),
        )

    def _open(self) -> Tensor:
        return torch.tensor(
            [sample for sample, level in enumerate(self.levels) if level > 0], dtype=torch.int64, device=self.y.device
        )

    def _search(self, trials: list[_Trial], follow: _Follow) -> None:
        """Runs trials and what follows from them."""

        if self.attack.goes_by_steps:
            self._step(trials, follow)
        else:
            self._call(trials, follow)

    def _step(self, trials: list[_Trial], follow: _Follow) -> None:
        """Step by step, as many trials at a time as a batch holds."""

        queue, slots = deque(trials), list[_Trial]()
        waiting, successes = list[_Trial](), None
        state: State | None = None

        while queue or slots or waiting:
            # Successes wait for company: they are verified in batches of one size.
            if successes is not None and (
                len(waiting) >= _FIXED_BATCH or (not queue and len(waiting) >= _TAIL * len(slots))
            ):
                following, refuted = self._verified(waiting, successes, follow)
                queue.extend(following)
                if len(refuted):  # they go on from where they stood
                    again = successes[refuted]
                    again = replace(again, fooled=torch.zeros_like(again.fooled), witness=again.x)
                    state = again if state is None else state.joined(again)
                    slots += [waiting[place] for place in refuted.tolist()]
                waiting, successes = [], None
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
            over, fooled = ended.tolist(), state.fooled.tolist()
            if not any(over):
                continue

            for trial, end, success in zip(slots, over, fooled, strict=True):
                if end and not success:
                    queue.extend(self._after_failure(trial, follow))
            if any(fooled):
                new = state[state.fooled]
                successes = new if successes is None else successes.joined(new)
                waiting += [trial for trial, success in zip(slots, fooled, strict=True) if success]
            slots = [trial for trial, end in zip(slots, over, strict=True) if not end]
            state = state[~ended] if slots else None

    def _nearest(self) -> None:
        """At the full range, once: the norm of what is found is the verdict at every ε."""

        everything = 1.0 if self.norm == "linf" else math.sqrt(self.x[0].numel())
        for samples in _parts(self._open(), _WHOLE_BATCH):
            x_adv = self._answered(samples, everything, len(self.grid))
            self._accept(samples, x_adv, torch.zeros_like(samples), eps=everything)
            if not self.own:
                self.press([sample for sample in samples.tolist() if self.levels[sample] < len(self.grid)])

    def _call(self, trials: list[_Trial], follow: _Follow) -> None:
        """Whole, from the largest ε down: each call is about one ε, unless the attack mixes them."""

        pending: dict[int, list[int]] = {}
        for sample, level, _ in trials:
            pending.setdefault(level, []).append(sample)
        audits: set[int] = set()  # samples that are through but for their audit
        while pending:
            top = max(pending)
            taken = {
                sample: level for level in pending for sample in pending[level] if self.attack.mixes or level == top
            }
            pending = {level: samples for level, samples in pending.items() if not self.attack.mixes and level < top}
            for samples in _parts(torch.tensor(sorted(taken), device=self.y.device), _WHOLE_BATCH):
                audit = torch.tensor([sample in audits for sample in samples.tolist()], device=samples.device)
                eps = self.grid[torch.tensor([taken[sample] for sample in samples.tolist()], device=samples.device)]
                x_adv = self._answered(samples, eps, top, audit)

                self._accept(samples, x_adv, torch.zeros_like(samples), eps=eps)
                broken = {sample for sample in samples.tolist() if self.levels[sample] <= taken[sample]}
                if follow == "bound" and not self.own:
                    self.press(sorted(broken - audits))
                for sample in samples.tolist():
                    how: _Follow = "none" if sample in audits else follow
                    if sample in broken:
                        following = self._after_success(sample, how)
                    else:
                        following = self._after_failure((sample, taken[sample], 0), how)
                    for _, next_level, _ in following:
                        pending.setdefault(next_level, []).append(sample)
                    share = self.shares[sample] if self.shares and how == "bound" and not following else torch.nan
                    if share == share and self.levels[sample] > 1:
                        audits.add(sample)
                        pending.setdefault(int(share * (self.levels[sample] - 1)), []).append(sample)

    def _answered(self, samples: Tensor, eps: float | Tensor, draw: int, audit: Tensor | None = None) -> Tensor:
        """What a whole attack answers; its passes are shared evenly, those for audits, bool (B,), counted apart."""

        before = self.with_gradient, self.without
        noise = SampleKeyed(self.seed, self.rows[samples], draw=self.number * _STREAMS + draw)
        with untouched(self.asked):
            x_adv = self.attack(self.model, self.x[samples], self.y[samples], eps=eps, generator=noise)
        gradients = _shared(self.with_gradient - before[0], samples)
        audit = torch.zeros_like(samples, dtype=torch.bool) if audit is None else audit
        self.spent[samples[~audit]] += gradients[~audit]
        self.audit[samples[audit]] += gradients[audit]
        self.forwards[samples] += _shared(self.without - before[1], samples)
        return x_adv

    def _start(self, fresh: list[_Trial]) -> State:
        """Trials from the start of their restart, by which they are sorted."""

        state: State | None = None
        for restart, trials in itertools.groupby(fresh, key=lambda trial: trial[2]):
            mine = [(sample, level) for sample, level, _ in trials]
            samples, levels = torch.tensor(mine, device=self.y.device).unbind(1)
            # A random start takes one draw in L∞ and two in L2; restarts stay apart.
            noise = SampleKeyed(self.seed, self.rows[samples], draw=self.number * _STREAMS + 2 * restart)
            before = self.without
            eps = self.grid[levels]
            started = self.once.start(self.model, self.x[samples], self.y[samples], eps, generator=noise)
            self.forwards[samples] += (self.without - before) // len(mine)
            state = started if state is None else state.joined(started)
        assert state is not None
        return state

    def _advanced(self, state: State, samples: Tensor, running: Tensor) -> State:
        """A step for those that have one left, a look at the last iterate for the others."""

        steps, ends = running.nonzero().squeeze(1), (~running).nonzero().squeeze(1)
        counter = self.spent if self.once.uses_gradients else self.forwards
        counter[samples[steps]] += 1
        if len(ends) == 0:
            return self._stepped(state)
        looked = state[ends].judged(self._forward(state.x_adv[ends], samples[ends]))
        state = state.put(ends, looked)
        return state.put(steps, self._stepped(state[steps])) if len(steps) else state

    def _stepped(self, state: State) -> State:
        """The state after a step; what somebody else's attack returns is looked at."""

        after = self.once.step(state)
        if self.external and not (isinstance(after, State) and bool((after.iteration == state.iteration + 1).all())):
            raise InputError(
                f"{self.attack.title}.step must return the state after one step, with iteration + 1: return "
                "self.moved(…)"
            )
        return after

    def _verified(self, trials: list[_Trial], state: State, follow: _Follow) -> tuple[list[_Trial], Tensor]:
        """Takes the successes that hold, and gives what is to be tried next, and the places of what rounding fooled."""

        samples = torch.tensor([sample for sample, _, _ in trials], device=self.y.device)
        before = [self.levels[sample] for sample, _, _ in trials]
        gradients = state.iteration if self.once.uses_gradients else torch.zeros_like(samples)
        self._accept(samples, state.witness, gradients, eps=state.eps)
        if follow == "bound" and not self.own:
            self.press([trial[0] for trial, old in zip(trials, before, strict=True) if self.levels[trial[0]] < old])
        following, refuted = list[_Trial](), list[int]()
        for place, (trial, old, taken) in enumerate(zip(trials, before, state.iteration.tolist(), strict=True)):
            if self.levels[trial[0]] < old:
                following += self._after_success(trial[0], follow)
            elif taken < self.once.steps:
                refuted.append(place)
            else:
                following += self._after_failure(trial, follow)
        return following, torch.tensor(refuted, dtype=torch.int64, device=self.y.device)

    def _after_success(self, sample: int, follow: _Follow) -> list[_Trial]:
        """The next smaller ε, if the attack is not known to fail there."""

        level = self.levels[sample]
        if follow != "bound":
            self.tested[sample] += self.number == self.first
            self.missed[sample] += 1
            return self._below(sample, level) if follow == "all" else []
        if self.withstood[sample] < level:
            return [(sample, level - 1, 0)]
        self.progress.advance()
        return []

    def _after_failure(self, trial: _Trial, follow: _Follow) -> list[_Trial]:
        """The next restart; after the last one the next ε, if one is open."""

        sample, level, restart = trial
        if restart + 1 < self.restarts:
            return [(sample, level, restart + 1)]
        if follow != "bound":
            self.tested[sample] += self.number == self.first
            return self._below(sample, level) if follow == "all" else []
        self.withstood[sample] = level + 1
        if level + 1 < self.levels[sample]:
            return [(sample, level + 1, 0)]
        self.progress.advance()
        return []

    def _below(self, sample: int, level: int) -> list[_Trial]:
        """The next ε below one, without that at which the attack has failed already."""

        following = level - 1 - (level == self.withstood[sample])
        return [(sample, following, 0)] if following >= 0 else []

    def _accept(self, samples: Tensor, witnesses: Tensor, steps: Tensor, eps: float | Tensor = torch.inf) -> None:
        """Notes witnesses that fool the model in a batch of fixed size and lie where they must.

        Args:
            samples: whose they are, int64 (B,).
            witnesses: images (B, C, H, W).
            steps: what each took to find, int64 (B,).
            eps: the radius that they must keep to, a number or (B,).
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
        for sample, level in zip(samples.tolist(), _levels(self.grid, norms).tolist(), strict=True):
            self.levels[sample] = min(self.levels[sample], level)

    def _fooled(self, witnesses: Tensor, samples: Tensor) -> Tensor:
        """Whether the model is fooled, bool (B,), asked in batches of one size, padded; by majority of votes."""

        answers = []
        for part, ids in zip(witnesses.split(_FIXED_BATCH), samples.split(_FIXED_BATCH), strict=True):
            padded = torch.cat([part, part[-1:].expand(_FIXED_BATCH - len(part), *part.shape[1:])])
            count = torch.zeros_like(ids)
            for _ in range(self.votes):
                with torch.no_grad():
                    largest, predicted = at_least_float32(self.model(padded))[: len(part)].max(dim=1)
                count += (predicted != self.y[ids]) & ~largest.isnan()
            self.forwards[ids] += self.votes
            answers.append(2 * count > self.votes)
        return torch.cat(answers)

    def _forward(self, x: Tensor, samples: Tensor) -> Tensor:
        self.forwards[samples] += 1
        with torch.no_grad():
            return self.model(x)


def _probe(model: Classifier, x: Tensor, y: Tensor, norm: Norm, top: float) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest adversarial norm (B,) that a few steps along the margin's gradient find, its images and its step.

    Infinity and the image itself where there is none within ``top``.
    """

    best = x.new_full((len(x),), torch.inf)
    witnesses, x_adv, radius, steps = x.clone(), x, x.new_zeros(len(x)), torch.zeros_like(y)
    unfooled = torch.zeros_like(y, dtype=torch.bool)
    state = State(model, x, y, radius, x_adv, iteration=torch.zeros_like(y), fooled=unfooled, witness=x)

    for step in range(PROBE_STEPS):
        gradient, logits = replace(state, x_adv=x_adv).gradient(lambda logits: logit_margin(logits, y))
        # NaN counts as not fooled.
        margin = logit_margin(at_least_float32(logits), y).nan_to_num(nan=torch.inf).to(x.dtype)
        gradient = gradient.nan_to_num()
        length = delta_norm(x_adv - x, norm)
        better = (margin < 0) & (length > 0) & (length < best)
        best = torch.where(better, length, best)
        steps = torch.where(better, step + 1, steps)
        witnesses = torch.where(per_sample(better, x), x_adv, witnesses)
        if step + 1 == PROBE_STEPS:
            break

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
    return best, witnesses, steps


def _press(
    model: Classifier, x: Tensor, y: Tensor, witnesses: Tensor, *, grid: Tensor, levels: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Looks for witnesses within ever smaller radii of the grid, each from the one before, scaled down to it.

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        witnesses: what fools the model, of the shape of ``x``.
        grid: the radii, ascending.
        levels: how many of them lie below the witnesses' norms, int64 (B,), above zero.
        norm: the norm of ε.

    Returns:
        The smallest found, of the shape of ``x``, the gradients it took, int64 (B,), and those of them that led to it
        from the one before, int64 (B,); zero where none was found.
    """

    best, steps, last, tries = witnesses.clone(), torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(y)
    x_adv, radius, going = x.clone(), x.new_zeros(len(x)), torch.arange(len(y), device=y.device)
    down = going  # whose best witness is to be scaled down next

    while len(going):
        if len(down):
            delta, radius[down] = best[down] - x[down], grid[levels[down] - 1]
            scaled = x[down] + delta * per_sample(radius[down] / delta_norm(delta, norm), x)
            x_adv[down], tries[down] = project(scaled, x[down], radius[down], norm), 0

        here, centre, eps, label = x_adv[going], x[going], radius[going], y[going]
        unfooled = torch.zeros_like(label, dtype=torch.bool)
        state = State(model, centre, label, eps, here, iteration=label, fooled=unfooled, witness=centre)
        gradient, logits = state.gradient(lambda logits, label=label: logit_margin(logits, label))  # type: ignore[misc]
        steps[going] += 1
        tries[going] += 1
        # NaN counts as not fooled, and leads nowhere.
        margin = logit_margin(at_least_float32(logits), label).nan_to_num(nan=torch.inf).to(x.dtype)
        gradient = gradient.nan_to_num()

        fooled = margin < 0
        down = going[fooled]
        best[down], last[down] = here[fooled], tries[down]
        levels = levels.index_put((down,), _levels(grid, delta_norm(here[fooled] - centre[fooled], norm)))

        corner = project(centre - per_sample(eps, x) * steepest(gradient, norm), centre, eps, norm)
        gain = (gradient * (here - corner)).flatten(1).sum(dim=1)
        near = ~fooled & (_SLACK * gain > margin) & (tries[going] < PRESS_STEPS)
        share = (_BEYOND * margin / gain.clamp_min(torch.finfo(x.dtype).tiny)).clamp(0.0, 1.0)
        x_adv[going[near]] = (here + per_sample(share, x) * (corner - here))[near]
        down = down[levels[down] > 0]
        going = torch.cat([going[near], down])
    return best, steps, last


def _parts(samples: Tensor, size: int) -> Iterable[Tensor]:
    """The samples in groups of at most ``size``; none where there are none, of whom no attack must be asked."""

    return samples.split(size) if len(samples) else ()


def _levels(grid: Tensor, norms: Tensor) -> Tensor:
    """How many ε of a grid lie below a norm (B,), to rounding."""

    return torch.searchsorted(grid, (norms * (1 - 10 * _TOLERANCE) - _TOLERANCE).contiguous())


def _shared(passes: int, samples: Tensor) -> Tensor:
    """Passes that were made for some samples together, shared evenly among them, int64 (B,)."""

    even, rest = divmod(passes, len(samples))
    return even + (torch.arange(len(samples), device=samples.device) < rest)
