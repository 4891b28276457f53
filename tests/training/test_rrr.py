"""Right for the right reasons: the penalty by hand, and the mask of the shortcut on its way to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asgt import AT, FGSM, RRR, ST, Images, InputError, Objective, TrainConfig
from asgt.data import plant
from asgt.errors import InterruptedRunError
from asgt.training.counting import step_passes
from asgt.training.trainer import train
from support.messages import assert_states
from support.trainings import assert_same, rows


def linear() -> tuple[nn.Sequential, Tensor, Tensor]:
    """A linear model of three classes on images of 2×3×3, with its weights (3, 18) and offsets."""

    weight = torch.randn(3, 18, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    offset = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    layer = nn.Linear(18, 3).double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(offset)
    return nn.Sequential(nn.Flatten(), layer), weight, offset


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(5, 3, 3, generator=generator) < 0.4
    return torch.rand(5, 2, 3, 3, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0]), mask


def by_hand(weight: Tensor, offset: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """The batch mean of Σ over the mask of (∂ Σₖ log pₖ / ∂x)², where the derivative is Σₖ Wₖ − K Σⱼ pⱼ Wⱼ."""

    total = torch.zeros(())
    for image, inside in zip(x, mask, strict=True):
        logits = weight @ image.flatten() + offset
        p = logits.exp() / logits.exp().sum()
        slope = (weight.sum(dim=0) - 3 * p @ weight).view(2, 3, 3)
        total = total + sum(slope[channel][inside].square().sum() for channel in range(2))
    return total / len(x)


def test_the_penalty_of_a_linear_model_is_that_by_hand() -> None:
    model, weight, offset = linear()
    x, y, mask = batch()
    weight, offset = weight.clone().requires_grad_(), offset.clone().requires_grad_()
    clean = nn.functional.cross_entropy(x.flatten(1) @ weight.T + offset, y)
    penalty = 2.5 * by_hand(weight, offset, x, mask)
    (clean + penalty).backward()

    out = RRR(weight=2.5)(model, x, y, shortcut=mask)
    out.loss.backward()
    assert list(out.terms) == ["clean", "reasons"]
    torch.testing.assert_close(out.terms["reasons"], penalty.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(out.loss.detach(), (clean + penalty).detach(), rtol=1e-12, atol=0)
    # Through the gradient, which the loss holds, to the weights.
    torch.testing.assert_close(model[1].weight.grad, weight.grad, rtol=0, atol=1e-12)
    torch.testing.assert_close(model[1].bias.grad, offset.grad, rtol=0, atol=1e-12)
    assert float(penalty.detach()) > 0.1
    assert x.grad is None


def test_outside_of_the_mask_nothing_is_penalised() -> None:
    model, _, _ = linear()
    x, y, mask = batch()
    out = RRR(weight=100.0)(model, x, y, shortcut=torch.zeros_like(mask))
    plain = ST()(model, x, y)
    assert out.terms["reasons"].item() == 0.0
    assert out.loss.item() == plain.loss.item()

    # A model that does not use what is inside is right for the right reasons.
    inside = mask[0].expand(5, -1, -1)
    with torch.no_grad():
        model[1].weight.view(3, 2, 3, 3)[:, :, mask[0]] = 0.0
    assert RRR(weight=100.0)(model, x, y, shortcut=inside).terms["reasons"].item() == 0.0
    assert RRR(weight=100.0)(model, x, y, shortcut=~inside).terms["reasons"].item() > 1.0


@pytest.mark.parametrize(
    ("objective", "mask", "facts"),
    [
        (RRR(), None, ["RRR", "shortcut=", "pass shortcut=mask"]),
        (RRR(), torch.ones(5, 3, 3), ["bool", "(5, 3, 3)"]),
        (RRR(), torch.ones(5, 2, 3, 3, dtype=torch.bool), ["(5, 3, 3)"]),
        (ST(), torch.ones(5, 3, 3, dtype=torch.bool), ["ST", "remove it"]),
        (AT(FGSM(0.1)), torch.ones(5, 3, 3, dtype=torch.bool), ["AT", "remove it"]),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(objective: Objective, mask: Tensor | None, facts: list[str]) -> None:
    (model, _, _), (x, y, _) = linear(), batch()
    with pytest.raises(InputError) as refused:
        objective(model, x, y, shortcut=mask)
    assert_states(refused.value, *facts)


def test_a_step_costs_the_gradient_and_the_way_back_through_it() -> None:
    # Forward and back to the weights, back to the images, and back through that.
    assert (step_passes(ST()), step_passes(RRR())) == (3, 3 + 1 + 2)


# A whole training ----------------------------------------------------------------------------------------------------


def quick(**settings: Any) -> TrainConfig:
    plain = {"method": "rrr", "limit": 200, "epochs": 2, "batch_size": 30, "shortcut": "patch:0.9,size=2"}
    return TrainConfig(**plain | settings)


@pytest.mark.slow
def test_a_resumed_training_is_the_one_that_was_not_stopped(tmp_path: Path) -> None:
    config = quick(augment="crop-flip")
    train(config, tmp_path / "whole")
    answers = iter([False] * 8 + [True])
    with pytest.raises(InterruptedRunError):
        train(config, tmp_path / "stopped", should_stop=lambda: next(answers))
    train(config, tmp_path / "stopped", resume=True)
    assert_same(tmp_path / "stopped", tmp_path / "whole")
    assert all(row["reasons"] > 0 for row in rows(tmp_path / "whole"))


@pytest.mark.slow
def test_images_that_were_planted_before_bring_their_mask_along(tmp_path: Path) -> None:
    labels = torch.arange(120) % 3
    plain = Images(torch.randint(0, 255, (120, 1, 8, 8), dtype=torch.uint8), labels, ("a", "b", "c"))
    config = TrainConfig(epochs=1, batch_size=20)
    train(config, tmp_path / "run", objective=RRR(weight=3.0), data=(plant(plain, "disc"), plain))
    assert rows(tmp_path / "run")[0]["reasons"] > 0
    for data in ((plain, plain), None):
        with pytest.raises(InputError) as refused:
            train(config, tmp_path / "none", objective=RRR(), data=data)
        assert_states(refused.value, "rrr", "--shortcut")
        assert not (tmp_path / "none").exists()


def test_without_a_shortcut_the_method_is_refused(cli: Callable, tmp_path: Path) -> None:
    assert_states(cli("train", "--method", "rrr", "--out", "run").refusal(), "rrr", "--shortcut patch:0.99")
    assert not (tmp_path / "run").exists()


def test_an_augmentation_that_no_mask_goes_along_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        train(quick(augment="randaugment"), tmp_path / "run")
    assert_states(refused.value, "rrr", "--augment randaugment", "crop-flip")
    assert not (tmp_path / "run" / "model.safetensors").exists()
