"""Exports of finished runs: weights, configuration, model card and digests, in a folder or on the hub."""

from .exported_run import Export, export_run
from .pushing import push_export

__all__ = ["Export", "export_run", "push_export"]
