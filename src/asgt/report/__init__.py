"""Reports: figures, and later the page that they stand on."""

from .curves import robustness_curves

__all__ = ["robustness_curves"]
