"""Decoded images in the cache: the same pixels as in memory, decoded once, and never half an entry."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from asgt.data import (
    Images,
    StoredPixels,
    batches,
    crop_flip,
    load_data,
    pixel_cache,
    split_decoding,
    training_batch,
    training_order,
)
from asgt.data.tree import Tree
from asgt.errors import DamagedFileError, InputError
from asgt.progress import SILENT
from asgt.randomness import Share, seeded
from support.messages import assert_states

Folder = Callable[..., Path]


class Said:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, title: str, total: int, done: int = 0) -> None: ...
    def advance(self, parts: int = 1, **values: float) -> None: ...
    def stop(self) -> None: ...
    def say(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of one's own, through which every data set goes and stays there."""

    monkeypatch.setenv("ASGT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(split_decoding, "CACHED", 1)
    monkeypatch.setattr(split_decoding, "IN_MEMORY", 0)
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that were decoded since."""

    where: list[str] = []
    original = vars(split_decoding)["decoded"]

    def counting(*arguments: Any) -> Any:
        where.append(arguments[1])
        return original(*arguments)

    monkeypatch.setattr(split_decoding, "decoded", counting)
    return where


def entries(cache: Path) -> list[Path]:
    return sorted(each for each in cache.iterdir() if (each / "entry.json").exists())


def pixels_of(images: Images) -> torch.Tensor:
    return images.pixels[:]


def a_folder(place: Path, kinds: tuple[str, ...] = ("L",), count: int = 20, size: int = 9) -> Path:
    """Images of some kinds in turn: ``L``, ``RGB``, ``LA``, ``I;16``."""

    draws = np.random.default_rng(len(kinds))
    for number in range(count):
        folder = place / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        kind = kinds[number // 2 % len(kinds)]
        shape = (size, size + 2, *{"RGB": (3,), "LA": (2,)}.get(kind, ()))
        if kind == "I;16":
            picture = Image.fromarray(draws.integers(0, 65536, shape, dtype=np.uint16))
        else:
            picture = Image.fromarray(draws.integers(0, 256, shape, dtype=np.uint8))
        picture.save(folder / f"{number}.png")
    return place


KINDS = [("L",), ("RGB",), ("L", "RGB"), ("RGB", "L"), ("L", "I;16"), ("L", "L", "RGB", "LA"), ("L", "RGB", "I;16")]


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
@pytest.mark.parametrize("options", [{}, {"image_size": 6}, {"channels": 3}], ids=["as-they-are", "size", "colour"])
def test_pixels_are_those_in_memory(
    kinds: tuple[str, ...], options: dict[str, Any], cache: Path, tmp_path: Path
) -> None:
    folder = a_folder(tmp_path / "set", kinds)
    plain = load_data(folder, cache=False, **options)
    assert not cache.exists()
    for time_ in ("first", "again"):
        stored = load_data(folder, **options)
        for split in ("train", "test"):
            ours, theirs = getattr(stored, split), getattr(plain, split)
            assert isinstance(ours.pixels, StoredPixels), time_
            assert ours.shape == theirs.shape
            assert ours.pixels.dtype == theirs.pixels.dtype
            assert pixels_of(ours).equal(theirs.pixels)
            assert ours.labels.equal(theirs.labels)
            assert ours.digest() == theirs.digest()
            for mine, its in zip(ours.mean_std(), theirs.mean_std(), strict=True):
                assert mine == pytest.approx(its, rel=1e-12)
        assert (stored.notes, stored.reading) == (plain.notes, plain.reading)


@pytest.fixture
def both(cache: Path, tmp_path: Path) -> tuple[Images, Images]:
    """The same images in a file and in memory."""

    folder = a_folder(tmp_path / "set", ("RGB",), 41)
    return load_data(folder).train, load_data(folder, cache=False).train


def test_batches_and_views_are_those_in_memory(both: tuple[Images, Images]) -> None:
    stored, plain = both
    for size in (4, 7, 100):
        for ours, theirs in zip(batches(stored, size), batches(plain, size), strict=True):
            assert ours[0].equal(theirs[0])
            assert ours[1].equal(theirs[1])
    rows = torch.tensor([5, 3, 20, 3])
    mask = torch.arange(len(plain)) % 3 == 0
    for index in (rows, mask, slice(2, 9), slice(None, None, 2)):
        assert pixels_of(stored[index]).equal(plain.pixels[index])
        assert pixels_of(stored[index][:2]).equal(plain.pixels[index][:2])
        assert stored[index].digest() == plain[index].digest()
        assert stored[index].mean_std() == plain[index].mean_std()
        assert stored.pixels[index].equal(plain.pixels[index])
    assert stored.pixels[-1].equal(plain.pixels[-1])
    assert torch.stack([stored.pixels, stored.pixels]).equal(torch.stack([plain.pixels, plain.pixels]))  # type: ignore[list-item]


@pytest.mark.parametrize("ranks", [1, 2])
def test_training_batches_are_those_in_memory_in_any_order(both: tuple[Images, Images], ranks: int) -> None:
    stored, plain = both
    orders = training_order(stored, 3, 1), training_order(plain, 3, 1)
    assert orders[0].equal(orders[1])
    # What is gathered ahead is the next step; a step that comes instead is gathered all the same.
    for step in (0, 1, 3, 2, 2, 0):
        for rank in range(ranks):

            def made(images: Images, order: torch.Tensor, step: int = step, rank: int = rank) -> torch.Tensor:
                generator = seeded(0, "augmentation", step)
                share = generator if ranks == 1 else Share(generator, rank, ranks)
                return training_batch(images, order, step, 8, crop_flip, share)[0]

            assert made(stored, orders[0]).equal(made(plain, orders[1]))


def test_a_second_call_decodes_one_image_a_split(cache: Path, decoded: list[str], tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set")
    load_data(folder)
    assert len(decoded) == 20 + 2
    decoded.clear()
    (tmp_path / "elsewhere").mkdir()
    moved = folder.rename(tmp_path / "elsewhere" / "set")
    for file in moved.rglob("*.png"):
        os.utime(file, (1, 1))
    load_data(moved)
    assert len(decoded) == 2
    assert len(entries(cache)) == 2


def test_files_that_stand_as_they_stood_are_not_read_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path / "set")
    expected = load_data(folder, cache=False).train.digest()
    # As if the files had been written long ago.
    monkeypatch.setattr(split_decoding, "_SETTLED", -60.0)
    load_data(folder)
    read: list[str] = []
    original = Tree.read
    monkeypatch.setattr(Tree, "read", lambda tree, path: read.append(path) or original(tree, path))  # type: ignore[func-returns-value]
    assert load_data(folder).train.digest() == expected
    assert read == []

    stamp = (file := folder / "a" / "0.png").stat()
    content = (folder / "b" / "1.png").read_bytes()
    file.write_bytes(content)
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert load_data(folder).train.digest() == load_data(folder, cache=False).train.digest() != expected


def test_a_file_that_was_just_written_is_read_again(cache: Path, tmp_path: Path) -> None:
    load_data(a_folder(tmp_path / "set"))
    assert not (cache / "seen").exists()


@pytest.mark.parametrize("change", ["content", "size", "interpolation", "decode", "order"])
def test_another_content_or_setting_is_decoded_anew(change: str, cache: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set")
    load_data(folder, image_size=6)
    options: dict[str, Any] = {"image_size": 6}
    if change == "content":
        stamp = (file := folder / "a" / "0.png").stat()
        picture = np.array(Image.open(file))
        picture[0, 0] ^= 1
        Image.fromarray(picture).save(file)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif change == "order":
        (folder / "a" / "0.png").rename(folder / "a" / "zero.png")
    else:
        options |= {
            "size": {"image_size": 7},
            "interpolation": {"interpolation": "box"},
            "decode": {"decode": "imagefolder"},
        }[change]
    stored = load_data(folder, **options)
    plain = load_data(folder, cache=False, **options)
    assert pixels_of(stored.train).equal(pixels_of(plain.train))
    assert pixels_of(stored.test).equal(pixels_of(plain.test))


@pytest.mark.parametrize("file", ["pixels.bin", "images.safetensors", "entry.json"])
@pytest.mark.parametrize("damage", ["cut", "missing", "longer"])
def test_an_entry_that_is_not_whole_is_made_anew(file: str, damage: str, cache: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set")
    plain = load_data(folder)
    expected = pixels_of(plain.train)
    for entry in entries(cache):
        content = (entry / file).read_bytes()
        (entry / file).unlink()
        if damage != "missing":
            (entry / file).write_bytes(content[:-1] if damage == "cut" else content + b"0")
    said = Said()
    assert pixels_of(load_data(folder, progress=said).train).equal(expected)
    if not (file == "entry.json" and damage == "missing"):
        assert "damaged" in " ".join(said.lines)
    assert pixels_of(load_data(folder).train).equal(expected)


@pytest.mark.parametrize("place", [0, 777, -1])
def test_an_image_that_is_not_as_it_was_written_is_refused_at_its_first_use(
    place: int, cache: Path, tmp_path: Path
) -> None:
    folder = a_folder(tmp_path / "set")
    expected = pixels_of(load_data(folder).train)
    for entry in entries(cache):
        content = bytearray((entry / "pixels.bin").read_bytes())
        content[place % len(content)] ^= 4
        (entry / "pixels.bin").write_bytes(content)
    images = load_data(folder).train
    with pytest.raises(DamagedFileError) as caught:
        for _ in batches(images, 3):
            pass
    assert_states(caught.value, "damaged", "removed", "again")
    assert len(entries(cache)) == 1
    assert pixels_of(load_data(folder).train).equal(expected)


def test_a_damaged_entry_that_cannot_be_removed_is_named(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path / "set")
    load_data(folder)
    (entry, *_) = entries(cache)
    for place in entries(cache):
        damaged = bytearray((place / "pixels.bin").read_bytes())
        damaged[5] ^= 1
        (place / "pixels.bin").write_bytes(damaged)

    def forbidden(*_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", forbidden)
    with pytest.raises(DamagedFileError) as caught:
        pixels_of(load_data(folder).train)
    assert_states(caught.value, entry.parent, "could not be removed", "--no-cache")


def test_a_small_set_that_is_damaged_is_decoded_again_at_once(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_decoding, "IN_MEMORY", 2**20)
    folder = a_folder(tmp_path / "set", ("L", "RGB"))
    expected = load_data(folder).train
    assert isinstance(expected.pixels, torch.Tensor)
    for entry in entries(cache):
        content = bytearray((entry / "pixels.bin").read_bytes())
        content[40] ^= 1
        (entry / "pixels.bin").write_bytes(content)
    said = Said()
    assert load_data(folder, progress=said).train.digest() == expected.digest()
    assert sum("damaged" in line for line in said.lines) == 2
    assert load_data(folder, progress=Said()).train.digest() == expected.digest()


def test_a_flipped_digit_of_an_entry_is_noticed(cache: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set")
    load_data(folder)
    for entry in entries(cache):
        text = (entry / "entry.json").read_text()
        (entry / "entry.json").write_text(text.replace("uint8", "uint9").replace("11", "12"))
    said = Said()
    load_data(folder, progress=said)
    assert sum("damaged" in line for line in said.lines) == 2


def test_images_of_several_sizes_are_refused_and_leave_nothing(cache: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(folder / "a" / "0.png")
    for _ in range(2):
        with pytest.raises(InputError) as caught:
            load_data(folder)
        assert_states(caught.value, "2 sizes", "--image-size")
    assert not any(each.name.endswith(".part") for each in cache.iterdir())


@pytest.mark.parametrize("fault", ["full", "full later", "a file", "small"])
def test_without_room_images_are_held_in_memory(
    fault: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path / "set")
    if fault == "full":

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "posix_fallocate", full)
    elif fault == "full later":
        write = os.pwrite

        def full_later(file: int, what: memoryview, at: int) -> int:
            # As on a file system that copies what is overwritten: the room that was reserved is not enough.
            if at > 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return write(file, what[:100], at)

        monkeypatch.setattr(os, "pwrite", full_later)
    elif fault == "a file":
        cache.write_text("")
    else:
        monkeypatch.setenv("ASGT_CACHE_SIZE", "1KB")
    said = Said()
    images = load_data(folder, progress=said).train
    assert isinstance(images.pixels, torch.Tensor)
    assert images.digest() == load_data(folder, cache=False).train.digest()
    assert_states(" ".join(said.lines), str(cache), "memory", "ASGT_CACHE")


def test_an_unreadable_size_of_the_cache_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASGT_CACHE_SIZE", "plenty")
    with pytest.raises(InputError) as caught:
        load_data(a_folder(tmp_path / "set"))
    assert_states(caught.value, "ASGT_CACHE_SIZE", "plenty", "20GB")


def test_an_empty_place_means_no_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGT_CACHE", "")
    images = load_data(a_folder(tmp_path / "set")).train
    assert isinstance(images.pixels, torch.Tensor)
    assert not cache.exists()


def test_what_was_not_used_for_longest_is_removed_first(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = [a_folder(tmp_path / f"set{number}", ("L", "RGB")[: number + 1], 400, 20) for number in range(2)]
    first = load_data(sets[0]).train
    before = entries(cache)
    expected = pixels_of(first).clone()
    for entry in before:
        os.utime(entry, (1, 1))
    size = sum(file.stat().st_size for entry in before for file in entry.iterdir())
    # The second set, three times as large, fits; but not beside the first.
    limit = int(3.3 * size)
    monkeypatch.setenv("ASGT_CACHE_SIZE", str(limit))
    second = load_data(sets[1])
    after = entries(cache)
    assert sum(file.stat().st_size for entry in after for file in entry.iterdir()) <= limit
    assert len(set(before) & set(after)) < 2
    assert pixels_of(second.train).equal(load_data(sets[1], cache=False).train.pixels[:])
    assert all(len(pixels_of(images)) for images in (second.train, second.test))
    # Who reads an entry that was removed goes on reading.
    assert pixels_of(first).equal(expected)


def test_no_split_is_removed_for_another_of_the_same_data(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_folder(tmp_path / "set", count=60)
    splits = load_data(folder)
    sizes = [sum(file.stat().st_size for file in entry.iterdir()) for entry in entries(cache)]
    del splits
    for entry in entries(cache):
        shutil.rmtree(entry)
    # Room for the larger of both, but not for both: the second is held in memory, and the first stays.
    monkeypatch.setenv("ASGT_CACHE_SIZE", str(max(sizes) + 1))
    for _ in range(2):
        said = Said()
        splits = load_data(folder, progress=said)
        assert len(entries(cache)) == 1
        assert_states(" ".join(said.lines), "memory", "in use")
        kept = entries(cache)
        del splits
    assert entries(cache) == kept


def test_nothing_is_removed_for_what_the_disk_has_no_room_for(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_data(a_folder(tmp_path / "first"))
    before = entries(cache)
    monkeypatch.setenv("ASGT_CACHE_SIZE", "20GB")
    usage = shutil.disk_usage(cache)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    said = Said()
    images = load_data(a_folder(tmp_path / "second", ("RGB",), 200), progress=said).train
    assert isinstance(images.pixels, torch.Tensor)
    assert entries(cache) == before
    assert_states(" ".join(said.lines), "the disk of the cache has 0 MiB")


def test_a_system_without_fallocate_has_a_cache_too(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    images = load_data(a_folder(tmp_path / "set")).train
    assert isinstance(images.pixels, StoredPixels)
    assert images.digest() == load_data(tmp_path / "set", cache=False).train.digest()


@pytest.mark.parametrize("system", ["without pwrite", "of short writes"])
def test_images_are_written_whole_whatever_the_system_writes_at_once(
    system: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = os.pwrite, []

    def short(file: int, what: memoryview, at: int) -> int:
        calls.append(at)
        return write(file, what[:100], at)

    # Grey images before the first in colour: the entry is made anew, wider, while threads write.
    folder = a_folder(tmp_path / "set", ("L", "RGB"), 200)
    if system == "without pwrite":
        monkeypatch.delattr(os, "pwrite")
    else:
        monkeypatch.setattr(os, "pwrite", short)
    images = load_data(folder).train
    assert isinstance(images.pixels, StoredPixels)
    monkeypatch.undo()
    assert images.digest() == load_data(folder, cache=False).train.digest()
    assert not calls or len(calls) > images.pixels.nbytes // 100


def test_what_is_read_is_the_only_file_that_stays_open(cache: Path, tmp_path: Path) -> None:
    opened = Path("/proc/self/fd")
    if not opened.exists():
        pytest.skip("this system does not list the open files of a process")
    images = load_data(a_folder(tmp_path / "set", ("L", "RGB"), 200)).train
    assert isinstance(images.pixels, StoredPixels)
    places = [os.readlink(each) for each in opened.iterdir() if each.is_symlink()]
    (place,) = (place for place in places if str(cache) in place)
    assert place == str(next(cache.glob("*/pixels.bin")))


def test_numbers_of_numpy_are_options_as_those_of_python(cache: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set", ("I;16",))
    theirs = load_data(
        folder, image_size=np.int64(6), grey=np.bool_(True), pixel_range=(np.float32(0), np.int64(65535))
    )
    before = entries(cache)
    ours = load_data(folder, image_size=6, grey=True, pixel_range=(0, 65535))
    assert ours.train.digest() == theirs.train.digest()
    assert entries(cache) == before


def test_a_place_of_nobody_is_refused(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASGT_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(InputError) as caught:
        load_data(a_folder(tmp_path / "set"))
    assert_states(caught.value, "ASGT_CACHE", "nobody-of-this-name")


def test_whoever_waits_for_another_process_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_cache, "_QUIET", 0.01)
    (cache / "entry").mkdir(parents=True)
    store, said = pixel_cache.PixelCache(cache, "set", SILENT), Said()
    began = threading.Event()

    def holds() -> None:
        with store.alone("key"):
            began.set()
            time.sleep(0.2)

    holder = threading.Thread(target=holds)
    holder.start()
    assert began.wait(10)
    with pixel_cache.PixelCache(cache, "set", said).alone("key"):
        pass
    holder.join()
    assert_states(" ".join(said.lines), "waiting", "decoding the images of set", str(os.getpid()))


def _load(folder: Path, waits: float, answers: Any) -> None:
    original = vars(split_decoding)["decoded"]
    count = 0

    def slow(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        time.sleep(waits)
        return original(*arguments)

    vars(split_decoding)["decoded"] = slow
    digest = load_data(folder).train.digest()
    answers.put((count, digest))


def test_of_two_processes_one_decodes(cache: Path, tmp_path: Path) -> None:
    folder = a_folder(tmp_path / "set")
    fork = multiprocessing.get_context("fork")
    answers = fork.Queue()
    both = [fork.Process(target=_load, args=(folder, 0.01, answers)) for _ in range(2)]
    for each in both:
        each.start()
    found = [answers.get(timeout=60) for _ in both]
    for each in both:
        each.join()
    assert sorted(count for count, _ in found) == [2, 22]
    assert {digest for _, digest in found} == {load_data(folder, cache=False).train.digest()}


def test_a_kill_leaves_nothing_that_is_read(cache: Path, tmp_path: Path) -> None:
    # Far more images than a thread takes at a time: most are yet to come when the entry is begun.
    folder = a_folder(tmp_path / "set", count=160)
    fork = multiprocessing.get_context("fork")
    killed = fork.Process(target=_load, args=(folder, 0.05, fork.Queue()))
    killed.start()
    deadline = time.monotonic() + 30
    while not (cache.exists() and any(each.name.endswith(".part") for each in cache.iterdir())):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert entries(cache) == []
    assert load_data(folder).train.digest() == load_data(folder, cache=False).train.digest()
    assert not any(each.name.endswith(".part") for each in cache.iterdir())


def test_a_run_is_the_same_from_memory_and_from_a_file(cache: Path, tmp_path: Path) -> None:
    from asgt.training.config import TrainConfig
    from asgt.training.trainer import train

    folder = a_folder(tmp_path / "set", ("RGB",), 40, 8)
    config = TrainConfig(data=str(folder), method="st", epochs=2, batch_size=8, image_size=8)
    runs = []
    for name, place in (("file", str(cache)), ("memory", "")):
        os.environ["ASGT_CACHE"] = place
        result = train(config, tmp_path / name)
        runs.append(((tmp_path / name / "model.safetensors").read_bytes(), result.train_data, result.validation))
    assert runs[0] == runs[1]
