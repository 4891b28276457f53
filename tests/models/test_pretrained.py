"""Models of timm and transformers: real architectures with random weights, saved and loaded as their users do."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import asgt
from asgt import InputError, build_model
from asgt.cli import main
from asgt.data import to_unit
from asgt.models import brings_weights, preprocessing
from asgt.modes import ask
from asgt.saliency import attribute
from asgt.saliency.gradcam import feature_layer
from support.messages import assert_states

NAMES = ("cat", "dog", "eel", "fox")
REMOTE = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Net"}


pytestmark = pytest.mark.usefixtures("torchvision_operators")


@pytest.fixture(scope="module")
def vit(torchvision_operators: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small ViT as save_pretrained leaves it, with a processor's configuration."""

    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = {
        "do_resize": True,
        "size": {"height": 32, "width": 32},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.25, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


@pytest.fixture(scope="module")
def resnet(torchvision_operators: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ResNet-50's architecture, narrow, whose processor crops."""

    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[3, 4, 6, 3], layer_type="bottleneck", num_labels=4
    )
    transformers.ResNetForImageClassification(config).save_pretrained(folder)
    processor = {"crop_pct": 0.875, "size": {"shortest_edge": 64}, "image_mean": [0.485, 0.456, 0.406]}
    processor |= {"image_std": [0.229, 0.224, 0.225], "do_normalize": True, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def test_a_vit_is_built_with_its_own_weights_and_preprocessing(vit: Path) -> None:
    import transformers

    own = preprocessing(f"hf:{vit}")
    assert own is not None
    assert (own.mean, own.std) == ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
    assert (own.image_size, own.crop, own.interpolation, own.classes) == (32, None, "bicubic", NAMES)
    assert brings_weights(f"hf:{vit}")

    model = build_model(f"hf:{vit}", (3, 32, 32), 4, mean=own.mean, std=own.std).eval()
    x = torch.rand(3, 3, 32, 32)
    mean, std = torch.tensor(own.mean).view(-1, 1, 1), torch.tensor(own.std).view(-1, 1, 1)
    theirs = transformers.ViTForImageClassification.from_pretrained(vit).eval()((x - mean) / std).logits
    torch.testing.assert_close(ask(model, x), theirs)

    y = theirs.argmax(dim=1)
    x_adv = asgt.PGD(0.1, steps=3)(model, x, y)
    assert float((x_adv - x).abs().max()) == pytest.approx(0.1)
    out = asgt.ASGT(attack=asgt.FGSM(0.1), mask=asgt.SaliencyMask(k=0.25))(model, x, y)
    out.loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_a_processor_that_crops_says_by_how_much(resnet: Path, tmp_path: Path) -> None:
    own = preprocessing(f"hf:{resnet}")
    assert own is not None
    assert (own.image_size, own.crop, own.interpolation, own.classes) == (64, 0.875, "bilinear", None)
    model = build_model(f"hf:{resnet}", (3, 64, 64), 4, mean=own.mean, std=own.std).eval()
    assert ask(model, torch.rand(2, 3, 64, 48)).shape == (2, 4)  # not square either

    bit: dict[str, Any] = {
        "image_processor_type": "BitImageProcessor",
        "image_mean": [0.485, 0.456, 0.406],
        "do_center_crop": True,
    }
    for written, expected in (
        (bit | {"size": {"shortest_edge": 64}, "crop_size": {"height": 56, "width": 56}}, (56, 0.875)),
        ({"size": 48}, (48, 0.875)),  # of a ResNet's processor, 224 of 256 is the default
        ({"size": 384}, (384, None)),  # from 384 on it squashes
        (bit | {"size": {"shortest_edge": 256}, "crop_size": 224}, (224, 0.875)),
        ({"do_resize": False, "do_normalize": False}, (None, None)),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "config.json").write_text((resnet / "config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps(written))
        own = preprocessing(f"hf:{folder}")
        assert own is not None
        assert (own.image_size, own.crop) == expected
        # Where the file names none, a ResNet's processor has 0.5.
        mean = tuple(written.get("image_mean", [0.5, 0.5, 0.5]))
        assert own.mean == (None if written.get("do_normalize") is False else mean)


PROCESSORS: dict[str, tuple[str, dict[str, Any], float | None]] = {
    # name: kind of model, what its file says, the share of the crop
    "plain": ("vit", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.2, 0.3, 0.4]}, None),
    "defaults of its kind": ("vit", {"do_normalize": True}, None),
    "a name of old": ("vit", {"feature_extractor_type": "ViTFeatureExtractor", "size": 224}, None),
    "one number": ("vit", {"image_mean": 0.5, "image_std": 0.25}, None),
    "rescaled to [-1, 1]": (
        "vit",
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        None,
    ),
    "not rescaled": ("vit", {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [64.0] * 3}, None),
    "neither": ("vit", {"do_rescale": False, "do_normalize": False}, None),
    "an offset": ("efficientnet", {"rescale_factor": 1 / 127.5, "rescale_offset": True, "include_top": False}, None),
    "divided twice": ("efficientnet", {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.47, 0.48, 0.49]}, None),
    "only divided": ("efficientnet", {"do_normalize": False}, None),
    "a share": ("poolformer", {"size": {"shortest_edge": 224}, "crop_pct": 0.875}, 0.875),
    "a share of its own": ("levit", {"size": {"shortest_edge": 224}}, 0.875),
    "a crop": ("deit", {"size": 256, "crop_size": 224}, 0.875),
    "a crop of a short side": (
        "bit",
        {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
        0.875,
    ),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_images_are_prepared_as_the_models_own_processor_does(name: str, tmp_path: Path) -> None:
    """What the processor makes of an image, against the normalisation of the same image read by asgt."""

    import numpy as np
    from PIL import Image

    transformers = pytest.importorskip("transformers")
    kind, written, crop = PROCESSORS[name]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    written = {"size": {"height": 224, "width": 224}, "resample": 2} | written
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    own = preprocessing(f"hf:{tmp_path}")
    assert own is not None
    assert (own.image_size, own.crop) == (224, crop if crop is None else pytest.approx(crop))

    # An image of the size that the processor resizes to, so that no resizing has a say.
    side = 224 if crop is None else round(224 / crop)
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    theirs = torch.as_tensor(np.asarray(processor(Image.fromarray(pixels))["pixel_values"][0]))
    margin = (side - 224) // 2
    x = torch.from_numpy(pixels).permute(2, 0, 1)[:, margin : margin + 224, margin : margin + 224] / 255
    mine = x if own.mean is None or own.std is None else asgt.Normalize(own.mean, own.std)(x)
    torch.testing.assert_close(mine, theirs.float(), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("model", "written", "says"),
    [
        ("mobilevit", {"image_processor_type": "MobileViTImageProcessor"}, ["blue", "green", "red"]),
        ("vit", {"size": {"height": 224, "width": 192}}, ["224×192"]),
        ("vit", {"resample": 17}, ["resizes", "17", "bilinear"]),
        ("vit", {"image_mean": ["a", "b", "c"]}, ["preprocessor_config.json"]),
        ("nobody's", {"do_normalize": True}, ["image_mean"]),
        ("bit", {"size": {"shortest_edge": 224}, "crop_size": 256, "do_center_crop": True}, ["256 px", "224"]),
    ],
)
def test_a_processor_that_cannot_be_followed_is_refused(
    model: str, written: dict[str, Any], says: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(written))
    with pytest.raises(InputError) as error:
        preprocessing(f"hf:{tmp_path}")
    assert_states(error.value, *says)


def test_a_part_of_transformers_that_cannot_be_imported_gets_one_line(
    vit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    class Broken:
        def from_pretrained(self, *_: Any, **__: Any) -> Any:
            raise ModuleNotFoundError("Could not import module 'X'. Are its requirements there?\nSee the log")

    for part, call in (("AutoImageProcessor", preprocessing), ("AutoModelForImageClassification", build)):
        with monkeypatch.context() as patch:
            patch.setattr(transformers, part, Broken())
            with pytest.raises(InputError) as error:
                call(f"hf:{vit}")
            assert_states(error.value, "'X'", "torchvision")


def build(name: str) -> nn.Module:
    return build_model(name, (3, 32, 32), 4)


def test_what_a_folder_does_not_say_is_not_made_up(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "image_size": 32}))
    own = preprocessing(f"hf:{tmp_path}")
    assert own is not None
    assert (own.image_size, own.mean) == (32, None)
    assert_states(own.source, "preprocessor_config.json")
    # The same folder is read anew where its files changed.
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": 32, "image_mean": [0.3], "image_std": [0.2]})
    )
    again = preprocessing(f"hf:{tmp_path}")
    assert again is not None
    assert (again.mean, again.std) == ((0.3,), (0.2,))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: edit(folder, pretrained_cfg={}, architecture="resnet18"), ["timm:resnet18"]),
        (lambda folder: (folder / "config.json").unlink(), ["config.json"]),
        (lambda folder: (folder / "model.safetensors").unlink(), ["loaded"]),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"12345678{"), ["loaded"]),
        (lambda folder: edit(folder, architectures=["ViTModel"]), ["image classifier", "ViTModel"]),
        (lambda folder: edit(folder, architectures=None), ["image classifier"]),
        (
            lambda folder: edit(folder, auto_map={"AutoModelForImageClassification": "evil.Net"}, model_type="evil"),
            ["load"],
        ),
        (lambda folder: (folder / "config.json").write_text("{"), ["config.json", "damaged"]),
        (lambda folder: (folder / "config.json").write_text("[]"), ["config.json", "damaged"]),
    ],
)
def test_a_folder_that_holds_no_classifier_is_refused(change: Any, says: list[str], vit: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "net"
    shutil.copytree(vit, folder)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')")
    change(folder)
    with pytest.raises(InputError) as error:
        build_model(f"hf:{folder}", (3, 32, 32), 4)
    assert_states(error.value, folder, *says)
    assert not (tmp_path / "it ran").exists()


def edit(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.slow
def test_names_that_lead_nowhere_get_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("hf:", "hf:nobody/there", f"hf:{tmp_path}", "hf:a/b/c/d", "timm:no_such_net"):
        with pytest.raises(InputError) as error:
            build_model(name, (3, 32, 32), 4)
        assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("resnet50", 64), ("vit_tiny_patch16_224", 32)])
