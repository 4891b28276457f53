"""How much a model uses a planted shortcut: its accuracy on the four test sets of the same images.

The gap is the accuracy on the images that have the shortcut of their true class, less that on the same images with the
shortcut of a wrong class. A group is a class with the shortcut of a class: the images of a class that have the shortcut
of that class are those of ``aligned``, those that have another's are those of ``reversed``. Wrong shortcuts that too
few images of a class have are one group together: without them, only images with the right shortcut would remain.
The lowest accuracy of a group says what a mean hides.

References:
    Sagawa et al. 2020, "Distributionally robust neural networks for group shifts", https://arxiv.org/abs/1911.08731
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError
from ..numbers import Number, counted, eps_text, norm_sign, points
from ..shortcuts import VIEWS, ShortcutView
from ..statistics import Estimate, PairedDifference, mcnemar, paired_bootstrap, share
from ..tabular import Table, Tabular, draw_curves
from .outcomes import Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LEAST", "Group", "Groups", "ShortcutUse", "in_points", "shortcut_use"]

LEAST = 10
"""Images of a group: wrong shortcuts of a class with fewer are joined, and what still has fewer is omitted."""


@dataclass(frozen=True)
class Group:
    """The images of a class that have the shortcut of a class.

    Attributes:
        label: the number of the class.
        code: the number of the class whose shortcut they have; ``None`` for several wrong ones together.
        name: both as text.
        accuracy: the share that is right, with Wilson's 95 % interval; ``accuracy.n`` images.
    """

    label: int
    code: int | None
    name: str
    accuracy: Estimate


@dataclass(frozen=True)
class Groups:
    """The groups of an evaluation.

    Attributes:
        groups: those with enough images, by class and shortcut; the joined ones last.
        joined: how many pairs of a class and a wrong shortcut are joined, or have no image.
        left_out: how many groups have too few images even so.
        least: images of a group that is neither joined nor omitted.
    """

    groups: tuple[Group, ...]
    joined: int
    left_out: int
    least: int

    @property
    def worst(self) -> Group:
        """The group with the lowest accuracy; of several, the first.

        Its interval is not corrected for the choice of the lowest among many.
        """

        return min(self.groups, key=lambda group: group.accuracy.value)

    @property
    def smallest(self) -> int:
        """The images of the smallest group that is not omitted."""

        return min(group.accuracy.n for group in self.groups)

    def text(self) -> str:
        """What the worst group is chosen from, as text."""

        few = f"fewer than {self.least} images"
        joined = f". The {self.joined} with a wrong shortcut and {few} are joined by class" if self.joined else ""
        fewer = f", {counted(self.left_out, 'group')} with fewer omitted" if self.left_out else ""
        return (
            f"the lowest of {counted(len(self.groups), 'group')} (class × shortcut), the smallest "
            f"with {counted(self.smallest, 'image')}{fewer}; its interval is not corrected for the choice{joined}"
        )


@dataclass(frozen=True)
class ShortcutUse(Tabular):
    """What a model does with a shortcut: one protocol on the four test sets. ``print`` shows its table.

    Attributes:
        views: the evaluation on each test set: ``"aligned"``, ``"absent"``, ``"random"`` and ``"reversed"``.

    Example:
        >>> import asgt
        >>> test = asgt.load_data("digits").test
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> views = asgt.data.shortcut_views(test, "patch:0.99,size=4")
        >>> use = asgt.shortcut_use(
        ...     asgt.evaluate(model, images[:40], "paper", epsilons=[0.1], shortcut_view=view)
        ...     for view, images in views.items()
        ... )
        >>> list(use.views), use.accuracy("reversed").n
        (['aligned', 'absent', 'random', 'reversed'], 40)
    """

    views: Mapping[ShortcutView, Evaluation]

    @property
    def shortcut(self) -> str:
        """The planted shortcut with its settings; empty if the evidence is of an earlier version, which omits it."""

        return next((each.shortcut for each in self.views.values() if each.shortcut), "")

    def accuracy(self, view: ShortcutView, eps: Number = 0) -> Estimate:
        """Accuracy on one of the test sets, with Wilson's 95 % interval.

        Args:
            view: ``"aligned"``, ``"absent"``, ``"random"`` or ``"reversed"``.
            eps: an ε of the grid. Default: without an attack.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        return self.views[view].robust_accuracy(eps)

    def lost(self, eps: Number = 0) -> Tensor:
        """What each image adds to the gap, float64 (N,).

        1 for an image that is right in ``aligned`` and wrong in ``reversed``, −1 for the contrary, else 0. The mean is
        the gap.

        Args:
            eps: as :meth:`accuracy` takes it.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        return self.views["aligned"].right(eps).double() - self.views["reversed"].right(eps).double()

    def gap(self, eps: Number = 0) -> PairedDifference:
        """Accuracy on ``aligned`` less that on ``reversed``, paired on the same images.

        Args:
            eps: as :meth:`accuracy` takes it.

        Returns:
            The gap in [-1, 1], with the paired bootstrap's 95 % interval and McNemar's exact p. It is of this model
            alone, and says nothing about other runs of its method.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        aligned, wrong = (self.views[view].right(eps) for view in ("aligned", "reversed"))
        only, other = int((aligned & ~wrong).sum()), int((wrong & ~aligned).sum())
        low, high = paired_bootstrap(aligned, wrong)
        p, n = mcnemar(only, other), len(aligned)
        return PairedDifference(
            "aligned", "reversed", "models", (only - other) / n, low, high, p=p, adjusted=p, claims=1, seeds=(), n=n
        )

    def groups(self, eps: Number = 0, least: int = LEAST) -> Groups | None:
        """Accuracy of each class with the shortcut of each class.

        Args:
            eps: as :meth:`accuracy` takes it.
            least: images of a group. Of a class, wrong shortcuts with fewer are one group together; a group that still
                has fewer is omitted.

        Returns:
            The groups; ``None`` where no group has so many images, and where the evidence does not say which shortcut
            an image has, as that of earlier versions.

        Raises:
            InputError: the evaluations hold no such ε.
        """

        aligned, wrong = self.views["aligned"], self.views["reversed"]
        if aligned.labels is None or aligned.shortcut_codes is None or wrong.shortcut_codes is None:
            return None
        names, right = aligned.class_names, torch.cat([aligned.right(eps), wrong.right(eps)])
        classes, labels = len(names), torch.cat([aligned.labels, aligned.labels])
        codes = torch.cat([aligned.shortcut_codes, wrong.shortcut_codes])
        # Pairs of class and shortcut; behind them, for each class, its wrong shortcuts that few images have.
        pairs = labels * classes + codes
        few = (pairs.bincount(minlength=classes * classes) < least).reshape(classes, classes).fill_diagonal_(False)
        place = torch.where(few.flatten()[pairs], classes * classes + labels, pairs)
        counts = place.bincount(minlength=classes * (classes + 1)).tolist()
        rights = place[right].bincount(minlength=classes * (classes + 1)).tolist()
        found = [(number, count) for number, count in enumerate(counts) if count]
        groups = tuple(_group(number, names, share(rights[number], count)) for number, count in found if count >= least)
        return Groups(groups, int(few.sum()), len(found) - len(groups), least) if groups else None

    def table(self) -> Table:
        """A row for each ε: accuracy on each test set, the gap in points, and the worst group."""

        one = self.views["absent"]
        rows, groups = [], self.groups()
        for eps in (0.0, *one.epsilons):
            gap, found = self.gap(eps), self.groups(eps)
            cells = [self.accuracy(view, eps).percent() for view in VIEWS]
            worst = "–" if found is None else found.worst.accuracy.percent()
            rows.append([eps_text(eps) if eps else "0", *cells, in_points(gap), worst])
        return Table(
            f"accuracy % [Wilson 95 %] on the four test sets · protocol {one.protocol.name} v{one.protocol.version} "
            f"({one.protocol.claim}) · {norm_sign(one.norm)} · n = {one.samples} images in each · one model"
            + (f" · shortcut {self.shortcut}" if self.shortcut else ""),
            ["ε", *VIEWS, "gap, points", "worst group"],
            rows,
            [
                "gap: aligned less reversed, paired on the same images, [bootstrap 95 %]",
                "worst group: not known, the evidence does not say which shortcut an image has, or no group has "
                f"{LEAST} images"
                if groups is None
                else f"worst group: {groups.text()}",
            ],
        )

    def plot(self, axes: Axes | None = None, *, label: str = "") -> Axes:
        """Draws accuracy over ε, a curve with its band for each test set.

        Args:
            axes: matplotlib axes to draw on, also those of another result. Default: those of a new figure.
            label: what comes before the names of the curves.
        """

        one = self.views["absent"]
        curves: dict[str, dict[float, Estimate]] = {
            view: {eps: self.accuracy(view, eps) for eps in (0.0, *one.epsilons)} for view in VIEWS
        }
        return draw_curves(
            curves,
            axes,
            title=f"protocol {one.protocol.name} v{one.protocol.version}, n = {one.samples}",
            x_label=f"ε ({norm_sign(one.norm)}, pixels in [0, 1])",
            label=label,
        )


