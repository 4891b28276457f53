"""A finished run as something to hand on: weights, configuration, model card and digests, here or on the hub."""

from .exported_run import Export, export_run
from .pushing import push_export

__all__ = ["Export", "export_run", "push_export"]
