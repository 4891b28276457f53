"""Augmentations: they do what a loop or PIL does, with draws of its own for each image, and stay in [0, 1]."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from asgt.data import (
    Augmentation,
    Images,
    crop_flip,
    rand_augment,
    resized_crop,
    to_unit,
    training_batch,
    unchanged,
)
from asgt.data.augmentation import own_draws
from asgt.data.random_operations import OPERATIONS
from asgt.errors import InputError
from asgt.files import digest_tensors
from asgt.randomness import Share, seeded
from asgt.training.augmentation_registry import AUGMENTATIONS, AugmentationKind, augmentation_named
from support.command import Answer, plain_environment
from support.messages import assert_states

kornia = pytest.importorskip("kornia", reason="an extra: asgt[augment]")

DRAWN = {"crop-flip": crop_flip, "resized-crop": resized_crop, "randaugment": rand_augment}


def pictures(count: int, channels: int, height: int, width: int) -> Tensor:
    """Smooth pictures that are all different, of values from 20 to 230, uint8."""

    generator = torch.Generator().manual_seed(count)
    few = torch.rand(count, channels, 11, 11, generator=generator)
    return (torch.nn.functional.interpolate(few, (height, width), mode="bicubic").clamp(0, 1) * 210 + 20).byte()


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())


def channels_first(image: Image.Image) -> Tensor:
    array = torch.from_numpy(np.array(image))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)


# Crops and flips -----------------------------------------------------------------------------------------------------


def counted(*shape: int) -> Tensor:
    """Pixels that no generator made."""

    return (torch.arange(math.prod(shape)) * 2654435761 % 2**32 // 2**24).to(torch.uint8).view(shape)


def test_crops_and_flips_are_those_that_stored_results_were_trained_with() -> None:
    rgb = counted(24, 3, 32, 30)
    grey = rgb.view(-1)[: 24 * 9 * 7].view(24, 1, 9, 7)

    def key() -> torch.Generator:
        return seeded(3, "augmentation", 11)

    images = Images(rgb, torch.arange(24) % 2, ("a", "b"))
    x, y = training_batch(images, torch.arange(24).flip(0), 1, 12, crop_flip, Share(key(), 1, 3))
    assert x.dtype == torch.float32
    assert digest_tensors({"x": crop_flip(rgb, key())}) == (
        "f87e7b937b72696f45a183434819be89edabccfe9dc9d71f47eef40b8416902a"
    )
    assert digest_tensors({"x": crop_flip(grey, key())}) == (
        "9facb2ade7dc1baf69f8925227818d5178d33b8df183c2d26f54ef82107380f2"
    )
    assert digest_tensors({"x": x, "y": y}) == "58cacb7d1ad5896bc6e022f360a3da2573a4a6c3d9e4a409e15224b4834a95b0"
    assert digest_tensors({"x": crop_flip(grey.float() / 255, key(), 2)}) == (
        "87bfcfcb9646194d3440679d32c33b3bab8103355fb6d6d3030f9ba41d0c5806"
    )


def test_crops_and_flips_are_what_a_loop_over_the_images_does() -> None:
    pixels = pictures(40, 3, 9, 7)
    padding = 2

    found = crop_flip(pixels, torch.Generator().manual_seed(5), padding)

    draws = torch.Generator().manual_seed(5)
    top = torch.randint(0, 2 * padding + 1, (40, 1), generator=draws)
    left = torch.randint(0, 2 * padding + 1, (40, 1), generator=draws)
    flip = torch.rand((40, 1), generator=draws) < 0.5
    assert found.shape == pixels.shape
    for n in range(40):
        frame = np.zeros((3, 9 + 2 * padding, 7 + 2 * padding), dtype=np.uint8)
        frame[:, padding:-padding, padding:-padding] = pixels[n].numpy()
        crop = frame[:, int(top[n]) : int(top[n]) + 9, int(left[n]) : int(left[n]) + 7]
        assert np.array_equal(found[n].numpy(), crop[:, :, ::-1] if flip[n] else crop)


def test_crops_pad_with_zeros_and_reach_every_place() -> None:
    # One bright pixel in the middle of white ones, 81 crops and 2 flips: 162 outcomes, each some 31 times.
    pixels = torch.full((5_000, 1, 9, 9), 100, dtype=torch.uint8)
    pixels[:, :, 4, 3] = 255

    found = crop_flip(pixels, torch.Generator().manual_seed(0))[:, 0]

    assert set(found.unique().tolist()) == {0, 100, 255}
    outcomes = {image.numpy().tobytes() for image in found}
    expected = set()
    frame = np.pad(pixels[0, 0].numpy(), 4)
    for top in range(9):
        for left in range(9):
            crop = frame[top : top + 9, left : left + 9]
            expected |= {crop.tobytes(), crop[:, ::-1].tobytes()}
    assert outcomes == expected


# Resized crops -------------------------------------------------------------------------------------------------------


def drawn_box(draws: list[float], height: int, width: int, least: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop, as torchvision's loop over ten tries finds it."""

    box = None
    for share, aspect in zip(draws[:10], draws[10:20], strict=True):
        area = height * width * (least + (1 - least) * share)
        ratio = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * aspect)
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            box = down, across
            break
    if box is None:
        across, down = width, height
        if width / height < 3 / 4:
            down = round(width / (3 / 4))
        elif width / height > 4 / 3:
            across = round(height * (4 / 3))
        box = down, across
    down, across = box
    top, left = int(draws[20] * (height - down + 1)), int(draws[21] * (width - across + 1))
    return left, top, left + across, top + down


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(3, 32, 32), (1, 9, 7), (3, 20, 33), (1, 40, 6), (3, 4, 30), (1, 2, 2)]
)
def test_resized_crops_are_what_pil_does_image_by_image(channels: int, height: int, width: int) -> None:
    pixels, least = pictures(40, channels, height, width), 0.08

    found = resized_crop(pixels, seeded("crops"), scale=(least, 1.0)) * 255

    draws = own_draws(pixels, seeded("crops"), 23).tolist()
    flips = 0
    for n in range(40):
        cropped = pil(pixels[n]).crop(drawn_box(draws[n], height, width, least))
        expected = channels_first(cropped.resize((width, height), Image.Resampling.BILINEAR)).float()
        flips += draws[n][22] < 0.5
        expected = expected.flip(2) if draws[n][22] < 0.5 else expected
        assert (found[n] - expected).abs().max() < 1.01, n  # PIL rounds between the axes and at the end
    assert 8 <= flips <= 32


