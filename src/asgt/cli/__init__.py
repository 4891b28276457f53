"""The command line: one verb a file. Nothing heavy is imported before a verb runs."""

from .entry import main, process

__all__ = ["main", "process"]
