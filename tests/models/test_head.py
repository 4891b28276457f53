"""The head of a classifier is found by what it does, and replaced in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from asgt.errors import InputError
from asgt.models import build_model
from asgt.models.head import find_head, give_classes, replace_head
from asgt.models.weights import load_all_but_head, load_weights
from support.messages import assert_states
from support.nets import untouched

SHAPE = (1, 8, 8)


class Auxiliary(nn.Module):
    """A Linear of as many outputs is called after the head, and its answer thrown away, as in training it is not."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body, self.main, self.aux = nn.Linear(64, 6), nn.Linear(6, classes), nn.Linear(6, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(x.flatten(1)).relu()
        logits = self.main(features)
        extra = self.aux(features)
        return logits + extra if self.training else logits


class Tokens(nn.Module):
    """Logits of each row of pixels, averaged, in an output object."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.head = nn.Linear(8, classes, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.head(x[:, 0]).mean(1).log_softmax(1)}


class TwoHeads(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(64, classes), nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.one(x.flatten(1)) + self.two(x.flatten(1))


class ByHand(nn.Module):
    """Logits that no layer gives."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, classes))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


def pooled(classes: int = 5) -> nn.Module:
    body = [nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(5, classes, 1)]
    return nn.Sequential(*body, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def flattened(classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, classes, 1), nn.Flatten())


def square(classes: int = 5) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.ReLU(), nn.Linear(classes, classes))


def zeroed(classes: int = 5) -> nn.Module:
    """As transformers begin: all logits are zero, and so are those of a layer that is no head."""

    net = Auxiliary(classes)
    for layer in (net.main, net.aux):
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    return net


HEADS: dict[str, tuple[Callable[[int], nn.Module], str]] = {
    "small_cnn": (lambda k: build_model("small_cnn", SHAPE, k, width=0.1), "net.9"),
    "resnet18": (lambda k: build_model("resnet18", SHAPE, k, width=0.05), "net.13"),
    "alexnet": (lambda k: build_model("alexnet", (1, 16, 16), k, width=0.05), "net."),
    "1x1 convolution, then ReLU and pooling": (pooled, "3"),
    "1x1 convolution of pooled features": (flattened, "1"),
    "auxiliary layer": (Auxiliary, "main"),
    "zeros": (zeroed, "main"),
    "averaged rows in a dict": (Tokens, "head"),
    "K to K": (square, "3"),
    "module.": (lambda k: nn.Sequential(nn.Identity(), Auxiliary(k)), "1.main"),
}


@pytest.mark.parametrize("kind", HEADS)
def test_the_head_is_found_and_replaced_in_place(kind: str) -> None:
    build, name = HEADS[kind]
    shape = (1, 16, 16) if kind == "alexnet" else SHAPE
    net = build(5).train()
    before = torch.get_rng_state()

    with untouched(net):
        found = find_head(net, shape)

    assert torch.equal(torch.get_rng_state(), before)
    assert found is not None
    assert found.startswith(name) if kind == "alexnet" else found == name
    old: Any = net.get_submodule(found)
    rest = {key: value for key, value in net.state_dict().items() if not key.startswith(f"{found}.")}
    replaced = give_classes(net, shape, 3, "net")
    assert (replaced.head, replaced.logits) == (found, 5) if replaced else False
    fresh: Any = net.get_submodule(found)
    assert type(fresh) is type(old)
    assert (fresh.bias is None) == (old.bias is None)
    assert fresh.weight.shape == (3, *old.weight.shape[1:])
    assert bool(fresh.weight.any())
    assert all(torch.equal(net.state_dict()[key], value) for key, value in rest.items())
    answer = net.eval()(torch.rand(2, *shape))
    assert (answer["logits"] if isinstance(answer, dict) else answer).shape == (2, 3)
    assert give_classes(net, shape, 3, "net") is None


@pytest.mark.parametrize("build", [TwoHeads, ByHand], ids=lambda build: build.__name__)
def test_a_model_without_a_single_head_is_refused(build: Callable[[], nn.Module]) -> None:
    net = build()
    assert find_head(net, SHAPE) is None
    with untouched(net), pytest.raises(InputError) as raised:
        give_classes(net, SHAPE, 3, "pkg:net")
    assert_states(raised.value, "pkg:net", "5 logits", "3 classes", "Linear or Conv2d", "3 outputs")


def test_a_layer_that_stands_in_two_places_is_replaced_in_both() -> None:
    layer = nn.Linear(64, 5, dtype=torch.float64)
    net = nn.ModuleDict({"one": nn.Sequential(nn.Flatten(), layer), "two": nn.Sequential(layer)})
    replace_head(net, "one.1", 3)
    one, two = net["one"][1], net["two"][0]
    assert one is two
    assert one.weight.dtype == torch.float64
    assert one.out_features == 3
    for wrong in ("one.7", "one.0", ""):
        with pytest.raises(InputError):
            replace_head(net, wrong, 3)


# A file of other classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module.", "model.module."])
@pytest.mark.parametrize("kind", ["small_cnn", "resnet18", "auxiliary layer"])
def test_a_file_of_other_classes_is_loaded_but_for_its_head(kind: str, prefix: str, tmp_path: Any) -> None:
    build, head = HEADS[kind]
    if kind == "auxiliary layer":  # whose other layer is part of the rest, and must fit
        theirs: nn.Module = Auxiliary(7)
        theirs.aux = nn.Linear(6, 5)  # type: ignore[attr-defined]
    else:
        theirs = build(7)
    path = tmp_path / "weights.pt"
    torch.save({f"{prefix}{name}": value for name, value in theirs.state_dict().items()}, path)

    mine = build(5)
    fresh = {name: value.clone() for name, value in mine.state_dict().items()}
    loaded = load_all_but_head(mine, path, head)

    assert loaded.left_out == 7
    assert prefix in loaded.line if prefix == "module." else True
    for name, value in mine.state_dict().items():
        expected = fresh[name] if name.startswith(f"{head}.") else theirs.state_dict()[name]
        assert torch.equal(value, expected), name
    with untouched(mine), pytest.raises(InputError):
        load_weights(mine, path)


def test_all_but_the_head_must_fit(tmp_path: Any) -> None:
    path, head = tmp_path / "weights.pt", "net.9"
    state = build_model("small_cnn", SHAPE, 7, width=0.1).state_dict()
    mine = build_model("small_cnn", SHAPE, 5, width=0.1)
    cases: dict[str, tuple[dict[str, Tensor], list[object]]] = {
        "another layer": (state | {"net.0.weight": torch.zeros(9, 1, 3, 3)}, ["net.0.weight", "(9, 1, 3, 3)"]),
        "other features": (state | {"net.9.weight": torch.zeros(7, 99)}, ["net.9.weight", "(7, 99)", "(5, 13)"]),
        "no bias": ({name: value for name, value in state.items() if name != "net.9.bias"}, ["net.9.bias", "missing"]),
        "a bias of its own": (state | {"net.9.bias": torch.zeros(6)}, ["net.9.weight", "(7, 13)", "(5, 13)"]),
        "another too much": (state | {"net.10.bias": torch.zeros(6)}, ["net.10.bias"]),
    }
    for kind, (held, facts) in cases.items():
        torch.save(held, path)
        with untouched(mine), pytest.raises(InputError) as raised:
            load_all_but_head(mine, path, head)
        assert_states(raised.value, *facts), kind
    torch.save(state, path)
    with pytest.raises(InputError) as raised:
        load_all_but_head(mine, path, None)
    assert_states(raised.value, "net.9.weight", "(7, 13)", "(5, 13)", "Linear or Conv2d")
