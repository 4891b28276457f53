"""Finds the verb, runs it, and turns what goes wrong into one line and an exit status.

0: done. 2: the input is wrong. 130: interrupted. 1: a fault of ours, with its traceback.
"""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from ..errors import AsgtError, InputError, InterruptedRunError, unknown
from ..launch import launched
from ..plugins import ignore_matplotlibrc

__all__ = ["main"]

_VERBS = ("train", "evaluate", "explain", "compare", "reproduce", "profile", "verify")

_USAGE = """usage: asgt VERB [OPTIONS]

Trains image classifiers that are robust and interpretable, and says honestly how robust they are.

verbs:
  train      train a classifier by {methods}
  evaluate   accuracy under attack, over a grid of eps, with intervals
  explain    where models look, measured on the same images, and their maps
  compare    one page of several runs: tables, curves, saliency maps
  reproduce  a grid of methods and seeds, trained, evaluated and compared
  profile    what a training step of each method costs, in passes and seconds
  verify     checks the files of runs against their digests

asgt VERB --help tells what each takes; asgt --version the version.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; ``None`` takes the process's own. Returns the exit status."""

    words = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")

    try:
        # A polite kill is an interruption too; asgt train, which has a checkpoint to write, answers it by itself.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        return _run(words)
    except InterruptedRunError as stop:
        return _say(f"asgt: {stop}", 130)
    except KeyboardInterrupt:
        return _say("asgt: interrupted", 130)
    except AsgtError as error:
        return _say(f"asgt: error: {' '.join(str(error).split())}", 2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        where = f" {error.filename}" if error.filename else ""
        return _say(f"asgt: error: cannot write{where}: {error.strerror}", 2)


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
        raise InputError(f"a verb comes before {words[0]}: asgt {' or asgt '.join(_VERBS)}")

    if words[0] not in _VERBS:
        raise unknown("verb", words[0], _VERBS)
    if words[0] != "train" and launched() > 1:
        raise InputError(f"asgt {words[0]} runs in one process, not in {launched()}: start it without a launcher")
    ignore_matplotlibrc()
    # Imported only now: asgt --help reads one file.
    run: Callable[[list[str]], int] = import_module(f".{words[0]}", __package__).run
    return run(words[1:])


def _say(line: str, status: int) -> int:
    sys.stderr.write(line + "\n")
    return status
