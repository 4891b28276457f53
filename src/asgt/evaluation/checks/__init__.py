"""Checks of a finished evaluation, each with a threshold, its evidence and a remedy.

Robust accuracy counts the samples that attacks failed to break. It is too high if they failed for another reason
than robustness: steps that cannot cross the ball, vanishing gradients, or a random model. Each check tests one such
reason. Together they can say that no failure was detected; they cannot prove that there is none.

Most attack a few samples again, usually survivors (:mod:`asgt.evaluation.second_look`). A check is a function of
such a second look that returns an :class:`asgt.Check`: one file here, and one line in :data:`CHECKS`.

References:
    Carlini et al. 2019, "On evaluating adversarial robustness", https://arxiv.org/abs/1902.06705
    Pintor et al. 2022, "Indicators of attack failure", https://arxiv.org/abs/2106.09947
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from ...data import Images, batch_that_fits
from ...errors import InputError
from ...modes import Classifier, evaluating
from ...progress import SILENT, Progress
from ..check import Check
from ..health import OVERFITTING
from ..outcomes import Evaluation
from ..second_look import SecondLook
from .budget_reach import check_budget_reach
from .clean_errors import check_clean_accuracy
from .determinism import check_determinism
from .discarded import check_discarded_images
from .dlr_classes import check_classes_for_dlr
from .doubled_effort import check_doubled_effort
from .full_range import check_full_range
from .legality import check_legality
from .logit_scale import check_logit_scale
from .monotonicity import check_monotonicity
from .one_step_search import check_one_step_beats_many
from .overfitting import check_catastrophic_overfitting
from .random_noise import check_random_noise
from .softmax_outputs import check_softmax_outputs
from .square_queries import check_square_queries
from .start_gradients import check_gradients_at_the_start

__all__ = ["CHECKS", "CheckFunction", "run_checks"]

CheckFunction: TypeAlias = Callable[[SecondLook], Check | None]
"""A check: a function from a second look at an evaluation to its result; ``None`` if it does not apply to the
protocol.
"""

CHECKS: dict[str, CheckFunction] = {
    "budget reach": check_budget_reach,
    "legality": check_legality,
    "determinism": check_determinism,
    "softmax outputs": check_softmax_outputs,
    "classes for DLR": check_classes_for_dlr,
    "gradients at the start": check_gradients_at_the_start,
    "logit scale": check_logit_scale,
    "FGSM against the search": check_one_step_beats_many,
    "monotonicity": check_monotonicity,
    "full range": check_full_range,
    "random noise": check_random_noise,
    "square": check_square_queries,
    "doubled effort": check_doubled_effort,
    "discarded images": check_discarded_images,
    OVERFITTING: check_catastrophic_overfitting,
    "clean accuracy": check_clean_accuracy,
}
"""The checks of the house by the names that they give, in the order in which they are run and shown."""


def run_checks(
    model: Classifier,
    images: Images,
    evaluation: Evaluation,
    *,
    more: Sequence[CheckFunction] = (),
    thorough: bool = False,
    batch_size: int | None = None,
    progress: Progress = SILENT,
) -> tuple[Check, ...]:
    """Checks an evaluation, in a fixed order; a result depends on the evaluation's seed, not on the batches.

    Args:
        model: the model that was evaluated, on the device of the images.
        images: the images that it was evaluated on, N of them.
        evaluation: the result on them.
        more: user-defined checks, run after the built-in ones.
        thorough: also run the expensive checks, Square and doubled effort, on up to 256 survivors: on a few hundred
            images, they take several times as long as the evaluation. Default: they are NOT RUN.
        batch_size: images per pass. Default: 256, fewer large ones.
        progress: receives the number of finished checks.

    Raises:
        InputError: the evaluation used other images, or a user-defined check fails or returns no check.
    """

    if evaluation.data != images.digest():
        raise InputError("the evaluation used other images: pass the images that it was made on")

    batch_size = batch_size or batch_that_fits(images)
    look = SecondLook(model, images, evaluation, thorough, batch_size)
    checks = []
    progress.start("checks", len(CHECKS) + len(more))
    with evaluating(model):
        for check in CHECKS.values():
            if (said := check(look)) is not None:
                checks.append(said)
            progress.advance(1)
        for check in more:
            checks.append(_own(check, look))
            progress.advance(1)
    progress.stop()
    return tuple(checks)


def _own(check: CheckFunction, look: SecondLook) -> Check:
    """The result of a user-defined check."""

    name = getattr(check, "__name__", type(check).__name__)
    try:
        said = check(look)
    except InputError:
        raise
    except Exception as error:  # a stranger's code may raise anything
        first = (str(error).splitlines() or [""])[0][:200]
        raise InputError(f"check {name} raised {type(error).__name__}: {first}") from error
    if not isinstance(said, Check):
        raise InputError(f"check {name} returns {type(said).__name__}, not an asgt.Check")
    try:
        return Check.from_dict(said.to_dict())
    except (TypeError, ValueError) as error:
        raise InputError(f"check {name}: {error}") from error
