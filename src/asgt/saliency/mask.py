r"""The mask of saliency-guided training: a score and a fill.

.. math:: \tilde X = M_k \big( X, S(\nabla_X f_y(X)) \big)

S sorts the features by their gradient and M replaces the k lowest with random values within the sample's own range
(paper, equation 3 and Algorithm 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Literal

from torch import Tensor

from ..errors import InputError
from ..inputs import checked, is_trusted, labels_explained, trusted
from ..modes import Classifier
from ..numbers import plain_fields
from ..randomness import Generator, uniform_like
from .gradient import Target, saliency

__all__ = ["SaliencyMask"]


@dataclass(frozen=True)
class SaliencyMask:
    """Fills each sample's least salient features.

    A feature is a pixel, shared by its channels. Exactly ``max(1, floor(k·n))`` of a sample's n features are filled.

    Two controls isolate what the saliency adds: ``rank="random"`` fills the same number of random features, and
    ``k=0`` fills none.

    Args:
        k: the share of the features to fill, in [0, 1]. The paper fine-tunes it to 0.1 and draws 0.1 to 0.5. With 0,
            the images are unchanged, and the other settings have no effect.
        target: the function of the gradient, ``"logit"`` or ``"log_prob"``.
        rank: ``"magnitude"`` (default) orders by the channel mean of |∇|, the paper's "gradient values close to zero";
            ``"signed"`` by the signed channel mean, as the original code does, which fills the most negative first;
            ``"random"`` draws a new order for each sample, without a gradient.
        unit: ``"pixel"`` (default) ranks pixels; ``"element"`` ranks every value separately, for inputs of any shape.
        fill: ``"uniform"`` (default) draws within the sample's range, per channel; ``"mean"`` takes the sample's mean,
            per channel; ``"zero"`` takes 0.

    Raises:
        InputError: ``k`` is not in [0, 1], or an option is unknown.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> masked = asgt.SaliencyMask(k=0.5, fill="zero")(model, x, y)
        >>> masked.shape, int((masked == 0).sum())
        (torch.Size([4, 1, 8, 8]), 128)

    References:
        Ismail et al. 2021, "Improving deep learning interpretability by saliency guided training",
        https://arxiv.org/abs/2111.14338
    """

    k: float
    target: Target = "logit"
    rank: Literal["magnitude", "signed", "random"] = "magnitude"
    unit: Literal["pixel", "element"] = "pixel"
    fill: Literal["uniform", "mean", "zero"] = "uniform"

    def __post_init__(self) -> None:
        plain_fields(self)
        if not 0 <= self.k <= 1:
            raise InputError(f"k = {self.k}: the share of masked features lies in [0, 1]; 0 masks none")

    def __call__(self, model: Classifier, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Masks a batch according to its saliency under ``model``.

        Args:
            model: the classifier, inputs to logits (B, K); run in evaluation mode, with modes restored.
            x: images (B, C, H, W), or with ``unit="element"`` inputs (B, …).
            y: labels (B,), int64.
            generator: the source of a random order and then of the uniform fill. Default: PyTorch's global generator.

        Returns:
            The masked inputs, detached, of the shape of ``x``.
        """

        if is_trusted():
            return self._masked(model, x, y, generator)
        x, y = checked(x, y)
        with trusted(), labels_explained(model, x, y):
            return self._masked(model, x, y, generator)

    def _masked(self, model: Classifier, x: Tensor, y: Tensor, generator: Generator | None) -> Tensor:
        if self.k == 0:
            return x.detach()
        return self.apply(x, self.scores(model, x, y, generator=generator), generator=generator)

    def scores(self, model: Classifier, x: Tensor, y: Tensor, *, generator: Generator | None = None) -> Tensor:
        """The score of each feature, (B, n), the lowest of which are masked; n is H·W, or all elements by ``unit``.

        A random rank draws them from the generator.
        """

        if self.rank == "random":
            return uniform_like(x.new_empty(len(x), self._by_feature(x[:1]).shape[1]), generator)
        return self.scores_of(saliency(model, x, y, self.target))

    def scores_of(self, gradient: Tensor) -> Tensor:
        """The scores (B, n) from an existing gradient (B, C, H, W).

        Raises:
            InputError: the rank is random, so it does not depend on a gradient.
        """

        if self.rank == "random":
            raise InputError("rank = 'random' does not use a gradient: call the mask, or its scores()")
        return self._by_feature(gradient.abs() if self.rank == "magnitude" else gradient)

    def _by_feature(self, values: Tensor) -> Tensor:
        """One number for each feature (B, n): the mean over a pixel's channels, or each value by itself."""

        if self.unit == "element":
            return values.flatten(1)
        if values.ndim < 3:
            raise InputError(f"inputs of shape {tuple(values.shape)} have no pixels: use unit='element'")
        return values.mean(dim=1).flatten(1)

    def apply(self, x: Tensor, scores: Tensor, *, generator: Generator | None = None) -> Tensor:
        """Fills the features of lowest score, given ``scores`` (B, n); no gradient flows through the choice.

        The generator draws (B, C, k) values, or (B, k) for elements, those of the lowest feature first.
        """

        x = x.detach()
        if self.k == 0:
            return x
        features = scores.shape[1]
        # 0.29 · 100 is 28.999… in floating point; the guard is far below one feature.
        count = max(1, floor(self.k * features + 1e-9))

        # Indices, not a threshold: ties never mask more than their share. Sorted, so that each has its own noise.
        hidden = scores.topk(count, dim=1, largest=False).indices
        if self.unit == "element":
            return x.flatten(1).scatter(1, hidden, self._values(x, hidden, generator)).view_as(x)
        hidden = hidden[:, None].expand(-1, x.shape[1], -1)
        return x.flatten(2).scatter(2, hidden, self._values(x, hidden, generator)).view_as(x)

    def _values(self, x: Tensor, hidden: Tensor, generator: Generator | None) -> Tensor:
        """What takes the place of the features ``hidden``, of its shape: (B, k), or (B, C, k) of pixels."""

        def of_hidden(statistic: Tensor) -> Tensor:
            if hidden.ndim == 3:
                return statistic.flatten(2)
            return statistic.expand_as(x).flatten(1).gather(1, hidden)

        # Per channel where there are channels with an extent; a flat input (B, D) is one channel.
        within = tuple(range(2, x.ndim)) if x.ndim > 2 else (1,)
        if self.fill == "zero":
            return x.new_zeros(()).expand_as(hidden)
        if self.fill == "mean":
            return of_hidden(x.mean(dim=within, keepdim=True)).expand_as(hidden)

        # Only for what is filled: noise for every feature would cost more than all else here.
        noise = uniform_like(x.new_empty(hidden.shape), generator)
        low, high = of_hidden(x.amin(dim=within, keepdim=True)), of_hidden(x.amax(dim=within, keepdim=True))
        return low + (high - low) * noise