def test_a_crop_of_everything_is_the_image_or_its_mirror() -> None:
    pixels = pictures(30, 3, 12, 12)
    whole = resized_crop(pixels, seeded("whole"), scale=(1.0, 1.0), ratio=(1.0, 1.0))
    x = to_unit(pixels)
    alike = [torch.allclose(whole[n], x[n], atol=1e-5) for n in range(30)]
    mirrored = [torch.allclose(whole[n], x[n].flip(2), atol=1e-5) for n in range(30)]
    assert all(a != b for a, b in zip(alike, mirrored, strict=True))
    assert 5 <= sum(alike) <= 25


# RandAugment ---------------------------------------------------------------------------------------------------------


def moved(*coefficients: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def pils(strength: float, height: int, width: int) -> dict[str, Callable[[Image.Image], Image.Image]]:
    """The operations at magnitude 30 · |strength| as the paper's authors call PIL, but for the interpolation."""

    factor, slope = 1 + 0.9 * strength, 0.3 * strength
    across, down = round(150 / 331 * width * strength), round(150 / 331 * height * strength)
    return {
        "identity": lambda image: image,
        "auto-contrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "rotate": lambda image: image.rotate(30 * strength, Image.Resampling.BILINEAR),
        "solarize": lambda image: ImageOps.solarize(image, 255 * (1 - abs(strength))),  # type: ignore[arg-type]
        "color": lambda image: ImageEnhance.Color(image).enhance(factor),
        "posterize": lambda image: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
        "contrast": lambda image: ImageEnhance.Contrast(image).enhance(factor),
        "brightness": lambda image: ImageEnhance.Brightness(image).enhance(factor),
        "sharpness": lambda image: ImageEnhance.Sharpness(image).enhance(factor),
        "shear-x": moved(1, -slope, 0, 0, 1, 0),
        "shear-y": moved(1, 0, 0, -slope, 1, 0),
        "translate-x": moved(1, 0, -across, 0, 1, 0),
        "translate-y": moved(1, 0, 0, 0, 1, -down),
    }


@pytest.mark.parametrize("strength", [0.3, -0.3, 0.9, -0.9])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 24, 18)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_pils(name: str, channels: int, height: int, width: int, strength: float) -> None:
    pixels = pictures(8, channels, height, width)
    found = OPERATIONS[name](kornia, to_unit(pixels), torch.full((8,), strength)).clamp(0, 1) * 255
    oracle = pils(strength, height, width)[name]
    expected = torch.stack([channels_first(oracle(pil(image))) for image in pixels]).float()
    differing = (found - expected).abs() > 2  # PIL rounds every intermediate image
    # Beyond the image's edge PIL interpolates by other rules: the outline of a moved image.
    outline = 0.2 if name in ("rotate", "shear-x", "shear-y") else 0.0
    assert differing.float().mean() <= outline
    if name not in ("identity", "posterize") and (name, channels) != ("color", 1):
        assert (found - 255 * to_unit(pixels)).abs().max() > 8


