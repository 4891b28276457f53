"""Makes the page of results anew from what is kept in ``results/``: the same files give the same page."""

from __future__ import annotations

import argparse
from pathlib import Path

from asgt.study.results_page import write_results

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Runs the command line."""

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=ROOT / "results", help="the kept runs (default: results/)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "results.md", help="the page (default: docs/results.md)"
    )
    asked = parser.parse_args()
    print(write_results(asked.results, asked.out))


if __name__ == "__main__":
    main()
