"""Weights from other people's files: where they fit as they are, else by names without wrappers, else refused."""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from asgt import InputError, Normalize, build_model, load_weights
from asgt.files import write_tensors
from asgt.models.weights import versions_text
from support.messages import assert_states


class Net(nn.Module):
    """A net whose parts are called as wrappers and asgt's own parts are, where a test says so."""

    def __init__(self, body: str = "body") -> None:
        super().__init__()
        self.add_module(body, nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3)))
        self.called = body
        self.head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.get_submodule(self.called)(x))


class NormalisesItself(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize([0.3], [0.2])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.normalize(x))


def around(net: nn.Module, normalize: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(OrderedDict(normalize=normalize or nn.Identity(), net=net)).eval()


def other(net: nn.Module) -> nn.Module:
    """The same architecture with other weights."""

    with torch.no_grad():
        for number, tensor in enumerate(net.state_dict().values()):
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                tensor.copy_(torch.linspace(0.1, 0.9, tensor.numel()).view(tensor.shape) + number)
    return net.eval()


X = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def loaded(model: nn.Module, state: Any, folder: Path, name: str = "w.pt") -> str:
    torch.save(state, folder / name)
    return load_weights(model, folder / name)


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


PREFIXES = ("", "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module.")


@pytest.mark.parametrize("prefix", [*PREFIXES, "net.", "backbone.", "model.backbone.", "net.module."])
def test_prefixes_of_wrappers_and_nestings_of_them_are_matched(prefix: str, tmp_path: Path) -> None:
    trained, model = other(Net()), around(Net())
    line = loaded(model, wrapped(trained.state_dict(), prefix), tmp_path)
    assert torch.equal(model(X), trained(X))
    assert "\n" not in line
    if prefix not in ("", "net.", "net.module."):
        assert prefix in line, line


@pytest.mark.parametrize("part", ["module", "model", "_orig_mod", "net", "normalize"])
def test_a_net_with_a_part_called_like_a_wrapper_loads_its_own_state_dict(part: str, tmp_path: Path) -> None:
    trained, model = other(Net(part)), around(Net(part))
    loaded(model, trained.state_dict(), tmp_path)
    assert torch.equal(model(X), trained(X))
    # And where the whole of it lies in a wrapper of the same name.
    again = around(Net(part))
    loaded(again, wrapped(trained.state_dict(), "module."), tmp_path)
    assert torch.equal(again(X), trained(X))


def test_a_net_that_normalises_by_itself_is_not_normalised_twice(tmp_path: Path) -> None:
    trained, model = other(NormalisesItself()), around(NormalisesItself())
    loaded(model, trained.state_dict(), tmp_path)
    assert torch.equal(model(X), trained(X))
    assert isinstance(model.normalize, nn.Identity)

    # asgt's own file of that net brings asgt's normalisation, and the net's own as well.
    whole, empty = around(other(NormalisesItself()), Normalize([0.5], [0.25])), around(NormalisesItself())
    safetensors.torch.save_file(dict(whole.state_dict()), tmp_path / "own.safetensors")
    assert load_weights(empty, tmp_path / "own.safetensors") == ""
    assert torch.equal(empty(X), whole(X))


def test_the_models_own_wrapper_is_matched_too(tmp_path: Path) -> None:
    trained = other(Net())
    for wrap in (nn.DataParallel, lambda net: torch.compile(net, backend="eager")):
        model = around(wrap(Net()))
        loaded(model, trained.state_dict(), tmp_path)
        assert torch.equal(model(X), trained(X))
    own = build_model("small_cnn", (1, 8, 8), 3, mean=[0.5], std=[0.2])
    assert (
        loaded(own, other(build_model("small_cnn", (1, 8, 8), 3, mean=[0.4], std=[0.3])).state_dict(), tmp_path) == ""
    )


@pytest.mark.parametrize(
    ("hold", "key"),
    [
        (lambda state: {"state_dict": state, "epoch": 3}, "state_dict"),
        (lambda state: {"whatever": state}, "whatever"),
        (lambda state: {"checkpoint": {"net": state}, "seed": 1}, "checkpoint.net"),
        (lambda state: {"model": wrapped(state, "module."), "acc": torch.tensor(0.9)}, "model"),
        (
            lambda state: {
                "weights": state,
                "optimizer": torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9).state_dict(),
                "metrics": {"loss": torch.tensor(0.1)},
            },
            "weights",
        ),
    ],
)
def test_a_state_dict_is_found_under_whatever_key(
    hold: Callable[[dict[str, Tensor]], Any], key: str, tmp_path: Path
) -> None:
    trained, model = other(Net()), around(Net())
    line = loaded(model, hold(trained.state_dict()), tmp_path)
    assert f"'{key}'" in line
    assert torch.equal(model(X), trained(X))


