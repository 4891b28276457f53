"""Typed errors: what is wrong, where, and how to mend it.

Everything that a user can put right raises an :class:`InputError`; the command line turns it into one line and
exit status 2. Any other exception is a fault of ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["AsgtError", "DamagedFileError", "InputError", "InterruptedRunError", "unknown"]

_LISTED = 12


class AsgtError(Exception):
    """Base of every error that asgt raises on purpose."""


class InputError(AsgtError, ValueError):
    """The input is wrong: a file, a flag, a shape or a value. The message is one line that says how to mend it."""


class DamagedFileError(InputError):
    """A file exists but cannot be read whole: cut short, overwritten or of another kind."""


class InterruptedRunError(AsgtError):
    """A run was asked to stop, and wrote its checkpoint first."""


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that no registry holds, with the nearest names that one does.

    Args:
        what: the kind of thing, as in ``"method"``.
        name: what the user wrote.
        known: the names there are.
    """

    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(known[:_LISTED]) + (", …" if len(known) > _LISTED else "")
    return InputError(f"unknown {what} {name!r}: {hint}known: {listed}")
