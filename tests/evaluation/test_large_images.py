"""Large images go through a model a few at a time, whatever asks it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt.comparison.pictures import _gradients
from asgt.data import batch_that_fits, batching
from asgt.evaluation import known

LARGEST = 2**14
"""Values of a batch in these tests, in the place of 2**20: five images here."""


class Watched(nn.Module):
    """A linear model of coarse pixels that keeps the size of the largest batch."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 4 * 4, 3)
        self.most = 0

    def forward(self, x: Tensor) -> Tensor:
        self.most = max(self.most, x.numel())
        logits: Tensor = self.head(nn.functional.avg_pool2d(x, 8).flatten(1))
        return logits


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(batching, "_VALUES", LARGEST)
    monkeypatch.setattr(known, "FIXED_VALUES", LARGEST)
    torch.manual_seed(0)
    return Watched().eval()


@pytest.fixture(scope="module")
def images() -> asgt.Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (24, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return asgt.Images(pixels, torch.arange(24) % 3, ("a", "b", "c"))


def test_an_evaluation_asks_about_a_few_at_a_time(watched: Watched, images: asgt.Images) -> None:
    small = asgt.evaluate(watched, images, [asgt.PGD(eps=0.0, steps=3)], epsilons=[0.001, 0.01], thorough=True)
    assert 0 < watched.most <= LARGEST
    large = asgt.evaluate(watched, images, [asgt.PGD(eps=0.0, steps=3)], epsilons=[0.001, 0.01], batch_size=24)
    assert all(small.outcomes[name].equal(large.outcomes[name]) for name in small.outcomes)


def test_an_explanation_and_its_pictures_ask_about_a_few_at_a_time(watched: Watched, images: asgt.Images) -> None:
    asgt.explain(watched, images, eps=0.01)
    maps = asgt.saliency_maps({"net": watched}, asgt.data.to_unit(images.pixels), images.labels, eps=0.01)
    assert len(maps.columns[0].maps) == 24
    assert len(_gradients(watched, images)) == 24
    assert 0 < watched.most <= LARGEST


@pytest.mark.parametrize(("side", "expected"), [(28, 256), (32, 256), (128, 21), (224, 6), (2000, 1)])
def test_only_large_images_go_in_smaller_batches(side: int, expected: int) -> None:
    pixels = torch.zeros(1, dtype=torch.uint8).expand(3, 3, side, side)
    assert batch_that_fits(asgt.Images(pixels, torch.arange(3), ("a", "b", "c")), 256) == expected
