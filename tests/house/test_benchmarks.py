"""The parts of the benchmark that decide what its tables say: the floor, and where the tables go."""

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from asgt.explanation.measures.sensitivity import max_sensitivity
from asgt.randomness import SampleKeyed
from support.paths import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(autouse=True)
def _benchmarks_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def brightness(x: Tensor) -> Tensor:
    """Class 1 above a brightness of 0.5, class 0 below, one pixel a sample."""

    margin = x.flatten(1) - 0.5
    return torch.cat([-margin, margin], dim=1)


def test_the_clairvoyant_pays_a_failure_below_and_a_success_at_the_smallest_eps() -> None:
    from floor import clairvoyant

    # One pixel of class 1 at 0.765 each: it breaks once it has gone down by more than 0.265.
    x, y = torch.full((6, 1, 1, 1), 0.765), torch.ones(6, dtype=torch.int64)
    x[5] = 0.3  # a clean error
    grid = [0.15, 0.3]
    right = torch.tensor([[True, True, True, False, True, False], [False, False, False, False, True, False]])
    noise = torch.tensor([1.0, 0.0, -0.9, 0.0, 0.0, 0.0]).view(6, 1, 1, 1)

    floor = clairvoyant(brightness, x, y, right, grid, noise)

    # At 0.3 a step is 0.01875. From 1.0, where the box stops the start, 0.5 / 0.01875 = 26.7; from 0.765, 14.1; a start
    # at 0.495 fools at once. Each of them has failed at 0.15 before, for 40.
    assert floor[:3].tolist() == [40 + 27, 40 + 15, 40]
    # Broken at the smallest eps by somebody's word: no failure below it, and 40 steps do not find the success.
    assert floor[3] == 40
    # Withstands the grid: one failure, at its top.
    assert floor[4] == 40
    assert floor[5] == 0


def test_what_is_broken_once_stays_broken_for_the_clairvoyant() -> None:
    from floor import clairvoyant

    x, y = torch.full((1, 1, 1, 1), 0.6), torch.ones(1, dtype=torch.int64)
    grid = [0.08, 0.16, 0.32]
    right = torch.tensor([[True], [False], [True]])

    # eps* is 0.16, whatever the loop said of 0.32: from 0.6048, steps of 0.01 need 10.5.
    floor = clairvoyant(brightness, x, y, right, grid, torch.full_like(x, 0.03))
    assert floor.tolist() == [40 + 11]


def test_a_table_replaces_what_stood_between_its_comments_and_nothing_else(tmp_path: Path) -> None:
    from page import replace_section

    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- /one -->\nbetween\n<!-- two --><!-- /two -->\n")

    replace_section(page, "one", "| a |\n")
    replace_section(page, "two", "| ε |")
    replace_section(page, "one", "| b |")

    assert page.read_text(encoding="utf-8") == (
        "before\n<!-- one -->\n\n| b |\n\n<!-- /one -->\nbetween\n<!-- two -->\n\n| ε |\n\n<!-- /two -->\n"
    )


@pytest.mark.parametrize("text", ["", "<!-- one -->", "<!-- /one --><!-- one -->", 2 * "<!-- one --><!-- /one -->"])
def test_a_page_without_its_two_comments_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    from page import replace_section

    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="each once"):
        replace_section(page, "one", "| a |")
    assert page.read_text() == text


def test_a_verdict_names_what_is_missed() -> None:
    from timing import verdict

    assert verdict(time=True, values=True) == "yes"
    assert verdict(time=False, accuracy_above=False, values=True) == "no: time, accuracy above"


class Squares(nn.Module):
    """Logits Σ w x² / 2, whose gradient w x moves by w δ."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(1) @ self.weight.flatten(1).T / 2


def test_quantus_and_asgt_measure_one_max_sensitivity_on_the_same_draws() -> None:
    pytest.importorskip("quantus", reason="Quantus is not installed: make bench installs it")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from saliency_panel import our_noise, quantus_max_sensitivity

        generator = torch.Generator().manual_seed(0)
        weight, x = (0.2 + torch.rand(count, 1, 4, 4, generator=generator) for count in (2, 3))
        y, model = torch.tensor([0, 1, 1]), Squares(weight)
        theirs = quantus_max_sensitivity(model, x, y, radius=0.1, draws=4, perturbed=our_noise(x, 0.1))
    ours = max_sensitivity(model, x, y, radius=0.1, draws=4)

    noise = SampleKeyed(0, torch.arange(3))
    draws = [0.1 * (2 * noise.uniform_like(x) - 1) for _ in range(4)]
    for i, label in enumerate(y.tolist()):
        moved = max(float((weight[label] * delta[i]).norm()) for delta in draws)
        expected = moved / float((weight[label] * x[i]).norm())
        assert float(theirs[i]) == pytest.approx(expected, rel=1e-4)
        assert float(ours[i]) == pytest.approx(expected, rel=1e-4)
