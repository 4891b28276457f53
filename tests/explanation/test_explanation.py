"""One model's maps, measured: each measure by hand or by an oracle, and a model that is known to look at one patch."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import scipy.stats
import torch
from torch import Tensor, nn

from asgt.data import Images
from asgt.errors import DamagedFileError, InputError
from asgt.explanation import MEASURES, QUANTILES, Explanation, explain, load_explanation, measure_named, strokes
from asgt.explanation.gate import reinitialised
from asgt.explanation.measures import measures_under
from asgt.explanation.measures.road import impute
from asgt.explanation.measures.sensitivity import max_sensitivity
from asgt.explanation.similarity import cosine, gini, order_of, ranks, spearman, top_overlap
from asgt.files import read_json, read_sealed, write_tensors
from asgt.models import build_model
from asgt.randomness import SampleKeyed
from support.edits import rewritten
from support.messages import assert_states

SIDE, PATCH = 12, (slice(2, 5), slice(6, 9))
PIXELS, PATCHED = SIDE * SIDE, 9


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- a map alone, and two maps ---------------------------------------------------------------------------------------


def test_the_gini_index_by_hand() -> None:
    maps = torch.tensor(
        [
            [[1.0, 2.0], [3.0, 4.0]],  # (−3·1 − 1·2 + 1·3 + 3·4) / (4·10)
            [[-1.0, 2.0], [-3.0, 4.0]],  # of |a|
            [[5.0, 5.0], [5.0, 5.0]],
            [[0.0, 0.0], [7.0, 0.0]],  # all in one of n: 1 − 1/n
            [[0.0, 0.0], [0.0, 0.0]],
        ]
    )
    found = gini(maps).tolist()
    assert found[:4] == pytest.approx([0.25, 0.25, 0.0, 0.75])
    assert math.isnan(found[4])


def test_the_gini_index_is_that_of_quantus() -> None:
    quantus = pytest.importorskip("quantus", reason="quantus is not installed")
    maps = random(6, 1, 9, 9) - 0.5
    # It adds 1e-7 to every value, which is nothing beside values of a million.
    metric = quantus.Sparseness(normalise=False, disable_warnings=True)
    theirs = metric.evaluate_batch(x_batch=maps.numpy(), a_batch=1e6 * maps.abs().double().numpy())
    assert gini(maps).tolist() == pytest.approx(theirs.tolist(), abs=1e-6)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_ranks_and_their_correlation_are_scipys_with_ties(levels: int) -> None:
    m, other = (torch.round(levels * random(7, 6, 5, seed=seed)) for seed in (1, 2))
    expected = scipy.stats.rankdata(m.flatten(1).numpy(), axis=1)
    assert ranks(m.flatten(1)).numpy() == pytest.approx(expected)

    oracle = [
        scipy.stats.spearmanr(one.ravel(), two.ravel())[0] for one, two in zip(m.numpy(), other.numpy(), strict=True)
    ]
    assert spearman(m, other).tolist() == pytest.approx(oracle, abs=1e-12)
    assert spearman(m, 3 * m + 1).tolist() == pytest.approx([1.0] * 7)
    assert spearman(m, -m).tolist() == pytest.approx([-1.0] * 7)


def test_a_constant_map_ranks_nothing() -> None:
    constant = torch.full((1, 3, 3), 0.3)
    assert math.isnan(float(spearman(constant, constant)))
    assert math.isnan(float(spearman(constant, random(1, 3, 3))))


def test_the_cosine_by_hand() -> None:
    a = torch.tensor([[[3.0, 4.0]], [[1.0, 0.0]], [[0.0, 0.0]]])[:, None]
    other = torch.tensor([[[4.0, 3.0]], [[-2.0, 0.0]], [[1.0, 0.0]]])[:, None]
    found = cosine(a, other).tolist()
    assert found[:2] == pytest.approx([24 / 25, -1.0])
    assert math.isnan(found[2])


def test_an_order_begins_at_the_top_and_breaks_ties_by_its_noise() -> None:
    m = torch.zeros(3, 4, 5)
    m[0, 1, 2], m[0, 3, 4] = 2.0, 5.0
    ids = torch.tensor([4, 8, 15])
    order = order_of(m, SampleKeyed(0, ids))
    assert order[0, :2].tolist() == [19, 7]
    assert [sorted(row) for row in order.tolist()] == [list(range(20))] * 3
    assert order[1].tolist() not in (order[2].tolist(), list(range(20)))
    assert order_of(m[1:2], SampleKeyed(0, ids[1:2])).tolist() == order[1:2].tolist()


def test_the_overlap_counts_the_common_top() -> None:
    order = torch.arange(20)[None]
    assert top_overlap(order, order.roll(1, dims=1), share=0.25).tolist() == [0.8]
    assert top_overlap(order, order.flip(1)).tolist() == [0.0]


def test_strokes_reach_one_pixel_beyond_the_ink() -> None:
    pixels = torch.zeros(2, 3, 6, 6, dtype=torch.uint8)
    pixels[0, 1, 0, 2], pixels[1, 0, 3, 3] = 128, 127  # half of the range is between them
    found = strokes(Images(pixels, torch.tensor([0, 1]), ("a", "b")))
    expected = torch.zeros(2, 6, 6, dtype=torch.bool)
    expected[0, :2, 1:4] = True
    assert found.equal(expected)


# --- ROAD's imputation -----------------------------------------------------------------------------------------------


def solved(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """The imputation of one image (C, H, W), its system assembled pixel by pixel and solved by scipy."""

    height, width = hidden.shape
    number = {place: index for index, place in enumerate(zip(*np.nonzero(hidden), strict=True))}
    matrix = scipy.sparse.lil_matrix((len(number), len(number)))
    sides = np.zeros((len(number), len(image)))
    for (row, column), index in number.items():
        for down in (-1, 0, 1):
            for across in (-1, 0, 1):
                place = (row + down, column + across)
                if (down, across) == (0, 0) or not (0 <= place[0] < height and 0 <= place[1] < width):
                    continue
                weight = 1 / 6 if 0 in (down, across) else 1 / 12
                matrix[index, index] += weight
                if place in number:
                    matrix[index, number[place]] -= weight
                else:
                    sides[index] += weight * image[:, place[0], place[1]]
    filled = image.copy()
    solution = scipy.sparse.linalg.spsolve(matrix.tocsc(), sides).reshape(len(number), len(image))
    filled[:, hidden] = solution.T
    return filled


@pytest.mark.parametrize("channels", [1, 3])
def test_road_imputes_what_a_sparse_solve_does(channels: int) -> None:
    x = random(5, channels, 9, 11)
    hidden = random(5, 9, 11, seed=1) < torch.tensor([0.1, 0.5, 0.9, 0.0, 0.0]).view(-1, 1, 1)
    hidden[0, [0, 0, -1, -1], [0, -1, 0, -1]] = True  # the corners
    hidden[3] = True
    hidden[3, 4, 7] = False  # everything but one pixel
    hidden[4, 2:8, :7] = True  # a hole at the edge

    found = impute(x, hidden)
    for one, image, mask in zip(found, x, hidden, strict=True):
        assert one.numpy() == pytest.approx(solved(image.double().numpy(), mask.numpy()), abs=1e-5)
    assert found.where(hidden[:, None], x).equal(found)
    assert found[3].flatten(1).amax(dim=1).tolist() == pytest.approx(x[3, :, 4, 7].tolist(), abs=1e-5)


def test_road_does_not_look_at_what_is_hidden_nor_at_other_images() -> None:
    x, hidden = random(4, 2, 8, 8), random(4, 8, 8, seed=1) < 0.7
    found = impute(x, hidden)
    assert impute(torch.where(hidden[:, None], torch.nan, x), hidden).equal(found)
    assert torch.cat([impute(one, mask) for one, mask in zip(x.split(1), hidden.split(1), strict=True)]).equal(found)


def test_road_solves_a_large_hole() -> None:
    hidden = torch.ones(1, 40, 40, dtype=torch.bool)
    hidden[0, :, 0] = False
    x = random(1, 1, 40, 40)
    expected = solved(x[0].double().numpy(), hidden[0].numpy())
    assert impute(x, hidden)[0].numpy() == pytest.approx(expected, abs=1e-4)


def test_road_refuses_an_image_without_pixels_and_masks_of_another_shape() -> None:
    with pytest.raises(InputError, match="all pixels"):
        impute(random(1, 1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool))
    with pytest.raises(InputError, match="expected bool"):
        impute(random(1, 1, 4, 4), torch.ones(1, 4, 5, dtype=torch.bool))


# --- max-sensitivity -------------------------------------------------------------------------------------------------


class Square(nn.Module):
    """Logits (Σx²/2, 0): the gradient of the first is the image itself."""

    def forward(self, x: Tensor) -> Tensor:
        score = x.flatten(1).square().sum(dim=1) / 2
        return torch.stack([score, 0 * score], dim=1)


class Watched(nn.Module):
    """A model that keeps the sizes of the batches it sees."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.sizes = model, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        logits: Tensor = self.model(x)
        return logits


