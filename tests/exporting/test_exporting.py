"""An exported run: what is written, that it loads to the last bit, and that nothing else can be loaded for it."""

from __future__ import annotations

import json
import pickle
import re
import shlex
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt import InputError, TrainConfig
from asgt.errors import DamagedFileError
from asgt.files import read_sealed, write_sealed
from support.exports import card, card_metadata, sealed_again
from support.messages import assert_states
from support.paths import ROOT, RUNS

NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, classes, channels=4):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels * 64, classes)

    def forward(self, x):
        return self.head(self.features(x).flatten(1))

def made(num_classes):
    return Net(num_classes)

def of_three():
    return Net(3)

def borrowed():
    raise SystemExit("must not run")

from torch.nn import Linear
open("ran.txt", "w").close()
"""


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    asgt.export_run(RUNS / "asgt-pgd-0", tmp_path / "exported")
    return tmp_path / "exported"


@pytest.fixture
def their_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's own, which leaves a file where it is imported."""

    (tmp_path / "own_nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return "own_nets"


def trained(folder: Path, *, net: nn.Module | None = None, **settings: Any) -> Path:
    """A short training, on the digits unless the settings say otherwise."""

    config = TrainConfig(**{"method": "st", "epochs": 1, "limit": 200, "batch_size": 50} | settings)
    asgt.train(config, folder, model=net)
    return folder


def logits_of_run(run: Path, x: Tensor, **given: Any) -> Tensor:
    with torch.no_grad():
        return asgt.load_run(run, **given)[0](x)


def digits(count: int = 16) -> Tensor:
    return asgt.data.to_unit(asgt.load_data("digits").test.pixels[:count])


def same(model: nn.Module, expected: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(model(digits(len(expected))), expected)


# What is written ------------------------------------------------------------------------------------------------------


def test_an_export_holds_weights_configuration_card_results_and_digests(exported: Path) -> None:
    files = {file.relative_to(exported).as_posix() for file in exported.rglob("*") if file.is_file()}

    assert files == {
        "README.md",
        "config.json",
        "manifest.json",
        "model.safetensors",
        "results/paper.json",
        "results/pgd.json",
    }
    source = RUNS / "asgt-pgd-0"
    assert (exported / "results" / "pgd.json").read_bytes() == (source / "evaluation/pgd/result.json").read_bytes()
    config = json.loads((exported / "config.json").read_text())
    assert (config["model"], config["options"], config["classes"]) == ("small_cnn", {"width": 0.25}, [*"0123456789"])
    assert (config["channels"], config["height"], config["width"], config["range"]) == (1, 8, 8, [0.0, 1.0])
    assert config["weights"] == json.loads((source / "evaluation/pgd/result.json").read_text())["model"]


def test_no_file_of_an_export_is_a_pickle(exported: Path) -> None:
    for file in exported.rglob("*"):
        if file.is_file():
            with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError)):
                pickle.loads(file.read_bytes())


