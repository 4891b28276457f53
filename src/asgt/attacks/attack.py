r"""The base of all attacks: the call, the stepwise interface, and the geometry of the ball and the box.

An attack is a perturbation :math:`(f, X, y) \mapsto X'` with :math:`\|X' - X\|_p \le \epsilon` and
:math:`X' \in [0, 1]`.

A call runs it to its end. The stepwise interface is :meth:`Attack.start` and :meth:`Attack.step` on a
:class:`State` of batched tensors that can be indexed by sample.
"""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..inputs import (
    check_classes,
    check_target_classes,
    checked,
    checked_labels,
    checked_start,
    is_trusted,
    labels_explained,
    trusted,
)
from ..modes import Classifier, ask, at_least_float32, differentiable, evaluating
from ..numbers import Number, in_float32, number, plain_fields
from ..passes import cross_entropy_gradient, input_gradient, slopes_needed
from ..randomness import Generator, normal_like, uniform_like

__all__ = [
    "Attack",
    "Norm",
    "State",
    "check_alpha",
    "check_eps",
    "check_radii",
    "delta_norm",
    "is_attack",
    "is_attack_class",
    "is_legal",
    "logit_margin",
    "per_sample",
    "project",
    "random_start",
    "refuse_targeted",
    "steepest",
]

Norm: TypeAlias = Literal["linf", "l2"]


@dataclass(frozen=True)
class State:
    """The state of an attack, for each sample of a batch.

    ``state[index]`` returns the samples that ``index`` selects, and :meth:`put` replaces them: every tensor in a state,
    and in the states that attacks derive from it, has the batch as its first dimension.

    Attributes:
        model: the classifier under attack.
        x: the images, (B, C, H, W) in [0, 1].
        y: labels (B,), int64, or class probabilities (B, K); of a targeted attack, the target classes (B,).
        eps: the radius of each sample's ball, (B,).
        x_adv: the current iterate, of the shape of ``x``.
        iteration: the steps that each sample has taken, int64 (B,).
        fooled: whether an iterate that the model has classified was a success, bool (B,): misclassified, or, in a
            targeted attack, given the target class. A step classifies the iterate it starts from, so the one that it
            ends at is not covered before the next.
        witness: the first such iterate; where there is none, ``x``.
        momentum: the accumulated gradient of momentum attacks, of the shape of ``x``.
        targeted: whether ``y`` is what the model is to answer, and the cross-entropy is to fall.
    """

    model: Classifier
    x: Tensor
    y: Tensor
    eps: Tensor
    x_adv: Tensor
    iteration: Tensor
    fooled: Tensor
    witness: Tensor
    momentum: Tensor | None = None
    targeted: bool = False

    def __getitem__(self, index: Tensor) -> Self:
        return replace(self, **{name: value[index] for name, value in self._tensors().items()})

    def put(self, index: Tensor, other: Self) -> Self:
        """The state in which the samples at ``index`` are those of ``other``, a state of the same attack and model.

        This refills a batch: finished samples are replaced by others, whose counters start at zero.
        """

        filled: dict[str, Any] = {
            name: value.index_put((index,), getattr(other, name)) for name, value in self._tensors().items()
        }
        return replace(self, **filled)

    def joined(self, other: Self) -> Self:
        """The samples of this state and then those of ``other``, a state of the same attack and model, as one batch."""

        both: dict[str, Any] = {
            name: torch.cat([value, getattr(other, name)]) for name, value in self._tensors().items()
        }
        return replace(self, **both)

    @property
    def label(self) -> Tensor:
        """The class (B,) of ``y``; of probabilities, the most likely."""

        return self.y if self.y.ndim == 1 else self.y.argmax(dim=1)

    def gradient(self, loss: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """The gradient of each sample's loss at the current iterate, and the logits it was taken at.

        Only the gradient to the input is computed: no parameter's ``grad`` is touched, and none is computed.

        Args:
            loss: from logits (B, K), in float32 or better, to losses (B,). Default: the cross-entropy; of a targeted
                attack its negative, so that a step that goes up goes towards the target.

        Returns:
            The gradient, of the shape of ``x``, and the logits (B, K), detached.
        """

        if loss is None:
            gradient, logits = cross_entropy_gradient(self.model, self.x_adv, self.y)
            return -gradient if self.targeted else gradient, logits
        return input_gradient(self.model, self.x_adv, lambda logits: loss(logits).sum())

    def judged(self, logits: Tensor) -> Self:
        """The state with the model's output at the current iterate, ``logits`` (B, K)."""

        if self.y.ndim == 2 and self.y.shape[1] != logits.shape[1]:
            raise InputError(f"y has the shape {tuple(self.y.shape)}: the model has {logits.shape[1]} classes")
        # The largest of the logits is NaN if any of them is, and a NaN is never a success.
        largest, predicted = logits.max(dim=1)
        fools = ((predicted == self.label) if self.targeted else (predicted != self.label)) & ~largest.isnan()
        first = fools & ~self.fooled
        return replace(
            self,
            fooled=self.fooled | fools,
            witness=torch.where(per_sample(first, self.x), self.x_adv, self.witness),
        )

    def _tensors(self) -> dict[str, Any]:
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}


