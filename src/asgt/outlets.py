"""Standard output and standard error that never raise: for a closed reader, a full disk, or a limited encoding.

- A reader may close, like ``head``, or a stream may be closed from the start: later output is dropped.
- A disk may be full: lost output is dropped and recorded, so that the process ends with status 2. The results of a
  training or an evaluation are separate files, with their own errors.
- An encoding may lack a character: it is replaced by a plain equivalent, else by its backslash form.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import stat
import sys
import unicodedata
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["ENCODING_ERRORS", "Outlets"]

ENCODING_ERRORS = "asgt-plain"
"""The name of the error handler that replaces characters outside an encoding."""

_PLAIN = {
    **{"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "eps", "η": "eta", "θ": "theta", "λ": "lambda"},
    **{"μ": "mu", "ν": "nu", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "phi", "χ": "chi", "ψ": "psi"},
    **{"ω": "omega", "∞": "inf", "√": "sqrt", "±": "+-", "·": ".", "×": "x", "≤": "<=", "≥": ">=", "≠": "!="},
    **{"≈": "~", "−": "-", "–": "-", "—": "--"},
    **{"→": "->", "←": "<-", "↑": "^", "↓": "v", "▲": "^", "▼": "v", "✓": "ok", "✗": "x", "⚠": "!", "•": "*"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "«": '"', "»": '"', "∈": "in", "∆": "delta", "Δ": "Delta"},
    # What tables and progress bars are drawn with.
    **dict.fromkeys("─━╌╍═╸╺╴╶", "-"),
    **dict.fromkeys("│┃║╷╵╹╻", "|"),
    **dict.fromkeys("┌┐└┘├┤┬┴┼┏┓┗┛┣┫┳┻╋╇╈┡┢┩┪╭╮╯╰╔╗╚╝╠╣╦╩╬", "+"),
    **dict.fromkeys("█▉▊▋▌▍▎▏", "#"),
}

_READER_LEFT = {errno.EPIPE, errno.ECONNRESET, errno.ESHUTDOWN, errno.EBADF}


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(map(_plain, lacking)), error.end


def _plain(character: str) -> str:
    """A character in ASCII."""

    if character in _PLAIN:
        return _PLAIN[character]
    # é is e with an accent, ₂ a small 2, and … three dots.
    parts = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return parts or character.encode("ascii", "backslashreplace").decode()


codecs.register_error(ENCODING_ERRORS, _replaced)


class Outlets:
    """Replaces ``sys.stdout`` and ``sys.stderr`` with streams that never raise.

    A stream that is not a file, as in a notebook or a test, is unchanged.

    Args:
        undo: receives the calls that restore the previous state.
    """

    def __init__(self, undo: ExitStack) -> None:
        self._files: dict[str, _SteadyFile] = {}
        _fill_descriptors()
        for name in ("stdout", "stderr"):
            before = getattr(sys, name)
            undo.callback(setattr, sys, name, before)
            setattr(sys, name, self._steady(name, before, undo))

    def lost(self) -> OSError | None:
        """The error that made standard output incomplete although it has a reader; ``None`` without one.

        Errors of standard error are not reported, for lack of an output.
        """

        self.flush()
        file = self._files.get("stdout")
        return None if file is None else file.lost

    def flush(self) -> None:
        """Flushes the streams."""

        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):  # of a stranger's stream
                stream.flush()

    def _steady(self, name: str, stream: TextIO | None, undo: ExitStack) -> TextIO:
        if stream is None:  # it was closed from the start
            return undo.enter_context(open(os.devnull, "w", encoding="utf-8"))
        try:
            descriptor = stream.fileno()
            stream.flush()
        except (OSError, ValueError, AttributeError):
            descriptor = -1
        if descriptor < 0 or not isinstance(stream, io.TextIOWrapper):
            if isinstance(stream, io.TextIOWrapper):
                undo.callback(stream.reconfigure, errors=stream.errors)
                stream.reconfigure(errors=ENCODING_ERRORS)
            return stream

        file = self._files[name] = _SteadyFile(descriptor, f"<{name}>")
        # Unbuffered as python -u has it, or not.
        content = file if stream.write_through else io.BufferedWriter(file)
        return io.TextIOWrapper(
            content,
            encoding=stream.encoding,
            errors=ENCODING_ERRORS,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )


class _SteadyFile(io.FileIO):
    """A file whose ``write`` takes everything: what cannot be written is dropped.

    Args:
        descriptor: of the open file, which stays open when this one is closed.
        name: as in ``<stdout>``.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.name = name
        self.lost: OSError | None = None
        self._given_up = False

    def write(self, content: ReadableBuffer, /) -> int:
        whole = left = memoryview(content).cast("B")
        while left and not self._given_up:
            try:
                count = super().write(left)
            except OSError as error:
                self._given_up = True
                # A terminal that was closed answers with an error of input and output.
                if error.errno not in _READER_LEFT and not (error.errno == errno.EIO and _is_gone(self.fileno())):
                    self.lost = error
                break
            if count is None:  # a descriptor that does not wait, and is not ready
                select.select([], [self.fileno()], [])
            else:
                left = left[count:]
        return len(whole)


def _is_gone(descriptor: int) -> bool:
    """Whether a descriptor is of a terminal, whose other side must then be gone."""

    with suppress(OSError):
        return stat.S_ISCHR(os.fstat(descriptor).st_mode)
    return True


def _fill_descriptors() -> None:
    """Opens what was closed of the first three descriptors: the next file would get the number, and its messages."""

    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free is the one that is given.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
