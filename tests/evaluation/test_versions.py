"""Versions of one protocol beside each other: what each is called, in code and in files, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import asgt
from asgt.errors import InputError
from asgt.evaluation.curve import evaluate
from asgt.evaluation.outcomes import Evaluation, definition
from asgt.evaluation.protocols import EARLIER, KNOWN, OWN, PROTOCOLS, Protocol, own_protocol, protocol_named
from asgt.evaluation.shards import load_evaluation
from support.messages import assert_states


class AlwaysWrong(nn.Module):
    """Three classes; the label is never the answer, so that no search has anything to do."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.register_buffer("answers", torch.tensor([1, 2, 0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The third image is brighter than the second, the second than the first.
        place = (x.mean(dim=(1, 2, 3)) * 8).floor().long().clamp(0, 2)
        return nn.functional.one_hot(self.answers[place], 3).float() + self.bias + 0 * x.sum(dim=(1, 2, 3))[:, None]


@pytest.fixture
def data() -> asgt.Images:
    pixels = torch.tensor([10, 50, 90], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 2, 2).contiguous()
    return asgt.Images(pixels, torch.tensor([0, 1, 2]), ("a", "b", "c"))


@pytest.mark.parametrize(("key", "protocol"), KNOWN.items())
def test_each_protocol_is_found_by_its_key_and_by_its_version(key: str, protocol: Protocol) -> None:
    assert protocol.key == key
    assert protocol_named(key) == protocol
    assert protocol_named(f"{protocol.name}@{protocol.version}") == protocol
    assert protocol.is_house
    if protocol.can_be_in("l2"):
        assert protocol_named(key, "l2").key == key
        assert protocol_named(key, "l2").is_house


def test_the_registries_fit_each_other() -> None:
    assert KNOWN == PROTOCOLS | EARLIER
    assert [key for key in KNOWN if key in PROTOCOLS] == list(PROTOCOLS)
    for key, protocol in EARLIER.items():
        assert key == f"{protocol.name}@{protocol.version}"
        assert protocol.version < PROTOCOLS[protocol.name].version
        assert list(KNOWN).index(key) < list(KNOWN).index(protocol.name), "the newest version judges"
    stored = [protocol.stored_as for protocol in KNOWN.values()]
    assert len(set(stored)) == len(stored), "no two share a folder"


def test_versions_that_were_stored_under_the_plain_name_keep_it() -> None:
    stored = {(each.name, each.version): each.stored_as for each in KNOWN.values()}
    assert stored["paper", 1] == "paper"
    assert stored["pgd", 3] == "pgd"
    assert stored["standard", 1] == "standard"
    assert stored["autoattack", 2] == "autoattack"
    assert stored["standard", 2] == "standard@2"
    assert stored["standard-quick", 2] == "standard-quick@2"
    # and so does any later version of any of them
    assert [replace(PROTOCOLS[name], version=7).stored_as for name in ("paper", "pgd", "autoattack")] == [
        "paper@7",
        "pgd@7",
        "autoattack@7",
    ]


def test_protocols_of_ones_own_have_one_name() -> None:
    mine = replace(PROTOCOLS["pgd"], name="mine", version=9)
    ours = own_protocol([asgt.PGD(steps=2)], "linf")
    for protocol, name in ((mine, "mine"), (ours, OWN)):
        assert (protocol.key, protocol.stored_as, protocol.is_house) == (name, name, False)


