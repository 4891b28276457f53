"""The conditions of a comparison: runs on the same images and classes, evaluated by the same protocols at the same ε.

Each refusal names both runs and the command that makes them comparable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..evaluation.outcomes import Evaluation
from ..evaluation.protocols import EARLIER, KNOWN, OWN, PROTOCOLS, stored_name
from ..runs.run import Run, data_name, evaluate_again, evaluate_command
from ..training.run_folder import AS_GIVEN, RunFolder
from .method_naming import is_same_method

__all__ = ["left_out", "listed", "refuse_other_evaluations", "refuse_other_runs", "shared_epsilons", "shared_protocols"]


def refuse_other_runs(runs: Sequence[Run]) -> None:
    """Refuses runs that cannot be in one table.

    Raises:
        InputError: two runs are the same method and seed, or of one method trained on different images; or their test
            images or classes differ.
    """

    _refuse_repeated(runs)
    _refuse_other_data(runs)


def refuse_other_evaluations(runs: Sequence[Run], protocols: Sequence[str]) -> None:
    """Refuses evaluations on other images of the test split, in another norm, or without a common ε.

    Raises:
        InputError: the evaluations are not comparable.
    """

    _refuse_other_images(runs, protocols)
    _refuse_other_grids(runs, protocols)


def shared_protocols(runs: Sequence[Run]) -> list[str]:
    """The keys of the protocols that every run was evaluated by, the strictest last; protocols of the user's attacks
    come first.

    Raises:
        InputError: there is none.
    """

    shared = [name for name in (OWN, *KNOWN) if all(name in run.evaluations for run in runs)]
    if OWN in shared and len({run.evaluations[OWN].protocol.identity for run in runs}) > 1:
        shared.remove(OWN)
    if not shared:
        held = "; ".join(f"{run.folder} holds {listed(list(run.evaluations))}" for run in runs)
        name = max((*PROTOCOLS, *EARLIER), key=lambda name: sum(name in run.evaluations for run in runs))
        lacking = next(run for run in runs if name not in run.evaluations)
        raise InputError(f"no protocol is common to all: {held}: {evaluate_command(lacking, '--protocol', name)}")
    return shared


def shared_epsilons(evaluations: Sequence[Evaluation]) -> tuple[float, ...]:
    """The ε that all evaluations have, ascending."""

    return tuple(sorted(set.intersection(*(set(evaluation.epsilons) for evaluation in evaluations))))


def left_out(runs: Sequence[Run], epsilons: dict[str, tuple[float, ...]]) -> list[str]:
    """The results that only some runs have, in sentences."""

    sentences = []
    for name in KNOWN:
        lacking = [str(run.folder) for run in runs if name not in run.evaluations]
        if name not in epsilons and len(lacking) < len(runs):
            sentences.append(f"protocol {name} is omitted: no evaluation by it in {listed(lacking)}")

    if OWN not in epsilons and any(OWN in run.evaluations for run in runs):
        sentences.append("user-defined attacks are omitted: not every run was evaluated by the same ones")

    for name, shared in epsilons.items():
        grids = {str(run.folder): run.evaluations[name].epsilons for run in runs}
        for eps in sorted({eps for grid in grids.values() for eps in grid} - set(shared)):
            lacking = [folder for folder, grid in grids.items() if eps not in grid]
            sentences.append(f"protocol {name} at eps {eps:g} is omitted: not evaluated in {listed(lacking)}")
    return sentences


def listed(words: Sequence[str]) -> str:
    """``a``; ``a and b``; ``a, b and c``."""

    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _refuse_repeated(runs: Sequence[Run]) -> None:
    """Refuses runs whose spread would be none over seeds."""

    for number, run in enumerate(runs):
        for other in runs[:number]:
            if not is_same_method(run, other):
                continue
            both = f"{other.folder} and {run.folder}"
            if run.config.epochs == 0 and _is_same(run, other):
                raise InputError(f"{both} hold the same {AS_GIVEN}, which have no spread over seeds: remove one")
            if run.seed == other.seed:
                raise InputError(
                    f"{both} hold the same method, settings and seed ({run.seed}), which has no spread over seeds: "
                    "remove one, or train it with another --seed"
                )
            if run.result.train_data != other.result.train_data and run.config.epochs:
                raise InputError(
                    f"{both} hold the same method and settings, trained on different images: remove one, or train "
                    "it again on the same ones"
                )


def _is_same(run: Run, other: Run) -> bool:
    """Whether two runs of no epochs hold the same weights, as far as that is known."""

    both = [
        {each.model for each in one.evaluations.values()} | {each.model for each in one.explanations.values()}
        for one in (run, other)
    ]
    starts = [one.result.start.get("sha256") for one in (run, other)]
    return bool(both[0] & both[1]) or (starts[0] == starts[1] is not None)


def _refuse_other_data(runs: Sequence[Run]) -> None:
    """Refuses runs whose test images, as a whole, or classes are not the same."""

    first = runs[0]
    for run in runs[1:]:
        both = f"{first.folder} and {run.folder}"
        if run.result.test_data != first.result.test_data:
            names = data_name(first), data_name(run)
            which = f"images of {names[0]}" if names[0] == names[1] else f"data ({names[0]} and {names[1]})"
            raise InputError(f"{both} were tested on different {which}: compare runs with the same test images")
        if run.result.classes != first.result.classes:
            raise InputError(f"{both} have different classes: compare runs with the same classes")


def _refuse_other_images(runs: Sequence[Run], protocols: Sequence[str]) -> None:
    """Refuses evaluations on other images of the test split, or in another norm.

    Two protocols may have different numbers of images: a costly one fewer than a cheap one.
    """

    (first_run, first_name, first), *others = found = _evaluations(runs, protocols)
    for run, name, evaluation in others:
        other_run, other_name, other = next(
            each for each in found if each[1] == name or each[2].samples == evaluation.samples
        )
        if evaluation.data != other.data:
            both = _both(other_run, other_name, run, name)
            counts = "" if evaluation.samples == other.samples else f" (n = {other.samples} and {evaluation.samples})"
            raise InputError(
                f"{both} were tested on different images of {data_name(run)}{counts}: "
                + evaluate_again(run.folder, name, f"--samples {other.samples}")
            )
        if evaluation.norm != first.norm:
            raise InputError(
                f"{_both(first_run, first_name, run, name)} were evaluated in different norms ({first.norm} and "
                f"{evaluation.norm}): " + evaluate_again(run.folder, name, f"--norm {first.norm}")
            )


def _both(first: Run, first_protocol: str, second: Run, protocol: str) -> str:
    """Two runs, or two evaluations of one."""

    if first is second:
        return f"{_folder(first, first_protocol)} and {_folder(second, protocol)}"
    return f"{first.folder} and {second.folder}"


def _refuse_other_grids(runs: Sequence[Run], protocols: Sequence[str]) -> None:
    """Refuses evaluations that have no ε in common."""

    (_, _, first), *others = _evaluations(runs, protocols)
    shared = set(first.epsilons)
    for run, name, evaluation in others:
        if shared.isdisjoint(evaluation.epsilons):
            grid, asked = (",".join(f"{eps:g}" for eps in sorted(values)) for values in (evaluation.epsilons, shared))
            raise InputError(
                f"no eps is common to all: {_folder(run, name)} has {grid}, the others share "
                f"{asked}: " + evaluate_again(run.folder, name, "--epsilons " + ",".join(map(repr, sorted(shared))))
            )
        shared &= set(evaluation.epsilons)


def _folder(run: Run, protocol: str) -> Path:
    """The folder of a run's evaluation by the protocol of a key."""

    return RunFolder(run.folder).evaluation(stored_name(protocol))


def _evaluations(runs: Sequence[Run], protocols: Sequence[str]) -> list[tuple[Run, str, Evaluation]]:
    return [(run, name, run.evaluations[name]) for name in protocols for run in runs]
