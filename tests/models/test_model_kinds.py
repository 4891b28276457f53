"""Other people's models: what works with plain PyTorch gives the same numbers here, or one clear line."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import asgt
from asgt import ASGT, AT, FGSM, PGD, SGA, SGT, ST, TRADES, InputError, SaliencyMask
from asgt.devices import place
from asgt.files import digest_model, digest_tensors
from asgt.modes import ask, evaluating
from asgt.passes import modes_agree
from asgt.saliency import attribute
from support.messages import assert_states
from support.paths import ROOT

CLASSES = 3


class Net(nn.Module):
    """The plain net that all kinds below are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.head = nn.Linear(4 * 4 * 4, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(F.max_pool2d(F.relu(self.conv(x)), 2).flatten(1))


def plain() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Net()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 1, 8, 8, generator=generator), torch.tensor([0, 1, 2, 0, 1, 2])


def kind(**parts: Callable[..., Any]) -> Callable[[], nn.Module]:
    """A subclass of the net with other methods, built with the same weights."""

    def build() -> nn.Module:
        net = plain()
        net.__class__ = type("Kind", (Net,), parts)
        return net

    return build


def wrapped(change: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: change(plain())


class AsModelOutput:
    def __init__(self, logits: Tensor) -> None:
        self.loss, self.logits = None, logits


class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Any:
        return self.net(x.sub_(0.25).div_(0.5))


class InPlaceReference(InPlace):
    def forward(self, x: Tensor) -> Any:
        return self.net((x - 0.25) / 0.5)


def masked(self: Net, x: Tensor) -> Tensor:
    logits = Net.forward(self, x)
    return torch.cat([logits, torch.full_like(logits[:, :1], -torch.inf)], dim=1)


def in_training_a_tuple(self: Net, x: Tensor) -> Any:
    logits = Net.forward(self, x)
    return (logits, logits) if self.training else logits


def googlenet_like(self: Net, x: Tensor) -> Any:
    from collections import namedtuple

    logits = Net.forward(self, x)
    return namedtuple("Outputs", ["logits", "aux"])(logits, logits) if self.training else logits


def viewed(self: Net, x: Tensor) -> Tensor:
    y = F.max_pool2d(F.relu(self.conv(x)), 2)
    return self.head(y.view(y.size(0), -1))


def extra_state(value: Any) -> Callable[[], nn.Module]:
    return kind(get_extra_state=lambda self: value, set_extra_state=lambda self, state: None)


def compiled(net: nn.Module) -> nn.Module:
    return torch.compile(net, backend="eager")  # type: ignore[return-value]


def traced(net: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(net.eval(), torch.zeros(2, 1, 8, 8))


def frozen(net: nn.Module) -> nn.Module:
    return net.requires_grad_(False)


class KeepsStatistics(nn.Module):
    """BatchNorm that train() keeps frozen, as many fine-tuning recipes do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm2d(1), plain())

    def train(self, mode: bool = True) -> KeepsStatistics:
        super().train(mode)
        self.net[0].eval()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


# What works: the kind, and what it must equal.
WORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module], float]] = {
    "view after pooling": (kind(forward=viewed), plain, 0),
    "in place": (InPlace, InPlaceReference, 0),
    "ModelOutput": (kind(forward=lambda self, x: AsModelOutput(Net.forward(self, x))), plain, 0),
    "dict with logits": (kind(forward=lambda self, x: {"logits": Net.forward(self, x)}), plain, 0),
    "named tuple with logits in training": (kind(forward=googlenet_like), plain, 0),
    "log-softmax": (kind(forward=lambda self, x: Net.forward(self, x).log_softmax(1)), plain, 1e-5),
    "a class masked by -inf": (kind(forward=masked), plain, 1e-5),
    "float64": (wrapped(nn.Module.double), plain, 1e-5),
    "half precision": (wrapped(nn.Module.half), plain, 5e-2),
    "bfloat16": (wrapped(nn.Module.bfloat16), plain, 2e-1),
    "compiled": (wrapped(compiled), plain, 1e-5),
    "DataParallel": (wrapped(nn.DataParallel), plain, 0),
    "traced by jit": (wrapped(traced), plain, 1e-5),
    "extra state, a tensor": (extra_state(torch.tensor([1.0])), plain, 0),
    "extra state, a dict": (extra_state({"version": 2, "names": ("a", "b")}), plain, 0),
    "extra state, nothing": (extra_state(None), plain, 0),
    "train() that freezes BatchNorm": (KeepsStatistics, KeepsStatistics, 0),
    "all parameters frozen": (wrapped(frozen), plain, 0),
    "parameters shared": (wrapped(nn.Sequential), plain, 0),
}

REFUSED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "one logit": (kind(forward=lambda self, x: Net.forward(self, x)[:, :1]), ["torch.cat([0 * z, z]"]),
    "one number": (kind(forward=lambda self, x: Net.forward(self, x)[:, 0]), ["torch.cat([0 * z, z]"]),
    "a tuple": (kind(forward=lambda self, x: (Net.forward(self, x), x)), ["tuple", "2", "model(x)[0]"]),
    "a list": (kind(forward=lambda self, x: [Net.forward(self, x)]), ["list", "1"]),
    "a dict without logits": (kind(forward=lambda self, x: {"out": Net.forward(self, x)}), ["'out'", "'logits'"]),
    "an array": (kind(forward=lambda self, x: Net.forward(self, x).detach().numpy()), ["ndarray"]),
    "nothing": (kind(forward=lambda self, x: None), ["NoneType"]),
    "maps of logits": (kind(forward=lambda self, x: Net.forward(self, x)[:, :, None, None]), ["3, 1, 1)"]),
    "classes": (kind(forward=lambda self, x: (Net.forward(self, x) > 0).long()), ["int64"]),
    "too few rows": (kind(forward=lambda self, x: Net.forward(self, x)[:1]), ["(1, 3)"]),
}

MASK = SaliencyMask(k=0.25)
METHODS = [
    ST(),
    AT(PGD(0.1, steps=2)),
    TRADES(PGD(0.1, steps=2)),
    SGT(mask=MASK),
    SGA(attack=FGSM(0.1), mask=MASK),
    ASGT(attack=FGSM(0.1), mask=MASK),
]


def ways(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Callable[[], Any]]:
    found: dict[str, Callable[[], Any]] = {
        "PGD": lambda: PGD(0.1, steps=3, random_start=False)(net, x, y),
        "saliency_maps": lambda: asgt.saliency_maps({"net": net}, x, y, eps=0.1).columns[0].maps,
        "evaluate": lambda: asgt.evaluate(net, (x, y), protocol="pgd", epsilons=[0.02, 0.1, 0.3]).outcomes["pgd-40x5"],
        "explain": lambda: asgt.explain(net, (x, y), eps=0.1).values["norm"],
    }
    return found | {type(method).__name__: lambda method=method: method(net, x, y).loss for method in METHODS}


def both(answers: tuple[Any, Any], tolerance: float, name: str) -> None:
    ours, theirs = (torch.as_tensor(answer).detach() for answer in answers)
    if ours.dtype == torch.bool:
        assert float((ours != theirs).float().mean()) <= tolerance
    else:  # a step of a sign, or a rectifier, may turn where a value rounds to zero
        apart = (ours.double() - theirs.double()).abs() > tolerance * (0.1 + theirs.double().abs())
        assert float(apart.double().mean()) <= tolerance, name


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKS)
def test_what_works_with_pytorch_gives_the_same_numbers(name: str, batch: tuple[Tensor, Tensor]) -> None:
    make, reference, tolerance = WORKS[name]
    net, other = make(), reference()
    x, y = batch
    kept, state = x.clone(), copy.deepcopy(dict(other.named_parameters()))
    for way, call in ways(net, x, y).items():
        if name == "log-softmax" and way in ("saliency_maps", "explain", "SGT", "SGA", "ASGT"):
            continue  # the slope of its outputs is another one, and meant
        torch.manual_seed(5)
        ours = call()
        torch.manual_seed(5)
        theirs = ways(other, x.clone(), y)[way]()
        both((ours, theirs), tolerance, way)
        assert x.equal(kept), f"{way} changed the caller's images"
    assert all(weight.equal(state[key]) for key, weight in other.named_parameters())


@pytest.mark.parametrize("name", WORKS)
def test_it_can_be_placed_on_a_device_and_still_works(name: str, batch: tuple[Tensor, Tensor]) -> None:
    make, _, _ = WORKS[name]
    x, y = batch
    with evaluating(net := make()):
        before = ask(net, x)
        placed = place(net, torch.device("cpu"), x)
        torch.testing.assert_close(ask(placed, x), before, equal_nan=True)
    PGD(0.1, steps=2)(placed, x, y)


@pytest.mark.parametrize("name", REFUSED)
def test_what_gives_no_logits_is_refused_in_one_line_everywhere(name: str, batch: tuple[Tensor, Tensor]) -> None:
    make, says = REFUSED[name]
    for call in ways(make(), *batch).values():
        with pytest.raises(InputError) as error:
            call()
        assert_states(error.value, *says)


def test_a_tuple_in_training_mode_alone_stops_the_loss_and_nothing_else(batch: tuple[Tensor, Tensor]) -> None:
    net = kind(forward=in_training_a_tuple)().train()
    PGD(0.1, steps=2)(net, *batch)
    for method in METHODS:
        with pytest.raises(InputError) as error:
            method(net, *batch)
        assert_states(error.value, "tuple", "2")


def test_a_quantised_net_is_evaluated_and_its_missing_gradients_fail_a_check() -> None:
    x = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    y = ask(plain(), x).argmax(dim=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.ao.quantization.quantize_dynamic(plain(), {nn.Linear})
        found = asgt.evaluate(net, (x, y), protocol="pgd", epsilons=[0.1])
    assert found.model
    (check,) = (check for check in found.checks if check.name == "gradients at the start")
    assert check.verdict == "FAIL", check


def test_evidence_tells_quantised_weights_and_extra_state_apart() -> None:
    def quantised(scale: float) -> nn.Module:
        net = plain()
        with torch.no_grad():
            net.head.weight.mul_(scale)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ao.quantization.quantize_dynamic(net, {nn.Linear})  # type: ignore[no-any-return]

    assert digest_model(quantised(1.0)) == digest_model(quantised(1.0)) != digest_model(quantised(1.5))
    one, two = (extra_state({"version": version})() for version in (1, 2))
    assert digest_model(one) == digest_model(extra_state({"version": 1})()) != digest_model(two)
    assert digest_model(plain()) == digest_tensors(plain().state_dict())
    with pytest.raises(InputError) as error:
        digest_model(extra_state(one for one in "ab")())
    assert_states(error.value, "_extra_state", "generator")


def test_a_black_box_that_works_on_the_images_memory_leaves_them_alone(batch: tuple[Tensor, Tensor]) -> None:
    weights = np.random.default_rng(0).normal(size=(64, CLASSES)).astype(np.float32)

    def box(x: Tensor) -> Tensor:
        pixels = x.detach().numpy()
        pixels -= 0.5  # in place, on the tensor's own memory
        return torch.from_numpy(pixels.reshape(len(pixels), -1) @ weights)

    x, y = batch
    kept = x.clone()
    found = asgt.evaluate(box, (x, y), protocol=asgt.Square(0.0, steps=50), epsilons=[0.05, 0.5])
    assert x.equal(kept)
    clean = ((x - 0.5).flatten(1) @ torch.from_numpy(weights)).argmax(1) == y
    assert found.clean.equal(clean)
    assert found.outcomes["worst-case"][1].sum() < clean.sum()


# Hooks ---------------------------------------------------------------------------------------------------------------


def gradients(net: nn.Module, method: asgt.Objective, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    torch.manual_seed(6)
    method(net, *batch).loss.backward()
    return {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}


def sequential() -> nn.Sequential:
    net = plain()
    return nn.Sequential(net.conv, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), net.head)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_hook_on_a_weight_runs_once(method: asgt.Objective, batch: tuple[Tensor, Tensor]) -> None:
    reference = gradients(sequential(), method, batch)
    hooked = sequential()
    for weight in hooked.parameters():
        weight.register_hook(lambda gradient: gradient * 0.1)
    for name, gradient in gradients(hooked, method, batch).items():
        torch.testing.assert_close(gradient, 0.1 * reference[name])


def watch_forward(net: nn.Module, seen: list[int]) -> None:
    net[0].register_forward_hook(lambda *_: seen.append(1))


def watch_backward(net: nn.Module, seen: list[int]) -> None:
    net[2].register_full_backward_hook(lambda *_: seen.append(1) or None)  # type: ignore[func-returns-value]


def watch_accumulated(net: nn.Module, seen: list[int]) -> None:
    net[0].weight.register_post_accumulate_grad_hook(lambda _: seen.append(1))


def watch_patched(net: nn.Module, seen: list[int]) -> None:
    usual = net[0].forward
    net[0].forward = lambda x: seen.append(1) or usual(x)  # type: ignore[func-returns-value]


@pytest.mark.parametrize("watch", [watch_forward, watch_backward, watch_accumulated, watch_patched])
@pytest.mark.parametrize("training", [True, False])
def test_a_net_that_is_watched_makes_all_of_its_passes(
    watch: Callable[[nn.Module, list[int]], None], training: bool, batch: tuple[Tensor, Tensor]
) -> None:
    net, seen = sequential().train(training), list[int]()
    assert modes_agree(net)
    watch(net, seen)
    assert not modes_agree(net)
    ST()(net, *batch).loss.backward()
    assert len(seen) == 1


def test_a_module_that_may_differ_from_call_to_call_is_not_shared() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    class Known(nn.Module):
        same_in_both_modes = True

    class Other(Known):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    for module, agrees in ((Noise(), False), (Known(), True), (Other(), False), (nn.Dropout(0.5), True)):
        assert modes_agree(nn.Sequential(nn.Flatten(), module).eval()) is agrees
    assert not modes_agree(nn.Sequential(nn.Dropout(0.5)))
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3))
    assert not modes_agree(nn.Sequential(normed))
    with_hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert not modes_agree(sequential())
    finally:
        with_hook.remove()


# Modes ---------------------------------------------------------------------------------------------------------------


class Noisy(nn.Module):
    """Monte Carlo dropout: eval() leaves the dropout on, and means it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.net = nn.Dropout(0.5), plain()

    def eval(self) -> Noisy:
        super().eval()
        self.drop.train()
        return self

    def forward(self, x: Tensor) -> Any:
        return self.net(self.drop(x))


class Merges(nn.Module):
    """A model that computes otherwise once eval() was called, as re-parametrised nets do, whatever the flags say."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.merged = plain(), False

    def train(self, mode: bool = True) -> Merges:
        self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Any:
        return self.net(x) if self.merged else self.net(x).flip(1)


class StaysInTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.net = nn.BatchNorm2d(1), plain()

    def eval(self) -> StaysInTraining:
        return self

    def forward(self, x: Tensor) -> Any:
        return self.net(self.norm(x))


def test_an_eval_of_ones_own_is_called_and_train_for_the_way_back(batch: tuple[Tensor, Tensor]) -> None:
    x, _ = batch
    merges = Merges().train()
    with evaluating(merges):
        assert ask(merges, x).equal(merges.net(x))
    assert not merges.merged
    assert merges.training

    noisy = Noisy().train()
    with evaluating(noisy):
        assert noisy.drop.training
        assert not noisy.net.training
    assert noisy.net.training

    keeps = KeepsStatistics().train()
    with evaluating(keeps):
        assert not any(module.training for module in keeps.modules())
    assert keeps.training
    assert not keeps.net[0].training


def test_batch_norm_that_eval_leaves_in_training_is_refused(batch: tuple[Tensor, Tensor]) -> None:
    net = StaysInTraining()
    before = net.norm.running_mean.clone()
    for way, call in ways(net, *batch).items():
        if way == "ST":  # which asks nothing in evaluation mode
            continue
        with pytest.raises(InputError) as error:
            call()
        assert_states(error.value, "norm", "evaluation mode")
        assert net.norm.running_mean.equal(before), way
    assert net.training


def test_a_label_that_the_model_has_no_logit_for_is_named(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    for call in ways(plain(), x, y + 1).values():
        with pytest.raises(InputError, match="3"):
            call()


def test_fewer_than_four_classes_beside_masked_ones_are_attacked_like_so_many(batch: tuple[Tensor, Tensor]) -> None:
    """The ratio of the DLR loss is constant where a masked class is among the largest four: no slope to follow."""

    x, y = batch
    attack = asgt.APGD(0.2, loss="dlr-targeted", steps=20)
    net, with_mask = plain(), kind(forward=masked)()
    noise = [torch.Generator().manual_seed(0) for _ in range(2)]
    assert attack(with_mask, x, y, generator=noise[0]).equal(attack(net, x, y, generator=noise[1]))
    assert not attack(net, x, y).equal(x)


def test_the_page_lists_the_kinds_that_are_tested() -> None:
    page = (ROOT / "docs" / "model-kinds.md").read_text()
    works, refused = page.split("## Kinds that are refused")
    for part, kinds in ((works, WORKS), (refused, REFUSED)):
        rows = re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)
        assert [row for row in rows if row != "kind"] == list(kinds)


# Members of these kinds that are easy to miss -----------------------------------------------------------------------


class Hidden(Net):
    """Works in place where autograd does not see it."""

    def forward(self, x: Tensor) -> Any:
        x.data.sub_(0.25).div_(0.5)
        return super().forward(x)


def test_a_failed_try_leaves_nothing_for_the_next(batch: tuple[Tensor, Tensor]) -> None:
    """The first call on a net in float64 fails on the images' precision, behind what it did to them."""

    attack = PGD(0.1, steps=2, random_start=False)
    net = Hidden().double()
    first, second = attack(net, *batch), attack(net, *batch)
    assert first.equal(second)
    x, y = batch
    assert attack(Hidden(), x, y).dtype == x.dtype
    assert attack(net, x.double(), y).dtype == torch.float64  # in another precision it is asked otherwise


def test_captums_own_tensors_are_not_changed() -> None:
    x, y = torch.rand(2, 1, 8, 8), torch.tensor([0, 1])
    net = Hidden().eval()
    gradient, product = (attribute(net, x, y, name) for name in ("gradient", "input-x-gradient"))
    torch.testing.assert_close(product, x * gradient)


def test_hooks_that_rely_on_the_order_in_memory_are_tried_first() -> None:
    def flat(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output.view(output.size(0), -1).relu().view(output.shape)

    x = torch.rand(2, 1, 8, 8)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    net[1].register_forward_hook(flat)
    ask(place(net, torch.device("cpu"), x), x)

    shared = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    shared[1].weight.data = shared[0].weight.data
    place(shared, torch.device("cpu"))
    assert shared[0].weight.data_ptr() == shared[1].weight.data_ptr()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_and_exported_modules_are_attacked(batch: tuple[Tensor, Tensor]) -> None:
    net = plain().eval()
    expected = PGD(0.1, steps=2, random_start=False)(net, *batch)
    for other in (torch.jit.freeze(torch.jit.script(sequential().eval())), torch.jit.script(sequential())):
        torch.testing.assert_close(PGD(0.1, steps=2, random_start=False)(other, *batch), expected)