@pytest.mark.parametrize(
    ("asked", "facts"),
    [
        ("standard@3", ["standard@3", "standard@1", "standard@2"]),
        ("standard@", ["standard@1", "standard@2"]),
        ("standard@01", ["standard@01", "standard@1"]),
        ("pgd@2", ["pgd@2", "pgd@3"]),
        ("standard-quick@1", ["standard-quick@1", "standard-quick@2"]),
        ("standrd", ["'standrd'", "standard", "standard@1"]),
        ("@1", ["''", "standard@1"]),
    ],
)
def test_an_unknown_version_is_refused_with_those_that_there_are(asked: str, facts: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        protocol_named(asked)
    assert_states(refused.value, *facts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("norm", "digests"),
    [
        ("linf", ("93864fce7ff5b0a7f5f75c1f31020b46", "52b8586eb57cabfd844be58a17cad2ef")),
        ("l2", ("a93e608cb15f30601b43b5c5bc2c702c", "a6a16f05469a178bbe99a235d59c62d5")),
    ],
)
def test_the_first_version_of_standard_is_to_the_byte_what_evidence_was_keyed_by(
    norm: asgt.Norm, digests: tuple[str, str]
) -> None:
    first = protocol_named("standard@1", norm)
    assert first.identity == repr(first)
    told = (first.identity, json.dumps(definition(first, 10)))
    # Computed by the last release that had no other version.
    assert tuple(hashlib.sha256(text.encode()).hexdigest()[:32] for text in told) == digests


def test_a_result_says_by_which_version_it_was_made_and_is_read_back(data: asgt.Images, tmp_path: Path) -> None:
    net = AlwaysWrong()
    for key in ("standard@1", "standard", "standard-quick"):
        made = evaluate(net, data, protocol=key, epsilons=[0.1], folder=tmp_path / key)
        assert "own" not in made.to_dict()
        read = load_evaluation(tmp_path / key)
        assert (read.protocol.key, read.to_dict()) == (key, made.to_dict())


def test_evidence_of_another_version_is_neither_mixed_nor_refused_without_the_remedy(
    data: asgt.Images, tmp_path: Path
) -> None:
    def again(protocol: str) -> Evaluation:
        return evaluate(AlwaysWrong(), data, protocol=protocol, epsilons=[0.1], folder=tmp_path, resume=True)

    again("standard@1")
    result, shard = tmp_path / "result.json", tmp_path / "worst-case-00000.safetensors"
    with pytest.raises(InputError) as refused:
        again("standard")
    assert_states(refused.value, result, "standard v1", "v2", "--protocol standard@1", "--out")
    (tmp_path / "manifest.json").unlink()
    result.unlink()  # as if it had been stopped
    with pytest.raises(InputError) as refused:
        again("standard")
    assert_states(refused.value, shard, "standard v1", "v2", "--protocol standard@1", "--out")
    # of another protocol, nothing is taken up by a version
    with pytest.raises(InputError) as refused:
        again("standard-quick")
    assert_states(refused.value, shard, "other settings", "--out")
    assert again("standard@1").protocol.version == 1


@pytest.mark.parametrize("version", [0, 3, "1", None, [1]])
def test_a_result_of_a_version_that_is_not_here_is_refused(data: asgt.Images, tmp_path: Path, version: object) -> None:
    from asgt.files import read_sealed, write_sealed

    evaluate(AlwaysWrong(), data, protocol="standard@1", epsilons=[0.1], folder=tmp_path)
    (tmp_path / "manifest.json").unlink()
    result = read_sealed(tmp_path / "result.json")[0]
    result["protocol"]["version"] = version
    write_sealed(tmp_path / "result.json", result)
    with pytest.raises(InputError) as refused:
        load_evaluation(tmp_path)
    assert_states(refused.value, tmp_path, "standard", "has v2 and v1", "another folder")


def test_a_name_of_asgt_belongs_to_all_of_its_versions(data: asgt.Images) -> None:
    for changed in (replace(EARLIER["standard@1"], version=2), replace(PROTOCOLS["standard"], version=1)):
        with pytest.raises(InputError) as refused:
            evaluate(AlwaysWrong(), data, protocol=changed, epsilons=[0.1])
        assert_states(refused.value, "standard v1", "standard v2", "rename")
    assert evaluate(AlwaysWrong(), data, protocol=EARLIER["standard@1"], epsilons=[0.1]).protocol.version == 1
