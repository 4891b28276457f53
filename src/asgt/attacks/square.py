r"""Square Attack: random search over squares, with forward passes only.

From the point X' of lowest margin so far, evaluate a point that differs from it in one random square, and move
there if the margin falls:

.. math:: \mathrm{margin}(X') = f_y(X') - \max_{k \ne y} f_k(X')

The square's area is a share p of the image, which halves with the number of queries, from 0.8 down to 0.8/512.

L∞
    The start is X + ε·(±1), one sign for each channel and column. In the square, X' moves by 2ε·(±1), one sign for each
    channel, and is projected back, so that most coordinates remain at X ± ε.
L2
    The start is a tiling of X by five times five bumps, scaled to length ε. In the square, the perturbation is bent
    towards a new bump, and it is given the mass that it had there, the mass of a second square, which is wiped out,
    and the unused part of the box. A bump is a pyramid and its negative, side by side or one above the other:

    .. math:: h(r, c) \propto \sum_{k = d}^{m} \frac{1}{(k + 1)^2}, \qquad d = \max(|r - r_0|, |c - c_0|)

The shares are the authors' for any number of queries, as in their AutoAttack: a short search ends on larger squares.
:class:`RescaledSquare` compresses them to its number of queries, which is an option of their package.
Here each sample draws its own place and signs, from noise that is keyed by the sample and its own counter; their
package draws once for a whole batch. It also omits the last row and column of places, unlike their paper: on 8 × 8
pixels this raises robust accuracy by five points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, ask, at_least_float32
from ..randomness import Generator, keyed_uniform, keys_like
from .attack import Attack, State, logit_margin, per_sample, project

__all__ = ["LocalSquare", "RescaledSquare", "Square", "SquareState"]

P_INIT = 0.8
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The number of squares before p halves; from the paper, for 10,000 queries."""

QUERIES = 10_000
"""The number of queries that the paper's halvings are for."""


@dataclass(frozen=True, kw_only=True)
class SquareState(State):
    """The state of Square Attack. ``x_adv`` is the point of lowest margin so far, or the first that fools the model.

    The model has been evaluated at it, except at the start: here ``fooled`` covers every step.

    Attributes:
        key: the key of each sample's noise, with its ``iteration``; int64 (B,).
        margin: the margin at ``x_adv``, (B,); infinity before the first query.
    """

    key: Tensor
    margin: Tensor


@dataclass(frozen=True)
class Square(Attack):
    """Square Attack on the margin, in L∞ or L2. It needs no gradient.

    A fooled sample does not move; further queries do not change it.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: queries, the one about the start included.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.Square(eps=0.1, steps=50)(model, x, y)
        >>> x_adv.shape, bool((x_adv - x).abs().max() <= 0.1 + 1e-6)
        (torch.Size([4, 1, 8, 8]), True)

    References:
        Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search",
        https://arxiv.org/abs/1912.00049
    """

    steps: int = 5000

    @property
    def starts_at_random(self) -> bool:
        return True

    @property
    def uses_gradients(self) -> bool:
        return False

    @property
    def keeps_margin(self) -> bool:
        return True

    def described(self, count: int = 1) -> str:
        return f"Square ({self.steps:,} queries)"

    def start(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor,
        *,
        init: Tensor | None = None,
        generator: Generator | None = None,
    ) -> SquareState:
        """The state before the first query. Each sample draws a key, which determines its noise."""

        key = keys_like(x, generator)
        if init is None:
            pattern = _stripes(x, key) if self.norm == "linf" else _tiles(x, key)
            init = x + per_sample(torch.as_tensor(eps, dtype=x.dtype, device=x.device), x) * pattern
        state = super().start(model, x, y, eps, init=init)
        return SquareState(**vars(state), key=key, margin=at_least_float32(torch.full_like(state.eps, torch.inf)))

    @torch.no_grad()
    def step(self, state: State) -> SquareState:
        """One query; the first is at the start."""

        assert isinstance(state, SquareState)
        tried = self._varied_linf(state) if self.norm == "linf" else self._varied_l2(state)
        tried = torch.where(per_sample(state.iteration == 0, state.x), state.x_adv, tried)

        logits = ask(state.model, tried)
        asked = replace(state, x_adv=tried).judged(logits)
        margin = logit_margin(at_least_float32(logits), state.label).to(state.margin)
        better = ~state.fooled & (asked.fooled | (margin < state.margin))
        return replace(
            asked,
            x_adv=torch.where(per_sample(better, state.x), tried, state.x_adv),
            margin=torch.where(better, margin, state.margin),
            iteration=state.iteration + 1,
        )

    def _side(self, state: SquareState, smallest: int) -> Tensor:
        """The side of each sample's next square, int64 (B,)."""

        sides = _sides(*state.x.shape[2:], smallest, state.x.device)
        return sides[(state.iteration - 1).clamp(0, len(sides) - 1)]

    def _varied_linf(self, state: SquareState) -> Tensor:
        x = state.x
        noise = keyed_uniform(state.key, state.iteration, 2 + x.shape[1])
        inside, _, _ = _place(x, self._side(state, smallest=1), noise[:, :2])

        move = 2.0 * per_sample(state.eps, x) * _signs(noise[:, 2:], x)[:, :, None, None]
        return project(state.x_adv + inside * move, x, state.eps, "linf")

    def _varied_l2(self, state: SquareState) -> Tensor:
        x, eps = state.x, per_sample(state.eps, state.x)
        noise = keyed_uniform(state.key, state.iteration, 5 + x.shape[1])
        side = self._side(state, smallest=3)
        here, row, column = _place(x, side, noise[:, :2])
        there, _, _ = _place(x, side, noise[:, 2:4])

        turned = (noise[:, 4] > 0.5)[:, None, None]
        bump = _bump(torch.where(turned, column, row), torch.where(turned, row, column), here[:, 0], side, x.dtype)
        bump = bump[:, None] * _signs(noise[:, 5:], x)[:, :, None, None]

        delta = state.x_adv - x
        bent = here * (bump + delta / (_length(here * delta) + 1e-12))
        unused = (eps.square() - delta.square().sum(dim=(1, 2, 3), keepdim=True)).clamp_min(0.0)
        mass = _length((here | there) * delta).square() + unused / x.shape[1]
        bent = bent * (mass.sqrt() / (_length(bent) + 1e-12))

        delta = torch.where(here, bent, delta.where(~there, 0.0))
        return (x + eps * _unit(delta)).clamp(0.0, 1.0)


