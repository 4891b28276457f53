"""Maps by name, against closed forms, Captum itself, and what a user's model must not notice."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asgt.errors import InputError
from asgt.inputs import trusted
from asgt.models import build_model
from asgt.randomness import SampleKeyed
from asgt.saliency import ATTRIBUTIONS, attribute, attribution_settings, magnitude, saliency, to_numpy
from support.explained import Linear, delicate_net, images, rand
from support.messages import assert_states
from support.nets import BombError, untouched

METHODS = list(ATTRIBUTIONS)
ANYWHERE = ["gradient", "input-x-gradient", "ig", "smoothgrad"]
"""Those that need no module."""


def net(name: str, shape: tuple[int, int, int], **options: float) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_model(name, shape, 5, mean=[0.4], std=[0.3], **options)


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return rand(*shape, seed=seed).float()


# ---------------------------------------------------------------------------------------------------------------------
# Closed forms
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*ANYWHERE, "deeplift"])
def test_on_a_linear_model_every_map_is_the_weight_or_its_share(method: str) -> None:
    weight = rand(4, 2, 3, 3) - 0.5
    x, y = images(5, 2, 3, 3), torch.tensor([3, 0, 1, 1, 2])

    a = attribute(Linear(weight, rand(4)), x, y, method)

    gradient = torch.stack([weight[label] for label in y.tolist()])
    expected = gradient if method in ("gradient", "smoothgrad") else x * gradient
    # Captum's step lengths are float32; all else is float64.
    torch.testing.assert_close(a, expected, rtol=1e-6 if method == "ig" else 1e-12, atol=0)
    assert not a.requires_grad


def test_integrated_gradients_are_complete_and_know_their_baseline() -> None:
    weight, bias = rand(4, 2, 3, 3) - 0.5, rand(4)
    x, y, model = images(3, 2, 3, 3), torch.tensor([2, 0, 3]), Linear(weight, bias)

    a = attribute(model, x, y, "ig", baseline=0.25)

    for i, label in enumerate(y.tolist()):
        torch.testing.assert_close(a[i], (x[i] - 0.25) * weight[label], rtol=1e-6, atol=0)
        change = float((weight[label] * (x[i] - 0.25)).sum())
        assert float(a[i].sum()) == pytest.approx(change, rel=1e-6)


def test_integrated_gradients_of_a_square_are_half_the_gradient_times_the_input() -> None:
    """f = w x²: the integral of 2 w t x over t is w x, so a = w x²; two points are exact for it."""

    weight, x = rand(3, 1, 2, 2), images(2, 1, 2, 2)

    a = attribute(lambda x: x.square().flatten(1) @ weight.flatten(1).T, x, torch.tensor([1, 2]), "ig", steps=2)

    torch.testing.assert_close(a, weight[1:] * x.square(), rtol=1e-6, atol=0)


def powers(weight: Tensor, power: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x.pow(power).flatten(1) @ weight.flatten(1).T


def test_smoothgrad_has_the_expectation_that_its_noise_gives_it() -> None:
    """f = w x²: the mean of 2 w (x + δ) is 2 w x. f = w x³: that of 3 w (x + δ)² is 3 w (x² + σ²)."""

    weight, samples, y = 0.5 + rand(2, 1, 20, 20), 200, torch.tensor([1])
    x = 0.2 + 0.4 * rand(1, 1, 20, 20)
    x.view(-1)[:2] = torch.tensor([0.2, 0.6], dtype=x.dtype)
    sigma, noise = 0.15 * 0.4, torch.Generator().manual_seed(0)

    square = attribute(powers(weight, 2), x, y, "smoothgrad", samples=samples, generator=noise)
    shift = square / (2 * weight[1]) - x
    assert float(shift.abs().max()) < 5 * sigma / samples**0.5
    assert float(shift.std()) == pytest.approx(sigma / samples**0.5, rel=0.2)

    cube = attribute(powers(weight, 3), x, y, "smoothgrad", samples=samples, generator=noise)
    excess = cube / (3 * weight[1]) - x.square()
    error = float((4 * x.square() * sigma**2 + 2 * sigma**4).mean() / (samples * x.numel())) ** 0.5
    assert float(excess.mean()) == pytest.approx(sigma**2, abs=5 * error)
    assert 5 * error < sigma**2 / 2


def test_a_constant_image_has_no_range_and_smoothgrad_is_its_gradient() -> None:
    model, x, y = delicate_net(), torch.full((2, 3, 6, 6), 0.5, dtype=torch.float64), torch.tensor([0, 4])

    torch.testing.assert_close(attribute(model, x, y, "smoothgrad"), saliency(model, x, y), rtol=1e-12, atol=1e-15)


def test_gradcam_of_mean_features_is_their_weighted_sum() -> None:
    """A = relu(W x) and f = v · mean(A): every gradient is v / HW, so the map is Σ v_k A_k / HW, on every channel."""

    mix = torch.tensor([[0.9, -0.4], [-0.7, 0.8], [0.3, 0.5]], dtype=torch.float64)[:, :, None, None]
    out = rand(4, 3, seed=2) - 0.5
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(3, 4, bias=False)).double()
    model.load_state_dict({"0.weight": mix, "4.weight": out})
    x, y = images(2, 2, 4, 5), torch.tensor([3, 1])

    a = attribute(model, x, y, "gradcam")

    for i, label in enumerate(y.tolist()):
        features = [(mix[k, 0, 0, 0] * x[i, 0] + mix[k, 1, 0, 0] * x[i, 1]).clamp_min(0) for k in range(3)]
        expected = sum(out[label, k] * features[k] for k in range(3)) / 20
        for channel in range(2):
            torch.testing.assert_close(a[i, channel], expected, rtol=1e-12, atol=1e-15)
    assert (a.amin() < 0) & (a.amax() > 0)


def test_deeplift_shares_out_the_change_of_a_rectifier() -> None:
    """f = v relu(w x + c): each value gets v w_i x_i (relu(z) − relu(c)) / (z − c), where z = w x + c."""

    w, c, v = torch.tensor([[0.9, -0.8, 0.3, -0.2]]), torch.tensor([0.05]), torch.tensor([[2.0], [-3.0]])
    w, c, v = w.double(), c.double(), v.double()
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 2, bias=False)).double()
    model.load_state_dict({"1.weight": w, "1.bias": c, "3.weight": v})
    x, y = images(6, 1, 2, 2), torch.tensor([0, 1] * 3)

    a = attribute(model, x, y, "deeplift")

    for i, label in enumerate(y.tolist()):
        share = w[0] * x[i].flatten()
        z = float(share.sum() + c)
        expected = v[label] * share * (max(z, 0.0) - max(float(c), 0.0)) / (z - float(c))
        torch.testing.assert_close(a[i].flatten(), expected, rtol=1e-9, atol=1e-15)
    assert {float(row.sum() / v[label]) < 0 for row, label in zip(a, y.tolist(), strict=True)} == {True, False}


# ---------------------------------------------------------------------------------------------------------------------
# Captum
# ---------------------------------------------------------------------------------------------------------------------

NETS: list[tuple[str, tuple[int, int, int], dict[str, float], str]] = [
    ("small_cnn", (1, 28, 28), {"width": 0.5}, "net.4"),
    ("alexnet", (3, 32, 32), {"width": 0.1}, "net.11"),
    ("resnet18", (3, 16, 16), {"width": 0.1}, "net.10"),
]
"""A net of each of our models, and what gives its last feature map: a rectifier, or the last block."""


@pytest.mark.parametrize(("name", "shape", "options", "layer"), NETS)
def test_maps_are_those_of_captum(
    name: str, shape: tuple[int, int, int], options: dict[str, float], layer: str
) -> None:
    from captum.attr import InputXGradient, IntegratedGradients, LayerAttribution, LayerGradCam, Saliency

    model, x, y = net(name, shape, **options).eval(), pictures(4, *shape), torch.tensor([4, 0, 2, 2])
    leaf = x.clone().requires_grad_()

    gradient = Saliency(model).attribute(leaf, target=y, abs=False)
    assert torch.equal(attribute(model, x, y), gradient)
    assert torch.equal(saliency(model, x, y), gradient)

    torch.testing.assert_close(
        attribute(model, x, y, "input-x-gradient"), InputXGradient(model).attribute(leaf, target=y).detach()
    )
    torch.testing.assert_close(
        attribute(model, x, y, "ig"), IntegratedGradients(model).attribute(x, target=y), rtol=1e-4, atol=1e-6
    )
    coarse = LayerGradCam(model, model.get_submodule(layer)).attribute(x, target=y).detach()
    expected = LayerAttribution.interpolate(coarse, shape[1:], "bilinear").expand_as(x)
    torch.testing.assert_close(attribute(model, x, y, "gradcam"), expected)
    torch.testing.assert_close(attribute(model, x, y, "gradcam", layer=layer), expected)
    assert attribution_settings("gradcam", model=model)["layer"] == layer


def test_log_prob_is_the_logit_of_a_model_that_ends_in_log_softmax() -> None:
    model, x, y = delicate_net(), images(3, 3, 6, 6), torch.tensor([0, 2, 4])
    longer = nn.Sequential(model, nn.LogSoftmax(dim=1))

    for method in ("gradient", "input-x-gradient", "ig", "smoothgrad", "gradcam"):
        noise = [SampleKeyed(0, torch.arange(3)) for _ in range(2)]
        a = attribute(model, x, y, method, target="log_prob", generator=noise[0])
        layer = "0.4.1" if method == "gradcam" else None
        b = attribute(longer, x, y, method, layer=layer, generator=noise[1])
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-15)
        assert not torch.allclose(a, attribute(model, x, y, method), rtol=0.1)


# ---------------------------------------------------------------------------------------------------------------------
# What must make no difference
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keyed", [True, False])
def test_batches_make_no_difference(method: str, keyed: bool) -> None:
    model, x, y = delicate_net(), images(7, 3, 6, 6), torch.arange(7) % 5

    def maps(batch_size: int) -> Tensor:
        noise = SampleKeyed(5, torch.arange(7)) if keyed else torch.Generator().manual_seed(5)
        return attribute(model, x, y, method, generator=noise, batch_size=batch_size)

    whole = maps(64)
    assert whole.shape == x.shape
    for size in (1, 3):
        torch.testing.assert_close(maps(size), whole, rtol=1e-9, atol=1e-13)


def test_the_noise_of_an_image_is_its_own() -> None:
    model, x, y, ids = delicate_net(), images(6, 3, 6, 6), torch.arange(6) % 5, torch.tensor([9, 4, 7, 0, 2, 5])

    together = attribute(model, x, y, "smoothgrad", generator=SampleKeyed(1, ids))
    alone = attribute(model, x[2:3], y[2:3], "smoothgrad", generator=SampleKeyed(1, ids[2:3]))

    torch.testing.assert_close(alone, together[2:3], rtol=1e-9, atol=1e-13)
    other = attribute(model, x, y, "smoothgrad", generator=SampleKeyed(2, ids))
    assert not torch.allclose(together, other, rtol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_no_more_images_at_a_time_than_asked_for(method: str) -> None:
    model, sizes = delicate_net(), []
    model[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))

    for count in (7, 1):
        attribute(model, images(count, 3, 6, 6), None, method, batch_size=3)

    assert max(sizes) == (6 if method == "deeplift" else 3)


@pytest.mark.parametrize("method", METHODS)
def test_only_smoothgrad_draws_and_never_from_the_global_generator(method: str) -> None:
    model, x, noise = delicate_net(), images(3, 3, 6, 6), torch.Generator().manual_seed(0)
    before, globally = noise.get_state(), torch.get_rng_state()

    attribute(model, x, None, method, generator=noise)

    assert torch.equal(torch.get_rng_state(), globally)
    assert torch.equal(noise.get_state(), before) == (method != "smoothgrad")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
def test_the_model_comes_back_as_it_was_under_any_mode(
    method: str, context: Callable[[], AbstractContextManager[Any]]
) -> None:
    model = delicate_net()
    x, y = images(3, 3, 6, 6), torch.tensor([1, 0, 4])
    expected = attribute(model, x, y, method, generator=SampleKeyed(0, torch.arange(3)))
    held = {module: set(module.__dict__) for module in model.modules()}

    with untouched(model), context():
        a = attribute(model, x.clone(), y.clone(), method, generator=SampleKeyed(0, torch.arange(3)))

    torch.testing.assert_close(a, expected, rtol=1e-12, atol=0)
    assert {module: set(module.__dict__) for module in model.modules()} == held
    assert a.abs().max() > 1e-6
    assert not a.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_the_model_comes_back_as_it_was_when_it_fails(method: str) -> None:
    model = delicate_net(armed=True)

    with untouched(model), pytest.raises(BombError):
        attribute(model, images(2, 3, 6, 6), torch.tensor([0, 1]), method)


@pytest.mark.parametrize("method", METHODS)
def test_without_labels_the_predictions_are_explained(method: str) -> None:
    model, x = delicate_net(), images(8, 3, 6, 6)
    model[-1].weight.data *= 20
    own = [model.eval()(x[i : i + 1]).argmax().item() for i in range(8)]

    def maps(y: Tensor | None) -> Tensor:
        return attribute(model, x, y, method, generator=SampleKeyed(0, torch.arange(8)), batch_size=3)

    torch.testing.assert_close(maps(None), maps(torch.tensor(own)), rtol=1e-12, atol=0)
    assert not torch.allclose(maps(None), maps((torch.tensor(own) + 1) % 5), rtol=0.1)


@pytest.mark.parametrize("method", ANYWHERE)
def test_a_plain_function_will_do(method: str) -> None:
    model, x, y = delicate_net().eval(), images(3, 3, 6, 6), torch.tensor([1, 0, 4])

    a, b = (
        attribute(asked, x, y, method, generator=SampleKeyed(0, torch.arange(3)))
        for asked in (model, lambda x: model(x))
    )

    assert torch.equal(a, b)


@pytest.mark.slow
def test_captum_waits_until_it_is_asked_for() -> None:
    code = (
        "import sys, torch; from asgt.saliency import attribute\n"
        "for method in ('gradient', 'smoothgrad'):\n"
        "    attribute(lambda x: x.flatten(1), torch.rand(2, 1, 2, 2), None, method)\n"
        "print('captum' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert said.stdout.strip() == "False"


# ---------------------------------------------------------------------------------------------------------------------
# Models that answer oddly
# ---------------------------------------------------------------------------------------------------------------------


class DarkOnly(nn.Module):
    """Adds NaN to the logits of bright images, with no gradient of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.where(x.mean(dim=1, keepdim=True) > 10, torch.nan, 0.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_nan_where_the_model_is_and_nowhere_else(method: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 16, 3), DarkOnly()).double()
    x, y = images(4, 1, 6, 6), torch.tensor([0, 1, 2, 0])
    model[3].weight.data.fill_(0.01).mul_(1 + rand(3, 32))
    model[0].weight.data.abs_()
    x[1] *= 1e4

    with trusted():  # nobody looks at the pixel that makes the NaN
        a = attribute(model, x, y, method, batch_size=3)

    assert a[1].isnan().all()
    assert a[[0, 2, 3]].isfinite().all()
    assert magnitude(a)[1].isnan().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_broken_weight_is_seen_behind_a_rectifier(method: str) -> None:
    """The gradient of a rectifier at NaN is 0, and no map would say so."""

    model = delicate_net()
    model[0].bias.data[:] = torch.nan

    assert attribute(model, images(2, 3, 6, 6), torch.tensor([0, 1]), method).isnan().all()


