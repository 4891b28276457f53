"""How a trace is made: the first gradient attack of a protocol once more on a few images, with a look at each iterate.

The evaluation is over by then, and nothing of it changes. The attack has the noise that it had there: the same seed,
the same numbers of images, the same draw. So its run is the one that the evaluation made at that ε, where it made one,
but for rounding.

The images are the first survivors and the first broken images in the order of the data, half and half where there are
as many. Clean errors are omitted. The ε is the one that checks examine (:mod:`asgt.evaluation.second_look`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from ..attacks import Attack, State
from ..attacks.attack import delta_norm, is_legal, logit_margin
from ..data import Images
from ..errors import InputError, shown
from ..modes import Classifier, at_least_float32, evaluating
from ..numbers import whole
from ..randomness import SampleKeyed
from .known import STREAMS
from .outcomes import Evaluation
from .protocols import PhasedSearch, Protocol, Search
from .second_look import Samples, SecondLook
from .trace import Trace

__all__ = ["MOST", "checked_trace", "traced"]

MOST = 1000
"""Images of a trace: its file holds every step of each of them."""


@dataclass(frozen=True)
class _Traced:
    """An attack of a search, and the first draw of its noise in the evaluation."""

    search: Search
    attack: Attack
    draw: int


def checked_trace(count: int, protocol: Protocol, samples: int | None = None) -> int:
    """Refuses a trace that cannot be made.

    Args:
        count: how many images.
        protocol: what evaluates.
        samples: how many images are evaluated, where that is known.

    Returns:
        The count as a plain number.

    Raises:
        InputError: there are not so many images, or no attack has steps that follow a gradient.
    """

    count = whole(count, "trace")
    if not 1 <= count <= MOST:
        raise InputError(f"trace = {shown(count)}: a trace is of 1 to {MOST:,} images")
    if samples is not None and count > samples:
        raise InputError(f"trace = {count}: {samples} images are evaluated, trace at most so many")
    if all(_first(search.finders) is None for search in protocol.searches):
        raise InputError(
            f"trace = {count}: protocol {protocol.key} has no attack of several gradient steps to trace; omit trace, "
            "or evaluate by pgd or standard"
        )
    return count


def traced(
    model: nn.Module | Classifier, images: Images, evaluation: Evaluation, count: int, *, batch_size: int
) -> Trace | None:
    """The trace of an evaluation; ``None`` where the model gets no image right.

    Args:
        model: the model.
        images: the images that were evaluated.
        evaluation: what was found.
        count: how many images are traced, at most.
        batch_size: images per pass.
    """

    look = SecondLook(model, images, evaluation, False, batch_size)
    told = _choice(evaluation, look.level)
    rows, survived = _chosen(evaluation.clean, evaluation.outcomes[told.search.name][look.level], count)
    if not len(rows):
        return None
    with evaluating(model):
        parts = [_run(model, told, part, look.eps, evaluation.seed) for part in look.taken(rows).split(batch_size)]
    return Trace(
        asked=count,
        search=told.search.name,
        attack=told.attack.described(),
        eps=look.eps,
        norm=evaluation.norm,
        final=not evaluation.protocol.worst_case,
        rows=rows,
        survived=survived,
        **{name: torch.cat([part[name] for part in parts]) for name in parts[0]},
    )


def _choice(evaluation: Evaluation, level: int) -> _Traced:
    """The search whose attack is traced: of several, the one that leaves the fewest images right at an ε."""

    searches = [search.among(evaluation.classes) for search in evaluation.protocol.searches]
    candidates = [told for search in searches if (told := _attack_of(search, evaluation, level)) is not None]
    return min(candidates, key=lambda told: int(evaluation.outcomes[told.search.name][level].sum()))


def _attack_of(search: Search, evaluation: Evaluation, level: int) -> _Traced | None:
    """The attack of a search that is traced, a single run; ``None`` where it has none."""

    attacks: Sequence[Attack] = search.attacks
    if isinstance(search, PhasedSearch) and not evaluation.discards[search.name].full:
        attacks = search.finders
    if (number := _first(attacks)) is None:
        return None
    if not evaluation.protocol.worst_case:
        return _Traced(search, search.at(evaluation.epsilons[level]).once, 0)
    return _Traced(search, attacks[number].once, number * STREAMS)


def _first(attacks: Sequence[Attack]) -> int | None:
    """The place of the first attack that takes several gradient steps."""

    steps = (attack.uses_gradients and attack.goes_by_steps and attack.once.steps > 1 for attack in attacks)
    return next((place for place, has_steps in enumerate(steps) if has_steps), None)


def _chosen(clean: Tensor, right: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The images of a trace, int64 (M,), and which of them survive, bool (M,)."""

    survivors, broken = (clean & right).nonzero().squeeze(1), (clean & ~right).nonzero().squeeze(1)
    kept = min(len(survivors), count - min(count // 2, len(broken)))
    survivors, broken = survivors[:kept], broken[: count - kept]
    survived = torch.zeros(len(survivors) + len(broken), dtype=torch.bool)
    survived[: len(survivors)] = True
    return torch.cat([survivors, broken]), survived


def _run(model: Classifier, told: _Traced, part: Samples, eps: float, seed: int) -> dict[str, Tensor]:
    """The attack on some images, with a look at each iterate: tensors (B, T + 1) by their names."""

    noise = SampleKeyed(seed, part.rows.to(part.y.device), told.draw)
    state = told.attack.start(model, part.x, part.y, eps, generator=noise)
    looks = [_looked(told.attack, state)]
    for _ in range(told.attack.once.steps):
        state = told.attack.step(state)
        looks.append(_looked(told.attack, state))
    return {name: torch.stack([look[name] for look in looks], dim=1).cpu() for name in looks[0]}


def _looked(attack: Attack, state: State) -> dict[str, Tensor]:
    """What is recorded of the current iterates, each (B,); the state stays as it is."""

    losses: Callable[[Tensor], Tensor] = partial(attack.losses, state)
    gradient, logits = state.gradient(losses)
    exact = at_least_float32(logits)
    with torch.no_grad():
        loss = losses(exact)
    delta = state.x_adv - state.x
    asked = replace(state, fooled=torch.zeros_like(state.fooled)).judged(logits)
    return {
        "loss": loss.float(),
        "margin": logit_margin(exact, state.label).float(),
        "distance": delta_norm(delta, attack.norm).float(),
        "gradient": gradient.flatten(1).double().norm(dim=1).float(),
        "fooled": asked.fooled & is_legal(state.x_adv, state.x, state.eps, attack.norm),
    }
