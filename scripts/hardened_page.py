"""Keeps the runs of ``examples/harden.py`` as small files, and makes the table of docs/your-own-classifier.md of them.

python scripts/hardened_page.py --runs hardened    # keeps before, at and asgt in examples/hardened, then the table
python scripts/hardened_page.py                    # the table alone, of what is kept
"""

from __future__ import annotations

import argparse
from pathlib import Path

from asgt.comparison.comparing import compare_runs
from asgt.runs.kept import keep_run, load_kept
from asgt.runs.run import Run, read_run

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "examples" / "hardened"
PAGE = ROOT / "docs" / "your-own-classifier.md"
BEGIN, END = "<!-- journey -->", "<!-- /journey -->"
EPS = 8 / 255


def table(runs: list[Run]) -> str:
    """A row for each run: batches, minutes, clean accuracy, that at 8/255 and the worst class there, with intervals."""

    rows, protocols = [], ("pgd", "standard")
    for run in runs:
        comparison = compare_runs([run])
        (method,) = comparison.methods
        judged = {column.key: column for column in comparison.judges()}
        cells = [
            f"{comparison.at(method, judged[key], EPS).percent()}" if key in judged else "not run" for key in protocols
        ]
        config, result = run.config, run.result
        # Neither the validation part nor the rest of an epoch that fills no batch is trained on.
        batches = result.epochs * ((config.limit or 0) - result.validation_images) // config.batch_size
        trained = f"{batches:,}" if batches > 0 else "none"
        seen = [run.folder.stem, trained, f"{result.seconds / 60:.0f}", comparison.clean(method).percent()]
        classes = run.evaluations["pgd"].by_class(EPS)
        worst = classes.worst_text() if classes is not None else "not known"
        rows.append([*seen, cells[0], worst, cells[1]])
    counts = {key: run.evaluations[key].samples for run in runs for key in run.evaluations}
    quick, claim = (
        f"robust at 8/255, `{key}` v{_version(runs, key)}, n = {counts[key]}" if key in counts else ""
        for key in protocols
    )
    head = ["run", "batches of 64", "minutes", f"clean, n = {counts['pgd']}", quick, "worst class there"]
    head += [claim] if claim else []
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row[: len(head)])} |" for row in rows)])


def _version(runs: list[Run], key: str) -> int:
    return next(run.evaluations[key].protocol.version for run in runs if key in run.evaluations)


def page(text: str, runs: list[Run]) -> str:
    """The page with the table between its two comments."""

    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{table(runs)}\n\n{END}{rest.partition(END)[2]}"


def kept() -> list[Run]:
    """What is kept: the weights as they were first, then as they were trained longer."""

    return sorted(map(load_kept, KEPT.glob("*.json")), key=lambda run: (run.result.seconds, run.folder.stem))


def main() -> None:
    """Runs the command line."""

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="a folder of evaluated runs to keep")
    asked = parser.parse_args()
    if asked.runs is not None:
        for file in sorted(asked.runs.glob("*/training.json")):
            keep_run(read_run(file.parent), KEPT / f"{file.parent.name}.json")
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), kept()), encoding="utf-8")


if __name__ == "__main__":
    main()
