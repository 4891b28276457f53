"""Foreign code by name: ``package.module:attribute``, imported only if the user allows it."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from .errors import InputError
from .names import module_of

__all__ = ["ignore_matplotlibrc", "imported", "refuse_borrowed"]


class _WorkingDirectory:
    """Finds modules in the working directory: those that the user names, and what these import from beside them.

    If the directory were on ``sys.path``, any file in it with the name of an optional package would run, as
    ``torch_npu.py``, for which PyTorch looks by itself. So would the entry points of a package description there.
    """

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        """The working directory at the time when each top-level module was named."""
        self.found: dict[str, str] = {}
        """The folder of each top-level module that was found."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Python's protocol: the place of a module, ``None`` if it is not found here."""

        if path is not None:  # a part of a package is found by the package itself
            return None
        folder = self.named.get(name) or self.found.get(_importing())
        if folder is None or (spec := PathFinder.find_spec(name, [folder])) is None:
            return None
        self.found[name] = folder
        return spec


def _importing() -> str:
    """The top-level module whose code asks for an import."""

    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in ("importlib", "_frozen_importlib"):
            return module
        frame = frame.f_back
    return ""


_WORKING_DIRECTORY = _WorkingDirectory()


def imported(name: str, what: str) -> Any:
    """Imports the object of a name ``package.module:attribute``.

    A user's file is often in the working directory, which a console script does not search. Installed modules have
    priority, so that no file there replaces one, and only the named module is imported from there.

    Args:
        name: the name. The caller has checked that its code may run (:func:`asgt.names.refuse_unless_allowed`).
        what: its kind in errors, such as ``"model"``.

    Raises:
        InputError: the module or the attribute does not exist, or its import fails.
    """

    module, attribute = module_of(name), name.partition(":")[2]
    if not any(finder is _WORKING_DIRECTORY for finder in sys.meta_path):
        sys.meta_path.append(_WORKING_DIRECTORY)
    _WORKING_DIRECTORY.named[module.partition(".")[0]] = os.getcwd()
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{what} {name}: {error}: write package.module:name, importable from here") from error
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything, or try to end the process
        first = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"{what} {name}: {module} cannot be imported: {type(error).__name__}: {first}") from error


def refuse_borrowed(made: Callable[..., Any], name: str, what: str) -> None:
    """Refuses a function or class that a module of the user's only imports from another package.

    A run folder or a grid chooses the attribute of an allowed module, and the arguments. It must not choose an
    object that the module imports, such as a function that downloads and unpickles weights. A class that extends one
    of this package is accepted from any module.

    Args:
        made: the object of the name.
        name: the name ``package.module:attribute``.
        what: its kind in errors, such as ``"method"``.

    Raises:
        InputError: the message has the name of its origin.
    """

    # Functions, classes, methods and what wraps them have this; an object that the user's module made has not.
    if not hasattr(made, "__qualname__"):
        return
    origin = str(getattr(made, "__module__", None) or "builtins")
    own = __name__.partition(".")[0]
    extends = isinstance(made, type) and any(base.__module__.partition(".")[0] == own for base in made.__mro__)
    if origin.partition(".")[0] != module_of(name).partition(".")[0] and not extends:
        raise InputError(
            f"{what} {name} is {origin}:{made.__qualname__}, which {module_of(name)} only imports: use that name, "
            f"or write a function in {module_of(name)} that calls it"
        )


def ignore_matplotlibrc() -> None:
    """Prevents matplotlib from reading the file ``matplotlibrc`` of the working directory, which may name modules and
    code.

    Matplotlib reads it on import, so if there is one, it is imported now from a folder without one.
    """

    if "matplotlib" in sys.modules or not os.path.exists("matplotlibrc"):
        return
    here = os.getcwd()
    os.chdir(Path(__file__).parent)
    try:
        importlib.import_module("matplotlib")
    finally:
        os.chdir(here)
