"""Each objective against the paper's algorithm, written out slowly: by sample, by pixel, by class."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax
from torch import Tensor, nn

from asgt.attacks import FGSM, MIFGSM, PGD
from asgt.errors import InputError
from asgt.randomness import Generators
from asgt.saliency import SaliencyMask
from asgt.training.objectives import ASGT, AT, SGA, SGT, ST, TRADES, Objective, kl_divergence

KL = Literal["forward", "reverse"]

SAMPLES, CHANNELS, SIDE, CLASSES = 5, 2, 4, 3
EPS, STEPS, ALPHA, FILLED = 0.06, 3, 0.03, 5  # five of sixteen pixels: k = 0.33

ATTACK = PGD(eps=EPS, steps=STEPS, alpha=ALPHA, random_start=False)
MASK = SaliencyMask(k=0.33, fill="mean")


def small_net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 3),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(16, CLASSES),
        ).double()
        with torch.no_grad():
            net[3].weight *= 4.0  # far enough from the uniform distribution for divergences to be seen
    return net


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(SAMPLES, CHANNELS, SIDE, SIDE, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 2, 1, 2, 0])


# ---------------------------------------------------------------------------------------------------------------------
# The slow versions: one sample at a time
# ---------------------------------------------------------------------------------------------------------------------


def logits_of(net: nn.Module, sample: Tensor) -> Tensor:
    return net(sample[None])[0]


def probabilities(logits: Tensor) -> list[Tensor]:
    exponentials = [torch.exp(logits[k]) for k in range(CLASSES)]
    total = exponentials[0] + exponentials[1] + exponentials[2]
    return [value / total for value in exponentials]


def slow_cross_entropy(logits: Tensor, label: int) -> Tensor:
    return -torch.log(probabilities(logits)[label])


def slow_kl(p_logits: Tensor, q_logits: Tensor) -> Tensor:
    p, q = probabilities(p_logits), probabilities(q_logits)
    total = torch.zeros((), dtype=torch.float64)
    for k in range(CLASSES):
        total = total + p[k] * (torch.log(p[k]) - torch.log(q[k]))
    return total


def slow_attack(
    loss_of: Callable[[Tensor], Tensor],
    sample: Tensor,
    *,
    start: Tensor | None = None,
    eps: float = EPS,
    alpha: float = ALPHA,
    steps: int = STEPS,
) -> Tensor:
    """Signed ascent of a loss, with every pixel clipped to its ball and to the box by itself."""

    current = sample.clone() if start is None else start.clone()
    for _ in range(steps):
        current = current.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_of(current), current)
        current, moved = current.detach(), torch.zeros_like(sample)
        for c in range(CHANNELS):
            for h in range(SIDE):
                for w in range(SIDE):
                    slope, pixel = float(gradient[c, h, w]), float(sample[c, h, w])
                    sign = 1.0 if slope > 0 else -1.0 if slope < 0 else 0.0
                    value = float(current[c, h, w]) + alpha * sign
                    value = min(max(value, pixel - eps), pixel + eps)
                    moved[c, h, w] = min(max(value, 0.0), 1.0)
        current = moved
    return current


def slow_mask(net: nn.Module, sample: Tensor, label: int, noise: Tensor | None = None) -> Tensor:
    """Fills the pixels of least |∇ logit| with the channel's mean, or by noise (C, k), the least first."""

    inside = sample.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(logits_of(net, inside)[label], inside)
    scores = {}
    for h in range(SIDE):
        for w in range(SIDE):
            scores[h, w] = sum(abs(float(gradient[c, h, w])) for c in range(CHANNELS)) / CHANNELS
    masked = sample.clone()
    for place, (h, w) in enumerate(sorted(scores, key=scores.__getitem__)[:FILLED]):
        for c in range(CHANNELS):
            values = sample[c].flatten().tolist()
            if noise is None:
                masked[c, h, w] = sum(values) / len(values)
            else:
                masked[c, h, w] = min(values) + (max(values) - min(values)) * float(noise[c, place])
    return masked


