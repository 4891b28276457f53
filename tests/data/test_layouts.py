"""Folders of images: every row of the tables in ``docs/data-layouts.md`` is built and read, and what has no row."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from asgt.data import Splits, load_data
from asgt.errors import InputError
from support.layouts import names_in, refusal, rows_of
from support.messages import assert_states

COUNT = 5


UNDERSTOOD, REFUSED = rows_of("Understood", 1), rows_of("Refused", 1)


class Folder:
    """A folder of images that are all different, so that each can be recognised by its pixels."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.drawn = np.random.default_rng(0)
        self.pixels: dict[str, bytes] = {}

    def add(self, path: str) -> None:
        pixels = self.drawn.integers(0, 256, (4, 4), dtype=np.uint8)
        self.pixels[path] = pixels.tobytes()
        (self.place / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(self.place / path)

    def build(self, layout: list[str]) -> Folder:
        for pattern in layout:
            if pattern.endswith("/*") or pattern == "*":
                for number in range(COUNT):
                    self.add(pattern[:-1] + f"{number}.png")
            else:
                (self.place / pattern).parent.mkdir(parents=True, exist_ok=True)
                (self.place / pattern).write_bytes(b"")
        return self

    def labelled(self, splits: Splits, part: str) -> dict[str, str]:
        """The class of each file that is in a split."""

        images = getattr(splits, part)
        by_pixels = {pixels: path for path, pixels in self.pixels.items()}
        return {
            by_pixels[pixels.numpy().tobytes()]: images.classes[label]
            for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True)
        }


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "root").mkdir()
    return Folder(tmp_path / "root")


def read(folder: Folder, **options: object) -> Splits:
    return load_data(str(folder.place), **options)  # type: ignore[arg-type]


def expected(folder: Folder, cell: str) -> dict[str, str]:
    """The class of each file in the folders that a cell of the table names; a split folder goes before the class."""

    prefixes = names_in(cell)
    whole = len(prefixes) == 1
    class_of = {}
    for path in folder.pixels:
        parts = path.split("/")
        if cell == "top folders":
            class_of[path] = parts[0]
        elif any(path.startswith(prefix) for prefix in prefixes) and not any("." in part[:1] for part in parts):
            depth = 1 if whole else 0
            if len(parts) > depth + 1:
                class_of[path] = parts[depth]
    return class_of


@pytest.mark.parametrize("row", UNDERSTOOD, ids=lambda row: row[0])
def test_a_layout_is_read_as_the_docs_say(folder: Folder, row: list[str]) -> None:
    layout, train, test, classes = row
    folder.build(names_in(layout))

    splits = read(folder, train=train != "none")

    assert splits.train.classes == splits.test.classes == tuple(names_in(classes))
    both = folder.labelled(splits, "train"), folder.labelled(splits, "test")
    if train == "none":
        assert both == (expected(folder, test), expected(folder, test))
        assert_states(refusal(folder.place), folder.place, "train")
    elif test == "a fifth":
        of_train = expected(folder, train)
        assert both[0] | both[1] == of_train
        assert not set(both[0]) & set(both[1])
        for name in names_in(classes):
            assert list(both[1].values()).count(name) == list(of_train.values()).count(name) // 5
        assert len(splits.indices["test"]) == len(both[1])
    else:
        assert both == (expected(folder, train), expected(folder, test))
        assert splits.indices == {}
    # Every image is in use, or said to be ignored.
    seen = set(both[0]) | set(both[1])
    said = " ".join(splits.notes)
    shown = [path for path in folder.pixels if not any(part[:1] in (".", "_") for part in path.split("/"))]
    assert ("ignored" in said) == (len(seen) < len(folder.pixels))
    counts = [int(count.replace(",", "")) for count in re.findall(r"([\d,]+) images? (?:above|in)", said)]
    assert sum(counts) == len(shown) - len(seen)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_a_layout_that_tells_too_little_is_refused(folder: Folder, row: list[str]) -> None:
    folder.build(names_in(row[0]))

    line = refusal(folder.place)

    for name in names_in(row[1]):
        assert name in line


def test_a_lone_folder_is_refused_with_the_path_to_give_instead(folder: Folder) -> None:
    folder.build(["a/b/train/cat/*", "a/b/train/dog/*"])

    place = refusal(folder.place).rpartition("give ")[2]

    assert load_data(place).train.classes == ("cat", "dog")


