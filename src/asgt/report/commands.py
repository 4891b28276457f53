"""Words of commands that a page names."""

from __future__ import annotations

from ..names import is_foreign
from ..runs.run import Run

__all__ = ["named_again"]


def named_again(run: Run) -> list[str]:
    """A user's own factory runs only if they name it themselves."""

    return ["--model", run.config.model] if is_foreign(run.config.model) else []
