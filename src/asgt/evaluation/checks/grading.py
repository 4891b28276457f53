"""Shared parts of checks: thresholds on counts, and the samples that a check names."""

from __future__ import annotations

from torch import Tensor

from ..check import Check
from ..second_look import Samples, SecondLook

__all__ = [
    "ALONE",
    "ONE_STEP_ONLY",
    "POINT",
    "counted_check",
    "first_rows",
    "graded_check",
    "listed",
    "no_survivors",
    "one_step_searches",
]

# More than a point of accuracy is what a reader would act on. A single sample never fails a number, however few there
# are: the next random start can break one by luck.
POINT, ALONE = 0.01, 1

ONE_STEP_ONLY = ("the protocol has no attack of several steps", "use --protocol pgd, which has one")
_SMALLER_EPS = "add a smaller ε to the grid, so that there are survivors"
_LISTED = 16


def one_step_searches(look: SecondLook) -> tuple[list[str], list[str]]:
    """The names of the single-step searches, and those of the others."""

    searches = look.evaluation.protocol.searches
    one_step = [search.name for search in searches if search.is_one_step]
    return one_step, [search.name for search in searches if search.name not in one_step]


def counted_check(name: str, look: SecondLook, samples: Samples, broken: Tensor, what: str, remedy: str) -> Check:
    """The check that counts the broken survivors, bool (B,), as a share of all N samples."""

    count, left = int(broken.sum()), int(look.right[look.level].sum())
    share = left / look.evaluation.samples * count / len(samples)
    evidence = (
        f"{what} breaks {count} of {len(samples)} survivors at ε = {look.eps:g}, {100 * share:.1f} points of the "
        f"accuracy of {left / look.evaluation.samples:.1%} (threshold {100 * POINT:g} point)"
    )
    return graded_check(name, count, share, evidence, remedy, samples.rows[broken])


def graded_check(name: str, count: int, share: float, evidence: str, remedy: str, rows: Tensor) -> Check:
    """FAIL if more than one point of accuracy and more than one sample break, WARN if any sample breaks."""

    if count == 0:
        return Check(name, "PASS", evidence)
    return Check(name, "FAIL" if share > POINT and count > ALONE else "WARN", evidence, remedy, first_rows(rows))


def no_survivors(name: str, look: SecondLook) -> Check:
    return Check(
        name, "NOT RUN", f"no sample remains correct at ε = {look.eps:g} or any other ε of the grid", _SMALLER_EPS
    )


def first_rows(rows: Tensor) -> tuple[int, ...]:
    return tuple(sorted(rows.tolist())[:_LISTED])


def listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
