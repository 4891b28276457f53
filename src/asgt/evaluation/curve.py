"""Accuracy over ε: a protocol, or attacks of one's own, on one model; every outcome kept per sample."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attacks import FGSM, Attack, Foreign, Norm, Whole
from ..attacks.attack import is_legal
from ..data import Images, LabelledImages, as_images, batches
from ..errors import InputError
from ..files import digest_model, read_json, write_json, write_tensors
from ..inputs import trusted
from ..modes import Classifier, evaluating
from ..numbers import Number, whole
from ..progress import SILENT, Progress
from ..randomness import SampleKeyed, seed_of, seeded, seeded_globally
from .accuracy import class_count, correct, predict, wavers
from .checks import THOROUGH, run_checks
from .engine import smallest_norms
from .outcomes import EXHAUSTIVE, SCHEMA, WORST_CASE, Evaluation, checked_grid, definition, evidence_key, kept_shard
from .protocols import Protocol, Search, protocol_named

__all__ = ["AUDITED", "evaluate", "robustness_curve"]

SHARD = 1024
"""Samples of a file of evidence: what a kill can cost, whatever the batch size.

Under several attacks an eighth of it; half of it where they are called whole, for small groups take them long.
"""

AUDITED = 64
"""Random samples that a worst-case search attacks at a random ε below their failure too."""

VOTES = 9
"""How often a model whose answers waver is asked, for each of them to count."""

_MISSED = 0.01  # of the samples attacked below their failure; beyond it, all are attacked at every ε


def evaluate(
    model: nn.Module,
    images: LabelledImages,
    *,
    protocol: str = "pgd",
    epsilons: Sequence[Number],
    norm: Norm = "linf",
    seed: int = 0,
    exhaustive: bool = False,
    thorough: bool = False,
    batch_size: int = 256,
    folder: Path | None = None,
    resume: bool = False,
    selection: str = "",
    progress: Progress = SILENT,
) -> Evaluation:
    """Evaluates a classifier over a grid of ε by a protocol.

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K), on the device of the images.
        images: the test images, as :func:`asgt.data.as_images` takes them: :class:`asgt.Images`, a pair (images,
            labels) of tensors or numpy arrays, a ``Dataset`` or a ``DataLoader``.
        protocol: ``"paper"``, ``"pgd"``, ``"standard"`` or ``"autoattack"``.
        epsilons: the grid of radii, each above zero, in units of the range [0, 1]; ``"8/255"`` is accepted.
        norm: the norm of ε.
        seed: keys the random starts by (seed, sample, attack, restart).
        exhaustive: in a worst case, attack every sample at every ε below its own too. Default: 64 random ones, each at
            one of them, and all at every one if more than 1 % of these break there.
        thorough: run the dear checks too (:mod:`asgt.evaluation.checks`).
        batch_size: images per forward pass; no bearing on what is drawn.
        folder: where to keep the evidence. Default: nowhere.
        resume: take up what ``folder`` holds, if it was made of the same model, images and settings. Of a finished
            evaluation only the checks are run, the dear ones too if they had been.
        selection: which images of a larger set these are, in words, for the result.
        progress: is told how many images are through.

    Raises:
        InputError: the images, the grid, the model or the folder does not fit.
    """

    named = protocol_named(protocol, norm)
    images = as_images(images, "images")
    return _evaluated(
        model,
        images,
        named,
        epsilons,
        norm,
        seed,
        exhaustive,
        thorough,
        batch_size,
        folder,
        resume,
        progress,
        selection,
    )


def robustness_curve(
    model: nn.Module | Classifier,
    data: LabelledImages,
    *,
    attacks: str | Attack | Callable[..., Any] | Sequence[Attack | Callable[..., Any]] = "pgd",
    epsilons: Sequence[Number],
    norm: Norm = "linf",
    worst_case: bool = True,
    seed: int = 0,
    exhaustive: bool = False,
    thorough: bool = False,
    batch_size: int = 256,
    folder: Path | str | None = None,
    resume: bool = False,
    progress: Progress = SILENT,
) -> Evaluation:
    """Accuracy over ε of any classifier, under a protocol or under attacks of one's own.

    ::

        found = asgt.robustness_curve(model, (x, y), attacks="standard", epsilons=[2 / 255, 4 / 255, 8 / 255])
        found.curve("worst-case")

    Args:
        model: images (B, C, H, W) in [0, 1] to logits (B, K).
        data: the test images, as :func:`asgt.data.as_images` takes them: a pair of images (N, C, H, W) in [0, 1] and
            labels (N,), :class:`asgt.Images`, a ``Dataset`` or a ``DataLoader``; on the device of the model.
        attacks: the name of a protocol; or one attack or several, of :mod:`asgt.attacks` or of a library that calls
            them with images and labels, as torchattacks does: a function of ε that gives such an attack, or one whose
            attribute ``eps`` can be set.
        epsilons: the grid of radii, each above zero, up to as many as you like: a fine grid costs little more.
        norm: the norm of ε; attacks of :mod:`asgt.attacks` bring their own, which must be this one.
        worst_case: a single curve, ``"worst-case"``, of what withstands all attacks and a probe along the margin's
            gradient; else each attack has its own, by its name, and nothing else counts in it.
        seed: keys the random starts.
        exhaustive: attack every image at every ε below its own too.
        thorough: run the dear checks too.
        batch_size: images per forward pass.
        folder: where to keep the evidence. Default: nowhere.
        resume: take up what ``folder`` holds.
        progress: is told how many images are through.

    Raises:
        InputError: the data, the attacks, the grid, the model or the folder does not fit.
    """

    images = as_images(data)
    protocol = protocol_named(attacks, norm) if isinstance(attacks, str) else _of_ones_own(attacks, norm, worst_case)
    if isinstance(attacks, str) and not worst_case and protocol.worst_case:
        raise InputError(f"protocol {attacks} is a worst case: hand over attacks for curves of their own")
    return _evaluated(
        model, images, protocol, epsilons, norm, seed, exhaustive, thorough, batch_size, folder, resume, progress
    )


def _of_ones_own(
    attacks: Attack | Callable[..., Any] | Sequence[Attack | Callable[..., Any]], norm: Norm, worst_case: bool
) -> Protocol:
    """A definition of the attacks that a user names."""

    given = [attacks] if isinstance(attacks, Attack) or callable(attacks) else list(attacks)
    ours = tuple(attack if isinstance(attack, Attack) else Foreign(0.0, norm=norm, made=attack) for attack in given)
    if not ours:
        raise InputError("there is no attack: name a protocol, or hand over attacks")
    for attack in ours:
        if attack.norm != norm:
            raise InputError(f"{attack.title} attacks in {attack.norm}, the curve is asked for in {norm}")

    if worst_case:
        searches = [Search("worst-case", ours, title=f"worst of {', '.join(attack.title for attack in ours)}")]
    else:
        searches = [Search(_slug(attack.title), (attack,), own=True, title=attack.title) for attack in ours]
    names = [search.name for search in searches]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"two attacks are called {min(twice)}: give Foreign attacks names, or ask one after the other")
    return Protocol("own", 1, tuple(searches), True, "attacks of one's own: not yet a robustness claim")


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower().replace("×", "x")).strip("-") or "attack"


@trusted()
def _evaluated(
    model: nn.Module | Classifier,
    images: Images,
    protocol: Protocol,
    epsilons: Sequence[Number],
    norm: Norm,
    seed: int,
    exhaustive: bool,
    thorough: bool,
    batch_size: int,
    folder: Path | str | None,
    resume: bool,
    progress: Progress,
    selection: str = "",
) -> Evaluation:
    grid, seed, batch_size = checked_grid(epsilons, norm), whole(seed, "seed"), whole(batch_size, "batch_size")
    folder = None if folder is None else Path(folder)
    _check(model, images, protocol, batch_size, folder)
    device = images.labels.device
    # A model that draws from the global generators draws the same again, and leaves them as they were.
    with seeded_globally(seed_of("classes", seed), device):
        classes = class_count(model, images)
    if (largest := int(images.labels.max())) >= classes:
        raise InputError(f"label {largest} is out of range: the model tells {classes} classes apart, from 0")
    for search in protocol.searches:
        if not search.among(classes).attacks:
            raise InputError(f"{search.title} aims at classes that a model of {classes} does not have")

    with seeded_globally(seed_of("clean", seed), device):
        votes = VOTES if protocol.worst_case and wavers(model, images) else 1
        clean = correct(model, images, batch_size, votes=votes)[0].cpu()
    found = Evaluation(
        protocol,
        norm,
        grid,
        seed,
        model=digest_model(model) if isinstance(model, nn.Module) else "",
        data=images.digest(),
        classes=classes,
        clean=clean,
        outcomes={},
        exhaustive=exhaustive,
        votes=votes,
        selection=selection,
    )
    if folder is not None:
        _claim(folder, resume)
        thorough |= _same(folder / "result.json", found)

    parts = sum(len(search.among(classes).attacks) for search in protocol.searches)
    progress.start(f"{protocol.name} v{protocol.version}", parts * len(images))
    for search in protocol.searches:
        kept, seconds = _searched(model, images, search, found, search.name, exhaustive, batch_size, folder, progress)
        if protocol.worst_case and not exhaustive and _assumed_too_much(kept):
            progress.say(f"{search.name}: attacks below a failure succeeded: every sample is attacked at every eps")
            progress.start(f"{search.name}, at every eps", len(images))
            name = f"{search.name}{EXHAUSTIVE}"
            kept, more = _searched(model, images, search, found, name, True, batch_size, folder, progress)
            seconds += more
        found.outcomes[search.name] = kept.pop("correct")
        found = replace(found, clean=kept.pop("clean"))
        found.details[search.name], found.seconds[search.name] = kept, seconds
    progress.stop()
    with seeded_globally(seed_of("checks", seed), device):
        checks = run_checks(model, images, found, thorough=thorough, batch_size=batch_size, progress=progress)
    found = replace(found, checks=checks)

    if folder is not None:
        write_json(folder / "result.json", found.to_dict())
    return found


def _check(
    model: nn.Module | Classifier, images: Images, protocol: Protocol, batch_size: int, folder: Path | None
) -> None:
    """Refuses what could not be evaluated, or not be told apart on disk."""

    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: at least one image a pass")
    if images.pixels.dtype in (torch.float16, torch.bfloat16):
        raise InputError("images in half precision leave the ball by rounding: hand over float32, cast in the model")
    if folder is None:
        return
    if not isinstance(model, nn.Module) or not model.state_dict():
        raise InputError("evidence knows a model by its weights: hand over an nn.Module that has some, or no folder")
    for attack in (attack for search in protocol.searches for attack in search.attacks):
        if isinstance(attack, Foreign) and not attack.name:
            raise InputError(f"evidence knows {attack.title} by its name alone: Foreign(0.0, made=…, name=…) gives one")


def _audited(count: int, seed: int) -> Tensor:
    """The samples to be attacked below their failure, and how far: shares in [0, 1), float (N,), NaN for the others."""

    generator = seeded("audit", seed)
    shares = torch.full((count,), torch.nan)
    chosen = torch.randperm(count, generator=generator)[:AUDITED]
    shares[chosen] = torch.rand(len(chosen), generator=generator)
    return shares


def _assumed_too_much(kept: dict[str, Tensor]) -> bool:
    """Whether more of the samples that were attacked below their failure broke there than may."""

    return bool((kept["missed"] > 0).sum() > _MISSED * (kept["tested"] > 0).sum())


def _searched(
    model: Classifier,
    images: Images,
    search: Search,
    found: Evaluation,
    stem: str,
    exhaustive: bool,
    batch_size: int,
    folder: Path | None,
    progress: Progress,
) -> tuple[dict[str, Tensor], float]:
    """What a search found on all samples, shard by shard, and its seconds; what a folder holds is taken up."""

    shards, seconds = [], 0.0
    audited = _audited(len(images), found.seed)
    attacks = search.among(found.classes).attacks
    whole = any(isinstance(attack, Whole) for attack in attacks)
    size = SHARD // 2 if whole else SHARD // 8 if len(attacks) > 1 else SHARD
    for number, rows in enumerate(torch.arange(len(images)).split(size)):
        evidence = None if folder is None else folder / f"{stem}-{number:05d}.safetensors"
        if evidence is not None and evidence.exists():
            told = kept_shard(evidence, found, stem, int(rows[0]))
            if told is None or len(told[0]["clean"]) != len(rows):
                raise InputError(
                    f"{evidence} was made of another model, other images or other settings: name another folder by "
                    "--out"
                )
            kept, took = told
            progress.advance(len(rows) * len(attacks))
        else:
            began = time.perf_counter()
            part, place = images[rows.to(images.labels.device)], rows.to(images.labels.device)
            with seeded_globally(seed_of(stem, found.seed, int(rows[0])), place.device):
                if found.protocol.worst_case:
                    kept = _worst(
                        model, part, place, search, attacks, found, audited[rows], exhaustive, batch_size, progress
                    )
                else:
                    kept = {"clean": found.clean[rows]} | _as_it_falls_out(
                        model, part, place, search, found, batch_size, progress
                    )
            took = round(time.perf_counter() - began, 3)  # as the shard keeps it
            if evidence is not None:
                metadata = {"key": evidence_key(found, stem, int(rows[0]), len(rows)), "seconds": f"{took:.3f}"}
                write_tensors(evidence, kept, metadata)
        shards.append(kept)
        seconds += took
    return {tensor: torch.cat([shard[tensor] for shard in shards], dim=-1) for tensor in shards[0]}, seconds


def _worst(
    model: Classifier,
    part: Images,
    rows: Tensor,
    search: Search,
    attacks: Sequence[Attack],
    found: Evaluation,
    audited: Tensor,
    exhaustive: bool,
    batch_size: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """What the worst case of some attacks leaves of some samples: ``clean``, ``correct`` (E, B) and the details."""

    outcome = smallest_norms(
        model,
        part,
        attacks,
        found.epsilons,
        seed=found.seed,
        rows=rows,
        clean=found.clean[rows.cpu()].to(rows.device),
        own=search.own,
        audited=audited,
        exhaustive=exhaustive,
        votes=found.votes,
        batch_size=batch_size,
        progress=progress,
    )
    if outcome.nan:
        raise InputError(
            f"the model gives NaN on images attacked by {search.name}: no accuracy can be stated; look for overflow "
            "in the model"
        )
    kept = {name: getattr(outcome, name).cpu() for name in WORST_CASE}
    return kept | {"clean": (outcome.norms > 0).cpu(), "correct": outcome.correct(len(found.epsilons)).cpu()}


def _as_it_falls_out(
    model: Classifier,
    part: Images,
    rows: Tensor,
    search: Search,
    found: Evaluation,
    batch_size: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Whether the final iterate at each ε is right, ``correct`` (E, B), and how many were ``illegal``."""

    right, illegal = [], []
    for (x, y), ids in zip(batches(part, batch_size), rows.split(batch_size), strict=True):
        columns, outside = [], torch.zeros_like(y)
        for eps, x_adv in zip(found.epsilons, _final_iterates(model, x, y, ids, search, found), strict=True):
            columns.append(predict(model, x_adv, f"{search.name} at eps {eps:g}") == y)
            outside += ~is_legal(x_adv, x, eps, found.norm)
        right.append(torch.stack(columns).cpu())
        illegal.append(outside.cpu())
        progress.advance(len(y))
    return {"correct": torch.cat(right, dim=1), "illegal": torch.cat(illegal)}


