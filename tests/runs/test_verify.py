"""What a run folder holds is what was written, or every reader says so: flips, swaps, edits, and what was accepted."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import save_file

import asgt
from asgt.comparison.comparing import compare
from asgt.data import sampled_rows, selection_text
from asgt.errors import DamagedFileError, InputError
from asgt.evaluation.shards import load_evaluation
from asgt.files import read_json, read_sealed, read_tensors, write_sealed, write_tensors
from asgt.locks import locked
from asgt.manifest import Manifest, record, withdraw
from asgt.runs.explain_run import explain_run
from asgt.runs.kept import keep_run, load_kept
from asgt.runs.run import load_run, read_run
from asgt.runs.verifying import verify
from asgt.training.config import TrainConfig
from asgt.training.run_folder import RunFolder
from asgt.training.trainer import train
from support.command import Answer
from support.edits import edited, write_plain
from support.messages import assert_states
from support.paths import ROOT

CONFIG = TrainConfig(method="at", attack="pgd", steps=1, epochs=2, limit=120, batch_size=20, lr=0.1, width=0.25)
SAMPLES, GRID = 20, (0.05, 0.1)
EVALUATION, SHARD = "evaluation/pgd/result.json", "evaluation/pgd/pgd-40x5-00000.safetensors"
LABELS = "evaluation/pgd/labels.safetensors"
EXPLANATION, VALUES = "explanation/gradient/result.json", "explanation/gradient/values.safetensors"
ASKED = ("--protocol", "pgd", "--samples", SAMPLES, "--epsilons", "0.05,0.1")


def made(out: Path, **changed: Any) -> Path:
    """A finished run with an evaluation, an explanation and a file that keeps it."""

    train(TrainConfig.from_dict(CONFIG.to_dict() | changed, "the test"), out)
    model, data, _, _ = load_run(out)
    rows = sampled_rows(data.test, SAMPLES)
    asgt.evaluate(
        model,
        data.test[rows],
        protocol="pgd",
        epsilons=GRID,
        folder=RunFolder(out).evaluation("pgd"),
        selection=selection_text(data.test, rows),
    )
    explain_run(RunFolder(out), model, data.test, "digits", samples=10, eps=0.1, norm="linf")
    keep_run(read_run(out), out.parent / f"{out.name}.json")
    return out


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture
def run(made_once: Path, tmp_path: Path) -> Path:
    shutil.copytree(made_once.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


def flip(path: Path, draws: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draws.randrange(len(content))] ^= 1 << draws.randrange(8)
    path.write_bytes(content)


def states(place: Path) -> dict[str, str]:
    """What is found of the files that are not as they were written."""

    return {
        finding.file.relative_to(place).as_posix() if place.is_dir() else finding.file.name: finding.state
        for each in verify(place)
        for finding in each.findings
    }


def timeless(path: Path) -> dict[str, Any]:
    return read_sealed(path)[0] | {"seconds": 0}


# Damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.yaml", read_run),
        ("config.yaml", load_run),
        ("metrics.jsonl", read_run),
        ("training.json", read_run),
        ("training.json", load_run),
        ("manifest.json", read_run),
        ("manifest.json", load_run),
        ("model.safetensors", read_run),
        ("model.safetensors", load_run),
        (EVALUATION, read_run),
        (EVALUATION, lambda run: load_evaluation(run / "evaluation" / "pgd")),
        (SHARD, read_run),
        (SHARD, lambda run: load_evaluation(run / "evaluation" / "pgd")),
        (LABELS, read_run),
        (LABELS, lambda run: load_evaluation(run / "evaluation" / "pgd")),
        (EXPLANATION, read_run),
        (VALUES, read_run),
        (VALUES, lambda run: asgt.load_explanation(run / "explanation" / "gradient")),
        ("../run.json", lambda run: load_kept(run.parent / "run.json")),
    ],
)
def test_a_flipped_bit_is_noticed_by_who_reads_the_file(run: Path, name: str, read: Callable[[Path], object]) -> None:
    path, draws = run / name, random.Random(name)
    read(run)
    whole = path.read_bytes()
    for _ in range(12):
        flip(path, draws)
        with pytest.raises(InputError):
            read(run)
        assert not all(each.is_sound for each in verify(path if name.startswith("..") else run))
        path.write_bytes(whole)
    read(run)


def test_a_checkpoint_that_was_damaged_is_not_gone_on_from(cli: Callable, stopped_run: Path) -> None:
    draws = random.Random(0)
    for name in ("checkpoint.safetensors", "model.safetensors", "config.yaml", "metrics.jsonl"):
        path = stopped_run / name
        whole = path.read_bytes()
        for _ in range(4):
            flip(path, draws)
            answer: Answer = cli("train", "--resume", "--out", stopped_run)
            assert_states(answer.failure(), path)
            path.write_bytes(whole)
    # A digit that no float tells apart is damage too.
    lines = (stopped_run / "metrics.jsonl").read_text()
    (stopped_run / "metrics.jsonl").write_text(lines.replace('"lr": 0.1,', '"lr": 0.10,'))
    assert_states(cli("train", "--resume", "--out", stopped_run).failure(), stopped_run / "metrics.jsonl", "damaged")
    (stopped_run / "metrics.jsonl").write_text(lines)
    assert cli("train", "--resume", "--out", stopped_run).status == 0


def test_weights_of_another_run_are_refused(cli: Callable, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    train(TrainConfig.from_dict(CONFIG.to_dict() | {"seed": 1, "epochs": 1}, "the test"), other)
    shutil.copy(other / "model.safetensors", run / "model.safetensors")

    for words in (("evaluate", run, "--protocol", "paper", "--samples", 5), ("explain", run), ("compare", run)):
        assert_states(cli(*words).failure(), run / "model.safetensors", "damaged", "manifest.json")
    assert_states(cli("train", "--resume", "--out", run).failure(), run / "model.safetensors")
    assert states(run) == {"model.safetensors": "changed"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("config.yaml", "lr: 0.1", "lr: 0.2"),
        ("config.yaml", "seed: 0", "seed: 1"),
        ("config.yaml", "epochs: 2", "epochs: 3"),
        ("config.yaml", "method: at", "method: st"),
        ("metrics.jsonl", '"epoch": 1', '"epoch": 1.0'),
        ("training.json", '"chosen_epoch": 1', '"chosen_epoch": 0'),
    ],
)
def test_an_edit_of_what_stands_beside_the_evidence_is_refused(run: Path, name: str, old: str, new: str) -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new))

    with pytest.raises(DamagedFileError) as caught:
        compare([run])
    assert_states(caught.value, run / name)
    assert states(run) == {name: "changed"}


def test_balanced_accuracies_are_those_of_the_metrics(run: Path) -> None:
    told = read_sealed(run / "training.json")[0]
    assert told["balanced"].keys() == told["validation"].keys() == {"clean", "fgsm", "pgd"}
    for balanced in ({**told["balanced"], "pgd": 0.123}, {}):
        edited(run / "training.json", balanced=balanced)
        [(_, state)] = states(run).items()
        assert state == "damaged"


def test_checks_that_were_taken_away_are_missed_also_without_a_digest(run: Path) -> None:
    result = read_sealed(run / EVALUATION)[0]
    assert result["checks"]
    for write in (write_plain, write_sealed):  # without a digest, as before there were any; and with a right one
        write(run / EVALUATION, result | {"checks": []})
        if write is write_plain:
            with pytest.raises(DamagedFileError) as caught:
                read_run(run)
            assert_states(caught.value, run / EVALUATION)
        assert states(run) == {EVALUATION: "changed"}


def test_a_damaged_manifest_can_be_mended_only_by_the_user(cli: Callable, run: Path) -> None:
    whole = (run / "manifest.json").read_bytes()
    for content in (b"{", b"[]", b"{}", whole.replace(b'"files"', b'"filez"'), whole[:-5]):
        (run / "manifest.json").write_bytes(content)
        for words in (("compare", run), ("evaluate", run, *ASKED, "--resume"), ("train", "--resume", "--out", run)):
            assert_states(cli(*words).failure(), run / "manifest.json", "damaged")
    answer = cli("verify", run)
    assert_states(answer.failure(), "1")
    assert_states(answer.out, "manifest.json", "--accept")


def test_nothing_is_as_written_where_a_file_is_gone(cli: Callable, run: Path) -> None:
    for name in ("model.safetensors", SHARD, LABELS, VALUES, "metrics.jsonl", "config.yaml"):
        whole = (run / name).read_bytes()
        (run / name).unlink()
        assert states(run)[name] == "missing"
        (run / name).write_bytes(whole)
    assert states(run) == {}


def test_evidence_that_lost_its_result_is_not_left_out_in_silence(run: Path) -> None:
    for name in (EVALUATION, EXPLANATION):
        whole = (run / name).read_bytes()
        (run / name).unlink()
        with pytest.raises(DamagedFileError) as caught:
            compare([run])
        assert_states(caught.value, run / name, "missing", "manifest.json")
        (run / name).write_bytes(whole)
    # Whoever removes all of it means it, and readers learn of it.
    shutil.rmtree(run / "explanation" / "gradient")
    (remark,) = compare([run]).remarks()
    assert_states(remark, "removed", "manifest.json", "explanation/gradient")


def test_evidence_of_other_images_in_the_place_of_a_runs_own_is_refused(cli: Callable, run: Path) -> None:
    """Each is whole, and of the same weights."""

    model, data, _, _ = load_run(run)
    other = run.parent / "other"
    asgt.evaluate(model, data.test[-SAMPLES:], protocol="pgd", epsilons=GRID, folder=other)
    asgt.explain(model, data.test[-10:], eps=0.1, folder=run.parent / "others")
    before = timeless(run / EVALUATION)
    for name, stranger in ((EVALUATION, other / "result.json"), (SHARD, other / Path(SHARD).name)):
        shutil.copy(stranger, run / name)
    with pytest.raises(DamagedFileError) as caught:
        compare([run])
    assert_states(caught.value, "damaged", "manifest.json")
    assert_states(cli("evaluate", run, *ASKED, "--resume").failure(), run / EVALUATION)
    # Without its result, what is not the run's own is made again.
    (run / EVALUATION).unlink()
    answer = cli("evaluate", run, *ASKED, "--resume")
    assert answer.status == 0, answer.err
    assert_states(answer.err, run / SHARD, "damaged", "again")
    assert timeless(run / EVALUATION) == before

    for name in ("result.json", "values.safetensors"):
        shutil.copy(run.parent / "others" / name, run / "explanation" / "gradient" / name)
    with pytest.raises(DamagedFileError) as caught:
        compare([run])
    assert_states(caught.value, "explanation/gradient", "manifest.json")


# Taking up ------------------------------------------------------------------------------------------------------------


def test_a_damaged_shard_of_a_finished_evaluation_is_attacked_again(cli: Callable, run: Path) -> None:
    before, shard = timeless(run / EVALUATION), (run / SHARD).read_bytes()
    flip(run / SHARD, random.Random(1))

    assert_states(cli("compare", run).failure(), run / SHARD)
    answer = cli("evaluate", run, *ASKED, "--resume")

    assert answer.status == 0, answer.err
    assert_states(answer.err, run / SHARD, "damaged", "again")
    assert timeless(run / EVALUATION) | {"files": 0} == before | {"files": 0}
    assert len((run / SHARD).read_bytes()) == len(shard)
    assert states(run) == {}


def test_resume_does_not_write_over_a_result_that_its_evidence_denies(cli: Callable, run: Path) -> None:
    result = read_sealed(run / EVALUATION)[0]
    result["clean"] = {"accuracy": 0.5} if isinstance(result["clean"], dict) else 1 - result["clean"]
    write_sealed(run / EVALUATION, result)
    denied = (run / EVALUATION).read_bytes()

    line = cli("evaluate", run, *ASKED, "--resume").failure()

    assert_states(line, run / EVALUATION, "damaged")
    assert (run / EVALUATION).read_bytes() == denied


def test_a_kill_between_the_result_and_the_manifest_is_mended_by_resume(cli: Callable, run: Path) -> None:
    before = states(run), (run / "model.safetensors").read_bytes()
    (run / "manifest.json").unlink()

    answer = cli("train", "--resume", "--out", run)

    assert answer.status == 0, answer.err
    assert Manifest.of(run) is not None
    assert (run / "model.safetensors").read_bytes() == before[1]

    # Without the checkpoint nothing vouches for the weights.
    (run / "manifest.json").unlink()
    (run / "checkpoint.safetensors").unlink()
    assert_states(cli("train", "--resume", "--out", run).failure(), "manifest.json", "--accept")


def test_weights_of_another_training_are_noticed_at_the_end_at_the_latest(
    cli: Callable, stopped_run: Path, finished_run: Path
) -> None:
    """Weights that are later than the checkpoint are those of a kill between the two, or somebody else's."""

    tensors, told = read_tensors(finished_run / "model.safetensors")
    write_tensors(stopped_run / "model.safetensors", tensors, told | {"step": "1000"})
    answer = cli("train", "--resume", "--out", stopped_run)
    if answer.status:
        assert_states(answer.failure(), stopped_run / "model.safetensors", "damaged")
    else:  # a later epoch was better, and wrote its own
        assert states(stopped_run) == {}
        assert read_run(stopped_run)


