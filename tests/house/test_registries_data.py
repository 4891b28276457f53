"""The registries of data sets, attributions and measures: one record more shows up everywhere it should.

Each test registers a record of its own, as a new file with one line in the registry would.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from asgt.comparison.comparing import read_methods
from asgt.comparison.pictures import Pictures, pictures_of
from asgt.data import Images, load_data
from asgt.datasets import DATA_SETS, DataSet
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.shards import load_evaluation
from asgt.explanation import MEASURES, Explanation, MapBatch, Measure, explain, load_explanation, panel
from asgt.files import read_json, read_sealed, read_tensors, write_tensors
from asgt.names import file_name
from asgt.runs.run import read_run
from asgt.saliency import ATTRIBUTIONS, Attribution, Watched, attribute, attribution_settings, saliency
from support.command import Answer, plain_environment
from support.edits import rewritten
from support.messages import assert_states


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the pictures and figures, which take most of the time."""

    evidence = importlib.import_module("asgt.comparison.map_evidence")
    monkeypatch.setattr(evidence, "pictures_of", lambda *_, **__: Pictures({}, None, None, ()))


# --- data sets -------------------------------------------------------------------------------------------------------


def _squares() -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """120 images of 8×8 pixels: a square on the left or on the right."""

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    pixels = torch.randint(0, 60, (120, 1, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[labels == 0, :, 2:6, 0:4] += 180
    pixels[labels == 1, :, 2:6, 4:8] += 180
    return pixels, labels, ("left", "right")


SQUARES = DataSet(
    "squares",
    title="8×8 images of squares",
    hub="someone/squares",
    eps=0.05,
    epsilons="0.02,0.05",
    augment="crop-flip",
    loader=_squares,
    objects=lambda pixels: (pixels > 128).any(dim=1),
)


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> DataSet:
    monkeypatch.setitem(DATA_SETS, "squares", SQUARES)
    return SQUARES


@pytest.mark.slow
@pytest.mark.usefixtures("squares", "no_figures")
def test_a_data_set_is_trained_evaluated_and_explained_with_its_defaults(
    cli: Callable[..., Answer], tmp_path: Path
) -> None:
    words = ["--data", "squares", "--method", "at", "--epochs", "1", "--batch-size", "20", "--steps", "1"]
    assert cli("train", *words, "--out", "run").status == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["eps"], config["augment"]) == (0.05, "crop-flip")

    assert cli("explain", "run", "--samples", "4").status == 0
    explanation = load_explanation(tmp_path / "run" / "explanation" / "gradient")
    # A square has 16 of the 64 pixels, and all others are darker than the objects' threshold.
    assert explanation.values["area"].tolist() == [0.25] * 4

    assert cli("evaluate", "run", "--samples", "6", "--protocol", "paper").status == 0
    assert load_evaluation(tmp_path / "run" / "evaluation" / "paper").epsilons == (0.02, 0.05)


@pytest.mark.usefixtures("squares")
def test_a_data_set_is_named_in_help_and_errors(cli: Callable[..., Answer]) -> None:
    with pytest.raises(InputError) as refused:
        load_data("squrs")
    assert_states(refused.value, "squrs", "'squares'")
    with pytest.raises(InputError) as refused:
        load_data("squares", image_size=16)
    assert_states(refused.value, "squares", "--image-size")
    assert_states(cli("train", "--data", "squars", "--method", "st").failure(), "squars", "'squares'")


@pytest.mark.slow
def test_the_help_texts_are_made_of_the_registry(tmp_path: Path) -> None:
    script = (
        "from asgt.datasets import DATA_SETS, DataSet\n"
        "DATA_SETS['squares'] = DataSet('squares', eps=0.05, augment='crop-flip')\n"
        "from asgt.cli import main\n"
        "for verb in ('train', 'evaluate'):\n"
        "    try: main([verb, '--help'])\n"
        "    except SystemExit: pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    said = " ".join(done.stdout.split()).replace("crop- flip", "crop-flip")
    assert said.count("digits, mnist, cifar10, squares, a hub id, or a folder") == 2
    assert "0.1 for digits, 0.3 for mnist, 0.05 for squares, else 8/255" in said
    assert "crop-flip for cifar10, crop-flip for squares, else none" in said


# --- attributions ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled(Attribution):
    """The gradient times a factor; ``layer`` is only looked up."""

    factor: float = 2.0
    layer: str | None = None

    def resolved(self, model: Any) -> Scaled:
        return self if self.layer is not None else replace(self, layer="0")

    def maps(self, model: Watched, x: Tensor, y: Tensor, **_: Any) -> Tensor:
        return self.factor * saliency(model, x, y)


OWN = """
from pathlib import Path
Path({ran!r}).touch()
from dataclasses import dataclass
from asgt.saliency import Attribution, saliency

@dataclass(frozen=True)
class Mine(Attribution):
    factor: float = 3.0

    def maps(self, model, x, y, *, target, generator, batch_size):
        return self.factor * saliency(model, x, y, target)

@dataclass(frozen=True)
class Pooled(Attribution):
    def maps(self, model, x, y, *, target, generator, batch_size):
        return saliency(model, x, y, target).mean(dim=1)
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once the module ``ownmaps`` in the working directory was imported."""

    (tmp_path / "ownmaps.py").write_text(OWN.format(ran=str(tmp_path / "ran")))
    monkeypatch.delitem(sys.modules, "ownmaps", raising=False)
    return tmp_path / "ran"


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def images(count: int) -> Images:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple(map(str, range(10))))


@pytest.mark.slow
def test_an_attribution_is_there_by_name_and_as_an_instance(monkeypatch: pytest.MonkeyPatch, net: nn.Module) -> None:
    monkeypatch.setitem(ATTRIBUTIONS, "scaled", Scaled)
    x, y = torch.rand(3, 1, 8, 8), torch.tensor([0, 1, 2])
    gradient = attribute(net, x, y)
    assert torch.equal(attribute(net, x, y, "scaled", factor=4.0), 4 * gradient)
    assert torch.equal(attribute(net, x, y, Scaled(5.0)), 5 * gradient)
    assert attribution_settings("scaled", model=net)["layer"] == "0"

    explanation = explain(net, images(4), eps=0.1, attribution="scaled", layer="1")
    assert (explanation.attribution, explanation.settings["factor"]) == ("scaled", 2.0)
    assert explanation.settings["layer"] == "1"
    by_instance = explain(net, images(4), eps=0.1, attribution=Scaled(layer="1"))
    assert by_instance.to_dict() | {"seconds": 0} == explanation.to_dict() | {"seconds": 0}

    with pytest.raises(InputError) as refused:
        attribute(net, x, y, Scaled(), factor=1.0)
    assert_states(refused.value, "factor", "1.0", "own settings")
    with pytest.raises(InputError) as refused:
        attribute(net, x, y, "scald")
    assert_states(refused.value, "scald", "'scaled'")


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_a_layer_is_given_to_whichever_attribution_looks_at_one(
    cli: Callable[..., Answer], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ATTRIBUTIONS, "scaled", Scaled)
    assert "scaled" in cli("explain", finished_run, "--layer", "features").refusal()
    words = ["--attribution", "scaled,gradient", "--layer", "features", "--samples", "4"]
    assert cli("explain", finished_run, *words).status == 0
    explained = read_run(finished_run).explanations
    assert explained["scaled"].settings["layer"] == "features"
    assert "layer" not in explained["gradient"].settings


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_an_attribution_of_ones_own_is_named_on_the_command_line(
    cli: Callable[..., Answer], finished_run: Path, own_module: Path
) -> None:
    assert cli("explain", finished_run, "--attribution", "ownmaps:Mine", "--samples", "4").status == 0
    assert own_module.exists()
    (place,) = (finished_run / "explanation").iterdir()
    assert place.name == "ownmaps-Mine"
    explanation = read_run(finished_run).explanations["ownmaps:Mine"]
    assert (explanation.settings["method"], explanation.settings["factor"]) == ("ownmaps:Mine", 3.0)

    place.rename(place.with_name("ownmaps-Other"))
    with pytest.raises(InputError) as refused:
        read_run(finished_run)
    assert_states(refused.value, place.with_name("ownmaps-Other"), "ownmaps:Mine")


@pytest.mark.slow
def test_no_file_names_an_attribution_whose_code_then_runs(
    cli: Callable[..., Answer], tmp_path: Path, own_module: Path
) -> None:
    grid = {
        "data": "digits",
        "train": {"epochs": 1, "limit": 60, "batch_size": 30},
        "methods": [{"method": "st"}],
        "evaluate": {"protocols": ["paper"], "epsilons": [0.1], "samples": 10},
        "explain": {"samples": 4, "attributions": ["ownmaps:Mine"]},
    }
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    said = cli("reproduce", "grid.yaml", "--dry-run").refusal()
    assert_states(said, "grid.yaml", "attribution", "ownmaps:Mine", "--allow ownmaps")
    assert not own_module.exists()
    assert cli("reproduce", "grid.yaml", "--dry-run", "--allow", "ownmaps").status == 0
    assert own_module.exists()


def test_a_run_folder_names_no_attribution_whose_code_then_runs(finished_run: Path, own_module: Path) -> None:
    methods = read_methods([finished_run])
    shown = SimpleNamespace(not_run="few", settings={}, shortcut_view="")
    named = SimpleNamespace(attribution="ownmaps:Mine", name="ownmaps:Mine", panel=shown)
    drawn = pictures_of(methods, eps=0.1, norm="linf", samples=20, explained=[named])  # type: ignore[list-item]
    assert any("--allow ownmaps" in sentence for sentence in drawn.missing), drawn.missing
    assert not own_module.exists()


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("ownmaps:Path", ["dataclass", "asgt.saliency.Attribution"]),
        ("ownmaps:Absent", ["Absent"]),
        ("ownmaps:Pooled", ["ownmaps:Pooled", "maps", "(2, 1, 8, 8)"]),
        ("ownmaps:../Mine", ["ownmaps:../Mine", "package.module:attribute"]),
    ],
)
@pytest.mark.usefixtures("own_module")
def test_what_is_no_attribution_is_refused(
    name: str, facts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, net: nn.Module
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InputError) as refused:
        attribute(net, torch.rand(2, 1, 8, 8), torch.tensor([0, 1]), name)
    assert_states(refused.value, *facts)


