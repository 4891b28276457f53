r"""The base of all objectives: views of the batch, terms of the loss, and the call that combines them.

A method is *attack* × *mask* × *terms*. :meth:`Objective.views` perturbs the batch, with the model in evaluation mode;
the model, in the mode that it was in, maps each view to logits; :meth:`Objective.terms` makes the loss of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...attacks import Attack
from ...attacks.attack import check_radii, refuse_targeted
from ...errors import InputError
from ...inputs import checked, checked_targets, is_trusted, labels_explained, trusted
from ...modes import Classifier, ask
from ...numbers import Number, number
from ...passes import Shared, a_pass, modes_agree, slopes_needed
from ...randomness import Generator, Generators

__all__ = ["KL", "Objective", "Output", "check_weights", "consistency", "kl_divergence"]

KL: TypeAlias = Literal["forward", "reverse"]


@dataclass(frozen=True)
class Output:
    """The output of an objective.

    Attributes:
        loss: the sum of the terms, a scalar to call ``backward()`` on.
        terms: each term by its name, weighted as it enters the loss.
        logits: the logits (B, K) of each view by its name: ``clean``, ``adversarial``, ``masked``.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> out = asgt.AT(attack=asgt.FGSM(eps=0.1))(model, x, y)
        >>> out.loss.ndim, out.logits["adversarial"].shape
        (0, torch.Size([4, 10]))
    """

    loss: Tensor
    terms: dict[str, Tensor]
    logits: dict[str, Tensor]


class Objective(ABC):
    """A training method: ``objective(model, x, y).loss.backward()`` in any training loop.

    Your own method implements :meth:`views` and :meth:`terms`. The call is the same for all methods.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> import asgt
        >>> from asgt.passes import cross_entropy
        >>> @dataclass(frozen=True)
        ... class Noisy(asgt.Objective):
        ...     sigma: float = 0.1
        ...     def views(self, model, x, y, eps, generators):
        ...         return {"noisy": (x + self.sigma * torch.randn_like(x)).clamp(0, 1)}
        ...     def terms(self, logits, y):
        ...         return {"noisy": cross_entropy(logits["noisy"], y)}
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10)
        >>> out = Noisy()(model, torch.rand(4, 1, 8, 8), torch.randint(10, (4,)))
        >>> out.loss.shape, out.logits["noisy"].shape
        (torch.Size([]), torch.Size([4, 10]))
    """

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        *,
        eps: Number | Tensor | None = None,
        generator: Generator | Generators | None = None,
        forward: Classifier | None = None,
        targets: Tensor | None = None,
        shortcut: Tensor | None = None,
    ) -> Output:
        """The loss of a batch.

        Args:
            model: the classifier, images (B, C, H, W) in [0, 1] to logits (B, K). Attacks and saliency see it in
                evaluation mode; the loss sees it in the mode that it is in.
            x: images (B, C, H, W) in [0, 1], as a tensor or a numpy array.
            y: labels (B,) of any integer type, or class probabilities (B, K), as mixup gives them.
            eps: a radius that overrides the attack's own, for a ramp. Default: the attack's.
            generator: the source of random starts and fills: one generator for both, or :class:`Generators` with a
                stream for each. Default: PyTorch's global generator.
            forward: the module for the forward passes of the loss, if it is not the model: a wrapper that
                synchronises several processes. Attacks and saliency use the model.
            targets: the targets of the loss's terms: labels (B,), probabilities (B, K), or probabilities times a weight
                of each image, as :mod:`asgt.training.targets` makes them. Attacks and saliency use ``y``. Default:
                ``y``.
            shortcut: the mask of each image's shortcut, bool (B, H, W), for a method that needs it
                (:attr:`needs_shortcut`).

        Returns:
            The loss, its terms and the logits of each view.

        Raises:
            InputError: images, labels, targets, ε or the shortcut's mask are invalid, or the model does not return
                logits (B, K).
        """

        if not isinstance(generator, Generators):
            generator = Generators(attack=generator, mask=generator)
        radius = eps if eps is None or isinstance(eps, Tensor) else number(eps, "eps")
        refuse_targeted(self.adversary, "training")
        if is_trusted():
            return self._loss(model, x, y, radius, generator, forward, **_given(targets=targets, shortcut=shortcut))
        x, y = checked(x, y)
        if len(x) == 0:
            raise InputError("x holds no images: pass at least one")
        targets = None if targets is None else checked_targets(targets, len(x)).to(x.device)
        shortcut = self._checked_mask(shortcut, x)
        if isinstance(radius, Tensor):
            check_radii(radius, len(x), "linf" if self.adversary is None else self.adversary.norm)
        with trusted(), labels_explained(model, x, y), slopes_needed():
            return self._loss(model, x, y, radius, generator, forward, **_given(targets=targets, shortcut=shortcut))

    def _loss(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        eps: float | Tensor | None,
        generators: Generators,
        forward: Classifier | None,
        *,
        targets: Tensor | None = None,
        shortcut: Tensor | None = None,
    ) -> Output:
        """The loss of images, labels, targets and masks that are known to fit each other."""

        forward = model if forward is None else forward
        if shortcut is not None:
            x = x.detach().requires_grad_()
        # Images that want a gradient of their own get it from a forward pass of their own.
        if isinstance(model, nn.Module) and modes_agree(model) and not x.requires_grad:
            # An attack's backward pass is that of the labels; a loss of targets needs one of its own.
            model = Shared(model, forward, x, self.clean_alone, learns=targets is None)
            forward = model.logits
        views = self.views(model, x, y, eps, generators)
        with a_pass():
            logits = {name: ask(forward, view) for name, view in views.items()}
        if targets is not None and targets.ndim == 2:
            _refuse_other_classes(logits, targets)
        terms = self.terms(logits, y if targets is None else targets)
        if shortcut is not None:
            terms |= self.penalties(x, logits, shortcut)

        return Output(sum(terms.values(), start=x.new_zeros(())), terms, logits)

    @abstractmethod
    def views(
        self, model: Classifier, x: Tensor, y: Tensor, eps: float | Tensor | None, generators: Generators
    ) -> dict[str, Tensor]:
        """The views of the batch that the loss needs, each of the shape of ``x``, detached."""

    @abstractmethod
    def terms(self, logits: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
        """The terms of the loss, scalars, from the logits (B, K) of the views."""

    @property
    def needs_shortcut(self) -> bool:
        """Whether the method needs the mask of each image's shortcut."""

        return False

    def penalties(self, x: Tensor, logits: Mapping[str, Tensor], shortcut: Tensor) -> dict[str, Tensor]:
        """Additional terms of the loss for a method that gets the shortcut's mask.

        Args:
            x: the images (B, C, H, W), from which gradients flow to the logits.
            logits: (B, K) of each view.
            shortcut: its mask, bool (B, H, W).
        """

        return {}

    def _checked_mask(self, shortcut: Tensor | None, x: Tensor) -> Tensor | None:
        """The mask of the shortcut on the device of the images.

        Raises:
            InputError: it is missing or not of the images, or the method does not listen to it.
        """

        name = type(self).__name__
        if shortcut is None:
            if self.needs_shortcut:
                raise InputError(f"{name} needs the mask of the shortcut: pass shortcut=mask, bool (B, H, W)")
            return None
        if not self.needs_shortcut:
            raise InputError(f"shortcut: {name} does not use the mask of a shortcut, remove it")
        expected = (len(x), *x.shape[2:])
        if not isinstance(shortcut, Tensor) or shortcut.dtype != torch.bool or tuple(shortcut.shape) != expected:
            raise InputError(
                f"shortcut: pass a mask of the images, bool {expected}, such as PlantedPixels.masks returns"
            )
        return shortcut.to(x.device)

    @property
    def clean_alone(self) -> bool:
        """Whether the clean logits are used only in the cross-entropy. It changes only the cost of a step."""

        return False

    @property
    def adversary(self) -> Attack | None:
        """The attack that the method trains against; ``None`` without one."""

        return getattr(self, "attack", None)


