"""Models: their sizes from the papers' own figures, their shapes, normalisation inside, weights from files."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import asgt
from asgt.devices import place
from asgt.errors import InputError
from asgt.models import Normalize, alexnet, build_model, load_weights
from asgt.models.layers import BatchNorm2d, Conv2d, _Convolution
from support.messages import assert_states


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def convolution(before: int, after: int, side: int, *, bias: bool = True) -> int:
    """Parameters of a convolution, by hand."""

    return before * after * side**2 + bias * after


def linear(before: int, after: int) -> int:
    """Parameters of a linear layer, by hand."""

    return (before + 1) * after


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_resnet18_has_the_published_number_of_parameters() -> None:
    # The figure of the CIFAR-10 ResNet-18 with the 3×3 stem, as quoted for the public training code of it.
    assert parameters(build_model("resnet18", (3, 32, 32), 10)) == 11_173_962


def test_resnet18_has_two_blocks_a_stage_of_two_convolutions_each() -> None:
    model = build_model("resnet18", (3, 32, 32), 10, width=0.25)

    widths = (16, 32, 64, 128)
    expected = convolution(3, 16, 3, bias=False) + 2 * 16
    before = 16
    for after in widths:
        expected += (
            convolution(before, after, 3, bias=False) + 3 * convolution(after, after, 3, bias=False) + 4 * 2 * after
        )
        if after != before:
            expected += convolution(before, after, 1, bias=False) + 2 * after
        before = after
    expected += linear(128, 10)
    assert parameters(model) == expected


def test_alexnet_is_the_published_one_tower_net() -> None:
    with torch.device("meta"):
        net = alexnet(3, 224, 1000)

    by_layer = [
        convolution(3, 64, 11),
        convolution(64, 192, 5),
        convolution(192, 384, 3),
        convolution(384, 256, 3),
        convolution(256, 256, 3),
        linear(256 * 6 * 6, 4096),
        linear(4096, 4096),
        linear(4096, 1000),
    ]
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert [parameters(layer) for layer in layers] == by_layer
    # The published number of the one-tower AlexNet.
    assert parameters(net) == sum(by_layer) == 61_100_840


def test_alexnet_keeps_five_convolutions_and_three_linear_layers_on_small_images() -> None:
    model = build_model("alexnet", (1, 28, 28), 10, width=0.125)

    # 28 px: 14 after the first convolution, then 7, 3 and 1 after the pools.
    expected = [convolution(1, 8, 3), convolution(8, 24, 3), convolution(24, 48, 3), convolution(48, 32, 3)]
    expected += [convolution(32, 32, 3), linear(32, 512), linear(512, 512), linear(512, 10)]
    assert [parameters(m) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)] == expected


def test_small_cnn_has_two_convolutions_and_two_linear_layers() -> None:
    model = build_model("small_cnn", (3, 28, 28), 7)

    assert parameters(model) == convolution(3, 32, 3) + convolution(32, 64, 3) + linear(64 * 7 * 7, 128) + linear(
        128, 7
    )


@pytest.mark.parametrize("name", ["small_cnn", "alexnet", "resnet18"])
def test_half_the_width_halves_every_hidden_layer(name: str) -> None:
    def outputs(width: float) -> list[int]:
        model = build_model(name, (3, 32, 32), 10, width=width)
        return [len(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]

    whole, half = outputs(0.5), outputs(0.25)

    assert half[:-1] == [n // 2 for n in whole[:-1]]
    assert half[-1] == whole[-1] == 10


def test_dropout_is_told_to_alexnet() -> None:
    def rates(**options: float) -> list[float]:
        model = build_model("alexnet", (3, 32, 32), 10, width=0.05, **options)
        return [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]

    assert rates() == [0.5, 0.5]
    assert rates(dropout=0.1) == [0.1, 0.1]


def test_alexnet_starts_with_he_initialisation() -> None:
    torch.manual_seed(0)
    model = build_model("alexnet", (3, 64, 64), 10, width=0.25)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            expected = math.sqrt(2 / layer.weight[0].numel())
            count = layer.weight.numel()
            # The standard error of a deviation from n normal values is σ / √(2n); five of them.
            assert abs(layer.weight.std().item() / expected - 1) < 5 / math.sqrt(2 * count)
            assert not layer.bias.any()


# Shapes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [28, 32, 64, 224])
@pytest.mark.parametrize("name", ["small_cnn", "alexnet", "resnet18"])
def test_a_model_gives_a_logit_a_class(name: str, size: int, channels: int) -> None:
    model = build_model(name, (channels, size, size), 7, width=0.03).eval()

    logits = model(torch.rand(2, channels, size, size))

    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "smallest"), [("small_cnn", 4), ("alexnet", 16), ("resnet18", 8)])
def test_the_smallest_images_fit_and_smaller_ones_are_refused(name: str, smallest: int) -> None:
    model = build_model(name, (1, smallest, smallest), 3, width=0.1).eval()
    assert model(torch.rand(2, 1, smallest, smallest)).shape == (2, 3)

    with pytest.raises(InputError) as caught:
        build_model(name, (1, smallest - 1, smallest - 1), 3, width=0.1)
    assert_states(caught.value, name, smallest, smallest - 1)


@pytest.mark.parametrize(("name", "sides"), [("small_cnn", (24, 32)), ("alexnet", (16, 40)), ("alexnet", (64, 96))])
def test_images_need_not_be_square(name: str, sides: tuple[int, int]) -> None:
    for height, width in (sides, sides[::-1]):
        model = build_model(name, (1, height, width), 3, width=0.1)
        asgt.ST()(model, torch.rand(2, 1, height, width), torch.tensor([0, 2])).loss.backward()


@pytest.mark.parametrize(("sides", "kernel"), [((32, 32), 3), ((63, 200), 3), ((64, 64), 7), ((64, 80), 7)])
def test_resnet18_has_the_original_stem_from_64_pixels_up(sides: tuple[int, int], kernel: int) -> None:
    net = build_model("resnet18", (3, *sides), 4, width=0.125).net
    assert net[0].kernel_size == (kernel, kernel)
    assert any(isinstance(layer, torch.nn.MaxPool2d) for layer in net) == (kernel == 7)
    maps = net[:-3](torch.rand(2, 3, *sides))
    # The original divides each side by 32, that for small images by 8.
    assert maps.shape[2:] == tuple(-(-side // (32 if kernel == 7 else 8)) for side in sides)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small_cnn", {"width": 0.0}),
        ("small_cnn", {"width": -1.0}),
        ("small_cnn", {"width": math.nan}),
        ("small_cnn", {"width": 1000.0}),
        ("alexnet", {"dropout": 1.0}),
        ("alexnet", {"dropout": -0.1}),
        ("alexnet", {"dropout": math.nan}),
        ("small_cnn", {"dropout": 0.5}),
        ("resnet18", {"depth": 3}),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        build_model(name, (1, 28, 28), 3, **options)


# Layers of a CPU's kernels --------------------------------------------------------------------------------------------


def usual(model: nn.Module) -> nn.Module:
    """The same net of PyTorch's own layers."""

    known: dict[type[nn.Module], type[nn.Module]] = {Conv2d: nn.Conv2d, BatchNorm2d: nn.BatchNorm2d}
    for module in model.modules():
        module.__class__ = known.get(type(module), type(module))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "width"), [("alexnet", 0.75), ("resnet18", 0.375)])