def test_a_refused_resume_leaves_the_metrics_as_they_are(cli: Callable, stopped_run: Path) -> None:
    path = stopped_run / "metrics.jsonl"
    path.write_text(path.read_text()[:-40])
    torn = path.read_bytes()
    assert_states(cli("train", "--resume", "--out", stopped_run).failure(), path, "damaged")
    assert path.read_bytes() == torn


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "split.safetensors"])
def test_a_finished_run_is_resumed_with_whole_files_only(cli: Callable, run: Path, name: str) -> None:
    if not (run / name).exists():
        pytest.fail(f"{name} is not there")
    flip(run / name, random.Random(4))
    assert_states(cli("train", "--resume", "--out", run).failure(), run / name, "damaged")
    # Whoever needs room may remove it.
    (run / name).unlink()
    assert cli("train", "--resume", "--out", run).status == 0


# Accepting ------------------------------------------------------------------------------------------------------------


def test_an_accepted_edit_is_told_from_then_on(cli: Callable, run: Path) -> None:
    settings = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(settings | {"workers": 0} if "workers" in settings else settings))
    assert_states(cli("verify", run).failure(), "1", "changed")
    assert states(run) == {"config.yaml": "changed"}

    answer = cli("verify", run, "--accept")

    assert answer.status == 0, answer.err
    assert_states(answer.out, "accepted", run / "config.yaml")
    assert states(run) == {"config.yaml": "accepted"}
    (remark,) = compare([run]).remarks()
    assert_states(remark, "edited", "accepted", "config.yaml")
    # Another edit is another matter.
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "\n")
    assert states(run) == {"config.yaml": "changed"}


