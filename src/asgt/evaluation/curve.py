"""Accuracy over ε: a protocol, or the user's attacks, on one model; every outcome is saved per sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..attacks import Attack, Norm
from ..data import Images, LabelledImages, as_images, batch_that_fits, check_test_set, refuse_other_classes
from ..errors import AsgtError, InputError
from ..files import digest_model
from ..inputs import trusted
from ..locks import locked
from ..modes import Classifier
from ..numbers import Number, whole
from ..progress import SILENT, Progress
from ..randomness import seed_of, seeded_globally
from .accuracy import class_count, correct, is_deterministic
from .checks import CheckFunction, run_checks
from .evaluator import Evaluator
from .outcomes import Evaluation, Request, checked_grid
from .protocols import PhasedSearch, Protocol, known_versions, own_protocol, protocol_named
from .shards import (
    claim_folder,
    finished_before,
    refuse_mixture,
    refuse_other_figures,
    write_result,
)
from .trace import Trace
from .tracing import checked_trace, traced

__all__ = ["VOTES", "Attacks", "evaluate", "robustness_curve"]

Attacks: TypeAlias = str | Protocol | Attack | Callable[..., Any] | Sequence[Attack | Callable[..., Any]]
"""The ``protocol`` argument of :func:`evaluate`: a protocol, its name, or attacks."""

VOTES = 9
"""Forward passes for each decision of a model that is not deterministic."""


def evaluate(
    model: nn.Module | Classifier,
    images: LabelledImages,
    protocol: Attacks = "pgd",
    *,
    epsilons: Sequence[Number] | Number,
    norm: Norm = "linf",
    worst_case: bool = True,
    seed: int = 0,
    exhaustive: bool = False,
    thorough: bool = False,
    checks: Sequence[CheckFunction] = (),
    trace: int | None = None,
    batch_size: int | None = None,
    folder: Path | str | None = None,
    resume: bool = False,
    selection: str = "",
    shortcut_view: str = "",
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluates a classifier over a grid of ε with a protocol, or with your own attacks.

    ::

        evaluation = asgt.evaluate(model, (x, y), "standard", epsilons=["2/255", "4/255", "8/255"])
        evaluation = asgt.evaluate(model, (x, y), [asgt.PGD(steps=100, restarts=3)], epsilons=["8/255"])
        print(evaluation)

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: the test images, as :func:`asgt.data.as_images` takes them: a pair of images (N, C, H, W) in [0, 1] and
            labels (N,), :class:`asgt.Images`, a ``Dataset`` or a ``DataLoader``.
        protocol: the name of a protocol (``"paper"``, ``"pgd"``, ``"standard"``, ``"standard-quick"``,
            ``"autoattack"``), of which the newest version is taken, or an earlier version as ``"standard@1"``; a
            :class:`asgt.Protocol`; or one attack or several, of :mod:`asgt.attacks` or of a library that calls them
            with images and labels, as torchattacks does: a function of ε that gives such an attack, or one whose
            attribute ``eps`` can be set. Attacks need no ``eps``.
        epsilons: the grid of radii, each above zero, in units of the range [0, 1]; ``"8/255"`` is accepted. In a worst
            case a fine grid costs little more.
        norm: the norm of ε; your own attacks must be defined in it.
        worst_case: with your own attacks, whether to compute a single curve, ``"worst-case"``: a sample is robust
            if all attacks and a probe along the margin's gradient fail. Otherwise each attack has its curve, under its
            name, from that attack alone.
        seed: the seed of the random starts, keyed by (seed, sample, attack, restart).
        exhaustive: in a worst case, attack every sample at every ε below its own too. Default: 64 random ones, each at
            one of them, and all at every one if more than 1 % of these break there.
        thorough: run the expensive checks too (:mod:`asgt.evaluation.checks`).
        checks: your own checks, run after the built-in ones: each a function of a
            :class:`asgt.evaluation.second_look.SecondLook` that returns an :class:`asgt.Check`.
        trace: of how many images to record each step of the first gradient attack, survivors and broken ones
            (:mod:`asgt.evaluation.tracing`): a look at whether it converged. It changes no number. Default: of none.
        batch_size: images per forward pass; no bearing on what is drawn. Default: 256, fewer large ones.
        folder: where to save the evidence. Default: nowhere.
        resume: take up what ``folder`` holds, if it was made of the same model, images and settings. Of a finished
            evaluation only the checks are run, the expensive ones too if they had been; and a trace is made again.
        selection: which images of a larger set these are, in words, for the result.
        shortcut_view: which of :func:`asgt.data.shortcut_views` these are; anything else than what they are is refused.
            Default: what they are.
        progress: receives the number of finished images.

    Raises:
        InputError: the images, the attacks, the grid, the model or the folder does not fit, or there is nothing to
            trace.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> evaluation = asgt.evaluate(model, (x, y), "pgd", epsilons=["2/255", "8/255"])
        >>> evaluation.robust_accuracy("8/255").n
        4
        >>> own = asgt.evaluate(model, (x, y), [asgt.PGD(steps=5), asgt.FGSM()], epsilons=[0.1])
        >>> list(own.outcomes)
        ['worst-case']
    """

    asked = _protocol(protocol, norm, worst_case)
    images = as_images(images, "images")
    view = check_test_set(images, shortcut_view)
    grid, seed = checked_grid(epsilons, norm), whole(seed, "seed")
    default = batch_that_fits(images)
    batch_size = default if batch_size is None else whole(batch_size, "batch_size")
    trace = None if trace is None else checked_trace(trace, asked, len(images))
    folder = None if folder is None else Path(folder)
    alone = nullcontext() if folder is None else locked(folder, "asgt evaluate", progress=progress)
    with trusted(), alone:
        _check(model, images, asked, batch_size, folder)
        request, clean = _request(model, images, asked, norm, grid, seed=seed, batch_size=batch_size)
        request = replace(request, exhaustive=exhaustive, selection=selection, shortcut_view=view)
        stored: dict[str, Any] | None = None
        if folder is not None:
            claim_folder(folder, resume)
            stored, was_thorough = finished_before(folder, request)
            refuse_mixture(folder, request)
            thorough |= was_thorough
            if trace is None and stored is not None and isinstance(stored.get("trace"), dict):
                trace = checked_trace(stored["trace"].get("asked"), asked, len(images))

        evaluator = Evaluator(
            model=model,
            images=images,
            request=request,
            clean=clean,
            batch_size=batch_size,
            folder=folder,
            progress=progress,
        )
        with _attacks_explained(asked):
            evaluation = evaluator.evaluated()
        if folder is not None and stored is not None:
            refuse_other_figures(folder, evaluation, stored)
        with _attacks_explained(asked), seeded_globally(seed_of("checks", seed), images.labels.device):
            said = run_checks(
                model, images, evaluation, more=checks, thorough=thorough, batch_size=batch_size, progress=progress
            )
        evaluation = replace(evaluation, checks=said)
        if trace is not None:
            evaluation = replace(evaluation, trace=_trace(model, images, evaluation, trace, batch_size, progress))
        if folder is not None:
            write_result(folder, evaluation)
    return evaluation


