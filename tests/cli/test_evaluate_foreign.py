"""``asgt evaluate`` on other people's models: whose weights, which preprocessing, and whose classes."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import asgt.data
from asgt import Images, InputError, build_model
from asgt.data.classes import mapped, read_classes
from support.messages import assert_states

# The models answer by the mean of an image: class k where it lies nearest to a level of its own.
NETS = """
import torch
from torch import nn

class Levels(nn.Module):
    def __init__(self, levels):
        super().__init__()
        self.levels = nn.Parameter(torch.tensor(levels))

    def forward(self, x):
        return -100 * (x.mean(dim=(1, 2, 3))[:, None] - self.levels) ** 2

def trained():
    return Levels([0.2, 0.8])

def swapped():
    return Levels([0.8, 0.2])

def normalised():
    return Levels([-0.1, 1.1])

def many():
    return Levels([-3.0 - k for k in range(1000)][:998] + [0.8, 0.2])

def some(num_classes):
    return Levels([0.2, 0.8] + [-5.0] * (num_classes - 2))

def untrained(num_classes):
    return Levels([-1.0] * num_classes)
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "their_nets.py").write_text(NETS)
    monkeypatch.delitem(sys.modules, "their_nets", raising=False)
    return "their_nets"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Dark cats and light dogs: 8 and 6 test images."""

    for split in ("train", "test"):
        for name, level, count in (("cat", 51, 8), ("dog", 204, 6)):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(np.full((8, 8), level, dtype=np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "pets"


def clean_accuracy(out: Path) -> float:
    """Of an evaluation, read from its evidence."""

    kept = json.loads((out / "result.json").read_text())
    return float(kept["clean"]["accuracy"])


def evaluated(cli: Callable, model: str, *words: object) -> str:
    answer = cli("evaluate", "--model", model, "--data", "pets", "--epsilons", "1/255", "--out", "evidence", *words)
    assert answer.status == 0, answer.err
    return str(answer.out)


def one_line(out: str, beginning: str) -> str:
    """The only line that begins so."""

    (line,) = [line for line in out.splitlines() if line.startswith(beginning)]
    return line


# Weights --------------------------------------------------------------------------------------------------------------


def test_a_factory_that_brings_its_weights_needs_no_others(cli: Callable, nets: str, pets: Path) -> None:
    out = evaluated(cli, f"{nets}:trained")

    assert clean_accuracy(Path("evidence")) == 1.0
    lines = [line for line in out.splitlines() if line.startswith("weights:")]
    assert len(lines) == 1
    assert f"{nets}:trained" in lines[0]
    assert "--weights" in lines[0]
    assert_states(one_line(out, "normalisation"), "none", "[0, 1]", "--mean", "--std")


def test_a_line_says_which_normalisation_the_model_gets(cli: Callable, nets: str, pets: Path) -> None:
    torch.save({"levels": torch.tensor([0.8, 0.2])}, "plain.pt")
    out = evaluated(cli, f"{nets}:trained", "--weights", "plain.pt", "--mean", "0.25", "--std", "0.5")
    assert_states(one_line(out, "normalisation"), "--mean and --std", "0.25", "0.5")

    # A file that asgt wrote brings its own.
    whole = build_model("small_cnn", (1, 8, 8), 2, mean=[0.125], std=[0.75])
    torch.save(whole.state_dict(), "whole.pt")
    words = ("--model", "small_cnn", "--weights", "whole.pt", "--data", "pets", "--grey", "--epsilons", "1/255")
    answer = cli("evaluate", *words, "--out", "own")
    assert answer.status == 0, answer.err
    assert_states(one_line(answer.out, "normalisation"), "whole.pt", "0.125", "0.75")


def test_weights_that_are_given_go_before_those_of_the_factory(cli: Callable, nets: str, pets: Path) -> None:
    torch.save({"levels": torch.tensor([0.8, 0.2])}, "swapped.pt")

    out = evaluated(cli, f"{nets}:trained", "--weights", "swapped.pt")

    assert clean_accuracy(Path("evidence")) == 0.0
    assert [line for line in out.splitlines() if line.startswith("weights: swapped.pt")]


@pytest.mark.parametrize("model", ["small_cnn", "alexnet", "resnet18"])
def test_a_net_of_ours_has_no_weights_of_its_own(cli: Callable, pets: Path, model: str) -> None:
    line = cli("evaluate", "--model", model, "--data", "pets", "--out", "evidence").refusal()

    assert_states(line, "--weights", "missing")
    assert not Path("evidence").exists()


def test_a_model_that_is_unknown_is_named_before_its_weights_are_asked_for(cli: Callable, pets: Path) -> None:
    line = cli("evaluate", "--model", "resnet81", "--data", "pets", "--out", "evidence").refusal()

    assert_states(line, "resnet81", "'resnet18'")


# Preprocessing --------------------------------------------------------------------------------------------------------

OWN = {
    "mean": (0.25,),
    "std": (0.5,),
    "image_size": 4,
    "crop": 0.5,
    "interpolation": "bicubic",
    "classes": None,
    "source": "their configuration",
}


@pytest.fixture
def configured(nets: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Gives a factory's model a configuration of its own, as models of timm and transformers have one."""

    def configure(attribute: str, **own: object) -> str:
        monkeypatch.setattr("asgt.models.preprocessing", lambda name: SimpleNamespace(**OWN | own))
        return f"{nets}:{attribute}"

    return configure


