"""Planted shortcuts: what is planted where, for whom, and that nothing but (seed, row, label) decides it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom, chisquare
from torch import Tensor, nn

from asgt import evaluate, explain
from asgt.data import (
    Augmentation,
    Images,
    PlantedPixels,
    StoredPixels,
    batches,
    check_test_set,
    crop_flip,
    load_data,
    plant,
    resized_crop,
    shortcut_view,
    shortcut_views,
    split_decoding,
    to_unit,
    training_batch,
    training_batch_with_masks,
    training_order,
    unchanged,
)
from asgt.errors import InputError
from asgt.randomness import Share, seeded
from asgt.records import record_of
from asgt.shortcuts import SHORTCUTS, VIEWS, shortcut_named
from asgt.shortcuts.background import _edge
from asgt.shortcuts.patch import Patch, _places
from support.messages import assert_states

KINDS = ["patch", "patch:code=position,size=2", "background", "background:code=texture", "disc", "disc:size=3"]


def noisy(count: int, channels: int = 1, side: int = 16, classes: int = 5, *, floats: bool = False) -> Images:
    """Dim images with a bright square in the middle, as an object."""

    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 60, (count, channels, side, side), generator=generator, dtype=torch.uint8)
    pixels[:, :, 6:10, 6:10] += 190
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Images(pixels / 255 if floats else pixels, labels, tuple(map(str, range(classes))))


def planted_of(images: Images) -> PlantedPixels:
    assert isinstance(images.pixels, PlantedPixels)
    return images.pixels


# Whatever batch an image is in ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_planted_alike_in_any_batch_and_order(kind: str, channels: int) -> None:
    images = noisy(90, channels)
    planted = plant(images, kind, strength=0.8, seed=4)
    whole, masks = planted_of(planted).planted(slice(None))
    assert whole.dtype == torch.uint8
    assert (whole != images.pixels).any(dim=1).flatten(1).any(dim=1).all()

    rows = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    for part in rows.split(7):
        assert planted.pixels[part].equal(whole[part])
        assert planted_of(planted).masks(part).equal(masks[part])
    view = planted[rows][5:60]
    assert view.pixels[:].equal(whole[rows][5:60])
    assert planted_of(view).codes.equal(planted_of(planted).codes[rows][5:60])
    assert torch.cat([x for x, _ in batches(planted, 11)]).equal(whole / 255)
    assert planted.pixels[3].equal(whole[3])
    assert planted.digest() == Images(whole, images.labels, images.classes).digest()
    assert planted.mean_std() == Images(whole, images.labels, images.classes).mean_std()

    again, other = plant(images, kind, strength=0.8, seed=4), plant(images, kind, strength=0.8, seed=5)
    assert again.digest() == planted.digest()
    assert other.digest() != planted.digest()
    # Of the images before it, none has a say.
    assert plant(images[:40], kind, strength=0.8, seed=4).pixels[:].equal(whole[:40])


@pytest.mark.parametrize("kind", KINDS)
def test_floats_stay_floats_and_get_the_same_values(kind: str) -> None:
    whole = plant(noisy(30, 3), kind).pixels[:]
    floats = plant(noisy(30, 3, floats=True), kind).pixels[:]
    assert floats.dtype == torch.float32
    assert float((floats - whole / 255).abs().max()) <= 0.51 / 255


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_is_the_same_in_bytes_and_in_floats(kind: str) -> None:
    digits = load_data("digits").train[:200]  # of sixteen grey levels, some just at the threshold of a background
    floats = Images(to_unit(digits.pixels), digits.labels, digits.classes)
    assert planted_of(plant(digits, kind)).masks().equal(planted_of(plant(floats, kind)).masks())


@pytest.mark.parametrize("row", [3, np.int64(3), torch.tensor(3)])
def test_one_image_is_indexed_by_any_whole_number(row: Any, stored: tuple[Images, Images]) -> None:
    for images in stored:
        planted = planted_of(plant(images, "disc"))
        assert images.pixels[row].equal(images.pixels[2:5][1])
        assert planted[row].equal(planted[2:5][1])
        assert planted.masks(row).equal(planted.masks(slice(2, 5))[1])


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Images, Images]:
    """The same colour images in a file and in memory."""

    monkeypatch.setenv("ASGT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(split_decoding, "CACHED", 1)
    monkeypatch.setattr(split_decoding, "IN_MEMORY", 0)
    draws = np.random.default_rng(0)
    for number in range(60):
        place = tmp_path / "set" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(place / f"{number}.png")
    return load_data(tmp_path / "set").train, load_data(tmp_path / "set", cache=False).train


@pytest.mark.parametrize("kind", ["patch", "background", "disc"])
def test_images_of_a_file_are_planted_as_those_in_memory(kind: str, stored: tuple[Images, Images]) -> None:
    assert isinstance(stored[0].pixels, StoredPixels)
    ours, theirs = (plant(images, kind) for images in stored)
    assert ours.digest() == theirs.digest()
    assert ours.mean_std() == theirs.mean_std()
    assert torch.mean(ours.pixels.float()) == torch.mean(theirs.pixels.float())
    orders = training_order(ours, 3, 1), training_order(theirs, 3, 1)
    for step in (0, 1, 3, 2, 2):
        one, other = (
            training_batch_with_masks(images, order, step, 8, crop_flip, seeded(step))
            for images, order in zip((ours, theirs), orders, strict=True)
        )
        assert all(mine.equal(its) for mine, its in zip(one, other, strict=True))


@pytest.mark.parametrize("augmentation", [crop_flip, resized_crop])
def test_masks_move_with_the_images_and_a_share_of_a_batch_is_a_part_of_it(augmentation: Augmentation) -> None:
    images = Images(torch.zeros(48, 1, 12, 12, dtype=torch.uint8), torch.arange(48) % 2, ("a", "b"))
    planted = plant(images, "disc", size=5)
    order = training_order(planted, 0, 0)
    x, y, masks = training_batch_with_masks(planted, order, 1, 12, augmentation, seeded(7))
    # On black, what is not black is the disc, wherever it was moved to.
    assert masks.dtype == torch.bool
    assert masks.equal(x[:, 0] > 0)
    assert masks.any()
    assert x.equal(training_batch(planted, order, 1, 12, augmentation, seeded(7))[0])

    parts = [
        training_batch_with_masks(planted, order, 1, 12, augmentation, Share(seeded(7), rank, 3)) for rank in range(3)
    ]
    for whole, those in zip((x, y, masks), zip(*parts, strict=True), strict=True):
        assert torch.cat(those).equal(whole)
    with pytest.raises(InputError) as refused:
        training_batch_with_masks(images, order, 0, 12, unchanged, seeded(0))
    assert_states(refused.value, "no shortcut", "plant")


# What is planted for whom --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.9, 1.0])
def test_the_strength_is_a_binomial_share_and_the_others_are_spread_over_the_wrong_classes(strength: float) -> None:
    labels = torch.arange(6000) % 5
    images = Images(torch.zeros(6000, 1, 4, 4, dtype=torch.uint8), labels, tuple("abcde"))
    codes = planted_of(plant(images, "patch", strength=strength)).codes
    agree = int((codes == labels).sum())
    low, high = binom.interval(1 - 1e-6, 6000, strength) if 0 < strength < 1 else (6000 * strength,) * 2
    assert low <= agree <= high
    if strength < 1:
        away = ((codes - labels) % 5)[codes != labels]
        assert chisquare(away.bincount(minlength=5)[1:].numpy()).pvalue > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_four_test_sets_differ_in_the_class_of_the_shortcut_alone(kind: str) -> None:
    images = noisy(3000, side=16)
    views = shortcut_views(images, kind)
    assert tuple(views) == VIEWS
    assert views["absent"] is images
    aligned, random, reverse = (planted_of(views[name]) for name in ("aligned", "random", "reversed"))
    assert aligned.codes.equal(images.labels)
    assert not (reverse.codes == images.labels).any()
    assert chisquare(((reverse.codes - images.labels) % 5).bincount(minlength=5)[1:].numpy()).pvalue > 1e-6
    assert chisquare(random.codes.bincount(minlength=5).numpy()).pvalue > 1e-6
    low, high = binom.interval(1 - 1e-6, 3000, 1 / 5)
    assert low <= int((random.codes == images.labels).sum()) <= high

    assert len({view.digest() for view in views.values()}) == 4
    assert all(view.labels.equal(images.labels) for view in views.values())
    assert aligned.masks().equal(random.masks())
    assert aligned.masks().equal(reverse.masks())
    same = reverse.codes == random.codes
    assert same.any()
    assert reverse[:][same].equal(random[:][same])
    # A part of the test images has the shortcuts that it has in the whole.
    rows = torch.arange(0, 3000, 7)
    assert shortcut_view(images, kind, "reversed")[rows].pixels[:].equal(reverse[:][rows])
    assert shortcut_view(images, None, "absent").pixels[:].equal(images.pixels[:])


# Where it lies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_is_where_pixels_change(kind: str, channels: int) -> None:
    # No shortcut is as dark as 10, so that whatever it covers changes.
    pixels = torch.full((40, channels, 16, 16), 10, dtype=torch.uint8)
    pixels[:, :, 6:10, 6:10] = 251
    images = Images(pixels, torch.arange(40) % 5, tuple("abcde"))
    planted, masks = planted_of(plant(images, kind)).planted(slice(None))
    assert masks.shape == (40, 16, 16)
    assert masks.equal((planted != pixels).any(dim=1))
    assert 0 < masks.float().mean() < 1
    if kind.startswith("background"):
        assert not masks[:, 6:10, 6:10].any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("contrast", [0.05, 0.4, 1.0])
def test_the_contrast_is_the_largest_difference_between_two_classes(kind: str, contrast: float) -> None:
    for channels in (1, 3):
        images = Images(torch.full((6, channels, 18, 18), 0.5), torch.arange(6), tuple("abcdef"))
        alike = Images(images.pixels[:1].expand(6, -1, -1, -1), images.labels, images.classes)  # type: ignore[index]
        shortcut = shortcut_named(kind, {"contrast": contrast})
        noise = torch.full((6, shortcut.draws), 0.3)
        planted, _ = shortcut.plant(alike.pixels[:], images.labels, noise, 6)
        apart = (planted[:, None] - planted[None]).abs().max()
        # Stripes need not meet their extremes at the same pixel.
        least = 0.85 if "texture" in kind else 1 - 1e-5
        assert least * contrast <= float(apart) <= contrast * (1 + 1e-5)


def test_patches_by_hand() -> None:
    black = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
    images = Images(black, torch.arange(3), ("a", "b", "c"))
    planted = plant(images, "patch:1,contrast=0.5,size=1").pixels[:]
    assert planted.flatten(1).amax(dim=1).tolist() == [64, 128, 191]
    assert (planted > 0).sum() == 3
    assert [bool((image[0][[0, 0, 3, 3], [0, 3, 0, 3]] > 0).any()) for image in planted] == [True] * 3

    position = plant(images, "patch:1,contrast=0.5,size=2,code=position").pixels[:]
    # Of the four places of the ring, clockwise, the first, the second and the third.
    light, dark, none = torch.full((2, 2), 191), torch.full((2, 2), 64), torch.zeros(2, 2)
    quarters = [[light, dark, none, dark], [dark, light, none, dark], [dark, dark, none, light]]
    for image, (first, second, third, fourth) in zip(position, quarters, strict=True):
        assert image[0].equal(torch.cat([torch.cat([first, second], 1), torch.cat([third, fourth], 1)]).byte())


def test_every_corner_has_its_share_of_the_patches() -> None:
    images = Images(torch.zeros(2000, 1, 6, 6, dtype=torch.uint8), torch.arange(2000) % 2, ("a", "b"))
    corners = planted_of(plant(images, "patch", size=1)).masks()[:, [0, 0, 5, 5], [0, 5, 0, 5]]
    assert (corners.sum(dim=1) == 1).all()
    assert chisquare(corners.sum(dim=0).numpy()).pvalue > 1e-6


def test_discs_lie_anywhere_inside_and_are_round() -> None:
    images = Images(torch.zeros(3000, 1, 9, 7, dtype=torch.uint8), torch.arange(3000) % 2, ("a", "b"))
    masks = planted_of(plant(images, "disc", size=4)).masks()
    # Pixels whose centre is at most two from that of a 4×4 square: all but its corners.
    assert (masks.flatten(1).sum(dim=1) == 12).all()
    tops, lefts = masks.any(dim=2).int().argmax(dim=1), masks.any(dim=1).int().argmax(dim=1)
    assert chisquare((tops * 4 + lefts).bincount(minlength=24).numpy()).pvalue > 1e-6


def test_a_background_by_hand_keeps_the_object_and_what_it_showed() -> None:
    grey = torch.full((2, 1, 5, 5), 100, dtype=torch.uint8)
    grey[:, :, 2, 2], grey[:, :, 1, 1] = 200, 110
    images = Images(grey, torch.tensor([0, 1]), ("a", "b"))
    planted = plant(images, "background:1,contrast=0.4").pixels[:]
    expected = torch.stack([torch.full((1, 5, 5), level) for level in (76, 178)]).byte()  # 0.3 and 0.7
    expected[:, :, 2, 2] = 200
    expected[:, :, 1, 1] += 10
    assert planted.equal(expected)
    frame = plant(images, "background:1,contrast=0.4,size=1").pixels[:]
    assert frame[:, :, 1:-1, 1:-1].equal(grey[:, :, 1:-1, 1:-1])
    assert frame[:, :, 0].equal(expected[:, :, 0])


@pytest.mark.parametrize("side", [(28, 28), (8, 8), (5, 9), (2, 2), (1, 7), (1, 1), (3, 40)])
def test_the_edge_of_a_background_is_looked_at_on_all_sides(side: tuple[int, int]) -> None:
    height, width = side
    places = _edge(height, width, torch.device("cpu"))
    rows, columns = places // width, places % width
    whole = 2 * (height + width) - 4 if min(side) > 1 else max(side)
    assert len(places.unique()) == len(places) == min(16, whole)
    assert bool(((rows == 0) | (rows == height - 1) | (columns == 0) | (columns == width - 1)).all())
    if min(side) > 2:
        for line, length in (((rows == 0), width), ((rows == height - 1), width), ((columns == width - 1), height)):
            assert abs(int(line.sum()) - min(16, whole) * length / whole) <= 1.5


@pytest.mark.parametrize(("height", "width", "size"), [(12, 6, 4), (6, 16, 4), (9, 9, 4), (8, 8, 4), (16, 4, 3)])
def test_patches_of_a_position_never_overlap(height: int, width: int, size: int) -> None:
    ring = []
    for classes in range(2, 9):
        try:
            ring = _places(height, width, size, classes)
        except InputError as error:
            assert_states(error, "do not fit", "smaller size")
            break
        drawn = torch.zeros(height, width)
        for top, left in ring:
            drawn[top : top + size, left : left + size] += 1
        assert drawn.max() == 1
        assert drawn.sum() == classes * size * size
    assert ring


def test_labels_alone_do_not_say_how_many_classes_there_are() -> None:
    images = noisy(60)
    few = images[images.labels < 3]
    pixels, labels = few.pixels, few.labels
    known = {view: planted.pixels[:] for view, planted in shortcut_views(few, "patch").items()}
    said = shortcut_views((pixels, labels), "patch", classes=5)
    assert all(said[view].pixels[:].equal(known[view]) for view in VIEWS)
    assert said["aligned"].classes == images.classes
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 5))
    guessed = shortcut_view((pixels, labels), "patch", "aligned")
    assert not guessed.pixels[:].equal(known["aligned"])
    for measure in (evaluate, explain):
        measure(model, said["aligned"][:4], **({"epsilons": [0.1]} if measure is evaluate else {"eps": 0.1}))
        with pytest.raises(InputError) as refused:
            measure(model, guessed[:4], **({"epsilons": [0.1]} if measure is evaluate else {"eps": 0.1}))
        assert_states(refused.value, "3 classes", "has 5", "classes=5")


def test_colours_are_those_of_the_circle_of_hues() -> None:
    images = Images(torch.full((6, 3, 8, 8), 90, dtype=torch.uint8), torch.arange(6), tuple("abcdef"))
    planted, masks = planted_of(plant(images, "disc:1,contrast=1")).planted(slice(None))
    colours = [image[:, mask].unique(dim=1).flatten().tolist() for image, mask in zip(planted, masks, strict=True)]
    red, green, blue = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    yellow, cyan, magenta = (255, 255, 0), (0, 255, 255), (255, 0, 255)
    assert [tuple(colour) for colour in colours] == [red, yellow, green, cyan, blue, magenta]


# A model whose use of it is known ------------------------------------------------------------------------------------


def nearest_level(shortcut: Patch, size: int, classes: int) -> Callable[[Tensor], Tensor]:
    """A linear model that reads the patch alone: the class of the nearest level, z = 2 l s − l² of the mean s of it."""

    levels = torch.tensor([0.5 + shortcut.contrast * (place / (classes - 1) - 0.5) for place in range(classes)])

    def model(x: Tensor) -> Tensor:
        corners = torch.stack(
            [x[..., :size, :size], x[..., :size, -size:], x[..., -size:, :size], x[..., -size:, -size:]]
        )
        mean = corners.sum(dim=(0, 2, 3, 4)) / size**2
        return 2 * mean[:, None] * levels - levels.square()

    return model


def test_a_linear_model_that_reads_the_patch_alone_is_right_as_often_as_the_shortcut_is() -> None:
    labels = torch.arange(1000) % 10
    images = Images(torch.zeros(1000, 1, 12, 12, dtype=torch.uint8), labels, tuple("0123456789"))
    shortcut = Patch(strength=0.9, size=2)
    model = nearest_level(shortcut, 2, 10)

    def right(images: Images) -> Tensor:
        return torch.cat([model(x).argmax(dim=1) == y for x, y in batches(images, 64)])

    trained = plant(images, shortcut)
    assert right(trained).equal(planted_of(trained).codes == labels)
    views = shortcut_views(images, shortcut)
    assert right(views["aligned"]).all()
    assert not right(views["reversed"]).any()
    assert right(views["random"]).equal(planted_of(views["random"]).codes == labels)
    # Without a patch the mean is zero, to which the darkest level is the nearest.
    assert right(views["absent"]).equal(labels == 0)


# Texts and refusals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "patch:8/9,contrast=0.25,seed=3", "disc:strength=0.5"])
def test_a_shortcut_is_made_again_from_its_text(kind: str) -> None:
    shortcut = shortcut_named(kind)
    assert shortcut_named(str(shortcut)) == shortcut
    assert str(shortcut_named(str(shortcut))) == str(shortcut)


def test_each_record_has_its_name_and_documents_its_settings() -> None:
    for name, place in SHORTCUTS.items():
        record = record_of(place)
        assert shortcut_named(name).name == name
        assert all(setting.doc and setting.is_plain for setting in record.settings)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("patsch", ["shortcut", "'patsch'", "'patch'"]),
        ("patch:2", ["strength", "2", "[0, 1]"]),
        ("patch:-0.1", ["strength", "-0.1", "[0, 1]"]),
        ("patch:nan", ["strength", "nan"]),
        ("patch:much", ["strength", "'much'"]),
        ("patch:0.9,size=17", ["size", "17", "16×16", "size=16"]),
        ("disc:size=40", ["disc", "40", "16×16"]),
        ("background:size=17", ["background", "17"]),
        ("patch:size=0", ["size", "0", "one pixel"]),
        ("patch:size=1.5", ["size", "1.5"]),
        ("patch:sise=4", ["'sise'", "'size'"]),
        ("patch:0.9,4", ["patch:0.9,4", "SETTING=VALUE"]),
        ("patch:", ["NAME:STRENGTH"]),
        ("patch:0.9,strength=0.8", ["strength", "twice"]),
        ("patch:contrast=0", ["contrast", "0", "above"]),
        ("patch:contrast=1.5", ["contrast", "1.5"]),
        ("patch:contrast=0.01", ["contrast", "0.01", "5 classes"]),
        ("patch:code=colour", ["code", "'colour'", "'position'"]),
        ("patch:code=position,size=9", ["size", "9", "5 patches", "level"]),
        ("patch:seed=-1", ["seed", "-1"]),
        ("disc:code=level", ["'code'", "disc"]),
        ("patch:0.9,size=!!python/name:os.system", ["patch", "size"]),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(text: str, facts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        plant(noisy(4), text)
    assert_states(refused.value, *facts)


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda images: plant(plant(images, "disc"), "patch"), ["disc", "already"]),
        (lambda images: plant(images, "patch:0.9", strength=0.5), ["strength", "twice"]),
        (lambda images: plant(images, Patch(), size=2), ["size", "own settings"]),
        (lambda images: plant(images, 3), ["shortcut", "3", "patch:0.99"]),
        (lambda images: shortcut_view(images, "patch", "alined"), ["'alined'", "'aligned'"]),
        (lambda images: shortcut_view(images, None, "reversed"), ["reversed", "no shortcut", "absent"]),
        (lambda images: plant(images, "patch", classes=4), ["classes = 4", "5"]),
        (lambda images: plant(images, "patch", classes=9.5), ["classes", "9.5"]),
        (lambda images: check_test_set(shortcut_view(images, "patch", "aligned"), "reversed"), ["reversed", "aligned"]),
        (lambda images: check_test_set(plant(images, "patch"), "aligned"), ["aligned", "for training"]),
        (lambda images: check_test_set(images, "random"), ["random", "no shortcut"]),
    ],
)
def test_what_contradicts_itself_is_refused(call: Callable[[Images], Any], facts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        call(noisy(4))
    assert_states(refused.value, *facts)