def test_our_layers_compute_what_those_of_pytorch_do(name: str, width: float, training: bool) -> None:
    torch.manual_seed(0)
    ours = build_model(name, (3, 32, 32), 5, width=width).double()
    theirs = usual(build_model(name, (3, 32, 32), 5, width=width).double())
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):  # not 0 and 1, or nothing would be seen of them
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    theirs.load_state_dict(ours.state_dict())
    place(ours, torch.device("cpu"))

    x = torch.rand(32, 3, 32, 32, dtype=torch.float64)
    found = []
    for model in (ours.train(training), theirs.train(training)):
        torch.manual_seed(1)  # of the dropout
        leaf = x.clone().requires_grad_()
        with Products() as counted:
            logits = model(leaf)
            logits[:, 0].sum().backward()
        assert (counted.count > 0) == (model is ours)
        buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
        found.append([logits, leaf.grad, *(weight.grad for weight in model.parameters()), *buffers])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)
    assert found[0][1].abs().max() > 0


@pytest.mark.parametrize(
    ("shape", "options", "expected"),
    [
        ((32, 192, 4, 4), {}, 3 * 10),
        ((32, 192, 8, 8), {"stride": 2}, 3 * 11),
        ((32, 192, 3, 3), {"dtype": torch.float64}, 3 * 7),
        ((32, 192, 5, 5), {}, 0),
        ((32, 191, 4, 4), {}, 0),
        ((31, 192, 4, 4), {}, 0),
        ((32, 192, 4, 3), {}, 0),
        ((32, 192, 4, 4), {"padding": 0}, 0),
        ((32, 192, 4, 4), {"padding": "same"}, 0),
        ((32, 192, 4, 4), {"padding": (1, 0)}, 0),
        ((32, 192, 4, 4), {"stride": (1, 2)}, 0),
        ((32, 192, 4, 4), {"dilation": 2}, 0),
        ((32, 192, 4, 4), {"groups": 2}, 0),
        ((32, 192, 4, 4), {"padding_mode": "circular"}, 0),
        ((32, 192, 4, 4), {"dtype": torch.bfloat16}, 0),
    ],
)
def test_products_are_where_maps_are_small_and_many_and_nowhere_else(
    shape: tuple[int, ...], options: dict[str, Any], expected: int
) -> None:
    torch.manual_seed(0)
    ours = Conv2d(shape[1], 192, 3, **({"padding": 1} | options))
    theirs = nn.Conv2d(shape[1], 192, 3, **({"padding": 1} | options))
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(*shape, dtype=options.get("dtype"))
    with Products() as counted:
        maps = ours(x)
    torch.testing.assert_close(maps, theirs(x), rtol=1e-4, atol=1e-4)
    assert counted.count == expected


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0), (2, 0), (1, 2), (3, 1)])
@pytest.mark.parametrize(("side", "kernel"), [(4, 3), (3, 3), (3, 1), (1, 1)])
def test_the_products_are_a_convolution_and_its_derivatives(side: int, kernel: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 2, side, side, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 2, kernel, kernel, dtype=torch.float64, requires_grad=True)

    def products(x: Tensor, weight: Tensor) -> Tensor:
        maps: Tensor = _Convolution.apply(x, weight, stride, padding)
        return maps

    torch.testing.assert_close(products(x, weight), F.conv2d(x, weight, stride=stride, padding=padding))
    assert torch.autograd.gradcheck(products, (x, weight))
    assert torch.autograd.gradgradcheck(products, (x, weight), fast_mode=True)


