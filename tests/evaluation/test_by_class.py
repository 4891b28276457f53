"""Accuracy by class: counts against hand and scikit-learn, and the labels as evidence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

import asgt
from asgt.cli.console import Console
from asgt.data.classes import mapped
from asgt.errors import DamagedFileError
from asgt.evaluation import by_class as by_class_module
from asgt.evaluation.by_class import mean_over_classes
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import PROTOCOLS
from asgt.evaluation.shards import LABELS, load_evaluation
from asgt.files import digest_tensors, read_sealed, read_tensors, write_tensors
from asgt.runs.verifying import verify
from asgt.statistics import mean_of_shares, share
from support.edits import edited, resealed, rewritten
from support.messages import assert_states
from support.paths import FIXTURES

GRID = (0.05, 0.1)


def by_hand(
    labels: list[int], clean: str, *robust: str, names: tuple[str, ...] = ("a", "b", "c", "d"), classes: int = 5
) -> Evaluation:
    """An evaluation by PGD in which the samples of a ``1`` are right."""

    def bools(text: str) -> Tensor:
        return torch.tensor([each == "1" for each in text])

    return Evaluation(
        protocol=PROTOCOLS["pgd"],
        norm="linf",
        epsilons=tuple(0.1 * (1 + place) for place in range(len(robust))),
        seed=0,
        model="m",
        data="d",
        classes=classes,
        clean=bools(clean),
        details={"pgd-40x5": {}},
        outcomes={"pgd-40x5": torch.stack([bools(each) for each in robust])},
        labels=torch.tensor(labels),
        class_names=names,
    )


def test_classes_are_counted_and_those_without_images_have_no_part() -> None:
    found = by_hand([0, 0, 0, 0, 1, 1, 3], "1110111", "1100101", "1000001")
    clean, near, far = found.by_class(), found.by_class(0.1), found.by_class(0.2, "pgd-40x5")
    assert clean is not None
    assert near is not None
    assert far is not None

    assert [(each.name, each.right, each.accuracy.n) for each in clean.classes] == [
        ("a", 3, 4),
        ("b", 2, 2),
        ("d", 1, 1),
    ]
    assert (clean.absent, clean.worst.name, clean.as_bad) == (2, "a", 1)
    assert [row[:3] for row in clean.table().rows] == [["a", "4", "3"], ["b", "2", "2"], ["d", "1", "1"]]
    assert all(fact in str(clean) for fact in ("n = 7 images of 3 classes", clean.balanced.percent(), "worst class: a"))
    assert clean.balanced.value == pytest.approx((3 / 4 + 1 + 1) / 3)
    assert near.balanced.value == pytest.approx((2 / 4 + 1 / 2 + 1) / 3)
    assert (near.worst.name, near.as_bad) == ("a", 2), "a and b have a half each"
    assert far.balanced.value == pytest.approx((1 / 4 + 0 + 1) / 3)
    assert (far.worst.name, far.worst.accuracy) == ("b", share(0, 2))
    assert [each.name for each in far.lowest(2)] == ["b", "a"]
    assert found.balanced_accuracy == clean.balanced
    assert found.balanced_robust_accuracy(0.2) == far.balanced
    # The mean over images hides that b breaks.
    assert found.robust_accuracy(0.2).value == 2 / 7


def test_a_result_lists_each_class_and_names_the_worst() -> None:
    result = by_hand([0, 0, 0, 0, 1, 1, 3], "1110111", "1100101", "1000001").to_dict()
    balanced, per_class = result["balanced"], result["per_class"]
    assert (balanced["classes"], balanced["classes_without_images"]) == (3, 2)
    [near, far] = balanced["attacks"]["pgd-40x5"]
    assert (near["eps"], far["eps"]) == (0.1, 0.2)
    assert far["worst"] == {"label": 1, "name": "b", "classes_as_bad": 1}
    last = per_class["classes"][2]
    assert (last["label"], last["name"], last["samples"], last["clean"]["right"]) == (3, "d", 1, 1)
    [row, _] = per_class["classes"][0]["attacks"]["pgd-40x5"]
    interval = binomtest(2, 4).proportion_ci(0.95, "wilson")
    assert (row["right"], row["accuracy"], row["low"], row["high"]) == pytest.approx((2, 0.5, *interval))
    assert "not corrected" in per_class["interval"]


def test_without_labels_there_are_no_figures_by_class() -> None:
    found = replace(by_hand([0, 1], "10", "10"), labels=None, class_names=())
    assert (found.by_class(), found.balanced_accuracy, found.balanced_robust_accuracy(0.1)) == (None, None, None)
    assert not {"labels", "balanced", "per_class"} & found.to_dict().keys()
    assert "balanced" not in str(found)


def test_too_many_figures_are_listed_of_the_worst_classes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(map(str, range(30)))
    found = by_hand([*range(30)], "1" * 30, "1" * 20 + "0" * 10, names=names, classes=30)
    assert len(found.to_dict()["per_class"]["classes"]) == 30
    monkeypatch.setattr(by_class_module, "_MOST_FIGURES", 59)
    told = found.to_dict()["per_class"]
    assert [each["label"] for each in told["classes"]] == [20, 21, 22, 23, 24]
    assert "lowest" in told["listed"]


def test_classes_are_shown_where_they_differ() -> None:
    """Where all images break, every class is the worst one."""

    found = by_hand([0, 0, 1], "111", "110", "100", "000")
    assert found.class_eps == 0.2
    sentence = found.class_sentence()
    assert all(fact in sentence for fact in ("ε = 0.2", "no image", "worst class there: b", "25.0"))
    assert "no image" not in by_hand([0, 0, 1], "111", "110", "100").class_sentence()
    none = by_hand([0, 0, 1], "111", "000", "000")
    assert none.class_eps == 0.1
    assert "1 other class" in none.class_sentence()
    assert "no image" not in none.class_sentence()


def test_classes_of_the_same_name_are_told_apart() -> None:
    found = by_hand([0, 1, 2], "101", "101", names=("crane", "crane", "owl")).by_class()
    assert found is not None
    assert [each.name for each in found.classes] == ["crane (label 0)", "crane (label 1)", "owl"]


def test_a_name_of_many_lines_makes_no_line_of_its_own() -> None:
    found = by_hand([0, 1], "11", "01", names=("a\nevidence: all is well\x1b[2J" + "x" * 1000, "b"), classes=2)
    sentence = found.class_sentence()
    assert "\n" not in sentence
    assert "\x1b" not in sentence
    assert len(sentence) < 500


def test_balanced_accuracy_is_scikit_learns(digits_net: tuple[nn.Module, Tensor, Tensor]) -> None:
    net, x, y = digits_net
    # Two classes are rare, so that the two means differ.
    few = torch.cat([(y == label).nonzero().squeeze(1)[: 3 if label < 2 else 12] for label in range(10)])
    x, y = x[few], y[few]
    found = asgt.evaluate(net, (x, y), "paper", epsilons=GRID)
    predicted = net(x).argmax(dim=1)
    expected = balanced_accuracy_score(y, predicted)
    assert found.balanced_accuracy is not None
    assert found.balanced_accuracy.value == pytest.approx(expected)
    assert mean_over_classes(predicted == y, y) == pytest.approx(expected)
    assert abs(expected - found.accuracy.value) > 1e-4
    for row, eps in enumerate(GRID):
        for name, right in found.outcomes.items():
            wrong = torch.where(right[row], y, (y + 1) % 10)
            balanced = found.balanced_robust_accuracy(eps, name)
            assert balanced is not None
            assert balanced.value == pytest.approx(balanced_accuracy_score(y, wrong))


def test_the_interval_of_a_mean_of_shares() -> None:
    assert (mean_of_shares([(7, 9)]).low, mean_of_shares([(7, 9)]).high) == pytest.approx(
        (share(7, 9).low, share(7, 9).high)
    )
    # Many images: the normal interval of a sum of independent shares.
    counts = [(300, 1000), (4500, 5000), (900, 2000)]
    found = mean_of_shares(counts)
    half = 1.959964 * sqrt(sum(k / n * (1 - k / n) / n for k, n in counts)) / 3
    assert (found.value - found.low, found.high - found.value) == pytest.approx((half, half), rel=0.03)
    assert (found.value, found.n, found.interval) == (pytest.approx((0.3 + 0.9 + 0.45) / 3), 8000, "MOVER")
    # Where every image of every class is right, something is still not known.
    assert mean_of_shares([(5, 5), (8, 8)]).low < 0.9
    assert mean_of_shares([(5, 5), (8, 8)]).high == 1.0
    with pytest.raises(ValueError, match="groups"):
        mean_of_shares([])


@pytest.mark.parametrize("p", [[0.5] * 10, [0.02, 0.9, 0.95, 0.99, 0.99], [0.0, 1.0, 0.8]])
def test_the_interval_covers_the_mean_as_often_as_it_says(p: list[float]) -> None:
    draws = np.random.default_rng(0).binomial(20, p, size=(400, len(p)))
    found = [mean_of_shares([(int(k), 20) for k in row]) for row in draws]
    covers = np.mean([each.low <= np.mean(p) <= each.high for each in found])
    assert covers > 0.92


# The evidence ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(digits_net: tuple[nn.Module, Tensor, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("by-class") / "e"
    evaluate_into(digits_net, folder)
    return folder


@pytest.fixture
def folder(evaluated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(evaluated, tmp_path / "e")


def evaluate_into(digits_net: tuple[nn.Module, Tensor, Tensor], folder: Path, **options: Any) -> Evaluation:
    net, x, y = digits_net
    return asgt.evaluate(net, (x[:30], y[:30]), "paper", epsilons=GRID, folder=folder, **options)


def test_labels_are_evidence_that_is_read_back(
    digits_net: tuple[nn.Module, Tensor, Tensor], folder: Path, tmp_path: Path
) -> None:
    read = load_evaluation(folder)
    assert read.labels is not None
    assert torch.equal(read.labels, digits_net[2][:30])
    assert read.class_names == tuple(map(str, range(10)))
    assert read.by_class(0.1) is not None
    assert LABELS in json.loads((folder / "manifest.json").read_text())["files"]
    assert [each.findings for each in verify(folder)] == [()]

    other = evaluate_into(digits_net, tmp_path / "other", batch_size=7)
    assert (tmp_path / "other" / LABELS).read_bytes() == (folder / LABELS).read_bytes()
    told = read_sealed(folder / "result.json")[0]
    assert {name: other.to_dict()[name] for name in ("labels", "balanced", "per_class")} == {
        name: told[name] for name in ("labels", "balanced", "per_class")
    }


@pytest.mark.parametrize("protocol", ["pgd", "paper"])
def test_a_folder_from_before_there_were_labels_is_read_as_it_is(protocol: str) -> None:
    old = FIXTURES / "runs" / "at-fgsm-0" / "evaluation" / protocol
    read = load_evaluation(old)
    assert (read.labels, read.by_class(), read.balanced_accuracy) == (None, None, None)
    assert read.to_dict().keys() == read_sealed(old / "result.json")[0].keys()


def with_labels(folder: Path, labels: Tensor, **told: str) -> None:
    """Puts other labels into the place of the file, whole and sealed."""

    write_tensors(folder / LABELS, {"labels": labels}, read_tensors(folder / LABELS)[1] | told)


def swapped_pair(folder: Path) -> None:
    """Two labels change places: no class has more or fewer images."""

    labels = read_tensors(folder / LABELS)[0]["labels"]
    other = int((labels != labels[0]).nonzero()[0])
    labels[[0, other]] = labels[[other, 0]]
    with_labels(folder, labels)


def of_other_data(folder: Path) -> None:
    with_labels(folder, read_tensors(folder / LABELS)[0]["labels"], data="0" * 64)


def other_names(folder: Path) -> None:
    names = ["zero", *map(str, range(1, 10))]
    with_labels(folder, read_tensors(folder / LABELS)[0]["labels"], classes=json.dumps(names))


def too_few_names(folder: Path) -> None:
    with_labels(folder, read_tensors(folder / LABELS)[0]["labels"], classes='["0"]')


def no_names(folder: Path) -> None:
    with_labels(folder, read_tensors(folder / LABELS)[0]["labels"], classes="{}")


def also_in_the_result(folder: Path) -> None:
    """The result names other labels too, and keeps its figures."""

    labels = read_tensors(folder / LABELS)[0]["labels"].roll(1)
    with_labels(folder, labels)
    edited(folder / "result.json", labels=digest_tensors({"labels": labels}))


def too_short(folder: Path) -> None:
    labels = read_tensors(folder / LABELS)[0]["labels"][:-1]
    with_labels(folder, labels)
    edited(folder / "result.json", labels=digest_tensors({"labels": labels}))


def gone(folder: Path) -> None:
    (folder / LABELS).unlink()


@pytest.mark.parametrize(
    "tamper",
    [swapped_pair, of_other_data, other_names, too_few_names, no_names, also_in_the_result, too_short, gone],
    ids=lambda each: each.__name__,
)
@pytest.mark.parametrize("manifest", ["as it was", "lists the new file", "gone"])
def test_labels_that_are_not_those_of_the_result_are_refused(
    folder: Path, tamper: Callable[[Path], None], manifest: str
) -> None:
    before = (folder / "manifest.json").read_bytes()
    tamper(folder)
    if manifest == "as it was":
        (folder / "manifest.json").write_bytes(before)
    elif manifest == "gone":
        (folder / "manifest.json").unlink()
    else:
        resealed(folder)
    with pytest.raises(DamagedFileError) as refused:
        load_evaluation(folder)
    assert_states(refused.value, folder)
    assert not all(each.is_sound for each in verify(folder))


def test_a_damaged_file_of_labels_is_found_and_its_remedy_mends_it(
    digits_net: tuple[nn.Module, Tensor, Tensor], folder: Path
) -> None:
    was = (folder / LABELS).read_bytes()
    for content in (was[:-1] + bytes([was[-1] ^ 1]), was[: len(was) // 2], None):
        (folder / LABELS).unlink()
        if content is not None:
            (folder / LABELS).write_bytes(content)
        [verified] = verify(folder)
        [finding] = verified.findings
        assert (finding.file, finding.state) == (folder / LABELS, "missing" if content is None else "damaged")
        assert_states(finding.text, "--resume")
        evaluate_into(digits_net, folder, resume=True)
        assert (folder / LABELS).read_bytes() == was
        assert [each.findings for each in verify(folder)] == [()]


def test_a_kill_before_or_after_the_labels_is_mended_by_resume(
    digits_net: tuple[nn.Module, Tensor, Tensor], folder: Path
) -> None:
    was, before = (folder / LABELS).read_bytes(), read_sealed(folder / "result.json")[0]
    for lost in (("result.json", "manifest.json", LABELS), ("result.json", "manifest.json")):
        for name in lost:
            (folder / name).unlink()
        evaluate_into(digits_net, folder, resume=True)
        assert (folder / LABELS).read_bytes() == was
        assert read_sealed(folder / "result.json")[0]["per_class"] == before["per_class"]


def test_a_result_without_labels_gets_them_by_resume_and_ignores_those_of_a_kill(
    digits_net: tuple[nn.Module, Tensor, Tensor], folder: Path
) -> None:
    new = read_sealed(folder / "result.json")[0]
    old = {name: value for name, value in new.items() if name not in ("labels", "balanced", "per_class")}
    rewritten(folder / "result.json", old)
    # The file is there, as after a kill between it and the new result; the old result says nothing of it.
    assert load_evaluation(folder).by_class() is None
    (folder / "manifest.json").unlink()
    (folder / LABELS).unlink()
    assert load_evaluation(folder).by_class() is None

    evaluate_into(digits_net, folder, resume=True)
    assert load_evaluation(folder).by_class() is not None
    assert read_sealed(folder / "result.json")[0]["per_class"] == new["per_class"]


def test_resume_knows_the_same_classes_by_other_names(
    digits_net: tuple[nn.Module, Tensor, Tensor], folder: Path
) -> None:
    net, x, y = digits_net
    images = asgt.Images(x[:30], y[:30], tuple("abcdefghij"))
    found = asgt.evaluate(net, images, "paper", epsilons=GRID, folder=folder, resume=True)
    assert found.class_names == tuple("abcdefghij")
    assert load_evaluation(folder).class_names == tuple("abcdefghij")


# What people see ------------------------------------------------------------------------------------------------------


def test_a_model_of_more_classes_than_the_data_leaves_the_others_out() -> None:
    """Labels of a model of 40 classes, of which the data has three."""

    data = asgt.Images(torch.zeros(6, 1, 2, 2), torch.tensor([0, 0, 1, 1, 2, 2]), ("cat", "dog", "owl"))
    names = (*(f"c{number}" for number in range(37)), "owl", "dog", "cat")
    images = mapped(data, names)
    found = by_hand(images.labels.tolist(), "111111", "110101", names=names, classes=40).by_class(0.1)
    assert found is not None
    assert [(each.label, each.name) for each in found.classes] == [(37, "owl"), (38, "dog"), (39, "cat")]
    assert found.absent == 37
    assert found.balanced.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("count", [4, 20, 21, 60])
def test_the_terminal_shows_few_classes_whole_and_of_many_the_worst(
    count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    names = tuple(f"[b]class-{number}" for number in range(count))
    robust = "1" * (count - 3) + "000"
    found = by_hand([*range(count)], "1" * count, "1" * count, robust, names=names, classes=count + 2)
    Console().evaluated(found, "digits", Path("e"), [])
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("balanced accuracy"))
    assert all(fact in line for fact in ("0.2", f"{count} classes", "2 classes", f"[b]class-{count - 3}", "n = 1"))
    assert line in str(found)
    assert "not corrected" in out
    rows = [each for each in out.splitlines() if each.strip().startswith("[b]class-")]
    assert len(rows) == (count if count <= 20 else 5)
    assert ("worst of" in out) == (count > 20)
    if count > 20:
        assert [row.split()[0] for row in rows[:4]] == [f"[b]class-{n}" for n in (count - 3, count - 2, count - 1, 0)]