def _given(**arguments: Tensor | None) -> dict[str, Tensor]:
    """Those arguments that there are: a subclass's own ``_loss`` may know of none."""

    return {name: value for name, value in arguments.items() if value is not None}


def _refuse_other_classes(logits: Mapping[str, Tensor], targets: Tensor) -> None:
    """Refuses targets (B, K) of another number of classes than the model has logits.

    Raises:
        InputError: it says both.
    """

    for each in logits.values():
        if each.shape[1] != targets.shape[1]:
            raise InputError(
                f"targets has {targets.shape[1]} classes, the model {each.shape[1]} logits: label smoothing and class "
                "weights need as many logits as classes"
            )


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    r"""The batch mean of :math:`D_{KL}(p \| q)` between the distributions of two sets of logits (B, K).

    Gradients flow through both sides.
    """

    log_p, log_q = F.log_softmax(p, dim=1), F.log_softmax(q, dim=1)
    # A class masked out by minus infinity has p = 0 and adds nothing, where 0 · (−∞ + ∞) would be NaN.
    masked = log_p.isneginf()
    log_p, log_q = log_p.masked_fill(masked, 0.0), log_q.masked_fill(masked, 0.0)
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def consistency(masked: Tensor, clean: Tensor, kl: KL, detach_clean: bool) -> Tensor:
    """The divergence between masked and clean logits (B, K): D(masked ‖ clean), or the other way round."""

    if detach_clean:
        clean = clean.detach()
    return kl_divergence(masked, clean) if kl == "forward" else kl_divergence(clean, masked)


def check_weights(**weights: float) -> None:
    """Refuses a weight that is negative or not finite.

    Raises:
        InputError: naming the weight.
    """

    for name, value in weights.items():
        if not 0 <= value < float("inf"):
            raise InputError(f"{name} = {value}: give a finite number, zero or more")
