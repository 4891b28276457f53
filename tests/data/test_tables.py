"""Tables: which files are which split, which column holds images and labels, and classes by name."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from asgt.data import Splits, load_data
from asgt.errors import InputError
from support.layouts import names_in, refusal, rows_of
from support.messages import assert_states

UNDERSTOOD, REFUSED = rows_of("Understood", 2), rows_of("Refused", 2)
COUNT = 10


def pixels_of(number: int) -> np.ndarray:
    """A picture that no other number has."""

    return np.random.default_rng(number).integers(0, 256, (4, 4), dtype=np.uint8)


def encoded(number: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_of(number)).save(file, kind)
    return file.getvalue()


def structs(numbers: range) -> list[dict[str, Any]]:
    return [{"bytes": encoded(number), "path": None} for number in numbers]


def write(path: Path, metadata: dict[str, Any] | None = None, /, **columns: Any) -> Path:
    """A parquet file by pyarrow alone; ``metadata`` are features as ``datasets`` writes them into the file."""

    import json

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table(columns)
    if metadata is not None:
        content = json.dumps({"info": {"features": metadata}}).encode()
        table = table.replace_schema_metadata({b"huggingface": content})
    pyarrow.parquet.write_table(table, path)
    return path


def shown(splits: Splits, part: str) -> list[tuple[int, str]]:
    """The number of each picture of a split, and its class."""

    images = getattr(splits, part)
    numbers = {pixels_of(number).tobytes(): number for number in range(200)}
    return [
        (numbers[pixels.numpy().tobytes()], images.classes[label])
        for pixels, label in zip(images.pixels, images.labels.tolist(), strict=True)
    ]


# Files ---------------------------------------------------------------------------------------------------------------


def build(root: Path, files: list[str]) -> dict[str, list[tuple[int, str]]]:
    """Writes parquet files of ten rows each, and says what is in which."""

    content = {}
    for position, path in enumerate(files):
        numbers = range(COUNT * position, COUNT * (position + 1))
        labels = ["dog" if number % 2 else "cat" for number in numbers]
        write(root / path, image=structs(numbers), label=labels)
        content[path] = list(zip(numbers, labels, strict=True))
    return content


@pytest.mark.parametrize("row", UNDERSTOOD, ids=lambda row: row[0])
def test_parquet_files_are_read_as_the_docs_say(tmp_path: Path, row: list[str]) -> None:
    files, train, test = row
    content = build(tmp_path / "root", names_in(files))

    def expected(cell: str) -> list[tuple[int, str]]:
        starts = tuple(names_in(cell))
        return [each for path, rows in content.items() if path.startswith(starts) for each in rows]

    splits = load_data(str(tmp_path / "root"), train=train != "none")

    if train == "none":
        assert shown(splits, "test") == expected(test)
        assert_states(refusal(tmp_path / "root"), tmp_path / "root", "train")
    elif test == "a fifth":
        assert sorted(shown(splits, "train") + shown(splits, "test")) == expected(train)
        assert len(splits.test) == len(expected(train)) // 5
    else:
        assert shown(splits, "train") == expected(train)
        assert shown(splits, "test") == expected(test)
    unread = len(content) * COUNT - len(splits.train) * (train != "none") - len(splits.test)
    assert ("ignored" in " ".join(splits.notes)) == (unread > 0)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: row[0])
def test_parquet_files_that_tell_too_little_are_refused(tmp_path: Path, row: list[str]) -> None:
    build(tmp_path / "root", names_in(row[0]))

    line = refusal(tmp_path / "root")

    for name in names_in(row[1]):
        assert name in line


def test_a_configuration_is_named_or_listed(tmp_path: Path) -> None:
    content = build(tmp_path / "root", ["fine/train.parquet", "coarse/train.parquet"])

    splits = load_data(str(tmp_path / "root"), data_config="coarse")

    assert sorted(shown(splits, "train") + shown(splits, "test")) == content["coarse/train.parquet"]
    assert splits.reading["data_config"] == "coarse"
    assert "'coarse'" in refusal(tmp_path / "root", data_config="corse")


def test_an_archive_of_parquet_files_is_read_in_place(tmp_path: Path) -> None:
    content = build(tmp_path / "root", ["data/train.parquet", "data/test.parquet"])
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in content:
            archive.write(tmp_path / "root" / path, f"pets/{path}")

    splits = load_data(str(tmp_path / "x.zip"))

    assert shown(splits, "train") == content["data/train.parquet"]
    assert shown(splits, "test") == content["data/test.parquet"]


def test_a_limit_takes_the_same_rows_from_several_row_groups(tmp_path: Path) -> None:
    table = pyarrow.table({"image": structs(range(60)), "label": [n % 2 for n in range(60)]})
    (tmp_path / "root").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "root" / "train.parquet", row_group_size=7)

    splits = load_data(str(tmp_path / "root"), limit=10)

    assert len(splits.train) == 10
    assert all(int(label) == number % 2 for number, label in shown(splits, "train") + shown(splits, "test"))
    assert [number for number, _ in shown(splits, "test")] == splits.indices["test"].tolist()


def test_the_parts_of_a_split_have_to_name_classes_alike(tmp_path: Path) -> None:
    for part, names in enumerate((["a", "b"], ["b", "a"])):
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        path = tmp_path / "root" / f"train-0000{part}-of-00002.parquet"
        write(path, features, image=structs(range(6)), label=[0, 1] * 3)

    assert "classes" in refusal(tmp_path / "root")


# Classes by name -----------------------------------------------------------------------------------------------------


def class_label(*names: str) -> dict[str, Any]:
    return {"label": {"names": list(names), "_type": "ClassLabel"}}


@pytest.mark.parametrize(
    ("features", "labels", "expected"),
    [
        (class_label("dog", "cat"), [0, 1, 0], ["dog", "cat", "dog"]),
        (class_label("cat", "bird", "dog"), [0, 2, 2], ["cat", "dog", "dog"]),
        (class_label("dog"), [0, 0, 0], ["dog", "dog", "dog"]),
        (None, ["dog", "cat", "dog"], ["dog", "cat", "dog"]),
    ],
)
def test_classes_are_matched_between_splits_by_name(
    tmp_path: Path, features: dict[str, Any] | None, labels: list[Any], expected: list[str]
) -> None:
    write(tmp_path / "root" / "train.parquet", class_label("cat", "dog"), image=structs(range(6)), label=[0, 1] * 3)
    write(tmp_path / "root" / "test.parquet", features, image=structs(range(10, 13)), label=labels)

    splits = load_data(str(tmp_path / "root"))

    assert splits.train.classes == ("cat", "dog")
    assert shown(splits, "test") == list(zip(range(10, 13), expected, strict=True))


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (class_label("cat", "bird", "dog"), [0, 1], ["'bird'"]),
        (class_label("Cat", "dog"), [0, 1], ["'cat'"]),
        (None, [0, 1], ["'0'"]),
        (class_label("cat", "dog"), [0, 2], ["label 2", "range"]),
        (class_label("cat", "dog"), [0, None], ["image 1", "no label"]),
        (class_label("dog", "cat", "cat"), [0, 2], ["several", "'cat'"]),
    ],
)
def test_labels_that_training_does_not_know_are_refused(
    tmp_path: Path, features: dict[str, Any] | None, labels: list[Any], said: list[str]
) -> None:
    write(tmp_path / "root" / "train.parquet", class_label("cat", "dog"), image=structs(range(6)), label=[0, 1] * 3)
    write(tmp_path / "root" / "test.parquet", features, image=structs(range(2)), label=labels)

    assert_states(refusal(tmp_path / "root"), *said)


@pytest.mark.parametrize("places", [3, 5])
def test_one_hot_rows_have_one_length_in_all_splits(tmp_path: Path, places: int) -> None:
    rows = {"train": np.eye(4, dtype=int).tolist() * 2, "test": np.eye(places, dtype=int).tolist() * 2}
    for split, labels in rows.items():
        write(tmp_path / "root" / f"{split}.parquet", image=structs(range(len(labels))), label=labels)

    line = refusal(tmp_path / "root")

    assert_states(line, f"{places} entries", "4", "train")


@pytest.mark.parametrize("kind", [pyarrow.int8(), pyarrow.float64()])
def test_minus_one_beside_other_numbers_is_no_class(tmp_path: Path, kind: pyarrow.DataType) -> None:
    def load(train: list[int], test: list[int]) -> Splits:
        for split, labels in (("train", train), ("test", test)):
            path = tmp_path / "root" / f"{split}.parquet"
            write(path, image=structs(range(len(labels))), label=pyarrow.array(labels, kind))
        return load_data(str(tmp_path / "root"))

    for labels in ([-1, 0, 1, 2] * 3, [-1, 0] * 6, [-1, 1, 2] * 4):
        with pytest.raises(InputError) as caught:
            load(labels, labels)
        assert_states(caught.value, "label", "-1")
    assert load([-1, 1] * 6, [-1] * 4).test.labels.tolist() == [0] * 4

    splits = load([0, 1] * 5, [-1] * 4)
    assert (len(splits.train), len(splits.test)) == (8, 2)
    assert_states(" ".join(splits.reading["ignored"]), "4 images", "test", "no labels")


@pytest.mark.parametrize("names", [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("07", "7")])
def test_labels_that_are_spellings_of_one_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    write(tmp_path / "root" / "train.parquet", image=structs(range(9)), label=[*names, "dog"] * 3)

    line = refusal(tmp_path / "root")

    assert_states(line, *map(ascii, names))


def test_letters_keep_their_case(tmp_path: Path) -> None:
    write(tmp_path / "root" / "train.parquet", image=structs(range(9)), label=["A", "a", "b"] * 3)

    assert load_data(str(tmp_path / "root")).train.classes == ("A", "a", "b")


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    table = pyarrow.table([structs(range(4)), ["a", "b"] * 2, ["x", "y"] * 2], ["image", "label", "label"])
    (tmp_path / "root").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "root" / "train.parquet")

    assert_states(refusal(tmp_path / "root"), "two columns", "label")


def test_what_was_taken_for_what_is_said_and_stored(tmp_path: Path) -> None:
    build(tmp_path / "root", ["train.parquet"])
    (tmp_path / "root" / "readme.txt").write_text("x")
    Image.fromarray(pixels_of(0)).save(tmp_path / "root" / "cover.png")

    splits = load_data(str(tmp_path / "root"))

    taken, ignored = splits.notes
    assert_states(taken, "train", "10 images", "fifth", "test", "2 classes")
    assert splits.reading["splits"] == {"train": "train"}
    assert_states(ignored, "ignored", "1 image", "readme.txt", *splits.reading["ignored"])


def test_a_split_without_rows_is_ignored_and_no_training_split(tmp_path: Path) -> None:
    saved = {"train": dataset(range(10)), "test": dataset(range(0))}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "saved")
    build(tmp_path / "root", ["train.parquet"])
    write(tmp_path / "root" / "test.parquet", image=[], label=[])

    for place in (tmp_path / "saved", tmp_path / "root"):
        splits = load_data(str(place))
        assert (len(splits.train), len(splits.test)) == (8, 2)
        (ignored,) = splits.reading["ignored"]
        assert_states(ignored, "test", "no rows")
    write(tmp_path / "root" / "train.parquet", image=[], label=[])
    assert_states(refusal(tmp_path / "root"), "train", "no rows")


def test_an_archive_of_what_datasets_saved_is_refused(tmp_path: Path) -> None:
    import shutil

    dataset(range(10)).save_to_disk(tmp_path / "saved")
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "saved")

    assert "save_to_disk" in refusal(Path(archive))


def test_numbers_stay_numbers_whatever_their_type(tmp_path: Path) -> None:
    write(tmp_path / "root" / "train.parquet", image=structs(range(6)), label=pyarrow.array([7, 10] * 3, "uint8"))
    write(tmp_path / "root" / "test.parquet", image=structs(range(3)), label=[10.0, 7.0, 10.0])

    splits = load_data(str(tmp_path / "root"))

    assert splits.train.classes == ("7", "10")
    assert splits.test.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize("missing", [-1, None])
def test_a_test_split_without_labels_is_ignored(tmp_path: Path, missing: int | None) -> None:
    write(tmp_path / "root" / "train.parquet", class_label("cat", "dog"), image=structs(range(10)), label=[0, 1] * 5)
    labels = pyarrow.array([missing] * 4, "int64")
    write(tmp_path / "root" / "test.parquet", class_label("cat", "dog"), image=structs(range(4)), label=labels)

    splits = load_data(str(tmp_path / "root"))

    assert (len(splits.train), len(splits.test)) == (8, 2)
    assert "4 images of test" in " ".join(splits.notes)


# The column of the labels --------------------------------------------------------------------------------------------


def table(root: Path, features: dict[str, Any] | None = None, /, **columns: Any) -> Path:
    count = len(next(iter(columns.values())))
    write(root / "train.parquet", features, image=structs(range(count)), **columns)
    return root


@pytest.mark.parametrize(
    "columns",
    [
        {"fine": [0, 1, 2, 0, 1, 2], "coarse": [0, 1, 0, 1, 0, 1]},
        {"label": [0, 1, 0, 1, 0, 1], "camera": ["a", "b", "a", "a", "b", "b"]},
        {"label": ["a", "b", "a", "b", "b", "a"], "flash": [True, False, False, True, True, True]},
        {"cat": [0, 1, 0, 1, 0, 1], "dog": [1, 0, 1, 0, 1, 0]},
        {"label": [0, 1, 0, 1, 0, 1], "hot": [[0, 1], [1, 0], [0, 1], [1, 0], [1, 0], [0, 1]]},
        {"label": [0, 1, 0, 1, 0, 1], "width": [28.0, 28.0, 32.0, 28.0, 28.0, 28.0]},
    ],
)
def test_several_candidates_of_one_kind_or_of_two_are_refused_until_one_is_named(
    tmp_path: Path, columns: dict[str, list[Any]]
) -> None:
    root = table(tmp_path / "root", **columns)

    line = refusal(root)

    assert_states(line, *columns, "--label-column")
    for name, values in columns.items():
        splits = load_data(str(root), label_column=name)
        assert len(splits.train.classes) == len({str(value) for value in values})
        assert splits.reading["label_column"] == name


def test_a_class_label_beside_numbers_that_repeat_is_refused(tmp_path: Path) -> None:
    root = table(tmp_path / "root", class_label("cat", "dog"), label=[0, 1] * 3, year=[2001, 2002, 2003] * 2)

    line = refusal(root)

    assert_states(line, "label", "year")


def test_ids_paths_and_constants_are_no_candidates(tmp_path: Path) -> None:
    root = table(
        tmp_path / "root",
        id=list(range(6)),
        path=[f"{n}.png" for n in range(6)],
        source=["camera"] * 6,
        score=[0.5, 0.5, 0.25, 1.0, 1.0, 1.0],
        box=[[0, 0, 5, 5]] * 6,
        kind=["a", "b"] * 3,
    )

    splits = load_data(str(root))

    assert splits.train.classes == ("a", "b")
    assert "'kind'" in " ".join(splits.notes)


@pytest.mark.parametrize("kind", [pyarrow.int8(), pyarrow.float32(), pyarrow.bool_()])
def test_one_hot_rows_are_labels(tmp_path: Path, kind: pyarrow.DataType) -> None:
    rows = [[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0]]
    labels = pyarrow.array(rows, pyarrow.list_(pyarrow.int8())).cast(pyarrow.list_(kind))

    splits = load_data(str(table(tmp_path / "root", label=labels)))

    assert sorted(shown(splits, "train") + shown(splits, "test")) == list(enumerate("201201"))


@pytest.mark.parametrize(
    ("columns", "wanted", "said"),
    [
        ({"label": [[0, 1], [1, 1], [1, 0], [0, 1]]}, None, ["image 1", "2 classes"]),
        ({"label": [[0, 1], [0, 0], [1, 0], [0, 1]]}, None, ["image 1", "0 classes"]),
        ({"label": [[0, 1], None, [1, 0], [0, 1]]}, None, ["image 1", "no label"]),
        ({"label": [[0, 1], [3, 4], [1, 0], [0, 1]]}, "label", ["'label'", "no labels"]),
        ({"label": ["a", None, "b", "a"]}, None, ["image 1", "no label"]),
        ({"label": ["a", " ", "b", "a"]}, None, ["image 1", "no label"]),
        ({"label": [0.0, float("nan"), 1.0, 1.0]}, None, ["image 1", "no label"]),
        ({"label": [0.0, None, 1.0, 1.0]}, None, ["image 1", "no label"]),
        ({"label": ["cat", "dog", "cat ", "dog"]}, None, ["'cat '"]),
        ({"label": ["cat", "dog", "\tcat", "dog"]}, None, ["blanks"]),
        ({"label": [0.5, 1.5, 0.5, 1.5]}, None, ["'label'", "real"]),
        ({"label": [0.5, 1.5, 0.5, 1.5]}, "label", ["'label'", "real"]),
        ({"label": [b"a", b"b", b"a", b"b"]}, "label", ["'label'", "no labels"]),
        ({"label": [{"a": 1}] * 4}, "label", ["'label'", "no labels"]),
        ({"label": [1, 1, 1, 1]}, None, ["one class", "'1'"]),
        ({"name": ["a", "b", "c", "d"]}, None, ["'name'", "repeat"]),
        ({"label": [0, 1, 0, 1]}, "lable", ["'lable'", "'label'"]),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, columns: dict[str, Any], wanted: str | None, said: list[str]
) -> None:
    assert_states(refusal(table(tmp_path / "root", **columns), label_column=wanted), *said)


def test_whole_numbers_that_pandas_made_floats_are_numbers(tmp_path: Path) -> None:
    splits = load_data(str(table(tmp_path / "root", label=[0.0, 1.0, 10.0, 0.0, 1.0, 10.0])))

    assert splits.train.classes == ("0", "1", "10")


def test_categories_of_pandas_are_words(tmp_path: Path) -> None:
    labels = pyarrow.array(["b", "a", "b", "a"]).dictionary_encode()

    assert load_data(str(table(tmp_path / "root", label=labels))).train.classes == ("a", "b")


# The column of the images --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cells",
    [
        [encoded(number) for number in range(10)],
        [encoded(number, "TIFF") for number in range(10)],
        structs(range(10)),
        [{"bytes": encoded(number)} for number in range(10)],
        pyarrow.array([encoded(number) for number in range(10)], pyarrow.large_binary()),
    ],
    ids=["bytes", "tiff", "structs", "no path", "large"],
)
def test_images_may_be_bytes_or_structs(tmp_path: Path, cells: Any) -> None:
    write(tmp_path / "root" / "train.parquet", pixels=cells, label=[0, 1] * 5)

    splits = load_data(str(tmp_path / "root"))

    both = sorted(shown(splits, "train") + shown(splits, "test"))
    assert both == [(number, str(number % 2)) for number in range(10)]


def test_a_struct_may_name_a_file_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "root" / "files.d").mkdir(parents=True)
    for number in range(4):
        (tmp_path / "root" / f"{number}.bin").write_bytes(encoded(number))
    cells = pyarrow.array(
        [{"bytes": None, "path": f"{number}.bin"} for number in range(4)],
        pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]),
    )
    write(tmp_path / "root" / "train.parquet", image=cells, label=[0, 1] * 2)

    splits = load_data(str(tmp_path / "root"))

    assert sorted(number for number, _ in shown(splits, "train") + shown(splits, "test")) == [0, 1, 2, 3]


def test_several_columns_of_images_are_refused_until_one_is_named(tmp_path: Path) -> None:
    root = table(tmp_path / "root", depth=[encoded(n + 100) for n in range(6)], label=[0, 1] * 3)

    line = refusal(root)
    assert_states(line, "image", "depth", "--image-column")
    assert "'depth'" in refusal(root, image_column="dept")
    splits = load_data(str(root), image_column="depth")
    assert min(number for number, _ in shown(splits, "train") + shown(splits, "test")) == 100


@pytest.mark.parametrize("cell", [None, {"bytes": None, "path": None}])
def test_an_empty_cell_is_refused_by_its_row(tmp_path: Path, cell: Any) -> None:
    cells = structs(range(6))
    cells[3] = cell
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    write(tmp_path / "root" / "train.parquet", image=pyarrow.array(cells, kind), label=[0, 1] * 3)

    line = refusal(tmp_path / "root")

    assert_states(line, "image 3", "empty")


def test_bytes_that_are_no_images_are_no_column_of_images(tmp_path: Path) -> None:
    write(tmp_path / "root" / "train.parquet", image=[b"no image"] * 4, label=[0, 1] * 2)

    assert_states(refusal(tmp_path / "root"), "column", "images")


# What the datasets library wrote -------------------------------------------------------------------------------------


def dataset(numbers: range, names: tuple[str, ...] = ("cat", "dog"), photo: str = "image") -> datasets.Dataset:
    features = datasets.Features({photo: datasets.Image(), "label": datasets.ClassLabel(names=list(names))})
    rows = {photo: structs(numbers), "label": [number % len(names) for number in numbers]}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("test", ["test", "validation"])
def test_a_saved_dictionary_is_read_and_its_classes_matched_by_name(tmp_path: Path, test: str) -> None:
    saved = {"train": dataset(range(10)), test: dataset(range(10, 14), ("dog", "cat"))}
    datasets.DatasetDict(saved).save_to_disk(tmp_path / "root")

    splits = load_data(str(tmp_path / "root"))

    assert shown(splits, "train") == [(number, ("cat", "dog")[number % 2]) for number in range(10)]
    assert shown(splits, "test") == [(number, ("dog", "cat")[number % 2]) for number in range(10, 14)]


def test_a_saved_data_set_is_the_training_split_and_folders_of_them_are_splits(tmp_path: Path) -> None:
    dataset(range(10)).save_to_disk(tmp_path / "one")
    dataset(range(10)).save_to_disk(tmp_path / "two" / "Train")
    dataset(range(10, 14)).save_to_disk(tmp_path / "two" / "test")

    assert (len(load_data(str(tmp_path / "one")).train), len(load_data(str(tmp_path / "one")).test)) == (8, 2)
    assert [number for number, _ in shown(load_data(str(tmp_path / "two")), "test")] == [10, 11, 12, 13]


def test_a_saved_data_set_that_is_damaged_is_refused(tmp_path: Path) -> None:
    dataset(range(10)).save_to_disk(tmp_path / "root")
    next((tmp_path / "root").glob("*.arrow")).write_bytes(b"no arrow")

    assert_states(refusal(tmp_path / "root"), tmp_path / "root", "read")


def hub(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]) -> list[Any]:
    """Puts a function in the place of the hub, and records how it is asked."""

    asked: list[Any] = []

    def load_dataset(*words: Any, **options: Any) -> Any:
        asked.append((words, options))
        return answer(*words, **options)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_data_set_of_the_hub_is_read_with_its_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = datasets.DatasetDict({"train": dataset(range(10)), "test": dataset(range(10, 14), ("dog", "cat"))})
    asked = hub(monkeypatch, lambda *_, **__: saved)

    splits = load_data("somebody/pets", data_config="small")

    assert asked == [(("somebody/pets",), {"name": "small"})]
    assert [label for _, label in shown(splits, "test")] == ["dog", "cat"] * 2
    assert splits.reading["place"] == "somebody/pets"
    assert splits.reading["data_config"] == "small"
    (note,) = splits.notes
    assert_states(note, "somebody/pets", "train", "10 images", "test", "4 images", "2 classes")
    assert splits.reading["splits"] == {"train": "train", "test": "test"}


def test_what_the_hubs_libraries_log_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import logging
    import warnings

    def fail(*_: Any, **__: Any) -> Any:
        for name in ("huggingface_hub.utils._http", "datasets.load", "urllib3"):
            logging.getLogger(name).warning("Retrying in 1s")
        warnings.warn("deprecated", FutureWarning, stacklevel=1)
        raise ConnectionError("offline")

    hub(monkeypatch, fail)

    with pytest.raises(InputError) as caught:
        load_data("somebody/pets")
    assert_states(caught.value, "somebody/pets", "reached")
    assert caplog.text == ""
    logging.getLogger("datasets.load").error("shown again")
    assert "shown again" in caplog.text


def test_the_configurations_of_the_hub_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The messages are the library's own, for a folder with two configurations.
    build(tmp_path / "root", ["fine/train.parquet", "coarse/train.parquet"])
    (tmp_path / "root" / "README.md").write_text(
        "---\nconfigs:\n- config_name: fine\n  data_files: fine/train.parquet\n"
        "- config_name: coarse\n  data_files: coarse/train.parquet\n---\n"
    )
    plain = datasets.load_dataset
    hub(monkeypatch, lambda _, **options: plain(str(tmp_path / "root"), **options))

    with pytest.raises(InputError) as caught:
        load_data("somebody/pets")
    assert_states(caught.value, "2 configurations", "fine", "coarse", "--data-config")
    with pytest.raises(InputError, match="'coarse'"):
        load_data("somebody/pets", data_config="corse")


def test_image_files_of_the_hub_are_read_by_our_own_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    for kind, first in (("cat", 0), ("dog", 20)):
        (tmp_path / "root" / kind).mkdir(parents=True)
        for number in range(first, first + 20):
            name = f"{kind}-{'test' if number % 20 == 7 else 'x'}-{number}.png"
            Image.fromarray(pixels_of(number)).save(tmp_path / "root" / kind / name)
    plain = datasets.load_dataset
    hub(monkeypatch, lambda _, **options: plain(str(tmp_path / "root"), **options))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "root"))

    splits = load_data("somebody/pets")

    assert len(splits.train) + len(splits.test) == 40
    assert splits.train.classes == ("cat", "dog")
    assert splits.reading["place"] == "somebody/pets"


def test_splits_of_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = datasets.DatasetDict({"one": dataset(range(6)), "two": dataset(range(6))})
    hub(monkeypatch, lambda *_, **__: saved)

    with pytest.raises(InputError) as caught:
        load_data("somebody/pets")
    assert_states(caught.value, "somebody/pets", "one", "two")
