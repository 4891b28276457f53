"""Experiments: presets, their grids of methods and seeds, and the workers that run them."""

from typing import TYPE_CHECKING, Any

from .preset import Preset, load_preset, preset_names

if TYPE_CHECKING:
    from .reproduction import reproduce

__all__ = ["Preset", "load_preset", "preset_names", "reproduce"]


def __getattr__(name: str) -> Any:
    # A worker needs only its job, and asgt reproduce --help not even that.
    if name != "reproduce":
        raise AttributeError(f"module 'asgt.experiments' has no attribute {name!r}")
    from .reproduction import reproduce

    return reproduce
