"""Reports: runs side by side, their figures, and the page that they stand on."""

from .comparison import Accuracy, Column, Comparison, Method, Run, compare
from .curves import robustness_curves
from .page import Table, tables, write_report

__all__ = [
    "Accuracy",
    "Column",
    "Comparison",
    "Method",
    "Run",
    "Table",
    "compare",
    "robustness_curves",
    "tables",
    "write_report",
]