def test_preprocessing_comes_from_the_models_own_configuration_and_is_printed(
    cli: Callable, configured: Callable, pets: Path
) -> None:
    # Means of 0.2 and 0.8, normalised: (0.2 − 0.25) / 0.5 and (0.8 − 0.25) / 0.5.
    model = configured("normalised")

    out = evaluated(cli, model)

    assert clean_accuracy(Path("evidence")) == 1.0
    (line,) = (line for line in out.splitlines() if line.startswith("preprocessing"))
    own = ("their configuration", "image size 4", "crop 0.5", "interpolation bicubic", "mean 0.25", "std 0.5")
    assert_states(line, *own)


@pytest.mark.slow
def test_flags_go_before_the_models_own_configuration(
    cli: Callable, configured: Callable, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, object] = {}
    load = asgt.data.load_data

    def watched(name: str, **settings: object) -> object:
        asked.update(settings)
        return load(name, **settings)

    monkeypatch.setattr("asgt.data.load_data", watched)
    flags = ("--image-size", 8, "--interpolation", "nearest", "--mean", 0, "--std", 1)

    out = evaluated(cli, configured("trained"), *flags)

    assert clean_accuracy(Path("evidence")) == 1.0
    assert {name: asked[name] for name in ("image_size", "interpolation", "crop")} == {
        "image_size": 8,
        "interpolation": "nearest",
        "crop": 0.5,
    }
    taken = ("image size 8", "--image-size", "crop 0.5", "interpolation nearest", "--interpolation", "mean 0", "--mean")
    assert_states(out, *taken)


@pytest.mark.parametrize(
    ("attribute", "classes", "accuracy", "said"),
    [
        ("trained", ("cat", "dog"), 1.0, []),
        ("swapped", ("dog", "cat"), 1.0, ["all 2 outputs"]),
        ("swapped", ("LABEL_0", "LABEL_1"), 0.0, ["'LABEL_0'", "'LABEL_1'", "'cat'", "'dog'"]),
        ("many", (*(f"thing {number}" for number in range(998)), "dog", "cat"), 1.0, ["all 1000 outputs"]),
    ],
)
def test_the_models_own_names_map_the_classes(
    cli: Callable,
    configured: Callable,
    pets: Path,
    attribute: str,
    classes: tuple[str],
    accuracy: float,
    said: list[str],
) -> None:
    out = evaluated(cli, configured(attribute, mean=None, std=None, image_size=None, crop=None, classes=classes))

    assert clean_accuracy(Path("evidence")) == accuracy
    assert any(line.startswith("classes:") for line in out.splitlines()) == bool(said)
    if said:
        assert_states(out, *said)


