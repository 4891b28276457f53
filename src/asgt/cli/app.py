"""``asgt app``: an interactive page, on this machine alone, that shows models by hand, an image at a time."""

from __future__ import annotations

import threading
import traceback
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, shown
from ..names import is_foreign
from .assembly import PARTS, add_parts, assemble
from .parsing import Parser, add_allow, add_no_cache, allowed, given, heed_no_cache

if TYPE_CHECKING:
    from ..app.bench import Bench
    from .console import Console

__all__ = ["make_parser", "run"]


def run(words: list[str]) -> int:
    """Runs ``asgt app`` with the arguments that follow the verb."""

    asked = {
        name: value for name, value in given(make_parser(), words).items() if value is not None and value is not False
    }
    allow = allowed(asked)
    heed_no_cache(asked)
    _check(asked)

    from rich.markup import escape

    from ..app.serving import listening, refuse_without_gradio, serve
    from ..memory import prepare
    from .console import Console

    refuse_without_gradio()
    prepare()
    console = Console()
    # Before anything is read: a port that is taken is known at once.
    with listening(asked.get("port")) as bound:
        bench = _bench(asked, allow, console)
        console.stop()
        for note in bench.notes:
            console.say(note)

        def ready(address: str) -> None:
            console.out.print(escape(f"{address} shows {len(bench.images)} images of {bench.data}; Ctrl-C stops it"))
            if "open" in asked:
                # Some browsers of a terminal would hold up the page until they are left.
                threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        def on_fault(error: BaseException) -> None:
            console.say("".join(traceback.format_exception(error)))

        serve(bench, bound, ready=ready, on_fault=on_fault)
    return 0


def make_parser() -> Parser:
    """The flags of ``asgt app`` with their help texts."""

    parser = Parser(
        prog="asgt app",
        description="An interactive page on this machine: choose, draw or upload an image, attack it, and see the "
        "predictions, maps and masks of one model or of several runs side by side. No request goes beyond the machine.",
        usage="asgt app RUN… | --model M [--weights FILE] --data D [OPTIONS]",
    )
    parser.add_argument("runs", nargs="*", type=str, help="finished run folders of one data set, evaluated or not")
    parser.add_argument("--model", type=str, help="its name, or hub:FOLDER_OR_ID; with RUN, names your own again")
    parser.add_argument(
        "--weights", type=str, help="weights as safetensors, or .pt that holds plain tensors (default: the model's own)"
    )
    add_parts(parser)
    parser.add_argument("--port", type=int, help="where the page is: 127.0.0.1:PORT (default: the first from 7860 on)")
    parser.add_argument("--open", action="store_true", help="also open the page in the browser")
    add_allow(parser)
    add_no_cache(parser)
    return parser


def _check(asked: dict[str, Any]) -> None:
    """Refuses what needs nothing heavy to be refused."""

    if asked.get("runs"):
        for name in PARTS:
            if name in asked:
                raise InputError(f"--{name.replace('_', '-')} is told by the run folders: remove the option")
        if "model" in asked and not is_foreign(asked["model"]):
            raise InputError(f"--model {shown(asked['model'])} is told by the run folders: remove the option")
    else:
        for name in ("model", "data"):
            if name not in asked:
                raise InputError(f"--{name} is missing: give run folders, or --model, --weights and --data")
    if ("mean" in asked) != ("std" in asked):
        raise InputError("--mean and --std belong together")
    if not 1 <= asked.get("port", 1) <= 65535:
        raise InputError(f"--port {shown(asked['port'])}: a port is a number from 1 to 65535")


def _bench(asked: dict[str, Any], allow: Sequence[str], console: Console) -> Bench:
    """The models and images that are asked for."""

    from ..app.bench import bench_of_model, bench_of_runs

    if asked.get("runs"):
        return bench_of_runs(asked["runs"], allow=allow, progress=console)
    assembly = assemble(asked, console, allow)
    return bench_of_model(
        asked["model"],
        assembly.model,
        assembly.images,
        asked["data"],
        settings=assembly.reading,
        notes=assembly.lines,
    )
