"""What is known of a data set by its name: the record that each file of this package holds one of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DataSet", "Loader", "Objects"]

Loader: TypeAlias = "Callable[[], tuple[Tensor, Tensor, tuple[str, ...]]]"
"""Gives all images, uint8 (N, C, H, W), their labels, int64 (N,), and the names of the classes."""

Objects: TypeAlias = "Callable[[Tensor], Tensor | None]"
"""From images, uint8 or floats in [0, 1], (N, C, H, W), to where the object is, bool (N, H, W), or ``None``."""


@dataclass(frozen=True)
class DataSet:
    """A data set with a short name, and the defaults of training and evaluation on it.

    The defaults of the fields are those of any other data: a hub id or a folder.

    Attributes:
        name: the short name, as ``--data`` takes it.
        title: what the images are, in a few words.
        hub: the hub id that the name stands for; ``None`` for data that comes with a package.
        eps: the default radius in L∞ of adversarial training, in [0, 1].
        epsilons: the default grid of radii in L∞ of ``asgt evaluate``, as ``--epsilons`` takes it.
        augment: the default augmentation of training, by its name in ``--augment``.
        loader: gives the images of a data set that comes with a package. It imports what it needs when it is called.
            ``None``: the data is read from a folder or from the hub.
        objects: marks the object in each image, where that is known; ``None`` where it is not. It imports what it
            needs when it is called.
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
        """Whether the options of reading images apply: embedded images are used as they are."""

        return self.loader is None
