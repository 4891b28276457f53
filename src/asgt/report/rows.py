"""Tables as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_bytes
from ..visible import visible

__all__ = ["write_rows"]


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows below the names of their columns, atomically; without rows, an earlier file is removed.

    Control characters in texts are written in their backslash form: such files are also read on terminals.
    """

    if not rows:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: visible(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    )
    write_bytes(path, text.getvalue().encode())
