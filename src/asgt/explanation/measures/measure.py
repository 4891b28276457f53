"""A measure of the panel: its name, its definition, the values stored for each image, and their computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from .map_batch import MapBatch

__all__ = ["NUMBER", "Kept", "Measure"]

Kept: TypeAlias = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
"""Tensors by name: their type, and their shape without its last dimension, which counts the images."""

NUMBER: tuple[torch.dtype, tuple[int, ...]] = (torch.float64, ())
"""One number per image: float64 (N,)."""


@dataclass(frozen=True)
class Measure:
    """One column of the panel.

    Attributes:
        name: as in ``"gap-mean"``.
        title: its name on pages.
        better: whether a good map has ``"more"`` or ``"less"`` of it; ``None`` for neither.
        restates: whether it partly restates robustness, in either direction, whatever the maps explain.
        definition: one sentence.
        keeps: the tensors that are stored for it. Measures may share some; no measure may use the names of
            :data:`asgt.explanation.evidence.OWN`.
        compute: from a batch of B images and their maps to all of these tensors, of which the last dimension is B.
            It is not called for a batch whose tensors another measure has computed.
        value: from these tensors to the measure of each image, float64 (N,), NaN where an image has none.
        unflipped: whether it is of those images alone whose prediction no model's own attack changes.
        grain: the least that one more right answer adds to an image's value; 0 of a measure that counts no answers.
        needs_objects: whether it needs to know where the object is: it is not run where that is not given.
        undefined: what an image lacks whose number in ``keeps`` is NaN, for the notes; ``""``: the notes do not say.
        settings: what it is computed by, in plain values. They are part of what identifies an explanation: one that was
            made with other settings is not mixed with it.
        needs_shortcut: whether it needs to know where a planted shortcut lies: it does not apply to images without one.

    Example:
        >>> import torch
        >>> from asgt import Measure
        >>> from asgt.explanation.measures import NUMBER
        >>> largest = Measure(
        ...     "largest", "largest value", None, False, "the largest value of m over its mean",
        ...     keeps={"largest": NUMBER},
        ...     compute=lambda batch: {"largest": batch.m.flatten(1).amax(dim=1) / batch.m.flatten(1).mean(dim=1)},
        ...     value=lambda values: values["largest"],
        ... )
        >>> largest.is_in({"largest": torch.ones(3)})
        True
    """

    name: str
    title: str
    better: Literal["more", "less"] | None
    restates: bool
    definition: str
    keeps: Kept = field(compare=False, repr=False)
    compute: Callable[[MapBatch], dict[str, Tensor]] = field(compare=False, repr=False)
    value: Callable[[Mapping[str, Tensor]], Tensor] = field(compare=False, repr=False)
    unflipped: bool = False
    grain: float = 0.0
    needs_objects: bool = False
    undefined: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    needs_shortcut: bool = False

    def is_in(self, values: Mapping[str, Tensor]) -> bool:
        """Whether an explanation's tensors contain it; explanations from before the measure was added do not."""

        return self.keeps.keys() <= values.keys()
