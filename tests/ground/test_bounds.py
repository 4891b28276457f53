"""What is small as a text and huge as a value is refused before it costs anything, in one short line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from asgt import capacity
from asgt.capacity import free_memory, refuse_memory, refuse_time, size_text, time_text
from asgt.errors import DamagedFileError, InputError, cut, shown, unknown
from asgt.files import plain_value, read_bounded, read_json, read_yaml
from asgt.launch import check_rendezvous, launched, rank
from asgt.models.footprint import refuse_batch, refuse_model
from asgt.models.small_net import small_cnn
from asgt.numbers import in_float32, number
from asgt.training.config import TrainConfig
from support.messages import assert_states


class Unbuilt(list[Any]):
    """A list that says when somebody writes all of it out."""

    def __repr__(self) -> str:
        raise AssertionError("the whole value was written out")


def refusal(call: Callable[..., object], *values: Any, **named: Any) -> str:
    """The line by which a call refuses, which is short and comes at once."""

    began = time.process_time()
    with pytest.raises(InputError) as caught:
        call(*values, **named)
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) <= 2000, line[:300]
    assert time.process_time() - began < 5  # CPU time: a busy machine makes nothing wrong
    return line


def billion_laughs() -> str:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (billion_laughs(), ["line 2", "alias", "*a"]),
        ("a: &a [*a]", ["alias"]),
        ("a: &b {lr: 1}\nc: {<<: *b}", ["line 2", "alias"]),
        ("[" * 500, ["32 levels"]),
        ("{a: " * 500, ["32 levels"]),
        ("[" + "1," * 60_000 + "]", ["50,000 values"]),
        ("a: 1\n# " + "x" * 2**20, ["characters"]),
        ("a: " + "9" * 5000, ["5,000 digits"]),
        ("a: 1\nb: 2\na: 3", ["line 3", "a", "twice"]),
        ("? [a]\n: 1", ["line 1"]),
        ("1: 2", ["line 1", "quotes"]),
    ],
)
def test_a_text_that_grows_is_no_configuration(text: str, said: list[str]) -> None:
    assert_states(refusal(plain_value, text), *said)


@pytest.mark.parametrize(
    "value",
    [
        *("!!timestamp x", "!!bool x", "!!int ''", "!!int x", "!!int 0x", "!!int '1:x'", "!!float x", "!!float ''"),
        *("!!binary é", "!!set {a}", "!!omap [a]", "!!pairs [a]", "!!merge x", "!!value x", "!!map x", "!!seq x"),
        *("!!str [a]", "!!null [a]", "!!bool {}", "!!python/object:os.system {}", "!own x", "2020-99-99", "="),
    ],
)
def test_a_value_that_is_not_what_its_tag_says_is_refused(value: str, tmp_path: Path) -> None:
    assert refusal(plain_value, f"lr: {value}")
    (file := tmp_path / "a.yaml").write_text(f"lr: {value}", "utf-8")
    with pytest.raises(DamagedFileError) as caught:
        read_yaml(file)
    assert_states(caught.value, file)


def test_plain_values_stay_what_they_were() -> None:
    text = "{a: 1e-3, b: 0x1f, c: ~, d: [on, 'on'], e: !!str 3, f: !!float 2, g: 190:20:30, h: .inf}"
    assert plain_value(text) == {
        **{"a": 1e-3, "b": 31, "c": None, "d": [True, "on"], "e": "3", "f": 2.0, "g": 685230, "h": float("inf")},
    }


def test_a_value_is_cut_before_it_is_written_out() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert len(shown("x" * 10**7)) <= 80
    assert_states(shown(10**5000), "5,001 digits")
    for value in (loop, [[[[Unbuilt([1])]]]], dict.fromkeys(range(10**5), "x" * 1000), b"x" * 10**6, [10**5000] * 9):
        assert len(shown(value)) <= 80
    assert shown({"b": 1, "a": [True, None]}) == "{'b': 1, 'a': [True, None]}"
    assert cut("abc") == "abc"
    assert len(cut("x" * 100, 10)) == 10
    assert len(str(InputError("x" * 10**6))) <= 2000
    began = time.process_time()
    assert len(str(unknown("model", "x" * 10**6, ["y" * 10**6, "small_cnn"]))) < 1000
    assert time.process_time() - began < 1


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "name", "null byte", "link to a device"])
def test_what_is_no_regular_file_is_not_read(kind: str, tmp_path: Path) -> None:
    places = {"device": "/dev/zero", "folder": str(tmp_path), "name": "x" * 5000, "null byte": "a\0b"}
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    places |= {"pipe": str(tmp_path / "pipe"), "link to a device": str(tmp_path / "link")}
    for read in (read_bounded, lambda path: read_json(Path(path)), lambda path: read_yaml(Path(path))):
        assert_states(refusal(read, places[kind]), "cannot read")


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    with open(file := tmp_path / "large", "wb") as sparse:
        sparse.truncate(5 * 2**30)
    for read in (read_bounded, read_json, read_yaml):
        assert_states(refusal(read, file), file, "5,368,709,120 bytes")


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"a": ' * 100_000])
def test_json_without_end_is_damaged(text: str, tmp_path: Path) -> None:
    (file := tmp_path / "a.json").write_text(text)
    with pytest.raises(DamagedFileError) as caught:
        read_json(file)
    assert_states(caught.value, file)


def test_numbers_beyond_single_precision_are_refused() -> None:
    for value in (1e39, -1e39, 1e-50, float("inf"), float("nan")):
        assert_states(refusal(in_float32, value, "alpha"), "alpha")
    for value in (0.0, 1e-30, 1e38, -3.0, 1e-37, float(torch.tensor(1e-37))):
        assert in_float32(value, "alpha") == value
    for text in (10**400, "1/0", "1/1e-400", "x" * 10**6):
        assert_states(refusal(number, text, "eps"), "eps")


@pytest.mark.parametrize("name", ["alpha", "lr", "momentum", "weight_decay", "eps", "weight", "k", "warmup", "width"])
@pytest.mark.parametrize("value", [1e39, 1e-50, 10**400])
def test_a_setting_beyond_single_precision_is_refused(name: str, value: float) -> None:
    assert_states(refusal(lambda: TrainConfig(method="asgt", **{name: value}).resolved()), name)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epochs": 10**400}, ["epochs", "401 digits", "years"]),
        ({"epochs": 10**10}, ["epochs", "days"]),
        ({"steps": 10**9}, ["steps", "100,000"]),
        ({"seed": 10**400}, ["seed"]),
        ({"seed": -1}, ["seed"]),
        ({"batch_size": 10**400}, ["batch_size"]),
        ({"image_size": 10**400}, ["image_size"]),
        ({"limit": 10**400}, ["limit"]),
    ],
)
def test_a_count_that_no_machine_gets_through_is_refused(settings: dict[str, Any], said: list[str]) -> None:
    assert_states(refusal(lambda: TrainConfig(method="at", **settings).resolved()), *said)


def test_what_is_merely_slow_is_not_refused() -> None:
    assert TrainConfig(method="at", epochs=100_000, steps=1000, seed=2**100).resolved().epochs == 100_000


def test_memory_is_refused_by_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory() < 2**50
    monkeypatch.setattr(capacity, "free_memory", lambda: 3 * 2**30)
    refuse_memory(3 * 2**30, "the images", "fewer")
    said = refusal(refuse_memory, 4 * 2**30, "the images", "a smaller --limit")
    assert_states(said, "the images", "4.0 GiB", "3.0 GiB", "--limit")


def test_time_is_refused_after_thirty_days() -> None:
    refuse_time(30 * 86400, "a training", "fewer --epochs")
    assert_states(refusal(refuse_time, 41 * 86400.0, "a training", "fewer --epochs"), "41 days", "fewer --epochs")
    assert [time_text(each) for each in (5400, 10 * 86400, 10 * 365.25 * 86400)] == ["1.5 hours", "10 days", "10 years"]
    assert [size_text(each) for each in (2**29, 3 * 2**30, 2**42)] == ["512 MiB", "3.0 GiB", "4.0 TiB"]


def test_a_model_is_refused_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 2**30)
    refuse_model("small_cnn", small_cnn, (1, 28, 28), 10, batch=128, trained=True)
    for shape, batch, classes, named in (
        ((1, 20000, 20000), 2, 10, "20000"),
        ((3, 32, 32), 10**8, 10, "--batch-size"),
        ((3, 32, 32), 10**400, 10, "--batch-size"),
        ((3, 32, 32), 2, 10**11, "small_cnn"),
        ((10**8, 8, 8), 2, 10, "small_cnn"),
    ):
        assert_states(refusal(refuse_model, "small_cnn", small_cnn, shape, classes, batch=batch), named, "1.0 GiB")


class Same(torch.nn.Module):
    """Gives what it takes, or a view of it."""

    def __init__(self, view: bool = False) -> None:
        super().__init__()
        self.view = view

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view_as(x) if self.view else x


class Attending(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(x, x, value=x).mean(dim=2)


class Computed(torch.nn.Module):
    """A layer whose weight is computed in each pass, once for the whole batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(10, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ (2 * self.weight).t()


class Broken(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise KeyError("no images")


@pytest.fixture
def needed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """What is asked for at most, of a batch that has to be looked at."""

    def measure(net: torch.nn.Module, batch: int, *, trained: bool = False) -> int:
        asked: list[int] = []
        monkeypatch.setattr("asgt.models.footprint.refuse_memory", lambda size, what, mend: asked.append(size))
        monkeypatch.setattr(capacity, "free_memory", lambda: 0)
        refuse_batch(net, (1, 2, 2), batch, torch.device("cpu"), trained=trained)
        return max(asked)

    return measure


def test_the_least_memory_of_a_batch_is_what_is_held_at_once(needed: Callable[..., int]) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    # Evaluation: the hidden values and what the ReLU made of them. A training: the image and what the ReLU gave.
    assert needed(net, 10**6) == 4 * 10**6 * (8 + 8)
    assert needed(net, 10**6, trained=True) == 4 * 10**6 * (4 + 8)
    assert needed(net, 1, trained=True) == 4 * 58, "the gradients of 58 weights"
    for weight in net.parameters():
        weight.requires_grad_(False)
    assert needed(net, 10**6, trained=True) == 4 * 10**6 * 4, "nothing is saved for frozen weights"


@pytest.mark.parametrize("trained", [True, False])
def test_what_takes_no_memory_of_its_own_is_not_counted(needed: Callable[..., int], trained: bool) -> None:
    def net(*others: torch.nn.Module) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), *others, torch.nn.Linear(8, 2))

    plain = needed(net(), 1000, trained=trained)
    assert needed(net(*(Same(view) for view in (True, False) * 20)), 1000, trained=trained) == plain
    assert needed(net(torch.nn.Dropout(), torch.nn.ReLU(inplace=True)), 1000, trained=trained) == plain


