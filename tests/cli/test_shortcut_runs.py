"""A shortcut from the command line to the evidence: planted, recorded, resumed, evaluated and explained."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from asgt import (
    TrainConfig,
    compare,
    compare_shortcut_use,
    load_data,
    load_evaluation,
    load_run,
    train,
    verify,
    write_report,
)
from asgt.comparison.comparing import read_methods
from asgt.comparison.map_evidence import gather_maps, panel_rows
from asgt.data import plant, shortcut_views, stratified, to_unit
from asgt.errors import InputError, InterruptedRunError
from asgt.evaluation.shortcut_use import in_points, shortcut_use
from asgt.explanation import load_explanation
from asgt.explanation.shown_maps import map_rule, picture_uri
from asgt.files import read_sealed
from asgt.runs.explain_run import explain_run
from asgt.runs.kept import keep_run, load_kept
from asgt.runs.run import read_run
from asgt.shortcuts import VIEWS, ShortcutView
from asgt.training.run_folder import RunFolder
from asgt.training.validating import validation_share
from support.edits import rewritten
from support.messages import assert_states
from support.trainings import assert_same

pytestmark = pytest.mark.slow

PLANT = "patch:0.9,contrast=0.8,size=2,seed=0,code=level"


@pytest.fixture(scope="module")
def _planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("planted") / "run"
    train(TrainConfig(method="st", epochs=2, limit=450, batch_size=20, lr=0.1, shortcut="patch:0.9,size=2"), out)
    return out


@pytest.fixture
def planted_run(_planted: Path, tmp_path: Path) -> Path:
    """A finished run on the digits with a patch."""

    return shutil.copytree(_planted, tmp_path / "planted")


def test_the_plant_is_recorded_in_configuration_and_digests(planted_run: Path, finished_run: Path) -> None:
    assert yaml.safe_load((planted_run / "config.yaml").read_text())["shortcut"] == PLANT
    planted, plain = (json.loads((run / "training.json").read_text()) for run in (planted_run, finished_run))
    assert planted["train_data"] == plant(load_data("digits", limit=450).train, PLANT).digest()
    assert planted["train_data"] != plain["train_data"]
    # The test images are as they were: what is planted in them, an evaluation says.
    assert planted["test_data"] == plain["test_data"]
    model, data, config, _ = load_run(planted_run)
    assert config.shortcut == PLANT
    assert data.test.digest() == planted["test_data"]

    # The validation part is planted as the training images are.
    images = load_data("digits", limit=450).train
    rows = stratified(images.labels, validation_share(config, 450), "validation")[1]
    validation = plant(images, PLANT)[rows]
    with torch.no_grad():
        right = model(to_unit(validation.pixels)).argmax(dim=1) == validation.labels
        plain = model(to_unit(images.pixels[rows])).argmax(dim=1) == validation.labels
    assert planted["validation"]["clean"] == pytest.approx(float(right.float().mean()))
    assert not right.equal(plain)


def test_each_view_has_evidence_of_its_own(cli: Callable, planted_run: Path, finished_run: Path) -> None:
    words = ("--protocol", "paper", "--samples", 60, "--epsilons", 0.1)
    for run in (planted_run, finished_run):
        assert cli("evaluate", run, *words).status == 0
    answers = {
        view: cli("evaluate", planted_run, *words, "--shortcut-view", view)
        for view in ("aligned", "random", "reversed")
    }
    assert [answer.status for answer in answers.values()] == [0, 0, 0], [answer.err for answer in answers.values()]
    for view, answer in answers.items():
        assert_states(answer.out, f"shortcut {view}")
    again = cli("evaluate", planted_run, *words, "--shortcut-view", "absent")
    assert_states(again.refusal(), "evaluation/paper", "--resume")

    place = planted_run / "evaluation"
    assert sorted(each.name for each in place.iterdir()) == ["paper", "paper+aligned", "paper+random", "paper+reversed"]
    found = {each.name: load_evaluation(each) for each in place.iterdir()}
    assert {name: each.shortcut_view for name, each in found.items()} == {
        "paper": "",
        "paper+aligned": "aligned",
        "paper+random": "random",
        "paper+reversed": "reversed",
    }
    assert len({each.data for each in found.values()}) == 4
    assert found["paper"].data == load_evaluation(finished_run / "evaluation" / "paper").data
    assert all(torch.equal(each.labels, found["paper"].labels) for each in found.values())
    views = shortcut_views(load_data("digits").test, PLANT)
    assert found["paper+reversed"].data == views["reversed"][:60].digest()
    assert float(found["paper+aligned"].clean.float().mean()) > float(found["paper+reversed"].clean.float().mean())

    # Those of a view stand in no place of another, and all of it is whole.
    read = read_run(planted_run)
    assert list(read.evaluations) == ["paper"]
    assert {view: list(by_key) for view, by_key in read.views.items()} == {view: ["paper"] for view in answers}
    (checked,) = verify(planted_run)
    assert checked.is_sound
    resumed = cli("evaluate", planted_run, "--protocol", "paper", "--shortcut-view", "reversed", "--resume")
    assert resumed.status == 0, resumed.err
    assert load_evaluation(place / "paper+reversed").samples == 60
    taken_up = cli("evaluate", planted_run, "--protocol", "paper", "--out", place / "paper+reversed", "--resume")
    assert taken_up.status == 0, taken_up.err
    mixed = cli(
        *("evaluate", planted_run, *words, "--shortcut-view", "aligned", "--out", place / "paper+reversed", "--resume")
    )
    assert_states(mixed.refusal(), "reversed", "aligned", "--out")


def test_one_call_evaluates_all_four_test_sets_and_says_what_they_differ_by(cli: Callable, planted_run: Path) -> None:
    words = ("evaluate", planted_run, "--protocol", "paper", "--samples", 40, "--epsilons", 0.1)
    answer = cli(*words, "--shortcut-view", "all")
    assert answer.status == 0, answer.err
    run = read_run(planted_run)
    assert list(run.on_views("paper")) == ["aligned", "absent", "random", "reversed"]
    use = shortcut_use(run.on_views("paper").values())
    assert_states(answer.out, "four test sets", in_points(use.gap()), in_points(use.gap(0.1)), "worst group")
    for view in ("aligned", "absent", "random", "reversed"):
        assert use.accuracy(view).percent() in answer.out

    # One of them that is there already is seen before the first takes its time; with --resume only the others are made.
    shutil.rmtree(planted_run / "evaluation" / "paper")
    assert_states(cli(*words, "--shortcut-view", "all").refusal(), "paper+aligned", "--resume")
    assert not (planted_run / "evaluation" / "paper").exists()
    before = (planted_run / "evaluation" / "paper+random" / "fgsm-00000.safetensors").stat().st_mtime_ns
    assert cli(*words, "--shortcut-view", "all", "--resume").status == 0
    assert (planted_run / "evaluation" / "paper+random" / "fgsm-00000.safetensors").stat().st_mtime_ns == before
    assert torch.equal(read_run(planted_run).evaluations["paper"].clean, run.evaluations["paper"].clean)
    (checked,) = verify(planted_run)
    assert checked.is_sound


def test_the_report_has_the_four_test_sets_or_says_how_to_get_them(
    cli: Callable, planted_run: Path, finished_run: Path, tmp_path: Path
) -> None:
    words = ("--protocol", "paper", "--samples", 40, "--epsilons", 0.1)
    out = tmp_path / "page"

    def section(*runs: Path) -> str:
        text = write_report(compare(runs), out).read_text()
        return text.partition('<section id="shortcuts">')[2].partition("</section>")[0]

    for run in (planted_run, finished_run):
        assert cli("evaluate", run, *words).status == 0
    assert section(finished_run) == ""
    assert_states(
        section(planted_run),
        PLANT,
        "NOT RUN",
        f"asgt evaluate {planted_run} --protocol paper --shortcut-view all --resume",
    )
    assert not (out / "shortcuts.csv").exists()

    assert cli("evaluate", planted_run, *words, "--shortcut-view", "all", "--resume").status == 0
    shown, use = section(planted_run), shortcut_use(read_run(planted_run).on_views("paper").values())
    assert_states(shown, "aligned", "reversed", "worst group", PLANT)
    for eps in (0.0, 0.1):
        for view in VIEWS:
            accuracy, interval = use.accuracy(view, eps).percent().split(" ", 1)
            assert f'<td>{accuracy} <small class="interval">{interval}</small></td>' in shown
    with (out / "shortcuts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["test set"], float(row["eps"])): float(row["accuracy"]) for row in rows} == {
        (view, eps): pytest.approx(use.accuracy(view, eps).value, abs=1e-6) for view in VIEWS for eps in (0.0, 0.1)
    }

    # A run without a shortcut beside it has no gap, and does not hide that of the other.
    both = section(planted_run, finished_run)
    assert_states(both, "worst group", "ST (shortcut = patch:0.9,size=2,", "Without evaluations", "ST (no shortcut,")
    # A shortcut can be planted in its test images too: its gap is then of another, or of the same.
    for other, compared in (("disc:1", 0), (PLANT, 1)):
        assert (
            cli("evaluate", finished_run, *words, "--shortcut", other, "--shortcut-view", "all", "--resume").status == 0
        )
        again = cli("evaluate", finished_run, "--protocol", "paper", "--shortcut-view", "random", "--resume")
        assert again.status == 0, again.err
        used = compare_shortcut_use(compare([planted_run, finished_run]))
        assert len(used.differences()) == compared
        assert len(used.shortcuts) == 2 - compared
        assert_states(
            section(planted_run, finished_run), *([] if compared else ["different shortcuts", "disc:"]), "gap"
        )
        for view in ("aligned", "random", "reversed"):
            shutil.rmtree(finished_run / "evaluation" / f"paper+{view}")

    # The table of an earlier page does not stay.
    for view in ("aligned", "random", "reversed"):
        shutil.rmtree(planted_run / "evaluation" / f"paper+{view}")
    assert_states(section(planted_run, finished_run), "NOT RUN", "no run was evaluated with the shortcut")
    assert not (out / "shortcuts.csv").exists()
    assert not (out / "figures" / "shortcuts.png").exists()


def test_evidence_of_a_view_is_not_read_as_that_of_another(cli: Callable, planted_run: Path) -> None:
    words = ("--protocol", "paper", "--samples", 20, "--epsilons", 0.1, "--shortcut-view", "reversed")
    assert cli("evaluate", planted_run, *words).status == 0
    place = planted_run / "evaluation" / "paper+reversed"
    broken = planted_run / "evaluation" / "paper+reversed" / "result.json"
    kept = broken.read_bytes()
    broken.write_bytes(kept.replace(b"reversed", b"aligned"))
    (found,) = [finding for finding in verify(planted_run)[0].findings if finding.file == broken]
    assert_states(found.text, "--protocol paper", "--shortcut-view reversed")
    broken.write_bytes(kept)
    for view, fact in (("aligned", "aligned"), ("odd", "damaged")):
        rewritten(broken, read_sealed(broken)[0] | {"shortcut_view": view})
        (found,) = [finding for finding in verify(planted_run)[0].findings if finding.file == broken]
        assert_states(found.text, place, fact)
    rewritten(broken, read_sealed(broken)[0] | {"shortcut_view": "reversed"})
    assert verify(planted_run)[0].is_sound

    place.rename(place.with_name("paper"))
    with pytest.raises(InputError) as refused:
        read_run(planted_run)
    assert_states(refused.value, "evaluation/paper", "reversed", "paper+reversed")


def test_the_four_test_sets_may_lie_in_the_working_folder(
    cli: Callable, planted_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "here").mkdir()
    monkeypatch.chdir(here)
    words = ("--protocol", "paper", "--samples", 20, "--epsilons", 0.1, "--shortcut-view", "all")
    assert cli("evaluate", planted_run, *words, "--out", ".").status == 0
    assert load_evaluation(here).shortcut_view == ""
    for view in ("aligned", "random", "reversed"):
        assert load_evaluation(here.with_name(f"here+{view}")).shortcut_view == view


def test_weights_of_a_run_with_a_shortcut_say_with_which(cli: Callable, planted_run: Path, tmp_path: Path) -> None:
    assert cli("train", "--from", planted_run, "--epochs", 0, "--method", "st", "--out", tmp_path / "again").status == 0
    refused = cli("evaluate", tmp_path / "again", "--shortcut-view", "reversed").refusal()
    assert_states(refused, "without a shortcut", "of a run with", PLANT)


def test_planted_images_that_are_passed_are_recorded_as_a_shortcut(tmp_path: Path) -> None:
    data = load_data("digits", limit=200)
    config = TrainConfig(method="st", epochs=1, batch_size=50)
    passed = {name: (plant(data.train, name), data.test) for name in ("patch:0.9", "disc:0.9")}
    first = train(config, tmp_path / "run", data=passed["patch:0.9"])
    assert_states(str(TrainConfig.load(tmp_path / "run" / "config.yaml").shortcut), "patch:0.9,")
    assert train(config, tmp_path / "run", data=passed["patch:0.9"], resume=True) == first
    for other, facts in ((passed["disc:0.9"], ["shortcut", "patch", "disc"]), ((data.train, data.test), ["shortcut"])):
        with pytest.raises(InputError) as refused:
            train(config, tmp_path / "run", data=other, resume=True)
        assert_states(refused.value, *facts)
    with pytest.raises(InputError) as refused:
        train(dataclasses.replace(config, shortcut="disc"), tmp_path / "other", data=passed["patch:0.9"])
    assert_states(refused.value, "disc", "already", "patch")

    # Other images without a shortcut are no more those of the finished run.
    train(config, tmp_path / "plain", data=(data.train, data.test))
    with pytest.raises(InputError) as refused:
        train(config, tmp_path / "plain", data=(data.train[:150], data.test), resume=True)
    assert_states(refused.value, "other images")


def test_an_augmentation_that_moves_the_shortcut_is_told(cli: Callable, tmp_path: Path) -> None:
    assert TrainConfig(method="st", data="cifar10").resolved().augment == "crop-flip"
    assert TrainConfig(method="st", data="cifar10", shortcut="patch").resolved().augment == "none"
    words = ("train", "--method", "st", "--epochs", 1, "--limit", 100, "--shortcut", "patch", "--out")
    assert "--augment" not in cli(*words, tmp_path / "plain").err
    answer = cli(*words, tmp_path / "moved", "--augment", "crop-flip")
    assert answer.status == 0
    assert_states(answer.out + answer.err, "--augment crop-flip", "shortcut", "--augment none")
    assert_states(" ".join(json.loads((tmp_path / "moved" / "training.json").read_text())["warnings"]), "crop-flip")


def test_a_run_is_resumed_with_its_own_plant_alone(cli: Callable, tmp_path: Path) -> None:
    config = TrainConfig(method="st", epochs=2, limit=300, batch_size=20, shortcut="patch:0.9,size=2")
    train(config, tmp_path / "whole")
    answers = iter([False] * 16 + [True])
    with pytest.raises(InterruptedRunError):
        train(config, tmp_path / "run", should_stop=lambda: next(answers))
    for other in ("patch:0.8,size=2", "patch:0.9,size=3", "disc", "patch:0.9,size=2,seed=1"):
        said = cli("train", "--resume", "--out", "run", "--shortcut", other).refusal()
        assert_states(said, "run", PLANT, other.partition(":")[0], "--shortcut")
    assert cli("train", "--resume", "--out", "run", "--shortcut", "patch:9/10,size=2").status == 0
    assert_same(tmp_path / "run", tmp_path / "whole")

    train(TrainConfig(method="st", epochs=1, limit=300, batch_size=20), tmp_path / "plain")
    said = cli("train", "--resume", "--out", "plain", "--shortcut", "patch").refusal()
    assert_states(said, "plain", "shortcut", "None", "--shortcut")


def test_someone_elses_weights_are_evaluated_in_the_four_test_sets(cli: Callable, planted_run: Path) -> None:
    foreign = ("--model", "small_cnn", "--weights", planted_run / "model.safetensors", "--data", "digits")
    words = ("--protocol", "paper", "--samples", 60, "--epsilons", 0.1)
    assert cli("evaluate", planted_run, *words, "--shortcut-view", "random").status == 0
    plant = ("--shortcut", PLANT, "--shortcut-view", "random")
    assert cli("evaluate", *foreign, *words, *plant, "--out", "theirs").status == 0
    ours, theirs = load_evaluation(planted_run / "evaluation" / "paper+random"), load_evaluation("theirs")
    assert (theirs.data, theirs.shortcut_view) == (ours.data, "random")
    assert torch.equal(theirs.clean, ours.clean)


def explained(run: Path, samples: int, view: ShortcutView) -> None:
    model, data, config, _ = load_run(run)
    explain_run(
        *(RunFolder(run), model, data.test, config.data),
        samples=samples,
        eps=0.1,
        norm="linf",
        shortcut=config.shortcut,
        shortcut_view=view,
    )


def test_each_view_is_explained_in_a_place_of_its_own(
    cli: Callable, planted_run: Path, finished_run: Path, tmp_path: Path
) -> None:
    words = ("--samples", 8, "--eps", 0.1, "--out", tmp_path / "page")
    # Weights that were trained without a shortcut are explained on the same images as those that tell their own.
    said = cli("explain", planted_run, finished_run, *words, "--shortcut", "patch:0.5,size=2")
    assert said.status == 0, said.err
    theirs = load_explanation(finished_run / "explanation" / "gradient+aligned")
    explained(planted_run, 8, "absent")
    explained(planted_run, 8, "reversed")
    place = planted_run / "explanation"
    assert sorted(each.name for each in place.iterdir()) == ["gradient", "gradient+aligned", "gradient+reversed"]
    found = {each.name: load_explanation(each) for each in place.iterdir()}
    assert {name: each.shortcut_view for name, each in found.items()} == {
        "gradient": "",
        "gradient+aligned": "aligned",
        "gradient+reversed": "reversed",
    }
    views = shortcut_views(load_data("digits").test, PLANT)
    for name, view in (("gradient", "absent"), ("gradient+aligned", "aligned"), ("gradient+reversed", "reversed")):
        rows = found[name].ids
        assert found[name].data == views[view][rows].digest()
        shares = found[name].per_image("shortcut-mass")
        assert (shares is None) == (view == "absent")
    assert list(read_run(planted_run).explanations) == sorted(found)
    assert verify(planted_run)[0].is_sound
    drawn = (tmp_path / "page" / "figures").glob("saliency*.png")
    assert sorted(each.name for each in drawn) == [f"saliency-gradient+aligned{kind}.png" for kind in ("-signed", "")]

    assert (theirs.data, theirs.settings) == (found["gradient+aligned"].data, found["gradient+aligned"].settings)
    other = cli("explain", finished_run, *words, "--shortcut", "patch:0.9,size=3")
    assert other.status == 2
    assert_states(other.err, finished_run / "explanation" / "gradient+aligned", "size = 2", "size = 3", "remove")

    own = cli("explain", planted_run, *words, "--shortcut", "disc").refusal()
    assert_states(own, "--shortcut disc", planted_run, PLANT, "remove the flag")

    for wrong in ("gradient+random", "ig+aligned"):
        (place / "gradient+aligned").rename(place / wrong)
        with pytest.raises(InputError) as refused:
            read_run(planted_run)
        assert_states(refused.value, place / wrong, "gradient+aligned", "rename")
        lost = verify(planted_run)[0].findings
        assert all("asgt explain" in each.text and "--shortcut-view aligned" in each.text for each in lost), lost
        assert {each.file for each in lost} == {
            place / "gradient+aligned" / name for name in ("result.json", "values.safetensors")
        }
        (place / wrong).rename(place / "gradient+aligned")


def test_pictures_and_tables_show_the_shortcut(planted_run: Path, tmp_path: Path) -> None:
    explained(planted_run, 150, "aligned")
    explained(planted_run, 8, "absent")
    evidence = gather_maps(read_methods([planted_run]))
    plain, aligned = evidence.explained
    assert [(each.name, each.file, each.panel.shortcut_view) for each in (plain, aligned)] == [
        ("gradient", "gradient", ""),
        ("gradient+aligned", "gradient+aligned", "aligned"),
    ]
    assert plain.panel.not_run
    assert aligned.primary.name == "shortcut-mass"
    assert aligned.panel.shortcut_area == pytest.approx(4 / 64)
    rows = {row.measure.name: row for row in panel_rows(aligned)}
    assert rows["shortcut-mass"].title == "mass on the shortcut"
    assert all(0 < score.low < score.value < score.high < 1 for score in rows["shortcut-mass"].scores)

    # So do saved results.
    keep_run(read_run(planted_run), tmp_path / "kept.json")
    kept, whole = (
        run.explanations["gradient+aligned"] for run in (load_kept(tmp_path / "kept.json"), *aligned.runs["ST"])
    )
    assert kept.settings == whole.settings
    for name in ("shortcut-mass@full", "shortcut-top", "shortcut-hidden-noise", "elsewhere-hidden-mean"):
        ours, theirs = kept.per_image(name), whole.per_image(name)
        assert ours is not None
        assert theirs is not None
        assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-6)

    pictures = evidence.pictures
    assert list(pictures.shown) == ["gradient", "gradient+aligned"]
    assert pictures.shown["gradient"].shortcut is None
    planted = pictures.shown["gradient+aligned"]
    assert planted.shortcut is not None
    test = load_data("digits").test
    first = torch.stack([(test.labels == label).nonzero()[0, 0] for label in range(10)])
    images = shortcut_views(test, PLANT)["aligned"][first]
    assert torch.equal(planted.images, to_unit(images.pixels))
    assert torch.equal(planted.shortcut, images.pixels.masks())  # type: ignore[union-attr]
    assert_states(map_rule(planted), "outlined", "shortcut")
    assert "outlined" not in map_rule(pictures.shown["gradient"])
    drawn, plain_one = (
        picture_uri(maps, 0, torch.zeros(8, 8, 3, dtype=torch.uint8)) for maps in (planted, pictures.shown["gradient"])
    )
    assert plain_one.startswith("data:image/png;base64,")
    svg = base64.b64decode(drawn.removeprefix("data:image/svg+xml;base64,")).decode()
    assert plain_one in svg
    assert svg.count("<path ") == 2


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("train", "--shortcut", "patsch"), ["shortcut", "'patsch'", "'patch'"]),
        (("train", "--shortcut", "patch:1.5"), ["strength", "1.5", "[0, 1]"]),
        (("train", "--shortcut", "patch:0.9,size=9"), ["size", "9", "8×8"]),
        (("train", "--shortcut", "patch:0.9,size"), ["patch:0.9,size", "SETTING=VALUE"]),
        (
            ("evaluate", "finished", "--shortcut-view", "reversed"),
            ["--shortcut-view", "reversed", "without a shortcut"],
        ),
        (("evaluate", "finished", "--shortcut-view", "revrsed"), ["--shortcut-view", "'revrsed'", "'reversed'"]),
        (("evaluate", "finished", "--shortcut-view", "all"), ["--shortcut-view all", "without a shortcut"]),
        (("evaluate", "finished", "--shortcut", "patch"), ["--shortcut", "--shortcut-view"]),
        (("explain", "finished", "--shortcut-view", "random"), ["--shortcut-view", "random", "without a shortcut"]),
        (("explain", "finished", "--shortcut-view", "alinged"), ["--shortcut-view", "'alinged'", "'aligned'"]),
        (("explain", "finished", "--shortcut", "patsch"), ["shortcut", "'patsch'", "'patch'"]),
        (("explain", "finished", "--shortcut", "patch:0.9,size=9"), ["size", "9", "8×8"]),
        (
            ("evaluate", "--model", "small_cnn", "--data", "digits", "--out", "e", "--shortcut-view", "random"),
            ["--shortcut", "--shortcut-view"],
        ),
        (
            ("evaluate", "--model", "small_cnn", "--data", "digits", "--out", "e", "--shortcut-view", "all"),
            ["--shortcut", "--shortcut-view"],
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    cli: Callable, finished_run: Path, tmp_path: Path, words: tuple[str, ...], facts: list[str]
) -> None:
    assert_states(cli(*words).refusal(), *facts)
    assert [each.name for each in tmp_path.iterdir()] == ["finished"]
