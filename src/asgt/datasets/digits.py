"""scikit-learn's handwritten digits: 1,797 real grey images of 8×8 pixels, which come with the package.

References:
    Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", https://doi.org/10.24432/C50P49
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .record import DataSet

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DIGITS"]


def _load() -> tuple[Tensor, Tensor, tuple[str, ...]]:
    import numpy as np
    import torch
    from sklearn.datasets import load_digits

    data = load_digits()
    # 17 levels of ink, 0 to 16.
    pixels = torch.from_numpy(np.rint(data.images * (255 / 16)).astype(np.uint8)).unsqueeze(1)
    return pixels, torch.from_numpy(data.target.astype(np.int64)), tuple(str(n) for n in range(10))


DIGITS = DataSet(
    "digits",
    title="8×8 grey images of digits that come with scikit-learn",
    eps=0.1,
    epsilons="0.05,0.1,0.15,0.2,0.25,0.3",
    loader=_load,
)