def test_what_does_not_grow_with_the_batch_is_counted_once(needed: Callable[..., int]) -> None:
    # The images and the one computed weight, whatever number of images there is.
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4), Computed())
    assert needed(net, 1000, trained=True) == 4 * (1000 * (4 + 4) + 40)


def test_the_matrix_of_attention_is_not_counted(needed: Callable[..., int]) -> None:
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Unflatten(3, (2, 1)), torch.nn.Flatten(2, 3))
    net.append(Attending())
    assert needed(net, 1000, trained=True) == 4 * 1000 * 4


@pytest.mark.parametrize("trained", [True, False])
def test_no_kind_of_model_makes_the_estimate_fail(needed: Callable[..., int], trained: bool) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 16))
    scripted, lazy = torch.jit.script(net), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
    frozen, traced = torch.jit.freeze(torch.jit.script(net.eval())), torch.jit.trace(net, torch.zeros(2, 1, 2, 2))
    exported = torch.export.export(net, (torch.zeros(2, 1, 2, 2),)).module()
    for model in (scripted, frozen, traced, exported, lazy, Broken(), torch.nn.Identity()):
        for each in (model, torch.nn.Sequential(torch.nn.Identity(), model)):
            assert 4 * 1000 * 4 <= needed(each, 1000, trained=trained) <= 4 * 1000 * (4 + 16)
            assert not any(module._forward_hooks for module in each.modules() if type(module) is torch.nn.Sequential)
    assert all(map(torch.nn.parameter.is_lazy, lazy.parameters())), "it is left as it is"


