"""Finds the verb, runs it, and turns an error into one line and an exit status.

0: done. 2: the input is wrong. 130: interrupted. 1: an internal error, with its traceback.

The reader of the output does not change the status, even if it closes early like ``head``. Only a full disk under
standard output does, because results are lost: status 2.
"""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from typing import NoReturn

from ..diagnostics import visible_diagnostics
from ..errors import AsgtError, InputError, InterruptedRunError, cut, unknown
from ..launch import launched, rank
from ..outlets import Outlets
from ..plugins import ignore_matplotlibrc
from ..visible import LONGEST, visible
from .interrupts import STOPPED, Interruption

__all__ = ["VERBS", "main", "process"]

VERBS = ("train", "evaluate", "explain", "compare", "reproduce", "profile", "verify", "export", "app")

_USAGE = """usage: asgt VERB [OPTIONS]

Trains robust and interpretable image classifiers, and measures their robustness.

verbs:
  train      train a classifier by {methods}
  evaluate   measure accuracy under attack, over a grid of eps, with intervals
  explain    saliency maps of models, measured on the same images
  compare    compare several runs on one page: tables, curves, saliency maps
  reproduce  train, evaluate and compare a grid of methods and seeds
  profile    measure the cost of a training step of each method, in passes and seconds
  verify     check the files of runs against their digests
  export     export a run as a folder to share: weights, model card, digests
  app        open an interactive page on this machine, to look at models by hand

asgt VERB --help lists the options of a verb; asgt --version prints the version.
"""

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_RIGHTS = (errno.EACCES, errno.EPERM)
_NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory")
"""The message of PyTorch's RuntimeError when a device has no free memory."""
_CACHE = "ASGT_CACHE"

