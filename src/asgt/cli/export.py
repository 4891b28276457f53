"""``asgt export``: a finished run as a folder that others load, with its model card, here or on the hub."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from .parsing import Parser, add_allow, add_no_cache, allowed, given, heed_no_cache, listed

__all__ = ["make_parser", "run"]


def run(words: list[str]) -> int:
    """Runs ``asgt export`` with the arguments that follow the verb."""

    asked = {
        name: value for name, value in given(make_parser(), words).items() if value is not None and value is not False
    }
    allow = allowed(asked)
    heed_no_cache(asked)
    if "run" not in asked:
        raise InputError("no run folder is given: asgt export RUN --out DIR")
    if "out" not in asked:
        raise InputError("--out is missing: asgt export RUN --out DIR")
    repository = asked.get("push", "")
    if "private" in asked and not repository:
        raise InputError("--private has no effect without --push ORGANISATION/NAME: remove the flag, or add --push")

    from ..exporting import export_run, push_export
    from ..exporting.pushing import refuse_repository
    from ..memory import prepare
    from ..runs.run import refuse_other_model
    from .console import Console

    if "push" in asked:
        refuse_repository(repository)
    if "model" in asked:
        refuse_other_model(asked["run"], asked["model"])
    prepare()
    console = Console()
    export = export_run(
        asked["run"],
        Path(asked["out"]),
        formats=listed(asked.get("format", "")),
        license=asked.get("license", ""),
        name=repository,
        allow=allow,
        progress=console,
    )
    console.exported(export)
    if repository:
        console.pushed(repository, push_export(export.folder, repository, private="private" in asked))
    return 0


def make_parser() -> Parser:
    parser = Parser(
        prog="asgt export",
        description="Exports a finished run as a folder to share: safetensors, config.json, a model card with the "
        "measurements, and digests. asgt.from_pretrained and asgt evaluate --model hub:DIR load it; it "
        "contains no code.",
        usage="asgt export RUN --out DIR [--format F] [--license L] [--push ORGANISATION/NAME]",
    )
    parser.add_argument("run", nargs="?", type=str, help="a finished run folder of asgt train, evaluated or not")
    parser.add_argument("--out", type=str, help="output folder: new, empty, or that of an earlier export")
    parser.add_argument(
        "--format",
        type=str,
        help="also export the network: onnx, torch-export, or both as onnx,torch-export; written only if its "
        "logits on test images match PyTorch's to 1e-5",
    )
    parser.add_argument(
        "--license",
        type=str,
        help="license of the weights, by its name on the hub: mit, apache-2.0 (default: not stated)",
    )
    parser.add_argument(
        "--push", type=str, help="also upload the folder to this repository of the hub, as ORGANISATION/NAME"
    )
    parser.add_argument("--private", action="store_true", help="with --push, make a new repository private")
    parser.add_argument("--model", type=str, help="your package.module:factory, needed again to load the export")
    add_allow(parser)
    add_no_cache(parser)
    return parser
