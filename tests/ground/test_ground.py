"""The ground floor: modes, randomness, files and statistics."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import asgt
from asgt.errors import AsgtError, DamagedFileError, InputError, unknown
from asgt.files import (
    digest,
    digest_tensors,
    read_json,
    read_tensors,
    read_yaml,
    standing,
    write_bytes,
    write_sealed,
    write_tensors,
    write_yaml,
)
from asgt.modes import evaluating
from asgt.randomness import (
    Generators,
    SampleKeyed,
    keyed_uniform,
    keys_like,
    normal_like,
    seed_of,
    seeded,
    uniform_like,
)
from asgt.statistics import (
    clopper_pearson,
    holm,
    mcnemar,
    median_interval,
    paired_bootstrap,
    t_interval,
    t_test,
    wilson,
)
from support.messages import assert_states


def python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own that imports the same package."""

    source = str(Path(asgt.__file__).parents[1])
    path = os.pathsep.join([source, os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Modes
# ---------------------------------------------------------------------------------------------------------------------


def layers() -> nn.Module:
    net = nn.Sequential(
        nn.Linear(2, 2),
        nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2))),
        nn.Dropout(),
    )
    net.train()
    net[1][0].eval()
    net[1][2].training = False  # itself, not what is in it
    return net


def modes(net: nn.Module) -> dict[str, bool]:
    return {name: module.training for name, module in net.named_modules()}


@pytest.mark.parametrize("top", [True, False])
def test_each_module_comes_back_as_it_was(top: bool) -> None:
    net = layers()
    net.training = top  # a model in evaluation mode may hold a layer that trains
    before = modes(net)
    assert len(set(before.values())) == 2

    with evaluating(net):
        assert not any(modes(net).values())

    assert modes(net) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_modes_come_back_after_an_exception(error: type[BaseException]) -> None:
    net = layers()
    before = modes(net)

    with pytest.raises(error), evaluating(net):
        raise error

    assert modes(net) == before


def test_modes_come_back_from_a_block_within_a_block() -> None:
    net = layers()
    before = modes(net)

    with evaluating(net):
        with evaluating(net):
            pass
        assert not any(modes(net).values())

    assert modes(net) == before


def test_a_plain_function_may_be_a_model() -> None:
    with evaluating(lambda x: x):
        pass


# ---------------------------------------------------------------------------------------------------------------------
# Randomness
# ---------------------------------------------------------------------------------------------------------------------

UNSIGNED = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """SplitMix64's output function, on plain integers."""

    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & UNSIGNED
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & UNSIGNED
    return z ^ (z >> 31)


def splitmix(seed: int, count: int) -> list[int]:
    return [mix((seed + n * GOLDEN) & UNSIGNED) for n in range(1, count + 1)]


def test_the_reference_is_splitmix64() -> None:
    """The published outputs for the seed 1234567."""

    assert splitmix(1234567, 5) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("seed", [0, 7, 123_456])
def test_keyed_noise_equals_splitmix64_on_plain_integers(seed: int) -> None:
    samples = [0, 1, 2, 59_999, 1 << 40]
    keyed = SampleKeyed(seed, torch.tensor(samples))

    for draw in range(3):
        values = keyed.uniform_like(torch.empty(5, 2, 3, dtype=torch.float64)).flatten(1)
        for row, sample in zip(values.tolist(), samples, strict=True):
            stream = mix((sample * GOLDEN + seed_of(seed, draw)) & UNSIGNED)
            assert row == [((word >> 41) + 0.5) / 2**23 for word in splitmix(stream, 6)]


@pytest.mark.slow
def test_a_seed_is_a_function_of_its_key_in_every_process() -> None:
    code = "from asgt.randomness import seed_of; print(seed_of(3, 'attack', 0, 17), seed_of('x'), seed_of())"

    done = python(code, PYTHONHASHSEED="1")

    assert done.stdout.split() == [str(seed_of(3, "attack", 0, 17)), str(seed_of("x")), str(seed_of())], done.stderr


def test_different_keys_give_different_seeds_of_63_bits() -> None:
    keys = [*itertools.product(range(3), ("attack", "mask", "order"), range(20), range(20))]
    keys += [(1,), ("1",), (1, 1), (11,), ("11",), ("1", "1"), (-1,)]
    keys += [("a", "b"), ("ab",), ("b", "a"), ("",), ("", ""), ()]

    seeds = [seed_of(*key) for key in keys]

    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    # every bit is used: the mean of n of them has standard error 2^63/√(12n)
    assert abs(sum(seeds) / len(seeds) / 2**63 - 0.5) < 4.5 / math.sqrt(12 * len(seeds))


