"""The curve engine: known answers on a linear model, witnesses that hold, and figures no higher than a plain loop's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from asgt import PGD, Images, InputError, SampleKeyed
from asgt.attacks import Attack
from asgt.evaluation.curve import evaluate
from asgt.evaluation.engine import smallest_norms
from asgt.evaluation.probing import PROBE_STEPS
from asgt.models import build_model
from support.curves import GRID, Band, TwoClasses, band_images, images, smallest_by_hand
from support.messages import assert_states


def small_net(seed: int, data: Images) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_model("small_cnn", data.shape, len(data.classes), width=0.25).eval()


@pytest.mark.slow
def test_a_linear_model_breaks_where_it_must() -> None:
    data = images(200, seed=3)
    weight = torch.randn(16, generator=torch.Generator().manual_seed(1)) / 4
    model = TwoClasses(weight, -float(weight.sum()) / 2)
    exact = smallest_by_hand(model, data)
    found = smallest_norms(model, data, [PGD(0.0, steps=40)], GRID)

    grid = torch.tensor(GRID, dtype=torch.float64)
    right = torch.where(exact == 0, 0, torch.searchsorted(grid, exact))
    # A margin that rounding decides may fall on either side of a point of the grid.
    clear = (exact[:, None] - grid).abs().amin(dim=1) > 1e-4
    assert clear.sum() > 150
    assert (right[clear] > 0).any()
    assert torch.equal(found.levels[clear], right[clear])


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_witness_breaks_its_sample_at_its_norm_and_lies_in_the_box(norm: str) -> None:
    data = images(60, classes=5, size=8)
    model = small_net(0, data)
    data = replace(data, labels=model(data.pixels / 255).argmax(dim=1))
    grid = GRID if norm == "linf" else tuple(8 * eps for eps in GRID)
    found = smallest_norms(model, data, [PGD(0.0, norm=norm, steps=10)], grid)  # type: ignore[arg-type]

    broken = torch.isfinite(found.norms) & (found.norms > 0)
    assert broken.sum() > 20
    delta = (found.witnesses - data.pixels / 255).flatten(1)
    norms = delta.abs().amax(dim=1) if norm == "linf" else delta.norm(dim=1)
    torch.testing.assert_close(norms[broken], found.norms[broken])
    assert found.witnesses.min() >= 0
    assert found.witnesses.max() <= 1
    assert (model(found.witnesses).argmax(dim=1) != data.labels)[broken].all()
    reached = torch.tensor(grid)[found.levels[broken]]
    assert (norms[broken] <= reached + 1e-5).all()


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 1000),
    grid=st.lists(st.floats(0.01, 0.9), min_size=1, max_size=6, unique=True).map(sorted),
    batch_size=st.integers(1, 40),
)
def test_curves_fall_and_stay_below_clean_accuracy(seed: int, grid: list[float], batch_size: int) -> None:
    data = images(24, classes=4, seed=seed, size=8)
    model = small_net(seed, data)
    found = smallest_norms(model, data, [PGD(0.0, steps=3, restarts=2)], grid, batch_size=batch_size)
    curve = found.correct(len(grid)).double().mean(dim=1)
    clean = (model(data.pixels / 255).argmax(dim=1) == data.labels).double().mean()
    assert curve.shape == (len(grid),)
    assert (curve.diff() <= 0).all()
    assert curve.min() >= 0
    assert curve.max() <= clean
    assert ((found.norms == 0) == (model(data.pixels / 255).argmax(dim=1) != data.labels)).all()


@pytest.mark.slow
def test_the_result_does_not_depend_on_how_batches_were_filled() -> None:
    data = images(50, classes=4, size=8)
    model = small_net(1, data).double()
    data = Images((data.pixels / 255).double(), data.labels, data.classes)
    attack = PGD(0.0, steps=6, restarts=3)
    whole = smallest_norms(model, data, [attack], GRID, batch_size=64)
    for batch_size in (7, 23):
        other = smallest_norms(model, data, [attack], GRID, batch_size=batch_size)
        assert torch.equal(whole.levels, other.levels)
        torch.testing.assert_close(whole.norms, other.norms)
    part = torch.arange(10, 30)
    alone = smallest_norms(model, data[part], [attack], GRID, rows=part)
    assert torch.equal(alone.levels, whole.levels[part])


@pytest.mark.slow
def test_it_finds_what_a_loop_over_the_grid_finds_for_fewer_gradients() -> None:
    data = images(80, classes=4, size=8)
    model = small_net(2, data)
    data = replace(data, labels=model(data.pixels / 255).argmax(dim=1))
    attack = PGD(0.0, steps=20, restarts=2)
    found = smallest_norms(model, data, [attack], GRID)

    x, loop = data.pixels / 255, []
    for eps in GRID:
        x_adv = replace(attack, eps=eps)(model, x, data.labels, generator=SampleKeyed(0, torch.arange(80)))
        loop.append((model(x_adv).argmax(dim=1) == data.labels).double().mean())
    ours = found.correct(len(GRID)).double().mean(dim=1)
    assert loop[0] > loop[-1], "a curve that does not fall compares nothing"
    assert (ours <= torch.stack(loop) + 0.01).all()
    assert found.gradients.double().mean() < len(GRID) * 40 / 4


def test_a_failure_costs_all_restarts_and_a_clean_error_nothing() -> None:
    data = images(6, classes=2)
    constant = TwoClasses(torch.zeros(16), 1.0)  # always the second class: never fooled, or wrong from the start
    found = smallest_norms(constant, data, [PGD(0.0, steps=7, restarts=3)], GRID)
    wrong = data.labels == 0
    assert wrong.any()
    assert not wrong.all()
    assert (found.gradients[wrong] == 0).all()
    assert (found.forwards[wrong] == 0).all()
    assert (found.levels[wrong] == 0).all()
    assert (found.gradients[~wrong] == PROBE_STEPS + 3 * 7).all()
    assert (found.levels[~wrong] == len(GRID)).all()
    assert torch.isinf(found.norms[~wrong]).all()


@pytest.mark.slow
def test_an_attack_that_nan_would_favour_breaks_nothing() -> None:
    class NanOffTheData(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            z = torch.stack([x.flatten(1).sum(dim=1) * 0 + 1, x.flatten(1).sum(dim=1) * 0], dim=1)
            exact = ((x * 255).round() / 255 - x).abs().flatten(1).amax(dim=1) < 1e-6
            return torch.where(exact[:, None], z, torch.nan)

    data = replace(images(5), labels=torch.zeros(5, dtype=torch.int64))
    found = smallest_norms(NanOffTheData(), data, [PGD(0.0, steps=3)], GRID)
    assert (found.levels == len(GRID)).all()
    assert found.nan
    with pytest.raises(InputError) as refused:
        evaluate(NanOffTheData(), data, protocol="pgd", epsilons=[0.1])
    assert_states(refused.value, "NaN", "pgd-40x5")

    class Nan(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * torch.nan

    with pytest.raises(InputError, match="NaN"):
        smallest_norms(Nan(), data, [PGD(0.0, steps=3)], GRID)


def test_a_witness_that_a_second_look_refutes_does_not_count() -> None:
    class SeesBatches(nn.Module):
        """Wrong whenever it is asked about fewer or more than a fixed batch of 64, right in one."""

        def forward(self, x: Tensor) -> Tensor:
            right = torch.stack([x.flatten(1).sum(dim=1), x.flatten(1).sum(dim=1) - 1], dim=1)
            moved = ((x * 255).round() / 255 - x).abs().flatten(1).amax(dim=1) > 1e-6
            return torch.where((moved & (len(x) != 64))[:, None], right.flip(1), right)

    data = replace(images(5), labels=torch.zeros(5, dtype=torch.int64))
    attack: Attack = PGD(0.0, steps=3)
    found = smallest_norms(SeesBatches(), data, [attack], GRID)
    assert (found.levels == len(GRID)).all()


def test_attacks_at_every_eps_find_what_going_down_misses() -> None:
    attack = PGD(0.0, steps=4, alpha=1.0, random_start=False)  # always at the ball's corner
    found = smallest_norms(Band(), band_images(3), [attack], GRID, exhaustive=True)

    assert found.levels.tolist() == [2] * 3  # 0.06 is the third of the grid
    # Below the first failure, 0.38 to 0.12 fail, 0.10 to 0.06 succeed, and 0.04 and 0.02 fail again.
    assert found.tested.tolist() == [14 + 3 + 2] * 3
    assert found.missed.tolist() == [3] * 3
    assert found.gradients.tolist() == [PROBE_STEPS + 4] * 3
    # A success takes the gradient that leads to the corner, and the one there that sees it.
    assert found.audit.tolist() == [14 * 4 + 3 * 2 + 2 * 4] * 3


def test_an_audited_sample_is_attacked_at_the_share_of_the_eps_below_its_failure() -> None:
    attack = PGD(0.0, steps=4, alpha=1.0, random_start=False)
    # All fail at 0.40, the last of twenty. A share of 0 is 0.02, of 0.25 is 0.10, of 0.999 is 0.38.
    shares = torch.tensor([0.0, 0.25, 0.999, torch.nan])
    found = smallest_norms(Band(), band_images(4), [attack], GRID, audited=shares)
    assert found.levels.tolist() == [20, 4, 20, 20]
    assert found.tested.tolist() == [1, 1, 1, 0]
    assert found.missed.tolist() == [0, 1, 0, 0]


@pytest.mark.slow
def test_going_down_misses_nothing_where_the_answer_is_monotone() -> None:
    data = images(60, seed=5)
    weight = torch.randn(16, generator=torch.Generator().manual_seed(2)) / 4
    model = TwoClasses(weight, -float(weight.sum()) / 2)
    found = smallest_norms(model, data, [PGD(0.0, steps=40)], GRID, exhaustive=True)
    assert found.missed.sum() == 0
    assert torch.equal(found.tested, (found.levels - 1).clamp_min(0).where(found.levels > 1, 0))


def test_a_witness_on_the_largest_eps_counts_where_cross_entropy_saturates() -> None:
    data = images(40, seed=7)
    weight = torch.randn(16, generator=torch.Generator().manual_seed(1)).sign() / 16
    x = data.pixels.flatten(1) / 255
    data = replace(
        data, labels=torch.ones(40, dtype=torch.int64), pixels=(x * 0.5 + 0.25).mul(255).byte().view(40, 1, 4, 4)
    )
    scores = (data.pixels.flatten(1) / 255) @ weight

    class Saturated(nn.Module):
        """Each image's own margin of 0.0985 in L∞, times 10⁵: the cross-entropy's gradient is zero at the start."""

        def forward(self, x: Tensor) -> Tensor:
            flat = x.flatten(1)
            nearest = torch.cdist(flat, data.pixels.flatten(1) / 255).argmin(dim=1)
            score = 1e5 * (flat @ weight - scores[nearest] + 0.0985 * weight.abs().sum())
            return torch.stack([-score, score], dim=1) / 2

    found = smallest_norms(Saturated(), data, [PGD(0.0, steps=5)], (0.1,))
    assert (found.levels == 0).all()


@pytest.mark.parametrize("grid", [(), (0.2, 0.1), (0.1, 0.1), (0.0, 0.1)])
def test_a_grid_that_does_not_ascend_is_refused(grid: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="ascend"):
        smallest_norms(TwoClasses(torch.ones(16), 0.0), images(3), PGD(0.0), grid)


@pytest.mark.slow
def test_a_refuted_success_goes_on_from_where_it_stood() -> None:
    class SeesBatches(TwoClasses):
        """Nearer to the boundary by a little wherever it is not asked in a batch of 64."""

        def forward(self, x: Tensor) -> Tensor:
            logits = super().forward(x)
            return logits if len(x) == 64 else logits - torch.tensor([-0.01, 0.01])

    data = replace(images(30, seed=9), labels=torch.ones(30, dtype=torch.int64))
    model = SeesBatches(torch.ones(16) / 16, -0.2)
    exact = smallest_by_hand(model, data)
    found = smallest_norms(model, data, [PGD(0.0, steps=40)], GRID)
    grid = torch.tensor(GRID, dtype=torch.float64)
    clear = ((exact[:, None] - grid).abs().amin(dim=1) > 1e-3) & (exact > 0.03)
    assert clear.sum() > 10
    assert torch.equal(found.levels[clear], torch.searchsorted(grid, exact)[clear])
