"""``asgt train``: trains a classifier and writes a run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError, InterruptedRunError, cut, shown
from ..files import read_yaml
from ..launch import rank
from ..names import is_foreign
from ..training.config import TrainConfig
from ..training.method_registry import known_settings
from .parsing import Parser, add_allow, add_no_cache, add_settings, allowed, given, heed_no_cache
from .stopping import stopping

__all__ = ["make_parser", "run"]


def run(words: list[str]) -> int:
    """Runs ``asgt train`` with the arguments that follow the verb."""

    asked = given(make_parser(words), words)
    # Before a file adds its settings: a model of one's own is named on the command line.
    allow = allowed(asked)
    heed_no_cache(asked)
    out, resume = asked.pop("out", None), asked.pop("resume", False)
    if file := asked.pop("config", None):
        settings = read_yaml(Path(file))
        is_own = not any(is_foreign(str((settings | asked).get(name, ""))) for name in ("method", "attack"))
        TrainConfig.check_kinds(settings, file, known_settings() if is_own else None)
        asked = settings | asked
    config = TrainConfig.of(asked)
    if config.from_run is not None:
        from ..training.starting import with_source

        config = with_source(config, out, resume=resume, allow=allow, asked=asked)
    if out is None:
        name = config.data.rstrip("/").split("/")[-1]
        method = config.method.replace(":", "-") if config.epochs else "as-given"
        parts = (name, config.model.replace(":", "-"), method, shown(config.seed))
        out = f"runs/{cut('-'.join(parts), 100)}"  # a file system takes 255 bytes

    # A resumed run is what it was begun as; what is said again must agree with it.
    stored = Path(out) / "config.yaml"
    if resume and stored.exists():
        kept = TrainConfig.load(stored)
        kept.refuse_other(asked, out)
        config = TrainConfig.of(kept.to_dict() | asked)
    config.refuse_foreign(allow, f"{out}/config.yaml" if resume and stored.exists() else str(file), flags=True)
    config = config.resolved(allow=allow)

    from ..memory import prepare
    from ..training.trainer import train
    from ..training.world import is_joined
    from .console import Console

    prepare()
    console = Console()
    try:
        with stopping() as should_stop:
            result = train(config, out, resume=resume, should_stop=should_stop, progress=console)
    except (InputError, InterruptedRunError) as error:
        # Once the processes have found each other, all raise what one does, and the main one says it.
        if rank() == 0 or not is_joined():
            raise
        return 130 if isinstance(error, InterruptedRunError) else 2

    if rank() == 0:
        console.trained(result)
    return 0


def make_parser(words: Sequence[str] = ()) -> Parser:
    """The flags of ``asgt train`` with their help texts, and those of methods that the command line names."""

    parser = Parser(
        prog="asgt train",
        description="Trains a classifier and writes a run folder: configuration, metrics, weights, checkpoint.",
        usage="asgt train [--data D] [--model M] [--method M] [OPTIONS]",
    )
    parser.add_argument("--config", type=str, help="a YAML file of the settings below; flags override it")
    parser.add_argument("--out", type=str, help="the run folder (default: runs/DATA-MODEL-METHOD-SEED)")
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint of the run folder")
    add_allow(parser)
    add_no_cache(parser)
    add_settings(parser, words)
    return parser
