"""What is kept of runs, the page of results that is made of it, and the script that makes the most of a lent GPU."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import asgt
from asgt.comparison.comparing import compare, load_results
from asgt.errors import DamagedFileError, InputError
from asgt.experiments.grid import plan
from asgt.experiments.job import Job, is_kept
from asgt.experiments.local import GridProgress
from asgt.experiments.preset import load_preset
from asgt.explanation.map_grid import side_by_side
from asgt.explanation.shown_maps import map_cells
from asgt.progress import SILENT
from asgt.report.curves import robustness_charts
from asgt.runs.kept import keep_run, load_kept, load_maps
from asgt.runs.run import load_run, read_run
from asgt.study.results_page import write_results
from support.edits import rewritten
from support.explanations import explanation
from support.maps import Constant, Linear, X, Y
from support.messages import assert_states
from support.paths import ROOT, RUNS

pytestmark = pytest.mark.draws
FOLDERS = sorted(path for path in RUNS.iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def _results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("results")
    for folder in FOLDERS:
        keep_run(read_run(folder), results / "own" / f"{folder.name}.json")
    return results


@pytest.fixture
def results(_results: Path, tmp_path: Path) -> Path:
    """The fixtures' runs, kept, to be damaged at will."""

    return shutil.copytree(_results, tmp_path / "results")


# Kept ----------------------------------------------------------------------------------------------------------------


def resaved(file: Path, kept: dict[str, Any]) -> None:
    """Saves changed runs as an earlier version did, without digests of their outcomes."""

    for part in (*kept["evaluations"].values(), *kept["explanations"].values()):
        part.pop("sha256", None)
    rewritten(file, kept)


@pytest.mark.slow
def test_what_is_kept_gives_every_accuracy_of_the_run_folders(results: Path) -> None:
    kept, whole = load_results(results / "own"), compare(FOLDERS)

    assert [method.name for method in kept.methods] == [method.name for method in whole.methods]
    assert (kept.columns, kept.epsilons, kept.norm, kept.samples) == (
        *(whole.columns, whole.epsilons, whole.norm, whole.samples),
    )
    for mine, theirs in zip(kept.methods, whole.methods, strict=True):
        assert kept.clean(mine) == whole.clean(theirs)
        for column in kept.columns:
            assert kept.curve(mine, column) == whole.curve(theirs, column)
        for run, other in zip(mine.runs, theirs.runs, strict=True):
            assert (run.config, run.history) == (other.config, other.history)
            for name, found in run.evaluations.items():
                there = other.evaluations[name]
                assert (found.checks, found.model, found.data) == (there.checks, there.model, there.data)
                # Image by image, not only on average.
                assert all(torch.equal(found.outcomes[search], there.outcomes[search]) for search in found.outcomes)


def test_what_was_measured_of_maps_is_kept_to_seven_digits(tmp_path: Path) -> None:
    unknown = torch.full((120,), 0.3, dtype=torch.float64)
    unknown[5] = torch.nan
    found = explanation(wrong=4, seed=3, mass=unknown)
    run = replace(read_run(FOLDERS[0]), explanations={"gradient": found})
    keep_run(run, tmp_path / "run.json")

    back = load_kept(tmp_path / "run.json").explanations["gradient"]

    assert replace(
        back, values={}, ids=found.ids, labels=found.labels, predictions=found.predictions, gate=found.gate
    ) == (replace(found, values={}))
    for name in ("ids", "labels", "predictions"):
        assert torch.equal(getattr(back, name), getattr(found, name))
    assert back.values.keys() == found.values.keys()
    for name, value in found.values.items():
        assert back.values[name].dtype == value.dtype
        torch.testing.assert_close(back.values[name], value, rtol=1e-6, atol=0, equal_nan=True)
    assert (tmp_path / "run.json").stat().st_size < 70_000