def test_what_is_broken_is_not_accepted(cli: Callable, run: Path) -> None:
    for name in ("model.safetensors", SHARD, LABELS, VALUES):
        whole = (run / name).read_bytes()
        flip(run / name, random.Random(2))
        manifest = (run / "manifest.json").read_bytes()
        assert cli("verify", run, "--accept").status == 2
        assert (run / "manifest.json").read_bytes() == manifest
        (run / name).write_bytes(whole)
    result = read_sealed(run / EVALUATION)[0]
    write_plain(run / EVALUATION, result | {"samples": SAMPLES + 1})
    assert_states(cli("verify", run, "--accept").failure(), run / EVALUATION)
    assert states(run)[EVALUATION] in ("changed", "damaged")


def test_a_saved_result_is_verified_and_accepted_too(cli: Callable, run: Path) -> None:
    file = run.parent / "run.json"
    assert states(file) == {}
    saved = read_json(file)
    saved["config"]["lr"] = 0.3
    write_plain(file, saved)
    with pytest.raises(DamagedFileError):
        load_kept(file)
    assert_states(cli("verify", file).failure(), "1")

    assert cli("verify", file, "--accept").status == 0

    assert load_kept(file).config.lr == 0.3
    assert any("accepted with asgt verify" in remark for remark in load_kept(file).remarks)
    # Accepted once, it is recorded once.
    content = file.read_bytes()
    assert cli("verify", file, "--accept").status == 0
    assert file.read_bytes() == content


