"""The docstrings of public names, and what the scripts of the documentation say, for their tests."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import sys
from functools import cache
from types import ModuleType
from typing import Any

import asgt
from support.paths import ROOT

__all__ = ["docstring", "public", "script"]


def public() -> list[str]:
    """The names of ``asgt.__all__``, sorted."""

    return sorted(asgt.__all__)


def docstring(name: str) -> str:
    """The docstring of a public name, without its indentation; of a constant, the text below its assignment."""

    value: Any = getattr(asgt, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return inspect.getdoc(value) or ""
    return _constants(asgt._MODULE_OF[name]).get(name, "")


@cache
def _constants(module: str) -> dict[str, str]:
    found = {}
    body = ast.parse(inspect.getsource(importlib.import_module(module))).body
    for node, following in itertools.pairwise(body):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[node.target.id] = inspect.cleandoc(str(following.value.value))
    return found


def script(name: str) -> ModuleType:
    """A module of ``scripts/``."""

    if str(ROOT / "scripts") not in sys.path:
        sys.path.append(str(ROOT / "scripts"))
    return importlib.import_module(name)