def test_a_seeded_generator_is_a_function_of_its_key_and_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()

    first, again, other = (torch.rand(8, generator=seeded(0, "mask", step)) for step in (5, 5, 6))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("like", [uniform_like, normal_like])
def test_keyed_noise_does_not_depend_on_the_batch(like: type[uniform_like]) -> None:
    names = torch.tensor([5, 2, 9, 0, 70_000])
    whole = like(torch.empty(5, 3, 4, 4), SampleKeyed(1, names))

    for order in ([0], [4, 1], [3, 2, 0], [1, 1]):
        assert torch.equal(like(torch.empty(len(order), 3, 4, 4), SampleKeyed(1, names[order])), whole[order])
    assert len({tuple(sample.flatten().tolist()) for sample in whole}) == 5


def test_keyed_noise_is_keyed_by_seed_and_draw() -> None:
    x, names = torch.empty(3, 10), torch.tensor([4, 5, 6])
    keyed = SampleKeyed(1, names)
    first, second = keyed.uniform_like(x), keyed.uniform_like(x)

    assert torch.equal(SampleKeyed(1, names).uniform_like(x), first)
    assert torch.equal(SampleKeyed(1, names, draw=1).uniform_like(x), second)
    assert not (first == second).any()
    assert not (SampleKeyed(2, names).uniform_like(x) == first).any()


def test_keyed_uniforms_have_the_moments_of_uniforms() -> None:
    values = SampleKeyed(0, torch.arange(400)).uniform_like(torch.empty(400, 500, dtype=torch.float64))
    n = values.numel()

    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert abs(float(values.mean()) - 0.5) < 4.5 / math.sqrt(12 * n)
    assert abs(float((values - 0.5).square().mean()) - 1 / 12) < 4.5 / math.sqrt(180 * n)
    assert scipy.stats.kstest(values.flatten().numpy(), "uniform").pvalue > 1e-4
    # neighbours among samples, coordinates and draws are uncorrelated: r has standard error 1/√n
    again = SampleKeyed(0, torch.arange(400), draw=1).uniform_like(values)
    for a, b in [(values[1:], values[:-1]), (values[:, 1:], values[:, :-1]), (values, again)]:
        correlation = float(((a - 0.5) * (b - 0.5)).mean()) * 12
        assert abs(correlation) < 4.5 / math.sqrt(a.numel())


@pytest.mark.parametrize("generator", [SampleKeyed(3, torch.arange(400)), torch.Generator().manual_seed(3)])
def test_the_noise_of_a_key_is_uniform_and_its_own(generator: SampleKeyed | torch.Generator) -> None:
    keys = keys_like(torch.empty(400, 1), generator)
    draws = torch.arange(400) % 7
    values = keyed_uniform(keys, draws, 500)
    n = values.numel()

    assert values.dtype == torch.float32
    assert 0 < values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    assert scipy.stats.kstest(values.flatten().numpy(), "uniform").pvalue > 1e-4
    again = keyed_uniform(keys, draws + 1, 500)
    for a, b in [(values[1:], values[:-1]), (values[:, 1:], values[:, :-1]), (values, again)]:
        assert abs(float(((a - 0.5) * (b - 0.5)).mean()) * 12) < 4.5 / math.sqrt(n)
    # whatever else is in the batch, and however much is asked for
    assert torch.equal(keyed_uniform(keys[[7, 3]], draws[[7, 3]], 20), values[[7, 3], :20])


def test_a_key_is_one_draw_of_the_generator() -> None:
    keyed = SampleKeyed(1, torch.tensor([4, 5, 6]))
    keys = [keys_like(torch.empty(3, 2), keyed) for _ in range(2)]

    assert keyed.draw == 2
    assert len(set(torch.cat(keys).tolist())) == 6
    assert torch.equal(keys_like(torch.empty(3, 2), SampleKeyed(1, torch.tensor([4, 5, 6]), draw=1)), keys[1])