Slow = Callable[[nn.Module, Tensor, int], Tensor]
"""The loss of one sample."""


def against_label(net: nn.Module, label: int) -> Callable[[Tensor], Tensor]:
    return lambda sample: slow_cross_entropy(logits_of(net, sample), label)


def slow_divergence(masked: Tensor, clean: Tensor, kl: KL, detach: bool) -> Tensor:
    clean = clean.detach() if detach else clean
    return slow_kl(masked, clean) if kl == "forward" else slow_kl(clean, masked)


def slow_st(net: nn.Module, x: Tensor, y: int) -> Tensor:
    return slow_cross_entropy(logits_of(net, x), y)


def slow_at(clean_weight: float) -> Slow:
    def loss(net: nn.Module, x: Tensor, y: int) -> Tensor:
        x_adv = slow_attack(against_label(net, y), x)
        total = slow_cross_entropy(logits_of(net, x_adv), y)
        return total + clean_weight * slow_cross_entropy(logits_of(net, x), y)

    return loss


def slow_sgt(weight: float, kl: KL, detach: bool) -> Slow:
    def loss(net: nn.Module, x: Tensor, y: int) -> Tensor:
        x_masked = slow_mask(net, x, y)
        clean = logits_of(net, x)
        return slow_cross_entropy(clean, y) + weight * slow_divergence(logits_of(net, x_masked), clean, kl, detach)

    return loss


def slow_sga(weight: float, kl: KL, detach: bool) -> Slow:
    def loss(net: nn.Module, x: Tensor, y: int) -> Tensor:
        x_masked = slow_mask(net, x, y)
        x_masked_adv = slow_attack(against_label(net, y), x_masked)
        clean = logits_of(net, x)
        return slow_cross_entropy(clean, y) + weight * slow_divergence(logits_of(net, x_masked_adv), clean, kl, detach)

    return loss


def slow_asgt(weight: float, kl: KL, detach: bool) -> Slow:
    def loss(net: nn.Module, x: Tensor, y: int) -> Tensor:
        x_adv = slow_attack(against_label(net, y), x)
        x_adv_masked = slow_mask(net, x_adv, y)
        clean = logits_of(net, x)
        total = slow_cross_entropy(clean, y) + slow_cross_entropy(logits_of(net, x_adv), y)
        return total + weight * slow_divergence(logits_of(net, x_adv_masked), clean, kl, detach)

    return loss


def slow_asgt_unmasked(net: nn.Module, x: Tensor, y: int) -> Tensor:
    x_adv = slow_attack(against_label(net, y), x)
    clean, attacked = logits_of(net, x), logits_of(net, x_adv)
    both = slow_cross_entropy(clean, y) + slow_cross_entropy(attacked, y)
    return both + 1.7 * slow_divergence(attacked, clean, "forward", False)


def mean_with_gradients(net: nn.Module, x: Tensor, y: Tensor, slow: Slow) -> tuple[Tensor, list[Tensor]]:
    losses = [slow(net, x[i], int(y[i])) for i in range(len(x))]
    total = losses[0]
    for loss in losses[1:]:
        total = total + loss
    mean = total / len(x)
    return mean.detach(), list(torch.autograd.grad(mean, list(net.parameters())))


def with_gradients(
    net: nn.Module, x: Tensor, y: Tensor, objective: Objective, **settings: object
) -> tuple[Tensor, list[Tensor]]:
    net.zero_grad()
    loss = objective(net, x, y, **settings).loss  # type: ignore[arg-type]
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]


def assert_equal(ours: tuple[Tensor, list[Tensor]], theirs: tuple[Tensor, list[Tensor]]) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)
    assert len(ours[1]) == len(theirs[1])
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
        assert other.abs().max() > 1e-3, "a gradient that is nearly zero compares nothing"