class Deaf(nn.Module):
    def __init__(self, learns: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, 1.0]), requires_grad=learns)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), 2)


@pytest.mark.parametrize("learns", [True, False])
@pytest.mark.parametrize("method", [*ANYWHERE, "deeplift"])
def test_a_model_that_ignores_its_input_has_maps_of_zero(method: str, learns: bool) -> None:
    x = pictures(3, 1, 4, 4)

    assert torch.equal(attribute(Deaf(learns), x, torch.tensor([0, 1, 0]), method), torch.zeros_like(x))
    assert torch.equal(saliency(Deaf(learns), x, torch.tensor([0, 1, 0])), torch.zeros_like(x))


def test_one_class_is_explained_like_any_other() -> None:
    weight, x = rand(1, 1, 3, 3), images(2, 1, 3, 3)

    assert torch.equal(attribute(Linear(weight), x), weight.expand(2, 1, 3, 3))


# ---------------------------------------------------------------------------------------------------------------------
# GradCAM's layer and DeepLIFT's models
# ---------------------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """No sequence: what runs after what cannot be read off it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True))
        self.idle = nn.Conv2d(4, 4, 1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head((x + self.block(x)).mean(dim=(2, 3)))


def test_gradcam_takes_the_layer_that_is_named() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x, y = Residual().double(), images(2, 3, 6, 6), torch.tensor([0, 4])

    stem, conv, block = (attribute(model, x, y, "gradcam", layer=layer) for layer in ("stem", "block.0", "block"))

    # Behind the inner convolution stands a rectifier that works in place: its map is still the convolution's own.
    features = model.block[0](F.relu(model.stem(x)))
    gradient = torch.autograd.grad(
        model.head((F.relu(model.stem(x)) + F.relu(features)).mean(dim=(2, 3))).gather(1, y[:, None]).sum(), features
    )[0]
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1, keepdim=True).detach()
    torch.testing.assert_close(conv, expected.expand_as(x), rtol=1e-9, atol=1e-15)
    assert not torch.allclose(stem, block, rtol=0.1)


