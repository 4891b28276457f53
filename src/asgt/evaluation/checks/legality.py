"""An output outside the ball or the box, or with NaN, does not count as adversarial."""

from __future__ import annotations

from ..check import Check
from ..second_look import SecondLook
from .grading import first_rows

__all__ = ["check_legality"]


def check_legality(look: SecondLook) -> Check:
    """An output outside the ball or the box, or with NaN, does not count as adversarial."""

    name = "legality"
    counts = {
        search.name: illegal
        for search in look.evaluation.protocol.searches
        if (illegal := look.evaluation.details.get(search.name, {}).get("illegal")) is not None
    }
    for search, illegal in counts.items():
        if bool(illegal.any()):
            rows = illegal.nonzero().squeeze(1)
            evidence = (
                f"{int(illegal.sum())} outputs of {search} on {len(rows)} of {len(illegal)} samples are outside "
                "the ball or the box or have NaN; none of them was counted"
            )
            return Check(
                name,
                "FAIL",
                evidence,
                "use an attack that projects onto the ball and the box, with finite gradients",
                first_rows(rows),
            )
    if len(counts) < len(look.evaluation.protocol.searches):
        missing = [search.name for search in look.evaluation.protocol.searches if search.name not in counts]
        return Check(name, "NOT RUN", f"{', '.join(missing)} did not count illegal outputs", "evaluate again")
    return Check(
        name,
        "PASS",
        f"every output of {', '.join(counts)} lay in the ball and the box and was finite "
        f"(n = {look.evaluation.samples})",
    )