def test_a_linear_model_is_not_sensitive() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    assert max_sensitivity(model, random(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])).tolist() == [0.0] * 4


def test_the_sensitivity_of_a_square_is_the_largest_draw() -> None:
    x, y, ids = random(5, 2, 4, 4), torch.zeros(5, dtype=torch.int64), torch.tensor([3, 1, 4, 15, 9])
    noise = SampleKeyed(7, ids)
    lengths = torch.stack([0.1 * (2 * noise.uniform_like(x) - 1) for _ in range(4)]).flatten(2).norm(dim=2)
    expected = lengths.amax(dim=0) / x.flatten(1).norm(dim=1)

    found = max_sensitivity(Square(), x, y, radius=0.1, draws=4, ids=ids, seed=7)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert max_sensitivity(Square(), x, y, radius=0.1, draws=5, ids=ids, seed=7).ge(found).all()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_sensitivity_holds_one_batch_of_copies_whose_size_changes_nothing(batch_size: int) -> None:
    model = Watched(Square())
    x, y = random(5, 1, 4, 4), torch.zeros(5, dtype=torch.int64)
    found = max_sensitivity(model, x, y, batch_size=batch_size)
    assert found.tolist() == pytest.approx(max_sensitivity(Square(), x, y).tolist(), rel=1e-6)
    assert max(model.sizes) <= batch_size
    assert sum(model.sizes) == 5 * (1 + 10)