def test_the_folders_in_a_folder_are_all_verified(cli: Callable, run: Path) -> None:
    shutil.copytree(run, run.parent / "second")
    flip(run.parent / "second" / "model.safetensors", random.Random(3))
    answer = cli("verify", run.parent)
    assert_states(answer.failure(), "1 of 3")  # with the saved result beside them
    assert_states(answer.out, run, run.parent / "second")
    assert_states(cli("verify").refusal(), "RUN")
    assert_states(cli("verify", run.parent / "nowhere").refusal(), "nowhere")
    (run.parent / "empty").mkdir()
    assert_states(cli("verify", run.parent / "empty").refusal(), "no run")


# From before there were digests ---------------------------------------------------------------------------------------


def test_a_run_from_before_the_digests_is_unverified_and_every_page_says_so(cli: Callable, tmp_path: Path) -> None:
    old = shutil.copytree(ROOT / "tests" / "fixtures" / "runs" / "st-0", tmp_path / "old")

    (remark,) = compare([old]).remarks()

    assert_states(remark, "unverified", "no digest", "config.yaml", "metrics.jsonl")
    answer = cli("verify", old)
    assert answer.status == 0, answer.err
    assert_states(answer.out, "unverified", old / "config.yaml")
    # Sealed as found, the page still says what nobody can know any more.
    assert cli("verify", old, "--accept").status == 0
    (remark,) = compare([old]).remarks()
    assert_states(remark, "without a digest", "sealed", "metrics.jsonl")
    flip(old / "metrics.jsonl", random.Random(0))
    assert_states(cli("compare", old).failure(), old / "metrics.jsonl")


