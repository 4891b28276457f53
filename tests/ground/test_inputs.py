"""What every public function asks of images, labels and numbers: taken where it can be meant, refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import asgt
from asgt import ASGT, AT, FGSM, MIFGSM, PGD, SGA, SGT, ST, TRADES, InputError, SaliencyMask
from asgt.data import as_images
from asgt.inputs import checked, checked_images, checked_labels
from asgt.randomness import seed_of
from support.messages import assert_states

MASK = SaliencyMask(k=0.25)
OBJECTIVES = [
    ST(),
    AT(PGD(0.1, steps=2)),
    TRADES(PGD(0.1, steps=2)),
    SGT(mask=MASK),
    SGA(attack=FGSM(0.1), mask=MASK),
    ASGT(attack=FGSM(0.1), mask=MASK),
]


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return asgt.build_model("small_cnn", (1, 8, 8), 3)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])


def everywhere(net: nn.Module, x: Any, y: Any) -> dict[str, Callable[[], Any]]:
    """Each public way to hand over images and labels."""

    ways: dict[str, Callable[[], Any]] = {
        "evaluate": lambda: asgt.evaluate(net, (x, y), protocol="paper", epsilons=[0.1]),
        "attacks of one's own": lambda: asgt.evaluate(net, (x, y), protocol=FGSM(0.1), epsilons=[0.1]),
        "explain": lambda: asgt.explain(net, (x, y), eps=0.1),
        "saliency_maps": lambda: asgt.saliency_maps({"net": net}, x, y),
        "PGD": lambda: PGD(0.1, steps=2)(net, x, y),
        "FGSM": lambda: FGSM(0.1)(net, x, y),
        "MIFGSM": lambda: MIFGSM(0.1, steps=2)(net, x, y),
    }
    return ways | {f"{type(method).__name__}()": lambda method=method: method(net, x, y) for method in OBJECTIVES}


X = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
Y = torch.tensor([0, 1, 2])
NAN = X.index_put((torch.tensor(1), torch.tensor(0), torch.tensor(2), torch.tensor(2)), torch.tensor(torch.nan))

CANNOT_BE_MEANT = {
    "0 to 255": (X * 255, Y, ["255"]),
    "normalised": ((X - 0.5) / 0.25, Y, ["normalisation"]),
    "uint8": ((X * 255).to(torch.uint8), Y, ["uint8", "255"]),
    "NaN": (NAN, Y, ["[1]", "NaN"]),
    "infinite": (X / 0, Y, ["inf"]),
    "channels last": (X.expand(3, 3, 8, 8).permute(0, 2, 3, 1), Y, ["permute(0, 3, 1, 2)"]),
    "numpy, 0 to 255": ((X * 255).numpy(), Y, ["255"]),
    "too few labels": (X, Y[:2], ["labels"]),
    "real labels": (X, Y.float(), ["int64"]),
    "a column of labels": (X, Y[:, None], ["squeeze(1)"]),
    "label below zero": (X, Y - 1, ["[-1, 1]"]),
    "label without a logit": (X, Y + 1, ["3"]),
    "images as a list": (X.tolist(), Y, ["list"]),
}


@pytest.mark.parametrize("kind", CANNOT_BE_MEANT)
def test_what_cannot_be_meant_is_refused_everywhere_in_one_line(net: nn.Module, kind: str) -> None:
    x, y, says = CANNOT_BE_MEANT[kind]
    for way, call in everywhere(net, x, y).items():
        # evaluate and explain take pixels of 8 bits, as data sets hold them.
        if kind == "uint8" and way in ("evaluate", "attacks of one's own", "explain"):
            continue
        if kind == "label without a logit" and way == "saliency_maps":
            continue
        with pytest.raises(InputError) as error:
            call()
        assert_states(error.value, *says)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint16"])
def test_labels_of_any_integer_type_mean_the_same(net: nn.Module, batch: tuple[Tensor, Tensor], kind: str) -> None:
    x, y = batch
    typed = y.numpy().astype(kind)
    expected = PGD(0.1, steps=3, random_start=False)(net, x, y)
    assert torch.equal(PGD(0.1, steps=3, random_start=False)(net, x, typed), expected)
    assert as_images((x, typed)).labels.equal(y)
    curves = [asgt.evaluate(net, (x, labels), protocol="paper", epsilons=[0.1]).outcomes for labels in (y, typed)]
    assert all(curves[0][name].equal(curves[1][name]) for name in curves[0])


def test_numpy_images_in_float64_are_those_of_torch(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    for method in OBJECTIVES:
        losses = []
        for images, labels in ((x, y), (x.numpy().astype(np.float64), y.numpy())):
            torch.manual_seed(3)
            losses.append(float(method(net, images, labels).loss.detach()))
        assert losses[0] == losses[1], method


@pytest.mark.slow
def test_a_pixel_beyond_one_by_rounding_is_one(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    x[0, 0, 0, 0] = 1.0000001
    x[1, 0, 0, 0] = -1e-8
    assert checked_images(x)[0, 0, 0, 0] == 1
    assert checked_images(x)[1, 0, 0, 0] == 0
    for call in everywhere(net, x, y).values():
        call()
    with pytest.raises(InputError, match="expected"):
        checked_images(x + 1e-3)


@pytest.mark.slow
def test_text_and_numpy_numbers_are_the_plain_ones(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    plain = PGD(eps=8 / 255, steps=7, alpha=2 / 255)
    for other in (
        PGD(eps="8/255", steps=np.int64(7), alpha="2/255"),  # type: ignore[arg-type]
        PGD(eps=np.float64(8 / 255), steps=torch.tensor(7), alpha=np.float64(2 / 255)),  # type: ignore[arg-type]
    ):
        # Evidence knows an attack by its text.
        assert other == plain
        assert repr(other) == repr(plain)
    assert repr(SaliencyMask(k="1/4")) == repr(SaliencyMask(k=0.25))  # type: ignore[arg-type]
    assert repr(TRADES(PGD(0.1), beta=np.int64(6))) == repr(TRADES(PGD(0.1), beta=6.0))
    assert PGD(0.1)(net, *batch, eps="0").equal(batch[0])

    x, y = batch
    asked = [
        asgt.evaluate(net, (x, y), protocol="pgd", epsilons=grid, seed=seed)
        for grid, seed in (([0.1], 0), (["1/10"], np.int64(0)))
    ]
    assert asked[0].to_dict() | {"seconds": 0} == asked[1].to_dict() | {"seconds": 0}
    assert seed_of(np.int64(5), "attack") == seed_of(5, "attack") == seed_of(torch.tensor(5), "attack")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PGD(0.1, alpha=2), "2/255"),
        (lambda: MIFGSM(0.1, alpha=2), "2/255"),
        (lambda: PGD(8), "8/255"),
        (lambda: PGD("eight"), "'eight'"),  # type: ignore[arg-type]
        (lambda: PGD(0.1, steps=7.5), "7.5"),  # type: ignore[arg-type]
        (lambda: PGD(0.1, steps=True), "True"),
        (lambda: SaliencyMask(k="much"), "'much'"),  # type: ignore[arg-type]
        (lambda: TRADES(PGD(0.1), beta="big"), "'big'"),  # type: ignore[arg-type]
    ],
)
def test_numbers_that_cannot_be_meant_are_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert_states(error.value, says, "number" if "/" not in says else "255")
    PGD(0.1, norm="l2", alpha=2)  # in L2 a step may be longer than a pixel's range


# Labels that are probabilities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OBJECTIVES, ids=lambda method: type(method).__name__)
def test_one_hot_labels_give_the_loss_of_the_classes(
    method: asgt.Objective, net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    losses = []
    for labels in (y, nn.functional.one_hot(y, 3).float(), nn.functional.one_hot(y, 3)):
        torch.manual_seed(3)
        losses.append(method(net, x, labels).loss.detach())
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(3))


def test_the_saliency_of_soft_labels_is_the_weighted_gradient() -> None:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x, soft = torch.rand(1, 1, 2, 2), torch.tensor([[0.5, 0.3, 0.2]])
    scores = SaliencyMask(k=0.5).scores(linear, x, soft)
    expected = (soft @ linear[1].weight).abs().detach()
    torch.testing.assert_close(scores, expected)


def test_soft_labels_that_are_none_are_refused(net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, _ = batch
    for wrong in (torch.full((6, 3), 0.5), torch.full((6, 3), -1.0), torch.full((6, 2), 0.5), torch.full((6, 4), 0.25)):
        for method in OBJECTIVES:
            with pytest.raises(InputError) as error:
                method(net, x, wrong)
            assert_states(error.value, "y", f"({len(wrong)}, {wrong.shape[1]})")
    with pytest.raises(InputError, match="argmax"):
        asgt.evaluate(net, (x, torch.full((6, 3), 1 / 3)), epsilons=[0.1])


# Where images come from ----------------------------------------------------------------------------------------------


class Dictionaries(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row >= 6:
            raise IndexError
        return {"pixel_values": torch.full((1, 8, 8), row / 10), "labels": row % 3}


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Any:
        return ((torch.full((1, 8, 8), row / 10), row % 3) for row in range(6))


def test_a_dataset_and_a_loader_give_their_images() -> None:
    x = torch.stack([torch.full((1, 8, 8), row / 10) for row in range(6)])
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    for data in (
        (x, y),
        (x.numpy(), y.numpy().astype(np.uint8)),
        TensorDataset(x, y),
        DataLoader(TensorDataset(x, y), batch_size=4),
        Dictionaries(),
        DataLoader(Dictionaries(), batch_size=4),
        Stream(),
        DataLoader(Stream(), batch_size=5),
        [(image, int(label)) for image, label in zip(x, y, strict=True)] * 1,
    ):
        images = as_images(data)
        assert images.pixels.equal(x)
        assert images.labels.equal(y)
    whole = as_images((torch.full((6, 1, 8, 8), 255, dtype=torch.uint8), y))
    assert whole.pixels.dtype == torch.uint8


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (DataLoader(TensorDataset(X), batch_size=2), "label"),
        (DataLoader(TensorDataset((X - 0.5) / 0.2, Y), batch_size=2), "normalisation"),
        (X, "Tensor"),
        ("digits", "str"),
        (7, "int"),
        ([], "no images"),
        ([{"a": 1, "b": 2}], "'a', 'b'"),
        ([(torch.rand(1, 8, 8), 0), (torch.rand(1, 9, 9), 1)], "shapes"),
        ([(torch.rand(4, 1, 8, 8), 0)], r"\(C, H, W\)"),
        ((torch.rand(2, 64), Y[:2]), r"\(N, C, H, W\)"),
    ],
)
def test_data_of_another_kind_is_refused(data: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        as_images(data)


def test_what_is_right_stays_the_same_tensor() -> None:
    x, y = checked(X, Y, 3)
    assert x is X
    assert y is Y
    assert checked_labels([0, 1, 2], 3).equal(Y)
    assert checked_labels(np.array([True, False]), 2).tolist() == [1, 0]
    with pytest.raises(InputError, match="K = 2"):
        checked(X, Y, 2)


# What a call may be given beside images and labels --------------------------------------------------------------------

ATTACKS = [PGD(0.1, steps=2), FGSM(0.1), MIFGSM(0.1, steps=2), asgt.APGD(0.1, steps=2), asgt.Square(0.1, steps=2)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.title)
def test_a_radius_for_each_image_is_checked_like_one_for_all(
    attack: asgt.Attack, net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    each = torch.linspace(0, 0.2, 6)
    assert bool(((attack(net, x, y, eps=each) - x).abs().flatten(1).amax(dim=1) <= each + 1e-6).all())
    for wrong in (8.0, -0.1, torch.nan, torch.inf):
        for eps in (torch.full((6,), wrong), torch.tensor(wrong)):
            with pytest.raises(InputError, match="eps"):
                attack(net, x, y, eps=eps)
            with pytest.raises(InputError, match="eps"):
                AT(attack)(net, x, y, eps=eps)
    for shape in ((3,), (6, 1), (6, 1, 1, 1)):
        with pytest.raises(InputError, match="shape"):
            attack(net, x, y, eps=torch.full(shape, 0.1))
    with pytest.raises(InputError, match="not a number"):
        attack(net, x, y, eps=True)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.title)
def test_labels_that_the_model_has_no_logit_for_are_refused_by_every_attack(
    attack: asgt.Attack, net: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch
    with pytest.raises(InputError, match="3"):
        attack(net, x, y + 1)
    with pytest.raises(InputError, match="3 classes"):
        attack(net, x, torch.full((6, 4), 0.25))
    with pytest.raises(InputError) as error:
        attack(net, x.repeat(1, 2, 1, 1), y)
    assert_states(error.value, "images", "(6, 2, 8, 8)")
    for model, says in ((None, "NoneType"), ("resnet18", "str"), (nn.Linear, "class Linear")):
        with pytest.raises(InputError, match=says):
            attack(model, x, y)  # type: ignore[arg-type]


@pytest.mark.parametrize("start", ["nan", "to 255", "one", "integers", "list"])
def test_a_start_that_cannot_be_meant_is_refused(start: str, net: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    starts: dict[str, Any] = {"nan": x * torch.nan, "to 255": x * 255, "one": x[:1], "integers": x.byte()}
    with pytest.raises(InputError, match="init"):
        PGD(0.1, steps=1)(net, x, y, init=starts.get(start, x.tolist()))
    assert PGD(0.1, steps=1)(net, x, y, init=x.numpy()).shape == x.shape


def test_an_answer_without_a_graph_is_refused_by_what_follows_gradients(batch: tuple[Tensor, Tensor]) -> None:
    net = asgt.build_model("small_cnn", (1, 8, 8), 3)

    def quiet(x: Tensor) -> Tensor:
        with torch.no_grad():
            return net(x)  # type: ignore[no-any-return]

    for attack in ATTACKS[:4]:
        with pytest.raises(InputError, match="no gradient"):
            attack(quiet, *batch)
    with pytest.raises(InputError, match="no gradient"):
        AT(FGSM(0.1))(quiet, *batch)
    ATTACKS[4](quiet, *batch)  # Square needs none
    found = asgt.evaluate(quiet, batch, protocol=PGD(0.1, steps=2), epsilons=[0.1])
    assert found.checks  # an evaluation says so in its checks


def test_an_empty_batch_has_no_loss(net: nn.Module) -> None:
    x, y = torch.rand(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    assert PGD(0.1, steps=2)(net, x, y).shape == x.shape
    for method in OBJECTIVES:
        with pytest.raises(InputError, match="no images"):
            method(net, x, y)


@pytest.mark.parametrize("kind", [">f4", "f2", "O"])
def test_arrays_of_other_kinds_are_taken_or_refused(kind: str, net: nn.Module) -> None:
    array = X.numpy().astype(kind)
    if kind == "O":
        with pytest.raises(InputError, match="object"):
            checked_images(array)
    else:
        torch.testing.assert_close(checked_images(array).float(), X, atol=1e-3, rtol=0)
