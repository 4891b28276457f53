"""The verbs with a network of somebody else: frozen parts stay frozen, what cannot be trained is refused in a line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from asgt.cli import main
from asgt.files import read_tensors
from support.messages import assert_states

NETS = '''
import torch, torch.nn as nn, torch.nn.functional as F

class Viewed(nn.Module):
    """The most common line in classifiers."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 4 * 4, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.head(x.view(x.size(0), -1))

def frozen_norm(num_classes):
    net = Viewed(num_classes)
    net.norm.eval()
    return net

def loaded(num_classes):  # as loaders of weights return it: the whole net in evaluation mode
    return Viewed(num_classes).eval()

def all_frozen(num_classes):
    return Viewed(num_classes).requires_grad_(False)

def half(num_classes):
    return Viewed(num_classes).half()

class Auxiliary(Viewed):
    def forward(self, x):
        return (super().forward(x), x) if self.training else super().forward(x)

class Fails(Viewed):
    def forward(self, x):
        if self.training:
            raise KeyError("teacher")
        return super().forward(x)

class Detached(Viewed):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)

class Remembers(Viewed):
    def get_extra_state(self):
        return {"version": 3}

    def set_extra_state(self, state):
        pass

class InPlace(Viewed):
    def forward(self, x):
        return super().forward(x.sub_(0.1).div_(0.3))
'''

TRAIN = ["train", "--data", "digits", "--limit", "60", "--epochs", "1", "--batch-size", "20", "--out", "run"]


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of such networks in the working directory."""

    name = f"nets_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def weights(folder: Path) -> dict[str, Tensor]:
    return read_tensors(folder / "run" / "model.safetensors")[0]


@pytest.mark.parametrize("method", ["st", "asgt"])
def test_batch_norm_that_the_factory_froze_stays_frozen(method: str, nets: str, tmp_path: Path) -> None:
    assert main([*TRAIN, "--method", method, "--model", f"{nets}:frozen_norm"]) == 0
    kept = weights(tmp_path)
    assert torch.equal(kept["net.norm.running_mean"], torch.zeros(8))
    assert torch.equal(kept["net.norm.running_var"], torch.ones(8))
    assert int(kept["net.norm.num_batches_tracked"]) == 0
    assert not torch.equal(kept["net.norm.weight"], torch.ones(8))  # its affine part is trained


def test_a_net_that_comes_in_evaluation_mode_as_a_whole_is_trained_as_a_whole(nets: str, tmp_path: Path) -> None:
    assert main([*TRAIN, "--method", "st", "--model", f"{nets}:loaded"]) == 0
    assert int(weights(tmp_path)["net.norm.num_batches_tracked"]) == 2  # steps of the epoch


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        ("all_frozen", ["frozen"]),
        ("half", ["--precision bf16"]),
        ("Auxiliary", ["tuple", "2"]),
        ("Fails", ["KeyError", "teacher"]),
        ("Detached", ["Detached", "grad"]),
        ("Remembers", ["_extra_state"]),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    factory: str, says: list[str], nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--method", "at", "--steps", "1", "--model", f"{nets}:{factory}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert_states(said[0], *says)
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_in_the_first_epoch_leaves_nothing(
    nets: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TRAIN, "--method", "st", "--lr", "1e30", "--model", f"{nets}:Viewed"]) == 2
    assert_states(capsys.readouterr().err, "--lr")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["Viewed", "InPlace"])
def test_the_usual_flatten_and_nets_in_place_go_through_every_verb(factory: str, nets: str, tmp_path: Path) -> None:
    model = ["--model", f"{nets}:{factory}"]
    assert main([*TRAIN, "--method", "asgt", "--steps", "2", *model]) == 0
    assert main(["evaluate", "run", "--samples", "20", "--epsilons", "0.1", *model]) == 0
    assert main(["explain", "run", "--samples", "20", "--out", "page", *model]) == 0
    words = ["evaluate", *model, "--weights", "run/model.safetensors", "--data", "digits", "--out", "again"]
    assert main([*words, "--samples", "20", "--epsilons", "0.1", "--protocol", "standard"]) == 0


def test_autoattack_ends_where_nothing_is_left_for_its_later_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APGD breaks every image before FAB-T and Square are asked about any."""

    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "digits", "--method", "st", "--epochs", "1", "--limit", "200", "--out", "aa"]) == 0
    assert main(["evaluate", "aa", "--protocol", "autoattack", "--epsilons", "0.9", "--samples", "12"]) == 0
