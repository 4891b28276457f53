"""Can this number be believed? Checks of a finished evaluation, each with a threshold, its evidence and a remedy.

Robust accuracy is what attacks failed to break, so it is too high wherever they failed for a reason of their own: steps
that cannot cross the ball, gradients that vanish, a model that answers by chance. Each check looks for one such reason.
Together they can say that no failure was detected; that there is none, they cannot say.

Most look again at a few samples, most often survivors (:mod:`asgt.evaluation.second_look`).

References:
    Carlini et al. 2019, "On evaluating adversarial robustness", https://arxiv.org/abs/1902.06705
    Pintor et al. 2022, "Indicators of attack failure", https://arxiv.org/abs/2106.09947
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..attacks import APGD, FGSM, MIFGSM, PGD, Attack, Square
from ..attacks.attack import delta_norm, logit_margin, random_start
from ..data import Images
from ..errors import InputError
from ..modes import Classifier, ask, at_least_float32, evaluating
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed, uniform_like
from ..statistics import clopper_pearson, wilson
from .accuracy import margin_change
from .health import is_catastrophic
from .protocols import Search
from .second_look import DRAW, Look, Samples

if TYPE_CHECKING:
    from .outcomes import Evaluation

__all__ = ["THOROUGH", "Check", "Verdict", "run_checks", "verdict_words"]

THOROUGH = "asgt evaluate --thorough runs it"
"""The remedy of a dear check that was not run because it was not asked for."""

Verdict: TypeAlias = Literal["PASS", "WARN", "FAIL", "NOT RUN"]

# More than a point of accuracy is what a reader would act on. A single sample never fails a number, however few there
# are: the next random start can break one by luck.
_POINT, _ALONE = 0.01, 1

# A step of 2.5 ε / 40 stops short of the ball's surface only where its gradient turns; 1 % is for rounding. An attack
# that uses less than half of the coordinates it has could do more with the same ε.
_REACHED, _USED = 0.99, 0.5

# Repeated passes: rounding in another order of sums. In another batch: kernels of another size, in half precision too.
_REPEATED, _REBATCHED = 1e-6, 1e-2
_PASSES = 5

_SUMS_TO_ONE = 1e-2  # a softmax in half precision; no 64 rows of logits come so near by chance
_DLR_CLASSES = 4
_NOISES = 10  # of each kind
_QUERIES = 1000
_LISTED = 16

# Of the clean accuracy. One step leaves healthy nets less of it wherever several steps leave less than half of that: at
# most 0.75 on digits and MNIST. Where training against one step had died on MNIST, it left 0.9 and more.
_HIGH = 0.8

_ONE_STEP_ONLY = ("the protocol has no attack of several steps", "--protocol pgd has one")
_SMALLER_EPS = "a smaller ε in the grid leaves survivors to look at"


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: what it looked at, as in ``"budget reach"``.
        verdict: ``"PASS"``, ``"WARN"``, ``"FAIL"`` or ``"NOT RUN"``.
        evidence: a sentence with its figures: how many samples, at which ε, by which attack, against which threshold.
        remedy: what to do about it; empty on ``"PASS"``.
        samples: the indices, in the evaluated images, of the samples in question, 16 at most.
    """

    name: str
    verdict: Verdict
    evidence: str
    remedy: str = ""
    samples: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as ``result.json`` holds them."""

        return asdict(self) | {"samples": list(self.samples)}

    @classmethod
    def from_dict(cls, values: Any) -> Check:
        """The check of which :meth:`to_dict` made these values.

        Raises:
            ValueError: it made no such values.
        """

        if not isinstance(values, dict) or set(values) != {"name", "verdict", "evidence", "remedy", "samples"}:
            raise ValueError(f"not a check: {values!r}")
        samples = values["samples"]
        if not all(isinstance(values[name], str) for name in ("name", "evidence", "remedy")):
            raise ValueError(f"a check's name, evidence and remedy are words: {values!r}")
        if values["verdict"] not in get_args(Verdict):
            raise ValueError(f"verdict {values['verdict']!r} is none of {', '.join(get_args(Verdict))}")
        if not isinstance(samples, list) or not all(type(number) is int and number >= 0 for number in samples):
            raise ValueError(f"samples are not indices: {samples!r}")
        return cls(**values | {"samples": tuple(samples)})


def run_checks(
    model: Classifier,
    images: Images,
    found: Evaluation,
    *,
    thorough: bool = False,
    batch_size: int = 256,
    progress: Progress = SILENT,
) -> tuple[Check, ...]:
    """Checks an evaluation, in a fixed order; a result is a function of the evaluation's seed, not of the batches.

    Args:
        model: the model that was evaluated, on the device of the images.
        images: the images that it was evaluated on, N of them.
        found: what the evaluation found.
        thorough: also run the dear checks, Square and doubled effort, on up to 256 survivors: of a few hundred images,
            they take several times as long as the evaluation. Default: they are NOT RUN.
        batch_size: images per pass.
        progress: is told how many checks are through.

    Raises:
        InputError: the evaluation is one of other images.
    """

    if found.data != images.digest():
        raise InputError("the evaluation is one of other images: check it on those that it was made on")

    look = Look(model, images, found, thorough, batch_size)
    checks = []
    progress.start("checks", len(_CHECKS))
    with evaluating(model):
        for check in _CHECKS:
            checks.append(check(look))
            progress.advance(1)
    progress.stop()
    return tuple(checks)


def verdict_words(checks: tuple[Check, ...]) -> str:
    """All checks in a line: how many of each verdict, and which failed."""

    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in get_args(Verdict)}
    if counts["NOT RUN"] == len(checks):
        return "nothing was checked"
    words = {
        "PASS": "passes" if counts["PASS"] == 1 else "pass",
        "WARN": "warns" if counts["WARN"] == 1 else "warn",
        "FAIL": "fails" if counts["FAIL"] == 1 else "fail",
        "NOT RUN": "not run",
    }
    failed = [check.name for check in checks if check.verdict == "FAIL"]
    tally = ", ".join(f"{counts[verdict]} {words[verdict]}" for verdict in get_args(Verdict))
    return f"{tally}: {'failed: ' + ', '.join(failed) if failed else 'no failure detected'}"


def _budget_reach(look: Look) -> Check:
    """Steps that cannot cross the ball, or do not, attack at a smaller ε than they say."""

    name = "budget reach"
    short = []
    for search in look.found.protocol.searches:
        if (reach := search.reach) is not None:
            beyond = [eps for eps in look.found.epsilons if eps > reach * (1 + 1e-9)]
            short += [f"{search.name} crosses {reach:.3g} at most, short of ε = {_listed(beyond)}"] if beyond else []
    if short:
        remedy = "a step length that follows ε (α = 2.5ε/steps), or more steps; read no robustness off these"
        return Check(name, "FAIL", "; ".join(short), remedy)

    can = "every search can cross each ε of the grid"
    held = (~look.again[1]).nonzero().squeeze(1) if len(look.survivors) else torch.empty(0, dtype=torch.int64)
    if len(held) == 0:
        return Check(name, "PASS", f"{can}; there are no survivors to see whether it does")

    samples, x_adv = look.survivors[held], look.again[0][held.to(look.survivors.y.device)]
    if look.found.norm == "linf":
        free = (x_adv > 0) & (x_adv < 1)
        used = ((x_adv - samples.x).abs() >= _REACHED * look.eps) & free
        shares = used.flatten(1).sum(dim=1) / free.flatten(1).sum(dim=1).clamp_min(1)
        # Where the box stops every coordinate, there is nothing left to use.
        shares = torch.where(free.flatten(1).any(dim=1), shares, 1.0)
        share = median(shares.tolist())
        what = f"the median survivor of PGD-40 uses {share:.0%} of the coordinates that the box leaves it"
    else:
        share = float((delta_norm(x_adv - samples.x, "l2") >= _REACHED * look.eps).double().mean())
        what = f"PGD-40 ends at the surface of the ball on {share:.0%} of the survivors"
    evidence = f"{can}; at ε = {look.eps:g}, {what} (n = {len(held)}, |δ| ≥ {_REACHED:g}ε, threshold {_USED:.0%})"
    if share >= _USED:
        return Check(name, "PASS", evidence)
    return Check(name, "WARN", evidence, "more steps: the attack turns before it has used its budget")


def _legality(look: Look) -> Check:
    """What leaves the ball or the box, or is NaN, breaks nothing."""

    name = "legality"
    counts = {
        search.name: illegal
        for search in look.found.protocol.searches
        if (illegal := look.found.details.get(search.name, {}).get("illegal")) is not None
    }
    for search, illegal in counts.items():
        if bool(illegal.any()):
            rows = illegal.nonzero().squeeze(1)
            evidence = (
                f"{int(illegal.sum())} outputs of {search} on {len(rows)} of {len(illegal)} samples left the ball or "
                "the box or held NaN; none of them was counted"
            )
            return Check(name, "FAIL", evidence, "an attack that projects back, with finite gradients", _first(rows))
    if len(counts) < len(look.found.protocol.searches):
        missing = [search.name for search in look.found.protocol.searches if search.name not in counts]
        return Check(name, "NOT RUN", f"{', '.join(missing)} kept no count of illegal outputs", "evaluate again")
    return Check(
        name,
        "PASS",
        f"every output of {', '.join(counts)} lay in the ball and the box and was finite (n = {look.found.samples})",
    )


def _determinism(look: Look) -> Check:
    """A model that answers by chance is broken by chance, and its gradients are those of another model."""

    name, samples = "determinism", look.random
    passes = torch.stack([look.random_logits, *(look.logits(samples.x) for _ in range(_PASSES - 1))])
    predicted = passes.argmax(dim=2)
    moved, change = (predicted != predicted[0]).any(dim=0).cpu(), margin_change(passes)
    evidence = (
        f"over {_PASSES} passes of the same {len(samples)} images in evaluation mode, a margin changes by up to "
        f"{change:.2g} of the size of the logits (threshold {_REPEATED:g}), and {int(moved.sum())} predictions flip"
    )
    if not change <= _REPEATED:
        remedy = (
            "turn off what is random in the forward pass (functional dropout or noise that ignores eval()); if it is "
            "meant, attack by expectation over transformation (EOT)"
        )
        return Check(name, "FAIL", evidence, remedy, _first(samples.rows[moved]))

    halves = torch.cat([look.logits(part.x) for part in samples.split(max(len(samples) // 2, 1))])
    apart = margin_change(torch.stack([passes[0], halves]))
    if not apart <= _REBATCHED:
        evidence += f"; in batches of half the size by {apart:.2g} (threshold {_REBATCHED:g})"
        remedy = "normalise by stored statistics: an image's answer must not depend on the images beside it"
        return Check(name, "FAIL", evidence, remedy)
    return Check(name, "PASS", evidence)


def _softmax_outputs(look: Look) -> Check:
    """The cross-entropy of a softmax of a softmax is flat where the model is sure."""

    name, logits = "softmax outputs", look.random_logits
    on = f"on {len(logits)} images"
    if bool((logits >= 0).all()) and bool(((logits.sum(dim=1) - 1).abs() <= _SUMS_TO_ONE).all()):
        evidence = f"{on}, all outputs are ≥ 0 and sum to 1: they look like probabilities"
        return Check(name, "FAIL", evidence, "return logits: leave out the model's last softmax")
    if bool((logits.logsumexp(dim=1).abs() <= _SUMS_TO_ONE).all()):
        return Check(name, "PASS", f"{on}, the outputs are log-probabilities, which attacks treat like logits")
    return Check(name, "PASS", f"{on}, the outputs are no probabilities")


def _classes_for_dlr(look: Look) -> Check:
    """The difference of logits ratio needs a fourth logit."""

    name, classes = "classes for DLR", look.random_logits.shape[1]
    protocol = look.found.protocol
    asks = protocol.name == "autoattack" or any(
        isinstance(attack, APGD) and attack.loss == "dlr-targeted"
        for search in protocol.searches
        for attack in search.attacks
    )
    if classes >= _DLR_CLASSES:
        return Check(name, "PASS", f"{classes} classes; the DLR loss needs {_DLR_CLASSES}")
    if asks:
        evidence = f"{classes} classes; the DLR loss needs {_DLR_CLASSES}, so it was adapted"
        return Check(name, "WARN", evidence, f"say of {protocol.name} that it was adapted")
    return Check(name, "PASS", f"{classes} classes; the DLR loss needs {_DLR_CLASSES}, but no attack here uses it")


def _gradients_at_the_start(look: Look) -> Check:
    """Where the first gradient is zero, an attack does not know where to go."""

    name, samples = "gradients at the start", look.clean_right
    if len(samples) == 0:
        return Check(name, "NOT RUN", "no sample is right as it is", "see clean accuracy")

    kinds = []
    for part in samples.split(look.batch_size):
        state = look.pgd.start(look.model, part.x, part.y, 0.0, init=part.x)
        gradient = state.gradient()[0].flatten(1)
        margin = state.gradient(lambda logits, y=part.y: logit_margin(logits, y))[0].flatten(1)  # type: ignore[misc]
        bad = ~gradient.isfinite().all(dim=1)
        kinds.append(torch.stack([bad, (gradient == 0).all(dim=1), (margin == 0).all(dim=1)]).cpu())
    bad, no_loss, no_margin = torch.cat(kinds, dim=1)

    of = f"of {len(samples)} clean images"
    if bool(bad.any()):
        evidence = f"the gradient of the cross-entropy is NaN or infinite at {int(bad.sum())} {of}"
        remedy = "look for a root or a quotient at zero in the model: such a gradient moves no image"
        return Check(name, "FAIL", evidence, remedy, _first(samples.rows[bad]))

    for zero, what, verdict, remedy in (
        (
            no_loss & no_margin,
            "the gradients of cross-entropy and margin are both zero",
            "FAIL",
            "attack through a smooth stand-in of what has no gradient (BPDA), or without gradients (Square)",
        ),
        (
            no_loss,
            "the gradient of the cross-entropy is zero, that of the margin is not,",
            "WARN" if look.found.protocol.worst_case else "FAIL",
            "the logits are too large for the cross-entropy: divide them, or follow the margin as protocol pgd does",
        ),
    ):
        count = int(zero.sum())
        if count > _ALONE and count / len(samples) > _POINT:
            evidence = f"{what} at {count} {of} (threshold {_POINT:.0%})"
            return Check(name, verdict, evidence, remedy, _first(samples.rows[zero]))  # type: ignore[arg-type]
    return Check(name, "PASS", f"the gradient of the cross-entropy is zero at {int(no_loss.sum())} {of}, and finite")


def _logit_scale(look: Look) -> Check:
    """Robustness does not depend on the scale of the logits; the cross-entropy's gradient does, until it vanishes."""

    name, samples = "logit scale", look.survivors
    if len(samples) == 0:
        return _no_survivors(name, look)
    margins = logit_margin(look.logits(look.clean_right.x), look.clean_right.y).abs()
    scale = float(margins.nanmedian())
    if not 0 < scale < math.inf:
        return Check(
            name, "NOT RUN", f"the median margin is {scale:g}: it gives no scale", "look at the model's logits"
        )

    x_adv = look.attacked(
        look.pgd, samples, look.eps, lambda x: at_least_float32(ask(look.model, x, owned=x.requires_grad)) / scale
    )
    # What the same attack breaks at the model's own scale tells of its effort, not of the scale.
    broken = look.broken(samples, x_adv, look.eps) & ~look.again[1]
    return _counted(
        name,
        look,
        samples,
        broken,
        f"PGD-40 on logits divided by {scale:.3g} (the median margin is then 1), but not on the logits as they are,",
        "the cross-entropy saturates: divide the logits while attacking, or use attacks that follow the margin",
    )