_MENDS = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "the path does not exist: give an existing one",
    errno.ENOTDIR: "a part of the path is a file, not a folder: give another path",
    errno.EISDIR: "this is a folder, but a file is expected: give another path",
    errno.EEXIST: "the path exists already: move it away, or give another path",
    errno.ELOOP: "its links form a circle: give another path",
    errno.EACCES: "permission denied: change the permissions, or give another path",
    errno.EPERM: "permission denied: change the permissions, or give another path",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; ``None`` takes the process's own. Returns the exit status.

    Raises:
        SystemExit: a help text was requested and printed.
    """

    with ExitStack() as undo:
        return _answered(list(sys.argv[1:] if arguments is None else arguments), Interruption(), undo)


def process() -> NoReturn:
    """Runs the command line of the process, and ends the process with its status.

    Python needs up to seconds to clean up after PyTorch, and ignores signals meanwhile. The process therefore ends as
    soon as its threads have ended and the exit functions of all libraries have run.
    """

    interruption, undo = Interruption(), ExitStack()
    ended = [1]  # by a fault of ours
    atexit.register(_leave, ended, interruption)
    # Nothing is put back: the process ends as quietly as it was.
    try:
        ended[0] = _answered(sys.argv[1:], interruption, undo)
    except SystemExit:  # a help text
        ended[0] = 0
    except KeyboardInterrupt:  # before it is listened for
        _say("asgt: interrupted")
        ended[0] = STOPPED
    raise SystemExit(ended[0])


def _answered(words: list[str], interruption: Interruption, undo: ExitStack) -> int:
    """Runs a command line with steady streams, whatever signals come, and says what went wrong."""

    left: SystemExit | None = None
    outlets: Outlets | None = None
    try:
        # An interruption may come from here on. It is listened for last: its hook goes around that of the diagnostics.
        outlets = Outlets(undo)
        visible_diagnostics(undo)
        interruption.listen(undo)
        undo.callback(_put_back, os.environ.get(_CACHE))
        status = _run(words)
        outlets.flush()
    except SystemExit as end:
        interruption.settle()
        left, status = end, end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        interruption.settle()
        line = "" if interruption.raised else _line(error)
        if line is None:
            raise
        status = _status(error)
        if line:
            _say(line)
    interruption.settle()

    if interruption.raised or (interruption.came and status == 0):
        if rank() == 0:
            _say("asgt: interrupted")
        return STOPPED
    if status == 0 and outlets is not None and (lost := outlets.lost()) is not None:
        _say(
            f"asgt: error: cannot write to standard output: {lost.strerror or lost}; files that were already "
            "written are complete"
        )
        status = 2
    if left is not None and status == 0:
        raise left
    return status


def _put_back(place: str | None) -> None:
    """Undoes what ``--no-cache`` set for the processes that this one started."""

    os.environ.pop(_CACHE, None)
    if place is not None:
        os.environ[_CACHE] = place


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        from ..training.method_registry import METHODS

        *names, last = METHODS
        sys.stdout.write(_USAGE.replace("{methods}", f"{', '.join(names)} or {last}"))
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        sys.stdout.write(f"asgt {version('asgt')}\n")
        return 0
    if words[0].startswith("-"):
        raise InputError(f"the verb must come before {words[0]}: asgt {' or asgt '.join(VERBS)}")

    if words[0] not in VERBS:
        raise unknown("verb", words[0], VERBS)
    if words[0] != "train" and launched() > 1:
        raise InputError(f"asgt {words[0]} runs in one process, not in {launched()}: start it without a launcher")
    ignore_matplotlibrc()
    # Imported only now: asgt --help reads one file.
    run: Callable[[list[str]], int] = import_module(f".{words[0]}", __package__).run
    return run(words[1:])


def _line(error: BaseException) -> str | None:
    """What is said of an error, in one line; ``None`` if it is a fault of ours, which needs its traceback."""

    if isinstance(error, InterruptedRunError):
        return f"asgt: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "asgt: interrupted"
    if isinstance(error, AsgtError):
        said: str | None = str(error)
    elif isinstance(error, OSError):
        said = _of_the_file_system(error)
    elif isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))):
        said = "out of memory: use a smaller --batch-size, --image-size, --limit or --samples, or a larger machine"
    else:
        said = _of_a_name(error)
    return None if said is None else f"asgt: error: {visible(' '.join(visible(said).split()), LONGEST)}"


def _of_the_file_system(error: OSError) -> str | None:
    """What the file system refused. An error that names no file is ours, but for one of the disk or of rights."""

    reason = error.strerror or str(error)
    named = isinstance(error.filename, (str, bytes, os.PathLike))
    place = cut(os.fsdecode(error.filename), 300) if named else ""
    if error.errno in _CANNOT_WRITE:
        return f"cannot write {place}: {reason}" if place else f"cannot write: {reason}"
    if not named and error.errno not in _RIGHTS:
        return None
    mend = _MENDS.get(error.errno or 0, "")
    return ": ".join(part for part in (place, reason, mend) if part)


def _of_a_name(error: BaseException) -> str | None:
    """What is wrong with a name that no file can have; Python tells it by no type of its own."""

    if isinstance(error, ValueError) and str(error).startswith("embedded null"):
        return "the name of a file or folder contains a null character: remove it"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # pathlib before Python 3.13
        return f"{error}: {_MENDS[errno.ELOOP]}"
    if isinstance(error, UnicodeEncodeError) and error.encoding.replace("-", "") == sys.getfilesystemencoding().replace(
        "-", ""
    ):
        return (
            f"{error.object!r} cannot be the name of a file in {error.encoding}, the encoding of this environment: "
            "set PYTHONUTF8=1, or use another name"
        )
    return None


def _status(error: BaseException) -> int:
    return STOPPED if isinstance(error, (InterruptedRunError, KeyboardInterrupt)) else 2


def _say(line: str) -> None:
    with suppress(OSError, AttributeError):  # of a stranger's stream
        sys.stderr.write(visible(line) + "\n")
        sys.stderr.flush()


def _leave(ended: list[int], interruption: Interruption) -> None:
    """Ends the process, after all other calls at its end; files that are open are written whole."""

    for each in gc.get_objects():
        if issubclass(type(each), io.IOBase):
            with suppress(Exception):  # closed, or a stranger's
                each.flush()
    os._exit(STOPPED if interruption.raised else ended[0])
