"""Data: what is read equals what PIL and pyarrow read by hand; splits and order are what they say."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from asgt.data import (
    Images,
    batches,
    load_data,
    steps_per_epoch,
    stratified,
    to_unit,
    training_batch,
    training_order,
    unchanged,
)
from asgt.errors import InputError
from support.messages import assert_states


def picture(seed: int, size: tuple[int, int] = (8, 8), mode: str = "L") -> Image.Image:
    """A random picture; ``size`` is (width, height)."""

    shape = (size[1], size[0], *([len(mode)] if len(mode) > 1 else []))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def channels_first(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def some_images(count: int = 23, channels: int = 3, size: int = 8) -> Images:
    """Images that are all different, with three classes."""

    generator = torch.Generator().manual_seed(count)
    pixels = torch.randint(0, 256, (count, channels, size, size), generator=generator).to(torch.uint8)
    return Images(pixels, torch.arange(count) % 3, ("a", "b", "c"))


# Digits --------------------------------------------------------------------------------------------------------------


def test_the_digits_are_the_1797_real_ones_with_a_fifth_of_each_set_aside() -> None:
    splits = load_data("digits")
    original = load_digits()

    assert len(splits.train) + len(splits.test) == 1797
    assert splits.train.shape == splits.test.shape == (1, 8, 8)
    assert splits.train.classes == tuple("0123456789")
    for part, images in (("train", splits.train), ("test", splits.test)):
        rows = splits.indices[part].numpy()
        assert np.array_equal(images.labels.numpy(), original.target[rows])
        # 17 levels of ink on a scale to 255: never further than half a level of the 256 from the true one.
        assert np.abs(images.pixels[:, 0].numpy() / 255 - original.images[rows] / 16).max() <= 0.5 / 255 + 1e-12
    for n, whole in zip(*counts(splits.test.labels, original.target), strict=True):
        assert abs(n - 0.2 * whole) <= 0.5


def counts(*labels: object) -> list[list[int]]:
    return [np.bincount(np.asarray(some)).tolist() for some in labels]


def test_the_digits_take_no_option_that_they_would_ignore() -> None:
    reading = [{"image_size": 16}, {"grey": True}, {"rgb": True}, {"decode": "browser"}, {"pixel_range": (0, 4095)}]
    reading += [{"image_size": 16, "interpolation": "bilinear"}, {"image_size": 16, "crop": 1.0}]
    for options in (*reading, {"label_column": "label"}, {"image_column": "image"}, {"data_config": "plain"}):
        with pytest.raises(InputError, match="digits"):
            load_data("digits", **options)


@pytest.mark.parametrize("limit", [10, 100, 333, 1000, 1430])
def test_a_limit_takes_at_most_so_many_of_every_class_alike(limit: int) -> None:
    whole, some = load_data("digits"), load_data("digits", limit=limit)

    assert len(some.train) <= limit
    assert len(some.train) >= limit - 10
    shares = [n / m for n, m in zip(*counts(some.train.labels, whole.train.labels), strict=True)]
    assert max(shares) - min(shares) < 0.02
    assert torch.equal(some.train.pixels, load_data("digits", limit=limit).train.pixels)
    assert some.test.digest() == whole.test.digest()


def test_a_limit_beyond_the_images_takes_them_all() -> None:
    assert load_data("digits", limit=10_000).train.digest() == load_data("digits").train.digest()


# Splits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_stratified_split_is_disjoint_complete_and_keeps_every_class_its_share(share: float) -> None:
    labels = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [500, 100, 20])))

    first, second = stratified(labels, share, "key")

    assert sorted([*first.tolist(), *second.tolist()]) == list(range(620))
    assert counts(labels[second]) == [[round(share * 500), round(share * 100), round(share * 20)]]
    assert first.tolist() == sorted(first.tolist())
    assert second.tolist() == sorted(second.tolist())


def test_a_stratified_split_is_a_function_of_its_key() -> None:
    labels = torch.arange(200) % 4

    assert torch.equal(stratified(labels, 0.25, "a", 1)[1], stratified(labels, 0.25, "a", 1)[1])
    assert not torch.equal(stratified(labels, 0.25, "a", 1)[1], stratified(labels, 0.25, "a", 2)[1])
    assert not torch.equal(stratified(labels, 0.25, "a", 1)[1], stratified(labels, 0.25, "b", 1)[1])


def test_a_stratified_split_takes_neither_none_nor_all_of_a_class_of_two() -> None:
    labels = torch.tensor([0, 0, 1, 1, 2])

    for share in (0.01, 0.99):
        first, second = stratified(labels, share, "key")
        assert counts(labels[second]) == [[1, 1]]
        # The one image of the third class is left to train on.
        assert counts(labels[first]) == [[1, 1, 1]]


def test_a_folder_without_a_test_split_has_a_fifth_set_aside_and_the_rows_are_stored(
    cli: Callable, image_folder: Callable, tmp_path: Path
) -> None:
    folder = image_folder("pets", {"cat": 30, "dog": 20})

    splits = load_data(str(folder))
    again = load_data(str(folder))

    assert splits.train.classes == ("cat", "dog")
    assert counts(splits.train.labels, splits.test.labels) == [[24, 16], [6, 4]]
    assert splits.test.digest() == again.test.digest()
    assert splits.train.digest() == again.train.digest()

    assert cli("train", "--data", folder, "--method", "st", "--epochs", 1, "--out", "run").status == 0
    stored = load_file(tmp_path / "run" / "split.safetensors")
    assert sorted([*stored["train"].tolist(), *stored["test"].tolist()]) == list(range(50))
    # The rows count the files in the order of their paths.
    files = sorted(folder.rglob("*.png"))
    for part, images in (("train", splits.train), ("test", splits.test)):
        by_hand = [channels_first(Image.open(files[row])) for row in sorted(stored[part].tolist())]
        found = {pixels.tobytes() for pixels in images.pixels.numpy()}
        assert found == {pixels.tobytes() for pixels in by_hand}


@pytest.mark.parametrize(("splits", "used"), [(["train", "test"], "test"), (["train", "validation"], "validation")])
def test_a_test_split_is_used_as_it_is(
    cli: Callable, image_folder: Callable, tmp_path: Path, splits: list[str], used: str
) -> None:
    for number, split in enumerate(splits):
        image_folder("pets", {f"{split}/cat": 6 + number, f"{split}/dog": 7 + number})

    data = load_data(str(tmp_path / "pets"))

    assert counts(data.train.labels, data.test.labels) == [[6, 7], [7, 8]]
    assert data.indices == {}
    files = sorted((tmp_path / "pets" / used).rglob("*.png"))
    assert {p.tobytes() for p in data.test.pixels.numpy()} == {channels_first(Image.open(f)).tobytes() for f in files}

    assert cli("train", "--data", tmp_path / "pets", "--method", "st", "--epochs", 1, "--out", "run").status == 0
    assert not (tmp_path / "run" / "split.safetensors").exists()


def test_the_test_split_goes_before_a_validation_split(image_folder: Callable) -> None:
    for split, count in (("train", 6), ("validation", 4), ("test", 3)):
        folder = image_folder("pets", {f"{split}/cat": count, f"{split}/dog": count})

    data = load_data(str(folder))

    assert (len(data.train), len(data.test)) == (12, 6)


def test_training_images_are_not_read_where_only_the_test_split_is_asked_for(image_folder: Callable) -> None:
    folder = image_folder("pets", {f"{split}/{pet}": 4 for split in ("train", "test") for pet in ("cat", "dog")})
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")

    assert len(load_data(str(folder), train=False).test) == 8
    with pytest.raises(InputError) as caught:
        load_data(str(folder))
    assert_states(caught.value, folder / "train" / "cat" / "0.png", "read")


def test_what_is_trained_on_in_colour_is_tested_in_colour(cli: Callable, image_folder: Callable) -> None:
    image_folder("pets", {"train/cat": 12, "train/dog": 12}, mode="RGB")
    folder = image_folder("pets", {"test/cat": 4, "test/dog": 4}, mode="L")

    assert load_data(str(folder)).test.shape == (3, 8, 8)
    assert cli("train", "--data", folder, "--method", "st", "--epochs", 1, "--out", "run").status == 0
    answer = cli("evaluate", "run", "--epsilons", 0.1)

    assert answer.status == 0, answer.err


# Columns and classes -------------------------------------------------------------------------------------------------


def test_columns_are_found_by_their_type_whatever_their_name(parquet: Callable) -> None:
    pictures = [picture(n) for n in range(10)]
    folder = parquet("table", gewicht=[0.5] * 10, sorte=[0, 1] * 5, das_bild=[png(p) for p in pictures])
    parquet("table", split="test", gewicht=[0.5], sorte=[1], das_bild=[png(pictures[3])])

    splits = load_data(str(folder))

    assert np.array_equal(splits.train.pixels.numpy(), np.stack([channels_first(p) for p in pictures]))
    assert splits.train.labels.tolist() == [0, 1] * 5
    assert splits.test.labels.tolist() == [1]


def test_text_labels_become_sorted_classes(parquet: Callable) -> None:
    names = ["zebra", "ant", "moth", "ant", "zebra", "moth"]
    folder = parquet("table", photo=[png(picture(n)) for n in range(6)], kind=names)
    parquet("table", split="test", photo=[png(picture(9))], kind=["moth"])

    splits = load_data(str(folder))

    assert splits.train.classes == splits.test.classes == ("ant", "moth", "zebra")
    assert splits.train.labels.tolist() == [2, 0, 1, 0, 2, 1]
    assert splits.test.labels.tolist() == [1]


def test_whole_number_labels_become_classes_in_their_order(parquet: Callable) -> None:
    folder = parquet("table", photo=[png(picture(n)) for n in range(6)], kind=[30, -4, 7, 30, 7, -4])
    parquet("table", split="test", photo=[png(picture(9))], kind=[30])

    splits = load_data(str(folder))

    assert splits.train.classes == ("-4", "7", "30")
    assert splits.train.labels.tolist() == [2, 0, 1, 2, 1, 0]
    assert splits.test.labels.tolist() == [2]


def test_truth_values_are_two_classes(parquet: Callable) -> None:
    folder = parquet("table", photo=[png(picture(n)) for n in range(4)], kind=[True, False, False, True])
    parquet("table", split="test", photo=[png(picture(9))], kind=[True])

    splits = load_data(str(folder))

    assert splits.train.classes == ("False", "True")
    assert splits.train.labels.tolist() == [1, 0, 0, 1]


def test_a_column_of_class_labels_goes_before_one_of_numbers(tmp_path: Path) -> None:
    import datasets

    kinds = datasets.ClassLabel(names=["zebra", "ant"])
    features = datasets.Features({"id": datasets.Value("int64"), "kind": kinds, "photo": datasets.Image()})
    photos = [{"bytes": png(picture(n)), "path": None} for n in range(10)]
    columns = {"id": list(range(10)), "kind": [0, 1] * 5, "photo": photos}
    (tmp_path / "table").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "table" / "train.parquet")

    splits = load_data(str(tmp_path / "table"))

    # Their own order, not the alphabet's.
    assert splits.train.classes == ("zebra", "ant")
    assert counts(splits.train.labels, splits.test.labels) == [[4, 4], [1, 1]]


def test_a_data_root_stands_for_names_and_hub_ids(
    parquet: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = parquet("mnist", photo=[png(picture(n)) for n in range(10)], kind=[0, 1] * 5)
    other = parquet("flowers", photo=[png(picture(n)) for n in range(15)], kind=[0, 1, 2] * 5)
    monkeypatch.setenv("ASGT_DATA", str(tmp_path))

    for name in ("mnist", "ylecun/mnist", str(folder)):
        assert len(load_data(name).train) == 8
    for name in ("flowers", "somebody/flowers", str(other)):
        assert len(load_data(name).train) == 12


def test_a_path_is_not_looked_up_in_the_data_root(
    parquet: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parquet("root", photo=[png(picture(0))], kind=[0])
    (tmp_path / "root" / "pets").mkdir()
    (tmp_path / "mine").mkdir()
    parquet("mine/pets", photo=[png(picture(n)) for n in range(15)], kind=[0, 1, 2] * 5)
    monkeypatch.setenv("ASGT_DATA", str(tmp_path / "root"))
    monkeypatch.chdir(tmp_path)

    for name in (str(tmp_path / "mine" / "pets"), "./mine/pets", "mine/pets/"):
        assert len(load_data(name).train) == 12


# Pixels --------------------------------------------------------------------------------------------------------------


def test_images_of_mixed_modes_become_rgb_and_grey_makes_one_channel(parquet: Callable) -> None:
    colour = picture(0, mode="RGB")
    modes = [
        picture(1),
        colour,
        picture(2, mode="RGBA"),
        colour.quantize(16),
        picture(3).convert("1"),
        picture(4, mode="LA"),
    ]
    assert [image.mode for image in modes] == ["L", "RGB", "RGBA", "P", "1", "LA"]
    folder = parquet("table", photo=[png(image) for image in modes], kind=[0, 1] * 3)
    parquet("table", split="test", photo=[png(modes[0])], kind=[0])

    splits = load_data(str(folder), decode="imagefolder")
    grey = load_data(str(folder), grey=True, decode="imagefolder")

    assert splits.train.shape == splits.test.shape == (3, 8, 8)
    assert np.array_equal(splits.train.pixels.numpy(), np.stack([channels_first(i.convert("RGB")) for i in modes]))
    assert grey.train.shape == grey.test.shape == (1, 8, 8)
    assert np.array_equal(grey.train.pixels.numpy(), np.stack([channels_first(i.convert("L")) for i in modes]))


def test_images_that_are_all_grey_have_one_channel(parquet: Callable) -> None:
    folder = parquet("table", photo=[png(picture(n)) for n in range(10)], kind=[0, 1] * 5)

    assert load_data(str(folder)).train.shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("size", "to", "resized", "box"),
    [
        # (width, height), the side asked for, what the whole becomes, and (left, top, right, bottom) of its centre.
        ((30, 20), 10, (15, 10), (2, 0, 12, 10)),
        ((9, 31), 6, (6, 21), (0, 7, 6, 13)),
        ((31, 10), 6, (19, 6), (6, 0, 12, 6)),
        ((4, 6), 8, (8, 12), (0, 2, 8, 10)),
        ((12, 8), 8, (12, 8), (2, 0, 10, 8)),
        ((16, 16), 5, (5, 5), (0, 0, 5, 5)),
    ],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_short_side_is_resized_and_the_centre_cropped(
    parquet: Callable, size: tuple[int, int], to: int, resized: tuple[int, int], box: tuple[int, ...], mode: str
) -> None:
    pictures = [picture(n, size, mode) for n in range(4)]
    folder = parquet("table", photo=[png(p) for p in pictures], kind=[0, 1] * 2)
    parquet("table", split="test", photo=[png(pictures[0])], kind=[0])

    pixels = load_data(str(folder), image_size=to).train.pixels.numpy()

    left, top, right, bottom = box
    for found, image in zip(pixels, pictures, strict=True):
        by_hand = channels_first(image.resize(resized, Image.Resampling.BILINEAR))[:, top:bottom, left:right]
        assert np.array_equal(found, by_hand)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_those_of_numpy(channels: int) -> None:
    images = some_images(channels=channels)
    values = images.pixels.numpy().astype(np.float64) / 255

    mean, std = images.mean_std()

    np.testing.assert_allclose(mean, values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.std(axis=(0, 2, 3)), rtol=1e-9)


def test_floats_of_ones_own_are_taken_as_they_are() -> None:
    values = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = Images(values, torch.arange(20) % 3, ("a", "b", "c"))

    mean, std = images.mean_std()

    np.testing.assert_allclose(mean, values.double().numpy().mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, values.double().numpy().std(axis=(0, 2, 3)), rtol=1e-9)
    assert torch.equal(torch.cat([x for x, _ in batches(images, 7)]), values)


def test_a_channel_that_never_changes_has_a_deviation_to_divide_by() -> None:
    images = Images(torch.full((4, 1, 2, 2), 51, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))

    mean, std = images.mean_std()

    assert mean == pytest.approx([0.2])
    assert std[0] > 0


def test_a_digest_tells_images_and_labels_apart() -> None:
    images = some_images()
    pixels, labels = images.pixels.clone(), images.labels.clone()
    pixels[3, 1, 2, 2] ^= 1
    labels[5] = (labels[5] + 1) % 3

    assert Images(images.pixels.clone(), images.labels.clone(), images.classes).digest() == images.digest()
    assert Images(pixels, images.labels, images.classes).digest() != images.digest()
    assert Images(images.pixels, labels, images.classes).digest() != images.digest()
    assert images[torch.arange(22, -1, -1)].digest() != images.digest()


# The real data -------------------------------------------------------------------------------------------------------


def first_rows(folder: Path, split: str, count: int) -> tuple[list[np.ndarray], list[int]]:
    """The first images and labels of a parquet split, without asgt or datasets."""

    table = next(pyarrow.parquet.ParquetFile(next(folder.glob(f"{split}-*.parquet"))).iter_batches(count)).to_pydict()
    images, labels = table.values()
    return [channels_first(Image.open(io.BytesIO(image["bytes"]))) for image in images], labels


@pytest.mark.slow
def test_the_real_mnist_is_read_as_it_is(mnist: Path) -> None:
    splits = load_data(str(mnist), limit=300)

    assert len(splits.test) == 5_000
    assert splits.train.shape == splits.test.shape == (1, 28, 28)
    assert splits.train.classes == tuple("0123456789")
    assert abs(len(splits.train) - 300) <= 10
    assert (splits.train.labels.bincount() >= 20).all()
    # The first labels of the canonical test file.
    assert splits.test.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    pictures, labels = first_rows(mnist, "test", 40)
    assert np.array_equal(splits.test.pixels[:40].numpy(), np.stack(pictures))
    assert splits.test.labels[:40].tolist() == labels


def test_the_real_cifar10_is_read_as_it_is(cifar10: Path) -> None:
    splits = load_data(str(cifar10), limit=300)

    assert len(splits.test) == 1_000
    assert splits.train.shape == splits.test.shape == (3, 32, 32)
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert splits.train.classes == tuple(names.split())
    assert splits.train.labels.bincount().tolist() == [30] * 10
    # The first labels of the canonical test file: a cat, two ships, an aeroplane, two frogs.
    assert splits.test.labels[:6].tolist() == [3, 8, 8, 0, 6, 6]
    pictures, labels = first_rows(cifar10, "test", 40)
    assert np.array_equal(splits.test.pixels[:40].numpy(), np.stack(pictures))
    assert splits.test.labels[:40].tolist() == labels


def test_the_data_root_gives_the_real_mnist_by_its_name(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGT_DATA", str(mnist.parent))

    assert load_data("mnist", limit=20, train=False).test.labels[:4].tolist() == [7, 2, 1, 0]


# Batches -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_batches_cover_every_image_once_in_order(batch_size: int) -> None:
    images = some_images()

    parts = list(batches(images, batch_size))

    assert all(len(x) == len(y) <= batch_size for x, y in parts)
    assert len(parts) == -(-23 // batch_size)
    x, y = (torch.cat(part) for part in zip(*parts, strict=True))
    np.testing.assert_allclose(x.numpy(), images.pixels.numpy() / 255, rtol=1e-6)
    assert torch.equal(y, images.labels)


def test_every_level_of_a_pixel_keeps_its_place_in_the_unit_range() -> None:
    levels = to_unit(torch.arange(256).to(torch.uint8))

    assert levels.min() == 0
    assert levels.max() == 1
    assert torch.equal((levels * 255).round(), torch.arange(256.0))


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 23), (5, 4), (11, 2), (23, 1), (24, 1), (1000, 1)])
def test_an_epoch_takes_whole_batches_and_no_image_twice(batch_size: int, steps: int) -> None:
    images = some_images()
    order = training_order(images, 0, 0)
    generator = torch.Generator()

    taken = [training_batch(images, order, step, batch_size, unchanged, generator) for step in range(steps)]

    assert steps_per_epoch(images, batch_size) == steps
    seen = [pixels.numpy().tobytes() for x, _ in taken for pixels in (x * 255).round().to(torch.uint8)]
    assert len(seen) == len(set(seen)) == min(steps * batch_size, 23)
    # Each image keeps its label.
    label = {p.numpy().tobytes(): int(y) for p, y in zip(images.pixels, images.labels, strict=True)}
    assert [label[pixels] for pixels in seen] == [int(n) for _, y in taken for n in y]


def test_the_order_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    images = some_images(200)
    orders = {key: training_order(images, *key).tolist() for key in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]}

    assert all(sorted(order) == list(range(200)) for order in orders.values())
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    torch.manual_seed(17)
    assert all(training_order(images, *key).tolist() == order for key, order in orders.items())


# What cannot be images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixels", "labels", "classes", "said"),
    [
        (torch.zeros(2, 1, 4, 4, dtype=torch.int64), [0, 1], "ab", ["uint8"]),
        (torch.full((2, 1, 4, 4), 255.0), [0, 1], "ab", ["255"]),
        (torch.full((2, 1, 4, 4), torch.nan), [0, 1], "ab", ["NaN"]),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), [0, 1], "ab", ["uint8"]),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, 1, 1], "ab", ["3 labels", "2 images"]),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), [], "ab", ["no images"]),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, 0], "a", ["one class", "'a'"]),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, 2], "ab", ["label 2", "range"]),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), [0, -1], "ab", ["label -1", "range"]),
    ],
)
def test_images_that_do_not_fit_together_are_refused(
    pixels: torch.Tensor, labels: list[int], classes: str, said: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        Images(pixels, torch.tensor(labels, dtype=torch.int64), tuple(classes))
    assert_states(caught.value, *said)