def _one_step_beats_many(look: Look) -> Check:
    """A search contains its first step: where one step does better, the search is at fault."""

    name = "FGSM against the search"
    one_step, several = _one_step_searches(look)
    if not several:
        return Check(name, "NOT RUN", *_ONE_STEP_ONLY)
    if one_step:
        held = torch.stack([look.found.outcomes[search] for search in several]).all(dim=0)
        fails = ~torch.stack([look.found.outcomes[search] for search in one_step]).all(dim=0)
        beaten = look.found.clean & held & fails
    else:
        beaten = look.right & look.one_step

    count, worst = max((int(row.sum()), level) for level, row in enumerate(beaten))
    share = count / look.found.samples
    evidence = (
        f"of {look.found.samples} samples, one step breaks {count} that every search of several steps leaves at ε = "
        f"{look.found.epsilons[worst]:g}, {100 * share:.1f} points of accuracy (threshold {100 * _POINT:g} point), and "
        "no more at any other ε"
    )
    remedy = "more steps and restarts, and a look at the gradients away from the image: they mislead the search"
    return _graded(name, count, share, evidence, remedy, beaten[worst].nonzero().squeeze(1))


def _monotonicity(look: Look) -> Check:
    """A larger ball holds the smaller one, so accuracy can only fall with ε."""

    name = "monotonicity"
    if not look.found.protocol.worst_case:
        for search, outcomes in look.found.outcomes.items():
            counts = outcomes.sum(dim=1)
            rise = int((counts - counts.cummin(dim=0).values).max())
            if rise > _ALONE and rise / look.found.samples > _POINT:
                evidence = (
                    f"the accuracy under {search} rises with ε by {100 * rise / look.found.samples:.1f} points "
                    f"(threshold {100 * _POINT:g} point, n = {look.found.samples})"
                )
                return Check(name, "FAIL", evidence, "count as broken at ε what a smaller ε breaks, as pgd does")
        return Check(name, "PASS", f"no accuracy rises with ε by more than {100 * _POINT:g} point or one sample")

    said, verdict, rows = [], "PASS", torch.empty(0, dtype=torch.int64)
    for search, told in look.found.details.items():
        # Samples, not attacks: what one sample does at several ε is not independent.
        tested, missed = int((told["tested"] > 0).sum()), int((told["missed"] > 0).sum())
        if tested == 0:
            continue
        high = clopper_pearson(missed, tested)[1]
        said.append(f"{missed} of {tested} under {search} (at most {high:.1%}, Clopper–Pearson 95 %)")
        if missed > _POINT * tested:
            verdict, rows = "WARN", (told["missed"] > 0).nonzero().squeeze(1)
    if not said:
        return Check(name, "NOT RUN", "no sample was attacked below its failure", "--exhaustive attacks all of them")
    evidence = f"of the samples attacked at a smaller ε than one that they withstand, there broke {', '.join(said)}"
    if verdict == "PASS":
        return Check(name, "PASS", evidence)
    return Check(
        name, "WARN", evidence, "a stronger search; the evaluation has attacked every sample at every ε", _first(rows)
    )