@pytest.mark.slow
def test_the_largest_noise_of_a_key_leaves_a_product_below_its_factor() -> None:
    """Else a place drawn as the integer part of n · u could be n itself."""

    largest = torch.tensor(1.0 - 2.0**-23)
    factors = torch.arange(1, 10_000).float()

    assert (factors * largest < factors).all()
    # 12.8 million values: the largest of the 2²³ that there are is drawn with probability 0.78, and is cut
    assert keyed_uniform(torch.arange(64), torch.zeros(64, dtype=torch.int64), 200_000).max() <= largest


@pytest.mark.parametrize("keyed", [True, False])
def test_normal_noise_has_the_moments_of_the_normal_distribution(keyed: bool) -> None:
    generator = SampleKeyed(0, torch.arange(200)) if keyed else torch.Generator().manual_seed(0)
    values = normal_like(torch.empty(200, 500, dtype=torch.float64), generator)
    n = values.numel()

    assert values.isfinite().all()
    assert abs(float(values.mean())) < 4.5 / math.sqrt(n)
    assert abs(float(values.square().mean()) - 1) < 4.5 * math.sqrt(2 / n)
    assert abs(float((values**3).mean())) < 4.5 * math.sqrt(15 / n)
    assert abs(float((values**4).mean()) - 3) < 4.5 * math.sqrt(96 / n)
    assert scipy.stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_shape_and_type_of_its_model_tensor(dtype: torch.dtype) -> None:
    x = torch.empty(2, 3, 4, dtype=dtype)

    for like in (uniform_like, normal_like):
        for generator in (SampleKeyed(0, torch.arange(2)), torch.Generator().manual_seed(0), None):
            noise = like(x, generator)
            assert noise.shape == x.shape
            assert noise.dtype == dtype


def test_pytorchs_generator_is_taken_as_it_is() -> None:
    x = torch.empty(2, 3)

    uniform = uniform_like(x, torch.Generator().manual_seed(4))
    normal = normal_like(x, torch.Generator().manual_seed(4))

    assert torch.equal(uniform, torch.rand(2, 3, generator=torch.Generator().manual_seed(4)))
    assert torch.equal(normal, torch.randn(2, 3, generator=torch.Generator().manual_seed(4)))


def test_generators_are_two_streams_and_empty_by_default() -> None:
    one = torch.Generator()

    assert Generators() == Generators(attack=None, mask=None)
    assert Generators(mask=one).attack is None
    assert Generators(mask=one).mask is one


def test_keyed_uniforms_lie_strictly_within_zero_and_one_in_float32() -> None:
    # Coordinate 17 of sample 76350 under seed 0 has 24 leading bits that are all one.
    values = SampleKeyed(0, torch.tensor([76350])).uniform_like(torch.empty(1, 18))

    assert values[0, 17] > 0.999999
    assert values.max() < 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keyed_uniforms_lie_within_zero_and_one_in_half_precision(dtype: torch.dtype) -> None:
    values = SampleKeyed(0, torch.arange(4)).uniform_like(torch.empty(4, 2000, dtype=dtype))

    assert values.max() < 1


# ---------------------------------------------------------------------------------------------------------------------
# Errors
# ---------------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_gets_the_nearest_known_one() -> None:
    error = unknown("method", "agst", ["st", "asgt", "trades"])

    assert isinstance(error, InputError)
    # The nearest stands in quotes, as the other known ones do not.
    assert_states(error, "method", "'agst'", "'asgt'", "st", "trades")
    assert "'asgt'" not in str(unknown("method", "zzzzzz", ["st", "asgt"]))
    assert "'st'" not in str(unknown("method", "zzzzzz", ["st", "asgt"]))


def test_a_damaged_file_is_an_input_error() -> None:
    assert issubclass(DamagedFileError, InputError)
    assert issubclass(InputError, AsgtError)
    assert issubclass(InputError, ValueError)


# ---------------------------------------------------------------------------------------------------------------------
# Files: whole or not at all
# ---------------------------------------------------------------------------------------------------------------------


def test_bytes_are_written_whole_into_folders_that_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"

    write_bytes(path, b"one")
    write_bytes(path, b"\x00two\xff")

    assert path.read_bytes() == b"\x00two\xff"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.bin"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from asgt.errors import InputError
from asgt.files import write_bytes

resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_bytes(Path(sys.argv[1]), b"n" * 100_000)
except InputError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("before", [b"what stood there", None])
def test_a_write_that_the_system_stops_leaves_the_old_file_and_no_litter(tmp_path: Path, before: bytes | None) -> None:
    pytest.importorskip("resource")
    path = tmp_path / "file.bin"
    if before is not None:
        path.write_bytes(before)

    done = python(FULL_DISK, str(path))

    assert done.returncode == 7, done.stderr
    assert str(path) in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([] if before is None else [before])


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_at_any_step_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(InputError) as caught:
        write_bytes(path, b"new")
    monkeypatch.undo()

    assert_states(caught.value, path, "No space left on device")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]


def test_the_content_reaches_the_disk_before_the_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, order = tmp_path / "file.bin", []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        order.append("sync")
        sync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        order.append("replace")
        assert Path(source).read_bytes() == b"content"
        assert not path.exists()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_bytes(path, b"content")

    assert order == ["sync", "replace", "sync"]


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()

    with pytest.raises(InputError, match="name"):
        write_bytes(tmp_path / "name", b"content")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"")

    with pytest.raises(InputError, match="name"):
        write_bytes(tmp_path / "name" / "file.bin", b"content")


# ---------------------------------------------------------------------------------------------------------------------
# Files: JSON and YAML
# ---------------------------------------------------------------------------------------------------------------------


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"ε": "8/255"}, "third": 1 / 3}
    write_sealed(tmp_path / "x.json", value)

    written = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))
    assert read_json(tmp_path / "x.json") == written
    assert {name: written[name] for name in value} == value


def test_yaml_comes_back_as_it_was_and_in_its_own_order(tmp_path: Path) -> None:
    value = {"zeta": [1, 2.5, None, True], "alpha": {"ε": "8/255"}, "third": 1 / 3, "yes": "no"}
    write_yaml(tmp_path / "x.yaml", value)

    assert read_yaml(tmp_path / "x.yaml") == value
    assert list(read_yaml(tmp_path / "x.yaml")) == list(value)


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"nope", b"\xff\xfe\x00", b'{"a": 1} trailing'])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)

    with pytest.raises(DamagedFileError) as caught:
        read_json(path)
    assert_states(caught.value, path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"a: [1, 2",
        b"- a\n- b\n",
        b"just words",
        b"a: b: c",
        b"\xff\xfe\x00",
        b"a: \x00",
        b"!!python/name:os.system",
        b"{a: 1}: {b: 2}",
    ],
)
def test_damaged_yaml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)

    with pytest.raises(DamagedFileError) as caught:
        read_yaml(path)
    assert_states(caught.value, path)


@pytest.mark.slow
@pytest.mark.parametrize("content", ["day: 2024-13-45", "a: 0x_", "a: " + "1" * 5000, "a: " + "[" * 3000])
def test_yaml_values_that_cannot_be_are_damage_too(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)

    with pytest.raises(DamagedFileError):
        read_yaml(path)


def test_json_nested_without_end_is_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[" * 100_000)

    with pytest.raises(DamagedFileError):
        read_json(path)


def test_nothing_in_a_yaml_file_runs(tmp_path: Path) -> None:
    path, trace = tmp_path / "x.yaml", tmp_path / "ran"
    path.write_text(f"a: !!python/object/apply:os.mkdir ['{trace}']\n")

    with pytest.raises(DamagedFileError):
        read_yaml(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "read",
    [
        read_json,
        read_yaml,
        read_tensors,
    ],
)
def test_a_missing_file_is_an_input_error_and_not_damage(tmp_path: Path, read: type[read_json]) -> None:
    with pytest.raises(InputError, match="absent") as caught:
        read(tmp_path / "absent.file")
    assert not isinstance(caught.value, DamagedFileError)


# ---------------------------------------------------------------------------------------------------------------------
# Files: tensors
# ---------------------------------------------------------------------------------------------------------------------


def test_tensors_and_metadata_come_back_bit_by_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    tensors = {
        "plain": base,
        "double": base.double(),
        "half": base.half(),
        "brain": base.bfloat16(),
        "long": torch.tensor([-(2**62), 0, 3]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "specials": torch.tensor([math.nan, math.inf, -math.inf, -0.0]),
        "turned": base.t(),
        "strided": base[::2, 1::2],
        "spread": torch.tensor([1.0]).expand(3, 2),
        "learned": nn.Parameter(base.clone()),
        "nested.name/with space": base[0],
    }

    write_tensors(tmp_path / "x.safetensors", tensors, {"step": "17", "ε": "8/255"})
    back, metadata = read_tensors(tmp_path / "x.safetensors")

    assert metadata == {"step": "17", "ε": "8/255"}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype
        assert back[name].shape == tensor.shape
        torch.testing.assert_close(back[name], tensor.detach(), rtol=0, atol=0, equal_nan=True)
    assert math.copysign(1.0, float(back["specials"][3])) == -1.0


def test_tied_weights_are_written_and_the_model_stays_tied(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight

    write_tensors(tmp_path / "x.safetensors", net.state_dict())
    back, metadata = read_tensors(tmp_path / "x.safetensors")

    assert metadata == {}
    assert torch.equal(back["0.weight"], net[0].weight)
    assert torch.equal(back["1.weight"], net[0].weight)
    assert net[1].weight is net[0].weight


def test_what_was_read_survives_the_files_replacement(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(100_000)})
    back, _ = read_tensors(path)

    write_tensors(path, {"a": torch.zeros(100_000)})

    assert (back["a"] == 1).all()


@pytest.mark.parametrize("left", [0, 4, 8, 20, 0.5, -1])
def test_a_truncated_tensor_file_is_named(tmp_path: Path, left: float) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"a": torch.arange(100.0), "b": torch.ones(3, 3)}, {"step": "1"})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole)) if left == 0.5 else int(left)])

    with pytest.raises(DamagedFileError) as caught:
        read_tensors(path)
    assert_states(caught.value, path)