@pytest.mark.parametrize(
    ("model", "layer"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)), "2"),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)), nn.ReLU(), nn.Flatten()), "1"),
        (nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()), nn.Flatten(), nn.Linear(4, 2)), "0.0"),
        (nn.Sequential(nn.Sequential(Residual(), nn.ReLU()), nn.AdaptiveAvgPool2d(1)), "0.1"),
        (nn.Sequential(nn.Sequential(Residual()), nn.AdaptiveAvgPool2d(1)), "0.0"),
        (nn.Sequential(nn.Conv2d(3, 4, 3)), "0"),
    ],
)
def test_the_last_feature_map_of_a_sequence_is_behind_its_norm_and_rectifier(model: nn.Module, layer: str) -> None:
    assert attribution_settings("gradcam", model=model)["layer"] == layer


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(108, 5)), None, ["no convolution", "gradient", "ig", "smoothgrad"]),
        (Residual(), None, ["Residual", "layer='idle'", "block.0", "stem"]),
        (nn.Sequential(nn.Identity(), Residual()), None, ["1.idle", "1.block.0", "1.stem"]),
        (Residual(), "blokc.0", ["'blokc.0'", "'block.0'"]),
        (Residual(), "idle", ["'idle'", "run", "block.0"]),
        (Residual(), "head", ["'head'", "feature map", "block.0"]),
        (lambda x: x.flatten(1), None, ["nn.Module"]),
    ],
)
def test_gradcam_says_what_it_lacks(model: nn.Module, layer: str | None, words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        attribute(model, pictures(2, 3, 6, 6), torch.tensor([0, 1]), "gradcam", layer=layer)
    assert_states(refused.value, *words)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.relu(self.second(self.relu(self.first(x.flatten(1))))))


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Twice(), (3, 2, 2), ["module", "once"]),
        (net("resnet18", (3, 16, 16), width=0.1), (3, 16, 16), ["F.relu"]),
        (net("small_cnn", (1, 28, 28), width=0.2), (1, 28, 28), ["max-pools"]),
        (lambda x: x.flatten(1), (3, 2, 2), ["nn.Module"]),
    ],
)
def test_deeplift_refuses_what_it_would_get_wrong(
    model: nn.Module, shape: tuple[int, int, int], words: list[str]
) -> None:
    held = [] if not isinstance(model, nn.Module) else [set(module.__dict__) for module in model.modules()]

    with pytest.raises(InputError) as refused:
        attribute(model, pictures(4, *shape), torch.arange(4), "deeplift")

    assert_states(refused.value, "deeplift", *words)
    if isinstance(model, nn.Module):
        assert [set(module.__dict__) for module in model.modules()] == held


