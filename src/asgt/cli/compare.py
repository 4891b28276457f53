"""``asgt compare``: the report of any run folders."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..names import is_foreign
from .parsing import Parser, add_allow, add_no_cache, allowed, given, heed_no_cache

__all__ = ["make_parser", "run"]


def run(words: list[str]) -> int:
    """Runs ``asgt compare`` with the arguments that follow the verb."""

    asked = given(make_parser(), words)
    allow = allowed(asked)
    heed_no_cache(asked)
    runs, out = asked.get("runs") or [], Path(asked.get("out") or "comparison")
    if not runs:
        raise InputError("no run folder is given: asgt compare RUN…")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder to --out")

    from ..comparison.comparing import compare
    from ..comparison.summary import summarise
    from ..report.page import write_report
    from .console import Console

    summary = summarise(compare(runs), allow=allow)
    page = write_report(summary, out, command=_again(runs, out, allow))
    Console().compared(summary, page)
    return 0


def make_parser() -> Parser:
    """The flags of ``asgt compare`` with their help texts."""

    parser = Parser(
        prog="asgt compare",
        description="One page of several runs: tables, robustness curves, saliency maps, training curves, warnings.",
        usage="asgt compare RUN… [--out DIR] [--model M]",
    )
    parser.add_argument("runs", nargs="*", type=str, help="run folders of asgt train, each evaluated")
    parser.add_argument("--out", type=str, default="comparison", help="output folder for report.html and figures/")
    parser.add_argument("--model", type=str, help="your package.module:factory, needed again for its saliency maps")
    add_allow(parser)
    add_no_cache(parser)
    return parser


def _again(runs: list[str], out: Path, allow: Sequence[str]) -> str:
    flags = [word for name in allow for word in ("--model" if is_foreign(name) else "--allow", name)]
    return shlex.join(["asgt", "compare", *runs, "--out", str(out), *flags])