@pytest.mark.parametrize("content", [b"hello, this is text", b"\xff" * 64, b"\x80\x04pickle" * 8, bytes(64)])
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(DamagedFileError) as caught:
        read_tensors(path)
    assert_states(caught.value, path)


# ---------------------------------------------------------------------------------------------------------------------
# Files: digests
# ---------------------------------------------------------------------------------------------------------------------


def test_a_digest_is_sha256_of_everything_in_turn() -> None:
    # the published vector for "abc"
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

    assert digest(b"abc") == expected
    assert digest(b"a", b"", b"bc") == expected
    assert digest() == hashlib.sha256().hexdigest()


ZEROS = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": ZEROS},
        {"weight": ZEROS.to(torch.int32)},  # the same bytes
        {"weight": ZEROS.view(3, 2)},
        {"weight": ZEROS.view(6)},
        {"weight": ZEROS.index_put((torch.tensor(1), torch.tensor(2)), torch.tensor(1e-45))},
        {"weight": -ZEROS},  # -0.0: other bits
        {"weight": ZEROS, "bias": torch.zeros(0)},
        {},
    ],
    ids=["name", "dtype", "shape", "dimensions", "value", "sign of zero", "more", "none"],
)
def test_the_digest_of_tensors_sees_every_difference(other: dict[str, Tensor]) -> None:
    assert digest_tensors(other) != digest_tensors({"weight": ZEROS})


def test_the_digest_of_tensors_sees_which_name_holds_which() -> None:
    a, b = torch.zeros(2), torch.ones(2)

    assert digest_tensors({"a": a, "b": b}) != digest_tensors({"a": b, "b": a})


def test_the_digest_of_tensors_sees_content_and_not_layout_order_or_gradient(tmp_path: Path) -> None:
    base = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    scalar = torch.tensor(1.5, dtype=torch.bfloat16)
    expected = digest_tensors({"a": base, "b": scalar})

    assert digest_tensors({"b": scalar.clone(), "a": base.t().contiguous().t()}) == expected
    assert digest_tensors({"a": nn.Parameter(base), "b": scalar}) == expected
    write_tensors(tmp_path / "x.safetensors", {"a": base, "b": scalar})
    assert digest_tensors(read_tensors(tmp_path / "x.safetensors")[0]) == expected


def test_no_name_can_imitate_another_set_of_tensors() -> None:
    one = {"a": torch.tensor([ord("X")], dtype=torch.uint8), "b": torch.tensor([1], dtype=torch.uint8)}
    other = {"a torch.uint8 (1,)Xb": torch.tensor([1], dtype=torch.uint8)}

    assert digest_tensors(one) != digest_tensors(other)


