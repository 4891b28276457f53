"""``asgt verify``: checks the files of runs against their digests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from .parsing import Parser, given

if TYPE_CHECKING:
    from .console import Console

__all__ = ["make_parser", "run"]


def run(words: list[str]) -> int:
    """Runs ``asgt verify`` with the arguments that follow the verb."""

    asked = given(make_parser(), words)
    if not (places := asked.get("runs")):
        raise InputError("no folder is given: asgt verify RUN…")

    from ..runs.verifying import Verified, verify_place
    from .console import Console

    console, verified, refused = Console(), list[Verified](), list[InputError]()
    for place in _each_once(places, refused, console):
        try:
            verified.append(verify_place(place, accept=bool(asked.get("accept"))))
            console.verified(verified[-1])
        except InputError as error:
            refused.append(error)
            console.verified(error)

    broken = [each for each in verified if not each.is_sound]
    if len(refused) == 1 and not broken:
        raise refused[0]
    said = []
    if broken:
        files = sum(finding.state in ("changed", "damaged", "missing") for each in broken for finding in each.findings)
        said.append(f"{files} file(s) in {len(broken)} of {len(verified)} place(s) are changed, damaged or missing")
    if refused:
        said.append(f"{len(refused)} place(s) are refused")
    if said:
        raise InputError(f"{', and '.join(said)}: see the lines above")
    return 0


def make_parser() -> Parser:
    """The flags of ``asgt verify`` with their help texts."""

    parser = Parser(
        prog="asgt verify",
        description="Checks every file against its digest, and every number against the stored outcomes. Changes no "
        "file.",
        usage="asgt verify RUN… [--accept]",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=str,
        help="run folders, folders of evaluations, saved results, or folders that hold such",
    )
    parser.add_argument("--accept", action="store_true", help="accept intended edits; every later report mentions them")
    return parser


def _each_once(places: list[str], refused: list[InputError], console: Console) -> Iterator[Path]:
    """The folders that the user's arguments name, each run, evidence or saved result once; an argument without any is
    reported.

    ``RUN/*``, as a shell expands it, names the same run several times.
    """

    from ..runs.verifying import places_in

    seen = set()
    for word in places:
        try:
            found = places_in(word)
        except InputError as error:
            refused.append(error)
            console.verified(error)
            continue
        for place in found:
            if (real := os.path.realpath(place)) not in seen:
                seen.add(real)
                yield place