@pytest.mark.parametrize("classes", [("Cat", "dog"), ("cat", "cat", "dog"), ("thing 1", "thing 2", "thing 3")])
def test_names_that_hold_only_some_of_the_classes_are_not_guessed_at(
    cli: Callable, configured: Callable, pets: Path, classes: tuple[str]
) -> None:
    model = configured("some", classes=classes)

    line = cli("evaluate", "--model", model, "--data", "pets", "--out", "evidence").refusal()

    assert_states(line, "'cat'", "--classes")
    assert not Path("evidence").exists()


@pytest.fixture
def hf_folder(torchvision_operators: None, tmp_path: Path) -> Path:
    """A small residual net of transformers with random weights, whose logits are a dog's and a cat's."""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], id2label={0: "dog", 1: "cat"}
        )
        with torch.random.fork_rng():
            torch.manual_seed(3)
            transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "hf")
    processor = {"image_mean": [0.4] * 3, "image_std": [0.2] * 3, "size": {"shortest_edge": 16}, "resample": 0}
    processor["crop_pct"] = 1.0  # whose default this architecture's processor has
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(processor | {"do_normalize": True}))
    return tmp_path / "hf"


@pytest.mark.slow
def test_a_model_of_transformers_is_evaluated_as_its_folder_says(
    cli: Callable, hf_folder: Path, tmp_path: Path
) -> None:
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        folder = tmp_path / "pets" / "test" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:02}.png")

    out = evaluated(cli, f"hf:{hf_folder}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        net = transformers.AutoModelForImageClassification.from_pretrained(hf_folder).eval()
    small = np.stack(
        [np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.NEAREST)) for image in pixels]
    )
    x = (torch.from_numpy(small).permute(0, 3, 1, 2).double() / 255 - 0.4) / 0.2
    with torch.no_grad():
        right = net(x.float()).logits.argmax(dim=1) == torch.arange(16) % 2
    assert 0 < right.sum() < 16
    assert clean_accuracy(Path("evidence")) == pytest.approx(float(right.double().mean()))
    taken = ("image size 16", "crop 1.0", "interpolation nearest", "mean 0.4, 0.4, 0.4", "std 0.2, 0.2, 0.2")
    assert_states(out, *taken, "own names")


# Classes --------------------------------------------------------------------------------------------------------------

TABLES = {
    "names": "dog,cat",
    "lines.txt": "dog\ncat\n",
    "marked.txt": "\ufeffdog\r\ncat\r\n",
    "list.json": '["dog", "cat"]',
    "numbers.json": '{"cat": 1, "dog": 0}',
}


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_classes_in_another_order_than_the_logits_are_mapped_by_name(
    cli: Callable, nets: str, pets: Path, table: str
) -> None:
    evaluated(cli, f"{nets}:swapped")
    assert clean_accuracy(Path("evidence")) == 0.0  # by number, a dog is a cat
    if "." in table:
        Path(table).write_bytes(TABLES[table].encode())

    out = evaluated(cli, f"{nets}:swapped", "--out", "named", "--classes", table if "." in table else TABLES[table])

    assert clean_accuracy(Path("named")) == 1.0
    assert "all 2 outputs" in out


def test_two_classes_of_a_thousand_are_evaluated_among_all(cli: Callable, nets: str, pets: Path) -> None:
    names = [f"thing {number}" for number in range(998)] + ["dog", "cat"]
    Path("names.json").write_text(json.dumps(names))

    out = evaluated(cli, f"{nets}:many", "--classes", "names.json")

    assert clean_accuracy(Path("evidence")) == 1.0
    assert "all 1000 outputs" in out


def test_a_model_of_another_number_of_classes_says_how_to_map_them(cli: Callable, nets: str, pets: Path) -> None:
    line = cli("evaluate", "--model", f"{nets}:many", "--data", "pets", "--out", "evidence").refusal()

    assert_states(line, "1000", "--classes")
    assert not Path("evidence").exists()