def test_what_was_accepted_of_an_old_run_stays_accepted_and_an_edit_of_it_is_noticed(
    cli: Callable, tmp_path: Path
) -> None:
    old = shutil.copytree(ROOT / "tests" / "fixtures" / "runs" / "at-fgsm-0", tmp_path / "old")
    assert_states(cli("train", "--resume", "--out", old).err, "unverified", "training.json")
    assert cli("verify", old, "--accept").status == 0
    manifest = Manifest.of(old)
    assert manifest is not None
    accepted = {name for name in manifest.files if name.startswith("evaluation/")}
    assert accepted

    # Recorded anew, as a resumed evaluation does, what was accepted is still listed.
    record(old / "evaluation" / "pgd", {}, withdraw(old / "evaluation" / "pgd"))
    manifest = Manifest.of(old)
    assert manifest is not None
    assert accepted <= manifest.files.keys()

    shard = next((old / "evaluation" / "pgd").glob("*.safetensors"))
    tensors, told = read_tensors(shard)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, shard, told | {"seconds": "1"})
    assert_states(cli("compare", old).failure(), shard, "damaged")

    shutil.rmtree(old / "evaluation" / "pgd")
    assert cli("verify", old, "--accept").status == 0
    assert_states(" ".join(compare([old]).remarks()), "removed", "accepted", "evaluation/pgd/result.json")


# Two writers ----------------------------------------------------------------------------------------------------------


def test_a_run_has_one_writer(cli: Callable, run: Path, stopped_run: Path) -> None:
    def stood() -> dict[str, bytes]:
        return {str(file): file.read_bytes() for file in run.rglob("*") if file.is_file()}

    with locked(stopped_run, "asgt train"):
        line = cli("train", "--resume", "--out", stopped_run).refusal()
        assert_states(line, "asgt train", stopped_run, "wait", "--out")
    with locked(run / "evaluation" / "pgd", "asgt evaluate"):
        before = stood()
        line = cli("evaluate", run, *ASKED, "--resume").failure()
        assert_states(line, "asgt evaluate", run / "evaluation" / "pgd")
        # Another protocol goes on beside it, and so do those who only read.
        assert before == stood()
        assert compare([run]).remarks() == []
        answer = cli("evaluate", run, "--protocol", "paper", "--samples", 5, "--epsilons", "0.1")
        assert answer.status == 0, answer.err
    with locked(run / "explanation" / "gradient", "asgt explain"):
        line = cli("explain", run, "--samples", 10, "--resume").failure()
        assert_states(line, "asgt explain", run / "explanation" / "gradient")
    assert cli("verify", run).status == 0


def test_a_folder_that_is_removed_ends_the_work_and_stays_removed(tmp_path: Path) -> None:
    out = tmp_path / "run"

    def removed() -> bool:
        shutil.rmtree(out, ignore_errors=True)
        return False

    with pytest.raises(InputError) as caught:
        train(CONFIG, out, should_stop=removed)
    assert_states(caught.value, "removed")
    assert not out.exists()


def test_the_manifest_says_what_each_part_was_made_from(run: Path) -> None:
    manifest = Manifest.of(run)
    assert manifest is not None
    read = read_run(run)
    assert manifest.made_from.keys() == {"train", "evaluation/pgd", "explanation/gradient"}
    assert manifest.made_from["train"]["train_data"] == read.result.train_data
    assert {part["weights"] for part in manifest.made_from.values()} == {read.evaluations["pgd"].model}
    assert all(part["versions"].keys() >= {"asgt", "torch"} for part in manifest.made_from.values())
    files = {file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()}
    assert manifest.files.keys() == files - {"manifest.json"}
