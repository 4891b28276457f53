"""Parts of the commands that a page shows."""

from __future__ import annotations

from ..names import is_foreign
from ..runs.run import Run

__all__ = ["named_again"]


def named_again(run: Run, *, trains: bool = False) -> list[str]:
    """The flags that name a user's own code again, which runs only with them; a training also needs its method."""

    config = run.config
    named = {"--model": config.model, "--method": config.method, "--attack": config.attack or ""}
    flags = [flag for flag, name in named.items() if is_foreign(name) and (trains or flag == "--model")]
    return [word for flag in flags for word in (flag, named[flag])]