VARIANTS: list[tuple[KL, bool]] = [("forward", False), ("reverse", False), ("forward", True), ("reverse", True)]
CASES = [
    pytest.param(ST(), slow_st, id="st"),
    pytest.param(AT(ATTACK), slow_at(0.0), id="at"),
    pytest.param(AT(ATTACK, clean_weight=0.5), slow_at(0.5), id="at-clean"),
    *[
        pytest.param(make(kl, detach), slow(1.7, kl, detach), id=f"{name}-{kl}{'-detached' * detach}")
        for name, make, slow in [
            ("sgt", lambda kl, detach: SGT(mask=MASK, weight=1.7, kl=kl, detach_clean=detach), slow_sgt),
            ("sga", lambda kl, detach: SGA(attack=ATTACK, mask=MASK, weight=1.7, kl=kl, detach_clean=detach), slow_sga),
            (
                "asgt",
                lambda kl, detach: ASGT(attack=ATTACK, mask=MASK, weight=1.7, kl=kl, detach_clean=detach),
                slow_asgt,
            ),
        ]
        for kl, detach in VARIANTS
    ],
    pytest.param(ASGT(attack=ATTACK, mask=SaliencyMask(k=0), weight=1.7), slow_asgt_unmasked, id="asgt-without-a-mask"),
]


@pytest.mark.parametrize(("objective", "slow"), CASES)
def test_an_objective_equals_its_algorithm_written_out(objective: Objective, slow: Slow) -> None:
    net, (x, y) = small_net(), batch()

    assert_equal(with_gradients(net, x, y, objective), mean_with_gradients(net, x, y, slow))


def test_the_variants_differ_by_more_than_the_tolerance() -> None:
    """Else a comparison above could pass for the wrong variant."""

    net, (x, y) = small_net(), batch()
    found = [with_gradients(net, x, y, case.values[0]) for case in CASES]  # type: ignore[arg-type]

    for i, one in enumerate(found):
        for other in found[:i]:
            apart = max(float((a - b).abs().max()) for a, b in zip(one[1], other[1], strict=True))
            assert apart > 1e-4


@pytest.mark.parametrize(
    ("attack", "eps", "alpha", "steps"),
    [(FGSM(eps=0.05), 0.05, 0.05, 1), (PGD(eps=0.05, steps=4, random_start=False), 0.05, 2.5 * 0.05 / 4, 4)],
)
def test_adversarial_training_takes_any_attack(attack: FGSM | PGD, eps: float, alpha: float, steps: int) -> None:
    net, (x, y) = small_net(), batch()

    def slow(net: nn.Module, x: Tensor, y: int) -> Tensor:
        x_adv = slow_attack(against_label(net, y), x, eps=eps, alpha=alpha, steps=steps)
        return slow_cross_entropy(logits_of(net, x_adv), y)

    assert_equal(with_gradients(net, x, y, AT(attack)), mean_with_gradients(net, x, y, slow))


