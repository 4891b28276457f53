"""The report: its numbers against the evidence, its page in a browser, its figures, and what it says of odd runs."""

from __future__ import annotations

import base64
import contextlib
import csv
import dataclasses
import difflib
import html
import io
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.numpy import load_file
from scipy.stats import binomtest, ttest_1samp
from sklearn.datasets import load_digits

import asgt
from asgt.comparison.comparing import Comparison, compare
from asgt.comparison.map_evidence import MapEvidence
from asgt.comparison.summary import Summary
from asgt.errors import DamagedFileError
from asgt.files import write_bytes
from asgt.report.figures import Chart, Line, swatch_svg
from asgt.report.page import write_report
from asgt.report.section import PageRequest, Section
from asgt.report.sections import SECTIONS
from asgt.report.sections.classes_section import CLASSES
from asgt.runs.run import load_run
from asgt.training.config import TrainConfig
from support.browser import Browser
from support.edits import listed
from support.explanations import explain_by_hand
from support.messages import assert_states
from support.paths import FIXTURES, ROOT

GOLDEN = FIXTURES / "report.html"
pytestmark = pytest.mark.draws
SLOW_FIXTURES = ("report", "crowded", "browser")
METHODS = {"ST": "st", "AT-FGSM": "at-fgsm", "ASGT-PGD": "asgt-pgd"}
RUNS = [f"runs/{slug}-{seed}" for slug in METHODS.values() for seed in (0, 1)]
COMMAND = f"asgt compare {' '.join(RUNS)} --out page"
EPSILONS = (0.05, 0.1, 0.2)
COLUMNS = (
    "paper/fgsm",
    "paper/pgd-constant-rs",
    "paper/pgd-constant",
    "paper/pgd-relative",
    "paper/mifgsm-constant",
    "paper/mifgsm-relative",
    "pgd/pgd-40x5",
)
FIGURES = ("robustness", "training", "saliency", "saliency-signed", "contact", "gradients")
MEASURED = ("masked-gradient", "tradeoff-gradient")

# Everything that a page is drawn by; another version of it may place a word elsewhere.
DRAWN_BY = ("matplotlib", "kiwisolver", "Jinja2", "MarkupSafe")


# --- what the tests stand on -------------------------------------------------------------------------------------


def report_of(folder: Path, runs: list[str], **options: Any) -> Path:
    """The folder of the report of some run folders, named as seen from ``folder``, which is where they lie."""

    with contextlib.chdir(folder):
        write_report(compare(runs), "page", **options)
    return folder / "page"


def copies(folder: Path, source: str, count: int, setting: str, values: list[Any]) -> list[str]:
    """``count`` copies of a run that differ in a setting, as if trained so."""

    names = [f"runs/{Path(source).name}-{setting}-{number}" for number in range(count)]
    for name, value in zip(names, values, strict=True):
        shutil.copytree(folder / source, folder / name)
        edit(folder / name / "config.yaml", **{setting: value})
    return names


def edit(path: Path, **values: object) -> None:
    """Changes values of a JSON or YAML file."""

    if path.suffix == ".json":
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
    else:
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def explain_all(folder: Path) -> None:
    """Gives the six runs explanations by hand: of 120 images, the first five of which some model gets wrong."""

    for number, run in enumerate(RUNS):
        explain_by_hand(folder / run, wrong=number, mass=0.4 + 0.05 * number, draw=number)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the runs in ``runs/``, to change as the test likes."""

    shutil.copytree(FIXTURES / "runs", tmp_path / "runs")
    return tmp_path


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the six runs."""

    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(FIXTURES / "runs", folder / "runs")
    explain_all(folder)
    return report_of(folder, RUNS, command=COMMAND)


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of nine methods of one seed each, whose names are long."""

    folder = tmp_path_factory.mktemp("crowded")
    shutil.copytree(FIXTURES / "runs", folder / "runs")
    several = copies(folder, "runs/asgt-pgd-0", 7, "weight", [0.123456 * (number + 1) for number in range(7)])
    runs = ["runs/st-0", "runs/at-fgsm-0", *several]
    return report_of(folder, runs, command=f"asgt compare {' '.join(runs)} --out page")


class Page(HTMLParser):
    """A page's tables, ids, pictures, scripts and text, read by another parser than the browser's."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.source = (folder / "report.html").read_text()
        self.tables: list[SimpleNamespace] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._inside: list[list[str]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "table":
            self.tables.append(SimpleNamespace(kind=attributes.get("class", ""), rows=[]))
        if tag == "tr":
            self.tables[-1].rows.append([])
        if tag in ("td", "th"):
            cell = SimpleNamespace(attributes=attributes, words=[], pictures=[])
            self.tables[-1].rows[-1].append(cell)
            self._inside.append(cell.words)
        if tag == "img":
            self.tables[-1].rows[-1][-1].pictures.append(attributes)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if self._inside:
            self._inside[-1].append(data)

    def kind(self, kind: str) -> list[SimpleNamespace]:
        return [table for table in self.tables if table.kind == kind]

    def accuracies(self) -> list[list[list[SimpleNamespace]]]:
        """The rows of methods of each table of accuracies."""

        return [table.rows[2:] for table in self.kind("sortable")]

    def figure_data(self) -> dict[str, Any]:
        found = re.search(r'id="figure-data">(.*?)</script>', self.source, re.DOTALL)
        assert found
        return json.loads(found.group(1))

    def section(self, name: str) -> str:
        found = re.search(rf'<section id="{name}".*?</section>', self.source, re.DOTALL)
        return found.group() if found else ""

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def words_of(cell: SimpleNamespace) -> str:
    return " ".join("".join(cell.words).split())


def evidence(run: Path, column: str, eps: float | None) -> np.ndarray:
    """Which test images a run gets right under an attack at ε, or clean: bool (N,)."""

    tensors = load_file(run / "evaluation" / f"{column}-00000.safetensors")
    return tensors["clean"] if eps is None else tensors["correct"][EPSILONS.index(eps)]


def accuracies_of(folder: Path, slug: str, column: str, eps: float | None) -> np.ndarray:
    """The accuracy of each seed, by numpy from the evidence."""

    return np.array([evidence(folder / f"runs/{slug}-{seed}", column, eps).mean() for seed in (0, 1)])


def picture_of(source: str) -> np.ndarray:
    kind, _, content = source.partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture)


# --- the page as it was agreed on --------------------------------------------------------------------------------


def agreed(text: str) -> list[str]:
    """A page without what may differ from one machine or version to the next."""

    text = re.sub(r"data:image/png;base64,[\w+/=]+", "data:image/png;base64,PIXELS", text)
    return text.replace(f"asgt {version('asgt')} ", "asgt VERSION ").splitlines()


MADE_OF_PLACES = re.compile(r"(?<=[-#])m[0-9a-f]{10}\b")  # a name that Matplotlib makes of a path
PLACE = re.compile(r"-?\d+\.\d{4,}")  # points of a figure; a figure's numbers in words have fewer digits
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def drawn_alike(one: str, other: str) -> bool:
    """Whether two lines of a page are the same but for places half a point apart, or a fiftieth of what a curve shows.

    Another processor rounds otherwise, and a gradient at the edge of a bin is counted in the next.
    """

    shown = 'id="figure-data"' in one
    number, apart = (NUMBER, 0.02) if shown else (PLACE, 0.5)
    lines = [MADE_OF_PLACES.sub("NAME", line) for line in (one, other)]
    words = [number.sub("NUMBER", line) for line in lines]
    numbers = [[float(found) for found in number.findall(line)] for line in lines]
    return words[0] == words[1] and all(
        math.isclose(a, b, rel_tol=0.02 * shown, abs_tol=apart) for a, b in zip(*numbers, strict=True)
    )


