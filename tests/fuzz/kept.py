"""Reads the files that a grid keeps of its runs, and writes all figures in them: ``python -m fuzz.kept FOLDER``.

No verb of the command line reads them; the page of results does, by the same function.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

__all__ = ["main"]


def main(words: Sequence[str]) -> int:
    """Writes the figures of a folder of kept runs. Returns the exit status, as ``asgt`` would."""

    from asgt.comparison.comparing import load_results
    from asgt.errors import AsgtError

    try:
        comparison = load_results(Path(words[0]))
    except AsgtError as error:
        sys.stderr.write(f"asgt: error: {' '.join(str(error).split())}\n")
        return 2
    for method in comparison.methods:
        for run in method.runs:
            evaluations = [evaluation.to_dict() for evaluation in run.evaluations.values()]
            held = evaluations + [explanation.to_dict() for explanation in run.explanations.values()]
            for each in held:
                del each["versions"], each["seconds"]
            whole = [run.config.to_dict(), {"warnings": run.result.warnings}, list(run.history), *held]
            sys.stdout.write("\n".join([method.name, *(json.dumps(each, sort_keys=True) for each in whole)]) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