def test_a_run_in_a_private_place_leaves_names_alone(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    secret = tmp_path / "secret-client" / "jane doe"
    secret.mkdir(parents=True)
    folder = image_folder("secret-client/jane doe/pets", {"cat": 8, "dog": 8})
    first = trained(secret / "first", data=str(folder), epochs=1, limit=8)
    run = trained(secret / "run", data=str(folder), epochs=1, limit=8, weights=str(first / "model.safetensors"))

    asgt.export_run(run, tmp_path / "out")

    for name in ("README.md", "config.json", "manifest.json"):
        text = (tmp_path / "out" / name).read_text()
        assert not [part for part in ("secret-client", "jane", "doe", str(tmp_path), str(Path.home())) if part in text]
    assert "--data pets" in card(tmp_path / "out")
    assert "--weights model.safetensors" in card(tmp_path / "out")


# Loading --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_fresh_process_gives_the_logits_of_the_run_bit_for_bit(exported: Path, tmp_path: Path) -> None:
    torch.save(digits(40), tmp_path / "images.pt")
    script = (
        "import sys, torch, asgt\n"
        "model = asgt.from_pretrained('exported')\n"
        "assert not any(module.training for module in model.modules())\n"
        "torch.save(model(torch.load('images.pt')).detach(), 'logits.pt')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert torch.equal(torch.load(tmp_path / "logits.pt"), logits_of_run(RUNS / "asgt-pgd-0", digits(40)))


def test_loading_leaves_the_random_state_and_gives_evaluation_mode(exported: Path) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    model = asgt.from_pretrained(exported)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(module.training for module in model.modules())
    assert same(model, logits_of_run(RUNS / "asgt-pgd-0", digits()))


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "resnet18", "width": 0.05},
        {"model": "small_cnn", "width": 0.3, "mean": "0.25", "std": "0.5"},
        {"model": "timm:test_resnet"},
    ],
    ids=["batchnorm", "normalisation", "timm"],
)
@pytest.mark.slow
def test_architectures_of_a_name_load_bit_for_bit(
    settings: dict[str, Any], tmp_path: Path, torchvision_operators: None
) -> None:
    if settings["model"].startswith("timm:"):
        pytest.importorskip("timm")
    run = trained(tmp_path / "run", **settings)
    export = asgt.export_run(run, tmp_path / "out")

    assert export.is_loaded
    assert same(asgt.from_pretrained(export.folder), logits_of_run(run, digits()))


@pytest.mark.slow
def test_dropout_and_a_replaced_head_are_built_again(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    two = image_folder("two", {"ant": 20, "bee": 20}, size=(16, 16))
    three = image_folder("three", {"ant": 20, "bee": 20, "cow": 20}, size=(16, 16))
    common = {"model": "alexnet", "width": 0.05, "epochs": 1, "batch_size": 8, "limit": 16}
    first = trained(tmp_path / "first", data=str(two), dropout=0.3, **common)
    run = trained(tmp_path / "run", data=str(three), from_run=str(first), epochs=1, batch_size=8, limit=16)
    asgt.export_run(run, tmp_path / "out")

    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["replaced_head"] == "net.20"
    assert config["options"] == {"width": 0.05, "dropout": 0.3}
    model = asgt.from_pretrained(tmp_path / "out")
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [0.3, 0.3]
    x = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(x).detach(), logits_of_run(run, x))
    assert model(x).shape == (5, 3)


@pytest.mark.slow
def test_a_model_of_transformers_needs_its_folder_no_more(
    tmp_path: Path, torchvision_operators: None, image_folder: Callable[..., Path]
) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    kind = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8,
        num_labels=2,
    )  # fmt: skip
    folder = tmp_path / "private" / "vit"
    transformers.ViTForImageClassification(kind).save_pretrained(folder)
    pets = image_folder("pets", {"cat": 12, "dog": 12}, size=(16, 16), mode="RGB")
    run = trained(tmp_path / "run", model=f"hf:{folder}", data=str(pets), limit=8, batch_size=4)
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = asgt.load_run(run)[0](x)
    expected = getattr(expected, "logits", expected).detach()

    asgt.export_run(run, tmp_path / "out")
    shutil.rmtree(folder)

    answer = asgt.from_pretrained(tmp_path / "out")(x)
    assert torch.equal(getattr(answer, "logits", answer), expected)
    assert "private" not in (tmp_path / "out" / "config.json").read_text() + card(tmp_path / "out")


# An architecture of one's own -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_architecture_of_ones_own_is_passed_or_allowed(their_nets: str, tmp_path: Path) -> None:
    import own_nets

    run = trained(tmp_path / "run", model="own_nets:made", method="at", eps=0.1, steps=1)
    x, expected = digits(), logits_of_run(run, digits(), allow=["own_nets"])
    sys.modules.pop("own_nets")
    (tmp_path / "ran.txt").unlink()
    export = asgt.export_run(run, tmp_path / "out")

    assert not export.is_loaded
    with pytest.raises(InputError) as refused:
        asgt.from_pretrained(tmp_path / "out")
    assert_states(refused.value, "own_nets:made", "model=net", "--allow own_nets")
    assert not (tmp_path / "ran.txt").exists()

    for model in (own_nets.Net(10), own_nets.made):
        assert same(asgt.from_pretrained(tmp_path / "out", model=model), expected)
    assert same(asgt.from_pretrained(tmp_path / "out", allow=["own_nets"]), expected)
    assert asgt.export_run(run, tmp_path / "again", allow=["own_nets:made"]).is_loaded
    assert x.shape == (16, 1, 8, 8)