def test_places_of_a_page_may_differ_by_what_nobody_sees() -> None:
    line = '<use xlink:href="#raw-mcb98c233b0" x="114.04755" y="131.448323"/> 53.8 % of 1.234'
    assert drawn_alike(line, line.replace("131.448323", "131.391243").replace("mcb98c233b0", "m8b8842cfa7"))
    for seen in (
        line.replace("131.448323", "132.448323"),
        line.replace("53.8", "53.9"),
        line.replace("1.234", "1.235"),
        line.replace("raw", "row"),
    ):
        assert not drawn_alike(line, seen)

    shown = '<script id="figure-data">{"text": ["34.1 %", "1.62 %"], "y": [34.12, 1e-5]}'
    assert drawn_alike(shown, shown.replace("34.1", "34.2"))
    assert not drawn_alike(shown, shown.replace("34.1", "35.2"))
    assert not drawn_alike(shown, shown.replace("text", "test"))


def test_the_page_is_the_one_agreed_on(report: Path) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    others = [f"{name} {version(name)}, not {pins[name]}" for name in DRAWN_BY if version(name) != pins[name]]
    if others:
        pytest.skip(f"the golden page was drawn by other versions than those installed: {'; '.join(others)}")

    now = agreed((report / "report.html").read_text())
    if os.environ.get("ASGT_RENEW"):
        GOLDEN.write_text("\n".join(now) + "\n")
    before = GOLDEN.read_text().splitlines()
    if len(now) == len(before):
        now = [old if drawn_alike(old, new) else new for old, new in zip(before, now, strict=True)]
    difference = list(itertools.islice(difflib.unified_diff(before, now, "agreed", "now", lineterm="", n=0), 12))
    assert not difference, (
        "\n".join(line[:300] for line in difference)
        + f"\n\nIf that is meant, look at the page and renew {GOLDEN.name}: ASGT_RENEW=1 python -m pytest {__file__}"
    )


def test_the_page_tells_nothing_of_the_machine_or_the_day(report: Path) -> None:
    text = re.sub(r"data:image/png;base64,[\w+/=]+", "", (report / "report.html").read_text())
    for secret in (str(report.parent), str(Path.home()), os.uname().nodename):
        assert secret
        assert not re.search(rf"(?<![\w-]){re.escape(secret)}(?![\w-])", text), secret
    assert not re.search(r"\b20[2-9]\d-\d\d|\b\d\d:\d\d\b", text), "a date or a time of day"


def test_the_fixture_holds_no_more_than_a_comparison_needs() -> None:
    files = [path for path in (FIXTURES / "runs").rglob("*") if path.is_file()]
    assert not {"checkpoint.safetensors", "split.safetensors"} & {path.name for path in files}
    assert sum(path.stat().st_size for path in files) < 300_000
    for slug in METHODS.values():
        for seed in (0, 1):
            assert evidence(FIXTURES / f"runs/{slug}-{seed}", "pgd/pgd-40x5", None).mean() > 0.8


# --- numbers -----------------------------------------------------------------------------------------------------


def test_the_tables_hold_means_and_deviations_of_the_evidence(report: Path) -> None:
    page = Page(report)
    tables = page.accuracies()
    assert len(tables) == len(EPSILONS)
    assert re.findall(r"<h3>ε = ([\d.]+)", page.source) == ["0.05", "0.1", "0.2"]
    assert page.source.count("(trained at)</h3>") == 1
    assert "<h3>ε = 0.1 (trained at)</h3>" in page.source

    for eps, rows in zip(EPSILONS, tables, strict=True):
        assert [words_of(row[0]).removesuffix(" ⚠") for row in rows] == list(METHODS)
        for row, slug in zip(rows, METHODS.values(), strict=True):
            assert words_of(row[1]) == "2"
            asked = [("paper/fgsm", None), *((column, eps) for column in COLUMNS)]
            for cell, (column, at) in zip(row[2:], asked, strict=True):
                values = accuracies_of(report.parent, slug, column, at)
                assert float(cell.attributes["data-value"]) == pytest.approx(values.mean(), abs=1e-12)
                shown = re.fullmatch(r"(\d+\.\d) ± (\d+\.\d)", words_of(cell))
                assert shown, words_of(cell)
                assert float(shown[1]) == pytest.approx(100 * values.mean(), abs=0.0501)
                assert float(shown[2]) == pytest.approx(100 * values.std(ddof=1), abs=0.0501)
                each = [float(value) for value in re.findall(r"seed \d: ([\d.]+) %", cell.attributes["title"])]
                assert each == pytest.approx(list(100 * values), abs=0.0501)


def test_the_curves_data_is_that_of_the_evidence(report: Path) -> None:
    data = Page(report).figure_data()
    attacks = {key for key in data if key.startswith(("paper-", "pgd-"))}
    assert attacks == {column.replace("/", "-") for column in COLUMNS}
    for column in COLUMNS:
        panel = data[column.replace("/", "-")]
        assert panel["x"] == "ε"
        assert [line["name"] for line in panel["lines"]] == list(METHODS)
        for number, (line, slug) in enumerate(zip(panel["lines"], METHODS.values(), strict=True)):
            values = [accuracies_of(report.parent, slug, column, eps) for eps in (None, *EPSILONS)]
            assert line["number"] == number
            assert line["x"] == ["0", "0.05", "0.1", "0.2"]
            assert line["y"] == pytest.approx([100 * value.mean() for value in values], abs=1e-9)
            shown = [[float(part) for part in text.split(" ± ")] for text in line["text"]]
            assert np.array(shown) == pytest.approx(
                100 * np.array([(value.mean(), value.std(ddof=1)) for value in values]), abs=0.0501
            )


def test_the_training_curves_data_is_that_of_the_metrics(report: Path) -> None:
    data = Page(report).figure_data()
    wanted = {
        "training-loss": ("loss", 1, list(METHODS)),
        "training-validation-clean": ("validation_clean", 100, list(METHODS)),
        "training-validation-pgd": ("validation_pgd", 100, ["AT-FGSM", "ASGT-PGD"]),
    }
    assert {key for key in data if key.startswith("training-")} == set(wanted)
    for panel, (key, scale, names) in wanted.items():
        lines = data[panel]["lines"]
        assert [line["name"] for line in lines] == names
        for line in lines:
            files = [report.parent / f"runs/{METHODS[line['name']]}-{seed}/metrics.jsonl" for seed in (0, 1)]
            rows = np.array([[json.loads(row)[key] for row in path.read_text().splitlines()] for path in files])
            assert line["number"] == list(METHODS).index(line["name"])
            assert line["x"] == [str(epoch) for epoch in range(1, 9)]
            assert line["y"] == pytest.approx(list(scale * rows.mean(axis=0)), abs=1e-9)
            shown = [[float(part) for part in text.split(" ± ")] for text in line["text"]]
            assert np.array(shown) == pytest.approx(
                scale * np.stack([rows.mean(axis=0), rows.std(axis=0, ddof=1)], axis=1),
                abs=0.0501 if scale > 1 else 6e-4,
            )


