"""``asgt evaluate``: accuracy under attack over a grid of ε, for a run folder or for any model and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..datasets import data_set
from ..errors import InputError, cut, shown, unknown
from ..files import read_sealed
from ..names import is_foreign
from ..shortcuts import VIEWS, ShortcutView
from .assembly import PARTS, add_parts, assemble, listed_numbers
from .parsing import Parser, add_allow, add_no_cache, allowed, given, heed_no_cache
from .run_shortcut import shortcut_of_run

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data import Images
    from ..evaluation.outcomes import Evaluation
    from .console import Console

__all__ = ["make_parser", "run"]

_L2_EPSILONS = "0.25,0.5,1,1.5,2"
_PLANTED = "planted"
"""Of a finished evaluation that is resumed: the shortcut that was planted, for a run without one of its own."""
_ALL = "all"
"""Of ``--shortcut-view``: all four test sets in one call."""


def run(words: list[str]) -> int:
    """Runs ``asgt evaluate`` with the arguments that follow the verb."""

    asked = {
        name: value for name, value in given(make_parser(), words).items() if value is not None and value is not False
    }
    allow = allowed(asked)
    heed_no_cache(asked)
    _check(asked)
    protocol = _protocol(asked)
    out = Path(asked["out"]) if "out" in asked else _evidence_of(asked, protocol)
    asked = _as_before(out) | asked if "resume" in asked else asked

    from rich.markup import escape

    from ..data import batch_that_fits, to_unit
    from ..devices import place, resolve_device
    from ..evaluation.outcomes import checked_grid
    from ..evaluation.protocols import own_attack, protocol_named
    from ..evaluation.tracing import checked_trace
    from ..memory import prepare
    from ..models.footprint import refuse_batch
    from .console import Console

    norm = asked.get("norm")
    if norm not in (None, "linf", "l2"):
        raise InputError(f"--norm {cut(norm)}: use linf or l2")
    named = protocol_named(protocol, norm or "linf")
    if asked.get("exhaustive") and not named.worst_case:
        raise InputError(
            f"--exhaustive has no effect in protocol {protocol}, which attacks at every eps: remove the flag"
        )
    if "trace" in asked and "attack" not in asked:
        checked_trace(asked["trace"], named)
    device = resolve_device(asked.get("device", "auto"))
    if asked.get("epsilons"):
        # Before the data is read; whether a radius fits the norm of the run, only the run says.
        checked_grid(listed_numbers(asked["epsilons"], "epsilons"), norm or "l2")

    prepare()
    console = Console()
    if "run" in asked:
        model, images, shortcut, data, trained_norm, warnings = _from_run(asked, allow, console)
        lines: list[str] = []
    else:
        assembly = assemble(asked, console, allow)
        model, images, lines = assembly.model, assembly.images, assembly.lines
        shortcut, data, trained_norm, warnings = asked.get("shortcut", asked.get(_PLANTED)), asked["data"], "linf", []
    norm = norm or trained_norm

    views = _views(images, shortcut, asked)
    selection = f"all {len(images)} images"
    if (count := asked.get("samples")) is not None:
        rows, selection = _sampled(images, count, console)
        views = {view: images[rows] for view, images in views.items()}
    grid = asked.get("epsilons") or (_L2_EPSILONS if norm == "l2" else data_set(data).epsilons)

    images = next(iter(views.values()))
    batch = asked.get("batch_size") or batch_that_fits(images)
    refuse_batch(model, images.shape, min(batch, len(images)), device)
    for line in lines:
        console.out.print(escape(line), soft_wrap=True)  # one line each, however wide the terminal
    attacks = [own_attack(name, norm) for name in asked.get("attack", [])]
    settings = {"epsilons": listed_numbers(grid, "epsilons"), "norm": norm, "selection": selection}
    model = place(model, device, to_unit(images.pixels[:2]))
    on_device = {view: images.to(device) for view, images in views.items()}
    evaluations = _evaluated(model, on_device, attacks or protocol, out, settings, asked, console=console)
    folders = [_folder_of(out, view, asked) for view in evaluations]
    if len(evaluations) == 1:
        (evaluation,) = evaluations.values()
        console.evaluated(evaluation, data, folders[0], warnings)
    else:
        console.evaluated_on_views(evaluations, data, folders, warnings)
    return 0


def _evaluated(
    model: nn.Module,
    views: Mapping[str, Images],
    attacks: Any,
    out: Path,
    settings: Mapping[str, Any],
    asked: Mapping[str, Any],
    *,
    console: Console,
) -> dict[str, Evaluation]:
    """The evaluation on each of the test sets, in their order, each with evidence in a folder of its own."""

    from ..evaluation.curve import evaluate
    from ..evaluation.shards import claim_folder
    from ..plugins import imported

    resume, checks = asked.get("resume", False), [imported(name, "check") for name in asked.get("check", [])]
    if len(views) > 1:  # before the first takes its time
        for view in views:
            claim_folder(_folder_of(out, view, asked), resume)
    return {
        view: evaluate(
            model,
            images,
            attacks,
            **settings,
            seed=asked.get("seed", 0),
            exhaustive=asked.get("exhaustive", False),
            thorough=asked.get("thorough", False),
            trace=asked.get("trace"),
            checks=checks,
            batch_size=asked.get("batch_size"),
            folder=_folder_of(out, view, asked),
            resume=resume,
            shortcut_view=view,
            progress=console,
        )
        for view, images in views.items()
    }


def _folder_of(out: Path, view: str, asked: Mapping[str, Any]) -> Path:
    """Where the evidence on a test set goes: of all of them, beside that of the images as they are."""

    if asked.get("shortcut_view") != _ALL or view == "absent":
        return out
    named = out if out.name not in ("", "..") else out.resolve()  # as "." has no name
    return named.with_name(f"{named.name}+{view}")


def make_parser() -> Parser:
    """The flags of ``asgt evaluate`` with their help texts."""

    parser = Parser(
        prog="asgt evaluate",
        description="Measures accuracy under attack over a grid of eps. Prints 95 % intervals and saves the outcome "
        "of each sample.",
        usage="asgt evaluate RUN | --model M [--weights FILE] --data D --out DIR [OPTIONS]",
    )
    _add_subject(parser)
    parser.add_argument(
        "--protocol",
        type=str,
        default="pgd",
        help="paper, pgd, standard or autoattack, each in its newest version; an earlier version is written "
        "standard@1 (default: pgd)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="with --protocol standard, omit the audit: protocol standard-quick, not a robustness claim",
    )
    parser.add_argument(
        "--attack",
        action="append",
        type=str,
        help="your own attack instead of a protocol, as package.module:Class; repeat the flag for a worst "
        "case over several",
    )
    parser.add_argument(
        "--check",
        action="append",
        type=str,
        help="also run your own check, as package.module:function; repeat the flag for several",
    )
    parser.add_argument(
        "--epsilons", type=str, help="the grid of eps, such as 0.05,0.1 or 2/255,8/255 (default: depends on the data)"
    )
    parser.add_argument("--norm", type=str, help="linf or l2 (default: the norm of the run's training, else linf)")
    parser.add_argument(
        "--samples",
        type=int,
        help="number of test images: the first N, or N drawn by class if the first are not representative "
        "(default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random starts (default: 0)")
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="in a worst case, attack every sample at every eps (default: 64 samples at one additional eps)",
    )
    parser.add_argument(
        "--thorough", action="store_true", help="also run the expensive checks: Square, twice the effort"
    )
    parser.add_argument(
        "--trace",
        type=int,
        help="record each step of the first gradient attack for N images, survivors and broken ones, to see whether it "
        "converged; it changes no number (default: none)",
    )
    parser.add_argument("--batch_size", type=int, help="images per forward pass (default: 256, fewer large ones)")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--out",
        type=str,
        help="output folder for the results of each sample (default: RUN/evaluation/PROTOCOL or …/PROTOCOL@VERSION; "
        "…+VIEW with a shortcut)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue an interrupted evaluation; for a finished one, only repeat the checks",
    )
    return parser


def _add_subject(parser: Parser) -> None:
    """Adds the flags that say which model is evaluated on which images."""

    parser.add_argument("run", nargs="?", type=str, help="a run folder of asgt train")
    parser.add_argument(
        "--model", type=str, help="name of the model, or hub:FOLDER_OR_ID; with RUN, your package.module:factory again"
    )
    parser.add_argument(
        "--weights",
        type=str,
        help="weights file: safetensors, or .pt with plain tensors only (default: the weights that the model brings)",
    )
    add_allow(parser)
    add_no_cache(parser)
    add_parts(parser)
    parser.add_argument(
        "--shortcut",
        type=str,
        help="the shortcut to plant, such as patch:0.99,size=4: with --model, that of its training images; a run that "
        "was trained with one defines its own",
    )
    parser.add_argument(
        "--shortcut_view",
        type=str,
        help="plant the shortcut of the training in the test images: that of the true class (aligned), of a random "
        "class (random), of a random wrong class (reversed), or none (absent, the default); all of these with all",
    )


def _check(asked: dict[str, Any]) -> None:
    if "run" in asked:
        for name in PARTS:
            if name in asked:
                raise InputError(
                    f"--{name.replace('_', '-')}: the run folder {asked['run']} defines it, remove the flag"
                )
    else:
        for name in ("model", "data", "out"):
            if name not in asked:
                raise InputError(f"--{name} is missing: give a run folder, or --model, --weights, --data and --out")
    if (view := asked.get("shortcut_view")) is not None and view not in (known := (*VIEWS, _ALL)):
        raise unknown("--shortcut-view", view, known)
    if ("shortcut" in asked and "shortcut_view" not in asked) or (
        "run" not in asked and "shortcut_view" in asked and "shortcut" not in asked
    ):
        raise InputError(
            "--shortcut and --shortcut-view must be given together: the first defines the shortcut, the "
            "second the test set"
        )
    for flag in ("attack", "check"):
        for name in asked.get(flag, []):
            if not is_foreign(name):
                raise InputError(
                    f"--{flag} {name}: not of the form package.module:name; give your own code in that form"
                )
    if "attack" in asked and asked.get("protocol", "pgd") != "pgd":
        raise InputError(f"--attack and --protocol {asked['protocol']} exclude each other: remove one of them")
    if ("mean" in asked) != ("std" in asked):
        raise InputError("--mean and --std must be given together")
    if not 0 <= asked.get("seed", 0) < 2**128:
        raise InputError(f"--seed {shown(asked['seed'])}: give a whole number from 0, with at most 38 digits")
    if asked.get("batch_size", 1) < 1:
        raise InputError(f"--batch-size {shown(asked['batch_size'])}: must be at least 1")


def _protocol(asked: dict[str, Any]) -> str:
    """The key of the requested protocol."""

    from ..evaluation.protocols import protocol_named

    protocol = protocol_named(asked.get("protocol", "pgd")).key
    if "quick" not in asked:
        return protocol
    if "attack" in asked or protocol != "standard":
        other = "--attack" if "attack" in asked else f"protocol {protocol}"
        raise InputError(f"--quick is an option of --protocol standard only, not of {other}: remove the flag")
    return "standard-quick"


def _evidence_of(asked: dict[str, Any], protocol: str) -> Path:
    """The folder of an evaluation in a run's own."""

    from ..evaluation.protocols import OWN, stored_name
    from ..training.run_folder import RunFolder

    stored_as, view = OWN if "attack" in asked else stored_name(protocol), asked.get("shortcut_view", "")
    return RunFolder(asked["run"]).evaluation(stored_as, "" if view == _ALL else view)


