"""Parts of the commands that pages and messages name."""

from __future__ import annotations

import shlex

from ..names import is_foreign
from .run import Run

__all__ = ["evaluate_command", "named_again"]


def named_again(run: Run, *, trains: bool = False) -> list[str]:
    """The flags that name a user's own code again, which runs only with them; a training also needs its method."""

    config = run.config
    named = {"--model": config.model, "--method": config.method, "--attack": config.attack or ""}
    flags = [flag for flag, name in named.items() if is_foreign(name) and (trains or flag == "--model")]
    return [word for flag in flags for word in (flag, named[flag])]


def evaluate_command(run: Run, *flags: str) -> str:
    """The command that evaluates a run with some flags."""

    return shlex.join(["asgt", "evaluate", str(run.folder), *flags, *named_again(run)])