def test_a_zero_attribution_has_no_sensitivity() -> None:
    found = max_sensitivity(Square(), torch.zeros(1, 1, 4, 4), torch.tensor([0]))
    assert math.isnan(float(found))


# --- the gate --------------------------------------------------------------------------------------------------------


def test_a_reinitialised_net_has_its_own_initialisation_and_leaves_the_trained_one_alone() -> None:
    model = build_model("alexnet", (1, 28, 28), 10, width=0.1)
    kept = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    copy, why = reinitialised(model, 3)

    assert (why, torch.get_rng_state().equal(state)) == ("", True)
    assert all(weight.equal(kept[name]) for name, weight in model.state_dict().items())
    assert copy is not None
    layer, trained = copy.net[3], model.net[3]
    assert not layer.weight.equal(trained.weight)
    # He et al.: a variance of 2 / fan-in; PyTorch's default is a sixth of it, and draws biases too.
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / layer.weight[0].numel()), rel=0.1)
    assert not layer.bias.any()
    again, other = reinitialised(model, 3)[0], reinitialised(model, 4)[0]
    assert again is not None
    assert other is not None
    assert again.net[3].weight.equal(layer.weight)
    assert not other.net[3].weight.equal(layer.weight)


@pytest.mark.parametrize("name", ["small_cnn", "alexnet", "resnet18"])
def test_every_model_of_ours_can_be_reinitialised(name: str) -> None:
    model = build_model(name, (3, 16, 16), 4, mean=[0.5] * 3, std=[0.2] * 3, width=0.1)
    copy, why = reinitialised(model, 0)
    assert why == ""
    assert copy is not None
    assert copy.normalize.mean.equal(model.normalize.mean)


