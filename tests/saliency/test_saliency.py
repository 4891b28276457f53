"""The gradient and the mask, against linear models, hand-made cases and sorted lists."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt.errors import InputError
from asgt.randomness import SampleKeyed, Share
from asgt.saliency import SaliencyMask, saliency
from support.explained import Linear, delicate_net, images, rand
from support.messages import assert_states
from support.nets import BombError, untouched

CONTEXTS = [torch.no_grad, torch.inference_mode]


# ---------------------------------------------------------------------------------------------------------------------
# The gradient
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (2, 5), (3, 4, 4)])
def test_saliency_of_a_linear_model_is_the_weight_of_the_label(shape: tuple[int, ...]) -> None:
    weight = rand(5, *shape) - 0.5
    y = torch.tensor([3, 0, 3, 4])

    gradient = saliency(Linear(weight), images(4, *shape), y)

    for i, label in enumerate([3, 0, 3, 4]):
        assert torch.equal(gradient[i], weight[label])
    assert not gradient.requires_grad


def test_log_prob_saliency_of_a_linear_model_is_weight_minus_expected_weight() -> None:
    weight, bias = rand(3, 2, 2, 2) - 0.5, torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64)
    x, y = images(4, 2, 2, 2, seed=1), torch.tensor([2, 0, 1, 1])

    gradient = saliency(Linear(weight, bias), x, y, target="log_prob")

    for i in range(4):
        logits = [float((weight[k] * x[i]).sum() + bias[k]) for k in range(3)]
        total = sum(math.exp(logit) for logit in logits)
        expected = weight[y[i]] - sum(math.exp(logits[k]) / total * weight[k] for k in range(3))
        torch.testing.assert_close(gradient[i], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("target", ["logit", "log_prob"])
def test_saliency_equals_central_differences(target: Literal["logit", "log_prob"]) -> None:
    net = delicate_net().eval()
    x, y = images(2, 3, 6, 6), torch.tensor([1, 4])

    def score(sample: Tensor, label: int) -> float:
        with torch.no_grad():
            logits = net(sample[None])[0]
        return float(logits[label] - (logits.logsumexp(0) if target == "log_prob" else 0))

    gradient = saliency(net, x, y, target)

    step = 1e-5
    for i, c, h, w in [(0, 0, 0, 0), (0, 1, 3, 2), (0, 2, 5, 5), (1, 0, 2, 4), (1, 2, 1, 1)]:
        nudge = torch.zeros_like(x[i])
        nudge[c, h, w] = step
        slope = (score(x[i] + nudge, int(y[i])) - score(x[i] - nudge, int(y[i]))) / (2 * step)
        assert float(gradient[i, c, h, w]) == pytest.approx(slope, rel=1e-5, abs=1e-8)
    assert gradient.abs().max() > 1e-3


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(InputError):
        saliency(Linear(rand(2, 4)), rand(1, 4), torch.tensor([0]), target="log-prob")  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------------------
# The mask by hand
# ---------------------------------------------------------------------------------------------------------------------

# One sample of two channels, 3 × 3; the model's weight for its label is its saliency.
CHANNEL_0 = [[5.0, -1.0, 4.0], [0.5, -6.0, 3.0], [-2.0, 1.5, 7.0]]
CHANNEL_1 = [[-5.0, -3.0, 2.0], [0.1, 0.0, -4.0], [2.5, 1.5, 7.0]]
# channel mean of |∇|:     5    2    3      signed channel mean:    0   -2    3
#                          0.3  3    3.5                            0.3 -3   -0.5
#                          2.25 1.5  7                              0.25 1.5  7
X_0 = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6], [0.7, 0.8, 0.9]]
X_1 = [[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.0, 0.0, 0.0]]


def hand() -> tuple[nn.Module, Tensor, Tensor]:
    weight = torch.tensor([CHANNEL_0, CHANNEL_1], dtype=torch.float64)
    other = rand(2, 3, 3, seed=9)
    return (
        Linear(torch.stack([other, weight])),
        torch.tensor([[X_0, X_1]], dtype=torch.float64),
        torch.tensor([1]),
    )


def test_magnitude_fills_the_three_pixels_closest_to_zero_by_hand() -> None:
    model, x, y = hand()

    masked = SaliencyMask(k=0.34, fill="mean")(model, x, y)

    # The lowest are (1, 0), (2, 1) and (0, 1); the means are 0.5 and 0.6.
    expected = torch.tensor(
        [
            [
                [[0.1, 0.5, 0.3], [0.5, 0.5, 0.6], [0.7, 0.5, 0.9]],
                [[0.9, 0.6, 0.9], [0.6, 0.9, 0.9], [0.0, 0.6, 0.0]],
            ]
        ],
        dtype=torch.float64,
    )
    torch.testing.assert_close(masked, expected, rtol=0, atol=1e-12)


def test_signed_fills_the_three_most_negative_pixels_by_hand() -> None:
    model, x, y = hand()

    masked = SaliencyMask(k=0.34, fill="zero", rank="signed")(model, x, y)

    # The lowest are (1, 1), (0, 1) and (1, 2).
    expected = torch.tensor(
        [
            [
                [[0.1, 0.0, 0.3], [0.4, 0.0, 0.0], [0.7, 0.8, 0.9]],
                [[0.9, 0.0, 0.9], [0.9, 0.0, 0.0], [0.0, 0.0, 0.0]],
            ]
        ],
        dtype=torch.float64,
    )
    assert torch.equal(masked, expected)


@pytest.mark.parametrize(
    ("rank", "gone"),
    [
        ("magnitude", [(1, 1, 1), (1, 1, 0), (0, 1, 0), (0, 0, 1)]),
        ("signed", [(0, 1, 1), (1, 0, 0), (1, 1, 2), (1, 0, 1)]),
    ],
)
def test_element_ranks_each_channel_value_by_itself_by_hand(
    rank: Literal["magnitude", "signed"], gone: list[tuple[int, int, int]]
) -> None:
    model, x, y = hand()
    x = x + 0.05  # no zeros of its own

    masked = SaliencyMask(k=4 / 18, fill="zero", unit="element", rank=rank)(model, x, y)

    assert {tuple(index) for index in (masked[0] == 0).nonzero().tolist()} == set(gone)


def test_a_pixel_is_ranked_by_the_mean_over_its_channels_not_by_its_mean_gradient() -> None:
    """Channels that cancel are salient in magnitude and not in the signed mean."""

    model, x, y = hand()
    corner = (0, slice(None), 0, 0)  # gradients 5 and -5

    for k in (1 / 9, 2 / 9, 5 / 9):
        assert torch.equal(SaliencyMask(k=k, fill="zero")(model, x, y)[corner], x[corner])
    assert (SaliencyMask(k=4 / 9, fill="zero", rank="signed")(model, x, y)[corner] == 0).all()


def test_scores_are_what_the_mask_ranks() -> None:
    model, x, y = hand()

    magnitude = SaliencyMask(k=0.1).scores(model, x, y)
    signed = SaliencyMask(k=0.1, rank="signed").scores(model, x, y)
    element = SaliencyMask(k=0.1, unit="element", rank="signed").scores(model, x, y)

    assert magnitude[0].tolist() == pytest.approx([5, 2, 3, 0.3, 3, 3.5, 2.25, 1.5, 7])
    assert signed[0].tolist() == pytest.approx([0, -2, 3, 0.3, -3, -0.5, 0.25, 1.5, 7])
    assert element.tolist() == [[value for channel in (CHANNEL_0, CHANNEL_1) for row in channel for value in row]]


# ---------------------------------------------------------------------------------------------------------------------
# Which features, and how many
# ---------------------------------------------------------------------------------------------------------------------


def count_of(k: str, features: int) -> int:
    """In exact arithmetic, from the decimal that the user wrote."""

    return max(1, math.floor(Fraction(k) * features))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    hundredths=st.integers(1, 100),
    samples=st.integers(1, 3),
    channels=st.integers(1, 3),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    unit=st.sampled_from(["pixel", "element"]),
    seed=st.integers(0, 10_000),
)
def test_the_mask_fills_exactly_the_lowest_features(
    hundredths: int,
    samples: int,
    channels: int,
    height: int,
    width: int,
    unit: Literal["pixel", "element"],
    seed: int,
) -> None:
    x = images(samples, channels, height, width, seed=seed)
    features = height * width * (channels if unit == "element" else 1)
    scores = torch.stack(
        [torch.randperm(features, generator=torch.Generator().manual_seed(seed + i)) for i in range(samples)]
    ).double()
    k = f"{hundredths // 100}.{hundredths % 100:02d}"

    masked = SaliencyMask(k=float(k), unit=unit, fill="zero").apply(x, scores)

    for i in range(samples):
        order = sorted(range(features), key=scores[i].tolist().__getitem__)
        lowest = set(order[: count_of(k, features)])
        rows = masked[i].reshape(1, -1) if unit == "element" else masked[i].reshape(channels, -1)
        before = x[i].reshape(rows.shape)
        for row, old in zip(rows, before, strict=True):
            assert {j for j, value in enumerate(row.tolist()) if value == 0} == lowest
            kept = [j for j in range(features) if j not in lowest]
            assert torch.equal(row[kept], old[kept])


@pytest.mark.parametrize(
    ("k", "features", "count"),
    [
        (0.29, 100, 29),
        (0.57, 100, 57),
        (0.58, 50, 29),
        (0.07, 100, 7),
        (0.1, 784, 78),
        (0.001, 100, 1),
        (0.999, 100, 99),
        (1.0, 100, 100),
        (0.5, 1, 1),
        (1 / 3, 9, 3),
    ],
)
def test_the_count_is_the_floor_of_the_share_and_at_least_one(k: float, features: int, count: int) -> None:
    x = images(2, 2, features, 1)
    scores = rand(2, features, seed=4)

    masked = SaliencyMask(k=k, fill="zero").apply(x, scores)

    assert (masked == 0).sum(dim=2).flatten().tolist() == [count] * 4


@pytest.mark.parametrize("scores", ["all equal", "two values"])
def test_ties_never_mask_more_than_their_share(scores: str) -> None:
    x = images(3, 2, 10, 10)
    table = torch.zeros(3, 100) if scores == "all equal" else (torch.arange(100) % 2).double().expand(3, 100)

    masked = SaliencyMask(k=0.29, fill="zero").apply(x, table)

    assert (masked == 0).all(dim=1).sum(dim=(1, 2)).tolist() == [29, 29, 29]


def test_a_model_without_gradient_still_masks_its_share() -> None:
    x, y = images(2, 1, 10, 10), torch.tensor([0, 1])

    masked = SaliencyMask(k=0.3, fill="zero")(Linear(torch.zeros(2, 1, 10, 10, dtype=torch.float64)), x, y)

    assert (masked == 0).sum(dim=(1, 2, 3)).tolist() == [30, 30]


@pytest.mark.parametrize("rank", ["magnitude", "signed"])
@pytest.mark.parametrize("target", ["logit", "log_prob"])
def test_each_sample_is_masked_by_its_own_saliency(
    rank: Literal["magnitude", "signed"], target: Literal["logit", "log_prob"]
) -> None:
    net = delicate_net().eval()
    x, y = images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])
    mask = SaliencyMask(k=0.25, rank=rank, target=target, fill="mean")

    together = mask(net, x, y)

    for i in range(4):
        sample = x[i].clone().requires_grad_()
        logits = net(sample[None])[0]
        score = logits[y[i]] if target == "logit" else logits[y[i]] - logits.logsumexp(0)
        (gradient,) = torch.autograd.grad(score, sample)
        table = [
            sum(abs(float(v)) if rank == "magnitude" else float(v) for v in gradient[:, p // 6, p % 6])
            for p in range(36)
        ]
        expected = x[i].clone()
        for p in sorted(range(36), key=table.__getitem__)[:9]:
            for c in range(3):
                expected[c, p // 6, p % 6] = sum(x[i, c].flatten().tolist()) / 36
        torch.testing.assert_close(together[i], expected, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# The fill
# ---------------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    k=st.floats(0.01, 1.0),
    unit=st.sampled_from(["pixel", "element"]),
    narrow=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_the_uniform_fill_stays_within_each_samples_range_per_channel(
    k: float, unit: Literal["pixel", "element"], narrow: bool, seed: int
) -> None:
    # Every (sample, channel) has a range of its own, disjoint from its neighbours'.
    low = torch.arange(6).view(3, 2, 1, 1) * 0.15
    x = (low + (1e-6 if narrow else 0.1) * rand(3, 2, 4, 5, seed=seed)).float()
    scores = rand(3, 20 if unit == "pixel" else 40, seed=seed + 1)

    masked = SaliencyMask(k=k, unit=unit).apply(x, scores, generator=torch.Generator().manual_seed(seed))

    for i in range(3):
        for c in range(2):
            inside = masked[i, c]
            assert inside.min() >= x[i, c].min() - 1e-7
            assert inside.max() <= x[i, c].max() + 1e-7


def test_unfilled_pixels_are_bit_identical_under_the_uniform_fill() -> None:
    x = images(3, 2, 8, 8).float()
    scores = rand(3, 64, seed=1)

    masked = SaliencyMask(k=0.25).apply(x, scores, generator=torch.Generator().manual_seed(0))

    for i in range(3):
        lowest = sorted(range(64), key=scores[i].tolist().__getitem__)[:16]
        changed = (masked[i] != x[i]).flatten(1)
        assert all(set(row.nonzero().flatten().tolist()) == set(lowest) for row in changed)


def test_the_uniform_fill_is_uniform_over_the_range() -> None:
    x = torch.zeros(2, 1, 100, 100)
    x[0, 0, 0, 0], x[1] = 0.5, 0.25
    x[1, 0, 0, 0] = 0.75

    masked = SaliencyMask(k=1.0).apply(x, torch.zeros(2, 10_000), generator=torch.Generator().manual_seed(0))
    share = torch.stack([masked[0] / 0.5, (masked[1] - 0.25) / 0.5]).flatten().double()

    n = share.numel()
    assert abs(float(share.mean()) - 0.5) < 4.5 / math.sqrt(12 * n)
    assert abs(float((share - 0.5).square().mean()) - 1 / 12) < 4.5 / math.sqrt(180 * n)


def test_the_uniform_fill_draws_every_channel_and_sample_apart() -> None:
    x = torch.zeros(2, 2, 8, 8)
    x[:, :, 0, 0] = 1.0

    masked = SaliencyMask(k=1.0).apply(x, torch.zeros(2, 64), generator=torch.Generator().manual_seed(0))

    planes = [masked[i, c] for i in range(2) for c in range(2)]
    assert not any(torch.equal(a, b) for i, a in enumerate(planes) for b in planes[:i])


def test_a_flat_channel_stays_as_it_is() -> None:
    x = torch.full((1, 1, 4, 4), 0.3)

    for fill in ("uniform", "mean"):
        torch.testing.assert_close(SaliencyMask(k=1.0, fill=fill).apply(x, torch.zeros(1, 16)), x, rtol=0, atol=1e-7)


def test_the_mean_fill_is_each_samples_channel_mean() -> None:
    x = images(2, 3, 4, 4)

    masked = SaliencyMask(k=1.0, fill="mean").apply(x, torch.zeros(2, 16))

    for i in range(2):
        for c in range(3):
            mean = sum(x[i, c].flatten().tolist()) / 16
            torch.testing.assert_close(masked[i, c], torch.full_like(x[i, c], mean), rtol=0, atol=1e-12)


def test_the_same_seed_gives_the_same_mask_and_another_seed_other_values_in_the_same_places() -> None:
    net = delicate_net()
    x, y = images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])
    mask = SaliencyMask(k=0.25)
    before = torch.get_rng_state()

    first, again, other = (mask(net, x, y, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first != x, other != x)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_places_do_not_depend_on_the_fill() -> None:
    net = delicate_net()
    x, y = images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])

    uniform, mean, zero = (SaliencyMask(k=0.25, fill=fill)(net, x, y) != x for fill in ("uniform", "mean", "zero"))

    assert torch.equal(uniform, mean)
    assert torch.equal(uniform, zero)


def test_noise_keyed_by_sample_fills_a_sample_alike_in_any_batch() -> None:
    net = delicate_net()
    x, y = images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])
    names = torch.tensor([9, 2, 5, 7])
    whole = SaliencyMask(k=0.25)(net, x, y, generator=SampleKeyed(0, names))

    part = SaliencyMask(k=0.25)(net, x[[3, 1]], y[[3, 1]], generator=SampleKeyed(0, names[[3, 1]]))

    torch.testing.assert_close(part, whole[[3, 1]], rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Shapes
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(20,), (2, 10), (3, 5, 4)])
@pytest.mark.parametrize("fill", ["uniform", "mean", "zero"])
def test_element_works_on_inputs_of_any_shape(fill: Literal["uniform", "mean", "zero"], shape: tuple[int, ...]) -> None:
    weight = rand(3, *shape, seed=2) - 0.5
    x, y = images(2, *shape), torch.tensor([2, 0])

    masked = SaliencyMask(k=0.3, unit="element", fill=fill)(
        Linear(weight), x, y, generator=torch.Generator().manual_seed(0)
    )

    for i in range(2):
        ranked = weight[y[i]].flatten().abs().tolist()
        lowest = sorted(range(len(ranked)), key=ranked.__getitem__)[: count_of("0.3", len(ranked))]
        assert set((masked[i] != x[i]).flatten().nonzero().flatten().tolist()) == set(lowest)


def test_a_flat_input_is_filled_within_the_range_of_the_whole_sample() -> None:
    x = torch.tensor([[0.0, 0.2, 0.4], [0.6, 0.6, 0.9]], dtype=torch.float64)

    mean = SaliencyMask(k=1.0, unit="element", fill="mean").apply(x, torch.zeros(2, 3))
    uniform = SaliencyMask(k=1.0, unit="element").apply(x, torch.zeros(2, 3))

    expected = torch.tensor([[0.2] * 3, [0.7] * 3], dtype=torch.float64)
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-12)
    assert (uniform >= torch.tensor([[0.0], [0.6]])).all()
    assert (uniform <= torch.tensor([[0.4], [0.9]])).all()
    assert len(set(uniform.flatten().tolist())) == 6


def test_a_pixel_of_a_series_is_a_point_in_time() -> None:
    x = images(1, 2, 5)

    masked = SaliencyMask(k=0.4, fill="zero").apply(x, torch.tensor([[3.0, 0.0, 4.0, 1.0, 2.0]]))

    assert (masked == 0).tolist() == [[[False, True, False, True, False]] * 2]


def test_pixels_of_a_flat_input_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="element"):
        SaliencyMask(k=0.5)(Linear(rand(2, 6)), rand(3, 6), torch.tensor([0, 1, 0]))


# ---------------------------------------------------------------------------------------------------------------------
# What is left alone, and what is refused
# ---------------------------------------------------------------------------------------------------------------------

GRADIENTS = [
    pytest.param(saliency, id="logit"),
    pytest.param(lambda net, x, y: saliency(net, x, y, "log_prob"), id="log_prob"),
    pytest.param(SaliencyMask(k=0.2, fill="mean"), id="mask"),
]
Gradient = Callable[[nn.Module, Tensor, Tensor], Tensor]


@pytest.mark.parametrize("act", GRADIENTS)
def test_the_model_and_the_images_are_left_as_they_were_found(act: Gradient) -> None:
    net, x, y = delicate_net(), images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])
    before = x.clone()

    with untouched(net):
        act(net, x, y)

    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None


@pytest.mark.parametrize("act", GRADIENTS)
def test_the_gradient_is_taken_in_evaluation_mode(act: Gradient) -> None:
    net, x, y = delicate_net(), images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])
    in_training = act(net, x, y)

    assert torch.equal(act(net.eval(), x, y), in_training)


@pytest.mark.parametrize("act", GRADIENTS)
def test_a_model_that_raises_is_left_as_it_was_found(act: Gradient) -> None:
    net, x, y = delicate_net(armed=True), images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])

    with untouched(net), pytest.raises(BombError):
        act(net, x, y)


@pytest.mark.parametrize("act", GRADIENTS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_saliency_finds_its_own_gradients(context: Callable[[], AbstractContextManager[None]], act: Gradient) -> None:
    net, x, y = delicate_net(), images(4, 3, 6, 6), torch.tensor([1, 4, 0, 1])
    expected = act(net, x, y)

    with untouched(net), context():
        result = act(net, x, y)

    assert torch.equal(result, expected)


@pytest.mark.parametrize("act", GRADIENTS)
def test_labels_that_were_made_in_inference_mode_will_do(act: Gradient) -> None:
    net, x = delicate_net(), images(4, 3, 6, 6)
    expected = act(net, x, torch.tensor([1, 4, 0, 1]))

    with torch.inference_mode():
        result = act(net, x.clone(), torch.tensor([1, 4, 0, 1]))

    assert torch.equal(result, expected)


def test_no_gradient_flows_through_the_mask() -> None:
    net, x, y = delicate_net(), images(4, 3, 6, 6).requires_grad_(), torch.tensor([1, 4, 0, 1])

    assert not SaliencyMask(k=0.2)(net, x, y).requires_grad


# Controls -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["pixel", "element"])
def test_a_random_mask_fills_exactly_its_share_and_asks_the_model_for_nothing(
    unit: Literal["pixel", "element"],
) -> None:
    x, y = images(60, 3, 5, 4), torch.zeros(60, dtype=torch.int64)
    mask = SaliencyMask(k=0.35, rank="random", unit=unit, fill="zero")

    def never(x: Tensor) -> Tensor:
        raise AssertionError("the model was asked")

    hidden = mask(never, x, y, generator=torch.Generator().manual_seed(1)) == 0
    of_features = hidden.flatten(1) if unit == "element" else hidden.all(dim=1).flatten(1)
    features = of_features.shape[1]
    assert (of_features.sum(dim=1) == math.floor(0.35 * features)).all()
    if unit == "pixel":
        assert hidden.all(dim=1).equal(hidden.any(dim=1))
    # Each sample has its own, and no place is left out for good.
    assert len(of_features.unique(dim=0)) == 60
    assert of_features.any(dim=0).all()
    assert not of_features.all(dim=0).any()


def test_a_random_mask_follows_its_generator_and_no_gradient() -> None:
    net, x, y = delicate_net(), images(6, 3, 6, 6), torch.tensor([1, 4, 0, 1, 2, 3])
    mask = SaliencyMask(k=0.25, rank="random")
    one, same, other = (mask(net, x, y, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert one.equal(same)
    assert not one.equal(other)

    rows = torch.tensor([4, 1])
    alone = mask(net, x[rows], y[rows], generator=SampleKeyed(0, rows))
    assert alone.equal(mask(net, x, y, generator=SampleKeyed(0, torch.arange(6)))[rows])
    shares = [
        mask(net, x[part], y[part], generator=Share(torch.Generator().manual_seed(3), r, 2))
        for r, part in enumerate((slice(0, 3), slice(3, 6)))
    ]
    assert torch.cat(shares).equal(one)
    with pytest.raises(InputError) as refused:
        mask.scores_of(torch.rand(2, 3, 4, 4))
    assert_states(refused.value, "random", "gradient")


def test_a_share_of_zero_masks_nothing_and_asks_the_model_for_nothing() -> None:
    x, y = images(4, 3, 6, 6).requires_grad_(), torch.tensor([1, 4, 0, 1])

    def never(x: Tensor) -> Tensor:
        raise AssertionError("the model was asked")

    masked = SaliencyMask(k=0)(never, x, y)
    assert masked.equal(x)
    assert not masked.requires_grad
    assert SaliencyMask(k=0).apply(x, torch.rand(4, 36)).equal(x)


@pytest.mark.parametrize("k", [-0.1, -1e-9, 1.0001, 10, math.nan, math.inf])
def test_a_share_outside_of_zero_to_one_is_refused(k: float) -> None:
    with pytest.raises(InputError) as caught:
        SaliencyMask(k=k)
    assert_states(caught.value, "k", k)


@pytest.mark.parametrize("setting", ["target", "rank", "unit", "fill"])
def test_an_unknown_choice_is_refused_and_the_known_are_named(setting: str) -> None:
    known = {"target": "log_prob", "rank": "signed", "unit": "element", "fill": "mean"}[setting]

    with pytest.raises(InputError, match=known):
        SaliencyMask(k=0.1, **{setting: "none"})  # type: ignore[arg-type]