def test_the_name_of_a_file_never_names_a_split(folder: Folder) -> None:
    for name in ("cat", "dog"):
        for number in range(20):
            folder.add(f"{name}/{name}-{'test' if number == 7 else 'train' if number == 8 else 'x'}-{number}.png")
    for name in ("validation_0.png", "cat/test.png"):
        folder.add(f"dog/{name}")

    splits = read(folder)

    assert len(splits.train) + len(splits.test) == 42
    assert splits.train.classes == ("cat", "dog")


def test_what_is_ignored_is_counted_and_stored(folder: Folder) -> None:
    folder.build(["cat/*", "dog/*", "x.png", "cat/.DS_Store", "dog/._0.png", "Thumbs.db", "notes.txt", "dog/list.csv"])
    (folder.place / "empty").mkdir()

    splits = read(folder)

    said = " ".join(splits.notes)
    for fact in ("1 image above", "x.png", "3 hidden", "2 files", "notes.txt", "1 folder without images (empty)"):
        assert fact in said
    assert " ".join(splits.reading["ignored"]) in said.replace("; ", " ")
    assert splits.reading["place"] == str(folder.place)


def test_a_class_folder_without_images_is_no_class_and_said(folder: Folder) -> None:
    folder.build(["train/cat/*", "train/dog/*", "test/cat/*", "test/dog/*"])
    (folder.place / "train" / "bird").mkdir()

    splits = read(folder)

    assert splits.train.classes == ("cat", "dog")
    assert "train/bird" in " ".join(splits.notes)


def test_a_usual_layout_is_said_in_one_line(folder: Folder) -> None:
    (line,) = read(folder.build(["train/cat/*", "train/dog/*", "test/cat/*", "test/dog/*"])).notes

    assert_states(line, "train/", "test/", "10 images", "cat", "dog")


@pytest.mark.parametrize(
    "names", [("caf\u00e9", "cafe\u0301"), ("\u00c9t\u00e9", "e\u0301te\u0301"), ("STRASSE", "stra\u00dfe")]
)
def test_two_spellings_of_one_class_are_refused_in_a_split_and_between_splits(
    folder: Folder, names: tuple[str, str]
) -> None:
    one, other = names
    folder.build([f"train/{one}/*", "train/dog/*", f"test/{other}/*", "test/dog/*"])
    between = refusal(folder.place)
    folder.build([f"train/{other}/*"])
    within = refusal(folder.place)

    for line in (between, within):
        assert_states(line, ascii(one), ascii(other))


def test_names_that_a_terminal_would_obey_are_shown_escaped(folder: Folder) -> None:
    folder.build(["a\x1b[31mred/*", "b/*", "c\nd/*"])
    (folder.place / "\x1b]0;x\x07.txt").write_bytes(b"")

    splits = read(folder)

    said = "".join(splits.notes)
    assert said.isprintable()
    for shown in (r"a\x1b[31mred", r"c\nd", r"\x1b]0;x\x07.txt"):
        assert shown in said
    assert splits.train.classes == ("a\x1b[31mred", "b", "c\nd")
    (folder.place / "b" / "\x1b[2J.png").write_bytes(b"no image")
    assert r"b/\x1b[2J.png" in refusal(folder.place)


