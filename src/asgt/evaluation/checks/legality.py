"""What leaves the ball or the box, or is NaN, breaks nothing."""

from __future__ import annotations

from ..check import Check
from ..second_look import SecondLook
from .grading import first_rows

__all__ = ["check_legality"]


def check_legality(look: SecondLook) -> Check:
    """What leaves the ball or the box, or is NaN, breaks nothing."""

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
                f"{int(illegal.sum())} outputs of {search} on {len(rows)} of {len(illegal)} samples left the ball or "
                "the box or held NaN; none of them was counted"
            )
            return Check(
                name, "FAIL", evidence, "an attack that projects back, with finite gradients", first_rows(rows)
            )
    if len(counts) < len(look.evaluation.protocol.searches):
        missing = [search.name for search in look.evaluation.protocol.searches if search.name not in counts]
        return Check(name, "NOT RUN", f"{', '.join(missing)} kept no count of illegal outputs", "evaluate again")
    return Check(
        name,
        "PASS",
        f"every output of {', '.join(counts)} lay in the ball and the box and was finite "
        f"(n = {look.evaluation.samples})",
    )
