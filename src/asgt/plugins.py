"""Other people's code by name: ``package.module:attribute``, imported only where the user allows it."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from .errors import InputError
from .names import module_of

__all__ = ["imported"]


def imported(name: str, what: str) -> Any:
    """The object that a name ``package.module:attribute`` stands for.

    A user's own file lies where they stand, which a console script does not search: the working directory comes last
    on the path, so that no file there stands in for an installed package.

    Args:
        name: the name. Whether its code may run has been asked before (:func:`asgt.names.refuse_unless_allowed`).
        what: what to call it in an error, as ``"model"``.

    Raises:
        InputError: there is no such module or attribute, or its import fails.
    """

    module, attribute = module_of(name), name.partition(":")[2]
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{what} {name}: {error}; write package.module:name, importable from here") from error
    except (Exception, SystemExit) as error:  # a stranger's code may raise anything, or try to end the process
        first = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"{what} {name}: {module} cannot be imported: {type(error).__name__}: {first}") from error
