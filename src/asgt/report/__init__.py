"""Reports: runs side by side, their figures, and the page that they stand on."""

from .comparison import Accuracy, Column, Comparison, Method, Run, compare, read_methods
from .credibility import Credibility, Finding, credibility
from .curves import robustness_curves
from .differences import Difference, basis, differences, shown_differences
from .explained import Explained, explained, score_text
from .looks import Looks, PanelRow, asked_eps, looks, panel_rows, panel_unrun, panel_words, write_looks
from .maps import MapColumn, SaliencyMaps, saliency_maps, write_contact_sheet, write_maps
from .page import Table, forget_report, tables, write_report
from .tradeoff import Tradeoff, tradeoff

__all__ = [
    "Accuracy",
    "Column",
    "Comparison",
    "Credibility",
    "Difference",
    "Explained",
    "Finding",
    "Looks",
    "MapColumn",
    "Method",
    "PanelRow",
    "Run",
    "SaliencyMaps",
    "Table",
    "Tradeoff",
    "asked_eps",
    "basis",
    "compare",
    "credibility",
    "differences",
    "explained",
    "forget_report",
    "looks",
    "panel_rows",
    "panel_unrun",
    "panel_words",
    "read_methods",
    "robustness_curves",
    "saliency_maps",
    "score_text",
    "shown_differences",
    "tables",
    "tradeoff",
    "write_contact_sheet",
    "write_looks",
    "write_maps",
    "write_report",
]
