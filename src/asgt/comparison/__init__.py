"""The comparison of runs: differences, credibility, and robustness against interpretability."""

from .comparing import Column, Comparison, compare, read_methods
from .method_naming import Method

__all__ = ["Column", "Comparison", "Method", "compare", "read_methods"]