def test_asgt_with_random_start_and_uniform_fill_equals_its_algorithm_given_the_same_draws() -> None:
    net, (x, y) = small_net(), batch()
    objective = ASGT(
        attack=PGD(eps=EPS, steps=STEPS, alpha=ALPHA, random_start=True),
        mask=SaliencyMask(k=0.33, fill="uniform"),
        weight=0.4,
    )
    kick = torch.rand(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    noise = torch.rand(*x.shape[:2], FILLED, dtype=x.dtype, generator=torch.Generator().manual_seed(2))
    starts = (x + EPS * (2 * kick - 1)).clamp(0, 1)

    losses = []
    for i in range(SAMPLES):
        label = int(y[i])
        x_adv = slow_attack(against_label(net, label), x[i], start=starts[i])
        clean = logits_of(net, x[i])
        loss = slow_cross_entropy(clean, label) + slow_cross_entropy(logits_of(net, x_adv), label)
        losses.append(loss + 0.4 * slow_kl(logits_of(net, slow_mask(net, x_adv, label, noise[i])), clean))
    mean = sum(losses[1:], start=losses[0]) / SAMPLES
    theirs = mean.detach(), list(torch.autograd.grad(mean, list(net.parameters())))

    generators = Generators(attack=torch.Generator().manual_seed(1), mask=torch.Generator().manual_seed(2))
    assert_equal(with_gradients(net, x, y, objective, generator=generators), theirs)


# ---------------------------------------------------------------------------------------------------------------------
# TRADES
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 6.0])
def test_trades_equals_its_algorithm_written_out(beta: float) -> None:
    net, (x, y) = small_net(), batch()
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))

    losses = []
    for i in range(SAMPLES):
        clean = logits_of(net, x[i])
        held = clean.detach()

        def divergence(sample: Tensor, held: Tensor = held) -> Tensor:
            return slow_kl(held, logits_of(net, sample))

        start = (x[i] + 0.001 * noise[i]).clamp(0, 1)
        x_adv = slow_attack(divergence, x[i], start=start)
        losses.append(slow_cross_entropy(clean, int(y[i])) + beta * slow_kl(clean, logits_of(net, x_adv)))
    mean = sum(losses[1:], start=losses[0]) / SAMPLES
    theirs = mean.detach(), list(torch.autograd.grad(mean, list(net.parameters())))

    ours = with_gradients(net, x, y, TRADES(attack=ATTACK, beta=beta), generator=torch.Generator().manual_seed(4))
    assert_equal(ours, theirs)


def test_the_gradient_of_trades_is_zero_at_the_images_so_it_starts_beside_them_and_moves() -> None:
    net, (x, y) = small_net(), batch()
    x = 0.2 + 0.6 * x  # the box stops no step
    held = [logits_of(net, sample).detach() for sample in x]

    def slope(points: Tensor) -> float:
        steepest = []
        for p, point in zip(held, points, strict=True):
            inside = point.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(slow_kl(p, logits_of(net, inside)), inside)
            steepest.append(float(gradient.abs().max()))
        return min(steepest)

    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(4))
    assert slope(x) < 1e-14
    assert slope(x + 0.001 * noise) > 1e-6

    # one step of 0.05 from a start 0.001·N(0, 1) away leads every pixel about 0.05 away
    out = views_of(
        TRADES(attack=PGD(eps=0.1, steps=1, alpha=0.05)), net, x, y, generator=torch.Generator().manual_seed(4)
    )
    distance = (out[1] - x).abs()
    assert distance.min() > 0.05 - 0.001 * 5
    assert distance.max() < 0.05 + 0.001 * 5


def test_the_inner_attack_of_trades_climbs_the_gradient_of_the_divergence() -> None:
    net, (x, _) = small_net(), batch()
    held = net(x).detach()
    away = x + 0.1 * torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))

    state = PGD(eps=1.0).start(net, x, held.softmax(dim=1).float(), 1.0, init=away)
    gradient, _ = state.gradient()

    for i in range(SAMPLES):
        inside = away[i].clamp(0, 1).requires_grad_()
        (expected,) = torch.autograd.grad(slow_kl(held[i], logits_of(net, inside)), inside)
        torch.testing.assert_close(gradient[i], expected, rtol=0, atol=1e-6)
        assert expected.abs().max() > 1e-3


def test_trades_ignores_the_restarts_of_its_attack() -> None:
    net, (x, y) = small_net(), batch()
    one, three = (TRADES(attack=PGD(eps=0.05, steps=1, alpha=0.01, restarts=n)) for n in (1, 3))

    a = views_of(one, net, x, y, generator=torch.Generator().manual_seed(4))
    b = views_of(three, net, x, y, generator=torch.Generator().manual_seed(4))

    assert torch.equal(a[1], b[1])


def test_trades_ignores_the_random_start_of_its_attack() -> None:
    net, (x, y) = small_net(), batch()

    losses = [
        TRADES(attack=replace(ATTACK, random_start=start))(
            net, x, y, generator=torch.Generator().manual_seed(4)
        ).loss.item()
        for start in (True, False)
    ]

    assert losses[0] == losses[1]


# ---------------------------------------------------------------------------------------------------------------------
# Order: who attacks first
# ---------------------------------------------------------------------------------------------------------------------