def test_a_batch_far_below_what_is_free_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    net = torch.nn.Flatten()
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    monkeypatch.setattr(capacity, "free_memory", lambda: 2**33)
    refuse_batch(net, (3, 32, 32), 256, torch.device("cpu"), trained=True)
    assert not calls
    refuse_batch(net, (3, 32, 32), 1024, torch.device("cpu"), trained=True)
    assert calls


def test_a_batch_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "free_memory", lambda: 2**30)
    net = small_cnn(1, 28, 10)
    for batch in (5000, 10**6, 10**12):
        said = refusal(refuse_batch, net, (1, 28, 28), batch, torch.device("cpu"), trained=True)
        assert_states(said, f"{batch:,} images", "--batch-size", "1.0 GiB")
    refuse_batch(net, (1, 28, 28), 1000, torch.device("cpu"), trained=True)


def test_looking_at_a_batch_draws_nothing_and_leaves_the_mode(needed: Callable[..., int]) -> None:
    class Noisy(torch.nn.Module):
        passes: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("passes", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            return torch.rand(len(x), 2) + torch.rand(1, device="cpu").to(x.device)

    torch.manual_seed(0)
    net, state = Noisy().train(), torch.get_rng_state()
    needed(net, 4)
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert net.passes == 0


TOLD = {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(**values: str | None) -> None:
        for name, value in ({**TOLD, "LOCAL_WORLD_SIZE": None} | values).items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return put


def test_what_a_launcher_says_is_taken(environment: Callable[..., None]) -> None:
    environment()
    check_rendezvous()
    assert (launched(), rank()) == (4, 1)
    environment(WORLD_SIZE=None)
    assert (launched(), rank()) == (1, 0)
    environment(WORLD_SIZE="", RANK="")
    assert (launched(), rank()) == (1, 0)


@pytest.mark.parametrize("name", ["WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"])
@pytest.mark.parametrize("value", ["x", "-1", "1e9", "9" * 5000, "3.5", "٣"])
def test_a_variable_of_a_launcher_that_is_no_number_is_named(
    environment: Callable[..., None], name: str, value: str
) -> None:
    environment(**{name: value})
    assert_states(refusal(check_rendezvous), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "4"), ("LOCAL_RANK", "9"), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "9" * 9), ("MASTER_PORT", "99999")]
    + [(name, None) for name in ("RANK", "MASTER_ADDR", "MASTER_PORT")]
    + [("MASTER_ADDR", "")],
)
def test_processes_that_would_not_find_each_other_are_refused(
    environment: Callable[..., None], name: str, value: str | None
) -> None:
    environment(**{name: value})
    assert_states(refusal(check_rendezvous), name)
