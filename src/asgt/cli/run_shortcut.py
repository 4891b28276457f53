"""Which shortcut is planted in the test images of a run: that of its training, or one that the command line names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError, cut
from ..shortcuts import shortcut_named

__all__ = ["shortcut_of_run"]


def shortcut_of_run(
    folder: Path, own: str | None, named: str | None, view: str | None, start: Mapping[str, Any]
) -> str | None:
    """What is planted in the test images of a run; ``None`` if nothing is.

    Args:
        folder: of the run.
        own: the shortcut in its training images.
        named: that of ``--shortcut``.
        view: the test set of ``--shortcut-view``.
        start: what its training started from (:attr:`asgt.training.run_folder.TrainResult.start`).

    Raises:
        InputError: the run was trained with another shortcut than is named, or a view is requested without one.
    """

    if own is not None and named is not None and shortcut_named(own).text_in() != shortcut_named(named).text_in():
        raise InputError(f"--shortcut {cut(named)}: {folder} was trained with the shortcut {own}, remove the flag")
    shortcut = own or named
    if shortcut is None and view not in (None, "absent"):
        before = _before(start)
        since = f", but its weights are of a run with {before}" if before else ""
        raise InputError(
            f"--shortcut-view {view}: {folder} was trained without a shortcut{since}: --shortcut says what to plant, "
            f"as {before or 'patch:0.99'}"
        )
    return shortcut


def _before(start: Mapping[str, Any]) -> str:
    """The shortcut in the training images of the run that a training started from, or of the one before that."""

    source = start.get("source")
    if not isinstance(source, Mapping):
        return ""
    config, earlier = source.get("config"), source.get("start")
    own = config.get("shortcut") if isinstance(config, Mapping) else None
    return str(own) if own else _before(earlier) if isinstance(earlier, Mapping) else ""
