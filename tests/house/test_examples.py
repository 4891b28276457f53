"""The scripts of the examples run as a user starts them, and print what they really ran."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from support.command import Answer
from support.messages import assert_states
from support.paths import ROOT

SLOW_FIXTURES = ("started",)
INTERVAL = r"[\d.]+ \[[\d.]+, [\d.]+\]"


@pytest.fixture
def started(warm: Callable[..., Answer]) -> object:
    """Starts an example in an empty folder: ``started("audit", "sound", status=0)`` returns what it prints."""

    def call(name: str, *words: object, status: int = 0) -> str:
        answer = warm(ROOT / "examples" / f"{name}.py", *words, kind="script")
        assert answer.status == status, answer.err
        if status in (0, 1):
            assert answer.err == "", "an example warns of nothing"
        return answer.out + answer.err

    return call


def accuracy(text: str, eps: str) -> float:
    """The accuracy in the row of an ε of the first table."""

    found = re.search(rf"^ *{re.escape(eps)} +({INTERVAL})", text, re.MULTILINE)
    assert found is not None, text
    return float(found.group(1).split()[0])


def test_own_loop_says_what_it_ran_and_learns(started) -> None:  # type: ignore[no-untyped-def]
    said = started("own_loop")
    assert_states(
        said, "ASGT(", "PGD(eps=0.1", "SaliencyMask(k=0.1", "1438 training images", "seed 0", "pgd v3", "n = 359"
    )
    clean = float(re.search(r"clean: ([\d.]+)%", said).group(1))  # type: ignore[union-attr]
    assert clean > 80, said
    assert 30 < accuracy(said, "0.1") < accuracy(said, "0.05") < clean


def test_own_data_goes_from_a_folder_of_images_to_a_page(started, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = ("--out", tmp_path / "made", "--epochs", "1", "--samples", "16")
    said = started("own_data", *words)
    assert_states(said, "799 training and 201 test images", "16 of 201 images", "pgd v3", "seed 0", "maps by gradient")
    page = (tmp_path / "made" / "page" / "report.html").read_text(encoding="utf-8")
    assert "ASGT-PGD" in page
    assert "differences in accuracy" in said


def test_own_data_takes_a_folder_of_ones_own(started, image_folder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    folder = image_folder("mine", {"cat": 20, "dog": 20})
    said = started("own_data", "--images", folder, "--out", tmp_path / "made", "--epochs", "1", "--samples", "8")
    assert_states(said, str(folder), "32 training and 8 test images", "2 classes", "n = 8")


def test_the_audit_passes_a_sound_number(started) -> None:  # type: ignore[no-untyped-def]
    said = started("audit", "sound")
    assert_states(said, "pgd v3", "n = 359", "seed 0", "no check fails")
    assert len(re.findall(rf"^ *\d +\d+ +\d+ +{INTERVAL}$", said, re.MULTILINE)) == 10, "a row for each class"


def test_the_audit_ends_with_status_1_on_a_wrong_number(started) -> None:  # type: ignore[no-untyped-def]
    said = started("audit", "rounded", status=1)
    found = re.search(r"do not believe ([\d.]+) .*gradients at the start", said)
    without = re.search(r"without gradients, on the same images: ([\d.]+)", said)
    assert found is not None
    assert without is not None
    assert float(without.group(1)) < float(found.group(1)) - 20


def test_the_audit_knows_its_names(started) -> None:  # type: ignore[no-untyped-def]
    assert_states(started("audit", "sund", status=2), "sund", "sound", "rounded")


def test_harden_trains_on_from_somebodys_weights_and_ends_with_one_page(
    warm: Callable[..., Answer], tmp_path: Path, cifar10: Path
) -> None:
    """The true network, weights and images, a little of each: what takes the time is a ResNet-18 at its full width."""

    script = ROOT / "examples" / "harden.py"
    little = ("--batches", 5, "--batch-size", 8, "--samples", 16, "--epsilons", "8/255", "--explain", 1)

    def said() -> str:
        answer = warm(script, *little, kind="script", environment={"ASGT_DATA": str(cifar10.parent)})
        assert answer.status == 0, answer.err
        return answer.out

    assert_states(
        first := said(), "$ asgt train", "--epochs 0", "--method asgt", "$ asgt evaluate hardened/at", "pgd v3"
    )
    page = (tmp_path / "hardened" / "page" / "report.html").read_text(encoding="utf-8")
    assert_states(page, "weights as given", "AT-FGSM-RS", "ASGT-FGSM-RS")

    # As many passes for both: the script's counts are those that the trainings took.
    trained = {
        name: json.loads((tmp_path / "hardened" / name / "training.json").read_text()) for name in ("at", "asgt")
    }
    passes = {name: result["speed"]["passes_per_step"] for name, result in trained.items()}
    assert f"PASSES = {passes!r}".replace("'", '"') in script.read_text(encoding="utf-8")
    assert "asgt train" in first
    assert "asgt train" not in said(), "a second call takes up what is there"