def views_of(objective: Objective, net: nn.Module, x: Tensor, y: Tensor, **settings: object) -> list[Tensor]:
    """What the model sees in training mode: the views that the loss is made of, in order."""

    seen: list[Tensor] = []
    handle = net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    try:
        objective(net, x, y, **settings)  # type: ignore[arg-type]
    finally:
        handle.remove()
    return seen


def test_asgt_attacks_then_masks() -> None:
    net, (x, y) = small_net(), batch()
    x = 0.2 + 0.6 * x

    clean, attacked, masked = views_of(ASGT(attack=ATTACK, mask=SaliencyMask(k=0.33, fill="zero")), net, x, y)

    assert torch.equal(clean, x)
    hidden = (masked == 0).all(dim=1)
    assert hidden.sum(dim=(1, 2)).tolist() == [FILLED] * SAMPLES
    # what is not hidden is the attacked image, bit by bit: nothing moved after the mask
    assert torch.equal(masked, attacked.masked_fill(hidden[:, None], 0.0))
    assert (attacked - x).abs().max() == pytest.approx(EPS)


def test_sgt_without_a_mask_is_standard_training() -> None:
    net, (x, y) = small_net(), batch()

    assert_equal(with_gradients(net, x, y, SGT(mask=SaliencyMask(k=0))), mean_with_gradients(net, x, y, slow_st))


def test_asgt_with_a_random_mask_hides_as_many_features_elsewhere() -> None:
    net, (x, y) = small_net(), batch()
    x = 0.2 + 0.6 * x

    def hidden(rank: str, seed: int) -> tuple[Tensor, Tensor]:
        mask = SaliencyMask(k=0.33, fill="zero", rank=rank)  # type: ignore[arg-type]
        generators = Generators(mask=torch.Generator().manual_seed(seed))
        _, attacked, masked = ASGT(attack=ATTACK, mask=mask).views(net, x, y, None, generators).values()
        places = (masked == 0).all(dim=1)
        assert torch.equal(masked, attacked.masked_fill(places[:, None], 0.0))
        assert places.sum(dim=(1, 2)).tolist() == [FILLED] * SAMPLES
        return places, attacked

    (by_rank, attacked), (drawn, same), (other, _) = hidden("magnitude", 0), hidden("random", 0), hidden("random", 1)
    # The mask is all that differs.
    assert torch.equal(attacked, same)
    assert len({tuple(places.flatten().tolist()) for places in (by_rank, drawn, other)}) == 3


def test_sga_masks_then_attacks() -> None:
    net, (x, y) = small_net(), batch()
    x = 0.2 + 0.6 * x

    clean, attacked = views_of(SGA(attack=ATTACK, mask=MASK), net, x, y)

    assert torch.equal(clean, x)
    masked = torch.stack([slow_mask(net, x[i], int(y[i])) for i in range(SAMPLES)])
    # what is hidden moved too, and everything stays in the ball around the masked image
    hidden = (masked != x).all(dim=1, keepdim=True).expand_as(x)
    assert ((attacked - masked).abs()[hidden] > 0.5 * ALPHA).any()
    assert (attacked - masked).abs().max() == pytest.approx(EPS)
    assert (attacked - x).abs().max() > 2 * EPS


# ---------------------------------------------------------------------------------------------------------------------
# The divergence
# ---------------------------------------------------------------------------------------------------------------------


def test_kl_divergence_equals_scipy() -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (3 * torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))

    expected = rel_entr(softmax(p.numpy(), axis=1), softmax(q.numpy(), axis=1)).sum(axis=1).mean()

    assert kl_divergence(p, q).item() == pytest.approx(float(expected), abs=1e-12)
    assert kl_divergence(q, p).item() != pytest.approx(float(expected), abs=1e-3)
    assert kl_divergence(p, p).item() == pytest.approx(0.0, abs=1e-15)


def test_kl_divergence_by_hand_has_the_masked_side_first() -> None:
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()

    assert kl_divergence(p, q).item() == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), abs=1e-6)