def test_a_parameter_that_no_module_reinitialises_is_named() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model.register_parameter("scale", nn.Parameter(torch.ones(2)))
    copy, why = reinitialised(model, 0)
    assert copy is None
    assert "no module re-initialises scale" in why
    assert reinitialised(Square(), 0) == (None, "the model has no parameters to re-initialise")

    class Old(nn.Linear):
        """Writes past what a tensor counts, as code of long ago does."""

        def reset_parameters(self) -> None:
            self.weight.data.uniform_(-1, 1)
            self.bias.data.uniform_(-1, 1)

    class Asking(nn.Linear):
        def reset_parameters(self, std: float | None = None) -> None:
            if self.weight.grad_fn is None and std is None and hasattr(self, "made"):
                raise TypeError("std is missing")
            super().reset_parameters()

    old = nn.Sequential(nn.Flatten(), Old(4, 2))
    copy, why = reinitialised(old, 0)
    assert copy is not None
    assert why == ""
    assert not copy[1].weight.equal(old[1].weight)
    asking = nn.Sequential(nn.Flatten(), Asking(4, 2))
    asking[1].made = True
    assert reinitialised(asking, 0) == (None, "Asking cannot be re-initialised: TypeError")


# --- a model that looks at one patch ---------------------------------------------------------------------------------


class Patch(nn.Module):
    """Logits (b − s, s): s is the sum over a patch of what it lies above a half."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.linear = nn.Flatten(), nn.Linear(PIXELS, 2)
        weight = torch.zeros(SIDE, SIDE)
        weight[PATCH] = 1.0
        with torch.no_grad():
            self.linear.weight.copy_(torch.stack([-weight.flatten(), weight.flatten()]))
            # With the whole patch hidden by the mean, 0.5, the answer is class 0.
            self.linear.bias.copy_(torch.tensor([PATCHED / 2 + 0.2, -PATCHED / 2]))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.flatten(x))
        return logits


class Blind(nn.Module):
    """A model whose maps are the same whatever its one weight is."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("pattern", torch.linspace(-1, 1, PIXELS))

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.scale, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        score = self.scale * (x.flatten(1) @ self.pattern)  # type: ignore[operator]
        return torch.stack([-score, score], dim=1)