@dataclass(frozen=True)
class Attack(ABC):
    """A perturbation within a ball of radius ``eps`` and within the box [0, 1].

    Attacks are immutable and have no state between calls. The label ``y`` may be a class index per sample (B,) or class
    probabilities (B, K): the gradient of the cross-entropy to fixed probabilities p is that of KL(p ‖ f(X')), which is
    how TRADES attacks.

    A new attack implements :meth:`step`, and :meth:`start` if its state has more than a :class:`State`. The
    properties and methods below define its restarts, its cost, its doubled effort and its description; their defaults
    suit an attack of gradient steps.

    Args:
        eps: the radius in units of the pixels' range [0, 1], as in ``8/255``; a string such as ``"8/255"`` is accepted.
            Default: none; then each call must pass one. An evaluation passes those of its grid.
        norm: ``"linf"`` or ``"l2"``.
        steps: how many steps it takes.
        targeted: whether a call takes target classes in place of the labels, and the model is to answer them. An attack
            class that can do so sets :attr:`takes_targets`.

    Raises:
        InputError: ``eps``, ``norm`` or ``steps`` is invalid, or the attack is defined untargeted only.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> import asgt
        >>> from asgt.attacks.attack import steepest
        >>> @dataclass(frozen=True)
        ... class Nudge(asgt.Attack):
        ...     steps: int = 4
        ...     def step(self, state):
        ...         gradient, logits = state.gradient()
        ...         return self.moved(state.judged(logits), steepest(gradient, self.norm), state.eps / self.steps)
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> Nudge(eps=0.1)(model, torch.rand(4, 1, 8, 8), torch.randint(10, (4,))).shape
        torch.Size([4, 1, 8, 8])
    """

    eps: float | None = None

    norm: Norm = "linf"
    steps: int = 1
    targeted: bool = field(default=False, kw_only=True, repr=False)

    norms: ClassVar[tuple[Norm, ...]] = ("linf", "l2")
    """The norms of the attack."""

    takes_targets: ClassVar[bool] = False
    """Whether it has a targeted form."""

    later: ClassVar[tuple[str, ...]] = ("targeted",)
    """Fields that were added later. Evidence knows attacks by their ``repr``, which has these fields only where they
    differ from their default: what was measured before keeps its key."""

    def __repr__(self) -> str:
        shown = (
            each.name
            for each in fields(self)
            if each.repr or (each.name in self.later and getattr(self, each.name) != each.default)
        )
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __post_init__(self) -> None:
        plain_fields(self)
        if self.eps is not None:
            check_eps(self.eps, self.norm)
        if self.steps < 1:
            raise InputError(f"steps = {self.steps}: give at least one step")
        if not isinstance(self.targeted, bool):
            raise InputError(f"targeted = {self.targeted!r}: True or False; the target classes come in the call")
        if self.targeted and not self.takes_targets:
            raise InputError(
                f"{type(self).__name__} is defined untargeted only: omit targeted, or use PGD, MIFGSM or APGD"
            )

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        eps: Number | Tensor | None = None,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Attacks a batch, in evaluation mode; modes, gradients and the model's buffers are unchanged.

        Args:
            model: the classifier, images (B, C, H, W) in [0, 1] to logits (B, K).
            x: images (B, C, H, W) in [0, 1], as a tensor or a numpy array.
            y: labels (B,) of any integer type, or class probabilities (B, K). A targeted attack takes the target
                classes (B,), each another than the one that the model predicts already.
            eps: another radius for this call, one for all samples or one each (B,). Default: the attack's own.
            init: where to start, of the shape of ``x``; projected first. Default: as the attack says.
            generator: where a random start comes from. Default: PyTorch's global generator.

        Returns:
            The perturbed images, detached, of the shape of ``x``.

        Raises:
            InputError: images, labels, targets or ε are invalid, or the model does not return logits (B, K).
        """

        radius = self.radius if eps is None else eps if isinstance(eps, Tensor) else number(eps, "eps")
        if is_trusted():
            return self.attacked(model, x, y, radius, init, generator)
        if self.targeted:
            y = checked_labels(y, len(x), soft=False, name="targets")
        x, y = checked(x, y)
        if isinstance(radius, Tensor):
            check_radii(radius, len(x), self.norm)
        if init is not None:
            init = checked_start(init, x)
        with trusted(), labels_explained(model, x, y), slopes_needed(self.uses_gradients):
            if self.targeted:
                check_target_classes(model, x, y)
            elif not self.computes_losses:
                check_classes(model, x, y)
            return self.attacked(model, x, y, radius, init, generator)

    def attacked(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        init: Tensor | None,
        generator: Generator | None,
    ) -> Tensor:
        """Runs a call on checked images and labels, with all restarts.

        Each sample keeps the iterate that fools the model, or else the one of highest loss; of a targeted attack, the
        one that reaches the target, or else the one of lowest loss. ``init`` is the start of the first run alone.
        """

        x_adv = self._run(model, x, y, eps, init=init, generator=generator)
        if self.restarts == 1:
            return x_adv

        worst = _hardness(model, x_adv, y, self.targeted)
        for _ in range(self.restarts - 1):
            again = self._run(model, x, y, eps, init=None, generator=generator)
            hardness = _hardness(model, again, y, self.targeted)
            x_adv = torch.where(per_sample(hardness > worst, x), again, x_adv)
            worst = torch.maximum(hardness, worst)
        return x_adv

    def _run(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None,
        generator: Generator | None,
    ) -> Tensor:
        """One run: start, all steps, result."""

        with evaluating(model):
            state = self.start(model, x, y, eps, init=init, generator=generator)
            for _ in range(self.steps):
                state = self.step(state)
            return self.result(state)

    def start(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> State:
        """The state before the first step. The caller of the steps puts the model in evaluation mode."""

        if not isinstance(eps, Tensor):
            check_eps(eps, self.norm)
        x = x.detach()
        eps = torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(x.shape[0])

        if init is not None:
            x_adv = project(init.detach(), x, eps, self.norm)
        elif self.starts_at_random:
            x_adv = random_start(x, eps, self.norm, generator)
        else:
            x_adv = x

        iteration = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        fooled = iteration.bool()
        return State(model, x, y, eps, x_adv, iteration=iteration, fooled=fooled, witness=x, targeted=self.targeted)

    @abstractmethod
    def step(self, state: State) -> State:
        """One gradient, one step, one projection."""

    def losses(self, state: State, logits: Tensor) -> Tensor:
        """The loss (B,) that the steps raise, of logits (B, K) in float32 or better at the current iterate.

        Default: the cross-entropy; of a targeted attack, its negative. An attack of another loss says so here, for
        those who look at its course.
        """

        loss = F.cross_entropy(logits, differentiable(state.y), reduction="none")
        return -loss if state.targeted else loss

    def result(self, state: State) -> Tensor:
        """The output of the attack after its steps, of the shape of ``x``: the last iterate."""

        return state.x_adv

    # What others ask of an attack -------------------------------------------------------------------------------------

    @property
    def radius(self) -> float:
        """The attack's ε.

        Raises:
            InputError: it has none.
        """

        if self.eps is None:
            raise InputError(f"{self.title} has no eps: pass one, such as eps=8/255, to the attack or to the call")
        return self.eps

    @property
    def restarts(self) -> int:
        """The number of independent runs of a call."""

        return 1

    @property
    def once(self) -> Attack:
        """The attack with a single run."""

        return self

    def in_norm(self, norm: Norm) -> Attack:
        """The attack in a norm.

        Raises:
            InputError: it is not defined in it.
        """

        if norm not in self.norms:
            raise InputError(
                f"{self.title} is defined in {' and '.join(self.norms)} only, not in {norm}: use another norm or attack"
            )
        return self if norm == self.norm else replace(self, norm=norm)

    def with_alpha(self, alpha: float) -> Attack:
        """The attack with this constant step size, if its step size can be set."""

        return self

    @property
    def reach(self) -> float | None:
        """The largest ε that constant steps can cross; ``None`` if the step size grows with ε.

        From X, the steps must cross ε; from a random start they may have to cross the whole ball, 2 ε.
        """

        return None

    def doubled(self) -> Attack | None:
        """The attack with twice its effort; ``None`` without a setting for it."""

        return replace(self, steps=2 * self.steps)

    @property
    def gradients(self) -> int:
        """The number of gradients for a sample that it does not break, over all restarts."""

        return self.steps * self.restarts if self.uses_gradients else 0

    @property
    def least_classes(self) -> int:
        """The number of classes that its loss needs; for fewer it is adapted."""

        return 2

    def adapted(self, classes: int) -> bool:
        """Whether it differs from its authors' version against a model of so many classes."""

        return classes < self.least_classes

    def possible(self, classes: int) -> bool:
        """Whether a model of so many classes has the target of the attack."""

        return True

    @property
    def goes_by_steps(self) -> bool:
        """Whether a caller may stop between two steps; if not, it is called as one function."""

        return True

    @property
    def mixes(self) -> bool:
        """Whether one call of such an attack may have samples of different radii."""

        return False

    @property
    def is_one_step(self) -> bool:
        """Whether it takes a single gradient step: a model can be robust to such a step only."""

        return self.steps == 1 and self.uses_gradients and self.goes_by_steps

    @property
    def one_gradient(self) -> bool:
        """Whether it moves by ε along the gradient at X, so that one gradient is enough for every ε."""

        return False

    @property
    def identity(self) -> str:
        """Its key in stored evidence; empty if it cannot be distinguished from others of its kind."""

        # Attacks of somebody else may have the name of another one.
        kind = type(self)
        return f"{kind.__module__}:{kind.__qualname__}:{self!r}" if self.is_external else repr(self)

    @property
    def is_external(self) -> bool:
        """Whether its code is external to asgt."""

        return not type(self).__module__.startswith("asgt.")

    @property
    def has_a_target(self) -> bool:
        """Whether it aims at one class of each sample, which need not be within reach."""

        return False

    @property
    def keeps_margin(self) -> bool:
        """Whether its state has a ``margin``: the smallest so far of the label's logit over the largest other."""

        return False

    @property
    def group(self) -> str:
        """The key for :func:`asgt.attacks.describe`: attacks of the same group are described together."""

        return repr(self)

    def described(self, count: int = 1) -> str:
        """Describes the attack with its effort, or all ``count`` attacks of its group."""

        return f"{self.title} ({self.steps} steps)"

    @property
    def asks_eps(self) -> bool:
        """Whether its result depends on ε; if not, one call for a sample is enough for every ε."""

        return True

    @property
    def starts_at_random(self) -> bool:
        """Whether :meth:`start` draws its first iterate."""

        return False

    @property
    def uses_gradients(self) -> bool:
        """Whether a step computes a gradient, or only a forward pass."""

        return True

    @property
    def computes_losses(self) -> bool:
        """Whether it computes a loss or a margin of its labels, which fails if the model has no logit for one."""

        return True

    @property
    def title(self) -> str:
        """Its name in tables."""

        return type(self).__name__

    def moved(self, state: State, direction: Tensor, alpha: Tensor, momentum: Tensor | None = None) -> State:
        """The state after a step of length ``alpha`` (B,) along ``direction``, projected back."""

        x_adv = state.x_adv + per_sample(alpha, state.x) * direction
        return replace(
            state,
            x_adv=project(x_adv, state.x, state.eps, self.norm),
            iteration=state.iteration + 1,
            momentum=momentum,
        )