def _views(images: Images, shortcut: str | None, asked: dict[str, Any]) -> dict[str, Images]:
    """The test images with the shortcut as each view that was asked for has it."""

    from ..data import shortcut_view

    view = asked.get("shortcut_view", "absent")
    views: tuple[ShortcutView, ...] = (cast(ShortcutView, view),)
    if view == _ALL:  # first the images as they are, as every run is evaluated
        views = ("absent", *(each for each in VIEWS if each != "absent"))
    return {each: shortcut_view(images, shortcut, each) for each in views}


def _sampled(images: Images, count: int, console: Console) -> tuple[Tensor, str]:
    """The rows of so many of the images, and how they were chosen."""

    import torch

    from ..data import sampled_rows, selection_text

    if not 1 <= count <= len(images):
        raise InputError(f"--samples {shown(count)}: must be between 1 and {len(images)}, the number of test images")
    rows = sampled_rows(images, count)
    selection = selection_text(images, rows)
    if not rows.equal(torch.arange(count)):
        console.say(f"{selection}, always the same; not the first {count}, which may not represent all of them")
    return rows, selection


def _as_before(out: Path) -> dict[str, Any]:
    """What a finished evaluation was asked, so that it need not be asked again; empty where none is to be read."""

    path = out / "result.json"
    if not path.is_file():
        return {}
    kept = read_sealed(path)[0]
    try:
        curve = next(iter(kept["attacks"].values()))
        return {
            "epsilons": ",".join(repr(float(row["eps"])) for row in curve),
            "norm": str(kept["norm"]),
            "samples": int(kept["samples"]),
            "seed": int(kept["seed"]),
            "exhaustive": kept["exhaustive"] is True,
            **({"shortcut_view": str(view)} if (view := kept.get("shortcut_view")) else {}),
            **({_PLANTED: str(told)} if (told := kept.get("shortcut")) else {}),
        }
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError):
        return {}  # what is wrong with it, the evaluation says


def _from_run(
    asked: dict[str, Any], allow: Sequence[str], console: Console
) -> tuple[nn.Module, Images, str | None, str, Any, list[str]]:
    """The model of a run, its test images as they are, its shortcut, its data and norm, and what to warn of."""

    from ..runs.run import load_run, refuse_other_model, remarks_on
    from ..training.run_folder import RunFolder

    folder = RunFolder(asked["run"])
    if "model" in asked:
        refuse_other_model(folder.path, asked["model"])
    model, splits, config, result = load_run(folder.path, allow=allow, progress=console)
    named = asked.get("shortcut", None if config.shortcut else asked.get(_PLANTED))
    view = asked.get("shortcut_view")
    shortcut = shortcut_of_run(folder.path, config.shortcut, named, view, result.start)
    warnings = [*result.warnings, *remarks_on(folder)]
    return model, splits.test, shortcut, config.data, config.norm or "linf", warnings