# ---------------------------------------------------------------------------------------------------------------------
# Statistics
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [1, 2, 10, 64, 10_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_wilson_equals_scipy(trials: int, confidence: float) -> None:
    for successes in sorted({0, 1, trials // 3, trials // 2, trials - 1, trials}):
        oracle = scipy.stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        assert wilson(successes, trials, confidence) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(trials=st.integers(1, 10**9), share=st.floats(0, 1))
def test_wilson_holds_the_share_and_stays_in_zero_to_one(trials: int, share: float) -> None:
    successes = round(share * trials)

    low, high = wilson(successes, trials)

    assert 0 <= low <= successes / trials <= high <= 1
    assert low < high
    assert (low == 0) == (successes == 0)
    assert (high == 1) == (successes == trials)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (1, 0), (5, 4), (-1, 4)])
def test_wilson_of_impossible_counts_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        wilson(successes, trials)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (0, 64), (3, 64), (64, 64), (500, 1000)])
def test_clopper_and_pearsons_interval_is_scipys(successes: int, trials: int) -> None:
    from scipy.stats import binomtest

    exact = binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert clopper_pearson(successes, trials) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (2, 1), (-1, 3)])
def test_an_interval_of_what_cannot_be_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="no interval"):
        clopper_pearson(successes, trials)


@pytest.mark.parametrize("count", [6, 9, 15, 40, 101])
def test_the_interval_of_a_median_is_scipys(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()

    oracle = scipy.stats.quantile_test(values, p=0.5).confidence_interval(0.95)

    assert median_interval(values) == (oracle.low, oracle.high)


def test_the_interval_of_a_median_of_few_values_is_their_range() -> None:
    assert median_interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    with pytest.raises(ValueError, match="no values"):
        median_interval([])


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (0, 5, 2 / 2**5),
        (5, 0, 2 / 2**5),
        (1, 7, 2 * (1 + 8) / 2**8),
        (4, 4, 1.0),
        # Of 20 throws, 1 + 20 + 190 + 1140 + 4845 ways give no more than four.
        (4, 16, 2 * 6196 / 2**20),
    ],
)
def test_mcnemars_p_is_that_of_a_fair_coin(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(only_first=st.integers(0, 5_000), only_second=st.integers(0, 5_000))
def test_mcnemars_p_is_that_of_scipys_exact_binomial_test(only_first: int, only_second: int) -> None:
    both = only_first + only_second
    exact = scipy.stats.binomtest(only_first, both).pvalue if both else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_mcnemar_takes_counts_only() -> None:
    with pytest.raises(ValueError, match="counts"):
        mcnemar(-1, 3)


def pairs(both: int, only_first: int, only_second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """The outcomes of two models on as many samples of each kind, mixed up."""

    outcomes = [(True, True)] * both + [(True, False)] * only_first + [(False, True)] * only_second
    outcomes += [(False, False)] * neither
    order = torch.randperm(len(outcomes), generator=torch.Generator().manual_seed(0)).tolist()
    first, second = zip(*(outcomes[place] for place in order), strict=True)
    return list(first), list(second)


@pytest.mark.parametrize("counts", [(60, 25, 8, 7), (200, 12, 30, 100), (5, 3, 0, 12)])
@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_the_paired_bootstrap_is_that_of_drawing_samples(counts: tuple[int, ...], confidence: float) -> None:
    first, second = pairs(*counts)
    low, high = paired_bootstrap(first, second, draws=20_000, confidence=confidence)

    # The samples themselves, drawn with replacement, and scipy's own bootstrap.
    drawn = scipy.stats.bootstrap(
        (torch.tensor(first).double().numpy(), torch.tensor(second).double().numpy()),
        lambda one, other, axis: one.mean(axis=axis) - other.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        confidence_level=confidence,
        random_state=1,
    ).confidence_interval
    # A bootstrapped difference is a whole number of samples, so its quantiles are off by one at the most.
    assert (low, high) == pytest.approx((drawn.low, drawn.high), abs=1.001 / len(first))


def test_the_paired_bootstrap_has_the_width_of_its_variance() -> None:
    first, second = pairs(6_000, 2_000, 1_000, 1_000)
    # Var(b − c) of a multinomial is n (p + q − (p − q)²).
    half = 1.959964 * math.sqrt((0.2 + 0.1 - 0.1**2) / 10_000)
    for outcomes in ((first, second), (torch.tensor(first), torch.tensor(second))):
        low, high = paired_bootstrap(*outcomes)
        assert (low, high) == pytest.approx((0.1 - half, 0.1 + half), abs=5e-4)
        assert paired_bootstrap(*outcomes, seed=0) == (low, high)
        assert paired_bootstrap(*outcomes, seed=1) != (low, high)
    assert paired_bootstrap(second, first) == pytest.approx((-0.1 - half, -0.1 + half), abs=5e-4)


def test_a_bootstrap_of_equal_outcomes_has_no_width() -> None:
    assert paired_bootstrap([True, False, True], [True, False, True]) == (0.0, 0.0)
    assert paired_bootstrap([True] * 3, [False] * 3) == (1.0, 1.0)


@pytest.mark.parametrize(("first", "second"), [([], []), ([True], [True, False]), ([[True]], [[True]])])
def test_outcomes_that_are_no_pairs_are_refused(first: list[bool], second: list[bool]) -> None:
    with pytest.raises(ValueError, match="no pairs"):
        paired_bootstrap(first, second)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.integers(-100, 100), min_size=2, max_size=9).filter(lambda values: len(set(values)) > 1))
