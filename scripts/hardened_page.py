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

    columns = {key: title for key in ("pgd", "standard") if (title := _title(runs, key))}
    head = [
        "run",
        "batches of 64",
        "minutes",
        f"clean, n = {runs[0].evaluations['pgd'].samples}",
        *columns.values(),
        "worst class under `pgd`",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for run in runs:
        comparison = compare_runs([run])
        (method,) = comparison.methods
        judged = {column.key: column for column in comparison.judges()}
        robust = [
            comparison.at(method, judged[key], EPS).percent() if key in judged else "not evaluated" for key in columns
        ]
        config, result = run.config, run.result
        # Neither the validation part nor the rest of an epoch that fills no batch is trained on.
        batches = result.epochs * (((config.limit or 0) - result.validation_images) // config.batch_size)
        trained = f"{batches:,}" if batches > 0 else "none"
        classes = run.evaluations["pgd"].by_class(EPS)
        worst = classes.worst_text() if classes is not None else "not known"
        cells = [run.folder.stem, trained, f"{result.seconds / 60:.0f}", comparison.clean(method).percent()]
        lines.append(f"| {' | '.join([*cells, *robust, worst])} |")
    return "\n".join(lines)


def _title(runs: list[Run], key: str) -> str:
    """The title of the column of a protocol; empty where no run has it."""

    found = next((run.evaluations[key] for run in runs if key in run.evaluations), None)
    return "" if found is None else f"robust at 8/255, `{key}` v{found.protocol.version}, n = {found.samples}"


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