def test_each_image_draws_its_own_operation_uniformly() -> None:
    one = pictures(1, 3, 20, 20)  # where there are fewer pixels than values, nothing is equalised
    pixels = one.expand(4_000, -1, -1, -1)
    found = rand_augment(pixels, seeded("uniform"), n=1, m=15)

    names = {}
    for name, operation in OPERATIONS.items():
        for strength in (-0.5, 0.5):
            result = operation(kornia, to_unit(one), torch.tensor([strength])).clamp(0, 1)
            names[result.numpy().tobytes()] = name, strength if name in DIRECTED else 0
    counts = Counter(names[image.numpy().tobytes()] for image in found)
    # 4,000 / 14 = 286, with a standard deviation of 16; half of it for each direction.
    assert {name for name, _ in counts} == set(OPERATIONS)
    for (name, strength), count in counts.items():
        expected = 4_000 / 14 / (1 if strength == 0 else 2)
        assert abs(count - expected) < 4.5 * math.sqrt(expected), (name, strength)


DIRECTED = {
    *("rotate", "color", "contrast", "brightness", "sharpness"),
    *("shear-x", "shear-y", "translate-x", "translate-y"),
}


def test_two_operations_are_one_after_the_other() -> None:
    one = pictures(1, 3, 12, 12)
    found = rand_augment(one.expand(300, -1, -1, -1), seeded("two"))
    steps = [partial(operation, kornia) for operation in OPERATIONS.values()]
    signs = [torch.tensor([-0.3]), torch.tensor([0.3])]
    first = torch.cat([step(to_unit(one), sign).clamp(0, 1) for step in steps for sign in signs])
    second = [step(first, sign.expand(len(first))).clamp(0, 1) for step in steps for sign in signs]
    both = {image.numpy().tobytes() for images in second for image in images}
    assert {image.numpy().tobytes() for image in found} <= both
    assert len({image.numpy().tobytes() for image in found}) > 100


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_of_one_value_is_not_made_black_by_its_contrast(channels: int) -> None:
    x = torch.full((2, channels, 6, 6), 77 / 255)
    for name in ("auto-contrast", "equalize"):
        assert torch.equal(OPERATIONS[name](kornia, x, torch.ones(2)), x)


# All of them ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 1), (2, 3), (8, 8), (20, 31)])
def test_images_of_any_size_and_type_stay_in_range(name: str, size: tuple[int, int]) -> None:
    augmentation = augmentation_named(name)
    for channels in (1, 2, 3, 4):
        levels = pictures(48, channels, *size)
        levels[:6], levels[6:12], levels[12:18] = 0, 255, 77
        for pixels in (levels, levels.float() / 255, (levels.float() / 255).half()):
            found = to_unit(augmentation(pixels, seeded(name)))
            assert found.shape == pixels.shape
            assert found.dtype == (pixels.dtype if pixels.is_floating_point() else torch.float32)
            assert found.isfinite().all()
            assert found.min() >= 0
            assert found.max() <= 1
        assert torch.equal(pixels, (levels.float() / 255).half()), "the images themselves were changed"


@pytest.mark.parametrize("augmentation", DRAWN.values(), ids=DRAWN)
def test_the_key_decides_and_global_generators_stay(augmentation: Augmentation) -> None:
    pixels = pictures(24, 3, 16, 12)
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[union-attr, call-overload]
    first = augmentation(pixels, seeded(0, "augmentation", 3))
    after = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[union-attr, call-overload]
    assert torch.equal(before[0], after[0])
    assert before[1] == after[1]

    torch.manual_seed(99)
    assert torch.equal(first, augmentation(pixels, seeded(0, "augmentation", 3)))
    assert not torch.equal(first, augmentation(pixels, seeded(0, "augmentation", 4)))


@pytest.mark.parametrize("augmentation", DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (3, (32, 32)), (3, (9, 14))])
def test_an_image_depends_on_no_other_and_on_no_split(
    augmentation: Augmentation, channels: int, size: tuple[int, int]
) -> None:
    pixels = pictures(48, channels, *size)
    whole = augmentation(pixels, seeded("split"))
    for ranks in (2, 3, 48):
        parts = [
            augmentation(part, Share(seeded("split"), rank, ranks)) for rank, part in enumerate(pixels.chunk(ranks))
        ]
        assert torch.equal(torch.cat(parts), whole), ranks

    others = pixels.flip(0).clone()
    others[17] = pixels[17]
    assert torch.equal(augmentation(others, seeded("split"))[17], whole[17])


