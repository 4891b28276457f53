"""Log records, Python's warnings and tracebacks, of this library and others: control characters are made visible.

Other libraries have their own handlers, so the record is cleaned, not the output of one handler.
"""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from .visible import visible

__all__ = ["visible_diagnostics"]


def visible_diagnostics(undo: ExitStack) -> None:
    """Cleans log records, warnings and exceptions from now on.

    Args:
        undo: receives the calls that restore the previous state.
    """

    undo.callback(logging.setLogRecordFactory, logging.getLogRecordFactory())
    logging.setLogRecordFactory(_Record)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    undo.callback(setattr, warnings, "formatwarning", warnings.formatwarning)
    warnings.formatwarning = _formatted(warnings.formatwarning)

    # Whoever has put a hook of their own there, shows it in a way of their own.
    if sys.excepthook is sys.__excepthook__:
        undo.callback(setattr, sys, "excepthook", sys.excepthook)
        sys.excepthook = _raised
    if sys.unraisablehook is sys.__unraisablehook__:
        undo.callback(setattr, sys, "unraisablehook", sys.unraisablehook)
        sys.unraisablehook = _unraisable


class _Record(logging.LogRecord):
    """A log record whose texts are visible, whoever formats it."""

    def getMessage(self) -> str:  # noqa: N802  as the library has it
        return visible(super().getMessage())

    def __setattr__(self, name: str, value: Any) -> None:
        # A formatter keeps the traceback here, to be used by the next handler.
        is_text = name in ("exc_text", "stack_info") and isinstance(value, str)
        super().__setattr__(name, visible(value) if is_text else value)


def _formatted(before: Callable[..., str]) -> Callable[..., str]:
    def formatwarning(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        return visible(before(message, category, filename, lineno, line))

    return formatwarning


def _raised(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    _show(visible("".join(traceback.format_exception(kind, error, trace))))


def _unraisable(ignored: sys.UnraisableHookArgs) -> None:
    """As Python's own: what was raised where nobody could catch it."""

    error = ignored.exc_value or ignored.exc_type()
    where = f"{ignored.err_msg or 'Exception ignored in'}: {ignored.object!r}"
    _show(visible(f"{where}\n{''.join(traceback.format_exception(error))}"))


def _show(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()