def test_kl_divergence_of_extreme_logits_is_finite() -> None:
    p = torch.tensor([[1e4, 0.0], [0.0, 0.0]], requires_grad=True)
    q = torch.tensor([[0.0, 1e4], [1e4, 0.0]], requires_grad=True)

    divergence = kl_divergence(p, q)
    divergence.backward()

    # rows: 1e4, and log(1/2) + 1e4/2
    assert divergence.item() == pytest.approx((1e4 + 5e3 - math.log(2)) / 2, rel=1e-6)
    assert np.isfinite(p.grad.numpy()).all()
    assert np.isfinite(q.grad.numpy()).all()


# ---------------------------------------------------------------------------------------------------------------------
# The call
# ---------------------------------------------------------------------------------------------------------------------

PLAIN_MASK = SaliencyMask(k=0.33)
RANDOM = PGD(eps=EPS, steps=2, alpha=EPS / 4)  # short steps: where it ends depends on where it started
EVERY = [
    pytest.param(ST(), ["clean"], id="st"),
    pytest.param(AT(RANDOM), ["adversarial"], id="at"),
    pytest.param(AT(RANDOM, clean_weight=0.5), ["adversarial", "clean"], id="at-clean"),
    pytest.param(AT(MIFGSM(eps=EPS, steps=2)), ["adversarial"], id="at-mifgsm"),
    pytest.param(TRADES(RANDOM), ["clean", "consistency"], id="trades"),
    pytest.param(SGT(mask=PLAIN_MASK), ["clean", "consistency"], id="sgt"),
    pytest.param(SGA(attack=RANDOM, mask=PLAIN_MASK), ["clean", "consistency"], id="sga"),
    pytest.param(ASGT(attack=RANDOM, mask=PLAIN_MASK), ["clean", "adversarial", "consistency"], id="asgt"),
]


@pytest.mark.parametrize(("objective", "names"), EVERY)
def test_the_loss_is_the_sum_of_its_named_terms(objective: Objective, names: list[str]) -> None:
    net, (x, y) = small_net(), batch()

    out = objective(net, x, y)

    assert set(out.terms) == set(names)
    assert out.loss.shape == ()
    assert out.loss.item() == pytest.approx(sum(term.item() for term in out.terms.values()), abs=1e-12)
    assert all(logits.shape == (SAMPLES, CLASSES) for logits in out.logits.values())


@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_terms_carry_their_weight(weight: float) -> None:
    net, (x, y) = small_net(), batch()

    def term(objective: Objective) -> float:
        return objective(net, x, y, generator=torch.Generator().manual_seed(0)).terms["consistency"].item()

    for make in (
        lambda w: SGT(mask=PLAIN_MASK, weight=w),
        lambda w: SGA(attack=RANDOM, mask=PLAIN_MASK, weight=w),
        lambda w: ASGT(attack=RANDOM, mask=PLAIN_MASK, weight=w),
        lambda w: TRADES(attack=RANDOM, beta=w),
    ):
        assert term(make(weight)) == pytest.approx(weight * term(make(1.0)), abs=1e-12)
        assert term(make(1.0)) > 1e-4


def test_the_logits_are_those_of_each_view() -> None:
    net, (x, y) = small_net(), batch()
    out = ASGT(attack=ATTACK, mask=MASK)(net, x, y)
    views = views_of(ASGT(attack=ATTACK, mask=MASK), net, x, y)

    for name, view in zip(["clean", "adversarial", "masked"], views, strict=True):
        assert torch.equal(out.logits[name], net(view))


ATTACKING: list[Callable[[float], Objective]] = [
    lambda eps: AT(PGD(eps=eps, steps=2)),
    lambda eps: TRADES(PGD(eps=eps, steps=2)),
    lambda eps: SGA(attack=PGD(eps=eps, steps=2), mask=PLAIN_MASK),
    lambda eps: ASGT(attack=PGD(eps=eps, steps=2), mask=PLAIN_MASK),
]


