"""``asgt verify``: are the files of a run what was written?"""

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
        "--accept", action="store_true", help="seal intended edits as they are now; every page says so from then on"
    )
    asked = given(parser, words)
    if not (places := asked.get("runs")):
        raise InputError("nothing to verify: asgt verify RUN…")

    from ..runs.verifying import accept, verify
    from .console import Console

    console = Console()
    look = accept if asked.get("accept") else verify
    verified = [each for place in places for each in look(place)]
    console.verified(verified)
    broken = [each for each in verified if not each.is_sound]
    if broken:
        files = sum(finding.state in ("changed", "damaged", "gone") for each in broken for finding in each.findings)
        raise InputError(
            f"{files} file(s) in {len(broken)} of {len(verified)} place(s) are not what was written: see above for each"
        )
    return 0
