r"""The curve engine: per sample, the smallest ε of a grid at which a search breaks it, for few gradients.

Robust accuracy over ε is one minus the empirical distribution of each sample's smallest known adversarial norm ε*.
A failed attack costs all of its steps, a successful one stops early. So the engine searches from above.

1. **Probe and press** (:mod:`asgt.evaluation.probing`), along the gradient of the margin, give a witness and an upper
   bound of ε*.
2. **Descend.** The first attack, at the next ε below the bound. Where it succeeds, the witness is pressed on; where it
   fails, with all of its restarts, the next attack continues from there. This is one failure per sample and attack,
   if the bound was right. An attack that looks for the nearest adversarial image, independent of ε, is called once
   per sample.

A sample ends an attack at the iterate that fools the model, and another takes its place, so that batches stay full.
Noise is keyed by (seed, sample, attack, restart): what a sample meets does not depend on how batches were filled. A
witness counts only once a forward pass in a batch of fixed size has seen it fool the model too.

An attack's **own** curve takes nothing from the margin but where to look first: from there the attack goes down while
it succeeds, or up until it does.

That what fails at ε fails below it is an assumption, and a weak attack can violate it. So some samples are attacked at
an ε below as well, and the outcome contains how often they broke. An exhaustive search attacks all samples at all ε.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..attacks import Attack, State
from ..data import Images, batch_that_fits
from ..errors import InputError
from ..modes import Classifier, evaluating, untouched
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed
from .accuracy import correct
from .known import STREAMS, Known, Outcome, in_parts

__all__ = ["smallest_norms"]

_WHOLE_BATCH = 256  # what an attack that draws by batches is called with, whatever the batch size
_TAIL = 0.5  # how many of those that still run the waiting must be, before they are looked at in a smaller batch


def smallest_norms(
    model: Classifier,
    images: Images,
    attacks: Sequence[Attack],
    grid: Sequence[float],
    *,
    seed: int = 0,
    rows: Tensor | None = None,
    clean: Tensor | None = None,
    levels: Tensor | None = None,
    own: bool = False,
    audited: Tensor | None = None,
    exhaustive: bool = False,
    votes: int = 1,
    batch_size: int | None = None,
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
        clean: which clean images the model classifies correctly, bool (N,). Default: computed.
        levels: the number of ε below the known bound of each image, int64 (N,); the probe is then omitted.
        own: count only the successes of the one attack, not those of probe and press.
        audited: shares in [0, 1), float (N,), for the samples that are also attacked at one ε below their own: the
            one at that share of them. NaN for the others. Default: none.
        exhaustive: attack every image at every ε below its own too.
        votes: passes for each decision of a randomised model; the majority decides on clean images and on witnesses.
        batch_size: images per pass. Default: 256, fewer large ones.
        progress: advanced by each finished image and attack.

    Raises:
        InputError: the model gives NaN on a clean image, the grid does not ascend from above zero, or several attacks
            are to share one's own curve.
    """

    if not grid or any(low >= high for low, high in itertools.pairwise((0.0, *grid))):
        raise InputError("the grid of epsilons must ascend from above zero")
    if not attacks or (own and len(attacks) > 1):
        raise InputError(f"{len(attacks)} attacks: a separate curve needs exactly one attack, a worst case one or more")

    batch_size = batch_size or batch_that_fits(images)
    if rows is None:
        rows = torch.arange(len(images), device=images.labels.device)
    if clean is None:
        clean = correct(model, images, batch_size, votes=votes)[0]
    run = _Descent(
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
        if levels is not None:
            run.levels = levels.tolist()
        guess = run.probe() if levels is None else run.levels
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


class _Descent(Known):
    """Attacks that come down from above, one after the other, while they go on."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        # By attack: the number of ε that each sample withstands for sure.
        self.failed: dict[int, list[int]] = {}
        self.shares: list[float] = []
        # The attack that audits are counted by: the first that asks for ε.
        self.first: int | None = None

    def use(self, number: int, attack: Attack) -> None:
        """Selects the attack of the following calls."""

        self.number, self.attack = number, attack
        if self.first is None and attack.asks_eps:
            self.first = number
        self.restarts, self.once, self.external = attack.restarts, attack.once, attack.is_external
        self.withstood = self.failed.setdefault(number, [0] * len(self.levels))

    def descend(self, guess: list[int] | None) -> None:
        """The attack at the next ε below what is known, or at a guess, until its own ε* lies between two of the grid.

        Args:
            guess: the number of the ε to begin at, by sample. Default: that below what is known.
        """

        if not self.attack.asks_eps:
            self._nearest()
            self.progress.advance(len(self.levels))
            return
        samples = self.open().tolist()
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
            self.chosen = self.below_failure(audited)
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
                len(waiting) >= self.fixed or (not queue and len(waiting) >= _TAIL * len(slots))
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
        for samples in in_parts(self.open(), _WHOLE_BATCH):
            x_adv = self._answered(samples, everything, len(self.grid))
            self.accept(samples, x_adv, torch.zeros_like(samples), eps=everything)
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
            for samples in in_parts(torch.tensor(sorted(taken), device=self.y.device), _WHOLE_BATCH):
                audit = torch.tensor([sample in audits for sample in samples.tolist()], device=samples.device)
                eps = self.grid[torch.tensor([taken[sample] for sample in samples.tolist()], device=samples.device)]
                x_adv = self._answered(samples, eps, top, audit)

                self.accept(samples, x_adv, torch.zeros_like(samples), eps=eps)
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
        noise = SampleKeyed(self.seed, self.rows[samples], draw=self.number * STREAMS + draw)
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
            noise = SampleKeyed(self.seed, self.rows[samples], draw=self.number * STREAMS + 2 * restart)
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
        looked = state[ends].judged(self.forward(state.x_adv[ends], samples[ends]))
        state = state.put(ends, looked)
        return state.put(steps, self._stepped(state[steps])) if len(steps) else state

    def _stepped(self, state: State) -> State:
        """The state after a step; what somebody else's attack returns is looked at."""

        after = self.once.step(state)
        if self.external and not (isinstance(after, State) and bool((after.iteration == state.iteration + 1).all())):
            raise InputError(
                f"{self.attack.title}.step must return the state after one step, with iteration + 1: end it with "
                "return self.moved(…)"
            )
        return after

    def _verified(self, trials: list[_Trial], state: State, follow: _Follow) -> tuple[list[_Trial], Tensor]:
        """Takes the successes that hold, and gives what is to be tried next, and the places of what rounding fooled."""

        samples = torch.tensor([sample for sample, _, _ in trials], device=self.y.device)
        before = [self.levels[sample] for sample, _, _ in trials]
        gradients = state.iteration if self.once.uses_gradients else torch.zeros_like(samples)
        self.accept(samples, state.witness, gradients, eps=state.eps)
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


def _shared(passes: int, samples: Tensor) -> Tensor:
    """Passes that were made for some samples together, shared evenly among them, int64 (B,)."""

    even, rest = divmod(passes, len(samples))
    return even + (torch.arange(len(samples), device=samples.device) < rest)