def test_maps_are_kept_as_they_are_drawn(tmp_path: Path) -> None:
    models = {"linear": Linear(), "zero": Constant(False), "broken": Constant(True)}
    images = (X * 255).round() / 255
    run = read_run(FOLDERS[0])
    made = asgt.saliency_maps(models, images, Y, classes=("cat", "dog"), seeds={"linear": 3}, eps=0.1)
    parts = []
    for number, column in enumerate(made.columns):
        file = tmp_path / f"{number}.json"
        keep_run(run, file, replace(made, columns=(column,)))
        assert load_kept(file).history == run.history
        parts.append(load_maps(file))

    back = side_by_side(parts)

    assert (back.classes, back.attribution, back.eps, back.norm) == (("cat", "dog"), "gradient", 0.1, "linf")
    assert torch.equal(back.images, images)
    for mine, theirs in zip(made.columns, back.columns, strict=True):
        assert (mine.name, mine.seed) == (theirs.name, theirs.seed)
        for number in range(len(images)):
            for kind in ("magnitude", "signed"):
                for one, other in zip(
                    map_cells(made, number, mine, kind), map_cells(back, number, theirs, kind), strict=True
                ):
                    assert one[1:] == other[1:]
                    # Eleven bits of a map may round to the colour beside.
                    assert (one[0].int() - other[0].int()).abs().max() <= 4
    keep_run(run, tmp_path / "run.json")
    assert load_maps(tmp_path / "run.json") is None


def test_maps_of_other_images_do_not_stand_in_one_picture() -> None:
    maps = [asgt.saliency_maps({name: Linear()}, x, Y, eps=0.1) for name, x in (("a", X), ("b", X.flip(0)))]
    with pytest.raises(InputError) as refused:
        side_by_side(maps)
    assert_states(refused.value, "maps", "a", "b", "other images")
    assert side_by_side([maps[0], maps[0]]).columns == maps[0].columns * 2
    with pytest.raises(InputError, match="other images or settings"):
        side_by_side([maps[0], replace(maps[0], eps=0.2)])


def test_a_run_keeps_no_path_and_little_else_than_it_needs(tmp_path: Path) -> None:
    run = read_run(FOLDERS[0])
    keep_run(replace(run, config=replace(run.config, data=str(ROOT / "digits"))), tmp_path / "run.json")

    text = (tmp_path / "run.json").read_text()
    assert str(ROOT) not in text
    assert len(text) < 30_000
    assert load_kept(tmp_path / "run.json").config.data == "digits"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda kept: kept.pop("history"), ["a saved run"]),
        (lambda kept: kept.pop("config"), ["a saved run"]),
        (lambda kept: kept["config"].update(epochs="many"), ["epochs", "many"]),
        (lambda kept: kept["evaluations"]["pgd"].update(clean="####"), []),
        (lambda kept: kept["evaluations"]["pgd"].update(samples=4000), ["4000 samples"]),
        (lambda kept: kept["evaluations"]["pgd"]["outcomes"]["pgd-40x5"].pop(), ["pgd-40x5", "eps"]),
        (lambda kept: kept["evaluations"]["pgd"]["outcomes"].pop("pgd-40x5"), ["a saved run"]),
        (lambda kept: kept["evaluations"]["pgd"]["checks"][0].pop("verdict"), ["check"]),
        (lambda kept: kept.update(evaluations=[]), ["a saved run"]),
    ],
)
def test_a_damaged_file_is_named(results: Path, damage: Callable[[Any], Any], said: list[str]) -> None:
    file = results / "own" / "st-0.json"
    kept = json.loads(file.read_text())
    damage(kept)
    rewritten(file, kept)

    with pytest.raises(DamagedFileError) as refused:
        load_results(results / "own")
    assert_states(refused.value, file, "damaged", *said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept.update(schema=3), ["schema 3"]),
        (lambda kept: kept["evaluations"]["pgd"].update(version=2), ["pgd", "v2", "v3"]),
    ],
)
def test_what_another_version_kept_is_refused(results: Path, change: Callable[[Any], Any], said: list[str]) -> None:
    file = results / "own" / "st-0.json"
    kept = json.loads(file.read_text())
    change(kept)
    rewritten(file, kept)

    with pytest.raises(InputError) as refused:
        load_kept(file)
    assert_states(refused.value, file, *said)