def test_timm_models_have_their_own_preprocessing(name: str, size: int) -> None:
    timm = pytest.importorskip("timm")
    own = preprocessing(f"timm:{name}")
    config = timm.get_pretrained_cfg(name)
    assert own is not None
    assert (own.mean, own.std, own.image_size) == (config.mean, config.std, 224)
    assert (own.crop, own.interpolation) == (config.crop_pct, config.interpolation)

    model = build_model(f"timm:{name}", (3, size, size), 5, mean=own.mean, std=own.std)
    x, y = torch.rand(2, 3, size, size), torch.tensor([0, 4])
    asgt.ST()(model, x, y).loss.backward()
    assert asgt.PGD(0.1, steps=2)(model, x, y).shape == x.shape
    if name == "resnet50":
        assert build_model(f"timm:{name}", (3, size, size), None).net.num_classes == 1000
    with pytest.raises(InputError, match=r"vit_tiny|resnet50"):
        build_model(f"timm:{name[:-2]}xx", (3, size, size), 5)


@pytest.mark.slow
def test_evaluate_takes_an_hf_folder_and_says_what_it_took(
    vit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for number in range(8):
        folder = tmp_path / "images" / "test" / NAMES[3 - number % 4]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (40, 48, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")

    words = ["evaluate", "--model", f"hf:{vit}", "--data", str(tmp_path / "images"), "--out", str(tmp_path / "out")]
    assert main([*words, "--epsilons", "8/255", "--protocol", "paper"]) == 0
    taken = ("image size 32", "interpolation bicubic", "mean 0.5, 0.4, 0.3", "std 0.2, 0.25, 0.5")
    assert_states(capsys.readouterr().out, *taken)

    data = asgt.load_data(str(tmp_path / "images"), image_size=32, interpolation="bicubic", train=False).test
    model = build_model(f"hf:{vit}", (3, 32, 32), 4, mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5]).eval()
    clean = (ask(model, to_unit(data.pixels)).argmax(dim=1) == data.labels).double().mean()
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["clean"]["accuracy"] == pytest.approx(float(clean))


# GradCAM on tokens ---------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Patches of 2×2 pixels as tokens, a class token before them, and a head that reads all of them linearly."""

    def __init__(self, before: int, channels_last: bool = False) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 3, 2, stride=2)
        self.mixed = nn.Identity()
        self.before, self.channels_last = before, channels_last
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Any:
        maps = self.patches(x)
        if self.channels_last:
            return self.head(self.mixed(maps.permute(0, 2, 3, 1)).square().mean(dim=(1, 2)))
        tokens = maps.flatten(2).transpose(1, 2)
        tokens = self.mixed(torch.cat([tokens.new_ones(len(x), self.before, 3), tokens], dim=1))
        return self.head(tokens[:, self.before :].square().mean(dim=1))