def _full_range(look: Look) -> Check:
    """Where any image is allowed, no model can be right more often than by chance."""

    name, samples = "full range", look.clean_right
    if len(samples) == 0:
        return Check(name, "NOT RUN", "no sample is right as it is", "see clean accuracy")
    eps = 1.0 if look.found.norm == "linf" else math.sqrt(samples.x[0].numel())
    broken = look.broken_by(look.pgd, samples, eps)
    left = int((~broken).sum())
    evidence = (
        f"PGD-40 at ε = {eps:.3g}, the full range, leaves {left} of {len(samples)} images right; a constant answer "
        f"leaves {look.largest_class:.0%}"
    )
    if wilson(left, len(samples))[0] <= look.largest_class:
        return Check(name, "PASS", evidence)
    remedy = "gradients are masked or the attack does not work: try one without gradients (Square)"
    return Check(name, "FAIL", evidence, remedy, _first(samples.rows[~broken]))


def _random_noise(look: Look) -> Check:
    """Noise knows nothing of the model: what it breaks, a search should."""

    name, samples = "random noise", look.survivors
    if len(samples) == 0:
        return _no_survivors(name, look)
    noise = SampleKeyed(look.found.seed, samples.rows.to(samples.y.device), DRAW)
    radius = samples.x.new_full((len(samples),), look.eps)
    corner = look.eps if look.found.norm == "linf" else look.eps / math.sqrt(samples.x[0].numel())
    broken = torch.zeros(len(samples), dtype=torch.bool)
    for _ in range(_NOISES):
        signs = (uniform_like(samples.x, noise) - 0.5).sign()
        broken |= look.broken(samples, random_start(samples.x, radius, look.found.norm, noise), look.eps)
        broken |= look.broken(samples, (samples.x + corner * signs).clamp(0, 1), look.eps)
    return _counted(
        name,
        look,
        samples,
        broken,
        f"random noise ({_NOISES} draws from the ball, {_NOISES} of its corners)",
        "gradients mislead the search: add attacks that need none (Square), and look at the gradients",
    )


