"""``asgt train``: train a classifier and leave a run folder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..errors import InputError, InterruptedRunError
from ..files import read_yaml
from ..launch import rank
from ..names import refuse_unless_allowed
from ..training.config import TrainConfig, with_own_sizes
from .assembly import preprocessing_line
from .parsing import Parser, add_allow, allowed, given
from .stopping import stopping

__all__ = ["run"]


def run(words: list[str]) -> int:
    """Runs ``asgt train`` with the words that follow the verb."""

    parser = Parser(
        prog="asgt train",
        description="Trains a classifier and leaves a run folder: configuration, metrics, weights, checkpoint.",
        usage="asgt train [--data D] [--model M] [--method M] [OPTIONS]",
    )
    parser.add_argument("--config", type=str, help="a YAML file of the settings below; flags override it")
    parser.add_argument("--out", type=str, help="the run folder (default: runs/DATA-MODEL-METHOD-SEED)")
    parser.add_argument("--resume", action="store_true", help="go on from the run folder's last checkpoint")
    add_allow(parser)
    parser.add_class_arguments(TrainConfig, as_group=False)

    asked = given(parser, words)
    # Before a file adds its settings: a model of one's own is named on the command line.
    allow = allowed(asked)
    out, resume = asked.pop("out", None), asked.pop("resume", False)
    if file := asked.pop("config", None):
        settings = read_yaml(Path(file))
        TrainConfig.check_kinds(settings, file)
        asked = settings | asked
    config = TrainConfig(**asked)
    if out is None:
        name = config.data.rstrip("/").split("/")[-1]
        out = f"runs/{name}-{config.model.replace(':', '-')}-{config.method}-{config.seed}"

    # A resumed run is what it was begun as; what is said again must agree with it.
    stored = Path(out) / "config.yaml"
    if resume and stored.exists():
        kept = TrainConfig.load(stored)
        kept.refuse_other(asked, out)
        config = dataclasses.replace(kept, **asked)
    config = config.resolved()
    refuse_unless_allowed(config.model, allow, f"{out}/config.yaml" if resume and stored.exists() else str(file))

    from ..memory import prepare
    from ..training.trainer import train
    from ..training.world import is_joined
    from .console import Console

    prepare()
    console = Console()
    if config.model.startswith("hf:") and rank() == 0:
        from ..models import preprocessing

        if (own := preprocessing(config.model)) is not None:
            console.say(preprocessing_line(own, with_own_sizes(config.to_dict(), own), asked))
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
