r"""A search in phases, where each phase attacks only the samples that may still break.

A sample that lies far from the boundary is as safe after sixty gradients as after a thousand, and most samples lie far.
So all samples get a few short runs, and only those whose margin is small (:mod:`asgt.evaluation.allocation`) get the
longer ones. A phase is a list of attacks and a rule that says who enters it; the phases are part of a protocol.

1. **Probe and press** (:mod:`asgt.evaluation.probing`) give a bound of ε*, as in every worst case.
2. Each sample goes through the phases at the next ε below its bound. Where an attack breaks it, the witness is pressed
   on, and the sample begins again with the first phase, at the next ε below: no ε is passed by with less than another.
3. A phase begins when all samples are through those before it, at any ε. So the set of near samples does not depend
   on the batches.
4. Where a phase breaks most of the samples that it attacks at an ε, the nearest five that it discarded there follow, as
   long as most of them break.
5. A phase may have rounds: after some steps, only the samples with the smallest margins at each ε continue.

A sample that is not near enough for a phase is **discarded**: it counts as robust at its ε. Where searches without
gradients break many of those that they try, gradients mislead; at such an ε the discarded samples come back, and more
of them count as near. An audit bounds the share of wrong discards (:mod:`asgt.evaluation.discard_audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..attacks import Attack, Norm, State
from ..attacks.annealed import AnnealedState
from ..attacks.square import SquareState
from ..data import Images, batch_that_fits
from ..modes import Classifier, evaluating
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed
from .allocation import ALWAYS, distances, near, smallest
from .known import STREAMS, Known, Outcome, in_parts

__all__ = ["Phase", "PhasedOutcome", "phased_norms"]

_SOME, _SEVERAL = 2, 5  # broken samples that show something of their ε, and of larger ones

Run: TypeAlias = tuple[Tensor, State]
"""Samples that an attack has not broken yet, int64 (B,), and its state on them."""


@dataclass(frozen=True)
class Phase:
    """A phase of a search.

    Args:
        name: its name on pages.
        attacks: its attacks, one after the other; what breaks a sample ends the phase for it.
        within: the samples within this many σ of the boundary enter. Default: all.
        from_best: start from the iterate of smallest margin so far, not at random.
        if_breaking: enter it only at those ε at which a phase without gradients before it broke two samples or more,
            and more than this share of those that it tried: there, gradients mislead, and what was discarded
            comes back. If it broke five or more, the same is assumed at every larger ε. Default: at every ε.
        rounds: pairs of a number of steps and a share in (0, 1]. After so many steps of each attack, only this share
            of the samples at each ε continues, those whose margin is smallest in this run (at least five); the others
            are discarded, as far as later phases do not take them. Default: all samples take all steps.
    """

    name: str
    attacks: tuple[Attack, ...]
    within: float | None = None
    from_best: bool = False
    if_breaking: float | None = None
    rounds: tuple[tuple[int, float], ...] = ()

    @property
    def where_most_break(self) -> bool:
        """Whether it is entered only at those ε at which searches without gradients broke most that they tried."""

        return self.if_breaking is not None and self.if_breaking >= 0.5

    def widened(self, factor: float) -> Phase:
        """The phase with the number of σ, and the shares of its rounds, multiplied by a factor of at least 1."""

        rounds = tuple((steps, min(factor * share, 1.0)) for steps, share in self.rounds)
        within = None if self.within is None else factor * self.within
        return self if factor == 1.0 else replace(self, within=within, rounds=rounds)

    def in_norm(self, norm: Norm) -> Phase:
        """The phase with its attacks in a norm."""

        return replace(self, attacks=tuple(attack.in_norm(norm) for attack in self.attacks))


@dataclass(frozen=True, kw_only=True)
class PhasedOutcome(Outcome):
    """The result of a search in P phases on N samples.

    Attributes:
        discarded: the number of the phase that a sample was not near enough for, or in which it did not continue, int64
            (N,); −1 if it went through all phases, or is robust at no ε.
        distance: its final distance from the boundary in σ, float32 (N,); NaN if it is robust at no ε.
        phase_gradients: the gradients that each sample took, int64 (P + 1, N): probe and press, then phase by phase.
        phase_forwards: additional forward passes, likewise.
        phase_broken: the number of ε at which each phase broke it, int64 (P + 1, N); the first row is 0 or 1.
        blind: how many of its gradients in the phases were zero or not finite, int64 (N,).
    """

    discarded: Tensor
    distance: Tensor
    phase_gradients: Tensor
    phase_forwards: Tensor
    phase_broken: Tensor
    blind: Tensor


def phased_norms(
    model: Classifier,
    images: Images,
    phases: Sequence[Phase],
    grid: Sequence[float],
    *,
    clean: Tensor,
    levels: Tensor | None = None,
    again: int = 0,
    seed: int = 0,
    rows: Tensor | None = None,
    audited: Tensor | None = None,
    votes: int = 1,
    batch_size: int | None = None,
    progress: Progress = SILENT,
) -> PhasedOutcome:
    """The smallest ε of a grid at which a search in phases breaks each image.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: N images. The set of near samples, and so the outcome, depends on all of them together.
        phases: the search; all samples enter the first phase.
        grid: radii above zero, ascending.
        clean: which clean images the model classifies correctly, bool (N,).
        levels: the number of ε below the known bound of each image, int64 (N,); the probe is then omitted.
        again: the number of earlier runs of the search: each run draws other noise.
        seed: keys the noise.
        rows: the number of each image in its data set, int64 (N,), which keys its noise. Default: 0 to N − 1.
        audited: shares in [0, 1), float (N,), for the samples that the first phase also attacks at one ε below
            their own: the one at that share of them. NaN for the others. Default: none.
        votes: passes for each decision of a randomised model; the majority decides on witnesses.
        batch_size: images per pass. Default: 256, fewer large ones.
        progress: advanced by each finished image.
    """

    if rows is None:
        rows = torch.arange(len(images), device=images.labels.device)
    norm = phases[0].attacks[0].norm
    batch_size = batch_size or batch_that_fits(images)
    settings: dict[str, Any] = {"rows": rows, "votes": votes, "batch_size": batch_size, "progress": progress}
    run = _Phased(phases, model, images, norm, tuple(grid), seed=seed, own=False, **settings)
    with evaluating(model):
        run.clean(clean)
        run.draw = again * sum(len(phase.attacks) for phase in phases)
        if levels is None:
            run.counted(0, run.probe)
            run.phase_broken[0] = (run.level_tensor() < len(grid)) & clean
        else:
            run.levels = levels.tolist()
        run.through_phases()
        if audited is not None:
            run.look_below(audited)
    return run.outcome()


class _Phased(Known):
    """A search in phases, while it goes on."""

    def __init__(self, phases: Sequence[Phase], *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.phases = phases
        count, device = len(self.levels), self.y.device
        self.stage = torch.zeros(count, dtype=torch.int64, device=device)
        self.discarded = torch.full_like(self.stage, -1)
        self.margin = torch.full((count,), torch.inf, device=device)
        self.best, self.closest = self.x.clone(), torch.full_like(self.stage, -1)
        attacks = [attack for phase in phases for attack in phase.attacks]
        self.numbers = [number for number, phase in enumerate(phases) for _ in phase.attacks]
        # A run towards a class that may be out of reach says nothing of how far runs lie apart.
        self.aims = [attack.has_a_target for attack in attacks]
        self.reached = torch.full((count, len(attacks)), torch.nan, device=device)
        # By phase and ε: what searches without gradients tried and broke.
        self.blind_tries = torch.zeros((2, len(phases), len(self.grid) + 1), dtype=torch.int64, device=device)
        self.phase_gradients = torch.zeros((len(phases) + 1, count), dtype=torch.int64, device=device)
        self.phase_forwards = torch.zeros_like(self.phase_gradients)
        self.phase_broken = torch.zeros_like(self.phase_gradients)
        self.draw = 0
        self.called = torch.zeros_like(self.stage, dtype=torch.bool)
        self.blind = torch.zeros_like(self.stage)

    def counted(self, row: int, part: Callable[[], Any]) -> None:
        """A part of the search, whose passes are counted in one row."""

        before = self.gradients.clone(), self.forwards.clone()
        part()
        self.phase_gradients[row] += self.gradients - before[0]
        self.phase_forwards[row] += self.forwards - before[1]

    def through_phases(self) -> None:
        """Runs all samples through all phases, always the earliest phase with waiting samples."""

        done = 0
        while True:
            levels = self.level_tensor()
            waiting = (levels > 0) & (self.stage < len(self.phases))
            self.progress.advance(int((~waiting).sum()) - done)
            done = int((~waiting).sum())
            if not bool(waiting.any()):
                return
            number = int(self.stage[waiting].min())
            entering = self.admitted(number, waiting & (self.stage == number), levels)
            self.counted(number + 1, partial(self.enter, number, entering.nonzero().squeeze(1)))

    def admitted(self, number: int, asking: Tensor, levels: Tensor) -> Tensor:
        """Which of the samples that wait for a phase, bool (N,), enter it; the others are discarded, or wait on."""

        phase = self.phases[number]
        entering, called = asking.clone(), asking & self.called
        self.called[asking] = False
        if phase.if_breaking is not None:
            tried, broke = self.blind_tries
            most = broke > phase.if_breaking * tried
            here, from_here_on = (((broke >= least) & most).any(dim=0) for least in (_SOME, _SEVERAL))
            entering &= (here | (from_here_on.cumsum(dim=0) > 0))[levels]
            self.stage[asking & ~entering] = number + 1
        if phase.within is not None:
            held, close = levels > 0, torch.zeros_like(asking)
            close[held] = near(self.distances(held), phase.within, levels[held])
            close |= called
            far = entering & ~close
            self.discarded[far & (self.discarded < 0)] = number
            # What is discarded comes back where gradients turn out to mislead.
            again = (
                later for later in range(number + 1, len(self.phases)) if self.phases[later].if_breaking is not None
            )
            self.stage[far] = next(again, len(self.phases))
            entering &= close
        self.discarded[entering] = -1
        return entering

    def distances(self, samples: Tensor) -> Tensor:
        """How many σ the marked samples, bool (N,), lie from the boundary."""

        return distances(self.margin[samples], self.reached[samples], self.level_tensor()[samples])

    def enter(self, number: int, samples: Tensor) -> None:
        """A phase, for the samples that enter it."""

        first = sum(len(phase.attacks) for phase in self.phases[:number])
        entered = self.level_tensor()[samples]
        for place, attack in enumerate(self.phases[number].attacks, first):
            levels = self.level_tensor()[samples]
            broken = self.attacked(place, attack, samples, self.phases[number])
            if not attack.uses_gradients:
                self.blind_tries[0, number] += levels.bincount(minlength=len(self.grid) + 1)
                self.blind_tries[1, number] += levels[broken].bincount(minlength=len(self.grid) + 1)
            self.phase_broken[number + 1, samples[broken]] += 1
            self.press(samples[broken].tolist())
            self.begin_again(samples[broken])
            samples = samples[~broken]
        self.stage[samples] = number + 1
        self.call_back(number, entered, self.level_tensor()[samples])

    def call_back(self, number: int, entered: Tensor, left: Tensor) -> None:
        """Where a phase broke most samples of an ε, the nearest ones that it discarded there enter it too.

        They were far only beside those that are gone now.

        Args:
            entered: the number of the ε of each sample that the phase attacked, int64.
            left: likewise, of those that it did not break.
        """

        if self.phases[number].within is None or self.phases[number].rounds:
            return
        count, levels = len(self.grid) + 1, self.level_tensor()
        tried = entered.bincount(minlength=count)
        broke = tried - left.bincount(minlength=count)
        for level in ((broke >= _SOME) & (2 * broke > tried)).nonzero().squeeze(1).tolist():
            behind = ((levels == level) & (self.discarded == number)).nonzero().squeeze(1)
            nearest = behind[self.margin[behind].argsort(stable=True)[:ALWAYS]]
            self.stage[nearest], self.called[nearest] = number, True

    def begin_again(self, samples: Tensor) -> None:
        """Samples that were broken start with the first phase, at the next ε below: earlier iterates belong to another
        ε.
        """

        self.stage[samples], self.discarded[samples] = 0, -1
        self.margin[samples] = torch.inf
        self.reached[samples] = torch.nan
        self.best[samples] = self.x[samples]

    def attacked(self, place: int, attack: Attack, samples: Tensor, phase: Phase) -> Tensor:
        """Runs an attack on samples at the ε below their bound; which of them it broke, bool (B,)."""

        self.number, self.external = place, attack.is_external
        before = self.level_tensor()[samples]
        found: list[Run] = []
        parts = list(in_parts(samples, self.batch_size))
        # With rounds all samples at an ε compete, so that all parts take the same steps before one takes more.
        for together in [parts] if phase.rounds and parts else [[part] for part in parts]:
            runs = [(part, self.started(place, attack, part, phase.from_best)) for part in together]
            taken = 0
            for steps, share in phase.rounds:
                runs = [self.advanced(place, attack, run, steps - taken, found) for run in runs]
                runs = self.promising(place, runs, share)
                taken = steps
            for run in runs:
                self.finished(place, attack, self.advanced(place, attack, run, attack.steps - taken, found), found)
        if found:
            ids = torch.cat([part for part, _ in found])
            witnesses = torch.cat([state.witness for _, state in found])
            iterations = torch.cat([state.iteration for _, state in found])
            self.accept(ids, witnesses, iterations, eps=self.grid[self.level_tensor()[ids] - 1])
        return self.level_tensor()[samples] < before

    def started(self, place: int, attack: Attack, part: Tensor, from_best: bool) -> State:
        """The state of an attack on samples before its first step."""

        eps = self.grid[self.level_tensor()[part] - 1]
        noise = SampleKeyed(self.seed, self.rows[part], draw=(self.draw + place) * STREAMS)
        init = self.best[part] if from_best else None
        before = self.without
        state = attack.start(self.model, self.x[part], self.y[part], eps, init=init, generator=noise)
        self.forwards[part] += (self.without - before) // len(part)
        if isinstance(state, AnnealedState):
            state = replace(state, target=torch.where(state.target < 0, self.closest[part], state.target))
        return state

    def advanced(self, place: int, attack: Attack, run: Run, steps: int, found: list[Run]) -> Run:
        """A run after so many steps more, without the samples that it broke."""

        counter = self.gradients if attack.uses_gradients else self.forwards
        for _ in range(steps):
            part, state = run
            if len(part) == 0:
                break
            counter[part] += 1
            run = self.unbroken(place, part, attack.step(state), found)
        return run

    def finished(self, place: int, attack: Attack, run: Run, found: list[Run]) -> None:
        """The last iterate of a run: an attack by gradients has not evaluated the model at it yet."""

        part, state = run
        if attack.uses_gradients and len(part):
            part, state = self.unbroken(place, part, state.judged(self.forward(state.x_adv, part)), found)
        self.remember(place, part, state)

    def unbroken(self, place: int, part: Tensor, state: State, found: list[Run]) -> Run:
        """The samples of a run that it has not broken; the others join ``found``."""

        if not bool(state.fooled.any()):
            return part, state
        found.append((part[state.fooled], state[state.fooled]))
        self.remember(place, *found[-1])
        return part[~state.fooled], state[~state.fooled]

    def promising(self, place: int, runs: list[Run], share: float) -> list[Run]:
        """The runs with only a share of their samples at each ε, those with the smallest margins."""

        parts = torch.cat([part for part, _ in runs])
        margins = torch.cat([state.margin for _, state in runs if isinstance(state, (AnnealedState, SquareState))])
        chosen = smallest(margins, share, self.level_tensor()[parts])
        kept = []
        for (part, state), stays in zip(runs, chosen.split([len(part) for part, _ in runs]), strict=True):
            self.remember(place, part[~stays], state[~stays])
            self.discarded[part[~stays]] = self.numbers[place]
            kept.append((part[stays], state[stays]))
        return kept

    def remember(self, place: int, samples: Tensor, state: State) -> None:
        """The smallest margins that a run reached, and where."""

        if isinstance(state, AnnealedState):
            self.blind[samples] += state.blind
            if not self.aims[place]:
                self.reached[samples, place] = state.margin.to(self.reached)
            best = state.best
        elif isinstance(state, SquareState):
            best = state.x_adv
        else:
            return
        smaller = state.margin.to(self.margin) < self.margin[samples]
        at = samples[smaller]
        self.margin[at], self.best[at] = state.margin.to(self.margin)[smaller], best[smaller]
        if isinstance(state, AnnealedState):
            self.closest[at] = state.closest[smaller]

    def look_below(self, audited: Tensor) -> None:
        """The first phase at one ε below that at which it failed, for the audited samples."""

        levels = self.levels.copy()
        chosen = self.below_failure(audited)
        gradients, forwards = self.gradients.clone(), self.forwards.clone()
        # What the runs of the search reached, at its own ε, decides how near samples are: this is at another.
        reached = {name: getattr(self, name).clone() for name in ("margin", "best", "closest", "reached", "blind")}
        for sample, below in chosen.items():
            self.levels[sample] = below + 1
        samples = torch.tensor(sorted(chosen), dtype=torch.int64, device=self.y.device)
        self.tested[samples] += 1
        for place, attack in enumerate(self.phases[0].attacks):
            broken = self.attacked(place, attack, samples, self.phases[0])
            self.missed[samples[broken]] += 1
            samples = samples[~broken]
        for sample in samples.tolist():
            self.levels[sample] = levels[sample]
        self.audit = self.gradients - gradients
        self.gradients, self.forwards = gradients, forwards
        for name, before in reached.items():
            setattr(self, name, before)

    def level_tensor(self) -> Tensor:
        return torch.tensor(self.levels, dtype=torch.int64, device=self.y.device)

    def outcome(self) -> PhasedOutcome:
        levels = self.level_tensor()
        held = levels > 0
        distance = torch.full_like(self.margin, torch.nan)
        distance[held] = self.distances(held).float()
        return PhasedOutcome(
            norms=self.norms,
            levels=levels,
            witnesses=self.witnesses,
            found_by=self.found_by,
            gradients=self.gradients,
            forwards=self.forwards,
            floor=torch.zeros_like(levels),
            audit=self.audit,
            tested=self.tested,
            missed=self.missed,
            illegal=self.illegal,
            nan=bool(self.nan),
            discarded=torch.where(held, self.discarded, -1),
            distance=distance,
            phase_gradients=self.phase_gradients,
            phase_forwards=self.phase_forwards,
            phase_broken=self.phase_broken,
            blind=self.blind,
        )