def test_a_job_is_kept_only_where_it_is_the_same_job(results: Path, tmp_path: Path) -> None:
    def job(**changed: Any) -> Job:
        run = read_run(FOLDERS[-1])
        config = replace(run.config, device="auto", **changed)
        file = results / "own" / f"{FOLDERS[-1].name}.json"
        grid = run.evaluations["pgd"].epsilons
        return Job("x", str(tmp_path / "run"), config, ("pgd",), grid, "linf", 40, (1, 1), keep=str(file))

    assert is_kept(job())
    assert not is_kept(replace(job(), keep=None))
    assert not is_kept(replace(job(), keep=str(tmp_path / "nowhere.json")))
    assert not is_kept(replace(job(), protocols=("pgd", "standard")))
    assert not is_kept(replace(job(), epsilons=(0.05,)))
    with pytest.raises(InputError, match="other settings"):
        is_kept(job(lr=0.3))


# The page ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_is_made_of_what_is_kept_and_the_same_each_time(results: Path, tmp_path: Path) -> None:
    (tmp_path / "one" / "results").mkdir(parents=True)
    old = [tmp_path / "one" / "results" / name for name in ("gone-figure2.svg", "gone-saliency.png", "mine.png")]
    for file in old:
        file.touch()
    for name in ("one", "two"):
        write_results(results, tmp_path / name / "results.md")

    text = (tmp_path / "one" / "results.md").read_text("utf-8")
    assert text == (tmp_path / "two" / "results.md").read_text("utf-8")
    assert [file.exists() for file in old] == [False, False, True]
    # Digits are none of the paper's data: accuracies, and no claims.
    assert "## own" in text
    assert compare(FOLDERS).at(compare(FOLDERS).methods[0], compare(FOLDERS).columns[0], 0.1).percent() in text
    assert "Not run: cifar10-laptop (`asgt reproduce cifar10 --scale laptop --keep results`)" in text
    assert_tables(text)


@pytest.mark.slow
def test_a_page_of_the_papers_grid_has_its_figures_and_a_verdict_on_every_claim(results: Path, tmp_path: Path) -> None:
    """The fixtures' runs in the clothes of MNIST: what they say is nothing, but the page must hold it all."""

    shutil.move(results / "own", results / "mnist-laptop")
    for file in (results / "mnist-laptop").iterdir():
        kept = json.loads(file.read_text())
        kept["config"]["data"] = "mnist"
        if kept["config"]["k"] is not None:
            kept["config"]["k"] = 0.3
        for found in kept["evaluations"].values():
            found["epsilons"] = [0.2, 0.25, 0.3]
        resaved(file, kept)
    # Maps are kept of the first seeds alone, and not of all.
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, classes = torch.arange(3), tuple("0123456789")
    for name in ("st-0", "asgt-pgd-0"):
        folder = ROOT / "tests" / "fixtures" / "runs" / name
        model, _, _, _ = load_run(folder)
        maps = asgt.saliency_maps({"x": model}, images, labels, classes=classes, seeds={"x": 0}, eps=0.1)
        keep_run(read_run(folder), tmp_path / name, maps)
        file = results / "mnist-laptop" / f"{name}.json"
        kept = json.loads(file.read_text()) | {"maps": json.loads((tmp_path / name).read_text())["maps"]}
        resaved(file, kept)

    write_results(results, tmp_path / "docs" / "results.md")

    text = (tmp_path / "docs" / "results.md").read_text("utf-8")
    assert "6 runs of 24 in the preset, seeds 0, 1" in text
    for number in (*range(1, 15), 18, 19, 20):
        assert f"| M{number} (" in text
    # ST, AT-FGSM and ASGT-PGD were run: M10 and M12 can be judged.
    rows = {line.split()[1]: line for line in text.splitlines() if line.startswith("| M")}
    assert rows["M10"].count("holds") + rows["M10"].count("does not hold") + rows["M10"].count("not decided") == 4
    assert rows["M1"].count("*not run*: no runs of SGT (k = 0.3)") == 4
    assert "+39.33" in rows["M10"]
    assert "| ST, FGSM at ε = 0.25 (§ 4.2) | 27.88 |" in text
    assert "Mean distance from the paper's numbers" in text
    assert "Not drawn, because no maps were saved: AT-FGSM." in text
    with Image.open(tmp_path / "docs" / "results" / "mnist-laptop-saliency.png") as picture:
        colours = picture.convert("RGB").getcolors(1 << 20)
    # The brightest of the maps' scale, and the black below it.
    assert {(0, 0, 3), (251, 252, 191)} <= {tuple(colour) for _, colour in colours}
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (tmp_path / "docs" / picture).is_file()
    assert (tmp_path / "docs" / "results" / "mnist-laptop-figure4.svg").stat().st_size < 300_000
    assert_tables(text)


