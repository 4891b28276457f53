"""The four test sets of a planted shortcut side by side: gap and worst group, by hand, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from asgt.data import Images, shortcut_views
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.curve import evaluate
from asgt.evaluation.outcomes import Evaluation
from asgt.evaluation.protocols import protocol_named
from asgt.evaluation.shards import LABELS, load_evaluation
from asgt.evaluation.shortcut_use import Groups, shortcut_use
from asgt.files import read_sealed, read_tensors, write_tensors
from asgt.manifest import MANIFEST
from support.edits import rewritten
from support.messages import assert_states

LABELS_OF = [0, 0, 0, 1, 1, 1]
WRONG = [1, 1, 1, 0, 0, 0]
RIGHT = {
    "aligned": [1, 1, 1, 1, 1, 0],
    "absent": [1, 1, 0, 1, 0, 0],
    "random": [1, 1, 0, 0, 0, 0],
    "reversed": [1, 1, 0, 0, 0, 1],
}
ATTACKED = {"aligned": [1, 1, 1, 0, 0, 0], "absent": [1] + [0] * 5, "random": [0] * 6, "reversed": [0] * 6}


def told(view: str, **changed: Any) -> Evaluation:
    """What six images of two classes give on a test set; the shortcut of ``reversed`` is that of the other class."""

    def bools(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.bool)

    codes = {"aligned": LABELS_OF, "random": [0, 1, 0, 1, 0, 1], "reversed": WRONG}.get(view)
    values: dict[str, Any] = {
        "protocol": protocol_named("pgd"),
        "norm": "linf",
        "epsilons": (0.1,),
        "seed": 0,
        "model": "m",
        "data": view,
        "classes": 2,
        "shortcut_view": "" if view == "absent" else view,
        "clean": bools(RIGHT[view]),
        "outcomes": {"pgd-40x5": bools(ATTACKED[view])[None]},
        "labels": torch.tensor(LABELS_OF),
        "class_names": ("cat", "dog"),
        "shortcut_codes": None if codes is None else torch.tensor(codes),
    }
    return Evaluation(**values | changed)


def test_the_gap_is_what_the_same_images_lose_from_aligned_to_reversed() -> None:
    use = shortcut_use(map(told, RIGHT))

    gap = use.gap()
    # Five of six against three of six; on three images only aligned is right, on one only reversed.
    assert (gap.first, gap.second, gap.kind, gap.n) == ("aligned", "reversed", "models", 6)
    assert gap.value == pytest.approx(5 / 6 - 3 / 6)
    assert gap.p == pytest.approx(2 * (1 + 4) / 2**4)
    assert gap.low < gap.value < gap.high
    assert use.gap(0.1).value == pytest.approx(3 / 6)
    assert [use.accuracy(view).value for view in use.views] == pytest.approx([5 / 6, 3 / 6, 2 / 6, 3 / 6])
    assert list(use.views) == ["aligned", "absent", "random", "reversed"]


def test_the_worst_group_is_the_class_with_the_shortcut_that_is_right_least() -> None:
    use = shortcut_use(map(told, RIGHT))

    groups = use.groups(least=3)
    assert groups is not None
    found = {(each.label, each.code): (each.accuracy.value, each.accuracy.n) for each in groups.groups}
    assert found == {(0, 0): (1.0, 3), (0, 1): (2 / 3, 3), (1, 0): (1 / 3, 3), (1, 1): (2 / 3, 3)}
    assert (groups.worst.label, groups.worst.code, groups.worst.name) == (1, 0, "class dog with the shortcut of cat")
    assert (groups.joined, groups.left_out, groups.smallest) == (0, 0, 3)
    # At an ε another one is the worst.
    attacked = use.groups(0.1, least=3)
    assert attacked is not None
    assert {each.accuracy.value for each in attacked.groups} == {1.0, 0.0}


def of_four(least: int) -> Groups | None:
    """Groups of eight images of four classes, of which only class 0 has several: five, with two wrong shortcuts."""

    labels, wrong = torch.tensor([0, 0, 0, 0, 0, 1, 2, 3]), torch.tensor([1, 1, 1, 2, 3, 0, 0, 0])
    few = {
        view: told(
            view,
            classes=4,
            class_names=tuple("abcd"),
            labels=labels,
            clean=torch.tensor([view == "aligned"] * 4 + [True] * 4),
            outcomes={"pgd-40x5": torch.zeros(1, 8, dtype=torch.bool)},
            shortcut_codes=None if view == "absent" else wrong if view == "reversed" else labels,
        )
        for view in RIGHT
    }
    return shortcut_use(few.values()).groups(least=least)


def test_wrong_shortcuts_that_few_images_have_are_one_group_of_their_class() -> None:
    groups = of_four(2)
    assert groups is not None
    found = {(each.label, each.code): (each.accuracy.value, each.accuracy.n) for each in groups.groups}
    # Class 0 with its own; with that of 1; with those of 2 and 3, of which one image each. The other classes have one.
    assert found == {(0, 0): (1.0, 5), (0, 1): (0.0, 3), (0, None): (0.5, 2)}
    # Of the twelve pairs with a wrong shortcut, all but (0, 1) have fewer than two images.
    assert (groups.joined, groups.left_out, groups.smallest) == (11, 6, 2)
    assert_states(groups.text(), "3 groups", "The 11 with", "fewer than 2", "smallest with 2 images", "6 groups")

    together = of_four(4)
    assert together is not None
    found = {(each.label, each.code): (each.accuracy.value, each.accuracy.n) for each in together.groups}
    assert found == {(0, 0): (1.0, 5), (0, None): (0.2, 5)}
    assert together.worst.code is None
    assert of_four(6) is None


def test_without_enough_images_of_any_group_the_table_says_so() -> None:
    use = shortcut_use(map(told, RIGHT))
    assert use.groups() is None
    assert_states(str(use), "worst group", "10 images")


def test_evidence_without_shortcuts_of_images_has_a_gap_and_no_groups() -> None:
    use = shortcut_use(told(view, shortcut_codes=None) for view in RIGHT)
    assert (use.groups(least=1), use.gap().value) == (None, pytest.approx(2 / 6))


def test_the_table_says_every_number_with_its_interval_and_what_it_rests_on() -> None:
    text = str(shortcut_use(map(told, RIGHT)))
    assert_states(text, "pgd v3", "n = 6", "L∞", "aligned", "absent", "random", "reversed", "gap", "+33.3", "+50.0")


@pytest.mark.parametrize(
    ("evaluations", "facts"),
    [
        ([told("aligned"), told("reversed")], ["absent and random", "--shortcut-view all"]),
        ([*map(told, RIGHT), told("random")], ["two", "random"]),
        ([*map(told, ("aligned", "absent", "random")), told("reversed", model="other")], ["same model"]),
        ([*map(told, ("aligned", "absent", "random")), told("reversed", labels=torch.tensor(WRONG))], ["images"]),
        (
            [told(view, shortcut="disc:seed=0") for view in ("aligned", "absent", "random")]
            + [told("reversed", shortcut="disc:seed=1")],
            ["different shortcuts", "disc:seed=0", "disc:seed=1"],
        ),
    ],
)
def test_evaluations_that_do_not_belong_together_are_refused(evaluations: list[Evaluation], facts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        shortcut_use(evaluations)
    assert_states(refused.value, *facts)


# Evidence ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Evaluation]:
    """The evaluation of a linear model on twenty images with a patch, with evidence in a folder."""

    folder = tmp_path_factory.mktemp("evidence") / "e"
    torch.manual_seed(0)
    images = Images(torch.rand(20, 1, 8, 8), torch.arange(20) % 4, tuple("abcd"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    planted = shortcut_views(images, "patch:0.9,size=2")["reversed"]
    return folder, evaluate(model, planted, "paper", epsilons=[0.1], folder=folder, shortcut_view="reversed")


@pytest.fixture
def made(_made: tuple[Path, Evaluation], tmp_path: Path) -> tuple[Path, Evaluation]:
    """A copy of the evidence, to be damaged at will, and what was found."""

    return shutil.copytree(_made[0], tmp_path / "e"), _made[1]


@pytest.mark.slow
def test_an_evaluation_says_what_its_images_have(made: tuple[Path, Evaluation]) -> None:
    folder, evaluation = made
    assert evaluation.shortcut == load_evaluation(folder).shortcut == "patch:contrast=0.8,size=2,seed=0,code=level"
    images = Images(torch.rand(20, 1, 8, 8), torch.arange(20) % 4, tuple("abcd"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    views = shortcut_views(images, evaluation.shortcut)
    for view, planted in views.items():
        found = evaluate(model, planted, "paper", epsilons=[0.1])
        assert found.shortcut_view == ("" if view == "absent" else view)
        with pytest.raises(InputError) as refused:
            evaluate(model, planted, "paper", epsilons=[0.1], shortcut_view="random" if view != "random" else "aligned")
        assert_states(refused.value, "shortcut_view")


@pytest.mark.slow
def test_the_shortcut_of_each_image_is_evidence_that_is_read_back(made: tuple[Path, Evaluation]) -> None:
    folder, found = made
    back = load_evaluation(folder)

    assert found.shortcut_codes is not None
    assert back.shortcut_codes is not None
    assert back.labels is not None
    assert torch.equal(back.shortcut_codes, found.shortcut_codes)
    # In reversed, no image has the shortcut of its own class.
    assert not bool((back.shortcut_codes == back.labels).any())


@pytest.mark.slow
def test_a_folder_from_before_shortcuts_of_images_were_saved_is_read_as_it_is(made: tuple[Path, Evaluation]) -> None:
    folder, found = made
    result = folder / "result.json"
    tensors, metadata = read_tensors(folder / LABELS)
    rewritten(result, {name: value for name, value in read_sealed(result)[0].items() if name != "shortcut_codes"})
    (folder / MANIFEST).unlink()
    # The file of labels is the later one where a resumed evaluation was killed between the two.
    for saved in (tensors, {"labels": tensors["labels"]}):
        write_tensors(folder / LABELS, saved, metadata, begin=False)

        back = load_evaluation(folder)

        assert back.shortcut_codes is None
        assert back.accuracy == found.accuracy


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda codes: (codes + 1) % 4, lambda codes: codes[:5], lambda codes: codes + 9])
def test_a_shortcut_that_is_not_that_of_the_result_is_refused(made: tuple[Path, Evaluation], change: Any) -> None:
    folder, _ = made
    tensors, metadata = read_tensors(folder / LABELS)
    other = {"labels": tensors["labels"], "shortcut_codes": change(tensors["shortcut_codes"])}
    write_tensors(folder / LABELS, other, metadata, begin=False)
    (folder / MANIFEST).unlink()
    with pytest.raises(DamagedFileError) as refused:
        load_evaluation(folder)
    assert_states(refused.value, LABELS, "--resume")
