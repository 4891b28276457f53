"""The page on adding your own: its files are written as it shows them, and its code and commands run in its order."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.paths import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```(python|console)\n(.*?)```", PAGE, re.DOTALL)
FILES = {
    match.group(1): code
    for kind, code in BLOCKS
    if kind == "python" and (match := re.match(r"# (mine/\w+\.py)\n", code))
}

pytestmark = pytest.mark.slow


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of the page, in the working directory."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").touch()
    for name, code in FILES.items():
        (tmp_path / name).write_text(code)
    yield tmp_path
    for module in [module for module in sys.modules if module.partition(".")[0] == "mine"]:
        del sys.modules[module]


def test_the_page_runs_from_top_to_bottom(mine: Path, cli: Callable) -> None:
    ran = 0
    for kind, code in BLOCKS:
        if kind == "console":
            for line in code.splitlines():
                words = line.removeprefix("$ asgt ").split()
                answer = cli(*words, *(("--limit", 300) if words[0] == "train" else ()))
                assert answer.status == 0, (line, answer.err)
                ran += 1
        elif code not in FILES.values():
            exec(compile(code, "docs/extending.md", "exec"), {})
            ran += 1
    assert ran == 10
    page = (mine / "page" / "report.html").read_text()
    assert "HALF" in page.upper()
    assert (mine / "runs" / "half" / "evaluation" / "own" / "result.json").is_file()


def test_records_of_the_page_show_up(
    mine: Path, finished_run: Path, cli: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mine.dataset  # type: ignore[import-not-found]
    import mine.measure  # type: ignore[import-not-found]
    import mine.section  # type: ignore[import-not-found]

    import asgt.datasets
    from asgt.explanation import measures
    from asgt.report import page

    monkeypatch.setitem(asgt.datasets.DATA_SETS, "fashion-mnist", mine.dataset.FASHION)
    assert "'fashion-mnist'" in cli("train", "--data", "fashion-mnst").refusal()
    monkeypatch.setattr(page, "SECTIONS", (*page.SECTIONS, mine.section.COUNT))
    assert cli("evaluate", finished_run, "--samples", 20, "--epsilons", 0.1).status == 0
    assert cli("compare", finished_run, "--out", "counted").status == 0
    written = Path("counted/report.html").read_text()
    assert "<p>1 runs</p>" in written
    assert 'href="#count"' in written

    monkeypatch.setattr(measures, "MEASURES", (*measures.MEASURES, mine.measure.LARGEST))
    assert measures.measure_named("largest") is mine.measure.LARGEST
