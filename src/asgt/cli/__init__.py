"""The command line: one verb a file. Nothing heavy is imported before a verb runs."""

from .main import main

__all__ = ["main"]