def patched(count: int = 200) -> Images:
    """Noise with a bright patch, class 1, each followed by its negative, class 0: the mean is a half."""

    generator = torch.Generator().manual_seed(0)
    bright = torch.randint(0, 256, (count // 2, 1, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    bright[:, :, PATCH[0], PATCH[1]] = 230
    pixels = torch.stack([bright, 255 - bright], dim=1).flatten(0, 1)
    return Images(pixels, torch.tensor([1, 0]).repeat(count // 2), ("dark", "bright"))


def on_patch(count: int = 200) -> Tensor:
    objects = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    objects[:, PATCH[0], PATCH[1]] = True
    return objects


@pytest.fixture(scope="module")
def found() -> Explanation:
    return explain(Patch(), patched(), eps=0.1, objects=on_patch(), batch_size=64)


def mean_of(found: Explanation, measure: str) -> float:
    values = found.per_image(measure)
    assert values is not None
    return float(values.mean())


def all_hidden(share: float) -> float:
    """The chance that random pixels, this share of all, hold the whole patch."""

    count = int(share * PIXELS + 1e-9)
    return math.comb(PIXELS - PATCHED, count - PATCHED) / math.comb(PIXELS, count)


def test_the_top_hides_the_patch_and_random_pixels_do_not(found: Explanation) -> None:
    assert found.predictions.equal(found.labels)
    # Ten per cent are 14 pixels, the patch among them: what is left is the mean, which is called dark.
    dark = found.labels == 0
    assert found.values["mean/top"].equal(dark.expand(len(QUANTILES), -1))
    # One pixel of the patch is enough to be right.
    expected = [1 - all_hidden(share) / 2 for share in QUANTILES]
    random = found.values["mean/random"].double().mean(dim=(0, 2)).tolist()
    assert random == pytest.approx(expected, abs=0.06)
    gap = sum(one - 0.5 for one in expected) / len(QUANTILES)
    assert mean_of(found, "gap-mean") == pytest.approx(gap, abs=0.015)
    # Noise instead of the patch is right half the time.
    assert mean_of(found, "gap-noise") > 0.25


def test_road_keeps_the_patch_to_the_last_or_removes_it_first(found: Explanation) -> None:
    assert found.values["linear/least"].all()
    # What the surrounding noise says of the patch is chance: half of 200 images, ± 4 deviations.
    assert found.values["linear/top"].double().mean().item() == pytest.approx(0.5, abs=0.15)
    assert mean_of(found, "road") == pytest.approx(0.25, abs=0.075)


def test_a_linear_models_maps_in_closed_form(found: Explanation) -> None:
    # Nine equal values of 144: 1 − 9/144.
    assert found.values["sparseness"].tolist() == pytest.approx([1 - PATCHED / PIXELS] * 200)
    assert found.values["norm"].tolist() == pytest.approx([3.0] * 200)
    assert found.values["sensitivity"].tolist() == [0.0] * 200
    for name in ("rank", "cosine"):
        assert found.values[name].flatten().tolist() == pytest.approx([1.0] * 400)
    # The patch is common, nine of the top fourteen; the ties are not.
    overlap = found.values["overlap"]
    assert (overlap >= 9 / 14).all()
    assert float(overlap.mean()) < 0.75
    assert found.values["mass"].tolist() == pytest.approx([1.0] * 200)
    assert found.values["area"].tolist() == pytest.approx([PATCHED / PIXELS] * 200)

    x = patched().pixels.double().flatten(1) / 255 - 0.5
    weight = on_patch(1).double().flatten()
    expected = (x @ weight).abs() / (x.norm(dim=1) * 3)
    assert found.values["alignment"].tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_an_attack_that_crosses_the_middle_flips_and_a_smaller_one_does_not(found: Explanation) -> None:
    # The patch stands 0.40 above a half: ε = 0.1 does not turn it, 0.5 does, and a quarter of 0.5 does not.
    assert not found.values["flipped"].any()
    strong = explain(Patch(), patched(20), eps=0.5)
    assert strong.values["flipped"].sum(dim=1).tolist() == [0, 20]
    unflipped = strong.per_image("rank@full:unflipped")
    assert unflipped is not None
    assert unflipped.isnan().all()
    assert mean_of(strong, "rank@full") == pytest.approx(1.0)


@pytest.mark.slow
def test_the_gate_tells_a_map_that_was_learnt_from_one_that_was_not(found: Explanation) -> None:
    assert found.gate.shape == (3, 200)
    assert abs(found.gate_median()) < 0.3
    blind = explain(Blind(), patched(), eps=0.1)
    assert blind.gate_median() == blind.between_median() == pytest.approx(1.0)
    # Two random linear maps of 144 pixels have nothing in common.
    assert abs(found.between_median()) < 0.3


@pytest.mark.slow
def test_batches_change_nothing_and_none_is_larger_than_asked(found: Explanation) -> None:
    model = Watched(Patch())
    other = explain(model, patched(), eps=0.1, objects=on_patch(), batch_size=50)
    assert max(model.sizes) == 50
    assert other.gate.numpy() == pytest.approx(found.gate.numpy(), abs=1e-9)
    for name, values in found.values.items():
        if values.dtype == torch.bool:
            assert other.values[name].equal(values), name
        else:
            assert other.values[name].numpy() == pytest.approx(values.numpy(), abs=1e-6), name


@pytest.mark.slow
def test_noise_is_keyed_by_the_rows_of_the_test_split(found: Explanation) -> None:
    # With the other images' mean left in, a part of the images has the values it has among all of them.
    rows = torch.arange(40, 80)
    part = explain(Patch(), patched()[rows], eps=0.1, ids=rows)
    assert part.values["noise/random"].equal(found.values["noise/random"][..., rows])
    assert not explain(Patch(), patched()[rows], eps=0.1).values["noise/random"].equal(part.values["noise/random"])


def test_the_global_generator_and_the_modes_stay_as_they_were() -> None:
    model = Patch().train()
    state = torch.get_rng_state()
    explain(model, patched(6), eps=0.1)
    assert torch.get_rng_state().equal(state)
    assert model.training
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.slow
def test_real_digits_have_every_measure(digits_net: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits_net
    images = Images((x[:100] * 255).round().to(torch.uint8), y[:100], tuple("0123456789"))
    corner = torch.zeros(100, *images.shape[1:], dtype=torch.bool)
    corner[:, :2, :2] = True
    found = explain(net, images, eps=0.12, norm="l2", objects=strokes(images), shortcut=corner)
    for measure in MEASURES:
        values = found.per_image(measure.name)
        assert values is not None
        assert values.isfinite().sum() > 50, measure.name
    assert mean_of(found, "gap-mean") > 0.1
    assert found.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("attribution", ["ig", "smoothgrad", "input-x-gradient", "gradcam"])
def test_other_attributions_are_measured_as_well(attribution: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("small_cnn", (1, SIDE, SIDE), 2, width=0.1)
    images, rows = patched(12), torch.arange(4, 8)
    found = explain(model, images, eps=0.05, attribution=attribution, objects=on_patch(12), batch_size=12)
    assert found.settings["method"] == attribution
    assert found.gate.shape == (3, 12)
    for name in ("sparseness", "sensitivity", "rank", "mass"):
        assert found.values[name].isfinite().any(), name

    # The noise is the image's own: a part of the images has the maps it has among all of them.
    part = explain(model, images[rows], eps=0.05, attribution=attribution, ids=rows)
    for name in ("sparseness", "sensitivity", "rank"):
        expected = found.values[name][..., rows].numpy()
        assert part.values[name].numpy() == pytest.approx(expected, rel=1e-3, nan_ok=True), name


# --- on disk ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "explanation"
    explain(Patch(), patched(20), eps=0.1, objects=on_patch(20), folder=folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A finished explanation, for the test to damage as it likes."""

    return shutil.copytree(written, tmp_path / "explanation")


def test_an_explanation_comes_back_as_it_was(folder: Path) -> None:
    fresh = explain(Patch(), patched(20), eps=0.1, objects=on_patch(20))
    kept = load_explanation(folder)
    for name in ("attribution", "settings", "eps", "norm", "seed", "model", "data", "notes"):
        assert getattr(kept, name) == getattr(fresh, name), name
    for name in ("ids", "labels", "predictions", "gate"):
        assert getattr(kept, name).equal(getattr(fresh, name)), name
    assert kept.values.keys() == fresh.values.keys()
    assert all(values.equal(fresh.values[name]) for name, values in kept.values.items())

    result = read_json(folder / "result.json")
    assert result["settings"]["mean"] == pytest.approx([0.5])
    assert result["settings"]["reduction"] == "mean over channels of |a|"
    assert result["settings"]["method"] == "gradient"
    assert result["means"]["mass"] == {"mean": 1.0, "n": 20}


def test_a_finished_explanation_is_taken_up_without_a_pass(folder: Path) -> None:
    before = (folder / "result.json").read_bytes()
    model = Patch()
    model.forward = None  # type: ignore[assignment]
    kept = explain(model, patched(20), eps=0.1, objects=on_patch(20), folder=folder, resume=True)
    assert kept.seconds == load_explanation(folder).seconds
    assert (folder / "result.json").read_bytes() == before


def test_an_explanation_that_lost_its_result_is_made_anew(folder: Path) -> None:
    before = read_sealed(folder / "result.json")[0]
    (folder / "result.json").unlink()
    explain(Patch(), patched(20), eps=0.1, objects=on_patch(20), folder=folder, resume=True)
    after = read_sealed(folder / "result.json")[0]
    assert after | {"seconds": 0} == before | {"seconds": 0}


def other_weights() -> nn.Module:
    model = Patch()
    with torch.no_grad():
        model.linear.bias += 0.01
    return model


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        {"eps": 0.2},
        {"norm": "l2"},
        {"seed": 1},
        {"model": other_weights()},
        {"objects": None},
        {"objects": ~on_patch(20)},
        {"ids": torch.arange(20) + 1},
        {"images": patched(40)[torch.arange(20, 40)]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_explanation_is_refused(change: dict[str, object], finished: bool, folder: Path) -> None:
    if not finished:
        (folder / "result.json").unlink()
    asked = {"model": Patch(), "images": patched(20), "eps": 0.1, "objects": on_patch(20)} | change
    with pytest.raises(InputError) as refused:
        explain(**asked, folder=folder, resume=True)  # type: ignore[arg-type]
    assert_states(refused.value, folder, "model", "images", "settings", "remove")


def test_a_folder_that_is_taken_is_refused_without_resume(folder: Path) -> None:
    with pytest.raises(InputError) as refused:
        explain(Patch(), patched(20), eps=0.1, folder=folder)
    assert_states(refused.value, folder, "--resume", "remove")
    with pytest.raises(InputError) as refused:
        explain(Patch(), patched(20), eps=0.1, folder=folder / "result.json")
    assert_states(refused.value, folder / "result.json", "file", "folder")
    with pytest.raises(InputError) as refused:
        load_explanation(folder.parent)
    assert_states(refused.value, folder.parent, "no finished explanation", "asgt explain")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def edited(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        result = read_json(folder / "result.json")
        change(result)
        rewritten(folder / "result.json", result)

    return edit


def other_values(folder: Path) -> None:
    import safetensors

    with safetensors.safe_open(folder / "values.safetensors", "pt") as file:
        values, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    values["mass"] = values["mass"] / 2
    write_tensors(folder / "values.safetensors", values, metadata)


def fewer_values(folder: Path) -> None:
    import safetensors

    with safetensors.safe_open(folder / "values.safetensors", "pt") as file:
        values, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    del values["mean/random"]
    write_tensors(folder / "values.safetensors", values, metadata)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: cut(folder / "result.json"),
        lambda folder: cut(folder / "values.safetensors"),
        lambda folder: (folder / "values.safetensors").unlink(),
        lambda folder: (folder / "result.json").write_text("[1]"),
        lambda folder: (folder / "result.json").write_text('{"schema": 1}'),
        edited(lambda result: result["means"]["mass"].update(mean=0.5)),  # type: ignore[attr-defined]
        edited(lambda result: result.update(eps=0.2)),
        edited(lambda result: result.update(eps="wide")),
        edited(lambda result: result.update(model="0")),
        edited(lambda result: result.update(samples=21)),
        edited(lambda result: result.update(samples=-1)),
        edited(lambda result: result["settings"].update(mean=[0.4])),  # type: ignore[attr-defined]
        other_values,
        fewer_values,
    ],
)
def test_damage_is_named(damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder)
    with pytest.raises(DamagedFileError, match=r"(result\.json|values\.safetensors)"):
        load_explanation(folder)


def test_another_schema_is_not_damage(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    rewritten(folder / "result.json", result | {"schema": 99})
    with pytest.raises(InputError, match="schema 99"):
        load_explanation(folder)


# --- bad input -------------------------------------------------------------------------------------------------------


class Ignorant(nn.Module):
    """Says class 1, whatever it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([0.0, 1.0]))

    def forward(self, x: Tensor) -> Tensor:
        return 0.0 * x.flatten(1)[:, :1] + self.bias


class Broken(Patch):
    """Its gradient is NaN where the first pixel is black: the root of zero has no slope."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 0.0 * x.flatten(1)[:, :1].sqrt()


def test_a_model_that_ignores_its_input_has_no_ranks_rather_than_perfect_ones() -> None:
    found = explain(Ignorant(), patched(20), eps=0.1, objects=on_patch(20))
    for measure in measures_under(found.settings):
        values = found.per_image(measure.name)
        assert values is not None
        if measure.name in ("gap-mean", "gap-noise", "road"):
            assert not values.any(), measure.name
        else:
            assert values.isnan().all(), measure.name
    assert_states(found.notes[0], "20 of 20", "zero", "rank", "cosine", "mass")
    assert_states(found.notes[-1], "gate", "NOT RUN", "bias")
    assert found.gate.shape == (0, 20)
    assert math.isnan(found.gate_median())


def test_maps_of_nan_are_left_out_and_counted(tmp_path: Path) -> None:
    images = patched(20)
    images.pixels[4, 0, 0, 0] = images.pixels[9, 0, 0, 0] = 0
    images.pixels[[0, 1, 2, 3, 5, 6, 7, 8], 0, 0, 0] = 60
    images.pixels[10:, 0, 0, 0] = 200
    found = explain(Broken(), images, eps=0.05, folder=tmp_path / "out")
    assert (~found.values["finite"]).nonzero().flatten().tolist() == [4, 9]
    assert found.right.sum() == 18
    for measure in MEASURES:
        if (values := found.per_image(measure.name)) is not None:
            assert values[[4, 9]].isnan().all(), measure.name
    assert_states(found.notes[0], "2 of 20", "NaN", "omitted")
    assert load_explanation(tmp_path / "out").notes == found.notes


def test_a_constant_image_has_a_map_but_no_alignment() -> None:
    # Of the mean's grey: x − mean is zero.
    images = Images(torch.full((4, 1, SIDE, SIDE), 120, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))
    found = explain(Patch(), images, eps=0.1)
    alignment = found.values["alignment"]
    assert (alignment.isnan() | (alignment < 1e-6)).all()
    assert found.values["sparseness"].isfinite().all()


def test_a_nan_of_the_model_withholds_the_figures() -> None:
    model = Patch()
    with torch.no_grad():
        model.linear.bias[0] = torch.nan
    with pytest.raises(InputError) as refused:
        explain(model, patched(4), eps=0.1)
    assert_states(refused.value, "NaN", "clean")


@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"eps": 0.0}, ["eps", "0", "training eps"]),
        ({"eps": 8.0}, ["eps", "8/255"]),
        ({"eps": -0.1}, ["eps", "-0.1"]),
        ({"batch_size": 0}, ["batch_size", "0"]),
        ({"model": lambda x: x}, ["model", "function", "nn.Module"]),
        ({"attribution": "gradients"}, ["gradients", "'gradient'"]),
        ({"objects": on_patch(3)}, ["objects", "(3, 12, 12)", "bool (4, 12, 12)"]),
        ({"objects": on_patch(4).float()}, ["objects", "float32", "bool (4, 12, 12)"]),
        ({"ids": torch.arange(3)}, ["ids", "(3,)", "int64 (4,)"]),
        ({"ids": torch.tensor([0, 1, 1, 2])}, ["ids", "once"]),
        ({"model": nn.Flatten(0)}, ["logits (B, K)"]),
    ],
)
def test_bad_input_gets_its_line(change: dict[str, object], facts: list[str]) -> None:
    asked = {"model": Patch(), "images": patched(4), "eps": 0.1} | change
    with pytest.raises(InputError) as refused:
        explain(**asked)  # type: ignore[arg-type]
    assert_states(refused.value, *facts)


def test_a_label_beyond_the_models_classes_is_refused() -> None:
    images = replace(patched(4), labels=torch.tensor([0, 1, 2, 0]), classes=("a", "b", "c"))
    with pytest.raises(InputError) as refused:
        explain(Patch(), images, eps=0.1)
    assert_states(refused.value, "label 2", "2 classes")


def test_an_unknown_measure_gets_the_nearest() -> None:
    with pytest.raises(InputError) as refused:
        measure_named("gap-men")
    assert_states(refused.value, "gap-men", "'gap-mean'")


def test_every_measure_has_its_own_name_and_sentence() -> None:
    assert len({measure.name for measure in MEASURES}) == len(MEASURES)
    assert {measure.name for measure in MEASURES if measure.restates} == {
        "sparseness",
        "alignment",
        *(measure.name for measure in measures_under({}) if "@" in measure.name),
    }
    # What is on a shortcut says what a model uses, and nothing of how good its map is.
    on_shortcut = [measure.name for measure in MEASURES if measure.needs_shortcut]
    assert [measure.name for measure in MEASURES if measure.better is None] == ["sparseness", *on_shortcut]