@pytest.mark.parametrize("make", ATTACKING, ids=["at", "trades", "sga", "asgt"])
def test_eps_overrides_the_attacks_own(make: Callable[[float], Objective]) -> None:
    net, (x, y) = small_net(), batch()

    def loss(objective: Objective, eps: float | None) -> float:
        return objective(net, x, y, eps=eps, generator=torch.Generator().manual_seed(0)).loss.item()

    assert loss(make(0.2), 0.03) == loss(make(0.03), None)
    assert loss(make(0.2), 0.03) != loss(make(0.2), None)


@pytest.mark.parametrize("start", [True, False])
def test_eps_zero_makes_adversarial_training_standard(start: bool) -> None:
    """The first steps of a ramp: 0 is a radius, not the absence of one."""

    net, (x, y) = small_net(), batch()

    out = AT(PGD(eps=0.2, steps=2, random_start=start))(net, x, y, eps=0.0)

    assert out.loss.item() == pytest.approx(ST()(net, x, y).loss.item(), abs=1e-12)


def test_an_attack_raises_the_loss() -> None:
    net, (x, y) = small_net(), batch()

    assert AT(ATTACK)(net, x, y).loss > ST()(net, x, y).loss + 0.01


# ---------------------------------------------------------------------------------------------------------------------
# Randomness
# ---------------------------------------------------------------------------------------------------------------------


def test_the_masks_stream_leaves_the_attacks_noise_alone() -> None:
    net, (x, y) = small_net(), batch()
    objective = ASGT(attack=RANDOM, mask=PLAIN_MASK)

    a, b, c = (
        views_of(
            objective,
            net,
            x,
            y,
            generator=Generators(torch.Generator().manual_seed(attack), torch.Generator().manual_seed(mask)),
        )
        for attack, mask in [(1, 2), (1, 3), (4, 2)]
    )

    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[2], b[2])
    assert not torch.equal(a[1], c[1])


def test_what_the_attack_draws_leaves_the_masks_noise_alone() -> None:
    """With ε = 0 the attacked image is the image, however much noise the attack has drawn for it."""

    net, (x, y) = small_net(), batch()

    def masked(restarts: int, generator: torch.Generator | Generators) -> Tensor:
        objective = ASGT(attack=PGD(eps=0.1, steps=1, restarts=restarts), mask=PLAIN_MASK)
        return views_of(objective, net, x, y, eps=0.0, generator=generator)[2]

    def two() -> Generators:
        return Generators(attack=torch.Generator().manual_seed(1), mask=torch.Generator().manual_seed(2))

    assert torch.equal(masked(1, two()), masked(3, two()))
    # one generator for both is shared in turn: this is what the two streams are for
    one, three = (masked(n, torch.Generator().manual_seed(1)) for n in (1, 3))
    assert not torch.equal(one, three)


@pytest.mark.parametrize(("objective", "names"), EVERY)
def test_a_generator_decides_everything_and_the_global_one_is_left_alone(
    objective: Objective, names: list[str]
) -> None:
    net, (x, y) = small_net(), batch()
    before = torch.get_rng_state()

    first, again = (objective(net, x, y, generator=torch.Generator().manual_seed(6)).loss.item() for _ in range(2))

    assert first == again
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------------------------------------
# Modes
# ---------------------------------------------------------------------------------------------------------------------


class BombError(Exception):
    pass