def is_attack(value: object) -> TypeGuard[Attack]:
    """Whether a value is an :class:`asgt.Attack`, which has the stepwise interface."""

    return isinstance(value, Attack)


@torch.no_grad()
def _hardness(model: Classifier, x_adv: Tensor, y: Tensor, targeted: bool) -> Tensor:
    """Orders iterates (B,): any success above any that is none, then by the loss, of which a target wants little."""

    with evaluating(model):
        logits = at_least_float32(ask(model, x_adv))

    label = y if y.ndim == 1 else y.argmax(dim=1)
    loss = F.cross_entropy(logits, y, reduction="none")
    if targeted:
        reached = (logits.argmax(dim=1) == label) & ~logits.isnan().any(dim=1)
        return 1e7 * reached - torch.nan_to_num(loss, nan=2e6, posinf=1e6).clamp_max(2e6)
    # A NaN is no success: it must never win over a finite loss.
    loss = torch.nan_to_num(loss, nan=-1.0).clamp_max(1e6)
    return loss + 1e7 * ((logits.argmax(dim=1) != label) & ~logits.isnan().any(dim=1))


def refuse_targeted(attack: Attack | None, where: str) -> None:
    """Refuses a targeted attack where the labels are what an attack leads away from.

    Raises:
        InputError: it is targeted.
    """

    if attack is not None and attack.targeted:
        raise InputError(f"{attack.title} aims at a target class: {where} takes untargeted attacks, omit targeted")