def test_an_object_that_was_trained_loads_into_another_one(their_nets: str, tmp_path: Path) -> None:
    import own_nets

    run = trained(tmp_path / "run", net=own_nets.Net(10))
    asgt.export_run(run, tmp_path / "out")

    assert same(
        asgt.from_pretrained(tmp_path / "out", model=own_nets.Net(10)),
        logits_of_run(run, digits(), model=own_nets.Net(10)),
    )
    assert_states(card(tmp_path / "out"), "model=net", "asgt.train")
    for other, says in ((own_nets.Net(10, channels=5), "shape"), (nn.Linear(2, 2), "missing")):
        with pytest.raises(InputError) as refused:
            asgt.from_pretrained(tmp_path / "out", model=other)
        assert_states(refused.value, says)


@pytest.mark.slow
def test_a_head_that_was_replaced_in_ones_own_net_is_replaced_again(their_nets: str, tmp_path: Path) -> None:
    import own_nets

    torch.save(own_nets.Net(3).state_dict(), tmp_path / "three.pt")
    run = trained(tmp_path / "run", model="own_nets:of_three", weights=str(tmp_path / "three.pt"))
    expected = logits_of_run(run, digits(), allow=["own_nets"])
    asgt.export_run(run, tmp_path / "out")

    assert expected.shape == (16, 10)
    for given in ({"model": own_nets.Net(3)}, {"model": own_nets.of_three}, {"allow": ["own_nets"]}):
        assert same(asgt.from_pretrained(tmp_path / "out", **given), expected)


def test_a_module_that_is_allowed_gives_only_what_is_its_own(their_nets: str, exported: Path) -> None:
    value, _ = read_sealed(exported / "config.json")
    write_sealed(exported / "config.json", value | {"model": "own_nets:Linear"})
    sealed_again(exported)

    with pytest.raises(InputError) as refused:
        asgt.from_pretrained(exported, allow=["own_nets"])
    assert_states(refused.value, "own_nets:Linear", "imports")