def test_the_numbers_of_logits_will_do_where_nobody_knows_the_names(cli: Callable, nets: str, pets: Path) -> None:
    evaluated(cli, f"{nets}:many", "--classes", '{"cat": 999, "dog": 998}')

    assert clean_accuracy(Path("evidence")) == 1.0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("dog,cart", ["'cat'", "'cart'"]),
        ("dog,cat,", ["name 2"]),
        ("cat,cat,dog", ["'cat'", "0", "1"]),
        ("dogs", ["dogs", "file"]),
        ("nowhere.txt", ["nowhere.txt", "file"]),
        ('["dog"]', ["two"]),
        ('["dog", 3]', ["name 1", "3"]),
        ('["dog", "cat"', ["JSON"]),
        ('{"cat": 1, "cat": 0, "dog": 0}', ["'cat'", "twice"]),
        ('{"cat": 1}', ["'dog'"]),
        ('{"cat": 1, "dgo": 0}', ["'dog'", "'dgo'"]),
        ('{"cat": 1, "dog": 0, "zebra": 5}', ["'zebra'"]),
        ('{"cat": 0, "dog": 0}', ["'cat'", "'dog'", "logit 0"]),
        ('{"cat": -1, "dog": 0}', ["-1"]),
        ('{"cat": 2, "dog": 0}', ["logit 2", "0 to 1"]),
        ('{"cat": true, "dog": 0}', ["True"]),
        ('{"cat": 1.0, "dog": 0}', ["1.0"]),
        ('{"cat": "tabby", "dog": 0}', ["'tabby'", "indices"]),
        ('{"0": "cat", "1": "dog"}', ["'cat'"]),
    ],
)
def test_classes_that_cannot_be_meant_are_refused(
    cli: Callable, nets: str, pets: Path, table: str, said: list[str]
) -> None:
    line = cli(
        "evaluate", "--model", f"{nets}:swapped", "--data", "pets", "--out", "evidence", "--classes", table
    ).refusal()

    assert_states(line, "--classes", *said)
    assert not Path("evidence").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"dog\n\ncat\n", b""])
def test_a_file_of_classes_that_is_damaged_is_named(cli: Callable, nets: str, pets: Path, content: bytes) -> None:
    Path("names.txt").write_bytes(content)

    line = cli(
        "evaluate", "--model", f"{nets}:swapped", "--data", "pets", "--out", "evidence", "--classes", "names.txt"
    ).refusal()

    assert_states(line, "names.txt")


def test_a_run_folder_knows_its_classes(cli: Callable, finished_run: Path) -> None:
    assert "--classes" in cli("evaluate", finished_run, "--classes", "a,b").refusal()


def images(names: Sequence[str]) -> Images:
    """An image of each class, in order."""

    return Images(torch.zeros(len(names), 1, 2, 2, dtype=torch.uint8), torch.arange(len(names)), tuple(names))


def test_labels_count_the_logits_of_the_model() -> None:
    found = mapped(images(["ant", "bee"]), ["wasp", "bee", "ant"])

    assert found.labels.tolist() == [2, 1]
    assert found.classes == ("wasp", "bee", "ant")
    assert mapped(images(["a", "b"]), ["crane", "x", "crane"], {"a": 2, "b": "x"}).labels.tolist() == [2, 1]


def test_a_name_that_the_model_has_twice_is_no_name() -> None:
    # ImageNet has two cranes, a bird and a machine.
    with pytest.raises(InputError) as caught:
        mapped(images(["crane", "x"]), ["crane", "x", "crane"])
    assert_states(caught.value, "'crane'", "0", "2")


def test_names_may_be_many(tmp_path: Path) -> None:
    names = [f"a rather long name of class {number}" for number in range(1000)]

    assert read_classes(",".join(names)) == tuple(names)
    (tmp_path / "names.txt").write_text("\n".join(names))
    assert read_classes(str(tmp_path / "names.txt")) == tuple(names)