class Products(TorchDispatchMode):
    """Counts matrix products that are added in place."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten.addmm_.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def products() -> Conv2d:
    """A convolution that is taken as products: on 3×3 pixels its kernel meets 7 rows of 9 at each of 3 columns."""

    torch.manual_seed(0)
    convolution = Conv2d(192, 192, 3, padding=1)
    place(convolution, torch.device("cpu"))
    return convolution


def test_the_weights_gradient_costs_nothing_where_nobody_asks_for_it(products: Conv2d) -> None:
    x = torch.rand(32, 192, 3, 3, requires_grad=True)

    def cost(ask: Callable[[Tensor], object]) -> int:
        score = products(x).square().sum()
        with Products() as counted:
            ask(score)
        return counted.count

    assert cost(lambda score: torch.autograd.grad(score, x)) == 21
    assert cost(lambda score: torch.autograd.grad(score, products.weight)) == 21
    assert cost(lambda score: torch.autograd.grad(score, [x, products.weight])) == 42
    assert cost(lambda score: score.backward()) == 42
    assert cost(lambda score: score.backward(inputs=[products.weight])) == 21
    x.requires_grad_(False)
    assert cost(lambda score: score.backward()) == 21


def test_the_weights_gradient_comes_where_autograd_cannot_say_who_asks(products: Conv2d) -> None:
    x = torch.rand(32, 192, 3, 3, requires_grad=True)
    outer = torch.ones(1, requires_grad=True)
    score = (2 * outer).sum()
    found: list[Any] = []
    maps = products(x) - products.bias[:, None, None].detach()  # type: ignore[index]
    node = maps.grad_fn.next_functions[0][0].next_functions[0][0]  # type: ignore[union-attr]
    assert "_Convolution" in node.name()
    outer.register_hook(lambda _: found.extend(node.apply(torch.ones_like(maps))))
    score.backward()
    assert found[0].shape == x.shape
    assert found[1].shape == products.weight.shape


@pytest.mark.slow
def test_products_make_way_for_other_transforms_than_autograd(products: Conv2d) -> None:
    assert products.bias is not None
    x = torch.rand(32, 192, 3, 3)
    usual = F.conv2d(x, products.weight, products.bias, padding=1)

    def taken(call: Callable[[], Tensor]) -> Tensor:
        with Products() as counted:
            maps = call()
        assert counted.count == 0
        return maps

    torch.testing.assert_close(taken(lambda: torch.func.vmap(products)(x[None])[0]), usual)
    moved = taken(lambda: torch.func.jvp(products, (x,), (x,))[1])
    torch.testing.assert_close(moved, usual - products.bias[:, None, None], rtol=1e-4, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(products(dual)).tangent, moved)
    with torch.autocast("cpu", torch.bfloat16):
        assert taken(lambda: products(x)).dtype == torch.bfloat16
    torch.testing.assert_close(torch.export.export(products, (x,)).module()(x), usual)


@pytest.mark.parametrize("stride", [1, 2])
def test_many_gradients_at_once_go_through_products(stride: int) -> None:
    torch.manual_seed(0)
    ours, x = Conv2d(192, 192, 3, padding=1, stride=stride), torch.rand(32, 192, 4, 4, requires_grad=True)
    inputs = [x, ours.weight]
    maps = ours(x)
    ways = torch.rand(2, *maps.shape)
    at_once = torch.autograd.grad(maps, inputs, ways, is_grads_batched=True, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):  # which a backward pass may find itself in
        by_one = [torch.autograd.grad(maps, inputs, way, retain_graph=True) for way in ways]
    mapped = torch.func.vmap(lambda way: torch.autograd.grad(maps, inputs, way, retain_graph=True))(ways)
    for together, too, apart in zip(at_once, mapped, zip(*by_one, strict=True), strict=True):
        torch.testing.assert_close(together, torch.stack(apart), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(too, together, rtol=1e-4, atol=1e-4)


def test_the_weights_of_products_are_asked_for_once(products: Conv2d) -> None:
    asked = []

    class Twice(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            asked.append(weight)
            return 2 * weight

    x = torch.rand(32, 192, 3, 3)
    usual = F.conv2d(x, 2 * products.weight, products.bias, padding=1)
    torch.nn.utils.parametrize.register_parametrization(products, "weight", Twice())
    asked.clear()
    torch.testing.assert_close(products(x), usual, rtol=1e-4, atol=1e-4)
    assert len(asked) == 1


@pytest.mark.parametrize("stride", [2, (1, 3)])
def test_a_kernel_of_one_pixel_with_a_stride_is_that_of_pytorch(stride: Any) -> None:
    torch.manual_seed(0)
    ours, x = Conv2d(3, 6, 1, stride=stride), torch.rand(4, 3, 8, 7, requires_grad=True)
    maps = F.conv2d(x, ours.weight, ours.bias, stride=stride)
    way = torch.rand_like(maps)
    torch.testing.assert_close(ours(x), maps)
    inputs = [x, ours.weight, ours.bias]
    expected = torch.autograd.grad(maps, inputs, way)
    place(ours, torch.device("cpu"))
    for _ in range(50):  # one write past memory may go unnoticed
        torch.testing.assert_close(torch.autograd.grad(ours(x), inputs, way), expected, rtol=1e-4, atol=1e-4)


def test_maps_of_one_pixel_may_be_changed_in_place() -> None:
    ours = Conv2d(192, 192, 3, padding=1, bias=False)
    F.relu(ours(torch.rand(32, 192, 1, 1, requires_grad=True)), inplace=True).sum().backward()
    assert ours.weight.grad is not None


@pytest.mark.parametrize("shape", [(2, 1, 3, 3), (5, 3, 3), (4, 5)])
def test_our_batchnorm_refuses_what_that_of_pytorch_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, RuntimeError)):
        BatchNorm2d(5).eval()(torch.rand(shape))


@pytest.mark.parametrize("option", ["affine", "track_running_stats"])
def test_our_batchnorm_has_the_options_of_that_of_pytorch(option: str) -> None:
    x, options = torch.rand(8, 5, 3, 3), {option: False}
    torch.testing.assert_close(BatchNorm2d(5, **options).eval()(x), nn.BatchNorm2d(5, **options).eval()(x))


def test_half_precision_finds_its_way_through_our_batchnorm() -> None:
    model = build_model("resnet18", (3, 16, 16), 5, width=0.125).eval()
    x = torch.rand(2, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    torch.testing.assert_close(logits.float(), model(x), rtol=0.1, atol=0.05)


# Normalisation -------------------------------------------------------------------------------------------------------


def test_normalisation_lies_inside_and_equals_the_one_by_hand() -> None:
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    torch.manual_seed(0)
    model = build_model("small_cnn", (3, 8, 8), 4, mean=mean, std=std).eval()
    x = torch.rand(5, 3, 8, 8)

    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)

    torch.testing.assert_close(model(x), model.net(by_hand))
    assert not torch.allclose(model(x), model.net(x))


def test_normalisation_travels_with_the_weights_and_is_not_trained() -> None:
    model = build_model("small_cnn", (1, 8, 8), 4, mean=[0.25], std=[0.5])

    assert model.state_dict()["normalize.mean"].flatten().tolist() == [0.25]
    assert model.state_dict()["normalize.std"].flatten().tolist() == [0.5]
    assert not any("normalize" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("mean", "std"), [([0.5], [0.0]), ([0.5], [-1.0]), ([0.5], [math.nan]), ([0.5, 0.5], [1.0]), ([0.5] * 2, [1.0] * 2)]
)
def test_a_normalisation_that_does_not_fit_is_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(InputError):
        build_model("small_cnn", (3, 8, 8), 4, mean=mean, std=std)


def test_the_gradient_passes_to_the_pixels_scaled_by_the_deviation() -> None:
    layer = Normalize([0.5], [0.25])
    x = torch.rand(2, 1, 3, 3, requires_grad=True)

    layer(x).sum().backward()

    assert torch.equal(x.grad, torch.full_like(x, 4.0))


# Weights from files --------------------------------------------------------------------------------------------------


@pytest.fixture
def trained() -> nn.Module:
    """A model with weights of its own, and its normalisation."""

    torch.manual_seed(1)
    return build_model("small_cnn", (1, 8, 8), 3, mean=[0.25], std=[0.5], width=0.1).eval()


def fresh() -> nn.Module:
    """Another one of the same kind."""

    torch.manual_seed(2)
    return build_model("small_cnn", (1, 8, 8), 3, mean=[0.25], std=[0.5], width=0.1).eval()


def parallel(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As a model wrapped for several devices saves them."""

    return {f"module.{name}": tensor for name, tensor in weights.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda model: model.state_dict(), id="whole"),
        pytest.param(lambda model: model.net.state_dict(), id="net only"),
        pytest.param(lambda model: parallel(model.state_dict()), id="module. prefix"),
        pytest.param(lambda model: parallel(model.net.state_dict()), id="net only, module. prefix"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_are_taken_up_whatever_their_wrapping(
    trained: nn.Module, tmp_path: Path, wrap: Callable[[nn.Module], dict[str, Tensor]], suffix: str
) -> None:
    path = tmp_path / f"weights{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)(wrap(trained), path)
    model, x = fresh(), torch.rand(4, 1, 8, 8)
    assert not torch.equal(model(x), trained(x))

    load_weights(model, path)

    assert torch.equal(model(x), trained(x))


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_weights_are_found_inside_a_training_checkpoint(trained: nn.Module, tmp_path: Path, key: str) -> None:
    torch.save({"epoch": 3, key: trained.state_dict(), "lr": 0.1}, tmp_path / "weights.pt")
    model, x = fresh(), torch.rand(4, 1, 8, 8)

    load_weights(model, tmp_path / "weights.pt")

    assert torch.equal(model(x), trained(x))


def test_weights_that_do_not_fit_leave_no_half_loaded_model_unsaid(trained: nn.Module, tmp_path: Path) -> None:
    weights = trained.state_dict()
    save_file({name: tensor for name, tensor in weights.items() if name != "net.9.bias"}, tmp_path / "part.safetensors")
    save_file(weights | {"extra": torch.zeros(1)}, tmp_path / "more.safetensors")
    save_file(weights | {"net.9.bias": torch.zeros(4)}, tmp_path / "wider.safetensors")

    for name, reason in (("part", "9.bias"), ("more", "extra"), ("wider", "9.bias")):
        with pytest.raises(InputError) as caught:
            load_weights(fresh(), tmp_path / f"{name}.safetensors")
        assert_states(caught.value, tmp_path / f"{name}.safetensors", "another model", reason)


@pytest.mark.slow
def test_the_weights_of_a_run_are_evaluated_like_the_run(cli: Callable, finished_run: Path, tmp_path: Path) -> None:
    asked = ("--samples", 40, "--epsilons", 0.05)
    whole = cli("evaluate", finished_run, *asked)
    assert whole.status == 0, whole.err
    weights = shutil.copy(finished_run / "model.safetensors", tmp_path / "theirs.safetensors")

    # Without --mean and --std: the normalisation is in the weights.
    alone = cli("evaluate", "--model", "small_cnn", "--weights", weights, "--data", "digits", "--out", "alone", *asked)

    assert alone.status == 0, alone.err
    evidence = [
        next((folder).rglob("pgd*.safetensors")) for folder in (finished_run / "evaluation", tmp_path / "alone")
    ]
    one, other = (load_file(path) for path in evidence)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_mean_that_contradicts_the_weights_is_not_silently_dropped(cli: Callable, finished_run: Path) -> None:
    words = ("--model", "small_cnn", "--data", "digits", "--samples", 5, "--epsilons", 0.1, "--out", "evidence")

    line = cli(
        "evaluate", "--weights", finished_run / "model.safetensors", *words, "--mean", "0.9", "--std", "0.01"
    ).refusal()

    assert "--mean" in line
