"""Which images ``--samples N`` takes: the first N where they stand for all, else a stratified draw, always the same."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from asgt import Images, InputError
from asgt.data import sample, sampled_rows, selection_text
from support.messages import assert_states


def of(labels: Tensor) -> Images:
    names = tuple(map(str, range(int(labels.max()) + 1)))
    return Images(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels, names)


def sorted_by_class(classes: int, each: int) -> Images:
    return of(torch.arange(classes).repeat_interleave(each))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("images", "count", "expected"),
    [
        (sorted_by_class(2, 50), 51, {25, 26}),  # the first 51 are 50 and 1
        (sorted_by_class(2, 50), 50, {25}),
        (sorted_by_class(2, 50), 2, {1}),
        (sorted_by_class(10, 100), 905, {90, 91}),  # the first 905 hold all classes, one of them five times
        (sorted_by_class(1000, 50), 10, {0, 1}),  # the first ten are of one class of 1,000
        (sorted_by_class(1000, 50), 1000, {1}),
        (sorted_by_class(1000, 50), 1500, {1, 2}),
    ],
)
def test_images_that_are_sorted_by_class_are_drawn_by_class(images: Images, count: int, expected: set[int]) -> None:
    rows = sampled_rows(images, count)
    counts = images.labels[rows].bincount(minlength=len(images.classes))
    assert len(rows) == count
    assert set(counts.tolist()) == expected
    assert rows.equal(rows.sort().values)
    assert rows.equal(sampled_rows(images, count))
    assert sample(images, count).labels.equal(images.labels[rows])
    assert selection_text(images, rows) == f"{count} of {len(images)} images, drawn by class"


def test_the_shares_of_uneven_classes_are_kept_and_no_class_is_lost() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    for count, expected in ((100, [90, 9, 1]), (20, [18, 1, 1]), (3, [1, 1, 1]), (2, [2, 0, 0])):
        assert labels[sampled_rows(of(labels), count)].bincount(minlength=3).tolist() == expected


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("count", [60, 500])
def test_images_in_a_random_order_are_taken_from_the_first_on(classes: int, count: int) -> None:
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.randint(classes, (5000,), generator=generator)
        rows = sampled_rows(of(labels), count)
        assert rows.equal(torch.arange(count))
    assert selection_text(of(labels), rows) == f"the first {count} of 5000 images"
    assert selection_text(of(labels), torch.arange(5000)) == "all 5000 images"


@pytest.mark.slow
def test_the_first_500_of_mnist_and_cifar10_stay_the_first(
    mnist: object, cifar10: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What committed results were measured on."""

    from asgt import load_data

    for folder in (mnist, cifar10):
        test = load_data(str(folder), train=False).test
        for count in (200, 500, 1000):
            assert sampled_rows(test, count).equal(torch.arange(count))


def test_as_many_as_there_are_not_are_refused() -> None:
    for count in (0, 101):
        with pytest.raises(InputError) as caught:
            sampled_rows(sorted_by_class(2, 50), count)
        assert_states(caught.value, count, 100)
