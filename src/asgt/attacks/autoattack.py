r"""AutoAttack from its authors' package, so that its numbers can be compared across papers.

The whole ensemble is one call at one ε. A curve over many ε calls its parts instead, in the order of the ensemble,
and two of them need fewer calls than one for each ε:

- FAB-T finds the nearest adversarial image on the way to each target. Without restarts it draws no random numbers,
  and ε is only compared with its norms at the end: one run is enough for every ε.
- Square in L∞ moves squares of pixels from one face of the ball to the other, :math:`\delta_i \in \{-\epsilon,
  \epsilon\}`, and then back into the box. So it walks on :math:`z \in \{0, 1\}`, with :math:`X' = \mathrm{clip}_{[0,
  1]}(X + 2 \epsilon (z - \tfrac12))`, and on z samples of different ε share a run.

References:
    Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks", https://arxiv.org/abs/2003.01690
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from ..errors import InputError
from ..modes import Classifier, ask
from .attack import delta_norm, per_sample
from .whole import Whole

__all__ = ["AutoAttack", "Part"]

Part: TypeAlias = Literal["whole", "apgd", "fab-t", "square"]

_TITLES = {
    "whole": "AutoAttack",
    "apgd": "AutoAttack's APGD",
    "fab-t": "AutoAttack's FAB-T",
    "square": "AutoAttack's Square",
}


@dataclass(frozen=True)
class AutoAttack(Whole):
    """AutoAttack by ``pyautoattack``: APGD-CE, APGD-T, FAB-T and Square, in L∞ or L2.

    Below ten classes APGD-T and FAB-T aim at all wrong ones. Below four there is no targeted DLR loss, and below three
    none at all: the ensemble is then APGD-CE, with three classes APGD-DLR, FAB-T and Square.

    Args:
        eps: the radius in [0, 1].
        norm: ``"linf"`` or ``"l2"``.
        part: ``"whole"`` (default), or one of its parts alone: ``"apgd"`` (both of them), ``"fab-t"`` or ``"square"``.
        targeted: refused, as there is no targeted form of it here.

    Raises:
        InputError: a setting or an input is invalid, or ``pyautoattack`` is not installed (``pip install
            'asgt[autoattack]'``).

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> x_adv = asgt.AutoAttack(eps=0.1, part="square")(model, x, y)
        >>> x_adv.shape
        torch.Size([4, 1, 8, 8])

    References:
        Croce & Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", https://arxiv.org/abs/2003.01690
    """

    part: Part = field(default="whole", kw_only=True)

    @property
    def title(self) -> str:
        return _TITLES[self.part]

    @property
    def mixes(self) -> bool:
        return self.part == "fab-t" or (self.part == "square" and self.norm == "linf")

    @property
    def asks_eps(self) -> bool:
        return self.part != "fab-t"

    @property
    def least_classes(self) -> int:
        """Four: below that the ensemble differs from the authors' version."""

        return 4

    @property
    def group(self) -> str:
        return "AutoAttack"

    def described(self, count: int = 1) -> str:
        if count == 1 and self.part != "whole":
            return f"{self.title} (its authors' package)"
        return (
            "AutoAttack (its authors' package, whole: APGD and Square at the ε just below what is known to break a "
            "sample, and further down as long as they succeed; FAB-T, which asks for no ε, once)"
        )

    def perturbed(self, model: Classifier, x: Tensor, y: Tensor, eps: Tensor, seed: int) -> Tensor:
        with torch.no_grad():
            classes = ask(model, x[:1]).shape[1]
        dlr = {2: [], 3: ["apgd-dlr"]}.get(classes, ["apgd-t"])
        parts = {"whole": ["apgd-ce", *dlr, "fab-t", "square"], "apgd": ["apgd-ce", *dlr]}
        ensemble = self._ensemble(model, x, float(eps[0]), seed, parts.get(self.part, [self.part]))
        # As their standard version has them, with as many targets as there are.
        ensemble.apgd.n_restarts = ensemble.apgd_targeted.n_restarts = ensemble.fab.n_restarts = 1
        ensemble.apgd_targeted.n_target_classes = ensemble.fab.n_target_classes = min(9, classes - 1)

        if self.part == "fab-t":
            return _nearest(ensemble.fab, x.float(), y, eps, self.norm)
        if self.mixes:
            return _on_the_faces(ensemble.square, x.float(), y, eps)
        # What it warns of are checks of ours, with evidence.
        log = logging.getLogger("auto-attack")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            x_adv: Tensor = ensemble.run_standard_evaluation(x.float(), y, batch_size=len(x))[0]
        finally:
            log.setLevel(level)
        return x_adv

    def _ensemble(self, model: Classifier, x: Tensor, eps: float, seed: int, parts: list[str]) -> Any:
        """The authors' object, for a batch like ``x``."""

        try:
            from pyautoattack import AutoAttack as Authors
        except ImportError as error:
            raise InputError("AutoAttack needs its authors' package: pip install 'asgt[autoattack]'") from error

        def asked(images: Tensor) -> Tensor:  # their package computes in float32
            return ask(model, images.to(x.dtype)).float()

        norm = {"linf": "Linf", "l2": "L2"}[self.norm]
        return Authors(asked, attacks=parts, version="custom", eps=eps, norm=norm, seed=seed, device=x.device)


@torch.no_grad()
def _nearest(fab: Any, x: Tensor, y: Tensor, eps: Tensor, norm: Literal["linf", "l2"]) -> Tensor:
    """The nearest images (B, C, H, W) within ε that FAB finds on the way to any target; else those themselves."""

    nearest, least = x.clone(), torch.full_like(eps, torch.inf)
    for target in range(2, fab.n_target_classes + 2):
        fab.target_class = target
        candidate = fab.attack_single_run(x, y, is_targeted=True)
        # It answers with the image itself where it finds nothing.
        length = delta_norm(candidate - x, norm).to(eps)
        nearer = (length > 0) & (length <= eps) & (length < least)
        nearest, least = torch.where(per_sample(nearer, x), candidate, nearest), torch.where(nearer, length, least)
    return nearest


@torch.no_grad()
def _on_the_faces(square: Any, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    """What Square finds for each image (B, C, H, W) within a radius of its own, (B,), in one run on the faces z."""

    radius, theirs = per_sample(eps.to(x), x), square.margin_and_loss

    def image(z: Tensor, rows: Tensor) -> Tensor:
        return (x[rows] + 2 * radius[rows] * (z - 0.5)).clamp(0, 1)

    # It keeps those that are not fooled yet, and their labels: these tell which they are.
    square.margin_and_loss = lambda z, rows: theirs(image(z, rows), y[rows])
    centre, rows = torch.full_like(x, 0.5), torch.arange(len(x), device=x.device)
    square.eps = 0.5
    square.init_hyperparam(centre)
    z: Tensor = square.attack_single_run(centre, rows)[1]
    return image(z, rows)