def _trace(
    model: nn.Module | Classifier,
    images: Images,
    evaluation: Evaluation,
    count: int,
    batch_size: int,
    progress: Progress,
) -> Trace | None:
    """The trace of an evaluation, if there is an image to trace."""

    with (
        _attacks_explained(evaluation.protocol),
        seeded_globally(seed_of("trace", evaluation.seed), images.labels.device),
    ):
        trace = traced(model, images, evaluation, count, batch_size=batch_size)
    if trace is None:
        progress.warn("no trace: the model gets no image right without an attack")
    return trace


@contextmanager
def _attacks_explained(protocol: Protocol) -> Iterator[None]:
    """Turns an exception of an external attack into one line that names it."""

    external = [attack.title for search in protocol.searches for attack in search.finders if attack.is_external]
    try:
        yield
    except AsgtError:
        raise
    except Exception as error:
        if not external:
            raise
        first = (str(error).splitlines() or [""])[0][:200]
        raise InputError(
            f"an external attack raised an exception ({', '.join(external)}): {type(error).__name__}: {first}"
        ) from error


def robustness_curve(
    model: nn.Module | Classifier, data: LabelledImages, *, attacks: Attacks = "pgd", **settings: Any
) -> Evaluation:
    """Deprecated: the former name of :func:`evaluate` for your own attacks.

    Args:
        model: as :func:`evaluate` takes it.
        data: the images, as :func:`evaluate` takes them.
        attacks: as ``protocol`` of :func:`evaluate`.
        settings: the other arguments of :func:`evaluate`.

    Raises:
        InputError: as :func:`evaluate`.

    Example:
        >>> import torch
        >>> import asgt
        >>> model = asgt.build_model("small_cnn", shape=(1, 8, 8), classes=10).eval()
        >>> x, y = torch.rand(4, 1, 8, 8), torch.randint(10, (4,))
        >>> import warnings
        >>> with warnings.catch_warnings(action="ignore"):
        ...     evaluation = asgt.robustness_curve(model, (x, y), attacks=asgt.PGD(steps=5), epsilons=[0.1])
        >>> list(evaluation.curve())
        [0.1]
    """

    warnings.warn("robustness_curve is deprecated: call asgt.evaluate with attacks", DeprecationWarning, stacklevel=2)
    return evaluate(model, data, attacks, **settings)


