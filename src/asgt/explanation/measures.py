"""The measures of the panel: their names, what they are in a sentence, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..errors import unknown

__all__ = ["MEASURES", "QUANTILES", "Measure", "measure_named"]

QUANTILES = tuple(tenth / 10 for tenth in range(1, 10))
"""The shares of the pixels that are hidden, q."""


@dataclass(frozen=True)
class Measure:
    """One column of the panel.

    Attributes:
        name: as in ``"gap-mean"``.
        title: what people call it.
        better: whether a good map has ``"more"`` or ``"less"`` of it; ``None`` where it says neither.
        restates: whether it partly restates robustness, in one direction or the other, whatever the maps explain.
        definition: one sentence.
        unflipped: whether it is of those images alone whose prediction no model's own attack changes.
    """

    name: str
    title: str
    better: Literal["more", "less"] | None
    restates: bool
    definition: str
    unflipped: bool = False


def _stability() -> list[Measure]:
    """What an attack leaves of a map, at a quarter of the training ε and at all of it; of all images, and unflipped."""

    found = []
    for place, words in (("quarter", "ε/4"), ("full", "ε")):
        attacked = f"between an image and itself under the model's own PGD-20 at {words}, the target held at the label"
        kinds = (
            ("rank", "rank correlation", f"Spearman's correlation of m {attacked}"),
            ("overlap", "top-10 % overlap", f"the share of the top tenth of the pixels by m that is common {attacked}"),
            ("cosine", "cosine", f"the cosine of a {attacked}"),
        )
        for kind, title, definition in kinds:
            every = Measure(f"{kind}@{place}", f"{title} at {words}", "more", True, definition)
            found += [every, replace(every, name=f"{every.name}:unflipped", title=f"{title} at {words}, unflipped")]
    return [replace(one, unflipped=one.name.endswith(":unflipped")) for one in found]


MEASURES: tuple[Measure, ...] = (
    Measure(
        "gap-mean",
        "masked-accuracy gap, mean fill",
        "more",
        False,
        "accuracy with random pixels hidden less accuracy with the top pixels by m hidden, mean over 10…90 % of the "
        "pixels, hidden by the data set's mean",
    ),
    Measure(
        "gap-noise",
        "masked-accuracy gap, noise fill",
        "more",
        False,
        "accuracy with random pixels hidden less accuracy with the top pixels by m hidden, mean over 10…90 % of the "
        "pixels, hidden by uniform noise",
    ),
    Measure(
        "road",
        "ROAD",
        "more",
        False,
        "half of accuracy with the least relevant pixels removed first less accuracy with the most relevant removed "
        "first, mean over 10…90 % of the pixels, noisy linear imputation",
    ),
    Measure("sparseness", "sparseness", None, True, "the Gini index of |a|"),
    Measure(
        "sensitivity",
        "relative max-sensitivity",
        "less",
        False,
        "the largest ‖a(x + δ) − a(x)‖₂ / ‖a(x)‖₂ of 10 uniform draws of ‖δ‖∞ ≤ 0.05",
    ),
    *_stability(),
    Measure("alignment", "alignment", "more", True, "|cos(x − the data set's mean, a)|"),
    Measure("mass", "mass on the object", "more", False, "the share of Σm that lies on the object"),
)
"""In the order of the panel. m is the channel mean of \\|a\\|, a the signed attribution to the label."""


def measure_named(name: str) -> Measure:
    """The measure of a name.

    Raises:
        InputError: there is none.
    """

    for measure in MEASURES:
        if measure.name == name:
            return measure
    raise unknown("measure", name, [measure.name for measure in MEASURES])
