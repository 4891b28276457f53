"""What ``asgt verify`` takes for an edit, what it refuses, what it advises, and where it looks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import asgt
from asgt.data import sampled_rows, selection_text
from asgt.errors import DamagedFileError, InputError
from asgt.files import digest_stored, read_json, read_sealed, read_tensors, write_sealed, write_tensors
from asgt.manifest import Manifest
from asgt.runs.explain_run import explain_run
from asgt.runs.kept import keep_run, load_kept
from asgt.runs.run import load_run, read_run
from asgt.runs.verifying import places_in, verify
from asgt.training.config import TrainConfig
from asgt.training.run_folder import RunFolder
from asgt.training.trainer import train
from support.edits import resealed, write_plain
from support.messages import assert_states
from support.paths import ROOT

CONFIG = TrainConfig(method="at", attack="pgd", steps=1, epochs=2, limit=120, batch_size=20, lr=0.1, width=0.25)
SAMPLES, GRID = 20, (0.05, 0.1)
SHARD = "evaluation/pgd/pgd-40x5-00000.safetensors"
ASKED = ("--protocol", "pgd", "--samples", SAMPLES, "--epsilons", "0.05,0.1")


def evaluated(run: Path, out: Path) -> None:
    model, data, _, _ = load_run(run)
    rows = sampled_rows(data.test, SAMPLES)
    chosen = selection_text(data.test, rows)
    asgt.evaluate(model, data.test[rows], protocol="pgd", epsilons=GRID, folder=out, selection=chosen)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    train(CONFIG, out)
    evaluated(out, RunFolder(out).evaluation("pgd"))
    model, data, _, _ = load_run(out)
    explain_run(RunFolder(out), model, data.test, "digits", samples=10, eps=0.1, norm="linf")
    keep_run(read_run(out), out.parent / "run.json")
    train(TrainConfig.from_dict(CONFIG.to_dict() | {"seed": 1}, "the test"), out.parent / "other")
    return out.parent


@pytest.fixture
def run(made_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_once / "run", tmp_path / "run")


@pytest.fixture
def other(made_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_once / "other", tmp_path / "elsewhere" / "other")


@pytest.fixture
def kept(made_once: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made_once / "run.json", tmp_path / "run.json"))


def states(place: Path) -> dict[str, str]:
    top = place if place.is_dir() else place.parent
    return {
        finding.file.relative_to(top).as_posix(): finding.state for each in verify(place) for finding in each.findings
    }


def advice(place: Path) -> str:
    (finding,) = [finding for each in verify(place) for finding in each.findings]
    return finding.text


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


# Unfinished runs ------------------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_not_accepted(cli: Callable, stopped_run: Path) -> None:
    for _ in range(2):
        before = content(stopped_run)
        line = cli("verify", stopped_run, "--accept").refusal()
        assert_states(line, stopped_run, "not finished", f"asgt train --resume --out {stopped_run}")
        assert content(stopped_run) == before
        (stopped_run / "checkpoint.safetensors").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", "lr: 0.1", "lr: 0.2"),
        ("config.yaml", "seed: 0", "seed: 1"),
        ("metrics.jsonl", '"lr": 0.1,', '"lr": 0.10,'),
    ],
)
def test_an_edit_of_an_unfinished_run_is_noticed(stopped_run: Path, name: str, old: str, new: str) -> None:
    assert states(stopped_run) == {}
    edit(stopped_run / name, old, new)
    assert states(stopped_run) == {name: "changed"}
    assert "--accept" not in advice(stopped_run)


def test_lost_or_foreign_files_of_an_unfinished_run_are_noticed(stopped_run: Path, run: Path) -> None:
    for name in ("config.yaml", "metrics.jsonl", "model.safetensors"):
        whole = (stopped_run / name).read_bytes()
        (stopped_run / name).unlink()
        assert states(stopped_run) == {name: "missing"}
        (stopped_run / name).write_bytes(whole)
    tensors, metadata = read_tensors(run / "model.safetensors")
    write_tensors(stopped_run / "model.safetensors", tensors, metadata | {"step": "1"})
    assert states(stopped_run) == {"model.safetensors": "changed"}


def test_what_is_later_than_the_checkpoint_is_no_change(stopped_run: Path) -> None:
    last = json.loads((stopped_run / "metrics.jsonl").read_text().splitlines()[-1])
    with open(stopped_run / "metrics.jsonl", "a") as file:
        file.write(json.dumps(last | {"epoch": 1, "step": 2 * last["step"]}) + "\n")
    tensors, metadata = read_tensors(stopped_run / "model.safetensors")
    write_tensors(stopped_run / "model.safetensors", tensors, metadata | {"step": str(2 * last["step"])})
    assert states(stopped_run) == {}
    edit(stopped_run / "metrics.jsonl", '"epoch": 0', '"epoch":  0')
    assert states(stopped_run) == {"metrics.jsonl": "changed"}


# What is no edit ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manifest", ["whole", "damaged", "gone"])
@pytest.mark.parametrize("source", ["other", "shard"])
def test_other_weights_are_not_accepted(run: Path, other: Path, manifest: str, source: str) -> None:
    # No evidence vouches for the weights.
    for place in ("evaluation", "explanation"):
        shutil.rmtree(run / place)
    shard = other.parent / "shard.safetensors"
    write_tensors(shard, {"clean": torch.ones(3)})
    shutil.copy(other / "model.safetensors" if source == "other" else shard, run / "model.safetensors")
    if manifest == "damaged":
        (run / "manifest.json").write_text("{")
    if manifest == "gone":
        (run / "manifest.json").unlink()

    before = content(run)
    with pytest.raises(DamagedFileError) as caught:
        verify(run, accept=True)
    assert_states(caught.value, run / "model.safetensors", "train again")
    assert content(run) == before
    if manifest == "whole":
        assert "--accept" not in next(each.text for each in verify(run)[0].findings if each.state == "changed")


def test_files_of_another_run_are_refused_where_they_contradict_the_rest(run: Path, other: Path) -> None:
    for place in ("evaluation", "explanation", "manifest.json", "checkpoint.safetensors"):
        shutil.rmtree(run / place) if (run / place).is_dir() else (run / place).unlink()
    for name in ("training.json", "metrics.jsonl"):
        whole = (run / name).read_bytes()
        shutil.copy(other / name, run / name)
        with pytest.raises(DamagedFileError) as caught:
            verify(run, accept=True)
        assert_states(caught.value, run / "training.json", run / "metrics.jsonl")
        assert not (run / "manifest.json").exists()
        (run / name).write_bytes(whole)
    whole = (run / "model.safetensors").read_bytes()
    tensors, metadata = read_tensors(run / "model.safetensors")
    write_tensors(run / "model.safetensors", tensors, metadata | {"step": str(int(metadata["step"]) + 1)})
    with pytest.raises(DamagedFileError) as caught:
        verify(run, accept=True)
    assert_states(caught.value, run / "model.safetensors", int(metadata["step"]) + 1, metadata["step"])
    assert states(run)["."] == "damaged"
    (run / "model.safetensors").write_bytes(whole)
    edit(run / "config.yaml", "eps: 0.1", "eps: 0.2")
    with pytest.raises(DamagedFileError) as caught:
        verify(run, accept=True)
    assert_states(caught.value, run / "config.yaml", "eps")


def outcome(kept: dict[str, Any]) -> None:
    row = kept["evaluations"]["pgd"]["outcomes"]["pgd-40x5"]
    row[0] = kept["evaluations"]["pgd"]["clean"] if row[0] != kept["evaluations"]["pgd"]["clean"] else row[1]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda kept: kept["evaluations"]["pgd"].update(clean=kept["evaluations"]["pgd"]["outcomes"]["pgd-40x5"][1]),
            0,
        ),
        (lambda kept: kept["evaluations"]["pgd"].update(epsilons=[0.05, 0.3]), 0),
        (lambda kept: kept["evaluations"]["pgd"].update(checks=[]), 0),
        (outcome, 0),
        (lambda kept: kept["explanations"]["gradient"].update(notes=["x"]), 1),
        (lambda kept: kept["explanations"]["gradient"].update(eps=0.2), 1),
    ],
)
def test_changed_outcomes_of_a_saved_result_are_not_accepted(
    cli: Callable, kept: Path, change: Callable[[Any], None], part: int
) -> None:
    value = read_json(kept)
    whole = json.dumps(value)
    change(value)
    assert json.dumps(value) != whole
    del value["sha256"]
    name = ("evaluation pgd", "explanation gradient")[part]
    for write in (write_plain, write_sealed):  # edited by hand; and with a right digest of the file
        write(kept, value)
        before = kept.read_bytes()
        with pytest.raises(DamagedFileError):
            load_kept(kept)
        answer = cli("verify", kept)
        assert answer.status == 2
        assert_states(answer.out, kept, "damaged", name)
        assert "--accept" not in answer.out
        if write is write_plain:
            assert_states(cli("verify", kept, "--accept").refusal(), kept, name)
        else:
            assert cli("verify", kept, "--accept").status == 2
        assert kept.read_bytes() == before


def test_changed_settings_of_a_saved_result_are_accepted(kept: Path) -> None:
    edit(kept, '"lr": 0.1', '"lr": 0.3')
    verify(kept, accept=True)
    assert load_kept(kept).config.lr == 0.3
    (remark,) = load_kept(kept).remarks
    assert "cannot be detected" not in remark


def test_saved_results_without_digests_of_outcomes_are_read_and_their_edits_told(kept: Path) -> None:
    before = load_kept(kept)
    value = read_sealed(kept)[0]
    for part in ("evaluations", "explanations"):
        for each in value[part].values():
            del each["sha256"]
    write_sealed(kept, value)
    assert torch.equal(
        load_kept(kept).evaluations["pgd"].outcomes["pgd-40x5"], before.evaluations["pgd"].outcomes["pgd-40x5"]
    )
    edit(kept, '"lr": 0.1', '"lr": 0.3')
    verify(kept, accept=True)
    (remark,) = load_kept(kept).remarks
    assert_states(remark, "evaluation pgd", "explanation gradient", "cannot be detected")


def test_the_saved_results_of_the_repository_are_sound() -> None:
    for file in sorted((ROOT / "results").glob("*/*.json"))[::20]:
        before = file.read_bytes()
        assert all(each.is_sound for each in verify(file))
        assert all(each.is_sound for each in verify(file, accept=True))
        assert file.read_bytes() == before


# Advice ---------------------------------------------------------------------------------------------------------------


def test_the_advice_for_a_changed_shard_mends_the_run(cli: Callable, run: Path) -> None:
    tensors, metadata = read_tensors(run / SHARD)
    tensors["correct"] = ~tensors["correct"]
    write_tensors(run / SHARD, tensors, metadata)
    assert states(run) == {SHARD: "changed"}
    assert_states(advice(run), "remove the file", f"asgt evaluate {run} --protocol pgd --resume")

    (run / SHARD).unlink()
    assert_states(advice(run), f"asgt evaluate {run} --protocol pgd --resume")
    answer = cli("evaluate", run, *ASKED, "--resume")

    assert answer.status == 0, answer.err
    assert states(run) == {}


def test_the_advice_for_a_damaged_checkpoint_mends_the_run(run: Path) -> None:
    (run / "checkpoint.safetensors").write_bytes(b"x")
    assert_states(advice(run), "remove it", f"asgt verify {run} --accept")
    with pytest.raises(DamagedFileError):
        verify(run, accept=True)
    (run / "checkpoint.safetensors").unlink()
    assert all(each.is_sound for each in verify(run, accept=True))


def test_a_run_without_manifest_and_checkpoint_can_be_sealed(cli: Callable, run: Path) -> None:
    (run / "manifest.json").unlink()
    assert states(run) == {"manifest.json": "missing"}
    assert_states(advice(run), f"asgt train --resume --out {run}")
    (run / "checkpoint.safetensors").unlink()
    found = states(run)
    assert found == {"manifest.json": "missing", "config.yaml": "unverified", "metrics.jsonl": "unverified"}
    answer = cli("verify", run)
    assert answer.status == 2
    assert_states(answer.out, f"asgt verify {run} --accept")

    assert cli("verify", run, "--accept").status == 0

    manifest = Manifest.of(run)
    assert manifest is not None
    assert all(each.was == "" for each in manifest.accepted)
    assert {"training.json", "config.yaml", "metrics.jsonl"} <= {each.file for each in manifest.accepted}
    assert any("without a digest" in remark for remark in read_run(run).remarks)


def test_a_lost_training_json_is_written_again_by_the_advice(cli: Callable, run: Path) -> None:
    (run / "training.json").unlink()
    assert_states(advice(run), f"asgt train --resume --out {run}")
    assert cli("train", "--resume", "--out", run).status == 0
    assert states(run) == {}


def of_another_version(run: Path, what: str) -> None:
    result = run / "evaluation/pgd/result.json"
    value = read_sealed(result)[0]
    if what == "schema":
        value["schema"] += 1
    elif what == "explanation":
        result = run / "explanation/gradient/result.json"
        value = read_sealed(result)[0]
        value["schema"] += 1
    else:
        value["protocol"]["version"] += 1
    write_sealed(result, value)
    resealed(run)


@pytest.mark.parametrize("what", ["schema", "protocol", "explanation"])
def test_evidence_of_another_version_is_unverified_and_hinders_no_accepting(run: Path, what: str) -> None:
    of_another_version(run, what)
    name = "explanation/gradient/result.json" if what == "explanation" else "evaluation/pgd/result.json"
    assert states(run) == {name: "unverified"}
    assert_states(advice(run), "this version of asgt")
    edit(run / "config.yaml", "lr: 0.1", "lr: 0.2")
    assert all(each.is_sound for each in verify(run, accept=True))


def test_evidence_of_another_version_hides_no_damage(run: Path, other: Path) -> None:
    of_another_version(run, "protocol")
    shutil.copy(other / "model.safetensors", run / "model.safetensors")
    (run / "manifest.json").unlink()
    (run / "checkpoint.safetensors").unlink()
    assert digest_stored(run / "model.safetensors") != read_sealed(run / "explanation/gradient/result.json")[0]["model"]
    with pytest.raises(DamagedFileError):
        verify(run, accept=True)


def test_a_saved_evaluation_of_another_version_is_unverified_and_hinders_no_accepting(kept: Path) -> None:
    value = read_sealed(kept)[0]
    value["evaluations"]["pgd"]["version"] += 1
    del value["evaluations"]["pgd"]["sha256"]
    write_sealed(kept, value)
    assert states(kept) == {"run.json": "unverified"}
    value["config"]["lr"] = 0.3
    write_plain(kept, value)
    assert verify(kept, accept=True)[0].is_sound
    # No schema that is not known is written over.
    write_plain(kept, value | {"schema": 9})
    before = kept.read_bytes()
    with pytest.raises(InputError, match="9"):
        verify(kept, accept=True)
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    "name",
    [
        *("training.json", "config.yaml", "manifest.json", "metrics.jsonl", "model.safetensors", SHARD),
        *("evaluation/pgd/result.json", "explanation/gradient/values.safetensors", "evaluation/pgd", "evaluation"),
    ],
)
def test_a_file_of_a_run_stands_for_the_run(run: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert places_in(run / name) == [run]
    monkeypatch.chdir((run / name).parent)
    assert [place.resolve() for place in places_in((run / name).name)] == [run]


def test_a_file_of_no_run_does_not_stand_for_the_run_beside_it(run: Path, kept: Path) -> None:
    inside = shutil.copy(kept, run / "saved.json")
    assert places_in(inside) == [inside]
    (run / "notes.yaml").write_text("a: 1\n")
    with pytest.raises(InputError) as caught:
        places_in(run / "notes.yaml")
    assert_states(caught.value, run / "notes.yaml")


# Where it looks -------------------------------------------------------------------------------------------------------


def test_nothing_in_a_folder_is_left_out(made_once: Path, run: Path, kept: Path, tmp_path: Path) -> None:
    away = shutil.copytree(run, tmp_path.parent / f"{tmp_path.name}-away" / "run")
    (tmp_path / "linked").symlink_to(away)
    (tmp_path / "again").symlink_to(away)
    (tmp_path / "circle").symlink_to(tmp_path)
    pgd = run / "evaluation" / "pgd"
    extra = shutil.copytree(pgd, run / "thorough")
    deep = shutil.copytree(pgd, tmp_path / "a" / "b" / "evidence")
    without = shutil.copytree(run / "explanation" / "gradient", tmp_path / "a" / "maps")
    (without / "result.json").unlink()
    saved = [Path(shutil.copy(kept, folder / "saved.json")) for folder in (tmp_path / "a", run, pgd)]

    assert places_in(tmp_path) == sorted([run, tmp_path / "again", extra, deep, without, kept, *saved])
    assert places_in(run) == sorted([run, extra, *saved[1:]])


def test_unrelated_files_beside_sound_results_are_no_fault(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "tsconfig.json").write_text('{\n  // comment\n  "compilerOptions": {"schema": 1}\n}\n')
    (tmp_path / "empty.json").write_text("")
    (tmp_path / "bytes.json").write_bytes(bytes(range(256)))
    for folder, name, text in (
        ("app", "manifest.json", '{"name": "app", "files": []}'),
        ("site", "config.yaml", "title: site\n"),
        ("ci", "result.json", '{"passed": 12}'),
        ("weights", "model-00001-of-00002.safetensors", "x"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    assert places_in(tmp_path) == [kept]
    assert states(tmp_path) == {}


@pytest.mark.parametrize("end", [0.001, 0.1, 0.9, 0.999])
def test_a_saved_result_that_was_cut_short_is_found(kept: Path, end: float) -> None:
    whole = kept.read_bytes()
    kept.write_bytes(whole[: max(40, int(len(whole) * end))])
    assert states(kept.parent) == {"run.json": "damaged"}


# Several places -------------------------------------------------------------------------------------------------------


def test_every_place_is_told_whatever_the_others_are(
    cli: Callable, run: Path, stopped_run: Path, kept: Path, tmp_path: Path
) -> None:
    nowhere = tmp_path / "nowhere"
    answer = cli("verify", nowhere, run, kept)
    assert_states(answer.refusal(), nowhere)
    assert_states(answer.out, f"{run}:", f"{kept}:")
    assert_states(cli("verify", run, run / "config.yaml", run / "evaluation" / "pgd").out, f"{run}:")
    assert cli("verify", run, run / "config.yaml", run / "evaluation" / "pgd").out.count("verified") == 1

    edit(run / "config.yaml", "lr: 0.1", "lr: 0.2")
    answer = cli("verify", nowhere, stopped_run, run, kept)
    assert_states(answer.refusal(), "1 file", "1 of 3", "1 place")
    assert_states(answer.out, "refused", nowhere, "changed", run / "config.yaml", f"{kept}:")


def test_a_place_that_is_refused_keeps_no_other_from_being_accepted(
    cli: Callable, run: Path, stopped_run: Path
) -> None:
    edit(run / "config.yaml", "lr: 0.1", "lr: 0.2")
    line = cli("verify", stopped_run, run, "--accept").refusal()
    assert_states(line, stopped_run, "not finished")
    assert states(run) == {"config.yaml": "accepted"}

    edit(run / "config.yaml", "lr: 0.2", "lr: 0.3")
    assert run.parent == stopped_run.parent
    with pytest.raises(InputError, match="not finished"):
        verify(run.parent, accept=True)
    assert states(run) == {"config.yaml": "accepted"}