@pytest.mark.parametrize("augmentation", DRAWN.values(), ids=DRAWN)
def test_alike_images_are_augmented_differently(augmentation: Augmentation) -> None:
    alike = pictures(1, 3, 16, 16).expand(64, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in augmentation(alike, seeded("alike"))}) > 40


def test_training_batch_augments_what_it_gathers() -> None:
    images = Images(pictures(23, 3, 8, 8), torch.arange(23) % 3, ("a", "b", "c"))
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    for augmentation in (unchanged, *DRAWN.values()):
        x, labels = training_batch(images, order, 1, 8, augmentation, seeded("batch"))
        assert torch.equal(x, to_unit(augmentation(images.pixels[order[8:16]], seeded("batch"))))
        assert torch.equal(labels, images.labels[order[8:16]])
    plain, _ = training_batch(images, order, 1, 8, unchanged, seeded("batch"))
    assert torch.equal(plain, images.pixels[order[8:16]] / 255)


# Names and the extra -------------------------------------------------------------------------------------------------


def test_names_are_listed_where_one_is_unknown_and_in_the_help(
    cli: Callable[..., Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    refused = cli("train", "--augment", "rand-augment", "--out", "run").refusal()
    assert_states(refused, "augment", "rand-augment", "did you mean 'randaugment'?", *AUGMENTATIONS)
    assert not Path("run").exists()
    Path("grid.yaml").write_text("augment: mixup\n")
    assert_states(cli("train", "--config", "grid.yaml", "--out", "run").refusal(), "mixup", *AUGMENTATIONS)
    with pytest.raises(InputError) as unknown:
        augmentation_named("mixup")
    assert_states(unknown.value, "mixup", *AUGMENTATIONS)

    with pytest.raises(SystemExit):
        cli("train", "--help")
    told = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    assert_states(told, *AUGMENTATIONS, "asgt[augment]")


@pytest.mark.slow
def test_one_more_augmentation_is_one_line(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "darkened.py").write_text("def darken(pixels, generator):\n    return pixels // 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(AUGMENTATIONS, "darken", AugmentationKind("darkened:darken", "halves the light"))
    assert_states(cli("train", "--augment", "darke").refusal(), "'darken'")
    words = ("train", "--method", "st", "--epochs", 1, "--limit", 60, "--batch-size", 20)
    assert cli(*words, "--augment", "darken", "--out", "dark").status == 0
    assert "augment: darken" in Path("dark/config.yaml").read_text()
    assert cli(*words, "--augment", "none", "--out", "plain").status == 0
    assert Path("dark/model.safetensors").read_bytes() != Path("plain/model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_a_missing_extra_is_told_before_any_data_is_read(
    fault: str, cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "missing":
        monkeypatch.setitem(sys.modules, "kornia", None)  # as Python itself notes a module that it may not import
    else:
        monkeypatch.delitem(sys.modules, "kornia")
        (tmp_path / "kornia.py").write_text("raise OSError('libgomp.so: cannot open shared object file')\n")
        monkeypatch.syspath_prepend(tmp_path)
    # The folder with the images does not exist either, and that would be told as soon as it is looked for.
    refused = cli("train", "--data", "nowhere", "--augment", "randaugment", "--out", "run").refusal()
    assert_states(refused, "--augment randaugment", "kornia", "pip install 'asgt[augment]'")
    assert not Path("run").exists()
    grid = ("reproduce", "mnist", "--scale", "laptop", "--set", "augment=randaugment", "--out", "grid")
    assert_states(cli(*grid).refusal(), "kornia", "pip install 'asgt[augment]'")
    with pytest.raises(InputError) as told:
        rand_augment(pictures(2, 3, 8, 8), torch.Generator())
    assert_states(told.value, "pip install 'asgt[augment]'")
    # The others do without it.
    for name in ("none", "crop-flip", "resized-crop"):
        assert augmentation_named(name)(pictures(2, 3, 8, 8), torch.Generator()).shape == (2, 3, 8, 8)


@pytest.mark.slow
def test_the_extra_is_imported_where_it_is_used_and_fetches_nothing(tmp_path: Path) -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('connects')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import torch\n"
        "from asgt.data import crop_flip, rand_augment, resized_crop\n"
        "x, generator = torch.rand(64, 3, 16, 16), torch.Generator()\n"
        "crop_flip(x, generator), resized_crop(x, generator)\n"
        "assert 'kornia' not in sys.modules\n"
        "rand_augment(x, generator)\n"
        "assert 'kornia' in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