@dataclass(frozen=True)
class Odd(Scaled):
    """An attribution with a setting that a record may not be able to hold."""

    sizes: Any = (1, 2)


@dataclass(frozen=True)
class Clashing(Scaled):
    """An attribution with a setting that is called like one of the measures'."""

    overlap: float = 0.2


def test_settings_of_an_attribution_are_plain(net: nn.Module, tmp_path: Path) -> None:
    made = explain(net, images(4), eps=0.1, attribution=Odd(), folder=tmp_path)
    assert load_explanation(tmp_path).settings == made.settings
    with pytest.raises(InputError, match="sizes"):
        explain(net, images(4), eps=0.1, attribution=Odd(sizes={1, 2}))
    with pytest.raises(InputError, match="overlap"):
        explain(net, images(4), eps=0.1, attribution=Clashing())


@pytest.mark.parametrize("name", ["../gradient", "a/b:C", "a:b:C", "..", "", "a.b", "/a", "a:C/d"])
def test_no_name_leads_out_of_its_folder(name: str) -> None:
    with pytest.raises(InputError) as refused:
        file_name(name)
    assert_states(refused.value, repr(name), "package.module:attribute")


# --- measures --------------------------------------------------------------------------------------------------------


def _peak(batch: MapBatch) -> dict[str, Tensor]:
    return {"peak": batch.m.flatten(1).amax(dim=1)}


