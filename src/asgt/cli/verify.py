"""``asgt verify``: checks the files of runs against their digests."""

from __future__ import annotations

from ..errors import InputError
from .parsing import Parser, given

__all__ = ["run"]


def run(words: list[str]) -> int:
    """Runs ``asgt verify`` with the words that follow the verb."""

    parser = Parser(
        prog="asgt verify",
        description="Checks every file against its digest, and figures against their evidence. Changes nothing.",
        usage="asgt verify RUN… [--accept]",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=str,
        help="run folders, folders of evaluations, saved results, or folders that hold such",
    )
    parser.add_argument(
        "--accept", action="store_true", help="accept intended edits; every report mentions them from then on"
    )
    asked = given(parser, words)
    if not (places := asked.get("runs")):
        raise InputError("nothing to verify: asgt verify RUN…")

    from ..runs.verifying import verify
    from .console import Console

    console = Console()
    verified = [each for place in places for each in verify(place, accept=bool(asked.get("accept")))]
    console.verified(verified)
    broken = [each for each in verified if not each.is_sound]
    if broken:
        files = sum(finding.state in ("changed", "damaged", "missing") for each in broken for finding in each.findings)
        raise InputError(
            f"{files} file(s) in {len(broken)} of {len(verified)} place(s) are changed, damaged or missing: "
            "see the lines above"
        )
    return 0
