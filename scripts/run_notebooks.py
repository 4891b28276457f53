"""Runs the notebooks of the examples and saves them with their outputs, without what differs from run to run.

    python scripts/run_notebooks.py                                   # all
    python scripts/run_notebooks.py examples/notebooks/audit.ipynb

Each runs in an empty folder of its own, so that what it writes is not left beside it. It needs the test requirements.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def run(path: Path, *, timeout: int = 600) -> None:
    """Runs a notebook and writes it, if no cell fails."""

    import nbformat
    from nbclient import NotebookClient

    notebook: Any = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": folder}}).execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        cell.metadata = {}  # when each cell ran, which is another time in every run
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


def main() -> None:
    for path in [Path(word) for word in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")):
        began = time.monotonic()
        run(path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