PEAK = Measure(
    "peak",
    "peak",
    "less",
    False,
    "the largest m",
    keeps={"peak": (torch.float64, ())},
    compute=_peak,
    value=lambda values: values["peak"],
)


def register(monkeypatch: pytest.MonkeyPatch, *more: Measure) -> None:
    """Puts a measure into the registry, wherever it is imported by name."""

    for name, module in list(sys.modules.items()):
        if name.startswith("asgt.") and getattr(module, "MEASURES", None) is MEASURES:
            monkeypatch.setattr(module, "MEASURES", (*MEASURES, *more))


def explained_twice(net: nn.Module, folder: Path) -> tuple[Explanation, Explanation]:
    """An explanation as it is made, and as it is read again: of 120 images that the model gets right."""

    some = images(120)
    with torch.no_grad():
        labels = net(some.pixels.float() / 255).argmax(dim=1)
    right = Images(some.pixels, labels, some.classes)
    return explain(net, right, eps=0.01, folder=folder), load_explanation(folder)


@pytest.mark.slow
def test_a_measure_is_measured_saved_and_compared(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, net: nn.Module
) -> None:
    register(monkeypatch, PEAK)
    made, read = explained_twice(net, tmp_path / "gradient")
    # The model is linear: its gradient is a row of its weights, whatever the image.
    weight = net[1].weight.detach().double()  # type: ignore[index,union-attr,operator]
    expected = weight[made.labels].abs().amax(dim=1)
    for explanation in (made, read):
        torch.testing.assert_close(explanation.per_image("peak"), expected)
    assert read_json(tmp_path / "gradient" / "result.json")["means"]["peak"]["n"] == 120

    compared = panel({"A": [made], "B": [read]})
    assert compared.value("A", "peak").value == pytest.approx(float(expected.mean()))
    (difference,) = compared.differences("peak")
    assert difference.value == 0.0