def test_folders_may_be_nested_deeper_than_pythons_stack(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.build(["cat/*", "dog/*"])
    depth = 1100
    monkeypatch.chdir(folder.place / "cat")
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")

    splits = read(folder)
    # What removes pytest's old folders goes no deeper than the stack either.
    for _ in range(depth):
        os.chdir("..")
        os.rmdir("d")

    assert len(splits.train) + len(splits.test) == 10


# Links ---------------------------------------------------------------------------------------------------------------


def test_links_to_files_and_folders_are_followed(folder: Folder, tmp_path: Path) -> None:
    elsewhere = Folder(tmp_path / "elsewhere").build(["cats/*", "single/*"])
    folder.build(["dog/*"])
    os.symlink(elsewhere.place / "cats", folder.place / "cat")
    os.symlink(elsewhere.place / "single" / "0.png", folder.place / "dog" / "linked.png")

    splits = read(folder)

    assert splits.train.classes == ("cat", "dog")
    assert len(splits.train) + len(splits.test) == 11


def test_links_in_a_circle_are_counted_and_not_followed(folder: Folder) -> None:
    folder.build(["cat/*", "dog/*"])
    os.symlink(folder.place, folder.place / "cat" / "round")
    os.symlink(folder.place / "dog", folder.place / "dog" / "again")

    splits = read(folder)

    assert len(splits.train) + len(splits.test) == 10
    assert "2 links" in " ".join(splits.notes)


@pytest.mark.parametrize(("name", "target"), [("cat/9.png", "gone"), ("bird", "gone"), ("bird", "bird")])
def test_a_link_that_leads_nowhere_is_named(folder: Folder, name: str, target: str) -> None:
    folder.build(["cat/*", "dog/*"])
    os.symlink(folder.place / target, folder.place / name)

    line = refusal(folder.place)

    assert_states(line, name, folder.place / target)


def test_what_is_no_file_is_not_opened(folder: Folder) -> None:
    folder.build(["cat/*", "dog/*"])
    os.mkfifo(folder.place / "cat" / "pipe.png")

    assert "1 file" in " ".join(read(folder).notes)


def test_a_data_folder_that_is_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    os.symlink(tmp_path / "gone", tmp_path / "pets")

    assert "gone" in refusal(tmp_path / "pets")


def test_a_name_that_is_no_text_is_named(folder: Folder) -> None:
    folder.build(["cat/*", "dog/*"])
    (folder.place / os.fsdecode(b"b\xffrd")).mkdir()

    assert "UTF-8" in refusal(folder.place)


# Metadata ------------------------------------------------------------------------------------------------------------


def table_of(folder: Folder, prefix: str = "") -> str:
    lines = ["file_name,kind,weight"]
    for number, path in enumerate(sorted(folder.pixels)):
        lines.append(f"{path.removeprefix(prefix)},{'cat' if number % 2 else 'dog'},{number / 7}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("layout", ["*", "images/*"])
def test_a_metadata_file_labels_images_without_class_folders(folder: Folder, layout: str) -> None:
    folder.build([layout] * 1)
    for number in range(5):
        folder.add(layout[:-1] + f"more{number}.png")
    (folder.place / "metadata.csv").write_text(table_of(folder))

    splits = read(folder)

    order = sorted(folder.pixels)
    labelled = folder.labelled(splits, "train") | folder.labelled(splits, "test")
    assert labelled == {path: "cat" if order.index(path) % 2 else "dog" for path in order}
    assert "metadata.csv" in " ".join(splits.notes)


def test_a_metadata_file_in_each_split_labels_it(folder: Folder) -> None:
    folder.build(["train/*", "test/*"])
    for split in ("train", "test"):
        lines = [f'{{"file_name": "{n}.png", "label": {n % 2}}}' for n in range(COUNT)]
        (folder.place / split / "metadata.jsonl").write_text("\n".join(lines))

    splits = read(folder)

    for part in ("train", "test"):
        assert folder.labelled(splits, part) == {f"{part}/{n}.png": str(n % 2) for n in range(COUNT)}


def test_a_metadata_file_beside_class_folders_changes_nothing_unless_it_is_asked_for(folder: Folder) -> None:
    folder.build(["bird/*", "fish/*"])
    (folder.place / "metadata.csv").write_text(table_of(folder))

    splits = read(folder)
    assert splits.train.classes == ("bird", "fish")
    assert "metadata.csv" in " ".join(splits.notes)
    assert read(folder, label_column="kind").train.classes == ("cat", "dog")


def labelled(*labels: str) -> str:
    return "file_name,label\n" + "".join(f"{number}.png,{label}\n" for number, label in enumerate(labels))


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["1e2", "100", "2e1", "20", "1e2"], ("100", "1e2", "20", "2e1")),
        (["1_0", "10", "3", "10", "3"], ("10", "1_0", "3")),
        (["07", "08", "10", "07", "08"], ("07", "08", "10")),
        (["inf", "nan", "2", "inf", "2"], ("2", "inf", "nan")),
        (["10", "9", "10", "9", "9"], ("9", "10")),
        (["10.0", "9.0", "10.0", "9.0", "9.0"], ("9", "10")),
        (["-1", "1", "-1", "1", "1"], ("-1", "1")),
    ],
)
def test_text_stays_text_unless_all_of_it_spells_numbers(
    folder: Folder, labels: list[str], classes: tuple[str, ...]
) -> None:
    folder.build(["*"])
    for number in range(5, 10):
        folder.add(f"{number}.png")
    (folder.place / "metadata.csv").write_text(labelled(*labels, *labels))

    splits = read(folder)

    assert splits.train.classes == classes
    both = folder.labelled(splits, "train") | folder.labelled(splits, "test")
    names = [str(int(float(label))) if label.endswith(".0") else label for label in labels]
    assert both == {f"{number}.png": name for number, name in enumerate(names * 2)}


def test_a_json_string_may_hold_line_separators(folder: Folder) -> None:
    folder.build(["*"])
    names = ["a\u2028b", "c\u0085", "a\u2028b", "c\u0085", "c\u0085"]
    lines = [f'{{"file_name": "{number}.png", "label": "{name}"}}' for number, name in enumerate(names)]
    (folder.place / "metadata.jsonl").write_text("\r\n".join(lines), "utf-8", newline="")

    assert read(folder).train.classes == ("a\u2028b", "c\u0085")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"file_name": "4.png", "label": ' + "1" + "0" * 400 + "}", ["column", "labels"]),
        ('{"file_name": "4.png", "label": 1, "label": 2}', ["two columns", "label"]),
    ],
)
def test_a_json_line_that_does_not_fit_is_refused(folder: Folder, line: str, said: list[str]) -> None:
    folder.build(["*"])
    lines = [f'{{"file_name": "{number}.png", "label": {number % 2}.5}}' for number in range(4)]
    (folder.place / "metadata.jsonl").write_text("\n".join([*lines, line]))

    assert_states(refusal(folder.place), *said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file_name,label\n0.png,a\n9.png,b\n", ["9.png"]),
        ("file_name,label\n0.png,a\n0.png,b\n", ["0.png", "second"]),
        ("image,label\n0.png,a\n1.png,b\n", ["file_name"]),
        ("file_name,label\n0.png,a,b\n", ["row 0"]),
        ("file_name,label\n", ["no images"]),
        ("file_name,label\n0.png,a\n1.png,\n2.png,a\n3.png,b\n", ["no label"]),
        ("file_name,label\n../secret.png,a\n", ["secret.png"]),
        ("file_name,label,label\n0.png,a,x\n1.png,b,y\n", ["two columns", "label"]),
        ("file_name;label\n0.png;a\n1.png;b\n", ["columns", "';'"]),
        (labelled("07", "7", "8", "07", "7"), ["'07'", "'7'", "number"]),
        (labelled("1", "1.0", "2", "1", "2"), ["'1'", "'1.0'", "number"]),
        (labelled("-1", "0", "1", "-1", "0"), ["-1", "0 to 1"]),
    ],
)
def test_a_metadata_file_that_does_not_fit_is_refused(folder: Folder, text: str, said: list[str]) -> None:
    folder.build(["*"])
    (folder.place / "metadata.csv").write_text(text)

    assert_states(refusal(folder.place), *said)


def test_a_column_of_labels_is_refused_where_folders_are_the_classes(folder: Folder) -> None:
    folder.build(["cat/*", "dog/*"])

    assert "--label-column" in refusal(folder.place, label_column="kind")


# Archives ------------------------------------------------------------------------------------------------------------


def pack(folder: Folder, inside: str = "") -> Path:
    target = folder.place.parent / "pets.zip"
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.place.rglob("*")):
            if path.is_file():
                archive.write(path, inside + path.relative_to(folder.place).as_posix())
    return target


@pytest.mark.parametrize("inside", ["", "pets/", "a/b/"])
def test_an_archive_is_read_like_the_folder_and_not_extracted(folder: Folder, inside: str) -> None:
    folder.build(["Train/cat/a/*", "Train/dog/*", "test/cat/*", "test/dog/*", "__MACOSX/Train/cat/*"])
    archive = pack(folder, inside)
    before = sorted(folder.place.parent.iterdir())

    splits, plain = load_data(str(archive)), read(folder)

    assert splits.train.digest() == plain.train.digest()
    assert splits.test.digest() == plain.test.digest()
    assert splits.train.classes == ("cat", "dog")
    assert splits.reading["place"] == str(archive)
    assert sorted(folder.place.parent.iterdir()) == before


def test_files_beside_the_folder_of_an_archive_are_counted(folder: Folder) -> None:
    archive = pack(folder.build(["cat/*", "dog/*"]), "a/b/")
    with zipfile.ZipFile(archive, "a") as opened:
        opened.writestr("readme.txt", "x")
        opened.writestr("a/labels.csv", "x")

    splits = load_data(str(archive))

    (said,) = splits.reading["ignored"]
    assert_states(said, "2 files", "a/b", "readme.txt", "a/labels.csv")
    assert said in " ".join(splits.notes)


def test_a_configuration_is_a_folder(folder: Folder) -> None:
    folder.build(["fine/cat/*", "fine/dog/*", "coarse/pet/*", "coarse/car/*"])

    for place in (folder.place, pack(folder)):
        assert load_data(str(place), data_config="coarse").train.classes == ("car", "pet")
        assert "'coarse'" in refusal(place, data_config="course")


def entry(name: str, content: bytes = b"x", **attributes: int) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo(name)
        info.compress_type = zipfile.ZIP_DEFLATED
        for key, value in attributes.items():
            setattr(info, key, value)
        archive.writestr(info, content)

    return write


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (entry("../evil.png"), ["../evil.png", "leads out"]),
        (entry("/etc/evil.png"), ["/etc/evil.png", "leads out"]),
        (entry("cat/../../evil.png"), ["cat/../../evil.png", "leads out"]),
        (entry("cat/link.png", b"/etc/passwd", external_attr=0o120777 << 16), ["cat/link.png", "link"]),
        (entry("cat/bomb.png", bytes(2**26 + 1)), ["cat/bomb.png", "grows"]),
    ],
)
def test_an_archive_that_is_not_to_be_trusted_is_refused(
    folder: Folder, write: Callable[[zipfile.ZipFile], None], said: list[str]
) -> None:
    archive = pack(folder.build(["cat/*", "dog/*"]))
    with zipfile.ZipFile(archive, "a") as opened:
        write(opened)

    assert_states(refusal(archive), *said)


def test_an_encrypted_entry_is_refused(folder: Folder) -> None:
    archive = pack(folder.build(["cat/*", "dog/*"]))
    content = archive.read_bytes()
    # The flag of the first entry, in the central directory.
    place = content.index(b"PK\x01\x02") + 8
    archive.write_bytes(content[:place] + bytes([content[place] | 1]) + content[place + 1 :])

    assert "encrypted" in refusal(archive)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no more", b"text"])
def test_a_damaged_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pets.zip").write_bytes(content)

    assert "pets.zip" in refusal(tmp_path / "pets.zip")


def test_an_image_that_is_damaged_inside_an_archive_is_named(folder: Folder) -> None:
    folder.build(["cat/*", "dog/*"])
    (folder.place / "cat" / "3.png").write_bytes(b"no image")

    assert "cat/3.png" in refusal(pack(folder))


# Places --------------------------------------------------------------------------------------------------------------


def test_data_that_is_not_here_is_read_where_it_was(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder.build(["cat/*", "dog/*"])
    monkeypatch.chdir(tmp_path)
    for name in ("root", "./root"):
        splits = load_data(name)
        (tmp_path / "away").mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "away")

        again = load_data(name, place=splits.reading["place"])

        assert again.test.digest() == splits.test.digest()
        with pytest.raises(InputError) as caught:
            load_data(name, place=str(tmp_path / "nowhere"))
        assert_states(caught.value, tmp_path / "away", tmp_path / "nowhere")
        monkeypatch.chdir(tmp_path)


def test_the_order_of_the_rows_is_that_of_the_paths(folder: Folder) -> None:
    for path in ("a/2.png", "a-b/0.png", "a/10.png", "a-b/1.png", "a/1/z.png", "a/0.png"):
        folder.add(f"train/{path}")
        folder.add(f"test/{path}")

    splits = read(folder)

    rows = [folder.labelled(splits, "test")]
    assert list(rows[0]) == sorted(path for path in folder.pixels if path.startswith("test/"))
    assert torch.equal(splits.test.labels, splits.train.labels)


@pytest.mark.parametrize("name", ["data/pets", "somebody/pets"])
def test_the_hub_is_not_asked_for_a_folder_that_is_gone(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError) as caught:
        load_data(name, place=str(tmp_path / "gone"))

    assert_states(caught.value, tmp_path / "gone")