def _square(look: Look) -> Check:
    """A search without gradients finds what masked ones hide."""

    name = "square"
    if not look.thorough:
        return Check(name, "NOT RUN", f"Square Attack with {_QUERIES:,} queries is a thorough check", THOROUGH)
    samples = look.many_survivors
    if len(samples) == 0:
        return _no_survivors(name, look)
    broken = look.broken_by(Square(0.0, norm=look.found.norm, steps=_QUERIES), samples, look.eps)
    remedy = "gradients mislead the search: count what Square breaks, and look at the gradients"
    return _counted(name, look, samples, broken, f"Square Attack with {_QUERIES:,} queries", remedy)


def _doubled_effort(look: Look) -> Check:
    """A search that has converged finds no more with twice the steps and restarts."""

    name, remedy = "doubled effort", "raise steps and restarts until the accuracy stays"
    if len(look.survivors) == 0:
        return _no_survivors(name, look)
    if not look.thorough:
        # One more restart is there already, for other checks: what it breaks needs no thorough look.
        if bool(look.again[1].any()):
            return _counted(name, look, look.survivors, look.again[1], "one more run of PGD-40", remedy)
        return Check(name, "NOT RUN", "twice the steps and restarts are a thorough check", THOROUGH)

    searches = look.found.protocol.searches
    strongest = min(searches, key=lambda search: int(look.found.outcomes[search.name][look.level].sum()))
    efforts = _twice(strongest, look)
    broken = torch.zeros(len(look.many_survivors), dtype=torch.bool)
    for attack in efforts:
        left = (~broken).nonzero().squeeze(1)
        if len(left):
            broken[left] = look.broken_by(attack, look.many_survivors[left], look.eps)
    what = f"twice the effort of {strongest.name} ({', '.join(_effort(attack) for attack in efforts)})"
    return _counted(name, look, look.many_survivors, broken, what, remedy)