def is_attack_class(value: Any) -> bool:
    """Whether a value is a class of attacks that can be created: no base class."""

    return isinstance(value, type) and issubclass(value, Attack) and not inspect.isabstract(value)


def check_eps(eps: float, norm: str = "linf") -> None:
    """Refuses an invalid radius.

    Raises:
        InputError: it is negative, not finite, or, in L∞, beyond the range of the pixels.
    """

    if not math.isfinite(eps) or eps < 0:
        raise InputError(f"eps = {eps}: give a finite number, zero or more")
    in_float32(eps, "eps")
    if norm == "linf" and eps > 1:
        raise InputError(f"eps = {eps:g} in L∞ is beyond the pixels' range [0, 1]: write {eps:g}/255 if you mean that")


def check_radii(eps: Tensor, count: int, norm: str = "linf") -> None:
    """Refuses an invalid tensor of radii: one for all samples, or one each (B,).

    Raises:
        InputError: its shape is wrong, or a radius is negative, not finite or, in L∞, beyond the pixels' range.
    """

    if tuple(eps.shape) not in ((), (count,)):
        raise InputError(f"eps has the shape {tuple(eps.shape)}: pass one radius, or one for each of {count} images")
    for end in eps.detach().float().aminmax() if eps.numel() else ():
        check_eps(float(end), norm)