def test_the_csv_holds_every_accuracy_of_every_run(report: Path) -> None:
    with open(report / "accuracies.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(RUNS) * len(COLUMNS) * (len(EPSILONS) + 1)
    assert len({tuple(row[name] for name in ("method", "seed", "protocol", "attack", "eps")) for row in rows}) == len(
        rows
    )
    for row in rows:
        run = report.parent / f"runs/{METHODS[row['method']]}-{row['seed']}"
        eps = float(row["eps"]) or None
        expected = evidence(run, f"{row['protocol']}/{row['attack']}", eps).mean()
        assert float(row["accuracy"]) == pytest.approx(expected, abs=1e-6)
        version = {"paper": "1", "pgd": "3"}[row["protocol"]]
        assert (row["samples"], row["norm"], row["version"]) == ("40", "linf", version)


def runs_apart(folder: Path, one: str, other: str, column: str, eps: float | None) -> list[float]:
    """By how much the runs of each seed differ, by numpy from the evidence."""

    slugs = METHODS[one], METHODS[other]
    return list(accuracies_of(folder, slugs[0], column, eps) - accuracies_of(folder, slugs[1], column, eps))


def test_the_differences_are_those_of_the_evidence(report: Path) -> None:
    page = Page(report)
    tables = page.kind("differences")
    assert re.findall(r"<h3>(.*?)</h3>", page.section("differences")) == [
        "Under PGD-40 × 5, α = 2.5ε/40 (protocol pgd v3) at ε = 0.1",
        "On the clean images",
    ]
    with_spread = 0
    for table, (column, eps) in zip(tables, [("pgd/pgd-40x5", 0.1), ("paper/fgsm", None)], strict=True):
        head, *rows = table.rows
        assert [words_of(cell) for cell in head[1:]] == [words_of(row[0]) for row in rows] == list(METHODS)
        for row, other in itertools.product(rows, METHODS):
            name, cell = words_of(row[0]), row[1 + list(METHODS).index(other)]
            if name == other:
                assert words_of(cell) == ""
                continue
            apart = runs_apart(report.parent, name, other, column, eps)
            shown = re.fullmatch(r"([+−]?[\d.]+) · \[(−?[\d.]+), (−?[\d.]+)\]", words_of(cell))
            assert shown, words_of(cell)
            mean, low, high = (float(part.replace("−", "-")) for part in shown.groups())
            assert mean == pytest.approx(100 * np.mean(apart), abs=0.0501)
            if np.std(apart) > 1e-9:
                interval = ttest_1samp(apart, 0).confidence_interval(0.95)
                assert (low, high) == pytest.approx(
                    (max(-100, 100 * interval.low), min(100, 100 * interval.high)), abs=0.0501
                )
                with_spread += 1
            assert "2 seeds paired" in cell.attributes["title"]
    assert with_spread >= 6
    said = html.unescape(page.section("found")).replace("\u00a0", " ")
    assert "0 of 3 differences between methods are decided under PGD-40 × 5" in said
    assert "(paired by seed; p < 0.05 by Holm's correction)" in said
    assert 'href="#differences"' in page.source.partition("<main>")[0]
    assert 'href="differences.csv"' in page.section("differences")


def test_the_csv_of_differences_holds_every_pair(report: Path) -> None:
    with open(report / "differences.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = list(itertools.combinations(METHODS, 2))
    assert [(row["first"], row["second"]) for row in rows] == pairs * 2
    attacked, clean = rows[:3], rows[3:]
    assert {(row["protocol"], row["version"], row["attack"], row["eps"]) for row in attacked} == {
        ("pgd", "3", "pgd-40x5", "0.1")
    }
    assert {(row["protocol"], row["version"], row["attack"], row["eps"]) for row in clean} == {("", "", "clean", "0")}
    for row in rows:
        asked = ("pgd/pgd-40x5", 0.1) if row["protocol"] else ("paper/fgsm", None)
        apart = runs_apart(report.parent, row["first"], row["second"], *asked)
        assert float(row["difference"]) == pytest.approx(np.mean(apart), abs=1e-6)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
        if np.std(apart) > 1e-9:
            assert float(row["p"]) == pytest.approx(ttest_1samp(apart, 0).pvalue, rel=1e-4)
        assert float(row["p"]) <= float(row["p_holm"]) <= 1
        assert [row[name] for name in ("kind", "seeds", "norm", "samples", "claims", "verdict")] == [
            *("methods", "0 1", "linf", "40", "3", "not decided")
        ]


def test_what_was_found_is_in_the_evidence(report: Path) -> None:
    said = html.unescape(Page(report).section("found")).replace("\u00a0", " ")
    means = {
        name: 100 * accuracies_of(report.parent, slug, "pgd/pgd-40x5", 0.1).mean() for name, slug in METHODS.items()
    }
    low, high = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    found = re.search(
        r"<li>([\d.]+) ± [\d.]+ % \((.+?)\) to ([\d.]+) ± [\d.]+ % \((.+?)\) "
        r"is the range of accuracy under .+ at ε = 0\.1;",
        said,
    )
    assert found, said
    assert (found[2], found[4]) == (low, high)
    assert (float(found[1]), float(found[3])) == pytest.approx((means[low], means[high]), abs=0.0501)

    gaps = {
        (name, eps): accuracies_of(report.parent, slug, "paper/pgd-constant-rs", eps).mean()
        - accuracies_of(report.parent, slug, "pgd/pgd-40x5", eps).mean()
        for name, slug in METHODS.items()
        for eps in EPSILONS
    }
    (name, eps), _ = max(gaps.items(), key=lambda item: item[1])
    assert f": the accuracy of {name} at ε = {eps} depends on the attack" in said


# --- saliency maps -----------------------------------------------------------------------------------------------


def test_the_maps_are_the_gradients_of_the_true_labels_logit(report: Path) -> None:
    (table,) = Page(report).kind("maps")
    head, images, *rows = table.rows
    labels = [int(words_of(cell)) for cell in head[1:]]
    assert labels == list(range(10))
    assert [words_of(row[0]) for row in rows] == [f"{name}seed 0" for name in METHODS]

    # The pictures are real digits of that label, pixel for pixel.
    digits = load_digits()
    drawn = np.stack([picture_of(cell.pictures[0]["src"]) for cell in images[1:]])
    known = np.rint(digits.images * 255 / 16)
    for picture, label in zip(drawn, labels, strict=True):
        (same,) = np.nonzero((known == picture).all(axis=(1, 2)))
        assert label in digits.target[same]

    colours = matplotlib.colormaps["magma"](np.arange(256), bytes=True)[:, :3].astype(int)
    for row, slug in zip(rows, METHODS.values(), strict=True):
        model = load_run(report.parent / f"runs/{slug}-0")[0]
        x = torch.from_numpy(drawn[:, None] / 255).float().requires_grad_()
        logits = model(x)
        sum(logits[number, label] for number, label in enumerate(labels)).backward()
        expected = np.abs(x.grad.numpy()).mean(axis=1)  # type: ignore[union-attr]

        for number, cell in enumerate(row[1:]):
            scaled = np.clip(expected[number] / np.quantile(expected[number].astype(float), 0.99), 0, 1)
            pixels = picture_of(cell.pictures[0]["src"]).astype(int)
            grey = np.abs(pixels[:, :, None] - colours).sum(axis=-1).argmin(axis=-1)
            assert np.abs(grey - 255 * scaled).max() <= 1.01
            said = int(logits[number].argmax())
            assert words_of(cell) == ("" if said == labels[number] else f"says {said}")
            assert f"class {labels[number]}" in cell.pictures[0]["alt"]
            assert list(METHODS)[rows.index(row)] in cell.pictures[0]["alt"]


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_a_new_section_is_one_record(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line("ST", 0, (0.0, 1.0), (2.0, 3.0), (1.0, 2.0), (3.0, 4.0), texts=("a", "b"))
    chart = Chart("mine", "Mine", "", "x", "y", "x", lines=(line,))

    def context(page: PageRequest) -> dict[str, Any] | None:
        words = f"{len(page.summary.tables)} < {page.command}"
        return {"words": words, "chart": chart} if page.command else None

    def write(page: PageRequest) -> None:
        write_bytes(page.out / "mine.txt", b"mine")

    template = '<section id="mine"><p>{{ words }}</p>{{ figure(chart, "no file") }}</section>'
    mine = Section("mine", "My own", template, context, write)
    monkeypatch.setattr("asgt.report.page.SECTIONS", (*SECTIONS, mine))
    folder = report_of(place, ["runs/st-0", "runs/at-fgsm-0"], command="again")
    page = (folder / "report.html").read_text()
    assert '<a href="#mine">My own</a></nav>' in page
    assert '<section id="mine"><p>3 &lt; again</p>' in page, "what a section shows is escaped"
    assert 'id="figure-mine"' in page
    assert json.loads(page.split('id="figure-data">')[1].split("</script>")[0])["mine"]["lines"][0]["y"] == [2.0, 3.0]
    assert (folder / "mine.txt").read_bytes() == b"mine"
    assert "mine" not in (report_of(place, ["runs/st-0", "runs/at-fgsm-0"]) / "report.html").read_text()


def with_labels(comparison: Comparison, labels: torch.Tensor, names: tuple[str, ...]) -> Comparison:
    """The same comparison, as if its evaluations had saved the labels of the images."""

    for run in (run for method in comparison.methods for run in method.runs):
        for key, found in run.evaluations.items():
            run.evaluations[key] = dataclasses.replace(found, labels=labels, class_names=names)
    return comparison


def summary_of(comparison: Comparison) -> Summary:
    """What the section of classes needs of a summary."""

    return Summary(comparison, (), (), (), (), cast(MapEvidence, None), ())


@pytest.mark.parametrize("seeds", [1, 2])
def test_classes_stand_in_a_section_with_the_worst_marked(
    place: Path, monkeypatch: pytest.MonkeyPatch, seeds: int
) -> None:
    monkeypatch.setattr("asgt.report.page.SECTIONS", (CLASSES,))
    runs = [run for run in RUNS if int(run[-1]) < seeds]
    comparison = compare([place / run for run in runs])
    write_report(summary_of(comparison), place / "page")
    assert not Page(place / "page").section("classes"), "evaluations of earlier versions know no labels"

    # The first of four classes has no image, and the second a name that is markup.
    labels = np.arange(comparison.samples) % 3 + 1
    names = ("none", "<b>one", "two", "three")
    write_report(summary_of(with_labels(comparison, torch.tensor(labels), names)), place / "page")
    page = Page(place / "page")
    whole, *tables = page.kind("sortable classes")
    assert "<b>one" not in page.source
    for fact in ("pgd v3", "ε\xa0=\xa00.1", "not corrected", "3 classes", "7 further"):
        assert fact in html.unescape(page.section("classes")), fact

    for row, table, (title, slug) in zip(whole.rows[1:], tables, METHODS.items(), strict=True):
        shares = np.array(
            [
                [
                    [
                        evidence(place / f"runs/{slug}-{seed}", COLUMNS[-1], eps)[labels == label].mean()
                        for label in (1, 2, 3)
                    ]
                    for eps in (None, 0.1)
                ]
                for seed in range(seeds)
            ]
        )
        means = 100 * shares.mean(axis=0)
        assert words_of(row[0]) == title
        for cell, mean in zip(row[1:3], means.mean(axis=1), strict=True):
            assert words_of(cell).split()[0] == f"{mean:.1f}"
        lowest = means[1].min()
        worst = int(np.argmin(means[1]))
        assert words_of(row[3]).startswith(names[1 + worst])
        for number, cells in enumerate(table.rows[1:]):
            assert ("worst" in words_of(cells[0])) == (means[1][number] == lowest)
            assert words_of(cells[1]) == str((labels == number + 1).sum())
            assert [words_of(cell).split()[0] for cell in cells[2:]] == [f"{mean:.1f}" for mean in means[:, number]]
            assert all(("±" if seeds == 2 else "[") in words_of(cell) for cell in cells[2:])


def test_of_many_classes_the_worst_are_listed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgt.report.page.SECTIONS", (CLASSES,))
    comparison = compare([place / "runs/at-fgsm-0"])
    labels = torch.arange(comparison.samples)
    names = tuple(f"class {number}" for number in labels.tolist())
    write_report(summary_of(with_labels(comparison, labels, names)), place / "page")
    page = Page(place / "page")
    _, table = page.kind("sortable classes")
    wrong = np.flatnonzero(~evidence(place / "runs/at-fgsm-0", COLUMNS[-1], 0.1))
    assert len(wrong) > 5
    assert [words_of(row[0]) for row in table.rows[1:]] == [f"class {number} ▼ worst" for number in wrong[:5]]
    assert f"and {len(wrong) - 1} others" in page.section("classes")


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_maps_that_cannot_be_had_are_said_to_be_missing(place: Path) -> None:
    for seed in (0, 1):
        edit(place / f"runs/st-{seed}/config.yaml", data="./gone")
        edit(place / f"runs/at-fgsm-{seed}/config.yaml", model="mine:net")
    folder = report_of(place, RUNS)
    page = Page(folder)
    assert [words_of(row[0]) for row in page.kind("maps")[0].rows[2:]] == ["ASGT-PGDseed 0"]
    missing = re.findall(r"No maps of (.*?)</p>", html.unescape(page.section("maps")))
    assert [line.split(":")[0] for line in missing] == ["ST", "AT-FGSM"]
    assert "gone" in missing[0]
    assert "--model mine:net" in missing[1]

    # Without any map, none of an earlier report is left behind.
    (folder / "figures").mkdir()
    (folder / "figures" / "saliency.png").touch()
    (folder / "figures" / "saliency.pdf").touch()
    folder = report_of(place, RUNS[:4])
    assert not Page(folder).kind("maps")
    assert not list((folder / "figures").glob("saliency.*"))
    assert "saliency.pdf" not in Page(folder).source


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_other_images_than_the_runs_own_are_not_drawn(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asgt.datasets import DATA_SETS

    digits = DATA_SETS["digits"]

    def changed() -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
        assert digits.loader is not None
        pixels, labels, classes = digits.loader()
        pixels[:, 0, 0, 0] = 7
        return pixels, labels, classes

    monkeypatch.setitem(DATA_SETS, "digits", dataclasses.replace(digits, loader=changed))
    page = Page(report_of(place, RUNS[:2]))
    assert not page.kind("maps")
    assert "No maps of ST: the test images of digits are not those of this run" in html.unescape(page.source)


# --- what the page says of odd runs ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_a_single_run_shows_wilsons_interval(place: Path) -> None:
    page = Page(report_of(place, ["runs/st-0"]))
    assert "<title>asgt: 1 method on digits</title>" in page.source
    assert "<h1>1 method on digits" in page.source
    assert "1 trained model (seed 0)" in page.source
    assert "is the range of accuracy" not in page.source, "one method has none to be compared with"
    assert "decided" not in page.section("found")
    assert not page.section("differences")
    assert "#differences" not in page.source
    assert not page.kind("differences")
    assert not (place / "page/differences.csv").exists()
    for eps, rows in zip(EPSILONS, page.accuracies(), strict=True):
        ((_, _, clean, *cells),) = rows
        for cell, (column, at) in zip([clean, *cells], [(COLUMNS[0], None), *((c, eps) for c in COLUMNS)], strict=True):
            right = evidence(place / "runs/st-0", column, at)
            interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
            shown = re.fullmatch(r"([\d.]+) \[([\d.]+), ([\d.]+)\]", words_of(cell))
            assert shown, words_of(cell)
            assert [float(part) for part in shown.groups()] == pytest.approx(
                [100 * right.mean(), 100 * interval.low, 100 * interval.high], abs=0.0501
            )
    assert "Wilson 95 % of one model" in page.section("curves")


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_no_differences_of_an_earlier_report_are_left_behind(place: Path) -> None:
    assert (report_of(place, RUNS) / "differences.csv").exists()
    folder = report_of(place, RUNS[:2])
    assert (folder / "accuracies.csv").exists()
    assert not (folder / "differences.csv").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_runs_of_one_seed_are_told_apart_as_models(place: Path) -> None:
    folder = report_of(place, ["runs/st-0", "runs/at-fgsm-0", "runs/asgt-pgd-0"])
    page = Page(folder)
    attacked, clean = page.kind("differences")
    slugs = list(METHODS.values())
    p_values = {}
    for one, other in itertools.combinations(range(3), 2):
        right = [evidence(place / f"runs/{slugs[number]}-0", COLUMNS[-1], 0.1) for number in (one, other)]
        only = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
        p_values[one, other] = binomtest(only[0], sum(only)).pvalue
    # Holm by hand: of three, the smallest thrice, the next twice.
    order = sorted(p_values, key=lambda pair: p_values[pair])
    decided = {pair for rank, pair in enumerate(order) if (3 - rank) * p_values[pair] < 0.05}
    assert len(decided) == 2, "one of three pairs is too close"

    for (one, other), mark in itertools.product(p_values, "▲▼·"):
        above, below = (words_of(attacked.rows[1 + row][1 + column]) for row, column in ((one, other), (other, one)))
        more = float(above.split()[0].replace("−", "-")) > 0
        marks = ("▲▼" if more else "▼▲") if (one, other) in decided else "··"
        assert (mark in above, mark in below) == (mark == marks[0], mark == marks[1])
    said = html.unescape(page.section("found"))
    assert "2 of 3 differences between models are decided" in said
    assert "(one seed each, so the methods are not compared;" in said
    assert "does not compare the methods" in page.section("differences")
    assert "▲" not in "".join(words_of(cell) for row in clean.rows for cell in row)
    assert page.section("differences").count('aria-label="decided: more"') == 2
    assert page.section("differences").count('aria-label="decided: less"') == 2
    assert page.section("differences").count('aria-label="not decided"') == 2 + 6


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_models_among_methods_and_pairs_that_cannot_be_are_marked(place: Path) -> None:
    (seven,) = copies(place, "runs/at-fgsm-1", 1, "seed", [7])
    page = Page(report_of(place, ["runs/st-0", "runs/st-1", seven, "runs/asgt-pgd-0"]))
    table = page.kind("differences")[0]
    cells = [[words_of(cell) for cell in row[1:]] for row in table.rows[1:]]
    # ST has seeds 0 and 1, AT-FGSM has 7, ASGT-PGD has 0: only the first two cannot be paired.
    assert (cells[0][1], cells[1][0]) == ("–", "–")
    assert [cells[number][number] for number in range(3)] == ["", "", ""]
    assert "several seeds, and none in common" in page.section("differences")
    assert "Holm's correction over 2 claims" in html.unescape(page.section("differences"))
    assert not [cell for row in cells for cell in row if "models" in cell], "where all are models, the caption says so"

    page = Page(report_of(place, [*RUNS[:4], "runs/asgt-pgd-0"]))
    cells = [[words_of(cell) for cell in row[1:]] for row in page.kind("differences")[0].rows[1:]]
    assert [["two models" in cell for cell in row] for row in cells] == [
        [False, False, True],
        [False, False, True],
        [True, True, False],
    ]
    assert "several seeds, and none in common" not in page.section("differences")


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_methods_of_different_counts_of_seeds_say_so(place: Path) -> None:
    page = Page(report_of(place, ["runs/st-0", "runs/at-fgsm-0", "runs/at-fgsm-1"]))
    assert "mean over 1 or 2 seeds" in page.section("found")
    assert [words_of(row[1]) for row in page.accuracies()[0]] == ["1", "2"]
    assert "±" in words_of(page.accuracies()[0][1][2])
    assert "[" in words_of(page.accuracies()[0][0][2])


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_a_warning_stands_where_it_is_seen_and_runs_nothing(place: Path) -> None:
    for path in place.glob("runs/*/training.json"):
        edit(path, warnings=[])
        listed(path.parent)
    page = Page(report_of(place, RUNS))
    assert "#warnings" not in page.source
    assert not page.section("warnings")
    assert "carry a warning" not in page.section("found")

    edit(place / "runs/st-1/training.json", warnings=["<script>alert(1)</script> & more"])
    listed(place / "runs/st-1")
    page = Page(report_of(place, RUNS))
    assert "<b>ST, seed 1</b>: &lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page.section("warnings")
    assert 'href="#warnings"' in page.source.partition("<main>")[0]
    assert "1 of 6 runs carry a warning" in page.section("found")
    for rows in page.accuracies():
        assert [words_of(row[0]) for row in rows] == ["ST ⚠", "AT-FGSM", "ASGT-PGD"]


def checks_of(run: Path, protocol: str) -> list[dict[str, Any]]:
    return json.loads((run / "evaluation" / protocol / "result.json").read_text())["checks"]


def test_the_checks_are_those_of_the_results(report: Path) -> None:
    page = Page(report)
    pgd, paper = page.kind("checks claimed"), page.kind("checks")
    assert (len(pgd), len(paper)) == (1, 1), "worst cases stand apart: only from them is robustness read off"
    verdicts = 0
    for (table,), protocol in ((pgd, "pgd"), (paper, "paper")):
        head, *rows = table.rows
        assert [words_of(cell) for cell in head[1:]] == list(METHODS)
        for column, slug in enumerate(METHODS.values()):
            held = [checks_of(report.parent / f"runs/{slug}-{seed}", protocol) for seed in (0, 1)]
            assert [words_of(row[0]) for row in rows] == [check["name"] for check in held[0]]
            for row, *checks in zip(rows, *held, strict=True):
                ended = {check["verdict"] for check in checks}
                worst = next(verdict for verdict in ("FAIL", "WARN", "NOT RUN", "PASS") if verdict in ended)
                first = next(check for check in checks if check["verdict"] == worst)
                cell = row[1 + column]
                assert cell.attributes["class"] == worst.lower().replace(" ", "-")
                assert words_of(cell)[0] == {"FAIL": "✗", "WARN": "!", "NOT RUN": "–", "PASS": "✓"}[worst]
                assert cell.attributes["title"] == f"seed {checks.index(first)}: {first['evidence']}"
                verdicts += worst != "PASS"
    assert verdicts > 10

    section = html.unescape(page.section("checks")).replace("\u00a0", " ")
    assert "No failure detected in 6 runs. 13 of 15 checks were made in each run." in section
    assert "<b>FAIL budget reach</b>: all 6 runs." in section
    assert "A FAIL of budget reach is expected here" in section
    assert "cannot prove that no gradient is masked" in section
    assert "asgt evaluate runs/st-0 --protocol pgd --resume --thorough" in section
    assert 'href="#checks"' in page.source.partition("<main>")[0]
    # What a protocol that claims nothing fails is no news.
    assert "fail" not in page.section("found")
    assert "✗" not in page.section("tables")


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_what_fails_under_a_worst_case_is_said_at_the_top_and_at_the_accuracies(place: Path) -> None:
    names = [check["name"] for check in checks_of(place / "runs/st-0", "pgd")]

    def ended(slug: str, **changes: dict[str, Any]) -> None:
        passed = {
            name: {"name": name, "verdict": "PASS", "evidence": "fine", "remedy": "", "samples": []} for name in names
        }
        edit(place / f"runs/{slug}/evaluation/pgd/result.json", checks=list((passed | changes).values()))

    def noise(verdict: str, **values: Any) -> dict[str, Any]:
        told = {"evidence": "broke <b>3</b>", "remedy": "<script>alert(1)</script>", "samples": [4, 9]}
        return {"random noise": {"name": "random noise", "verdict": verdict} | told | values}

    for slug in METHODS.values():
        for seed in (0, 1):
            ended(f"{slug}-{seed}")
    page = Page(report_of(place, RUNS))
    assert "No failure detected in 6 runs. 15 of 15 checks were made in each run." in page.section("checks")
    assert "--protocol pgd --resume" not in page.section("checks"), "nothing expensive is left to run"
    assert {words_of(cell) for table in page.kind("checks claimed") for row in table.rows[1:] for cell in row[1:]} == {
        "✓"
    }

    ended("st-1", **noise("FAIL"))
    ended("at-fgsm-0", **noise("WARN", samples=[]))
    page = Page(report_of(place, RUNS))
    row = next(row for row in page.kind("checks claimed")[0].rows if words_of(row[0]) == "random noise")
    assert [words_of(cell) for cell in row[1:]] == ["✗ 1/2", "! 1/2", "✓"]
    section = page.section("checks")
    assert "1 check fails in 1 of 6 runs, and 1 check warns in 1 of 6 runs" in section
    assert "<b>FAIL random noise</b>: ST 1/2. Remedy: &lt;script&gt;alert(1)&lt;/script&gt;." in section
    assert "ST, seed 1, samples no. 4, 9: broke &lt;b&gt;3&lt;/b&gt;" in section
    assert "AT-FGSM, seed 0: broke" in section
    assert "Checks fail under protocol pgd v3: random noise (ST 1/2)." in page.section("found")
    for rows in page.accuracies():
        assert ["✗" in words_of(row[0]) for row in rows] == [True, False, False]

    # Of an evaluation that holds no checks, it is not said that nothing was detected.
    for path in place.glob("runs/*/evaluation/pgd/result.json"):
        edit(path, checks=[])
    page = Page(report_of(place, RUNS))
    assert "No check was run in 6 runs." in page.section("checks")
    assert not page.kind("checks claimed")


def test_what_worst_cases_took_is_what_the_results_say(report: Path) -> None:
    rows = Page(report).kind("sortable plain")[1].rows[1:]
    assert len(rows) == len(RUNS)
    for row, run in zip(rows, RUNS, strict=True):
        result = json.loads((report.parent / run / "evaluation/pgd/result.json").read_text())
        cost, first = result["cost"]["pgd-40x5"], result["first_to_break"]["pgd-40x5"]
        shown = [float(cell.attributes["data-value"]) for cell in row[3:7]]
        assert shown == pytest.approx([cost["gradients"], cost["floor"], cost["forwards"], cost["audit"]])
        assert words_of(row[7]) == f"{cost['missed']} of {cost['tested']} [{100 * cost['missed_high']:.1f} %]"
        assert words_of(row[8]) == ", ".join(f"{title}: {count}" for title, count in first.items())
        assert sum(first.values()) == 40 - result["attacks"]["pgd-40x5"][-1]["accuracy"] * 40


@pytest.mark.slow
@pytest.mark.usefixtures("no_files")
def test_damaged_metrics_are_named(place: Path) -> None:
    path = place / "runs/st-0/metrics.jsonl"
    path.write_text(re.sub(r'"loss": [\d.]+', '"loss": NaN', path.read_text(), count=1))
    with pytest.raises(DamagedFileError) as damaged:
        report_of(place, RUNS)
    assert_states(damaged.value, "runs/st-0/metrics.jsonl", "damaged", "loss")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["html", "files"])
def test_names_of_classes_are_only_names(
    tmp_path: Path, image_folder: Callable[..., Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "html": ["<img src=x onerror=alert(1)>", "</script><script>alert(1)<", "\"&amp;'{{ 7*7 }}"],
        "files": ["$\\frac{1", "猫と犬", "_a very long name of a class that nobody would print", "$x^2$ & Co"],
    }[kind]
    if kind == "html":
        names[1] = names[1].replace("/", "⁄")
    data = image_folder("odd", dict.fromkeys(names, 12), size=(8, 8), mode="RGB")
    monkeypatch.chdir(tmp_path)
    asgt.train(TrainConfig(data=str(data), method="st", width=0.1, epochs=1, batch_size=16), "runs/st")
    model, splits, _, _ = load_run("runs/st")
    from asgt.evaluation.curve import evaluate

    evaluate(model, splits.test, protocol="pgd", epsilons=[0.1], folder=Path("runs/st/evaluation/pgd"))
    page = Page(report_of(tmp_path, ["runs/st"]))
    (table,) = page.kind("maps")
    assert sorted(words_of(cell) for cell in table.rows[0][1:]) == sorted(" ".join(name.split()) for name in names)
    # Each class's image and its map; and of the first three, image and map before and under attack.
    count = 2 * len(names) + 3 * 4
    assert [attributes["src"][:5] for tag, attributes in page.tags if tag == "img"] == ["data:"] * count
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    for name in FIGURES:
        check_figures(tmp_path / "page" / "figures", name)


# --- figures -----------------------------------------------------------------------------------------------------


def check_figures(folder: Path, name: str) -> None:
    """Both files are there, whole, and not an empty sheet."""

    with Image.open(folder / f"{name}.png") as picture:
        assert min(picture.size) > 150
        pixels = np.asarray(picture.convert("RGB"))
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 60, "an empty sheet has few colours"
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (edge == 255).all(), "something is cut off at the edge"
    paper = (folder / f"{name}.pdf").read_bytes()
    assert paper.startswith(b"%PDF-")
    assert paper.rstrip().endswith(b"%%EOF")
    assert len(paper) > 5_000


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn(name: str, report: Path, crowded: Path) -> None:
    check_figures(report / "figures", name)
    check_figures(crowded / "figures", name)


@pytest.mark.parametrize("name", MEASURED)
def test_figures_of_what_was_measured_are_drawn(name: str, report: Path, crowded: Path) -> None:
    check_figures(report / "figures", name)
    assert not (crowded / "figures" / f"{name}.png").exists(), "none of its runs was explained"


def test_the_same_runs_give_the_same_bytes_whatever_the_users_style(report: Path, place: Path) -> None:
    odd = {
        "lines.linewidth": 9,
        "font.size": 30,
        "axes.facecolor": "red",
        "text.color": "red",
        "path.sketch": (1, 9, 2),
    }
    with matplotlib.rc_context(odd):
        explain_all(place)
        again = report_of(place, RUNS, command=COMMAND)
        assert matplotlib.rcParams["lines.linewidth"] == 9
    written = {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()}
    before = {path.relative_to(report): path.read_bytes() for path in report.rglob("*") if path.is_file()}
    assert sorted(written) == sorted(before)
    assert [name for name in written if written[name] != before[name]] == []
    assert len(written) == 5 + 2 * len(FIGURES + MEASURED)


def style_of(svg: str) -> tuple[str, ...]:
    """Colour, dash and marker of a line drawn by itself."""

    line = re.search(r'<path d="[^"]*" clip-path|<path d="M[^"]*" style="([^"]*fill: none[^"]*)"', svg)
    marker = re.search(r'<defs>\s*<path id="[^"]*" d="([^"]*)"', svg)
    assert line
    assert marker
    dash = re.search(r"stroke-dasharray: ([^;\"]+)", svg)
    colour = re.search(r"stroke: ([^;\"]+)", svg)
    assert colour
    return colour[1], dash[1] if dash else "solid", marker[1]


@pytest.mark.slow
def test_many_methods_are_told_apart() -> None:
    styles = [style_of(swatch_svg(number, "key")) for number in range(49)]
    assert len(set(styles)) == 49
    # The first seven are told apart in grey as well, by marker and by dash.
    assert len({dash for _, dash, _ in styles[:7]}) == len({marker for _, _, marker in styles[:7]}) == 7


def test_a_crowded_page_keeps_its_methods_apart(crowded: Path) -> None:
    page = Page(crowded)
    names = [words_of(row[0]).removesuffix(" ⚠") for row in page.accuracies()[0]]
    assert names[:2] == ["ST", "AT-FGSM"]
    assert len(set(names)) == 9
    assert "ASGT-PGD (weight = 0.123456)" in names
    entries = re.findall(r'<li data-line="(\d)".*?</li>', page.section("curves"), re.DOTALL)
    assert entries == [str(number) for number in range(9)]
    swatches = re.findall(r'<li data-line="\d".*?</li>', page.section("curves"), re.DOTALL)
    assert len({style_of(swatch) for swatch in swatches}) == 9


def test_every_id_is_unique_and_every_reference_leads_somewhere(report: Path, crowded: Path) -> None:
    for folder in (report, crowded):
        page = Page(folder)
        ids = page.ids()
        assert len(ids) == len(set(ids))
        inside = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page.source)
        assert {one or other for one, other in inside} <= set(ids)
        for tag, attributes in page.tags:
            if tag == "a" and not attributes["href"].startswith("#"):
                assert (folder / attributes["href"]).exists(), attributes["href"]


# --- in a browser ------------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_and_complains_of_nothing(browser: Browser, report: Path, crowded: Path) -> None:
    for folder in (report, crowded):
        browser.driver.get("about:blank")
        browser.messages(), browser.requests()
        browser.open(folder)
        asked = browser.requests()
        assert [url for url in asked if not url.startswith("data:")] == [(folder / "report.html").as_uri()]
        assert any(url.startswith("data:image/png") for url in asked), "the pictures are logged like any request"
        assert [entry for entry in browser.messages() if entry["level"] in ("WARNING", "SEVERE")] == []
        assert (folder / "report.html").stat().st_size < 3_000_000


def test_no_script_but_the_pages_own_runs(browser: Browser, report: Path, tmp_path: Path) -> None:
    source = (report / "report.html").read_text()
    intruder = '<script>document.title = "owned"</script><img src="x" onerror="document.title = \'owned\'"></body>'
    titles = {}
    for name, text in {"kept": source, "taken": re.sub(r"<meta http-equiv=[^\n]*", "", source)}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.html").write_text(text.replace("</body>", intruder))
        browser.open(tmp_path / name)
        titles[name] = browser.driver.title
    assert titles == {"kept": "asgt: 3 methods on digits", "taken": "owned"}
    browser.messages()


def column_of(browser: Browser, column: int) -> list[tuple[str, str]]:
    """Names and values of a column of the second table of accuracies, in the order shown."""

    script = """
        const rows = document.querySelectorAll("table.sortable:not(.plain)")[1].tBodies[0].rows;
        const name = (row) => row.cells[0].firstChild.textContent.trim();
        return [...rows].map((row) => [name(row), row.cells[arguments[0]].dataset.value]);
    """
    return [(name, value) for name, value in browser.run(script, column)]


def press(browser: Browser, column: int) -> list[str | None]:
    """Presses the head of a column; says how every head is sorted."""

    script = """
        const heads = document.querySelectorAll("table.sortable:not(.plain)")[1].tHead.rows[1].cells;
        heads[arguments[0]].querySelector("button").click();
        return [...heads].map((head) => head.getAttribute("aria-sort"));
    """
    return browser.run(script, column)


def test_tables_are_sorted_by_a_press_on_a_head(browser: Browser, report: Path) -> None:
    browser.open(report)
    # The ninth column is PGD-40 × 5; the third is the clean accuracy.
    for column, source, eps in ((9, "pgd/pgd-40x5", 0.1), (2, "paper/fgsm", None), (3, "paper/fgsm", 0.1)):
        real = {name: accuracies_of(report.parent, slug, source, eps).mean() for name, slug in METHODS.items()}
        orders = press(browser, column)
        assert orders == [("descending" if number == column else None) for number in range(10)]
        shown = column_of(browser, column)
        assert [float(value) for _, value in shown] == pytest.approx(sorted(real.values(), reverse=True))
        assert {name: float(value) for name, value in shown} == pytest.approx(real)
        assert press(browser, column)[column] == "ascending"
        assert [float(value) for _, value in column_of(browser, column)] == pytest.approx(sorted(real.values()))

    assert press(browser, 0)[0] == "ascending"
    assert [name for name, _ in column_of(browser, 0)] == list(METHODS)
    assert press(browser, 0)[0] == "descending"
    assert [name for name, _ in column_of(browser, 0)] == list(METHODS)[::-1]
    untouched = (
        "return [...document.querySelectorAll('table.sortable')[0].tBodies[0].rows].map((r) => r.cells[0].textContent)"
    )
    assert [name.split()[0] for name in browser.run(untouched)] == list(METHODS)


def test_every_figure_is_shown_with_all_its_curves(browser: Browser, report: Path, crowded: Path) -> None:
    script = """
        return [...document.querySelectorAll("figure.panel")].map((figure) => {
          const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
          const curves = [...svg.querySelectorAll('g[id*="-curve-"]')];
          const points = curves.map((curve) => curve.querySelectorAll("use").length);
          return [figure.dataset.panel, box.width, box.height, curves.map((curve) => curve.id), points];
        });
    """
    for folder in (report, crowded):
        browser.open(folder)
        data = Page(folder).figure_data()
        shown = browser.run(script)
        assert [panel for panel, *_ in shown] != []
        assert {panel for panel, *_ in shown} == set(data)
        for panel, width, height, curves, points in shown:
            assert width > 200
            assert height > 150
            assert curves == [f"{panel}-curve-{line['number']}" for line in data[panel]["lines"]]
            assert points == [len(line["x"]) for line in data[panel]["lines"]]


def middle_of(browser: Browser, panel: str, line: int, point: int) -> tuple[float, float]:
    """Where a point of a curve is in the window, scrolled into sight."""

    script = """
        const [panel, line, point] = arguments;
        const mark = document.querySelectorAll(`[id="${panel}-curve-${line}"] use`)[point];
        mark.closest("figure").scrollIntoView({ block: "center" });
        const box = mark.getBoundingClientRect();
        return [box.x + box.width / 2, box.y + box.height / 2];
    """
    x, y = browser.run(script, panel, line, point)
    return x, y


def tip_of(browser: Browser) -> SimpleNamespace | None:
    script = """
        const tip = document.getElementById("tip"), box = tip.getBoundingClientRect();
        const inside = box.x >= 0 && box.right <= innerWidth && box.y >= 0 && box.bottom <= innerHeight;
        return tip.hidden ? null : [tip.textContent, tip.querySelector("b").textContent.trim(), inside];
    """
    found = browser.run(script)
    return found and SimpleNamespace(lines=found[0].split("\n"), bold=found[1], inside=found[2])


@pytest.mark.parametrize(("panel", "point"), [("pgd-pgd-40x5", 2), ("paper-fgsm", 3), ("training-validation-pgd", 2)])
@pytest.mark.parametrize("width", [1280, 400])
def test_hovering_a_point_tells_its_numbers(browser: Browser, report: Path, panel: str, point: int, width: int) -> None:
    browser.open(report, width=width)
    data = Page(report).figure_data()[panel]
    for line in data["lines"]:
        browser.mouse(*middle_of(browser, panel, line["number"], point))
        tip = tip_of(browser)
        assert tip is not None
        assert tip.lines[0] == f"{data['x']} = {line['x'][point]}"
        best = sorted(data["lines"], key=lambda other: -other["y"][point])
        assert tip.lines[1:] == [f"{other['name']}  {other['text'][point]}" for other in best]
        assert tip.bold == f"{line['name']}  {line['text'][point]}"
        assert tip.inside
    browser.mouse(2, 2)
    assert tip_of(browser) is None


def test_a_tap_tells_the_numbers_until_the_next_one_elsewhere(browser: Browser, report: Path) -> None:
    browser.open(report, width=400)
    browser.cdp("Emulation.setTouchEmulationEnabled", enabled=True)
    try:
        browser.tap(*middle_of(browser, "paper-fgsm", 1, 2))
        tip = tip_of(browser)
        assert tip is not None
        assert tip.bold.startswith("AT-FGSM  ")
        browser.tap(3, 3)
        assert tip_of(browser) is None
    finally:
        browser.cdp("Emulation.setTouchEmulationEnabled", enabled=False)


def test_a_name_of_the_legend_dims_the_other_curves(browser: Browser, crowded: Path) -> None:
    browser.open(crowded)
    browser.run(
        "const still = document.createElement('style'); still.textContent = '* { transition: none !important }';"
        "document.head.append(still);"
    )
    opacity = """
        const parts = [...document.querySelectorAll('figure [id*="-curve-"], figure [id*="-band-"]')];
        return parts.map((part) => [part.id, Number(getComputedStyle(part).opacity)]);
    """
    for number in range(9):
        browser.run("document.querySelectorAll('.legend li')[arguments[0]].focus()", number)
        for part, shown in browser.run(opacity):
            assert (shown == 1) == part.endswith(f"-{number}"), part
    browser.run("document.activeElement.blur()")
    assert {shown for _, shown in browser.run(opacity)} == {1}


@pytest.mark.parametrize("which", ["report", "crowded"])
@pytest.mark.parametrize("width", [400, 700, 1000, 1280, 1920])
def test_the_page_fits_the_window_and_its_figures_can_be_read(
    browser: Browser, request: pytest.FixtureRequest, which: str, width: int
) -> None:
    browser.open(request.getfixturevalue(which), width=width)
    assert browser.run("return innerWidth") == width
    assert browser.run("return document.documentElement.scrollWidth") <= width

    script = """
        return [...document.querySelectorAll("figure.panel")].map((figure) => {
          const frame = figure.querySelector("svg").getBoundingClientRect();
          return [figure.dataset.panel, [frame.x, frame.y, frame.right, frame.bottom],
            [...figure.querySelectorAll("svg text")].map((text) => {
              const box = text.getBoundingClientRect(), scale = text.getScreenCTM();
              const size = parseFloat(getComputedStyle(text).fontSize) * Math.hypot(scale.a, scale.b);
              return [text.textContent, size, box.x, box.y, box.right, box.bottom];
            })];
        });
    """
    for panel, frame, texts in browser.run(script):
        assert len(texts) > 6, panel
        for word, size, left, top, right, bottom in texts:
            assert 11 <= size <= 18, (panel, word, size)
            assert frame[0] - 1 <= left <= right <= frame[2] + 1, (panel, word)
            assert frame[1] - 1 <= top <= bottom <= frame[3] + 1, (panel, word)
        for one, other in itertools.combinations(texts, 2):
            apart = one[4] <= other[2] or other[4] <= one[2] or one[5] <= other[3] + 2 or other[5] <= one[3] + 2
            assert apart, (panel, one, other)


def contrast(one: list[float], other: list[float]) -> float:
    """The contrast ratio of two sRGB colours, as WCAG 2 defines it."""

    lights = []
    for colour in (one, other):
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour[:3])
        ]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_they_stand_on(browser: Browser, report: Path, scheme: str) -> None:
    browser.open(report, scheme=scheme)
    script = """
        const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
        const under = (part) => {
          for (; part; part = part.parentElement) {
            const colour = numbers(getComputedStyle(part).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
          }
        };
        const kinds = ["body", ".asked", ".kind", ".note", "caption", ".note a", "nav a", "td a", "tbody th a",
          "td small", "figcaption b", "figcaption span", ".warnings h2", ".warnings li", ".settings dd",
          "pre code", ".maps span", "thead th[colspan]", ".differences td", ".differences thead th:first-child",
          ".checks .fail", ".checks .warn", ".checks .not-run", ".checks .pass", ".checked li", ".checked ul li",
          "summary", ".measures td", ".measures td small", ".measures .gate td", ".maps.block tbody th"];
        const words = kinds.flatMap((kind) => [...document.querySelectorAll(kind)].map((part) =>
          [kind, numbers(getComputedStyle(part).color), under(part)]));
        const drawn = [...document.querySelectorAll("figure svg text")].map((part) =>
          ["svg text", numbers(getComputedStyle(part).fill), under(part)]);
        return words.concat(drawn);
    """
    seen = browser.run(script)
    assert len({kind for kind, *_ in seen}) == 32
    for kind, ink, paper in seen:
        assert contrast(ink, paper) >= 4.5, (kind, ink, paper)
    (_, ink, paper), *_ = seen
    assert (sum(ink) > sum(paper)) == (scheme == "dark")
    assert contrast(paper, [0, 0, 0] if scheme == "dark" else [255, 255, 255]) < 1.3

    lines = browser.run("""
        return [...document.querySelectorAll('figure g[id*="-curve-"] > path')].map((part) =>
          getComputedStyle(part).stroke.match(/[\\d.]+/g).map(Number));
    """)
    panel = browser.run(
        "return getComputedStyle(document.querySelector('figure')).backgroundColor.match(/[\\d.]+/g).map(Number)"
    )
    assert lines
    for colour in lines:
        assert contrast(colour, panel) >= 3, colour


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_of_nine_methods_has_a_curve_that_can_be_seen(browser: Browser, crowded: Path, scheme: str) -> None:
    """A colour that the page does not define is no colour: the browser then draws no stroke at all."""

    browser.open(crowded, scheme=scheme)
    curves = browser.run("""
        return [...document.querySelectorAll('figure g[id*="-curve-"] > path')].map((part) =>
          [part.parentElement.id.match(/-curve-(\\d+)$/)?.[1], getComputedStyle(part).stroke]);
    """)
    paper = browser.run("return getComputedStyle(document.querySelector('figure')).backgroundColor.match(/[\\d.]+/g)")
    assert {number for number, _ in curves} >= {str(number) for number in range(9)}
    for number, stroke in curves:
        assert stroke.startswith("rgb"), (number, stroke)
        colour = [float(part) for part in re.findall(r"[\d.]+", stroke)]
        assert contrast(colour, [float(part) for part in paper]) >= 3, (number, stroke)


@pytest.mark.parametrize("which", ["report", "crowded"])
def test_on_paper_nothing_is_cut_off(browser: Browser, request: pytest.FixtureRequest, which: str) -> None:
    # A4 less a centimetre on each side, at 96 dots an inch.
    browser.open(request.getfixturevalue(which), width=718, media="print")
    script = """
        return [...document.querySelectorAll("table, figure, pre, svg, img")].map((part) =>
          [part.tagName, part.getBoundingClientRect().right, part.scrollWidth - part.clientWidth]);
    """
    for tag, right, hidden in browser.run(script):
        assert right <= 719, (tag, right)
        if tag == "PRE":
            assert hidden <= 0, "a command is longer than the page is wide"
    assert browser.run("return document.documentElement.scrollWidth") <= 718
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"

    paper = base64.b64decode(browser.cdp("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    assert paper.startswith(b"%PDF-")
    # Twelve, two for the checks by two protocols and what they found, and two for what was measured of maps.
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", paper)) <= 16


def test_every_picture_says_what_it_is(browser: Browser, report: Path) -> None:
    browser.open(report)
    pictures = browser.run(
        "return [...document.images].map((i) => [i.alt, i.naturalWidth, i.getBoundingClientRect().width])"
    )
    assert len(pictures) == 10 * (1 + len(METHODS)) + 3 * 4 * len(METHODS)
    assert len({alt for alt, *_ in pictures}) == len(pictures)
    for alt, natural, shown in pictures:
        assert alt
        assert natural == 8
        assert shown > 50
    labels = browser.run(
        "return [...document.querySelectorAll('figure [role=img]')].map((i) => i.getAttribute('aria-label'))"
    )
    # The first screen shows one of the charts of accuracy, so there is one more than columns.
    assert all(label.endswith("numbers are in accuracies.csv") for label in labels[: len(COLUMNS) + 1])
    assert "panel.csv and accuracies.csv" in labels[len(COLUMNS) + 1]
    assert all("metrics.jsonl" in label for label in labels[-3:])