def _catastrophic_overfitting(look: Look) -> Check:
    """A model trained against one step may withstand that and nothing else."""

    name = "catastrophic overfitting"
    one_step, several = _one_step_searches(look)
    if not several:
        return Check(name, "NOT RUN", *_ONE_STEP_ONLY)
    if one_step:
        asked = torch.ones_like(look.found.clean)
        single = torch.stack([look.found.outcomes[search] for search in one_step]).all(dim=0)
        worst = torch.stack([look.found.outcomes[search] for search in several]).all(dim=0)
    else:
        asked, single, worst = look.several, look.found.clean & ~look.one_step, look.right

    clean, count = float(look.found.clean[asked].double().mean()), int(asked.sum())
    fgsm, pgd = (rows[:, asked].double().mean(dim=1).tolist() for rows in (single, worst))
    said = []
    for level, eps in enumerate(look.found.epsilons):
        # A model that is robust up to half of this ε has not died: one step merely fails beyond its training ε.
        below = [other for other in range(level) if look.found.epsilons[other] <= eps / 2]
        alive = below and pgd[below[-1]] >= _HIGH * clean
        # Far beyond the ε of the training one step is weak on any model, and then leaves little of the accuracy too.
        if not alive and fgsm[level] >= _HIGH * clean and is_catastrophic(fgsm[level], pgd[level]):
            said.append(f"{fgsm[level]:.1%} under one step, {pgd[level]:.1%} under several at ε = {eps:g}")
    if said:
        remedy = "never quote the figure under FGSM; if one step trained the model, train against several (PGD)"
        return Check(name, "WARN", f"{'; '.join(said)} (n = {count})", remedy)
    return Check(name, "PASS", f"at no ε is the accuracy high under one step and low under several (n = {count})")


