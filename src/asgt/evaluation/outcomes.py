"""The outcomes of an evaluation: one bool per sample and ε, from which all numbers and intervals are computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isclose
from typing import Any

from torch import Tensor

from ..attacks import Norm, check_eps
from ..errors import InputError
from ..files import digest_tensors, package_versions
from ..numbers import Number, eps_text, number
from ..statistics import Estimate, clopper_pearson, share
from .by_class import ByClass, by_class, told_by_class
from .check import Check
from .discard_audit import Discards
from .display import Displayed
from .known import CLEAN, MARGIN, NOTHING
from .probing import PRESS_STEPS, PROBE_STEPS
from .protocols import Protocol, Search
from .recorded import record_of
from .trace import Trace

__all__ = [
    "CODES",
    "CONFIDENCE",
    "MOST_EPSILONS",
    "SCHEMA",
    "Evaluation",
    "Request",
    "checked_grid",
    "definition",
    "grid_place",
]

SCHEMA = 3
CODES = "shortcut_codes"
"""The tensor of the classes whose shortcut each sample has, in the file of labels and in a digest."""
CONFIDENCE = 0.95
MOST_EPSILONS = 1000
"""The largest number of radii in a grid; the samples of a test split cannot resolve more."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request: all values that determine the outcomes.

    Attributes:
        protocol: the definition.
        norm: the norm of ε.
        epsilons: the grid, ascending, E values.
        seed: keys the random starts.
        model: SHA-256 of the model's weights; empty for a function that has none.
        data: SHA-256 of the images and labels.
        classes: K, which determines the number of targets.
        exhaustive: whether an attack on every sample at every ε was requested.
        votes: passes for each decision of a worst case: 1, or more if the model is not deterministic.
        selection: a description of which images of a larger set are evaluated; empty if not given.
        shortcut_view: which shortcut was planted in the images for this evaluation, ``"aligned"``, ``"random"`` or
            ``"reversed"``; empty if none was planted.
    """

    protocol: Protocol
    norm: Norm
    epsilons: tuple[float, ...]
    seed: int
    model: str
    data: str
    classes: int
    exhaustive: bool = False
    votes: int = 1
    selection: str = ""
    shortcut_view: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation(Request, Displayed):
    """The result of one protocol on one model. ``print`` shows its table; in a notebook it shows table and figure.

    Attributes:
        protocol: the protocol.
        norm: the norm of ε.
        epsilons: the grid of ε, ascending, without 0.
        seed: the seed of all random starts.
        model: SHA-256 of the model's weights; empty for a model without weights.
        data: SHA-256 of the images and labels.
        classes: K, the number of logits.
        exhaustive: whether each sample was attacked at every ε.
        votes: passes for each decision: 1, or more for a model that is not deterministic.
        selection: a description of which images of a larger set these are; empty if unknown.
        shortcut_view: which shortcut was planted in the images for this evaluation, ``"aligned"``, ``"random"`` or
            ``"reversed"``; empty if none was planted.
        clean: which samples are classified correctly without an attack, bool (N,).
        outcomes: for each search, which samples stay correct at each ε, bool (E, N).
        details: for each search, by sample: ``illegal`` (outputs of the attack outside the ball or the box, or with
            NaN); of a worst case also ``norms`` (the smallest known adversarial norm, float32), ``found_by``,
            ``gradients``, ``forwards``, ``floor``, ``audit``, ``tested`` and ``missed`` as in
            :class:`asgt.evaluation.known.Outcome`.
        checks: the results of the checks (:mod:`asgt.evaluation.checks`).
        seconds: the duration of each search on its machine.
        discards: for each search in phases, the discarded samples and the largest error of robust accuracy because
            of them (:class:`asgt.evaluation.discard_audit.Discards`).
        labels: the class of each sample, int64 (N,); ``None`` if unknown, as in evaluations of earlier versions,
            which did not save it. Then there are no numbers by class.
        class_names: the names of the classes, by their numbers; empty without labels.
        trace: what an attack does step by step on a few images; ``None`` where it was not requested.
        shortcut_codes: the class whose planted shortcut each sample has, int64 (N,); ``None`` where none was planted,
            and of evaluations of earlier versions, which did not save it.
        shortcut: the planted shortcut with its settings, such as ``"patch:contrast=0.8,size=4,seed=0,code=level"``;
            empty where none was planted, and of evaluations of earlier versions, which did not save it.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> evaluation = asgt.evaluate(model, (x, y), "pgd", epsilons=[0.05, 0.1])
        >>> evaluation.samples, evaluation.protocol.claim
        (4, 'not yet a robustness claim')
        >>> list(evaluation.curve())
        [0.05, 0.1]
        >>> evaluation.robust_accuracy(0.1) == evaluation.curve()[0.1]
        True
    """

    clean: Tensor
    outcomes: Mapping[str, Tensor]
    details: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    discards: Mapping[str, Discards] = field(default_factory=dict)
    labels: Tensor | None = None
    class_names: tuple[str, ...] = ()
    trace: Trace | None = None
    shortcut_codes: Tensor | None = None
    shortcut: str = ""

    @property
    def samples(self) -> int:
        """N, the images that were evaluated."""

        return len(self.clean)

    @property
    def adapted(self) -> bool:
        """Whether an attack was adapted to the small number of classes, so that it differs from its authors'
        version.
        """

        return any(search.among(self.classes).adapted(self.classes) for search in self.protocol.searches)

    @property
    def accuracy(self) -> Estimate:
        """Clean accuracy with Wilson's 95 % interval."""

        return _share(self.clean)

    def robust_accuracy(self, eps: Number, search: str | None = None) -> Estimate:
        """Accuracy under attack at an ε of the grid, with Wilson's 95 % interval.

        Args:
            eps: the radius; ``"8/255"`` is accepted, and 0 is the clean accuracy.
            search: the name of one search. Default: a sample counts as correct if it is correct under all of them.

        Raises:
            InputError: the evaluation holds no such ε or search.
        """

        return _share(self.right(eps, search))

    @property
    def balanced_accuracy(self) -> Estimate | None:
        """The mean of the clean accuracies of the classes that occur; ``None`` where the labels are not known.

        Its 95 % interval is that of :func:`asgt.statistics.mean_of_shares`.
        """

        return self.balanced_robust_accuracy(0)

    def balanced_robust_accuracy(self, eps: Number, search: str | None = None) -> Estimate | None:
        """The mean of the accuracies of the classes that occur, under attack at an ε of the grid.

        Args:
            eps: as :meth:`robust_accuracy` takes it.
            search: likewise.

        Returns:
            The mean with the 95 % interval of :func:`asgt.statistics.mean_of_shares`; ``None`` where the labels are not
            known.

        Raises:
            InputError: the evaluation holds no such ε or search.
        """

        found = self.by_class(eps, search)
        return None if found is None else found.balanced

    def by_class(self, eps: Number = 0, search: str | None = None) -> ByClass | None:
        """The accuracy of each class that occurs, their mean, and the worst class.

        Args:
            eps: as :meth:`robust_accuracy` takes it. Default: clean accuracy.
            search: likewise.

        Returns:
            The classes, each with Wilson's 95 % interval, which is not corrected for their number; ``None`` where the
            labels are not known.

        Raises:
            InputError: the evaluation holds no such ε or search.
        """

        right = self.right(eps, search)
        return None if self.labels is None else by_class(right, self.labels, self.class_names, self.classes)

    def curve(self, search: str | None = None) -> dict[float, Estimate]:
        """Accuracy under attack by ε, ascending, each with its interval.

        Args:
            search: the name of a search. Default: the only one.

        Raises:
            InputError: there is no such search, or there are several and none is named.
        """

        if search is None:
            if len(self.outcomes) > 1:
                raise InputError(f"name one of the searches: {', '.join(self.outcomes)}")
            (search,) = self.outcomes
        return {eps: _share(row) for eps, row in zip(self.epsilons, self._outcomes(search), strict=True)}

    def first_to_break(self, search: str) -> dict[str, int]:
        """For each attack, the number of samples whose smallest adversarial norm it found; empty without a worst
        case.
        """

        if "found_by" not in self.details[search]:
            return {}
        titles = {CLEAN: "clean error", MARGIN: "the margin's gradient"}
        attacks = self._search(search).among(self.classes).finders
        titles |= {place: attack.title for place, attack in enumerate(attacks)}
        counts = Counter(titles[place] for place in self.details[search]["found_by"].tolist() if place != NOTHING)
        return {title: counts[title] for title in titles.values() if title in counts}

    def cost(self, search: str) -> dict[str, float]:
        """The cost of a worst-case search and the result of its audit; empty for other searches.

        ``gradients`` and ``forwards`` are per sample. ``floor`` is the gradients of an ideal search, which runs
        each attack once where it just fails, and repeats the successful attack once. ``audit``: gradients a sample
        beyond these, spent on ``tested`` samples at an ε below a failure, each at a random one or, exhaustively, at
        all; ``missed`` of them broke there, and ``missed_high`` is the upper end of the Clopper–Pearson interval of
        their share. If finally all samples were attacked at every ε, the passes are those of that search only.
        """

        told = self.details[search]
        if "tested" not in told:
            return {}
        # Samples, not attacks: what one sample does at several ε is not independent.
        tested, missed = int((told["tested"] > 0).sum()), int((told["missed"] > 0).sum())
        means = {name: float(told[name].double().mean()) for name in ("gradients", "floor", "forwards", "audit")}
        return means | {
            "tested": tested,
            "missed": missed,
            "missed_high": clopper_pearson(missed, tested, CONFIDENCE)[1] if tested else 1.0,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``result.json`` holds them."""

        protocol, outcomes = self.protocol, self.outcomes
        first = {name: counts for name in self.details if (counts := self.first_to_break(name))}
        return {
            "schema": SCHEMA,
            "protocol": definition(protocol, self.classes),
            **({"own": record_of(protocol, self.classes)} if not protocol.is_house else {}),
            "adapted": self.adapted,
            "claim": protocol.claim,
            "norm": self.norm,
            "samples": self.samples,
            **({"selection": self.selection} if self.selection else {}),
            **({"shortcut_view": self.shortcut_view} if self.shortcut_view else {}),
            **({"shortcut": self.shortcut} if self.shortcut else {}),
            **({} if self.shortcut_codes is None else {"shortcut_codes": digest_tensors({CODES: self.shortcut_codes})}),
            "classes": self.classes,
            "seed": self.seed,
            "interval": f"Wilson {CONFIDENCE:.0%}",
            "model": self.model,
            "data": self.data,
            "votes": self.votes,
            "clean": _row(self.accuracy),
            "attacks": {
                name: [{"eps": eps} | _row(estimate) for eps, estimate in self.curve(name).items()] for name in outcomes
            },
            **self._told_by_class(),
            **({"discards": {name: told.to_dict() for name, told in self.discards.items()}} if self.discards else {}),
            "exhaustive": self.exhaustive,
            "first_to_break": first,
            "cost": {name: cost for name in self.details if (cost := self.cost(name))},
            "checks": [check.to_dict() for check in self.checks],
            **({"trace": self.trace.to_dict()} if self.trace is not None else {}),
            "seconds": dict(self.seconds),
            "versions": package_versions("torch", "numpy", "datasets", "safetensors", "pyautoattack"),
        }

    def _told_by_class(self) -> dict[str, Any]:
        """What ``result.json`` says of labels and classes; nothing where the labels are not known."""

        clean, shown = self.by_class(), self.by_class(self.class_eps)
        if self.labels is None or clean is None or shown is None:
            return {}
        attacked = {
            name: [(eps, each) for eps in self.epsilons if (each := self.by_class(eps, name)) is not None]
            for name in self.outcomes
        }
        return {"labels": digest_tensors({"labels": self.labels})} | told_by_class(
            clean, attacked, (self.class_eps, shown)
        )

    def _search(self, name: str) -> Search:
        for search in self.protocol.searches:
            if search.name == name:
                return search
        raise InputError(f"there is no search {name!r}: the evaluation has {', '.join(self.outcomes)}")

    def right(self, eps: Number = 0, search: str | None = None) -> Tensor:
        """Which samples are right at an ε under a search, or under all of them, bool (N,).

        Args:
            eps: as :meth:`robust_accuracy` takes it. Default: without an attack.
            search: likewise.

        Raises:
            InputError: the evaluation holds no such ε or search.
        """

        radius = number(eps, "eps")
        if radius == 0:
            return self.clean
        place = grid_place(self.epsilons, radius)
        if search is not None:
            return self._outcomes(search)[place]
        right = self.clean
        for outcomes in self.outcomes.values():
            right = right & outcomes[place]
        return right

    def _outcomes(self, name: str) -> Tensor:
        return self.outcomes[self._search(name).name]


def definition(protocol: Protocol, classes: int) -> dict[str, Any]:
    """The protocol as ``result.json`` holds it, against a model of so many classes."""

    margin = {"probe_steps": PROBE_STEPS, "press_steps": PRESS_STEPS}
    return {
        "name": protocol.name,
        "version": protocol.version,
        "worst_case": protocol.worst_case,
        **(margin if protocol.worst_case else {}),
        "attacks": {search.name: repr(search.among(classes)) for search in protocol.searches},
    }


def checked_grid(epsilons: Sequence[Number] | Number, norm: Norm) -> tuple[float, ...]:
    """The grid of radii, ascending, each once.

    Args:
        epsilons: radii above zero, or one of them; ``"8/255"`` and numpy's scalars are accepted.
        norm: their norm.

    Raises:
        InputError: it is empty, or a radius is impossible.
    """

    # A scalar of numpy or PyTorch has an __iter__ that fails.
    is_one = isinstance(epsilons, str) or not hasattr(epsilons, "__iter__") or getattr(epsilons, "ndim", 1) == 0
    given: Any = [epsilons] if is_one else epsilons
    if hasattr(given, "__len__") and len(given) > MOST_EPSILONS:
        raise InputError(
            f"{len(given):,} radii of eps: each is an attack on every sample; give at most {MOST_EPSILONS:,}"
        )
    grid = tuple(sorted({number(eps, "eps") for eps in given}))
    if not grid:
        raise InputError("the grid of epsilons is empty: give at least one, such as 0.1 or 8/255")
    for eps in grid:
        check_eps(eps, norm)
        if eps == 0:
            raise InputError("eps = 0 is the clean accuracy, which is always reported: remove it from the grid")
    return grid


def grid_place(epsilons: Sequence[float], eps: Number) -> int:
    """The place of an ε in a grid, to the rounding of single precision.

    Raises:
        InputError: the grid does not have it.
    """

    radius = number(eps, "eps")
    for place, known in enumerate(epsilons):
        if isclose(known, radius, rel_tol=1e-6):
            return place
    raise InputError(f"eps = {radius:g} was not evaluated: the grid is {', '.join(map(eps_text, epsilons))}")


def _share(outcomes: Tensor) -> Estimate:
    return share(int(outcomes.sum()), len(outcomes), CONFIDENCE)


def _row(estimate: Estimate) -> dict[str, float]:
    return {"accuracy": estimate.value, "low": estimate.low, "high": estimate.high}