@dataclass(frozen=True)
class LocalSquare(Square):
    """Square Attack from a good start: it skips the first queries, whose squares are large.

    Give the start as ``init``. From an iterate that an attack by gradients has found, large squares seldom help.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: queries, the one about the start included.
        skipped: the queries that the schedule of sizes omits.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> first = asgt.PGD(eps=0.1, steps=5)(model, x, y)
        >>> x_adv = asgt.LocalSquare(eps=0.1, steps=50, skipped=20)(model, x, y, init=first)
        >>> x_adv.shape
        torch.Size([4, 1, 8, 8])

    References:
        Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search",
        https://arxiv.org/abs/1912.00049
    """

    steps: int = 1000
    skipped: int = 400

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.skipped < 0:
            raise InputError(f"skipped = {self.skipped}: the number of queries to omit is zero or more")

    @property
    def title(self) -> str:
        return "local Square"

    def described(self, count: int = 1) -> str:
        return f"local Square ({self.steps:,} queries, without the first {self.skipped:,} sizes)"

    def _side(self, state: SquareState, smallest: int) -> Tensor:
        return super()._side(replace(state, iteration=state.iteration + self.skipped), smallest)


@dataclass(frozen=True)
class RescaledSquare(Square):
    """Square Attack whose schedule of sizes is compressed to its number of queries, so that it ends on small squares.

    After a share of its queries, the squares are as large as after the same share of the paper's 10,000. With fewer
    queries than that, it breaks more than :class:`Square`.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        steps: queries, the one about the start included.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: a setting is invalid, such as a negative ``eps``; or, in a call, the images, labels or model do
            not match.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.RescaledSquare(eps=0.1, steps=50)(model, x, y)
        >>> x_adv.shape
        torch.Size([4, 1, 8, 8])

    References:
        Andriushchenko et al. 2020, "Square Attack: a query-efficient black-box adversarial attack via random search",
        https://arxiv.org/abs/1912.00049
    """

    steps: int = 2500

    @property
    def title(self) -> str:
        return "rescaled Square"

    def described(self, count: int = 1) -> str:
        return f"rescaled Square ({self.steps:,} queries)"

    def _side(self, state: SquareState, smallest: int) -> Tensor:
        passed = QUERIES * (state.iteration - 1) // self.steps
        return super()._side(replace(state, iteration=passed + 1), smallest)


