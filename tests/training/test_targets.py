"""Label smoothing and class weights: the loss by hand, shared passes, and where they would be ignored."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asgt import Images, InputError, Objective, TrainConfig
from asgt.attacks import FGSM, PGD
from asgt.data import stratified, to_unit
from asgt.passes import cross_entropy, modes_agree
from asgt.randomness import Generators
from asgt.saliency import SaliencyMask
from asgt.training.config import METHODS
from asgt.training.counting import step_passes
from asgt.training.methods import build_objective
from asgt.training.objectives import ASGT, AT, SGT, ST, TRADES
from asgt.training.targets import Targets, balanced_weights, targets_of
from asgt.training.trainer import train
from support.informed import told
from support.messages import assert_states
from support.trainings import rows


def by_hand(logits: Tensor, y: Tensor, smoothing: float, weights: list[float]) -> float:
    """The mean over the images of the weighted cross-entropy to smoothed labels, number by number."""

    total = 0.0
    for row, label in zip(logits.double().tolist(), y.tolist(), strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        smoothed = [(1 - smoothing) * (k == label) + smoothing / len(row) for k in range(len(row))]
        total += weights[label] * sum(p * (normaliser - value) for p, value in zip(smoothed, row, strict=True))
    return total / len(y)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.Tanh(), nn.Flatten())
        made.append(nn.Linear(4 * 16, 3))
    return made.double()


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(7, 2, 6, 6, generator=generator, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 1])


def streams() -> Generators:
    return Generators(attack=torch.Generator().manual_seed(5), mask=torch.Generator().manual_seed(6))


# The loss by hand -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.5, 2.0, 0.0]])
def test_the_cross_entropy_is_that_of_smoothed_and_weighted_labels(smoothing: float, weights: list[float]) -> None:
    (x, y), model = batch(), net()

    targets = Targets.of(torch.tensor(weights), smoothing)(y)
    out = ST()(model, x, y, targets=targets)

    assert (targets.shape, targets.dtype) == ((7, 3), torch.float32)
    assert float(out.loss.detach()) == pytest.approx(by_hand(out.logits["clean"], y, smoothing, weights), rel=1e-6)
    if weights == [1.0] * 3:
        theirs = F.cross_entropy(model(x), y, label_smoothing=smoothing)
        torch.testing.assert_close(out.loss, theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("settings", "smoothing"),
    [
        ({"label_smoothing": 0.2}, 0.2),
        ({"class_weights": "3,1,0.5"}, 0.0),
        ({"class_weights": "balanced"}, 0.0),
        ({"label_smoothing": 0.1, "class_weights": "balanced"}, 0.1),
    ],
    ids=str,
)
def test_a_training_minimises_that_loss_and_counts_the_labels_themselves(
    settings: dict[str, Any], smoothing: float, tmp_path: Path
) -> None:
    # Twenty, ten and ten images: of them 18, 9 and 9 are trained on. All are one batch.
    labels = torch.tensor([0] * 20 + [1] * 10 + [2] * 10)
    pixels = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, labels, ("a", "b", "c"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    first = copy.deepcopy(model)
    weights = {"3,1,0.5": [3.0, 1.0, 0.5], "balanced": [36 / (3 * 18), 36 / (3 * 9), 36 / (3 * 9)]}

    config = TrainConfig(method="st", epochs=1, batch_size=40, validation=0.1, device="cpu", **settings)
    train(config, tmp_path / "run", model=model, data=(images, images))
    [row] = rows(tmp_path / "run")

    chosen, _ = stratified(labels, 0.1, "validation")
    assert labels[chosen].bincount().tolist() == [18, 9, 9]
    logits = first(to_unit(pixels[chosen]))
    expected = by_hand(logits, labels[chosen], smoothing, weights.get(settings.get("class_weights", ""), [1.0] * 3))
    assert row["loss"] == row["clean"] == pytest.approx(expected, abs=2e-6)
    assert row["accuracy_clean"] == pytest.approx(float((logits.argmax(1) == labels[chosen]).float().mean()), abs=1e-6)
    assert (F.cross_entropy(logits, labels[chosen]) - expected).abs() > 1e-3


def test_neither_setting_and_no_smoothing_leave_every_bit(tmp_path: Path) -> None:
    config = {"method": "at", "attack": "fgsm", "limit": 60, "width": 0.25, "batch_size": 20, "epochs": 1}

    train(TrainConfig(**config), tmp_path / "plain")
    train(TrainConfig(**config, label_smoothing=0.0), tmp_path / "zero")

    assert rows(tmp_path / "plain") == rows(tmp_path / "zero")
    assert targets_of(TrainConfig(), torch.arange(3), "abc") is None


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = torch.tensor([0, 0, 0, 0, 2, 1, 1, 2, 2, 0])

    theirs = sklearn.compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())

    assert balanced_weights(labels, "abc").tolist() == pytest.approx(theirs.tolist(), rel=1e-15)


# Shared passes --------------------------------------------------------------------------------------------------------

METHODS_AND_ATTACKS = [
    pytest.param(method, attack, target, detach, id=f"{method}-{attack}-{target}{'-detached' * detach}")
    for method in METHODS
    for attack in (("fgsm", "pgd") if method in ("at", "sga", "asgt") else (None,))
    for target, detach in (
        [("logit", False), ("log_prob", True)] if method in ("sgt", "sga", "asgt") else [("logit", False)]
    )
]


@pytest.mark.parametrize(("method", "attack", "target", "detach"), METHODS_AND_ATTACKS)
def test_shared_passes_of_hard_labels_never_serve_soft_targets(
    method: str, attack: str | None, target: str, detach: bool
) -> None:
    asked = {"eps": 0.06, "steps": 2, "k": 0.25, "clean_weight": 0.5, "attack": attack}
    heard = {
        "at": ("eps", "clean_weight", "attack"),
        "trades": ("eps", "steps"),
        "sgt": ("k",),
        "sga": ("eps", "k", "attack"),
        "asgt": ("eps", "k", "attack"),
    }.get(method, ())
    settings: dict[str, Any] = {name: asked[name] for name in heard}
    settings |= {"steps": 2} if attack == "pgd" else {}
    settings |= {"target": target, "detach_clean": detach} if "k" in heard else {}
    objective = build_objective(TrainConfig(method=method, **settings).resolved())
    model, (x, y) = net(), batch()
    theirs = copy.deepcopy(model)
    targets = Targets.of(torch.tensor([0.5, 2.0, 1.0]), 0.2)(y).double()

    out = objective(model, x, y, generator=streams(), targets=targets, **told(objective, x))
    out.loss.backward()

    # Plainly: a function shares nothing, and the terms are those of its logits.
    assert modes_agree(model)
    views = objective.views(theirs.forward, x, y, None, streams())
    logits = {name: theirs(view) for name, view in views.items()}
    penalties = {}
    if objective.needs_shortcut:
        x = x.clone().requires_grad_()
        views, logits = {"clean": x}, {"clean": theirs(x)}
        penalties = objective.penalties(x, logits, told(objective, x)["shortcut"])
    loss = torch.stack(list((objective.terms(logits, targets) | penalties).values())).sum()
    hard = torch.stack(list(objective.terms(logits, y).values())).sum()
    theirs.zero_grad()
    loss.backward()

    torch.testing.assert_close(out.loss, loss, rtol=0, atol=1e-12)
    for mine, other in zip(model.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, other.grad, rtol=0, atol=1e-12)
    assert (loss - hard).abs() > 1e-3
    if not detach and method != "trades":
        clean = "clean" if method != "at" else "adversarial"
        expected = by_hand(logits[clean], y, 0.2, [0.5, 2.0, 1.0])
        assert float(out.terms[clean].detach()) == pytest.approx(expected, rel=1e-6)


MASK = SaliencyMask(0.25, target="log_prob")


@pytest.mark.parametrize(
    ("objective", "hard", "soft", "apart"),
    [
        (ST(), 3, 3, 3),
        # F + Bx at the clean images, and the loss's B of both views, of which one takes the clean F again.
        (AT(FGSM(0.1), clean_weight=0.5), 6, 7, 8),
        (AT(PGD(0.1, steps=2)), 7, 7, 7),
        (TRADES(PGD(0.1, steps=2)), 10, 10, 11),
        (SGT(mask=MASK, detach_clean=True), 6, 7, 8),
        (ASGT(attack=FGSM(0.1), mask=MASK), 10, 11, 13),
        (ASGT(attack=FGSM(0.1), mask=MASK, detach_clean=True), 9, 11, 13),
    ],
)
def test_the_counting_model_counts_the_backward_passes_of_targets(
    objective: Objective, hard: int, soft: int, apart: int
) -> None:
    assert step_passes(objective, modes_agree=True) == hard
    assert step_passes(objective, modes_agree=True, targets=True) == soft
    assert step_passes(objective, targets=True) == apart


def test_a_run_records_the_passes_of_its_targets(tmp_path: Path) -> None:
    config: dict[str, Any] = {"method": "at", "attack": "fgsm", "clean_weight": 0.5, "limit": 40, "batch_size": 36}
    for name, more in (("hard", {}), ("soft", {"label_smoothing": 0.1})):
        result = train(TrainConfig(**config, epochs=1, width=0.25, **more), tmp_path / name)
        assert result.speed["passes_per_step"] == {"hard": 6, "soft": 7}[name]


def test_hard_labels_as_targets_are_the_labels() -> None:
    (x, y), model = batch(), net()
    objective = AT(FGSM(0.1), clean_weight=0.5)

    losses = [objective(model, x, y, generator=streams(), targets=targets).loss for targets in (None, y, y.tolist())]

    assert losses[0] == losses[1] == losses[2]


# Refused --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (torch.ones(6, 3), ["targets", "(6, 3)", "(7, K)"]),
        (torch.ones(7, 4), ["targets", "4 classes", "3 logits"]),
        (torch.full((7, 3), -0.1), ["targets", "negative"]),
        (torch.full((7, 3), float("nan")), ["targets", "finite"]),
        (torch.tensor([0, 1, 2, 0, 1, 2]), ["targets", "(7,)"]),
        ("abc", ["targets"]),
    ],
)
def test_targets_that_do_not_fit_are_one_line(targets: Any, said: list[str]) -> None:
    x, y = batch()
    with pytest.raises(InputError) as refused:
        ST()(net(), x, y, targets=targets)
    assert_states(refused.value, *said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--label-smoothing 1", ["label_smoothing", "1.0", "[0, 1)"]),
        ("--label-smoothing -0.1", ["label_smoothing", "-0.1"]),
        ("--label-smoothing much", ["--label-smoothing", "much"]),
        ("--class-weights 1,2", ["class_weights", "2 numbers", "10 classes"]),
        ("--class-weights 3", ["class_weights", "1 number", "10 classes"]),
        ("--class-weights 1,-2,1", ["class_weights[1]", "-2"]),
        ("--class-weights 1,nan", ["class_weights[1]", "nan"]),
        ("--class-weights inf,1", ["class_weights[0]", "inf"]),
        ("--class-weights 1,1e-60", ["class_weights[1]", "1e-60"]),
        ("--class-weights 0,0", ["class_weights", "0,0", "zero"]),
        ("--class-weights even", ["class_weights", "even", "balanced"]),
        ("--class-weights 1,,2", ["class_weights", "1,,2", "0.5,2,1"]),
    ],
)
def test_what_cannot_be_meant_is_refused_before_there_is_a_run(
    cli: Callable, tmp_path: Path, words: str, said: list[str]
) -> None:
    assert_states(cli("train", "--method", "st", "--limit", 60, "--out", "run", *words.split()).refusal(), *said)
    assert not (tmp_path / "run").exists()


def test_balanced_weights_of_a_class_without_images_are_refused(tmp_path: Path) -> None:
    pixels = torch.zeros(20, 1, 4, 4, dtype=torch.uint8)
    images = Images(pixels, torch.tensor([0, 2] * 10), ("cat", "dog", "owl"))

    with pytest.raises(InputError) as refused:
        train(TrainConfig(method="st", class_weights="balanced"), tmp_path / "run", data=(images, images))

    assert_states(refused.value, "--class-weights balanced", "dog", "numbers")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (" 0.5, 2 ,1.0 ", "0.5,2,1"),
        ([0.5, 2, 1], "0.5,2,1"),
        (np.array([0.5, 2, 1]), "0.5,2,1"),
        (torch.tensor([0.5, 2, 1]), "0.5,2,1"),
        ("1/4,1", "0.25,1"),
        ("balanced", "balanced"),
    ],
    ids=str,
)
def test_weights_are_stored_in_one_spelling(given: Any, stored: str, tmp_path: Path) -> None:
    config = TrainConfig(class_weights=given).resolved()

    assert config.class_weights == stored
    config.save(tmp_path / "config.yaml")
    assert TrainConfig.load(tmp_path / "config.yaml") == config
    config.refuse_other({"class_weights": given}, "run")
    with pytest.raises(InputError):
        config.refuse_other({"class_weights": "1,2"}, "run")


class _Own(ST):
    """A method with a loss of its own."""

    def _loss(self, model: Any, x: Any, y: Any, eps: Any, generators: Any, forward: Any) -> Any:  # type: ignore[override]
        return super()._loss(model, x, y, eps, generators, forward)


class _Called(ST):
    """A method with a call of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


