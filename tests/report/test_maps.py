"""The picture: what is drawn comes from another route, one rule colours it, and what holds nothing says so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import asgt
from asgt.comparison.gradient_values import gradient_values_of
from asgt.errors import InputError
from asgt.explanation.shown_maps import Rendering, coloured, map_cells, map_rule, row_names
from asgt.report.gradients import gradient_charts
from support.maps import Constant, Linear, X, Y
from support.messages import assert_states

pytestmark = pytest.mark.draws

# --- colours ---------------------------------------------------------------------------------------------------------


def shown(values: Tensor, kind: Rendering = "magnitude") -> np.ndarray:
    """The place of each pixel on the scale, 0 … 255, read from its colour."""

    picture, wrong = coloured(values[None], kind)
    assert wrong == ""
    name = {"magnitude": "magma", "signed": "cividis"}[kind]
    scale = matplotlib.colormaps[name](np.arange(256), bytes=True)[:, :3].astype(int)
    return np.abs(picture.numpy().astype(int)[:, :, None] - scale).sum(axis=-1).argmin(axis=-1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(torch.full((4, 4), 0.3), np.full((4, 4), 255), id="constant"),
        pytest.param(torch.full((4, 4), 1e-42), np.full((4, 4), 255), id="tiny"),
        # 101 values 0 … 100: the 99th percentile is 99 itself, and 100 is no brighter.
        pytest.param(
            torch.arange(101.0)[None], np.array([[min(255, round(255 * n / 99)) for n in range(101)]]), id="ramp"
        ),
        # A single pixel: the percentile is zero, so that the largest value is the scale.
        pytest.param(torch.eye(1, 400) * 0.01, np.eye(1, 400) * 255, id="one pixel"),
    ],
)
def test_a_map_is_scaled_by_its_99th_percentile(values: Tensor, expected: np.ndarray) -> None:
    assert np.abs(shown(values) - expected).max() <= 1
    assert np.abs(shown(-values) - expected).max() <= 1, "a magnitude has no sign"


def test_a_signed_map_is_symmetric_and_grey_at_zero() -> None:
    values = torch.arange(-100.0, 101)[None]
    top = np.quantile(np.abs(values.numpy()), 0.99)
    expected = np.clip((values.numpy() / top + 1) / 2, 0, 1) * 255
    assert np.abs(shown(values, "signed") - expected).max() <= 1.5
    assert abs(int(shown(values, "signed")[0, 100]) - 127.5) <= 1


@pytest.mark.parametrize("kind", ["magnitude", "signed"])
def test_both_scales_keep_their_order_in_grey(kind: Rendering) -> None:
    colours = coloured(torch.linspace(-1 if kind == "signed" else 0, 1, 64)[None, None], kind)[0][0].double().numpy()
    grey = colours @ [0.2126, 0.7152, 0.0722]
    assert all(later >= earlier - 1.0 for earlier, later in pairwise(grey))
    assert grey[-1] - grey[0] > 120


@pytest.mark.parametrize("kind", ["magnitude", "signed"])
@pytest.mark.parametrize(
    ("values", "word"),
    [
        (torch.zeros(4, 4), "all zero"),
        (torch.full((4, 4), torch.nan), "not finite"),
        (torch.tensor([[1.0, torch.inf]]), "not finite"),
        (torch.tensor([[0.0, 1.0, torch.nan]]), "not finite"),
    ],
)
def test_what_cannot_be_shown_is_called_what_it_is(values: Tensor, word: str, kind: Rendering) -> None:
    picture, wrong = coloured(values[None], kind)
    assert wrong == word
    assert (picture == 255).all(), "nothing is coloured"


def test_channels_are_reduced_after_the_magnitude_and_before_the_sign() -> None:
    opposed = torch.stack([torch.arange(6.0).view(2, 3), -torch.arange(6.0).view(2, 3)])
    # The channels cancel: a signed map without a colour, but not of nothing.
    flat, wrong = coloured(opposed, "signed")
    assert wrong == ""
    assert (flat == flat[0, 0]).all()
    assert coloured(torch.zeros(2, 2, 3), "signed")[1] == "all zero"
    assert np.array_equal(coloured(opposed)[0], coloured(opposed[:1])[0])


# --- models ----------------------------------------------------------------------------------------------------------


def test_maps_and_attacks_of_a_linear_model_are_those_of_its_weights() -> None:
    model = Linear()
    maps = asgt.saliency_maps({"linear": model}, X, Y, eps=0.1)
    (column,) = maps.columns
    weight = model.weight.detach().view(2, 1, 4, 4)
    assert torch.allclose(column.maps, weight[Y])
    assert torch.equal(column.predictions, (X.flatten(1) @ model.weight.detach().T).argmax(dim=1))
    assert column.attacked is not None
    # Down the label's margin, as far as the ball and the box go.
    worst = (X - 0.1 * (weight[Y] - weight[1 - Y]).sign()).clamp(0, 1)
    assert torch.allclose(column.attacked, worst, atol=1e-6)
    assert torch.equal(column.explained, Y)
    assert row_names(maps, 1) == ["image of 1", "its map", "under PGD-20, L∞ ε = 0.1", "map under attack"]
    assert "label" in map_rule(maps)
    assert "99th percentile of |a|" in map_rule(maps)


def test_without_labels_every_model_is_explained_on_its_own_answer() -> None:
    models = {"linear": Linear(), "constant": Constant(False)}
    maps = asgt.saliency_maps(models, X, classes=("cat", "dog"))
    linear, constant = maps.columns
    assert torch.equal(linear.explained, linear.predictions)
    assert torch.allclose(linear.maps, models["linear"].weight.detach().view(2, 1, 4, 4)[linear.predictions])  # type: ignore[operator,union-attr]
    assert [words for _, _, words in map_cells(maps, 0, constant, "magnitude")] == ["pred. dog", "explains dog"]
    assert row_names(maps, 0) == ["image", "its map"]
    assert "each model's own answer" in map_rule(maps)


def test_the_attack_starts_by_the_row_of_the_test_split() -> None:
    models = {"linear": asgt.build_model("small_cnn", shape=(1, 4, 4), classes=2)}
    whole = asgt.saliency_maps(models, X, Y, eps=0.1).columns[0].attacked
    part = asgt.saliency_maps(models, X[1:], Y[1:], eps=0.1, rows=torch.tensor([1, 2])).columns[0].attacked
    assert whole is not None
    assert part is not None
    assert torch.allclose(whole[1:], part, atol=1e-6)


def test_a_notebook_shows_the_pictures_of_the_first_images_and_no_markup_of_others() -> None:
    maps = asgt.saliency_maps({"<i>": Linear(), "blank": Constant(False)}, X, Y, classes=("<b>", "dog"), eps=0.1)
    html = maps._repr_html_()
    # Of each image: two models, each with the image, its map, the attacked image and map under attack.
    assert html.count("<td") == 3 * 2 * 4
    assert html.count("all zero") == 3 * 2
    assert html.count("<img") == 3 * 2 * 4 - 3 * 2
    assert "<b>" not in html
    assert "<i>" not in html
    assert map_rule(maps) in html
    assert str(maps) == "maps by gradient of 3 images under <i>, blank, and under PGD-20, L∞ ε = 0.1"

    many = asgt.saliency_maps({"linear": Linear()}, torch.cat([X] * 5))
    assert many._repr_html_().count("<img") == 2 * 12
    assert "the first 12 of 15 images" in many._repr_html_()


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ({}, {}, ["no model"]),
        ({"linear": Linear()}, {"attribution": "gradent"}, ["gradent", "'gradient'"]),
        ({"linear": Linear()}, {"classes": ("only",)}, ["class 1", "name"]),
        ({"linear": Linear()}, {"attribution": "gradcam"}, ["convolution"]),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    models: dict[str, nn.Module], options: dict[str, object], said: list[str]
) -> None:
    with pytest.raises(InputError) as refused:
        asgt.saliency_maps(models, X, Y, **options)  # type: ignore[arg-type]
    assert_states(refused.value, *said)
    with pytest.raises(InputError) as refused:
        asgt.saliency_maps({"linear": Linear()}, 255 * X, Y)
    assert_states(refused.value, "images", "[0, 1]")


# --- figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pixels_are_drawn_as_they_are_and_what_is_missing_is_hatched(tmp_path: Path) -> None:
    models = {"a $model$ of a long name": Linear(), "zero": Constant(False), "broken": Constant(True)}
    maps = asgt.saliency_maps(models, X, Y, eps=0.1)
    asgt.write_maps(maps[:2], tmp_path / "maps.png")
    asgt.write_maps(maps[:1], tmp_path / "maps.pdf")
    asgt.write_contact_sheet(maps, tmp_path / "contact.png")
    assert (tmp_path / "maps.pdf").read_bytes().startswith(b"%PDF-")
    for name in ("maps", "contact"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        assert (edge == 255).all(), "something is cut off at the edge"
        # Sixteen flat pixels of the first image: each grey level fills whole blocks, none is blended with the next.
        for level in np.unique(np.rint(255 * X[0].numpy()).astype(int)):
            assert (pixels == level).all(axis=-1).sum() > 100, (name, level)
    assert [map_cells(maps, 0, column, "magnitude")[1][1] for column in maps.columns] == ["", "all zero", "not finite"]


# --- distributions ---------------------------------------------------------------------------------------------------


def test_distributions_are_numpys_histograms() -> None:
    draws = torch.Generator().manual_seed(3)
    flat = torch.randn(5, 1, 6, 6, generator=draws)
    steep = 1000 * torch.randn(5, 1, 6, 6, generator=draws) ** 3
    steep[0], steep[1, 0, 0, 0] = 0.0, torch.nan
    relative, raw = gradient_charts(
        gradient_values_of({"flat": flat, "steep": steep}, "of five images"), {"flat": 0, "steep": 1}
    )

    kept = {"flat": flat.double().numpy().reshape(5, 36), "steep": steep[2:].double().numpy().reshape(3, 36)}
    for line in relative.lines:
        values = kept[line.name] / np.abs(kept[line.name]).max(axis=1, keepdims=True)
        counts, edges = np.histogram(values, bins=21, range=(-1, 1))
        assert line.x == pytest.approx((edges[1:] + edges[:-1]) / 2)
        assert line.y == pytest.approx(np.maximum(100 * counts / values.size, 0.001))
        assert "0 %" in line.texts or (counts > 0).all()
    for line in raw.lines:
        assert sum(line.y) == pytest.approx(100), "every value stands somewhere"
    # The steep one's lie three decades higher; relative to each image's largest, it is no longer to be seen.
    flat_line, steep_line = raw.lines
    middles = [np.average(line.x, weights=line.y) for line in (flat_line, steep_line)]
    assert middles[1] - middles[0] > 1.5


def test_gradients_that_are_nothing_have_no_distribution() -> None:
    assert gradient_values_of({"zero": torch.zeros(2, 1, 3, 3)}, "of two images") is None
    assert gradient_charts(None, {"zero": 0}) == []
