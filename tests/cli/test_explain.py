"""``asgt explain``, and what is shown of explanations: the panel, the scatter, and what is told rather than mixed."""

from __future__ import annotations

import csv
import importlib
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from scipy.stats import spearmanr

from asgt.cli.console import Console
from asgt.comparison.comparing import compare, read_methods
from asgt.comparison.explained import explanations_of
from asgt.comparison.tradeoff import tradeoff_of
from asgt.errors import InputError
from asgt.experiments import load_preset
from asgt.experiments.budget import explanation_passes
from asgt.experiments.grid import NOTE, plan
from asgt.experiments.job import Job, do
from asgt.explanation import load_explanation, strokes
from asgt.files import write_yaml
from asgt.progress import SILENT
from asgt.report.masked_curves import masked_charts
from asgt.report.tradeoff_chart import tradeoff_scatter
from asgt.runs.explain_run import explain_run, explained_alike
from asgt.runs.run import load_run
from asgt.statistics import rank_correlation
from asgt.training.run_folder import RunFolder
from support.command import Answer
from support.edits import resealed
from support.explanations import explain_by_hand
from support.messages import assert_states
from support.paths import RUNS

SMALL = ("--samples", "20")


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Three methods of two seeds each, without explanations."""

    shutil.copytree(RUNS, tmp_path / "runs")
    return sorted((tmp_path / "runs").iterdir())


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Leaves the figures undrawn, which take most of the time; notes which attributions would have been."""

    drawn: list[str] = []
    for module in ("sections.maps_section", "map_files"):
        monkeypatch.setattr(
            importlib.import_module(f"asgt.report.{module}"),
            "write_pictures",
            lambda evidence, *_: drawn.extend(evidence.pictures.shown),
        )
    for module in ("sections.measures_section", "map_files"):
        for name in ("write_measures", "write_gradients"):
            monkeypatch.setattr(importlib.import_module(f"asgt.report.{module}"), name, lambda *_: None)
    return drawn


