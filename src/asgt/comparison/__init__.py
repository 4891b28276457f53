"""Runs side by side: differences, credibility, and robustness beside interpretability."""

from .comparing import Accuracy, Column, Comparison, Method, compare, read_methods

__all__ = ["Accuracy", "Column", "Comparison", "Method", "compare", "read_methods"]
