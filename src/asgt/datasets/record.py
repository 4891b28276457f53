"""The record of a data set with a short name; each file of this package has one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DataSet", "Loader", "Objects"]

Loader: TypeAlias = "Callable[[], tuple[Tensor, Tensor, tuple[str, ...]]]"
"""Returns all images, uint8 (N, C, H, W), their labels, int64 (N,), and the names of the classes."""

Objects: TypeAlias = "Callable[[Tensor], Tensor | None]"
"""From images, uint8 or floats in [0, 1], (N, C, H, W), to the mask of the object, bool (N, H, W), or ``None``."""


@dataclass(frozen=True)
class DataSet:
    """A data set with a short name, and the defaults of training and evaluation on it.

    The defaults of the fields are those of any other data: a hub id or a folder.

    Attributes:
        name: the short name, as for ``--data``.
        title: a short description of the images.
        hub: the hub id of the name; ``None`` for data that comes with a package.
        eps: the default radius in L∞ of adversarial training, in [0, 1].
        epsilons: the default grid of radii in L∞ of ``asgt evaluate``, as for ``--epsilons``.
        augment: the default augmentation of training, by its name in ``--augment``.
        loader: returns the images of a data set that comes with a package. It imports what it needs when it is called.
            ``None``: the data is read from a folder or from the hub.
        objects: marks the object in each image, if known; ``None`` if not. It imports what it needs when it is called.
    """

    name: str
    title: str = ""
    hub: str | None = None
    eps: float = 8 / 255
    epsilons: str = "1/255,2/255,4/255,8/255,12/255,16/255"
    augment: str = "none"
    loader: Loader | None = None
    objects: Objects | None = None

    @property
    def reads_options(self) -> bool:
        """Whether the options of reading images apply: embedded images are used unchanged."""

        return self.loader is None