class Bomb(nn.Module):
    """Raises in evaluation mode, on its n-th call there: inside an attack or a mask."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            self.left -= 1
            if self.left == 0:
                raise BombError
        return x


def delicate_net(bomb: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = nn.Sequential(
            nn.Conv2d(CHANNELS, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Dropout(0.5),
            Bomb(bomb),
            nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
            nn.Flatten(),
            nn.Linear(16, CLASSES),
        ).double()
    net.train()
    net[5][1].eval()  # a frozen BatchNorm
    return net


@contextmanager
def same_modes(net: nn.Module) -> Iterator[None]:
    before = {name: module.training for name, module in net.named_modules()}
    yield
    assert {name: module.training for name, module in net.named_modules()} == before


@pytest.mark.parametrize(
    ("objective", "passes"),
    [
        (ST(), 1),
        (AT(RANDOM), 1),
        (AT(RANDOM, clean_weight=0.5), 2),
        (TRADES(RANDOM), 2),
        (SGT(mask=PLAIN_MASK), 2),
        (SGA(attack=RANDOM, mask=PLAIN_MASK), 2),
        (ASGT(attack=RANDOM, mask=PLAIN_MASK), 3),
    ],
)
def test_only_the_losss_own_passes_train_the_batch_norm(objective: Objective, passes: int) -> None:
    net, (x, y) = delicate_net(), batch()
    frozen = {name: value.clone() for name, value in net[5][1].state_dict().items()}

    with same_modes(net):
        objective(net, x, y)

    assert int(net[1].num_batches_tracked) == passes
    assert not torch.equal(net[1].running_mean, torch.zeros(4, dtype=torch.float64))
    assert all(torch.equal(value, frozen[name]) for name, value in net[5][1].state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_the_views_are_made_in_evaluation_mode_and_the_loss_in_training_mode() -> None:
    """In training mode dropout makes two losses of the same views; the views themselves do not differ."""

    net, (x, y) = delicate_net(), batch()
    objective = ASGT(attack=ATTACK, mask=MASK)
    seen = [views_of(objective, net, x, y) for _ in range(2)]

    # the statistics have moved in between, the images are attacked by them: hold them still
    net[1].momentum = 0.0
    first, second = (views_of(objective, net, x, y) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(seen[0][1], first[1])
    assert objective(net, x, y).loss.item() != objective(net, x, y).loss.item()
    net.eval()
    assert objective(net, x, y).loss.item() == objective(net, x, y).loss.item()


@pytest.mark.parametrize(
    ("objective", "call"),
    [
        (AT(RANDOM), 2),
        (TRADES(RANDOM), 1),  # the clean probabilities
        (TRADES(RANDOM), 3),
        (SGT(mask=PLAIN_MASK), 1),
        (SGA(attack=RANDOM, mask=PLAIN_MASK), 2),
        (ASGT(attack=RANDOM, mask=PLAIN_MASK), 1),
        (ASGT(attack=RANDOM, mask=PLAIN_MASK), 3),  # inside the mask
    ],
)
def test_modes_come_back_when_the_model_raises_in_a_view(objective: Objective, call: int) -> None:
    net, (x, y) = delicate_net(bomb=call), batch()

    with same_modes(net), pytest.raises(BombError):
        objective(net, x, y)


# ---------------------------------------------------------------------------------------------------------------------
# Bad values
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda w: AT(RANDOM, clean_weight=w),
        lambda w: TRADES(RANDOM, beta=w),
        lambda w: SGT(mask=PLAIN_MASK, weight=w),
        lambda w: SGA(attack=RANDOM, mask=PLAIN_MASK, weight=w),
        lambda w: ASGT(attack=RANDOM, mask=PLAIN_MASK, weight=w),
    ],
    ids=["at", "trades", "sgt", "sga", "asgt"],
)
def test_a_weight_that_cannot_be_meant_is_refused(make: Callable[[float], Objective], weight: float) -> None:
    with pytest.raises(InputError, match=r"clean_weight|beta|weight"):
        make(weight)


@pytest.mark.parametrize(
    "make",
    [
        lambda kl: SGT(mask=PLAIN_MASK, kl=kl),
        lambda kl: SGA(attack=RANDOM, mask=PLAIN_MASK, kl=kl),
        lambda kl: ASGT(attack=RANDOM, mask=PLAIN_MASK, kl=kl),
    ],
    ids=["sgt", "sga", "asgt"],
)
def test_an_unknown_direction_of_the_divergence_is_refused(make: Callable[[str], Objective]) -> None:
    with pytest.raises(InputError):
        make("foward")