def _clean_accuracy(look: Look) -> Check:
    """A model that knows nothing has no robustness to measure."""

    right, count = int(look.found.clean.sum()), look.found.samples
    low, high = wilson(right, count)
    evidence = (
        f"clean accuracy {right / count:.1%} [{low:.1%}, {high:.1%}], n = {count}; the largest class has "
        f"{look.largest_class:.1%}"
    )
    if low > look.largest_class:
        return Check("clean accuracy", "PASS", evidence)
    remedy = "most often the normalisation (--mean, --std) or the order of the classes is not that of the training"
    return Check("clean accuracy", "FAIL", evidence, remedy)


_CHECKS: tuple[Callable[[Look], Check], ...] = (
    _budget_reach,
    _legality,
    _determinism,
    _softmax_outputs,
    _classes_for_dlr,
    _gradients_at_the_start,
    _logit_scale,
    _one_step_beats_many,
    _monotonicity,
    _full_range,
    _random_noise,
    _square,
    _doubled_effort,
    _catastrophic_overfitting,
    _clean_accuracy,
)


def _one_step_searches(look: Look) -> tuple[list[str], list[str]]:
    """The names of the searches that are FGSM, and those of the others."""

    searches = look.found.protocol.searches
    one_step = [search.name for search in searches if all(isinstance(attack, FGSM) for attack in search.attacks)]
    return one_step, [search.name for search in searches if search.name not in one_step]


