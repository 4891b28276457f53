"""A run that was evaluated by two versions of one protocol: each is read, saved, compared, verified and resumed."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import asgt
from asgt.comparison.comparing import compare, compare_runs, headings
from asgt.data import sampled_rows
from asgt.errors import DamagedFileError, InputError
from asgt.files import read_sealed, write_sealed
from asgt.manifest import Manifest
from asgt.runs.kept import keep_run, load_kept, of_other_versions
from asgt.runs.run import evaluate_again, load_run, read_run
from asgt.runs.verifying import verify
from asgt.training.config import TrainConfig
from asgt.training.run_folder import RunFolder
from asgt.training.trainer import train
from support.edits import rewritten
from support.messages import assert_states

GRID = (0.5, 0.9)
STORED = {
    "pgd": "pgd",
    "standard-quick": "standard-quick@2",
    "standard@1": "standard",
    "standard": "standard@2",
}
"""Folders in ``evaluation/`` by key, from the weakest to the strictest."""


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "run"
    train(TrainConfig(method="st", epochs=1, limit=60, batch_size=30, width=0.25), out)
    model, data, _, _ = load_run(out)
    images = data.test[sampled_rows(data.test, 10)]
    # in an order that is not that of the registry
    for key in ("standard", "pgd", "standard@1", "standard-quick"):
        asgt.evaluate(model, images, key, epsilons=GRID, folder=RunFolder(out).evaluation(STORED[key]))
    return out


@pytest.fixture
def run(made_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made_once, tmp_path / "run")


def test_a_run_holds_each_version_by_its_key_in_a_folder_of_its_own(run: Path) -> None:
    read = read_run(run)
    assert list(read.evaluations) == list(STORED)
    assert [(each.protocol.name, each.protocol.version) for each in read.evaluations.values()] == [
        ("pgd", 3),
        ("standard-quick", 2),
        ("standard", 1),
        ("standard", 2),
    ]
    assert sorted(folder.name for folder in (run / "evaluation").iterdir()) == sorted(STORED.values())
    manifest = Manifest.of(run)
    assert manifest is not None
    assert {f"evaluation/{name}" for name in STORED.values()} < set(manifest.made_from)
    for key, name in STORED.items():
        told = evaluate_again(run, key)
        assert_states(told, f"remove {run / 'evaluation' / name},", f"--protocol {key}")


def test_a_version_in_the_folder_of_another_is_refused(run: Path, cli: Callable) -> None:
    place = run / "evaluation" / "standard"
    shutil.rmtree(place)
    words = ("--protocol", "standard", "--samples", 4, "--epsilons", 0.9, "--out", place)
    assert cli("evaluate", run, *words).status == 0
    with pytest.raises(InputError) as refused:
        read_run(run)
    assert_states(refused.value, place, "standard v2", "rename it to standard@2")


def test_a_run_of_an_earlier_asgt_loads_as_it_is_and_takes_the_new_version_beside_it(
    run: Path, cli: Callable, tmp_path: Path
) -> None:
    for name in ("standard@2", "standard-quick@2"):
        shutil.rmtree(run / "evaluation" / name)
    read = read_run(run)
    assert list(read.evaluations) == ["pgd", "standard@1"]
    before = {file: file.read_bytes() for file in (run / "evaluation" / "standard").iterdir()}

    asked = ("--samples", 4, "--epsilons", "0.9")
    assert cli("evaluate", run, "--protocol", "standard", *asked).status == 0
    assert cli("evaluate", run, "--protocol", "standard", "--quick", *asked).status == 0
    assert (run / "evaluation" / "standard@2" / "result.json").is_file()
    assert (run / "evaluation" / "standard-quick@2" / "result.json").is_file()
    assert {file: file.read_bytes() for file in (run / "evaluation" / "standard").iterdir()} == before
    assert_states(cli("evaluate", run, "--protocol", "standard@1", *asked).refusal(), "evaluation/standard", "--resume")
    # A stopped evaluation by the earlier version goes on where it was.
    (run / "evaluation" / "standard" / "result.json").unlink()
    answer = cli("evaluate", run, "--protocol", "standard@1", "--resume", "--samples", 10, "--epsilons", "0.5,0.9")
    assert answer.status == 0, answer.err
    assert_states(answer.out, "standard v1")
    after = {file: file.read_bytes() for file in before if file.suffix == ".safetensors"}
    assert after == {file: content for file, content in before.items() if file.suffix == ".safetensors"}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--protocol", "pgd"],
        ["--protocol", "paper"],
        ["--protocol", "autoattack"],
        ["--protocol", "standard@1"],
        ["--protocol", "standard-quick"],
        ["--attack", "asgt.attacks:PGD"],
    ],
)
def test_quick_is_refused_where_it_would_be_ignored(words: list[str], made_once: Path, cli: Callable) -> None:
    said = cli("evaluate", made_once, "--quick", *words).refusal()
    assert_states(said, "--quick", "--protocol standard", *(words[:1] if "--attack" in words else words[1:]))


def test_the_command_line_lists_the_versions_that_there_are(made_once: Path, cli: Callable) -> None:
    said = cli("evaluate", made_once, "--protocol", "standard@7").refusal()
    assert_states(said, "standard@7", "standard@1", "standard@2")
    assert_states(cli("evaluate", made_once, "--protocol", "standrd").refusal(), "standrd", "standard@1")
    newest = cli("evaluate", made_once, "--protocol", "standard@2", "--samples", 4, "--epsilons", "0.9").refusal()
    assert_states(newest, made_once / "evaluation" / "standard@2", "--resume")


def test_two_versions_stand_side_by_side_and_the_newest_judges(run: Path) -> None:
    comparison = compare([run])
    assert list(comparison.epsilons) == list(STORED)
    assert [column.key for column in comparison.columns] == list(STORED)
    assert [column.key for column in comparison.judges()][-1] == "standard"
    read, method = read_run(run), comparison.methods[0]
    for column in comparison.columns:
        expected = read.evaluations[column.key].robust_accuracy(GRID[0], column.attack)
        assert comparison.at(method, column, GRID[0]).value == expected.value
    table = comparison.table()
    told = " ".join(str(heading) for heading in headings(comparison.columns))
    assert_states(told, "standard v1", "standard v2")
    assert "pgd v3" not in told, "its title stands for itself"
    assert_states(str(table), "standard v1", "standard v2")


@pytest.mark.usefixtures("no_files")
def test_the_page_and_the_terminal_show_both(run: Path, cli: Callable, tmp_path: Path) -> None:
    answer = cli("compare", run, "--out", "page")
    assert answer.status == 0, answer.err
    assert_states(answer.out, "standard v1", "standard v2", "standard-quick v2")
    page = (tmp_path / "page" / "report.html").read_text("utf-8")
    assert_states(page, "standard&nbsp;v1", "standard&nbsp;v2", "--protocol standard@1 --resume --thorough")
    for name in STORED.values():
        assert f"run/evaluation/{name}/result.json" in page
    with (tmp_path / "page" / "accuracies.csv").open(newline="") as file:
        rows = {(row["protocol"], row["version"]) for row in csv.DictReader(file)}
    assert rows == {("pgd", "3"), ("standard-quick", "2"), ("standard", "1"), ("standard", "2")}


def test_versions_that_not_all_runs_have_are_told_by_their_keys(run: Path) -> None:
    from dataclasses import replace

    read = read_run(run)
    other = replace(read, folder=Path("other"), config=replace(read.config, seed=1))
    old = replace(read, evaluations={key: read.evaluations[key] for key in ("pgd", "standard@1")})
    new = replace(other, evaluations={key: read.evaluations[key] for key in ("pgd", "standard")})
    comparison = compare_runs([old, new])
    assert list(comparison.epsilons) == ["pgd"]
    assert_states("; ".join(comparison.left_out), "protocol standard@1 is omitted", "protocol standard is omitted")

    old = replace(old, evaluations={"standard@1": read.evaluations["standard@1"]})
    new = replace(new, evaluations={"standard": read.evaluations["standard"]})
    with pytest.raises(InputError) as refused:
        compare_runs([old, new])
    assert_states(refused.value, "no protocol is common", "standard@1", f"asgt evaluate {run} --protocol standard")


def test_verify_checks_both_and_names_the_version_in_the_remedy(run: Path) -> None:
    [sound] = verify(run)
    assert sound.is_sound
    assert sound.findings == ()
    for key in ("standard@1", "standard"):
        shard = next((run / "evaluation" / STORED[key]).glob("worst-case*-00000.safetensors"))
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        [broken] = verify(run)
        shard.write_bytes(content)
        [finding] = broken.findings
        assert (finding.file, finding.state) == (shard, "damaged")
        assert f"--protocol {key} " in f"{finding.text} "


def test_what_is_saved_of_a_run_holds_both_and_the_earlier_one_as_it_ever_was(run: Path, tmp_path: Path) -> None:
    file, read = tmp_path / "kept.json", read_run(run)
    keep_run(read, file)
    kept = read_sealed(file)[0]
    assert set(kept["evaluations"]) == set(STORED.values())
    assert (kept["evaluations"]["standard"]["version"], kept["evaluations"]["standard@2"]["version"]) == (1, 2)
    assert of_other_versions(kept) == []
    loaded = load_kept(file)
    assert set(loaded.evaluations) == set(STORED)
    for key, evaluation in loaded.evaluations.items():
        assert evaluation.protocol == read.evaluations[key].protocol
        assert evaluation.by_class() is not None
        assert evaluation.by_class() == read.evaluations[key].by_class()
        assert evaluation.curve(next(iter(evaluation.outcomes))) == read.evaluations[key].curve(
            next(iter(evaluation.outcomes))
        )
    [sound] = verify(file)
    assert sound.findings == ()


def test_a_saved_version_that_is_not_here_or_not_called_so_is_refused(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "kept.json"

    def saved(name: str, **changes: object) -> None:
        keep_run(read_run(run), file)
        kept = json.loads(file.read_text())
        part = kept["evaluations"].pop("standard") | changes
        part.pop("sha256")
        kept["evaluations"][name] = part
        rewritten(file, kept)

    for changes in ({"class_names": ["one"]}, {"labels": {"shape": [1], "kind": "byte", "data": "AA=="}}):
        saved("standard", **changes)
        with pytest.raises(DamagedFileError) as damaged:
            load_kept(file)
        assert_states(damaged.value, file, "damaged", "labels")

    saved("standard", version=9)
    with pytest.raises(InputError) as refused:
        load_kept(file)
    assert_states(refused.value, file, "standard v9", "knows v2 and v1")
    assert of_other_versions(read_sealed(file)[0]) == ["standard"]
    [found] = verify(file)
    assert [finding.state for finding in found.findings] == ["unverified"]

    for name, version in (("standard", 2), ("standard@1", 1)):
        saved(name, version=version)
        with pytest.raises(DamagedFileError) as damaged:
            load_kept(file)
        assert_states(damaged.value, file, f"standard v{version}", name)


def test_an_edited_version_of_a_result_is_not_accepted_as_another(run: Path) -> None:
    path = run / "evaluation" / "standard" / "result.json"
    result = read_sealed(path)[0]
    result["protocol"]["version"] = 2
    write_sealed(path, result)
    with pytest.raises(InputError):
        read_run(run)
    [found] = verify(run)
    assert not found.is_sound


def test_what_is_saved_of_a_run_names_no_place_on_the_machine(run: Path, tmp_path: Path) -> None:
    from dataclasses import replace

    file, read = tmp_path / "kept.json", read_run(run)
    own = {"data": str(tmp_path / "photos"), "model": f"hf:{tmp_path / 'vit'}"}
    start = {"weights": str(tmp_path / "net.pt"), "sha256": "0" * 64, "head": "", "matched": "", "logits": 0}
    start |= {"mean": [], "std": [], "source": {"config": own, "start": start | {"source": {}}}}
    for name, place in {"weights": "net.pt", "from_run": "runs/before"}.items():
        config = replace(read.config, **own, **{name: str(tmp_path / place)})
        keep_run(replace(read, config=config, result=replace(read.result, start=start)), file)
        assert str(tmp_path) not in file.read_text(encoding="utf-8")
        kept = read_sealed(file)[0]
        assert kept["config"]["model"] == "hf:vit"
        assert kept["config"]["data"] == "photos"
        assert kept["config"][name] == place.split("/")[-1]
        assert kept["training"]["start"]["source"]["start"]["weights"] == "net.pt"
        assert load_kept(file).result.start == kept["training"]["start"]
