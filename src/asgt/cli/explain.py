"""``asgt explain``: saliency maps of models, measured on the same images, and their figures and tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, cut, shown, unknown
from ..files import standing
from ..numbers import in_float32, number
from ..shortcuts import VIEWS, shortcut_named
from .parsing import Parser, add_allow, add_no_cache, allowed, given, heed_no_cache, listed
from .run_shortcut import shortcut_of_run

if TYPE_CHECKING:
    from ..comparison.comparing import Comparison
    from ..comparison.method_naming import Method
    from ..runs.run import Run
    from ..shortcuts import ShortcutView
    from .console import Console

__all__ = ["make_parser", "run"]

_SAMPLES = 256


def run(words: list[str]) -> int:
    """Runs ``asgt explain`` with the arguments that follow the verb."""

    asked = {
        name: value for name, value in given(make_parser(), words).items() if value is not None and value is not False
    }
    allow = allowed(asked)
    heed_no_cache(asked)
    out = Path(asked.get("out") or "comparison")
    _check(asked, out)

    from ..comparison.comparing import compare, read_methods
    from ..comparison.map_evidence import gather_maps
    from ..comparison.summary import summarise
    from ..devices import resolve_device
    from ..report.map_files import write_map_evidence
    from ..report.page import forget_report, write_report
    from ..saliency import ATTRIBUTIONS, attribution_class
    from .console import Console

    attributions = listed(asked.get("attribution", "gradient"))
    kinds = [attribution_class(name) for name in attributions]
    if "layer" in asked and not any(kind.looks_at_layer() for kind in kinds):
        looking = " or ".join(name for name, kind in ATTRIBUTIONS.items() if kind.looks_at_layer())
        raise InputError(
            f"--layer {cut(asked['layer'])}: none of the attributions uses a layer: add {looking} to "
            "--attribution, or remove the flag"
        )
    resolve_device(asked.get("device", "auto"))

    console = Console()
    runs = asked["runs"]
    places = _explain(read_methods(runs), attributions, asked, allow, console)

    methods = read_methods(runs)
    comparison: Comparison | None = None
    if all(run.evaluations for method in methods for run in method.runs):
        try:
            comparison = compare(runs)
        except InputError as error:
            console.say(f"no report page: {error}")
    else:
        console.say("no report page: not every run is evaluated; run asgt evaluate RUN, then asgt compare")

    if comparison is None:
        maps = gather_maps(methods, allow=allow)
        with standing(out):
            forget_report(out)
            write_map_evidence(maps, out)
        _refuse_removed(places)
        console.explained(maps.explained)
        console.say(f"tables and figures: {out}")
        return 0
    summary = summarise(comparison, allow=allow)
    page = write_report(summary, out, command=_again(words))
    _refuse_removed(places)
    console.compared(summary, page)
    return 0


def make_parser() -> Parser:
    """The flags of ``asgt explain`` with their help texts."""

    parser = Parser(
        prog="asgt explain",
        description="Measures saliency maps of models on the same images: a panel of measures that compares them, "
        "and the maps.",
        usage="asgt explain RUN… [OPTIONS]",
    )
    parser.add_argument("runs", nargs="*", type=str, help="finished run folders of asgt train, evaluated or not")
    parser.add_argument(
        "--samples", type=int, help=f"number of test images, from the first on (default: {_SAMPLES}, or all)"
    )
    parser.add_argument(
        "--attribution",
        type=str,
        help="attribution methods, such as gradient,ig,smoothgrad or your package.module:Class (default: gradient)",
    )
    parser.add_argument(
        "--eps",
        type=str,
        help="radius of the attack on the maps, at a quarter and at the whole of it (default: the eps of most "
        "trainings)",
    )
    parser.add_argument("--layer", type=str, help="the layer for gradcam (default: the last feature map)")
    parser.add_argument(
        "--shortcut",
        type=str,
        help="what to plant in the images of runs that were trained without a shortcut, as patch:0.99,size=4 (other "
        "runs tell their own)",
    )
    parser.add_argument(
        "--shortcut_view",
        type=str,
        help="which test images are explained: with the shortcut of the true class (aligned, the default where there "
        "is one), of a random class (random), of a random wrong class (reversed), or none (absent)",
    )
    parser.add_argument(
        "--batch_size", type=int, help="images, or copies of them, in a pass (default: 64, fewer large ones)"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--model", type=str, help="your package.module:factory, needed again for its runs")
    add_allow(parser)
    add_no_cache(parser)
    parser.add_argument(
        "--out", type=str, default="comparison", help="output folder for the page, its tables and figures"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue interrupted explanations, and reuse finished ones with the same settings",
    )
    return parser


def _refuse_removed(places: Sequence[Path]) -> None:
    """Refuses to end as if all was well where somebody removed an explanation meanwhile."""

    for folder in places:
        if not (folder / "result.json").exists():
            raise InputError(f"{folder} was removed while asgt explain was running: run it again")


def _check(asked: dict[str, Any], out: Path) -> None:
    """Checks the flags that can be checked without importing torch."""

    if not asked.get("runs"):
        raise InputError("no run folder is given: asgt explain RUN…")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: give a folder to --out")
    for name in ("samples", "batch_size"):
        if asked.get(name, 1) < 1:
            raise InputError(f"--{name.replace('_', '-')} {shown(asked[name])}: must be at least 1")
    if "eps" in asked:
        in_float32(number(asked["eps"], "--eps"), "--eps")
    if not listed(asked.get("attribution", "gradient")):
        raise InputError("--attribution names nothing: gradient is the default")
    if (view := asked.get("shortcut_view")) is not None and view not in VIEWS:
        raise unknown("--shortcut-view", view, VIEWS)
    if "shortcut" in asked:
        shortcut_named(asked["shortcut"])


def _explain(
    methods: Sequence[Method],
    attributions: Sequence[str],
    asked: dict[str, Any],
    allow: Sequence[str],
    console: Console,
) -> list[Path]:
    """Explains every run by every attribution, or takes up what is there; returns the folders of the explanations."""

    from ..comparison.map_evidence import asked_eps
    from ..data import batch_that_fits
    from ..devices import resolve_device
    from ..models.footprint import refuse_batch
    from ..names import viewed
    from ..runs.explain_run import explain_run
    from ..runs.run import load_run
    from ..saliency import attribution_class
    from ..training.run_folder import RunFolder

    usual_eps, norm = asked_eps(methods)
    runs = [(method, run) for method in methods for run in method.runs]
    planted = {run.folder: _planted(run, asked) for _, run in runs}
    places = []
    for method, run in runs:
        shortcut, view = planted[run.folder]
        model, data, config, _ = load_run(run.folder, allow=allow, progress=console)
        if shortcut is not None:
            shortcut_named(shortcut).check(data.test.shape, len(data.test.classes))
        for attribution in attributions:
            kept = run.explanations.get(viewed(attribution, view)) if "resume" in asked else None
            samples = asked.get("samples") or (kept.samples if kept else min(_SAMPLES, len(data.test)))
            if samples > len(data.test):
                raise InputError(f"--samples {shown(samples)}: the test split has {len(data.test)} images")
            batch = min(asked.get("batch_size") or batch_that_fits(data.test, 64), samples)
            refuse_batch(model, data.test.shape, batch, resolve_device(asked.get("device", "auto")))
            eps = number(asked["eps"], "--eps") if "eps" in asked else kept.eps if kept else usual_eps
            layer = None
            if attribution_class(attribution).looks_at_layer():
                layer = asked.get("layer", kept.settings.get("layer") if kept else None)
            console.say(f"{method.name}, seed {run.seed}: {viewed(attribution, view)}")
            places.append((folder := RunFolder(run.folder)).explanation(attribution, view))
            explain_run(
                folder,
                model,
                data.test,
                config.data,
                samples=samples,
                rows=kept.ids if kept and "samples" not in asked else None,
                eps=eps,
                norm=kept.norm if kept else norm,
                attribution=attribution,
                shortcut=shortcut,
                shortcut_view=view,
                layer=layer,
                batch_size=asked.get("batch_size"),
                device=asked.get("device", "auto"),
                resume="resume" in asked,
                progress=console,
            )
    return places


def _planted(run: Run, asked: dict[str, Any]) -> tuple[str | None, ShortcutView]:
    """What is planted in the test images of a run, and the view in which they are explained.

    Raises:
        InputError: the run was trained with another shortcut than is asked for, or a view is asked for without one.
    """

    view = asked.get("shortcut_view")
    shortcut = shortcut_of_run(run.folder, run.config.shortcut, asked.get("shortcut"), view, run.result.start)
    return shortcut, "absent" if shortcut is None else view or "aligned"


def _again(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(["asgt", "explain", *words])