def _protocol(asked: Attacks, norm: Norm, worst_case: bool) -> Protocol:
    if isinstance(asked, str | Protocol):
        protocol = protocol_named(asked, norm) if isinstance(asked, str) else asked.in_norm(norm)
        if (versions := known_versions(protocol.name)) and not protocol.is_house:
            house = " or ".join(f"{each.name} v{each.version}" for each in versions)
            raise InputError(f"the protocol is called {protocol.name}, but it is not {house} of asgt: rename it")
        if not worst_case and protocol.worst_case:
            raise InputError(f"protocol {protocol.name} is a worst case: pass attacks for one curve per attack")
        return protocol
    return own_protocol(asked, norm, worst_case)


def _request(
    model: nn.Module | Classifier,
    images: Images,
    protocol: Protocol,
    norm: Norm,
    grid: tuple[float, ...],
    *,
    seed: int,
    batch_size: int,
) -> tuple[Request, Tensor]:
    """The request, and which clean samples are classified correctly, bool (N,)."""

    device = images.labels.device
    # A model that draws from the global generators draws the same again, and leaves them as they were.
    with seeded_globally(seed_of("classes", seed), device):
        classes = class_count(model, images)
    if (largest := int(images.labels.max())) >= classes:
        raise InputError(f"label {largest} is out of range: the model has {classes} classes, numbered from 0")
    refuse_other_classes(images, classes)
    for search in protocol.searches:
        possible = search.among(classes)
        if not possible.attacks or (isinstance(possible, PhasedSearch) and not possible.phases[0].attacks):
            raise InputError(f"{search.title} aims at classes that a model of {classes} does not have")

    with seeded_globally(seed_of("clean", seed), device):
        votes = VOTES if protocol.worst_case and not is_deterministic(model, images) else 1
        clean = correct(model, images, batch_size, votes=votes)[0].cpu()
    return Request(
        protocol=protocol,
        norm=norm,
        epsilons=grid,
        seed=seed,
        model=digest_model(model) if isinstance(model, nn.Module) else "",
        data=images.digest(),
        classes=classes,
        votes=votes,
    ), clean


def _check(
    model: nn.Module | Classifier, images: Images, protocol: Protocol, batch_size: int, folder: Path | None
) -> None:
    """Refuses what could not be evaluated, or not be told apart on disk."""

    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: must be at least 1")
    if images.pixels.dtype in (torch.float16, torch.bfloat16):
        raise InputError(
            "images in half precision can move outside the ball by rounding: pass float32 images, and "
            "cast inside the model"
        )
    if folder is None:
        return
    if not isinstance(model, nn.Module) or not model.state_dict():
        raise InputError(
            "stored evidence identifies a model by its weights: pass an nn.Module with weights, or no folder"
        )
    for attack in (attack for search in protocol.searches for attack in search.finders):
        if not attack.identity:
            raise InputError(
                f"stored evidence identifies {attack.title} by its name: give it one with Foreign(made=…, name=…)"
            )