@lru_cache(maxsize=32)
def _sides(height: int, width: int, smallest: int, device: torch.device) -> Tensor:
    """The side of every square up to the last halving: a copy to the device at each step would hold it up."""

    areas = [P_INIT / 2**n * height * width for n in range(len(HALVINGS) + 1)]
    sides = [max(round(math.sqrt(area)), smallest) for area in areas]
    if smallest > 1:
        sides = [side | 1 for side in sides]  # so that a bump has a middle
    passed = torch.bucketize(torch.arange(HALVINGS[-1] + 2), torch.tensor(HALVINGS))
    return torch.tensor(sides).clamp_max(min(height, width))[passed].to(device)


def _place(x: Tensor, side: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Squares at uniform places: which pixels are inside, bool (B, 1, H, W), and their rows and columns in the square.

    Rows (B, H, W) and columns (B, H, W) run from 0 to ``side`` − 1 inside; outside they are clamped to that.
    """

    height, width = x.shape[2:]
    last = side - 1

    def along(length: int, share: Tensor) -> Tensor:
        begin = (share * (length - last)).long()
        return torch.arange(length, device=x.device) - begin[:, None]

    row = along(height, noise[:, 0])[:, :, None].expand(-1, height, width)
    column = along(width, noise[:, 1])[:, None, :].expand(-1, height, width)
    last = last[:, None, None]
    inside = (row >= 0) & (row <= last) & (column >= 0) & (column <= last)
    return inside[:, None], row.clamp_min(0).minimum(last), column.clamp_min(0).minimum(last)


def _bump(row: Tensor, column: Tensor, inside: Tensor, side: Tensor, dtype: torch.dtype) -> Tensor:
    """A pyramid above its negative in each square, of norm one, (B, H, W); where the side is one, only the negative.

    Args:
        row: the pixels' rows in the square, (B, H, W).
        column: their columns, (B, H, W).
        inside: which pixels belong to the square; the others get zero.
        side: the square's side, (B,).
        dtype: the type of the values.
    """

    side = side[:, None, None]
    upper = side // 2
    above = row < upper
    middle = torch.where(above, upper // 2, upper + (side - upper) // 2)
    distance = torch.maximum((row - middle).abs(), (column - side // 2).abs())

    terms = torch.arange(1, max(row.shape[1:]) + 1, device=row.device).to(dtype) ** -2.0
    sums = terms.cumsum(0)
    value = sums[side // 2] - sums[distance] + terms[distance]

    halves = torch.stack([inside & above, inside & ~above]) * value
    halves = halves / halves.square().sum(dim=(2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    bump = halves[0] - halves[1]
    return bump / bump.square().sum(dim=(1, 2), keepdim=True).sqrt()


def _stripes(x: Tensor, key: Tensor) -> Tensor:
    """The L∞ start around zero: a sign for each channel and column, (B, C, 1, W)."""

    batch, channels, _, width = x.shape
    noise = keyed_uniform(key, torch.zeros_like(key), channels * width)
    return _signs(noise, x).view(batch, channels, 1, width)


def _tiles(x: Tensor, key: Tensor) -> Tensor:
    """The L2 start around zero: bumps side by side, turned at random, a sign for each and each channel; of norm one."""

    batch, channels, height, width = x.shape
    side = max(min(height, width) // 5, 1)
    top, left = max(height - 5 * side, 0) // 2, max(width - 5 * side, 0) // 2
    down, across = (height - top) // side, (width - left) // side

    noise = keyed_uniform(key, torch.zeros_like(key), (1 + channels) * down * across)
    noise = noise.view(batch, 1 + channels, down, across)
    noise = noise.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)

    row, column = torch.meshgrid(*[torch.arange(side, device=x.device)] * 2, indexing="ij")
    whole = torch.ones_like(row, dtype=torch.bool)
    (bump,) = _bump(row[None], column[None], whole[None], torch.full_like(row[:1, 0], side), x.dtype)
    bumps = torch.where(noise[:, :1] > 0.5, bump.T.repeat(down, across), bump.repeat(down, across))

    delta = torch.zeros_like(x)
    delta[:, :, top : top + down * side, left : left + across * side] = bumps * _signs(noise[:, 1:], x)
    return _unit(delta)


def _signs(noise: Tensor, x: Tensor) -> Tensor:
    """±1 of the type of ``x`` for uniform values."""

    return torch.where(noise < 0.5, -1.0, 1.0).to(x)


def _length(delta: Tensor) -> Tensor:
    """The L2 norm of each channel, (B, C, 1, 1)."""

    return delta.square().sum(dim=(2, 3), keepdim=True).sqrt()


def _unit(delta: Tensor) -> Tensor:
    """The perturbation scaled to L2 norm one; zero stays zero."""

    return delta / per_sample(delta.flatten(1).norm(dim=1) + 1e-12, delta)