def by_hand(runs: list[Path], **options: Any) -> dict[str, dict[str, np.ndarray]]:
    return {
        run.name: {
            name: value.numpy()
            for name, value in explain_by_hand(run, mass=0.4 + 0.1 * number, draw=number, **options).items()
        }
        for number, run in enumerate(runs)
    }


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_is_explained_once_and_taken_up_after_that(
    cli: Callable[..., Answer], finished_run: Path, no_figures: list[str]
) -> None:
    for old in ("report.html", "figures/robustness.png"):
        Path("seen", old).parent.mkdir(parents=True, exist_ok=True)
        Path("seen", old).write_text("of another call")
    answer = cli("explain", finished_run, *SMALL, "--out", "seen")
    assert answer.status == 0, answer.err
    assert_states(answer.out, "NOT RUN", "20 images")
    assert_states(answer.err, "evaluated")
    made = finished_run / "explanation" / "gradient"
    found = load_explanation(made)
    assert (found.samples, found.eps, found.norm) == (20, 0.1, "linf"), (
        "the digits' own eps: nothing was trained at one"
    )
    # The first twenty lack a class, so that they are drawn by class.
    assert found.ids.tolist() == sorted(set(found.ids.tolist()))
    assert set(found.labels.tolist()) == set(range(10))
    assert "mass" not in found.values, "of the digits it is not known where the object is"
    # What an earlier call showed on a page does not stay beside these tables.
    assert not Path("seen/report.html").exists()
    assert not Path("seen/figures/robustness.png").exists()
    with open("seen/panel.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["asked"] for row in rows} == {"20"}
    assert all("only" in row["not_run"] and row["mean"] == "" for row in rows)
    assert no_figures == ["gradient"]

    times = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert "already explained" in cli("explain", finished_run, *SMALL, "--out", "seen").err
    # What contradicts it is refused; --resume takes it up as it was asked for.
    for flags, said in (
        (("--samples", "60"), ("samples = 20", "60")),
        (("--eps", "0.2", *SMALL), ("eps = 0.1", "0.2")),
    ):
        answer = cli("explain", finished_run, *flags)
        assert_states(answer.failure(), *said, "--resume")
    assert cli("explain", finished_run, "--resume", "--out", "seen").status == 0
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == times


def test_an_explanation_that_is_removed_while_it_is_drawn_is_an_error(
    cli: Callable[..., Answer], finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def removed(*shown: object, **options: object) -> None:
        shutil.rmtree(finished_run / "explanation")

    monkeypatch.setattr("asgt.report.map_files.write_map_evidence", removed)
    assert_states(cli("explain", finished_run, *SMALL).failure(), "explanation/gradient", "removed")


@pytest.mark.slow
@pytest.mark.usefixtures("no_figures")
def test_what_was_begun_and_not_finished_needs_resume(cli: Callable[..., Answer], finished_run: Path) -> None:
    (finished_run / "explanation" / "gradient").mkdir(parents=True)
    (finished_run / "explanation" / "gradient" / "values.safetensors.part").write_bytes(b"half")
    assert "--resume" in cli("explain", finished_run, *SMALL).failure()
    assert cli("explain", finished_run, *SMALL, "--resume").status == 0


@pytest.mark.slow
def test_several_attributions_have_a_folder_and_a_panel_each(
    cli: Callable[..., Answer], finished_run: Path, no_figures: list[str]
) -> None:
    answer = cli("explain", finished_run, "--samples", "4", "--attribution", "input-x-gradient,gradcam")
    assert answer.status == 0, answer.err
    for name in ("input-x-gradient", "gradcam"):
        assert load_explanation(finished_run / "explanation" / name).attribution == name
        assert f"saliency measures by {name}" in answer.out
    assert no_figures == ["gradient", "gradcam", "input-x-gradient"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", ["run folder", "asgt explain"]),
        ("{} --attribution gradent", ["gradent", "'gradient'"]),
        ("{} --attribution ,", ["--attribution"]),
        ("{} --samples 0", ["--samples 0"]),
        ("{} --samples 1000", ["--samples 1000", "359"]),
        ("{} --samples many", ["--samples"]),
        ("{} --batch-size 0", ["--batch-size 0"]),
        ("{} --eps ten", ["--eps"]),
        ("{} --layer features", ["--layer features", "gradcam"]),
        ("{} --layer nothing --attribution gradcam --samples 4", ["nothing"]),
        ("{} --device tpu", ["tpu"]),
        ("{} {}", ["finished", "twice"]),
        ("gone", ["gone"]),
        ("{} --sample 3", ["--sample", "--samples"]),
    ],
)
def test_bad_input_is_one_clear_line(
    cli: Callable[..., Answer], finished_run: Path, words: str, said: list[str]
) -> None:
    answer = cli("explain", *words.replace("{}", str(finished_run)).split())
    assert_states(answer.failure(), *said)
    assert not (finished_run / "explanation").exists()


def test_a_run_that_is_not_finished_is_not_explained(cli: Callable[..., Answer], stopped_run: Path) -> None:
    assert_states(cli("explain", stopped_run).refusal(), stopped_run, "finished")


def test_a_model_of_linear_layers_has_no_gradcam(
    cli: Callable[..., Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "flat_net.py").write_text(
        "from torch import nn\n\ndef flat(shape=(1, 8, 8), classes=10, **options):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    words = ["--data", "digits", "--model", "flat_net:flat", "--method", "st", "--epochs", "1", "--limit", "100"]
    assert cli("train", *words, "--out", "flat").status == 0
    answer = cli("explain", "flat", "--attribution", "gradcam", "--model", "flat_net:flat", *SMALL)
    assert_states(answer.failure(), "gradcam", "no convolution")
    assert_states(cli("explain", "flat", *SMALL).failure(), "--model flat_net:flat")


# --- side by side ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_panel_the_curves_and_the_scatter_hold_the_values_of_the_evidence(runs: list[Path]) -> None:
    values = by_hand(runs)
    comparison = compare(runs)
    (found,) = explanations_of(comparison.methods)
    slugs = {"ST": "st", "AT-FGSM": "at-fgsm", "ASGT-PGD": "asgt-pgd"}
    right = slice(4, None)  # the first four are said to be wrong
    assert (found.panel.n, found.panel.asked, found.primary.name) == (116, 120, "mass")

    told = tradeoff_of(comparison, found)
    assert told is not None
    scatter = tradeoff_scatter(told, {name: number for number, name in enumerate(slugs)})
    points = {point.name: point for point in scatter.points}
    masses, robust = {}, {}
    for name, slug in slugs.items():
        means = np.array([values[f"{slug}-{seed}"]["mass"][right].mean() for seed in (0, 1)])
        score = found.panel.value(name, "mass")
        assert score.values == pytest.approx(means)
        assert (score.value, score.sd) == pytest.approx((means.mean(), means.std(ddof=1)))
        point = points[name]
        assert (point.y, point.y_low, point.y_high) == pytest.approx(
            (means.mean(), means.mean() - means.std(ddof=1), means.mean() + means.std(ddof=1))
        )
        judged = comparison.at(
            next(method for method in comparison.methods if method.name == name), comparison.judges()[-1], 0.1
        )
        assert (point.x, point.x_low, point.x_high) == pytest.approx(
            (100 * judged.value, 100 * judged.low, 100 * judged.high)
        )
        assert [y for _, y in point.runs] == pytest.approx(means)
        masses[name], robust[name] = means.mean(), judged.value
    assert told.correlation == pytest.approx(spearmanr(list(robust.values()), list(masses.values())).statistic)
    assert_states(scatter.subtitle, "in advance", "mass on the object")
    assert_states(told.sentence(), "3 methods", "do not show")

    panels = masked_charts(found, {name: number for number, name in enumerate(slugs)})
    for panel, (fill, beside) in zip(
        panels, [("mean", "random"), ("noise", "random"), ("linear", "least")], strict=True
    ):
        for line in panel.lines:
            runs_of = [values[f"{slugs[line.name]}-{seed}"] for seed in (0, 1)]
            top = np.mean([one[f"{fill}/top"][:, right].mean(axis=-1) for one in runs_of], axis=0)
            held = np.mean(
                [one[f"{fill}/{beside}"][..., right].reshape(-1, 9, 116).mean(axis=(0, -1)) for one in runs_of], axis=0
            )
            assert line.x == pytest.approx(range(0, 100, 10))
            assert line.y == pytest.approx([100, *(100 * top)])
            assert line.beside == pytest.approx([100, *(100 * held)])


@pytest.mark.slow
def test_without_objects_road_is_the_primary_measure(runs: list[Path]) -> None:
    for number, run in enumerate(runs):
        explain_by_hand(run, draw=number)
    comparison = compare(runs)
    (found,) = explanations_of(comparison.methods)
    assert found.primary.name == "road"
    told = tradeoff_of(comparison, found)
    assert told is not None
    assert "ROAD" in tradeoff_scatter(told, dict.fromkeys(found.panel.methods, 0)).y_label


@pytest.mark.slow
def test_other_settings_and_runs_without_explanations_are_told_and_not_mixed(runs: list[Path]) -> None:
    by_hand(runs[:5])
    explain_by_hand(runs[1], mass=0.9, eps=0.2)
    (found,) = explanations_of(read_methods(runs))
    assert {name: [run.folder for run in several] for name, several in found.runs.items()} == {
        "ST": [runs[4]],
        "AT-FGSM": runs[2:4],
        "ASGT-PGD": runs[:1],
    }
    assert found.panel.not_run == ""
    other, lacking = (
        next(note for note in found.notes if word in note) for word in ("other settings", "not explained")
    )
    assert str(runs[1]) in other
    assert str(runs[5]) in lacking


@pytest.mark.slow
def test_a_comparison_needs_no_explanation_and_too_few_images_are_said(runs: list[Path]) -> None:
    assert explanations_of(read_methods(runs)) == ()
    by_hand(runs, wrong=30)
    comparison = compare(runs)
    (found,) = explanations_of(comparison.methods)
    assert_states(found.panel.not_run, "90", "120 images")
    assert tradeoff_of(comparison, found) is None
    assert masked_charts(found, {}) == []


def test_an_explanation_of_other_weights_is_refused(runs: list[Path]) -> None:
    by_hand(runs)
    shutil.copy(runs[0] / "explanation/gradient/result.json", runs[1] / "explanation/gradient/result.json")
    shutil.copy(
        runs[0] / "explanation/gradient/values.safetensors", runs[1] / "explanation/gradient/values.safetensors"
    )
    resealed(runs[1])
    with pytest.raises(InputError) as caught:
        read_methods(runs)
    assert_states(caught.value, "other weights", runs[1] / "explanation" / "gradient", "remove", "asgt explain")


@pytest.mark.slow
def test_the_terminals_panel_fits_eighty_columns(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    by_hand(runs)
    console = Console()
    console.out.width = 80
    console.explained(explanations_of(read_methods(runs)))
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines())
    for name in ("ST", "AT-FGSM", "ASGT-PGD"):
        assert said.count(f" {name} ") >= 1
    assert "mass on the object ↑" in said
    assert "sparseness *" in said
    assert "n = 116 of 120 images" in " ".join(said.split())


@pytest.mark.parametrize("count", [3, 5, 7, 8, 9, 20])
def test_the_rank_correlation_is_scipys(count: int) -> None:
    draws = np.random.default_rng(count)
    one, other = draws.integers(0, 6, count).astype(float), draws.normal(size=count)
    one[:2] = 0, 7
    found, p = rank_correlation(list(one), list(other))
    known = spearmanr(one, other)
    assert found == pytest.approx(known.statistic)
    if count > 8:
        assert p == pytest.approx(known.pvalue)


def test_few_pairs_are_judged_by_all_their_orders() -> None:
    # Of the 24 orders of four, two are as strong: the same and the reverse.
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx((1, 2 / 24))
    assert rank_correlation([1, 2, 3], [5, 5, 5])[1] == 1
    orders = [abs(spearmanr(range(5), order).statistic) for order in itertools.permutations([0, 2, 1, 4, 3])]
    found, p = rank_correlation(list(range(5)), [0, 2, 1, 4, 3])
    assert p == pytest.approx(np.mean([order >= found - 1e-9 for order in orders]))
    with pytest.raises(ValueError, match="no rank correlation"):
        rank_correlation([1, 2], [1, 2])


# --- in a grid -------------------------------------------------------------------------------------------------------


def grid_of(folder: Path, **explain: Any) -> Path:
    values = {
        "data": "digits",
        "train": {"width": 0.25, "epochs": 1, "limit": 100, "eps": 0.1},
        "methods": [{"method": "st"}, {"method": "asgt", "steps": 1}],
        "evaluate": {"protocols": ["pgd"], "epsilons": [0.1], "samples": 10},
        "explain": explain,
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return folder / "tiny.yaml"


@pytest.mark.slow
def test_a_grid_explains_after_it_evaluates_and_counts_it(tmp_path: Path) -> None:
    preset = load_preset(str(grid_of(tmp_path, samples=12, attributions=["gradient"])))
    assert (preset.explained, preset.attributions, preset.eps) == (12, ("gradient",), 0.1)
    assert load_preset(str(grid_of(tmp_path))).attributions == (), "it may be left out"
    first, *_ = plan(preset, tmp_path / "grid")
    # Of the first twelve, which lack a class, as many are drawn by class instead.
    assert first.job.passes[-1] == explanation_passes("gradient", 12) == 12 * explanation_passes("gradient", 1)
    assert Job.from_dict(first.job.to_dict()) == first.job

    write_yaml(tmp_path / "grid" / NOTE, preset.to_dict())
    phases: list[int] = []
    do(first.job, should_stop=lambda: False, phase=lambda number: phases.append(number) or SILENT)  # type: ignore[func-returns-value]
    assert phases == [0, 1, 2]
    place = RunFolder(first.job.folder).explanation("gradient")
    assert load_explanation(place).samples == 12
    assert [run.state for run in plan(preset, tmp_path / "grid")] == ["finished", "to do"]

    # A run that lost its explanation is only begun, and one by other settings is refused.
    shutil.move(place, tmp_path / "elsewhere")
    assert plan(preset, tmp_path / "grid")[0].state == "begun"
    shutil.move(tmp_path / "elsewhere", place)
    with pytest.raises(InputError) as caught:
        plan(load_preset(str(grid_of(tmp_path, samples=60))), tmp_path / "grid")
    assert_states(caught.value, "samples = 12", "60")


@pytest.mark.parametrize(
    ("explain", "said"),
    [
        ({"samples": 0}, ["samples", "0"]),
        ({"attributions": []}, ["attributions", "list"]),
        ({"attributions": "gradient"}, ["attributions", "list"]),
        ({"attributions": ["gradent"]}, ["gradent", "'gradient'"]),
        ({"sample": 3}, ["sample", "'samples'"]),
    ],
)
def test_a_damaged_explain_part_is_refused(tmp_path: Path, explain: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_preset(str(grid_of(tmp_path, **explain)))
    assert_states(caught.value, *said)


@pytest.mark.slow
def test_more_images_than_there_are_cannot_be_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        plan(load_preset(str(grid_of(tmp_path, samples=1000))), tmp_path / "grid")
    assert_states(caught.value, "1000", "digits", "359")


def test_of_mnist_the_strokes_are_the_object(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "asgt.runs.explain_run.explain", lambda *_, objects, **__: asked.append(objects) or SimpleNamespace()
    )
    model, data, _, _ = load_run(finished_run)
    for name in ("mnist", "ylecun/mnist", "digits"):
        explain_run(RunFolder(finished_run), model, data.test, name, samples=5, eps=0.1, norm="linf")
    assert [objects is None for objects in asked] == [False, False, True]
    assert asked[0].equal(strokes(data.test[:5]))
    assert not explained_alike(finished_run / "explanation" / "gradient", samples=5, eps=0.1, norm="linf")