def test_a_method_looks_the_same_in_every_figure() -> None:
    whole = compare(FOLDERS)
    names = [method.name for method in whole.methods]
    part = replace(whole, methods=whole.methods[1:])

    numbers = {(line.name, line.number) for panel in robustness_charts(part, names) for line in panel.lines}

    assert numbers == {(line.name, line.number) for line in robustness_charts(whole)[0].lines[1:]}
    assert {line.number for line in robustness_charts(part)[0].lines} == {0, 1}


def test_a_grid_with_changed_settings_says_so_and_stands_for_its_preset(results: Path, tmp_path: Path) -> None:
    shutil.move(results / "own", results / "digits-quick+lr=0.1+momentum=0.0")

    write_results(results, tmp_path / "results.md")

    text = (tmp_path / "results.md").read_text("utf-8")
    # As GitHub makes a heading's anchor.
    assert "| [digits-quick+lr=0.1+momentum=0.0](#digits-quicklr01momentum00) |" in text
    assert "the demo. Here with lr=0.1. Here with momentum=0.0." in text
    assert "$ asgt reproduce digits --scale quick --set lr=0.1,momentum=0.0 --keep results" in text


@pytest.mark.slow
def test_a_page_says_by_which_protocols_to_run_again_where_they_are_not_the_presets(
    results: Path, tmp_path: Path
) -> None:
    shutil.move(results / "own", results / "digits-quick")
    for file in (results / "digits-quick").iterdir():
        kept = json.loads(file.read_text())
        standard = kept["evaluations"]["pgd"] | {"version": 1}
        kept["evaluations"]["standard"] = standard | {"outcomes": {"worst-case": standard["outcomes"]["pgd-40x5"]}}
        resaved(file, kept)

    write_results(results, tmp_path / "results.md")

    text = (tmp_path / "results.md").read_text("utf-8")
    assert "$ asgt reproduce digits --scale quick --protocols paper,pgd,standard@1 --keep results" in text
    assert "`standard` v1 |" in text
    assert "| worst case | per image, the worst of `standard` v1 |" in text
    assert "Results that only some of the runs have" not in text

    # An evaluation by an earlier version that not all runs have is left out of the tables, but never without a word.
    file = sorted((results / "digits-quick").iterdir())[0]
    kept = json.loads(file.read_text())
    del kept["evaluations"]["standard"]
    resaved(file, kept)
    write_results(results, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text("utf-8")
    assert f"- protocol standard@1 is omitted: no evaluation by it in {file.name}\n" in text
    assert "`standard` v1" not in text

    for file in (results / "digits-quick").iterdir():
        kept = json.loads(file.read_text())
        kept["evaluations"] = {"pgd": kept["evaluations"]["pgd"]}
        resaved(file, kept)
    write_results(results, tmp_path / "results.md")
    text = (tmp_path / "results.md").read_text("utf-8")
    assert "$ asgt reproduce digits --scale quick --protocols pgd --keep results" in text
    assert "| worst case | per image, the worst of `pgd` v3: PGD-40 × 5" in text


@pytest.mark.slow
def test_a_page_says_which_seeds_a_method_lacks_and_what_its_runs_ran_on(results: Path, tmp_path: Path) -> None:
    files = sorted((results / "own").iterdir())
    kept = json.loads(files[0].read_text())
    kept["training"]["speed"]["device"] = "NVIDIA H100 80GB HBM3"
    resaved(files[0], kept)
    other = next(file for file in files[1:] if file.stem.rpartition("-")[0] == files[0].stem.rpartition("-")[0])
    other.unlink()

    write_results(results, tmp_path / "results.md")

    text = (tmp_path / "results.md").read_text("utf-8")
    name = next(
        method.name for method in compare(FOLDERS).methods if method.runs[0].config.method == kept["config"]["method"]
    )
    assert f"5 runs, seeds 0, 1 (of {name} {kept['config']['seed']})" in text
    assert "on their machines (NVIDIA H100 80GB HBM3): " in text


@pytest.mark.slow
def test_the_committed_page_is_the_one_that_the_committed_results_give(tmp_path: Path) -> None:
    results, page = ROOT / "results", ROOT / "docs" / "results.md"
    if not page.exists():
        pytest.skip("no results are committed yet")

    write_results(results, tmp_path / "docs" / "results.md")

    assert (tmp_path / "docs" / "results.md").read_text("utf-8") == page.read_text("utf-8")
    drawn = {file.name for file in (tmp_path / "docs" / "results").iterdir()}
    assert drawn == {file.name for file in (ROOT / "docs" / "results").iterdir()}
    for name in drawn:
        mine, theirs = ((folder / "docs" / "results" / name) for folder in (tmp_path, ROOT))
        if name.endswith(".svg"):
            assert_same_drawing(mine.read_text("utf-8"), theirs.read_text("utf-8"))
        else:
            assert_same_picture(mine, theirs)


@pytest.mark.slow
def test_the_table_of_the_mnist_page_is_that_of_the_committed_results() -> None:
    comparison = load_results(ROOT / "results" / "mnist-laptop")
    methods = {method.name: method for method in comparison.methods}
    page = (ROOT / "docs" / "mnist.md").read_text("utf-8")
    lines = page.split("\n\n")
    head, _, *rows = next(part for part in lines if part.startswith("| method | clean |")).splitlines()

    def accuracy(method: str, asked: str) -> str:
        title, eps, protocol, version = re.fullmatch(r"(.*?),? at ε = ([\d.]+), `(\w+)` v(\d)", asked).groups()  # type: ignore[union-attr]
        (column,) = (
            column
            for column in comparison.columns
            if (column.protocol, column.version) == (protocol, int(version))
            and re.fullmatch(re.escape(title).replace("four", ".*") + r"(, α = 2\.5ε/\d+)?", column.title)
        )
        return comparison.at(methods[method], column, float(eps)).percent()

    asked = [cell.strip() for cell in head.strip("|").split("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [row[0] for row in cells] == list(methods)
    for name, clean, *found in cells:
        assert clean == comparison.clean(methods[name]).percent()
        assert found == [accuracy(name, column) for column in asked[2:]], name
    fgsm = accuracy("AT-FGSM", "FGSM at ε = 0.3, `paper` v1")
    pgd = accuracy("AT-FGSM", "PGD-40 × 5 at ε = 0.3, `pgd` v3")
    words = " ".join(page.split())
    assert f"At ε = 0.3, AT-FGSM has {fgsm} % under FGSM and {pgd} %" in words

    # The README's main result is of the same runs.
    readme = " ".join((ROOT / "README.md").read_text("utf-8").split())
    worst = {name: accuracy(name, "worst of four at ε = 0.3, `standard` v1") for name in methods}
    assert f"AT with PGD has a robust accuracy of {worst['AT-PGD']} %" in readme
    assert f"ASGT with PGD one of {worst['ASGT-PGD']} %" in readme
    assert f"AT-FGSM has {fgsm} % under FGSM and {worst['AT-FGSM']} % under `standard` v1" in readme


@pytest.mark.slow
def test_the_readmes_picture_is_that_of_the_committed_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    import front_picture

    for name, page in front_picture.PAGES.items():
        front_picture.draw(tmp_path / f"front-{name}.png", *page)
        assert_same_picture(tmp_path / f"front-{name}.png", ROOT / "docs" / f"front-{name}.png")


def test_the_table_of_the_hardened_network_is_that_of_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    import hardened_page

    text = hardened_page.PAGE.read_text(encoding="utf-8")
    runs = hardened_page.kept()
    assert runs
    assert hardened_page.page(text, runs) == text


def assert_same_drawing(one: str, other: str) -> None:
    """The same lines and words; coordinates to a hundredth of a point, as machines round them differently."""

    number = r"-?\d+\.\d+"
    assert re.sub(number, "#", one) == re.sub(number, "#", other)
    pairs = zip(re.findall(number, one), re.findall(number, other), strict=True)
    assert all(abs(float(mine) - float(theirs)) < 0.01 for mine, theirs in pairs)


def assert_same_picture(one: Path, other: Path) -> None:
    """The same pixels, but for the edges of letters, which another version of the fonts' library may round."""

    pixels = []
    for file in (one, other):
        with Image.open(file) as picture:
            pixels.append(np.asarray(picture.convert("RGB")).astype(int))
    assert pixels[0].shape == pixels[1].shape, one.name
    assert (np.abs(pixels[0] - pixels[1]).max(axis=-1) > 16).mean() < 0.005, one.name


def assert_tables(text: str) -> None:
    """Every table has as many cells in each row as in its head, and a head with its rule below it."""

    tables: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append(line.strip())
        elif tables[-1]:
            tables.append([])
    assert len(tables) > 3
    for table in filter(None, tables):
        assert set(table[1]) == {"|", "-"}, table[0]
        assert len(table) > 2, table[0]
        assert {row.count("|") for row in table} == {table[0].count("|")}, table[0]


# The lent GPU --------------------------------------------------------------------------------------------------------


@pytest.fixture
def gpu_grid(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts"), *sys.path])
    import gpu_grid

    return gpu_grid


def tiny(folder: Path) -> Path:
    grid = {
        "data": "digits",
        "train": {"model": "small_cnn", "width": 0.25, "epochs": 1, "batch_size": 16, "eps": 0.1, "limit": 200},
        "methods": [{"method": "st"}, {"method": "asgt", "attack": "fgsm"}],
        "evaluate": {"protocols": ["pgd"], "epsilons": [0.05, 0.1], "samples": 12},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(grid))
    return folder / "tiny.yaml"


def test_a_run_fits_that_would_end_in_the_time_left(gpu_grid: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def job(passes: int, folder: str = "new") -> Job:
        return Job(f"{passes}", folder, None, ("pgd",), (0.1,), "linf", 1, (passes, 0))  # type: ignore[arg-type]

    now = 1000.0
    monkeypatch.setattr(gpu_grid.time, "monotonic", lambda: now)
    lease = gpu_grid.Lease(1400.0, 2, {"begun"})

    assert lease.holds(job(10**12), 0)  # nobody knows yet
    lease.advance(1)
    now = 1010.0
    assert lease.holds(job(10**12), 1_000)
    assert not lease.left_out
    now = 1100.0
    # 100 passes a second, 50 of each: 30 s beside the passes leave 270.
    assert lease.holds(job(50 * 270), 10_000)
    assert not lease.holds(job(50 * 271), 10_000)
    assert lease.holds(job(10**12, "begun"), 10_000)
    now = 1371.0
    assert not lease.holds(job(1), 10_000)
    assert not lease.holds(job(1, "begun"), 10_000)
    assert not gpu_grid.Lease(1400.0, 2).holds(job(1), 0)
    assert lease.left_out == {"13550", "1"}


def test_only_what_was_done_in_this_call_makes_a_pace() -> None:
    def job(name: str) -> Job:
        return Job(name, name, None, ("pgd",), (0.1,), "linf", 1, (100, 20))  # type: ignore[arg-type]

    asked = []

    def fits(job: Job, made: int) -> bool:
        asked.append((job.label, made))
        return job.label != "long"

    jobs = [job(name) for name in ("new", "resumed", "faulty", "done before", "long", "last")]
    grid = GridProgress(jobs, SILENT, 0, fits)
    first, resumed, faulty, done = jobs[:4]
    assert [grid.next() for _ in range(4)] == jobs[:4]
    for one, reached in ((first, 0), (first, 60), (resumed, 80), (resumed, 110), (faulty, 0), (faulty, 5)):
        grid.reached(one, reached)
    grid.failed(faulty, "a fault")
    grid.finished(done)

    assert grid.next() == jobs[5]
    assert asked[-2:] == [("long", 60 + 30 + 5), ("last", 60 + 30 + 5)]
    assert grid.next() is None


def test_stages_come_in_the_order_of_what_they_say(gpu_grid: Any) -> None:
    assert list(gpu_grid.STAGES) == ["mnist-paper", "cifar10-paper", "mnist-tuned", "cifar10-tuned"]
    for name, stage in gpu_grid.STAGES.items():
        preset = load_preset(stage.data, stage.scale, stage.changed)
        assert preset.name.startswith(name)

    last = gpu_grid.STAGES["cifar10-tuned"]
    methods = load_preset("cifar10", "tuned").methods
    jobs = [Job(f"{m.method}-{m.attack}", "", m, ("pgd",), (0.1,), "linf", 1, (1, 1)) for m in methods]
    assert [job.label for job in sorted(jobs, key=last.order)][:2] == ["at-pgd", "asgt-pgd"]


@pytest.mark.slow
def test_a_lent_gpus_grid_leaves_small_files_and_goes_on_from_them(
    gpu_grid: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--stages", str(tiny(tmp_path)), "--device", "cpu", "--keep", str(tmp_path / "kept"), "--workers", "1"]

    assert gpu_grid.main([*words, "--work", str(tmp_path / "work"), "--minutes", "60"]) == 0

    said = capfd.readouterr().out
    assert "0 of 2 runs kept already" in said
    assert "2 of 2 runs are kept" in said
    assert sorted(file.name for file in (tmp_path / "kept" / "tiny").iterdir()) == ["asgt-fgsm-0.json", "st-0.json"]
    assert len(load_results(tmp_path / "kept" / "tiny").methods) == 2
    # The picture of the grid can be drawn where its weights are not.
    assert all(load_maps(file) is not None for file in (tmp_path / "kept" / "tiny").iterdir())

    # Another machine, to which only what was kept came along.
    assert gpu_grid.main([*words, "--work", str(tmp_path / "other")]) == 0
    assert "2 of 2 runs kept already" in capfd.readouterr().out
    assert not list((tmp_path / "other").rglob("config.yaml"))


def test_a_stage_that_there_is_not_is_refused(gpu_grid: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_grid.main(["--stages", "mnist-papre"]) == 2
    assert_states(capsys.readouterr().err, "stage", "mnist-papre", "mnist-paper")


@pytest.mark.slow
def test_the_jobs_of_a_grid_know_where_they_are_kept(tmp_path: Path) -> None:
    preset = load_preset(str(tiny(tmp_path)))

    assert {run.job.keep for run in plan(preset, tmp_path / "grid")} == {None}
    assert {run.job.keep for run in plan(preset, tmp_path / "grid", keep=tmp_path / "kept")} == {
        str(tmp_path / "kept" / "tiny" / "st-0.json"),
        str(tmp_path / "kept" / "tiny" / "asgt-fgsm-0.json"),
    }
