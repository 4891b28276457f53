"""``asgt reproduce``: a grid of methods and seeds, trained, evaluated and compared on one page."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from ..datasets import DATA_SETS, data_set
from ..errors import InputError, cut, shown, unknown
from ..numbers import number
from ..records import record_of
from ..shortcuts import SHORTCUTS
from ..training.tracker_registry import trackers_help
from .parsing import Parser, add_allow, add_no_cache, allowed, given, heed_no_cache, listed
from .stopping import stopping

__all__ = ["make_parser", "run"]

_MOST_WORKERS = 1000
"""The largest number of workers: more than any machine has cores, or a cluster starts at once for one grid."""


def run(words: list[str]) -> int:
    """Runs ``asgt reproduce`` with the arguments that follow the verb."""

    asked = {
        name: value for name, value in given(make_parser(), words).items() if value is not None and value is not False
    }
    allow = allowed(asked)
    heed_no_cache(asked)
    if "grid" not in asked:
        raise InputError(f"no grid is given: asgt reproduce {', '.join(_grids())} or FILE.yaml")
    for name in ("workers", "seeds"):
        if asked.get(name, 1) < 1:
            raise InputError(f"--{name} {shown(asked[name])}: must be at least 1")
    if (workers := asked.get("workers", 1)) > _MOST_WORKERS:
        raise InputError(
            f"--workers {shown(workers)}: each process needs at least 0.5 GB of memory: use at most "
            f"{_MOST_WORKERS:,}, and one for each core is enough"
        )

    if (executor := asked.get("executor", "local")) not in (known := ("local", "slurm")):
        raise unknown("executor", executor, known)
    if executor == "local" and "slurm" in asked:
        raise InputError(
            f"--slurm {asked['slurm']}: the local executor does not use it: remove the flag, or add --executor slurm"
        )
    keep = Path(asked["keep"]) if "keep" in asked else None

    from ..experiments.preset import load_preset

    preset = load_preset(asked["grid"], asked.get("scale"), _pairs("set", asked), allow=allow)
    preset = preset.on(
        data=_data(asked, preset.data),
        seeds=asked.get("seeds"),
        protocols=listed(asked["protocols"]) if "protocols" in asked else None,
        device=asked.get("device"),
        tracker=asked.get("tracker"),
    )
    out = Path(asked.get("out") or f"reproduce/{preset.name}")

    from ..devices import resolve_device
    from .console import Console

    resolve_device(asked.get("device", "auto"))
    console = Console()
    if asked.get("dry_run"):
        from ..experiments.budget import pace
        from ..experiments.grid import plan

        console.planned(plan(preset, out, console, allow=allow), out, pace(preset.methods[0]))
        return 0

    from ..experiments.reproduction import reproduce

    with stopping() as should_stop:
        reproduce(
            preset,
            out,
            workers=asked.get("workers"),
            executor=executor,
            slurm=_pairs("slurm", asked),
            keep=keep,
            allow=allow,
            command=shlex.join(["asgt", "reproduce", *words]),
            should_stop=should_stop,
            progress=console,
            present=console.compared,
        )
    return 0


def make_parser() -> Parser:
    """The flags of ``asgt reproduce`` with their help texts."""

    parser = Parser(
        prog="asgt reproduce",
        description="Trains and evaluates a grid of methods and seeds, and makes one page. Run the same command "
        "again to continue.",
        usage=f"asgt reproduce {'|'.join(_grids())}|FILE.yaml [--scale quick|laptop|tuned|paper] [OPTIONS]",
    )
    parser.add_argument("grid", nargs="?", type=str, help=f"{', '.join(_grids())}, or a YAML file of your own grid")
    parser.add_argument("--scale", type=str, help="quick (default), laptop, tuned, paper, variants or faint")
    folders = " or ".join(dict.fromkeys(name for name in map(_data_of, _grids()) if data_set(name).hub is not None))
    parser.add_argument("--data", type=str, help=f"the folder that holds {folders} (default: ASGT_DATA, or the hub)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: from the grid)")
    parser.add_argument(
        "--protocols",
        type=str,
        help="evaluation protocols of every run, such as paper,pgd,standard; an earlier version is written "
        "standard@1 (default: from the grid)",
    )
    parser.add_argument(
        "--set", type=str, help="settings of asgt train for every run, such as momentum=0.9,target=log_prob"
    )
    parser.add_argument("--workers", type=int, help="number of runs at the same time (default: one for each core)")
    parser.add_argument("--executor", type=str, help="local (default) or slurm, with one job for each run")
    parser.add_argument("--slurm", type=str, help="options for slurm, such as timeout_min=60,slurm_partition=gpu")
    parser.add_argument(
        "--keep", type=str, help="also save a small result file of each run in this folder, under the grid's name"
    )
    parser.add_argument("--device", type=str, help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    parser.add_argument(
        "--tracker", type=str, help=f"log every training to {trackers_help()}, or several, separated by commas"
    )
    parser.add_argument("--out", type=str, help="where the run folders and the page go (default: reproduce/GRID)")
    add_allow(parser)
    add_no_cache(parser)
    parser.add_argument(
        "--dry_run", action="store_true", help="list the runs with their passes and times, and run nothing"
    )
    return parser


def _grids() -> list[str]:
    """The experiments that have a preset, told by the names of the files: a help text imports nothing heavy."""

    presets = Path(__file__).parents[1] / "experiments" / "presets"
    names = {file.stem.rpartition("-")[0] for file in presets.glob("*.yaml")}
    return sorted(names, key=lambda name: (name.partition("-")[2], [*DATA_SETS].index(_data_of(name))))


def _data_of(grid: str) -> str:
    """The data set of an experiment: ``digits-shortcuts`` is on ``digits``."""

    return grid.partition("-")[0]


def _pairs(flag: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The pairs of a flag that takes ``name=value,…``; values are as in YAML."""

    from ..files import plain_value

    parts: list[str] = []
    for part in filter(None, asked.get(flag, "").split(",")):
        # Some settings are several numbers, as class_weights=0.5,2,1, and a shortcut has settings of its own.
        if parts and (("=" not in part and _is_number(part)) or _is_of_shortcut(parts[-1], part)):
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    pairs: dict[str, Any] = {}
    for pair in parts:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise InputError(f"--{flag} {cut(asked[flag])}: give pairs, as name=value,name=value")
        try:
            known = name.strip().replace("-", "_")
            if known in pairs:
                raise InputError(f"{cut(known)} is given twice: remove one")
            pairs[known] = plain_value(value)
        except InputError as error:
            raise InputError(f"--{flag} {cut(pair)}: {error}") from error
    return pairs


def _is_of_shortcut(before: str, part: str) -> bool:
    """Whether a pair is a setting of the shortcut that is named before it, as in ``shortcut=patch:0.99,size=4``."""

    name, _, shortcut = before.partition("=")
    kind = SHORTCUTS.get(shortcut.partition(":")[0].strip())
    if name.strip() != "shortcut" or kind is None:
        return False
    return part.partition("=")[0].strip() in {setting.name for setting in record_of(kind, "shortcut").settings}


def _is_number(text: str) -> bool:
    try:
        number(text.strip(), "")
    except InputError:
        return False
    return True


def _data(asked: dict[str, Any], name: str) -> str | None:
    """The folder of the data where ``--data`` names one: it, or the one in it that is called like the data set."""

    if "data" not in asked:
        return None
    if name not in DATA_SETS or data_set(name).hub is None:
        raise InputError(f"--data {asked['data']}: {name} needs no folder, remove the flag")
    place = Path(asked["data"])
    if not place.is_dir():
        raise InputError(f"--data {place}: no such folder: give an existing one")
    return os.fspath(place / name if (place / name).is_dir() else place)