def test_a_bare_net_is_normalised_as_the_weights_say(exported: Path) -> None:
    bare = asgt.build_model("small_cnn", (1, 8, 8), 10, width=0.25).net
    model = asgt.from_pretrained(exported, model=bare)

    assert same(model, logits_of_run(RUNS / "asgt-pgd-0", digits()))
    whole = nn.Sequential(OrderedDict(normalize=asgt.Normalize([0.1], [0.2]), net=bare))
    assert same(asgt.from_pretrained(exported, model=whole), logits_of_run(RUNS / "asgt-pgd-0", digits()))


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors", "results/pgd.json"])
def test_a_folder_that_was_changed_without_its_digests_is_refused(exported: Path, name: str) -> None:
    content = bytearray((exported / name).read_bytes())
    content[len(content) // 2] ^= 1
    (exported / name).write_bytes(content)

    with pytest.raises(DamagedFileError) as refused:
        asgt.from_pretrained(exported)
    assert_states(refused.value, name, "manifest.json")
    (exported / name).unlink()
    with pytest.raises(DamagedFileError) as refused:
        asgt.from_pretrained(exported)
    assert_states(refused.value, name, "missing")


def test_a_folder_without_a_manifest_is_no_export(exported: Path, finished_run: Path) -> None:
    (exported / "manifest.json").unlink()
    for place in (exported, finished_run):
        with pytest.raises(InputError) as refused:
            asgt.from_pretrained(place)
        assert_states(refused.value, str(place), "asgt export")


HOSTILE = {
    "a program": {"model": "os:system"},
    "another kind of model": {"model": "hub:elsewhere"},
    "timm from the hub": {"model": "timm:hf-hub:evil/net"},
    "no classes": {"classes": []},
    "a class that is no text": {"classes": [1, 2]},
    "a size": {"height": -1},
    "a large size": {"height": 10**9},
    "an option": {"options": {"pretrained": 1}},
    "a wide net": {"options": {"width": 1e9}},
    "another schema": {"schema": 99},
    "no transformers": {"model": "hf:evil/net"},
    "remote attention": {
        "model": "hf:evil/net",
        "transformers": {"architectures": ["ViTForImageClassification"], "attn_implementation": "evil/kernels"},
    },
    "other code": {
        "model": "hf:evil/net",
        "transformers": {
            "architectures": ["EvilForImageClassification"],
            "model_type": "evil",
            "auto_map": {"AutoConfig": "evil.Config"},
        },
    },
    "fewer classes": {"classes": ["a", "b"]},
    "lists in lists": {"reading": [1]},
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE)
def test_a_configuration_of_somebody_who_means_harm_is_refused_in_a_line(
    exported: Path, values: dict[str, Any], torchvision_operators: None
) -> None:
    value, _ = read_sealed(exported / "config.json")
    write_sealed(exported / "config.json", value | values)
    sealed_again(exported)

    with pytest.raises(InputError) as refused:
        asgt.from_pretrained(exported)
    assert len(str(refused.value).splitlines()) == 1


def test_a_manifest_leads_out_of_no_folder(exported: Path) -> None:
    (exported.parent / "outside").write_text("secret")
    manifest, _ = read_sealed(exported / "manifest.json")
    manifest["files"]["../outside"] = {"sha256": "0" * 64}
    write_sealed(exported / "manifest.json", manifest)

    with pytest.raises(DamagedFileError) as refused:
        asgt.from_pretrained(exported)
    assert_states(refused.value, "manifest.json", "../outside")


# Writing --------------------------------------------------------------------------------------------------------------


def test_an_earlier_export_is_replaced_and_anything_else_is_refused(exported: Path, tmp_path: Path) -> None:
    (exported / ".git").mkdir()
    (exported / "notes.txt").write_text("mine")
    asgt.export_run(RUNS / "st-0", exported)

    assert same(asgt.from_pretrained(exported), logits_of_run(RUNS / "st-0", digits()))
    assert (exported / "notes.txt").read_text() == "mine"
    assert (exported / ".git").is_dir()

    other = tmp_path / "other"
    other.mkdir()
    asgt.export_run(RUNS / "st-0", other)  # an empty folder is as good as a new one
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for place in ("full", "file"):
        with pytest.raises(InputError) as refused:
            asgt.export_run(RUNS / "st-0", tmp_path / place)
        assert_states(refused.value, str(tmp_path / place))
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_a_mixture_of_two_exports_is_refused_until_it_is_exported_again(exported: Path, tmp_path: Path) -> None:
    # As a kill leaves it between two files.
    asgt.export_run(RUNS / "st-0", tmp_path / "later")
    shutil.copy(tmp_path / "later" / "model.safetensors", exported / "model.safetensors")
    (exported / ".export.1.part").mkdir()

    with pytest.raises(DamagedFileError) as refused:
        asgt.from_pretrained(exported)
    assert_states(refused.value, "model.safetensors")
    asgt.export_run(RUNS / "st-0", exported)
    assert same(asgt.from_pretrained(exported), logits_of_run(RUNS / "st-0", digits()))
    assert not list(exported.glob(".*"))


def test_results_that_are_gone_from_a_run_leave_its_export(finished_run: Path, exported: Path) -> None:
    asgt.export_run(finished_run, exported)

    assert not (exported / "results").exists()
    assert "results/" not in card(exported)
    assert not list(exported.glob(".*"))


def test_a_card_that_was_edited_is_not_written_over(exported: Path) -> None:
    with open(exported / "README.md", "a") as file:
        file.write("my own words\n")

    with pytest.raises(InputError) as refused:
        asgt.export_run(RUNS / "asgt-pgd-0", exported)
    assert_states(refused.value, "README.md", "edited", "--out")
    assert card(exported).endswith("my own words\n")


def test_an_accepted_edit_of_the_card_loads_and_is_told(exported: Path, cli: Callable) -> None:
    with open(exported / "README.md", "a") as file:
        file.write("my own words\n")
    assert_states(cli("verify", exported).out, "README.md", "changed")
    assert cli("verify", exported, "--accept").status == 0

    assert same(asgt.from_pretrained(exported), logits_of_run(RUNS / "asgt-pgd-0", digits()))
    answer = cli(
        *("evaluate", "--model", f"hub:{exported}", "--data", "digits", "--samples", 10, "--epsilons", "0.1"),
        *("--out", "evidence"),
    )
    assert answer.status == 0, answer.err
    assert_states(answer.out, "README.md", "accepted")


def test_weights_that_were_changed_are_not_accepted(exported: Path, cli: Callable) -> None:
    shutil.copy(RUNS / "st-0" / "model.safetensors", exported / "model.safetensors")

    line = cli("verify", exported, "--accept").failure()
    assert_states(line, "model.safetensors", "edits of weights", "export the run again")


def test_a_run_that_was_not_evaluated_is_exported_and_says_so(finished_run: Path, tmp_path: Path) -> None:
    export = asgt.export_run(finished_run, tmp_path / "out")

    assert not export.is_evaluated
    assert_states(card(tmp_path / "out"), "Not evaluated", "asgt evaluate")
    assert "model-index" not in card_metadata(tmp_path / "out")


def test_a_run_that_is_not_finished_or_damaged_is_not_exported(
    stopped_run: Path, finished_run: Path, tmp_path: Path
) -> None:
    for run in (stopped_run, tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError) as refused:
            asgt.export_run(run, tmp_path / "out")
        assert_states(refused.value, str(run))
    content = bytearray((finished_run / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (finished_run / "model.safetensors").write_bytes(content)
    with pytest.raises(DamagedFileError):
        asgt.export_run(finished_run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"formats": ["keras"]}, "torch-export"),
        ({"license": "MIT License\n---"}, "apache-2.0"),
        ({"name": "a/b/c"}, "ORGANISATION/NAME"),
    ],
)
def test_what_cannot_be_meant_is_refused(given: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        asgt.export_run(RUNS / "st-0", tmp_path / "out", **given)
    assert_states(refused.value, says)
    assert not (tmp_path / "out").exists()


# What it is used for --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_exported_model_is_attacked_and_explained_as_any_other(exported: Path) -> None:
    model = asgt.from_pretrained(str(exported))
    test = asgt.load_data("digits").test[torch.arange(20)]

    evaluation = asgt.evaluate(model, test, "pgd", epsilons=[0.1])
    assert evaluation.samples == 20
    told = json.loads((exported / "results" / "pgd.json").read_text())
    assert evaluation.model == told["model"]
    explanation = asgt.explain(model, test, eps=0.1)
    assert explanation.model == told["model"]


@pytest.mark.slow
def test_the_commands_of_the_page_run(cli: Callable) -> None:
    lines = re.findall(r"^\$ asgt (.*)$", (ROOT / "docs" / "share-a-model.md").read_text(), re.MULTILINE)
    assert len(lines) == 6
    fewer = {"train": ("--limit", 300), "evaluate": ("--samples", 60)}
    for line in lines:
        words = shlex.split(line)
        answer = cli(*words, *fewer.get(words[0], ()))
        if "--push" in line:  # there is no hub here
            assert_states(answer.failure(), "ORGANISATION/NAME", "shared/digits-asgt")
        else:
            assert answer.status == 0, (line, answer.err)
    assert asgt.load_evaluation("again").model == asgt.load_evaluation("runs/asgt/evaluation/pgd").model
