"""Where the tests find the files of the repository, whatever folder they stand in."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
RUNS = FIXTURES / "runs"
"""Finished run folders: three methods of two seeds each."""
