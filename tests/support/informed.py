"""What methods are told beside images and labels: where the shortcut lies, for one that needs to know."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asgt.training.objectives import Objective

__all__ = ["shortcut_for", "told"]


def told(objective: Objective, x: Tensor) -> dict[str, Any]:
    """The arguments of a method for images (B, C, H, W): a mask of their upper left quarter where it needs one."""

    mask = torch.zeros(len(x), *x.shape[2:], dtype=torch.bool)
    mask[:, : x.shape[2] // 2, : x.shape[3] // 2] = True
    return {"shortcut": mask} if objective.needs_shortcut else {}


def shortcut_for(method: str) -> dict[str, Any]:
    """The settings of a training that a method cannot do without."""

    return {"shortcut": "patch:0.9,size=2"} if method == "rrr" else {}
