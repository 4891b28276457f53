r"""Probe and press: a search along the gradient of the margin, the first step of every worst case.

**Probe** takes a few steps along the gradient of the margin, with a radius of each sample's own that shrinks when the
model is fooled and otherwise follows the linear estimate of the boundary's distance, margin / ‖∇margin‖. What it finds
is a witness and an upper bound of ε*.

**Press** takes a witness, scaled down to the next ε of the grid, towards the corner of the ball where the linearised
margin is least, as long as that is low enough: one gradient can show that it is not. Where it fools the model again,
it continues with the next ε.

References:
    Pintor et al. 2021, "Fast minimum-norm adversarial attacks through adaptive norm constraints",
    https://arxiv.org/abs/2102.12827: the radius that follows the boundary.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..attacks import Norm, State
from ..attacks.attack import delta_norm, logit_margin, per_sample, project, steepest
from ..modes import Classifier, at_least_float32

__all__ = ["PRESS_STEPS", "PROBE_STEPS", "levels_below", "press", "probe"]

PROBE_STEPS = 10
"""Gradients that the probe spends on each sample."""

PRESS_STEPS = 4
"""Gradients that a witness may take to reach the next smaller ε."""

_TOLERANCE = 1e-6
_SHRINK = 0.3
# By the linear estimate: how much of the way to the corner may be missing, and how far beyond the boundary to go.
_SLACK, _BEYOND = 0.7, 1.5


def probe(model: Classifier, x: Tensor, y: Tensor, norm: Norm, top: float) -> tuple[Tensor, Tensor, Tensor]:
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


def press(
    model: Classifier, x: Tensor, y: Tensor, witnesses: Tensor, *, grid: Tensor, levels: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Looks for witnesses within smaller and smaller radii of the grid, each from the previous one, scaled down.

    Args:
        model: the classifier.
        x: images (B, C, H, W).
        y: labels (B,).
        witnesses: images that fool the model, of the shape of ``x``.
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
        levels = levels.index_put((down,), levels_below(grid, delta_norm(here[fooled] - centre[fooled], norm)))

        corner = project(centre - per_sample(eps, x) * steepest(gradient, norm), centre, eps, norm)
        gain = (gradient * (here - corner)).flatten(1).sum(dim=1)
        near = ~fooled & (_SLACK * gain > margin) & (tries[going] < PRESS_STEPS)
        share = (_BEYOND * margin / gain.clamp_min(torch.finfo(x.dtype).tiny)).clamp(0.0, 1.0)
        x_adv[going[near]] = (here + per_sample(share, x) * (corner - here))[near]
        down = down[levels[down] > 0]
        going = torch.cat([going[near], down])
    return best, steps, last


def levels_below(grid: Tensor, norms: Tensor) -> Tensor:
    """How many ε of a grid lie below a norm (B,), to rounding."""

    return torch.searchsorted(grid, (norms * (1 - 10 * _TOLERANCE) - _TOLERANCE).contiguous())
