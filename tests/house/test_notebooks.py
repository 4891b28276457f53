"""The notebooks of the examples: they run, they teach what their outputs show, and they are fit to be published."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbmake.nb_run import NotebookRun

from support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
FEWER = {
    'digits.test, \\"pgd\\"': 'digits.test[:60], \\"pgd\\"',
    'data.test, \\"pgd\\"': 'data.test[:60], \\"pgd\\"',
    "epochs=10": "epochs=2",
    "epochs=6": "epochs=3",
    "range(8)": "range(2)",
    "steps=500": "steps=20",
    "SEEDS = 0.1, (0, 1, 2)": "SEEDS = 0.1, (0, 1)",
}
"""What the notebooks' code has in the test, as it stands in their JSON."""

PRIVATE = re.compile(r"/(home|root|tmp|work|Users|var)/|\b[A-Z]:\\|site-packages")


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text_of(notebook: Any) -> str:
    """All that a reader sees below the cells, as text."""

    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs(notebook))


def percents(text: str, name: str) -> float:
    """The accuracy that stands after a name: ``name  93.3 [90.2, 95.5] %``."""

    found = re.search(rf"{re.escape(name)}\s+([\d.]+) \[", text)
    assert found is not None, f"{name!r} is not in the outputs"
    return float(found.group(1))


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Each notebook as it ran in an empty folder, with a new kernel, on fewer images and with shorter trainings."""

    ran = {}
    with pytest.MonkeyPatch.context() as patched:
        for path in NOTEBOOKS:
            folder = tmp_path_factory.mktemp(path.stem)
            patched.chdir(folder)
            text = path.read_text(encoding="utf-8")
            for whole, fewer in FEWER.items():
                text = text.replace(whole, fewer)
            copy = folder / path.name
            copy.write_text(text, encoding="utf-8")
            result = NotebookRun(copy, default_timeout=600).execute()
            assert result.error is None, f"{path.name}: {result.error.summary}\n{result.error.trace}"
            ran[path.stem] = result.nb
    return ran


SLOW_FIXTURES = ("executed",)


def committed(name: str) -> str:
    """The outputs that the committed notebook shows."""

    return text_of(nbformat.read(ROOT / "examples" / "notebooks" / f"{name}.ipynb", as_version=4))


def test_there_are_the_three_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["audit", "explain_and_compare", "own_loop"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_can_be_published(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run from top to bottom"
    assert path.stat().st_size < 200_000

    for output in outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
    texts = [cell.source for cell in notebook.cells] + [text_of(notebook)]
    texts += [output.get("data", {}).get("text/html", "") for output in outputs(notebook)]
    private = PRIVATE.search("\n".join(texts))
    assert private is None, f"{private.group()!r} is a path of one machine"
    assert all(cell.metadata == {} for cell in notebook.cells), "metadata differs from run to run"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_text_stands_between_the_cells_and_its_links_lead_somewhere(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    kinds = [cell.cell_type for cell in notebook.cells]
    assert (kinds[0], kinds[-1]) == ("markdown", "markdown")
    assert all("markdown" in pair for pair in pairwise(kinds)), "no two cells of code in a row"

    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / target).is_file(), target


def test_every_notebook_runs_and_shows_what_the_committed_one_shows(executed: dict[str, Any]) -> None:
    for path in NOTEBOOKS:
        shown, ran = nbformat.read(path, as_version=4), executed[path.stem]
        kinds = [[sorted(output.get("data", {})) for output in outputs(notebook)] for notebook in (shown, ran)]
        assert kinds[0] == kinds[1], path.name
        assert not [output for output in outputs(ran) if output.get("name") == "stderr"], path.name


def test_own_loop_trains_a_robust_network() -> None:
    text = committed("own_loop")
    robust = re.search(r"0\.1\s+([\d.]+) \[([\d.]+),", text)
    assert robust is not None
    assert float(robust.group(2)) > 50, "as the text says, far above standard training"


def test_the_audit_catches_the_wrong_number_and_no_other() -> None:
    text = committed("audit")
    assert percents(text, "with normalisation:") > percents(text, "as it is:")
    claimed, square, straight, undefended = (
        percents(text, name)
        for name in (
            "rounded, as claimed (pgd)",
            "rounded, Square without gradients",
            "rounded, pgd with BPDA",
            "the same network without rounding (pgd)",
        )
    )
    assert claimed > 85
    assert max(square, straight) < claimed - 20
    assert straight < undefended + 3, "rounding gains nothing"
    assert "gradients at the start" in re.findall(r"^FAIL ([^:]+):", text, re.MULTILINE)
    sound, *_, rounded, straightened = re.findall(r"^checks: .*", text, re.MULTILINE)
    assert ("0 fail" in sound, "3 fail" in rounded, "0 fail" in straightened) == (True, True, True)


def test_the_comparison_decides_what_its_text_says() -> None:
    text = committed("explain_and_compare")
    assert re.search(r"ST − ASGT-PGD .* less$", text, re.MULTILINE), "ASGT is decided to be more robust"
    assert "3 seeds" in text
    assert len(re.findall(r": informative$", text, re.MULTILINE)) == 2