def check_alpha(alpha: float | None, norm: str = "linf") -> None:
    """Refuses an invalid step size.

    Raises:
        InputError: it is not a positive number, or, in L∞, beyond the range of the pixels.
    """

    if alpha is not None and not 0 < alpha < math.inf:
        raise InputError(f"alpha = {alpha}: give a positive number")
    if alpha is not None and norm == "linf" and alpha > 1:
        raise InputError(
            f"alpha = {alpha:g} in L∞ is beyond the pixels' range [0, 1]: write {alpha:g}/255 if you mean that"
        )


def delta_norm(delta: Tensor, norm: Norm) -> Tensor:
    """The norm of each perturbation (B, …), (B,)."""

    flat = delta.flatten(1)
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


def is_legal(x_adv: Tensor, x: Tensor, eps: float | Tensor, norm: Norm) -> Tensor:
    """Whether attacked images lie in the ball of radius ``eps``, a number or (B,), to rounding, and in the box.

    Returns:
        bool (B,); False for an image with NaN.
    """

    flat = x_adv.flatten(1)
    return ((flat >= 0) & (flat <= 1)).all(dim=1) & (delta_norm(x_adv - x, norm) <= eps * (1 + 1e-5) + 1e-6)


def logit_margin(logits: Tensor, label: Tensor) -> Tensor:
    """The logit of the label minus the largest other (B,): below zero, the model is fooled."""

    index = differentiable(label)[:, None]
    return logits.gather(1, index).squeeze(1) - logits.scatter(1, index, -torch.inf).amax(dim=1)


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Values of shape (B,), shaped to multiply a batch ``x`` (B, …)."""

    return values.view(-1, *[1] * (x.ndim - 1))


def project(x_adv: Tensor, x: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """The nearest point of the ball of radius ``eps`` (B,) around ``x``, clamped to the box [0, 1].

    Clamping moves every coordinate towards ``x``, which lies in the box, so the result stays in the ball.
    """

    delta = x_adv - x
    radius = per_sample(eps, x)

    if norm == "linf":
        delta = torch.minimum(torch.maximum(delta, -radius), radius)
    else:
        length = per_sample(delta.flatten(1).norm(dim=1), x)
        delta = delta * (radius / length.clamp_min(1e-12)).clamp_max(1.0)

    return (x + delta).clamp(0.0, 1.0)


def random_start(x: Tensor, eps: Tensor, norm: Norm, generator: Generator | None) -> Tensor:
    """A point drawn uniformly from the ball of radius ``eps`` (B,) around ``x``, clamped to the box."""

    if norm == "linf":
        delta = 2.0 * uniform_like(x, generator) - 1.0
    else:
        delta = normal_like(x, generator)
        share = uniform_like(x[:, :1].flatten(1)[:, :1], generator)
        length = delta.flatten(1).norm(dim=1, keepdim=True)
        # The volume within radius r grows as r^d.
        delta = delta * per_sample((share ** (1.0 / math.prod(x.shape[1:])) / length.clamp_min(1e-12)).squeeze(1), x)

    return (x + per_sample(eps, x) * delta).clamp(0.0, 1.0)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of steepest ascent of unit length in ``norm``; zero where the gradient is zero."""

    if norm == "linf":
        return gradient.sign()
    # A confident model's gradient can be so small that its square underflows: scaled to its largest value, it does not.
    tiny = torch.finfo(gradient.dtype).tiny
    gradient = gradient / per_sample(gradient.flatten(1).abs().amax(dim=1).clamp_min(tiny), gradient)
    return gradient / per_sample(gradient.flatten(1).norm(dim=1).clamp_min(tiny), gradient)