class _Deaf(ST):
    """A method whose terms take no labels."""

    def terms(self, logits: Any, y: Tensor) -> dict[str, Tensor]:
        return {"clean": logits["clean"].square().mean()}


class _Hard(ST):
    """A method whose terms take labels alone."""

    def terms(self, logits: Any, y: Tensor) -> dict[str, Tensor]:
        return {"clean": F.multi_margin_loss(logits["clean"], y)}


class _Soft(ST):
    """A method whose terms take both."""

    def terms(self, logits: Any, y: Tensor) -> dict[str, Tensor]:
        return {"twice": 2 * cross_entropy(logits["clean"], y)}


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.1}, {"class_weights": "balanced"}], ids=str)
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (_Own, ["_Own", "_loss", "remove"]),
        (_Called, ["_Called", "__call__", "remove"]),
        (_Deaf, ["_Deaf", "--label-smoothing", "--class-weights"]),
        (_Hard, ["_Hard"]),
    ],
)
def test_a_method_that_would_ignore_targets_is_refused(
    kind: type[ST], said: list[str], settings: dict[str, Any], tmp_path: Path
) -> None:
    config = {"limit": 60, "epochs": 1, "batch_size": 20, "width": 0.25}

    with pytest.raises(InputError) as refused:
        train(TrainConfig(**config, **settings), tmp_path / "run", objective=kind())

    assert_states(refused.value, *said)
    assert not (tmp_path / "run").exists()
    # Without them it trains.
    train(TrainConfig(**config), tmp_path / "run", objective=kind())


def test_another_method_of_ones_own_takes_targets(tmp_path: Path) -> None:
    config = TrainConfig(limit=60, epochs=1, batch_size=60, width=0.25, label_smoothing=0.1)

    train(config, tmp_path / "own", objective=_Soft())
    train(config, tmp_path / "ours", objective=ST())

    assert rows(tmp_path / "own")[0]["twice"] == pytest.approx(2 * rows(tmp_path / "ours")[0]["clean"], abs=2e-6)
