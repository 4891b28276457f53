"""The base of all attributions: from a batch to signed maps, with checks of the model's outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..modes import Classifier, ask
from ..numbers import plain_fields
from ..randomness import SampleKeyed
from .gradient import Target

__all__ = ["Attribution", "Watched", "score"]


class Watched(nn.Module):
    """A classifier whose logits are checked at each pass, and that records the images with NaN outputs.

    A rectifier stops a NaN on its way back, so the gradient of such an image could be zero.

    Args:
        model: inputs (B, …) to logits (B, K).
        classes: a lower bound of the number of classes, from the labels.
        owned: whether images with a graph are copies that the model may change. Another library may use its images
            again.
    """

    asks_by_itself = True

    def __init__(self, model: Classifier, classes: int, owned: bool = False) -> None:
        super().__init__()
        self.model = model
        self.classes, self.owned = classes, owned
        self._nan: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        logits = ask(self.model, x, owned=self.owned and x.requires_grad, least=1)
        if self.classes > logits.shape[1]:
            raise InputError(f"label {self.classes - 1} for a model of {logits.shape[1]} classes: labels start at 0")

        self._nan.append(logits.detach().isnan().any(dim=1))
        # The sum of no elements: logits that ignore their input get the gradient zero, where autograd finds no path.
        return logits + x.flatten(1)[:, :0].sum(dim=1, keepdim=True)

    def nan(self, count: int) -> Tensor:
        """Which of the ``count`` images since the last call got a NaN, in any of their copies, bool."""

        if not self._nan:  # an attribution that does not ask the model
            return torch.zeros(count, dtype=torch.bool)
        nan = torch.cat(self._nan).view(-1, count).any(dim=0)
        self._nan.clear()
        return nan


@dataclass(frozen=True)
class Attribution(ABC):
    """A way to compute a saliency map: a frozen dataclass whose fields are its settings.

    Fields are plain values, as JSON holds them. An attribution of a layer has a field ``layer``, the dotted name of a
    module or ``None``: ``--layer`` sets it.

    Attributes:
        draws_noise: whether it uses a generator.
        package: the package that computes it, whose version is part of the record; ``""`` for asgt.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> import asgt
        >>> from asgt.saliency import saliency
        >>> @dataclass(frozen=True)
        ... class Squared(asgt.Attribution):
        ...     def maps(self, model, x, y, *, target, generator, batch_size):
        ...         gradient = saliency(model, x, y, target)
        ...         return gradient * gradient.abs()
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> asgt.attribute(model, torch.rand(4, 1, 8, 8), None, Squared()).shape
        torch.Size([4, 1, 8, 8])
    """

    draws_noise: ClassVar[bool] = False
    package: ClassVar[str] = ""

    def __post_init__(self) -> None:
        plain_fields(self)

    @classmethod
    def looks_at_layer(cls) -> bool:
        """Whether it uses a layer of the model, which must be an ``nn.Module``: it has a field ``layer``."""

        return any(field.name == "layer" for field in fields(cls))

    def resolved(self, model: Classifier) -> Attribution:
        """The same attribution with all settings that depend on ``model`` filled in, for the record.

        Raises:
            InputError: it does not suit the model.
        """

        return self

    @abstractmethod
    def maps(
        self, model: Watched, x: Tensor, y: Tensor, *, target: Target, generator: SampleKeyed | None, batch_size: int
    ) -> Tensor:
        """The signed maps of one batch, detached.

        Args:
            model: in evaluation mode.
            x: images (B, C, H, W), at most ``batch_size``. Copies of them go through the model in groups of B.
            y: labels (B,), int64.
            target: the score that is explained.
            generator: keyed noise of these images, for those that draw.
            batch_size: images per pass.
        """


def score(model: Watched, target: Target) -> nn.Module:
    """The function that a library's method differentiates at the label: the logits, or their log-softmax."""

    return model if target == "logit" else nn.Sequential(model, nn.LogSoftmax(dim=1))