@pytest.mark.parametrize(("before", "channels_last"), [(0, False), (1, False), (5, False), (0, True)])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 12)])
def test_gradcam_lays_tokens_out_as_patches(before: int, channels_last: bool, height: int, width: int) -> None:
    """By hand: the logit is w·mean(A²), so each patch's gradient is 2 w A / n, and the map is their mean times A."""

    torch.manual_seed(0)
    net = Tokens(before, channels_last)
    x, y = torch.rand(2, 1, height, width), torch.tensor([0, 1])
    maps = net.patches(x).detach()
    rows, columns = maps.shape[2:]
    slopes = 2 * net.head.weight[y][:, :, None, None] * maps / (rows * columns)
    coarse = (slopes.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True)
    expected = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    torch.testing.assert_close(attribute(net, x, y, "gradcam", layer="mixed"), expected.detach())


def pair(maps: Tensor) -> Any:
    return maps, maps.mean()


def named(maps: Tensor) -> Any:
    return OrderedDict(last_hidden_state=maps, pooled=maps.mean())


class Several(nn.Module):
    """A layer that gives its map and a number beside it."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.convolution, self.form = nn.Conv2d(1, 3, 2, stride=2), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.convolution(x))


@pytest.mark.parametrize("form", [pair, named])
def test_gradcam_of_a_layer_that_gives_several_values_is_that_of_its_map(form: Callable[[Tensor], Any]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stage, self.head = Several(form), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Any:
            given = self.stage(x)
            return self.head(next(iter(given.values() if isinstance(given, dict) else given)).mean(dim=(2, 3)))

    net, x = Net(), torch.rand(2, 1, 8, 8)
    expected = attribute(net, x, method="gradcam", layer="stage.convolution")
    torch.testing.assert_close(attribute(net, x, method="gradcam", layer="stage"), expected)


def test_gradcam_of_a_vit_looks_at_the_patches(vit: Path) -> None:
    model = build_model(f"hf:{vit}", (3, 32, 32), 4).eval()
    with pytest.raises(InputError, match="layernorm_before") as error:
        feature_layer(model)
    assert_states(error.value, "layer")
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm)]
    x = torch.rand(2, 3, 32, 32)
    maps = attribute(model, x, method="gradcam", layer=layers[-3])
    assert maps.shape == x.shape
    assert maps.isfinite().all()
    assert float(maps.std()) > 0
    with pytest.raises(InputError, match="tokens"):
        attribute(model, x, method="gradcam", layer="net.classifier")
