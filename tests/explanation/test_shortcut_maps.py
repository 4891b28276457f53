"""Measures of maps on a planted shortcut: held against linear classifiers whose use of it is known exactly."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonschema import Draft202012Validator
from torch import Tensor, nn

import asgt
from asgt.comparison.explained import Explained
from asgt.comparison.findings import findings_of_maps
from asgt.data import Images, PlantedPixels, plant, shortcut_views
from asgt.errors import DamagedFileError, InputError
from asgt.explanation import Explanation, explain, load_explanation, panel
from asgt.explanation.known_shortcut import planted_again
from asgt.explanation.measures import MEASURES, MapBatch
from asgt.explanation.measures.shortcut_hidden import HIDDEN_SHORTCUT, _elsewhere
from asgt.explanation.outlines import edges
from asgt.files import read_sealed
from support.edits import rewritten
from support.messages import assert_states
from support.paths import ROOT

N, SIDE, CLASSES = 120, 10, 4
LIGHT, BLOCK = 0.9, 0.6
WRONG = 30
"""Images whose block is that of another class."""

PLANT = {"code": "position", "size": 2, "contrast": 0.8}
CORNERS = [(0, 0), (0, 8), (8, 8), (8, 0)]
BLOCKS = [(2, 2), (2, 5), (5, 2), (5, 5)]
"""Where the light patch of a class lies, and its block of 3×3 pixels."""

FROM_SHORTCUT = [measure.name for measure in MEASURES if measure.needs_shortcut]


def images() -> Images:
    """Black images with the block of their class, the first of them with that of the next class."""

    labels = torch.arange(N) % CLASSES
    pixels = torch.zeros(N, 1, SIDE, SIDE)
    shown = torch.where(torch.arange(N) < WRONG, (labels + 1) % CLASSES, labels)
    for number, place in enumerate(shown.tolist()):
        top, left = BLOCKS[place]
        pixels[number, 0, top : top + 3, left : left + 3] = BLOCK
    return Images(pixels, labels, tuple("abcd"))


def linear(patch: float, block: float) -> nn.Module:
    """The logit of a class is ``patch`` times the mean of its patch and ``block`` times that of its block."""

    weight = torch.zeros(CLASSES, SIDE, SIDE)
    for number in range(CLASSES):
        (top, left), (down, right) = CORNERS[number], BLOCKS[number]
        weight[number, top : top + 2, left : left + 2] = patch / 4
        weight[number, down : down + 3, right : right + 3] = block / 9
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, CLASSES, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(weight.flatten(1))
    return model.eval()


@cache
def viewed(view: str) -> Images:
    return shortcut_views(images(), "patch", **PLANT)[view]


@cache
def aligned(patch: float, block: float, attribution: str = "gradient") -> Explanation:
    """A linear model on the images with the shortcut of their class."""

    return explained(linear(patch, block), viewed("aligned"), attribution=attribution, shortcut_view="aligned")


def explained(model: nn.Module, of: Images, **settings: Any) -> Explanation:
    return explain(model, of, eps=0.1, **settings)


def each(explanation: Explanation, measure: str) -> Tensor:
    values = explanation.per_image(measure)
    assert values is not None
    return values


@pytest.mark.slow
@pytest.mark.parametrize(("patch", "block"), [(1.0, 0.0), (0.0, 1.0), (3.0, 1.0)])
def test_mass_on_the_shortcut_is_the_share_that_a_linear_model_uses(patch: float, block: float) -> None:
    gradient = aligned(patch, block)
    for measure in ("shortcut-mass", "shortcut-mass@quarter", "shortcut-mass@full"):
        # The gradient of a linear model is its weights, attacked or not.
        assert each(gradient, measure).tolist() == pytest.approx([patch / (patch + block)] * N)
    assert gradient.values["shortcut/area"].tolist() == [16 / 100] * N

    times_input = aligned(patch, block, "input-x-gradient")
    # An image whose block is of another class has no input where the weights of its own block are.
    shown = torch.where(torch.arange(N) < WRONG, 0.0, BLOCK).double()
    mass = LIGHT * patch / (LIGHT * patch + shown * block)
    values = each(times_input, "shortcut-mass")
    assert values.tolist() == pytest.approx(mass.tolist(), nan_ok=True, abs=1e-6)
    blank = int(mass.isnan().sum())
    assert blank == (WRONG if patch == 0 else 0)
    assert any(f"{blank} of {N} maps are zero everywhere" in note for note in times_input.notes) == bool(blank)


@pytest.mark.slow
def test_the_top_tenth_counts_the_pixels_that_matter_most() -> None:
    # Of ten pixels: four of the patch and six of the block; or nine of the block and one of all that are zero.
    both, rest = aligned(3.0, 1.0), aligned(0.0, 1.0)
    for place in ("", "@quarter", "@full"):
        assert each(both, f"shortcut-top{place}").tolist() == [4 / 10] * N
        assert set(each(rest, f"shortcut-top{place}").tolist()) == {0.0, 0.1}
    # Among 91 pixels that are zero, 16 are the shortcut's: chance.
    assert float(each(rest, "shortcut-top").mean()) == pytest.approx(0.1 * 16 / 91, abs=0.012)


@pytest.mark.slow
def test_accuracy_without_the_shortcut_is_that_of_what_else_a_linear_model_uses() -> None:
    found = {"patch": aligned(1.0, 0.0), "block": aligned(0.0, 1.0), "both": aligned(3.0, 1.0)}
    right = {name: float((each.predictions == each.labels).double().mean()) for name, each in found.items()}
    assert right == {"patch": 1.0, "block": 1 - WRONG / N, "both": 1.0}
    # By a constant all classes are alike to the first model, and the first class is its answer.
    assert each(found["patch"], "shortcut-hidden-mean").tolist() == (found["patch"].labels == 0).double().tolist()
    for name in ("block", "both"):
        assert each(found[name], "shortcut-hidden-mean").tolist() == [0.0] * WRONG + [1.0] * (N - WRONG)
    # Elsewhere, the first uses no pixel, and the others still see most of the block.
    assert each(found["patch"], "elsewhere-hidden-mean").tolist() == [1.0] * N
    assert each(found["patch"], "elsewhere-hidden-noise").tolist() == [1.0] * N
    assert each(found["block"], "elsewhere-hidden-mean").tolist() == [0.0] * WRONG + [1.0] * (N - WRONG)
    # Noise instead of the patch draws one class of four.
    assert float(each(found["patch"], "shortcut-hidden-noise").mean()) == pytest.approx(1 / CLASSES, abs=0.1)


@pytest.mark.slow
def test_a_panel_holds_models_against_each_other_on_the_shortcut() -> None:
    found = {"patch": [aligned(1.0, 0.0)], "both": [aligned(3.0, 1.0)]}
    side_by_side = panel(found)
    assert (side_by_side.n, side_by_side.name) == (N, "gradient+aligned")
    assert side_by_side.shortcut_area == pytest.approx(16 / 100)
    assert side_by_side.value("patch", "shortcut-mass").value == pytest.approx(1.0)
    hidden = side_by_side.value("patch", "shortcut-hidden-mean")
    assert hidden.value == 0.25
    assert 0.15 < hidden.low < 0.25 < hidden.high < 0.35
    (difference,) = side_by_side.differences("shortcut-mass")
    assert (difference.value, difference.decision) == (pytest.approx(0.25), "more")
    (difference,) = side_by_side.differences("shortcut-hidden-mean")
    assert (difference.value, difference.decision) == (pytest.approx(0.25 - 0.75), "less")
    said = str(side_by_side.table())
    assert_states(said, "gradient+aligned", "mass on the shortcut", "shortcut's share of the area", "0.160")
    assert "gradient+aligned" in side_by_side.differences_table().title
    assert_states(str(found["patch"][0].table()), "gradient+aligned", "0.160")

    evidence = SimpleNamespace(explained=[Explained("gradient", side_by_side, {}, ())], tradeoffs={})
    ranged, decided, *_ = findings_of_maps(evidence)  # type: ignore[arg-type]
    assert_states(ranged, "mass on the shortcut", "gradient+aligned", "(both)", "(patch)", "0.160")
    assert_states(decided, "1 difference in mass on the shortcut", "is decided")

    # Other views are other images: they have no panel in common.
    reverse = explained(linear(1.0, 0.0), viewed("reversed"), shortcut_view="reversed")
    assert float((reverse.predictions == reverse.labels).double().mean()) == 0.0
    assert_states(panel(found | {"other": [reverse]}).not_run, "other (seed 0)", "other images")


@pytest.mark.slow
def test_images_without_a_shortcut_are_explained_as_ever(tmp_path: Path) -> None:
    few = images()[:8]
    plain = explained(linear(0.0, 1.0), few, folder=tmp_path / "plain")
    told = json.loads((tmp_path / "plain" / "result.json").read_text())
    assert "shortcut" not in json.dumps(told)
    assert [name for name in plain.values if "shortcut" in name] == []
    assert [plain.per_image(name) for name in FROM_SHORTCUT] == [None] * len(FROM_SHORTCUT)
    side_by_side = panel({"plain": [plain]})
    assert (side_by_side.name, side_by_side.shortcut_view) == ("gradient", "")
    assert {each.name for each in side_by_side.measures}.isdisjoint(FROM_SHORTCUT)
    assert side_by_side.value("plain", "shortcut-mass").not_run
    assert "shortcut" not in str(side_by_side.table()) + str(plain.table())
    # Planted in the view without any, they are the same images.
    absent = shortcut_views(few, "patch", **PLANT)["absent"]
    resumed = explained(linear(0.0, 1.0), absent, shortcut_view="absent", folder=tmp_path / "plain", resume=True)
    assert resumed.settings == plain.settings


@pytest.mark.slow
def test_a_mask_that_is_passed_measures_as_the_plant_does() -> None:
    planted = viewed("aligned")[:20]
    assert isinstance(planted.pixels, PlantedPixels)
    pair = (planted.pixels[:], planted.labels)
    by_mask = explained(linear(3.0, 1.0), pair, shortcut=planted.pixels.masks(), shortcut_view="aligned")
    by_plant = explained(linear(3.0, 1.0), planted, shortcut_view="aligned")
    for name in FROM_SHORTCUT:
        assert each(by_mask, name).equal(each(by_plant, name))
    assert by_mask.settings["shortcut"]["mask"] == by_plant.settings["shortcut"]["mask"]
    assert by_plant.settings["shortcut"]["planted"] == {"name": "patch", "seed": 0, **PLANT}
    assert planted_again(images(), by_plant.settings["shortcut"])[:20].digest() == planted.digest()
    with pytest.raises(InputError, match="not recorded"):
        planted_again(images(), by_mask.settings["shortcut"])


@pytest.mark.slow
def test_evidence_is_read_back_and_is_of_one_plant_and_view(tmp_path: Path) -> None:
    model, place = linear(3.0, 1.0), tmp_path / "maps"
    made = explained(model, viewed("aligned")[:8], shortcut_view="aligned", folder=place)
    read = load_explanation(place)
    assert (read.shortcut_view, read.name, read.stored_as) == ("aligned", "gradient+aligned", "gradient+aligned")
    for name in FROM_SHORTCUT:
        assert each(read, name).equal(each(made, name))
    schema = json.loads((ROOT / "docs" / "schemas" / "explanation-result.schema.json").read_text())
    Draft202012Validator(schema).validate(json.loads((place / "result.json").read_text()))
    kept = explained(model, viewed("aligned")[:8], shortcut_view="aligned", folder=place, resume=True)
    assert kept.seconds == made.seconds

    other = shortcut_views(images(), "disc", size=3)["aligned"]
    for of, view, facts in (
        (viewed("reversed"), "reversed", ["patch", "aligned", "reversed"]),
        (other, "aligned", ["patch", "disc", "size = 3"]),
        (images(), "", ["patch", "no shortcut"]),
    ):
        with pytest.raises(InputError) as refused:
            explained(model, of[:8], shortcut_view=view, folder=place, resume=True)
        assert_states(refused.value, place, *facts, "remove")

    # What claims to have no shortcut while it holds measures of one is damaged.
    result = read_sealed(place / "result.json")[0]
    settings = {name: value for name, value in result["settings"].items() if name != "shortcut"}
    rewritten(place / "result.json", result | {"settings": settings})
    with pytest.raises(DamagedFileError):
        load_explanation(place)


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"shortcut_view": "aligned"}, ["aligned", "no shortcut", "asgt.data.shortcut_view"]),
        ({"shortcut_view": "alined"}, ["'alined'", "'aligned'"]),
        (
            {"shortcut_view": "aligned", "of": "reversed"},
            ["aligned", "are the test set reversed", "omit shortcut_view"],
        ),
        ({"shortcut_view": "reversed", "of": "aligned"}, ["reversed", "are the test set aligned"]),
        ({"shortcut_view": "absent", "of": "aligned"}, ["absent", "are the test set aligned"]),
        ({"shortcut": torch.zeros(N, 12, 12, dtype=torch.bool)}, [f"({N}, 12, 12)", f"bool ({N}, {SIDE}, {SIDE})"]),
        ({"shortcut": torch.zeros(N, SIDE, SIDE)}, ["torch.float32", "bool"]),
        ({"shortcut": "patch"}, ["str", "mask, bool"]),
        ({"shortcut": torch.zeros(N, SIDE, SIDE, dtype=torch.bool), "of": "aligned"}, ["patch:", "omit shortcut"]),
    ],
)
def test_a_shortcut_that_is_not_that_of_the_images_is_refused(settings: dict[str, Any], facts: list[str]) -> None:
    of = viewed(view) if (view := settings.get("of")) else images()
    with pytest.raises(InputError) as refused:
        explained(linear(1.0, 1.0), of, **{name: value for name, value in settings.items() if name != "of"})
    assert_states(refused.value, *facts)


def test_a_patch_larger_than_the_images_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        asgt.data.shortcut_view(images(), "patch", "aligned", size=SIDE + 1)
    assert_states(refused.value, "size = 11", "10×10", "size=10")


@pytest.mark.slow
def test_a_shortcut_without_pixels_and_one_without_room_beside_it_have_no_value() -> None:
    masks = torch.zeros(8, SIDE, SIDE, dtype=torch.bool)
    masks[1, :6], masks[2:, :2] = True, True
    found = explained(linear(1.0, 1.0), images()[:8], shortcut=masks)
    assert all(bool(each(found, name)[0].isnan()) for name in FROM_SHORTCUT)
    lacking = [name for name in FROM_SHORTCUT if bool(each(found, name)[1].isnan())]
    assert lacking == ["elsewhere-hidden-mean", "elsewhere-hidden-noise"]
    assert not any(bool(each(found, name)[2:].isnan().any()) for name in FROM_SHORTCUT)
    assert any("1 of 8 maps have no mass on the shortcut" in note for note in found.notes)


def test_as_many_pixels_elsewhere_are_hidden_as_the_shortcut_has() -> None:
    masks = torch.rand(6, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) < 0.3
    orders = torch.rand(5, 6, SIDE * SIDE, generator=torch.Generator().manual_seed(1)).argsort(dim=2)
    batch: MapBatch = SimpleNamespace(shortcut=masks, random_orders=orders)  # type: ignore[assignment]
    for order, hidden in zip(orders, _elsewhere(batch), strict=True):
        assert not bool((hidden & masks).any())
        assert hidden.sum(dim=(1, 2)).equal(masks.sum(dim=(1, 2)))
        for row in range(6):
            outside = [pixel for pixel in order[row].tolist() if not masks[row].flatten()[pixel]]
            expected = sorted(outside[: int(masks[row].sum())])
            assert hidden[row].flatten().nonzero().flatten().tolist() == expected
    assert [measure.grain for measure in HIDDEN_SHORTCUT] == [1.0, 0.2, 1.0, 0.2]


def test_the_outline_of_a_mask_is_its_edge() -> None:
    mask = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 0]], dtype=torch.bool)
    # An L of three pixels in the upper left corner, as (x, y, x', y').
    assert sorted(edges(mask)) == sorted(
        [(0, 0, 2, 0), (0, 1, 1, 1), (1, 2, 2, 2), (0, 0, 0, 1), (1, 1, 1, 2), (2, 0, 2, 2)]
    )
    assert edges(torch.zeros(2, 2, dtype=torch.bool)) == []
    assert sorted(edges(torch.ones(2, 3, dtype=torch.bool))) == [(0, 0, 0, 2), (0, 0, 3, 0), (0, 2, 3, 2), (3, 0, 3, 2)]


def test_training_images_with_a_shortcut_are_measured_on_it_without_a_view() -> None:
    trained = plant(images(), "patch", strength=0.5, **PLANT)[:8]
    found = explained(linear(1.0, 0.0), trained)
    assert (found.name, found.shortcut_view) == ("gradient", "")
    assert each(found, "shortcut-mass").tolist() == pytest.approx([1.0] * 8)
