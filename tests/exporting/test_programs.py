"""ONNX and ``torch.export`` beside the weights: the same logits on real images, of any batch size, and no pickle."""

from __future__ import annotations

import pickle
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt import InputError
from asgt.exporting.programs import as_onnx, as_program, captured, run_onnx, run_program
from support.exports import card, card_metadata
from support.messages import assert_states
from support.paths import RUNS

pytestmark = pytest.mark.slow


class Deciding(nn.Module):
    """Computes something else for dark images."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)[:, :3]
        return rows if float(x.mean()) > 0.5 else -rows


class Answer(dict[str, Tensor]):
    """What a model of transformers returns."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(logits=logits)
        self.logits = logits


class Answering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Answer:
        return Answer(self.layer(x.flatten(1)))


def apart(logits: Tensor, others: Tensor) -> float:
    """The largest difference of two logits."""

    return float((logits - others).detach().abs().max())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("programs") / "exported"
    asgt.export_run(RUNS / "asgt-pgd-0", out, formats=["onnx", "torch-export"])
    return out


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return asgt.data.to_unit(asgt.load_data("digits").test.pixels)


def test_both_give_the_logits_of_the_model_on_real_images(exported: Path, digits: Tensor) -> None:
    model = asgt.from_pretrained(exported)
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(exported / "model.pt2").module()
    assert len(digits) == 359

    for x in (digits, digits[:1], digits[:7]):
        with torch.no_grad():
            expected = model(x)
        onnxs = torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
        for logits in (onnxs, program(x)):
            assert apart(logits, expected) <= 1e-5


def test_neither_holds_a_pickle_or_a_place_of_this_machine(exported: Path) -> None:
    archive = zipfile.ZipFile(exported / "model.pt2")
    contents = {name: archive.read(name) for name in archive.namelist()} | {
        "onnx": (exported / "model.onnx").read_bytes()
    }
    for name, content in contents.items():
        assert not [part for part in (b"site-packages", str(Path(asgt.__file__).parent).encode()) if part in content]
        with pytest.raises((pickle.UnpicklingError, ValueError, EOFError, KeyError, IndexError, ImportError)):
            pickle.loads(content)
        assert not content.startswith((b"\x80", b"PK")), name
    onnx.checker.check_model(onnx.load(exported / "model.onnx"))


def test_the_card_and_the_manifest_tell_of_them(exported: Path) -> None:
    assert_states(card(exported), "model.onnx", "model.pt2", "64 test images", "torch.export.load")
    assert "onnx" in card_metadata(exported)["tags"]
    (exported.parent / "changed").mkdir()
    shutil.copytree(exported, exported.parent / "changed", dirs_exist_ok=True)
    with open(exported.parent / "changed" / "model.onnx", "ab") as file:
        file.write(b"\0")
    with pytest.raises(InputError) as refused:
        asgt.from_pretrained(exported.parent / "changed")
    assert_states(refused.value, "model.onnx")


def test_a_later_export_without_them_removes_them(exported: Path, tmp_path: Path) -> None:
    out = shutil.copytree(exported, tmp_path / "out")
    asgt.export_run(RUNS / "asgt-pgd-0", out)

    assert not (out / "model.onnx").exists()
    assert not (out / "model.pt2").exists()
    asgt.from_pretrained(out)


def test_batchnorm_and_colour_go_through_both(digits: Tensor) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = asgt.build_model("resnet18", (3, 12, 12), 5, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25], width=0.1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
        model.eval()
        x = torch.rand(5, 3, 12, 12)
    program = captured(model, (3, 12, 12))

    for logits in (run_onnx(as_onnx(program), x), run_program(as_program(program), x)):
        assert apart(logits, model(x)) <= 1e-5


def test_an_output_object_becomes_its_logits() -> None:
    net, x = Answering().eval(), torch.rand(3, 1, 8, 8)
    program = captured(net, (1, 8, 8))

    for logits in (run_onnx(as_onnx(program), x), run_program(as_program(program), x)):
        assert apart(logits, net(x).logits) <= 1e-5


def test_a_net_that_looks_at_its_images_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        captured(Deciding().eval(), (1, 8, 8))
    assert_states(refused.value, "without --format")


def test_other_logits_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(content: bytes, images: Tensor) -> Tensor:
        return run_program(content, images) + 1e-3

    monkeypatch.setattr("asgt.exporting.exported_run.run_program", off)
    with pytest.raises(InputError) as refused:
        asgt.export_run(RUNS / "asgt-pgd-0", tmp_path / "out", formats=["torch-export"])
    assert_states(refused.value, "--format torch-export", "1.0e-03")
    assert not (tmp_path / "out").exists()


def test_without_the_packages_the_line_says_which(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Callable
) -> None:
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as missing:
            missing.setitem(sys.modules, package, None)
            line = cli("export", RUNS / "st-0", "--out", "out", "--format", "onnx").failure()
        assert_states(line, "asgt[onnx]")
    assert not (tmp_path / "out").exists()


def test_without_the_data_random_images_are_compared(tmp_path: Path, image_folder: Callable[..., Path]) -> None:
    folder = image_folder("pets", {"cat": 8, "dog": 8})
    config = asgt.TrainConfig(data=str(folder), method="st", epochs=1, batch_size=4)
    asgt.train(config, tmp_path / "run")
    shutil.rmtree(folder)

    export = asgt.export_run(tmp_path / "run", tmp_path / "out", formats=["torch-export"])
    assert_states(export.parity[0][1], "64 images of uniform noise")
    assert_states(card(tmp_path / "out"), "64 images of uniform noise")