def _twice(search: Search, look: Look) -> list[Attack]:
    """The attacks of a search with twice the steps and, from random starts, twice the restarts, without repeats."""

    efforts = list[Attack]()
    for attack in search.attacks:
        doubled: Attack = PGD(0.0, norm=look.found.norm, steps=80, restarts=10)
        if isinstance(attack, PGD | MIFGSM):
            relative = 2.5 * look.eps / (2 * attack.steps) if search.steps_of == "relative" else attack.alpha
            doubled = replace(attack, steps=2 * attack.steps, alpha=relative)
        if isinstance(doubled, PGD) and isinstance(attack, PGD) and doubled.random_start:
            doubled = replace(doubled, restarts=2 * attack.restarts)
        if doubled not in efforts:
            efforts.append(doubled)
    return efforts


def _effort(attack: Attack) -> str:
    kind = "MI-FGSM" if isinstance(attack, MIFGSM) else "PGD"
    return f"{kind}-{attack.steps}" + (f" × {attack.restarts}" if isinstance(attack, PGD) else "")


def _counted(name: str, look: Look, samples: Samples, broken: Tensor, what: str, remedy: str) -> Check:
    """The check that counts which survivors something broke, bool (B,), as a share of all N samples."""

    count, left = int(broken.sum()), int(look.right[look.level].sum())
    share = left / look.found.samples * count / len(samples)
    evidence = (
        f"{what} breaks {count} of {len(samples)} survivors at ε = {look.eps:g}, {100 * share:.1f} points of the "
        f"accuracy of {left / look.found.samples:.1%} (threshold {100 * _POINT:g} point)"
    )
    return _graded(name, count, share, evidence, remedy, samples.rows[broken])


def _graded(name: str, count: int, share: float, evidence: str, remedy: str, rows: Tensor) -> Check:
    """FAIL if what breaks is more than a point of accuracy and more than one sample, WARN if it is any."""

    if count == 0:
        return Check(name, "PASS", evidence)
    return Check(name, "FAIL" if share > _POINT and count > _ALONE else "WARN", evidence, remedy, _first(rows))


def _no_survivors(name: str, look: Look) -> Check:
    return Check(name, "NOT RUN", f"no sample withstands ε = {look.eps:g} or any other of the grid", _SMALLER_EPS)


def _first(rows: Tensor) -> tuple[int, ...]:
    return tuple(sorted(rows.tolist())[:_LISTED])


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