def test_two_state_dicts_that_fit_are_not_guessed_between(tmp_path: Path) -> None:
    state = Net().state_dict()
    with pytest.raises(InputError) as error:
        loaded(around(Net()), {"model": state, "ema": state}, tmp_path)
    assert_states(error.value, "'model'", "'ema'")


def test_the_content_decides_what_a_file_is(tmp_path: Path) -> None:
    trained = other(Net())
    state = {name: tensor.contiguous() for name, tensor in trained.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "c.bin", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "no suffix")
    for name in ("a.pt", "b.safetensors", "c.bin", "no suffix"):
        model = around(Net())
        load_weights(model, str(tmp_path / name))
        assert torch.equal(model(X), trained(X)), name


def files(folder: Path) -> dict[str, tuple[bytes | Callable[[Path], object], str]]:
    def script(path: Path) -> None:
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)

    def arrays(path: Path) -> None:
        with open(path, "wb") as file:
            np.savez(file, a=np.zeros(2))

    def other_zip(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")

    def cut(path: Path) -> None:
        torch.save(Net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-400])

    def cut_tensors(path: Path) -> None:
        safetensors.torch.save_file(Net().state_dict(), path)
        path.write_bytes(path.read_bytes()[:-10])

    return {
        "empty": (b"", "empty"),
        "page": (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs"),
        "keras": (b"\x89HDF\r\n\x1a\n" + bytes(40), "HDF5"),
        "index": (json.dumps({"metadata": {}, "weight_map": {}}).encode(), "JSON"),
        "onnx": (b"\x08\x07\x12\x07pytorch", "ONNX"),
        "noise": (bytes(range(1, 200)), "damaged"),
        "script": (script, "TorchScript"),
        "arrays": (arrays, "numpy"),
        "zip": (other_zip, "archive"),
        "cut": (cut, "damaged"),
        "cut tensors": (cut_tensors, "damaged"),
        "whole module": (lambda path: torch.save(Net(), path), "state_dict()"),
        "a list": (lambda path: torch.save([torch.zeros(2)], path), "a list"),
        "no tensors": (lambda path: torch.save({"epoch": 3}, path), "'epoch'"),
        "folder": (lambda path: path.mkdir(), "folder"),
    }


@pytest.mark.parametrize("name", files(Path()))
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_no_file_of_weights_says_what_it_is(name: str, tmp_path: Path) -> None:
    content, says = files(tmp_path)[name]
    path = tmp_path / "weights"
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    with pytest.raises(InputError) as error:
        load_weights(around(Net()), path)
    assert_states(error.value, path, says)


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name not in names}