def shortcut_use(evaluations: Iterable[Evaluation]) -> ShortcutUse:
    """What a model does with a shortcut, from its evaluations on the four test sets.

    Args:
        evaluations: one on each of :func:`asgt.data.shortcut_views`, which differ in nothing else. Each says which it
            is (``shortcut_view``); one on images as they are is the one on ``"absent"``.

    Returns:
        Accuracies, the gap, and the worst group.

    Raises:
        InputError: one of the test sets is missing or there twice; or the evaluations are of several models,
            protocols, ε, images or shortcuts.

    Example:
        >>> import asgt
        >>> test = asgt.load_data("digits").test
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> views = asgt.data.shortcut_views(test, "patch:0.99,size=4")
        >>> use = asgt.shortcut_use(
        ...     asgt.evaluate(model, images[:40], epsilons=[0.1], shortcut_view=view) for view, images in views.items()
        ... )
        >>> use.gap().n, use.gap().low <= use.gap().value <= use.gap().high
        (40, True)
    """

    by_view: dict[str, Evaluation] = {}
    for evaluation in evaluations:
        view = evaluation.shortcut_view or "absent"
        if view in by_view:
            raise InputError(f"two evaluations are of the test set {view}: omit one")
        by_view[view] = evaluation
    if lacking := [view for view in VIEWS if view not in by_view]:
        raise InputError(
            f"no evaluation with the shortcut {' and '.join(lacking)}: asgt evaluate RUN --shortcut-view all makes all "
            f"{len(VIEWS)}"
        )
    told = {
        view: (each.model, each.protocol.identity, each.norm, each.epsilons, each.seed, each.samples)
        for view, each in by_view.items()
    }
    planted = sorted({each.shortcut for each in by_view.values() if each.shortcut})
    if len(planted) > 1:
        raise InputError(f"the evaluations have different shortcuts, {' and '.join(planted)}: one in all is needed")
    labels = [each.labels for each in by_view.values() if each.labels is not None]
    alike = all(each.shape == labels[0].shape and bool((each == labels[0]).all()) for each in labels)
    if len(set(told.values())) > 1 or not alike:
        raise InputError(
            "the evaluations with and without the shortcut differ in more than it: the same model, images, protocol, "
            "eps and seed are needed"
        )
    return ShortcutUse({view: by_view[view] for view in VIEWS})


def in_points(difference: PairedDifference) -> str:
    """A difference of shares in points, with its interval: ``+12.0 [8.5, 15.0]``."""

    return f"{points(difference.value, '+')} [{points(difference.low)}, {points(difference.high)}]"


def _group(number: int, names: Sequence[str], accuracy: Estimate) -> Group:
    """The group of a number: of K classes, class · K + shortcut, and from K² on the joined one of each class."""

    classes = len(names)
    if number >= classes * classes:
        label = number - classes * classes
        return Group(label, None, f"class {names[label]} with another of its wrong shortcuts", accuracy)
    label, code = divmod(number, classes)
    return Group(label, code, f"class {names[label]} with the shortcut of {names[code]}", accuracy)
