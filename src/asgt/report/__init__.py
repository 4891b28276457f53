"""Reports: runs side by side, their figures, and the page that they stand on."""

from .comparison import Accuracy, Column, Comparison, Method, Run, compare
from .credibility import Credibility, Finding, credibility
from .curves import robustness_curves
from .differences import Difference, basis, differences, shown_differences
from .page import Table, tables, write_report

__all__ = [
    "Accuracy",
    "Column",
    "Comparison",
    "Credibility",
    "Difference",
    "Finding",
    "Method",
    "Run",
    "Table",
    "basis",
    "compare",
    "credibility",
    "differences",
    "robustness_curves",
    "shown_differences",
    "tables",
    "write_report",
]
