"""The tests themselves: what several of them share stands in ``tests/support``, and each in the folder of its layer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.paths import ROOT

TESTS = ROOT / "tests"
MODULES = sorted(TESTS.rglob("test_*.py"))


def imported(path: Path) -> set[str]:
    """The last part of every name that a module imports, or imports from, wherever in it."""

    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(alias.name for alias in node.names)}
    return {name.rpartition(".")[2] for name in found}


@pytest.mark.slow
def test_no_module_imports_from_a_test_module() -> None:
    private = {"conftest", *(module.stem for module in MODULES)}
    assert {str(path): names for path in TESTS.rglob("*.py") if (names := imported(path) & private)} == {}


def test_every_test_module_has_a_name_of_its_own_and_stands_in_a_folder() -> None:
    # pytest imports them by their names alone.
    assert len({module.stem for module in MODULES}) == len(MODULES)
    assert [module.name for module in MODULES if module.parent == TESTS] == []