# ---------------------------------------------------------------------------------------------------------------------
# What is asked wrongly, and what is recorded
# ---------------------------------------------------------------------------------------------------------------------

X, Y = pictures(2, 1, 3, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("x", "y", "asked", "words"),
    [
        (X, Y, {"method": "gradcm"}, ["'gradcm'", "'gradcam'"]),
        (
            X,
            Y,
            {"method": "smoothgrad", "steps": 9},
            ["smoothgrad", "steps", "samples", "deviation"],
        ),
        (X, Y, {"samples": 9}, ["gradient", "samples", "no settings"]),
        (X, Y, {"method": "ig", "layer": "0"}, ["ig", "layer"]),
        (X, Y, {"target": "probability"}, ["target", "'probability'"]),
        (X, Y, {"method": "deeplift", "target": "log_prob"}, ["deeplift", "target", "'log_prob'"]),
        (X, Y, {"batch_size": 0}, ["batch_size", "0"]),
        (X, Y, {"method": "smoothgrad", "samples": 0}, ["samples", "0"]),
        (X, Y, {"method": "smoothgrad", "deviation": -0.1}, ["deviation", "-0.1"]),
        (X, Y, {"method": "ig", "steps": 0}, ["steps", "0"]),
        (X[:0], Y[:0], {}, ["at least one"]),
        (X[:, 0, 0], Y, {"method": "gradcam"}, ["gradcam", "images"]),
        (X.mul(255).to(torch.uint8), Y, {}, ["floats", "[0, 1]"]),
        (X, Y[:1], {}, ["int64", "(2,)"]),
        (X, Y.float(), {}, ["int64", "(2,)"]),
        (X, -Y, {}, ["-1", "0"]),
        (X, Y + 2, {"method": "ig"}, ["label 3", "3 classes"]),
    ],
)
def test_a_wrong_question_gets_one_line(x: Tensor, y: Tensor, asked: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        attribute(nn.Sequential(nn.Flatten(), nn.Linear(max(1, x.numel() // 2), 3)), x, y, **asked)
    assert_states(refused.value, *words)


@pytest.mark.parametrize(
    ("answer", "got"),
    [(lambda x: x, "(2, 1, 3, 3)"), (lambda x: (x.flatten(1),), "tuple"), (lambda x: x.view(1, -1), "(1, 18)")],
)
def test_what_is_no_classifier_is_refused(answer: Callable[[Tensor], Any], got: str) -> None:
    with pytest.raises(InputError) as refused:
        attribute(answer, X, Y)
    assert_states(refused.value, "(B, K)", got)


def test_magnitude_is_the_mean_of_absolute_values_over_channels() -> None:
    a = torch.tensor([[[[1.0, -2.0]], [[-3.0, 0.0]], [[2.0, 1.0]]]])

    assert torch.equal(magnitude(a), torch.tensor([[[2.0, 1.0]]]))


def test_settings_tell_all_that_repeats_a_map() -> None:
    assert attribution_settings("gradient", target="log_prob") == {
        "method": "gradient",
        "target": "log_prob",
        "reduction": "mean over channels of |a|",
    }
    assert attribution_settings("smoothgrad", deviation=0.1) == {
        "method": "smoothgrad",
        "target": "logit",
        "samples": 25,
        "deviation": 0.1,
        "reduction": "mean over channels of |a|",
    }
    ig = attribution_settings("ig")
    assert (ig["steps"], ig["baseline"]) == (50, 0.0)
    assert ig["captum"].split(".") >= ["0", "9"]
    with pytest.raises(InputError) as refused:
        attribution_settings("ig", samples=3)
    assert_states(refused.value, "ig", "samples")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_to_numpy_is_what_other_libraries_take(dtype: torch.dtype) -> None:
    a = (rand(2, 4, 5, 3) - 0.5).permute(0, 3, 1, 2).to(dtype).requires_grad_()

    array = to_numpy(a)

    assert array.shape == (2, 3, 4, 5)
    assert array.dtype == np.float32
    assert array.flags.c_contiguous
    assert array[1, 2, 3, 4] == float(a.detach()[1, 2, 3, 4])
    with pytest.raises(InputError, match=r"unsqueeze\(1\)"):
        to_numpy(magnitude(a))


def gini(values: np.ndarray[Any, Any]) -> float:
    """Twice the area between the diagonal and the Lorenz curve, by trapezoids."""

    rising = np.sort(np.abs(values.astype(np.float64).ravel()))
    lorenz = np.concatenate([[0.0], np.cumsum(rising) / rising.sum()])
    return float(1 - 2 * np.trapezoid(lorenz, dx=1 / len(rising)))


@pytest.mark.parametrize("channels", [1, 3])
def test_quantus_takes_our_maps_and_measures_the_same(channels: Literal[1, 3]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantus = pytest.importorskip("quantus", reason="Quantus is not installed: make bench installs it")

        model = net("small_cnn", (channels, 12, 12), width=0.2)
        x, y = pictures(5, channels, 12, 12), torch.arange(5)
        maps = attribute(model, x, y, "ig")

        found = quantus.Sparseness(disable_warnings=True)(
            model=model, x_batch=to_numpy(x), y_batch=y.numpy(), a_batch=to_numpy(maps)
        )

        def explain(model: nn.Module, inputs: Any, targets: Any, **_: Any) -> np.ndarray[Any, Any]:
            x, y = (torch.as_tensor(array) for array in (inputs, targets))
            return to_numpy(attribute(model, x.float(), y, "ig"))

        moved = quantus.MaxSensitivity(nr_samples=2, lower_bound=0.05, disable_warnings=True)(
            model=model, x_batch=to_numpy(x), y_batch=y.numpy(), a_batch=None, explain_func=explain
        )

    np.testing.assert_allclose(found, [gini(to_numpy(a[None])) for a in maps], rtol=0, atol=1e-6)
    assert len(moved) == 5
    assert 0 < min(moved) < max(moved) < 2