OWN = Net().state_dict()


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (without(OWN, "head.weight"), ["head.weight'", "missing"]),
        (without(OWN, "head.weight", "head.bias"), ["head.weight'", "missing", "1 more"]),
        ({("fc.weight" if name == "head.weight" else name): value for name, value in OWN.items()}, ["'fc.weight'"]),
        (OWN | {"extra": torch.zeros(1)}, ["'extra'"]),
        (OWN | {"head.weight": torch.zeros(10, 3)}, ["'head.weight'", "(10, 3)", "(3, 3)"]),
        (OWN | {"head.weight": torch.full((3, 3), torch.nan)}, ["NaN", "'head.weight'"]),
        (OWN | {"head.weight": torch.ones(3, 3, dtype=torch.bool)}, ["'head.weight'", "torch.bool"]),
        (OWN | {"head.weight": torch.ones(3, 3, dtype=torch.complex64)}, ["'head.weight'", "torch.complex64"]),
        (OWN | {"head.weight": torch.ones(3, 3).to(torch.float8_e4m3fn)}, ["'head.weight'", "torch.float8_e4m3fn"]),
        (OWN | {"body.2.num_batches_tracked": torch.tensor(1.5)}, ["body.2.num_batches_tracked", "torch.int64"]),
        (OWN | {"head.weight": torch.full((3, 3), 1e300, dtype=torch.float64)}, ["infinite", "torch.float32"]),
        (OWN | {"body.2.running_var": torch.full((3,), torch.inf)}, ["infinite", "'body.2.running_var'"]),
        (OWN | {"body.2.running_mean": torch.full((3,), -torch.inf)}, ["infinite", "'body.2.running_mean'"]),
        (OWN | {"body.2.running_var": torch.tensor([1.0, -0.5, 1.0])}, ["'body.2.running_var'", "negative"]),
    ],
)
def test_weights_of_another_model_are_named_by_one_key_and_change_nothing(
    state: dict[str, Tensor], says: list[str], tmp_path: Path
) -> None:
    model = around(other(Net()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError) as error:
        loaded(model, state, tmp_path)
    assert_states(error.value, tmp_path / "w.pt", *says)
    # One that is missing or wrong, and at most one that stands in its place.
    assert sum(f"{name}'" in str(error.value) for name in OWN) <= 2
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_counter_that_was_converted_with_the_rest_is_as_good_as_none(dtype: torch.dtype, tmp_path: Path) -> None:
    trained, model = other(Net()), around(Net())
    state = trained.state_dict() | {"body.2.num_batches_tracked": torch.tensor(70_000)}
    loaded(model, {name: tensor.to(dtype) for name, tensor in state.items()}, tmp_path)
    torch.testing.assert_close(model(X), trained.to(dtype).float()(X))
    assert model.state_dict()["net.body.2.num_batches_tracked"].dtype == torch.int64


def test_an_average_of_weights_loads_without_its_count(tmp_path: Path) -> None:
    trained, model = other(Net()), around(Net())
    averaged = torch.optim.swa_utils.AveragedModel(trained)
    assert "n_averaged" in averaged.state_dict()
    loaded(model, averaged.state_dict(), tmp_path)
    assert torch.equal(model(X), trained(X))


def test_files_of_old_versions_lack_the_counter_of_batch_norm(tmp_path: Path) -> None:
    trained, model = other(Net()), around(Net())
    loaded(model, without(trained.state_dict(), "body.2.num_batches_tracked"), tmp_path)
    assert torch.equal(model(X), trained(X))


def test_half_precision_and_renamed_parts_load_as_pytorch_loads_them(tmp_path: Path) -> None:
    trained, model = other(Net()), around(Net())
    loaded(model, {name: t.half() if t.is_floating_point() else t for name, t in OWN.items()}, tmp_path)
    assert model(X).dtype == torch.float32

    class Renames(Net):
        def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
            for name in [name for name in state if name.startswith(f"{prefix}old.")]:
                state[name.replace("old.", "head.", 1)] = state.pop(name)
            super()._load_from_state_dict(state, prefix, *rest)

    old = {name.replace("head.", "old."): tensor for name, tensor in trained.state_dict().items()}
    renames = around(Renames())
    assert "older version" in loaded(renames, old, tmp_path)
    assert torch.equal(renames(X), trained(X))


def test_nothing_in_a_file_runs(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "it ran",))

    with pytest.raises(InputError) as error:
        loaded(around(Net()), {"state_dict": OWN, "run": Runs()}, tmp_path)
    assert_states(error.value, tmp_path / "w.pt", "plain weights")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_a_wrapped_file_of_asgt_brings_its_normalisation_too(prefix: str, tmp_path: Path) -> None:
    whole, bare = around(other(Net()), Normalize([0.4], [0.3])), around(Net())
    loaded(bare, wrapped(whole.state_dict(), prefix), tmp_path)
    assert torch.equal(bare(X), whole(X))

    half = around(Net().half())
    loaded(half, wrapped(whole.state_dict(), prefix), tmp_path)
    torch.testing.assert_close(half(X).float(), whole(X), atol=0.02, rtol=0.02)
    assert list(half.state_dict()) == list(whole.state_dict())

    spoiled = whole.state_dict() | {"normalize.mean": torch.tensor([[[123.7]]])}
    unchanged = around(Net())
    before = unchanged(X)
    with pytest.raises(InputError) as error:
        loaded(unchanged, wrapped(spoiled, prefix), tmp_path)
    assert_states(error.value, "mean", "255")
    assert torch.equal(unchanged(X), before)


@pytest.mark.parametrize("part", ["backbone", "module", "encoder"])
def test_the_weights_of_the_only_part_of_a_model_fit_it(part: str, tmp_path: Path) -> None:
    trained, model = other(Net()), around(nn.Sequential(OrderedDict({part: Net()})))
    assert f"'{part}.'" in loaded(model, trained.state_dict(), tmp_path)
    assert torch.equal(model(X), trained(X))


