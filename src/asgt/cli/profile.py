"""``asgt profile``: the cost of a training step, in passes and in seconds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from ..capacity import refuse_time
from ..errors import InputError, cut, shown
from ..training.config import METHOD_SETTINGS, TrainConfig
from ..training.method_registry import ATTACKS, METHODS, known_settings, listens_to, part_settings
from .parsing import Parser, add_allow, add_settings, allowed, given

__all__ = ["make_parser", "run"]

_STEP = ("optimizer", "clip_norm", "label_smoothing", "class_weights")
"""The settings of the training that change what a step costs."""

_SETTINGS = {"model", "method", "width", "dropout", "batch_size", "device", *_STEP, *METHOD_SETTINGS} - {"warmup"}


def run(words: list[str]) -> int:
    """Runs ``asgt profile`` with the arguments that follow the verb."""

    asked = {name: value for name, value in given(make_parser(words), words).items() if value is not None}
    allow = allowed(asked)
    shape = _shape(asked.pop("data_shape", "3x32x32"))
    classes, repetitions = asked.pop("classes", 10), asked.pop("repetitions", 5)
    for name, value, least in (("classes", classes, 2), ("repetitions", repetitions, 1)):
        if value < least:
            raise InputError(f"--{name} {shown(value)}: must be at least {least}")
    configs = _configs(asked, allow)
    # A forward and a backward pass, of which none takes less than 10 µs.
    what = f"--repetitions {shown(repetitions)} of {len(configs)} methods"
    refuse_time(min(repetitions, 10**30) * len(configs) * 2e-5, what, "use fewer --repetitions")

    import torch

    from ..comparison.method_naming import method_names
    from ..devices import place, resolve_device
    from ..memory import prepare
    from ..models import MODELS, build_model
    from ..models.footprint import refuse_batch, refuse_model
    from ..training.foreign import check_takes_targets
    from ..training.methods import build_objective
    from ..training.optimizers import make_optimizer
    from ..training.targets import targets_of
    from ..training.timing import profile_step
    from .console import Console

    prepare()
    first, device = configs[0], resolve_device(configs[0].device)
    options = {name: value for name in ("width", "dropout") if (value := getattr(first, name)) is not None}
    refuse_model(
        first.model, MODELS.get(first.model), shape, classes, batch=first.batch_size, trained=True, options=options
    )
    objectives = [build_objective(config) for config in configs]
    for objective in objectives:
        check_takes_targets(objective, first)
    x = torch.rand(first.batch_size, *shape, device=device)
    y = torch.arange(first.batch_size, device=device) % classes
    # No class of random images is rarer than another.
    soft = targets_of(first, torch.arange(classes, device=device), range(classes))
    model = place(build_model(first.model, shape, classes, **options), device, x).train()
    if first.batch_size == 1 and any("BatchNorm" in type(module).__name__ for module in model.modules()):
        raise InputError(f"{first.model} has batch normalisation: --batch-size must be at least 2")

    refuse_batch(model, shape, first.batch_size, device, trained=True)
    optimizer = make_optimizer(first.optimizer, model.parameters(), {**first.optimizer_settings(), "lr": 1e-6})
    time_step = partial(profile_step, repetitions=repetitions, targets=soft, clip_norm=first.clip_norm)
    profiles = [
        (name, time_step(objective, model, x, y, optimizer))
        for objective, name in zip(objectives, method_names(configs), strict=True)
    ]
    size = "×".join(map(str, shape))
    Console().profiled(
        f"{first.model} on {first.batch_size} images of {size}, {device}, {torch.get_num_threads()} CPU threads; "
        f"medians of {repetitions}; a forward pass and a backward pass to the images count as one pass "
        "each, a backward pass to the weights as two",
        profiles,
    )
    return 0


def make_parser(words: Sequence[str] = ()) -> Parser:
    """The flags of ``asgt profile`` with their help texts, and those of methods that the command line names."""

    parser = Parser(
        prog="asgt profile",
        description="Measures the time of training steps on random images, alternating with their passes alone. "
        "Default: all methods.",
        usage="asgt profile [--method M] [--model M] [--data-shape CxHxW] [--batch-size N] [OPTIONS]",
    )
    parser.add_argument("--data_shape", type=str, help="channels x height x width of the images (default: 3x32x32)")
    parser.add_argument("--classes", type=int, help="number of logits of the model (default: 10)")
    parser.add_argument("--repetitions", type=int, help="number of timed steps of each method (default: 5)")
    add_allow(parser)
    skipped = {field.name for field in dataclasses.fields(TrainConfig)} - _SETTINGS
    add_settings(parser, words, skip=skipped)
    return parser


def _configs(asked: dict[str, Any], allow: tuple[str, ...]) -> list[TrainConfig]:
    if "method" in asked:
        return [TrainConfig.of(asked).resolved(allow=allow)]

    # Of all methods, each takes what it listens to.
    configs = []
    settings = {*METHOD_SETTINGS, *known_settings()}
    for method in METHODS:
        for attack in [asked["attack"]] if "attack" in asked else _attacks():
            listened = listens_to(method, attack)
            heard = {name: value for name, value in asked.items() if name not in settings - listened}
            inside = {"attack": attack} if "attack" in listened else {}
            config = TrainConfig.of(heard | inside | {"method": method}).resolved(allow=allow)
            if config not in configs:
                configs.append(config)
    return configs


def _attacks() -> list[str]:
    """An attack of each class, those of a single step first: attacks of the same class cost the same."""

    first = {part.place: name for name, part in reversed(ATTACKS.items())}
    return sorted(first.values(), key=lambda name: "steps" in part_settings(ATTACKS[name], "attack"))


def _shape(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"[1-9]\d{0,17}x[1-9]\d{0,17}x[1-9]\d{0,17}", text, re.ASCII):
        raise InputError(f"--data-shape {cut(text)}: give channels, height and width, such as 3x32x32")
    channels, height, width = map(int, text.split("x"))
    return channels, height, width