def _final_iterates(
    model: Classifier, x: Tensor, y: Tensor, rows: Tensor, search: Search, found: Evaluation
) -> Iterator[Tensor]:
    """Each ε from scratch on every image of a batch.

    FGSM's one gradient serves all ε. And a ball that the steps cannot cross does not stop them: from X itself, every ε
    beyond their reach gives the same iterates.
    """

    (attack,) = search.attacks
    if not isinstance(attack, FGSM):
        reach = None if attack.starts_at_random else search.reach
        beyond: Tensor | None = None
        for eps in found.epsilons:
            if beyond is not None:
                yield beyond
                continue
            x_adv = search.at(eps)(model, x, y, generator=SampleKeyed(found.seed, rows))
            # A thousandth is far more than ten steps round.
            if reach is not None and eps > 1.001 * reach:
                beyond = x_adv
            yield x_adv
        return
    with evaluating(model):
        state = attack.start(model, x, y, 0.0)
        direction = state.gradient()[0].sign()
    for eps in found.epsilons:
        radius = torch.full_like(state.eps, eps)
        yield attack.moved(replace(state, eps=radius), direction, radius).x_adv


def _claim(folder: Path, resume: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: --out takes a folder")
    if folder.exists() and any(folder.iterdir()) and not resume:
        raise InputError(f"{folder} holds an evaluation already: --resume takes it up, --out names another folder")


def _same(path: Path, found: Evaluation) -> bool:
    """Refuses to write over the finished result of another evaluation; says whether it was checked thoroughly."""

    if not path.is_file():
        return False
    kept = read_json(path)
    asked = {
        "schema": SCHEMA,
        "protocol": definition(found.protocol, found.classes),
        "norm": found.norm,
        "seed": found.seed,
        "model": found.model,
        "data": found.data,
        "exhaustive": found.exhaustive,
        "votes": found.votes,
    }
    try:
        there = {name: kept[name] for name in asked}
        grids = {tuple(row["eps"] for row in curve) for curve in kept["attacks"].values()}
        there["schema"] = kept["schema"] if grids == {found.epsilons} else None
        remedies = [check["remedy"] for check in kept["checks"]]
    except (AttributeError, LookupError, TypeError):
        there, remedies = {}, []
    if there != asked:
        raise InputError(
            f"{path} was made of another model, other images or other settings: name another folder by --out"
        )
    return bool(remedies) and THOROUGH not in remedies
