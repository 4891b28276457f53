"""One model explained on some images: its maps, and what every measure says of each of them."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from ..attacks import Norm
from ..data import Images
from ..progress import SILENT, Progress
from .result import Explanation

__all__ = ["explain"]


def explain(
    model: nn.Module,
    images: Images,
    *,
    eps: float,
    norm: Norm = "linf",
    attribution: str = "gradient",
    layer: str | None = None,
    objects: Tensor | None = None,
    ids: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 64,
    folder: Path | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Explanation:
    """Measures the maps of a classifier on some images, right or wrong.

    Args:
        folder: the explanation's own, as ``RUN/explanation/gradient``.
    """

    raise NotImplementedError