def test_students_interval_and_test_are_scipys(values: list[int]) -> None:
    shares = [value / 100 for value in values]
    oracle = scipy.stats.ttest_1samp(shares, 0.0)
    assert t_test(shares) == pytest.approx(oracle.pvalue, rel=1e-9)
    for confidence in (0.5, 0.95):
        expected = oracle.confidence_interval(confidence)
        assert t_interval(shares, confidence) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)
    # Less than what there is of spread changes nothing.
    assert t_test(shares, least=0.001) == t_test(shares)
    assert t_interval(shares, least=0.001) == t_interval(shares)


def test_two_values_have_cauchys_interval_and_p() -> None:
    # With one degree of freedom t is Cauchy's: quantile tan(π (p − 1/2)), and of 1 and 3 the standard error is 1.
    assert t_interval([1, 3]) == pytest.approx((2 - math.tan(0.475 * math.pi), 2 + math.tan(0.475 * math.pi)))
    assert t_test([1, 3]) == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    assert t_test([-1, -3]) == pytest.approx(1 - 2 * math.atan(2) / math.pi)


def test_values_without_spread_have_an_interval_without_width_unless_a_least_one_is_given() -> None:
    assert t_interval([0.25] * 3) == (0.25, 0.25)
    assert (t_test([0.25] * 3), t_test([-0.25] * 3), t_test([0.0] * 3)) == (0.0, 0.0, 1.0)

    # With a standard deviation of 0.5 the standard error of two values is 0.5 / √2.
    t = 0.25 / (0.5 / math.sqrt(2))
    assert t_test([0.25] * 2, least=0.5) == pytest.approx(1 - 2 * math.atan(t) / math.pi)
    half = math.tan(0.475 * math.pi) * 0.5 / math.sqrt(2)
    assert t_interval([0.25] * 2, least=0.5) == pytest.approx((0.25 - half, 0.25 + half))
    assert t_test([0.0] * 2, least=0.5) == 1.0


def test_one_value_has_no_interval_and_no_p() -> None:
    for function in (t_interval, t_test):
        with pytest.raises(ValueError, match="no spread"):
            function([0.5])


def test_holms_adjustment_by_hand() -> None:
    # 4 · 0.005; 3 · 0.01; 2 · 0.03; 0.04, but not below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert (holm([0.2]), holm([])) == ([0.2], [])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferronis(p_values: list[float]) -> None:
    # A claim is adjusted to the largest Bonferroni p of all sets of claims that hold it (Marcus, Peritz, Gabriel 1976).
    count = len(p_values)
    sets = [s for size in range(1, count + 1) for s in itertools.combinations(range(count), size)]
    expected = [
        max(min(1.0, len(s) * min(p_values[other] for other in s)) for s in sets if claim in s)
        for claim in range(count)
    ]
    assert holm(p_values) == pytest.approx(expected)


@pytest.mark.parametrize("p_values", [[0.1, 1.5], [-0.1], [math.nan]])
def test_what_is_no_p_value_is_not_adjusted(p_values: list[float]) -> None:
    with pytest.raises(ValueError, match="no p values"):
        holm(p_values)


def test_a_folder_that_is_removed_while_it_is_written_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "page" / "figures"
    with standing(folder):
        (folder / "kept").touch()
    assert (folder / "kept").exists()

    with pytest.raises(InputError, match="removed"), standing(folder):
        shutil.rmtree(folder)

    def made_anew() -> None:
        shutil.rmtree(folder)
        write_bytes(folder / "half", b"")

    with pytest.raises(InputError, match="removed"), standing(folder):
        made_anew()