@pytest.mark.slow
def test_an_explanation_that_is_older_than_a_measure_is_read_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, net: nn.Module
) -> None:
    older, _ = explained_twice(net, tmp_path / "older")
    register(monkeypatch, PEAK)
    read = load_explanation(tmp_path / "older")
    assert read.per_image("peak") is None
    assert torch.equal(read.values["sparseness"], older.values["sparseness"])
    assert "explained without it" in panel({"A": [read]}).value("A", "peak").not_run
    assert panel({"A": [read]}).value("A", "sparseness").not_run == ""

    right = Images(images(120).pixels, older.labels, images(120).classes)
    taken_up = explain(net, right, eps=0.01, folder=tmp_path / "older", resume=True)
    assert taken_up.per_image("peak") is None


@pytest.mark.slow
def test_evidence_that_lost_a_measure_is_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, net: nn.Module
) -> None:
    register(monkeypatch, PEAK)
    explained_twice(net, tmp_path)
    tensors, metadata = read_tensors(tmp_path / "values.safetensors")
    del tensors["peak"]
    write_tensors(tmp_path / "values.safetensors", tensors, metadata)
    with pytest.raises(DamagedFileError, match="damaged"):
        load_explanation(tmp_path)

    # A result that does not speak of it is that of an older version.
    result = read_sealed(tmp_path / "result.json")[0]
    del result["means"]["peak"]
    rewritten(tmp_path / "result.json", result)
    assert load_explanation(tmp_path).per_image("peak") is None
    assert read_sealed(tmp_path / "result.json")[0] == result


@pytest.mark.slow
def test_settings_of_a_measure_are_settings_of_the_explanation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, net: nn.Module
) -> None:
    plain = explain(net, images(4), eps=0.1)
    register(monkeypatch, replace(PEAK, settings={"peak": {"of": "m"}}))
    assert explain(net, images(4), eps=0.1).settings == plain.settings | {"peak": {"of": "m"}}