def test_a_weight_under_several_names_may_lie_in_the_file_once(tmp_path: Path) -> None:
    def tied() -> nn.Sequential:
        first, last = nn.Linear(4, 4), nn.Linear(4, 4)
        last.weight = first.weight
        return nn.Sequential(OrderedDict(flatten=nn.Flatten(), first=first, last=last))

    trained = other(tied())
    safetensors.torch.save_model(trained, str(tmp_path / "tied.safetensors"))
    model = around(tied())
    load_weights(model, tmp_path / "tied.safetensors")
    assert torch.equal(model(X), trained(X))
    assert model.net.first.weight is model.net.last.weight


class Keeps(nn.Linear):
    """A layer with a state that is no tensor, of which one value is refused."""

    kept: Any = "as built"

    def get_extra_state(self) -> Any:
        return {"kept": self.kept}

    def set_extra_state(self, state: Any) -> None:
        if state["kept"] == "another version":
            raise KeyError("this version\nis unknown")
        self.kept = state["kept"]


@pytest.mark.parametrize("prefix", ["", "net.", "module."])
def test_extra_state_travels_with_the_weights(prefix: str, tmp_path: Path) -> None:
    def build() -> nn.Sequential:
        return nn.Sequential(OrderedDict(flatten=nn.Flatten(), layer=Keeps(4, 3)))

    trained, model = other(build()), around(build())
    trained.layer.kept = {"seen": [1, 2]}
    loaded(model, wrapped(trained.state_dict(), prefix), tmp_path)
    assert torch.equal(model(X), trained(X))
    assert model.net.layer.kept == {"seen": [1, 2]}

    refused = build().state_dict() | {"layer._extra_state": {"kept": "another version"}}
    with pytest.raises(InputError) as error:
        loaded(model, wrapped(refused, prefix), tmp_path)
    assert_states(error.value, tmp_path / "w.pt", "this version")
    assert torch.equal(model(X), trained(X))  # as it was before


def test_modules_of_other_kinds_load_or_say_why_not(tmp_path: Path) -> None:
    trained = other(Net())
    script = around(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))))
    plain = other(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    loaded(script, plain.state_dict(), tmp_path)
    assert torch.equal(script(X), plain(X))

    lazy = around(nn.Sequential(nn.Flatten(), nn.LazyLinear(3)))
    loaded(lazy, plain.state_dict(), tmp_path)
    assert torch.equal(lazy(X), plain(X))

    frozen = around(Net().requires_grad_(False))
    loaded(frozen, trained.state_dict(), tmp_path)
    assert torch.equal(frozen(X), trained(X))
    assert not any(weight.requires_grad for weight in frozen.parameters())

    for value in (torch.eye(3).to_sparse(), torch.eye(3, device="meta")):
        with pytest.raises(InputError, match=r"'head\.weight'"):
            loaded(around(Net()), OWN | {"head.weight": value}, tmp_path)
    one = nn.Module()
    one.register_buffer("scale", torch.tensor(1.0))
    with pytest.raises(InputError) as error:
        loaded(one, {"scale": torch.ones(2)}, tmp_path)
    assert_states(error.value, "'scale'", "(2,)", "()")


class Doubled(Net):
    """A module whose first version stored half of its head."""

    _version = 2

    def _load_from_state_dict(
        self, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any], *rest: Any
    ) -> None:
        if (metadata.get("version") or 0) < 2:
            state[f"{prefix}head.weight"] = state[f"{prefix}head.weight"] * 2
        super()._load_from_state_dict(state, prefix, metadata, *rest)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_the_versions_of_modules_are_handed_on(prefix: str, tmp_path: Path) -> None:
    trained = other(Doubled())
    wrap = nn.ModuleDict({prefix.rstrip("."): trained}) if prefix else trained
    model = around(Doubled())
    loaded(model, wrap.state_dict(), tmp_path)
    assert torch.equal(model(X), trained(X))

    # A file without versions is one of the first, as PyTorch takes it.
    old = around(Doubled())
    loaded(old, dict(trained.state_dict()), tmp_path)
    assert torch.equal(old.net.head.weight, 2 * trained.head.weight)

    # asgt's own files keep them.
    state = around(trained).state_dict()
    write_tensors(tmp_path / "own.safetensors", state, versions_text(state))
    again = around(Doubled())
    load_weights(again, tmp_path / "own.safetensors")
    assert torch.equal(again(X), trained(X))


def test_a_buffer_may_mask_a_class_by_minus_infinity(tmp_path: Path) -> None:
    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.tensor([0.0, 0.0, -torch.inf]))

    model = around(Masked())
    loaded(model, Masked().state_dict(), tmp_path)
    with pytest.raises(InputError) as error:
        loaded(model, Masked().state_dict() | {"mask": torch.full((3,), torch.nan)}, tmp_path)
    assert_states(error.value, "NaN", "'mask'")
