r"""Auto-PGD: projected gradient ascent with momentum, whose step size adapts to the progress.

.. math:: Z^{t+1} = \Pi \big( X^t + \eta_t \, g_t \big), \qquad
          X^{t+1} = \Pi \big( X^t + \alpha (Z^{t+1} - X^t) + (1 - \alpha) (X^t - X^{t-1}) \big)

where :math:`g_t` is the direction of steepest ascent of the loss L, α = 1 in the first step and 0.75 after it, and
:math:`\eta_0 = 2 \epsilon`. At checkpoints :math:`w_j`, ever closer together, η is halved if since the last one

1. the loss rose in no more than ρ = 0.75 of the steps, or
2. neither η nor the highest loss so far has changed;

the search then continues from the iterate of highest loss. L is the cross-entropy or, towards a class t, the difference
of logits ratio, which does not change when the logits are shifted or scaled:

.. math:: \mathrm{DLR}_t(z, y) = - \frac{z_y - z_t}{z_{\pi_1} - \tfrac12 (z_{\pi_3} + z_{\pi_4})},
          \qquad z_{\pi_1} \ge z_{\pi_2} \ge \dots

It needs four classes. Below that it is only :math:`z_t - z_y`: with two classes the ratio is constant for any scale
of the logits, and with three it is constant if t is the least likely class.

A targeted attack (``targeted=True``) leads to the classes t that its call is given. L is then the negative
cross-entropy to t, or the targeted ratio from y, the class that the model gives X, to t. Success is the prediction of
t.

The iterates are those of the authors' own package to rounding, one slip included: it compares the loss after the first
step with zero, not with the loss at the start, when it counts for condition 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, ask, at_least_float32, differentiable
from ..randomness import Generator, normal_like, uniform_like
from .attack import Attack, Norm, State, per_sample, project, steepest

__all__ = ["APGD", "APGDState", "momentum_step", "targeted_dlr"]

RHO = 0.75
MOMENTUM = 0.75


@dataclass(frozen=True, kw_only=True)
class APGDState(State):
    """The state of Auto-PGD; every sample has its own checkpoints.

    Attributes:
        target: the class that the targeted ratio is about, int64 (B,); None for the cross-entropy.
        previous: the iterate before ``x_adv``, of the shape of ``x``.
        loss: the loss at ``previous``, (B,); zero before the second step.
        best: the iterate of highest loss so far, of the shape of ``x``.
        best_loss: its loss (B,); minus infinity before the first step, or if all losses were NaN.
        best_gradient: the gradient there, of the shape of ``x``.
        step_size: η, (B,).
        window: steps between the last checkpoint and the next, int64 (B,).
        since: steps since the last checkpoint, int64 (B,).
        rises: the number of those in which the loss rose, int64 (B,).
        checked_loss: ``best_loss`` at the last checkpoint, (B,).
        halved: whether η was halved there, bool (B,).
        left: the class that the targeted ratio leads away from, int64 (B,). Default: the label. Of a targeted attack,
            whose ``y`` is the target, the class that the model gives ``x``.
    """

    target: Tensor | None
    previous: Tensor
    loss: Tensor
    best: Tensor
    best_loss: Tensor
    best_gradient: Tensor
    step_size: Tensor
    window: Tensor
    since: Tensor
    rises: Tensor
    checked_loss: Tensor
    halved: Tensor
    left: Tensor | None = None

    def losses(self, logits: Tensor) -> Tensor:
        """The loss (B,) to maximise, from logits (B, K)."""

        if self.target is None:
            loss = F.cross_entropy(logits, differentiable(self.y), reduction="none")
            return -loss if self.targeted else loss

        return targeted_dlr(logits, self.label if self.left is None else self.left, self.target)


def momentum_step(state: State, previous: Tensor, gradient: Tensor, length: Tensor, norm: Norm) -> Tensor:
    """The iterate after a step of a length (B,) along the gradient, with momentum on the iterate, in ball and box.

    Args:
        state: the state of the attack; the first step has no momentum.
        previous: the iterate before the current one, of the shape of the images.
        gradient: of the same shape.
        length: the step's length, (B,).
        norm: the norm of ε.
    """

    def back(x_adv: Tensor) -> Tensor:
        return project(x_adv, state.x, state.eps, norm)

    ahead = back(state.x_adv + per_sample(length, state.x) * steepest(gradient, norm))
    share = per_sample(torch.where(state.iteration == 0, 1.0, MOMENTUM).to(state.x), state.x)
    return back(state.x_adv + share * (ahead - state.x_adv) + (1.0 - share) * (state.x_adv - previous))


def targeted_dlr(logits: Tensor, label: Tensor, target: Tensor) -> Tensor:
    """The targeted difference of logits ratio (B,) of logits (B, K), towards classes (B,) from labels (B,).

    Below four classes it is only the difference of logits.
    """

    label, target = (differentiable(index)[:, None] for index in (label, target))
    margin = (logits.gather(1, label) - logits.gather(1, target)).squeeze(1)
    if logits.shape[1] < 4:
        return -margin
    largest = logits.topk(4, dim=1).values
    scale = largest[:, 0] - 0.5 * (largest[:, 2] + largest[:, 3]) + 1e-12
    # Fewer than four classes are left where others are masked out by minus infinity: as in adapted().
    left = scale.isfinite()
    return torch.where(left, -margin / torch.where(left, scale, 1.0), -margin)


def class_by_rank(logits: Tensor, label: Tensor, rank: int) -> Tensor:
    """The wrong class of a rank, int64 (B,), of logits (B, K) and labels (B,); rank 1 is the most likely one.

    Raises:
        InputError: the model has fewer wrong classes.
    """

    wrong = logits.shape[1] - 1
    if rank > wrong:
        raise InputError(
            f"target = {rank}: a model of {wrong + 1} classes has only {wrong} wrong ones: give a smaller target"
        )
    others = logits.scatter(1, label[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, rank - 1]


def check_rank(target: int) -> None:
    """Refuses a rank below 1."""

    if target < 1:
        raise InputError(f"target = {target}: give a rank from 1, the most likely wrong class")


@dataclass(frozen=True, repr=False)
class APGD(Attack):
    """Auto-PGD on the cross-entropy or the targeted DLR loss, in L∞ or L2.

    It returns, for each sample, the first iterate that fools the model, or else the iterate with the highest loss. A
    targeted one returns the first iterate that reaches the target, or else the iterate nearest to it by its loss.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: gradient steps, of which the checkpoints are fixed shares.
        loss: ``"ce"``, or ``"dlr-targeted"``, which is adapted below four classes.
        target: which wrong class ``"dlr-targeted"`` aims at, by rank of the clean logits; 1 is the most likely. The
            authors' ensemble takes 1 to 9, or to K − 1 if that is less.
        targeted: call it with target classes in place of the labels. Success is the prediction of the target.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.APGD(eps=0.1, steps=10, loss="dlr-targeted")(model, x, y)
        >>> x_adv.shape, bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
        (torch.Size([4, 1, 8, 8]), True)

    References:
        Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", https://arxiv.org/abs/2003.01690 (Algorithm 1, equations 3 and 7)
    """

    steps: int = 100
    loss: Literal["ce", "dlr-targeted"] = "ce"
    target: int = 1

    stored_as: ClassVar[dict[str, str]] = {"target": "target_class"}
    takes_targets: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rank(self.target)
        if self.loss == "ce" and self.target != 1:
            raise InputError(f"target = {self.target}: the cross-entropy aims at no class; 'dlr-targeted' does")
        if self.targeted and self.target != 1:
            raise InputError(f"target = {self.target}: with targeted=True the call gives the classes, omit target")

    @property
    def starts_at_random(self) -> bool:
        return True

    @property
    def title(self) -> str:
        if self.targeted:
            return f"targeted APGD-{'CE' if self.loss == 'ce' else 'DLR'}"
        return "APGD-CE" if self.loss == "ce" else f"APGD-T, class {self.target}"

    @property
    def least_classes(self) -> int:
        """Four for the DLR loss: below that it is only the plain difference of logits."""

        return 4 if self.loss == "dlr-targeted" else 2

    def possible(self, classes: int) -> bool:
        return self.loss == "ce" or self.target < classes

    @property
    def group(self) -> str:
        return repr(replace(self, target=1))

    def described(self, count: int = 1) -> str:
        if self.targeted or self.loss == "ce":
            return f"{self.title} ({self.steps} steps)"
        return f"APGD-T ({self.steps} steps on each of {count} targets)"

    def start(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> APGDState:
        """The state before the first step. ``"dlr-targeted"`` takes a forward pass on ``x``, to rank its targets.

        Raises:
            InputError: the model has fewer wrong classes than ``target``.
        """

        if init is None:
            radius = torch.as_tensor(eps, dtype=x.dtype, device=x.device)
            init = x + per_sample(radius, x) * self._noise(x, generator)
        state = super().start(model, x, y, eps, init=init)

        target, left = (None, None) if self.loss == "ce" else self._classes(state)
        fresh = at_least_float32(torch.full_like(state.eps, -torch.inf))
        return APGDState(
            **vars(state),
            target=target,
            previous=state.x_adv,
            loss=torch.zeros_like(fresh),
            best=state.x_adv,
            best_loss=fresh,
            best_gradient=torch.zeros_like(state.x),
            step_size=2.0 * state.eps,
            window=torch.full_like(state.iteration, max(int(0.22 * self.steps), 1)),
            since=state.iteration,
            rises=state.iteration,
            checked_loss=fresh,
            halved=torch.ones_like(state.fooled),
            left=left,
        )

    def step(self, state: State) -> APGDState:
        assert isinstance(state, APGDState)
        gradient, logits = state.gradient(state.losses)
        # A NaN must not move a sample out of its ball.
        gradient = gradient.nan_to_num(nan=0.0)
        state = self._better(state.judged(logits), logits, gradient)
        state, gradient = self._checked(state, gradient)
        x_adv = momentum_step(state, state.previous, gradient, state.step_size, self.norm)
        return replace(state, x_adv=x_adv, previous=state.x_adv, iteration=state.iteration + 1)

    def losses(self, state: State, logits: Tensor) -> Tensor:
        assert isinstance(state, APGDState)
        return state.losses(logits)

    @torch.no_grad()
    def result(self, state: State) -> Tensor:
        """For each sample, the first iterate that fools the model, or else that of highest loss, (B, C, H, W).

        One forward pass: the model has not been evaluated at the last iterate yet.
        """

        assert isinstance(state, APGDState)
        logits = ask(state.model, state.x_adv)
        state = self._better(state.judged(logits), logits, state.best_gradient)
        return torch.where(per_sample(state.fooled, state.x), state.witness, state.best)

    def _noise(self, x: Tensor, generator: Generator | None) -> Tensor:
        """A random point on the unit sphere of the norm, of the shape of ``x``."""

        if self.norm == "linf":
            noise = 2.0 * uniform_like(x, generator) - 1.0
            length = noise.flatten(1).abs().amax(dim=1)
        else:
            noise = normal_like(x, generator)
            length = noise.flatten(1).norm(dim=1)
        return noise / per_sample(length.clamp_min(1e-12), x)

    @torch.no_grad()
    def _classes(self, state: State) -> tuple[Tensor, Tensor | None]:
        """Where the targeted ratio leads, int64 (B,), and from where, if not from the label."""

        logits = ask(state.model, state.x)
        if self.targeted:
            return state.label, logits.argmax(dim=1)
        return class_by_rank(logits, state.label, self.target), None

    def _better(self, state: APGDState, logits: Tensor, gradient: Tensor) -> APGDState:
        """Counts the step that led to the current iterate, and keeps the iterate if its loss is the highest."""

        loss = state.losses(at_least_float32(logits)).to(state.loss)
        loss = loss.where(~loss.isnan(), -torch.inf)
        moved = state.iteration > 0
        higher = loss > state.best_loss
        best_loss = torch.where(higher, loss, state.best_loss)
        return replace(
            state,
            loss=torch.where(moved, loss, state.loss),
            since=state.since + moved,
            rises=state.rises + (moved & (loss > state.loss)),
            best=torch.where(per_sample(higher, state.x), state.x_adv, state.best),
            best_loss=best_loss,
            best_gradient=torch.where(per_sample(higher, state.x), gradient, state.best_gradient),
            checked_loss=torch.where(moved, state.checked_loss, best_loss),
        )

    def _checked(self, state: APGDState, gradient: Tensor) -> tuple[APGDState, Tensor]:
        """Halves the step and goes back to the best iterate, for the samples whose checkpoint says so."""

        due = state.since == state.window
        few = state.rises <= RHO * state.window
        stuck = ~state.halved & (state.checked_loss >= state.best_loss)
        halve = due & (few | stuck)
        to_best = per_sample(halve, state.x)

        shorter = (state.window - max(int(0.03 * self.steps), 1)).clamp_min(max(int(0.06 * self.steps), 1))
        state = replace(
            state,
            x_adv=torch.where(to_best, state.best, state.x_adv),
            step_size=torch.where(halve, 0.5 * state.step_size, state.step_size),
            window=torch.where(due, shorter, state.window),
            since=state.since.where(~due, 0),
            rises=state.rises.where(~due, 0),
            checked_loss=torch.where(due, state.best_loss, state.checked_loss),
            halved=torch.where(due, halve, state.halved),
        )
        return state, torch.where(to_best, state.best_gradient, gradient)
