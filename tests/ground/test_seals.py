"""Files that carry the digest of their content: every flipped bit, cut and edit is noticed by the next read."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import save, save_file

from asgt.errors import DamagedFileError, InputError
from asgt.files import (
    digest_file,
    digest_stored,
    is_sealed,
    read_json,
    read_sealed,
    read_tensors,
    write_bytes,
    write_sealed,
    write_tensors,
)
from support.messages import assert_states

VALUES = {"schema": 1, "name": "é\u2028", "figures": [0.1, 1e-300, -3], "nested": {"sha256": "of something else"}}
TENSORS = {"weight": torch.arange(4.0).reshape(2, 2), "bias": torch.tensor([True]), "none": torch.zeros(0, 4)}


def flips(content: bytes) -> Iterator[bytes]:
    """The content with one bit flipped, a bit of each byte in turn."""

    draws = random.Random(0)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << draws.randrange(8)
        yield bytes(changed)


def test_a_flipped_bit_of_any_byte_of_sealed_json_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    written = write_sealed(path, VALUES)
    content = path.read_bytes()
    assert written == digest_file(path)
    assert read_sealed(path) == (VALUES, True)

    for changed in flips(content):
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError) as caught:
            read_sealed(path)
        assert_states(caught.value, path, "damaged")


def test_a_flipped_bit_of_any_byte_of_a_tensor_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS, {"epoch": "3"})
    content = path.read_bytes()
    tensors, told = read_tensors(path)
    assert told == {"epoch": "3"}
    assert all(tensors[name].equal(tensor) for name, tensor in TENSORS.items())

    for changed in flips(content):
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError) as caught:
            read_tensors(path)
        assert_states(caught.value, path, "damaged")


@pytest.mark.parametrize("name", ["result.json", "model.safetensors"])
def test_a_file_that_was_cut_or_grew_is_damaged(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_sealed(path, VALUES) if path.suffix == ".json" else write_tensors(path, TENSORS)
    content = path.read_bytes()
    cuts = random.Random(0).sample(range(len(content)), 40)
    for changed in (*(content[:cut] for cut in cuts), content + b"\0", content + b" ", content + content):
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            read_sealed(path) if path.suffix == ".json" else read_tensors(path)


def test_the_same_content_is_the_same_file(tmp_path: Path) -> None:
    told = {name: name for name in ("a", "step", "zebra", "k", "version")}
    assert write_tensors(tmp_path / "one", TENSORS, told) == write_tensors(
        tmp_path / "two", dict(reversed(TENSORS.items())), dict(reversed(told.items()))
    )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    # Other metadata is another file with the same tensors.
    assert write_tensors(tmp_path / "three", TENSORS, {"a": "b"}) != digest_file(tmp_path / "one")
    assert digest_stored(tmp_path / "three") == digest_stored(tmp_path / "one")


def test_what_carries_no_digest_is_read_and_said_to_carry_none(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(json.dumps(VALUES, indent=2))
    save_file(TENSORS, tmp_path / "old.safetensors", {"epoch": "3"})

    assert read_sealed(tmp_path / "old.json") == (VALUES, False)
    assert read_tensors(tmp_path / "old.safetensors")[1] == {"epoch": "3"}
    assert not is_sealed(tmp_path / "old.json")
    assert not is_sealed(tmp_path / "old.safetensors")


def test_an_edit_by_hand_is_damage_also_where_the_file_is_laid_out_anew(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_sealed(path, VALUES)
    sealed = read_json(path)
    for text in (json.dumps(sealed | {"schema": 2}, indent=2), json.dumps(sealed), json.dumps(sealed, indent=2)):
        path.write_text(text)
        with pytest.raises(DamagedFileError):
            read_sealed(path)


def test_work_does_not_bring_a_removed_folder_back(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_bytes(folder / "first", b"1")
    shutil.rmtree(folder)
    with pytest.raises(InputError) as caught:
        write_bytes(folder / "second", b"2", begin=False)
    assert_states(caught.value, folder / "second", "removed")
    assert not folder.exists()


def test_a_tensor_file_is_what_the_library_writes_of_one_block(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.int64, torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.bool)
    tensors = {f"{name}.{kind}": torch.arange(6).to(kind).view(2, 3).t() for name in "ba" for kind in kinds}
    tensors |= {"empty": torch.empty(0, 3), "scalar": torch.tensor(1.5), "é": torch.ones(1)}
    write_tensors(path := tmp_path / "ours", tensors, {"k": "v\n"})
    metadata = safetensors.safe_open(path, framework="pt").metadata()
    theirs = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    ours = path.read_bytes()
    sizes = [int.from_bytes(each[:8], "little") for each in (ours, theirs)]
    headers = [json.loads(each[8 : 8 + size]) for each, size in zip((ours, theirs), sizes, strict=True)]
    assert headers[0] == headers[1]
    assert ours[8 + sizes[0] :] == theirs[8 + sizes[1] :]
    assert (8 + sizes[0]) % 8 == 0
